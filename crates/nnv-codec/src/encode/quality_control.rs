// SPDX-License-Identifier: MPL-2.0
//! Rate control by quality: turns a wanted mean of a measure into quantizers.
//!
//! The encoder has each frame's reconstruction, so it measures it. Every [`FrameClass`] has a line
//! `level = a - slope * quantizer`, whose `a` follows what was measured; a base quantizer is solved
//! from the lines such that the mean frame meets the target, corrected by what the frames so far
//! were too good or too bad by. Before anything is measured, and where a key frame begins another
//! scene, `a` comes from the content: its busier half decides how much a step loses. Nothing is
//! coded twice. Fractions of the quantizer are diffused over frames.
//!
//! Levels are decibels: PSNR itself, `-10 log10(1 - x)` of SSIM and MS-SSIM.

use std::collections::HashMap;

use nnv_format::picture::Picture;
use nnv_quality::{PlaneView, QualityError, SquaredError, decibels, ms_ssim, peak, ssim};

use super::planner::FrameClass;
use crate::config::{EncoderConfig, QualityMetric, QualityTarget};
use crate::error::CodecError;

/// Decibels per quantizer of each measure, when all frames move together: 0.13 to 0.38 of PSNR over
/// clips of many kinds.
const SLOPE: f64 = 0.3;
const SLOPE_SSIM: f64 = 0.25;
/// Weight of a new observation in a class's line.
const LEARN: f64 = 0.5;
/// Frames over which errors of the mean are made up for, and most that is aimed beyond the target
/// for it, in dB.
const HORIZON: f64 = 14.0;
const CORRECTION: f64 = 2.5;
/// Most that the base quantizer moves between two decisions, once it has settled.
const STEP: f64 = 4.0;
/// Levels at quantizer 0 of a picture without detail, and what each doubling of its detail takes
/// off: for the first decision.
const CONTENT_PSNR: (f64, f64) = (56.1, 3.2);
const CONTENT_SSIM: (f64, f64) = (24.0, 0.5);
/// Level of inter frames at the base quantizer against the line of their key frame, until one is
/// seen: what they inherit makes up for their offsets and a little more.
const INTER: f64 = 0.85;
/// Frames without any error count as this many dB.
const BEST: f64 = 70.0;

/// Quality of a frame: the measure itself.
fn level(metric: QualityMetric, value: f64) -> f64 {
    match metric {
        QualityMetric::Psnr => value,
        QualityMetric::Ssim | QualityMetric::MsSsim => -10.0 * (1.0 - value).max(1e-7).log10(),
    }
    .min(BEST)
}

/// Chooses quantizers. Ask [`quantizer`](Self::quantizer) for each frame in coding order, report
/// the quality of each with [`update`](Self::update); reports of a batch may come after all its
/// questions.
#[derive(Debug, Clone)]
pub struct QualityController {
    target: QualityTarget,
    min: f64,
    max: f64,
    slope: f64,
    /// `a` of each class.
    lines: HashMap<FrameClass, f64>,
    /// Weight and offset of each class in the mean frame.
    mix: HashMap<FrameClass, (f64, f64)>,
    /// What the last key frame's content gave.
    content: Option<f64>,
    base: f64,
    decisions: u64,
    carry: f64,
    /// What all frames so far were too bad by, in dB.
    deficit: f64,
    /// What the last frame that others follow was worth.
    last: Option<f64>,
}

impl QualityController {
    /// A controller for a validated configuration.
    pub fn new(config: &EncoderConfig, target: QualityTarget) -> Self {
        let tuning = config.effective_tuning();
        let bframes = config.effective_bframes();
        let mut mix = HashMap::new();
        if config.key_int_max == 1 {
            mix.insert(FrameClass::Key, (1.0, f64::from(tuning.key_only)));
        } else if bframes == 0 {
            for (place, offset) in (0_u8..).zip(tuning.low_delay) {
                mix.insert(FrameClass::LowDelay(place), (1.0, f64::from(offset)));
            }
        } else {
            // An anchor, one frame between, two, four: as many levels as there is room for.
            let mut left = f64::from(bframes) + 1.0;
            let mut count = 1.0;
            for (level, offset) in (0_u8..).zip(tuning.levels) {
                let here = f64::min(count, left);
                if here > 0.0 {
                    mix.insert(FrameClass::Inter(level), (here, f64::from(offset)));
                }
                left -= here;
                count *= if level == 0 { 1.0 } else { 2.0 };
            }
        }
        Self {
            target,
            min: f64::from(config.min_quantizer),
            max: f64::from(config.max_quantizer),
            slope: match target.metric {
                QualityMetric::Psnr => SLOPE,
                QualityMetric::Ssim | QualityMetric::MsSsim => SLOPE_SSIM,
            },
            lines: HashMap::new(),
            mix,
            content: None,
            base: f64::from(config.quantizer),
            decisions: 0,
            carry: 0.0,
            deficit: 0.0,
            last: None,
        }
    }

    /// Tells of the next key frame's content.
    ///
    /// Before any was coded that is all there is; afterwards what counts is how it has changed.
    pub fn hint_key(&mut self, picture: &Picture) {
        let (flat, octave) = match self.target.metric {
            QualityMetric::Psnr => CONTENT_PSNR,
            QualityMetric::Ssim | QualityMetric::MsSsim => CONTENT_SSIM,
        };
        let a = flat - octave * (1.0 + detail(picture)).log2();
        let before = self.content.replace(a).unwrap_or(a);
        self.lines.values_mut().for_each(|line| *line += a - before);
        self.lines.entry(FrameClass::Key).or_insert(a);
    }

    fn line(&self, class: FrameClass) -> f64 {
        if let Some(a) = self.lines.get(&class) {
            return *a;
        }
        let offset = |class: &FrameClass| self.mix.get(class).map_or(0.0, |(_, offset)| *offset);
        let key = self.lines.get(&FrameClass::Key).copied();
        let inter = self.lines.iter().filter(|(c, _)| **c != FrameClass::Key);
        let (sum, n) = inter.fold((0.0, 0.0), |(sum, n), (c, a)| {
            (sum + a - self.slope * offset(c), n + 1.0)
        });
        let at_base = match class {
            FrameClass::Key => return key.unwrap_or(CONTENT_PSNR.0),
            _ if n > 0.0 => sum / n,
            _ => key.unwrap_or(CONTENT_PSNR.0) + INTER,
        };
        at_base + self.slope * offset(&class)
    }

    fn solve(&self) -> f64 {
        let target = level(self.target.metric, self.target.target.value());
        let correction = (self.deficit / HORIZON).clamp(-CORRECTION, CORRECTION);
        let (mut sum, mut all) = (0.0, 0.0);
        for (class, (weight, offset)) in &self.mix {
            sum += weight * (self.line(*class) - self.slope * offset);
            all += weight;
        }
        (sum / f64::max(all, 1.0) - target - correction) / self.slope
    }

    /// The quantizer of the next frame. `offset` is added to the base.
    pub fn quantizer(&mut self, class: FrameClass, offset: i8) -> u8 {
        let offset = f64::from(offset);
        if class == FrameClass::Repeat {
            return self.min as u8;
        }
        if let Some((_, known)) = self.mix.get_mut(&class) {
            *known = offset;
        }
        // Inner levels of a mini-GOP follow its anchor.
        let inner = matches!(class, FrameClass::Inter(1..));
        if !inner || self.decisions == 0 {
            let solved = self.solve().clamp(self.min - 16.0, self.max + 16.0);
            self.base = if self.decisions < 2 {
                solved
            } else {
                self.base + (solved - self.base).clamp(-STEP, STEP)
            };
            self.decisions += 1;
        }
        let mut exact = self.base + offset;
        if let Some(floor) = self.target.floor {
            let floor = level(self.target.metric, floor.value());
            exact = exact.min((self.line(class) - floor) / self.slope);
        }
        let exact = exact.clamp(self.min, self.max);
        let q = (exact + self.carry).round().clamp(self.min, self.max);
        self.carry = (self.carry + exact - q).clamp(-1.0, 1.0);
        q as u8
    }

    /// Reports what a coded frame is worth at the quantizer that it got.
    pub fn update(&mut self, class: FrameClass, quantizer: u8, value: f64) {
        if !matches!(class, FrameClass::Inter(1..)) {
            self.last = Some(value);
        }
        let got = level(self.target.metric, value);
        self.count(value);
        let seen = got + self.slope * f64::from(quantizer);
        let line = self.lines.entry(class).or_insert(seen);
        let first_key = class == FrameClass::Key && self.decisions <= 1;
        *line += (seen - *line) * if first_key { 1.0 } else { LEARN };
    }

    /// Reports a frame that repeats the one before: it is worth what that was.
    pub fn repeated(&mut self) {
        if let Some(value) = self.last {
            self.count(value);
        }
    }

    fn count(&mut self, value: f64) {
        let metric = self.target.metric;
        let got = level(metric, value);
        // A mean of the measure is wanted, not of its decibels: errors count by the measure, in
        // decibels at the target.
        let wanted = self.target.target.value();
        self.deficit += match metric {
            QualityMetric::Psnr => wanted - got,
            QualityMetric::Ssim | QualityMetric::MsSsim => {
                let per_unit = 10.0 / std::f64::consts::LN_10 / (1.0 - wanted).max(1e-6);
                (wanted - value) * per_unit
            }
        };
        // What a ceiling of the rate forbade, or still pictures were too good by, is not made up
        // for without end.
        let most = 2.0 * HORIZON * CORRECTION;
        self.deficit = self.deficit.clamp(-most, most);
    }
}

/// Mean difference of luma from the mean of its left and upper samples, in 8-bit code values.
pub(super) fn detail(picture: &Picture) -> f64 {
    let luma = picture.luma();
    let (w, h) = (luma.visible_width(), luma.visible_height());
    let (mut sum, mut count) = (0_u64, 0_u64);
    for y in (1..h).step_by(2) {
        let (row, above) = (luma.row(y), luma.row(y - 1));
        for x in 1..w {
            sum += u64::from(row[x].abs_diff((row[x - 1] + above[x]) / 2));
            count += 1;
        }
    }
    sum as f64 / count.max(1) as f64 / 4.0
}

/// What a picture is worth beside its original, as users get both in `bit_depth`.
///
/// # Errors
/// None for pictures of one size.
pub fn measure(
    metric: QualityMetric,
    bit_depth: u8,
    original: &Picture,
    coded: &Picture,
) -> Result<f64, CodecError> {
    let internal = |e: QualityError| CodecError::Internal(e.to_string());
    let depth = if bit_depth == 8 { 8 } else { 10 };
    let planes = if metric == QualityMetric::Psnr { 3 } else { 1 };
    let mut errors = [0.0; 3];
    for (plane, error) in errors.iter_mut().enumerate().take(planes) {
        let samples = [original, coded].map(|picture| shown(picture, plane, depth));
        let (w, h) = (samples[0].1, samples[0].2);
        let view = |i: usize| {
            let samples: &Shown = &samples[i].0;
            match samples {
                Shown::Bytes(bytes) => PlaneView::u8(bytes, w, h, w),
                Shown::Words(words) => PlaneView::u16(words, w, h, w, depth),
            }
        };
        let (a, b) = (view(0).map_err(internal)?, view(1).map_err(internal)?);
        match metric {
            QualityMetric::Psnr => *error = SquaredError::of(a, b).map_err(internal)?.mean(),
            QualityMetric::Ssim => return ssim(a, b).map_err(internal),
            QualityMetric::MsSsim => {
                // Pictures too small for it are judged by SSIM.
                return match ms_ssim(a, b).map_err(internal)? {
                    Some(found) => Ok(found.ms_ssim),
                    None => ssim(a, b).map_err(internal),
                };
            }
        }
    }
    let mean = (6.0 * errors[0] + errors[1] + errors[2]) / 8.0;
    Ok(decibels(mean, peak(depth)).min(BEST))
}

enum Shown {
    Bytes(Vec<u8>),
    Words(Vec<u16>),
}

/// Samples of a plane as they are shown, its width and height.
fn shown(picture: &Picture, plane: usize, depth: u8) -> (Shown, usize, usize) {
    let plane = picture.plane(plane);
    let (w, h) = (plane.visible_width(), plane.visible_height());
    let rows = (0..h).map(|y| &plane.row(y)[..w]);
    let samples = if depth == 8 {
        let byte = |v: &u16| ((v + 2) >> 2).min(255) as u8;
        Shown::Bytes(rows.flat_map(|row| row.iter().map(byte)).collect())
    } else {
        Shown::Words(rows.flatten().copied().collect())
    };
    (samples, w, h)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Level;
    use nnv_bitstream::StreamInfo;

    /// Runs a controller on frames that are what `quality` says, and gives the mean.
    fn mean(
        config: &EncoderConfig,
        target: QualityTarget,
        frames: usize,
        quality: impl Fn(usize, FrameClass, u8) -> f64,
    ) -> f64 {
        let mut control = QualityController::new(config, target);
        let picture = Picture::new(64, 64).unwrap();
        control.hint_key(&picture);
        let tuning = config.effective_tuning();
        let mut sum = 0.0;
        for n in 0..frames {
            let (class, offset) = match n {
                0 => (FrameClass::Key, tuning.key),
                _ => (
                    FrameClass::LowDelay((n - 1) as u8 % 4),
                    tuning.low_delay[(n - 1) % 4],
                ),
            };
            let q = control.quantizer(class, offset);
            let value = quality(n, class, q);
            control.update(class, q, value);
            sum += value;
        }
        sum / frames as f64
    }

    fn config() -> EncoderConfig {
        EncoderConfig::new(StreamInfo::new(64, 64, 8))
    }

    fn target(metric: QualityMetric, value: f64) -> QualityTarget {
        QualityTarget {
            metric,
            target: Level::new(value),
            floor: None,
        }
    }

    #[test]
    fn the_mean_is_met_for_other_content_and_other_slopes() {
        for (a, slope) in [(50.0, 0.4), (62.0, 0.5), (44.0, 0.3)] {
            for wanted in [30.0, 34.0, 38.0] {
                let quality = |n: usize, class: FrameClass, q: u8| {
                    let inter = if class == FrameClass::Key { 0.0 } else { -1.0 };
                    a + inter + (n % 3) as f64 * 0.2 - slope * f64::from(q)
                };
                let best = quality(2, FrameClass::Key, 0);
                // Offsets of the pattern reach 11 beyond the base, and no quantizer is above 63.
                let worst = quality(0, FrameClass::LowDelay(0), 52);
                if best < wanted + 2.0 || worst > wanted {
                    continue;
                }
                let got = mean(&config(), target(QualityMetric::Psnr, wanted), 64, quality);
                assert!(
                    (got - wanted).abs() < 0.25,
                    "{a} {slope}: {got} for {wanted}"
                );
            }
        }
    }

    #[test]
    fn means_of_ssim_are_met() {
        for wanted in [0.9, 0.96, 0.99] {
            let quality = |_: usize, _: FrameClass, q: u8| {
                1.0 - 10_f64.powf(-(26.0 - 0.3 * f64::from(q)) / 10.0)
            };
            let got = mean(&config(), target(QualityMetric::Ssim, wanted), 64, quality);
            assert!(
                (got - wanted).abs() < 0.1 * (1.0 - wanted),
                "{got} for {wanted}"
            );
        }
    }

    #[test]
    fn a_floor_holds_single_classes() {
        let mut control = QualityController::new(
            &config(),
            QualityTarget {
                floor: Some(Level::new(36.0)),
                ..target(QualityMetric::Psnr, 30.0)
            },
        );
        let quality = |q: u8| 50.0 - 0.4 * f64::from(q);
        let mut last = 0.0;
        for n in 0..24_u8 {
            let class = FrameClass::LowDelay(n % 4);
            let q = control.quantizer(class, 0);
            last = quality(q);
            control.update(class, q, last);
        }
        assert!((35.6..37.0).contains(&last), "{last}");
    }

    #[test]
    fn what_cannot_be_reached_ends_at_the_best_quantizer() {
        let mut worst = 0;
        mean(
            &config(),
            target(QualityMetric::Psnr, 60.0),
            12,
            |_, _, q| {
                assert!(q <= 63);
                50.0 - 0.4 * f64::from(q)
            },
        );
        let mut control = QualityController::new(&config(), target(QualityMetric::Psnr, 65.0));
        for _ in 0..12 {
            worst = control.quantizer(FrameClass::LowDelay(0), 11);
            control.update(
                FrameClass::LowDelay(0),
                worst,
                50.0 - 0.4 * f64::from(worst),
            );
        }
        assert_eq!(worst, 0);
    }

    #[test]
    fn measured_as_shown() {
        let mut a = Picture::new(16, 16).unwrap();
        let mut b = Picture::new(16, 16).unwrap();
        for (picture, value) in [(&mut a, 400), (&mut b, 401)] {
            for plane in picture.planes_mut() {
                for y in 0..plane.visible_height() {
                    plane.row_mut(y).fill(value);
                }
            }
        }
        // A quarter of a code of 8 bits rounds away, in 10 bits it does not.
        assert_eq!(measure(QualityMetric::Psnr, 8, &a, &b).unwrap(), BEST);
        let db = measure(QualityMetric::Psnr, 10, &a, &b).unwrap();
        assert!((db - 20.0 * 1023_f64.log10()).abs() < 1e-9);
        assert_eq!(measure(QualityMetric::Ssim, 8, &a, &b).unwrap(), 1.0);
    }
}

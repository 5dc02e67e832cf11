// SPDX-License-Identifier: MPL-2.0
//! Rate control by quality: turns a wanted mean of a measure into quantizers.
//!
//! The encoder has each frame's reconstruction, so it measures it. Every [`FrameClass`] has a line
//! `level = a - slope * quantizer`, whose `a` follows what was measured; a base quantizer is solved
//! from the lines such that the mean of frames meets the target. It stays near the one that would
//! have met it from the beginning, since one quantizer for all costs the fewest bits; how far it
//! may stay there is told by what the mean so far leaves room for. Before anything is measured,
//! and where a key frame begins another scene, `a` comes from the content: its busier half decides
//! how much a step loses. Nothing is coded twice. Fractions of the quantizer are diffused over
//! frames.
//!
//! Levels are decibels: PSNR itself, `-10 log10(1 - x)` of SSIM, MS-SSIM and hundredths of VMAF.

use std::collections::HashMap;

use nnv_format::picture::Picture;

use super::planner::FrameClass;
use super::quality_reach::{QualityOutOfReach, Reach};
use crate::config::{EncoderConfig, QualityMetric, QualityTarget};

/// Weight of a new observation in a class's line.
const LEARN: f64 = 0.5;
/// Most that is aimed beside the target, in dB, and for how many frames.
const CORRECTION: f64 = 2.5;
const LONGEST: f64 = 40.0;
/// Frames that means are taken over.
const MEMORY: f64 = 400.0;
/// Most that the base quantizer moves between two decisions, once it has settled.
const STEP: f64 = 4.0;
/// Frames a second where nobody said how many.
const USUAL_RATE: f64 = 25.0;
/// How far inter frames of another scene may be from what its key frame tells of them, in dB.
const SCENES: f64 = 3.0;
/// Frames without any error count as this many dB.
pub(super) const BEST: f64 = 70.0;
/// The same of VMAF, whose sums run into 100 before all errors are gone.
const BEST_VMAF: f64 = 25.0;

/// What quantizers do to a measure, in decibels.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// What a quantizer takes off when all frames move together. 0.13 to 0.38 of PSNR over clips of
    /// many kinds.
    slope: f64,
    /// Level at quantizer 0 of a picture without detail, and what each doubling of its detail takes
    /// off: for the first decision.
    content: (f64, f64),
    /// Level of inter frames at the base quantizer against the line of their key frame, until one
    /// is seen: what they inherit makes up for their offsets and a little more.
    inter: f64,
    /// Decisions until the base quantizer has settled in a scene.
    guesses: u32,
    /// How far all lines go with the one that was measured.
    shared: f64,
    /// By how much a frame may be better than wanted, in dB, that its class's line still follows:
    /// near the end of a measure a little more quality is many decibels.
    heard: f64,
    /// Frames over which errors of the mean are made up for.
    horizon: f64,
    /// Most that the mean may be off by after these, in dB: within that, scenes that differ keep
    /// their quantizer.
    tolerance: f64,
}

impl Scale {
    fn of(metric: QualityMetric) -> Self {
        let (slope, content, inter) = match metric {
            QualityMetric::Psnr => (0.3, (56.1, 3.2), 0.85),
            QualityMetric::Ssim | QualityMetric::MsSsim => (0.25, (24.0, 0.5), 0.85),
            QualityMetric::Vmaf => (0.25, (16.5, -0.6), 0.85),
        };
        // Key frames tell less of VMAF than of the others, and classes are measured less often. So
        // the mean itself is known less well, and may be off by less.
        let (guesses, shared, heard, horizon, tolerance) = match metric {
            QualityMetric::Vmaf => (3, 0.5, 4.0, 14.0, 0.1),
            _ => (2, 0.0, BEST, 40.0, 0.25),
        };
        Self {
            slope,
            content,
            inter,
            guesses,
            shared,
            heard,
            horizon,
            tolerance,
        }
    }
}

/// A mean in which what is long ago fades.
#[derive(Debug, Clone, Copy, Default)]
struct Fading {
    sum: f64,
    /// At most [`MEMORY`].
    frames: f64,
}

impl Fading {
    fn add(&mut self, value: f64) {
        if self.frames < MEMORY {
            self.frames += 1.0;
        } else {
            self.sum *= 1.0 - 1.0 / MEMORY;
        }
        self.sum += value;
    }

    fn mean(&self) -> Option<f64> {
        (self.frames > 0.0).then(|| self.sum / self.frames)
    }
}

/// Greatest value of measures that have one.
fn greatest(metric: QualityMetric) -> f64 {
    match metric {
        QualityMetric::Psnr => BEST,
        QualityMetric::Ssim | QualityMetric::MsSsim => 1.0,
        QualityMetric::Vmaf => 100.0,
    }
}

/// Quality of a frame: the measure itself, in decibels.
pub(super) fn level(metric: QualityMetric, value: f64) -> f64 {
    if metric == QualityMetric::Psnr {
        return value.min(BEST);
    }
    let best = if metric == QualityMetric::Vmaf {
        BEST_VMAF
    } else {
        BEST
    };
    let missing = 1.0 - value / greatest(metric);
    -10.0 * missing.max(10_f64.powf(-best / 10.0)).log10()
}

/// The value of a level.
fn value(metric: QualityMetric, level: f64) -> f64 {
    match metric {
        QualityMetric::Psnr => level,
        _ => greatest(metric) * (1.0 - 10_f64.powf(-level / 10.0)),
    }
}

/// Chooses quantizers. Ask [`quantizer`](Self::quantizer) for each frame in coding order, report
/// the quality of each with [`update`](Self::update); reports of a batch may come after all its
/// questions.
#[derive(Debug, Clone)]
pub struct QualityController {
    target: QualityTarget,
    min: f64,
    max: f64,
    scale: Scale,
    /// `a` of each class.
    lines: HashMap<FrameClass, f64>,
    /// Weight and offset of each class in the mean frame.
    mix: HashMap<FrameClass, (f64, f64)>,
    /// What the last key frame's content gave.
    content: Option<f64>,
    base: f64,
    /// Decisions until it has settled.
    guesses: u32,
    /// Nothing was decided yet.
    first: bool,
    /// Frames since the last key frame, and most that there are; 0: no limit.
    since_key: u32,
    key_int_max: u32,
    carry: f64,
    /// What frames so far were too bad by, in dB.
    deficit: Fading,
    /// Levels at the base quantizer 0 of frames so far, of classes of the mix.
    usual: Fading,
    /// What the last frame that others follow was worth.
    last: Option<f64>,
    /// Frames that were guessed since one was measured: of those that others follow, and between.
    guessed: [f64; 2],
    reach: Reach,
}

impl QualityController {
    /// A controller for a validated configuration.
    pub fn new(config: &EncoderConfig, target: QualityTarget) -> Self {
        let scale = Scale::of(target.metric);
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
            scale,
            lines: HashMap::new(),
            mix,
            content: None,
            base: f64::from(config.quantizer),
            guesses: scale.guesses,
            first: true,
            since_key: 0,
            key_int_max: config.key_int_max,
            carry: 0.0,
            deficit: Fading::default(),
            usual: Fading::default(),
            last: None,
            guessed: [0.0; 2],
            reach: Reach::new(
                config.min_quantizer,
                config.max_quantizer,
                match config.info.frame_rate {
                    Some((n, d)) => f64::from(n) / f64::from(d.max(1)),
                    None => USUAL_RATE,
                },
            ),
        }
    }

    /// Tells of the next key frame's content.
    ///
    /// Before any was coded that is all there is; afterwards what counts is how it has changed.
    pub fn hint_key(&mut self, picture: &Picture) {
        let (flat, octave) = self.scale.content;
        let a = flat - octave * (1.0 + detail(picture)).log2();
        let before = self.content.replace(a).unwrap_or(a);
        self.lines.values_mut().for_each(|line| *line += a - before);
        self.lines.entry(FrameClass::Key).or_insert(a);
        let due = self.key_int_max != 0 && self.since_key >= self.key_int_max;
        if !due {
            self.begin_scene();
        }
        self.since_key = 0;
    }

    /// The key frame is not one that was due.
    ///
    /// Where all quantizers are alike, lines follow the quantizer: VMAF of violent motion is 100 at
    /// any. What follows is another matter, of which the key frame's line tells.
    fn begin_scene(&mut self) {
        let Scale {
            slope, inter: gap, ..
        } = self.scale;
        let at_base = self.line(FrameClass::Key) + gap;
        let inter = self.lines.iter_mut();
        for (class, line) in inter.filter(|(class, _)| **class != FrameClass::Key) {
            if let Some((_, offset)) = self.mix.get(class) {
                let usual = at_base + slope * offset;
                let likely = line.clamp(usual - SCENES, usual + SCENES);
                if *line != likely {
                    *line = likely;
                    self.guesses = self.scale.guesses;
                }
            }
        }
    }

    fn line(&self, class: FrameClass) -> f64 {
        if let Some(a) = self.lines.get(&class) {
            return *a;
        }
        let offset = |class: &FrameClass| self.mix.get(class).map_or(0.0, |(_, offset)| *offset);
        let Scale {
            slope,
            content,
            inter: gap,
            ..
        } = self.scale;
        let key = self.lines.get(&FrameClass::Key);
        let key = key.copied().unwrap_or(content.0);
        let inter = self.lines.iter().filter(|(c, _)| **c != FrameClass::Key);
        let (sum, n) = inter.fold((0.0, 0.0), |(sum, n), (c, a)| {
            (sum + a - slope * offset(c), n + 1.0)
        });
        let at_base = match class {
            FrameClass::Key => return key,
            _ if n > 0.0 => sum / n,
            _ => key + gap,
        };
        at_base + slope * offset(&class)
    }

    /// The target's level.
    fn wanted(&self) -> f64 {
        level(self.target.metric, self.target.target.value())
    }

    fn solve(&self) -> f64 {
        let (mut sum, mut all) = (0.0, 0.0);
        for (class, (weight, offset)) in &self.mix {
            sum += weight * (self.line(*class) - self.scale.slope * offset);
            all += weight;
        }
        let here = sum / f64::max(all, 1.0);
        let Fading { sum, frames } = self.deficit;
        let Scale {
            horizon,
            tolerance,
            slope,
            ..
        } = self.scale;
        // What frames are to lie above the target by: as the quantizer has it that would have met
        // it until now, as far as the mean stays within its tolerance.
        let wish = here - self.usual.mean().unwrap_or(here) + sum / horizon;
        let give = tolerance * (frames + horizon);
        let beyond = wish.clamp((sum - give) / horizon, (sum + give) / horizon);
        (here - self.wanted() - beyond.clamp(-CORRECTION, CORRECTION)) / slope
    }

    /// The quantizer of the next frame. `offset` is added to the base.
    pub fn quantizer(&mut self, class: FrameClass, offset: i8) -> u8 {
        self.since_key = self.since_key.saturating_add(1);
        let offset = f64::from(offset);
        if class == FrameClass::Repeat {
            return self.min as u8;
        }
        if let Some((_, known)) = self.mix.get_mut(&class) {
            *known = offset;
        }
        // Inner levels of a mini-GOP follow its anchor.
        let inner = class.is_inner();
        if !inner || self.first {
            let solved = self.solve().clamp(self.min - 16.0, self.max + 16.0);
            self.base = if self.guesses > 0 {
                solved
            } else {
                self.base + (solved - self.base).clamp(-STEP, STEP)
            };
            self.guesses = self.guesses.saturating_sub(1);
            self.first = false;
        }
        let mut exact = self.base + offset;
        if let Some(floor) = self.target.floor {
            let floor = level(self.target.metric, floor.value());
            exact = exact.min((self.line(class) - floor) / self.scale.slope);
        }
        let exact = exact.clamp(self.min, self.max);
        let q = (exact + self.carry).round().clamp(self.min, self.max);
        self.carry = (self.carry + exact - q).clamp(-1.0, 1.0);
        q as u8
    }

    /// Reports what a coded frame is worth at the quantizer that it got.
    pub fn update(&mut self, class: FrameClass, quantizer: u8, value: f64) {
        if !class.is_inner() {
            self.last = Some(value);
        }
        let told = self.line(class) - self.scale.slope * f64::from(quantizer);
        let got = level(self.target.metric, value).min(told.max(self.wanted() + self.scale.heard));
        self.count(value);
        self.reach.add(class, quantizer, value);
        // What this one was guessed wrong by, those before it were, too: then their mean is right
        // however the line lies.
        let guessed = std::mem::take(&mut self.guessed[usize::from(class.is_inner())]);
        if guessed > 0.0 {
            self.owe((self.told(class, quantizer) - value) * guessed);
        }
        let seen = got + self.scale.slope * f64::from(quantizer);
        self.remember(class, seen);
        let line = self.lines.entry(class).or_insert(seen);
        let first_key = class == FrameClass::Key && self.deficit.frames <= 1.0;
        let moved = (seen - *line) * if first_key { 1.0 } else { LEARN };
        *line += moved;
        // Where quantizers are alike, as at the measure's end, others learn nothing from it.
        if value < greatest(self.target.metric) {
            let others = self.lines.iter_mut().filter(|(c, _)| **c != class);
            others.for_each(|(_, line)| *line += self.scale.shared * moved);
        }
    }

    /// Reports a coded frame that was not measured: it counts as its class's line has it.
    pub fn guess(&mut self, class: FrameClass, quantizer: u8) {
        let told = self.told(class, quantizer);
        self.count(told);
        self.reach.add(class, quantizer, told);
        self.remember(class, self.line(class));
        self.guessed[usize::from(class.is_inner())] += 1.0;
    }

    /// Adds a frame whose level at quantizer 0 is `seen` to what is usual.
    fn remember(&mut self, class: FrameClass, seen: f64) {
        if let Some((_, offset)) = self.mix.get(&class) {
            self.usual.add(seen - self.scale.slope * offset);
        }
    }

    /// Says once for each stretch of a second or longer that the finest or the coarsest quantizer
    /// does not meet the target.
    pub fn out_of_reach(&mut self) -> Option<QualityOutOfReach> {
        let QualityTarget { metric, target, .. } = self.target;
        self.reach.missed(metric, target.value())
    }

    /// What a class's line says of the measure.
    fn told(&self, class: FrameClass, quantizer: u8) -> f64 {
        let level = self.line(class) - self.scale.slope * f64::from(quantizer);
        value(self.target.metric, level)
    }

    /// Reports a frame that repeats the one before: it is worth what that was.
    pub fn repeated(&mut self) {
        if let Some(value) = self.last {
            self.count(value);
        }
    }

    fn count(&mut self, value: f64) {
        let wanted = self.target.target.value();
        let error = wanted - value.min(greatest(self.target.metric));
        self.deficit.add(self.decibels(error));
        self.bound();
    }

    /// Adds to the deficit what frames that were counted were worse by.
    fn owe(&mut self, error: f64) {
        self.deficit.sum += self.decibels(error);
        self.bound();
    }

    /// A mean of the measure is wanted, not of its decibels: errors count by the measure, in
    /// decibels at the target.
    fn decibels(&self, error: f64) -> f64 {
        match self.target.metric {
            QualityMetric::Psnr => error,
            metric => {
                let missing = greatest(metric) - self.target.target.value();
                let missing = missing.max(1e-6 * greatest(metric));
                error * 10.0 / std::f64::consts::LN_10 / missing
            }
        }
    }

    /// What a ceiling of the rate forbade, or still pictures were too good by, is not made up for
    /// without end.
    fn bound(&mut self) {
        let most = LONGEST * CORRECTION;
        self.deficit.sum = self.deficit.sum.clamp(-most, most);
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

    /// To bring each scene to the target would take 7.5 quantizers between them.
    #[test]
    fn scenes_that_differ_keep_their_quantizer_while_the_mean_is_met() {
        let wanted = 36.0;
        let quantizers = std::cell::RefCell::new(Vec::new());
        let quality = |n: usize, class: FrameClass, q: u8| {
            if n >= 100 && class == FrameClass::LowDelay(0) {
                quantizers.borrow_mut().push(q);
            }
            let scene = if n % 50 < 25 { 1.5 } else { -1.5 };
            50.0 + scene - 0.4 * f64::from(q)
        };
        let got = mean(&config(), target(QualityMetric::Psnr, wanted), 400, quality);
        assert!((got - wanted).abs() < 0.25, "{got}");
        let quantizers = quantizers.into_inner();
        let spread = quantizers.iter().max().unwrap() - quantizers.iter().min().unwrap();
        assert!(spread <= 4, "{quantizers:?}");
    }

    /// VMAF of violent motion is 100 at any quantizer.
    #[test]
    fn a_scene_after_one_where_quantizers_are_alike_is_begun_anew() {
        let mut control = QualityController::new(&config(), target(QualityMetric::Vmaf, 90.0));
        let picture = Picture::new(64, 64).unwrap();
        let mut last = 100.0;
        for n in 0..80 {
            let class = match n % 40 {
                0 => FrameClass::Key,
                _ => FrameClass::LowDelay(0),
            };
            if class == FrameClass::Key {
                control.hint_key(&picture);
            }
            let q = control.quantizer(class, 0);
            if n >= 40 {
                last = value(QualityMetric::Vmaf, 17.0 - 0.2 * f64::from(q));
            }
            if n == 40 {
                assert!(last > 75.0, "{last} at {q}");
            }
            control.update(class, q, if n == 0 { 90.0 } else { last });
        }
        assert!((85.0..95.0).contains(&last), "{last}");
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

    /// Levels scatter, so that the mean value lies below the value of the mean level.
    #[test]
    fn what_was_guessed_wrong_is_made_up_for() {
        let wanted = 75.0;
        let mut control = QualityController::new(&config(), target(QualityMetric::Vmaf, wanted));
        control.hint_key(&Picture::new(64, 64).unwrap());
        let frames = 550;
        let mut sum = 0.0;
        for n in 0..frames {
            let class = match n {
                0 => FrameClass::Key,
                _ => FrameClass::LowDelay(0),
            };
            let q = control.quantizer(class, 0);
            let scatter = 0.6 * (f64::from(n * 7 % 11) - 5.0);
            let got = value(QualityMetric::Vmaf, 17.0 + scatter - 0.2 * f64::from(q));
            match n % 5 {
                0 => control.update(class, q, got),
                _ => control.guess(class, q),
            }
            sum += got;
        }
        let mean = sum / f64::from(frames);
        assert!((mean - wanted).abs() < 1.0, "{mean}");
    }

    #[test]
    fn a_mean_of_vmaf_is_met_by_a_sample() {
        for wanted in [75.0, 90.0, 95.0] {
            let mut control =
                QualityController::new(&config(), target(QualityMetric::Vmaf, wanted));
            control.hint_key(&Picture::new(64, 64).unwrap());
            let mut sum = 0.0;
            for n in 0..96_u8 {
                let class = if n == 0 {
                    FrameClass::Key
                } else {
                    FrameClass::LowDelay(n % 4)
                };
                let q = control.quantizer(class, 0);
                let place = f64::from(n % 4);
                let got = value(QualityMetric::Vmaf, 17.0 + place - 0.2 * f64::from(q));
                match n < 5 || n % 5 == 0 {
                    true => control.update(class, q, got),
                    false => control.guess(class, q),
                }
                sum += got;
            }
            let mean = sum / 96.0;
            assert!((mean - wanted).abs() < 1.0, "{mean} for {wanted}");
        }
    }

    #[test]
    fn levels_and_values_are_of_each_other() {
        for (metric, x) in [
            (QualityMetric::Psnr, 38.0),
            (QualityMetric::Ssim, 0.95),
            (QualityMetric::Vmaf, 93.0),
        ] {
            assert!(
                (value(metric, level(metric, x)) - x).abs() < 1e-9,
                "{metric:?}"
            );
        }
        assert_eq!(level(QualityMetric::Vmaf, 100.0), BEST_VMAF);
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Rate control: turns a bit rate into quantizers.
//!
//! Each [`FrameClass`] has a model `ln(bits) = a - slope * quantizer` that learns from coded
//! frames. A base quantizer is solved from the models such that the mean frame meets its share of
//! the rate, corrected by what was spent too much or too little over a window. A leaky bucket (the
//! decoder's buffer) bounds single frames. Fractions of the base quantizer are diffused over
//! frames.

use super::planner::FrameClass;
use super::step::nominal_step;
use crate::config::{EncoderConfig, RateControl};
use nnv_bitstream::limits::MAX_QUANTIZER;
use nnv_format::picture::Picture;
use std::collections::HashMap;

/// Seconds over which a mean rate makes up for its errors.
const WINDOW: f64 = 1.3;
/// Slope of `ln(bits)` per quantizer before anything is known: bits fall with the step to the power
/// 1.05.
const SLOPE: f64 = 0.061;
const SLOPES: std::ops::RangeInclusive<f64> = 0.03..=0.12;
/// Weight of a new observation in the models.
const LEARN: f64 = 0.4;
const LEARN_SLOPE: f64 = 0.1;
/// Frames of another class cost this much less than a key frame, as a logarithm, until one is seen.
const INTER_GAIN: f64 = 1.6;
const LEVEL_GAIN: f64 = 0.5;
/// Most that the base quantizer moves between two decisions, once it has settled.
const STEP: f64 = 8.0;
/// A frame may take this share of what the buffer holds.
const TAKE: f64 = 0.75;
/// Share of the buffer that constant bit rate aims to keep full.
const FULL: f64 = 0.6;
/// Frames over which the mix of classes is averaged.
const MIX: f64 = 16.0;

#[derive(Debug, Clone, Copy)]
struct Model {
    /// `ln(bits)` at quantizer 0.
    a: f64,
    /// Last observation, for the slope.
    last: (f64, f64),
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: f64,
    size: f64,
    fullness: f64,
}

impl Bucket {
    fn new(rate: f64, seconds: f64) -> Self {
        Self {
            rate,
            size: rate * seconds,
            fullness: rate * seconds * 0.9,
        }
    }
}

/// Guesses the bits of a key frame at a quantizer from its content, for the first decision.
pub fn guess_key_bits(picture: &Picture, quantizer: f64) -> f64 {
    let luma = picture.luma();
    let (w, h) = (luma.visible_width(), luma.visible_height());
    // Mean difference from the mean of the left and upper sample, on every other row.
    let (mut sum, mut count) = (0u64, 0u64);
    for y in (1..h).step_by(2) {
        let (row, above) = (luma.row(y), luma.row(y - 1));
        for x in 1..w {
            let mean = (row[x - 1] + above[x]) / 2;
            sum += u64::from(row[x].abs_diff(mean));
            count += 1;
        }
    }
    // In 8-bit units, as the step is.
    let activity = sum as f64 / count.max(1) as f64 / 4.0;
    let step = nominal_step(quantizer);
    let per_sample = 0.9 * (1.0 + 2.2 * activity / step).ln();
    (per_sample * (w * h) as f64).max(1000.0)
}

/// Chooses quantizers. Ask [`quantizer`](Self::quantizer) for each frame in coding order, report
/// the size of each with [`update`](Self::update); the reports of a batch may come after all its
/// questions.
#[derive(Debug, Clone)]
pub struct RateController {
    mode: RateControl,
    quantizer: u8,
    min: u8,
    max: u8,
    key_share: Option<f64>,
    slope: f64,
    models: HashMap<FrameClass, Model>,
    mix: HashMap<FrameClass, (f64, f64)>,
    base: f64,
    decisions: u64,
    /// What the last key frame was guessed to cost: the logarithm of the bits at quantizer 0.
    key_guess: Option<f64>,
    /// Rounding errors of quantizers so far.
    carry: f64,
    /// Bits spent beyond (below when negative) what the rate allows.
    debt: f64,
    bucket: Option<Bucket>,
    /// Predicted bits of frames asked for and not yet reported.
    expected: f64,
    waiting: u32,
}

impl RateController {
    /// A controller for a validated configuration.
    pub fn new(config: &EncoderConfig) -> Self {
        let share = match config.key_int_max {
            0 => None,
            n => Some(1.0 / f64::from(n)).filter(|s| *s > 1.0 / 32.0),
        };
        let mut this = Self {
            mode: config.rate_control,
            quantizer: config.quantizer,
            min: config.min_quantizer,
            max: config.max_quantizer.min(MAX_QUANTIZER),
            key_share: share,
            slope: SLOPE,
            models: HashMap::new(),
            mix: HashMap::new(),
            base: f64::from(config.quantizer),
            decisions: 0,
            key_guess: None,
            carry: 0.0,
            debt: 0.0,
            bucket: None,
            expected: 0.0,
            waiting: 0,
        };
        this.bucket = this.new_bucket();
        this
    }

    fn new_bucket(&self) -> Option<Bucket> {
        match self.mode {
            RateControl::Cq
            | RateControl::Vbr {
                max_bitrate: None, ..
            } => None,
            RateControl::Vbr {
                max_bitrate: Some(max),
                ..
            } => Some(Bucket::new(max as f64, 1.0)),
            RateControl::Cbr { bitrate, vbv_ms } => {
                Some(Bucket::new(bitrate as f64, f64::from(vbv_ms) / 1000.0))
            }
        }
    }

    /// The mode, with the rates now in force.
    pub fn mode(&self) -> RateControl {
        self.mode
    }

    /// Whether sizes matter at all.
    pub fn is_constant_quality(&self) -> bool {
        self.mode == RateControl::Cq
    }

    /// Changes the mean (or constant) rate, in bit/s, from the next frame on. No effect with
    /// constant quality.
    pub fn set_bitrate(&mut self, rate: u64) {
        match &mut self.mode {
            RateControl::Cq => return,
            RateControl::Vbr {
                bitrate,
                max_bitrate,
            } => {
                *bitrate = rate;
                *max_bitrate = max_bitrate.map(|m| m.max(rate));
            }
            RateControl::Cbr { bitrate, .. } => *bitrate = rate,
        }
        self.rates_changed();
    }

    /// Changes the greatest rate, in bit/s. Only [`RateControl::Vbr`] has one.
    pub fn set_max_bitrate(&mut self, rate: Option<u64>) {
        if let RateControl::Vbr {
            bitrate,
            max_bitrate,
        } = &mut self.mode
        {
            *max_bitrate = rate.map(|r| r.max(*bitrate));
            self.rates_changed();
        }
    }

    fn rates_changed(&mut self) {
        // What was spent under the old rate does not burden the new one.
        self.debt = 0.0;
        self.decisions = 0;
        let old = self.bucket;
        self.bucket = self.new_bucket();
        if let (Some(new), Some(old)) = (&mut self.bucket, old)
            && old.size > 0.0
        {
            new.fullness = new.size * (old.fullness / old.size).clamp(0.0, 1.0);
        }
    }

    /// Forgets the frames that were asked for and never reported, as after an abort.
    pub fn forget_waiting(&mut self) {
        self.waiting = 0;
        self.expected = 0.0;
    }

    /// Tells what the next key frame would cost at a quantizer, guessed from its content.
    ///
    /// Before any was coded that is all there is; afterwards what counts is how the guess has
    /// changed since the last one.
    pub fn hint_key(&mut self, quantizer: f64, bits: f64) {
        let ln = bits.max(64.0).ln();
        let guess = ln + self.slope * quantizer;
        let before = self.key_guess.replace(guess).unwrap_or(guess);
        self.models
            .entry(FrameClass::Key)
            .and_modify(|m| m.a += guess - before)
            .or_insert(Model {
                a: guess,
                last: (quantizer, ln),
            });
    }

    /// Logarithm of the bits at quantizer 0.
    fn intercept(&self, class: FrameClass) -> f64 {
        if let Some(m) = self.models.get(&class) {
            return m.a;
        }
        let key = || self.models.get(&FrameClass::Key).map_or(13.0, |m| m.a);
        match class {
            FrameClass::Key => key(),
            FrameClass::Repeat => 128f64.ln(),
            FrameClass::LowDelay(_) => {
                let known = (0..8).filter_map(|i| self.models.get(&FrameClass::LowDelay(i)));
                known
                    .map(|m| m.a)
                    .reduce(f64::max)
                    .unwrap_or_else(|| key() - INTER_GAIN)
            }
            FrameClass::Inter(level) => (0..level)
                .rev()
                .find_map(|l| {
                    let m = self.models.get(&FrameClass::Inter(l))?;
                    Some(m.a - LEVEL_GAIN * f64::from(level - l))
                })
                .unwrap_or_else(|| key() - INTER_GAIN - LEVEL_GAIN * f64::from(level)),
        }
    }

    fn predict(&self, class: FrameClass, quantizer: f64) -> f64 {
        (self.intercept(class) - self.slope * quantizer).exp()
    }

    /// The base quantizer that makes the mean frame of `seconds` meet the rate.
    fn solve(&self, rate: f64, seconds: f64, asking: (FrameClass, f64)) -> f64 {
        let window = match self.bucket {
            Some(b) if matches!(self.mode, RateControl::Cbr { .. }) => {
                (b.size / b.rate).clamp(0.3, WINDOW)
            }
            _ => WINDOW,
        };
        let owed = match (self.mode, self.bucket) {
            // The buffer's state is the whole truth for constant bit rate.
            (RateControl::Cbr { .. }, Some(b)) => (FULL * b.size - b.fullness) * 0.7,
            _ => self.debt,
        };
        let correction = (1.0 - owed / (window * rate)).clamp(0.35, 2.5);
        let share = rate * seconds * correction;
        // Mean bits per frame at base quantizer 0.
        let mut weights: Vec<(FrameClass, f64, f64)> =
            self.mix.iter().map(|(&c, &(w, o))| (c, w, o)).collect();
        if weights.is_empty() {
            let (class, offset) = asking;
            weights.push((class, 1.0, offset));
        }
        let total: f64 = weights.iter().map(|w| w.1).sum();
        let keys = self.key_share.unwrap_or(0.0);
        let mut mean = 0.0;
        for (class, weight, offset) in &weights {
            mean += (1.0 - keys) * weight / total * self.predict(*class, *offset);
        }
        if keys > 0.0 {
            mean += keys * self.predict(FrameClass::Key, 0.0);
        }
        (mean.max(1.0).ln() - share.max(1.0).ln()) / self.slope
    }

    /// The quantizer of the next frame. `offset` is added to the base, `seconds` is how long the
    /// frame is shown.
    pub fn quantizer(&mut self, class: FrameClass, offset: i8, seconds: f64) -> u8 {
        let offset = f64::from(offset);
        let (low, high) = (f64::from(self.min), f64::from(self.max.max(self.min)));
        if class == FrameClass::Repeat {
            self.waiting += 1;
            return self.min;
        }
        let rate = match self.mode {
            RateControl::Cq => {
                let q = (f64::from(self.quantizer) + offset).round();
                return q.clamp(low, high) as u8;
            }
            RateControl::Vbr { bitrate, .. } | RateControl::Cbr { bitrate, .. } => bitrate as f64,
        };
        let seconds = if seconds > 0.0 { seconds } else { 1.0 / 30.0 };
        // Inner levels of a mini-GOP follow its anchor: the anchor's cost alone says nothing about
        // the mean.
        let inner = matches!(class, FrameClass::Inter(1..));
        if !inner || self.decisions == 0 {
            let key_alone = class == FrameClass::Key && self.key_share != Some(1.0);
            let solved = if key_alone && self.mix.is_empty() {
                // Nothing is known of the frames to come: the key frame may cost what many of them
                // will.
                let gain = (INTER_GAIN / self.slope).min(30.0);
                self.solve(rate, seconds, (class, 0.0)) - gain
            } else {
                self.solve(rate, seconds, (class, offset))
            };
            let solved = solved.clamp(low - 16.0, high + 16.0);
            self.base = if self.decisions < 2 {
                solved
            } else {
                self.base + (solved - self.base).clamp(-STEP, STEP)
            };
            self.decisions += 1;
        }
        let mut exact = self.base + offset;
        if let Some(bucket) = self.bucket {
            // Never more than the buffer holds once this frame's share has arrived.
            let held = (bucket.fullness - self.expected).max(0.0) + bucket.rate * seconds;
            let most = (held.min(bucket.size) * TAKE).max(64.0);
            let needed = (self.intercept(class) - most.ln()) / self.slope;
            exact = exact.max(needed);
        }
        let exact = exact.clamp(low, high);
        let q = (exact + self.carry).round().clamp(low, high);
        self.carry = (self.carry + exact - q).clamp(-1.0, 1.0);
        self.expected += self.predict(class, q);
        self.waiting += 1;
        q as u8
    }

    /// Reports the size of a coded frame. `offset` and `seconds` as they were asked for.
    pub fn update(
        &mut self,
        class: FrameClass,
        offset: i8,
        quantizer: u8,
        bits: u64,
        seconds: f64,
    ) {
        let (bits, q) = (bits as f64, f64::from(quantizer));
        let seconds = if seconds > 0.0 { seconds } else { 1.0 / 30.0 };
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            self.expected = 0.0;
        } else {
            self.expected = (self.expected - self.predict(class, q)).max(0.0);
        }
        if class != FrameClass::Repeat {
            let ln = bits.max(64.0).ln();
            if let Some(m) = self.models.get_mut(&class) {
                let moved = q - m.last.0;
                if moved.abs() >= 2.0 {
                    let slope = (m.last.1 - ln) / moved;
                    if slope.is_finite() {
                        let slope = slope.clamp(*SLOPES.start(), *SLOPES.end());
                        let before = self.slope;
                        self.slope += LEARN_SLOPE * (slope - self.slope);
                        // Turn the model around the last quantizer, not around quantizer 0.
                        for m in self.models.values_mut() {
                            m.a += (self.slope - before) * m.last.0;
                        }
                    }
                }
            }
            let a = ln + self.slope * q;
            self.models
                .entry(class)
                .and_modify(|m| {
                    m.a += LEARN * (a - m.a);
                    m.last = (q, ln);
                })
                .or_insert(Model { a, last: (q, ln) });
        }
        // A hint is replaced, not averaged, by the first real frame of its class; rare key frames
        // stay out of the mix.
        if class != FrameClass::Key || self.key_share == Some(1.0) {
            for (w, _) in self.mix.values_mut() {
                *w *= 1.0 - 1.0 / MIX;
            }
            let (w, o) = self.mix.entry(class).or_insert((0.0, f64::from(offset)));
            *w += 1.0 / MIX;
            *o += (f64::from(offset) - *o) / 8.0;
        }
        match self.mode {
            RateControl::Cq => {}
            RateControl::Vbr { bitrate, .. } | RateControl::Cbr { bitrate, .. } => {
                self.debt += bits - bitrate as f64 * seconds;
                // What a still scene saves is not all spent on the next one.
                self.debt = self.debt.max(-2.0 * WINDOW * bitrate as f64);
            }
        }
        if let Some(b) = &mut self.bucket {
            b.fullness = (b.fullness + b.rate * seconds).min(b.size) - bits;
        }
    }

    /// State of the decoder's buffer as a share of its size (may be negative after an underflow),
    /// where one is kept.
    pub fn buffer_fullness(&self) -> Option<f64> {
        self.bucket.map(|b| b.fullness / b.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::planner::{FrameFacts, GopPlanner};
    use nnv_bitstream::StreamInfo;

    /// A source whose frames cost `complexity · gain(class) · exp(-slope q)` bits, with noise.
    struct Source {
        seed: u64,
        slope: f64,
        complexity: f64,
    }

    impl Source {
        fn bits(&mut self, class: FrameClass, q: u8) -> u64 {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            let noise = (self.seed >> 40) as f64 / (1u64 << 24) as f64 - 0.5;
            let gain: f64 = match class {
                FrameClass::Key => 1.0,
                FrameClass::Inter(0) => 0.25,
                FrameClass::Inter(1) => 0.16,
                FrameClass::Inter(2) => 0.11,
                FrameClass::Inter(_) => 0.07,
                FrameClass::LowDelay(3) => 0.35,
                FrameClass::LowDelay(_) => 0.2,
                FrameClass::Repeat => return 160,
            };
            let ln = self.complexity.ln() + gain.ln() - self.slope * f64::from(q) + 0.4 * noise;
            ln.exp() as u64 + 200
        }
    }

    struct Run {
        frames: u64,
        bits: u64,
        quantizers: Vec<u8>,
        least_fullness: f64,
        /// Bits of each second.
        seconds: Vec<u64>,
    }

    fn config(mode: RateControl, bframes: u8, key_int_max: u32) -> EncoderConfig {
        EncoderConfig {
            rate_control: mode,
            bframes,
            key_int_max,
            ..EncoderConfig::new(StreamInfo::new(640, 360, 8))
        }
    }

    fn run(
        rc: &mut RateController,
        config: &EncoderConfig,
        source: &mut Source,
        frames: u64,
    ) -> Run {
        const FPS: f64 = 30.0;
        let mut planner = GopPlanner::new(
            config.bframes,
            0,
            config.key_int_max,
            1,
            config.effective_tuning(),
        );
        let mut out = Run {
            frames: 0,
            bits: 0,
            quantizers: Vec::new(),
            least_fullness: f64::MAX,
            seconds: vec![0; frames as usize / 30 + 1],
        };
        for i in 0..=frames {
            if i < frames {
                planner.push(FrameFacts::default());
            } else {
                planner.flush();
            }
            while let Some(group) = planner.next_group() {
                let qs: Vec<u8> = group
                    .iter()
                    .map(|f| rc.quantizer(f.class(), f.offset, 1.0 / FPS))
                    .collect();
                for (f, q) in group.iter().zip(qs) {
                    let bits = source.bits(f.class(), q);
                    rc.update(f.class(), f.offset, q, bits, 1.0 / FPS);
                    out.seconds[out.frames as usize / 30] += bits;
                    out.frames += 1;
                    out.bits += bits;
                    out.quantizers.push(q);
                    if let Some(f) = rc.buffer_fullness() {
                        out.least_fullness = out.least_fullness.min(f);
                    }
                }
            }
        }
        out
    }

    fn source(slope: f64, complexity: f64) -> Source {
        Source {
            seed: 0x1234_5678_9abc_def1,
            slope,
            complexity,
        }
    }

    #[test]
    fn constant_quality_adds_offsets_within_the_limits() {
        let mut c = config(RateControl::Cq, 7, 0);
        c.quantizer = 30;
        let mut rc = RateController::new(&c);
        assert_eq!(rc.quantizer(FrameClass::Key, -6, 0.1), 24);
        assert_eq!(rc.quantizer(FrameClass::Inter(3), 9, 0.1), 39);
        c.max_quantizer = 32;
        c.min_quantizer = 28;
        let mut rc = RateController::new(&c);
        assert_eq!(rc.quantizer(FrameClass::Key, -6, 0.1), 28);
        assert_eq!(rc.quantizer(FrameClass::Inter(3), 9, 0.1), 32);
        rc.set_bitrate(1_000_000);
        assert!(rc.is_constant_quality());
    }

    #[test]
    fn mean_rate_is_met_in_both_orders() {
        let mut errors = Vec::new();
        for bframes in [0, 3, 7] {
            for slope in [0.045f64, 0.06, 0.08] {
                for bitrate in [300_000u64, 1_000_000, 3_000_000] {
                    for key_int in [1, 30, 250] {
                        let mode = RateControl::Vbr {
                            bitrate,
                            max_bitrate: None,
                        };
                        let bframes = if key_int == 1 { 0 } else { bframes };
                        let c = config(mode, bframes, key_int);
                        let mut rc = RateController::new(&c);
                        // A rate that the quantizers' range reaches whatever the slope: in its
                        // middle.
                        let mean = if key_int == 1 { 1.0 } else { 0.2 };
                        let complexity = bitrate as f64 / 30.0 / mean * (slope * 30.0).exp();
                        let r = run(&mut rc, &c, &mut source(slope, complexity), 240);
                        let got = r.bits as f64 / (r.frames as f64 / 30.0);
                        let error = (got / bitrate as f64 - 1.0).abs();
                        errors.push(error);
                    }
                }
            }
        }
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let worst = errors.iter().cloned().fold(0.0, f64::max);
        assert!(mean < 0.025, "mean error {mean}");
        assert!(worst < 0.10, "worst error {worst}");
    }

    #[test]
    fn constant_rate_keeps_the_buffer_above_empty() {
        for bframes in [0, 7] {
            let mode = RateControl::Cbr {
                bitrate: 1_000_000,
                vbv_ms: 1000,
            };
            let c = config(mode, bframes, 60);
            let mut rc = RateController::new(&c);
            // The encoder guesses the first key frame's size from its content, here a third too
            // small.
            rc.hint_key(30.0, 0.7 * 1.2e6 * (-0.06f64 * 30.0).exp());
            let r = run(&mut rc, &c, &mut source(0.06, 1.2e6), 600);
            let got = r.bits as f64 / 20.0;
            assert!((got / 1e6 - 1.0).abs() < 0.04, "{got}");
            assert!(r.least_fullness > -0.02, "{}", r.least_fullness);
        }
    }

    #[test]
    fn greatest_rate_bounds_every_second() {
        let mode = RateControl::Vbr {
            bitrate: 800_000,
            max_bitrate: Some(1_200_000),
        };
        let c = config(mode, 0, 250);
        let mut rc = RateController::new(&c);
        let mut s = source(0.06, 4e5);
        let guess = |s: &Source| 0.7 * s.complexity * (-0.06f64 * 30.0).exp();
        rc.hint_key(30.0, guess(&s));
        run(&mut rc, &c, &mut s, 120);
        // The scene becomes five times as complex, which the encoder sees at the key frame.
        s.complexity *= 5.0;
        rc.hint_key(30.0, guess(&s));
        let r = run(&mut rc, &c, &mut s, 300);
        // A second may also take what the bucket had saved.
        assert!(r.seconds.iter().all(|&b| b < 2_400_000), "{:?}", r.seconds);
        assert!(r.least_fullness > -0.05, "{}", r.least_fullness);
    }

    #[test]
    fn a_new_rate_takes_effect_at_once() {
        let mode = RateControl::Vbr {
            bitrate: 2_000_000,
            max_bitrate: None,
        };
        let c = config(mode, 0, 0);
        let mut rc = RateController::new(&c);
        let mut s = source(0.06, 1.2e6);
        run(&mut rc, &c, &mut s, 150);
        rc.set_bitrate(500_000);
        let r = run(&mut rc, &c, &mut s, 180);
        // The run starts with a key frame, which is paid back within the first seconds.
        let later: u64 = r.seconds[2..6].iter().sum();
        assert!(
            (later as f64 / 4.0 / 500_000.0 - 1.0).abs() < 0.25,
            "{:?}",
            r.seconds
        );
        assert_eq!(
            rc.mode(),
            RateControl::Vbr {
                bitrate: 500_000,
                max_bitrate: None
            }
        );
    }

    #[test]
    fn extremes_stay_within_the_quantizers() {
        for complexity in [1.0, 1e12] {
            let mode = RateControl::Cbr {
                bitrate: 100_000,
                vbv_ms: 500,
            };
            let mut c = config(mode, 3, 20);
            (c.min_quantizer, c.max_quantizer) = (10, 50);
            let mut rc = RateController::new(&c);
            let r = run(&mut rc, &c, &mut source(0.06, complexity), 100);
            assert!(r.quantizers.iter().all(|q| (10..=50).contains(q)));
            let end = r.quantizers[99];
            assert_eq!(end, if complexity > 1.0 { 50 } else { 10 });
        }
    }
}

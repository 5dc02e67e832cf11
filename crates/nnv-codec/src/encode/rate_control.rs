// SPDX-License-Identifier: MPL-2.0
//! Rate control: turns a bit rate into quantizers.
//!
//! Each [`FrameClass`] has a model `ln(bits) = a - slope * quantizer` that learns from coded
//! frames. A base quantizer is solved from the models such that the mean frame, key frames by their
//! share among them, meets its share of the rate, corrected by what was spent too much or too
//! little. Three bounds hold single frames: what may be spent in any second, the decoder's buffer
//! (a leaky bucket), and what has to be left for the frames behind a key frame. A frame that breaks
//! them is coded again. Fractions of the base quantizer are diffused over frames.
//!
//! Time is that of the frames, not of the caps: see [`FrameTime`].

use super::frame_clock::FrameTime;
use super::planner::FrameClass;
use super::step::nominal_step;
use crate::config::{EncoderConfig, RateControl};
use nnv_bitstream::limits::MAX_QUANTIZER;
use nnv_format::picture::Picture;
use std::collections::{HashMap, VecDeque};

/// Seconds over which a mean rate makes up for its errors.
const WINDOW: f64 = 0.7;
/// That, in mini-GOPs at least.
const DELAY: f64 = 2.0;
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
/// A frame may be planned to take this share of what the buffer holds.
const TAKE: f64 = 0.75;
/// Share of the buffer that is kept for surprises.
const LOW: f64 = 0.25;
/// A frame that takes more than this share of what the buffer holds is coded again.
const TAKE_MOST: f64 = 0.97;
/// Frames over which the mix of inter classes is averaged.
const MIX: f64 = 16.0;
/// What the configured share of key frames counts for, in frames.
const SHARE_PRIOR: f64 = 4.0;
/// Seconds over which the share of key frames is averaged.
const SHARE_SECONDS: f64 = 5.0;
/// Key frames that come more rarely than every so many seconds are not saved for.
const KEY_PERIOD: f64 = 5.0;
/// Most that is saved for a key frame, or owed after one, in seconds of the rate.
const SAVED: f64 = 0.07;
/// The first key frame may cost what so many frames do, within these seconds of the rate: with a
/// buffer, and without.
const FIRST_KEY: f64 = 10.0;
const FIRST_KEY_CBR: (f64, f64) = (0.33, 0.5);
const FIRST_KEY_VBR: (f64, f64) = (0.33, 0.6);
/// Bounds of debt, in seconds of the rate: what a still scene saves is not all spent on the next
/// one, and what a scene beyond the greatest quantizer cost does not burden those after it.
const DEBT: (f64, f64) = (2.6, 3.0);
/// The most that any second may take, over the mean.
const WORST_SECOND_VBR: f64 = 1.5;
const WORST_SECOND_CBR: f64 = 1.25;
/// Share of that which is planned for; the rest is for surprises.
const PLANNED: f64 = 0.93;
/// A frame at the greatest quantizer may cost so many times what is expected.
const SURPRISE: f64 = 1.5;
/// Share of what is left of a second that a key frame may take: in the first seconds, where the
/// last one was in that second too, and where it was not.
const KEY_EARLY: f64 = 0.33;
const KEY_SOON: f64 = 0.45;
const KEY_TAKE: f64 = 0.85;
/// Share of the rate that a key frame has to leave to the frames of the second behind it.
const BEHIND_KEY: f64 = 0.45;
/// Codings of one frame beyond the first, at most.
pub const RETRIES: u32 = 3;

#[derive(Debug, Clone, Copy)]
struct Model {
    /// `ln(bits)` at quantizer 0.
    a: f64,
    /// Last observation, for the slope.
    last: (f64, f64),
}

/// The decoder's buffer.
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

    /// Bits that are there after some time.
    fn after(&self, seconds: f64) -> f64 {
        (self.fullness + self.rate * seconds).min(self.size)
    }
}

impl Bucket {
    /// The rate that leaves the last part of the buffer for surprises, when what is decided shows
    /// after `delay` s.
    fn sustainable(&self, delay: f64) -> f64 {
        let horizon = (0.5 * self.size / self.rate).max(delay);
        (self.rate + (self.fullness - LOW * self.size) / horizon).max(0.0)
    }
}

/// Sizes of the frames of the last second, and what they may add up to.
#[derive(Debug, Clone, Default)]
struct Second {
    /// Time and bits of each frame.
    frames: VecDeque<(f64, f64)>,
    now: f64,
}

impl Second {
    fn add(&mut self, time: FrameTime, bits: f64) {
        self.now += time.elapsed;
        self.frames.push_back((self.now, bits));
        let first = self.now - Self::length(time) - time.interval;
        while self.frames.front().is_some_and(|f| f.0 < first) {
            self.frames.pop_front();
        }
    }

    /// The second in seconds: longer where frames are so rare that few of them would meet in one.
    fn length(time: FrameTime) -> f64 {
        (4.0 * time.interval).max(1.0)
    }

    /// Takes over another rate, `scale` times the one before.
    fn scale(&mut self, scale: f64) {
        self.frames.iter_mut().for_each(|f| f.1 *= scale);
    }

    /// Bits in the second that ends with a frame at `time`, that frame not counted.
    fn spent(&self, time: FrameTime) -> f64 {
        let first = self.now + time.elapsed - Self::length(time) + 0.25 * time.interval;
        let within = self.frames.iter().rev().take_while(|f| f.0 > first);
        within.map(|f| f.1).sum()
    }

    /// The rate that all frames from one at `time` on can have while no second takes more than
    /// `most` bits per second.
    fn sustainable(&self, time: FrameTime, most: f64) -> f64 {
        let length = Self::length(time);
        let (cap, start) = (most * length, self.now + time.elapsed);
        let mut rate = most;
        let mut within = 0.0;
        for &(at, bits) in self.frames.iter().rev() {
            within += bits;
            // Frames that come before this one is a second ago.
            let before = ((at + length - start) / time.interval + 0.25).floor();
            if before < 1.0 {
                break;
            }
            rate = rate.min((cap - within) / (before * time.interval));
        }
        rate.max(0.0)
    }
}

/// How often key frames come.
#[derive(Debug, Clone, Copy)]
struct Keys {
    /// By the configuration, as a share of all frames.
    least: f64,
    share: f64,
    /// Frames in the mean.
    seen: f64,
    /// Frames since the last one, `None` before the first.
    since: Option<f64>,
    offset: f64,
    /// What one may take, in seconds of the rate: mean of late.
    allowed: f64,
}

impl Keys {
    fn new(key_int_max: u32) -> Self {
        let least = match key_int_max {
            0 => 0.0,
            n => 1.0 / f64::from(n),
        };
        Self {
            least,
            share: least,
            seen: SHARE_PRIOR,
            since: None,
            offset: 0.0,
            allowed: f64::INFINITY,
        }
    }

    /// Whether there is nothing else.
    fn only(&self) -> bool {
        self.least >= 1.0
    }

    /// Share of key frames among the frames to come.
    fn share(&self) -> f64 {
        // Where none has come for a long time, they have become rarer.
        let since = self.since.unwrap_or(0.0);
        self.share.min(1.5 / (since + 1.0)).max(self.least)
    }

    fn update(&mut self, key: bool, offset: f64, interval: f64) {
        if key {
            self.offset = offset;
        }
        // The first one tells nothing of how often others come.
        if let Some(since) = &mut self.since {
            *since = if key { 0.0 } else { *since + 1.0 };
            let most = (SHARE_SECONDS / interval).clamp(60.0, 600.0);
            self.seen = (self.seen + 1.0).min(most);
            self.share += (f64::from(u8::from(key)) - self.share) / self.seen;
        } else if key {
            self.since = Some(0.0);
        }
    }

    fn allowed(&mut self, seconds: f64) {
        self.allowed = if self.allowed.is_finite() {
            0.5 * (self.allowed + seconds)
        } else {
            seconds
        };
    }

    /// What should be owed now, as a share of a key frame's bits: half of one right after it, and
    /// half of one saved right before the next.
    fn owed(&self, interval: f64) -> f64 {
        let Some(since) = self.since.filter(|_| !self.only()) else {
            return 0.0;
        };
        let (share, rare) = (self.share(), interval / KEY_PERIOD);
        if share >= rare {
            (0.5 - since * share).max(-0.5)
        } else {
            (0.5 - since * rare).max(0.0)
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
    slope: f64,
    models: HashMap<FrameClass, Model>,
    /// Weight and offset of the classes of inter frames.
    mix: HashMap<FrameClass, (f64, f64)>,
    keys: Keys,
    /// Frames between decisions.
    mini_gop: f64,
    base: f64,
    decisions: u64,
    /// What the last key frame was guessed to cost: the logarithm of the bits.
    key_guess: Option<f64>,
    /// Rounding errors of quantizers so far.
    carry: f64,
    /// Bits spent beyond (below when negative) what the rate allows.
    debt: f64,
    bucket: Option<Bucket>,
    second: Second,
    /// Predicted bits of frames asked for and not yet reported.
    expected: f64,
    waiting: u32,
}

impl RateController {
    /// A controller for a validated configuration.
    pub fn new(config: &EncoderConfig) -> Self {
        let mut this = Self {
            mode: config.rate_control,
            quantizer: config.quantizer,
            min: config.min_quantizer,
            max: config.max_quantizer.min(MAX_QUANTIZER),
            slope: SLOPE,
            models: HashMap::new(),
            mix: HashMap::new(),
            keys: Keys::new(config.key_int_max),
            mini_gop: f64::from(config.effective_bframes()) + 1.0,
            base: f64::from(config.quantizer),
            decisions: 0,
            key_guess: None,
            carry: 0.0,
            debt: 0.0,
            bucket: None,
            second: Second::default(),
            expected: 0.0,
            waiting: 0,
        };
        this.bucket = this.new_bucket();
        this
    }

    fn new_bucket(&self) -> Option<Bucket> {
        match self.mode {
            RateControl::Cq | RateControl::Vbr { .. } => None,
            RateControl::Cbr { bitrate, vbv_ms } => {
                Some(Bucket::new(bitrate as f64, f64::from(vbv_ms) / 1000.0))
            }
        }
    }

    /// The mode, with the rates now in force.
    pub fn mode(&self) -> RateControl {
        self.mode
    }

    /// The quantizer of constant quality now in force.
    pub fn constant_quantizer(&self) -> u8 {
        self.quantizer
    }

    /// Whether sizes matter at all.
    pub fn is_constant_quality(&self) -> bool {
        self.mode == RateControl::Cq
    }

    /// Whether a decoder's buffer is kept, for which frames may have to be held.
    pub fn has_buffer(&self) -> bool {
        self.bucket.is_some()
    }

    /// Mean (or constant) rate in bit/s.
    fn rate(&self) -> Option<f64> {
        match self.mode {
            RateControl::Cq => None,
            RateControl::Vbr { bitrate, .. } | RateControl::Cbr { bitrate, .. } => {
                Some(bitrate as f64)
            }
        }
    }

    /// The most that any second may take, in bits.
    fn most(&self) -> f64 {
        match self.mode {
            RateControl::Cq => f64::INFINITY,
            RateControl::Vbr {
                max_bitrate: Some(max),
                ..
            } => max as f64,
            RateControl::Vbr { bitrate, .. } => bitrate as f64 * WORST_SECOND_VBR,
            RateControl::Cbr { bitrate, .. } => bitrate as f64 * WORST_SECOND_CBR,
        }
    }

    /// Changes mode, rates, and the quantizer of constant quality from the next frame on.
    pub fn change(&mut self, mode: RateControl, quantizer: u8) {
        self.quantizer = quantizer;
        if mode == self.mode {
            return;
        }
        let before = self.rate();
        self.mode = mode;
        let old = self.bucket.take();
        self.bucket = self.new_bucket();
        if let (Some(new), Some(old)) = (&mut self.bucket, old) {
            new.fullness = new.size * (old.fullness / old.size).clamp(0.0, 1.0);
        }
        match (before, self.rate()) {
            (Some(before), Some(rate)) if before == rate => {}
            (before, rate) => {
                // What was spent under the old rate does not burden the new one.
                self.debt = 0.0;
                self.decisions = 0;
                match (before, rate) {
                    (Some(before), Some(rate)) => self.second.scale(rate / before),
                    _ => self.second.scale(0.0),
                }
            }
        }
    }

    /// Forgets the frames that were asked for and never reported, as after an abort.
    pub fn forget_waiting(&mut self) {
        self.waiting = 0;
        self.expected = 0.0;
    }

    /// Tells what the next key frame would cost at a quantizer, guessed from its content; always
    /// at the same one.
    ///
    /// Before any was coded that is all there is; afterwards what counts is how the guess has
    /// changed since the last one.
    pub fn hint_key(&mut self, quantizer: f64, bits: f64) {
        let ln = bits.max(64.0).ln();
        let before = self.key_guess.replace(ln).unwrap_or(ln);
        let a = ln + self.slope * quantizer;
        self.models
            .entry(FrameClass::Key)
            .and_modify(|m| m.a += ln - before)
            .or_insert(Model {
                a,
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
        if class == FrameClass::Repeat {
            return 128.0;
        }
        (self.intercept(class) - self.slope * quantizer).exp()
    }

    /// Bits that the mean inter frame takes at base quantizer 0; `asking` stands for them where
    /// none has been seen.
    fn inter_bits(&self, asking: (FrameClass, f64)) -> f64 {
        let total: f64 = self.mix.values().map(|w| w.0).sum();
        if total > 0.0 {
            let bits = |(&class, &(weight, offset)): (_, &(f64, f64))| {
                weight / total * self.predict(class, offset)
            };
            self.mix.iter().map(bits).sum()
        } else {
            self.predict(asking.0, asking.1)
        }
    }

    /// The base quantizer that makes the mean frame meet the rate.
    fn solve(&self, rate: f64, time: FrameTime, asking: (FrameClass, f64)) -> f64 {
        let window = match self.bucket {
            Some(b) => (b.size / b.rate).clamp(0.3, WINDOW),
            None => WINDOW,
        };
        // What is decided for a mini-GOP shows when it is coded.
        let delay = DELAY * self.mini_gop * time.interval;
        let window = window.max(delay);
        let key = self.predict(FrameClass::Key, self.base + self.keys.offset);
        let key = key.min(self.keys.allowed * rate);
        let aim = (key * self.keys.owed(time.interval)).clamp(-SAVED * rate, SAVED * rate);
        let correction = (1.0 - (self.debt - aim) / (window * rate)).clamp(0.4, 2.5);
        let within = self.second.sustainable(time, PLANNED * self.most());
        let within = self
            .bucket
            .map_or(within, |b| within.min(b.sustainable(delay)));
        let share = ((rate * correction).min(within) * time.interval).max(1.0);
        let keys = self.keys.share();
        let inter = (1.0 - keys) * self.inter_bits(asking);
        let key = keys * self.predict(FrameClass::Key, self.keys.offset);
        let base = ((inter + key).max(1.0) / share).ln() / self.slope;
        // Key frames that are held to less than that leave more to the others.
        let held = keys * self.keys.allowed * rate;
        let few = keys == 0.0 || key * (-self.slope * base).exp() <= held;
        if self.keys.only() || few {
            return base;
        }
        (inter / (share - held).max(0.1 * share)).ln() / self.slope
    }

    /// The bits that a frame may take, planned or (`hard`) before it is coded again.
    /// `ahead`: bits of frames that come before it and are not reported yet.
    fn allowed(&self, class: FrameClass, time: FrameTime, ahead: f64, hard: bool) -> f64 {
        let most = self.most();
        let Some(rate) = self.rate() else {
            return f64::INFINITY;
        };
        let key = class == FrameClass::Key && !self.keys.only();
        let planned = if hard { 1.0 } else { PLANNED };
        let length = Second::length(time);
        let mut bits = planned * (most * length) - self.second.spent(time) - ahead;
        if key {
            // Frames behind it must not be starved, nor does each surprise cost a second coding.
            let surprise = if hard { 1.1 } else { 0.9 };
            let since = self.keys.since.map(|since| since * time.interval);
            let part = match since {
                // At first nothing tells whether the next one comes as soon as this one did.
                Some(_) if self.second.now < 2.0 * length => KEY_EARLY,
                Some(since) if since < length => KEY_SOON,
                _ => KEY_TAKE,
            };
            bits = (part * bits).min(surprise * (most - BEHIND_KEY * rate) * length);
        }
        if let Some(bucket) = self.bucket {
            let held = bucket.after(time.elapsed) - ahead;
            bits = bits.min(held * if hard { TAKE_MOST } else { TAKE });
        }
        bits
    }

    /// The quantizer of the next frame. `offset` is added to the base.
    pub fn quantizer(&mut self, class: FrameClass, offset: i8, time: FrameTime) -> u8 {
        let offset = f64::from(offset);
        let (low, high) = (f64::from(self.min), f64::from(self.max.max(self.min)));
        if class == FrameClass::Repeat {
            self.waiting += 1;
            return self.min;
        }
        let Some(rate) = self.rate() else {
            let q = (f64::from(self.quantizer) + offset).round();
            return q.clamp(low, high) as u8;
        };
        // Inner levels of a mini-GOP follow its anchor: the anchor's cost alone says nothing about
        // the mean.
        let inner = matches!(class, FrameClass::Inter(1..));
        if !inner || self.decisions == 0 {
            let key = class == FrameClass::Key && !self.keys.only();
            let solved = if key && self.mix.is_empty() {
                // Nothing is known of the frames to come: the key frame may cost what many of them
                // will.
                let (least, most) = match self.bucket {
                    Some(_) => FIRST_KEY_CBR,
                    None => FIRST_KEY_VBR,
                };
                let bits = rate * (FIRST_KEY * time.interval).clamp(least, most);
                (self.intercept(class) - bits.ln()) / self.slope - offset
            } else {
                self.solve(rate, time, (class, offset))
            };
            let solved = solved.clamp(low - 16.0, high + 16.0);
            self.base = if self.decisions < 2 {
                solved
            } else {
                self.base + (solved - self.base).clamp(-STEP, STEP)
            };
            self.decisions += 1;
        }
        let allowed = self.allowed(class, time, self.expected, false).max(64.0);
        if class == FrameClass::Key {
            self.keys.allowed(allowed / rate);
        }
        let needed = (self.intercept(class) - allowed.ln()) / self.slope;
        let exact = (self.base + offset).max(needed).clamp(low, high);
        let q = (exact + self.carry).round().clamp(low, high);
        self.carry = (self.carry + exact - q).clamp(-1.0, 1.0);
        self.expected += self.predict(class, q);
        self.waiting += 1;
        q as u8
    }

    /// A greater quantizer for a frame that took too many bits at this one, so that it has to be
    /// coded again; `None` where it did not, or nothing helps.
    pub fn retry(
        &self,
        class: FrameClass,
        quantizer: u8,
        bits: u64,
        time: FrameTime,
    ) -> Option<u8> {
        if self.is_constant_quality() || class == FrameClass::Repeat || quantizer >= self.max {
            return None;
        }
        let bits = bits as f64;
        if bits <= self.allowed(class, time, 0.0, true) {
            return None;
        }
        let aim = self.allowed(class, time, 0.0, false).max(64.0);
        let more = ((bits / aim).ln() / self.slope).ceil().clamp(1.0, 63.0);
        Some((f64::from(quantizer) + more).min(f64::from(self.max)) as u8)
    }

    /// Whether the buffer has no room for a frame even at the greatest quantizer, so that the
    /// picture before it has to stand still. `before`: frames that wait to be coded.
    pub fn must_hold(&self, class: FrameClass, before: usize, time: FrameTime) -> bool {
        let Some(bucket) = self.bucket else {
            return false;
        };
        let q = f64::from(self.max);
        let bits = SURPRISE * self.predict(class, q);
        let waiting = before as f64 * self.inter_bits((class, 0.0)) * (-self.slope * q).exp();
        let there = bucket.after(time.elapsed) - self.expected - waiting;
        // A frame that no buffer of this size holds is not waited for.
        self.keys.since.is_some() && bits > there && bits < 0.9 * bucket.size
    }

    /// Reports the size of a coded frame. `offset` and `time` as they were asked for.
    pub fn update(
        &mut self,
        class: FrameClass,
        offset: i8,
        quantizer: u8,
        bits: u64,
        time: FrameTime,
    ) {
        let (bits, q) = (bits as f64, f64::from(quantizer));
        let key = class == FrameClass::Key;
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            self.expected = 0.0;
        } else {
            self.expected = (self.expected - self.predict(class, q)).max(0.0);
        }
        if class != FrameClass::Repeat {
            self.learn(class, q, bits);
        }
        self.keys.update(key, f64::from(offset), time.interval);
        if !key || self.keys.only() {
            for (w, _) in self.mix.values_mut() {
                *w *= 1.0 - 1.0 / MIX;
            }
            let (w, o) = self.mix.entry(class).or_insert((0.0, f64::from(offset)));
            *w += 1.0 / MIX;
            *o += (f64::from(offset) - *o) / 8.0;
        }
        if let Some(rate) = self.rate() {
            self.debt += bits - rate * time.elapsed;
            let saved = self.bucket.map_or(DEBT.0, |b| (b.size / b.rate).min(0.5));
            self.debt = self.debt.clamp(-saved * rate, DEBT.1 * rate);
        }
        self.second.add(time, bits);
        if let Some(b) = &mut self.bucket {
            b.fullness = b.after(time.elapsed) - bits;
        }
    }

    fn learn(&mut self, class: FrameClass, q: f64, bits: f64) {
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
    #[derive(Clone)]
    struct Source {
        seed: u64,
        slope: f64,
        complexity: f64,
        /// Cost of key frames over that of others.
        key: f64,
        /// `ln` of the largest over the smallest factor by chance.
        noise: f64,
        /// Where scenes begin, by frame; the encoder sees it.
        cut: fn(u64) -> bool,
        /// Frames per second.
        fps: f64,
    }

    impl Source {
        fn bits(&mut self, class: FrameClass, q: u8) -> u64 {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            let noise = (self.seed >> 40) as f64 / (1u64 << 24) as f64 - 0.5;
            let gain: f64 = match class {
                FrameClass::Key => self.key,
                FrameClass::Inter(0) => 0.25,
                FrameClass::Inter(1) => 0.16,
                FrameClass::Inter(2) => 0.11,
                FrameClass::Inter(_) => 0.07,
                FrameClass::LowDelay(3) => 0.35,
                FrameClass::LowDelay(_) => 0.2,
                FrameClass::Repeat => return 160,
            };
            let noise = self.noise * noise;
            let ln = self.complexity.ln() + gain.ln() - self.slope * f64::from(q) + noise;
            ln.exp() as u64 + 200
        }

        fn time(&self) -> FrameTime {
            FrameTime::regular(1.0 / self.fps)
        }
    }

    #[derive(Default)]
    struct Run {
        frames: u64,
        keys: u64,
        again: u64,
        held: u64,
        bits: u64,
        quantizers: Vec<u8>,
        least_fullness: f64,
        /// Bits of each frame in coding order.
        sizes: Vec<u64>,
        fps: f64,
    }

    impl Run {
        fn rate(&self) -> f64 {
            self.bits as f64 * self.fps / self.frames as f64
        }

        /// The most bits of any second, wherever it begins.
        fn worst_second(&self) -> f64 {
            let frames = (self.fps.round() as usize).max(1);
            let sums = self.sizes.windows(frames).map(|w| w.iter().sum::<u64>());
            sums.max().unwrap_or(0) as f64 * self.fps / frames as f64
        }
    }

    fn config(mode: RateControl, bframes: u8, key_int_max: u32) -> EncoderConfig {
        EncoderConfig {
            rate_control: mode,
            bframes,
            key_int_max,
            ..EncoderConfig::new(StreamInfo::new(640, 360, 8))
        }
    }

    fn vbr(bitrate: u64) -> RateControl {
        RateControl::Vbr {
            bitrate,
            max_bitrate: None,
        }
    }

    fn cbr(bitrate: u64, vbv_ms: u32) -> RateControl {
        RateControl::Cbr { bitrate, vbv_ms }
    }

    /// Codes frames as the encoder does: hints, second codings, pictures that stand still.
    fn run(
        rc: &mut RateController,
        config: &EncoderConfig,
        source: &mut Source,
        frames: u64,
    ) -> Run {
        let mut planner = GopPlanner::new(
            config.bframes,
            0,
            config.key_int_max,
            1,
            config.effective_tuning(),
        );
        let mut out = Run {
            least_fullness: f64::MAX,
            fps: source.fps,
            ..Run::default()
        };
        let time = source.time();
        for i in 0..=frames {
            if i < frames {
                let facts = FrameFacts {
                    scene_cut: (source.cut)(i),
                    ..FrameFacts::default()
                };
                let class = planner.next_class(&facts);
                let hold = rc.must_hold(class, planner.pending(), time);
                out.held += u64::from(hold);
                planner.push(FrameFacts { hold, ..facts });
            } else {
                planner.flush();
            }
            while let Some(group) = planner.next_group() {
                let qs: Vec<u8> = group
                    .iter()
                    .map(|f| {
                        if f.class() == FrameClass::Key {
                            // A guess that is a third too small, and a slope of its own.
                            let bits = 0.7 * source.complexity * source.key;
                            rc.hint_key(28.0, bits * (-source.slope * 28.0).exp());
                        }
                        rc.quantizer(f.class(), f.offset, time)
                    })
                    .collect();
                for (f, mut q) in group.iter().zip(qs) {
                    let mut bits = source.bits(f.class(), q);
                    for _ in 0..RETRIES {
                        let Some(other) = rc.retry(f.class(), q, bits, time) else {
                            break;
                        };
                        bits = (bits as f64 * (-source.slope * f64::from(other - q)).exp()) as u64;
                        q = other;
                        out.again += 1;
                    }
                    rc.update(f.class(), f.offset, q, bits, time);
                    out.keys += u64::from(f.class() == FrameClass::Key);
                    out.frames += 1;
                    out.bits += bits;
                    out.sizes.push(bits);
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
            key: 1.0,
            noise: 0.4,
            cut: |_| false,
            fps: 30.0,
        }
    }

    /// A name, and where scenes begin.
    type Cuts = (&'static str, fn(u64) -> bool);

    /// Sources of all kinds at a rate that quantizers around 30 reach: slopes, orders, shares of
    /// key frames.
    fn sources(rate: u64) -> Vec<(String, Source, u8, u32)> {
        let cuts: [Cuts; 6] = [
            ("none", |_| false),
            ("every 2", |i| i.is_multiple_of(2)),
            ("every 4", |i| i.is_multiple_of(4)),
            ("every 15", |i| i.is_multiple_of(15)),
            ("every 80", |i| i % 80 == 20),
            ("first, then none", |i| i < 120 && i % 7 == 3),
        ];
        let mut all = Vec::new();
        for bframes in [0u8, 3, 7] {
            for slope in [0.045f64, 0.06, 0.08] {
                for (name, cut) in cuts {
                    for (fps, key, key_int) in [
                        (15.0, 1.0, 0),
                        (30.0, 2.0, 250),
                        (30.0, 1.0, 60),
                        (30.0, 1.0, 1),
                    ] {
                        if key_int == 1 && (bframes > 0 || name != "none") {
                            continue;
                        }
                        // Beyond the least quantizer in the second half.
                        if slope < 0.05 && name.starts_with("first") {
                            continue;
                        }
                        // In the middle of the quantizers, by the share of key frames.
                        let keys = (0..150).filter(|i| cut(*i)).count() as f64 / 150.0;
                        let keys = if key_int == 1 { 1.0 } else { keys };
                        let inter = if bframes > 0 { 0.12 } else { 0.2 };
                        let mean = keys * key + (1.0 - keys) * inter;
                        let complexity = rate as f64 / fps / mean * (slope * 30.0).exp();
                        let source = Source {
                            cut,
                            key,
                            fps,
                            ..source(slope, complexity)
                        };
                        let name = format!(
                            "bframes {bframes} slope {slope} cuts {name} fps {fps} key {key_int}"
                        );
                        all.push((name, source, bframes, key_int));
                    }
                }
            }
        }
        all
    }

    #[test]
    fn constant_quality_adds_offsets_within_the_limits() {
        let time = FrameTime::regular(0.1);
        let mut c = config(RateControl::Cq, 7, 0);
        c.quantizer = 30;
        let mut rc = RateController::new(&c);
        assert_eq!(rc.quantizer(FrameClass::Key, -6, time), 24);
        assert_eq!(rc.quantizer(FrameClass::Inter(3), 9, time), 39);
        assert_eq!(rc.retry(FrameClass::Key, 24, u64::MAX, time), None);
        c.max_quantizer = 32;
        c.min_quantizer = 28;
        let mut rc = RateController::new(&c);
        assert_eq!(rc.quantizer(FrameClass::Key, -6, time), 28);
        assert_eq!(rc.quantizer(FrameClass::Inter(3), 9, time), 32);
        rc.change(RateControl::Cq, 31);
        assert_eq!(rc.quantizer(FrameClass::Key, 0, time), 31);
        assert!(rc.is_constant_quality());
    }

    /// Runs all sources for ten seconds and checks means, worst seconds and the buffer.
    fn check_all(mode: RateControl, rate: f64, worst_mean: f64, worst_second: f64) {
        let mut errors = Vec::new();
        let mut wrong = Vec::new();
        for (name, mut s, bframes, key_int) in sources(rate as u64) {
            let c = config(mode, bframes, key_int);
            // A mini-GOP has to fit into the buffer.
            if matches!(mode, RateControl::Cbr { vbv_ms: ..1000, .. }) && bframes == 7 {
                continue;
            }
            let mut rc = RateController::new(&c);
            let frames = (10.0 * s.fps) as u64;
            let r = run(&mut rc, &c, &mut s, frames);
            let error = r.rate() / rate - 1.0;
            errors.push(error.abs());
            let second = r.worst_second() / rate;
            // A mini-GOP of eight frames at 15 frames/s hears of itself after a second.
            let worst_mean = if bframes == 7 { 0.04 } else { worst_mean };
            if error.abs() > worst_mean || second > worst_second || r.least_fullness < 0.0 {
                wrong.push(format!(
                    "{name}: mean {:+.3} second {second:.2} least {:.2} keys {} again {} held {}",
                    error,
                    r.least_fullness.min(9.0),
                    r.keys,
                    r.again,
                    r.held,
                ));
            }
        }
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        assert!(
            wrong.is_empty(),
            "{} of {} sources, mean error {mean}:\n{}",
            wrong.len(),
            errors.len(),
            wrong.join("\n")
        );
        assert!(mean < 0.01, "mean error {mean}");
    }

    #[test]
    fn variable_rate_meets_the_mean_whatever_the_share_of_key_frames() {
        check_all(vbr(1_000_000), 1e6, 0.03, 1.5);
    }

    #[test]
    fn constant_rate_meets_mean_and_second_and_keeps_the_buffer() {
        for vbv_ms in [1000, 300] {
            check_all(cbr(1_000_000, vbv_ms), 1e6, 0.02, 1.27);
        }
    }

    #[test]
    fn real_time_counts() {
        // A quarter of the frames that caps promise, each for four times as long.
        for mode in [vbr(200_000), cbr(200_000, 1000)] {
            let mut s = Source {
                fps: 7.5,
                ..source(0.06, 200_000.0 / 7.5 / 0.2 * (0.06f64 * 30.0).exp())
            };
            let c = config(mode, 0, 30);
            let r = run(&mut RateController::new(&c), &c, &mut s, 90);
            assert!(
                (r.rate() / 2e5 - 1.0).abs() < 0.03,
                "{mode:?}: {}",
                r.rate()
            );
        }
    }

    #[test]
    fn scenes_that_cost_more_are_met() {
        for (mode, mean, second) in [
            (cbr(1_000_000, 1000), 0.02, 1.25),
            (vbr(1_000_000), 0.03, 1.5),
            (
                RateControl::Vbr {
                    bitrate: 800_000,
                    max_bitrate: Some(1_200_000),
                },
                0.03,
                1.5,
            ),
        ] {
            let c = config(mode, 0, 250);
            let mut rc = RateController::new(&c);
            let rate = rc.rate().unwrap();
            let mut s = source(0.06, 4e5);
            let mut all = run(&mut rc, &c, &mut s, 120);
            for scale in [5.0, 0.3, 4.0] {
                // The encoder sees it at the key frame.
                s.complexity *= scale;
                let r = run(&mut rc, &c, &mut s, 120);
                all.bits += r.bits;
                all.frames += r.frames;
                all.sizes.extend(r.sizes);
                all.least_fullness = all.least_fullness.min(r.least_fullness);
            }
            assert!(
                (all.rate() / rate - 1.0).abs() < mean,
                "{mode:?}: {}",
                all.rate()
            );
            assert!(
                all.worst_second() / rate <= second,
                "{mode:?}: {}",
                all.worst_second()
            );
            assert!(
                all.least_fullness >= 0.0,
                "{mode:?}: {}",
                all.least_fullness
            );
        }
    }

    #[test]
    fn pictures_stand_still_before_the_buffer_runs_empty() {
        // Even the greatest quantizer costs twice the rate.
        let mut s = source(0.06, 1_000_000.0 / 30.0 * 10.0 * (0.06f64 * 63.0).exp());
        for bframes in [0, 3] {
            let c = config(cbr(1_000_000, 500), bframes, 0);
            let r = run(&mut RateController::new(&c), &c, &mut s, 300);
            assert!(r.held > 50, "{}", r.held);
            assert!(
                r.least_fullness >= 0.0,
                "bframes {bframes}: {}",
                r.least_fullness
            );
        }
    }

    #[test]
    fn a_new_rate_takes_effect_at_once() {
        for (from, to) in [(2_000_000, 500_000), (300_000, 1_500_000)] {
            for mode in [vbr as fn(u64) -> RateControl, |rate| cbr(rate, 1000)] {
                let c = config(mode(from), 0, 0);
                let mut rc = RateController::new(&c);
                let mut s = source(0.06, 6e5);
                let mut planner_run = |rc: &mut RateController, frames| {
                    let mut sizes = Vec::new();
                    for i in 0..frames {
                        let (class, offset) = if i == 0 && rc.keys.since.is_none() {
                            (FrameClass::Key, -12)
                        } else {
                            (FrameClass::LowDelay((i % 4) as u8), [11, 7, 11, 0][i % 4])
                        };
                        let q = rc.quantizer(class, offset, s.time());
                        let bits = s.bits(class, q);
                        rc.update(class, offset, q, bits, s.time());
                        sizes.push(bits);
                    }
                    sizes
                };
                planner_run(&mut rc, 150);
                rc.change(mode(to), 28);
                let sizes = planner_run(&mut rc, 60);
                // From half a second after the change on.
                let rate = sizes[15..45].iter().sum::<u64>() as f64 / to as f64;
                assert!((rate - 1.0).abs() < 0.1, "{:?}: {rate}", rc.mode());
            }
        }
    }

    #[test]
    fn a_rate_may_follow_constant_quality() {
        for to in [vbr(400_000), cbr(400_000, 1000)] {
            let c = config(RateControl::Cq, 0, 0);
            let mut rc = RateController::new(&c);
            let mut s = source(0.06, 6e5);
            run(&mut rc, &c, &mut s, 100);
            rc.change(to, 28);
            // The run starts with a key frame of its own.
            let r = run(&mut rc, &c, &mut s, 300);
            assert!((r.rate() / 4e5 - 1.0).abs() < 0.03, "{to:?}: {}", r.rate());
        }
    }

    #[test]
    fn extremes_stay_within_the_quantizers() {
        for complexity in [1.0, 1e12] {
            let mut c = config(cbr(100_000, 500), 3, 20);
            (c.min_quantizer, c.max_quantizer) = (10, 50);
            let mut rc = RateController::new(&c);
            let r = run(&mut rc, &c, &mut source(0.06, complexity), 100);
            let mut coded = r
                .quantizers
                .iter()
                .zip(&r.sizes)
                .filter(|(_, s)| **s != 160);
            assert!(coded.clone().all(|(q, _)| (10..=50).contains(q)));
            let end = *coded.next_back().unwrap().0;
            assert_eq!(end, if complexity > 1.0 { 50 } else { 10 });
        }
    }
}

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
use super::quality_control::detail;
use super::step::nominal_step;
use super::two_pass::SecondPass;
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
/// How wrong the slope may be, as a share of it.
const SLOPE_ERROR: f64 = 0.3;
/// Share of what is left of a second that a key frame may take: in the first seconds, where the
/// last one was in that second too, and where it was not.
const KEY_EARLY: f64 = 0.33;
const KEY_SOON: f64 = 0.45;
const KEY_TAKE: f64 = 0.85;
/// Share of the rate that a key frame has to leave to the frames of the second behind it.
const BEHIND_KEY: f64 = 0.45;
/// Codings of one frame beyond the first, at most.
pub const RETRIES: u32 = 3;
/// Seconds after a step down in which what is saved is not spent later: frames that inherit a
/// better picture cost less than they will.
const SETTLING: f64 = 1.0;
/// A rate counts as out of reach after so many seconds at the greatest quantizer, and that much
/// above what was asked for.
const OUT_OF_REACH: (f64, f64) = (1.0, 1.1);

/// A rate that even the greatest quantizer does not reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutOfReach {
    /// What was asked for, in bit/s.
    pub asked: u64,
    /// What the pictures take at the greatest quantizer, in bit/s, were all of them coded.
    pub takes: u64,
    /// Some stood still, so that a decoder's buffer did not run empty.
    pub held: bool,
}

/// Frames one after the other that could not take less: at the greatest quantizer, or with pictures
/// that stand still among them.
#[derive(Debug, Clone, Copy)]
struct Pinned {
    /// How long they last, all of them and those that are no repeats, in s.
    seconds: f64,
    coded: f64,
    /// What they take, or would at the greatest quantizer.
    bits: f64,
    /// Key frames among them: seconds and bits.
    keys: (f64, f64),
    /// Seconds since a picture stood still for the buffer's sake.
    since_held: f64,
    /// This rate was told of.
    told: bool,
}

impl Pinned {
    fn new() -> Self {
        Self {
            seconds: 0.0,
            coded: 0.0,
            bits: 0.0,
            keys: (0.0, 0.0),
            since_held: f64::INFINITY,
            told: false,
        }
    }

    fn holds(&self) -> bool {
        self.since_held <= OUT_OF_REACH.0
    }
}

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
    let activity = detail(picture);
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
    /// Seconds left in which a rate counts as new.
    settling: f64,
    pinned: Pinned,
    second_pass: Option<SecondPass>,
    /// What the second pass predicts of the frames that wait.
    asked: VecDeque<f64>,
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
            settling: 0.0,
            pinned: Pinned::new(),
            second_pass: None,
            asked: VecDeque::new(),
        };
        this.second_pass = (config.second_pass.as_deref().zip(this.rate()))
            .map(|(stats, rate)| SecondPass::new(stats, rate));
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
            RateControl::Vbr { .. } if self.second_pass.is_some() => f64::INFINITY,
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
        self.pinned = Pinned::new();
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
                let down = before.zip(rate).is_some_and(|(before, rate)| rate < before);
                self.settling = if down { SETTLING } else { 0.0 };
                match (before, rate) {
                    (Some(before), Some(rate)) => {
                        self.second.scale(rate / before);
                        if let Some(pass) = &mut self.second_pass {
                            pass.scale(rate / before);
                        }
                    }
                    _ => self.second.scale(0.0),
                }
            }
        }
    }

    /// Forgets the frames that were asked for and never reported, as after an abort.
    pub fn forget_waiting(&mut self) {
        self.waiting = 0;
        self.expected = 0.0;
        self.asked.clear();
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

    /// Whether the frame of this number in order of presentation may come: a second pass needs the
    /// first one's word on it.
    pub fn knows(&self, index: u64) -> bool {
        self.second_pass
            .as_ref()
            .is_none_or(|pass| pass.knows(index))
    }

    /// The quantizer of the frame of this number in order of presentation. `offset` is added to
    /// the base.
    pub fn quantizer_of(
        &mut self,
        index: u64,
        class: FrameClass,
        offset: i8,
        time: FrameTime,
    ) -> u8 {
        let (low, high) = (f64::from(self.min), f64::from(self.max.max(self.min)));
        let Some(pass) = &mut self.second_pass else {
            return self.quantizer(class, offset, time);
        };
        let (base, predicted) = pass.base(index, (low - 16.0, high + 16.0));
        self.asked.push_back(predicted);
        self.waiting += 1;
        if class == FrameClass::Repeat {
            return self.min;
        }
        let allowed = self.allowed(class, time, self.expected, false).max(64.0);
        let needed = (self.intercept(class) - allowed.ln()) / self.slope;
        let exact = (base + f64::from(offset)).max(needed).clamp(low, high);
        let q = (exact + self.carry).round().clamp(low, high);
        self.carry = (self.carry + exact - q).clamp(-1.0, 1.0);
        self.expected += self.predict(class, q);
        q as u8
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
        let inner = class.is_inner();
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
        let bits = self.predict(class, q);
        let waiting = before as f64 * self.inter_bits((class, 0.0)) * (-self.slope * q).exp();
        let there = bucket.after(time.elapsed) - self.expected - waiting;
        // The farther the greatest quantizer is from the last one, the less is known of it.
        let far = self
            .models
            .get(&class)
            .map_or(0.0, |m| (q - m.last.0).max(0.0));
        let most = 0.9 * bucket.size;
        let surprise = SURPRISE * (SLOPE_ERROR * self.slope * far).exp();
        // A frame that no buffer of this size holds is not waited for.
        self.keys.since.is_some() && (surprise * bits).min(most) > there && bits < most
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
        if let (Some(pass), Some(predicted)) = (&mut self.second_pass, self.asked.pop_front()) {
            pass.coded(predicted, bits);
        }
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
            let saved = match self.bucket {
                _ if self.settling > 0.0 => 0.0,
                Some(b) => (b.size / b.rate).min(0.5),
                None => DEBT.0,
            };
            self.settling -= time.elapsed;
            self.debt = self.debt.clamp(-saved * rate, DEBT.1 * rate);
        }
        self.pin(class, q, bits, time);
        self.second.add(time, bits);
        if let Some(b) = &mut self.bucket {
            b.fullness = b.after(time.elapsed) - bits;
        }
    }

    /// Counts frames that could not take less.
    fn pin(&mut self, class: FrameClass, quantizer: f64, bits: f64, time: FrameTime) {
        let finer = (f64::from(self.max) - quantizer).max(0.0);
        let pinned = &mut self.pinned;
        pinned.since_held += time.elapsed;
        if class == FrameClass::Repeat {
            pinned.bits += bits;
        } else if finer == 0.0 || pinned.holds() {
            let bits = bits * (-self.slope * finer).exp();
            pinned.coded += time.interval;
            pinned.bits += bits;
            if class == FrameClass::Key && !self.keys.only() {
                pinned.keys.0 += time.interval;
                pinned.keys.1 += bits;
            }
        } else {
            *pinned = Pinned {
                told: pinned.told,
                ..Pinned::new()
            };
            return;
        }
        pinned.seconds += time.elapsed;
    }

    /// A frame that [`must_hold`](Self::must_hold) was asked for is held.
    pub fn held(&mut self) {
        self.pinned.since_held = 0.0;
    }

    /// Says once for each rate that it is out of reach: that for a second or longer frames were at
    /// the greatest quantizer and took more, or that some had to stand still.
    pub fn out_of_reach(&mut self) -> Option<OutOfReach> {
        let asked = self.rate()?;
        let pinned = &mut self.pinned;
        if pinned.told || pinned.seconds < OUT_OF_REACH.0 || pinned.coded <= pinned.keys.0 {
            return None;
        }
        let held = pinned.holds();
        let takes = if held {
            // A key frame says too much where few frames come behind it.
            (pinned.bits - pinned.keys.1) / (pinned.coded - pinned.keys.0)
        } else {
            pinned.bits / pinned.seconds
        };
        pinned.told = takes > OUT_OF_REACH.1 * asked;
        pinned.told.then_some(OutOfReach {
            asked: asked as u64,
            takes: takes as u64,
            held,
        })
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
mod tests;

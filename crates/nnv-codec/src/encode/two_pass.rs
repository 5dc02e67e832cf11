// SPDX-License-Identifier: MPL-2.0
//! Two passes over a clip: the first writes what each frame cost, the second spends a bit rate by
//! it.
//!
//! With everything known beforehand one base quantizer for the whole clip meets the rate, so all
//! scenes are equally good. What frames really cost corrects it on the way, a little with each.
//!
//! Statistics are text: a line that names the version, one with the settings that both passes must
//! share, one per frame in coding order, and an end line, without which the first pass was cut off.

use nnv_bitstream::FrameType;

use crate::config::EncoderConfig;

const MAGIC: &str = "nnvenc-stats 1";
const COLUMNS: &str = "index,kind,level,offset,quantizer,bits";
/// Slope of `ln(bits)` per quantizer.
const SLOPE: f64 = 0.061;
/// Share of all bits that the first pass' prediction counts for beside what frames really cost.
const TRUST: f64 = 0.04;
/// Bits of headers, which no quantizer changes.
const HEADER: f64 = 300.0;
/// Most that the base quantizer may leave its mean, in quantizers.
const SWING: f64 = 5.0;
/// Frames that a statistics file may speak of: ten days at 60 per second.
const MOST_FRAMES: usize = 60 * 60 * 60 * 240;

/// What the first pass says of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassFrame {
    /// Number in order of presentation.
    pub index: u64,
    /// How it was coded.
    pub kind: FrameType,
    /// Level in its mini-GOP.
    pub level: u8,
    /// What was added to the base quantizer.
    pub offset: i8,
    /// Quantizer.
    pub quantizer: u8,
    /// Bits of the access unit.
    pub bits: u64,
}

impl PassFrame {
    /// The frame's line.
    pub fn line(&self) -> String {
        let kind = match self.kind {
            FrameType::Key => 'K',
            FrameType::Inter => 'P',
            FrameType::Repeat => 'R',
        };
        let Self {
            index,
            level,
            offset,
            quantizer,
            bits,
            ..
        } = self;
        format!("{index},{kind},{level},{offset},{quantizer},{bits}\n")
    }

    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(',');
        let mut next = || parts.next();
        let frame = Self {
            index: next()?.parse().ok()?,
            kind: match next()? {
                "K" => FrameType::Key,
                "P" => FrameType::Inter,
                "R" => FrameType::Repeat,
                _ => return None,
            },
            level: next()?.parse().ok()?,
            offset: next()?.parse().ok()?,
            quantizer: next()?.parse().ok()?,
            bits: next()?.parse().ok()?,
        };
        (parts.next().is_none() && frame.bits < 1 << 40 && frame.quantizer < 64).then_some(frame)
    }
}

/// The settings that decide which frames are coded how: both passes must share them.
fn settings(config: &EncoderConfig) -> String {
    let (info, rate) = (&config.info, config.info.rate());
    format!(
        "width={} height={} depth={} rate={}/{} key-int-max={} bframes={} tune={:?}",
        info.width,
        info.height,
        info.bit_depth,
        rate.num,
        rate.den,
        config.key_int_max,
        config.effective_bframes(),
        config.tune,
    )
}

/// What a first pass writes before its frames.
pub fn begin(config: &EncoderConfig) -> String {
    format!("{MAGIC}\n{}\n{COLUMNS}\n", settings(config))
}

/// What a first pass writes behind its last frame; `seconds`: how long the frames last.
pub fn end(frames: u64, seconds: f64) -> String {
    format!("end,{frames},{seconds:.6}\n")
}

/// Why statistics cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatsError {
    /// Not of a first pass at all.
    #[error("it does not begin with \"{MAGIC}\": it was not written by a first pass of nnvenc")]
    Foreign,
    /// Of other settings.
    #[error("the first pass had other settings: {first}; the second has {second}")]
    Settings {
        /// Of the file.
        first: String,
        /// Of now.
        second: String,
    },
    /// The end line is missing.
    #[error("it has no end: the first pass was cut off; run it again up to its end")]
    Cut,
    /// A line that says nothing.
    #[error("line {0} is damaged; run the first pass again")]
    Line(usize),
    /// Nothing in it.
    #[error("the first pass had no frames")]
    Empty,
}

/// The statistics of a first pass.
#[derive(Debug, Clone, PartialEq)]
pub struct PassStats {
    /// By number in order of presentation.
    frames: Vec<PassFrame>,
    seconds: f64,
}

impl PassStats {
    /// Reads the statistics of a clip that is to be coded with `config`.
    ///
    /// # Errors
    /// [`StatsError`] says what is wrong with them.
    pub fn parse(text: &str, config: &EncoderConfig) -> Result<Self, StatsError> {
        let mut lines = text.lines().zip(1..);
        let mut next = || lines.next().map(|(line, _)| line);
        if next() != Some(MAGIC) {
            return Err(StatsError::Foreign);
        }
        let (first, second) = (next().unwrap_or_default(), settings(config));
        if first != second {
            return Err(StatsError::Settings {
                first: first.chars().take(200).collect(),
                second,
            });
        }
        if next() != Some(COLUMNS) {
            return Err(StatsError::Line(3));
        }
        let mut frames = Vec::new();
        for (line, number) in lines {
            if let Some(rest) = line.strip_prefix("end,") {
                let parsed = rest
                    .split_once(',')
                    .and_then(|(n, s)| Some((n.parse::<usize>().ok()?, s.parse::<f64>().ok()?)));
                let (count, seconds) = parsed.ok_or(StatsError::Line(number))?;
                let sound = (1e-3..=1e9).contains(&seconds) && count == frames.len();
                return Self::sorted(frames, seconds, sound.then_some(()), number);
            }
            let frame = PassFrame::parse(line).filter(|_| frames.len() < MOST_FRAMES);
            frames.push(frame.ok_or(StatsError::Line(number))?);
        }
        Err(StatsError::Cut)
    }

    fn sorted(
        mut frames: Vec<PassFrame>,
        seconds: f64,
        sound: Option<()>,
        line: usize,
    ) -> Result<Self, StatsError> {
        if frames.is_empty() {
            return Err(StatsError::Empty);
        }
        frames.sort_unstable_by_key(|f| f.index);
        let whole = frames.iter().zip(0..).all(|(f, i)| f.index == i);
        sound.filter(|()| whole).ok_or(StatsError::Line(line))?;
        Ok(Self { frames, seconds })
    }

    /// Frames of the clip.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }
}

/// Spends a rate by the statistics of a first pass.
#[derive(Debug, Clone)]
pub(super) struct SecondPass {
    /// Bits of each frame at base quantizer 0, and those that no quantizer changes.
    costs: Vec<(f64, f64)>,
    /// Sums of these over the frames to come.
    left: (f64, f64),
    /// Bits for the frames to come.
    budget: f64,
    /// Bits of all frames.
    total: f64,
    /// What was predicted and what came of it.
    predicted: f64,
    spent: f64,
    /// Mean base quantizer so far, and decisions in it.
    mean: (f64, f64),
}

impl SecondPass {
    /// For a mean rate in bit/s over the whole clip.
    pub fn new(stats: &PassStats, bitrate: f64) -> Self {
        let cost = |f: &PassFrame| match f.kind {
            FrameType::Repeat => (0.0, f.bits as f64),
            _ => {
                let base = f64::from(f.quantizer) - f64::from(f.offset);
                let fixed = HEADER.min(0.5 * f.bits as f64);
                ((f.bits as f64 - fixed) * (SLOPE * base).exp(), fixed)
            }
        };
        let costs: Vec<(f64, f64)> = stats.frames.iter().map(cost).collect();
        let sum = |(a, b): (f64, f64), c: &(f64, f64)| (a + c.0, b + c.1);
        let total = bitrate * stats.seconds;
        Self {
            left: costs.iter().fold((0.0, 0.0), sum),
            costs,
            budget: total,
            total,
            predicted: 0.0,
            spent: 0.0,
            mean: (0.0, 0.0),
        }
    }

    /// Another rate for the frames to come.
    pub fn scale(&mut self, by: f64) {
        self.budget *= by;
        self.total *= by;
        self.mean = (0.0, 0.0);
    }

    /// Whether the first pass saw a frame of this number.
    pub fn knows(&self, index: u64) -> bool {
        usize::try_from(index).is_ok_and(|i| i < self.costs.len())
    }

    /// The base quantizer for frame `index`, not rounded, and the bits that it is predicted to
    /// take with it. These are counted as spent until [`coded`](Self::coded) tells.
    pub fn base(&mut self, index: u64, (low, high): (f64, f64)) -> (f64, f64) {
        let trust = TRUST * self.total;
        let ratio = (self.spent + trust) / (self.predicted + trust);
        let cost = usize::try_from(index).ok().and_then(|i| self.costs.get(i));
        let (scaled, fixed) = cost.copied().unwrap_or_default();
        let there = (self.budget - self.left.1)
            .max(0.02 * self.budget.abs())
            .max(1.0);
        let solved = ((ratio * self.left.0).max(1.0) / there).ln() / SLOPE;
        let base = if self.mean.1 < 1.0 {
            solved
        } else {
            solved.clamp(self.mean.0 - SWING, self.mean.0 + SWING)
        }
        .clamp(low, high);
        self.mean.1 += 1.0;
        self.mean.0 += (base - self.mean.0) / self.mean.1.min(300.0);
        self.left = (self.left.0 - scaled, self.left.1 - fixed);
        let bits = scaled * (-SLOPE * base).exp() + fixed;
        self.budget -= ratio * (bits - fixed) + fixed;
        (base, ratio * (bits - fixed) + fixed)
    }

    /// A frame took `bits` in place of the `predicted` ones.
    pub fn coded(&mut self, predicted: f64, bits: f64) {
        let ratio = (self.spent + TRUST * self.total) / (self.predicted + TRUST * self.total);
        self.budget += predicted - bits;
        self.predicted += predicted / ratio;
        self.spent += bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nnv_bitstream::StreamInfo;
    use std::fmt::Write;

    fn config() -> EncoderConfig {
        EncoderConfig::new(StreamInfo::new(64, 48, 8))
    }

    fn text(frames: &[PassFrame]) -> String {
        let lines: String = frames.iter().map(PassFrame::line).collect();
        let mut out = begin(&config());
        let _ = write!(out, "{lines}{}", end(frames.len() as u64, 10.0));
        out
    }

    /// Scenes that cost very differently, in coding order of pairs swapped.
    fn frames() -> Vec<PassFrame> {
        let mut frames: Vec<PassFrame> = (0..300u64)
            .map(|index| PassFrame {
                index,
                kind: match index {
                    i if i % 75 == 0 => FrameType::Key,
                    i if i % 10 == 3 => FrameType::Repeat,
                    _ => FrameType::Inter,
                },
                level: 0,
                offset: if index % 75 == 0 { -12 } else { 5 },
                quantizer: 30,
                bits: [4_000, 40_000, 9_000, 20_000][(index / 75) as usize]
                    * if index % 75 == 0 { 5 } else { 1 },
            })
            .collect();
        frames.swap(10, 11);
        frames
    }

    #[test]
    fn statistics_come_back() {
        let stats = PassStats::parse(&text(&frames()), &config()).unwrap();
        assert_eq!((stats.frames(), stats.seconds), (300, 10.0));
        assert_eq!(stats.frames[10].index, 10);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = text(&frames());
        let parse = |text: &str| PassStats::parse(text, &config()).unwrap_err();
        assert_eq!(parse(""), StatsError::Foreign);
        assert_eq!(parse("#options: x264"), StatsError::Foreign);
        let other = EncoderConfig {
            bframes: 3,
            ..config()
        };
        let error = PassStats::parse(&good, &other).unwrap_err().to_string();
        assert!(
            error.contains("bframes=0") && error.contains("bframes=3"),
            "{error}"
        );
        let cut = good.rsplit_once("end").unwrap().0;
        assert_eq!(parse(cut), StatsError::Cut);
        assert_eq!(parse(&cut[..cut.len() - 8]), StatsError::Line(303));
        assert_eq!(
            parse(&good.replace("\n7,P", "\n8,P")),
            StatsError::Line(304)
        );
        assert_eq!(parse(&good.replace("\n7,P", "\n7,X")), StatsError::Line(11));
        assert_eq!(parse(&text(&[])), StatsError::Empty);
        assert_eq!(
            parse(&good.replace("end,300", "end,299")),
            StatsError::Line(304)
        );
        assert_eq!(parse(&good.replace(",10.0", ",nan")), StatsError::Line(304));
    }

    #[test]
    fn the_rate_is_met_with_one_quantizer_for_all() {
        let stats = PassStats::parse(&text(&frames()), &config()).unwrap();
        // Frames really cost something else than predicted, and fall otherwise with the quantizer.
        for (bitrate, slope, factor) in [(3e5, 0.061, 1.0), (2e5, 0.075, 1.3), (9e5, 0.05, 0.8)] {
            let mut pass = SecondPass::new(&stats, bitrate);
            let (mut bits, mut bases, mut carry) = (0.0, Vec::new(), 0.0f64);
            for f in &stats.frames {
                let (base, predicted) = pass.base(f.index, (-16.0, 79.0));
                let exact = base + f64::from(f.offset) + carry;
                let q = exact.round();
                carry = exact - q;
                let noise = 1.0 + 0.3 * ((f.index * 7919 % 100) as f64 / 100.0 - 0.5);
                let took = match f.kind {
                    FrameType::Repeat => f.bits as f64,
                    _ => f.bits as f64 * factor * noise * (-slope * (q - 30.0)).exp(),
                };
                pass.coded(predicted, took);
                bits += took;
                bases.push(base);
            }
            let error = bits / 10.0 / bitrate - 1.0;
            assert!(error.abs() < 0.01, "{bitrate}: {error}");
            let spread = bases[75..]
                .iter()
                .fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
            assert!(spread.1 - spread.0 < 5.0, "{spread:?}");
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Configuration of encoder and decoder.

use std::sync::Arc;

use crate::encode::two_pass::PassStats;
use nnv_bitstream::StreamInfo;
use nnv_bitstream::limits::{MAX_BFRAMES, MAX_QUANTIZER, MAX_SAMPLES};
use nnv_nn as nn;

/// Most frames to look ahead.
pub const MAX_LOOKAHEAD: u8 = 4;
/// Most frames in one run of a network.
pub const MAX_BATCH: u32 = nnv_nn::MAX_BATCH as u32;
/// Smallest and largest bit rate, in bit/s.
pub const BITRATES: std::ops::RangeInclusive<u64> = 1_000..=4_000_000_000;
/// Smallest and largest decoder buffer, in ms.
pub const VBV_MS: std::ops::RangeInclusive<u32> = 50..=60_000;

/// How the encoder chooses quantizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateControl {
    /// Constant quality: [`EncoderConfig::quantizer`] plus an offset by frame type.
    Cq,
    /// A mean bit rate over the stream, in bit/s.
    Vbr {
        /// Mean.
        bitrate: u64,
        /// Most over any second, or `None`.
        max_bitrate: Option<u64>,
    },
    /// A constant bit rate within a decoder buffer.
    Cbr {
        /// Rate in bit/s.
        bitrate: u64,
        /// Size of the decoder's buffer in ms at that rate.
        vbv_ms: u32,
    },
}

/// A measure of quality that rate control can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QualityMetric {
    /// PSNR in dB of the errors of the planes, weighted (6 Y + U + V) / 8.
    #[default]
    Psnr,
    /// SSIM of luma, as ffmpeg has it.
    Ssim,
    /// MS-SSIM of luma.
    MsSsim,
    /// VMAF, model `vmaf_v0.6.1`, by libvmaf, where that is installed.
    Vmaf,
}

/// A value of a measure, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u32);

impl Level {
    /// Of a value; what is no number, or below 0, is 0.
    pub fn new(value: f64) -> Self {
        Self((value * 1e6).round() as u32)
    }

    /// The value.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

/// Quality that is held in the mean over all frames, in place of a quantizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QualityTarget {
    /// Which measure.
    pub metric: QualityMetric,
    /// Its mean over the frames.
    pub target: Level,
    /// What each frame is planned not to fall below.
    pub floor: Option<Level>,
}

impl QualityTarget {
    fn validate(&self) -> Result<(), ConfigError> {
        let range = match self.metric {
            QualityMetric::Psnr => 10.0..=60.0,
            QualityMetric::Ssim | QualityMetric::MsSsim => 0.1..=0.9999,
            QualityMetric::Vmaf => 10.0..=99.0,
        };
        for (name, level) in [
            ("target-quality", Some(self.target)),
            ("quality-floor", self.floor),
        ] {
            let value = level.map_or(*range.start(), Level::value);
            if !range.contains(&value) {
                return Err(ConfigError::Quality {
                    name,
                    value: value.to_string(),
                    least: range.start().to_string(),
                    most: range.end().to_string(),
                });
            }
        }
        Ok(())
    }
}

/// What the encoder optimises for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tune {
    /// Best squared error.
    #[default]
    Psnr,
    /// Best structural similarity (MS-SSIM); needs a bundle that was trained for it.
    Visual,
    /// Every frame leaves before the next one comes in: no B frames, no batches of key frames.
    ZeroLatency,
}

/// What the encoder does so that receivers can go on after losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorResilience {
    /// Nothing: only a key frame helps.
    #[default]
    None,
    /// Keeps long-term references; a reported loss is answered with a frame that is predicted from
    /// what the receiver has. In low-delay order only.
    Ltr,
}

/// Encoding time against rate. The decoder's work is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SpeedPreset {
    /// The smallest motion search that still follows motion: one vector per block, into the last
    /// frame where all references lie in the past. More frames than elsewhere stay as predicted.
    Ultrafast,
    /// Small motion search, symbols by a dead zone.
    Fast,
    /// Full motion search, symbols by rate and distortion.
    #[default]
    Medium,
    /// Wider search, a second pass over the motion that knows the blocks to come, and a second look
    /// at the latents of inter frames that knows what the first decodes to.
    Slow,
}

/// Constants of the encoder that experiments tune, in one place. The stream format does not depend
/// on them.
///
/// Offsets are in quantizer units, 12 of which double the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Offset of key frames that other frames are predicted from.
    pub key: i8,
    /// Offset of key frames that nothing is predicted from.
    pub key_only: i8,
    /// Offsets over the frames that follow a key frame in low-delay order, repeated. A frame with
    /// the lowest offset serves as long-term reference.
    pub low_delay: [i8; 4],
    /// Offsets by level of a mini-GOP; level 0 is the anchor.
    pub levels: [i8; 4],
    /// How much the offsets of inter frames shrink where they inherit little from their references:
    /// by this share of them for each octave that inter frames are too large next to their key
    /// frame. 0: not at all.
    pub inheritance: f32,
    /// Squared error, in squared steps, that one bit of the latent is worth.
    pub lambda: f32,
    /// Without rate-distortion optimisation, symbols round up from this fraction on (0.5 is plain
    /// rounding).
    pub round_up: f32,
    /// Quantizers that a key frame's place goes up by for each octave of its luma's variance; 0:
    /// the same quantizer everywhere.
    pub adaptive_quantizer: f32,
    /// Strength of the temporal filter by level of a mini-GOP, key frames and anchors first: the
    /// error of motion, in units of what coding loses, that halves a neighbour's weight. 0: such
    /// frames are coded as they are.
    pub temporal_filter: [f32; 4],
    /// Squared error of 10-bit samples that a bit of ink is worth at quantizer 40; it doubles every
    /// six. 0: no ink.
    pub ink: f32,
    /// Bits of a place that taking it as predicted may be worse, as it is faster to decode. 0: no
    /// such places, nor frames.
    pub still: f32,
    /// Frames that nothing refers to stay as predicted, and no network runs for them, where the
    /// squared error is at most this many times what coding loses: in the mean, and in each cell of
    /// 8×8 luma samples. 0: all are coded.
    pub as_predicted: [f32; 2],
    /// Scales the cost of a bit in motion search.
    pub motion_lambda: f32,
    /// A scene cut needs this ratio of inter to intra cost, far from the last key frame.
    pub scene_cut: f32,
    /// What is added to that right after a key frame; it fades over 24 frames.
    pub scene_cut_near: f32,
    /// A mini-GOP ends early when the changes of its frames add up to more than this.
    pub mini_gop_change: f32,
}

impl Tuning {
    /// Squared error of 10-bit samples that a bit of ink is worth at a quantizer.
    pub fn worth_of_ink(&self, quantizer: u8) -> f32 {
        self.ink * ((f32::from(quantizer) - 40.0) / 6.0).exp2()
    }

    /// Sets constants by name: `NAME=VALUE:NAME=VALUE`, where lists have commas between their
    /// numbers, as in `key=-8:low_delay=11,7,11,0`. Colons and commas may change places.
    ///
    /// # Errors
    /// [`ConfigError::Tuning`] names the first constant that does not exist, or whose value is no
    /// number that it can have; then nothing is set.
    pub fn set(&mut self, text: &str) -> Result<(), ConfigError> {
        let mut new = *self;
        let mut items: Vec<(&str, Vec<&str>)> = Vec::new();
        for part in text.split([':', ',']).filter(|part| !part.is_empty()) {
            match (part.split_once('='), items.last_mut()) {
                (Some((name, value)), _) => items.push((name.trim(), vec![value.trim()])),
                (None, Some((_, values))) => values.push(part.trim()),
                (None, None) => {
                    return Err(ConfigError::Tuning(format!(
                        "{part} is not of the form NAME=VALUE:NAME=VALUE"
                    )));
                }
            }
        }
        for (name, values) in items {
            new.set_one(name, &values)?;
        }
        *self = new;
        Ok(())
    }

    fn set_one(&mut self, name: &str, values: &[&str]) -> Result<(), ConfigError> {
        match name {
            "key" => [self.key] = offsets(name, values)?,
            "key_only" => [self.key_only] = offsets(name, values)?,
            "low_delay" => self.low_delay = offsets(name, values)?,
            "levels" => self.levels = offsets(name, values)?,
            "inheritance" => [self.inheritance] = reals(name, values)?,
            "lambda" => [self.lambda] = reals(name, values)?,
            "round_up" => [self.round_up] = reals(name, values)?,
            "adaptive_quantizer" => [self.adaptive_quantizer] = reals(name, values)?,
            "temporal_filter" => self.temporal_filter = reals(name, values)?,
            "still" => [self.still] = reals(name, values)?,
            "as_predicted" => self.as_predicted = reals(name, values)?,
            "ink" => [self.ink] = reals(name, values)?,
            "motion_lambda" => [self.motion_lambda] = reals(name, values)?,
            "scene_cut" => [self.scene_cut] = reals(name, values)?,
            "scene_cut_near" => [self.scene_cut_near] = reals(name, values)?,
            "mini_gop_change" => [self.mini_gop_change] = reals(name, values)?,
            _ => return Err(ConfigError::Tuning(format!("there is no constant {name}"))),
        }
        Ok(())
    }

    /// The constants for what the encoder optimises for.
    pub fn of(tune: Tune) -> Self {
        let plain = Self::default();
        match tune {
            Tune::Psnr | Tune::ZeroLatency => plain,
            // Structure is judged frame by frame: what a good reference keeps in quiet areas counts
            // in each of them.
            Tune::Visual => Self {
                key: -16,
                low_delay: [8, 5, 8, 0],
                levels: [0, 11, 17, 23],
                inheritance: 0.0,
                lambda: 0.09,
                adaptive_quantizer: 2.0,
                ink: 2500.0,
                as_predicted: [0.0; 2],
                ..plain
            },
        }
    }
}

/// Exactly `N` values of a constant, each made by `parse`.
fn values<T, const N: usize>(
    name: &str,
    values: &[&str],
    range: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<[T; N], ConfigError> {
    let parsed: Option<Vec<T>> = values.iter().map(|v| parse(v)).collect();
    parsed.and_then(|p| p.try_into().ok()).ok_or_else(|| {
        let got = values.join(",");
        ConfigError::Tuning(format!("{name} is {got}, it must be {N} of {range}"))
    })
}

fn offsets<const N: usize>(name: &str, given: &[&str]) -> Result<[i8; N], ConfigError> {
    let most = MAX_QUANTIZER as i8;
    let parse = |v: &str| v.parse().ok().filter(|v| (-most..=most).contains(v));
    values(name, given, "the whole numbers from -63 to 63", parse)
}

fn reals<const N: usize>(name: &str, given: &[&str]) -> Result<[f32; N], ConfigError> {
    let parse = |v: &str| v.parse().ok().filter(|v| (0.0..=1e6).contains(v));
    values(name, given, "the numbers from 0 to 1000000", parse)
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            key: -12,
            key_only: 0,
            low_delay: [11, 7, 11, 0],
            levels: [0, 10, 15, 20],
            inheritance: 0.7,
            lambda: 0.06,
            round_up: 0.56,
            adaptive_quantizer: 0.0,
            temporal_filter: [10.0, 4.0, 0.0, 0.0],
            ink: 1000.0,
            still: 0.1,
            as_predicted: [2.0, 10.0],
            motion_lambda: 1.2,
            scene_cut: 0.82,
            scene_cut_near: 0.12,
            mini_gop_change: 0.8,
        }
    }
}

/// All settings of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Size, bit depth, frame rate, colours: what the sequence header says about the pictures.
    pub info: StreamInfo,
    /// How quantizers are chosen.
    pub rate_control: RateControl,
    /// Quality to hold. With [`RateControl::Cq`] nothing else counts; with [`RateControl::Vbr`] its
    /// rate is a ceiling: a frame gets the greater of both quantizers.
    pub quality: Option<QualityTarget>,
    /// Quantizer of constant quality, and the first one of the other modes' search; 0..=63, lower
    /// is better.
    pub quantizer: u8,
    /// Least quantizer, offsets included.
    pub min_quantizer: u8,
    /// Greatest quantizer, offsets included.
    pub max_quantizer: u8,
    /// Most frames from one key frame to the next; 1 makes all frames key frames, 0 only the first
    /// and those asked for.
    pub key_int_max: u32,
    /// Frames between the anchors of a mini-GOP, 0..=7; 0 is low-delay order.
    pub bframes: u8,
    /// With B frames, frames behind a key frame or an anchor that are there before it is coded: its
    /// noise is filtered along their motion.
    pub lookahead: u8,
    /// What to optimise for.
    pub tune: Tune,
    /// Encoding time against rate.
    pub speed: SpeedPreset,
    /// Most frames in one run of a network.
    pub batch_size: u32,
    /// Writes a checksum of each decoded frame.
    pub frame_checksum: bool,
    /// Threads of the encoder's own work (motion search, packing); 0 for as many as there are
    /// processors.
    pub threads: u32,
    /// Every frame leaves before the next one comes in, whatever the tune.
    pub zero_latency: bool,
    /// Starts key frames at scene cuts.
    pub scene_cut: bool,
    /// What is done against losses.
    pub error_resilience: ErrorResilience,
    /// Constants for experiments in place of those of the tune.
    pub tuning: Option<Tuning>,
    /// What a first pass over the same clip wrote: a variable rate is spent by it.
    pub second_pass: Option<Arc<PassStats>>,
}

impl EncoderConfig {
    /// The defaults for pictures described by `info`.
    pub fn new(info: StreamInfo) -> Self {
        Self {
            info,
            rate_control: RateControl::Cq,
            quality: None,
            quantizer: 28,
            min_quantizer: 0,
            max_quantizer: MAX_QUANTIZER,
            key_int_max: 250,
            bframes: 0,
            lookahead: MAX_LOOKAHEAD,
            tune: Tune::Psnr,
            speed: SpeedPreset::Medium,
            batch_size: 4,
            frame_checksum: false,
            threads: 0,
            zero_latency: false,
            scene_cut: true,
            error_resilience: ErrorResilience::None,
            tuning: None,
            second_pass: None,
        }
    }

    /// Checks all values.
    ///
    /// # Errors
    /// The first [`ConfigError`] found; an encoder refuses such a configuration.
    pub fn validate(&self) -> Result<(), ConfigError> {
        use ConfigError as E;
        self.info.validate().map_err(|e| E::Info(e.to_string()))?;
        for (name, value) in [
            ("quantizer", self.quantizer),
            ("min-quantizer", self.min_quantizer),
            ("max-quantizer", self.max_quantizer),
        ] {
            if value > MAX_QUANTIZER {
                return Err(E::Quantizer { name, value });
            }
        }
        if self.min_quantizer > self.max_quantizer {
            return Err(E::QuantizerRange {
                min: self.min_quantizer,
                max: self.max_quantizer,
            });
        }
        if self.bframes > MAX_BFRAMES {
            return Err(E::Bframes(self.bframes));
        }
        if self.lookahead > MAX_LOOKAHEAD {
            return Err(E::Lookahead(self.lookahead));
        }
        if !(1..=MAX_BATCH).contains(&self.batch_size) {
            return Err(E::BatchSize(self.batch_size));
        }
        let reorders = self.effective_bframes() > 0;
        if self.error_resilience == ErrorResilience::Ltr && reorders {
            return Err(E::Resilience(self.bframes));
        }
        let bitrate = |bitrate: u64| {
            if BITRATES.contains(&bitrate) {
                Ok(())
            } else {
                Err(E::Bitrate(bitrate))
            }
        };
        let variable = matches!(self.rate_control, RateControl::Vbr { .. });
        if self.second_pass.is_some() && !variable {
            return Err(E::SecondPass);
        }
        if let Some(quality) = &self.quality {
            quality.validate()?;
        }
        match self.rate_control {
            RateControl::Cq => {}
            RateControl::Vbr {
                bitrate: mean,
                max_bitrate,
            } => {
                bitrate(mean)?;
                if let Some(max) = max_bitrate {
                    bitrate(max)?;
                    if max < mean {
                        return Err(E::MaxBitrate { bitrate: mean, max });
                    }
                }
            }
            RateControl::Cbr {
                bitrate: rate,
                vbv_ms,
            } => {
                bitrate(rate)?;
                if !VBV_MS.contains(&vbv_ms) {
                    return Err(E::Vbv(vbv_ms));
                }
            }
        }
        Ok(())
    }

    /// The constants in force.
    pub fn effective_tuning(&self) -> Tuning {
        self.tuning.unwrap_or_else(|| Tuning::of(self.tune))
    }

    fn is_zero_latency(&self) -> bool {
        self.zero_latency || self.tune == Tune::ZeroLatency
    }

    /// `bframes` as the latency allows.
    pub fn effective_bframes(&self) -> u8 {
        if self.is_zero_latency() || self.key_int_max == 1 {
            0
        } else {
            self.bframes
        }
    }

    /// `lookahead` where it serves anything.
    pub fn effective_lookahead(&self) -> u8 {
        if self.effective_bframes() == 0 || self.speed <= SpeedPreset::Fast {
            0
        } else {
            self.lookahead
        }
    }

    /// `batch_size` as the latency allows, and what runs the networks.
    pub fn effective_batch(&self, provider: nn::Provider) -> usize {
        if self.is_zero_latency() {
            1
        } else {
            batch_on(provider, self.batch_size, self.info.width, self.info.height)
        }
    }
}

/// Most luma samples in a batch on a processor. Beyond it a batch saves no time, and takes as much
/// memory again for each frame.
const CPU_BATCH_PIXELS: u64 = 1 << 18;

/// How many of `most` frames of this size (luma samples) go into one run of a network; at least 1.
pub(crate) fn batch_on(provider: nn::Provider, most: u32, width: u32, height: u32) -> usize {
    let most = (most as usize).clamp(1, nn::MAX_BATCH);
    if provider != nn::Provider::Cpu {
        return most;
    }
    let pixels = (u64::from(width) * u64::from(height)).max(1);
    most.min((CPU_BATCH_PIXELS / pixels) as usize).max(1)
}

/// Settings of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderConfig {
    /// Shows a copy of the nearest frame where one is lost or damaged; otherwise such frames are
    /// errors.
    pub conceal: bool,
    /// Most frames in one run of a network.
    pub batch_size: u32,
    /// Each frame is wanted as soon as it can be decoded. Otherwise the decoder of a stream of
    /// nothing but key frames waits until it has a batch of them (or the stream ends).
    pub live: bool,
    /// Threads of the decoder's own work; 0 for as many as there are processors.
    pub threads: u32,
    /// Streams with larger pictures (luma samples) are refused, which bounds the memory: see
    /// [`WORK_BYTES`](nnv_bitstream::level::WORK_BYTES).
    pub max_pixels: u64,
    /// Streams of a higher level are refused.
    pub max_level: nnv_bitstream::Level,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self {
            conceal: true,
            batch_size: 4,
            live: true,
            threads: 0,
            max_pixels: MAX_SAMPLES,
            max_level: nnv_bitstream::Level::UNBOUNDED,
        }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Size, depth, frame rate or colours.
    #[error("unsupported video: {0}")]
    Info(String),
    /// A quantizer beyond the scale.
    #[error("{name} is {value}, it must be 0 to {MAX_QUANTIZER}")]
    Quantizer {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u8,
    },
    /// The quantizers' range is empty.
    #[error("min-quantizer {min} is above max-quantizer {max}")]
    QuantizerRange {
        /// Least.
        min: u8,
        /// Greatest.
        max: u8,
    },
    /// Too many B frames.
    #[error("bframes is {0}, it must be 0 to {MAX_BFRAMES}")]
    Bframes(u8),
    /// Too far ahead.
    #[error("lookahead is {0}, it must be 0 to {MAX_LOOKAHEAD}")]
    Lookahead(u8),
    /// Long-term references with B frames.
    #[error(
        "error-resilience=ltr with bframes={0}: a report of a loss is answered at once only where \
         frames are coded as they come; set bframes=0 or zerolatency=true"
    )]
    Resilience(u8),
    /// Batch of no or too many frames.
    #[error("batch-size is {0}, it must be 1 to {MAX_BATCH}")]
    BatchSize(u32),
    /// A bit rate out of range.
    #[error(
        "a bit rate of {0} bit/s is out of range: {min} to {max} are possible",
        min = BITRATES.start(),
        max = BITRATES.end()
    )]
    Bitrate(u64),
    /// The greatest rate is below the mean.
    #[error("max-bitrate ({max} bit/s) is below bitrate ({bitrate} bit/s)")]
    MaxBitrate {
        /// Mean.
        bitrate: u64,
        /// Greatest.
        max: u64,
    },
    /// A second pass without a rate that it could spend.
    #[error("a second pass spends a mean bit rate: set bitrate and rate-control=vbr")]
    SecondPass,
    /// Statistics of a first pass that cannot be read, written or used.
    #[error("stats-file: {0}")]
    Stats(String),
    /// A second pass over a longer clip than the first one.
    #[error(
        "stats-file: the first pass had {0} frames and the clip has more; run both over the same \
         clip"
    )]
    PassFrames(u64),
    /// A quality that no picture has, or none below it.
    #[error("{name} is {value}; {least} to {most} are possible for this quality-metric")]
    Quality {
        /// Name of the property.
        name: &'static str,
        /// Value asked for.
        value: String,
        /// Least possible.
        least: String,
        /// Greatest possible.
        most: String,
    },
    /// Pictures that VMAF is not of.
    #[error(
        "quality-metric=vmaf is of pictures of {least}x{least} and more, not of {width}x{height}: \
         psnr, ssim and ms-ssim are of all sizes"
    )]
    VmafSize {
        /// Width of the pictures.
        width: u32,
        /// Height of the pictures.
        height: u32,
        /// The smallest side.
        least: u32,
    },
    /// A constant of the encoder that does not exist or cannot have that value.
    #[error("tuning: {0}")]
    Tuning(String),
    /// A decoder buffer out of range.
    #[error(
        "a vbv buffer of {0} ms is out of range: {min} to {max} are possible",
        min = VBV_MS.start(),
        max = VBV_MS.end()
    )]
    Vbv(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_set_by_name() {
        let mut t = Tuning::default();
        t.set("key=-8:low_delay=1,2,3,-4:ink=0:temporal_filter=1.5,0,0,2")
            .unwrap();
        let expected = Tuning {
            key: -8,
            low_delay: [1, 2, 3, -4],
            ink: 0.0,
            temporal_filter: [1.5, 0.0, 0.0, 2.0],
            ..Tuning::default()
        };
        assert_eq!(t, expected);
        let mut other = Tuning::default();
        other
            .set("key=-8,low_delay=1:2:3:-4,ink=0,temporal_filter=1.5:0:0:2")
            .unwrap();
        assert_eq!(other, expected);
        other.set("").unwrap();
        assert_eq!(other, expected);
        for bad in [
            "key",
            "key=",
            "key=x",
            "key=64",
            "key=1,2",
            "keys=1",
            "levels=1,2,3",
            "lambda=-1",
            "lambda=nan",
            "ink=inf",
            "key=1:lambda=x",
        ] {
            let error = other.set(bad).unwrap_err().to_string();
            assert!(error.starts_with("tuning: "), "{error}");
            assert_eq!(other, expected, "{bad}");
        }
    }

    #[test]
    fn a_processor_takes_batches_of_small_pictures_alone() {
        use nn::Provider::{Cpu, Cuda};
        for (provider, most, size, batch) in [
            (Cpu, 4, (320, 180), 4),
            (Cpu, 2, (320, 180), 2),
            (Cpu, 4, (352, 288), 2),
            (Cpu, 4, (640, 360), 1),
            (Cpu, 4, (16384, 4096), 1),
            (Cuda, 4, (1920, 1080), 4),
            (Cuda, 0, (1920, 1080), 1),
        ] {
            assert_eq!(batch_on(provider, most, size.0, size.1), batch, "{size:?}");
        }
    }

    #[test]
    fn zero_latency_goes_with_every_tune() {
        let mut c = EncoderConfig::new(StreamInfo::new(64, 64, 8));
        c.bframes = 7;
        for (tune, flag) in [(Tune::Visual, true), (Tune::ZeroLatency, false)] {
            (c.tune, c.zero_latency) = (tune, flag);
            let batch = c.effective_batch(nn::Provider::Cuda);
            assert_eq!((c.effective_bframes(), batch), (0, 1));
        }
        assert_eq!(Tuning::of(Tune::Visual), {
            c.tune = Tune::Visual;
            c.effective_tuning()
        });
    }
}

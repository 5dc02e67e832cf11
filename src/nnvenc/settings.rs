// SPDX-License-Identifier: MPL-2.0
//! What can be set: properties, their types, and what the codec makes of them.

use std::path::Path;
use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::quality::QualitySettings;
use crate::common::{self, CommonSettings};
use nnv_bitstream::limits::{MAX_BFRAMES, MAX_QUANTIZER};
use nnv_codec::config::{self, BITRATES, EncoderConfig, MAX_BATCH, MAX_LOOKAHEAD, Tuning, VBV_MS};
use nnv_nn::ModelSource;

/// Largest value of the rate properties, in kbit/s.
const MAX_KBITS: u32 = (*BITRATES.end() / 1000) as u32;

/// How the quantizer follows the rate.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnvEncRateControl")]
pub enum RateControl {
    #[default]
    #[enum_value(name = "Constant quality: `quantizer` rules, rate varies", nick = "cq")]
    Cq,
    #[enum_value(name = "Variable bitrate: `bitrate` on average", nick = "vbr")]
    Vbr,
    #[enum_value(
        name = "Constant bitrate: `bitrate` within `vbv-buf-capacity`",
        nick = "cbr"
    )]
    Cbr,
    #[enum_value(
        name = "Constant measured quality: `target-quality` on average, `max-bitrate` as ceiling",
        nick = "quality"
    )]
    Quality,
}

/// What the encoder favours.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnvEncTune")]
pub enum Tune {
    #[default]
    #[enum_value(name = "PSNR: smallest squared error per bit", nick = "psnr")]
    Psnr,
    #[enum_value(
        name = "Visual: best structural similarity (MS-SSIM) per bit",
        nick = "visual"
    )]
    Visual,
    #[enum_value(
        name = "Zero latency: each frame leaves before the next comes (bframes counts as 0)",
        nick = "zerolatency"
    )]
    ZeroLatency,
}

/// Which pass over a clip this is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnvEncPass")]
pub enum Pass {
    #[default]
    #[enum_value(name = "Single: the only one", nick = "single")]
    Single,
    #[enum_value(
        name = "First of two: writes stats-file (the stream itself may go to fakesink)",
        nick = "first"
    )]
    First,
    #[enum_value(
        name = "Second of two: spends bitrate over the whole clip by stats-file",
        nick = "second"
    )]
    Second,
}

/// Whether the effort follows the load.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnvEncSpeedControl")]
pub enum SpeedControl {
    #[default]
    #[enum_value(
        name = "Auto: with qos, less effort than speed-preset while time is short",
        nick = "auto"
    )]
    Auto,
    #[enum_value(name = "Fixed: always speed-preset", nick = "fixed")]
    Fixed,
}

/// Encoding time against rate.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnvEncSpeedPreset")]
pub enum SpeedPreset {
    #[enum_value(
        name = "Fast: small motion search, symbols by a dead zone",
        nick = "fast"
    )]
    Fast,
    #[default]
    #[enum_value(
        name = "Medium: full motion search, symbols by rate and distortion",
        nick = "medium"
    )]
    Medium,
    #[enum_value(
        name = "Slow: motion search and latents of inter frames in two passes",
        nick = "slow"
    )]
    Slow,
    #[enum_value(
        name = "Ultrafast: one vector per block, symbols by a dead zone",
        nick = "ultrafast"
    )]
    Ultrafast,
}

impl From<SpeedPreset> for config::SpeedPreset {
    fn from(preset: SpeedPreset) -> Self {
        match preset {
            SpeedPreset::Ultrafast => Self::Ultrafast,
            SpeedPreset::Fast => Self::Fast,
            SpeedPreset::Medium => Self::Medium,
            SpeedPreset::Slow => Self::Slow,
        }
    }
}

/// What a working point is called in properties.
pub fn effort_name(effort: config::SpeedPreset) -> &'static str {
    match effort {
        config::SpeedPreset::Ultrafast => "ultrafast",
        config::SpeedPreset::Fast => "fast",
        config::SpeedPreset::Medium => "medium",
        config::SpeedPreset::Slow => "slow",
    }
}

/// What is done so that receivers can go on after losses.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnvEncErrorResilience")]
pub enum ErrorResilience {
    #[default]
    #[enum_value(name = "None: after a loss only a key frame helps", nick = "none")]
    None,
    #[enum_value(
        name = "Long-term references: a loss that is reported is answered with a frame that is \
                predicted from what the receiver has",
        nick = "ltr"
    )]
    Ltr,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub common: CommonSettings,
    /// As set; otherwise it follows from what was set: see [`Settings::mode`].
    pub rate_control: Option<RateControl>,
    pub quality: QualitySettings,
    pub quantizer: u32,
    pub quantizer_set: bool,
    /// kbit/s
    pub bitrate: u32,
    pub bitrate_set: bool,
    /// kbit/s, 0: no limit
    pub max_bitrate: u32,
    /// ms
    pub vbv_ms: u32,
    pub min_quantizer: u32,
    pub max_quantizer: u32,
    pub key_int_max: u32,
    pub bframes: u32,
    pub lookahead: u32,
    pub tune: Tune,
    pub zero_latency: bool,
    pub tuning: Option<String>,
    pub speed_preset: SpeedPreset,
    pub speed_control: SpeedControl,
    pub pass: Pass,
    pub stats_file: Option<String>,
    pub batch_size: u32,
    pub frame_checksum: bool,
    pub error_resilience: ErrorResilience,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            common: CommonSettings::new(None),
            rate_control: None,
            quality: QualitySettings::default(),
            quantizer: 28,
            quantizer_set: false,
            bitrate: 2000,
            bitrate_set: false,
            max_bitrate: 0,
            vbv_ms: 1000,
            min_quantizer: 0,
            max_quantizer: u32::from(MAX_QUANTIZER),
            key_int_max: 250,
            bframes: 0,
            lookahead: u32::from(MAX_LOOKAHEAD),
            tune: Tune::default(),
            zero_latency: false,
            tuning: None,
            speed_preset: SpeedPreset::default(),
            speed_control: SpeedControl::default(),
            pass: Pass::default(),
            stats_file: None,
            batch_size: 4,
            frame_checksum: false,
            error_resilience: ErrorResilience::default(),
        }
    }
}

impl Settings {
    /// The mode in force: `bitrate` alone asks for that rate, where `rate-control` says nothing.
    ///
    /// A first pass at a rate would see some frames at the least quantizer and others at the
    /// greatest, from where nothing can be told.
    pub fn mode(&self) -> RateControl {
        match self.rate_control {
            Some(RateControl::Quality) => RateControl::Quality,
            _ if self.pass == Pass::First => RateControl::Cq,
            Some(mode) => mode,
            None if self.bitrate_set => RateControl::Vbr,
            None => RateControl::Cq,
        }
    }

    /// Whether two properties ask for different modes.
    pub fn is_ambiguous(&self) -> bool {
        self.rate_control.is_none()
            && self.bitrate_set
            && self.quantizer_set
            && self.pass != Pass::First
    }

    pub fn rate_control(&self) -> config::RateControl {
        let bitrate = u64::from(self.bitrate) * 1000;
        match self.mode() {
            RateControl::Cq => config::RateControl::Cq,
            RateControl::Vbr => config::RateControl::Vbr {
                bitrate,
                max_bitrate: self.max_rate(),
            },
            RateControl::Cbr => config::RateControl::Cbr {
                bitrate,
                vbv_ms: self.vbv_ms,
            },
            // The ceiling is a mean as well: quality that saved rate may spend it later.
            RateControl::Quality if self.max_bitrate > 0 => {
                let bitrate = u64::from(self.max_bitrate) * 1000;
                config::RateControl::Vbr {
                    bitrate,
                    max_bitrate: Some(bitrate),
                }
            }
            RateControl::Quality => config::RateControl::Cq,
        }
    }

    /// `max-bitrate` in bit/s.
    pub fn max_rate(&self) -> Option<u64> {
        (self.max_bitrate > 0).then(|| u64::from(self.max_bitrate.max(self.bitrate)) * 1000)
    }

    /// The statistics file, where two passes need one.
    pub fn stats_file(&self) -> Result<Option<&Path>, config::ConfigError> {
        let file = self.stats_file.as_deref().filter(|file| !file.is_empty());
        match (self.pass, file) {
            (Pass::Single, _) => Ok(None),
            (_, Some(file)) => Ok(Some(Path::new(file))),
            (_, None) => Err(config::ConfigError::Stats(
                "none is named; pass=first and pass=second need the same one".into(),
            )),
        }
    }

    /// What is done against losses.
    pub fn error_resilience(&self) -> config::ErrorResilience {
        match self.error_resilience {
            ErrorResilience::None => config::ErrorResilience::None,
            ErrorResilience::Ltr => config::ErrorResilience::Ltr,
        }
    }

    /// The encoder's tune.
    pub fn tune(&self) -> config::Tune {
        match self.tune {
            Tune::Psnr => config::Tune::Psnr,
            Tune::Visual => config::Tune::Visual,
            Tune::ZeroLatency => config::Tune::ZeroLatency,
        }
    }

    /// The bundle to encode with: the one that is named, or that of the tune.
    pub fn model_source(&self) -> ModelSource {
        self.common.source().unwrap_or_else(|| {
            let name = match self.tune {
                Tune::Psnr | Tune::ZeroLatency => common::DEFAULT_MODEL,
                Tune::Visual => common::VISUAL_MODEL,
            };
            ModelSource::Embedded(name.into())
        })
    }

    /// The constants that `tuning` asks for.
    pub fn tuning(&self) -> Result<Option<Tuning>, config::ConfigError> {
        let parse = |text: &String| {
            let mut tuning = Tuning::of(self.tune());
            tuning.set(text).map(|()| tuning)
        };
        self.tuning.as_ref().map(parse).transpose()
    }

    pub fn config(
        &self,
        info: nnv_bitstream::StreamInfo,
    ) -> Result<EncoderConfig, config::ConfigError> {
        // The property specifications keep these within u8.
        let small = |v: u32| u8::try_from(v).unwrap_or(u8::MAX);
        Ok(EncoderConfig {
            rate_control: self.rate_control(),
            quality: (self.mode() == RateControl::Quality).then(|| self.quality.target()),
            quantizer: small(self.quantizer),
            min_quantizer: small(self.min_quantizer),
            max_quantizer: small(self.max_quantizer),
            key_int_max: self.key_int_max,
            bframes: small(self.bframes),
            lookahead: small(self.lookahead),
            tune: self.tune(),
            speed: self.speed_preset.into(),
            batch_size: self.batch_size,
            frame_checksum: self.frame_checksum,
            error_resilience: self.error_resilience(),
            threads: self.common.threads,
            zero_latency: self.zero_latency,
            tuning: self.tuning()?,
            ..EncoderConfig::new(info)
        })
    }
}

/// Properties that rate control follows while playing.
pub const RATES: [&str; 5] = [
    "rate-control",
    "quantizer",
    "bitrate",
    "max-bitrate",
    "vbv-buf-capacity",
];

impl Settings {
    /// All properties of the element.
    pub fn specs() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let d = Settings::default();
            let limit = |name, nick, blurb, default| {
                glib::ParamSpecUInt::builder(name)
                    .nick(nick)
                    .blurb(blurb)
                    .maximum(u32::from(MAX_QUANTIZER))
                    .default_value(default)
                    .mutable_ready()
                    .build()
            };
            let mut specs = vec![
                glib::ParamSpecEnum::builder::<RateControl>("rate-control")
                    .nick("Rate control")
                    .blurb(
                        "How the quantizer of each frame is chosen \
                         (where it is not set: vbr if bitrate is set, cq otherwise)",
                    )
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("quantizer")
                    .nick("Quantizer")
                    .blurb("Quantizer for rate-control=cq, lower is better; +12 doubles the step")
                    .maximum(u32::from(MAX_QUANTIZER))
                    .default_value(d.quantizer)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("bitrate")
                    .nick("Bitrate")
                    .blurb("Bitrate for rate-control=vbr and cbr in kbit/s")
                    .minimum(1)
                    .maximum(MAX_KBITS)
                    .default_value(d.bitrate)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("max-bitrate")
                    .nick("Maximum bitrate")
                    .blurb(
                        "Highest rate over any second for rate-control=vbr in kbit/s \
                         (0: no limit; values below bitrate count as bitrate), and highest mean \
                         rate for rate-control=quality (0: no limit)",
                    )
                    .maximum(MAX_KBITS)
                    .default_value(d.max_bitrate)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("vbv-buf-capacity")
                    .nick("VBV capacity")
                    .blurb("Size of the decoder's buffer for rate-control=cbr in ms at bitrate")
                    .minimum(*VBV_MS.start())
                    .maximum(*VBV_MS.end())
                    .default_value(d.vbv_ms)
                    .mutable_playing()
                    .build(),
                limit(
                    "min-quantizer",
                    "Minimum quantizer",
                    "Lowest quantizer (best quality) that any frame may get",
                    d.min_quantizer,
                ),
                limit(
                    "max-quantizer",
                    "Maximum quantizer",
                    "Highest quantizer (worst quality) that any frame may get",
                    d.max_quantizer,
                ),
                glib::ParamSpecUInt::builder("key-int-max")
                    .nick("Maximum key-frame interval")
                    .blurb(
                        "Most frames from one key frame to the next \
                         (1: key frames only, 0: only the first, scene cuts and forced ones)",
                    )
                    .maximum(i32::MAX as u32)
                    .default_value(d.key_int_max)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("bframes")
                    .nick("B frames")
                    .blurb(
                        "Frames between two anchors, coded as a hierarchy and predicted from \
                         past and future (0: low-delay order; each frame adds its duration to \
                         the latency)",
                    )
                    .maximum(u32::from(MAX_BFRAMES))
                    .default_value(d.bframes)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("lookahead")
                    .nick("Lookahead")
                    .blurb(
                        "With B frames: frames that an anchor waits for, so that its noise can be \
                         filtered along the motion around it (0: nothing is filtered; each frame \
                         adds its duration to the latency; speed-preset=fast and ultrafast count \
                         as 0)",
                    )
                    .maximum(u32::from(MAX_LOOKAHEAD))
                    .default_value(d.lookahead)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder::<Tune>("tune")
                    .nick("Tune")
                    .blurb("What the encoder favours")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("zerolatency")
                    .nick("Zero latency")
                    .blurb(
                        "Each frame leaves before the next comes, as with tune=zerolatency, \
                         but with any tune",
                    )
                    .default_value(d.zero_latency)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("tuning")
                    .nick("Tuning")
                    .blurb(
                        "Constants of the encoder for experiments, as NAME=VALUE:NAME=VALUE, \
                         lists with commas (key=-8:low_delay=11,7,11,0). Unstable: names, values \
                         and effects change from version to version",
                    )
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder::<SpeedPreset>("speed-preset")
                    .nick("Speed preset")
                    .blurb("Encoding time against rate; the decoder's work is the same")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder::<SpeedControl>("speed-control")
                    .nick("Speed control")
                    .blurb(
                        "Whether the effort falls below speed-preset where qos is in force and \
                         time is short, before frames are left out",
                    )
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder::<Pass>("pass")
                    .nick("Pass")
                    .blurb(
                        "Which pass over a clip this is; with two, rate-control=vbr meets bitrate \
                         over the whole clip and all scenes are equally good",
                    )
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("stats-file")
                    .nick("Statistics file")
                    .blurb("File that pass=first writes and pass=second reads")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("batch-size")
                    .nick("Batch size")
                    .blurb(
                        "Most independent frames that go through the networks in one run: \
                         those of one hierarchy level, and queued key frames",
                    )
                    .minimum(1)
                    .maximum(MAX_BATCH)
                    .default_value(d.batch_size)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("frame-checksum")
                    .nick("Frame checksum")
                    .blurb(
                        "Write a checksum of each decoded frame into the stream \
                         (4 bytes a frame), which decoders verify",
                    )
                    .default_value(d.frame_checksum)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder::<ErrorResilience>("error-resilience")
                    .nick("Error resilience")
                    .blurb(
                        "What is done so that receivers can go on after losses (ltr: without B \
                         frames only; reports come as nnv/loss events, which rtpnnvpay makes of \
                         NACKs, or as requests for key frames that do not insist)",
                    )
                    .mutable_ready()
                    .build(),
            ];
            specs.extend(QualitySettings::properties());
            specs.extend(common::properties(
                None,
                "Name of the built-in bundle to encode with (default: what `tune` asks for, \
                 realtime or visual)",
                "Facts since the last start: frames, key-frames, repeated-frames, ink-frames, \
                 recovery-frames, dropped, bytes (uint64), \
                 effort (string: the speed preset in force), average-quantizer, bits-per-pixel, \
                 fps and time per frame of each stage in ms (double)",
            ));
            specs
        });
        &PROPERTIES
    }

    /// Sets a property; `false` where `pspec` is not one of these.
    pub fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) -> bool {
        let s = self;
        if s.common.set(value, pspec) || s.quality.set(value, pspec) {
            return true;
        }
        // The type system has checked the type of `value` against `pspec`.
        let uint = || value.get::<u32>().expect("type checked upstream");
        match pspec.name() {
            "rate-control" => s.rate_control = Some(value.get().expect("type checked upstream")),
            "quantizer" => (s.quantizer, s.quantizer_set) = (uint(), true),
            "bitrate" => (s.bitrate, s.bitrate_set) = (uint(), true),
            "max-bitrate" => s.max_bitrate = uint(),
            "vbv-buf-capacity" => s.vbv_ms = uint(),
            "min-quantizer" => s.min_quantizer = uint(),
            "max-quantizer" => s.max_quantizer = uint(),
            "key-int-max" => s.key_int_max = uint(),
            "bframes" => s.bframes = uint(),
            "lookahead" => s.lookahead = uint(),
            "tune" => s.tune = value.get().expect("type checked upstream"),
            "zerolatency" => s.zero_latency = value.get().expect("type checked upstream"),
            "tuning" => s.tuning = value.get().expect("type checked upstream"),
            "speed-preset" => s.speed_preset = value.get().expect("type checked upstream"),
            "speed-control" => s.speed_control = value.get().expect("type checked upstream"),
            "pass" => s.pass = value.get().expect("type checked upstream"),
            "stats-file" => s.stats_file = value.get().expect("type checked upstream"),
            "batch-size" => s.batch_size = uint(),
            "frame-checksum" => s.frame_checksum = value.get().expect("type checked upstream"),
            "error-resilience" => {
                s.error_resilience = value.get().expect("type checked upstream");
            }
            _ => return false,
        }
        true
    }

    /// Value of a property; `None` where `pspec` is not one of these.
    pub fn get(&self, pspec: &glib::ParamSpec) -> Option<glib::Value> {
        let s = self;
        if let Some(value) = s.common.get(pspec).or_else(|| s.quality.get(pspec)) {
            return Some(value);
        }
        Some(match pspec.name() {
            "rate-control" => s.mode().to_value(),
            "quantizer" => s.quantizer.to_value(),
            "bitrate" => s.bitrate.to_value(),
            "max-bitrate" => s.max_bitrate.to_value(),
            "vbv-buf-capacity" => s.vbv_ms.to_value(),
            "min-quantizer" => s.min_quantizer.to_value(),
            "max-quantizer" => s.max_quantizer.to_value(),
            "key-int-max" => s.key_int_max.to_value(),
            "bframes" => s.bframes.to_value(),
            "lookahead" => s.lookahead.to_value(),
            "tune" => s.tune.to_value(),
            "zerolatency" => s.zero_latency.to_value(),
            "tuning" => s.tuning.to_value(),
            "speed-preset" => s.speed_preset.to_value(),
            "speed-control" => s.speed_control.to_value(),
            "pass" => s.pass.to_value(),
            "stats-file" => s.stats_file.to_value(),
            "batch-size" => s.batch_size.to_value(),
            "frame-checksum" => s.frame_checksum.to_value(),
            "error-resilience" => s.error_resilience.to_value(),
            _ => return None,
        })
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Codecs: the elements that code a shot, and what their quantizers are.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::gst;
use crate::failure::{Failure, Result};

/// No element puts a key frame into a shot by itself: so many frames come first.
const NO_LIMIT: u32 = 100_000;

/// With its own 25, vp9enc of 1.22 loses up to nine frames of a short shot's end.
const VP9_LAG: u32 = 12;

/// A codec that shots can be coded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// `nnvenc`, by quantizer
    Nnv,
    /// `x264enc`, by constant rate factor
    X264,
    /// `x265enc`, by constant rate factor
    X265,
    /// `svtav1enc`, by constant rate factor
    Svtav1,
    /// `vp9enc`, by constant quantizer: in one pass its level of quality hardly counts
    Vp9,
}

/// Facts of a codec.
pub struct Facts {
    /// The name on the command line and in the bundle.
    pub name: &'static str,
    /// The encoder.
    pub encoder: &'static str,
    /// Element and its package, in Debian's names; the encoder comes first.
    needs: &'static [(&'static str, &'static str)],
    /// What stands behind the encoder, up to the muxer.
    pub parser: &'static str,
    /// Caps that the muxer needs and a shot's file does not tell.
    pub untold: Option<&'static str>,
    /// Ending of a shot's file, and its muxer.
    pub ending: &'static str,
    /// Lowest and highest quantizer in use.
    pub quantizers: (f64, f64),
    /// Smallest step between two quantizers.
    pub step: f64,
    /// Presets, and the one that is taken unasked.
    pub preset: &'static str,
    presets: &'static [&'static str],
    /// Whether odd sizes can be coded.
    pub odd_sizes: bool,
}

const X26_PRESETS: &[&str] = &[
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
];
/// Where this project's own elements are.
pub const OURS: &str = "this project's plugin, on GST_PLUGIN_PATH (source scripts/env.sh)";
const BAD: &str = "gstreamer1.0-plugins-bad";
const UGLY: &str = "gstreamer1.0-plugins-ugly";
const GOOD: &str = "gstreamer1.0-plugins-good";

const NNV: Facts = Facts {
    name: "nnv",
    encoder: "nnvenc",
    needs: &[
        ("nnvenc", OURS),
        ("rawvideoparse", "gstreamer1.0-plugins-base"),
    ],
    parser: "nnvparse",
    untold: None,
    ending: "nnv",
    quantizers: (4.0, 62.0),
    step: 1.0,
    preset: "medium",
    presets: &["fast", "medium", "slow"],
    odd_sizes: true,
};
const X264: Facts = Facts {
    name: "x264",
    encoder: "x264enc",
    needs: &[
        ("x264enc", UGLY),
        ("h264parse", BAD),
        ("mp4mux", GOOD),
        ("avdec_h264", "gstreamer1.0-libav"),
    ],
    parser: "h264parse",
    untold: None,
    ending: "mp4",
    quantizers: (6.0, 50.0),
    step: 0.25,
    preset: "medium",
    presets: X26_PRESETS,
    odd_sizes: false,
};
const X265: Facts = Facts {
    name: "x265",
    encoder: "x265enc",
    needs: &[
        ("x265enc", BAD),
        ("h265parse", BAD),
        ("mp4mux", GOOD),
        ("avdec_h265", "gstreamer1.0-libav"),
    ],
    parser: "h265parse",
    untold: None,
    ending: "mp4",
    quantizers: (6.0, 50.0),
    step: 0.25,
    preset: "medium",
    presets: X26_PRESETS,
    odd_sizes: false,
};
const SVTAV1: Facts = Facts {
    name: "svtav1",
    encoder: "svtav1enc",
    needs: &[
        (
            "svtav1enc",
            "gstreamer1.0-plugins-bad of GStreamer 1.24 or newer, Debian 13",
        ),
        ("av1parse", BAD),
        ("mp4mux", GOOD),
    ],
    parser: "av1parse",
    untold: None,
    ending: "mp4",
    quantizers: (8.0, 63.0),
    step: 1.0,
    preset: "8",
    presets: &["2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"],
    odd_sizes: false,
};
const VP9: Facts = Facts {
    name: "vp9",
    encoder: "vp9enc",
    needs: &[
        ("vp9enc", GOOD),
        ("vp9parse", BAD),
        ("mp4mux", GOOD),
        ("capssetter", GOOD),
    ],
    parser: "vp9parse",
    // mp4mux of 1.22 crashes without, and qtdemux does not give it.
    untold: Some("video/x-vp9,chroma-site=mpeg2"),
    ending: "mp4",
    quantizers: (4.0, 63.0),
    step: 1.0,
    preset: "4",
    presets: &["0", "1", "2", "3", "4", "5"],
    odd_sizes: true,
};

/// That this machine has elements, each with its package, that `what` needs.
///
/// # Errors
/// One is missing: the message names it and its package.
pub fn needs(what: &str, elements: &[(&str, &str)]) -> Result<()> {
    for (element, package) in elements {
        if !gst::exists(element)? {
            return Err(Failure::Input(format!(
                "{what} needs the element {element}, which GStreamer does not find here: install \
                 {package}"
            )));
        }
    }
    Ok(())
}

impl Codec {
    /// What is known of it.
    pub fn facts(self) -> &'static Facts {
        match self {
            Self::Nnv => &NNV,
            Self::X264 => &X264,
            Self::X265 => &X265,
            Self::Svtav1 => &SVTAV1,
            Self::Vp9 => &VP9,
        }
    }

    /// The nearest quantizer that there is.
    pub fn nearest(self, quantizer: f64) -> f64 {
        let Facts {
            quantizers: (low, high),
            step,
            ..
        } = *self.facts();
        ((quantizer / step).round() * step).clamp(low, high)
    }

    /// That a preset is one of its own.
    ///
    /// # Errors
    /// It is not: the message names those that are.
    pub fn check_preset(self, preset: &str) -> Result<()> {
        let facts = self.facts();
        if facts.presets.contains(&preset) {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "--preset {preset}: {} has {}",
            facts.name,
            facts.presets.join(", ")
        )))
    }

    /// That this machine has the elements.
    ///
    /// # Errors
    /// One is missing: the message names it and its package.
    pub fn check_elements(self) -> Result<()> {
        let facts = self.facts();
        needs(&format!("--codec {}", facts.name), facts.needs)
    }

    /// The muxer for an output's name.
    ///
    /// # Errors
    /// The ending does not fit the codec.
    pub fn muxer(self, out: &Path) -> Result<&'static str> {
        let ending = out.extension().unwrap_or_default().to_ascii_lowercase();
        let muxer = match (self, ending.to_str().unwrap_or_default()) {
            (Self::Nnv, "mp4" | "m4v") => "nnvmp4mux",
            (Self::Nnv, _) => "",
            (_, "mp4" | "m4v") => "mp4mux",
            (_, "mkv") => "matroskamux",
            _ => "",
        };
        if muxer.is_empty() {
            let endings = if self == Self::Nnv {
                ".mp4"
            } else {
                ".mp4 or .mkv"
            };
            return Err(Failure::Usage(format!(
                "{}: --codec {} goes into {endings}",
                out.display(),
                self.facts().name
            )));
        }
        Ok(muxer)
    }

    /// Encoder, parser and muxer, in gst-launch's notation.
    pub fn chain(self, quantizer: f64, preset: &str, threads: usize) -> String {
        let q = quantizer;
        match self {
            Self::Nnv => format!(
                "nnvenc rate-control=cq quantizer={q} key-int-max=0 bframes=7 \
                 speed-preset={preset} execution-provider=cpu threads={threads}"
            ),
            // x264enc limits the rate at any quality, unless the buffer has no size. It takes whole
            // factors alone; a zone of all frames has the rest. `stitchable` keeps the quantizer
            // out of the parameter sets: shots share them in one track.
            Self::X264 => format!(
                "x264enc pass=qual quantizer={} vbv-buf-capacity=0 speed-preset={preset} \
                 threads={threads} key-int-max={NO_LIMIT} \
                 option-string=stitchable=1:zones=0,{NO_LIMIT},b={:.4} ! h264parse ! mp4mux",
                q.floor(),
                ((q.floor() - q) / 6.0).exp2()
            ),
            Self::X265 => format!(
                "x265enc speed-preset={preset} key-int-max={NO_LIMIT} log-level=error \
                 option-string=crf={q}:open-gop=0:frame-threads=1:pools={threads}:info=0 \
                 ! h265parse ! mp4mux"
            ),
            Self::Svtav1 => format!(
                "svtav1enc crf={q} preset={preset} intra-period-length=-1 \
                 logical-processors={threads} ! av1parse ! mp4mux"
            ),
            Self::Vp9 => format!(
                "vp9enc min-quantizer={q} max-quantizer={q} target-bitrate=1000000000 \
                 deadline=1000000 cpu-used={preset} keyframe-max-dist={NO_LIMIT} auto-alt-ref=true \
                 lag-in-frames={VP9_LAG} \
                 threads={threads} row-mt=true ! vp9parse ! mp4mux"
            ),
        }
    }
}

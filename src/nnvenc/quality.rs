// SPDX-License-Identifier: MPL-2.0
//! Properties of `rate-control=quality`.

use gst::glib;
use gst::prelude::*;
use nnv_bitstream::limits::MAX_QUANTIZER;
use nnv_codec::config::{self, Level, QualityTarget};
use nnv_codec::encode::QualityOutOfReach;

/// The measure that is held.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnvEncQualityMetric")]
pub enum QualityMetric {
    #[default]
    #[enum_value(
        name = "PSNR in dB of the planes' errors, weighted (6 Y + U + V) / 8",
        nick = "psnr"
    )]
    Psnr,
    #[enum_value(name = "SSIM of luma, as ffmpeg has it", nick = "ssim")]
    Ssim,
    #[enum_value(name = "MS-SSIM of luma", nick = "ms-ssim")]
    MsSsim,
    #[enum_value(
        name = "VMAF, model vmaf_v0.6.1, where libvmaf is installed",
        nick = "vmaf"
    )]
    Vmaf,
}

/// Says that a quality cannot be met, and what helps.
pub fn out_of_reach(found: &QualityOutOfReach) -> String {
    let QualityOutOfReach {
        asked,
        got,
        quantizer,
        finest,
        ..
    } = found;
    let name = match found.metric {
        config::QualityMetric::Psnr => "psnr",
        config::QualityMetric::Ssim => "ssim",
        config::QualityMetric::MsSsim => "ms-ssim",
        config::QualityMetric::Vmaf => "vmaf",
    };
    let (what, end, bound) = match finest {
        true => ("cannot be reached", "finest", "min-quantizer"),
        false => ("is exceeded", "coarsest", "max-quantizer"),
    };
    let remedy = match (finest, *quantizer) {
        (true, 1..) => format!("Lower {bound} or target-quality"),
        (true, 0) => "Lower target-quality".into(),
        (false, MAX_QUANTIZER) => "They cannot be made smaller".into(),
        (false, _) => format!("Raise {bound} for fewer bytes"),
    };
    format!(
        "target-quality={asked} of {name} {what}: at quantizer {quantizer}, the {end} allowed, \
         these pictures have {got:.4}. {remedy}"
    )
}

/// What the properties say.
#[derive(Debug, Clone, Copy, Default)]
pub struct QualitySettings {
    metric: QualityMetric,
    /// 0: the default of the measure.
    target: f64,
    /// 0: none.
    floor: f64,
}

impl QualitySettings {
    /// Specifications of the properties.
    pub fn properties() -> [glib::ParamSpec; 3] {
        let value = |name, nick, blurb| {
            glib::ParamSpecDouble::builder(name)
                .nick(nick)
                .blurb(blurb)
                .minimum(0.0)
                .maximum(99.0)
                .mutable_ready()
                .build()
        };
        [
            glib::ParamSpecEnum::builder::<QualityMetric>("quality-metric")
                .nick("Quality measure")
                .blurb("What target-quality and quality-floor are values of")
                .mutable_ready()
                .build(),
            value(
                "target-quality",
                "Target quality",
                "Mean over the frames for rate-control=quality, 10 to 60 dB, 0.1 to 0.9999, or 10 \
                 to 99 of vmaf (0: 38 dB, 0.95 of ssim, 0.98 of ms-ssim, 93 of vmaf); max-bitrate \
                 is a ceiling",
            ),
            value(
                "quality-floor",
                "Quality floor",
                "What no frame shall fall below for rate-control=quality (0: none)",
            ),
        ]
    }

    /// Sets a property; `false` where `pspec` is not one of these.
    pub fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) -> bool {
        // The type system has checked the type of `value` against `pspec`.
        match pspec.name() {
            "quality-metric" => self.metric = value.get().expect("type checked upstream"),
            "target-quality" => self.target = value.get().expect("type checked upstream"),
            "quality-floor" => self.floor = value.get().expect("type checked upstream"),
            _ => return false,
        }
        true
    }

    /// Value of a property; `None` where `pspec` is not one of these.
    pub fn get(&self, pspec: &glib::ParamSpec) -> Option<glib::Value> {
        Some(match pspec.name() {
            "quality-metric" => self.metric.to_value(),
            "target-quality" => self.target.to_value(),
            "quality-floor" => self.floor.to_value(),
            _ => return None,
        })
    }

    /// What the encoder shall hold.
    pub fn target(&self) -> QualityTarget {
        let (metric, usual) = match self.metric {
            QualityMetric::Psnr => (config::QualityMetric::Psnr, 38.0),
            QualityMetric::Ssim => (config::QualityMetric::Ssim, 0.95),
            QualityMetric::MsSsim => (config::QualityMetric::MsSsim, 0.98),
            QualityMetric::Vmaf => (config::QualityMetric::Vmaf, 93.0),
        };
        let target = if self.target > 0.0 {
            self.target
        } else {
            usual
        };
        QualityTarget {
            metric,
            target: Level::new(target),
            floor: (self.floor > 0.0).then(|| Level::new(self.floor)),
        }
    }
}

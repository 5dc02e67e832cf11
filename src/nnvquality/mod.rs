// SPDX-License-Identifier: MPL-2.0
//! `nnvquality`: measures video beside its reference while it passes, or judges it without one.

mod files;
mod imp;
mod judge;
mod pictures;

use gst::glib;
use gst::prelude::*;
use nnv_quality::Metrics;

/// Which measures the element takes beside PSNR.
#[glib::flags(name = "GstNnvQualityMetrics")]
pub enum QualityMetrics {
    /// SSIM as ffmpeg's filter has it.
    #[flags_value(name = "SSIM of each plane, as ffmpeg has it", nick = "ssim")]
    SSIM = 0b0_0001,
    /// MS-SSIM of luma.
    #[flags_value(name = "MS-SSIM of luma", nick = "ms-ssim")]
    MS_SSIM = 0b0_0010,
    /// XPSNR.
    #[flags_value(name = "XPSNR of each plane, as ffmpeg has it", nick = "xpsnr")]
    XPSNR = 0b0_0100,
    /// SSIMULACRA2.
    #[flags_value(name = "SSIMULACRA2 (slow)", nick = "ssimulacra2")]
    SSIMULACRA2 = 0b0_1000,
    /// VMAF, by libvmaf.
    #[flags_value(name = "VMAF, where libvmaf is installed", nick = "vmaf")]
    VMAF = 0b1_0000,
}

impl From<QualityMetrics> for Metrics {
    fn from(flags: QualityMetrics) -> Self {
        Self {
            ssim: flags.contains(QualityMetrics::SSIM),
            ms_ssim: flags.contains(QualityMetrics::MS_SSIM),
            xpsnr: flags.contains(QualityMetrics::XPSNR),
            ssimulacra2: flags.contains(QualityMetrics::SSIMULACRA2),
        }
    }
}

glib::wrapper! {
    /// Measuring element, a `GstAggregator`.
    pub struct NnvQuality(ObjectSubclass<imp::NnvQuality>)
        @extends gst_base::Aggregator, gst::Element, gst::Object;
}

/// Registers `nnvquality`.
///
/// # Errors
/// Where GStreamer refuses the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "nnvquality",
        gst::Rank::NONE,
        NnvQuality::static_type(),
    )
}

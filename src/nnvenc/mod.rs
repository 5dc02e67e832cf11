// SPDX-License-Identifier: MPL-2.0
//! `nnvenc`: encodes raw video into an NNV stream.

mod imp;
mod load;
mod losses;
mod metadata;
mod quality;
mod regions;
mod settings;
mod times;
mod two_pass;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// Encoder element, a `GstVideoEncoder`.
    pub struct NnvEnc(ObjectSubclass<imp::NnvEnc>)
        @extends gst_video::VideoEncoder, gst::Element, gst::Object,
        @implements gst::Preset;
}

/// Registers `nnvenc`.
///
/// # Errors
/// Where GStreamer refuses the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "nnvenc",
        gst::Rank::PRIMARY,
        NnvEnc::static_type(),
    )
}

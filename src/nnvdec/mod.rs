// SPDX-License-Identifier: MPL-2.0
//! `nnvdec`: decodes an NNV stream into raw video.

mod analysis;
mod imp;
mod level;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// Decoder element, a `GstVideoDecoder`.
    pub struct NnvDec(ObjectSubclass<imp::NnvDec>)
        @extends gst_video::VideoDecoder, gst::Element, gst::Object;
}

/// Registers `nnvdec`.
///
/// # Errors
/// Where GStreamer refuses the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "nnvdec",
        gst::Rank::PRIMARY,
        NnvDec::static_type(),
    )
}

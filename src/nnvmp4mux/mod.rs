// SPDX-License-Identifier: MPL-2.0
//! `nnvmp4mux`: writes NNV video, sound and subtitles into an MP4 file.

mod imp;
mod priming;
mod streams;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// Muxer element, a `GstAggregator`.
    pub struct NnvMp4Mux(ObjectSubclass<imp::NnvMp4Mux>)
        @extends gst_base::Aggregator, gst::Element, gst::Object,
        @implements gst::TagSetter;
}

/// Registers `nnvmp4mux`.
///
/// # Errors
/// Where GStreamer refuses the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "nnvmp4mux",
        // Below mp4mux, which knows more sound.
        gst::Rank::MARGINAL,
        NnvMp4Mux::static_type(),
    )
}

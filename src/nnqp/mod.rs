// SPDX-License-Identifier: MPL-2.0
//! `nnqp`: notes the quantizers of H.264 video, of pictures and of macroblocks, on its way to a
//! decoder, for `nnsr`.

mod imp;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// Filter element, a `GstBaseTransform`.
    pub struct NnQp(ObjectSubclass<imp::NnQp>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers `nnqp`.
///
/// # Errors
/// Where GStreamer refuses it.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "nnqp", gst::Rank::NONE, NnQp::static_type())
}

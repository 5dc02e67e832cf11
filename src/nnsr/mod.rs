// SPDX-License-Identifier: MPL-2.0
//! `nnsr`: learned super-resolution and repair of raw video.

mod analysis;
mod caps;
mod imp;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// Filter element, a `GstBaseTransform`.
    pub struct NnSr(ObjectSubclass<imp::NnSr>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers `nnsr`.
///
/// # Errors
/// Where GStreamer refuses the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "nnsr", gst::Rank::NONE, NnSr::static_type())
}

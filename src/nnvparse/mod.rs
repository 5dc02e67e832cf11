// SPDX-License-Identifier: MPL-2.0
//! `nnvparse`: cuts an NNV byte stream into access units, and finds the type of `.nnv` files.

mod imp;
mod typefind;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// Parser element, a `GstBaseParse`.
    pub struct NnvParse(ObjectSubclass<imp::NnvParse>)
        @extends gst_base::BaseParse, gst::Element, gst::Object;
}

/// Registers `nnvparse` and the typefinder.
///
/// # Errors
/// Where GStreamer refuses one of them.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    typefind::register(plugin)?;
    gst::Element::register(
        Some(plugin),
        "nnvparse",
        gst::Rank::PRIMARY,
        NnvParse::static_type(),
    )
}

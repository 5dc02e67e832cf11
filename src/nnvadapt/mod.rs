// SPDX-License-Identifier: MPL-2.0
//! `nnvadapt`: `nnvenc` at the rate and size that the network and the viewer allow. How they are
//! found is in `nnv_adapt`; `docs/live.md` describes the events.

mod events;
mod imp;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// Encoder element, a `GstBin` around `videoscale` and `nnvenc`.
    pub struct NnvAdapt(ObjectSubclass<imp::NnvAdapt>)
        @extends gst::Bin, gst::Element, gst::Object, @implements gst::ChildProxy;
}

/// Registers `nnvadapt`.
///
/// # Errors
/// Where GStreamer refuses it.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "nnvadapt",
        gst::Rank::NONE,
        NnvAdapt::static_type(),
    )
}

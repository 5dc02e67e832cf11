// SPDX-License-Identifier: MPL-2.0
//! `nnvsign` and `nnvverify`: signatures over groups of pictures. They are made in `nnv_crypt`;
//! `docs/authenticity.md` describes them.

mod signer;
mod verifier;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// Filter element, a `GstBaseTransform`.
    pub struct NnvSign(ObjectSubclass<signer::NnvSign>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

glib::wrapper! {
    /// Filter element, a `GstBaseTransform`.
    pub struct NnvVerify(ObjectSubclass<verifier::NnvVerify>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers both.
///
/// # Errors
/// Where GStreamer refuses one of them.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    let (sign, verify) = (NnvSign::static_type(), NnvVerify::static_type());
    gst::Element::register(Some(plugin), "nnvsign", gst::Rank::NONE, sign)?;
    gst::Element::register(Some(plugin), "nnvverify", gst::Rank::NONE, verify)
}

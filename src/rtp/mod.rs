// SPDX-License-Identifier: MPL-2.0
//! `rtpnnvpay` and `rtpnnvdepay`: NNV over RTP. The packets are made in `nnv_bitstream::rtp`;
//! `docs/rtp.md` describes them.

mod depay;
mod pay;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// Payloader element, a `GstRTPBasePayload`.
    pub struct RtpNnvPay(ObjectSubclass<pay::RtpNnvPay>)
        @extends gst_rtp::RTPBasePayload, gst::Element, gst::Object;
}

glib::wrapper! {
    /// Depayloader element, a `GstRTPBaseDepayload`.
    pub struct RtpNnvDepay(ObjectSubclass<depay::RtpNnvDepay>)
        @extends gst_rtp::RTPBaseDepayload, gst::Element, gst::Object;
}

/// Encoding name in caps and SDP.
const ENCODING_NAME: &str = "NNV";
/// Ticks of RTP time per second.
const CLOCK_RATE: u32 = 90_000;

/// Caps of the packets.
fn packet_caps() -> gst::Caps {
    gst::Caps::builder("application/x-rtp")
        .field("media", "video")
        .field("clock-rate", CLOCK_RATE as i32)
        .field("encoding-name", ENCODING_NAME)
        .build()
}

/// Registers both.
///
/// # Errors
/// Where GStreamer refuses one of them.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    let (pay, depay) = (RtpNnvPay::static_type(), RtpNnvDepay::static_type());
    gst::Element::register(Some(plugin), "rtpnnvpay", gst::Rank::SECONDARY, pay)?;
    gst::Element::register(Some(plugin), "rtpnnvdepay", gst::Rank::SECONDARY, depay)
}

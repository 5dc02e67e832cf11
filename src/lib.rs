// SPDX-License-Identifier: MPL-2.0
//! GStreamer plugin `nnv`: a neural video codec whose streams decode to the same pixels on every
//! machine, and learned super-resolution for video of any codec.
//!
//! Elements only: coding is in `nnv-codec`, super-resolution in `nnv-sr`, networks in `nnv-nn`.
//! ARCHITECTURE.md is the map.
#![doc(html_no_source)]

mod common;
mod crypt;
mod nnqp;
mod nnsr;
mod nnvadapt;
mod nnvdec;
mod nnvenc;
mod nnvmp4mux;
mod nnvparse;
mod nnvquality;
mod quantizer;
mod rtp;
mod sign;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    common::log_runtime();
    common::metadata::register();
    nnvparse::register(plugin)?;
    nnvdec::register(plugin)?;
    nnvenc::register(plugin)?;
    nnvadapt::register(plugin)?;
    nnvmp4mux::register(plugin)?;
    nnqp::register(plugin)?;
    nnsr::register(plugin)?;
    nnvquality::register(plugin)?;
    rtp::register(plugin)?;
    crypt::register(plugin)?;
    sign::register(plugin)
}

gst::plugin_define!(
    nnv,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MPL",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);

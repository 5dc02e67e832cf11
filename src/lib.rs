// SPDX-License-Identifier: MPL-2.0
//! GStreamer plugin `nnv`: a neural video codec whose streams decode to the same pixels on every machine.
//!
//! Data flows one way: element → [`codec`] → [`nn`].
#![doc(html_no_source)]

pub mod codec;
pub mod nn;

fn plugin_init(_plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    Ok(())
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

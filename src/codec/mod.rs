// SPDX-License-Identifier: MPL-2.0
//! The codec, with no GStreamer in it.
//!
//! Pictures come in as [`picture::Picture`], units of the stream go out, and the other way round.

pub mod bitstream;
pub mod config;
pub mod decoder;
pub mod encoder;
pub mod entropy;
pub mod error;
pub mod gop;
mod inheritance;
pub mod ink;
pub mod latent;
pub mod motion;
pub(crate) mod parallel;
pub mod picture;
pub mod quantizer_map;
pub mod rate_control;
mod reference;
pub mod stream_info;
mod temporal_filter;

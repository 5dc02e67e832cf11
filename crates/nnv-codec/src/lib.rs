// SPDX-License-Identifier: MPL-2.0
//! Encoder and decoder, with no GStreamer in them.
//!
//! Pictures ([`nnv_format::picture::Picture`]) come in, access units go out ([`encode`]), and the
//! other way round ([`decode`]). What the decoder computes stands in `nnv-format`; what the encoder
//! chooses is its own affair, and all of it is below [`encode`].

pub mod config;
pub mod decode;
pub mod encode;
pub mod error;
pub mod stages;

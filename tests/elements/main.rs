// SPDX-License-Identifier: MPL-2.0
//! The elements as an application meets them: harnesses and pipelines with the plugin registered
//! statically.
//!
//! Needs ONNX Runtime (see `scripts/test.sh`).

mod authenticity;
mod conformance;
mod damage;
mod decoder;
mod encoder;
mod memory;
mod mp4;
mod nnsr;
mod no_network;
mod parser;
mod playback;
mod privacy;
mod properties;
mod quantizers;
mod rtp;
mod util;

// SPDX-License-Identifier: MPL-2.0
//! The elements as an application meets them: harnesses and pipelines with the plugin registered
//! statically.
//!
//! Needs ONNX Runtime (see `scripts/test.sh`).

mod adapt;
mod analysis;
mod authenticity;
mod conformance;
mod damage;
mod decoder;
mod encoder;
mod formats;
mod levels;
mod load;
mod memory;
mod messages;
mod metadata;
mod mp4;
mod mp4_http;
mod mp4_parts;
mod mp4_readers;
mod mp4_seek;
mod mp4_sound;
mod nnsr;
mod no_network;
mod pages;
mod parser;
mod playback;
mod privacy;
mod profiles;
mod properties;
mod quality;
mod quantizers;
mod regions;
mod rtp;
mod rtp_loss;
mod two_pass;
mod util;

// SPDX-License-Identifier: MPL-2.0
//! The normative arithmetic of the codec: a changed bit here breaks every stream.
//!
//! Encoder and decoder run the same functions, in integers. Networks are not here: they run in a
//! back end (crate `nnv-nn`) that has to prove itself by known answers. `docs/bitstream.md` is the
//! specification.

pub mod dequantise;
pub mod entropy;
pub mod grid;
pub mod ink;
pub mod motion;
pub mod picture;
pub mod quantizer_map;
pub mod references;
pub mod still;
pub mod tables;

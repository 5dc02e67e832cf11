// SPDX-License-Identifier: MPL-2.0
//! Entropy coding: integers only, the same on every machine.
//!
//! * [`range`]: the binary range coder with adaptive probabilities;
//! * [`golomb`]: integers of any size (motion vectors, escapes);
//! * [`tables`]: what the coding of symbols begins with;
//! * [`symbols`]: the latents `y` and `z` with their adaptive, mixed contexts;
//! * [`CoverageModel`]: the coverage of ink layers.
//!
//! Syntax is written once, as a function of [`BinaryCoder`], for encoder, decoder and bit counter
//! alike.

mod band;
mod coverage;
mod error;
pub mod golomb;
mod hyper;
mod mix;
pub mod range;
mod spent;
pub mod symbols;
pub mod tables;

pub use band::{HIDING_CHANNELS, HIDING_SUM, near};
pub use coverage::{CoverageContext, CoverageModel, CoveragePlane, MAX_FULL};
pub use error::EntropyError;
pub use golomb::{SIntModel, UIntModel};
pub use range::{BinaryCoder, BitCounter, Decoder, Encoder, Prob, bit_cost};
pub use spent::LatentBits;
pub(crate) use spent::PlaceMeter;
pub use symbols::{SparseSymbols, SymbolContexts, SymbolCosts};
pub use tables::{LatentShape, Symbol, SymbolTables};

// SPDX-License-Identifier: MPL-2.0
//! Motion: fields of quarter-pel vectors, the prediction they make, their search and their coding.
//!
//! [`field`], [`compensate`], [`candidates`] and [`coding`] are normative: integer arithmetic only, the same on every machine.
//! `docs/bitstream-motion.md` describes them.

pub mod candidates;
pub mod coding;
pub mod compensate;
pub mod field;
mod kernels;
pub mod search;
pub(crate) mod simd;

pub use coding::{MotionContexts, decode_field, encode_field, field_bits};
pub use compensate::{Difference, Prediction, predict};
pub use field::{Leaf, Mode, MotionField, Mv};
pub use search::{SearchEffort, SearchParams, search};

/// What can be wrong with the inputs of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MotionError {
    /// Pictures or fields of one call differ in size.
    #[error(
        "{what} is {got_width}x{got_height}, but the motion field is for {width}x{height} (padded sizes): \
         references must have the size of the picture that they predict"
    )]
    Size {
        /// What has the wrong size.
        what: &'static str,
        /// Its padded width.
        got_width: usize,
        /// Its padded height.
        got_height: usize,
        /// Padded width needed.
        width: usize,
        /// Padded height needed.
        height: usize,
    },
}

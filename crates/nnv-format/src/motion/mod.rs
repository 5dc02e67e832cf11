// SPDX-License-Identifier: MPL-2.0
//! Motion: fields of quarter-pel vectors, the prediction they make, and their coding.
//!
//! Integer arithmetic only, the same on every machine. `docs/bitstream-motion.md` describes it.

pub mod candidates;
pub mod coding;
pub mod compensate;
mod error;
pub mod field;

pub use coding::{MotionContexts, decode_field, encode_field, field_bits, field_bits_by_block};
pub use compensate::{Difference, Prediction, predict};
pub use error::MotionError;
pub use field::{Leaf, Mode, MotionField, Mv};

/// Time of a frame less that of its references, which motion vectors are scaled with.
pub fn temporal_distances(poc: u32, ref0: Option<u32>, ref1: Option<u32>) -> [i16; 2] {
    let distance = |r: Option<u32>| {
        let d = i64::from(poc) - i64::from(r.or(ref0).unwrap_or(poc));
        // Beyond this, motion says nothing any more; zero turns scaling off.
        i16::try_from(d).unwrap_or(0)
    };
    [distance(ref0), distance(ref1)]
}

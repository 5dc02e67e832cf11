// SPDX-License-Identifier: MPL-2.0
//! What is known of the quantizers of a picture that is to be repaired.

use std::sync::Arc;

use nnv_h264::BlockQuantizers;

/// With what quantizer a picture that is to be repaired was coded, as far as is known, in the steps
/// of H.264.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum SourceQuantizer {
    /// Nobody knows.
    #[default]
    Unknown,
    /// Slices or the bit rate make such a mean likely.
    Likely(f32),
    /// The stream says it of each block.
    Blocks(Arc<BlockQuantizers>),
}

impl SourceQuantizer {
    /// The mean quantizer, unless nobody knows.
    pub fn value(&self) -> Option<f32> {
        match self {
            Self::Unknown => None,
            Self::Likely(value) => Some(*value),
            Self::Blocks(blocks) => Some(blocks.mean()),
        }
    }

    /// What a graph hears of the picture as a whole: how sure it is, and the quantizer.
    pub(crate) fn told(&self) -> [f32; 2] {
        match self {
            Self::Unknown => [0.0, 0.0],
            Self::Likely(value) => [0.5, *value],
            Self::Blocks(blocks) => [SURE, blocks.mean()],
        }
    }
}

/// How sure it is what blocks were coded with.
pub(crate) const SURE: f32 = 1.0;

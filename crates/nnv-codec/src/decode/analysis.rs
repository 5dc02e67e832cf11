// SPDX-License-Identifier: MPL-2.0
//! What a frame was made of, for those who look into a stream. Nothing of it is done unless asked
//! for.

use std::sync::Arc;

use nnv_bitstream::{FrameHeader, FramePayload};
use nnv_format::entropy::LatentBits;
use nnv_format::grid::Grid;
use nnv_format::ink::InkLayer;
use nnv_format::motion::MotionField;
use nnv_format::picture::Picture;
use nnv_format::quantizer_map::QuantizerMap;

use crate::error::Result;

/// What an [`Analysis`] is to hold beside what the decoder has anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// [`Analysis::prediction`]: takes a picture's memory for each frame that waits to be shown.
    pub prediction: bool,
    /// [`Analysis::latent_bits`], [`Analysis::motion_bits`], [`Analysis::hyper_bits`] and
    /// [`Analysis::ink_bits`]: all of them are coded once more, into counters.
    pub bits: bool,
}

/// Bytes of the parts of a frame, without their lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartBytes {
    /// Quantizer map.
    pub map: usize,
    /// Ink layer.
    pub ink: usize,
    /// Map of places that are as predicted.
    pub still: usize,
    /// Motion.
    pub side: usize,
    /// Hyper-latent.
    pub z: usize,
    /// All streams of the latent.
    pub y: usize,
}

impl PartBytes {
    pub(super) fn of(payload: &FramePayload) -> Self {
        Self {
            map: payload.map.len(),
            ink: payload.ink.len(),
            still: payload.still.len(),
            side: payload.side.len(),
            z: payload.z.len(),
            y: payload.y.iter().map(|stream| stream.len()).sum(),
        }
    }
}

/// What a frame was made of.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// Its header, with its times filled in.
    pub header: FrameHeader,
    /// Where its bytes went.
    pub bytes: PartBytes,
    /// What the synthesis was given as prediction: the compensated references, with paper in place
    /// of them under ink. `None` for key frames, or where it was not wanted.
    pub prediction: Option<Arc<Picture>>,
    /// Motion; `None` for key frames.
    pub field: Option<Arc<MotionField>>,
    /// Ink, where there is some.
    pub ink: Option<Arc<InkLayer>>,
    /// Quantizers by place, where they differ.
    pub map: Option<QuantizerMap>,
    /// Bits of the latent by channel and by place, where wanted.
    pub latent_bits: Option<LatentBits>,
    /// Bits of motion in 1/256 bit by block of 16×16 luma samples, row after row; empty for key
    /// frames, or where not wanted.
    pub motion_bits: Vec<u64>,
    /// Bits of the hyper-latent, as `motion_bits`: each of its symbols shared evenly by the 16
    /// blocks that it covers. Empty where not wanted.
    pub hyper_bits: Vec<u64>,
    /// Bits of ink, as `motion_bits`; its colours belong nowhere and do not count. Empty without
    /// ink, or where not wanted.
    pub ink_bits: Vec<u64>,
    /// The header's checksum is that of the picture; `None` without one.
    pub verified: Option<bool>,
}

/// Bits of the hyper-latent by its places, by those of the grid.
pub(super) fn hyper_bits(by_place: &[u64], grid: Grid) -> Vec<u64> {
    let covers = |i: usize, length: usize| (length - i / 4 * 4).min(4) as u64;
    let places = (0..grid.h16()).flat_map(|y| (0..grid.w16()).map(move |x| (y, x)));
    let share = |(y, x)| {
        let count = covers(y, grid.h16()) * covers(x, grid.w16());
        by_place[y / 4 * grid.wz() + x / 4] / count
    };
    places.map(share).collect()
}

/// Bits of ink by cell, by places of the grid.
pub(super) fn ink_bits(by_cell: &[u64], grid: Grid) -> Vec<u64> {
    let width = 2 * grid.w16();
    let mut bits = vec![0; grid.h16() * grid.w16()];
    for (at, cell) in by_cell.iter().enumerate() {
        bits[at / width / 2 * grid.w16() + at % width / 2] += cell;
    }
    bits
}

/// The prediction of a frame as a picture.
///
/// # Errors
/// The size is not possible, which it was before.
pub(super) fn prediction(width: u32, height: u32, p: &[i16]) -> Result<Arc<Picture>> {
    let mut picture = Picture::new(width, height)?;
    picture.unpack(p)?;
    Ok(Arc::new(picture))
}

// SPDX-License-Identifier: MPL-2.0
//! Numbers by place for the page: one string of bytes, deflated.
//!
//! Numbers are little-endian, planes follow each other. By cell: mode (0: first reference, 1:
//! second, 2: both), then x and y of both vectors in quarter samples (i16 each); only with motion.
//! By place of 16×16 samples: bits of the latent, of motion, of the hyper-latent and of ink, in
//! eighths (u16), then the difference from the frame's quantizer (i8; only with a map). By cell of
//! 8×8 samples: 1 paper, 2 ink (u8; only with ink).

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use nnv_codec::decode::Analysis;
use nnv_format::motion::{Mode, MotionField};
use nnv_format::quantizer_map::MAP_UNIT;
use serde::Serialize;

/// Fields with more cells than this are given by blocks of 16×16 samples.
const MOST_CELLS: usize = 1 << 14;

/// What stands in the bytes.
#[derive(Debug, Serialize)]
pub struct Layout {
    /// Columns and rows of the motion field; 0 without one.
    pub columns: usize,
    pub rows: usize,
    /// Side of its cells in samples.
    pub cell: usize,
    /// Columns and rows of places.
    pub across: usize,
    pub down: usize,
    pub map: bool,
    pub ink: bool,
}

/// The numbers of a frame of `across` × `down` places.
///
/// # Errors
/// None, in memory.
pub fn planes(
    analysis: &Analysis,
    across: usize,
    down: usize,
) -> std::io::Result<(Layout, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut layout = Layout {
        columns: 0,
        rows: 0,
        cell: 8,
        across,
        down,
        map: analysis.map.is_some(),
        ink: analysis.ink.is_some(),
    };
    if let Some(field) = &analysis.field {
        motion(field, &mut layout, &mut bytes);
    }
    let eighths = |bits: u64| ((bits + 16) / 32).min(u16::MAX.into()) as u16;
    let places = across * down;
    let latent = analysis.latent_bits.as_ref().map(|bits| &bits.by_place[..]);
    for bits in [
        latent.unwrap_or_default(),
        &analysis.motion_bits,
        &analysis.hyper_bits,
        &analysis.ink_bits,
    ] {
        let all = (0..places).map(|i| bits.get(i).copied().map_or(0, eighths));
        bytes.extend(all.flat_map(u16::to_le_bytes));
    }
    if let Some(map) = &analysis.map {
        let values = map.values().iter();
        bytes.extend(values.map(|&v| (i16::from(v) * MAP_UNIT) as i8 as u8));
    }
    if let Some(ink) = &analysis.ink {
        let cells = ink.cells();
        let numbers = cells.ink.iter().zip(&cells.paper);
        bytes.extend(numbers.map(|(&ink, &paper)| match (ink, paper) {
            (0, 0) => 0,
            (0, _) => 1,
            _ => 2,
        }));
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&bytes)?;
    Ok((layout, encoder.finish()?))
}

fn motion(field: &MotionField, layout: &mut Layout, bytes: &mut Vec<u8>) {
    let step = 1 + usize::from(field.columns() * field.rows() > MOST_CELLS);
    layout.cell = 8 * step;
    (layout.columns, layout.rows) = (field.columns() / step, field.rows() / step);
    let rows = (0..field.rows()).step_by(step);
    let leaves: Vec<_> = rows
        .flat_map(|y| {
            (0..field.columns())
                .step_by(step)
                .map(move |x| field.cell(x, y))
        })
        .collect();
    bytes.extend(leaves.iter().map(|leaf| match leaf.mode() {
        Mode::Ref0 => 0,
        Mode::Ref1 => 1,
        Mode::Bi => 2,
    }));
    for i in 0..2 {
        bytes.extend(leaves.iter().flat_map(|leaf| leaf.mv(i).x.to_le_bytes()));
        bytes.extend(leaves.iter().flat_map(|leaf| leaf.mv(i).y.to_le_bytes()));
    }
}

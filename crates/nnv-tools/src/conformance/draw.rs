// SPDX-License-Identifier: MPL-2.0
//! Symbols, fields, maps and ink drawn at random: what no encoder would choose, and every decoder
//! must take.

use nnv_format::entropy::{HIDING_CHANNELS, HIDING_SUM};
use nnv_format::grid::Grid;
use nnv_format::ink::{Cells, InkLayer};
use nnv_format::motion::candidates::{Neighbourhood, Place};
use nnv_format::motion::{Leaf, MotionField, Mv};
use nnv_format::quantizer_map::QuantizerMap;
use nnv_format::still::StillMap;
use nnv_format::tables::LATENT_CHANNELS;

use crate::failure::Result;

/// How latents are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latent {
    /// All zero.
    Nothing,
    /// About as large as the tables expect.
    Likely,
    /// Up to the limits of the format here and there.
    Wild,
}

/// Largest magnitude of `y`, of `z`.
const LARGEST: (i16, i8) = (2047, 127);

/// Numbers that are the same everywhere (SplitMix64).
#[derive(Debug, Clone)]
pub struct Draw(u64);

impl Draw {
    /// Numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut v = self.0;
        v = (v ^ (v >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        v = (v ^ (v >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((((v ^ (v >> 31)) >> 32) * u64::from(n)) >> 32) as u32
    }

    /// True in so many of a hundred draws.
    pub fn percent(&mut self, n: u32) -> bool {
        self.below(100) < n
    }

    fn sign(&mut self) -> i16 {
        if self.percent(50) { 1 } else { -1 }
    }

    /// At least 1, and one more as long as a draw of a hundred is below `percent`.
    fn geometric(&mut self, percent: u32, largest: i16) -> i16 {
        let mut n = 1;
        while n < largest && self.percent(percent) {
            n += 1;
        }
        n
    }

    /// Any number of bits up to `largest`, small numbers most.
    fn by_size(&mut self, largest: i16) -> i16 {
        let bits = self.below(u32::from(largest.unsigned_abs()).ilog2() + 2);
        (self.below(1 << bits) as i16).min(largest)
    }

    /// A hyper-latent of `len` values.
    pub fn z(&mut self, len: usize, how: Latent) -> Vec<i8> {
        let value = |_| match how {
            Latent::Nothing => 0,
            Latent::Likely if self.percent(90) => 0,
            Latent::Likely => (self.geometric(30, 6) * self.sign()) as i8,
            Latent::Wild if self.percent(80) => 0,
            Latent::Wild => (self.by_size(LARGEST.1.into()) * self.sign()) as i8,
        };
        (0..len).map(value).collect()
    }

    /// Symbols `[384, places]` for these scale indices, with the signs that the format hides.
    pub fn y(&mut self, scale_idx: &[u8], order: &[u16], how: Latent) -> Vec<i16> {
        let symbol = |&k: &u8| {
            let k = u32::from(k);
            if k == 0 || how == Latent::Nothing {
                return 0;
            }
            if how == Latent::Wild && self.percent(4) {
                return self.by_size(LARGEST.0) * self.sign();
            }
            // Next to nothing at the lowest indices, a magnitude of some ten at the highest.
            if self.below(64 * 64) >= (k * k + 8).min(3500) {
                return 0;
            }
            self.geometric(k * 3 / 2, LARGEST.0) * self.sign()
        };
        let mut y: Vec<i16> = scale_idx.iter().map(symbol).collect();
        hide_signs(&mut y, order);
        y
    }

    /// A map of any values: here smooth, there not.
    pub fn map(&mut self, width: usize, places: usize) -> QuantizerMap {
        let mut last = 0i8;
        let value = |_| {
            last = match self.below(3) {
                0 => (self.below(8) as i8) - 4,
                1 => (last + self.below(3) as i8 - 1).clamp(-4, 3),
                _ => last,
            };
            last
        };
        QuantizerMap::new(width, (0..places).map(value).collect())
    }

    /// A still map: stretches that are still, and much of what was so before.
    pub fn still(&mut self, grid: Grid, before: Option<&StillMap>) -> StillMap {
        let mut last = false;
        let place = |at: usize| {
            let before = before.is_some_and(|before| before.places()[at]);
            last = match self.below(6) {
                0 => !last,
                1 | 2 => before,
                _ => last,
            };
            last
        };
        StillMap::new(
            grid.w16(),
            (0..grid.h16() * grid.w16()).map(place).collect(),
        )
    }

    /// A leaf of its own: most vectors small, some as long as they can be.
    fn leaf(&mut self) -> Leaf {
        let mut mv = || {
            let mut one = || match self.below(4) {
                0 => 0,
                _ => i32::from(self.by_size(8191) * self.sign()),
            };
            Mv::clamped(one(), one())
        };
        let (a, b) = (mv(), mv());
        match self.below(3) {
            0 => Leaf::uni(0, a),
            1 => Leaf::uni(1, b),
            _ => Leaf::bi(a, b),
        }
    }

    /// Fills a field whose distances are set: whole regions of the likeliest candidate, merged
    /// blocks, new ones, split ones of merged and new cells.
    pub fn field(&mut self, field: &mut MotionField, colocated: Option<&MotionField>) {
        let (columns, rows) = (field.columns() / 2, field.rows() / 2);
        let mut whole = Vec::new();
        for by in 0..rows {
            if by % 4 == 0 {
                whole = (0..columns.div_ceil(4)).map(|_| self.percent(40)).collect();
            }
            for bx in 0..columns {
                let (x, y) = (2 * bx, 2 * by);
                let block = candidates(field, colocated, Place::Block { x, y });
                if whole[bx / 4] {
                    field.set_block(bx, by, block[0]);
                } else if self.percent(45) {
                    let at = self.below(block.len() as u32);
                    field.set_block(bx, by, block[at as usize]);
                } else if self.percent(40) {
                    let leaf = self.leaf();
                    field.set_block(bx, by, leaf);
                } else {
                    for index in 0..4 {
                        let cell = candidates(field, colocated, Place::Cell { x, y, index });
                        let leaf = match self.percent(60) {
                            true => cell[self.below(cell.len() as u32) as usize],
                            false => self.leaf(),
                        };
                        field.set_cell(x + index % 2, y + index / 2, leaf);
                    }
                }
            }
        }
    }

    /// A layer of so many levels, papers and inks over a padded size, and its bytes.
    pub fn ink(
        &mut self,
        (width, height): (usize, usize),
        full: u8,
        (papers, inks): (u8, u8),
    ) -> Result<(InkLayer, Vec<u8>)> {
        let mut colours = |n: u8| -> Vec<_> {
            let mut colour = |_| [(); 3].map(|()| self.below(256) as u8);
            (0..n).map(&mut colour).collect()
        };
        let colours = (colours(inks), colours(papers));
        let mut cells = Cells::new(width, height);
        for at in 0..cells.paper.len() {
            let mut number = |n: u8, numbers: &[u8]| match self.below(4) {
                _ if n == 0 => 0,
                0 => 0,
                // What is to the left, or above.
                1 if at > 0 => numbers[at - 1],
                2 if at >= width / 8 => numbers[at - width / 8],
                _ => self.below(u32::from(n) + 1) as u8,
            };
            cells.paper[at] = number(papers, &cells.paper);
            let ink = number(inks, &cells.ink);
            cells.ink[at] = if cells.paper[at] > 0 { ink } else { 0 };
        }
        let coverage = |_, _, _: &_, _: &_| match self.below(3) {
            0 => 0,
            1 => full,
            _ => self.below(u32::from(full) + 1) as u8,
        };
        Ok(InkLayer::encode(colours, cells, full, coverage)?)
    }
}

fn candidates(field: &MotionField, colocated: Option<&MotionField>, place: Place) -> Vec<Leaf> {
    let cell = |x, y| field.cell(x, y);
    let around = Neighbourhood::new(place, field.columns(), field.distances(), colocated, cell);
    around.candidates().to_vec()
}

/// Gives the first symbol other than zero of each place and [`HIDING_CHANNELS`] the sign that the
/// sum of magnitudes says.
fn hide_signs(y: &mut [i16], order: &[u16]) {
    let places = y.len() / LATENT_CHANNELS;
    for channels in order.chunks(HIDING_CHANNELS) {
        for place in 0..places {
            let at = |&c: &u16| usize::from(c) * places + place;
            let sum: u32 = (channels.iter())
                .map(|c| u32::from(y[at(c)].unsigned_abs()))
                .sum();
            let first = channels.iter().map(at).find(|&i| y[i] != 0);
            if let Some(i) = first.filter(|_| sum >= HIDING_SUM) {
                let magnitude = y[i].abs();
                y[i] = if sum % 2 == 1 { -magnitude } else { magnitude };
            }
        }
    }
}

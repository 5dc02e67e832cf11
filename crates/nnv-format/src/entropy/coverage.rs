// SPDX-License-Identifier: MPL-2.0
//! Coverage of an ink layer: small integers by place, coded with contexts of up to 17 neighbours.
//!
//! Type repeats itself: the same stem, the same letter. Eight models of contexts from four
//! neighbours to seventeen are mixed, the largest of which find a letter again that stood elsewhere
//! (context mixing after M. Mahoney's PAQ, as JBIG2 coders with large templates do for two levels).

use super::error::EntropyError;
use super::mix::{Counter, Mixer};
use super::range::BinaryCoder;

/// Largest value of full coverage.
pub const MAX_FULL: u8 = 31;
/// Samples around a plane that contexts may look at.
const MARGIN: usize = 3;
/// Models that are mixed.
const MODELS: usize = 8;
/// Bits that a counter remembers.
const LIMIT: u16 = 200;
/// Nodes of the binary decisions: zero, full, then a tree of at most five levels.
const NODES: usize = 2 + 32;

/// Coverage by luma sample, 0 to the full value, with a margin of zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoveragePlane {
    data: Vec<u8>,
    stride: usize,
}

impl CoveragePlane {
    /// A plane without ink.
    pub fn new(width: usize, height: usize) -> Self {
        let stride = width + 2 * MARGIN;
        Self {
            data: vec![0; stride * (height + MARGIN)],
            stride,
        }
    }

    #[inline(always)]
    fn at(&self, x: usize, y: usize) -> usize {
        (y + MARGIN) * self.stride + x + MARGIN
    }

    /// The value at a place.
    #[inline(always)]
    pub fn get(&self, x: usize, y: usize) -> u8 {
        self.data[self.at(x, y)]
    }

    /// Changes the value at a place.
    #[inline(always)]
    pub fn set(&mut self, x: usize, y: usize, value: u8) {
        let at = self.at(x, y);
        self.data[at] = value;
    }

    /// `n` values of row `y` from column `x` on.
    #[inline(always)]
    pub fn run(&self, x: usize, y: usize, n: usize) -> &[u8] {
        &self.data[self.at(x, y)..][..n]
    }
}

/// What is known before a value is coded, for each of the models.
#[derive(Debug, Clone, Copy)]
pub struct CoverageContext([u64; MODELS]);

/// The binary decisions that tell a value.
#[derive(Debug, Clone, Copy)]
struct Shape {
    full: u8,
    /// Levels of the tree that tells values between none and full.
    depth: u32,
}

impl Shape {
    /// The decisions that tell a value: `decide` is asked with a node and the answer for `value`,
    /// and says what holds.
    ///
    /// Zero or not; full or not; else the value less one, the highest bit first.
    #[inline(always)]
    fn walk(self, value: u8, mut decide: impl FnMut(usize, bool) -> bool) -> Option<u8> {
        if !decide(0, value > 0) {
            return Some(0);
        }
        if self.full == 1 || decide(1, value == self.full) {
            return Some(self.full);
        }
        let wanted = value.saturating_sub(1);
        let mut tree = 1usize;
        for level in (0..self.depth).rev() {
            let bit = decide(1 + tree, wanted >> level & 1 == 1);
            tree = 2 * tree + usize::from(bit);
        }
        let value = tree as u8 - (1 << self.depth) + 1;
        (value < self.full).then_some(value)
    }
}

/// Adaptive models of coverage.
#[derive(Debug)]
pub struct CoverageModel {
    shape: Shape,
    shift: u32,
    tables: [Box<[Counter]>; MODELS],
    mixers: [Mixer<MODELS>; NODES],
}

impl CoverageModel {
    /// Fresh models for values 0 to `full` (1 to [`MAX_FULL`]) at about so many places.
    pub fn new(full: u8, places: usize) -> Self {
        let bits = (places.max(1).ilog2() + 1).clamp(10, 18);
        Self {
            shape: Shape {
                full,
                depth: (u32::from(full).max(2) - 1)
                    .next_power_of_two()
                    .trailing_zeros(),
            },
            shift: 64 - bits,
            tables: std::array::from_fn(|_| {
                vec![Counter::new(1 << 15, 0); 1 << bits].into_boxed_slice()
            }),
            mixers: [Mixer::new([5000; MODELS]); NODES],
        }
    }

    /// What the values before a place, in order of rows, say of it.
    #[inline]
    pub fn context(&self, plane: &CoveragePlane, x: usize, y: usize) -> CoverageContext {
        let at = plane.at(x, y);
        let rows = [0, 1, 2, 3].map(|r| at - r * plane.stride);
        let back = |r: usize, left: usize| plane.data[rows[r] - left];
        let (w, ww, www) = (back(0, 1), back(0, 2), back(0, 3));
        let above = &plane.data[rows[1] - 2..][..6];
        let [nww, nw, n, ne, nee, neee] = [0, 1, 2, 3, 4, 5].map(|i| above[i]);
        let above = &plane.data[rows[2] - 2..][..5];
        let [nnww, nnw, nn, nne, nnee] = [0, 1, 2, 3, 4].map(|i| above[i]);
        let above = &plane.data[rows[3] - 1..][..3];
        let [nnnw, nnn, nnne] = [0, 1, 2].map(|i| above[i]);
        let exact =
            |from: u64, values: &[u8]| values.iter().fold(from, |h, &v| h << 5 | u64::from(v));
        // None, part, full.
        let third = |v: u8| u64::from(v > 0) + u64::from(v == self.shape.full);
        let thirds = |from: u64, values: &[u8]| values.iter().fold(from, |h, &v| h << 2 | third(v));
        let ten = thirds(0, &[w, ww, n, nw, ne, nee, nn, nne, nnw, nww]);
        let six = exact(0, &[w, ww, n, nw, ne, nn]);
        let plane_fit = i16::from(w) + i16::from(n) - i16::from(nw);
        let plane_fit = plane_fit.clamp(0, i16::from(self.shape.full)) as u8;
        CoverageContext([
            exact(0, &[w, n, nw, ne]),
            exact(0, &[w, ww, www, n]),
            exact(0, &[n, nn, ne, nee]),
            ten,
            six,
            thirds(ten, &[www, neee, nnn, nnee, nnww, nnne, nnnw]),
            exact(six, &[nee, nne, nnw, nww, www]),
            exact(third(nn), &[plane_fit, (w + ne) / 2]),
        ])
    }

    /// Places of the counters for a decision.
    #[inline(always)]
    fn slots(&self, context: &CoverageContext, node: usize) -> [usize; MODELS] {
        context.0.map(|h| {
            let h = (h << 6 | node as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ((h ^ h >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> self.shift) as usize
        })
    }

    /// Codes `value` (a decoder ignores it) and returns what was coded.
    ///
    /// # Errors
    /// [`EntropyError::SymbolRange`] for a value that is not below the full one.
    #[inline]
    pub fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        context: &CoverageContext,
        value: u8,
    ) -> Result<u8, EntropyError> {
        let shape = self.shape;
        shape
            .walk(value, |node, bit| {
                let slots = self.slots(context, node);
                let mut k = 0;
                let models = self.tables.each_mut().map(|table| {
                    k += 1;
                    &mut table[slots[k - 1]]
                });
                self.mixers[node].code(coder, models, [LIMIT; MODELS], bit)
            })
            .ok_or(EntropyError::SymbolRange)
    }

    /// Cost of coding `value`, in 1/256 bit.
    pub fn cost(&self, context: &CoverageContext, value: u8) -> u32 {
        let mut cost = 0;
        self.shape.walk(value, |node, bit| {
            let slots = self.slots(context, node);
            let mut k = 0;
            let models = self.tables.each_ref().map(|table| {
                k += 1;
                &table[slots[k - 1]]
            });
            cost += super::range::bit_cost(self.mixers[node].p1(models), bit);
            bit
        });
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::super::range::{Decoder, Encoder};
    use super::*;

    /// Rows of stripes, dots and noise.
    fn plane(full: u8, width: usize, height: usize, noise: u32) -> CoveragePlane {
        let mut plane = CoveragePlane::new(width, height);
        let mut seed = 7u32;
        for y in 0..height {
            for x in 0..width {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let value = match (seed >> 8) % 100 {
                    r if r < noise => (seed >> 20) as u8 % (full + 1),
                    _ if x % 7 < 2 => full,
                    _ if x % 7 == 2 && y % 5 > 0 => full / 2,
                    _ => 0,
                };
                plane.set(x, y, value);
            }
        }
        plane
    }

    fn encode(plane: &CoveragePlane, full: u8, width: usize, height: usize) -> (Vec<u8>, u64) {
        let mut model = CoverageModel::new(full, width * height);
        let mut coder = Encoder::new();
        let mut cost = 0;
        for y in 0..height {
            for x in 0..width {
                let context = model.context(plane, x, y);
                let value = plane.get(x, y);
                cost += u64::from(model.cost(&context, value));
                assert_eq!(model.code(&mut coder, &context, value), Ok(value));
            }
        }
        (coder.finish(), cost)
    }

    #[test]
    fn values_round_trip_at_the_predicted_cost() {
        for full in [1, 2, 3, 4, 5, 9, 16, 17, 18, MAX_FULL] {
            let (width, height) = (61, 23);
            let plane = plane(full, width, height, 20);
            let (data, cost) = encode(&plane, full, width, height);
            let expected = cost as f64 / 2048.0;
            assert!(
                (data.len() as f64 - expected).abs() < 4.0 + expected / 50.0,
                "{} bytes, {expected:.1} expected",
                data.len()
            );
            let mut back = CoveragePlane::new(width, height);
            let mut model = CoverageModel::new(full, width * height);
            let mut coder = Decoder::new(&data);
            for y in 0..height {
                for x in 0..width {
                    let context = model.context(&back, x, y);
                    let value = model.code(&mut coder, &context, 0).unwrap();
                    back.set(x, y, value);
                }
            }
            coder.finish().unwrap();
            assert_eq!(back, plane);
        }
    }

    #[test]
    fn what_repeats_costs_little() {
        let (data, _) = encode(&plane(5, 200, 60, 0), 5, 200, 60);
        assert!(data.len() < 250, "{} bytes", data.len());
    }

    #[test]
    fn damage_gives_an_error_or_values_within_the_limits() {
        let mut refused = 0;
        let mut seed = 11u32;
        for full in [1, 2, 6, 12, 19] {
            for _ in 0..20 {
                let data: Vec<u8> = (0..60)
                    .map(|_| {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (seed >> 24) as u8
                    })
                    .collect();
                let mut model = CoverageModel::new(full, 32 * 32);
                let mut plane = CoveragePlane::new(32, 32);
                let mut coder = Decoder::new(&data);
                'plane: for y in 0..32 {
                    for x in 0..32 {
                        let context = model.context(&plane, x, y);
                        match model.code(&mut coder, &context, 0) {
                            Ok(value) => {
                                assert!(value <= full);
                                plane.set(x, y, value);
                            }
                            Err(_) => {
                                refused += 1;
                                break 'plane;
                            }
                        }
                    }
                }
            }
        }
        assert!(refused > 20, "{refused}");
    }
}

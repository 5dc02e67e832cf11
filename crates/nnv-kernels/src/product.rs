// SPDX-License-Identifier: MPL-2.0
//! Convolutions: products of pixels (rows of channels, 16 bits) and weights, exact in 32 bits.

use super::lanes::{F32x4, I16x8, I32x4};

/// Output channels that are computed together.
const BLOCK: usize = 8;
/// Pixels that are computed together: with a block of channels their sums fill eight registers.
const TILE: usize = 4;
/// Pixels that go through all blocks before the next ones do, so that they stay in the cache.
const CHUNK: usize = 64;

/// What becomes of a sum, by output channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Finish {
    /// Times a factor, rounded to the nearest integer (of two the even one), cut off.
    Quantise {
        factors: Vec<f32>,
        low: f32,
        high: f32,
    },
    /// Times a factor, as float32, and then rounded if asked for.
    Real { factors: Vec<f32>, round: bool },
}

impl Finish {
    fn factors(&mut self) -> &mut Vec<f32> {
        match self {
            Self::Quantise { factors, .. } | Self::Real { factors, .. } => factors,
        }
    }
}

/// Where results go: pixels of all output channels.
pub enum Out<'a> {
    I16(&'a mut [i16]),
    F32(&'a mut [f32]),
}

/// A matrix of weights.
#[derive(Debug)]
pub struct Product {
    /// Inputs of a sum; even.
    inputs: usize,
    outputs: usize,
    /// By block of outputs: for each pair of inputs, the pair of weights of each output.
    weights: Vec<[i16; 2 * BLOCK]>,
    bias: Vec<[i32; BLOCK]>,
    factors: Vec<[f32; BLOCK]>,
    finish: Finish,
}

impl Product {
    /// `weight(output, input)`. An odd number of inputs is filled up with one that is zero.
    pub fn new(
        inputs: usize,
        outputs: usize,
        weight: impl Fn(usize, usize) -> i8,
        bias: &[i32],
        mut finish: Finish,
    ) -> Self {
        let blocks = outputs.div_ceil(BLOCK);
        let at = |o: usize, i: usize| match o < outputs && i < inputs {
            true => i16::from(weight(o, i)),
            false => 0,
        };
        let pairs = inputs.div_ceil(2);
        let weights = (0..blocks)
            .flat_map(|b| (0..pairs).map(move |p| (b, p)))
            .map(|(b, p)| std::array::from_fn(|i| at(BLOCK * b + i / 2, 2 * p + i % 2)))
            .collect();
        let factors = finish.factors();
        Self {
            inputs: 2 * pairs,
            outputs,
            weights,
            bias: blocked(bias, blocks),
            factors: blocked(factors, blocks),
            finish,
        }
    }

    /// Elements of an input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Elements of an output row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Whether results are float32, not integers.
    pub fn is_real(&self) -> bool {
        matches!(self.finish, Finish::Real { .. })
    }

    /// Multiplies rows of [`inputs`](Self::inputs) elements. `out` has a row of
    /// [`outputs`](Self::outputs) elements for each.
    pub fn run(&self, x: &[i16], out: Out<'_>) {
        match (&self.finish, out) {
            (Finish::Quantise { low, high, .. }, Out::I16(out)) => {
                let (low, high) = (F32x4::splat(*low), F32x4::splat(*high));
                self.each(x, out, |sums, factors| {
                    let mut done = [0; BLOCK];
                    quantise(sums, factors, low, high).store(&mut done);
                    done
                });
            }
            (Finish::Real { round, .. }, Out::F32(out)) => {
                self.each(x, out, |sums, factors| {
                    let mut done = [[0.0; 4]; 2];
                    for i in 0..2 {
                        sums[i].to_f32().mul(factors[i]).store(&mut done[i]);
                    }
                    let done = std::array::from_fn(|i| done[i / 4][i % 4]);
                    match round {
                        true => done.map(f32::round_ties_even),
                        false => done,
                    }
                });
            }
            _ => debug_assert!(false, "the plan gives the type that the finish needs"),
        }
    }

    #[inline(always)]
    fn each<T: Copy>(
        &self,
        x: &[i16],
        out: &mut [T],
        finish: impl Fn([I32x4; 2], [F32x4; 2]) -> [T; BLOCK],
    ) {
        let pairs = self.inputs / 2;
        let (k, n) = (self.inputs, self.outputs);
        for (x, out) in x.chunks(CHUNK * k).zip(out.chunks_mut(CHUNK * n)) {
            for (b, bias) in self.bias.iter().enumerate() {
                let weights = &self.weights[b * pairs..][..pairs];
                let factors = halves(&self.factors[b]).map(F32x4::load);
                let from = b * BLOCK;
                let wide = BLOCK.min(n - from);
                let put = |to: &mut [T], sums| {
                    let done = finish(sums, factors);
                    match to[from..].first_chunk_mut() {
                        Some(to) => *to = done,
                        None => to[from..].copy_from_slice(&done[..wide]),
                    }
                };
                let tiles = x.chunks_exact(TILE * k);
                let rest = tiles.remainder();
                let done = x.len() - rest.len();
                for (x, out) in tiles.zip(out.chunks_exact_mut(TILE * n)) {
                    let rows = std::array::from_fn(|i| &x[i * k..][..k]);
                    let sums = sums::<TILE>(rows, weights, bias);
                    for (sums, out) in sums.into_iter().zip(out.chunks_exact_mut(n)) {
                        put(out, sums);
                    }
                }
                let out = &mut out[done / k * n..];
                for (x, out) in rest.chunks_exact(k).zip(out.chunks_exact_mut(n)) {
                    let [sums] = sums::<1>([x], weights, bias);
                    put(out, sums);
                }
            }
        }
    }
}

fn blocked<T: Copy + Default>(values: &[T], blocks: usize) -> Vec<[T; BLOCK]> {
    let at = |i: usize| values.get(i).copied().unwrap_or_default();
    (0..blocks)
        .map(|b| std::array::from_fn(|i| at(BLOCK * b + i)))
        .collect()
}

pub fn halves<T>(block: &[T; BLOCK]) -> [&[T; 4]; 2] {
    let (halves, _) = block.as_chunks();
    [&halves[0], &halves[1]]
}

/// Sums of some pixels for one block of outputs.
///
/// On its own, so that what finishes the sums takes no registers while they are made.
#[inline(never)]
fn sums<const N: usize>(
    rows: [&[i16]; N],
    weights: &[[i16; 2 * BLOCK]],
    bias: &[i32; BLOCK],
) -> [[I32x4; 2]; N] {
    let rows = rows.map(|row| &row.as_chunks::<2>().0[..weights.len()]);
    let mut sums = [halves(bias).map(I32x4::load); N];
    for (i, weights) in weights.iter().enumerate() {
        let (weights, _) = weights.as_chunks();
        let (low, high) = (I16x8::load(&weights[0]), I16x8::load(&weights[1]));
        for (sums, row) in sums.iter_mut().zip(&rows) {
            let x = I16x8::splat_pair(&row[i]);
            sums[0] = sums[0].add(x.dot(low));
            sums[1] = sums[1].add(x.dot(high));
        }
    }
    sums
}

#[inline(always)]
fn quantise(sums: [I32x4; 2], factors: [F32x4; 2], low: F32x4, high: F32x4) -> I16x8 {
    let [a, b] = [0, 1].map(|i| {
        // Cut off first: both ends are integers, so that rounding does not lead out again.
        sums[i].to_f32().mul(factors[i]).clamp(low, high).round()
    });
    I16x8::narrow(a, b)
}

/// 3×3 weights of each channel by itself, with a border of zeros.
#[derive(Debug)]
pub struct Depthwise {
    channels: usize,
    /// By block of channels: for each pair of taps (the last one's partner is zero), the pair of
    /// weights of each channel.
    weights: Vec<[[[i16; 8]; 2]; PAIRS]>,
    bias: Vec<[i32; BLOCK]>,
    factors: Vec<[f32; BLOCK]>,
    low: f32,
    high: f32,
}

const TAPS: usize = 9;
const PAIRS: usize = TAPS.div_ceil(2);

impl Depthwise {
    /// `weight(channel, tap)`, taps row by row. The channels must fill blocks of eight.
    pub fn new(
        channels: usize,
        weight: impl Fn(usize, usize) -> i8,
        bias: &[i32],
        factors: &[f32],
        [low, high]: [f32; 2],
    ) -> Self {
        let blocks = channels / BLOCK;
        let at = |c: usize, tap: usize| {
            if tap < TAPS {
                i16::from(weight(c, tap))
            } else {
                0
            }
        };
        let pair = |b: usize, p: usize, half: usize| {
            std::array::from_fn(|i| at(BLOCK * b + 4 * half + i / 2, 2 * p + i % 2))
        };
        Self {
            channels,
            weights: (0..blocks)
                .map(|b| std::array::from_fn(|p| [pair(b, p, 0), pair(b, p, 1)]))
                .collect(),
            bias: blocked(bias, blocks),
            factors: blocked(factors, blocks),
            low,
            high,
        }
    }

    /// Convolves pictures of `width` pixels in a row and `height` rows, one behind the other.
    /// `scratch` is any memory.
    pub fn run(&self, x: &[i16], out: &mut [i16], size: [usize; 2], scratch: &mut Vec<i16>) {
        let [height, width] = size;
        let (c, row) = (self.channels, width * self.channels);
        let (low, high) = (F32x4::splat(self.low), F32x4::splat(self.high));
        let wide = row + 2 * c;
        scratch.clear();
        scratch.resize((height + 2) * wide, 0);
        let pictures = x
            .chunks_exact(height * row)
            .zip(out.chunks_exact_mut(height * row));
        for (x, out) in pictures {
            // The border stays zero.
            for (y, x) in x.chunks_exact(row).enumerate() {
                scratch[(y + 1) * wide + c..][..row].copy_from_slice(x);
            }
            for (y, out) in out.chunks_exact_mut(row).enumerate() {
                let rows: [&[i16]; 3] = std::array::from_fn(|i| &scratch[(y + i) * wide..][..wide]);
                for (x, out) in out.chunks_exact_mut(c).enumerate() {
                    let near: [&[[i16; 8]]; TAPS] = std::array::from_fn(|tap| {
                        rows[tap / 3][(x + tap % 3) * c..][..c].as_chunks().0
                    });
                    let (blocks, _) = out.as_chunks_mut();
                    for (b, out) in blocks.iter_mut().enumerate() {
                        let sums = self.sums(b, near.map(|tap| I16x8::load(&tap[b])));
                        let factors = halves(&self.factors[b]).map(F32x4::load);
                        quantise(sums, factors, low, high).store(out);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn sums(&self, block: usize, taps: [I16x8; TAPS]) -> [I32x4; 2] {
        let mut sums = halves(&self.bias[block]).map(I32x4::load);
        for (pair, weights) in self.weights[block].iter().enumerate() {
            let first = taps[2 * pair];
            let second = taps.get(2 * pair + 1).copied().unwrap_or(I16x8::splat(0));
            let both = first.interleave(second);
            for i in 0..2 {
                sums[i] = sums[i].add(both[i].dot(I16x8::load(&weights[i])));
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random.
    fn numbers(seed: u64) -> impl FnMut(i64) -> i64 {
        let mut state = seed;
        move |span| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 33) as i64).rem_euclid(2 * span + 1) - span
        }
    }

    fn rounded(sum: i32, factor: f32, low: f32, high: f32) -> i16 {
        (sum as f32 * factor).round_ties_even().clamp(low, high) as i16
    }

    #[test]
    fn products_are_those_of_the_definition() {
        for (pixels, k, n) in [(1, 2, 8), (7, 5, 3), (70, 32, 24), (131, 96, 20)] {
            let mut next = numbers(k as u64);
            let x: Vec<i16> = (0..pixels * k).map(|_| next(255) as i16).collect();
            let w: Vec<i8> = (0..n * k).map(|_| next(63) as i8).collect();
            let bias: Vec<i32> = (0..n).map(|_| next(9999) as i32).collect();
            let factors: Vec<f32> = (0..n).map(|_| 0.5f32.powi(4 + next(3) as i32)).collect();
            let weight = |o: usize, i: usize| w[o * k + i];
            let sum = |p: usize, o: usize| {
                let terms = (0..k).map(|i| i32::from(x[p * k + i]) * i32::from(w[o * k + i]));
                bias[o] + terms.sum::<i32>()
            };
            let finish = Finish::Quantise {
                factors: factors.clone(),
                low: -128.0,
                high: 127.0,
            };
            let product = Product::new(k, n, weight, &bias, finish);
            let mut padded = vec![0; pixels * product.inputs()];
            for (to, from) in padded.chunks_mut(product.inputs()).zip(x.chunks(k)) {
                to[..k].copy_from_slice(from);
            }
            let mut out = vec![0; pixels * n];
            product.run(&padded, Out::I16(&mut out));
            for (i, got) in out.into_iter().enumerate() {
                let (p, o) = (i / n, i % n);
                assert_eq!(
                    got,
                    rounded(sum(p, o), factors[o], -128.0, 127.0),
                    "{pixels} {k} {n}"
                );
            }
            for round in [false, true] {
                let finish = Finish::Real {
                    factors: factors.clone(),
                    round,
                };
                let product = Product::new(k, n, weight, &bias, finish);
                let mut out = vec![0.0; pixels * n];
                product.run(&padded, Out::F32(&mut out));
                for (i, got) in out.into_iter().enumerate() {
                    let expected = sum(i / n, i % n) as f32 * factors[i % n];
                    let expected = if round {
                        expected.round_ties_even()
                    } else {
                        expected
                    };
                    assert_eq!(got, expected);
                }
            }
        }
    }

    #[test]
    fn depthwise_sees_zeros_around_the_picture() {
        let (count, height, width, c) = (2, 3, 5, 16);
        let mut next = numbers(1);
        let x: Vec<i16> = (0..count * height * width * c)
            .map(|_| next(255) as i16)
            .collect();
        let w: Vec<i8> = (0..c * 9).map(|_| next(63) as i8).collect();
        let bias: Vec<i32> = (0..c).map(|_| next(999) as i32).collect();
        let factors = vec![1.0 / 64.0; c];
        let weights = |c: usize, tap: usize| w[9 * c + tap];
        let depthwise = Depthwise::new(c, weights, &bias, &factors, [0.0, 255.0]);
        let mut out = vec![0; x.len()];
        depthwise.run(&x, &mut out, [height, width], &mut Vec::new());
        for (i, got) in out.into_iter().enumerate() {
            let (ch, px, py, pn) = (
                i % c,
                i / c % width,
                i / c / width % height,
                i / c / width / height,
            );
            let mut sum = bias[ch];
            for tap in 0..9 {
                let (y, x_) = (
                    (py + tap / 3).wrapping_sub(1),
                    (px + tap % 3).wrapping_sub(1),
                );
                if y < height && x_ < width {
                    let at = ((pn * height + y) * width + x_) * c + ch;
                    sum += i32::from(x[at]) * i32::from(w[9 * ch + tap]);
                }
            }
            assert_eq!(got, rounded(sum, 1.0 / 64.0, 0.0, 255.0), "{i}");
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! The inner loops of the search: sums of absolute differences, plain and Hadamard-transformed.
//!
//! Free for the encoder; written in plain Rust that vectorises well.

use nnv_cpu::simd::{hadamard8, hadamard8_twice, sad8_of_eight, with_avx2};
use nnv_format::motion::compensate::{PATCH, average, block_14, fetch_clamped, inside, round};
use nnv_format::motion::field::Mv;
use nnv_format::picture::Plane;

/// N×N samples of the picture that is searched for.
pub(crate) type Samples<const N: usize> = [[u16; N]; N];
/// N×N intermediates of motion compensation.
pub(crate) type Block14<const N: usize> = [[i16; N]; N];

/// Copies the block at (`x`, `y`), which lies inside the plane.
#[inline]
pub(crate) fn load<const N: usize>(plane: &Plane, (x, y): (usize, usize)) -> Samples<N> {
    std::array::from_fn(|row| *plane.row(y + row)[x..].first_chunk().expect("inside"))
}

#[inline(always)]
fn sad_rows<const N: usize>(a: &Samples<N>, b: &[u16], stride: usize) -> u32 {
    // Up to 16 differences of 10 bits fit a lane of 16 bits.
    let mut sum = [0u16; N];
    for (row, a) in a.iter().enumerate() {
        let b = &b[row * stride..][..N];
        for i in 0..N {
            sum[i] += a[i].abs_diff(b[i]);
        }
    }
    sum.iter().map(|&s| u32::from(s)).sum()
}

#[inline(always)]
fn sad_impl<const N: usize>(a: &Samples<N>, plane: &Plane, at: (i32, i32)) -> u32 {
    match inside(plane, at, (N, N)) {
        Some(b) => sad_rows(a, b, plane.stride()),
        None => sad_outside(a, plane, at),
    }
}

#[inline(never)]
fn sad_outside<const N: usize>(a: &Samples<N>, plane: &Plane, at: (i32, i32)) -> u32 {
    let mut patch = [0; PATCH * PATCH];
    fetch_clamped(plane, at, (N, N), PATCH, &mut patch);
    sad_rows(a, &patch, PATCH)
}

with_avx2! {
    /// Sum of absolute differences with the 16×16 block of `plane` at `at`.
    pub(crate) fn sad16(a: &Samples<16>, plane: &Plane, at: (i32, i32)) -> u32 = sad_impl::<16>
}

with_avx2! {
    /// Sum of absolute differences with the 8×8 block of `plane` at `at`.
    pub(crate) fn sad8(a: &Samples<8>, plane: &Plane, at: (i32, i32)) -> u32 = sad_impl::<8>
}

/// Largest range of a full search.
const MAX_RANGE: i32 = 16;
/// Samples around a plane of bytes that repeat its border: more than the largest full search sees.
const BORDER: i32 = 64;

/// A plane of 8 bits, for coarse searches, with a border so wide that no search has to ask.
pub(crate) struct Bytes {
    width: i32,
    height: i32,
    stride: usize,
    data: Vec<u8>,
}

impl Bytes {
    /// The upper 8 of the 10 bits of `plane`.
    pub(crate) fn of(plane: &Plane) -> Self {
        let (width, height) = (plane.width() as i32, plane.height() as i32);
        let stride = (width + 2 * BORDER) as usize;
        let mut data = Vec::with_capacity(stride * (height + 2 * BORDER) as usize);
        for y in -BORDER..height + BORDER {
            let row = plane.row(y.clamp(0, height - 1) as usize);
            let byte = |v: u16| (v >> 2) as u8;
            data.extend(std::iter::repeat_n(byte(row[0]), BORDER as usize));
            data.extend(row.iter().map(|&v| byte(v)));
            data.extend(std::iter::repeat_n(
                byte(row[row.len() - 1]),
                BORDER as usize,
            ));
        }
        Self {
            width,
            height,
            stride,
            data,
        }
    }

    /// Samples from (`x`, `y`) on. Beyond the border all is alike.
    fn from(&self, (x, y): (i32, i32)) -> &[u8] {
        let x = x.clamp(-BORDER, self.width) + BORDER;
        let y = y.clamp(-BORDER, self.height) + BORDER;
        &self.data[y as usize * self.stride + x as usize..]
    }

    /// The 8×8 block at `at`, which may lie outside.
    pub(crate) fn block(&self, at: (i32, i32)) -> [[u8; 8]; 8] {
        let area = self.from(at);
        std::array::from_fn(|y| *area[y * self.stride..].first_chunk().expect("a border"))
    }
}

/// Where a full search looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Offset of the centre.
    pub centre: (i32, i32),
    /// Distance searched to each side, at most [`MAX_RANGE`].
    pub range: i32,
}

/// Full search of an 8×8 block around `window`; `rate` is the cost per doubling of the distance
/// from zero, in differences of 10-bit samples, as is the cost returned.
///
/// Ties go to the first found, scanning row by row.
#[inline(always)]
fn full8_impl(
    block: &[[u8; 8]; 8],
    plane: &Bytes,
    at: (i32, i32),
    window: &Window,
    rate: u32,
) -> (u32, (i32, i32)) {
    debug_assert!(window.range <= MAX_RANGE, "a border of {BORDER}");
    let (left, top) = (
        window.centre.0 - window.range,
        window.centre.1 - window.range,
    );
    let area = plane.from((at.0 + left, at.1 + top));
    let count = 2 * window.range + 1;
    let mut best = (u32::MAX, window.centre);
    for dy in 0..count {
        let row = &area[dy as usize * plane.stride..];
        for first in (0..count).step_by(8) {
            let sads = sad8_of_eight(block, &row[first as usize..], plane.stride);
            for (dx, &sad) in (first..count).zip(&sads) {
                let (x, y) = (left + dx, top + dy);
                let distance = x.unsigned_abs() + y.unsigned_abs();
                let cost = 4 * u32::from(sad) + rate * (u32::BITS - distance.leading_zeros());
                if cost < best.0 {
                    best = (cost, (x, y));
                }
            }
        }
    }
    best
}

with_avx2! {
    /// Full search of an 8×8 block, see [`full8_impl`].
    pub(crate) fn full8(
        block: &[[u8; 8]; 8],
        plane: &Bytes,
        at: (i32, i32),
        window: &Window,
        rate: u32,
    ) -> (u32, (i32, i32)) = full8_impl
}

#[inline(always)]
fn satd<const N: usize>(a: &Samples<N>, b: impl Fn(usize, usize) -> u16) -> u32 {
    let difference = |y: usize, x: usize| a[y][x] as i16 - b(y, x) as i16;
    let mut sum = 0;
    for y in (0..N).step_by(8) {
        if N == 16 {
            let mut m = [[0i16; 16]; 8];
            for (i, m) in m.iter_mut().enumerate() {
                for (k, m) in m.iter_mut().enumerate() {
                    *m = difference(y + i, k);
                }
            }
            sum += hadamard8_twice(&m);
        } else {
            let mut m = [[0i16; 8]; 8];
            for (i, m) in m.iter_mut().enumerate() {
                for (k, m) in m.iter_mut().enumerate() {
                    *m = difference(y + i, k);
                }
            }
            sum += hadamard8(&m);
        }
    }
    sum
}

#[inline(always)]
fn satd_at_impl<const N: usize>(
    a: &Samples<N>,
    plane: &Plane,
    at: (usize, usize),
    mv: Mv,
    out: &mut Block14<N>,
) -> u32 {
    block_14::<N, true>(plane, at, mv, out);
    let p: Samples<N> = std::array::from_fn(|y| out[y].map(round));
    satd(a, |y, x| p[y][x])
}

with_avx2! {
    /// Transformed differences with the prediction of a 16×16 block, which is left in `out`.
    pub(crate) fn satd_at16(
        a: &Samples<16>,
        plane: &Plane,
        at: (usize, usize),
        mv: Mv,
        out: &mut Block14<16>,
    ) -> u32 = satd_at_impl::<16>
}

with_avx2! {
    /// Transformed differences with the prediction of an 8×8 block, which is left in `out`.
    pub(crate) fn satd_at8(
        a: &Samples<8>,
        plane: &Plane,
        at: (usize, usize),
        mv: Mv,
        out: &mut Block14<8>,
    ) -> u32 = satd_at_impl::<8>
}

#[inline(always)]
fn satd_pair_impl<const N: usize>(a: &Samples<N>, p: &Block14<N>, q: &Block14<N>) -> u32 {
    let mut both = [[0u16; N]; N];
    for (both, (p, q)) in both.iter_mut().zip(p.iter().zip(q)) {
        for i in 0..N {
            both[i] = average(p[i], q[i]);
        }
    }
    satd(a, |y, x| both[y][x])
}

with_avx2! {
    /// Transformed differences with the average of two predictions of a 16×16 block.
    pub(crate) fn satd_pair16(a: &Samples<16>, p: &Block14<16>, q: &Block14<16>) -> u32
        = satd_pair_impl::<16>
}

with_avx2! {
    /// Transformed differences with the average of two predictions of an 8×8 block.
    pub(crate) fn satd_pair8(a: &Samples<8>, p: &Block14<8>, q: &Block14<8>) -> u32
        = satd_pair_impl::<8>
}

/// Kernels by block size, so that the search is written once.
pub(crate) trait Side: Sized {
    fn sad(&self, plane: &Plane, at: (i32, i32)) -> u32;
    fn satd_at(&self, plane: &Plane, at: (usize, usize), mv: Mv, out: &mut Self::Block) -> u32;
    fn satd_pair(&self, p: &Self::Block, q: &Self::Block) -> u32;
    fn block() -> Self::Block;
    type Block: Clone;
    const N: usize;
}

impl Side for Samples<16> {
    type Block = Block14<16>;
    const N: usize = 16;

    fn sad(&self, plane: &Plane, at: (i32, i32)) -> u32 {
        sad16(self, plane, at)
    }

    fn satd_at(&self, plane: &Plane, at: (usize, usize), mv: Mv, out: &mut Self::Block) -> u32 {
        satd_at16(self, plane, at, mv, out)
    }

    fn satd_pair(&self, p: &Self::Block, q: &Self::Block) -> u32 {
        satd_pair16(self, p, q)
    }

    fn block() -> Self::Block {
        [[0; 16]; 16]
    }
}

impl Side for Samples<8> {
    type Block = Block14<8>;
    const N: usize = 8;

    fn sad(&self, plane: &Plane, at: (i32, i32)) -> u32 {
        sad8(self, plane, at)
    }

    fn satd_at(&self, plane: &Plane, at: (usize, usize), mv: Mv, out: &mut Self::Block) -> u32 {
        satd_at8(self, plane, at, mv, out)
    }

    fn satd_pair(&self, p: &Self::Block, q: &Self::Block) -> u32 {
        satd_pair8(self, p, q)
    }

    fn block() -> Self::Block {
        [[0; 8]; 8]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64) -> impl FnMut() -> u32 {
        let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        move || {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 32) as u32
        }
    }

    fn random_plane(width: usize, height: usize, seed: u64, extreme: bool) -> Plane {
        let mut rng = noise(seed);
        let mut plane = Plane::new(width, height, 0);
        plane.data_mut().fill_with(|| {
            let v = rng();
            if extreme {
                (v % 2 * 1023) as u16
            } else {
                (v % 1024) as u16
            }
        });
        plane
    }

    fn slow_satd<const N: usize>(a: &Samples<N>, b: &Samples<N>) -> u32 {
        let mut total = 0;
        for (y, x) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            if y >= N || x >= N {
                continue;
            }
            let mut sum = 0u32;
            for u in 0..8usize {
                for v in 0..8usize {
                    let mut c = 0i32;
                    for i in 0..8usize {
                        for j in 0..8usize {
                            let sign = ((u & i).count_ones() + (v & j).count_ones()) % 2;
                            let d = i32::from(a[y + i][x + j]) - i32::from(b[y + i][x + j]);
                            c += if sign == 0 { d } else { -d };
                        }
                    }
                    sum += c.unsigned_abs();
                }
            }
            total += sum.div_ceil(4);
        }
        total
    }

    #[test]
    fn sums_match_the_obvious_ones() {
        for extreme in [false, true] {
            let a = random_plane(32, 32, 1, extreme);
            let b = random_plane(32, 32, 2, extreme);
            for at in [(0, 0), (5, 9), (-3, 20), (30, -40)] {
                let cur: Samples<16> = load(&a, (8, 8));
                let clamped: Samples<16> = std::array::from_fn(|y| {
                    std::array::from_fn(|x| {
                        let x = (at.0 + x as i32).clamp(0, 31) as usize;
                        let y = (at.1 + y as i32).clamp(0, 31) as usize;
                        b.row(y)[x]
                    })
                });
                let want: u32 = (0..256)
                    .map(|i| u32::from(cur[i / 16][i % 16].abs_diff(clamped[i / 16][i % 16])))
                    .sum();
                assert_eq!(sad16(&cur, &b, at), want);
                let mut out = Samples::<16>::block();
                let mv = Mv {
                    x: 4 * (at.0 - 8) as i16,
                    y: 4 * (at.1 - 8) as i16,
                };
                assert_eq!(
                    satd_at16(&cur, &b, (8, 8), mv, &mut out),
                    slow_satd(&cur, &clamped)
                );
                assert_eq!(satd_pair16(&cur, &out, &out), slow_satd(&cur, &clamped));
                let small: Samples<8> = load(&a, (8, 8));
                let mut out = Samples::<8>::block();
                let other: Samples<8> =
                    std::array::from_fn(|y| std::array::from_fn(|x| clamped[y][x]));
                assert_eq!(
                    satd_at8(&small, &b, (8, 8), mv, &mut out),
                    slow_satd(&small, &other)
                );
                assert_eq!(satd_pair8(&small, &out, &out), slow_satd(&small, &other));
            }
        }
        // The largest possible difference must not wrap.
        let (a, b) = ([[1023u16; 16]; 16], Plane::new(16, 16, 0));
        let mut out = Samples::<16>::block();
        assert_eq!(sad16(&a, &b, (0, 0)), 256 * 1023);
        assert_eq!(
            satd_at16(&a, &b, (0, 0), Mv::ZERO, &mut out),
            4 * 64 * 1023 / 4
        );
    }

    #[test]
    fn full_search_finds_a_shift() {
        let plane = random_plane(64, 64, 3, false);
        let bytes = Bytes::of(&plane);
        let block = bytes.block((29, 22));
        let window = |range| Window {
            centre: (3, 1),
            range,
        };
        for range in [3, 4, 15, 16] {
            let found = full8(&block, &bytes, (24, 24), &window(range), 0);
            assert_eq!(found, (0, (5, -2)));
        }
        // Far outside, all is alike: the nearest place is taken.
        let corner = bytes.block((-500, 500));
        assert_eq!(corner, [[(plane.row(63)[0] >> 2) as u8; 8]; 8]);
        let found = full8(&corner, &bytes, (-500, 500), &window(2), 3);
        assert_eq!(found, (3, (1, 0)));
    }
}

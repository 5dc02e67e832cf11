// SPDX-License-Identifier: MPL-2.0
//! Motion compensation (normative): HEVC's interpolation filters on 10-bit samples.
//!
//! Intermediates have 14 bits plus sign as in HEVC: a whole sample is `s << 4`, a filtered one is
//! `sum >> 2` after the first and `sum >> 6` after the second direction. Predictions round back to
//! 10 bits: `(v + 8) >> 4` from one reference, `(a + b + 16) >> 5` from two. Samples outside the
//! padded picture are those of its nearest edge.
//!
//! In memory intermediates are lowered by [`OFFSET`], so that the largest overshoot of two filters
//! fits an `i16`; as taps sum to 64 this changes no result.

use super::error::MotionError;
use super::field::{Leaf, Mode, MotionField, Mv, is_split};
use crate::picture::{MAX_SAMPLE, Picture, PictureError, Plane, pack_planes};
use nnv_cpu::simd::{signed, weigh};

/// Luma taps by quarter-sample phase; they sum to 64.
pub const LUMA_TAPS: [[i16; 8]; 4] = [
    [0, 0, 0, 64, 0, 0, 0, 0],
    [-1, 4, -10, 58, 17, -5, 1, 0],
    [-1, 4, -11, 40, 40, -11, 4, -1],
    [0, 1, -5, 17, 58, -10, 4, -1],
];

/// Chroma taps by eighth-sample phase; they sum to 64.
pub const CHROMA_TAPS: [[i16; 4]; 8] = [
    [0, 64, 0, 0],
    [-2, 58, 10, -2],
    [-4, 54, 16, -2],
    [-6, 46, 28, -4],
    [-4, 36, 36, -4],
    [-4, 28, 46, -6],
    [-2, 16, 54, -4],
    [-2, 10, 58, -2],
];

/// Weight, in eighths, of a neighbouring cell's prediction by distance from the common edge.
const LUMA_OVERLAP: [i16; 2] = [2, 1];
/// The same for chroma.
const CHROMA_OVERLAP: [i16; 1] = [2];

/// What intermediates are lowered by: the middle of their range.
pub const OFFSET: i16 = 1 << 13;

/// Side of the largest patch that a filter reads: 16 + 7, and one for alignment.
pub const PATCH: usize = 24;

/// Difference of the two motion-compensated references: planes Y, U, V in the padded size,
/// 10-bit units within ±1023, zero outside bi-predicted blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    planes: [Vec<i16>; 3],
}

impl Difference {
    /// Samples of plane `index` (0 is Y, 1 is U, 2 is V), row after row in the padded width.
    pub fn plane(&self, index: usize) -> &[i16] {
        &self.planes[index]
    }
}

/// What motion compensation makes of a field and two references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// The prediction picture.
    pub picture: Picture,
    /// Where both references were averaged: the first minus the second.
    pub difference: Difference,
    any_bi: bool,
}

impl Prediction {
    /// Room for predictions of pictures of `picture`'s size.
    pub fn new(picture: &Picture) -> Self {
        Self {
            picture: picture.clone(),
            difference: Difference {
                planes: picture.planes().each_ref().map(|p| vec![0; p.data().len()]),
            },
            any_bi: false,
        }
    }

    /// Packs the picture (`p`, samples - 512) and the difference (`d`) into tensors `[96, h8, w8]`.
    ///
    /// # Errors
    /// [`PictureError::Tensor`] where a slice has the wrong length.
    pub fn pack(&self, p: &mut [i16], d: &mut [i16]) -> Result<(), PictureError> {
        self.picture.pack(p)?;
        if d.len() != p.len() {
            return Err(PictureError::Tensor {
                width: self.picture.width(),
                height: self.picture.height(),
                expected: p.len(),
                got: d.len(),
            });
        }
        if self.any_bi {
            let planes = self.difference.planes.each_ref().map(|p| &p[..]);
            pack_planes(planes, self.picture.tensor_size(), |v| v as u16, d);
        } else {
            d.fill(0);
        }
        Ok(())
    }
}

/// Predicts a picture from two references (pass one twice where there is only one).
///
/// The result does not depend on `threads`.
///
/// # Errors
/// [`MotionError::Size`] where a reference has another size than the field.
pub fn predict(
    field: &MotionField,
    ref0: &Picture,
    ref1: &Picture,
    threads: usize,
) -> Result<Prediction, MotionError> {
    let mut prediction = Prediction::new(ref0);
    predict_into(field, ref0, ref1, threads, &mut prediction)?;
    Ok(prediction)
}

/// Like [`predict`] into existing memory.
///
/// # Errors
/// [`MotionError::Size`] where a reference or `out` has another size than the field.
pub fn predict_into(
    field: &MotionField,
    ref0: &Picture,
    ref1: &Picture,
    threads: usize,
    out: &mut Prediction,
) -> Result<(), MotionError> {
    let (width, height) = field.padded_size();
    for (what, picture) in [
        ("the first reference", ref0),
        ("the second reference", ref1),
        ("the prediction buffer", &out.picture),
    ] {
        let got = (picture.padded_width(), picture.padded_height());
        if got != (width, height) {
            return Err(MotionError::Size {
                what,
                got_width: got.0,
                got_height: got.1,
                width,
                height,
            });
        }
    }
    out.any_bi = field.any_bi();
    // One item per row of blocks: its rows in each plane of both outputs.
    let mut rows: Vec<_> = {
        let [py, pu, pv] = out.picture.planes_mut();
        let [dy, du, dv] = &mut out.difference.planes;
        let p = py.data_mut().chunks_exact_mut(16 * width);
        let p = p.zip(pu.data_mut().chunks_exact_mut(4 * width));
        let p = p.zip(pv.data_mut().chunks_exact_mut(4 * width));
        let d = dy.chunks_exact_mut(16 * width);
        let d = d.zip(du.chunks_exact_mut(4 * width));
        let d = d.zip(dv.chunks_exact_mut(4 * width));
        p.zip(d)
            .enumerate()
            .map(|(by, (((py, pu), pv), ((dy, du), dv)))| OutputRow {
                by,
                p: [py, pu, pv],
                d: [dy, du, dv],
            })
            .collect()
    };
    let work = |row: &mut OutputRow| predict_row(field, [ref0, ref1], row);
    let threads = threads.clamp(1, rows.len());
    if threads == 1 {
        rows.iter_mut().for_each(work);
    } else {
        let share = rows.len().div_ceil(threads);
        std::thread::scope(|scope| {
            let mut shares = rows.chunks_mut(share);
            let own = shares.next();
            for share in shares {
                scope.spawn(move || share.iter_mut().for_each(work));
            }
            own.into_iter().flatten().for_each(work);
        });
    }
    Ok(())
}

/// A row of blocks in the planes of both outputs.
struct OutputRow<'a> {
    by: usize,
    p: [&'a mut [u16]; 3],
    d: [&'a mut [i16]; 3],
}

nnv_cpu::simd::with_avx2! {
    fn predict_row(
        field: &MotionField,
        refs: [&Picture; 2],
        row: &mut OutputRow,
    ) = predict_row_impl
}

#[inline(always)]
fn predict_row_impl(field: &MotionField, refs: [&Picture; 2], row: &mut OutputRow) {
    let OutputRow { by, p, d } = row;
    let by = *by;
    for bx in 0..field.columns() / 2 {
        let cells = field.block(bx, by);
        if is_split(&cells) {
            for (i, &leaf) in cells.iter().enumerate() {
                let (x, y) = (16 * bx + 8 * (i % 2), 8 * (i / 2));
                leaf_planes::<8, 4>(leaf, refs, (x, y, 16 * by), p, d);
            }
        } else {
            leaf_planes::<16, 8>(cells[0], refs, (16 * bx, 0, 16 * by), p, d);
        }
    }
    for cy in 2 * by..2 * by + 2 {
        for cx in 0..field.columns() {
            let own = field.cell(cx, cy);
            let other = |there: bool, x: usize, y: usize| {
                there.then(|| field.cell(x, y)).filter(|&leaf| leaf != own)
            };
            let near = [
                other(cy > 0, cx, cy.wrapping_sub(1)),
                other(cy + 1 < field.rows(), cx, cy + 1),
                other(cx > 0, cx.wrapping_sub(1), cy),
                other(cx + 1 < field.columns(), cx + 1, cy),
            ];
            if near.iter().any(Option::is_some) {
                for (i, p) in p.iter_mut().enumerate() {
                    let planes = [refs[0].plane(i), refs[1].plane(i)];
                    if i == 0 {
                        overlap::<8, true>(&near, planes, (8 * cx, 8 * cy), 16 * by, p);
                    } else {
                        overlap::<4, false>(&near, planes, (4 * cx, 4 * cy), 8 * by, p);
                    }
                }
            }
        }
    }
}

/// Mixes what the leaves of the upper, lower, left and right neighbour predict into the N×N cell at
/// (`x`, `y`), along their common edges: overlapped block motion compensation (Orchard and Sullivan
/// 1994). `p` begins with row `top` of the plane.
#[inline(always)]
fn overlap<const N: usize, const LUMA: bool>(
    near: &[Option<Leaf>; 4],
    planes: [&Plane; 2],
    (x, y): (usize, usize),
    top: usize,
    p: &mut [u16],
) {
    let weights: &[i16] = if LUMA { &LUMA_OVERLAP } else { &CHROMA_OVERLAP };
    let stride = planes[0].stride();
    let p = &mut p[(y - top) * stride + x..];
    let mut sums = [[0i16; N]; N];
    for (side, leaf) in near.iter().enumerate() {
        let Some(leaf) = leaf else { continue };
        // Above and below, only the rows along the edge are needed.
        let rows = match side {
            0 => 0..weights.len(),
            1 => N - weights.len()..N,
            _ => 0..N,
        };
        let mut theirs = [[0i16; N]; N];
        let at = (x, y + rows.start);
        leaf_samples::<N, LUMA>(*leaf, planes, at, &mut theirs[rows]);
        for (k, &weight) in weights.iter().enumerate() {
            let line = if side % 2 == 0 { k } else { N - 1 - k };
            for i in 0..N {
                let (row, col) = if side < 2 { (line, i) } else { (i, line) };
                sums[row][col] += weight * (theirs[row][col] - p[row * stride + col] as i16);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (p, sum) in p[row * stride..][..N].iter_mut().zip(sums) {
            // The weights of the others add up to no more than a half: no clipping is needed.
            *p = (*p as i16 + ((sum + 4) >> 3)) as u16;
        }
    }
}

/// What a leaf predicts for rows of N samples, at most N, from `at` on.
#[inline(always)]
fn leaf_samples<const N: usize, const LUMA: bool>(
    leaf: Leaf,
    planes: [&Plane; 2],
    at: (usize, usize),
    a: &mut [[i16; N]],
) {
    if leaf.mode() == Mode::Bi {
        let mut b = [[0i16; N]; N];
        let b = &mut b[..a.len()];
        block_14::<N, LUMA>(planes[0], at, leaf.mv(0), a);
        block_14::<N, LUMA>(planes[1], at, leaf.mv(1), b);
        for (a, b) in a.iter_mut().zip(b) {
            for i in 0..N {
                a[i] = average(a[i], b[i]) as i16;
            }
        }
    } else {
        let index = usize::from(leaf.mode() == Mode::Ref1);
        block_14::<N, LUMA>(planes[index], at, leaf.mv(index), a);
        for v in a.as_flattened_mut() {
            *v = round(*v) as i16;
        }
    }
}

/// Predicts a leaf in all planes. `x`, `y` place it in the row of blocks that starts at `top`.
#[inline(always)]
fn leaf_planes<const L: usize, const C: usize>(
    leaf: Leaf,
    refs: [&Picture; 2],
    (x, y, top): (usize, usize, usize),
    p: &mut [&mut [u16]; 3],
    d: &mut [&mut [i16]; 3],
) {
    for i in 0..3 {
        let planes = [refs[0].plane(i), refs[1].plane(i)];
        let stride = planes[0].stride();
        if i == 0 {
            let out = y * stride + x;
            leaf_plane::<L, true>(
                leaf,
                planes,
                (x, top + y),
                &mut p[i][out..],
                &mut d[i][out..],
            );
        } else {
            let (x, y, top) = (x / 2, y / 2, top / 2);
            let out = y * stride + x;
            leaf_plane::<C, false>(
                leaf,
                planes,
                (x, top + y),
                &mut p[i][out..],
                &mut d[i][out..],
            );
        }
    }
}

#[inline(always)]
fn leaf_plane<const N: usize, const LUMA: bool>(
    leaf: Leaf,
    planes: [&Plane; 2],
    (x, y): (usize, usize),
    p: &mut [u16],
    d: &mut [i16],
) {
    let stride = planes[0].stride();
    let mut a = [[0i16; N]; N];
    if leaf.mode() == Mode::Bi {
        let mut b = [[0i16; N]; N];
        block_14::<N, LUMA>(planes[0], (x, y), leaf.mv(0), &mut a);
        block_14::<N, LUMA>(planes[1], (x, y), leaf.mv(1), &mut b);
        let out = p.chunks_mut(stride).zip(d.chunks_mut(stride));
        for ((p, d), (a, b)) in out.zip(a.iter().zip(&b)) {
            let (p, d) = (&mut p[..N], &mut d[..N]);
            for i in 0..N {
                p[i] = average(a[i], b[i]);
                d[i] = difference(a[i], b[i]);
            }
        }
    } else {
        let index = usize::from(leaf.mode() == Mode::Ref1);
        let (mv, phase) = (leaf.mv(index), if LUMA { 3 } else { 7 });
        if (mv.x | mv.y) & phase == 0 {
            // Whole samples survive the rounding unchanged.
            let shift = if LUMA { 2 } else { 3 };
            let at = (
                x as i32 + i32::from(mv.x >> shift),
                y as i32 + i32::from(mv.y >> shift),
            );
            let mut patch = [0u16; PATCH * PATCH];
            let (src, from) = match inside(planes[index], at, (N, N)) {
                Some(src) => (src, stride),
                None => {
                    fetch_clamped(planes[index], at, (N, N), PATCH, &mut patch);
                    (&patch[..], PATCH)
                }
            };
            for row in 0..N {
                p[row * stride..][..N].copy_from_slice(&src[row * from..][..N]);
                d[row * stride..][..N].fill(0);
            }
            return;
        }
        block_14::<N, LUMA>(planes[index], (x, y), leaf.mv(index), &mut a);
        let out = p.chunks_mut(stride).zip(d.chunks_mut(stride));
        for ((p, d), a) in out.zip(&a) {
            let p = &mut p[..N];
            for i in 0..N {
                p[i] = round(a[i]);
            }
            d[..N].fill(0);
        }
    }
}

/// 14-bit intermediate to a sample.
#[inline(always)]
pub fn round(a: i16) -> u16 {
    // What saturates would be clipped anyway.
    (a.saturating_add(OFFSET + 8) >> 4).clamp(0, MAX_SAMPLE as i16) as u16
}

/// Average of two 14-bit intermediates as a sample.
#[inline(always)]
pub fn average(a: i16, b: i16) -> u16 {
    ((i32::from(a) + i32::from(b) + 2 * i32::from(OFFSET) + 16) >> 5)
        .clamp(0, i32::from(MAX_SAMPLE)) as u16
}

/// Difference of two 14-bit intermediates in units of samples.
#[inline(always)]
fn difference(a: i16, b: i16) -> i16 {
    let limit = i32::from(MAX_SAMPLE);
    ((i32::from(a) - i32::from(b) + 8) >> 4).clamp(-limit, limit) as i16
}

/// 14-bit prediction of rows of N samples, at most N, from (`x`, `y`) of a luma or chroma plane on.
#[inline(always)]
pub fn block_14<const N: usize, const LUMA: bool>(
    plane: &Plane,
    (x, y): (usize, usize),
    mv: Mv,
    out: &mut [[i16; N]],
) {
    let (bits, before, taps) = if LUMA { (2, 3, 8) } else { (3, 1, 4) };
    let (fx, fy) = (
        (mv.x & ((1 << bits) - 1)) as usize,
        (mv.y & ((1 << bits) - 1)) as usize,
    );
    let x = x as i32 + i32::from(mv.x >> bits);
    let y = y as i32 + i32::from(mv.y >> bits);
    if fx == 0 && fy == 0 {
        match inside(plane, (x, y), (N, out.len())) {
            Some(src) => widen(src, plane.stride(), out),
            None => {
                let mut patch = [0u16; PATCH * PATCH];
                fetch_clamped(plane, (x, y), (N, out.len()), PATCH, &mut patch);
                widen(&patch, PATCH, out);
            }
        }
        return;
    }
    let size = (N + taps - 1, out.len() + taps - 1);
    let first = (x - before, y - before);
    match inside(plane, first, size) {
        Some(src) => filter_any::<N, LUMA>(src, plane.stride(), (fx, fy), out),
        None => filter_outside::<N, LUMA>(plane, first, (fx, fy), out),
    }
}

#[inline(always)]
fn widen<const N: usize>(src: &[u16], stride: usize, out: &mut [[i16; N]]) {
    for (row, out) in out.iter_mut().enumerate() {
        let s = &src[row * stride..][..N];
        for i in 0..N {
            out[i] = (s[i] << 4) as i16 - OFFSET;
        }
    }
}

#[inline(always)]
fn filter_any<const N: usize, const LUMA: bool>(
    src: &[u16],
    stride: usize,
    (fx, fy): (usize, usize),
    out: &mut [[i16; N]],
) {
    if LUMA {
        filter::<N, 8>(src, stride, (fx, fy), (&LUMA_TAPS[fx], &LUMA_TAPS[fy]), out);
    } else {
        filter::<N, 4>(
            src,
            stride,
            (fx, fy),
            (&CHROMA_TAPS[fx], &CHROMA_TAPS[fy]),
            out,
        );
    }
}

/// Blocks near the border are few: out of line, and not compiled twice.
#[inline(never)]
fn filter_outside<const N: usize, const LUMA: bool>(
    plane: &Plane,
    first: (i32, i32),
    phase: (usize, usize),
    out: &mut [[i16; N]],
) {
    let more = if LUMA { 7 } else { 3 };
    let mut patch = [0u16; PATCH * PATCH];
    fetch_clamped(
        plane,
        first,
        (N + more, out.len() + more),
        PATCH,
        &mut patch,
    );
    filter_any::<N, LUMA>(&patch, PATCH, phase, out);
}

/// Samples from (`x`, `y`) on, where a `w`×`h` rectangle lies inside the plane.
#[inline(always)]
pub fn inside(plane: &Plane, (x, y): (i32, i32), (w, h): (usize, usize)) -> Option<&[u16]> {
    let (pw, ph) = (plane.width() as i32, plane.height() as i32);
    (x >= 0 && y >= 0 && x + w as i32 <= pw && y + h as i32 <= ph)
        .then(|| &plane.data()[y as usize * plane.stride() + x as usize..])
}

/// Copies a rectangle with clamped coordinates into rows of `stride` samples.
#[inline(never)]
pub fn fetch_clamped(
    plane: &Plane,
    (x, y): (i32, i32),
    (w, h): (usize, usize),
    stride: usize,
    out: &mut [u16],
) {
    let (pw, ph) = (plane.width() as i32, plane.height() as i32);
    // Columns left of the plane, then inside it; the rest lies to the right.
    let left = (-x).clamp(0, w as i32) as usize;
    let middle = ((pw - x).clamp(0, w as i32) as usize).saturating_sub(left);
    for (i, out) in out.chunks_exact_mut(stride).take(h).enumerate() {
        let row = plane.row((y + i as i32).clamp(0, ph - 1) as usize);
        let (before, rest) = out[..w].split_at_mut(left);
        let (within, after) = rest.split_at_mut(middle);
        before.fill(row[0]);
        if middle > 0 {
            within.copy_from_slice(&row[(x + left as i32) as usize..][..middle]);
        }
        after.fill(row[row.len() - 1]);
    }
}

/// Filters a patch, T-1 samples wider and higher, into rows of N intermediates. At least one of the
/// phases is not zero.
#[inline(always)]
fn filter<const N: usize, const T: usize>(
    src: &[u16],
    stride: usize,
    (fx, fy): (usize, usize),
    (tx, ty): (&[i16; T], &[i16; T]),
    out: &mut [[i16; N]],
) {
    let before = T / 2 - 1;
    // Samples have 10 bits: with a sign they are the same.
    let src = signed(src);
    if fy == 0 {
        return weigh::<N, T, 2>(&src[before * stride..], (stride, 1), tx, OFFSET, out);
    }
    if fx == 0 {
        return weigh::<N, T, 2>(&src[before..], (stride, stride), ty, OFFSET, out);
    }
    let mut rows = [[0i16; N]; PATCH];
    weigh::<N, T, 2>(src, (stride, 1), tx, OFFSET, &mut rows[..out.len() + T - 1]);
    weigh::<N, T, 6>(rows.as_flattened(), (N, N), ty, 0, out);
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

    fn random_picture(width: u32, height: u32, seed: u64) -> Picture {
        let mut rng = noise(seed);
        let mut p = Picture::new(width, height).unwrap();
        for plane in p.planes_mut() {
            // Mostly extremes: overflow and clipping must show.
            plane.data_mut().fill_with(|| match rng() % 4 {
                0 => 0,
                1 => 1023,
                _ => (rng() % 1024) as u16,
            });
        }
        p
    }

    /// Sample by sample, with `i64` and explicit coordinates: what the specification says.
    fn reference_sample(plane: &Plane, luma: bool, x: usize, y: usize, mv: Mv) -> i64 {
        let at = |x: i64, y: i64| {
            let x = x.clamp(0, plane.width() as i64 - 1) as usize;
            let y = y.clamp(0, plane.height() as i64 - 1) as usize;
            i64::from(plane.row(y)[x])
        };
        let unit = if luma { 4 } else { 8 };
        let (mx, my) = (i64::from(mv.x), i64::from(mv.y));
        let (fx, fy) = (mx.rem_euclid(unit) as usize, my.rem_euclid(unit) as usize);
        let (ix, iy) = (
            x as i64 + mx.div_euclid(unit),
            y as i64 + my.div_euclid(unit),
        );
        let taps = |f: usize| -> Vec<i64> {
            if luma {
                LUMA_TAPS[f].iter().map(|&t| t.into()).collect()
            } else {
                CHROMA_TAPS[f].iter().map(|&t| t.into()).collect()
            }
        };
        let before = if luma { 3 } else { 1 };
        let across = |y: i64| -> i64 {
            let t = taps(fx);
            (0..t.len())
                .map(|k| t[k] * at(ix + k as i64 - before, y))
                .sum()
        };
        match (fx, fy) {
            (0, 0) => at(ix, iy) << 4,
            (_, 0) => across(iy) >> 2,
            (0, _) => {
                let t = taps(fy);
                let sum: i64 = (0..t.len())
                    .map(|k| t[k] * at(ix, iy + k as i64 - before))
                    .sum();
                sum >> 2
            }
            _ => {
                let t = taps(fy);
                let sum: i64 = (0..t.len())
                    .map(|k| t[k] * (across(iy + k as i64 - before) >> 2))
                    .sum();
                sum >> 6
            }
        }
    }

    fn check_against_reference(field: &MotionField, refs: [&Picture; 2], threads: usize) {
        let got = predict(field, refs[0], refs[1], threads).unwrap();
        for i in 0..3 {
            let cell = if i == 0 { 8 } else { 4 };
            let plane = got.picture.plane(i);
            let predicted = |leaf: Leaf, x: usize, y: usize| {
                let v =
                    [0, 1].map(|r| reference_sample(refs[r].plane(i), i == 0, x, y, leaf.mv(r)));
                let (p, d) = match leaf.mode() {
                    Mode::Ref0 => ((v[0] + 8) >> 4, 0),
                    Mode::Ref1 => ((v[1] + 8) >> 4, 0),
                    Mode::Bi => ((v[0] + v[1] + 16) >> 5, (v[0] - v[1] + 8) >> 4),
                };
                (p.clamp(0, 1023), d)
            };
            for y in 0..plane.height() {
                for x in 0..plane.width() {
                    let leaf = field.cell(x / cell, y / cell);
                    let (own, d) = predicted(leaf, x, y);
                    // The nearest cell in each direction, where it is near enough.
                    let weight = |k: usize| match (i, k) {
                        (0, 0) | (1 | 2, 0) => 2,
                        (0, 1) => 1,
                        _ => 0,
                    };
                    let mut sum = 0;
                    let (cx, cy) = (x / cell, y / cell);
                    for (there, ox, oy, k) in [
                        (cy > 0, cx, cy.max(1) - 1, y % cell),
                        (cy + 1 < field.rows(), cx, cy + 1, cell - 1 - y % cell),
                        (cx > 0, cx.max(1) - 1, cy, x % cell),
                        (cx + 1 < field.columns(), cx + 1, cy, cell - 1 - x % cell),
                    ] {
                        if there {
                            sum += weight(k) * (predicted(field.cell(ox, oy), x, y).0 - own);
                        }
                    }
                    let p = own + ((sum + 4) >> 3);
                    let at = format!("plane {i} at {x},{y}: {leaf:?}");
                    assert_eq!(i64::from(plane.row(y)[x]), p, "{at}");
                    let d_got = got.difference.plane(i)[y * plane.width() + x];
                    assert_eq!(i64::from(d_got), d.clamp(-1023, 1023), "{at}");
                }
            }
        }
    }

    fn random_field(picture: &Picture, range: i16, seed: u64) -> MotionField {
        let mut rng = noise(seed);
        let mut field = MotionField::new(picture);
        for by in 0..field.rows() / 2 {
            for bx in 0..field.columns() / 2 {
                let mut leaf = || {
                    let mut component = || {
                        let r = 2 * i32::from(range) + 1;
                        (rng() as i32).rem_euclid(r) as i16 - range
                    };
                    let mv = [0, 1].map(|_| Mv {
                        x: component(),
                        y: component(),
                    });
                    let mode = [Mode::Ref0, Mode::Ref1, Mode::Bi][rng() as usize % 3];
                    Leaf::new(mode, mv)
                };
                let first = leaf();
                field.set_block(bx, by, first);
                let split = [leaf(), leaf(), leaf()];
                if (bx + by) % 2 == 1 {
                    field.set_cell(2 * bx + 1, 2 * by, split[0]);
                    field.set_cell(2 * bx, 2 * by + 1, split[1]);
                    field.set_cell(2 * bx + 1, 2 * by + 1, split[2]);
                }
            }
        }
        field
    }

    #[test]
    fn every_phase_matches_the_reference() {
        let refs = [1, 2].map(|seed| random_picture(64, 64, seed));
        for y in 0..8 {
            let mut field = MotionField::new(&refs[0]);
            for b in 0..16 {
                let mv = Mv {
                    x: b as i16 % 8 - 3,
                    y: y - 3,
                };
                let back = Mv {
                    x: -mv.y,
                    y: mv.x + 5,
                };
                let leaf = match b / 8 {
                    0 => Leaf::uni(y as usize % 2, mv),
                    _ => Leaf::bi(mv, back),
                };
                field.set_block(b % 4, b / 4, leaf);
            }
            check_against_reference(&field, [&refs[0], &refs[1]], 1);
        }
    }

    #[test]
    fn random_fields_match_the_reference() {
        for (i, (w, h)) in [(1, 1), (16, 16), (17, 33), (50, 20), (96, 64)]
            .into_iter()
            .enumerate()
        {
            let refs = [1, 2].map(|seed| random_picture(w, h, seed));
            for range in [9, 90, MV_LIMIT] {
                let field = random_field(&refs[0], range, i as u64);
                check_against_reference(&field, [&refs[0], &refs[1]], 1 + i);
            }
        }
    }

    use super::super::field::MV_LIMIT;

    #[test]
    fn extreme_samples_do_not_overflow() {
        // Rows and columns that follow the signs of the half-sample taps give the largest sums.
        let mut p = Picture::new(32, 32).unwrap();
        for plane in p.planes_mut() {
            let w = plane.width();
            for (i, v) in plane.data_mut().iter_mut().enumerate() {
                let positive = |k: usize| matches!(k % 8, 1 | 3 | 4 | 6);
                *v = if positive(i % w) == positive(i / w) {
                    1023
                } else {
                    0
                };
            }
        }
        let mut inverse = p.clone();
        for plane in inverse.planes_mut() {
            plane.data_mut().iter_mut().for_each(|v| *v = 1023 - *v);
        }
        for x in -8..8 {
            let mut field = MotionField::new(&p);
            for b in 0..4 {
                let mv = Mv {
                    x: 4 * x + 2,
                    y: 8 * b as i16 + 2,
                };
                field.set_block(b % 2, b / 2, Leaf::bi(mv, mv));
            }
            check_against_reference(&field, [&p, &inverse], 2);
            check_against_reference(&field, [&inverse, &p], 2);
        }
    }

    #[test]
    fn no_motion_copies_the_first_reference() {
        let refs = [1, 2].map(|seed| random_picture(40, 24, seed));
        let field = MotionField::new(&refs[0]);
        let got = predict(&field, &refs[0], &refs[1], 2).unwrap();
        assert_eq!(got.picture, refs[0]);
        let n = refs[0].tensor_len();
        let (mut p, mut d, mut want) = (vec![1; n], vec![1; n], vec![0; n]);
        got.pack(&mut p, &mut d).unwrap();
        refs[0].pack(&mut want).unwrap();
        assert_eq!(p, want);
        assert!(d.iter().all(|&v| v == 0));
    }

    #[test]
    fn differences_are_packed_like_pictures() {
        let refs = [1, 2].map(|seed| random_picture(40, 24, seed));
        let field = random_field(&refs[0], 50, 3);
        let got = predict(&field, &refs[0], &refs[1], 1).unwrap();
        let n = refs[0].tensor_len();
        let (mut p, mut d) = (vec![0; n], vec![0; n]);
        got.pack(&mut p, &mut d).unwrap();
        let (h8, w8) = refs[0].tensor_size();
        for (y, row) in got.difference.plane(0).chunks(8 * w8).enumerate() {
            for (x, &v) in row.iter().enumerate() {
                assert_eq!(d[((y % 8 * 8 + x % 8) * h8 + y / 8) * w8 + x / 8], v);
            }
        }
        assert!(d.iter().any(|&v| v != 0));
        assert!(got.pack(&mut p, &mut d[1..]).is_err());
    }

    #[test]
    fn sizes_are_checked() {
        let a = Picture::new(32, 32).unwrap();
        let b = Picture::new(32, 48).unwrap();
        let field = MotionField::new(&a);
        let err = predict(&field, &a, &b, 1).unwrap_err();
        assert!(
            err.to_string().contains("the second reference is 32x48"),
            "{err}"
        );
        // One padded size is enough: 31x17 pads to 32x32.
        assert!(predict(&field, &a, &Picture::new(31, 17).unwrap(), 1).is_ok());
    }

    #[test]
    fn scaling_follows_distances() {
        let mv = Mv { x: 10, y: -7 };
        assert_eq!(mv.scaled(1, 2), Mv { x: 20, y: -14 });
        assert_eq!(mv.scaled(2, 1), Mv { x: 5, y: -4 });
        assert_eq!(mv.scaled(1, -1), Mv { x: -10, y: 7 });
        assert_eq!(mv.scaled(-4, 2), Mv { x: -5, y: 4 });
        assert_eq!(mv.scaled(0, 3), mv);
        let far = Mv {
            x: MV_LIMIT,
            y: -MV_LIMIT,
        };
        assert_eq!(far.scaled(1, i16::MAX), far);
        assert_eq!(far.scaled(i16::MIN, 1), Mv::ZERO);
    }
}

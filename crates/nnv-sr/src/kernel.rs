// SPDX-License-Identifier: MPL-2.0
//! The plain kernel: bicubic interpolation by a whole number, pixel centres aligned, pictures
//! mirrored at their edges.
//!
//! Cubic convolution with a = -0.5: R. Keys, "Cubic Convolution Interpolation for Digital Image
//! Processing", IEEE Transactions on Acoustics, Speech, and Signal Processing 29(6), 1981. Phases
//! are those of MATLAB's `imresize`.

use super::border::mirrored;
use super::rows;

/// How far the kernel sees to each side.
const REACH: usize = 2;

/// Weights of the four samples around a position.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Phase {
    /// The first of them, relative to the input sample at hand: -2 or -1.
    first: isize,
    taps: [f32; 4],
}

/// Weights for each of the `scale` output samples that belong to an input sample.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kernel(Vec<Phase>);

fn keys(t: f64) -> f64 {
    let t = t.abs();
    if t < 1.0 {
        (1.5 * t - 2.5) * t * t + 1.0
    } else if t < 2.0 {
        ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
    } else {
        0.0
    }
}

impl Kernel {
    /// `cosited`: the samples are chroma at half resolution that lie on even luma samples, not
    /// between two. Such samples lie a quarter of their distance before the centre of the two luma
    /// samples that they belong to, before scaling and after it, so input positions move by (scale
    /// - 1) / (4 scale).
    pub(super) fn new(scale: usize, cosited: bool) -> Self {
        let s = scale as f64;
        let shift = if cosited { (s - 1.0) / (4.0 * s) } else { 0.0 };
        let phase = |p: usize| {
            let position = (p as f64 + 0.5) / s - 0.5 + shift;
            let first = position.floor() as isize - 1;
            let taps = std::array::from_fn(|k| keys((first + k as isize) as f64 - position) as f32);
            Phase { first, taps }
        };
        Self((0..scale).map(phase).collect())
    }

    fn scale(&self) -> usize {
        self.0.len()
    }
}

/// Scales one component of a plane row by row; each input row is read once where rows come in
/// order.
#[derive(Debug)]
pub(super) struct RowScaler<'a> {
    columns: &'a Kernel,
    rows: &'a Kernel,
    width: usize,
    height: usize,
    /// Input rows, by their number modulo 4.
    loaded: [(Option<usize>, Vec<f32>); 4],
    /// Weighted sum of four input rows, with [`REACH`] mirrored samples on each side.
    sum: Vec<f32>,
    /// The phases of an output row, one after the other.
    parts: Vec<f32>,
    out: Vec<f32>,
}

impl<'a> RowScaler<'a> {
    /// For an input of `width` × `height` samples, of whose output `out_width` columns are wanted.
    pub(super) fn new(
        columns: &'a Kernel,
        rows: &'a Kernel,
        width: usize,
        height: usize,
        out_width: usize,
    ) -> Self {
        Self {
            columns,
            rows,
            width,
            height,
            loaded: std::array::from_fn(|_| (None, vec![0.0; width])),
            sum: vec![0.0; width + 2 * REACH],
            parts: vec![0.0; width * columns.scale()],
            out: vec![0.0; out_width],
        }
    }

    /// Row `y` of the output; `load` reads an input row. The caller may change what is returned.
    pub(super) fn row(&mut self, y: usize, mut load: impl FnMut(usize, &mut [f32])) -> &mut [f32] {
        let scale = self.rows.scale();
        if scale == 1 {
            load(y, &mut self.out);
            return &mut self.out;
        }
        let phase = self.rows.0[y % scale];
        let wanted: [usize; 4] = std::array::from_fn(|k| {
            let row = (y / scale) as isize + phase.first + k as isize;
            mirrored(row, self.height)
        });
        for row in wanted {
            let (number, values) = &mut self.loaded[row % 4];
            if *number != Some(row) {
                load(row, values);
                *number = Some(row);
            }
        }
        let (start, end) = (REACH, REACH + self.width);
        let sources = wanted.map(|row| &*self.loaded[row % 4].1);
        rows::weigh_rows(sources, &phase.taps, &mut self.sum[start..end]);
        for at in (0..start).chain(end..end + REACH) {
            let column = mirrored(at as isize - REACH as isize, self.width);
            self.sum[at] = self.sum[start + column];
        }

        for (phase, part) in self.columns.0.iter().zip(self.parts.chunks_mut(self.width)) {
            let from = (REACH as isize + phase.first) as usize;
            rows::weigh_columns(&self.sum[from..], &phase.taps, part);
        }
        rows::interleave(self.columns.scale(), &self.parts, &mut self.out);
        &mut self.out
    }

    /// The row that [`row`](Self::row) returned last.
    pub(super) fn last(&mut self) -> &mut [f32] {
        &mut self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_the_literature() {
        let twice = Kernel::new(2, false);
        // (-3, 29, 111, -9) / 128 at a quarter of a sample before, and mirrored after.
        let before = [-0.0234375, 0.2265625, 0.8671875, -0.0703125];
        assert_eq!(
            twice.0[0],
            Phase {
                first: -2,
                taps: before
            }
        );
        let mut after = before;
        after.reverse();
        assert_eq!(
            twice.0[1],
            Phase {
                first: -1,
                taps: after
            }
        );
        for scale in 1..=4 {
            for cosited in [false, true] {
                for phase in Kernel::new(scale, cosited).0 {
                    assert!((phase.taps.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                    // What `RowScaler` pads for.
                    assert!([-2, -1].contains(&phase.first), "{phase:?}");
                }
            }
        }
        assert_eq!(Kernel::new(1, true).0[0].taps, [0.0, 1.0, 0.0, 0.0]);
    }

    /// A straight line stays straight, at the right place: sample i of the output lies at (i + 0.5)
    /// / scale - 0.5, or where co-sited chroma belongs.
    #[test]
    fn lines_stay_where_they_are() {
        for scale in 1..=4usize {
            for cosited in [false, true] {
                let kernel = Kernel::new(scale, cosited);
                let (w, h) = (9, 7);
                let mut scaler = RowScaler::new(&kernel, &kernel, w, h, w * scale);
                let s = scale as f32;
                // Luma sample of the input above which an output sample lies, in units of chroma
                // samples: an output chroma sample j lies on output luma sample 2j, which lies at
                // (2j + 0.5) / s - 0.5 of input luma, where input chroma sample i lies at 2i.
                let place = |i: usize| match cosited {
                    false => (i as f32 + 0.5) / s - 0.5,
                    true => ((2.0 * i as f32 + 0.5) / s - 0.5) / 2.0,
                };
                for y in 2 * scale..(h - 2) * scale {
                    let row = scaler.row(y, |y, row| {
                        for (x, v) in row.iter_mut().enumerate() {
                            *v = 3.0 * x as f32 + 50.0 * y as f32;
                        }
                    });
                    for (x, got) in row.iter().enumerate() {
                        // Edges are not straight.
                        if (2 * scale..(w - 2) * scale).contains(&x) {
                            let expected = 3.0 * place(x) + 50.0 * place(y);
                            assert!(
                                (got - expected).abs() < 1e-3,
                                "x{scale} ({x}, {y}): {got} {expected}"
                            );
                        }
                    }
                }
            }
        }
    }

    /// Against the formula in double precision, edges included, rows in any order.
    #[test]
    fn rows_agree_with_the_formula() {
        for (scale, w, h) in [(2, 5, 4), (3, 1, 3), (4, 7, 1), (2, 1, 1), (3, 6, 9)] {
            let value = |x: usize, y: usize| ((x * 7919 + y * 104_729) % 256) as f32;
            let kernel = Kernel::new(scale, false);
            let mut scaler = RowScaler::new(&kernel, &kernel, w, h, w * scale);
            let axis = |i: usize, n: usize| {
                let position = (i as f64 + 0.5) / scale as f64 - 0.5;
                let base = position.floor() as isize;
                (-1..=2).map(move |k: isize| {
                    // Reaching two samples beyond, a side of one is mirrored twice.
                    let (at, n) = (base + k, n as isize);
                    let at = if at < 0 {
                        -1 - at
                    } else if at < n {
                        at
                    } else {
                        2 * n - 1 - at
                    };
                    let at = at.clamp(0, n - 1) as usize;
                    (at, keys((base + k) as f64 - position))
                })
            };
            for y in (0..h * scale).rev().chain(0..h * scale) {
                let row = scaler.row(y, |y, row| {
                    for (x, v) in row.iter_mut().enumerate() {
                        *v = value(x, y);
                    }
                });
                for (x, got) in row.iter().enumerate() {
                    let expected: f64 = axis(y, h)
                        .flat_map(|(sy, wy)| {
                            axis(x, w).map(move |(sx, wx)| wx * wy * f64::from(value(sx, sy)))
                        })
                        .sum();
                    assert!(
                        (f64::from(*got) - expected).abs() < 1e-3,
                        "{got} {expected}"
                    );
                }
            }
        }
    }
}

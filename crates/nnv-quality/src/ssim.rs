// SPDX-License-Identifier: MPL-2.0
//! SSIM as ffmpeg's filter `ssim` (and x264) computes it.
//!
//! Windows of 8×8 samples, all of one weight, on a grid of 4; samples beyond the last multiple of
//! four count nowhere. The first constant is a 64th of Wang's: sums over 64 samples are compared
//! with 64 K1² L² where 64² K1² L² would be due. That is how the filter does it, so it is kept.

use crate::plane::{Sample, Samples, with_samples};
use crate::{PlaneView, QualityError};

/// Side of the blocks that windows are made of: two by two each.
const BLOCK: usize = 4;

/// SSIM of a frame's planes; 1 where nothing differs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ssim {
    /// Luma.
    pub y: f64,
    /// Blue difference.
    pub u: f64,
    /// Red difference.
    pub v: f64,
    /// The planes weighted by their samples. ffmpeg's `All`.
    pub all: f64,
}

impl Ssim {
    /// Of the planes Y, U and V.
    ///
    /// # Errors
    /// [`QualityError::Sizes`], [`QualityError::Depths`].
    pub fn of(a: &[PlaneView<'_>; 3], b: &[PlaneView<'_>; 3]) -> Result<Self, QualityError> {
        let [y, u, v] = [ssim(a[0], b[0])?, ssim(a[1], b[1])?, ssim(a[2], b[2])?];
        let [ny, nu, nv] = a.map(|p| p.len() as f64);
        Ok(Self {
            y,
            u,
            v,
            all: (ny * y + nu * u + nv * v) / (ny + nu + nv),
        })
    }
}

/// Sums over a block: of each plane's samples, of all squares, of products.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    a: i64,
    b: i64,
    squares: i64,
    products: i64,
}

impl Sums {
    fn add(&mut self, a: i32, b: i32) {
        let (a, b) = (i64::from(a), i64::from(b));
        self.a += a;
        self.b += b;
        self.squares += a * a + b * b;
        self.products += a * b;
    }

    fn plus(self, other: Sums) -> Sums {
        Sums {
            a: self.a + other.a,
            b: self.b + other.b,
            squares: self.squares + other.squares,
            products: self.products + other.products,
        }
    }

    /// SSIM of a window of `n` samples.
    fn ssim(self, n: i64, peak: f64) -> f64 {
        let count = n as f64;
        let c1 = (0.01 * 0.01 * peak * peak * count + 0.5).floor();
        // A single sample has no variance, and nothing to compare it by.
        let c2 = (0.03 * 0.03 * peak * peak * count * (count - 1.0) + 0.5)
            .floor()
            .max(1.0);
        let (a, b) = (self.a as f64, self.b as f64);
        let variances = (self.squares * n - self.a * self.a - self.b * self.b) as f64;
        let covariance = (self.products * n - self.a * self.b) as f64;
        (2.0 * a * b + c1) * (2.0 * covariance + c2) / ((a * a + b * b + c1) * (variances + c2))
    }
}

/// SSIM of two planes. A plane with a side below eight samples is one window.
///
/// # Errors
/// [`QualityError::Sizes`], [`QualityError::Depths`].
pub fn ssim(a: PlaneView<'_>, b: PlaneView<'_>) -> Result<f64, QualityError> {
    a.check_like(&b)?;
    let peak = crate::peak(a.bit_depth());
    let (width, height) = (a.width(), a.height());
    Ok(with_samples!(a, b, |x, y| {
        let planes = (Rows(x, a.stride), Rows(y, b.stride));
        if width.min(height) < 2 * BLOCK {
            let mut all = Sums::default();
            for row in 0..height {
                add_row(&planes, row, 0..width, &mut all);
            }
            all.ssim((width * height) as i64, peak)
        } else {
            windows(
                &planes,
                width / BLOCK,
                height / BLOCK,
                peak,
                a.bit_depth() <= Lines::DEPTH,
            )
        }
    }))
}

/// Samples and stride.
struct Rows<'a, T>(&'a [T], usize);

fn add_row<A: Sample, B: Sample>(
    (a, b): &(Rows<'_, A>, Rows<'_, B>),
    row: usize,
    columns: std::ops::Range<usize>,
    sums: &mut Sums,
) {
    let from = |start: usize| start + columns.start..start + columns.end;
    let (a, b) = (&a.0[from(row * a.1)], &b.0[from(row * b.1)]);
    a.iter()
        .zip(b)
        .for_each(|(a, b)| sums.add(a.wide(), b.wide()));
}

/// Sums of blocks' columns, in 32 bits: loops over whole rows, which compilers make vector code of.
struct Lines {
    a: Vec<i32>,
    b: Vec<i32>,
    squares: Vec<i32>,
    products: Vec<i32>,
}

impl Lines {
    /// Depths up to this fit.
    const DEPTH: u8 = 12;

    fn new(width: usize) -> Self {
        let line = || vec![0; width];
        Self {
            a: line(),
            b: line(),
            squares: line(),
            products: line(),
        }
    }

    /// A row of blocks.
    fn blocks<A: Sample, B: Sample>(
        &mut self,
        (a, b): &(Rows<'_, A>, Rows<'_, B>),
        row: usize,
    ) -> Vec<Sums> {
        let width = self.a.len();
        let lines = [
            &mut self.a,
            &mut self.b,
            &mut self.squares,
            &mut self.products,
        ];
        let [la, lb, squares, products] = lines.map(|line| {
            line.fill(0);
            &mut line[..width]
        });
        for y in row * BLOCK..(row + 1) * BLOCK {
            let (a, b) = (&a.0[y * a.1..][..width], &b.0[y * b.1..][..width]);
            for x in 0..width {
                let (a, b) = (a[x].wide(), b[x].wide());
                la[x] = la[x].wrapping_add(a);
                lb[x] = lb[x].wrapping_add(b);
                let square = a.wrapping_mul(a).wrapping_add(b.wrapping_mul(b));
                squares[x] = squares[x].wrapping_add(square);
                products[x] = products[x].wrapping_add(a.wrapping_mul(b));
            }
        }
        let sum = |line: &[i32], x: usize| -> i64 {
            let of_block = line[x * BLOCK..][..BLOCK].iter();
            of_block.map(|v| i64::from(*v)).sum()
        };
        (0..width / BLOCK)
            .map(|x| Sums {
                a: sum(la, x),
                b: sum(lb, x),
                squares: sum(squares, x),
                products: sum(products, x),
            })
            .collect()
    }
}

/// Mean over all windows of a plane of so many blocks. `narrow`: samples have few bits.
fn windows<A: Sample, B: Sample>(
    planes: &(Rows<'_, A>, Rows<'_, B>),
    columns: usize,
    rows: usize,
    peak: f64,
    narrow: bool,
) -> f64 {
    let mut lines = Lines::new(columns * BLOCK);
    let mut blocks_of = |row: usize| -> Vec<Sums> {
        if narrow {
            return lines.blocks(planes, row);
        }
        let mut blocks = vec![Sums::default(); columns];
        for y in row * BLOCK..(row + 1) * BLOCK {
            for (x, sums) in blocks.iter_mut().enumerate() {
                add_row(planes, y, x * BLOCK..(x + 1) * BLOCK, sums);
            }
        }
        blocks
    };
    let mut above = blocks_of(0);
    let mut total = 0.0;
    for row in 1..rows {
        let below = blocks_of(row);
        for (top, bottom) in above.windows(2).zip(below.windows(2)) {
            let window = top[0].plus(top[1]).plus(bottom[0]).plus(bottom[1]);
            total += window.ssim((4 * BLOCK * BLOCK) as i64, peak);
        }
        above = below;
    }
    total / ((columns - 1) * (rows - 1)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(value: u8) -> Vec<u8> {
        vec![value; 24 * 16]
    }

    fn view(samples: &[u8]) -> PlaneView<'_> {
        PlaneView::u8(samples, 24, 16, 24).unwrap()
    }

    #[test]
    fn equal_planes_have_one() {
        let a: Vec<u8> = (0..24 * 16).map(|i| (i * 37 % 251) as u8).collect();
        assert_eq!(ssim(view(&a), view(&a)).unwrap(), 1.0);
        for (w, h) in [(1, 1), (7, 3), (3, 16), (9, 8)] {
            let p = PlaneView::u8(&a, w, h, 24).unwrap();
            assert_eq!(ssim(p, p).unwrap(), 1.0, "{w}x{h}");
        }
    }

    #[test]
    fn flat_planes_have_the_term_of_brightness_alone() {
        // Sums over 64 samples: 6400 and 6720. The constant: 0.0001 * 255^2 * 64 = 416.16.
        let want =
            (2.0 * 6400.0 * 6720.0 + 416.0) / (6400.0_f64.powi(2) + 6720.0_f64.powi(2) + 416.0);
        let got = ssim(view(&flat(100)), view(&flat(105))).unwrap();
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }

    #[test]
    fn an_inverted_pattern_has_a_negative_one() {
        let a: Vec<u8> = (0..24 * 16)
            .map(|i| if i % 2 == 0 { 100 } else { 140 })
            .collect();
        let b: Vec<u8> = a.iter().map(|v| 240 - v).collect();
        // Both means are 120, variances 400 (times 64/63), the covariance as much below zero.
        let c2 = (0.0009_f64 * 65025.0 * 64.0 * 63.0 + 0.5).floor();
        let v = 400.0 * 64.0 * 64.0;
        let want = (c2 - 2.0 * v) / (c2 + 2.0 * v);
        let got = ssim(view(&a), view(&b)).unwrap();
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }

    #[test]
    fn four_times_the_value_in_ten_bits_is_nearly_the_same() {
        let a: Vec<u8> = (0..24 * 16).map(|i| (i * 37 % 251) as u8).collect();
        let b: Vec<u8> = a.iter().map(|v| v.saturating_add(9)).collect();
        let wide = |s: &[u8]| -> Vec<u16> { s.iter().map(|&v| u16::from(v) * 4).collect() };
        let (a10, b10) = (wide(&a), wide(&b));
        let ten = ssim(
            PlaneView::u16(&a10, 24, 16, 24, 10).unwrap(),
            PlaneView::u16(&b10, 24, 16, 24, 10).unwrap(),
        )
        .unwrap();
        let eight = ssim(view(&a), view(&b)).unwrap();
        assert!((ten - eight).abs() < 1e-3, "{ten} {eight}");
    }
}

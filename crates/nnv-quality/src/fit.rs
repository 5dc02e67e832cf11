// SPDX-License-Identifier: MPL-2.0
//! Brings planes of another size or depth to those that they are compared with.
//!
//! Sizes: Keys' cubic kernel with a = -0.5 (Catmull-Rom), centres aligned, widened by the factor
//! where it shrinks (antialiased), borders repeated; rounded and clipped. The same for chroma,
//! whose siting is not looked at. Depths: the shallower plane's samples are shifted up, so that
//! 255 of 8 bits becomes 1020 of 10, as GStreamer and ffmpeg bring video from one to the other.

use crate::plane::{Sample, Samples};
use crate::{PlaneView, QualityError};

/// A plane as it is, or a copy of another size or depth.
#[derive(Debug)]
pub enum Fitted<'a> {
    /// It fitted.
    Same(PlaneView<'a>),
    /// It was scaled or shifted.
    Made(OwnedPlane),
}

impl Fitted<'_> {
    /// The plane to compare.
    pub fn view(&self) -> PlaneView<'_> {
        match self {
            Fitted::Same(view) => *view,
            Fitted::Made(plane) => plane.view(),
        }
    }
}

/// A plane with samples of its own, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedPlane {
    samples: Vec<u16>,
    width: usize,
    height: usize,
    bit_depth: u8,
}

impl OwnedPlane {
    /// Of samples row by row.
    ///
    /// # Errors
    /// [`QualityError::Empty`], [`QualityError::Layout`], [`QualityError::Depth`].
    pub fn new(
        samples: Vec<u16>,
        width: usize,
        height: usize,
        bit_depth: u8,
    ) -> Result<Self, QualityError> {
        PlaneView::u16(&samples, width, height, width, bit_depth)?;
        Ok(Self {
            samples,
            width,
            height,
            bit_depth,
        })
    }

    /// The plane, borrowed.
    pub fn view(&self) -> PlaneView<'_> {
        PlaneView::u16(
            &self.samples,
            self.width,
            self.height,
            self.width,
            self.bit_depth,
        )
        .expect("checked when it was made")
    }
}

/// A plane in `size` (width, height) and `bit_depth`, which is not below its own.
///
/// # Errors
/// [`QualityError::Empty`], [`QualityError::Depth`], [`QualityError::Depths`] where the depth
/// would shrink.
pub fn fit(
    plane: PlaneView<'_>,
    size: (usize, usize),
    bit_depth: u8,
) -> Result<Fitted<'_>, QualityError> {
    let (width, height) = (plane.width(), plane.height());
    if bit_depth < plane.bit_depth() {
        return Err(QualityError::Depths {
            a: bit_depth,
            b: plane.bit_depth(),
        });
    }
    if size.0 == 0 || size.1 == 0 {
        return Err(QualityError::Empty {
            width: size.0,
            height: size.1,
        });
    }
    if (width, height) == size && bit_depth == plane.bit_depth() {
        return Ok(Fitted::Same(plane));
    }
    let shift = bit_depth - plane.bit_depth();
    let samples = if (width, height) == size {
        let shifted = plane.to_i32().into_iter();
        // Samples above the depth's greatest value saturate.
        shifted
            .map(|v| (v << shift).min(i32::from(u16::MAX)) as u16)
            .collect()
    } else {
        let rows = Taps::new(width, size.0);
        let columns = Taps::new(height, size.1);
        let wide = match plane.samples {
            Samples::U8(s) => rows.across(s, plane.stride, height),
            Samples::U16(s) => rows.across(s, plane.stride, height),
        };
        let top = crate::peak(bit_depth) as f32;
        let scale = f32::from(1_u16 << shift);
        columns
            .down(&wide, size.0)
            .into_iter()
            .map(|v| (v * scale).round().clamp(0.0, top) as u16)
            .collect()
    };
    Ok(Fitted::Made(OwnedPlane::new(
        samples, size.0, size.1, bit_depth,
    )?))
}

/// Both pictures in the reference's size and the greater of their depths.
///
/// # Errors
/// As [`fit()`].
pub fn fit_pair<'a>(
    reference: &[PlaneView<'a>; 3],
    distorted: &[PlaneView<'a>; 3],
) -> Result<[[Fitted<'a>; 3]; 2], QualityError> {
    let depth = reference[0].bit_depth().max(distorted[0].bit_depth());
    let size = |i: usize| (reference[i].width(), reference[i].height());
    let all = |planes: &[PlaneView<'a>; 3]| -> Result<[Fitted<'a>; 3], QualityError> {
        Ok([
            fit(planes[0], size(0), depth)?,
            fit(planes[1], size(1), depth)?,
            fit(planes[2], size(2), depth)?,
        ])
    };
    Ok([all(reference)?, all(distorted)?])
}

/// For each sample of a line of another length: where its taps begin, and their weights.
struct Taps {
    from: usize,
    starts: Vec<usize>,
    /// `count` for each.
    weights: Vec<f32>,
    count: usize,
}

impl Taps {
    fn new(from: usize, to: usize) -> Self {
        let factor = from as f64 / to as f64;
        let widened = factor.max(1.0);
        let count = ((4.0 * widened).ceil() as usize + 1).min(from);
        let mut taps = Self {
            from,
            starts: Vec::with_capacity(to),
            weights: Vec::with_capacity(to * count),
            count,
        };
        for i in 0..to {
            let centre = (i as f64 + 0.5) * factor - 0.5;
            let first = (centre - 2.0 * widened).ceil() as i64;
            let last = first + (4.0 * widened).floor() as i64;
            let start = first.clamp(0, (from - count) as i64);
            let mut weights = vec![0.0; count];
            for at in first..=last {
                // Beyond the border its sample counts again.
                let place = at.clamp(0, from as i64 - 1) - start;
                let place = place.clamp(0, count as i64 - 1) as usize;
                weights[place] += cubic((at as f64 - centre) / widened);
            }
            let sum: f64 = weights.iter().sum();
            taps.starts.push(start as usize);
            taps.weights
                .extend(weights.iter().map(|w| (w / sum) as f32));
        }
        taps
    }

    fn each(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let weights = self.weights.chunks_exact(self.count);
        self.starts.iter().copied().zip(weights)
    }

    /// Along rows.
    fn across<T: Sample>(&self, samples: &[T], stride: usize, height: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.starts.len() * height);
        let mut line = vec![0.0_f32; self.from];
        for row in samples.chunks(stride).take(height) {
            for (l, v) in line.iter_mut().zip(row) {
                *l = v.wide() as f32;
            }
            out.extend(self.each().map(|(start, weights)| {
                let part = &line[start..start + self.count];
                part.iter().zip(weights).map(|(v, w)| v * w).sum::<f32>()
            }));
        }
        out
    }

    /// Along columns of rows of `width`.
    fn down(&self, samples: &[f32], width: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.starts.len() * width];
        for ((start, weights), line) in self.each().zip(out.chunks_exact_mut(width)) {
            for (k, weight) in weights.iter().enumerate() {
                let row = &samples[(start + k) * width..][..width];
                line.iter_mut().zip(row).for_each(|(o, v)| *o += v * weight);
            }
        }
        out
    }
}

fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0
    } else if x < 2.0 {
        -0.5 * x.powi(3) + 2.5 * x.powi(2) - 4.0 * x + 2.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(fitted: Fitted<'_>) -> Vec<u16> {
        match fitted {
            Fitted::Made(plane) => plane.samples,
            Fitted::Same(_) => panic!("nothing was done"),
        }
    }

    #[test]
    fn what_fits_is_not_copied_and_depths_shift() {
        let s = [7_u8, 255, 0, 1];
        let plane = PlaneView::u8(&s, 2, 2, 2).unwrap();
        assert!(matches!(fit(plane, (2, 2), 8).unwrap(), Fitted::Same(_)));
        assert_eq!(made(fit(plane, (2, 2), 10).unwrap()), [28, 1020, 0, 4]);
        let deep = made(fit(plane, (2, 2), 10).unwrap());
        let deep = PlaneView::u16(&deep, 2, 2, 2, 10).unwrap();
        assert!(matches!(
            fit(deep, (2, 2), 8),
            Err(QualityError::Depths { a: 8, b: 10 })
        ));
        assert!(fit(plane, (0, 2), 8).is_err());
    }

    #[test]
    fn flat_planes_stay_flat_at_any_size() {
        let s = vec![77_u8; 13 * 9];
        let plane = PlaneView::u8(&s, 13, 9, 13).unwrap();
        for size in [(1, 1), (5, 4), (26, 18), (64, 3), (13, 200)] {
            let out = made(fit(plane, size, 8).unwrap());
            assert!(out.iter().all(|&v| v == 77), "{size:?}");
            assert_eq!(out.len(), size.0 * size.1);
        }
        let one = [9_u8];
        let one = PlaneView::u8(&one, 1, 1, 1).unwrap();
        assert_eq!(made(fit(one, (3, 2), 8).unwrap()), [9; 6]);
    }

    #[test]
    fn twice_the_size_has_the_kernels_weights() {
        // Taps of Keys' kernel at a quarter: -9, 111, 29, -3 of 128.
        let s = [0_u8, 0, 0, 128, 0, 0, 0, 0];
        let plane = PlaneView::u8(&s, 8, 1, 8).unwrap();
        let out = made(fit(plane, (16, 1), 8).unwrap());
        assert_eq!(out[6], 111);
        assert_eq!(out[7], 111);
        assert_eq!(out[5], 29);
        assert_eq!(out[8], 29);
        // What would be below zero is clipped.
        assert_eq!(out[4], 0);
    }

    #[test]
    fn a_slope_shrinks_to_a_slope() {
        let s: Vec<u8> = (0..64).map(|v| 2 * v).collect();
        let plane = PlaneView::u8(&s, 64, 1, 64).unwrap();
        let out = made(fit(plane, (16, 1), 8).unwrap());
        for (i, v) in out.iter().enumerate().skip(2).take(12) {
            assert_eq!(usize::from(*v), 8 * i + 3, "{i}");
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Borrowed planes of samples.

use crate::QualityError;

/// One plane of samples, borrowed. Samples above the depth's greatest value are not looked for.
#[derive(Clone, Copy, Debug)]
pub struct PlaneView<'a> {
    pub(crate) samples: Samples<'a>,
    width: usize,
    height: usize,
    pub(crate) stride: usize,
    bit_depth: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Samples<'a> {
    U8(&'a [u8]),
    U16(&'a [u16]),
}

/// A sample of either width.
pub(crate) trait Sample: Copy {
    /// So many of squares of differences fit into 32 bits.
    const SQUARES: usize;

    fn wide(self) -> i32;
}

impl Sample for u8 {
    const SQUARES: usize = 1 << 16;

    #[inline]
    fn wide(self) -> i32 {
        self.into()
    }
}

impl Sample for u16 {
    const SQUARES: usize = 1;

    #[inline]
    fn wide(self) -> i32 {
        self.into()
    }
}

/// Runs `$body` with the samples of both planes as slices, for each pair of types.
macro_rules! with_samples {
    ($a:expr, $b:expr, |$x:ident, $y:ident| $body:expr) => {
        match ($a.samples, $b.samples) {
            (Samples::U8($x), Samples::U8($y)) => $body,
            (Samples::U8($x), Samples::U16($y)) => $body,
            (Samples::U16($x), Samples::U8($y)) => $body,
            (Samples::U16($x), Samples::U16($y)) => $body,
        }
    };
}
pub(crate) use with_samples;

impl<'a> PlaneView<'a> {
    /// A plane of 8-bit samples; `stride` in samples from row to row. The last row may end with
    /// its last sample.
    ///
    /// # Errors
    /// [`QualityError::Empty`], [`QualityError::Layout`].
    pub fn u8(
        samples: &'a [u8],
        width: usize,
        height: usize,
        stride: usize,
    ) -> Result<Self, QualityError> {
        check(samples.len(), width, height, stride)?;
        Ok(Self {
            samples: Samples::U8(samples),
            width,
            height,
            stride,
            bit_depth: 8,
        })
    }

    /// A plane of `bit_depth` bits (8 to 16) in the low bits of 16; `stride` in samples.
    ///
    /// # Errors
    /// [`QualityError::Empty`], [`QualityError::Layout`], [`QualityError::Depth`].
    pub fn u16(
        samples: &'a [u16],
        width: usize,
        height: usize,
        stride: usize,
        bit_depth: u8,
    ) -> Result<Self, QualityError> {
        check(samples.len(), width, height, stride)?;
        if !(8..=16).contains(&bit_depth) {
            return Err(QualityError::Depth(bit_depth));
        }
        Ok(Self {
            samples: Samples::U16(samples),
            width,
            height,
            stride,
            bit_depth,
        })
    }

    /// Width in samples.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in samples.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Bits per sample.
    pub fn bit_depth(&self) -> u8 {
        self.bit_depth
    }

    /// Samples without padding.
    pub fn len(&self) -> usize {
        self.width * self.height
    }

    /// Never: planes have at least one sample.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// That this plane can be compared with `other`.
    pub(crate) fn check_like(&self, other: &PlaneView<'_>) -> Result<(), QualityError> {
        let size = |p: &PlaneView<'_>| (p.width, p.height);
        if size(self) != size(other) {
            return Err(QualityError::Sizes {
                a: size(self),
                b: size(other),
            });
        }
        if self.bit_depth != other.bit_depth {
            return Err(QualityError::Depths {
                a: self.bit_depth,
                b: other.bit_depth,
            });
        }
        Ok(())
    }

    /// All samples without padding, as fractional numbers.
    pub(crate) fn to_f32(self) -> Vec<f32> {
        self.gather(|v| v as f32)
    }

    /// All samples without padding, as whole numbers.
    pub(crate) fn to_i32(self) -> Vec<i32> {
        self.gather(|v| v)
    }

    fn gather<N>(self, number: impl Fn(i32) -> N + Copy) -> Vec<N> {
        fn rows<T: Sample, N>(
            samples: &[T],
            plane: &PlaneView<'_>,
            number: impl Fn(i32) -> N + Copy,
        ) -> Vec<N> {
            let rows = samples.chunks(plane.stride).take(plane.height);
            rows.flat_map(|row| row[..plane.width].iter().map(move |v| number(v.wide())))
                .collect()
        }
        match self.samples {
            Samples::U8(s) => rows(s, &self, number),
            Samples::U16(s) => rows(s, &self, number),
        }
    }
}

fn check(len: usize, width: usize, height: usize, stride: usize) -> Result<(), QualityError> {
    if width == 0 || height == 0 {
        return Err(QualityError::Empty { width, height });
    }
    let needed = stride
        .checked_mul(height - 1)
        .and_then(|n| n.checked_add(width));
    if stride < width || needed.is_none_or(|needed| needed > len) {
        return Err(QualityError::Layout {
            len,
            stride,
            width,
            height,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_that_do_not_fit_are_refused() {
        let s = [0_u8; 20];
        assert!(PlaneView::u8(&s, 4, 3, 8).is_ok());
        assert!(matches!(
            PlaneView::u8(&s, 5, 3, 8),
            Err(QualityError::Layout { len: 20, .. })
        ));
        assert!(matches!(
            PlaneView::u8(&s, 5, 2, 4),
            Err(QualityError::Layout { .. })
        ));
        assert!(matches!(
            PlaneView::u8(&s, 0, 3, 8),
            Err(QualityError::Empty { .. })
        ));
        assert!(PlaneView::u8(&s, 2, usize::MAX, usize::MAX).is_err());
        assert_eq!(
            PlaneView::u16(&[0; 4], 2, 2, 2, 7).unwrap_err(),
            QualityError::Depth(7)
        );
    }
}

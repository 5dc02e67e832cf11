// SPDX-License-Identifier: MPL-2.0
//! Sizes of all tensors that belong to a picture.

use super::picture::{ALIGN, TENSOR_CHANNELS};
use super::tables::LATENT_CHANNELS;

/// Most positions of a grid: 16384 × 16384 luma samples.
const MAX_POSITIONS: usize = 1 << 20;

/// A grid that no picture has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a grid of {w16} × {h16} blocks is empty or too large")]
pub struct GridError {
    h16: usize,
    w16: usize,
}

/// Size of a padded picture in blocks of 16×16 luma samples, and of all tensors that belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    h16: usize,
    w16: usize,
}

impl Grid {
    /// A grid of `h16` rows and `w16` columns.
    ///
    /// # Errors
    /// When empty or above 2^20 positions.
    pub fn new(h16: usize, w16: usize) -> Result<Self, GridError> {
        match h16.checked_mul(w16) {
            Some(1..=MAX_POSITIONS) => Ok(Self { h16, w16 }),
            _ => Err(GridError { h16, w16 }),
        }
    }

    /// The grid that covers a picture of so many luma samples.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_picture(width: usize, height: usize) -> Result<Self, GridError> {
        Self::new(height.div_ceil(ALIGN), width.div_ceil(ALIGN))
    }

    /// Rows at 1/16 resolution.
    pub fn h16(self) -> usize {
        self.h16
    }

    /// Columns at 1/16 resolution.
    pub fn w16(self) -> usize {
        self.w16
    }

    /// Rows of the hyper-latent, at 1/64 resolution.
    pub fn hz(self) -> usize {
        self.h16.div_ceil(4)
    }

    /// Columns of the hyper-latent.
    pub fn wz(self) -> usize {
        self.w16.div_ceil(4)
    }

    /// Elements of a latent `y`, of a residual `r` or of scale indices: `[384, h16, w16]`.
    pub fn y_len(self) -> usize {
        LATENT_CHANNELS * self.h16 * self.w16
    }

    /// Elements of a packed picture: `[96, 2·h16, 2·w16]`.
    pub fn picture_len(self) -> usize {
        TENSOR_CHANNELS * 4 * self.h16 * self.w16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_bounded() {
        assert_eq!(
            Grid::for_picture(1280, 720).unwrap(),
            Grid::new(45, 80).unwrap()
        );
        assert_eq!(Grid::for_picture(1, 17).unwrap(), Grid::new(2, 1).unwrap());
        assert!(Grid::new(0, 3).is_err());
        assert!(Grid::new(1 << 11, 1 << 10).is_err());
        assert!(Grid::new(usize::MAX, 2).is_err());
    }
}

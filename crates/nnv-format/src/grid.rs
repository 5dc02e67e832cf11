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

/// A rectangle of blocks of a grid, which is never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Size.
    pub grid: Grid,
}

impl Part {
    /// All of a grid.
    pub fn whole(grid: Grid) -> Self {
        Self { x: 0, y: 0, grid }
    }

    /// The columns and rows from the first to the last ones, which are in it.
    ///
    /// # Errors
    /// Where the last come before the first.
    pub fn between(first: (usize, usize), last: (usize, usize)) -> Result<Self, GridError> {
        let length = |a: usize, b: usize| (b + 1).saturating_sub(a);
        let grid = Grid::new(length(first.1, last.1), length(first.0, last.0))?;
        Ok(Self {
            x: first.0,
            y: first.1,
            grid,
        })
    }

    /// Last column and row.
    pub fn last(self) -> (usize, usize) {
        (self.x + self.grid.w16 - 1, self.y + self.grid.h16 - 1)
    }

    /// With so many blocks more on each side, as far as `within` has them.
    #[must_use]
    pub fn grown(self, by: usize, within: Grid) -> Self {
        let (x, y) = (self.x.saturating_sub(by), self.y.saturating_sub(by));
        let (last_x, last_y) = self.last();
        let grid = Grid {
            h16: (last_y + by + 1).min(within.h16) - y,
            w16: (last_x + by + 1).min(within.w16) - x,
        };
        Self { x, y, grid }
    }

    /// The smallest one that holds both.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        let (a, b) = (self.last(), other.last());
        let grid = Grid {
            h16: a.1.max(b.1) + 1 - y,
            w16: a.0.max(b.0) + 1 - x,
        };
        Self { x, y, grid }
    }

    /// Number of blocks.
    pub fn area(self) -> usize {
        self.grid.h16 * self.grid.w16
    }

    /// Whether it lies within a grid.
    pub fn is_within(self, grid: Grid) -> bool {
        let (x, y) = self.last();
        x < grid.w16 && y < grid.h16
    }

    /// Cuts a tensor of planes to this part. The planes are of the size of `from` with `scale` ×
    /// `scale` elements for each block.
    ///
    /// # Panics
    /// Where this does not lie within `from`, or the tensor is shorter than its planes.
    pub fn cut<T: Copy>(self, tensor: &[T], from: Self, scale: usize) -> Vec<T> {
        let (row, plane) = (scale * from.grid.w16, scale * scale * from.area());
        let (x, y) = (scale * (self.x - from.x), scale * (self.y - from.y));
        let (width, height) = (scale * self.grid.w16, scale * self.grid.h16);
        let mut out = Vec::with_capacity(tensor.len() / plane * width * height);
        for plane in tensor.chunks_exact(plane) {
            for line in plane.chunks_exact(row).skip(y).take(height) {
                out.extend_from_slice(&line[x..][..width]);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_within_a_grid_and_cut_planes() {
        let grid = Grid::new(5, 7).unwrap();
        let part = Part::between((1, 2), (3, 3)).unwrap();
        assert_eq!((part.area(), part.last()), (6, (3, 3)));
        assert!(Part::between((2, 0), (0, 0)).is_err());
        let grown = part.grown(2, grid);
        assert_eq!((grown.x, grown.y, grown.last()), (0, 0, (5, 4)));
        assert!(grown.is_within(grid) && !grown.is_within(part.grid));
        let far = Part::between((6, 4), (6, 4)).unwrap();
        assert_eq!(part.joined(far).last(), (6, 4));
        let planes: Vec<usize> = (0..2 * 4 * 35).collect();
        let whole = Part::whole(grid);
        let cut = part.cut(&planes, whole, 2);
        assert_eq!(cut.len(), 2 * 4 * 6);
        assert_eq!(cut[..7], [58, 59, 60, 61, 62, 63, 72]);
        // A part of a part is that of the whole.
        assert_eq!(part.cut(&grown.cut(&planes, whole, 2), grown, 2), cut);
    }

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

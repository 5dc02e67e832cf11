// SPDX-License-Identifier: MPL-2.0
//! How a picture is cut where it is too large for memory.

/// Smallest tile along an axis, however little memory there is: below, nearly all work would be in
/// the overlap.
const MIN_SIDE: usize = 32;

/// Tiles of one size that cover a picture. The last ones of a row or column begin earlier instead
/// of being smaller: all runs have one shape, which providers prepare for once, and what is
/// computed twice is the same both times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Size of each, without the border.
    pub width: usize,
    pub height: usize,
    columns: Vec<usize>,
    rows: Vec<usize>,
}

impl Tiles {
    /// The same for a network that folds squares of `fold` samples: places and sides of tiles are
    /// multiples of it, so that the cut decides nothing, and the last ones may reach beyond the
    /// picture. `fold` divides `radius`.
    pub(super) fn folded(
        (width, height): (usize, usize),
        radius: usize,
        fold: usize,
        limit: usize,
    ) -> Self {
        let (columns, rows) = (width.div_ceil(fold), height.div_ceil(fold));
        let squares = Self::new(columns, rows, radius / fold, limit / (fold * fold));
        let unfold = |starts: Vec<usize>| starts.into_iter().map(|at| at * fold).collect();
        Self {
            width: squares.width * fold,
            height: squares.height * fold,
            columns: unfold(squares.columns),
            rows: unfold(squares.rows),
        }
    }

    /// Covers `width` × `height` samples with tiles that have, with a border of `radius`, at most
    /// `limit` samples, and with as little work as possible.
    fn new(width: usize, height: usize, radius: usize, limit: usize) -> Self {
        let border = 2 * radius;
        // For each number of columns, the least number of rows that fits.
        let candidates = (1..=width.div_ceil(MIN_SIDE)).filter_map(|columns| {
            let w = width.div_ceil(columns);
            let h = (limit / (w + border)).saturating_sub(border).min(height);
            if h < MIN_SIDE.min(height) {
                return None;
            }
            let rows = height.div_ceil(h);
            let h = height.div_ceil(rows);
            let tiles = columns * rows;
            // Without a border all cuts are the same work: fewer tiles win then.
            Some(((tiles * (w + border) * (h + border), tiles), (w, h)))
        });
        let least = (width.min(MIN_SIDE), height.min(MIN_SIDE));
        let (w, h) = candidates.min().map_or(least, |(_, size)| size);
        let starts = |length: usize, side: usize| {
            (0..length.div_ceil(side))
                .map(|i| (i * side).min(length - side))
                .collect()
        };
        Self {
            width: w,
            height: h,
            columns: starts(width, w),
            rows: starts(height, h),
        }
    }

    /// The upper left corner of each tile.
    pub(super) fn corners(&self) -> impl Iterator<Item = (usize, usize)> {
        let rows = self.rows.iter();
        rows.flat_map(|&y| self.columns.iter().map(move |&x| (x, y)))
    }

    /// Number of tiles.
    pub(super) fn len(&self) -> usize {
        self.columns.len() * self.rows.len()
    }

    /// Samples of a tile with its border.
    pub(super) fn padded_area(&self, radius: usize) -> usize {
        (self.width + 2 * radius) * (self.height + 2 * radius)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_picture_within_the_limit() {
        for (width, height) in [
            (1, 1),
            (1, 8192),
            (8192, 1),
            (640, 360),
            (333, 777),
            (8192, 8192),
        ] {
            for radius in [0, 9, 128] {
                for limit in [0, 5000, 250_000, usize::MAX] {
                    let tiles = Tiles::new(width, height, radius, limit);
                    assert!(tiles.width <= width && tiles.height <= height);
                    let smallest = tiles.width <= MIN_SIDE && tiles.height <= MIN_SIDE;
                    assert!(tiles.padded_area(radius) <= limit || smallest);
                    assert_eq!(tiles.corners().count(), tiles.len());
                    // Along each axis there is no hole, and the end is reached exactly.
                    for (starts, side, length) in [
                        (&tiles.columns, tiles.width, width),
                        (&tiles.rows, tiles.height, height),
                    ] {
                        assert_eq!(starts[0], 0);
                        assert!(
                            starts
                                .windows(2)
                                .all(|w| w[0] < w[1] && w[1] <= w[0] + side)
                        );
                        assert_eq!(starts.last().unwrap() + side, length);
                    }
                }
            }
        }
    }

    #[test]
    fn folded_tiles_keep_to_the_squares_and_cover_the_picture() {
        for (width, height) in [(1, 1), (5, 8191), (641, 359), (640, 360)] {
            for limit in [0, 5000, 250_000, usize::MAX] {
                let tiles = Tiles::folded((width, height), 20, 2, limit);
                let smallest = tiles.width <= 2 * MIN_SIDE && tiles.height <= 2 * MIN_SIDE;
                assert!(tiles.padded_area(20) <= limit || smallest);
                for (starts, side, length) in [
                    (&tiles.columns, tiles.width, width),
                    (&tiles.rows, tiles.height, height),
                ] {
                    assert!(starts.iter().all(|at| at % 2 == 0) && side % 2 == 0);
                    assert_eq!(starts.last().unwrap() + side, length.next_multiple_of(2));
                }
            }
        }
    }

    #[test]
    fn a_picture_that_fits_is_one_tile() {
        for radius in [0, 9] {
            let tiles = Tiles::new(640, 360, radius, 658 * 378);
            assert_eq!((tiles.width, tiles.height, tiles.len()), (640, 360, 1));
        }
        let tiles = Tiles::new(640, 360, 9, 658 * 378 - 1);
        assert!(tiles.len() > 1);
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Motion fields: one [`Leaf`] per 8×8 luma cell, grouped in blocks of 16×16.

use crate::picture::Picture;

/// Largest component of a vector, in quarter luma samples: just below 2048 samples.
pub const MV_LIMIT: i16 = 8191;
/// Side of a cell in luma samples.
pub const CELL: usize = 8;

/// A vector in quarter luma samples, from the block to its prediction in the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Mv {
    /// To the right.
    pub x: i16,
    /// Downwards.
    pub y: i16,
}

impl Mv {
    /// No motion.
    pub const ZERO: Self = Self { x: 0, y: 0 };

    /// A vector clamped to ±[`MV_LIMIT`].
    #[inline]
    pub fn clamped(x: i32, y: i32) -> Self {
        let limit = i32::from(MV_LIMIT);
        Self {
            x: x.clamp(-limit, limit) as i16,
            y: y.clamp(-limit, limit) as i16,
        }
    }

    /// The vector for temporal distance `to`, given that it spans distance `from`.
    ///
    /// Integer arithmetic, rounding half away from zero; unchanged where a distance is zero.
    pub fn scaled(self, from: i16, to: i16) -> Self {
        if from == to || from == 0 || to == 0 {
            return self;
        }
        let scale = |v: i16| {
            let (n, d) = (i64::from(v) * i64::from(to), i64::from(from));
            let (n, d) = if d < 0 { (-n, -d) } else { (n, d) };
            let magnitude = (2 * n.abs() + d) / (2 * d);
            // At most 8191 * 32768: far inside an i32.
            (magnitude * n.signum()) as i32
        };
        Self::clamped(scale(self.x), scale(self.y))
    }
}

/// Which references a leaf uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Mode {
    /// The first reference alone.
    #[default]
    Ref0,
    /// The second reference alone.
    Ref1,
    /// The average of both.
    Bi,
}

impl Mode {
    /// True where reference `index` (0 or 1) is used.
    #[inline]
    pub fn uses(self, index: usize) -> bool {
        match self {
            Self::Ref0 => index == 0,
            Self::Ref1 => index == 1,
            Self::Bi => true,
        }
    }
}

/// Motion of one cell. The vector of an unused reference is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Leaf {
    mode: Mode,
    mv: [Mv; 2],
}

impl Leaf {
    /// A leaf with both vectors clamped to the legal range and the unused one zero.
    #[inline]
    pub fn new(mode: Mode, mv: [Mv; 2]) -> Self {
        let fix = |i: usize| {
            if mode.uses(i) {
                Mv::clamped(mv[i].x.into(), mv[i].y.into())
            } else {
                Mv::ZERO
            }
        };
        Self {
            mode,
            mv: [fix(0), fix(1)],
        }
    }

    /// A leaf that uses one reference (0 or 1).
    #[inline]
    pub fn uni(index: usize, mv: Mv) -> Self {
        if index == 0 {
            Self::new(Mode::Ref0, [mv, Mv::ZERO])
        } else {
            Self::new(Mode::Ref1, [Mv::ZERO, mv])
        }
    }

    /// A leaf that averages both references.
    #[inline]
    pub fn bi(mv0: Mv, mv1: Mv) -> Self {
        Self::new(Mode::Bi, [mv0, mv1])
    }

    /// References used.
    #[inline]
    pub fn mode(self) -> Mode {
        self.mode
    }

    /// Vector into reference `index` (0 or 1); zero where unused.
    #[inline]
    pub fn mv(self, index: usize) -> Mv {
        self.mv[index]
    }
}

/// Motion of a picture: cells of 8×8 luma samples in a grid of even width and height.
///
/// A block is a group of 2×2 cells at even coordinates. Where its four cells are equal it is one
/// leaf of 16×16, else it is split into four leaves of 8×8: there is no third state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MotionField {
    columns: usize,
    rows: usize,
    cells: Vec<Leaf>,
    distances: [i16; 2],
}

impl MotionField {
    /// A field without motion (reference 0 everywhere) for pictures of `picture`'s size.
    pub fn new(picture: &Picture) -> Self {
        Self::with_padded_size(picture.padded_width(), picture.padded_height())
    }

    /// The same for a padded size in luma samples.
    ///
    /// # Panics
    /// Unless both sides are multiples of 16.
    pub fn with_padded_size(width: usize, height: usize) -> Self {
        assert!(
            width.is_multiple_of(2 * CELL) && height.is_multiple_of(2 * CELL),
            "{width}x{height} is not a padded size"
        );
        let (columns, rows) = (width / CELL, height / CELL);
        Self {
            columns,
            rows,
            cells: vec![Leaf::default(); columns * rows],
            distances: [0; 2],
        }
    }

    /// Columns of cells: padded width / 8.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows of cells: padded height / 8.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Padded size in luma samples.
    pub fn padded_size(&self) -> (usize, usize) {
        (self.columns * CELL, self.rows * CELL)
    }

    /// All cells, row after row.
    pub fn cells(&self) -> &[Leaf] {
        &self.cells
    }

    /// Temporal distances (this picture's time minus the reference's) that the vectors span; zero
    /// where unknown, which turns the scaling of vectors off.
    pub fn distances(&self) -> [i16; 2] {
        self.distances
    }

    /// Sets the temporal distances.
    pub fn set_distances(&mut self, distances: [i16; 2]) {
        self.distances = distances;
    }

    /// The leaf of cell (`x`, `y`).
    #[inline]
    pub fn cell(&self, x: usize, y: usize) -> Leaf {
        self.cells[y * self.columns + x]
    }

    /// Sets the leaf of one cell.
    #[inline]
    pub fn set_cell(&mut self, x: usize, y: usize, leaf: Leaf) {
        self.cells[y * self.columns + x] = leaf;
    }

    /// Sets all four cells of block (`bx`, `by`), in units of 16 luma samples.
    #[inline]
    pub fn set_block(&mut self, bx: usize, by: usize, leaf: Leaf) {
        for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            self.set_cell(2 * bx + dx, 2 * by + dy, leaf);
        }
    }

    /// The four cells of block (`bx`, `by`): top left, top right, bottom left, bottom right.
    #[inline]
    pub fn block(&self, bx: usize, by: usize) -> [Leaf; 4] {
        let i = 2 * by * self.columns + 2 * bx;
        let j = i + self.columns;
        [
            self.cells[i],
            self.cells[i + 1],
            self.cells[j],
            self.cells[j + 1],
        ]
    }

    /// True where any cell averages both references.
    pub fn any_bi(&self) -> bool {
        self.cells.iter().any(|c| c.mode == Mode::Bi)
    }
}

/// True where the cells of a block differ.
#[inline]
pub fn is_split(block: &[Leaf; 4]) -> bool {
    block[1..].iter().any(|&c| c != block[0])
}

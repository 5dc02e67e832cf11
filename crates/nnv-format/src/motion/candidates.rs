// SPDX-License-Identifier: MPL-2.0
//! What neighbours tell about the motion of a leaf (normative): merge candidates and predictors.
//!
//! Blocks are coded row by row, so everything to the left and above is known.

use super::field::{Leaf, Mode, MotionField, Mv};

/// Most merge candidates that a leaf can have.
pub const MAX_CANDIDATES: usize = 6;

/// Candidates that are looked at before the most voted are taken.
const MAX_VOTED: usize = 8;

/// Known motion around a leaf, and what follows from it.
#[derive(Debug, Clone)]
pub struct Neighbourhood {
    list: [Leaf; MAX_CANDIDATES],
    len: usize,
    /// Left, top, top right (else top left), co-located.
    around: [Option<Leaf>; 4],
    distances: [i16; 2],
}

/// Where a leaf lies in the grid of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The whole block whose first cell is (`x`, `y`).
    Block {
        /// Column of the first cell.
        x: usize,
        /// Row of the first cell.
        y: usize,
    },
    /// Cell `index` (0..4, row by row) of the split block whose first cell is (`x`, `y`).
    Cell {
        /// Column of the first cell of the block.
        x: usize,
        /// Row of the first cell of the block.
        y: usize,
        /// Which of the four.
        index: usize,
    },
}

impl Neighbourhood {
    /// Looks around the leaf at `place`. `at` gives the leaf of a cell that is already known; it is
    /// asked only for cells inside the grid of `columns` columns.
    #[inline]
    pub fn new(
        place: Place,
        columns: usize,
        distances: [i16; 2],
        colocated: Option<&MotionField>,
        at: impl Fn(usize, usize) -> Leaf,
    ) -> Self {
        // Steps from the leaf's first cell: left, top, top right, top left, then further cells
        // along the sides of a block.
        let (x, y, centre, steps): (_, _, _, &[(isize, isize)]) = match place {
            Place::Block { x, y } => (
                x,
                y,
                (x + 1, y + 1),
                &[(-1, 1), (1, -1), (2, -1), (-1, -1), (-1, 0), (0, -1)],
            ),
            Place::Cell { x, y, index } => {
                let (x, y) = (x + index % 2, y + index / 2);
                // What lies to the top right of the last cell is not known yet.
                const NOWHERE: (isize, isize) = (isize::MIN, 0);
                let steps: &[_] = if index == 3 {
                    &[(-1, 0), (0, -1), NOWHERE, (-1, -1)]
                } else {
                    &[(-1, 0), (0, -1), (1, -1), (-1, -1)]
                };
                (x, y, (x, y), steps)
            }
        };
        let cell = |(dx, dy): (isize, isize)| {
            let x = x.checked_add_signed(dx).filter(|&x| x < columns)?;
            let y = y.checked_add_signed(dy)?;
            Some(at(x, y))
        };
        let mut seen = [None; 6];
        for (seen, &step) in seen.iter_mut().zip(steps) {
            *seen = cell(step);
        }
        let temporal = colocated.map(|field| {
            let leaf = field.cell(centre.0, centre.1);
            let from = field.distances();
            let mv = |i: usize| leaf.mv(i).scaled(from[i], distances[i]);
            Leaf::new(leaf.mode(), [mv(0), mv(1)])
        });

        let mut this = Self {
            list: [Leaf::default(); MAX_CANDIDATES],
            len: 0,
            around: [seen[0], seen[1], seen[2].or(seen[3]), temporal],
            distances,
        };
        this.vote(seen.into_iter().flatten().chain(temporal));
        this.fill();
        this
    }

    /// Takes the leaves that occur most, in order of their first occurrence where equally often.
    #[inline]
    fn vote(&mut self, leaves: impl Iterator<Item = Leaf>) {
        let mut found = [(Leaf::default(), 0u8); MAX_VOTED];
        let mut n = 0;
        for leaf in leaves {
            match found[..n].iter_mut().find(|f| f.0 == leaf) {
                Some(f) => f.1 += 1,
                None => {
                    found[n] = (leaf, 1);
                    n += 1;
                }
            }
        }
        // Insertion sort: stable, and there are at most seven.
        for i in 1..n {
            let mut j = i;
            while j > 0 && found[j].1 > found[j - 1].1 {
                found.swap(j, j - 1);
                j -= 1;
            }
        }
        for f in &found[..n.min(MAX_CANDIDATES)] {
            self.list[self.len] = f.0;
            self.len += 1;
        }
    }

    #[inline]
    fn push(&mut self, leaf: Leaf) {
        if self.len < MAX_CANDIDATES && !self.candidates().contains(&leaf) {
            self.list[self.len] = leaf;
            self.len += 1;
        }
    }

    /// Fills the list with what can be made of the voted candidates, then without motion.
    #[inline]
    fn fill(&mut self) {
        let voted = self.list;
        let voted = &voted[..self.len];
        let first = |i: usize| voted.iter().find(|l| l.mode().uses(i)).map(|l| l.mv(i));
        if let (Some(a), Some(b)) = (first(0), first(1)) {
            self.push(Leaf::bi(a, b));
        }
        if let Some(leaf) = voted.iter().find(|l| l.mode() != Mode::Bi)
            && self.distances[0] != 0
            && self.distances[1] != 0
        {
            // The same motion seen from both references.
            let i = usize::from(leaf.mode() == Mode::Ref1);
            let mv = |j: usize| leaf.mv(i).scaled(self.distances[i], self.distances[j]);
            self.push(Leaf::bi(mv(0), mv(1)));
        }
        self.push(Leaf::uni(0, Mv::ZERO));
        self.push(Leaf::bi(Mv::ZERO, Mv::ZERO));
        self.push(Leaf::uni(1, Mv::ZERO));
    }

    /// Merge candidates, the likeliest first; at least three, all different.
    #[inline]
    pub fn candidates(&self) -> &[Leaf] {
        &self.list[..self.len]
    }

    /// The likeliest motion.
    #[inline]
    pub fn best(&self) -> Leaf {
        self.list[0]
    }

    /// Leaves to the left and above, where there are any.
    #[inline]
    pub fn sides(&self) -> [Option<Leaf>; 2] {
        [self.around[0], self.around[1]]
    }

    /// Vectors of the neighbours into `reference`: those that use it come first as they are.
    #[inline]
    fn vectors(&self, reference: usize) -> ([Mv; 4], usize) {
        let (mut v, mut n) = ([Mv::ZERO; 4], 0);
        for leaf in self.around.into_iter().flatten() {
            if leaf.mode().uses(reference) {
                v[n] = leaf.mv(reference);
                n += 1;
            }
        }
        if n == 0 {
            let other = 1 - reference;
            for leaf in self.around.into_iter().flatten() {
                v[n] = leaf
                    .mv(other)
                    .scaled(self.distances[other], self.distances[reference]);
                n += 1;
            }
        }
        (v, n)
    }

    /// What a coded vector into `reference` is the difference from: the median of the first three
    /// neighbours that use it, else the first one.
    #[inline]
    pub fn predictor(&self, reference: usize) -> Mv {
        let (v, n) = self.vectors(reference);
        if n < 3 {
            return v[0];
        }
        let median = |a: i16, b: i16, c: i16| a.max(b).min(a.min(b).max(c));
        Mv {
            x: median(v[0].x, v[1].x, v[2].x),
            y: median(v[0].y, v[1].y, v[2].y),
        }
    }

    /// How far the neighbours' vectors into `reference` lie apart: 0 (together), 1, or 2 (wide
    /// apart, or unknown).
    #[inline]
    pub fn spread(&self, reference: usize) -> usize {
        let (v, n) = self.vectors(reference);
        if n < 2 {
            return 2;
        }
        let apart = |a: i16, b: i16| i32::from(a).abs_diff(i32::from(b));
        match apart(v[0].x, v[1].x) + apart(v[0].y, v[1].y) {
            0..=2 => 0,
            3..=12 => 1,
            _ => 2,
        }
    }
}

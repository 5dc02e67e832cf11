// SPDX-License-Identifier: MPL-2.0
//! A picture's turns through the network, and the mean of what it makes of them.

use super::SrError;
use nnv_cpu::parallel;
use nnv_nn::{Cancel, SrNetwork, Upscaled};

/// Geometric self-ensemble: how many of a picture's eight turns and mirror images go through the
/// network, to be turned back and averaged (R. Timofte et al., Seven Ways to Improve Example-Based
/// Single Image Super Resolution, CVPR 2016). It is that many times the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ensemble(usize);

impl Ensemble {
    /// All there are.
    pub const MAX: u32 = TURNS.len() as u32;
    /// The picture as it is.
    pub const ONE: Self = Self(1);

    /// So many of them, from 1 to [`MAX`](Self::MAX); other numbers are brought within.
    pub fn new(turns: u32) -> Self {
        Self(turns.clamp(1, Self::MAX) as usize)
    }

    /// Runs the network on `[n, h, w]` samples, as [`SrNetwork::run`] does.
    pub(super) fn run(
        self,
        network: &SrNetwork,
        x: &[f32],
        [n, h, w]: [usize; 3],
        told: &[f32],
        threads: usize,
        cancel: &Cancel,
    ) -> Result<Enlarged, SrError> {
        if self == Self::ONE {
            return Ok(Enlarged::One(network.run(x, [n, h, w], told, cancel)?));
        }
        let scale = network.facts().scale;
        let (wide, high) = (scale * w, scale * h);
        let mut turned = vec![0.0; x.len()];
        // What is told of whole pictures looks the same from everywhere.
        let planes = told.len() > 2 * n;
        let mut turned_told = told.to_vec();
        let mut mean = vec![0.0; n * wide * high];
        for turn in &TURNS[..self.0] {
            let (turned_w, turned_h) = turn.size(w, h);
            let walk = turn.walk(w, h);
            let around = |from: &[f32], to: &mut [f32]| {
                to.fill(0.0);
                for (to, from) in to.chunks_mut(w * h).zip(from.chunks(w * h)) {
                    walk.add(from, 1.0, to, turned_w, threads);
                }
            };
            around(x, &mut turned);
            if planes {
                around(told, &mut turned_told);
            }
            let y = network.run(&turned, [n, turned_h, turned_w], &turned_told, cancel)?;
            let walk = turn.inverse().walk(scale * turned_w, scale * turned_h);
            for (i, to) in mean.chunks_mut(wide * high).enumerate() {
                walk.add(y.picture(i), 1.0 / self.0 as f32, to, wide, threads);
            }
        }
        Ok(Enlarged::Mean {
            values: mean,
            each: wide * high,
        })
    }
}

/// What came of a batch.
pub(super) enum Enlarged {
    One(Upscaled),
    Mean { values: Vec<f32>, each: usize },
}

impl Enlarged {
    /// As [`Upscaled::picture`].
    pub(super) fn picture(&self, i: usize) -> &[f32] {
        match self {
            Self::One(upscaled) => upscaled.picture(i),
            Self::Mean { values, each } => &values[i * each..(i + 1) * each],
        }
    }
}

/// One of the eight ways to lay a square onto itself: mirrored and flipped first, then transposed.
#[derive(Debug, Clone, Copy)]
struct Turn {
    mirrored: bool,
    flipped: bool,
    transposed: bool,
}

/// Rotations first, opposite ones together: any even number of them favours no direction of an
/// axis.
const TURNS: [Turn; 8] = {
    const fn turn(mirrored: bool, flipped: bool, transposed: bool) -> Turn {
        Turn {
            mirrored,
            flipped,
            transposed,
        }
    }
    [
        turn(false, false, false),
        turn(true, true, false),
        turn(true, false, true),
        turn(false, true, true),
        turn(true, false, false),
        turn(false, true, false),
        turn(false, false, true),
        turn(true, true, true),
    ]
};

impl Turn {
    /// Width and height of a picture that is turned.
    fn size(self, width: usize, height: usize) -> (usize, usize) {
        if self.transposed {
            (height, width)
        } else {
            (width, height)
        }
    }

    fn inverse(self) -> Self {
        if self.transposed {
            Self {
                mirrored: self.flipped,
                flipped: self.mirrored,
                ..self
            }
        } else {
            self
        }
    }

    /// Where the samples of the turned picture lie in the picture.
    fn walk(self, width: usize, height: usize) -> Walk {
        let axis = |backwards, length: usize, step: usize| {
            if backwards {
                ((length - 1) * step, -(step as isize))
            } else {
                (0, step as isize)
            }
        };
        let (left, column) = axis(self.mirrored, width, 1);
        let (top, row) = axis(self.flipped, height, width);
        let (right, down) = if self.transposed {
            (row, column)
        } else {
            (column, row)
        };
        Walk {
            start: left + top,
            right,
            down,
        }
    }
}

/// Places in a plane: of the first sample of another one, and how far it is from there to the next
/// in its row and column.
#[derive(Debug, Clone, Copy)]
struct Walk {
    start: usize,
    right: isize,
    down: isize,
}

impl Walk {
    /// Adds `share` of the samples of `from`, in the order of this walk, to `to`, whose rows have
    /// `width` samples.
    fn add(self, from: &[f32], share: f32, to: &mut [f32], width: usize, threads: usize) {
        let rows = (to.len() / width).div_ceil(threads);
        let bands = to.chunks_mut(rows * width).enumerate().collect();
        parallel::for_each(threads, bands, |(band, part)| {
            for (i, row) in part.chunks_mut(width).enumerate() {
                let first = self.start as isize + (band * rows + i) as isize * self.down;
                for (k, value) in row.iter_mut().enumerate() {
                    *value += share * from[(first + k as isize * self.right) as usize];
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_eight_and_turned_back() {
        let (width, height) = (5, 3);
        let picture: Vec<f32> = (0..width * height).map(|i| i as f32).collect();
        let mut seen = Vec::new();
        for turn in TURNS {
            for threads in [1, 2] {
                let (w, h) = turn.size(width, height);
                let mut turned = vec![0.0; w * h];
                turn.walk(width, height)
                    .add(&picture, 1.0, &mut turned, w, threads);
                let mut again = vec![1.0; w * h];
                let walk = turn.inverse().walk(w, h);
                walk.add(&turned, 0.5, &mut again, width, threads);
                let expected: Vec<_> = picture.iter().map(|v| 1.0 + v / 2.0).collect();
                assert_eq!(again, expected, "{turn:?}");
                if threads == 1 {
                    seen.push((w, turned));
                }
            }
        }
        assert_eq!(seen[0], (width, picture));
        for (i, one) in seen.iter().enumerate() {
            assert!(!seen[..i].contains(one), "{:?}", TURNS[i]);
        }
    }

    #[test]
    fn numbers_of_turns_are_brought_within() {
        assert_eq!(Ensemble::new(0), Ensemble::ONE);
        assert_eq!(Ensemble::new(3), Ensemble(3));
        assert_eq!(Ensemble::new(u32::MAX), Ensemble(8));
    }
}

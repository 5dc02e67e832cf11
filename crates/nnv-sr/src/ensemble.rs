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

    /// Runs the network on `[n, h, w]` samples, as [`SrNetwork::run`] does. `spread`: whether the
    /// turns' standard deviation is wanted beside their mean.
    pub(super) fn run(
        self,
        network: &SrNetwork,
        x: &[f32],
        [n, h, w]: [usize; 3],
        told: &[f32],
        work: &Work<'_>,
        spread: bool,
    ) -> Result<Enlarged, SrError> {
        let &Work { threads, cancel } = work;
        if self == Self::ONE {
            return Ok(Enlarged::One(network.run(x, [n, h, w], told, cancel)?));
        }
        let scale = network.facts().scale;
        let (wide, high) = (scale * w, scale * h);
        let mut turned = vec![0.0; x.len()];
        // What is told of whole pictures looks the same from everywhere.
        let planes = told.len() > 2 * n;
        let mut turned_told = told.to_vec();
        let share = 1.0 / self.0 as f32;
        let mut mean = vec![0.0; n * wide * high];
        // Squares of what is far from zero leave nothing of a small spread: they are those of
        // differences from the first turn, which is the picture as it is.
        let mut first: Option<(Upscaled, Vec<f32>)> = None;
        for turn in &TURNS[..self.0] {
            let (turned_w, turned_h) = turn.size(w, h);
            let walk = turn.walk(w, h);
            let around = |from: &[f32], to: &mut [f32]| {
                to.fill(0.0);
                for (to, from) in to.chunks_mut(w * h).zip(from.chunks(w * h)) {
                    walk.each(to, turned_w, threads, |to, _, at| *to += from[at]);
                }
            };
            around(x, &mut turned);
            if planes {
                around(told, &mut turned_told);
            }
            let y = network.run(&turned, [n, turned_h, turned_w], &turned_told, cancel)?;
            let walk = turn.inverse().walk(scale * turned_w, scale * turned_h);
            for (i, to) in mean.chunks_mut(wide * high).enumerate() {
                let from = y.picture(i);
                walk.each(to, wide, threads, |to, _, at| *to += share * from[at]);
            }
            match &mut first {
                _ if !spread => {}
                None => first = Some((y, vec![0.0; n * wide * high])),
                Some((first, squares)) => {
                    for (i, to) in squares.chunks_mut(wide * high).enumerate() {
                        let (from, first) = (y.picture(i), first.picture(i));
                        walk.each(to, wide, threads, |to, own, at| {
                            *to += share * (from[at] - first[own]).powi(2);
                        });
                    }
                }
            }
        }
        let each = wide * high;
        let spread = first.map(|(first, mut squares)| {
            let pictures = squares.chunks_mut(each).zip(mean.chunks(each)).enumerate();
            for (i, (squares, mean)) in pictures {
                for ((value, mean), first) in squares.iter_mut().zip(mean).zip(first.picture(i)) {
                    *value = (*value - (mean - first).powi(2)).max(0.0).sqrt();
                }
            }
            squares
        });
        Ok(Enlarged::Mean {
            values: mean,
            spread,
            each,
        })
    }
}

/// What runs work with.
pub(super) struct Work<'a> {
    pub threads: usize,
    pub cancel: &'a Cancel,
}

/// What came of a batch.
pub(super) enum Enlarged {
    One(Upscaled),
    Mean {
        values: Vec<f32>,
        spread: Option<Vec<f32>>,
        each: usize,
    },
}

impl Enlarged {
    /// As [`Upscaled::picture`].
    pub(super) fn picture(&self, i: usize) -> &[f32] {
        match self {
            Self::One(upscaled) => upscaled.picture(i),
            Self::Mean { values, each, .. } => &values[i * each..(i + 1) * each],
        }
    }

    /// The turns' standard deviation where it was wanted and there are several, as
    /// [`picture`](Self::picture) lies.
    pub(super) fn spread(&self, i: usize) -> Option<&[f32]> {
        match self {
            Self::Mean {
                spread: Some(spread),
                each,
                ..
            } => Some(&spread[i * each..(i + 1) * each]),
            _ => None,
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
    /// For each sample of `to`, whose rows have `width` samples: that sample, its place, and the
    /// place where this walk is then.
    fn each(
        self,
        to: &mut [f32],
        width: usize,
        threads: usize,
        f: impl Fn(&mut f32, usize, usize) + Sync,
    ) {
        let rows = (to.len() / width).div_ceil(threads);
        let bands = to.chunks_mut(rows * width).enumerate().collect();
        parallel::for_each(threads, bands, |(band, part)| {
            for (i, row) in part.chunks_mut(width).enumerate() {
                let y = band * rows + i;
                let first = self.start as isize + y as isize * self.down;
                for (k, value) in row.iter_mut().enumerate() {
                    let at = (first + k as isize * self.right) as usize;
                    f(value, y * width + k, at);
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
                let walk = turn.walk(width, height);
                walk.each(&mut turned, w, threads, |to, _, at| *to = picture[at]);
                let mut again = vec![1.0; w * h];
                let walk = turn.inverse().walk(w, h);
                walk.each(&mut again, width, threads, |to, own, at| {
                    assert_eq!(picture[own], turned[at]);
                    *to += turned[at] / 2.0;
                });
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

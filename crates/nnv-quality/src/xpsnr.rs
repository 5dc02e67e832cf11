// SPDX-License-Identifier: MPL-2.0
//! XPSNR (Helmrich et al., "XPSNR: a low-complexity extension of the perceptually weighted peak
//! signal-to-noise ratio", 2020), as ffmpeg's filter `xpsnr` computes it.
//!
//! Squared errors of blocks are weighted by one over the activity of the original there: how much a
//! high-pass filter leaves of it, and how much it changes from frame to frame. Before the first
//! frame all samples count as 0, as in the filter.

use crate::{PlaneView, QualityError, SquaredError, peak};

/// Pictures with more luma samples are looked at in steps of two.
const LARGE: usize = 2048 * 1152;
/// Weights of pictures up to this size are levelled with their neighbours'.
const SMALL: usize = 640 * 480;
/// From this frame rate on, change is the change of change.
const FAST: u32 = 32;
/// Weight of change against the high-pass filter.
const GAMMA: u64 = 2;

/// XPSNR of a clip, frame by frame in order of presentation.
#[derive(Clone, Debug)]
pub struct Xpsnr {
    second_order: bool,
    /// The original's luma of the last frame and the one before it.
    before: [Vec<i32>; 2],
    size: (usize, usize),
    frames: u64,
    /// Sums over frames, by plane: of roots of weighted errors, of decibels.
    roots: [f64; 3],
    db: [f64; 3],
    /// Samples and peak, by plane.
    scale: [f64; 3],
}

impl Xpsnr {
    /// For a clip of so many frames per second, rounded down.
    pub fn new(frame_rate: u32) -> Self {
        Self {
            second_order: frame_rate >= FAST,
            before: [Vec::new(), Vec::new()],
            size: (0, 0),
            frames: 0,
            roots: [0.0; 3],
            db: [0.0; 3],
            scale: [0.0; 3],
        }
    }

    /// XPSNR of the next frame's planes Y, U, V in dB; infinite where nothing counts.
    ///
    /// # Errors
    /// [`QualityError::Sizes`], also where the size changes within the clip,
    /// [`QualityError::Depths`].
    pub fn add(
        &mut self,
        original: &[PlaneView<'_>; 3],
        coded: &[PlaneView<'_>; 3],
    ) -> Result<[f64; 3], QualityError> {
        for (a, b) in original.iter().zip(coded) {
            a.check_like(b)?;
        }
        let size = (original[0].width(), original[0].height());
        if self.frames == 0 {
            self.size = size;
            self.before = [vec![0; size.0 * size.1], vec![0; size.0 * size.1]];
        } else if self.size != size {
            return Err(QualityError::Sizes {
                a: self.size,
                b: size,
            });
        }
        let errors = self.weighted(original, coded)?;
        let peak = peak(original[0].bit_depth());
        self.frames += 1;
        let mut db = [0.0; 3];
        for plane in 0..3 {
            let root = errors[plane].sqrt();
            self.scale[plane] = original[plane].len() as f64 * peak * peak;
            self.roots[plane] += root;
            db[plane] = if root >= 1.0 {
                10.0 * (self.scale[plane] / (root * root)).log10()
            } else {
                f64::INFINITY
            };
            self.db[plane] += db[plane];
        }
        Ok(db)
    }

    /// XPSNR of Y, U, V over all frames so far: dB of the squared mean of roots of weighted errors.
    /// `None` without frames.
    pub fn mean(&self) -> Option<[f64; 3]> {
        let n = (self.frames > 0).then_some(self.frames as f64)?;
        Some(std::array::from_fn(|plane| {
            if self.roots[plane] >= n {
                10.0 * (self.scale[plane] / (self.roots[plane] / n).powi(2)).log10()
            } else {
                self.db[plane] / n
            }
        }))
    }

    /// Weighted squared errors of the planes, as whole numbers.
    fn weighted(
        &mut self,
        original: &[PlaneView<'_>; 3],
        coded: &[PlaneView<'_>; 3],
    ) -> Result<[f64; 3], QualityError> {
        let (width, height) = self.size;
        let share = (width * height) as f64 / (3840.0 * 2160.0);
        let block = 4 * (32.0 * share.sqrt() + 0.5) as usize;
        let mut sums = [0.0; 3];
        if block < 4 {
            for plane in 0..3 {
                sums[plane] = SquaredError::of(original[plane], coded[plane])?.sum as f64;
            }
            return Ok(sums);
        }
        let depth = i32::from(original[0].bit_depth());
        let mean_activity = (16.0 * 2.0_f64.powi(2 * depth - 9) / share.max(0.00001).sqrt()).sqrt();
        let weights = self.weights(original[0].to_i32(), block, depth);
        for plane in 0..3 {
            let (w, h) = (original[plane].width(), original[plane].height());
            let (bw, bh) = (block * w / width, block * h / height);
            let (a, b) = (original[plane].to_i32(), coded[plane].to_i32());
            let corners = (0..h)
                .step_by(bh.max(1))
                .flat_map(|y| (0..w).step_by(bw.max(1)).map(move |x| (x, y)));
            for ((x, y), weight) in corners.zip(&weights) {
                let mut error = 0_i64;
                for y in y..(y + bh).min(h) {
                    let columns = y * w + x..y * w + (x + bw).min(w);
                    let pairs = a[columns.clone()].iter().zip(&b[columns]);
                    error += pairs.map(|(a, b)| i64::from(a - b).pow(2)).sum::<i64>();
                }
                sums[plane] += error as f64 * weight;
            }
            sums[plane] = (sums[plane] * mean_activity + 0.5).floor();
        }
        Ok(sums)
    }

    /// Weights of the blocks of luma, row by row. Remembers the frame.
    fn weights(&mut self, luma: Vec<i32>, block: usize, depth: i32) -> Vec<f64> {
        let (width, height) = self.size;
        let columns = width.div_ceil(block);
        let mut weights: Vec<f64> = Vec::with_capacity(columns * height.div_ceil(block));
        for y in (0..height).step_by(block) {
            for x in (0..width).step_by(block) {
                let part = Part {
                    x,
                    y,
                    width: block.min(width - x),
                    height: block.min(height - y),
                };
                let least = f64::from(1 << (depth - 6));
                let activity = self.activity(&luma, part);
                weights.push(activity.map_or(1.0, |a| 1.0 / a.max(least)));
                if width * height <= SMALL {
                    level(&mut weights, columns, x == 0, x > block);
                    let last = x + block >= width && y + block >= height;
                    let i = weights.len() - 1;
                    if last && i > columns {
                        let most = weights[i - 1].max(weights[i - columns]);
                        weights[i] = weights[i].min(most);
                    }
                }
            }
        }
        self.before.swap(0, 1);
        self.before[0] = luma;
        weights
    }

    /// How busy a part of the picture is; `None` where it is too small to tell.
    fn activity(&self, luma: &[i32], part: Part) -> Option<f64> {
        let (width, height) = self.size;
        let large = width * height > LARGE;
        let border = if large { 2 } else { 1 };
        // The filter reaches over a block's edges, but not over the picture's.
        let inset = |from: usize, len: usize, all: usize| {
            let begin = if from > 0 { 0 } else { border };
            let end = if from + len < all {
                len
            } else {
                len.saturating_sub(border)
            };
            (begin, end)
        };
        let (left, right) = inset(part.x, part.width, width);
        let (top, bottom) = inset(part.y, part.height, height);
        if right <= left || bottom <= top {
            return None;
        }
        let step = if large { 2 } else { 1 };
        let mut space = 0_u64;
        // The filter leaves narrow parts of large pictures out.
        if !large || right > 12 {
            for y in (top..bottom).step_by(step) {
                for x in (left..right).step_by(step) {
                    let at = Place {
                        luma,
                        size: self.size,
                        x: (part.x + x) as isize,
                        y: (part.y + y) as isize,
                    };
                    let v = if large {
                        at.high_pass_of_four()
                    } else {
                        at.high_pass()
                    };
                    space += u64::from(v.unsigned_abs());
                }
            }
        }
        let mut time = 0_u64;
        for y in (part.y..part.y + part.height).step_by(step) {
            for x in (part.x..part.x + part.width).step_by(step) {
                let mut change = 0;
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)]
                    .into_iter()
                    .take(step * step)
                {
                    let i = (y + dy).min(height - 1) * width + (x + dx).min(width - 1);
                    change += if self.second_order {
                        luma[i] - 2 * self.before[0][i] + self.before[1][i]
                    } else {
                        luma[i] - self.before[0][i]
                    };
                }
                time += GAMMA * u64::from(change.unsigned_abs());
            }
        }
        let inner = ((right - left) * (bottom - top)) as f64;
        let all = (part.width * part.height) as f64;
        Some(space as f64 / inner + time as f64 / all)
    }
}

/// A block of luma.
#[derive(Clone, Copy)]
struct Part {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

/// Brings the weight of the block before the last one down to the greatest of its neighbours'.
fn level(weights: &mut [f64], columns: usize, first_column: bool, third_column: bool) {
    let Some(i) = weights.len().checked_sub(2) else {
        return;
    };
    let left = i.checked_sub(1).map_or(0.0, |left| weights[left]);
    let mut most = match (first_column, third_column) {
        // The block before is the last one of its row: it has no neighbour at the right.
        (true, _) => left,
        (false, true) => left.max(weights[i + 1]),
        (false, false) => weights[i + 1],
    };
    if i + 1 > columns {
        most = most.max(weights[i - columns]);
    }
    weights[i] = weights[i].min(most);
}

/// A sample and those around it.
struct Place<'a> {
    luma: &'a [i32],
    size: (usize, usize),
    x: isize,
    y: isize,
}

impl Place<'_> {
    fn at(&self, dx: isize, dy: isize) -> i32 {
        let x = (self.x + dx).clamp(0, self.size.0 as isize - 1) as usize;
        let y = (self.y + dy).clamp(0, self.size.1 as isize - 1) as usize;
        self.luma[y * self.size.0 + x]
    }

    /// What stands out of the eight samples around.
    fn high_pass(&self) -> i32 {
        let sides = self.at(-1, 0) + self.at(1, 0) + self.at(0, -1) + self.at(0, 1);
        let corners = self.at(-1, -1) + self.at(1, -1) + self.at(-1, 1) + self.at(1, 1);
        12 * self.at(0, 0) - 2 * sides - corners
    }

    /// The same of a square of two samples, in the 32 around it.
    fn high_pass_of_four(&self) -> i32 {
        // By distance from the square's middle, both ways mirrored.
        const KERNEL: [[i32; 3]; 3] = [[12, -3, -1], [-3, -2, -1], [-1, -1, 0]];
        let mut sum = 0;
        for dy in -2..=3_isize {
            for dx in -2..=3_isize {
                let distance = |d: isize| if d > 0 { d - 1 } else { -d } as usize;
                sum += KERNEL[distance(dy)][distance(dx)] * self.at(dx, dy);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_pictures_have_the_least_activity() {
        let (a, b) = ([0_u8; 64 * 48], [3_u8; 64 * 48]);
        let a = [PlaneView::u8(&a, 64, 48, 64).unwrap(); 3];
        let b = [PlaneView::u8(&b, 64, 48, 64).unwrap(); 3];
        let mut clip = Xpsnr::new(25);
        assert_eq!(clip.mean(), None);
        let db = clip.add(&a, &b).unwrap();
        // No change, no detail: the weight is a quarter everywhere, the mean activity this.
        let share = 64.0 * 48.0 / (3840.0 * 2160.0_f64);
        let mean_activity = (16.0 * 128.0 / share.sqrt()).sqrt();
        let error = (64.0 * 48.0 * 9.0 / 4.0 * mean_activity + 0.5).floor();
        let want = 10.0 * (64.0 * 48.0 * 255.0 * 255.0 / error).log10();
        assert!((db[0] - want).abs() < 1e-9, "{db:?} {want}");
        assert!((clip.mean().unwrap()[0] - want).abs() < 1e-9);
        assert_eq!(clip.add(&a, &a).unwrap(), [f64::INFINITY; 3]);
    }
}

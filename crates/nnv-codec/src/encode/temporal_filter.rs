// SPDX-License-Identifier: MPL-2.0
//! Temporal filter of the encoder: frames that others are predicted from are averaged with what
//! moves along their neighbours before they are coded. Noise goes, and with it the bits it takes in
//! this frame and in those that refer to it.
//!
//! Motion-compensated temporal filtering as in the test model of VVC (JVET-O0549). Here weights
//! follow from what coding loses anyway, and from how much of the difference is noise: what all
//! neighbours lack is, what each lacks in its own way is an error of motion.

use super::motion::{SearchEffort, SearchParams, search};
use super::step::nominal_distortion;
use crate::config::MAX_LOOKAHEAD;
use nnv_cpu::parallel;
use nnv_cpu::simd::with_avx2;
use nnv_format::motion::{MotionError, predict};
use nnv_format::picture::{MAX_SAMPLE, Picture, Plane};

/// Most frames that one is averaged with: key frames and anchors, others.
pub const NEIGHBOURS: [usize; 2] = [4, 2];
/// Frames before and after that may serve.
pub const REACH: u8 = MAX_LOOKAHEAD;

/// Side of the cells that errors are taken by, in luma samples.
const CELL: usize = 8;
/// Weight of a neighbour for each frame of distance beyond the first.
const FAR: f32 = 0.8;
/// Squared difference of a single sample, in units of the error that halves a cell's weight, that
/// costs it most of its weight.
const SINGLE: f32 = 64.0;

/// Another frame, and how many frames lie between.
#[derive(Debug, Clone, Copy)]
pub struct Neighbour<'a> {
    pub picture: &'a Picture,
    pub distance: u32,
}

/// A neighbour as motion brings it to the picture's time, with the weights of its cells of luma.
struct Moved {
    picture: Picture,
    weights: Vec<f32>,
}

/// `picture` averaged with its `neighbours`.
///
/// `strength`: error of the motion, in units of the squared error that coding makes at `quantizer`,
/// that halves the weight of a cell.
///
/// # Errors
/// [`MotionError::Size`] where a neighbour has another size.
pub fn temporal_filter(
    picture: &Picture,
    neighbours: &[Neighbour<'_>],
    quantizer: u8,
    strength: f32,
    threads: usize,
) -> Result<Picture, MotionError> {
    let half = strength * nominal_distortion(quantizer);
    let inner = threads.div_ceil(neighbours.len().max(1));
    let others = parallel::map(threads, neighbours.len(), |i| {
        let Neighbour {
            picture: other,
            distance,
        } = neighbours[i];
        let params = SearchParams {
            threads: inner,
            effort: SearchEffort::Filter,
            ..SearchParams::new(quantizer)
        };
        let field = search(picture, [other; 2], None, &params)?;
        let moved = predict(&field, other, other, inner)?.picture;
        let near = FAR.powi(distance.saturating_sub(1).min(64) as i32);
        let weight = |error| near / (1.0 + error / half);
        Ok(Moved {
            weights: errors(picture.luma(), moved.luma()).map(weight).collect(),
            picture: moved,
        })
    });
    let others = others.into_iter().collect::<Result<Vec<_>, _>>()?;
    let fall: Vec<f32> = (0..=MAX_SAMPLE)
        .map(|v| (-f32::from(v) * f32::from(v) / (SINGLE * half)).exp())
        .collect();
    let mut out = picture.clone();
    let planes = out.planes_mut().iter_mut().enumerate().collect();
    parallel::for_each(threads, planes, |(p, out): (usize, &mut Plane)| {
        let moved: Vec<(&Plane, &[f32])> = others
            .iter()
            .map(|other| (other.picture.plane(p), &other.weights[..]))
            .collect();
        let side = if p == 0 { CELL } else { CELL / 2 };
        filter_plane(picture.plane(p), &moved, side, &fall, out);
    });
    Ok(out)
}

with_avx2! {
    /// One plane, cell by cell, into a copy of itself. `fall`: what a difference of a single sample
    /// leaves of its weight.
    fn filter_plane(
        plane: &Plane,
        moved: &[(&Plane, &[f32])],
        side: usize,
        fall: &[f32],
        out: &mut Plane,
    ) = filter_plane_impl
}

#[inline(always)]
fn filter_plane_impl(
    plane: &Plane,
    moved: &[(&Plane, &[f32])],
    side: usize,
    fall: &[f32],
    out: &mut Plane,
) {
    let columns = plane.width() / side;
    let count = (side * side) as f32;
    for (cy, y0) in (0..plane.height()).step_by(side).enumerate() {
        for (cx, x0) in (0..plane.width()).step_by(side).enumerate() {
            let weights = moved.iter().map(|(_, weights)| weights[cy * columns + cx]);
            // By sample: weighted sum of the differences, the same with the weights of single
            // samples, and the sum of these.
            let mut sums = [(0.0f32, 0.0f32, 1.0f32); CELL * CELL];
            let (mut total, mut squares, mut error, mut least) = (0.0, 0.0, 0.0, f32::MAX);
            for ((other, _), weight) in moved.iter().zip(weights) {
                let mut own_error = 0.0;
                for (y, sums) in (y0..y0 + side).zip(sums.chunks_exact_mut(side)) {
                    let pairs = plane.row(y)[x0..x0 + side]
                        .iter()
                        .zip(&other.row(y)[x0..x0 + side]);
                    for ((&own, &other), sum) in pairs.zip(sums) {
                        let difference = f32::from(other) - f32::from(own);
                        let single = weight * fall[usize::from(own.abs_diff(other))];
                        own_error += difference * difference;
                        sum.0 += weight * difference;
                        sum.1 += single * difference;
                        sum.2 += single;
                    }
                }
                total += weight;
                squares += weight * weight;
                error += weight * own_error / count;
                least = f32::min(least, own_error / count);
            }
            let alike = total * total / squares;
            let mean: f32 = sums.iter().map(|s| s.0 * s.0).sum::<f32>() / (total * total * count);
            let noise = noise_share(error / total, mean, least, alike);
            for (y, sums) in (y0..y0 + side).zip(sums.chunks_exact(side)) {
                for (v, sum) in out.row_mut(y)[x0..x0 + side].iter_mut().zip(sums) {
                    *v = (f32::from(*v) + noise * sum.1 / sum.2).round() as u16;
                }
            }
        }
    }
}

/// How much of what the mean of the neighbours would change is noise of the picture's own, 0 to 1.
///
/// With noise of variance s in each picture and an error of motion of variance m, differences from
/// `alike` neighbours n have the mean square `error` = 2 s + m, their mean has the mean square
/// `mean` = s (1 + 1/n) + m/n. That gives s, which no neighbour can come nearer to the picture than
/// (`least`); the best share of the mean is s / (s + m/n).
fn noise_share(error: f32, mean: f32, least: f32, alike: f32) -> f32 {
    let own = (alike * mean - error) / (alike - 1.0).max(0.1);
    let own = own.clamp(0.0, least);
    let motion = (error - 2.0 * own).max(0.0);
    // A thousandth keeps 0/0 away.
    own / (own + motion / alike + 1e-3)
}

/// Mean squared difference of luma by cell, row after row.
fn errors<'a>(a: &'a Plane, b: &'a Plane) -> impl Iterator<Item = f32> + 'a {
    let cells = (0..a.height()).step_by(CELL).flat_map(move |y| {
        let columns = (0..a.width()).step_by(CELL);
        columns.map(move |x| (x, y))
    });
    cells.map(move |(x, y)| {
        let rows = (y..y + CELL).map(|y| (&a.row(y)[x..x + CELL], &b.row(y)[x..x + CELL]));
        let squares = rows.flat_map(|(a, b)| {
            a.iter()
                .zip(b)
                .map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2))
        });
        squares.sum::<u32>() as f32 / (CELL * CELL) as f32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A textured picture that moves by two samples a frame, with noise of its own in each frame.
    fn frame(t: usize, noise: u32) -> Picture {
        let mut state = 0x2545_F491u32.wrapping_mul(t as u32 + 1) | 1;
        let mut picture = Picture::new(96, 64).unwrap();
        for (p, plane) in picture.planes_mut().iter_mut().enumerate() {
            let step = if p == 0 { 2 } else { 1 };
            for y in 0..plane.height() {
                for (x, v) in plane.row_mut(y).iter_mut().enumerate() {
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    let at = (x + step * t) as f32;
                    let wave = (at * 0.3).sin() * 120.0 + (y as f32 * 0.2 + at * 0.05).cos() * 90.0;
                    let grain = if noise > 0 { state % noise } else { 0 } as f32;
                    *v = (400.0 + wave + grain - noise as f32 / 2.0).round() as u16;
                }
            }
        }
        picture
    }

    fn filtered(pictures: &[Picture], at: usize) -> Picture {
        let neighbours: Vec<_> = pictures
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != at)
            .map(|(i, picture)| Neighbour {
                picture,
                distance: i.abs_diff(at) as u32,
            })
            .collect();
        temporal_filter(&pictures[at], &neighbours, 32, 8.0, 2).unwrap()
    }

    #[test]
    fn noise_goes_and_motion_stays() {
        let noisy: Vec<Picture> = (0..5).map(|t| frame(t, 48)).collect();
        let clean = frame(2, 0);
        let out = filtered(&noisy, 2);
        let error = |p: &Picture| p.sse(&clean)[0] as f64;
        // Five equal weights would leave a fifth.
        assert!(
            error(&out) < 0.5 * error(&noisy[2]),
            "{} {}",
            error(&out),
            error(&noisy[2])
        );
        let clean: Vec<Picture> = (0..5).map(|t| frame(t, 0)).collect();
        assert!(filtered(&clean, 2).sse(&clean[2])[0] < 96 * 64 * 4);
    }

    #[test]
    fn another_scene_is_left_out() {
        let mut other = Picture::new(96, 64).unwrap();
        for plane in other.planes_mut() {
            for y in 0..plane.height() {
                for (x, v) in plane.row_mut(y).iter_mut().enumerate() {
                    *v = if (x / 3 + y / 5) % 2 == 0 { 0 } else { 1023 };
                }
            }
        }
        let own = frame(0, 0);
        let out = filtered(&[own.clone(), other], 0);
        assert!(out.psnr(&own)[0] > 50.0, "{:?}", out.psnr(&own));
    }

    #[test]
    fn noise_is_told_from_errors_of_motion() {
        // Four neighbours; noise of 10, motion of 6.
        let share = noise_share(26.0, 12.5 + 1.5, 20.0, 4.0);
        assert!((share - 10.0 / 11.5).abs() < 1e-3, "{share}");
        assert_eq!(
            noise_share(40.0, 10.0, 30.0, 4.0),
            0.0,
            "errors that have nothing in common"
        );
        assert!(
            noise_share(26.0, 14.0, 1.0, 4.0) < 0.2,
            "one neighbour is all but the same"
        );
    }

    #[test]
    fn a_still_picture_stays_as_it_is() {
        let still = frame(1, 30);
        let pictures = vec![still.clone(); 3];
        assert!(filtered(&pictures, 1).is_equal(&still));
    }

    #[test]
    fn threads_change_nothing() {
        let noisy: Vec<Picture> = (0..3).map(|t| frame(t, 48)).collect();
        let neighbours = [0u32, 2].map(|t| Neighbour {
            picture: &noisy[t as usize],
            distance: 1,
        });
        let run = |threads| temporal_filter(&noisy[1], &neighbours, 28, 8.0, threads).unwrap();
        assert!(run(1).is_equal(&run(4)));
    }
}

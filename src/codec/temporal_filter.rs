// SPDX-License-Identifier: MPL-2.0
//! Temporal filter of the encoder: frames that others are predicted from are averaged with what moves along their neighbours
//! before they are coded. Noise goes, and with it the bits it takes in this frame and in those that refer to it.
//!
//! Motion-compensated temporal filtering as in the test model of VVC (JVET-O0549), with weights that follow from what coding
//! loses anyway.

use super::motion::search::lambda_of_quantizer;
use super::motion::{MotionError, SearchParams, predict, search};
use super::parallel;
use super::picture::{MAX_SAMPLE, Picture, Plane};

/// Most frames that one is averaged with.
pub const NEIGHBOURS: usize = 4;
/// Frames before and after that may serve.
pub const REACH: u8 = 4;

/// Side of the cells that errors are taken by, in luma samples.
const CELL: usize = 8;
/// Weight of a neighbour for each frame of distance beyond the first.
const FAR: f32 = 0.8;
/// Squared difference of a single sample, in units of the error that halves a cell's weight, that costs it most of its weight.
const SINGLE: f32 = 64.0;

/// Another frame, and how many frames lie between.
#[derive(Debug, Clone, Copy)]
pub struct Neighbour<'a> {
    pub picture: &'a Picture,
    pub distance: u32,
}

/// Squared error per 10-bit sample that the codec makes at a quantizer, roughly.
fn distortion(quantizer: u8) -> f32 {
    87.0 * ((f32::from(quantizer) - 32.0) / 10.5).exp2()
}

/// `picture` averaged with its `neighbours`.
///
/// `strength`: error of the motion, in units of the squared error that coding makes at `quantizer`, that halves the weight of
/// a cell.
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
    let half = strength * distortion(quantizer);
    let fall: Vec<f32> = (0..=MAX_SAMPLE)
        .map(|v| (-f32::from(v) * f32::from(v) / (SINGLE * half)).exp())
        .collect();
    let columns = picture.padded_width() / CELL;
    let inner = threads.div_ceil(neighbours.len().max(1));
    let others = parallel::map(threads, neighbours.len(), |i| {
        let Neighbour {
            picture: other,
            distance,
        } = neighbours[i];
        let params = SearchParams {
            lambda: lambda_of_quantizer(quantizer),
            threads: inner,
            ..SearchParams::new(quantizer)
        };
        let field = search(picture, [other; 2], None, &params)?;
        let moved = predict(&field, other, other, inner)?.picture;
        let near = FAR.powi(distance.saturating_sub(1).min(64) as i32);
        let mut weights = errors(picture.luma(), moved.luma());
        weights
            .iter_mut()
            .for_each(|e| *e = near / (1.0 + *e / half));
        Ok((moved, weights))
    });
    let others = others
        .into_iter()
        .collect::<Result<Vec<_>, MotionError>>()?;
    let mut out = picture.clone();
    for (p, plane) in out.planes_mut().iter_mut().enumerate() {
        let cell = if p == 0 { CELL } else { CELL / 2 };
        let (width, height) = (plane.width(), plane.height());
        let (mut sums, mut totals) = (vec![0.0f32; width], vec![0.0f32; width]);
        for y in 0..height {
            let row = plane.row_mut(y);
            for (sum, &v) in sums.iter_mut().zip(&*row) {
                *sum = f32::from(v);
            }
            totals.fill(1.0);
            for (moved, weights) in &others {
                let weights = &weights[y / cell * columns..][..columns];
                let from = moved.plane(p).row(y);
                for (x, (&own, &other)) in row.iter().zip(from).enumerate() {
                    let w = weights[x / cell] * fall[usize::from(own.abs_diff(other))];
                    sums[x] += w * f32::from(other);
                    totals[x] += w;
                }
            }
            for (v, (sum, total)) in row.iter_mut().zip(sums.iter().zip(&totals)) {
                *v = (sum / total).round() as u16;
            }
        }
    }
    Ok(out)
}

/// Mean squared difference by cell, row after row.
fn errors(a: &Plane, b: &Plane) -> Vec<f32> {
    let columns = a.width() / CELL;
    let mut out = vec![0.0; columns * (a.height() / CELL)];
    for (y, sums) in (0..a.height()).zip((0..).map(|y| y / CELL * columns)) {
        let pairs = a.row(y).chunks_exact(CELL).zip(b.row(y).chunks_exact(CELL));
        for (sum, (a, b)) in out[sums..][..columns].iter_mut().zip(pairs) {
            let squares = a
                .iter()
                .zip(b)
                .map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2));
            *sum += squares.sum::<u32>() as f32 / (CELL * CELL) as f32;
        }
    }
    out
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

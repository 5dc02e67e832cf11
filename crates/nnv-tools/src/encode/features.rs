// SPDX-License-Identifier: MPL-2.0
//! What a shot looks like, in a few numbers: what the quantizer is predicted from.

use std::sync::Arc;

use nnv_codec::encode::motion::{SearchEffort, SearchParams, search};
use nnv_format::motion::predict;
use nnv_format::picture::{Picture, Plane};

use super::source::Video;
use crate::failure::Result;

/// Names of a shot's numbers, in their order. Logarithms are natural, samples have 10 bits.
pub const NAMES: [&str; 22] = [
    "pixels",
    "rate",
    "slope",
    "slope-half",
    "slope-quarter",
    "texture",
    "texture-spread",
    "flat",
    "mean",
    "colour",
    "equal",
    "change",
    "residual",
    "residual-half",
    "residual-quarter",
    "residual-low",
    "residual-high",
    "still",
    "vectors",
    "residual-to-slope",
    "change-varies",
    "residual-varies",
];
/// Of one pair of frames: all but size and rate before, and what varies behind.
const OF_PAIR: usize = 18;
const CHANGE: usize = 9;
const RESIDUAL: usize = 10;

/// Pairs are looked at every so many frames.
const STEP: u64 = 8;
const BLOCK: usize = 8;
/// Blocks that vary less count as flat.
const FLAT: f64 = 4.0;
/// The search's price of vectors: the middle of the quantizers.
const QUANTIZER: u8 = 28;

/// Gathers the numbers of a shot, frame by frame.
#[derive(Debug, Default)]
pub struct Gatherer {
    frames: u64,
    last: Option<Arc<Picture>>,
    pairs: Vec<[f64; OF_PAIR]>,
    /// From the first two frames, for shots that have no others.
    first: Option<[f64; OF_PAIR]>,
}

impl Gatherer {
    /// Takes the next frame.
    ///
    /// # Errors
    /// Its size is another one.
    pub fn add(&mut self, picture: &Arc<Picture>) -> Result<()> {
        let n = self.frames;
        self.frames += 1;
        let last = self.last.replace(picture.clone());
        // A frame alone is its own past.
        let last = last.as_ref().unwrap_or(picture);
        if n < 2 {
            self.first = Some(of_pair(picture, last)?);
        } else if n % STEP == STEP / 2 {
            self.pairs.push(of_pair(picture, last)?);
        }
        Ok(())
    }

    /// The numbers, as [`NAMES`] names them.
    pub fn finish(mut self, video: &Video) -> Vec<f32> {
        if self.pairs.is_empty() {
            self.pairs.extend(self.first);
        }
        let n = self.pairs.len().max(1) as f64;
        let mean = |i: usize| self.pairs.iter().map(|p| p[i]).sum::<f64>() / n;
        let varies = |i: usize| {
            let m = mean(i);
            (self.pairs.iter().map(|p| (p[i] - m).powi(2)).sum::<f64>() / n).sqrt()
        };
        let pixels = f64::from(video.width) * f64::from(video.height);
        let mut all = vec![pixels.ln(), video.fps().max(1.0).ln()];
        all.extend((0..OF_PAIR).map(mean));
        all.extend([varies(CHANGE), varies(RESIDUAL)]);
        debug_assert_eq!(all.len(), NAMES.len());
        all.iter().map(|v| *v as f32).collect()
    }
}

/// Mean difference of neighbours, both ways, and the share of neighbours that are equal.
fn slope(plane: &Plane) -> (f64, f64) {
    let (mut sum, mut equal, mut count) = (0_u64, 0_u64, 0_u64);
    let mut above: Option<&[u16]> = None;
    for row in plane.visible_rows() {
        for pair in row.windows(2) {
            sum += u64::from(pair[0].abs_diff(pair[1]));
            equal += u64::from(pair[0] == pair[1]);
        }
        count += row.len() as u64 - 1;
        if let Some(above) = above.replace(row) {
            for (a, b) in above.iter().zip(row) {
                sum += u64::from(a.abs_diff(*b));
            }
        }
    }
    let count = count.max(1) as f64;
    (sum as f64 / 2.0 / count, equal as f64 / count)
}

/// Mean absolute difference of two planes of one size.
fn difference(a: &Plane, b: &Plane) -> f64 {
    a.sad(b) as f64 / (a.visible_width() * a.visible_height()).max(1) as f64
}

/// Deviation of each block from its mean.
fn texture(plane: &Plane) -> Vec<f64> {
    blocks(plane, |x, y, w, h| {
        let rows = (y..y + h).map(|y| &plane.row(y)[x..x + w]);
        let (mut sum, mut squares) = (0_u64, 0_u64);
        for v in rows.flatten() {
            sum += u64::from(*v);
            squares += u64::from(*v) * u64::from(*v);
        }
        let n = (w * h) as f64;
        let mean = sum as f64 / n;
        (squares as f64 / n - mean * mean).max(0.0).sqrt()
    })
}

fn blocks(plane: &Plane, of: impl Fn(usize, usize, usize, usize) -> f64) -> Vec<f64> {
    let (w, h) = (plane.visible_width(), plane.visible_height());
    let mut all = Vec::with_capacity(w.div_ceil(BLOCK) * h.div_ceil(BLOCK));
    for y in (0..h).step_by(BLOCK) {
        for x in (0..w).step_by(BLOCK) {
            all.push(of(x, y, BLOCK.min(w - x), BLOCK.min(h - y)));
        }
    }
    all
}

/// Mean absolute difference of each block.
fn residuals(a: &Plane, b: &Plane) -> Vec<f64> {
    blocks(a, |x, y, w, h| {
        let sum = (y..y + h)
            .map(|y| {
                let (a, b) = (&a.row(y)[x..x + w], &b.row(y)[x..x + w]);
                a.iter()
                    .zip(b)
                    .map(|(a, b)| u32::from(a.abs_diff(*b)))
                    .sum::<u32>()
            })
            .sum::<u32>();
        f64::from(sum) / (w * h) as f64
    })
}

fn log(v: f64) -> f64 {
    (v + 0.25).ln()
}

fn of_pair(now: &Picture, last: &Picture) -> Result<[f64; OF_PAIR]> {
    let params = SearchParams {
        effort: SearchEffort::Least,
        distances: [1; 2],
        ..SearchParams::new(QUANTIZER)
    };
    let field = search(now, [last, last], None, &params)?;
    let predicted = predict(&field, last, last, 1)?.picture;
    let luma = now.luma();
    let (half, predicted_half) = (luma.half(), predicted.luma().half());
    let (quarter, predicted_quarter) = (half.half(), predicted_half.half());
    let (slope_full, equal) = slope(luma);
    let textures = texture(luma);
    let n = textures.len().max(1) as f64;
    let logs: Vec<f64> = textures.iter().map(|v| log(*v)).collect();
    let mean_log = logs.iter().sum::<f64>() / n;
    let spread = (logs.iter().map(|v| (v - mean_log).powi(2)).sum::<f64>() / n).sqrt();
    let mut rest = residuals(luma, predicted.luma());
    rest.sort_by(f64::total_cmp);
    let quantile = |q: f64| rest.get((q * (rest.len() - 1) as f64) as usize).copied();
    let samples = luma
        .visible_rows()
        .flatten()
        .map(|v| f64::from(*v))
        .sum::<f64>();
    let count = (luma.visible_width() * luma.visible_height()).max(1) as f64;
    let residual = difference(luma, predicted.luma());
    let vectors = field.cells().iter().map(|cell| {
        let mv = cell.mv(0);
        f64::from(mv.x).hypot(f64::from(mv.y)) / 4.0
    });
    let vectors = vectors.sum::<f64>() / field.cells().len().max(1) as f64;
    let colour = (slope(now.plane(1)).0 + slope(now.plane(2)).0) / 2.0;
    Ok([
        log(slope_full),
        log(slope(&half).0),
        log(slope(&quarter).0),
        mean_log,
        spread,
        textures.iter().filter(|v| **v < FLAT).count() as f64 / n,
        samples / count / 1023.0,
        log(colour),
        equal,
        log(difference(luma, last.luma())),
        log(residual),
        log(difference(&half, &predicted_half)),
        log(difference(&quarter, &predicted_quarter)),
        log(quantile(0.25).unwrap_or_default()),
        log(quantile(0.9).unwrap_or_default()),
        rest.iter().filter(|v| **v < 1.0).count() as f64 / n,
        log(vectors),
        log(residual) - log(slope_full),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video() -> Video {
        Video {
            width: 64,
            height: 48,
            bit_depth: 8,
            rate: (25, 1),
            pixel_aspect: (1, 1),
            colorimetry: String::new(),
        }
    }

    fn picture(of: impl Fn(usize, usize) -> u16) -> Arc<Picture> {
        let mut picture = Picture::new(64, 48).unwrap();
        for y in 0..48 {
            for x in 0..64 {
                picture.plane_mut(0).row_mut(y)[x] = of(x, y);
            }
        }
        picture.pad();
        Arc::new(picture)
    }

    fn shot(frames: &[Arc<Picture>]) -> Vec<f32> {
        let mut gatherer = Gatherer::default();
        for frame in frames {
            gatherer.add(frame).unwrap();
        }
        gatherer.finish(&video())
    }

    #[test]
    fn numbers_are_finite_and_tell_content_apart() {
        let at = |name: &str| NAMES.iter().position(|n| *n == name).unwrap();
        let black = picture(|_, _| 64);
        let noise = |seed: usize| {
            picture(move |x, y| ((x * 7919 + y * 104_729 + seed * 1_299_709) % 509) as u16)
        };
        let empty = shot(&[]);
        assert_eq!(empty.len(), NAMES.len());
        let still = shot(&[black.clone(), black.clone(), black]);
        let busy = shot(&[noise(1), noise(2), noise(3)]);
        let alone = shot(&[noise(1)]);
        for numbers in [&still, &busy, &alone] {
            assert_eq!(numbers.len(), NAMES.len());
            assert!(numbers.iter().all(|v| v.is_finite()), "{numbers:?}");
        }
        assert!(busy[at("slope")] > still[at("slope")] + 1.0);
        assert!(busy[at("residual")] > still[at("residual")] + 1.0);
        assert!(alone[at("residual")] < busy[at("residual")]);
        assert_eq!(still[at("flat")], 1.0);
    }

    #[test]
    fn motion_is_no_residual() {
        let moved = |n: usize| {
            picture(move |x, y| {
                let x = (x + 2 * n) as f64;
                (500.0 + 300.0 * (x / 5.0).sin() + 100.0 * (y as f64 / 7.0).sin()) as u16
            })
        };
        let numbers = shot(&(0..6).map(moved).collect::<Vec<_>>());
        let at = |name: &str| numbers[NAMES.iter().position(|n| *n == name).unwrap()];
        assert!(at("residual") < at("change") - 0.7, "{numbers:?}");
        assert!(at("vectors") > 0.0, "{numbers:?}");
    }
}

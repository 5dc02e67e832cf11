// SPDX-License-Identifier: MPL-2.0
//! Scene cuts: where a new picture has so little to do with the last one that a key frame serves
//! best.

use crate::config::Tuning;
use nnv_format::picture::Plane;

/// Frames over which the stricter scene-cut threshold near a key frame fades.
const SCENE_CUT_FADE: f32 = 24.0;
/// No scene cut nearer than this to the last key frame.
const SCENE_CUT_DISTANCE: u32 = 2;

/// Detects scene cuts by comparing how well blocks are predicted from the last picture and from
/// their own mean.
#[derive(Debug, Default, Clone)]
pub struct SceneCut {
    last: Option<Plane>,
}

impl SceneCut {
    /// Takes the next picture's luma at a quarter of the size and returns the cost ratio of
    /// prediction from the last picture against prediction from within: near 0 for a still scene,
    /// near or above 1 at a cut. `None` for the first.
    pub fn measure(&mut self, quarter: &Plane) -> Option<f32> {
        let small = quarter.half();
        let ratio = self
            .last
            .as_ref()
            .filter(|l| l.width() == small.width() && l.height() == small.height())
            .map(|last| cost_ratio(&small, last));
        self.last = Some(small);
        ratio
    }

    /// Whether `ratio` means a scene cut at `distance` frames after the last key frame.
    pub fn is_cut(ratio: f32, distance: u32, tuning: &Tuning) -> bool {
        if distance < SCENE_CUT_DISTANCE {
            return false;
        }
        let near = 1.0 - (distance as f32 / SCENE_CUT_FADE).min(1.0);
        ratio > tuning.scene_cut + tuning.scene_cut_near * near
    }

    /// Forgets the last picture.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

/// Blocks of this size in a picture of an eighth: 64 luma samples.
const CUT_BLOCK: usize = 8;
const CUT_RANGE: isize = 4;

fn cost_ratio(now: &Plane, last: &Plane) -> f32 {
    let (w, h) = (now.visible_width().max(1), now.visible_height().max(1));
    let (mut inter, mut intra) = (0u64, 0u64);
    for by in (0..h).step_by(CUT_BLOCK) {
        for bx in (0..w).step_by(CUT_BLOCK) {
            let (bw, bh) = (CUT_BLOCK.min(w - bx), CUT_BLOCK.min(h - by));
            let n = (bw * bh) as u32;
            let sum: u32 = (0..bh)
                .flat_map(|y| &now.row(by + y)[bx..bx + bw])
                .map(|&v| u32::from(v))
                .sum();
            let mean = ((sum + n / 2) / n) as u16;
            // Half a code value per sample: flat blocks must not decide.
            let floor = n;
            let own: u32 = (0..bh)
                .flat_map(|y| &now.row(by + y)[bx..bx + bw])
                .map(|&v| u32::from(v.abs_diff(mean)))
                .sum::<u32>()
                + floor;
            let mut best = u32::MAX;
            for dy in -CUT_RANGE..=CUT_RANGE {
                let Some(y0) = by.checked_add_signed(dy).filter(|y| y + bh <= h) else {
                    continue;
                };
                for dx in -CUT_RANGE..=CUT_RANGE {
                    let Some(x0) = bx.checked_add_signed(dx).filter(|x| x + bw <= w) else {
                        continue;
                    };
                    let mut sad = 0u32;
                    for y in 0..bh {
                        let a = &now.row(by + y)[bx..bx + bw];
                        let b = &last.row(y0 + y)[x0..x0 + bw];
                        sad += a
                            .iter()
                            .zip(b)
                            .map(|(&a, &b)| u32::from(a.abs_diff(b)))
                            .sum::<u32>();
                        if sad >= best {
                            break;
                        }
                    }
                    best = best.min(sad);
                }
            }
            // A block that the last picture predicts worse than its mean counts as not predicted.
            inter += u64::from((best.saturating_add(floor)).min(own + own / 4));
            intra += u64::from(own);
        }
    }
    inter as f32 / intra.max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use nnv_format::picture::Picture;

    fn rng(seed: u64) -> impl FnMut() -> u32 {
        let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        move || {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 32) as u32
        }
    }

    /// A textured picture: smooth noise of `seed`, shifted by `(dx, dy)`.
    fn texture(seed: u64, dx: usize, dy: usize) -> Picture {
        let mut r = rng(seed);
        let n = 64;
        let grid: Vec<f32> = (0..n * n).map(|_| (r() % 1000) as f32).collect();
        let mut p = Picture::new(320, 192).unwrap();
        for y in 0..192usize {
            for x in 0..320usize {
                let (fx, fy) = ((x + dx) as f32 / 16.0, (y + dy) as f32 / 16.0);
                let (ix, iy) = (fx as usize, fy as usize);
                let (ax, ay) = (fx.fract(), fy.fract());
                let g = |x: usize, y: usize| grid[(y % n) * n + x % n];
                let v = (g(ix, iy) * (1.0 - ax) + g(ix + 1, iy) * ax) * (1.0 - ay)
                    + (g(ix, iy + 1) * (1.0 - ax) + g(ix + 1, iy + 1) * ax) * ay;
                p.plane_mut(0).row_mut(y)[x] = v as u16;
            }
        }
        p
    }

    #[test]
    fn scene_cuts_are_told_from_motion() {
        let mut s = SceneCut::default();
        assert_eq!(s.measure(&texture(1, 0, 0).quarter_luma()), None);
        let still = s.measure(&texture(1, 0, 0).quarter_luma()).unwrap();
        assert!(still < 0.1, "{still}");
        let moved = s.measure(&texture(1, 11, 6).quarter_luma()).unwrap();
        assert!(!SceneCut::is_cut(moved, 100, &Tuning::default()), "{moved}");
        let cut = s.measure(&texture(2, 0, 0).quarter_luma()).unwrap();
        assert!(SceneCut::is_cut(cut, 100, &Tuning::default()), "{cut}");
        assert!(
            !SceneCut::is_cut(cut, 0, &Tuning::default()),
            "the first frame is a key frame anyway"
        );
        // A change of size gives no ratio.
        let other = Picture::new(64, 64).unwrap().quarter_luma();
        assert_eq!(s.measure(&other), None);
    }
}

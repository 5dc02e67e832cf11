// SPDX-License-Identifier: MPL-2.0
//! MS-SSIM (Wang, Simoncelli, Bovik 2003).
//!
//! The window is the Gaussian of 11×11 samples with sigma 1.5 of SSIM's paper (Wang et al. 2004),
//! at the places where it lies wholly within the picture; K1 = 0.01, K2 = 0.03. From scale to scale
//! pictures shrink by means of 2×2 samples; an odd last row or column is dropped. The mean of
//! contrast and structure of each scale, and of SSIM as a whole of the last one, are raised to the
//! paper's weights and multiplied.

use crate::{PlaneView, QualityError};

/// Weights of the five scales, the finest first.
pub const SCALE_WEIGHTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

/// Taps of the window.
const TAPS: usize = 11;
const SIGMA: f64 = 1.5;

/// Likeness of two planes; 1 where nothing differs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MsSsim {
    /// Over all scales.
    pub ms_ssim: f64,
    /// SSIM with the Gaussian window at the finest scale alone.
    pub ssim: f64,
    /// Scales in use: five, or as many as the window fits into, their weights normalised to one.
    pub scales: usize,
}

/// MS-SSIM of two planes; `None` where a side is below 11 samples, so that no window fits.
///
/// A negative mean (unrelated pictures) counts as zero: it has no power with a fraction.
///
/// # Errors
/// [`QualityError::Sizes`], [`QualityError::Depths`].
pub fn ms_ssim(a: PlaneView<'_>, b: PlaneView<'_>) -> Result<Option<MsSsim>, QualityError> {
    a.check_like(&b)?;
    let side = a.width().min(a.height());
    let scales = (0..SCALE_WEIGHTS.len())
        .take_while(|&scale| side >> scale >= TAPS)
        .count();
    if scales == 0 {
        return Ok(None);
    }
    let peak = crate::peak(a.bit_depth());
    let all: f64 = SCALE_WEIGHTS[..scales].iter().sum();
    // Sum and difference: four maps to filter in place of five.
    let (mut sum, mut difference) = (a.to_f32(), b.to_f32());
    for (a, b) in sum.iter_mut().zip(&mut difference) {
        (*a, *b) = (*a + *b, *a - *b);
    }
    let (mut width, mut height) = (a.width(), a.height());
    let (mut product, mut finest) = (1.0, 0.0);
    for (scale, weight) in SCALE_WEIGHTS.iter().enumerate().take(scales) {
        let (ssim, structure) = means(&sum, &difference, width, height, peak);
        if scale == 0 {
            finest = ssim;
        }
        let term = if scale + 1 == scales { ssim } else { structure };
        product *= term.max(0.0).powf(weight / all);
        if scale + 1 < scales {
            sum = halve(&sum, width, height);
            difference = halve(&difference, width, height);
            (width, height) = (width / 2, height / 2);
        }
    }
    Ok(Some(MsSsim {
        ms_ssim: product,
        ssim: finest,
        scales,
    }))
}

/// Means over all windows of SSIM, and of its part without brightness.
fn means(sum: &[f32], difference: &[f32], width: usize, height: usize, peak: f64) -> (f64, f64) {
    let squares = |s: &[f32]| -> Vec<f32> { s.iter().map(|v| v * v).collect() };
    let taps = gaussian();
    let mean_a = blur(sum, width, height, &taps);
    let mean_b = blur(difference, width, height, &taps);
    let square_a = blur(&squares(sum), width, height, &taps);
    let square_b = blur(&squares(difference), width, height, &taps);
    let (c1, c2) = ((0.01 * peak).powi(2) as f32, (0.03 * peak).powi(2) as f32);
    let (mut ssim, mut structure) = (0.0_f64, 0.0_f64);
    for i in 0..mean_a.len() {
        let (a2, b2) = (mean_a[i] * mean_a[i], mean_b[i] * mean_b[i]);
        // With a = x + y and b = x - y: 2 E[x] E[y], and E[x]² + E[y]².
        let (product, norm) = ((a2 - b2) * 0.5, (a2 + b2) * 0.5);
        let covariance = (square_a[i] - square_b[i]) * 0.5 - product;
        let variances = (square_a[i] + square_b[i]) * 0.5 - norm;
        let s = (covariance + c2) / (variances + c2);
        structure += f64::from(s);
        ssim += f64::from((product + c1) / (norm + c1) * s);
    }
    let n = mean_a.len() as f64;
    (ssim / n, structure / n)
}

fn gaussian() -> [f32; TAPS] {
    let at = |i: usize| {
        let t = i as f64 - (TAPS / 2) as f64;
        (-t * t / (2.0 * SIGMA * SIGMA)).exp()
    };
    let sum: f64 = (0..TAPS).map(at).sum();
    std::array::from_fn(|i| (at(i) / sum) as f32)
}

/// Both ways, where the window fits: the result is ten samples narrower and lower.
fn blur(plane: &[f32], width: usize, height: usize, taps: &[f32; TAPS]) -> Vec<f32> {
    let (w, h) = (width - TAPS + 1, height - TAPS + 1);
    let mut rows = vec![0.0; w * height];
    for (out, row) in rows.chunks_exact_mut(w).zip(plane.chunks_exact(width)) {
        for (k, tap) in taps.iter().enumerate() {
            for (o, v) in out.iter_mut().zip(&row[k..k + w]) {
                *o += tap * v;
            }
        }
    }
    let mut out = vec![0.0; w * h];
    for (y, out) in out.chunks_exact_mut(w).enumerate() {
        for (k, tap) in taps.iter().enumerate() {
            for (o, v) in out.iter_mut().zip(&rows[(y + k) * w..][..w]) {
                *o += tap * v;
            }
        }
    }
    out
}

/// Means of 2×2 samples.
fn halve(plane: &[f32], width: usize, height: usize) -> Vec<f32> {
    let (w, h) = (width / 2, height / 2);
    let mut out = Vec::with_capacity(w * h);
    for y in 0..h {
        let (a, b) = (&plane[2 * y * width..], &plane[(2 * y + 1) * width..]);
        out.extend((0..w).map(|x| {
            let x = 2 * x;
            (a[x] + b[x] + a[x + 1] + b[x + 1]) * 0.25
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texture(w: usize, h: usize) -> Vec<u8> {
        (0..w * h)
            .map(|i| {
                let (x, y) = ((i % w) as f32, (i / w) as f32);
                (128.0 + 60.0 * (x * 0.3).sin() + 50.0 * (y * 0.17 + x * 0.05).cos()) as u8
            })
            .collect()
    }

    #[test]
    fn equal_planes_have_one_at_any_size() {
        for (w, h, scales) in [(176, 180, 5), (175, 300, 4), (11, 11, 1), (22, 40, 2)] {
            let a = texture(w, h);
            let p = PlaneView::u8(&a, w, h, w).unwrap();
            let m = ms_ssim(p, p).unwrap().unwrap();
            assert_eq!(m.scales, scales);
            assert!(
                (m.ms_ssim - 1.0).abs() < 1e-6 && (m.ssim - 1.0).abs() < 1e-6,
                "{m:?}"
            );
        }
        let a = texture(10, 300);
        let p = PlaneView::u8(&a, 10, 300, 10).unwrap();
        assert_eq!(ms_ssim(p, p).unwrap(), None);
    }

    #[test]
    fn flat_planes_differ_in_brightness_alone() {
        let (a, b) = (vec![100_u8; 192 * 192], vec![120_u8; 192 * 192]);
        let a = PlaneView::u8(&a, 192, 192, 192).unwrap();
        let b = PlaneView::u8(&b, 192, 192, 192).unwrap();
        let c1 = 2.55_f64.powi(2);
        let l = (2.0 * 100.0 * 120.0 + c1) / (100.0_f64.powi(2) + 120.0_f64.powi(2) + c1);
        let m = ms_ssim(a, b).unwrap().unwrap();
        assert!((m.ssim - l).abs() < 1e-4, "{m:?} {l}");
        assert!((m.ms_ssim - l.powf(0.1333)).abs() < 1e-4, "{m:?}");
    }

    #[test]
    fn less_contrast_is_the_term_of_contrast() {
        // y = mean + (x - mean) / 2 where every window has about the same variance.
        let a: Vec<u8> = (0..64 * 64)
            .map(|i| if (i % 64 + i / 64) % 2 == 0 { 96 } else { 160 })
            .collect();
        let b: Vec<u8> = a.iter().map(|&v| v / 2 + 64).collect();
        let a = PlaneView::u8(&a, 64, 64, 64).unwrap();
        let b = PlaneView::u8(&b, 64, 64, 64).unwrap();
        let (v, c2) = (32.0_f64.powi(2), 7.65_f64.powi(2));
        // Means are 128 in both to within what the window leaves of the pattern.
        let want = (2.0 * v / 2.0 + c2) / (v * 1.25 + c2);
        let m = ms_ssim(a, b).unwrap().unwrap();
        assert!((m.ssim - want).abs() < 1e-3, "{m:?} {want}");
    }
}

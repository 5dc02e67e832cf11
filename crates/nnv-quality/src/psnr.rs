// SPDX-License-Identifier: MPL-2.0
//! Squared errors and decibels.

use std::ops::{Add, AddAssign};

use crate::plane::{Sample, Samples, with_samples};
use crate::{PlaneView, QualityError};

/// What a frame without any error counts as in a mean of decibels.
pub const DB_CAP: f64 = 100.0;

/// The greatest sample value of a depth: 255, 1023 …
pub fn peak(bit_depth: u8) -> f64 {
    f64::from((1_u32 << bit_depth.min(31)) - 1)
}

/// PSNR in dB of a mean squared error; infinite where there is none.
pub fn decibels(mean_squared_error: f64, peak: f64) -> f64 {
    if mean_squared_error <= 0.0 {
        f64::INFINITY
    } else {
        10.0 * (peak * peak / mean_squared_error).log10()
    }
}

/// The squared error of some samples. Errors of several planes or frames add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SquaredError {
    /// Sum over all samples.
    pub sum: u64,
    /// Number of samples.
    pub samples: u64,
}

impl SquaredError {
    /// Of two planes.
    ///
    /// # Errors
    /// [`QualityError::Sizes`], [`QualityError::Depths`].
    pub fn of(a: PlaneView<'_>, b: PlaneView<'_>) -> Result<Self, QualityError> {
        a.check_like(&b)?;
        let (w, h) = (a.width(), a.height());
        fn sum<A: Sample, B: Sample>(a: &[A], b: &[B]) -> u64 {
            // In 32 bits as long as it fits: twice as many at once.
            let square = |(a, b): (&A, &B)| {
                let d = a.wide().abs_diff(b.wide());
                d.wrapping_mul(d)
            };
            let at_once = A::SQUARES.min(B::SQUARES);
            if at_once == 1 {
                return a.iter().zip(b).map(|pair| u64::from(square(pair))).sum();
            }
            let parts = a.chunks(at_once).zip(b.chunks(at_once));
            parts
                .map(|(a, b)| u64::from(a.iter().zip(b).map(square).sum::<u32>()))
                .sum()
        }
        let sum = with_samples!(a, b, |x, y| {
            let rows = x.chunks(a.stride).zip(y.chunks(b.stride)).take(h);
            rows.map(|(x, y)| sum(&x[..w], &y[..w])).sum()
        });
        Ok(Self {
            sum,
            samples: a.len() as u64,
        })
    }

    /// Mean per sample; 0 without samples.
    pub fn mean(self) -> f64 {
        self.sum as f64 / self.samples.max(1) as f64
    }

    /// PSNR in dB; infinite without any error.
    pub fn psnr(self, peak: f64) -> f64 {
        decibels(self.mean(), peak)
    }
}

impl AddAssign for SquaredError {
    fn add_assign(&mut self, other: Self) {
        self.sum += other.sum;
        self.samples += other.samples;
    }
}

impl Add for SquaredError {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

/// PSNR of the three planes in dB, and of all together in the three ways that are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Psnr {
    /// Luma.
    pub y: f64,
    /// Blue difference.
    pub u: f64,
    /// Red difference.
    pub v: f64,
    /// The decibels weighted: (6 PSNR_Y + PSNR_U + PSNR_V) / 8. BD-rates go by it.
    pub weighted_db: f64,
    /// The errors weighted: dB of (6 MSE_Y + MSE_U + MSE_V) / 8. The encoder's loss goes by it.
    pub weighted_error: f64,
    /// All samples alike: dB of the mean error over the samples of all planes. ffmpeg's `average`.
    pub pooled: f64,
}

impl Psnr {
    /// Of the errors of Y, U and V.
    pub fn of(errors: [SquaredError; 3], peak: f64) -> Self {
        let [y, u, v] = errors.map(|e| e.psnr(peak));
        let [my, mu, mv] = errors.map(SquaredError::mean);
        Self {
            y,
            u,
            v,
            weighted_db: (6.0 * y + u + v) / 8.0,
            weighted_error: decibels((6.0 * my + mu + mv) / 8.0, peak),
            pooled: (errors[0] + errors[1] + errors[2]).psnr(peak),
        }
    }

    /// All six numbers through `f`.
    pub(crate) fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            y: f(self.y, other.y),
            u: f(self.u, other.u),
            v: f(self.v, other.v),
            weighted_db: f(self.weighted_db, other.weighted_db),
            weighted_error: f(self.weighted_error, other.weighted_error),
            pooled: f(self.pooled, other.pooled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        let (a, b) = (vec![10_u8; 9 * 5], vec![14_u8; 11 * 5]);
        let a = PlaneView::u8(&a, 7, 5, 9).unwrap();
        let b = PlaneView::u8(&b, 7, 5, 11).unwrap();
        let e = SquaredError::of(a, b).unwrap();
        assert_eq!((e.sum, e.samples), (35 * 16, 35));
        assert!((e.psnr(255.0) - 10.0 * (65025.0_f64 / 16.0).log10()).abs() < 1e-12);
        assert_eq!(SquaredError::of(a, a).unwrap().psnr(255.0), f64::INFINITY);

        // The largest error of 16 bits everywhere does not overflow.
        let (lo, hi) = (vec![0_u16; 64], vec![u16::MAX; 64]);
        let lo = PlaneView::u16(&lo, 8, 8, 8, 16).unwrap();
        let hi = PlaneView::u16(&hi, 8, 8, 8, 16).unwrap();
        assert_eq!(SquaredError::of(lo, hi).unwrap().psnr(peak(16)), 0.0);
    }

    #[test]
    fn padding_does_not_count() {
        let mut a = vec![0_u16; 12 * 3];
        a.iter_mut().skip(8).step_by(12).for_each(|v| *v = 1023);
        let a = PlaneView::u16(&a, 8, 3, 12, 10).unwrap();
        let b = [0_u16; 24];
        let b = PlaneView::u16(&b, 8, 3, 8, 10).unwrap();
        assert_eq!(SquaredError::of(a, b).unwrap().sum, 0);
    }

    #[test]
    fn both_weightings_are_what_their_names_say() {
        let error = |mean: u64, samples: u64| SquaredError {
            sum: mean * samples,
            samples,
        };
        let p = Psnr::of([error(8, 400), error(2, 100), error(32, 100)], 255.0);
        let db = |mse: f64| 10.0 * (65025.0 / mse).log10();
        assert!((p.weighted_db - (6.0 * db(8.0) + db(2.0) + db(32.0)) / 8.0).abs() < 1e-12);
        assert!((p.weighted_error - db((48.0 + 34.0) / 8.0)).abs() < 1e-12);
        assert!((p.pooled - db((3200.0 + 3400.0) / 600.0)).abs() < 1e-12);
    }

    #[test]
    fn planes_of_two_kinds_are_refused() {
        let (a, b) = ([0_u8; 16], [0_u16; 16]);
        let a8 = PlaneView::u8(&a, 4, 4, 4).unwrap();
        let b10 = PlaneView::u16(&b, 4, 4, 4, 10).unwrap();
        assert_eq!(
            SquaredError::of(a8, b10),
            Err(QualityError::Depths { a: 8, b: 10 })
        );
        let b8 = PlaneView::u16(&b, 4, 4, 4, 8).unwrap();
        assert_eq!(SquaredError::of(a8, b8).unwrap().sum, 0);
        let small = PlaneView::u8(&a, 4, 3, 4).unwrap();
        assert!(matches!(
            SquaredError::of(a8, small),
            Err(QualityError::Sizes { .. })
        ));
    }
}

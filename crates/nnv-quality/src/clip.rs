// SPDX-License-Identifier: MPL-2.0
//! All measures of a frame, and their means over a clip.

use crate::{DB_CAP, MsSsim, PlaneView, Psnr, QualityError, SquaredError, Ssim, ms_ssim, peak};

/// Quality of one frame of three planes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameQuality {
    /// Squared errors of Y, U and V.
    pub errors: [SquaredError; 3],
    /// Greatest sample value.
    pub peak: f64,
    /// PSNR in dB.
    pub psnr: Psnr,
    /// SSIM as ffmpeg has it.
    pub ssim: Ssim,
    /// MS-SSIM of luma; `None` where a side is below 11 samples.
    pub ms_ssim: Option<MsSsim>,
}

impl FrameQuality {
    /// Compares Y, U and V of a picture with those of another.
    ///
    /// # Errors
    /// [`QualityError::Sizes`], [`QualityError::Depths`].
    pub fn of(a: &[PlaneView<'_>; 3], b: &[PlaneView<'_>; 3]) -> Result<Self, QualityError> {
        let mut errors = [SquaredError::default(); 3];
        for (error, (a, b)) in errors.iter_mut().zip(a.iter().zip(b)) {
            *error = SquaredError::of(*a, *b)?;
        }
        let peak = peak(a[0].bit_depth());
        Ok(Self {
            errors,
            peak,
            psnr: Psnr::of(errors, peak),
            ssim: Ssim::of(a, b)?,
            ms_ssim: ms_ssim(a[0], b[0])?,
        })
    }
}

/// Means over the frames of a clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// Frames.
    pub frames: u64,
    /// Mean of the frames' decibels, frames without any error counting as [`DB_CAP`].
    pub mean_of_db: Psnr,
    /// Decibels of the mean squared error over all frames: one bad frame tells more.
    pub db_of_mean_error: Psnr,
    /// Mean of SSIM.
    pub ssim: Ssim,
    /// Mean of MS-SSIM of luma; `None` where a frame has none.
    pub ms_ssim: Option<f64>,
}

/// Gathers frames. Clips may change their size; each sample counts alike in the mean error.
#[derive(Clone, Debug, Default)]
pub struct ClipQuality {
    frames: u64,
    errors: [SquaredError; 3],
    peak: f64,
    db: Psnr,
    ssim: Ssim,
    ms_ssim: f64,
    without_ms_ssim: u64,
    worst: Option<(u64, f64)>,
}

impl ClipQuality {
    /// Adds the next frame and says whether it is the worst so far by [`Psnr::weighted_error`].
    pub fn add(&mut self, frame: &FrameQuality) -> bool {
        for (sum, error) in self.errors.iter_mut().zip(frame.errors) {
            *sum += error;
        }
        self.peak = self.peak.max(frame.peak);
        self.db = self.db.zip(frame.psnr, |sum, db| sum + db.min(DB_CAP));
        self.ssim = Ssim {
            y: self.ssim.y + frame.ssim.y,
            u: self.ssim.u + frame.ssim.u,
            v: self.ssim.v + frame.ssim.v,
            all: self.ssim.all + frame.ssim.all,
        };
        match frame.ms_ssim {
            Some(m) => self.ms_ssim += m.ms_ssim,
            None => self.without_ms_ssim += 1,
        }
        let db = frame.psnr.weighted_error;
        let worst = self.worst.is_none_or(|(_, worst)| db < worst);
        if worst {
            self.worst = Some((self.frames, db));
        }
        self.frames += 1;
        worst
    }

    /// Number of the worst frame, counted from 0, and its [`Psnr::weighted_error`].
    pub fn worst(&self) -> Option<(u64, f64)> {
        self.worst
    }

    /// The means; `None` without frames.
    pub fn mean(&self) -> Option<Mean> {
        let n = (self.frames > 0).then_some(self.frames as f64)?;
        Some(Mean {
            frames: self.frames,
            mean_of_db: self.db.zip(self.db, |sum, _| sum / n),
            db_of_mean_error: Psnr::of(self.errors, self.peak),
            ssim: Ssim {
                y: self.ssim.y / n,
                u: self.ssim.u / n,
                v: self.ssim.v / n,
                all: self.ssim.all / n,
            },
            ms_ssim: (self.without_ms_ssim == 0).then_some(self.ms_ssim / n),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_of_decibels_and_decibels_of_the_mean_are_two_things() {
        let flat = |v: u8| vec![v; 16 * 16];
        let frame = |value: u8| {
            let (a, b) = (flat(100), flat(value));
            let view = |s| PlaneView::u8(s, 16, 16, 16).unwrap();
            FrameQuality::of(&[view(&a); 3], &[view(&b); 3]).unwrap()
        };
        let mut clip = ClipQuality::default();
        assert_eq!(clip.mean(), None);
        assert!(clip.add(&frame(101)));
        assert!(clip.add(&frame(110)));
        assert!(!clip.add(&frame(100)));
        let db = |mse: f64| 10.0 * (65025.0 / mse).log10();
        let mean = clip.mean().unwrap();
        assert_eq!(mean.frames, 3);
        let want = (db(1.0) + db(100.0) + DB_CAP) / 3.0;
        assert!((mean.mean_of_db.y - want).abs() < 1e-12);
        assert!((mean.db_of_mean_error.y - db(101.0 / 3.0)).abs() < 1e-12);
        assert_eq!(clip.worst().unwrap().0, 1);
        assert!(mean.ms_ssim.is_some());
    }
}

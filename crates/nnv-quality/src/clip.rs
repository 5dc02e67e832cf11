// SPDX-License-Identifier: MPL-2.0
//! All measures of a frame, and their means over a clip.

use crate::{
    Colour, DB_CAP, MsSsim, PlaneView, Psnr, QualityError, SquaredError, Ssim, Vmaf, Xpsnr,
    fit_pair, ms_ssim, peak, ssimulacra2,
};

/// Which measures are taken. PSNR always is: it costs next to nothing. VMAF, which needs a library,
/// comes by [`Meter::with_vmaf`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// SSIM as ffmpeg has it.
    pub ssim: bool,
    /// MS-SSIM of luma.
    pub ms_ssim: bool,
    /// XPSNR.
    pub xpsnr: bool,
    /// SSIMULACRA2, which takes hundreds of times as long as PSNR.
    pub ssimulacra2: bool,
}

impl Metrics {
    /// All of them.
    pub const ALL: Self = Self {
        ssim: true,
        ms_ssim: true,
        xpsnr: true,
        ssimulacra2: true,
    };
}

/// Quality of one frame of three planes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameQuality {
    /// Squared errors of Y, U and V.
    pub errors: [SquaredError; 3],
    /// Greatest sample value.
    pub peak: f64,
    /// PSNR in dB.
    pub psnr: Psnr,
    /// SSIM as ffmpeg has it; `None` where it was not asked for.
    pub ssim: Option<Ssim>,
    /// MS-SSIM of luma; `None` where a side is below 11 samples.
    pub ms_ssim: Option<MsSsim>,
    /// XPSNR of Y, U and V in dB; it takes a [`Meter`], which knows the frames before.
    pub xpsnr: Option<[f64; 3]>,
    /// SSIMULACRA2; `None` where [`ssimulacra2()`](crate::ssimulacra2()) has none.
    pub ssimulacra2: Option<f64>,
    /// VMAF, once [`Meter::complete`] knows it; `None` where the pictures are too small for it.
    pub vmaf: Option<f64>,
}

impl FrameQuality {
    /// Names of [`FrameQuality::values`], in their order.
    pub const NAMES: [&'static str; 16] = [
        "psnr-y",
        "psnr-u",
        "psnr-v",
        "psnr-weighted-db",
        "psnr-weighted-error",
        "psnr-pooled",
        "ssim-y",
        "ssim-u",
        "ssim-v",
        "ssim-all",
        "ms-ssim-y",
        "xpsnr-y",
        "xpsnr-u",
        "xpsnr-v",
        "ssimulacra2",
        "vmaf",
    ];

    /// Compares Y, U and V of a picture with those of another of its size and depth: PSNR, SSIM
    /// and MS-SSIM.
    ///
    /// # Errors
    /// [`QualityError::Sizes`], [`QualityError::Depths`].
    pub fn of(a: &[PlaneView<'_>; 3], b: &[PlaneView<'_>; 3]) -> Result<Self, QualityError> {
        let metrics = Metrics {
            ssim: true,
            ms_ssim: true,
            ..Metrics::default()
        };
        Self::with(a, b, metrics, Colour::default())
    }

    /// All but XPSNR and VMAF, which take the frames before.
    fn with(
        a: &[PlaneView<'_>; 3],
        b: &[PlaneView<'_>; 3],
        metrics: Metrics,
        colour: Colour,
    ) -> Result<Self, QualityError> {
        let mut errors = [SquaredError::default(); 3];
        for (error, (a, b)) in errors.iter_mut().zip(a.iter().zip(b)) {
            *error = SquaredError::of(*a, *b)?;
        }
        let peak = peak(a[0].bit_depth());
        Ok(Self {
            errors,
            peak,
            psnr: Psnr::of(errors, peak),
            ssim: metrics.ssim.then(|| Ssim::of(a, b)).transpose()?,
            ms_ssim: match metrics.ms_ssim {
                true => ms_ssim(a[0], b[0])?,
                false => None,
            },
            xpsnr: None,
            ssimulacra2: match metrics.ssimulacra2 {
                true => ssimulacra2(a, b, colour)?,
                false => None,
            },
            vmaf: None,
        })
    }

    /// What [`FrameQuality::NAMES`] names; decibels without any error are infinite.
    pub fn values(&self) -> [Option<f64>; Self::NAMES.len()] {
        values(
            self.psnr,
            self.ssim,
            self.ms_ssim.map(|m| m.ms_ssim),
            self.xpsnr,
            self.ssimulacra2,
            self.vmaf,
        )
    }
}

fn values(
    p: Psnr,
    ssim: Option<Ssim>,
    ms_ssim: Option<f64>,
    xpsnr: Option<[f64; 3]>,
    ssimulacra2: Option<f64>,
    vmaf: Option<f64>,
) -> [Option<f64>; FrameQuality::NAMES.len()] {
    let of = |f: fn(Ssim) -> f64| ssim.map(f);
    let x = |i: usize| xpsnr.map(|x| x[i]);
    [
        Some(p.y),
        Some(p.u),
        Some(p.v),
        Some(p.weighted_db),
        Some(p.weighted_error),
        Some(p.pooled),
        of(|s| s.y),
        of(|s| s.u),
        of(|s| s.v),
        of(|s| s.all),
        ms_ssim,
        x(0),
        x(1),
        x(2),
        ssimulacra2,
        vmaf,
    ]
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
    /// Mean of SSIM; `None` where a frame has none.
    pub ssim: Option<Ssim>,
    /// Mean of MS-SSIM of luma; `None` where a frame has none.
    pub ms_ssim: Option<f64>,
    /// XPSNR of the clip ([`Xpsnr::mean`]).
    pub xpsnr: Option<[f64; 3]>,
    /// Mean of SSIMULACRA2; `None` where a frame has none.
    pub ssimulacra2: Option<f64>,
    /// Mean of VMAF, of the frames whose score is known ([`Meter::finish`]: all); `None` where a
    /// frame has none.
    pub vmaf: Option<f64>,
}

impl Mean {
    /// What [`FrameQuality::NAMES`] names, PSNR as [`Mean::db_of_mean_error`].
    pub fn values(&self) -> [Option<f64>; FrameQuality::NAMES.len()] {
        values(
            self.db_of_mean_error,
            self.ssim,
            self.ms_ssim,
            self.xpsnr,
            self.ssimulacra2,
            self.vmaf,
        )
    }
}

/// A sum that is one only while every summand is there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    sum: f64,
    missing: bool,
}

impl Sum {
    pub(crate) fn add(&mut self, value: Option<f64>) {
        self.sum += value.unwrap_or_default();
        self.missing |= value.is_none();
    }

    pub(crate) fn mean(&self, n: f64) -> Option<f64> {
        (!self.missing).then_some(self.sum / n)
    }
}

/// Gathers frames. Clips may change their size; each sample counts alike in the mean error.
#[derive(Clone, Debug, Default)]
pub struct ClipQuality {
    frames: u64,
    errors: [SquaredError; 3],
    peak: f64,
    db: Psnr,
    /// Y, U, V, all.
    ssim: [Sum; 4],
    ms_ssim: Sum,
    ssimulacra2: Sum,
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
        let planes = frame.ssim.map(|s| [s.y, s.u, s.v, s.all]);
        for (i, sum) in self.ssim.iter_mut().enumerate() {
            sum.add(planes.map(|planes| planes[i]));
        }
        self.ms_ssim.add(frame.ms_ssim.map(|m| m.ms_ssim));
        self.ssimulacra2.add(frame.ssimulacra2);
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

    /// The means, without those of XPSNR and VMAF; `None` without frames.
    pub fn mean(&self) -> Option<Mean> {
        let n = (self.frames > 0).then_some(self.frames as f64)?;
        let ssim = |i: usize| self.ssim[i].mean(n);
        Some(Mean {
            frames: self.frames,
            mean_of_db: self.db.zip(self.db, |sum, _| sum / n),
            db_of_mean_error: Psnr::of(self.errors, self.peak),
            ssim: (|| {
                Some(Ssim {
                    y: ssim(0)?,
                    u: ssim(1)?,
                    v: ssim(2)?,
                    all: ssim(3)?,
                })
            })(),
            ms_ssim: self.ms_ssim.mean(n),
            xpsnr: None,
            ssimulacra2: self.ssimulacra2.mean(n),
            vmaf: None,
        })
    }
}

/// Measures a video beside its reference, frame by frame in order of presentation.
#[derive(Debug)]
pub struct Meter {
    metrics: Metrics,
    frame_rate: u32,
    colour: Colour,
    clip: ClipQuality,
    xpsnr: Option<Xpsnr>,
    vmaf: Option<Vmaf>,
    /// XPSNR is of one size; where the reference's changes, there is none of the clip.
    one_size: bool,
    size: Option<(usize, usize)>,
}

impl Meter {
    /// For a reference of so many frames per second, rounded down; XPSNR goes by them.
    pub fn new(metrics: Metrics, frame_rate: u32, colour: Colour) -> Self {
        Self {
            metrics,
            frame_rate,
            colour,
            clip: ClipQuality::default(),
            xpsnr: None,
            vmaf: None,
            one_size: true,
            size: None,
        }
    }

    /// Measures VMAF as well, if there is something to measure it by.
    pub fn with_vmaf(self, vmaf: impl Into<Option<Vmaf>>) -> Self {
        Self {
            vmaf: vmaf.into(),
            ..self
        }
    }

    /// The next frame of the reference and what was made of it, planes Y, U and V. Another size or
    /// depth is brought to the reference's first ([`fit_pair`]). VMAF is known later
    /// ([`Meter::complete`]).
    ///
    /// # Errors
    /// [`QualityError`], where planes cannot be brought to one size, or libvmaf refuses them.
    pub fn add(
        &mut self,
        reference: &[PlaneView<'_>; 3],
        distorted: &[PlaneView<'_>; 3],
    ) -> Result<FrameQuality, QualityError> {
        let fitted = fit_pair(reference, distorted)?;
        let [a, b] = fitted
            .each_ref()
            .map(|planes| planes.each_ref().map(|p| p.view()));
        let mut frame = FrameQuality::with(&a, &b, self.metrics, self.colour)?;
        let size = (a[0].width(), a[0].height());
        if self.size.replace(size).is_some_and(|before| before != size) {
            self.xpsnr = None;
            self.one_size = false;
        }
        if self.metrics.xpsnr {
            let xpsnr = &mut self.xpsnr;
            let xpsnr = xpsnr.get_or_insert_with(|| Xpsnr::new(self.frame_rate));
            frame.xpsnr = Some(xpsnr.add(&a, &b)?);
        }
        if let Some(vmaf) = &mut self.vmaf {
            vmaf.add(&a, &b)?;
        }
        self.clip.add(&frame);
        Ok(frame)
    }

    /// Gives a frame its VMAF, where that is measured; `false`: it is not known yet. Frames have to
    /// come in the order in which they were added, each until it is complete.
    pub fn complete(&mut self, frame: &mut FrameQuality) -> bool {
        let Some(vmaf) = &mut self.vmaf else {
            return true;
        };
        let known = vmaf.next();
        frame.vmaf = known.flatten();
        known.is_some()
    }

    /// There is no frame more: VMAF becomes known of all.
    ///
    /// # Errors
    /// [`QualityError::Vmaf`].
    pub fn finish(&mut self) -> Result<(), QualityError> {
        Ok(self.vmaf.as_mut().map_or(Ok(()), Vmaf::finish)?)
    }

    /// What VMAF is measured by.
    pub fn vmaf(&self) -> Option<&Vmaf> {
        self.vmaf.as_ref()
    }

    /// What was gathered.
    pub fn clip(&self) -> &ClipQuality {
        &self.clip
    }

    /// The means; `None` without frames.
    pub fn mean(&self) -> Option<Mean> {
        let xpsnr = self.xpsnr.as_ref().filter(|_| self.one_size);
        Some(Mean {
            xpsnr: xpsnr.and_then(Xpsnr::mean),
            vmaf: self.vmaf.as_ref().and_then(Vmaf::mean),
            ..self.clip.mean()?
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

    #[test]
    fn a_meter_scales_and_gives_what_was_asked_for() {
        let (a, b) = (vec![100_u8; 32 * 32], vec![101_u8; 16 * 16]);
        let a = [PlaneView::u8(&a, 32, 32, 32).unwrap(); 3];
        let b = [PlaneView::u8(&b, 16, 16, 16).unwrap(); 3];
        let mut meter = Meter::new(Metrics::default(), 25, Colour::default());
        let frame = meter.add(&a, &b).unwrap();
        assert_eq!(frame.errors[2].mean(), 1.0);
        let given = frame.values().iter().filter(|v| v.is_some()).count();
        assert_eq!(given, 6);
        let mut meter = Meter::new(Metrics::ALL, 25, Colour::default());
        let frame = meter.add(&a, &b).unwrap();
        // All but VMAF, which needs a library.
        let all = |values: [Option<f64>; 16]| values[..15].iter().all(Option::is_some);
        assert!(all(frame.values()));
        let mean = meter.mean().unwrap();
        assert!(all(mean.values()), "{mean:?}");
        // Another size: XPSNR begins anew, and there is none of the whole.
        let half = [b[0]; 3];
        assert!(meter.add(&half, &half).unwrap().xpsnr.is_some());
        let mean = meter.mean().unwrap();
        assert_eq!((mean.frames, mean.xpsnr), (2, None));
        assert!(mean.ssimulacra2.is_some());
    }
}

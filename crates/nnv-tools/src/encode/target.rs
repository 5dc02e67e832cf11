// SPDX-License-Identifier: MPL-2.0
//! What a user may ask for: a measure and its value.

use std::fmt;
use std::str::FromStr;

use nnv_quality::{DB_CAP, Mean, Metrics};
use serde::{Deserialize, Serialize};

/// A measure that a shot can be held to: the mean over its frames.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// By libvmaf, here or in an ffmpeg, its default model, at the video's own size.
    Vmaf,
    /// Decibels of the planes' errors, weighted (6 Y + U + V) / 8.
    Psnr,
    /// Luma, as ffmpeg's filter has it.
    Ssim,
    /// Luma.
    MsSsim,
    /// Planes weighted (4 Y + U + V) / 6.
    Xpsnr,
    /// By the crate of that name; slow.
    Ssimulacra2,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Vmaf,
        Self::Psnr,
        Self::Ssim,
        Self::MsSsim,
        Self::Xpsnr,
        Self::Ssimulacra2,
    ];

    /// The name on the command line, in reports and in the bundle.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vmaf => "vmaf",
            Self::Psnr => "psnr",
            Self::Ssim => "ssim",
            Self::MsSsim => "ms-ssim",
            Self::Xpsnr => "xpsnr",
            Self::Ssimulacra2 => "ssimulacra2",
        }
    }

    /// The lowest and the highest value that can be asked for.
    pub fn range(self) -> (f64, f64) {
        match self {
            Self::Vmaf | Self::Ssimulacra2 => (1.0, 99.0),
            Self::Psnr | Self::Xpsnr => (10.0, 70.0),
            Self::Ssim | Self::MsSsim => (0.1, 0.9999),
        }
    }

    /// How far a shot may be off before it is coded once more, unless the user says otherwise.
    pub fn tolerance(self) -> f64 {
        match self {
            Self::Vmaf | Self::Ssimulacra2 => 1.0,
            Self::Psnr | Self::Xpsnr => 0.25,
            Self::Ssim | Self::MsSsim => 0.002,
        }
    }

    /// Digits behind the point in what people read.
    pub fn digits(self) -> usize {
        match self {
            Self::Ssim | Self::MsSsim => 5,
            _ => 2,
        }
    }

    /// A bit above the highest VMAF and SSIMULACRA2: their losses are counted from it.
    pub const LOSSLESS: f64 = 102.0;

    /// Natural logarithm of the quality: minus that of the loss. What the network tells, since
    /// every measure is nearly a straight line of the quantizer in it.
    pub fn log(self, value: f64) -> f64 {
        match self {
            Self::Vmaf | Self::Ssimulacra2 => -(Self::LOSSLESS - value).max(1.0).ln(),
            Self::Psnr | Self::Xpsnr => value.min(DB_CAP) * std::f64::consts::LN_10 / 10.0,
            Self::Ssim | Self::MsSsim => -(1.0 - value).max(1e-6).ln(),
        }
    }

    /// The loss that [`Metric::log`] is of.
    pub fn loss(self, value: f64) -> f64 {
        (-self.log(value)).exp()
    }

    /// What of `nnv-quality` it takes.
    pub fn wanted(metrics: &[Self]) -> Metrics {
        let has = |metric| metrics.contains(&metric);
        Metrics {
            ssim: has(Self::Ssim),
            ms_ssim: has(Self::MsSsim),
            xpsnr: has(Self::Xpsnr),
            ssimulacra2: has(Self::Ssimulacra2),
        }
    }

    /// Its value among the means; `None` where the pictures are too small for it, and for VMAF that
    /// an ffmpeg measures.
    pub fn of(self, mean: &Mean) -> Option<f64> {
        match self {
            Self::Vmaf => mean.vmaf,
            Self::Psnr => Some(mean.mean_of_db.weighted_error),
            Self::Ssim => mean.ssim.map(|s| s.y),
            Self::MsSsim => mean.ms_ssim,
            Self::Xpsnr => {
                let of = |[y, u, v]: [f64; 3]| (4.0 * y + u + v) / 6.0;
                mean.xpsnr.map(|x| of(x.map(|db| db.min(DB_CAP))))
            }
            Self::Ssimulacra2 => mean.ssimulacra2,
        }
    }
}

/// A measure and the value that every shot is to have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The measure.
    pub metric: Metric,
    /// Its value.
    pub value: f64,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.metric.name(), self.value)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Metric::ALL.map(Metric::name).join(", ");
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("it looks like vmaf=93; measures are {names}"))?;
        let metric = Metric::ALL
            .into_iter()
            .find(|metric| metric.name() == name)
            .ok_or_else(|| format!("{name:?} is no measure; there are {names}"))?;
        let (low, high) = metric.range();
        match value.parse::<f64>() {
            Ok(value) if (low..=high).contains(&value) => Ok(Self { metric, value }),
            _ => Err(format!("{name} must be a number from {low} to {high}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_refused() {
        let target: Target = "vmaf=93".parse().unwrap();
        assert_eq!((target.metric, target.value), (Metric::Vmaf, 93.0));
        assert_eq!(target.to_string(), "vmaf=93");
        assert_eq!("ms-ssim=0.99".parse::<Target>().unwrap().value, 0.99);
        for bad in [
            "vmaf", "vmaf=", "vmaf=100", "vmaf=NaN", "ssim=1", "psnr=93", "x=1", "=1",
        ] {
            let error = bad.parse::<Target>().unwrap_err();
            assert!(
                error.contains("vmaf") || error.contains(" to "),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn logarithms_rise_with_quality() {
        for metric in Metric::ALL {
            let (low, high) = metric.range();
            let at = |i: i32| metric.log(low + (high - low) * f64::from(i) / 10.0);
            assert!((0..10).all(|i| at(i) < at(i + 1)), "{metric:?}");
            assert!(metric.log(f64::INFINITY).is_finite());
        }
    }
}

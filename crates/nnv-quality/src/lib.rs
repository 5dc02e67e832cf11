// SPDX-License-Identifier: MPL-2.0
//! Picture quality: one implementation for tools, tests and benchmarks.
//!
//! * [`SquaredError`], [`Psnr`]: PSNR by plane, and three ways to put the planes together;
//! * [`ssim`]: as ffmpeg's filter `ssim` computes it;
//! * [`ms_ssim`]: Wang, Simoncelli, Bovik 2003, with the Gaussian SSIM of 2004 at its first scale;
//! * [`Xpsnr`]: as ffmpeg's filter `xpsnr` computes it; it needs the frames before;
//! * [`ssimulacra2()`]: by the crate of that name;
//! * [`Vmaf`], [`VmafModel`]: by libvmaf, where that is installed;
//! * [`FrameQuality`], [`ClipQuality`]: all of them for a frame, and their means over a clip;
//! * [`Meter`]: the same for video that may differ in size and depth ([`fit()`]);
//! * [`patches()`]: what a network sees that judges without the original;
//! * [`Pairing`]: which frames belong together.
//!
//! Everything else is a pure function of borrowed planes, 8 to 16 bit, any size, any stride.
//!
//! ```
//! use nnv_quality::{PlaneView, SquaredError, peak};
//! let (a, b) = (vec![100_u8; 64 * 48], vec![104_u8; 64 * 48]);
//! let (a, b) = (PlaneView::u8(&a, 64, 48, 64)?, PlaneView::u8(&b, 64, 48, 64)?);
//! let error = SquaredError::of(a, b)?;
//! assert_eq!(error.mean(), 16.0);
//! assert!((error.psnr(peak(8)) - 36.0896).abs() < 1e-4);
//! # Ok::<(), nnv_quality::QualityError>(())
//! ```

mod clip;
mod fit;
mod ms_ssim;
mod pairing;
mod patches;
mod plane;
mod psnr;
mod ssim;
mod ssimulacra2;
mod vmaf;
mod xpsnr;

pub use clip::{ClipQuality, FrameQuality, Mean, Meter, Metrics};
pub use fit::{Fitted, OwnedPlane, fit, fit_pair};
pub use ms_ssim::{MsSsim, SCALE_WEIGHTS, ms_ssim};
pub use pairing::{Decision, PairCounts, Pairing, Upcoming};
pub use patches::patches;
pub use plane::PlaneView;
pub use psnr::{DB_CAP, Psnr, SquaredError, decibels, peak};
pub use ssim::{Ssim, ssim};
pub use ssimulacra2::{Colour, ssimulacra2};
pub use vmaf::{Vmaf, VmafError, VmafModel};
pub use xpsnr::Xpsnr;

/// Why two planes cannot be compared, or bytes are no plane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QualityError {
    /// A side is zero.
    #[error("a plane of {width}x{height}: both sides must be at least 1")]
    Empty {
        /// Width in samples.
        width: usize,
        /// Height in samples.
        height: usize,
    },
    /// The stride is below the width, or the samples end before the last row does.
    #[error("{len} samples with a stride of {stride} hold no plane of {width}x{height}")]
    Layout {
        /// Samples given.
        len: usize,
        /// Samples from row to row.
        stride: usize,
        /// Width in samples.
        width: usize,
        /// Height in samples.
        height: usize,
    },
    /// A depth that is not supported.
    #[error("{0} bits per sample; 8 to 16 are possible")]
    Depth(u8),
    /// The planes differ in size.
    #[error("a plane of {}x{} beside one of {}x{}", .a.0, .a.1, .b.0, .b.1)]
    Sizes {
        /// Width and height of the first.
        a: (usize, usize),
        /// Width and height of the second.
        b: (usize, usize),
    },
    /// The planes differ in depth: bring both to one first.
    #[error("samples of {a} bits beside samples of {b} bits")]
    Depths {
        /// Bits of the first.
        a: u8,
        /// Bits of the second.
        b: u8,
    },
    /// VMAF fails.
    #[error(transparent)]
    Vmaf(#[from] VmafError),
}

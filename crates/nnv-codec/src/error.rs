// SPDX-License-Identifier: MPL-2.0
//! Errors of encoder and decoder.

use crate::config::ConfigError;
use nnv_bitstream::{BitstreamError, Level};
use nnv_format::entropy::EntropyError;
use nnv_format::grid::GridError;
use nnv_format::motion::MotionError;
use nnv_format::picture::PictureError;
use nnv_nn::NnError;

/// Result of encoder and decoder.
pub type Result<T, E = CodecError> = std::result::Result<T, E>;

/// What stops an encoder or a decoder. Damage in a stream is not among these as long as it can be
/// concealed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CodecError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A picture has the wrong size or layout.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A unit cannot be written.
    #[error(transparent)]
    Bitstream(#[from] BitstreamError),
    /// Entropy tables or symbols are out of range.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// Motion and references do not fit together.
    #[error(transparent)]
    Motion(#[from] MotionError),
    /// The size has no grid of latents.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// A network or its runtime failed.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// Quality is to be held by VMAF, which cannot be measured.
    #[error("quality-metric=vmaf: {0}. Or take psnr, ssim or ms-ssim, which need no library")]
    Vmaf(#[from] nnv_quality::VmafError),
    /// The stream needs a model that is not there.
    #[error("the stream needs the model \"{name}\" with hash {hash}: {what}")]
    Model {
        /// Name of the bundle in the sequence header.
        name: String,
        /// Start of the bundle's hash, in hex.
        hash: String,
        /// Why it cannot be had, and what to do.
        what: String,
    },
    /// The picture handed to the encoder does not have the configured size.
    #[error(
        "picture of {got_width}x{got_height} given to an encoder of {width}x{height}: drain it \
         and make a new one"
    )]
    Size {
        /// Configured width.
        width: u32,
        /// Configured height.
        height: u32,
        /// Width of the picture.
        got_width: u32,
        /// Height of the picture.
        got_height: u32,
    },
    /// The stream is encrypted.
    #[error("the stream is encrypted: put nnvdecrypt, with its key, in front of the decoder")]
    Encrypted,
    /// The pictures of a stream are larger than the decoder may allocate.
    #[error(
        "the stream's pictures of {width}x{height} exceed the limit of {max_pixels} samples: raise \
         max-pixels if you trust the stream"
    )]
    TooLarge {
        /// Width in the sequence header.
        width: u32,
        /// Height in the sequence header.
        height: u32,
        /// The decoder's limit.
        max_pixels: u64,
    },
    /// The stream's level is higher than the decoder shall decode.
    #[error(
        "the stream is of level {level}, this decoder takes level {max_level} at most: raise \
         max-level if this machine is fast enough, or ask for a smaller picture or frame rate"
    )]
    Level {
        /// In the sequence header, or given by its fields.
        level: Level,
        /// The decoder's limit.
        max_level: Level,
    },
    /// Memory for the work on a batch of frames is not to be had.
    #[error(
        "pictures of {width}x{height} need about {mib} MiB, which this process cannot get: raise \
         its limit, or refuse such streams with max-pixels"
    )]
    Memory {
        /// Width of the pictures.
        width: u32,
        /// Height of the pictures.
        height: u32,
        /// What was asked for, in MiB.
        mib: u64,
    },
    /// Frames were sent after [`finish`](crate::encode::Encoder::finish) without a reset.
    #[error("frames sent after the end of the stream: reset first")]
    Finished,
    /// The work was aborted through its cancel handle.
    #[error("cancelled")]
    Cancelled,
    /// The coder contradicts itself. Never seen; please report it.
    #[error("internal error: {0}")]
    Internal(String),
}

impl CodecError {
    /// True for an abort that the application asked for.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Nn(NnError::Cancelled))
    }
}

// SPDX-License-Identifier: MPL-2.0
//! What goes into an encoder and comes out of it.

use std::sync::Arc;

use nnv_bitstream::{FrameMetadata, FrameType};
use nnv_format::picture::Picture;

use super::two_pass::PassFrame;

/// A picture to encode.
#[derive(Debug, Clone)]
pub struct InputFrame {
    /// The picture, of the configured size.
    pub picture: Arc<Picture>,
    /// Comes back with the frame's access unit.
    pub id: u64,
    /// Presentation time in ns.
    pub pts: Option<u64>,
    /// Duration in ns.
    pub duration: Option<u64>,
    /// Starts a new group of pictures here.
    pub force_key: bool,
    /// What rides along with it.
    pub metadata: FrameMetadata,
    /// Parts of the picture that get a quality of their own.
    pub regions: Vec<Region>,
}

/// Part of a picture with a quality of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Left edge in luma samples.
    pub x: u32,
    /// Upper edge in luma samples.
    pub y: u32,
    /// Width in luma samples.
    pub width: u32,
    /// Height in luma samples.
    pub height: u32,
    /// What is added to the quantizer there; 12 less halve the step. The stream has values from
    /// -28 to 12 in fours: others become the nearest of these.
    pub delta: i8,
}

impl InputFrame {
    /// A frame without times.
    pub fn new(picture: Arc<Picture>, id: u64) -> Self {
        Self {
            picture,
            id,
            pts: None,
            duration: None,
            force_key: false,
            metadata: FrameMetadata::default(),
            regions: Vec::new(),
        }
    }
}

/// One access unit in coding order.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// Of the input frame.
    pub id: u64,
    /// All bytes; a key frame's begin with the sequence header.
    pub data: Vec<u8>,
    /// Decoding may start here.
    pub key: bool,
    /// How it is coded.
    pub kind: FrameType,
    /// Presentation order since the last key frame.
    pub poc: u32,
    /// Level in the mini-GOP.
    pub level: u8,
    /// Quantizer used.
    pub quantizer: u8,
    /// Later frames may refer to it.
    pub is_reference: bool,
    /// What a first pass writes down.
    pub pass: PassFrame,
    /// It answers a loss: an inter frame that is predicted from what the receiver has.
    pub recovery: bool,
    /// Measurements.
    pub stats: FrameStats,
}

/// What coding one frame took and gave.
#[derive(Debug, Clone, Default)]
pub struct FrameStats {
    /// The decoded picture, exactly as every decoder makes it; `None` for repeats.
    pub reconstruction: Option<Arc<Picture>>,
    /// Bytes of motion and side information.
    pub motion_bytes: usize,
    /// Bytes of hyper-latents.
    pub hyper_bytes: usize,
    /// Bytes of latents.
    pub latent_bytes: usize,
    /// Bytes of the ink layer; 0 where there is none.
    pub ink_bytes: usize,
    /// What was entropy-coded, after [`Encoder::keep_symbols`](super::Encoder::keep_symbols).
    pub symbols: Option<Arc<FrameSymbols>>,
}

/// The integers that the entropy coder wrote, for the tuning of its models.
#[derive(Debug, Clone)]
pub struct FrameSymbols {
    /// Shape of `y` and `scale_idx`: `[384, H/16, W/16]`.
    pub y_shape: [usize; 3],
    /// Latent.
    pub y: Vec<i16>,
    /// Scale indices.
    pub scale_idx: Vec<u8>,
    /// Hyper-latent.
    pub z: Vec<i8>,
}

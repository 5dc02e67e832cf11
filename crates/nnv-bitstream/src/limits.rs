// SPDX-License-Identifier: MPL-2.0
//! Every limit of the format, each once: caps, properties, documents and checks refer to these.

/// Largest width and height of a coded picture.
pub const MAX_SIDE: u32 = 16384;
/// Most luma samples of a picture that encoders of this project write, and that their decoders take
/// unless told otherwise: memory is bounded by it.
pub const MAX_SAMPLES: u64 = 8192 * 8192;
/// Longest name of a bundle.
pub const MAX_NAME: usize = 64;
/// Most frames kept as references.
pub const MAX_REFERENCES: u8 = 8;
/// Longest mini-GOP.
pub const MAX_MINI_GOP: u8 = 8;
/// Most frames between two anchors.
pub const MAX_BFRAMES: u8 = MAX_MINI_GOP - 1;
/// Deepest level of a dyadic mini-GOP of the greatest length, anchors being at level 0.
pub const DEEPEST_LEVEL: u8 = MAX_MINI_GOP.ilog2() as u8;
/// Highest level that a frame header can state.
pub const MAX_LEVEL: u8 = 7;
/// Most independent streams of `y` in a frame.
pub const MAX_Y_STREAMS: u8 = 8;
/// Largest quantizer.
pub const MAX_QUANTIZER: u8 = 63;
/// Number of quantizers.
pub const QUANTIZERS: usize = MAX_QUANTIZER as usize + 1;
/// Largest presentation order number.
pub const MAX_POC: u32 = (1 << 30) - 1;
/// Most frames that one frame can release.
pub const MAX_RELEASED: usize = 7;
/// Longest payload of a unit: what four groups of seven bits can say.
pub const MAX_PAYLOAD: usize = (1 << 28) - 1;

/// Longest payload of a sequence header: those of this version have fewer than 256 bytes, later
/// ones may grow.
pub const MAX_SEQUENCE_PAYLOAD: usize = 4096;
/// Longest payload of any other unit but a frame, where frames are no longer than this.
pub const MAX_OTHER_PAYLOAD: usize = 1 << 16;
/// Longest payload of a unit of frame metadata: all that other units may have.
pub const MAX_FRAME_METADATA: usize = MAX_OTHER_PAYLOAD;
/// Longest payload of a unit of stream metadata, which each key frame repeats.
pub const MAX_STREAM_METADATA: usize = MAX_SEQUENCE_PAYLOAD;
/// Most items of a metadata unit.
pub const MAX_METADATA_ITEMS: usize = 64;
/// Longest key of a text in stream metadata, in bytes.
pub const MAX_KEY: usize = 64;
/// Longest text in stream metadata, in bytes.
pub const MAX_TEXT: usize = 1024;
/// From this code on, a unit type that a decoder does not know must be refused, not passed over.
pub const FIRST_CRITICAL_UNIT: u8 = 128;
/// What a frame needs beside its samples at most: its header, the lengths of its parts.
pub const FRAME_OVERHEAD: usize = 4096;

/// What an encrypted frame may have more than a plain one: the units that it takes along (the
/// longest metadata of both kinds among them), and what authenticates it.
pub const MAX_ENCRYPTION: usize = 1 << 17;

/// Longest payload of a frame of pictures of this size: three bytes for each luma sample, the sides
/// rounded up to multiples of 16, and [`FRAME_OVERHEAD`]. That is twice what a picture takes
/// uncompressed in 8 bit, and 1.6 times what it takes in 10.
pub fn max_frame_payload(width: u32, height: u32) -> usize {
    let side = |n: u32| (n as usize).next_multiple_of(16);
    (side(width) * side(height) * 3 + FRAME_OVERHEAD).min(MAX_PAYLOAD)
}

/// Whether a picture of this size can be coded by this project: each side 1 to [`MAX_SIDE`], at
/// most [`MAX_SAMPLES`] in all.
///
/// # Errors
/// A sentence that says what is possible.
pub fn check_size(width: u32, height: u32) -> Result<(), String> {
    let sides = (1..=MAX_SIDE).contains(&width) && (1..=MAX_SIDE).contains(&height);
    if sides && u64::from(width) * u64::from(height) <= MAX_SAMPLES {
        return Ok(());
    }
    Err(format!(
        "a size of {width}x{height}: each side must be 1 to {MAX_SIDE}, and a picture may have at \
         most {MAX_SAMPLES} samples (as 8192x8192 has); scale it down (videoscale)"
    ))
}

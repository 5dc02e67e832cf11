// SPDX-License-Identifier: MPL-2.0
//! The byte stream: units, headers, resynchronisation. `docs/bitstream.md` is the specification.
//!
//! * [`unit`]: self-delimiting units with start code, length and checksums; [`UnitScanner`] finds
//!   them in any bytes;
//! * [`sequence`]: the sequence header;
//! * [`frame`]: frame headers and their parts;
//! * [`access_unit`]: a sequence header where there is one, and one frame.
//!
//! * [`metadata`]: captions, time codes, tags and the like;
//! * [`limits`]: every limit of the format;
//! * [`level`]: what decoding costs at most;
//! * [`rtp`]: access units in packets of RTP;
//! * [`stream_info`]: what a sequence header says about the pictures, as users see it;
//! * [`index`]: times of access units, and where a file's key frames are;
//! * [`mp4`]: sample entry and configuration box of MP4 files.
//!
//! Nothing here panics on any input or allocates more than the input's own size.

pub mod access_unit;
mod checksums;
pub mod frame;
pub mod index;
pub mod io;
pub mod level;
pub mod limits;
pub mod metadata;
pub mod mp4;
pub mod rtp;
pub mod sequence;
pub mod stream_info;
pub mod unit;

pub use access_unit::{AccessUnit, AccessUnitScan, AccessUnitScanner, scan_access_unit};
pub use frame::{ContextSource, FrameHeader, FramePayload, FrameType, KeyIdentity};
pub use level::{DecodingCost, Level};
pub use metadata::{FrameMetadata, StreamMetadata};
pub use sequence::{
    BundleHash, ChromaFormat, Colorimetry, ContentLight, Crop, GopFacts, MasteringDisplay,
    Rational, SequenceHeader, VideoRange,
};
pub use stream_info::StreamInfo;
pub use unit::{Peek, Scan, Unit, UnitScanner, UnitType, peek_unit, write_unit};

/// What can be wrong with a stream or with what is to be written into one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitstreamError {
    /// A header ends before its last field.
    #[error("{header} ends within its field `{field}`: the stream is damaged")]
    Truncated {
        /// Which header.
        header: &'static str,
        /// Which field.
        field: &'static str,
    },
    /// A field has a value that the format does not allow.
    #[error("{header}: field `{field}` has the value {value}, allowed is {allowed}")]
    Field {
        /// Which header.
        header: &'static str,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: i64,
        /// What the format allows.
        allowed: &'static str,
    },
    /// A sequence header without its magic.
    #[error("not an NNV stream: the sequence header does not begin with \"NNV1\"")]
    Magic,
    /// A stream of a later format.
    #[error("stream version {0} is newer than this decoder, which knows version {known}: update \
     it", known = sequence::VERSION)]
    Version(u8),
    /// Bytes after the last field of a header.
    #[error("{header}: {left} bytes after the last field: the stream is damaged")]
    Trailing {
        /// Which header.
        header: &'static str,
        /// How many bytes.
        left: usize,
    },
    /// The lengths of a frame's parts exceed the frame.
    #[error("frame: the parts need {needed} bytes, {len} are there: the stream is damaged")]
    Parts {
        /// Sum of the lengths.
        needed: u64,
        /// Bytes in the frame unit after the header.
        len: usize,
    },
    /// A unit grew beyond what its length field can say.
    #[error("a unit of {0} bytes is too long: the limit is {max}", max = limits::MAX_PAYLOAD)]
    UnitTooLong(usize),
    /// A unit of a type that must not be passed over.
    #[error(
        "a unit of type {0}: the stream uses a feature that this decoder does not have, and \
     its pictures cannot be shown without; update the decoder"
    )]
    Critical(u8),
    /// A frame with flags that are not known.
    #[error(
        "a frame with the flags {0:#04x}: the stream uses a feature that this decoder does not \
     have, and its pictures cannot be shown without; update the decoder"
    )]
    Extension(u8),
    /// Data that should be one access unit is not.
    #[error("access unit: {0}")]
    AccessUnit(&'static str),
    /// A frame was given another number of `y` streams than the sequence header says.
    #[error("frame: {given} streams of y, the sequence header says {expected}")]
    StreamCount {
        /// Streams given.
        given: usize,
        /// Streams that the sequence header announces.
        expected: usize,
    },
}

// SPDX-License-Identifier: MPL-2.0
//! Writes NNV video, AAC and Opus sound and plain subtitles into MP4 files. `docs/mp4.md` says how
//! NNV is carried there.
//!
//! The muxers do not read, write or wait: samples go in, bytes come out.
//!
//! * [`Track`], [`Codec`]: what a file holds;
//! * [`file::FileMuxer`]: a finished file, whose index (`moov`) stands before or after its data;
//! * [`fragments::FragmentMuxer`]: fragments that each begin with a key frame and play while the
//!   file grows;
//! * [`text`]: what subtitles look like inside;
//! * [`tags::Tag`]: title, artist and the like;
//! * `hls` (feature `hls`): reads where fragments lie, and writes playlists.
//!
//! Decoding times are made from presentation times: the n-th coded frame is decoded at the n-th
//! shown time, and the whole track as much earlier as frames are reordered. So they always rise,
//! whatever the sender said.

mod boxes;
pub mod file;
pub mod fragments;
#[cfg(feature = "hls")]
pub mod hls;
mod incoming;
pub mod tags;
pub mod text;
mod timing;
mod track;

pub use tags::Tag;
pub use track::{Codec, Rotation, Track, opus_samples};

use nnv_bitstream::BitstreamError;

/// Times per second of the movie's own clock, in which edits are stated.
pub const MOVIE_TIMESCALE: u32 = 1_000_000;

/// What can be wrong with what shall be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sequence header of the video cannot be read.
    #[error("the video's sequence header: {0}")]
    Header(#[from] BitstreamError),
    /// A sound track that this crate cannot describe.
    #[error("{0}")]
    Sound(String),
    /// Times that go back.
    #[error(
        "{what}: at {at_ns} ns times run back by {by_ns} ns, and a track's times cannot: start a \
         new file where they do"
    )]
    Backwards {
        /// Which track.
        what: &'static str,
        /// Where, in ns since the file's beginning.
        at_ns: i64,
        /// By how much.
        by_ns: i64,
    },
    /// A track that goes on as something else.
    #[error("the format of the {0} changes, and its track has one: start a new file there")]
    Changed(&'static str),
    /// A sample, a track or a box beyond what 32 bits can say.
    #[error("{0} exceeds what the file format can say: start a new file")]
    TooLarge(&'static str),
    /// A box refuses its content.
    #[error("the file's boxes cannot be written: {0}")]
    Boxes(shiguredo_mp4::Error),
    /// A file without samples.
    #[error("there is nothing to write: no stream had data before its end")]
    Empty,
}

impl From<shiguredo_mp4::Error> for Error {
    fn from(error: shiguredo_mp4::Error) -> Self {
        Self::Boxes(error)
    }
}

/// Media data that the caller keeps where it is.
pub trait Data {
    /// Bytes.
    fn size(&self) -> usize;
}

impl Data for Vec<u8> {
    fn size(&self) -> usize {
        self.len()
    }
}

/// A piece of the file, to be written in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<D> {
    /// Made here.
    Bytes(Vec<u8>),
    /// The caller's data, untouched.
    Data(D),
}

impl<D: Data> Data for Piece<D> {
    fn size(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Data(data) => data.size(),
        }
    }
}

/// A coded frame, a packet of sound, or a subtitle.
#[derive(Debug, Clone)]
pub struct Sample<D> {
    /// Its bytes; see [`text::sample`] for subtitles.
    pub data: Piece<D>,
    /// When it is shown, in ns since the file's beginning.
    pub pts: i64,
    /// When it is decoded, in ns. Only that of a track's first sample matters: by how much decoding
    /// is ahead of showing.
    pub dts: Option<i64>,
    /// For how long it is shown, in ns, where known.
    pub duration: Option<u64>,
    /// Sound: samples that it decodes to, in units of the track's rate, where that is more than its
    /// duration says. What a first packet has more is priming, and not played.
    pub decoded: Option<u32>,
    /// It can be decoded without others.
    pub sync: bool,
}

// SPDX-License-Identifier: MPL-2.0
//! The decoder for web pages: what the package `nnv-web` (folder `web/`) runs in a Worker.
//!
//! [`PageDecoder`] decodes chunks, as WebCodecs calls access units; [`Splitter`] cuts a bare stream
//! into them; [`IndexScan`] finds a file's key frames. Nothing here waits or opens anything: the
//! page fetches, and says what came. The bindings are thin, so that all of it is tested natively.

#[cfg(target_family = "wasm")]
mod bindings;
mod decoder;
mod index;
pub mod sequence;
mod splitter;

pub use decoder::{Dropped, Event, PageDecoder, PageOptions, Shown};
pub use index::{IndexScan, Next};
pub use sequence::{NeededBundle, SequenceFacts, sequence_in};
pub use splitter::{Chunk, Splitter};

/// What a page is told, in the classes of `DOMException`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// What was given makes no sense: `DataError`.
    #[error("{0}")]
    Data(String),
    /// The stream, its size or its networks are not possible here: `NotSupportedError`.
    #[error("{0}")]
    NotSupported(String),
    /// Decoding failed: `EncodingError`.
    #[error("{0}")]
    Encoding(String),
}

impl PageError {
    /// The name of the `DOMException`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Data(_) => "DataError",
            Self::NotSupported(_) => "NotSupportedError",
            Self::Encoding(_) => "EncodingError",
        }
    }
}

impl From<nnv_codec::error::CodecError> for PageError {
    fn from(error: nnv_codec::error::CodecError) -> Self {
        use nnv_bitstream::BitstreamError;
        use nnv_codec::error::CodecError;
        let text = error.to_string();
        match error {
            CodecError::TooLarge {
                width,
                height,
                max_pixels,
            } => Self::NotSupported(format!(
                "the stream's pictures of {width}x{height} exceed the limit of {max_pixels} \
                 samples: raise maxPixels if you trust the stream"
            )),
            CodecError::Level { level, max_level } => Self::NotSupported(format!(
                "the stream is of level {level}, above maxLevel, {max_level}: raise it if this \
                 machine is fast enough"
            )),
            CodecError::Memory { width, height, mib } => Self::NotSupported(format!(
                "pictures of {width}x{height} need about {mib} MiB, which WebAssembly cannot get \
                 here: lower maxPixels to refuse such streams"
            )),
            CodecError::Encrypted => Self::NotSupported(
                "the stream is encrypted; this decoder has no keys: decrypt it before (nnvdecrypt)"
                    .into(),
            ),
            CodecError::Model { .. }
            | CodecError::Nn(_)
            | CodecError::Bitstream(
                BitstreamError::Version(_) | BitstreamError::Magic | BitstreamError::Critical(_),
            ) => Self::NotSupported(text),
            CodecError::Bitstream(_) => Self::Data(text),
            _ => Self::Encoding(text),
        }
    }
}

impl From<nnv_nn::NnError> for PageError {
    fn from(error: nnv_nn::NnError) -> Self {
        nnv_codec::error::CodecError::from(error).into()
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Errors of entropy coding.

/// What can be wrong with entropy-coded data or with what is to be coded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntropyError {
    /// The decoder needed more data than there is.
    #[error(
        "entropy-coded data ends early: {read} bytes needed, {len} there; the stream is cut or \
         damaged"
    )]
    Truncated {
        /// Bytes that decoding consumed.
        read: usize,
        /// Bytes there are.
        len: usize,
    },
    /// Decoding ended before the data did.
    #[error("{left} bytes left over after entropy decoding; the stream is damaged")]
    TrailingData {
        /// Bytes not read.
        left: usize,
    },
    /// A bundle's entropy tables are malformed.
    #[error("entropy tables of the bundle: {what}")]
    Tables {
        /// What is wrong.
        what: &'static str,
    },
    /// Arrays do not fit the frame.
    #[error("entropy coding: {what}")]
    Shape {
        /// What does not fit.
        what: &'static str,
    },
    /// A symbol above what the format allows.
    #[error(
        "a symbol exceeds its limit (2047 in y, 127 in z); when decoding: the stream is damaged"
    )]
    SymbolRange,
    /// Symbols that an encoder may not choose.
    #[error("a first symbol has another sign than the parity of the magnitudes says")]
    Parity,
    /// A scale index above 63: no network of a bundle gives one.
    #[error("the prior network gave a scale index above 63: the bundle is broken")]
    ScaleIndex,
}

// SPDX-License-Identifier: MPL-2.0
//! Encrypts and signs NNV streams, access unit by access unit. No GStreamer, no networks.
//!
//! * [`keys`]: secrets and where they come from, in text;
//! * [`encrypt`]: SFrame (RFC 9605) over what follows a frame's header;
//! * [`sign`]: chained Ed25519 signatures over groups of pictures.
//!
//! The bytes are in `docs/bitstream.md`, sections 11 and 12; what they are good for in
//! `docs/privacy.md` and `docs/authenticity.md`. Nothing here panics on any input.

pub mod encrypt;
pub mod keys;
pub mod sign;
mod units;

use nnv_bitstream::{BitstreamError, UnitType};

/// Says how the frames that follow are encrypted; before each encrypted key frame.
pub const KEYING_UNIT: UnitType = UnitType::Unknown(100);
/// Signs the access units since the last signature, up to and with its own.
pub const SIGNATURE_UNIT: UnitType = UnitType::Unknown(6);

/// What keeps an access unit from being encrypted or signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptError {
    /// It is no access unit.
    #[error(transparent)]
    Bitstream(#[from] BitstreamError),
    /// It is encrypted already.
    #[error("the stream is encrypted already")]
    Encrypted,
    /// Encryption begins with key frames.
    #[error("a frame before the first key frame: encryption begins with a key frame")]
    NoKeyFrame,
    /// The units beside the frame are too long for an encrypted frame.
    #[error(
        "the units beside the frame have {0} bytes, at most {max} can be encrypted with it",
        max = encrypt::MAX_UNITS
    )]
    TooLong(usize),
    /// There is no key of that number.
    #[error(
        "there is no key {0}: set key, key-file with a line \"{0}:HEX\", or answer request-key"
    )]
    NoKey(u64),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// The cipher refuses to work.
    #[error("encryption fails: {0}")]
    Cipher(String),
}

/// Random bytes of the system.
fn random<const N: usize>() -> Result<[u8; N], CryptError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| CryptError::Random(e.to_string()))?;
    Ok(bytes)
}

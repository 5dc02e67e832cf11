// SPDX-License-Identifier: MPL-2.0
//! Keys, and how they are written.
//!
//! A secret is 32 to 128 hex digits, with its number and a colon before it where there are several:
//! `7:0123…`. A file of secrets has one in each line; `#` begins a comment.

use std::collections::BTreeMap;
use std::fmt::Write;

use ed25519_dalek::{SigningKey, VerifyingKey};
use zeroize::{Zeroize, Zeroizing};

use crate::{CryptError, random};

/// Fewest bytes of a secret.
const MIN_SECRET: usize = 16;
/// Most bytes of a secret.
const MAX_SECRET: usize = 64;
/// Bytes of an Ed25519 key, secret or public.
const ED25519: usize = 32;
const SIGNING: &str = "ed25519-secret:";
const VERIFYING: &str = "ed25519-public:";

/// What is wrong with a key's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not hex digits, or an odd number of them.
    #[error("a key is hex digits, two for each byte; this has others or an odd number of them")]
    Digits,
    /// Too short or too long.
    #[error("a key of {0} bytes: it must have 16 to 64 (make one with: nnv keygen)")]
    Length(usize),
    /// The number before the colon is none.
    #[error("the number of a key is 0 to 2^64 - 1, followed by a colon: \"{0}\" is none")]
    Number(String),
    /// Not what begins a key of this kind.
    #[error("this must begin with \"{0}\" and have 64 hex digits (make a pair with: nnv keygen)")]
    Prefix(&'static str),
    /// No point of the curve.
    #[error("this is no public key of Ed25519")]
    Point,
    /// The file holds no key.
    #[error("there is no key in it")]
    Empty,
    /// A line of a file.
    #[error("line {0}: {1}")]
    Line(usize, Box<KeyError>),
}

/// Bytes that encryption keys are derived from. Wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl Secret {
    /// A secret of these bytes.
    ///
    /// # Errors
    /// [`KeyError::Length`] unless there are 16 to 64.
    pub fn new(bytes: &[u8]) -> Result<Secret, KeyError> {
        if !(MIN_SECRET..=MAX_SECRET).contains(&bytes.len()) {
            return Err(KeyError::Length(bytes.len()));
        }
        Ok(Secret(Zeroizing::new(bytes.to_vec())))
    }

    /// A new one of 32 random bytes.
    ///
    /// # Errors
    /// [`CryptError::Random`].
    pub fn random() -> Result<Secret, CryptError> {
        Ok(Secret(Zeroizing::new(random::<32>()?.to_vec())))
    }

    /// The secret in hex.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex(&self.0))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn unhex(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let digit = |b: u8| (b as char).to_digit(16).ok_or(KeyError::Digits);
    let text = text.as_bytes();
    if !text.len().is_multiple_of(2) {
        return Err(KeyError::Digits);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    for pair in text.chunks_exact(2) {
        bytes.push((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    }
    Ok(bytes)
}

/// Secrets by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRing(BTreeMap<u64, Secret>);

impl KeyRing {
    /// Reads one secret: hex digits, with its number and a colon before them or without.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with the text.
    pub fn parse_one(text: &str) -> Result<(Option<u64>, Secret), KeyError> {
        let (number, digits) = match text.trim().split_once(':') {
            Some((number, digits)) => {
                let number = number.trim();
                let parsed = number
                    .parse()
                    .map_err(|_| KeyError::Number(number.into()))?;
                (Some(parsed), digits.trim())
            }
            None => (None, text.trim()),
        };
        Ok((number, Secret::new(&unhex(digits)?)?))
    }

    /// Reads a file's text: a secret in each line, that without a number being 0. The last of a
    /// number counts.
    ///
    /// # Errors
    /// [`KeyError::Line`] names the first line that is wrong, [`KeyError::Empty`].
    pub fn parse(text: &str) -> Result<KeyRing, KeyError> {
        let mut ring = KeyRing::default();
        for (i, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                let (number, secret) =
                    Self::parse_one(line).map_err(|e| KeyError::Line(i + 1, Box::new(e)))?;
                ring.insert(number.unwrap_or(0), secret);
            }
        }
        if ring.0.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(ring)
    }

    /// Puts a secret in, in place of another one of its number.
    pub fn insert(&mut self, number: u64, secret: Secret) {
        self.0.insert(number, secret);
    }

    /// The secret with this number.
    pub fn get(&self, number: u64) -> Option<&Secret> {
        self.0.get(&number)
    }
}

/// A new key to sign with.
///
/// # Errors
/// [`CryptError::Random`].
pub fn new_signing_key() -> Result<SigningKey, CryptError> {
    let mut bytes = random::<ED25519>()?;
    let key = SigningKey::from_bytes(&bytes);
    bytes.zeroize();
    Ok(key)
}

/// A key to sign with as text, a line for a file that nobody else may read.
pub fn signing_key_text(key: &SigningKey) -> Zeroizing<String> {
    let digits = Zeroizing::new(hex(key.as_bytes()));
    Zeroizing::new(format!("{SIGNING}{}", digits.as_str()))
}

/// A public key as text.
pub fn public_key_text(key: &VerifyingKey) -> String {
    format!("{VERIFYING}{}", hex(key.as_bytes()))
}

/// Reads a key to sign with.
///
/// # Errors
/// [`KeyError`] says what is wrong with the text.
pub fn parse_signing_key(text: &str) -> Result<SigningKey, KeyError> {
    Ok(SigningKey::from_bytes(&*ed25519(text, SIGNING)?))
}

/// Reads a public key.
///
/// # Errors
/// [`KeyError`] says what is wrong with the text.
pub fn parse_public_key(text: &str) -> Result<VerifyingKey, KeyError> {
    VerifyingKey::from_bytes(&*ed25519(text, VERIFYING)?).map_err(|_| KeyError::Point)
}

fn ed25519(text: &str, prefix: &'static str) -> Result<Zeroizing<[u8; ED25519]>, KeyError> {
    let digits = text.trim().strip_prefix(prefix);
    let bytes = unhex(digits.ok_or(KeyError::Prefix(prefix))?.trim())?;
    let mut key = Zeroizing::new([0; ED25519]);
    if bytes.len() != ED25519 {
        return Err(KeyError::Prefix(prefix));
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_and_wrong_ones_named() {
        let hex = "00112233445566778899aabbccddeeff";
        let (number, secret) = KeyRing::parse_one(hex).unwrap();
        assert_eq!((number, secret.to_hex().as_str()), (None, hex));
        assert!(!format!("{secret:?}").contains("11"));
        let text = format!("# keys of 2026\n7: {hex}\n\n 8:{hex}ff # newer\n");
        let ring = KeyRing::parse(&text).unwrap();
        assert_eq!(ring.get(7), Some(&secret));
        assert!(ring.get(8).is_some() && ring.get(0).is_none());
        assert_eq!(KeyRing::parse_one("0011"), Err(KeyError::Length(2)));
        assert_eq!(KeyRing::parse_one("+1é"), Err(KeyError::Digits));
        assert_eq!(
            KeyRing::parse_one("x:00"),
            Err(KeyError::Number("x".into()))
        );
        assert_eq!(KeyRing::parse("# none"), Err(KeyError::Empty));
        assert!(matches!(
            KeyRing::parse(&format!("{hex}\nzz")),
            Err(KeyError::Line(2, _))
        ));
    }

    #[test]
    fn pairs_of_keys_go_through_text_and_are_not_mistaken_for_each_other() {
        let key = new_signing_key().unwrap();
        let (secret, public) = (
            signing_key_text(&key),
            public_key_text(&key.verifying_key()),
        );
        assert_eq!(
            parse_signing_key(&secret).unwrap().as_bytes(),
            key.as_bytes()
        );
        assert_eq!(parse_public_key(&public), Ok(key.verifying_key()));
        assert!(parse_signing_key(&public).is_err());
        assert!(parse_public_key(&secret).is_err());
        assert!(parse_public_key("ed25519-public:00").is_err());
    }
}

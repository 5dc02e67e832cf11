// SPDX-License-Identifier: MPL-2.0
//! SFrame (RFC 9605) over access units: headers stay readable and are authenticated, the rest of a
//! frame and all units beside it become unreadable.

use std::collections::{HashMap, VecDeque};

use hkdf::Hkdf;
use nnv_bitstream::io::{Reader, put_varint};
use nnv_bitstream::limits::MAX_ENCRYPTION;
use nnv_bitstream::{AccessUnit, BitstreamError, FrameHeader, UnitType, write_unit};
use sframe::CipherSuite;
use sframe::error::SframeError;
use sframe::frame::validation::{ReplayAttackProtection, ReplayAttackProtectionError, Tolerance};
use sframe::frame::{EncryptedFrameView, MediaFrameView, MonotonicCounter};
use sframe::key::{DecryptionKey, EncryptionKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::keys::Secret;
use crate::units::Units;
use crate::{CryptError, KEYING_UNIT, random};

const SUITE: CipherSuite = CipherSuite::AesGcm256Sha512;
const VERSION: u8 = 1;
const SALT: usize = 16;
/// Key ids of SFrame that cost no byte.
const SLOTS: u8 = 8;
/// Most bytes of units beside a frame: they, its counter and its tag have to fit.
pub(crate) const MAX_UNITS: usize = MAX_ENCRYPTION - 536;
/// So many earlier senders and rotations are remembered, so that nobody plays them again.
const RETIRED: usize = 1 << 14;
/// What keys are derived for.
const INFO: &[u8] = b"NNV 1 SFrame";

/// How frames are encrypted: payload of a keying unit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Keying {
    /// SFrame's key id in the frames, 0 to 7.
    slot: u8,
    /// Number of the secret.
    number: u64,
    /// Makes each sender's and each rotation's key another one.
    salt: [u8; SALT],
}

impl Keying {
    fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend((SUITE as u16).to_be_bytes());
        out.push(self.slot);
        put_varint(&mut out, self.number);
        out.extend(self.salt);
        out
    }

    fn parse(payload: &[u8]) -> Result<Keying, BitstreamError> {
        let mut r = Reader::new("keying unit", payload);
        let version = r.u8("version")?;
        if version != VERSION {
            return r.fail("version", version.into(), "1 (update to read others)");
        }
        let suite = r.u16("cipher suite")?;
        if suite != SUITE as u16 {
            return r.fail("cipher suite", suite.into(), "5, AES-256-GCM with SHA-512");
        }
        let slot = r.u8("slot")?;
        if slot >= SLOTS {
            return r.fail("slot", slot.into(), "0 to 7");
        }
        let number = r.varint("key number")?;
        let salt = r.array("salt")?;
        if r.left() > 0 {
            let (header, left) = ("keying unit", r.left());
            return Err(BitstreamError::Trailing { header, left });
        }
        Ok(Keying { slot, number, salt })
    }

    /// SFrame's base key.
    fn base(&self, secret: &Secret) -> Result<Zeroizing<[u8; 32]>, SframeError> {
        let mut base = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(&self.salt), secret.bytes())
            .expand_multi_info(&[INFO, &self.number.to_be_bytes()], &mut *base)
            .map_err(|_| SframeError::KeyDerivationFailure)?;
        Ok(base)
    }
}

/// What is authenticated beside the frame's own header: the sequence header, where one is.
fn associated(units: &Units, header: &[u8]) -> Vec<u8> {
    let sequence = units.sequence.map_or(&[][..], |unit| unit.payload);
    let mut out = Vec::with_capacity(sequence.len() + header.len() + 2);
    // Sequence headers have at most 4096 bytes.
    out.extend((sequence.len() as u16).to_be_bytes());
    out.extend(sequence);
    out.extend(header);
    out
}

struct Sending {
    key: EncryptionKey,
    counter: MonotonicCounter,
    keying: Vec<u8>,
    key_frames: u32,
}

/// Encrypts the access units of one sender.
pub struct Encryptor {
    next: Option<(u64, Secret)>,
    current: Option<(u64, Secret)>,
    rotation: u32,
    slot: u8,
    sending: Option<Sending>,
}

impl std::fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryptor").finish_non_exhaustive()
    }
}

impl Encryptor {
    /// Encrypts with this secret. Every `rotation` key frames (0: never) the key that is derived
    /// from it changes.
    ///
    /// # Errors
    /// [`CryptError::Random`].
    pub fn new(number: u64, secret: Secret, rotation: u32) -> Result<Encryptor, CryptError> {
        Ok(Encryptor {
            next: Some((number, secret)),
            current: None,
            rotation,
            slot: random::<1>()?[0],
            sending: None,
        })
    }

    /// Encrypts with another secret from the next key frame on.
    pub fn set_key(&mut self, number: u64, secret: Secret) {
        self.next = Some((number, secret));
    }

    /// How often the derived key changes, in key frames; 0: never.
    pub fn set_rotation(&mut self, rotation: u32) {
        self.rotation = rotation;
    }

    /// Encrypts an access unit.
    ///
    /// # Errors
    /// [`CryptError`]; nothing of the unit may be sent then.
    pub fn encrypt(&mut self, data: &[u8]) -> Result<Vec<u8>, CryptError> {
        let units = Units::of(data)?;
        if units.frame.kind == UnitType::EncryptedFrame {
            return Err(CryptError::Encrypted);
        }
        if units.header.is_key() {
            self.begin_group()?;
        }
        let sending = self.sending.as_mut().ok_or(CryptError::NoKeyFrame)?;

        // The decoded picture's checksum would tell whether two frames show the same.
        let (mut readable, mut header) = (Vec::new(), units.header.clone());
        let checksum = header.checksum.take();
        header.write(&mut readable)?;
        let (plain, hidden): (Vec<_>, Vec<_>) = units
            .others
            .iter()
            .partition(|(unit, _)| unit.kind == UnitType::Filler);
        let beside: usize = hidden.iter().map(|(_, bytes)| bytes.len()).sum();
        if beside > MAX_UNITS {
            return Err(CryptError::TooLong(beside));
        }
        let mut secret = Zeroizing::new(Vec::with_capacity(data.len() + 8));
        put_varint(
            &mut secret,
            (beside as u64) << 1 | u64::from(checksum.is_some()),
        );
        secret.extend(checksum.iter().flat_map(|c| c.to_be_bytes()));
        hidden
            .iter()
            .for_each(|(_, bytes)| secret.extend_from_slice(bytes));
        secret.extend_from_slice(&units.frame.payload[units.header_len..]);

        let meta = associated(&units, &readable);
        let mut sealed = Vec::new();
        let secret: &[u8] = &secret;
        let cipher = |e: SframeError| CryptError::Cipher(e.to_string());
        let frame = MediaFrameView::try_with_meta_data(&mut sending.counter, secret, &meta[..])
            .map_err(cipher)?;
        let sealed = frame
            .encrypt_into(&sending.key, &mut sealed)
            .map_err(cipher)?
            .sframe_cipher_text();
        readable.extend_from_slice(sealed);

        let mut out = Vec::with_capacity(data.len() + 64);
        out.extend_from_slice(units.sequence_bytes);
        if header.is_key() {
            write_unit(&mut out, KEYING_UNIT, &sending.keying)?;
        }
        plain
            .iter()
            .for_each(|(_, bytes)| out.extend_from_slice(bytes));
        write_unit(&mut out, UnitType::EncryptedFrame, &readable)?;
        // Readers take so many units before a frame, and no more.
        AccessUnit::parse(&out)?;
        Ok(out)
    }

    fn begin_group(&mut self) -> Result<(), CryptError> {
        let due = match &mut self.sending {
            None => true,
            Some(sending) => {
                sending.key_frames = sending.key_frames.saturating_add(1);
                self.rotation > 0 && sending.key_frames >= self.rotation
            }
        };
        if let Some(next) = self.next.take() {
            self.current = Some(next);
        } else if !due {
            return Ok(());
        }
        let Some((number, secret)) = &self.current else {
            return Err(CryptError::NoKeyFrame);
        };
        self.slot = self.slot.wrapping_add(1) % SLOTS;
        let keying = Keying {
            slot: self.slot,
            number: *number,
            salt: random()?,
        };
        let cipher = |e: SframeError| CryptError::Cipher(e.to_string());
        let base = keying.base(secret).map_err(cipher)?;
        self.sending = Some(Sending {
            key: EncryptionKey::derive_from(SUITE, u64::from(self.slot), &*base).map_err(cipher)?,
            counter: MonotonicCounter::default(),
            keying: keying.write(),
            key_frames: 0,
        });
        Ok(())
    }
}

/// Why a frame is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not encrypted, so anybody may have made it.
    #[error("a frame is not encrypted; set allow-plain if that is meant to be")]
    Plain,
    /// The secret is not known.
    #[error(
        "there is no key {0}: set key, key-file with a line \"{0}:HEX\", or answer request-key"
    )]
    NoKey(u64),
    /// No key frame came that says how it is encrypted.
    #[error("a frame before the first key frame that can be decrypted")]
    NoKeyFrame,
    /// The frame was changed, or the key is another one.
    #[error("a frame was changed on its way, or its key is not this one")]
    Tampered,
    /// It was there before.
    #[error("a frame was sent again, or later than the replay window allows")]
    Replayed,
    /// It is damaged, or of a later version.
    #[error(transparent)]
    Bitstream(#[from] BitstreamError),
}

struct Receiving {
    keying: Keying,
    key: DecryptionKey,
    replay: Option<ReplayAttackProtection>,
}

impl Receiving {
    fn new(keying: Keying, secret: &Secret, window: usize) -> Result<Receiving, SframeError> {
        let slot = u64::from(keying.slot);
        let base = keying.base(secret)?;
        Ok(Receiving {
            key: DecryptionKey::derive_from(SUITE, slot, &*base)?,
            replay: Self::protection(&keying, window),
            keying,
        })
    }

    fn protection(keying: &Keying, window: usize) -> Option<ReplayAttackProtection> {
        let tolerance = Tolerance::try_new(window).ok()?;
        Some(ReplayAttackProtection::new(
            u64::from(keying.slot),
            tolerance,
        ))
    }

    /// Opens what follows a frame's header.
    fn open(&mut self, sealed: &[u8], meta: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let frame =
            EncryptedFrameView::try_with_meta_data(sealed, meta).map_err(|_| Refusal::Tampered)?;
        let mut buffer = Vec::new();
        let opened = match &mut self.replay {
            None => frame.decrypt_into(&self.key, &mut buffer),
            Some(replay) => frame.validated_decrypt_into(&self.key, &mut buffer, replay),
        };
        match opened {
            Ok(opened) => Ok(Zeroizing::new(opened.payload().to_vec())),
            Err(e) => Err(match e.source_as::<ReplayAttackProtectionError>() {
                Some(_) => Refusal::Replayed,
                None => Refusal::Tampered,
            }),
        }
    }
}

/// Decrypts access units, of one sender after the other.
pub struct Decryptor {
    window: usize,
    /// By SFrame's key id.
    receiving: HashMap<u64, Receiving>,
    /// Salts of those that were replaced, oldest first.
    retired: VecDeque<[u8; SALT]>,
}

impl std::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decryptor").finish_non_exhaustive()
    }
}

impl Decryptor {
    /// Refuses frames that were there before, and those more than `window` frames older than the
    /// newest; 0: takes all, as often as they come.
    pub fn new(window: u32) -> Decryptor {
        Decryptor {
            window: window as usize,
            receiving: HashMap::new(),
            retired: VecDeque::new(),
        }
    }

    /// The reader goes to another place of the stream: frames may come again, and from now on as
    /// `window` says.
    pub fn restart(&mut self, window: u32) {
        self.window = window as usize;
        self.retired.clear();
        for receiving in self.receiving.values_mut() {
            receiving.replay = Receiving::protection(&receiving.keying, self.window);
        }
    }

    /// Decrypts an access unit with what `secret` says for a number.
    ///
    /// # Errors
    /// [`Refusal`]: nothing of the access unit may be shown.
    pub fn decrypt(
        &mut self,
        data: &[u8],
        secret: impl FnOnce(u64) -> Option<Secret>,
    ) -> Result<Vec<u8>, Refusal> {
        let units = Units::of(data)?;
        if units.frame.kind != UnitType::EncryptedFrame {
            return Err(Refusal::Plain);
        }
        let (readable, sealed) = units.frame.payload.split_at(units.header_len);
        let meta = associated(&units, readable);
        let keying = units
            .others
            .iter()
            .find(|(unit, _)| unit.kind == KEYING_UNIT);
        let opened = match keying {
            Some((unit, _)) => {
                let keying = Keying::parse(unit.payload)?;
                let slot = u64::from(keying.slot);
                match self.receiving.get_mut(&slot) {
                    Some(known) if known.keying == keying => known.open(sealed, &meta)?,
                    _ if self.retired.contains(&keying.salt) => return Err(Refusal::Replayed),
                    _ => {
                        let number = keying.number;
                        let secret = secret(number).ok_or(Refusal::NoKey(number))?;
                        // Only what opens a frame takes the place of what did so.
                        let mut new = Receiving::new(keying, &secret, self.window)
                            .map_err(|_| Refusal::Tampered)?;
                        let opened = new.open(sealed, &meta)?;
                        self.begin(slot, new);
                        opened
                    }
                }
            }
            None => {
                let slot = EncryptedFrameView::try_new(sealed)
                    .map_err(|_| Refusal::Tampered)?
                    .header()
                    .key_id();
                self.receiving
                    .get_mut(&slot)
                    .ok_or(Refusal::NoKeyFrame)?
                    .open(sealed, &meta)?
            }
        };
        restore(&units, &opened)
    }

    fn begin(&mut self, slot: u64, new: Receiving) {
        if let Some(old) = self.receiving.insert(slot, new)
            && self.window > 0
        {
            if self.retired.len() == RETIRED {
                self.retired.pop_front();
            }
            self.retired.push_back(old.keying.salt);
        }
    }
}

/// Puts an access unit together again.
fn restore(units: &Units, opened: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut r = Reader::new("encrypted frame", opened);
    let first = r.varint("length of units")?;
    let checksum = match first & 1 {
        0 => None,
        _ => Some(r.u32("checksum")?),
    };
    let beside = r.bytes((first >> 1) as usize, "units")?;
    let parts = r.bytes(r.left(), "parts")?;
    let header = FrameHeader {
        checksum,
        ..units.header.clone()
    };
    let mut payload = Vec::with_capacity(parts.len() + 64);
    header.write(&mut payload)?;
    payload.extend_from_slice(parts);
    let mut out = Vec::with_capacity(opened.len() + units.sequence_bytes.len() + 128);
    out.extend_from_slice(units.sequence_bytes);
    let fillers = units
        .others
        .iter()
        .filter(|(unit, _)| unit.kind == UnitType::Filler);
    fillers.for_each(|(_, bytes)| out.extend_from_slice(bytes));
    out.extend_from_slice(beside);
    write_unit(&mut out, UnitType::Frame, &payload)?;
    Ok(out)
}

#[cfg(test)]
pub(crate) mod tests;

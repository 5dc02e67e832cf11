// SPDX-License-Identifier: MPL-2.0
//! Chained Ed25519 signatures: who made the pictures, and that none is changed, missing or added.
//!
//! A signature covers a *run*: the access units since the last signature, up to and with the one
//! that carries it. It names the run's number, its frames and the signature before. Decoding is
//! exact, so signed bytes are signed pictures; where frames have checksums, those are signed too,
//! and a decoder holds its output against them.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use nnv_bitstream::io::{Reader, put_varint};
use nnv_bitstream::{AccessUnit, BitstreamError, Unit, UnitType, write_unit};
use sha2::{Digest, Sha256};

use crate::units::Units;
use crate::{CryptError, SIGNATURE_UNIT, random};

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"NNV signature 1\0";
const END: u8 = 1;
const TIME: u8 = 2;
const STREAM: usize = 16;
const DIGEST: usize = 32;

/// What a signature unit says, but for the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    key: [u8; 32],
    stream: [u8; STREAM],
    run: u64,
    frames: u64,
    previous: [u8; DIGEST],
    /// Unix time in ns.
    time: Option<u64>,
    end: bool,
}

impl Statement {
    fn write(&self) -> Vec<u8> {
        let flag = |on: bool, f: u8| if on { f } else { 0 };
        let mut out = vec![
            VERSION,
            flag(self.end, END) | flag(self.time.is_some(), TIME),
        ];
        out.extend(self.key);
        out.extend(self.stream);
        put_varint(&mut out, self.run);
        put_varint(&mut out, self.frames);
        out.extend(self.previous);
        out.extend(self.time.iter().flat_map(|t| t.to_be_bytes()));
        out
    }

    /// The statement and its signature.
    fn parse(payload: &[u8]) -> Result<(Statement, Signature), BitstreamError> {
        let mut r = Reader::new("signature unit", payload);
        let version = r.u8("version")?;
        if version != VERSION {
            return r.fail("version", version.into(), "1 (update to read others)");
        }
        let flags = r.u8("flags")?;
        if flags & !(END | TIME) != 0 {
            return r.fail("flags", flags.into(), "0 to 3");
        }
        let statement = Statement {
            key: r.array("key")?,
            stream: r.array("stream")?,
            run: r.varint("run")?,
            frames: r.varint("frames")?,
            previous: r.array("previous")?,
            time: match flags & TIME {
                0 => None,
                _ => Some(u64::from_be_bytes(r.array("time")?)),
            },
            end: flags & END != 0,
        };
        let signature = Signature::from_bytes(&r.array("signature")?);
        if r.left() > 0 {
            let (header, left) = ("signature unit", r.left());
            return Err(BitstreamError::Trailing { header, left });
        }
        Ok((statement, signature))
    }

    /// What is signed.
    fn message(&self, run: &[u8; DIGEST]) -> Vec<u8> {
        [DOMAIN, &self.write(), run].concat()
    }
}

/// Digest of the access units of a run.
#[derive(Clone, Default)]
struct Run {
    hash: Sha256,
    frames: u64,
}

impl Run {
    fn add(&mut self, units: &Units) {
        let mut add = |unit: &Unit| {
            self.hash.update([unit.kind.code()]);
            // Units are shorter than 2^28 bytes.
            self.hash.update((unit.payload.len() as u32).to_be_bytes());
            self.hash.update(unit.payload);
        };
        units.sequence.iter().for_each(&mut add);
        let kept = |unit: &&Unit| unit.kind != UnitType::Filler && unit.kind != SIGNATURE_UNIT;
        units
            .others
            .iter()
            .map(|(unit, _)| unit)
            .filter(kept)
            .for_each(&mut add);
        add(&units.frame);
        self.frames += 1;
    }

    fn digest(&self) -> [u8; DIGEST] {
        self.hash.clone().finalize().into()
    }
}

fn digest_of(signature: &Signature) -> [u8; DIGEST] {
    Sha256::digest(signature.to_bytes()).into()
}

/// Signs a stream. Access units are handed over one behind: only when the next one is a key frame,
/// or there is none, is it known that a group ends.
pub struct Signer {
    key: SigningKey,
    stream: [u8; STREAM],
    number: u64,
    previous: [u8; DIGEST],
    run: Run,
    interval: u64,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs a new stream, at the end of each group and after `interval` frames of one (0: never).
    ///
    /// # Errors
    /// [`CryptError::Random`].
    pub fn new(key: SigningKey, interval: u32) -> Result<Signer, CryptError> {
        Ok(Signer {
            key,
            stream: random()?,
            number: 0,
            previous: [0; DIGEST],
            run: Run::default(),
            interval: interval.into(),
        })
    }

    /// Whether the run that `next` follows must be signed before it; `None`: the stream ends.
    ///
    /// # Errors
    /// [`CryptError::Bitstream`] where `next` is no access unit.
    pub fn ends_before(&self, next: &[u8]) -> Result<bool, CryptError> {
        Ok(nnv_bitstream::AccessUnit::parse(next)?.frame.is_key())
    }

    /// Takes an access unit; `last`: the group ends with it. Returns it, with a signature where its
    /// run ends.
    ///
    /// # Errors
    /// [`CryptError::Bitstream`] where it is no access unit, [`CryptError::Encrypted`]: what is
    /// signed is what is shown.
    pub fn push(&mut self, data: &[u8], last: Last) -> Result<Vec<u8>, CryptError> {
        let units = Units::of(data)?;
        if units.frame.kind == UnitType::EncryptedFrame {
            return Err(CryptError::Encrypted);
        }
        self.run.add(&units);
        let full = self.interval > 0 && self.run.frames >= self.interval;
        let ends = last != Last::No || full;
        let old = |unit: &Unit<'_>| unit.kind == SIGNATURE_UNIT;
        if !ends && !units.others.iter().any(|(unit, _)| old(unit)) {
            return Ok(data.to_vec());
        }
        // Signatures that were there before are of other runs: they go, wherever they stand.
        let signed = ends.then(|| self.end_run(last));
        let mut out = Vec::with_capacity(data.len() + 256);
        out.extend_from_slice(units.sequence_bytes);
        let others = units.others.iter().filter(|(unit, _)| !old(unit));
        others.for_each(|(_, bytes)| out.extend_from_slice(bytes));
        if let Some(payload) = signed {
            write_unit(&mut out, SIGNATURE_UNIT, &payload)?;
        }
        write_unit(&mut out, UnitType::Frame, units.frame.payload)?;
        // Readers take so many units before a frame, and no more.
        AccessUnit::parse(&out)?;
        Ok(out)
    }

    /// Signs the run in progress, and begins the next one. Returns the payload of the unit.
    fn end_run(&mut self, last: Last) -> Vec<u8> {
        let time = match last {
            Last::No => None,
            Last::OfGroup { time } | Last::OfStream { time } => time,
        };
        let statement = Statement {
            key: self.key.verifying_key().to_bytes(),
            stream: self.stream,
            run: self.number,
            frames: self.run.frames,
            previous: self.previous,
            time,
            end: matches!(last, Last::OfStream { .. }),
        };
        let signature = self.key.sign(&statement.message(&self.run.digest()));
        let mut payload = statement.write();
        payload.extend(signature.to_bytes());
        self.previous = digest_of(&signature);
        self.number += 1;
        self.run = Run::default();
        payload
    }
}

/// What ends with an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// Nothing.
    No,
    /// Its group of pictures.
    OfGroup {
        /// Unix time in ns, to be signed with it.
        time: Option<u64>,
    },
    /// The stream.
    OfStream {
        /// Unix time in ns, to be signed with it.
        time: Option<u64>,
    },
}

/// What a verifier found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A run is as it was signed.
    Verified {
        /// Its number.
        run: u64,
        /// Its frames.
        frames: u64,
        /// Frames of it with a checksum of the decoded picture.
        checksums: u64,
        /// When it was signed, Unix time in ns, as the signer says.
        time: Option<u64>,
    },
    /// The stream begins with a later run: what was before is cut off, or was never received.
    CutBegin {
        /// Number of the first run that is there.
        run: u64,
    },
    /// Runs are missing in between, or earlier ones come again.
    Missing {
        /// Number of the first one that is missing.
        from: u64,
        /// Number of the run that came instead.
        to: u64,
    },
    /// The stream ends before what the signer signed as its end: it is cut, or still grows.
    CutEnd {
        /// Number of the first run that is missing.
        run: u64,
    },
    /// Another signed stream begins.
    NewStream,
    /// A signature does not fit: bytes were changed, frames removed, added or put in another order.
    Tampered {
        /// What the signature says.
        run: u64,
        /// Frames that were signed.
        signed: u64,
        /// Frames that are there.
        found: u64,
    },
    /// Somebody else signed.
    ForeignKey {
        /// Who.
        key: [u8; 32],
    },
    /// Frames without a signature.
    Unsigned {
        /// How many.
        frames: u64,
    },
    /// A signature that cannot be read.
    Unreadable(BitstreamError),
}

impl Finding {
    /// Whether it is what a whole and genuine stream gives.
    pub fn is_good(&self) -> bool {
        matches!(self, Finding::Verified { .. })
    }

    /// Whether somebody changed what was signed, or something is missing within.
    pub fn is_bad(&self) -> bool {
        !matches!(
            self,
            Finding::Verified { .. }
                | Finding::CutBegin { .. }
                | Finding::CutEnd { .. }
                | Finding::NewStream
        )
    }

    /// A name for scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Finding::Verified { .. } => "verified",
            Finding::CutBegin { .. } => "cut-begin",
            Finding::Missing { .. } => "missing",
            Finding::CutEnd { .. } => "cut-end",
            Finding::NewStream => "new-stream",
            Finding::Tampered { .. } => "tampered",
            Finding::ForeignKey { .. } => "foreign-key",
            Finding::Unsigned { .. } => "unsigned",
            Finding::Unreadable(_) => "unreadable",
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finding::Verified { run, frames, .. } => {
                write!(f, "run {run} of {frames} frames is as it was signed")
            }
            Finding::CutBegin { run } => write!(
                f,
                "the stream begins with run {run}: its beginning is cut off or was not received"
            ),
            Finding::Missing { from, to } if to < from => write!(
                f,
                "run {to} comes instead of run {from}: runs were repeated or put in another order"
            ),
            Finding::Missing { from, to } => write!(
                f,
                "runs {from} to {} are missing: they were removed or lost",
                to.saturating_sub(1)
            ),
            Finding::CutEnd { run } => write!(
                f,
                "the stream ends before run {run}: its end is cut off, or it was never finished"
            ),
            Finding::NewStream => write!(f, "another signed stream begins"),
            Finding::Tampered { run, signed, found } if signed != found => write!(
                f,
                "run {run} has {found} frames, {signed} were signed: frames were removed or added"
            ),
            Finding::Tampered { run, .. } => {
                write!(f, "run {run} was changed after it was signed")
            }
            Finding::ForeignKey { key } => write!(
                f,
                "signed with another key, ed25519-public:{}",
                crate::keys::hex(key)
            ),
            Finding::Unsigned { frames } => write!(f, "{frames} frames are not signed"),
            Finding::Unreadable(e) => write!(f, "a signature cannot be read: {e}"),
        }
    }
}

struct Position {
    stream: [u8; STREAM],
    run: u64,
    digest: [u8; DIGEST],
    end: bool,
}

/// Verifies a stream against a public key.
pub struct Verifier {
    key: VerifyingKey,
    run: Run,
    checksums: u64,
    /// The last signature, good or bad, as far as it could be believed.
    last: Option<Position>,
    /// Where runs begin is known: a key frame or a signature was met.
    joined: bool,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Verifier {
    /// Takes what was signed with `key` for genuine.
    pub fn new(key: VerifyingKey) -> Verifier {
        Verifier {
            key,
            run: Run::default(),
            checksums: 0,
            last: None,
            joined: false,
        }
    }

    /// The reader goes to another place of the stream.
    pub fn restart(&mut self) {
        *self = Verifier::new(self.key);
    }

    /// Takes an access unit; says what is known with it.
    ///
    /// # Errors
    /// [`CryptError`] where it is no access unit, or encrypted.
    pub fn push(&mut self, data: &[u8]) -> Result<Vec<Finding>, CryptError> {
        let units = Units::of(data)?;
        if units.frame.kind == UnitType::EncryptedFrame {
            return Err(CryptError::Encrypted);
        }
        let mut findings = Vec::new();
        if units.header.is_key() {
            // A run never goes on beyond a group.
            if self.joined && self.run.frames > 0 {
                findings.push(Finding::Unsigned {
                    frames: self.run.frames,
                });
            }
            self.begin();
            self.joined = true;
        }
        self.run.add(&units);
        self.checksums += u64::from(units.header.checksum.is_some());
        for (unit, _) in units
            .others
            .iter()
            .filter(|(unit, _)| unit.kind == SIGNATURE_UNIT)
        {
            match Statement::parse(unit.payload) {
                Ok((statement, signature)) if self.joined => {
                    self.judge(&statement, &signature, &mut findings);
                }
                Ok(_) => {}
                Err(e) => findings.push(Finding::Unreadable(e)),
            }
            self.begin();
            self.joined = true;
        }
        Ok(findings)
    }

    fn begin(&mut self) {
        self.run = Run::default();
        self.checksums = 0;
    }

    fn judge(&mut self, said: &Statement, signature: &Signature, findings: &mut Vec<Finding>) {
        if said.key != self.key.to_bytes() {
            findings.push(Finding::ForeignKey { key: said.key });
            return;
        }
        let message = said.message(&self.run.digest());
        let sound =
            said.frames == self.run.frames && self.key.verify_strict(&message, signature).is_ok();
        if !sound {
            // Nothing that it says can be believed but for a report.
            findings.push(Finding::Tampered {
                run: said.run,
                signed: said.frames,
                found: self.run.frames,
            });
            if let Some(last) = &mut self.last {
                // Were it genuine, the next one would follow it; the chain cannot be held to it.
                last.digest = [0; DIGEST];
                last.run = last.run.saturating_add(1);
            }
            return;
        }
        match &self.last {
            None if said.run > 0 => findings.push(Finding::CutBegin { run: said.run }),
            None => {}
            Some(last) if last.stream != said.stream => {
                if !last.end {
                    findings.push(Finding::CutEnd {
                        run: last.run.saturating_add(1),
                    });
                }
                findings.push(Finding::NewStream);
                if said.run > 0 {
                    findings.push(Finding::CutBegin { run: said.run });
                }
            }
            Some(last) => {
                let next = last.run.saturating_add(1);
                // After a run that did not fit, only the numbers tell.
                let chained = last.digest == [0; DIGEST] || last.digest == said.previous;
                if said.run != next || !chained {
                    findings.push(Finding::Missing {
                        from: next,
                        to: said.run,
                    });
                }
            }
        }
        self.last = Some(Position {
            stream: said.stream,
            run: said.run,
            digest: digest_of(signature),
            end: said.end,
        });
        findings.push(Finding::Verified {
            run: said.run,
            frames: said.frames,
            checksums: self.checksums,
            time: said.time,
        });
    }

    /// The stream ends.
    pub fn finish(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.run.frames > 0 {
            findings.push(Finding::Unsigned {
                frames: self.run.frames,
            });
        }
        if let Some(last) = &self.last
            && !last.end
        {
            findings.push(Finding::CutEnd {
                run: last.run.saturating_add(1),
            });
        }
        self.restart();
        findings
    }
}

#[cfg(test)]
mod tests;

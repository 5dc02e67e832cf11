// SPDX-License-Identifier: MPL-2.0
//! Access units: one frame, with the sequence header before it where there is one.

use std::borrow::Cow;
use std::ops::Range;

use super::BitstreamError;
use super::checksums::Checksums;
use super::frame::FrameHeader;
use super::sequence::SequenceHeader;
use super::unit::{Scan, UnitScanner, UnitType};

/// Most units that may stand before the frame of an access unit, its sequence header among them.
pub(crate) const MAX_LEADING_UNITS: usize = 16;

/// An access unit: its sequence header, parsed, and the payload of its frame unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit<'a> {
    /// The sequence header before the frame, if any.
    pub sequence: Option<SequenceHeader>,
    /// Where the sequence header's unit lies in the data: what goes into `streamheader`.
    pub sequence_unit: Option<Range<usize>>,
    /// The frame's header.
    pub frame: FrameHeader,
    /// The payload of the frame unit, for [`FramePayload::parse`](super::FramePayload::parse) where
    /// it is not encrypted.
    pub payload: &'a [u8],
    /// What follows the frame's header is enciphered.
    pub encrypted: bool,
    /// Length of the access unit.
    pub len: usize,
}

impl<'a> AccessUnit<'a> {
    /// Takes apart data that is exactly one access unit, as a decoder gets it.
    ///
    /// # Errors
    /// [`BitstreamError`] when it is anything else, or a header is damaged.
    pub fn parse(data: &'a [u8]) -> Result<AccessUnit<'a>, BitstreamError> {
        let bad = |what| Err(BitstreamError::AccessUnit(what));
        let scanner = UnitScanner::new();
        let (mut pos, mut sequence, mut sequence_unit) = (0, None, None);
        for _ in 0..=MAX_LEADING_UNITS {
            let unit = match scanner.scan(&data[pos..], true) {
                Scan::Unit(u) => u,
                Scan::End if pos == 0 => return bad("no data"),
                Scan::End => return bad("no frame in it"),
                Scan::Skip(_) | Scan::NeedMore(_) => return bad("a unit is cut or damaged"),
            };
            match unit.kind {
                UnitType::Sequence if sequence.is_some() => return bad("two sequence headers"),
                UnitType::Sequence => {
                    sequence = Some(SequenceHeader::parse(unit.payload)?);
                    sequence_unit = Some(pos..pos + unit.len);
                }
                UnitType::Frame | UnitType::EncryptedFrame => {
                    let (frame, _) = FrameHeader::parse(unit.payload)?;
                    let len = pos + unit.len;
                    if len != data.len() {
                        return bad("bytes after its frame");
                    }
                    return Ok(AccessUnit {
                        sequence,
                        sequence_unit,
                        frame,
                        payload: unit.payload,
                        encrypted: unit.kind == UnitType::EncryptedFrame,
                        len,
                    });
                }
                kind if kind.is_critical() => {
                    return Err(BitstreamError::Critical(kind.code()));
                }
                UnitType::Filler
                | UnitType::FrameMetadata
                | UnitType::StreamMetadata
                | UnitType::Unknown(_) => {}
            }
            pos += unit.len;
        }
        bad("too many units before its frame")
    }
}

/// What stands at the beginning of some bytes, in access units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessUnitScan<'a> {
    /// A whole access unit with sound headers.
    Unit(Box<AccessUnit<'a>>),
    /// So many bytes are damaged or belong to no access unit: pass over them. Never 0.
    Skip(usize),
    /// So many bytes are a sequence header that another one or the end follows, as senders repeat
    /// them: nothing is lost.
    Repeated(usize),
    /// Nothing can be said before there are at least so many bytes. Never at the end of the stream.
    NeedMore(usize),
    /// A sequence header that this decoder cannot read (a later version, a field out of range) or
    /// a unit that must not be passed over: nothing after it makes sense before the next sequence
    /// header. The number says how many bytes to pass over.
    Unsupported(usize, BitstreamError),
    /// There are no bytes left. Only at the end of the stream.
    End,
}

/// Finds access units in bytes that may hold anything, as [`UnitScanner::scan`] finds units.
pub fn scan_access_unit<'a>(
    scanner: &UnitScanner,
    data: &'a [u8],
    eos: bool,
) -> AccessUnitScan<'a> {
    scan_at(scanner, &mut Checksums::default(), 0, data, eos)
}

/// Finds the access units of a stream from its beginning to its end. All its calls together take
/// time linear in the bytes of the stream.
#[derive(Clone, Debug)]
pub struct AccessUnitScanner {
    units: UnitScanner,
    sums: Checksums,
    /// Where the stream went on at the last call.
    offset: u64,
}

impl Default for AccessUnitScanner {
    fn default() -> Self {
        AccessUnitScanner {
            units: UnitScanner::unknown_pictures(),
            sums: Checksums::default(),
            offset: 0,
        }
    }
}

impl AccessUnitScanner {
    /// Takes over what is known of the pictures: it bounds how long a frame may be. A sequence
    /// header does so for the frame of its own access unit without this.
    pub fn set_pictures(&mut self, width: u32, height: u32) {
        self.units = UnitScanner::of_pictures(width, height);
    }

    /// The stream goes on somewhere else.
    pub fn restart(&mut self) {
        self.sums = Checksums::default();
    }

    /// Says what stands at the beginning of `data`, which is at `offset` in the stream. `eos`:
    /// nothing will follow. Where data are passed over, all are that hold no sound access unit.
    pub fn scan<'a>(&mut self, offset: u64, data: &'a [u8], eos: bool) -> AccessUnitScan<'a> {
        if offset < self.offset {
            self.restart();
        }
        self.offset = offset;
        scan_at(&self.units, &mut self.sums, offset, data, eos)
    }
}

fn scan_at<'a>(
    scanner: &UnitScanner,
    sums: &mut Checksums,
    offset: u64,
    data: &'a [u8],
    eos: bool,
) -> AccessUnitScan<'a> {
    let (mut pos, mut sequence, mut sequence_unit) = (0, None, None);
    // How long frames may be follows the header of the very access unit.
    let mut scanner = Cow::Borrowed(scanner);
    for _ in 0..=MAX_LEADING_UNITS {
        let unit = match scanner.scan_at(sums, offset + pos as u64, &data[pos..], eos) {
            Scan::Unit(u) => u,
            Scan::NeedMore(n) => return AccessUnitScan::NeedMore(pos + n),
            Scan::End if pos == 0 => return AccessUnitScan::End,
            Scan::End if sequence.is_some() => return AccessUnitScan::Repeated(pos),
            Scan::End => return AccessUnitScan::Skip(pos),
            // Sound leading units wait for the frame that follows the damage: drop the damage
            // first. The caller cannot cut it out of the middle, so a sequence header right before
            // damage is lost with it.
            Scan::Skip(n) => return AccessUnitScan::Skip(pos + n),
        };
        match unit.kind {
            // The earlier header had no frame: begin with this one.
            UnitType::Sequence if sequence.is_some() => return AccessUnitScan::Repeated(pos),
            UnitType::Sequence => match SequenceHeader::parse(unit.payload) {
                Ok(h) => {
                    scanner = Cow::Owned(scanner.for_pictures(h.width, h.height));
                    sequence = Some(h);
                    sequence_unit = Some(pos..pos + unit.len);
                }
                Err(e) => return AccessUnitScan::Unsupported(pos + unit.len, e),
            },
            UnitType::Frame | UnitType::EncryptedFrame => {
                let len = pos + unit.len;
                return match FrameHeader::parse(unit.payload) {
                    Ok((frame, _)) => AccessUnitScan::Unit(Box::new(AccessUnit {
                        sequence,
                        sequence_unit,
                        frame,
                        payload: unit.payload,
                        encrypted: unit.kind == UnitType::EncryptedFrame,
                        len,
                    })),
                    Err(_) => AccessUnitScan::Skip(len),
                };
            }
            kind if kind.is_critical() => {
                let error = BitstreamError::Critical(kind.code());
                return AccessUnitScan::Unsupported(pos + unit.len, error);
            }
            UnitType::Filler
            | UnitType::FrameMetadata
            | UnitType::StreamMetadata
            | UnitType::Unknown(_) => {}
        }
        pos += unit.len;
    }
    AccessUnitScan::Skip(pos)
}

#[cfg(test)]
mod tests {
    use super::super::unit::write_unit;
    use super::*;

    fn frame(poc: u32) -> Vec<u8> {
        let h = if poc == 0 {
            FrameHeader::key(0, 9)
        } else {
            FrameHeader::inter(0, poc, 9, poc - 1, None)
        };
        let f = super::super::FramePayload {
            header: h,
            map: b"",
            ink: b"",
            still: b"",
            side: b"",
            z: b"z",
            y: vec![&b"yyyy"[..]],
        };
        f.to_payload(1).unwrap()
    }

    fn stream(kinds: &[(UnitType, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        kinds
            .iter()
            .for_each(|(k, p)| write_unit(&mut out, *k, p).unwrap());
        out
    }

    fn header() -> Vec<u8> {
        SequenceHeader::new("b", [7; 8], 64, 48, 8)
            .to_payload()
            .unwrap()
    }

    #[test]
    fn access_units_are_found_and_taken_apart() {
        fn sized(s: &[u8]) -> AccessUnitScan<'_> {
            scan_access_unit(&UnitScanner::new(), s, false)
        }
        let one = stream(&[
            (UnitType::Filler, vec![0; 9]),
            (UnitType::Sequence, header()),
            (UnitType::Unknown(77), vec![1]),
            (UnitType::Frame, frame(0)),
        ]);
        let two = stream(&[(UnitType::Frame, frame(1))]);
        let both = [&one[..], &two].concat();
        let AccessUnitScan::Unit(u) = sized(&both) else {
            panic!("{:?}", sized(&both))
        };
        assert_eq!(u.len, one.len());
        assert!(u.frame.is_key() && u.sequence.as_ref().unwrap().width == 64);
        let only = &both[u.sequence_unit.clone().unwrap()];
        assert_eq!(only, stream(&[(UnitType::Sequence, header())]));
        assert_eq!(AccessUnit::parse(&one), Ok(*u));
        assert!(matches!(
            sized(&two),
            AccessUnitScan::Unit(u) if u.frame.poc == 1 && u.sequence.is_none()
        ));
        assert!(AccessUnit::parse(&both).is_err());
        assert!(AccessUnit::parse(&[]).is_err());
        assert!(AccessUnit::parse(&one[..one.len() - two.len()]).is_err());
        for n in 0..one.len() {
            assert!(
                matches!(sized(&one[..n]), AccessUnitScan::NeedMore(m) if m > n),
                "{n}"
            );
        }
    }

    #[test]
    fn headers_without_a_frame_and_unreadable_headers() {
        fn scan(s: &[u8]) -> AccessUnitScan<'_> {
            scan_access_unit(&UnitScanner::new(), s, true)
        }
        let s = stream(&[
            (UnitType::Sequence, header()),
            (UnitType::Sequence, header()),
        ]);
        assert_eq!(scan(&s), AccessUnitScan::Repeated(s.len() / 2));
        assert_eq!(
            scan(&s[s.len() / 2..]),
            AccessUnitScan::Repeated(s.len() / 2)
        );
        assert_eq!(scan(&[]), AccessUnitScan::End);
        let mut newer = header();
        newer[4] = 9;
        let s = stream(&[(UnitType::Sequence, newer)]);
        assert_eq!(
            scan(&s),
            AccessUnitScan::Unsupported(s.len(), BitstreamError::Version(9))
        );
        let s = stream(&[(UnitType::Frame, vec![0xff; 20])]);
        assert_eq!(scan(&s), AccessUnitScan::Skip(s.len()));
        let s = stream(&vec![(UnitType::Filler, vec![]); 40]);
        assert!(matches!(scan(&s), AccessUnitScan::Skip(n) if n > 0));
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Units: the self-delimiting pieces of a stream.
//!
//! `start code (3) | type (1) | length (1 to 4) | header check (1) | payload | CRC-32C (4)`

use std::ops::Range;

use super::BitstreamError;
use super::checksums::Checksums;
use super::limits::{
    FIRST_CRITICAL_UNIT, MAX_ENCRYPTION, MAX_OTHER_PAYLOAD, MAX_PAYLOAD, MAX_SEQUENCE_PAYLOAD,
    max_frame_payload,
};

/// First bytes of every unit.
pub const START_CODE: [u8; 3] = [0x8e, b'N', b'V'];
/// Bytes of the shortest unit, which has no payload.
pub const MIN_UNIT: usize = START_CODE.len() + 3 + CRC_LEN;
/// Longest header: start code, type, length, check.
const MAX_HEADER: usize = START_CODE.len() + 1 + MAX_LENGTH_BYTES + 1;
const MAX_LENGTH_BYTES: usize = 4;
/// Bytes of the checksum after a payload.
pub const CRC_LEN: usize = 4;

/// Type of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnitType {
    /// A sequence header.
    Sequence,
    /// A frame.
    Frame,
    /// Bytes without meaning, for constant bit rate.
    Filler,
    /// Captions, time codes and the like of the frame that follows.
    FrameMetadata,
    /// Tags and the like that hold from the key frame on that follows.
    StreamMetadata,
    /// A frame with a header that can be read; what follows it is enciphered.
    EncryptedFrame,
    /// A type of a later version.
    Unknown(u8),
}

impl UnitType {
    /// The type's code in the stream.
    pub fn code(self) -> u8 {
        match self {
            UnitType::Sequence => 1,
            UnitType::Frame => 2,
            UnitType::Filler => 3,
            UnitType::FrameMetadata => 4,
            UnitType::StreamMetadata => 5,
            UnitType::EncryptedFrame => 128,
            UnitType::Unknown(c) => c,
        }
    }

    /// Whether a frame header stands at the beginning of the payload, and the access unit ends with
    /// the unit.
    pub fn is_frame(self) -> bool {
        matches!(self, UnitType::Frame | UnitType::EncryptedFrame)
    }

    /// The type with this code.
    pub fn from_code(code: u8) -> UnitType {
        match code {
            1 => UnitType::Sequence,
            2 => UnitType::Frame,
            3 => UnitType::Filler,
            4 => UnitType::FrameMetadata,
            5 => UnitType::StreamMetadata,
            128 => UnitType::EncryptedFrame,
            c => UnitType::Unknown(c),
        }
    }

    /// Whether pictures would be wrong where this unit is passed over: an unknown type that later
    /// versions use for what changes the meaning of frames.
    pub fn is_critical(self) -> bool {
        matches!(self, UnitType::Unknown(FIRST_CRITICAL_UNIT..))
    }
}

/// Appends a unit to `out`.
///
/// # Errors
/// [`BitstreamError::UnitTooLong`] beyond [`MAX_PAYLOAD`].
pub fn write_unit(out: &mut Vec<u8>, kind: UnitType, payload: &[u8]) -> Result<(), BitstreamError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(BitstreamError::UnitTooLong(payload.len()));
    }
    out.reserve(payload.len() + MAX_HEADER + CRC_LEN);
    out.extend(START_CODE);
    let header = out.len();
    out.push(kind.code());
    super::io::put_varint(out, payload.len() as u64);
    let crc = crc32c::crc32c(&out[header..]);
    out.push(crc as u8);
    out.extend_from_slice(payload);
    let crc = crc32c::crc32c_append(crc, payload);
    out.extend(crc.to_be_bytes());
    Ok(())
}

/// A whole unit whose checksums hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit<'a> {
    /// Its type.
    pub kind: UnitType,
    /// Its payload.
    pub payload: &'a [u8],
    /// Length of the whole unit, from the start code to the checksum.
    pub len: usize,
}

/// What stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan<'a> {
    /// A unit.
    Unit(Unit<'a>),
    /// So many bytes belong to no sound unit: pass over them. Never 0.
    Skip(usize),
    /// Nothing can be said before there are at least so many bytes. Never at the end of the stream.
    NeedMore(usize),
    /// There are no bytes left. Only at the end of the stream.
    End,
}

/// What a unit's header says, without a look at its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Type of the unit and where its payload lies; [`CRC_LEN`] bytes follow it.
    Sound(UnitType, Range<usize>),
    /// No unit begins here.
    Bad,
    /// Nothing can be said before there are at least so many bytes.
    NeedMore(usize),
}

/// Reads the header of a unit at the beginning of `data`, which need not hold all of the unit: for
/// indexing files without reading all of them. Only the header's own check is verified.
pub fn peek_unit(data: &[u8]) -> Peek {
    for (i, &s) in START_CODE.iter().enumerate() {
        match data.get(i) {
            Some(&b) if b == s => {}
            Some(_) => return Peek::Bad,
            None => return Peek::NeedMore(MIN_UNIT),
        }
    }
    let at = START_CODE.len();
    let Some(&code) = data.get(at) else {
        return Peek::NeedMore(MIN_UNIT);
    };
    let mut len = 0usize;
    for i in 0..MAX_LENGTH_BYTES {
        let Some(&b) = data.get(at + 1 + i) else {
            return Peek::NeedMore(MIN_UNIT + i);
        };
        if b == 0 && i > 0 {
            return Peek::Bad;
        }
        len |= usize::from(b & 0x7f) << (7 * i);
        if b & 0x80 != 0 {
            continue;
        }
        let check_at = at + 2 + i;
        let Some(&check) = data.get(check_at) else {
            return Peek::NeedMore(MIN_UNIT + i);
        };
        if crc32c::crc32c(&data[at..check_at]) as u8 != check {
            return Peek::Bad;
        }
        let start = check_at + 1;
        return Peek::Sound(UnitType::from_code(code), start..start + len);
    }
    Peek::Bad
}

/// Finds units in bytes that may hold anything: garbage, cut units, flipped bits.
///
/// It keeps no bytes, only how long a unit may be: hand it the same buffer again, with more at its
/// end or less at its beginning, as its answers say. One call takes time linear in its bytes.
#[derive(Clone, Debug)]
pub struct UnitScanner {
    /// For units of all types.
    max: usize,
    max_sequence: usize,
    max_frame: usize,
    max_other: usize,
}

impl Default for UnitScanner {
    fn default() -> Self {
        Self::with_max_payload(MAX_PAYLOAD)
    }
}

/// What is known of a place where a unit may begin.
enum Candidate<'a> {
    Unit(Unit<'a>),
    /// Its end is not there yet: so many bytes are needed.
    Open(usize),
    None,
}

impl UnitScanner {
    /// A scanner for units of any length that the format allows.
    pub fn new() -> UnitScanner {
        UnitScanner::default()
    }

    /// Treats units with longer payloads as damaged: bounds how much a reader must buffer.
    pub fn with_max_payload(max_payload: usize) -> UnitScanner {
        let max = max_payload.min(MAX_PAYLOAD);
        UnitScanner {
            max,
            max_sequence: max,
            max_frame: max,
            max_other: max,
        }
    }

    /// A scanner for a stream that nothing is known of: frames before the first sequence header are
    /// of no use, so they may be as long as other units.
    pub fn unknown_pictures() -> UnitScanner {
        UnitScanner {
            max: MAX_PAYLOAD,
            max_sequence: MAX_SEQUENCE_PAYLOAD,
            max_frame: MAX_OTHER_PAYLOAD,
            max_other: MAX_OTHER_PAYLOAD,
        }
    }

    /// A scanner for a stream of pictures of this size: longer units are damage.
    pub fn of_pictures(width: u32, height: u32) -> UnitScanner {
        let max_frame = max_frame_payload(width, height);
        UnitScanner {
            max: MAX_PAYLOAD,
            max_sequence: MAX_SEQUENCE_PAYLOAD,
            max_frame,
            max_other: MAX_OTHER_PAYLOAD.max(max_frame),
        }
    }

    /// The same for pictures of this size.
    pub(crate) fn for_pictures(&self, width: u32, height: u32) -> UnitScanner {
        UnitScanner {
            max: self.max,
            ..Self::of_pictures(width, height)
        }
    }

    /// As [`peek_unit`], with units that are too long for this scanner as [`Peek::Bad`].
    pub(crate) fn peek(&self, data: &[u8]) -> Peek {
        match peek_unit(data) {
            Peek::Sound(kind, range) if range.len() > self.max_payload(kind) => Peek::Bad,
            peek => peek,
        }
    }

    fn max_payload(&self, kind: UnitType) -> usize {
        let max = match kind {
            UnitType::Sequence => self.max_sequence,
            UnitType::Frame => self.max_frame,
            UnitType::EncryptedFrame => self.max_frame.saturating_add(MAX_ENCRYPTION),
            UnitType::Filler
            | UnitType::FrameMetadata
            | UnitType::StreamMetadata
            | UnitType::Unknown(_) => self.max_other,
        };
        max.min(self.max)
    }

    /// Says what stands at the beginning of `data`. `eos`: nothing will follow.
    ///
    /// While the end of a unit is awaited, a whole one within what it claims shows that its length
    /// is damaged: the answer is then [`Scan::Skip`] up to that one.
    pub fn scan<'a>(&self, data: &'a [u8], eos: bool) -> Scan<'a> {
        self.scan_at(&mut Checksums::default(), 0, data, eos)
    }

    /// As [`scan`](Self::scan), for data at a place of a stream whose checksums so far are kept.
    pub(crate) fn scan_at<'a>(
        &self,
        sums: &mut Checksums,
        offset: u64,
        data: &'a [u8],
        eos: bool,
    ) -> Scan<'a> {
        if data.is_empty() {
            return if eos {
                Scan::End
            } else {
                Scan::NeedMore(MIN_UNIT)
            };
        }
        // Where the first unit may begin whose end is not there, and where that is.
        let mut open = None;
        match self.candidate(sums, offset, data, 0, eos) {
            Candidate::Unit(unit) => return Scan::Unit(unit),
            Candidate::Open(end) => open = Some((0, end)),
            // Bytes may have been lost within: the next unit can begin anywhere after this start
            // code.
            Candidate::None => {}
        }
        for at in memchr::memchr_iter(START_CODE[0], &data[1..]).map(|at| at + 1) {
            match self.candidate(sums, offset, data, at, eos) {
                Candidate::Unit(_) => return Scan::Skip(at),
                Candidate::Open(end) => open = open.or(Some((at, end))),
                Candidate::None => {}
            }
        }
        // To ask for a little more each time would make many calls of many bytes: an eighth more,
        // and to pass over an eighth, keep the sum of all calls linear.
        let more = data.len() + (data.len() / 8).max(1);
        match open {
            None => Scan::Skip(data.len()),
            Some((0, end)) => Scan::NeedMore(end.min(more)),
            Some((at, _)) if at >= data.len() / 8 => Scan::Skip(at),
            Some(_) => Scan::NeedMore(more),
        }
    }

    fn candidate<'a>(
        &self,
        sums: &mut Checksums,
        offset: u64,
        data: &'a [u8],
        at: usize,
        eos: bool,
    ) -> Candidate<'a> {
        let rest = &data[at..];
        match self.peek(rest) {
            Peek::Bad => Candidate::None,
            Peek::NeedMore(_) if eos => Candidate::None,
            Peek::NeedMore(needed) => Candidate::Open(at + needed.max(rest.len() + 1)),
            Peek::Sound(kind, range) => {
                let end = range.end + CRC_LEN;
                let Some(stored) = rest.get(range.end..end) else {
                    return if eos {
                        Candidate::None
                    } else {
                        Candidate::Open(at + end)
                    };
                };
                let stored = stored.iter().fold(0, |crc, b| crc << 8 | u32::from(*b));
                // The checksum covers type, length and payload: not the start code, not the
                // header's check.
                let header = &rest[START_CODE.len()..range.start - 1];
                let piece = (at + range.start, at + range.end);
                if sums.fit(header, data, offset, piece, stored) {
                    Candidate::Unit(Unit {
                        kind,
                        payload: &rest[range],
                        len: end,
                    })
                } else {
                    Candidate::None
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(kind: UnitType, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_unit(&mut out, kind, payload).unwrap();
        out
    }

    /// All sound units in `data`, which arrives `chunk` bytes at a time.
    fn collect(data: &[u8], chunk: usize) -> Vec<(u8, Vec<u8>)> {
        let scanner = UnitScanner::new();
        let (mut pos, mut end, mut found) = (0, 0, Vec::new());
        loop {
            match scanner.scan(&data[pos..end], end == data.len()) {
                Scan::Unit(u) => {
                    found.push((u.kind.code(), u.payload.to_vec()));
                    pos += u.len;
                }
                Scan::Skip(n) => {
                    assert!(n > 0 && pos + n <= end);
                    pos += n;
                }
                Scan::NeedMore(n) => {
                    assert!(n > end - pos && end < data.len());
                    end = (end + chunk).min(data.len());
                }
                Scan::End => return found,
            }
        }
    }

    #[test]
    fn units_are_found_whatever_the_chunks() {
        let payloads: Vec<Vec<u8>> = [0usize, 1, 5, 127, 128, 300, 20000]
            .iter()
            .map(|&n| (0..n).map(|i| (i * 7) as u8).collect())
            .collect();
        let data: Vec<u8> = payloads
            .iter()
            .enumerate()
            .flat_map(|(i, p)| unit(UnitType::from_code(i as u8), p))
            .collect();
        for chunk in [1, 3, 64, 1000, data.len()] {
            let found = collect(&data, chunk);
            assert_eq!(found.len(), payloads.len());
            for (i, (code, payload)) in found.iter().enumerate() {
                assert_eq!((usize::from(*code), payload), (i, &payloads[i]));
            }
        }
        assert_eq!(unit(UnitType::Frame, &[]).len(), MIN_UNIT);
    }

    #[test]
    fn a_damaged_unit_does_not_take_its_neighbours_along() {
        let units: Vec<Vec<u8>> = (0..3u8).map(|i| unit(UnitType::Frame, &[i; 40])).collect();
        for at in 0..units[1].len() {
            // A flipped bit, a lost byte, a byte too many, a unit cut short.
            let variants: [Vec<u8>; 4] = [
                units[1]
                    .iter()
                    .enumerate()
                    .map(|(i, &b)| if i == at { b ^ 0x10 } else { b })
                    .collect(),
                units[1]
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| *i != at)
                    .map(|(_, &b)| b)
                    .collect(),
                units[1]
                    .iter()
                    .enumerate()
                    .flat_map(|(i, &b)| vec![b; 1 + usize::from(i == at)])
                    .collect(),
                units[1][..at].to_vec(),
            ];
            for v in variants {
                let data = [&units[0][..], &v, &units[2]].concat();
                let found = collect(&data, 16);
                assert_eq!(found.first().unwrap().1, [0; 40]);
                assert_eq!(found.last().unwrap().1, [2; 40]);
                assert!(
                    found
                        .iter()
                        .all(|(_, p)| [[0; 40], [1; 40], [2; 40]].iter().any(|q| p == q))
                );
            }
        }
    }

    #[test]
    fn garbage_and_look_alikes_are_passed_over() {
        let good = unit(UnitType::Sequence, b"payload");
        let mut data = Vec::new();
        for i in 0..200u32 {
            data.extend(START_CODE);
            data.extend(i.wrapping_mul(2_654_435_761).to_be_bytes());
        }
        data.extend(&good);
        data.extend([0x8e, b'N']);
        assert_eq!(collect(&data, 7), [(1, b"payload".to_vec())]);
    }

    #[test]
    fn a_length_beyond_the_limit_is_damage() {
        let data = unit(UnitType::Frame, &[7; 5000]);
        let scanner = UnitScanner::with_max_payload(4999);
        assert!(matches!(scanner.scan(&data, false), Scan::Skip(_)));
        assert!(matches!(
            UnitScanner::with_max_payload(5000).scan(&data, false),
            Scan::Unit(_)
        ));
    }

    /// Bytes that go through checksums until all of `data` is passed, `chunk` bytes at a time.
    fn work(data: &[u8], chunk: usize) -> (u64, usize) {
        let scanner = UnitScanner::of_pictures(640, 360);
        let mut sums = Checksums::default();
        let (mut pos, mut end, mut found, mut looked_at) = (0, 0, 0, 0);
        loop {
            let part = &data[pos..end];
            match scanner.scan_at(&mut sums, pos as u64, part, end == data.len()) {
                Scan::Unit(u) => {
                    found += 1;
                    pos += u.len;
                }
                Scan::Skip(n) => {
                    looked_at += part.len();
                    pos += n;
                }
                Scan::NeedMore(n) => {
                    looked_at += part.len();
                    // As a parser does: no call before that many bytes are there.
                    while end < data.len() && end - pos < n {
                        end = (end + chunk).min(data.len());
                    }
                }
                Scan::End => break,
            }
        }
        assert!(
            looked_at < 40 * data.len().max(1) + 64 * found * chunk.min(data.len()),
            "{looked_at} bytes of {} were looked at",
            data.len()
        );
        (sums.work, found)
    }

    #[test]
    fn headers_that_lie_cost_linear_work() {
        let fake = |len: usize| {
            let mut header = vec![UnitType::Frame.code()];
            crate::io::put_varint(&mut header, len as u64);
            header.push(crc32c::crc32c(&header) as u8);
            [&START_CODE[..], &header].concat()
        };
        let small = unit(UnitType::Filler, b"");
        let good = unit(UnitType::Frame, &[5; 3000]);
        // Lies alone, of one length or of many, and with sound units between them.
        for kind in 0..3 {
            for len in [500, 60_000, 690_000] {
                let fakes: usize = 60_000;
                let mut data = good.clone();
                let mut sound = 2;
                while data.len() < fakes * 8 {
                    match kind {
                        0 => data.extend(fake(len)),
                        1 => data.extend(fake(len - data.len() % 400)),
                        _ => {
                            data.extend(fake(len));
                            data.extend(&small);
                            sound += 1;
                        }
                    }
                }
                data.push(0);
                data.extend(&good);
                for chunk in [1500, 65_536, data.len()] {
                    let (bytes, found) = work(&data, chunk);
                    assert_eq!(found, sound, "kind {kind}, length {len}");
                    let per_byte = bytes as f64 / data.len() as f64;
                    // Each of the lies costs up to two steps of registers.
                    assert!(per_byte < 80.0, "{per_byte} at kind {kind}, {len}, {chunk}");
                }
            }
        }
    }

    #[test]
    fn a_damaged_length_waits_for_one_unit_only() {
        let frame = unit(UnitType::Frame, &[3; 290]);
        for claimed in [291, 400, 4000, 20_000] {
            // The header check of this length fits: one damage in 256 does.
            let mut data = unit(UnitType::Frame, &vec![3; claimed]);
            data.truncate(frame.len());
            let scanner = UnitScanner::of_pictures(96, 64);
            assert!(matches!(scanner.scan(&data, false), Scan::NeedMore(_)));
            data.extend(&frame[..frame.len() - 1]);
            let answer = scanner.scan(&data, false);
            // The short ones are known to be wrong already.
            let known = claimed < 600 && answer == Scan::Skip(frame.len());
            assert!(known || matches!(answer, Scan::NeedMore(_)), "{answer:?}");
            data.push(frame[frame.len() - 1]);
            assert_eq!(scanner.scan(&data, false), Scan::Skip(frame.len()));
        }
        // What no picture of this size needs is not waited for at all.
        let long = unit(UnitType::Frame, &[3; 96 * 64 * 3 + 4097]);
        let scanner = UnitScanner::of_pictures(96, 64);
        assert_eq!(scanner.scan(&long[..300], false), Scan::Skip(300));
        assert!(matches!(
            UnitScanner::of_pictures(97, 64).scan(&long, false),
            Scan::Unit(_)
        ));
    }

    #[test]
    fn the_end_of_the_stream_ends_waiting() {
        let good = unit(UnitType::Frame, &[1; 100]);
        let mut cut = good[..60].to_vec();
        assert!(matches!(
            UnitScanner::new().scan(&cut, false),
            Scan::NeedMore(n) if n > cut.len() && n <= good.len()
        ));
        assert_eq!(UnitScanner::new().scan(&cut, true), Scan::Skip(60));
        cut.extend(&good);
        assert_eq!(UnitScanner::new().scan(&cut, true), Scan::Skip(60));
        assert_eq!(UnitScanner::new().scan(&[], true), Scan::End);
        assert_eq!(
            UnitScanner::new().scan(&[], false),
            Scan::NeedMore(MIN_UNIT)
        );
    }
}

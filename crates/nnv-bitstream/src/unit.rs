// SPDX-License-Identifier: MPL-2.0
//! Units: the self-delimiting pieces of a stream.
//!
//! `start code (3) | type (1) | length (1 to 4) | header check (1) | payload | CRC-32C (4)`

use std::ops::Range;

use super::BitstreamError;
use super::limits::MAX_PAYLOAD;

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
    /// A type of a later version: decoders pass over it.
    Unknown(u8),
}

impl UnitType {
    /// The type's code in the stream.
    pub fn code(self) -> u8 {
        match self {
            UnitType::Sequence => 1,
            UnitType::Frame => 2,
            UnitType::Filler => 3,
            UnitType::Unknown(c) => c,
        }
    }

    /// The type with this code.
    pub fn from_code(code: u8) -> UnitType {
        match code {
            1 => UnitType::Sequence,
            2 => UnitType::Frame,
            3 => UnitType::Filler,
            c => UnitType::Unknown(c),
        }
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
/// end or less at its beginning, as its answers say.
#[derive(Clone, Debug)]
pub struct UnitScanner {
    max_payload: usize,
}

impl Default for UnitScanner {
    fn default() -> Self {
        UnitScanner {
            max_payload: MAX_PAYLOAD,
        }
    }
}

impl UnitScanner {
    /// A scanner for units of any length that the format allows.
    pub fn new() -> UnitScanner {
        UnitScanner::default()
    }

    /// Treats units with longer payloads as damaged: bounds how much a reader must buffer.
    pub fn with_max_payload(max_payload: usize) -> UnitScanner {
        UnitScanner {
            max_payload: max_payload.min(MAX_PAYLOAD),
        }
    }

    /// Says what stands at the beginning of `data`. `eos`: nothing will follow.
    pub fn scan<'a>(&self, data: &'a [u8], eos: bool) -> Scan<'a> {
        if data.is_empty() {
            return if eos {
                Scan::End
            } else {
                Scan::NeedMore(MIN_UNIT)
            };
        }
        match peek_unit(data) {
            Peek::Sound(kind, range) if range.len() <= self.max_payload => {
                let end = range.end + CRC_LEN;
                if data.len() < end {
                    return if eos {
                        self.skip(data)
                    } else {
                        Scan::NeedMore(end)
                    };
                }
                let stored = &data[range.end..end];
                // The checksum covers type, length and payload: not the start code, not the
                // header's check.
                let header = &data[START_CODE.len()..range.start - 1];
                let payload = &data[range];
                let crc = crc32c::crc32c_append(crc32c::crc32c(header), payload);
                if crc.to_be_bytes() == stored {
                    Scan::Unit(Unit {
                        kind,
                        payload,
                        len: end,
                    })
                } else {
                    // Bytes may have been lost within: the next unit can begin anywhere after this
                    // start code.
                    self.skip(data)
                }
            }
            Peek::NeedMore(n) if !eos => Scan::NeedMore(n.max(data.len() + 1)),
            _ => self.skip(data),
        }
    }

    /// Bytes up to the next place where a unit may begin.
    fn skip<'a>(&self, data: &'a [u8]) -> Scan<'a> {
        for at in 1..data.len() {
            if data[at] != START_CODE[0] {
                continue;
            }
            match peek_unit(&data[at..]) {
                Peek::Bad => {}
                Peek::Sound(_, range) if range.len() > self.max_payload => {}
                _ => return Scan::Skip(at),
            }
        }
        Scan::Skip(data.len())
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

    #[test]
    fn the_end_of_the_stream_ends_waiting() {
        let good = unit(UnitType::Frame, &[1; 100]);
        let mut cut = good[..60].to_vec();
        assert!(
            matches!(UnitScanner::new().scan(&cut, false), Scan::NeedMore(n) if n == good.len())
        );
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

// SPDX-License-Identifier: MPL-2.0
//! Frame units: a header, then the parts that the entropy coder wrote.

use smallvec::SmallVec;

use super::BitstreamError;
use super::io::{Reader, put_signed, put_varint};
use super::limits::{MAX_LEVEL, MAX_POC, MAX_QUANTIZER, MAX_RELEASED};
use super::sequence::Rational;

const HEADER: &str = "frame header";

const KEEP: u8 = 1 << 2;
const CHECKSUM: u8 = 1 << 3;
const PTS: u8 = 1 << 4;
const DURATION: u8 = 1 << 5;
const REF1: u8 = 1 << 6;
const MAP: u8 = 1 << 7;
/// In the byte of the quantizer.
const INK: u8 = 1 << 6;
const KEY_CHECK: u8 = 1 << 7;
/// Where the type of a frame says that a byte of further flags follows the quantizer: an inter
/// frame.
const EXTENDED: u8 = 3;
/// In that byte.
const STILL: u8 = 1;
/// Where the group and the quantizer stand.
const GROUP_AT: usize = 2;
const QUANTIZER_AT: usize = 3;

/// What a key frame's unit says about which key frame it is: two of different content are told
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyIdentity(u32);

impl KeyIdentity {
    /// Of the payload of a key frame's unit.
    ///
    /// # Errors
    /// Where the payload does not begin with a frame header.
    pub fn of(payload: &[u8]) -> Result<KeyIdentity, BitstreamError> {
        let (_, at) = FrameHeader::parse(payload)?;
        let crc = crc32c::crc32c(&payload[QUANTIZER_AT..=QUANTIZER_AT]);
        Ok(KeyIdentity(crc32c::crc32c_append(crc, &payload[at..])))
    }

    /// What the frames that refer to the key frame carry.
    pub fn check(self) -> u16 {
        self.0 as u16
    }

    /// A number for the first group of a stream, which another stream's has by chance only.
    pub fn first_group(self) -> u8 {
        (self.0 >> 16) as u8
    }
}

/// Kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameType {
    /// Decodable alone.
    Key,
    /// Predicted from one or two decoded frames.
    Inter,
    /// The frame named by `ref0` once more; nothing is coded.
    Repeat,
}

/// Where a frame's entropy contexts begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextSource {
    /// With the tables of the bundle.
    Tables,
    /// With what the frame `ref0` left.
    Ref0,
    /// With what the frame `ref1` left.
    Ref1,
}

/// The header of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Kind of the frame.
    pub frame_type: FrameType,
    /// Counts key frames modulo 256: tells the frames of one group of pictures from another's when
    /// a key frame is lost.
    pub gop: u8,
    /// Presentation order number: frames after (and with) the key frame in output order. 0 for the
    /// key frame only.
    pub poc: u32,
    /// Quantizer, 0..=63. 0 for a repeat.
    pub quantizer: u8,
    /// Level in the mini-GOP, 0..=7: frames of one level do not refer to each other and may be
    /// decoded together.
    pub level: u8,
    /// Number (`poc`) of the first reference; of the repeated frame for a repeat. `None` for a key
    /// frame only.
    pub ref0: Option<u32>,
    /// Number of the second reference, for inter frames that have one.
    pub ref1: Option<u32>,
    /// Later frames may refer to this one.
    pub keep: bool,
    /// Numbers of frames that no later frame refers to: they are dropped after this one is decoded.
    /// At most 7.
    pub released: SmallVec<[u32; MAX_RELEASED]>,
    /// Where the entropy contexts begin. [`ContextSource::Tables`] unless the frame is an inter
    /// frame.
    pub contexts: ContextSource,
    /// Presentation time in ns.
    pub pts: Option<i64>,
    /// Duration in ns.
    pub duration: Option<u64>,
    /// CRC-32C of the decoded picture.
    pub checksum: Option<u32>,
    /// A map of quantizers comes with the frame.
    pub quantizer_map: bool,
    /// An ink layer comes with the frame.
    pub ink: bool,
    /// A map of places that are as predicted comes with the frame; of inter frames only.
    pub still: bool,
    /// [`KeyIdentity::check`] of the group's key frame; only in frames that name it as reference.
    pub key_check: Option<u16>,
}

impl FrameHeader {
    /// The header of a key frame, with no times and no checksum.
    pub fn key(gop: u8, quantizer: u8) -> FrameHeader {
        FrameHeader {
            frame_type: FrameType::Key,
            gop,
            poc: 0,
            quantizer,
            level: 0,
            ref0: None,
            ref1: None,
            keep: true,
            released: SmallVec::new(),
            contexts: ContextSource::Tables,
            pts: None,
            duration: None,
            checksum: None,
            quantizer_map: false,
            ink: false,
            still: false,
            key_check: None,
        }
    }

    /// The header of an inter frame, with no times and no checksum, that starts with the tables'
    /// contexts.
    pub fn inter(gop: u8, poc: u32, quantizer: u8, ref0: u32, ref1: Option<u32>) -> FrameHeader {
        FrameHeader {
            frame_type: FrameType::Inter,
            poc,
            ref0: Some(ref0),
            ref1,
            ..FrameHeader::key(gop, quantizer)
        }
    }

    /// The header of a frame that shows the frame `of` again.
    pub fn repeat(gop: u8, poc: u32, of: u32) -> FrameHeader {
        FrameHeader {
            frame_type: FrameType::Repeat,
            poc,
            ref0: Some(of),
            keep: false,
            ..FrameHeader::key(gop, 0)
        }
    }

    /// Leaves out times that follow from the frame rate: of frames but key frames, whose time
    /// `key_pts` is, and durations of one frame. Sources round to whole ns in their own ways, so
    /// one more or less counts as equal.
    pub fn omit_times(&mut self, rate: Rational, key_pts: Option<i64>) {
        let near = |a: i64, b: i64| a.abs_diff(b) <= 1;
        if !self.is_key()
            && let (Some(pts), Some(derived)) = (self.pts, self.derived_pts(rate, key_pts))
            && near(pts, derived)
        {
            self.pts = None;
        }
        if let (Some(duration), Some(frame)) = (self.duration, rate.frames_ns(1))
            && i64::try_from(duration).is_ok_and(|duration| near(duration, frame))
        {
            self.duration = None;
        }
    }

    /// Puts in the times that [`omit_times`](Self::omit_times) left out, as far as they are known.
    pub fn fill_times(&mut self, rate: Rational, key_pts: Option<i64>) {
        if !self.is_key() && self.pts.is_none() {
            self.pts = self.derived_pts(rate, key_pts);
        }
        if self.duration.is_none() {
            self.duration = rate.frames_ns(1).and_then(|d| u64::try_from(d).ok());
        }
    }

    fn derived_pts(&self, rate: Rational, key_pts: Option<i64>) -> Option<i64> {
        key_pts?.checked_add(rate.frames_ns(self.poc)?)
    }

    /// Whether decoding can begin here.
    pub fn is_key(&self) -> bool {
        self.frame_type == FrameType::Key
    }

    /// Whether this frame refers to the key frame itself.
    pub fn names_key(&self) -> bool {
        self.ref0 == Some(0) || self.ref1 == Some(0)
    }

    /// Puts another group into a payload that begins with a frame header.
    pub fn set_group(payload: &mut [u8], group: u8) {
        if let Some(byte) = payload.get_mut(GROUP_AT) {
            *byte = group;
        }
    }

    /// Checks every field against the limits of the format.
    ///
    /// # Errors
    /// [`BitstreamError::Field`] names the first one beyond its limits.
    pub fn validate(&self) -> Result<(), BitstreamError> {
        let check = |ok: bool, field, value: i64, allowed| {
            if ok {
                Ok(())
            } else {
                Err(BitstreamError::Field {
                    header: HEADER,
                    field,
                    value,
                    allowed,
                })
            }
        };
        let key = self.is_key();
        let inter = self.frame_type == FrameType::Inter;
        let of = |r: Option<u32>| r.map_or(-1, i64::from);
        check(
            (self.poc == 0) == key && self.poc <= MAX_POC,
            "number",
            self.poc.into(),
            "0 for key frames, 1 to 2^30 - 1 else",
        )?;
        check(
            self.quantizer <= MAX_QUANTIZER,
            "quantizer",
            self.quantizer.into(),
            "0 to 63",
        )?;
        check(
            inter || key || self.quantizer == 0,
            "quantizer",
            self.quantizer.into(),
            "0 for repeats",
        )?;
        check(
            self.level <= MAX_LEVEL,
            "level",
            self.level.into(),
            "0 to 7",
        )?;
        check(
            !key || self.level == 0,
            "level",
            self.level.into(),
            "0 for key frames",
        )?;
        check(
            self.ref0.is_some() != key,
            "ref0",
            of(self.ref0),
            "none for key frames, one else",
        )?;
        check(
            self.ref1.is_none() || inter,
            "ref1",
            of(self.ref1),
            "none but for inter frames",
        )?;
        for (field, r) in [("ref0", self.ref0), ("ref1", self.ref1)] {
            check(
                r.is_none_or(|r| r <= MAX_POC && r != self.poc),
                field,
                of(r),
                "another frame's number",
            )?;
        }
        check(
            self.ref1.is_none() || self.ref1 != self.ref0,
            "ref1",
            of(self.ref1),
            "a frame other than ref0",
        )?;
        check(
            self.frame_type != FrameType::Repeat || !self.quantizer_map,
            "quantizer map",
            1,
            "none for repeats",
        )?;
        check(
            self.frame_type != FrameType::Repeat || !self.ink,
            "ink layer",
            1,
            "none for repeats",
        )?;
        check(
            inter || !self.still,
            "still map",
            1,
            "none but in inter frames",
        )?;
        check(
            self.frame_type != FrameType::Repeat || !self.keep,
            "keep",
            1,
            "0 for repeats",
        )?;
        check(!key || self.keep, "keep", 0, "1 for key frames")?;
        check(
            !key || self.released.is_empty(),
            "released",
            self.released.len() as i64,
            "none for key frames",
        )?;
        check(
            self.released.len() <= MAX_RELEASED,
            "released",
            self.released.len() as i64,
            "0 to 7 frames",
        )?;
        for (i, &r) in self.released.iter().enumerate() {
            let fresh = !self.released[..i].contains(&r);
            check(
                r <= MAX_POC && r != self.poc && fresh,
                "released",
                r.into(),
                "numbers of other frames, each once",
            )?;
        }
        let source = match self.contexts {
            ContextSource::Tables => true,
            ContextSource::Ref0 => inter,
            ContextSource::Ref1 => inter && self.ref1.is_some(),
        };
        check(
            source,
            "contexts",
            self.contexts as i64,
            "a reference that the frame has",
        )?;
        check(
            self.key_check.is_none() || self.names_key(),
            "key check",
            self.key_check.map_or(-1, i64::from),
            "none but in frames that refer to frame 0",
        )?;
        check(
            self.duration.is_none_or(|d| d <= i64::MAX as u64),
            "duration",
            -1,
            "below 2^63",
        )
    }

    /// Appends the header to `out`.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn write(&self, o: &mut Vec<u8>) -> Result<(), BitstreamError> {
        self.validate()?;
        let flag = |on: bool, f: u8| if on { f } else { 0 };
        let further = flag(self.still, STILL);
        o.push(
            match self.frame_type {
                FrameType::Key => 0,
                FrameType::Inter if further != 0 => EXTENDED,
                FrameType::Inter => 1,
                FrameType::Repeat => 2,
            } | flag(self.keep, KEEP)
                | flag(self.checksum.is_some(), CHECKSUM)
                | flag(self.pts.is_some(), PTS)
                | flag(self.duration.is_some(), DURATION)
                | flag(self.ref1.is_some(), REF1)
                | flag(self.quantizer_map, MAP),
        );
        let contexts = match self.contexts {
            ContextSource::Tables => 0,
            ContextSource::Ref0 => 1,
            ContextSource::Ref1 => 2,
        };
        o.push(self.level | (self.released.len() as u8) << 3 | contexts << 6);
        o.push(self.gop);
        o.push(self.quantizer | flag(self.ink, INK) | flag(self.key_check.is_some(), KEY_CHECK));
        if further != 0 {
            o.push(further);
        }
        if !self.is_key() {
            put_varint(o, self.poc.into());
        }
        for r in [self.ref0, self.ref1]
            .into_iter()
            .flatten()
            .chain(self.released.iter().copied())
        {
            put_signed(o, i64::from(self.poc) - i64::from(r));
        }
        if let Some(v) = self.key_check {
            o.extend(v.to_be_bytes());
        }
        if let Some(v) = self.pts {
            put_signed(o, v);
        }
        if let Some(v) = self.duration {
            put_varint(o, v);
        }
        if let Some(v) = self.checksum {
            o.extend(v.to_be_bytes());
        }
        Ok(())
    }

    /// Reads the header at the beginning of a frame unit's payload; all that a parser needs.
    ///
    /// Returns it with the number of bytes it takes.
    ///
    /// # Errors
    /// [`BitstreamError`] says which field is missing or beyond its limits.
    pub fn parse(payload: &[u8]) -> Result<(FrameHeader, usize), BitstreamError> {
        let mut r = Reader::new(HEADER, payload);
        let a = r.u8("flags")?;
        let frame_type = match a & 3 {
            0 => FrameType::Key,
            1 | EXTENDED => FrameType::Inter,
            _ => FrameType::Repeat,
        };
        let b = r.u8("level and contexts")?;
        let contexts = match b >> 6 {
            0 => ContextSource::Tables,
            1 => ContextSource::Ref0,
            2 => ContextSource::Ref1,
            _ => return r.fail("contexts", 3, "0 to 2"),
        };
        let gop = r.u8("group of pictures")?;
        let c = r.u8("quantizer")?;
        let (quantizer, ink) = (c & MAX_QUANTIZER, c & INK != 0);
        let further = match a & 3 {
            EXTENDED => r.u8("further flags")?,
            _ => 0,
        };
        if further & !STILL != 0 {
            return Err(BitstreamError::Extension(further & !STILL));
        }
        if a & 3 == EXTENDED && further == 0 {
            return r.fail("further flags", 0, "at least one, or none of that byte");
        }
        let key = frame_type == FrameType::Key;
        let poc = if key {
            0
        } else {
            r.ranged("number", 1, MAX_POC.into(), "1 to 2^30 - 1")? as u32
        };
        let other = |r: &mut Reader, field| {
            let distance = r.signed(field)?;
            match i64::from(poc).checked_sub(distance) {
                Some(v) if (0..=i64::from(MAX_POC)).contains(&v) => Ok(v as u32),
                _ => r.fail(
                    field,
                    distance,
                    "the distance to a frame of number 0 to 2^30 - 1",
                ),
            }
        };
        let ref0 = if key {
            None
        } else {
            Some(other(&mut r, "ref0")?)
        };
        let ref1 = if a & REF1 != 0 {
            Some(other(&mut r, "ref1")?)
        } else {
            None
        };
        let mut released = SmallVec::new();
        for _ in 0..b >> 3 & 7 {
            released.push(other(&mut r, "released")?);
        }
        let key_check = if c & KEY_CHECK != 0 {
            Some(r.u16("key check")?)
        } else {
            None
        };
        let pts = if a & PTS != 0 {
            Some(r.signed("presentation time")?)
        } else {
            None
        };
        let duration = if a & DURATION != 0 {
            Some(r.varint("duration")?)
        } else {
            None
        };
        let checksum = if a & CHECKSUM != 0 {
            Some(r.u32("checksum")?)
        } else {
            None
        };
        let header = FrameHeader {
            frame_type,
            gop,
            poc,
            quantizer,
            level: b & 7,
            ref0,
            ref1,
            keep: a & KEEP != 0,
            released,
            contexts,
            pts,
            duration,
            checksum,
            quantizer_map: a & MAP != 0,
            ink,
            still: further & STILL != 0,
            key_check,
        };
        header.validate()?;
        Ok((header, r.pos()))
    }
}

/// The payload of a frame unit, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FramePayload<'a> {
    /// The header.
    pub header: FrameHeader,
    /// The map of quantizers; empty where the header says that there is none.
    pub map: &'a [u8],
    /// The ink layer; empty where the header says that there is none.
    pub ink: &'a [u8],
    /// The map of places that are as predicted; empty where the header says that there is none.
    pub still: &'a [u8],
    /// Motion and other side information; empty but for inter frames.
    pub side: &'a [u8],
    /// The hyper-latent; empty for repeats.
    pub z: &'a [u8],
    /// The streams of the latent; none for repeats.
    pub y: Vec<&'a [u8]>,
}

impl<'a> FramePayload<'a> {
    /// Number of parts that follow a header.
    fn part_count(header: &FrameHeader, y_streams: u8) -> usize {
        let coded = match header.frame_type {
            FrameType::Key => 1 + usize::from(y_streams),
            FrameType::Inter => 2 + usize::from(y_streams),
            FrameType::Repeat => 0,
        };
        let optional = [header.quantizer_map, header.ink, header.still];
        coded + optional.into_iter().filter(|there| *there).count()
    }

    /// Writes the payload of a frame unit. `y_streams`: what the sequence header says for frames of
    /// its type.
    ///
    /// # Errors
    /// When a field is beyond its limits, or parts are there that frames of this type do not have.
    pub fn to_payload(&self, y_streams: u8) -> Result<Vec<u8>, BitstreamError> {
        let kind = self.header.frame_type;
        let expected = if kind == FrameType::Repeat {
            0
        } else {
            usize::from(y_streams)
        };
        if self.y.len() != expected {
            return Err(BitstreamError::StreamCount {
                given: self.y.len(),
                expected,
            });
        }
        let extra = match kind {
            FrameType::Key => self.side.len(),
            FrameType::Inter => 0,
            FrameType::Repeat => self.side.len() + self.z.len(),
        };
        let unless = |there: bool, part: &[u8]| if there { 0 } else { part.len() };
        let extra = extra
            + unless(self.header.quantizer_map, self.map)
            + unless(self.header.ink, self.ink)
            + unless(self.header.still, self.still);
        if extra > 0 {
            return Err(BitstreamError::Trailing {
                header: HEADER,
                left: extra,
            });
        }
        let map = self.header.quantizer_map.then_some(self.map);
        let ink = self.header.ink.then_some(self.ink);
        let still = self.header.still.then_some(self.still);
        let side = (kind == FrameType::Inter).then_some(self.side);
        let z = (kind != FrameType::Repeat).then_some(self.z);
        let parts: SmallVec<[&[u8]; 12]> = map
            .into_iter()
            .chain(ink)
            .chain(still)
            .chain(side)
            .chain(z)
            .chain(self.y.iter().copied())
            .collect();
        let mut o = Vec::with_capacity(48 + parts.iter().map(|p| p.len()).sum::<usize>());
        self.header.write(&mut o)?;
        if let Some((_, sized)) = parts.split_last() {
            for p in sized {
                put_varint(&mut o, p.len() as u64);
            }
        }
        for p in parts {
            o.extend_from_slice(p);
        }
        Ok(o)
    }

    /// Takes the payload of a frame unit apart. `y_streams`: what the sequence header says for
    /// frames of its type.
    ///
    /// # Errors
    /// [`BitstreamError`] says what is missing or beyond its limits.
    pub fn parse(payload: &'a [u8], y_streams: u8) -> Result<FramePayload<'a>, BitstreamError> {
        let (header, at) = FrameHeader::parse(payload)?;
        let mut r = Reader::new(HEADER, &payload[at..]);
        let count = Self::part_count(&header, y_streams);
        let mut lengths = SmallVec::<[u64; 12]>::new();
        for _ in 1..count {
            lengths.push(r.varint("part length")?);
        }
        let mut rest = &payload[at + r.pos()..];
        let needed = lengths.iter().fold(0u64, |a, &l| a.saturating_add(l));
        if needed > rest.len() as u64 {
            return Err(BitstreamError::Parts {
                needed,
                len: rest.len(),
            });
        }
        let mut parts = SmallVec::<[&[u8]; 12]>::new();
        for l in lengths {
            let (part, tail) = rest.split_at(l as usize);
            parts.push(part);
            rest = tail;
        }
        if count > 0 {
            parts.push(rest);
        } else if !rest.is_empty() {
            return Err(BitstreamError::Trailing {
                header: HEADER,
                left: rest.len(),
            });
        }
        let mut parts = parts.into_iter();
        let mut part_if = |there: bool| if there { parts.next() } else { None };
        let map = part_if(header.quantizer_map);
        let ink = part_if(header.ink);
        let still = part_if(header.still);
        let side = part_if(header.frame_type == FrameType::Inter);
        let z = part_if(header.frame_type != FrameType::Repeat);
        Ok(FramePayload {
            header,
            map: map.unwrap_or_default(),
            ink: ink.unwrap_or_default(),
            still: still.unwrap_or_default(),
            side: side.unwrap_or_default(),
            z: z.unwrap_or_default(),
            y: parts.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    fn rich() -> FrameHeader {
        FrameHeader {
            level: 3,
            keep: false,
            released: smallvec![4, 90],
            contexts: ContextSource::Ref1,
            pts: Some(-40_000_000),
            duration: Some(33_366_667),
            checksum: Some(0xdead_beef),
            ..FrameHeader::inter(200, 67, 63, 64, Some(72))
        }
    }

    fn all() -> Vec<FrameHeader> {
        vec![
            FrameHeader::key(0, 0),
            FrameHeader {
                pts: Some(i64::MAX),
                checksum: Some(1),
                quantizer_map: true,
                ink: true,
                ..FrameHeader::key(255, 63)
            },
            FrameHeader {
                quantizer_map: true,
                ..FrameHeader::inter(1, 2, 20, 0, None)
            },
            FrameHeader::inter(1, 1, 20, 0, None),
            FrameHeader {
                key_check: Some(0xbeef),
                ..FrameHeader::inter(1, 1, 20, 0, None)
            },
            FrameHeader {
                key_check: Some(0),
                ink: true,
                ..FrameHeader::inter(1, 3, 20, 4, Some(0))
            },
            FrameHeader {
                key_check: Some(0xffff),
                ..FrameHeader::repeat(9, 12, 0)
            },
            FrameHeader {
                ink: true,
                ..FrameHeader::inter(1, 1, 63, 0, None)
            },
            FrameHeader {
                still: true,
                quantizer_map: true,
                ink: true,
                key_check: Some(7),
                ..FrameHeader::inter(1, 1, 63, 0, None)
            },
            FrameHeader {
                contexts: ContextSource::Ref0,
                ..FrameHeader::inter(1, MAX_POC, 20, 0, Some(5))
            },
            rich(),
            FrameHeader::repeat(9, 12, 11),
            FrameHeader {
                released: smallvec![1, 2, 3, 4, 5, 6, 7],
                duration: Some(0),
                ..FrameHeader::repeat(9, 12, 40)
            },
        ]
    }

    #[test]
    fn frames_round_trip() {
        for h in all() {
            for streams in 1..=8u8 {
                let repeat = h.frame_type == FrameType::Repeat;
                let parts: Vec<Vec<u8>> =
                    (0..streams).map(|i| vec![i; usize::from(i) * 50]).collect();
                let f = FramePayload {
                    header: h.clone(),
                    map: if h.quantizer_map { b"map" } else { b"" },
                    ink: if h.ink { b"ink" } else { b"" },
                    still: if h.still { b"still" } else { b"" },
                    side: if h.frame_type == FrameType::Inter {
                        b"side"
                    } else {
                        b""
                    },
                    z: if repeat { b"" } else { b"zz" },
                    y: if repeat {
                        vec![]
                    } else {
                        parts.iter().map(|p| &p[..]).collect()
                    },
                };
                let p = f.to_payload(streams).unwrap();
                assert_eq!(FramePayload::parse(&p, streams), Ok(f));
            }
        }
    }

    #[test]
    fn a_small_frame_has_a_small_header() {
        let h = FrameHeader {
            contexts: ContextSource::Ref0,
            ..FrameHeader::inter(1, 100, 20, 99, Some(0))
        };
        let f = FramePayload {
            header: h,
            map: b"",
            ink: b"",
            still: b"",
            side: b"",
            z: b"",
            y: vec![&b""[..]],
        };
        assert!(f.to_payload(1).unwrap().len() <= 10);
    }

    #[test]
    fn a_key_frame_is_known_by_what_decides_its_picture() {
        let payload = |header: FrameHeader, z: &[u8]| {
            let f = FramePayload {
                header,
                map: b"",
                ink: b"",
                still: b"",
                side: b"",
                z,
                y: vec![&b"yy"[..]],
            };
            f.to_payload(1).unwrap()
        };
        let identity = |h, z| KeyIdentity::of(&payload(h, z)).unwrap();
        let one = identity(FrameHeader::key(3, 20), b"z");
        // Neither its group nor its time changes the picture.
        let later = FrameHeader {
            pts: Some(77),
            ..FrameHeader::key(4, 20)
        };
        assert_eq!(identity(later, b"z"), one);
        assert_ne!(identity(FrameHeader::key(3, 21), b"z"), one);
        assert_ne!(identity(FrameHeader::key(3, 20), b"x"), one);
        let mut p = payload(FrameHeader::key(3, 20), b"z");
        FrameHeader::set_group(&mut p, 200);
        assert_eq!(p, payload(FrameHeader::key(200, 20), b"z"));
    }

    #[test]
    fn limits_hold_when_writing() {
        let bad: [fn(&mut FrameHeader); 18] = [
            |h| h.key_check = Some(1),
            |h| h.poc = 0,
            |h| h.poc = 1 << 30,
            |h| h.quantizer = 64,
            |h| h.level = 8,
            |h| h.ref0 = None,
            |h| h.ref0 = Some(h.poc),
            |h| h.ref0 = Some(1 << 30),
            |h| h.ref1 = h.ref0,
            |h| h.ref1 = None,
            |h| h.released = smallvec![1; 8],
            |h| h.released = smallvec![1, 1],
            |h| h.released = smallvec![h.poc],
            |h| h.duration = Some(u64::MAX),
            |h| h.frame_type = FrameType::Key,
            |h| h.frame_type = FrameType::Repeat,
            |h| {
                *h = FrameHeader {
                    keep: true,
                    ..FrameHeader::repeat(0, 2, 1)
                }
            },
            |h| {
                *h = FrameHeader {
                    keep: false,
                    ..FrameHeader::key(0, 1)
                }
            },
        ];
        for (i, f) in bad.iter().enumerate() {
            let mut h = rich();
            f(&mut h);
            assert!(
                matches!(h.write(&mut Vec::new()), Err(BitstreamError::Field { .. })),
                "case {i}"
            );
        }
        let wrong = FramePayload {
            header: rich(),
            map: b"",
            ink: b"",
            still: b"",
            side: b"",
            z: b"",
            y: vec![&b""[..]; 2],
        };
        assert!(matches!(
            wrong.to_payload(3),
            Err(BitstreamError::StreamCount {
                given: 2,
                expected: 3
            })
        ));
        let wrong = FramePayload {
            header: FrameHeader::key(0, 0),
            map: b"",
            ink: b"",
            still: b"",
            side: b"x",
            z: b"",
            y: vec![&b""[..]],
        };
        assert!(matches!(
            wrong.to_payload(1),
            Err(BitstreamError::Trailing { left: 1, .. })
        ));
        // A map that the header does not tell of, and one that nothing uses.
        let wrong = FramePayload {
            map: b"xy",
            side: b"",
            ..wrong
        };
        assert!(matches!(
            wrong.to_payload(1),
            Err(BitstreamError::Trailing { left: 2, .. })
        ));
        let wrong = FrameHeader {
            quantizer_map: true,
            ..FrameHeader::repeat(9, 12, 11)
        };
        assert!(wrong.validate().is_err());
        let wrong = FrameHeader {
            ink: true,
            ..FrameHeader::repeat(9, 12, 11)
        };
        assert!(wrong.validate().is_err());
    }

    #[test]
    fn every_cut_and_every_wrong_byte_is_an_error_or_a_valid_header() {
        for h in all() {
            let mut p = Vec::new();
            h.write(&mut p).unwrap();
            for n in 0..p.len() {
                assert!(FrameHeader::parse(&p[..n]).is_err());
            }
            for i in 0..p.len() {
                for v in 0..=255 {
                    let mut q = p.clone();
                    q[i] = v;
                    if let Ok((h, n)) = FrameHeader::parse(&q) {
                        let mut again = Vec::new();
                        h.write(&mut again).unwrap();
                        assert_eq!(again, q[..n], "one header, one form");
                    }
                }
            }
        }
    }

    #[test]
    fn times_that_follow_from_the_rate_are_left_out() {
        let rate = Rational::new(30000, 1001);
        for poc in [0, 1, 7, 1000, 123_456] {
            for off in [-2, -1, 0, 1, 2] {
                let exact = rate.frames_ns(poc).unwrap();
                let mut h = match poc {
                    0 => FrameHeader::key(0, 5),
                    _ => FrameHeader::inter(0, poc, 5, 0, None),
                };
                h.pts = Some(1_000_000 + exact + off);
                h.duration = Some((33_366_666 + off) as u64);
                let full = h.clone();
                let key_pts = Some(1_000_000);
                h.omit_times(rate, key_pts);
                assert_eq!(h.pts.is_none(), off.abs() < 2 && poc > 0);
                assert_eq!(h.duration.is_none(), off.abs() < 2);
                h.fill_times(rate, key_pts);
                assert!(h.pts.unwrap().abs_diff(full.pts.unwrap()) <= 1);
                assert!(h.duration.unwrap().abs_diff(full.duration.unwrap()) <= 1);
            }
        }
        let mut h = FrameHeader::inter(0, 3, 5, 0, None);
        h.pts = Some(5);
        h.duration = Some(6);
        let full = h.clone();
        h.omit_times(Rational::new(0, 1), Some(0));
        assert_eq!(h, full);
        h.omit_times(rate, None);
        assert_eq!(h, full);
        h.pts = None;
        h.fill_times(rate, Some(i64::MAX));
        assert_eq!(h.pts, None);
        h.fill_times(Rational::new(1, u32::MAX), None);
        assert_eq!(h.pts, None);
    }

    #[test]
    fn part_lengths_are_checked() {
        let f = FramePayload {
            header: rich(),
            map: b"",
            ink: b"",
            still: b"",
            side: &[1; 10],
            z: &[2; 10],
            y: vec![&[3; 10][..]; 2],
        };
        let p = f.to_payload(2).unwrap();
        assert!(matches!(
            FramePayload::parse(&p[..p.len() - 11], 2),
            Err(BitstreamError::Parts { needed: 30, .. })
        ));
        // Ten bytes fewer only shorten the last part: the unit's checksum guards it.
        assert!(FramePayload::parse(&p[..p.len() - 10], 2).unwrap().y[1].is_empty());
        let mut p = Vec::new();
        FrameHeader::repeat(0, 2, 1).write(&mut p).unwrap();
        p.push(0);
        assert!(matches!(
            FramePayload::parse(&p, 1),
            Err(BitstreamError::Trailing { left: 1, .. })
        ));
        let mut p = Vec::new();
        FrameHeader::inter(0, 2, 1, 1, None).write(&mut p).unwrap();
        let n = p.len();
        for _ in 0..2 {
            put_varint(&mut p, u64::MAX);
        }
        assert!(
            matches!(
                FramePayload::parse(&p, 1),
                Err(BitstreamError::Parts {
                    needed: u64::MAX,
                    ..
                })
            ),
            "{n}"
        );
    }
}

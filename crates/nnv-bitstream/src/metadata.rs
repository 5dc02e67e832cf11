// SPDX-License-Identifier: MPL-2.0
//! Metadata units: what rides along with the pictures and never changes a sample.
//!
//! A unit of frame metadata belongs to the frame of its access unit, one of stream metadata holds
//! from its key frame up to the next. Both are lists of items: `kind (1) | length | value`. What a
//! reader does not know it passes over; a unit that breaks the rules it passes over whole.

use super::BitstreamError;
use super::access_unit::MAX_LEADING_UNITS;
use super::io::{Reader, put_signed, put_varint};
use super::limits::{
    MAX_FRAME_METADATA, MAX_KEY, MAX_METADATA_ITEMS, MAX_STREAM_METADATA, MAX_TEXT,
};
use super::unit::{CRC_LEN, Peek, Scan, UnitScanner, UnitType, peek_unit, write_unit};

/// A kind of metadata: that of frames or that of the stream.
pub trait Item: Sized + PartialEq {
    /// The unit that holds such items.
    const UNIT: UnitType;
    /// Its longest payload in bytes.
    const MAX_PAYLOAD: usize;
    /// Its name in errors.
    const NAME: &'static str;

    /// Code of the item's kind.
    fn kind(&self) -> u8;

    /// Appends the item's value.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads the value of an item of this kind.
    ///
    /// # Errors
    /// [`BitstreamError`] for a value that the format does not allow.
    fn read(kind: u8, value: &[u8]) -> Result<Self, BitstreamError>;
}

/// The items of one metadata unit, all within the limits of the format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata<I> {
    items: Vec<I>,
    /// Bytes of the payload.
    len: usize,
}

/// What rides along with one frame.
pub type FrameMetadata = Metadata<FrameItem>;
/// What holds for all frames of a group of pictures.
pub type StreamMetadata = Metadata<StreamItem>;

impl<I> Default for Metadata<I> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            len: 0,
        }
    }
}

impl<I: Item> Metadata<I> {
    /// The items, in their order.
    pub fn items(&self) -> &[I] {
        &self.items
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds an item.
    ///
    /// # Errors
    /// [`BitstreamError`] where its value is not allowed, or there is no room for it; then nothing
    /// has changed.
    pub fn push(&mut self, item: I) -> Result<(), BitstreamError> {
        let mut value = Vec::new();
        item.write(&mut value);
        I::read(item.kind(), &value)?;
        let mut length = Vec::new();
        put_varint(&mut length, value.len() as u64);
        let len = self.len + 1 + length.len() + value.len();
        if len > I::MAX_PAYLOAD || self.items.len() >= MAX_METADATA_ITEMS {
            return Err(BitstreamError::Field {
                header: I::NAME,
                field: "items",
                value: len as i64,
                allowed: "what fits into one unit",
            });
        }
        self.items.push(item);
        self.len = len;
        Ok(())
    }

    /// Reads the payload of a unit.
    ///
    /// # Errors
    /// [`BitstreamError`] says what the format does not allow. Such a unit is to be passed over.
    pub fn parse(payload: &[u8]) -> Result<Self, BitstreamError> {
        let mut r = Reader::new(I::NAME, payload);
        if payload.len() > I::MAX_PAYLOAD {
            return r.fail("length", payload.len() as i64, "what fits into one unit");
        }
        let mut items = Vec::new();
        while r.left() > 0 {
            if items.len() >= MAX_METADATA_ITEMS {
                return r.fail("items", items.len() as i64 + 1, "up to 64");
            }
            let kind = r.u8("item kind")?;
            let len = r.ranged("item length", 0, payload.len() as u64, "the payload's")?;
            let value = r.bytes(usize::try_from(len).unwrap_or(usize::MAX), "item value")?;
            items.push(I::read(kind, value)?);
        }
        Ok(Self {
            items,
            len: payload.len(),
        })
    }

    /// The payload of a unit.
    pub fn to_payload(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len);
        let mut value = Vec::new();
        for item in &self.items {
            value.clear();
            item.write(&mut value);
            out.push(item.kind());
            put_varint(&mut out, value.len() as u64);
            out.extend(&value);
        }
        out
    }

    /// The unit; no bytes where there is nothing to say.
    pub fn to_unit(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.is_empty() {
            // Payloads of metadata are far below the limit of units.
            let written = write_unit(&mut out, I::UNIT, &self.to_payload());
            debug_assert!(written.is_ok());
        }
        out
    }

    /// What an access unit says: the first unit of this kind before the frame, where it is sound.
    /// Looks at nothing behind damage.
    pub fn of_access_unit(data: &[u8]) -> Option<Self> {
        let mut rest = data;
        for _ in 0..=MAX_LEADING_UNITS {
            let Peek::Sound(kind, payload) = peek_unit(rest) else {
                return None;
            };
            if kind.is_frame() {
                return None;
            }
            let unit = rest.get(..payload.end + CRC_LEN)?;
            let Scan::Unit(unit) = UnitScanner::new().scan(unit, true) else {
                return None;
            };
            if kind == I::UNIT {
                return Self::parse(unit.payload).ok();
            }
            rest = &rest[unit.len..];
        }
        None
    }
}

/// How closed captions are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptionFormat {
    /// Byte pairs of CEA-608, field 1.
    Cea608 = 1,
    /// Triplets of SMPTE S334-1 annex A: field and line, two bytes of CEA-608.
    Cea608S334 = 2,
    /// `cc_data` triplets of CEA-708.
    Cea708 = 3,
    /// Caption distribution packets.
    Cdp = 4,
}

/// Which field of a frame an item is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The whole frame, or its first field.
    First = 0,
    /// The second field.
    Second = 1,
}

/// Whose table an active format description refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfdSpec {
    /// ETSI TS 101 154.
    Etsi = 0,
    /// ATSC A/53.
    Atsc = 1,
    /// SMPTE ST 2016-1.
    Smpte = 2,
}

/// A SMPTE time code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeCode {
    /// Frames per second, numerator and denominator.
    pub rate: (u32, u32),
    /// Numbers are left out so that 30000/1001 keeps step.
    pub drop_frame: bool,
    /// Frames are counted in fields.
    pub interlaced: bool,
    /// 0 to 23.
    pub hours: u8,
    /// 0 to 59.
    pub minutes: u8,
    /// 0 to 59.
    pub seconds: u8,
    /// Below the frame rate.
    pub frames: u32,
    /// 0 for progressive video, else which field: 1 or 2.
    pub field_count: u8,
    /// When the count was at zero last.
    pub daily_jam: Option<Instant>,
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Microseconds since 1970 in UTC.
    pub microseconds: i64,
    /// How far local time is ahead of UTC, in seconds; less than a day.
    pub offset: i32,
}

/// An item of frame metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameItem {
    /// Closed captions, at least a byte.
    Captions(CaptionFormat, Vec<u8>),
    /// Active format description: 0 to 15.
    ActiveFormat(Field, AfdSpec, u8),
    /// Bar data: the last line of the upper and the first line of the lower bar; or, where
    /// `letterbox` is not set, the last sample of the left and the first of the right one.
    Bars {
        /// Of which field.
        field: Field,
        /// Bars above and below.
        letterbox: bool,
        /// End of the first, beginning of the second.
        ends: [u32; 2],
    },
    /// Time code.
    TimeCode(TimeCode),
    /// User data unregistered: UUID and at least a byte, as in the SEI message of that name.
    UserData([u8; 16], Vec<u8>),
    /// User data registered by Rec. ITU-T T.35, from the country code on: HDR10+ and others.
    T35(Vec<u8>),
    /// A kind of a later version.
    Unknown(u8, Vec<u8>),
}

const CAPTIONS: u8 = 1;
const ACTIVE_FORMAT: u8 = 2;
const BARS: u8 = 3;
const TIME_CODE: u8 = 4;
const USER_DATA: u8 = 5;
const T35: u8 = 6;

const DROP_FRAME: u8 = 1;
const INTERLACED: u8 = 2;
const DAILY_JAM: u8 = 4;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Reads an enumeration by its codes.
fn choice<T: Copy>(
    r: &mut Reader,
    field: &'static str,
    values: &[T],
    first: u8,
    allowed: &'static str,
) -> Result<T, BitstreamError> {
    let code = r.u8(field)?;
    match code
        .checked_sub(first)
        .and_then(|i| values.get(usize::from(i)))
    {
        Some(value) => Ok(*value),
        None => r.fail(field, code.into(), allowed),
    }
}

fn field(r: &mut Reader) -> Result<Field, BitstreamError> {
    choice(r, "field", &[Field::First, Field::Second], 0, "0 or 1")
}

/// All that is left, at least a byte.
fn some(r: &mut Reader, field: &'static str) -> Result<Vec<u8>, BitstreamError> {
    match r.left() {
        0 => r.fail(field, 0, "at least one byte"),
        n => Ok(r.bytes(n, field)?.to_vec()),
    }
}

/// A byte of at most `max`.
fn small(
    r: &mut Reader,
    field: &'static str,
    max: u8,
    allowed: &'static str,
) -> Result<u8, BitstreamError> {
    match r.u8(field)? {
        v if v <= max => Ok(v),
        v => r.fail(field, v.into(), allowed),
    }
}

fn int(r: &mut Reader, field: &'static str, min: u64) -> Result<u32, BitstreamError> {
    let v = r.ranged(field, min, u64::from(u32::MAX), "a number below 2^32")?;
    Ok(u32::try_from(v).unwrap_or(u32::MAX))
}

impl TimeCode {
    fn write(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            flag(self.drop_frame, DROP_FRAME)
                | flag(self.interlaced, INTERLACED)
                | flag(self.daily_jam.is_some(), DAILY_JAM),
        );
        put_varint(out, self.rate.0.into());
        put_varint(out, self.rate.1.into());
        out.extend([self.hours, self.minutes, self.seconds]);
        put_varint(out, self.frames.into());
        out.push(self.field_count);
        if let Some(jam) = self.daily_jam {
            put_signed(out, jam.microseconds);
            put_signed(out, jam.offset.into());
        }
    }

    fn read(r: &mut Reader) -> Result<Self, BitstreamError> {
        let flags = small(r, "flags", DROP_FRAME | INTERLACED | DAILY_JAM, "0 to 7")?;
        Ok(Self {
            rate: (int(r, "rate numerator", 0)?, int(r, "rate denominator", 1)?),
            drop_frame: flags & DROP_FRAME != 0,
            interlaced: flags & INTERLACED != 0,
            hours: small(r, "hours", 23, "0 to 23")?,
            minutes: small(r, "minutes", 59, "0 to 59")?,
            seconds: small(r, "seconds", 59, "0 to 59")?,
            frames: int(r, "frames", 0)?,
            field_count: small(r, "field count", 2, "0 to 2")?,
            daily_jam: if flags & DAILY_JAM != 0 {
                let microseconds = r.signed("daily jam")?;
                let offset = r.signed("offset from UTC")?;
                match i32::try_from(offset) {
                    Ok(offset) if i64::from(offset).abs() < DAY => Some(Instant {
                        microseconds,
                        offset,
                    }),
                    _ => return r.fail("offset from UTC", offset, "less than a day"),
                }
            } else {
                None
            },
        })
    }
}

impl Item for FrameItem {
    const UNIT: UnitType = UnitType::FrameMetadata;
    const MAX_PAYLOAD: usize = MAX_FRAME_METADATA;
    const NAME: &'static str = "frame metadata";

    fn kind(&self) -> u8 {
        match self {
            Self::Captions(..) => CAPTIONS,
            Self::ActiveFormat(..) => ACTIVE_FORMAT,
            Self::Bars { .. } => BARS,
            Self::TimeCode(_) => TIME_CODE,
            Self::UserData(..) => USER_DATA,
            Self::T35(_) => T35,
            Self::Unknown(kind, _) => *kind,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Captions(format, data) => {
                out.push(*format as u8);
                out.extend(data);
            }
            Self::ActiveFormat(field, spec, value) => {
                out.extend([*field as u8, *spec as u8, *value]);
            }
            Self::Bars {
                field,
                letterbox,
                ends,
            } => {
                out.extend([*field as u8, u8::from(*letterbox)]);
                ends.iter().for_each(|end| put_varint(out, (*end).into()));
            }
            Self::TimeCode(code) => code.write(out),
            Self::UserData(uuid, data) => {
                out.extend(uuid);
                out.extend(data);
            }
            Self::T35(data) | Self::Unknown(_, data) => out.extend(data),
        }
    }

    fn read(kind: u8, value: &[u8]) -> Result<Self, BitstreamError> {
        let mut r = Reader::new(Self::NAME, value);
        let item = match kind {
            CAPTIONS => {
                let formats = [
                    CaptionFormat::Cea608,
                    CaptionFormat::Cea608S334,
                    CaptionFormat::Cea708,
                    CaptionFormat::Cdp,
                ];
                let format = choice(&mut r, "caption format", &formats, 1, "1 to 4")?;
                Self::Captions(format, some(&mut r, "captions")?)
            }
            ACTIVE_FORMAT => {
                let specs = [AfdSpec::Etsi, AfdSpec::Atsc, AfdSpec::Smpte];
                Self::ActiveFormat(
                    field(&mut r)?,
                    choice(&mut r, "AFD table", &specs, 0, "0 to 2")?,
                    small(&mut r, "AFD", 15, "0 to 15")?,
                )
            }
            BARS => Self::Bars {
                field: field(&mut r)?,
                letterbox: choice(&mut r, "letterbox", &[false, true], 0, "0 or 1")?,
                ends: [int(&mut r, "first bar", 0)?, int(&mut r, "second bar", 0)?],
            },
            TIME_CODE => Self::TimeCode(TimeCode::read(&mut r)?),
            USER_DATA => {
                let mut uuid = [0; 16];
                uuid.copy_from_slice(r.bytes(16, "UUID")?);
                Self::UserData(uuid, some(&mut r, "user data")?)
            }
            T35 => Self::T35(some(&mut r, "T.35 user data")?),
            kind => Self::Unknown(kind, r.bytes(value.len(), "value")?.to_vec()),
        };
        r.end()?;
        Ok(item)
    }
}

/// How a picture is to be turned for display, by the numbers of Exif.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// As it is.
    Upright = 1,
    /// Mirrored left to right.
    Mirrored = 2,
    /// Turned by half.
    Half = 3,
    /// Mirrored top to bottom.
    Flipped = 4,
    /// Mirrored at the main diagonal.
    Transposed = 5,
    /// Turned clockwise by a quarter.
    Quarter = 6,
    /// Mirrored at the other diagonal.
    Transversed = 7,
    /// Turned clockwise by three quarters.
    ThreeQuarters = 8,
}

impl Orientation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Upright,
        Self::Mirrored,
        Self::Half,
        Self::Flipped,
        Self::Transposed,
        Self::Quarter,
        Self::Transversed,
        Self::ThreeQuarters,
    ];
}

/// An item of stream metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamItem {
    /// How pictures are to be turned for display.
    Orientation(Orientation),
    /// A text about the stream: name and value of a tag as GStreamer writes them.
    Tag(Text),
    /// What the sequence header has no code for: a field of GStreamer's caps.
    Caps(Text),
    /// A kind of a later version.
    Unknown(u8, Vec<u8>),
}

/// A key of letters a to z, digits and hyphens (at most 64 bytes) with a text of 1 to 1024 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// What it is.
    pub key: String,
    /// What it says.
    pub value: String,
}

const ORIENTATION: u8 = 1;
const TAG: u8 = 2;
const CAPS: u8 = 3;

impl Text {
    /// A text.
    pub fn new(key: &str, value: &str) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        // Longer ones are refused when they are read.
        out.push(u8::try_from(self.key.len()).unwrap_or(u8::MAX));
        out.extend(self.key.as_bytes());
        out.extend(self.value.as_bytes());
    }

    fn read(r: &mut Reader) -> Result<Self, BitstreamError> {
        let len = usize::from(r.u8("key length")?);
        if !(1..=MAX_KEY).contains(&len) {
            return r.fail("key length", len as i64, "1 to 64");
        }
        let key = r.bytes(len, "key")?;
        let letter = |b: &&u8| !matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if let Some(b) = key.iter().find(letter) {
            return r.fail("key", i64::from(*b), "letters a-z, digits and -");
        }
        let key = String::from_utf8_lossy(key).into_owned();
        let value = r.bytes(r.left(), "text")?;
        match std::str::from_utf8(value) {
            Ok(text) if (1..=MAX_TEXT).contains(&value.len()) && !value.contains(&0) => Ok(Self {
                key,
                value: text.into(),
            }),
            _ => r.fail(
                "text",
                value.len() as i64,
                "1 to 1024 bytes of UTF-8 without NUL",
            ),
        }
    }
}

impl Item for StreamItem {
    const UNIT: UnitType = UnitType::StreamMetadata;
    const MAX_PAYLOAD: usize = MAX_STREAM_METADATA;
    const NAME: &'static str = "stream metadata";

    fn kind(&self) -> u8 {
        match self {
            Self::Orientation(_) => ORIENTATION,
            Self::Tag(_) => TAG,
            Self::Caps(_) => CAPS,
            Self::Unknown(kind, _) => *kind,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Orientation(orientation) => out.push(*orientation as u8),
            Self::Tag(text) | Self::Caps(text) => text.write(out),
            Self::Unknown(_, data) => out.extend(data),
        }
    }

    fn read(kind: u8, value: &[u8]) -> Result<Self, BitstreamError> {
        let mut r = Reader::new(Self::NAME, value);
        let item = match kind {
            ORIENTATION => {
                let all = &Orientation::ALL;
                Self::Orientation(choice(&mut r, "orientation", all, 1, "1 to 8")?)
            }
            TAG => Self::Tag(Text::read(&mut r)?),
            CAPS => Self::Caps(Text::read(&mut r)?),
            kind => Self::Unknown(kind, r.bytes(value.len(), "value")?.to_vec()),
        };
        r.end()?;
        Ok(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time_code() -> TimeCode {
        TimeCode {
            rate: (30_000, 1001),
            drop_frame: true,
            interlaced: false,
            hours: 23,
            minutes: 59,
            seconds: 58,
            frames: 29,
            field_count: 0,
            daily_jam: Some(Instant {
                microseconds: -1_234_567,
                offset: -3600,
            }),
        }
    }

    fn frame_items() -> Vec<FrameItem> {
        vec![
            FrameItem::Captions(CaptionFormat::Cea608, vec![0x94, 0x20]),
            FrameItem::Captions(CaptionFormat::Cdp, vec![7; 300]),
            FrameItem::ActiveFormat(Field::Second, AfdSpec::Smpte, 15),
            FrameItem::Bars {
                field: Field::First,
                letterbox: true,
                ends: [60, u32::MAX],
            },
            FrameItem::TimeCode(time_code()),
            FrameItem::UserData([9; 16], vec![1, 2, 3]),
            FrameItem::T35(vec![0xb5, 0, 0x3c, 0, 1, 4]),
            FrameItem::Unknown(200, vec![]),
        ]
    }

    #[test]
    fn items_come_back_in_one_form() {
        let mut frame = FrameMetadata::default();
        frame_items()
            .into_iter()
            .for_each(|item| frame.push(item).unwrap());
        let payload = frame.to_payload();
        assert_eq!(FrameMetadata::parse(&payload), Ok(frame.clone()));
        assert_eq!(frame.items(), frame_items());
        let mut stream = StreamMetadata::default();
        for orientation in Orientation::ALL {
            stream.push(StreamItem::Orientation(orientation)).unwrap();
        }
        let title = StreamItem::Tag(Text::new("title", "Straße, 東京"));
        stream.push(title.clone()).unwrap();
        stream.push(StreamItem::Unknown(0, vec![1])).unwrap();
        let back = StreamMetadata::parse(&stream.to_payload()).unwrap();
        assert_eq!(back, stream);
        assert_eq!(back.items()[8], title);
        assert!(StreamMetadata::default().to_unit().is_empty());
    }

    #[test]
    fn values_beyond_their_limits_are_refused() {
        let mut frame = FrameMetadata::default();
        let wrong = [
            FrameItem::Captions(CaptionFormat::Cea708, vec![]),
            FrameItem::ActiveFormat(Field::First, AfdSpec::Etsi, 16),
            FrameItem::UserData([0; 16], vec![]),
            FrameItem::T35(vec![]),
            FrameItem::TimeCode(TimeCode {
                hours: 24,
                ..time_code()
            }),
            FrameItem::TimeCode(TimeCode {
                rate: (25, 0),
                ..time_code()
            }),
            // Longer than a unit.
            FrameItem::T35(vec![1; MAX_FRAME_METADATA]),
        ];
        for item in wrong {
            assert!(frame.push(item.clone()).is_err(), "{item:?}");
        }
        for n in 0..MAX_METADATA_ITEMS {
            frame.push(FrameItem::T35(vec![n as u8])).unwrap();
        }
        assert!(frame.push(FrameItem::T35(vec![1])).is_err());
        assert_eq!(frame.items().len(), MAX_METADATA_ITEMS);
        let mut stream = StreamMetadata::default();
        for (key, value) in [
            ("", "x"),
            ("Title", "x"),
            ("title", ""),
            ("title", "a\0b"),
            (&"k".repeat(65), "x"),
            (&"k".repeat(300), "x"),
            ("title", &"x".repeat(MAX_TEXT + 1)),
        ] {
            let item = StreamItem::Tag(Text::new(key, value));
            assert!(stream.push(item).is_err(), "{key} {value}");
        }
        assert!(stream.is_empty());
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let mut frame = FrameMetadata::default();
        frame_items()
            .into_iter()
            .for_each(|item| frame.push(item).unwrap());
        let payload = frame.to_payload();
        let sound = (0..payload.len())
            .filter(|n| FrameMetadata::parse(&payload[..*n]).is_ok())
            .count();
        // Only between two items.
        assert_eq!(sound, frame_items().len());
        for at in 0..payload.len() {
            for bit in 0..8 {
                let mut damaged = payload.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(read) = FrameMetadata::parse(&damaged) {
                    assert_eq!(read.to_payload(), damaged);
                }
            }
        }
    }

    #[test]
    fn metadata_is_found_before_the_frame_and_only_where_it_is_sound() {
        let mut metadata = FrameMetadata::default();
        metadata.push(FrameItem::T35(vec![0xb5])).unwrap();
        let unit = metadata.to_unit();
        let mut filler = Vec::new();
        write_unit(&mut filler, UnitType::Filler, &[0; 9]).unwrap();
        let mut frame = Vec::new();
        write_unit(&mut frame, UnitType::Frame, &[4, 0, 0, 0, 0]).unwrap();
        let found = |parts: &[&[u8]]| FrameMetadata::of_access_unit(&parts.concat());
        assert_eq!(found(&[&filler, &unit, &frame]), Some(metadata.clone()));
        // A damaged frame does not take it along.
        assert_eq!(found(&[&unit, &frame[..5]]), Some(metadata));
        assert_eq!(found(&[&frame, &unit]), None);
        assert_eq!(found(&[&filler[..8], &unit]), None);
        let mut damaged = unit.clone();
        damaged[7] ^= 1;
        assert_eq!(found(&[&damaged, &frame]), None);
        assert_eq!(StreamMetadata::of_access_unit(&unit), None);
        assert_eq!(found(&[]), None);
    }
}

// SPDX-License-Identifier: MPL-2.0
//! The sequence header: all that a decoder must know before the first frame.

use super::BitstreamError;
use super::frame::FrameType;
use super::io::{Reader, put_varint};
use super::level::{DecodingCost, Level};
use super::limits::{MAX_MINI_GOP, MAX_NAME, MAX_REFERENCES, MAX_SIDE, MAX_Y_STREAMS};

/// First bytes of a sequence header.
pub const MAGIC: [u8; 4] = *b"NNV1";
/// The stream version that this code writes; it reads this one and earlier ones.
pub const VERSION: u8 = 1;
/// The first eight bytes of a bundle's hash: enough to tell bundles apart; who wants to be sure of
/// the rest compares files.
pub type BundleHash = [u8; 8];

const HEADER: &str = "sequence header";

const FLAG_MASTERING: u8 = 1;
const FLAG_CONTENT_LIGHT: u8 = 2;
const FLAG_CHECKSUMS: u8 = 4;
const FLAG_COST: u8 = 8;
const FLAGS: u8 = FLAG_MASTERING | FLAG_CONTENT_LIGHT | FLAG_CHECKSUMS | FLAG_COST;

/// A fraction of positive integers below 2^31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rational {
    /// Numerator.
    pub num: u32,
    /// Denominator, never 0.
    pub den: u32,
}

impl Rational {
    /// `num`/`den`.
    pub const fn new(num: u32, den: u32) -> Rational {
        Rational { num, den }
    }

    /// Duration of `count` frames in ns at this rate, rounded down as GStreamer does; `None` where
    /// the rate is unknown (0).
    pub fn frames_ns(self, count: u32) -> Option<i64> {
        let (num, den) = (u128::from(self.num), u128::from(self.den));
        if num == 0 {
            return None;
        }
        i64::try_from((u128::from(count) * den * 1_000_000_000) / num).ok()
    }
}

/// How chroma is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChromaFormat {
    /// 4:2:0.
    Yuv420,
    /// Grey: coded as 4:2:0, and chroma is not shown.
    Grey,
}

/// Nominal range of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoRange {
    /// 16..235 (times 4 at 10 bit).
    Limited,
    /// 0..255 (0..1023 at 10 bit).
    Full,
    /// Not said.
    Unspecified,
}

/// What sample values mean: codes of ISO/IEC 23091-2 (H.273); 2 is "unspecified".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colorimetry {
    /// ColourPrimaries.
    pub primaries: u8,
    /// TransferCharacteristics.
    pub transfer: u8,
    /// MatrixCoefficients.
    pub matrix: u8,
    /// VideoFullRangeFlag, or unspecified.
    pub range: VideoRange,
    /// Chroma420SampleLocType 0..=5, where it is known.
    pub chroma_site: Option<u8>,
}

impl Default for Colorimetry {
    fn default() -> Self {
        Colorimetry {
            primaries: 2,
            transfer: 2,
            matrix: 2,
            range: VideoRange::Unspecified,
            chroma_site: None,
        }
    }
}

/// Colour volume of the mastering display, in the units of HEVC's SEI message and of GStreamer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasteringDisplay {
    /// x, y of red, green, blue in 1/50000.
    pub primaries: [[u16; 2]; 3],
    /// x, y of the white point in 1/50000.
    pub white_point: [u16; 2],
    /// Largest luminance in 1/10000 cd/m².
    pub max_luminance: u32,
    /// Smallest luminance in 1/10000 cd/m².
    pub min_luminance: u32,
}

/// Content light level in cd/m².
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentLight {
    /// Largest light level of a pixel.
    pub max_content: u16,
    /// Largest average over a frame.
    pub max_frame_average: u16,
}

/// Luma samples cut off from the coded picture for output. Even where chroma is subsampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crop {
    /// From the left.
    pub left: u32,
    /// From the top.
    pub top: u32,
    /// From the right.
    pub right: u32,
    /// From the bottom.
    pub bottom: u32,
}

/// What holds for all groups of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GopFacts {
    /// Most frames that precede any frame in decoding order and follow it in output order: 0..=7.
    /// 0: no reordering.
    pub max_reorder: u8,
    /// Frames of the longest mini-GOP, 1..=8. 1: no B frames.
    pub mini_gop: u8,
    /// Most frames kept as references at one time, 1..=8.
    pub max_references: u8,
    /// Most frames from one key frame to the next; 0: not limited.
    pub key_interval: u32,
}

/// The sequence header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceHeader {
    /// Name of the bundle, `[a-z0-9._-]`, 1 to 64 bytes.
    pub bundle_name: String,
    /// The beginning of the bundle's hash.
    pub bundle_hash: BundleHash,
    /// Width of the coded picture in luma samples, 1..=16384, before padding to a multiple of 16.
    pub width: u32,
    /// Height of the coded picture in luma samples.
    pub height: u32,
    /// What is cut off for output.
    pub crop: Crop,
    /// Frames per second; `0/1`: unknown or variable.
    pub frame_rate: Rational,
    /// Width over height of a pixel.
    pub pixel_aspect: Rational,
    /// How chroma is sampled.
    pub chroma_format: ChromaFormat,
    /// Bits per sample of the output: 8 or 10.
    pub bit_depth: u8,
    /// Meaning of the samples.
    pub colorimetry: Colorimetry,
    /// HDR: mastering display.
    pub mastering_display: Option<MasteringDisplay>,
    /// HDR: content light level.
    pub content_light: Option<ContentLight>,
    /// Structure of the stream.
    pub gop: GopFacts,
    /// Independent entropy streams of `y` in each key frame, 1..=8.
    pub key_streams: u8,
    /// Independent entropy streams of `y` in each inter frame, 1..=8.
    pub inter_streams: u8,
    /// Every frame carries a checksum.
    pub checksums: bool,
    /// What decoding costs; early encoders do not say.
    pub cost: Option<DecodingCost>,
}

impl SequenceHeader {
    /// A header for pictures of this size with everything else at its default.
    pub fn new(
        bundle_name: &str,
        bundle_hash: BundleHash,
        width: u32,
        height: u32,
        bit_depth: u8,
    ) -> SequenceHeader {
        SequenceHeader {
            bundle_name: bundle_name.to_owned(),
            bundle_hash,
            width,
            height,
            crop: Crop::default(),
            frame_rate: Rational::new(0, 1),
            pixel_aspect: Rational::new(1, 1),
            chroma_format: ChromaFormat::Yuv420,
            bit_depth,
            colorimetry: Colorimetry::default(),
            mastering_display: None,
            content_light: None,
            gop: GopFacts {
                max_reorder: 0,
                mini_gop: 1,
                max_references: 2,
                key_interval: 0,
            },
            key_streams: 1,
            inter_streams: 1,
            checksums: false,
            cost: None,
        }
    }

    /// The level that the stream states, or the lowest one that it can have.
    pub fn level(&self) -> Level {
        self.cost.map_or_else(|| Level::of(self), |cost| cost.level)
    }

    /// States what decoding costs: the lowest level for networks of so many multiplications for
    /// each luma sample of the costliest frame.
    pub fn state_cost(&mut self, macs: u32) {
        let level = Level::UNBOUNDED;
        self.cost = Some(DecodingCost { level, macs });
        let level = Level::of(self);
        self.cost = Some(DecodingCost { level, macs });
    }

    /// Entropy streams of `y` in frames of this type.
    pub fn y_streams(&self, kind: FrameType) -> u8 {
        match kind {
            FrameType::Key => self.key_streams,
            FrameType::Inter | FrameType::Repeat => self.inter_streams,
        }
    }

    /// Width of the output: the coded width less the crop.
    pub fn display_width(&self) -> u32 {
        self.width
            .saturating_sub(self.crop.left)
            .saturating_sub(self.crop.right)
    }

    /// Height of the output: the coded height less the crop.
    pub fn display_height(&self) -> u32 {
        self.height
            .saturating_sub(self.crop.top)
            .saturating_sub(self.crop.bottom)
    }

    /// Height and width of the latent `y`.
    pub fn latent_size(&self) -> (usize, usize) {
        (
            self.height.div_ceil(16) as usize,
            self.width.div_ceil(16) as usize,
        )
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
        let name = self.bundle_name.as_bytes();
        let letter = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        check(
            (1..=MAX_NAME).contains(&name.len()),
            "bundle name length",
            name.len() as i64,
            "1 to 64",
        )?;
        if let Some(b) = name.iter().find(|b| !letter(b)) {
            check(
                false,
                "bundle name",
                i64::from(*b),
                "letters a-z, digits and . _ -",
            )?;
        }
        check(
            name[0] != b'.',
            "bundle name",
            i64::from(b'.'),
            "no dot at its beginning",
        )?;
        check(
            (1..=MAX_SIDE).contains(&self.width),
            "width",
            self.width.into(),
            "1 to 16384",
        )?;
        check(
            (1..=MAX_SIDE).contains(&self.height),
            "height",
            self.height.into(),
            "1 to 16384",
        )?;
        let Crop {
            left,
            top,
            right,
            bottom,
        } = self.crop;
        let fits = |a: u32, b: u32, size: u32| a < size && b < size - a;
        check(
            fits(left, right, self.width),
            "crop left + right",
            i64::from(left) + i64::from(right),
            "below the width",
        )?;
        check(
            fits(top, bottom, self.height),
            "crop top + bottom",
            i64::from(top) + i64::from(bottom),
            "below the height",
        )?;
        check(left % 2 == 0, "crop left", left.into(), "even numbers")?;
        check(top % 2 == 0, "crop top", top.into(), "even numbers")?;
        let below = |r: Rational| r.num < 1 << 31 && (1..1 << 31).contains(&r.den);
        let (f, p) = (self.frame_rate, self.pixel_aspect);
        check(
            below(f),
            "frame rate",
            f.den.into(),
            "fractions of numbers below 2^31, 0/1 for unknown",
        )?;
        check(
            below(p) && p.num > 0,
            "pixel aspect ratio",
            p.num.into(),
            "fractions of positive numbers below 2^31",
        )?;
        check(
            matches!(self.bit_depth, 8 | 10),
            "bit depth",
            self.bit_depth.into(),
            "8 or 10",
        )?;
        if let Some(site) = self.colorimetry.chroma_site {
            check(
                site <= 5,
                "chroma site",
                site.into(),
                "0 to 5, 255 for unknown",
            )?;
        }
        let g = self.gop;
        check(
            g.max_reorder < MAX_MINI_GOP,
            "max reorder",
            g.max_reorder.into(),
            "0 to 7",
        )?;
        check(
            (1..=MAX_MINI_GOP).contains(&g.mini_gop),
            "mini-GOP",
            g.mini_gop.into(),
            "1 to 8",
        )?;
        check(
            (1..=MAX_REFERENCES).contains(&g.max_references),
            "max references",
            g.max_references.into(),
            "1 to 8",
        )?;
        check(
            g.key_interval < 1 << 31,
            "key interval",
            g.key_interval.into(),
            "numbers below 2^31, 0 for no limit",
        )?;
        for streams in [self.key_streams, self.inter_streams] {
            let sound = (1..=MAX_Y_STREAMS).contains(&streams);
            check(sound, "y streams", streams.into(), "1 to 8")?;
        }
        if let Some(DecodingCost { level, macs }) = self.cost {
            check(macs < 1 << 31, "cost", macs.into(), "numbers below 2^31")?;
            check(
                level >= Level::of(self),
                "level",
                level.code().into(),
                "a level whose bounds hold all that the header says",
            )?;
        }
        Ok(())
    }

    /// The payload of a sequence header unit.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate).
    pub fn to_payload(&self) -> Result<Vec<u8>, BitstreamError> {
        self.validate()?;
        let mut o = Vec::with_capacity(128);
        o.extend(MAGIC);
        o.push(VERSION);
        o.push(self.bundle_name.len() as u8);
        o.extend(self.bundle_name.as_bytes());
        o.extend(self.bundle_hash);
        let mut flags = 0;
        flags |= if self.mastering_display.is_some() {
            FLAG_MASTERING
        } else {
            0
        };
        flags |= if self.content_light.is_some() {
            FLAG_CONTENT_LIGHT
        } else {
            0
        };
        flags |= if self.checksums { FLAG_CHECKSUMS } else { 0 };
        flags |= if self.cost.is_some() { FLAG_COST } else { 0 };
        o.push(flags);
        let c = self.crop;
        for v in [self.width, self.height, c.left, c.top, c.right, c.bottom] {
            put_varint(&mut o, v.into());
        }
        let (f, p) = (self.frame_rate, self.pixel_aspect);
        for v in [f.num, f.den, p.num, p.den] {
            put_varint(&mut o, v.into());
        }
        let m = self.colorimetry;
        let range = match m.range {
            VideoRange::Limited => 0,
            VideoRange::Full => 1,
            VideoRange::Unspecified => 2,
        };
        let chroma = match self.chroma_format {
            ChromaFormat::Grey => 0,
            ChromaFormat::Yuv420 => 1,
        };
        o.extend([
            chroma,
            self.bit_depth,
            m.primaries,
            m.transfer,
            m.matrix,
            range,
            m.chroma_site.unwrap_or(255),
        ]);
        if let Some(d) = self.mastering_display {
            for v in d.primaries.iter().flatten().chain(&d.white_point) {
                o.extend(v.to_be_bytes());
            }
            o.extend(d.max_luminance.to_be_bytes());
            o.extend(d.min_luminance.to_be_bytes());
        }
        if let Some(l) = self.content_light {
            o.extend(l.max_content.to_be_bytes());
            o.extend(l.max_frame_average.to_be_bytes());
        }
        let g = self.gop;
        o.extend([g.max_reorder, g.mini_gop, g.max_references]);
        put_varint(&mut o, g.key_interval.into());
        o.push((self.key_streams - 1) << 3 | (self.inter_streams - 1));
        if let Some(DecodingCost { level, macs }) = self.cost {
            o.push(level.code());
            put_varint(&mut o, macs.into());
        }
        Ok(o)
    }

    /// Reads the payload of a sequence header unit.
    ///
    /// # Errors
    /// [`BitstreamError`] says which field is missing or beyond its limits.
    pub fn parse(payload: &[u8]) -> Result<SequenceHeader, BitstreamError> {
        let mut r = Reader::new(HEADER, payload);
        if r.bytes(4, "magic")? != MAGIC {
            return Err(BitstreamError::Magic);
        }
        match r.u8("stream version")? {
            VERSION => {}
            0 => return r.fail("stream version", 0, "1"),
            newer => return Err(BitstreamError::Version(newer)),
        }
        let len = r.u8("bundle name length")?;
        if !(1..=MAX_NAME).contains(&usize::from(len)) {
            return r.fail("bundle name length", len.into(), "1 to 64");
        }
        // Anything but ASCII is refused by `validate`; a replacement character is not ASCII.
        let bundle_name = String::from_utf8_lossy(r.bytes(len.into(), "bundle name")?).into_owned();
        let mut bundle_hash = BundleHash::default();
        bundle_hash.copy_from_slice(r.bytes(size_of::<BundleHash>(), "bundle hash")?);
        let flags = r.u8("flags")?;
        if flags & !FLAGS != 0 {
            return r.fail("flags", flags.into(), "0 to 15");
        }
        let size = |r: &mut Reader, field, min| {
            r.ranged(field, min, MAX_SIDE.into(), "up to 16384")
                .map(|v| v as u32)
        };
        let width = size(&mut r, "width", 1)?;
        let height = size(&mut r, "height", 1)?;
        let crop = Crop {
            left: size(&mut r, "crop left", 0)?,
            top: size(&mut r, "crop top", 0)?,
            right: size(&mut r, "crop right", 0)?,
            bottom: size(&mut r, "crop bottom", 0)?,
        };
        let int = |r: &mut Reader, field| {
            r.ranged(field, 0, (1 << 31) - 1, "below 2^31")
                .map(|v| v as u32)
        };
        let frame_rate = Rational::new(
            int(&mut r, "frame rate numerator")?,
            int(&mut r, "frame rate denominator")?,
        );
        let pixel_aspect = Rational::new(
            int(&mut r, "pixel aspect numerator")?,
            int(&mut r, "pixel aspect denominator")?,
        );
        let chroma_format = match r.u8("chroma format")? {
            0 => ChromaFormat::Grey,
            1 => ChromaFormat::Yuv420,
            v => return r.fail("chroma format", v.into(), "0 (grey) or 1 (4:2:0)"),
        };
        let bit_depth = r.u8("bit depth")?;
        let (primaries, transfer, matrix) =
            (r.u8("primaries")?, r.u8("transfer")?, r.u8("matrix")?);
        let range = match r.u8("range")? {
            0 => VideoRange::Limited,
            1 => VideoRange::Full,
            2 => VideoRange::Unspecified,
            v => return r.fail("range", v.into(), "0 (limited), 1 (full), 2 (unspecified)"),
        };
        let chroma_site = Some(r.u8("chroma site")?).filter(|&s| s != 255);
        let mastering_display = if flags & FLAG_MASTERING != 0 {
            let mut v = [0u16; 8];
            for v in &mut v {
                *v = r.u16("mastering display")?;
            }
            Some(MasteringDisplay {
                primaries: [[v[0], v[1]], [v[2], v[3]], [v[4], v[5]]],
                white_point: [v[6], v[7]],
                max_luminance: r.u32("mastering display")?,
                min_luminance: r.u32("mastering display")?,
            })
        } else {
            None
        };
        let content_light = if flags & FLAG_CONTENT_LIGHT != 0 {
            let (max_content, max_frame_average) =
                (r.u16("content light")?, r.u16("content light")?);
            Some(ContentLight {
                max_content,
                max_frame_average,
            })
        } else {
            None
        };
        let gop = GopFacts {
            max_reorder: r.u8("max reorder")?,
            mini_gop: r.u8("mini-GOP")?,
            max_references: r.u8("max references")?,
            key_interval: int(&mut r, "key interval")?,
        };
        let streams = r.u8("y streams")?;
        if streams >= 64 {
            return Err(BitstreamError::Field {
                header: HEADER,
                field: "y streams",
                value: streams.into(),
                allowed: "0 to 63",
            });
        }
        let cost = if flags & FLAG_COST != 0 {
            let code = r.u8("level")?;
            let Some(level) = Level::from_code(code) else {
                return r.fail("level", 0, "from 1 on");
            };
            let macs = int(&mut r, "cost")?;
            Some(DecodingCost { level, macs })
        } else {
            None
        };
        r.end()?;
        let header = SequenceHeader {
            bundle_name,
            bundle_hash,
            width,
            height,
            crop,
            frame_rate,
            pixel_aspect,
            chroma_format,
            bit_depth,
            colorimetry: Colorimetry {
                primaries,
                transfer,
                matrix,
                range,
                chroma_site,
            },
            mastering_display,
            content_light,
            gop,
            key_streams: (streams >> 3) + 1,
            inter_streams: (streams & 7) + 1,
            checksums: flags & FLAG_CHECKSUMS != 0,
            cost,
        };
        header.validate()?;
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> SequenceHeader {
        SequenceHeader {
            crop: Crop {
                left: 2,
                top: 4,
                right: 3,
                bottom: 1,
            },
            frame_rate: Rational::new(30000, 1001),
            pixel_aspect: Rational::new(12, 11),
            colorimetry: Colorimetry {
                primaries: 9,
                transfer: 16,
                matrix: 9,
                range: VideoRange::Limited,
                chroma_site: Some(2),
            },
            mastering_display: Some(MasteringDisplay {
                primaries: [[34000, 16000], [13250, 34500], [7500, 3000]],
                white_point: [15635, 16450],
                max_luminance: 10_000_000,
                min_luminance: 50,
            }),
            content_light: Some(ContentLight {
                max_content: 1000,
                max_frame_average: 400,
            }),
            gop: GopFacts {
                max_reorder: 3,
                mini_gop: 8,
                max_references: 6,
                key_interval: 250,
            },
            key_streams: 2,
            inter_streams: 4,
            checksums: true,
            cost: Some(DecodingCost {
                level: Level::UNBOUNDED,
                macs: 9548,
            }),
            ..SequenceHeader::new("realtime", [0xab; 8], 1920, 1080, 10)
        }
    }

    #[test]
    fn headers_round_trip() {
        for h in [
            full(),
            SequenceHeader::new("a", [0; 8], 1, 1, 8),
            SequenceHeader::new("x.y-z_9", [1; 8], 16384, 16384, 8),
        ] {
            assert_eq!(SequenceHeader::parse(&h.to_payload().unwrap()), Ok(h));
        }
        assert_eq!(
            (full().display_width(), full().display_height()),
            (1915, 1075)
        );
        assert_eq!(full().latent_size(), (68, 120));
    }

    #[test]
    fn the_format_of_version_1_does_not_change() {
        let early = SequenceHeader {
            cost: None,
            ..full()
        };
        for (header, sum) in [(early, 0xf6ac_e241), (full(), 0x7e6d_1d32)] {
            let found = crc32c::crc32c(&header.to_payload().unwrap());
            assert_eq!(
                found, sum,
                "changed bytes are a change of the format: {found:08x}"
            );
        }
    }

    #[test]
    fn a_level_holds_what_the_header_says() {
        let stated = |level, macs| SequenceHeader {
            cost: Level::from_code(level).map(|level| DecodingCost { level, macs }),
            ..full()
        };
        // 1920×1080 at 29.97.
        let header = stated(5, 9548);
        assert_eq!(header.level(), Level::of(&header));
        let payload = header.to_payload().unwrap();
        assert_eq!(payload[payload.len() - 3..], [5, 0xcc, 0x4a]);
        for higher in [6, 10, 255] {
            let header = stated(higher, 9548);
            let parsed = SequenceHeader::parse(&header.to_payload().unwrap()).unwrap();
            assert_eq!(parsed.level().code(), higher);
        }
        // Too low a level, or a cost that is beyond it, and levels that there are none of.
        let mut bad = payload.clone();
        for later in [11, 254] {
            bad[payload.len() - 3] = later;
            let parsed = SequenceHeader::parse(&bad).unwrap();
            assert_eq!(parsed.level().code(), later);
        }
        for level in [1, 4, 0] {
            bad[payload.len() - 3] = level;
            let error = SequenceHeader::parse(&bad).unwrap_err();
            let field = matches!(error, BitstreamError::Field { field: "level", .. });
            assert!(field, "{error}");
        }
        bad.splice(payload.len() - 3.., [5, 0x80, 0x80, 0x04]);
        assert!(SequenceHeader::parse(&bad).is_err());
        bad.splice(payload.len() - 3.., [255, 0x80, 0x80, 0x80, 0x80, 0x08]);
        let error = SequenceHeader::parse(&bad).unwrap_err();
        assert!(matches!(error, BitstreamError::Field { field: "cost", .. }));
        // Early headers: what their fields give.
        let early = SequenceHeader {
            cost: None,
            ..full()
        };
        assert_eq!(early.level().code(), 5);
    }

    #[test]
    fn limits_hold_when_writing() {
        let bad: [fn(&mut SequenceHeader); 23] = [
            |h| h.bundle_name.clear(),
            |h| h.bundle_name = "Upper".into(),
            |h| h.bundle_name = "../evil".into(),
            |h| h.bundle_name = "a/b".into(),
            |h| h.bundle_name = "x".repeat(65),
            |h| h.width = 0,
            |h| h.width = 16385,
            |h| h.height = 0,
            |h| h.crop.left = 3,
            |h| h.crop.left = 1920,
            |h| h.crop.bottom = u32::MAX,
            |h| h.frame_rate.den = 0,
            |h| h.frame_rate.num = 1 << 31,
            |h| h.pixel_aspect.num = 0,
            |h| h.bit_depth = 9,
            |h| h.colorimetry.chroma_site = Some(6),
            |h| h.gop.max_reorder = 8,
            |h| h.gop.mini_gop = 0,
            |h| h.gop.max_references = 9,
            |h| h.key_streams = 0,
            |h| h.inter_streams = 9,
            |h| h.cost.as_mut().unwrap().macs = 1 << 31,
            |h| h.cost.as_mut().unwrap().level = Level::from_code(4).unwrap(),
        ];
        for (i, f) in bad.iter().enumerate() {
            let mut h = full();
            f(&mut h);
            assert!(
                matches!(h.to_payload(), Err(BitstreamError::Field { .. })),
                "case {i}"
            );
        }
    }

    #[test]
    fn every_cut_and_every_wrong_byte_is_an_error_or_a_valid_header() {
        let p = full().to_payload().unwrap();
        for n in 0..p.len() {
            assert!(
                matches!(
                    SequenceHeader::parse(&p[..n]),
                    Err(BitstreamError::Truncated { .. })
                ),
                "{n}"
            );
        }
        let mut longer = p.clone();
        longer.push(0);
        assert!(matches!(
            SequenceHeader::parse(&longer),
            Err(BitstreamError::Trailing { left: 1, .. })
        ));
        for i in 0..p.len() {
            for v in 0..=255 {
                let mut q = p.clone();
                q[i] = v;
                if let Ok(h) = SequenceHeader::parse(&q) {
                    h.validate().unwrap();
                    assert_eq!(h.to_payload().unwrap(), q, "one header, one form");
                }
            }
        }
        let mut newer = p.clone();
        newer[4] = 2;
        assert_eq!(
            SequenceHeader::parse(&newer),
            Err(BitstreamError::Version(2))
        );
        assert_eq!(
            SequenceHeader::parse(b"RIFFxxxx"),
            Err(BitstreamError::Magic)
        );
    }
}

// SPDX-License-Identifier: MPL-2.0
//! What a sequence header says, for a page.

use std::cmp::Ordering;

use nnv_bitstream::{
    AccessUnit, BitstreamError, BundleHash, ChromaFormat, Scan, SequenceHeader, StreamInfo,
    UnitScanner, UnitType, VideoRange, mp4, write_unit,
};
use nnv_nn::hex;

use crate::PageError;

/// A bundle of networks that a stream names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededBundle {
    /// Its name: of letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// The beginning of its hash.
    pub hash: BundleHash,
}

/// What a page wants to know of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceFacts {
    /// The header.
    pub header: SequenceHeader,
    /// The part of it that is about pictures.
    pub info: StreamInfo,
}

impl From<SequenceHeader> for SequenceFacts {
    fn from(header: SequenceHeader) -> Self {
        let info = StreamInfo::from_header(&header);
        Self { header, info }
    }
}

impl SequenceFacts {
    /// The networks that the stream needs.
    pub fn bundle(&self) -> NeededBundle {
        NeededBundle {
            name: self.header.bundle_name.clone(),
            hash: self.header.bundle_hash,
        }
    }
}

/// Width and height as they are shown: the coded size less the crop.
pub fn shown_size(info: &StreamInfo) -> (u32, u32) {
    let crop = &info.crop;
    (
        info.width - crop.left - crop.right,
        info.height - crop.top - crop.bottom,
    )
}

/// The shown size with the pixel aspect multiplied in, in the direction that grows.
pub fn display_size(info: &StreamInfo) -> (u32, u32) {
    let (width, height) = shown_size(info);
    let (n, d) = info.pixel_aspect;
    let scaled = |side: u32, n: u32, d: u32| {
        let (n, d) = (u64::from(n), u64::from(d).max(1));
        u32::try_from((u64::from(side) * n + d / 2) / d).unwrap_or(u32::MAX)
    };
    match n.cmp(&d) {
        Ordering::Greater => (scaled(width, n, d), height),
        Ordering::Less => (width, scaled(height, d, n)),
        Ordering::Equal => (width, height),
    }
}

/// Whether pictures have no colour.
pub fn is_grey(info: &StreamInfo) -> bool {
    info.chroma_format == ChromaFormat::Grey
}

/// Primaries, transfer and matrix in the words of `VideoColorSpace`, where it has one.
pub fn colours(info: &StreamInfo) -> [Option<&'static str>; 3] {
    let c = &info.colorimetry;
    [
        match c.primaries {
            1 => Some("bt709"),
            5 => Some("bt470bg"),
            6 => Some("smpte170m"),
            9 => Some("bt2020"),
            12 => Some("smpte432"),
            _ => None,
        },
        match c.transfer {
            // Those of BT.2020 are BT.709's curve.
            1 | 14 | 15 => Some("bt709"),
            6 => Some("smpte170m"),
            8 => Some("linear"),
            13 => Some("iec61966-2-1"),
            16 => Some("pq"),
            18 => Some("hlg"),
            _ => None,
        },
        match c.matrix {
            1 => Some("bt709"),
            5 => Some("bt470bg"),
            6 => Some("smpte170m"),
            9 => Some("bt2020-ncl"),
            _ => None,
        },
    ]
}

/// Whether samples use their full range, where the stream says.
pub fn full_range(info: &StreamInfo) -> Option<bool> {
    match info.colorimetry.range {
        VideoRange::Full => Some(true),
        VideoRange::Limited => Some(false),
        VideoRange::Unspecified => None,
    }
}

impl NeededBundle {
    /// The hash's beginning in hexadecimal digits.
    pub fn hash_text(&self) -> String {
        hex(&self.hash)
    }
}

fn refused(error: BitstreamError) -> PageError {
    nnv_codec::error::CodecError::from(error).into()
}

/// Reads the sequence header out of what describes a stream: the payload of an MP4 file's box
/// `nnvC`, the payload of a sequence header unit, or bytes of a stream that begin with that unit.
///
/// # Errors
/// [`PageError::Data`] for anything else and for damage, [`PageError::NotSupported`] for headers of
/// a later version.
pub fn description(bytes: &[u8]) -> Result<SequenceHeader, PageError> {
    if bytes.starts_with(b"NNV1") {
        return SequenceHeader::parse(bytes).map_err(refused);
    }
    if let Scan::Unit(unit) = UnitScanner::new().scan(bytes, true)
        && unit.kind == UnitType::Sequence
    {
        return SequenceHeader::parse(unit.payload).map_err(refused);
    }
    mp4::parse_configuration(bytes).map_err(|error| match refused(error) {
        PageError::Data(_) => PageError::Data(
            "description is no sequence header: give the payload of the box nnvC, or leave it out"
                .into(),
        ),
        other => other,
    })
}

/// The unit of a sequence header, as decoders take it.
pub(crate) fn unit(header: &SequenceHeader) -> Result<Vec<u8>, PageError> {
    let mut unit = Vec::new();
    let payload = header.to_payload().map_err(refused)?;
    write_unit(&mut unit, UnitType::Sequence, &payload).map_err(refused)?;
    Ok(unit)
}

/// The first sequence header in the bytes of a stream or a chunk, where there is a sound one before
/// a frame that others need.
pub fn sequence_in(bytes: &[u8]) -> Option<SequenceFacts> {
    if let Ok(unit) = AccessUnit::parse(bytes) {
        return unit.sequence.map(SequenceFacts::from);
    }
    let scanner = UnitScanner::new();
    let mut rest = bytes;
    loop {
        match scanner.scan(rest, true) {
            Scan::Unit(unit) => {
                if unit.kind == UnitType::Sequence
                    && let Ok(header) = SequenceHeader::parse(unit.payload)
                {
                    return Some(header.into());
                }
                rest = &rest[unit.len..];
            }
            Scan::Skip(n) => rest = &rest[n.min(rest.len())..],
            Scan::NeedMore(_) | Scan::End => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SequenceHeader {
        SequenceHeader::new("realtime", [7; 8], 720, 576, 8)
    }

    #[test]
    fn three_ways_to_describe_a_stream() {
        let header = header();
        let payload = header.to_payload().unwrap();
        let unit = unit(&header).unwrap();
        for way in [&payload, &mp4::configuration(&payload), &unit] {
            assert_eq!(description(way).unwrap(), header);
        }
        let mut later = mp4::configuration(&payload);
        later[0] = 1;
        let mut version = payload.clone();
        version[4] = 9;
        for bad in [&b""[..], b"<!doctype html>", &later, &payload[..20]] {
            assert_eq!(description(bad).unwrap_err().name(), "DataError", "{bad:?}");
        }
        assert_eq!(
            description(&version).unwrap_err().name(),
            "NotSupportedError"
        );
    }

    #[test]
    fn sizes_as_shown() {
        let mut info = StreamInfo::from_header(&header());
        assert_eq!(display_size(&info), (720, 576));
        info.pixel_aspect = (16, 11);
        assert_eq!(display_size(&info), (1047, 576));
        info.pixel_aspect = (1, 2);
        info.crop.top = 16;
        assert_eq!(shown_size(&info), (720, 560));
        assert_eq!(display_size(&info), (720, 1120));
        info.pixel_aspect = (u32::MAX, 1);
        assert_eq!(display_size(&info).0, u32::MAX);
    }

    #[test]
    fn headers_are_found_behind_damage() {
        let unit = unit(&header()).unwrap();
        let stream = [&b"junk before"[..], &unit, b"and behind"].concat();
        assert_eq!(sequence_in(&stream).unwrap().header, header());
        assert_eq!(sequence_in(b"nothing at all"), None);
        assert_eq!(sequence_in(&unit[..unit.len() - 1]), None);
    }
}

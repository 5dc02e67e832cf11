// SPDX-License-Identifier: MPL-2.0
//! Carriage in ISO base media files (MP4): bytes of the sample entry `nnv1` and of its
//! configuration box `nnvC`. `docs/mp4.md` is the specification.

use super::sequence::{SequenceHeader, VideoRange};
use super::{BitstreamError, Rational};

/// Type of the sample entry.
pub const SAMPLE_ENTRY: [u8; 4] = *b"nnv1";
/// Type of the configuration box within the sample entry.
pub const CONFIGURATION: [u8; 4] = *b"nnvC";
/// What the sample entry says about the coder.
pub const COMPRESSOR: &str = "NNV neural video";

/// Bytes of a visual sample entry before its boxes.
const ENTRY: usize = 78;
/// Version and flags of the configuration box.
const VERSION: [u8; 4] = [0; 4];

fn put_box(out: &mut Vec<u8>, kind: [u8; 4], payload: &[u8]) {
    // Payloads here are below a few hundred bytes.
    out.extend((payload.len() as u32 + 8).to_be_bytes());
    out.extend(kind);
    out.extend(payload);
}

/// Payload of the box `nnvC`: version and flags, then the payload of the sequence header unit.
pub fn configuration(sequence: &[u8]) -> Vec<u8> {
    [&VERSION, sequence].concat()
}

/// Reads the payload of a box `nnvC`.
///
/// # Errors
/// What [`SequenceHeader::parse`] says; [`BitstreamError::Field`] for a later version of the box.
pub fn parse_configuration(payload: &[u8]) -> Result<SequenceHeader, BitstreamError> {
    const HEADER: &str = "configuration box";
    match payload.split_first_chunk::<4>() {
        None => Err(BitstreamError::Truncated {
            header: HEADER,
            field: "version",
        }),
        Some(([0, ..], sequence)) => SequenceHeader::parse(sequence),
        Some(([version, ..], _)) => Err(BitstreamError::Field {
            header: HEADER,
            field: "version",
            value: (*version).into(),
            allowed: "0",
        }),
    }
}

/// Payload of the sample entry `nnv1` for a stream, given the payload of its sequence header unit:
/// the fields of a visual sample entry, `nnvC`, and `colr`, `pasp`, `mdcv`, `clli` where the header
/// says something other than their defaults.
///
/// # Errors
/// What [`SequenceHeader::parse`] says.
pub fn sample_entry(sequence: &[u8]) -> Result<Vec<u8>, BitstreamError> {
    let header = SequenceHeader::parse(sequence)?;
    let mut out = Vec::with_capacity(ENTRY + sequence.len() + 128);
    out.extend([0; 6]);
    out.extend(1u16.to_be_bytes());
    out.extend([0; 16]);
    // At most 16384: headers with larger pictures are refused.
    out.extend((header.display_width() as u16).to_be_bytes());
    out.extend((header.display_height() as u16).to_be_bytes());
    out.extend([0, 72, 0, 0, 0, 72, 0, 0, 0, 0, 0, 0, 0, 1]);
    let mut name = [0; 32];
    name[0] = COMPRESSOR.len() as u8;
    name[1..=COMPRESSOR.len()].copy_from_slice(COMPRESSOR.as_bytes());
    out.extend(name);
    out.extend([0, 24, 0xff, 0xff]);
    debug_assert_eq!(out.len(), ENTRY);

    put_box(&mut out, CONFIGURATION, &configuration(sequence));
    let c = header.colorimetry;
    if (c.primaries, c.transfer, c.matrix) != (2, 2, 2) || c.range != VideoRange::Unspecified {
        let mut colr = b"nclx".to_vec();
        for code in [c.primaries, c.transfer, c.matrix] {
            colr.extend(u16::from(code).to_be_bytes());
        }
        colr.push(u8::from(c.range == VideoRange::Full) << 7);
        put_box(&mut out, *b"colr", &colr);
    }
    let Rational { num, den } = header.pixel_aspect;
    if num != den {
        put_box(
            &mut out,
            *b"pasp",
            &[num.to_be_bytes(), den.to_be_bytes()].concat(),
        );
    }
    if let Some(m) = header.mastering_display {
        // Green, blue, red there.
        let [red, green, blue] = m.primaries;
        let mut mdcv: Vec<u8> = [green, blue, red, m.white_point]
            .as_flattened()
            .iter()
            .flat_map(|v| v.to_be_bytes())
            .collect();
        mdcv.extend(m.max_luminance.to_be_bytes());
        mdcv.extend(m.min_luminance.to_be_bytes());
        put_box(&mut out, *b"mdcv", &mdcv);
    }
    if let Some(c) = header.content_light {
        let clli = [c.max_content, c.max_frame_average].map(u16::to_be_bytes);
        put_box(&mut out, *b"clli", clli.as_flattened());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::{ContentLight, Crop, MasteringDisplay};
    use super::*;

    /// Boxes behind the fields of a visual sample entry.
    fn boxes(entry: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
        let mut rest = &entry[ENTRY..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            found.push((rest[4..8].try_into().unwrap(), rest[8..size].to_vec()));
            rest = &rest[size..];
        }
        found
    }

    #[test]
    fn a_plain_stream_needs_the_configuration_alone() {
        let header = SequenceHeader::new("b", [7; 8], 642, 362, 8);
        let payload = header.to_payload().unwrap();
        let entry = sample_entry(&payload).unwrap();
        assert_eq!(entry[24..28], [2, 130, 1, 106]);
        assert_eq!(&entry[43..59], COMPRESSOR.as_bytes());
        let boxes = boxes(&entry);
        assert_eq!(boxes.len(), 1);
        assert_eq!(boxes[0].0, CONFIGURATION);
        assert_eq!(parse_configuration(&boxes[0].1), Ok(header));
    }

    #[test]
    fn colours_aspect_and_light_have_their_boxes() {
        let mut header = SequenceHeader::new("b", [7; 8], 720, 576, 10);
        header.crop = Crop {
            right: 16,
            ..Crop::default()
        };
        header.pixel_aspect = Rational::new(16, 11);
        header.colorimetry.primaries = 9;
        header.colorimetry.transfer = 16;
        header.colorimetry.matrix = 9;
        header.colorimetry.range = VideoRange::Full;
        header.mastering_display = Some(MasteringDisplay {
            primaries: [[1, 2], [3, 4], [5, 6]],
            white_point: [7, 8],
            max_luminance: 10_000_000,
            min_luminance: 5,
        });
        header.content_light = Some(ContentLight {
            max_content: 1000,
            max_frame_average: 400,
        });
        let entry = sample_entry(&header.to_payload().unwrap()).unwrap();
        assert_eq!(entry[24..28], [2, 192, 2, 64]);
        let boxes = boxes(&entry);
        let kinds: Vec<&[u8]> = boxes.iter().map(|(kind, _)| kind.as_slice()).collect();
        assert_eq!(kinds, [b"nnvC", b"colr", b"pasp", b"mdcv", b"clli"]);
        assert_eq!(boxes[1].1, b"nclx\0\x09\0\x10\0\x09\x80");
        assert_eq!(boxes[2].1, [0, 0, 0, 16, 0, 0, 0, 11]);
        let mdcv = [0, 3, 0, 4, 0, 5, 0, 6, 0, 1, 0, 2, 0, 7, 0, 8];
        assert_eq!(boxes[3].1[..16], mdcv);
        assert_eq!(boxes[3].1[16..], [0, 0x98, 0x96, 0x80, 0, 0, 0, 5]);
        assert_eq!(boxes[4].1, [3, 232, 1, 144]);
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let payload = SequenceHeader::new("b", [7; 8], 64, 48, 8)
            .to_payload()
            .unwrap();
        let mut newer = configuration(&payload);
        newer[0] = 1;
        assert!(matches!(
            parse_configuration(&newer),
            Err(BitstreamError::Field { value: 1, .. })
        ));
        assert!(parse_configuration(&newer[..3]).is_err());
        assert!(sample_entry(&payload[..payload.len() - 1]).is_err());
    }
}

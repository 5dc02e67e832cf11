// SPDX-License-Identifier: MPL-2.0
//! Files in fragments as segments of HTTP Live Streaming.

use std::io::Cursor;

use nnv_bitstream::{Rational, SequenceHeader};
use nnv_mp4::fragments::FragmentMuxer;
use nnv_mp4::hls::{HlsError, Places, Segments};
use nnv_mp4::{Codec, Piece, Rotation, Sample, Track};

const MIB: usize = 1 << 20;

/// `frames` frames of 40 ms and `size` bytes, a key frame each `group`, fragments of a second.
fn file(frames: u64, group: u64, size: usize) -> Vec<u8> {
    let mut header = SequenceHeader::new("b", [7; 8], 64, 48, 8);
    header.frame_rate = Rational::new(25, 1);
    let track = Track {
        codec: Codec::Nnv(header.to_payload().unwrap()),
        language: None,
        rotation: Rotation::None,
    };
    let mut muxer = FragmentMuxer::new(vec![track], Vec::new(), 1_000_000_000).unwrap();
    let mut out = Vec::new();
    for number in 0..frames {
        let sample = Sample {
            data: Piece::Data(vec![number as u8; size]),
            pts: number as i64 * 40_000_000,
            dts: None,
            duration: Some(40_000_000),
            decoded: None,
            sync: number.is_multiple_of(group),
        };
        out.extend(muxer.push(0, sample).unwrap());
    }
    out.extend(muxer.end().unwrap());
    out.into_iter()
        .flat_map(|piece| match piece {
            Piece::Bytes(bytes) | Piece::Data(bytes) => bytes,
        })
        .collect()
}

fn read(data: &[u8]) -> Result<Segments, HlsError> {
    Segments::read(&mut Cursor::new(data))
}

#[test]
fn segments_cover_the_file_and_playlists_say_where() {
    // 25 frames and 25 frames and 10 frames.
    let data = file(60, 25, 100);
    let segments = read(&data).unwrap();
    let durations: Vec<_> = segments.list.iter().map(|s| s.duration).collect();
    assert_eq!(durations, [1.0, 1.0, 0.4]);
    let mut at = segments.head;
    for segment in &segments.list {
        assert_eq!(segment.at, at);
        assert_eq!(data[at as usize + 4..at as usize + 8], *b"moof");
        at += segment.len;
    }
    assert_eq!(at, data.len() as u64);

    let text = segments
        .playlist(&Places::OneFile("a%20b.mp4".into()))
        .unwrap();
    let lines: Vec<_> = text.lines().collect();
    let last = segments.list[2];
    for line in [
        "#EXT-X-VERSION:7".to_owned(),
        "#EXT-X-TARGETDURATION:1".to_owned(),
        "#EXT-X-INDEPENDENT-SEGMENTS".to_owned(),
        format!(
            "#EXT-X-MAP:URI=\"a%20b.mp4\",BYTERANGE=\"{}@0\"",
            segments.head
        ),
        format!("#EXT-X-BYTERANGE:{}@{}", last.len, last.at),
        "#EXT-X-ENDLIST".to_owned(),
    ] {
        assert!(lines.contains(&line.as_str()), "no {line} in\n{text}");
    }
    assert_eq!(lines.iter().filter(|line| **line == "a%20b.mp4").count(), 3);
    let files = Places::Files {
        head: "i.mp4".into(),
        name: |number| format!("{number}.m4s"),
    };
    let text = segments.playlist(&files).unwrap();
    assert!(text.contains("#EXT-X-MAP:URI=\"i.mp4\"\n") && text.contains("\n2.m4s\n"));
    assert!(!text.contains("BYTERANGE"));
}

#[test]
fn a_fragment_without_a_key_frame_belongs_to_the_one_before() {
    // 40 MiB to the next key frame: cut at 32 without one.
    let data = file(80, 40, MIB);
    assert!(data.windows(4).filter(|w| w == b"moof").count() > 2);
    let segments = read(&data).unwrap();
    let durations: Vec<_> = segments.list.iter().map(|s| s.duration).collect();
    assert_eq!(durations, [1.6, 1.6]);
}

#[test]
fn files_that_are_cut_off_or_none_are_told_apart() {
    let data = file(60, 25, 100);
    let whole = read(&data).unwrap();
    for cut in 0..data.len() {
        match read(&data[..cut]) {
            Ok(segments) => {
                let len = segments.list.len();
                let ends = whole.list[len - 1].at + whole.list[len - 1].len;
                assert!(ends as usize <= cut && len < 3);
                assert_eq!(segments.list[..len - 1], whole.list[..len - 1]);
            }
            Err(HlsError::NotFragmented) => {
                let first = whole.list[0];
                assert!((cut as u64) < first.at + first.len, "cut at {cut}");
            }
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
    assert!(matches!(
        read(b"\x1aE\xdf\xa3 this is Matroska"),
        Err(HlsError::NotMp4(0))
    ));
    // Bytes that were changed are an error or other segments, never a panic.
    let mut damaged = data.clone();
    for at in 0..whole.list[0].at as usize + 200 {
        for change in [0xff, 0x01, 0x80] {
            damaged[at] ^= change;
            let _ = read(&damaged);
            damaged[at] ^= change;
        }
    }
}

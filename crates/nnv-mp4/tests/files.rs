// SPDX-License-Identifier: MPL-2.0
//! Whole files, read back box by box.

use nnv_bitstream::SequenceHeader;
use nnv_mp4::file::FileMuxer;
use nnv_mp4::fragments::FragmentMuxer;
use nnv_mp4::{Codec, Data, Error, Piece, Rotation, Sample, Tag, Track};
use shiguredo_mp4::boxes::{MoofBox, MoovBox, StszBox};
use shiguredo_mp4::{BoxHeader, BoxType, Decode, Either};

const FRAME: i64 = 40_000_000;
/// Coding order of a mini-GOP of four after the frame before it, by order of showing.
const ORDER: [i64; 4] = [4, 2, 1, 3];

fn video() -> Track {
    let mut header = SequenceHeader::new("b", [7; 8], 64, 48, 8);
    header.frame_rate = nnv_bitstream::Rational::new(25, 1);
    Track {
        codec: Codec::Nnv(header.to_payload().unwrap()),
        language: None,
        rotation: Rotation::None,
    }
}

/// Frame `number` in coding order, of `size` bytes; a key frame each `group` frames.
fn frame(number: i64, group: i64, size: usize) -> Sample<Vec<u8>> {
    let (start, place) = (number / group * group, number % group);
    let shown = match place {
        0 => 0,
        place => (place - 1) / 4 * 4 + ORDER[(place - 1) as usize % 4],
    };
    Sample {
        data: Piece::Data(vec![number as u8; size]),
        pts: (start + shown) * FRAME,
        dts: None,
        duration: Some(FRAME as u64),
        decoded: None,
        sync: place == 0,
    }
}

fn bytes(pieces: Vec<Piece<Vec<u8>>>) -> Vec<u8> {
    pieces
        .into_iter()
        .flat_map(|piece| match piece {
            Piece::Bytes(bytes) | Piece::Data(bytes) => bytes,
        })
        .collect()
}

/// Boxes of a file: type, place, size.
fn boxes(data: &[u8]) -> Vec<(BoxType, usize, usize)> {
    let mut at = 0;
    let mut found = Vec::new();
    while at < data.len() {
        let (header, _) = BoxHeader::decode(&data[at..]).unwrap();
        let size = header.box_size.get() as usize;
        found.push((header.box_type, at, size));
        at += size;
    }
    assert_eq!(at, data.len());
    found
}

fn moov(data: &[u8]) -> MoovBox {
    let (_, at, _) = boxes(data)
        .into_iter()
        .find(|(kind, ..)| *kind == MoovBox::TYPE)
        .unwrap();
    MoovBox::decode(&data[at..]).unwrap().0
}

/// A file of `count` frames, its index behind or before its data.
fn file(count: i64, before: bool) -> Vec<u8> {
    let mut muxer = FileMuxer::new(vec![video()]).unwrap();
    let mut data = Vec::new();
    for number in 0..count {
        data.extend(bytes(muxer.push(0, frame(number, 49, 100)).unwrap()));
    }
    data.extend(bytes(muxer.end().unwrap()));
    let tags = [Tag::Text(*b"\xa9nam", "T".into())];
    if before {
        return [muxer.index_before(&tags).unwrap(), data].concat();
    }
    let ending = muxer.index_behind(&tags).unwrap();
    let mut file = [
        FileMuxer::<Vec<u8>>::beginning().unwrap(),
        data,
        ending.index,
    ]
    .concat();
    let at = ending.patch_at as usize;
    file[at..at + ending.patch.len()].copy_from_slice(&ending.patch);
    file
}

#[test]
fn the_index_finds_every_frame_and_is_small() {
    let count = 9_800;
    for before in [false, true] {
        let file = file(count, before);
        let index = moov(&file);
        let stbl = &index.trak_boxes[0].mdia_box.minf_box.stbl_box;
        let StszBox::Variable { entry_sizes } = &stbl.stsz_box else {
            panic!("sizes of each")
        };
        assert_eq!(entry_sizes.len() as i64, count);
        // One delta for all; offsets are never negative, the edit takes them back.
        assert_eq!(stbl.stts_box.entries.len(), 1);
        let offsets = stbl.ctts_box.as_ref().unwrap();
        assert_eq!(offsets.version, 0);
        let edit = &index.trak_boxes[0].edts_box.as_ref().unwrap();
        let edit = &edit.elst_box.as_ref().unwrap().entries;
        assert_eq!(edit.len(), 1);
        assert_eq!(edit[0].media_time, 2 * 3600);
        assert_eq!(edit[0].edit_duration as i64, count * 40_000);
        let keys = stbl.stss_box.as_ref().unwrap();
        assert_eq!(keys.sample_numbers.len() as i64, count / 49);
        assert_eq!(keys.sample_numbers[1].get(), 50);
        // All frames, chunk by chunk.
        let Either::A(places) = &stbl.stco_or_co64_box else {
            panic!("32 bits")
        };
        let mut number = 0;
        for (chunk, at) in places.chunk_offsets.iter().enumerate() {
            let runs = stbl.stsc_box.entries.iter();
            let run = runs
                .take_while(|run| run.first_chunk.get() as usize <= chunk + 1)
                .last()
                .unwrap();
            for place in 0..run.sample_per_chunk {
                let at = (*at + place * 100) as usize;
                assert_eq!(file[at..at + 100], [number as u8; 100]);
                number += 1;
            }
        }
        assert_eq!(number, count);
        let overhead = (file.len() as f64 - 100.0 * count as f64) / count as f64;
        println!("{overhead:.2} bytes a frame with B frames");
        assert!(overhead <= 16.0, "{overhead} bytes a frame");
    }
}

#[test]
fn fragments_begin_with_key_frames_and_their_times_go_on() {
    let mut muxer = FragmentMuxer::new(vec![video()], Vec::new(), 3_000_000_000).unwrap();
    let mut data = Vec::new();
    for number in 0..490 {
        data.extend(bytes(muxer.push(0, frame(number, 49, 100)).unwrap()));
    }
    data.extend(bytes(muxer.end().unwrap()));
    let mut next = 0;
    let mut count = 0;
    for (kind, at, _) in boxes(&data) {
        if kind != MoofBox::TYPE {
            continue;
        }
        let (moof, _) = MoofBox::decode(&data[at..]).unwrap();
        let traf = &moof.traf_boxes[0];
        let start = traf.tfdt_box.as_ref().unwrap().base_media_decode_time;
        assert_eq!(start, next);
        let run = &traf.trun_boxes[0];
        let first = at + run.data_offset.unwrap() as usize;
        assert_eq!(data[first..first + 100], [count as u8; 100]);
        // Two groups of 1.96 s each, so their second key frame has a flag of its own.
        assert_eq!(run.samples.len(), 98);
        assert!(!run.samples[0].flags.unwrap().sample_is_non_sync_sample());
        assert!(run.samples[1].flags.unwrap().sample_is_non_sync_sample());
        let offsets = run.samples.iter().map(|s| s.composition_time_offset);
        assert!(offsets.min().unwrap() == Some(0));
        next += 98 * 3600;
        count += 98;
    }
    assert_eq!(count, 490);
    let index = moov(&data);
    let edit = index.trak_boxes[0].edts_box.as_ref().unwrap();
    assert_eq!(edit.elst_box.as_ref().unwrap().entries[0].media_time, 7200);
}

#[test]
fn memory_is_bounded_without_key_frames() {
    const MIB: usize = 1 << 20;
    let mut muxer = FragmentMuxer::new(vec![video()], Vec::new(), 1_000_000_000).unwrap();
    let (mut given, mut most, mut cuts) = (0, 0, 0);
    let mut next = 0;
    for number in 0..101 {
        let pieces = muxer.push(0, frame(number, 1000, MIB)).unwrap();
        if let Some(Piece::Bytes(head)) = pieces.first() {
            cuts += 1;
            let moof = head.windows(4).position(|w| w == b"moof").unwrap() - 4;
            let (moof, _) = MoofBox::decode(&head[moof..]).unwrap();
            let traf = &moof.traf_boxes[0];
            let start = traf.tfdt_box.as_ref().unwrap().base_media_decode_time;
            assert_eq!(start, next);
            let samples = &traf.trun_boxes[0].samples;
            next += samples.len() as u64 * 3600;
            given += samples.len();
            assert!(samples.iter().all(|s| s.composition_time_offset >= Some(0)));
        }
        most = most.max(number as usize + 1 - given);
    }
    assert!(cuts >= 3);
    assert!(most <= 34, "{most} MiB wait");
    let rest = muxer.end().unwrap();
    let rest: usize = rest.iter().map(Data::size).sum();
    assert!(rest >= (101 - given) * MIB);
}

#[test]
fn a_file_without_samples_is_an_error() {
    let mut file = FileMuxer::<Vec<u8>>::new(vec![video()]).unwrap();
    assert!(file.end().unwrap().is_empty());
    assert!(matches!(file.index_behind(&[]), Err(Error::Empty)));
    let mut fragments = FragmentMuxer::<Vec<u8>>::new(vec![video()], Vec::new(), 1).unwrap();
    assert!(matches!(fragments.end(), Err(Error::Empty)));
}

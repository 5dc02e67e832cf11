// SPDX-License-Identifier: MPL-2.0
//! Files beyond 4 GiB, and tracks that change: what is written is counted, not kept.

use std::num::NonZeroU32;

use nnv_bitstream::{Rational, SequenceHeader};
use nnv_mp4::file::FileMuxer;
use nnv_mp4::fragments::FragmentMuxer;
use nnv_mp4::{Codec, Data, Error, Piece, Rotation, Sample, Track};
use shiguredo_mp4::boxes::{MoofBox, MoovBox};
use shiguredo_mp4::{BoxHeader, Decode, Either};

const FRAME: i64 = 40_000_000;
const MIB: usize = 1 << 20;

/// Data that are only as long as they say; `0`: their number, `1`: their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sparse(u64, usize);

impl Data for Sparse {
    fn size(&self) -> usize {
        self.1
    }
}

fn nnv(width: u32) -> Codec {
    let mut header = SequenceHeader::new("b", [7; 8], width, 48, 8);
    header.frame_rate = Rational::new(25, 1);
    Codec::Nnv(header.to_payload().unwrap())
}

fn track(codec: Codec) -> Track {
    Track {
        codec,
        language: None,
        rotation: Rotation::None,
    }
}

fn opus() -> Codec {
    Codec::Opus {
        channels: 2,
        pre_skip: 312,
        rate: 48_000,
        gain: 0,
    }
}

fn sample(number: u64, size: usize) -> Sample<Sparse> {
    Sample {
        data: Piece::Data(Sparse(number, size)),
        pts: number as i64 * FRAME,
        dts: None,
        duration: Some(FRAME as u64),
        decoded: None,
        sync: number.is_multiple_of(25),
    }
}

/// Where data lie in a file, by their number; and all that was made here.
#[derive(Default)]
struct Written {
    at: u64,
    places: Vec<(u64, u64)>,
    made: Vec<(u64, Vec<u8>)>,
}

impl Written {
    fn write(&mut self, pieces: Vec<Piece<Sparse>>) {
        for piece in pieces {
            let size = piece.size() as u64;
            match piece {
                Piece::Bytes(bytes) => self.made.push((self.at, bytes)),
                Piece::Data(Sparse(number, _)) => self.places.push((number, self.at)),
            }
            self.at += size;
        }
    }
}

fn moov(data: &[u8]) -> MoovBox {
    let mut at = 0;
    loop {
        let (header, _) = BoxHeader::decode(&data[at..]).unwrap();
        if header.box_type == MoovBox::TYPE {
            return MoovBox::decode(&data[at..]).unwrap().0;
        }
        at += header.box_size.get() as usize;
    }
}

/// Places of all samples of a track, by its tables.
fn places(moov: &MoovBox, track: usize) -> Vec<u64> {
    let stbl = &moov.trak_boxes[track].mdia_box.minf_box.stbl_box;
    let chunks: Vec<u64> = match &stbl.stco_or_co64_box {
        Either::A(small) => small
            .chunk_offsets
            .iter()
            .map(|at| u64::from(*at))
            .collect(),
        Either::B(large) => large.chunk_offsets.clone(),
    };
    let shiguredo_mp4::boxes::StszBox::Variable { entry_sizes } = &stbl.stsz_box else {
        panic!("sizes of each")
    };
    let mut sizes = entry_sizes.iter();
    let mut found = Vec::new();
    for (chunk, at) in chunks.iter().enumerate() {
        let runs = stbl.stsc_box.entries.iter();
        let run = runs
            .take_while(|run| run.first_chunk.get() as usize <= chunk + 1)
            .last()
            .unwrap();
        let mut at = *at;
        for _ in 0..run.sample_per_chunk {
            found.push(at);
            at += u64::from(*sizes.next().unwrap());
        }
    }
    assert_eq!(sizes.next(), None);
    found
}

#[test]
fn places_beyond_4_gib_take_64_bits() {
    // Just below, just above, far above.
    for (count, large) in [(4095_u64, false), (4097, true), (12_000, true)] {
        for before in [false, true] {
            let mut muxer = FileMuxer::new(vec![track(nnv(64)), track(opus())]).unwrap();
            let mut written = Written::default();
            if !before {
                written.write(vec![Piece::Bytes(
                    FileMuxer::<Sparse>::beginning().unwrap(),
                )]);
            }
            for number in 0..count {
                written.write(muxer.push(0, sample(number, MIB - 4)).unwrap());
                written.write(muxer.push(1, sample(number, 4)).unwrap());
            }
            written.write(muxer.end().unwrap());
            let data = written.at;
            let (index, shift) = if before {
                let head = muxer.index_before(&[]).unwrap();
                let (_, header) = head.split_at(head.len() - if large { 16 } else { 8 });
                let size = match large {
                    false => u64::from(u32::from_be_bytes(header[..4].try_into().unwrap())),
                    true => u64::from_be_bytes(header[8..].try_into().unwrap()),
                };
                assert_eq!(size, data + header.len() as u64);
                assert_eq!(header[4..8], *b"mdat");
                let shift = head.len() as u64;
                (moov(&head), shift)
            } else {
                let ending = muxer.index_behind(&[]).unwrap();
                let patch = &ending.patch;
                assert_eq!(patch.len(), 16);
                // The box that holds the data ends where the index begins.
                let (at, size) = match large {
                    false => (
                        8,
                        u64::from(u32::from_be_bytes(patch[8..12].try_into().unwrap())),
                    ),
                    true => (0, u64::from_be_bytes(patch[8..].try_into().unwrap())),
                };
                assert_eq!(ending.patch_at + at + size, data);
                (moov(&ending.index), 0)
            };
            let stbl = |n: usize| &index.trak_boxes[n].mdia_box.minf_box.stbl_box;
            for number in 0..2 {
                let wide = matches!(stbl(number).stco_or_co64_box, Either::B(_));
                assert_eq!(wide, large, "{count} MiB, index before: {before}");
            }
            let (mut video, mut sound) = (places(&index, 0), places(&index, 1));
            assert_eq!((video.len() as u64, sound.len() as u64), (count, count));
            // By number, as they were given: one of each.
            let mut given = written.places.clone();
            given.sort_unstable();
            let mut found: Vec<_> = (0..).zip(video.drain(..)).collect();
            found.extend((0..).zip(sound.drain(..)));
            found.sort_unstable();
            for ((number, at), (known, place)) in found.iter().zip(&given) {
                assert_eq!((*number, *at), (*known, place + shift));
            }
        }
    }
}

#[test]
fn fragments_beyond_4_gib_go_on() {
    let mut muxer = FragmentMuxer::new(vec![track(nnv(64))], Vec::new(), 1_000_000_000).unwrap();
    let mut written = Written::default();
    for number in 0..6000 {
        written.write(muxer.push(0, sample(number, MIB)).unwrap());
    }
    written.write(muxer.end().unwrap());
    assert!(written.at > 5 << 30);
    // Places are counted from their fragment on.
    let mut places = written.places.iter();
    for (at, head) in &written.made {
        let moof = head.windows(4).position(|w| w == b"moof").unwrap() - 4;
        let (decoded, _) = MoofBox::decode(&head[moof..]).unwrap();
        let run = &decoded.traf_boxes[0].trun_boxes[0];
        let first = at + moof as u64 + run.data_offset.unwrap() as u64;
        assert_eq!(places.next().unwrap().1, first);
        places.nth(run.samples.len() - 2);
    }
    assert_eq!(places.next(), None);
}

#[test]
fn video_that_changes_gets_another_entry() {
    let mut muxer = FileMuxer::new(vec![track(nnv(64)), track(opus())]).unwrap();
    let mut written = Written::default();
    // 64, 80, 64, 96 samples wide, for a second each.
    for (part, width) in [64, 80, 64, 96].into_iter().enumerate() {
        if part > 0 {
            written.write(muxer.change(0, nnv(width)).unwrap());
        }
        for number in 0..25 {
            let number = part as u64 * 25 + number;
            written.write(muxer.push(0, sample(number, 100)).unwrap());
        }
    }
    assert!(matches!(
        muxer.change(1, opus()),
        Err(Error::Changed("sound"))
    ));
    assert!(matches!(
        muxer.change(0, opus()),
        Err(Error::Changed("video"))
    ));
    assert!(muxer.change(0, Codec::Nnv(vec![1, 2, 3])).is_err());
    written.write(muxer.end().unwrap());
    let index = moov(&muxer.index_before(&[]).unwrap());
    let stbl = &index.trak_boxes[0].mdia_box.minf_box.stbl_box;
    let entries = stbl.stsd_box.entries.iter().map(|entry| match entry {
        shiguredo_mp4::boxes::SampleEntry::Unknown(entry) => {
            u16::from_be_bytes(entry.payload[24..26].try_into().unwrap())
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(entries.collect::<Vec<_>>(), [64, 80, 96]);
    let mut samples = Vec::new();
    let chunks = match &stbl.stco_or_co64_box {
        Either::A(small) => small.chunk_offsets.len(),
        Either::B(large) => large.chunk_offsets.len(),
    };
    for chunk in 1..=chunks {
        let runs = stbl.stsc_box.entries.iter();
        let run = runs
            .take_while(|run| run.first_chunk.get() as usize <= chunk)
            .last()
            .unwrap();
        let entry = run.sample_description_index;
        samples.extend(std::iter::repeat_n(entry, run.sample_per_chunk as usize));
    }
    let entry = |n| NonZeroU32::new(n).unwrap();
    let expected = [entry(1), entry(2), entry(1), entry(3)].map(|entry| [entry; 25]);
    assert_eq!(samples, expected.concat());
}

// SPDX-License-Identifier: MPL-2.0
//! With streams by x264, and the quantizers that the decoder of FFmpeg told of them:
//! `*.qp` has a byte for each macroblock of all pictures, in decoding order.

use super::*;

/// A stream of `tests/fixtures/h264`, and what FFmpeg says of it.
macro_rules! fixture {
    ($name:literal) => {
        (
            include_bytes!(concat!("../../../tests/fixtures/h264/", $name, ".h264")).as_slice(),
            include_bytes!(concat!("../../../tests/fixtures/h264/", $name, ".qp")).as_slice(),
        )
    };
}

type Fixture = (&'static [u8], &'static [u8]);

const CABAC: Fixture = fixture!("cabac");
const CAVLC: Fixture = fixture!("cavlc");
const SLICES: Fixture = fixture!("slices");
const PCM: Fixture = fixture!("pcm");
const PCM_CAVLC: Fixture = fixture!("pcm_cavlc");
const STILL: Fixture = fixture!("still");
const ALL: [Fixture; 10] = [
    CABAC,
    CAVLC,
    SLICES,
    PCM,
    PCM_CAVLC,
    STILL,
    fixture!("cabac_422_10"),
    fixture!("cabac_444"),
    fixture!("cavlc_422"),
    fixture!("gray"),
];
/// Macroblocks that change between frame and field, which are not supported.
const MBAFF: &[u8] = include_bytes!("../../../tests/fixtures/h264/mbaff.h264");

/// Units between the start codes.
fn units(stream: &[u8]) -> Vec<&[u8]> {
    let mut units = Vec::new();
    let mut rest = &stream[start_code(stream).1..];
    while !rest.is_empty() {
        let (end, next) = start_code(rest);
        units.push(&rest[..end]);
        rest = &rest[next..];
    }
    units
}

/// Access units of units, each behind what `lead` makes of its length.
fn access_units(stream: &[u8], lead: fn(usize) -> Vec<u8>) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut slice = false;
    for unit in units(stream) {
        let picture = matches!(unit[0] & 31, 1 | 5);
        // Its `first_mb_in_slice` is 0.
        if slice && (!picture || unit[1] & 0x80 != 0) {
            all.push(Vec::new());
        }
        slice = picture;
        let last = all.last_mut().unwrap();
        last.extend(lead(unit.len()));
        last.extend(unit);
    }
    all
}

fn start_codes(stream: &[u8]) -> Vec<Vec<u8>> {
    access_units(stream, |_| vec![0, 0, 1])
}

fn lengths(stream: &[u8]) -> Vec<Vec<u8>> {
    access_units(stream, |len| (len as u32).to_be_bytes().to_vec())
}

fn codec_data(stream: &[u8]) -> Vec<u8> {
    let units = units(stream);
    let of = |wanted| *units.iter().find(|unit| unit[0] & 31 == wanted).unwrap();
    let (sps, pps) = (of(7), of(8));
    let mut record = vec![1, sps[1], sps[2], sps[3], 0xff, 0xe1];
    for (set, count) in [(sps, None), (pps, Some(1))] {
        record.extend(count);
        record.extend((set.len() as u16).to_be_bytes());
        record.extend(set);
    }
    // High profile tells its chroma format and bit depths.
    record.extend([0xfd, 0xf8, 0xf8, 0]);
    record
}

fn pictures(stream: &[u8]) -> Vec<Picture> {
    let mut reader = Reader::byte_stream();
    let read = start_codes(stream)
        .iter()
        .map(|unit| reader.picture(unit))
        .collect::<Option<_>>();
    read.unwrap()
}

fn maps(stream: &[u8]) -> Vec<Map> {
    let maps = pictures(stream).into_iter().map(|picture| picture.map);
    maps.collect::<Option<_>>().unwrap()
}

/// How many blocks of each picture are so.
fn count(maps: &[Map], what: impl Fn(&Block) -> bool) -> Vec<usize> {
    maps.iter()
        .map(|map| map.blocks.iter().filter(|&block| what(block)).count())
        .collect()
}

#[test]
fn quantizers_are_those_of_the_decoder() {
    for (i, (stream, expected)) in ALL.into_iter().enumerate() {
        let read: Vec<u8> = maps(stream)
            .iter()
            .flat_map(|map| &map.blocks)
            .map(|block| block.quantizer as u8)
            .collect();
        assert!(read == expected, "fixture {i}: {read:?} {expected:?}");
    }
}

#[test]
fn maps_tell_the_size_and_use_of_pictures() {
    for (stream, _) in [CABAC, CAVLC, SLICES] {
        let maps = maps(stream);
        assert!(maps.iter().all(|map| (map.width, map.height) == (6, 5)));
        let references: Vec<_> = maps.iter().map(|map| map.reference).collect();
        // The first of two B pictures is one too.
        let pattern = [true, true, true, false, true, true, false, true];
        assert_eq!(references, pattern);
    }
}

#[test]
fn a_stream_is_cut_into_its_pictures() {
    for (stream, _) in ALL.into_iter().chain([(MBAFF, &[][..])]) {
        let cut: Vec<_> = super::access_units(stream).collect();
        assert_eq!(cut.concat(), stream);
        let mut reader = Reader::byte_stream();
        let read: Vec<_> = cut
            .iter()
            .map(|unit| reader.picture(unit).unwrap())
            .collect();
        assert_eq!(read, pictures(stream));
    }
}

#[test]
fn packets_are_read_like_byte_streams() {
    for (stream, _) in [CABAC, CAVLC, SLICES] {
        let mut reader = Reader::packetized(&codec_data(stream)).unwrap();
        let read: Vec<_> = lengths(stream)
            .iter()
            .map(|unit| reader.picture(unit).unwrap())
            .collect();
        assert_eq!(read, pictures(stream));
    }
}

#[test]
fn blocks_tell_how_they_are_coded() {
    for (stream, _) in ALL {
        let maps = maps(stream);
        assert_eq!(
            count(&maps[..1], |block| block.intra),
            [maps[0].blocks.len()]
        );
        assert_eq!(count(&maps[..1], |block| block.skipped), [0]);
        for block in maps.iter().flat_map(|map| &map.blocks) {
            assert!(!block.skipped || !block.coded && !block.intra);
        }
    }
    // After the first, there is nothing new in these.
    let still = maps(STILL.0);
    assert_eq!(count(&still, |block| block.skipped), [0, 30, 30]);
    assert_eq!(count(&still, |block| block.coded), [30, 0, 0]);
    // I_PCM: noise on the left, where the quantizer is not the 1 of all others.
    for (stream, _) in [PCM, PCM_CAVLC] {
        let raw = count(&maps(stream), |block| block.quantizer == 0 && block.coded);
        assert!(raw.iter().all(|&count| count > 0), "{raw:?}");
    }
}

#[test]
fn what_is_not_supported_has_the_quantizer_of_its_slice() {
    let read = pictures(MBAFF);
    assert_eq!(read.len(), 6);
    assert!(read.iter().all(|picture| picture.map.is_none()));
    assert!(read.iter().all(|p| (1..52).contains(&p.quantizer)));
}

#[test]
fn a_picture_without_all_its_slices_has_no_map() {
    let units = units(SLICES.0);
    let au = |units: &[&[u8]]| -> Vec<u8> {
        let coded = units.iter().map(|unit| [&[0, 0, 1], *unit].concat());
        coded.flatten().collect()
    };
    let sets: Vec<_> = units[..2].to_vec();
    let slices: Vec<_> = units[2..5].to_vec();
    assert!(slices.iter().all(|unit| unit[0] & 31 == 5));
    let map = |slices: &[&[u8]]| {
        let mut reader = Reader::byte_stream();
        let picture = reader.picture(&au(&[&sets[..], slices].concat()));
        picture.unwrap().map
    };
    assert!(map(&slices).is_some());
    assert!(map(&slices[..2]).is_none());
    assert!(map(&slices[1..]).is_none());
    assert!(map(&[slices[0], slices[2]]).is_none());
    assert!(map(&[slices[0], slices[2], slices[1]]).is_none());
    assert!(map(&[slices[0], slices[0], slices[1], slices[2]]).is_none());
    let short = &slices[2][..slices[2].len() / 2];
    assert!(map(&[slices[0], slices[1], short]).is_none());
}

#[test]
fn a_slice_without_its_sets_has_nothing() {
    let units = start_codes(CABAC.0);
    assert_eq!(Reader::byte_stream().picture(&units[1]), None);
    let mut reader = Reader::byte_stream();
    assert_eq!(reader.picture(&[]), None);
    assert!(reader.picture(&units[0]).is_some());
    assert!(reader.picture(&units[1]).is_some());
}

#[test]
fn damage_is_survived() {
    let mut state = 1u32;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let (mut whole, mut none) = (0, 0);
    for (stream, _) in ALL.into_iter().chain([(MBAFF, &[][..])]) {
        let (units, packets) = (start_codes(stream), lengths(stream));
        let record = codec_data(stream);
        for _ in 0..250 {
            let mut damaged = |data: &[u8], spared: usize| {
                let mut data = data.to_vec();
                for _ in 0..random(4) {
                    let at = spared + random(data.len() - spared);
                    data[at] = random(256) as u8;
                }
                data.truncate(data.len() - random(2) * random(data.len() - spared));
                data
            };
            // With sets that are whole, and with others.
            let mut readers = [
                Some(Reader::byte_stream()),
                Some(Reader::byte_stream()),
                Reader::packetized(&record),
                Reader::packetized(&damaged(&record, 0)),
            ];
            if let Some(reader) = &mut readers[0] {
                reader.picture(&units[0]);
            }
            for i in [0, 1 % units.len(), 2 % units.len()] {
                for (reader, spared) in readers.iter_mut().flatten().zip([8, 0, 8, 0]) {
                    for unit in [&units[i], &packets[i]] {
                        let Some(picture) = reader.picture(&damaged(unit, spared)) else {
                            continue;
                        };
                        assert!((-100..52).contains(&picture.quantizer));
                        let Some(map) = picture.map else {
                            none += 1;
                            continue;
                        };
                        whole += 1;
                        assert_eq!(map.blocks.len(), map.width * map.height);
                        let all = count(&[map], |block| (-48..52).contains(&block.quantizer));
                        assert!(all[0] > 0);
                    }
                }
            }
        }
    }
    // Both the one and the other were tried.
    assert!(whole > 500 && none > 500, "{whole} {none}");
}

// SPDX-License-Identifier: MPL-2.0
//! The streams of `tests/conformance` with the decoder alone, without GStreamer: every frame is
//! sound, and the samples have the MD5 of the list. `scripts/conformance-coverage.sh` measures what
//! of the decoder this runs through.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};
use nnv_bitstream::{
    AccessUnitScan, AccessUnitScanner, ChromaFormat, FrameMetadata, StreamMetadata,
};
use nnv_codec::config::DecoderConfig;
use nnv_codec::decode::{Decoded, DecodedFrame, Decoder, Host, StreamModels, built_in};
use nnv_format::picture::RawFormat;
use nnv_nn::{RuntimeOptions, embedded};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance")
}

/// Samples of a frame as they are shown: cropped, of the output's depth.
fn samples(frame: &DecodedFrame) -> Vec<u8> {
    let (info, crop) = (&frame.info, frame.info.crop);
    let width = info.width - crop.left - crop.right;
    let height = info.height - crop.top - crop.bottom;
    let picture = (frame.picture.cropped(crop.left, crop.top, width, height)).unwrap();
    let format = match (info.chroma_format, info.bit_depth) {
        (ChromaFormat::Yuv420, 8) => RawFormat::I420,
        (ChromaFormat::Yuv420, _) => RawFormat::I42010Le,
        (ChromaFormat::Grey, 8) => RawFormat::Gray8,
        (ChromaFormat::Grey, _) => RawFormat::Gray16Le,
    };
    let bytes = usize::from(format.bit_depth()).div_ceil(8);
    let (mut planes, mut strides) = (Vec::new(), Vec::new());
    for plane in 0..format.planes() {
        let side = |n: u32| if plane == 0 { n } else { n.div_ceil(2) } as usize;
        strides.push(side(width) * bytes);
        planes.push(vec![0; side(width) * bytes * side(height)]);
    }
    let mut parts: Vec<&mut [u8]> = planes.iter_mut().map(|p| &mut p[..]).collect();
    picture.write_raw(format, &mut parts, &strides).unwrap();
    planes.concat()
}

struct Outcome {
    frames: usize,
    verified: u64,
    md5: String,
}

fn stream(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{name}.nnv"))).unwrap()
}

/// Decodes a stream of which so many bytes more arrive at a time.
fn decode(name: &str, data: &[u8], piece: usize, config: DecoderConfig) -> Outcome {
    let models = StreamModels {
        named: None,
        options: RuntimeOptions {
            threads: 1,
            ..RuntimeOptions::default()
        },
        host: Host {
            name: "test",
            give: "nothing",
        },
    };
    let mut decoder = Decoder::new(models, config);
    let mut scanner = AccessUnitScanner::default();
    let (mut pos, mut id, mut shown, mut sums) = (0, 0, 0, Md5::new());
    let mut take = |decoder: &mut Decoder| {
        while let Some(decoded) = decoder.receive() {
            let Decoded::Frame(frame) = decoded else {
                panic!("{name}: {decoded:?}");
            };
            assert!(!frame.concealed, "{name}: {:?}", frame.warning);
            assert_eq!(frame.warning, None, "{name}");
            sums.update(samples(&frame));
            shown += 1;
        }
    };
    let mut there = piece.min(data.len());
    loop {
        let end = there == data.len();
        match scanner.scan(pos as u64, &data[pos..there], end) {
            AccessUnitScan::Unit(unit) => {
                let bytes = &data[pos..pos + unit.len];
                let _ = FrameMetadata::of_access_unit(bytes);
                let _ = StreamMetadata::of_access_unit(bytes);
                decoder.send(bytes, id).unwrap();
                (pos, id) = (pos + unit.len, id + 1);
                take(&mut decoder);
            }
            AccessUnitScan::Skip(n) | AccessUnitScan::Repeated(n) => pos += n,
            AccessUnitScan::NeedMore(_) if !end => there = data.len().min(there + piece),
            AccessUnitScan::End if end => break,
            AccessUnitScan::End => there = data.len().min(there + piece),
            other => panic!("{name}, byte {pos}: {other:?}"),
        }
    }
    decoder.finish().unwrap();
    take(&mut decoder);
    let mut md5 = String::new();
    for byte in sums.finalize() {
        write!(md5, "{byte:02x}").unwrap();
    }
    Outcome {
        frames: shown,
        verified: decoder.stats().verified,
        md5,
    }
}

/// Bundles that shipped stay as long as their streams, and each has one.
#[test]
fn streams_and_bundles_are_held_to_each_other() {
    let list = std::fs::read_to_string(folder().join("MD5SUMS")).unwrap();
    let mut named = BTreeMap::new();
    for line in list.lines().filter(|l| !l.starts_with('#')) {
        let name = line.split(' ').next().unwrap();
        let data = stream(name);
        let AccessUnitScan::Unit(unit) = AccessUnitScanner::default().scan(0, &data, true) else {
            panic!("{name} does not begin with an access unit");
        };
        named.insert(unit.sequence.unwrap().bundle_hash, name.to_owned());
    }
    for (hash, name) in &named {
        assert!(built_in(hash).is_some(), "the bundle of {name} is gone");
    }
    for bundle in embedded() {
        let has_one = named.keys().any(|hash| bundle.hash.starts_with(hash));
        assert!(
            has_one,
            "{} has no stream in tests/conformance",
            bundle.name
        );
    }
}

/// Streams of every version, on and on.
#[test]
fn every_stream_decodes_to_its_md5() {
    let list = std::fs::read_to_string(folder().join("MD5SUMS")).unwrap();
    let mut verified = 0;
    for line in list.lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let &[name, frames, _, md5, _] = fields.as_slice() else {
            panic!("{line}");
        };
        // One frame after the other, and as many together as there can be.
        for (live, batch_size, threads) in [(true, 1, 1), (false, 8, 2)] {
            let outcome = decode(
                name,
                &stream(name),
                usize::MAX,
                DecoderConfig {
                    conceal: false,
                    live,
                    batch_size,
                    threads,
                    ..DecoderConfig::default()
                },
            );
            assert_eq!(outcome.frames.to_string(), frames, "{name}");
            // Where the format of the output changes, the list has no sum.
            if md5 != "-" {
                assert_eq!(outcome.md5, md5, "{name}, live: {live}");
            }
            verified += outcome.verified;
        }
    }
    assert!(verified > 100, "{verified}");
}

/// The same pictures come out where a stream arrives in pieces, and where bytes that are no unit
/// stand before and between its access units: start codes, one with a length that hides what
/// follows.
#[test]
fn pieces_and_rubbish_between_units_change_nothing() {
    let data = stream("key-only");
    let whole = decode("key-only", &data, usize::MAX, DecoderConfig::default());
    let mut rubbish = vec![0x8e, 0x4e, 0x8e, 0x4e, 0x56, 2];
    // A length of 4,000 bytes, and the header's check.
    rubbish.extend([0xa0, 0x1f]);
    rubbish.push(crc32c::crc32c(&rubbish[5..]) as u8);
    rubbish.extend([0; 300]);
    let (mut noisy, mut pos) = (rubbish.clone(), 0);
    let mut scanner = AccessUnitScanner::default();
    while let AccessUnitScan::Unit(unit) = scanner.scan(pos as u64, &data[pos..], true) {
        noisy.extend(&data[pos..pos + unit.len]);
        noisy.extend(&rubbish);
        pos += unit.len;
    }
    for (data, piece) in [(&data, 1), (&data, 100), (&noisy, usize::MAX), (&noisy, 64)] {
        let outcome = decode("key-only", data, piece, DecoderConfig::default());
        assert_eq!(outcome.frames, whole.frames, "{piece}");
        assert_eq!(outcome.md5, whole.md5, "{piece}");
    }
}

/// Streams of the list, by version of the format.
fn listed() -> BTreeMap<String, BTreeSet<String>> {
    let list = std::fs::read_to_string(folder().join("MD5SUMS")).unwrap();
    let mut versions: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for line in list.lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let &[name, .., version] = fields.as_slice() else {
            panic!("{line}");
        };
        let new = versions
            .entry(version.into())
            .or_default()
            .insert(name.into());
        assert!(new, "{name} is listed twice");
    }
    versions
}

/// What was tagged once is decoded for ever: no stream leaves the list, and none is in the folder
/// without being in the list.
#[test]
fn every_stream_ever_tagged_is_there() {
    let listed = listed();
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "nnv"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().into())
        .collect();
    assert_eq!(files, listed.values().flatten().cloned().collect());
    // The page for people names each of them, so that a line that is taken out is missed.
    let page = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let [_, version, _, names, _] = cells[..]
            && version.starts_with(|c: char| c.is_ascii_digit())
            && names.starts_with('`')
        {
            let names = names.split('`').skip(1).step_by(2).map(Into::into);
            told.insert(version.into(), names.collect());
        }
    }
    assert_eq!(told, listed, "the table of versions in README.md");
    let number = |version: &str| -> Option<(u32, u32)> {
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let mut now = env!("CARGO_PKG_VERSION").split('.');
    let now = format!("{}.{}", now.next().unwrap(), now.next().unwrap());
    for version in listed.keys() {
        let of = number(version).unwrap_or_else(|| panic!("{version} is no version"));
        assert!(Some(of) <= number(&now), "{version} is later than this one");
    }
}

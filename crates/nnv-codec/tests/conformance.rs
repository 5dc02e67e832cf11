// SPDX-License-Identifier: MPL-2.0
//! The streams of `tests/conformance` with the decoder alone, without GStreamer: every frame is
//! sound, and the samples have the MD5 of the list. `scripts/conformance-coverage.sh` measures what
//! of the decoder this runs through.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};
use nnv_bitstream::{AccessUnitScan, AccessUnitScanner, ChromaFormat, FrameMetadata};
use nnv_codec::config::DecoderConfig;
use nnv_codec::decode::{Decoded, DecodedFrame, Decoder, Host, StreamModels};
use nnv_format::picture::RawFormat;
use nnv_nn::RuntimeOptions;

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

fn decode(name: &str, config: DecoderConfig) -> Outcome {
    let data = std::fs::read(folder().join(format!("{name}.nnv"))).unwrap();
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
    loop {
        match scanner.scan(pos as u64, &data[pos..], true) {
            AccessUnitScan::Unit(unit) => {
                let bytes = &data[pos..pos + unit.len];
                let _ = FrameMetadata::of_access_unit(bytes);
                decoder.send(bytes, id).unwrap();
                (pos, id) = (pos + unit.len, id + 1);
                take(&mut decoder);
            }
            AccessUnitScan::End => break,
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

#[test]
fn every_stream_decodes_to_its_md5() {
    let list = std::fs::read_to_string(folder().join("MD5SUMS")).unwrap();
    let mut verified = 0;
    for line in list.lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let &[name, frames, _, md5] = fields.as_slice() else {
            panic!("{line}");
        };
        // One frame after the other, and as many together as there can be.
        for (live, batch_size, threads) in [(true, 1, 1), (false, 8, 2)] {
            let outcome = decode(
                name,
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

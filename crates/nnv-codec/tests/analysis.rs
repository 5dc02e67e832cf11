// SPDX-License-Identifier: MPL-2.0
//! What a decoder tells of frames when asked, and that asking changes nothing.

use std::path::Path;

use nnv_bitstream::{AccessUnitScan, FrameType, UnitScanner, scan_access_unit};
use nnv_codec::config::DecoderConfig;
use nnv_codec::decode::{Decoded, DecodedFrame, Decoder, Host, StreamModels, Wanted};
use nnv_nn::RuntimeOptions;

/// The frames of a conformance stream, with the lengths of their access units.
fn frames(name: &str, wanted: Option<Wanted>) -> Vec<(DecodedFrame, usize)> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/conformance/{name}.nnv"));
    let data = std::fs::read(path).unwrap();
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
    let config = DecoderConfig {
        threads: 1,
        ..DecoderConfig::default()
    };
    let mut decoder = Decoder::new(models, config);
    decoder.set_analysis(wanted);
    let scanner = UnitScanner::new();
    let (mut pos, mut lengths) = (0, Vec::new());
    while let AccessUnitScan::Unit(unit) = scan_access_unit(&scanner, &data[pos..], true) {
        let id = lengths.len() as u64;
        decoder.send(&data[pos..pos + unit.len], id).unwrap();
        lengths.push(unit.len);
        pos += unit.len;
    }
    decoder.finish().unwrap();
    let mut out = Vec::new();
    while let Some(decoded) = decoder.receive() {
        let Decoded::Frame(frame) = decoded else {
            panic!("{name}: {decoded:?}");
        };
        let len = lengths[frame.id as usize];
        out.push((frame, len));
    }
    out
}

const ALL: Wanted = Wanted {
    prediction: true,
    bits: true,
};

#[test]
fn analysis_tells_what_frames_are_made_of_and_changes_nothing() {
    let (mut inked, mut hyper_bytes) = (0, 0);
    let mut mapped = 0;
    for name in [
        "hierarchical-b",
        "low-delay",
        "visual",
        "ink",
        "odd-size",
        "key-only",
    ] {
        let (plain, looked) = (frames(name, None), frames(name, Some(ALL)));
        assert!(plain.len() > 1 && plain.len() == looked.len(), "{name}");
        for ((a, _), (b, len)) in plain.iter().zip(&looked) {
            assert!(a.analysis.is_none(), "nothing unless asked");
            assert!(a.picture.is_equal(&b.picture), "{name} {}", b.id);
            if b.kind == FrameType::Repeat {
                assert!(b.analysis.is_none());
                continue;
            }
            let analysis = b.analysis.as_ref().unwrap();
            let at = format!("{name}, unit {}", b.id);
            let inter = b.kind == FrameType::Inter;
            assert_eq!(analysis.header.frame_type, b.kind, "{at}");
            assert_ne!(analysis.verified, Some(false), "{at}");
            let bytes = analysis.bytes;
            let parts = bytes.map + bytes.ink + bytes.still + bytes.side + bytes.z + bytes.y;
            assert!(parts < *len && parts + 200 > *len, "{at}: {parts} of {len}");
            // Bits counted are the bytes written, but for the ends of the streams.
            let bits = analysis.latent_bits.as_ref().unwrap();
            let counted = bits.sum() as f64 / 256.0 / 8.0;
            let written = bytes.y as f64;
            assert!(
                (counted - written).abs() < 0.015 * written + 20.0,
                "{at}: {counted} bytes counted, {written} written"
            );
            let motion = analysis.motion_bits.iter().sum::<u64>() as f64 / 256.0 / 8.0;
            assert!(
                (motion - bytes.side as f64).abs() < 0.015 * motion + 6.0,
                "{at}: {motion} bytes of motion counted, {} written",
                bytes.side
            );
            // The shares of blocks are cut off at 1/256 bit.
            let hyper = analysis.hyper_bits.iter().sum::<u64>() as f64 / 256.0 / 8.0;
            assert_eq!(analysis.hyper_bits.len(), bits.by_place.len(), "{at}");
            assert!(
                (hyper - bytes.z as f64).abs() < 0.02 * hyper + 6.0,
                "{at}: {hyper} bytes of the hyper-latent counted, {} written",
                bytes.z
            );
            hyper_bytes += bytes.z;
            // Colours, of three bytes each, do not count.
            let inked_bits = analysis.ink_bits.iter().sum::<u64>() as f64 / 256.0 / 8.0;
            let rest = bytes.ink as f64 - 1.01 * inked_bits;
            assert!(
                (-6.0..6.0 + 3.0 * 126.0).contains(&rest),
                "{at}: {inked_bits} bytes of ink counted, {} written",
                bytes.ink
            );
            if analysis.ink.is_some() {
                assert_eq!(analysis.ink_bits.len(), bits.by_place.len(), "{at}");
                assert!(2.0 * inked_bits > bytes.ink as f64, "{at}: {inked_bits}");
            }
            assert_eq!(analysis.field.is_some(), inter, "{at}");
            assert_eq!(analysis.prediction.is_some(), inter, "{at}");
            if let Some(prediction) = &analysis.prediction {
                assert!(prediction.same_size(&b.picture));
                // It is near, and the network added something to it.
                let psnr = prediction.psnr_yuv(&b.picture);
                assert!((12.0..100.0).contains(&psnr), "{at}: {psnr}");
            }
            inked += usize::from(analysis.ink.is_some());
            mapped += usize::from(analysis.map.is_some());
        }
    }
    assert!(
        inked > 0 && mapped > 0 && hyper_bytes > 100,
        "{inked} {mapped} {hyper_bytes}"
    );
}

#[test]
fn only_what_is_wanted_is_made() {
    for (frame, _) in frames("low-delay", Some(Wanted::default())) {
        let Some(analysis) = frame.analysis else {
            continue;
        };
        assert!(analysis.prediction.is_none() && analysis.latent_bits.is_none());
        for bits in [
            &analysis.motion_bits,
            &analysis.hyper_bits,
            &analysis.ink_bits,
        ] {
            assert!(bits.is_empty());
        }
        assert_eq!(analysis.field.is_some(), frame.kind == FrameType::Inter);
    }
}

// SPDX-License-Identifier: MPL-2.0
//! `nnqp`: quantizers of H.264 on their way through a decoder.

use std::sync::{Arc, Mutex};

use gst::prelude::*;

use crate::util::*;

/// Coded by x264 from ffmpeg's `testsrc2` (64×48, 8 pictures, CRF 27, at most 2 B pictures, key
/// frames at most 5 apart).
const STREAM: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/quantizers.h264"
);
/// What `ffmpeg -bsf:v trace_headers` says of it, in the order of decoding.
const QUANTIZERS: [i32; 8] = [33, 38, 36, 38, 38, 32, 38, 38];

/// What its `export_side_data=venc_params` says of the blocks of the first picture.
const FIRST: [u8; 12] = [33, 33, 33, 33, 30, 28, 28, 28, 32, 32, 32, 32];

/// That of the slice, and those of four by three blocks.
type Note = (i32, Vec<u8>);

/// What is noted on the buffers that reach `sink`.
fn noted(pipeline: &gst::Element) -> Arc<Mutex<Vec<Option<Note>>>> {
    let sink = pipeline
        .downcast_ref::<gst::Bin>()
        .and_then(|bin| bin.by_name("sink"))
        .unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let pad = sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let note = info.buffer().and_then(|buffer| {
            let meta = gst::meta::CustomMeta::from_buffer(buffer, "GstNnvQuantizerMeta").ok()?;
            let structure = meta.structure();
            assert_eq!(structure.get("codec"), Ok("H.264"));
            assert_eq!(structure.get("columns"), Ok(4));
            let blocks = structure.get::<gst::Buffer>("blocks").unwrap();
            Some((structure.get("quantizer").unwrap(), bytes(&blocks)))
        });
        kept.lock().unwrap().push(note);
        gst::PadProbeReturn::Ok
    });
    seen
}

fn of_pipeline(rest: &str) -> Vec<Option<Note>> {
    let pipeline = launch(&format!("filesrc location={STREAM} ! {rest}"));
    let seen = noted(&pipeline);
    let outcome = play(&pipeline);
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    std::mem::take(&mut *seen.lock().unwrap())
}

#[test]
fn quantizers_are_noted_in_every_kind_of_stream() {
    within(|| {
        for format in ["byte-stream", "avc", "avc3"] {
            let caps = format!("video/x-h264,stream-format={format},alignment=au");
            let seen = of_pipeline(&format!("h264parse ! {caps} ! nnqp ! fakesink name=sink"));
            let slices: Vec<_> = seen.iter().flatten().map(|note| note.0).collect();
            assert_eq!(slices, QUANTIZERS, "{format}");
            let (_, first) = seen[0].as_ref().unwrap();
            assert_eq!(first, &FIRST, "{format}");
            assert!(seen.iter().flatten().all(|note| note.1.len() == 12));
        }
    });
}

#[test]
fn decoders_pass_notes_on_and_repair_is_told() {
    within(|| {
        if gst::ElementFactory::find("avdec_h264").is_none() {
            eprintln!("SKIPPED: no avdec_h264 here");
            return;
        }
        let decoded = "h264parse ! nnqp ! avdec_h264 ! videoconvert";
        let mut seen = of_pipeline(&format!("{decoded} ! fakesink name=sink"));
        let mut all = of_pipeline("h264parse ! nnqp ! fakesink name=sink");
        let last = seen.last().cloned().flatten().unwrap();
        assert!(all.iter().all(Option::is_some));
        seen.sort();
        all.sort();
        assert_eq!(seen, all);

        let rated = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sr-rated");
        let tell = |notes: &str| {
            let pipeline = launch(&format!(
                "filesrc location={STREAM} ! h264parse ! {notes} avdec_h264 ! \
                 nnsr name=sr scale=1 model-path={rated} ! fakesink name=sink"
            ));
            let seen = noted(&pipeline);
            let outcome = play(&pipeline);
            assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
            // What is repaired is no longer what the quantizer left.
            assert_eq!(*seen.lock().unwrap(), vec![None; 8]);
            let sr = pipeline.downcast_ref::<gst::Bin>().unwrap().by_name("sr");
            let stats = sr.unwrap().property::<gst::Structure>("stats");
            stats.get::<f64>("source-quantizer").unwrap()
        };
        let sum: f64 = last.1.iter().map(|&quantizer| f64::from(quantizer)).sum();
        let told = tell("nnqp !");
        assert!((told - sum / 12.0).abs() < 1e-3, "{told}");
    });
}

/// The default bundle for scale 1 gives frames with notes to the network that is told; a folder
/// stays what it is.
#[test]
fn repair_hands_over_what_is_known() {
    within(|| {
        let built_in = nnv_nn::embedded_sr();
        let both = ["repair", "deblock"]
            .iter()
            .all(|name| built_in.iter().any(|b| b.name == *name));
        if gst::ElementFactory::find("avdec_h264").is_none() || !both {
            eprintln!("SKIPPED: no avdec_h264 here, or bundles are not built in");
            return;
        }
        let folder = |name| {
            let models = concat!(env!("CARGO_MANIFEST_DIR"), "/models/sr");
            format!("model-path={models}/{name}")
        };
        let pictures = |notes: &str, properties: &str| {
            let pipeline = launch(&format!(
                "filesrc location={STREAM} ! h264parse ! {notes} avdec_h264 ! \
                 nnsr scale=1 batch-size=3 {properties} ! fakesink name=out"
            ));
            let outcome = play(&pipeline);
            assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
            outcome.checksums()
        };
        let blind = pictures("", &folder("repair"));
        let told = pictures("nnqp !", &folder("deblock"));
        assert_eq!((blind.len(), told.len()), (8, 8));
        for properties in ["", "model=repair"] {
            assert_eq!(pictures("", properties), blind);
            assert_eq!(pictures("nnqp !", properties), told);
        }
        let kept = pictures("nnqp !", &folder("repair"));
        assert_ne!(kept, told);
    });
}

#[test]
fn what_cannot_be_read_goes_through_unchanged() {
    within(|| {
        let element = element("nnqp", &[]);
        let mut h = gst_check::Harness::with_element(&element, Some("sink"), Some("src"));
        let caps = |format: &str| {
            gst::Caps::builder("video/x-h264")
                .field("stream-format", format)
                .field("alignment", "au")
        };
        h.set_src_caps(caps("byte-stream").build());
        let data = std::fs::read(STREAM).unwrap();
        // A slice without parameter sets, noise, nothing.
        let slice = &data[data.len() - 14..];
        for sent in [slice, &[0x5a; 300], &[], &[0, 0, 1], &[0, 0, 1, 0x67]] {
            h.push(gst::Buffer::from_slice(sent.to_vec())).unwrap();
            let got = h.pull().unwrap();
            assert_eq!(bytes(&got), sent);
            assert!(gst::meta::CustomMeta::from_buffer(&got, "GstNnvQuantizerMeta").is_err());
        }
        // A damaged record of parameter sets is the decoder's to complain about.
        let record = gst::Buffer::from_slice([1u8, 100, 0, 10, 255, 225, 0, 25]);
        h.set_src_caps(caps("avc").field("codec_data", record).build());
        h.push(gst::Buffer::from_slice([0u8, 0, 0, 9, 1])).unwrap();
        assert_eq!(h.pull().unwrap().size(), 5);
    });
}

// SPDX-License-Identifier: MPL-2.0
//! Profile and level: in headers, in caps, and what is refused because of them.

use gst::prelude::*;
use nnv_bitstream::{AccessUnit, DecodingCost, Level, SequenceHeader, UnitType, write_unit};

use crate::util::*;

fn header(units: &[gst::Buffer]) -> SequenceHeader {
    AccessUnit::parse(&bytes(&units[0]))
        .unwrap()
        .sequence
        .unwrap()
}

/// Caps at the end of a pipeline whose last element is a `fakesink name=out`, and its errors.
fn caps_of(description: &str) -> (Option<gst::Caps>, Vec<String>) {
    let pipeline = launch(description);
    let mut outcome = Outcome::default();
    // Where this fails, the reason is on the bus.
    let _ = pipeline.set_state(gst::State::Playing);
    wait(&pipeline, &mut outcome);
    let out = pipeline
        .downcast_ref::<gst::Bin>()
        .and_then(|bin| bin.by_name("out"))
        .unwrap();
    let caps = out.static_pad("sink").unwrap().current_caps();
    pipeline.set_state(gst::State::Null).unwrap();
    (caps, outcome.errors)
}

fn level(caps: Option<gst::Caps>) -> String {
    let caps = caps.expect("caps came");
    let s = caps.structure(0).unwrap();
    assert_eq!(s.get::<&str>("profile"), Ok("main"));
    s.get::<&str>("level").unwrap().into()
}

/// A file of one key frame, and its level.
fn file(width: u32, height: u32) -> (TempFile, Level) {
    let units = encode(&i420(width, height), 1, &[("quantizer", "60")]);
    (
        TempFile::with("level.nnv", &join(&units)),
        header(&units).level(),
    )
}

#[test]
fn streams_state_their_level_and_cost() {
    within(|| {
        for (width, height, properties, code) in [
            (64, 48, &[][..], 1),
            (640, 360, &[("bframes", "7")], 2),
            (640, 360, &[("error-resilience", "ltr")], 2),
        ] {
            let units = encode(&i420(width, height), 1, properties);
            let header = header(&units);
            let level = Level::from_code(code).unwrap();
            // Of key frames: 1373.5 and 8174.5.
            assert_eq!(header.cost, Some(DecodingCost { level, macs: 9548 }));
        }
    });
}

#[test]
fn caps_have_the_level_on_both_sides_of_a_file() {
    within(|| {
        let source = "videotestsrc num-buffers=1 ! video/x-raw,width=640,height=360 ! nnvenc";
        let (caps, errors) = caps_of(&format!("{source} ! fakesink name=out"));
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(level(caps), "2");
        let (file, _) = file(640, 360);
        let read = format!("filesrc location={} ! nnvparse", file.path());
        for begin in [source, &read] {
            // A higher level allows what a lower one does.
            for (asked, given) in [("(string)2", "2"), ("(string){1,4,unbounded}", "4")] {
                let (caps, errors) = caps_of(&format!(
                    "{begin} ! video/x-nnv,level={asked} ! fakesink name=out"
                ));
                assert!(errors.is_empty(), "{begin}, {asked}: {errors:?}");
                assert_eq!(level(caps), given, "{begin}");
            }
            let (caps, errors) = caps_of(&format!(
                "{begin} ! video/x-nnv,level=(string)1 ! fakesink name=out"
            ));
            assert!(caps.is_none());
            let [error] = &errors[..] else {
                panic!("{begin}: {errors:?}");
            };
            for words in ["of level 2", "level 1 at most", "smaller"] {
                assert!(error.contains(words), "{begin}: {error}");
            }
        }
        // Streams of before have the level of their size and rate.
        let early = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/conformance/low-delay.nnv"
        );
        let (caps, errors) = caps_of(&format!(
            "filesrc location={early} ! nnvparse ! fakesink name=out"
        ));
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(level(caps), "1");
    });
}

#[test]
fn a_decoder_refuses_what_is_above_its_level() {
    within(|| {
        let (file, level) = file(640, 360);
        assert_eq!(level.code(), 2);
        for max in ["2", "3", "unbounded"] {
            let outcome = decode(file.path(), &format!("max-level={max}")).sound();
            assert_eq!(outcome.shown.len(), 1, "{max}");
        }
        let outcome = decode(file.path(), "max-level=1");
        assert!(outcome.shown.is_empty());
        let error = outcome.errors.join("\n");
        for words in ["level 2", "level 1 at most", "max-level"] {
            assert!(error.contains(words), "{error}");
        }
    });
}

/// A header that claims less than it says is damage, not a way around the limit.
#[test]
fn a_level_below_the_stream_is_refused() {
    within(|| {
        let units = encode(&i420(640, 360), 1, &[]);
        let whole = bytes(&units[0]);
        let unit = AccessUnit::parse(&whole).unwrap();
        let mut payload = header(&units).to_payload().unwrap();
        let at = payload.len() - 3;
        assert_eq!(payload[at], 2);
        payload[at] = 1;
        let mut data = Vec::new();
        write_unit(&mut data, UnitType::Sequence, &payload).unwrap();
        data.extend(&whole[unit.sequence_unit.unwrap().end..]);
        let file = TempFile::with("low.nnv", &data);
        let outcome = decode(file.path(), "max-level=1");
        assert!(outcome.shown.is_empty());
        let said = [outcome.errors, outcome.warnings].concat().join("\n");
        assert!(said.contains("`level`"), "{said}");
    });
}

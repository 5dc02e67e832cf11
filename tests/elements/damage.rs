// SPDX-License-Identifier: MPL-2.0
//! Damaged streams: concealed with a warning or one clear error; never a panic or a hang.

use gst::prelude::*;
use nnv_bitstream::{SequenceHeader, UnitType, write_unit};

use crate::util::*;

fn units() -> Vec<Vec<u8>> {
    let p = [
        ("key-int-max", "6"),
        ("frame-checksum", "true"),
        ("bframes", "2"),
    ];
    encode(&i420(64, 48), 14, &p).iter().map(bytes).collect()
}

/// Flips a bit in the middle of the frame of unit `i`, where the parser's checksum finds it.
fn flipped(units: &[Vec<u8>], i: usize) -> Vec<u8> {
    let mut units = units.to_vec();
    let at = units[i].len() - 20;
    units[i][at] ^= 4;
    units.concat()
}

#[test]
fn a_lost_frame_is_concealed_with_a_warning() {
    within(|| {
        let units = units();
        let whole = decode(TempFile::with("whole.nnv", &units.concat()).path(), "").sound();
        assert_eq!(whole.shown.len(), 14);
        for i in 0..units.len() {
            let file = TempFile::with("flipped.nnv", &flipped(&units, i));
            let outcome = decode(file.path(), "");
            assert!(
                outcome.errors.is_empty() && outcome.eos,
                "unit {i}: {:?}",
                outcome.errors
            );
            assert!(!outcome.warnings.is_empty(), "unit {i}: nobody was told");
            assert!(outcome.shown.len() <= 14);
            // What comes from another group is untouched.
            let (mine, other) = if i < 6 { (0, 6..12) } else { (6, 0..6) };
            let damaged: Vec<_> = outcome.shown.iter().map(|s| (s.pts, s.checksum)).collect();
            for shown in &whole.shown[other] {
                // The first group may be gone altogether, and then times begin with the second.
                let found = damaged.iter().any(|d| d.1 == shown.checksum);
                assert!(
                    found,
                    "unit {i} damages frames of another group (own from {mine})"
                );
            }
        }
    });
}

#[test]
fn damage_inside_an_access_unit_is_concealed_or_an_error_as_asked() {
    within(|| {
        // Straight into the decoder, past the parser: as packets that were cut.
        let units = encode(&i420(64, 48), 8, &[]);
        let run = |conceal: &str| {
            let dec = element("nnvdec", &[("conceal", conceal)]);
            let bus = gst::Bus::new();
            let mut h = gst_check::Harness::with_element(&dec, Some("sink"), Some("src"));
            dec.set_bus(Some(&bus));
            let mut enc = encoder(&i420(64, 48), &[]);
            enc.push(buffer(&i420(64, 48), 0, 0)).unwrap();
            h.set_src_caps(enc.sinkpad().unwrap().current_caps().unwrap());
            let mut failed = false;
            for (i, unit) in units.iter().enumerate() {
                let mut copy = bytes(unit);
                if i == 3 {
                    let at = copy.len() / 2;
                    copy[at] ^= 0x40;
                }
                let mut b = gst::Buffer::from_mut_slice(copy);
                b.get_mut().unwrap().set_pts(unit.pts());
                failed |= h.push(b).is_err();
            }
            h.push_event(gst::event::Eos::new());
            let count = |kind| std::iter::from_fn(|| bus.pop_filtered(&[kind])).count();
            let warnings = count(gst::MessageType::Warning);
            (failed, warnings, pull_all(&mut h).len())
        };
        let (failed, warnings, shown) = run("true");
        assert!(!failed && warnings >= 1, "{warnings} warnings");
        assert_eq!(shown, 8, "a frame was shown for each that went in");
        let (failed, ..) = run("false");
        assert!(failed, "damage is an error when conceal is off");
    });
}

#[test]
fn truncated_files_play_as_far_as_they_go() {
    within(|| {
        let units = units();
        let data = units.concat();
        for cut in [data.len() - 3, data.len() / 2, units[0].len() + 1] {
            let outcome = decode(TempFile::with("cut.nnv", &data[..cut]).path(), "");
            assert!(
                outcome.errors.is_empty(),
                "cut at {cut}: {:?}",
                outcome.errors
            );
            assert!(!outcome.shown.is_empty() && outcome.shown.len() < 15);
            assert!(
                !outcome.warnings.is_empty(),
                "cut at {cut}: nobody was told"
            );
        }
        // Nothing whole is left: one error.
        for cut in [0, 2, 9, units[0].len() - 1] {
            let outcome = decode(TempFile::with("cut.nnv", &data[..cut]).path(), "");
            assert!(outcome.shown.is_empty());
            assert!(
                cut == 0 || !outcome.errors.is_empty(),
                "cut at {cut}: {outcome:?}"
            );
        }
    });
}

#[test]
fn garbage_alone_is_one_error() {
    within(|| {
        let noise: Vec<u8> = (0..20_000u32)
            .map(|v| (v.wrapping_mul(2_654_435_761) >> 20) as u8)
            .collect();
        let outcome = decode(TempFile::with("noise.nnv", &noise).path(), "");
        assert!(outcome.shown.is_empty());
        assert!(!outcome.errors.is_empty());
    });
}

#[test]
fn streams_of_unknown_models_say_which() {
    within(|| {
        let units = units();
        let other = |name: &str, hash: [u8; 8]| {
            let header = SequenceHeader::new(name, hash, 64, 48, 8);
            let mut unit = Vec::new();
            write_unit(&mut unit, UnitType::Sequence, &header.to_payload().unwrap()).unwrap();
            // The frame behind the header of another model.
            let skip = match nnv_bitstream::peek_unit(&units[0]) {
                nnv_bitstream::Peek::Sound(_, payload) => payload.end + 4,
                other => panic!("{other:?}"),
            };
            unit.extend(&units[0][skip..]);
            unit
        };
        for (name, hash, words) in [
            ("somebodys", [7; 8], "not built into this plugin"),
            ("realtime", [7; 8], "another one"),
        ] {
            let file = TempFile::with("other.nnv", &other(name, hash));
            let outcome = decode(file.path(), "");
            let errors = outcome.errors.join("\n");
            assert_eq!(outcome.errors.len(), 1, "{errors}");
            for word in [name, "0707070707070707", words, "model-path"] {
                assert!(errors.contains(word), "{word} is not in: {errors}");
            }
            assert!(outcome.shown.is_empty());
            // The same through autoplugging.
            let auto = play(&launch(&format!(
                "filesrc location={} ! decodebin ! fakesink name=out",
                file.path()
            )));
            assert!(auto.errors.join("\n").contains(words), "{:?}", auto.errors);
        }
        // The user's own choice does not fit the stream.
        let file = TempFile::with("other.nnv", &other("somebodys", [7; 8]));
        let outcome = decode(file.path(), "model=realtime");
        assert!(
            outcome.errors.join("\n").contains("0707070707070707"),
            "{:?}",
            outcome.errors
        );
    });
}

#[test]
fn absurd_headers_are_refused_before_memory_is_taken() {
    within(|| {
        let units = units();
        let at = units[0].windows(4).position(|w| w == b"NNV1").unwrap();
        // Every byte of the header in turn, with a checksum that fits: an error, a warning or a
        // picture.
        let skip = match nnv_bitstream::peek_unit(&units[0]) {
            nnv_bitstream::Peek::Sound(_, payload) => payload.end + 4,
            other => panic!("{other:?}"),
        };
        let payload = &units[0][at..skip - 4];
        for i in (4..payload.len()).filter(|i| *i < 8 || *i > 60 || i % 8 == 0) {
            for value in [0, 0x7f, 0xff] {
                let mut payload = payload.to_vec();
                payload[i] = value;
                let mut data = Vec::new();
                write_unit(&mut data, UnitType::Sequence, &payload).unwrap();
                data.extend(&units[0][skip..]);
                data.extend(units[1..].concat());
                let file = TempFile::with("absurd.nnv", &data);
                let outcome = decode(file.path(), "");
                assert!(outcome.eos || !outcome.errors.is_empty());
            }
        }
    });
}

#[test]
fn stopping_in_the_middle_of_work_is_quick() {
    within(|| {
        let pipeline = launch(
            "videotestsrc ! video/x-raw,format=I420,width=1280,height=720 ! \
             nnvenc bframes=7 quantizer=8 ! fakesink",
        );
        pipeline.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let begun = std::time::Instant::now();
        pipeline.set_state(gst::State::Null).unwrap();
        let took = begun.elapsed();
        assert!(took < std::time::Duration::from_secs(20), "{took:?}");
    });
}

/// What a decoder makes of access units that are handed to it directly.
struct Received {
    buffers: Vec<gst::Buffer>,
    warnings: usize,
    stats: gst::Structure,
}

fn receive<'a>(
    units: impl IntoIterator<Item = &'a gst::Buffer>,
    encoder: &[(&str, &str)],
    decoder: &[(&str, &str)],
) -> Received {
    let dec = element("nnvdec", decoder);
    let bus = gst::Bus::new();
    let mut h = gst_check::Harness::with_element(&dec, Some("sink"), Some("src"));
    dec.set_bus(Some(&bus));
    let mut enc = self::encoder(&i420(64, 48), encoder);
    enc.push(buffer(&i420(64, 48), 0, 0)).unwrap();
    h.set_src_caps(enc.sinkpad().unwrap().current_caps().unwrap());
    for unit in units {
        h.push(unit.copy()).unwrap();
    }
    assert!(h.push_event(gst::event::Eos::new()));
    let of = |kind| std::iter::from_fn(|| bus.pop_filtered(&[kind])).count();
    Received {
        warnings: of(gst::MessageType::Warning),
        stats: dec.property("stats"),
        buffers: pull_all(&mut h),
    }
}

fn corrupted(buffer: &gst::Buffer) -> bool {
    buffer.flags().contains(gst::BufferFlags::CORRUPTED)
}

#[test]
fn a_lost_key_frame_shows_the_last_picture_flagged_in_order_with_one_warning() {
    within(|| {
        for bframes in ["0", "7"] {
            let p = [("key-int-max", "10"), ("bframes", bframes)];
            let units = encode(&i420(64, 48), 30, &p);
            let keys: Vec<usize> = (0..30).filter(|&i| is_key(&units[i])).collect();
            assert_eq!(keys, [0, 10, 20]);
            let left = || (0..30).filter(|&i| i != 10).map(|i| &units[i]);
            let received = receive(left(), &p, &[]);
            // Encoders with B frames begin at a thousand hours.
            let begin = received.buffers[0].pts().unwrap();
            let time = |b: &gst::Buffer| b.pts().unwrap() - begin;
            let times: Vec<_> = received.buffers.iter().map(time).collect();
            let expected: Vec<_> = (0..30).filter(|t| *t != 10).map(|t| ms(40 * t)).collect();
            assert_eq!(times, expected, "bframes {bframes}");
            for b in &received.buffers {
                let lost = (ms(400)..ms(800)).contains(&time(b));
                assert_eq!(corrupted(b), lost, "bframes {bframes}: {b:?}");
            }
            assert_eq!(received.warnings, 1, "bframes {bframes}");
            assert_eq!(received.stats.get::<u64>("concealed"), Ok(9));
            let received = receive(left(), &p, &[("discard-corrupted-frames", "true")]);
            assert_eq!(received.buffers.len(), 20);
        }
    });
}

#[test]
fn a_lost_frame_that_nothing_refers_to_is_told_and_spoils_nothing() {
    within(|| {
        let p = [("bframes", "7")];
        let units = encode(&i420(64, 48), 17, &p);
        let droppable = |b: &gst::Buffer| b.flags().contains(gst::BufferFlags::DROPPABLE);
        let lost = units.iter().position(droppable).unwrap();
        let left = (0..17).filter(|&i| i != lost).map(|i| &units[i]);
        let received = receive(left, &p, &[]);
        assert_eq!((received.buffers.len(), received.warnings), (16, 1));
        assert!(!received.buffers.iter().any(corrupted));
        assert_eq!(received.stats.get::<u64>("missing"), Ok(1));
    });
}

#[test]
fn a_few_bytes_that_claim_a_huge_picture_take_no_time() {
    within(|| {
        let units = encode(&i420(64, 48), 1, &[]);
        let unit = nnv_bitstream::AccessUnit::parse(&bytes(&units[0]))
            .unwrap()
            .sequence
            .unwrap();
        for (side, properties, words) in [
            (8192, "", "damaged"),
            (4096, "conceal=false", "damaged"),
            (4096, "max-pixels=1000000", "max-pixels"),
        ] {
            let header = SequenceHeader {
                width: side,
                height: side,
                cost: None,
                ..unit.clone()
            };
            let mut data = Vec::new();
            write_unit(&mut data, UnitType::Sequence, &header.to_payload().unwrap()).unwrap();
            // A key frame with quantizer 0 and nothing in it.
            write_unit(&mut data, UnitType::Frame, &[4, 0, 0, 0, 0]).unwrap();
            let file = TempFile::with("huge.nnv", &data);
            let begun = std::time::Instant::now();
            let outcome = decode(file.path(), properties);
            let took = begun.elapsed();
            assert!(took < std::time::Duration::from_secs(8), "{took:?}");
            let said = [outcome.errors, outcome.warnings].concat().join("\n");
            assert!(said.contains(words), "{words} is not in: {said}");
            assert!(outcome.shown.is_empty());
        }
    });
}

/// The list that the decoder for web pages is held to, too: `web/tests/streams`.
#[test]
fn damaged_streams_are_concealed_as_the_list_says() {
    within(|| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web/tests/streams");
        let list = std::fs::read_to_string(folder.join("MD5SUMS")).unwrap();
        let lines = list.lines().filter(|line| !line.starts_with('#'));
        let mut count = 0;
        for line in lines {
            let [name, frames, md5] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let stream = folder.join(format!("{name}.nnv"));
            let samples = TempFile::new(name);
            let outcome = play(&launch(&format!(
                "filesrc location={} ! nnvparse ! nnvdec ! tee name=t t. ! queue ! \
                 filesink location={} t. ! queue ! fakesink name=out sync=false",
                stream.display(),
                samples.path()
            )));
            assert_eq!(outcome.shown.len().to_string(), frames, "{name}");
            assert!(!outcome.warnings.is_empty(), "{name} is damaged");
            let mut sum = gst::glib::Checksum::new(gst::glib::ChecksumType::Md5).unwrap();
            sum.update(&std::fs::read(samples.path()).unwrap());
            assert_eq!(sum.string().as_deref(), Some(md5), "{name}");
            count += 1;
        }
        assert!(count >= 3, "{count} streams");
    });
}

// SPDX-License-Identifier: MPL-2.0
//! `nnvparse` and the typefinder.

use gst::prelude::*;
use gst_base::prelude::*;

use crate::util::*;

/// A stream of two groups, as bytes and as the encoder's units.
fn stream(properties: &[(&str, &str)]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let units = encode(&i420(64, 48), 10, properties);
    (join(&units), units.iter().map(bytes).collect())
}

fn parser() -> gst_check::Harness {
    let mut h =
        gst_check::Harness::with_element(&element("nnvparse", &[]), Some("sink"), Some("src"));
    h.set_src_caps_str("video/x-nnv");
    // As from a file: bytes, no times.
    let segment = gst::FormattedSegment::<gst::format::Bytes>::new();
    assert!(h.push_event(gst::event::Segment::new(&segment)));
    h
}

fn parse(data: &[u8], chunk: usize) -> (Vec<gst::Buffer>, Vec<String>) {
    let mut h = parser();
    let bus = gst::Bus::new();
    h.element().unwrap().set_bus(Some(&bus));
    for part in data.chunks(chunk) {
        h.push(gst::Buffer::from_slice(part.to_vec())).unwrap();
    }
    h.push_event(gst::event::Eos::new());
    let warnings = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Warning]))
        .map(|m| match m.view() {
            gst::MessageView::Warning(w) => w.error().to_string(),
            _ => unreachable!("only warnings are popped"),
        })
        .collect();
    (pull_all(&mut h), warnings)
}

#[test]
fn chunks_do_not_matter() {
    within(|| {
        let (data, units) = stream(&[("bframes", "3"), ("key-int-max", "5")]);
        for chunk in [1, 7, 64, 1000, data.len()] {
            let (out, warnings) = parse(&data, chunk);
            assert_eq!(
                out.iter().map(bytes).collect::<Vec<_>>(),
                units,
                "chunks of {chunk}"
            );
            assert!(warnings.is_empty(), "{warnings:?}");
            let keys: Vec<_> = out.iter().filter(|u| is_key(u)).map(|u| u.pts()).collect();
            assert_eq!(keys, [Some(ms(0)), Some(ms(200))]);
            let mut pts: Vec<_> = out.iter().map(|u| u.pts().unwrap()).collect();
            assert!(
                out.iter()
                    .all(|u| u.dts() <= u.pts() && u.duration() == Some(ms(40)))
            );
            assert!(out.windows(2).all(|u| u[0].dts() <= u[1].dts()));
            pts.sort();
            assert_eq!(pts, (0..10).map(|t| ms(40 * t)).collect::<Vec<_>>());
        }
    });
}

#[test]
fn caps_are_those_of_the_encoder() {
    within(|| {
        let info = i420(64, 48);
        let mut enc = encoder(&info, &[]);
        enc.push(buffer(&info, 0, 0)).unwrap();
        let data = bytes(&enc.pull().unwrap());
        let mut h = parser();
        h.push(gst::Buffer::from_slice(data)).unwrap();
        h.push_event(gst::event::Eos::new());
        let caps = |h: &gst_check::Harness| h.sinkpad().unwrap().current_caps().unwrap();
        let (a, b) = (caps(&enc), caps(&h));
        let (a, b) = (a.structure(0).unwrap(), b.structure(0).unwrap());
        for (field, value) in b.iter() {
            if field != "streamheader" {
                let same = a.value(field.as_str()).map(|v| format!("{v:?}"));
                assert_eq!(same.ok(), Some(format!("{value:?}")), "{field}");
            }
        }
    });
}

#[test]
fn garbage_between_units_is_passed_over_with_one_warning() {
    within(|| {
        let (_, units) = stream(&[("key-int-max", "5")]);
        let mut data = Vec::new();
        for (i, unit) in units.iter().enumerate() {
            data.extend(unit);
            if i == 3 || i == 7 {
                data.extend((0..777u32).map(|v| ((v * v) >> 3) as u8));
                data.extend([0x8e, b'N', b'V', 2, 0x7f]);
            }
        }
        for chunk in [13, data.len()] {
            let (out, warnings) = parse(&data, chunk);
            assert_eq!(out.iter().map(bytes).collect::<Vec<_>>(), units);
            assert_eq!(warnings.len(), 2, "{warnings:?}");
            assert!(warnings[0].contains("782 bytes"), "{warnings:?}");
        }
    });
}

#[test]
fn a_stream_can_be_joined_in_the_middle() {
    within(|| {
        let (data, units) = stream(&[("key-int-max", "5")]);
        let cut = units[0].len() + units[1].len() + 11;
        let (out, warnings) = parse(&data[cut..], 50);
        assert_eq!(out.iter().map(bytes).collect::<Vec<_>>(), units[5..]);
        assert_eq!(warnings.len(), 1);
        // It begins at zero, whatever the times in the stream are.
        assert_eq!(out[0].pts(), Some(ms(0)));
    });
}

#[test]
fn streams_can_be_put_one_behind_the_other() {
    within(|| {
        let (a, units) = stream(&[("bframes", "3")]);
        let other = encode(&i420(32, 48), 4, &[]);
        let data = [&a[..], &a, &join(&other)].concat();
        let mut h = parser();
        h.push(gst::Buffer::from_slice(data)).unwrap();
        h.push_event(gst::event::Eos::new());
        let out = pull_all(&mut h);
        assert_eq!(out.len(), 2 * units.len() + 4);
        let mut pts: Vec<_> = out.iter().map(|u| u.pts().unwrap()).collect();
        pts.sort();
        assert_eq!(pts, (0..24).map(|t| ms(40 * t)).collect::<Vec<_>>());
        let caps = h.sinkpad().unwrap().current_caps().unwrap();
        assert_eq!(caps.structure(0).unwrap().get::<i32>("width"), Ok(32));
    });
}

#[test]
fn times_of_upstream_are_kept() {
    within(|| {
        let units = encode(&i420(64, 48), 4, &[]);
        let mut h =
            gst_check::Harness::with_element(&element("nnvparse", &[]), Some("sink"), Some("src"));
        h.set_src_caps_str("video/x-nnv");
        for (i, unit) in units.iter().enumerate() {
            let mut b = gst::Buffer::from_slice(bytes(unit));
            let m = b.get_mut().unwrap();
            m.set_pts(ms(5000 + 111 * i as u64));
            m.set_dts(ms(5000 + 111 * i as u64));
            h.push(b).unwrap();
        }
        h.push_event(gst::event::Eos::new());
        let pts: Vec<_> = pull_all(&mut h).iter().map(|u| u.pts().unwrap()).collect();
        assert_eq!(pts, [5000, 5111, 5222, 5333].map(ms));
    });
}

#[test]
fn a_later_version_is_one_clear_error() {
    within(|| {
        let (mut data, _) = stream(&[]);
        // The header's payload begins with the magic and the version; its checksum is made anew.
        let at = data.windows(4).position(|w| w == b"NNV1").unwrap();
        let nnv_bitstream::Peek::Sound(kind, payload) = nnv_bitstream::peek_unit(&data) else {
            panic!("a unit begins the stream")
        };
        data[at + 4] = 99;
        let mut unit = Vec::new();
        nnv_bitstream::write_unit(&mut unit, kind, &data[payload.clone()]).unwrap();
        data.splice(..payload.end + 4, unit);
        let file = TempFile::with("later.nnv", &data);
        let outcome = decode(file.path(), "");
        let errors = outcome.errors.join("\n");
        assert!(
            errors.contains("99") && errors.contains("update"),
            "{errors}"
        );
    });
}

/// The same bytes behind a sequence header whose payload was changed.
fn with_header(data: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let nnv_bitstream::Peek::Sound(kind, payload) = nnv_bitstream::peek_unit(data) else {
        panic!("a unit begins the stream")
    };
    let rest = payload.end + 4;
    let mut header = data[payload].to_vec();
    change(&mut header);
    let mut unit = Vec::new();
    nnv_bitstream::write_unit(&mut unit, kind, &header).unwrap();
    unit.extend(&data[rest..]);
    unit
}

/// A unit's header that claims a payload of `len` bytes.
fn lying_header(len: u64) -> Vec<u8> {
    let mut header = vec![2];
    let mut rest = len;
    while rest > 127 {
        header.push(rest as u8 | 128);
        rest >>= 7;
    }
    header.push(rest as u8);
    header.push(crc32c::crc32c(&header) as u8);
    [&[0x8e, b'N', b'V'][..], &header].concat()
}

#[test]
fn a_header_that_cannot_be_used_costs_its_own_frames_only() {
    within(|| {
        let (data, units) = stream(&[("key-int-max", "5")]);
        let later = with_header(&data, |header| header[4] = 99);
        for chunk in [100, 100_000] {
            let (out, warnings) = parse(&[&data[..], &later[..], &data[..]].concat(), chunk);
            // The second group of the later stream has a header of its own, which can be used.
            let expected = [&units[..], &units[5..], &units].concat();
            assert_eq!(out.iter().map(bytes).collect::<Vec<_>>(), expected);
            assert_eq!(warnings.len(), 2, "{warnings:?}");
            assert!(warnings[0].contains("99"), "{warnings:?}");
        }
    });
}

#[test]
fn lying_headers_take_linear_time() {
    within(|| {
        let (data, units) = stream(&[]);
        let filler = |out: &mut Vec<u8>| {
            nnv_bitstream::write_unit(out, nnv_bitstream::UnitType::Filler, b"").unwrap();
        };
        // 64x48 pictures need at most 13312 bytes.
        for (lie, between) in [(1_000_000, false), (13_000, false), (13_000, true)] {
            let seconds = |kilobytes: usize, chunk: usize| {
                let mut bad = data.clone();
                while bad.len() < kilobytes * 1000 {
                    bad.extend(lying_header(lie));
                    if between {
                        filler(&mut bad);
                    }
                }
                bad.push(0);
                bad.extend(&data);
                let begun = std::time::Instant::now();
                let (out, _) = parse(&bad, chunk);
                assert_eq!(out.len(), 2 * units.len());
                begun.elapsed().as_secs_f64()
            };
            for chunk in [4096, 10_000_000] {
                let once = seconds(500, chunk);
                let twice = seconds(1000, chunk);
                assert!(
                    twice < 3.0 * once + 0.3,
                    "lies of {lie}, chunks of {chunk}: {once} s and {twice} s"
                );
            }
        }
    });
}

#[test]
fn a_damaged_length_holds_back_one_frame_only() {
    within(|| {
        let (_, units) = stream(&[]);
        for claimed in [400, 5000, 13_000, 1_000_000] {
            let mut h = parser();
            let mut arrived = 0;
            for (i, unit) in units.iter().enumerate() {
                let mut unit = unit.clone();
                if i == 3 {
                    let lie = lying_header(claimed);
                    unit[..lie.len()].copy_from_slice(&lie);
                }
                h.push(gst::Buffer::from_slice(unit)).unwrap();
                arrived += pull_all(&mut h).len();
                let sent = i + 1 - usize::from(i >= 3);
                assert_eq!(arrived, sent, "frame {i}, {claimed} bytes claimed");
            }
        }
    });
}

#[test]
fn damage_of_many_megabytes_is_passed_over() {
    within(|| {
        let (data, units) = stream(&[]);
        let junk = vec![0x55; 5 << 20];
        let all = [&data[..], &junk, &data].concat();
        let (out, warnings) = parse(&all, 1 << 24);
        assert_eq!((out.len(), warnings.len()), (2 * units.len(), 1));
        let outcome = decode(TempFile::with("junk.nnv", &all).path(), "");
        assert_eq!(outcome.shown.len(), 2 * units.len(), "{:?}", outcome.errors);
    });
}

#[test]
fn no_frame_rate_overflows_decoding_times() {
    within(|| {
        let (_, units) = stream(&[("bframes", "3")]);
        let mut header = nnv_bitstream::AccessUnit::parse(&units[0])
            .unwrap()
            .sequence
            .unwrap();
        header.frame_rate = nnv_bitstream::Rational::new(1, i32::MAX as u32);
        let nnv_bitstream::Peek::Sound(kind, payload) = nnv_bitstream::peek_unit(&units[0]) else {
            panic!("a unit begins the stream")
        };
        let mut data = Vec::new();
        nnv_bitstream::write_unit(&mut data, kind, &header.to_payload().unwrap()).unwrap();
        data.extend(&units[0][payload.end + 4..]);
        data.extend(units[1..].concat());
        let (out, _) = parse(&data, 1000);
        assert_eq!(out.len(), units.len());
        assert!(out.windows(2).all(|u| u[0].dts() <= u[1].dts()));
    });
}

#[test]
fn typefinding_knows_streams_and_nothing_else() {
    within(|| {
        let (data, units) = stream(&[("key-int-max", "5")]);
        let find = |data: &[u8]| {
            gst_base::type_find_helper_for_data(gst::Object::NONE, data)
                .ok()
                .map(|(caps, probability)| (caps.to_string(), probability))
        };
        let nnv = |p| Some(("video/x-nnv".to_string(), p));
        assert_eq!(find(&data), nnv(gst::TypeFindProbability::Maximum));
        assert_eq!(find(&data[..300]), nnv(gst::TypeFindProbability::Maximum));
        // From the middle of the first group to the second key frame's header.
        let middle = &data[units[0].len() / 2..];
        assert_eq!(find(middle), nnv(gst::TypeFindProbability::Likely));
        let noise: Vec<u8> = (0..5000u32)
            .map(|v| (v.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        assert!(find(&noise).is_none_or(|(caps, _)| caps != "video/x-nnv"));
        assert!(find(b"\x8eNV").is_none_or(|(caps, _)| caps != "video/x-nnv"));
    });
}

#[test]
fn positions_and_durations_are_known() {
    within(|| {
        let (data, _) = stream(&[("bframes", "3"), ("key-int-max", "5")]);
        let file = TempFile::with("known.nnv", &data);
        let pipeline = launch(&format!(
            "filesrc location={} ! nnvparse ! fakesink",
            file.path()
        ));
        pipeline.set_state(gst::State::Paused).unwrap();
        pipeline.state(gst::ClockTime::from_seconds(30)).0.unwrap();
        assert_eq!(pipeline.query_duration::<gst::ClockTime>(), Some(ms(400)));
        assert_eq!(pipeline.query_position::<gst::ClockTime>(), Some(ms(0)));
        let mut seeking = gst::query::Seeking::new(gst::Format::Time);
        assert!(pipeline.query(&mut seeking));
        assert!(seeking.result().0);
        pipeline.set_state(gst::State::Null).unwrap();
        // Data that is pushed has no index, but an estimate once something has flowed.
        let pipeline = launch(&format!(
            "filesrc location={} ! queue ! nnvparse ! fakesink",
            file.path()
        ));
        let outcome = play(&pipeline);
        assert!(outcome.eos);
    });
}

#[test]
fn parser_is_a_base_parse() {
    init();
    assert!(element("nnvparse", &[]).is::<gst_base::BaseParse>());
    let parse = element("nnvparse", &[])
        .downcast::<gst_base::BaseParse>()
        .unwrap();
    assert_eq!(BaseParseExtManual::sink_pad(&parse).name(), "sink");
}

#[test]
fn live_a_length_that_lies_is_awaited_for_a_moment_only() {
    within(|| {
        let units = encode(&i420(192, 160), 8, &[("bframes", "0"), ("quantizer", "60")]);
        let parse = element("nnvparse", &[]);
        let mut h = gst_check::Harness::with_element(&parse, Some("sink"), Some("src"));
        h.set_live(true);
        h.set_src_caps("video/x-nnv".parse().unwrap());
        h.push(gst::Buffer::from_slice(bytes(&units[0]))).unwrap();
        // A header that fits, and says that much more will come than does.
        let mut lie = vec![2, 0xe0, 0xd4, 3];
        lie.push(crc32c::crc32c(&lie) as u8);
        let lie = [&[0x8e, b'N', b'V'][..], &lie, &[0x55; 40_000]].concat();
        h.push(gst::Buffer::from_slice(lie)).unwrap();
        let small: usize = units[2..6].iter().map(|unit| bytes(unit).len()).sum();
        assert!(
            small < 40_000 / 8,
            "{small} bytes would end the wait by themselves"
        );
        h.push(gst::Buffer::from_slice(bytes(&units[2]))).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(150));
        let before = pull_all(&mut h).len();
        h.push(gst::Buffer::from_slice(bytes(&units[3]))).unwrap();
        let after = before + pull_all(&mut h).len();
        assert!(after >= 3, "{before} and then {after} access units");
    });
}

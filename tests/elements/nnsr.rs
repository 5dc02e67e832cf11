// SPDX-License-Identifier: MPL-2.0
//! `nnsr`: formats, negotiation, batches, lateness, and what goes wrong. The bundles are those of
//! `scripts/make-sr-fixtures.py`; what exactly they make of a picture is tested in `tests/sr.rs`.

use std::time::Duration;

use gst::prelude::*;
use gst_video::prelude::*;
use gst_video::{VideoFormat, VideoFrameRef, VideoInfo};

use crate::util::*;

const FORMATS: [VideoFormat; 7] = [
    VideoFormat::I420,
    VideoFormat::Nv12,
    VideoFormat::I42010le,
    VideoFormat::P01010le,
    VideoFormat::Y444,
    VideoFormat::Rgb,
    VideoFormat::Gray8,
];

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn sr(bundle: &str, properties: &[(&str, &str)]) -> gst::Element {
    let path = fixture(bundle);
    let mut all = vec![("model-path", &*path), ("threads", "2")];
    all.extend(properties);
    element("nnsr", &all)
}

fn harness(element: &gst::Element) -> gst_check::Harness {
    gst_check::Harness::with_element(element, Some("sink"), Some("src"))
}

/// The element in a harness that takes `info`.
fn started(bundle: &str, info: &VideoInfo, properties: &[(&str, &str)]) -> gst_check::Harness {
    let mut h = harness(&sr(bundle, properties));
    h.set_src_caps(info.to_caps().unwrap());
    h
}

/// Frame `t`: texture with legal 10-bit words, and times at 25 frames/s.
fn frame(info: &VideoInfo, t: u32) -> gst::Buffer {
    let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
    let b = buffer.get_mut().unwrap();
    b.set_pts(ms(40 * u64::from(t)));
    b.set_duration(ms(40));
    {
        let mut frame = VideoFrameRef::from_buffer_ref_writable(b, info).unwrap();
        let ten = info.comp_depth(0) == 10;
        let shift = info.format_info().shift()[0];
        for p in 0..frame.n_planes() {
            let plane = frame.plane_data_mut(p).unwrap();
            if ten {
                for (i, word) in plane.chunks_exact_mut(2).enumerate() {
                    let code = 64 + (i as u32 * 37 + t * 101 + p * 13) % 870;
                    word.copy_from_slice(&((code << shift) as u16).to_le_bytes());
                }
            } else {
                for (i, byte) in plane.iter_mut().enumerate() {
                    *byte = (16 + (i as u32 * 37 + t * 101 + p * 13) % 219) as u8;
                }
            }
        }
    }
    buffer
}

/// Code values of the first component, row by row.
fn luma(buffer: &gst::BufferRef, info: &VideoInfo) -> Vec<Vec<u32>> {
    let frame = VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
    let data = frame.comp_data(0).unwrap();
    let (stride, step) = (
        frame.comp_stride(0) as usize,
        frame.comp_pstride(0) as usize,
    );
    let shift = info.format_info().shift()[0];
    let code = |bytes: &[u8]| match info.comp_depth(0) {
        10 => u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) >> shift,
        _ => u32::from(bytes[0]),
    };
    data.chunks(stride)
        .take(info.height() as usize)
        .map(|row| {
            row.chunks(step)
                .take(info.width() as usize)
                .map(code)
                .collect()
        })
        .collect()
}

fn repeated(rows: &[Vec<u32>]) -> Vec<Vec<u32>> {
    rows.iter()
        .flat_map(|row| {
            let row: Vec<u32> = row.iter().flat_map(|v| [*v; 2]).collect();
            [row.clone(), row]
        })
        .collect()
}

fn caps_of(h: &gst_check::Harness) -> VideoInfo {
    let caps = h.sinkpad().unwrap().current_caps().unwrap();
    VideoInfo::from_caps(&caps).unwrap()
}

fn stat(element: &gst::Element, name: &str) -> u64 {
    let stats = element.property::<gst::Structure>("stats");
    stats.get(name).unwrap_or_else(|e| panic!("{stats}: {e}"))
}

/// Messages of a kind that an element of a harness has posted.
fn posted(bus: &gst::Bus, kind: gst::MessageType) -> Vec<gst::Message> {
    std::iter::from_fn(|| bus.pop_filtered(&[kind])).collect()
}

/// The one error that an element has posted.
fn the_error(bus: &gst::Bus) -> String {
    let errors: Vec<_> = posted(bus, gst::MessageType::Error)
        .iter()
        .map(|message| match message.view() {
            gst::MessageView::Error(e) => e.error().to_string(),
            _ => unreachable!("only errors were asked for"),
        })
        .collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

fn with_bus(element: &gst::Element) -> gst::Bus {
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    bus
}

#[test]
fn every_format_and_size_is_doubled() {
    within(|| {
        for format in FORMATS {
            for (width, height) in [(1, 1), (7, 5), (64, 36), (8192, 1), (1, 8192)] {
                let info = info(format, width, height);
                let mut h = started("sr-exact", &info, &[("scale", "2")]);
                let input = frame(&info, 0);
                h.push(input.clone()).unwrap();
                let output = h.pull().unwrap();
                let out_info = caps_of(&h);
                assert_eq!(out_info.format(), format);
                assert_eq!(
                    (out_info.width(), out_info.height()),
                    (2 * width, 2 * height)
                );
                if format != VideoFormat::Rgb {
                    let expected = repeated(&luma(&input, &info));
                    assert_eq!(
                        luma(&output, &out_info),
                        expected,
                        "{format:?} {width}x{height}"
                    );
                }
            }
        }
    });
}

#[test]
fn what_the_caps_say_is_carried_through() {
    within(|| {
        let caps: gst::Caps = "video/x-raw, format=I420_10LE, width=32, height=18, \
             framerate=30000/1001, pixel-aspect-ratio=4/3, colorimetry=bt2100-hlg, \
             chroma-site=mpeg2, interlace-mode=progressive, \
             mastering-display-info=(string)35400:14600:8500:39850:6550\
             :2300:15635:16450:10000000:50, \
             content-light-level=(string)1000:400"
            .parse()
            .unwrap();
        for scale in 1..=4 {
            let mut h = harness(&sr("sr-exact", &[("scale", &scale.to_string())]));
            h.set_src_caps(caps.clone());
            h.push(frame(&VideoInfo::from_caps(&caps).unwrap(), 0))
                .unwrap();
            let got = h.sinkpad().unwrap().current_caps().unwrap();
            let mut expected = caps.clone();
            let structure = expected.make_mut().structure_mut(0).unwrap();
            structure.set("width", 32 * scale);
            structure.set("height", 18 * scale);
            assert!(got.is_strictly_equal(&expected), "{got}\n{expected}");
        }
    });
}

#[test]
fn what_buffers_say_is_carried_through() {
    within(|| {
        let info = i420(32, 16);
        let mut h = started("sr-exact", &info, &[("scale", "3")]);
        let mut input = frame(&info, 7);
        let b = input.get_mut().unwrap();
        b.set_offset(77);
        b.set_flags(gst::BufferFlags::GAP);
        gst_video::VideoRegionOfInterestMeta::add(b, "face", (4, 5, 6, 7));
        let reference: gst::Caps = "timestamp/x-ntp".parse().unwrap();
        gst::ReferenceTimestampMeta::add(b, &reference, ms(99), gst::ClockTime::NONE);
        // Of the input's memory, not of the output's.
        gst_video::VideoMeta::add(
            b,
            gst_video::VideoFrameFlags::empty(),
            VideoFormat::I420,
            32,
            16,
        )
        .unwrap();
        h.push(input).unwrap();
        let output = h.pull().unwrap();
        assert_eq!(
            (output.pts(), output.duration()),
            (Some(ms(280)), Some(ms(40)))
        );
        assert_eq!(output.offset(), 77);
        assert!(output.flags().contains(gst::BufferFlags::GAP));
        let region = output
            .meta::<gst_video::VideoRegionOfInterestMeta>()
            .unwrap();
        assert_eq!(region.rect(), (12, 15, 18, 21));
        let time = output.meta::<gst::ReferenceTimestampMeta>().unwrap();
        assert_eq!(time.timestamp(), ms(99));
        if let Some(meta) = output.meta::<gst_video::VideoMeta>() {
            assert_eq!((meta.width(), meta.height()), (96, 48));
        }
    });
}

#[test]
fn rows_may_be_padded() {
    within(|| {
        let info = i420(30, 20);
        let mut h = started("sr-exact", &info, &[("scale", "2")]);
        let (tight, padded) = (buffer(&info, 3, 0), buffer(&info, 3, 17));
        h.push(tight).unwrap();
        h.push(padded).unwrap();
        let pictures: Vec<_> = (0..2)
            .map(|_| read(&h.pull().unwrap(), &caps_of(&h)).checksum())
            .collect();
        assert_eq!(pictures[0], pictures[1]);
        // Padding was not compared either.
        assert_eq!(stat(&h.element().unwrap(), "reused"), 1);
    });
}

#[test]
fn downstream_picks_the_scale() {
    within(|| {
        for (filter, expected) in [
            ("video/x-raw,width=80,height=48", (80, 48)),
            ("video/x-raw,width=160,height=96", (160, 96)),
            ("video/x-raw,height=144", (240, 144)),
            ("video/x-raw,width=320", (320, 192)),
            // Any size will do: twice.
            ("video/x-raw", (160, 96)),
            // Too small for that.
            ("video/x-raw,width=[1,159],height=[1,200]", (80, 48)),
        ] {
            let outcome = play(&launch(&format!(
                "videotestsrc num-buffers=2 ! video/x-raw,format=I420,width=80,height=48 ! nnsr \
                 model-path={} ! {filter} ! fakesink name=out",
                fixture("sr-exact")
            )));
            let outcome = outcome.sound();
            assert_eq!(outcome.shown.len(), 2);
            assert_eq!(outcome.shown[0].size, expected, "{filter}");
        }
    });
}

/// Sources that do not ask before they send caps would otherwise only hear "not negotiated".
#[test]
fn a_size_that_cannot_be_reached_is_explained() {
    within(|| {
        let element = sr("sr-exact", &[]);
        let bus = with_bus(&element);
        let mut h = harness(&element);
        h.set_sink_caps_str("video/x-raw,width=100,height=60");
        let caps = i420(80, 48).to_caps().unwrap();
        h.push_event(gst::event::Caps::new(&caps));
        let error = the_error(&bus);
        assert!(
            error.contains("cannot be enlarged by 2 or 3 or 4 or 1")
                && error.contains("width=(int)100"),
            "{error}"
        );
    });
}

#[test]
fn downstream_picks_the_size_of_the_source_for_a_scale() {
    within(|| {
        let outcome = play(&launch(&format!(
            "videotestsrc num-buffers=2 ! nnsr scale=3 model-path={} ! \
             video/x-raw,format=NV12,width=96,height=66 ! fakesink name=out",
            fixture("sr-exact")
        )))
        .sound();
        assert_eq!(outcome.shown[0].size, (96, 66));
        assert_eq!(outcome.shown[0].format, VideoFormat::Nv12);
        let odd = "videotestsrc ! nnsr scale=3 ! video/x-raw,width=97,height=66 ! fakesink";
        let error = gst::parse::launch(odd).unwrap_err().to_string();
        assert!(error.contains("can't handle caps"), "{error}");
    });
}

#[test]
fn strength_changes_while_playing() {
    within(|| {
        let info = info(VideoFormat::Gray8, 16, 12);
        let element = sr("sr-exact", &[("scale", "1")]);
        let mut h = harness(&element);
        h.set_src_caps(info.to_caps().unwrap());
        let input = frame(&info, 0);
        let mut rows = Vec::new();
        for strength in [1.0, 0.5, 0.0, 1.0] {
            element.set_property("strength", strength);
            h.push(input.clone()).unwrap();
            rows.push(luma(&h.pull().unwrap(), &info));
        }
        let original = luma(&input, &info);
        assert_ne!(rows[0], original);
        assert_eq!(rows[2], original);
        assert_eq!(rows[3], rows[0]);
        for ((full, half), plain) in rows[0]
            .iter()
            .flatten()
            .zip(rows[1].iter().flatten())
            .zip(original.iter().flatten())
        {
            if (1..255).contains(full) {
                assert!((2 * half).abs_diff(full + plain) <= 2);
            }
        }
        assert_eq!(stat(&element, "passed-through"), 1);
        assert_eq!(stat(&element, "enhanced"), 3);
        let spec = element.find_property("strength").unwrap();
        assert!(spec.flags().contains(gst::PARAM_FLAG_CONTROLLABLE));
    });
}

#[test]
fn repeated_frames_reuse_their_result() {
    within(|| {
        let info = i420(32, 24);
        let mut h = started("sr-random", &info, &[("batch-size", "3")]);
        let element = h.element().unwrap();
        // As `videorate` repeats frames: the same memory under other times; then a copy of the
        // memory.
        let first = frame(&info, 0);
        let mut same = first.copy();
        same.get_mut().unwrap().set_pts(ms(40));
        same.get_mut().unwrap().set_flags(gst::BufferFlags::GAP);
        let mut copy = first.copy_deep().unwrap();
        copy.get_mut().unwrap().set_pts(ms(80));
        let mut after = first.copy_deep().unwrap();
        after.get_mut().unwrap().set_pts(ms(120));
        for buffer in [first, same, copy, after, frame(&info, 4)] {
            h.push(buffer).unwrap();
        }
        assert!(h.push_event(gst::event::Eos::new()));
        let shown = pull_all(&mut h);
        let pts: Vec<_> = shown.iter().map(|b| b.pts().unwrap()).collect();
        assert_eq!(pts, [0, 40, 80, 120, 160].map(ms));
        let out = caps_of(&h);
        let pictures: Vec<_> = shown.iter().map(|b| read(b, &out).checksum()).collect();
        assert!(pictures[..4].iter().all(|p| *p == pictures[0]));
        assert_ne!(pictures[4], pictures[0]);
        assert_eq!(stat(&element, "enhanced"), 2);
        assert_eq!(stat(&element, "reused"), 3);
        assert_eq!(stat(&element, "frames-in"), 5);
        assert_eq!(stat(&element, "frames-out"), 5);
        let stats = element.property::<gst::Structure>("stats");
        for field in ["fps", "frame-ms", "network-ms"] {
            assert!(stats.get::<f64>(field).unwrap() > 0.0, "{stats}");
        }
    });
}

#[test]
fn batches_wait_no_longer_than_they_say() {
    within(|| {
        let info = i420(32, 24);
        let single = {
            let mut h = started("sr-random", &info, &[]);
            for t in 0..10 {
                h.push(frame(&info, t)).unwrap();
            }
            assert_eq!(h.query_latency(), Some(gst::ClockTime::ZERO));
            let out = caps_of(&h);
            let shown = pull_all(&mut h);
            assert_eq!(shown.len(), 10);
            shown
                .iter()
                .map(|b| read(b, &out).checksum())
                .collect::<Vec<_>>()
        };
        let element = sr("sr-random", &[("batch-size", "4")]);
        let bus = with_bus(&element);
        let mut h = harness(&element);
        h.set_src_caps(info.to_caps().unwrap());
        assert_eq!(h.query_latency(), Some(ms(120)));
        assert_eq!(posted(&bus, gst::MessageType::Latency).len(), 1);
        let mut shown = Vec::new();
        for t in 0..10 {
            h.push(frame(&info, t)).unwrap();
            shown.extend(pull_all(&mut h));
            assert_eq!(shown.len(), (t as usize + 1) / 4 * 4, "after frame {t}");
        }
        assert!(h.push_event(gst::event::Eos::new()));
        shown.extend(pull_all(&mut h));
        let out = caps_of(&h);
        let pts: Vec<_> = shown.iter().map(|b| b.pts().unwrap()).collect();
        assert_eq!(pts, (0..10).map(|t| ms(40 * t)).collect::<Vec<_>>());
        let pictures: Vec<_> = shown.iter().map(|b| read(b, &out).checksum()).collect();
        assert_eq!(pictures, single);
    });
}

#[test]
fn self_ensemble_is_another_picture_at_the_same_latency() {
    within(|| {
        let info = i420(32, 24);
        let pictures = |properties: &[(&str, &str)]| {
            let mut h = started("sr-random", &info, properties);
            assert_eq!(h.query_latency(), Some(gst::ClockTime::ZERO));
            for t in 0..3 {
                h.push(frame(&info, t)).unwrap();
            }
            assert_eq!(stat(&h.element().unwrap(), "enhanced"), 3);
            let out = caps_of(&h);
            let shown = pull_all(&mut h);
            assert_eq!(shown.len(), 3);
            shown
                .iter()
                .map(|b| read(b, &out).checksum())
                .collect::<Vec<_>>()
        };
        let single = pictures(&[]);
        assert_eq!(pictures(&[("self-ensemble", "1")]), single);
        let all = pictures(&[("self-ensemble", "8")]);
        assert!(all.iter().zip(&single).all(|(a, b)| a != b));
        assert_eq!(pictures(&[("self-ensemble", "8")]), all);
    });
}

#[test]
fn tags_tell_the_network_how_coarsely_it_was_quantized() {
    within(|| {
        let info = i420(32, 24);
        let element = sr("sr-rated", &[]);
        let mut h = harness(&element);
        h.set_src_caps(info.to_caps().unwrap());
        // Two frames: the first of a scene says nothing.
        let mut time = 0;
        let mut quantizer = || {
            let mut added = 0;
            for _ in 0..2 {
                time += 1;
                let input = frame(&info, time % 2);
                h.push(input.clone()).unwrap();
                let pair = [h.pull().unwrap(), input].map(|b| luma(&b, &info)[3][5]);
                added = pair[0] - pair[1];
            }
            let stats = element.property::<gst::Structure>("stats");
            let quantizer = stats.get::<f64>("source-quantizer").unwrap();
            // The network is told that it is but likely.
            assert!(
                (quantizer / 2.0 - f64::from(added)).abs() <= 0.51,
                "{quantizer}, but {added} came"
            );
            quantizer
        };
        let tags = |codec: &str, bitrate: u32| {
            let mut tags = gst::TagList::new();
            let list = tags.get_mut().unwrap();
            list.add::<gst::tags::VideoCodec>(&codec, gst::TagMergeMode::Append);
            list.add::<gst::tags::Bitrate>(&bitrate, gst::TagMergeMode::Append);
            gst::event::Tag::new(tags)
        };
        let say = |event| assert!(element.static_pad("sink").unwrap().send_event(event));

        assert_eq!(quantizer(), 0.0);
        say(tags("H.264 (High Profile)", 2_000));
        let poor = quantizer();
        assert!((10.0..60.0).contains(&poor), "{poor}");
        say(tags("H.264 (High Profile)", 20_000));
        let good = quantizer();
        assert!(good + 5.0 < poor, "{good} after {poor}");
        say(tags("H.265 / HEVC", 20_000));
        assert!(
            quantizer() + 1.0 < good,
            "H.265 is finer with the same bits"
        );
        say(tags("Motion JPEG", 20_000));
        assert_eq!(quantizer(), 0.0);
        say(tags("H.264 (High Profile)", 20_000));
        element.set_property("source-bitrate", 2_000u32);
        assert!((quantizer() - poor).abs() < 0.5);
        element.set_property("source-bitrate", 0u32);
        say(gst::event::StreamStart::new("another"));
        assert_eq!(quantizer(), 0.0);
        element.set_property("source-bitrate", 2_000u32);
        assert!(
            (quantizer() - poor).abs() < 0.5,
            "H.264 is what most of it is"
        );
    });
}

#[test]
fn serialized_events_do_not_overtake_frames() {
    within(|| {
        let info = i420(32, 24);
        let mut h = started("sr-exact", &info, &[("batch-size", "8"), ("scale", "2")]);
        h.push(frame(&info, 0)).unwrap();
        h.push(frame(&info, 1)).unwrap();
        assert_eq!(h.buffers_received(), 0);
        assert!(h.push_event(gst::event::Gap::new(ms(80), ms(40))));
        assert_eq!(h.buffers_received(), 2);
        h.push(frame(&info, 3)).unwrap();
        // A frame after a gap lets the one before go.
        let mut late = frame(&info, 9);
        late.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
        h.push(late).unwrap();
        assert_eq!(h.buffers_received(), 3);
        // Caps of another size: frames of the old size still have the old caps.
        let small = i420(10, 6);
        h.set_src_caps(small.to_caps().unwrap());
        assert_eq!(h.buffers_received(), 4);
        h.push(frame(&small, 10)).unwrap();
        assert!(h.push_event(gst::event::Eos::new()));
        let sizes: Vec<_> = pull_all(&mut h).iter().map(|b| b.size()).collect();
        let (large, small) = (i420(64, 48).size(), i420(20, 12).size());
        assert_eq!(sizes, [large, large, large, large, small]);
        assert_eq!((caps_of(&h).width(), caps_of(&h).height()), (20, 12));
    });
}

#[test]
fn caps_change_in_a_pipeline() {
    within(|| {
        let outcome = play(&launch(&format!(
            "concat name=c ! nnsr batch-size=3 model-path={} ! fakesink name=out \
             videotestsrc num-buffers=4 ! video/x-raw,format=I420,width=40,height=30 ! c. \
             videotestsrc num-buffers=5 ! video/x-raw,format=NV12,width=21,height=13 ! c.",
            fixture("sr-random")
        )))
        .sound();
        let sizes: Vec<_> = outcome.shown.iter().map(|s| (s.size, s.format)).collect();
        let mut expected = vec![((80, 60), VideoFormat::I420); 4];
        expected.extend(vec![((42, 26), VideoFormat::Nv12); 5]);
        assert_eq!(sizes, expected);
    });
}

/// `videoconvert` offers a pool and takes any stride; a batch must not starve there.
#[test]
fn neighbours_may_bring_their_pools() {
    within(|| {
        for batch in [1, 5] {
            let outcome = play(&launch(&format!(
                "videotestsrc num-buffers=12 ! video/x-raw,format=NV12,width=51,height=29 ! \
                 videoconvert ! video/x-raw,format=I420 ! nnsr scale=3 batch-size={batch} \
                 model-path={} ! videoconvert ! video/x-raw,format=NV12 ! fakesink name=out",
                fixture("sr-exact")
            )))
            .sound();
            assert_eq!(outcome.shown.len(), 12);
            assert!(outcome.shown.iter().all(|s| s.size == (153, 87)));
        }
    });
}

#[test]
fn flushing_forgets_what_waits() {
    within(|| {
        let info = i420(32, 24);
        let mut h = started("sr-exact", &info, &[("batch-size", "4"), ("scale", "2")]);
        for t in 0..3 {
            h.push(frame(&info, t)).unwrap();
        }
        assert!(h.push_event(gst::event::FlushStart::new()));
        assert!(h.push_event(gst::event::FlushStop::new(true)));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(h.push_event(gst::event::Segment::new(&segment)));
        for t in 10..14 {
            h.push(frame(&info, t)).unwrap();
        }
        let pts: Vec<_> = pull_all(&mut h).iter().map(|b| b.pts().unwrap()).collect();
        assert_eq!(pts, (10..14).map(|t| ms(40 * t)).collect::<Vec<_>>());
    });
}

/// Pushes a picture that keeps the network busy for long, and returns once the element has it.
fn busy(h: &gst_check::Harness, info: &VideoInfo) -> std::thread::JoinHandle<bool> {
    let element = h.element().unwrap();
    let sink = element.static_pad("sink").unwrap();
    let buffer = frame(info, 0);
    let thread = std::thread::spawn(move || sink.chain(buffer) == Err(gst::FlowError::Flushing));
    while stat(&element, "frames-in") == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    thread
}

#[test]
fn flushing_aborts_a_running_network() {
    within(|| {
        let info = info(VideoFormat::Gray8, 4000, 3000);
        let mut h = started("sr-random", &info, &[]);
        let thread = busy(&h, &info);
        assert!(h.push_event(gst::event::FlushStart::new()));
        assert!(thread.join().unwrap());
        let element = h.element().unwrap();
        assert_eq!(stat(&element, "enhanced"), 0, "the network was not aborted");
        assert!(h.push_event(gst::event::FlushStop::new(true)));
        // And the element works on.
        let small = i420(16, 16);
        h.set_src_caps(small.to_caps().unwrap());
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(h.push_event(gst::event::Segment::new(&segment)));
        h.push(frame(&small, 1)).unwrap();
        assert_eq!(h.pull().unwrap().size(), i420(32, 32).size());
    });
}

#[test]
fn stopping_aborts_a_running_network() {
    within(|| {
        let info = info(VideoFormat::Gray8, 4000, 3000);
        let h = started("sr-random", &info, &[]);
        let element = h.element().unwrap();
        let thread = busy(&h, &info);
        element.set_state(gst::State::Null).unwrap();
        assert!(thread.join().unwrap());
        assert_eq!(stat(&element, "enhanced"), 0, "the network was not aborted");
        assert_eq!(
            element.property::<Option<String>>("active-execution-provider"),
            None
        );
    });
}

#[test]
fn late_frames_are_scaled_plainly_or_dropped() {
    within(|| {
        let info = info(VideoFormat::Gray8, 20, 10);
        let plain = {
            let mut h = started("sr-exact", &info, &[("strength", "0"), ("scale", "2")]);
            h.push(frame(&info, 1)).unwrap();
            bytes(&h.pull().unwrap())
        };
        for mode in ["plain", "drop"] {
            let element = sr("sr-exact", &[("scale", "2"), ("qos-mode", mode)]);
            let bus = with_bus(&element);
            let mut h = harness(&element);
            h.set_src_caps(info.to_caps().unwrap());
            // 20 ms late at 10 ms: what comes up to 50 ms is late.
            let qos = |diff: i64| gst::event::Qos::new(gst::QOSType::Underflow, 1.5, diff, ms(10));
            h.push(frame(&info, 0)).unwrap();
            h.push_upstream_event(qos(20_000_000));
            h.push(frame(&info, 1)).unwrap();
            h.push(frame(&info, 2)).unwrap();
            let shown = pull_all(&mut h);
            let (passed, dropped) = match mode {
                "plain" => {
                    assert_eq!(bytes(&shown[1]), plain);
                    (1, 0)
                }
                _ => {
                    assert!(shown[1].flags().contains(gst::BufferFlags::DISCONT));
                    (0, 1)
                }
            };
            assert_eq!(shown.len() as u64, 3 - dropped);
            assert_eq!(stat(&element, "passed-through"), passed);
            assert_eq!(stat(&element, "dropped"), dropped);
            assert_eq!(stat(&element, "enhanced"), 2);
            assert_eq!(posted(&bus, gst::MessageType::Qos).len(), 1);
            // In time again; then late, but nobody asks.
            h.push_upstream_event(qos(-5));
            h.push(frame(&info, 1)).unwrap();
            element.set_property("qos", false);
            h.push_upstream_event(qos(20_000_000));
            h.push(frame(&info, 0)).unwrap();
            assert_eq!(stat(&element, "enhanced"), 4);
        }
    });
}

const ANALYSIS: &str = "GstNnSrAnalysisMeta";

/// What becomes of two frames, and whether downstream draws overlays.
fn analysed(info: &VideoInfo, overlays: bool, properties: &[(&str, &str)]) -> Vec<gst::Buffer> {
    let mut all = vec![("scale", "2")];
    all.extend(properties);
    let mut h = harness(&sr("sr-random", &all));
    if overlays {
        let api = gst_video::VideoOverlayCompositionMeta::meta_api();
        h.add_propose_allocation_meta(api, None);
    }
    h.set_src_caps(info.to_caps().unwrap());
    for t in 0..2 {
        h.push(frame(info, t)).unwrap();
    }
    pull_all(&mut h)
}

#[test]
fn nothing_is_analysed_unless_asked_for() {
    let info = info(VideoFormat::I420, 40, 20);
    let turns = ("self-ensemble", "2");
    for overlays in [false, true] {
        let plain = analysed(&info, overlays, &[turns]);
        assert_eq!(plain.len(), 2);
        for buffer in &plain {
            assert!(gst::meta::CustomMeta::from_buffer(buffer, ANALYSIS).is_err());
            assert!(
                buffer
                    .meta::<gst_video::VideoOverlayCompositionMeta>()
                    .is_none()
            );
        }
        // Asked for, it is there, and in the picture where nobody else draws it.
        let shown = analysed(&info, overlays, &[turns, ("analysis", "change+spread")]);
        for (shown, plain) in shown.iter().zip(&plain) {
            assert!(gst::meta::CustomMeta::from_buffer(shown, ANALYSIS).is_ok());
            let overlay = shown.meta::<gst_video::VideoOverlayCompositionMeta>();
            assert_eq!(overlay.is_some(), overlays);
            assert_eq!(bytes(shown) == bytes(plain), overlays);
        }
    }
}

#[test]
fn analysis_says_what_the_network_changed() {
    // 80x40 after scaling: five by three places, the last row of half their height.
    let info = info(VideoFormat::Gray8, 40, 20);
    let (columns, rows) = (5, 3);
    let large = VideoInfo::builder(VideoFormat::Gray8, 80, 40)
        .build()
        .unwrap();
    let kernel = analysed(&info, true, &[("strength", "0")]);
    let turns = ("self-ensemble", "4");
    let shown = analysed(&info, true, &[turns, ("analysis", "change")]);
    for (kernel, shown) in kernel.iter().zip(&shown) {
        let meta = gst::meta::CustomMeta::from_buffer(shown, ANALYSIS).unwrap();
        let s = meta.structure();
        assert_eq!(s.get::<u32>("columns").unwrap() as usize, columns);
        assert_eq!(s.get::<u32>("rows").unwrap() as usize, rows);
        let numbers = |field: &str| -> Vec<f64> {
            let data = bytes(&s.get::<gst::Buffer>(field).unwrap());
            let numbers = data.as_chunks::<2>().0.iter();
            numbers
                .map(|&b| f64::from(u16::from_le_bytes(b)) / 256.0)
                .collect()
        };
        let (before, after) = (luma(kernel, &large), luma(shown, &large));
        let change = numbers("change");
        assert_eq!(change.len(), columns * rows);
        for (place, got) in change.into_iter().enumerate() {
            let (left, top) = (place % columns * 16, place / columns * 16);
            let samples =
                (top..(top + 16).min(40)).flat_map(|y| (left..left + 16).map(move |x| (y, x)));
            let differences: Vec<_> = samples
                .map(|(y, x)| f64::from(before[y][x].abs_diff(after[y][x])))
                .collect();
            let mean = differences.iter().sum::<f64>() / differences.len() as f64;
            assert!((got - mean).abs() < 0.01, "place {place}: {got} for {mean}");
        }
        // A network of random weights is sure of nothing.
        assert!(numbers("spread").iter().all(|v| *v > 0.1));
        // What is drawn: the change of each sample, four times, on grey.
        let overlay = shown
            .meta::<gst_video::VideoOverlayCompositionMeta>()
            .unwrap();
        let rectangles: Vec<_> = overlay.overlay().iter().collect();
        let pixels =
            rectangles[0].pixels_unscaled_argb(gst_video::VideoOverlayFormatFlags::empty());
        let pixels = bytes(&pixels);
        for y in 0..40 {
            for x in 0..80 {
                let change = i64::from(after[y][x]) - i64::from(before[y][x]);
                let grey = (128 + 4 * change).clamp(0, 255) as u8;
                let pixel = &pixels[4 * (80 * y + x)..][..4];
                assert_eq!(pixel, [grey, grey, grey, 255], "({x}, {y})");
            }
        }
    }
    // One turn has no spread; frames without the network have nothing.
    let one = analysed(&info, true, &[("analysis", "change+spread")]);
    let meta = gst::meta::CustomMeta::from_buffer(&one[0], ANALYSIS).unwrap();
    assert!(meta.structure().has_field("change") && !meta.structure().has_field("spread"));
    let off = analysed(&info, true, &[("strength", "0"), ("analysis", "change")]);
    assert!(gst::meta::CustomMeta::from_buffer(&off[0], ANALYSIS).is_err());
}

#[test]
fn analysis_can_be_switched_while_playing() {
    let info = info(VideoFormat::I420, 20, 10);
    let element = sr("sr-random", &[("scale", "2"), ("self-ensemble", "2")]);
    let mut h = harness(&element);
    h.set_src_caps(info.to_caps().unwrap());
    let mut attached = Vec::new();
    for (t, analysis) in [(0, ""), (0, "spread"), (0, "spread"), (0, ""), (1, "")] {
        element.set_property_from_str("analysis", analysis);
        h.push(frame(&info, t)).unwrap();
        for buffer in pull_all(&mut h) {
            let meta = gst::meta::CustomMeta::from_buffer(&buffer, ANALYSIS);
            attached.push(meta.is_ok_and(|m| m.structure().has_field("spread")));
        }
    }
    assert_eq!(attached, [false, true, true, false, false]);
    // Equal frames are computed again only to learn the spread.
    assert_eq!(
        (stat(&element, "enhanced"), stat(&element, "reused")),
        (3, 2)
    );
}

/// Starts the element and returns the one error that it must post.
fn start_error(properties: &[(&str, &str)]) -> String {
    let element = element("nnsr", properties);
    let bus = with_bus(&element);
    assert!(element.set_state(gst::State::Paused).is_err());
    element.set_state(gst::State::Null).unwrap();
    the_error(&bus)
}

#[test]
fn wrong_bundles_are_one_clear_error() {
    within(|| {
        let codec = format!("{}/models/realtime", env!("CARGO_MANIFEST_DIR"));
        let random = fixture("sr-random");
        for (properties, expected) in [
            (&[("model", "no-such-model")][..], "no-such-model"),
            (&[("model", "realtime")], "of kind \"codec\""),
            (&[("model-path", &codec)], "of kind \"codec\""),
            (&[("model-path", "/no/such/folder")], "/no/such/folder"),
            (&[("model-path", &random), ("scale", "4")], "for scale 4"),
            (
                &[("model-path", &random), ("execution-provider", "tensorrt")],
                "tensorrt",
            ),
        ] {
            if expected == "tensorrt"
                && nnv_nn::Provider::COMPILED.contains(&nnv_nn::Provider::TensorRt)
            {
                continue;
            }
            let error = start_error(properties);
            assert!(error.contains(expected), "{error}");
        }
        // The other way round.
        let encoder = element("nnvenc", &[("model-path", &random)]);
        let bus = with_bus(&encoder);
        assert!(encoder.set_state(gst::State::Paused).is_err());
        encoder.set_state(gst::State::Null).unwrap();
        let error = the_error(&bus);
        assert!(error.contains("of kind \"sr\""), "{error}");
    });
}

/// Without `model`, the built-in bundles decide; without those, an error says what to do.
#[test]
fn the_default_model_is_found_or_explained() {
    within(|| {
        let built_in = nnv_nn::embedded_sr();
        let has = |names: &[&str], scale: usize| {
            built_in
                .iter()
                .any(|b| names.contains(&b.name) && b.scales.contains(&scale))
        };
        for scale in 1..=4 {
            let names: &[&str] = match scale {
                1 => &["repair"],
                _ => &["balanced", "quality", "fast", "compressed"],
            };
            let text = scale.to_string();
            if has(names, scale) {
                let element = element("nnsr", &[("scale", &*text)]);
                element.set_state(gst::State::Paused).unwrap();
                element.set_state(gst::State::Null).unwrap();
            } else {
                let error = start_error(&[("scale", &*text)]);
                assert!(error.contains(names[0]), "{error}");
            }
        }
    });
}

/// Run by the next test in a process of its own, because a process loads ONNX Runtime once.
#[test]
#[ignore = "a part of missing_runtime_is_one_clear_error"]
fn missing_runtime_child() {
    let error = start_error(&[("model-path", &fixture("sr-exact"))]);
    println!("child saw: {error}");
}

#[test]
fn missing_runtime_is_one_clear_error() {
    within(|| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "nnsr::missing_runtime_child",
                "--ignored",
                "--nocapture",
            ])
            .env("NNV_ORT_LIBRARY", "/no/such/libonnxruntime.so")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        assert!(
            text.contains("child saw: ONNX Runtime cannot be used")
                && text.contains("/no/such/libonnxruntime.so"),
            "{text}"
        );
    });
}

#[test]
fn unusable_input_is_one_clear_error() {
    within(|| {
        let interlaced = play(&launch(&format!(
            "videotestsrc num-buffers=2 ! video/x-raw,format=I420,width=64,height=64 ! capssetter \
             caps=video/x-raw,interlace-mode=interleaved ! nnsr model-path={} ! fakesink",
            fixture("sr-exact")
        )));
        let error = &interlaced.errors[0];
        assert!(
            error.contains("interleaved") && error.contains("deinterlace"),
            "{error}"
        );
        let wrong = gst::parse::launch("videotestsrc ! video/x-raw,format=BGRx ! nnsr ! fakesink");
        let error = wrong.expect_err("BGRx is not taken").to_string();
        assert!(error.contains("can't handle caps"), "{error}");

        let info = i420(32, 24);
        for size in [0, 100] {
            let element = sr("sr-exact", &[("scale", "2")]);
            let bus = with_bus(&element);
            let mut h = harness(&element);
            h.set_src_caps(info.to_caps().unwrap());
            let short = gst::Buffer::with_size(size).unwrap();
            assert_eq!(h.push(short), Err(gst::FlowError::Error));
            let error = the_error(&bus);
            assert!(
                error.contains(&format!("{size} bytes is no picture")),
                "{error}"
            );
        }
    });
}

#[test]
fn the_provider_is_shown_while_it_runs() {
    within(|| {
        let info = i420(32, 24);
        let element = sr("sr-exact", &[("execution-provider", "cpu")]);
        let provider = || element.property::<Option<String>>("active-execution-provider");
        assert_eq!(provider(), None);
        let mut h = harness(&element);
        h.set_src_caps(info.to_caps().unwrap());
        h.push(frame(&info, 0)).unwrap();
        assert_eq!(provider().as_deref(), Some("cpu"));
        element.set_state(gst::State::Null).unwrap();
        assert_eq!(provider(), None);
    });
}

/// 8192×8192 by 4 in 10 bits takes 6 GiB and minutes.
#[test]
#[ignore = "takes gigabytes and minutes; run on demand"]
fn the_largest_pictures() {
    within(|| {
        for (format, scale) in [(VideoFormat::Gray8, "2"), (VideoFormat::I420, "4")] {
            let info = info(format, 8192, 8192);
            let mut h = started("sr-exact", &info, &[("scale", scale)]);
            h.push(frame(&info, 0)).unwrap();
            let side = 8192 * scale.parse::<u32>().unwrap();
            assert_eq!(
                h.pull().unwrap().size(),
                self::info(format, side, side).size()
            );
        }
    });
}

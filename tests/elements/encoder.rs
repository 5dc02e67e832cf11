// SPDX-License-Identifier: MPL-2.0
//! `nnvenc`: formats, sizes, times, events, caps, rates.

use gst::prelude::*;
use gst_video::{DownstreamForceKeyUnitEvent, UpstreamForceKeyUnitEvent, VideoFormat};

use crate::util::*;

fn keys(units: &[gst::Buffer]) -> Vec<gst::ClockTime> {
    units
        .iter()
        .filter(|u| is_key(u))
        .map(|u| u.pts().expect("frames have times"))
        .collect()
}

/// Presentation times, with the shift that keeps decoding times positive taken off.
fn pts(h: &gst_check::Harness, units: &[gst::Buffer]) -> Vec<gst::ClockTime> {
    let segment = h
        .element()
        .unwrap()
        .static_pad("src")
        .unwrap()
        .sticky_event::<gst::event::Segment>(0)
        .expect("a segment comes before data");
    let segment = segment
        .segment()
        .downcast_ref::<gst::ClockTime>()
        .expect("times")
        .clone();
    units
        .iter()
        .map(|u| {
            segment
                .to_running_time(u.pts().unwrap())
                .expect("inside the segment")
        })
        .collect()
}

#[test]
fn all_formats_and_odd_sizes_go_in() {
    within(|| {
        let sizes = [(16, 16), (17, 19), (66, 34), (131, 16)];
        for format in [
            VideoFormat::I420,
            VideoFormat::Nv12,
            VideoFormat::I42010le,
            VideoFormat::P01010le,
        ] {
            for (w, h) in sizes {
                let info = info(format, w, h);
                let units = encode(&info, 2, &[("quantizer", "40")]);
                assert_eq!(units.len(), 2, "{format:?} {w}x{h}");
                assert!(is_key(&units[0]) && !is_key(&units[1]));
            }
        }
    });
}

#[test]
fn layouts_of_one_picture_give_one_stream() {
    within(|| {
        // Only the format changes: planar or interleaved chroma, packed or padded rows.
        for (a, b) in [
            (VideoFormat::I420, VideoFormat::Nv12),
            (VideoFormat::I42010le, VideoFormat::P01010le),
        ] {
            let (a, b) = (info(a, 50, 38), info(b, 50, 38));
            let expected = join(&encode(&a, 3, &[]));
            assert_eq!(join(&encode(&b, 3, &[])), expected);
            for info in [&a, &b] {
                let mut h = encoder(info, &[]);
                for t in 0..3 {
                    h.push(buffer(info, t, 48)).unwrap();
                }
                h.push_event(gst::event::Eos::new());
                assert_eq!(join(&pull_all(&mut h)), expected, "{:?}", info.format());
            }
        }
    });
}

#[test]
fn very_wide_and_very_high_pictures_go_in() {
    within(|| {
        for (w, h) in [(8192, 16), (16, 8192)] {
            let units = encode(&i420(w, h), 2, &[("quantizer", "50")]);
            assert_eq!(units.len(), 2);
        }
    });
}

#[test]
#[ignore = "takes 5 GB of memory and a minute"]
fn the_largest_pictures_go_in_and_come_back() {
    within(|| {
        let info = i420(8192, 8192);
        let units = encode(&info, 1, &[("quantizer", "40"), ("frame-checksum", "true")]);
        let file = TempFile::with("large.nnv", &join(&units));
        let outcome = decode(file.path(), "conceal=false").sound();
        assert_eq!(outcome.shown[0].size, (8192, 8192));
    });
}

#[test]
fn low_delay_has_no_latency_and_plain_times() {
    within(|| {
        let info = i420(64, 48);
        let mut h = encoder(&info, &[]);
        for t in 0..6 {
            h.push(buffer(&info, t, 0)).unwrap();
            let unit = h.pull().expect("each frame leaves at once");
            assert_eq!(unit.pts(), Some(ms(40 * u64::from(t))));
            assert_eq!(unit.dts(), unit.pts());
            assert_eq!(unit.duration(), Some(ms(40)));
            assert_eq!(is_key(&unit), t == 0);
        }
        assert_eq!(h.query_latency(), Some(gst::ClockTime::ZERO));
    });
}

#[test]
fn reordered_frames_have_sound_times_and_the_latency_is_told() {
    within(|| {
        for (bframes, lookahead) in [(1, 0), (2, 4), (3, 1), (7, 4), (7, 0)] {
            let info = i420(48, 32);
            let mut h = encoder(
                &info,
                &[
                    ("bframes", &bframes.to_string()),
                    ("lookahead", &lookahead.to_string()),
                ],
            );
            let mut waiting = 0;
            for t in 0..20 {
                h.push(buffer(&info, t, 0)).unwrap();
                let out = h.buffers_in_queue();
                waiting = waiting.max(t + 1 - out);
            }
            // The frame that comes in has arrived when it ends: those before it have waited.
            let latency = ms(40 * (bframes + lookahead) as u64);
            assert_eq!(h.query_latency(), Some(latency), "bframes {bframes}");
            assert!(waiting <= bframes + lookahead, "{waiting} frames wait");
            h.push_event(gst::event::Eos::new());
            let units = pull_all(&mut h);
            assert_eq!(units.len(), 20);
            let mut dts = gst::ClockTime::ZERO;
            for (i, unit) in units.iter().enumerate() {
                assert!(unit.dts() <= unit.pts(), "unit {i}");
                assert!(
                    i == 0 || unit.dts() > Some(dts),
                    "unit {i}: {:?} {dts}",
                    unit.dts()
                );
                dts = unit.dts().unwrap();
            }
            let mut shown = pts(&h, &units);
            assert_ne!(shown, (0..20).map(|t| ms(40 * t)).collect::<Vec<_>>());
            shown.sort();
            assert_eq!(shown, (0..20).map(|t| ms(40 * t)).collect::<Vec<_>>());
            assert!(units.iter().all(|u| u.duration() == Some(ms(40))));
        }
    });
}

#[test]
fn zero_latency_overrides_reordering() {
    within(|| {
        let info = i420(48, 32);
        let mut h = encoder(&info, &[("bframes", "7"), ("tune", "zerolatency")]);
        for t in 0..4 {
            h.push(buffer(&info, t, 0)).unwrap();
            assert_eq!(h.buffers_in_queue(), t + 1);
        }
        assert_eq!(h.query_latency(), Some(gst::ClockTime::ZERO));
    });
}

#[test]
fn irregular_times_and_unknown_rates_are_kept() {
    within(|| {
        for (bframes, rate) in [("0", 0), ("3", 0), ("3", 25)] {
            let info = gst_video::VideoInfo::builder(VideoFormat::I420, 48, 32)
                .fps(gst::Fraction::new(rate, 1))
                .build()
                .unwrap();
            let mut h = encoder(&info, &[("bframes", bframes)]);
            let times: Vec<_> = [0u64, 33, 50, 51, 120, 600, 607, 700, 701].map(ms).into();
            for (t, pts) in times.iter().enumerate() {
                let mut b = buffer(&i420(48, 32), t as u32, 0);
                let m = b.get_mut().unwrap();
                m.set_pts(*pts);
                m.set_duration(None::<gst::ClockTime>);
                h.push(b).unwrap();
            }
            h.push_event(gst::event::Eos::new());
            let units = pull_all(&mut h);
            assert!(units.iter().all(|u| u.dts() <= u.pts()));
            assert!(units.windows(2).all(|u| u[0].dts() <= u[1].dts()));
            let mut shown = pts(&h, &units);
            shown.sort();
            assert_eq!(shown, times, "bframes {bframes}, {rate}");
        }
    });
}

#[test]
fn caps_say_all_there_is_to_know() {
    within(|| {
        let hdr = "video/x-raw, format=P010_10LE, width=64, height=48, framerate=30000/1001, \
                   pixel-aspect-ratio=4/3, colorimetry=bt2100-pq, \
                   mastering-display-info=(string)35400:14600:8500:39850:6550\
                   :2300:15635:16450:10000000:50, \
                   content-light-level=(string)1000:400";
        let caps: gst::Caps = hdr.parse().unwrap();
        let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
        let mut h =
            gst_check::Harness::with_element(&element("nnvenc", &[]), Some("sink"), Some("src"));
        h.set_src_caps(caps.clone());
        h.push(buffer(&info, 0, 0)).unwrap();
        let unit = h.pull().unwrap();
        let out = h.sinkpad().unwrap().current_caps().unwrap();
        let s = out.structure(0).unwrap();
        assert_eq!(s.name(), "video/x-nnv");
        assert_eq!(s.get::<&str>("stream-format").unwrap(), "byte-stream");
        assert_eq!(s.get::<&str>("alignment").unwrap(), "au");
        assert!(s.get::<bool>("parsed").unwrap());
        assert_eq!(s.get::<i32>("width").unwrap(), 64);
        assert_eq!(s.get::<i32>("height").unwrap(), 48);
        assert_eq!(
            s.get::<gst::Fraction>("framerate").unwrap(),
            gst::Fraction::new(30000, 1001)
        );
        assert_eq!(
            s.get::<gst::Fraction>("pixel-aspect-ratio").unwrap(),
            gst::Fraction::new(4, 3)
        );
        assert_eq!(s.get::<&str>("colorimetry").unwrap(), "bt2100-pq");
        assert_eq!(s.get::<&str>("chroma-format").unwrap(), "4:2:0");
        assert_eq!(s.get::<u32>("bit-depth-luma").unwrap(), 10);
        assert_eq!(s.get::<&str>("profile").unwrap(), "main");
        let from = caps.structure(0).unwrap();
        for field in ["mastering-display-info", "content-light-level"] {
            assert_eq!(
                s.get::<&str>(field).unwrap(),
                from.get::<&str>(field).unwrap()
            );
        }
        // The header in the caps is the one before the key frame.
        let header = s.get::<gst::ArrayRef>("streamheader").unwrap();
        let header = bytes(&header.as_slice()[0].get::<gst::Buffer>().unwrap());
        assert!(header.len() > 40 && bytes(&unit).starts_with(&header));
    });
}

#[test]
fn key_frames_are_forced_from_both_sides() {
    within(|| {
        // With a lookahead of four frames nothing has left yet at the time of the first request: it
        // is honoured after that.
        for (bframes, first) in [("0", 120), ("3", 200)] {
            let info = i420(48, 32);
            let mut h = encoder(&info, &[("bframes", bframes)]);
            for t in 0..12 {
                if t == 3 {
                    let event = UpstreamForceKeyUnitEvent::builder()
                        .all_headers(true)
                        .build();
                    assert!(h.push_upstream_event(event));
                }
                if t == 9 {
                    let event = DownstreamForceKeyUnitEvent::builder()
                        .timestamp(ms(360))
                        .stream_time(ms(360))
                        .running_time(ms(360))
                        .all_headers(true)
                        .count(3)
                        .build();
                    assert!(h.push_event(event));
                }
                h.push(buffer(&info, t, 0)).unwrap();
            }
            h.push_event(gst::event::Eos::new());
            let units = pull_all(&mut h);
            assert_eq!(units.len(), 12);
            let forced: Vec<_> = units.iter().filter(|u| is_key(u)).cloned().collect();
            assert_eq!(
                pts(&h, &forced),
                [0, first, 360].map(ms),
                "bframes {bframes}"
            );
            // Downstream hears of each.
            let mut told = 0;
            while let Ok(event) = h.try_pull_event().ok_or(()) {
                if DownstreamForceKeyUnitEvent::parse(&event).is_ok() {
                    told += 1;
                }
            }
            assert_eq!(told, 2);
        }
    });
}

#[test]
fn key_int_max_is_kept() {
    within(|| {
        let info = i420(48, 32);
        for bframes in ["0", "3"] {
            let units = encode(&info, 13, &[("key-int-max", "5"), ("bframes", bframes)]);
            assert_eq!(keys(&units).len(), 3);
        }
        let units = encode(&info, 4, &[("key-int-max", "1")]);
        assert_eq!(keys(&units).len(), 4);
    });
}

#[test]
fn a_change_of_caps_drains_and_starts_anew() {
    within(|| {
        let (a, b) = (i420(64, 48), info(VideoFormat::I42010le, 50, 30));
        let mut h = encoder(&a, &[("bframes", "3")]);
        for t in 0..3 {
            h.push(buffer(&a, t, 0)).unwrap();
        }
        h.set_src_caps(b.to_caps().unwrap());
        for t in 3..6 {
            h.push(buffer(&b, t, 0)).unwrap();
        }
        h.push_event(gst::event::Eos::new());
        let units = pull_all(&mut h);
        assert_eq!(units.len(), 6);
        let headers: Vec<_> = units.iter().filter(|u| is_key(u)).cloned().collect();
        assert_eq!(pts(&h, &headers), [0, 120].map(ms));
        let caps = h.sinkpad().unwrap().current_caps().unwrap();
        let s = caps.structure(0).unwrap();
        assert_eq!(
            (s.get::<i32>("width"), s.get::<i32>("height")),
            (Ok(50), Ok(30))
        );
        assert_eq!(s.get::<&str>("profile"), Ok("main"));
    });
}

#[test]
fn a_flush_drops_what_waits_and_the_next_frame_is_a_key_frame() {
    within(|| {
        let info = i420(48, 32);
        let mut h = encoder(&info, &[("bframes", "3")]);
        for t in 0..3 {
            h.push(buffer(&info, t, 0)).unwrap();
        }
        pull_all(&mut h);
        assert!(h.push_event(gst::event::FlushStart::new()));
        assert!(h.push_event(gst::event::FlushStop::new(true)));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(h.push_event(gst::event::Segment::new(&segment)));
        for t in 10..15 {
            h.push(buffer(&info, t, 0)).unwrap();
        }
        h.push_event(gst::event::Eos::new());
        let units = pull_all(&mut h);
        assert_eq!(units.len(), 5);
        assert!(is_key(&units[0]));
        let mut shown = pts(&h, &units);
        shown.sort();
        assert_eq!(shown, (10..15).map(|t| ms(40 * t)).collect::<Vec<_>>());
    });
}

#[test]
fn tags_name_codec_encoder_and_rate() {
    within(|| {
        let outcome = play(&launch(
            "videotestsrc num-buffers=3 ! video/x-raw,format=I420,width=64,height=48 ! \
             nnvenc rate-control=vbr bitrate=300 max-bitrate=600 ! fakesink",
        ))
        .sound();
        let tags = outcome.tags.expect("tags are posted");
        let get = |tag: &str| tags.generic(tag).map(|v| format!("{:?}", v.to_value()));
        assert!(get("video-codec").unwrap().contains("NNV"));
        assert!(get("encoder").unwrap().contains("realtime"));
        assert_eq!(
            tags.get::<gst::tags::NominalBitrate>().unwrap().get(),
            300_000
        );
        assert_eq!(
            tags.get::<gst::tags::MaximumBitrate>().unwrap().get(),
            600_000
        );
    });
}

#[test]
fn the_tune_picks_the_bundle_unless_one_is_named() {
    within(|| {
        for (options, bundle) in [
            ("tune=psnr", "realtime"),
            ("tune=visual", "visual"),
            ("tune=zerolatency", "realtime"),
            ("tune=visual model=realtime", "realtime"),
        ] {
            // Checksums make the decoder compare each picture with the encoder's.
            let outcome = play(&launch(&format!(
                "videotestsrc num-buffers=10 ! video/x-raw,format=I420,width=96,height=80 ! \
                 nnvenc bframes=3 frame-checksum=true {options} ! nnvparse ! nnvdec \
                 conceal=false ! fakesink",
            )))
            .sound();
            let tags = outcome.tags.expect("tags are posted");
            let encoder = tags
                .generic("encoder")
                .map(|v| format!("{:?}", v.to_value()));
            assert!(encoder.unwrap().contains(bundle), "{options}");
        }
    });
}

#[test]
fn bitrate_follows_while_playing() {
    within(|| {
        let info = i420(96, 64);
        let mut h = encoder(&info, &[("rate-control", "cbr"), ("bitrate", "60")]);
        let mut sizes = Vec::new();
        // Noise on top, so that there is something to spend bits on.
        let noisy = |t: u32| {
            let mut b = buffer(&info, t, 0);
            let m = b.get_mut().unwrap();
            let mut seed = t.wrapping_mul(2_654_435_761).max(1);
            for byte in m.map_writable().unwrap().iter_mut() {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = byte.wrapping_add((seed >> 28) as u8);
            }
            b
        };
        for t in 0..60 {
            if t == 30 {
                h.element().unwrap().set_property("bitrate", 1200u32);
            }
            h.push(noisy(t)).unwrap();
            sizes.push(h.pull().unwrap().size());
        }
        let sum = |r: std::ops::Range<usize>| sizes[r].iter().sum::<usize>();
        assert!(sum(45..60) > 2 * sum(15..30), "{sizes:?}");
        assert_eq!(h.element().unwrap().property::<u32>("bitrate"), 1200);
    });
}

#[test]
fn statistics_count_and_the_provider_is_named() {
    within(|| {
        let info = i420(64, 48);
        let mut h = encoder(&info, &[("quantizer", "30"), ("execution-provider", "cpu")]);
        for t in 0..4 {
            h.push(buffer(&info, t, 0)).unwrap();
        }
        // The same picture again costs next to nothing and counts as repeated.
        let mut again = buffer(&info, 3, 0);
        again.get_mut().unwrap().set_pts(ms(160));
        h.push(again).unwrap();
        let units = pull_all(&mut h);
        assert!(
            units[4].size() < 64,
            "{} bytes for a repeat",
            units[4].size()
        );
        let enc = h.element().unwrap();
        let stats = enc.property::<gst::Structure>("stats");
        assert_eq!(stats.get::<u64>("frames"), Ok(5));
        assert_eq!(stats.get::<u64>("key-frames"), Ok(1));
        assert_eq!(stats.get::<u64>("repeated-frames"), Ok(1));
        assert_eq!(stats.get::<u64>("bytes"), Ok(join(&units).len() as u64));
        for field in [
            "average-quantizer",
            "bits-per-pixel",
            "fps",
            "entropy-ms",
            "synth-ms",
        ] {
            assert!(stats.get::<f64>(field).unwrap() > 0.0, "{field}: {stats}");
        }
        assert_eq!(enc.property::<String>("active-execution-provider"), "cpu");
    });
}

#[test]
fn starts_and_stops_twenty_times() {
    within(|| {
        let pipeline = launch(
            "videotestsrc is-live=false ! video/x-raw,format=I420,width=64,height=48 ! \
             nnvenc bframes=3 ! nnvparse ! nnvdec ! fakesink sync=false",
        );
        for round in 0..20 {
            pipeline.set_state(gst::State::Playing).unwrap();
            let (result, state, _) = pipeline.state(gst::ClockTime::from_seconds(60));
            assert!(
                result.is_ok() && state == gst::State::Playing,
                "round {round}"
            );
            pipeline.set_state(gst::State::Null).unwrap();
        }
    });
}

#[test]
fn several_at_once_give_the_same_stream() {
    within(|| {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| join(&encode(&i420(64, 48), 10, &[("bframes", "3")]))))
            .collect();
        let streams: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(streams.iter().all(|s| *s == streams[0] && !s.is_empty()));
    });
}

#[test]
fn batch_and_threads_do_not_change_the_stream() {
    within(|| {
        let info = i420(80, 48);
        let stream = |batch: &str, threads: &str| {
            let p = [
                ("bframes", "7"),
                ("batch-size", batch),
                ("threads", threads),
            ];
            join(&encode(&info, 9, &p))
        };
        let one = stream("1", "1");
        assert!(
            one == stream("4", "2"),
            "the stream depends on batch or threads"
        );
    });
}

/// A frame of noise over a texture that is new every `scene` frames: `t` is counted in frames, the
/// times are the caller's.
fn noisy(info: &gst_video::VideoInfo, t: u32, scene: u32) -> gst::Buffer {
    let mut picture = picture(info.width(), info.height(), t % 40);
    let mut seed = t.wrapping_mul(2_654_435_761).max(1);
    let mut next = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 24
    };
    let new = (t / scene).wrapping_mul(40_503);
    let luma = &mut picture.planes_mut()[0];
    let (w, h) = (luma.visible_width(), luma.visible_height());
    for y in 0..h {
        for x in 0..w {
            let texture = ((x / 5 + y / 7 * 13) as u32 ^ new).wrapping_mul(2_246_822_519) >> 23;
            luma.row_mut(y)[x] = (160 + texture + next() / 4) as u16;
        }
    }
    picture.pad();
    let plain = gst_video::VideoInfo::builder(info.format(), info.width(), info.height());
    let mut b = buffer_of(&plain.build().unwrap(), &picture, t, 0);
    let m = b.get_mut().unwrap();
    m.set_pts(None::<gst::ClockTime>);
    m.set_duration(None::<gst::ClockTime>);
    b
}

/// Encodes `count` noisy frames that come every `interval`; returns bytes of each.
fn sizes(
    h: &mut gst_check::Harness,
    info: &gst_video::VideoInfo,
    frames: std::ops::Range<u32>,
    interval: gst::ClockTime,
    scene: u32,
) -> Vec<usize> {
    let mut sizes = Vec::new();
    for t in frames {
        let mut b = noisy(info, t, scene);
        b.get_mut().unwrap().set_pts(interval * u64::from(t));
        h.push(b).unwrap();
        sizes.extend(pull_all(h).iter().map(|b| b.size()));
    }
    sizes
}

/// kbit/s of frames that come every `interval`.
fn kbits(sizes: &[usize], interval: gst::ClockTime) -> f64 {
    let seconds = interval.mseconds() as f64 / 1000.0 * sizes.len() as f64;
    sizes.iter().sum::<usize>() as f64 * 8.0 / 1000.0 / seconds
}

fn caps_info(caps: &str) -> gst_video::VideoInfo {
    let caps = format!("video/x-raw,format=I420,width=96,height=64,{caps}");
    gst_video::VideoInfo::from_caps(&caps.parse::<gst::Caps>().unwrap()).unwrap()
}

#[test]
fn rates_are_those_of_real_time() {
    within(|| {
        // A webcam in low light; a variable rate with an upper limit; a rate that means ticks.
        for (caps, told) in [
            ("framerate=30/1", (30, 1)),
            ("framerate=0/1,max-framerate=60/1", (0, 1)),
            ("framerate=0/1", (0, 1)),
            ("framerate=1000/1", (1000, 1)),
        ] {
            for mode in ["vbr", "cbr"] {
                let info = caps_info(caps);
                let p = [
                    ("rate-control", mode),
                    ("bitrate", "80"),
                    ("speed-preset", "fast"),
                ];
                let mut h = encoder(&info, &p);
                let sizes = sizes(&mut h, &info, 0..75, ms(133), 1000);
                let got = kbits(&sizes, ms(133));
                assert!((got / 80.0 - 1.0).abs() < 0.03, "{caps} {mode}: {got}");
                let caps = h.sinkpad().unwrap().current_caps().unwrap();
                let rate = caps.structure(0).unwrap().get::<gst::Fraction>("framerate");
                assert_eq!(rate, Ok(gst::Fraction::new(told.0, told.1)));
            }
        }
    });
}

#[test]
fn many_key_frames_keep_the_mean_rate() {
    within(|| {
        for scene in [2, 4, 30] {
            for (mode, worst) in [("vbr", 1.5), ("cbr", 1.26)] {
                let info = caps_info("framerate=15/1");
                let p = [
                    ("rate-control", mode),
                    ("bitrate", "80"),
                    ("speed-preset", "fast"),
                ];
                let mut h = encoder(&info, &p);
                let interval = gst::ClockTime::from_nseconds(66_666_667);
                let sizes = sizes(&mut h, &info, 0..150, interval, scene);
                let got = kbits(&sizes, ms(66)) * 66.0 / 66.667;
                assert!((got / 80.0 - 1.0).abs() < 0.03, "{mode} {scene}: {got}");
                let second = |w: &[usize]| w.iter().sum::<usize>() as f64 * 8.0 / 80_000.0;
                let most = sizes.windows(15).map(second).fold(0.0, f64::max);
                assert!(most <= worst, "{mode} {scene}: {most} {sizes:?}");
                // The decoder's buffer of a second, nine tenths full at the start.
                let mut held = 0.9 * 80_000.0;
                for size in sizes.iter().filter(|_| mode == "cbr") {
                    held = f64::min(held + 80_000.0 / 15.0, 80_000.0) - 8.0 * *size as f64;
                    assert!(held >= 0.0, "{mode} {scene}: {held}");
                }
            }
        }
    });
}

#[test]
fn a_step_of_the_rate_is_met_within_half_a_second() {
    within(|| {
        for mode in ["vbr", "cbr"] {
            for (from, to) in [(60u32, 200u32), (200, 60)] {
                let info = caps_info("framerate=30/1");
                let from = from.to_string();
                let p = [
                    ("rate-control", mode),
                    ("bitrate", &from),
                    ("speed-preset", "fast"),
                ];
                let mut h = encoder(&info, &p);
                let interval = gst::ClockTime::from_nseconds(33_333_333);
                sizes(&mut h, &info, 0..60, interval, 1000);
                h.element().unwrap().set_property("bitrate", to);
                let after = sizes(&mut h, &info, 60..105, interval, 1000);
                let got = kbits(&after[15..], ms(33)) * 33.0 / 33.333;
                assert!(
                    (got / f64::from(to) - 1.0).abs() < 0.12,
                    "{mode} {from} {to}: {got}"
                );
            }
        }
    });
}

#[test]
fn a_rate_that_cannot_be_reached_is_told_once() {
    within(|| {
        let warnings = |properties: &str| {
            let pipeline = launch(&format!(
                "videotestsrc num-buffers=75 pattern=snow ! video/x-raw,format=I420,width=128,\
                 height=96,framerate=25/1 ! nnvenc speed-preset=ultrafast {properties} ! fakesink"
            ));
            let run = play(&pipeline);
            assert_eq!(run.errors, [""; 0]);
            run.warnings
        };
        for (properties, words) in [
            (
                "bitrate=2",
                ["bitrate=2 cannot", "at quantizer 63", "larger"],
            ),
            (
                "rate-control=cbr bitrate=2",
                ["bitrate=2 cannot", "at quantizer 63", "stand still"],
            ),
            (
                "bitrate=20 max-quantizer=20",
                [
                    "bitrate=20 cannot",
                    "at quantizer 20",
                    "Raise max-quantizer",
                ],
            ),
        ] {
            let told = warnings(properties);
            assert_eq!(told.len(), 1, "{properties}: {told:?}");
            for word in words {
                assert!(told[0].contains(word), "{properties}: {told:?}");
            }
        }
        assert_eq!(warnings("bitrate=4000"), [""; 0]);
    });
}

#[test]
fn a_bitrate_alone_is_obeyed() {
    within(|| {
        type Case = (&'static [(&'static str, &'static str)], &'static str, bool);
        let cases: [Case; 7] = [
            (&[], "cq", false),
            (&[("bitrate", "300")], "vbr", false),
            (&[("quantizer", "30")], "cq", false),
            (&[("bitrate", "300"), ("quantizer", "30")], "vbr", true),
            (&[("bitrate", "300"), ("rate-control", "cq")], "cq", false),
            (&[("bitrate", "300"), ("rate-control", "cbr")], "cbr", false),
            (
                &[
                    ("quantizer", "30"),
                    ("bitrate", "300"),
                    ("rate-control", "vbr"),
                ],
                "vbr",
                false,
            ),
        ];
        for (properties, mode, warned) in cases {
            let set: Vec<String> = properties.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let pipeline = launch(&format!(
                "videotestsrc num-buffers=2 ! video/x-raw,format=I420,width=64,height=48 ! \
                 nnvenc name=e {} ! fakesink",
                set.join(" ")
            ));
            let e = pipeline
                .clone()
                .downcast::<gst::Bin>()
                .unwrap()
                .by_name("e")
                .unwrap();
            let value = e.property_value("rate-control");
            let (_, value) = gst::glib::EnumValue::from_value(&value).unwrap();
            assert_eq!(value.nick(), mode, "{set:?}");
            let outcome = play(&pipeline);
            assert!(outcome.errors.is_empty() && outcome.eos);
            assert_eq!(
                outcome.warnings.len(),
                usize::from(warned),
                "{:?}",
                outcome.warnings
            );
            assert!(
                outcome
                    .warnings
                    .iter()
                    .all(|w| w.contains("bitrate=300 rules"))
            );
            let nominal = outcome
                .tags
                .unwrap()
                .get::<gst::tags::NominalBitrate>()
                .is_some();
            assert_eq!(nominal, mode != "cq", "{set:?}");
        }
    });
}

#[test]
fn quantizer_and_buffer_follow_while_playing() {
    within(|| {
        let info = caps_info("framerate=30/1");
        let mut h = encoder(&info, &[("quantizer", "20"), ("speed-preset", "fast")]);
        let before = sizes(&mut h, &info, 0..8, ms(33), 1000);
        h.element().unwrap().set_property("quantizer", 50u32);
        let after = sizes(&mut h, &info, 8..16, ms(33), 1000);
        let sum = |s: &[usize]| s.iter().sum::<usize>();
        assert!(3 * sum(&after) < sum(&before[1..]), "{before:?} {after:?}");

        let p = [
            ("rate-control", "cbr"),
            ("bitrate", "100"),
            ("speed-preset", "fast"),
        ];
        let mut h = encoder(&info, &p);
        sizes(&mut h, &info, 0..30, ms(33), 1000);
        h.element()
            .unwrap()
            .set_property("vbv-buf-capacity", 100u32);
        // A new scene has to fit into the tenth of a second that the buffer holds now.
        let key = sizes(&mut h, &info, 30..60, ms(33), 35);
        assert!(key.iter().all(|s| 8 * s <= 10_000), "{key:?}");
    });
}

#[test]
fn surfaces_may_be_larger_than_the_caps_say() {
    within(|| {
        let (small, large) = (i420(60, 50), i420(64, 64));
        let mut h = encoder(&small, &[]);
        for t in 0..3 {
            // The caps' part of an aligned surface; the rest must not matter.
            let mut surface = picture(64, 64, t);
            let shown = picture(60, 50, t);
            for (to, from) in surface.planes_mut().iter_mut().zip(shown.planes()) {
                for y in 0..from.visible_height() {
                    let row = &from.row(y)[..from.visible_width()];
                    to.row_mut(y)[..row.len()].copy_from_slice(row);
                }
            }
            let mut b = buffer_of(&large, &surface, t, 0);
            gst_video::VideoMeta::add(
                b.get_mut().unwrap(),
                gst_video::VideoFrameFlags::empty(),
                VideoFormat::I420,
                64,
                64,
            )
            .unwrap();
            h.push(b).unwrap();
        }
        assert_eq!(join(&pull_all(&mut h)), join(&encode(&small, 3, &[])));
    });
}

#[test]
fn interlaced_video_is_refused_once() {
    within(|| {
        let pipeline = launch(
            "videotestsrc num-buffers=5 ! video/x-raw,format=I420,width=64,height=64 ! \
             capssetter caps=video/x-raw,interlace-mode=interleaved ! nnvenc name=e ! fakesink",
        );
        pipeline.set_state(gst::State::Playing).unwrap();
        let bus = pipeline.bus().unwrap();
        let mut errors = Vec::new();
        let wait = gst::ClockTime::from_seconds(3);
        while let Some(m) = bus.timed_pop_filtered(wait, &[gst::MessageType::Error]) {
            if m.src().is_some_and(|s| s.name() == "e")
                && let gst::MessageView::Error(e) = m.view()
            {
                errors.push(e.error().to_string());
            }
        }
        pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("deinterlace"), "{errors:?}");
    });
}

#[test]
fn caps_without_frames_cost_nothing() {
    within(|| {
        // As videorate does: the new format, one frame of the old one, the new one again.
        let (a, b) = (i420(64, 48), i420(48, 32));
        for bframes in ["0", "3"] {
            let mut h = encoder(&a, &[("bframes", bframes)]);
            for t in 0..3 {
                h.push(buffer(&a, t, 0)).unwrap();
            }
            h.set_src_caps(b.to_caps().unwrap());
            h.set_src_caps(a.to_caps().unwrap());
            h.push(buffer(&a, 3, 0)).unwrap();
            h.set_src_caps(b.to_caps().unwrap());
            for t in 4..6 {
                h.push(buffer(&b, t, 0)).unwrap();
            }
            h.push_event(gst::event::Eos::new());
            let units = pull_all(&mut h);
            assert_eq!(units.len(), 6);
            let forced: Vec<_> = units.iter().filter(|u| is_key(u)).cloned().collect();
            assert_eq!(pts(&h, &forced), [0, 160].map(ms), "bframes {bframes}");
        }
    });
}

#[test]
fn a_new_segment_goes_on_in_time() {
    within(|| {
        for bframes in ["0", "3", "7"] {
            let stream = TempFile::new("segments.nnv");
            let clip = "videotestsrc num-buffers=10 pattern=ball ! \
                        video/x-raw,format=I420,width=64,height=48,framerate=25/1";
            let pipeline = launch(&format!(
                "concat name=c ! nnvenc name=e bframes={bframes} ! tee name=t ! queue ! \
                 filesink location={} t. ! queue ! nnvparse ! nnvdec ! fakesink name=k sync=false \
                 {clip} ! c. {clip} ! c.",
                stream.path()
            ));
            let bin = pipeline.clone().downcast::<gst::Bin>().unwrap();
            let coded = running_times(&bin.by_name("e").unwrap().static_pad("src").unwrap());
            let shown = running_times(&bin.by_name("k").unwrap().static_pad("sink").unwrap());
            play(&pipeline).sound();
            let expected: Vec<i64> = (0..20).map(|t| 40_000_000 * t).collect();
            let dts: Vec<i64> = coded.lock().unwrap().iter().map(|t| t.1.unwrap()).collect();
            assert!(
                dts.windows(2).all(|d| d[0] < d[1]),
                "bframes {bframes}: {dts:?}"
            );
            let mut pts: Vec<i64> = coded.lock().unwrap().iter().map(|t| t.0.unwrap()).collect();
            assert!(pts.iter().zip(&dts).all(|(pts, dts)| dts <= pts));
            pts.sort();
            assert_eq!(pts, expected, "bframes {bframes}");
            let live: Vec<i64> = shown.lock().unwrap().iter().map(|t| t.0.unwrap()).collect();
            assert_eq!(live, expected, "bframes {bframes}");
            let file = decode(stream.path(), "").sound();
            let file: Vec<_> = file.shown.iter().map(|s| s.pts.unwrap()).collect();
            assert_eq!(file, (0..20).map(|t| ms(40 * t)).collect::<Vec<_>>());
        }
    });
}

type Times = std::sync::Arc<std::sync::Mutex<Vec<(Option<i64>, Option<i64>)>>>;

/// Running times (presentation, decoding) of the buffers that pass a pad, in ns.
fn running_times(pad: &gst::Pad) -> Times {
    let times = Times::default();
    let (seen, mut segment) = (times.clone(), None::<gst::FormattedSegment<gst::ClockTime>>);
    let segments = std::sync::Mutex::new(move |data: &gst::PadProbeData| match data {
        gst::PadProbeData::Event(event) => {
            if let gst::EventView::Segment(s) = event.view() {
                segment = s.segment().clone().downcast().ok();
            }
        }
        gst::PadProbeData::Buffer(buffer) => {
            let segment = segment.as_ref().unwrap();
            let running = |t: Option<gst::ClockTime>| match segment.to_running_time_full(t)? {
                gst::Signed::Positive(t) => Some(t.nseconds() as i64),
                gst::Signed::Negative(t) => Some(-(t.nseconds() as i64)),
            };
            let both = (running(buffer.pts()), running(buffer.dts()));
            seen.lock().unwrap().push(both);
        }
        _ => {}
    });
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(kinds, move |_, info| {
        if let Some(data) = &info.data {
            (segments.lock().unwrap())(data);
        }
        gst::PadProbeReturn::Ok
    });
    times
}

#[test]
fn rounded_times_cost_nothing() {
    within(|| {
        for (rate, mode) in [
            ((30_000, 1001), "cq"),
            ((30, 1), "cbr"),
            ((24_000, 1001), "vbr"),
        ] {
            for bframes in ["0", "3"] {
                let info = gst_video::VideoInfo::builder(VideoFormat::I420, 96, 64)
                    .fps(gst::Fraction::new(rate.0, rate.1))
                    .build()
                    .unwrap();
                let exact = |t: u64| t * 1_000_000_000 * rate.1 as u64 / rate.0 as u64;
                let frame = (exact(1000) + 500) / 1000;
                // Exact; milliseconds, as in Matroska; sums of rounded durations, as y4mdec's;
                // milliseconds that begin in the middle.
                let kinds: [&dyn Fn(u64) -> u64; 4] = [
                    &exact,
                    &|t| (exact(t) + 500_000) / 1_000_000 * 1_000_000,
                    &|t| t * frame,
                    &|t| (exact(t + 2) + 500_000) / 1_000_000 * 1_000_000,
                ];
                let streams = kinds.map(|times| {
                    let p = [
                        ("bframes", bframes),
                        ("rate-control", mode),
                        ("bitrate", "80"),
                        ("speed-preset", "fast"),
                    ];
                    let mut h = encoder(&info, &p);
                    for t in 0..24u64 {
                        let mut b = noisy(&info, t as u32, 1000);
                        let m = b.get_mut().unwrap();
                        m.set_pts(gst::ClockTime::from_nseconds(times(t)));
                        let duration = times(t + 1) - times(t);
                        m.set_duration(gst::ClockTime::from_nseconds(duration));
                        h.push(b).unwrap();
                    }
                    h.push_event(gst::event::Eos::new());
                    let units = pull_all(&mut h);
                    // What leaves has the times that came in.
                    let mut shown = pts(&h, &units);
                    shown.sort();
                    let came = (0..24).map(|t| gst::ClockTime::from_nseconds(times(t)));
                    assert_eq!(shown, came.collect::<Vec<_>>());
                    join(&units)
                });
                assert!(
                    streams.iter().all(|s| *s == streams[0]),
                    "{rate:?} {mode} {bframes}"
                );
            }
        }
    });
}

#[test]
fn constants_can_be_tuned() {
    within(|| {
        let info = i420(64, 48);
        let plain = join(&encode(&info, 6, &[]));
        // The default said aloud, then another.
        assert!(
            join(&encode(
                &info,
                6,
                &[("tuning", "key=-12:low_delay=11,7,11,0")]
            )) == plain
        );
        assert!(join(&encode(&info, 6, &[("tuning", "key=-2")])) != plain);
        let wrong = play_error("nnvenc tuning=kee=3");
        assert!(wrong.contains("tuning") && wrong.contains("kee"), "{wrong}");
    });
}

/// The error of a pipeline that cannot start.
fn play_error(encoder: &str) -> String {
    let pipeline = launch(&format!(
        "videotestsrc num-buffers=2 ! video/x-raw,format=I420,width=64,height=48 ! {encoder} ! \
         fakesink"
    ));
    assert!(pipeline.set_state(gst::State::Playing).is_err());
    let bus = pipeline.bus().unwrap();
    let message = bus
        .pop_filtered(&[gst::MessageType::Error])
        .expect("an error");
    pipeline.set_state(gst::State::Null).unwrap();
    match message.view() {
        gst::MessageView::Error(e) => e.error().to_string(),
        _ => unreachable!("only errors are popped"),
    }
}

#[test]
fn zero_latency_goes_with_any_tune() {
    within(|| {
        let info = i420(48, 32);
        let p = [
            ("bframes", "7"),
            ("tune", "visual"),
            ("zerolatency", "true"),
        ];
        let mut h = encoder(&info, &p);
        for t in 0..4 {
            h.push(buffer(&info, t, 0)).unwrap();
            assert_eq!(h.buffers_in_queue(), t + 1);
        }
        assert_eq!(h.query_latency(), Some(gst::ClockTime::ZERO));
        // It is the visual tune that codes them.
        let visual = [("tune", "visual")];
        assert!(join(&pull_all(&mut h)) == join(&encode(&info, 4, &visual)));
    });
}

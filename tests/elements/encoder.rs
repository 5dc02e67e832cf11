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
        assert_eq!(s.get::<&str>("profile").unwrap(), "main-10");
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
        assert_eq!(s.get::<&str>("profile"), Ok("main-10"));
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

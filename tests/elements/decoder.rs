// SPDX-License-Identifier: MPL-2.0
//! `nnvdec`: what goes in comes out, in every format, with everything that is said about it.

use gst::prelude::*;
use gst_video::VideoFormat;

use crate::util::*;

fn file(info: &gst_video::VideoInfo, count: u32, properties: &[(&str, &str)]) -> TempFile {
    TempFile::with("stream.nnv", &join(&encode(info, count, properties)))
}

#[test]
fn every_order_comes_back_in_time_and_recognisable() {
    within(|| {
        for (bframes, key_int) in [
            ("0", "250"),
            ("1", "6"),
            ("3", "250"),
            ("7", "9"),
            ("0", "1"),
        ] {
            let info = i420(67, 45);
            let p = [
                ("bframes", bframes),
                ("key-int-max", key_int),
                ("quantizer", "12"),
                ("frame-checksum", "true"),
            ];
            let file = file(&info, 12, &p);
            let pipeline = launch(&format!(
                "filesrc location={} ! nnvparse ! nnvdec name=dec ! fakesink name=out sync=false \
                 signal-handoffs=true",
                file.path()
            ));
            let dec = pipeline
                .clone()
                .downcast::<gst::Bin>()
                .unwrap()
                .by_name("dec")
                .unwrap();
            let worst = std::sync::Arc::new(std::sync::Mutex::new(f64::INFINITY));
            let result = worst.clone();
            let sink = pipeline
                .clone()
                .downcast::<gst::Bin>()
                .unwrap()
                .by_name("out")
                .unwrap();
            let count = std::sync::atomic::AtomicU32::new(0);
            sink.connect("handoff", false, move |args| {
                let shown = args[1].get::<gst::Buffer>().unwrap();
                let t = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let p = psnr(&read(&shown, &info), &picture(67, 45, t));
                let mut worst = result.lock().unwrap();
                *worst = worst.min(p);
                None
            });
            let outcome = play(&pipeline).sound();
            let pts: Vec<_> = outcome.shown.iter().map(|s| s.pts.unwrap()).collect();
            assert_eq!(pts, (0..12).map(|t| ms(40 * t)).collect::<Vec<_>>());
            assert!(outcome.shown.iter().all(|s| s.duration == Some(ms(40))));
            assert!(outcome.shown.iter().all(|s| s.size == (67, 45)));
            let worst = *worst.lock().unwrap();
            assert!(worst > 25.0, "bframes {bframes}: {worst:.1} dB");
            // The checksums of the encoder's own pictures were in the stream.
            let stats = dec.property::<gst::Structure>("stats");
            assert_eq!(stats.get::<u64>("frames"), Ok(12), "{stats}");
            assert_eq!(stats.get::<u64>("concealed"), Ok(0), "{stats}");
            assert_eq!(stats.get::<u64>("verified-checksums"), Ok(12), "{stats}");
            assert!(stats.get::<f64>("fps").unwrap() > 0.0);
        }
    });
}

#[test]
fn downstream_chooses_the_format() {
    within(|| {
        for (input, formats) in [
            (
                VideoFormat::I420,
                ["I420", "NV12", "I420_10LE", "P010_10LE"],
            ),
            (
                VideoFormat::I42010le,
                ["I420_10LE", "P010_10LE", "I420", "NV12"],
            ),
        ] {
            let file = file(&info(input, 50, 34), 3, &[]);
            let any = decode(file.path(), "").sound();
            assert_eq!(any.shown[0].format, input);
            let mut same_depth = Vec::new();
            for (i, format) in formats.iter().enumerate() {
                let outcome = play(&launch(&format!(
                    "filesrc location={} ! nnvparse ! nnvdec ! video/x-raw,format={format} ! \
                     fakesink name=out sync=false",
                    file.path()
                )))
                .sound();
                assert_eq!(outcome.shown.len(), 3);
                assert_eq!(outcome.shown[0].format.to_str(), *format);
                if i < 2 {
                    same_depth.push(outcome.checksums());
                }
            }
            assert_eq!(same_depth[0], any.checksums());
            assert_eq!(same_depth[0], same_depth[1]);
        }
    });
}

#[test]
fn what_the_caps_say_survives_the_file() {
    within(|| {
        let caps: gst::Caps =
            "video/x-raw, format=I420_10LE, width=64, height=48, framerate=30000/1001, \
             pixel-aspect-ratio=4/3, colorimetry=bt2100-hlg, chroma-site=mpeg2, \
             mastering-display-info=(string)35400:14600:8500:39850:6550\
             :2300:15635:16450:10000000:50, \
             content-light-level=(string)1000:400"
                .parse()
                .unwrap();
        let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
        let mut h =
            gst_check::Harness::with_element(&element("nnvenc", &[]), Some("sink"), Some("src"));
        h.set_src_caps(caps.clone());
        for t in 0..3 {
            h.push(buffer(&info, t, 0)).unwrap();
        }
        h.push_event(gst::event::Eos::new());
        let file = TempFile::with("hdr.nnv", &join(&pull_all(&mut h)));
        let outcome = decode(file.path(), "").sound();
        let out = outcome.caps.last().unwrap();
        let (from, to) = (caps.structure(0).unwrap(), out.structure(0).unwrap());
        for (field, value) in from.iter() {
            let back = to.value(field.as_str()).map(|v| format!("{v:?}"));
            assert_eq!(back.ok(), Some(format!("{value:?}")), "{field}");
        }
        let times: Vec<_> = outcome.shown.iter().map(|s| s.pts.unwrap()).collect();
        let frame = |n: u64| {
            gst::ClockTime::SECOND
                .mul_div_floor(n * 1001, 30000)
                .unwrap()
        };
        assert_eq!(times, [frame(0), frame(1), frame(2)]);
    });
}

#[test]
fn unknown_rates_keep_their_times() {
    within(|| {
        let info = gst_video::VideoInfo::builder(VideoFormat::I420, 48, 32)
            .fps(gst::Fraction::new(0, 1))
            .build()
            .unwrap();
        for bframes in ["0", "3"] {
            let mut h = encoder(&info, &[("bframes", bframes)]);
            let times: Vec<_> = [0u64, 33, 50, 51, 120, 600].map(ms).into();
            for (t, pts) in times.iter().enumerate() {
                let mut b = buffer(&i420(48, 32), t as u32, 0);
                b.get_mut().unwrap().set_pts(*pts);
                b.get_mut().unwrap().set_duration(None::<gst::ClockTime>);
                h.push(b).unwrap();
            }
            h.push_event(gst::event::Eos::new());
            let file = TempFile::with("vfr.nnv", &join(&pull_all(&mut h)));
            let outcome = decode(file.path(), "").sound();
            let shown: Vec<_> = outcome.shown.iter().map(|s| s.pts.unwrap()).collect();
            assert_eq!(shown, times, "bframes {bframes}");
            let caps = outcome.caps.last().unwrap().structure(0).unwrap();
            assert_eq!(
                caps.get::<gst::Fraction>("framerate"),
                Ok(gst::Fraction::new(0, 1))
            );
        }
    });
}

#[test]
fn a_change_of_size_and_depth_in_the_stream_is_followed() {
    within(|| {
        let a = encode(&i420(64, 48), 5, &[("bframes", "3")]);
        let b = encode(&info(VideoFormat::I42010le, 33, 41), 4, &[]);
        let data = [join(&a), join(&b), join(&a)].concat();
        let file = TempFile::with("change.nnv", &data);
        let outcome = decode(file.path(), "").sound();
        let sizes: Vec<_> = outcome.shown.iter().map(|s| s.size).collect();
        let expected = [vec![(64, 48); 5], vec![(33, 41); 4], vec![(64, 48); 5]].concat();
        assert_eq!(sizes, expected);
        let sums = outcome.checksums();
        assert_eq!(sums[..5], sums[9..]);
        let times: Vec<_> = outcome.shown.iter().map(|s| s.pts.unwrap()).collect();
        assert_eq!(times, (0..14).map(|t| ms(40 * t)).collect::<Vec<_>>());
    });
}

#[test]
fn encoder_and_decoder_link_without_a_parser() {
    within(|| {
        let outcome = play(&launch(
            "videotestsrc num-buffers=9 ! \
             video/x-raw,format=NV12,width=64,height=48,framerate=10/1 ! \
             nnvenc bframes=3 frame-checksum=true ! nnvdec ! fakesink name=out sync=false",
        ))
        .sound();
        assert_eq!(outcome.shown.len(), 9);
    });
}

#[test]
fn several_decoders_at_once_agree() {
    within(|| {
        let file = file(&i420(64, 48), 10, &[("bframes", "3")]);
        let path = file.path().to_owned();
        let threads: Vec<_> = ["1", "2", "1", "2"]
            .map(|threads| {
                let path = path.clone();
                std::thread::spawn(move || {
                    decode(&path, &format!("threads={threads}"))
                        .sound()
                        .checksums()
                })
            })
            .into();
        let sums: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(
            sums.iter().all(|s| *s == sums[0] && s.len() == 10),
            "{sums:?}"
        );
    });
}

#[test]
fn a_flush_in_the_middle_leaves_a_working_decoder() {
    within(|| {
        let units = encode(&i420(64, 48), 10, &[("bframes", "3"), ("key-int-max", "5")]);
        let mut parse = gst_check::Harness::new_parse("nnvparse ! nnvdec");
        parse.set_src_caps_str("video/x-nnv");
        for unit in &units[..3] {
            parse.push(unit.copy()).unwrap();
        }
        assert!(parse.push_event(gst::event::FlushStart::new()));
        assert!(parse.push_event(gst::event::FlushStop::new(true)));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(parse.push_event(gst::event::Segment::new(&segment)));
        pull_all(&mut parse);
        // Inter frames of the old group, which cannot be shown any more, and the whole new one.
        for unit in &units[3..] {
            parse.push(unit.copy()).unwrap();
        }
        parse.push_event(gst::event::Eos::new());
        let shown = pull_all(&mut parse);
        assert_eq!(shown.len(), 5);
    });
}

#[test]
fn reordering_is_told_as_latency() {
    within(|| {
        for (bframes, latency) in [("0", 0), ("2", 80), ("7", 280)] {
            let units = encode(&i420(64, 48), 1, &[("bframes", bframes)]);
            let mut h = gst_check::Harness::new_parse("nnvparse ! nnvdec");
            h.set_src_caps_str("video/x-nnv");
            h.push(units[0].copy()).unwrap();
            h.push_event(gst::event::Eos::new());
            assert_eq!(pull_all(&mut h).len(), 1);
            assert_eq!(h.query_latency(), Some(ms(latency)), "bframes {bframes}");
        }
    });
}

#[test]
fn what_nothing_refers_to_is_left_out_where_it_would_come_too_late() {
    within(|| {
        let file = file(
            &i420(64, 48),
            34,
            &[("bframes", "7"), ("key-int-max", "17")],
        );
        // Half a frame late all the time, or hopelessly so.
        for (jitter, most) in [(20_000_000i64, 22), (5_000_000_000, 10)] {
            let pipeline = launch(&format!(
                "filesrc location={} ! nnvparse ! nnvdec name=dec ! fakesink sync=false qos=false",
                file.path()
            ));
            let bin = pipeline.clone().downcast::<gst::Bin>().unwrap();
            let dec = bin.by_name("dec").unwrap();
            let (src, sink) = (dec.static_pad("src"), dec.static_pad("sink").unwrap());
            sink.add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
                if let Some(gst::PadProbeData::Buffer(b)) = &probe.data {
                    let at = b.pts().unwrap();
                    let qos = gst::event::Qos::new(gst::QOSType::Underflow, 2.0, jitter, at);
                    src.as_ref().unwrap().send_event(qos);
                }
                gst::PadProbeReturn::Ok
            });
            let bus = pipeline.bus().unwrap();
            pipeline.set_state(gst::State::Playing).unwrap();
            let (mut qos, mut ended) = (0, false);
            while let Some(message) = bus.timed_pop(gst::ClockTime::from_seconds(120)) {
                match message.view() {
                    gst::MessageView::Qos(_) => qos += 1,
                    gst::MessageView::Eos(_) => {
                        ended = true;
                        break;
                    }
                    gst::MessageView::Error(e) => panic!("{}", e.error()),
                    gst::MessageView::Warning(w) => panic!("{}", w.error()),
                    _ => {}
                }
            }
            let stats = dec.property::<gst::Structure>("stats");
            pipeline.set_state(gst::State::Null).unwrap();
            assert!(ended);
            let (frames, skipped) = (
                stats.get::<u64>("frames").unwrap(),
                stats.get::<u64>("skipped").unwrap(),
            );
            assert_eq!(frames + skipped, 34, "{stats}");
            assert!((2..=most).contains(&frames), "{stats}");
            assert_eq!(stats.get::<u64>("concealed"), Ok(0));
            assert_eq!(stats.get::<u64>("missing"), Ok(0));
            assert!(qos >= skipped, "{qos} QoS messages of {skipped}");
        }
    });
}

#[test]
fn padding_has_the_same_bytes_every_time() {
    within(|| {
        for format in ["I420", "NV12", "I420_10LE", "P010_10LE"] {
            let file = file(&i420(67, 45), 4, &[("bframes", "3")]);
            let run = || {
                let out = TempFile::new("raw");
                play(&launch(&format!(
                    "filesrc location={} ! nnvparse ! nnvdec ! video/x-raw,format={format} ! \
                     filesink location={}",
                    file.path(),
                    out.path()
                )))
                .sound();
                std::fs::read(out.path()).unwrap()
            };
            let raw = run();
            // Rows of 67 samples take 68 or more; what is behind them is nothing.
            let info = info(VideoFormat::from_string(format), 67, 45);
            assert_eq!(raw.len(), 4 * info.size());
            let (stride, row) = (
                info.stride()[0] as usize,
                67 * info.comp_depth(0).div_ceil(8) as usize,
            );
            assert!(stride > row);
            for line in raw[..45 * stride].chunks(stride) {
                assert!(line[row..].iter().all(|b| *b == 0), "{format}");
            }
            assert!(raw == run(), "{format}");
        }
    });
}

#[test]
fn without_a_parser_a_file_is_one_error_that_names_it() {
    within(|| {
        let file = file(&i420(64, 48), 2, &[]);
        let outcome = play(&launch(&format!(
            "filesrc location={} ! nnvdec ! fakesink",
            file.path()
        )));
        let errors = outcome.errors.join("\n");
        assert!(errors.contains("filesrc ! nnvparse ! nnvdec"), "{errors}");
    });
}

/// Caps of what an encoder and a decoder make of one picture with these caps.
fn caps_behind(caps: &gst::Caps) -> gst::Caps {
    let info = gst_video::VideoInfo::from_caps(caps).unwrap();
    let mut enc =
        gst_check::Harness::with_element(&element("nnvenc", &[]), Some("sink"), Some("src"));
    enc.set_src_caps(caps.clone());
    enc.push(buffer(&info, 0, 0)).unwrap();
    enc.push_event(gst::event::Eos::new());
    let units = pull_all(&mut enc);
    let mut dec =
        gst_check::Harness::with_element(&element("nnvdec", &[]), Some("sink"), Some("src"));
    dec.set_src_caps(enc.sinkpad().unwrap().current_caps().unwrap());
    dec.push(units[0].copy()).unwrap();
    dec.push_event(gst::event::Eos::new());
    dec.sinkpad().unwrap().current_caps().unwrap()
}

#[test]
fn mastering_values_survive_exactly() {
    within(|| {
        use gst_video::VideoMasteringDisplayInfo as Info;
        let mut values: Vec<u16> = (0..=65_535u32)
            .step_by(257)
            .map(|v| v as u16)
            .chain([
                13_250, 34_500, 7500, 3000, 15_635, 16_450, 1, 49_999, 50_000,
            ])
            .collect();
        // Eight to a stream; GStreamer takes those above 0.
        values.retain(|v| *v > 0);
        values.resize(values.len().next_multiple_of(8), 29);
        let mut tried = 0;
        for v in values.chunks(8) {
            let text = v.iter().map(u16::to_string).collect::<Vec<_>>().join(":");
            let caps: gst::Caps = format!(
                "video/x-raw, format=I420_10LE, width=16, height=16, framerate=25/1, \
                 mastering-display-info=(string){text}:40000000:50"
            )
            .parse()
            .unwrap();
            let Ok(from) = Info::from_caps(&caps) else {
                continue;
            };
            tried += 8;
            let to = caps_behind(&caps);
            assert_eq!(Info::from_caps(&to).unwrap(), from, "{to}");
        }
        assert!(tried >= 8 * (values.len() / 8 - 1), "{tried}");
    });
}

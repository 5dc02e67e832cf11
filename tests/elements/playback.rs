// SPDX-License-Identifier: MPL-2.0
//! Files in GStreamer's own players: autoplugging and exact seeking.

use gst::prelude::*;

use crate::util::*;

fn file(bframes: &str) -> TempFile {
    let p = [
        ("bframes", bframes),
        ("key-int-max", "12"),
        ("frame-checksum", "true"),
    ];
    TempFile::with("play.nnv", &join(&encode(&i420(64, 48), 50, &p)))
}

fn uri(file: &TempFile) -> String {
    gst::glib::filename_to_uri(&file.0, None)
        .unwrap()
        .to_string()
}

#[test]
fn decodebin_and_uridecodebin_find_the_way() {
    within(|| {
        let file = file("3");
        let linear = decode(file.path(), "").sound();
        assert_eq!(linear.shown.len(), 50);
        for description in [
            format!("filesrc location={} ! decodebin", file.path()),
            format!("filesrc location={} ! decodebin3", file.path()),
            format!("uridecodebin uri={}", uri(&file)),
            format!("uridecodebin3 uri={}", uri(&file)),
            // Pushed instead of pulled.
            format!(
                "filesrc location={} blocksize=100 ! queue ! decodebin",
                file.path()
            ),
        ] {
            let outcome = patiently(&description, |limit| {
                let pipeline = launch(&format!("{description} ! fakesink name=out sync=false"));
                play_within(limit, &pipeline)
            })
            .sound();
            assert_eq!(outcome.checksums(), linear.checksums(), "{description}");
        }
    });
}

#[test]
fn playbin_plays() {
    within(|| {
        let file = file("3");
        let linear = decode(file.path(), "").sound();
        for name in ["playbin", "playbin3"] {
            let (outcome, seen) = patiently(name, |limit| {
                let sink = element("fakesink", &[("sync", "false")]);
                let player = element(name, &[("flags", "video")]);
                player.set_property("uri", uri(&file));
                player.set_property("video-sink", &sink);
                let seen = record(&sink);
                let mut outcome = Outcome::default();
                player.set_state(gst::State::Playing).unwrap();
                let ended = ends_within(limit, &player, &mut outcome);
                player.set_state(gst::State::Null).unwrap();
                ended.then_some((outcome, seen))
            });
            let outcome = outcome.sound();
            assert_eq!(outcome.tags.map(|t| t.n_tags() > 0), Some(true));
            let sums: Vec<_> = seen.lock().unwrap().0.iter().map(|s| s.checksum).collect();
            // Players show the first frame once for the preroll, and once only.
            assert_eq!(sums, linear.checksums());
        }
    });
}

/// Seeks a paused pipeline and returns what it shows then.
fn seek(
    pipeline: &gst::Element,
    seen: &std::sync::Mutex<(Vec<Shown>, Vec<gst::Caps>)>,
    flags: gst::SeekFlags,
    to: gst::ClockTime,
) -> Shown {
    pipeline
        .seek_simple(gst::SeekFlags::FLUSH | flags, to)
        .unwrap_or_else(|e| panic!("seek to {to}: {e}"));
    let (result, ..) = pipeline.state(gst::ClockTime::from_seconds(60));
    result.unwrap_or_else(|e| panic!("seek to {to}: {e}"));
    let shown = &seen.lock().unwrap().0;
    shown
        .first()
        .unwrap_or_else(|| panic!("nothing shown after a seek to {to}"))
        .clone()
}

#[test]
fn seeking_is_exact_to_the_frame() {
    within(|| {
        for bframes in ["0", "3", "7"] {
            let file = file(bframes);
            let linear = decode(file.path(), "").sound();
            for source in ["", "queue !"] {
                let pipeline = launch(&format!(
                    "filesrc location={} ! {source} nnvparse ! nnvdec ! fakesink name=out \
                     sync=false",
                    file.path()
                ));
                let sink = pipeline
                    .downcast_ref::<gst::Bin>()
                    .unwrap()
                    .by_name("out")
                    .unwrap();
                let seen = record(&sink);
                pipeline.set_state(gst::State::Paused).unwrap();
                pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
                let targets = [0u64, 1, 49, 12, 11, 13, 30, 24, 23, 48, 5, 36, 37, 0, 47];
                for (i, frame) in targets.iter().enumerate() {
                    // The beginning, the middle and the very end of a frame.
                    let time =
                        ms(40 * frame) + gst::ClockTime::from_useconds([0, 20_000, 39_999][i % 3]);
                    let flags = [gst::SeekFlags::ACCURATE, gst::SeekFlags::empty()][i % 2];
                    let shown = seek(&pipeline, &seen, flags, time);
                    let expected = &linear.shown[*frame as usize];
                    assert_eq!(
                        shown.checksum, expected.checksum,
                        "bframes {bframes}, {source} seek to frame {frame}: got the one of {:?}",
                        shown.pts
                    );
                }
                // Everything after the last seek is as in linear decoding.
                pipeline.set_state(gst::State::Playing).unwrap();
                let mut outcome = Outcome::default();
                wait(&pipeline, &mut outcome);
                let outcome = outcome.sound();
                assert!(outcome.eos);
                let sums: Vec<_> = seen.lock().unwrap().0.iter().map(|s| s.checksum).collect();
                assert_eq!(sums, linear.checksums()[47..]);
                pipeline.set_state(gst::State::Null).unwrap();
            }
        }
    });
}

#[test]
fn key_unit_seeks_land_on_key_frames() {
    within(|| {
        let file = file("3");
        let linear = decode(file.path(), "").sound();
        let pipeline = launch(&format!(
            "filesrc location={} ! nnvparse ! nnvdec ! fakesink name=out sync=false",
            file.path()
        ));
        let sink = pipeline
            .downcast_ref::<gst::Bin>()
            .unwrap()
            .by_name("out")
            .unwrap();
        let seen = record(&sink);
        pipeline.set_state(gst::State::Paused).unwrap();
        pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
        let key = gst::SeekFlags::KEY_UNIT;
        for (flags, to, frame) in [
            (key, 20, 12),
            (key | gst::SeekFlags::SNAP_BEFORE, 23, 12),
            (key | gst::SeekFlags::SNAP_AFTER, 13, 24),
            (key | gst::SeekFlags::SNAP_NEAREST, 22, 24),
            (key | gst::SeekFlags::SNAP_NEAREST, 14, 12),
            (key, 36, 36),
        ] {
            let shown = seek(&pipeline, &seen, flags, ms(40 * to + 5));
            assert_eq!(shown.pts, Some(ms(40 * frame)), "seek to frame {to}");
            assert_eq!(shown.checksum, linear.shown[frame as usize].checksum);
        }
        pipeline.set_state(gst::State::Null).unwrap();
    });
}

#[test]
fn fast_scans_show_key_frames_only_in_the_order_asked_for() {
    within(|| {
        for bframes in ["0", "3"] {
            let file = file(bframes);
            let linear = decode(file.path(), "").sound();
            for (rate, source) in [(4.0, ""), (4.0, "queue !"), (-1.0, ""), (-4.0, "")] {
                let pipeline = launch(&format!(
                    "filesrc location={} ! {source} nnvparse ! tee name=t ! queue ! nnvdec ! \
                     fakesink name=out sync=false t. ! queue ! fakesink name=units sync=false",
                    file.path()
                ));
                let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
                let seen = record(&bin.by_name("out").unwrap());
                let units = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
                let count = units.clone();
                let pad = bin.by_name("units").unwrap().static_pad("sink").unwrap();
                pipeline.set_state(gst::State::Paused).unwrap();
                pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
                let flags = gst::SeekFlags::FLUSH
                    | gst::SeekFlags::TRICKMODE
                    | gst::SeekFlags::TRICKMODE_KEY_UNITS;
                let set = gst::SeekType::Set;
                pipeline
                    .seek(rate, flags, set, ms(0), set, ms(2000))
                    .unwrap();
                pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                    count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    gst::PadProbeReturn::Ok
                });
                pipeline.set_state(gst::State::Playing).unwrap();
                let mut outcome = Outcome::default();
                wait(&pipeline, &mut outcome);
                outcome.sound();
                pipeline.set_state(gst::State::Null).unwrap();
                let shown = &seen.lock().unwrap().0;
                let got: Vec<_> = shown.iter().map(|s| (s.pts, s.checksum)).collect();
                let mut expected: Vec<_> = [0, 12, 24, 36, 48]
                    .iter()
                    .map(|frame| &linear.shown[*frame])
                    .map(|s| (s.pts, s.checksum))
                    .collect();
                if rate < 0.0 {
                    expected.reverse();
                }
                assert_eq!(got, expected, "rate {rate}, {source} bframes {bframes}");
                let units = units.load(std::sync::atomic::Ordering::Relaxed);
                assert!(units <= 6, "{units} access units for 5 key frames");
            }
        }
    });
}

#[test]
fn played_backwards_every_frame_comes_in_falling_order() {
    within(|| {
        for bframes in ["0", "3"] {
            let file = file(bframes);
            let linear = decode(file.path(), "").sound();
            for (from, to) in [(0, 50), (10, 20), (12, 24)] {
                let shown = play_segment(&file, -1.0, ms(40 * from), ms(40 * to));
                let got: Vec<_> = shown.iter().map(|s| (s.pts, s.checksum)).collect();
                let expected: Vec<_> = (from..to)
                    .rev()
                    .map(|frame| &linear.shown[frame as usize])
                    .map(|s| (s.pts, s.checksum))
                    .collect();
                assert_eq!(got, expected, "{from}..{to}, bframes {bframes}");
            }
        }
    });
}

/// A file that is pushed, as over HTTP with ranges: in portions, each when the test says.
struct Pushed {
    source: gst::Element,
    bytes: Vec<u8>,
    /// Where the next portion begins; a seek of the parser sets it.
    offset: std::sync::Arc<std::sync::Mutex<usize>>,
}

impl Pushed {
    fn new(source: gst::Element, bytes: Vec<u8>) -> Self {
        let offset = std::sync::Arc::new(std::sync::Mutex::new(0));
        source.set_property_from_str("stream-type", "seekable");
        source.set_property_from_str("format", "bytes");
        source.set_property("size", bytes.len() as i64);
        source.set_property("max-bytes", 0u64);
        let sought = offset.clone();
        source.connect("seek-data", false, move |values| {
            *sought.lock().unwrap() = values[1].get::<u64>().unwrap() as usize;
            Some(true.to_value())
        });
        Self {
            source,
            bytes,
            offset,
        }
    }

    /// Hands over the bytes before `end`, 4096 a buffer, as a server would.
    fn until(&self, end: usize) {
        let begin = std::mem::replace(&mut *self.offset.lock().unwrap(), end);
        for (n, part) in self.bytes[begin..end].chunks(4096).enumerate() {
            let mut buffer = gst::Buffer::from_slice(part.to_vec());
            buffer
                .get_mut()
                .unwrap()
                .set_offset((begin + 4096 * n) as u64);
            let flow: gst::FlowReturn = self.source.emit_by_name("push-buffer", &[&buffer]);
            assert_eq!(flow, gst::FlowReturn::Ok);
        }
    }
}

#[test]
fn what_is_pushed_has_an_estimated_duration_and_far_seeks() {
    within(|| {
        // A long stream of tiny groups, so that estimates by bytes are close.
        let units = encode(
            &i420(32, 32),
            1500,
            &[("key-int-max", "10"), ("bframes", "0")],
        );
        let before: usize = units[..61].iter().map(|unit| unit.size()).sum();
        let bytes = join(&units);
        let pipeline = launch("appsrc name=in ! nnvparse ! fakesink name=out sync=false");
        let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
        let pushed = Pushed::new(bin.by_name("in").unwrap(), bytes);
        let (send, times) = std::sync::mpsc::channel();
        bin.by_name("out")
            .unwrap()
            .static_pad("sink")
            .unwrap()
            .add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
                if let Some(gst::PadProbeData::Buffer(buffer)) = &probe.data {
                    let _ = send.send(buffer.pts().unwrap());
                }
                gst::PadProbeReturn::Ok
            });
        pipeline.set_state(gst::State::Playing).unwrap();
        // What has flowed by when the questions are asked is always the same.
        pushed.until(before);
        for n in 0..60 {
            assert_eq!(times.recv().unwrap(), ms(40 * n));
        }
        // The whole is as long as its bytes take at the rate of what was seen.
        let whole = pushed.bytes.len();
        let duration = pipeline.query_duration::<gst::ClockTime>().unwrap();
        let expected = 61.0 * 40.0 * whole as f64 / before as f64;
        let ratio = duration.mseconds() as f64 / expected;
        assert!((0.95..1.05).contains(&ratio), "{duration}, {expected} ms");
        let target = ms(30_000);
        pipeline
            .seek_simple(gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT, target)
            .unwrap();
        while times.try_recv().is_ok() {}
        let place = *pushed.offset.lock().unwrap();
        // An eighth of the way too early, so that the target is seldom missed.
        let aimed = target.mseconds() as f64 / duration.mseconds() as f64 * whole as f64 * 0.875;
        let ratio = place as f64 / aimed;
        assert!((0.9..1.1).contains(&ratio), "{place}, {aimed} of {whole}");
        pushed.until(whole);
        let flow: gst::FlowReturn = pushed.source.emit_by_name("end-of-stream", &[]);
        assert_eq!(flow, gst::FlowReturn::Ok);
        let mut outcome = Outcome::default();
        wait(&pipeline, &mut outcome);
        outcome.sound();
        pipeline.set_state(gst::State::Null).unwrap();
        // Every frame from the first key frame behind that place.
        let begins = units.iter().scan(0, |sum, unit| {
            *sum += unit.size();
            Some(*sum - unit.size())
        });
        let first = begins
            .zip(&units)
            .position(|(begin, unit)| begin >= place && is_key(unit))
            .unwrap();
        let seen: Vec<_> = times.try_iter().collect();
        assert_eq!(seen.len(), units.len() - first);
        assert_eq!(*seen.last().unwrap(), ms(40 * 1499));
    });
}

/// Plays the frames from `start` to `stop` of a file at `rate`, by an accurate seek, and returns
/// what a sink is shown.
fn play_segment(
    file: &TempFile,
    rate: f64,
    start: gst::ClockTime,
    stop: gst::ClockTime,
) -> Vec<Shown> {
    let pipeline = launch(&format!(
        "filesrc location={} ! nnvparse ! nnvdec ! fakesink name=out sync=false",
        file.path()
    ));
    let sink = pipeline
        .downcast_ref::<gst::Bin>()
        .unwrap()
        .by_name("out")
        .unwrap();
    let seen = record(&sink);
    pipeline.set_state(gst::State::Paused).unwrap();
    pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
    pipeline
        .seek(
            rate,
            gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE,
            gst::SeekType::Set,
            start,
            gst::SeekType::Set,
            stop,
        )
        .unwrap();
    pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut outcome = Outcome::default();
    wait(&pipeline, &mut outcome);
    pipeline.set_state(gst::State::Null).unwrap();
    outcome.sound();
    seen.lock().unwrap().0.clone()
}

#[test]
fn a_segment_ends_where_the_seek_says() {
    within(|| {
        let file = file("3");
        let linear = decode(file.path(), "").sound();
        let shown = play_segment(&file, 1.0, ms(40 * 15), ms(40 * 20));
        let sums: Vec<_> = shown.iter().map(|s| s.checksum).collect();
        assert_eq!(sums, linear.checksums()[15..20]);
    });
}

#[test]
fn playing_backwards_shows_every_frame() {
    within(|| {
        for bframes in ["0", "3"] {
            let file = file(bframes);
            let mut expected = decode(file.path(), "").sound().checksums();
            expected.reverse();
            let shown = play_segment(&file, -1.0, gst::ClockTime::ZERO, ms(40 * 50));
            let sums: Vec<_> = shown.iter().map(|s| s.checksum).collect();
            assert_eq!(sums, expected, "bframes {bframes}");
            assert!(shown.is_sorted_by(|a, b| a.pts > b.pts));
        }
    });
}

#[test]
fn gst_play_finds_its_way() {
    use std::process::Command;
    within(|| {
        if Command::new("gst-play-1.0")
            .arg("--version")
            .output()
            .is_err()
        {
            eprintln!(
                "NOT TESTED: gst-play-1.0 is not installed (Debian and Ubuntu: \
                 gstreamer1.0-plugins-base-apps)"
            );
            return;
        }
        let file = file("3");
        let frames = TempFile::new("frames.raw");
        let registry = TempFile::new("registry.bin");
        // The program loads the plugin from a folder of its own: other files beside it would only
        // be looked at in vain.
        let library = std::env::current_exe()
            .unwrap()
            .with_file_name("libgstnnv.so");
        let plugin = TempFile::new("plugin");
        std::fs::create_dir_all(&plugin.0).unwrap();
        let link = TempFile(plugin.0.join("libgstnnv.so"));
        std::os::unix::fs::symlink(&library, &link.0).unwrap();
        let output = Command::new("gst-play-1.0")
            .arg("--no-interactive")
            .arg(format!(
                "--videosink=filesink sync=false location={}",
                frames.path()
            ))
            .arg(file.path())
            .env("GST_PLUGIN_PATH", &plugin.0)
            .env("GST_REGISTRY", &registry.0)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert!(
            !text.contains("ERROR") && !text.contains("WARNING"),
            "{text}"
        );
        assert!(text.contains("Reached end of play list"), "{text}");
        let written = std::fs::metadata(&frames.0).map_or(0, |m| m.len());
        assert_eq!(written, 50 * 64 * 48 * 3 / 2, "{text}");
        drop(link);
        std::fs::remove_dir(&plugin.0).unwrap();
    });
}

#[test]
fn the_stream_survives_a_payload_format() {
    within(|| {
        let file = file("3");
        let linear = decode(file.path(), "").sound();
        let outcome = play(&launch(&format!(
            "filesrc location={} ! nnvparse ! rtpgstpay ! rtpgstdepay ! nnvparse ! nnvdec ! \
             fakesink name=out sync=false",
            file.path()
        )))
        .sound();
        assert_eq!(outcome.checksums(), linear.checksums());
    });
}

#[test]
fn a_live_pipeline_reports_its_latency() {
    within(|| {
        for (bframes, latency) in [(0u64, 0u64), (3, 7), (7, 11)] {
            let pipeline = launch(&format!(
                "videotestsrc is-live=true num-buffers=12 ! \
                 video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! \
                 nnvenc name=enc qos=false bframes={bframes} ! nnvdec ! fakesink name=out sync=true"
            ));
            let enc = pipeline
                .downcast_ref::<gst::Bin>()
                .unwrap()
                .by_name("enc")
                .unwrap();
            pipeline.set_state(gst::State::Playing).unwrap();
            let mut outcome = Outcome::default();
            // The source is live: its own latency is one frame.
            let mut query = gst::query::Latency::new();
            wait(&pipeline, &mut outcome);
            assert!(enc.static_pad("src").unwrap().query(&mut query));
            let (live, min, _) = query.result();
            assert!(live);
            assert_eq!(min, ms(40 * (latency + 1)), "bframes {bframes}");
            pipeline.set_state(gst::State::Null).unwrap();
            outcome.sound();
        }
    });
}

// SPDX-License-Identifier: MPL-2.0
//! `nnvmp4mux`, and what GStreamer's demuxer and players make of its files.

use std::sync::{Arc, Mutex};

use gst::prelude::*;

use crate::util::*;

/// Properties of the three kinds of files.
pub const KINDS: [&str; 3] = ["", "faststart=true", "fragment-duration=400"];

pub const FRAMES: usize = 50;

pub const VIDEO: &str = "videotestsrc num-buffers=50 pattern=ball ! \
    video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! \
    nnvenc name=enc bframes=3 key-int-max=12";

pub const AAC: &str = "audiotestsrc num-buffers=94 samplesperbuffer=1024 ! \
    audio/x-raw,rate=48000,channels=2 ! audioconvert ! avenc_aac";

pub const OPUS: &str = "audiotestsrc num-buffers=94 samplesperbuffer=1024 ! \
    audio/x-raw,rate=48000,channels=2 ! opusenc";

/// A sample on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Running times in ns.
    pub pts: Option<i64>,
    pub dts: Option<i64>,
    pub key: bool,
    /// CRC-32C of the bytes.
    pub crc: u32,
    pub data: Payload,
}

/// Bytes that a failed comparison does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

pub type Log = Arc<Mutex<Vec<Seen>>>;

/// Records samples that pass a pad.
pub fn watch(pad: &gst::Pad) -> Log {
    let log = Log::default();
    let seen = log.clone();
    pad.add_probe(
        gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_FLUSH,
        move |pad, probe| {
            if let Some(gst::PadProbeData::Event(_)) = &probe.data {
                seen.lock().unwrap().clear();
            }
            if let Some(gst::PadProbeData::Buffer(buffer)) = &probe.data {
                let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
                let segment = segment.segment().clone();
                let segment = segment.downcast::<gst::ClockTime>().unwrap();
                let running = |time: Option<gst::ClockTime>| {
                    Some(match segment.to_running_time_full(time?)? {
                        gst::Signed::Positive(t) => t.nseconds() as i64,
                        gst::Signed::Negative(t) => -(t.nseconds() as i64),
                    })
                };
                seen.lock().unwrap().push(Seen {
                    pts: running(buffer.pts()),
                    dts: running(buffer.dts()),
                    key: is_key(buffer),
                    crc: crc32c::crc32c(&bytes(buffer)),
                    data: Payload(bytes(buffer)),
                });
            }
            gst::PadProbeReturn::Ok
        },
    );
    log
}

pub fn by_name(pipeline: &gst::Element, name: &str) -> gst::Element {
    let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
    bin.by_name(name).unwrap_or_else(|| panic!("no {name}"))
}

pub fn subtitles() -> TempFile {
    let text = "1\n00:00:00,200 --> 00:00:00,900\nHello <b>there</b> &amp; you\n\n\
                2\n00:00:01,200 --> 00:00:01,900\nWorld\n";
    TempFile::with("subtitles.srt", text.as_bytes())
}

/// What a file was made of.
pub struct Made {
    pub file: TempFile,
    /// By pad of the muxer.
    pub video: Vec<Seen>,
    pub aac: Vec<Seen>,
    pub opus: Vec<Seen>,
}

/// A file with a picture, two sounds and subtitles.
pub fn make(kind: &str) -> Made {
    let file = TempFile::new("made.mp4");
    let text = subtitles();
    let pipeline = launch(&format!(
        "nnvmp4mux name=mux {kind} ! filesink location={} {VIDEO} ! mux.video_0 \
         {AAC} ! queue ! mux.audio_0 {OPUS} ! queue ! mux.audio_1 \
         filesrc location={} ! subparse ! queue ! mux.subtitle_0",
        file.path(),
        text.path()
    ));
    let mux = by_name(&pipeline, "mux");
    let logs = ["video_0", "audio_0", "audio_1"].map(|pad| {
        let pad = mux.static_pad(pad).unwrap().peer().unwrap();
        watch(&pad)
    });
    play(&pipeline).sound();
    let [video, aac, opus] = logs.map(|log| log.lock().unwrap().clone());
    Made {
        file,
        video,
        aac,
        opus,
    }
}

/// All samples of a file, by pad of the demuxer, and their caps.
pub fn demux(path: &str, source: &str, pads: &[&str]) -> Vec<(Vec<Seen>, gst::Caps)> {
    let branches: String = pads
        .iter()
        .map(|pad| format!(" d.{pad} ! queue ! fakesink name={pad} sync=false"))
        .collect();
    let pipeline = launch(&format!(
        "{source} location={path} ! qtdemux name=d {branches}"
    ));
    let sinks: Vec<_> = pads
        .iter()
        .map(|pad| by_name(&pipeline, pad).static_pad("sink").unwrap())
        .collect();
    let logs: Vec<_> = sinks.iter().map(watch).collect();
    let caps: Arc<Mutex<Vec<Option<gst::Caps>>>> = Arc::new(Mutex::new(vec![None; pads.len()]));
    for (index, pad) in sinks.iter().enumerate() {
        let caps = caps.clone();
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, probe| {
            if let Some(gst::PadProbeData::Event(event)) = &probe.data
                && let gst::EventView::Caps(event) = event.view()
            {
                caps.lock().unwrap()[index] = Some(event.caps_owned());
            }
            gst::PadProbeReturn::Ok
        });
    }
    play(&pipeline).sound();
    let caps = caps.lock().unwrap().clone();
    logs.iter()
        .zip(caps)
        .map(|(log, caps)| (log.lock().unwrap().clone(), caps.unwrap()))
        .collect()
}

/// Types and sizes of a file's boxes.
pub fn boxes(data: &[u8]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 8 <= data.len() {
        let size = u32::from_be_bytes(data[at..at + 4].try_into().unwrap()) as usize;
        let kind = String::from_utf8_lossy(&data[at + 4..at + 8]).into_owned();
        let size = match size {
            0 => data.len() - at,
            1 => u64::from_be_bytes(data[at + 8..at + 16].try_into().unwrap()) as usize,
            size => size,
        };
        found.push((kind, size));
        at += size;
    }
    assert_eq!(at, data.len(), "{found:?}");
    found
}

pub fn kinds_of(data: &[u8]) -> Vec<String> {
    boxes(data).into_iter().map(|(kind, _)| kind).collect()
}

/// A source from which the demuxer reads what it wants.
pub const PULLED: &str = "filesrc";
/// A source of byte after byte, as over a network. (A `queue` makes one too, but those of GStreamer
/// 1.22 can lose the query of a source that begins, which then waits for ever.)
pub const PUSHED: &str = "pushfilesrc";

/// Decodes a file's picture.
pub fn decode_mp4(path: &str, source: &str) -> Outcome {
    play(&launch(&format!(
        "{source} location={path} ! qtdemux name=d d.video_0 ! queue ! nnvparse ! nnvdec ! \
         fakesink name=out sync=false"
    )))
}

/// The picture as it was coded, without a file.
pub fn plain(video: &[Seen]) -> Outcome {
    let data: Vec<u8> = video.iter().flat_map(|unit| unit.data.0.clone()).collect();
    decode(TempFile::with("plain.nnv", &data).path(), "").sound()
}

#[test]
fn every_kind_of_file_gives_back_what_went_in() {
    within(|| {
        for kind in KINDS {
            let made = make(kind);
            assert_eq!(made.video.len(), FRAMES);
            let data = std::fs::read(&made.file.0).unwrap();
            let order = kinds_of(&data);
            match kind {
                "" => assert_eq!(order, ["ftyp", "free", "mdat", "moov"]),
                "faststart=true" => assert_eq!(order, ["ftyp", "moov", "mdat"]),
                // Key frames stand at 0, 480, 960, 1440, 1920 ms.
                _ => {
                    assert_eq!(order[..2], ["ftyp", "moov"]);
                    assert_eq!(order[2..], ["moof", "mdat"].repeat(5));
                }
            }
            for source in [PULLED, PUSHED] {
                if kind.is_empty() && source == PUSHED {
                    // Pushed, the demuxer would have to keep all data until the index comes.
                    continue;
                }
                let out = demux(
                    made.file.path(),
                    source,
                    &["video_0", "audio_0", "audio_1", "subtitle_0"],
                );
                let [video, aac, opus, text] = &out[..] else {
                    panic!("four tracks")
                };
                let base = made.video[0].pts.unwrap();
                let expected: Vec<_> = made
                    .video
                    .iter()
                    .map(|unit| Seen {
                        pts: unit.pts.map(|t| t - base),
                        dts: unit.dts.map(|t| t - base),
                        ..unit.clone()
                    })
                    .collect();
                // GStreamer's demuxer compares the times of a pushed file with its duration without
                // its edit list, and may leave out the last frame (mp4mux's too).
                let known = usize::from(kind == "faststart=true" && source == PUSHED);
                assert!(video.0.len() >= FRAMES - known, "{}", video.0.len());
                assert_eq!(video.0, expected[..video.0.len()], "{kind} {source}");
                let caps = video.1.structure(0).unwrap();
                assert_eq!(caps.name(), "video/x-gst-fourcc-nnv1");
                assert_eq!(caps.get::<i32>("width"), Ok(64));
                assert_eq!(caps.get::<i32>("height"), Ok(48));
                // avenc_aac delays the sound by a packet: all of them belong that much earlier.
                let delays = [-21_333_333, 0];
                for ((sound, before), delay) in [(aac, &made.aac), (opus, &made.opus)]
                    .into_iter()
                    .zip(delays)
                {
                    assert_eq!(sound.0.len(), before.len(), "{kind}");
                    for (after, before) in sound.0.iter().zip(before) {
                        assert_eq!(after.data, before.data);
                        let off = after.pts.unwrap() - before.pts.unwrap();
                        // What is primed comes before the beginning, as a whole packet.
                        let primed = before.pts == Some(0) && off == -6_500_000;
                        assert!((off - delay).abs() <= 1 || primed, "{kind}: {off} ns");
                    }
                }
                let texts: Vec<_> = text
                    .0
                    .iter()
                    .map(|s| {
                        (
                            s.pts.unwrap(),
                            String::from_utf8_lossy(&s.data.0).into_owned(),
                        )
                    })
                    .filter(|(_, text)| !text.trim_end_matches('\0').is_empty())
                    .collect();
                // Markup, as the demuxer hands it on.
                let texts: Vec<_> = texts
                    .into_iter()
                    .map(|(pts, text)| (pts, text.replace("&amp;", "&")))
                    .collect();
                let expected = [
                    (200_000_000, "Hello there & you".to_owned()),
                    (1_200_000_000, "World".to_owned()),
                ];
                assert_eq!(texts, expected);
            }
            let linear = plain(&made.video);
            assert_eq!(linear.shown.len(), FRAMES);
            let shown = decode_mp4(made.file.path(), PULLED).sound();
            assert_eq!(shown.checksums(), linear.checksums(), "{kind}");
        }
    });
}

#[test]
fn players_show_picture_sound_and_text() {
    within(|| {
        for kind in ["", "fragment-duration=400"] {
            let made = make(kind);
            let linear = plain(&made.video);
            let uri = gst::glib::filename_to_uri(&made.file.0, None).unwrap();
            for name in ["playbin", "playbin3"] {
                let (outcome, seen, counts) = patiently(name, |limit| {
                    let sinks = ["video", "audio", "text"]
                        .map(|what| (what, element("fakesink", &[("sync", "false")])));
                    let player = element(name, &[("flags", "video+audio+text+soft-volume")]);
                    player.set_property("uri", uri.as_str());
                    for (what, sink) in &sinks {
                        player.set_property(&format!("{what}-sink"), sink);
                    }
                    let seen = record(&sinks[0].1);
                    let counts = [&sinks[1].1, &sinks[2].1]
                        .map(|sink| watch(&sink.static_pad("sink").unwrap()));
                    let mut outcome = Outcome::default();
                    player.set_state(gst::State::Playing).unwrap();
                    let ended = ends_within(limit, &player, &mut outcome);
                    player.set_state(gst::State::Null).unwrap();
                    ended.then_some((outcome, seen, counts))
                });
                outcome.sound();
                let sums: Vec<_> = seen.lock().unwrap().0.iter().map(|s| s.checksum).collect();
                assert_eq!(sums, linear.checksums(), "{name} {kind}");
                let [sound, text] = counts.map(|log| log.lock().unwrap().len());
                assert!(sound >= 90, "{name} {kind}: {sound} buffers of sound");
                assert!(text >= 2, "{name} {kind}: {text} texts");
            }
        }
    });
}

#[test]
fn seeks_are_exact_through_the_container() {
    within(|| {
        for kind in KINDS {
            // The picture alone: with others, the demuxer puts key seeks to where a packet or a
            // subtitle of theirs begins.
            let file = TempFile::new("seek.mp4");
            let pipeline = launch(&format!(
                "{VIDEO} ! nnvmp4mux {kind} ! filesink location={}",
                file.path()
            ));
            let video = watch(&by_name(&pipeline, "enc").static_pad("src").unwrap());
            play(&pipeline).sound();
            let linear = plain(&video.lock().unwrap());
            let pipeline = launch(&format!(
                "filesrc location={} ! qtdemux name=d d.video_0 ! queue ! nnvparse ! nnvdec ! \
                 fakesink name=out sync=false",
                file.path()
            ));
            let seen = record(&by_name(&pipeline, "out"));
            pipeline.set_state(gst::State::Paused).unwrap();
            pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
            let key = gst::SeekFlags::KEY_UNIT | gst::SeekFlags::SNAP_BEFORE;
            let exact = gst::SeekFlags::ACCURATE;
            for (flags, to, frame) in [
                (exact, 30, 30),
                (exact, 0, 0),
                (exact, 49, 49),
                (key, 30, 24),
                (exact, 13, 13),
                (key, 23, 12),
                (key, 36, 36),
            ] {
                pipeline
                    .seek_simple(gst::SeekFlags::FLUSH | flags, ms(40 * to + 5))
                    .unwrap();
                pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
                let shown = seen.lock().unwrap().0.first().cloned().unwrap();
                // In fragments, it seeks exactly whatever is asked for.
                let frame = if kind.starts_with("frag") { to } else { frame };
                assert_eq!(
                    shown.checksum, linear.shown[frame as usize].checksum,
                    "{kind}: seek to {to} shows {:?}",
                    shown.pts
                );
            }
            pipeline.set_state(gst::State::Null).unwrap();
        }
    });
}

#[test]
fn tags_aspect_turn_and_language_are_kept() {
    within(|| {
        for kind in KINDS {
            let file = TempFile::new("tags.mp4");
            let pipeline = launch(&format!(
                "nnvmp4mux name=mux {kind} ! filesink location={} \
                 videotestsrc num-buffers=5 ! video/x-raw,format=I420,width=64,height=48,\
                 framerate=30000/1001,pixel-aspect-ratio=2/1,colorimetry=bt709 ! nnvenc ! \
                 taginject tags=\"image-orientation=rotate-90\" ! mux.video_0 \
                 audiotestsrc num-buffers=10 ! opusenc ! taginject tags=\"language-code=fr\" ! \
                 mux.audio_0",
                file.path()
            ));
            let mux = by_name(&pipeline, "mux");
            let setter = mux.downcast_ref::<gst::TagSetter>().unwrap();
            setter.add_tag::<gst::tags::Title>(&"A title", gst::TagMergeMode::Replace);
            setter.add_tag::<gst::tags::Artist>(&"Jäger", gst::TagMergeMode::Replace);
            setter.add_tag::<gst::tags::TrackNumber>(&3, gst::TagMergeMode::Replace);
            play(&pipeline).sound();
            let out = play(&launch(&format!(
                "filesrc location={} ! qtdemux name=d d.video_0 ! queue ! nnvparse ! \
                 fakesink d.audio_0 ! queue ! fakesink",
                file.path()
            )))
            .sound();
            let tags = out.tags.unwrap();
            let text = tags.to_string();
            assert_eq!(tags.get::<gst::tags::Title>().unwrap().get(), "A title");
            assert_eq!(tags.get::<gst::tags::Artist>().unwrap().get(), "Jäger");
            assert_eq!(tags.get::<gst::tags::TrackNumber>().unwrap().get(), 3);
            let turned = tags.get::<gst::tags::ImageOrientation>().unwrap();
            assert_eq!(turned.get(), "rotate-90", "{kind}: {text}");
            assert_eq!(tags.get::<gst::tags::LanguageCode>().unwrap().get(), "fr");
            let out = demux(file.path(), PULLED, &["video_0"]);
            let caps = out[0].1.structure(0).unwrap();
            let aspect = caps.get::<gst::Fraction>("pixel-aspect-ratio").unwrap();
            assert_eq!(aspect, gst::Fraction::new(2, 1));
            let rate = caps.get::<gst::Fraction>("framerate").unwrap();
            assert_eq!(rate, gst::Fraction::new(30_000, 1001));
            let data = std::fs::read(&file.0).unwrap();
            let colour = b"colrnclx\0\x01\0\x01\0\x01\0";
            assert!(data.windows(colour.len()).any(|window| window == colour));
        }
    });
}

#[test]
fn streams_that_begin_apart_stay_apart() {
    within(|| {
        for kind in KINDS {
            let file = TempFile::new("late.mp4");
            // Sound 100 ms after the picture, which itself begins at 3 s.
            let pipeline = launch(&format!(
                "nnvmp4mux name=mux {kind} ! filesink location={} \
                 videotestsrc num-buffers=20 timestamp-offset=3000000000 ! video/x-raw,\
                 format=I420,width=64,height=48,framerate=25/1 ! nnvenc bframes=0 ! mux.video_0 \
                 audiotestsrc num-buffers=20 timestamp-offset=3100000000 ! opusenc ! mux.audio_0",
                file.path()
            ));
            play(&pipeline).sound();
            let out = demux(file.path(), PULLED, &["video_0", "audio_0"]);
            assert_eq!(out[0].0[0].pts, Some(0), "{kind}");
            let late = out[1].0[1].pts.unwrap();
            // The second packet begins as much later as the first one lasts, less its priming.
            assert!((late - 113_500_000).abs() <= 1000, "{kind}: {late}");
        }
    });
}

#[test]
fn sound_alone_and_nothing_at_all() {
    within(|| {
        for kind in KINDS {
            let file = TempFile::new("sound.mp4");
            play(&launch(&format!(
                "{OPUS} ! nnvmp4mux {kind} ! filesink location={}",
                file.path()
            )))
            .sound();
            let out = demux(file.path(), PULLED, &["audio_0"]);
            assert_eq!(out[0].0.len(), 101, "{kind}");
            let outcome = play(&launch(&format!(
                "videotestsrc num-buffers=0 ! video/x-raw,format=I420,width=64,height=48 ! \
                 nnvenc ! nnvmp4mux {kind} ! filesink location={}",
                file.path()
            )));
            assert!(
                outcome.errors[0].contains("nothing to write"),
                "{:?}",
                outcome.errors
            );
        }
    });
}

#[test]
fn a_sink_that_cannot_seek_is_told_about() {
    within(|| {
        let outcome = play(&launch(&format!("{VIDEO} ! nnvmp4mux ! fakesink")));
        assert!(
            outcome.errors[0].contains("faststart"),
            "{:?}",
            outcome.errors
        );
        for kind in &KINDS[1..] {
            play(&launch(&format!("{VIDEO} ! nnvmp4mux {kind} ! fakesink"))).sound();
        }
        for kind in KINDS {
            let outcome = play(&launch(&format!(
                "{VIDEO} ! nnvmp4mux {kind} ! filesink location=/dev/full"
            )));
            assert_eq!(outcome.errors.len(), 1, "{:?}", outcome.errors);
        }
    });
}

#[test]
fn a_file_has_one_video() {
    within(|| {
        let pipeline = gst::Pipeline::new();
        let mux = element("nnvmp4mux", &[]);
        pipeline.add(&mux).unwrap();
        assert!(mux.request_pad_simple("video_%u").is_some());
        assert!(mux.request_pad_simple("video_%u").is_none());
        let bus = pipeline.bus().unwrap();
        let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
        let gst::MessageView::Error(error) = message.view() else {
            unreachable!("only errors are popped")
        };
        assert!(error.error().to_string().contains("one video"));
        for number in 0..3 {
            let pad = mux.request_pad_simple("audio_%u").unwrap();
            assert_eq!(pad.name(), format!("audio_{number}"));
        }
        let pad = mux.static_pad("video_0").unwrap();
        mux.release_request_pad(&pad);
        assert!(mux.request_pad_simple("video_7").is_some());
        pipeline.set_state(gst::State::Null).unwrap();
    });
}

/// Plays `units` with `caps` through a muxer, changed on their way.
fn mux_units(
    kind: &str,
    change: impl Fn(usize, &mut gst::BufferRef) + Send + Sync + 'static,
) -> (TempFile, Outcome) {
    let file = TempFile::new("changed.mp4");
    let pipeline = launch(&format!(
        "{VIDEO} ! nnvmp4mux name=mux {kind} ! filesink location={}",
        file.path()
    ));
    let pad = by_name(&pipeline, "enc").static_pad("src").unwrap();
    let count = Mutex::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut probe.data {
            let mut count = count.lock().unwrap();
            change(*count, buffer.make_mut());
            *count += 1;
        }
        gst::PadProbeReturn::Ok
    });
    let outcome = play(&pipeline);
    (file, outcome)
}

#[test]
fn video_without_times_is_refused_and_without_decoding_times_taken() {
    within(|| {
        for kind in KINDS {
            let (_, outcome) = mux_units(kind, |number, buffer| {
                if number == 7 {
                    buffer.set_pts(gst::ClockTime::NONE);
                    buffer.set_dts(gst::ClockTime::NONE);
                }
            });
            assert!(
                outcome.errors[0].contains("without a time"),
                "{:?}",
                outcome.errors
            );
            let (_, outcome) = mux_units(kind, |number, buffer| {
                if number == 30 {
                    buffer.set_pts(ms(1));
                    buffer.unset_flags(gst::BufferFlags::DELTA_UNIT);
                }
            });
            assert!(!outcome.errors.is_empty());
            let (file, outcome) = mux_units(kind, |_, buffer| {
                buffer.set_dts(gst::ClockTime::NONE);
            });
            outcome.sound();
            let out = demux(file.path(), PULLED, &["video_0"]);
            let times: Vec<_> = out[0]
                .0
                .iter()
                .map(|s| (s.dts.unwrap(), s.pts.unwrap()))
                .collect();
            assert_eq!(times.len(), FRAMES);
            // Three B frames in two levels: two frames ahead.
            assert_eq!(times[0], (-80_000_000, 0));
            assert!(times.is_sorted_by(|a, b| a.0 < b.0));
            assert!(times.iter().all(|(dts, pts)| dts <= pts));
        }
    });
}

#[test]
fn splitmuxsink_makes_files_of_parts() {
    within(|| {
        for kind in ["faststart=false", "fragment-duration=200"] {
            let folder = TempFile::new("parts");
            std::fs::create_dir_all(&folder.0).unwrap();
            let pipeline = launch(&format!(
                "{VIDEO} ! splitmuxsink name=split muxer=\"nnvmp4mux {kind}\" \
                 max-size-time=900000000 location={}/part%02d.mp4 {AAC} ! queue ! split.audio_0",
                folder.path()
            ));
            play(&pipeline).sound();
            let mut names: Vec<_> = std::fs::read_dir(&folder.0)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            names.sort();
            assert!(names.len() >= 2, "{kind}: {names:?}");
            let mut frames = 0;
            for name in &names {
                let out = demux(name.to_str().unwrap(), PULLED, &["video_0", "audio_0"]);
                assert!(out[0].0[0].key && out[0].0[0].pts == Some(0), "{name:?}");
                assert!(!out[1].0.is_empty());
                let shown = decode_mp4(name.to_str().unwrap(), PULLED)
                    .sound()
                    .shown
                    .len();
                assert_eq!(shown, out[0].0.len());
                frames += shown;
            }
            assert_eq!(frames, FRAMES, "{kind}");
            std::fs::remove_dir_all(&folder.0).unwrap();
        }
    });
}

/// A static ffmpeg, where there is one.
pub fn ffmpeg() -> Option<std::path::PathBuf> {
    let deps = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".deps/ffmpeg");
    let mut fetched = std::fs::read_dir(deps)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("ffmpeg")));
    std::env::var_os("NNV_FFMPEG")
        .map(Into::into)
        .or_else(|| fetched.find(|path| path.is_file()))
}

#[test]
fn another_reader_finds_the_tracks() {
    within(|| {
        let Some(ffmpeg) = ffmpeg() else {
            eprintln!(
                "NOT TESTED: no ffmpeg in .deps/ffmpeg (bench/rd/run.sh fetches one), and \
                 NNV_FFMPEG names none"
            );
            return;
        };
        for kind in KINDS {
            let made = make(kind);
            // It exits with an error, as there is nothing to write.
            let output = std::process::Command::new(&ffmpeg)
                .args(["-hide_banner", "-i", made.file.path()])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            for part in [
                "Duration: 00:00:02.0",
                "Video: none (nnv1",
                "64x48",
                "25 fps",
                "Audio: aac (LC)",
                "Audio: opus",
                "Subtitle: mov_text",
            ] {
                assert!(text.contains(part), "{kind}: no {part} in {text}");
            }
            // The sound decodes whole.
            for (track, samples) in [("0:a:0", 94 * 1024), ("0:a:1", 94 * 1024)] {
                let output = std::process::Command::new(&ffmpeg)
                    .args(["-v", "error", "-i", made.file.path(), "-map", track])
                    .args(["-f", "s16le", "-ac", "1", "-"])
                    .output()
                    .unwrap();
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(!errors.contains("Error"), "{errors}");
                let got = output.stdout.len() / 2;
                assert!(got.abs_diff(samples) <= 2 * 1024, "{kind} {track}: {got}");
            }
        }
    });
}

/// Plays 10 000 samples of 1 kB through a muxer into a file; returns the time it took and the bytes
/// that are no samples.
fn muxing(mux: &str, caps: &gst::Caps, samples: Vec<gst::Buffer>) -> (std::time::Duration, u64) {
    let file = TempFile::new("speed.mp4");
    let count = samples.len();
    let total: usize = samples.iter().map(|sample| sample.size()).sum();
    let pipeline = launch(&format!(
        "fakesrc name=src num-buffers={count} format=time sizetype=fixed sizemax=1 ! \
         capsfilter name=caps ! mux.video_0 {mux} name=mux ! filesink location={}",
        file.path()
    ));
    by_name(&pipeline, "caps").set_property("caps", caps);
    let pad = by_name(&pipeline, "src").static_pad("src").unwrap();
    let samples = Mutex::new(samples.into_iter());
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
        if let Some(sample) = samples.lock().unwrap().next() {
            probe.data = Some(gst::PadProbeData::Buffer(sample));
        }
        gst::PadProbeReturn::Ok
    });
    let begin = std::time::Instant::now();
    play(&pipeline).sound();
    let took = begin.elapsed();
    let written = std::fs::metadata(&file.0).unwrap().len();
    (took, written - total as u64)
}

/// An access unit of 1000 bytes, or whatever `data` is.
pub fn timed(number: u64, data: Vec<u8>) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(data);
    let b = buffer.get_mut().unwrap();
    b.set_pts(ms(40 * number));
    b.set_dts(ms(40 * number));
    b.set_duration(ms(40));
    if !number.is_multiple_of(50) {
        b.set_flags(gst::BufferFlags::DELTA_UNIT);
    }
    buffer
}

#[test]
fn muxing_is_as_fast_and_as_small_as_mp4mux() {
    within(|| {
        let key = encode(&i420(64, 48), 1, &[]).remove(0);
        let mut codec_data = vec![
            1, 66, 0, 10, 0xff, 0xe1, 0, 4, 0x67, 66, 0, 10, 1, 0, 1, 0x68,
        ];
        codec_data.extend([0; 8]);
        let h264 = gst::Caps::builder("video/x-h264")
            .field("stream-format", "avc")
            .field("alignment", "au")
            .field("codec_data", gst::Buffer::from_slice(codec_data))
            .field("width", 64)
            .field("height", 48)
            .field("framerate", gst::Fraction::new(25, 1))
            .build();
        let nnv = gst::Caps::builder("video/x-nnv")
            .field("stream-format", "byte-stream")
            .field("alignment", "au")
            .field("parsed", true)
            .build();
        let mut times = Vec::new();
        let mut overheads = Vec::new();
        for _ in 0..3 {
            for (mux, caps) in [
                ("nnvmp4mux", &nnv),
                ("mp4mux", &h264),
                ("nnvmp4mux fragment-duration=2000", &nnv),
                ("mp4mux fragment-duration=2000", &h264),
            ] {
                let samples = (0..10_000)
                    .map(|number| {
                        let whole = mux.starts_with("nnv") && number % 50 == 0;
                        timed(number, if whole { bytes(&key) } else { vec![7; 1000] })
                    })
                    .collect();
                let (took, overhead) = muxing(mux, caps, samples);
                times.push((mux, took));
                overheads.push((mux, overhead as f64 / 10_000.0));
            }
        }
        let best = |name: &str| {
            times
                .iter()
                .filter(|(n, _)| *n == name)
                .map(|(_, t)| *t)
                .min()
        };
        let overhead = |name: &str| overheads.iter().find(|(n, _)| *n == name).unwrap().1;
        for name in [
            "nnvmp4mux",
            "mp4mux",
            "nnvmp4mux fragment-duration=2000",
            "mp4mux fragment-duration=2000",
        ] {
            println!(
                "{name}: {:?} for 10 000 frames of 1 kB, {:.2} bytes a frame besides them",
                best(name).unwrap(),
                overhead(name)
            );
        }
        assert!(overhead("nnvmp4mux") <= 16.0);
        // Machines are busy: a factor of six is no noise.
        assert!(best("nnvmp4mux").unwrap() < 6 * best("mp4mux").unwrap());
    });
}

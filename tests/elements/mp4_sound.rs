// SPDX-License-Identifier: MPL-2.0
//! Sound and text keep their place beside the picture, through NNV in MP4 and back to Matroska.

use std::sync::{Arc, Mutex};

use gst::prelude::*;

use crate::mp4::{KINDS, by_name};
use crate::util::*;

const RATE: i64 = 48_000;
const SECOND: i64 = 1_000_000_000;
/// A tick of the test sound is this loud, and this long after the last one at least.
const LOUD: i16 = 4000;
const APART: i64 = RATE / 10;

/// An encoder may wait for more than a second of pictures, and the demuxer with it.
const QUEUE: &str = "queue max-size-time=0 max-size-buffers=0";

/// What a track holds once it is decoded.
#[derive(Debug, Default, Clone)]
struct Held {
    language: Option<String>,
    /// Running times in ns: of pictures, of ticks in the sound, of texts.
    times: Vec<i64>,
    /// Where the last of it ends.
    end: i64,
    /// Text as it is shown.
    texts: Vec<String>,
}

fn running(segment: &gst::Segment, time: gst::ClockTime) -> i64 {
    let segment = segment.downcast_ref::<gst::ClockTime>().unwrap();
    match segment.to_running_time_full(time).unwrap() {
        gst::Signed::Positive(t) => t.nseconds() as i64,
        gst::Signed::Negative(t) => -(t.nseconds() as i64),
    }
}

/// Notes what reaches a sink.
fn hold(sink: &gst::Element) -> Arc<Mutex<Held>> {
    let held = Arc::new(Mutex::new(Held::default()));
    let note = held.clone();
    let pad = sink.static_pad("sink").unwrap();
    let last_tick = Mutex::new(i64::MIN / 2);
    pad.add_probe(
        gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM,
        move |pad, probe| {
            let note = &mut *note.lock().unwrap();
            match &probe.data {
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Tag(tag) = event.view()
                        && let Some(code) = tag.tag().get::<gst::tags::LanguageCode>()
                    {
                        note.language = Some(code.get().to_owned());
                    }
                }
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
                    let begin = running(segment.segment(), buffer.pts().unwrap());
                    let caps = pad.current_caps().unwrap();
                    let name = caps.structure(0).unwrap().name().to_string();
                    let map = buffer.map_readable().unwrap();
                    let mut lasts = buffer.duration().map_or(0, |t| t.nseconds() as i64);
                    match name.as_str() {
                        "audio/x-raw" => {
                            let last_tick = &mut *last_tick.lock().unwrap();
                            for (index, sample) in map.chunks_exact(2).enumerate() {
                                let sample = i16::from_le_bytes([sample[0], sample[1]]);
                                let at = begin * RATE / SECOND + index as i64;
                                if sample.saturating_abs() > LOUD {
                                    if at - *last_tick > APART {
                                        note.times.push(at * SECOND / RATE);
                                    }
                                    *last_tick = at;
                                }
                            }
                            lasts = (map.len() / 2) as i64 * SECOND / RATE;
                        }
                        "text/x-raw" => {
                            let text = String::from_utf8_lossy(&map);
                            let text = text.trim_matches(['\0', '\n']).to_owned();
                            if text.is_empty() {
                                return gst::PadProbeReturn::Ok;
                            }
                            note.texts.push(text);
                            note.times.push(begin);
                        }
                        _ => note.times.push(begin),
                    }
                    note.end = note.end.max(begin + lasts);
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        },
    );
    held
}

/// Decodes all tracks of a file.
fn contents(path: &str, demuxer: &str) -> [Held; 4] {
    let sound = "queue ! decodebin ! audioconvert ! \
                 audio/x-raw,format=S16LE,channels=1,rate=48000 ! fakesink sync=false name";
    let pipeline = launch(&format!(
        "filesrc location={path} ! {demuxer} name=d \
         d.video_0 ! queue ! decodebin ! videoconvert ! fakesink sync=false name=video \
         d.audio_0 ! {sound}=first d.audio_1 ! {sound}=second \
         d.subtitle_0 ! queue ! fakesink sync=false name=text"
    ));
    let held = ["video", "first", "second", "text"].map(|name| hold(&by_name(&pipeline, name)));
    play(&pipeline).sound();
    held.map(|held| held.lock().unwrap().clone())
}

/// Three seconds with B frames, two sounds of which one begins late, and subtitles.
fn source() -> TempFile {
    let file = TempFile::new("source.mkv");
    let text = TempFile::with(
        "source.srt",
        b"1\n00:00:00,400 --> 00:00:01,000\nOne\n\n2\n00:00:01,600 --> 00:00:02,200\nTwo\n",
    );
    let tag = |code| format!("taginject tags=\"language-code={code}\"");
    let ticks = "wave=ticks tick-interval=500000000 samplesperbuffer=1024";
    let pcm = "audio/x-raw,format=S16LE,channels=1,rate=48000";
    play(&launch(&format!(
        "matroskamux name=m ! filesink location={} \
         videotestsrc num-buffers=75 pattern=ball ! \
         video/x-raw,format=I420,width=64,height=48,framerate=25/1 ! \
         x264enc bframes=2 b-adapt=false key-int-max=25 ! h264parse ! m.video_0 \
         audiotestsrc num-buffers=141 {ticks} ! {pcm} ! flacenc ! {} ! queue ! m.audio_0 \
         audiotestsrc num-buffers=130 {ticks} timestamp-offset=200000000 ! {pcm} ! flacenc ! {} \
         ! queue ! m.audio_1 \
         filesrc location={} ! subparse ! {} ! queue ! m.subtitle_0",
        file.path(),
        tag("en"),
        tag("fr"),
        text.path(),
        tag("de"),
    )))
    .sound();
    file
}

/// As README has it.
fn to_mp4(from: &TempFile, kind: &str) -> TempFile {
    let to = TempFile::new("film.mp4");
    play(&launch(&format!(
        "filesrc location={} ! matroskademux name=d nnvmp4mux name=m {kind} ! \
         filesink location={} \
         d.video_0 ! {QUEUE} ! decodebin ! videoconvert ! nnvenc bframes=7 ! m.video_0 \
         d.audio_0 ! {QUEUE} ! decodebin ! audioconvert ! audioresample ! opusenc ! m.audio_0 \
         d.audio_1 ! {QUEUE} ! decodebin ! audioconvert ! avenc_aac ! m.audio_1 \
         d.subtitle_0 ! {QUEUE} ! m.subtitle_0",
        from.path(),
        to.path()
    )))
    .sound();
    to
}

/// With a sound codec that begins anywhere: `opusenc` in Matroska begins 7 ms late where its sound
/// does not begin at 0, without MP4, too.
fn to_mkv(from: &TempFile) -> TempFile {
    let to = TempFile::new("back.mkv");
    play(&launch(&format!(
        "filesrc location={} ! qtdemux name=d matroskamux name=m ! filesink location={} \
         d.video_0 ! {QUEUE} ! decodebin ! videoconvert ! x264enc ! h264parse ! m.video_0 \
         d.audio_0 ! {QUEUE} ! decodebin ! audioconvert ! audioresample ! flacenc ! m.audio_0 \
         d.audio_1 ! {QUEUE} ! decodebin ! audioconvert ! audioresample ! flacenc ! m.audio_1 \
         d.subtitle_0 ! {QUEUE} ! m.subtitle_0",
        from.path(),
        to.path()
    )))
    .sound();
    to
}

fn compare(before: &[Held; 4], after: &[Held; 4], what: &str) {
    const OFFSET: i64 = 5_000_000;
    /// Of AAC.
    const PACKET: i64 = 1024 * SECOND / RATE;
    for (track, (before, after)) in before.iter().zip(after).enumerate() {
        let what = format!("{what}, track {track}");
        assert_eq!(after.language, before.language, "{what}");
        assert_eq!(after.texts, before.texts, "{what}");
        assert_eq!(after.times.len(), before.times.len(), "{what}: {after:?}");
        for (after, before) in after.times.iter().zip(&before.times) {
            let off = after - before;
            assert!(
                off.abs() <= OFFSET,
                "{what}: {before} ns is off by {off} ns"
            );
        }
        let off = after.end - before.end;
        assert!(off.abs() <= PACKET, "{what}: its end is off by {off} ns");
    }
}

#[test]
fn nothing_is_lost_or_moved_on_the_way_to_mp4_and_back() {
    within(|| {
        let source = source();
        let before = contents(source.path(), "matroskademux");
        assert_eq!(before[0].times.len(), 75);
        assert!(before[1].times.len() >= 6 && before[2].times.len() >= 5);
        assert_eq!(before[3].texts, ["One", "Two"]);
        let languages = before.each_ref().map(|held| held.language.as_deref());
        assert_eq!(languages[1..], [Some("en"), Some("fr"), Some("de")]);
        for kind in KINDS {
            let film = to_mp4(&source, kind);
            let inside = contents(film.path(), "qtdemux");
            compare(&before, &inside, &format!("in MP4 {kind}"));
            let back = to_mkv(&film);
            let after = contents(back.path(), "matroskademux");
            compare(&before, &after, &format!("back from MP4 {kind}"));
        }
    });
}

#[test]
fn priming_of_encoders_is_as_the_table_says() {
    within(|| {
        for encoder in ["avenc_aac", "voaacenc", "opusenc"] {
            if gst::ElementFactory::find(encoder).is_none() {
                eprintln!("NOT TESTED: there is no {encoder}");
                continue;
            }
            let source = "audiotestsrc wave=ticks tick-interval=500000000 num-buffers=94 \
                          samplesperbuffer=1000 ! audio/x-raw,format=S16LE,channels=1,rate=48000";
            let held = |pipeline: &gst::Element| {
                let held = hold(&by_name(pipeline, "ears"));
                play(pipeline).sound();
                held.lock().unwrap().clone()
            };
            let before = held(&launch(&format!(
                "{source} ! fakesink name=ears sync=false"
            )));
            for kind in KINDS {
                let file = TempFile::new("primed.mp4");
                // Behind the border of a bin, too.
                play(&launch(&format!(
                    "{source} ! ( audioconvert ! {encoder} ! queue ) ! \
                     nnvmp4mux {kind} ! filesink location={}",
                    file.path()
                )))
                .sound();
                let after = held(&launch(&format!(
                    "filesrc location={} ! qtdemux ! decodebin ! audioconvert ! \
                     audio/x-raw,format=S16LE,channels=1,rate=48000 ! \
                     fakesink name=ears sync=false",
                    file.path()
                )));
                assert_eq!(after.times.len(), before.times.len(), "{encoder} {kind}");
                for (after, before) in after.times.iter().zip(&before.times) {
                    let off = after - before;
                    assert!(off.abs() < 500_000, "{encoder} {kind}: {off} ns off");
                }
            }
        }
    });
}

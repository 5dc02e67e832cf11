// SPDX-License-Identifier: MPL-2.0
//! Streams that change on their way, files that were cut off, sinks that are full.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gst::prelude::*;

use crate::mp4::{
    AAC, FRAMES, KINDS, PULLED, PUSHED, VIDEO, by_name, decode_mp4, demux, kinds_of, make, plain,
};
use crate::util::*;

const FRAGMENTS: &str = "fragment-duration=400";

/// Two pictures of different size behind each other, ten frames each.
const CHANGE: &str = "concat name=c \
    videotestsrc num-buffers=10 pattern=ball ! video/x-raw,format=I420,width=64,height=48,\
    framerate=25/1 ! nnvenc bframes=0 ! c. \
    videotestsrc num-buffers=10 pattern=ball ! video/x-raw,format=I420,width=96,height=48,\
    framerate=25/1,pixel-aspect-ratio=1/1 ! nnvenc bframes=0 ! c. c.";

fn one_error(outcome: &Outcome, part: &str) {
    assert_eq!(outcome.errors.len(), 1, "{:?}", outcome.errors);
    assert!(outcome.errors[0].contains(part), "{:?}", outcome.errors);
}

#[test]
fn a_picture_that_changes_plays_from_a_finished_file() {
    within(|| {
        for kind in ["", "faststart=true"] {
            let file = TempFile::new("change.mp4");
            play(&launch(&format!(
                "{CHANGE} ! nnvmp4mux {kind} ! filesink location={}",
                file.path()
            )))
            .sound();
            for source in [PULLED, PUSHED] {
                if kind.is_empty() && source == PUSHED {
                    continue;
                }
                let shown = decode_mp4(file.path(), source).sound();
                let sizes: Vec<_> = shown.shown.iter().map(|s| s.size).collect();
                let expected = [[(64, 48); 10], [(96, 48); 10]].concat();
                assert_eq!(sizes, expected, "{kind} {source}");
                let times: Vec<_> = shown.shown.iter().map(|s| s.pts.unwrap()).collect();
                assert_eq!(times, (0..20).map(|n| ms(40 * n)).collect::<Vec<_>>());
                // Square pixels in both, whatever the track's size is.
                for caps in &shown.caps {
                    let aspect = caps.structure(0).unwrap().get("pixel-aspect-ratio");
                    let aspect = aspect.unwrap_or(gst::Fraction::new(1, 1));
                    assert_eq!(aspect, gst::Fraction::new(1, 1), "{caps}");
                }
            }
            // There and back again.
            let pipeline = launch(&format!(
                "filesrc location={} ! qtdemux name=d d.video_0 ! queue ! nnvparse ! nnvdec ! \
                 fakesink name=out sync=false",
                file.path()
            ));
            let seen = record(&by_name(&pipeline, "out"));
            pipeline.set_state(gst::State::Paused).unwrap();
            pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
            for (frame, width) in [(15, 96), (3, 64), (19, 96), (0, 64)] {
                let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
                pipeline.seek_simple(flags, ms(40 * frame + 5)).unwrap();
                pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
                let shown = seen.lock().unwrap().0.first().cloned().unwrap();
                assert_eq!(shown.size.0, width, "frame {frame}");
            }
            pipeline.set_state(gst::State::Null).unwrap();
        }
    });
}

#[test]
fn a_picture_that_changes_is_one_error_in_fragments() {
    within(|| {
        let file = TempFile::new("change.mp4");
        let outcome = play(&launch(&format!(
            "{CHANGE} ! nnvmp4mux {FRAGMENTS} ! filesink location={}",
            file.path()
        )));
        one_error(&outcome, "fragment-duration=0");
    });
}

#[test]
fn sound_that_changes_is_one_error() {
    within(|| {
        for kind in KINDS {
            let file = TempFile::new("change.mp4");
            let outcome = play(&launch(&format!(
                "concat name=c nnvmp4mux name=m {kind} ! filesink location={} c. ! m.audio_0 \
                 audiotestsrc num-buffers=20 ! audio/x-raw,rate=48000 ! avenc_aac ! c. \
                 audiotestsrc num-buffers=20 ! audio/x-raw,rate=44100 ! avenc_aac ! c.",
                file.path()
            )));
            one_error(&outcome, "new file");
        }
    });
}

#[test]
fn splitmuxsink_begins_a_new_file_where_the_picture_changes() {
    within(|| {
        for kind in ["faststart=false", FRAGMENTS] {
            let folder = TempFile::new("parts");
            std::fs::create_dir_all(&folder.0).unwrap();
            play(&launch(&format!(
                "{CHANGE} ! splitmuxsink muxer=\"nnvmp4mux {kind}\" location={}/part%02d.mp4",
                folder.path()
            )))
            .sound();
            for (part, size) in [(0, (64, 48)), (1, (96, 48))] {
                let path = folder.0.join(format!("part{part:02}.mp4"));
                let shown = decode_mp4(path.to_str().unwrap(), PULLED).sound().shown;
                let sizes: Vec<_> = shown.iter().map(|s| s.size).collect();
                assert_eq!(sizes, [size; 10], "{kind}");
            }
            std::fs::remove_dir_all(&folder.0).unwrap();
        }
    });
}

#[test]
fn a_file_cut_off_anywhere_plays_to_its_last_whole_fragment() {
    within(|| {
        let made = make(FRAGMENTS);
        let data = std::fs::read(&made.file.0).unwrap();
        // Where the head and each fragment end.
        let mut ends = Vec::new();
        let mut at = 0;
        while at < data.len() {
            let size = u32::from_be_bytes(data[at..at + 4].try_into().unwrap()) as usize;
            at += size;
            if matches!(&data[at - size + 4..at - size + 8], b"moov" | b"mdat") {
                ends.push(at);
            }
        }
        assert_eq!((ends.len(), at), (6, data.len()));
        let all = demux(made.file.path(), PULLED, &["video_0", "audio_0", "audio_1"]);
        // Key frames each 480 ms: what is whole in so many fragments.
        let whole = |fragments: usize, track: usize| {
            // Sound is decoded when it is shown, pictures two frames earlier; avenc_aac primes.
            let end = 480_000_000 * fragments as i64 - 120_000_000;
            let samples = &all[track].0;
            let whole = samples.iter().take_while(|s| s.pts.unwrap() < end).count();
            match track {
                0 => (12 * fragments).min(FRAMES),
                _ if fragments == 0 => 0,
                _ => whole,
            }
        };
        // Each border and its neighbours, and many places between.
        let mut cuts: Vec<usize> = ends
            .iter()
            .flat_map(|end| [end - 1, *end, end + 1, end + 7, end + 8, end + 9, end + 40])
            .collect();
        let mut random = 1_u64;
        for _ in 0..60 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            cuts.push(ends[0] + (random >> 33) as usize % (data.len() - ends[0]));
        }
        let linear = plain(&made.video).checksums();
        for (number, cut) in cuts.iter().filter(|cut| **cut <= data.len()).enumerate() {
            let file = TempFile::with("cut.mp4", &data[..*cut]);
            let fragments = ends.iter().skip(1).filter(|end| *end <= cut).count();
            for source in [PULLED, PUSHED] {
                let pads = ["video_0", "audio_0", "audio_1"];
                let what = format!("cut at {cut} of {ends:?}, {source}");
                let out = samples(file.path(), source, &pads);
                for (track, got) in out.iter().enumerate() {
                    let expected = whole(fragments, track);
                    assert!(got.len() >= expected, "{what}: {} of {expected}", got.len());
                    let known = all[track].0.iter().map(|s| s.crc);
                    assert!(
                        got.iter()
                            .copied()
                            .zip(known)
                            .take(expected)
                            .all(|(a, b)| a == b),
                        "{what}: other samples"
                    );
                }
                // The picture, too, now and then.
                if number % 16 == 0 && fragments > 0 {
                    let shown = decode_mp4(file.path(), source).checksums();
                    let expected = (12 * fragments).min(FRAMES);
                    assert!(shown.len() >= expected, "{what}: {}", shown.len());
                    assert_eq!(shown[..expected], linear[..expected], "{what}");
                }
            }
        }
    });
}

/// Checksums of all samples that a damaged file gives, whatever the demuxer says of it.
fn samples(path: &str, source: &str, pads: &[&str]) -> Vec<Vec<u32>> {
    let branches: String = pads
        .iter()
        .map(|pad| format!(" d.{pad} ! queue ! fakesink name={pad} sync=false async=false"))
        .collect();
    let pipeline = launch(&format!(
        "{source} location={path} ! qtdemux name=d {branches}"
    ));
    let logs: Vec<_> = pads
        .iter()
        .map(|pad| crate::mp4::watch(&by_name(&pipeline, pad).static_pad("sink").unwrap()))
        .collect();
    play(&pipeline);
    logs.iter()
        .map(|log| log.lock().unwrap().iter().map(|s| s.crc).collect())
        .collect()
}

/// Writes a file to a sink that takes so many bytes.
fn full_after(kind: &str, limit: usize) -> (Vec<u8>, Outcome) {
    let file = TempFile::new("full.mp4");
    let pipeline = launch(&format!(
        "nnvmp4mux name=mux {kind} ! filesink name=sink location={} {VIDEO} ! mux.video_0 \
         {AAC} ! queue ! mux.audio_0",
        file.path()
    ));
    let sink = by_name(&pipeline, "sink");
    let written = AtomicUsize::new(0);
    let told = Mutex::new(false);
    let element = sink.downgrade();
    let full = move |size: usize| {
        let full = written.fetch_add(size, Ordering::Relaxed) + size > limit;
        if full && !std::mem::replace(&mut *told.lock().unwrap(), true) {
            // As filesink says it.
            let element = element.upgrade().unwrap();
            gst::element_error!(element, gst::ResourceError::NoSpaceLeft, ("disk full"));
        }
        full
    };
    sink.static_pad("sink").unwrap().add_probe(
        gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST,
        move |_, probe| {
            let size = match &probe.data {
                Some(gst::PadProbeData::Buffer(buffer)) => buffer.size(),
                Some(gst::PadProbeData::BufferList(list)) => list.calculate_size(),
                _ => 0,
            };
            if full(size) {
                probe.flow_res = Err(gst::FlowError::Error);
                probe.data = None;
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        },
    );
    let outcome = play(&pipeline);
    (std::fs::read(&file.0).unwrap(), outcome)
}

#[test]
fn a_full_disk_is_one_error_and_no_broken_index() {
    within(|| {
        let (whole, outcome) = full_after("", usize::MAX);
        outcome.sound();
        for kind in KINDS {
            for share in [1, 3, 7] {
                let (left, outcome) = full_after(kind, whole.len() * share / 8);
                one_error(&outcome, "disk full");
                if kind == FRAGMENTS {
                    // Whole fragments, and nothing behind them.
                    let order = kinds_of(&left);
                    assert!(
                        order.len() < 12 && order.len().is_multiple_of(2),
                        "{order:?}"
                    );
                    continue;
                }
                if kind == "faststart=true" {
                    // The index went out first; what follows is as far as there was room.
                    continue;
                }
                // No index that would speak of data which are not there.
                let index = left.windows(4).position(|w| w == b"moov");
                assert!(index.is_none(), "{kind} {share}");
            }
        }
    });
}

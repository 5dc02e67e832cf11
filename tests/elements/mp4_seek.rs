// SPDX-License-Identifier: MPL-2.0
//! How long a seek takes in a long file. A measurement, so it runs only by name:
//! `cargo test --release --test elements seeks_in_ten_minutes -- --ignored --nocapture`

use std::time::{Duration, Instant};

use gst::prelude::*;
use nnv_mp4::file::FileMuxer;
use nnv_mp4::{Codec, Piece, Rotation, Sample, Track};

use crate::mp4::by_name;
use crate::util::*;

const GROUP: usize = 64;
const FRAME: i64 = 40_000_000;
/// Ten minutes at 25 frames/s.
const FRAMES: usize = 15_000;
const PACKET: i64 = 20_000_000;

/// What `description` gives to its sink `units`.
fn units(description: &str) -> Vec<gst::Buffer> {
    let pipeline = launch(description);
    let units = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = units.clone();
    let pad = by_name(&pipeline, "units").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &probe.data {
            kept.lock().unwrap().push(buffer.clone());
        }
        gst::PadProbeReturn::Ok
    });
    play(&pipeline).sound();
    units.lock().unwrap().clone()
}

/// A group of pictures and a second of sound, again and again for ten minutes.
fn long_file() -> TempFile {
    let group = units(&format!(
        "videotestsrc num-buffers={GROUP} pattern=smpte ! \
         video/x-raw,format=I420,width=640,height=360,framerate=25/1 ! \
         nnvenc key-int-max={GROUP} speed-preset=fast ! nnvparse ! fakesink name=units sync=false"
    ));
    assert_eq!(group.iter().filter(|unit| is_key(unit)).count(), 1);
    let sound = units(
        "audiotestsrc num-buffers=50 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2 ! \
         opusenc ! fakesink name=units sync=false",
    );
    let first = bytes(&group[0]);
    let unit = nnv_bitstream::AccessUnit::parse(&first).unwrap();
    let scanned = nnv_bitstream::UnitScanner::new();
    let range = unit.sequence_unit.unwrap();
    let nnv_bitstream::Scan::Unit(sequence) = scanned.scan(&first[range], true) else {
        panic!("a sequence header")
    };
    let track = |codec| Track {
        codec,
        language: None,
        rotation: Rotation::None,
    };
    let opus = Codec::Opus {
        channels: 2,
        pre_skip: 312,
        rate: 48_000,
        gain: 0,
    };
    let video = Codec::Nnv(sequence.payload.to_vec());
    let mut muxer = FileMuxer::new(vec![track(video), track(opus)]).unwrap();
    let mut data = Vec::new();
    let mut put = |pieces: Vec<Piece<Vec<u8>>>| {
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) | Piece::Data(bytes) => data.extend(bytes),
            }
        }
    };
    let sample = |unit: &gst::Buffer, pts: i64, duration: i64| Sample {
        data: Piece::Data(bytes(unit)),
        pts,
        dts: None,
        duration: Some(duration as u64),
        decoded: None,
        sync: is_key(unit),
    };
    for number in 0..FRAMES {
        let unit = &group[number % GROUP];
        let own = unit.pts().unwrap().nseconds() as i64;
        let begin = (number / GROUP * GROUP) as i64 * FRAME;
        put(muxer.push(0, sample(unit, begin + own, FRAME)).unwrap());
        for half in 0..2 {
            let packet = &sound[1 + (2 * number + half) % 40];
            let pts = number as i64 * FRAME + half as i64 * PACKET;
            put(muxer.push(1, sample(packet, pts, PACKET)).unwrap());
        }
    }
    put(muxer.end().unwrap());
    let head = muxer.index_before(&[]).unwrap();
    TempFile::with("long.mp4", &[head, data].concat())
}

#[test]
#[ignore = "a measurement"]
fn seeks_in_ten_minutes_of_video() {
    within(|| {
        let file = long_file();
        let pipeline = launch(&format!(
            "filesrc location={} ! qtdemux name=d d.video_0 ! queue ! nnvparse ! nnvdec ! \
             fakesink sync=false name=out d.audio_0 ! queue ! opusdec ! fakesink sync=false",
            file.path()
        ));
        pipeline.set_state(gst::State::Paused).unwrap();
        pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
        let length = pipeline.query_duration::<gst::ClockTime>().unwrap();
        assert_eq!(length.seconds(), 600);
        let key = gst::SeekFlags::KEY_UNIT | gst::SeekFlags::SNAP_BEFORE;
        for (name, flags, most) in [
            ("key unit", key, Duration::from_millis(500)),
            (
                "exact",
                gst::SeekFlags::ACCURATE,
                Duration::from_millis(1500),
            ),
        ] {
            let mut times: Vec<_> = [301, 17, 588, 450, 3, 222, 599, 100, 377]
                .map(|second| {
                    let begin = Instant::now();
                    let to = gst::ClockTime::from_seconds(second);
                    pipeline
                        .seek_simple(gst::SeekFlags::FLUSH | flags, to)
                        .unwrap();
                    pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
                    begin.elapsed()
                })
                .into();
            times.sort_unstable();
            let median = times[times.len() / 2];
            println!(
                "{name}: median {median:?}, worst {:?}",
                times[times.len() - 1]
            );
            assert!(median <= most, "{name}: {median:?}");
        }
        pipeline.set_state(gst::State::Null).unwrap();
    });
}

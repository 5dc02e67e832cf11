// SPDX-License-Identifier: MPL-2.0
//! What rides along with the pictures: captions, time codes, user data, tags; through files, RTP
//! and MP4, on the right frame and once.

use std::sync::{Arc, Mutex};

use gst::meta::CustomMeta;
use gst::prelude::*;
use gst_video::video_meta::VideoSeiUserDataUnregisteredMeta;
use gst_video::{
    VideoAFDMeta, VideoAFDSpec, VideoAFDValue, VideoBarMeta, VideoCaptionMeta, VideoCaptionType,
    VideoTimeCode, VideoTimeCodeFlags, VideoTimeCodeMeta,
};
use nnv_bitstream::metadata::{CaptionFormat, FrameItem};
use nnv_bitstream::{FrameMetadata, UnitType, write_unit};

use crate::util::*;

const T35: &str = "GstNnvT35Meta";

/// The start of an HDR10+ message: country, provider, application 4, a byte that counts.
fn hdr10_plus(t: u8) -> Vec<u8> {
    vec![0xb5, 0x00, 0x3c, 0x00, 0x01, 0x04, 0x01, 0x40, t]
}

/// Puts something of every kind onto frame `t`, other values on each.
fn decorate(buffer: &mut gst::BufferRef, t: u32) {
    let n = t as u8;
    for (kind, size) in [
        (VideoCaptionType::Cea608Raw, 2),
        (VideoCaptionType::Cea608S3341a, 3),
        (VideoCaptionType::Cea708Raw, 60),
        (VideoCaptionType::Cea708Cdp, 93),
    ] {
        VideoCaptionMeta::add(buffer, kind, &vec![n; size]);
    }
    VideoAFDMeta::add(
        buffer,
        n % 2,
        [
            VideoAFDSpec::DvbEtsi,
            VideoAFDSpec::AtscA53,
            VideoAFDSpec::SmpteSt20161,
        ][t as usize % 3],
        [
            VideoAFDValue::_43Full169Full,
            VideoAFDValue::_169Letter43Center,
        ][t as usize % 2],
    );
    VideoBarMeta::add(buffer, n % 2, t.is_multiple_of(2), t, 1000 + t);
    // The jam is in another time zone, and not on a full second.
    let zone = gst::glib::TimeZone::new(Some("-03:30"));
    let jam = gst::glib::DateTime::new(&zone, 2024, 2, 29, 23, 59, 58.25 + f64::from(t) / 64.0);
    let flags = VideoTimeCodeFlags::DROP_FRAME;
    let rate = gst::Fraction::new(30_000, 1001);
    let jam = t.is_multiple_of(2).then(|| jam.unwrap());
    let code = VideoTimeCode::new(rate, jam.as_ref(), flags, 10, 11, 12, t % 30, 0);
    VideoTimeCodeMeta::add(buffer, &code.try_into().unwrap());
    for i in 0..2 {
        VideoSeiUserDataUnregisteredMeta::add(buffer, &[n + i; 16], &vec![n; 5 + n as usize]);
    }
    // One, or several.
    let mut meta = CustomMeta::add(buffer, T35).unwrap();
    let messages = [hdr10_plus(n), vec![0xb5, n]].map(gst::Buffer::from_slice);
    match t % 2 {
        0 => meta.mut_structure().set("data", gst::Array::new(messages)),
        _ => meta.mut_structure().set("data", messages[0].copy()),
    }
}

/// All that rides on a buffer, in words.
fn riders(buffer: &gst::BufferRef) -> Vec<String> {
    let mut out = Vec::new();
    for m in buffer.iter_meta::<VideoCaptionMeta>() {
        out.push(format!("captions {:?} {:?}", m.caption_type(), m.data()));
    }
    for m in buffer.iter_meta::<VideoAFDMeta>() {
        out.push(format!("afd {} {:?} {:?}", m.field(), m.spec(), m.afd()));
    }
    for m in buffer.iter_meta::<VideoBarMeta>() {
        let (a, b) = (m.bar_data1(), m.bar_data2());
        out.push(format!("bars {} {} {a} {b}", m.field(), m.is_letterbox()));
    }
    for m in buffer.iter_meta::<VideoTimeCodeMeta>() {
        let tc = m.tc();
        let jam = tc.latest_daily_jam().map(|jam| {
            let offset = jam.utc_offset().as_seconds();
            (jam.to_unix(), jam.microsecond(), offset)
        });
        out.push(format!("time {tc} {} {:?} {jam:?}", tc.fps(), tc.flags()));
    }
    for m in buffer.iter_meta::<VideoSeiUserDataUnregisteredMeta>() {
        out.push(format!("user {:?} {:?}", m.uuid(), m.data()));
    }
    let mut count = 0;
    buffer.foreach_meta(|meta| {
        count += usize::from(meta.api().name().contains(T35));
        std::ops::ControlFlow::Continue(())
    });
    if let Ok(m) = CustomMeta::from_buffer(buffer, T35) {
        let messages = match m.structure().get::<gst::ArrayRef>("data") {
            Ok(list) => list.as_slice().iter().map(|v| v.get().unwrap()).collect(),
            Err(_) => vec![m.structure().get::<gst::Buffer>("data").unwrap()],
        };
        for message in messages {
            out.push(format!("t35 {:?}", bytes(&message)));
        }
        assert_eq!(count, 1);
    }
    out
}

fn expected(t: u32) -> Vec<String> {
    let mut buffer = gst::Buffer::new();
    decorate(buffer.get_mut().unwrap(), t);
    let words = riders(&buffer);
    assert_eq!(words.len() as u32, 4 + 1 + 1 + 1 + 2 + 2 - t % 2);
    words
}

/// Access units of frames that all have company, but those that `bare` names; and a stream with a
/// title.
pub fn encoded(
    info: &gst_video::VideoInfo,
    count: u32,
    bare: &[u32],
    properties: &[(&str, &str)],
) -> Vec<gst::Buffer> {
    let mut h = encoder(info, properties);
    let mut tags = gst::TagList::new();
    let list = tags.get_mut().unwrap();
    list.add::<gst::tags::Title>(&"Of all kinds", gst::TagMergeMode::Append);
    list.add::<gst::tags::ImageOrientation>(&"rotate-90", gst::TagMergeMode::Append);
    assert!(h.push_event(gst::event::Tag::new(tags)));
    for t in 0..count {
        let mut buffer = buffer(info, t, 0);
        if !bare.contains(&t) {
            decorate(buffer.get_mut().unwrap(), t);
        }
        h.push(buffer).unwrap();
    }
    h.push_event(gst::event::Eos::new());
    pull_all(&mut h)
}

/// What comes out of a pipeline's sink `out`: times and riders.
type Seen = Vec<(Option<gst::ClockTime>, Vec<String>)>;

fn run(description: &str) -> (Seen, Outcome) {
    let pipeline = launch(description);
    let sink = pipeline
        .downcast_ref::<gst::Bin>()
        .unwrap()
        .by_name("out")
        .unwrap();
    let seen = Arc::new(Mutex::new(Seen::new()));
    let record = seen.clone();
    let pad = sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &probe.data {
            record.lock().unwrap().push((buffer.pts(), riders(buffer)));
        }
        gst::PadProbeReturn::Ok
    });
    let outcome = play(&pipeline);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (seen, outcome)
}

/// Checks that a file has `count` frames that [`encoded`] made, all with their company.
pub fn assert_riders(path: &str, count: usize) {
    let (seen, outcome) = run(&format!("filesrc location={path} ! {SHOW}"));
    let tags = outcome.sound().tags.unwrap();
    assert_eq!(
        tags.get::<gst::tags::Title>().unwrap().get(),
        "Of all kinds"
    );
    let turned = tags.get::<gst::tags::ImageOrientation>().unwrap();
    assert_eq!(turned.get(), "rotate-90");
    assert_eq!(seen.len(), count);
    for (t, (_, words)) in (0..).zip(seen) {
        assert_eq!(words, expected(t), "{path}, frame {t}");
    }
}

const SHOW: &str = "nnvparse ! nnvdec ! fakesink name=out sync=false";

#[test]
fn metadata_goes_through_files_rtp_and_mp4_on_the_right_frame() {
    within(|| {
        // Low delay; reordered, in batches; key frames alone.
        for (bframes, interval) in [("0", "5"), ("7", "20"), ("3", "6"), ("0", "1")] {
            let settings = [("bframes", bframes), ("key-int-max", interval)];
            let units = encoded(&i420(64, 48), 20, &[3, 11], &settings);
            let file = TempFile::with("riders.nnv", &join(&units));
            let mp4 = TempFile::new("riders.mp4");
            let path = file.path();
            play(&launch(&format!(
                "filesrc location={path} ! nnvparse ! nnvmp4mux ! filesink location={}",
                mp4.path()
            )))
            .sound();
            for description in [
                format!("filesrc location={path} ! {SHOW}"),
                format!(
                    "filesrc location={path} ! nnvparse ! rtpnnvpay mtu=150 ! rtpnnvdepay ! {SHOW}"
                ),
                format!("filesrc location={} ! qtdemux ! {SHOW}", mp4.path()),
            ] {
                let (seen, outcome) = run(&description);
                outcome.sound();
                assert_eq!(seen.len(), 20, "{description}");
                for (t, (_, words)) in (0..).zip(seen) {
                    let expected = match t {
                        3 | 11 => Vec::new(),
                        t => expected(t),
                    };
                    assert_eq!(
                        words, expected,
                        "frame {t}, bframes {bframes}: {description}"
                    );
                }
            }
        }
    });
}

#[test]
fn metadata_is_not_doubled_where_it_also_rides_on_coded_buffers() {
    within(|| {
        for enc in ["nnvenc", "nnvenc bframes=3"] {
            let pipeline = launch(&format!(
                "videotestsrc num-buffers=9 ! video/x-raw,width=64,height=48,framerate=25/1 ! \
                 identity name=in ! {enc} ! nnvdec ! fakesink name=out sync=false"
            ));
            let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
            let source = bin.by_name("in").unwrap().static_pad("sink").unwrap();
            let t = Mutex::new(0);
            source.add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
                if let Some(gst::PadProbeData::Buffer(buffer)) = &mut probe.data {
                    let mut t = t.lock().unwrap();
                    decorate(buffer.make_mut(), *t);
                    *t += 1;
                }
                gst::PadProbeReturn::Ok
            });
            let seen = Arc::new(Mutex::new(Vec::new()));
            let record = seen.clone();
            let sink = bin.by_name("out").unwrap().static_pad("sink").unwrap();
            sink.add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
                if let Some(gst::PadProbeData::Buffer(buffer)) = &probe.data {
                    record.lock().unwrap().push(riders(buffer));
                }
                gst::PadProbeReturn::Ok
            });
            play(&pipeline).sound();
            let seen = seen.lock().unwrap();
            assert_eq!(seen.len(), 9);
            for (t, words) in (0..).zip(seen.iter()) {
                assert_eq!(*words, expected(t), "{enc}, frame {t}");
            }
        }
    });
}

#[test]
fn what_does_not_fit_is_left_out_with_one_word_about_it() {
    within(|| {
        let pipeline = launch(
            "videotestsrc num-buffers=3 ! video/x-raw,width=64,height=48,framerate=25/1 ! \
             identity name=in ! nnvenc name=enc ! fakesink name=out",
        );
        let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
        let source = bin.by_name("in").unwrap().static_pad("sink").unwrap();
        source.add_probe(gst::PadProbeType::BUFFER, |_, probe| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &mut probe.data {
                let buffer = buffer.make_mut();
                VideoSeiUserDataUnregisteredMeta::add(buffer, &[1; 16], &[7; 70_000]);
                VideoCaptionMeta::add(buffer, VideoCaptionType::Cea608Raw, &[1, 2]);
            }
            gst::PadProbeReturn::Ok
        });
        let found = Arc::new(Mutex::new(Vec::new()));
        let record = found.clone();
        let src = bin.by_name("enc").unwrap().static_pad("src").unwrap();
        src.add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &probe.data {
                let found = FrameMetadata::of_access_unit(&bytes(buffer));
                record.lock().unwrap().push(found.unwrap());
            }
            gst::PadProbeReturn::Ok
        });
        let warnings = play_warnings(&pipeline);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("1 piece(s)"), "{warnings:?}");
        let captions = FrameItem::Captions(CaptionFormat::Cea608, vec![1, 2]);
        let found = found.lock().unwrap();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|m| m.items() == [captions.clone()]));
    });
}

/// Plays a pipeline whose sink takes coded video, and gives its warnings.
fn play_warnings(pipeline: &gst::Element) -> Vec<String> {
    let mut outcome = Outcome::default();
    pipeline.set_state(gst::State::Playing).unwrap();
    wait(pipeline, &mut outcome);
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(outcome.eos, "{:?}", outcome.errors);
    outcome.warnings
}

#[test]
fn damage_takes_its_own_metadata_alone() {
    within(|| {
        let units = encoded(&i420(64, 48), 8, &[], &[("key-int-max", "4")]);
        // The frame's bytes are damaged, its metadata is not.
        let mut damaged: Vec<Vec<u8>> = units.iter().map(bytes).collect();
        let at = damaged[5].len() - 6;
        damaged[5][at] ^= 1;
        let mut dec =
            gst_check::Harness::with_element(&element("nnvdec", &[]), Some("sink"), Some("src"));
        let caps = "video/x-nnv, stream-format=byte-stream, alignment=au, parsed=true, \
                    width=64, height=48, framerate=25/1";
        dec.set_src_caps(caps.parse().unwrap());
        for (t, data) in damaged.iter().enumerate().filter(|(t, _)| *t != 2) {
            let mut buffer = gst::Buffer::from_slice(data.clone());
            buffer.get_mut().unwrap().set_pts(ms(40 * t as u64));
            dec.push(buffer).unwrap();
        }
        dec.push_event(gst::event::Eos::new());
        let shown = pull_all(&mut dec);
        let frames: Vec<u64> = shown
            .iter()
            .map(|b| b.pts().unwrap().mseconds() / 40)
            .collect();
        // The lost one is gone with its metadata; what is shown in place of others has their own.
        assert!(frames.contains(&5) && frames.contains(&3), "{frames:?}");
        for (buffer, t) in shown.iter().zip(frames) {
            assert_eq!(riders(buffer), expected(t as u32), "frame {t}");
        }
    });
}

#[test]
fn unknown_units_are_passed_over_or_refused_by_their_number() {
    within(|| {
        let units = encoded(&i420(64, 48), 4, &[], &[]);
        let with = |code: u8| {
            let mut data = Vec::new();
            for unit in &units {
                let unit = bytes(unit);
                let mut extra = Vec::new();
                write_unit(&mut extra, UnitType::from_code(code), &[1, 2, 3]).unwrap();
                // Behind the sequence header, where there is one: right before the frame.
                let frame = frame_offset(&unit);
                data.extend([&unit[..frame], &extra, &unit[frame..]].concat());
            }
            TempFile::with("extra.nnv", &data)
        };
        let file = with(127);
        let (seen, outcome) = run(&format!("filesrc location={} ! {SHOW}", file.path()));
        outcome.sound();
        assert_eq!(seen.len(), 4);
        let file = with(130);
        let (seen, outcome) = run(&format!("filesrc location={} ! {SHOW}", file.path()));
        assert_eq!(seen.len(), 0);
        let said = outcome.errors.join(" ");
        assert!(
            said.contains("unit of type 130"),
            "{said} {:?}",
            outcome.warnings
        );
        // A decoder without a parser.
        let text = decoder_refuses(&std::fs::read(&file.0).unwrap());
        assert!(text.contains("unit of type 130"), "{text}");
    });
}

/// Where the frame unit of an access unit begins.
fn frame_offset(unit: &[u8]) -> usize {
    let mut at = 0;
    while let nnv_bitstream::Peek::Sound(kind, payload) = nnv_bitstream::peek_unit(&unit[at..]) {
        if kind == UnitType::Frame {
            return at;
        }
        at += payload.end + nnv_bitstream::unit::CRC_LEN;
    }
    panic!("no frame in {unit:?}");
}

/// The error of a decoder for a whole stream as one access unit; its first critical unit counts.
fn decoder_refuses(data: &[u8]) -> String {
    let pipeline = launch(
        "appsrc name=src caps=\"video/x-nnv,stream-format=byte-stream,alignment=au,parsed=true,\
         width=64,height=48,framerate=25/1\" format=time ! nnvdec ! fakesink",
    );
    let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
    let src = bin.by_name("src").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let buffer = gst::Buffer::from_slice(data.to_vec());
    let _ = src.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]);
    let _ = src.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
    let mut outcome = Outcome::default();
    wait(&pipeline, &mut outcome);
    pipeline.set_state(gst::State::Null).unwrap();
    outcome.errors.join(" ")
}

fn tags_of(path: &str) -> gst::TagList {
    let outcome = play(&launch(&format!(
        "filesrc location={path} ! nnvparse ! fakesink sync=false"
    )));
    assert!(outcome.eos, "{:?}", outcome.errors);
    outcome.tags.unwrap()
}

#[test]
fn tags_survive_a_file() {
    within(|| {
        let orientations = [
            "rotate-0",
            "rotate-90",
            "rotate-180",
            "rotate-270",
            "flip-rotate-0",
            "flip-rotate-90",
            "flip-rotate-180",
            "flip-rotate-270",
        ];
        for orientation in orientations {
            let file = TempFile::new("tags.nnv");
            play(&launch(&format!(
                "videotestsrc num-buffers=3 ! video/x-raw,width=32,height=32,framerate=25/1 ! \
                 taginject tags=\"title=\\\"Eins, zwei\\\",language-code=de,\
                 image-orientation={orientation},track-number=(uint)7,\
                 geo-location-latitude=(double)-12.345678901,\
                 datetime=(datetime)2024-02-29T12:34:56Z,bitrate=(uint)77\" ! \
                 nnvenc key-int-max=2 ! filesink location={}",
                file.path()
            )))
            .sound();
            let tags = tags_of(file.path());
            assert_eq!(tags.get::<gst::tags::Title>().unwrap().get(), "Eins, zwei");
            assert_eq!(tags.get::<gst::tags::LanguageCode>().unwrap().get(), "de");
            let turned = tags.get::<gst::tags::ImageOrientation>().unwrap();
            assert_eq!(turned.get(), orientation);
            assert_eq!(tags.get::<gst::tags::TrackNumber>().unwrap().get(), 7);
            let latitude = tags.get::<gst::tags::GeoLocationLatitude>().unwrap();
            assert_eq!(latitude.get(), -12.345_678_901);
            let date = tags.get::<gst::tags::DateTime>().unwrap().get();
            assert_eq!(date.to_iso8601_string().unwrap(), "2024-02-29T12:34:56Z");
            assert_eq!(
                tags.get::<gst::tags::VideoCodec>().unwrap().get(),
                "NNV neural video"
            );
            // What elements compute is not carried: the parser computes it anew.
            assert_ne!(tags.get::<gst::tags::Bitrate>().map(|t| t.get()), Some(77));
            // Both key frames have them: a stream may be cut there.
            let data = std::fs::read(&file.0).unwrap();
            let units = data.windows(4).filter(|w| w == b"\x8eNV\x05").count();
            assert_eq!(units, 2);
        }
    });
}

#[test]
fn streams_without_company_have_no_bytes_for_it() {
    within(|| {
        let units = encode(&i420(64, 48), 4, &[]);
        for unit in units {
            let unit = bytes(&unit);
            let kinds = unit
                .windows(4)
                .filter(|w| w.starts_with(b"\x8eNV") && w[3] > 2);
            assert_eq!(kinds.count(), 0);
        }
    });
}

#[test]
fn programs_are_told_what_it_is_and_how_fast() {
    within(|| {
        let found = std::process::Command::new("gst-discoverer-1.0")
            .arg("--version")
            .output();
        if found.is_err() {
            eprintln!("gst-discoverer-1.0 is not installed: nothing is looked at");
            return;
        }
        let file = TempFile::new("seen.nnv");
        let mp4 = TempFile::new("seen.mp4");
        let source = "videotestsrc num-buffers=50 pattern=ball ! \
                      video/x-raw,width=96,height=64,framerate=25/1";
        play(&launch(&format!(
            "{source} ! nnvenc ! filesink location={}",
            file.path()
        )))
        .sound();
        play(&launch(&format!(
            "{source} ! nnvenc bitrate=50 ! nnvmp4mux ! filesink location={}",
            mp4.path()
        )))
        .sound();
        for file in [&file, &mp4] {
            let text = discovered(file.path());
            for line in [
                "NNV neural video",
                "Duration: 0:00:02.0",
                "Width: 96",
                "Height: 64",
                "Frame rate: 25/1",
            ] {
                assert!(text.contains(line), "{line} of {}:\n{text}", file.path());
            }
            // A demuxer's stream, which says 0, comes before the parser's.
            let rates = text.lines().filter(|l| l.trim().starts_with("Bitrate:"));
            let rates = rates.filter_map(|l| l.split(':').nth(1)?.trim().parse::<u32>().ok());
            let size = std::fs::metadata(&file.0).unwrap().len() as u32;
            let most = rates.max().unwrap();
            assert!(
                (1000..=4 * size).contains(&most),
                "{most} of {size} bytes: {text}"
            );
        }
    });
}

/// What `gst-discoverer-1.0` says of a file. It finds the plugin as it lies in the folder of this
/// build.
fn discovered(path: &str) -> String {
    let exe = std::env::current_exe().unwrap();
    let folder = exe.parent().unwrap();
    let registry = TempFile::new("registry.bin");
    let out = std::process::Command::new("gst-discoverer-1.0")
        .args(["-v", path])
        .env("GST_PLUGIN_PATH", folder)
        .env("GST_REGISTRY", registry.path())
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

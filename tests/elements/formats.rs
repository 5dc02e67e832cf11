// SPDX-License-Identifier: MPL-2.0
//! The formats people bring: colours and views that caps describe, grey video, deep video, and
//! what the codec does not take.

use gst::prelude::*;
use gst_video::VideoFormat;

use nnv_format::picture::Picture;

use crate::util::*;

/// Bytes of a stream of one frame with these caps.
fn stream_of(caps: &gst::Caps) -> Vec<u8> {
    let info = gst_video::VideoInfo::from_caps(caps).unwrap();
    let mut enc =
        gst_check::Harness::with_element(&element("nnvenc", &[]), Some("sink"), Some("src"));
    enc.set_src_caps(caps.clone());
    enc.push(buffer(&info, 0, 0)).unwrap();
    enc.push_event(gst::event::Eos::new());
    join(&pull_all(&mut enc))
}

/// What the decoder says of a stream's bytes; downstream takes everything.
fn caps_of(stream: &[u8]) -> gst::Caps {
    let bin = gst::parse::bin_from_description("nnvparse ! nnvdec", true).unwrap();
    let mut h = gst_check::Harness::with_element(&bin, Some("sink"), Some("src"));
    h.set_src_caps("video/x-nnv".parse().unwrap());
    h.push(gst::Buffer::from_slice(stream.to_vec())).unwrap();
    h.push_event(gst::event::Eos::new());
    assert_eq!(pull_all(&mut h).len(), 1);
    h.sinkpad().unwrap().current_caps().unwrap()
}

/// The multiview mode; to say "mono" is to say nothing.
fn view(info: &gst_video::VideoInfo) -> gst_video::VideoMultiviewMode {
    match info.multiview_mode() {
        gst_video::VideoMultiviewMode::None => gst_video::VideoMultiviewMode::Mono,
        mode => mode,
    }
}

#[test]
fn every_colour_and_view_survives_a_file() {
    within(|| {
        let mut all: Vec<String> = Vec::new();
        // All that GStreamer 1.22 has names for, in the numbers of its enumerations.
        let colours = (1..=2)
            .map(|range| format!("{range}:3:5:1"))
            .chain((0..=6).map(|matrix| format!("2:{matrix}:5:1")))
            .chain((0..=16).map(|transfer| format!("2:3:{transfer}:1")))
            .chain((0..=12).map(|primaries| format!("2:3:5:{primaries}")));
        all.extend(colours.map(|c| format!("colorimetry={c}, chroma-site=mpeg2")));
        for site in [
            "jpeg",
            "mpeg2",
            "cosited",
            "v-cosited",
            "dv",
            "none",
            "alt-line",
            "h-cosited+alt-line",
        ] {
            all.push(format!("colorimetry=bt709, chroma-site=(string){site}"));
        }
        for mode in [
            "mono",
            "left",
            "right",
            "side-by-side",
            "side-by-side-quincunx",
            "column-interleaved",
            "row-interleaved",
            "top-bottom",
            "checkerboard",
        ] {
            all.push(format!("multiview-mode={mode}"));
        }
        let flags = "(GstVideoMultiviewFlagsSet)8001:ffffffff";
        all.push(format!(
            "multiview-mode=top-bottom, multiview-flags={flags}"
        ));
        assert!(all.len() > 50);
        // The type of the flags has a name once it was used.
        let _ = gst_video::VideoInfo::builder(VideoFormat::I420, 16, 16)
            .multiview_mode(gst_video::VideoMultiviewMode::Mono)
            .multiview_flags(gst_video::VideoMultiviewFlags::HALF_ASPECT)
            .build()
            .unwrap()
            .to_caps();
        let mut lost = Vec::new();
        for what in all {
            let text =
                format!("video/x-raw, format=I420, width=16, height=16, framerate=25/1, {what}");
            let Ok(caps) = text.parse::<gst::Caps>() else {
                panic!("{text}")
            };
            let from = gst_video::VideoInfo::from_caps(&caps).unwrap();
            let to = gst_video::VideoInfo::from_caps(&caps_of(&stream_of(&caps))).unwrap();
            if from.colorimetry() != to.colorimetry()
                || from.chroma_site() != to.chroma_site()
                || view(&from) != view(&to)
                || from.multiview_flags() != to.multiview_flags()
            {
                lost.push(format!(
                    "{what}: {:?} {:?} {:?} {:?}",
                    to.colorimetry().to_string(),
                    to.chroma_site(),
                    to.multiview_mode(),
                    to.multiview_flags()
                ));
            }
        }
        assert!(lost.is_empty(), "{lost:#?}");
        // What GStreamer makes of half an aspect on its own: another one of pixels.
        let caps: gst::Caps = "video/x-raw, format=I420, width=16, height=16, framerate=25/1, \
                               multiview-mode=top-bottom, \
                               multiview-flags=(GstVideoMultiviewFlagsSet)4001:ffffffff"
            .parse()
            .unwrap();
        let to = gst_video::VideoInfo::from_caps(&caps_of(&stream_of(&caps))).unwrap();
        let flags = gst_video::VideoMultiviewFlags::RIGHT_VIEW_FIRST;
        assert_eq!(to.multiview_flags(), flags);
        assert_eq!(to.par(), gst::Fraction::new(1, 2));
    });
}

/// A grey stream's bytes and its pictures.
fn grey(format: VideoFormat) -> (Vec<u8>, Vec<Picture>) {
    let info = info(format, 80, 48);
    let pictures: Vec<_> = (0..4).map(|t| picture(80, 48, t).grey()).collect();
    let properties = [("quantizer", "4"), ("frame-checksum", "true")];
    let units = encode_scene(&info, |w, h, t| picture(w, h, t).grey(), 4, &properties);
    (join(&units), pictures)
}

fn decoded(path: &str, format: &str) -> (Vec<gst::Caps>, Vec<Picture>) {
    let pipeline = launch(&format!(
        "filesrc location={path} ! nnvparse ! nnvdec ! {format} appsink name=out sync=false"
    ));
    let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
    let sink = bin.by_name("out").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let (mut caps, mut pictures) = (Vec::new(), Vec::new());
    while let Some(sample) = sink.emit_by_name::<Option<gst::Sample>>("pull-sample", &[]) {
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        pictures.push(read(sample.buffer().unwrap(), &info));
        caps.push(sample.caps_owned().unwrap());
    }
    pipeline.set_state(gst::State::Null).unwrap();
    (caps, pictures)
}

#[test]
fn grey_video_is_grey_again_and_has_no_colour_elsewhere() {
    within(|| {
        for (format, depth) in [(VideoFormat::Gray8, 8), (VideoFormat::Gray16Le, 10)] {
            let (data, pictures) = grey(format);
            let file = TempFile::with("grey.nnv", &data);
            let name = format.to_str();
            let (caps, shown) = decoded(file.path(), "");
            let s = caps[0].structure(0).unwrap();
            assert_eq!(s.get::<&str>("format").unwrap(), name.as_str());
            assert_eq!(shown.len(), 4);
            for (shown, wanted) in shown.iter().zip(&pictures) {
                assert!(
                    psnr(shown, wanted) > 40.0,
                    "{name}: {}",
                    psnr(shown, wanted)
                );
            }
            for other in [
                "I420",
                "NV12",
                "I420_10LE",
                "P010_10LE",
                "GRAY8",
                "GRAY16_LE",
            ] {
                let filter = format!("video/x-raw,format={other} !");
                let (_, pictures) = decoded(file.path(), &filter);
                assert_eq!(pictures.len(), 4, "{name} as {other}");
                for (picture, grey) in pictures.iter().zip(&shown) {
                    let neutral = |plane: usize| {
                        let plane = &picture.planes()[plane];
                        plane
                            .visible_rows()
                            .all(|row| row.iter().all(|v| *v == 512))
                    };
                    assert!(neutral(1) && neutral(2), "{name} as {other}");
                    // Of the other depth, samples are rounded or have not been.
                    let deep = other.contains("_10LE") || other.contains("16");
                    let exact = deep == (depth == 10);
                    assert!(!exact || picture.is_equal(grey), "{name} as {other}");
                }
            }
            let headers = [data.windows(4).filter(|w| *w == b"NNV1").count()];
            assert_eq!(headers, [1]);
        }
    });
}

#[test]
fn sixteen_bits_of_grey_keep_ten_and_say_so() {
    within(|| {
        // A ramp through all ten bits, and what becomes of the six below.
        let info = info(VideoFormat::Gray16Le, 64, 16);
        let words: Vec<u16> = (0..64 * 16u32)
            .map(|i| ((i << 6) | (i % 64)) as u16)
            .collect();
        let data: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let buffer = gst::Buffer::from_slice(data);
        let picture = read(&buffer, &info);
        let plane = &picture.planes()[0];
        let samples: Vec<u16> = plane.visible_rows().flatten().copied().collect();
        assert_eq!(samples, (0..1024).collect::<Vec<u16>>());
        // White is white again, and what was read once stays as it is.
        let mut out = vec![0; 2 * words.len()];
        let format = raw_format(VideoFormat::Gray16Le);
        picture.write_raw(format, &mut [&mut out], &[128]).unwrap();
        assert_eq!(out[out.len() - 2..], [0xff, 0xff]);
        let again = read(&gst::Buffer::from_slice(out), &info);
        assert!(again.is_equal(&picture));

        let pipeline = launch(
            "videotestsrc num-buffers=3 ! video/x-raw,format=GRAY16_LE,width=64,height=48 ! \
             nnvenc ! fakesink",
        );
        let bus = pipeline.bus().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let mut said = Vec::new();
        while let Some(message) = bus.timed_pop(gst::ClockTime::from_seconds(120)) {
            match message.view() {
                gst::MessageView::Info(info) => said.push(info.error().to_string()),
                gst::MessageView::Eos(_) => break,
                gst::MessageView::Error(e) => panic!("{}", e.error()),
                _ => {}
            }
        }
        pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("10 most significant bits"), "{said:?}");
    });
}

#[test]
fn colour_never_becomes_grey_without_a_word() {
    within(|| {
        let units = encode(&i420(64, 48), 2, &[]);
        let file = TempFile::with("colour.nnv", &join(&units));
        let pipeline = launch(&format!(
            "filesrc location={} ! nnvparse ! nnvdec ! video/x-raw,format=GRAY8 ! fakesink",
            file.path()
        ));
        let mut outcome = Outcome::default();
        let _ = pipeline.set_state(gst::State::Playing);
        wait(&pipeline, &mut outcome);
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(!outcome.eos && !outcome.errors.is_empty(), "{outcome:?}");
    });
}

/// What reaches `nnvenc` behind `videoconvert`.
fn converted(format: &str) -> String {
    let pipeline = launch(&format!(
        "videotestsrc num-buffers=1 ! video/x-raw,format={format},width=64,height=48 ! \
         videoconvert ! nnvenc name=enc ! fakesink"
    ));
    let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
    let sink = bin.by_name("enc").unwrap().static_pad("sink").unwrap();
    let mut outcome = Outcome::default();
    pipeline.set_state(gst::State::Playing).unwrap();
    wait(&pipeline, &mut outcome);
    let caps = sink.current_caps().unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    let s = caps.structure(0).unwrap();
    s.get::<String>("format").unwrap()
}

#[test]
fn videoconvert_never_takes_eight_bits_of_a_deeper_source() {
    within(|| {
        for (source, wanted) in [
            ("I420", "I420"),
            ("NV12", "NV12"),
            ("YUY2", "I420"),
            ("RGB", "I420"),
            ("GRAY8", "GRAY8"),
            ("P010_10LE", "P010_10LE"),
            ("I420_10LE", "I420_10LE"),
            ("GRAY16_LE", "GRAY16_LE"),
            ("GRAY16_BE", "GRAY16_LE"),
            ("GRAY10_LE32", "GRAY16_LE"),
        ] {
            assert_eq!(converted(source), wanted, "of {source}");
        }
        for source in [
            "I422_10LE",
            "I422_12LE",
            "Y444_10LE",
            "Y444_16LE",
            "I420_12LE",
            "P012_LE",
            "v210",
            "Y410",
            "ARGB64",
            "RGB10A2_LE",
            "A420_10LE",
        ] {
            let found = converted(source);
            let deep = ["I420_10LE", "P010_10LE"];
            assert!(deep.contains(&found.as_str()), "{found} of {source}");
        }
    });
}

#[test]
fn what_is_not_coded_is_refused_with_the_remedy() {
    within(|| {
        for (format, remedy) in [
            ("Y42B", "videoconvert ! video/x-raw,format=I420 "),
            ("Y444", "videoconvert ! video/x-raw,format=I420 "),
            ("A420", "videoconvert ! video/x-raw,format=I420 "),
            ("BGRA", "videoconvert ! video/x-raw,format=I420 "),
            ("I422_10LE", "videoconvert ! video/x-raw,format=I420_10LE "),
            ("I420_12LE", "videoconvert ! video/x-raw,format=I420_10LE "),
            ("Y444_16LE", "videoconvert ! video/x-raw,format=I420_10LE "),
            ("GRAY16_BE", "videoconvert ! video/x-raw,format=GRAY16_LE "),
        ] {
            // As a decoder or an application that does not ask: the caps come with the data.
            let pipeline = launch(&format!(
                "appsrc name=src format=time caps=\"video/x-raw,format={format},width=32,\
                 height=32,framerate=25/1\" ! nnvenc ! fakesink"
            ));
            let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
            let src = bin.by_name("src").unwrap();
            let _ = pipeline.set_state(gst::State::Playing);
            let size = gst::Buffer::with_size(32 * 32 * 8).unwrap();
            let _ = src.emit_by_name::<gst::FlowReturn>("push-buffer", &[&size]);
            let mut outcome = Outcome::default();
            wait(&pipeline, &mut outcome);
            pipeline.set_state(gst::State::Null).unwrap();
            let said = outcome.errors.join("\n");
            assert!(said.contains(remedy), "{format}: {said}");
        }
    });
}

// SPDX-License-Identifier: MPL-2.0
//! Presets of `nnvenc`, and `encodebin`, which finds encoder and muxer by a profile.

use gst::prelude::*;

use crate::mp4::by_name;
use crate::util::*;

const PRESETS: [&str; 7] = [
    "archive", "call", "camera", "drone", "lecture", "medical", "screen",
];

/// `nnvenc` with the presets that ship: a process can name their folder once.
pub fn encoder_with_presets() -> gst::Element {
    init();
    static FOLDER: std::sync::Once = std::sync::Once::new();
    FOLDER.call_once(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/data/presets");
        gst::Preset::set_app_dir(folder).unwrap();
    });
    element("nnvenc", &[])
}

#[test]
fn presets_load_and_encode() {
    within(|| {
        let encoder = encoder_with_presets();
        let preset = encoder.dynamic_cast_ref::<gst::Preset>().unwrap();
        let names: Vec<_> = preset
            .preset_names()
            .iter()
            .map(|n| n.to_string())
            .collect();
        assert_eq!(names, PRESETS);
        let text = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/data/presets/GstNnvEnc.prs"
        ))
        .unwrap();
        for name in PRESETS {
            let encoder = encoder_with_presets();
            let preset = encoder.dynamic_cast_ref::<gst::Preset>().unwrap();
            preset.load_preset(name).unwrap();
            // Each line is a property that has this value now.
            let part = text.split(&format!("[{name}]\n")).nth(1).unwrap();
            let lines = part.lines().take_while(|line| !line.is_empty());
            let mut count = 0;
            for line in lines.filter(|line| !line.starts_with("_meta")) {
                let (property, value) = line.split_once('=').unwrap();
                let is = encoder.property_value(property);
                let is = is.serialize().unwrap();
                assert_eq!(is.trim_matches('"'), value, "{name}: {property}");
                count += 1;
            }
            assert!(count >= 3, "{name}");
            let pipeline = launch(
                "videotestsrc num-buffers=3 ! video/x-raw,format=I420,width=64,height=48,\
                 framerate=25/1 ! identity name=before \
                 nnvdec name=behind ! fakesink name=out",
            );
            let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
            let (before, behind) = (by_name(&pipeline, "before"), by_name(&pipeline, "behind"));
            bin.add(&encoder).unwrap();
            let parser = element("nnvparse", &[]);
            bin.add(&parser).unwrap();
            gst::Element::link_many([&before, &encoder, &parser, &behind]).unwrap();
            assert_eq!(play(&pipeline).sound().shown.len(), 3, "{name}");
        }
    });
}

#[test]
fn encodebin_finds_encoder_and_muxer() {
    within(|| {
        for bin in ["encodebin", "encodebin2"] {
            for sound in ["audio/x-opus", "audio/mpeg,mpegversion=4"] {
                let file = TempFile::new("profile.mp4");
                let pipeline = launch(&format!(
                    "{bin} name=e profile=\"video/quicktime,variant=iso:video/x-nnv:{sound}\" ! \
                     filesink location={} \
                     videotestsrc num-buffers=10 ! video/x-raw,width=64,height=48,framerate=25/1 \
                     ! e.video_0 \
                     audiotestsrc num-buffers=20 samplesperbuffer=1024 ! \
                     audio/x-raw,rate=48000 ! e.audio_0",
                    file.path()
                ));
                play(&pipeline).sound();
                let shown = crate::mp4::decode_mp4(file.path(), crate::mp4::PULLED)
                    .sound()
                    .shown;
                assert_eq!(shown.len(), 10, "{bin} {sound}");
            }
        }
    });
}

// SPDX-License-Identifier: MPL-2.0
//! Two passes over a clip.

use nnv_format::picture::Picture;

use super::util::*;

/// Scenes of 25 frames that cost very differently: still, moving, full of noise.
fn scenes(width: u32, height: u32, t: u32) -> Picture {
    let scene = t / 25;
    let mut picture = picture(width, height, if scene == 0 { 0 } else { t });
    let strength = [4u32, 40, 320][(scene % 3) as usize];
    let mut seed = t * 7919 + 1;
    let luma = picture.plane_mut(0);
    for y in 0..luma.visible_height() {
        for v in luma.row_mut(y) {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *v = (*v + (((seed >> 16) * strength) >> 16) as u16).min(1023);
        }
    }
    picture.pad();
    picture
}

fn bits(units: &[gst::Buffer]) -> f64 {
    units.iter().map(|u| 8.0 * u.size() as f64).sum()
}

#[test]
fn two_passes_meet_the_rate_within_a_percent() {
    within(|| {
        let info = i420(96, 64);
        for bframes in ["0", "3"] {
            let file = TempFile::new("pass.csv");
            let common = [
                ("bitrate", "150"),
                ("bframes", bframes),
                ("stats-file", file.path()),
                ("speed-preset", "fast"),
            ];
            let run = |pass| {
                let mut properties = common.to_vec();
                properties.push(("pass", pass));
                encode_scene(&info, scenes, 75, &properties)
            };
            let single = run("single");
            assert!(!file.0.exists());
            // At one quantizer, whatever rate control is asked for: all frames are seen alike.
            let first = run("first");
            let constant = encode_scene(&info, scenes, 75, &common[1..]);
            assert!(join(&constant) == join(&first));
            let statistics = std::fs::read(&file.0).unwrap();
            for mode in ["vbr", "cbr"] {
                let mut properties = common.to_vec();
                properties.extend([("pass", "first"), ("rate-control", mode)]);
                assert!(join(&encode_scene(&info, scenes, 75, &properties)) == join(&first));
                assert!(std::fs::read(&file.0).unwrap() == statistics);
            }
            let second = run("second");
            assert_eq!(second.len(), 75);
            let rate = bits(&second) / 3.0 / 150_000.0;
            assert!((rate - 1.0).abs() < 0.01, "bframes {bframes}: {rate}");
            // The last scene costs most; a single pass has no idea of it.
            let part = |units: &[gst::Buffer]| bits(&units[50..]) / bits(units);
            assert!(
                part(&second) > part(&single),
                "{} {}",
                part(&second),
                part(&single)
            );
            let stream = TempFile::with("second.nnv", &join(&second));
            assert_eq!(decode(stream.path(), "").sound().shown.len(), 75);
        }
    });
}

/// What an encoder says of its statistics file, with `properties` besides.
fn error(file: &str, properties: &str) -> String {
    let pipeline = launch(&format!(
        "videotestsrc num-buffers=6 ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 \
         ! nnvenc bitrate=50 {file} {properties} ! fakesink"
    ));
    let mut errors = play(&pipeline).errors;
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[test]
fn a_statistics_file_that_does_not_serve_is_one_clear_error() {
    within(|| {
        let info = i420(64, 48);
        let file = TempFile::new("pass.csv");
        let named = format!("stats-file={}", file.path());
        let said = |properties: &str, what: &str| {
            let error = error(&named, properties);
            assert!(error.contains(what), "{error}");
        };
        said("pass=second", "run pass=first");
        let first = [
            ("bitrate", "50"),
            ("stats-file", file.path()),
            ("pass", "first"),
        ];
        encode(&info, 4, &first);
        let whole = std::fs::read_to_string(&file.0).unwrap();
        said(
            "pass=second",
            "the first pass had 4 frames and the clip has more",
        );
        said("pass=second bframes=3", "other settings");
        said("pass=second rate-control=cq", "rate-control=vbr");
        std::fs::write(&file.0, whole.rsplit_once("end").unwrap().0).unwrap();
        said("pass=second", "cut off");
        std::fs::write(&file.0, [0xff, 0, 7, 9]).unwrap();
        said("pass=second", "not written by a first pass");
        let none = error("", "pass=first");
        assert!(none.contains("none is named"), "{none}");
        let nowhere = error("stats-file=/nowhere/pass.csv", "pass=first");
        assert!(nowhere.contains("cannot be made"), "{nowhere}");
    });
}

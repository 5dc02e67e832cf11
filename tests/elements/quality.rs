// SPDX-License-Identifier: MPL-2.0
//! `nnvquality`: figures, pairs by time, what passes, files, bad input.

use std::sync::{Arc, Mutex};

use gst::prelude::*;

use crate::util::*;

/// Runs `reference` and `distorted` (descriptions of sources) into the element; properties of it
/// in `properties`. What happened, and the summary.
///
/// What is passed is kept only by [`passed`], which knows the codec's formats alone.
fn measured(reference: &str, distorted: &str, properties: &str) -> (Outcome, gst::Structure) {
    through(reference, distorted, &format!("{properties} ! fakesink"))
}

/// As [`measured`], with the frames that passed.
fn passed(reference: &str, distorted: &str) -> (Outcome, gst::Structure) {
    through(reference, distorted, "! fakesink name=out")
}

fn through(reference: &str, distorted: &str, rest: &str) -> (Outcome, gst::Structure) {
    let pipeline = launch(&format!(
        "nnvquality name=q {rest} {reference} ! q.reference  {distorted} ! q.distorted"
    ));
    let q = pipeline
        .downcast_ref::<gst::Bin>()
        .unwrap()
        .by_name("q")
        .unwrap();
    let outcome = play(&pipeline);
    (outcome, q.property("stats"))
}

fn source(frames: u32, caps: &str, pattern: &str) -> String {
    format!("videotestsrc num-buffers={frames} {pattern} ! video/x-raw,{caps}")
}

fn count(stats: &gst::Structure, name: &str) -> u64 {
    stats
        .get(name)
        .unwrap_or_else(|e| panic!("{name}: {e} in {stats}"))
}

fn value(stats: &gst::Structure, name: &str) -> f64 {
    stats
        .get(name)
        .unwrap_or_else(|e| panic!("{name}: {e} in {stats}"))
}

const ALL: &str = "metrics=ssim+ms-ssim+xpsnr+ssimulacra2";

#[test]
fn nnvquality_finds_no_error_in_equal_video_of_every_format() {
    within(|| {
        for format in [
            "I420",
            "NV12",
            "YV12",
            "NV21",
            "Y42B",
            "NV16",
            "YUY2",
            "UYVY",
            "Y444",
            "NV24",
            "AYUV",
            "VUYA",
            "I420_10LE",
            "P010_10LE",
            "I422_10LE",
            "Y444_10LE",
        ] {
            let caps = format!("format={format},width=67,height=45,framerate=25/1");
            let source = source(2, &caps, "");
            let (outcome, stats) = measured(&source, &source, ALL);
            assert!(outcome.sound().eos, "{format}");
            assert_eq!(count(&stats, "pairs"), 2, "{format}");
            assert_eq!(value(&stats, "psnr-y"), f64::INFINITY, "{format}");
            assert_eq!(value(&stats, "psnr-v"), f64::INFINITY, "{format}");
            assert_eq!(value(&stats, "ssim-all"), 1.0, "{format}");
            assert!(value(&stats, "ms-ssim-y") > 0.999_999, "{format}");
            assert_eq!(value(&stats, "ssimulacra2"), 100.0, "{format}");
        }
    });
}

/// Layouts of one picture are one picture: what is read from the packed and the shifted ones
/// equals the planar one, sample for sample.
#[test]
fn nnvquality_reads_the_same_samples_from_every_layout() {
    within(|| {
        for (planar, others) in [
            ("I420", &["NV12", "YV12", "NV21"][..]),
            ("Y42B", &["NV16", "YUY2", "UYVY"]),
            ("Y444", &["NV24", "AYUV", "VUYA"]),
            ("I420_10LE", &["P010_10LE"]),
        ] {
            let base = format!(
                "videotestsrc num-buffers=2 ! video/x-raw,format={planar},width=64,height=48"
            );
            for other in others {
                let converted =
                    format!("{base} ! videoconvert dither=none ! video/x-raw,format={other}");
                let (outcome, stats) = measured(&base, &converted, "");
                assert!(outcome.sound().eos);
                for name in ["psnr-y", "psnr-u", "psnr-v"] {
                    assert_eq!(
                        value(&stats, name),
                        f64::INFINITY,
                        "{planar} {other} {name}"
                    );
                }
            }
        }
    });
}

#[test]
fn nnvquality_has_the_figures_of_a_known_error() {
    within(|| {
        // Luma 126 (grey) beside 235: all samples differ by so much, chroma not at all.
        let caps = "format=I420,width=64,height=48,framerate=25/1";
        let grey = "pattern=solid-color foreground-color=0xff808080";
        let white = source(3, caps, "pattern=white");
        let (_, stats) = measured(&white, &source(3, caps, grey), "");
        let db = value(&stats, "psnr-y");
        let difference = 255.0 / 10_f64.powf(db / 20.0);
        assert!(
            (difference - difference.round()).abs() < 1e-6,
            "{difference}"
        );
        assert!((105.0..=112.0).contains(&difference), "{difference}");
        assert_eq!(value(&stats, "psnr-u"), f64::INFINITY);
    });
}

#[test]
fn nnvquality_pairs_by_time() {
    within(|| {
        let at = |frames: u32, rate: &str| {
            let caps = format!("format=I420,width=64,height=48,framerate={rate}");
            source(frames, &caps, "pattern=ball")
        };
        let (_, stats) = measured(&at(12, "30/1"), &at(4, "10/1"), "");
        assert_eq!(count(&stats, "pairs"), 4);
        assert_eq!(count(&stats, "dropped"), 6);
        let (_, stats) = measured(&at(4, "10/1"), &at(12, "30/1"), "");
        // The last one is more than half a frame behind the reference's last.
        assert_eq!(count(&stats, "repeated"), 7);
        assert_eq!(count(&stats, "unmatched"), 1);
        // Longer and shorter; one frame.
        let (outcome, stats) = passed(&at(5, "30/1"), &at(9, "30/1"));
        assert!(outcome.eos);
        assert_eq!(count(&stats, "pairs"), 5);
        assert_eq!(count(&stats, "unmatched"), 4);
        assert_eq!(outcome.shown.len(), 9);
        let (outcome, stats) = passed(&at(9, "30/1"), &at(1, "30/1"));
        assert!(outcome.eos);
        assert_eq!((count(&stats, "pairs"), outcome.shown.len()), (1, 1));
    });
}

#[test]
fn nnvquality_counts_frames_that_stand_still() {
    within(|| {
        let caps = "format=I420,width=64,height=48,framerate=20/1";
        let moving = source(12, caps, "pattern=ball");
        let half = "videorate ! video/x-raw,framerate=10/1";
        let jerky = format!("{moving} ! {half} ! videorate ! video/x-raw,framerate=20/1");
        let (_, stats) = measured(&moving, &jerky, "");
        let frozen = count(&stats, "frozen");
        assert!((5..=6).contains(&frozen), "{stats}");
        // A video that itself stands still is not frozen.
        let still = source(12, caps, "pattern=smpte75");
        let (_, stats) = measured(&still, &still, "");
        assert_eq!(count(&stats, "frozen"), 0);
    });
}

#[test]
fn nnvquality_scales_what_has_another_size_or_depth() {
    within(|| {
        let of = |caps: &str| source(2, &format!("{caps},framerate=25/1"), "pattern=smpte");
        let full = of("format=I420,width=64,height=48");
        for other in [
            "format=I420,width=33,height=25",
            "format=Y444,width=64,height=48",
            "format=I420_10LE,width=128,height=96",
            "format=NV12,width=1,height=1",
        ] {
            let (outcome, stats) = measured(&full, &of(other), ALL);
            assert!(outcome.sound().eos, "{other}");
            // Y444 has the same luma, the others not even that.
            let (luma, chroma) = (value(&stats, "psnr-y"), value(&stats, "psnr-u"));
            assert!(luma.min(chroma).is_finite(), "{other}: {stats}");
            assert!(luma.min(chroma) > 5.0, "{other}: {stats}");
        }
        // Too small for some measures: those are left out.
        let tiny = of("format=I420,width=7,height=3");
        let (outcome, stats) = measured(&tiny, &tiny, ALL);
        assert!(outcome.sound().eos);
        assert!(!stats.has_field("ms-ssim-y") && !stats.has_field("ssimulacra2"));
        assert_eq!(value(&stats, "ssim-y"), 1.0);
    });
}

#[test]
fn nnvquality_takes_black_and_hdr() {
    within(|| {
        let black = source(3, "format=I420,width=64,height=48", "pattern=black");
        let (outcome, stats) = measured(&black, &black, ALL);
        assert!(outcome.sound().eos);
        assert_eq!(value(&stats, "ssim-all"), 1.0);
        let hdr = "format=I420_10LE,width=64,height=48,colorimetry=bt2100-pq";
        let hdr = source(2, hdr, "");
        let (outcome, stats) = measured(&hdr, &hdr, ALL);
        assert!(outcome.sound().eos);
        // It was not made for that.
        assert!(!stats.has_field("ssimulacra2"), "{stats}");
        assert_eq!(value(&stats, "psnr-y"), f64::INFINITY);
        let (outcome, _) = measured(&hdr, &black, "");
        assert!(
            outcome.eos && outcome.errors.is_empty(),
            "{:?}",
            outcome.errors
        );
        assert!(
            outcome.warnings[0].contains("Colours differ"),
            "{:?}",
            outcome.warnings
        );
    });
}

#[test]
fn nnvquality_passes_the_distorted_video_as_it_is() {
    within(|| {
        let caps = "format=I420,width=64,height=64,framerate=25/1";
        let distorted = source(6, caps, "pattern=ball timestamp-offset=1000000000");
        let alone = play(&launch(&format!("{distorted} ! fakesink name=out"))).sound();
        // Also where nothing is linked to compare with.
        let (both, stats) = passed(&distorted, &distorted);
        let unlinked = play(&launch(&format!(
            "{distorted} ! nnvquality ! fakesink name=out"
        )));
        assert_eq!(count(&stats, "pairs"), 6);
        for outcome in [both.sound(), unlinked.sound()] {
            assert_eq!(outcome.checksums(), alone.checksums());
            let times = |o: &Outcome| o.shown.iter().map(|s| s.pts).collect::<Vec<_>>();
            assert_eq!(times(&outcome), times(&alone));
            assert_eq!(outcome.caps, alone.caps);
        }
    });
}

/// Plays a pipeline to its end and gives the element's messages.
fn messages(pipeline: &gst::Element) -> Vec<gst::Structure> {
    let seen: Arc<Mutex<Vec<gst::Structure>>> = Arc::default();
    let kept = seen.clone();
    let bus = pipeline.bus().unwrap();
    bus.set_sync_handler(move |_, message| {
        if let gst::MessageView::Element(element) = message.view()
            && let Some(structure) = element.structure()
        {
            kept.lock().unwrap().push(structure.to_owned());
        }
        gst::BusSyncReply::Pass
    });
    play(pipeline).sound();
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[test]
fn nnvquality_writes_files_and_messages() {
    within(|| {
        let (csv, json) = (TempFile::new("q.csv"), TempFile::new("q.json"));
        let caps = "format=I420,width=64,height=48,framerate=25/1";
        let pipeline = launch(&format!(
            "nnvquality name=q frame-messages=true csv-location={} json-location={} ! fakesink \
             {} ! q.reference  {} ! q.distorted",
            csv.path(),
            json.path(),
            source(3, caps, "pattern=ball"),
            source(3, caps, "pattern=snow"),
        ));
        let seen = messages(&pipeline);
        let names: Vec<&str> = seen.iter().map(|s| s.name().as_str()).collect();
        let frame = "nnvquality-frame";
        assert_eq!(names, [frame, frame, frame, "nnvquality-summary"]);
        let table = std::fs::read_to_string(&csv.0).unwrap();
        let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split(',').collect()).collect();
        assert_eq!(lines.len(), 4);
        let column = lines[0].iter().position(|name| *name == "psnr-y").unwrap();
        let text = std::fs::read_to_string(&json.0).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        for n in 0..3 {
            let posted = value(&seen[n], "psnr-y");
            let written: f64 = lines[n + 1][column].parse().unwrap();
            assert!((posted - written).abs() < 1e-5);
            assert_eq!(report["frames"][n]["psnr-y"], posted);
            assert_eq!(report["frames"][n]["running-time"], 40_000_000 * n as u64);
        }
        assert_eq!(report["summary"]["pairs"], 3);
        assert_eq!(report["summary"]["ssim-all"], value(&seen[3], "ssim-all"));

        let nowhere = "nnvquality csv-location=/nowhere/at/all.csv ! fakesink";
        let outcome = play(&launch(&format!("{} ! {nowhere}", source(1, caps, ""))));
        assert!(
            outcome.errors[0].contains("/nowhere/at/all.csv"),
            "{:?}",
            outcome.errors
        );
    });
}

/// Without a reference, video into the element alone: what happened, and the summary.
fn judged(video: &str, properties: &str) -> (Outcome, gst::Structure) {
    let pipeline = launch(&format!(
        "nnvquality name=q {properties} ! fakesink {video} ! q.distorted"
    ));
    let q = pipeline.downcast_ref::<gst::Bin>().unwrap();
    let q = q.by_name("q").unwrap();
    let outcome = play(&pipeline);
    (outcome, q.property("stats"))
}

#[test]
fn nnvquality_judges_without_a_reference() {
    within(|| {
        if gst::ElementFactory::find("avdec_h264").is_none() {
            eprintln!("SKIPPED: no avdec_h264 here");
            return;
        }
        let clip = format!(
            "filesrc location={}/tests/fixtures/demo.mkv ! decodebin ! videoconvert ! \
             video/x-raw,format=I420 ! identity eos-after=13",
            env!("CARGO_MANIFEST_DIR")
        );
        let csv = TempFile::new("judged.csv");
        let (outcome, good) = judged(&clip, &format!("csv-location={}", csv.path()));
        assert!(outcome.sound().eos);
        let coarse = format!("{clip} ! nnvenc quantizer=58 ! nnvparse ! nnvdec");
        let blurred = format!(
            "{clip} ! videoscale ! video/x-raw,width=80,height=60 ! videoscale ! \
             video/x-raw,width=320,height=240"
        );
        let (_, coarse) = judged(&coarse, "");
        let (_, blurred) = judged(&blurred, "");
        let vmaf = |stats: &gst::Structure| value(stats, "predicted-vmaf");
        assert!(vmaf(&good) > vmaf(&coarse) + 3.0, "{good} {coarse}");
        assert!(vmaf(&good) > vmaf(&blurred) + 3.0, "{good} {blurred}");
        assert!(!good.has_field("psnr-y"), "{good}");
        for stats in [&good, &coarse, &blurred] {
            let shares = ["blocking", "blur", "noise", "freeze"].map(|name| value(stats, name));
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-4, "{stats}");
        }
        assert!(value(&blurred, "blur") > value(&coarse, "blur"));

        let table = std::fs::read_to_string(&csv.0).unwrap();
        let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split(',').collect()).collect();
        let column = lines[0].iter().position(|name| *name == "predicted-vmaf");
        let written: Vec<&str> = lines[1..].iter().map(|l| l[column.unwrap()]).collect();
        assert_eq!(written.len() as u64, count(&good, "frames"));
        // The first frame has none before it.
        assert_eq!(written[0], "");
        let values: Vec<f64> = written[1..].iter().map(|v| v.parse().unwrap()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!((mean - vmaf(&good)).abs() < 1e-4);
    });
}

#[test]
fn nnvquality_judges_odd_video_and_names_a_wrong_model() {
    within(|| {
        for caps in [
            "format=I420,width=1,height=1,framerate=25/1",
            "format=P010_10LE,width=67,height=500,framerate=25/1",
            "format=VUYA,width=641,height=35,framerate=25/1",
        ] {
            let (outcome, stats) = judged(&source(3, caps, "pattern=snow"), "");
            assert!(outcome.eos && outcome.errors.is_empty(), "{caps}");
            let vmaf = value(&stats, "predicted-vmaf");
            assert!((0.0..=100.0).contains(&vmaf), "{caps}: {vmaf}");
        }
        let one = source(1, "format=I420,width=64,height=64,framerate=25/1", "");
        let (outcome, stats) = judged(&one, "");
        assert!(outcome.sound().eos);
        assert_eq!(count(&stats, "frames"), 1);
        assert!(!stats.has_field("predicted-vmaf"), "{stats}");

        for (folder, expected) in [
            ("/nowhere/at/all", "/nowhere/at/all"),
            ("models/rdo", "rdo"),
        ] {
            let path = match folder.starts_with('/') {
                true => folder.to_string(),
                false => format!("{}/{folder}", env!("CARGO_MANIFEST_DIR")),
            };
            let (outcome, _) = judged(&one, &format!("model-path={path}"));
            assert!(outcome.errors[0].contains(expected), "{:?}", outcome.errors);
        }
    });
}

/// What is asked for and cannot be had is told once.
#[test]
fn nnvquality_tells_what_one_pad_cannot_give() {
    within(|| {
        let large = source(4, "format=I420,width=64,height=64,framerate=25/1", "");
        let small = source(4, "format=I420,width=64,height=62,framerate=25/1", "");
        let said = |video: &str, properties: &str| {
            let (outcome, stats) = judged(video, properties);
            assert!(outcome.eos && outcome.errors.is_empty(), "{outcome:?}");
            assert!(stats.has_field("predicted-vmaf"), "{stats}");
            outcome.warnings
        };
        assert!(said(&large, "").is_empty());
        let warnings = said(&large, "metrics=ssim+xpsnr");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for part in ["ssim", "xpsnr", "the pad reference"] {
            assert!(warnings[0].contains(part), "{part}: {warnings:?}");
        }
        let warnings = said(&small, "");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("64x62 are smaller"), "{warnings:?}");
        // With a reference all of these are nothing to tell.
        let (outcome, _) = measured(&small, &small, "metrics=ssim+xpsnr");
        assert!(outcome.sound().eos);
    });
}

#[test]
fn nnvquality_does_not_wait_for_what_is_not_linked() {
    within(|| {
        let reference = source(4, "format=I420,width=64,height=64,framerate=25/1", "");
        let alone = format!("nnvquality name=q ! fakesink {reference} ! q.reference");
        let outcome = play(&launch(&alone));
        assert_eq!(outcome.errors.len(), 1, "{outcome:?}");
        for part in ["the pad distorted", "Link what is to be measured"] {
            assert!(outcome.errors[0].contains(part), "{part}: {outcome:?}");
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn nnvquality_names_the_file_on_a_full_disk() {
    within(|| {
        let video = source(2, "format=I420,width=64,height=64,framerate=25/1", "");
        for property in ["csv-location", "json-location"] {
            let (outcome, _) = judged(&video, &format!("{property}=/dev/full"));
            assert_eq!(outcome.errors.len(), 1, "{outcome:?}");
            assert!(outcome.errors[0].contains("/dev/full"), "{outcome:?}");
        }
    });
}

/// VMAF, whose scores come late, stands beside the other measures of its frame; frames without a
/// reference stay in order, and the end loses none.
#[test]
fn nnvquality_gives_each_frame_its_vmaf() {
    within(|| {
        let (csv, json) = (TempFile::new("v.csv"), TempFile::new("v.json"));
        let caps = "format=I420,width=64,height=48,framerate=25/1";
        let clip = |frames| source(frames, caps, "pattern=ball background-color=0xff406080");
        let description = format!(
            "nnvquality name=q metrics=vmaf frame-messages=true csv-location={} json-location={} \
             ! fakesink {} ! q.reference  {} ! videobalance name=spoil ! q.distorted",
            csv.path(),
            json.path(),
            clip(130),
            clip(132),
        );
        if let Err(e) = nnv_quality::Vmaf::new(nnv_quality::Vmaf::DEFAULT_MODEL) {
            let outcome = play(&launch(&description));
            assert!(
                outcome.errors[0].contains("NNV_VMAF_LIBRARY"),
                "{:?}",
                outcome.errors
            );
            assert!(std::env::var_os("NNV_VMAF_LIBRARY").is_none(), "{e}");
            eprintln!("NOT RUN: {e}");
            return;
        }
        let pipeline = launch(&description);
        let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
        let spoil = bin.by_name("spoil").unwrap();
        // From the 126th frame on.
        spoil
            .static_pad("sink")
            .unwrap()
            .add_probe(gst::PadProbeType::BUFFER, {
                let spoil = spoil.downgrade();
                move |_, info| {
                    let late = info.buffer().unwrap().pts().unwrap() >= ms(125 * 40);
                    spoil
                        .upgrade()
                        .unwrap()
                        .set_property("contrast", if late { 0.2 } else { 1.0 });
                    gst::PadProbeReturn::Ok
                }
            });
        let seen = messages(&pipeline);
        assert_eq!(seen.len(), 133);
        for (n, message) in seen[..132].iter().enumerate() {
            assert_eq!(count(message, "frame"), n as u64);
            assert_eq!(message.has_field("vmaf"), n < 130, "{message}");
            if n < 130 {
                // The other measures say which frames were spoilt.
                let spoilt = value(message, "psnr-y").is_finite();
                assert_eq!(spoilt, n >= 125, "{message}");
                assert_eq!(value(message, "vmaf") < 90.0, spoilt, "{message}");
            }
        }
        let scores: Vec<f64> = seen[..130].iter().map(|m| value(m, "vmaf")).collect();
        let mean = scores.iter().sum::<f64>() / 130.0;
        let summary = &seen[132];
        assert!((value(summary, "vmaf") - mean).abs() < 1e-9);
        assert_eq!(summary.get::<&str>("vmaf-model").unwrap(), "vmaf_v0.6.1");
        let table = std::fs::read_to_string(&csv.0).unwrap();
        let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split(',').collect()).collect();
        assert_eq!(lines.len(), 133);
        let column = lines[0].iter().position(|name| *name == "vmaf").unwrap();
        for (line, score) in lines[1..].iter().zip(&scores) {
            assert!((line[column].parse::<f64>().unwrap() - score).abs() < 1e-5);
        }
        let text = std::fs::read_to_string(&json.0).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["frames"][129]["vmaf"], scores[129]);
        assert_eq!(report["frames"][130]["vmaf"], serde_json::Value::Null);
        assert_eq!(report["summary"]["vmaf-model"], "vmaf_v0.6.1");

        let wrong = "nnvquality metrics=vmaf vmaf-model=vmaf_v9 ! fakesink";
        let outcome = play(&launch(&format!("{} ! {wrong}", source(1, caps, ""))));
        assert!(
            outcome.errors[0].contains("vmaf_v9"),
            "{:?}",
            outcome.errors
        );
        // Too small a picture has none, and is no error.
        let tiny = source(2, "format=I420,width=32,height=20", "");
        let (outcome, stats) = measured(&tiny, &tiny, "metrics=vmaf");
        assert!(outcome.sound().eos);
        assert!(!stats.has_field("vmaf"), "{stats}");
        // Another size begins anew.
        let sizes = "concat name=c ! nnvquality name=q metrics=vmaf ! fakesink";
        let other = source(
            4,
            "format=I420,width=96,height=64,framerate=25/1",
            "pattern=ball",
        );
        let of = |c: &str| format!("{} ! {c}. {other} ! {c}.", clip(4));
        let outcome = play(&launch(&format!(
            "{sizes} {} concat name=d ! q.reference {}",
            of("c"),
            of("d")
        )));
        assert!(outcome.sound().eos);
    });
}

/// `rate-control=quality` of the encoder, measured by the element on decoded video.
#[test]
fn nnvenc_holds_the_quality_that_is_asked_for() {
    within(|| {
        let caps = "format=I420,width=176,height=144,framerate=25/1";
        let clip = source(
            32,
            caps,
            "pattern=ball motion=sweep background-color=0xff406080",
        );
        for (properties, name, wanted, within) in [
            ("target-quality=40", "psnr-weighted-error", 40.0, 1.5),
            ("target-quality=34", "psnr-weighted-error", 34.0, 1.5),
        ] {
            let coded =
                format!("{clip} ! nnvenc rate-control=quality {properties} ! nnvparse ! nnvdec");
            let (outcome, stats) = measured(&clip, &coded, "");
            assert!(outcome.sound().eos, "{properties}");
            assert_eq!(count(&stats, "pairs"), 32);
            let got = value(&stats, name);
            assert!((got - wanted).abs() < within, "{properties}: {got}");
        }
        for wrong in [
            "target-quality=0.5",
            "quality-metric=ssim target-quality=40",
        ] {
            let outcome = play(&launch(&format!(
                "{clip} ! nnvenc rate-control=quality {wrong} ! fakesink"
            )));
            assert!(
                outcome.errors[0].contains("target-quality is"),
                "{:?}",
                outcome.errors
            );
        }
    });
}

/// What no quantizer gives is told once, and coding goes on.
#[test]
fn nnvenc_tells_a_quality_that_cannot_be_met() {
    within(|| {
        let caps = "format=I420,width=96,height=64,framerate=10/1";
        let clip = source(60, caps, "pattern=snow");
        for (properties, expected) in [
            (
                "target-quality=55",
                &[
                    "target-quality=55 of psnr cannot be reached",
                    "quantizer 0,",
                ][..],
            ),
            (
                "target-quality=45 min-quantizer=30",
                &["quantizer 30, the finest", "Lower min-quantizer"],
            ),
            (
                "target-quality=12 max-quantizer=20",
                &["is exceeded: at quantizer 20", "Raise max-quantizer"],
            ),
        ] {
            for more in ["bframes=0", "bframes=3"] {
                let (outcome, stats) = coded_by(&format!(
                    "{clip} ! nnvenc rate-control=quality {properties} {more} name=e ! fakesink"
                ));
                assert_eq!(count(&stats, "frames"), 60);
                assert_eq!(
                    outcome.warnings.len(),
                    1,
                    "{properties} {more}: {outcome:?}"
                );
                for part in expected {
                    assert!(outcome.warnings[0].contains(part), "{part}: {outcome:?}");
                }
            }
        }
    });
}

/// Plays a pipeline with an element `e`: what happened, and that one's statistics.
fn coded_by(description: &str) -> (Outcome, gst::Structure) {
    let pipeline = launch(description);
    let e = pipeline.downcast_ref::<gst::Bin>().unwrap();
    let e = e.by_name("e").unwrap();
    let outcome = play(&pipeline);
    (outcome, e.property("stats"))
}

const VMAF_CLIP: &str = "videotestsrc num-buffers=40 pattern=ball motion=sweep \
    background-color=0xff406080 ! video/x-raw,format=I420,width=176,height=144,framerate=25/1";

#[test]
fn nnvenc_holds_vmaf() {
    within(|| {
        if let Err(e) = nnv_quality::VmafModel::new(nnv_quality::Vmaf::DEFAULT_MODEL) {
            assert!(std::env::var_os("NNV_VMAF_LIBRARY").is_none(), "{e}");
            eprintln!("NOT RUN: {e}");
            return;
        }
        // The greatest quantizer gives 72.
        let got = [82.0, 95.0].map(|wanted| {
            let coded = format!(
                "{VMAF_CLIP} ! nnvenc rate-control=quality quality-metric=vmaf \
                 target-quality={wanted} ! nnvparse ! nnvdec"
            );
            let (outcome, stats) = measured(VMAF_CLIP, &coded, "metrics=vmaf");
            assert!(outcome.sound().eos);
            let got = value(&stats, "vmaf");
            assert!((got - wanted).abs() < 4.0, "{got} for {wanted}");
            got
        });
        assert!(got[1] > got[0] + 5.0, "{got:?}");
        let small = VMAF_CLIP.replace("width=176,height=144", "width=176,height=32");
        let outcome = play(&launch(&format!(
            "{small} ! nnvenc rate-control=quality quality-metric=vmaf ! fakesink"
        )));
        assert!(outcome.errors[0].contains("33x33"), "{:?}", outcome.errors);
    });
}

const CHILD: &str = "quality::child_without_libvmaf";

/// Run by [`vmaf_without_its_library_is_an_error_before_the_first_frame`], in a process of its own:
/// a library that is loaded stays.
#[test]
#[ignore = "runs in a child process"]
fn child_without_libvmaf() {
    within(|| {
        let outcome = play(&launch(&format!(
            "{VMAF_CLIP} ! nnvenc rate-control=quality quality-metric=vmaf ! fakesink"
        )));
        let error = &outcome.errors[0];
        for word in ["quality-metric=vmaf", "NNV_VMAF_LIBRARY", "package", "ssim"] {
            assert!(error.contains(word), "no {word} in {error}");
        }
    });
}

#[test]
fn vmaf_without_its_library_is_an_error_before_the_first_frame() {
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--ignored", "--nocapture"])
        .env("NNV_VMAF_LIBRARY", "no-such-library")
        .output()
        .unwrap();
    let text = [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(
        out.status.success() && text[0].contains("1 passed"),
        "{text:?}"
    );
}

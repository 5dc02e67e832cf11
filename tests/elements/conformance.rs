// SPDX-License-Identifier: MPL-2.0
//! Streams that every decoder must turn into the same pixels: files with the MD5 of what
//! `videocodectestsink` sees.
//!
//! `tests/conformance/NAME.nnv` and its line in `tests/conformance/MD5SUMS`. New ones are made with
//! `scripts/make-conformance.sh`. Those named `drawn-…` are not made by an encoder but by
//! `nnv conformance`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gst::prelude::*;
use gst_video::VideoFormat;

use nnv_format::picture::Picture;

use crate::util::*;

/// How the names of streams begin that `nnv conformance` makes.
const DRAWN: &str = "drawn-";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

type Part = (
    VideoFormat,
    (u32, u32),
    u32,
    &'static [(&'static str, &'static str)],
);

/// Strokes like type, dark on light; in the end, other ones below.
fn page(w: u32, h: u32, t: u32) -> Picture {
    let mut picture = Picture::new(w, h).unwrap();
    for (plane, value) in picture.planes_mut().iter_mut().zip([880, 540, 490]) {
        plane.data_mut().fill(value);
    }
    let luma = picture.plane_mut(0);
    for y in 0..luma.height() {
        let (line, inside) = (y / 16, y as u32 % 16);
        for letter in 0..luma.width() / 10 {
            let mut seed = (line * 100 + letter) as u32 * 2 + u32::from(t > 3 && line > 4);
            for _ in 0..3 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (x, tall) = (10 * letter + (seed >> 9) as usize % 7, 4 + (seed >> 20) % 7);
                if (3..3 + tall).contains(&inside) && x + 1 < luma.width() {
                    luma.row_mut(y)[x] = 480;
                    luma.row_mut(y)[x + 1] = 90;
                }
            }
        }
    }
    picture.pad();
    picture
}

/// The streams: one or more parts, put one behind the other.
const STREAMS: &[(&str, &[Part])] = &[
    (
        "key-only",
        &[(
            VideoFormat::I420,
            (96, 64),
            4,
            &[("key-int-max", "1"), ("quantizer", "20")],
        )],
    ),
    (
        "low-delay",
        &[(
            VideoFormat::I420,
            (96, 64),
            12,
            &[("key-int-max", "8"), ("quantizer", "24")],
        )],
    ),
    (
        "hierarchical-b",
        &[(
            VideoFormat::I420,
            (96, 64),
            20,
            &[("bframes", "7"), ("quantizer", "28")],
        )],
    ),
    (
        "odd-size",
        &[(
            VideoFormat::I420,
            (81, 47),
            6,
            &[("bframes", "3"), ("quantizer", "16")],
        )],
    ),
    (
        "ten-bit",
        &[(
            VideoFormat::I42010le,
            (96, 64),
            6,
            &[("bframes", "3"), ("quantizer", "12")],
        )],
    ),
    // With maps of quantizers.
    (
        "visual",
        &[(
            VideoFormat::I420,
            (144, 96),
            10,
            &[("bframes", "3"), ("quantizer", "28"), ("tune", "visual")],
        )],
    ),
    // Ink in a key frame and paper with ink in an inter frame.
    (
        "ink",
        &[(VideoFormat::I420, (240, 136), 6, &[("quantizer", "32")])],
    ),
    (
        "parameter-change",
        &[
            (VideoFormat::I420, (96, 64), 5, &[("quantizer", "30")]),
            (
                VideoFormat::I420,
                (64, 80),
                5,
                &[("bframes", "3"), ("quantizer", "40")],
            ),
            (VideoFormat::I42010le, (64, 80), 4, &[("quantizer", "63")]),
            (
                VideoFormat::I420,
                (96, 64),
                3,
                &[("key-int-max", "1"), ("quantizer", "0")],
            ),
        ],
    ),
    // Frames that say which key frame they refer to, in groups that begin at any number.
    (
        "key-check",
        &[(
            VideoFormat::I420,
            (96, 64),
            12,
            &[("bframes", "3"), ("key-int-max", "7"), ("quantizer", "36")],
        )],
    ),
    // Metadata of every kind on reordered frames, and tags.
    (
        "metadata",
        &[(
            VideoFormat::I420,
            (96, 64),
            12,
            &[("bframes", "3"), ("key-int-max", "8"), ("quantizer", "36")],
        )],
    ),
    // Of 8 bits, then of the upper ten of 16.
    (
        "grey",
        &[
            (VideoFormat::Gray8, (96, 64), 5, &[("quantizer", "24")]),
            (
                VideoFormat::Gray16Le,
                (96, 64),
                5,
                &[("bframes", "3"), ("quantizer", "12")],
            ),
        ],
    ),
    // With maps of places that are as predicted.
    (
        "still-low-delay",
        &[(VideoFormat::I420, (240, 176), 8, &[("quantizer", "32")])],
    ),
    (
        "still-hierarchical",
        &[(
            VideoFormat::I42010le,
            (232, 170),
            12,
            &[("bframes", "3"), ("quantizer", "28"), ("tune", "visual")],
        )],
    ),
    // Of the second bundle `realtime`.
    (
        "second-bundle",
        &[
            (
                VideoFormat::I420,
                (144, 96),
                10,
                &[("bframes", "3"), ("quantizer", "24")],
            ),
            (VideoFormat::I42010le, (96, 64), 4, &[("quantizer", "40")]),
        ],
    ),
    // Of the second bundle `visual`.
    (
        "second-visual",
        &[
            (
                VideoFormat::I420,
                (144, 96),
                10,
                &[("bframes", "3"), ("quantizer", "24"), ("tune", "visual")],
            ),
            (
                VideoFormat::I42010le,
                (96, 64),
                4,
                &[("quantizer", "40"), ("tune", "visual")],
            ),
        ],
    ),
];

/// A scene that stands still but for a disc that wanders through it.
fn still(w: u32, h: u32, t: u32) -> Picture {
    let mut scene = picture(w, h, 0);
    for (i, plane) in scene.planes_mut().iter_mut().enumerate() {
        let size = if i == 0 { 14 } else { 7 };
        let (left, top) = (size / 4 + t as usize * size / 7, size);
        for y in 0..plane.height() {
            for (x, v) in plane.row_mut(y).iter_mut().enumerate() {
                let (dx, dy) = (x.abs_diff(left + size), y.abs_diff(top + size));
                if dx * dx + dy * dy < size * size {
                    *v = (*v + 150).min(1023);
                }
            }
        }
    }
    scene.pad();
    scene
}

/// The MD5 per part of equal caps would hide order; so each frame's checksum goes into one MD5 as
/// text, and where the stream has one format only, `videocodectestsink` gives its own beside it.
fn md5(path: &str) -> (usize, String) {
    let outcome = decode(path, "conceal=false").sound();
    let mut checksum = gst::glib::Checksum::new(gst::glib::ChecksumType::Md5).unwrap();
    for shown in &outcome.shown {
        let line = format!(
            "{} {}x{} {:08x} {:?}\n",
            shown.format.to_str(),
            shown.size.0,
            shown.size.1,
            shown.checksum,
            shown.pts.map(|t| t.nseconds())
        );
        checksum.update(line.as_bytes());
    }
    (outcome.shown.len(), checksum.string().unwrap())
}

/// What `videocodectestsink` says, where there is one.
fn sink_md5(path: &str) -> Option<String> {
    gst::ElementFactory::find("videocodectestsink")?;
    let pipeline = launch(&format!(
        "filesrc location={path} ! nnvparse ! nnvdec ! videocodectestsink"
    ));
    let bus = pipeline.bus().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut sum = None;
    while let Some(message) = bus.timed_pop(gst::ClockTime::from_seconds(120)) {
        match message.view() {
            gst::MessageView::Element(e) => {
                let s = e.structure().unwrap();
                if let Ok(md5) = s.get::<String>("checksum") {
                    sum = Some(md5);
                }
            }
            gst::MessageView::Eos(_) => break,
            gst::MessageView::Error(e) => panic!("{path}: {}", e.error()),
            _ => {}
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
    Some(sum.unwrap_or_else(|| panic!("{path}: no MD5 from videocodectestsink")))
}

fn lines() -> Vec<Vec<String>> {
    let path = folder().join("MD5SUMS");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.split_whitespace().map(Into::into).collect())
        .collect()
}

#[test]
fn conformance_streams_decode_to_their_md5() {
    within(|| {
        let lines = lines();
        let names: Vec<_> = lines.iter().map(|l| l[0].as_str()).collect();
        let coded: Vec<_> = STREAMS.iter().map(|s| s.0).collect();
        assert_eq!(names[..coded.len()], coded);
        let drawn = &names[coded.len()..];
        assert!(!drawn.is_empty() && drawn.iter().all(|n| n.starts_with(DRAWN)));
        for line in &lines {
            let path = folder().join(format!("{}.nnv", line[0]));
            let path = path.to_str().unwrap();
            let (frames, sum) = md5(path);
            assert_eq!(
                (frames.to_string(), &sum),
                (line[1].clone(), &line[2]),
                "{}",
                line[0]
            );
            if let Some(sum) = sink_md5(path).filter(|_| line[3] != "-") {
                assert_eq!(sum, line[3], "{}: videocodectestsink", line[0]);
            }
        }
    });
}

#[test]
fn conformance_streams_hold_what_their_names_say() {
    within(|| {
        use nnv_bitstream::{AccessUnitScan, FrameType, UnitScanner, scan_access_unit};
        let facts = |name: &str| {
            let data = std::fs::read(folder().join(format!("{name}.nnv"))).unwrap();
            let (mut pos, mut headers, mut frames) = (0, Vec::new(), Vec::new());
            while let AccessUnitScan::Unit(unit) =
                scan_access_unit(&UnitScanner::new(), &data[pos..], true)
            {
                pos += unit.len;
                headers.extend(unit.sequence);
                frames.push(unit.frame);
            }
            assert_eq!(pos, data.len(), "{name}");
            assert!(
                frames
                    .iter()
                    .all(|f| f.checksum.is_some() || f.frame_type == FrameType::Repeat)
            );
            (headers, frames)
        };
        assert!(facts("key-only").1.iter().all(|f| f.is_key()));
        let (_, low) = facts("low-delay");
        assert_eq!(low.iter().filter(|f| f.is_key()).count(), 2);
        assert!(low.iter().all(|f| f.level == 0));
        let (headers, b) = facts("hierarchical-b");
        assert_eq!(headers[0].gop.mini_gop, 8);
        assert!(b.iter().any(|f| f.level == 3 && f.ref1.is_some()));
        let (odd, _) = facts("odd-size");
        assert_eq!((odd[0].width, odd[0].height), (81, 47));
        assert_eq!(facts("ten-bit").0[0].bit_depth, 10);
        let (_, ink) = facts("ink");
        assert!(ink.iter().any(|f| f.is_key() && f.ink));
        assert!(ink.iter().any(|f| !f.is_key() && f.ink));
        let (_, checked) = facts("key-check");
        for frame in &checked {
            assert_eq!(frame.key_check.is_some(), frame.names_key());
        }
        assert!(checked.iter().any(|f| f.key_check.is_some()) && checked[0].gop > 0);
        for name in ["still-low-delay", "still-hierarchical"] {
            let (_, frames) = facts(name);
            let still = frames.iter().filter(|f| f.still).count();
            assert!(still >= 3, "{name}: {still} frames with a still map");
        }
        let (grey, _) = facts("grey");
        let grey: Vec<_> = grey
            .iter()
            .map(|h| (h.chroma_format, h.bit_depth))
            .collect();
        let chroma = nnv_bitstream::ChromaFormat::Grey;
        assert_eq!(grey, [(chroma, 8), (chroma, 10)]);
        let path = folder().join("metadata.nnv");
        crate::metadata::assert_riders(path.to_str().unwrap(), 12);
        let (changes, _) = facts("parameter-change");
        let mut sizes: Vec<_> = changes
            .iter()
            .map(|h| (h.width, h.height, h.bit_depth))
            .collect();
        sizes.dedup();
        assert_eq!(sizes, [(96, 64, 8), (64, 80, 8), (64, 80, 10), (96, 64, 8)]);
    });
}

/// Makes the streams that are not there, and the sums of all. Those that are there stay: what an
/// encoder makes may change, what decoders show of it must not. Not a test: run by
/// `scripts/make-conformance.sh`.
#[test]
#[ignore = "writes tests/conformance"]
fn make_conformance_streams() {
    within(|| {
        let folder = folder();
        std::fs::create_dir_all(&folder).unwrap();
        let mut sums = String::from(
            "# name, frames, MD5 over format, size, checksum and time of each frame, MD5 of \
             videocodectestsink, version\n",
        );
        // Once in the list, a stream stays of the version that it came with.
        let now = concat!(
            env!("CARGO_PKG_VERSION_MAJOR"),
            ".",
            env!("CARGO_PKG_VERSION_MINOR")
        );
        let versions: HashMap<String, String> = match folder.join("MD5SUMS").exists() {
            true => lines()
                .into_iter()
                .map(|l| (l[0].clone(), l[4].clone()))
                .collect(),
            false => HashMap::new(),
        };
        for (name, parts) in STREAMS {
            let path = folder.join(format!("{name}.nnv"));
            let mut data = Vec::new();
            for (format, (w, h), count, properties) in *parts {
                let mut properties = properties.to_vec();
                properties.push(("frame-checksum", "true"));
                let scene = match *name {
                    "ink" => page,
                    name if name.starts_with("still") => still,
                    _ => picture,
                };
                let info = info(*format, *w, *h);
                let units = match *name {
                    "metadata" => crate::metadata::encoded(&info, *count, &[], &properties),
                    _ => encode_scene(&info, scene, *count, &properties),
                };
                data.extend(join(&units));
            }
            if !path.exists() {
                std::fs::write(&path, &data).unwrap();
            }
        }
        let mut drawn: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().path().file_stem()?.to_str().map(Into::into))
            .filter(|name: &String| name.starts_with(DRAWN))
            .collect();
        drawn.sort();
        for name in STREAMS
            .iter()
            .map(|s| s.0)
            .chain(drawn.iter().map(|n| &n[..]))
        {
            let path = folder.join(format!("{name}.nnv"));
            let path = path.to_str().unwrap();
            let (frames, sum) = md5(path);
            // The sink takes one format only.
            let shown = decode(path, "conceal=false").sound().shown;
            let one = shown
                .iter()
                .all(|s| (s.format, s.size) == (shown[0].format, shown[0].size));
            let sink = one
                .then(|| sink_md5(path))
                .flatten()
                .unwrap_or_else(|| "-".into());
            let version = versions.get(name).map_or(now, |v| v);
            sums += &format!("{name} {frames} {sum} {sink} {version}\n");
        }
        std::fs::write(folder.join("MD5SUMS"), sums).unwrap();
    });
}

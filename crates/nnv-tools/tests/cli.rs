// SPDX-License-Identifier: MPL-2.0
//! The program as a user runs it, on good, cut, empty, foreign and damaged files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nnv_bitstream::{
    AccessUnitScan, BundleHash, FrameHeader, FramePayload, Rational, SequenceHeader, UnitScanner,
    UnitType, scan_access_unit, write_unit,
};
use nnv_codec::config::DecoderConfig;
use nnv_codec::decode::{Decoded, Decoder, built_in};
use nnv_format::picture::{Picture, RawFormat};
use nnv_nn::{Model, ModelSource, RuntimeOptions};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn conformance(name: &str) -> PathBuf {
    root().join(format!("tests/conformance/{name}.nnv"))
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(conformance(name)).unwrap()
}

/// A folder of its own that goes when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nnv-tools-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// One line on standard error that names `what`.
    fn one_line(&self, what: &str) -> &Self {
        let lines: Vec<_> = self.err.lines().collect();
        assert!(
            lines.len() == 1 && lines[0].contains(what),
            "{what}: {self:?}"
        );
        self
    }
}

/// Runs the program; `code` is what it has to exit with.
fn nnv(code: i32, arguments: &[&str]) -> Ran {
    nnv_with(code, arguments, &[])
}

/// The same with variables of the environment.
fn nnv_with(code: i32, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let out = Command::new(env!("CARGO_BIN_EXE_nnv"))
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let ran = Ran {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    };
    assert!(!ran.err.contains("panicked"), "{arguments:?}: {ran:?}");
    assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    ran
}

fn path(name: &str) -> String {
    conformance(name).to_str().unwrap().to_owned()
}

/// All pictures of a stream.
fn decode(stream: &[u8]) -> Vec<Arc<Picture>> {
    let provider = |_: &str, hash: &BundleHash| {
        let bundle = built_in(hash).expect("conformance streams name bundles that are built in");
        let source = ModelSource::Embedded(bundle.name.into());
        Ok(Model::load(&source, &RuntimeOptions::default())?)
    };
    let mut decoder = Decoder::new(provider, DecoderConfig::default());
    let (mut at, mut pictures) = (0, Vec::new());
    loop {
        match scan_access_unit(&UnitScanner::new(), &stream[at..], true) {
            AccessUnitScan::Unit(unit) => {
                decoder.send(&stream[at..at + unit.len], 0).unwrap();
                at += unit.len;
            }
            AccessUnitScan::End => decoder.finish().unwrap(),
            other => panic!("{other:?}"),
        }
        while let Some(decoded) = decoder.receive() {
            match decoded {
                Decoded::Frame(frame) if !frame.concealed => pictures.push(frame.picture),
                other => panic!("{other:?}"),
            }
        }
        if at == stream.len() {
            decoder.finish().unwrap();
            while let Some(Decoded::Frame(frame)) = decoder.receive() {
                pictures.push(frame.picture);
            }
            return pictures;
        }
    }
}

/// 8-bit YUV4MPEG2 with `luma` done to each sample of Y.
fn y4m(pictures: &[Arc<Picture>], luma: impl Fn(u8) -> u8) -> Vec<u8> {
    let (w, h) = (pictures[0].width() as usize, pictures[0].height() as usize);
    let mut out = format!("YUV4MPEG2 W{w} H{h} F30:1 Ip A1:1 C420\n").into_bytes();
    let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
    for picture in pictures {
        let (mut y, mut u, mut v) = (vec![0; w * h], vec![0; cw * ch], vec![0; cw * ch]);
        let mut planes = [&mut y[..], &mut u[..], &mut v[..]];
        picture
            .write_raw(RawFormat::I420, &mut planes, &[w, cw, cw])
            .unwrap();
        y.iter_mut().for_each(|s| *s = luma(*s));
        out.extend(b"FRAME\n");
        out.extend([y, u, v].concat());
    }
    out
}

/// Streams with no picture in them, of so many frames of so many bytes, a key frame every 60.
fn hollow(frames: u32, payload: usize) -> Vec<u8> {
    let mut header = SequenceHeader::new("realtime", [7; 8], 640, 360, 8);
    header.frame_rate = Rational::new(30, 1);
    let filling = vec![0x55; payload];
    let mut out = Vec::new();
    for n in 0..frames {
        let (group, poc) = ((n / 60) as u8, n % 60);
        let mut frame = FrameHeader::key(group, 30);
        if poc == 0 {
            frame.pts = Some(i64::from(n / 60) * 2_000_000_000);
            write_unit(&mut out, UnitType::Sequence, &header.to_payload().unwrap()).unwrap();
        } else {
            frame = FrameHeader::inter(group, poc, 40, poc - 1, None);
            frame.keep = true;
            frame.released = [poc.saturating_sub(2)].into_iter().collect();
            if poc < 2 {
                frame.released.clear();
            }
        }
        let parts = FramePayload {
            header: frame,
            map: b"",
            ink: b"",
            still: b"",
            side: b"",
            z: b"z",
            y: vec![&filling[..]],
        };
        write_unit(&mut out, UnitType::Frame, &parts.to_payload(1).unwrap()).unwrap();
    }
    out
}

#[test]
fn info_tells_what_a_stream_is() {
    for (name, frames, depth) in [
        ("key-only", 4, 8),
        ("low-delay", 12, 8),
        ("hierarchical-b", 20, 8),
        ("odd-size", 6, 8),
        ("ten-bit", 6, 10),
        ("visual", 10, 8),
        ("ink", 6, 8),
        ("parameter-change", 17, 8),
    ] {
        let report = nnv(0, &["info", "--json", &path(name)]).json();
        assert_eq!(report["frames"], frames, "{name}");
        assert_eq!(report["damaged_stretches"], 0, "{name}");
        assert_eq!(report["undecodable"], 0, "{name}");
        assert_eq!(report["every_checksum"], true, "{name}");
        assert_eq!(report["sequences"][0]["bit_depth"], depth, "{name}");
        assert_eq!(report["sequences"][0]["built_in"], true, "{name}");
        let by_type = report["by_type"].as_array().unwrap();
        let sum = |field: &str| -> u64 { by_type.iter().map(|k| k[field].as_u64().unwrap()).sum() };
        assert_eq!(sum("frames"), frames, "{name}");
        let bytes = &report["bytes_by_type"];
        assert_eq!(sum("bytes"), bytes["frames"], "{name}");
        let all: u64 = bytes
            .as_object()
            .unwrap()
            .values()
            .filter_map(|v| v.as_u64())
            .sum();
        assert_eq!(all, report["bytes"], "{name}");
        let text = nnv(0, &["info", &path(name)]).out;
        assert!(text.contains("damage      none"), "{text}");
    }
    let stated = &nnv(0, &["info", "--json", &path("drawn-levels")]).json()["sequences"][0];
    assert_eq!(stated["level"], "1");
    assert_eq!(stated["level_stated"], true);
    assert_eq!(stated["macs_per_sample"], 9548);
    // 32×16 samples at 25 frames/s.
    assert_eq!(stated["gmacs_per_second"], 9548.0 * 512.0 * 25.0 / 1e9);
    let text = nnv(0, &["info", &path("low-delay")]).out;
    assert!(text.contains("level 1 (by size"), "{text}");
    let changes = nnv(0, &["info", "--json", &path("parameter-change")]).json();
    assert!(changes["sequence_changes"].as_u64() > Some(1));
}

#[test]
fn an_hour_is_looked_at_by_its_headers() {
    let folder = Folder::new("hour");
    let stream = hollow(108_000, 300);
    let file = folder.file("hour.nnv", &stream);
    let report = nnv(0, &["info", "--json", &file]).json();
    assert_eq!(report["frames"], 108_000);
    assert_eq!(report["groups"], 1800);
    assert_eq!(report["undecodable"], 0);
    assert_eq!(report["damaged_stretches"], 0);
    assert!((report["duration"].as_f64().unwrap() - 3600.0).abs() < 1e-6);
    assert_eq!(report["every_checksum"], false);
    let read = report["bytes_read"].as_u64().unwrap();
    assert!(read <= 8 << 20, "{read} bytes read");
    assert_eq!(
        nnv(0, &["info", "--json", "--check", &file]).json()["every_checksum"],
        true
    );

    // Damage that headers show is found without reading all, and all of it.
    let mut damaged = stream.clone();
    let middle = damaged.len() / 2;
    damaged.drain(middle..middle + 500);
    let file = folder.file("damaged.nnv", &damaged);
    let report = nnv(0, &["info", "--json", &file]).json();
    assert_eq!(report["damaged_stretches"], 1);
    assert!(report["undecodable"].as_u64() > Some(0), "{report}");
    assert_eq!(report["frames"].as_u64().unwrap() / 10, 10_799);
}

#[test]
fn damage_is_told_with_its_place() {
    let folder = Folder::new("damage");
    let good = bytes("low-delay");
    let units = nnv(0, &["units", &path("low-delay")]).out;
    let frame = units
        .lines()
        .filter(|l| l.contains(" frame "))
        .nth(3)
        .unwrap();
    let offset: usize = frame.split_whitespace().next().unwrap().parse().unwrap();
    let mut bad = good.clone();
    bad[offset + 30] ^= 1;
    let file = folder.file("bad.nnv", &bad);
    let report = nnv(0, &["info", "--json", &file]).json();
    assert_eq!(report["damaged_stretches"], 1);
    assert_eq!(report["damage"][0]["offset"], offset);
    assert_eq!(report["damage"][0]["frame"], 3);
    assert!(report["undecodable"].as_u64() > Some(0));
    let lines = nnv(0, &["units", &file]).out;
    assert!(
        lines
            .lines()
            .any(|l| l.starts_with(&format!("{offset:10} DAMAGE"))),
        "{lines}"
    );
    assert!(lines.contains("UNDECODABLE"), "{lines}");
    assert_eq!(lines.lines().count(), units.lines().count());
}

#[test]
fn units_are_told_one_by_one() {
    let out = nnv(0, &["units", &path("hierarchical-b")]).out;
    assert_eq!(out.lines().filter(|l| l.contains(" frame ")).count(), 20);
    assert!(out.lines().next().unwrap().contains("sequence"));
    assert!(out.contains("refs ") && out.contains("key "), "{out}");
    let mut at = 0;
    for line in out.lines() {
        let mut words = line.split_whitespace();
        assert_eq!(words.next().unwrap().parse(), Ok(at), "{line}");
        at += words.nth(1).unwrap().parse::<u64>().unwrap();
    }
    assert_eq!(at, bytes("hierarchical-b").len() as u64);
}

#[test]
fn cut_parts_decode_to_the_same_pictures() {
    let folder = Folder::new("cut");
    let whole = bytes("parameter-change");
    let keys: Vec<f64> = nnv(0, &["units", &path("parameter-change")])
        .out
        .lines()
        .filter(|l| l.contains("  key "))
        .map(|l| {
            let (_, time) = l.split_once(" at ").unwrap();
            time.split_whitespace().next().unwrap().parse().unwrap()
        })
        .collect();
    assert!(keys.len() > 2, "{keys:?}");
    let pictures = decode(&whole);
    let out = folder.path("part.nnv");
    let (from, to) = (format!("{}", keys[1] + 0.01), format!("{}", keys[2]));
    nnv(
        0,
        &[
            "cut",
            &path("parameter-change"),
            "-o",
            &out,
            "--from",
            &from,
            "--to",
            &to,
        ],
    );
    let part = decode(&std::fs::read(&out).unwrap());
    let first = pictures.iter().position(|p| p.is_equal(&part[0])).unwrap();
    assert!(first > 0 && first + part.len() < pictures.len());
    assert!(
        part.iter()
            .zip(&pictures[first..])
            .all(|(a, b)| a.is_equal(b))
    );

    // The parts behind each other are the whole again.
    let (head, tail) = (folder.path("head.nnv"), folder.path("tail.nnv"));
    let at = format!("{}", keys[2]);
    nnv(
        0,
        &["cut", &path("parameter-change"), "-o", &head, "--to", &at],
    );
    nnv(
        0,
        &["cut", &path("parameter-change"), "-o", &tail, "--from", &at],
    );
    let again = folder.path("again.nnv");
    nnv(0, &["join", &head, &tail, "-o", &again]);
    assert_eq!(std::fs::read(&again).unwrap(), whole);

    // Streams of any kind stand behind each other.
    nnv(
        0,
        &["join", &path("ten-bit"), &path("odd-size"), "-o", &again],
    );
    let both = std::fs::read(&again).unwrap();
    assert_eq!(both, [bytes("ten-bit"), bytes("odd-size")].concat());
    assert_eq!(decode(&both).len(), 12);
}

#[test]
fn what_no_decoder_can_begin_with_is_not_joined() {
    let folder = Folder::new("join");
    let good = path("hierarchical-b");
    let units = nnv(0, &["units", &good]).out;
    let second = units
        .lines()
        .filter(|l| l.contains(" frame "))
        .nth(1)
        .unwrap();
    let offset: usize = second.split_whitespace().next().unwrap().parse().unwrap();
    let headless = folder.file("headless.nnv", &bytes("hierarchical-b")[offset..]);
    let out = folder.path("out.nnv");
    nnv(1, &["join", &good, &headless, "-o", &out]).one_line("offset 0");
    assert!(!Path::new(&out).exists() && !folder.0.join("out.nnv.part").exists());
    nnv(1, &["cut", &headless, "-o", &out]).one_line("no key frame");
    let kept = bytes("hierarchical-b");
    let own = folder.file("own.nnv", &kept);
    for words in [
        &["join", &own, "-o", &own][..],
        &["inspect", &own, "-o", &own],
        &["inspect", &good, "--original", &own, "-o", &own],
        &["compare", &good, &own, "--csv", &own],
        &["compare", &own, &good, "--plot", &own],
        &["compare", &own, &good, "--picture", &own],
        &["model", "realtime", "--atlas", &own, "--clip", &own],
    ] {
        nnv(2, words).one_line("cannot be the output");
        assert!(std::fs::read(&own).unwrap() == kept, "{words:?}");
    }
    nnv(2, &["cut", &good, "-o", &out, "--from", "3", "--to", "2"]);
    nnv(2, &["cut", &good, "-o", &out, "--from", "soon"]);
    nnv(1, &["cut", &good, "-o", &out, "--from", "1:00:00"]).one_line("it ends at");
}

#[test]
fn compare_measures_what_was_done_to_a_clip() {
    let folder = Folder::new("compare");
    let stream = path("low-delay");
    let pictures = decode(&bytes("low-delay"));
    // Samples stay clear of the ends of the range.
    let same = folder.file("same.y4m", &y4m(&pictures, |v| v));
    let report = nnv(0, &["compare", "--json", &same, &stream]).json();
    assert_eq!(report["frames"], 12);
    assert_eq!(report["psnr"]["mean_of_db"]["y"], 100.0);
    assert_eq!(
        report["psnr"]["db_of_mean_error"]["y"],
        serde_json::Value::Null
    );
    assert_eq!(report["ssim"]["all"], 1.0);
    assert_eq!(report["ssimulacra2"], 100.0);
    assert_eq!(report["xpsnr"]["y"], serde_json::Value::Null);
    let other = folder.file("other.y4m", &y4m(&pictures, |v| v ^ 2));
    let (csv, png, svg) = (
        folder.path("q.csv"),
        folder.path("w.png"),
        folder.path("p.svg"),
    );
    let arguments = [
        "compare",
        "--json",
        &other,
        &stream,
        "--csv",
        &csv,
        "--picture",
        &png,
        "--plot",
        &svg,
    ];
    let report = nnv(0, &arguments).json();
    let db = 10.0 * (255.0_f64.powi(2) / 4.0).log10();
    let psnr = report["psnr"]["db_of_mean_error"]["y"].as_f64().unwrap();
    assert!((psnr - db).abs() < 1e-6, "{psnr}");
    assert!(report["ssim"]["y"].as_f64().unwrap() < 1.0);
    let lines = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(lines.lines().count(), 13);
    assert!(
        lines
            .lines()
            .nth(5)
            .unwrap()
            .starts_with(&format!("4,{db:.4},")),
        "{lines}"
    );
    assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    // One panel for PSNR and for each measure that was asked for.
    let panels = |metrics: &[&str]| {
        let plot = ["compare", "--frames", "2", "--plot", &svg, &other, &stream];
        nnv(0, &[&plot[..], metrics].concat());
        let drawn = std::fs::read_to_string(&svg).unwrap();
        assert_eq!(drawn.contains("SSIM Y"), metrics.is_empty(), "{metrics:?}");
        drawn.matches("<polyline").count()
    };
    assert_eq!(panels(&[]), 5);
    assert_eq!(panels(&["--metrics", "psnr"]), 1);
    assert_eq!(panels(&["--metrics", "xpsnr,ssimulacra2"]), 3);
    assert!(
        nnv(0, &["compare", &other, &stream])
            .out
            .contains("MS-SSIM")
    );
    let vmaf = [
        "compare",
        "--json",
        "--metrics",
        "vmaf",
        "--csv",
        &csv,
        &other,
        &stream,
    ];
    let nowhere = folder.path("no-libvmaf.so");
    nnv_with(1, &vmaf, &[("NNV_VMAF_LIBRARY", &nowhere)]).one_line(&nowhere);
    if let Err(e) = nnv_quality::Vmaf::new(nnv_quality::Vmaf::DEFAULT_MODEL) {
        nnv(1, &vmaf).one_line("libvmaf");
        assert!(std::env::var_os("NNV_VMAF_LIBRARY").is_none(), "{e}");
        eprintln!("NOT RUN: {e}");
    } else {
        let report = nnv(0, &vmaf).json();
        assert_eq!(report["vmaf_model"], "vmaf_v0.6.1");
        let lines = std::fs::read_to_string(&csv).unwrap();
        let scores = lines.lines().skip(1).map(|l| l.rsplit(',').next().unwrap());
        let scores: Vec<f64> = scores.map(|s| s.parse().unwrap()).collect();
        assert_eq!(scores.len(), 12);
        let mean = scores.iter().sum::<f64>() / 12.0;
        assert!((report["vmaf"].as_f64().unwrap() - mean).abs() < 1e-3);
        nnv(1, &[&vmaf[..], &["--vmaf-model", "vmaf_v9"]].concat()).one_line("vmaf_v9");
    }

    let short = folder.file("short.y4m", &y4m(&pictures[..5], |v| v));
    nnv(1, &["compare", &short, &stream]).one_line("more frames than the original");
    nnv(0, &["compare", "--frames", "5", &short, &stream]);
    nnv(1, &["compare", &path("ten-bit"), &stream]).one_line("frame 0 cannot be compared");
    nnv(
        0,
        &[
            "compare",
            "--scale",
            "--frames",
            "1",
            &path("ten-bit"),
            &stream,
        ],
    );

    // Three frames later: alike again once they are left out, on either side.
    let late = folder.file("late.y4m", &y4m(&pictures[3..], |v| v));
    let of = |arguments: &[&str]| nnv(0, arguments).json()["ssim"]["all"].clone();
    let equal = ["compare", "--json", "--metrics", "ssim", "--offset"];
    assert_eq!(of(&[&equal[..], &["-3", &late, &stream]].concat()), 1.0);
    assert_eq!(of(&[&equal[..], &["3", &stream, &late]].concat()), 1.0);
    nnv(2, &["compare", "--metrics", "beauty", &same, &stream]);

    // Half of the frames at half of the rate: each beside the frame of its time.
    let half: Vec<_> = pictures.iter().step_by(2).cloned().collect();
    let mut half = y4m(&half, |v| v);
    let rate = half.windows(2).position(|w| w == b" F").unwrap();
    let end = rate + 1 + half[rate + 1..].iter().position(|b| *b == b' ').unwrap();
    let doubled = y4m(&pictures, |v| v);
    let fast = String::from_utf8_lossy(&doubled[rate + 2..end]).into_owned();
    let (n, d) = fast.split_once(':').unwrap();
    let slow = format!(" F{n}:{}", 2 * d.parse::<u32>().unwrap());
    half.splice(rate..end, slow.bytes());
    let half = folder.file("half.y4m", &half);
    let report = nnv(
        0,
        &[
            "compare",
            "--json",
            "--by-time",
            "--metrics",
            "ssim",
            &same,
            &half,
        ],
    )
    .json();
    assert_eq!(report["frames"], 6);
    assert_eq!(report["ssim"]["all"], 1.0);

    let cut = folder.file("cut.y4m", &y4m(&pictures, |v| v)[..9000]);
    nnv(1, &["compare", &cut, &stream]).one_line("the file ends within it");
}

#[test]
fn ten_bits_and_odd_sizes_are_compared() {
    for name in ["ten-bit", "odd-size", "visual", "ink"] {
        let report = nnv(0, &["compare", "--json", &path(name), &path(name)]).json();
        assert_eq!(report["ssim"]["all"], 1.0, "{name}");
        assert_eq!(report["concealed"], 0, "{name}");
    }
}

#[test]
fn the_codec_and_this_program_measure_alike() {
    use nnv_quality::{Psnr, SquaredError};
    let pictures = decode(&bytes("ten-bit"));
    let (a, b) = (&pictures[0], &pictures[3]);
    let errors: [SquaredError; 3] = std::array::from_fn(|i| SquaredError {
        sum: a.plane(i).sse(b.plane(i)),
        samples: (a.plane(i).visible_width() * a.plane(i).visible_height()) as u64,
    });
    let ours = Psnr::of(errors, nnv_format::picture::PSNR_PEAK);
    let theirs = a.psnr(b);
    for (ours, theirs) in [ours.y, ours.u, ours.v].into_iter().zip(theirs) {
        assert!((ours - theirs).abs() < 1e-9, "{ours} {theirs}");
    }
    assert!((ours.weighted_error - a.psnr_yuv(b)).abs() < 1e-9);
}

/// Files that are no sound streams, by name.
fn bad_files(folder: &Folder) -> Vec<(&'static str, String)> {
    let good = bytes("hierarchical-b");
    let mut flipped = good.clone();
    for at in (60..flipped.len()).step_by(97) {
        flipped[at] ^= 0x41;
    }
    let mut holes = good.clone();
    holes.drain(200..230);
    let zeros = vec![0; 4096];
    let noise: Vec<u8> = (0..70_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let start_codes: Vec<u8> = b"\x8eNV\x01\xff\xff\xff\x7f".repeat(500);
    vec![
        ("empty", folder.file("empty.nnv", b"")),
        ("one byte", folder.file("one.nnv", &[0x8e])),
        ("zeros", folder.file("zeros.nnv", &zeros)),
        ("noise", folder.file("noise.nnv", &noise)),
        ("text", folder.file("text.nnv", b"this is no stream\n")),
        ("start codes", folder.file("codes.nnv", &start_codes)),
        (
            "truncated",
            folder.file("truncated.nnv", &good[..good.len() / 2]),
        ),
        ("header alone", folder.file("header.nnv", &good[..40])),
        ("flipped", folder.file("flipped.nnv", &flipped)),
        ("holes", folder.file("holes.nnv", &holes)),
        ("headless", folder.file("headless.nnv", &good[100..])),
        (
            "reversed",
            folder.file(
                "reversed.nnv",
                &good.iter().rev().copied().collect::<Vec<_>>(),
            ),
        ),
    ]
}

#[test]
fn every_subcommand_bears_every_bad_file() {
    let folder = Folder::new("bad");
    let (good, out) = (path("low-delay"), folder.path("out.nnv"));
    let missing = folder.path("missing.nnv");
    let here = folder.0.to_str().unwrap().to_owned();
    // No stream at all: each says so in one line.
    let foreign = [
        "empty",
        "one byte",
        "zeros",
        "noise",
        "text",
        "start codes",
        "reversed",
    ];
    let mut files = bad_files(&folder);
    files.extend([("missing", missing), ("a folder", here)]);
    for (name, file) in &files {
        let hopeless = foreign.contains(name) || ["missing", "a folder"].contains(name);
        let commands: [&[&str]; 9] = [
            &["info", file],
            &["info", "--json", file],
            &["units", file],
            &["cut", file, "-o", &out],
            &["join", &good, file, "-o", &out],
            &["compare", file, &good],
            &["compare", &good, file],
            &["quantizers", file],
            &["bench", "codec", "--read", file],
        ];
        for arguments in commands {
            let ran = Command::new(env!("CARGO_BIN_EXE_nnv"))
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let err = String::from_utf8_lossy(&ran.stderr);
            let code = ran.status.code();
            assert!(!err.contains("panicked"), "{name} {arguments:?}: {err}");
            let fine = if hopeless {
                code == Some(1)
            } else {
                matches!(code, Some(0 | 1))
            };
            assert!(fine, "{name} {arguments:?}: {code:?} {err}");
            if code == Some(1) {
                assert_eq!(err.lines().count(), 1, "{name} {arguments:?}: {err}");
            }
        }
    }
}

#[test]
fn info_counts_what_a_decoder_cannot_decode() {
    let folder = Folder::new("lost");
    let good = bytes("hierarchical-b");
    // Without its first unit, the sequence header, nothing can be decoded.
    let units = nnv(0, &["units", &path("hierarchical-b")]).out;
    let first = units
        .lines()
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    let file = folder.file("headless.nnv", &good[first.parse().unwrap()..]);
    let report = nnv(0, &["info", "--json", &file]).json();
    assert_eq!(report["undecodable"], report["frames"]);
}

#[test]
fn benches_run() {
    let run = |arguments: &[&str]| nnv(0, &[&["bench"], arguments].concat()).out;
    let folder = Folder::new("bench");
    let stream = folder.path("s.nnv");
    let out = run(&[
        "codec",
        "--size",
        "64x48",
        "--frames",
        "3",
        "--q",
        "30",
        "--per-frame",
        "--write",
        &stream,
        "--dump",
        folder.0.to_str().unwrap(),
        "--tuning",
        "key=-10,levels=0:9:14:19",
    ]);
    assert!(out.contains("every frame equals the encoder's"), "{out}");
    assert!(out.contains("ms of processor time"), "{out}");
    assert!(folder.0.join("00002_sym.npy").is_file());
    assert!(run(&["codec", "--read", &stream]).contains("decode: "));
    let out = run(&["sr", "fast", "--sizes", "32x32", "--threads", "1"]);
    assert!(out.contains("parameters"), "{out}");
    let out = run(&["nn", "--sizes", "64x64", "--threads", "1"]);
    assert!(out.contains("loaded realtime on cpu"), "{out}");
    nnv(2, &["bench", "codec", "--tuning", "nothing=1"]).one_line("nothing");
    nnv(2, &["bench", "codec", "--size", "640"]);
    nnv(2, &["bench", "motion"]);
    nnv(
        1,
        &[
            "bench", "codec", "--model", "no-such", "--frames", "1", "--size", "64x48",
        ],
    )
    .one_line("no-such");
}

#[test]
fn quantizers_are_printed_as_training_reads_them() {
    let file = root().join("tests/fixtures/h264/slices.h264");
    let out = Command::new(env!("CARGO_BIN_EXE_nnv"))
        .args(["quantizers", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(out.status.success());
    let mut rest = &out.stdout[..];
    let mut pictures = 0;
    while let Some(end) = rest.iter().position(|&b| b == b'\n') {
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        let numbers: Vec<usize> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        let [quantizer, columns, rows] = numbers[..] else {
            panic!("{line}")
        };
        assert!(quantizer <= 51);
        rest = &rest[end + 1 + columns * rows..];
        pictures += 1;
    }
    assert!(pictures > 0 && rest.is_empty());
}

#[test]
fn the_doctor_knows_what_is_there() {
    let report = nnv(0, &["doctor", "--json"]).json();
    let answers = report["known_answers"].as_array().unwrap();
    assert!(
        answers
            .iter()
            .all(|a| a["provider"] != "cpu" || a["right"] == true),
        "{report}"
    );
    assert!(
        answers
            .iter()
            .any(|a| a["bundle"] == "realtime" && a["kind"] == "codec")
    );
    assert!(
        answers
            .iter()
            .any(|a| a["bundle"] == "fast" && a["kind"] == "sr")
    );
    assert!(nnv(0, &["doctor"]).out.contains("ONNX Runtime"));
    // Elements that GStreamer knows are found, though the plugin is of another version than it.
    let known = Command::new("gst-inspect-1.0").arg("nnvenc").output();
    if known.is_ok_and(|known| known.status.success()) {
        let found = report["gstreamer"]["elements"].as_array().unwrap();
        assert!(found.iter().any(|e| e == "nnvenc"), "{report}");
    } else {
        eprintln!("SKIPPED: GStreamer does not find the plugin");
    }
    // Without the library it says so, and what to do.
    let out = Command::new(env!("CARGO_BIN_EXE_nnv"))
        .args(["doctor"])
        .env("NNV_ORT_LIBRARY", "/nowhere/libonnxruntime.so")
        .env("PATH", "")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        text.contains("to do          install ONNX Runtime"),
        "{text}"
    );
    assert!(text.contains("GStreamer      not found"), "{text}");
    assert_eq!(String::from_utf8_lossy(&out.stderr).lines().count(), 1);
}

#[test]
fn bundles_are_looked_into() {
    let list = nnv(0, &["model"]).out;
    for name in ["realtime", "visual", "balanced", "fast"] {
        assert!(list.contains(name), "{list}");
    }
    let folder = root().join("models/realtime");
    for bundle in ["realtime", folder.to_str().unwrap()] {
        let out = nnv(0, &["model", bundle]).out;
        for what in [
            "key_synth.onnx",
            "as stated",
            "key.step",
            "training",
            "known answers",
        ] {
            assert!(out.contains(what), "{bundle}: no {what} in {out}");
        }
        assert!(
            !out.contains("NOT AS STATED") && !out.contains("MISSING"),
            "{out}"
        );
    }
    assert!(
        nnv(0, &["model", "fast"])
            .out
            .contains("macs_per_pixel 14644")
    );
    nnv(1, &["model", "no-such-bundle"]).one_line("no-such-bundle");

    let copy = Folder::new("bundle");
    nnv(1, &["model", copy.0.to_str().unwrap()]).one_line("bundle.toml is missing");
    let fast = root().join("models/sr/fast");
    let manifest = std::fs::read(fast.join("bundle.toml")).unwrap();
    copy.file("bundle.toml", &manifest);
    nnv(1, &["model", copy.0.to_str().unwrap()]).one_line("x2.onnx is missing");
    copy.file("x2.onnx", b"something else");
    nnv(1, &["model", copy.0.to_str().unwrap()]).one_line("x2.onnx is not what");
    copy.file("bundle.toml", b"[bundle\nformat = 1");
    nnv(1, &["model", copy.0.to_str().unwrap()]).one_line("line 1");
}

#[test]
fn usage_help_completions_and_manuals() {
    nnv(2, &[]);
    nnv(2, &["no-such"]);
    nnv(2, &["info"]);
    nnv(2, &["compare", "one"]);
    assert!(nnv(0, &["--help"]).out.contains("Exit codes"));
    assert!(
        nnv(0, &["--version"])
            .out
            .contains(env!("CARGO_PKG_VERSION"))
    );
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(
            nnv(0, &["completions", shell]).out.contains("quantizers"),
            "{shell}"
        );
    }
    nnv(2, &["completions", "no-such"]);
    assert!(nnv(0, &["man"]).out.contains(".TH nnv"));
    assert!(
        nnv(0, &["man", "bench", "codec"])
            .out
            .contains("per\\-frame")
    );
    nnv(2, &["man", "no-such"]);
}

/// What a program says, `None` where it is not installed.
fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program).args(arguments).output();
    let Ok(out) = out else {
        eprintln!("NOT RUN: {program} is not installed");
        return None;
    };
    assert!(out.status.success(), "{program} {arguments:?}: {out:?}");
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn file_knows_streams() {
    let folder = Folder::new("magic");
    let magic = root().join("data/nnv.magic");
    let magic = magic.to_str().unwrap();
    // Headers of more than 127 bytes have a length of two.
    let mut header = SequenceHeader::new(&"n".repeat(64), [7; 8], 640, 360, 8);
    header.mastering_display = Some(nnv_bitstream::MasteringDisplay {
        primaries: [[1, 2], [3, 4], [5, 6]],
        white_point: [7, 8],
        max_luminance: 9,
        min_luminance: 1,
    });
    header.content_light = Some(nnv_bitstream::ContentLight {
        max_content: 1000,
        max_frame_average: 400,
    });
    header.width = 16_000;
    header.frame_rate = Rational::new(30_000, 1001);
    let payload = header.to_payload().unwrap();
    assert!(payload.len() > 127, "{}", payload.len());
    let mut long = Vec::new();
    write_unit(&mut long, UnitType::Sequence, &payload).unwrap();
    let long = folder.file("long", &long);
    for (file, bundle) in [(path("visual"), "visual".into()), (long, "n".repeat(64))] {
        let Some(said) = says("file", &["-b", "-m", magic, &file]) else {
            return;
        };
        assert_eq!(
            said.trim(),
            format!("NNV neural video, version 1, bundle {bundle}")
        );
        let mime = says("file", &["-b", "--mime-type", "-m", magic, &file]).unwrap();
        assert_eq!(mime.trim(), "video/x-nnv");
    }
    let other = folder.file("other", b"\x8eNV\x02 something else");
    assert!(
        !says("file", &["-b", "-m", magic, &other])
            .unwrap()
            .contains("NNV")
    );
}

#[test]
fn desktops_know_the_type() {
    let folder = Folder::new("mime");
    std::fs::create_dir(folder.0.join("packages")).unwrap();
    let xml = std::fs::read(root().join("data/nnv.xml")).unwrap();
    folder.file("packages/nnv.xml", &xml);
    if says("update-mime-database", &[folder.0.to_str().unwrap()]).is_none() {
        return;
    }
    let read = |name: &str| std::fs::read(folder.0.join(name)).unwrap();
    let globs = String::from_utf8(read("globs2")).unwrap();
    assert!(globs.contains("video/x-nnv:*.nnv"), "{globs}");
    let magic = read("magic");
    assert!(magic.windows(11).any(|w| w == b"video/x-nnv"));
}

#[test]
fn other_files_are_read_by_gstreamer() {
    let folder = Folder::new("gst");
    let foreign = folder.file("foreign.txt", b"neither a stream nor a clip");
    nnv(1, &["compare", &foreign, &path("low-delay")]).one_line("foreign.txt");
    if says("gst-launch-1.0", &["--version"]).is_none() {
        return;
    }
    let clip = root().join("tests/fixtures/demo.mkv");
    let clip = clip.to_str().unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_nnv"))
        .args(["compare", "--json", "--frames", "2", clip, clip])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    if err.contains("missing") {
        return eprintln!("NOT RUN: {err}");
    }
    assert!(out.status.success(), "{err}");
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["frames"], 2);
    assert_eq!(report["ssim"]["all"], 1.0);
}

#[cfg(unix)]
#[test]
fn an_installed_program_finds_the_library_of_the_plugin() {
    let Some(library) = std::env::var_os("NNV_ORT_LIBRARY").filter(|v| !v.is_empty()) else {
        return eprintln!("NOT RUN: NNV_ORT_LIBRARY is not set");
    };
    let prefix = Folder::new("prefix");
    let program = prefix.0.join("bin/nnv");
    std::fs::create_dir(prefix.0.join("bin")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_nnv"), &program).unwrap();
    let plugin = prefix.0.join("lib/gstreamer-1.0/nnv");
    std::fs::create_dir_all(&plugin).unwrap();
    let there = plugin.join(Path::new(&library).file_name().unwrap());
    std::os::unix::fs::symlink(&library, &there).unwrap();
    let out = Command::new(&program)
        .args(["doctor", "--json"])
        .env_remove("NNV_ORT_LIBRARY")
        .env_remove("ORT_DYLIB_PATH")
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let found = report["onnxruntime"]["path"].as_str();
    if found.is_some_and(|path| path.starts_with("/usr/")) {
        return eprintln!("NOT RUN: this machine has an ONNX Runtime of its own");
    }
    assert_eq!(found, there.to_str(), "{report}");
    assert!(out.status.success());
}

/// A file in fragments of a second with frames of 40 ms; nothing in it need decode.
fn fragments() -> Vec<u8> {
    use nnv_mp4::fragments::FragmentMuxer;
    use nnv_mp4::{Codec, Piece, Rotation, Sample, Track};
    let mut header = SequenceHeader::new("b", [7; 8], 64, 48, 8);
    header.frame_rate = Rational::new(25, 1);
    let track = Track {
        codec: Codec::Nnv(header.to_payload().unwrap()),
        language: None,
        rotation: Rotation::None,
    };
    let mut muxer = FragmentMuxer::new(vec![track], Vec::new(), 1_000_000_000).unwrap();
    let mut pieces = Vec::new();
    for number in 0..60_i64 {
        let sample = Sample {
            data: Piece::Data(vec![number as u8; 100]),
            pts: number * 40_000_000,
            dts: None,
            duration: Some(40_000_000),
            decoded: None,
            sync: number % 25 == 0,
        };
        pieces.extend(muxer.push(0, sample).unwrap());
    }
    pieces.extend(muxer.end().unwrap());
    let bytes = pieces.into_iter().flat_map(|piece| match piece {
        Piece::Bytes(bytes) | Piece::Data(bytes) => bytes,
    });
    bytes.collect()
}

#[test]
fn hls_names_ranges_or_makes_files() {
    let folder = Folder::new("hls");
    let data = fragments();
    let film = folder.file("my film.mp4", &data);
    let ran = nnv(0, &["hls", &film]);
    assert!(ran.out.contains("3 segments, 2.400 s"), "{}", ran.out);
    let playlist = std::fs::read_to_string(folder.path("my film.m3u8")).unwrap();
    assert_eq!(
        playlist.matches("\nmy%20film.mp4\n").count(),
        3,
        "{playlist}"
    );

    let parts = folder.path("parts");
    let ran = nnv(0, &["hls", &film, "-o", &parts]);
    assert!(ran.out.contains("index.m3u8"), "{}", ran.out);
    let read = |name: &str| std::fs::read(Path::new(&parts).join(name)).unwrap();
    let mut joined = read("init.mp4");
    for number in 0..3 {
        joined.extend(read(&format!("segment{number:05}.m4s")));
    }
    assert_eq!(joined, data);
    assert!(
        String::from_utf8(read("index.m3u8"))
            .unwrap()
            .contains("segment00002.m4s")
    );

    for (name, bytes, part) in [
        ("none.mp4", &b"nothing of the kind"[..], "no MP4 file"),
        ("head.mp4", &data[..200], "fragment-duration"),
    ] {
        let ran = nnv(1, &["hls", &folder.file(name, bytes)]);
        assert!(ran.err.contains(part), "{}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
}

/// Whatever reads bare streams says so of MP4 files, instead of taking boxes for damage.
#[test]
fn mp4_files_are_told_from_damage() {
    let folder = Folder::new("mp4");
    let film = folder.file("film.mp4", &fragments());
    let (out, key) = (folder.path("out.nnv"), folder.path("sign.key"));
    let public = nnv(0, &["keygen", "sign", &key]).out;
    for words in [
        &["info", &film][..],
        &["units", &film],
        &["cut", &film, "-o", &out],
        &["join", &film, "-o", &out],
        &["inspect", &film, "-o", &out],
        &["verify", &film, "--key", public.trim()],
    ] {
        nnv(1, words).one_line("an MP4 file").one_line("qtdemux");
    }
    assert!(!Path::new(&out).exists());
}

#[test]
fn outputs_are_looked_at_before_the_work() {
    let folder = Folder::new("outputs");
    // Nothing of these is there: the outputs are told first.
    let (clip, stream) = (folder.path("clip.y4m"), folder.path("stream.nnv"));
    let bad = folder.path("no/folder/out");
    for words in [
        &["compare", &clip, &stream, "--csv", &bad][..],
        &["compare", &clip, &stream, "--plot", &bad],
        &["compare", &clip, &stream, "--picture", &bad],
        &["inspect", &stream, "-o", &bad],
        &["model", "realtime", "--atlas", &bad, "--clip", &clip],
        &["bench", "codec", &clip, "--write", &bad],
        &["keygen", "sign", &bad],
    ] {
        nnv(1, words)
            .one_line(&bad)
            .one_line("no/folder is not there: mkdir -p");
    }
    nnv(1, &["hls", &folder.path("no/folder/film.mp4")]).one_line("no/folder is not there");
    assert!(std::fs::read_dir(&folder.0).unwrap().next().is_none());
    // What it would be written to is what it reads.
    let playlist = folder.file("film.m3u8", b"#EXTM3U");
    nnv(2, &["hls", &playlist]).one_line("cannot be the output");
    assert_eq!(std::fs::read(&playlist).unwrap(), b"#EXTM3U");
}

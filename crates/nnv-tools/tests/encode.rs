// SPDX-License-Identifier: MPL-2.0
//! `nnv encode` as a user runs it. What needs elements that are not there says NOT TESTED.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const WIDTH: usize = 96;
const HEIGHT: usize = 64;
/// Frames of a scene: as many as the shortest shot has.
const SCENE: usize = 24;

/// A folder of its own that goes when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nnv-encode-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Folders of runs that are not finished.
    fn works(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().ends_with(".nnv-work"))
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn nnv(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nnv"));
    command.args(arguments).stdin(Stdio::null());
    if arguments[0] == "encode" {
        // That of the checkout, whether it was there or not when `nnv` was built.
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rdo");
        command.arg("--model").arg(model);
    }
    command
}

fn ran(mut command: Command) -> Ran {
    let out = command.output().unwrap();
    Ran {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8(out.stdout).unwrap(),
        err: String::from_utf8(out.stderr).unwrap(),
    }
}

fn encode(input: &Path, output: &Path, more: &[&str]) -> Ran {
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    ran(nnv(&[&["encode", input, output], more].concat()))
}

/// Runs `nnv` until its folder of work has a file of this name, and kills it.
fn killed(folder: &Folder, words: &[&str], name: &str) -> PathBuf {
    let mut child = nnv(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let found = loop {
        let file = folder.works().first().map(|work| work.join(name));
        if let Some(file) = file.filter(|file| file.exists()) {
            break file;
        }
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended before it was killed");
        assert!(started.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(5));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    found
}

/// Whether all elements are there; says so where not.
fn has(elements: &[&str]) -> bool {
    elements.iter().all(|element| {
        let found = Command::new("gst-inspect-1.0")
            .args(["--exists", "--atleast-version=0.0", element])
            .status()
            .is_ok_and(|status| status.success());
        if !found {
            eprintln!("NOT TESTED: GStreamer has no {element} here");
        }
        found
    })
}

const NNSR: &[&str] = &["nnsr", "videoscale", "avenc_ffv1", "matroskamux"];
const X264: &[&str] = &["x264enc", "h264parse", "mp4mux", "avdec_h264"];

/// Scenes of moving waves, each of other ones, as YUV4MPEG2.
fn clip(path: &Path, size: (usize, usize), frames: usize) {
    drawn(path, size, frames, |n, x, y, noise| {
        let scene = (n / SCENE) as f32;
        let (x, y) = (x as f32 + 1.5 * n as f32, y as f32);
        let turn = 0.7 + scene;
        let wave = (x * turn.cos() * 0.35 + y * turn.sin() * 0.4).sin()
            + (x * 0.11 - y * (0.2 + 0.1 * scene)).cos();
        120.0 + 40.0 * wave + (noise >> 29) as f32
    });
}

/// Luma by frame, column, line and a random number, as YUV4MPEG2.
fn drawn(
    path: &Path,
    (width, height): (usize, usize),
    frames: usize,
    luma: impl Fn(usize, usize, usize, u32) -> f32,
) {
    let mut bytes = format!("YUV4MPEG2 W{width} H{height} F24:1 Ip A1:1 C420\n").into_bytes();
    let mut noise = 1_u32;
    for n in 0..frames {
        bytes.extend(b"FRAME\n");
        for y in 0..height {
            for x in 0..width {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                bytes.push(luma(n, x, y, noise) as u8);
            }
        }
        let chroma = width.div_ceil(2) * height.div_ceil(2);
        bytes.extend(std::iter::repeat_n(
            100 + 20 * (n / SCENE % 3) as u8,
            2 * chroma,
        ));
    }
    std::fs::write(path, bytes).unwrap();
}

fn report(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The mean of what `nnv compare` measures over a whole output.
fn compared(original: &Path, output: &Path) -> (u64, f64) {
    let (a, b) = (original.to_str().unwrap(), output.to_str().unwrap());
    let got = ran(nnv(&["compare", a, b, "--json", "--metrics", "psnr"]));
    assert_eq!(got.code, 0, "{}", got.err);
    let report: Value = serde_json::from_str(&got.out).unwrap();
    let psnr = report["psnr"]["mean_of_db"]["weighted_error"].as_f64();
    (report["frames"].as_u64().unwrap(), psnr.unwrap())
}

#[test]
fn shots_meet_their_target_and_are_joined() {
    if !has(X264) {
        return;
    }
    let folder = Folder::new("whole");
    let (input, json) = (folder.path("in.y4m"), folder.path("report.json"));
    clip(&input, (WIDTH, HEIGHT), 3 * SCENE);
    for ending in ["mp4", "mkv"] {
        let output = folder.path(&format!("out.{ending}"));
        let more = ["--codec", "x264", "--target", "psnr=38", "--jobs", "2"];
        let got = encode(
            &input,
            &output,
            &[&more[..], &["--json", json.to_str().unwrap()]].concat(),
        );
        assert_eq!(got.code, 0, "{}", got.err);
        assert!(folder.works().is_empty());
        let report = report(&json);
        let shots = report["shots"].as_array().unwrap();
        assert_eq!(shots.len(), 3, "{report}");
        // A shot that missed was coded again, and the nearest one was kept.
        for shot in shots {
            let miss = |t: &Value| (t["score"].as_f64().unwrap() - 38.0).abs();
            let kept = miss(shot);
            assert!(miss(&shot["predicted"]) >= kept);
            let again = shot["corrected"].as_array().unwrap();
            assert_eq!(again.is_empty(), miss(&shot["predicted"]) <= 0.25);
            assert!(again.len() < 2 || miss(&again[0]) > 0.25, "{shot}");
            assert!(again.iter().all(|t| miss(t) >= kept), "{shot}");
        }
        let (frames, psnr) = compared(&input, &output);
        assert_eq!(frames, 3 * SCENE as u64);
        assert!(
            (psnr - report["score"].as_f64().unwrap()).abs() < 0.01,
            "{psnr}"
        );
        assert!((psnr - 38.0).abs() < 1.0, "{psnr}");
    }
}

/// Shots of every codec that is here reach their target and are joined.
#[test]
fn every_codec_is_coded_and_joined() {
    let folder = Folder::new("codecs");
    let input = folder.path("in.y4m");
    clip(&input, (WIDTH, HEIGHT), 2 * SCENE);
    for (codec, elements) in [
        ("x264", X264),
        ("x265", &["x265enc", "h265parse", "mp4mux", "avdec_h265"]),
        ("vp9", &["vp9enc", "vp9parse", "mp4mux", "capssetter"]),
        ("svtav1", &["svtav1enc", "av1parse", "mp4mux"]),
    ] {
        if !has(elements) {
            continue;
        }
        for ending in ["mp4", "mkv"] {
            let output = folder.path(&format!("{codec}.{ending}"));
            let got = encode(&input, &output, &["--codec", codec, "--target", "psnr=36"]);
            assert_eq!(got.code, 0, "{codec}: {}", got.err);
            let (frames, psnr) = compared(&input, &output);
            assert_eq!(frames, 2 * SCENE as u64, "{codec}.{ending}");
            assert!((psnr - 36.0).abs() < 3.0, "{codec}.{ending}: {psnr} dB");
        }
    }
}

#[test]
fn a_killed_run_goes_on() {
    if !has(X264) {
        return;
    }
    let folder = Folder::new("killed");
    let (input, output) = (folder.path("in.y4m"), folder.path("out.mp4"));
    let json = folder.path("report.json");
    clip(&input, (WIDTH, HEIGHT), 6 * SCENE);
    let (i, o) = (input.to_str().unwrap(), output.to_str().unwrap());
    let words = [
        "encode", i, o, "--codec", "x264", "--target", "psnr=36", "--jobs", "1",
    ];
    let first = killed(&folder, &words, "shot000000.json");
    assert!(!output.exists());
    // Marked, so that it is seen to be taken as it is.
    let mut kept = report(&first);
    kept["predicted"]["bytes"] = 123_456_789.into();
    std::fs::write(&first, kept.to_string()).unwrap();
    let again = [&words[..], &["--json", json.to_str().unwrap()]].concat();
    let got = ran(nnv(&again));
    assert_eq!(got.code, 0, "{}", got.err);
    let report = report(&json);
    assert!(report["resumed"].as_u64().unwrap() >= 1, "{report}");
    assert_eq!(report["shots"][0]["predicted"], kept["predicted"]);
    assert_eq!(compared(&input, &output).0, 6 * SCENE as u64);
    assert!(folder.works().is_empty());
}

#[test]
fn sound_is_kept() {
    let needs = [
        "opusenc",
        "audiotestsrc",
        "videotestsrc",
        "matroskamux",
        "opusparse",
    ];
    if !has(X264) || !has(&needs) {
        return;
    }
    let folder = Folder::new("sound");
    let input = folder.path("in.mp4");
    let made = Command::new("gst-launch-1.0")
        .args(["-q", "videotestsrc", "num-buffers=50", "!"])
        .args([
            "video/x-raw,format=I420,width=96,height=64,framerate=25/1",
            "!",
            "x264enc",
            "!",
        ])
        .args(["mp4mux", "name=m", "!", "filesink"])
        .arg(format!("location={}", input.display()))
        .args([
            "audiotestsrc",
            "num-buffers=100",
            "samplesperbuffer=960",
            "!",
        ])
        .args(["audio/x-raw,rate=48000", "!", "opusenc", "!", "m."])
        .status()
        .unwrap();
    assert!(made.success());
    for (codec, name) in [
        ("x264", "out.mp4"),
        ("x264", "out.mkv"),
        ("nnv", "out-nnv.mp4"),
    ] {
        if codec == "nnv" && !has(&["nnvenc", "nnvparse", "nnvmp4mux"]) {
            continue;
        }
        let output = folder.path(name);
        let got = encode(
            &input,
            &output,
            &["--codec", codec, "--target", "ssim=0.95"],
        );
        assert_eq!(got.code, 0, "{}", got.err);
        let said = Command::new("gst-discoverer-1.0")
            .args(["-v", output.to_str().unwrap()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("audio/x-opus"), "{name}: {said}");
        assert_eq!(compared(&input, &output).0, 50, "{name}");
    }
}

#[test]
fn a_file_without_pictures_is_told() {
    if !has(X264) || !has(&["audiotestsrc", "vorbisenc", "oggmux"]) {
        return;
    }
    let folder = Folder::new("no-pictures");
    let input = folder.path("in.ogg");
    let made = Command::new("gst-launch-1.0")
        .args(["-q", "audiotestsrc", "num-buffers=20", "!", "vorbisenc"])
        .args(["!", "oggmux", "!", "filesink"])
        .arg(format!("location={}", input.display()))
        .status()
        .unwrap();
    assert!(made.success());
    let words = ["--codec", "x264", "--target", "ssim=0.95"];
    let got = encode(&input, &folder.path("out.mp4"), &words);
    assert_eq!(got.code, 1);
    let wanted = "no pictures that GStreamer can decode here; it holds Vorbis (audio/x-vorbis)";
    assert!(got.err.contains(wanted), "{}", got.err);
}

#[test]
fn subtitles_are_kept() {
    let needs = ["filesrc", "subparse", "matroskamux", "videotestsrc"];
    if !has(X264) || !has(&needs) {
        return;
    }
    let folder = Folder::new("subtitles");
    let cues = folder.path("cues.srt");
    let text = "1\n00:00:00,200 --> 00:00:00,900\nA & <i>B</i>\n\n";
    std::fs::write(&cues, text).unwrap();
    let input = folder.path("in 'quoted\" back\\slash.mkv");
    let named = input
        .to_str()
        .unwrap()
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    let made = Command::new("gst-launch-1.0")
        .args(["-q", "videotestsrc", "num-buffers=50", "!"])
        .arg("video/x-raw,format=I420,width=96,height=64,framerate=25/1")
        .args([
            "!",
            "x264enc",
            "!",
            "matroskamux",
            "name=m",
            "!",
            "filesink",
        ])
        .arg(format!("location=\"{named}\""))
        .arg("filesrc")
        .arg(format!("location={}", cues.display()))
        .args(["!", "subparse", "!", "text/x-raw,format=utf8", "!", "m."])
        .status()
        .unwrap();
    assert!(made.success());
    for name in ["out.mkv", "out.mp4"] {
        let output = folder.path(name);
        let words = ["--codec", "x264", "--target", "ssim=0.95"];
        let got = encode(&input, &output, &words);
        assert_eq!(got.code, 0, "{}", got.err);
        let said = Command::new("gst-discoverer-1.0")
            .args(["-v", output.to_str().unwrap()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("subtitles #"), "{name}: {said}");
        assert_eq!(compared(&input, &output).0, 50, "{name}");
    }
}

#[test]
fn targets_out_of_reach_warn_and_end() {
    if !has(X264) {
        return;
    }
    let folder = Folder::new("reach");
    let input = folder.path("in.y4m");
    clip(&input, (WIDTH, HEIGHT), 8);
    let got = encode(
        &input,
        &folder.path("out.mp4"),
        &["--codec", "x264", "--target", "psnr=70"],
    );
    assert_eq!(got.code, 0, "{}", got.err);
    assert!(
        got.err.contains("miss psnr=70") && got.err.contains("lowest"),
        "{}",
        got.err
    );
}

#[test]
fn one_black_frame_is_coded() {
    if !has(X264) {
        return;
    }
    let folder = Folder::new("black");
    let input = folder.path("in.y4m");
    let mut bytes = b"YUV4MPEG2 W64 H48 F25:1 C420\nFRAME\n".to_vec();
    bytes.extend([16; 64 * 48]);
    bytes.extend([128; 64 * 48 / 2]);
    std::fs::write(&input, bytes).unwrap();
    let output = folder.path("out.mp4");
    let got = encode(&input, &output, &["--codec", "x264", "--target", "psnr=40"]);
    assert_eq!(got.code, 0, "{}", got.err);
    assert_eq!(compared(&input, &output).0, 1);
}

#[test]
fn bad_input_is_one_line() {
    if Command::new("gst-inspect-1.0")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("NOT TESTED: gst-inspect-1.0 is not on PATH");
        return;
    }
    let folder = Folder::new("bad");
    let (empty, text, odd) = (
        folder.path("empty"),
        folder.path("text"),
        folder.path("odd.y4m"),
    );
    let missing = folder.path("missing.mp4");
    std::fs::write(&empty, b"").unwrap();
    std::fs::write(
        &text,
        b"this is no video at all, and was never meant to be one\n",
    )
    .unwrap();
    clip(&odd, (33, 31), 2);
    let out = folder.path("out.mp4");
    let x264 = ["--codec", "x264", "--target", "psnr=40"];
    for (input, expected) in [
        (&missing, "No such file"),
        (&empty, "empty"),
        (&text, "text"),
    ] {
        let got = encode(input, &out, &x264);
        assert_eq!(got.code, 1, "{}", got.err);
        assert!(
            got.err.contains(expected) && got.err.lines().count() == 1,
            "{}",
            got.err
        );
    }
    if has(X264) {
        let (i, o) = (odd.to_str().unwrap(), out.to_str().unwrap());
        let mut command = nnv(&["encode", i, o, "--codec", "x264", "--target", "vmaf=93"]);
        command.env("NNV_FFMPEG", folder.path("no-ffmpeg"));
        let got = ran(command);
        assert_eq!(got.code, 1, "{}", got.err);
        assert!(
            got.err.contains("NNV_FFMPEG") && got.err.contains("psnr"),
            "{}",
            got.err
        );
    }
    if !has(&["svtav1enc"]) {
        let got = encode(&odd, &out, &["--codec", "svtav1", "--target", "psnr=40"]);
        assert_eq!(got.code, 1, "{}", got.err);
        assert!(
            got.err.contains("svtav1enc") && got.err.contains("plugins-bad"),
            "{}",
            got.err
        );
    }
    for more in [
        &["--codec", "x264", "--target", "vmaf=120"][..],
        &["--codec", "x264", "--target", "beauty=3"],
        &["--codec", "x264", "--target", "psnr=40", "--preset", "nice"],
        &["--codec", "x264", "--target", "psnr=40", "--tolerance", "0"],
        &["--codec", "x264", "--target", "psnr=40", "--sizes=2/3"],
        &["--codec", "x264", "--target", "psnr=40", "--sizes="],
        // A list stands behind an equals sign: without, it would be taken for a file.
        &["--codec", "x264", "--target", "psnr=40", "--sizes", "1,1/2"],
    ] {
        let got = encode(&odd, &out, more);
        assert_eq!(got.code, 2, "{more:?}: {}", got.err);
    }
    if has(X264) && has(NNSR) {
        let small = folder.path("small.y4m");
        clip(&small, (WIDTH, HEIGHT), 2);
        let got = encode(&small, &out, &[&x264[..], &["--sizes=1/2"]].concat());
        assert_eq!(got.code, 1, "{}", got.err);
        assert!(
            got.err.contains("--sizes") && got.err.contains("64"),
            "{}",
            got.err
        );
    }
    let got = encode(&odd, &folder.path("out.avi"), &x264);
    assert!(got.code == 2 && got.err.contains(".mkv"), "{}", got.err);
    let got = encode(&odd, &odd, &x264);
    assert!(
        got.code == 2 && got.err.contains("cannot be the output"),
        "{}",
        got.err
    );
    assert!(folder.works().is_empty() || !out.exists());
}

/// Outputs that cannot be written are told before the source is looked at: here it is not there.
#[test]
fn outputs_are_looked_at_first() {
    let folder = Folder::new("outputs");
    let input = folder.path("never-read.y4m");
    let (good, bad) = (folder.path("out.mp4"), folder.path("no/folder/out"));
    let x264 = ["--codec", "x264", "--target", "psnr=40"];
    let json = [&x264[..], &["--json", bad.to_str().unwrap()]].concat();
    for (output, words) in [(&bad.with_extension("mp4"), &x264[..]), (&good, &json)] {
        let got = encode(&input, output, words);
        assert_eq!(got.code, 1, "{}", got.err);
        for part in ["no/folder/out", "no/folder is not there: mkdir -p"] {
            assert!(got.err.contains(part), "{part}: {}", got.err);
        }
    }
    assert!(std::fs::read_dir(&folder.0).unwrap().next().is_none());
}

#[test]
fn odd_sizes_are_kept_or_told() {
    let folder = Folder::new("odd-sides");
    let (input, json) = (folder.path("in.y4m"), folder.path("report.json"));
    clip(&input, (97, 65), SCENE);
    for (codec, elements, size) in [
        ("nnv", &["nnvenc", "nnvparse", "nnvmp4mux"][..], (97, 65)),
        ("x264", X264, (96, 64)),
    ] {
        if !has(elements) {
            continue;
        }
        let output = folder.path(&format!("{codec}.mp4"));
        let words = ["--codec", codec, "--target", "psnr=34", "--json"];
        let words = [&words[..], &[json.to_str().unwrap()]].concat();
        let got = encode(&input, &output, &words);
        assert_eq!(got.code, 0, "{}", got.err);
        let report = report(&json);
        assert_eq!(report["width"], size.0, "{report}");
        assert_eq!(report["height"], size.1, "{report}");
        let cropped = "cropped from 97x65 to 96x64: x264enc codes even sizes only";
        let told = got.err.matches(cropped).count();
        assert_eq!(told, usize::from(codec == "x264"), "{}", got.err);
        assert_eq!(report["cropped"] == cropped, codec == "x264", "{report}");
        // The original is what the report says, and no more was lost than is told.
        let original = folder.path("cropped.y4m");
        let score = report["score"].as_f64().unwrap();
        drawn_part(&input, &original, (97, 65), size);
        let (frames, psnr) = compared(&original, &output);
        assert_eq!(frames, SCENE as u64);
        assert!((psnr - score).abs() < 0.01, "{psnr}: {report}");
    }
}

/// The upper left part of a clip that [`drawn`] made.
fn drawn_part(from: &Path, to: &Path, (w, h): (usize, usize), (pw, ph): (usize, usize)) {
    let bytes = std::fs::read(from).unwrap();
    let head = bytes.iter().position(|b| *b == b'\n').unwrap() + 1;
    let mut out = format!("YUV4MPEG2 W{pw} H{ph} F25:1 C420\n").into_bytes();
    let planes = |w: usize, h: usize| {
        let chroma = (w.div_ceil(2), h.div_ceil(2));
        [(w, h), chroma, chroma]
    };
    let frame = planes(w, h).iter().map(|(w, h)| w * h).sum::<usize>();
    for bytes in bytes[head..].chunks(b"FRAME\n".len() + frame) {
        let (mark, mut rest) = bytes.split_at(b"FRAME\n".len());
        out.extend(mark);
        for ((w, h), (pw, ph)) in planes(w, h).into_iter().zip(planes(pw, ph)) {
            let (plane, behind) = rest.split_at(w * h);
            out.extend(plane.chunks(w).take(ph).flat_map(|row| &row[..pw]));
            rest = behind;
        }
    }
    std::fs::write(to, out).unwrap();
}

#[test]
fn both_ways_are_compared() {
    if !has(X264) {
        return;
    }
    let folder = Folder::new("compare");
    let (input, json) = (folder.path("in.y4m"), folder.path("report.json"));
    clip(&input, (WIDTH, HEIGHT), SCENE);
    let more = [
        "--codec",
        "x264",
        "--target",
        "psnr=38",
        "--compare",
        "--json",
    ];
    let more = [&more[..], &[json.to_str().unwrap()]].concat();
    let got = encode(&input, &folder.path("out.mp4"), &more);
    assert_eq!(got.code, 0, "{}", got.err);
    assert!(
        got.out.contains("predicted") && got.out.contains("by probes"),
        "{}",
        got.out
    );
    let report = report(&json);
    let probing = &report["probing"];
    // The highest whole quantizer that is not below the target.
    assert!(probing["score"].as_f64().unwrap() >= 38.0, "{report}");
    assert!(probing["codings"].as_u64().unwrap() >= 2, "{report}");
}

/// Broad waves that move, under some noise.
fn smooth(path: &Path, size: (usize, usize), frames: usize) {
    drawn(path, size, frames, |n, x, y, noise| {
        let (x, y) = (x as f32 + n as f32, y as f32);
        120.0 + 50.0 * (x * 0.06).sin() * (y * 0.07).cos() + (noise >> 29) as f32
    });
}

/// Samples that have nothing to do with their neighbours, moving together.
fn fine(path: &Path, size: (usize, usize), frames: usize) {
    drawn(path, size, frames, |n, x, y, _| {
        let place = ((x + 2 * n) as u32).wrapping_mul(2_654_435_761) ^ (y as u32 * 40_503);
        60.0 + (place.wrapping_mul(2_246_822_519) >> 25) as f32
    });
}

/// Brings an output to the size that it is shown at, as the last line says, and measures that.
fn compared_as_shown(original: &Path, got: &Ran, folder: &Folder) -> (u64, f64) {
    let line = got.out.lines().find(|line| line.starts_with("shown at"));
    let (_, words) = line
        .unwrap_or_else(|| panic!("{}", got.out))
        .split_once("gst-launch-1.0 ")
        .unwrap();
    let shown = folder.path("shown.mkv");
    let words = words.replace(
        "autovideosink",
        "video/x-raw,format=I420 ! avenc_ffv1 ! matroskamux ! filesink",
    );
    let status = Command::new("gst-launch-1.0")
        .args(["-q", "--no-fault"])
        .args(words.replace('"', "").split_whitespace())
        .arg(format!("location={}", shown.display()))
        .status();
    assert!(status.unwrap().success(), "{words}");
    compared(original, &shown)
}

#[test]
fn sizes_follow_detail_and_target() {
    if !has(X264) || !has(NNSR) {
        return;
    }
    type Draw = fn(&Path, (usize, usize), usize);
    let folder = Folder::new("sizes");
    let (input, json) = (folder.path("in.y4m"), folder.path("report.json"));
    let cases: [(Draw, &str, &str); 4] = [
        (smooth, "psnr=36", "1/2"),
        // Scaling takes the noise away.
        (smooth, "psnr=46", "1"),
        (fine, "psnr=30", "1"),
        // Out of reach at any size.
        (fine, "psnr=70", "1"),
    ];
    for (draw, target, expected) in cases {
        draw(&input, (192, 128), SCENE);
        let more = ["--codec", "x264", "--target", target, "--sizes", "--json"];
        let more = [&more[..], &[json.to_str().unwrap()]].concat();
        let got = encode(&input, &folder.path("out.mp4"), &more);
        assert_eq!(got.code, 0, "{}", got.err);
        let report = report(&json);
        assert_eq!(report["size"], expected, "{target}: {report}");
        assert!(
            got.err
                .contains(&format!("size {expected} chosen: 1 (192x128)")),
            "{}",
            got.err
        );
        let sizes = report["sizes"].as_array().unwrap();
        assert_eq!(sizes.len(), 3);
        assert_eq!(
            target == "psnr=70",
            got.err.contains("the lowest there is"),
            "{}",
            got.err
        );
        if expected == "1" {
            assert!(!got.out.contains("shown at"), "{}", got.out);
            assert!(sizes[2]["scaled"].as_f64().unwrap() < 46.0, "{report}");
            assert_eq!(sizes[2]["in_reach"], false);
            continue;
        }
        let bytes = |i: usize| sizes[i]["bytes"].as_u64().unwrap();
        assert!(bytes(2) < bytes(0), "{report}");
        let (frames, psnr) = compared_as_shown(&input, &got, &folder);
        assert_eq!(frames, SCENE as u64);
        assert!(
            (psnr - report["score"].as_f64().unwrap()).abs() < 0.01,
            "{psnr}: {report}"
        );
        assert!((psnr - 36.0).abs() < 1.0, "{psnr}");
    }
}

#[test]
fn one_frame_is_coded_small_and_odd_sizes_at_full_size() {
    if !has(&["vp9enc", "vp9parse", "mp4mux", "capssetter"]) || !has(NNSR) {
        return;
    }
    let folder = Folder::new("odd");
    let (input, output) = (folder.path("in.y4m"), folder.path("out.mp4"));
    // Twice the half is not the whole: it has even sides, too.
    smooth(&input, (194, 130), 1);
    for (size, small) in [("1/2", (98, 66)), ("3/4", (146, 98))] {
        let sizes = format!("--sizes={size}");
        let got = encode(
            &input,
            &output,
            &["--codec", "vp9", "--target", "psnr=34", &sizes],
        );
        assert_eq!(got.code, 0, "{}", got.err);
        let said = format!("{size} ({}x{}) no other in reach", small.0, small.1);
        assert!(got.err.contains(&said), "{}", got.err);
        let (frames, psnr) = compared_as_shown(&input, &got, &folder);
        assert_eq!(frames, 1);
        assert!((psnr - 34.0).abs() < 2.0, "{psnr}");
    }
    smooth(&input, (195, 131), 2);
    let vp9 = ["--codec", "vp9", "--target", "psnr=34", "--sizes"];
    let got = encode(&input, &output, &vp9);
    assert_eq!(got.code, 0, "{}", got.err);
    assert!(
        got.err
            .contains("size 1 chosen: 1 (195x131) no other in reach"),
        "{}",
        got.err
    );
    assert_eq!(compared(&input, &output).0, 2);
    let got = encode(&input, &output, &[&vp9[..4], &["--sizes=1/2"]].concat());
    assert_eq!(got.code, 1, "{}", got.err);
    assert!(
        got.err.contains("195x131") && got.err.contains("even"),
        "{}",
        got.err
    );
}

#[test]
fn a_killed_choice_goes_on() {
    if !has(X264) || !has(NNSR) {
        return;
    }
    let folder = Folder::new("killed-choice");
    let (input, output) = (folder.path("in.y4m"), folder.path("out.mp4"));
    let json = folder.path("report.json");
    smooth(&input, (192, 128), 2 * SCENE);
    let (i, o) = (input.to_str().unwrap(), output.to_str().unwrap());
    let words = [
        "encode", i, o, "--codec", "x264", "--target", "psnr=36", "--jobs", "1", "--sizes",
    ];
    let scaled = killed(&folder, &words, "scale000000.json");
    assert!(!output.exists());
    assert_eq!(report(&scaled).as_array().unwrap().len(), 2);
    // Of one size it says otherwise, so that it is seen to be taken as it is.
    std::fs::write(&scaled, "[60.0, 12.5]").unwrap();
    let got = ran(nnv(
        &[&words[..], &["--json", json.to_str().unwrap()]].concat()
    ));
    assert_eq!(got.code, 0, "{}", got.err);
    let report = report(&json);
    assert_eq!(report["sizes"][2]["scaled"], 12.5, "{report}");
    assert_ne!(report["size"], "1/2");
    assert_eq!(report["frames"], 2 * SCENE as u64);
    assert!(folder.works().is_empty());
}

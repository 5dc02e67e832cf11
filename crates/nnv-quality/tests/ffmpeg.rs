// SPDX-License-Identifier: MPL-2.0
//! PSNR, SSIM, XPSNR and VMAF beside those of ffmpeg's filters, frame by frame.
//!
//! Needs an ffmpeg: `NNV_FFMPEG`, or the one that the benchmarks fetch into `.deps/ffmpeg`. Real
//! clips are taken from `NNV_SHARED`. VMAF needs libvmaf here, and an ffmpeg that has it. Without
//! them the tests say so and pass.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nnv_quality::{
    ClipQuality, Colour, FrameQuality, Meter, Metrics, PlaneView, Vmaf, VmafError, Xpsnr,
};

fn ffmpeg() -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/ffmpeg");
    let named = std::env::var_os("NNV_FFMPEG").map(PathBuf::from);
    let found = named.or_else(|| {
        let versions = std::fs::read_dir(fetched).ok()?.flatten();
        versions
            .map(|entry| entry.path().join("ffmpeg"))
            .find(|path| path.is_file())
    });
    if found.is_none() {
        eprintln!("NOT RUN: no ffmpeg; name one in NNV_FFMPEG, or run bench/rd/run.sh once");
    }
    found
}

/// A folder of its own that goes when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        // Tests run side by side, and take the same filters of clips of the same size.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nnv-quality-{}-{number}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Frames of planar 4:2:0, samples in 16 bits.
struct Clip {
    width: usize,
    height: usize,
    depth: u8,
    frames: Vec<[Vec<u16>; 3]>,
}

impl Clip {
    fn size(&self, plane: usize) -> (usize, usize) {
        let half = |n: usize| if plane == 0 { n } else { n.div_ceil(2) };
        (half(self.width), half(self.height))
    }

    fn raw(&self) -> Vec<u8> {
        let samples = self.frames.iter().flatten().flatten();
        if self.depth == 8 {
            samples.map(|&v| v as u8).collect()
        } else {
            samples.flat_map(|v| v.to_le_bytes()).collect()
        }
    }

    fn from_raw(width: usize, height: usize, depth: u8, bytes: &[u8]) -> Clip {
        let mut clip = Clip {
            width,
            height,
            depth,
            frames: Vec::new(),
        };
        let samples: Vec<u16> = if depth == 8 {
            bytes.iter().map(|&b| b.into()).collect()
        } else {
            let pairs = bytes.as_chunks::<2>().0.iter();
            pairs.map(|b| u16::from_le_bytes(*b)).collect()
        };
        let sizes: [usize; 3] = std::array::from_fn(|p| clip.size(p).0 * clip.size(p).1);
        for frame in samples.chunks_exact(sizes.iter().sum()) {
            let (y, c) = frame.split_at(sizes[0]);
            let (u, v) = c.split_at(sizes[1]);
            clip.frames.push([y.to_vec(), u.to_vec(), v.to_vec()]);
        }
        clip
    }

    /// Coarser and noisier, more from frame to frame, eight in turn.
    fn spoilt(&self) -> Clip {
        self.coarse(6)
    }

    /// The same with samples that are multiples of `step` before the noise.
    fn coarse(&self, step: i32) -> Clip {
        let mut seed = 1_u32;
        let top = (1_i32 << self.depth) - 1;
        let frames = self.frames.iter().enumerate().map(|(t, planes)| {
            planes.clone().map(|plane| {
                let spoil = |v: u16| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let noise = (seed >> 24) as i32 % (2 + 3 * (t as i32 % 8));
                    ((i32::from(v) / step * step) + noise).clamp(0, top) as u16
                };
                plane.into_iter().map(spoil).collect()
            })
        });
        let frames = frames.collect();
        Clip { frames, ..*self }
    }

    /// Hands each frame's planes of both clips to `look`: 8-bit ones where the depth is 8, with
    /// rows apart.
    fn with_planes<T>(
        &self,
        other: &Clip,
        mut look: impl FnMut(&[PlaneView<'_>; 3], &[PlaneView<'_>; 3]) -> T,
    ) -> Vec<T> {
        let pad = 5;
        let strided = |clip: &Clip, t: usize, p: usize| -> Vec<u16> {
            let rows = clip.frames[t][p].chunks(clip.size(p).0);
            rows.flat_map(|row| row.iter().copied().chain([999; 5]))
                .collect()
        };
        let frames = 0..self.frames.len();
        frames
            .map(|t| {
                let planes = [self, other].map(|clip| {
                    std::array::from_fn::<_, 3, _>(|p| {
                        let wide = strided(clip, t, p);
                        let narrow: Vec<u8> = wide.iter().map(|&v| v as u8).collect();
                        (wide, narrow)
                    })
                });
                let views = planes.each_ref().map(|planes| {
                    std::array::from_fn::<_, 3, _>(|p| {
                        let (w, h) = self.size(p);
                        let (wide, narrow) = &planes[p];
                        if self.depth == 8 {
                            PlaneView::u8(narrow, w, h, w + pad).unwrap()
                        } else {
                            PlaneView::u16(wide, w, h, w + pad, self.depth).unwrap()
                        }
                    })
                });
                look(&views[0], &views[1])
            })
            .collect()
    }

    fn quality(&self, other: &Clip) -> Vec<FrameQuality> {
        self.with_planes(other, |a, b| FrameQuality::of(a, b).unwrap())
    }
}

fn synthetic(width: usize, height: usize, depth: u8) -> Clip {
    let mut clip = Clip {
        width,
        height,
        depth,
        frames: Vec::new(),
    };
    let scale = f32::from(1_u16 << (depth - 8));
    for t in 0..4 {
        clip.frames.push(std::array::from_fn(|p| {
            let (w, h) = clip.size(p);
            (0..w * h)
                .map(|i| {
                    let (x, y) = ((i % w) as f32, (i / w) as f32 + 2.0 * t as f32);
                    let wave = (x * 0.21).sin() * (y * 0.13).cos() * 70.0;
                    let edge = if (x - 40.0).hypot(y - 30.0) < 20.0 {
                        40.0
                    } else {
                        0.0
                    };
                    ((120.0 + wave + edge) * scale) as u16
                })
                .collect()
        }));
    }
    clip
}

/// The fields of a line of a filter's statistics, `name:value`.
fn field(line: &str, name: &str) -> f64 {
    let prefix = format!("{name}:");
    let value = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(&prefix))
        .unwrap_or_else(|| panic!("no {name} in {line:?}"));
    value
        .parse()
        .unwrap_or_else(|_| panic!("{name} in {line:?}"))
}

/// Lines that a filter writes, one for each frame, and what it says in the end.
fn filter(ffmpeg: &Path, name: &str, a: &Clip, b: &Clip, rate: u32) -> (Vec<String>, String) {
    let folder = Folder::new(&format!(
        "{name}-{}x{}-{}-{rate}",
        a.width, a.height, a.depth
    ));
    let rate = rate.to_string();
    let mut command = Command::new(ffmpeg);
    command
        .current_dir(&folder.0)
        .args(["-hide_banner", "-nostats"]);
    for (file, clip) in [("a.yuv", a), ("b.yuv", b)] {
        std::fs::write(folder.0.join(file), clip.raw()).unwrap();
        let format = pixels(clip.depth);
        let size = format!("{}x{}", clip.width, clip.height);
        command.args([
            "-f", "rawvideo", "-pix_fmt", format, "-s", &size, "-r", &rate, "-i", file,
        ]);
    }
    let graph = match name {
        // What was made of the reference comes first.
        "libvmaf" => "[1:v][0:v]libvmaf=log_fmt=csv:log_path=stats".into(),
        _ => format!("[0:v][1:v]{name}=stats_file=stats"),
    };
    let out = command
        .args(["-lavfi", &graph, "-f", "null", "-"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{log}");
    let stats = std::fs::read_to_string(folder.0.join("stats")).unwrap();
    let total = log.lines().rfind(|line| line.contains("Parsed_"));
    (
        stats.lines().map(String::from).collect(),
        total.unwrap_or_else(|| panic!("{log}")).to_owned(),
    )
}

fn agrees(ffmpeg: &Path, a: &Clip, b: &Clip) {
    let ours = a.quality(b);
    let mut clip = ClipQuality::default();
    ours.iter().for_each(|frame| {
        clip.add(frame);
    });
    let mean = clip.mean().unwrap();
    let near = |ours: f64, theirs: f64, within: f64, what: &str| {
        let equal = ours == theirs || (ours - theirs).abs() <= within;
        assert!(equal, "{what}: {ours} here, {theirs} by ffmpeg");
    };
    let (psnr, total) = filter(ffmpeg, "psnr", a, b, 25);
    assert_eq!(psnr.len(), ours.len());
    for (line, frame) in psnr.iter().zip(&ours) {
        let p = frame.psnr;
        for (name, ours) in [
            ("psnr_y", p.y),
            ("psnr_u", p.u),
            ("psnr_v", p.v),
            ("psnr_avg", p.pooled),
        ] {
            near(ours, field(line, name), 0.01, name);
        }
    }
    let p = mean.db_of_mean_error;
    for (name, ours) in [("y", p.y), ("u", p.u), ("v", p.v), ("average", p.pooled)] {
        near(ours, field(&total, name), 0.01, name);
    }
    let (ssim, total) = filter(ffmpeg, "ssim", a, b, 25);
    assert_eq!(ssim.len(), ours.len());
    for (line, frame) in ssim.iter().zip(&ours) {
        let s = frame.ssim.unwrap();
        for (name, ours) in [("Y", s.y), ("U", s.u), ("V", s.v), ("All", s.all)] {
            near(ours, field(line, name), 0.0001, name);
        }
    }
    let s = mean.ssim.unwrap();
    for (name, ours) in [("Y", s.y), ("U", s.u), ("V", s.v), ("All", s.all)] {
        near(ours, field(&total, name), 0.0001, name);
    }
}

#[test]
fn a_synthetic_clip_is_measured_as_ffmpeg_does() {
    let Some(ffmpeg) = ffmpeg() else { return };
    for (width, height, depth) in [(176, 144, 8), (67, 45, 8), (128, 72, 10), (66, 50, 10)] {
        let clip = synthetic(width, height, depth);
        agrees(&ffmpeg, &clip, &clip.spoilt());
    }
    let clip = synthetic(64, 48, 8);
    agrees(&ffmpeg, &clip, &clip);
}

/// The first `frames` of a test clip in 4:2:0; `None`, and a word on it, where it is not there.
fn real(ffmpeg: &Path, name: &str, size: (usize, usize), depth: u8, frames: usize) -> Option<Clip> {
    let shared = std::env::var_os("NNV_SHARED").filter(|v| !v.is_empty());
    let Some(shared) = shared else {
        eprintln!("NOT RUN: {name}: NNV_SHARED is not set");
        return None;
    };
    let file = Path::new(&shared).join("data/test/video").join(name);
    if !file.is_file() {
        eprintln!("NOT RUN: {} is not there", file.display());
        return None;
    }
    let format = pixels(depth);
    let out = Command::new(ffmpeg)
        .args(["-v", "error", "-i"])
        .arg(&file)
        .args([
            "-frames:v",
            &frames.to_string(),
            "-pix_fmt",
            format,
            "-f",
            "rawvideo",
            "-",
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let clip = Clip::from_raw(size.0, size.1, depth, &out.stdout);
    assert_eq!(clip.frames.len(), frames, "{name}");
    Some(clip)
}

/// ffmpeg's name of 4:2:0 of so many bits.
fn pixels(depth: u8) -> &'static str {
    match depth {
        8 => "yuv420p",
        _ => "yuv420p10le",
    }
}

#[test]
fn real_clips_are_measured_as_ffmpeg_does() {
    let Some(ffmpeg) = ffmpeg() else { return };
    for (name, size) in [
        ("carphone.mp4", (176, 144)),
        ("vid4_foliage.mkv", (720, 480)),
    ] {
        if let Some(clip) = real(&ffmpeg, name, size, 8, 6) {
            agrees(&ffmpeg, &clip, &clip.spoilt());
        }
    }
}

#[test]
fn xpsnr_is_what_ffmpeg_computes() {
    let Some(ffmpeg) = ffmpeg() else { return };
    // Weights levelled (small), plain, of an odd size, in steps of two (large); change, and change
    // of change.
    for (width, height, depth, rate) in [
        (176, 144, 8, 25),
        (352, 288, 8, 50),
        (67, 45, 8, 25),
        (800, 608, 10, 25),
        (2304, 1296, 8, 25),
        (2304, 1296, 8, 60),
    ] {
        let mut clip = synthetic(width, height, depth);
        clip.frames.truncate(3);
        let spoilt = clip.spoilt();
        let mut ours = Xpsnr::new(rate);
        let frames = clip.with_planes(&spoilt, |a, b| ours.add(a, b).unwrap());
        let (lines, _) = filter(&ffmpeg, "xpsnr", &clip, &spoilt, rate);
        let of = |line: &str| -> Vec<f64> {
            let words: Vec<&str> = line.split_whitespace().collect();
            let names = ["y:", "u:", "v:"];
            let value = |name| words[words.iter().position(|w| *w == name).unwrap() + 1];
            names.map(|name| value(name).parse().unwrap()).to_vec()
        };
        let near = |ours: [f64; 3], line: &str| {
            for (ours, theirs) in ours.into_iter().zip(of(line)) {
                let equal = (ours - theirs).abs() <= 0.01;
                assert!(equal, "{width}x{height}: {ours} here, {line:?} by ffmpeg");
            }
        };
        let by_frame: Vec<&String> = lines.iter().filter(|l| l.starts_with("n:")).collect();
        assert_eq!(by_frame.len(), frames.len());
        for (ours, line) in frames.into_iter().zip(by_frame) {
            near(ours, line);
        }
        let total = lines
            .iter()
            .find(|l| l.starts_with("XPSNR average"))
            .unwrap();
        near(ours.mean().unwrap(), total);
    }
}

#[test]
fn vmaf_is_what_ffmpeg_computes() {
    let Some(ffmpeg) = ffmpeg() else { return };
    let filters = Command::new(&ffmpeg)
        .args(["-v", "quiet", "-filters"])
        .output()
        .unwrap();
    if !String::from_utf8_lossy(&filters.stdout).contains(" libvmaf ") {
        eprintln!("NOT RUN: {} has no libvmaf", ffmpeg.display());
        return;
    }
    let mut clips = [(176, 144, 8), (64, 45, 8), (128, 72, 10)]
        .map(|(width, height, depth)| Some(("waves", synthetic(width, height, depth))))
        .into_iter()
        .collect::<Vec<_>>();
    // More frames than one context measures.
    for (name, size, depth, frames) in [
        ("bikes.mp4", (640, 272), 8, 130),
        ("mobile_cif_30f.mkv", (352, 288), 8, 30),
        ("vid4_foliage.mkv", (720, 480), 8, 30),
        ("carphone.mp4", (176, 144), 8, 60),
        ("svt_1280x720_crowd_run_10f.mkv", (1280, 720), 10, 10),
        ("svt_1920x1080_old_town_cross_10f.mkv", (1920, 1080), 8, 10),
    ] {
        clips.push(real(&ffmpeg, name, size, depth, frames).map(|clip| (name, clip)));
    }
    for (name, clip) in clips.into_iter().flatten() {
        let vmaf = match Vmaf::new(Vmaf::DEFAULT_MODEL) {
            Ok(vmaf) => vmaf,
            Err(e @ VmafError::Missing(_)) => {
                assert!(std::env::var_os("NNV_VMAF_LIBRARY").is_none(), "{e}");
                eprintln!("NOT RUN: {e}");
                return;
            }
            Err(e) => panic!("{e}"),
        };
        // ffmpeg 9 has version 3.2; those before measure motion otherwise.
        let old = ["2.", "3.0", "3.1"]
            .iter()
            .any(|v| vmaf.version().starts_with(v));
        let within = if old { 0.1 } else { 0.01 };
        let spoilt = clip.coarse(48 << (clip.depth - 8));
        let mut meter = Meter::new(Metrics::default(), 25, Colour::default()).with_vmaf(vmaf);
        let mut ours = clip.with_planes(&spoilt, |a, b| meter.add(a, b).unwrap());
        meter.finish().unwrap();
        let (lines, total) = filter(&ffmpeg, "libvmaf", &clip, &spoilt, 25);
        let column = lines[0].split(',').position(|name| name == "vmaf").unwrap();
        assert_eq!(lines.len(), 1 + ours.len());
        let mut apart = 0.0_f64;
        let mut near = |ours: f64, theirs: &str| {
            let difference = (ours - theirs.parse::<f64>().unwrap()).abs();
            assert!(
                difference <= within,
                "{name}: {ours} here, {theirs} by ffmpeg"
            );
            apart = apart.max(difference);
        };
        for (line, frame) in lines[1..].iter().zip(&mut ours) {
            assert!(meter.complete(frame));
            near(frame.vmaf.unwrap(), line.split(',').nth(column).unwrap());
        }
        let mean = meter.mean().unwrap().vmaf.unwrap();
        near(mean, total.rsplit(' ').next().unwrap());
        let (w, h, bits, frames) = (clip.width, clip.height, clip.depth, ours.len());
        println!("{name} {w}x{h}, {bits} bit, {frames} frames: {mean:.3}, {apart:.6} apart");
    }
}

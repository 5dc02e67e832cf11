// SPDX-License-Identifier: MPL-2.0
//! Measures motion search, compensation and coding on original frames of clips.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::{Args, ValueEnum};
use nnv_codec::encode::motion::search::lambda_of_quantizer;
use nnv_codec::encode::motion::{SearchEffort, SearchParams, search};
use nnv_format::motion::compensate::predict_into;
use nnv_format::motion::{Mode, MotionContexts, MotionField, Prediction, field_bits};
use nnv_format::picture::{Picture, RawFormat};

use crate::failure::{Failure, Result};

/// Measures motion search, compensation and coding on original frames of clips
///
/// Frames are decoded by an `ffmpeg` process. `cost/px` is the mean transformed difference plus
/// lambda times the bits; `cpu ms` is the processor time of the search on the calling thread: with
/// `--threads 1` all of it.
#[derive(Args, Debug)]
pub struct Options {
    /// Clips, anything that ffmpeg reads
    #[arg(value_name = "CLIP", required = true)]
    clips: Vec<String>,
    /// Frames of each
    #[arg(long, value_name = "N", default_value_t = 24)]
    frames: usize,
    /// Quantizer
    #[arg(
        long, value_name = "Q", default_value_t = 20,
        value_parser = clap::value_parser!(u8).range(0..=63)
    )]
    quantizer: u8,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// References: the frame before, and with 2 the one four frames back
    #[arg(
        long, value_name = "1|2", default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=2)
    )]
    refs: u8,
    /// Effort of the search [default: all]
    #[arg(long, value_enum)]
    effort: Option<Effort>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Effort {
    Least,
    Fast,
    Medium,
    Slow,
}

impl From<Effort> for SearchEffort {
    fn from(effort: Effort) -> Self {
        match effort {
            Effort::Least => Self::Least,
            Effort::Fast => Self::Fast,
            Effort::Medium => Self::Medium,
            Effort::Slow => Self::Slow,
        }
    }
}

fn size_of(clip: &str) -> Result<(u32, u32)> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0"])
        .args(["-show_entries", "stream=width,height", "-of", "csv=p=0:s=x"])
        .arg(clip)
        .output()
        .map_err(|e| Failure::Input(format!("ffprobe does not start: {e}")))?;
    let text = String::from_utf8(out.stdout)?;
    let (w, h) = text
        .trim()
        .trim_end_matches('x')
        .split_once('x')
        .ok_or_else(|| Failure::Input(format!("{clip}: ffprobe tells no size")))?;
    Ok((w.parse()?, h.parse()?))
}

fn frames_of(clip: &str, count: usize) -> Result<Vec<Picture>> {
    let (width, height) = size_of(clip)?;
    let mut child = Command::new("ffmpeg")
        .args(["-v", "error", "-i", clip, "-frames:v", &count.to_string()])
        .args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "-"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut bytes = Vec::new();
    child
        .stdout
        .take()
        .ok_or_else(|| Failure::Input("no pipe from ffmpeg".into()))?
        .read_to_end(&mut bytes)?;
    child.wait()?;
    let (w, h) = (width as usize, height as usize);
    let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
    bytes
        .chunks_exact(w * h + 2 * cw * ch)
        .map(|f| {
            let (y, c) = f.split_at(w * h);
            let (u, v) = c.split_at(cw * ch);
            Ok(Picture::from_raw(
                RawFormat::I420,
                width,
                height,
                &[y, u, v],
                &[w, cw, cw],
            )?)
        })
        .collect()
}

/// Sum of absolute 8×8 Hadamard coefficients of the luma difference, divided by 4: what the search
/// goes by.
fn transformed_difference(a: &Picture, b: &Picture) -> f64 {
    let (a, b) = (a.luma(), b.luma());
    let mut total = 0.0;
    for y in (0..a.height()).step_by(8) {
        for x in (0..a.width()).step_by(8) {
            let mut m: [i32; 64] = std::array::from_fn(|i| {
                let (y, x) = (y + i / 8, x + i % 8);
                i32::from(a.row(y)[x]) - i32::from(b.row(y)[x])
            });
            for step in [1, 2, 4, 8, 16, 32] {
                for i in (0..64).filter(|i| i & step == 0) {
                    (m[i], m[i + step]) = (m[i] + m[i + step], m[i] - m[i + step]);
                }
            }
            total += f64::from(m.iter().map(|v| v.abs()).sum::<i32>()) / 4.0;
        }
    }
    total
}

/// Processor time of this thread in seconds, where the system tells (a busy machine spoils the
/// clock).
fn cpu_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let ns: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some(ns * 1e-9)
}

pub fn run(options: &Options) -> Result<()> {
    let efforts = match options.effort {
        Some(effort) => vec![effort.into()],
        None => vec![
            SearchEffort::Least,
            SearchEffort::Fast,
            SearchEffort::Medium,
            SearchEffort::Slow,
        ],
    };
    println!(
        "luma PSNR in dB of predictions from original frames; quantizer {}, {} reference(s), {} \
         threads",
        options.quantizer, options.refs, options.threads
    );
    println!(
        "{:<28} {:>9} {:>6} | {:>6} {:>7} {:>7} {:>6} {:>9} {:>7} {:>7} | {:>7} {:>6} {:>6} \
         {:>5} {:>5}",
        "clip",
        "size",
        "effort",
        "still",
        "motion",
        "U",
        "V",
        "bit/field",
        "bit/px",
        "cost/px",
        "search",
        "cpu ms",
        "mc ms",
        "bi%",
        "8x8%"
    );
    for clip in &options.clips {
        let frames = frames_of(clip, options.frames)?;
        if frames.len() < 2 {
            return Err(Failure::Input(format!(
                "{clip}: only {} frame(s)",
                frames.len()
            )));
        }
        for &effort in &efforts {
            measure(clip, &frames, effort, options)?;
        }
    }
    Ok(())
}

fn measure(clip: &str, frames: &[Picture], effort: SearchEffort, options: &Options) -> Result<()> {
    let mut out = Prediction::new(&frames[0]);
    let mut contexts = MotionContexts::default();
    let mut last: Option<MotionField> = None;
    let (mut still, mut motion, mut bits) = (0.0, [0.0; 3], 0.0);
    let (mut search_time, mut mc_time, mut bi, mut split) = (0.0, 0.0, 0, 0);
    let (mut cells, mut search_cpu, mut satd) = (0, 0.0, 0.0);
    for n in 1..frames.len() {
        let far = if options.refs == 2 {
            n.saturating_sub(4)
        } else {
            n - 1
        };
        let refs = [&frames[n - 1], &frames[far]];
        let params = SearchParams {
            effort,
            threads: options.threads,
            distances: [1, (n - far) as i16],
            ..SearchParams::new(options.quantizer)
        };
        let (start, cpu) = (Instant::now(), cpu_time());
        let field = search(&frames[n], refs, last.as_ref(), &params)?;
        search_time += start.elapsed().as_secs_f64();
        if let (Some(a), Some(b)) = (cpu, cpu_time()) {
            search_cpu += b - a;
        }
        bits += field_bits(&contexts, &field, last.as_ref());
        let mut encoder = nnv_format::entropy::Encoder::new();
        nnv_format::motion::encode_field(&mut encoder, &mut contexts, &field, last.as_ref());
        let start = Instant::now();
        predict_into(&field, refs[0], refs[1], options.threads, &mut out)?;
        mc_time += start.elapsed().as_secs_f64();
        // Errors are averaged in the PSNR domain, frame by frame.
        satd += transformed_difference(&frames[n], &out.picture);
        still += frames[n].psnr(&frames[n - 1])[0];
        for (sum, v) in motion.iter_mut().zip(frames[n].psnr(&out.picture)) {
            *sum += v;
        }
        bi += field
            .cells()
            .iter()
            .filter(|c| c.mode() == Mode::Bi)
            .count();
        for by in 0..field.rows() / 2 {
            for bx in 0..field.columns() / 2 {
                let b = field.block(bx, by);
                split += 4 * usize::from(b.iter().any(|&c| c != b[0]));
            }
        }
        cells += field.cells().len();
        last = Some(field);
    }
    let n = (frames.len() - 1) as f64;
    let (w, h) = (frames[0].width(), frames[0].height());
    let name = clip.rsplit('/').next().unwrap_or(clip);
    println!(
        "{:<28} {:>9} {:>6} | {:>6.2} {:>7.2} {:>7.2} {:>6.2} {:>9.0} {:>7.4} {:>7.4} | {:>7.2} \
         {:>6.2} {:>6.2} {:>5.1} {:>5.1}",
        &name[..name.len().min(28)],
        format!("{w}x{h}"),
        format!("{effort:?}").to_lowercase(),
        still / n,
        motion[0] / n,
        motion[1] / n,
        motion[2] / n,
        bits / n,
        bits / n / f64::from(w * h),
        (satd + bits * f64::from(lambda_of_quantizer(options.quantizer))) / n / f64::from(w * h),
        search_time * 1e3 / n,
        search_cpu * 1e3 / n,
        mc_time * 1e3 / n,
        100.0 * bi as f64 / cells as f64,
        100.0 * split as f64 / cells as f64,
    );
    Ok(())
}

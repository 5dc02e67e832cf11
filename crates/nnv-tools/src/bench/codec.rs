// SPDX-License-Identifier: MPL-2.0
//! Encodes and decodes a clip with the codec alone and prints rate, quality and time per stage.

use clap::{Args, ValueEnum};
use nnv_bitstream::StreamInfo;
use nnv_bitstream::{AccessUnitScan, BundleHash, UnitScanner, scan_access_unit};
use nnv_codec::config::{
    DecoderConfig, EncoderConfig, Level, QualityMetric, QualityTarget, RateControl, SpeedPreset,
    Tune, Tuning,
};
use nnv_codec::decode::{Decoded, Decoder};
use nnv_codec::encode::{EncodedFrame, Encoder, InputFrame};
use nnv_codec::stages::StageTimes;
use nnv_format::picture::Picture;
use nnv_nn::{Model, ModelSource, RuntimeOptions};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};
use crate::files::check_outputs;
use crate::process::{memory, processor_time};
use crate::{models, y4m};

use super::size;

/// What the encoder optimises for.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum TuneFor {
    Psnr,
    Visual,
    Zerolatency,
}

impl From<TuneFor> for Tune {
    fn from(tune: TuneFor) -> Self {
        match tune {
            TuneFor::Psnr => Self::Psnr,
            TuneFor::Visual => Self::Visual,
            TuneFor::Zerolatency => Self::ZeroLatency,
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Metric {
    Psnr,
    Ssim,
    MsSsim,
    Vmaf,
}

impl From<Metric> for QualityMetric {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::Psnr => Self::Psnr,
            Metric::Ssim => Self::Ssim,
            Metric::MsSsim => Self::MsSsim,
            Metric::Vmaf => Self::Vmaf,
        }
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Speed {
    Ultrafast,
    Fast,
    Medium,
    Slow,
}

impl From<Speed> for SpeedPreset {
    fn from(speed: Speed) -> Self {
        match speed {
            Speed::Ultrafast => Self::Ultrafast,
            Speed::Fast => Self::Fast,
            Speed::Medium => Self::Medium,
            Speed::Slow => Self::Slow,
        }
    }
}

/// Encodes and decodes a clip with the codec alone; prints rate, quality and time per stage
#[derive(Args, Debug)]
pub struct Options {
    /// The clip; - is standard input. Without one, a synthetic clip is made
    #[arg(value_name = "CLIP.y4m")]
    clip: Option<PathBuf>,
    /// Bundle
    #[arg(long, value_name = "NAME|FOLDER", default_value = "realtime")]
    model: String,
    /// Quantizer
    #[arg(long, value_name = "N", default_value_t = 28)]
    q: u8,
    /// B frames between anchors; 0 is low-delay order
    #[arg(long, value_name = "N", default_value_t = 0)]
    bframes: u8,
    /// Frames between key frames
    #[arg(long, value_name = "N", default_value_t = 250)]
    key_int: u32,
    /// Frames behind an anchor [default: as the encoder's]
    #[arg(long, value_name = "N")]
    lookahead: Option<u8>,
    /// At most so many frames [default: all]
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    frames: usize,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: u32,
    /// Frames per run of a network
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch: u32,
    /// Variable bit rate, kbit/s
    #[arg(long, value_name = "N", conflicts_with = "cbr")]
    bitrate: Option<u64>,
    /// Constant bit rate, kbit/s
    #[arg(long, value_name = "N")]
    cbr: Option<u64>,
    /// Hold this quality: dB, or a value of the measure
    #[arg(long, value_name = "VALUE", conflicts_with_all = ["bitrate", "cbr"])]
    target_quality: Option<f64>,
    /// Measure that --target-quality is of
    #[arg(long, value_enum, default_value = "psnr")]
    quality_metric: Metric,
    /// What to optimise for
    #[arg(long, value_enum, default_value = "psnr")]
    tune: TuneFor,
    /// Encoding time against rate
    #[arg(long, value_enum, default_value = "medium")]
    speed: Speed,
    /// Size of the synthetic clip
    #[arg(long, value_name = "WxH", value_parser = size::<u32>, default_value = "640x360")]
    size: (u32, u32),
    /// Keep the centre of the clip
    #[arg(long, value_name = "WxH", value_parser = size::<u32>)]
    crop: Option<(u32, u32)>,
    /// Write symbols and scale indices as .npy
    #[arg(long, value_name = "FOLDER")]
    dump: Option<PathBuf>,
    /// Keep the stream
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Decode this stream and do nothing else
    #[arg(long, value_name = "FILE")]
    read: Option<PathBuf>,
    /// Constants of the encoder; lists with colons
    #[arg(long, value_name = "NAME=VALUE[,NAME=VALUE...]")]
    tuning: Option<String>,
    /// Encode only
    #[arg(long)]
    no_decode: bool,
    /// One line per frame
    #[arg(long)]
    per_frame: bool,
}

pub(super) struct Clip {
    pub(super) frames: Vec<Arc<Picture>>,
    rate: (u32, u32),
    bit_depth: u8,
}

pub fn run(options: &Options) -> Result<()> {
    let source = models::source(&options.model);
    let threads = options.threads;
    if let Some(path) = &options.read {
        return decode_file(path, &source, threads, options.batch);
    }
    let (read, written) = (options.clip.as_deref(), options.write.as_deref());
    check_outputs(read, written)?;
    let clip = match &options.clip {
        Some(path) => read_y4m(path, options.frames, options.crop)?,
        None => synthetic(options.size.0, options.size.1, options.frames.min(64))?,
    };
    let first = clip
        .frames
        .first()
        .ok_or_else(|| Failure::Input("the clip has no frames".into()))?;
    let mut info = StreamInfo::new(first.width(), first.height(), clip.bit_depth);
    info.frame_rate = Some(clip.rate);
    let mut config = EncoderConfig::new(info);
    config.quantizer = options.q;
    config.bframes = options.bframes;
    config.key_int_max = options.key_int;
    config.lookahead = options.lookahead.unwrap_or(config.lookahead);
    config.batch_size = options.batch;
    config.threads = threads;
    config.frame_checksum = true;
    if let Some(kbit) = options.bitrate {
        config.rate_control = RateControl::Vbr {
            bitrate: kbit.saturating_mul(1000),
            max_bitrate: None,
        };
    }
    if let Some(kbit) = options.cbr {
        config.rate_control = RateControl::Cbr {
            bitrate: kbit.saturating_mul(1000),
            vbv_ms: 1000,
        };
    }
    config.quality = options.target_quality.map(|target| QualityTarget {
        metric: options.quality_metric.into(),
        target: Level::new(target),
        floor: None,
    });
    config.tune = options.tune.into();
    config.speed = options.speed.into();
    if let Some(list) = &options.tuning {
        let tuning = config.tuning.insert(Tuning::of(config.tune));
        tuning
            .set(list)
            .map_err(|e| Failure::Usage(format!("--tuning: {e}")))?;
    }

    let runtime = RuntimeOptions {
        threads: threads as usize,
        ..RuntimeOptions::default()
    };
    let model = Model::load(&source, &runtime)?;
    let mut encoder = Encoder::new(model.clone(), config.clone())?;
    if let Some(folder) = &options.dump {
        std::fs::create_dir_all(folder)?;
        encoder.keep_symbols(true);
    }
    let (start, processor) = (Instant::now(), processor_time());
    let mut units: Vec<EncodedFrame> = Vec::new();
    for (i, picture) in clip.frames.iter().enumerate() {
        encoder.send(InputFrame::new(picture.clone(), i as u64))?;
        while let Some(unit) = encoder.receive()? {
            units.push(unit);
        }
    }
    encoder.finish()?;
    while let Some(unit) = encoder.receive()? {
        units.push(unit);
    }
    let encode_time = start.elapsed();
    let encode_processor = processor_time() - processor;

    if let Some(path) = &options.write {
        let stream: Vec<u8> = units.iter().flat_map(|u| &u.data).copied().collect();
        std::fs::write(path, stream)?;
    }
    let pixels = f64::from(first.width()) * f64::from(first.height());
    let mut by_kind: HashMap<String, Sums> = HashMap::new();
    for unit in &units {
        let original = &clip.frames[unit.id as usize];
        let psnr = unit
            .stats
            .reconstruction
            .as_ref()
            .map(|p| p.psnr_yuv(original));
        if options.per_frame {
            println!(
                "frame {:4} {:?} level {} q {:2} {:7} bytes (motion {:5}, z {:5}, ink {:5}) \
                 {:6.3} dB",
                unit.id,
                unit.kind,
                unit.level,
                unit.quantizer,
                unit.data.len(),
                unit.stats.motion_bytes,
                unit.stats.hyper_bytes,
                unit.stats.ink_bytes,
                psnr.unwrap_or(f64::NAN)
            );
        }
        if let Some(folder) = &options.dump {
            dump_symbols(folder, unit)?;
        }
        for name in [
            format!("{:?} level {}", unit.kind, unit.level),
            "all".into(),
        ] {
            let sums = by_kind.entry(name).or_default();
            sums.frames += 1;
            sums.bytes += unit.data.len();
            sums.motion += unit.stats.motion_bytes;
            sums.hyper += unit.stats.hyper_bytes;
            if let Some(psnr) = psnr {
                sums.psnr += psnr;
                sums.measured += 1;
            }
        }
    }
    let seconds = units.len() as f64 * f64::from(clip.rate.1) / f64::from(clip.rate.0);
    let total: usize = units.iter().map(|u| u.data.len()).sum();
    println!(
        "{}x{}, {} frames, {} bytes, {:.1} kbit/s, {:.5} bit/px",
        first.width(),
        first.height(),
        units.len(),
        total,
        total as f64 * 8.0 / seconds / 1000.0,
        total as f64 * 8.0 / pixels / units.len() as f64
    );
    let mut names: Vec<_> = by_kind.keys().cloned().collect();
    names.sort();
    for name in names {
        let s = &by_kind[&name];
        println!(
            "  {name:16} {:4} frames  {:.5} bit/px (motion {:.5}, z {:.5})  PSNR-YUV {:.3} dB",
            s.frames,
            s.bytes as f64 * 8.0 / pixels / s.frames as f64,
            s.motion as f64 * 8.0 / pixels / s.frames as f64,
            s.hyper as f64 * 8.0 / pixels / s.frames as f64,
            s.psnr / s.measured.max(1) as f64
        );
    }
    let times = &encoder.stats().times;
    report("encode", encode_time, encode_processor, units.len(), times);
    println!("  peak memory {} MiB", memory().1);

    if !options.no_decode {
        let provided = model.clone();
        let config = DecoderConfig {
            batch_size: config.batch_size,
            threads,
            ..DecoderConfig::default()
        };
        let mut decoder = Decoder::new(move |_: &str, _: &BundleHash| Ok(provided.clone()), config);
        let (start, processor) = (Instant::now(), processor_time());
        let mut decoded = Vec::new();
        for unit in &units {
            decoder.send(&unit.data, unit.id)?;
            while let Some(frame) = decoder.receive() {
                decoded.push(frame);
            }
        }
        decoder.finish()?;
        while let Some(frame) = decoder.receive() {
            decoded.push(frame);
        }
        let time = start.elapsed();
        let processor = processor_time() - processor;
        let reference: HashMap<u64, &Arc<Picture>> = units
            .iter()
            .filter_map(|u| Some((u.id, u.stats.reconstruction.as_ref()?)))
            .collect();
        for (i, d) in decoded.iter().enumerate() {
            let Decoded::Frame(frame) = d else {
                return Err(Failure::Input(format!("not decoded: {d:?}")));
            };
            if frame.id != i as u64 || frame.concealed {
                return Err(Failure::Input(format!(
                    "frame {} at {i}: {:?}",
                    frame.id, frame.warning
                )));
            }
            if let Some(r) = reference.get(&frame.id)
                && !r.is_equal(&frame.picture)
            {
                return Err(Failure::Input(format!(
                    "frame {i} differs from the encoder's"
                )));
            }
        }
        if decoded.len() != clip.frames.len() {
            return Err(Failure::Input(format!("{} frames decoded", decoded.len())));
        }
        report(
            "decode",
            time,
            processor,
            units.len(),
            &decoder.stats().times,
        );
        println!(
            "  every frame equals the encoder's; peak memory of the process {} MiB",
            memory().1
        );
    }
    Ok(())
}

/// Decodes a stream frame by frame and keeps nothing: time and memory of a decoder alone.
fn decode_file(path: &Path, source: &ModelSource, threads: u32, batch_size: u32) -> Result<()> {
    let data = std::fs::read(path).map_err(|e| Failure::file(path, e))?;
    let options = RuntimeOptions {
        threads: threads as usize,
        ..RuntimeOptions::default()
    };
    let model = Model::load(source, &options)?;
    println!("model loaded: {} MiB", memory().1);
    let config = DecoderConfig {
        threads,
        batch_size,
        ..DecoderConfig::default()
    };
    let mut decoder = Decoder::new(move |_: &str, _: &BundleHash| Ok(model.clone()), config);
    let scanner = UnitScanner::new();
    let (mut pos, mut id, mut frames) = (0, 0, 0);
    let (start, processor) = (Instant::now(), processor_time());
    loop {
        match scan_access_unit(&scanner, &data[pos..], true) {
            AccessUnitScan::Unit(unit) => {
                decoder.send(&data[pos..pos + unit.len], id)?;
                (pos, id) = (pos + unit.len, id + 1);
            }
            AccessUnitScan::End => break,
            _ => return Err(Failure::file(path, format!("damaged at offset {pos}"))),
        }
        while let Some(d) = decoder.receive() {
            frames += usize::from(matches!(d, Decoded::Frame(_)));
        }
    }
    decoder.finish()?;
    while let Some(d) = decoder.receive() {
        frames += usize::from(matches!(d, Decoded::Frame(_)));
    }
    if frames == 0 {
        return Err(Failure::file(path, "no picture comes out of it"));
    }
    let times = &decoder.stats().times;
    let processor = processor_time() - processor;
    report("decode", start.elapsed(), processor, frames, times);
    println!("  peak memory {} MiB", memory().1);
    Ok(())
}

#[derive(Default)]
struct Sums {
    frames: usize,
    bytes: usize,
    motion: usize,
    hyper: usize,
    psnr: f64,
    measured: usize,
}

fn report(what: &str, time: Duration, processor: Duration, frames: usize, stages: &StageTimes) {
    let ms = |t: Duration| t.as_secs_f64() * 1000.0 / frames as f64;
    println!(
        "{what}: {:.1} frames/s, {:.2} ms per frame ({:.2} ms of processor time): filter {:.2}, \
         search {:.2}, predict {:.2}, pack {:.2}, analyse {:.2}, \
         prior {:.2}, quantise {:.2}, entropy {:.2}, synth {:.2}, measure {:.2}",
        frames as f64 / time.as_secs_f64(),
        ms(time),
        ms(processor),
        ms(stages.filter),
        ms(stages.search),
        ms(stages.predict),
        ms(stages.pack),
        ms(stages.analyse),
        ms(stages.prior),
        ms(stages.quantise),
        ms(stages.entropy),
        ms(stages.synth),
        ms(stages.measure)
    );
}

fn dump_symbols(folder: &Path, unit: &EncodedFrame) -> Result<()> {
    let Some(s) = &unit.stats.symbols else {
        return Ok(());
    };
    let name = |what: &str| folder.join(format!("{:05}_{what}.npy", unit.id));
    let y: Vec<u8> = s.y.iter().flat_map(|v| v.to_le_bytes()).collect();
    let z: Vec<u8> = s.z.iter().map(|&v| v as u8).collect();
    npy(&name("sym"), "<i2", &s.y_shape, &y)?;
    npy(&name("scale_idx"), "|u1", &s.y_shape, &s.scale_idx)?;
    npy(&name("z"), "|i1", &[s.z.len()], &z)
}

/// Writes an array in NumPy's format.
fn npy(path: &Path, dtype: &str, shape: &[usize], data: &[u8]) -> Result<()> {
    let dims: String = shape.iter().map(|d| format!("{d},")).collect();
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({dims}), }}");
    let len = (10 + header.len() + 1).next_multiple_of(64);
    header.push_str(&" ".repeat(len - 11 - header.len()));
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(data);
    std::fs::write(path, out)?;
    Ok(())
}

/// Reads a clip; `crop` keeps the centre.
fn read_y4m(path: &Path, limit: usize, crop: Option<(u32, u32)>) -> Result<Clip> {
    let file: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|e| Failure::file(path, e))?)
    };
    let mut reader = y4m::Reader::new(path, std::io::BufReader::new(file))?;
    let mut frames = Vec::new();
    while frames.len() < limit
        && let Some(picture) = reader.frame()?
    {
        frames.push(match crop {
            None => picture,
            Some((w, h)) => {
                let (width, height) = (picture.width(), picture.height());
                let (w, h) = (w.min(width), h.min(height));
                let (x, y) = ((width - w) / 4 * 2, (height - h) / 4 * 2);
                Arc::new(picture.cropped(x, y, w, h)?)
            }
        });
    }
    Ok(Clip {
        frames,
        rate: reader.rate,
        bit_depth: reader.bit_depth,
    })
}

/// Moving waves with a moving disc: no substitute for real clips, but always there.
pub(super) fn synthetic(w: u32, h: u32, frames: usize) -> Result<Clip> {
    let frames = (0..frames)
        .map(|t| {
            let mut p = Picture::new(w, h)?;
            for (i, plane) in p.planes_mut().iter_mut().enumerate() {
                let scale = if i == 0 { 1.0 } else { 2.0 };
                for y in 0..plane.height() {
                    for (x, s) in plane.row_mut(y).iter_mut().enumerate() {
                        let (fx, fy) = (x as f32 * scale + 1.7 * t as f32, y as f32 * scale);
                        let wave = (fx * 0.11).sin() * (fy * 0.07).cos() * 150.0
                            + (fx * 0.9 + fy * 0.6).sin() * 60.0;
                        let (dx, dy) = (fx - 300.0 - 5.0 * t as f32, fy - 150.0);
                        let disc = if dx * dx + dy * dy < 4000.0 {
                            120.0
                        } else {
                            0.0
                        };
                        *s = (450.0 + wave + disc + 40.0 * i as f32).clamp(0.0, 1023.0) as u16;
                    }
                }
            }
            Ok(Arc::new(p))
        })
        .collect::<Result<_>>()?;
    Ok(Clip {
        frames,
        rate: (30, 1),
        bit_depth: 8,
    })
}

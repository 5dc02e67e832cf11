// SPDX-License-Identifier: MPL-2.0
//! Encodes and decodes a clip with the codec alone (no GStreamer) and prints rate, quality and time
//! per stage.
//!
//! ```text
//! cargo run --release --example codec_bench -- [OPTIONS] [CLIP.y4m]
//!   --model NAME|FOLDER   bundle (realtime)          --q N          quantizer (28)
//!   --bframes N           0 is low-delay order (0)  --key-int N    frames between key frames (250)
//!   --lookahead N         frames behind an anchor (4)
//!   --frames N            at most so many (all)      --threads N    threads (2)
//!   --batch N             frames per run (4)         --bitrate N    kbit/s, variable bit rate
//!   --cbr N               kbit/s, constant bit rate  --tune psnr|visual|zerolatency
//!   --speed fast|medium|slow
//!   --size WxH            size of the synthetic clip --crop WxH     keeps the centre of the clip
//!   --dump FOLDER         symbols and scale indices as .npy
//!   --write FILE          keeps the stream     --read FILE      decodes that and nothing else
//!   --tuning NAME=VALUE[,NAME=VALUE...]              constants of `Tuning`; lists with colons
//!   --no-decode           encode only                --per-frame    one line per frame
//! ```
//! Without a clip, a synthetic one is made.

use nnv_bitstream::StreamInfo;
use nnv_bitstream::{AccessUnitScan, BundleHash, UnitScanner, scan_access_unit};
use nnv_codec::config::{DecoderConfig, EncoderConfig, RateControl, SpeedPreset, Tune, Tuning};
use nnv_codec::decode::{Decoded, Decoder};
use nnv_codec::encode::{EncodedFrame, Encoder, InputFrame};
use nnv_codec::stages::StageTimes;
use nnv_format::picture::{Picture, RawFormat};
use nnv_nn::{Model, ModelSource, RuntimeOptions};
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

type AnyError = Box<dyn std::error::Error>;

struct Clip {
    frames: Vec<Arc<Picture>>,
    rate: (u32, u32),
    bit_depth: u8,
}

fn main() -> Result<(), AnyError> {
    let mut args = Args::parse()?;
    let source = args.take("model").unwrap_or_else(|| "realtime".into());
    let source = if Path::new(&source).is_dir() {
        ModelSource::Folder(PathBuf::from(source))
    } else {
        ModelSource::Embedded(source)
    };
    let threads: u32 = args.number("threads", 2)?;
    let limit: usize = args.number("frames", usize::MAX)?;
    let crop = args.take("crop").map(|s| size(&s)).transpose()?;
    let (w, h) = size(&args.take("size").unwrap_or_else(|| "640x360".into()))?;
    if let Some(path) = args.take("read") {
        let batch = args.number("batch", 4)?;
        args.end()?;
        return decode_file(Path::new(&path), &source, threads, batch);
    }
    let write = args.take("write").map(PathBuf::from);
    let clip = match args.clip.clone() {
        Some(path) => read_y4m(&path, limit, crop)?,
        None => synthetic(w, h, limit.min(64))?,
    };
    let first = clip.frames.first().ok_or("the clip has no frames")?;
    let mut info = StreamInfo::new(first.width(), first.height(), clip.bit_depth);
    info.frame_rate = Some(clip.rate);
    let mut config = EncoderConfig::new(info);
    config.quantizer = args.number("q", 28)?;
    config.bframes = args.number("bframes", 0)?;
    config.key_int_max = args.number("key-int", 250)?;
    config.lookahead = args.number("lookahead", config.lookahead)?;
    config.batch_size = args.number("batch", 4)?;
    config.threads = threads;
    config.frame_checksum = true;
    if let Some(kbit) = args.take("bitrate") {
        config.rate_control = RateControl::Vbr {
            bitrate: kbit.parse::<u64>()? * 1000,
            max_bitrate: None,
        };
    }
    if let Some(kbit) = args.take("cbr") {
        config.rate_control = RateControl::Cbr {
            bitrate: kbit.parse::<u64>()? * 1000,
            vbv_ms: 1000,
        };
    }
    config.tune = match args.take("tune").as_deref() {
        None | Some("psnr") => Tune::Psnr,
        Some("visual") => Tune::Visual,
        Some("zerolatency") => Tune::ZeroLatency,
        Some(other) => return Err(format!("unknown tune {other}").into()),
    };
    config.speed = match args.take("speed").as_deref() {
        Some("fast") => SpeedPreset::Fast,
        None | Some("medium") => SpeedPreset::Medium,
        Some("slow") => SpeedPreset::Slow,
        Some(other) => return Err(format!("unknown speed {other}").into()),
    };
    if let Some(list) = args.take("tuning") {
        config.tuning.insert(Tuning::of(config.tune)).set(&list)?;
    }
    let dump = args.take("dump").map(PathBuf::from);
    let decode = !args.flag("no-decode");
    let per_frame = args.flag("per-frame");
    args.end()?;

    let options = RuntimeOptions {
        threads: threads as usize,
        ..RuntimeOptions::default()
    };
    let model = Model::load(&source, &options)?;
    let mut encoder = Encoder::new(model.clone(), config.clone())?;
    if let Some(folder) = &dump {
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

    if let Some(path) = &write {
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
        if per_frame {
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
        if let Some(folder) = &dump {
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
    println!("  peak memory {} MiB", peak_memory());

    if decode {
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
                return Err(format!("not decoded: {d:?}").into());
            };
            if frame.id != i as u64 || frame.concealed {
                return Err(format!("frame {} at {i}: {:?}", frame.id, frame.warning).into());
            }
            if let Some(r) = reference.get(&frame.id)
                && !r.is_equal(&frame.picture)
            {
                return Err(format!("frame {i} differs from the encoder's").into());
            }
        }
        if decoded.len() != clip.frames.len() {
            return Err(format!("{} frames decoded", decoded.len()).into());
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
            peak_memory()
        );
    }
    Ok(())
}

/// Decodes a stream frame by frame and keeps nothing: time and memory of a decoder alone.
fn decode_file(
    path: &Path,
    source: &ModelSource,
    threads: u32,
    batch_size: u32,
) -> Result<(), AnyError> {
    let data = std::fs::read(path)?;
    let options = RuntimeOptions {
        threads: threads as usize,
        ..RuntimeOptions::default()
    };
    let model = Model::load(source, &options)?;
    println!("model loaded: {} MiB", peak_memory());
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
            other => return Err(format!("at {pos}: {other:?}").into()),
        }
        while let Some(d) = decoder.receive() {
            frames += usize::from(matches!(d, Decoded::Frame(_)));
        }
    }
    decoder.finish()?;
    while let Some(d) = decoder.receive() {
        frames += usize::from(matches!(d, Decoded::Frame(_)));
    }
    let times = &decoder.stats().times;
    let processor = processor_time() - processor;
    report("decode", start.elapsed(), processor, frames, times);
    println!("  peak memory {} MiB", peak_memory());
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

/// Processor time of the whole process so far: tells the cost also on a busy machine.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|v| v.parse::<u64>().ok())
        .sum();
    // Linux counts hundredths of a second here on all common machines.
    Duration::from_millis(ticks * 10)
}

fn report(what: &str, time: Duration, processor: Duration, frames: usize, stages: &StageTimes) {
    let ms = |t: Duration| t.as_secs_f64() * 1000.0 / frames as f64;
    println!(
        "{what}: {:.1} frames/s, {:.2} ms per frame ({:.2} ms of processor time): filter {:.2}, \
         search {:.2}, predict {:.2}, pack {:.2}, analyse {:.2}, \
         prior {:.2}, quantise {:.2}, entropy {:.2}, synth {:.2}",
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
        ms(stages.synth)
    );
}

/// Peak resident memory in MiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

fn dump_symbols(folder: &Path, unit: &EncodedFrame) -> Result<(), AnyError> {
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
fn npy(path: &Path, dtype: &str, shape: &[usize], data: &[u8]) -> Result<(), AnyError> {
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

fn size(s: &str) -> Result<(u32, u32), AnyError> {
    let (w, h) = s.split_once('x').ok_or("a size is WIDTHxHEIGHT")?;
    Ok((w.parse()?, h.parse()?))
}

/// Reads 4:2:0 YUV4MPEG2, 8 or 10 bit; `crop` keeps the centre.
fn read_y4m(path: &Path, limit: usize, crop: Option<(u32, u32)>) -> Result<Clip, AnyError> {
    let mut file: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path)?)
    };
    let line = |file: &mut dyn Read| -> Result<Option<String>, AnyError> {
        let mut line = Vec::new();
        let mut byte = [0];
        while file.read(&mut byte)? == 1 {
            if byte[0] == b'\n' {
                return Ok(Some(String::from_utf8(line)?));
            }
            line.push(byte[0]);
            if line.len() > 1000 {
                return Err("not a YUV4MPEG2 file".into());
            }
        }
        Ok(None)
    };
    let header = line(&mut file)?.ok_or("empty file")?;
    let mut fields = header.split(' ');
    if fields.next() != Some("YUV4MPEG2") {
        return Err("not a YUV4MPEG2 file".into());
    }
    let (mut w, mut h, mut rate, mut depth) = (0u32, 0u32, (30, 1), 8);
    for f in fields {
        let (key, value) = f.split_at_checked(1).ok_or("empty field")?;
        match key {
            "W" => w = value.parse()?,
            "H" => h = value.parse()?,
            "F" => {
                let (n, d) = value.split_once(':').ok_or("frame rate")?;
                rate = (n.parse()?, d.parse()?);
            }
            "C" if value == "420p10" => depth = 10,
            "C" if value.starts_with("420") => {}
            "C" => return Err(format!("chroma {value} is not 4:2:0").into()),
            _ => {}
        }
    }
    let bytes = if depth == 10 { 2 } else { 1 };
    let (wu, hu) = (w as usize * bytes, h as usize);
    let (cw, ch) = (w.div_ceil(2) as usize * bytes, h.div_ceil(2) as usize);
    let (ow, oh) = crop.map_or((w, h), |(cw, ch)| (cw.min(w), ch.min(h)));
    let (ox, oy) = ((w - ow) as usize / 4 * 2, (h - oh) as usize / 4 * 2);
    let format = if depth == 10 {
        RawFormat::I42010Le
    } else {
        RawFormat::I420
    };
    let mut frames = Vec::new();
    while frames.len() < limit && line(&mut file)?.is_some() {
        let mut data = vec![0u8; wu * hu + 2 * cw * ch];
        file.read_exact(&mut data)?;
        let (y, c) = data.split_at(wu * hu);
        let (u, v) = c.split_at(cw * ch);
        let planes = [
            &y[oy * wu + ox * bytes..],
            &u[oy / 2 * cw + ox / 2 * bytes..],
            &v[oy / 2 * cw + ox / 2 * bytes..],
        ];
        frames.push(Arc::new(Picture::from_raw(
            format,
            ow,
            oh,
            &planes,
            &[wu, cw, cw],
        )?));
    }
    Ok(Clip {
        frames,
        rate,
        bit_depth: depth,
    })
}

/// Moving waves with a moving disc: no substitute for real clips, but always there.
fn synthetic(w: u32, h: u32, frames: usize) -> Result<Clip, AnyError> {
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
        .collect::<Result<_, AnyError>>()?;
    Ok(Clip {
        frames,
        rate: (30, 1),
        bit_depth: 8,
    })
}

struct Args {
    values: HashMap<String, String>,
    flags: Vec<String>,
    clip: Option<PathBuf>,
}

impl Args {
    fn parse() -> Result<Self, AnyError> {
        let mut this = Self {
            values: HashMap::new(),
            flags: Vec::new(),
            clip: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.strip_prefix("--") {
                Some(flag @ ("no-decode" | "per-frame")) => this.flags.push(flag.into()),
                Some(name) => {
                    let value = args.next().ok_or(format!("--{name} needs a value"))?;
                    this.values.insert(name.into(), value);
                }
                None => this.clip = Some(arg.into()),
            }
        }
        Ok(this)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str, default: T) -> Result<T, AnyError> {
        match self.take(name) {
            None => Ok(default),
            Some(v) => v
                .parse()
                .map_err(|_| format!("--{name}: {v} is no number in range").into()),
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|f| f == name)
    }

    fn end(&self) -> Result<(), AnyError> {
        match self.values.keys().next() {
            Some(name) => Err(format!("unknown option --{name}").into()),
            None => Ok(()),
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Times the networks that a decoder runs, and the encoder's analysis, per frame.
//!
//! `cargo run --release --example nn_bench -- [bundle folder] [--sizes 640x360,1280x720] [--threads
//! 1,2] [--batch 1]
//! [--provider cpu|cuda|tensorrt] [--encoder]`
//!
//! Prints milliseconds per frame (median of runs; processor time as the mean) and the process's
//! memory. Symbols are random and sparse; the networks do the same work whatever they are.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nnv_format::grid::Grid;
use nnv_nn::{Batch, Cancel, InterItem, Model, ModelSource, Provider, Runtime, RuntimeOptions};

struct Arguments {
    bundle: PathBuf,
    sizes: Vec<(usize, usize)>,
    threads: Vec<usize>,
    batch: usize,
    provider: Option<Provider>,
    encoder: bool,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut result = Arguments {
        bundle: Path::new(env!("CARGO_MANIFEST_DIR")).join("models/realtime"),
        sizes: vec![(640, 360), (1280, 720)],
        threads: vec![1, 2],
        batch: 1,
        provider: Some(Provider::Cpu),
        encoder: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--sizes" => {
                result.sizes = value()?
                    .split(',')
                    .map(|s| {
                        let (w, h) = s
                            .split_once('x')
                            .ok_or("sizes look like 640x360,1280x720")?;
                        Ok((w.parse()?, h.parse()?))
                    })
                    .collect::<Result<_, Box<dyn Error>>>()?;
            }
            "--threads" => {
                result.threads = value()?
                    .split(',')
                    .map(str::parse)
                    .collect::<Result<_, _>>()?
            }
            "--batch" => result.batch = value()?.parse()?,
            "--provider" => {
                result.provider = Some(match value()?.as_str() {
                    "cpu" => Provider::Cpu,
                    "cuda" => Provider::Cuda,
                    "tensorrt" => Provider::TensorRt,
                    other => return Err(format!("unknown provider {other}").into()),
                });
            }
            "--encoder" => result.encoder = true,
            _ if arg.starts_with('-') => return Err(format!("unknown option {arg}").into()),
            _ => result.bundle = arg.into(),
        }
    }
    Ok(result)
}

/// Resident memory now and at its peak, in MiB; zeros where /proc is not to be had.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or(0)
            / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Processor time of all threads so far, in milliseconds.
#[cfg(unix)]
fn processor_ms() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills `usage`, which is valid when all zeros, too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let ms = |t: libc::timeval| t.tv_sec as f64 * 1e3 + t.tv_usec as f64 / 1e3;
    ms(usage.ru_utime) + ms(usage.ru_stime)
}

#[cfg(not(unix))]
fn processor_ms() -> f64 {
    f64::NAN
}

/// Milliseconds of one call after a warm-up, over at least a second or three calls: the median, and
/// the mean of processor time, which says more on a busy machine.
fn time(mut call: impl FnMut() -> nnv_nn::Result<()>) -> nnv_nn::Result<(f64, f64)> {
    call()?;
    let mut times = Vec::new();
    let (start, processor) = (Instant::now(), processor_ms());
    while times.len() < 3 || (start.elapsed().as_secs_f64() < 1.0 && times.len() < 1000) {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let processor = (processor_ms() - processor) / times.len() as f64;
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], processor))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let runtime = Runtime::get()?;
    println!(
        "ONNX Runtime {} from {}",
        runtime.version(),
        runtime.path().display()
    );
    println!("memory without a model: {} MiB", memory().0);
    let source = ModelSource::Folder(arguments.bundle.clone());
    println!(
        "     size  threads  kind     prior    synth    total  CPU-time      fps   encoder  \
         CPU-time   memory (peak)"
    );
    for &threads in &arguments.threads {
        let start = Instant::now();
        let options = RuntimeOptions {
            provider: arguments.provider,
            threads,
            ..Default::default()
        };
        let model = Model::load(&source, &options)?;
        println!(
            "loaded {} on {} in {:.0} ms, {} MiB",
            model.name(),
            model.active_provider(),
            start.elapsed().as_secs_f64() * 1e3,
            memory().0
        );
        for &(width, height) in &arguments.sizes {
            let grid = Grid::for_picture(width, height)?;
            let n = arguments.batch;
            let picture: Vec<i16> = (0..grid.picture_len())
                .map(|i| (i * 7919 % 401) as i16 - 200)
                .collect();
            let difference = vec![0; grid.picture_len()];
            let item = InterItem {
                quantizer: 24,
                p: &picture,
                d: &difference,
            };
            let z = vec![0i8; model.z_len(grid)];
            let r: Vec<i16> = (0..grid.y_len())
                .map(|i| if i % 61 == 0 { 40 } else { 0 })
                .collect();
            let bench = |name: &str, batch: &Batch<'_>| -> Result<(), Box<dyn Error>> {
                let cancel = Cancel::new();
                let (z, r, x) = (vec![&z[..]; n], vec![&r[..]; n], vec![&picture[..]; n]);
                let prior = batch.prior(&z, &cancel)?;
                let (prior_ms, prior_cpu) = time(|| batch.prior(&z, &cancel).map(drop))?;
                let (synth_ms, synth_cpu) =
                    time(|| batch.synthesise(&prior, &r, &cancel).map(drop))?;
                let (encoder_ms, encoder_cpu) = match arguments.encoder {
                    true => time(|| batch.analyse(&x, &cancel).map(drop))?,
                    false => (f64::NAN, f64::NAN),
                };
                let frames = n as f64;
                let (now, peak) = memory();
                println!(
                    "{width:>5}x{height:<4} {threads:>5}    {name:<5} {:>8.2} {:>8.2} {:>8.2} \
                     {:>9.2} \
                     {:>8.1} {:>9.2} {:>9.2}   {now} MiB ({peak})",
                    prior_ms / frames,
                    synth_ms / frames,
                    (prior_ms + synth_ms) / frames,
                    (prior_cpu + synth_cpu) / frames,
                    1e3 * frames / (prior_ms + synth_ms),
                    encoder_ms / frames,
                    encoder_cpu / frames,
                );
                Ok(())
            };
            bench("key", &model.key_batch(grid, &vec![24; n])?)?;
            bench("inter", &model.inter_batch(grid, &vec![item; n])?)?;
        }
    }
    Ok(())
}

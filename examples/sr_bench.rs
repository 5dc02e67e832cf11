// SPDX-License-Identifier: MPL-2.0
//! Times super-resolution per frame, and the plain kernel alone.
//!
//! `cargo run --release --example sr_bench -- [bundle folder or name] [--scale 2] [--sizes
//! 640x360,960x540] [--threads 2]
//! [--batch 1] [--ensemble 1] [--format i420|nv12|i420_10|p010|y444|rgb|gray8] [--memory MiB]`
//!
//! Sizes are those before scaling. Prints milliseconds per frame (median of runs; processor time as
//! the mean, which says more on a busy machine): all of it, the network's share, and scaling all
//! planes by the plain kernel, which is what a late frame costs. Without a bundle only the plain
//! kernel is timed.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use nnv_nn::{Cancel, ModelSource, RuntimeOptions, SrBundle};
use nnv_sr::{
    Ensemble, Format, Job, Layout, PlainScaler, Planes, PlanesMut, SourceQuantizer, Upscaler,
};

struct Arguments {
    bundle: Option<ModelSource>,
    scale: usize,
    sizes: Vec<(usize, usize)>,
    threads: u32,
    batch: usize,
    ensemble: Ensemble,
    format: Format,
    /// Bytes; `None`: as the element does.
    memory: Option<usize>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut result = Arguments {
        bundle: None,
        scale: 2,
        sizes: vec![(640, 360), (960, 540)],
        threads: 2,
        batch: 1,
        ensemble: Ensemble::ONE,
        format: Format::I420,
        memory: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--scale" => result.scale = value()?.parse()?,
            "--sizes" => {
                result.sizes = value()?
                    .split(',')
                    .map(|s| {
                        let (w, h) = s.split_once('x').ok_or("sizes look like 640x360,960x540")?;
                        Ok((w.parse()?, h.parse()?))
                    })
                    .collect::<Result<_, Box<dyn Error>>>()?;
            }
            "--threads" => result.threads = value()?.parse()?,
            "--batch" => result.batch = value()?.parse::<usize>()?.max(1),
            "--ensemble" => result.ensemble = Ensemble::new(value()?.parse()?),
            "--format" => {
                result.format = match value()?.as_str() {
                    "i420" => Format::I420,
                    "nv12" => Format::Nv12,
                    "i420_10" => Format::I42010Le,
                    "p010" => Format::P01010Le,
                    "y444" => Format::Y444,
                    "rgb" => Format::Rgb,
                    "gray8" => Format::Gray8,
                    other => return Err(format!("unknown format {other}").into()),
                };
            }
            "--memory" => result.memory = Some(value()?.parse::<usize>()? << 20),
            _ if arg.starts_with('-') => return Err(format!("unknown option {arg}").into()),
            _ if Path::new(&arg).is_dir() => result.bundle = Some(ModelSource::Folder(arg.into())),
            _ => result.bundle = Some(ModelSource::Embedded(arg)),
        }
    }
    Ok(result)
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
/// the mean of processor time.
fn time(
    mut call: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<(f64, f64), Box<dyn Error>> {
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

/// Bytes in a row and rows of each plane.
fn shapes(format: Format, w: usize, h: usize) -> Vec<(usize, usize)> {
    let half = |n: usize| n.div_ceil(2);
    match format {
        Format::I420 => vec![(w, h), (half(w), half(h)), (half(w), half(h))],
        Format::Nv12 => vec![(w, h), (2 * half(w), half(h))],
        Format::I42010Le => vec![(2 * w, h), (2 * half(w), half(h)), (2 * half(w), half(h))],
        Format::P01010Le => vec![(2 * w, h), (4 * half(w), half(h))],
        Format::Y444 => vec![(w, h); 3],
        Format::Rgb => vec![(3 * w, h)],
        Format::Gray8 => vec![(w, h)],
    }
}

fn read<'a>(layout: Layout, planes: &'a [Vec<u8>], strides: &[usize]) -> Planes<'a> {
    let planes: Vec<&[u8]> = planes.iter().map(|p| &p[..]).collect();
    Planes::new(layout, &planes, strides).expect("planes were made for the layout")
}

fn write<'a>(layout: Layout, planes: &'a mut [Vec<u8>], strides: &[usize]) -> PlanesMut<'a> {
    let planes = planes.iter_mut().map(|p| &mut p[..]).collect();
    PlanesMut::new(layout, planes, strides).expect("planes were made for the layout")
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let (scale, threads, batch) = (arguments.scale, arguments.threads, arguments.batch);
    let network = match &arguments.bundle {
        None => None,
        Some(source) => {
            let options = RuntimeOptions {
                threads: threads as usize,
                ..RuntimeOptions::default()
            };
            let bundle = SrBundle::open(source)?;
            let network = bundle.network(scale, &options)?;
            let facts = network.facts();
            println!(
                "{}: {} parameters, {} multiplications per input sample, radius {}, {:?}, on {}",
                bundle.name(),
                facts.parameters,
                facts.macs_per_pixel,
                facts.radius,
                facts.precision,
                network.active_provider()
            );
            Some(network)
        }
    };
    println!(
        "     size        output   tiles   all ms  CPU ms    network ms      fps   plain ms  CPU ms"
    );
    for &(width, height) in &arguments.sizes {
        let layout = Layout::new(arguments.format, width, height)?;
        let plain = PlainScaler::new(layout, scale, threads);
        let to = plain.output();
        let planes = |w, h, fill: &dyn Fn(usize) -> u8| -> (Vec<Vec<u8>>, Vec<usize>) {
            let shapes = shapes(arguments.format, w, h);
            let plane = |(w, h): &(usize, usize)| (0..w * h).map(fill).collect();
            (
                shapes.iter().map(plane).collect(),
                shapes.iter().map(|(w, _)| *w).collect(),
            )
        };
        // Different pictures: equal ones would be computed once.
        let inputs: Vec<_> = (0..2 * batch)
            .map(|n| planes(width, height, &|i| ((i * 7919) >> 3) as u8 ^ n as u8))
            .collect();
        let mut outputs: Vec<_> = (0..batch)
            .map(|_| planes(to.width(), to.height(), &|_| 0))
            .collect();
        let (plain_ms, plain_cpu) = time(|| {
            let ((input, strides), (output, out_strides)) = (&inputs[0], &mut outputs[0]);
            let input = read(layout, input, strides);
            Ok(plain.scale(&input, &mut write(to, output, out_strides))?)
        })?;
        let mut measured = None;
        if let Some(network) = &network {
            let mut upscaler = match arguments.memory {
                Some(memory) => Upscaler::with_memory(layout, network.clone(), threads, memory)?,
                None => Upscaler::new(layout, network.clone(), threads)?,
            }
            .with_ensemble(arguments.ensemble);
            let mut turn = 0;
            let mut network_ms = Vec::new();
            let (all, cpu) = time(|| {
                turn ^= 1;
                let mut jobs: Vec<_> = inputs[turn * batch..][..batch]
                    .iter()
                    .zip(&mut outputs)
                    .map(|((input, strides), (output, out_strides))| Job {
                        input: read(layout, input, strides),
                        output: write(to, output, out_strides),
                        strength: 1.0,
                        quantizer: SourceQuantizer::Unknown,
                        late: false,
                    })
                    .collect();
                let outcome = upscaler.run(&mut jobs, &Cancel::new())?;
                network_ms.push(outcome.network.as_secs_f64() * 1e3);
                Ok(())
            })?;
            network_ms.sort_by(f64::total_cmp);
            let network_ms = network_ms[network_ms.len() / 2];
            let frames = batch as f64;
            measured = Some((
                upscaler.tiles(),
                all / frames,
                cpu / frames,
                network_ms / frames,
                1e3 * frames / all,
            ));
        }
        let (tiles, all, cpu, network_ms, fps) =
            measured.unwrap_or((0, f64::NAN, f64::NAN, f64::NAN, f64::NAN));
        println!(
            "{width:>5}x{height:<5} {:>5}x{:<5} {tiles:>5} {all:>9.2} {cpu:>7.2} \
             {network_ms:>12.2} {fps:>9.1} \
             {plain_ms:>9.2} {plain_cpu:>7.2}",
            to.width(),
            to.height(),
        );
    }
    Ok(())
}

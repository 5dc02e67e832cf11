// SPDX-License-Identifier: MPL-2.0
//! Times super-resolution per frame, and the plain kernel alone.

use clap::{Args, ValueEnum};
use nnv_nn::{Cancel, RuntimeOptions, SrBundle};
use nnv_sr::{
    Ensemble, Format, Job, Layout, PlainScaler, Planes, PlanesMut, SourceQuantizer, Upscaler,
};

use super::{size, time};
use crate::failure::Result;
use crate::models;

/// Times super-resolution per frame, and the plain kernel alone
///
/// Prints milliseconds per frame (median of runs; processor time as the mean, which says more on a
/// busy machine): all of it, the network's share, and scaling all planes by the plain kernel, which
/// is what a late frame costs. Without a bundle only the plain kernel is timed.
#[derive(Args, Debug)]
pub struct Options {
    /// Bundle
    #[arg(value_name = "NAME|FOLDER")]
    bundle: Option<String>,
    /// Scale
    #[arg(long, value_name = "N", default_value_t = 2)]
    scale: usize,
    /// Sizes before scaling
    #[arg(
        long, value_name = "WxH,...", value_delimiter = ',', value_parser = size::<usize>,
        default_value = "640x360,960x540"
    )]
    sizes: Vec<(usize, usize)>,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: u32,
    /// Frames per run
    #[arg(
        long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    batch: u16,
    /// Turns of each picture
    #[arg(long, value_name = "N", default_value_t = 1)]
    ensemble: u32,
    /// Raw format
    #[arg(long, value_enum, default_value = "i420")]
    format: Raw,
    /// Memory in MiB [default: as the element takes]
    #[arg(long, value_name = "MiB")]
    memory: Option<usize>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Raw {
    I420,
    Nv12,
    #[value(name = "i420_10")]
    I42010,
    P010,
    Y444,
    Rgb,
    Gray8,
}

impl From<Raw> for Format {
    fn from(raw: Raw) -> Self {
        match raw {
            Raw::I420 => Self::I420,
            Raw::Nv12 => Self::Nv12,
            Raw::I42010 => Self::I42010Le,
            Raw::P010 => Self::P01010Le,
            Raw::Y444 => Self::Y444,
            Raw::Rgb => Self::Rgb,
            Raw::Gray8 => Self::Gray8,
        }
    }
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

pub fn run(arguments: &Options) -> Result<()> {
    let (scale, threads, batch) = (arguments.scale, arguments.threads, arguments.batch.into());
    let (format, ensemble) = (arguments.format.into(), Ensemble::new(arguments.ensemble));
    let network = match &arguments.bundle {
        None => None,
        Some(name) => {
            let source = models::source(name);
            let options = RuntimeOptions {
                threads: threads as usize,
                ..RuntimeOptions::default()
            };
            let bundle = SrBundle::open(&source)?;
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
        let layout = Layout::new(format, width, height)?;
        let plain = PlainScaler::new(layout, scale, threads);
        let to = plain.output();
        let planes = |w, h, fill: &dyn Fn(usize) -> u8| -> (Vec<Vec<u8>>, Vec<usize>) {
            let shapes = shapes(format, w, h);
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
            let mut upscaler = match arguments.memory.map(|mib| mib << 20) {
                Some(memory) => Upscaler::with_memory(layout, network.clone(), threads, memory)?,
                None => Upscaler::new(layout, network.clone(), threads)?,
            }
            .with_ensemble(ensemble);
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

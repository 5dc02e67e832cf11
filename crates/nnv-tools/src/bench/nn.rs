// SPDX-License-Identifier: MPL-2.0
//! Times the networks that a decoder runs, and the encoder's analysis, per frame.

use std::time::Instant;

use clap::{Args, ValueEnum};
use nnv_format::grid::Grid;
use nnv_nn::{Batch, Cancel, InterItem, Model, Provider, Runtime, RuntimeOptions};

use super::{size, time};
use crate::failure::Result;
use crate::models;
use crate::process::memory;

/// Times the networks that a decoder runs, and the encoder's analysis, per frame
///
/// Prints milliseconds per frame (median of runs; processor time as the mean) and the process's
/// memory. Symbols are random and sparse; the networks do the same work whatever they are.
#[derive(Args, Debug)]
pub struct Options {
    /// Bundle
    #[arg(value_name = "NAME|FOLDER", default_value = "realtime")]
    bundle: String,
    /// Sizes of pictures
    #[arg(
        long, value_name = "WxH,...", value_delimiter = ',', value_parser = size::<usize>,
        default_value = "640x360,1280x720"
    )]
    sizes: Vec<(usize, usize)>,
    /// Threads
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "1,2"
    )]
    threads: Vec<usize>,
    /// Frames per run
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// What runs the networks
    #[arg(long, value_enum, default_value = "cpu")]
    provider: On,
    /// Time the encoder's networks, too
    #[arg(long)]
    encoder: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum On {
    Cpu,
    Cuda,
    Tensorrt,
}

impl From<On> for Provider {
    fn from(on: On) -> Self {
        match on {
            On::Cpu => Self::Cpu,
            On::Cuda => Self::Cuda,
            On::Tensorrt => Self::TensorRt,
        }
    }
}

/// Nobody wants the outputs.
fn discard<T>(outcome: nnv_nn::Result<T>) -> Result<()> {
    outcome.map(drop).map_err(Into::into)
}

pub fn run(arguments: &Options) -> Result<()> {
    let runtime = Runtime::get()?;
    println!(
        "ONNX Runtime {} from {}",
        runtime.version(),
        runtime.path().display()
    );
    println!("memory without a model: {} MiB", memory().0);
    let source = models::source(&arguments.bundle);
    println!(
        "     size  threads  kind     prior    synth    total  CPU-time      fps   encoder  \
         CPU-time   memory (peak)"
    );
    for &threads in &arguments.threads {
        let start = Instant::now();
        let options = RuntimeOptions {
            provider: Some(arguments.provider.into()),
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
            let bench = |name: &str, batch: &Batch<'_>| -> Result<()> {
                let cancel = Cancel::new();
                let (z, r, x) = (vec![&z[..]; n], vec![&r[..]; n], vec![&picture[..]; n]);
                let prior = batch.prior(&z, &cancel)?;
                let (prior_ms, prior_cpu) = time(|| discard(batch.prior(&z, &cancel)))?;
                let (synth_ms, synth_cpu) =
                    time(|| discard(batch.synthesise(&prior, &r, &cancel)))?;
                let (encoder_ms, encoder_cpu) = match arguments.encoder {
                    true => time(|| discard(batch.analyse(&x, &cancel)))?,
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

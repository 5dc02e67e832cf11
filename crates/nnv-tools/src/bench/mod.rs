// SPDX-License-Identifier: MPL-2.0
//! `nnv bench`: speed, by stage and by network.

use std::sync::Arc;
use std::time::Instant;

use clap::Subcommand;
use nnv_format::picture::Picture;

use crate::failure::Result;
use crate::process::processor_time;

mod codec;
mod loss;
mod motion;
mod nn;
mod sr;

/// What is timed.
#[derive(Subcommand, Debug)]
pub enum Bench {
    Codec(codec::Options),
    Loss(loss::Options),
    Sr(sr::Options),
    Nn(nn::Options),
    Motion(motion::Options),
}

/// The subcommand.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Codec(options) => codec::run(options),
        Bench::Loss(options) => loss::run(options),
        Bench::Sr(options) => sr::run(options),
        Bench::Nn(options) => nn::run(options),
        Bench::Motion(options) => motion::run(options),
    }
}

/// The synthetic clip of `nnv bench codec`, small.
///
/// # Errors
/// None, at this size.
pub fn synthetic_pictures(frames: usize) -> Result<Vec<Arc<Picture>>> {
    Ok(codec::synthetic(320, 192, frames)?.frames)
}

/// Milliseconds of one call after a warm-up, over at least a second or three calls: the median, and
/// the mean of processor time, which says more on a busy machine.
fn time(mut call: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
    call()?;
    let mut times = Vec::new();
    let (start, processor) = (Instant::now(), processor_time());
    while times.len() < 3 || (start.elapsed().as_secs_f64() < 1.0 && times.len() < 1000) {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let processor = (processor_time() - processor).as_secs_f64() * 1e3 / times.len() as f64;
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], processor))
}

/// `WIDTHxHEIGHT`.
fn size<T: std::str::FromStr>(text: &str) -> std::result::Result<(T, T), String> {
    let parsed = text
        .split_once('x')
        .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is no size; they look like 640x360"))
}

// SPDX-License-Identifier: MPL-2.0
//! `nnv rdo-points`: what training of the bundle `rdo` reads. The features and measures are those
//! that `nnv encode` goes by, by the same code.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::codec::Codec;
use super::features;
use super::plan::{Limits, Plan};
use super::shot::{Coding, RawWriter};
use super::size::Size;
use super::source::Source;
use super::target::Metric;
use super::vmaf::Judge;
use crate::failure::{Failure, Result};
use crate::process;

/// A codec and a quantizer.
#[derive(Clone, Copy, Debug)]
struct Point(Codec, f64);

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let bad = || format!("{text:?}: a codec and a quantizer look like x264=26");
        let (codec, quantizer) = text.split_once('=').ok_or_else(bad)?;
        let codec = Codec::from_str(codec, false).map_err(|_| bad())?;
        Ok(Self(codec, quantizer.parse().map_err(|_| bad())?))
    }
}

/// Codes a clip at several quantizers and prints its features and measures as JSON
#[derive(Args, Debug)]
pub struct Options {
    /// The clip
    file: PathBuf,
    /// Quantizers; those beyond a codec's are brought to its range
    #[arg(
        long,
        value_delimiter = ',',
        required = true,
        value_name = "CODEC=QUANTIZER"
    )]
    points: Vec<Point>,
    /// Of each codec's own, where it is not this one
    #[arg(long)]
    preset: Option<String>,
    /// Measures
    #[arg(long, value_delimiter = ',', value_enum, required = true)]
    metrics: Vec<Metric>,
    /// Take so many frames at most
    #[arg(long, value_name = "N")]
    frames: Option<u64>,
    /// Threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// A folder for what is in work
    #[arg(long)]
    work: PathBuf,
}

/// The subcommand.
pub fn run(options: &Options) -> Result<()> {
    process::keep_with_pipe();
    let folder = &options.work;
    std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, e))?;
    let source = Source::open(&options.file)?;
    let limits = Limits {
        frames: options.frames,
        deep: false,
        even: options.points.iter().any(|p| !p.0.facts().odd_sizes),
    };
    let plan = Plan::make(&options.file, &source, limits, |_| {})?;
    let shot = &plan.shots[0];
    let mut raw = RawWriter::new(&folder.join("points.raw"), &plan.video)?;
    let mut frames = source.frames()?;
    for _ in 0..shot.frames {
        if let Some(frame) = frames.next()? {
            raw.add(&frame)?;
        }
    }
    raw.finish()?;
    let judge = options.metrics.contains(&Metric::Vmaf).then(Judge::find);
    let judge = judge.transpose()?;
    let mut points = Vec::new();
    for Point(codec, quantizer) in &options.points {
        codec.check_elements()?;
        let facts = codec.facts();
        let coding = Coding {
            codec: *codec,
            preset: options.preset.clone().unwrap_or(facts.preset.into()),
            size: Size::Full,
            threads: options.threads,
            judge: judge.clone(),
            metrics: options.metrics.clone(),
        };
        let q = codec.nearest(*quantizer);
        let out = format!("points.{}", facts.ending);
        let bytes = coding.code(folder, "points.raw", &plan.video, q, &out)?;
        let scores = coding.measure(folder, "points.raw", &plan.video, &out)?;
        points.push(json!({
            "codec": facts.name, "quantizer": q, "bytes": bytes, "scores": scores,
        }));
    }
    let report = json!({
        "frames": shot.frames, "width": plan.video.width, "height": plan.video.height,
        "rate": plan.video.rate, "names": features::NAMES, "features": shot.features,
        "points": points,
    });
    println!("{report}");
    Ok(())
}

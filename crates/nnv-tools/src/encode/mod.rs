// SPDX-License-Identifier: MPL-2.0
//! `nnv encode`: any encoder, held to a quality, shot by shot.
//!
//! The source is read twice: once to find the shots and what they look like (`plan`), once to write
//! the frames of each shot to a file, which a worker codes and measures (`work`). What is finished
//! lies in a folder beside the output, until all is joined.

mod choice;
mod codec;
mod features;
mod feed;
mod folder;
mod gst;
mod join;
mod plan;
pub mod points;
mod predict;
mod probing;
mod progress;
mod report;
mod shot;
mod size;
mod source;
mod target;
mod vmaf;
mod work;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use clap::Args;

use choice::Choice;
use codec::Codec;
use folder::Folder;
use plan::{Limits, Plan};
use predict::Predictor;
use progress::Progress;
use report::Report;
use shot::Coding;
use size::Size;
use source::Source;
use target::{Metric, Target};
use vmaf::Judge;
use work::Job;

use crate::failure::{Failure, Result};
use crate::files::check_outputs;
use crate::{models, process};

/// Codes a film so that every shot has the quality asked for
///
/// A network predicts the quantizer of each shot from what it looks like. What was coded is
/// measured; a shot that misses by more than the tolerance is coded again, twice at most. Sound and
/// subtitles of the source are taken over. Killed and called again with the same words, it goes on.
#[derive(Args, Debug)]
pub struct Options {
    /// The source: anything that GStreamer reads, .y4m, a stream
    input: PathBuf,
    /// Where it goes: .mp4, or .mkv for all codecs but nnv
    output: PathBuf,
    /// The codec
    #[arg(long, value_enum)]
    codec: Codec,
    /// vmaf, psnr, ssim, ms-ssim, xpsnr or ssimulacra2, and the value of each shot's mean
    #[arg(long, value_name = "MEASURE=VALUE")]
    target: Target,
    /// Choose the size of the coded pictures, too: of these the one that takes the fewest bytes for
    /// the target, measured on pictures enlarged to the source's size [without a list: 1,3/4,1/2]
    #[arg(
        long,
        value_enum,
        value_name = "SIZE,…",
        value_delimiter = ',',
        num_args = 0..=1,
        require_equals = true,
        default_value = "1",
        default_missing_value = "1,3/4,1/2"
    )]
    sizes: Vec<Size>,
    /// How far a shot may be off before it is coded again [default: 1 of vmaf and ssimulacra2,
    /// 0.25 dB of psnr and xpsnr, 0.002 of ssim and ms-ssim]
    #[arg(long, value_name = "VALUE")]
    tolerance: Option<f64>,
    /// The encoder's preset [default: medium; 8 of svtav1, 4 of vp9]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Shots in work at once; 0: as many as there are processors
    #[arg(long, default_value_t = 0, value_name = "N")]
    jobs: usize,
    /// Code so many frames at most, without sound
    #[arg(long, value_name = "N")]
    frames: Option<u64>,
    /// Write what became of each shot
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Code a second time in the way of ab-av1 (probes, one quantizer), and print both
    #[arg(long)]
    compare: bool,
    /// Bundle of kind rdo in place of the built-in one: a name or a folder
    #[arg(long, value_name = "NAME|FOLDER", default_value = "rdo")]
    model: String,
}

impl Options {
    fn tolerance(&self) -> f64 {
        self.tolerance
            .unwrap_or_else(|| self.target.metric.tolerance())
    }

    /// The largest one first.
    fn sizes(&self) -> Vec<Size> {
        let mut sizes = self.sizes.clone();
        sizes.sort();
        sizes.dedup();
        sizes
    }

    fn preset(&self) -> &str {
        let own = self.codec.facts().preset;
        self.preset.as_deref().unwrap_or(own)
    }

    /// What can be wrong before any file is read.
    fn check(&self) -> Result<()> {
        self.codec.check_preset(self.preset())?;
        if !(self.tolerance() > 0.0 && self.tolerance().is_finite()) {
            return Err(Failure::Usage("--tolerance must be above 0".into()));
        }
        if self.frames == Some(0) {
            return Err(Failure::Usage("--frames 0 codes nothing".into()));
        }
        let outputs = [Some(&self.output), self.json.as_ref()];
        check_outputs(
            [&*self.input],
            outputs.into_iter().flatten().map(|path| &**path),
        )
    }

    /// Whatever decides what a shot becomes, beside the source.
    fn settings(&self) -> String {
        format!(
            "{} {:?} {} {} {} {:?} {} {:?}",
            env!("CARGO_PKG_VERSION"),
            self.codec,
            self.target,
            self.tolerance(),
            self.preset(),
            self.frames,
            self.model,
            self.sizes(),
        )
    }
}

/// Processors of this machine.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The subcommand.
pub fn run(options: &Options) -> Result<()> {
    process::keep_with_pipe();
    options.check()?;
    let started = Instant::now();
    let codec = options.codec;
    let muxer = codec.muxer(&options.output)?;
    let source = Source::open(&options.input)?;
    codec.check_elements()?;
    let sizes = options.sizes();
    sizes.iter().try_for_each(|size| size.check_elements())?;
    let full = sizes == [Size::Full];
    let metric = options.target.metric;
    let judge = (metric == Metric::Vmaf).then(Judge::find).transpose()?;
    let predictor = Predictor::load(&models::source(&options.model), codec)?;
    if let Some(unknown) = predictor.unknown(metric) {
        eprintln!(
            "nnv: the network was not trained with {unknown}: shots begin with a guess, and more \
             of them are coded twice"
        );
    }
    let folder = Folder::open(&options.input, &options.output, &options.settings())?;
    let plan = match folder.plan()? {
        Some(plan) => plan,
        None => {
            let limits = Limits {
                frames: options.frames,
                // Enlarged pictures come with 8 bits.
                deep: codec == Codec::Nnv && full,
                even: !codec.facts().odd_sizes,
            };
            let mut progress = Progress::new("plan", None);
            let plan = Plan::make(&options.input, &source, limits, |n| progress.frames(n))?;
            progress.finish();
            folder.keep_plan(&plan)?;
            plan
        }
    };
    if let Some(cropped) = plan.cropped(codec) {
        eprintln!("nnv: {}: {cropped}", options.input.display());
    }
    if options.frames.is_none() {
        join::check_tracks(&plan.tracks, muxer, &options.output)?;
    }
    let resumed = folder.finished();
    let left = plan.shots.len() - resumed;
    let jobs = match options.jobs {
        0 => processors(),
        n => n,
    };
    let jobs = jobs.clamp(1, left.max(1));
    let coding = Coding {
        codec,
        preset: options.preset().into(),
        size: Size::Full,
        threads: processors().div_ceil(jobs),
        judge,
        metrics: vec![metric],
    };
    let searching = Job {
        plan: &plan,
        folder: &folder,
        coding: &coding,
        scaled: None,
        predictor: &predictor,
        target: options.target,
        tolerance: options.tolerance(),
        jobs,
        measuring: AtomicU64::new(0),
    };
    let choice = match full {
        true => None,
        false => Some(Choice::make(&searching, &source, &sizes)?),
    };
    let size = choice.as_ref().map_or(Size::Full, Choice::size);
    let coding = Coding {
        size,
        ..coding.clone()
    };
    if let Some(choice) = &choice {
        eprintln!("nnv: {}", choice.text(options.target));
    }
    let scaled = choice.as_ref().and_then(|choice| choice.scaled.as_deref());
    let job = searching.with(&plan, &coding, scaled);
    let shots = job.run(&source)?;
    let tracks = match options.frames {
        None => &plan.tracks[..],
        Some(_) => &[],
    };
    let files = folder.shots(plan.shots.len(), codec.facts().ending);
    join::join(&join::Joining {
        codec,
        muxer,
        folder: folder.path(),
        files: &files,
        source: &options.input,
        tracks,
        output: &options.output,
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let mut report = Report::new(options, &plan, shots, resumed, seconds)?;
    report.choice = choice.as_ref();
    if options.compare {
        report.probing = Some(probing::run(&job, &source)?);
    }
    report.tell(options.json.as_deref())?;
    folder.remove()
}

// SPDX-License-Identifier: MPL-2.0
//! What became of the shots, for people and for programs.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Options;
use super::choice::Choice;
use super::plan::Plan;
use super::probing::Probing;
use super::size::Size;
use super::target::Target;
use crate::failure::{Failure, Result};

/// One coding of a shot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// The quantizer, or constant rate factor.
    pub quantizer: f64,
    /// The mean over the shot's frames.
    pub score: f64,
    /// Of the coded shot's file.
    pub bytes: u64,
}

impl Try {
    /// How far it is from a target.
    pub fn miss(&self, target: Target) -> f64 {
        (self.score - target.value).abs()
    }
}

/// What became of a shot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shot {
    /// Number of its first frame.
    pub first: u64,
    /// How many frames it has.
    pub frames: u64,
    /// As the network predicted.
    pub predicted: Try,
    /// With the quantizer corrected, where the ones before missed.
    pub corrected: Vec<Try>,
}

impl Shot {
    /// All codings of it, in their order.
    pub fn tries(&self) -> impl Iterator<Item = Try> {
        std::iter::once(self.predicted).chain(self.corrected.iter().copied())
    }

    /// The coding that is nearest to the target.
    pub fn best(&self, target: Target) -> Try {
        self.tries().fold(self.predicted, |best, next| {
            if next.miss(target) < best.miss(target) {
                next
            } else {
                best
            }
        })
    }
}

/// The whole.
pub struct Report<'a> {
    options: &'a Options,
    plan: &'a Plan,
    shots: Vec<Shot>,
    seconds: f64,
    /// Of the output.
    bytes: u64,
    /// Shots that a run before had finished.
    resumed: usize,
    /// Of the size, where that was asked for.
    pub choice: Option<&'a Choice>,
    /// The other way, where it was asked for.
    pub probing: Option<Probing>,
}

impl<'a> Report<'a> {
    /// Of a finished output.
    ///
    /// # Errors
    /// The output is not there.
    pub fn new(
        options: &'a Options,
        plan: &'a Plan,
        shots: Vec<Shot>,
        resumed: usize,
        seconds: f64,
    ) -> Result<Self> {
        let output = &options.output;
        let bytes = std::fs::metadata(output).map_err(|e| Failure::file(output, e))?;
        Ok(Self {
            options,
            plan,
            shots,
            seconds,
            bytes: bytes.len(),
            resumed,
            choice: None,
            probing: None,
        })
    }

    /// Mean over all frames.
    fn score(&self) -> f64 {
        let target = self.options.target;
        let of = |shot: &Shot| shot.best(target).score * shot.frames as f64;
        self.shots.iter().map(of).sum::<f64>() / self.plan.frames() as f64
    }

    /// Bytes of the coded shots.
    fn video_bytes(&self) -> u64 {
        let target = self.options.target;
        self.shots.iter().map(|s| s.best(target).bytes).sum()
    }

    /// Shots that miss by more than the tolerance, the worst one first.
    fn missed(&self) -> Vec<&Shot> {
        let target = self.options.target;
        let miss = |shot: &Shot| shot.best(target).miss(target);
        let mut all: Vec<_> = self.shots.iter().collect();
        all.retain(|shot| miss(shot) > self.options.tolerance());
        all.sort_by(|a, b| miss(b).total_cmp(&miss(a)));
        all
    }

    /// Writes the report, and says in a few lines what is in it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn tell(&self, json: Option<&Path>) -> Result<()> {
        let Options { target, codec, .. } = self.options;
        let (name, digits) = (target.metric.name(), target.metric.digits());
        let corrected = |n| self.shots.iter().filter(|s| s.corrected.len() >= n).count();
        let (twice, thrice) = (corrected(1), corrected(2));
        let (score, count) = (self.score(), self.shots.len());
        println!(
            "{}: {name} {score:.digits$}, {} frames in {count} shots, {twice} of them coded twice, \
             {thrice} three times, {} bytes, {:.1} s",
            self.options.output.display(),
            self.plan.frames(),
            self.bytes,
            self.seconds,
        );
        let video = &self.plan.video;
        if let Some(enlarge) = self.choice.and_then(|c| c.size().enlarge(video)) {
            println!(
                "shown at {}x{} by: gst-launch-1.0 filesrc location={:?} ! decodebin \
                 ! videoconvert ! {enlarge} ! videoconvert ! autovideosink",
                video.width, video.height, self.options.output,
            );
        }
        if let Some(worst) = self.missed().first() {
            let best = worst.best(*target);
            let (low, high) = codec.facts().quantizers;
            let end = match best.quantizer {
                q if q <= low => ", the lowest there is",
                q if q >= high => ", the highest there is",
                _ => "",
            };
            eprintln!(
                "nnv: warning: {} of {count} shots miss {target} by more than {}; most of all the \
                 one at frame {}: {:.digits$} with quantizer {}{end}",
                self.missed().len(),
                self.options.tolerance(),
                worst.first,
                best.score,
                best.quantizer,
            );
        }
        if let Some(probing) = &self.probing {
            let error = |score: f64| score - target.value;
            let video = self.video_bytes();
            println!("                 time s   error        bytes  codings");
            let codings = self.plan.shots.len() + twice + thrice;
            println!(
                "predicted      {:8.1} {:+7.digits$} {video:12} {codings:8}",
                self.seconds,
                error(score)
            );
            println!(
                "by probes      {:8.1} {:+7.digits$} {:12} {:8}",
                probing.seconds,
                error(probing.score),
                probing.bytes,
                probing.codings
            );
        }
        let Some(path) = json else { return Ok(()) };
        let shots: Vec<_> = self
            .shots
            .iter()
            .map(|shot| {
                let best = shot.best(*target);
                json!({
                    "first": shot.first, "frames": shot.frames, "predicted": shot.predicted,
                    "corrected": shot.corrected, "quantizer": best.quantizer,
                    "score": best.score, "bytes": best.bytes,
                })
            })
            .collect();
        let size = self.choice.map_or(Size::Full, Choice::size);
        let coded = size.of(video).unwrap_or_else(|| video.clone());
        let report = json!({
            "input": self.options.input.display().to_string(),
            "output": self.options.output.display().to_string(),
            "codec": codec, "preset": self.options.preset(), "metric": target.metric,
            "target": target.value, "tolerance": self.options.tolerance(),
            "frames": self.plan.frames(), "score": score, "bytes": self.bytes,
            "video_bytes": self.video_bytes(), "seconds": self.seconds, "coded_twice": twice,
            "coded_thrice": thrice,
            "resumed": self.resumed,
            "size": size, "width": coded.width, "height": coded.height,
            "cropped": self.plan.cropped(*codec),
            "sizes": self.choice.map(|c| &c.candidates),
            "missed": self.missed().len(), "shots": shots, "probing": self.probing,
        });
        std::fs::write(path, format!("{report:#}\n")).map_err(|e| Failure::file(path, e))
    }
}

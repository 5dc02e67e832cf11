// SPDX-License-Identifier: MPL-2.0
//! Shots in work: each is coded, measured and corrected.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::feed::{for_each, raw_of};
use super::folder::Folder;
use super::plan::{Plan, Shot};
use super::predict::{Curve, Predictor};
use super::progress::Progress;
use super::report::{self, Try};
use super::shot::{Coding, Scores};
use super::source::Source;
use super::target::Target;
use crate::failure::{Failure, Result};

/// How often a shot is coded again.
const CORRECTIONS: usize = 2;

/// All that shots are coded by.
pub struct Job<'a> {
    /// The shots.
    pub plan: &'a Plan,
    /// Where they are coded.
    pub folder: &'a Folder,
    /// How.
    pub coding: &'a Coding,
    /// The score of each shot whose pictures are scaled, not coded; none at full size.
    pub scaled: Option<&'a [f64]>,
    /// What tells the quantizer.
    pub predictor: &'a Predictor,
    /// What each is to have.
    pub target: Target,
    /// What it may be off.
    pub tolerance: f64,
    /// Shots in work at once.
    pub jobs: usize,
    /// Time that measuring took so far, of all threads, in µs.
    pub measuring: AtomicU64,
}

impl Job<'_> {
    /// The same with other shots and another way of coding.
    pub fn with<'a>(
        &'a self,
        plan: &'a Plan,
        coding: &'a Coding,
        scaled: Option<&'a [f64]>,
    ) -> Job<'a> {
        Job {
            plan,
            coding,
            scaled,
            measuring: AtomicU64::new(0),
            ..*self
        }
    }

    /// Codes what is not yet coded. Returns what became of all.
    ///
    /// # Errors
    /// The first thing that went wrong; no new shot is begun then.
    pub fn run(&self, source: &Source<'_>) -> Result<Vec<report::Shot>> {
        let mut done = Vec::new();
        for index in 0..self.plan.shots.len() {
            done.push(self.folder.shot(index)?);
        }
        let left: Vec<usize> = (0..done.len()).filter(|i| done[*i].is_none()).collect();
        let frames = |i: &usize| self.plan.shots[*i].frames;
        let mut progress = Progress::new("code", Some(left.iter().map(frames).sum()));
        for_each(self, source, &left, &mut progress, |index| {
            let shot = self.shot(index, &Folder::name(index))?;
            self.folder.keep_shot(index, &shot)
        })?;
        progress.finish();
        done.iter()
            .enumerate()
            .map(|(index, shot)| match shot {
                Some(shot) => Ok(shot.clone()),
                None => self.folder.shot(index)?.ok_or_else(|| {
                    Failure::file(self.folder.path(), "a finished shot is gone from it")
                }),
            })
            .collect()
    }

    /// What the network says of a shot, at the size that is coded.
    fn curve(&self, index: usize) -> Result<Curve> {
        let metric = self.target.metric;
        let Some(scaled) = self.scaled else {
            let features = &self.plan.shots[index].features;
            return self.predictor.curve(features, metric);
        };
        let (folder, raw) = (self.folder.path(), raw_of(index));
        let features = self.coding.features(folder, &raw, &self.plan.video)?;
        let loss = metric.loss(scaled[index]) - metric.loss(f64::INFINITY);
        Ok(self.predictor.curve(&features, metric)?.with_loss(loss))
    }

    /// Codes a shot into the file `name`, measures it, and corrects it where it missed.
    pub fn shot(&self, index: usize, name: &str) -> Result<report::Shot> {
        let Shot { first, frames, .. } = self.plan.shots[index];
        let (target, path) = (self.target, self.folder.path());
        let ending = self.coding.codec.facts().ending;
        let [kept, again] = ["", ".again"].map(|part| format!("{name}{part}.{ending}"));
        let curve = self.curve(index)?;
        let q = self.predictor.quantizer(&curve, target);
        let mut shot = report::Shot {
            first,
            frames,
            predicted: self.attempt(index, q, &kept)?,
            corrected: Vec::new(),
        };
        while shot.corrected.len() < CORRECTIONS && shot.best(target).miss(target) > self.tolerance
        {
            let q = self.coding.codec.nearest(correction(&shot, &curve, target));
            if shot.tries().any(|t| t.quantizer == q) {
                break;
            }
            let before = shot.best(target);
            shot.corrected.push(self.attempt(index, q, &again)?);
            if shot.best(target) == before {
                std::fs::remove_file(path.join(&again))?;
            } else {
                std::fs::rename(path.join(&again), path.join(&kept))?;
            }
        }
        Ok(shot)
    }

    /// Time that measuring took so far, in seconds of all threads.
    pub fn measured_seconds(&self) -> f64 {
        self.measuring.load(Ordering::Relaxed) as f64 * 1e-6
    }

    /// Codes a shot with a quantizer, and measures it.
    pub fn attempt(&self, index: usize, quantizer: f64, out: &str) -> Result<Try> {
        let (folder, video, raw) = (self.folder.path(), &self.plan.video, raw_of(index));
        let bytes = self.coding.code(folder, &raw, video, quantizer, out)?;
        let started = Instant::now();
        let scores = self.coding.measure(folder, &raw, video, out)?;
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.measuring.fetch_add(took, Ordering::Relaxed);
        Ok(Try {
            quantizer,
            score: self.score(&scores)?,
            bytes,
        })
    }

    /// The one of the target's measure.
    pub fn score(&self, scores: &Scores) -> Result<f64> {
        let (video, metric) = (&self.plan.video, self.target.metric);
        scores.get(&metric).copied().ok_or_else(|| {
            Failure::Input(format!(
                "pictures of {}x{} are too small for {}: take another measure",
                video.width,
                video.height,
                metric.name()
            ))
        })
    }
}

/// The quantizer to code a shot with that missed: at first the curve, moved to what was measured,
/// then a line through both measured points. Both are of what coding alone leaves: what scaling has
/// cost no quantizer brings back.
fn correction(shot: &report::Shot, curve: &Curve, target: Target) -> f64 {
    let log = |v| target.metric.log(v);
    let mut seen: Vec<_> = shot.tries().map(|t| (t.quantizer, log(t.score))).collect();
    match seen[..] {
        [(q, v)] => curve.corrected(q, v, log(target.value)),
        _ => {
            seen.sort_by(|a, b| a.0.total_cmp(&b.0));
            curve.through(seen).inverse(log(target.value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::Metric;
    use super::*;

    #[test]
    fn the_second_correction_lies_between_what_was_measured() {
        let tried = |quantizer, score| Try {
            quantizer,
            score,
            bytes: 1,
        };
        let target = Target {
            metric: Metric::Psnr,
            value: 40.0,
        };
        // 0.5 dB a step, as the curve says it.
        let curve = Curve::new(vec![
            (20.0, target.metric.log(45.0)),
            (40.0, target.metric.log(35.0)),
        ]);
        let mut shot = report::Shot {
            first: 0,
            frames: 1,
            predicted: tried(30.0, 42.0),
            corrected: Vec::new(),
        };
        assert!((correction(&shot, &curve, target) - 34.0).abs() < 1e-9);
        // It fell by 1 dB a step: too far.
        shot.corrected.push(tried(34.0, 38.0));
        assert!((correction(&shot, &curve, target) - 32.0).abs() < 1e-9);
        assert_eq!(shot.best(target), shot.predicted);
        shot.corrected.push(tried(32.0, 40.1));
        assert_eq!(shot.best(target).quantizer, 32.0);
    }
}

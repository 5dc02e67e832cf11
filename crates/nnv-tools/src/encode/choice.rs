// SPDX-License-Identifier: MPL-2.0
//! The size that a film is coded at: the one that takes the fewest bytes for the target.
//!
//! Scaling alone, without coding, tells which sizes are out of reach. Of the others a few samples
//! are coded: the network tells the quality, not the bytes.

use serde::{Deserialize, Serialize};

use super::feed::{for_each, raw_of};
use super::plan::{Plan, Shot};
use super::progress::Progress;
use super::report;
use super::shot::Coding;
use super::size::Size;
use super::source::Source;
use super::target::Target;
use super::work::Job;
use crate::failure::{Failure, Result};

/// Frames of each shot that are scaled.
const LOOKED_AT: u64 = 8;
/// Shots that samples are of, and the most frames of a sample.
const SAMPLES: usize = 4;
const SAMPLE: u64 = 48;
/// What a smaller size has to save, of the bytes: a viewer must enlarge it.
const LEAST_GAIN: f64 = 0.03;
const KEPT: &str = "sizes.json";

/// A size that could be taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The size.
    pub size: Size,
    /// Of coded pictures.
    pub width: u32,
    /// Of coded pictures.
    pub height: u32,
    /// The score of the shot that scaling alone costs most; none at full size.
    pub scaled: Option<f64>,
    /// Whether all shots that were looked at can have the target.
    pub in_reach: bool,
    /// Of the film, by the samples, at the target. None where nothing had to be compared.
    pub bytes: Option<u64>,
}

/// What was chosen, and from what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The largest one first.
    pub candidates: Vec<Candidate>,
    /// Which of them.
    pub chosen: usize,
    /// The score that scaling alone leaves of each shot; none at full size.
    pub scaled: Option<Vec<f64>>,
}

/// Bytes of a shot at the target: between, or a bit beyond, its two codings nearest to it.
fn bytes_at(shot: &report::Shot, target: Target) -> f64 {
    let mut tries: Vec<_> = shot.tries().collect();
    tries.sort_by(|a, b| a.miss(target).total_cmp(&b.miss(target)));
    let log = |v| target.metric.log(v);
    let bytes = |i: usize| (tries[i].bytes.max(1) as f64).ln();
    let share = match tries[..] {
        [a, b, ..] => (log(target.value) - log(a.score)) / (log(b.score) - log(a.score)),
        _ => 0.0,
    };
    if share == 0.0 || !share.is_finite() {
        return bytes(0).exp();
    }
    (bytes(0) + share.clamp(-1.0, 1.0) * (bytes(1) - bytes(0))).exp()
}

/// The cheapest of those in reach, the largest one where none is.
fn choose(candidates: &[Candidate]) -> usize {
    let mut in_reach = (0..candidates.len()).filter(|i| candidates[*i].in_reach);
    let first = in_reach.next().unwrap_or(0);
    let bytes = |i: usize| {
        candidates[i]
            .bytes
            .map_or(f64::INFINITY, |bytes| bytes as f64)
    };
    in_reach.fold(first, |best, next| {
        if bytes(next) < (1.0 - LEAST_GAIN) * bytes(best) {
            next
        } else {
            best
        }
    })
}

/// Numbers of the shots that samples are of: evenly spread.
fn samples(count: usize) -> Vec<usize> {
    let n = count.min(SAMPLES);
    (0..n).map(|i| (2 * i + 1) * count / (2 * n)).collect()
}

/// The beginnings of some shots of a plan.
fn beginnings(plan: &Plan, of: impl Iterator<Item = usize>, most: u64) -> Plan {
    let shots = of.map(|i| Shot {
        frames: plan.shots[i].frames.min(most),
        ..plan.shots[i].clone()
    });
    Plan {
        video: plan.video.clone(),
        uncropped: plan.uncropped,
        tracks: Vec::new(),
        shots: shots.collect(),
    }
}

/// Gathers what `of` finds in shots of a job, each kept in the folder under `name` and its number:
/// a run that was killed goes on from there.
fn each<T: Serialize + serde::de::DeserializeOwned + Send>(
    job: &Job<'_>,
    source: &Source<'_>,
    name: &'static str,
    wanted: &[usize],
    of: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let file = |index: &usize| format!("{name}{index:06}.json");
    let mut left = Vec::new();
    for index in wanted {
        if job.folder.read::<T>(&file(index))?.is_none() {
            left.push(*index);
        }
    }
    let total = left.iter().map(|i| job.plan.shots[*i].frames).sum();
    let mut progress = Progress::new(name, Some(total));
    for_each(job, source, &left, &mut progress, |index| {
        job.folder.keep(&file(&index), &of(index)?)
    })?;
    progress.finish();
    let gone = || Failure::file(job.folder.path(), "what was found is gone from it");
    let all = wanted
        .iter()
        .map(|i| job.folder.read(&file(i))?.ok_or_else(gone));
    all.collect()
}

/// The candidates' search.
struct Search<'a> {
    job: &'a Job<'a>,
    source: &'a Source<'a>,
    codings: Vec<Coding>,
    candidates: Vec<Candidate>,
    /// Scores of scaling alone: of candidates, of shots.
    scaled: Vec<Vec<Option<f64>>>,
}

impl Search<'_> {
    /// Scales the beginnings of some shots, for some candidates.
    fn look(&mut self, shots: &[usize], of: &[usize]) -> Result<()> {
        let of: Vec<usize> = of
            .iter()
            .copied()
            .filter(|c| self.codings[*c].size != Size::Full)
            .collect();
        if of.is_empty() || shots.is_empty() {
            return Ok(());
        }
        let job = self.job;
        let plan = beginnings(job.plan, 0..job.plan.shots.len(), LOOKED_AT);
        let looking = job.with(&plan, job.coding, None);
        let found = each(&looking, self.source, "scale", shots, |index| {
            let score = |c: &usize| {
                let (folder, raw) = (job.folder.path(), raw_of(index));
                let scores = self.codings[*c].measure_scaled(folder, &raw, &plan.video)?;
                looking.score(&scores)
            };
            of.iter().map(score).collect::<Result<Vec<f64>>>()
        })?;
        let wanted = job.target.value - job.tolerance;
        for (index, scores) in shots.iter().zip(found) {
            for (c, score) in of.iter().zip(scores) {
                self.scaled[*c][*index] = Some(score);
                let candidate = &mut self.candidates[*c];
                candidate.scaled = Some(candidate.scaled.map_or(score, |s| s.min(score)));
                candidate.in_reach &= score >= wanted;
            }
        }
        Ok(())
    }

    fn in_reach(&self) -> Vec<usize> {
        (0..self.candidates.len())
            .filter(|c| self.candidates[*c].in_reach)
            .collect()
    }

    /// Codes samples at the sizes that are in reach.
    fn sample(&mut self, shots: &[usize]) -> Result<()> {
        let (job, of) = (self.job, self.in_reach());
        let plan = beginnings(job.plan, shots.iter().copied(), SAMPLE);
        let scaled: Vec<Option<Vec<f64>>> = of
            .iter()
            .map(|c| shots.iter().map(|i| self.scaled[*c][*i]).collect())
            .collect();
        let sampling = job.with(&plan, job.coding, None);
        let all: Vec<usize> = (0..shots.len()).collect();
        let found = each(&sampling, self.source, "sample", &all, |n| {
            let code = |(c, scaled): (&usize, &Option<Vec<f64>>)| {
                let mut job = job.with(&plan, &self.codings[*c], scaled.as_deref());
                // Bytes are compared at one quality.
                job.tolerance /= 2.0;
                let name = format!("sample{n:06}");
                let shot = job.shot(n, &name)?;
                let file = format!("{name}.{}", job.coding.codec.facts().ending);
                std::fs::remove_file(job.folder.path().join(file))?;
                Ok(shot)
            };
            of.iter()
                .zip(&scaled)
                .map(code)
                .collect::<Result<Vec<report::Shot>>>()
        })?;
        let frames: u64 = plan.frames();
        let part = job.plan.frames() as f64 / frames as f64;
        for (i, c) in of.iter().enumerate() {
            let candidate = &mut self.candidates[*c];
            let shots = found.iter().map(|sizes| &sizes[i]);
            let wanted = job.target.value - job.tolerance;
            let lowest = job.coding.codec.facts().quantizers.0;
            // A sample that misses though quantizers are left tells bytes all the same.
            candidate.in_reach = shots.clone().all(|shot| {
                let best = shot.best(job.target);
                best.score >= wanted || best.quantizer > lowest
            });
            let bytes: f64 = shots.map(|s| bytes_at(s, job.target)).sum();
            candidate.bytes = candidate.in_reach.then_some((part * bytes) as u64);
        }
        Ok(())
    }
}

impl Choice {
    /// Chooses among sizes, the largest one first, for a job at full size.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub fn make(job: &Job<'_>, source: &Source<'_>, sizes: &[Size]) -> Result<Self> {
        if let Some(kept) = job.folder.read(KEPT)? {
            return Ok(kept);
        }
        let count = job.plan.shots.len();
        let mut search = Search {
            job,
            source,
            codings: Vec::new(),
            candidates: Vec::new(),
            scaled: Vec::new(),
        };
        for &size in sizes {
            let Some(small) = size.of(&job.plan.video) else {
                continue;
            };
            search.codings.push(Coding {
                size,
                ..job.coding.clone()
            });
            search.scaled.push(vec![None; count]);
            search.candidates.push(Candidate {
                size,
                width: small.width,
                height: small.height,
                scaled: None,
                in_reach: true,
                bytes: None,
            });
        }
        if search.candidates.is_empty() {
            let (width, height) = (job.plan.video.width, job.plan.video.height);
            return Err(Failure::Input(format!(
                "--sizes: pictures of {width}x{height} are not coded smaller: their sides must be \
                 even, and {} or more when scaled; add 1 to the list",
                Size::SHORTEST_SIDE
            )));
        }
        let sampled = samples(count);
        let all: Vec<usize> = (0..search.candidates.len()).collect();
        search.look(&sampled, &all)?;
        // The largest one is taken where none is in reach.
        let mut of = search.in_reach();
        if !of.contains(&0) {
            of.push(0);
        }
        let rest: Vec<usize> = (0..count).filter(|i| !sampled.contains(i)).collect();
        search.look(&rest, &of)?;
        if search.in_reach().len() > 1 {
            search.sample(&sampled)?;
        }
        let chosen = choose(&search.candidates);
        let scaled = search.scaled.swap_remove(chosen).into_iter().collect();
        let choice = Self {
            candidates: search.candidates,
            chosen,
            scaled,
        };
        job.folder.keep(KEPT, &choice)?;
        Ok(choice)
    }

    /// The size.
    pub fn size(&self) -> Size {
        self.candidates[self.chosen].size
    }

    /// What it is, and what the others would have cost.
    pub fn text(&self, target: Target) -> String {
        let each = self.candidates.iter().map(|c| {
            let digits = target.metric.digits();
            let what = match (c.bytes, c.scaled) {
                (Some(bytes), _) => format!("about {bytes} bytes"),
                (None, Some(scaled)) if !c.in_reach => {
                    format!("out of reach, a shot has {scaled:.digits$} uncoded")
                }
                (None, _) if !c.in_reach => "out of reach".into(),
                _ => "no other in reach".into(),
            };
            format!("{} ({}x{}) {what}", c.size.name(), c.width, c.height)
        });
        let each: Vec<String> = each.collect();
        format!("size {} chosen: {}", self.size().name(), each.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Try;
    use super::super::target::Metric;
    use super::*;

    fn candidate(size: Size, bytes: Option<u64>) -> Candidate {
        Candidate {
            size,
            width: 128,
            height: 128,
            scaled: Some(60.0),
            in_reach: bytes.is_some(),
            bytes,
        }
    }

    #[test]
    fn the_cheapest_in_reach_is_chosen_if_it_saves_enough() {
        let of = |bytes: [Option<u64>; 3]| {
            let sizes = [Size::Full, Size::ThreeQuarters, Size::Half];
            choose(&[0, 1, 2].map(|i| candidate(sizes[i], bytes[i])))
        };
        assert_eq!(of([Some(1000), Some(900), Some(800)]), 2);
        assert_eq!(of([Some(1000), Some(900), Some(890)]), 1);
        assert_eq!(of([Some(1000), Some(980), None]), 0);
        assert_eq!(of([Some(1000), None, Some(960)]), 2);
        assert_eq!(of([None, None, None]), 0);
        // What is alone in reach was not sampled.
        let alone = Candidate {
            in_reach: true,
            ..candidate(Size::Half, None)
        };
        assert_eq!(choose(&[candidate(Size::ThreeQuarters, None), alone]), 1);
    }

    #[test]
    fn bytes_are_told_at_the_target() {
        let target = Target {
            metric: Metric::Psnr,
            value: 40.0,
        };
        let tried = |score, bytes| Try {
            quantizer: 30.0,
            score,
            bytes,
        };
        let mut shot = report::Shot {
            first: 0,
            frames: 1,
            predicted: tried(42.0, 4000),
            corrected: Vec::new(),
        };
        assert!((bytes_at(&shot, target) - 4000.0).abs() < 1e-6);
        shot.corrected.push(tried(38.0, 1000));
        assert!((bytes_at(&shot, target) - 2000.0).abs() < 1e-6);
        shot.corrected.push(tried(42.0, 4000));
        assert!(bytes_at(&shot, target).is_finite());
    }

    #[test]
    fn samples_are_spread() {
        assert_eq!(samples(1), [0]);
        assert_eq!(samples(3), [0, 1, 2]);
        assert_eq!(samples(100), [12, 37, 62, 87]);
    }
}

// SPDX-License-Identifier: MPL-2.0
//! The way of ab-av1, to compare with: samples are coded with one quantizer after the other until
//! the measure is met, then the whole film is coded with that one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use serde::Serialize;

use super::feed::for_each;
use super::progress::Progress;
use super::report::Try;
use super::source::Source;
use super::work::Job;
use crate::failure::Result;

/// A sample's length in seconds, and how much of the film each one stands for.
const SAMPLE: f64 = 20.0;
const STANDS_FOR: f64 = 12.0 * 60.0;
/// How far above the target the first probe may be, in tolerances of the measure (1 of VMAF); each
/// further one twice as far.
const ABOVE: f64 = 0.1;

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Probing {
    /// Of probes and the last coding. The last measurement, which only the comparison needs, is
    /// left out.
    pub seconds: f64,
    /// The quantizer of all.
    pub quantizer: f64,
    /// Mean over all frames.
    pub score: f64,
    /// Of the coded shots.
    pub bytes: u64,
    /// Of shots, probes and all.
    pub codings: usize,
}

/// Looks for the highest whole quantizer whose score is not below `target`. `score` codes and
/// measures.
fn find(
    (low, high): (i64, i64),
    target: f64,
    above: f64,
    mut score: impl FnMut(i64) -> Result<f64>,
) -> Result<i64> {
    let mut seen: BTreeMap<i64, f64> = BTreeMap::new();
    let mut q = i64::midpoint(low, high);
    for run in 0.. {
        let found = score(q)?;
        seen.insert(q, found);
        let good = found >= target;
        if good && found - target < above * f64::from(1 << run.min(20)) {
            break;
        }
        let below = seen.range(..q).next_back().map(|(q, v)| (*q, *v));
        let beyond = seen.range(q + 1..).next().map(|(q, v)| (*q, *v));
        let (better, worse) = if good {
            (Some((q, found)), beyond)
        } else {
            (below, Some((q, found)))
        };
        q = match (better, worse) {
            // Next to each other: the better one is what was looked for.
            (Some((better, _)), Some((worse, _))) if better + 1 >= worse => return Ok(better),
            (Some((better, high)), Some((worse, low))) => {
                let share = (high - target) / (high - low).max(1e-9);
                let guess = better as f64 + share * (worse - better) as f64;
                (guess.round() as i64).clamp(better + 1, worse - 1)
            }
            (Some((better, _)), None) if better == high => return Ok(better),
            (Some((better, _)), None) if run == 0 => i64::midpoint(better, high).max(better + 1),
            (Some(_), None) => high,
            (None, Some((worse, _))) if worse == low => return Ok(worse),
            (None, Some((worse, _))) if run == 0 => i64::midpoint(low, worse).min(worse - 1),
            (None, _) => low,
        };
    }
    Ok(q)
}

/// Numbers of the shots that samples are made of.
fn samples(job: &Job<'_>) -> Vec<usize> {
    let fps = job.plan.video.fps();
    let total = job.plan.frames() as f64 / fps;
    let count = (total / STANDS_FOR).ceil().max(1.0);
    // Samples that are nearly all of it are all of it.
    if count * SAMPLE > 0.85 * total {
        return (0..job.plan.shots.len()).collect();
    }
    let apart = total / count;
    let inside = |i: &usize| {
        let at = job.plan.shots[*i].first as f64 / fps;
        let middle = (at / apart).floor() * apart + apart / 2.0;
        (middle - SAMPLE / 2.0..middle + SAMPLE / 2.0).contains(&at)
    };
    let chosen: Vec<usize> = (0..job.plan.shots.len()).filter(inside).collect();
    match chosen.is_empty() {
        true => vec![job.plan.shots.len() / 2],
        false => chosen,
    }
}

/// Codes shots with one quantizer. Returns the mean over their frames, and their bytes.
fn code(job: &Job<'_>, source: &Source<'_>, shots: &[usize], q: f64) -> Result<(f64, u64)> {
    let all: Mutex<Vec<(u64, Try)>> = Mutex::default();
    let frames = |i: &usize| job.plan.shots[*i].frames;
    let total = shots.iter().map(frames).sum::<u64>();
    let mut progress = Progress::new("probe", Some(total));
    let ending = job.coding.codec.facts().ending;
    for_each(job, source, shots, &mut progress, |index| {
        let out = format!("probe{index:06}.{ending}");
        let found = job.attempt(index, q, &out)?;
        std::fs::remove_file(job.folder.path().join(&out))?;
        if let Ok(mut all) = all.lock() {
            all.push((frames(&index), found));
        }
        Ok(())
    })?;
    progress.finish();
    let all = all.into_inner().unwrap_or_default();
    let score = all.iter().map(|(n, t)| *n as f64 * t.score).sum::<f64>() / total.max(1) as f64;
    Ok((score, all.iter().map(|(_, t)| t.bytes).sum()))
}

/// Codes the shots of a job in that way.
///
/// # Errors
/// As [`Job::run`].
pub fn run(job: &Job<'_>, source: &Source<'_>) -> Result<Probing> {
    let samples = samples(job);
    let (low, high) = job.coding.codec.facts().quantizers;
    let above = ABOVE * job.target.metric.tolerance();
    let started = Instant::now();
    let mut codings = 0;
    let quantizer = find((low as i64, high as i64), job.target.value, above, |q| {
        codings += samples.len();
        Ok(code(job, source, &samples, q as f64)?.0)
    })? as f64;
    let mut seconds = started.elapsed().as_secs_f64();
    let all: Vec<usize> = (0..job.plan.shots.len()).collect();
    let measured = job.measured_seconds();
    let started = Instant::now();
    let (score, bytes) = code(job, source, &all, quantizer)?;
    let measuring = job.measured_seconds() - measured;
    // Shots are measured side by side, as they are coded.
    seconds += started.elapsed().as_secs_f64() - measuring / job.jobs.min(all.len()) as f64;
    Ok(Probing {
        seconds,
        quantizer,
        score,
        bytes,
        codings: codings + all.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_ends_at_the_best_whole_quantizer() {
        let mut worst = 0;
        for target in 20..100 {
            let score = |q: i64| 100.0 - 0.03 * (q * q) as f64 / 2.0;
            let mut probes = 0;
            let q = find((6, 50), f64::from(target), 1e-6, |q| {
                probes += 1;
                Ok(score(q))
            })
            .unwrap();
            worst = worst.max(probes);
            assert!(score(q) >= f64::from(target) || q == 6, "{target}: {q}");
            let next = score(q + 1) - f64::from(target);
            assert!(q == 50 || next < 1.0, "{target}: {q}, {next}");
        }
        assert!(worst < 12, "{worst} probes");
    }

    #[test]
    fn nothing_in_reach_ends_too() {
        assert_eq!(find((6, 50), 93.0, 0.1, |_| Ok(50.0)).unwrap(), 6);
        assert_eq!(find((6, 50), 93.0, 0.1, |_| Ok(100.0)).unwrap(), 50);
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Shots in work: one thread reads the source, others code, measure and correct.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::folder::Folder;
use super::plan::{Plan, Shot};
use super::predict::Predictor;
use super::progress::Progress;
use super::report::{self, Try};
use super::shot::{Coding, RawWriter};
use super::source::Source;
use super::target::Target;
use crate::failure::{Failure, Result};

/// How long the progress waits for news.
const PAUSE: Duration = Duration::from_millis(200);

/// All that shots are coded by.
pub struct Job<'a> {
    /// The shots.
    pub plan: &'a Plan,
    /// Where they are coded.
    pub folder: &'a Folder,
    /// How.
    pub coding: &'a Coding,
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

/// Name of the file of a shot's frames.
fn raw_of(index: usize) -> String {
    format!("{}.raw", Folder::name(index))
}

impl Job<'_> {
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
            let shot = self.shot(index)?;
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

    /// Codes a shot, measures it, and corrects it once.
    fn shot(&self, index: usize) -> Result<report::Shot> {
        let Shot {
            first,
            frames,
            features,
        } = &self.plan.shots[index];
        let (target, codec) = (self.target, self.coding.codec);
        let curve = self.predictor.curve(features, target.metric)?;
        let ending = codec.facts().ending;
        let kept = format!("{}.{ending}", Folder::name(index));
        let q = self.predictor.quantizer(&curve, target);
        let predicted = self.attempt(index, q, &kept)?;
        let mut shot = report::Shot {
            first: *first,
            frames: *frames,
            predicted,
            corrected: None,
        };
        if (predicted.score - target.value).abs() > self.tolerance {
            let log = |v| target.metric.log(v);
            let again = codec.nearest(curve.corrected(q, log(predicted.score), log(target.value)));
            if again != q {
                let second = format!("{}.again.{ending}", Folder::name(index));
                let corrected = self.attempt(index, again, &second)?;
                shot.corrected = Some(corrected);
                let path = self.folder.path();
                if shot.best(target) == corrected {
                    std::fs::rename(path.join(&second), path.join(&kept))?;
                } else {
                    std::fs::remove_file(path.join(&second))?;
                }
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
        let metric = self.target.metric;
        let score = scores.get(&metric).copied().ok_or_else(|| {
            Failure::Input(format!(
                "pictures of {}x{} are too small for {}: take another measure",
                video.width,
                video.height,
                metric.name()
            ))
        })?;
        Ok(Try {
            quantizer,
            score,
            bytes,
        })
    }
}

/// Hands over the frames of the shots `wanted`, each in a file that is gone when `of` returns.
/// As many are in work at once as the job says, and one more is written meanwhile.
///
/// # Errors
/// The first thing that went wrong.
pub fn for_each(
    job: &Job<'_>,
    source: &Source<'_>,
    wanted: &[usize],
    progress: &mut Progress,
    of: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let (folder, jobs) = (job.folder.path(), job.jobs.min(wanted.len()));
    // No room: a shot is handed over when a worker is free.
    let (give, take) = sync_channel::<usize>(0);
    let take = Mutex::new(take);
    let (failed, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let (tell, told) = sync_channel::<Failure>(jobs + 1);
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (take, of, failed, done, tell) = (&take, &of, &failed, &done, tell.clone());
            scope.spawn(move || {
                while let Some(index) = next(take, failed) {
                    let result = of(index);
                    let _ = std::fs::remove_file(folder.join(raw_of(index)));
                    match result {
                        Ok(()) => {
                            done.fetch_add(job.plan.shots[index].frames, Ordering::Relaxed);
                        }
                        Err(failure) => {
                            failed.store(true, Ordering::Relaxed);
                            let _ = tell.send(failure);
                            return;
                        }
                    }
                }
            });
        }
        let (failed, reader_tells) = (&failed, tell.clone());
        scope.spawn(move || {
            if let Err(failure) = read(job, source, wanted, &give, failed) {
                failed.store(true, Ordering::Relaxed);
                let _ = reader_tells.send(failure);
            }
        });
        drop(tell);
        loop {
            match told.recv_timeout(PAUSE) {
                Ok(failure) => return Err(failure),
                Err(RecvTimeoutError::Timeout) => progress.frames(done.load(Ordering::Relaxed)),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    })
}

/// The next shot, unless something went wrong or there are no more.
fn next(take: &Mutex<Receiver<usize>>, failed: &AtomicBool) -> Option<usize> {
    loop {
        if failed.load(Ordering::Relaxed) {
            return None;
        }
        let take = take.lock().unwrap_or_else(PoisonError::into_inner);
        match take.recv_timeout(PAUSE) {
            Ok(index) => return Some(index),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Reads the source and writes the frames of each shot that is wanted.
fn read(
    job: &Job<'_>,
    source: &Source<'_>,
    wanted: &[usize],
    give: &SyncSender<usize>,
    failed: &AtomicBool,
) -> Result<()> {
    let mut frames = source.frames()?;
    let mut at = 0;
    for &index in wanted {
        let shot = &job.plan.shots[index];
        let gone = || {
            Failure::Input(format!(
                "the source ends at frame {at}, and had more when it was first read: remove {} to \
                 begin anew",
                job.folder.path().display()
            ))
        };
        let skip = shot.first - at;
        for _ in 0..skip {
            frames.next()?.ok_or_else(gone)?;
        }
        let mut raw = RawWriter::new(&job.folder.path().join(raw_of(index)), &job.plan.video)?;
        for _ in 0..shot.frames {
            if failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            raw.add(&frames.next()?.ok_or_else(gone)?)?;
        }
        at = shot.first + shot.frames;
        raw.finish()?;
        if !hand_over(give, index, failed) {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits for a free worker; false where there will be none.
fn hand_over(give: &SyncSender<usize>, mut index: usize, failed: &AtomicBool) -> bool {
    use std::sync::mpsc::TrySendError;
    loop {
        match give.try_send(index) {
            Ok(()) => return true,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(back)) => index = back,
        }
        if failed.load(Ordering::Relaxed) {
            return false;
        }
        thread::sleep(PAUSE / 10);
    }
}

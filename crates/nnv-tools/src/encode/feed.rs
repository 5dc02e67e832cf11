// SPDX-License-Identifier: MPL-2.0
//! Shots handed out: one thread reads the source, others work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::folder::Folder;
use super::progress::Progress;
use super::shot::RawWriter;
use super::source::Source;
use super::work::Job;
use crate::failure::{Failure, Result};

/// How long the progress waits for news.
const PAUSE: Duration = Duration::from_millis(200);

/// Name of the file of a shot's frames.
pub fn raw_of(index: usize) -> String {
    format!("{}.raw", Folder::name(index))
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

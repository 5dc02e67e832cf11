// SPDX-License-Identifier: MPL-2.0
//! Aborting a running inference from another thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use nnv_cpu::parallel::SPAWNS;

/// How a back end stops a run.
type Abort = Box<dyn Fn() + Send>;

#[derive(Default)]
struct State {
    cancelled: bool,
    /// Runs in progress, by number.
    running: Vec<(u64, Abort)>,
    next: u64,
}

/// Aborts the inference of whoever runs under this handle. Clones share one state.
///
/// [`cancel`](Self::cancel) makes the run in progress return
/// [`NnError::Cancelled`](super::NnError::Cancelled) as soon as the back end leaves the operator at
/// hand, and every later run at once, until [`reset`](Self::reset).
#[derive(Clone, Default)]
pub struct Cancel(Arc<Mutex<State>>);

/// A run in progress, which can be aborted until this is dropped.
pub struct Running<'a> {
    cancel: &'a Cancel,
    number: u64,
}

impl Cancel {
    /// A handle that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Aborts the runs in progress and refuses new ones.
    pub fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        state.running.iter().for_each(|(_, abort)| abort());
    }

    /// Allows new runs. A run that was already aborted stays aborted.
    pub fn reset(&self) {
        self.lock().cancelled = false;
    }

    /// True between [`cancel`](Self::cancel) and [`reset`](Self::reset).
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// For back ends: a run begins that `abort` stops, from any thread and at any time. `None`
    /// where it must not begin.
    pub fn enter(&self, abort: impl Fn() + Send + 'static) -> Option<Running<'_>> {
        let mut state = self.lock();
        if state.cancelled {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.running.push((number, Box::new(abort)));
        Some(Running {
            cancel: self,
            number,
        })
    }

    /// Runs something under a handle of its own that is cancelled after `limit`. `None` where that
    /// happened.
    pub(crate) fn after<T>(limit: Duration, run: impl FnOnce(&Cancel) -> T) -> Option<T> {
        let cancel = Cancel::new();
        if !SPAWNS {
            // Nobody is there to cancel it; a page can end the whole worker.
            return Some(run(&cancel));
        }
        let (done, waiting) = mpsc::channel::<()>();
        let handle = cancel.clone();
        let result = std::thread::scope(|scope| {
            scope.spawn(move || {
                if waiting.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                    handle.cancel();
                }
            });
            let result = run(&cancel);
            drop(done);
            result
        });
        (!cancel.is_cancelled()).then_some(result)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.cancel.lock();
        state.running.retain(|(number, _)| *number != self.number);
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancel")
            .field("cancelled", &self.is_cancelled())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn cancel_is_shared_and_resettable() {
        let a = Cancel::new();
        let b = a.clone();
        assert!(!b.is_cancelled());
        a.cancel();
        assert!(b.is_cancelled());
        assert!(b.enter(|| ()).is_none());
        b.reset();
        assert!(!a.is_cancelled());
        assert!(a.enter(|| ()).is_some());
    }

    #[test]
    fn a_run_that_does_not_end_is_aborted_in_time() {
        let endless = |cancel: &Cancel| {
            let (abort, aborted) = mpsc::channel();
            let running = cancel.enter(move || abort.send(()).unwrap());
            aborted.recv().unwrap();
            drop(running);
        };
        assert_eq!(Cancel::after(Duration::from_millis(20), endless), None);
        assert_eq!(Cancel::after(Duration::from_secs(100), |_| 7), Some(7));
    }

    #[test]
    fn only_runs_in_progress_are_aborted() {
        let cancel = Cancel::new();
        let aborted = Arc::new(AtomicUsize::new(0));
        let count = |by| {
            let aborted = aborted.clone();
            move || {
                aborted.fetch_add(by, Ordering::Relaxed);
            }
        };
        drop(cancel.enter(count(1)));
        let running = cancel.enter(count(10));
        cancel.cancel();
        assert_eq!(aborted.load(Ordering::Relaxed), 10);
        drop(running);
        cancel.cancel();
        assert_eq!(aborted.load(Ordering::Relaxed), 10);
    }
}

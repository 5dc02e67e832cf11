// SPDX-License-Identifier: MPL-2.0
//! Aborting a running inference from another thread.

use std::sync::{Arc, Mutex, PoisonError};

use ort::session::RunOptions;

use super::error::{NnError, Result};

#[derive(Default)]
struct State {
    cancelled: bool,
    /// Shared by all runs under this handle; made with the first run, because ONNX Runtime must be loaded by then.
    options: Option<Arc<RunOptions>>,
}

/// Aborts the inference of whoever runs under this handle. Clones share one state.
///
/// [`cancel`](Self::cancel) makes the run in progress return [`NnError::Cancelled`] as soon as ONNX Runtime leaves
/// the operator at hand, and every later run at once, until [`reset`](Self::reset).
#[derive(Clone, Default)]
pub struct Cancel(Arc<Mutex<State>>);

impl Cancel {
    /// A handle that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Aborts the runs in progress and refuses new ones.
    pub fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        if let Some(options) = &state.options {
            // The only failure is a null pointer, which `RunOptions` cannot hold; the flag above refuses later runs.
            let _ = options.terminate();
        }
    }

    /// Allows new runs. A run that was already aborted stays aborted.
    pub fn reset(&self) {
        let mut state = self.lock();
        if state.cancelled {
            state.cancelled = false;
            // A run that still winds down keeps its own, terminated options.
            state.options = None;
        }
    }

    /// True between [`cancel`](Self::cancel) and [`reset`](Self::reset).
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// The options to run with, or [`NnError::Cancelled`]. ONNX Runtime must be loaded.
    pub(super) fn options(&self) -> Result<Arc<RunOptions>> {
        let mut state = self.lock();
        if state.cancelled {
            return Err(NnError::Cancelled);
        }
        match &state.options {
            Some(options) => Ok(options.clone()),
            None => {
                let options = RunOptions::new().map_err(|e| {
                    NnError::Input(format!("ONNX Runtime refused to make run options: {e}"))
                })?;
                Ok(state.options.insert(Arc::new(options)).clone())
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn cancel_is_shared_and_resettable() {
        let a = Cancel::new();
        let b = a.clone();
        assert!(!b.is_cancelled());
        a.cancel();
        assert!(b.is_cancelled());
        assert!(matches!(b.options(), Err(NnError::Cancelled)));
        b.reset();
        assert!(!a.is_cancelled());
    }
}

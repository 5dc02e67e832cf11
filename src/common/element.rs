// SPDX-License-Identifier: MPL-2.0
//! What encoder and decoder do alike: show their model, abort, post errors.

use std::sync::{Mutex, MutexGuard};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use nnv_codec::error::CodecError;
use nnv_codec::stages::StageTimes;
use nnv_nn::{Cancel, Model};

use super::{error_message, lock};

/// What read-only properties show, so that reading them never waits for a coder.
#[derive(Debug, Default)]
pub struct Shown {
    /// Provider that runs the networks now.
    pub provider: Option<&'static str>,
    /// Statistics since the last start.
    pub stats: Option<gst::Structure>,
}

/// An element around an encoder or a decoder.
pub trait CodecElement: ElementImpl
where
    Self::Type: IsA<gst::Element> + IsA<glib::Object>,
{
    /// What errors of the stream itself are called on the bus.
    const CODING: gst::StreamError;

    /// Name of the structure of statistics.
    const STATS: &'static str;

    /// What properties show.
    fn shown(&self) -> &Mutex<Shown>;

    /// Aborts the coder from other threads.
    fn cancel(&self) -> &Mutex<Option<Cancel>>;

    /// What properties show, locked.
    fn show(&self) -> MutexGuard<'_, Shown> {
        lock(self.shown())
    }

    /// Value of a property that [`Shown`] holds; `None` where `pspec` is not one of these.
    fn shown_property(&self, pspec: &glib::ParamSpec) -> Option<glib::Value> {
        let shown = self.show();
        match pspec.name() {
            "active-execution-provider" => Some(shown.provider.to_value()),
            "stats" => {
                let empty = || gst::Structure::new_empty(Self::STATS);
                Some(shown.stats.clone().unwrap_or_else(empty).to_value())
            }
            _ => None,
        }
    }

    /// Aborts the network that may be running.
    fn abort(&self) {
        if let Some(cancel) = &*lock(self.cancel()) {
            cancel.cancel();
        }
    }

    /// Shows where a model runs that was just loaded, and posts what was tried before.
    fn show_model(&self, model: &Model) {
        for warning in model.warnings() {
            gst::element_imp_warning!(self, gst::LibraryError::Settings, ("{warning}"));
        }
        self.show().provider = Some(model.active_provider().as_str());
        self.obj().notify("active-execution-provider");
    }

    /// The model is gone.
    fn show_no_model(&self) {
        self.show().provider = None;
        self.obj().notify("active-execution-provider");
    }

    /// Posts an error with what to do about it.
    fn post(&self, error: &CodecError) {
        self.post_error_message(error_message(error, Self::CODING));
    }

    /// Posts what went wrong; an abort is no error.
    fn check<T>(&self, result: Result<T, CodecError>) -> Result<T, gst::FlowError> {
        result.map_err(|e| {
            if e.is_cancelled() {
                return gst::FlowError::Flushing;
            }
            self.post(&e);
            gst::FlowError::Error
        })
    }
}

/// Adds the time per frame of each stage, in ms, to a structure of statistics.
pub fn add_times(stats: &mut gst::StructureRef, times: &StageTimes, frames: u64) {
    for (name, time) in [
        ("filter-ms", times.filter),
        ("search-ms", times.search),
        ("predict-ms", times.predict),
        ("pack-ms", times.pack),
        ("analyse-ms", times.analyse),
        ("prior-ms", times.prior),
        ("entropy-ms", times.entropy),
        ("synth-ms", times.synth),
        ("quantise-ms", times.quantise),
        ("measure-ms", times.measure),
    ] {
        stats.set(name, time.as_secs_f64() * 1e3 / frames.max(1) as f64);
    }
}

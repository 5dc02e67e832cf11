// SPDX-License-Identifier: MPL-2.0
//! Forecasts of a path's throughput: bundles of kind `network`.
//!
//! `bundle.toml` of such a bundle:
//!
//! ```toml
//! [bundle]
//! format = 1
//! kind = "network"
//! name = "network"
//!
//! [network]
//! file = "gru.onnx"
//! sha256 = "…"
//! state = 64                # values that go from one step to the next
//! step = 0.5                # seconds of an observation
//! horizons = [1.0, 2.0, 4.0]
//! quantiles = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
//! floor = 0.05              # Mbit/s; lower rates count as this
//! ```
//!
//! The graph takes `x`, float32 `[1, 1, 1, 2]` (natural logarithm of the observed rate in Mbit/s;
//! 1 where that was all the path could carry, 0 where no more was sent), and `h`, float32
//! `[1, 1, 1, state]`. It gives `q`, float32 `[1, 1, horizons, quantiles]` (logarithm of the mean
//! rate from now on, in Mbit/s), and `state`, shaped as `h`. Nothing of it is normative.

use serde::Deserialize;

use super::ModelSource;
use super::backend::{Backend, Element, Tensor};
use super::bundle::Kind;
use super::cancel::Cancel;
use super::error::{NnError, Result};
use super::graph::{Contract, Graph, elements};
use super::single::Single;

const MAX_STATE: usize = 1024;
const MAX_LIST: usize = 32;
/// Rates that an observation may have, in Mbit/s.
const MAX_RATE: f32 = 1e6;

#[derive(Deserialize)]
struct Manifest {
    network: Entry,
}

#[derive(Deserialize)]
struct Entry {
    file: String,
    sha256: String,
    state: usize,
    step: f32,
    horizons: Vec<f32>,
    quantiles: Vec<f32>,
    floor: f32,
}

impl Entry {
    fn check(&self) -> Result<(), String> {
        let rising = |list: &[f32], limit: f32| {
            (1..=MAX_LIST).contains(&list.len())
                && list.iter().all(|v| *v > 0.0 && *v < limit)
                && list.is_sorted_by(|a, b| a < b)
        };
        if !(1..=MAX_STATE).contains(&self.state) {
            return Err(format!(
                "state is {}, it must be within 1..={MAX_STATE}",
                self.state
            ));
        }
        if !(0.01..=60.0).contains(&self.step) {
            return Err(format!(
                "step is {} s, it must be within 0.01 to 60",
                self.step
            ));
        }
        if !(1e-6..=1e3).contains(&self.floor) {
            return Err(format!(
                "floor is {} Mbit/s, it must be within 1e-6 to 1e3",
                self.floor
            ));
        }
        if !rising(&self.horizons, 3600.0) {
            return Err("horizons must be rising seconds below 3600".into());
        }
        if !rising(&self.quantiles, 1.0) {
            return Err("quantiles must rise between 0 and 1".into());
        }
        Ok(())
    }
}

/// A network that forecasts throughput.
#[derive(Debug)]
pub struct ThroughputModel {
    graph: Graph,
    entry: Facts,
}

#[derive(Debug)]
struct Facts {
    state: usize,
    step: f32,
    horizons: Vec<f32>,
    quantiles: Vec<f32>,
    floor: f32,
}

/// What the network remembers of a path. A new path begins with [`ThroughputModel::start`].
#[derive(Debug, Clone, PartialEq)]
pub struct ThroughputState(Vec<f32>);

impl ThroughputModel {
    /// Loads a bundle of kind `network`; it runs on one thread of the CPU.
    ///
    /// # Errors
    /// [`NnError::Runtime`] without ONNX Runtime; [`NnError::UnknownModel`] and
    /// [`NnError::Bundle`] for what is wrong with the bundle; [`NnError::Provider`] and
    /// [`NnError::Run`] when it does not run.
    #[cfg(feature = "onnxruntime")]
    pub fn load(source: &ModelSource) -> Result<Self> {
        Self::load_on(&super::onnxruntime::OnnxRuntime::get()?, source)
    }

    /// As `load` does with ONNX Runtime, on any back end.
    ///
    /// # Errors
    /// [`NnError::UnknownModel`] and [`NnError::Bundle`] for what is wrong with the bundle;
    /// [`NnError::Provider`] and [`NnError::Run`] when it does not run.
    pub fn load_on(backend: &dyn Backend, source: &ModelSource) -> Result<Self> {
        let (manifest, file) = Single::open(source, Kind::Network, |manifest: &Manifest| {
            let entry = &manifest.network;
            entry.check().map(|()| (&*entry.file, &*entry.sha256))
        })?;
        let entry = manifest.network;
        let f32 = Some(Element::F32);
        let contract = Contract {
            may_take: &[("x", f32), ("h", f32)],
            must_give: &[("q", f32), ("state", f32)],
            channels: &|_| Some(1),
        };
        let graph = file.build(backend, "network", &contract)?;
        let model = Self {
            graph,
            entry: Facts {
                state: entry.state,
                step: entry.step,
                horizons: entry.horizons,
                quantiles: entry.quantiles,
                floor: entry.floor,
            },
        };
        // Only a run shows that the shapes are those of the manifest.
        model
            .graph
            .run_in_time(|cancel| model.run(&mut model.start(), 1.0, true, cancel).map(drop))?;
        Ok(model)
    }

    /// Seconds that an observation covers.
    pub fn step(&self) -> f32 {
        self.entry.step
    }

    /// Seconds ahead that forecasts are for, ascending.
    pub fn horizons(&self) -> &[f32] {
        &self.entry.horizons
    }

    /// Probabilities of the quantiles, ascending.
    pub fn quantiles(&self) -> &[f32] {
        &self.entry.quantiles
    }

    /// The state before the first observation.
    pub fn start(&self) -> ThroughputState {
        ThroughputState(vec![0.0; self.entry.state])
    }

    /// Takes the mean rate of the last [`step`](Self::step) in Mbit/s, and whether it was all that
    /// the path could carry. Returns, for each horizon, the quantiles of the mean rate from now
    /// on, in Mbit/s, ascending. A rate that is no number counts as none at all.
    ///
    /// # Errors
    /// [`NnError::Run`]; the state is then as it was.
    pub fn observe(
        &self,
        state: &mut ThroughputState,
        rate: f32,
        all: bool,
    ) -> Result<Vec<Vec<f32>>> {
        self.run(state, rate, all, &Cancel::new())
    }

    fn run(
        &self,
        state: &mut ThroughputState,
        rate: f32,
        all: bool,
        cancel: &Cancel,
    ) -> Result<Vec<Vec<f32>>> {
        let Facts {
            horizons,
            quantiles,
            floor,
            ..
        } = &self.entry;
        if state.0.len() != self.entry.state {
            return Err(NnError::Input("the state is another network's".into()));
        }
        // `max` takes the floor for a NaN.
        let x = [
            rate.max(*floor).min(MAX_RATE).ln(),
            f32::from(u8::from(all)),
        ];
        let feed = |name: &str| {
            Some(match name {
                "x" => Tensor::new([1, 1, 1, 2], &x[..]),
                _ => Tensor::new([1, 1, 1, state.0.len()], &state.0[..]),
            })
        };
        let [q, next] = self.graph.run(feed, ["q", "state"], cancel)?;
        let fail = |what| self.graph.failed(what);
        let shape = [1, 1, horizons.len(), quantiles.len()];
        let q = elements::<f32>(&*q, shape).map_err(fail)?;
        let next = elements::<f32>(&*next, [1, 1, 1, state.0.len()]).map_err(fail)?;
        if q.iter().chain(next).any(|v| !v.is_finite()) {
            return Err(fail("it gave something that is no number".into()));
        }
        let rates = q
            .chunks_exact(quantiles.len())
            .map(|row| row.iter().map(|v| v.exp().min(MAX_RATE)).collect())
            .collect();
        state.0.copy_from_slice(next);
        Ok(rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            file: "gru.onnx".into(),
            sha256: "0".repeat(64),
            state: 64,
            step: 0.5,
            horizons: vec![1.0, 2.0],
            quantiles: vec![0.1, 0.5],
            floor: 0.05,
        }
    }

    #[test]
    fn hostile_entries_are_refused() {
        assert_eq!(entry().check(), Ok(()));
        type Change = fn(&mut Entry);
        let cases: [(Change, &str); 8] = [
            (|e| e.state = 0, "state"),
            (|e| e.state = usize::MAX, "state"),
            (|e| e.step = f32::NAN, "step"),
            (|e| e.floor = 0.0, "floor"),
            (|e| e.horizons.clear(), "horizons"),
            (|e| e.horizons = vec![2.0, 1.0], "horizons"),
            (|e| e.quantiles = vec![0.5, 1.0], "quantiles"),
            (|e| e.quantiles = vec![0.1; 40], "quantiles"),
        ];
        for (change, expected) in cases {
            let mut entry = entry();
            change(&mut entry);
            let error = entry.check().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[cfg(feature = "onnxruntime")]
    #[test]
    fn the_forecast_that_ships_follows_what_it_sees() {
        let model = ThroughputModel::load(&ModelSource::Embedded("network".into())).unwrap();
        let mut state = model.start();
        let mut seen = Vec::new();
        for rate in [2.0, f32::NAN, f32::INFINITY, -1.0] {
            let got = model.observe(&mut state, rate, true).unwrap();
            assert_eq!(got.len(), model.horizons().len());
            for row in &got {
                assert!(
                    row.is_sorted() && row.iter().all(|v| v.is_finite()),
                    "{row:?}"
                );
            }
        }
        let middle = model.quantiles().iter().position(|q| *q == 0.5).unwrap();
        for rate in [0.3, 4.0] {
            for _ in 0..40 {
                seen = model.observe(&mut state, rate, true).unwrap();
            }
            // A path that has been steady for 20 s is forecast to stay about so.
            assert!(
                (seen[0][middle] / rate).ln().abs() < 0.15,
                "{rate}: {seen:?}"
            );
        }
    }
}

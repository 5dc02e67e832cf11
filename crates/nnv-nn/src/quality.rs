// SPDX-License-Identifier: MPL-2.0
//! What decoded video is worth, told without its original: bundles of kind `quality`.
//!
//! `bundle.toml` of such a bundle:
//!
//! ```toml
//! [bundle]
//! format = 1
//! kind = "quality"
//! name = "quality"
//!
//! [quality]
//! file = "quality.onnx"
//! sha256 = "…"
//! patch = 64                # side of a patch in samples
//! memory = 64               # values that go from one frame to the next
//! ```
//!
//! The graph takes `patches`, float32 `[N, 2, patch, patch]` (luma and its change, as
//! `nnv_quality::Patches` cuts them), and `memory`, float32 `[1, 1, 1, memory]`. It gives `scores`,
//! float32 `[1, 1, 1, 6]` (VMAF and SSIMULACRA2 in hundredths, shares of [`CAUSES`]), and `next`,
//! shaped as `memory`. Nothing of it is normative.

use serde::Deserialize;

use super::ModelSource;
use super::backend::{Backend, Element, Tensor};
use super::bundle::Kind;
use super::cancel::Cancel;
use super::error::{NnError, Result};
use super::graph::{Contract, Graph, elements};
use super::single::Single;

const MAX_MEMORY: usize = 1024;
const SIDES: std::ops::RangeInclusive<usize> = 16..=256;
/// Most patches of a frame.
const MAX_PATCHES: usize = 256;
/// Luma, and its change.
const CHANNELS: usize = 2;

/// What may be wrong with a picture.
pub const CAUSES: [&str; 4] = ["blocking", "blur", "noise", "freeze"];

#[derive(Deserialize)]
struct Manifest {
    quality: Entry,
}

#[derive(Debug, Deserialize)]
struct Entry {
    file: String,
    sha256: String,
    patch: usize,
    memory: usize,
}

impl Entry {
    fn check(&self) -> Result<(), String> {
        if !SIDES.contains(&self.patch) {
            return Err(format!(
                "patch is {}, it must be within {SIDES:?}",
                self.patch
            ));
        }
        if !(1..=MAX_MEMORY).contains(&self.memory) {
            return Err(format!(
                "memory is {}, it must be within 1..={MAX_MEMORY}",
                self.memory
            ));
        }
        Ok(())
    }
}

/// A network that judges video without its original.
#[derive(Debug)]
pub struct QualityModel {
    graph: Graph,
    entry: Entry,
}

/// What the network remembers of a video. A new one begins with [`QualityModel::start`].
#[derive(Debug, Clone, PartialEq)]
pub struct QualityMemory(Vec<f32>);

/// What the network says of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// The VMAF that it expects, 0 to 100.
    pub vmaf: f64,
    /// The SSIMULACRA2 that it expects, 100 at most.
    pub ssimulacra2: f64,
    /// Share of each of [`CAUSES`] in what is wrong; their sum is 1.
    pub shares: [f64; CAUSES.len()],
}

impl QualityModel {
    /// Loads a bundle of kind `quality`; it runs on one thread of the CPU.
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
        let (manifest, file) = Single::open(source, Kind::Quality, |manifest: &Manifest| {
            let entry = &manifest.quality;
            entry.check().map(|()| (&*entry.file, &*entry.sha256))
        })?;
        let entry = manifest.quality;
        let f32 = Some(Element::F32);
        let contract = Contract {
            may_take: &[("patches", f32), ("memory", f32)],
            must_give: &[("scores", f32), ("next", f32)],
            channels: &|name| Some(if name == "patches" { CHANNELS } else { 1 }),
        };
        let graph = file.build(backend, "quality", &contract)?;
        let model = Self { graph, entry };
        // Only a run shows that the shapes are those of the manifest.
        let none = vec![0.0; model.patch_len()];
        let mut memory = model.start();
        model
            .graph
            .run_in_time(|cancel| model.run(&mut memory, &none, cancel).map(drop))?;
        Ok(model)
    }

    /// Side of a patch in samples.
    pub fn patch(&self) -> usize {
        self.entry.patch
    }

    /// The memory before the first frame.
    pub fn start(&self) -> QualityMemory {
        QualityMemory(vec![0.0; self.entry.memory])
    }

    /// Judges the next frame by its patches, one after the other.
    ///
    /// # Errors
    /// [`NnError::Input`] for no whole number of patches, none, or too many; [`NnError::Run`]. The
    /// memory is then as it was.
    pub fn judge(&self, memory: &mut QualityMemory, patches: &[f32]) -> Result<Judgement> {
        self.run(memory, patches, &Cancel::new())
    }

    fn patch_len(&self) -> usize {
        CHANNELS * self.entry.patch * self.entry.patch
    }

    fn run(
        &self,
        memory: &mut QualityMemory,
        patches: &[f32],
        cancel: &Cancel,
    ) -> Result<Judgement> {
        let (count, rest) = (
            patches.len() / self.patch_len(),
            patches.len() % self.patch_len(),
        );
        if rest != 0 || !(1..=MAX_PATCHES).contains(&count) {
            return Err(NnError::Input(format!(
                "a frame is judged by 1 to {MAX_PATCHES} patches of {0}x{0} samples",
                self.entry.patch
            )));
        }
        if memory.0.len() != self.entry.memory {
            return Err(NnError::Input("the memory is another network's".into()));
        }
        let side = self.entry.patch;
        let feed = |name: &str| {
            Some(match name {
                "patches" => Tensor::new([count, CHANNELS, side, side], patches),
                _ => Tensor::new([1, 1, 1, memory.0.len()], &memory.0[..]),
            })
        };
        let [scores, next] = self.graph.run(feed, ["scores", "next"], cancel)?;
        let fail = |what| self.graph.failed(what);
        let shape = [1, 1, 1, 2 + CAUSES.len()];
        let scores = elements::<f32>(&*scores, shape).map_err(fail)?;
        let next = elements::<f32>(&*next, [1, 1, 1, memory.0.len()]).map_err(fail)?;
        if scores.iter().chain(next).any(|v| !v.is_finite()) {
            return Err(fail("it gave something that is no number".into()));
        }
        let judgement = Judgement {
            vmaf: (100.0 * f64::from(scores[0])).clamp(0.0, 100.0),
            ssimulacra2: (100.0 * f64::from(scores[1])).min(100.0),
            shares: std::array::from_fn(|i| f64::from(scores[2 + i])),
        };
        memory.0.copy_from_slice(next);
        Ok(judgement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            file: "quality.onnx".into(),
            sha256: "0".repeat(64),
            patch: 64,
            memory: 64,
        }
    }

    #[test]
    fn hostile_entries_are_refused() {
        assert_eq!(entry().check(), Ok(()));
        type Change = fn(&mut Entry);
        let cases: [(Change, &str); 4] = [
            (|e| e.patch = 0, "patch"),
            (|e| e.patch = usize::MAX, "patch"),
            (|e| e.memory = 0, "memory"),
            (|e| e.memory = usize::MAX, "memory"),
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
    fn the_judge_that_ships_remembers_and_takes_whole_patches() {
        let model = QualityModel::load(&ModelSource::Embedded("quality".into())).unwrap();
        let len = CHANNELS * model.patch() * model.patch();
        let waves: Vec<f32> = (0..3 * len).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut memory = model.start();
        let first = model.judge(&mut memory, &waves).unwrap();
        assert!((0.0..=100.0).contains(&first.vmaf) && first.ssimulacra2 <= 100.0);
        assert!((first.shares.iter().sum::<f64>() - 1.0).abs() < 1e-4);
        assert_ne!(memory, model.start());
        // What came before counts; a new video begins anew.
        assert_ne!(model.judge(&mut memory, &waves).unwrap(), first);
        assert_eq!(model.judge(&mut model.start(), &waves).unwrap(), first);
        let before = memory.clone();
        for wrong in [&waves[..0], &waves[..len - 1], &waves[..len + 1]] {
            assert!(model.judge(&mut memory, wrong).is_err());
        }
        assert_eq!(memory, before);
    }
}

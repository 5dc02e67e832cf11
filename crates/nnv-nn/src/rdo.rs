// SPDX-License-Identifier: MPL-2.0
//! Quality that a shot will have after coding: bundles of kind `rdo`.
//!
//! `bundle.toml` of such a bundle:
//!
//! ```toml
//! [bundle]
//! format = 1
//! kind = "rdo"
//! name = "rdo"
//!
//! [rdo]
//! file = "rdo.onnx"
//! sha256 = "…"
//! features = ["pixels", "rate"]   # what a shot is told by, in this order
//! metrics = ["vmaf", "psnr"]
//!
//! [[rdo.codec]]                   # as many knots each
//! name = "x264"
//! knots = [14.0, 20.0, 26.0, 32.0, 40.0]   # quantizers, rising
//! ```
//!
//! The graph takes `x`, float32 `[1, 1, 1, features]`, and gives `y`, float32
//! `[1, codecs, metrics, knots]`: minus the natural logarithm of the loss at each knot. What a
//! metric's loss is, those who use it say (`nnv encode`). Nothing of it is normative.

use serde::Deserialize;

use super::ModelSource;
use super::backend::{Backend, Element, Tensor};
use super::bundle::Kind;
use super::cancel::Cancel;
use super::error::{NnError, Result};
use super::graph::{Contract, Graph, elements};
use super::single::Single;

const MAX_LIST: usize = 256;

#[derive(Deserialize)]
struct Manifest {
    rdo: Entry,
}

#[derive(Debug, Deserialize)]
struct Entry {
    file: String,
    sha256: String,
    features: Vec<String>,
    metrics: Vec<String>,
    codec: Vec<CodecEntry>,
}

#[derive(Clone, Debug, Deserialize)]
struct CodecEntry {
    name: String,
    knots: Vec<f32>,
}

impl Entry {
    fn check(&self) -> Result<(), String> {
        for (what, len) in [
            ("features", self.features.len()),
            ("metrics", self.metrics.len()),
            ("codecs", self.codec.len()),
        ] {
            if !(1..=MAX_LIST).contains(&len) {
                return Err(format!("it has {len} {what}, 1 to {MAX_LIST} are possible"));
            }
        }
        let count = self.codec[0].knots.len();
        for CodecEntry { name, knots } in &self.codec {
            let rising = knots.iter().all(|q| q.is_finite()) && knots.is_sorted_by(|a, b| a < b);
            if knots.len() != count || !(2..=MAX_LIST).contains(&count) || !rising {
                return Err(format!(
                    "the knots of {name} must be rising numbers, two or more, as many as of others"
                ));
            }
        }
        Ok(())
    }
}

/// A network that predicts the quality of shots over the quantizer.
#[derive(Debug)]
pub struct RdoModel {
    graph: Graph,
    entry: Entry,
}

impl RdoModel {
    /// Loads a bundle of kind `rdo`; it runs on one thread of the CPU.
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
        let (manifest, file) = Single::open(source, Kind::Rdo, |manifest: &Manifest| {
            let entry = &manifest.rdo;
            entry.check().map(|()| (&*entry.file, &*entry.sha256))
        })?;
        let entry = manifest.rdo;
        let f32 = Some(Element::F32);
        let codecs = entry.codec.len();
        let contract = Contract {
            may_take: &[("x", f32)],
            must_give: &[("y", f32)],
            channels: &|name| Some(if name == "y" { codecs } else { 1 }),
        };
        let graph = file.build(backend, "rdo", &contract)?;
        let model = Self { graph, entry };
        // Only a run shows that the shapes are those of the manifest.
        let none = vec![0.0; model.entry.features.len()];
        model
            .graph
            .run_in_time(|cancel| model.run(&none, cancel).map(drop))?;
        Ok(model)
    }

    /// Names of what a shot is told by, in their order.
    pub fn features(&self) -> &[String] {
        &self.entry.features
    }

    /// Names of the measures that it knows.
    pub fn metrics(&self) -> &[String] {
        &self.entry.metrics
    }

    /// Names of the codecs that it knows.
    pub fn codecs(&self) -> impl Iterator<Item = &str> {
        self.entry.codec.iter().map(|codec| &*codec.name)
    }

    /// Points (quantizer, minus the natural logarithm of the loss) of a shot, quantizers rising;
    /// `None` for a codec or a metric that it does not know.
    ///
    /// # Errors
    /// [`NnError::Input`] for another number of features or one that is no number;
    /// [`NnError::Run`].
    pub fn curve(
        &self,
        features: &[f32],
        codec: &str,
        metric: &str,
    ) -> Result<Option<Vec<(f32, f32)>>> {
        if features.len() != self.entry.features.len() || !features.iter().all(|v| v.is_finite()) {
            return Err(NnError::Input(format!(
                "a shot is told by {} numbers",
                self.entry.features.len()
            )));
        }
        let codecs = &self.entry.codec;
        let Some(c) = codecs.iter().position(|entry| entry.name == codec) else {
            return Ok(None);
        };
        let Some(m) = self.entry.metrics.iter().position(|name| name == metric) else {
            return Ok(None);
        };
        let all = self.run(features, &Cancel::new())?;
        let knots = &codecs[c].knots;
        let first = (c * self.entry.metrics.len() + m) * knots.len();
        let values = &all[first..first + knots.len()];
        Ok(Some(
            knots.iter().copied().zip(values.iter().copied()).collect(),
        ))
    }

    fn run(&self, features: &[f32], cancel: &Cancel) -> Result<Vec<f32>> {
        let feed = |_: &str| Some(Tensor::new([1, 1, 1, features.len()], features));
        let [y] = self.graph.run(feed, ["y"], cancel)?;
        let fail = |what| self.graph.failed(what);
        let Entry { metrics, codec, .. } = &self.entry;
        let shape = [1, codec.len(), metrics.len(), codec[0].knots.len()];
        let y = elements::<f32>(&*y, shape).map_err(fail)?;
        if y.iter().any(|v| !v.is_finite()) {
            return Err(fail("it gave something that is no number".into()));
        }
        Ok(y.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let codec = |name: &str| CodecEntry {
            name: name.into(),
            knots: vec![10.0, 20.0],
        };
        Entry {
            file: "rdo.onnx".into(),
            sha256: "0".repeat(64),
            features: vec!["pixels".into()],
            metrics: vec!["vmaf".into()],
            codec: vec![codec("a"), codec("b")],
        }
    }

    #[test]
    fn hostile_entries_are_refused() {
        assert_eq!(entry().check(), Ok(()));
        type Change = fn(&mut Entry);
        let cases: [(Change, &str); 7] = [
            (|e| e.features.clear(), "features"),
            (|e| e.metrics = vec![String::new(); 300], "metrics"),
            (|e| e.codec.clear(), "codecs"),
            (|e| e.codec[1].knots.push(30.0), "knots of b"),
            (|e| e.codec[0].knots = vec![20.0, 10.0], "knots of a"),
            (|e| e.codec[0].knots = vec![f32::NAN, 10.0], "knots of a"),
            (
                |e| e.codec.iter_mut().for_each(|c| c.knots.truncate(1)),
                "knots",
            ),
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
    fn the_curves_that_ship_fall() {
        let model = RdoModel::load(&ModelSource::Embedded("rdo".into())).unwrap();
        assert!(model.codecs().any(|name| name == "x264"));
        let count = model.features().len();
        for value in [0.0, 3.0, -3.0, 1e6, -1e6] {
            let features = vec![value; count];
            for metric in model.metrics() {
                let curve = model.curve(&features, "x264", metric).unwrap().unwrap();
                assert!(
                    curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 > b.1),
                    "{curve:?}"
                );
            }
        }
        assert_eq!(
            model.curve(&vec![0.0; count], "h261", "vmaf").unwrap(),
            None
        );
        assert!(model.curve(&vec![0.0; count - 1], "x264", "vmaf").is_err());
        assert!(model.curve(&vec![f32::NAN; count], "x264", "vmaf").is_err());
    }
}

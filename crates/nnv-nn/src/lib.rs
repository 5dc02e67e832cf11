// SPDX-License-Identifier: MPL-2.0
//! Networks: bundles, models with batched runs, known-answer tests, and the [`backend`] that runs
//! them.
//!
//! ONNX Runtime (feature `onnxruntime`, on by default) is one back end; no type of it is in any
//! signature here.
//!
//! ```no_run
//! use nnv_format::grid::Grid;
//! use nnv_nn::{Cancel, InterItem, Model, ModelSource, RuntimeOptions};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load(&ModelSource::Embedded("realtime".into()), &RuntimeOptions::default())?;
//! let grid = Grid::new(45, 80)?; // 720 × 1280 luma samples
//! let (z, r) = (vec![0i8; model.z_len(grid)], vec![0i16; grid.y_len()]);
//! let cancel = Cancel::new();
//!
//! // A key frame: hyper-latent -> scales, (entropy decoding), residual -> picture.
//! let batch = model.key_batch(grid, &[20])?;
//! let prior = batch.prior(&[&z], &cancel)?;
//! let _scales: &[u8] = prior.scale_idx(0);
//! let pictures = batch.synthesise(&prior, &[&r], &cancel)?;
//!
//! // Two inter frames of one level in one run.
//! let p = pictures.get(0);
//! let d = vec![0i16; grid.picture_len()];
//! let item = |quantizer| InterItem { quantizer, p, d: &d };
//! let batch = model.inter_batch(grid, &[item(24), item(30)])?;
//! let prior = batch.prior(&[&z, &z], &cancel)?;
//! let pictures = batch.synthesise(&prior, &[&r, &r], &cancel)?;
//! # Ok(()) }
//! ```

pub mod backend;
mod bundle;
mod cancel;
mod error;
mod files;
mod graph;
mod listing;
mod model;
mod network;
pub mod onnx;
#[cfg(feature = "onnxruntime")]
pub mod onnxruntime;
mod quality;
mod rdo;
mod registry;
#[cfg(feature = "onnxruntime")]
mod rounding;
mod single;
mod sr;
mod structure;

use std::path::PathBuf;

pub use bundle::{EmbeddedInfo, MemoryBundle, ModelSource, embedded, hex, is_bundle_folder};
pub use cancel::{Cancel, Running};
pub use error::{NnError, Result};
pub use listing::{BundleFile, BundleListing};
pub use model::{Analysis, Batch, InterItem, MAX_BATCH, Model, Pictures, Prior, Reach, Refinement};
pub use network::{ThroughputModel, ThroughputState};
#[cfg(feature = "onnxruntime")]
pub use onnxruntime::{LogSink, Runtime, set_log_sink};
pub use quality::{CAUSES, Judgement, QualityMemory, QualityModel};
pub use rdo::RdoModel;
#[cfg(feature = "onnxruntime")]
pub use rounding::sums_in_float;
pub use sr::{
    EmbeddedSr, MAX_SCALE, Precision, SrBundle, SrFacts, SrNetwork, Upscaled, embedded_sr,
};

/// What executes the networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// The CPU; always there.
    Cpu,
    /// NVIDIA CUDA; needs the cargo feature `cuda` and an ONNX Runtime built with it.
    Cuda,
    /// NVIDIA TensorRT; needs the cargo feature `tensorrt` and an ONNX Runtime built with it.
    TensorRt,
}

impl Provider {
    /// Those compiled in, best first.
    pub const COMPILED: &'static [Provider] = &[
        #[cfg(feature = "tensorrt")]
        Provider::TensorRt,
        #[cfg(feature = "cuda")]
        Provider::Cuda,
        Provider::Cpu,
    ];

    /// The name that the `execution-provider` property uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much ONNX Runtime rewrites a graph. Outputs are the same for all; only tests have a reason
/// to lower it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Optimisation {
    /// As written: convolutions run in float32.
    None,
    /// Constant folding and the like.
    Basic,
    /// Fuses quantised convolutions into integer kernels.
    Extended,
    /// Everything.
    #[default]
    All,
}

/// How a model's networks run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RuntimeOptions {
    /// A provider that must work, or `None` to take the best that does.
    pub provider: Option<Provider>,
    /// Number of the GPU.
    pub device_id: i32,
    /// Threads per network, 0 for as many as there are processors (at most 16).
    pub threads: usize,
    /// Rewriting of graphs.
    pub optimisation: Optimisation,
    /// Keeps in float32 those sums that processors round each in its own way (decision 187). Other
    /// processors than x86 need it and always do; here only tests have a reason to.
    pub float_sums: bool,
    /// Folder for the graphs after optimisation, for inspection.
    pub dump_optimised: Option<PathBuf>,
}

impl RuntimeOptions {
    /// `threads`, with 0 replaced by what the machine has. Given explicitly, because ONNX Runtime's
    /// own default pins its threads to processors, which fails in containers and fights with other
    /// elements.
    pub(crate) fn resolved_threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(16)),
            n => n.min(256),
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! A back end of [`nnv_nn`] in plain Rust: the decoding networks as integer products, without ONNX
//! Runtime. It runs where that library does not, first of all in a browser.
//!
//! Networks of this project are exact in integers, so that this back end gives what any other does,
//! bit by bit; every bundle's known answers are checked as with others. It knows the operators of
//! decoding networks alone, refuses the rest by name, and runs on the calling thread.
//!
//! ```
//! use nnv_kernels::Kernels;
//! use nnv_nn::{Model, ModelSource, RuntimeOptions};
//!
//! let source = ModelSource::Embedded("realtime".into());
//! let model = Model::load_on(&Kernels, &source, &RuntimeOptions::default())?;
//! # Ok::<(), nnv_nn::NnError>(())
//! ```

mod lanes;
mod onnx;
mod plan;
mod product;
mod run;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nnv_nn::backend::{Backend, Network, Output, Port, RunError, Tensor, in_order};
use nnv_nn::{Cancel, Provider, RuntimeOptions};

use plan::Plan;
use run::{Ended, Pool};

/// The back end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernels;

impl Backend for Kernels {
    fn name(&self) -> &'static str {
        "kernels"
    }

    fn providers(&self) -> &'static [Provider] {
        &[Provider::Cpu]
    }

    fn network(
        &self,
        name: &str,
        onnx: &[u8],
        provider: Provider,
        _options: &RuntimeOptions,
    ) -> Result<Box<dyn Network>, String> {
        if provider != Provider::Cpu {
            return Err(format!(
                "the built-in kernels run on the CPU, not on {provider}"
            ));
        }
        let refuse = |what| format!("the built-in kernels cannot run {name}: {what}");
        let graph = onnx::read(onnx).map_err(refuse)?;
        let plan = plan::compile(&graph).map_err(refuse)?;
        Ok(Box::new(KernelNetwork {
            plan,
            inputs: graph.inputs,
            outputs: graph.outputs,
            pool: Pool::default(),
        }))
    }
}

#[derive(Debug)]
struct KernelNetwork {
    plan: Plan,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    pool: Pool,
}

impl Network for KernelNetwork {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn run(
        &self,
        inputs: &[(&str, Tensor<'_>)],
        outputs: &[&str],
        cancel: &Cancel,
    ) -> Result<Vec<Box<dyn Output>>, RunError> {
        let fed = in_order(&self.inputs, inputs)?;
        let wanted = outputs.iter().map(|name| {
            let found = self.outputs.iter().position(|port| port.name == *name);
            found.ok_or_else(|| RunError::Failed(format!("it returned no output {name}")))
        });
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let abort = stop.clone();
        let running = cancel.enter(move || abort.store(true, Ordering::Relaxed));
        let _running = running.ok_or(RunError::Cancelled)?;
        let cancelled = || stop.load(Ordering::Relaxed);
        let results = run::run(&self.plan, &self.pool, &fed, &wanted, cancelled);
        match results {
            Ok(results) => Ok(results
                .into_iter()
                .map(|r| Box::new(r) as Box<dyn Output>)
                .collect()),
            Err(Ended::Cancelled) => Err(RunError::Cancelled),
            Err(Ended::Failed(what)) => Err(RunError::Failed(what)),
        }
    }
}

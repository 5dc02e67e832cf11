// SPDX-License-Identifier: MPL-2.0
//! ONNX Runtime as the back end: the only place that names the crate `ort`.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod elf;
mod runtime;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session, SessionInputValue, SessionInputs};
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};

use super::backend::{Backend, Data, Element, Network, Output, Port, RunError, Tensor, in_order};
use super::cancel::Cancel;
use super::error::Result;
use super::rounding::sums_in_float;
use super::{Optimisation, Provider, RuntimeOptions};

pub use runtime::{LogSink, Runtime, set_log_sink};

/// ONNX Runtime, loaded.
#[derive(Debug, Clone, Copy)]
pub struct OnnxRuntime(&'static Runtime);

impl OnnxRuntime {
    /// Loads the library at the first call.
    ///
    /// # Errors
    /// [`NnError::Runtime`](super::NnError::Runtime) with what was tried and what to do.
    pub fn get() -> Result<Self> {
        Runtime::get().map(Self)
    }
}

impl Backend for OnnxRuntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn providers(&self) -> &'static [Provider] {
        Provider::COMPILED
    }

    fn network(
        &self,
        name: &str,
        onnx: &[u8],
        provider: Provider,
        options: &RuntimeOptions,
    ) -> Result<Box<dyn Network>, String> {
        let session = build_session(self.0, name, onnx, provider, options)?;
        Ok(Box::new(OrtNetwork {
            inputs: session.inputs().iter().map(port).collect(),
            outputs: session.outputs().iter().map(port).collect(),
            session: Mutex::new(session),
        }))
    }
}

fn port(outlet: &Outlet) -> Port {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            // Negative lengths are open.
            (
                element(*ty),
                shape.iter().map(|&n| usize::try_from(n).ok()).collect(),
            )
        }
        _ => (Element::Other, Vec::new()),
    };
    Port {
        name: outlet.name().into(),
        element,
        shape,
    }
}

fn element(ty: TensorElementType) -> Element {
    match ty {
        TensorElementType::Uint8 => Element::U8,
        TensorElementType::Int8 => Element::I8,
        TensorElementType::Uint16 => Element::U16,
        TensorElementType::Int16 => Element::I16,
        TensorElementType::Float32 => Element::F32,
        _ => Element::Other,
    }
}

/// A session. Runs are serialised: `ort` holds that concurrent runs of a session are not safe.
#[derive(Debug)]
struct OrtNetwork {
    session: Mutex<Session>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Network for OrtNetwork {
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
        let values = self.inputs.iter().zip(&fed).map(|(port, tensor)| {
            value(tensor)
                .map_err(|e| RunError::Failed(format!("input {}: {}", port.name, explain(&e))))
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        // Entered only now: another run of a shared session may have held the lock for a while.
        let options = RunOptions::new()
            .map(Arc::new)
            .map_err(|e| RunError::Failed(format!("run options: {e}")))?;
        let abort = options.clone();
        // The only failure of an abort is a null pointer, which `RunOptions` cannot hold.
        let running = cancel.enter(move || drop(abort.terminate()));
        let _running = running.ok_or(RunError::Cancelled)?;
        let result = session.run_with_options(SessionInputs::<0>::ValueSlice(&values), &options);
        let mut results = match result {
            Ok(results) => results,
            Err(_) if cancel.is_cancelled() => return Err(RunError::Cancelled),
            Err(e) => return Err(RunError::Failed(explain(&e))),
        };
        let take = |name: &&str| match results.remove(*name) {
            Some(value) => Ok(Box::new(OrtOutput(value)) as Box<dyn Output>),
            None => Err(RunError::Failed(format!("it returned no output {name}"))),
        };
        outputs.iter().map(take).collect()
    }
}

/// A tensor as an input; not copied.
fn value<'v>(tensor: &Tensor<'v>) -> ort::Result<SessionInputValue<'v>> {
    let shape = tensor.shape;
    Ok(match tensor.data {
        Data::U8(data) => TensorRef::from_array_view((shape, data))?.into(),
        Data::I8(data) => TensorRef::from_array_view((shape, data))?.into(),
        Data::U16(data) => TensorRef::from_array_view((shape, data))?.into(),
        Data::I16(data) => TensorRef::from_array_view((shape, data))?.into(),
        Data::F32(data) => TensorRef::from_array_view((shape, data))?.into(),
    })
}

#[derive(Debug)]
struct OrtOutput(DynValue);

impl OrtOutput {
    fn view<T>(&self) -> Result<Tensor<'_>, String>
    where
        T: super::backend::Scalar + ort::value::PrimitiveTensorElementType,
    {
        let (shape, elements) = self.0.try_extract_tensor::<T>().map_err(|e| explain(&e))?;
        let lengths: Vec<usize> = shape
            .iter()
            .map(|&n| usize::try_from(n).unwrap_or(usize::MAX))
            .collect();
        let shape = lengths.try_into().map_err(|lengths| {
            format!("it has the shape {lengths:?}, four dimensions are needed")
        })?;
        Ok(Tensor::new(shape, elements))
    }
}

impl Output for OrtOutput {
    fn tensor(&self) -> Result<Tensor<'_>, String> {
        match self.0.dtype() {
            ValueType::Tensor { ty, .. } => match element(*ty) {
                Element::U8 => self.view::<u8>(),
                Element::I8 => self.view::<i8>(),
                Element::U16 => self.view::<u16>(),
                Element::I16 => self.view::<i16>(),
                Element::F32 => self.view::<f32>(),
                Element::Other => Err(format!("it is a tensor of {ty}")),
            },
            other => Err(format!("it is {other}, not a tensor")),
        }
    }
}

/// ONNX Runtime's message without the place in its sources.
fn explain<R>(error: &ort::Error<R>) -> String {
    let text = error.message();
    let told = text
        .rsplit_once("[ONNXRuntimeError] : ")
        .and_then(|(_, rest)| rest.splitn(3, " : ").nth(2));
    told.unwrap_or(text).trim().to_string()
}

/// On this processor, ONNX Runtime's 8-bit additions may round otherwise than the graph says; only
/// those for x86 are known to round halves to even.
const SUMS_ROUND_ALONE: bool = !cfg!(any(target_arch = "x86", target_arch = "x86_64"));

fn build_session(
    runtime: &Runtime,
    name: &str,
    onnx: &[u8],
    provider: Provider,
    options: &RuntimeOptions,
) -> Result<Session, String> {
    let onnx = if SUMS_ROUND_ALONE || options.float_sums {
        sums_in_float(onnx)?
    } else {
        Cow::Borrowed(onnx)
    };
    let configured = || -> ort::Result<SessionBuilder> {
        let level = match options.optimisation {
            Optimisation::None => GraphOptimizationLevel::Disable,
            Optimisation::Basic => GraphOptimizationLevel::Level1,
            Optimisation::Extended => GraphOptimizationLevel::Level2,
            Optimisation::All => GraphOptimizationLevel::All,
        };
        let mut builder = Session::builder(runtime.environment())?
            .with_optimization_level(level)?
            .with_intra_threads(options.resolved_threads())?
            .with_inter_threads(1)?
            // Spinning threads would take the cores from the rest of the pipeline.
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_env_allocators()?;
        if let Some(folder) = &options.dump_optimised {
            builder = builder
                .with_optimized_model_path(PathBuf::from(folder).join(format!("{name}.onnx")))?;
        }
        Ok(builder)
    };
    let mut builder = configured().map_err(|e| format!("session options: {e}"))?;
    builder = register(builder, provider, options)?;
    builder.commit_from_memory(&onnx).map_err(|e| explain(&e))
}

/// Adds the provider to the session. The CPU provider is always there.
fn register(
    builder: SessionBuilder,
    provider: Provider,
    options: &RuntimeOptions,
) -> Result<SessionBuilder, String> {
    #[cfg(any(feature = "cuda", feature = "tensorrt"))]
    use ort::ep;

    // Without GPU providers compiled in, nothing depends on the device.
    let _device = options.device_id;
    match provider {
        Provider::Cpu => Ok(builder),
        #[cfg(feature = "cuda")]
        Provider::Cuda => builder
            .with_execution_providers([cuda(options.device_id)])
            .map_err(|e| explain(&e)),
        #[cfg(feature = "tensorrt")]
        Provider::TensorRt => {
            let mut tensorrt = ep::TensorRT::default()
                .with_device_id(options.device_id)
                .with_int8(true)
                .with_fp16(false);
            if let Some(cache) = engine_cache() {
                let cache = cache.display().to_string();
                tensorrt = tensorrt
                    .with_engine_cache(true)
                    .with_engine_cache_path(&cache)
                    .with_timing_cache(true)
                    .with_timing_cache_path(&cache);
            }
            let providers = [
                tensorrt.build().error_on_failure(),
                // What TensorRT does not take runs on CUDA where possible, else every such node
                // copies to the host.
                #[cfg(feature = "cuda")]
                cuda(options.device_id),
            ];
            builder
                .with_execution_providers(providers)
                .map_err(|e| explain(&e))
        }
        #[allow(
            unreachable_patterns,
            reason = "reachable when a GPU provider is not compiled in"
        )]
        other => Err(format!(
            "this plugin was built without {other} (cargo feature \"{other}\")"
        )),
    }
}

/// CUDA with TF32 off and one fixed convolution algorithm, an implicit matrix product: exact
/// whatever the sizes.
#[cfg(feature = "cuda")]
fn cuda(device_id: i32) -> ort::ep::ExecutionProviderDispatch {
    use ort::ep;
    ep::CUDA::default()
        .with_device_id(device_id)
        .with_tf32(false)
        .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Default)
        .build()
        .error_on_failure()
}

/// Folder for TensorRT engines, whose making takes minutes; made on demand.
#[cfg(feature = "tensorrt")]
fn engine_cache() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let folder = base.join("nnv").join("tensorrt");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder)
}

// SPDX-License-Identifier: MPL-2.0
//! One network: building its ONNX Runtime session on a provider, checking its interface, running it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue, SessionInputs};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, ValueType};

use super::bundle::{AnswerInput, DType, KnownAnswer};
use super::cancel::Cancel;
use super::error::{NnError, Result};
use super::runtime::Runtime;
use super::{Optimisation, Provider, RuntimeOptions};

/// What a session must accept and return: name and element type (`None`: any of 8 bits). All tensors
/// have four dimensions.
pub(super) type Interface = [(&'static str, Option<TensorElementType>)];

/// What a graph has to look like.
pub(super) struct Contract<'a> {
    /// What a run can supply; a graph may leave inputs out.
    pub may_take: &'a Interface,
    /// The outputs that are used.
    pub must_give: &'a Interface,
    /// How long the second dimension of a tensor is, where that is fixed.
    pub channels: &'a dyn Fn(&str) -> Option<usize>,
}

/// A network ready to run. Runs are serialised: `ort` holds that concurrent runs of a session are not safe.
#[derive(Debug)]
pub(super) struct Graph {
    name: &'static str,
    bundle: String,
    session: Mutex<Session>,
    inputs: Vec<String>,
}

/// Why a graph could not be built, to be completed with provider and bundle.
pub(super) type BuildResult<T> = Result<T, String>;

impl Graph {
    /// Builds the session and holds it to the contract.
    pub(super) fn build(
        name: &'static str,
        bundle: &str,
        onnx: &[u8],
        provider: Provider,
        options: &RuntimeOptions,
        contract: &Contract<'_>,
    ) -> Result<Self> {
        let runtime = Runtime::get()?;
        let session = build_session(runtime, name, onnx, provider, options).map_err(|what| {
            NnError::Provider {
                provider,
                bundle: format!("{bundle}/{name}"),
                what,
            }
        })?;
        let wrong = |what| NnError::Bundle {
            bundle: bundle.into(),
            what,
        };
        for input in session.inputs() {
            check_outlet(name, "input", input, contract.may_take, contract.channels)
                .map_err(wrong)?;
        }
        for (output, _) in contract.must_give {
            let outlet = session
                .outputs()
                .iter()
                .find(|o| o.name() == *output)
                .ok_or_else(|| wrong(format!("the graph {name} has no output {output}")))?;
            check_outlet(
                name,
                "output",
                outlet,
                contract.must_give,
                contract.channels,
            )
            .map_err(wrong)?;
        }
        let inputs = session
            .inputs()
            .iter()
            .map(|i| i.name().to_string())
            .collect();
        Ok(Self {
            name,
            bundle: bundle.into(),
            session: Mutex::new(session),
            inputs,
        })
    }

    /// Whether it has an input of that name.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.inputs.iter().any(|input| input == name)
    }

    /// Runs the network on named inputs and returns the named outputs.
    pub(super) fn run<'v, const N: usize>(
        &self,
        mut feed: impl FnMut(&str) -> Option<ort::Result<SessionInputValue<'v>>>,
        outputs: [&str; N],
        cancel: &Cancel,
    ) -> Result<[DynValue; N]> {
        let fail = |what: String| NnError::Run {
            bundle: self.bundle.clone(),
            graph: self.name,
            what,
        };
        let mut values = Vec::with_capacity(self.inputs.len());
        for name in &self.inputs {
            let value =
                feed(name).ok_or_else(|| fail(format!("nothing to feed its input {name}")))?;
            values.push(value.map_err(|e| fail(format!("input {name}: {}", explain(&e))))?);
        }
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked for only now: another run of a shared session may have held the lock for a while.
        let options = cancel.options()?;
        let result = session.run_with_options(SessionInputs::<0>::ValueSlice(&values), &options);
        let mut results = match result {
            Ok(results) => results,
            Err(_) if cancel.is_cancelled() => return Err(NnError::Cancelled),
            Err(e) => return Err(fail(explain(&e))),
        };
        let mut taken = Vec::with_capacity(N);
        for name in outputs {
            taken.push(
                results
                    .remove(name)
                    .ok_or_else(|| fail(format!("it returned no output {name}")))?,
            );
        }
        Ok(taken
            .try_into()
            .unwrap_or_else(|_| unreachable!("one value was taken per name")))
    }

    /// Runs a stored input and compares checksums.
    pub(super) fn verify(&self, answer: &KnownAnswer, provider: Provider) -> Result<()> {
        for (output, expected) in &answer.outputs {
            let feed = |name: &str| {
                answer
                    .inputs
                    .iter()
                    .find(|i| i.name == name)
                    .map(answer_value)
            };
            let [value] = self.run(feed, [output], &Cancel::new())?;
            let fail = |what: String| NnError::Run {
                bundle: self.bundle.clone(),
                graph: self.name,
                what,
            };
            let got = checksum(&value).map_err(|what| fail(format!("output {output}: {what}")))?;
            if got != *expected {
                return Err(NnError::KnownAnswer {
                    provider,
                    bundle: self.bundle.clone(),
                    graph: self.name,
                    output: output.clone(),
                    expected: *expected,
                    got,
                });
            }
        }
        Ok(())
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

/// Data of a tensor after checking its shape.
pub(super) fn tensor<T: ort::value::PrimitiveTensorElementType>(
    value: &DynValue,
    shape: [usize; 4],
) -> Result<&[T], String> {
    let (got, data) = value.try_extract_tensor::<T>().map_err(|e| explain(&e))?;
    if got
        .iter()
        .map(|&d| usize::try_from(d).unwrap_or(usize::MAX))
        .ne(shape)
    {
        return Err(format!("it has the shape {got:?}, expected {shape:?}"));
    }
    Ok(data)
}

fn check_outlet(
    graph: &str,
    side: &str,
    outlet: &Outlet,
    interface: &Interface,
    channels: &dyn Fn(&str) -> Option<usize>,
) -> Result<(), String> {
    let name = outlet.name();
    let Some((_, expected)) = interface.iter().find(|(n, _)| *n == name) else {
        return Err(format!(
            "the graph {graph} has an {side} {name} that this version does not know"
        ));
    };
    let fits = match (outlet.dtype(), expected) {
        (ValueType::Tensor { ty, .. }, Some(expected)) => ty == expected,
        (ValueType::Tensor { ty, .. }, None) => {
            matches!(ty, TensorElementType::Uint8 | TensorElementType::Int8)
        }
        _ => false,
    };
    if !fits {
        let expected = expected.map_or("uint8 or int8".into(), |t| t.to_string());
        return Err(format!(
            "{side} {name} of graph {graph} is {}, it must be a tensor of {expected}",
            outlet.dtype()
        ));
    }
    let shape = outlet.dtype().tensor_shape().map_or(&[][..], |s| s);
    // Negative lengths are open.
    let open_or = |length: i64, expected: usize| length < 0 || length as u64 == expected as u64;
    let expected = channels(name);
    if shape.len() != 4 || expected.is_some_and(|c| !open_or(shape[1], c)) {
        let expected = expected.map_or("any".into(), |c| c.to_string());
        return Err(format!(
            "{side} {name} of graph {graph} has the shape {shape:?}, it must have four dimensions \
             and {expected} channels"
        ));
    }
    Ok(())
}

/// ONNX Runtime's message without the place in its sources.
fn explain<R>(error: &ort::Error<R>) -> String {
    let text = error.message();
    let told = text
        .rsplit_once("[ONNXRuntimeError] : ")
        .and_then(|(_, rest)| rest.splitn(3, " : ").nth(2));
    told.unwrap_or(text).trim().to_string()
}

fn answer_value<'v>(input: &AnswerInput) -> ort::Result<SessionInputValue<'v>> {
    let shape = input.shape.clone();
    let data = &input.data;
    let pairs = || data.as_chunks::<2>().0.iter();
    Ok(match input.dtype {
        DType::U8 => Tensor::from_array((shape, data.clone()))?.into(),
        DType::I8 => {
            Tensor::from_array((shape, data.iter().map(|&b| b as i8).collect::<Vec<_>>()))?.into()
        }
        DType::U16 => Tensor::from_array((
            shape,
            pairs().map(|&b| u16::from_le_bytes(b)).collect::<Vec<_>>(),
        ))?
        .into(),
        DType::I16 => Tensor::from_array((
            shape,
            pairs().map(|&b| i16::from_le_bytes(b)).collect::<Vec<_>>(),
        ))?
        .into(),
        DType::F32 => {
            let words = data.as_chunks::<4>().0.iter();
            Tensor::from_array((
                shape,
                words.map(|&b| f32::from_le_bytes(b)).collect::<Vec<_>>(),
            ))?
            .into()
        }
    })
}

/// CRC-32C of an integer tensor's bytes in little-endian order.
fn checksum(value: &DynValue) -> Result<u32, String> {
    if let Ok((_, data)) = value.try_extract_tensor::<u8>() {
        return Ok(crc32c::crc32c(data));
    }
    if let Ok((_, data)) = value.try_extract_tensor::<i8>() {
        return Ok(data.chunks(4096).fold(0, |crc, part| {
            let bytes: Vec<u8> = part.iter().map(|&v| v as u8).collect();
            crc32c::crc32c_append(crc, &bytes)
        }));
    }
    if let Ok((_, data)) = value.try_extract_tensor::<i16>() {
        return Ok(data.chunks(4096).fold(0, |crc, part| {
            let bytes: Vec<u8> = part.iter().flat_map(|v| v.to_le_bytes()).collect();
            crc32c::crc32c_append(crc, &bytes)
        }));
    }
    Err(format!(
        "{} cannot be a known answer, only u8, i8 and i16 tensors can",
        value.dtype()
    ))
}

fn build_session(
    runtime: &Runtime,
    name: &str,
    onnx: &[u8],
    provider: Provider,
    options: &RuntimeOptions,
) -> BuildResult<Session> {
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
    builder.commit_from_memory(onnx).map_err(|e| explain(&e))
}

/// Adds the provider to the session. The CPU provider is always there.
fn register(
    builder: SessionBuilder,
    provider: Provider,
    options: &RuntimeOptions,
) -> BuildResult<SessionBuilder> {
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
                // What TensorRT does not take runs on CUDA where possible, else every such node copies to the host.
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

/// CUDA with TF32 off and one fixed convolution algorithm, an implicit matrix product: exact whatever the sizes.
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

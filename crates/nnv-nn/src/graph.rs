// SPDX-License-Identifier: MPL-2.0
//! One network of a bundle: held to its interface, to its known answers, and run.

use std::time::Duration;

use super::backend::{Backend, Data, Element, Network, Output, Port, RunError, Scalar, Tensor};
use super::bundle::{AnswerInput, DType, KnownAnswer};
use super::cancel::Cancel;
use super::error::{NnError, Result};
use super::structure::{Structure, structure};
use super::{Provider, RuntimeOptions, onnx};

/// Longest time for a first run: on small inputs it takes milliseconds, on the slowest machine
/// seconds.
const FIRST_RUN: Duration = Duration::from_secs(120);
/// The same where the first run builds an engine for the network, which takes minutes.
const FIRST_RUN_WITH_BUILD: Duration = Duration::from_secs(1800);

/// What a network must accept and return: name and element type (`None`: any of 8 bits). All
/// tensors have four dimensions.
pub(super) type Interface = [(&'static str, Option<Element>)];

/// What a graph has to look like.
pub(super) struct Contract<'a> {
    /// What a run can supply; a graph may leave inputs out.
    pub may_take: &'a Interface,
    /// The outputs that are used.
    pub must_give: &'a Interface,
    /// How long the second dimension of a tensor is, where that is fixed.
    pub channels: &'a dyn Fn(&str) -> Option<usize>,
}

/// Where and how a network runs.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub backend: &'a dyn Backend,
    pub provider: Provider,
    pub options: &'a RuntimeOptions,
}

/// A network ready to run.
#[derive(Debug)]
pub(super) struct Graph {
    name: &'static str,
    bundle: String,
    network: Box<dyn Network>,
    /// Longest time for a first run.
    first_run: Duration,
    structure: Structure,
}

impl Graph {
    /// Builds the network and holds it to the contract.
    pub(super) fn build(
        name: &'static str,
        bundle: &str,
        onnx: &[u8],
        place: Place<'_>,
        contract: &Contract<'_>,
    ) -> Result<Self> {
        let Place {
            backend,
            provider,
            options,
        } = place;
        let wrong = |what| NnError::Bundle {
            bundle: bundle.into(),
            what,
        };
        let of_graph = |what| wrong(format!("the graph {name}: {what}"));
        onnx::check(onnx).map_err(of_graph)?;
        let structure = structure(onnx).map_err(of_graph)?;
        let network = backend
            .network(name, onnx, provider, options)
            .map_err(|what| NnError::Provider {
                provider,
                bundle: format!("{bundle}/{name}"),
                what,
            })?;
        for input in network.inputs() {
            check_port(name, "input", input, contract.may_take, contract.channels)
                .map_err(wrong)?;
        }
        for (output, _) in contract.must_give {
            let port = network
                .outputs()
                .iter()
                .find(|o| o.name == *output)
                .ok_or_else(|| wrong(format!("the graph {name} has no output {output}")))?;
            check_port(name, "output", port, contract.must_give, contract.channels)
                .map_err(wrong)?;
        }
        Ok(Self {
            name,
            bundle: bundle.into(),
            network,
            first_run: match provider {
                Provider::TensorRt => FIRST_RUN_WITH_BUILD,
                Provider::Cpu | Provider::Cuda => FIRST_RUN,
            },
            structure,
        })
    }

    /// How far its results depend on others, and how many multiplications it takes.
    pub(super) fn structure(&self) -> Structure {
        self.structure
    }

    /// Whether it has an input of that name.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.network.inputs().iter().any(|input| input.name == name)
    }

    /// Runs the network on named inputs and returns the named outputs.
    pub(super) fn run<'v, const N: usize>(
        &self,
        mut feed: impl FnMut(&str) -> Option<Tensor<'v>>,
        outputs: [&str; N],
        cancel: &Cancel,
    ) -> Result<[Box<dyn Output>; N]> {
        let mut inputs = Vec::with_capacity(self.network.inputs().len());
        for port in self.network.inputs() {
            let name = &*port.name;
            let tensor = feed(name)
                .ok_or_else(|| self.failed(format!("nothing to feed its input {name}")))?;
            inputs.push((name, tensor));
        }
        let results = match self.network.run(&inputs, &outputs, cancel) {
            Ok(results) => results,
            Err(RunError::Cancelled) => return Err(NnError::Cancelled),
            Err(RunError::Failed(what)) => return Err(self.failed(what)),
        };
        let count = results.len();
        results
            .try_into()
            .map_err(|_| self.failed(format!("it gave {count} outputs of {N}")))
    }

    /// Runs a network for the first time, which nobody can wait for without end.
    pub(super) fn run_in_time<T>(&self, run: impl FnOnce(&Cancel) -> Result<T>) -> Result<T> {
        Cancel::after(self.first_run, run).unwrap_or_else(|| {
            Err(self.failed(format!(
                "it did not end within {} s on a small input; it cannot be used",
                self.first_run.as_secs()
            )))
        })
    }

    /// Runs a stored input and compares checksums.
    pub(super) fn verify(&self, answer: &KnownAnswer, provider: Provider) -> Result<()> {
        let inputs: Vec<(&str, Stored, [usize; 4])> = answer
            .inputs
            .iter()
            .map(|input| (&*input.name, Stored::of(input), input.shape))
            .collect();
        for (output, expected) in &answer.outputs {
            let feed = |name: &str| {
                let (_, stored, shape) = inputs.iter().find(|i| i.0 == name)?;
                Some(Tensor {
                    shape: *shape,
                    data: stored.data(),
                })
            };
            let [value] = self.run_in_time(|cancel| self.run(feed, [output], cancel))?;
            let fail = |what: String| self.failed(format!("output {output}: {what}"));
            let tensor = value.tensor().map_err(fail)?;
            let got = checksum(&tensor.data).map_err(fail)?;
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

    /// The error of a run.
    pub(super) fn failed(&self, what: String) -> NnError {
        NnError::Run {
            bundle: self.bundle.clone(),
            graph: self.name,
            what,
        }
    }
}

/// Elements of an output after checking its type and shape.
pub(super) fn elements<T: Scalar>(value: &dyn Output, shape: [usize; 4]) -> Result<&[T], String> {
    let tensor = value.tensor()?;
    if tensor.shape != shape {
        return Err(format!(
            "it has the shape {:?}, expected {shape:?}",
            tensor.shape
        ));
    }
    T::elements(&tensor.data).ok_or_else(|| {
        let expected = T::data(&[]).element();
        format!("it is of {}, expected {expected}", tensor.data.element())
    })
}

fn check_port(
    graph: &str,
    side: &str,
    port: &Port,
    interface: &Interface,
    channels: &dyn Fn(&str) -> Option<usize>,
) -> Result<(), String> {
    let name = &*port.name;
    let Some((_, expected)) = interface.iter().find(|(n, _)| *n == name) else {
        return Err(format!(
            "the graph {graph} has an {side} {name} that this version does not know"
        ));
    };
    let fits = match expected {
        Some(expected) => port.element == *expected,
        None => matches!(port.element, Element::U8 | Element::I8),
    };
    if !fits {
        let expected = expected.map_or("uint8 or int8".into(), |t| t.to_string());
        return Err(format!(
            "{side} {name} of graph {graph} is of {}, it must be a tensor of {expected}",
            port.element
        ));
    }
    let expected = channels(name);
    let open_or = |length: Option<usize>, expected: usize| length.is_none_or(|n| n == expected);
    if port.shape.len() != 4 || expected.is_some_and(|c| !open_or(port.shape[1], c)) {
        let expected = expected.map_or("any".into(), |c| c.to_string());
        return Err(format!(
            "{side} {name} of graph {graph} has the shape {:?}, it must have four dimensions \
             and {expected} channels",
            port.shape
        ));
    }
    Ok(())
}

/// A stored input in the machine's order of bytes.
enum Stored {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    F32(Vec<f32>),
}

impl Stored {
    fn of(input: &AnswerInput) -> Self {
        let data = &input.data;
        let pairs = || data.as_chunks::<2>().0.iter();
        match input.dtype {
            DType::U8 => Self::U8(data.clone()),
            DType::I8 => Self::I8(data.iter().map(|&b| b as i8).collect()),
            DType::U16 => Self::U16(pairs().map(|&b| u16::from_le_bytes(b)).collect()),
            DType::I16 => Self::I16(pairs().map(|&b| i16::from_le_bytes(b)).collect()),
            DType::F32 => {
                let words = data.as_chunks::<4>().0.iter();
                Self::F32(words.map(|&b| f32::from_le_bytes(b)).collect())
            }
        }
    }

    fn data(&self) -> Data<'_> {
        match self {
            Self::U8(d) => Data::U8(d),
            Self::I8(d) => Data::I8(d),
            Self::U16(d) => Data::U16(d),
            Self::I16(d) => Data::I16(d),
            Self::F32(d) => Data::F32(d),
        }
    }
}

/// CRC-32C of an integer tensor's bytes in little-endian order.
fn checksum(data: &Data<'_>) -> Result<u32, String> {
    fn crc<T: Copy, const B: usize>(data: &[T], bytes: impl Fn(T) -> [u8; B]) -> u32 {
        data.chunks(4096).fold(0, |crc, part| {
            let part: Vec<u8> = part.iter().flat_map(|&v| bytes(v)).collect();
            crc32c::crc32c_append(crc, &part)
        })
    }
    match data {
        Data::U8(data) => Ok(crc32c::crc32c(data)),
        Data::I8(data) => Ok(crc(data, |v| v.to_le_bytes())),
        Data::I16(data) => Ok(crc(data, i16::to_le_bytes)),
        other => Err(format!(
            "{} cannot be a known answer, only u8, i8 and i16 tensors can",
            other.element()
        )),
    }
}

// SPDX-License-Identifier: MPL-2.0
//! What runs the networks, as this crate sees it: ONNX Runtime natively ([`crate::onnxruntime`]),
//! something else in a browser. Whoever implements [`Backend`] is held to the known answers of
//! every bundle like any other.

use std::fmt::Debug;

use super::cancel::Cancel;
use super::{Provider, RuntimeOptions};

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Floating point, 32 bits.
    F32,
    /// Any other: no network of a bundle may have it.
    Other,
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::F32 => "float32",
            Self::Other => "another type",
        })
    }
}

/// Elements of a tensor, in row-major order.
#[derive(Debug, Clone, Copy)]
pub enum Data<'a> {
    /// Unsigned, 8 bits.
    U8(&'a [u8]),
    /// Signed, 8 bits.
    I8(&'a [i8]),
    /// Unsigned, 16 bits.
    U16(&'a [u16]),
    /// Signed, 16 bits.
    I16(&'a [i16]),
    /// Floating point, 32 bits.
    F32(&'a [f32]),
}

impl Data<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(d) => d.len(),
            Self::I8(d) => d.len(),
            Self::U16(d) => d.len(),
            Self::I16(d) => d.len(),
            Self::F32(d) => d.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Type of the elements.
    pub fn element(&self) -> Element {
        match self {
            Self::U8(_) => Element::U8,
            Self::I8(_) => Element::I8,
            Self::U16(_) => Element::U16,
            Self::I16(_) => Element::I16,
            Self::F32(_) => Element::F32,
        }
    }
}

/// A type that tensors may have.
pub trait Scalar: Copy + Send + Sync + 'static {
    /// Borrowed elements of this type.
    fn data(elements: &[Self]) -> Data<'_>;
    /// The elements, where they are of this type.
    fn elements<'a>(data: &Data<'a>) -> Option<&'a [Self]>;
}

macro_rules! scalar {
    ($($type:ty => $variant:ident),*) => {$(
        impl Scalar for $type {
            fn data(elements: &[Self]) -> Data<'_> {
                Data::$variant(elements)
            }

            fn elements<'a>(data: &Data<'a>) -> Option<&'a [Self]> {
                match *data {
                    Data::$variant(elements) => Some(elements),
                    _ => None,
                }
            }
        }
    )*};
}

scalar!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, f32 => F32);

/// A borrowed tensor of four dimensions, as all networks of this project take and give them.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// Lengths of the dimensions; their product is the number of elements.
    pub shape: [usize; 4],
    /// Elements.
    pub data: Data<'a>,
}

impl<'a> Tensor<'a> {
    /// A view of elements that are there.
    pub fn new<T: Scalar>(shape: [usize; 4], elements: &'a [T]) -> Self {
        Self {
            shape,
            data: T::data(elements),
        }
    }
}

/// What a run gave, in memory of the back end.
pub trait Output: Debug + Send + Sync {
    /// The tensor.
    ///
    /// # Errors
    /// What is wrong where it is no tensor of four dimensions and a known type.
    fn tensor(&self) -> Result<Tensor<'_>, String>;
}

/// An input or output of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the graph.
    pub name: String,
    /// Type of its elements.
    pub element: Element,
    /// Lengths of the dimensions, `None` where any will do.
    pub shape: Vec<Option<usize>>,
}

/// Why a run gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunError {
    /// Aborted through its [`Cancel`] handle.
    Cancelled,
    /// What failed.
    Failed(String),
}

/// The tensors of named inputs, in the order of a network's ports.
///
/// # Errors
/// [`RunError::Failed`] names the first port that nothing is there for.
pub fn in_order<'v>(
    ports: &[Port],
    inputs: &[(&str, Tensor<'v>)],
) -> Result<Vec<Tensor<'v>>, RunError> {
    let tensor = |port: &Port| {
        let found = inputs.iter().find(|(name, _)| *name == port.name);
        found
            .map(|(_, tensor)| *tensor)
            .ok_or_else(|| RunError::Failed(format!("nothing to feed its input {}", port.name)))
    };
    ports.iter().map(tensor).collect()
}

/// A network that is ready to run. Calls may come from any thread, several at once.
pub trait Network: Debug + Send + Sync {
    /// What it takes.
    fn inputs(&self) -> &[Port];

    /// What it gives.
    fn outputs(&self) -> &[Port];

    /// Runs on named inputs, all of [`inputs`](Self::inputs), and returns the named outputs in
    /// their order.
    ///
    /// # Errors
    /// [`RunError`]; where `cancel` is cancelled, now or during the run, [`RunError::Cancelled`].
    fn run(
        &self,
        inputs: &[(&str, Tensor<'_>)],
        outputs: &[&str],
        cancel: &Cancel,
    ) -> Result<Vec<Box<dyn Output>>, RunError>;
}

/// What makes networks out of ONNX graphs.
pub trait Backend: Send + Sync {
    /// Tells back ends apart: models are shared among those who ask for the same bundle on the same
    /// back end.
    fn name(&self) -> &'static str;

    /// Providers to try where none is asked for, best first; never empty.
    fn providers(&self) -> &'static [Provider];

    /// Makes a network of the bytes of an ONNX graph. `name` is for messages.
    ///
    /// # Errors
    /// Why the provider cannot run it.
    fn network(
        &self,
        name: &str,
        onnx: &[u8],
        provider: Provider,
        options: &RuntimeOptions,
    ) -> Result<Box<dyn Network>, String>;
}

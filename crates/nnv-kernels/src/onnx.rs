// SPDX-License-Identifier: MPL-2.0
//! Reads an ONNX graph: nodes, constants and ports.

use std::collections::HashMap;

use nnv_nn::backend::{Element, Port};
use nnv_nn::onnx::{Message, Value};

/// An operator and what it works on, by names of tensors.
#[derive(Debug, Default)]
pub struct Node {
    pub operator: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    /// Attributes that are integers or lists of them; others have no place in our graphs.
    attributes: HashMap<String, Vec<i64>>,
}

impl Node {
    /// An attribute's integers; none where it is not given.
    pub fn ints(&self, name: &str) -> &[i64] {
        self.attributes.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether an attribute is given.
    pub fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    /// An attribute that is one integer.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.ints(name) {
            [value] => Some(*value),
            _ => None,
        }
    }
}

/// Elements of a constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    U8(Vec<u8>),
    I8(Vec<i8>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
}

impl Elements {
    fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
        }
    }
}

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    pub shape: Vec<usize>,
    pub elements: Elements,
}

/// A graph as it stands in the file.
#[derive(Debug, Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub constants: HashMap<String, Constant>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// Reads the bytes of a model, which [`nnv_nn`] has judged before.
///
/// # Errors
/// A sentence on what it holds that these kernels do not know.
pub fn read(model: &[u8]) -> Result<Graph, String> {
    let mut graph = Graph::default();
    let mut message = Message(model);
    while let Some(field) = message.field()? {
        if let (7, Value::Bytes(bytes)) = field {
            let mut message = Message(bytes);
            while let Some(field) = message.field()? {
                match field {
                    (1, Value::Bytes(bytes)) => graph.nodes.push(node(bytes)?),
                    (5, Value::Bytes(bytes)) => {
                        let (name, constant) = constant(bytes)?;
                        graph.constants.insert(name, constant);
                    }
                    (11, Value::Bytes(bytes)) => graph.inputs.push(port(bytes)?),
                    (12, Value::Bytes(bytes)) => graph.outputs.push(port(bytes)?),
                    _ => {}
                }
            }
        }
    }
    // Old files list their constants among the inputs.
    graph
        .inputs
        .retain(|i| !graph.constants.contains_key(&i.name));
    Ok(graph)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn node(bytes: &[u8]) -> Result<Node, String> {
    let mut node = Node::default();
    let mut message = Message(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(name)) => node.inputs.push(text(name)),
            (2, Value::Bytes(name)) => node.outputs.push(text(name)),
            (4, Value::Bytes(name)) => node.operator = text(name),
            (5, Value::Bytes(bytes)) => {
                let (name, ints) = attribute(bytes)?;
                node.attributes.insert(name, ints);
            }
            _ => {}
        }
    }
    Ok(node)
}

/// Numbers of a field, which may be packed.
fn numbers(value: Value<'_>, out: &mut Vec<i64>) -> Result<(), String> {
    match value {
        Value::Number(n) => out.push(n.cast_signed()),
        Value::Bytes(bytes) => {
            let mut packed = Message(bytes);
            while !packed.0.is_empty() {
                out.push(packed.varint()?.cast_signed());
            }
        }
        Value::Fixed => {}
    }
    Ok(())
}

fn attribute(bytes: &[u8]) -> Result<(String, Vec<i64>), String> {
    let (mut name, mut ints) = (String::new(), Vec::new());
    let mut message = Message(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(bytes)) => name = text(bytes),
            (3 | 8, value) => numbers(value, &mut ints)?,
            _ => {}
        }
    }
    Ok((name, ints))
}

fn constant(bytes: &[u8]) -> Result<(String, Constant), String> {
    let (mut name, mut shape, mut kind, mut raw) = (String::new(), Vec::new(), 0, None);
    let mut message = Message(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, value) => numbers(value, &mut shape)?,
            (2, Value::Number(n)) => kind = n,
            (8, Value::Bytes(bytes)) => name = text(bytes),
            (9, Value::Bytes(bytes)) => raw = Some(bytes),
            _ => {}
        }
    }
    let raw = raw.ok_or_else(|| format!("the constant {name} holds no plain bytes"))?;
    let elements = match kind {
        1 => Elements::F32(words(raw).map(f32::from_le_bytes).collect()),
        2 => Elements::U8(raw.to_vec()),
        3 => Elements::I8(raw.iter().map(|b| b.cast_signed()).collect()),
        6 => Elements::I32(words(raw).map(i32::from_le_bytes).collect()),
        7 => Elements::I64(words(raw).map(i64::from_le_bytes).collect()),
        other => return Err(format!("the constant {name} has elements of type {other}")),
    };
    let lengths = shape
        .into_iter()
        .map(usize::try_from)
        .collect::<Result<Vec<_>, _>>();
    let shape = lengths.map_err(|_| format!("the constant {name} has no shape"))?;
    let expected = shape.iter().try_fold(1usize, |n, &len| n.checked_mul(len));
    if expected != Some(elements.len()) {
        return Err(format!(
            "the constant {name} does not fill its shape {shape:?}"
        ));
    }
    Ok((name, Constant { shape, elements }))
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks().0.iter().copied()
}

fn port(bytes: &[u8]) -> Result<Port, String> {
    let mut port = Port {
        name: String::new(),
        element: Element::Other,
        shape: Vec::new(),
    };
    let mut message = Message(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(name)) => port.name = text(name),
            (2, Value::Bytes(kind)) => kind_of(kind, &mut port)?,
            _ => {}
        }
    }
    Ok(port)
}

/// Element type and shape of a tensor, from a `TypeProto`.
fn kind_of(bytes: &[u8], port: &mut Port) -> Result<(), String> {
    let mut message = Message(bytes);
    while let Some(field) = message.field()? {
        let (1, Value::Bytes(tensor)) = field else {
            continue;
        };
        let mut tensor = Message(tensor);
        while let Some(field) = tensor.field()? {
            match field {
                (1, Value::Number(n)) => {
                    port.element = match n {
                        1 => Element::F32,
                        2 => Element::U8,
                        3 => Element::I8,
                        4 => Element::U16,
                        5 => Element::I16,
                        _ => Element::Other,
                    }
                }
                (2, Value::Bytes(shape)) => {
                    let mut shape = Message(shape);
                    while let Some(field) = shape.field()? {
                        if let (1, Value::Bytes(length)) = field {
                            port.shape.push(dimension(length)?);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Its length where that is a number, not a name.
fn dimension(bytes: &[u8]) -> Result<Option<usize>, String> {
    let mut message = Message(bytes);
    let mut length = None;
    while let Some(field) = message.field()? {
        if let (1, Value::Number(n)) = field {
            length = usize::try_from(n).ok();
        }
    }
    Ok(length)
}

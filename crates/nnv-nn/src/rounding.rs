// SPDX-License-Identifier: MPL-2.0
//! Finds the sums of a network that round, where processors do not round alike, and keeps them in
//! float32.
//!
//! ONNX Runtime makes one addition of 8-bit numbers of what the graph says in float32:
//! dequantise, add, quantise. On x86 that addition rounds halves to even, as the graph says; on
//! ARM64 away from zero (decision 187). Sums whose scale is no coarser than those of both terms
//! never meet a half: they are exact everywhere.
//!
//! Of operators for additions, it does so with `Add` alone. `Sum` of two terms is the same number.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::onnx::{Message, Value};

/// Most operators between a sum and where it is quantised.
const PASSES: usize = 4;
/// The operator that is fused, and the one that is not: names of equal length, so that one takes
/// the other's place in the file.
const FUSED: &[u8; 3] = b"Add";
const PLAIN: &[u8; 3] = b"Sum";

#[derive(Default)]
struct Node {
    operator: Vec<u8>,
    /// Where the operator's name stands in the file.
    place: Range<usize>,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
}

/// The model with those sums in float32 that round: what it computes stays the same, and every
/// processor computes it.
///
/// # Errors
/// A sentence where the bytes are no ONNX file.
pub fn sums_in_float(model: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let mut out = Cow::Borrowed(model);
    for place in rounding_sums(model)? {
        out.to_mut()[place].copy_from_slice(PLAIN);
    }
    Ok(out)
}

/// Where the names of those sums of dequantised numbers stand that are quantised again with a scale
/// that makes them round. Scales that are no plain numbers of the graph count as such.
fn rounding_sums(model: &[u8]) -> Result<Vec<Range<usize>>, String> {
    let (mut nodes, mut scales) = (Vec::new(), HashMap::new());
    let mut message = Message(model);
    while let Some((number, value)) = message.field()? {
        if let (7, Value::Bytes(graph)) = (number, value) {
            read(model, graph, &mut nodes, &mut scales)?;
        }
    }
    let is = |node: &Node, operators: &[&[u8]]| operators.contains(&&node.operator[..]);
    // Tensor to the scale that it was dequantised with, or is quantised with.
    let (mut from, mut to) = (HashMap::new(), HashMap::new());
    let mut passes = HashMap::new();
    for node in &nodes {
        let (Some(input), Some(output)) = (node.inputs.first(), node.outputs.first()) else {
            continue;
        };
        let scale = || {
            node.inputs
                .get(1)
                .and_then(|name| scales.get(name))
                .copied()
        };
        if is(node, &[b"DequantizeLinear"]) {
            from.insert(output, scale());
        } else if is(node, &[b"QuantizeLinear"]) {
            to.insert(input, scale());
        } else if is(node, &[b"Relu", b"Clip"]) {
            passes.insert(input, output);
        }
    }
    let rounds = |sum: &&Node| {
        let (Some(mut output), [a, b]) = (sum.outputs.first(), &sum.inputs[..]) else {
            return false;
        };
        let (Some(a), Some(b)) = (from.get(a), from.get(b)) else {
            return false;
        };
        // What only cuts off is made part of the addition.
        for _ in 0..PASSES {
            if let (false, Some(next)) = (to.contains_key(output), passes.get(output)) {
                output = next;
            }
        }
        match (to.get(output), a, b) {
            (None, ..) => false,
            (Some(Some(step)), Some(a), Some(b)) => {
                [a, b].iter().any(|term| (**term / step).fract() != 0.0)
            }
            _ => true,
        }
    };
    let sums = nodes.iter().filter(|n| is(n, &[FUSED]));
    Ok(sums.filter(rounds).map(|n| n.place.clone()).collect())
}

fn read(
    model: &[u8],
    graph: &[u8],
    nodes: &mut Vec<Node>,
    scales: &mut HashMap<Vec<u8>, f32>,
) -> Result<(), String> {
    let mut message = Message(graph);
    while let Some((number, value)) = message.field()? {
        match (number, value) {
            (1, Value::Bytes(bytes)) => {
                let (mut node, mut fields) = (Node::default(), Message(bytes));
                while let Some((number, value)) = fields.field()? {
                    let Value::Bytes(bytes) = value else { continue };
                    match number {
                        1 => node.inputs.push(bytes.to_vec()),
                        2 => node.outputs.push(bytes.to_vec()),
                        4 => {
                            let begin = bytes.as_ptr().addr() - model.as_ptr().addr();
                            node.place = begin..begin + bytes.len();
                            node.operator = bytes.to_vec();
                        }
                        _ => {}
                    }
                }
                nodes.push(node);
            }
            (5, Value::Bytes(bytes)) => {
                if let Some((name, scale)) = scalar(bytes)? {
                    scales.insert(name, scale);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Name and value of a tensor of one float32.
fn scalar(tensor: &[u8]) -> Result<Option<(Vec<u8>, f32)>, String> {
    let (mut name, mut value, mut float, mut message) = (Vec::new(), None, false, Message(tensor));
    while let Some(field) = message.field()? {
        match field {
            (2, Value::Number(kind)) => float = kind == 1,
            // As packed numbers and as raw bytes it looks the same.
            (4 | 9, Value::Bytes(bytes)) => value = bytes.try_into().ok().map(f32::from_le_bytes),
            (8, Value::Bytes(bytes)) => name = bytes.to_vec(),
            _ => {}
        }
    }
    Ok(value.filter(|_| float).map(|value| (name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sum_of_each_prior_rounds_and_none_of_the_syntheses() {
        let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        for bundle in ["realtime", "visual"] {
            for (graph, sums) in [
                ("key_prior", 1),
                ("inter_prior", 1),
                ("key_synth", 0),
                ("inter_synth", 0),
                ("key_mean", 0),
            ] {
                let path = models.join(bundle).join(graph).with_extension("onnx");
                let bytes = std::fs::read(path).unwrap();
                let found = rounding_sums(&bytes).unwrap();
                assert_eq!(found.len(), sums, "{bundle} {graph}");
                let changed = sums_in_float(&bytes).unwrap();
                let differing = bytes.iter().zip(&*changed).filter(|(a, b)| a != b).count();
                // No letter of both names is the same at the same place.
                assert_eq!(differing, sums * FUSED.len(), "{bundle} {graph}");
                assert!(rounding_sums(&changed).unwrap().is_empty());
            }
        }
        assert!(sums_in_float(b"not a model").is_err());
    }
}

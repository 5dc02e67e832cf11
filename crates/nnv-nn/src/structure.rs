// SPDX-License-Identifier: MPL-2.0
//! What the graph of a codec's network tells: how far results depend on what is around them, and
//! how many multiplications it takes.

use std::collections::HashMap;

use super::onnx::{Message, Value};

/// Inputs that are packed pictures: two positions along a side of a block. Those of all others are
/// blocks.
const PICTURES: [&[u8]; 3] = [b"p", b"d", b"x"];
/// Inputs without places.
const PLACELESS: [&[u8]; 3] = [b"qvec", b"qoff", b"step"];

/// A tensor with places, in half blocks of 16×16 luma samples (positions of a packed picture).
#[derive(Debug, Clone, Copy)]
struct Places {
    /// From one to the next.
    apart: u64,
    /// How far they depend on others.
    reach: u64,
}

/// What a graph tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Structure {
    /// Blocks of 16×16 luma samples around a place that its results depend on, at most.
    pub reach: usize,
    /// Multiplications with additions for each of these blocks, in its convolutions.
    pub macs: u64,
}

#[derive(Default)]
struct Node<'a> {
    operator: &'a [u8],
    inputs: Vec<&'a [u8]>,
    outputs: Vec<&'a [u8]>,
    kernel: u64,
    stride: u64,
}

/// Reads a graph.
///
/// Pixel shuffles are written with `Reshape` in these networks, which therefore stands for a tensor
/// that becomes a picture.
///
/// # Errors
/// A sentence where the bytes are no ONNX file.
pub(super) fn structure(model: &[u8]) -> Result<Structure, String> {
    let mut tensors: HashMap<&[u8], Places> = HashMap::new();
    // How many weights there are in each.
    let mut weights: HashMap<&[u8], u64> = HashMap::new();
    let mut message = Message(model);
    let (mut most, mut macs) = (0, 0u64);
    while let Some((number, value)) = message.field()? {
        let (7, Value::Bytes(graph)) = (number, value) else {
            continue;
        };
        // Inputs and weights may stand behind the nodes that read them.
        let mut fields = Message(graph);
        while let Some((number, value)) = fields.field()? {
            let Value::Bytes(bytes) = value else { continue };
            if number == 5 {
                let (name, count) = tensor(bytes)?;
                weights.insert(name, count);
            } else if number == 11
                && let Some(name) = name_of(bytes)?
                && !PLACELESS.contains(&name)
            {
                let apart = if PICTURES.contains(&name) { 1 } else { 2 };
                tensors.insert(name, Places { apart, reach: 0 });
            }
        }
        let mut fields = Message(graph);
        while let Some((number, value)) = fields.field()? {
            if let (1, Value::Bytes(bytes)) = (number, value) {
                let node = node(bytes)?;
                let of = |at: usize| weights.get(*node.inputs.get(at)?).copied();
                if node.operator == b"DequantizeLinear"
                    && let Some(count) = of(0)
                {
                    weights.extend(node.outputs.iter().map(|name| (*name, count)));
                    continue;
                }
                let known = node.inputs.iter().filter_map(|name| tensors.get(name));
                let joined = known.copied().reduce(|a, b| Places {
                    apart: a.apart.max(b.apart),
                    reach: a.reach.max(b.reach),
                });
                let Some(mut places) = joined else { continue };
                match node.operator {
                    b"Conv" => {
                        let (kernel, stride) = (node.kernel.clamp(1, 1 << 16), node.stride.max(1));
                        // Windows of their own size side by side reach no further than their place.
                        let around = match stride {
                            1 => kernel / 2,
                            _ => kernel.saturating_sub(stride),
                        };
                        let further = around.saturating_mul(places.apart);
                        places.reach = places.reach.saturating_add(further);
                        places.apart = places.apart.saturating_mul(stride).min(1 << 16);
                        let each = of(1).unwrap_or(0).saturating_mul(4);
                        macs = macs.saturating_add(each.div_ceil(places.apart.pow(2)));
                    }
                    b"Reshape" => places.apart = 1,
                    _ => {}
                }
                most = most.max(places.reach);
                tensors.extend(node.outputs.iter().map(|name| (*name, places)));
            }
        }
    }
    Ok(Structure {
        reach: usize::try_from(most.div_ceil(2)).unwrap_or(usize::MAX),
        macs,
    })
}

/// Name of a tensor and how many elements it has.
fn tensor(bytes: &[u8]) -> Result<(&[u8], u64), String> {
    let (mut name, mut count) = (&[][..], 1u64);
    let mut message = Message(bytes);
    while let Some(field) = message.field()? {
        match field {
            (8, Value::Bytes(bytes)) => name = bytes,
            (1, Value::Number(n)) => count = count.saturating_mul(n),
            (1, Value::Bytes(packed)) => {
                let mut packed = Message(packed);
                while !packed.0.is_empty() {
                    count = count.saturating_mul(packed.varint()?);
                }
            }
            _ => {}
        }
    }
    Ok((name, count))
}

fn name_of(input: &[u8]) -> Result<Option<&[u8]>, String> {
    let mut message = Message(input);
    while let Some(field) = message.field()? {
        if let (1, Value::Bytes(name)) = field {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn node(bytes: &[u8]) -> Result<Node<'_>, String> {
    let mut node = Node {
        kernel: 1,
        stride: 1,
        ..Node::default()
    };
    let mut message = Message(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(name)) => node.inputs.push(name),
            (2, Value::Bytes(name)) => node.outputs.push(name),
            (4, Value::Bytes(name)) => node.operator = name,
            (5, Value::Bytes(bytes)) => {
                let (name, most) = attribute(bytes)?;
                match name {
                    b"kernel_shape" => node.kernel = most,
                    b"strides" => node.stride = most,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Ok(node)
}

/// Name and greatest integer of an attribute.
fn attribute(bytes: &[u8]) -> Result<(&[u8], u64), String> {
    let (mut name, mut most) = (&[][..], 1);
    let mut message = Message(bytes);
    while let Some(field) = message.field()? {
        match field {
            (1, Value::Bytes(bytes)) => name = bytes,
            (8, Value::Number(n)) => most = most.max(n),
            (8, Value::Bytes(packed)) => {
                let mut packed = Message(packed);
                while !packed.0.is_empty() {
                    most = most.max(packed.varint()?);
                }
            }
            _ => {}
        }
    }
    Ok((name, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_ship_take_what_their_model_cards_say() {
        for bundle in ["realtime", "visual"] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            let folder = folder.join("../../models").join(bundle);
            let of = |name: &str| {
                let file = folder.join(format!("{name}.onnx"));
                structure(&std::fs::read(file).unwrap()).unwrap()
            };
            // Six 3×3 windows on half blocks; one of these and three on blocks.
            let (synth, prior) = (of("inter_synth"), of("inter_prior"));
            assert_eq!((synth.reach, prior.reach), (3, 4), "{bundle}");
            let card = std::fs::read_to_string(folder.join("MODEL_CARD.md")).unwrap();
            let mut rows = 0;
            for line in card.lines() {
                // Name, normative, bytes, multiplications for each luma sample.
                let cells: Vec<_> = line.split('|').map(str::trim).collect();
                if let [_, name, "yes", _, macs, ..] = cells[..] {
                    // The card counts what the quantizer's vector goes through for each block,
                    // which takes it once a picture.
                    let once = if name.ends_with("prior") { 12_288 } else { 0 };
                    let found = (of(name).macs + once) as f64 / 256.0;
                    assert_eq!(format!("{found:.0}"), macs, "{bundle}, {name}");
                    rows += 1;
                }
            }
            assert_eq!(rows, 4, "{bundle}");
        }
        assert!(structure(b"not a model").is_err());
        assert_eq!(structure(b""), Ok(Structure::default()));
    }
}

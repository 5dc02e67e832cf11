// SPDX-License-Identifier: MPL-2.0
//! Turns a graph of quantised operators into steps on integers.
//!
//! Such a graph speaks of real numbers, and says where they are rounded to 8 bits
//! (`QuantizeLinear`) and read back (`DequantizeLinear`). All scales of ours are powers of two, so
//! that a real number is an integer times a power of two, and everything between two roundings is
//! exact in integers. Graphs with anything else are refused.

use std::collections::{HashMap, HashSet};

use nnv_nn::backend::Element;

use super::onnx::{Constant, Elements, Graph, Node};
use super::product::{Depthwise, Finish, Product};

/// Number of a tensor of a run.
pub type Slot = usize;

/// Reads integers as real numbers: the tensor times the scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Operand {
    pub slot: Slot,
    pub scale: f32,
}

/// How a tensor lies in memory; pixels with all their channels behind each other in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    I16,
    F32,
}

/// A window of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Rows and columns.
    pub size: [usize; 2],
    pub stride: [usize; 2],
    /// Zeros above, left, below and right.
    pub pads: [usize; 4],
}

/// What makes one tensor out of others.
#[derive(Debug)]
pub enum Operation {
    /// Each pixel by itself.
    Product(Slot, Product),
    /// The pixels of a window, joined, as one.
    Windowed(Slot, Window, Product),
    Depthwise(Slot, Depthwise),
    /// Sum of two, times a factor each, rounded and cut off: integers.
    AddQuantised {
        terms: [Operand; 2],
        low: f32,
        high: f32,
    },
    /// Sum of two as float32.
    AddReal([Operand; 2]),
    /// Times a factor, rounded and cut off: integers.
    Quantise {
        of: Operand,
        low: f32,
        high: f32,
    },
    Clip {
        of: Slot,
        low: f32,
        high: f32,
    },
    /// Times factors, one for all or one for each channel: float32.
    Scale {
        of: Slot,
        factors: Vec<f32>,
    },
    /// Both times each other, the second of one channel: float32.
    Mask(Slot, Slot),
    /// The first of two where a mask of one channel is not 0.
    Select {
        mask: Slot,
        of: [Slot; 2],
    },
    Round(Slot),
    /// Channels behind each other: integers.
    Concat(Vec<Slot>),
    /// Four channels become the four pixels of a square.
    DepthToSpace(Slot),
    /// Float32 that are integers of 16 bits.
    Integers(Slot),
}

impl Operation {
    /// What it reads.
    pub fn reads(&self) -> Vec<Slot> {
        match self {
            Self::Product(of, _)
            | Self::Windowed(of, ..)
            | Self::Depthwise(of, _)
            | Self::Quantise {
                of: Operand { slot: of, .. },
                ..
            }
            | Self::Clip { of, .. }
            | Self::Scale { of, .. }
            | Self::Round(of)
            | Self::DepthToSpace(of)
            | Self::Integers(of) => vec![*of],
            Self::AddQuantised { terms, .. } | Self::AddReal(terms) => {
                terms.iter().map(|t| t.slot).collect()
            }
            Self::Mask(a, b) => vec![*a, *b],
            Self::Select { mask, of } => vec![*mask, of[0], of[1]],
            Self::Concat(of) => of.clone(),
        }
    }
}

/// One step of a run.
#[derive(Debug)]
pub struct Step {
    pub operation: Operation,
    pub into: Slot,
    /// Tensors that no later step reads.
    pub frees: Vec<Slot>,
}

/// An input or output, whose elements are those of its slot plus `zero`.
#[derive(Debug)]
pub struct End {
    pub name: String,
    pub element: Element,
    pub slot: Slot,
    pub zero: i32,
}

/// All steps of a network.
#[derive(Debug)]
pub struct Plan {
    pub inputs: Vec<End>,
    pub steps: Vec<Step>,
    pub outputs: Vec<End>,
    /// Number of tensors.
    pub slots: usize,
}

/// What is known of a tensor before any run.
#[derive(Debug, Clone, Copy)]
struct Facts {
    store: Store,
    channels: usize,
    low: f32,
    high: f32,
    integral: bool,
}

/// A dimension of a shape that a graph computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Number(i64),
    /// So many times the rows of a tensor.
    Rows(Slot, i64),
    /// Another length of a tensor.
    Other,
}

/// How far pixels are on the way from channels into squares: our graphs say it with three
/// `Reshape` and two `Transpose`, which `DepthToSpace` is short for.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Pairs,
    Columns,
    Halves,
    Rows,
}

/// What a name of the graph stands for.
#[derive(Debug, Clone)]
enum Meaning {
    /// Signed weights and their scales, by output.
    Weights {
        shape: [usize; 4],
        weights: Vec<i8>,
        scales: Vec<f32>,
    },
    Bias {
        bias: Vec<i32>,
        scales: Vec<f32>,
    },
    /// Integers: those of the slot plus `zero`.
    Integers {
        slot: Slot,
        zero: i32,
    },
    Real(Operand),
    /// Where an integer is not 0.
    Mask(Slot),
    Shape(Vec<Length>),
    Moving {
        slot: Slot,
        zero: Option<i32>,
        scale: f32,
        channels: usize,
        stage: Stage,
    },
}

/// 0 and rest in the manner of `Reshape`.
const REST: i64 = -1;

struct Compiler<'g> {
    graph: &'g Graph,
    meanings: HashMap<&'g str, Meaning>,
    facts: Vec<Facts>,
    steps: Vec<Step>,
    /// Nodes that read a tensor.
    readers: HashMap<&'g str, Vec<usize>>,
    /// Nodes that were made part of the one before.
    fused: HashSet<usize>,
}

type Made<T> = Result<T, String>;

/// Makes the plan.
///
/// # Errors
/// A sentence on what these kernels cannot run.
pub fn compile(graph: &Graph) -> Made<Plan> {
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        for input in &node.inputs {
            readers.entry(input).or_default().push(i);
        }
    }
    let mut compiler = Compiler {
        graph,
        meanings: HashMap::new(),
        facts: Vec::new(),
        steps: Vec::new(),
        readers,
        fused: HashSet::new(),
    };
    let inputs = graph
        .inputs
        .iter()
        .map(|port| compiler.input(port))
        .collect::<Made<Vec<End>>>()?;
    for (i, node) in graph.nodes.iter().enumerate() {
        if !compiler.fused.contains(&i) {
            compiler
                .node(node)
                .map_err(|what| format!("{}: {what}", node.operator))?;
        }
    }
    let outputs = graph
        .outputs
        .iter()
        .map(|port| match compiler.meanings.get(&*port.name) {
            Some(&Meaning::Integers { slot, zero }) => Ok(End {
                name: port.name.clone(),
                element: port.element,
                slot,
                zero,
            }),
            _ => Err(format!("the output {} is not of integers", port.name)),
        })
        .collect::<Made<Vec<End>>>()?;
    let Compiler {
        mut steps, facts, ..
    } = compiler;
    let mut kept: HashSet<Slot> = outputs.iter().map(|o| o.slot).collect();
    for step in steps.iter_mut().rev() {
        if kept.contains(&step.into) {
            let mut reads = step.operation.reads();
            reads.retain(|slot| kept.insert(*slot));
            step.frees = reads;
        }
    }
    // What nothing reads need not be made.
    steps.retain(|step| kept.contains(&step.into));
    Ok(Plan {
        inputs,
        steps,
        outputs,
        slots: facts.len(),
    })
}

fn power_of_two(scale: f32) -> bool {
    scale.is_normal() && scale > 0.0 && scale.to_bits() & ((1 << 23) - 1) == 0
}

fn one_or<T: Copy>(values: &[T], i: usize) -> Option<T> {
    values.get(if values.len() == 1 { 0 } else { i }).copied()
}

impl<'g> Compiler<'g> {
    fn slot(&mut self, facts: Facts) -> Slot {
        self.facts.push(facts);
        self.facts.len() - 1
    }

    fn step(&mut self, operation: Operation, facts: Facts) -> Slot {
        let into = self.slot(facts);
        self.steps.push(Step {
            operation,
            into,
            frees: Vec::new(),
        });
        into
    }

    fn means(&mut self, node: &'g Node, meaning: Meaning) -> Made<()> {
        let output = node.outputs.first().ok_or("it has no output")?;
        self.meanings.insert(output, meaning);
        Ok(())
    }

    fn input(&mut self, port: &'g nnv_nn::backend::Port) -> Made<End> {
        let channels = port.shape.get(1).copied().flatten();
        let channels =
            channels.ok_or_else(|| format!("the channels of input {} are open", port.name))?;
        // Stored as the integer that its first reader subtracts the zero point from.
        let mut readers = self.readers.get(&*port.name).into_iter().flatten();
        let reader = readers.find(|&&i| self.graph.nodes[i].operator == "DequantizeLinear");
        let zero = match reader {
            Some(&i) => self.zero_point(&self.graph.nodes[i])?.0,
            None => 0,
        };
        let range = match port.element {
            Element::U8 => (0, 255),
            Element::I8 => (-128, 127),
            Element::I16 => (i32::from(i16::MIN), i32::from(i16::MAX)),
            Element::F32 => (0, 0),
            other => return Err(format!("the input {} is of {other}", port.name)),
        };
        let real = port.element == Element::F32;
        let slot = self.slot(Facts {
            store: if real { Store::F32 } else { Store::I16 },
            channels,
            low: if real {
                f32::NEG_INFINITY
            } else {
                (range.0 - zero) as f32
            },
            high: if real {
                f32::INFINITY
            } else {
                (range.1 - zero) as f32
            },
            integral: !real,
        });
        let meaning = match real {
            true => Meaning::Real(Operand { slot, scale: 1.0 }),
            false => Meaning::Integers { slot, zero },
        };
        self.meanings.insert(&port.name, meaning);
        Ok(End {
            name: port.name.clone(),
            element: port.element,
            slot,
            zero,
        })
    }

    fn constant(&self, node: &Node, i: usize) -> Made<&'g Constant> {
        let name = node
            .inputs
            .get(i)
            .ok_or_else(|| format!("it has no input {i}"))?;
        let constant = self.graph.constants.get(name);
        constant.ok_or_else(|| format!("its input {i} is no constant"))
    }

    fn scales(&self, node: &Node, i: usize) -> Made<&'g [f32]> {
        match &self.constant(node, i)?.elements {
            Elements::F32(scales) if scales.iter().all(|&s| power_of_two(s)) => Ok(scales),
            _ => Err("a scale is no power of two".into()),
        }
    }

    fn scale(&self, node: &Node, i: usize) -> Made<f32> {
        match self.scales(node, i)? {
            [scale] => Ok(*scale),
            _ => Err("it has a scale for each channel".into()),
        }
    }

    /// Zero point of a (de)quantisation, and the least and greatest integer of its type.
    fn zero_point(&self, node: &Node) -> Made<(i32, i32, i32)> {
        if node.inputs.len() < 3 {
            return Ok((0, 0, 255));
        }
        match &self.constant(node, 2)?.elements {
            Elements::U8(v) if v.len() == 1 => Ok((i32::from(v[0]), 0, 255)),
            Elements::I8(v) if v.len() == 1 => Ok((i32::from(v[0]), -128, 127)),
            _ => Err("its zero point is not one number of 8 bits".into()),
        }
    }

    fn meaning(&self, node: &Node, i: usize) -> Made<Meaning> {
        let name = node
            .inputs
            .get(i)
            .ok_or_else(|| format!("it has no input {i}"))?;
        let meaning = self.meanings.get(&**name).cloned();
        meaning.ok_or_else(|| format!("nothing is known of its input {name}"))
    }

    fn real(&self, node: &Node, i: usize) -> Made<Operand> {
        match self.meaning(node, i)? {
            Meaning::Real(operand) => Ok(operand),
            _ => Err(format!("its input {i} is no real number")),
        }
    }

    fn facts(&self, slot: Slot) -> Facts {
        self.facts[slot]
    }

    /// Least and greatest real number, and whether all are whole.
    fn range(&self, of: Operand) -> (f32, f32, bool) {
        let facts = self.facts(of.slot);
        let whole = facts.integral && of.scale >= 1.0;
        (facts.low * of.scale, facts.high * of.scale, whole)
    }

    /// As a tensor of float32.
    fn float(&mut self, of: Operand) -> Slot {
        let facts = self.facts(of.slot);
        if facts.store == Store::F32 && of.scale == 1.0 {
            return of.slot;
        }
        self.scaled(of, vec![1.0])
    }

    fn scaled(&mut self, of: Operand, mut factors: Vec<f32>) -> Slot {
        let (low, high, whole) = self.range(of);
        let most = factors.iter().fold(0.0f32, |m, f| m.max(f.abs()));
        let bound = low.abs().max(high.abs()) * most;
        let integral = whole && factors.iter().all(|f| f.fract() == 0.0);
        factors.iter_mut().for_each(|f| *f *= of.scale);
        let facts = Facts {
            store: Store::F32,
            channels: self.facts(of.slot).channels,
            low: if factors.len() == 1 && factors[0] == of.scale {
                low
            } else {
                -bound
            },
            high: if factors.len() == 1 && factors[0] == of.scale {
                high
            } else {
                bound
            },
            integral,
        };
        self.step(
            Operation::Scale {
                of: of.slot,
                factors,
            },
            facts,
        )
    }

    /// As integers of 16 bits, and their scale.
    fn integers(&mut self, of: Operand) -> Made<Operand> {
        let facts = self.facts(of.slot);
        if facts.store == Store::I16 {
            return Ok(of);
        }
        let fits = facts.low >= f32::from(i16::MIN) && facts.high <= f32::from(i16::MAX);
        if !(fits && facts.integral) {
            return Err("its input is not known to hold integers of 16 bits".into());
        }
        let facts = Facts {
            store: Store::I16,
            ..facts
        };
        let slot = self.step(Operation::Integers(of.slot), facts);
        Ok(Operand {
            slot,
            scale: of.scale,
        })
    }

    /// The node that alone reads the result of another.
    fn only_reader(&self, node: &Node, operator: &str) -> Option<(usize, &'g Node)> {
        let output = node.outputs.first()?;
        if self.graph.outputs.iter().any(|o| o.name == *output) {
            return None;
        }
        match self.readers.get(&**output)?[..] {
            [i] => Some((i, &self.graph.nodes[i])).filter(|(_, n)| n.operator == operator),
            _ => None,
        }
    }

    fn node(&mut self, node: &'g Node) -> Made<()> {
        match &*node.operator {
            "QuantizeLinear" => self.quantise(node),
            "DequantizeLinear" => self.dequantise(node),
            "Conv" => self.convolution(node),
            "Add" => self.add(node),
            "Cast" => self.cast(node),
            "Clip" => self.clip(node),
            "Mul" => self.multiply(node),
            "Round" => {
                let of = self.real(node, 0)?;
                let slot = self.float(of);
                let facts = Facts {
                    integral: true,
                    ..self.facts(slot)
                };
                // What is cut off at whole numbers is so after rounding; other bounds grow.
                let facts = Facts {
                    low: facts.low.floor(),
                    high: facts.high.ceil(),
                    ..facts
                };
                let slot = self.step(Operation::Round(slot), facts);
                self.means(node, Meaning::Real(Operand { slot, scale: 1.0 }))
            }
            "Where" => self.select(node),
            "Concat" => self.concat(node),
            "Shape" => {
                let slot = match self.meaning(node, 0)? {
                    Meaning::Integers { slot, .. } => slot,
                    Meaning::Real(of) => of.slot,
                    _ => return Err("its input is no tensor".into()),
                };
                let rows = Length::Rows(slot, 1);
                let shape = vec![Length::Other, Length::Other, rows, Length::Other];
                self.means(node, Meaning::Shape(shape))
            }
            "Slice" => {
                let Meaning::Shape(shape) = self.meaning(node, 0)? else {
                    return Err("its input is no shape".into());
                };
                let bound = |i| self.index(node, i);
                let part = shape
                    .get(bound(1)?..bound(2)?)
                    .ok_or("it is outside its input")?;
                let part = part.to_vec();
                self.means(node, Meaning::Shape(part))
            }
            "Reshape" => self.reshape(node),
            "Transpose" => self.transpose(node),
            _ => Err("these kernels do not have that operator".into()),
        }
    }

    fn index(&self, node: &Node, i: usize) -> Made<usize> {
        match &self.constant(node, i)?.elements {
            Elements::I64(v) if v.len() == 1 => {
                usize::try_from(v[0]).map_err(|_| "a negative index".into())
            }
            _ => Err("an index is not one number".into()),
        }
    }

    /// Scale, zero point and bounds without it of a `QuantizeLinear`.
    fn rounding(&self, node: &Node) -> Made<(f32, i32, f32, f32)> {
        let (zero, least, most) = self.zero_point(node)?;
        Ok((
            self.scale(node, 1)?,
            zero,
            (least - zero) as f32,
            (most - zero) as f32,
        ))
    }

    fn quantised(&self, channels: usize, low: f32, high: f32) -> Facts {
        Facts {
            store: Store::I16,
            channels,
            low,
            high,
            integral: true,
        }
    }

    fn quantise(&mut self, node: &'g Node) -> Made<()> {
        let (scale, zero, low, high) = self.rounding(node)?;
        let of = self.real(node, 0)?;
        let facts = self.facts(of.slot);
        let scale = of.scale / scale;
        let slot = if scale == 1.0
            && facts.integral
            && facts.store == Store::I16
            && facts.low >= low
            && facts.high <= high
        {
            of.slot
        } else {
            let of = Operand {
                slot: of.slot,
                scale,
            };
            let facts = self.quantised(facts.channels, low, high);
            self.step(Operation::Quantise { of, low, high }, facts)
        };
        self.means(node, Meaning::Integers { slot, zero })
    }

    fn dequantise(&mut self, node: &'g Node) -> Made<()> {
        let name = node.inputs.first().ok_or("it has no input")?;
        if let Some(constant) = self.graph.constants.get(name) {
            let scales = self.scales(node, 1)?.to_vec();
            let zeros = match node.inputs.len() {
                0..=2 => true,
                _ => match &self.constant(node, 2)?.elements {
                    Elements::I8(v) => v.iter().all(|&z| z == 0),
                    Elements::I32(v) => v.iter().all(|&z| z == 0),
                    _ => false,
                },
            };
            let meaning = match (&constant.elements, &constant.shape[..]) {
                (Elements::I8(weights), &[o, i, h, w]) if zeros => Meaning::Weights {
                    shape: [o, i, h, w],
                    weights: weights.clone(),
                    scales,
                },
                (Elements::I32(bias), _) if zeros => Meaning::Bias {
                    bias: bias.clone(),
                    scales,
                },
                _ => return Err("a constant is neither of weights nor of biases".into()),
            };
            return self.means(node, meaning);
        }
        let Meaning::Integers { slot, zero } = self.meaning(node, 0)? else {
            return Err("its input is not of integers".into());
        };
        if self.zero_point(node)?.0 != zero {
            return Err("its zero point is not that of its input".into());
        }
        let scale = self.scale(node, 1)?;
        self.means(node, Meaning::Real(Operand { slot, scale }))
    }

    fn convolution(&mut self, node: &'g Node) -> Made<()> {
        let of = self.real(node, 0)?;
        let of = self.integers(of)?;
        let Meaning::Weights {
            shape,
            weights,
            scales,
        } = self.meaning(node, 1)?
        else {
            return Err("its weights are no constants".into());
        };
        let [outputs, inputs, rows, columns] = shape;
        let channels = self.facts(of.slot).channels;
        let factor = |o: usize| one_or(&scales, o).map(|s| s * of.scale);
        let factors: Option<Vec<f32>> = (0..outputs).map(factor).collect();
        let mut factors = factors.ok_or("it has too few scales")?;
        if !factors.iter().all(|&f| power_of_two(f)) {
            return Err("its scales leave float32".into());
        }
        let bias = if node.inputs.len() > 2 {
            let Meaning::Bias { bias, scales } = self.meaning(node, 2)? else {
                return Err("its biases are no constants".into());
            };
            let fits = |o: usize| one_or(&scales, o) == Some(factors[o]);
            if bias.len() != outputs || !(0..outputs).all(fits) {
                return Err("its biases have other scales than its sums".into());
            }
            bias
        } else {
            vec![0; outputs]
        };
        let window = window(node, [rows, columns])?;
        // What follows is done to the sums at once.
        let (facts, finish, reader, zero) =
            if let Some((i, reader)) = self.only_reader(node, "QuantizeLinear") {
                let (scale, zero, low, high) = self.rounding(reader)?;
                factors.iter_mut().for_each(|f| *f /= scale);
                let facts = self.quantised(outputs, low, high);
                (
                    facts,
                    Finish::Quantise { factors, low, high },
                    Some((i, reader)),
                    Some(zero),
                )
            } else {
                let rounded = self.only_reader(node, "Round");
                let round = rounded.is_some();
                let integral = round || factors.iter().all(|&f| f >= 1.0);
                let (low, high) = (f32::NEG_INFINITY, f32::INFINITY);
                let facts = Facts {
                    store: Store::F32,
                    channels: outputs,
                    low,
                    high,
                    integral,
                };
                (facts, Finish::Real { factors, round }, rounded, None)
            };
        let at = |o: usize, i: usize, tap: usize| weights[(o * inputs + i) * rows * columns + tap];
        let group = node.int("group").unwrap_or(1);
        let group = usize::try_from(group).map_err(|_| "its groups are none")?;
        let operation = if group == 1 {
            if inputs != channels {
                return Err(format!("it takes {inputs} channels of {channels}"));
            }
            if window.is_pixel() && inputs.is_multiple_of(2) {
                let product = Product::new(inputs, outputs, |o, i| at(o, i, 0), &bias, finish);
                Operation::Product(of.slot, product)
            } else {
                // A window lies in memory tap by tap, each with its channels.
                let weight = |o: usize, i: usize| at(o, i % inputs, i / inputs);
                let taps = rows * columns * inputs;
                let product = Product::new(taps, outputs, weight, &bias, finish);
                Operation::Windowed(of.slot, window, product)
            }
        } else {
            let Finish::Quantise { factors, low, high } = finish else {
                return Err("a convolution by channel is not quantised".into());
            };
            let by_itself = group == channels && outputs == channels && inputs == 1;
            if !(by_itself && window.is_square_of_three() && channels.is_multiple_of(8)) {
                return Err("its groups or its window are none that these kernels have".into());
            }
            let weight = |o: usize, tap: usize| at(o, 0, tap);
            let depthwise = Depthwise::new(channels, weight, &bias, &factors, [low, high]);
            Operation::Depthwise(of.slot, depthwise)
        };
        let slot = self.step(operation, facts);
        let named = reader.map_or(node, |(i, reader)| {
            self.fused.insert(i);
            reader
        });
        let meaning = match zero {
            Some(zero) => Meaning::Integers { slot, zero },
            None => Meaning::Real(Operand { slot, scale: 1.0 }),
        };
        self.means(named, meaning)
    }

    /// Channels of what is made of two, one of which may have a single one.
    fn common_channels(&self, a: Slot, b: Slot) -> Made<usize> {
        match (self.facts(a).channels, self.facts(b).channels) {
            (a, b) if a == b || b == 1 => Ok(a),
            (1, b) => Ok(b),
            (a, b) => Err(format!("{a} channels meet {b}")),
        }
    }

    fn add(&mut self, node: &'g Node) -> Made<()> {
        let terms = [self.real(node, 0)?, self.real(node, 1)?];
        let channels = self.common_channels(terms[0].slot, terms[1].slot)?;
        let whole = terms.iter().all(|t| self.facts(t.slot).store == Store::I16);
        if let (true, Some((i, reader))) = (whole, self.only_reader(node, "QuantizeLinear")) {
            let (scale, zero, low, high) = self.rounding(reader)?;
            let terms = terms.map(|t| Operand {
                slot: t.slot,
                scale: t.scale / scale,
            });
            let facts = self.quantised(channels, low, high);
            let slot = self.step(Operation::AddQuantised { terms, low, high }, facts);
            self.fused.insert(i);
            return self.means(reader, Meaning::Integers { slot, zero });
        }
        let [a, b] = terms.map(|t| self.range(t));
        let facts = Facts {
            store: Store::F32,
            channels,
            low: a.0 + b.0,
            high: a.1 + b.1,
            integral: a.2 && b.2,
        };
        let slot = self.step(Operation::AddReal(terms), facts);
        self.means(node, Meaning::Real(Operand { slot, scale: 1.0 }))
    }

    fn cast(&mut self, node: &'g Node) -> Made<()> {
        /// Types by their numbers in ONNX.
        const FLOAT: i64 = 1;
        const INTEGERS: [i64; 3] = [2, 3, 5];
        const BOOL: i64 = 9;
        let to = node.int("to").ok_or("it does not say to what")?;
        let meaning = match (self.meaning(node, 0)?, to) {
            (Meaning::Integers { slot, zero: 0 }, FLOAT) => {
                Meaning::Real(Operand { slot, scale: 1.0 })
            }
            (Meaning::Integers { slot, zero: 0 }, BOOL) => Meaning::Mask(slot),
            (Meaning::Real(of), to) if INTEGERS.contains(&to) && of.scale == 1.0 => {
                let of = self.integers(of)?;
                Meaning::Integers {
                    slot: of.slot,
                    zero: 0,
                }
            }
            _ => return Err(format!("to type {to} of what is no integer there")),
        };
        self.means(node, meaning)
    }

    fn bound(&self, node: &Node, i: usize) -> Made<f32> {
        match &self.constant(node, i)?.elements {
            Elements::F32(v) if v.len() == 1 && v[0].is_finite() => Ok(v[0]),
            Elements::U8(v) if v.len() == 1 => Ok(f32::from(v[0])),
            Elements::I8(v) if v.len() == 1 => Ok(f32::from(v[0])),
            _ => Err("a bound is not one number".into()),
        }
    }

    fn clip(&mut self, node: &'g Node) -> Made<()> {
        let (low, high) = (self.bound(node, 1)?, self.bound(node, 2)?);
        if low > high || low.fract() != 0.0 || high.fract() != 0.0 {
            return Err("its bounds are no range of whole numbers".into());
        }
        let input = match self.meaning(node, 0)? {
            Meaning::Real(of) if of.scale != 1.0 => Meaning::Real(Operand {
                slot: self.float(of),
                scale: 1.0,
            }),
            other => other,
        };
        let cut = |facts: Facts, low: f32, high: f32| Facts {
            low: facts.low.clamp(low, high),
            high: facts.high.clamp(low, high),
            ..facts
        };
        let mut cut_off = |of: Slot, low: f32, high: f32| {
            let facts = cut(self.facts(of), low, high);
            self.step(Operation::Clip { of, low, high }, facts)
        };
        let meaning = match input {
            Meaning::Integers { slot, zero } => Meaning::Integers {
                slot: cut_off(slot, low - zero as f32, high - zero as f32),
                zero,
            },
            Meaning::Real(of) => Meaning::Real(Operand {
                slot: cut_off(of.slot, low, high),
                scale: 1.0,
            }),
            _ => return Err("its input is no number".into()),
        };
        self.means(node, meaning)
    }

    fn multiply(&mut self, node: &'g Node) -> Made<()> {
        if let Meaning::Shape(shape) = self.meaning(node, 0)? {
            let by = match &self.constant(node, 1)?.elements {
                Elements::I64(v) if v.len() == 1 => v[0],
                _ => return Err("a shape times what is not one number".into()),
            };
            let product = shape.into_iter().map(|length| match length {
                Length::Number(n) => n.checked_mul(by).map_or(Length::Other, Length::Number),
                Length::Rows(slot, n) => n
                    .checked_mul(by)
                    .map_or(Length::Other, |n| Length::Rows(slot, n)),
                Length::Other => Length::Other,
            });
            let product = product.collect();
            return self.means(node, Meaning::Shape(product));
        }
        let of = self.real(node, 0)?;
        let slot = if let Some(constant) =
            node.inputs.get(1).and_then(|n| self.graph.constants.get(n))
        {
            let Elements::F32(factors) = &constant.elements else {
                return Err("its factors are not of float32".into());
            };
            let channels = self.facts(of.slot).channels;
            let by_channel = constant.shape == [1, channels, 1, 1];
            if !(factors.len() == 1 || by_channel) || !factors.iter().all(|&f| power_of_two(f)) {
                return Err("its factors are no powers of two by channel".into());
            }
            self.scaled(of, factors.clone())
        } else {
            let mask = self.real(node, 1)?;
            let (facts, slot) = (self.facts(mask.slot), self.float(of));
            if facts.channels != 1 || facts.store != Store::I16 || mask.scale != 1.0 {
                return Err("it multiplies two tensors".into());
            }
            let of = self.facts(slot);
            let bound = of.low.abs().max(of.high.abs()) * facts.low.abs().max(facts.high.abs());
            let facts = Facts {
                low: -bound,
                high: bound,
                ..of
            };
            self.step(Operation::Mask(slot, mask.slot), facts)
        };
        self.means(node, Meaning::Real(Operand { slot, scale: 1.0 }))
    }

    fn select(&mut self, node: &'g Node) -> Made<()> {
        let Meaning::Mask(mask) = self.meaning(node, 0)? else {
            return Err("its condition is no mask".into());
        };
        let [a, b] = [self.real(node, 1)?, self.real(node, 2)?];
        let of = [self.float(a), self.float(b)];
        let [a, b] = of.map(|slot| self.facts(slot));
        if a.channels != b.channels || self.facts(mask).channels != 1 {
            return Err("its inputs have different channels".into());
        }
        let facts = Facts {
            low: a.low.min(b.low),
            high: a.high.max(b.high),
            integral: a.integral && b.integral,
            ..a
        };
        let slot = self.step(Operation::Select { mask, of }, facts);
        self.means(node, Meaning::Real(Operand { slot, scale: 1.0 }))
    }

    fn concat(&mut self, node: &'g Node) -> Made<()> {
        let mut shape = Vec::new();
        let mut parts = Vec::new();
        for (i, name) in node.inputs.iter().enumerate() {
            match (self.graph.constants.get(name), self.meanings.get(&**name)) {
                (
                    Some(Constant {
                        elements: Elements::I64(v),
                        ..
                    }),
                    _,
                ) => {
                    shape.extend(v.iter().map(|&n| Length::Number(n)));
                }
                (_, Some(Meaning::Shape(part))) => shape.extend(part),
                (_, Some(&Meaning::Integers { slot, zero })) => parts.push((slot, zero)),
                _ => return Err(format!("its input {i} is neither of integers nor a shape")),
            }
        }
        let Some(&(_, zero)) = parts.first() else {
            return self.means(node, Meaning::Shape(shape));
        };
        let alike = parts.iter().all(|p| p.1 == zero) && shape.is_empty();
        if !alike || node.int("axis") != Some(1) {
            return Err("its inputs are not channels of one kind".into());
        }
        let slots: Vec<Slot> = parts.iter().map(|p| p.0).collect();
        let facts = slots.iter().map(|&slot| self.facts(slot));
        let facts = facts.reduce(|a, b| Facts {
            channels: a.channels + b.channels,
            low: a.low.min(b.low),
            high: a.high.max(b.high),
            ..a
        });
        let facts = facts.ok_or("it has no inputs")?;
        let slot = self.step(Operation::Concat(slots), facts);
        self.means(node, Meaning::Integers { slot, zero })
    }

    fn reshape(&mut self, node: &'g Node) -> Made<()> {
        let name = node.inputs.get(1).ok_or("it has no shape")?;
        let shape = match (self.graph.constants.get(name), self.meanings.get(&**name)) {
            (
                Some(Constant {
                    elements: Elements::I64(v),
                    ..
                }),
                _,
            ) => v.iter().map(|&n| Length::Number(n)).collect(),
            (_, Some(Meaning::Shape(shape))) => shape.clone(),
            _ => return Err("its shape is no list of lengths".into()),
        };
        use Length::{Number, Rows};
        let other = || "it is no step from channels to squares of pixels".to_string();
        let from = self.meaning(node, 0)?;
        let (slot, zero, scale) = match from {
            Meaning::Integers { slot, zero } => (slot, Some(zero), 1.0),
            Meaning::Real(of) => (of.slot, None, of.scale),
            Meaning::Moving {
                slot, zero, scale, ..
            } => (slot, zero, scale),
            _ => return Err(other()),
        };
        let count = self.facts(slot).channels / 4;
        if !self.facts(slot).channels.is_multiple_of(4) {
            return Err(other());
        }
        let channels = i64::try_from(count).map_err(|_| other())?;
        let moving = |stage| Meaning::Moving {
            slot,
            zero,
            scale,
            channels: count,
            stage,
        };
        let meaning = match (from, &shape[..]) {
            (
                Meaning::Integers { .. } | Meaning::Real(_),
                &[Number(0), Number(c), Number(2), Number(REST)],
            ) if c == 2 * channels => moving(Stage::Pairs),
            (
                Meaning::Moving {
                    stage: Stage::Columns,
                    ..
                },
                &[Number(0), Number(c), Number(2), Rows(of, 1), Number(REST)],
            ) if c == channels && of == slot => moving(Stage::Halves),
            (
                Meaning::Moving {
                    stage: Stage::Rows, ..
                },
                &[Number(0), Number(c), Rows(of, 2), Number(REST)],
            ) if c == channels && of == slot => {
                let facts = Facts {
                    channels: count,
                    ..self.facts(slot)
                };
                let slot = self.step(Operation::DepthToSpace(slot), facts);
                match zero {
                    Some(zero) => Meaning::Integers { slot, zero },
                    None => Meaning::Real(Operand { slot, scale }),
                }
            }
            _ => return Err(other()),
        };
        self.means(node, meaning)
    }

    fn transpose(&mut self, node: &'g Node) -> Made<()> {
        let Meaning::Moving {
            slot,
            zero,
            scale,
            channels,
            stage,
        } = self.meaning(node, 0)?
        else {
            return Err("its input is not on the way to squares of pixels".into());
        };
        let stage = match (stage, node.ints("perm")) {
            (Stage::Pairs, [0, 1, 3, 2]) => Stage::Columns,
            (Stage::Halves, [0, 1, 3, 2, 4]) => Stage::Rows,
            (_, order) => return Err(format!("it changes the order to {order:?}")),
        };
        self.means(
            node,
            Meaning::Moving {
                slot,
                zero,
                scale,
                channels,
                stage,
            },
        )
    }
}

impl Window {
    /// A pixel by itself.
    fn is_pixel(&self) -> bool {
        self.size == [1, 1] && self.stride == [1, 1] && self.pads == [0; 4]
    }

    /// A pixel and the eight around it.
    fn is_square_of_three(&self) -> bool {
        self.size == [3, 3] && self.stride == [1, 1] && self.pads == [1; 4]
    }
}

/// Longest side and step of a window: others would only cost memory.
const MAX_WINDOW: usize = 16;

fn window(node: &Node, size: [usize; 2]) -> Made<Window> {
    let lengths = |name: &str, default: &[usize]| -> Made<Vec<usize>> {
        let given = node.ints(name);
        if given.is_empty() {
            return Ok(default.to_vec());
        }
        let lengths = given
            .iter()
            .map(|&n| usize::try_from(n).ok().filter(|n| *n <= MAX_WINDOW));
        let lengths: Option<Vec<usize>> = lengths.collect();
        let lengths = lengths.filter(|l| l.len() == default.len());
        lengths.ok_or_else(|| format!("its {name} are {given:?}"))
    };
    let (stride, pads) = (lengths("strides", &[1, 1])?, lengths("pads", &[0; 4])?);
    let plain = lengths("dilations", &[1, 1])? == [1, 1] && !node.has("auto_pad");
    if !plain || stride.contains(&0) || size.iter().any(|n| !(1..=MAX_WINDOW).contains(n)) {
        return Err("its window is none that these kernels have".into());
    }
    Ok(Window {
        size,
        stride: [stride[0], stride[1]],
        pads: [pads[0], pads[1], pads[2], pads[3]],
    })
}

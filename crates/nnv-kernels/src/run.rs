// SPDX-License-Identifier: MPL-2.0
//! Runs the steps of a plan.

use std::sync::{Mutex, PoisonError};

use nnv_nn::backend::{Data, Element, Tensor};

use super::lanes::{F32x4, I16x8};
use super::plan::{End, Operand, Operation, Plan, Slot, Step, Window};
use super::product::{Out, halves};

/// Numbers of a tensor.
#[derive(Debug)]
enum Store {
    I16(Vec<i16>),
    F32(Vec<f32>),
}

/// A tensor of a run: pictures, rows, columns, channels.
#[derive(Debug)]
struct Array {
    shape: [usize; 4],
    store: Store,
}

/// Memory that is used again: fresh memory would cost more than what is written to it.
#[derive(Debug, Default)]
pub struct Pool(Mutex<Spare>);

#[derive(Debug, Default)]
struct Spare {
    i16: Vec<Vec<i16>>,
    f32: Vec<Vec<f32>>,
}

/// At most so many of each kind wait to be used again.
const SPARE: usize = 8;

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, Spare> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Integers of any values.
    fn i16(&self, len: usize) -> Vec<i16> {
        sized(self.lock().i16.pop(), len)
    }

    /// Numbers of any values.
    fn f32(&self, len: usize) -> Vec<f32> {
        sized(self.lock().f32.pop(), len)
    }

    fn give_back(&self, array: Array) {
        let mut spare = self.lock();
        match array.store {
            Store::I16(v) if spare.i16.len() < SPARE => spare.i16.push(v),
            Store::F32(v) if spare.f32.len() < SPARE => spare.f32.push(v),
            _ => {}
        }
    }
}

fn sized<T: Copy + Default>(spare: Option<Vec<T>>, len: usize) -> Vec<T> {
    let mut memory = spare.unwrap_or_default();
    memory.resize(len, T::default());
    memory
}

/// Elements of an output, in the order of ONNX: pictures, channels, rows, columns.
#[derive(Debug)]
pub enum Elements {
    U8(Vec<u8>),
    I8(Vec<i8>),
    I16(Vec<i16>),
}

/// An output.
#[derive(Debug)]
pub struct Result4 {
    shape: [usize; 4],
    elements: Elements,
}

impl nnv_nn::backend::Output for Result4 {
    fn tensor(&self) -> Result<Tensor<'_>, String> {
        Ok(match &self.elements {
            Elements::U8(v) => Tensor::new(self.shape, v),
            Elements::I8(v) => Tensor::new(self.shape, v),
            Elements::I16(v) => Tensor::new(self.shape, v),
        })
    }
}

type Made<T> = Result<T, String>;

/// Why a run ended early.
pub enum Ended {
    Cancelled,
    Failed(String),
}

/// Runs a plan on inputs in its order; `cancelled` is asked between steps.
///
/// # Errors
/// [`Ended`], for inputs whose shapes do not fit each other, too.
pub fn run(
    plan: &Plan,
    pool: &Pool,
    inputs: &[Tensor<'_>],
    outputs: &[usize],
    cancelled: impl Fn() -> bool,
) -> Result<Vec<Result4>, Ended> {
    let mut arrays: Vec<Option<Array>> = Vec::new();
    arrays.resize_with(plan.slots, || None);
    for (end, tensor) in plan.inputs.iter().zip(inputs) {
        arrays[end.slot] = Some(input(pool, end, tensor).map_err(Ended::Failed)?);
    }
    let mut run = Run { pool, arrays };
    for step in &plan.steps {
        if cancelled() {
            return Err(Ended::Cancelled);
        }
        run.step(step).map_err(Ended::Failed)?;
    }
    let results = outputs.iter().map(|&i| {
        let end = &plan.outputs[i];
        run.array(end.slot).and_then(|array| output(end, array))
    });
    let results = results
        .collect::<Made<Vec<Result4>>>()
        .map_err(Ended::Failed)?;
    run.arrays
        .into_iter()
        .flatten()
        .for_each(|array| pool.give_back(array));
    Ok(results)
}

/// Channels of neighbouring pixels that are moved together.
const STRIP: usize = 8;

/// Planes become channels of pixels.
fn to_pixels<T: Copy, U: Copy>(planes: &[T], pixels: usize, out: &mut [U], f: impl Fn(T) -> U) {
    let channels = out.len() / pixels.max(1);
    for (strip, planes) in planes.chunks(STRIP * pixels).enumerate() {
        let from = strip * STRIP;
        if planes.len() == STRIP * pixels {
            let planes: [&[T]; STRIP] = std::array::from_fn(|i| &planes[i * pixels..][..pixels]);
            for (p, out) in out.chunks_exact_mut(channels).enumerate() {
                for (out, plane) in out[from..][..STRIP].iter_mut().zip(planes) {
                    *out = f(plane[p]);
                }
            }
        } else {
            for (c, plane) in planes.chunks_exact(pixels).enumerate() {
                for (out, &v) in out.chunks_exact_mut(channels).zip(plane) {
                    out[from + c] = f(v);
                }
            }
        }
    }
}

/// Channels of pixels become planes.
fn to_planes<T: Copy, U: Copy>(pixels: &[T], channels: usize, out: &mut [U], f: impl Fn(T) -> U) {
    let count = pixels.len() / channels.max(1);
    for (strip, planes) in out.chunks_mut(STRIP * count).enumerate() {
        let from = strip * STRIP;
        let width = STRIP.min(channels - from);
        for (p, pixel) in pixels.chunks_exact(channels).enumerate() {
            for (c, &v) in pixel[from..][..width].iter().enumerate() {
                planes[c * count + p] = f(v);
            }
        }
    }
}

fn input(pool: &Pool, end: &End, tensor: &Tensor<'_>) -> Made<Array> {
    let [n, c, h, w] = tensor.shape;
    let pixels = h * w;
    let len = c * pixels;
    let zero = end.zero as i16;
    if tensor.data.element() != end.element || tensor.data.len() != n * len {
        return Err(format!("the input {} is of another type or size", end.name));
    }
    let shape = [n, h, w, c];
    if let Data::F32(data) = tensor.data {
        let mut out = pool.f32(n * len);
        for (from, to) in data.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
            to_pixels(from, pixels, to, |v| v);
        }
        return Ok(Array {
            shape,
            store: Store::F32(out),
        });
    }
    let mut out = pool.i16(n * len);
    for (i, to) in out.chunks_exact_mut(len).enumerate() {
        let part = i * len..(i + 1) * len;
        match tensor.data {
            Data::U8(v) => to_pixels(&v[part], pixels, to, |v| i16::from(v).wrapping_sub(zero)),
            Data::I8(v) => to_pixels(&v[part], pixels, to, |v| i16::from(v).wrapping_sub(zero)),
            Data::I16(v) => to_pixels(&v[part], pixels, to, |v| v.wrapping_sub(zero)),
            Data::U16(_) | Data::F32(_) => {
                return Err(format!(
                    "the input {} is of a type that is not read",
                    end.name
                ));
            }
        }
    }
    Ok(Array {
        shape,
        store: Store::I16(out),
    })
}

fn output(end: &End, array: &Array) -> Made<Result4> {
    let [n, h, w, c] = array.shape;
    let Store::I16(data) = &array.store else {
        return Err(format!("the output {} is not of integers", end.name));
    };
    let len = h * w * c;
    let zero = end.zero as i16;
    fn planes<T: Copy + Default>(
        data: &[i16],
        len: usize,
        c: usize,
        f: impl Fn(i16) -> T + Copy,
    ) -> Vec<T> {
        let mut out = vec![T::default(); data.len()];
        for (from, to) in data.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
            to_planes(from, c, to, f);
        }
        out
    }
    let elements = match end.element {
        Element::U8 => Elements::U8(planes(data, len, c, |v| v.wrapping_add(zero) as u8)),
        Element::I8 => Elements::I8(planes(data, len, c, |v| v.wrapping_add(zero) as i8)),
        Element::I16 => Elements::I16(planes(data, len, c, |v| v.wrapping_add(zero))),
        other => return Err(format!("the output {} is of {other}", end.name)),
    };
    Ok(Result4 {
        shape: [n, c, h, w],
        elements,
    })
}

struct Run<'p> {
    pool: &'p Pool,
    arrays: Vec<Option<Array>>,
}

impl Run<'_> {
    fn array(&self, slot: Slot) -> Made<&Array> {
        self.arrays[slot]
            .as_ref()
            .ok_or_else(|| "a tensor was not made".into())
    }

    fn i16(&self, slot: Slot) -> Made<([usize; 4], &[i16])> {
        let array = self.array(slot)?;
        match &array.store {
            Store::I16(v) => Ok((array.shape, v)),
            Store::F32(_) => Err("a tensor is not of integers".into()),
        }
    }

    fn f32(&self, slot: Slot) -> Made<([usize; 4], &[f32])> {
        let array = self.array(slot)?;
        match &array.store {
            Store::F32(v) => Ok((array.shape, v)),
            Store::I16(_) => Err("a tensor is not of float32".into()),
        }
    }

    fn step(&mut self, step: &Step) -> Made<()> {
        let made = self.operation(&step.operation)?;
        self.arrays[step.into] = Some(made);
        for &slot in &step.frees {
            if let Some(array) = self.arrays[slot].take() {
                self.pool.give_back(array);
            }
        }
        Ok(())
    }

    /// Room for the results of a convolution, filled by `run`.
    fn filled(&self, [n, h, w, c]: [usize; 4], real: bool, run: impl FnOnce(Out<'_>)) -> Array {
        let len = n * h * w * c;
        let store = if real {
            let mut out = self.pool.f32(len);
            run(Out::F32(&mut out));
            Store::F32(out)
        } else {
            let mut out = self.pool.i16(len);
            run(Out::I16(&mut out));
            Store::I16(out)
        };
        Array {
            shape: [n, h, w, c],
            store,
        }
    }

    fn operation(&self, operation: &Operation) -> Made<Array> {
        Ok(match operation {
            Operation::Product(of, product) => {
                let ([n, h, w, _], x) = self.i16(*of)?;
                let shape = [n, h, w, product.outputs()];
                self.filled(shape, product.is_real(), |out| product.run(x, out))
            }
            Operation::Windowed(of, window, product) => {
                let (shape, x) = self.i16(*of)?;
                let (size, rows) = self.gather(shape, x, window, product.inputs())?;
                let shape = [shape[0], size[0], size[1], product.outputs()];
                let made = self.filled(shape, product.is_real(), |out| product.run(&rows, out));
                self.pool.give_back(Array {
                    shape,
                    store: Store::I16(rows),
                });
                made
            }
            Operation::Depthwise(of, depthwise) => {
                let (shape, x) = self.i16(*of)?;
                let [_, h, w, _] = shape;
                let (mut out, mut scratch) = (self.pool.i16(x.len()), self.pool.i16(0));
                depthwise.run(x, &mut out, [h, w], &mut scratch);
                self.pool.give_back(Array {
                    shape,
                    store: Store::I16(scratch),
                });
                Array {
                    shape,
                    store: Store::I16(out),
                }
            }
            Operation::AddQuantised { terms, low, high } => {
                self.add_quantised(terms, *low, *high)?
            }
            Operation::AddReal(terms) => self.add_real(terms)?,
            Operation::Quantise { of, low, high } => {
                let array = self.array(of.slot)?;
                let mut out = self.pool.i16(array.len());
                match &array.store {
                    Store::I16(x) => quantise(x, &mut out, of.scale, *low, *high),
                    Store::F32(x) => quantise_real(x, &mut out, of.scale, *low, *high),
                }
                Array {
                    shape: array.shape,
                    store: Store::I16(out),
                }
            }
            Operation::Clip { of, low, high } => {
                let array = self.array(*of)?;
                let store = match &array.store {
                    Store::I16(x) => {
                        let mut out = self.pool.i16(x.len());
                        // Bounds are whole numbers; the casts cut them off at the type's ends.
                        let (low, high) = (*low as i16, *high as i16);
                        map(x, &mut out, |v| v.max(low).min(high));
                        Store::I16(out)
                    }
                    Store::F32(x) => {
                        let mut out = self.pool.f32(x.len());
                        clip_real(x, &mut out, *low, *high);
                        Store::F32(out)
                    }
                };
                Array {
                    shape: array.shape,
                    store,
                }
            }
            Operation::Scale { of, factors } => {
                let array = self.array(*of)?;
                let mut out = self.pool.f32(array.len());
                match &array.store {
                    Store::I16(x) => scale(x, &mut out, factors, f32::from),
                    Store::F32(x) => scale(x, &mut out, factors, |v| v),
                }
                Array {
                    shape: array.shape,
                    store: Store::F32(out),
                }
            }
            Operation::Mask(of, mask) => {
                let (shape, x) = self.f32(*of)?;
                let mask = self.mask(*mask, shape)?;
                let mut out = self.pool.f32(x.len());
                let rows = out.chunks_exact_mut(shape[3]).zip(x.chunks_exact(shape[3]));
                for ((out, x), m) in rows.zip(mask.iter().cycle()) {
                    let m = f32::from(*m);
                    map(x, out, |v| v * m);
                }
                Array {
                    shape,
                    store: Store::F32(out),
                }
            }
            Operation::Select { mask, of } => {
                let (shape, a) = self.f32(of[0])?;
                let (other, b) = self.f32(of[1])?;
                if shape != other {
                    return Err(format!("the shapes {shape:?} and {other:?} do not meet"));
                }
                let mask = self.mask(*mask, shape)?;
                let mut out = self.pool.f32(a.len());
                let c = shape[3];
                let rows = out
                    .chunks_exact_mut(c)
                    .zip(a.chunks_exact(c).zip(b.chunks_exact(c)));
                for ((out, (a, b)), m) in rows.zip(mask.iter().cycle()) {
                    out.copy_from_slice(if *m == 0 { b } else { a });
                }
                Array {
                    shape,
                    store: Store::F32(out),
                }
            }
            Operation::Round(of) => {
                let (shape, x) = self.f32(*of)?;
                let mut out = self.pool.f32(x.len());
                map(x, &mut out, f32::round_ties_even);
                Array {
                    shape,
                    store: Store::F32(out),
                }
            }
            Operation::Concat(of) => self.concat(of)?,
            Operation::DepthToSpace(of) => {
                let array = self.array(*of)?;
                let [n, h, w, c] = array.shape;
                let store = match &array.store {
                    Store::I16(x) => {
                        let mut out = self.pool.i16(x.len());
                        squares(x, &mut out, array.shape);
                        Store::I16(out)
                    }
                    Store::F32(x) => {
                        let mut out = self.pool.f32(x.len());
                        squares(x, &mut out, array.shape);
                        Store::F32(out)
                    }
                };
                Array {
                    shape: [n, 2 * h, 2 * w, c / 4],
                    store,
                }
            }
            Operation::Integers(of) => {
                let (shape, x) = self.f32(*of)?;
                let mut out = self.pool.i16(x.len());
                quantise_real(x, &mut out, 1.0, i16::MIN.into(), i16::MAX.into());
                Array {
                    shape,
                    store: Store::I16(out),
                }
            }
        })
    }

    /// The pixels of each window behind each other, and how many windows there are.
    fn gather(
        &self,
        [n, h, w, c]: [usize; 4],
        x: &[i16],
        window: &Window,
        row: usize,
    ) -> Made<([usize; 2], Vec<i16>)> {
        let Window { size, stride, pads } = window;
        let count = |length: usize, i: usize| {
            let room = (length + pads[i] + pads[i + 2]).checked_sub(size[i])?;
            Some(room / stride[i] + 1)
        };
        let (Some(rows), Some(columns)) = (count(h, 0), count(w, 1)) else {
            return Err(format!("its {h} rows of {w} pixels are less than a window"));
        };
        let mut out = self.pool.i16(n * rows * columns * row);
        out.fill(0);
        let mut windows = out.chunks_exact_mut(row);
        for x in x.chunks_exact(h * w * c) {
            for y in 0..rows {
                for column in 0..columns {
                    let Some(out) = windows.next() else { break };
                    for (tap, out) in out.chunks_exact_mut(c).take(size[0] * size[1]).enumerate() {
                        let at_y = (y * stride[0] + tap / size[1]).checked_sub(pads[0]);
                        let at_x = (column * stride[1] + tap % size[1]).checked_sub(pads[1]);
                        if let (Some(y), Some(x_)) =
                            (at_y.filter(|y| *y < h), at_x.filter(|x| *x < w))
                        {
                            out.copy_from_slice(&x[(y * w + x_) * c..][..c]);
                        }
                    }
                }
            }
        }
        Ok(([rows, columns], out))
    }

    /// A mask for pictures of a shape; one for all, or one for each.
    fn mask(&self, slot: Slot, [n, h, w, _]: [usize; 4]) -> Made<&[i16]> {
        let (shape, mask) = self.i16(slot)?;
        match shape {
            [count, mh, mw, 1] if (mh, mw) == (h, w) && (count == 1 || count == n) => Ok(mask),
            _ => Err(format!(
                "a mask of the shape {shape:?} for {n} pictures of {h}×{w}"
            )),
        }
    }

    fn add_quantised(&self, terms: &[Operand; 2], low: f32, high: f32) -> Made<Array> {
        let [mut a, mut b] = [self.i16(terms[0].slot)?, self.i16(terms[1].slot)?];
        let mut factors = [terms[0].scale, terms[1].scale];
        let shape = joint_shape(a.0, b.0)?;
        let mut out = self.pool.i16(shape.iter().product());
        if a.0 != shape {
            (a, b) = (b, a);
            factors.reverse();
        }
        // Bounds are those of 8 bits.
        let bounds = [low as i16, high as i16].map(I16x8::splat);
        let add = |a: &[i16], b: &[i16], out: &mut [i16]| match factors {
            [1.0, 1.0] => add_whole(a, b, out, bounds),
            _ => add_rounded(a, b, out, factors, low, high),
        };
        if a.0 == b.0 {
            add(a.1, b.1, &mut out);
            return Ok(Array {
                shape,
                store: Store::I16(out),
            });
        }
        if a.0 == shape && b.0[1..3] == [1, 1] {
            // Each pixel meets the same row.
            let [_, h, w, c] = shape;
            let pictures =
                a.1.chunks_exact(h * w * c)
                    .zip(out.chunks_exact_mut(h * w * c));
            let mut row = vec![0; c];
            for (i, (a, out)) in pictures.enumerate() {
                for (channel, v) in row.iter_mut().enumerate() {
                    *v = b.1[index(b.0, [i, 0, 0, channel])];
                }
                for (a, out) in a.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
                    add(a, &row, out);
                }
            }
            return Ok(Array {
                shape,
                store: Store::I16(out),
            });
        }
        let at = |((dims, data), factor): (([usize; 4], &[i16]), f32), at: [usize; 4]| {
            f32::from(data[index(dims, at)]) * factor
        };
        each(shape, &mut out, |i| {
            let sum = at((a, factors[0]), i) + at((b, factors[1]), i);
            sum.round_ties_even().clamp(low, high) as i16
        });
        Ok(Array {
            shape,
            store: Store::I16(out),
        })
    }

    fn add_real(&self, terms: &[Operand; 2]) -> Made<Array> {
        let [a, b] = [self.array(terms[0].slot)?, self.array(terms[1].slot)?];
        let (fa, fb) = (terms[0].scale, terms[1].scale);
        let shape = joint_shape(a.shape, b.shape)?;
        let mut out = self.pool.f32(shape.iter().product());
        if a.shape == b.shape {
            match (&a.store, &b.store) {
                (Store::I16(a), Store::I16(b)) => {
                    zip(a, b, &mut out, |a, b| f32::from(a) * fa + f32::from(b) * fb);
                }
                (Store::I16(a), Store::F32(b)) => {
                    zip(a, b, &mut out, |a, b| f32::from(a) * fa + b * fb);
                }
                (Store::F32(a), Store::I16(b)) => {
                    zip(a, b, &mut out, |a, b| a * fa + f32::from(b) * fb);
                }
                (Store::F32(a), Store::F32(b)) => zip(a, b, &mut out, |a, b| a * fa + b * fb),
            }
        } else {
            let at = |array: &Array, i: [usize; 4]| match &array.store {
                Store::I16(v) => f32::from(v[index(array.shape, i)]),
                Store::F32(v) => v[index(array.shape, i)],
            };
            each(shape, &mut out, |i| at(a, i) * fa + at(b, i) * fb);
        }
        Ok(Array {
            shape,
            store: Store::F32(out),
        })
    }

    fn concat(&self, of: &[Slot]) -> Made<Array> {
        let parts = of
            .iter()
            .map(|&slot| self.i16(slot))
            .collect::<Made<Vec<_>>>()?;
        let [n, h, w, _] = parts[0].0;
        if parts.iter().any(|(shape, _)| shape[..3] != [n, h, w]) {
            return Err("pictures of different sizes are joined".into());
        }
        let c = parts.iter().map(|(shape, _)| shape[3]).sum();
        let mut out = self.pool.i16(n * h * w * c);
        let mut from = 0;
        for (shape, x) in parts {
            let width = shape[3];
            for (out, x) in out.chunks_exact_mut(c).zip(x.chunks_exact(width)) {
                out[from..][..width].copy_from_slice(x);
            }
            from += width;
        }
        Ok(Array {
            shape: [n, h, w, c],
            store: Store::I16(out),
        })
    }
}

impl Array {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

#[inline(always)]
fn map<T: Copy, U>(x: &[T], out: &mut [U], f: impl Fn(T) -> U) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f(x);
    }
}

#[inline(always)]
fn zip<T: Copy, V: Copy, U>(a: &[T], b: &[V], out: &mut [U], f: impl Fn(T, V) -> U) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out = f(a, b);
    }
}

fn scale<T: Copy>(x: &[T], out: &mut [f32], factors: &[f32], f: impl Fn(T) -> f32) {
    match factors {
        [factor] => map(x, out, |v| f(v) * factor),
        _ => {
            let rows = out
                .chunks_exact_mut(factors.len())
                .zip(x.chunks_exact(factors.len()));
            rows.for_each(|(out, x)| zip(x, factors, out, |v, factor| f(v) * factor));
        }
    }
}

/// Whole vectors of both, and what is left.
macro_rules! by_vector {
    ($x:expr, $out:expr, |$v:ident| $vector:expr, |$s:ident| $single:expr) => {{
        let ((xs, x_rest), (outs, out_rest)) = ($x.as_chunks(), $out.as_chunks_mut());
        for ($v, out) in xs.iter().zip(outs) {
            $vector.store(out);
        }
        for ($s, out) in x_rest.iter().zip(out_rest) {
            *out = $single;
        }
    }};
}

/// Bounds must be those of 8 bits, so that products of what is not cut off stay small.
fn quantise(x: &[i16], out: &mut [i16], factor: f32, low: f32, high: f32) {
    let (l, h, f) = (F32x4::splat(low), F32x4::splat(high), F32x4::splat(factor));
    by_vector!(
        x,
        out,
        |v| {
            let [a, b] = I16x8::load(v).widen().map(|v| v.mul(f).clamp(l, h).round());
            I16x8::narrow(a, b)
        },
        |v| (f32::from(*v) * factor).round_ties_even().clamp(low, high) as i16
    );
}

/// Bounds must be within those of 16 bits, and products of what is not cut off within ±2^21.
fn quantise_real(x: &[f32], out: &mut [i16], factor: f32, low: f32, high: f32) {
    let (l, h, f) = (F32x4::splat(low), F32x4::splat(high), F32x4::splat(factor));
    by_vector!(
        x,
        out,
        |v| {
            let [a, b] = halves(v).map(|v| F32x4::load(v).mul(f).clamp(l, h).round());
            I16x8::narrow(a, b)
        },
        |v| (v * factor).round_ties_even().clamp(low, high) as i16
    );
}

fn clip_real(x: &[f32], out: &mut [f32], low: f32, high: f32) {
    let (l, h) = (F32x4::splat(low), F32x4::splat(high));
    by_vector!(x, out, |v| F32x4::load(v).clamp(l, h), |v| v
        .max(low)
        .min(high));
}

fn add_whole(a: &[i16], b: &[i16], out: &mut [i16], [low, high]: [I16x8; 2]) {
    let ((xs, x_rest), (ys, y_rest)) = (a.as_chunks(), b.as_chunks());
    let (outs, out_rest) = out.as_chunks_mut();
    for ((x, y), out) in xs.iter().zip(ys).zip(outs) {
        I16x8::load(x)
            .add(I16x8::load(y))
            .clamp(low, high)
            .store(out);
    }
    let mut bounds = [[0; 8]; 2];
    low.store(&mut bounds[0]);
    high.store(&mut bounds[1]);
    zip(x_rest, y_rest, out_rest, |x: i16, y: i16| {
        x.saturating_add(y).clamp(bounds[0][0], bounds[1][0])
    });
}

fn add_rounded(a: &[i16], b: &[i16], out: &mut [i16], factors: [f32; 2], low: f32, high: f32) {
    let (l, h) = (F32x4::splat(low), F32x4::splat(high));
    let f = factors.map(F32x4::splat);
    let ((xs, x_rest), (ys, y_rest)) = (a.as_chunks(), b.as_chunks());
    let (outs, out_rest) = out.as_chunks_mut();
    for ((x, y), out) in xs.iter().zip(ys).zip(outs) {
        let (x, y) = (I16x8::load(x).widen(), I16x8::load(y).widen());
        let [a, b] = [0, 1].map(|i| x[i].mul(f[0]).add(y[i].mul(f[1])).clamp(l, h).round());
        I16x8::narrow(a, b).store(out);
    }
    zip(x_rest, y_rest, out_rest, |x: i16, y: i16| {
        let sum = f32::from(x) * factors[0] + f32::from(y) * factors[1];
        sum.round_ties_even().clamp(low, high) as i16
    });
}

/// The shape of what is made of two, where lengths of one are repeated.
fn joint_shape(a: [usize; 4], b: [usize; 4]) -> Made<[usize; 4]> {
    let fits = a.iter().zip(&b).all(|(a, b)| a == b || *a == 1 || *b == 1);
    match fits {
        true => Ok(std::array::from_fn(|i| if a[i] == 1 { b[i] } else { a[i] })),
        false => Err(format!("the shapes {a:?} and {b:?} do not meet")),
    }
}

/// Where an element is whose tensor may be repeated.
fn index(shape: [usize; 4], at: [usize; 4]) -> usize {
    shape
        .iter()
        .zip(at)
        .fold(0, |i, (&len, at)| i * len + if len == 1 { 0 } else { at })
}

fn each<T>([_, h, w, c]: [usize; 4], out: &mut [T], f: impl Fn([usize; 4]) -> T) {
    for (pixel, out) in out.chunks_exact_mut(c).enumerate() {
        let (row, x) = (pixel / w, pixel % w);
        for (channel, out) in out.iter_mut().enumerate() {
            *out = f([row / h, row % h, x, channel]);
        }
    }
}

/// Channels 4c to 4c + 3 of a pixel become channel c of a square of four, row by row.
fn squares<T: Copy>(x: &[T], out: &mut [T], [_, _, w, c]: [usize; 4]) {
    let (row, narrow) = (w * c, c / 4);
    for (x, out) in x.chunks_exact(row).zip(out.chunks_exact_mut(row)) {
        let (upper, lower) = out.split_at_mut(row / 2);
        let pairs = upper
            .chunks_exact_mut(2 * narrow)
            .zip(lower.chunks_exact_mut(2 * narrow));
        for (x, (upper, lower)) in x.chunks_exact(c).zip(pairs) {
            let ((a, b), (d, e)) = (upper.split_at_mut(narrow), lower.split_at_mut(narrow));
            for (i, four) in x.as_chunks::<4>().0.iter().enumerate() {
                (a[i], b[i], d[i], e[i]) = (four[0], four[1], four[2], four[3]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_give_what_single_numbers_give() {
        // Halves, ends and beyond, in whole vectors and in what is left of them.
        let x: Vec<f32> = (0..27).map(|i| (i - 13) as f32 * 25.25).collect();
        let (low, high) = (-128.0, 127.0);
        let (mut got, mut clipped) = (vec![0; x.len()], vec![0.0; x.len()]);
        quantise_real(&x, &mut got, 0.5, low, high);
        clip_real(&x, &mut clipped, low, high);
        for (i, &v) in x.iter().enumerate() {
            let expected = (v * 0.5).round_ties_even().clamp(low, high);
            assert_eq!(f32::from(got[i]), expected, "{v}");
            assert_eq!(clipped[i], v.clamp(low, high));
        }
        let whole = [-32768.0, 32767.0, 0.0, -1.0, 40_000.0, -40_000.0, 7.0, 8.0];
        let mut out = [0; 8];
        quantise_real(&whole, &mut out, 1.0, i16::MIN.into(), i16::MAX.into());
        assert_eq!(out, whole.map(|v| v as i16));
    }

    #[test]
    fn a_row_is_added_to_each_pixel() {
        let pool = Pool::default();
        let pixels: Vec<i16> = (0..2 * 3 * 5 * 12).map(|i| i % 201 - 100).collect();
        // For all pictures, for each, and one number for all channels; on either side.
        for (shape, row) in [
            (
                [1, 1, 1, 12],
                (0..12).map(|i| 9 * i - 50).collect::<Vec<i16>>(),
            ),
            ([2, 1, 1, 12], (0..24).map(|i| 3 * i - 40).collect()),
            ([1, 1, 1, 1], vec![77]),
        ] {
            for (scales, turned) in [
                ([1.0, 1.0], false),
                ([0.5, 0.25], false),
                ([0.5, 2.0], true),
            ] {
                let arrays = [([2, 3, 5, 12], &pixels), (shape, &row)].map(|(shape, data)| {
                    let store = Store::I16(data.clone());
                    Some(Array { shape, store })
                });
                let run = Run {
                    pool: &pool,
                    arrays: arrays.into(),
                };
                let mut terms = [0, 1].map(|slot| Operand {
                    slot,
                    scale: scales[slot],
                });
                if turned {
                    terms.reverse();
                }
                let sum = run.add_quantised(&terms, -128.0, 127.0).unwrap();
                let Store::I16(got) = sum.store else {
                    panic!("sums are integers");
                };
                assert_eq!((sum.shape, got.len()), ([2, 3, 5, 12], pixels.len()));
                for (i, got) in got.into_iter().enumerate() {
                    let (picture, channel) = (i / (3 * 5 * 12) % shape[0], i % 12 % shape[3]);
                    let other = f32::from(row[picture * shape[3] + channel]);
                    let sum = f32::from(pixels[i]) * scales[0] + other * scales[1];
                    let expected = sum.round_ties_even().clamp(-128.0, 127.0);
                    assert_eq!(f32::from(got), expected, "{shape:?} {scales:?} {i}");
                }
            }
        }
    }
}

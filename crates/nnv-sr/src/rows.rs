// SPDX-License-Identifier: MPL-2.0
//! Inner loops over rows of samples, which are `f32` code values in between.

use super::layout::Sample;
use nnv_cpu::simd::with_avx2;

/// Adding this to a value within 0..=65535 rounds it to the nearest integer (half to even) and
/// leaves that in the low bits: unlike a saturating cast, a single instruction.
const ROUND: f32 = (1 << 23) as f32;

#[inline(always)]
fn rounded(value: f32, max: f32) -> u32 {
    // NaN becomes 0 here.
    (value.max(0.0).min(max) + ROUND).to_bits()
}

/// Reads the samples of one component: the first lies at the start of `row`, the others `step`
/// bytes on each.
pub(super) fn load(sample: Sample, step: usize, row: &[u8], out: &mut [f32]) {
    match (sample, step) {
        (Sample::Eight, 1) => load_bytes(row, out),
        (Sample::Eight, _) => {
            for (value, bytes) in out.iter_mut().zip(row.chunks(step)) {
                *value = f32::from(bytes[0]);
            }
        }
        (Sample::Ten(shift), _) => {
            for (value, bytes) in out.iter_mut().zip(row.chunks(step)) {
                *value = f32::from(u16::from_le_bytes([bytes[0], bytes[1]]) >> shift);
            }
        }
    }
}

/// Rounds, clips and writes the samples of one component, as [`load`] reads them.
pub(super) fn store(sample: Sample, step: usize, values: &[f32], row: &mut [u8]) {
    match (sample, step) {
        (Sample::Eight, 1) => store_bytes(values, row),
        (Sample::Eight, _) => {
            for (&value, bytes) in values.iter().zip(row.chunks_mut(step)) {
                bytes[0] = rounded(value, sample.max()) as u8;
            }
        }
        (Sample::Ten(shift), _) => {
            for (&value, bytes) in values.iter().zip(row.chunks_mut(step)) {
                let word = (rounded(value, sample.max()) as u16) << shift;
                bytes[..2].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

#[inline(always)]
fn load_bytes_body(row: &[u8], out: &mut [f32]) {
    for (value, &byte) in out.iter_mut().zip(row) {
        *value = f32::from(byte);
    }
}
with_avx2! { fn load_bytes(row: &[u8], out: &mut [f32]) = load_bytes_body }

#[inline(always)]
fn store_bytes_body(values: &[f32], row: &mut [u8]) {
    for (byte, &value) in row.iter_mut().zip(values) {
        *byte = rounded(value, 255.0) as u8;
    }
}
with_avx2! { fn store_bytes(values: &[f32], row: &mut [u8]) = store_bytes_body }

/// `out[i] = sum of taps[k] · rows[k][i]`.
#[inline(always)]
fn weigh_rows_body(rows: [&[f32]; 4], taps: &[f32; 4], out: &mut [f32]) {
    let [a, b, c, d] = rows.map(|row| &row[..out.len()]);
    for i in 0..out.len() {
        out[i] = taps[0] * a[i] + taps[1] * b[i] + taps[2] * c[i] + taps[3] * d[i];
    }
}
with_avx2! {
    pub(super) fn weigh_rows(rows: [&[f32]; 4], taps: &[f32; 4], out: &mut [f32]) = weigh_rows_body
}

/// `out[i] = sum of taps[k] · row[i + k]`; `row` is at least three samples longer than `out`.
#[inline(always)]
fn weigh_columns_body(row: &[f32], taps: &[f32; 4], out: &mut [f32]) {
    let n = out.len();
    let (a, b, c, d) = (&row[..n], &row[1..n + 1], &row[2..n + 2], &row[3..n + 3]);
    for i in 0..n {
        out[i] = taps[0] * a[i] + taps[1] * b[i] + taps[2] * c[i] + taps[3] * d[i];
    }
}
with_avx2! {
    pub(super) fn weigh_columns(row: &[f32], taps: &[f32; 4], out: &mut [f32]) = weigh_columns_body
}

/// Takes turns: sample `S·i + p` of `out` is sample `i` of part `p`. `out` may end early.
#[inline(always)]
fn interleave_body<const S: usize>(parts: &[f32], out: &mut [f32]) {
    let n = parts.len() / S;
    let parts: [&[f32]; S] = std::array::from_fn(|p| &parts[p * n..][..n]);
    let (groups, rest) = out.as_chunks_mut::<S>();
    let full = groups.len().min(n);
    let parts = parts.map(|part| &part[..n]);
    for (i, group) in groups[..full].iter_mut().enumerate() {
        for p in 0..S {
            group[p] = parts[p][i];
        }
    }
    for (p, value) in rest.iter_mut().enumerate() {
        *value = parts[p][full];
    }
}
with_avx2! { fn interleave2(parts: &[f32], out: &mut [f32]) = interleave_body::<2> }
with_avx2! { fn interleave3(parts: &[f32], out: &mut [f32]) = interleave_body::<3> }
with_avx2! { fn interleave4(parts: &[f32], out: &mut [f32]) = interleave_body::<4> }

/// Takes turns between `scale` parts of equal length, which lie one after the other. `out` may end
/// before they do.
pub(super) fn interleave(scale: usize, parts: &[f32], out: &mut [f32]) {
    match scale {
        2 => interleave2(parts, out),
        3 => interleave3(parts, out),
        4 => interleave4(parts, out),
        _ => out.copy_from_slice(&parts[..out.len()]),
    }
}

/// Code values of what a network gave.
#[inline(always)]
fn from_network_body(values: &[f32], unit: Unit, out: &mut [f32]) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = value * unit.gain + unit.bias;
    }
}
with_avx2! {
    pub(super) fn from_network(values: &[f32], unit: Unit, out: &mut [f32]) = from_network_body
}

/// Turns code values into what a network takes.
#[inline(always)]
fn to_network_body(values: &mut [f32], unit: Unit) {
    for value in values {
        *value = (*value - unit.bias) / unit.gain;
    }
}
with_avx2! { pub(super) fn to_network(values: &mut [f32], unit: Unit) = to_network_body }

/// Moves a row towards what a network gave.
#[inline(always)]
fn blend_body(row: &mut [f32], values: &[f32], unit: Unit, strength: f32) {
    for (plain, &value) in row.iter_mut().zip(values) {
        *plain += strength * (value * unit.gain + unit.bias - *plain);
    }
}
with_avx2! {
    pub(super) fn blend(row: &mut [f32], values: &[f32], unit: Unit, strength: f32) = blend_body
}

/// Moves a row of RGB towards what a network gave for luma: all three by the same amount, so that
/// differences of colour stay as they are.
#[inline(always)]
fn blend_rgb_body(rgb: [&mut [f32]; 3], values: &[f32], unit: Unit, strength: f32) {
    let [r, g, b] = rgb;
    let rgb = r.iter_mut().zip(g).zip(b);
    for (((r, g), b), &value) in rgb.zip(values) {
        let change = strength * (value * unit.gain + unit.bias - luma(*r, *g, *b));
        *r += change;
        *g += change;
        *b += change;
    }
}
with_avx2! {
    pub(super) fn blend_rgb(rgb: [&mut [f32]; 3], values: &[f32], unit: Unit, strength: f32)
        = blend_rgb_body
}

/// Luma of RGB with the weights of BT.601: those of the pictures that networks are trained and
/// measured on, whatever the primaries. The weights only say where detail goes, colours do not
/// depend on them.
#[inline(always)]
pub(super) fn luma(r: f32, g: f32, b: f32) -> f32 {
    LUMA[0] * r + LUMA[1] * g + LUMA[2] * b
}

/// These weights.
pub(super) const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// How code values relate to what networks take, luma in limited range as 8-bit code values / 255:
/// code value = network value · gain + bias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unit {
    gain: f32,
    bias: f32,
}

impl Unit {
    /// Code values for a difference of one of a network.
    pub(super) fn gain(self) -> f32 {
        self.gain
    }

    pub(super) fn new(sample: Sample, full_range: bool) -> Self {
        let max = sample.max();
        if full_range {
            // 0..=max is 16..=235 there.
            Self {
                gain: max * 255.0 / 219.0,
                bias: -max * 16.0 / 219.0,
            }
        } else {
            Self {
                gain: sample.per_step() * 255.0,
                bias: 0.0,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_survive_in_every_layout() {
        for (sample, components) in [
            (Sample::Eight, 1),
            (Sample::Eight, 2),
            (Sample::Eight, 3),
            (Sample::Ten(0), 1),
            (Sample::Ten(6), 1),
            (Sample::Ten(6), 2),
        ] {
            let step = components * sample.bytes();
            let values: Vec<f32> = (0..67).map(|i| (i * 37 % 256) as f32).collect();
            let mut row = vec![0; values.len() * step];
            for component in 0..components {
                store(
                    sample,
                    step,
                    &values,
                    &mut row[component * sample.bytes()..],
                );
            }
            for component in 0..components {
                let mut read = vec![-1.0; values.len()];
                load(sample, step, &row[component * sample.bytes()..], &mut read);
                assert_eq!(read, values);
            }
        }
    }

    #[test]
    fn values_are_rounded_and_clipped() {
        let values = [
            -1e9,
            -0.4,
            0.5,
            1.5,
            254.4,
            255.4,
            1e9,
            f32::NAN,
            f32::INFINITY,
        ];
        let mut row = [9; 9];
        store(Sample::Eight, 1, &values, &mut row);
        assert_eq!(row, [0, 0, 0, 2, 254, 255, 255, 0, 255]);
        let mut words = [0; 4];
        store(Sample::Ten(6), 2, &[1022.6, 3000.0], &mut words);
        assert_eq!(words, [0xc0, 0xff, 0xc0, 0xff]);
    }

    #[test]
    fn ranges_map_black_to_black_and_white_to_white() {
        let near = |a: f32, b: f32| (a - b).abs() < 1e-4 * b.abs().max(1.0);
        for (sample, full, black, white) in [
            (Sample::Eight, false, 16.0, 235.0),
            (Sample::Eight, true, 0.0, 255.0),
            (Sample::Ten(0), false, 64.0, 940.0),
            (Sample::Ten(6), true, 0.0, 1023.0),
        ] {
            let unit = Unit::new(sample, full);
            let mut codes = [black, white];
            to_network(&mut codes, unit);
            assert!(near(codes[0], 16.0 / 255.0) && near(codes[1], 235.0 / 255.0));
            let mut back = [0.0; 2];
            from_network(&codes, unit, &mut back);
            assert!((back[0] - black).abs() < 1e-3 && near(back[1], white));
        }
    }

    #[test]
    fn parts_take_turns() {
        for scale in 1..=4 {
            let parts: Vec<f32> = (0..scale)
                .flat_map(|p| (0..5).map(move |i| (scale * i + p) as f32))
                .collect();
            for len in 0..=5 * scale {
                let mut out = vec![-1.0; len];
                interleave(scale, &parts, &mut out);
                assert_eq!(out, (0..len).map(|i| i as f32).collect::<Vec<_>>());
            }
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Latents between networks and entropy coder: quantisation (the encoder's freedom) and dequantisation (normative).

use super::entropy::SymbolCosts;
use crate::nn::LATENT_CHANNELS;

/// Largest magnitude of a symbol and of a dequantised residual.
pub const MAX_MAGNITUDE: i32 = 2047;

/// How symbols are chosen.
#[derive(Debug, Clone, Copy)]
pub enum Rounding<'a> {
    /// A dead zone: symbols round up from this fraction on.
    DeadZone(f32),
    /// Weighs the error against the bits in the state of the entropy coder; a bit is worth this squared error, in
    /// squared steps.
    RateDistortion(&'a SymbolCosts, f32),
}

/// Turns the normalised latent `y` into symbols; zero where `scale_idx` is 0. Both are `[384, positions]`.
pub fn quantise(y: &[f32], scale_idx: &[u8], rounding: Rounding<'_>) -> Vec<i16> {
    let max = MAX_MAGNITUDE as f32;
    match rounding {
        Rounding::DeadZone(from) => {
            let up = 1.0 - from;
            y.iter()
                .zip(scale_idx)
                .map(|(&y, &k)| {
                    let m = (y.abs() + up).floor();
                    // Written so that NaN passes, which `as` turns into 0.
                    let m = if m > max { max } else { m };
                    let s = m.copysign(y) as i16;
                    if k == 0 { 0 } else { s }
                })
                .collect()
        }
        Rounding::RateDistortion(costs, lambda) => {
            let lambda = lambda / 256.0;
            y.iter()
                .zip(scale_idx)
                .map(|(&y, &k)| {
                    let a = y.abs();
                    // Below 0.4 zero wins against one whatever the costs.
                    if k == 0 || a.is_nan() || a <= 0.4 {
                        return 0;
                    }
                    let near = (a + 0.5).floor().min(max);
                    let high = near.max(1.0);
                    let mut best = (f32::MAX, 0.0);
                    // The nearest value, the one below it, and zero for small ones.
                    for m in [high, high - 1.0, if high <= 2.0 { 0.0 } else { high - 1.0 }] {
                        let d = a - m;
                        let j = d * d + lambda * costs.cost(k, m as u32) as f32;
                        if j < best.0 {
                            best = (j, m);
                        }
                    }
                    best.1.copysign(y) as i16
                })
                .collect()
        }
    }
}

/// Turns symbols into the integer residual that the synthesis takes: `|symbol| · step / 64` rounded half up, at most
/// 2047. `symbols` is `[384, positions]`; `step` in 1/64 units.
pub fn dequantise(symbols: &[i16], step: &[u16; LATENT_CHANNELS]) -> Vec<i16> {
    let positions = symbols.len() / LATENT_CHANNELS;
    let mut out = Vec::with_capacity(symbols.len());
    for (plane, &step) in symbols.chunks_exact(positions.max(1)).zip(step) {
        let step = u32::from(step);
        out.extend(plane.iter().map(|&s| {
            // At most 2^15 · 2^16 + 32: within a u32.
            let m = ((u32::from(s.unsigned_abs()) * step + 32) >> 6).min(MAX_MAGNITUDE as u32);
            if s < 0 { -(m as i16) } else { m as i16 }
        }));
    }
    out
}

/// Normalised latents with a change of their means taken off: `y - delta · 64 / step`. All are `[384, positions]`.
pub fn refined(y: &[f32], delta: &[i16], step: &[u16; LATENT_CHANNELS]) -> Vec<f32> {
    let positions = (y.len() / LATENT_CHANNELS).max(1);
    let mut out = Vec::with_capacity(y.len());
    for ((y, delta), &step) in y
        .chunks_exact(positions)
        .zip(delta.chunks_exact(positions))
        .zip(step)
    {
        let per_step = 64.0 / f32::from(step.max(1));
        out.extend(
            y.iter()
                .zip(delta)
                .map(|(y, &d)| y - f32::from(d) * per_step),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dequantisation_rounds_half_up_in_magnitude_and_clips() {
        let mut step = [64u16; LATENT_CHANNELS];
        (step[0], step[1], step[2], step[3]) = (32, 65535, 1, 96);
        let mut symbols = vec![0i16; LATENT_CHANNELS * 2];
        symbols[..8].copy_from_slice(&[1, -1, 2, -2, 31, 32, -1, 3]);
        symbols[8] = i16::MIN;
        let r = dequantise(&symbols, &step);
        assert_eq!(r[..9], [1, -1, 2047, -2047, 0, 1, -2, 5, -2047]);
        assert!(r[9..].iter().all(|&v| v == 0));
    }

    #[test]
    fn refinement_takes_the_change_of_means_off_in_steps() {
        let mut step = [64u16; LATENT_CHANNELS];
        step[1] = 256;
        let y = vec![0.5f32; LATENT_CHANNELS * 2];
        let mut delta = vec![0i16; LATENT_CHANNELS * 2];
        delta[..4].copy_from_slice(&[1, -2, 8, 0]);
        let out = refined(&y, &delta, &step);
        assert_eq!(out[..5], [-0.5, 2.5, -1.5, 0.5, 0.5]);
        assert_eq!(out.len(), y.len());
    }

    #[test]
    fn quantisation_skips_clips_and_survives_nan() {
        let y = [0.3, -0.9, 1.52, -7000.0, f32::NAN, 0.9, f32::INFINITY, 0.55];
        let k = [9, 9, 9, 9, 9, 0, 9, 9];
        let s = quantise(&y, &k, Rounding::DeadZone(0.56));
        assert_eq!(s, [0, -1, 1, -2047, 0, 0, 2047, 0]);
    }
}

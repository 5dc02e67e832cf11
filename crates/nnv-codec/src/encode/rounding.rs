// SPDX-License-Identifier: MPL-2.0
//! Latents to symbols: what the encoder rounds to, by rate and distortion.

use nnv_format::entropy::tables::MAX_MAGNITUDE;
use nnv_format::entropy::{self, HIDING_CHANNELS, HIDING_SUM, SymbolCosts};
use nnv_format::quantizer_map::Quantisation;
use nnv_format::tables::LATENT_CHANNELS;
use std::cmp::Ordering;

/// How symbols are chosen.
#[derive(Debug, Clone, Copy)]
pub enum Rounding<'a> {
    /// A dead zone: symbols round up from this fraction on.
    DeadZone(f32),
    /// Weighs the error against the bits in the state of the entropy coder; a bit is worth this
    /// squared error, in squared steps.
    RateDistortion(&'a SymbolCosts, f32),
}

/// Turns the normalised latent `y` into symbols; zero where `scale_idx` is 0. Both are `[384,
/// height, width]`.
///
/// `fixed`: symbols that stay as they are where the sum of row and column is even.
pub fn quantise(
    y: &[f32],
    scale_idx: &[u8],
    width: usize,
    rounding: Rounding<'_>,
    fixed: Option<&[i16]>,
) -> Vec<i16> {
    let positions = y.len() / LATENT_CHANNELS;
    let mut out = vec![0; y.len()];
    for c in 0..LATENT_CHANNELS {
        let range = c * positions..(c + 1) * positions;
        let (y, k) = (&y[range.clone()], &scale_idx[range.clone()]);
        let fixed = fixed.map(|f| &f[range.clone()]);
        quantise_plane(y, k, width, rounding, fixed, &mut out[range]);
    }
    out
}

/// Class of the magnitudes around a place, as the entropy coder sees them.
#[inline(always)]
fn near(plane: &[i16], width: usize, at: usize) -> usize {
    let x = at % width;
    let m = |back: usize, there: bool| {
        if there && at >= back {
            u32::from(plane[at - back].unsigned_abs()).min(15)
        } else {
            0
        }
    };
    entropy::near(
        m(1, x > 0),
        m(width, true),
        m(width + 1, x > 0),
        m(width - 1, x + 1 < width),
    )
}

fn quantise_plane(
    y: &[f32],
    scale_idx: &[u8],
    width: usize,
    rounding: Rounding<'_>,
    fixed: Option<&[i16]>,
    out: &mut [i16],
) {
    let max = MAX_MAGNITUDE as f32;
    for at in 0..y.len() {
        if let Some(fixed) = fixed
            && (at / width + at % width).is_multiple_of(2)
        {
            out[at] = fixed[at];
            continue;
        }
        let (y, k) = (y[at], scale_idx[at]);
        let a = y.abs();
        // Below 0.4 zero wins against one whatever the costs.
        if k == 0 || a.is_nan() || a <= 0.4 {
            continue;
        }
        out[at] = match rounding {
            Rounding::DeadZone(from) => (a + 1.0 - from).floor().min(max).copysign(y) as i16,
            Rounding::RateDistortion(costs, lambda) => {
                let near = near(out, width, at);
                let high = (a + 0.5).floor().min(max).max(1.0);
                let mut best = (f32::MAX, 0.0);
                // The nearest value, the one below it, and zero for small ones.
                for m in [high, high - 1.0, if high <= 2.0 { 0.0 } else { high - 1.0 }] {
                    let d = a - m;
                    let bits = costs.cost(k, near, m as u32) as f32 / 256.0;
                    let j = d * d + lambda * bits;
                    if j < best.0 {
                        best = (j, m);
                    }
                }
                best.1.copysign(y) as i16
            }
        };
    }
}

/// Bits of the symbols by place, as `costs` estimates them.
pub fn bits_by_place(
    symbols: &[i16],
    scale_idx: &[u8],
    width: usize,
    costs: &SymbolCosts,
) -> Vec<f32> {
    let positions = (symbols.len() / LATENT_CHANNELS).max(1);
    let mut bits = vec![0.0; positions];
    for (plane, scales) in symbols
        .chunks_exact(positions)
        .zip(scale_idx.chunks_exact(positions))
    {
        for (at, bits) in bits.iter_mut().enumerate() {
            // Nothing is coded there, and nothing costs nothing.
            if scales[at] == 0 {
                continue;
            }
            let magnitude = plane[at].unsigned_abs().into();
            *bits += costs.cost(scales[at], near(plane, width, at), magnitude) as f32 / 256.0;
        }
    }
    bits
}

/// Makes the sign of the first symbol other than zero, of each place and [`HIDING_CHANNELS`], what
/// the parity of the magnitudes says where the entropy coder does not write it: of all changes of a
/// symbol by one that do it, the cheapest is made.
///
/// This is sign data hiding (Clare, Henry and Jung, JCTVC-G271) over channels instead of
/// coefficients. `order`: the channels in the order of coding.
pub fn hide_signs(
    symbols: &mut [i16],
    y: &[f32],
    scale_idx: &[u8],
    width: usize,
    order: &[u16],
    rounding: Rounding<'_>,
) {
    let positions = (symbols.len() / LATENT_CHANNELS).max(1);
    let mut sums = vec![0u32; positions];
    // Whether the first symbol is negative.
    let mut firsts = vec![None; positions];
    for order in order.chunks(HIDING_CHANNELS) {
        sums.fill(0);
        firsts.fill(None);
        for &c in order {
            let plane = &symbols[usize::from(c) * positions..][..positions];
            for ((&s, sum), first) in plane.iter().zip(&mut sums).zip(&mut firsts) {
                if s != 0 {
                    *sum += u32::from(s.unsigned_abs());
                    first.get_or_insert(s < 0);
                }
            }
        }
        for (p, (sum, first)) in sums.iter().zip(&firsts).enumerate() {
            if *sum >= HIDING_SUM && first.is_some_and(|negative| negative != (sum % 2 == 1)) {
                change_parity(symbols, y, scale_idx, width, order, p, *sum, rounding);
            }
        }
    }
}

/// Changes one symbol at position `p` by one such that the first one other than zero has the sign
/// that the new parity says, or the new sum of magnitudes hides none. It has the wrong one before.
#[allow(clippy::too_many_arguments)]
fn change_parity(
    symbols: &mut [i16],
    y: &[f32],
    scale_idx: &[u8],
    width: usize,
    order: &[u16],
    p: usize,
    sum: u32,
    rounding: Rounding<'_>,
) {
    let positions = symbols.len() / LATENT_CHANNELS;
    let at = |c: u16| usize::from(c) * positions + p;
    let mut nonzero = order
        .iter()
        .enumerate()
        .filter(|&(_, &c)| symbols[at(c)] != 0);
    let first = nonzero.next().map(|(i, _)| i);
    let second = nonzero.next().map(|(_, &c)| symbols[at(c)] < 0);
    let Some(first) = first else { return };
    // With the parity changed, the sign of what is first now is right.
    let negative = symbols[at(order[first])] < 0;
    let mut best = (f32::INFINITY, 0, 0);
    for (i, &c) in order.iter().enumerate() {
        let (s, k, v) = (symbols[at(c)], scale_idx[at(c)], y[at(c)]);
        if k == 0 || v.is_nan() {
            continue;
        }
        let below_zero = s < 0 || s == 0 && v < 0.0;
        let x = if below_zero { -v } else { v };
        let x = x.clamp(-(MAX_MAGNITUDE as f32), MAX_MAGNITUDE as f32);
        let m = i32::from(s.unsigned_abs());
        // Zeros far from one are not worth a look.
        if m == 0 && x < 0.2 {
            continue;
        }
        for to in [m - 1, m + 1] {
            let fits = match (i.cmp(&first), m, to) {
                (Ordering::Less, ..) => below_zero == negative,
                (Ordering::Equal, 1, 0) => second.is_none_or(|second| second == negative),
                _ => true,
            };
            let total = sum.wrapping_add_signed(to - m);
            let hidden = total >= HIDING_SUM;
            let fits = fits || !hidden;
            if !fits || !(0..=MAX_MAGNITUDE).contains(&to) {
                continue;
            }
            let error = |m: i32| (x - m as f32).powi(2);
            let mut cost = error(to) - error(m);
            if let Rounding::RateDistortion(costs, lambda) = rounding {
                let plane = usize::from(c) * positions;
                let near = near(&symbols[plane..plane + positions], width, p);
                let bits = |m: i32| costs.cost(k, near, m as u32) as f32 / 256.0;
                // One sign is not written.
                let written = if hidden { 0.0 } else { 1.0 };
                cost += lambda * (bits(to) - bits(m) + written);
            }
            if cost < best.0 {
                best = (cost, at(c), if below_zero { -to } else { to });
            }
        }
    }
    // There is always one: the first symbol can become larger, or smaller where it is the largest
    // there is.
    if best.0.is_finite() {
        symbols[best.1] = best.2 as i16;
    }
}

/// Normalised latents with a change of their means taken off: `y - delta · 64 / step`. All are
/// `[384, positions]`.
pub fn refined(y: &[f32], delta: &[i16], steps: &Quantisation<'_>) -> Vec<f32> {
    let positions = (y.len() / LATENT_CHANNELS).max(1);
    let planes = y
        .chunks_exact(positions)
        .zip(delta.chunks_exact(positions))
        .enumerate();
    let mut out = Vec::with_capacity(y.len());
    for (c, (y, delta)) in planes {
        out.extend(y.iter().zip(delta).enumerate().map(|(at, (y, &d))| {
            let step = steps.step(c, at).max(1);
            y - f32::from(d) * (64.0 / f32::from(step))
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_signs_fit_and_change_little() {
        const WIDTH: usize = 5;
        let positions = 4 * WIDTH;
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state) / f64::from(u32::MAX)
        };
        let len = LATENT_CHANNELS * positions;
        let k: Vec<u8> = (0..len).map(|i| (i / positions % 20) as u8).collect();
        let mut y: Vec<f32> = (k.iter())
            .map(|&k| ((next() - 0.5) * f64::from(k) * next().powi(3)) as f32)
            .collect();
        (y[7 * positions], y[9 * positions + 1], y[3 * positions + 2]) =
            (f32::NAN, f32::INFINITY, -3000.0);
        let order: Vec<u16> = (0..LATENT_CHANNELS as u16).rev().collect();
        let rounding = Rounding::DeadZone(0.56);
        let plain = quantise(&y, &k, WIDTH, rounding, None);
        let mut hidden = plain.clone();
        hide_signs(&mut hidden, &y, &k, WIDTH, &order, rounding);
        let mut changes = 0;
        for (p, channels) in
            (0..positions).flat_map(|p| order.chunks(HIDING_CHANNELS).map(move |c| (p, c)))
        {
            let place = |s: &[i16]| -> Vec<i32> {
                (channels.iter())
                    .map(|&c| i32::from(s[usize::from(c) * positions + p]))
                    .collect()
            };
            let (before, after) = (place(&plain), place(&hidden));
            let moved: i32 = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).sum();
            assert!(moved <= 1, "{moved} at {p}");
            changes += moved;
            let sum: u32 = after.iter().map(|s| s.unsigned_abs()).sum();
            let first = after.iter().find(|&&s| s != 0);
            if sum >= HIDING_SUM {
                assert!(
                    first.is_none_or(|&s| (s < 0) == (sum % 2 == 1)),
                    "{after:?}"
                );
            }
        }
        let groups = positions * LATENT_CHANNELS / HIDING_CHANNELS;
        let share = f64::from(changes) / groups as f64;
        assert!((0.3..0.6).contains(&share), "{changes} of {groups}");
    }

    #[test]
    fn the_first_half_stays() {
        let y = vec![0.9f32; LATENT_CHANNELS * 6];
        let k = vec![9; y.len()];
        let fixed = vec![5i16; y.len()];
        let s = quantise(&y, &k, 3, Rounding::DeadZone(0.5), Some(&fixed));
        assert_eq!(s[..6], [5, 1, 5, 1, 5, 1]);
    }

    #[test]
    fn refinement_takes_the_change_of_means_off_in_steps() {
        let mut step = [64u16; LATENT_CHANNELS];
        step[1] = 256;
        let y = vec![0.5f32; LATENT_CHANNELS * 2];
        let mut delta = vec![0i16; LATENT_CHANNELS * 2];
        delta[..4].copy_from_slice(&[1, -2, 8, 0]);
        let out = refined(&y, &delta, &Quantisation::of_steps(&step));
        assert_eq!(out[..5], [-0.5, 2.5, -1.5, 0.5, 0.5]);
        assert_eq!(out.len(), y.len());
    }

    #[test]
    fn quantisation_skips_clips_and_survives_nan() {
        let y = [0.3, -0.9, 1.52, -7000.0, f32::NAN, 0.9, f32::INFINITY, 0.55];
        let k = [9, 9, 9, 9, 9, 0, 9, 9];
        let mut y8 = vec![0.0; LATENT_CHANNELS * 8];
        let mut k8 = vec![9; LATENT_CHANNELS * 8];
        y8[..8].copy_from_slice(&y);
        k8[..8].copy_from_slice(&k);
        let s = &quantise(&y8, &k8, 8, Rounding::DeadZone(0.56), None)[..8];
        assert_eq!(s, [0, -1, 1, -2047, 0, 0, 2047, 0]);
    }
}

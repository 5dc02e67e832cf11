// SPDX-License-Identifier: MPL-2.0
//! Symbols to the residuals that the synthesis networks take.

use super::entropy::SparseSymbols;
use super::entropy::tables::MAX_MAGNITUDE;
use super::quantizer_map::Quantisation;
use super::tables::LATENT_CHANNELS;

/// `|symbol| · step / 64` rounded half up, at most 2047, with the symbol's sign.
#[inline(always)]
fn residual(symbol: i16, step: u16) -> i16 {
    // At most 2^15 · 2^16 + 32: within a u32.
    let m = (u32::from(symbol.unsigned_abs()) * u32::from(step) + 32) >> 6;
    let m = m.min(MAX_MAGNITUDE as u32) as i16;
    if symbol < 0 { -m } else { m }
}

/// Turns symbols into the integer residual that the synthesis takes: `|symbol| · step / 64` rounded
/// half up, at most
/// 2047. `symbols` is `[384, positions]`; steps are in 1/64 units.
pub fn dequantise(symbols: &[i16], steps: &Quantisation<'_>) -> Vec<i16> {
    let positions = symbols.len() / LATENT_CHANNELS;
    let mut out = Vec::with_capacity(symbols.len());
    for (c, plane) in symbols.chunks_exact(positions.max(1)).enumerate() {
        let at = plane.iter().enumerate();
        out.extend(at.map(|(at, &s)| residual(s, steps.step(c, at))));
    }
    out
}

/// What [`dequantise`] gives of the symbols that a decoder found, into `out` of the latent's
/// length.
pub fn dequantise_sparse(symbols: &SparseSymbols, steps: &Quantisation<'_>, out: &mut [i16]) {
    out.fill(0);
    let positions = out.len() / LATENT_CHANNELS;
    for symbol in symbols.iter() {
        let (c, at) = (usize::from(symbol.channel), symbol.at as usize);
        out[at] = residual(symbol.value, steps.step(c, at - c * positions));
    }
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
        let r = dequantise(&symbols, &Quantisation::of_steps(&step));
        assert_eq!(r[..9], [1, -1, 2047, -2047, 0, 1, -2, 5, -2047]);
        assert!(r[9..].iter().all(|&v| v == 0));
    }
}

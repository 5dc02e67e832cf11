// SPDX-License-Identifier: MPL-2.0
//! The choice of places that are as predicted.

use nnv_format::picture::TENSOR_CHANNELS;
use nnv_format::still::StillMap;
use nnv_format::tables::LATENT_CHANNELS;

/// Squared error of 10-bit samples that a bit is worth at quantizer 40; it doubles every six.
const WORTH: f32 = 1000.0;
/// Least share of places of a picture that are still, for a map to be worth a try.
const LEAST: f32 = 0.1;

/// What is known of a frame after its networks.
pub(super) struct Judged<'a> {
    /// Source, prediction and result, packed, `[96, 2·h16, 2·w16]`.
    pub source: &'a [i16],
    pub prediction: &'a [i16],
    pub result: &'a [i16],
    /// Symbols `[384, places]`.
    pub symbols: &'a [i16],
    pub quantizer: u8,
    /// Places in a row.
    pub width: usize,
}

impl Judged<'_> {
    fn places(&self) -> usize {
        self.symbols.len() / LATENT_CHANNELS
    }
}

/// Squared errors by place of the prediction and of the result.
fn errors(frame: &Judged<'_>) -> Vec<[f32; 2]> {
    let (width, places) = (frame.width, frame.places());
    let mut errors = vec![[0.0; 2]; places];
    let (row, plane) = (2 * width, 4 * places);
    for c in 0..TENSOR_CHANNELS {
        let of = |tensor: &'_ [i16]| -> std::ops::Range<usize> {
            debug_assert!(tensor.len() >= (c + 1) * plane);
            c * plane..(c + 1) * plane
        };
        let source = &frame.source[of(frame.source)];
        let prediction = &frame.prediction[of(frame.prediction)];
        let result = &frame.result[of(frame.result)];
        let lines = source.chunks_exact(row).zip(prediction.chunks_exact(row));
        for (y, ((s, p), r)) in lines.zip(result.chunks_exact(row)).enumerate() {
            let errors = &mut errors[y / 2 * width..][..width];
            for (x, errors) in errors.iter_mut().enumerate() {
                for at in [2 * x, 2 * x + 1] {
                    let error = |v: i16| {
                        let d = f32::from(s[at]) - f32::from(v);
                        d * d
                    };
                    errors[0] += error(p[at]);
                    errors[1] += error(r[at]);
                }
            }
        }
    }
    errors
}

/// Whether enough of a frame has no symbols for a map of still places to be looked for.
pub(super) fn is_quiet(symbols: &[i16], places: usize) -> bool {
    let silent = silent(symbols, places).iter().filter(|s| **s).count();
    silent as f32 >= LEAST * places as f32
}

/// Places without symbols.
fn silent(symbols: &[i16], places: usize) -> Vec<bool> {
    let mut silent = vec![true; places];
    for plane in symbols.chunks_exact(places).take(LATENT_CHANNELS) {
        for (silent, &symbol) in silent.iter_mut().zip(plane) {
            *silent &= symbol == 0;
        }
    }
    silent
}

/// Bits of a place of a map that is unlike its neighbours, by how many of the four are not; what is
/// like them takes those of the rest.
const UNLIKE_BITS: [f32; 5] = [0.1, 0.4, 1.0, 2.0, 4.0];
/// Rounds in which places take after their neighbours.
const ROUNDS: usize = 3;

/// The places that are as predicted, of those of which nothing is coded: where the prediction is no
/// worse than the result, or by less than what the bits of an exception are worth and `slack` times
/// that. None where the picture is no better for it.
///
/// `bytes`: what a map takes as part of a frame.
pub(super) fn choose(
    frame: &Judged<'_>,
    slack: f32,
    bytes: impl Fn(&StillMap) -> usize,
    quick: impl Fn(&StillMap) -> bool,
) -> Option<StillMap> {
    let (width, places) = (frame.width, frame.places());
    let worth = WORTH * ((f32::from(frame.quantizer) - 40.0) / 6.0).exp2();
    let silent = silent(frame.symbols, places);
    // In bits that what goes wrong is worth. (Zeros that are not coded save next to nothing: runs
    // of them are cheap.)
    let lost: Vec<f32> = errors(frame)
        .iter()
        .map(|[prediction, result]| (prediction - result) / worth)
        .collect();
    let mut still: Vec<bool> = silent
        .iter()
        .zip(&lost)
        .map(|(s, l)| *s && *l <= 1.0)
        .collect();
    for _ in 0..ROUNDS {
        for at in (0..places).filter(|at| silent[*at]) {
            let (x, y) = (at % width, at / width);
            let around = [
                (x > 0).then(|| at - 1),
                (x + 1 < width).then(|| at + 1),
                (y > 0).then(|| at - width),
                (at + width < places).then(|| at + width),
            ];
            // Outside counts as half a neighbour of both kinds.
            let alike = around
                .iter()
                .map(|n| n.map_or(0.5, |n| f32::from(u8::from(still[n]))));
            let alike = alike.sum::<f32>().round() as usize;
            let [unlike, like] = [UNLIKE_BITS[alike], UNLIKE_BITS[4 - alike]];
            still[at] = lost[at] + like <= unlike * (1.0 + slack);
        }
    }
    let map = StillMap::new(width, still);
    if (map.count() as f32) < LEAST * places as f32 {
        return None;
    }
    let lost: f32 = map
        .places()
        .iter()
        .zip(&lost)
        .filter(|(s, _)| **s)
        .map(|(_, l)| l)
        .sum();
    let lost = lost + 8.0 * bytes(&map) as f32;
    let most = slack * map.count() as f32;
    (lost <= 0.0 || (lost <= most && quick(&map))).then_some(map)
}

// SPDX-License-Identifier: MPL-2.0
//! Coding of the hyper-latent `z`: small, and next to nothing when it is zero.

use super::golomb::UIntModel;
use super::mix::{Counter, Mixer};
use super::range::{BinaryCoder, Prob};
use super::tables::{BINS, LatentShape, SymbolTables};

/// Largest magnitude of a symbol of `z`.
pub const MAX_HYPER: i32 = 127;

const CO_CLASSES: usize = 6;
const NEAR_CLASSES: usize = 5;
const TRUST: u32 = 4;
const LIMITS: [u16; 3] = [400, 250, 250];

type Bins = [Counter; BINS];

#[inline]
fn class(magnitude: u32) -> usize {
    match magnitude {
        0..=3 => magnitude as usize,
        4..=7 => 4,
        _ => 5,
    }
}

/// The adaptive state of `z`.
#[derive(Clone, Debug)]
pub(super) struct HyperState {
    /// Whether any symbol of the frame is not zero, by whether any was in the reference.
    present: [Prob; 2],
    /// Per channel.
    channel: Vec<Bins>,
    /// Per channel and whether the reference is zero, one or more there.
    channel_co: Vec<Bins>,
    /// By the reference's magnitude and those of the left and upper neighbours.
    near: Vec<Bins>,
    mixers: Vec<Mixer<3>>,
    /// By the reference's sign and the neighbours' signs.
    sign: [Prob; 9],
    escape: UIntModel<0>,
}

impl HyperState {
    pub(super) fn new(tables: &SymbolTables) -> HyperState {
        let channels = tables.hyper_channels();
        let row = |c: usize, trust| tables.z_row(c).map(|p| Counter::new(p, trust));
        // The average of all channels stands for the models that do not know the channel.
        let mean: [u16; BINS] = std::array::from_fn(|j| {
            let sum: u32 = (0..channels).map(|c| u32::from(tables.z_row(c)[j])).sum();
            (sum / channels as u32) as u16
        });
        HyperState {
            present: [Prob::HALF; 2],
            channel: (0..channels).map(|c| row(c, TRUST * 2)).collect(),
            channel_co: (0..channels * 3).map(|i| row(i / 3, TRUST)).collect(),
            near: vec![mean.map(|p| Counter::new(p, TRUST / 4)); CO_CLASSES * NEAR_CLASSES],
            mixers: vec![Mixer::new([6500, 6500, 3500]); 3],
            sign: [Prob::HALF; 9],
            escape: UIntModel::default(),
        }
    }

    /// Codes `z`. An encoder passes the symbols; a decoder passes zeros and finds the symbols there
    /// afterwards. `before` hears of each symbol's place in `[channels, height, width]` before it
    /// is coded.
    ///
    /// Returns false when what was decoded cannot have been encoded.
    pub(super) fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        shape: LatentShape,
        z: &mut [i8],
        reference: Option<&[i8]>,
        before: impl Fn(usize),
    ) -> bool {
        let had = reference.is_some_and(|r| r.iter().any(|&v| v != 0));
        if !coder.code(
            &mut self.present[usize::from(had)],
            z.iter().any(|&v| v != 0),
        ) {
            return true;
        }
        let (w, mut sound) = (shape.width, true);
        for c in 0..shape.channels {
            for y in 0..shape.height {
                for x in 0..w {
                    let at = (c * shape.height + y) * w + x;
                    before(at);
                    let left = if x > 0 { i32::from(z[at - 1]) } else { 0 };
                    let top = if y > 0 { i32::from(z[at - w]) } else { 0 };
                    let co = reference.map_or(0, |r| i32::from(r[at]));
                    let near = class((left.unsigned_abs() + top.unsigned_abs()).min(7));
                    let near = near.min(NEAR_CLASSES - 1);
                    let co_class = class(co.unsigned_abs());
                    let a = &mut self.channel[c];
                    let b = &mut self.channel_co[c * 3 + co_class.min(2)];
                    let d = &mut self.near[co_class * NEAR_CLASSES + near];
                    let symbol = i32::from(z[at]);
                    let mut m = 0;
                    while m < BINS as u32 {
                        let j = m as usize;
                        let models = [&mut a[j], &mut b[j], &mut d[j]];
                        let more = symbol.unsigned_abs() > m;
                        if !self.mixers[j.min(2)].code(coder, models, LIMITS, more) {
                            break;
                        }
                        m += 1;
                    }
                    if m == BINS as u32 {
                        m += self
                            .escape
                            .code(coder, symbol.unsigned_abs().wrapping_sub(m));
                        sound &= m <= MAX_HYPER as u32;
                        m = m.min(MAX_HYPER as u32);
                    }
                    z[at] = 0;
                    if m > 0 {
                        let sign = ((co.signum() + 1) * 3 + (left + top).signum() + 1) as usize;
                        let negative = coder.code(&mut self.sign[sign], symbol < 0);
                        z[at] = if negative { -(m as i8) } else { m as i8 };
                    }
                }
            }
        }
        // "Present" with nothing in it is what no encoder writes.
        sound
    }
}

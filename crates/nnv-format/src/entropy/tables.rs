// SPDX-License-Identifier: MPL-2.0
//! What the coding of symbols begins with: tables of a bundle, shapes, the symbols themselves.

use super::error::EntropyError;

/// Scale indices that a prior network may give; 0 means "not coded, zero".
pub const SCALES: usize = 64;
/// Adaptive magnitude bins of a symbol; larger magnitudes take an escape.
pub const BINS: usize = 15;
/// Largest magnitude of a symbol of `y`.
pub const MAX_MAGNITUDE: i32 = 2047;

/// The entropy tables of a bundle for one kind of frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolTables {
    y_prob: Vec<[u16; BINS]>,
    z_prob: Vec<[u16; BINS]>,
    y_order: Vec<u16>,
    /// Expected magnitude (capped at [`BINS`]) per scale index, in 1/256.
    expected: [u16; SCALES],
}

impl SymbolTables {
    /// Takes the arrays of `tables.bin`: `y_prob` [64][15], `z_prob` [hyper channels][15],
    /// `y_order` [channels].
    ///
    /// # Errors
    /// [`EntropyError::Tables`] when a size does not fit or `y_order` is no permutation.
    pub fn new(
        y_prob: &[u16],
        z_prob: &[u16],
        y_order: &[u16],
    ) -> Result<SymbolTables, EntropyError> {
        if y_prob.len() != SCALES * BINS {
            return Err(EntropyError::Tables {
                what: "y_prob must have 64 x 15 entries",
            });
        }
        if z_prob.is_empty() || !z_prob.len().is_multiple_of(BINS) {
            return Err(EntropyError::Tables {
                what: "z_prob must have 15 entries per hyper channel",
            });
        }
        let mut seen = vec![false; y_order.len()];
        for &c in y_order {
            match seen.get_mut(usize::from(c)) {
                Some(s) if !*s => *s = true,
                _ => {
                    return Err(EntropyError::Tables {
                        what: "y_order must name each channel once",
                    });
                }
            }
        }
        let rows = |t: &[u16]| t.as_chunks::<BINS>().0.to_vec();
        let y_prob = rows(y_prob);
        let expected = std::array::from_fn(|k| {
            let (mut reach, mut sum) = (65536u64, 0u64);
            for &p in &y_prob[k] {
                reach = (reach * u64::from(p)) >> 16;
                sum += reach;
            }
            (sum >> 8) as u16
        });
        Ok(SymbolTables {
            y_prob,
            z_prob: rows(z_prob),
            y_order: y_order.to_vec(),
            expected,
        })
    }

    /// Channels of `y`.
    pub fn channels(&self) -> usize {
        self.y_order.len()
    }

    /// Channels of `z`.
    pub fn hyper_channels(&self) -> usize {
        self.z_prob.len()
    }

    /// Initial probabilities of the bins at scale index `k`.
    pub(super) fn y_row(&self, k: usize) -> &[u16; BINS] {
        &self.y_prob[k]
    }

    /// Channels in the order of coding, from low to high frequency.
    pub fn order(&self) -> &[u16] {
        &self.y_order
    }

    /// Expected magnitude (capped at [`BINS`]) at scale index `k`, in 1/256.
    #[inline(always)]
    pub(super) fn expected(&self, k: u8) -> u32 {
        u32::from(self.expected[usize::from(k) & (SCALES - 1)])
    }

    /// Initial probabilities of the bins of hyper channel `c`.
    pub(super) fn z_row(&self, c: usize) -> &[u16; BINS] {
        &self.z_prob[c]
    }
}

/// Height and width of a latent tensor, with its channels in front: `[channels, height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentShape {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl LatentShape {
    /// Elements in the tensor.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A symbol other than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its place in `[channels, height, width]`.
    pub at: u32,
    /// Its channel.
    pub channel: u16,
    /// Its value, with a magnitude of at most 2047.
    pub value: i16,
}

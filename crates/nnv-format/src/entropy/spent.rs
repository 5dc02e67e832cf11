// SPDX-License-Identifier: MPL-2.0
//! Where the bits of a latent went: its symbols are coded once more, into counters.
//!
//! For those who look into a stream; decoding itself knows nothing of it.

use std::cell::Cell;

use super::band::Symbols;
use super::range::{BinaryCoder, bit_cost};
use super::tables::LatentShape;

/// What a frame's latent took, in 1/256 bit.
///
/// Flags that say of a run of eight places that nothing is in it count at the place that was looked
/// at last: sums over a few columns are exact, single places nearly so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatentBits {
    /// By channel, in the order of coding: from low to high frequencies.
    pub by_channel: Vec<u64>,
    /// By place, row after row.
    pub by_place: Vec<u64>,
}

impl LatentBits {
    pub(super) fn new(shape: LatentShape) -> Self {
        Self {
            by_channel: vec![0; shape.channels],
            by_place: vec![0; shape.height * shape.width],
        }
    }

    /// All of it, in 1/256 bit.
    pub fn sum(&self) -> u64 {
        self.by_channel.iter().sum()
    }

    pub(super) fn add(&mut self, other: &Self) {
        let add = |a: &mut [u64], b: &[u64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        add(&mut self.by_channel, &other.by_channel);
        add(&mut self.by_place, &other.by_place);
    }
}

/// Counts what bits cost in 1/256 bit, at the place that was named last.
pub(crate) struct PlaceMeter<'a> {
    at: &'a Cell<usize>,
    pub(crate) bits: Vec<u64>,
}

impl<'a> PlaceMeter<'a> {
    pub(crate) fn new(at: &'a Cell<usize>, places: usize) -> Self {
        Self {
            at,
            bits: vec![0; places],
        }
    }
}

impl BinaryCoder for PlaceMeter<'_> {
    fn bit_with(&mut self, p1: u16, bit: bool) -> bool {
        self.bits[self.at.get()] += u64::from(bit_cost(p1, bit));
        bit
    }

    fn bypass(&mut self, value: u32, n: u32) -> u32 {
        self.bits[self.at.get()] += 256 * u64::from(n);
        value
    }
}

/// Counts what bits cost, at the symbol that [`Watched`] was asked for last.
pub(super) struct Meter<'a> {
    /// That symbol's place in `[channels, height, width]`.
    pub(super) at: &'a Cell<usize>,
    pub(super) bits: LatentBits,
}

impl Meter<'_> {
    fn spend(&mut self, cost: u64) {
        let places = self.bits.by_place.len();
        let at = self.at.get();
        self.bits.by_channel[at / places] += cost;
        self.bits.by_place[at % places] += cost;
    }
}

impl BinaryCoder for Meter<'_> {
    fn bit_with(&mut self, p1: u16, bit: bool) -> bool {
        self.spend(bit_cost(p1, bit).into());
        bit
    }

    fn bypass(&mut self, value: u32, n: u32) -> u32 {
        self.spend(256 * u64::from(n));
        value
    }
}

/// A whole latent that remembers which symbol was asked for last.
pub(super) struct Watched<'a> {
    pub(super) symbols: &'a [i16],
    pub(super) at: &'a Cell<usize>,
}

impl Symbols for Watched<'_> {
    fn get(&self, at: usize) -> i32 {
        self.at.set(at);
        self.symbols[at].into()
    }

    fn put(&mut self, at: usize, _channel: u16, _value: i16) -> usize {
        at
    }

    fn is_negative(&self, handle: usize) -> bool {
        self.at.set(handle);
        self.symbols[handle] < 0
    }

    fn set_sign(&mut self, handle: usize, negative: bool) -> bool {
        (self.symbols[handle] < 0) == negative
    }
}

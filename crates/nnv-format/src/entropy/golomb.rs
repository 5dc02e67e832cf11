// SPDX-License-Identifier: MPL-2.0
//! Integers of any size in adaptive Exp-Golomb codes: motion vectors, escapes, side information.

use super::range::{BinaryCoder, Prob};

/// Longest prefix: values up to about 2^20, far above any motion vector of a 16384-sample picture
/// in quarter samples.
const MAX_PREFIX: usize = 20;

/// Exp-Golomb code of order `K` with adaptive prefix bits.
///
/// A value `v` is coded as the unary number `e` of bits that `v / 2^K + 1` has below its leading
/// one (each unary bit with its own probability), then those bits: the highest with a probability
/// of its own per `e`, the rest and the `K` low bits as they are. Values above [`UIntModel::MAX`]
/// cannot be coded.
#[derive(Clone, Debug)]
pub struct UIntModel<const K: u32> {
    prefix: [Prob; MAX_PREFIX],
    high: [Prob; MAX_PREFIX],
}

impl<const K: u32> Default for UIntModel<K> {
    fn default() -> Self {
        UIntModel {
            prefix: [Prob::HALF; MAX_PREFIX],
            high: [Prob::HALF; MAX_PREFIX],
        }
    }
}

impl<const K: u32> UIntModel<K> {
    /// The largest value that can be coded.
    pub const MAX: u32 = ((2 << MAX_PREFIX) - 2) << K | ((1 << K) - 1);

    /// Codes `value` (a decoder ignores it) and returns what was coded. Larger values are clamped
    /// to [`Self::MAX`].
    #[inline]
    pub fn code<C: BinaryCoder>(&mut self, coder: &mut C, value: u32) -> u32 {
        let value = value.min(Self::MAX);
        let m = (value >> K) + 1;
        let bits = 31 - m.leading_zeros();
        let mut e = 0;
        while e < MAX_PREFIX as u32 && coder.code(&mut self.prefix[e as usize], bits > e) {
            e += 1;
        }
        let mut result = 1;
        if e > 0 {
            let top = coder.code(&mut self.high[e as usize - 1], m >> (e - 1) & 1 == 1);
            result = 2 | u32::from(top);
        }
        if e > 1 {
            let rest = coder.bypass(m & ((1 << (e - 1)) - 1), e - 1);
            result = result << (e - 1) | rest;
        }
        let low = if K > 0 {
            coder.bypass(value & ((1 << K) - 1), K)
        } else {
            0
        };
        (result - 1) << K | low
    }
}

/// Signed integers: whether zero, the sign (adaptive), then the magnitude less one as
/// [`UIntModel`].
#[derive(Clone, Debug, Default)]
pub struct SIntModel<const K: u32> {
    nonzero: Prob,
    negative: Prob,
    magnitude: UIntModel<K>,
}

impl<const K: u32> SIntModel<K> {
    /// The largest magnitude that can be coded.
    pub const MAX: i32 = UIntModel::<K>::MAX as i32 + 1;

    /// Codes `value` (a decoder ignores it) and returns what was coded.
    #[inline]
    pub fn code<C: BinaryCoder>(&mut self, coder: &mut C, value: i32) -> i32 {
        if !coder.code(&mut self.nonzero, value != 0) {
            return 0;
        }
        let negative = coder.code(&mut self.negative, value < 0);
        let magnitude = self
            .magnitude
            .code(coder, value.unsigned_abs().saturating_sub(1)) as i32
            + 1;
        if negative { -magnitude } else { magnitude }
    }
}

#[cfg(test)]
mod tests {
    use super::super::range::{BitCounter, Decoder, Encoder};
    use super::*;

    fn round_trip<const K: u32>(values: &[i32]) {
        let (mut u, mut s) = (UIntModel::<K>::default(), SIntModel::<K>::default());
        let mut enc = Encoder::new();
        for &v in values {
            assert_eq!(u.code(&mut enc, v.unsigned_abs()), v.unsigned_abs());
            assert_eq!(s.code(&mut enc, v), v);
        }
        let bytes = enc.finish();
        let (mut u, mut s) = (UIntModel::<K>::default(), SIntModel::<K>::default());
        let mut dec = Decoder::new(&bytes);
        for &v in values {
            assert_eq!(u.code(&mut dec, 0), v.unsigned_abs());
            assert_eq!(s.code(&mut dec, 0), v);
        }
        dec.finish().unwrap();
    }

    #[test]
    fn every_size_round_trips() {
        let mut values: Vec<i32> = (-70..70).collect();
        values.extend((0..20).flat_map(|b| [1 << b, -(1 << b), (1 << b) - 1, 1 - (1 << b)]));
        values.extend([UIntModel::<0>::MAX as i32, -(UIntModel::<0>::MAX as i32)]);
        round_trip::<0>(&values);
        round_trip::<1>(&values);
        round_trip::<3>(&values);
    }

    #[test]
    fn values_beyond_the_limit_are_clamped() {
        let mut enc = Encoder::new();
        let mut u = UIntModel::<2>::default();
        assert_eq!(u.code(&mut enc, u32::MAX), UIntModel::<2>::MAX);
        let bytes = enc.finish();
        assert_eq!(
            UIntModel::<2>::default().code(&mut Decoder::new(&bytes), 0),
            UIntModel::<2>::MAX
        );
    }

    #[test]
    fn garbage_gives_bounded_values() {
        for b in 0..=255u8 {
            let data = [b; 40];
            let mut dec = Decoder::new(&data);
            let mut s = SIntModel::<1>::default();
            for _ in 0..200 {
                assert!(s.code(&mut dec, 0).unsigned_abs() <= SIntModel::<1>::MAX as u32);
            }
        }
    }

    #[test]
    fn frequent_small_values_become_cheap() {
        let mut counter = BitCounter::default();
        let mut s = SIntModel::<0>::default();
        for i in 0..1000 {
            s.code(&mut counter, i32::from(i % 50 == 0));
        }
        assert!(counter.cost < 256 * 300, "{} bits", counter.cost / 256);
    }
}

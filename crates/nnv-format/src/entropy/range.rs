// SPDX-License-Identifier: MPL-2.0
//! The binary range coder: 32-bit range, byte-wise renormalisation, 16-bit probabilities, integers
//! only.
//!
//! One bit splits the range `r` at `bound = (r >> 16) * (65536 - p1)`; a zero takes the lower part,
//! a one the upper. So a stream of nothing but zeros has the code value 0, and since zero bytes at
//! the end are not written (a decoder reads zeros past the end of its data) it may take no byte at
//! all.

use super::error::EntropyError;

/// Renormalise while the range is below this.
const TOP: u32 = 1 << 24;

/// Bytes that a decoder has read ahead of what it has consumed.
const LOOK_AHEAD: usize = 4;

/// Smallest probability of either value of a bit, in 1/65536.
pub const MIN_P: u16 = 16;

/// The part of the range that a zero gets. `p1` = 0 would leave nothing for a one: it counts as 1.
#[inline(always)]
fn split(range: u32, p1: u16) -> u32 {
    (range >> 16) * (65536 - u32::from(p1.max(1)))
}

/// An adaptive probability that a bit is one: the mean of a fast and a slow estimate.
///
/// Both start with large steps, so a fresh context learns in a few bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prob {
    fast: u16,
    slow: u16,
    seen: u8,
}

/// Shift of the step after `n` bits: about `log2(n + 2)`, up to 7.
const WARM_UP: [u8; 128] = {
    let mut t = [0u8; 128];
    let mut n = 0;
    while n < 128 {
        // Rounded logarithm: 1/(n + 2) lies nearest to 2^-shift when (n + 2)^2 < 2^(2 shift + 1).
        let m = (n as u32 + 2) * (n as u32 + 2);
        let mut shift = 1;
        while shift < 7 && m >= 1 << (2 * shift + 1) {
            shift += 1;
        }
        t[n] = shift as u8;
        n += 1;
    }
    t
};
const FAST_SHIFT: u8 = 5;

impl Prob {
    /// Nothing is known: one half.
    pub const HALF: Prob = Prob::new(1 << 15);

    /// Starts at `p1`/65536 and adapts quickly at first.
    pub const fn new(p1: u16) -> Prob {
        Prob {
            fast: p1,
            slow: p1,
            seen: 0,
        }
    }

    /// Starts at `p1`/65536, trusted as if it came from `seen` bits (127 is full trust).
    pub const fn trusted(p1: u16, seen: u8) -> Prob {
        Prob {
            fast: p1,
            slow: p1,
            seen: if seen > 127 { 127 } else { seen },
        }
    }

    /// The probability of a one in 1/65536, within `MIN_P..=65536 - MIN_P`.
    #[inline(always)]
    pub fn p1(self) -> u16 {
        let p = (u32::from(self.fast) + u32::from(self.slow)) >> 1;
        p.clamp(u32::from(MIN_P), 65536 - u32::from(MIN_P)) as u16
    }

    /// Learns from a coded bit.
    #[inline(always)]
    pub fn update(&mut self, bit: bool) {
        let slow = WARM_UP[usize::from(self.seen & 127)];
        let fast = slow.min(FAST_SHIFT);
        if bit {
            self.fast += (!self.fast) >> fast;
            self.slow += (!self.slow) >> slow;
        } else {
            self.fast -= self.fast >> fast;
            self.slow -= self.slow >> slow;
        }
        self.seen = (self.seen + 1).min(127);
    }
}

impl Default for Prob {
    fn default() -> Self {
        Prob::HALF
    }
}

/// What encoder, decoder and bit counter share: syntax is written once, as a function of this
/// trait.
///
/// An encoder writes the value it is given and returns it; a decoder ignores the value and returns
/// what it read.
pub trait BinaryCoder {
    /// A bit that is one with probability `p1`/65536 (0 counts as 1).
    fn bit_with(&mut self, p1: u16, bit: bool) -> bool;

    /// `n` equiprobable bits (at most 32), the highest first.
    fn bypass(&mut self, value: u32, n: u32) -> u32;

    /// More was read than the data can have held, so that whatever follows is damaged; never in an
    /// encoder.
    #[inline(always)]
    fn overrun(&self) -> bool {
        false
    }

    /// A bit with an adaptive probability, which learns from it.
    #[inline(always)]
    fn code(&mut self, p: &mut Prob, bit: bool) -> bool {
        let bit = self.bit_with(p.p1(), bit);
        p.update(bit);
        bit
    }
}

/// The smallest multiple of `2^zeros` that is not below `value`.
fn round_up(value: u64, zeros: u32) -> u64 {
    ((value + (1 << zeros) - 1) >> zeros) << zeros
}

/// Writes bits. See [`Decoder`] for the other side.
#[derive(Clone, Debug)]
pub struct Encoder {
    low: u64,
    range: u32,
    /// The last byte that a carry may still change, and how many 0xff bytes follow it.
    cache: u8,
    pending: usize,
    /// No byte has left `low` yet: the first one is a leading zero that is not written.
    first: bool,
    out: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder with nothing written.
    pub fn new() -> Encoder {
        Encoder {
            low: 0,
            range: u32::MAX,
            cache: 0,
            pending: 0,
            first: true,
            out: Vec::new(),
        }
    }

    /// Writes `bit` with the adaptive probability `p`.
    #[inline(always)]
    pub fn bit(&mut self, p: &mut Prob, bit: bool) {
        self.code(p, bit);
    }

    /// Writes `n` equiprobable bits (at most 32) of `value`, the highest first.
    #[inline(always)]
    pub fn bypass(&mut self, value: u32, n: u32) {
        BinaryCoder::bypass(self, value, n);
    }

    /// Bytes written so far, less those still held back.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether no byte has been written yet.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    #[inline]
    fn shift_low(&mut self) {
        if self.low < 0xff00_0000 || self.low > u64::from(u32::MAX) {
            let carry = (self.low >> 32) as u8;
            if !self.first {
                self.out.push(self.cache.wrapping_add(carry));
            }
            self.first = false;
            let len = self.out.len() + self.pending;
            self.out.resize(len, 0xffu8.wrapping_add(carry));
            self.pending = 0;
            self.cache = (self.low >> 24) as u8;
        } else {
            self.pending += 1;
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    /// Ends the stream and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        // The value within [low, low + range) with the most trailing zeros; its zero bytes are then
        // left off.
        let top = self.low + u64::from(self.range) - 1;
        let mut zeros = 31;
        while zeros > 0 && round_up(self.low, zeros) > top {
            zeros -= 1;
        }
        self.low = round_up(self.low, zeros);
        // Bytes that renormalisation has moved out are kept even when zero, so that a decoder can
        // tell a cut stream from a whole one; only the four of the last window can go.
        let moved = self.out.len() + self.pending + usize::from(!self.first);
        for _ in 0..=LOOK_AHEAD {
            self.shift_low();
        }
        while self.out.len() > moved && self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out
    }
}

impl BinaryCoder for Encoder {
    #[inline(always)]
    fn bit_with(&mut self, p1: u16, bit: bool) -> bool {
        let bound = split(self.range, p1);
        if bit {
            self.low += u64::from(bound);
            self.range -= bound;
        } else {
            self.range = bound;
        }
        while self.range < TOP {
            self.range <<= 8;
            self.shift_low();
        }
        bit
    }

    #[inline(always)]
    fn bypass(&mut self, value: u32, n: u32) -> u32 {
        let mut left = n.min(32);
        while left > 0 {
            let take = left.min(16);
            left -= take;
            let bits = (value >> left) & ((1 << take) - 1);
            self.range >>= take;
            self.low += u64::from(bits) * u64::from(self.range);
            while self.range < TOP {
                self.range <<= 8;
                self.shift_low();
            }
        }
        value
    }
}

/// Reads bits. Total: any data decodes to something, without panic.
///
/// Reads past the end yield zeros; [`Decoder::finish`] tells whether the data was as long as it had
/// to be.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    data: &'a [u8],
    pos: usize,
    range: u32,
    /// The code value less the low end of the range: always below `range` in a sound stream.
    value: u32,
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of `data`.
    pub fn new(data: &'a [u8]) -> Decoder<'a> {
        let mut d = Decoder {
            data,
            pos: 0,
            range: u32::MAX,
            value: 0,
        };
        for _ in 0..LOOK_AHEAD {
            d.value = d.value << 8 | u32::from(d.next_byte());
        }
        d
    }

    #[inline(always)]
    fn next_byte(&mut self) -> u8 {
        let b = self.data.get(self.pos).copied().unwrap_or(0);
        self.pos += 1;
        b
    }

    /// Reads a bit with the adaptive probability `p`.
    #[inline(always)]
    pub fn bit(&mut self, p: &mut Prob) -> bool {
        self.code(p, false)
    }

    /// Reads `n` equiprobable bits (at most 32), the highest first.
    #[inline(always)]
    pub fn bypass(&mut self, n: u32) -> u32 {
        BinaryCoder::bypass(self, 0, n)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`EntropyError::Truncated`] when more was read than there is, [`EntropyError::TrailingData`]
    /// when bytes are left.
    pub fn finish(self) -> Result<(), EntropyError> {
        if BinaryCoder::overrun(&self) {
            Err(EntropyError::Truncated {
                read: self.pos - LOOK_AHEAD,
                len: self.data.len(),
            })
        } else if self.pos < self.data.len() {
            Err(EntropyError::TrailingData {
                left: self.data.len() - self.pos,
            })
        } else {
            Ok(())
        }
    }
}

impl BinaryCoder for Decoder<'_> {
    #[inline(always)]
    fn overrun(&self) -> bool {
        self.pos > self.data.len() + LOOK_AHEAD
    }

    #[inline(always)]
    fn bit_with(&mut self, p1: u16, _bit: bool) -> bool {
        let bound = split(self.range, p1);
        let bit = self.value >= bound;
        if bit {
            self.value -= bound;
            self.range -= bound;
        } else {
            self.range = bound;
        }
        while self.range < TOP {
            self.range <<= 8;
            self.value = self.value << 8 | u32::from(self.next_byte());
        }
        bit
    }

    #[inline(always)]
    fn bypass(&mut self, _value: u32, n: u32) -> u32 {
        if n == 1 {
            self.range >>= 1;
            let bit = self.value >= self.range;
            self.value -= if bit { self.range } else { 0 };
            if self.range < TOP {
                self.range <<= 8;
                self.value = self.value << 8 | u32::from(self.next_byte());
            }
            return u32::from(bit);
        }
        let mut left = n.min(32);
        let mut result = 0;
        while left > 0 {
            let take = left.min(16);
            left -= take;
            self.range >>= take;
            // Damaged data can lie beyond the last part (the remainder of the division): it is
            // clamped into it.
            let bits = (self.value / self.range).min((1 << take) - 1);
            self.value -= bits * self.range;
            result = result << take | bits;
            while self.range < TOP {
                self.range <<= 8;
                self.value = self.value << 8 | u32::from(self.next_byte());
            }
        }
        result
    }
}

/// Counts bits without writing them, in 1/256 bit: for an encoder that weighs choices.
#[derive(Clone, Debug, Default)]
pub struct BitCounter {
    /// The cost so far, in 1/256 bit.
    pub cost: u64,
}

impl BinaryCoder for BitCounter {
    #[inline(always)]
    fn bit_with(&mut self, p1: u16, bit: bool) -> bool {
        self.cost += u64::from(bit_cost(p1, bit));
        bit
    }

    #[inline(always)]
    fn bypass(&mut self, value: u32, n: u32) -> u32 {
        self.cost += u64::from(n) * 256;
        value
    }
}

/// `-log2((i + 0.5)/512)` in 1/256 bit, by integer arithmetic.
const COST: [u16; 512] = {
    let mut t = [0u16; 512];
    let mut i = 0;
    while i < 512 {
        // log2 by squaring, 12 fractional bits, of x = 2i + 1 (out of 1024).
        let x = 2 * i as u64 + 1;
        let int = 63 - x.leading_zeros() as u64;
        let mut m = (x << 31) >> int;
        let mut frac = 0u64;
        let mut b = 0;
        while b < 12 {
            m = (m * m) >> 31;
            frac <<= 1;
            if m >= 1 << 32 {
                m >>= 1;
                frac |= 1;
            }
            b += 1;
        }
        let log = (int << 12) + frac;
        t[i] = (((10 << 12) - log + 8) >> 4) as u16;
        i += 1;
    }
    t
};

/// The cost in 1/256 bit of coding `bit` when a one has probability `p1`/65536 (an estimate to
/// about 1 %).
#[inline(always)]
pub fn bit_cost(p1: u16, bit: bool) -> u32 {
    let p = if bit {
        u32::from(p1)
    } else {
        65536 - u32::from(p1)
    };
    if p >= 2048 {
        u32::from(COST[(p >> 7).min(511) as usize])
    } else {
        // Five more bits of resolution for what is rare.
        5 * 256 + u32::from(COST[(p >> 2).min(511) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift: enough for tests and the same everywhere.
    struct Rng(u64);
    impl Rng {
        fn next(&mut self) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) as u32
        }
    }

    #[test]
    fn round_trip_of_fixed_adaptive_and_bypass_bits() {
        for seed in 1..60u64 {
            let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let n = (rng.next() % 3000) as usize;
            let skew = 1 + rng.next() % 65535;
            let ops: Vec<(u32, u32, u32)> = (0..n)
                .map(|_| (rng.next() % 4, rng.next(), rng.next()))
                .collect();
            let mut enc = Encoder::new();
            let mut p = Prob::HALF;
            for &(kind, a, b) in &ops {
                match kind {
                    0 => enc.bypass(a & ((1u64 << (b % 33)) - 1) as u32, b % 33),
                    1 => {
                        enc.bit_with((1 + b % 65535) as u16, a & 1 == 1);
                    }
                    _ => enc.bit(&mut p, a % 65536 < skew),
                }
            }
            let bytes = enc.finish();
            let mut dec = Decoder::new(&bytes);
            let mut p = Prob::HALF;
            for &(kind, a, b) in &ops {
                match kind {
                    0 => assert_eq!(dec.bypass(b % 33), a & ((1u64 << (b % 33)) - 1) as u32),
                    1 => assert_eq!(dec.bit_with((1 + b % 65535) as u16, false), a & 1 == 1),
                    _ => assert_eq!(dec.bit(&mut p), a % 65536 < skew),
                }
            }
            dec.finish().unwrap();
        }
    }

    #[test]
    fn carries_run_through_long_runs_of_ff() {
        // Zeros with a tiny probability of one keep low just under a byte boundary for long; then
        // ones.
        for split in 0..200 {
            let mut enc = Encoder::new();
            for i in 0..400 {
                enc.bit_with(65535, i != split);
                enc.bit_with(1, i == split * 2);
            }
            let bytes = enc.finish();
            let mut dec = Decoder::new(&bytes);
            for i in 0..400 {
                assert_eq!(dec.bit_with(65535, false), i != split);
                assert_eq!(dec.bit_with(1, false), i == split * 2);
            }
            dec.finish().unwrap();
        }
    }

    #[test]
    fn nothing_costs_nothing() {
        assert!(Encoder::new().finish().is_empty());
        Decoder::new(&[]).finish().unwrap();
        let mut enc = Encoder::new();
        let mut p = Prob::HALF;
        (0..1000).for_each(|_| enc.bit(&mut p, false));
        assert!(enc.finish().len() <= 2);
    }

    #[test]
    fn a_cut_or_lengthened_stream_is_noticed() {
        let mut rng = Rng(7);
        let bits: Vec<bool> = (0..4000).map(|_| rng.next() & 1 == 1).collect();
        let mut enc = Encoder::new();
        let mut p = Prob::HALF;
        bits.iter().for_each(|&b| enc.bit(&mut p, b));
        let bytes = enc.finish();
        let read = |data: &[u8]| {
            let mut dec = Decoder::new(data);
            let mut p = Prob::HALF;
            bits.iter().for_each(|_| {
                dec.bit(&mut p);
            });
            dec.finish()
        };
        assert!(read(&bytes).is_ok());
        assert!(matches!(
            read(&bytes[..bytes.len() / 2]),
            Err(EntropyError::Truncated { .. })
        ));
        let mut longer = bytes.clone();
        longer.extend([1; 300]);
        assert!(matches!(
            read(&longer),
            Err(EntropyError::TrailingData { .. })
        ));
    }

    #[test]
    fn adaptive_bits_come_near_the_entropy() {
        let mut rng = Rng(99);
        for &p in &[200u32, 3000, 20000, 40000, 65000] {
            let n = 40000;
            let mut enc = Encoder::new();
            let mut model = Prob::HALF;
            let mut counter = BitCounter::default();
            let mut model2 = Prob::HALF;
            for _ in 0..n {
                let bit = rng.next() % 65536 < p;
                enc.bit(&mut model, bit);
                counter.code(&mut model2, bit);
            }
            let q = f64::from(p) / 65536.0;
            let entropy = -f64::from(n) * (q * q.log2() + (1.0 - q) * (1.0 - q).log2());
            let bits = enc.finish().len() as f64 * 8.0;
            assert!(
                bits < entropy * 1.03 + 64.0 + 0.008 * f64::from(n),
                "{bits} bits, entropy {entropy}"
            );
            let counted = counter.cost as f64 / 256.0;
            assert!(
                (counted - bits).abs() < bits * 0.02 + 64.0 + 0.003 * f64::from(n),
                "counted {counted}, written {bits}"
            );
        }
    }

    #[test]
    fn any_data_decodes_without_panic() {
        let mut rng = Rng(5);
        for len in 0..64 {
            let data: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
            for fill in [None, Some(0xff), Some(0)] {
                let data: Vec<u8> = fill.map_or(data.clone(), |f| vec![f; len]);
                let mut dec = Decoder::new(&data);
                let mut p = Prob::HALF;
                for i in 0..500 {
                    dec.bit(&mut p);
                    dec.bypass(i % 33);
                    dec.bit_with((1 + rng.next() % 65535) as u16, false);
                }
                assert!(dec.overrun());
            }
        }
    }
}

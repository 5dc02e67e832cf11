// SPDX-License-Identifier: MPL-2.0
//! Mixing of adaptive probabilities in the logistic domain, by integer tables.
//!
//! `stretch(p) = ln(p / (1 - p))` is kept in 1/256 units. The mixture is `squash(sum of weight * stretch)`; after each bit
//! every weight moves along `error * stretch`, so the models that predict best come to count most.

use super::range::{BinaryCoder, MIN_P};

/// 65536 / (1 + exp(-x)) for x = -11 to 11 in steps of 1/8: constants, so that no machine has to compute an exponential.
const SQUASH: [u16; 177] = [
    1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 6, 7, 8, 9, 10, 12, 13, 15, 17, 19, 22, 25, 28, 32,
    36, 41, 47, 53, 60, 68, 77, 87, 98, 111, 126, 143, 162, 184, 208, 236, 267, 302, 342, 387, 439,
    497, 562, 636, 720, 815, 922, 1042, 1179, 1333, 1506, 1701, 1921, 2168, 2446, 2758, 3108, 3500,
    3938, 4427, 4971, 5577, 6249, 6992, 7812, 8714, 9702, 10782, 11955, 13226, 14595, 16062, 17625,
    19282, 21025, 22849, 24743, 26695, 28693, 30723, 32768, 34813, 36843, 38841, 40793, 42687,
    44511, 46254, 47911, 49474, 50941, 52310, 53581, 54754, 55834, 56822, 57724, 58544, 59287,
    59959, 60565, 61109, 61598, 62036, 62428, 62778, 63090, 63368, 63615, 63835, 64030, 64203,
    64357, 64494, 64614, 64721, 64816, 64900, 64974, 65039, 65097, 65149, 65194, 65234, 65269,
    65300, 65328, 65352, 65374, 65393, 65410, 65425, 65438, 65449, 65459, 65468, 65476, 65483,
    65489, 65495, 65500, 65504, 65508, 65511, 65514, 65517, 65519, 65521, 65523, 65524, 65526,
    65527, 65528, 65529, 65530, 65530, 65531, 65532, 65532, 65533, 65533, 65533, 65534, 65534,
    65534, 65534, 65535, 65535, 65535,
];

/// Log-odds beyond +-11 (in 1/256 units) count as that.
const SQUASH_MAX: i32 = 11 * 256;

/// The probability (1/65536) whose log-odds are `x`/256, by linear interpolation of [`SQUASH`].
const fn interpolate(x: i32) -> i32 {
    let x = if x > SQUASH_MAX - 1 {
        SQUASH_MAX - 1
    } else if x < -SQUASH_MAX {
        -SQUASH_MAX
    } else {
        x
    };
    let u = x + SQUASH_MAX;
    let (i, f) = ((u >> 5) as usize, u & 31);
    let (a, b) = (SQUASH[i] as i32, SQUASH[i + 1] as i32);
    a + (((b - a) * f + 16) >> 5)
}

/// Log-odds (1/256 units, within +-2047) of the probability (i + 0.5)/4096: the inverse of [`interpolate`].
const STRETCH: [i16; 4096] = {
    let mut t = [0i16; 4096];
    let mut i = 0;
    let mut x = -2047;
    while i < 4096 {
        while x < 2047 && interpolate(x) < i as i32 * 16 + 8 {
            x += 1;
        }
        t[i] = x as i16;
        i += 1;
    }
    t
};

/// An adaptive probability with a count: the mean of what was seen, until `limit` bits; then a moving average.
///
/// 22 bits of probability of a one, 10 bits of count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counter(u32);

/// 65536 / (n + 1.5).
const RECIPROCAL: [u32; 1024] = {
    let mut t = [0u32; 1024];
    let mut n = 0;
    while n < 1024 {
        t[n] = (2 * 65536) / (2 * n as u32 + 3);
        n += 1;
    }
    t
};

impl Counter {
    /// Starts at `p1`/65536, trusted as if it came from `count` bits (at most 1023).
    pub(super) const fn new(p1: u16, count: u32) -> Counter {
        Counter((p1 as u32) << 16 | if count > 1023 { 1023 } else { count })
    }

    /// Probability of a one in 1/65536.
    #[inline(always)]
    pub(super) fn p1(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    fn stretch(self) -> i16 {
        STRETCH[(self.0 >> 20) as usize]
    }

    /// Learns from a coded bit; `limit` bounds the count, that is the memory.
    #[inline(always)]
    pub(super) fn update(&mut self, bit: bool, limit: u32) {
        let n = self.0 & 1023;
        let p = (self.0 >> 10) as i32;
        let target = if bit { (1 << 22) - 1 } else { 0 };
        let step = (i64::from(target - p) * i64::from(RECIPROCAL[n as usize])) >> 16;
        let p = (p + step as i32) as u32;
        self.0 = p << 10 | if n < limit { n + 1 } else { limit };
    }
}

/// [`interpolate`] at even arguments, within the limits of the range coder.
const SQUASH_EVEN: [u16; SQUASH_MAX as usize] = {
    let mut t = [0u16; SQUASH_MAX as usize];
    let mut i = 0;
    while i < t.len() {
        let p = interpolate(2 * i as i32 - SQUASH_MAX);
        let min = MIN_P as i32;
        t[i] = if p < min {
            min as u16
        } else if p > 65536 - min {
            (65536 - min) as u16
        } else {
            p as u16
        };
        i += 1;
    }
    t
};

/// Weights of the models: 16384 is one, so they stay within +-2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mixer<const N: usize>([i16; N]);

impl<const N: usize> Mixer<N> {
    pub(super) const fn new(weights: [i16; N]) -> Mixer<N> {
        Mixer(weights)
    }

    /// Codes a bit with the mixture of `models`, then teaches the weights and the models.
    ///
    /// `rate`: weights move by `error * stretch * rate / 2^18`, with the error in 1/4096.
    #[inline(always)]
    pub(super) fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        models: [&mut Counter; N],
        limits: [u32; N],
        rate: i32,
        bit: bool,
    ) -> bool {
        let mut st = [0i16; N];
        for (s, m) in st.iter_mut().zip(&models) {
            *s = m.stretch();
        }
        let dot: i32 = st
            .iter()
            .zip(&self.0)
            .map(|(&s, &w)| i32::from(s) * i32::from(w))
            .sum();
        let at = ((dot >> 15) + SQUASH_MAX / 2).clamp(0, SQUASH_MAX - 1);
        let p = SQUASH_EVEN[at as usize];
        let bit = coder.bit_with(p, bit);
        let error = ((i32::from(bit) << 12) - i32::from(p >> 4)) * rate;
        for (w, s) in self.0.iter_mut().zip(st) {
            let step = (error * i32::from(s) + (1 << 17)) >> 18;
            *w = (i32::from(*w) + step).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        }
        for (m, limit) in models.into_iter().zip(limits) {
            m.update(bit, limit);
        }
        bit
    }
}

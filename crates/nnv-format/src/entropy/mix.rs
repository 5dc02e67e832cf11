// SPDX-License-Identifier: MPL-2.0
//! Mixing of adaptive probabilities in the logistic domain, by integer tables.
//!
//! `stretch(p) = ln(p / (1 - p))` is kept in 1/256 units. The mixture is `squash(sum of weight *
//! stretch)`; after each bit every weight moves along `error * stretch`, so the models that predict
//! best come to count most.

use super::range::{BinaryCoder, MIN_P};

/// 65536 / (1 + exp(-x)) for x = -11 to 11 in steps of 1/8: constants, so that no machine has to
/// compute an exponential.
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

/// Log-odds (1/256 units, within +-2047) of the probability (i + 0.5)/4096: the inverse of
/// [`interpolate`].
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

/// An adaptive probability with a count: the mean of what was seen, until `limit` bits; then a
/// moving average.
///
/// 22 bits of probability of a one, 10 bits of count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counter(u32);

/// 65536 / (n + 1.5), within 15 bits so that a product with an error of 15 bits fits a signed word.
const RECIPROCAL: [i16; 1024] = {
    let mut t = [0i16; 1024];
    let mut n = 0;
    while n < 1024 {
        let r = (2 * 65536) / (2 * n as u32 + 3);
        t[n] = if r > 32767 { 32767 } else { r as i16 };
        n += 1;
    }
    t
};

/// The bits of a [`Counter`] that hold its count.
const COUNT: u32 = 1023;

impl Counter {
    /// Starts at `p1`/65536, trusted as if it came from `count` bits (at most 1023).
    pub(super) const fn new(p1: u16, count: u32) -> Counter {
        Counter((p1 as u32) << 16 | if count > COUNT { COUNT } else { count })
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

    #[inline(always)]
    fn rate(self) -> i16 {
        RECIPROCAL[(self.0 & COUNT) as usize]
    }

    /// Learns from a coded bit; `limit` bounds the count, that is the memory.
    #[inline(always)]
    fn update(&mut self, bit: bool, limit: u16) {
        let error = if bit { 32767 } else { 0 } - (self.0 >> 17) as i32;
        let step = (error * i32::from(self.rate())) >> 9;
        let more = u32::from(self.0 & COUNT < u32::from(limit));
        self.0 = self.0.wrapping_add((step as u32) << 10) + more;
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

/// How far the weights move: `error * stretch / 2^13`, with the error in 1/4096.
const WEIGHT_SHIFT: i32 = 13;

/// Weights of the models: 16384 is one, so they stay within +-2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mixer<const N: usize>([i16; N]);

/// The mixture's probability of a one for a sum of weighted log-odds.
#[inline(always)]
fn squash(dot: i32) -> u16 {
    let at = ((dot >> 15) + SQUASH_MAX / 2).clamp(0, SQUASH_MAX - 1);
    SQUASH_EVEN[at as usize]
}

/// What the mixture missed `bit` by, in 1/4096.
#[inline(always)]
fn error(p1: u16, bit: bool) -> i16 {
    (i16::from(bit) << 12) - (p1 >> 4) as i16
}

impl<const N: usize> Mixer<N> {
    pub(super) const fn new(weights: [i16; N]) -> Mixer<N> {
        Mixer(weights)
    }

    /// Probability of a one in 1/65536 that the mixture of `models` gives.
    pub(super) fn p1(&self, models: [&Counter; N]) -> u16 {
        let terms = models.iter().zip(&self.0);
        squash(
            terms
                .map(|(m, &w)| i32::from(m.stretch()) * i32::from(w))
                .sum(),
        )
    }

    /// Codes a bit with the mixture of `models`, then teaches the weights and the models.
    #[inline(always)]
    pub(super) fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        models: [&mut Counter; N],
        limits: [u16; N],
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
        let p1 = squash(dot);
        let bit = coder.bit_with(p1, bit);
        let error = i32::from(error(p1, bit));
        for (w, s) in self.0.iter_mut().zip(st) {
            let step = (error * i32::from(s) + (1 << (WEIGHT_SHIFT - 1))) >> WEIGHT_SHIFT;
            *w = w.saturating_add(step as i16);
        }
        for (m, limit) in models.into_iter().zip(limits) {
            m.update(bit, limit);
        }
        bit
    }
}

impl Mixer<4> {
    /// [`code`](Self::code) of four models: the same result, in words of four.
    ///
    /// Written with SSE2, which every x86-64 processor has: the compiler alone works model by
    /// model, and this is where the decoder spends its time.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn code4<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        models: [&mut Counter; 4],
        limits: [u16; 4],
        bit: bool,
    ) -> bool {
        use std::arch::x86_64::*;
        // SAFETY: SSE2 is there, and only registers are used.
        unsafe {
            let [a, b, c, d] = models;
            let st = _mm_setr_epi16(
                a.stretch(),
                b.stretch(),
                c.stretch(),
                d.stretch(),
                0,
                0,
                0,
                0,
            );
            let word = self.0.map(|w| u64::from(w as u16));
            let weights =
                _mm_cvtsi64_si128((word[0] | word[1] << 16 | word[2] << 32 | word[3] << 48) as i64);
            let dot = _mm_madd_epi16(st, weights);
            let dot = _mm_add_epi32(dot, _mm_shuffle_epi32::<1>(dot));
            let p1 = squash(_mm_cvtsi128_si32(dot));
            let bit = coder.bit_with(p1, bit);

            let error = _mm_set1_epi16(error(p1, bit));
            let (low, high) = (_mm_mullo_epi16(st, error), _mm_mulhi_epi16(st, error));
            let half = _mm_set1_epi32(1 << (WEIGHT_SHIFT - 1));
            let step = _mm_add_epi32(_mm_unpacklo_epi16(low, high), half);
            let step = _mm_srai_epi32::<WEIGHT_SHIFT>(step);
            let moved = _mm_adds_epi16(weights, _mm_packs_epi32(step, step));
            let moved = _mm_cvtsi128_si64(moved);
            self.0 = std::array::from_fn(|i| (moved >> (16 * i)) as i16);

            let all = _mm_setr_epi32(a.0 as i32, b.0 as i32, c.0 as i32, d.0 as i32);
            let [ra, rb, rc, rd] = [a.rate(), b.rate(), c.rate(), d.rate()].map(i32::from);
            let target = _mm_set1_epi32(if bit { 32767 } else { 0 });
            let error = _mm_sub_epi32(target, _mm_srli_epi32::<17>(all));
            // Errors are sign-extended over both halves of a word; the rates' upper halves are
            // zero.
            let step = _mm_madd_epi16(error, _mm_setr_epi32(ra, rb, rc, rd));
            let count = _mm_set1_epi32(COUNT as i32);
            let step = _mm_andnot_si128(count, _mm_add_epi32(step, step));
            let [la, lb, lc, ld] = limits.map(i32::from);
            let more = _mm_cmplt_epi32(_mm_and_si128(all, count), _mm_setr_epi32(la, lb, lc, ld));
            let all = _mm_sub_epi32(_mm_add_epi32(all, step), more);
            a.0 = _mm_cvtsi128_si32(all) as u32;
            b.0 = _mm_cvtsi128_si32(_mm_shuffle_epi32::<1>(all)) as u32;
            c.0 = _mm_cvtsi128_si32(_mm_shuffle_epi32::<2>(all)) as u32;
            d.0 = _mm_cvtsi128_si32(_mm_shuffle_epi32::<3>(all)) as u32;
            bit
        }
    }

    /// [`code`](Self::code) of four models.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    pub(super) fn code4<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        models: [&mut Counter; 4],
        limits: [u16; 4],
        bit: bool,
    ) -> bool {
        self.code(coder, models, limits, bit)
    }
}

#[cfg(test)]
mod tests {
    use super::super::range::{BitCounter, Encoder};
    use super::*;

    /// Pseudo-random words.
    fn next(state: &mut u64) -> u32 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as u32
    }

    #[test]
    fn four_at_once_give_what_one_by_one_gives() {
        let mut rng = 5;
        let limits = [500, 250, 3, 1023];
        let mut counters: Vec<Counter> = (0..64)
            .map(|i| match i {
                0 => Counter(0),
                1 => Counter(u32::MAX),
                2 => Counter(!COUNT),
                _ => Counter::new(next(&mut rng) as u16, next(&mut rng) % 300),
            })
            .collect();
        let mut copies = counters.clone();
        let mut mixers = vec![Mixer::new([6000, -6000, i16::MAX, i16::MIN]); 4];
        let mut mixer_copies = mixers.clone();
        let (mut one, mut other) = (Encoder::new(), Encoder::new());
        for _ in 0..200_000 {
            // Four different counters, one from each quarter.
            let at: [usize; 4] = std::array::from_fn(|i| (next(&mut rng) % 16) as usize + 16 * i);
            let which = next(&mut rng) as usize % 4;
            let bit = next(&mut rng) % 100 < 7 * at[0] as u32;
            let models = counters.get_disjoint_mut(at).unwrap();
            mixers[which].code4(&mut one, models, limits, bit);
            let models = copies.get_disjoint_mut(at).unwrap();
            mixer_copies[which].code(&mut other, models, limits, bit);
        }
        assert!(counters.iter().zip(&copies).all(|(a, b)| a.0 == b.0));
        assert!(mixers.iter().zip(&mixer_copies).all(|(a, b)| a.0 == b.0));
        assert_eq!(one.finish(), other.finish());
    }

    #[test]
    fn counters_converge_and_stay_within_their_range() {
        for p in [0u32, 3, 50, 200, 255, 256] {
            let mut rng = 9;
            let mut counter = Counter::new(1 << 15, 1);
            let mut mean = 0.0;
            for i in 0..20_000 {
                counter.update(next(&mut rng) % 256 < p, 250);
                if i >= 4000 {
                    mean += f64::from(counter.p1()) / 16_000.0;
                }
            }
            let expected = f64::from(p) * 256.0;
            assert!((mean - expected).abs() < 600.0, "{mean} for {expected}");
        }
    }

    #[test]
    fn the_better_model_comes_to_count() {
        let mut rng = 1;
        let (mut good, mut bad) = ([Counter::new(1 << 15, 4); 2], Counter::new(1 << 15, 4));
        let mut mixer = Mixer::new([8000, 8000]);
        let mut coder = BitCounter::default();
        for _ in 0..5000 {
            let bit = next(&mut rng) % 2 == 1;
            let noisy = next(&mut rng).is_multiple_of(20);
            let models = [&mut good[usize::from(bit != noisy)], &mut bad];
            mixer.code(&mut coder, models, [250; 2], bit);
        }
        // The entropy of one in twenty is 0.286 bit.
        assert!(coder.cost < 5000 * 256 * 32 / 100, "{}", coder.cost / 256);
    }
}

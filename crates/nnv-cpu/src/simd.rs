// SPDX-License-Identifier: MPL-2.0
//! Run-time choice between plain code and the same code compiled for AVX2.

/// Defines a function that runs `$body`, compiled for AVX2 where the processor has it.
///
/// `$body` must be `#[inline(always)]`. Both ways give one result: integers are exact, and the
/// compiler neither reorders nor fuses operations on floats.
#[macro_export]
macro_rules! with_avx2 {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path
    ) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn vectorised($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has the feature that the function was compiled for.
                    return unsafe { vectorised($($arg),*) };
                }
            }
            $body($($arg),*)
        }
    };
}
pub use with_avx2;

/// Sum of the absolute coefficients of an 8×8 Hadamard transform, divided by 4 (about the scale of
/// a sum of absolute differences). Differences must stay within ±1023.
///
/// Written with SSE2, which every x86-64 processor has: the compiler alone transposes word by word.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn hadamard8(m: &[[i16; 8]; 8]) -> u32 {
    use std::arch::x86_64::*;
    // SAFETY: both types are 16 bytes in which every bit pattern is valid, and SSE2 is there.
    unsafe {
        let mut r: [__m128i; 8] = m.map(|row| std::mem::transmute::<[i16; 8], __m128i>(row));
        let butterflies = |r: &mut [__m128i; 8], step: usize| {
            let s = *r;
            for i in 0..8 {
                r[i] = if i & step == 0 {
                    _mm_add_epi16(s[i], s[i + step])
                } else {
                    _mm_sub_epi16(s[i - step], s[i])
                };
            }
        };
        butterflies(&mut r, 1);
        butterflies(&mut r, 2);
        butterflies(&mut r, 4);
        for _ in 0..3 {
            let s = r;
            for i in 0..4 {
                r[2 * i] = _mm_unpacklo_epi16(s[i], s[i + 4]);
                r[2 * i + 1] = _mm_unpackhi_epi16(s[i], s[i + 4]);
            }
        }
        butterflies(&mut r, 1);
        butterflies(&mut r, 2);
        // |a + b| + |a - b| = 2 max(|a|, |b|): saves the last stage, which would not fit 16 bits.
        let zero = _mm_setzero_si128();
        let abs = |v: __m128i| _mm_max_epi16(v, _mm_sub_epi16(zero, v));
        let ones = _mm_set1_epi16(1);
        let mut sum = zero;
        for i in 0..4 {
            let largest = _mm_max_epi16(abs(r[i]), abs(r[i + 4]));
            sum = _mm_add_epi32(sum, _mm_madd_epi16(largest, ones));
        }
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0b01_00_11_10));
        let sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0b10_11_00_01));
        (_mm_cvtsi128_si32(sum) as u32).div_ceil(2)
    }
}

/// Sum of the absolute coefficients of an 8×8 Hadamard transform, divided by 4 (about the scale of
/// a sum of absolute differences). Differences must stay within ±1023.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn hadamard8(m: &[[i16; 8]; 8]) -> u32 {
    let mut m = *m;
    let butterflies = |m: &mut [[i16; 8]; 8], step: usize| {
        for i in (0..8).filter(|i| i & step == 0) {
            let (a, b) = (m[i], m[i + step]);
            for k in 0..8 {
                m[i][k] = a[k] + b[k];
                m[i + step][k] = a[k] - b[k];
            }
        }
    };
    for step in [1, 2, 4] {
        butterflies(&mut m, step);
    }
    let s = m;
    let mut m: [[i16; 8]; 8] = std::array::from_fn(|i| std::array::from_fn(|k| s[k][i]));
    butterflies(&mut m, 1);
    butterflies(&mut m, 2);
    // |a + b| + |a - b| = 2 max(|a|, |b|): saves the last stage, which would not fit 16 bits.
    let largest = |i: usize, k: usize| m[i][k].unsigned_abs().max(m[i + 4][k].unsigned_abs());
    let sum: u32 = (0..32).map(|i| u32::from(largest(i / 8, i % 8))).sum();
    sum.div_ceil(2)
}

/// [`hadamard8`] of two 8×8 blocks side by side: the sum of both results.
///
/// Written with AVX2 where the processor has it, one block in each half of the registers.
#[inline(always)]
pub fn hadamard8_twice(m: &[[i16; 16]; 8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { hadamard8_avx2(m) };
    }
    let half = |first: usize| m.map(|row| std::array::from_fn(|i| row[first + i]));
    hadamard8(&half(0)) + hadamard8(&half(8))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn hadamard8_avx2(m: &[[i16; 16]; 8]) -> u32 {
    use std::arch::x86_64::*;
    // SAFETY: both types are 32 bytes in which every bit pattern is valid.
    let mut r: [__m256i; 8] =
        m.map(|row| unsafe { std::mem::transmute::<[i16; 16], __m256i>(row) });
    macro_rules! butterflies {
        ($step:expr) => {
            let s = r;
            for i in 0..8 {
                r[i] = if i & $step == 0 {
                    _mm256_add_epi16(s[i], s[i + $step])
                } else {
                    _mm256_sub_epi16(s[i - $step], s[i])
                };
            }
        };
    }
    butterflies!(1);
    butterflies!(2);
    butterflies!(4);
    for _ in 0..3 {
        let s = r;
        for i in 0..4 {
            r[2 * i] = _mm256_unpacklo_epi16(s[i], s[i + 4]);
            r[2 * i + 1] = _mm256_unpackhi_epi16(s[i], s[i + 4]);
        }
    }
    butterflies!(1);
    butterflies!(2);
    // As in `hadamard8`: the last stage by the larger of each pair.
    let ones = _mm256_set1_epi16(1);
    let mut sum = _mm256_setzero_si256();
    for i in 0..4 {
        let largest = _mm256_max_epi16(_mm256_abs_epi16(r[i]), _mm256_abs_epi16(r[i + 4]));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(largest, ones));
    }
    let sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0b01_00_11_10));
    let sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0b10_11_00_01));
    let [low, high] = [
        _mm256_castsi256_si128(sum),
        _mm256_extracti128_si256::<1>(sum),
    ]
    .map(|half| (_mm_cvtsi128_si32(half) as u32).div_ceil(2));
    low + high
}

/// Sums of absolute differences of an 8×8 block with the eight blocks that begin at bytes 0 to 7 of
/// `area`, whose rows are `stride` bytes apart. The eighth row too must have 16 bytes.
///
/// Written with AVX2 where the processor has it: an instruction takes half a row of all eight.
#[inline(always)]
pub fn sad8_of_eight(block: &[[u8; 8]; 8], area: &[u8], stride: usize) -> [u16; 8] {
    let rows: [&[u8; 16]; 8] = std::array::from_fn(|y| {
        let row = area[y * stride..].first_chunk();
        row.expect("16 bytes in each row")
    });
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { sad8_of_eight_avx2(block, rows) };
    }
    sad8_of_eight_plain(block, rows)
}

#[inline(always)]
fn sad8_of_eight_plain(block: &[[u8; 8]; 8], rows: [&[u8; 16]; 8]) -> [u16; 8] {
    std::array::from_fn(|at| {
        let rows = block.iter().zip(rows);
        let sums = rows.map(|(a, b)| -> u16 {
            let pairs = a.iter().zip(&b[at..]);
            pairs.map(|(&a, &b)| u16::from(a.abs_diff(b))).sum()
        });
        sums.sum()
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sad8_of_eight_avx2(block: &[[u8; 8]; 8], rows: [&[u8; 16]; 8]) -> [u16; 8] {
    use std::arch::x86_64::*;
    let mut sum = _mm256_setzero_si256();
    for (a, b) in block.iter().zip(rows) {
        let a = _mm256_set1_epi64x(i64::from_le_bytes(*a));
        // SAFETY: 16 bytes are read from an array of 16.
        let b = unsafe { _mm_loadu_si128(b.as_ptr().cast()) };
        let b = _mm256_broadcastsi128_si256(b);
        // The low half takes bytes 0 to 3 of the block from byte 0 on, the high half 4 to 7 from 4.
        sum = _mm256_add_epi16(sum, _mm256_mpsadbw_epu8::<0b101_000>(b, a));
    }
    let sum = _mm_add_epi16(
        _mm256_castsi256_si128(sum),
        _mm256_extracti128_si256::<1>(sum),
    );
    // SAFETY: both types are 16 bytes in which every bit pattern is valid.
    unsafe { std::mem::transmute::<__m128i, [u16; 8]>(sum) }
}

/// Eight sums of `T` (even) products of 16-bit words and taps, shifted right by `SHIFT`. Results
/// fit 16 bits; `row(k)` gives the words for tap `k`.
///
/// Written with SSE2, whose multiplication takes pairs: half the work of what the compiler makes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn weighted8<const T: usize, const SHIFT: i32>(
    row: impl Fn(usize) -> [i16; 8],
    taps: &[i16; T],
) -> [i16; 8] {
    use std::arch::x86_64::*;
    // SAFETY: both types are 16 bytes in which every bit pattern is valid, and SSE2 is there.
    unsafe {
        let load = |k: usize| std::mem::transmute::<[i16; 8], __m128i>(row(k));
        let (mut low, mut high) = (_mm_setzero_si128(), _mm_setzero_si128());
        for k in (0..T).step_by(2) {
            let pair = i32::from(taps[k + 1]) << 16 | i32::from(taps[k] as u16);
            let (a, b, pair) = (load(k), load(k + 1), _mm_set1_epi32(pair));
            low = _mm_add_epi32(low, _mm_madd_epi16(_mm_unpacklo_epi16(a, b), pair));
            high = _mm_add_epi32(high, _mm_madd_epi16(_mm_unpackhi_epi16(a, b), pair));
        }
        let packed = _mm_packs_epi32(_mm_srai_epi32::<SHIFT>(low), _mm_srai_epi32::<SHIFT>(high));
        std::mem::transmute(packed)
    }
}

/// Eight sums of `T` (even) products of 16-bit words and taps, shifted right by `SHIFT`. Results
/// fit 16 bits; `row(k)` gives the words for tap `k`.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn weighted8<const T: usize, const SHIFT: i32>(
    row: impl Fn(usize) -> [i16; 8],
    taps: &[i16; T],
) -> [i16; 8] {
    let mut sum = [0i32; 8];
    for k in 0..T {
        let s = row(k);
        for i in 0..8 {
            sum[i] += i32::from(taps[k]) * i32::from(s[i]);
        }
    }
    sum.map(|v| (v >> SHIFT) as i16)
}

/// Words as signed ones, bit by bit.
pub fn signed(words: &[u16]) -> &[i16] {
    // SAFETY: both types have one size and alignment, and every bit pattern is valid.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
}

/// Rows of N (4, 8 or 16) sums of `T` (even) products of words and taps, shifted right by `SHIFT`,
/// less `lower`. Sums fit 16 bits after the shift.
///
/// The words of one row and the next lie `row_step` apart, those for one tap and the next
/// `tap_step`.
///
/// Written with AVX2 where the processor has it, sixteen sums at once.
///
/// # Panics
/// When `words` ends before the last one.
#[inline(always)]
pub fn weigh<const N: usize, const T: usize, const SHIFT: i32>(
    words: &[i16],
    (row_step, tap_step): (usize, usize),
    taps: &[i16; T],
    lower: i16,
    out: &mut [[i16; N]],
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { weigh_avx2::<N, T, SHIFT>(words, (row_step, tap_step), taps, lower, out) };
    }
    weigh_plain::<N, T, SHIFT>(words, (row_step, tap_step), taps, lower, out);
}

/// As [`weigh`], without AVX2.
#[inline(always)]
fn weigh_plain<const N: usize, const T: usize, const SHIFT: i32>(
    words: &[i16],
    (row_step, tap_step): (usize, usize),
    taps: &[i16; T],
    lower: i16,
    out: &mut [[i16; N]],
) {
    for (row, out) in out.iter_mut().enumerate() {
        let words = &words[row * row_step..];
        if N < 8 {
            let mut sum = [0i32; N];
            for (k, &tap) in taps.iter().enumerate() {
                let s = &words[k * tap_step..][..N];
                for i in 0..N {
                    sum[i] += i32::from(tap) * i32::from(s[i]);
                }
            }
            *out = sum.map(|v| (v >> SHIFT) as i16 - lower);
            continue;
        }
        for x in (0..N).step_by(8) {
            let eight = |k: usize| -> [i16; 8] {
                *(words[k * tap_step + x..].first_chunk()).expect("as many as documented")
            };
            let sums = weighted8::<T, SHIFT>(eight, taps);
            out[x..x + 8].copy_from_slice(&sums.map(|v| v - lower));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn weigh_avx2<const N: usize, const T: usize, const SHIFT: i32>(
    words: &[i16],
    (row_step, tap_step): (usize, usize),
    taps: &[i16; T],
    lower: i16,
    out: &mut [[i16; N]],
) {
    use std::arch::x86_64::*;
    let Some(last) = out.len().checked_sub(1) else {
        return;
    };
    assert!(last * row_step + (T - 1) * tap_step + N <= words.len() && matches!(N, 4 | 8 | 16));
    let pairs: [__m256i; 4] = std::array::from_fn(|i| {
        let (low, high) = (2 * i % T, (2 * i + 1) % T);
        _mm256_set1_epi32(i32::from(taps[high]) << 16 | i32::from(taps[low] as u16))
    });
    let lower = _mm256_set1_epi16(lower);
    // Rows that fill a register; where fewer are left, the last one is repeated.
    let together = 16 / N;
    for first in (0..=last).step_by(together) {
        let row = |i: usize, k: usize| {
            let at = (first + i).min(last) * row_step + k * tap_step;
            // SAFETY: N words from there on are within the slice, by the assertion.
            unsafe { words.as_ptr().add(at) }
        };
        let load = |k: usize| {
            // SAFETY: N words are read from each row.
            unsafe {
                let half = |i: usize| match N {
                    8 => _mm_loadu_si128(row(i, k).cast()),
                    _ => _mm_unpacklo_epi64(
                        _mm_loadl_epi64(row(2 * i, k).cast()),
                        _mm_loadl_epi64(row(2 * i + 1, k).cast()),
                    ),
                };
                match N {
                    16 => _mm256_loadu_si256(row(0, k).cast()),
                    _ => _mm256_set_m128i(half(1), half(0)),
                }
            }
        };
        let (mut low, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for (i, &pair) in pairs[..T / 2].iter().enumerate() {
            let (a, b) = (load(2 * i), load(2 * i + 1));
            low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), pair));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), pair));
        }
        let sums = _mm256_sub_epi16(
            _mm256_packs_epi32(
                _mm256_srai_epi32::<SHIFT>(low),
                _mm256_srai_epi32::<SHIFT>(high),
            ),
            lower,
        );
        // SAFETY: both types are 32 bytes in which every bit pattern is valid.
        let sums: [i16; 16] = unsafe { std::mem::transmute(sums) };
        for (out, sums) in out[first..].iter_mut().zip(sums.chunks_exact(N)) {
            out.copy_from_slice(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise() -> impl FnMut() -> u32 {
        let mut state = 0x2545_F491u32;
        move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state >> 8
        }
    }

    #[test]
    fn two_transforms_are_two_transforms() {
        let mut rng = noise();
        for _ in 0..100 {
            let m: [[i16; 16]; 8] =
                std::array::from_fn(|_| std::array::from_fn(|_| (rng() % 2047) as i16 - 1023));
            let half = |at: usize| m.map(|row| std::array::from_fn::<i16, 8, _>(|i| row[at + i]));
            let expected = hadamard8(&half(0)) + hadamard8(&half(8));
            assert_eq!(hadamard8_twice(&m), expected);
        }
        assert_eq!(hadamard8_twice(&[[-1023; 16]; 8]), 2 * 64 * 1023 / 4);
    }

    fn sums_are_those_of_the_definition<const N: usize, const T: usize>() {
        let mut rng = noise();
        let taps: [i16; T] = std::array::from_fn(|_| (rng() % 80) as i16 - 20);
        for rows in 0..10 {
            for steps in [(N + T, 1), (N + 3, N + 3)] {
                let len = (rows.max(1) - 1) * steps.0 + (T - 1) * steps.1 + N;
                let words: Vec<i16> = (0..len).map(|_| (rng() % 3000) as i16 - 1000).collect();
                let mut out = vec![[7; N]; rows];
                weigh::<N, T, 3>(&words, steps, &taps, 100, &mut out);
                let mut plain = out.clone();
                weigh_plain::<N, T, 3>(&words, steps, &taps, 100, &mut plain);
                assert_eq!(plain, out);
                for (row, out) in out.iter().enumerate() {
                    for (x, &out) in out.iter().enumerate() {
                        let at = row * steps.0 + x;
                        let products = taps
                            .iter()
                            .enumerate()
                            .map(|(k, &tap)| i32::from(tap) * i32::from(words[at + k * steps.1]));
                        assert_eq!(i32::from(out), (products.sum::<i32>() >> 3) - 100);
                    }
                }
            }
        }
    }

    #[test]
    fn weighted_sums() {
        sums_are_those_of_the_definition::<4, 4>();
        sums_are_those_of_the_definition::<8, 4>();
        sums_are_those_of_the_definition::<8, 8>();
        sums_are_those_of_the_definition::<16, 8>();
    }

    #[test]
    fn eight_places_at_once() {
        let mut rng = noise();
        let block: [[u8; 8]; 8] = std::array::from_fn(|_| std::array::from_fn(|_| rng() as u8));
        let area: Vec<u8> = (0..7 * 23 + 16).map(|_| rng() as u8).collect();
        let expected: [u16; 8] = std::array::from_fn(|at| {
            let places = (0..64).map(|i| (i / 8, i % 8));
            places
                .map(|(y, x)| u16::from(block[y][x].abs_diff(area[y * 23 + at + x])))
                .sum()
        });
        assert_eq!(sad8_of_eight(&block, &area, 23), expected);
        let rows = std::array::from_fn(|y| area[y * 23..].first_chunk().unwrap());
        assert_eq!(sad8_of_eight_plain(&block, rows), expected);
        assert_eq!(sad8_of_eight(&[[255; 8]; 8], &[0; 200], 23), [64 * 255; 8]);
    }
}

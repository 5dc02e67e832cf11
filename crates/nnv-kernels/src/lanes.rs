// SPDX-License-Identifier: MPL-2.0
//! Vectors of 128 bits, as WebAssembly and x86-64 have them; plain code elsewhere. All give the
//! same numbers.

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod imp {
    use core::arch::wasm32::*;

    pub type Raw = v128;

    #[inline(always)]
    pub fn from_i16(v: [i16; 8]) -> Raw {
        i16x8(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7])
    }

    #[inline(always)]
    pub fn load_i16(v: &[i16; 8]) -> Raw {
        // SAFETY: the reference is to 16 bytes; loads need no alignment.
        unsafe { v128_load(v.as_ptr().cast()) }
    }

    #[inline(always)]
    pub fn store_i16(v: Raw, to: &mut [i16; 8]) {
        // SAFETY: the reference is to 16 bytes; stores need no alignment.
        unsafe { v128_store(to.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    pub fn load_i32(v: &[i32; 4]) -> Raw {
        // SAFETY: as above.
        unsafe { v128_load(v.as_ptr().cast()) }
    }

    #[inline(always)]
    pub fn load_f32(v: &[f32; 4]) -> Raw {
        // SAFETY: as above.
        unsafe { v128_load(v.as_ptr().cast()) }
    }

    #[inline(always)]
    pub fn store_f32(v: Raw, to: &mut [f32; 4]) {
        // SAFETY: as above.
        unsafe { v128_store(to.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    pub fn splat_pair(pair: &[i16; 2]) -> Raw {
        // SAFETY: the reference is to 4 bytes; loads need no alignment.
        unsafe { v128_load32_splat(pair.as_ptr().cast()) }
    }

    #[inline(always)]
    pub fn splat_i16(v: i16) -> Raw {
        i16x8_splat(v)
    }

    #[inline(always)]
    pub fn splat_f32(v: f32) -> Raw {
        f32x4_splat(v)
    }

    #[inline(always)]
    pub fn dot(a: Raw, b: Raw) -> Raw {
        i32x4_dot_i16x8(a, b)
    }

    #[inline(always)]
    pub fn interleave_low(a: Raw, b: Raw) -> Raw {
        i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b)
    }

    #[inline(always)]
    pub fn interleave_high(a: Raw, b: Raw) -> Raw {
        i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(a, b)
    }

    #[inline(always)]
    pub fn add_i16(a: Raw, b: Raw) -> Raw {
        i16x8_add_sat(a, b)
    }

    #[inline(always)]
    pub fn min_i16(a: Raw, b: Raw) -> Raw {
        i16x8_min(a, b)
    }

    #[inline(always)]
    pub fn max_i16(a: Raw, b: Raw) -> Raw {
        i16x8_max(a, b)
    }

    #[inline(always)]
    pub fn add_i32(a: Raw, b: Raw) -> Raw {
        i32x4_add(a, b)
    }

    #[inline(always)]
    pub fn sub_i32(a: Raw, b: Raw) -> Raw {
        i32x4_sub(a, b)
    }

    #[inline(always)]
    pub fn to_f32(a: Raw) -> Raw {
        f32x4_convert_i32x4(a)
    }

    #[inline(always)]
    pub fn mul_f32(a: Raw, b: Raw) -> Raw {
        f32x4_mul(a, b)
    }

    #[inline(always)]
    pub fn add_f32(a: Raw, b: Raw) -> Raw {
        f32x4_add(a, b)
    }

    #[inline(always)]
    pub fn min_f32(a: Raw, b: Raw) -> Raw {
        f32x4_pmin(a, b)
    }

    #[inline(always)]
    pub fn max_f32(a: Raw, b: Raw) -> Raw {
        f32x4_pmax(a, b)
    }

    #[inline(always)]
    pub fn splat_i32(v: i32) -> Raw {
        i32x4_splat(v)
    }

    #[inline(always)]
    pub fn narrow(a: Raw, b: Raw) -> Raw {
        i16x8_narrow_i32x4(a, b)
    }
}

#[cfg(target_arch = "x86_64")]
mod imp {
    //! SSE2, which every x86-64 processor has.
    use std::arch::x86_64::*;

    /// All vectors; the instructions only differ in how they read the bits.
    pub type Raw = __m128i;

    #[inline(always)]
    pub fn from_i16(v: [i16; 8]) -> Raw {
        load_i16(&v)
    }

    #[inline(always)]
    pub fn load_i16(v: &[i16; 8]) -> Raw {
        // SAFETY: the reference is to 16 bytes; this load needs no alignment.
        unsafe { _mm_loadu_si128(v.as_ptr().cast()) }
    }

    #[inline(always)]
    pub fn store_i16(v: Raw, to: &mut [i16; 8]) {
        // SAFETY: the reference is to 16 bytes; this store needs no alignment.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    pub fn load_i32(v: &[i32; 4]) -> Raw {
        // SAFETY: as above.
        unsafe { _mm_loadu_si128(v.as_ptr().cast()) }
    }

    #[inline(always)]
    pub fn load_f32(v: &[f32; 4]) -> Raw {
        // SAFETY: as above.
        unsafe { _mm_loadu_si128(v.as_ptr().cast()) }
    }

    #[inline(always)]
    pub fn store_f32(v: Raw, to: &mut [f32; 4]) {
        // SAFETY: as above.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    pub fn splat_pair(pair: &[i16; 2]) -> Raw {
        let [low, high] = pair.map(|v| u32::from(v.cast_unsigned()));
        splat_i32((low | high << 16).cast_signed())
    }

    #[inline(always)]
    pub fn splat_i16(v: i16) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_set1_epi16(v) }
    }

    #[inline(always)]
    pub fn splat_f32(v: f32) -> Raw {
        splat_i32(v.to_bits().cast_signed())
    }

    #[inline(always)]
    pub fn dot(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_madd_epi16(a, b) }
    }

    #[inline(always)]
    pub fn interleave_low(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_unpacklo_epi16(a, b) }
    }

    #[inline(always)]
    pub fn interleave_high(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_unpackhi_epi16(a, b) }
    }

    #[inline(always)]
    pub fn add_i16(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_adds_epi16(a, b) }
    }

    #[inline(always)]
    pub fn min_i16(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_min_epi16(a, b) }
    }

    #[inline(always)]
    pub fn max_i16(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_max_epi16(a, b) }
    }

    #[inline(always)]
    pub fn add_i32(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_add_epi32(a, b) }
    }

    #[inline(always)]
    pub fn sub_i32(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_sub_epi32(a, b) }
    }

    #[inline(always)]
    pub fn to_f32(a: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_castps_si128(_mm_cvtepi32_ps(a)) }
    }

    #[inline(always)]
    pub fn mul_f32(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_castps_si128(_mm_mul_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b))) }
    }

    #[inline(always)]
    pub fn add_f32(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_castps_si128(_mm_add_ps(_mm_castsi128_ps(a), _mm_castsi128_ps(b))) }
    }

    #[inline(always)]
    pub fn min_f32(a: Raw, b: Raw) -> Raw {
        // The operands' order is that of WebAssembly's `pmin` where one is no number.
        // SAFETY: SSE2 is there.
        unsafe { _mm_castps_si128(_mm_min_ps(_mm_castsi128_ps(b), _mm_castsi128_ps(a))) }
    }

    #[inline(always)]
    pub fn max_f32(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_castps_si128(_mm_max_ps(_mm_castsi128_ps(b), _mm_castsi128_ps(a))) }
    }

    #[inline(always)]
    pub fn splat_i32(v: i32) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_set1_epi32(v) }
    }

    #[inline(always)]
    pub fn narrow(a: Raw, b: Raw) -> Raw {
        // SAFETY: SSE2 is there.
        unsafe { _mm_packs_epi32(a, b) }
    }
}

#[cfg(not(any(
    target_arch = "x86_64",
    all(target_arch = "wasm32", target_feature = "simd128")
)))]
mod imp {
    //! Plain code.

    #[derive(Debug, Clone, Copy)]
    pub struct Raw([u32; 4]);

    fn halves(v: Raw) -> [i16; 8] {
        std::array::from_fn(|i| (v.0[i / 2] >> (16 * (i % 2))) as u16 as i16)
    }

    fn words(a: Raw, b: Raw, f: impl Fn(i32, i32) -> i32) -> Raw {
        Raw(std::array::from_fn(|i| {
            f(a.0[i].cast_signed(), b.0[i].cast_signed()).cast_unsigned()
        }))
    }

    fn floats(a: Raw, b: Raw, f: impl Fn(f32, f32) -> f32) -> Raw {
        Raw(std::array::from_fn(|i| {
            f(f32::from_bits(a.0[i]), f32::from_bits(b.0[i])).to_bits()
        }))
    }

    fn shorts(a: Raw, b: Raw, f: impl Fn(i16, i16) -> i16) -> Raw {
        let (a, b) = (halves(a), halves(b));
        from_i16(std::array::from_fn(|i| f(a[i], b[i])))
    }

    pub fn from_i16(v: [i16; 8]) -> Raw {
        let half = |i: usize| u32::from(v[i].cast_unsigned());
        Raw(std::array::from_fn(|i| half(2 * i) | half(2 * i + 1) << 16))
    }

    pub fn load_i16(v: &[i16; 8]) -> Raw {
        from_i16(*v)
    }

    pub fn store_i16(v: Raw, to: &mut [i16; 8]) {
        *to = halves(v);
    }

    pub fn load_i32(v: &[i32; 4]) -> Raw {
        Raw(v.map(i32::cast_unsigned))
    }

    pub fn load_f32(v: &[f32; 4]) -> Raw {
        Raw(v.map(f32::to_bits))
    }

    pub fn store_f32(v: Raw, to: &mut [f32; 4]) {
        *to = v.0.map(f32::from_bits);
    }

    pub fn splat_pair(pair: &[i16; 2]) -> Raw {
        from_i16(std::array::from_fn(|i| pair[i % 2]))
    }

    pub fn splat_i16(v: i16) -> Raw {
        from_i16([v; 8])
    }

    pub fn splat_f32(v: f32) -> Raw {
        Raw([v.to_bits(); 4])
    }

    pub fn splat_i32(v: i32) -> Raw {
        Raw([v.cast_unsigned(); 4])
    }

    pub fn dot(a: Raw, b: Raw) -> Raw {
        let (a, b) = (halves(a), halves(b));
        let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
        Raw(std::array::from_fn(|i| {
            product(2 * i)
                .wrapping_add(product(2 * i + 1))
                .cast_unsigned()
        }))
    }

    pub fn interleave_low(a: Raw, b: Raw) -> Raw {
        let (a, b) = (halves(a), halves(b));
        from_i16(std::array::from_fn(|i| {
            if i % 2 == 0 { a[i / 2] } else { b[i / 2] }
        }))
    }

    pub fn interleave_high(a: Raw, b: Raw) -> Raw {
        let (a, b) = (halves(a), halves(b));
        from_i16(std::array::from_fn(|i| {
            if i % 2 == 0 {
                a[4 + i / 2]
            } else {
                b[4 + i / 2]
            }
        }))
    }

    pub fn add_i16(a: Raw, b: Raw) -> Raw {
        shorts(a, b, i16::saturating_add)
    }

    pub fn min_i16(a: Raw, b: Raw) -> Raw {
        shorts(a, b, i16::min)
    }

    pub fn max_i16(a: Raw, b: Raw) -> Raw {
        shorts(a, b, i16::max)
    }

    pub fn add_i32(a: Raw, b: Raw) -> Raw {
        words(a, b, i32::wrapping_add)
    }

    pub fn sub_i32(a: Raw, b: Raw) -> Raw {
        words(a, b, i32::wrapping_sub)
    }

    pub fn to_f32(a: Raw) -> Raw {
        Raw(a.0.map(|v| (v.cast_signed() as f32).to_bits()))
    }

    pub fn mul_f32(a: Raw, b: Raw) -> Raw {
        floats(a, b, |a, b| a * b)
    }

    pub fn add_f32(a: Raw, b: Raw) -> Raw {
        floats(a, b, |a, b| a + b)
    }

    pub fn min_f32(a: Raw, b: Raw) -> Raw {
        floats(a, b, |a, b| if b < a { b } else { a })
    }

    pub fn max_f32(a: Raw, b: Raw) -> Raw {
        floats(a, b, |a, b| if a < b { b } else { a })
    }

    pub fn narrow(a: Raw, b: Raw) -> Raw {
        let cut = |v: u32| {
            v.cast_signed()
                .clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
        };
        from_i16(std::array::from_fn(|i| {
            cut(if i < 4 { a.0[i] } else { b.0[i - 4] })
        }))
    }
}

use imp::Raw;

/// Eight integers of 16 bits.
#[derive(Clone, Copy)]
pub struct I16x8(Raw);

/// Four integers of 32 bits; sums wrap.
#[derive(Clone, Copy)]
pub struct I32x4(Raw);

/// Four numbers of float32.
#[derive(Clone, Copy)]
pub struct F32x4(Raw);

impl I16x8 {
    #[inline(always)]
    pub fn load(v: &[i16; 8]) -> Self {
        Self(imp::load_i16(v))
    }

    #[inline(always)]
    pub fn store(self, to: &mut [i16; 8]) {
        imp::store_i16(self.0, to);
    }

    #[inline(always)]
    pub fn splat(v: i16) -> Self {
        Self(imp::splat_i16(v))
    }

    /// A pair, four times.
    #[inline(always)]
    pub fn splat_pair(pair: &[i16; 2]) -> Self {
        Self(imp::splat_pair(pair))
    }

    /// Sums of the products of neighbours.
    #[inline(always)]
    pub fn dot(self, other: Self) -> I32x4 {
        I32x4(imp::dot(self.0, other.0))
    }

    /// The lower and the upper halves of both, element by element in turn.
    #[inline(always)]
    pub fn interleave(self, other: Self) -> [Self; 2] {
        [
            Self(imp::interleave_low(self.0, other.0)),
            Self(imp::interleave_high(self.0, other.0)),
        ]
    }

    /// Sums, cut off at the ends of the type.
    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        Self(imp::add_i16(self.0, other.0))
    }

    #[inline(always)]
    pub fn clamp(self, low: Self, high: Self) -> Self {
        Self(imp::min_i16(imp::max_i16(self.0, low.0), high.0))
    }

    /// Eight wider integers, cut off at the ends of the type.
    #[inline(always)]
    pub fn narrow(low: I32x4, high: I32x4) -> Self {
        Self(imp::narrow(low.0, high.0))
    }

    /// Each element as float32.
    #[inline(always)]
    pub fn widen(self) -> [F32x4; 2] {
        // Times one, plus times zero: the cheapest widening with a sign that all machines have.
        let one = Self(imp::from_i16([1, 0, 1, 0, 1, 0, 1, 0]));
        self.interleave(self).map(|half| half.dot(one).to_f32())
    }
}

impl I32x4 {
    #[inline(always)]
    pub fn load(v: &[i32; 4]) -> Self {
        Self(imp::load_i32(v))
    }

    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        Self(imp::add_i32(self.0, other.0))
    }

    #[inline(always)]
    pub fn to_f32(self) -> F32x4 {
        F32x4(imp::to_f32(self.0))
    }
}

impl F32x4 {
    #[inline(always)]
    pub fn load(v: &[f32; 4]) -> Self {
        Self(imp::load_f32(v))
    }

    #[inline(always)]
    pub fn store(self, to: &mut [f32; 4]) {
        imp::store_f32(self.0, to);
    }

    #[inline(always)]
    pub fn splat(v: f32) -> Self {
        Self(imp::splat_f32(v))
    }

    #[inline(always)]
    pub fn mul(self, other: Self) -> Self {
        Self(imp::mul_f32(self.0, other.0))
    }

    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        Self(imp::add_f32(self.0, other.0))
    }

    #[inline(always)]
    pub fn clamp(self, low: Self, high: Self) -> Self {
        Self(imp::min_f32(imp::max_f32(self.0, low.0), high.0))
    }

    /// The nearest integers, of two the even one. Elements must be within ±2^21.
    #[inline(always)]
    pub fn round(self) -> I32x4 {
        // At this size the last bit of a float32 is worth one, and what is added rounds.
        const MAGIC: f32 = 12_582_912.0;
        let shifted = imp::add_f32(self.0, imp::splat_f32(MAGIC));
        I32x4(imp::sub_i32(
            shifted,
            imp::splat_i32(MAGIC.to_bits().cast_signed()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(v: I32x4) -> [i32; 4] {
        // Small enough for float32, or known.
        let mut out = [0.0; 4];
        v.to_f32().store(&mut out);
        out.map(|v| v as i32)
    }

    fn shorts(v: I16x8) -> [i16; 8] {
        let mut out = [0; 8];
        v.store(&mut out);
        out
    }

    #[test]
    fn lanes_do_what_they_say() {
        let a = [1, -2, 3, -4, 5, -6, i16::MAX, i16::MIN];
        let b = [8, 7, 6, 5, 4, 3, 2, 1];
        let (va, vb) = (I16x8::load(&a), I16x8::load(&b));
        assert_eq!(ints(va.dot(vb)), [8 - 14, 18 - 20, 20 - 18, 65534 - 32768]);
        let [low, high] = va.interleave(vb);
        assert_eq!(shorts(low), [1, 8, -2, 7, 3, 6, -4, 5]);
        assert_eq!(shorts(high), [5, 4, -6, 3, i16::MAX, 2, i16::MIN, 1]);
        assert_eq!(shorts(va.add(va))[6..], [i16::MAX, i16::MIN]);
        let cut = va.clamp(I16x8::splat(-3), I16x8::splat(4));
        assert_eq!(shorts(cut), [1, -2, 3, -3, 4, -3, 4, -3]);
        assert_eq!(
            shorts(I16x8::splat_pair(&[3, -1])),
            [3, -1, 3, -1, 3, -1, 3, -1]
        );
        let wide = I32x4::load(&[70_000, -70_000, 5, -5]);
        let narrow = I16x8::narrow(wide, I32x4::load(&[9; 4]));
        assert_eq!(shorts(narrow), [i16::MAX, i16::MIN, 5, -5, 9, 9, 9, 9]);
        let [low, high] = va.widen();
        let mut out = [0.0; 4];
        low.store(&mut out);
        assert_eq!(out, [1.0, -2.0, 3.0, -4.0]);
        high.store(&mut out);
        assert_eq!(out, [5.0, -6.0, 32767.0, -32768.0]);
    }

    #[test]
    fn halves_round_to_even() {
        for v in [
            [0.5, 1.5, 2.5, -0.5],
            [-1.5, -2.5, 0.49, 2_097_151.0],
            [-2_097_152.0, 0.0, 3.0, 0.51],
        ] {
            let got = ints(F32x4::load(&v).round());
            assert_eq!(got, v.map(|v: f32| v.round_ties_even() as i32), "{v:?}");
        }
        let v =
            F32x4::load(&[-9.0, 300.0, 7.25, 1.0]).clamp(F32x4::splat(0.0), F32x4::splat(255.0));
        let v = v.mul(F32x4::splat(2.0)).add(F32x4::splat(1.0));
        assert_eq!(ints(v.round()), [1, 511, 16, 3]);
        let most = I32x4::load(&[i32::MAX; 4]);
        let least = [i32::MIN; 4];
        assert_eq!(ints(most.add(I32x4::load(&[1; 4]))), least);
    }
}

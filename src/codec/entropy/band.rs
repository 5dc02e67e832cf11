// SPDX-License-Identifier: MPL-2.0
//! One stream of the latent `y`: quiet places are passed over in groups, the others coded with mixed contexts.

use super::golomb::UIntModel;
use super::mix::{Counter, Mixer};
use super::range::BinaryCoder;
use super::symbols::{BINS, LatentShape, MAX_MAGNITUDE, SCALES, SymbolTables};

/// Places in a row that form a run.
const RUN: usize = 8;
/// Channels whose runs at one place form a group.
const GROUP: usize = 8;

/// Classes of the scale index in the neighbourhood models.
const SCALE_CLASSES: usize = 24;
const NEAR_CLASSES: usize = 9;
const RATIO_CLASSES: usize = 8;
const CHANNEL_GROUPS: usize = 4;
const CO_CLASSES: usize = 5;
const NEAR_COARSE: usize = 3;
/// Ranges of channels that model D tells apart where there is no reference.
const CHANNEL_RANGES: usize = 32;
const CO_SETS: usize = CHANNEL_RANGES + CO_CLASSES * NEAR_COARSE;
const MODELS: usize = 4;

/// Symbols with scale indices below this are mostly zero and share flags: where the reference frame shows which ones are
/// not, and where nothing does.
const LOW: [u8; 2] = [12, 8];
/// Classes of the sum of weights in a group.
const SUM_CLASSES: usize = 28;
const HISTORY_CLASSES: usize = 6;
const BESIDE_CLASSES: usize = 3;
/// Classes of a part's share in what is left of its whole.
const SHARE_CLASSES: usize = 16;
/// Shares while nothing was found, sums (one class per octave) afterwards.
const ROW_CLASSES: usize = SHARE_CLASSES + SUM_CLASSES / 2;

type Bins = [Counter; BINS];

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bits of the bytes of `v` that are not zero; bytes must be below 128.
#[inline(always)]
fn nonzero(v: u64) -> u64 {
    (v + 0x7f * ONES) & HIGH
}

/// The sum of the bytes, below 256.
#[inline(always)]
fn byte_sum(v: u64) -> u32 {
    (v.wrapping_mul(ONES) >> 56) as u32
}

/// Gathers the high bits of the bytes: bit i from byte i.
#[inline(always)]
fn gather(v: u64) -> u32 {
    ((v >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

#[inline(always)]
fn scale_class(k: u8) -> usize {
    usize::from(k >> 1).min(SCALE_CLASSES - 1)
}

/// Class of a weighted sum of neighbouring magnitudes.
const NEAR_CLASS: [u8; 64] = {
    let mut t = [0u8; 64];
    let mut i = 0;
    while i < 64 {
        t[i] = match i {
            0 => 0,
            1 => 1,
            2 => 2,
            3..=4 => 3,
            5..=6 => 4,
            7..=10 => 5,
            11..=16 => 6,
            17..=28 => 7,
            _ => 8,
        };
        i += 1;
    }
    t
};

#[inline(always)]
fn near_class(sum: u32) -> usize {
    usize::from(NEAR_CLASS[(sum as usize).min(63)])
}

/// Class of a sum of weights: two per octave.
#[inline(always)]
fn sum_class(sum: u32) -> usize {
    let v = sum.max(1) * 2;
    let octave = 31 - v.leading_zeros();
    let half = (v >> (octave - 1)) & 1;
    ((octave as usize - 1) * 2 + half as usize).min(SUM_CLASSES - 1)
}

/// Which of the two values is larger, and how much: 8 classes.
#[inline(always)]
fn ratio_class(actual: u32, promised: u32) -> usize {
    let (a, p) = (actual + 64, promised + 64);
    usize::from(4 * a > p)
        + usize::from(2 * a > p)
        + usize::from(4 * a > 3 * p)
        + usize::from(a > p)
        + usize::from(3 * a > 4 * p)
        + usize::from(a > 2 * p)
        + usize::from(a > 4 * p)
}

/// The adaptive state of one stream of `y`.
#[derive(Clone, Debug)]
pub(super) struct BandState {
    /// Model A of magnitudes: per scale index.
    pub(super) scale: Vec<Bins>,
    /// Model B: scale class and magnitudes of the neighbours in the channel.
    near: Vec<Bins>,
    /// Model C: scale class, channel group, and how the channels coded so far at this place compare with their scales.
    ratio: Vec<Bins>,
    /// Model D: scale class, magnitude at the same place in the reference frame, coarse neighbours.
    co: Vec<Bins>,
    mixers: Vec<Mixer<MODELS>>,
    /// The same four for "some low symbol of this group is not zero", by the sum of their weights.
    group: [Vec<Counter>; MODELS],
    group_mixers: Vec<Mixer<MODELS>>,
    /// For "some low symbol of this run is not zero".
    row: [Vec<Counter>; MODELS],
    row_mixers: [Mixer<MODELS>; 2],
    /// The same for "it is this one", while none has been found, by its share in the sum of what is left.
    first: [Vec<Counter>; MODELS],
    first_mixer: Mixer<MODELS>,
    escape: Vec<UIntModel<0>>,
}

/// How many bits the tables of the bundle count for, per scale index and in the other models.
const TRUST_SCALE: u32 = 24;
const TRUST_OTHER: u32 = 6;
const TRUST_FLAGS: u32 = 2;
/// Memory of the four models in bits.
const LIMITS: [u16; MODELS] = [500, 250, 250, 250];
const GROUP_WEIGHTS: [i16; MODELS] = [5000, 5000, 5000, 3000];
/// Initial weights of the four models, 16384 is one.
const WEIGHTS: [i16; MODELS] = [6000, 6000, 6000, 3000];
/// Weights are kept per bin, the last for all further ones.
const MIX_SETS: usize = 4;

/// Weights of low symbols in the sums, about 2 * 1.5^k: the chance that a symbol is not zero grows so from index to index, on
/// key frames a little slower, on inter frames a little faster.
const WEIGHT: [u8; 16] = [0, 3, 4, 6, 10, 15, 22, 34, 51, 76, 115, 172, 0, 0, 0, 0];

#[inline(always)]
fn weight(k: u8) -> u32 {
    u32::from(WEIGHT[usize::from(k & 15)])
}

impl BandState {
    pub(super) fn new(tables: &SymbolTables) -> BandState {
        let row = |k: usize, trust| tables.y_row(k.min(SCALES - 1)).map(|p| Counter::new(p, trust));
        let class_rows = |n: usize| {
            (0..SCALE_CLASSES)
                .flat_map(|c| std::iter::repeat_n(row((2 * c).max(1), TRUST_OTHER), n))
                .collect::<Vec<_>>()
        };
        // A weight stands for about 2^-14.
        let group = |n: usize| {
            (0..SUM_CLASSES)
                .flat_map(|c| {
                    let s = (1 << (c / 2)) * (5 + 2 * (c as u32 % 2));
                    let p = (s * 65536 / (65536 + s)) as u16;
                    std::iter::repeat_n(Counter::new(p, TRUST_FLAGS), n)
                })
                .collect::<Vec<_>>()
        };
        let share = |c: usize| ((2 * c + 1) * 65536 / (2 * SHARE_CLASSES)) as u16;
        let first = |n: usize| {
            (0..SHARE_CLASSES)
                .flat_map(|c| std::iter::repeat_n(Counter::new(share(c), TRUST_OTHER), n))
                .collect::<Vec<_>>()
        };
        let rows = |n: usize| {
            (0..ROW_CLASSES)
                .flat_map(|c| {
                    let p = if c < SHARE_CLASSES { share(c) } else { 6000 };
                    std::iter::repeat_n(Counter::new(p, TRUST_OTHER), n)
                })
                .collect::<Vec<_>>()
        };
        BandState {
            scale: (0..SCALES).map(|k| row(k, TRUST_SCALE)).collect(),
            near: class_rows(NEAR_CLASSES),
            ratio: class_rows(RATIO_CLASSES * CHANNEL_GROUPS),
            co: class_rows(CO_SETS),
            mixers: vec![Mixer::new(WEIGHTS); MIX_SETS],
            group: [
                group(1),
                group(NEAR_CLASSES),
                group(HISTORY_CLASSES * CHANNEL_GROUPS),
                group(RATIO_CLASSES * BESIDE_CLASSES),
            ],
            group_mixers: vec![Mixer::new(GROUP_WEIGHTS); 4],
            row: [
                rows(1),
                rows(NEAR_CLASSES),
                rows(RATIO_CLASSES),
                rows(CHANNEL_GROUPS),
            ],
            row_mixers: [Mixer::new(WEIGHTS); 2],
            first: [
                first(1),
                first(NEAR_CLASSES),
                first(RATIO_CLASSES),
                first(CO_CLASSES),
            ],
            first_mixer: Mixer::new(WEIGHTS),
            escape: vec![UIntModel::default(); 4],
        }
    }

    /// Codes the magnitude of one symbol, which is at least `from`.
    #[inline(always)]
    fn magnitude<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        k: u8,
        ctx: [usize; 3],
        from: u32,
        magnitude: u32,
    ) -> u32 {
        let class = scale_class(k);
        let a = &mut self.scale[usize::from(k) & (SCALES - 1)];
        let b = &mut self.near[class * NEAR_CLASSES + ctx[0]];
        let c = &mut self.ratio[class * RATIO_CLASSES * CHANNEL_GROUPS + ctx[1]];
        let d = &mut self.co[class * CO_SETS + ctx[2]];
        let mut m = from;
        while m < BINS as u32 {
            let j = m as usize;
            let mixer = &mut self.mixers[j.min(MIX_SETS - 1)];
            let models = [&mut a[j], &mut b[j], &mut c[j], &mut d[j]];
            #[cfg(feature = "count")]
            COUNT[3 + (m > 0) as usize].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if !mixer.code4(coder, models, LIMITS, magnitude > m) {
                return m;
            }
            m += 1;
        }
        m + self.escape[usize::from(k >> 4) & 3].code(coder, magnitude.wrapping_sub(m))
    }
}

/// Codes one bit with four single counters.
#[inline(always)]
fn flag<C: BinaryCoder>(
    coder: &mut C,
    models: &mut [Vec<Counter>; MODELS],
    mixer: &mut Mixer<MODELS>,
    at: [usize; MODELS],
    bit: bool,
) -> bool {
    let [a, b, c, d] = models;
    mixer.code4(
        coder,
        [&mut a[at[0]], &mut b[at[1]], &mut c[at[2]], &mut d[at[3]]],
        LIMITS,
        bit,
    )
}

/// Magnitudes (at most 15) of a band, with a border of zeros above and on both sides of each plane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) shape: LatentShape,
    /// Rows of the whole latent that the band holds.
    pub(super) first_row: usize,
    pub(super) rows: usize,
}

impl Layout {
    fn runs(&self) -> usize {
        self.shape.width.div_ceil(RUN)
    }
    /// Rows end with a border that whole runs reach into.
    fn stride(&self) -> usize {
        self.runs() * RUN + 2
    }
    fn plane(&self) -> usize {
        (self.rows + 1) * self.stride()
    }
    pub(super) fn len(&self) -> usize {
        self.shape.channels * self.plane()
    }
}

/// What is known of the runs of a group at one place while its channels are coded.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Channels with symbols that are coded for themselves, a bit for each.
    full: u8,
    /// Channels with low symbols that may be other than zero.
    low: u8,
    /// The weights of those.
    sum: u32,
    /// A low symbol other than zero was found.
    found: bool,
}

/// Codes one band of all channels. An encoder (`ENCODE`) reads `input`; a decoder writes `output` (all zero before).
#[allow(clippy::too_many_arguments)]
pub(super) fn code_band<C: BinaryCoder, const ENCODE: bool>(
    state: &mut BandState,
    tables: &SymbolTables,
    coder: &mut C,
    layout: Layout,
    scale_idx: &[u8],
    input: &[i16],
    output: &mut [i16],
    reference: Option<&[u8]>,
    mags: &mut [u8],
) -> bool {
    let (shape, n) = (layout.shape, layout.rows);
    let (w, runs, stride) = (shape.width, layout.runs(), layout.stride());
    let channels = tables.channels();
    // What the channels coded so far at each place summed up to, and what their scales promised.
    let mut actual = vec![0u16; n * runs * RUN];
    let mut promised = vec![0u16; n * runs * RUN];
    // For each run of places: whether there was something in it, in the last eight channels that asked.
    let mut history = vec![0u8; n * runs];
    let mut places = vec![Place::default(); n * runs];
    // Whether the last group coded in each column of runs had something.
    let mut above_flag = vec![0u8; runs + 1];
    let at_least_low = u64::from(128 - LOW[usize::from(reference.is_none())]) * ONES;
    // Scale indices of a run of channel c, and which of its symbols are coded for themselves and which are low.
    let scales = |c: u16, y: usize, run: usize| {
        let x0 = run * RUN;
        let at = (usize::from(c) * shape.height + layout.first_row + y) * w + x0;
        let len = RUN.min(w - x0);
        let k = if len == RUN {
            load(scale_idx, at)
        } else {
            let mut part = [0; RUN];
            part[..len].copy_from_slice(&scale_idx[at..at + len]);
            u64::from_le_bytes(part)
        };
        let co = reference.map_or(0, |r| load(r, usize::from(c) * layout.plane() + (y + 1) * stride + x0 + 1));
        let coded = nonzero(k);
        let full = coded & ((k + at_least_low) | nonzero(co));
        (k, full, coded & !full)
    };
    let sum_of = |k: u64, low: u64| {
        let masked = (k & ((low >> 7) * 0xff)).to_le_bytes();
        masked.iter().map(|&k| weight(k)).sum::<u32>()
    };
    let mut sound = true;
    for (g, group_channels) in tables.order().chunks(GROUP).enumerate() {
        let rank = g * GROUP;
        let group = rank * CHANNEL_GROUPS / channels;
        above_flag.fill(0);
        for y in 0..n {
            for run in 0..runs {
                let x0 = run * RUN;
                let mut place = Place::default();
                let mut active = 0;
                let mut lows = [0u64; GROUP];
                for (i, &c) in group_channels.iter().enumerate() {
                    let (k, full, low) = scales(c, y, run);
                    place.full |= u8::from(full != 0) << i;
                    if low != 0 {
                        place.low |= 1 << i;
                        place.sum += sum_of(k, low);
                        lows[i] = low;
                    }
                    active += full.count_ones();
                }
                let above = above_flag[run + 1];
                above_flag[run + 1] = 0;
                if place.low != 0 {
                    let p = (y * runs + run) * RUN;
                    let seen = &mut history[y * runs + run];
                    let past = (seen.count_ones() as usize).min(HISTORY_CLASSES - 1);
                    let total = |v: &[u16]| v[p..p + RUN].iter().map(|&v| u32::from(v)).sum::<u32>();
                    let ratio = ratio_class(total(&actual), total(&promised));
                    let class = sum_class(place.sum);
                    let beside = usize::from(above + above_flag[run]);
                    let at = [
                        class,
                        class * NEAR_CLASSES + near_class(active),
                        (class * HISTORY_CLASSES + past) * CHANNEL_GROUPS + group,
                        (class * RATIO_CLASSES + ratio) * BESIDE_CLASSES + beside,
                    ];
                    let any = ENCODE
                        && group_channels.iter().zip(&lows).any(|(&c, &low)| {
                            let at = (usize::from(c) * shape.height + layout.first_row + y) * w + x0;
                            let low = gather(low);
                            (0..RUN).any(|x| low >> x & 1 == 1 && input[at + x] != 0)
                        });
                    #[cfg(feature = "count")]
                    COUNT[0].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let some = flag(
                        coder,
                        &mut state.group,
                        &mut state.group_mixers[class / 7],
                        at,
                        any,
                    );
                    *seen = *seen << 1 | u8::from(some);
                    above_flag[run + 1] = u8::from(some);
                    if !some {
                        place.low = 0;
                    }
                }
                places[y * runs + run] = place;
            }
        }
        for (i, &c) in group_channels.iter().enumerate() {
            let plane = usize::from(c) * layout.plane();
            for y in 0..n {
                for run in 0..runs {
                    let place = &mut places[y * runs + run];
                    if (place.full | place.low) >> i & 1 == 0 {
                        continue;
                    }
                    let x0 = run * RUN;
                    let p = (y * runs + run) * RUN;
                    let corner = plane + (y + 1) * stride + x0;
                    let row_at = (usize::from(c) * shape.height + layout.first_row + y) * w + x0;
                    let out_row = (usize::from(c) * n + y) * w + x0;
                    let (ks, full, lows) = scales(c, y, run);
                    let mut low = 0;
                    let mut open_sum = 0;
                    // Whether one of the low symbols left must be another value than zero.
                    let mut must = false;
                    if place.low >> i & 1 == 1 {
                        let own = sum_of(ks, lows);
                        let t = if place.found {
                            SHARE_CLASSES + sum_class(own) / 2
                        } else {
                            (own * SHARE_CLASSES as u32 / place.sum).min(SHARE_CLASSES as u32 - 1) as usize
                        };
                        let around = byte_sum(load(mags, corner - stride)) + 2 * u32::from(mags[corner])
                            + byte_sum(load(mags, corner - stride + 2) >> 48);
                        let near = near_class(around);
                        let total = |v: &[u16]| v[p..p + RUN].iter().map(|&v| u32::from(v)).sum::<u32>();
                        let ratio = ratio_class(total(&actual), total(&promised));
                        let at = [
                            t,
                            t * NEAR_CLASSES + near,
                            t * RATIO_CLASSES + ratio,
                            t * CHANNEL_GROUPS + group,
                        ];
                        low = gather(lows);
                        let any = ENCODE && (0..RUN).any(|x| low >> x & 1 == 1 && input[row_at + x] != 0);
                        place.low &= !(1 << i);
                        place.sum -= own;
                        #[cfg(feature = "count")]
                        COUNT[1].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        must = (place.low == 0 && !place.found)
                            || flag(coder, &mut state.row, &mut state.row_mixers[usize::from(place.found)], at, any);
                        place.found |= must;
                        if !must {
                            low = 0;
                        }
                        open_sum = own;
                    }
                    let mut todo = gather(full) | low;
                    let k8 = ks.to_le_bytes();
                    while todo != 0 {
                        let x = todo.trailing_zeros() as usize & 7;
                        todo &= todo - 1;
                        let k = k8[x];
                        let o = corner + x + 1;
                        let (l, t) = (u32::from(mags[o - 1]), u32::from(mags[o - stride]));
                        let (tl, tr) = (u32::from(mags[o - stride - 1]), u32::from(mags[o - stride + 1]));
                        let near = near_class(2 * (l + t) + tl + tr);
                        let p = p + x;
                        let (a, e) = (u32::from(actual[p]), u32::from(promised[p]));
                        let ratio = ratio_class(a, e);
                        let co = reference.map_or(0, |r| usize::from(r[o]).min(CO_CLASSES - 1));
                        let value = if ENCODE { i32::from(input[row_at + x]) } else { 0 };
                        let mut from = 0;
                        if must && low >> x & 1 == 1 {
                            let own = weight(k);
                            let share = ((own * SHARE_CLASSES as u32) / open_sum)
                                .min(SHARE_CLASSES as u32 - 1) as usize;
                            let at = [
                                share,
                                share * NEAR_CLASSES + near,
                                share * RATIO_CLASSES + ratio,
                                share * CO_CLASSES + co,
                            ];
                            #[cfg(feature = "count")]
                            COUNT[2].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            let this = open_sum == own
                                || flag(coder, &mut state.first, &mut state.first_mixer, at, value != 0);
                            open_sum -= own;
                            if !this {
                                continue;
                            }
                            must = false;
                            from = 1;
                        }
                        let ctx = [
                            near,
                            ratio * CHANNEL_GROUPS + group,
                            if reference.is_none() {
                                (rank + i) * CHANNEL_RANGES / channels
                            } else {
                                CHANNEL_RANGES + co * NEAR_COARSE + near.min(4).div_ceil(2)
                            },
                        ];
                        let m = state.magnitude(coder, k, ctx, from, value.unsigned_abs());
                        let small = m.min(BINS as u32);
                        if k >= 8 {
                            actual[p] = (a - (a >> 4) + small * 16) as u16;
                            promised[p] = (e - (e >> 4) + (tables.expected(k) >> 4)) as u16;
                        }
                        if m > 0 {
                            mags[o] = small as u8;
                            let negative = coder.bypass(u32::from(value < 0), 1) == 1;
                            if !ENCODE {
                                sound &= m <= MAX_MAGNITUDE as u32;
                                let m = m.min(MAX_MAGNITUDE as u32) as i16;
                                output[out_row + x] = if negative { -m } else { m };
                            }
                        }
                    }
                }
            }
        }
    }
    sound
}
#[cfg(feature = "count")]
pub(crate) static COUNT: [std::sync::atomic::AtomicU64; 8] = [const { std::sync::atomic::AtomicU64::new(0) }; 8];

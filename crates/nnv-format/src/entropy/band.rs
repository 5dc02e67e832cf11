// SPDX-License-Identifier: MPL-2.0
//! One stream of the latent `y`: quiet places are passed over in groups, the others coded with
//! mixed contexts.

use super::golomb::UIntModel;
use super::mix::{Counter, Mixer};
use super::range::BinaryCoder;
use super::tables::{BINS, LatentShape, MAX_MAGNITUDE, SCALES, Symbol, SymbolTables};

/// Places in a row that form a run.
const RUN: usize = 8;
/// Channels whose runs at one place form a group.
pub(super) const GROUP: usize = 16;
/// Channels, in the order of coding, that share one hidden sign at each place: whole groups.
pub const HIDING_CHANNELS: usize = 2 * GROUP;
/// Their magnitudes must sum up to this or more, else the sign is coded.
pub const HIDING_SUM: u32 = 2;

/// Classes of the scale index in the neighbourhood models.
const SCALE_CLASSES: usize = 24;
pub(super) const NEAR_CLASSES: usize = 9;
const RATIO_CLASSES: usize = 8;
const CHANNEL_GROUPS: usize = 4;
const CO_CLASSES: usize = 5;
const NEAR_COARSE: usize = 3;
/// Ranges of channels that model D tells apart where there is no reference.
const CHANNEL_RANGES: usize = 32;
const CO_SETS: usize = CHANNEL_RANGES + CO_CLASSES * NEAR_COARSE;
const MODELS: usize = 4;

/// Symbols with scale indices below this are mostly zero and share flags: where the reference frame
/// shows which ones are not, and where nothing does.
const LOW: [u8; 2] = [12, 10];
/// Symbols with scale indices from here on count in what was found and promised.
const COUNTED: u8 = 8;
/// Classes of the sum of weights in a group, and how many share the weights of the models.
const SUM_CLASSES: usize = 32;
const GROUP_MIX: usize = 8;
const HISTORY_CLASSES: usize = 6;
const BESIDE_CLASSES: usize = 3;
/// Classes of a part's share in what is left of its whole.
const SHARE_CLASSES: usize = 16;
/// Classes of a run in its group: shares while nothing was found, sums (one class per octave)
/// afterwards.
const RUN_CLASSES: usize = SHARE_CLASSES + SUM_CLASSES / 2;

type Bins = [Counter; BINS];

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bits of the bytes of `v` that are not zero; bytes must be below 128.
#[inline(always)]
fn nonzero(v: u64) -> u64 {
    (v + 0x7f * ONES) & HIGH
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
pub(super) fn scale_class(k: u8) -> usize {
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

/// Class of the magnitudes (at most 15) to the left, above, above to the left and above to the
/// right.
#[inline(always)]
pub fn near(left: u32, above: u32, above_left: u32, above_right: u32) -> usize {
    near_class(2 * (left + above) + above_left + above_right)
}

/// Class of a sum of weights: two per octave.
#[inline(always)]
fn sum_class(sum: u32) -> usize {
    let v = sum.max(1) * 2;
    let octave = 31 - v.leading_zeros();
    let half = (v >> (octave - 1)) & 1;
    ((octave as usize - 1) * 2 + half as usize).min(SUM_CLASSES - 1)
}

/// Class of a part of a sum of weights.
#[inline(always)]
fn share_class(part: u32, sum: u32) -> usize {
    ((part * SHARE_CLASSES as u32 / sum.max(1)) as usize).min(SHARE_CLASSES - 1)
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
    pub(super) near: Vec<Bins>,
    /// Model C: scale class, channel group, and how the channels coded so far at this place compare
    /// with their scales.
    ratio: Vec<Bins>,
    /// Model D: scale class, magnitude at the same place in the reference frame, coarse neighbours.
    co: Vec<Bins>,
    mixers: Vec<Mixer<MODELS>>,
    /// The same four for "some low symbol of this group is not zero", by the sum of their weights.
    group: [Vec<Counter>; MODELS],
    group_mixers: Vec<Mixer<MODELS>>,
    /// For "some low symbol of this run is not zero".
    run: [Vec<Counter>; MODELS],
    /// Before and after one was found in the group.
    run_mixers: [Mixer<MODELS>; 2],
    /// The same for "it is this one", while none has been found, by its share in the sum of what is
    /// left.
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

/// Weights of low symbols in the sums, about 2 * 1.5^k: the chance that a symbol is not zero grows
/// so from index to index, on key frames a little slower, on inter frames a little faster.
const WEIGHT: [u8; 16] = [0, 3, 4, 6, 10, 15, 22, 34, 51, 76, 115, 172, 0, 0, 0, 0];

#[inline(always)]
fn weight(k: u8) -> u32 {
    u32::from(WEIGHT[usize::from(k & 15)])
}

impl BandState {
    pub(super) fn new(tables: &SymbolTables) -> BandState {
        let row = |k: usize, trust| {
            tables
                .y_row(k.min(SCALES - 1))
                .map(|p| Counter::new(p, trust))
        };
        let class_rows = |n: usize| {
            (0..SCALE_CLASSES)
                .flat_map(|c| std::iter::repeat_n(row((2 * c).max(1), TRUST_OTHER), n))
                .collect::<Vec<_>>()
        };
        // A weight stands for about 2^-14.
        let group = |n: usize| {
            (0..SUM_CLASSES)
                .flat_map(|c| {
                    let s = (1 << (c / 2)) * (5 + 2 * (c as u64 % 2));
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
        let run = |n: usize| {
            (0..RUN_CLASSES)
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
            group_mixers: vec![Mixer::new(GROUP_WEIGHTS); SUM_CLASSES / GROUP_MIX],
            run: [
                run(1),
                run(NEAR_CLASSES),
                run(RATIO_CLASSES),
                run(CHANNEL_GROUPS),
            ],
            run_mixers: [Mixer::new(WEIGHTS); 2],
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

/// Where the magnitudes (at most 15) of a band lie in memory: planes with a border of zeros above
/// and on both sides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Of the whole latent.
    pub(super) shape: LatentShape,
    /// The first of the rows that the band holds.
    pub(super) first_row: usize,
    /// Rows in the band.
    pub(super) rows: usize,
}

impl Layout {
    /// Elements in the memory.
    pub(super) fn len(&self) -> usize {
        self.shape.channels * self.plane()
    }

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

    /// Where the row of channel `c` begins: its border.
    fn row(&self, c: u16, y: usize) -> usize {
        usize::from(c) * self.plane() + (y + 1) * self.stride()
    }
}

/// The symbols of a frame: what an encoder reads and a decoder writes.
pub(super) trait Symbols {
    /// The symbol at this place of the latent, 0 in a decoder.
    fn get(&self, at: usize) -> i32;
    /// A symbol other than zero was coded at this place of the latent; returns what it can be found
    /// again by.
    fn put(&mut self, at: usize, channel: u16, value: i16) -> usize;
    /// Whether a symbol is negative, for an encoder to write.
    fn is_negative(&self, handle: usize) -> bool;
    /// Whether a symbol that was put without its sign is negative. Returns whether that can be.
    fn set_sign(&mut self, handle: usize, negative: bool) -> bool;
}

/// The whole latent of an encoder.
impl Symbols for &[i16] {
    #[inline(always)]
    fn get(&self, at: usize) -> i32 {
        i32::from(self[at])
    }

    #[inline(always)]
    fn put(&mut self, at: usize, _channel: u16, _value: i16) -> usize {
        at
    }

    #[inline(always)]
    fn set_sign(&mut self, handle: usize, negative: bool) -> bool {
        (self[handle] < 0) == negative
    }

    #[inline(always)]
    fn is_negative(&self, handle: usize) -> bool {
        self[handle] < 0
    }
}

/// What a decoder finds.
impl Symbols for &mut Vec<Symbol> {
    #[inline(always)]
    fn get(&self, _at: usize) -> i32 {
        0
    }

    #[inline(always)]
    fn put(&mut self, at: usize, channel: u16, value: i16) -> usize {
        self.push(Symbol {
            at: at as u32,
            channel,
            value,
        });
        self.len() - 1
    }

    #[inline(always)]
    fn set_sign(&mut self, handle: usize, negative: bool) -> bool {
        if negative {
            let value = &mut self[handle].value;
            *value = -*value;
        }
        true
    }

    #[inline(always)]
    fn is_negative(&self, _handle: usize) -> bool {
        false
    }
}

/// What is known of the runs of a group at one place while its channels are coded.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Channels with symbols that are coded for themselves, a bit for each.
    full: u16,
    /// Channels with low symbols that may be other than zero.
    low: u16,
    /// The weights of those.
    sum: u32,
    /// A low symbol other than zero was found.
    found: bool,
}

/// The first symbol other than zero that [`HIDING_CHANNELS`] have at one place. Its sign comes
/// last.
#[derive(Clone, Copy, Default)]
struct First {
    /// By which it is found again.
    handle: usize,
    /// Their magnitudes at this place.
    sum: u32,
}

/// Scale indices of a run, and in the high bits of further bytes which of its symbols are coded for
/// themselves and which are low.
#[derive(Clone, Copy)]
struct Run {
    scales: u64,
    full: u64,
    low: u64,
}

impl Run {
    /// The weights of the low symbols.
    #[inline(always)]
    fn sum(&self) -> u32 {
        let low = self.scales & ((self.low >> 7) * 0xff);
        low.to_le_bytes().iter().map(|&k| weight(k)).sum()
    }
}

/// One frame's band on its way through the coder.
struct Band<'a, C, S> {
    state: &'a mut BandState,
    tables: &'a SymbolTables,
    coder: &'a mut C,
    layout: Layout,
    scale_idx: &'a [u8],
    symbols: S,
    /// Magnitudes of the frame whose contexts are inherited, and of this one.
    reference: Option<&'a [u8]>,
    magnitudes: &'a mut [u8],
    /// What the channels coded so far at each place summed up to, and what their scales promised.
    actual: Vec<u16>,
    promised: Vec<u16>,
    /// Per place; `sum` is 0 where all is zero so far.
    firsts: Vec<First>,
    /// Added to a scale index this gives a byte above 127 where the index is not low.
    not_low: u64,
    /// Whether any magnitude was above the limit.
    sound: bool,
}

/// Codes one band; returns whether all symbols are within their limits, and false as soon as a
/// decoder has read past its data. `magnitudes` (all zero before) receives what the next frame
/// takes as its `reference`.
///
/// `order`: the channels to code, all in their order or as many groups from its beginning.
#[allow(clippy::too_many_arguments)]
pub(super) fn code_band<C: BinaryCoder, S: Symbols>(
    state: &mut BandState,
    tables: &SymbolTables,
    order: &[u16],
    coder: &mut C,
    layout: Layout,
    scale_idx: &[u8],
    symbols: S,
    reference: Option<&[u8]>,
    magnitudes: &mut [u8],
) -> bool {
    let places = layout.rows * layout.runs();
    let mut band = Band {
        state,
        tables,
        coder,
        layout,
        scale_idx,
        symbols,
        reference,
        magnitudes,
        actual: vec![0; places * RUN],
        promised: vec![0; places * RUN],
        firsts: vec![First::default(); places * RUN],
        not_low: u64::from(128 - LOW[usize::from(reference.is_none())]) * ONES,
        sound: true,
    };
    // For each run of places: whether there was something in it, in the last eight groups that
    // asked.
    let mut history = vec![0u8; places];
    let mut group = vec![Place::default(); places];
    for (g, channels) in order.chunks(GROUP).enumerate() {
        band.flags(channels, g * GROUP, &mut history, &mut group);
        for (i, &c) in channels.iter().enumerate() {
            for (at, place) in group.iter_mut().enumerate() {
                if (place.full | place.low) >> i & 1 == 1 {
                    band.run(c, g * GROUP + i, i, at, place);
                }
            }
            if band.coder.overrun() {
                return false;
            }
        }
        if ((g + 1) * GROUP).is_multiple_of(HIDING_CHANNELS) {
            band.last_signs();
        }
    }
    band.last_signs();
    band.sound
}

impl<C: BinaryCoder, S: Symbols> Band<'_, C, S> {
    /// Where a run of channel `c` begins in the whole latent.
    #[inline(always)]
    fn place(&self, c: u16, y: usize, x: usize) -> usize {
        let shape = self.layout.shape;
        (usize::from(c) * shape.height + self.layout.first_row + y) * shape.width + x
    }

    #[inline(always)]
    fn scales(&self, c: u16, y: usize, x: usize) -> Run {
        let at = self.place(c, y, x);
        let len = RUN.min(self.layout.shape.width - x);
        let scales = if len == RUN {
            load(self.scale_idx, at)
        } else {
            let mut part = [0; RUN];
            part[..len].copy_from_slice(&self.scale_idx[at..at + len]);
            u64::from_le_bytes(part)
        };
        let co = match self.reference {
            Some(r) => load(r, self.layout.row(c, y) + x + 1),
            None => 0,
        };
        let coded = nonzero(scales);
        let full = coded & ((scales + self.not_low) | nonzero(co));
        Run {
            scales,
            full,
            low: coded & !full,
        }
    }

    /// Whether one of the low symbols of a run is not zero; false in a decoder.
    #[inline(always)]
    fn any(&self, c: u16, y: usize, x: usize, low: u64) -> bool {
        let (low, at) = (gather(low), self.place(c, y, x));
        (0..RUN).any(|i| low >> i & 1 == 1 && self.symbols.get(at + i) != 0)
    }

    /// How what was found in a run of places compares with what was promised.
    #[inline(always)]
    fn ratio(&self, place: usize) -> usize {
        let places = place * RUN..(place + 1) * RUN;
        let sum = |v: &[u16]| v.iter().map(|&v| u32::from(v)).sum();
        ratio_class(
            sum(&self.actual[places.clone()]),
            sum(&self.promised[places]),
        )
    }

    fn channel_group(&self, rank: usize) -> usize {
        rank * CHANNEL_GROUPS / self.tables.channels()
    }

    /// Codes for each run of places whether any low symbol in the channels of a group is not zero.
    fn flags(&mut self, channels: &[u16], rank: usize, history: &mut [u8], group: &mut [Place]) {
        let runs = self.layout.runs();
        let channel_group = self.channel_group(rank);
        // Answers above, and to the left as a row is passed through; none where nothing was asked.
        let mut beside = vec![false; runs + 1];
        for (at, place) in group.iter_mut().enumerate() {
            let (y, run) = (at / runs, at % runs);
            let x = run * RUN;
            *place = Place::default();
            let mut full = 0;
            let mut lows = [0; GROUP];
            for (i, &c) in channels.iter().enumerate() {
                let run = self.scales(c, y, x);
                if run.full != 0 {
                    place.full |= 1 << i;
                    full += run.full.count_ones();
                }
                if run.low != 0 {
                    place.low |= 1 << i;
                    place.sum += run.sum();
                    lows[i] = run.low;
                }
            }
            let above = std::mem::take(&mut beside[run + 1]);
            if place.low == 0 {
                continue;
            }
            let class = sum_class(place.sum);
            let past = (history[at].count_ones() as usize).min(HISTORY_CLASSES - 1);
            let near = usize::from(above) + usize::from(beside[run]);
            let models = [
                class,
                class * NEAR_CLASSES + near_class(full),
                (class * HISTORY_CLASSES + past) * CHANNEL_GROUPS + channel_group,
                (class * RATIO_CLASSES + self.ratio(at)) * BESIDE_CLASSES + near,
            ];
            let any = (channels.iter().zip(lows)).any(|(&c, low)| self.any(c, y, x, low));
            let state = &mut *self.state;
            let mixer = &mut state.group_mixers[class / GROUP_MIX];
            let some = flag(self.coder, &mut state.group, mixer, models, any);
            history[at] = history[at] << 1 | u8::from(some);
            beside[run + 1] = some;
            if !some {
                place.low = 0;
            }
        }
    }

    /// The signs that were left out: hidden in the parity of the magnitudes at their places, or
    /// coded where those are small.
    fn last_signs(&mut self) {
        for first in &mut self.firsts {
            let sum = std::mem::take(&mut first.sum);
            if sum == 0 {
                continue;
            }
            let negative = if sum < HIDING_SUM {
                let negative = self.symbols.is_negative(first.handle);
                self.coder.bypass(negative.into(), 1) == 1
            } else {
                sum % 2 == 1
            };
            self.sound &= self.symbols.set_sign(first.handle, negative);
        }
    }

    /// Codes the run of channel `c`, which is channel `i` of its group, at a place.
    #[inline(always)]
    fn run(&mut self, c: u16, rank: usize, i: usize, at: usize, place: &mut Place) {
        let runs = self.layout.runs();
        let (y, x) = (at / runs, at % runs * RUN);
        let stride = self.layout.stride();
        let corner = self.layout.row(c, y) + x;
        let run = self.scales(c, y, x);
        let channel_group = self.channel_group(rank);
        let mut low = 0;
        // Weights of the low symbols left while one of them must be another value than zero.
        let mut left = 0;
        if place.low >> i & 1 == 1 {
            let own = run.sum();
            let t = if place.found {
                SHARE_CLASSES + sum_class(own) / 2
            } else {
                share_class(own, place.sum)
            };
            let above = &self.magnitudes[corner - stride..corner - stride + RUN + 2];
            let near = above.iter().map(|&m| u32::from(m)).sum::<u32>()
                + 2 * u32::from(self.magnitudes[corner]);
            let models = [
                t,
                t * NEAR_CLASSES + near_class(near),
                t * RATIO_CLASSES + self.ratio(at),
                t * CHANNEL_GROUPS + channel_group,
            ];
            place.low &= !(1 << i);
            place.sum -= own;
            let any = self.any(c, y, x, run.low);
            let state = &mut *self.state;
            let mixer = &mut state.run_mixers[usize::from(place.found)];
            // The last one left must be it.
            if !place.found && place.low == 0
                || flag(self.coder, &mut state.run, mixer, models, any)
            {
                place.found = true;
                low = gather(run.low);
                left = own;
            }
        }
        let mut todo = gather(run.full) | low;
        let scales = run.scales.to_le_bytes();
        let symbols = self.place(c, y, x);
        while todo != 0 {
            let j = todo.trailing_zeros() as usize % RUN;
            todo &= todo - 1;
            let k = scales[j];
            let o = corner + j + 1;
            let m = |at: usize| u32::from(self.magnitudes[at]);
            let near = near(
                m(o - 1),
                m(o - stride),
                m(o - stride - 1),
                m(o - stride + 1),
            );
            let p = at * RUN + j;
            let (a, e) = (u32::from(self.actual[p]), u32::from(self.promised[p]));
            let ratio = ratio_class(a, e);
            let co = match self.reference {
                Some(r) => usize::from(r[o]).min(CO_CLASSES - 1),
                None => 0,
            };
            let value = self.symbols.get(symbols + j);
            let mut from = 0;
            if left > 0 && low >> j & 1 == 1 {
                let own = weight(k);
                let share = share_class(own, left);
                let models = [
                    share,
                    share * NEAR_CLASSES + near,
                    share * RATIO_CLASSES + ratio,
                    share * CO_CLASSES + co,
                ];
                let state = &mut *self.state;
                let mixer = &mut state.first_mixer;
                let this =
                    left == own || flag(self.coder, &mut state.first, mixer, models, value != 0);
                if !this {
                    left -= own;
                    continue;
                }
                left = 0;
                from = 1;
            }
            let contexts = [
                near,
                ratio * CHANNEL_GROUPS + channel_group,
                match self.reference {
                    None => rank * CHANNEL_RANGES / self.tables.channels(),
                    Some(_) => CHANNEL_RANGES + co * NEAR_COARSE + near.min(4).div_ceil(2),
                },
            ];
            let m = (self.state).magnitude(self.coder, k, contexts, from, value.unsigned_abs());
            let small = m.min(BINS as u32);
            if k >= COUNTED {
                self.actual[p] = (a - (a >> 4) + small * 16) as u16;
                self.promised[p] = (e - (e >> 4) + (self.tables.expected(k) >> 4)) as u16;
            }
            if m > 0 {
                self.magnitudes[o] = small as u8;
                self.sound &= m <= MAX_MAGNITUDE as u32;
                let magnitude = m.min(MAX_MAGNITUDE as u32) as i16;
                if self.firsts[p].sum == 0 {
                    self.firsts[p].handle = self.symbols.put(symbols + j, c, magnitude);
                } else {
                    let negative = self.coder.bypass(u32::from(value < 0), 1) == 1;
                    let value = if negative { -magnitude } else { magnitude };
                    self.symbols.put(symbols + j, c, value);
                }
                self.firsts[p].sum += m;
            }
        }
    }
}

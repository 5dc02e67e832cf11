// SPDX-License-Identifier: MPL-2.0
//! Context-adaptive binary arithmetic decoding (ITU-T H.264, 9.3).

use super::macroblock::{Around, Category, Entropy, Macroblock, Residual, SliceKind};
use super::tables::{CONTEXTS, LAST_8X8, NEXT_LPS, RANGE_LPS, SIGNIFICANT_8X8};

/// A context is `pStateIdx << 1 | valMPS`.
static NEXT: [[u8; 128]; 2] = next_states();
/// First contexts by `ctxBlockCat` (table 9-34 with `ctxBlockCatOffset` of table 9-40), of
/// frames only.
const CODED_BLOCK_FLAG: [usize; 14] = [
    85, 89, 93, 97, 101, 1012, 460, 464, 468, 1016, 472, 476, 480, 1020,
];
const SIGNIFICANT: [usize; 14] = [
    105, 120, 134, 149, 152, 402, 484, 499, 513, 660, 528, 543, 557, 718,
];
const LAST: [usize; 14] = [
    166, 181, 195, 210, 213, 417, 572, 587, 601, 690, 616, 631, 645, 748,
];
const ABS_LEVEL: [usize; 14] = [
    227, 237, 247, 257, 266, 426, 952, 962, 972, 708, 982, 992, 1002, 766,
];

/// Table 9-45: after the most probable symbol, and after the least probable one.
const fn next_states() -> [[u8; 128]; 2] {
    let mut next = [[0; 128]; 2];
    let mut i = 0;
    while i < 128 {
        let (state, mps) = (i >> 1, i as u8 & 1);
        next[0][i] = if state < 62 { i as u8 + 2 } else { i as u8 };
        let flipped = if state == 0 { mps ^ 1 } else { mps };
        next[1][i] = NEXT_LPS[state] << 1 | flipped;
        i += 1;
    }
    next
}

/// The arithmetic decoding engine (9.3.1.2 and 9.3.3.2). Behind the end of its data it reads zeros,
/// and says so when asked: to ask once for each macroblock is enough, as nothing in a macroblock is
/// unbounded.
#[derive(Clone, Copy)]
struct Engine<'a> {
    data: &'a [u8],
    /// Where the next bytes come from; it may go past the end.
    next: usize,
    /// `codIOffset`, with bits that were read ahead below it.
    offset: u64,
    /// Number of bits read ahead, 8 at least between calls.
    ahead: u32,
    /// `codIRange`.
    range: u32,
}

impl<'a> Engine<'a> {
    fn new(data: &'a [u8], start: usize) -> Self {
        let mut engine = Self {
            data,
            next: start,
            offset: 0,
            ahead: 0,
            range: 510,
        };
        engine.read_ahead();
        // Of these 32 bits, 9 belong to `codIOffset`.
        engine.ahead -= 9;
        engine
    }

    fn read_ahead(&mut self) {
        let bytes = self.data.get(self.next..).unwrap_or_default();
        let word = if let Some(word) = bytes.first_chunk() {
            *word
        } else {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            word
        };
        self.offset = self.offset << 32 | u64::from(u32::from_be_bytes(word));
        self.ahead += 32;
        self.next += 4;
    }

    /// Bits of the data that the standard's decoder would have read.
    fn position(&self) -> usize {
        self.next * 8 - self.ahead as usize
    }

    #[inline(always)]
    fn consume(&mut self, bits: u32) {
        self.ahead -= bits;
        if self.ahead < 8 {
            self.read_ahead();
        }
    }

    /// A decision with a context (9.3.3.2.1).
    #[inline(always)]
    fn decide(&mut self, context: &mut u8) -> bool {
        let state = usize::from(*context & 127);
        let lps = u32::from(RANGE_LPS[state >> 1][(self.range >> 6 & 3) as usize]);
        let mps = self.range - lps;
        let scaled = u64::from(mps) << self.ahead;
        let least = self.offset >= scaled;
        self.offset -= if least { scaled } else { 0 };
        self.range = if least { lps } else { mps };
        *context = NEXT[usize::from(least)][state];
        let bits = self.range.leading_zeros() - 23;
        self.range <<= bits;
        self.consume(bits);
        (state & 1 == 1) != least
    }

    /// 9.3.3.2.3
    #[inline(always)]
    fn bypass(&mut self) -> bool {
        // `codIOffset` takes one more bit instead of `codIRange` being halved.
        let scaled = u64::from(self.range) << (self.ahead - 1);
        let one = self.offset >= scaled;
        self.offset -= if one { scaled } else { 0 };
        self.consume(1);
        one
    }

    /// 9.3.3.2.4
    fn terminate(&mut self) -> bool {
        self.range -= 2;
        if self.offset >= u64::from(self.range) << self.ahead {
            return true;
        }
        if self.range < 256 {
            self.range <<= 1;
            self.consume(1);
        }
        false
    }

    /// How many coefficients are not zero, by their significance map; `increments` are those of the
    /// two flags.
    #[inline(always)]
    fn significance(
        &mut self,
        contexts: &mut [u8; 1024],
        cat: usize,
        count: usize,
        increments: impl Fn(usize) -> (usize, usize),
    ) -> usize {
        let mut coefficients = 0;
        for i in 0..count - 1 {
            let (significant, last) = increments(i);
            if self.decide(&mut contexts[(SIGNIFICANT[cat] + significant) & 1023]) {
                coefficients += 1;
                if self.decide(&mut contexts[(LAST[cat] + last) & 1023]) {
                    return coefficients;
                }
            }
        }
        coefficients + 1
    }

    /// An Exp-Golomb code of order `k` (9.3.2.3); `None` where no level or vector is as large.
    fn exp_golomb(&mut self, mut k: u32) -> Option<u32> {
        let mut value = 0u32;
        while self.bypass() {
            value += 1 << k;
            k += 1;
            if k > 24 {
                return None;
            }
        }
        let rest = (0..k).fold(0, |rest, _| rest << 1 | u32::from(self.bypass()));
        Some(value + rest)
    }
}

/// Reads the syntax elements of a slice's macroblocks.
pub struct Cabac<'a> {
    engine: Engine<'a>,
    contexts: [u8; 1024],
}

impl<'a> Cabac<'a> {
    /// Of byte aligned slice data. `init` is 0 for I slices, else `cabac_init_idc` plus 1.
    /// (9.3.1.1)
    pub fn new(data: &'a [u8], init: usize, slice_qp: i32) -> Option<Self> {
        let qp = slice_qp.clamp(0, 51);
        let contexts = CONTEXTS.get(init)?.map(|(m, n)| {
            let state = (((i32::from(m) * qp) >> 4) + i32::from(n)).clamp(1, 126) as u8;
            if state <= 63 {
                (63 - state) << 1
            } else {
                (state - 64) << 1 | 1
            }
        });
        Some(Self {
            engine: Engine::new(data, 0),
            contexts,
        })
    }

    #[inline(always)]
    fn decide(&mut self, context: usize) -> bool {
        self.engine.decide(&mut self.contexts[context & 1023])
    }

    /// The mb_type of I slices, or of an intra macroblock elsewhere: contexts after the first bin
    /// differ.
    fn intra_mb_type(&mut self, first: usize, [luma, chroma, more, mode]: [usize; 4]) -> u32 {
        if !self.decide(first) {
            return 0;
        }
        if self.engine.terminate() {
            return 25;
        }
        let mut mb_type = 1;
        if self.decide(luma) {
            mb_type += 12;
        }
        if self.decide(chroma) {
            mb_type += if self.decide(more) { 8 } else { 4 };
        }
        // The modes' bins have two contexts in I slices, one behind the other.
        let second = if first < 17 { mode + 1 } else { mode };
        mb_type += u32::from(self.decide(mode)) << 1;
        mb_type + u32::from(self.decide(second))
    }

    /// `mvd_lX` of a component (9.3.2.3 and 9.3.3.1.1.7): its magnitude, as far as contexts want
    /// it.
    fn mvd_component(&mut self, first: usize, sum: u32) -> Option<u8> {
        let increment = match sum {
            0..=2 => 0,
            3..=32 => 1,
            _ => 2,
        };
        if !self.decide(first + increment) {
            return Some(0);
        }
        let mut magnitude = 1;
        while magnitude < 9 {
            if !self.decide(first + 2 + magnitude.min(4)) {
                break;
            }
            magnitude += 1;
        }
        let rest = if magnitude == 9 {
            self.engine.exp_golomb(3)?
        } else {
            0
        };
        self.engine.bypass();
        // Two of these make a sum above 32 for certain.
        Some((magnitude as u32 + rest).min(64) as u8)
    }

    /// `residual_block_cabac()` after its coded_block_flag (7.3.5.3.3).
    fn coefficients(&mut self, cat: usize, count: usize) -> Option<()> {
        // A copy can stay in registers.
        let mut engine = self.engine;
        let contexts = &mut self.contexts;
        let coefficients = match cat {
            3 => engine.significance(contexts, cat, count, |i| {
                let increment = (i / (count / 4)).min(2);
                (increment, increment)
            }),
            5 | 9 | 13 => engine.significance(contexts, cat, count, |i| {
                (SIGNIFICANT_8X8[i].into(), LAST_8X8[i].into())
            }),
            _ => engine.significance(contexts, cat, count, |i| (i, i)),
        };
        let (mut ones, mut greater) = (0, 0);
        let most = if cat == 3 { 3 } else { 4 };
        for _ in 0..coefficients {
            let first = if greater > 0 { 0 } else { 4.min(1 + ones) };
            if engine.decide(&mut contexts[(ABS_LEVEL[cat] + first) & 1023]) {
                let context = &mut contexts[(ABS_LEVEL[cat] + 5 + most.min(greater)) & 1023];
                let mut prefix = 1;
                while prefix < 14 && engine.decide(context) {
                    prefix += 1;
                }
                if prefix == 14 {
                    engine.exp_golomb(0)?;
                }
                greater += 1;
            } else {
                ones += 1;
            }
            engine.bypass();
        }
        self.engine = engine;
        Some(())
    }
}

/// Contexts that count which of two neighbours fulfil a condition.
fn count(around: &Around, condition: impl Fn(&Macroblock) -> bool) -> usize {
    usize::from(condition(&around.left)) + usize::from(condition(&around.above))
}

impl Entropy for Cabac<'_> {
    fn skip(&mut self, kind: SliceKind, around: &Around) -> Option<bool> {
        let first = if kind == SliceKind::B { 24 } else { 11 };
        Some(self.decide(first + count(around, |mb| mb.available && !mb.skipped)))
    }

    fn end(&mut self) -> Option<bool> {
        let end = self.engine.terminate();
        (self.engine.position() <= self.engine.data.len() * 8).then_some(end)
    }

    fn mb_type(&mut self, kind: SliceKind, around: &Around) -> Option<u32> {
        Some(match kind {
            SliceKind::I => {
                let first = 3 + count(around, |mb| mb.available && !mb.i_nxn);
                self.intra_mb_type(first, [6, 7, 8, 9])
            }
            SliceKind::P => {
                if self.decide(14) {
                    5 + self.intra_mb_type(17, [18, 19, 19, 20])
                } else if self.decide(15) {
                    2 - u32::from(self.decide(17))
                } else {
                    3 * u32::from(self.decide(16))
                }
            }
            SliceKind::B => {
                if !self.decide(27 + count(around, |mb| mb.available && !mb.direct)) {
                    return Some(0);
                }
                if !self.decide(30) {
                    return Some(1 + u32::from(self.decide(32)));
                }
                let bins = (0..3).fold(u32::from(self.decide(31)), |bins, _| {
                    bins << 1 | u32::from(self.decide(32))
                });
                match bins {
                    0..8 => bins + 3,
                    13 => 23 + self.intra_mb_type(32, [33, 34, 34, 35]),
                    14 => 11,
                    15 => 22,
                    _ => (bins << 1 | u32::from(self.decide(32))) - 4,
                }
            }
        })
    }

    fn sub_mb_type(&mut self, kind: SliceKind) -> Option<u32> {
        if kind == SliceKind::P {
            return Some(if self.decide(21) {
                0
            } else if !self.decide(22) {
                1
            } else {
                3 - u32::from(self.decide(23))
            });
        }
        if !self.decide(36) {
            return Some(0);
        }
        if !self.decide(37) {
            return Some(1 + u32::from(self.decide(39)));
        }
        let mut sub_mb_type = 3;
        if self.decide(38) {
            if self.decide(39) {
                return Some(11 + u32::from(self.decide(39)));
            }
            sub_mb_type += 4;
        }
        sub_mb_type += u32::from(self.decide(39)) << 1;
        Some(sub_mb_type + u32::from(self.decide(39)))
    }

    fn transform_size_8x8_flag(&mut self, around: &Around) -> Option<bool> {
        Some(self.decide(399 + count(around, |mb| mb.transform_8x8)))
    }

    fn intra_pred_mode(&mut self) -> Option<()> {
        if !self.decide(68) {
            for _ in 0..3 {
                self.decide(69);
            }
        }
        Some(())
    }

    fn intra_chroma_pred_mode(&mut self, around: &Around) -> Option<u32> {
        let first = 64 + count(around, |mb| mb.chroma_predicted);
        Some(if !self.decide(first) {
            0
        } else if !self.decide(67) {
            1
        } else {
            2 + u32::from(self.decide(67))
        })
    }

    fn ref_idx(&mut self, around: &Around, list: usize, part: usize, most: u32) -> Option<u32> {
        let (left, above) = around.references(list, part);
        let mut context = 54 + usize::from(left) + 2 * usize::from(above);
        let mut ref_idx = 0;
        while self.decide(context) {
            ref_idx += 1;
            context = if ref_idx == 1 { 58 } else { 59 };
            if ref_idx > most {
                return None;
            }
        }
        Some(ref_idx)
    }

    fn mvd(&mut self, around: &Around, list: usize, x: usize, y: usize) -> Option<[u8; 2]> {
        let [horizontal, vertical] = around.mvd_sums(list, x, y);
        Some([
            self.mvd_component(40, horizontal)?,
            self.mvd_component(47, vertical)?,
        ])
    }

    fn coded_block_pattern(&mut self, around: &Around, _: bool, chroma: bool) -> Option<(u8, u8)> {
        let (left, above) = (&around.left, &around.above);
        // An absent macroblock counts as one with all its luma blocks coded.
        let clear = |pattern: u8, bit: u8| usize::from(pattern >> bit & 1 == 0);
        let mut luma = 0;
        for part in 0..4 {
            let a = match part & 1 {
                0 => clear(left.luma, part + 1),
                _ => clear(luma, part - 1),
            };
            let b = match part & 2 {
                0 => clear(above.luma, part + 2),
                _ => clear(luma, part - 2),
            };
            luma |= u8::from(self.decide(73 + a + 2 * b)) << part;
        }
        if !chroma {
            return Some((luma, 0));
        }
        let increment =
            |least: u8| usize::from(left.chroma >= least) + 2 * usize::from(above.chroma >= least);
        let chroma = if !self.decide(77 + increment(1)) {
            0
        } else {
            1 + u8::from(self.decide(81 + increment(2)))
        };
        Some((luma, chroma))
    }

    fn mb_qp_delta(&mut self, last_changed: bool) -> Option<i32> {
        let mut context = 60 + usize::from(last_changed);
        let mut mapped = 0;
        while self.decide(context) {
            mapped += 1;
            context = if mapped == 1 { 62 } else { 63 };
            if mapped > 256 {
                return None;
            }
        }
        Some(if mapped & 1 == 1 {
            (mapped + 1) >> 1
        } else {
            -(mapped >> 1)
        })
    }

    fn pcm(&mut self, bits: usize) -> Option<()> {
        let start = self.engine.position().div_ceil(8) + bits.div_ceil(8);
        self.engine = Engine::new(self.engine.data, start);
        Some(())
    }

    fn residual(&mut self, around: &mut Around, block: Residual) -> Option<()> {
        let cat = match (block.category, block.plane) {
            (Category::ChromaDc | Category::ChromaAc, _) | (_, 0) => block.category as usize,
            (Category::Luma8x8, plane) => 5 + 4 * plane,
            (category, plane) => 2 + 4 * plane + category as usize,
        };
        let coded = match block.category {
            // Only with chroma coded like luma is there a flag (7.4.5.3.3).
            Category::Luma8x8 if !block.flagged => true,
            _ => {
                let (left, above) = around.coded(block);
                let increment = usize::from(left) + 2 * usize::from(above);
                self.decide(CODED_BLOCK_FLAG[cat] + increment)
            }
        };
        if coded {
            around.current.set_coded(block);
            self.coefficients(cat, block.count)?;
        }
        Some(())
    }
}

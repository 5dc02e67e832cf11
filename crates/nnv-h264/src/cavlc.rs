// SPDX-License-Identifier: MPL-2.0
//! Context-adaptive variable-length coding (ITU-T H.264, 9.1 and 9.2).

use super::macroblock::{Around, Category, Entropy, Residual, SliceKind};
use super::tables::{
    CODED_BLOCK_PATTERN, CODED_BLOCK_PATTERN_LUMA, COEFF_TOKEN, COEFF_TOKEN_DC_420,
    COEFF_TOKEN_DC_422, Code, RUN_BEFORE, TOTAL_ZEROS, TOTAL_ZEROS_DC_420, TOTAL_ZEROS_DC_422,
};

/// Length of a code and what it means, by the zeros before its first 1 and the 3 bits behind that:
/// no code has more. Length 0 where there is none.
type Lookup = [(u8, u8); 128];

/// Of codes whose meanings are their indices.
const fn lookup(codes: &[Code]) -> Lookup {
    let mut found = [(0, 0); 128];
    let mut meaning = 0;
    while meaning < codes.len() {
        let (length, bits) = codes[meaning];
        let mut i = 0;
        while length > 0 && i < 128 {
            let word = (8 | i as u32 & 7) << 28 >> (i >> 3);
            if word >> (32 - length) == bits as u32 {
                found[i] = (length, meaning as u8);
            }
            i += 1;
        }
        meaning += 1;
    }
    found
}

const fn lookups<const N: usize>(codes: [&[Code]; N]) -> [Lookup; N] {
    let mut all = [[(0, 0); 128]; N];
    let mut i = 0;
    while i < N {
        all[i] = lookup(codes[i]);
        i += 1;
    }
    all
}

/// By the class of `nC`; then for those of -1 and -2. They mean `4 * TotalCoeff + TrailingOnes`.
static COEFF_TOKENS: [Lookup; 5] = lookups([
    COEFF_TOKEN[0].as_flattened(),
    COEFF_TOKEN[1].as_flattened(),
    COEFF_TOKEN[2].as_flattened(),
    COEFF_TOKEN_DC_420.as_flattened(),
    COEFF_TOKEN_DC_422.as_flattened(),
]);
static ZEROS: [Lookup; 15] = lookups(TOTAL_ZEROS);
static ZEROS_DC_420: [Lookup; 3] = lookups(TOTAL_ZEROS_DC_420);
static ZEROS_DC_422: [Lookup; 7] = lookups(TOTAL_ZEROS_DC_422);
static RUNS: [Lookup; 7] = lookups(RUN_BEFORE);

/// Reads the syntax elements of a slice's macroblocks. Behind the end of its data it reads zeros,
/// and says so when asked: to ask once for each macroblock is enough, as nothing in a macroblock is
/// unbounded.
pub struct Cavlc<'a> {
    data: &'a [u8],
    /// In bits.
    position: usize,
    /// Where the trailing bits begin.
    stop: usize,
    /// What is left of an `mb_skip_run`.
    run: Option<u32>,
}

impl<'a> Cavlc<'a> {
    /// `position`: of the slice data in the payload, in bits. `None` where there are no trailing
    /// bits.
    pub fn new(data: &'a [u8], position: usize) -> Option<Self> {
        let last = data.iter().rposition(|&byte| byte != 0)?;
        Some(Self {
            data,
            position,
            stop: 8 * last + 7 - data[last].trailing_zeros() as usize,
            run: None,
        })
    }

    /// The next 32 bits.
    #[inline(always)]
    fn peek(&self) -> u32 {
        let bytes = self.data.get(self.position >> 3..).unwrap_or_default();
        let word = if let Some(word) = bytes.first_chunk() {
            *word
        } else {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            word
        };
        (u64::from_be_bytes(word) << (self.position & 7) >> 32) as u32
    }

    /// `u(n)`, of up to 32 bits.
    #[inline(always)]
    fn bits(&mut self, n: u32) -> u32 {
        let value = (u64::from(self.peek()) << n >> 32) as u32;
        self.position += n as usize;
        value
    }

    fn bit(&mut self) -> bool {
        self.bits(1) == 1
    }

    /// `ue(v)`; nothing in slice data has more than 20 bits, the number of macroblocks least of
    /// all.
    #[inline(always)]
    fn ue(&mut self) -> Option<u32> {
        let zeros = self.peek().leading_zeros();
        if zeros > 20 {
            return None;
        }
        self.position += zeros as usize;
        Some(self.bits(zeros + 1) - 1)
    }

    /// `se(v)`
    #[inline(always)]
    fn se(&mut self) -> Option<i32> {
        let k = self.ue()? as i32;
        Some(if k & 1 == 1 { (k + 1) >> 1 } else { -(k >> 1) })
    }

    #[inline(always)]
    fn code(&mut self, table: &Lookup) -> Option<u8> {
        let next = self.peek();
        let zeros = next.leading_zeros().min(15);
        let (length, meaning) = table[(zeros << 3 | next << zeros << 1 >> 29) as usize];
        self.position += usize::from(length);
        (length > 0).then_some(meaning)
    }

    /// `coeff_token` (9.2.1): `TotalCoeff` and `TrailingOnes`.
    fn coeff_token(&mut self, around: &Around, block: Residual) -> Option<(usize, usize)> {
        let class = match block.category {
            Category::ChromaDc if block.count == 4 => 3,
            Category::ChromaDc => 4,
            _ => match around.total(block) {
                0..2 => 0,
                2..4 => 1,
                4..8 => 2,
                _ => {
                    // One code of 6 bits stands for none at all, the others for what they say.
                    let (total, ones) = match self.bits(6) as usize {
                        3 => (0, 0),
                        bits => (1 + (bits >> 2), bits & 3),
                    };
                    return (ones <= total).then_some((total, ones));
                }
            },
        };
        let token = usize::from(self.code(&COEFF_TOKENS[class])?);
        Some((token >> 2, token & 3))
    }

    /// Reads past the levels that are not trailing ones (9.2.2).
    fn levels(&mut self, total: usize, ones: usize) -> Option<()> {
        let mut suffix_length = if total > 10 && ones < 3 { 1 } else { 0 };
        for i in ones..total {
            let prefix = self.peek().leading_zeros();
            // Longer ones would be levels of more bits than samples may have.
            if prefix > 28 {
                return None;
            }
            self.position += prefix as usize + 1;
            let size = match prefix {
                14 if suffix_length == 0 => 4,
                15.. => prefix - 3,
                _ => suffix_length,
            };
            let mut level_code = (prefix.min(15) << suffix_length) + self.bits(size);
            if prefix >= 15 && suffix_length == 0 {
                level_code += 15;
            }
            if prefix >= 16 {
                level_code += (1 << (prefix - 3)) - 4096;
            }
            if i == ones && ones < 3 {
                level_code += 2;
            }
            let magnitude = (level_code + 2) >> 1;
            if suffix_length == 0 {
                suffix_length = 1;
            }
            if suffix_length < 6 && magnitude > 3 << (suffix_length - 1) {
                suffix_length += 1;
            }
        }
        Some(())
    }

    /// `residual_block_cavlc()` (7.3.5.3.2): `TotalCoeff`.
    fn coefficients(&mut self, around: &Around, block: Residual) -> Option<u8> {
        let (total, ones) = self.coeff_token(around, block)?;
        if total == 0 {
            return Some(0);
        }
        // The trailing ones have but signs.
        self.position += ones;
        self.levels(total, ones)?;
        let spare = block.count.checked_sub(total)?;
        if spare > 0 {
            let table = match block.count {
                4 => &ZEROS_DC_420[..],
                8 => &ZEROS_DC_422[..],
                _ => &ZEROS[..],
            };
            let mut zeros = usize::from(self.code(table.get(total - 1)?)?);
            if zeros > spare {
                return None;
            }
            for _ in 1..total {
                if zeros == 0 {
                    break;
                }
                let run = self.code(&RUNS[zeros.min(7) - 1])?;
                zeros = zeros.checked_sub(run.into())?;
            }
        }
        Some(total as u8)
    }
}

impl Entropy for Cavlc<'_> {
    fn skip(&mut self, _: SliceKind, _: &Around) -> Option<bool> {
        let run = match self.run {
            Some(run) => run,
            None => self.ue()?,
        };
        self.run = run.checked_sub(1);
        Some(run > 0)
    }

    fn end(&mut self) -> Option<bool> {
        if self.position > self.stop {
            return None;
        }
        Some(self.position == self.stop && self.run.is_none_or(|run| run == 0))
    }

    fn mb_type(&mut self, _: SliceKind, _: &Around) -> Option<u32> {
        self.ue()
    }

    fn sub_mb_type(&mut self, _: SliceKind) -> Option<u32> {
        self.ue()
    }

    fn transform_size_8x8_flag(&mut self, _: &Around) -> Option<bool> {
        Some(self.bit())
    }

    fn intra_pred_mode(&mut self) -> Option<()> {
        self.position += if self.bit() { 0 } else { 3 };
        Some(())
    }

    fn intra_chroma_pred_mode(&mut self, _: &Around) -> Option<u32> {
        self.ue().filter(|&mode| mode < 4)
    }

    fn ref_idx(&mut self, _: &Around, _: usize, _: usize, most: u32) -> Option<u32> {
        // te(v)
        match most {
            1 => Some(u32::from(!self.bit())),
            _ => self.ue(),
        }
    }

    fn mvd(&mut self, _: &Around, _: usize, _: usize, _: usize) -> Option<[u8; 2]> {
        self.ue()?;
        self.ue()?;
        // There are no contexts to ask for it.
        Some([0; 2])
    }

    fn coded_block_pattern(&mut self, _: &Around, intra: bool, chroma: bool) -> Option<(u8, u8)> {
        let number = self.ue()? as usize;
        let inter = usize::from(!intra);
        let pattern = *match chroma {
            true => CODED_BLOCK_PATTERN[inter].get(number)?,
            false => CODED_BLOCK_PATTERN_LUMA[inter].get(number)?,
        };
        Some((pattern & 15, pattern >> 4))
    }

    fn mb_qp_delta(&mut self, _: bool) -> Option<i32> {
        self.se()
    }

    fn pcm(&mut self, bits: usize) -> Option<()> {
        self.position = self.position.next_multiple_of(8) + bits;
        Some(())
    }

    fn residual(&mut self, around: &mut Around, block: Residual) -> Option<()> {
        if block.category == Category::Luma8x8 {
            // Each fourth coefficient is in the same one of four blocks (7.3.5.3.2).
            for sub in 0..4 {
                let quarter = Residual {
                    category: Category::Luma4x4,
                    x: block.x + (sub & 1),
                    y: block.y + (sub >> 1),
                    count: 16,
                    ..block
                };
                self.residual(around, quarter)?;
            }
            return Some(());
        }
        let total = self.coefficients(around, block)?;
        if !matches!(block.category, Category::Dc16x16 | Category::ChromaDc) {
            around.current.totals[block.plane][4 * block.y + block.x] = total;
        }
        Some(())
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Slice data and macroblocks (ITU-T H.264, 7.3.4 and 7.3.5), whatever the entropy coding.

use super::Block;

/// What a slice may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceKind {
    I,
    P,
    B,
}

/// What parameter sets and the slice header say of a slice's macroblocks.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    pub kind: SliceKind,
    /// Macroblocks in a row, and in the picture.
    pub width: usize,
    pub size: usize,
    /// `SliceQP_Y`
    pub qp: i32,
    /// `QpBdOffset_Y`
    pub qp_offset: i32,
    pub bit_depth_luma: usize,
    pub bit_depth_chroma: usize,
    /// `ChromaArrayType`
    pub chroma: u8,
    pub transform_8x8_mode: bool,
    pub direct_8x8_inference: bool,
    /// The largest `ref_idx` of each list.
    pub most_ref_idx: [u32; 2],
}

/// What a residual block is, in the order of `ctxBlockCat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    Dc16x16,
    Ac16x16,
    Luma4x4,
    ChromaDc,
    ChromaAc,
    Luma8x8,
}

/// A residual block.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    pub category: Category,
    /// 0 of Y, 1 of Cb, 2 of Cr.
    pub plane: usize,
    /// Place in 4x4 blocks.
    pub x: usize,
    pub y: usize,
    /// Number of coefficients.
    pub count: usize,
    /// Whether CABAC has a coded_block_flag for 8x8 blocks.
    pub flagged: bool,
}

/// What is remembered of a macroblock for those that come after it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Macroblock {
    /// In the same slice.
    pub available: bool,
    pub intra: bool,
    pub skipped: bool,
    /// B_Skip or B_Direct_16x16.
    pub direct: bool,
    pub i_nxn: bool,
    pub pcm: bool,
    pub transform_8x8: bool,
    /// `intra_chroma_pred_mode` is not 0.
    pub chroma_predicted: bool,
    /// `CodedBlockPatternLuma` and `CodedBlockPatternChroma`.
    pub luma: u8,
    pub chroma: u8,
    /// Which planes have coded DC coefficients, as bits.
    pub dc: u8,
    /// `coded_block_flag` by plane, with a bit for each 4x4 block at `4 * y + x`.
    pub coded: [u16; 3],
    /// `total_coeff` by plane and 4x4 block.
    pub totals: [[u8; 16]; 3],
    /// By list: bits of the 8x8 blocks whose `ref_idx` is not 0.
    pub references: [u8; 2],
    /// By list and 4x4 block: magnitude of `mvd`, up to what contexts can tell apart.
    pub mvd: [[[u8; 2]; 16]; 2],
}

impl Macroblock {
    /// One outside of the slice.
    fn absent() -> Self {
        Self {
            luma: 15,
            ..Self::default()
        }
    }

    fn pcm() -> Self {
        Self {
            available: true,
            intra: true,
            pcm: true,
            luma: 15,
            chroma: 2,
            dc: 7,
            coded: [!0; 3],
            totals: [[16; 16]; 3],
            ..Self::default()
        }
    }

    pub fn set_coded(&mut self, block: Residual) {
        let bits = match block.category {
            Category::Dc16x16 | Category::ChromaDc => {
                self.dc |= 1 << block.plane;
                return;
            }
            Category::Luma8x8 => 0x33,
            _ => 1,
        };
        self.coded[block.plane] |= bits << (4 * block.y + block.x);
    }
}

/// A macroblock being read, and its neighbours A and B.
#[derive(Clone, Debug)]
pub struct Around {
    pub current: Macroblock,
    pub left: Macroblock,
    pub above: Macroblock,
    /// The last row and column of chroma AC blocks.
    pub chroma_row: usize,
}

impl Around {
    /// Absent neighbours count as coded for intra macroblocks, as not coded for others
    /// (9.3.3.1.1.9).
    fn set_intra(&mut self) {
        self.current.intra = true;
        for neighbour in [&mut self.left, &mut self.above] {
            if !neighbour.available {
                neighbour.dc = 7;
                neighbour.coded = [!0; 3];
            }
        }
    }

    /// The last column and row of 4x4 blocks.
    fn last(&self, block: Residual) -> (usize, usize) {
        match block.category {
            Category::ChromaAc => (1, self.chroma_row),
            _ => (3, 3),
        }
    }

    /// `coded_block_flag` of the blocks to the left and above (9.3.3.1.1.9).
    pub fn coded(&self, block: Residual) -> (bool, bool) {
        let Residual { plane, x, y, .. } = block;
        if matches!(block.category, Category::Dc16x16 | Category::ChromaDc) {
            let dc = |mb: &Macroblock| mb.dc >> plane & 1 == 1;
            return (dc(&self.left), dc(&self.above));
        }
        let (column, row) = self.last(block);
        let at = |mb: &Macroblock, x, y| mb.coded[plane] >> (4 * y + x) & 1 == 1;
        // An 8x8 block does not see the flags of smaller ones.
        let seen = |mb: &Macroblock| {
            let whole = !mb.available || mb.transform_8x8 || mb.pcm;
            block.category != Category::Luma8x8 || whole
        };
        let left = match x {
            0 => seen(&self.left) && at(&self.left, column, y),
            _ => at(&self.current, x - 1, y),
        };
        let above = match y {
            0 => seen(&self.above) && at(&self.above, x, row),
            _ => at(&self.current, x, y - 1),
        };
        (left, above)
    }

    /// `nC` (9.2.1)
    pub fn total(&self, block: Residual) -> u8 {
        let Residual { plane, x, y, .. } = block;
        let (column, row) = self.last(block);
        let left = match x {
            0 => (self.left.available).then_some(self.left.totals[plane][4 * y + column]),
            _ => Some(self.current.totals[plane][4 * y + x - 1]),
        };
        let above = match y {
            0 => (self.above.available).then_some(self.above.totals[plane][4 * row + x]),
            _ => Some(self.current.totals[plane][4 * (y - 1) + x]),
        };
        match (left, above) {
            (Some(left), Some(above)) => (left + above).div_ceil(2),
            (one, other) => one.or(other).unwrap_or(0),
        }
    }

    /// Whether the 8x8 blocks to the left and above have a `ref_idx` other than 0 (9.3.3.1.1.6).
    pub fn references(&self, list: usize, part: usize) -> (bool, bool) {
        let at = |mb: &Macroblock, part| mb.references[list] >> part & 1 == 1;
        let left = match part & 1 {
            0 => at(&self.left, part + 1),
            _ => at(&self.current, part - 1),
        };
        let above = match part & 2 {
            0 => at(&self.above, part + 2),
            _ => at(&self.current, part - 2),
        };
        (left, above)
    }

    /// Sums of the neighbours' `mvd` components (9.3.3.1.1.7).
    pub fn mvd_sums(&self, list: usize, x: usize, y: usize) -> [u32; 2] {
        let left = match x {
            0 => self.left.mvd[list][4 * y + 3],
            _ => self.current.mvd[list][4 * y + x - 1],
        };
        let above = match y {
            0 => self.above.mvd[list][12 + x],
            _ => self.current.mvd[list][4 * (y - 1) + x],
        };
        [0, 1].map(|i| u32::from(left[i]) + u32::from(above[i]))
    }
}

/// Syntax elements as they are coded (7.3.4 and 7.3.5). All are `None` where the data are damaged.
pub trait Entropy {
    /// `mb_skip_flag`, or the same from `mb_skip_run`.
    fn skip(&mut self, kind: SliceKind, around: &Around) -> Option<bool>;
    /// Whether the slice ends behind a macroblock.
    fn end(&mut self) -> Option<bool>;
    fn mb_type(&mut self, kind: SliceKind, around: &Around) -> Option<u32>;
    fn sub_mb_type(&mut self, kind: SliceKind) -> Option<u32>;
    fn transform_size_8x8_flag(&mut self, around: &Around) -> Option<bool>;
    /// `prev_intra4x4_pred_mode_flag` and `rem_intra4x4_pred_mode`, or those of 8x8 blocks.
    fn intra_pred_mode(&mut self) -> Option<()>;
    fn intra_chroma_pred_mode(&mut self, around: &Around) -> Option<u32>;
    /// Of the partition that begins with the 8x8 block `part`; `most` is the largest value.
    fn ref_idx(&mut self, around: &Around, list: usize, part: usize, most: u32) -> Option<u32>;
    /// Magnitudes for `Macroblock::mvd`, of the partition that begins with the 4x4 block at `x` and
    /// `y`.
    fn mvd(&mut self, around: &Around, list: usize, x: usize, y: usize) -> Option<[u8; 2]>;
    /// Patterns of luma and chroma; `chroma` where there is one of chroma.
    fn coded_block_pattern(
        &mut self,
        around: &Around,
        intra: bool,
        chroma: bool,
    ) -> Option<(u8, u8)>;
    /// `last_changed`: the macroblock before had one other than 0.
    fn mb_qp_delta(&mut self, last_changed: bool) -> Option<i32>;
    /// Skips the alignment and samples of so many bits.
    fn pcm(&mut self, bits: usize) -> Option<()>;
    fn residual(&mut self, around: &mut Around, block: Residual) -> Option<()>;
}

/// A part of a macroblock with vectors of its own, in units of 4x4 blocks; `lists` has a bit for
/// each list.
#[derive(Clone, Copy, Default)]
struct Partition {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
    lists: u8,
    /// Size of the sub-macroblock partitions.
    step: (usize, usize),
}

const L0: u8 = 1;
const L1: u8 = 2;
const BI: u8 = 3;
/// Lists of both partitions, from B_L0_L0_16x8 on, the same for the one of 8x16 (table 7-14).
const PAIRS: [[u8; 2]; 9] = [
    [L0, L0],
    [L1, L1],
    [L0, L1],
    [L1, L0],
    [L0, BI],
    [L1, BI],
    [BI, L0],
    [BI, L1],
    [BI, BI],
];
/// Lists and partitions of sub-macroblocks (tables 7-17 and 7-18); direct ones have no vectors.
const SUB_P: [(u8, (usize, usize)); 4] = [(L0, (2, 2)), (L0, (2, 1)), (L0, (1, 2)), (L0, (1, 1))];
const SUB_B: [(u8, (usize, usize)); 13] = [
    (0, (1, 1)),
    (L0, (2, 2)),
    (L1, (2, 2)),
    (BI, (2, 2)),
    (L0, (2, 1)),
    (L0, (1, 2)),
    (L1, (2, 1)),
    (L1, (1, 2)),
    (BI, (2, 1)),
    (BI, (1, 2)),
    (L0, (1, 1)),
    (L1, (1, 1)),
    (BI, (1, 1)),
];

/// Reads the macroblocks of a slice.
pub struct SliceData<'a, E> {
    slice: Slice,
    entropy: E,
    /// The row above, with what is already read of the current one.
    row: &'a mut [Macroblock],
    /// Where contexts find what they depend on.
    around: Around,
    qp: i32,
    /// The macroblock before had an `mb_qp_delta` other than 0.
    changed: bool,
}

impl<'a, E: Entropy> SliceData<'a, E> {
    /// `row` is as wide as the picture; what is in it does not matter.
    pub fn new(slice: Slice, entropy: E, row: &'a mut [Macroblock]) -> Self {
        Self {
            slice,
            entropy,
            row,
            around: Around {
                current: Macroblock::default(),
                left: Macroblock::absent(),
                above: Macroblock::absent(),
                chroma_row: if slice.chroma == 2 { 3 } else { 1 },
            },
            qp: slice.qp,
            changed: false,
        }
    }

    /// Adds the slice's macroblocks to those before it in the picture.
    pub fn read(mut self, blocks: &mut Vec<Block>) -> Option<()> {
        let (width, first) = (self.slice.width, blocks.len());
        loop {
            let address = blocks.len();
            if address >= self.slice.size {
                return None;
            }
            let x = address % width;
            self.around.left = match x {
                0 => Macroblock::absent(),
                _ if address == first => Macroblock::absent(),
                _ => self.around.current,
            };
            self.around.above = match address.checked_sub(width) {
                Some(above) if above >= first => *self.row.get(x)?,
                _ => Macroblock::absent(),
            };
            self.around.current = Macroblock {
                available: true,
                ..Macroblock::default()
            };
            let kind = self.slice.kind;
            if kind != SliceKind::I && self.entropy.skip(kind, &self.around)? {
                self.around.current.skipped = true;
                self.around.current.direct = kind == SliceKind::B;
                self.changed = false;
                blocks.push(self.block(self.qp, false));
            } else {
                blocks.push(self.macroblock()?);
            }
            *self.row.get_mut(x)? = self.around.current;
            if self.entropy.end()? {
                return Some(());
            }
        }
    }

    fn block(&self, qp: i32, coded: bool) -> Block {
        Block {
            quantizer: qp as i8,
            coded,
            skipped: self.around.current.skipped,
            intra: self.around.current.intra,
        }
    }

    /// `macroblock_layer()`
    fn macroblock(&mut self) -> Option<Block> {
        let kind = self.slice.kind;
        let mb_type = self.entropy.mb_type(kind, &self.around)?;
        let intra = match kind {
            SliceKind::I => 0,
            SliceKind::P => 5,
            SliceKind::B => 23,
        };
        if let Some(mb_type) = mb_type.checked_sub(intra) {
            self.around.set_intra();
            match mb_type {
                0 => self.intra_nxn(),
                1..=24 => self.intra_16x16(mb_type - 1),
                25 => self.pcm(),
                _ => None,
            }
        } else {
            self.inter(mb_type)
        }
    }

    fn pcm(&mut self) -> Option<Block> {
        let chroma = match self.slice.chroma {
            0 => 0,
            1 => 128,
            2 => 256,
            _ => 512,
        };
        let luma_bits = 256 * self.slice.bit_depth_luma;
        self.entropy
            .pcm(luma_bits + chroma * self.slice.bit_depth_chroma)?;
        self.around.current = Macroblock::pcm();
        self.changed = false;
        // Without quantization `QP'_Y` is 0; the next macroblock goes on from the one before.
        Some(self.block(-self.slice.qp_offset, true))
    }

    fn intra_chroma_pred_mode(&mut self) -> Option<()> {
        if matches!(self.slice.chroma, 1 | 2) {
            let mode = self.entropy.intra_chroma_pred_mode(&self.around)?;
            self.around.current.chroma_predicted = mode != 0;
        }
        Some(())
    }

    fn intra_nxn(&mut self) -> Option<Block> {
        self.around.current.i_nxn = true;
        if self.slice.transform_8x8_mode {
            self.around.current.transform_8x8 =
                self.entropy.transform_size_8x8_flag(&self.around)?;
        }
        let modes = if self.around.current.transform_8x8 {
            4
        } else {
            16
        };
        for _ in 0..modes {
            self.entropy.intra_pred_mode()?;
        }
        self.intra_chroma_pred_mode()?;
        self.coded_block_pattern()?;
        self.coded(false)
    }

    /// `index`: the part of mb_type that tells the prediction mode and what is coded (table 7-11).
    fn intra_16x16(&mut self, index: u32) -> Option<Block> {
        self.intra_chroma_pred_mode()?;
        self.around.current.luma = if index >= 12 { 15 } else { 0 };
        self.around.current.chroma = (index / 4 % 3) as u8;
        if self.around.current.chroma != 0 && !matches!(self.slice.chroma, 1 | 2) {
            return None;
        }
        self.coded(true)
    }

    fn inter(&mut self, mb_type: u32) -> Option<Block> {
        let whole = Partition {
            width: 4,
            height: 4,
            step: (4, 4),
            ..Partition::default()
        };
        let mut partitions = [whole; 4];
        let mut transform_8x8 = self.slice.transform_8x8_mode;
        let (count, pair) = match (self.slice.kind, mb_type) {
            (SliceKind::P, 0) => (1, [L0; 2]),
            (SliceKind::P, 1 | 2) => (2, [L0; 2]),
            (SliceKind::B, 0) => {
                self.around.current.direct = true;
                transform_8x8 &= self.slice.direct_8x8_inference;
                (0, [0; 2])
            }
            (SliceKind::B, 1..=3) => (1, [mb_type as u8; 2]),
            (SliceKind::B, 4..=21) => (2, *PAIRS.get(mb_type as usize / 2 - 2)?),
            _ => (4, [0; 2]),
        };
        match count {
            1 => partitions[0].lists = pair[0],
            2 => {
                // P_L0_L0_16x8 is odd, B_L0_L0_16x8 is even.
                let wide = (self.slice.kind == SliceKind::P) == (mb_type % 2 == 1);
                let (width, height) = if wide { (4, 2) } else { (2, 4) };
                for (i, partition) in partitions[..2].iter_mut().enumerate() {
                    *partition = Partition {
                        x: i * (4 - width),
                        y: i * (4 - height),
                        width,
                        height,
                        lists: pair[i],
                        step: (width, height),
                    };
                }
            }
            4 => {
                for (i, partition) in partitions.iter_mut().enumerate() {
                    let sub = self.entropy.sub_mb_type(self.slice.kind)? as usize;
                    let (lists, step) = *match self.slice.kind {
                        SliceKind::B => SUB_B.get(sub)?,
                        _ => SUB_P.get(sub)?,
                    };
                    transform_8x8 &= match lists {
                        0 => self.slice.direct_8x8_inference,
                        _ => step == (2, 2),
                    };
                    *partition = Partition {
                        x: 2 * (i & 1),
                        y: i & 2,
                        width: 2,
                        height: 2,
                        lists,
                        step,
                    };
                }
            }
            _ => {}
        }
        // In P_8x8ref0 all are 0.
        let referring = self.slice.kind == SliceKind::B || mb_type != 4;
        self.motion(&partitions[..count], referring)?;
        self.coded_block_pattern()?;
        if transform_8x8 && self.around.current.luma != 0 {
            self.around.current.transform_8x8 =
                self.entropy.transform_size_8x8_flag(&self.around)?;
        }
        self.coded(false)
    }

    /// `ref_idx_lX` and `mvd_lX` of `mb_pred()` and `sub_mb_pred()`.
    fn motion(&mut self, partitions: &[Partition], referring: bool) -> Option<()> {
        let uses = |partition: &&Partition, list: usize| partition.lists >> list & 1 == 1;
        for list in 0..2 {
            let most = self.slice.most_ref_idx[list];
            if most == 0 || !referring {
                continue;
            }
            for partition in partitions.iter().filter(|p| uses(p, list)) {
                let part = partition.y + partition.x / 2;
                let ref_idx = self.entropy.ref_idx(&self.around, list, part, most)?;
                if ref_idx > most {
                    return None;
                }
                if ref_idx > 0 {
                    let mut bits = 1 << part;
                    if partition.width == 4 {
                        bits |= bits << 1;
                    }
                    if partition.height == 4 {
                        bits |= bits << 2;
                    }
                    self.around.current.references[list] |= bits;
                }
            }
        }
        for list in 0..2 {
            for partition in partitions.iter().filter(|p| uses(p, list)) {
                let (columns, rows) = partition.step;
                for y in (partition.y..partition.y + partition.height).step_by(rows) {
                    for x in (partition.x..partition.x + partition.width).step_by(columns) {
                        let mvd = self.entropy.mvd(&self.around, list, x, y)?;
                        let blocks = &mut self.around.current.mvd[list];
                        for row in blocks.chunks_exact_mut(4).skip(y).take(rows) {
                            row[x..x + columns].fill(mvd);
                        }
                    }
                }
            }
        }
        Some(())
    }

    fn coded_block_pattern(&mut self) -> Option<()> {
        let chroma = matches!(self.slice.chroma, 1 | 2);
        let current = &self.around.current;
        let (luma, chroma) =
            self.entropy
                .coded_block_pattern(&self.around, current.intra, chroma)?;
        self.around.current.luma = luma;
        self.around.current.chroma = chroma;
        Some(())
    }

    /// The end of a macroblock: `mb_qp_delta` and `residual()`, if there are any.
    fn coded(&mut self, intra_16x16: bool) -> Option<Block> {
        let Macroblock { luma, chroma, .. } = self.around.current;
        if luma == 0 && chroma == 0 && !intra_16x16 {
            self.changed = false;
            return Some(self.block(self.qp, false));
        }
        let delta = self.entropy.mb_qp_delta(self.changed)?;
        self.changed = delta != 0;
        // 7.4.5
        let offset = self.slice.qp_offset;
        if !(-26 - offset / 2..=25 + offset / 2).contains(&delta) {
            return None;
        }
        self.qp = (self.qp + delta + 52 + 2 * offset) % (52 + offset) - offset;

        let planes = if self.slice.chroma == 3 { 3 } else { 1 };
        for plane in 0..planes {
            self.residual_luma(plane, intra_16x16)?;
        }
        if chroma != 0 {
            self.residual_chroma(chroma == 2)?;
        }
        Some(self.block(self.qp, luma != 0 || intra_16x16))
    }

    /// `residual_luma()`, also of chroma that is coded like luma.
    fn residual_luma(&mut self, plane: usize, intra_16x16: bool) -> Option<()> {
        let mut block = Residual {
            category: Category::Dc16x16,
            plane,
            x: 0,
            y: 0,
            count: 16,
            flagged: self.slice.chroma == 3,
        };
        if intra_16x16 {
            self.entropy.residual(&mut self.around, block)?;
        }
        let transform_8x8 = self.around.current.transform_8x8;
        (block.category, block.count) = match (intra_16x16, transform_8x8) {
            (true, _) => (Category::Ac16x16, 15),
            (_, true) => (Category::Luma8x8, 64),
            _ => (Category::Luma4x4, 16),
        };
        let luma = self.around.current.luma;
        for part in (0..4).filter(|part| luma >> part & 1 == 1) {
            let (x, y) = (2 * (part & 1), part & 2);
            for sub in 0..if transform_8x8 { 1 } else { 4 } {
                (block.x, block.y) = (x + (sub & 1), y + (sub >> 1));
                self.entropy.residual(&mut self.around, block)?;
            }
        }
        Some(())
    }

    fn residual_chroma(&mut self, ac: bool) -> Option<()> {
        let mut block = Residual {
            category: Category::ChromaDc,
            plane: 0,
            x: 0,
            y: 0,
            count: 4 * usize::from(self.slice.chroma),
            flagged: true,
        };
        for plane in 1..3 {
            block.plane = plane;
            self.entropy.residual(&mut self.around, block)?;
        }
        if ac {
            (block.category, block.count) = (Category::ChromaAc, 15);
            for plane in 1..3 {
                for index in 0..4 * usize::from(self.slice.chroma) {
                    (block.plane, block.x, block.y) = (plane, index & 1, index >> 1);
                    self.entropy.residual(&mut self.around, block)?;
                }
            }
        }
        Some(())
    }
}

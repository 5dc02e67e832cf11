// SPDX-License-Identifier: MPL-2.0
//! Coding of motion fields (normative): written once for encoder, decoder and bit counter.
//!
//! A flag per 64×64 region says that every block in it is its likeliest candidate, so still or
//! evenly moving content costs next to nothing. Other blocks merge with a candidate, carry vectors
//! of their own, or split into four cells that do either.

use super::candidates::{MAX_CANDIDATES, Neighbourhood, Place};
use super::field::{Leaf, Mode, MotionField, Mv, is_split};
use crate::entropy::{BinaryCoder, BitCounter, Decoder, Encoder, Prob, SIntModel};

/// Blocks per side of a region: 64 luma samples.
const REGION: usize = 4;

/// How a block was coded: the context of its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Merge,
    New,
    Split,
}

/// Adaptive state of motion coding. Fresh at key frames; a frame starts from the state in which
/// its reference frame ended.
#[derive(Debug, Clone)]
pub struct MotionContexts {
    region: [Prob; 3],
    merge: [Prob; 9],
    split: [Prob; 9],
    /// By whether the leaf is a cell, then by place in the list.
    index: [[Prob; MAX_CANDIDATES - 1]; 2],
    cell_merge: [Prob; 3],
    bi: [Prob; 3],
    second: [Prob; 3],
    /// By reference and spread of the neighbours.
    x: [[SIntModel<0>; 3]; 2],
    /// The same, and whether the horizontal difference was zero.
    y: [[[SIntModel<0>; 2]; 3]; 2],
}

impl Default for MotionContexts {
    fn default() -> Self {
        // Starting points near what natural video settles at; they adapt within a few blocks.
        Self {
            region: [Prob::new(6000), Prob::new(32000), Prob::new(56000)],
            merge: [
                50000, 38000, 36000, 38000, 26000, 24000, 36000, 24000, 22000,
            ]
            .map(Prob::new),
            split: [
                16000, 20000, 32000, 20000, 20000, 34000, 32000, 34000, 44000,
            ]
            .map(Prob::new),
            index: [[32000, 32000, 32000, 30000, 30000].map(Prob::new); 2],
            cell_merge: [36000, 30000, 24000].map(Prob::new),
            bi: [12000, 26000, 44000].map(Prob::new),
            second: [10000, 26000, 44000].map(Prob::new),
            x: Default::default(),
            y: Default::default(),
        }
    }
}

impl MotionContexts {
    fn index<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        cell: bool,
        len: usize,
        index: usize,
    ) -> usize {
        let mut i = 0;
        while i + 1 < len && coder.code(&mut self.index[usize::from(cell)][i], index > i) {
            i += 1;
        }
        i
    }

    /// A leaf that is no candidate: its mode and its vectors.
    fn leaf<C: BinaryCoder>(&mut self, coder: &mut C, around: &Neighbourhood, leaf: Leaf) -> Leaf {
        let count = |mode: Mode| {
            let sides = around.sides();
            sides.iter().flatten().filter(|l| l.mode() == mode).count()
        };
        let bi = coder.code(&mut self.bi[count(Mode::Bi)], leaf.mode() == Mode::Bi);
        let mode = if bi {
            Mode::Bi
        } else if coder.code(
            &mut self.second[count(Mode::Ref1)],
            leaf.mode() == Mode::Ref1,
        ) {
            Mode::Ref1
        } else {
            Mode::Ref0
        };
        let mut mv = [Mv::ZERO; 2];
        for (i, mv) in mv.iter_mut().enumerate() {
            if mode.uses(i) {
                let (p, spread) = (around.predictor(i), around.spread(i));
                let want = leaf.mv(i);
                let dx = self.x[i][spread].code(coder, i32::from(want.x) - i32::from(p.x));
                let dy = self.y[i][spread][usize::from(dx == 0)]
                    .code(coder, i32::from(want.y) - i32::from(p.y));
                // Differences are bounded by the model, so this cannot overflow.
                *mv = Mv::clamped(i32::from(p.x) + dx, i32::from(p.y) + dy);
            }
        }
        Leaf::new(mode, mv)
    }
}

/// Writes a field. `colocated` is the field of the first reference picture, if it has one; encoder
/// and decoder must agree on it and on the field's distances.
///
/// # Panics
/// When `colocated` has another size.
pub fn encode_field(
    coder: &mut Encoder,
    contexts: &mut MotionContexts,
    field: &MotionField,
    colocated: Option<&MotionField>,
) {
    // The syntax also stores what it codes: give it a copy.
    code_field::<_, true>(coder, contexts, &mut field.clone(), colocated, |_| ());
}

/// Reads a field into `field`, whose size and distances are already set. Any data decodes to a
/// legal field; [`Decoder::finish`] tells whether the data was sound.
///
/// # Panics
/// When `colocated` has another size.
pub fn decode_field(
    coder: &mut Decoder,
    contexts: &mut MotionContexts,
    field: &mut MotionField,
    colocated: Option<&MotionField>,
) {
    code_field::<_, false>(coder, contexts, field, colocated, |_| ());
}

/// Bits that [`encode_field`] would write from this state, without changing it.
///
/// # Panics
/// When `colocated` has another size.
pub fn field_bits(
    contexts: &MotionContexts,
    field: &MotionField,
    colocated: Option<&MotionField>,
) -> f64 {
    let mut counter = BitCounter::default();
    code_field::<_, true>(
        &mut counter,
        &mut contexts.clone(),
        &mut field.clone(),
        colocated,
        |_| (),
    );
    counter.cost as f64 / 256.0
}

/// What each block of 16×16 luma samples takes of these bits, row after row, in 1/256 bit. A flag
/// for a whole region counts at its first block.
///
/// # Panics
/// When `colocated` has another size.
pub fn field_bits_by_block(
    contexts: &MotionContexts,
    field: &MotionField,
    colocated: Option<&MotionField>,
) -> Vec<u64> {
    let mut blocks = Vec::with_capacity(field.columns() * field.rows() / 4);
    let mut before = 0;
    code_field::<_, true>(
        &mut BitCounter::default(),
        &mut contexts.clone(),
        &mut field.clone(),
        colocated,
        |counter| {
            blocks.push(counter.cost - before);
            before = counter.cost;
        },
    );
    blocks
}

fn code_field<C: BinaryCoder, const ENCODE: bool>(
    coder: &mut C,
    contexts: &mut MotionContexts,
    field: &mut MotionField,
    colocated: Option<&MotionField>,
    mut after_block: impl FnMut(&C),
) {
    if let Some(other) = colocated {
        assert_eq!(
            other.padded_size(),
            field.padded_size(),
            "the co-located motion field has another size"
        );
    }
    let (columns, rows) = (field.columns() / 2, field.rows() / 2);
    // Regions of this and the last row of regions; kinds of this and the last row of blocks.
    let mut regions = vec![false; columns.div_ceil(REGION)];
    let mut kinds = vec![Kind::Merge; columns];
    for by in 0..rows {
        let mut left = Kind::Merge;
        for (bx, kind) in kinds.iter_mut().enumerate() {
            let region = bx / REGION;
            if by % REGION == 0 && bx % REGION == 0 {
                let whole = ENCODE && is_whole_region(field, colocated, bx, by);
                let context = usize::from(region > 0 && regions[region - 1])
                    + usize::from(by > 0 && regions[region]);
                regions[region] = coder.code(&mut contexts.region[context], whole);
            }
            if regions[region] {
                let leaf = look(
                    field,
                    colocated,
                    Place::Block {
                        x: 2 * bx,
                        y: 2 * by,
                    },
                )
                .best();
                field.set_block(bx, by, leaf);
                *kind = Kind::Merge;
            } else {
                let context = 3 * left as usize + *kind as usize;
                *kind =
                    code_block::<C, ENCODE>(coder, contexts, field, colocated, (bx, by), context);
            }
            left = *kind;
            after_block(coder);
        }
    }
}

fn look(field: &MotionField, colocated: Option<&MotionField>, place: Place) -> Neighbourhood {
    Neighbourhood::new(
        place,
        field.columns(),
        field.distances(),
        colocated,
        |x, y| field.cell(x, y),
    )
}

/// True where every block of a region is its likeliest candidate.
fn is_whole_region(
    field: &MotionField,
    colocated: Option<&MotionField>,
    bx: usize,
    by: usize,
) -> bool {
    (by..(by + REGION).min(field.rows() / 2)).all(|by| {
        (bx..(bx + REGION).min(field.columns() / 2)).all(|bx| {
            let block = field.block(bx, by);
            !is_split(&block)
                && look(
                    field,
                    colocated,
                    Place::Block {
                        x: 2 * bx,
                        y: 2 * by,
                    },
                )
                .best()
                    == block[0]
        })
    })
}

fn code_block<C: BinaryCoder, const ENCODE: bool>(
    coder: &mut C,
    contexts: &mut MotionContexts,
    field: &mut MotionField,
    colocated: Option<&MotionField>,
    (bx, by): (usize, usize),
    context: usize,
) -> Kind {
    let (x, y) = (2 * bx, 2 * by);
    let block = field.block(bx, by);
    let split = ENCODE && is_split(&block);
    let around = look(field, colocated, Place::Block { x, y });
    let found = |around: &Neighbourhood, leaf: Leaf| {
        around
            .candidates()
            .iter()
            .position(|&c| ENCODE && c == leaf)
    };
    let index = if split {
        None
    } else {
        found(&around, block[0])
    };
    if coder.code(&mut contexts.merge[context], index.is_some()) {
        let list = around.candidates();
        let i = contexts.index(coder, false, list.len(), index.unwrap_or(0));
        field.set_block(bx, by, list[i]);
        return Kind::Merge;
    }
    if !coder.code(&mut contexts.split[context], split) {
        let leaf = contexts.leaf(coder, &around, block[0]);
        field.set_block(bx, by, leaf);
        return Kind::New;
    }
    let mut merged = 0;
    for (index, &leaf) in block.iter().enumerate() {
        let around = look(field, colocated, Place::Cell { x, y, index });
        let known = found(&around, leaf);
        // Cells coded so far that merged: none, some or all.
        let context = if merged == 0 {
            usize::from(index == 0)
        } else {
            1 + usize::from(merged == index)
        };
        let leaf = if coder.code(&mut contexts.cell_merge[context], known.is_some()) {
            merged += 1;
            let list = around.candidates();
            list[contexts.index(coder, true, list.len(), known.unwrap_or(0))]
        } else {
            contexts.leaf(coder, &around, leaf)
        };
        field.set_cell(x + index % 2, y + index / 2, leaf);
    }
    Kind::Split
}

#[cfg(test)]
mod tests {
    use super::super::field::MV_LIMIT;
    use super::*;

    fn noise(seed: u64) -> impl FnMut() -> u32 {
        let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        move || {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 32) as u32
        }
    }

    fn random_field(width: usize, height: usize, range: i16, seed: u64) -> MotionField {
        let mut rng = noise(seed);
        let mut field = MotionField::with_padded_size(width, height);
        let mut leaf = move || {
            let mut component =
                || (rng() as i32).rem_euclid(2 * i32::from(range) + 1) as i16 - range;
            let mv = [0, 1].map(|_| Mv {
                x: component(),
                y: component(),
            });
            Leaf::new([Mode::Ref0, Mode::Ref1, Mode::Bi][rng() as usize % 3], mv)
        };
        let mut choose = noise(seed + 99);
        for by in 0..height / 16 {
            for bx in 0..width / 16 {
                match choose() % 4 {
                    0 => field.set_block(bx, by, leaf()),
                    1 if bx > 0 => field.set_block(bx, by, field.cell(2 * bx - 1, 2 * by)),
                    2 if by > 0 => field.set_block(bx, by, field.cell(2 * bx, 2 * by - 1)),
                    _ => {
                        for i in 0..4 {
                            if !choose().is_multiple_of(3) {
                                field.set_cell(2 * bx + i % 2, 2 * by + i / 2, leaf());
                            }
                        }
                    }
                }
            }
        }
        field
    }

    fn round_trip(fields: &[(MotionField, bool)]) -> Vec<usize> {
        let (mut enc_contexts, mut dec_contexts) =
            (MotionContexts::default(), MotionContexts::default());
        let mut last: Option<MotionField> = None;
        let mut sizes = Vec::new();
        for (field, temporal) in fields {
            let colocated = last.as_ref().filter(|_| *temporal);
            let estimate = field_bits(&enc_contexts, field, colocated);
            let blocks = field_bits_by_block(&enc_contexts, field, colocated);
            assert_eq!(blocks.len(), field.columns() * field.rows() / 4);
            assert_eq!(blocks.iter().sum::<u64>() as f64 / 256.0, estimate);
            let mut encoder = Encoder::new();
            encode_field(&mut encoder, &mut enc_contexts, field, colocated);
            let bytes = encoder.finish();
            assert!((estimate / 8.0 - bytes.len() as f64).abs() < 6.0 + estimate * 0.001);
            let mut decoder = Decoder::new(&bytes);
            let (w, h) = field.padded_size();
            let mut got = MotionField::with_padded_size(w, h);
            got.set_distances(field.distances());
            decode_field(&mut decoder, &mut dec_contexts, &mut got, colocated);
            decoder.finish().unwrap();
            assert_eq!(&got, field);
            sizes.push(bytes.len());
            last = Some(got);
        }
        sizes
    }

    #[test]
    fn random_fields_round_trip() {
        for (seed, (w, h)) in [(16, 16), (32, 16), (16, 80), (144, 64), (208, 160)]
            .into_iter()
            .enumerate()
        {
            let fields: Vec<_> = [2, 3, 40, 700, MV_LIMIT]
                .into_iter()
                .enumerate()
                .map(|(i, range)| {
                    let mut f = random_field(w, h, range, (seed * 10 + i) as u64);
                    f.set_distances([[0, 0], [1, 2], [3, -1], [1, 8], [-1, i16::MAX]][i]);
                    (f, i != 2)
                })
                .collect();
            round_trip(&fields);
        }
    }

    #[test]
    fn still_fields_cost_next_to_nothing() {
        let field = MotionField::with_padded_size(1920, 1088);
        let sizes = round_trip(&vec![(field, true); 4]);
        assert!(sizes[0] <= 12, "{sizes:?}");
        assert!(sizes[1..].iter().all(|&s| s <= 2), "{sizes:?}");
    }

    #[test]
    fn even_motion_costs_next_to_nothing() {
        let mut field = MotionField::with_padded_size(640, 368);
        let leaf = Leaf::bi(Mv { x: 13, y: -3 }, Mv { x: 160, y: -41 });
        for by in 0..23 {
            for bx in 0..40 {
                field.set_block(bx, by, leaf);
            }
        }
        let sizes = round_trip(&vec![(field, true); 3]);
        assert!(
            sizes[0] <= 24 && sizes[1] <= 2 && sizes[2] <= 2,
            "{sizes:?}"
        );
    }

    #[test]
    fn even_motion_at_other_distances_is_predicted() {
        let field = |d: i16| {
            let mut field = MotionField::with_padded_size(640, 368);
            field.set_distances([d, -d]);
            let leaf = Leaf::bi(
                Mv {
                    x: 12 * d,
                    y: -4 * d,
                },
                Mv {
                    x: -12 * d,
                    y: 4 * d,
                },
            );
            for by in 0..23 {
                for bx in 0..40 {
                    field.set_block(bx, by, leaf);
                }
            }
            field
        };
        let sizes = round_trip(&[(field(4), true), (field(2), true), (field(1), true)]);
        assert!(sizes[1..].iter().all(|&s| s <= 2), "{sizes:?}");
    }

    #[test]
    fn damaged_data_decodes_to_legal_fields() {
        let mut rng = noise(5);
        let reference = random_field(144, 96, MV_LIMIT, 77);
        for i in 0..200 {
            let data: Vec<u8> = (0..i * 3)
                .map(|_| (rng() as u8) | if i % 2 == 0 { 0 } else { 0xf0 })
                .collect();
            let mut contexts = MotionContexts::default();
            let mut field = MotionField::with_padded_size(144, 96);
            field.set_distances([rng() as i16, rng() as i16]);
            let colocated = (i % 3 > 0).then_some(&reference);
            decode_field(
                &mut Decoder::new(&data),
                &mut contexts,
                &mut field,
                colocated,
            );
            for leaf in field.cells() {
                for m in [leaf.mv(0), leaf.mv(1)] {
                    assert!(m.x.abs() <= MV_LIMIT && m.y.abs() <= MV_LIMIT);
                }
                assert_eq!(*leaf, Leaf::new(leaf.mode(), [leaf.mv(0), leaf.mv(1)]));
            }
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! With what quantizers the samples of pictures were coded, be it in another picture.

use super::Map;
use crate::BlockQuantizers;

/// Follows a stream in the order of decoding.
///
/// A macroblock without residual looks as good as what it was predicted from. Where that lies is
/// not followed: it is taken to be the same place in the reference picture before.
#[derive(Debug, Default)]
pub struct Effective {
    columns: usize,
    reference: Vec<u8>,
}

impl Effective {
    /// Of the next picture; `None` where it has no macroblocks.
    pub fn next(&mut self, map: &Map) -> Option<BlockQuantizers> {
        let known = self.columns == map.width && self.reference.len() == map.blocks.len();
        let before = self.reference.iter().filter(|_| known).map(Some);
        let values: Vec<u8> = map
            .blocks
            .iter()
            .zip(before.chain(std::iter::repeat(None)))
            .map(|(block, before)| match before {
                Some(before) if !block.coded && !block.intra => *before,
                // Steps of more bits are the same parts of white.
                _ => block.quantizer.max(0).unsigned_abs(),
            })
            .collect();
        if map.reference {
            self.columns = map.width;
            self.reference.clone_from(&values);
        }
        BlockQuantizers::new(map.width, values)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Block;
    use super::*;

    fn map(width: usize, reference: bool, blocks: &[(i8, bool, bool)]) -> Map {
        let block = |&(quantizer, coded, intra)| Block {
            quantizer,
            coded,
            skipped: false,
            intra,
        };
        Map {
            width,
            height: blocks.len() / width,
            blocks: blocks.iter().map(block).collect(),
            reference,
        }
    }

    #[test]
    fn what_is_not_coded_keeps_what_it_had() {
        let mut effective = Effective::default();
        let mut values = |map| effective.next(&map).unwrap().values().to_vec();
        let (inter, coded, intra) = ((40, false, false), (31, true, false), (-9, false, true));
        // Nothing was there before.
        assert_eq!(values(map(3, true, &[inter, coded, intra])), [40, 31, 0]);
        let last = [(50, false, false), (51, true, false), (50, false, false)];
        assert_eq!(values(map(3, false, &last)), [40, 51, 0]);
        // That was no reference.
        let all = [(22, false, false); 3];
        assert_eq!(values(map(3, true, &all)), [40, 31, 0]);
        // Another size.
        assert_eq!(values(map(1, true, &all)), [22; 3]);
        assert!(effective.next(&map(1, true, &[])).is_none());
    }
}

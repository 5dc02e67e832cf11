// SPDX-License-Identifier: MPL-2.0
//! Places that are as predicted: 16×16 luma samples of an inter frame of which nothing is coded.
//!
//! A camera that stands still, a page that does not scroll: nearly all of such a picture is its
//! prediction. The networks have nothing to add there, and would take a little away each time. So
//! a map says where the prediction holds as it is, and decoders need not run networks there.

use super::entropy::{BinaryCoder, Encoder, Prob};
use super::grid::Grid;
use super::picture::TENSOR_CHANNELS;

/// Whether places are still, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StillMap {
    width: usize,
    still: Vec<bool>,
}

/// Adaptive models of a map: by the left, upper and upper right neighbours, and by the place in the
/// first reference's map, where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StillContexts([[Prob; 8]; 3]);

impl Default for StillContexts {
    fn default() -> Self {
        // The more neighbours are still, the likelier is the place.
        let by_neighbours: [Prob; 8] = std::array::from_fn(|i| {
            Prob::new([6000, 24000, 44000, 60000][i.count_ones() as usize])
        });
        Self([by_neighbours; 3])
    }
}

impl StillMap {
    /// A map of places, row after row, `width` in each.
    ///
    /// # Panics
    /// Where there are no whole rows.
    pub fn new(width: usize, still: Vec<bool>) -> Self {
        assert!(still.len().is_multiple_of(width.max(1)), "rows are whole");
        Self { width, still }
    }

    /// Whether places are still, row after row.
    pub fn places(&self) -> &[bool] {
        &self.still
    }

    /// Places in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of places that are still.
    pub fn count(&self) -> usize {
        self.still.iter().filter(|&&still| still).count()
    }

    /// The map as a part of a frame; `before`: that of the first reference.
    pub fn to_bytes(&self, contexts: &mut StillContexts, before: Option<&Self>) -> Vec<u8> {
        let mut coder = Encoder::new();
        let mut copy = self.still.clone();
        Self::code(&mut coder, contexts, before, self.width, &mut copy);
        coder.finish()
    }

    /// Reads the map of a picture. The coder's own state is not looked at.
    pub fn decode<C: BinaryCoder>(
        coder: &mut C,
        contexts: &mut StillContexts,
        before: Option<&Self>,
        grid: Grid,
    ) -> Self {
        let mut still = vec![false; grid.h16() * grid.w16()];
        Self::code(coder, contexts, before, grid.w16(), &mut still);
        Self {
            width: grid.w16(),
            still,
        }
    }

    /// Neighbours outside count as not still.
    fn code<C: BinaryCoder>(
        coder: &mut C,
        contexts: &mut StillContexts,
        before: Option<&Self>,
        width: usize,
        still: &mut [bool],
    ) {
        let before = before.filter(|b| b.still.len() == still.len());
        for at in 0..still.len() {
            let x = at % width;
            let neighbour = |there: bool, back: usize| there && at >= back && still[at - back];
            let class = usize::from(neighbour(x > 0, 1))
                | usize::from(neighbour(true, width)) << 1
                | usize::from(neighbour(x + 1 < width, width - 1)) << 2;
            let past = before.map_or(0, |b| 1 + usize::from(b.still[at]));
            still[at] = coder.code(&mut contexts.0[past][class], still[at]);
        }
    }

    /// Puts scale indices `[384, places]` to 0 at places that are still: nothing is coded there.
    pub fn mask_scales(&self, scales: &mut [u8]) {
        for plane in scales.chunks_exact_mut(self.still.len().max(1)) {
            for (scale, &still) in plane.iter_mut().zip(&self.still) {
                if still {
                    *scale = 0;
                }
            }
        }
    }

    /// Puts the prediction `p` into a packed picture, both `[96, 2·h16, 2·w16]`, at places that are
    /// still.
    pub fn keep_prediction(&self, p: &[i16], picture: &mut [i16]) {
        let row = 2 * self.width;
        let plane = 4 * self.still.len();
        let planes = picture.chunks_exact_mut(plane).zip(p.chunks_exact(plane));
        for (picture, p) in planes.take(TENSOR_CHANNELS) {
            let rows = picture.chunks_exact_mut(row).zip(p.chunks_exact(row));
            for (y, (picture, p)) in rows.enumerate() {
                let still = &self.still[y / 2 * self.width..][..self.width];
                let pairs = picture.chunks_exact_mut(2).zip(p.chunks_exact(2));
                for ((picture, p), _) in pairs.zip(still).filter(|(_, still)| **still) {
                    picture.copy_from_slice(p);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Decoder;

    fn map(width: usize, height: usize, f: impl Fn(usize, usize) -> bool) -> StillMap {
        let places = (0..width * height).map(|at| f(at % width, at / width));
        StillMap::new(width, places.collect())
    }

    #[test]
    fn maps_survive_and_the_past_makes_them_short() {
        let grid = Grid::new(23, 40).unwrap();
        let quiet = |x: usize, y: usize| !(12..18).contains(&x) || !(5..9).contains(&y);
        let maps = [
            map(40, 23, quiet),
            map(40, 23, |x, y| quiet(x + 1, y)),
            map(40, 23, |x, y| (x * 7 + y * 13) % 5 == 0),
            map(40, 23, |_, _| true),
            map(40, 23, |_, _| false),
        ];
        let (mut write, mut read) = (StillContexts::default(), StillContexts::default());
        let mut sizes = Vec::new();
        for (i, map) in maps.iter().enumerate() {
            let before = i.checked_sub(1).map(|i| &maps[i]);
            let bytes = map.to_bytes(&mut write, before);
            let mut coder = Decoder::new(&bytes);
            let got = StillMap::decode(&mut coder, &mut read, before, grid);
            coder.finish().unwrap();
            assert_eq!((&got, &read), (map, &write));
            sizes.push(bytes.len());
        }
        assert!(sizes[0] < 40 && sizes[1] < 25, "{sizes:?}");
        assert_eq!(maps[0].count(), 920 - 24);
        // A map of another size is none.
        let other = map(3, 3, |_, _| true);
        let (mut a, mut b) = (StillContexts::default(), StillContexts::default());
        assert_eq!(
            maps[0].to_bytes(&mut a, Some(&other)),
            maps[0].to_bytes(&mut b, None)
        );
    }

    #[test]
    fn still_places_are_not_coded_and_are_as_predicted() {
        let map = map(2, 2, |x, y| x == 1 && y == 0);
        let mut scales: Vec<u8> = (0..384 * 4).map(|i| 1 + (i % 60) as u8).collect();
        let before = scales.clone();
        map.mask_scales(&mut scales);
        for (i, (now, before)) in scales.iter().zip(&before).enumerate() {
            assert_eq!(*now, if i % 4 == 1 { 0 } else { *before });
        }
        let p: Vec<i16> = (0..96 * 16).collect();
        let mut picture = vec![-1; 96 * 16];
        map.keep_prediction(&p, &mut picture);
        for (i, (&got, &p)) in picture.iter().zip(&p).enumerate() {
            let (x, y) = (i % 4, i / 4 % 4);
            assert_eq!(got, if x >= 2 && y < 2 { p } else { -1 }, "{i}");
        }
    }
}

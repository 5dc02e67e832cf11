// SPDX-License-Identifier: MPL-2.0
//! What a network sees of a frame that it judges without the original: patches of luma, and their
//! change since the frame before. The training cuts the same (`nnvtrain/quality/model.py`).

use crate::plane::{Sample, Samples};
use crate::{PlaneView, QualityError};

/// Most patches of a frame: more of them tell little more.
const MOST: usize = 12;
/// Luma and its change enter as (y - 128) / 64 and change / 16, in code values of 8 bits.
const LUMA_SCALE: f32 = 64.0;
const CHANGE_SCALE: f32 = 16.0;
const MIDDLE: f32 = 128.0;

/// Corners (top, left) of the patches: evenly over the picture, as many as fit side by side, at
/// most [`MOST`].
fn places(height: usize, width: usize, side: usize) -> Vec<(usize, usize)> {
    let (mut rows, mut columns) = ((height / side).max(1), (width / side).max(1));
    while rows * columns > MOST {
        if rows >= columns && rows > 1 {
            rows -= 1;
        } else {
            columns -= 1;
        }
    }
    let along = |count: usize, length: usize| {
        let free = length.saturating_sub(side);
        (0..count).map(move |i| match count {
            1 => free / 2,
            _ => i * free / (count - 1),
        })
    };
    along(rows, height)
        .flat_map(|top| along(columns, width).map(move |left| (top, left)))
        .collect()
}

/// Patches of `side`×`side` samples of a frame's luma, each followed by its change since the frame
/// before, row by row. A picture smaller than a patch repeats its edge.
///
/// # Errors
/// [`QualityError::Sizes`], [`QualityError::Depths`].
pub fn patches(
    now: PlaneView<'_>,
    before: PlaneView<'_>,
    side: usize,
) -> Result<Vec<f32>, QualityError> {
    now.check_like(&before)?;
    let places = places(now.height(), now.width(), side);
    let mut out = Vec::with_capacity(places.len() * 2 * side * side);
    for place in places {
        let (luma, old) = (cut(&now, place, side), cut(&before, place, side));
        out.extend(luma.iter().map(|y| (y - MIDDLE) / LUMA_SCALE));
        out.extend(luma.iter().zip(&old).map(|(y, o)| (y - o) / CHANGE_SCALE));
    }
    Ok(out)
}

/// A patch in code values of 8 bits.
fn cut(plane: &PlaneView<'_>, place: (usize, usize), side: usize) -> Vec<f32> {
    fn rows<T: Sample>(
        samples: &[T],
        plane: &PlaneView<'_>,
        (top, left): (usize, usize),
        side: usize,
    ) -> Vec<f32> {
        let unit = 1.0 / f32::from(1_u16 << (plane.bit_depth() - 8));
        (top..top + side)
            .flat_map(|y| {
                let row = &samples[y.min(plane.height() - 1) * plane.stride..];
                (left..left + side).map(move |x| row[x.min(plane.width() - 1)].wide() as f32 * unit)
            })
            .collect()
    }
    match plane.samples {
        Samples::U8(s) => rows(s, plane, place, side),
        Samples::U16(s) => rows(s, plane, place, side),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_lie_where_the_training_has_them() {
        // Those of `grid` in nnvtrain/quality/model.py.
        assert_eq!(places(64, 64, 64), [(0, 0)]);
        assert_eq!(
            places(40, 500, 64),
            [0, 72, 145, 218, 290, 363, 436].map(|x| (0, x))
        );
        let many = places(1080, 1920, 64);
        assert_eq!(many.len(), 12);
        assert_eq!((many[0], many[11]), ((0, 0), (1016, 1856)));
    }

    #[test]
    fn depth_changes_nothing_and_edges_repeat() {
        let (w, h) = (40, 70);
        let now: Vec<u8> = (0..w * h).map(|i| (i % 251) as u8).collect();
        let before: Vec<u8> = now.iter().map(|v| v / 2).collect();
        let view = |s: &[u8]| patches_of(PlaneView::u8(s, w, h, w).unwrap());
        let deep = |s: &[u8]| {
            let s: Vec<u16> = s.iter().map(|v| u16::from(*v) << 2).collect();
            patches_of(PlaneView::u16(&s, w, h, w, 10).unwrap())
        };
        fn patches_of(plane: PlaneView<'_>) -> Vec<f32> {
            cut(&plane, (3, 0), 64)
        }
        assert_eq!(view(&now), deep(&now));
        let patch = view(&now);
        assert_eq!(patch[0], f32::from(now[3 * w]));
        assert_eq!(patch[63], patch[39]);

        let plane = |s| PlaneView::u8(s, w, h, w).unwrap();
        let both = patches(plane(&now), plane(&before), 64).unwrap();
        assert_eq!(both.len(), 2 * 64 * 64);
        assert_eq!(both[0], (patch[0] - 128.0) / 64.0);
        let old = f32::from(before[3 * w]);
        assert_eq!(both[64 * 64], (patch[0] - old) / 16.0);
        let small = PlaneView::u8(&now, w - 1, h, w).unwrap();
        assert!(patches(plane(&now), small, 64).is_err());
    }
}

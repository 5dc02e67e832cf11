// SPDX-License-Identifier: MPL-2.0
//! Pictures in place of frames that cannot be decoded: the last one, moved on as it moved before.

use std::sync::Arc;

use nnv_format::motion::{Leaf, MotionField, Mv, predict};
use nnv_format::picture::Picture;
use nnv_format::references::Reference;

/// Frames over which motion is continued; then the picture stands still.
const FARTHEST: u32 = 6;

/// A picture `steps` frames after a reference. Without motion to continue it is the reference's.
pub(super) fn continued(reference: &Reference, steps: u32, threads: usize) -> Arc<Picture> {
    let picture = &reference.picture;
    let Some(field) = reference.field.as_deref().filter(|_| steps > 0) else {
        return picture.clone();
    };
    let field = continued_field(field, steps.min(FARTHEST) as i16);
    match predict(&field, picture, picture, threads) {
        Ok(prediction) => Arc::new(prediction.picture),
        // The sizes are those of one frame; a still picture is as good a guess.
        Err(_) => picture.clone(),
    }
}

/// Motion from the frame of `field` to one `steps` later: that of each cell goes on, and what its
/// neighbours do not share is taken for an error of the search.
fn continued_field(field: &MotionField, steps: i16) -> MotionField {
    let (columns, rows) = (field.columns(), field.rows());
    let moved = |x: usize, y: usize| {
        let leaf = field.cell(x, y);
        let index = usize::from(!leaf.mode().uses(0));
        match field.distances()[index] {
            0 => Mv::ZERO,
            distance => leaf.mv(index).scaled(distance, steps),
        }
    };
    let (width, height) = field.padded_size();
    let mut out = MotionField::with_padded_size(width, height);
    let (mut xs, mut ys) = (Vec::with_capacity(9), Vec::with_capacity(9));
    for y in 0..rows {
        for x in 0..columns {
            xs.clear();
            ys.clear();
            for ny in y.saturating_sub(1)..(y + 2).min(rows) {
                for nx in x.saturating_sub(1)..(x + 2).min(columns) {
                    let mv = moved(nx, ny);
                    xs.push(mv.x);
                    ys.push(mv.y);
                }
            }
            let median = |v: &mut [i16]| {
                let middle = v.len() / 2;
                *v.select_nth_unstable(middle).1
            };
            let mv = Mv::clamped(median(&mut xs).into(), median(&mut ys).into());
            out.set_cell(x, y, Leaf::uni(0, mv));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(field: Option<MotionField>) -> Reference {
        let mut picture = Picture::new(64, 48).unwrap();
        for plane in picture.planes_mut() {
            for y in 0..plane.height() {
                for (x, v) in plane.row_mut(y).iter_mut().enumerate() {
                    *v = ((x * x * 7 + y * 31) % 1000) as u16;
                }
            }
        }
        Reference {
            picture: Arc::new(picture),
            level: 0,
            contexts: None,
            field: field.map(Arc::new),
        }
    }

    #[test]
    fn motion_goes_on_and_then_stops() {
        // Everything moved four samples to the right in two frames; one vector is an outlier.
        let mut field = MotionField::with_padded_size(64, 48);
        field.set_distances([2, 2]);
        for y in 0..field.rows() {
            for x in 0..field.columns() {
                field.set_cell(x, y, Leaf::uni(1, Mv { x: -16, y: 0 }));
            }
        }
        field.set_cell(3, 3, Leaf::uni(0, Mv { x: 400, y: 80 }));
        let reference = reference(Some(field));
        let luma = |p: &Picture, x: usize, y: usize| p.planes()[0].row(y)[x];
        let mut shift = 0;
        for steps in [1, 2, 5, FARTHEST, FARTHEST + 9] {
            let picture = continued(&reference, steps, 1);
            shift = 2 * steps.min(FARTHEST) as usize;
            for y in 0..48 {
                for x in 16..60 {
                    let was = luma(&reference.picture, x - shift, y);
                    assert_eq!(luma(&picture, x, y), was, "{steps} at {x}, {y}");
                }
            }
        }
        assert_eq!(shift, 12);
    }

    #[test]
    fn without_motion_the_picture_is_shown_again() {
        for (field, steps) in [
            (None, 3),
            (Some(MotionField::with_padded_size(64, 48)), 3),
            (Some(MotionField::with_padded_size(64, 48)), 0),
        ] {
            let reference = reference(field);
            assert!(continued(&reference, steps, 1).is_equal(&reference.picture));
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! What a flat key frame's entropy coding begins with, for next to nothing.
//!
//! A few bytes can claim a picture of any size, and whether they are damaged is known only once the
//! prior network has said how they are coded: for a large picture that takes seconds. Few bytes can
//! only say a `z` that is the same everywhere, though. Then the prior's output is the same
//! everywhere, too, but near the borders, and a small picture shows all of it.

use nnv_format::grid::Grid;
use nnv_format::tables::LATENT_CHANNELS;
use nnv_nn::{Cancel, Model};

use crate::error::Result;

/// Places from which the prior network sees a border: those of the built-in bundles see three far.
const REACH: usize = 8;
/// Rows and columns of a picture that shows all there is: two borders and a place between.
const SIDE: usize = 2 * REACH + 1;

/// Scale indices of some channels of a key frame without quantizer map, `[channels, h16, w16]`,
/// without a run of the network at the frame's own size.
///
/// `None` where `z` is not flat, or the frame is so small that nothing would be saved.
pub(super) fn scale_indices(
    model: &Model,
    grid: Grid,
    z: &[i8],
    quantizer: u8,
    channels: &[u16],
    cancel: &Cancel,
) -> Result<Option<Vec<u8>>> {
    let (h16, w16) = (grid.h16(), grid.w16());
    let small = Grid::new(h16.min(SIDE), w16.min(SIDE))?;
    let positions = |g: Grid| g.h16() * g.w16();
    let flat = |plane: &[i8]| plane.iter().all(|v| *v == plane[0]);
    let plane = grid.hz() * grid.wz();
    if positions(grid) < 8 * positions(small) || !z.chunks_exact(plane).all(flat) {
        return Ok(None);
    }
    let z: Vec<i8> = z
        .chunks_exact(plane)
        .flat_map(|plane| std::iter::repeat_n(plane[0], small.hz() * small.wz()))
        .collect();
    let prior = model.key_batch(small, &[quantizer])?.prior(&[&z], cancel)?;
    let scales = prior.scale_idx(0);
    debug_assert_eq!(scales.len(), LATENT_CHANNELS * positions(small));
    // Where a row or column of the frame is found in the small one: as far from the same border.
    let place = |at: usize, len: usize, small: usize| {
        if at < small / 2 {
            at
        } else if len - at <= small / 2 {
            small - (len - at)
        } else {
            small / 2
        }
    };
    let columns: Vec<usize> = (0..w16).map(|x| place(x, w16, small.w16())).collect();
    let mut out = Vec::with_capacity(channels.len() * positions(grid));
    for &c in channels {
        for y in 0..h16 {
            let row = usize::from(c) * small.h16() + place(y, h16, small.h16());
            let row = &scales[row * small.w16()..][..small.w16()];
            out.extend(columns.iter().map(|&x| row[x]));
        }
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nnv_nn::{ModelSource, RuntimeOptions, embedded};

    #[test]
    fn a_small_picture_shows_what_the_network_says_of_a_large_one() {
        let options = RuntimeOptions {
            threads: 1,
            ..RuntimeOptions::default()
        };
        let cancel = Cancel::new();
        let mut tried = 0;
        for info in embedded() {
            let source = ModelSource::Embedded(info.name.to_string());
            let model = Model::load(&source, &options).expect("built-in bundles load");
            let channels: Vec<u16> = vec![383, 0, 17, 200];
            for (h16, w16) in [(61, 43), (120, 20), (9, 300)] {
                let grid = Grid::new(h16, w16).expect("the size is possible");
                let plane = grid.hz() * grid.wz();
                for (quantizer, of) in [(0, [0, 0]), (28, [0, 0]), (63, [0, 0]), (20, [3, -2])] {
                    let z: Vec<i8> = (0..model.hyper_channels())
                        .flat_map(|c| vec![of[c % 2]; plane])
                        .collect();
                    let quick =
                        scale_indices(&model, grid, &z, quantizer, &channels, &cancel).unwrap();
                    let quick = quick.expect("z is flat, the picture large");
                    let batch = model.key_batch(grid, &[quantizer]).unwrap();
                    let prior = batch.prior(&[&z], &cancel).unwrap();
                    let whole: Vec<u8> = channels
                        .iter()
                        .flat_map(|&c| {
                            prior.scale_idx(0)[usize::from(c) * h16 * w16..][..h16 * w16].to_vec()
                        })
                        .collect();
                    assert!(quick == whole, "{} {h16}x{w16} q {quantizer}", info.name);
                    tried += 1;
                    let mut bump = z;
                    bump[plane / 2] += 1;
                    let other = scale_indices(&model, grid, &bump, quantizer, &channels, &cancel);
                    assert_eq!(other.unwrap(), None, "it is not flat");
                }
            }
            let small = Grid::new(20, 20).expect("the size is possible");
            let z = vec![0; model.z_len(small)];
            let none = scale_indices(&model, small, &z, 20, &channels, &cancel).unwrap();
            assert_eq!(none, None, "nothing is saved");
        }
        assert!(tried > 0);
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Which places of a frame take a finer quantizer: in key frames the quiet ones, whose errors are
//! seen; in all frames those that the application names.

use nnv_format::picture::Plane;
use nnv_format::quantizer_map::{MAP_UNIT, QuantizerMap, VALUES};

use super::frame::Region;

/// Variance below which structure is not seen: that of 8-bit rounding and a little noise.
const FLOOR: f32 = 15.0;
/// Logarithm of the variance (with [`FLOOR`]) that gets the frame's own quantizer.
const MIDDLE: f32 = 5.5;

/// Chooses values by the variance of luma in blocks of 8×8: `strength` quantizers per octave of it.
///
/// `width` and `height`: places. The variance is what structural similarity divides errors by
/// (Wang et al. 2004); x264's adaptive quantization follows its logarithm too.
pub fn choose_map(luma: &Plane, width: usize, height: usize, strength: f32) -> QuantizerMap {
    let variance = |x: usize, y: usize| {
        let (mut sum, mut squares) = (0u32, 0u32);
        for row in y..y + 8 {
            for &v in &luma.row(row)[x..x + 8] {
                sum += u32::from(v);
                squares += u32::from(v) * u32::from(v);
            }
        }
        // Samples have 10 bits; the variance is that of 8-bit ones.
        let (sum, squares) = (f64::from(sum), f64::from(squares));
        ((squares - sum * sum / 64.0) / 1024.0) as f32
    };
    let value = |x: usize, y: usize| {
        let logs: f32 = [(0, 0), (8, 0), (0, 8), (8, 8)]
            .iter()
            .map(|&(dx, dy)| (variance(16 * x + dx, 16 * y + dy) + FLOOR).log2())
            .sum();
        let value = strength * (logs / 4.0 - MIDDLE) / f32::from(MAP_UNIT);
        (value.round() as i32).clamp(*VALUES.start(), *VALUES.end()) as i8
    };
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    QuantizerMap::new(width, places.map(|(x, y)| value(x, y)).collect())
}

/// Steps of a map that a region asks for.
fn steps(region: &Region) -> i32 {
    (f32::from(region.delta) / f32::from(MAP_UNIT)).round() as i32
}

/// What a frame's quantizer is lowered by so that its finest region lies within a map; the map
/// gives it back to all other places.
pub fn shift_of_regions(regions: &[Region], quantizer: u8) -> u8 {
    let finest = regions.iter().map(steps).min().unwrap_or(0);
    let shift = (VALUES.start() - finest).clamp(0, *VALUES.end());
    let unit = MAP_UNIT as u8;
    (shift as u8).min(quantizer / unit) * unit
}

/// Puts regions on a map (`None`: a flat one) of `width` by `height` places. A place belongs to
/// each region that covers a part of it; where regions meet, the finest quantizer counts. `shift`:
/// what the frame's quantizer was lowered by, see [`shift_of_regions`].
pub fn map_of_regions(
    map: Option<QuantizerMap>,
    regions: &[Region],
    shift: u8,
    width: usize,
    height: usize,
) -> Option<QuantizerMap> {
    if regions.is_empty() {
        return map;
    }
    let mut deltas: Vec<Option<i32>> = vec![None; width * height];
    for region in regions.iter().filter(|r| r.width > 0 && r.height > 0) {
        let places = |from: u32, length: u32, most: usize| {
            let first = (from / 16) as usize;
            let end = from.saturating_add(length).div_ceil(16) as usize;
            first.min(most)..end.min(most)
        };
        let delta = steps(region);
        for y in places(region.y, region.height, height) {
            for x in places(region.x, region.width, width) {
                let place = &mut deltas[y * width + x];
                *place = Some(place.map_or(delta, |before| before.min(delta)));
            }
        }
    }
    let shift = i32::from(shift) / i32::from(MAP_UNIT);
    let value = |(at, delta): (usize, &Option<i32>)| {
        let before = map.as_ref().map_or(0, |map| i32::from(map.values()[at]));
        (before + delta.unwrap_or(0) + shift).clamp(*VALUES.start(), *VALUES.end()) as i8
    };
    let values = deltas.iter().enumerate().map(value).collect();
    Some(QuantizerMap::new(width, values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nnv_format::picture::Picture;

    #[test]
    fn regions_take_the_places_that_they_cover() {
        let region = |x, y, width, height, delta| Region {
            x,
            y,
            width,
            height,
            delta,
        };
        let map = map_of_regions(None, &[region(17, 0, 15, 16, -12)], 0, 4, 2).unwrap();
        assert_eq!(map.values(), [0, -3, 0, 0, 0, 0, 0, 0]);
        // Beyond the picture, empty, over each other, on a map that is there.
        let regions = [
            region(40, 20, u32::MAX, u32::MAX, -7),
            region(0, 0, 0, 16, -16),
            region(500, 500, 10, 10, -16),
            region(48, 16, 16, 16, 12),
            region(0, 0, 1, 1, 127),
        ];
        let before = QuantizerMap::new(4, vec![0, 1, 2, 3, 0, 0, 0, -4]);
        let map = map_of_regions(Some(before), &regions, 0, 4, 2).unwrap();
        assert_eq!(map.values(), [3, 1, 2, 3, 0, 0, -2, -4]);
        assert_eq!(map_of_regions(None, &[], 0, 4, 2), None);
        // Finer than a map reaches: the frame's own quantizer helps.
        let fine = [region(0, 0, 16, 16, -24)];
        assert_eq!(shift_of_regions(&fine, 30), 8);
        assert_eq!(shift_of_regions(&fine, 6), 4);
        assert_eq!(shift_of_regions(&[region(0, 0, 16, 16, -100)], 30), 12);
        assert_eq!(shift_of_regions(&regions, 30), 0);
        let map = map_of_regions(None, &fine, 8, 4, 1).unwrap();
        assert_eq!(map.values(), [-4, 2, 2, 2]);
    }

    #[test]
    fn quiet_places_get_finer_quantizers() {
        let mut picture = Picture::new(64, 32).unwrap();
        let luma = picture.plane_mut(0);
        for y in 0..32 {
            for (x, v) in luma.row_mut(y).iter_mut().enumerate() {
                // Flat, faint stripes, strong stripes, noise-like checks.
                let stripe = (x + y) % 2;
                *v = 500 + [0, 8, 120, 400][x / 16] * stripe as u16;
            }
        }
        let map = choose_map(picture.plane(0), 4, 2, 3.0);
        assert_eq!(map.values()[..4], map.values()[4..]);
        assert!(map.values()[..4].is_sorted(), "{:?}", map.values());
        assert!(
            map.values()[0] < 0 && map.values()[3] > 0,
            "{:?}",
            map.values()
        );
        assert!(!map.is_flat());
        assert!(choose_map(picture.plane(0), 4, 2, 0.0).is_flat());
    }
}

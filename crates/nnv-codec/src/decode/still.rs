// SPDX-License-Identifier: MPL-2.0
//! Frames with a still map: networks run only on parts of the picture, around what is coded.

use nnv_format::grid::{Grid, Part};
use nnv_format::still::StillMap;
use nnv_nn::Reach;

use crate::error::Result;

/// Where the parts cost more than this share of the picture, it is done as a whole.
const WHOLE: f64 = 0.85;
/// Share of a frame's networks that is synthesis; the rest is the prior.
const SYNTHESIS: f64 = 0.8;

/// More regions than that are not looked at one by one.
const MOST: usize = 16;

/// A region that holds what is coded, and what networks have to see for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    /// No two regions meet.
    pub region: Part,
    /// With all that its pictures depend on.
    pub synthesis: Part,
    /// With all that the prior of that depends on.
    pub prior: Part,
}

/// The parts of a picture that the networks have to see, so that every place that is not still
/// comes out as from the whole picture; each such place is in one part alone. None where all is
/// still.
pub(crate) fn parts(map: &StillMap, grid: Grid, reach: Reach) -> Result<Vec<Parts>> {
    let whole = Part::whole(grid);
    let mut regions = regions(map, grid, reach.synthesis)?;
    if regions.len() > MOST {
        regions = vec![whole];
    }
    let cost = |region: Part| {
        let synthesis = region.grown(reach.synthesis, grid);
        let prior = synthesis.grown(reach.prior, grid).area() as f64;
        SYNTHESIS * synthesis.area() as f64 + (1.0 - SYNTHESIS) * prior
    };
    // Regions that share much of their surroundings are better off as one.
    while let Some((a, b)) = pair_to_join(&regions, cost) {
        let joined = regions[a].joined(regions[b]);
        regions.swap_remove(b.max(a));
        regions.swap_remove(b.min(a));
        regions.push(joined);
    }
    let all: f64 = regions.iter().map(|r| cost(*r)).sum();
    if all > WHOLE * whole.area() as f64 {
        regions = vec![whole];
    }
    let parts = regions.into_iter().map(|region| {
        let synthesis = region.grown(reach.synthesis, grid);
        Parts {
            region,
            synthesis,
            prior: synthesis.grown(reach.prior, grid),
        }
    });
    Ok(parts.collect())
}

/// Share of a frame's networks that a decoder runs for parts.
pub(crate) fn share(parts: &[Parts], grid: Grid) -> f64 {
    let cost = |p: &Parts| {
        SYNTHESIS * p.synthesis.area() as f64 + (1.0 - SYNTHESIS) * p.prior.area() as f64
    };
    parts.iter().map(cost).sum::<f64>() / Part::whole(grid).area() as f64
}

/// Two regions that cost less together than apart, or that hold places of each other.
fn pair_to_join(regions: &[Part], cost: impl Fn(Part) -> f64) -> Option<(usize, usize)> {
    let meet = |a: Part, b: Part| {
        let ((ax, ay), (bx, by)) = (a.last(), b.last());
        a.x <= bx && b.x <= ax && a.y <= by && b.y <= ay
    };
    let pairs = (0..regions.len()).flat_map(|a| (a + 1..regions.len()).map(move |b| (a, b)));
    pairs.into_iter().find(|&(a, b)| {
        let (a, b) = (regions[a], regions[b]);
        meet(a, b) || cost(a.joined(b)) <= cost(a) + cost(b)
    })
}

/// Boxes around groups of places that are not still; places are of one group where they are at most
/// `near` apart.
fn regions(map: &StillMap, grid: Grid, near: usize) -> Result<Vec<Part>> {
    let width = grid.w16();
    let mut left: Vec<bool> = map.places().iter().map(|still| !still).collect();
    let mut regions = Vec::new();
    for start in 0..left.len() {
        if !std::mem::take(&mut left[start]) {
            continue;
        }
        let place = |at: usize| (at % width, at / width);
        let mut region = Part::between(place(start), place(start))?;
        let mut waiting = vec![start];
        while let Some(at) = waiting.pop() {
            let here = Part::between(place(at), place(at))?;
            region = region.joined(here);
            let around = here.grown(near, grid);
            let (last_x, last_y) = around.last();
            for y in around.y..=last_y {
                for x in around.x..=last_x {
                    if std::mem::take(&mut left[y * width + x]) {
                        waiting.push(y * width + x);
                    }
                }
            }
        }
        regions.push(region);
    }
    Ok(regions)
}

/// Puts a part of planes of the whole grid back, `scale` × `scale` elements for each place, at the
/// places that are not still.
pub(super) fn paste<T: Copy>(
    part: Part,
    from: &[T],
    map: &StillMap,
    grid: Grid,
    scale: usize,
    to: &mut [T],
) {
    let (width, height) = (scale * part.grid.w16(), scale * part.grid.h16());
    let row = scale * grid.w16();
    let planes = to.chunks_exact_mut(scale * row * grid.h16());
    for (to, from) in planes.zip(from.chunks_exact(width * height)) {
        for (y, from) in from.chunks_exact(width).enumerate() {
            let y = y + scale * part.y;
            let still = &map.places()[y / scale * grid.w16() + part.x..][..part.grid.w16()];
            let to = &mut to[y * row + scale * part.x..][..width];
            let places = to.chunks_exact_mut(scale).zip(from.chunks_exact(scale));
            for ((to, from), _) in places.zip(still).filter(|(_, still)| !**still) {
                to.copy_from_slice(from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REACH: Reach = Reach {
        prior: 4,
        synthesis: 3,
    };

    fn map(grid: Grid, coded: &[(usize, usize)]) -> StillMap {
        let places = 0..grid.h16() * grid.w16();
        let still = places.map(|at| !coded.contains(&(at % grid.w16(), at / grid.w16())));
        StillMap::new(grid.w16(), still.collect())
    }

    #[test]
    fn parts_hold_all_that_is_coded_with_what_it_depends_on() {
        let grid = Grid::new(45, 80).unwrap();
        let none = parts(&map(grid, &[]), grid, REACH).unwrap();
        assert_eq!(none, []);
        // Two corners, far apart.
        let coded = [(1, 1), (3, 2), (73, 42), (75, 44)];
        let found = parts(&map(grid, &coded), grid, REACH).unwrap();
        assert_eq!(found.len(), 2);
        for place in coded {
            let holds = |p: &&Parts| {
                let (x, y) = p.region.last();
                (p.region.x..=x).contains(&place.0) && (p.region.y..=y).contains(&place.1)
            };
            let found: Vec<&Parts> = found.iter().filter(holds).collect();
            assert_eq!(found.len(), 1, "{place:?}");
            assert_eq!(found[0].synthesis, found[0].region.grown(3, grid));
            assert_eq!(found[0].prior, found[0].synthesis.grown(4, grid));
        }
        // Here and there: the picture as a whole.
        let columns = (0..80).step_by(9);
        let many: Vec<_> = columns
            .flat_map(|x| (0..45).step_by(7).map(move |y| (x, y)))
            .collect();
        let found = parts(&map(grid, &many), grid, REACH).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].synthesis, Part::whole(grid));
    }

    #[test]
    fn maps_of_specks_take_no_time() {
        let grid = Grid::new(1024, 1024).unwrap();
        let still = (0..1 << 20).map(|at| at % 5 > 0 || at / 1024 % 5 > 0);
        let map = StillMap::new(1024, still.collect());
        let start = std::time::Instant::now();
        let found = parts(&map, grid, REACH).unwrap();
        assert_eq!(found.len(), 1);
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn only_what_is_coded_is_put_back() {
        let grid = Grid::new(3, 4).unwrap();
        let map = map(grid, &[(1, 1), (3, 2)]);
        let part = Part::between((0, 1), (1, 2)).unwrap();
        let mut to = vec![0; 2 * 48];
        paste(part, &[7; 2 * 16], &map, grid, 2, &mut to);
        for (i, got) in to.into_iter().enumerate() {
            let (x, y) = (i % 8 / 2, i / 8 % 6 / 2);
            assert_eq!(got, if (x, y) == (1, 1) { 7 } else { 0 }, "{i}");
        }
    }
}

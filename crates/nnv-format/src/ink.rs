// SPDX-License-Identifier: MPL-2.0
//! The ink layer: type and line art on top of what the networks code.
//!
//! A transform of 16×16 samples spreads the sharp edges of type over hundreds of coefficients.
//! Where a screen shows type, the picture is taken apart instead: the networks code the paper, and
//! what ink differs by from it is added. This is mixed raster content (ITU-T T.44; L. Bottou et
//! al., High quality document image compression with DjVu, 1998), with coverage in several levels
//! for smoothed type. Where an inter frame shows something new, flat paper takes the place of the
//! prediction.
//!
//! [`InkLayer`] is what the stream holds: colours, cells of 8×8 luma samples with one ink each,
//! coverage by sample. How an encoder finds it is its own affair (crate `nnv-codec`).

use std::cell::Cell;

use super::entropy::{
    BinaryCoder, CoverageContext, CoverageModel, CoveragePlane, Decoder, Encoder, EntropyError,
    PlaceMeter, Prob,
};
use super::picture::{MAX_SAMPLE, Picture, TENSOR_CHANNELS};

/// Side of a cell in luma samples.
pub const CELL: usize = 8;
/// Most inks of a frame.
pub const MAX_INKS: usize = 63;

/// A colour: Y, U, V at 8 bits.
pub type Ink = [u8; 3];

/// Ink over a picture, and paper under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InkLayer {
    inks: Vec<Ink>,
    papers: Vec<Ink>,
    cells: Cells,
    /// Value of full coverage.
    full: u8,
    coverage: CoveragePlane,
}

/// Which cells have ink and paper: the number of the colour from 1 on, 0 for none; row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cells {
    /// Cells in a row.
    pub width: usize,
    /// Rows of cells.
    pub height: usize,
    /// Numbers of inks; only on paper.
    pub ink: Vec<u8>,
    /// Numbers of papers.
    pub paper: Vec<u8>,
}

impl Cells {
    /// Bare cells of a padded size in luma samples.
    pub fn new(width: usize, height: usize) -> Self {
        let (width, height) = (width / CELL, height / CELL);
        Self {
            width,
            height,
            ink: vec![0; width * height],
            paper: vec![0; width * height],
        }
    }

    /// Takes ink and paper off a cell.
    pub fn clear(&mut self, at: usize) {
        (self.ink[at], self.paper[at]) = (0, 0);
    }

    /// Number of cells that have ink.
    pub fn inked_count(&self) -> usize {
        self.ink.iter().filter(|&&ink| ink > 0).count()
    }

    /// Cells with paper: column, row, index of the paper.
    pub fn papered(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let with = self.paper.iter().enumerate().filter(|(_, n)| **n > 0);
        with.map(|(at, &n)| (at % self.width, at / self.width, usize::from(n) - 1))
    }

    /// Cells with ink: column, row, index of the ink, index of the paper.
    pub fn inked(&self) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        self.papered()
            .filter_map(|(x, y, paper)| match self.ink[y * self.width + x] {
                0 => None,
                ink => Some((x, y, usize::from(ink) - 1, paper)),
            })
    }

    /// Puts paper in the place of a prediction: `p` (samples less 512) and `d`, packed as `[96,
    /// rows, columns]` of cells.
    fn ground(&self, papers: &[Ink], p: &mut [i16], d: &mut [i16]) {
        let cells = self.width * self.height;
        for (column, row, paper) in self.papered() {
            let [y, u, v] = papers[paper].map(|v| 4 * i16::from(v) - 512);
            for channel in 0..TENSOR_CHANNELS {
                let at = channel * cells + row * self.width + column;
                p[at] = match channel {
                    0..64 => y,
                    64..80 => u,
                    _ => v,
                };
                d[at] = 0;
            }
        }
    }
}

/// Adaptive models of the numbers of colours by cell.
struct NumberModels {
    /// Whether there is a colour, by which of the cells to the left, above to the left, above and
    /// above to the right have one.
    there: [Prob; 16],
    left: Prob,
    above: Prob,
    /// A tree of six levels.
    index: [Prob; 64],
}

impl Default for NumberModels {
    fn default() -> Self {
        Self {
            there: [Prob::HALF; 16],
            left: Prob::HALF,
            above: Prob::HALF,
            index: [Prob::HALF; 64],
        }
    }
}

/// The syntax of numbers of colours by cell, for encoder and decoder alike. Cells not in `among`
/// have none. `before` hears of each cell before it is coded.
fn code_numbers<C: BinaryCoder>(
    coder: &mut C,
    numbers: &mut [u8],
    width: usize,
    colours: usize,
    among: Option<&[u8]>,
    before: &impl Fn(usize),
) -> Result<(), EntropyError> {
    let mut models = NumberModels::default();
    for at in 0..numbers.len() {
        if among.is_some_and(|among| among[at] == 0) {
            numbers[at] = 0;
            continue;
        }
        before(at);
        let (x, y) = (at % width, at / width);
        let get = |there: bool, back: usize| if there { numbers[at - back] } else { 0 };
        let (left, above) = (get(x > 0, 1), get(y > 0, width));
        let above_left = get(x > 0 && y > 0, width + 1);
        let above_right = get(y > 0 && x + 1 < width, width - 1);
        let class = [left, above_left, above, above_right]
            .iter()
            .fold(0, |c, &n| 2 * c + usize::from(n > 0));
        let number = numbers[at];
        numbers[at] = if !coder.code(&mut models.there[class], number > 0) {
            0
        } else if left > 0 && coder.code(&mut models.left, number == left) {
            left
        } else if above > 0 && above != left && coder.code(&mut models.above, number == above) {
            above
        } else {
            let index = usize::from(number.max(1)) - 1;
            let mut tree = 1;
            for level in (0..6).rev() {
                let bit = coder.code(&mut models.index[tree], index >> level & 1 == 1);
                tree = 2 * tree + usize::from(bit);
            }
            let index = tree - 64;
            if index >= colours {
                return Err(EntropyError::SymbolRange);
            }
            index as u8 + 1
        };
    }
    Ok(())
}

impl Cells {
    /// The syntax of the cells, for encoder and decoder alike.
    fn code<C: BinaryCoder>(
        &mut self,
        coder: &mut C,
        inks: usize,
        papers: usize,
        before: impl Fn(usize),
    ) -> Result<(), EntropyError> {
        code_numbers(coder, &mut self.paper, self.width, papers, None, &before)?;
        let among = Some(&self.paper[..]);
        code_numbers(coder, &mut self.ink, self.width, inks, among, &before)
    }

    /// Codes the coverage of all cells with ink, in order of the picture's rows. `pick` says what
    /// an encoder writes at a place.
    ///
    /// # Errors
    /// [`EntropyError::SymbolRange`] for more than full coverage.
    pub fn code_coverage<C: BinaryCoder>(
        &self,
        coder: &mut C,
        full: u8,
        plane: &mut CoveragePlane,
        mut pick: impl FnMut(usize, usize, &CoverageModel, &CoverageContext) -> u8,
    ) -> Result<(), EntropyError> {
        let mut model = CoverageModel::new(full, self.inked_count() * CELL * CELL);
        for (row, cells) in self.ink.chunks_exact(self.width.max(1)).enumerate() {
            for y in row * CELL..(row + 1) * CELL {
                for (column, _) in cells.iter().enumerate().filter(|(_, ink)| **ink > 0) {
                    for x in column * CELL..(column + 1) * CELL {
                        let context = model.context(plane, x, y);
                        let value = pick(x, y, &model, &context);
                        plane.set(x, y, model.code(coder, &context, value)?);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Colours: their number, then their samples.
fn code_colours<C: BinaryCoder>(coder: &mut C, colours: &[Ink]) -> Vec<Ink> {
    let count = coder.bypass(colours.len() as u32, 6) as usize;
    let colour = |i: usize| {
        let colour = colours.get(i).copied().unwrap_or_default();
        colour.map(|v| coder.bypass(v.into(), 8) as u8)
    };
    (0..count).map(colour).collect()
}

/// What `covered` parts of `full` of an ink add to a paper, in 10-bit samples.
#[inline(always)]
pub fn difference(ink: u8, paper: u8, covered: i32, full: i32) -> i32 {
    (8 * (i32::from(ink) - i32::from(paper)) * covered + full).div_euclid(2 * full)
}

impl InkLayer {
    /// Reads the layer of a picture of this padded size in luma samples.
    ///
    /// # Errors
    /// [`EntropyError`] for damage.
    pub fn decode(data: &[u8], width: usize, height: usize) -> Result<Self, EntropyError> {
        let mut coder = Decoder::new(data);
        let empty = Self {
            inks: Vec::new(),
            papers: Vec::new(),
            cells: Cells::new(width, height),
            full: 0,
            coverage: CoveragePlane::new(width, height),
        };
        let layer = empty.code(&mut coder, |_, _, _, _| 0)?;
        coder.finish()?;
        Ok(layer)
    }

    /// Writes a layer of `full` levels over these colours and cells, with the coverage that `pick`
    /// says.
    ///
    /// # Errors
    /// [`EntropyError::SymbolRange`] where `full` is 0, a cell names a colour that is not there, or
    /// `pick` exceeds `full`.
    pub fn encode(
        (inks, papers): (Vec<Ink>, Vec<Ink>),
        cells: Cells,
        full: u8,
        pick: impl FnMut(usize, usize, &CoverageModel, &CoverageContext) -> u8,
    ) -> Result<(Self, Vec<u8>), EntropyError> {
        let mut coder = Encoder::new();
        let coverage = CoveragePlane::new(cells.width * CELL, cells.height * CELL);
        let bare = Self {
            inks,
            papers,
            cells,
            full,
            coverage,
        };
        let layer = bare.code(&mut coder, pick)?;
        Ok((layer, coder.finish()))
    }

    /// The syntax, for encoder and decoder alike.
    fn code<C: BinaryCoder>(
        mut self,
        coder: &mut C,
        pick: impl FnMut(usize, usize, &CoverageModel, &CoverageContext) -> u8,
    ) -> Result<Self, EntropyError> {
        self.full = coder.bypass(self.full.into(), 5) as u8;
        if self.full == 0 {
            return Err(EntropyError::SymbolRange);
        }
        self.papers = code_colours(coder, &self.papers);
        self.inks = code_colours(coder, &self.inks);
        let (inks, papers) = (self.inks.len(), self.papers.len());
        self.cells.code(coder, inks, papers, |_| ())?;
        self.cells
            .code_coverage(coder, self.full, &mut self.coverage, pick)?;
        Ok(self)
    }

    /// What each cell of 8×8 samples takes, row after row, in 1/256 bit. Colours belong to no cell
    /// and do not count.
    ///
    /// # Errors
    /// None for layers that were read or written.
    pub fn bits_by_cell(&self) -> Result<Vec<u64>, EntropyError> {
        let at = Cell::new(0);
        let (mut cells, width) = (self.cells.clone(), self.cells.width);
        let mut meter = PlaceMeter::new(&at, cells.ink.len());
        let (inks, papers) = (self.inks.len(), self.papers.len());
        cells.code(&mut meter, inks, papers, |cell| at.set(cell))?;
        let mut plane = CoveragePlane::new(width * CELL, cells.height * CELL);
        cells.code_coverage(&mut meter, self.full, &mut plane, |x, y, _, _| {
            at.set(y / CELL * width + x / CELL);
            self.coverage.get(x, y)
        })?;
        Ok(meter.bits)
    }

    /// Which cells have ink and paper.
    pub fn cells(&self) -> &Cells {
        &self.cells
    }

    /// Puts paper in the place of an inter frame's prediction, packed.
    pub fn ground(&self, p: &mut [i16], d: &mut [i16]) {
        self.cells.ground(&self.papers, p, d);
    }

    /// Adds what the ink differs by from its paper to a picture of the same padded size: puts the
    /// ink on it.
    pub fn apply(&self, picture: &mut Picture) {
        self.add(picture, 1);
    }

    /// Takes the ink off.
    pub fn remove(&self, picture: &mut Picture) {
        self.add(picture, -1);
    }

    fn add(&self, picture: &mut Picture, sign: i32) {
        let full = i32::from(self.full);
        let change = |v: &mut u16, ink: u8, paper: u8, covered: i32, full: i32| {
            if covered > 0 {
                let d = sign * difference(ink, paper, covered, full);
                *v = (i32::from(*v) + d).clamp(0, MAX_SAMPLE.into()) as u16;
            }
        };
        let [luma, u, v] = picture.planes_mut();
        for (column, row, ink, paper) in self.cells.inked() {
            let (left, ink, paper) = (column * CELL, self.inks[ink], self.papers[paper]);
            for y in row * CELL..(row + 1) * CELL {
                let covered = self.coverage.run(left, y, CELL);
                let samples = &mut luma.row_mut(y)[left..left + CELL];
                for (v, &c) in samples.iter_mut().zip(covered) {
                    change(v, ink[0], paper[0], c.into(), full);
                }
            }
            for y in row * CELL / 2..(row + 1) * CELL / 2 {
                let rows = [0, 1].map(|r| self.coverage.run(left, 2 * y + r, CELL));
                for x in 0..CELL / 2 {
                    let covered: i32 = rows
                        .iter()
                        .flat_map(|r| &r[2 * x..2 * x + 2])
                        .map(|&c| i32::from(c))
                        .sum();
                    for (i, plane) in [(1, &mut *u), (2, &mut *v)] {
                        let v = &mut plane.row_mut(y)[left / 2 + x];
                        change(v, ink[i], paper[i], covered, 4 * full);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 96;
    const HEIGHT: usize = 64;

    fn rng(seed: u32) -> impl FnMut(u32) -> u32 {
        let mut s = seed;
        move |below| {
            s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (s >> 8) % below
        }
    }

    /// A layer of random cells, and its coverage by sample.
    fn layer(seed: u32, full: u8) -> (InkLayer, Vec<u8>) {
        let mut rng = rng(seed);
        let mut colours = |n| -> Vec<Ink> {
            let mut colour = || [0; 3].map(|_: u8| rng(256) as u8);
            (0..n).map(|_| colour()).collect()
        };
        let (inks, papers) = (colours(5), colours(3));
        let mut cells = Cells::new(WIDTH, HEIGHT);
        for at in 0..cells.ink.len() {
            cells.paper[at] = [0, 0, 1, 1, 2, 3][rng(6) as usize];
            if cells.paper[at] > 0 {
                cells.ink[at] = [0, 0, 0, 1, 1, 4, 5][rng(7) as usize];
            }
        }
        let layer = InkLayer {
            inks,
            papers,
            cells,
            full,
            coverage: CoveragePlane::new(WIDTH, HEIGHT),
        };
        let wanted = (0..WIDTH * HEIGHT).map(|_| match rng(5) {
            0 => rng(u32::from(full) + 1) as u8,
            1 | 2 => full,
            _ => 0,
        });
        (layer, wanted.collect())
    }

    fn write(
        layer: InkLayer,
        pick: impl FnMut(usize, usize, &CoverageModel, &CoverageContext) -> u8,
    ) -> Result<(InkLayer, Vec<u8>), EntropyError> {
        InkLayer::encode((layer.inks, layer.papers), layer.cells, layer.full, pick)
    }

    #[test]
    fn layers_round_trip() {
        for seed in [1, 2, 3] {
            for full in [1, 2, 7, 31] {
                let (layer, wanted) = layer(seed, full);
                let (layer, data) = write(layer, |x, y, _, _| wanted[y * WIDTH + x]).unwrap();
                let back = InkLayer::decode(&data, WIDTH, HEIGHT).unwrap();
                assert_eq!(back, layer);
                // Bits counted are those written: colours are 24 bits each.
                let bits = layer.bits_by_cell().unwrap();
                let colours = 5 + 2 * 6 + 24 * (layer.inks.len() + layer.papers.len());
                let counted = bits.iter().sum::<u64>() as f64 / 256.0 + colours as f64;
                let written = 8.0 * data.len() as f64;
                assert!(
                    (counted - written).abs() < 0.01 * written + 16.0,
                    "{counted} {written}"
                );
                let covered = |at: usize| layer.cells.ink[at] > 0;
                let mean = |inked: bool| {
                    let of: Vec<u64> = (0..bits.len())
                        .filter(|&at| covered(at) == inked)
                        .map(|at| bits[at])
                        .collect();
                    of.iter().sum::<u64>() / of.len() as u64
                };
                assert!(
                    mean(true) > 5 * mean(false),
                    "{} {}",
                    mean(true),
                    mean(false)
                );
                // Nothing is covered outside of cells with ink.
                for (at, &wanted) in wanted.iter().enumerate() {
                    let (x, y) = (at % WIDTH, at / WIDTH);
                    let inked = layer.cells.ink[y / CELL * layer.cells.width + x / CELL] > 0;
                    assert_eq!(back.coverage.get(x, y), if inked { wanted } else { 0 });
                }
            }
        }
    }

    #[test]
    fn cut_layers_and_wrong_bytes_are_errors_or_sound_layers() {
        let (layer, wanted) = layer(9, 6);
        let (layer, data) = write(layer, |x, y, _, _| wanted[y * WIDTH + x]).unwrap();
        let mut picture = Picture::new(WIDTH as u32, HEIGHT as u32).unwrap();
        let mut check = |data: &[u8]| match InkLayer::decode(data, WIDTH, HEIGHT) {
            Ok(layer) => {
                layer.apply(&mut picture);
                let samples = picture.planes().iter().flat_map(|p| p.data());
                assert!(samples.max() <= Some(&1023));
                false
            }
            Err(_) => true,
        };
        assert!(!check(&data));
        let cut = (0..data.len() / 2).filter(|&n| check(&data[..n]));
        assert!(cut.count() > data.len() / 3);
        let mut refused = 0;
        for i in 0..data.len() {
            let mut wrong = data.clone();
            wrong[i] ^= 1 << (i % 8);
            refused += usize::from(check(&wrong));
        }
        assert!(refused > data.len() / 2, "{refused} of {}", data.len());
        assert_eq!(layer.papers.len(), 3);
    }

    #[test]
    fn ink_adds_what_it_differs_by_from_its_paper() {
        let (mut layer, _) = layer(5, 4);
        (layer.inks, layer.papers) = (vec![[200, 100, 30]], vec![[128, 128, 140]]);
        layer.cells.ink.fill(0);
        layer.cells.paper.fill(0);
        let at = layer.cells.width + 1;
        (layer.cells.ink[at], layer.cells.paper[at]) = (1, 1);
        // Column 8 full, column 9 half, the rest of the cell bare.
        let wanted = |x: usize, _: usize, _: &_, _: &_| [4, 2, 0, 0, 0, 0, 0, 0][x % 8];
        let (layer, _) = write(layer, wanted).unwrap();
        let mut picture = Picture::new(WIDTH as u32, HEIGHT as u32).unwrap();
        picture.plane_mut(0).row_mut(9)[8] = 900;
        let bare = picture.clone();
        layer.apply(&mut picture);
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                let expected = match (x, y) {
                    (8, 9) => 1023,
                    (8, 8..16) => 800,
                    (9, 8..16) => 656,
                    _ => 512,
                };
                assert_eq!(picture.luma().row(y)[x], expected, "{x} {y}");
            }
        }
        // Three quarters of the first column of chroma are covered.
        assert_eq!(picture.plane(1).row(4)[3..6], [512, 428, 512]);
        assert_eq!(picture.plane(2).row(7)[3..6], [512, 182, 512]);
        layer.remove(&mut picture);
        picture.plane_mut(0).row_mut(9)[8] = 900;
        assert_eq!(picture, bare);
    }

    #[test]
    fn paper_takes_the_place_of_the_prediction() {
        let (mut layer, _) = layer(5, 4);
        layer.papers = vec![[16, 128, 128], [200, 90, 180]];
        let cells = layer.cells.ink.len();
        layer.cells.paper = (0..cells).map(|at| (at % 3) as u8).collect();
        let (mut p, mut d) = (vec![7; 96 * cells], vec![9; 96 * cells]);
        layer.ground(&mut p, &mut d);
        for at in 0..cells {
            let got = |c: usize| (p[c * cells + at], d[c * cells + at]);
            let expected = match at % 3 {
                0 => [(7, 9); 3],
                1 => [(-448, 0), (0, 0), (0, 0)],
                _ => [(288, 0), (-152, 0), (208, 0)],
            };
            assert_eq!([got(63), got(64), got(95)], expected);
            assert_eq!([got(0), got(79), got(80)], expected);
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Finding ink: which cells show one colour on a plain ground, and which of them are worth coding
//! so.

use nnv_format::entropy::{BitCounter, CoveragePlane, EntropyError, MAX_FULL};
use nnv_format::ink::{CELL, Cells, Ink, InkLayer, MAX_INKS, difference};
use nnv_format::picture::Picture;
use std::collections::HashMap;

/// Least contrast of ink, in 10-bit samples.
const CONTRAST: i32 = 96;
/// Least part of a cell's surroundings that is paper.
const PAPER: f32 = 0.35;
/// Samples that differ by at most this from the paper are paper.
const PAPER_NOISE: i32 = 24;
/// Inks are rounded to multiples of this (8-bit samples), and those no farther apart than
/// [`ALIKE_INKS`] are one.
const INK_STEP: i32 = 8;
const ALIKE_INKS: u8 = 12;
const ALIKE_PAPERS: u8 = 1;
/// One in so many of a picture's cells make a layer worth its trouble, in key frames and in others.
const LEAST_CELLS: [usize; 2] = [400, 1000];
/// Bits that a cell with ink takes at least.
const LEAST_BITS: f32 = 12.0;
/// Bits of a cell's side information, about.
const CELL_BITS: f32 = 4.0;
/// Least gain of a layer, in bits and as part of the bits without it: smaller ones are not sure,
/// and to code a frame once more takes its time.
const LEAST_GAIN: (f32, f32) = (1500.0, 0.15);
/// What of a place's bits goes away with its ink: the paper under it still costs some.
const SAVED: f32 = 0.9;

/// A picture taken apart into paper and ink.
#[derive(Debug, Clone)]
pub struct Separation {
    inks: Vec<Ink>,
    papers: Vec<Ink>,
    cells: Cells,
    /// Colour of the paper by cell.
    paper: Vec<[u16; 3]>,
    full: u8,
    /// Fewer cells with ink than this are not worth it.
    least: usize,
}

/// What is known of a cell before inks are chosen.
#[derive(Debug, Clone, Copy)]
struct Ground {
    paper: i32,
    /// The sample farthest from the paper, less the paper.
    extreme: i32,
    /// The one farthest to the other side.
    other: i32,
}

/// A cell's samples.
fn cell_of(x: usize, y: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    (x * CELL..(x + 1) * CELL, y * CELL..(y + 1) * CELL)
}

/// The samples of a cell and of the eight around it.
fn surroundings(
    x: usize,
    y: usize,
    width: usize,
    height: usize,
) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let range = |at: usize, end: usize| (at.saturating_sub(1)) * CELL..((at + 2) * CELL).min(end);
    (range(x, width), range(y, height))
}

/// The commonest luma around a cell, and which part of the samples have it.
fn paper_luma(picture: &Picture, x: usize, y: usize) -> (i32, f32) {
    let luma = picture.luma();
    let (columns, rows) = surroundings(x, y, luma.width(), luma.height());
    let (mut count, mut sum) = ([0u32; 256], [0u32; 256]);
    for row in rows.clone() {
        for &v in &luma.row(row)[columns.clone()] {
            count[usize::from(v >> 2)] += 1;
            sum[usize::from(v >> 2)] += u32::from(v);
        }
    }
    let around = |bins: &[u32; 256], at: usize| -> u32 {
        bins[at.saturating_sub(3)..(at + 4).min(256)].iter().sum()
    };
    let mut n: u32 = count[..3].iter().sum();
    let mut best = (0, 0);
    for at in 0..256 {
        n += count.get(at + 3).unwrap_or(&0);
        if n > best.0 {
            best = (n, at);
        }
        n -= if at >= 3 { count[at - 3] } else { 0 };
    }
    let total = (columns.len() * rows.len()) as f32;
    let paper = around(&sum, best.1) / best.0.max(1);
    (paper as i32, best.0 as f32 / total)
}

/// What part of a sample is ink, 0 to 1.
#[inline]
fn covered(sample: u16, paper: i32, ink: i32) -> f32 {
    let contrast = ink - paper;
    if contrast == 0 {
        0.0
    } else {
        ((i32::from(sample) - paper) as f32 / contrast as f32).clamp(0.0, 1.0)
    }
}

impl Separation {
    /// Takes a picture apart; `None` where there is hardly any ink. Where a `prediction` is near
    /// enough none is looked for. `worth`: squared error (of 10-bit samples) that a bit is worth.
    pub fn find(picture: &Picture, prediction: Option<&Picture>, worth: f32) -> Option<Self> {
        let luma = picture.luma();
        let mut cells = Cells::new(luma.width(), luma.height());
        let (width, height) = (cells.width, cells.height);
        let least = width * height / LEAST_CELLS[usize::from(prediction.is_some())] + 1;
        let badly_predicted = |at: usize, prediction: &Picture| {
            cell_sse(picture, prediction, at % width, at / width) > worth * LEAST_BITS
        };
        let asked: Vec<bool> = (0..width * height)
            .map(|at| prediction.is_none_or(|prediction| badly_predicted(at, prediction)))
            .collect();
        if asked.iter().filter(|asked| **asked).count() < least {
            return None;
        }
        let ground = grounds(picture, &asked, width, height);
        if ground.iter().flatten().count() < least {
            return None;
        }
        let (mut paper, mut wanted): (Vec<_>, Vec<_>) = (0..ground.len())
            .map(|at| {
                let colours = ground[at].and_then(|own| {
                    let place = (at % width, at / width);
                    let ink = own.paper + strongest(&ground, width, place, own.extreme);
                    let (under, over) = chroma(picture, place, own.paper, ink)?;
                    let under = [own.paper.clamp(0, 1023) as u16, under[0], under[1]];
                    Some((under, [ink, over[0], over[1]].map(round_ink)))
                });
                colours.map_or(([0; 3], None), |(paper, ink)| (paper, Some(ink)))
            })
            .unzip();
        // In key frames there is no prediction that flat paper could take the place of.
        let flat = |at: usize| prediction.is_some() && asked[at];
        let numbers = &mut cells.paper;
        let papers = choose_papers(picture, flat, numbers, width, &mut paper, &mut wanted);
        let (inks, nearest) = palette(&wanted, ALIKE_INKS);
        for (at, ink) in wanted.iter().enumerate() {
            let Some(ink) = ink else { continue };
            cells.ink[at] = nearest.get(ink).copied().unwrap_or(0);
            if cells.ink[at] == 0 {
                cells.clear(at);
            }
        }
        let mut found = Self {
            full: levels(&cells, &inks, &paper, worth),
            inks,
            papers,
            cells,
            paper,
            least,
        };
        found.keep_two_toned(picture, &ground);
        (found.count() >= least).then_some(found)
    }

    /// Number of cells with ink or paper.
    fn count(&self) -> usize {
        self.cells.papered().count()
    }

    fn contrast(&self, at: usize) -> i32 {
        let ink = usize::from(self.cells.ink[at]) - 1;
        4 * i32::from(self.inks[ink][0]) - i32::from(self.paper[at][0])
    }

    /// The open-loop coverage at a sample of a cell.
    fn level(&self, at: usize, sample: u16) -> u8 {
        let paper = i32::from(self.paper[at][0]);
        let part = covered(sample, paper, paper + self.contrast(at));
        (part * f32::from(self.full) + 0.5) as u8
    }

    /// Squared error of a cell whose ink is coded: where there is none, the paper stands as it is.
    fn cell_error(&self, picture: &Picture, at: usize) -> f32 {
        let (columns, rows) = cell_of(at % self.cells.width, at / self.cells.width);
        let ink = self.inks[usize::from(self.cells.ink[at]) - 1];
        let paper = (self.paper[at][0] / 4) as u8;
        let mut sum = 0;
        for y in rows {
            for &v in &picture.luma().row(y)[columns.clone()] {
                let level = self.level(at, v);
                let made = difference(ink[0], paper, level.into(), self.full.into());
                let d = i32::from(v) - i32::from(self.paper[at][0]) - made;
                if level > 0 || d.abs() > PAPER_NOISE {
                    sum += d * d;
                }
            }
        }
        sum as f32
    }

    /// Drops the cells that show more than one ink and its smooth edges.
    fn keep_two_toned(&mut self, picture: &Picture, ground: &[Option<Ground>]) {
        for (at, ground) in ground.iter().enumerate() {
            let Some(ground) = ground.filter(|_| self.cells.ink[at] > 0) else {
                continue;
            };
            let contrast = self.contrast(at);
            let (amplitude, other) = (ground.extreme.abs() as f32, ground.other.abs() as f32);
            let mean = self.cell_error(picture, at) / (CELL * CELL) as f32;
            let plain = contrast.abs() >= CONTRAST
                && contrast.signum() == ground.extreme.signum()
                && other < 0.35 * amplitude
                && mean < (0.25 * amplitude).powi(2).max(960.0);
            if !plain {
                self.cells.clear(at);
            }
        }
    }

    /// Drops what costs more than the networks' way of coding: `coded` is the picture as they code
    /// it, with `bits` by place of 16×16 luma samples. False where too little stays.
    pub fn prune(
        &mut self,
        picture: &Picture,
        prediction: Option<&Picture>,
        coded: &Picture,
        bits: &[f32],
        worth: f32,
    ) -> bool {
        let Ok(ink_bits) = self.open_loop_bits(picture) else {
            return false;
        };
        let width = self.cells.width;
        let mut total = 0.0;
        for (place, &bits) in bits.iter().enumerate() {
            let (px, py) = (2 * (place % (width / 2)), 2 * (place / (width / 2)));
            let cells = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(x, y)| (py + y) * width + px + x);
            // The networks' bits go where there is something to code.
            let (mut gain, mut energy, mut taken) = (0.0, 1.0, 0.0);
            for at in cells {
                let (x, y) = (at % width, at / width);
                let own = match prediction {
                    Some(prediction) => cell_sse(picture, prediction, x, y),
                    None => variance(picture, x, y),
                };
                energy += own;
                let inked = self.cells.ink[at] > 0;
                if self.cells.paper[at] == 0 {
                    continue;
                }
                taken += own;
                gain += cell_sse(picture, coded, x, y) - worth * CELL_BITS;
                gain -= if inked {
                    self.cell_error(picture, at) + worth * ink_bits[at]
                } else {
                    paper_error(picture, self.paper[at], x, y)
                };
            }
            gain += worth * bits * SAVED * taken / energy;
            if gain > 0.0 {
                total += gain;
            } else {
                for at in cells {
                    self.cells.clear(at);
                }
            }
        }
        let bits: f32 = bits.iter().sum();
        self.count() >= self.least && total > worth * (LEAST_GAIN.0 + LEAST_GAIN.1 * bits)
    }

    /// Bits of the coverage of each cell.
    fn open_loop_bits(&self, picture: &Picture) -> Result<Vec<f32>, EntropyError> {
        let luma = picture.luma();
        let mut bits = vec![0.0; self.cells.ink.len()];
        let mut plane = CoveragePlane::new(luma.width(), luma.height());
        self.cells.code_coverage(
            &mut BitCounter::default(),
            self.full,
            &mut plane,
            |x, y, model, context| {
                let at = y / CELL * self.cells.width + x / CELL;
                let level = self.level(at, luma.row(y)[x]);
                bits[at] += model.cost(context, level) as f32 / 256.0;
                level
            },
        )?;
        Ok(bits)
    }

    /// The picture with a reference's samples where paper takes the place of the prediction: no
    /// motion suits them best.
    pub fn still(&self, picture: &Picture, reference: &Picture) -> Picture {
        let mut out = picture.clone();
        for (column, row, _) in self.cells.papered() {
            for plane in 0..3 {
                let side = if plane == 0 { CELL } else { CELL / 2 };
                let columns = column * side..(column + 1) * side;
                for y in row * side..(row + 1) * side {
                    let from = &reference.plane(plane).row(y)[columns.clone()];
                    out.plane_mut(plane).row_mut(y)[columns.clone()].copy_from_slice(from);
                }
            }
        }
        out
    }

    /// Chooses the coverage by error and rate: the layer, as written, and the picture without it,
    /// which the networks are to code.
    ///
    /// # Errors
    /// None that a valid separation could cause.
    pub fn finish(
        self,
        picture: &Picture,
        worth: f32,
    ) -> Result<(InkLayer, Vec<u8>, Picture), EntropyError> {
        let luma = picture.luma();
        let full = self.full;
        let (width, cells) = (self.cells.width, self.cells.clone());
        let (inks, papers) = (self.inks.clone(), self.papers.clone());
        let colours = (self.inks, self.papers);
        let (layer, data) = InkLayer::encode(colours, self.cells, full, |x, y, model, context| {
            let at = y / CELL * width + x / CELL;
            let ink = inks[usize::from(cells.ink[at]) - 1][0];
            let paper = papers[usize::from(cells.paper[at]) - 1][0];
            let (wanted, ground) = (luma.row(y)[x], 4 * i32::from(paper));
            let at = covered(wanted, ground, 4 * i32::from(ink)) * f32::from(full);
            let below = at as u8;
            let mut best = (f32::INFINITY, 0);
            let choices = [
                Some(below),
                (below < full).then_some(below + 1),
                (below > 0 && at < 2.5).then_some(0),
                (below + 2 >= full && below + 1 < full).then_some(full),
            ];
            for level in choices.into_iter().flatten() {
                let made = ground + difference(ink, paper, level.into(), full.into());
                let error = (i32::from(wanted) - made) as f32;
                let bits = model.cost(context, level) as f32 / 256.0;
                let cost = error * error + worth * bits;
                if cost < best.0 {
                    best = (cost, level);
                }
            }
            best.1
        })?;
        let mut without = picture.clone();
        layer.remove(&mut without);
        Ok((layer, data, without))
    }
}

/// The contrast of a cell's ink, given its own extreme: the ink of a thin stroke shows best where
/// the stroke is thickest.
fn strongest(ground: &[Option<Ground>], width: usize, (x, y): (usize, usize), own: i32) -> i32 {
    let height = ground.len() / width;
    let rows = y.saturating_sub(1)..(y + 2).min(height);
    let columns = x.saturating_sub(1)..(x + 2).min(width);
    rows.flat_map(|y| &ground[y * width..][columns.clone()])
        .flatten()
        .map(|g| g.extreme)
        .filter(|e| e.signum() == own.signum())
        .fold(own, |far, e| if e.abs() > far.abs() { e } else { far })
}

/// Chooses the papers: under ink, and for cells that are to be `flat` and are. Cells get their
/// numbers, and `paper` the colours as they will be coded; `wanted` loses the inks that find no
/// paper.
fn choose_papers(
    picture: &Picture,
    flat: impl Fn(usize) -> bool,
    numbers: &mut [u8],
    width: usize,
    paper: &mut [[u16; 3]],
    wanted: &mut [Option<Ink>],
) -> Vec<Ink> {
    let colours: Vec<Option<Ink>> = (0..numbers.len())
        .map(|at| {
            let colour = match wanted[at] {
                Some(_) => Some(paper[at]),
                None if flat(at) => flat_colour(picture, at % width, at / width),
                None => None,
            };
            colour.map(|c| c.map(|v| ((v + 2) >> 2).min(255) as u8))
        })
        .collect();
    let (papers, nearest) = palette(&colours, ALIKE_PAPERS);
    for (at, colour) in colours.iter().enumerate() {
        numbers[at] = colour.and_then(|c| nearest.get(&c).copied()).unwrap_or(0);
        match numbers[at] {
            0 => wanted[at] = None,
            n => paper[at] = papers[usize::from(n) - 1].map(|v| 4 * u16::from(v)),
        }
    }
    papers
}

/// What a look at a cell's luma says.
struct Sight {
    low: u16,
    high: u16,
    /// Samples by value in steps of 32.
    coarse: [u8; 32],
}

/// The paper of each cell of those asked for that has something else in sight, and the extremes of
/// its samples.
fn grounds(picture: &Picture, asked: &[bool], width: usize, height: usize) -> Vec<Option<Ground>> {
    let luma = picture.luma();
    let sights: Vec<Sight> = (0..width * height)
        .map(|at| {
            let (columns, rows) = cell_of(at % width, at / width);
            let mut sight = Sight {
                low: u16::MAX,
                high: 0,
                coarse: [0; 32],
            };
            for &v in rows.flat_map(|y| &luma.row(y)[columns.clone()]) {
                (sight.low, sight.high) = (sight.low.min(v), sight.high.max(v));
                sight.coarse[usize::from(v >> 5) & 31] += 1;
            }
            sight
        })
        .collect();
    let ground = |at: usize| {
        if !asked[at] {
            return None;
        }
        let (x, y) = (at % width, at / width);
        let (rows, columns) = (
            y.saturating_sub(1)..(y + 2).min(height),
            x.saturating_sub(1)..(x + 2).min(width),
        );
        let (mut low, mut high, mut coarse) = (u16::MAX, 0, [0u16; 32]);
        let cells = rows.flat_map(|y| &sights[y * width..][columns.clone()]);
        for sight in cells {
            (low, high) = (low.min(sight.low), high.max(sight.high));
            for (sum, n) in coarse.iter_mut().zip(sight.coarse) {
                *sum += u16::from(n);
            }
        }
        // Nothing of enough contrast in sight, or no paper: that spares the exact count, whose
        // window lies within two steps.
        let all: u16 = coarse.iter().sum();
        let most = coarse.windows(2).map(|w| w[0] + w[1]).max();
        if i32::from(high - low) < CONTRAST || f32::from(most?) <= PAPER * f32::from(all) {
            return None;
        }
        let (paper, part) = paper_luma(picture, x, y);
        let own = &sights[at];
        let (up, down) = (i32::from(own.high) - paper, i32::from(own.low) - paper);
        let (extreme, other) = if up >= -down { (up, down) } else { (down, up) };
        (part > PAPER && extreme.abs() > CONTRAST).then_some(Ground {
            paper,
            extreme,
            other,
        })
    };
    (0..width * height).map(ground).collect()
}

/// Chroma of paper and ink around a cell (10 bit): the mean of what is all paper, and the least
/// squared error for the rest.
fn chroma(
    picture: &Picture,
    (x, y): (usize, usize),
    paper: i32,
    ink: i32,
) -> Option<([u16; 2], [i32; 2])> {
    let luma = picture.luma();
    let (columns, rows) = surroundings(x, y, luma.width(), luma.height());
    let mut parts = Vec::with_capacity(columns.len() * rows.len() / 4);
    for y in rows.start / 2..rows.end / 2 {
        for x in columns.start / 2..columns.end / 2 {
            let samples = [2 * y, 2 * y + 1].map(|y| &luma.row(y)[2 * x..2 * x + 2]);
            let sum: f32 = samples
                .iter()
                .flat_map(|s| s.iter())
                .map(|&v| covered(v, paper, ink))
                .sum();
            parts.push((x, y, sum / 4.0));
        }
    }
    let (mut ground, mut colour) = ([0; 2], [0; 2]);
    for plane in [1, 2] {
        let sample = |x: usize, y: usize| f32::from(picture.plane(plane).row(y)[x]);
        let (mut n, mut sum) = (0.0, 0.0);
        for &(x, y, _) in parts.iter().filter(|p| p.2 < 0.05) {
            n += 1.0;
            sum += sample(x, y);
        }
        if n == 0.0 {
            return None;
        }
        let mean: f32 = sum / n;
        // Half a sample of full coverage keeps thin type, of which nothing certain is known, the
        // colour of its paper.
        let (mut up, mut down) = (0.0, 0.5);
        for &(x, y, part) in &parts {
            up += part * (sample(x, y) - mean);
            down += part * part;
        }
        ground[plane - 1] = mean.round() as u16;
        colour[plane - 1] = (mean + up / down).round() as i32;
    }
    Some((ground, colour))
}

/// The mean colour of a cell whose samples are all near it.
fn flat_colour(picture: &Picture, x: usize, y: usize) -> Option<[u16; 3]> {
    let mut colour = [0; 3];
    for (plane, colour) in colour.iter_mut().enumerate() {
        let side = if plane == 0 { CELL } else { CELL / 2 };
        let rows = y * side..(y + 1) * side;
        let samples = rows.flat_map(|row| &picture.plane(plane).row(row)[x * side..(x + 1) * side]);
        let (mut low, mut high, mut sum) = (u16::MAX, 0, 0);
        for &v in samples {
            (low, high, sum) = (low.min(v), high.max(v), sum + u32::from(v));
        }
        if i32::from(high - low) > PAPER_NOISE {
            return None;
        }
        *colour = (sum / (side * side) as u32) as u16;
    }
    Some(colour)
}

/// Squared error of a cell that is all paper.
fn paper_error(picture: &Picture, paper: [u16; 3], x: usize, y: usize) -> f32 {
    let mut sum = 0;
    for (plane, &paper) in paper.iter().enumerate() {
        let side = if plane == 0 { CELL } else { CELL / 2 };
        for row in y * side..(y + 1) * side {
            let samples = &picture.plane(plane).row(row)[x * side..(x + 1) * side];
            let errors = samples.iter().map(|&v| i32::from(v) - i32::from(paper));
            sum += errors.map(|e| e * e).sum::<i32>();
        }
    }
    sum as f32
}

/// A 10-bit sample as an ink's 8-bit one.
fn round_ink(v: i32) -> u8 {
    let steps = (v + 2 * INK_STEP).div_euclid(4 * INK_STEP);
    (steps * INK_STEP).clamp(0, 255) as u8
}

/// The commonest colours, and the number (from 1 on) of the one that each colour is replaced by.
fn palette(wanted: &[Option<Ink>], alike: u8) -> (Vec<Ink>, HashMap<Ink, u8>) {
    let mut counts = HashMap::<Ink, usize>::new();
    for ink in wanted.iter().flatten() {
        *counts.entry(*ink).or_default() += 1;
    }
    let mut order: Vec<(usize, Ink)> = counts.into_iter().map(|(ink, n)| (n, ink)).collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    let mut inks: Vec<Ink> = Vec::new();
    let mut nearest = HashMap::new();
    for (_, ink) in order {
        let distance = |other: &Ink| (0..3).map(|i| ink[i].abs_diff(other[i])).max();
        let best = inks.iter().enumerate().min_by_key(|(_, o)| distance(o));
        match best {
            Some((i, other)) if distance(other) <= Some(alike) => {
                nearest.insert(ink, i as u8 + 1);
            }
            _ if inks.len() < MAX_INKS => {
                inks.push(ink);
                nearest.insert(ink, inks.len() as u8);
            }
            _ => {}
        }
    }
    (inks, nearest)
}

/// Levels of coverage that pay: each more costs the edges' samples a part of a bit and quarters
/// their error.
fn levels(cells: &Cells, inks: &[Ink], paper: &[[u16; 3]], worth: f32) -> u8 {
    let mut contrasts: Vec<i32> = (cells.ink.iter().zip(paper))
        .filter(|(ink, _)| **ink > 0)
        .map(|(&ink, paper)| {
            (4 * i32::from(inks[usize::from(ink) - 1][0]) - i32::from(paper[0])).abs()
        })
        .collect();
    if contrasts.is_empty() {
        return 1;
    }
    let middle = contrasts.len() / 2;
    let (_, &mut median, _) = contrasts.select_nth_unstable(middle);
    // The error of n levels is contrast^2 / (12 n^2), their rate about log2(n): d error = worth * d
    // rate.
    let best = median as f32 * (std::f32::consts::LN_2 / (6.0 * worth.max(0.01))).sqrt();
    (best.round() as u32).clamp(2, MAX_FULL.into()) as u8
}

/// Squared error of luma in a cell, and of chroma.
fn cell_sse(a: &Picture, b: &Picture, x: usize, y: usize) -> f32 {
    let mut sum = 0;
    for plane in 0..3 {
        let side = if plane == 0 { CELL } else { CELL / 2 };
        for row in y * side..(y + 1) * side {
            let columns = x * side..(x + 1) * side;
            let a = &a.plane(plane).row(row)[columns.clone()];
            let b = &b.plane(plane).row(row)[columns];
            sum += (a.iter().zip(b))
                .map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2))
                .sum::<i32>();
        }
    }
    sum as f32
}

/// Sum of squared deviations from the mean of a cell's luma.
fn variance(picture: &Picture, x: usize, y: usize) -> f32 {
    let (columns, rows) = cell_of(x, y);
    let samples = rows.flat_map(|row| &picture.luma().row(row)[columns.clone()]);
    let (sum, squares) = samples.fold((0.0f32, 0.0f32), |(s, q), &v| {
        let v = f32::from(v) - 512.0;
        (s + v, q + v * v)
    });
    squares - sum * sum / (CELL * CELL) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 320;
    const HEIGHT: usize = 192;

    /// A page: smoothed strokes of dark or coloured ink on light paper, in a frame of noise.
    fn page() -> Picture {
        let mut seed = 3u32;
        let mut rng = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        let mut picture = Picture::new(WIDTH as u32, HEIGHT as u32).unwrap();
        for plane in picture.planes_mut() {
            plane.data_mut().fill(512);
        }
        let noise = 96;
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                let v = if x < noise {
                    300 + rng(400) as u16
                } else {
                    900
                };
                picture.plane_mut(0).row_mut(y)[x] = v;
            }
        }
        for line in 0..HEIGHT / 16 {
            for letter in 0..(WIDTH - noise) / 10 {
                let (left, top) = (noise + 10 * letter, 16 * line + 3);
                for _ in 0..2 {
                    let (x, tall) = (left + rng(6) as usize, 4 + rng(6) as usize);
                    for y in top..top + tall {
                        let row = picture.plane_mut(0).row_mut(y);
                        row[x] = row[x].min(560);
                        row[x + 1] = 100;
                    }
                }
            }
        }
        picture
    }

    #[test]
    fn type_is_found_and_noise_is_not() {
        let picture = page();
        let found = Separation::find(&picture, None, 1500.0).unwrap();
        let inked: Vec<_> = found.cells.inked().collect();
        assert!(inked.len() > 300, "{}", inked.len());
        assert!(inked.iter().all(|&(x, ..)| x >= 11), "noise is no type");
        let ink = found.inks[inked[100].2];
        assert!(
            ink[0].abs_diff(25) <= 8 && ink[1].abs_diff(128) <= 4,
            "{ink:?}"
        );
        // Nothing stays of the type on the paper.
        let (layer, data, paper) = found.finish(&picture, 20.0).unwrap();
        let rows = paper.luma().visible_rows();
        let kept = rows.flat_map(|r| &r[104..]).filter(|v| **v < 800).count();
        assert!(kept < 100, "{kept}");
        // And all of it comes back with the ink.
        let mut back = paper.clone();
        layer.apply(&mut back);
        assert!(back.psnr(&picture)[0] > 60.0, "{:?}", back.psnr(&picture));
        assert!(data.len() < 2000, "{}", data.len());
    }

    #[test]
    fn what_is_predicted_needs_no_ink() {
        let picture = page();
        assert!(Separation::find(&picture, Some(&picture), 1500.0).is_none());
        let blank = Picture::new(WIDTH as u32, HEIGHT as u32).unwrap();
        let found = Separation::find(&picture, Some(&blank), 1500.0).unwrap();
        // The lines between the type are paper, too.
        let papered = found.cells.papered().count();
        assert!(papered > found.cells.inked_count(), "{papered}");
        let still = found.still(&picture, &blank);
        assert!(still.luma().row(20)[200..240].iter().all(|v| *v == 512));
        assert_eq!(still.luma().row(20)[..88], picture.luma().row(20)[..88]);
    }

    #[test]
    fn ink_that_costs_more_than_it_saves_is_dropped() {
        let picture = page();
        let found = Separation::find(&picture, None, 1500.0).unwrap();
        let places = WIDTH / 16 * (HEIGHT / 16);
        let (mut kept, mut dropped) = (found.clone(), found);
        assert!(kept.prune(&picture, None, &picture, &vec![900.0; places], 1500.0));
        assert!(!dropped.prune(&picture, None, &picture, &vec![20.0; places], 1500.0));
    }
}

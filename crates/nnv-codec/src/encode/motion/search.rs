// SPDX-License-Identifier: MPL-2.0
//! Motion search (the encoder's freedom): which field predicts a picture well and costs few bits.
//!
//! Coarse vectors come from full searches at an eighth and refinements at a quarter of the size.
//! Blocks are then decided one after the other with the candidates and predictors that coding will
//! use: merging, one reference, both, or a split. Rows of blocks run as a wavefront, so the result
//! does not depend on the number of threads.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::super::step::nominal_step;
use super::kernels::{Block14, Bytes, Samples, Side, Window, full8, load};
use nnv_format::motion::MotionError;
use nnv_format::motion::candidates::{Neighbourhood, Place};
use nnv_format::motion::field::{CELL, Leaf, Mode, MotionField, Mv};
use nnv_format::picture::{Picture, Plane};

/// How much time the search may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum SearchEffort {
    /// One vector per block, few starts, one round of sub-pel steps; where both references lie in
    /// the past, into the first one alone.
    Least,
    /// As `Fast`, but one vector per block, and none anew where what is there comes near: for
    /// averages, which a bad block is left out of.
    Filter,
    /// Few sub-pel steps, splits only where they promise much.
    Fast,
    /// Full decisions.
    #[default]
    Medium,
    /// Wider searches, more joint refinement, and a second pass that knows the blocks to come.
    Slow,
}

/// What the search goes by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchParams {
    /// Time against quality.
    pub effort: SearchEffort,
    /// Cost of a bit, in sums of absolute differences of 10-bit samples.
    pub lambda: f32,
    /// Threads to use, at least one.
    pub threads: usize,
    /// Temporal distances (the picture's time minus the references'); zero where unknown.
    pub distances: [i16; 2],
}

impl SearchParams {
    /// Parameters for `quantizer` (0..=63), medium effort, one thread, distances unknown.
    pub fn new(quantizer: u8) -> Self {
        Self {
            effort: SearchEffort::Medium,
            lambda: lambda_of_quantizer(quantizer),
            threads: 1,
            distances: [0; 2],
        }
    }
}

/// Cost of a bit at `quantizer`: about a third of the quantizer's step, as in other codecs.
pub fn lambda_of_quantizer(quantizer: u8) -> f32 {
    let step = nominal_step(f64::from(quantizer)) as f32;
    0.37 * 4.0 * step
}

/// Finds the motion of `current` against its references (one twice where there is only one).
///
/// `colocated` must be the field that coding will use. The field returned has the distances of
/// `params` and is ready for coding.
///
/// # Errors
/// [`MotionError::Size`] where a reference or the co-located field has another size.
pub fn search(
    current: &Picture,
    refs: [&Picture; 2],
    colocated: Option<&MotionField>,
    params: &SearchParams,
) -> Result<MotionField, MotionError> {
    let (width, height) = (current.padded_width(), current.padded_height());
    let colocated_size = colocated.map(|f| ("the co-located field", f.padded_size()));
    let sizes = refs.map(|r| (r.padded_width(), r.padded_height()));
    let named = [
        ("the first reference", sizes[0]),
        ("the second reference", sizes[1]),
    ];
    for (what, got) in named.into_iter().chain(colocated_size) {
        if got != (width, height) {
            return Err(MotionError::Size {
                what,
                got_width: got.0,
                got_height: got.1,
                width,
                height,
            });
        }
    }
    // What an older reference adds is little beside what searching it takes.
    let last_is_enough =
        params.effort == SearchEffort::Least && params.distances.iter().all(|&d| d >= 0);
    let count = if last_is_enough || std::ptr::eq(refs[0], refs[1]) {
        1
    } else {
        2
    };
    let coarse = coarse(current, &refs[..count], params);
    let mut state = State {
        current: current.luma(),
        refs: refs.map(Picture::luma),
        count,
        columns: width / 16,
        rows: height / 16,
        coarse,
        colocated,
        params,
        cells: (0..width / CELL * (height / CELL))
            .map(|_| AtomicU64::new(pack(Leaf::default())))
            .collect(),
        progress: (0..height / 16).map(|_| AtomicUsize::new(0)).collect(),
        before: None,
    };
    state.run();
    if params.effort == SearchEffort::Slow {
        state.before = Some(state.field());
        state.run();
    }
    Ok(state.field())
}

/// A leaf in 64 bits: both vectors, with an impossible one for an unused reference.
fn pack(leaf: Leaf) -> u64 {
    let half = |i: usize| {
        let mv = leaf.mv(i);
        let x = if leaf.mode().uses(i) { mv.x } else { i16::MIN };
        u64::from(x as u16) << 16 | u64::from(mv.y as u16)
    };
    half(0) << 32 | half(1)
}

fn unpack(v: u64) -> Leaf {
    let half = |v: u32| Mv {
        x: (v >> 16) as i16,
        y: v as i16,
    };
    let mv = [half((v >> 32) as u32), half(v as u32)];
    match mv.map(|m| m.x == i16::MIN) {
        [false, false] => Leaf::bi(mv[0], mv[1]),
        [_, true] => Leaf::uni(0, mv[0]),
        [true, _] => Leaf::uni(1, mv[1]),
    }
}

/// Coarse motion: a whole-sample vector per block and reference, and one for the whole picture.
struct Coarse {
    blocks: [Vec<Mv>; 2],
    global: [Mv; 2],
}

fn coarse(current: &Picture, refs: &[&Picture], params: &SearchParams) -> Coarse {
    let (columns, rows) = (current.padded_width() / 16, current.padded_height() / 16);
    let pyramid = |p: &Picture| {
        let quarter = p.quarter_luma();
        (Bytes::of(&quarter), Bytes::of(&quarter.half()))
    };
    let (quarter, eighth) = pyramid(current);
    let range = match params.effort {
        SearchEffort::Least | SearchEffort::Filter | SearchEffort::Fast => 7,
        SearchEffort::Medium => 10,
        SearchEffort::Slow => 16,
    };
    // A sample of a quarter-size plane stands for 16; the 8×8 window covers four blocks.
    let rate = (params.lambda / 8.0) as u32;
    let search = |reference: &Picture| -> (Vec<Mv>, Mv) {
        let (quarter_ref, eighth_ref) = pyramid(reference);
        // One vector per 32×32 luma samples, from windows of 64×64.
        let (c2, r2) = (columns.div_ceil(2), rows.div_ceil(2));
        let mut top = vec![(0i32, 0i32); c2 * r2];
        parallel_rows(&mut top, c2, params.threads, |y, row| {
            for (x, out) in row.iter_mut().enumerate() {
                let at = (4 * x as i32 - 2, 4 * y as i32 - 2);
                let window = Window {
                    centre: (0, 0),
                    range,
                };
                *out = full8(&eighth.block(at), &eighth_ref, at, &window, rate).1;
            }
        });
        // One vector per block, from windows of 32×32.
        let mut blocks = vec![Mv::ZERO; columns * rows];
        parallel_rows(&mut blocks, columns, params.threads, |y, row| {
            for (x, out) in row.iter_mut().enumerate() {
                let at = (4 * x as i32 - 2, 4 * y as i32 - 2);
                let block = quarter.block(at);
                let zero = Window {
                    centre: (0, 0),
                    range: match params.effort {
                        SearchEffort::Least | SearchEffort::Filter | SearchEffort::Fast => 1,
                        SearchEffort::Medium => 2,
                        SearchEffort::Slow => 4,
                    },
                };
                let mut best = full8(&block, &quarter_ref, at, &zero, rate);
                let mut tried = [(0, 0); 5];
                let mut n = 0;
                for (dx, dy) in [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)] {
                    let tx = (x as i32 / 2 + dx).clamp(0, c2 as i32 - 1) as usize;
                    let ty = (y as i32 / 2 + dy).clamp(0, r2 as i32 - 1) as usize;
                    let (cx, cy) = top[ty * c2 + tx];
                    let centre = (2 * cx, 2 * cy);
                    if tried[..n].contains(&centre) {
                        continue;
                    }
                    tried[n] = centre;
                    n += 1;
                    let window = Window { centre, range: 1 };
                    let found = full8(&block, &quarter_ref, at, &window, rate);
                    if found.0 < best.0 {
                        best = found;
                    }
                }
                *out = Mv::clamped(16 * best.1.0, 16 * best.1.1);
            }
        });
        let global = median(&blocks);
        (blocks, global)
    };
    let mut out = Coarse {
        blocks: [Vec::new(), Vec::new()],
        global: [Mv::ZERO; 2],
    };
    for (i, reference) in refs.iter().enumerate() {
        (out.blocks[i], out.global[i]) = search(reference);
    }
    out
}

/// Componentwise median: the motion of the picture as a whole.
fn median(vectors: &[Mv]) -> Mv {
    let middle = |component: fn(&Mv) -> i16| {
        let mut v: Vec<i16> = vectors.iter().map(component).collect();
        let at = v.len() / 2;
        *v.select_nth_unstable(at).1
    };
    Mv {
        x: middle(|m| m.x),
        y: middle(|m| m.y),
    }
}

/// Runs `work` on every row of `data`, shared out over threads.
fn parallel_rows<T: Send>(
    data: &mut [T],
    columns: usize,
    threads: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    let rows = data.len() / columns;
    let share = rows.div_ceil(threads.clamp(1, rows));
    let work = &work;
    let run = move |first: usize, part: &mut [T]| {
        for (i, row) in part.chunks_mut(columns).enumerate() {
            work(first + i, row);
        }
    };
    std::thread::scope(|scope| {
        let mut parts = data.chunks_mut(share * columns).enumerate();
        let own = parts.next();
        for (i, part) in parts {
            scope.spawn(move || run(i * share, part));
        }
        if let Some((i, part)) = own {
            run(i * share, part);
        }
    });
}

struct State<'a> {
    current: &'a Plane,
    refs: [&'a Plane; 2],
    /// References that differ: 1 or 2.
    count: usize,
    columns: usize,
    rows: usize,
    coarse: Coarse,
    colocated: Option<&'a MotionField>,
    params: &'a SearchParams,
    /// Decisions so far, shared between the rows of the wavefront.
    cells: Vec<AtomicU64>,
    /// Blocks decided in each row.
    progress: Vec<AtomicUsize>,
    /// Result of the pass before.
    before: Option<MotionField>,
}

/// Lets the rows below go on when a row ends, even by a panic: nobody may wait for ever.
struct RowGuard<'a>(&'a AtomicUsize);

impl Drop for RowGuard<'_> {
    fn drop(&mut self) {
        self.0.store(usize::MAX, Ordering::Release);
    }
}

/// The best vector into one reference.
#[derive(Clone)]
struct Uni<B> {
    mv: Mv,
    satd: u32,
    /// Cost with the bits of the vector.
    cost: f32,
    prediction: B,
}

/// A choice for a leaf.
#[derive(Clone, Copy)]
struct Choice {
    cost: f32,
    satd: u32,
    leaf: Leaf,
}

/// About what the adaptive code spends on a component of a vector difference.
fn component_bits(v: i32) -> f32 {
    match v.unsigned_abs() {
        0 => 0.8,
        m => 3.0 + 1.8 * (31 - m.leading_zeros()) as f32,
    }
}

fn mv_bits(mv: Mv, from: Mv) -> f32 {
    component_bits(i32::from(mv.x) - i32::from(from.x))
        + component_bits(i32::from(mv.y) - i32::from(from.y))
}

/// Bits of a place in the list of merge candidates.
fn index_bits(i: usize) -> f32 {
    [0.9, 1.9, 2.9, 3.6, 4.4, 4.4][i.min(5)]
}

const MERGE_BITS: f32 = 0.8;
const NEW_BITS: f32 = 2.2;
const SPLIT_BITS: f32 = 2.2;
const CELL_BITS: f32 = 1.0;

fn mode_bits(around: &Neighbourhood, mode: Mode, count: usize) -> f32 {
    if count == 1 {
        return 0.1;
    }
    let same = around
        .sides()
        .iter()
        .flatten()
        .filter(|l| l.mode() == mode)
        .count();
    [2.0, 1.3, 0.6][same]
}

impl State<'_> {
    fn run(&self) {
        self.progress
            .iter()
            .for_each(|p| p.store(0, Ordering::Relaxed));
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                // Rows are taken in order, so the row above always belongs to a running thread.
                let by = next.fetch_add(1, Ordering::Relaxed);
                if by >= self.rows {
                    break;
                }
                self.row(by);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.params.threads.clamp(1, self.rows) {
                scope.spawn(work);
            }
            work();
        });
    }

    fn field(&self) -> MotionField {
        let mut field = MotionField::with_padded_size(16 * self.columns, 16 * self.rows);
        field.set_distances(self.params.distances);
        for y in 0..field.rows() {
            for x in 0..field.columns() {
                field.set_cell(x, y, self.leaf(x, y));
            }
        }
        field
    }

    fn leaf(&self, x: usize, y: usize) -> Leaf {
        unpack(self.cells[y * 2 * self.columns + x].load(Ordering::Relaxed))
    }

    fn set(&self, x: usize, y: usize, leaf: Leaf) {
        self.cells[y * 2 * self.columns + x].store(pack(leaf), Ordering::Relaxed);
    }

    fn look(&self, place: Place) -> Neighbourhood {
        Neighbourhood::new(
            place,
            2 * self.columns,
            self.params.distances,
            self.colocated,
            |x, y| self.leaf(x, y),
        )
    }

    fn row(&self, by: usize) {
        let guard = RowGuard(&self.progress[by]);
        for bx in 0..self.columns {
            if by > 0 {
                // Neighbours reach to the top right.
                let needed = (bx + 2).min(self.columns);
                let mut spins = 0;
                while self.progress[by - 1].load(Ordering::Acquire) < needed {
                    spins += 1;
                    if spins % 64 == 0 {
                        std::thread::yield_now();
                    } else {
                        std::hint::spin_loop();
                    }
                }
            }
            self.block(bx, by);
            guard.0.store(bx + 1, Ordering::Release);
        }
    }

    /// Keeps vectors from pointing far outside, where there is nothing to find.
    fn legal(&self, mv: Mv, (x, y): (usize, usize), side: usize) -> Mv {
        let limit = |v: i16, at: usize, size: usize| {
            let low = -4 * (at as i32 + side as i32 + 16);
            let high = 4 * (size as i32 - at as i32 + 16);
            i32::from(v).clamp(low, high)
        };
        Mv::clamped(
            limit(mv.x, x, self.current.width()),
            limit(mv.y, y, self.current.height()),
        )
    }

    fn satd_of<S: Side>(
        &self,
        samples: &S,
        at: (usize, usize),
        leaf: Leaf,
        (p, q): (&mut S::Block, &mut S::Block),
    ) -> u32 {
        match leaf.mode() {
            Mode::Ref0 => samples.satd_at(self.refs[0], at, leaf.mv(0), p),
            Mode::Ref1 => samples.satd_at(self.refs[1], at, leaf.mv(1), p),
            Mode::Bi => {
                samples.satd_at(self.refs[0], at, leaf.mv(0), p);
                samples.satd_at(self.refs[1], at, leaf.mv(1), q);
                samples.satd_pair(p, q)
            }
        }
    }

    /// The best merge candidate; `extra` bits come on top.
    fn merge<S: Side>(
        &self,
        samples: &S,
        at: (usize, usize),
        around: &Neighbourhood,
        extra: f32,
    ) -> Choice {
        let (mut p, mut q) = (S::block(), S::block());
        let mut best = Choice {
            cost: f32::INFINITY,
            satd: u32::MAX,
            leaf: Leaf::default(),
        };
        for (i, &leaf) in around.candidates().iter().enumerate() {
            // With one reference the second is the first again.
            if self.count == 1 && leaf.mode() != Mode::Ref0 {
                continue;
            }
            let rate = self.params.lambda * (index_bits(i) + extra);
            if rate >= best.cost {
                break;
            }
            let satd = self.satd_of(samples, at, leaf, (&mut p, &mut q));
            let cost = satd as f32 + rate;
            if cost < best.cost {
                best = Choice { cost, satd, leaf };
            }
        }
        best
    }

    /// The best vector into reference `r`, from `starts`.
    fn uni<S: Side>(
        &self,
        samples: &S,
        at: (usize, usize),
        r: usize,
        from: Mv,
        starts: &[Mv],
    ) -> Uni<S::Block> {
        let (lambda, plane) = (self.params.lambda, self.refs[r]);
        let (x, y) = (at.0 as i32, at.1 as i32);
        // Whole samples by plain differences.
        let whole = |mv: Mv| {
            let step = |v: i16| (i32::from(v) + 2) >> 2;
            (step(mv.x), step(mv.y))
        };
        let cost_at = |(dx, dy): (i32, i32)| {
            let mv = Mv::clamped(4 * dx, 4 * dy);
            samples.sad(plane, (x + dx, y + dy)) as f32 + lambda * mv_bits(mv, from)
        };
        let mut tried = [(i32::MIN, 0); 24];
        let mut n = 0;
        let mut best = (f32::INFINITY, (0, 0));
        for &start in starts {
            let start = whole(self.legal(start, at, S::N));
            if tried[..n].contains(&start) || n == tried.len() {
                continue;
            }
            tried[n] = start;
            n += 1;
            let cost = cost_at(start);
            if cost < best.0 {
                best = (cost, start);
            }
        }
        let rounds = match self.params.effort {
            SearchEffort::Least => 2,
            SearchEffort::Filter | SearchEffort::Fast => 4,
            SearchEffort::Medium => 12,
            SearchEffort::Slow => 24,
        };
        if self.params.effort == SearchEffort::Slow {
            // A wide diamond first: it leaves small local minima.
            let centre = best.1;
            for (dx, dy) in [
                (2, 0),
                (-2, 0),
                (0, 2),
                (0, -2),
                (1, 1),
                (1, -1),
                (-1, 1),
                (-1, -1),
                (4, 0),
                (-4, 0),
                (0, 4),
                (0, -4),
                (3, 3),
                (3, -3),
                (-3, 3),
                (-3, -3),
            ] {
                let point = (centre.0 + dx, centre.1 + dy);
                let cost = cost_at(point);
                if cost < best.0 {
                    best = (cost, point);
                }
            }
        }
        let mut came = (0, 0);
        for _ in 0..rounds {
            let centre = best.1;
            for step in [(1, 0), (-1, 0), (0, 1), (0, -1)] {
                // Where the last step came from is known already.
                if step == (-came.0, -came.1) {
                    continue;
                }
                let point = (centre.0 + step.0, centre.1 + step.1);
                let cost = cost_at(point);
                if cost < best.0 {
                    best = (cost, point);
                }
            }
            came = (best.1.0 - centre.0, best.1.1 - centre.1);
            if came == (0, 0) {
                break;
            }
        }

        // Fractions by transformed differences, from the best whole sample or the predictor.
        let mv = self.legal(Mv::clamped(4 * best.1.0, 4 * best.1.1), at, S::N);
        let mut scratch = S::block();
        let mut found = Uni {
            mv,
            satd: 0,
            cost: 0.0,
            prediction: S::block(),
        };
        found.satd = samples.satd_at(plane, at, mv, &mut found.prediction);
        found.cost = found.satd as f32 + lambda * mv_bits(mv, from);
        let mut consider = |found: &mut Uni<S::Block>, mv: Mv| {
            let rate = lambda * mv_bits(mv, from);
            if rate >= found.cost {
                return f32::INFINITY;
            }
            let satd = samples.satd_at(plane, at, mv, &mut scratch);
            let cost = satd as f32 + rate;
            if cost < found.cost {
                found.mv = mv;
                found.satd = satd;
                found.cost = cost;
                std::mem::swap(&mut found.prediction, &mut scratch);
            }
            cost
        };
        let first = self.legal(starts[0], at, S::N);
        if (first.x | first.y) & 3 != 0 {
            consider(&mut found, first);
        }
        let begin = if (found.mv.x | found.mv.y) & 1 == 0 {
            2
        } else {
            1
        };
        for step in [2i16, 1] {
            if step > begin {
                continue;
            }
            let centre = found.mv;
            let go = |dx: i16, dy: i16| {
                Mv::clamped(
                    i32::from(centre.x + dx * step),
                    i32::from(centre.y + dy * step),
                )
            };
            let right = consider(&mut found, go(1, 0));
            let left = consider(&mut found, go(-1, 0));
            let down = consider(&mut found, go(0, 1));
            let up = consider(&mut found, go(0, -1));
            let dx = if right < left { 1 } else { -1 };
            let dy = if down < up { 1 } else { -1 };
            let follow = match self.params.effort {
                SearchEffort::Least => false,
                SearchEffort::Filter | SearchEffort::Fast => found.mv != centre,
                SearchEffort::Medium | SearchEffort::Slow => true,
            };
            if follow {
                consider(&mut found, go(dx, dy));
            }
            if self.params.effort == SearchEffort::Slow {
                consider(&mut found, go(-dx, dy));
                consider(&mut found, go(dx, -dy));
                consider(&mut found, go(-dx, -dy));
            }
        }
        found
    }

    /// The best pair of vectors, starting from the best single ones.
    fn bi<S: Side>(
        &self,
        samples: &S,
        at: (usize, usize),
        around: &Neighbourhood,
        mut found: [Uni<S::Block>; 2],
        extra: f32,
        limit: f32,
    ) -> Choice {
        let lambda = self.params.lambda;
        let from = [around.predictor(0), around.predictor(1)];
        let fixed = extra + mode_bits(around, Mode::Bi, self.count);
        let rate = |a: Mv, b: Mv| lambda * (fixed + mv_bits(a, from[0]) + mv_bits(b, from[1]));
        let satd = samples.satd_pair(&found[0].prediction, &found[1].prediction);
        let mut best = Choice {
            cost: satd as f32 + rate(found[0].mv, found[1].mv),
            satd,
            leaf: Leaf::bi(found[0].mv, found[1].mv),
        };
        let (rounds, hope) = match self.params.effort {
            SearchEffort::Least | SearchEffort::Filter | SearchEffort::Fast => (0, 0.0),
            SearchEffort::Medium => (1, 1.1),
            SearchEffort::Slow => (3, 1.25),
        };
        if best.cost > hope * limit {
            return best;
        }
        let mut scratch = S::block();
        for _ in 0..rounds {
            let before = best.cost;
            // The worse prediction has more to gain.
            let worse = usize::from(found[1].satd > found[0].satd);
            for r in [worse, 1 - worse] {
                let centre = found[r].mv;
                for (dx, dy) in [(1, 0), (-1, 0), (0, 1), (0, -1)] {
                    let mv = Mv::clamped(i32::from(centre.x) + dx, i32::from(centre.y) + dy);
                    samples.satd_at(self.refs[r], at, mv, &mut scratch);
                    let satd = samples.satd_pair(&scratch, &found[1 - r].prediction);
                    let mut mvs = [found[0].mv, found[1].mv];
                    mvs[r] = mv;
                    let cost = satd as f32 + rate(mvs[0], mvs[1]);
                    if cost < best.cost {
                        best = Choice {
                            cost,
                            satd,
                            leaf: Leaf::bi(mvs[0], mvs[1]),
                        };
                        found[r].mv = mv;
                        std::mem::swap(&mut found[r].prediction, &mut scratch);
                    }
                }
            }
            if best.cost >= before {
                break;
            }
        }
        best
    }

    /// Single and joint vectors of a leaf, at `extra` bits besides.
    fn new_leaf<S: Side>(
        &self,
        samples: &S,
        at: (usize, usize),
        around: &Neighbourhood,
        starts: impl Fn(usize) -> ([Mv; 16], usize),
        extra: f32,
        best: &mut Choice,
    ) -> [Mv; 2] {
        let lambda = self.params.lambda;
        let search = |r: usize| {
            let (starts, n) = starts(r);
            self.uni(samples, at, r, around.predictor(r), &starts[..n])
        };
        let mut take = |r: usize, found: &Uni<S::Block>| {
            let mode = [Mode::Ref0, Mode::Ref1][r];
            let cost = found.cost + lambda * (extra + mode_bits(around, mode, self.count));
            if cost < best.cost {
                *best = Choice {
                    cost,
                    satd: found.satd,
                    leaf: Leaf::uni(r, found.mv),
                };
            }
        };
        let first = search(0);
        take(0, &first);
        if self.count == 1 {
            return [first.mv, Mv::ZERO];
        }
        let second = search(1);
        take(1, &second);
        let vectors = [first.mv, second.mv];
        let both = self.bi(samples, at, around, [first, second], extra, best.cost);
        if both.cost < best.cost {
            *best = both;
        }
        vectors
    }

    fn block(&self, bx: usize, by: usize) {
        let at = (16 * bx, 16 * by);
        let (x, y) = (2 * bx, 2 * by);
        let lambda = self.params.lambda;
        let samples: Samples<16> = load(self.current, at);
        let around = self.look(Place::Block { x, y });
        let mut best = self.merge(&samples, at, &around, MERGE_BITS);
        // Differences this small are lost in quantisation: searching on would buy nothing.
        let (enough, split_from) = match self.params.effort {
            SearchEffort::Least => (48.0, f32::INFINITY),
            SearchEffort::Filter => (80.0, f32::INFINITY),
            SearchEffort::Fast => (36.0, 110.0),
            SearchEffort::Medium => (24.0, 70.0),
            SearchEffort::Slow => (4.0, 12.0),
        };
        let mut vectors = [Mv::ZERO; 2];
        if best.satd as f32 > enough * lambda {
            let starts = |r: usize| self.block_starts(bx, by, r, &around);
            vectors = self.new_leaf(&samples, at, &around, starts, NEW_BITS, &mut best);
        }
        for i in 0..4 {
            self.set(x + i % 2, y + i / 2, best.leaf);
        }
        if best.satd as f32 > split_from * lambda {
            self.split(at, &around, &best, vectors);
        }
    }

    /// Where the search of a block starts: what its surroundings, the coarse search, the last field
    /// and the last pass say.
    fn block_starts(
        &self,
        bx: usize,
        by: usize,
        r: usize,
        around: &Neighbourhood,
    ) -> ([Mv; 16], usize) {
        let (mut v, mut n) = ([Mv::ZERO; 16], 0);
        let mut push = |mv: Mv| {
            if n < v.len() {
                v[n] = mv;
                n += 1;
            }
        };
        push(around.predictor(r));
        let coarse = &self.coarse.blocks[r];
        let (w, h) = (self.columns, self.rows);
        push(coarse[by * w + bx]);
        push(Mv::ZERO);
        if self.params.effort == SearchEffort::Least {
            return (v, n);
        }
        for leaf in around.candidates().iter().filter(|l| l.mode().uses(r)) {
            push(leaf.mv(r));
        }
        if bx + 1 < w {
            push(coarse[by * w + bx + 1]);
        }
        if by + 1 < h {
            push(coarse[(by + 1) * w + bx]);
        }
        push(self.coarse.global[r]);
        if let Some(before) = &self.before {
            let cells = [(0, 0), (2, 0), (0, 2), (1, 1)];
            for (dx, dy) in cells {
                let (x, y) = (2 * bx + dx, 2 * by + dy);
                if x < 2 * w && y < 2 * h {
                    let leaf = before.cell(x, y);
                    if leaf.mode().uses(r) {
                        push(leaf.mv(r));
                    }
                }
            }
        }
        (v, n)
    }

    /// Tries four cells instead of `whole` and keeps them where they cost less.
    fn split(&self, at: (usize, usize), outer: &Neighbourhood, whole: &Choice, vectors: [Mv; 2]) {
        let lambda = self.params.lambda;
        let (x, y) = (at.0 / CELL, at.1 / CELL);
        let mut total = lambda * SPLIT_BITS;
        for index in 0..4 {
            let (cx, cy) = (x + index % 2, y + index / 2);
            let at = (cx * CELL, cy * CELL);
            let samples: Samples<8> = load(self.current, at);
            let around = self.look(Place::Cell { x, y, index });
            let mut best = self.merge(&samples, at, &around, CELL_BITS);
            // The leaf of the whole block is a candidate of the later cells at most.
            let (mut p, mut q): (Block14<8>, Block14<8>) = ([[0; 8]; 8], [[0; 8]; 8]);
            let satd = self.satd_of(&samples, at, whole.leaf, (&mut p, &mut q));
            let mut bits = CELL_BITS + mode_bits(&around, whole.leaf.mode(), self.count);
            for r in 0..2 {
                if whole.leaf.mode().uses(r) {
                    bits += mv_bits(whole.leaf.mv(r), around.predictor(r));
                }
            }
            if satd as f32 + lambda * bits < best.cost {
                best = Choice {
                    cost: satd as f32 + lambda * bits,
                    satd,
                    leaf: whole.leaf,
                };
            }
            let enough = if self.params.effort == SearchEffort::Slow {
                2.0
            } else {
                5.0
            };
            if best.satd as f32 > enough * lambda {
                let starts = |r: usize| {
                    let (mut v, mut n) = ([Mv::ZERO; 16], 2);
                    v[0] = if whole.leaf.mode().uses(r) {
                        whole.leaf.mv(r)
                    } else {
                        vectors[r]
                    };
                    v[1] = around.predictor(r);
                    let lists = [around.candidates(), outer.candidates()];
                    for leaf in lists.into_iter().flatten().filter(|l| l.mode().uses(r)) {
                        v[n] = leaf.mv(r);
                        n += 1;
                    }
                    (v, n)
                };
                self.new_leaf(&samples, at, &around, starts, CELL_BITS, &mut best);
            }
            total += best.cost;
            if total >= whole.cost {
                // Undo: the cells before this one were set to their own leaves.
                for i in 0..index {
                    self.set(x + i % 2, y + i / 2, whole.leaf);
                }
                return;
            }
            self.set(cx, cy, best.leaf);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nnv_format::motion::{MotionContexts, field_bits, predict};

    /// A smooth but detailed picture: sums of waves, sampled at any point.
    fn texture(x: f64, y: f64) -> f64 {
        let waves = [
            (0.21, 0.13, 90.0),
            (-0.17, 0.32, 80.0),
            (0.45, -0.27, 60.0),
            (0.05, 0.61, 50.0),
            (0.83, 0.39, 30.0),
            (0.031, -0.042, 120.0),
        ];
        let sum: f64 = waves
            .iter()
            .enumerate()
            .map(|(i, (a, b, size))| size * (a * x + b * y + i as f64).sin())
            .sum();
        512.0 + sum
    }

    /// A picture whose sample at (x, y) shows the texture at `place(x, y)`.
    fn warped(width: u32, height: u32, place: impl Fn(f64, f64) -> (f64, f64)) -> Picture {
        let mut p = Picture::new(width, height).unwrap();
        for (i, plane) in p.planes_mut().iter_mut().enumerate() {
            let scale = if i == 0 { 1.0 } else { 2.0 };
            for y in 0..plane.height() {
                for (x, v) in plane.row_mut(y).iter_mut().enumerate() {
                    let (tx, ty) = place(scale * x as f64, scale * y as f64);
                    *v = texture(tx, ty).round().clamp(0.0, 1023.0) as u16;
                }
            }
        }
        p.pad();
        p
    }

    fn gain(current: &Picture, reference: &Picture, effort: SearchEffort) -> (f64, f64, f64) {
        let params = SearchParams {
            effort,
            threads: 2,
            ..SearchParams::new(16)
        };
        let field = search(current, [reference, reference], None, &params).unwrap();
        let found = predict(&field, reference, reference, 1).unwrap();
        let bits = field_bits(&MotionContexts::default(), &field, None);
        (
            current.psnr(reference)[0],
            current.psnr(&found.picture)[0],
            bits,
        )
    }

    #[test]
    fn shifts_are_found_exactly_enough() {
        let reference = warped(160, 96, |x, y| (x, y));
        for (dx, dy) in [(3.0, -2.0), (-7.25, 4.5), (21.5, 0.75), (-38.0, -11.0)] {
            let current = warped(160, 96, |x, y| (x + dx, y + dy));
            for effort in [SearchEffort::Fast, SearchEffort::Medium, SearchEffort::Slow] {
                let (still, found, bits) = gain(&current, &reference, effort);
                // What enters at the border cannot be predicted, so the mean stays below a perfect
                // match.
                assert!(
                    found > still + 6.0,
                    "{dx},{dy} {effort:?}: {still:.1} dB still, {found:.1} dB with motion"
                );
                // Blocks that show what the reference lacks have no one vector; small shifts have
                // few.
                assert!(
                    bits < 1200.0 || dx < -10.0,
                    "{dx},{dy} {effort:?}: {bits:.0} bits"
                );
            }
        }
        // Inside, a quarter-pel shift is one vector.
        let current = warped(160, 96, |x, y| (x - 7.25, y + 4.5));
        let field = search(&current, [&reference; 2], None, &SearchParams::new(16)).unwrap();
        let want = Leaf::uni(0, Mv { x: -29, y: 18 });
        let inner = (1..5).flat_map(|by| (1..9).map(move |bx| (bx, by)));
        let hits = inner
            .filter(|&(bx, by)| field.block(bx, by) == [want; 4])
            .count();
        assert!(hits >= 26, "{hits} of 32 inner blocks follow the shift");
    }

    #[test]
    fn rotation_and_zoom_are_followed() {
        let reference = warped(192, 128, |x, y| (x, y));
        let (s, c) = 0.03f64.sin_cos();
        let rotated = warped(192, 128, |x, y| {
            let (x, y) = (x - 96.0, y - 64.0);
            (c * x - s * y + 96.0, s * x + c * y + 64.0)
        });
        let zoomed = warped(192, 128, |x, y| {
            ((x - 96.0) * 1.04 + 96.0, (y - 64.0) * 1.04 + 64.0)
        });
        for current in [&rotated, &zoomed] {
            let (still, found, _) = gain(current, &reference, SearchEffort::Medium);
            assert!(
                found > still + 8.0,
                "{still:.1} dB still, {found:.1} dB with motion"
            );
        }
    }

    #[test]
    fn two_references_help_where_both_are_needed() {
        // The left half shows the first reference, the right half the second, the middle a blend.
        let refs = [
            warped(192, 64, |x, y| (x, y)),
            warped(192, 64, |x, y| (x + 400.0, y - 300.0)),
        ];
        let mut current = refs[0].clone();
        for i in 0..3 {
            let [a, b] = [refs[0].plane(i), refs[1].plane(i)];
            let third = a.width() / 3;
            for y in 0..a.height() {
                for (x, v) in current.plane_mut(i).row_mut(y).iter_mut().enumerate() {
                    *v = match x / third {
                        0 => a.row(y)[x],
                        1 => (a.row(y)[x] + b.row(y)[x]).div_ceil(2),
                        _ => b.row(y)[x],
                    };
                }
            }
        }
        let params = SearchParams::new(16);
        let field = search(&current, [&refs[0], &refs[1]], None, &params).unwrap();
        let found = predict(&field, &refs[0], &refs[1], 1).unwrap();
        // Across the edges between the thirds predictions overlap; elsewhere they fit.
        let third = current.luma().width() / 3;
        for y in 0..current.luma().height() {
            let rows = [&current, &found.picture].map(|p| p.luma().row(y));
            for (x, (a, b)) in rows[0].iter().zip(rows[1]).enumerate() {
                let from_edge = (x % third).min(third - 1 - x % third);
                assert!(from_edge < 2 || a.abs_diff(*b) <= 4, "{a} {b} at {x}, {y}");
            }
        }
        assert_eq!(field.cell(2, 2).mode(), Mode::Ref0);
        assert_eq!(field.cell(12, 4).mode(), Mode::Bi);
        assert_eq!(field.cell(20, 2).mode(), Mode::Ref1);
        assert!(field_bits(&MotionContexts::default(), &field, None) < 150.0);
    }

    #[test]
    fn threads_do_not_change_the_result() {
        let reference = warped(144, 112, |x, y| (x, y));
        let current = warped(144, 112, |x, y| (x * 1.02 + 3.0, y + 0.02 * x));
        let other = warped(144, 112, |x, y| (x - 5.0, y * 0.99));
        for effort in [SearchEffort::Fast, SearchEffort::Medium, SearchEffort::Slow] {
            let fields = [1, 2, 3, 50].map(|threads| {
                let params = SearchParams {
                    effort,
                    threads,
                    distances: [1, 3],
                    ..SearchParams::new(20)
                };
                search(&current, [&reference, &other], None, &params).unwrap()
            });
            assert!(fields[1..].iter().all(|f| f == &fields[0]), "{effort:?}");
            assert_eq!(fields[0].distances(), [1, 3]);
        }
    }

    #[test]
    fn still_content_gives_a_still_field() {
        let picture = warped(200, 120, |x, y| (x, y));
        let field = search(&picture, [&picture; 2], None, &SearchParams::new(0)).unwrap();
        assert_eq!(field, MotionField::new(&picture));
    }

    #[test]
    fn tiny_pictures_and_odd_sizes_work() {
        for (w, h) in [(1, 1), (16, 16), (17, 1), (1, 33), (50, 18)] {
            let a = warped(w, h, |x, y| (x, y));
            let b = warped(w, h, |x, y| (x + 2.5, y - 1.0));
            for effort in [SearchEffort::Fast, SearchEffort::Slow] {
                let params = SearchParams {
                    effort,
                    threads: 2,
                    ..SearchParams::new(30)
                };
                let field = search(&a, [&b, &a], None, &params).unwrap();
                let found = predict(&field, &b, &a, 1).unwrap();
                assert!(a.difference(&found.picture)[0] <= a.difference(&b)[0] + 1.0);
                search(&a, [&b, &b], Some(&field), &params).unwrap();
            }
        }
    }

    #[test]
    fn searched_fields_round_trip() {
        use nnv_format::entropy::{Decoder, Encoder};
        use nnv_format::motion::{decode_field, encode_field};
        let frames: Vec<Picture> = (0..5)
            .map(|t| {
                let t = f64::from(t);
                warped(128, 80, move |x, y| {
                    (x + t * 2.3 + 0.01 * t * y, y - t * 1.1)
                })
            })
            .collect();
        let (mut enc, mut dec) = (MotionContexts::default(), MotionContexts::default());
        let mut last: Option<MotionField> = None;
        for t in 2..5 {
            let params = SearchParams {
                distances: [1, 2],
                ..SearchParams::new(24)
            };
            let refs = [&frames[t - 1], &frames[t - 2]];
            let field = search(&frames[t], refs, last.as_ref(), &params).unwrap();
            let mut encoder = Encoder::new();
            encode_field(&mut encoder, &mut enc, &field, last.as_ref());
            let bytes = encoder.finish();
            let mut got = MotionField::new(&frames[0]);
            got.set_distances([1, 2]);
            let mut decoder = Decoder::new(&bytes);
            decode_field(&mut decoder, &mut dec, &mut got, last.as_ref());
            decoder.finish().unwrap();
            assert_eq!(got, field);
            last = Some(got);
        }
    }

    #[test]
    fn sizes_are_checked() {
        let a = Picture::new(32, 32).unwrap();
        let b = Picture::new(48, 32).unwrap();
        let params = SearchParams::new(10);
        assert!(matches!(
            search(&a, [&a, &b], None, &params),
            Err(MotionError::Size {
                what: "the second reference",
                ..
            })
        ));
        let field = MotionField::new(&b);
        assert!(search(&a, [&a, &a], Some(&field), &params).is_err());
    }

    #[test]
    fn leaves_survive_packing() {
        let mv = Mv { x: -8191, y: 17 };
        for leaf in [
            Leaf::uni(0, mv),
            Leaf::uni(1, mv),
            Leaf::bi(mv, Mv::ZERO),
            Leaf::default(),
        ] {
            assert_eq!(unpack(pack(leaf)), leaf);
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Pictures through a network: padding, tiles, batches, blending, and results that are used again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::border::mirrored;
use super::ensemble::{Ensemble, Work};
use super::layout::{Layout, LayoutError, Planes, PlanesMut};
use super::plain::{Painting, PlainScaler, Task};
use super::rows;
use super::tiles::Tiles;
use nnv_cpu::parallel;
use nnv_h264::BlockQuantizers;
use nnv_nn::{Cancel, NnError, SrNetwork};

use super::source_quantizer::{SURE, SourceQuantizer};

/// Memory that a run of a network may take, as estimated from its bundle. 1920×1080 goes through a
/// network of 32 channels in two tiles.
const MEMORY: usize = 512 << 20;

/// Largest result that is kept for pictures that repeat.
const LARGEST_KEPT: usize = 128 << 20;

/// What can go wrong with a picture.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SrError {
    /// It does not have the layout that was agreed on.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The network or its runtime failed, or was cancelled.
    #[error(transparent)]
    Nn(#[from] NnError),
}

/// A picture to scale.
#[derive(Debug)]
pub struct Job<'a> {
    /// From here.
    pub input: Planes<'a>,
    /// To here.
    pub output: PlanesMut<'a>,
    /// How much of the plain kernel's result the network replaces, 0 to 1. At 0 it does not run.
    pub strength: f32,
    /// With what quantizer the picture was coded, for networks that make use of it; of blocks of
    /// another picture's size only their mean is taken. A result that is there for an equal picture
    /// is used whatever that was coded with.
    pub quantizer: SourceQuantizer,
    /// There is no time for the network. A result that is still there is used nevertheless.
    pub late: bool,
}

/// Where luma of a picture came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// From the network.
    Enhanced,
    /// From the network, for an equal picture before.
    Reused,
    /// From the plain kernel.
    Plain,
}

/// What a call did.
#[derive(Debug)]
pub struct Outcome {
    /// For each job.
    pub done: Vec<Done>,
    /// Time that the network took.
    pub network: Duration,
    /// For each job what the network changed, where luma came from it; empty unless
    /// [asked for](Upscaler::set_watched).
    pub changes: Vec<Option<Change>>,
}

/// What a network changed in a picture: row after row of the output's luma, in 8-bit samples.
#[derive(Debug, Clone)]
pub struct Change {
    /// Luma less that of the plain kernel.
    pub luma: Vec<f32>,
    /// Standard deviation of the [turns](Ensemble) of the picture: how far the network depends on
    /// how the picture lies, which detail does not. `None` for a single turn.
    pub spread: Option<Arc<[f32]>>,
}

/// Where a result for an equal picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Job(usize),
    Kept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Enhance,
    Reuse(Source),
    Plain,
}

/// Luma (or RGB) of a picture and what became of it.
#[derive(Debug)]
struct Kept {
    input: Vec<u8>,
    output: Vec<u8>,
    strength: f32,
    spread: Option<Arc<[f32]>>,
}

impl Kept {
    fn matches(&self, job: &Job<'_>) -> bool {
        let mut rest = &self.input[..];
        self.strength == job.strength
            && job.input.key_rows().all(|row| {
                let (kept, after) = rest.split_at(row.len());
                rest = after;
                row == kept
            })
    }
}

/// Scales pictures of one layout with a network.
#[derive(Debug)]
pub struct Upscaler {
    plain: PlainScaler,
    network: Arc<SrNetwork>,
    ensemble: Ensemble,
    tiles: Tiles,
    /// Pictures that go through the network in one run.
    batch: usize,
    kept: Option<Kept>,
    watched: bool,
    /// Input of the network, kept for its memory.
    x: Vec<f32>,
}

impl Upscaler {
    /// For pictures of the layout `input`; `threads` (for everything but the network) is 0 for as
    /// many as there are processors.
    ///
    /// # Errors
    /// [`SrError::Layout`] when there is no such picture.
    pub fn new(input: Layout, network: Arc<SrNetwork>, threads: u32) -> Result<Self, SrError> {
        Self::with_memory(input, network, threads, MEMORY)
    }

    /// The same, with another limit in bytes for what a run of the network takes. It counts as an
    /// estimate and is not kept for tiles of 32×32 samples.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_memory(
        input: Layout,
        network: Arc<SrNetwork>,
        threads: u32,
        memory: usize,
    ) -> Result<Self, SrError> {
        // Whatever the fields say, only possible sizes may go on.
        Layout::new(input.format, input.width(), input.height())?;
        let facts = network.facts();
        let limit = memory / facts.bytes_per_sample().max(1);
        let size = (input.width(), input.height());
        let tiles = Tiles::folded(size, facts.radius, facts.fold, limit);
        let batch = match tiles.len() {
            1 => (limit / tiles.padded_area(facts.radius)).max(1),
            _ => 1,
        };
        Ok(Self {
            plain: PlainScaler::new(input, facts.scale, threads),
            network,
            ensemble: Ensemble::ONE,
            tiles,
            batch,
            kept: None,
            watched: false,
            x: Vec::new(),
        })
    }

    /// The same, with the mean over turns of each picture for its result.
    #[must_use]
    pub fn with_ensemble(self, ensemble: Ensemble) -> Self {
        Self { ensemble, ..self }
    }

    /// From now on [`Outcome::changes`] are wanted, or no longer; at first they are not. They take
    /// the plain kernel's work for luma, and with several turns twice their memory.
    pub fn set_watched(&mut self, watched: bool) {
        if watched && !self.watched {
            // Nobody knows the spread of what is kept.
            self.kept = None;
        }
        self.watched = watched;
    }

    /// Layout of the pictures that come in.
    pub fn input(&self) -> Layout {
        self.plain.input()
    }

    /// Layout of the pictures that go out.
    pub fn output(&self) -> Layout {
        self.plain.output()
    }

    /// The network.
    pub fn network(&self) -> &SrNetwork {
        &self.network
    }

    /// Parts in which a picture goes through the network.
    pub fn tiles(&self) -> usize {
        self.tiles.len()
    }

    /// Scales pictures, those that differ together. Order matters only for what is remembered.
    ///
    /// # Errors
    /// [`SrError::Layout`] for pictures of another layout; [`NnError::Cancelled`],
    /// [`NnError::Run`]. Outputs hold anything then.
    pub fn run(&mut self, jobs: &mut [Job<'_>], cancel: &Cancel) -> Result<Outcome, SrError> {
        for job in jobs.iter_mut() {
            self.plain.check(&job.input, &job.output)?;
            job.strength = job.strength.clamp(0.0, 1.0);
        }
        let plan = self.plan(jobs);
        let mut spreads = vec![None; if self.watched { jobs.len() } else { 0 }];
        let network = self.enhance(jobs, &plan, cancel, &mut spreads)?;
        self.reuse(jobs, &plan);

        let tasks = jobs
            .iter_mut()
            .zip(&plan)
            .flat_map(|(job, plan)| {
                // The first plane, luma or all of RGB, is there already, but for the plain kernel's
                // pictures.
                let first = usize::from(*plan != Plan::Plain);
                let planes = first..self.plain.input().planes();
                self.plain.tasks(&job.input, &mut job.output, planes)
            })
            .collect();
        self.plain.run(tasks);
        let changes = self.changes(jobs, &plan, &mut spreads);
        if let Some(last) = plan.iter().rposition(|p| *p == Plan::Enhance) {
            self.keep(&jobs[last], spreads.get(last).cloned().flatten());
        }
        let done = plan
            .iter()
            .map(|plan| match plan {
                Plan::Enhance => Done::Enhanced,
                Plan::Reuse(_) => Done::Reused,
                Plan::Plain => Done::Plain,
            })
            .collect();
        Ok(Outcome {
            done,
            network,
            changes,
        })
    }

    /// What the network changed; `spreads` are those of the pictures that went through it.
    fn changes(
        &self,
        jobs: &[Job<'_>],
        plan: &[Plan],
        spreads: &mut [Option<Arc<[f32]>>],
    ) -> Vec<Option<Change>> {
        let mut changes = Vec::with_capacity(spreads.len());
        for (i, (job, plan)) in jobs.iter().zip(plan).enumerate().take(spreads.len()) {
            match plan {
                Plan::Reuse(Source::Job(j)) => spreads[i] = spreads[*j].clone(),
                Plan::Reuse(Source::Kept) => {
                    spreads[i] = self.kept.as_ref().and_then(|kept| kept.spread.clone());
                }
                Plan::Enhance | Plan::Plain => {}
            }
            changes.push((*plan != Plan::Plain).then(|| Change {
                luma: self.plain.change(&job.input, &job.output),
                spread: spreads[i].clone(),
            }));
        }
        changes
    }

    fn plan(&self, jobs: &[Job<'_>]) -> Vec<Plan> {
        let mut source = self.kept.as_ref().map(|_| Source::Kept);
        let mut plans = Vec::with_capacity(jobs.len());
        for (i, job) in jobs.iter().enumerate() {
            let equal = |source: &Source| match (source, &self.kept) {
                (Source::Job(i), _) => {
                    let other = &jobs[*i];
                    other.strength == job.strength
                        && other.input.key_rows().eq(job.input.key_rows())
                }
                (Source::Kept, Some(kept)) => kept.matches(job),
                (Source::Kept, None) => false,
            };
            plans.push(if job.strength == 0.0 {
                Plan::Plain
            } else if let Some(source) = source.filter(equal) {
                Plan::Reuse(source)
            } else if job.late {
                Plan::Plain
            } else {
                source = Some(Source::Job(i));
                Plan::Enhance
            });
        }
        plans
    }

    /// Runs the network, and returns how long it took. `spreads` has a place for each job, or none
    /// where they are not wanted.
    fn enhance(
        &mut self,
        jobs: &mut [Job<'_>],
        plan: &[Plan],
        cancel: &Cancel,
        spreads: &mut [Option<Arc<[f32]>>],
    ) -> Result<Duration, SrError> {
        let (places, mut enhanced): (Vec<usize>, Vec<_>) = jobs
            .iter_mut()
            .zip(plan)
            .enumerate()
            .filter(|(_, (_, plan))| **plan == Plan::Enhance)
            .map(|(i, (job, _))| (i, job))
            .unzip();
        let radius = self.network.facts().radius;
        let scale = self.network.facts().scale;
        let (tile_width, tile_height) = (self.tiles.width, self.tiles.height);
        let (width, height) = (tile_width + 2 * radius, tile_height + 2 * radius);
        let mut x = std::mem::take(&mut self.x);
        let mut time = Duration::ZERO;
        let work = Work {
            threads: self.plain.threads(),
            cancel,
        };
        let (wide, high) = (self.output().width(), self.output().height());
        let samples = self.plain.unit().gain() / self.input().sample().per_step();
        for (jobs, places) in (enhanced.chunks_mut(self.batch)).zip(places.chunks(self.batch)) {
            let mut spread = vec![Vec::new(); if spreads.is_empty() { 0 } else { jobs.len() }];
            for (left, top) in self.tiles.corners() {
                x.resize(jobs.len() * width * height, 0.0);
                self.feed(jobs, (left, top), width, &mut x);
                let told = self.told(jobs, (left, top), (width, height));
                let started = Instant::now();
                let shape = [jobs.len(), height, width];
                let watched = !spread.is_empty();
                let y = self
                    .ensemble
                    .run(&self.network, &x, shape, &told, &work, watched)?;
                time += started.elapsed();
                let first = radius * scale * (width * scale + 1);
                for (i, (to, job)) in spread.iter_mut().zip(jobs.iter()).enumerate() {
                    let Some(values) = y.spread(i) else {
                        continue;
                    };
                    to.resize(wide * high, 0.0);
                    let (x, y) = (left * scale, top * scale);
                    let rows = to.chunks_mut(wide).skip(y).take(tile_height * scale);
                    for (to, from) in rows.zip(values[first..].chunks(width * scale)) {
                        let to = to[x..].iter_mut().take(tile_width * scale);
                        to.zip(from)
                            .for_each(|(to, v)| *to = v * samples * job.strength);
                    }
                }
                let tasks = jobs.iter_mut().enumerate().flat_map(|(i, job)| {
                    let painting = Painting {
                        values: &y.picture(i)[first..],
                        stride: width * scale,
                        x: left * scale,
                        y: top * scale,
                        width: tile_width.min(self.input().width() - left) * scale,
                        strength: job.strength,
                    };
                    let input = &job.input;
                    // What was folded may reach beyond the picture.
                    let bottom = (top + tile_height).min(self.input().height());
                    let rows = top * scale..bottom * scale;
                    let bands = job.output.key_bands(rows, self.plain.bands());
                    bands.map(move |band| Task {
                        input,
                        plane: 0,
                        band,
                        painting: Some(painting),
                    })
                });
                self.plain.run(tasks.collect());
            }
            for (spread, &place) in spread.into_iter().zip(places) {
                spreads[place] = (!spread.is_empty()).then(|| spread.into());
            }
        }
        self.x = x;
        Ok(time)
    }

    /// What the network hears of the quantizers of a tile of each picture: of its samples, where
    /// those of blocks are known.
    fn told(
        &self,
        jobs: &[&mut Job<'_>],
        corner: (usize, usize),
        (width, height): (usize, usize),
    ) -> Vec<f32> {
        if !self.network.is_rated() {
            return Vec::new();
        }
        let (columns, rows) = (self.input().width(), self.input().height());
        let known: Vec<_> = jobs
            .iter()
            .map(|job| match &job.quantizer {
                SourceQuantizer::Blocks(blocks) if blocks.fit(columns, rows) => Some(&**blocks),
                _ => None,
            })
            .collect();
        if known.iter().all(Option::is_none) {
            return jobs.iter().flat_map(|job| job.quantizer.told()).collect();
        }
        let radius = self.network.facts().radius as isize;
        let inside =
            |at: usize, start: usize, length| mirrored((start + at) as isize - radius, length);
        let mut told = vec![0.0; 2 * jobs.len() * width * height];
        let parts = told
            .chunks_mut(2 * width * height)
            .zip(jobs.iter().zip(known));
        parallel::for_each(
            self.plain.threads(),
            parts.collect(),
            |(part, (job, known))| {
                let (sure, quantizers) = part.split_at_mut(width * height);
                let Some(blocks) = known else {
                    let [how_sure, quantizer] = job.quantizer.told();
                    sure.fill(how_sure);
                    quantizers.fill(quantizer);
                    return;
                };
                sure.fill(SURE);
                for (y, row) in quantizers.chunks_mut(width).enumerate() {
                    let blocks = blocks.row(inside(y, corner.1, rows));
                    for (x, value) in row.iter_mut().enumerate() {
                        let x = inside(x, corner.0, columns);
                        *value = f32::from(blocks[x / BlockQuantizers::SIDE]);
                    }
                }
            },
        );
        told
    }

    /// Fills the network's input with a tile of each picture, which is mirrored beyond its border.
    fn feed(&self, jobs: &[&mut Job<'_>], corner: (usize, usize), width: usize, x: &mut [f32]) {
        let radius = self.network.facts().radius as isize;
        let (left, top) = (corner.0 as isize - radius, corner.1 as isize - radius);
        let each = x.len() / jobs.len().max(1);
        let rows = (each / width).div_ceil(self.plain.bands());
        let parts = x
            .chunks_mut(each)
            .zip(jobs)
            .flat_map(|(picture, job)| {
                let bands = picture.chunks_mut(rows * width).enumerate();
                bands.map(move |(band, part)| (&job.input, band * rows, part))
            })
            .collect();
        parallel::for_each(self.plain.threads(), parts, |(input, first, part)| {
            for (i, row) in part.chunks_mut(width).enumerate() {
                let y = mirrored(top + (first + i) as isize, self.input().height());
                self.feed_row(input, y, left, row);
            }
        });
    }

    /// One row of the network's input, from column `left` of the picture on, which may lie outside.
    fn feed_row(&self, input: &Planes<'_>, y: usize, left: isize, row: &mut [f32]) {
        let layout = self.input();
        let from = left.max(0);
        let to = (left + row.len() as isize).min(layout.width() as isize);
        let (start, end) = ((from - left) as usize, (to - left) as usize);
        let shape = layout.shape(0);
        let source = &input.row(0, y)[from as usize * shape.step()..to as usize * shape.step()];
        let inside = &mut row[start..end];
        if layout.is_rgb() {
            for (value, rgb) in inside.iter_mut().zip(source.chunks_exact(3)) {
                let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(f32::from);
                *value = rows::luma(r, g, b);
            }
        } else {
            rows::load(shape.sample, shape.step(), source, inside);
        }
        rows::to_network(inside, self.plain.unit());
        // What lies beyond a border mirrors what lies before it, which a tile there holds, or all
        // of the picture.
        for at in (0..start).chain(end..row.len()) {
            let column = mirrored(left + at as isize, layout.width());
            row[at] = row[(column as isize - left) as usize];
        }
    }

    fn reuse(&self, jobs: &mut [Job<'_>], plan: &[Plan]) {
        for (i, plan) in plan.iter().enumerate() {
            let (before, from) = jobs.split_at_mut(i);
            match plan {
                Plan::Reuse(Source::Job(j)) => {
                    for (to, row) in from[0]
                        .output
                        .key_rows_mut()
                        .zip(before[*j].output.key_rows())
                    {
                        to.copy_from_slice(row);
                    }
                }
                Plan::Reuse(Source::Kept) => {
                    let mut rest = self.kept.as_ref().map_or(&[][..], |kept| &kept.output);
                    for to in from[0].output.key_rows_mut() {
                        let (row, after) = rest.split_at(to.len());
                        to.copy_from_slice(row);
                        rest = after;
                    }
                }
                Plan::Enhance | Plan::Plain => {}
            }
        }
    }

    fn keep(&mut self, job: &Job<'_>, spread: Option<Arc<[f32]>>) {
        let shape = self.output().shape(0);
        if shape.row_bytes() * shape.height > LARGEST_KEPT {
            self.kept = None;
            return;
        }
        let kept = self.kept.get_or_insert_with(|| Kept {
            input: Vec::new(),
            output: Vec::new(),
            strength: 0.0,
            spread: None,
        });
        kept.strength = job.strength;
        kept.spread = spread;
        kept.input.clear();
        job.input
            .key_rows()
            .for_each(|row| kept.input.extend_from_slice(row));
        kept.output.clear();
        job.output
            .key_rows()
            .for_each(|row| kept.output.extend_from_slice(row));
    }
}

// SPDX-License-Identifier: MPL-2.0
//! The encoder: pictures in, access units out.
//!
//! ```no_run
//! use nnv_codec::{config::EncoderConfig, encode::{Encoder, InputFrame}};
//! # use nnv_bitstream::StreamInfo;
//! # use {nnv_codec::error::CodecError, nnv_format::picture::Picture, nnv_nn::Model};
//! # use std::sync::Arc;
//! # fn encode(
//! #     model: Arc<Model>, info: StreamInfo, pictures: Vec<Arc<Picture>>,
//! # ) -> Result<(), CodecError> {
//! let mut encoder = Encoder::new(model, EncoderConfig::new(info))?;
//! for (id, picture) in pictures.into_iter().enumerate() {
//!     encoder.send(InputFrame::new(picture, id as u64))?;
//!     while let Some(unit) = encoder.receive()? {
//!         println!("frame {}: {} bytes", unit.id, unit.data.len());
//!     }
//! }
//! encoder.finish()?;
//! while let Some(unit) = encoder.receive()? { /* the rest */ }
//! # Ok(()) }
//! ```

mod adaptive_quantizer;
mod frame;
pub mod frame_clock;
mod inheritance;
mod ink;
pub mod motion;
mod networks;
pub mod planner;
pub mod quality_control;
mod quality_measure;
mod quality_reach;
pub mod rate_control;
mod resilience;
mod rounding;
mod scene_cut;
mod step;
mod still;
pub(crate) mod temporal_filter;
pub mod two_pass;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use nnv_bitstream::limits::MAX_REFERENCES;
use nnv_bitstream::{
    ContextSource, FrameHeader, FramePayload, FrameType, GopFacts, KeyIdentity, Level, Rational,
    SequenceHeader, StreamMetadata, UnitType, write_unit,
};
use nnv_cpu::parallel;
use nnv_format::grid::Grid;
use nnv_format::motion::{MotionField, predict, temporal_distances};
use nnv_format::picture::{Picture, TENSOR_CHANNELS};
use nnv_format::quantizer_map::{HEADROOM, Quantisation, QuantizerMap};
use nnv_format::references::{Coding, Reference, References};
use nnv_format::tables::NetworkSet;
use nnv_nn::{Cancel, InterItem, Model};

use crate::config::{
    ConfigError, EncoderConfig, ErrorResilience, QualityTarget, RateControl, SpeedPreset,
};
use crate::error::{CodecError, Result};
use crate::stages::{Clock, StageTimes};
use adaptive_quantizer::{choose_map, map_of_regions, shift_of_regions};
pub use frame::{EncodedFrame, FrameStats, FrameSymbols, InputFrame, Region};
use frame_clock::{FrameClock, FrameTime};
use inheritance::Inheritance;
use motion::search::lambda_of_quantizer;
use motion::{SearchEffort, SearchParams, search};
use networks::{Coded, Frame, Outcome, Pass, Start, context_source};
use planner::{FrameClass, FrameFacts, GopPlanner, Group, PlannedFrame};
use quality_control::QualityController;
use quality_measure::Measure;
pub use quality_reach::QualityOutOfReach;
pub use rate_control::OutOfReach;
use rate_control::{RETRIES, RateController, guess_key_bits};
pub use resilience::LossReport;
pub use scene_cut::SceneCut;
use step::nominal_distortion;
use temporal_filter::{NEIGHBOURS, Neighbour, REACH, temporal_filter};
use two_pass::PassFrame;

/// The quantizer at which the size of key frames is guessed.
const GUESS_AT: f64 = 28.0;
/// Bytes of a frame's header, its unit's, and the lengths of its parts: about so many.
const HEADER_BYTES: usize = 40;
/// Most luma samples of frames that are coded side by side: their networks take memory.
const PIXELS_SIDE_BY_SIDE: u64 = 1 << 23;
/// How many times as badly as at other speeds a cell may be predicted at the greatest.
const ULTRAFAST_WORST: f32 = 4.0;

/// Totals for the `stats` property.
#[derive(Debug, Clone, Default)]
pub struct EncoderStats {
    /// How long the frames last that came in, in s.
    pub seconds: f64,
    /// Time per stage.
    pub times: StageTimes,
}

/// An inter frame on its way into the networks.
struct Predicted {
    field: Arc<MotionField>,
    p: Vec<i16>,
    d: Vec<i16>,
    x: Vec<i16>,
    times: StageTimes,
}

/// Frames of one batch, ready to be coded.
struct Part<'a> {
    plans: &'a [PlannedFrame],
    inputs: Vec<InputFrame>,
    times: Vec<FrameTime>,
    quantizers: Vec<u8>,
    /// Where quality is held: it is that of what came in, before any filter.
    originals: Vec<Arc<Picture>>,
}

/// How an inter frame is coded.
struct Manner {
    /// That of the frame's header: what regions want more of is taken off.
    quantizer: u8,
    /// Quantizers by place, where regions want them.
    map: Option<QuantizerMap>,
    /// It stays as predicted, and no network sees it.
    as_predicted: bool,
}

/// Quality that is held.
#[derive(Debug)]
struct Held {
    control: QualityController,
    measure: Measure,
}

impl Held {
    fn new(config: &EncoderConfig, target: QualityTarget) -> Result<Self> {
        Ok(Self {
            control: QualityController::new(config, target),
            measure: Measure::new(target.metric, &config.info)?,
        })
    }
}

/// A result, and what its stages took.
type Timed<T> = (T, StageTimes);

/// Encodes pictures of one size. Not bound to a thread; one thread at a time.
#[derive(Debug)]
pub struct Encoder {
    model: Arc<Model>,
    config: EncoderConfig,
    coding: Coding,
    header: SequenceHeader,
    sequence_unit: Vec<u8>,
    /// What key frames carry beside the sequence header.
    stream_metadata: StreamMetadata,
    batch: usize,
    threads: usize,
    planner: GopPlanner,
    scene: SceneCut,
    rate: RateController,
    quality: Option<Held>,
    inheritance: Inheritance,
    references: References<Reference>,
    /// Number of the group in progress; counts key frames from a number on that the first one's
    /// content gives.
    gop: Option<u8>,
    /// What frames that refer to the last key frame carry.
    key_check: u16,
    /// Presentation time of the last key frame in ns.
    key_pts: Option<i64>,
    /// Frames that wait for their turn, by input order.
    waiting: BTreeMap<u64, (InputFrame, FrameTime)>,
    next_index: u64,
    last_picture: Option<Arc<Picture>>,
    clock: FrameClock,
    /// A key frame was asked for where there was no room for one.
    key_owed: bool,
    output: VecDeque<EncodedFrame>,
    stats: EncoderStats,
    cancel: Cancel,
    finished: bool,
    keep_symbols: bool,
}

impl Encoder {
    /// An encoder for a validated configuration. Loads the model's encoder networks.
    ///
    /// # Errors
    /// [`CodecError::Config`] for a bad configuration, [`CodecError::Nn`] when the networks cannot
    /// be loaded, [`CodecError::Bitstream`] when the model's name cannot be written.
    pub fn new(model: Arc<Model>, config: EncoderConfig) -> Result<Self> {
        config.validate()?;
        model.prepare_encoder()?;
        let info = &config.info;
        let grid = Grid::for_picture(info.width as usize, info.height as usize)?;
        let bframes = config.effective_bframes();
        let hash = model.hash();
        let mut header = SequenceHeader {
            bundle_name: model.name().to_string(),
            bundle_hash: std::array::from_fn(|i| hash[i]),
            width: info.width,
            height: info.height,
            crop: info.crop,
            frame_rate: info.rate(),
            pixel_aspect: Rational::new(info.pixel_aspect.0, info.pixel_aspect.1),
            chroma_format: info.chroma_format,
            bit_depth: info.bit_depth,
            colorimetry: info.colorimetry,
            mastering_display: info.mastering_display,
            content_light: info.content_light,
            gop: GopFacts {
                max_reorder: bframes,
                mini_gop: bframes + 1,
                max_references: match (config.key_int_max, bframes) {
                    (1, _) => 1,
                    (_, 0) if config.error_resilience == ErrorResilience::Ltr => MAX_REFERENCES,
                    (_, 0) => 3,
                    _ => 6,
                },
                key_interval: config.key_int_max.min(i32::MAX as u32),
            },
            key_streams: key_streams(grid),
            inter_streams: inter_streams(grid),
            checksums: config.frame_checksum,
            cost: None,
        };
        header.state_cost(model.decoding_macs());
        let payload = header
            .to_payload()
            .map_err(|e| ConfigError::Info(e.to_string()))?;
        let mut sequence_unit = Vec::new();
        write_unit(&mut sequence_unit, UnitType::Sequence, &payload)?;
        let quality = config.quality.map(|target| Held::new(&config, target));
        let quality = quality.transpose()?;
        let batch = config.effective_batch(model.active_provider());
        let mut planner = GopPlanner::new(
            bframes,
            config.effective_lookahead(),
            config.key_int_max,
            batch,
            config.effective_tuning(),
        );
        if config.error_resilience == ErrorResilience::Ltr {
            planner.keep_for_losses(info.rate());
        }
        Ok(Self {
            coding: Coding::new(
                model.tables(NetworkSet::Key),
                model.tables(NetworkSet::Inter),
                grid,
                &header,
            ),
            planner,
            scene: SceneCut::default(),
            rate: RateController::new(&config),
            quality,
            inheritance: Inheritance::default(),
            references: References::default(),
            gop: None,
            key_check: 0,
            key_pts: None,
            waiting: BTreeMap::new(),
            next_index: 0,
            last_picture: None,
            clock: FrameClock::new(info.rate()),
            key_owed: false,
            output: VecDeque::new(),
            stats: EncoderStats::default(),
            cancel: Cancel::new(),
            finished: false,
            keep_symbols: false,
            threads: parallel::resolve(config.threads),
            header,
            sequence_unit,
            stream_metadata: StreamMetadata::default(),
            batch,
            model,
            config,
        })
    }

    /// The configuration, with the rates now in force.
    pub fn config(&self) -> EncoderConfig {
        EncoderConfig {
            rate_control: self.rate.mode(),
            quantizer: self.rate.constant_quantizer(),
            ..self.config.clone()
        }
    }

    /// The model in use.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Frames that go in before the first one comes out, less one.
    pub fn latency_frames(&self) -> usize {
        self.planner.latency()
    }

    /// The sequence header that stands before each key frame, for the caps' `streamheader`.
    pub fn sequence_header(&self) -> Vec<u8> {
        self.sequence_unit.clone()
    }

    /// The level that the sequence header states.
    pub fn level(&self) -> Level {
        self.header.level()
    }

    /// A handle that aborts the work in progress from another thread.
    pub fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Hands out the symbols of each frame with its statistics.
    pub fn keep_symbols(&mut self, keep: bool) {
        self.keep_symbols = keep;
    }

    /// Totals so far.
    pub fn stats(&self) -> &EncoderStats {
        &self.stats
    }

    /// Changes mode and rates, and the quantizer of constant quality, from the next frame on.
    ///
    /// # Errors
    /// [`CodecError::Config`] for values out of range; then nothing has changed.
    pub fn set_rate_control(&mut self, mode: RateControl, quantizer: u8) -> Result<()> {
        let config = EncoderConfig {
            rate_control: mode,
            quantizer,
            ..self.config()
        };
        config.validate()?;
        self.rate.change(mode, quantizer);
        Ok(())
    }

    /// Another quality to hold from the next frame on, or none.
    ///
    /// # Errors
    /// [`CodecError::Config`] for values that no picture has, [`CodecError::Vmaf`] where that
    /// cannot be measured; then nothing has changed.
    pub fn set_quality(&mut self, target: Option<QualityTarget>) -> Result<()> {
        if target == self.config.quality {
            return Ok(());
        }
        let config = EncoderConfig {
            quality: target,
            ..self.config()
        };
        config.validate()?;
        self.quality = target.map(|t| Held::new(&config, t)).transpose()?;
        self.config.quality = target;
        Ok(())
    }

    /// Encoding time against rate from the next frame on. How far is looked ahead stays.
    pub fn set_speed(&mut self, speed: SpeedPreset) {
        self.config.speed = speed;
    }

    /// Leaves out a picture that there is no time for: it counts for the order of coding as one
    /// that came, so that no other waits longer for it.
    ///
    /// Nothing refers to it. Its time passes with the next picture, which has a time of its own.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn skip(&mut self, force_key: bool) -> Result<()> {
        if self.finished {
            return Err(CodecError::Finished);
        }
        self.key_owed |= force_key;
        self.next_index += 1;
        self.planner.skip();
        self.code_ready()
    }

    /// Says once for each rate that even the greatest quantizer does not reach it.
    pub fn out_of_reach(&mut self) -> Option<OutOfReach> {
        self.rate.out_of_reach()
    }

    /// Says once for each stretch of a second or longer that no quantizer meets the quality to be
    /// held.
    pub fn quality_out_of_reach(&mut self) -> Option<QualityOutOfReach> {
        self.quality.as_mut()?.control.out_of_reach()
    }

    /// What key frames that are coded from now on say about the stream.
    pub fn set_stream_metadata(&mut self, metadata: StreamMetadata) {
        self.stream_metadata = metadata;
    }

    /// Takes what a receiver says of a loss. With [`ErrorResilience::Ltr`] the next frame is
    /// predicted from one that the receiver has; where there is none, it is a key frame. Reports of
    /// earlier groups, and of frames that nothing to come depends on, change nothing.
    pub fn report(&mut self, report: LossReport) {
        if let LossReport::Frame { group, .. } = report
            && self.gop != Some(group)
        {
            return;
        }
        self.key_owed |= self.planner.report(report);
    }

    /// Takes the next picture in order of presentation and codes what can be coded.
    ///
    /// # Errors
    /// [`CodecError::Size`] for a picture of another size, [`CodecError::Finished`] after
    /// [`finish`](Self::finish), [`CodecError::Nn`] when a network fails,
    /// [`CodecError::Cancelled`].
    pub fn send(&mut self, mut frame: InputFrame) -> Result<()> {
        if self.finished {
            return Err(CodecError::Finished);
        }
        let (width, height) = (self.config.info.width, self.config.info.height);
        if (frame.picture.width(), frame.picture.height()) != (width, height) {
            return Err(CodecError::Size {
                width,
                height,
                got_width: frame.picture.width(),
                got_height: frame.picture.height(),
            });
        }
        if !self.rate.knows(self.next_index) {
            return Err(ConfigError::PassFrames(self.next_index).into());
        }
        // What covers nothing must not lower the quantizer of the rest.
        frame
            .regions
            .retain(|r| r.width > 0 && r.height > 0 && r.x < width && r.y < height);
        let repeat = self
            .last_picture
            .as_ref()
            .is_some_and(|last| Arc::ptr_eq(last, &frame.picture) || last.is_equal(&frame.picture));
        let times = self.clock.next(frame.pts, frame.duration);
        self.stats.seconds += times.real.elapsed;
        let frame = InputFrame {
            pts: times.pts,
            duration: times.duration,
            force_key: frame.force_key || std::mem::take(&mut self.key_owed),
            ..frame
        };
        let facts = self.facts(&frame, repeat, times.real);
        self.key_owed = facts.hold && frame.force_key;
        if let Some(held) = &mut self.quality {
            held.measure.show(self.next_index, &frame.picture);
        }
        self.waiting.insert(self.next_index, (frame, times.real));
        self.next_index += 1;
        self.planner.push(facts);
        self.code_ready()
    }

    /// What the planner has to know of the next frame.
    fn facts(&mut self, frame: &InputFrame, repeat: bool, time: FrameTime) -> FrameFacts {
        let mut facts = FrameFacts {
            force_key: frame.force_key,
            repeat,
            ..FrameFacts::default()
        };
        let tuning = self.config.effective_tuning();
        let mut scene = None;
        if !repeat {
            let mut looked = self.scene.clone();
            let ratio = looked.measure(&frame.picture.quarter_luma());
            facts.novelty = ratio.unwrap_or(0.0);
            facts.scene_cut = self.config.scene_cut
                && ratio
                    .is_some_and(|ratio| SceneCut::is_cut(ratio, self.planner.distance(), &tuning));
            scene = Some(looked);
        }
        if self.rate.has_buffer() {
            let class = self.planner.next_class(&facts);
            if class == FrameClass::Key {
                self.hint_key(&frame.picture);
            }
            facts.hold = self.rate.must_hold(class, self.planner.pending(), time);
            if facts.hold {
                self.rate.held();
            }
        }
        if facts.hold {
            facts.novelty = 0.0;
        } else {
            // Later frames are compared with what is shown.
            self.last_picture = Some(frame.picture.clone());
            if let Some(scene) = scene {
                self.scene = scene;
            }
        }
        facts
    }

    fn hint_key(&mut self, picture: &Picture) {
        let bits = guess_key_bits(picture, GUESS_AT);
        self.rate.hint_key(GUESS_AT, bits);
    }

    /// The next access unit in coding order.
    ///
    /// # Errors
    /// None now; room for work moved from `send`.
    pub fn receive(&mut self) -> Result<Option<EncodedFrame>> {
        Ok(self.output.pop_front())
    }

    /// Codes all waiting frames: the stream ends here.
    ///
    /// # Errors
    /// As [`send`](Self::send). After an error the encoder has to be [`reset`](Self::reset).
    pub fn finish(&mut self) -> Result<()> {
        self.planner.flush();
        self.code_ready()?;
        self.finished = true;
        Ok(())
    }

    /// Codes all waiting frames, without an end: frames that come later may still refer to them.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn flush(&mut self) -> Result<()> {
        self.planner.flush();
        self.code_ready()
    }

    /// Drops everything that waits; the next frame is a key frame. Also clears a cancellation.
    pub fn reset(&mut self) {
        self.planner.reset();
        self.scene.reset();
        self.references.clear();
        self.rate.forget_waiting();
        self.waiting.clear();
        if let Some(held) = &mut self.quality {
            held.measure.restart();
        }
        self.clock.reset();
        self.key_owed = false;
        self.output.clear();
        self.last_picture = None;
        self.finished = false;
        self.cancel.reset();
    }

    fn code_ready(&mut self) -> Result<()> {
        let strength = self.config.effective_tuning().inheritance;
        while let Some(mut group) = self.planner.next_group() {
            for plan in group.iter_mut().filter(|p| p.kind == FrameType::Inter) {
                plan.offset = self.inheritance.scaled(plan.offset, strength);
            }
            self.code_group(&group)?;
        }
        if let Some(held) = &mut self.quality {
            let first = self.waiting.first_key_value().map(|(index, _)| *index);
            held.measure.forget(first.unwrap_or(self.next_index));
        }
        Ok(())
    }

    fn code_group(&mut self, group: &Group) -> Result<()> {
        // Rate and quality control want to know soon what frames took, however many threads there
        // are: they decide for two at a time.
        let free = self.rate.is_constant_quality() && self.quality.is_none();
        let together = if free { group.len() } else { self.batch.max(2) };
        for plans in group.chunks(together) {
            let parts = plans.chunks(self.batch).map(|plans| self.part(plans));
            let parts = parts.collect::<Result<Vec<_>>>()?;
            let side_by_side = self.side_by_side(parts.len());
            let threads = self.threads.div_ceil(side_by_side);
            let coded = parallel::map(side_by_side, parts.len(), |i| {
                let Part {
                    plans,
                    inputs,
                    quantizers,
                    ..
                } = &parts[i];
                self.code(plans, inputs, quantizers, threads)
            });
            for (part, coded) in parts.iter().zip(coded) {
                self.finish_part(part, coded?)?;
            }
        }
        Ok(())
    }

    /// How many of so many batches are coded at the same time.
    fn side_by_side(&self, parts: usize) -> usize {
        let info = &self.config.info;
        let pixels = u64::from(info.width) * u64::from(info.height) * self.batch as u64;
        let room = (PIXELS_SIDE_BY_SIDE / pixels.max(1)) as usize;
        parts.min(self.threads).min(room.max(1))
    }

    /// Takes the frames of a batch from those that wait: quantizers are chosen, noise is filtered.
    fn part<'a>(&mut self, plans: &'a [PlannedFrame]) -> Result<Part<'a>> {
        let mut inputs = Vec::with_capacity(plans.len());
        let mut times = Vec::with_capacity(plans.len());
        for plan in plans {
            let (input, time) = self.waiting.remove(&plan.index).ok_or_else(|| {
                CodecError::Internal(format!("frame {} was planned but not sent", plan.index))
            })?;
            inputs.push(input);
            times.push(time);
        }
        let quantizers: Vec<u8> = (plans.iter().zip(&inputs).zip(&times))
            .map(|((plan, input), time)| self.choose_quantizer(plan, input, *time))
            .collect();
        let originals: Vec<Arc<Picture>> = match self.quality {
            Some(_) => inputs.iter().map(|input| input.picture.clone()).collect(),
            None => Vec::new(),
        };
        self.filter_noise(plans, &mut inputs, &quantizers)?;
        Ok(Part {
            plans,
            inputs,
            times,
            quantizers,
            originals,
        })
    }

    /// Codes frames again that took too much, and writes all.
    fn finish_part(&mut self, part: &Part<'_>, (coded, times): Timed<Vec<Coded>>) -> Result<()> {
        self.stats.times.add(&times);
        for (i, mut coded) in coded.into_iter().enumerate() {
            let (plan, input, time) = (&part.plans[i..=i], &part.inputs[i..=i], part.times[i]);
            let mut quantizer = part.quantizers[i];
            for _ in 0..RETRIES {
                let bits = 8 * self.unit_bytes(&plan[0], &input[0], &coded);
                let class = plan[0].class();
                let Some(other) = self.rate.retry(class, quantizer, bits, time) else {
                    break;
                };
                quantizer = other;
                let (mut again, times) = self.code(plan, input, &[quantizer], self.threads)?;
                self.stats.times.add(&times);
                coded = again
                    .pop()
                    .ok_or_else(|| CodecError::Internal("nothing was coded again".into()))?;
            }
            if let Some(original) = part.originals.get(i) {
                self.judge(&plan[0], original, quantizer, &coded)?;
            }
            self.emit(&plan[0], &input[0], (quantizer, time), coded)?;
        }
        Ok(())
    }

    /// Codes frames of one kind that do not depend on each other.
    fn code(
        &self,
        plans: &[PlannedFrame],
        inputs: &[InputFrame],
        quantizers: &[u8],
        threads: usize,
    ) -> Result<Timed<Vec<Coded>>> {
        let mut times = StageTimes::default();
        let coded = match plans[0].kind {
            FrameType::Repeat => plans.iter().map(|_| Coded::default()).collect(),
            FrameType::Key => self.code_keys(plans, inputs, quantizers, threads, &mut times)?,
            FrameType::Inter => self.code_inters(plans, inputs, quantizers, threads, &mut times)?,
        };
        Ok((coded, times))
    }

    /// What a coded frame will take as an access unit, to within a few bytes.
    fn unit_bytes(&self, plan: &PlannedFrame, input: &InputFrame, coded: &Coded) -> u64 {
        let before = self.units_before(plan.kind, input).len();
        (before + HEADER_BYTES + coded.bytes()) as u64
    }

    /// The units of an access unit that stand before its frame.
    fn units_before(&self, kind: FrameType, input: &InputFrame) -> Vec<u8> {
        let metadata = input.metadata.to_unit();
        match kind {
            FrameType::Key => {
                let stream = self.stream_metadata.to_unit();
                [&self.sequence_unit[..], &stream, &metadata].concat()
            }
            _ => metadata,
        }
    }

    /// Filters frames along the motion of those that wait around them, as strongly as their level
    /// wants it.
    fn filter_noise(
        &mut self,
        part: &[PlannedFrame],
        inputs: &mut [InputFrame],
        quantizers: &[u8],
    ) -> Result<()> {
        if self.config.effective_lookahead() == 0 {
            return Ok(());
        }
        let mut clock = Clock::start();
        let strengths = self.config.effective_tuning().temporal_filter;
        // Frames behind the next key frame are of another scene, or may be.
        let end = self.planner.key_ahead().unwrap_or(u64::MAX);
        for ((plan, input), &quantizer) in part.iter().zip(inputs).zip(quantizers) {
            let strength = strengths[usize::from(plan.level).min(strengths.len() - 1)];
            if strength <= 0.0 || plan.kind == FrameType::Repeat || self.cancel.is_cancelled() {
                continue;
            }
            let around = (1..=u64::from(REACH))
                .flat_map(|d| [plan.index.checked_sub(d), plan.index.checked_add(d)])
                .flatten()
                .filter(|index| *index < end)
                .filter_map(|index| {
                    Some(Neighbour {
                        picture: &self.waiting.get(&index)?.0.picture,
                        distance: plan.index.abs_diff(index) as u32,
                    })
                });
            let most = NEIGHBOURS[usize::from(plan.level > 0)];
            let around: Vec<Neighbour> = around.take(most).collect();
            if !around.is_empty() {
                let picture =
                    temporal_filter(&input.picture, &around, quantizer, strength, self.threads)?;
                input.picture = Arc::new(picture);
            }
        }
        clock.lap(&mut self.stats.times.filter);
        Ok(())
    }

    fn choose_quantizer(&mut self, plan: &PlannedFrame, input: &InputFrame, time: FrameTime) -> u8 {
        if plan.kind == FrameType::Key && !self.rate.is_constant_quality() {
            self.hint_key(&input.picture);
        }
        let rated = self
            .rate
            .quantizer_of(plan.index, plan.class(), plan.offset, time);
        let Some(Held { control, .. }) = &mut self.quality else {
            return rated;
        };
        if plan.kind == FrameType::Key {
            control.hint_key(&input.picture);
        }
        let wanted = control.quantizer(plan.class(), plan.offset);
        match self.rate.mode() {
            RateControl::Cq => wanted,
            RateControl::Vbr { .. } | RateControl::Cbr { .. } => wanted.max(rated),
        }
    }

    /// Measures a coded frame, where quality is held.
    fn judge(
        &mut self,
        plan: &PlannedFrame,
        original: &Picture,
        quantizer: u8,
        coded: &Coded,
    ) -> Result<()> {
        let Some(Held { control, measure }) = &mut self.quality else {
            return Ok(());
        };
        let Some(reference) = &coded.reference else {
            control.repeated();
            return Ok(());
        };
        let mut clock = Clock::start();
        let class = plan.class();
        let (frame, depth) = ((plan.index, class), self.config.info.bit_depth);
        match measure.of(frame, depth, original, &reference.picture)? {
            Some(value) => control.update(class, quantizer, value),
            None => control.guess(class, quantizer),
        }
        clock.lap(&mut self.stats.times.measure);
        Ok(())
    }

    /// How frames go through the networks.
    fn pass(&self, threads: usize) -> Pass<'_> {
        Pass {
            model: &self.model,
            config: &self.config,
            grid: self.coding.grid,
            threads,
            cancel: &self.cancel,
            keep_symbols: self.keep_symbols,
        }
    }

    /// What may be ink in each picture; `predicted`: packed predictions of inter frames.
    fn find_ink(
        &self,
        sources: &[&Picture],
        predicted: Option<&[Predicted]>,
        quantizers: &[u8],
        threads: usize,
    ) -> Result<Vec<Option<ink::Candidate>>> {
        let tuning = self.config.effective_tuning();
        let wanted = tuning.ink > 0.0 && self.config.speed > SpeedPreset::Fast;
        let found = parallel::map(threads, sources.len(), |i| {
            if !wanted {
                return Ok(None);
            }
            let prediction = predicted
                .map(|p| self.pass(1).unpack(&p[i].p))
                .transpose()?;
            let worth = tuning.worth_of_ink(quantizers[i]);
            Ok(ink::find(sources[i], prediction, worth))
        });
        found.into_iter().collect()
    }

    fn code_keys(
        &self,
        plans: &[PlannedFrame],
        inputs: &[InputFrame],
        quantizers: &[u8],
        threads: usize,
        times: &mut StageTimes,
    ) -> Result<Vec<Coded>> {
        let sources: Vec<&Picture> = inputs.iter().map(|i| &*i.picture).collect();
        let regions: Vec<&[Region]> = inputs.iter().map(|i| &i.regions[..]).collect();
        let found = self.find_ink(&sources, None, quantizers, threads)?;
        let measure = found.iter().any(Option::is_some);
        let pass = self.pass(threads);
        let mut coded = self.run_keys(&pass, &sources, &regions, quantizers, measure, times)?;
        let found = ink::prune(found, &sources, &coded, threads);
        if found.iter().any(Option::is_some) {
            let layers = ink::code(found, &sources, threads)?;
            let papers: Vec<&Picture> = (layers.iter().zip(&sources))
                .map(|(layer, source)| layer.as_ref().map_or(*source, |l| &l.paper))
                .collect();
            let under = self.run_keys(&pass, &papers, &regions, quantizers, false, times)?;
            coded = ink::choose(layers, &sources, coded, under);
        }
        Ok(coded
            .into_iter()
            .zip(plans)
            .map(|(coded, plan)| coded.into_coded(plan.level, None))
            .collect())
    }

    /// Networks and entropy coding of key frames, with maps of quantizers where the tune or
    /// regions want them.
    fn run_keys(
        &self,
        pass: &Pass<'_>,
        pictures: &[&Picture],
        regions: &[&[Region]],
        quantizers: &[u8],
        measure: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<Outcome>> {
        let (grid, threads) = (self.coding.grid, pass.threads);
        let shifts: Vec<u8> = (regions.iter().zip(quantizers))
            .map(|(regions, &q)| shift_of_regions(regions, q))
            .collect();
        let quantizers: Vec<u8> = quantizers.iter().zip(&shifts).map(|(q, s)| q - s).collect();
        let mut clock = Clock::start();
        let x = parallel::map(threads, pictures.len(), |i| pass.pack(pictures[i]));
        let x = x.into_iter().collect::<Result<Vec<_>>>()?;
        clock.lap(&mut times.pack);
        let strength = self.config.effective_tuning().adaptive_quantizer;
        let maps = parallel::map(threads, pictures.len(), |i| {
            let map = (strength > 0.0)
                .then(|| choose_map(pictures[i].luma(), grid.w16(), grid.h16(), strength));
            map_of_regions(map, regions[i], shifts[i], grid.w16(), grid.h16())
                .filter(|map| !map.is_flat())
        });
        let mut batch = self.model.key_batch(grid, &quantizers)?;
        for (i, _) in maps.iter().enumerate().filter(|(_, map)| map.is_some()) {
            batch.raise_scales(i, HEADROOM);
        }
        let tables = self.model.tables(NetworkSet::Key);
        let frames = (x.iter().zip(&quantizers).zip(&maps))
            .map(|((x, &q), map)| {
                Ok(Frame {
                    x,
                    p: None,
                    quantizer: q,
                    steps: Quantisation::new(tables, q, map.as_ref()),
                    start: Start {
                        symbols: self.coding.fresh(NetworkSet::Key)?,
                        motion: None,
                        still: Default::default(),
                    },
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut coded = pass.run(&batch, frames, measure, times)?;
        for (coded, map) in coded.iter_mut().zip(&maps) {
            coded.map = map.as_ref().map(QuantizerMap::to_bytes);
        }
        Ok(coded)
    }

    fn code_inters(
        &self,
        plans: &[PlannedFrame],
        inputs: &[InputFrame],
        quantizers: &[u8],
        threads: usize,
        times: &mut StageTimes,
    ) -> Result<Vec<Coded>> {
        let refs = plans
            .iter()
            .map(|plan| {
                let get = |poc: Option<u32>| {
                    poc.map(|poc| {
                        self.references.get(poc).cloned().ok_or_else(|| {
                            CodecError::Internal(format!("frame {poc} is no reference any more"))
                        })
                    })
                    .transpose()
                };
                let ref0 = get(plan.ref0)?
                    .ok_or_else(|| CodecError::Internal("an inter frame without reference".into()));
                Ok((ref0?, get(plan.ref1)?))
            })
            .collect::<Result<Vec<(Reference, Option<Reference>)>>>()?;
        // A batch shares the threads among its frames; one frame alone takes them all.
        let inner = threads.div_ceil(plans.len());
        let predict = |i: usize, searched: &Picture, coded: &Picture| {
            let (ref0, ref1) = &refs[i];
            let (plan, q) = (&plans[i], quantizers[i]);
            self.predict_frame(plan, searched, coded, q, ref0, ref1.as_ref(), inner)
        };
        let predicted = parallel::map(threads, plans.len(), |i| {
            predict(i, &inputs[i].picture, &inputs[i].picture)
        });
        let mut predicted = predicted.into_iter().collect::<Result<Vec<_>>>()?;
        let sources: Vec<&Picture> = inputs.iter().map(|i| &*i.picture).collect();
        let found = self.find_ink(&sources, Some(&predicted), quantizers, threads)?;
        let measure = found.iter().any(Option::is_some);
        let (w, h) = (self.coding.grid.w16(), self.coding.grid.h16());
        let manners: Vec<Manner> = (0..plans.len())
            .map(|i| {
                let regions = &inputs[i].regions;
                let shift = shift_of_regions(regions, quantizers[i]);
                let quantizer = quantizers[i] - shift;
                let map = map_of_regions(None, regions, shift, w, h).filter(|map| !map.is_flat());
                let as_predicted = !plans[i].keep
                    && map.is_none()
                    && self.stays_as_predicted(&predicted[i], quantizer);
                Manner {
                    quantizer,
                    map,
                    as_predicted,
                }
            })
            .collect();
        let pass = self.pass(threads);
        let mut coded = self.run_inters(&pass, &refs, &predicted, &manners, measure, times)?;
        let found = ink::prune(found, &sources, &coded, threads);
        if found.iter().any(Option::is_some) {
            let layers = ink::code(found, &sources, threads)?;
            let again = parallel::map(threads, plans.len(), |i| {
                let Some(inked) = &layers[i] else {
                    return Ok(None);
                };
                let searched = inked.searched(sources[i], &refs[i].0.picture);
                let mut again = predict(i, &searched, &inked.paper)?;
                inked.layer.ground(&mut again.p, &mut again.d);
                Ok(Some(again))
            });
            let again = again.into_iter().collect::<Result<Vec<_>>>()?;
            for (first, again) in predicted.iter_mut().zip(again) {
                if let Some(again) = again {
                    *first = again;
                }
            }
            let under = self.run_inters(&pass, &refs, &predicted, &manners, false, times)?;
            coded = ink::choose(layers, &sources, coded, under);
        }
        Ok(coded
            .into_iter()
            .zip(plans.iter().zip(&refs))
            .map(|(coded, (plan, (ref0, ref1)))| {
                coded.into_coded(plan.level, Some(context_source(ref0, ref1.as_ref())))
            })
            .collect())
    }

    /// Whether a frame is predicted about as well as it would be coded, in all its cells of 8×8
    /// luma samples.
    fn stays_as_predicted(&self, predicted: &Predicted, quantizer: u8) -> bool {
        let tuning = self.config.effective_tuning();
        let [mean, worst] = tuning.as_predicted;
        if tuning.still <= 0.0 || mean <= 0.0 {
            return false;
        }
        let worst = match self.config.speed {
            SpeedPreset::Ultrafast => ULTRAFAST_WORST * worst,
            _ => worst,
        };
        let cells = self.coding.grid.picture_len() / TENSOR_CHANNELS;
        let mut errors = vec![0.0f32; cells];
        let planes = predicted
            .x
            .chunks_exact(cells)
            .zip(predicted.p.chunks_exact(cells));
        for (x, p) in planes {
            for ((x, p), error) in x.iter().zip(p).zip(&mut errors) {
                let difference = f32::from(x - p);
                *error += difference * difference;
            }
        }
        let bound = nominal_distortion(quantizer) * TENSOR_CHANNELS as f32;
        errors.iter().all(|error| *error <= worst * bound)
            && errors.iter().sum::<f32>() <= mean * bound * cells as f32
    }

    /// Networks and entropy coding of predicted frames.
    fn run_inters(
        &self,
        pass: &Pass<'_>,
        refs: &[(Reference, Option<Reference>)],
        predicted: &[Predicted],
        manners: &[Manner],
        measure: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<Outcome>> {
        predicted.iter().for_each(|p| times.add(&p.times));
        let start = |i: usize| {
            let (ref0, ref1) = &refs[i];
            let from = match context_source(ref0, ref1.as_ref()) {
                ContextSource::Tables => None,
                ContextSource::Ref0 => ref0.contexts.as_deref(),
                ContextSource::Ref1 => ref1.as_ref().and_then(|r| r.contexts.as_deref()),
            };
            let (symbols, contexts, still) = match from {
                Some(c) => (c.symbols.clone(), c.motion.clone(), c.still.clone()),
                None => {
                    let fresh = self.coding.fresh(NetworkSet::Inter)?;
                    (fresh, Default::default(), Default::default())
                }
            };
            Ok::<_, CodecError>(Start {
                symbols,
                motion: Some((&*predicted[i].field, ref0.field.as_deref(), contexts)),
                still: (ref0.still.as_deref(), still),
            })
        };
        let changed: Vec<usize> = (0..manners.len())
            .filter(|&i| !manners[i].as_predicted)
            .collect();
        let mut coded = Vec::new();
        if !changed.is_empty() {
            let items: Vec<InterItem> = (changed.iter())
                .map(|&i| InterItem {
                    quantizer: manners[i].quantizer,
                    p: &predicted[i].p,
                    d: &predicted[i].d,
                })
                .collect();
            let mut batch = self.model.inter_batch(self.coding.grid, &items)?;
            let tables = self.model.tables(NetworkSet::Inter);
            let mut frames = Vec::with_capacity(changed.len());
            for (place, &i) in changed.iter().enumerate() {
                let Manner { quantizer, map, .. } = &manners[i];
                if map.is_some() {
                    batch.raise_scales(place, HEADROOM);
                }
                frames.push(Frame {
                    x: &predicted[i].x,
                    p: Some(&predicted[i].p),
                    quantizer: *quantizer,
                    steps: Quantisation::new(tables, *quantizer, map.as_ref()),
                    start: start(i)?,
                });
            }
            coded = pass.run(&batch, frames, measure, times)?;
        }
        let mut coded = coded.into_iter();
        let outcomes = predicted.iter().enumerate().map(|(i, predicted)| {
            let mut outcome = match (!manners[i].as_predicted).then(|| coded.next()).flatten() {
                Some(coded) => coded,
                None => pass.as_predicted(start(i)?, &predicted.p)?,
            };
            outcome.field = Some(predicted.field.clone());
            outcome.map = manners[i].map.as_ref().map(QuantizerMap::to_bytes);
            Ok(outcome)
        });
        outcomes.collect()
    }

    /// Motion search for one picture and compensation, for the networks to code another.
    #[allow(clippy::too_many_arguments)]
    fn predict_frame(
        &self,
        plan: &PlannedFrame,
        searched: &Picture,
        coded: &Picture,
        quantizer: u8,
        ref0: &Reference,
        ref1: Option<&Reference>,
        threads: usize,
    ) -> Result<Predicted> {
        if self.cancel.is_cancelled() {
            return Err(CodecError::Cancelled);
        }
        let mut times = StageTimes::default();
        let mut clock = Clock::start();
        let distances = temporal_distances(plan.poc, plan.ref0, plan.ref1);
        let second = ref1.unwrap_or(ref0);
        let params = SearchParams {
            lambda: lambda_of_quantizer(quantizer) * self.config.effective_tuning().motion_lambda,
            effort: match self.config.speed {
                SpeedPreset::Ultrafast => SearchEffort::Least,
                SpeedPreset::Fast => SearchEffort::Fast,
                SpeedPreset::Medium => SearchEffort::Medium,
                SpeedPreset::Slow => SearchEffort::Slow,
            },
            threads,
            distances,
        };
        let pictures = [&*ref0.picture, &*second.picture];
        let field = search(searched, pictures, ref0.field.as_deref(), &params)?;
        clock.lap(&mut times.search);
        let prediction = predict(&field, &ref0.picture, &second.picture, threads)?;
        clock.lap(&mut times.predict);
        let len = self.coding.grid.picture_len();
        let (mut p, mut d) = (vec![0; len], vec![0; len]);
        prediction.pack(&mut p, &mut d)?;
        let x = self.pass(threads).pack(coded)?;
        clock.lap(&mut times.pack);
        Ok(Predicted {
            field: Arc::new(field),
            p,
            d,
            x,
            times,
        })
    }

    /// Writes a coded frame as an access unit and keeps it as reference.
    fn emit(
        &mut self,
        plan: &PlannedFrame,
        input: &InputFrame,
        (quantizer, time): (u8, FrameTime),
        coded: Coded,
    ) -> Result<()> {
        let key = plan.kind == FrameType::Key;
        if key {
            self.references.clear();
        }
        let gop = self.gop.unwrap_or(0);
        let internal = || CodecError::Internal("a frame without reference".into());
        let written = quantizer - shift_of_regions(&input.regions, quantizer);
        let base = match plan.kind {
            FrameType::Key => FrameHeader::key(gop, written),
            FrameType::Inter => {
                let ref0 = plan.ref0.ok_or_else(internal)?;
                FrameHeader::inter(gop, plan.poc, written, ref0, plan.ref1)
            }
            FrameType::Repeat => {
                FrameHeader::repeat(gop, plan.poc, plan.ref0.ok_or_else(internal)?)
            }
        };
        let checksum = coded
            .reference
            .as_ref()
            .filter(|_| self.config.frame_checksum)
            .map(|r| r.picture.checksum());
        let mut header = FrameHeader {
            level: plan.level,
            keep: plan.keep,
            released: plan.released.clone(),
            contexts: coded.contexts.unwrap_or(ContextSource::Tables),
            pts: input.pts.and_then(|v| i64::try_from(v).ok()),
            duration: input.duration.filter(|d| *d <= i64::MAX as u64),
            checksum,
            quantizer_map: coded.map.is_some(),
            ink: coded.ink.is_some(),
            still: coded.still.is_some(),
            ..base
        };
        header.key_check = header.names_key().then_some(self.key_check);
        if key {
            self.key_pts = header.pts;
        }
        // A dozen bytes of each frame, a quarter of the quiet ones.
        header.omit_times(self.header.frame_rate, self.key_pts);
        // Headers tell of times and numbers of groups, which differ where the same pictures lie
        // elsewhere in a film: what is decided by sizes must not see them.
        let picture_bytes = coded.bytes();
        let y: Vec<&[u8]> = coded.y.iter().map(|s| &s[..]).collect();
        let latent_bytes = y.iter().map(|y| y.len()).sum();
        let streams = self.header.y_streams(header.frame_type);
        let mut payload = FramePayload {
            header,
            map: coded.map.as_deref().unwrap_or_default(),
            ink: coded.ink.as_deref().unwrap_or_default(),
            still: coded.still.as_deref().unwrap_or_default(),
            side: &coded.side,
            z: &coded.z,
            y,
        }
        .to_payload(streams)?;
        if key {
            // From the content, so that the same pictures give the same bytes.
            let identity = KeyIdentity::of(&payload)?;
            let gop = self.gop.map(|gop| gop.wrapping_add(1));
            let gop = gop.unwrap_or(identity.first_group());
            FrameHeader::set_group(&mut payload, gop);
            self.gop = Some(gop);
            self.key_check = identity.check();
        }
        let mut data = self.units_before(plan.kind, input);
        write_unit(&mut data, UnitType::Frame, &payload)?;
        let bits = 8 * data.len() as u64;
        self.rate
            .update(plan.class(), plan.offset, quantizer, bits, time);
        self.inheritance.coded(plan.kind, quantizer, picture_bytes);
        let stats = FrameStats {
            reconstruction: coded.reference.as_ref().map(|r| r.picture.clone()),
            symbols: coded.symbols,
            motion_bytes: coded.side.len(),
            hyper_bytes: coded.z.len(),
            latent_bytes,
            ink_bytes: coded.ink.as_ref().map_or(0, Vec::len),
        };
        self.references.release(&plan.released);
        if let Some(reference) = coded.reference.filter(|_| plan.keep) {
            self.references.keep(plan.poc, reference);
        }
        self.output.push_back(EncodedFrame {
            id: input.id,
            data,
            key,
            kind: plan.kind,
            poc: plan.poc,
            level: plan.level,
            quantizer,
            is_reference: plan.keep,
            pass: PassFrame {
                index: plan.index,
                kind: plan.kind,
                level: plan.level,
                offset: plan.offset,
                quantizer,
                bits,
            },
            recovery: plan.recovery,
            stats,
        });
        Ok(())
    }
}

/// Independent streams of `y` in inter frames: enough for decoders with many cores, few enough not
/// to cost rate.
fn inter_streams(grid: Grid) -> u8 {
    let streams: usize = match grid.h16() * grid.w16() {
        0..600 => 1,
        600..3000 => 2,
        3000..9000 => 4,
        _ => 8,
    };
    streams.min(grid.h16()) as u8
}

/// Independent streams of `y` in key frames. Each learns its probabilities anew, and key frames are
/// few, or whole ones are decoded side by side.
fn key_streams(grid: Grid) -> u8 {
    inter_streams(grid).div_ceil(2)
}

// SPDX-License-Identifier: MPL-2.0
//! The encoder: pictures in, access units out.
//!
//! ```no_run
//! use gstnnv::codec::{config::EncoderConfig, encoder::{Encoder, InputFrame}};
//! # use gstnnv::{codec::{error::CodecError, picture::Picture, stream_info::StreamInfo}, nn::Model};
//! # use std::sync::Arc;
//! # fn encode(model: Arc<Model>, info: StreamInfo, pictures: Vec<Arc<Picture>>) -> Result<(), CodecError> {
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

use super::bitstream::{
    ChromaFormat, ContextSource, FrameHeader, FramePayload, GopFacts, Rational, SequenceHeader,
    UnitType, write_unit,
};
use super::config::{ConfigError, EncoderConfig, RateControl, SpeedPreset};
use super::error::{CodecError, Result};
use super::gop::{FrameFacts, FrameKind, GopPlanner, Group, PlannedFrame, References, SceneCut};
use super::inheritance::Inheritance;
use super::ink::InkLayer;
use super::ink::separate::Separation;
use super::latent::{Rounding, bits_by_place, dequantise, hide_signs, quantise, refined};
use super::motion::search::lambda_of_quantizer;
use super::motion::{MotionField, SearchEffort, SearchParams, encode_field, predict, search};
use super::parallel;
use super::picture::Picture;
use super::quantizer_map::{HEADROOM, Quantisation, QuantizerMap};
use super::rate_control::{RateController, guess_key_bits};
use super::reference::{Coding, Contexts, Reference};
use super::temporal_filter::{NEIGHBOURS, Neighbour, REACH, temporal_filter};
use crate::nn::{self, Cancel, Grid, InterItem, Model};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A picture to encode.
#[derive(Debug, Clone)]
pub struct InputFrame {
    /// The picture, of the configured size.
    pub picture: Arc<Picture>,
    /// Comes back with the frame's access unit.
    pub id: u64,
    /// Presentation time in ns.
    pub pts: Option<u64>,
    /// Duration in ns.
    pub duration: Option<u64>,
    /// Starts a new group of pictures here.
    pub force_key: bool,
}

impl InputFrame {
    /// A frame without times.
    pub fn new(picture: Arc<Picture>, id: u64) -> Self {
        Self {
            picture,
            id,
            pts: None,
            duration: None,
            force_key: false,
        }
    }
}

/// One access unit in coding order.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// Of the input frame.
    pub id: u64,
    /// All bytes; a key frame's begin with the sequence header.
    pub data: Vec<u8>,
    /// Decoding may start here.
    pub key: bool,
    /// How it is coded.
    pub kind: FrameKind,
    /// Presentation order since the last key frame.
    pub poc: u32,
    /// Level in the mini-GOP.
    pub level: u8,
    /// Quantizer used.
    pub quantizer: u8,
    /// Later frames may refer to it.
    pub is_reference: bool,
    /// Measurements.
    pub stats: FrameStats,
}

/// What coding one frame took and gave.
#[derive(Debug, Clone, Default)]
pub struct FrameStats {
    /// The decoded picture, exactly as every decoder makes it; `None` for repeats.
    pub reconstruction: Option<Arc<Picture>>,
    /// Bytes of motion and side information.
    pub motion_bytes: usize,
    /// Bytes of hyper-latents.
    pub hyper_bytes: usize,
    /// Bytes of latents.
    pub latent_bytes: usize,
    /// Bytes of the ink layer; 0 where there is none.
    pub ink_bytes: usize,
    /// What was entropy-coded, after [`Encoder::keep_symbols`].
    pub symbols: Option<Arc<FrameSymbols>>,
}

/// The integers that the entropy coder wrote, for the tuning of its models.
#[derive(Debug, Clone)]
pub struct FrameSymbols {
    /// Shape of `y` and `scale_idx`: `[384, H/16, W/16]`.
    pub y_shape: [usize; 3],
    /// Latent.
    pub y: Vec<i16>,
    /// Scale indices.
    pub scale_idx: Vec<u8>,
    /// Hyper-latent.
    pub z: Vec<i8>,
}

/// Time spent per stage since the encoder was made or reset.
#[derive(Debug, Clone, Default)]
pub struct StageTimes {
    /// Temporal filter (encoder only).
    pub filter: Duration,
    /// Motion search.
    pub search: Duration,
    /// Prediction from references.
    pub predict: Duration,
    /// Packing into tensors and back.
    pub pack: Duration,
    /// Analysis networks (encoder only).
    pub analyse: Duration,
    /// Prior networks.
    pub prior: Duration,
    /// Entropy coding.
    pub entropy: Duration,
    /// Synthesis networks.
    pub synth: Duration,
    /// Quantisation and dequantisation.
    pub quantise: Duration,
}

impl StageTimes {
    /// Adds the times of another.
    pub(super) fn add(&mut self, other: &Self) {
        self.filter += other.filter;
        self.search += other.search;
        self.predict += other.predict;
        self.pack += other.pack;
        self.analyse += other.analyse;
        self.prior += other.prior;
        self.entropy += other.entropy;
        self.synth += other.synth;
        self.quantise += other.quantise;
    }
}

/// Totals for the `stats` property.
#[derive(Debug, Clone, Default)]
pub struct EncoderStats {
    /// Access units made.
    pub frames: u64,
    /// Key frames among them.
    pub keys: u64,
    /// Repeats among them.
    pub repeats: u64,
    /// Bytes made.
    pub bytes: u64,
    /// Sum of quantizers of coded frames.
    pub quantizers: u64,
    /// Time per stage.
    pub times: StageTimes,
}

/// A frame after coding, before it is written.
#[derive(Debug, Default)]
struct Coded {
    contexts: Option<ContextSource>,
    map: Option<Vec<u8>>,
    ink: Option<Vec<u8>>,
    side: Vec<u8>,
    z: Vec<u8>,
    y: Vec<Vec<u8>>,
    reference: Option<Reference>,
    symbols: Option<Arc<FrameSymbols>>,
}

/// An inter frame on its way into the networks.
struct Predicted {
    field: Arc<MotionField>,
    p: Vec<i16>,
    d: Vec<i16>,
    x: Vec<i16>,
    times: StageTimes,
}

/// A frame as coded in one of several ways.
struct Outcome {
    written: Written,
    picture: Arc<Picture>,
    /// Of inter frames.
    field: Option<Arc<MotionField>>,
    /// Of key frames.
    map: Option<Vec<u8>>,
    ink: Option<Vec<u8>>,
}

impl Outcome {
    fn bytes(&self) -> usize {
        let w = &self.written;
        let y: usize = w.y.iter().map(Vec::len).sum();
        let parts = [&self.map, &self.ink].into_iter().flatten();
        w.side.len() + w.z.len() + y + parts.map(Vec::len).sum::<usize>()
    }

    /// With the contexts that an inter frame began with.
    fn into_coded(self, level: u8, contexts: Option<ContextSource>) -> Coded {
        Coded {
            contexts,
            map: self.map,
            ink: self.ink,
            side: self.written.side,
            z: self.written.z,
            y: self.written.y,
            symbols: self.written.symbols,
            reference: Some(Reference {
                picture: self.picture,
                level,
                contexts: self.written.contexts.map(Arc::new),
                field: self.field,
            }),
        }
    }
}

/// A picture that may be coded as paper and ink.
#[derive(Clone)]
struct Candidate {
    separation: Separation,
    /// Of inter frames.
    prediction: Option<Arc<Picture>>,
    /// Squared error that a bit is worth.
    worth: f32,
}

/// A picture taken apart: its ink, written, and its paper.
struct Inked {
    separation: Separation,
    layer: InkLayer,
    data: Vec<u8>,
    paper: Picture,
    /// Squared error that a bit is worth.
    worth: f32,
}

/// Puts the ink on what was coded `under` it, and takes that in place of `coded` where it is better.
fn choose_ink(
    layers: Vec<Option<Inked>>,
    sources: &[&Picture],
    coded: &mut [Outcome],
    under: Vec<Outcome>,
) {
    for (((inked, source), coded), mut under) in
        layers.into_iter().zip(sources).zip(coded).zip(under)
    {
        let Some(inked) = inked else { continue };
        inked.layer.apply(Arc::make_mut(&mut under.picture));
        under.ink = Some(inked.data);
        let cost = |coded: &Outcome| {
            let error: u64 = source.sse(&coded.picture).iter().sum();
            error as f64 + 8.0 * f64::from(inked.worth) * coded.bytes() as f64
        };
        if cost(&under) < cost(coded) {
            *coded = under;
        }
    }
}

/// What the entropy coder made of a frame.
struct Written {
    side: Vec<u8>,
    z: Vec<u8>,
    y: Vec<Vec<u8>>,
    contexts: Option<Contexts>,
    symbols: Option<Arc<FrameSymbols>>,
    /// Bits of the latent by place, where they were asked for.
    place_bits: Option<Vec<f32>>,
}

/// Encodes pictures of one size. Not bound to a thread; one thread at a time.
#[derive(Debug)]
pub struct Encoder {
    model: Arc<Model>,
    config: EncoderConfig,
    coding: Coding,
    header: SequenceHeader,
    sequence_unit: Vec<u8>,
    batch: usize,
    threads: usize,
    planner: GopPlanner,
    scene: SceneCut,
    rate: RateController,
    inheritance: Inheritance,
    references: References<Reference>,
    /// Counts key frames.
    gop: u8,
    /// Presentation time of the last key frame in ns.
    key_pts: Option<i64>,
    /// Frames that wait for their turn, by input order.
    waiting: BTreeMap<u64, InputFrame>,
    next_index: u64,
    last_picture: Option<Arc<Picture>>,
    last_pts: Option<u64>,
    /// Length of the last frame in s.
    seconds: f64,
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
    /// [`CodecError::Config`] for a bad configuration, [`CodecError::Nn`] when the networks cannot be loaded,
    /// [`CodecError::Bitstream`] when the model's name cannot be written.
    pub fn new(model: Arc<Model>, config: EncoderConfig) -> Result<Self> {
        config.validate()?;
        model.prepare_encoder()?;
        let info = &config.info;
        let grid = Grid::for_picture(info.width as usize, info.height as usize)?;
        let bframes = config.effective_bframes();
        let hash = model.hash();
        let header = SequenceHeader {
            bundle_name: model.name().to_string(),
            bundle_hash: std::array::from_fn(|i| hash[i]),
            width: info.width,
            height: info.height,
            crop: info.crop,
            frame_rate: info.rate(),
            pixel_aspect: Rational::new(info.pixel_aspect.0, info.pixel_aspect.1),
            chroma_format: ChromaFormat::Yuv420,
            bit_depth: info.bit_depth,
            colorimetry: info.colorimetry,
            mastering_display: info.mastering_display,
            content_light: info.content_light,
            gop: GopFacts {
                max_reorder: bframes,
                mini_gop: bframes + 1,
                max_references: match (config.key_int_max, bframes) {
                    (1, _) => 1,
                    (_, 0) => 3,
                    _ => 6,
                },
                key_interval: config.key_int_max.min(i32::MAX as u32),
            },
            key_streams: key_streams(grid),
            inter_streams: inter_streams(grid),
            checksums: config.frame_checksum,
        };
        let payload = header
            .to_payload()
            .map_err(|e| ConfigError::Info(e.to_string()))?;
        let mut sequence_unit = Vec::new();
        write_unit(&mut sequence_unit, UnitType::Sequence, &payload)?;
        let batch = config.effective_batch().min(nn::MAX_BATCH);
        Ok(Self {
            coding: Coding::new(&model, grid, &header)?,
            planner: GopPlanner::new(
                bframes,
                config.effective_lookahead(),
                config.key_int_max,
                batch,
                config.effective_tuning(),
            ),
            scene: SceneCut::default(),
            rate: RateController::new(&config),
            inheritance: Inheritance::default(),
            references: References::default(),
            gop: u8::MAX,
            key_pts: None,
            waiting: BTreeMap::new(),
            next_index: 0,
            last_picture: None,
            last_pts: None,
            seconds: 1.0 / 30.0,
            output: VecDeque::new(),
            stats: EncoderStats::default(),
            cancel: Cancel::new(),
            finished: false,
            keep_symbols: false,
            threads: parallel::resolve(config.threads),
            header,
            sequence_unit,
            batch,
            model,
            config,
        })
    }

    /// The configuration, with the rates now in force.
    pub fn config(&self) -> EncoderConfig {
        EncoderConfig {
            rate_control: self.rate.mode(),
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

    /// Changes the bit rate (bit/s) from the next frame on. No effect with constant quality.
    ///
    /// # Errors
    /// [`CodecError::Config`] for a rate out of range.
    pub fn set_bitrate(&mut self, bitrate: u64) -> Result<()> {
        let mut config = self.config();
        match &mut config.rate_control {
            RateControl::Cq => return Ok(()),
            RateControl::Vbr {
                bitrate: b,
                max_bitrate,
            } => {
                *b = bitrate;
                *max_bitrate = max_bitrate.map(|m| m.max(bitrate));
            }
            RateControl::Cbr { bitrate: b, .. } => *b = bitrate,
        }
        config.validate()?;
        self.rate.set_bitrate(bitrate);
        Ok(())
    }

    /// Changes the greatest bit rate (bit/s) from the next frame on; only variable bit rate has one.
    ///
    /// # Errors
    /// [`CodecError::Config`] for a rate out of range or below the mean.
    pub fn set_max_bitrate(&mut self, bitrate: Option<u64>) -> Result<()> {
        let mut config = self.config();
        if let RateControl::Vbr { max_bitrate, .. } = &mut config.rate_control {
            *max_bitrate = bitrate;
        }
        config.validate()?;
        self.rate.set_max_bitrate(bitrate);
        Ok(())
    }

    /// Takes the next picture in order of presentation and codes what can be coded.
    ///
    /// # Errors
    /// [`CodecError::Size`] for a picture of another size, [`CodecError::Finished`] after [`finish`](Self::finish),
    /// [`CodecError::Nn`] when a network fails, [`CodecError::Cancelled`].
    pub fn send(&mut self, frame: InputFrame) -> Result<()> {
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
        let repeat = self
            .last_picture
            .as_ref()
            .is_some_and(|last| Arc::ptr_eq(last, &frame.picture) || last.is_equal(&frame.picture));
        let ratio = if repeat {
            Some(0.0)
        } else {
            self.scene.measure(&frame.picture.quarter_luma())
        };
        let scene_cut = self.config.scene_cut
            && !repeat
            && ratio.is_some_and(|ratio| {
                SceneCut::is_cut(
                    ratio,
                    self.planner.distance(),
                    &self.config.effective_tuning(),
                )
            });
        self.last_picture = Some(frame.picture.clone());
        let facts = FrameFacts {
            force_key: frame.force_key,
            scene_cut,
            repeat,
            novelty: ratio.unwrap_or(0.0),
        };
        self.waiting.insert(self.next_index, frame);
        self.next_index += 1;
        self.planner.push(facts);
        self.code_ready()
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

    /// Drops everything that waits; the next frame is a key frame. Also clears a cancellation.
    pub fn reset(&mut self) {
        self.planner.reset();
        self.scene.reset();
        self.references.clear();
        self.rate.forget_waiting();
        self.waiting.clear();
        self.last_pts = None;
        self.output.clear();
        self.last_picture = None;
        self.finished = false;
        self.cancel.reset();
    }

    fn code_ready(&mut self) -> Result<()> {
        let strength = self.config.effective_tuning().inheritance;
        while let Some(mut group) = self.planner.next_group() {
            for plan in group.iter_mut().filter(|p| p.kind == FrameKind::Inter) {
                plan.offset = self.inheritance.scaled(plan.offset, strength);
            }
            self.code_group(&group)?;
        }
        Ok(())
    }

    fn code_group(&mut self, group: &Group) -> Result<()> {
        for part in group.chunks(self.batch) {
            let mut inputs = Vec::with_capacity(part.len());
            for plan in part {
                let input = self.waiting.remove(&plan.index).ok_or_else(|| {
                    CodecError::Internal(format!("frame {} was planned but not sent", plan.index))
                })?;
                inputs.push(input);
            }
            let chosen: Vec<(u8, f64)> = part
                .iter()
                .zip(&inputs)
                .map(|(plan, input)| self.choose_quantizer(plan, input))
                .collect();
            let quantizers: Vec<u8> = chosen.iter().map(|c| c.0).collect();
            self.filter_noise(part, &mut inputs, &quantizers)?;
            let coded = match part[0].kind {
                FrameKind::Repeat => part.iter().map(|_| Coded::default()).collect(),
                FrameKind::Key => self.code_keys(part, &inputs, &quantizers)?,
                FrameKind::Inter => self.code_inters(part, &inputs, &quantizers)?,
            };
            for (((plan, input), chosen), coded) in part.iter().zip(inputs).zip(chosen).zip(coded) {
                self.emit(plan, input, chosen, coded)?;
            }
        }
        Ok(())
    }

    /// Filters frames along the motion of those that wait around them, as strongly as their level wants it.
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
            if strength <= 0.0 || plan.kind == FrameKind::Repeat || self.cancel.is_cancelled() {
                continue;
            }
            let around = (1..=u64::from(REACH))
                .flat_map(|d| [plan.index.checked_sub(d), plan.index.checked_add(d)])
                .flatten()
                .filter(|index| *index < end)
                .filter_map(|index| {
                    Some(Neighbour {
                        picture: &self.waiting.get(&index)?.picture,
                        distance: plan.index.abs_diff(index) as u32,
                    })
                });
            let around: Vec<Neighbour> = around.take(NEIGHBOURS).collect();
            if !around.is_empty() {
                let picture =
                    temporal_filter(&input.picture, &around, quantizer, strength, self.threads)?;
                input.picture = Arc::new(picture);
            }
        }
        clock.lap(&mut self.stats.times.filter);
        Ok(())
    }

    /// How long a frame is shown, in s.
    fn frame_seconds(&mut self, input: &InputFrame) -> f64 {
        let last = std::mem::replace(&mut self.last_pts, input.pts);
        let known = input
            .duration
            .filter(|d| *d > 0)
            .map(|d| d as f64 / 1e9)
            .or_else(|| {
                self.config
                    .info
                    .frame_rate
                    .map(|(n, d)| f64::from(d) / f64::from(n))
            })
            .or_else(|| {
                let step = input.pts?.checked_sub(last?)?;
                (step > 0).then_some(step as f64 / 1e9)
            });
        // Longer pauses would let the rate control save up what it then spends at once.
        self.seconds = known.unwrap_or(self.seconds).clamp(1e-4, 1.0);
        self.seconds
    }

    fn choose_quantizer(&mut self, plan: &PlannedFrame, input: &InputFrame) -> (u8, f64) {
        let seconds = self.frame_seconds(input);
        if plan.kind == FrameKind::Key && !self.rate.is_constant_quality() {
            let at = f64::from(self.config.quantizer);
            let bits = guess_key_bits(&input.picture, at);
            self.rate.hint_key(at, bits);
        }
        let q = self.rate.quantizer(plan.class(), plan.offset, seconds);
        (q, seconds)
    }

    /// Packs a picture into a tensor.
    fn pack(&self, picture: &Picture) -> Result<Vec<i16>> {
        let mut x = vec![0; self.coding.grid.picture_len()];
        picture.pack(&mut x)?;
        Ok(x)
    }

    fn unpack(&self, tensor: &[i16]) -> Result<Arc<Picture>> {
        let info = &self.config.info;
        let mut picture = Picture::new(info.width, info.height)?;
        picture.unpack(tensor)?;
        Ok(Arc::new(picture))
    }

    fn code_keys(
        &mut self,
        plans: &[PlannedFrame],
        inputs: &[InputFrame],
        quantizers: &[u8],
    ) -> Result<Vec<Coded>> {
        let sources: Vec<&Picture> = inputs.iter().map(|i| &*i.picture).collect();
        let mut found = self.find_ink(&sources, None, quantizers)?;
        let measure = found.iter().any(Option::is_some);
        let mut coded = self.run_keys(&sources, quantizers, measure)?;
        self.prune_ink(&mut found, &sources, &coded);
        if found.iter().any(Option::is_some) {
            let layers = self.finish_ink(found, &sources)?;
            let papers: Vec<&Picture> = (layers.iter().zip(&sources))
                .map(|(layer, source)| layer.as_ref().map_or(*source, |l| &l.paper))
                .collect();
            let under = self.run_keys(&papers, quantizers, false)?;
            choose_ink(layers, &sources, &mut coded, under);
        }
        Ok(coded
            .into_iter()
            .zip(plans)
            .map(|(coded, plan)| coded.into_coded(plan.level, None))
            .collect())
    }

    /// Networks and entropy coding of key frames, with maps of quantizers where the tune wants them.
    fn run_keys(
        &mut self,
        pictures: &[&Picture],
        quantizers: &[u8],
        measure: bool,
    ) -> Result<Vec<Outcome>> {
        let (grid, threads) = (self.coding.grid, self.threads);
        let mut clock = Clock::start();
        let x = parallel::map(threads, pictures.len(), |i| self.pack(pictures[i]));
        let x = x.into_iter().collect::<Result<Vec<_>>>()?;
        let x: Vec<&[i16]> = x.iter().map(|x| &x[..]).collect();
        clock.lap(&mut self.stats.times.pack);
        let strength = self.config.effective_tuning().adaptive_quantizer;
        let maps = parallel::map(threads, pictures.len(), |i| {
            (strength > 0.0)
                .then(|| QuantizerMap::choose(pictures[i].luma(), grid.w16(), grid.h16(), strength))
                .filter(|map| !map.is_flat())
        });
        let model = self.model.clone();
        let mut batch = model.key_batch(grid, quantizers)?;
        for (i, _) in maps.iter().enumerate().filter(|(_, map)| map.is_some()) {
            batch.raise_scales(i, HEADROOM);
        }
        let fresh = || {
            Ok(Start {
                symbols: self.coding.fresh(nn::FrameKind::Key)?,
                motion: None,
            })
        };
        let starts = pictures
            .iter()
            .map(|_| fresh())
            .collect::<Result<Vec<_>>>()?;
        let tables = model.tables(nn::FrameKind::Key);
        let steps: Vec<Quantisation> = quantizers
            .iter()
            .zip(&maps)
            .map(|(&q, map)| Quantisation::new(tables, q, map.as_ref()))
            .collect();
        let mut coded = self.run(&batch, &steps, &x, starts, measure, &mut clock)?;
        for (coded, map) in coded.iter_mut().zip(&maps) {
            coded.map = map.as_ref().map(|map| {
                let mut coder = super::entropy::Encoder::new();
                map.encode(&mut coder);
                coder.finish()
            });
        }
        Ok(coded)
    }

    /// What of each picture may be ink; `predicted`: packed predictions of inter frames.
    fn find_ink(
        &self,
        sources: &[&Picture],
        predicted: Option<&[&[i16]]>,
        quantizers: &[u8],
    ) -> Result<Vec<Option<Candidate>>> {
        let tuning = self.config.effective_tuning();
        let wanted = tuning.ink > 0.0 && self.config.speed != SpeedPreset::Fast;
        let found = parallel::map(self.threads, sources.len(), |i| {
            if !wanted {
                return Ok(None);
            }
            let prediction = predicted.map(|p| self.unpack(p[i])).transpose()?;
            let worth = tuning.worth_of_ink(quantizers[i]);
            let found = Separation::find(sources[i], prediction.as_deref(), worth);
            Ok(found.map(|separation| Candidate {
                separation,
                prediction,
                worth,
            }))
        });
        found.into_iter().collect()
    }

    /// Drops what the networks code better as it is.
    fn prune_ink(&self, found: &mut [Option<Candidate>], sources: &[&Picture], coded: &[Outcome]) {
        let kept = parallel::map(self.threads, found.len(), |i| {
            let mut kept = found[i].clone()?;
            let mut bits = coded[i].written.place_bits.clone()?;
            // What runs of zeros save is not in the costs of single symbols.
            let written: usize = coded[i].written.y.iter().map(Vec::len).sum();
            let scale = 8.0 * written as f32 / bits.iter().sum::<f32>().max(1.0);
            bits.iter_mut().for_each(|bits| *bits *= scale);
            let (prediction, worth) = (kept.prediction.as_deref(), kept.worth);
            let picture = &coded[i].picture;
            let stays = (kept.separation).prune(sources[i], prediction, picture, &bits, worth);
            stays.then_some(kept)
        });
        found.clone_from_slice(&kept);
    }

    /// Writes the layers that stay.
    fn finish_ink(
        &self,
        found: Vec<Option<Candidate>>,
        sources: &[&Picture],
    ) -> Result<Vec<Option<Inked>>> {
        let layers = parallel::map(self.threads, found.len(), |i| {
            let Some(found) = found[i].clone() else {
                return Ok(None);
            };
            let (layer, data, paper) = found.separation.clone().finish(sources[i], found.worth)?;
            Ok(Some(Inked {
                separation: found.separation,
                layer,
                data,
                paper,
                worth: found.worth,
            }))
        });
        layers.into_iter().collect()
    }

    fn code_inters(
        &mut self,
        plans: &[PlannedFrame],
        inputs: &[InputFrame],
        quantizers: &[u8],
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
        let inner = self.threads.div_ceil(plans.len());
        let predict = |encoder: &Self, i: usize, searched: &Picture, coded: &Picture| {
            let (ref0, ref1) = &refs[i];
            let (plan, q) = (&plans[i], quantizers[i]);
            encoder.predict_frame(plan, searched, coded, q, ref0, ref1.as_ref(), inner)
        };
        let predicted = parallel::map(self.threads, plans.len(), |i| {
            predict(self, i, &inputs[i].picture, &inputs[i].picture)
        });
        let mut predicted = predicted.into_iter().collect::<Result<Vec<_>>>()?;
        let sources: Vec<&Picture> = inputs.iter().map(|i| &*i.picture).collect();
        let p: Vec<&[i16]> = predicted.iter().map(|p| &p.p[..]).collect();
        let mut found = self.find_ink(&sources, Some(&p), quantizers)?;
        let measure = found.iter().any(Option::is_some);
        let mut coded = self.run_inters(&refs, &predicted, quantizers, measure)?;
        self.prune_ink(&mut found, &sources, &coded);
        if found.iter().any(Option::is_some) {
            let layers = self.finish_ink(found, &sources)?;
            // Under paper nothing has to be predicted: its motion shall cost nothing.
            let again = parallel::map(self.threads, plans.len(), |i| {
                let Some(inked) = &layers[i] else {
                    return Ok(None);
                };
                let searched = inked.separation.still(sources[i], &refs[i].0.picture);
                let mut again = predict(self, i, &searched, &inked.paper)?;
                inked.layer.ground(&mut again.p, &mut again.d);
                Ok(Some(again))
            });
            let again = again.into_iter().collect::<Result<Vec<_>>>()?;
            for (first, again) in predicted.iter_mut().zip(again) {
                if let Some(again) = again {
                    *first = again;
                }
            }
            let under = self.run_inters(&refs, &predicted, quantizers, false)?;
            choose_ink(layers, &sources, &mut coded, under);
        }
        Ok(coded
            .into_iter()
            .zip(plans.iter().zip(&refs))
            .map(|(coded, (plan, (ref0, ref1)))| {
                coded.into_coded(plan.level, Some(context_source(ref0, ref1.as_ref())))
            })
            .collect())
    }

    /// Networks and entropy coding of predicted frames.
    fn run_inters(
        &mut self,
        refs: &[(Reference, Option<Reference>)],
        predicted: &[Predicted],
        quantizers: &[u8],
        measure: bool,
    ) -> Result<Vec<Outcome>> {
        for p in predicted {
            self.stats.times.add(&p.times);
        }
        let mut clock = Clock::start();
        let model = self.model.clone();
        let items: Vec<InterItem> = predicted
            .iter()
            .zip(quantizers)
            .map(|(p, &quantizer)| InterItem {
                quantizer,
                p: &p.p,
                d: &p.d,
            })
            .collect();
        let batch = model.inter_batch(self.coding.grid, &items)?;
        let starts = refs
            .iter()
            .zip(predicted)
            .map(|((ref0, ref1), p)| {
                let from = match context_source(ref0, ref1.as_ref()) {
                    ContextSource::Tables => None,
                    ContextSource::Ref0 => ref0.contexts.as_deref(),
                    ContextSource::Ref1 => ref1.as_ref().and_then(|r| r.contexts.as_deref()),
                };
                let (symbols, contexts) = match from {
                    Some(c) => (c.symbols.clone(), c.motion.clone()),
                    None => (self.coding.fresh(nn::FrameKind::Inter)?, Default::default()),
                };
                Ok(Start {
                    symbols,
                    motion: Some((&p.field, ref0.field.as_deref(), contexts)),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let x: Vec<&[i16]> = predicted.iter().map(|p| &p.x[..]).collect();
        let tables = model.tables(nn::FrameKind::Inter);
        let steps: Vec<Quantisation> = quantizers
            .iter()
            .map(|&q| Quantisation::new(tables, q, None))
            .collect();
        let mut coded = self.run(&batch, &steps, &x, starts, measure, &mut clock)?;
        for (coded, p) in coded.iter_mut().zip(predicted) {
            coded.field = Some(p.field.clone());
        }
        Ok(coded)
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
        let x = self.pack(coded)?;
        clock.lap(&mut times.pack);
        Ok(Predicted {
            field: Arc::new(field),
            p,
            d,
            x,
            times,
        })
    }

    /// Networks and entropy coding of a batch; the same for both kinds of frames. `measure`: asks for bits by place.
    #[allow(clippy::too_many_arguments)]
    fn run(
        &mut self,
        batch: &nn::Batch<'_>,
        steps: &[Quantisation<'_>],
        x: &[&[i16]],
        starts: Vec<Start<'_>>,
        measure: bool,
        clock: &mut Clock,
    ) -> Result<Vec<Outcome>> {
        let (n, threads) = (x.len(), self.threads);
        let analysis = batch.analyse(x, &self.cancel)?;
        clock.lap(&mut self.stats.times.analyse);
        // The entropy coder's alphabet of z has no -128.
        let z: Vec<Vec<i8>> = (0..n)
            .map(|i| analysis.z(i).iter().map(|&v| v.max(-127)).collect())
            .collect();
        let z: Vec<&[i8]> = z.iter().map(|z| &z[..]).collect();
        let prior = batch.prior(&z, &self.cancel)?;
        let with_map: Vec<Option<Vec<u8>>> = (0..n)
            .map(|i| steps[i].scales(prior.scale_idx(i)))
            .collect();
        let scales: Vec<&[u8]> = (0..n)
            .map(|i| with_map[i].as_deref().unwrap_or(prior.scale_idx(i)))
            .collect();
        clock.lap(&mut self.stats.times.prior);
        let tuning = self.config.effective_tuning();
        let rdo = self.config.speed != SpeedPreset::Fast;
        let tables = self.model.tables(batch.kind());
        let width = self.coding.grid.w16();
        let round = |i: usize, y: &[f32], first_half: Option<&[i16]>| {
            let costs = rdo.then(|| starts[i].symbols.costs());
            let rounding = costs
                .as_ref()
                .map_or(Rounding::DeadZone(tuning.round_up), |costs| {
                    Rounding::RateDistortion(costs, tuning.lambda)
                });
            let mut symbols = quantise(y, scales[i], width, rounding, first_half);
            hide_signs(
                &mut symbols,
                y,
                scales[i],
                width,
                tables.y_order(),
                rounding,
            );
            let r = dequantise(&symbols, &steps[i]);
            (symbols, r)
        };
        // Latents in the steps of their places.
        let latents = |i: usize| {
            let mut y = Cow::Borrowed(analysis.y(i));
            if with_map[i].is_some() {
                steps[i].rescale(y.to_mut());
            }
            y
        };
        let mut quantised = parallel::map(threads, n, |i| round(i, &latents(i), None));
        clock.lap(&mut self.stats.times.quantise);
        if batch.kind() == nn::FrameKind::Key {
            // The second half's means depend on the symbols of the first, as they were chosen in the end.
            let r: Vec<&[i16]> = quantised.iter().map(|q| &q.1[..]).collect();
            let refinement = batch.refine(&prior, &r, &self.cancel)?;
            clock.lap(&mut self.stats.times.analyse);
            quantised = parallel::map(threads, n, |i| {
                let y = refined(&latents(i), refinement.delta(i), &steps[i]);
                round(i, &y, Some(&quantised[i].0))
            });
            clock.lap(&mut self.stats.times.quantise);
        } else if self.config.speed == SpeedPreset::Slow && with_map.iter().all(Option::is_none) {
            // What the decoded picture lacks, as the analysis sees it, is asked for once more: the synthesis' refinement
            // has given some of it already, and has taken some away. (Latents of key frames are not comparable: their
            // means differ with the hyper-latent.)
            let r: Vec<&[i16]> = quantised.iter().map(|q| &q.1[..]).collect();
            let decoded = batch.synthesise(&prior, &r, &self.cancel)?;
            clock.lap(&mut self.stats.times.synth);
            let decoded: Vec<&[i16]> = (0..n).map(|i| decoded.get(i)).collect();
            let again = batch.analyse(&decoded, &self.cancel)?;
            clock.lap(&mut self.stats.times.analyse);
            quantised = parallel::map(threads, n, |i| {
                let lacks = analysis.y(i).iter().zip(again.y(i));
                let symbols = quantised[i].0.iter();
                let y: Vec<f32> = symbols
                    .zip(lacks)
                    .map(|(&s, (y, again))| f32::from(s) + (y - again))
                    .collect();
                round(i, &y, None)
            });
            clock.lap(&mut self.stats.times.quantise);
        }
        let place_bits = parallel::map(threads, n, |i| {
            let symbols = &quantised[i].0;
            measure.then(|| bits_by_place(symbols, scales[i], width, &starts[i].symbols.costs()))
        });
        let r: Vec<&[i16]> = quantised.iter().map(|q| &q.1[..]).collect();
        // Entropy coding and synthesis do not need each other.
        let (written, entropy, pictures, synth) = std::thread::scope(|scope| {
            let (z, scales, quantised) = (&z, &scales, &quantised);
            let writer = scope.spawn(move || {
                let start = Instant::now();
                let written: Result<Vec<Written>> = starts
                    .into_iter()
                    .enumerate()
                    .map(|(i, s)| s.write(z[i], scales[i], &quantised[i].0))
                    .collect();
                (written, start.elapsed())
            });
            let start = Instant::now();
            let pictures = batch.synthesise(&prior, &r, &self.cancel);
            let synth = start.elapsed();
            let (written, entropy) = writer
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (written, entropy, pictures, synth)
        });
        self.stats.times.entropy += entropy;
        self.stats.times.synth += synth;
        let (mut written, pictures) = (written?, pictures?);
        for (w, bits) in written.iter_mut().zip(place_bits) {
            w.place_bits = bits;
        }
        if self.keep_symbols {
            let grid = self.coding.grid;
            for (i, w) in written.iter_mut().enumerate() {
                w.symbols = Some(Arc::new(FrameSymbols {
                    y_shape: [nn::LATENT_CHANNELS, grid.h16(), grid.w16()],
                    y: quantised[i].0.clone(),
                    scale_idx: scales[i].to_vec(),
                    z: z[i].to_vec(),
                }));
            }
        }
        *clock = Clock::start();
        let pictures = parallel::map(threads, n, |i| self.unpack(pictures.get(i)));
        let pictures = pictures.into_iter().collect::<Result<Vec<_>>>()?;
        clock.lap(&mut self.stats.times.pack);
        let outcome = |(written, picture)| Outcome {
            written,
            picture,
            field: None,
            map: None,
            ink: None,
        };
        Ok(written.into_iter().zip(pictures).map(outcome).collect())
    }

    /// Writes a coded frame as an access unit and keeps it as reference.
    fn emit(
        &mut self,
        plan: &PlannedFrame,
        input: InputFrame,
        (quantizer, seconds): (u8, f64),
        coded: Coded,
    ) -> Result<()> {
        let key = plan.kind == FrameKind::Key;
        if key {
            self.gop = self.gop.wrapping_add(1);
            self.references.clear();
        }
        let internal = || CodecError::Internal("a frame without reference".into());
        let base = match plan.kind {
            FrameKind::Key => FrameHeader::key(self.gop, quantizer),
            FrameKind::Inter => {
                let ref0 = plan.ref0.ok_or_else(internal)?;
                FrameHeader::inter(self.gop, plan.poc, quantizer, ref0, plan.ref1)
            }
            FrameKind::Repeat => {
                FrameHeader::repeat(self.gop, plan.poc, plan.ref0.ok_or_else(internal)?)
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
            ..base
        };
        if key {
            self.key_pts = header.pts;
        }
        // A dozen bytes of each frame, a quarter of the quiet ones.
        header.omit_times(self.header.frame_rate, self.key_pts);
        let y: Vec<&[u8]> = coded.y.iter().map(|s| &s[..]).collect();
        let latent_bytes = y.iter().map(|y| y.len()).sum();
        let streams = self.header.y_streams(header.frame_type);
        let payload = FramePayload {
            header,
            map: coded.map.as_deref().unwrap_or_default(),
            ink: coded.ink.as_deref().unwrap_or_default(),
            side: &coded.side,
            z: &coded.z,
            y,
        }
        .to_payload(streams)?;
        let mut data = if key {
            self.sequence_unit.clone()
        } else {
            Vec::new()
        };
        write_unit(&mut data, UnitType::Frame, &payload)?;
        self.rate.update(
            plan.class(),
            plan.offset,
            quantizer,
            8 * data.len() as u64,
            seconds,
        );
        self.inheritance.coded(plan.kind, quantizer, data.len());
        let stats = FrameStats {
            reconstruction: coded.reference.as_ref().map(|r| r.picture.clone()),
            symbols: coded.symbols,
            motion_bytes: coded.side.len(),
            hyper_bytes: coded.z.len(),
            latent_bytes,
            ink_bytes: coded.ink.as_ref().map_or(0, Vec::len),
        };
        let totals = &mut self.stats;
        totals.frames += 1;
        totals.keys += u64::from(key);
        totals.repeats += u64::from(plan.kind == FrameKind::Repeat);
        totals.bytes += data.len() as u64;
        totals.quantizers += u64::from(quantizer);
        if let Some(reference) = coded.reference.filter(|_| plan.keep) {
            self.references.keep(plan.poc, reference);
        }
        self.references.release(&plan.released);
        self.output.push_back(EncodedFrame {
            id: input.id,
            data,
            key,
            kind: plan.kind,
            poc: plan.poc,
            level: plan.level,
            quantizer,
            is_reference: plan.keep,
            stats,
        });
        Ok(())
    }
}

/// Where the entropy coding of a frame begins.
struct Start<'a> {
    symbols: super::entropy::SymbolContexts,
    /// Field, co-located field, state; for inter frames.
    motion: Option<(
        &'a MotionField,
        Option<&'a MotionField>,
        super::motion::MotionContexts,
    )>,
}

impl Start<'_> {
    fn write(mut self, z: &[i8], scale_idx: &[u8], symbols: &[i16]) -> Result<Written> {
        let mut side = Vec::new();
        let mut motion = None;
        if let Some((field, colocated, mut contexts)) = self.motion {
            let mut coder = super::entropy::Encoder::new();
            encode_field(&mut coder, &mut contexts, field, colocated);
            side = coder.finish();
            motion = Some(contexts);
        }
        let z = self.symbols.encode_z(z)?;
        let y = self.symbols.encode_y(scale_idx, symbols)?;
        Ok(Written {
            side,
            z,
            y,
            contexts: motion.map(|motion| Contexts {
                symbols: self.symbols,
                motion,
            }),
            symbols: None,
            place_bits: None,
        })
    }
}

/// Measures stages one after the other.
pub(super) struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Adds the time since the last call.
    pub fn lap(&mut self, to: &mut Duration) {
        let now = Instant::now();
        *to += now - self.0;
        self.0 = now;
    }
}

/// Independent streams of `y` in inter frames: enough for decoders with many cores, few enough not to cost rate.
fn inter_streams(grid: Grid) -> u8 {
    let streams: usize = match grid.h16() * grid.w16() {
        0..600 => 1,
        600..3000 => 2,
        3000..9000 => 4,
        _ => 8,
    };
    streams.min(grid.h16()) as u8
}

/// Independent streams of `y` in key frames. Each learns its probabilities anew, and key frames are few, or whole ones
/// are decoded side by side.
fn key_streams(grid: Grid) -> u8 {
    inter_streams(grid).div_ceil(2)
}

/// Time of a frame less that of its references, which motion vectors are scaled with.
pub(super) fn temporal_distances(poc: u32, ref0: Option<u32>, ref1: Option<u32>) -> [i16; 2] {
    let distance = |r: Option<u32>| {
        let d = i64::from(poc) - i64::from(r.or(ref0).unwrap_or(poc));
        // Beyond this, motion says nothing any more; zero turns scaling off.
        i16::try_from(d).unwrap_or(0)
    };
    [distance(ref0), distance(ref1)]
}

/// The reference whose symbols resemble a frame's most: that of the higher level.
fn context_source(ref0: &Reference, ref1: Option<&Reference>) -> ContextSource {
    let level = |r: &Reference| r.contexts.is_some().then_some(r.level);
    match (level(ref0), ref1.and_then(level)) {
        (None, None) => ContextSource::Tables,
        (a, b) if a >= b => ContextSource::Ref0,
        _ => ContextSource::Ref1,
    }
}

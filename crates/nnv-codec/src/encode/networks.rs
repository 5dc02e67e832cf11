// SPDX-License-Identifier: MPL-2.0
//! Frames through the networks and the entropy coder, in batches.

use std::borrow::Cow;
use std::sync::Arc;
use web_time::Instant;

use nnv_bitstream::ContextSource;
use nnv_cpu::parallel;
use nnv_format::dequantise::dequantise;
use nnv_format::entropy::{self, SymbolContexts};
use nnv_format::grid::Grid;
use nnv_format::motion::{MotionContexts, MotionField, encode_field};
use nnv_format::picture::Picture;
use nnv_format::quantizer_map::Quantisation;
use nnv_format::references::{Contexts, Reference};
use nnv_format::still::{StillContexts, StillMap};
use nnv_format::tables::{LATENT_CHANNELS, NetworkSet};
use nnv_nn::{Batch, Cancel, Model};

use super::frame::FrameSymbols;
use super::rounding::{Rounding, bits_by_place, hide_signs, quantise, refined};
use super::still;
use crate::config::{EncoderConfig, SpeedPreset};
use crate::decode::still::{parts, share};
use crate::error::Result;
use crate::stages::{Clock, StageTimes};

/// Share of a frame's networks from which on decoders gain nothing to speak of from running less.
const QUICK: f64 = 0.6;

/// A frame after coding, before it is written.
#[derive(Debug, Default)]
pub(super) struct Coded {
    pub contexts: Option<ContextSource>,
    pub map: Option<Vec<u8>>,
    pub ink: Option<Vec<u8>>,
    pub still: Option<Vec<u8>>,
    pub side: Vec<u8>,
    pub z: Vec<u8>,
    pub y: Vec<Vec<u8>>,
    pub reference: Option<Reference>,
    pub symbols: Option<Arc<FrameSymbols>>,
}

impl Coded {
    /// Bytes of all parts.
    pub fn bytes(&self) -> usize {
        let optional = [&self.map, &self.ink, &self.still];
        let optional = optional.into_iter().flatten().map(Vec::len);
        let y = self.y.iter().map(Vec::len);
        self.side.len() + self.z.len() + optional.chain(y).sum::<usize>()
    }
}

/// A frame as coded in one of several ways.
pub(super) struct Outcome {
    pub written: Written,
    pub picture: Arc<Picture>,
    /// Of inter frames.
    pub field: Option<Arc<MotionField>>,
    /// Of key frames, and where regions want it.
    pub map: Option<Vec<u8>>,
    pub ink: Option<Vec<u8>>,
}

/// Places that are as predicted, and how the frame says so.
pub(super) struct Still {
    pub map: Arc<StillMap>,
    bytes: Vec<u8>,
}

impl Outcome {
    pub fn bytes(&self) -> usize {
        let w = &self.written;
        let y: usize = w.y.iter().map(Vec::len).sum();
        let still = w.still.as_ref().map(|still| &still.bytes);
        let parts = [self.map.as_ref(), self.ink.as_ref(), still];
        let parts = parts.into_iter().flatten();
        w.side.len() + w.z.len() + y + parts.map(Vec::len).sum::<usize>()
    }

    /// With the contexts that an inter frame began with.
    pub fn into_coded(self, level: u8, contexts: Option<ContextSource>) -> Coded {
        let (still, bytes) = self.written.still.map(|s| (s.map, s.bytes)).unzip();
        Coded {
            contexts,
            still: bytes,
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
                still,
            }),
        }
    }
}

/// What the entropy coder made of a frame.
pub(super) struct Written {
    side: Vec<u8>,
    z: Vec<u8>,
    pub y: Vec<Vec<u8>>,
    still: Option<Still>,
    contexts: Option<Contexts>,
    symbols: Option<Arc<FrameSymbols>>,
    /// Bits of the latent by place, where they were asked for.
    pub place_bits: Option<Vec<f32>>,
}

/// Where the entropy coding of a frame begins.
pub(super) struct Start<'a> {
    pub symbols: SymbolContexts,
    /// Field, co-located field, state; for inter frames.
    pub motion: Option<(&'a MotionField, Option<&'a MotionField>, MotionContexts)>,
    /// The first reference's map, and the state of its models; for inter frames.
    pub still: (Option<&'a StillMap>, StillContexts),
}

impl Start<'_> {
    fn write(
        mut self,
        z: &[i8],
        scale_idx: &[u8],
        symbols: &[i16],
        still: Option<StillMap>,
    ) -> Result<Written> {
        let mut side = Vec::new();
        let mut motion = None;
        if let Some((field, colocated, mut contexts)) = self.motion {
            let mut coder = entropy::Encoder::new();
            encode_field(&mut coder, &mut contexts, field, colocated);
            side = coder.finish();
            motion = Some(contexts);
        }
        let (before, mut still_contexts) = self.still;
        let still = still.map(|map| Still {
            bytes: map.to_bytes(&mut still_contexts, before),
            map: Arc::new(map),
        });
        let z = self.symbols.encode_z(z)?;
        let y = self.symbols.encode_y(scale_idx, symbols)?;
        Ok(Written {
            side,
            z,
            y,
            still,
            contexts: motion.map(|motion| Contexts {
                symbols: self.symbols,
                motion,
                still: still_contexts,
            }),
            symbols: None,
            place_bits: None,
        })
    }
}

/// How frames of an encoder go through the networks.
pub(super) struct Pass<'a> {
    pub model: &'a Model,
    pub config: &'a EncoderConfig,
    pub grid: Grid,
    pub threads: usize,
    pub cancel: &'a Cancel,
    /// Hands out the symbols.
    pub keep_symbols: bool,
}

/// One frame on its way.
pub(super) struct Frame<'a> {
    /// Packed, `[96, 2·h16, 2·w16]`.
    pub x: &'a [i16],
    /// The prediction of an inter frame, likewise.
    pub p: Option<&'a [i16]>,
    pub quantizer: u8,
    pub steps: Quantisation<'a>,
    pub start: Start<'a>,
}

impl Pass<'_> {
    /// Packs a picture into a tensor.
    pub fn pack(&self, picture: &Picture) -> Result<Vec<i16>> {
        let mut x = vec![0; self.grid.picture_len()];
        picture.pack(&mut x)?;
        Ok(x)
    }

    /// The picture of a tensor.
    pub fn unpack(&self, tensor: &[i16]) -> Result<Arc<Picture>> {
        let info = &self.config.info;
        let mut picture = Picture::new(info.width, info.height)?;
        picture.unpack(tensor)?;
        Ok(Arc::new(picture))
    }

    /// What is handed out of a frame, where that is wanted.
    fn symbols(&self, y: &[i16], scale_idx: &[u8], z: &[i8]) -> Option<Arc<FrameSymbols>> {
        self.keep_symbols.then(|| {
            Arc::new(FrameSymbols {
                y_shape: [LATENT_CHANNELS, self.grid.h16(), self.grid.w16()],
                y: y.to_vec(),
                scale_idx: scale_idx.to_vec(),
                z: z.to_vec(),
            })
        })
    }

    /// An inter frame every place of which is as predicted (`p`): no network has to see it.
    pub fn as_predicted(&self, start: Start<'_>, p: &[i16]) -> Result<Outcome> {
        let grid = self.grid;
        let map = StillMap::new(grid.w16(), vec![true; grid.h16() * grid.w16()]);
        let (z, y) = (vec![0; self.model.z_len(grid)], vec![0; grid.y_len()]);
        let scales = vec![0; grid.y_len()];
        let mut written = start.write(&z, &scales, &y, Some(map))?;
        written.symbols = self.symbols(&y, &scales, &z);
        Ok(Outcome {
            written,
            picture: self.unpack(p)?,
            field: None,
            map: None,
            ink: None,
        })
    }

    /// Networks and entropy coding of a batch; the same for both kinds of frames. `measure`: asks
    /// for bits by place.
    pub fn run(
        &self,
        batch: &Batch<'_>,
        frames: Vec<Frame<'_>>,
        measure: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<Outcome>> {
        let mut clock = Clock::start();
        let (n, threads) = (frames.len(), self.threads);
        let x: Vec<&[i16]> = frames.iter().map(|frame| frame.x).collect();
        let predictions: Vec<(Option<&[i16]>, u8)> =
            frames.iter().map(|f| (f.p, f.quantizer)).collect();
        let (steps, starts): (Vec<_>, Vec<_>) = frames
            .into_iter()
            .map(|frame| (frame.steps, frame.start))
            .unzip();
        let analysis = batch.analyse(&x, self.cancel)?;
        clock.lap(&mut times.analyse);
        // The entropy coder's alphabet of z has no -128.
        let z: Vec<Vec<i8>> = (0..n)
            .map(|i| analysis.z(i).iter().map(|&v| v.max(-127)).collect())
            .collect();
        let z: Vec<&[i8]> = z.iter().map(|z| &z[..]).collect();
        let prior = batch.prior(&z, self.cancel)?;
        let with_map: Vec<Option<Vec<u8>>> = (0..n)
            .map(|i| steps[i].scales(prior.scale_idx(i)))
            .collect();
        let scales: Vec<&[u8]> = (0..n)
            .map(|i| with_map[i].as_deref().unwrap_or(prior.scale_idx(i)))
            .collect();
        clock.lap(&mut times.prior);
        let tuning = self.config.effective_tuning();
        let rdo = self.config.speed > SpeedPreset::Fast;
        let tables = self.model.tables(batch.kind());
        let width = self.grid.w16();
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
                tables.symbols().order(),
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
        clock.lap(&mut times.quantise);
        if batch.kind() == NetworkSet::Key {
            // The second half's means depend on the symbols of the first, as they were chosen in
            // the end.
            let r: Vec<&[i16]> = quantised.iter().map(|q| &q.1[..]).collect();
            let refinement = batch.refine(&prior, &r, self.cancel)?;
            clock.lap(&mut times.analyse);
            quantised = parallel::map(threads, n, |i| {
                let y = refined(&latents(i), refinement.delta(i), &steps[i]);
                round(i, &y, Some(&quantised[i].0))
            });
            clock.lap(&mut times.quantise);
        } else if self.config.speed == SpeedPreset::Slow && with_map.iter().all(Option::is_none) {
            // What the decoded picture lacks, as the analysis sees it, is asked for once more: the
            // synthesis' refinement has given some of it already, and has taken some away. (Latents
            // of key frames are not comparable: their means differ with the hyper-latent.)
            let r: Vec<&[i16]> = quantised.iter().map(|q| &q.1[..]).collect();
            let decoded = batch.synthesise(&prior, &r, self.cancel)?;
            clock.lap(&mut times.synth);
            let decoded: Vec<&[i16]> = (0..n).map(|i| decoded.get(i)).collect();
            let again = batch.analyse(&decoded, self.cancel)?;
            clock.lap(&mut times.analyse);
            quantised = parallel::map(threads, n, |i| {
                let lacks = analysis.y(i).iter().zip(again.y(i));
                let symbols = quantised[i].0.iter();
                let y: Vec<f32> = symbols
                    .zip(lacks)
                    .map(|(&s, (y, again))| f32::from(s) + (y - again))
                    .collect();
                round(i, &y, None)
            });
            clock.lap(&mut times.quantise);
        }
        let r: Vec<&[i16]> = quantised.iter().map(|q| &q.1[..]).collect();
        let places = self.grid.h16() * self.grid.w16();
        let look = tuning.still > 0.0
            && (predictions.iter().zip(&quantised))
                .any(|((p, _), (symbols, _))| p.is_some() && still::is_quiet(symbols, places));
        let place_bits = parallel::map(threads, n, |i| {
            let symbols = &quantised[i].0;
            measure.then(|| bits_by_place(symbols, scales[i], width, &starts[i].symbols.costs()))
        });
        let write = |starts: Vec<Start<'_>>, scales: &[&[u8]], maps: Vec<Option<StillMap>>| {
            let start = Instant::now();
            let inputs = starts.into_iter().zip(maps).enumerate();
            let written: Result<Vec<Written>> = inputs
                .map(|(i, (s, map))| s.write(z[i], scales[i], &quantised[i].0, map))
                .collect();
            (written, start.elapsed())
        };
        let synthesise = || {
            let start = Instant::now();
            (batch.synthesise(&prior, &r, self.cancel), start.elapsed())
        };
        let none = || (0..n).map(|_| None).collect::<Vec<Option<StillMap>>>();
        let ((written, entropy), (pictures, synth), kept) = if look {
            // What is still is known from the pictures, and what is coded from that.
            let (pictures, synth) = synthesise();
            let pictures = pictures?;
            let maps = parallel::map(threads, n, |i| {
                let (Some(prediction), quantizer) = predictions[i] else {
                    return None;
                };
                let judged = still::Judged {
                    source: x[i],
                    prediction,
                    result: pictures.get(i),
                    symbols: &quantised[i].0,
                    quantizer,
                    width,
                };
                let (before, contexts) = &starts[i].still;
                let bytes = |map: &StillMap| map.to_bytes(&mut contexts.clone(), *before).len();
                let quick = |map: &StillMap| {
                    parts(map, self.grid, self.model.reach())
                        .is_ok_and(|parts| share(&parts, self.grid) < QUICK)
                };
                still::choose(&judged, tuning.still, bytes, quick)
            });
            let masked: Vec<Cow<'_, [u8]>> = (maps.iter().zip(&scales))
                .map(|(map, &scales)| match map {
                    None => Cow::Borrowed(scales),
                    Some(map) => {
                        let mut masked = scales.to_vec();
                        map.mask_scales(&mut masked);
                        Cow::Owned(masked)
                    }
                })
                .collect();
            let masked: Vec<&[u8]> = masked.iter().map(|scales| &**scales).collect();
            let kept = maps.iter().enumerate().map(|(i, map)| {
                let (map, prediction) = (map.as_ref()?, predictions[i].0?);
                let mut picture = pictures.get(i).to_vec();
                map.keep_prediction(prediction, &mut picture);
                Some(picture)
            });
            let kept: Vec<Option<Vec<i16>>> = kept.collect();
            (write(starts, &masked, maps), (Ok(pictures), synth), kept)
        } else {
            // Entropy coding and synthesis do not need each other.
            let (written, made) = std::thread::scope(|scope| {
                let writer = scope.spawn(|| write(starts, &scales, none()));
                let made = synthesise();
                let written = writer
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                (written, made)
            });
            (written, made, (0..n).map(|_| None).collect())
        };
        times.entropy += entropy;
        times.synth += synth;
        let (mut written, pictures) = (written?, pictures?);
        for (w, bits) in written.iter_mut().zip(place_bits) {
            w.place_bits = bits;
        }
        for (i, w) in written.iter_mut().enumerate() {
            w.symbols = self.symbols(&quantised[i].0, scales[i], z[i]);
        }
        let mut clock = Clock::start();
        let pictures = parallel::map(threads, n, |i| {
            self.unpack(kept[i].as_deref().unwrap_or(pictures.get(i)))
        });
        let pictures = pictures.into_iter().collect::<Result<Vec<_>>>()?;
        clock.lap(&mut times.pack);
        let outcome = |(written, picture)| Outcome {
            written,
            picture,
            field: None,
            map: None,
            ink: None,
        };
        Ok(written.into_iter().zip(pictures).map(outcome).collect())
    }
}

/// The reference whose symbols resemble a frame's most: that of the higher level.
pub(super) fn context_source(ref0: &Reference, ref1: Option<&Reference>) -> ContextSource {
    let level = |r: &Reference| r.contexts.is_some().then_some(r.level);
    match (level(ref0), ref1.and_then(level)) {
        (None, None) => ContextSource::Tables,
        (a, b) if a >= b => ContextSource::Ref0,
        _ => ContextSource::Ref1,
    }
}

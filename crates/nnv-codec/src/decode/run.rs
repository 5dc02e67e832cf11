// SPDX-License-Identifier: MPL-2.0
//! Frames whose side information is known go through the networks: together, or in parts.

use std::sync::{Mutex, PoisonError};

use nnv_bitstream::FrameHeader;
use nnv_cpu::parallel;
use nnv_format::dequantise::dequantise_sparse;
use nnv_format::entropy::{LatentBits, SparseSymbols, SymbolContexts};
use nnv_format::grid::Part;
use nnv_format::quantizer_map::{HEADROOM, Quantisation};
use nnv_format::tables::NetworkSet;
use nnv_nn::{Batch, Cancel, InterItem, Pictures, Prior};

use super::{Opened, Pending, Sequence, Work, still};
use crate::error::{CodecError, Result};
use crate::stages::{Clock, StageTimes};

/// A batch of opened frames of one kind.
pub(super) fn batch_of<'a>(
    sequence: &'a Sequence,
    frames: &[Pending],
    opened: &'a [(usize, Opened)],
) -> Result<Batch<'a>> {
    let grid = sequence.coding.grid;
    let quantizer = |i: usize| frames[i].header.quantizer;
    let key = opened.iter().any(|(_, o)| o.motion.is_none());
    let mut batch = if key {
        let quantizers: Vec<u8> = opened.iter().map(|(i, _)| quantizer(*i)).collect();
        sequence.model.key_batch(grid, &quantizers)?
    } else {
        let items: Vec<InterItem> = opened
            .iter()
            .map(|(i, o)| InterItem {
                quantizer: quantizer(*i),
                p: &o.p,
                d: &o.d,
            })
            .collect();
        sequence.model.inter_batch(grid, &items)?
    };
    for (n, (_, o)) in opened.iter().enumerate() {
        if o.map.is_some() {
            batch.raise_scales(n, HEADROOM);
        }
    }
    Ok(batch)
}

/// Scale indices and features of a batch.
pub(super) fn prior_of(
    batch: &Batch,
    opened: &[(usize, Opened)],
    cancel: &Cancel,
) -> Result<Prior> {
    let z: Vec<&[i8]> = opened.iter().map(|(_, o)| &o.z[..]).collect();
    Ok(batch.prior(&z, cancel)?)
}

/// A latent: dequantised residuals, the state of the entropy coder after it, and what it cost where
/// that is asked for; or what is wrong with it.
pub(super) type Latent =
    std::result::Result<(Vec<i16>, SymbolContexts, Option<LatentBits>), String>;

/// Packed pictures, in the order of their frames.
pub(super) enum Synthesised {
    Batch(Pictures),
    Frame(Vec<i16>),
}

impl Synthesised {
    pub(super) fn get(&self, i: usize) -> &[i16] {
        match self {
            Self::Batch(pictures) => pictures.get(i),
            Self::Frame(picture) => picture,
        }
    }
}

/// Symbols of a frame, from the indices of their scales.
fn latent(
    o: &Opened,
    mut state: SymbolContexts,
    scales: &[u8],
    bits_wanted: bool,
) -> std::result::Result<(SparseSymbols, SymbolContexts, Option<LatentBits>), String> {
    let before = bits_wanted.then(|| state.clone());
    let symbols = state
        .decode_y(&o.payload.y, scales)
        .map_err(|e| e.to_string())?;
    let bits = before
        .map(|before| before.spent_y(scales, &symbols))
        .transpose()
        .map_err(|e| e.to_string())?;
    Ok((symbols, state, bits))
}

/// Latents of frames that go through the networks together, and their pictures where all of them
/// are sound.
pub(super) fn run_batch(
    sequence: &Sequence,
    frames: &[Pending],
    opened: &[(usize, Opened)],
    states: &[Mutex<Option<SymbolContexts>>],
    work: &Work,
    times: &mut StageTimes,
) -> Result<(Vec<Latent>, Option<Synthesised>)> {
    let &Work {
        tensors,
        threads,
        cancel,
        wanted,
    } = work;
    let grid = sequence.coding.grid;
    let mut clock = Clock::start();
    let batch = batch_of(sequence, frames, opened)?;
    let prior = prior_of(&batch, opened, cancel)?;
    clock.lap(&mut times.prior);
    let tables = sequence.model.tables(batch.kind());
    let steps: Vec<Quantisation> = opened
        .iter()
        .map(|(i, o)| Quantisation::new(tables, frames[*i].header.quantizer, o.map.as_ref()))
        .collect();
    let decoded = parallel::map(threads, opened.len(), |n| {
        let (_, o) = &opened[n];
        // Each state is taken by one worker.
        let state = states[n]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or("its state was taken twice")?;
        let with_map = steps[n].scales(prior.scale_idx(n));
        let scales = with_map.as_deref().unwrap_or(prior.scale_idx(n));
        latent(o, state, scales, wanted.is_some_and(|w| w.bits))
    });
    clock.lap(&mut times.entropy);
    let decoded: Vec<std::result::Result<_, String>> = (decoded.into_iter().zip(&steps))
        .map(|(decoded, steps)| {
            let (symbols, state, bits) = decoded?;
            let mut r = tensors.take(grid.y_len());
            dequantise_sparse(&symbols, steps, &mut r);
            Ok((r, state, bits))
        })
        .collect();
    clock.lap(&mut times.quantise);
    // Nothing is synthesised of a damaged frame.
    let r: std::result::Result<Vec<&[i16]>, _> = decoded
        .iter()
        .map(|d| d.as_ref().map(|d| &d.0[..]))
        .collect();
    let pictures = match r {
        Ok(r) => Some(batch.synthesise(&prior, &r, cancel)?),
        Err(_) => None,
    };
    clock.lap(&mut times.synth);
    Ok((decoded, pictures.map(Synthesised::Batch)))
}

/// The latent of a frame with a still map, and its picture where that is sound: networks see what
/// is coded, and what it depends on.
pub(super) fn run_still(
    sequence: &Sequence,
    header: &FrameHeader,
    o: &Opened,
    state: Option<SymbolContexts>,
    work: &Work,
    times: &mut StageTimes,
) -> Result<(Vec<Latent>, Option<Synthesised>)> {
    let (grid, model) = (sequence.coding.grid, &sequence.model);
    let (Some(map), Some(state)) = (&o.still, state) else {
        return Err(CodecError::Internal("a frame without its still map".into()));
    };
    let item = InterItem {
        quantizer: header.quantizer,
        p: &o.p,
        d: &o.d,
    };
    let mut clock = Clock::start();
    let parts = still::parts(map, grid, model.reach())?;
    let mut scales = vec![0; grid.y_len()];
    let mut priors = Vec::with_capacity(parts.len());
    for part in &parts {
        let mut batch = model.inter_part(grid, part.prior, &item)?;
        if o.map.is_some() {
            batch.raise_scales(0, HEADROOM);
        }
        let prior = batch.prior(&[&o.z], work.cancel)?;
        let prior = prior.part(part.prior, part.synthesis)?;
        still::paste(
            part.synthesis,
            prior.scale_idx(0),
            map,
            grid,
            1,
            &mut scales,
        );
        priors.push(prior);
    }
    clock.lap(&mut times.prior);
    let tables = model.tables(NetworkSet::Inter);
    let steps = Quantisation::new(tables, header.quantizer, o.map.as_ref());
    let with_map = steps.scales(&scales);
    let bits_wanted = work.wanted.is_some_and(|w| w.bits);
    let latent = latent(
        o,
        state,
        with_map.as_deref().unwrap_or(&scales),
        bits_wanted,
    );
    clock.lap(&mut times.entropy);
    let (symbols, state, bits) = match latent {
        Ok(latent) => latent,
        Err(why) => return Ok((vec![Err(why)], None)),
    };
    let mut r = work.tensors.take(grid.y_len());
    dequantise_sparse(&symbols, &steps, &mut r);
    clock.lap(&mut times.quantise);
    let mut picture = o.p.clone();
    let whole = Part::whole(grid);
    for (part, prior) in parts.iter().zip(&priors) {
        let batch = model.inter_part(grid, part.synthesis, &item)?;
        let residual = part.synthesis.cut(&r, whole, 1);
        let pictures = batch.synthesise(prior, &[&residual], work.cancel)?;
        let region = part.region.cut(pictures.get(0), part.synthesis, 2);
        still::paste(part.region, &region, map, grid, 2, &mut picture);
    }
    clock.lap(&mut times.synth);
    Ok((
        vec![Ok((r, state, bits))],
        Some(Synthesised::Frame(picture)),
    ))
}

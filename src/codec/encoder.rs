// SPDX-License-Identifier: MPL-2.0
//! The encoder: pictures in, access units out.
//!
//! ```no_run
//! use gstnnv::codec::{config::EncoderConfig, encoder::{Encoder, InputFrame}};
//! # fn main() -> Result<(), gstnnv::codec::error::CodecError> {
//! # let (model, info, pictures): (_, _, Vec<_>) = unimplemented!();
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

use super::config::{EncoderConfig, RateControl};
use super::error::{CodecError, Result};
use super::gop::{FrameFacts, FrameKind, GopPlanner, Group, SceneCut};
use super::picture::Picture;
use super::rate_control::RateController;
use crate::nn::{Cancel, Model};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

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
    /// Squared error of the decoded picture per plane (visible samples, 10-bit units), where it was measured.
    pub sse: Option<[u64; 3]>,
    /// Bytes of motion and side information.
    pub motion_bytes: usize,
    /// Bytes of hyper-latents.
    pub hyper_bytes: usize,
    /// Bytes of latents.
    pub latent_bytes: usize,
}

/// Time spent per stage since the encoder was made or reset.
#[derive(Debug, Clone, Default)]
pub struct StageTimes {
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

/// Encodes pictures of one size. Not bound to a thread; one thread at a time.
#[derive(Debug)]
pub struct Encoder {
    model: Arc<Model>,
    config: EncoderConfig,
    planner: GopPlanner,
    scene: SceneCut,
    rate: RateController,
    /// Frames that wait for their turn, by input order.
    waiting: BTreeMap<u64, InputFrame>,
    next_index: u64,
    last_picture: Option<Arc<Picture>>,
    output: VecDeque<EncodedFrame>,
    stats: EncoderStats,
    cancel: Cancel,
    finished: bool,
}

impl Encoder {
    /// An encoder for a validated configuration. Loads the model's encoder networks.
    ///
    /// # Errors
    /// [`CodecError::Config`] for a bad configuration, [`CodecError::Nn`] when the networks cannot be loaded.
    pub fn new(model: Arc<Model>, config: EncoderConfig) -> Result<Self> {
        config.validate()?;
        model.prepare_encoder()?;
        Ok(Self {
            planner: GopPlanner::new(
                config.effective_bframes(),
                config.key_int_max,
                config.effective_batch(),
            ),
            scene: SceneCut::default(),
            rate: RateController::new(&config),
            waiting: BTreeMap::new(),
            next_index: 0,
            last_picture: None,
            output: VecDeque::new(),
            stats: EncoderStats::default(),
            cancel: Cancel::new(),
            finished: false,
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
        Vec::new()
    }

    /// A handle that aborts the work in progress from another thread.
    pub fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
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
        let scene_cut = self.config.scene_cut
            && !repeat
            && self
                .scene
                .measure(&frame.picture.quarter_luma())
                .is_some_and(|ratio| SceneCut::is_cut(ratio, self.planner.distance()));
        self.last_picture = Some(frame.picture.clone());
        let facts = FrameFacts {
            force_key: frame.force_key,
            scene_cut,
            repeat,
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
    /// As [`send`](Self::send).
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
        self.waiting.clear();
        self.output.clear();
        self.last_picture = None;
        self.finished = false;
        self.cancel.reset();
    }

    fn code_ready(&mut self) -> Result<()> {
        while let Some(group) = self.planner.next_group() {
            self.code_group(&group)?;
        }
        Ok(())
    }

    fn code_group(&mut self, group: &Group) -> Result<()> {
        let _ = group;
        Err(CodecError::Internal("no frame coder is linked".into()))
    }
}

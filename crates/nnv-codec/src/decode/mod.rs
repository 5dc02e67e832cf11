// SPDX-License-Identifier: MPL-2.0
//! The decoder: access units in, pictures in order of presentation out.

mod analysis;
mod flat;
#[cfg(feature = "onnxruntime")]
mod models;
mod run;
pub(crate) mod still;

pub use analysis::{Analysis, PartBytes, Wanted};
#[cfg(feature = "onnxruntime")]
pub use models::{Host, StreamModels, built_in};

use crate::config::{DecoderConfig, batch_on};
use crate::error::{CodecError, Result};
use crate::stages::{Clock, StageTimes};
use nnv_bitstream::StreamInfo;
use nnv_bitstream::level::WORK_BYTES;
use nnv_bitstream::limits::{DEEPEST_LEVEL, MAX_REFERENCES};
use nnv_bitstream::{
    AccessUnit, BitstreamError, BundleHash, ChromaFormat, ContextSource, FrameHeader, FramePayload,
    FrameType, KeyIdentity, Scan, SequenceHeader, UnitScanner, UnitType,
};
use nnv_cpu::parallel;
use nnv_format::entropy::SymbolContexts;
use nnv_format::grid::Grid;
use nnv_format::ink::InkLayer;
use nnv_format::motion::{
    MotionContexts, MotionField, decode_field, field_bits_by_block, predict, temporal_distances,
};
use nnv_format::picture::Picture;
use nnv_format::quantizer_map::QuantizerMap;
use nnv_format::references::{Coding, Contexts, Reference, References, Reorder, level_sizes};
use nnv_format::still::{StillContexts, StillMap};
use nnv_format::tables::NetworkSet;
use nnv_nn::{self as nn, Cancel, Model};
use run::{Synthesised, batch_of, prior_of, run_batch, run_still};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Finds the model that a sequence header names.
pub trait ModelProvider: Send {
    /// The model `name`, whose hash must begin with `hash`.
    ///
    /// # Errors
    /// What is wrong and what to do, preferably as
    /// [`CodecError::Model`](crate::error::CodecError::Model). The decoder checks the hash of the
    /// model it gets, too.
    fn model(&mut self, name: &str, hash: &BundleHash) -> Result<Arc<Model>>;
}

impl<F: FnMut(&str, &BundleHash) -> Result<Arc<Model>> + Send> ModelProvider for F {
    fn model(&mut self, name: &str, hash: &BundleHash) -> Result<Arc<Model>> {
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
        /// The stream is damaged here and concealment is switched off, or there is nothing to
        /// conceal with.
        damaged: bool,
        /// Why, where that is worth a warning.
        warning: Option<String>,
    },
    /// A sound frame that was left out to gain time: see [`Decoder::set_hurry`].
    Skipped {
        /// Of the access unit.
        id: u64,
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
    pub kind: FrameType,
    /// Presentation time from the stream in ns, where it has one.
    pub pts: Option<u64>,
    /// Duration from the stream in ns, where it has one.
    pub duration: Option<u64>,
    /// Not what the encoder saw: lost or damaged, or predicted from such a frame.
    pub concealed: bool,
    /// What happened, once per event.
    pub warning: Option<String>,
    /// What it was made of, where [wanted](Decoder::set_analysis): none for repeats, nor for frames
    /// that could not be decoded.
    pub analysis: Option<Box<Analysis>>,
}

/// A frame that cannot be decoded, or that others wait for in vain: what a sender has to know to go
/// on without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Lowest byte of the number of its group of pictures.
    pub group: u8,
    /// Its number in the group.
    pub number: u32,
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
    /// Frames left out to gain time.
    pub skipped: u64,
    /// Frames that never came, as the numbers of those around them tell.
    pub missing: u64,
    /// Frame checksums that were right.
    pub verified: u64,
    /// Batches of frames that went through the networks together.
    pub batches: u64,
    /// Time per stage.
    pub times: StageTimes,
}

/// So many frames are remembered, to know those that come twice.
const RECENT: usize = 16;

/// What a decoder that is too slow leaves out to catch up, and everything that refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hurry {
    /// Nothing.
    #[default]
    No,
    /// Inter frames that nothing refers to.
    Unreferenced,
    /// All frames between anchors.
    BetweenAnchors,
    /// All inter frames, so that decoding goes on at the next key frame.
    Inter,
}

/// A group of pictures.
#[derive(Debug, Clone, Copy)]
struct Group {
    number: u8,
    /// Its key frame; `None` where that is lost.
    key: Option<KeyIdentity>,
}

/// What the last picture shown is worth to those that repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastShown {
    /// It is what the encoder saw.
    Sound,
    /// It stands for another one.
    Concealed,
    /// The frame was left out; the picture is the one before it.
    Skipped,
}

/// What the sequence header in force means.
struct Sequence {
    header: SequenceHeader,
    info: Arc<StreamInfo>,
    model: Arc<Model>,
    coding: Coding,
    /// Frames of each level in a full mini-GOP.
    levels: [usize; DEEPEST_LEVEL as usize + 1],
}

/// A frame unit that waits for others of its level.
struct Pending {
    id: u64,
    header: FrameHeader,
    payload: Vec<u8>,
}

/// A frame on its way to presentation.
struct Shown {
    id: u64,
    kind: FrameType,
    /// `None` for repeats of what is not kept, and for frames that were left out.
    picture: Option<Arc<Picture>>,
    skipped: bool,
    /// Number of the frame, or of the one that a repeat shows again.
    original: u32,
    pts: Option<u64>,
    duration: Option<u64>,
    concealed: bool,
    warning: Option<String>,
    analysis: Option<Box<Analysis>>,
}

impl Shown {
    fn new(id: u64, header: &FrameHeader, picture: Option<Arc<Picture>>) -> Self {
        Self {
            id,
            kind: header.frame_type,
            picture,
            skipped: false,
            original: match header.frame_type {
                FrameType::Repeat => header.ref0.unwrap_or(header.poc),
                _ => header.poc,
            },
            pts: header.pts.and_then(|v| u64::try_from(v).ok()),
            duration: header.duration,
            concealed: false,
            warning: None,
            analysis: None,
        }
    }
}

/// A decoded frame (picture, and what its successors inherit) with its analysis, or why there is
/// none, where that was not told yet.
type Outcome = std::result::Result<(Reference, Option<Box<Analysis>>), Option<String>>;

/// What frames are decoded with.
struct Work<'a> {
    tensors: &'a Tensors,
    threads: usize,
    cancel: &'a Cancel,
    /// What is to be analysed, if anything.
    wanted: Option<Wanted>,
}

/// An inter frame whose side information is decoded.
struct Opened<'a> {
    payload: FramePayload<'a>,
    map: Option<QuantizerMap>,
    ink: Option<InkLayer>,
    /// Taken when `y` is decoded.
    symbols: Option<SymbolContexts>,
    motion: Option<(MotionContexts, MotionField)>,
    /// Of inter frames, after this one's map where it has one.
    still_contexts: StillContexts,
    still: Option<Arc<StillMap>>,
    z: Arc<[i8]>,
    p: Vec<i16>,
    d: Vec<i16>,
    /// For the analysis.
    motion_bits: Vec<u64>,
    hyper_bits: Vec<u64>,
    ink_bits: Vec<u64>,
    times: StageTimes,
}

/// Tensors of one size that are used again: fresh memory would cost more than what is written to
/// it.
#[derive(Default)]
struct Tensors(Mutex<Vec<Vec<i16>>>);

impl Tensors {
    /// At most so many wait to be used again: those of a batch of four inter frames.
    const KEPT: usize = 12;

    /// A tensor of `len` elements with any values.
    fn take(&self, len: usize) -> Vec<i16> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The picture's size may have changed.
        kept.pop()
            .filter(|t| t.len() == len)
            .unwrap_or_else(|| vec![0; len])
    }

    fn give_back(&self, tensor: Vec<i16>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !tensor.is_empty() && kept.len() < Self::KEPT {
            kept.push(tensor);
        }
    }
}

/// Decodes access units. Not bound to a thread; one thread at a time.
pub struct Decoder {
    provider: Box<dyn ModelProvider>,
    config: DecoderConfig,
    threads: usize,
    output: VecDeque<Decoded>,
    sequence: Option<Sequence>,
    references: References<Reference>,
    reorder: Reorder<Shown>,
    pending: Vec<Pending>,
    /// The group of pictures in progress; `None` before the first one.
    group: Option<Group>,
    /// Number of the group before it.
    previous_group: Option<u8>,
    /// Number and checksum of the group's frames that came last.
    recent: VecDeque<(u32, u32)>,
    /// Units of this group that nobody could read and that got the number due next: it may be
    /// another frame's.
    guessed: u32,
    /// Presentation time in ns of the last key frame, from the stream.
    key_pts: Option<i64>,
    /// A key frame was met since the start or the last reset.
    joined: bool,
    /// Something that lasts until the next key frame was already reported for this group of
    /// pictures.
    reported: bool,
    /// Frames missing in this group were already reported.
    gap_reported: bool,
    /// The last frame could not be decoded, and that was reported.
    troubled: bool,
    hurry: Hurry,
    /// Numbers of frames that others refer to and that were left out.
    skipped: BTreeSet<u32>,
    /// Whoever sends leaves frames out on purpose.
    gaps_expected: bool,
    /// The picture shown last, with the number of its frame.
    last: Option<(Arc<Picture>, u32, LastShown)>,
    /// The last frame that could not be decoded since this was asked for.
    loss: Option<Loss>,
    tensors: Tensors,
    stats: DecoderStats,
    cancel: Cancel,
    wanted: Option<Wanted>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("config", &self.config)
            .field("info", &self.info())
            .finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder that asks `provider` for models.
    pub fn new(provider: impl ModelProvider + 'static, config: DecoderConfig) -> Self {
        Self {
            provider: Box::new(provider),
            threads: parallel::resolve(config.threads),
            config,
            output: VecDeque::new(),
            sequence: None,
            references: References::default(),
            reorder: Reorder::new(0),
            pending: Vec::new(),
            group: None,
            previous_group: None,
            recent: VecDeque::new(),
            guessed: 0,
            key_pts: None,
            joined: false,
            reported: false,
            gap_reported: false,
            troubled: false,
            hurry: Hurry::No,
            skipped: BTreeSet::new(),
            gaps_expected: false,
            last: None,
            loss: None,
            tensors: Tensors::default(),
            stats: DecoderStats::default(),
            cancel: Cancel::new(),
            wanted: None,
        }
    }

    /// What the last sequence header says.
    pub fn info(&self) -> Option<&Arc<StreamInfo>> {
        self.sequence.as_ref().map(|s| &s.info)
    }

    /// The model in use.
    pub fn model(&self) -> Option<&Arc<Model>> {
        self.sequence.as_ref().map(|s| &s.model)
    }

    /// Says whether each frame is wanted as soon as it can be decoded, see [`DecoderConfig::live`].
    pub fn set_live(&mut self, live: bool) {
        self.config.live = live;
    }

    /// Switches concealment.
    pub fn set_conceal(&mut self, conceal: bool) {
        self.config.conceal = conceal;
    }

    /// Which frames are not decoded from now on, and become [`Decoded::Skipped`]: for a viewer
    /// whose machine is too slow.
    pub fn set_hurry(&mut self, hurry: Hurry) {
        self.hurry = hurry;
    }

    /// Says that frames are left out on purpose before they come here, as for fast forward, and are
    /// not worth a warning.
    pub fn set_gaps_expected(&mut self, expected: bool) {
        self.gaps_expected = expected;
    }

    /// Says what [`DecodedFrame::analysis`] of the frames decoded from now on is to hold; `None`,
    /// as at the start, for no analysis.
    pub fn set_analysis(&mut self, wanted: Option<Wanted>) {
        self.wanted = wanted;
    }

    /// A handle that aborts the work in progress from another thread.
    pub fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Totals so far.
    pub fn stats(&self) -> &DecoderStats {
        &self.stats
    }

    /// The frame, if any, that was found to be lost since this was called last.
    pub fn take_loss(&mut self) -> Option<Loss> {
        self.loss.take()
    }

    /// Takes the unit of one sequence header (the caps' `streamheader`) ahead of the first frame,
    /// so that the model is loaded and [`info`](Self::info) known.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`CodecError::Bitstream`] for anything but a sequence header.
    pub fn set_sequence_header(&mut self, data: &[u8]) -> Result<()> {
        match UnitScanner::new().scan(data, true) {
            Scan::Unit(unit) if unit.kind == UnitType::Sequence => {
                self.activate(SequenceHeader::parse(unit.payload)?)
            }
            _ => Err(BitstreamError::AccessUnit("no sequence header at its beginning").into()),
        }
    }

    /// Takes one access unit and decodes what can be decoded.
    ///
    /// Exactly one [`Decoded`] with this `id` comes out, sooner or later, unless this returns an
    /// error.
    ///
    /// # Errors
    /// No or a wrong model, a failing network, a stream of a later version, cancellation. Damage is
    /// no error: see [`Decoded`].
    pub fn send(&mut self, data: &[u8], id: u64) -> Result<()> {
        let unit = match AccessUnit::parse(data) {
            Ok(unit) => unit,
            Err(
                e @ (BitstreamError::Version(_)
                | BitstreamError::Magic
                | BitstreamError::Critical(_)
                | BitstreamError::Extension(_)),
            ) => return Err(e.into()),
            Err(e) => return self.damaged_unit(data, id, &e),
        };
        if unit.encrypted {
            return Err(CodecError::Encrypted);
        }
        let mut header = unit.frame;
        if let Some(sequence) = unit.sequence
            && self.sequence.as_ref().is_none_or(|s| s.header != sequence)
        {
            if !header.is_key() {
                // The format puts headers before key frames only.
                return self.lost_frame(id, header, "a sequence header before an inter frame");
            }
            self.activate(sequence)?;
        }
        let Some(sequence) = &self.sequence else {
            self.drop_frame(id, false, None);
            return Ok(());
        };
        if header.is_key() {
            self.key_pts = header.pts;
        }
        let key_pts = self.key_pts.filter(|_| self.belongs(&header));
        header.fill_times(sequence.header.frame_rate, key_pts);
        if header.is_key() {
            // Key frames that wait need nothing of each other.
            if self.pending.iter().any(|p| !p.header.is_key()) {
                self.decode_pending()?;
            }
            self.references.clear();
            self.skipped.clear();
            self.recent.clear();
            self.guessed = 0;
            self.joined = true;
        } else if !self.joined {
            // Joined in the middle: the first key frame is still to come.
            self.drop_frame(id, false, None);
            return Ok(());
        } else if self.came_before(&header, unit.payload) {
            let why = format!("frame {} came twice", header.poc);
            self.drop_frame(id, false, Some(why));
            return Ok(());
        } else if !self.belongs(&header) {
            return self.strange_frame(id, header);
        }
        match header.frame_type {
            FrameType::Key => {
                self.previous_group = self.group.map(|g| g.number);
                self.group = Some(Group {
                    number: header.gop,
                    key: Some(KeyIdentity::of(unit.payload)?),
                });
                self.pending.push(Pending {
                    id,
                    header,
                    payload: unit.payload.to_vec(),
                });
                if self.pending.len() >= self.key_batch() {
                    self.decode_pending()?;
                }
                Ok(())
            }
            FrameType::Inter => {
                if self.skips(&header) {
                    return self.skip_frame(id, &header);
                }
                let batch = self.batch();
                let depends = |p: &Pending| {
                    p.header.is_key()
                        || [header.ref0, header.ref1].contains(&Some(p.header.poc))
                        || p.header.level != header.level
                        || !p.header.released.is_empty()
                };
                if self.pending.len() >= batch || self.pending.iter().any(depends) {
                    self.decode_pending()?;
                }
                let level = usize::from(header.level);
                let expected = self
                    .sequence
                    .as_ref()
                    .and_then(|s| s.levels.get(level).copied());
                self.pending.push(Pending {
                    id,
                    header,
                    payload: unit.payload.to_vec(),
                });
                // Frames of level 0 stand alone: waiting would only delay them.
                if level == 0 || self.pending.len() >= expected.unwrap_or(1).min(batch) {
                    self.decode_pending()?;
                }
                Ok(())
            }
            FrameType::Repeat => {
                self.decode_pending()?;
                // Any frame that is kept may be shown again. What was left out or lost is not
                // there: whether the picture shown last stands for it is known when it is due.
                let again = header.ref0.and_then(|of| self.references.get(of));
                let picture = again.map(|reference| reference.picture.clone());
                self.references.release(&header.released);
                self.queue(header.poc, Shown::new(id, &header, picture));
                Ok(())
            }
        }
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
        self.decode_pending()?;
        let shown = self.reorder.drain();
        self.present(shown);
        Ok(())
    }

    /// Drops everything that waits, as for a seek; decoding goes on at the next key frame. Clears a
    /// cancellation.
    pub fn reset(&mut self) {
        self.output.clear();
        self.pending.clear();
        self.references.clear();
        let depth = self.depth();
        self.reorder.restart(depth);
        self.group = None;
        self.previous_group = None;
        self.joined = false;
        self.reported = false;
        self.gap_reported = false;
        self.troubled = false;
        self.hurry = Hurry::No;
        self.skipped.clear();
        self.recent.clear();
        self.guessed = 0;
        self.last = None;
        self.loss = None;
        self.cancel.reset();
    }

    /// Most frames from one key frame to the next, where the stream limits them.
    pub fn key_interval(&self) -> Option<u32> {
        let interval = self.sequence.as_ref()?.header.gop.key_interval;
        (interval > 0).then_some(interval)
    }

    /// Most frames that come before any frame and are shown after it, as the stream says.
    pub fn max_reorder(&self) -> usize {
        self.depth()
    }

    fn depth(&self) -> usize {
        self.sequence
            .as_ref()
            .map_or(0, |s| usize::from(s.header.gop.max_reorder))
    }

    fn batch(&self) -> usize {
        let most = self.config.batch_size;
        self.sequence.as_ref().map_or(1, |s| {
            let provider = s.model.active_provider();
            batch_on(provider, most, s.header.width, s.header.height)
        })
    }

    /// How many key frames to wait for.
    ///
    /// Only where every frame is one: elsewhere the frames between them would have to be held, too,
    /// and the viewer would wait for whole groups of pictures.
    fn key_batch(&self) -> usize {
        match &self.sequence {
            Some(s) if !self.config.live && s.header.gop.key_interval == 1 => self.batch(),
            _ => 1,
        }
    }

    /// Puts a new sequence header into force; frames before it are shown.
    fn activate(&mut self, header: SequenceHeader) -> Result<()> {
        if self.sequence.as_ref().is_some_and(|s| s.header == header) {
            return Ok(());
        }
        self.finish()?;
        self.references.clear();
        self.group = None;
        self.previous_group = None;
        self.joined = false;
        let pixels = u64::from(header.width) * u64::from(header.height);
        if pixels > self.config.max_pixels {
            return Err(CodecError::TooLarge {
                width: header.width,
                height: header.height,
                max_pixels: self.config.max_pixels,
            });
        }
        let (level, max_level) = (header.level(), self.config.max_level);
        if level > max_level {
            return Err(CodecError::Level { level, max_level });
        }
        let same = self
            .sequence
            .take()
            .map(|s| s.model)
            .filter(|m| m.hash().starts_with(&header.bundle_hash));
        let model = match same {
            Some(model) => model,
            None => self
                .provider
                .model(&header.bundle_name, &header.bundle_hash)?,
        };
        if !model.hash().starts_with(&header.bundle_hash) {
            return Err(CodecError::Model {
                name: header.bundle_name.clone(),
                hash: nn::hex(&header.bundle_hash),
                what: format!(
                    "the model \"{}\" at hand has the hash {}; give the right one with model-path",
                    model.name(),
                    nn::hex(&model.hash()[..header.bundle_hash.len()])
                ),
            });
        }
        let grid = Grid::for_picture(header.width as usize, header.height as usize)?;
        self.sequence = Some(Sequence {
            info: Arc::new(StreamInfo::from_header(&header)),
            coding: Coding::new(
                model.tables(NetworkSet::Key),
                model.tables(NetworkSet::Inter),
                grid,
                &header,
            ),
            levels: level_sizes(usize::from(header.gop.mini_gop)),
            model,
            header,
        });
        let depth = self.depth();
        self.reorder.restart(depth);
        Ok(())
    }

    /// An access unit of which not even the frame header can be trusted.
    fn damaged_unit(&mut self, data: &[u8], id: u64, error: &BitstreamError) -> Result<()> {
        self.decode_pending()?;
        // A sound sequence header before a damaged key frame still says what follows.
        if let Scan::Unit(unit) = UnitScanner::new().scan(data, true)
            && unit.kind == UnitType::Sequence
            && let Ok(header) = SequenceHeader::parse(unit.payload)
        {
            self.activate(header)?;
            self.references.clear();
            self.group = None;
        }
        let warning = (!std::mem::replace(&mut self.troubled, true)).then(|| error.to_string());
        if !self.joined || self.depth() > 0 {
            // Where frames are reordered nobody knows the place of this one: its neighbours close
            // the gap.
            self.drop_frame(id, true, warning);
            return Ok(());
        }
        self.guessed = self.guessed.saturating_add(1);
        let poc = self.reorder.next_poc();
        let group = self.group.map_or(0, |g| g.number);
        self.lose(group, poc);
        let header = FrameHeader::inter(group, poc, 0, 0, None);
        self.conceal(id, &header, warning);
        Ok(())
    }

    /// A frame whose header is sound but which cannot be decoded.
    fn lost_frame(&mut self, id: u64, header: FrameHeader, why: &str) -> Result<()> {
        self.decode_pending()?;
        if self.joined {
            self.conceal(id, &header, Some(format!("frame {}: {why}", header.poc)));
        } else {
            self.drop_frame(id, true, Some(why.into()));
        }
        Ok(())
    }

    /// Whether a frame is of the group in progress, whose key frame is there.
    fn belongs(&self, header: &FrameHeader) -> bool {
        let Some(Group { number, key }) = self.group else {
            return header.is_key();
        };
        header.is_key()
            || key.is_some_and(|key| header.key_check.is_none_or(|check| check == key.check()))
                && number == header.gop
                && !self.goes_back(header)
    }

    /// Frames of a group come before their turn to be shown.
    fn goes_back(&self, header: &FrameHeader) -> bool {
        header.poc.saturating_add(self.guessed) < self.reorder.next_poc()
    }

    /// Whether a network has delivered a frame a second time; remembers it else.
    fn came_before(&mut self, header: &FrameHeader, payload: &[u8]) -> bool {
        let frame = (header.poc, crc32c::crc32c(payload));
        if self.recent.contains(&frame) {
            return true;
        }
        self.recent.truncate(RECENT - 1);
        self.recent.push_front(frame);
        false
    }

    /// A frame of a group whose key frame is not there.
    fn strange_frame(&mut self, id: u64, header: FrameHeader) -> Result<()> {
        self.decode_pending()?;
        let lost = |g: Group| g.key.is_none() && g.number == header.gop && !self.goes_back(&header);
        if !self.group.is_some_and(lost) {
            if self.previous_group == Some(header.gop)
                && self.group.is_some_and(|g| g.key.is_some())
            {
                // The network delivered it after the next group's key frame, which is sound.
                let why = (!std::mem::replace(&mut self.gap_reported, true))
                    .then(|| "frames of the group before came too late".into());
                self.drop_frame(id, true, why);
                return Ok(());
            }
            self.references.clear();
            // One burst, one warning.
            self.gap_reported = true;
            let depth = self.depth();
            let shown = self.reorder.restart_at(depth, 1);
            self.present(shown);
            self.begin_group();
            self.previous_group = None;
            self.group = Some(Group {
                number: header.gop,
                key: None,
            });
        }
        self.lose(header.gop, 0);
        let why = (!std::mem::replace(&mut self.reported, true)).then(|| {
            format!(
                "frame {}: the key frame of its group is missing; the last picture is shown up to \
                 the next key frame",
                header.poc
            )
        });
        self.conceal(id, &header, why);
        Ok(())
    }

    /// Nothing of a new group was reported yet.
    fn begin_group(&mut self) {
        self.reported = false;
        self.gap_reported = false;
        self.skipped.clear();
    }

    /// Whether a frame is left out to gain time, or since one that it refers to was.
    fn skips(&self, header: &FrameHeader) -> bool {
        let unwanted = match self.hurry {
            Hurry::No => false,
            Hurry::Unreferenced => !header.keep,
            Hurry::BetweenAnchors => !header.keep || header.level > 0,
            Hurry::Inter => true,
        };
        let mut references = [header.ref0, header.ref1].into_iter().flatten();
        unwanted || references.any(|r| self.skipped.contains(&r))
    }

    /// Leaves out a frame.
    fn skip_frame(&mut self, id: u64, header: &FrameHeader) -> Result<()> {
        if !header.released.is_empty() {
            // Those that wait may refer to what goes now.
            self.decode_pending()?;
            self.references.release(&header.released);
            self.skipped.retain(|poc| !header.released.contains(poc));
        }
        if header.keep {
            self.skipped.insert(header.poc);
            if self.skipped.len() > usize::from(MAX_REFERENCES) {
                self.skipped.pop_first();
            }
        }
        let shown = Shown {
            skipped: true,
            ..Shown::new(id, header, None)
        };
        self.queue(header.poc, shown);
        Ok(())
    }

    fn drop_frame(&mut self, id: u64, damaged: bool, warning: Option<String>) {
        self.stats.dropped += 1;
        self.output.push_back(Decoded::Dropped {
            id,
            damaged,
            warning,
        });
    }

    /// Takes note of a frame that is lost or damaged.
    fn lose(&mut self, group: u8, number: u32) {
        self.loss = Some(Loss { group, number });
    }

    /// Shows a copy of the nearest frame instead of one that cannot be decoded.
    fn conceal(&mut self, id: u64, header: &FrameHeader, why: Option<String>) {
        let nearest = self
            .references
            .nearest(header.poc)
            .map(|(_, reference)| reference.picture.clone())
            .or_else(|| self.last.as_ref().map(|l| l.0.clone()))
            .filter(|p| {
                self.info()
                    .is_some_and(|i| (i.width, i.height) == (p.width(), p.height()))
            });
        let picture = match nearest {
            Some(picture) if self.config.conceal => picture,
            _ => return self.drop_frame(id, true, why),
        };
        let shown = Shown {
            concealed: true,
            warning: why,
            ..Shown::new(id, header, Some(picture))
        };
        self.queue(header.poc, shown);
    }

    fn queue(&mut self, poc: u32, shown: Shown) {
        match self.reorder.push(poc, shown) {
            Ok(ready) => self.present(ready),
            Err(late) => {
                let why = format!("frame {poc} came twice or too late");
                self.drop_frame(late.id, true, Some(why));
            }
        }
    }

    /// Hands out a frame that was left out, or one that repeats such a frame.
    fn skip(&mut self, id: u64, original: u32) {
        if let Some((_, of, what)) = &mut self.last {
            (*of, *what) = (original, LastShown::Skipped);
        }
        self.stats.skipped += 1;
        self.output.push_back(Decoded::Skipped { id });
    }

    /// Hands frames out in order of presentation.
    fn present(&mut self, shown: Vec<Shown>) {
        let Some(info) = self.info().cloned() else {
            return;
        };
        let missing = self.reorder.missing() - self.stats.missing;
        self.stats.missing += missing;
        let mut gap = None;
        if missing > 0 && !self.gaps_expected && !self.reported && !self.gap_reported {
            self.gap_reported = true;
            gap = Some(format!("frames missing before this one: {missing}"));
        }
        for mut s in shown {
            if s.skipped {
                self.skip(s.id, s.original);
                continue;
            }
            let picture = match (&s.picture, &self.last) {
                (Some(p), _) => p.clone(),
                (None, Some((_, of, LastShown::Skipped))) if *of == s.original => {
                    self.skip(s.id, s.original);
                    continue;
                }
                (None, Some((last, of, what))) => {
                    if *of != s.original || *what != LastShown::Sound {
                        s.concealed = true;
                        if !std::mem::replace(&mut self.reported, true) {
                            s.warning.get_or_insert_with(|| {
                                format!("frame {}, shown again, is missing", s.original)
                            });
                        }
                    }
                    last.clone()
                }
                (None, None) => {
                    self.drop_frame(s.id, true, Some("nothing to repeat".into()));
                    continue;
                }
            };
            let what = match s.concealed {
                true => LastShown::Concealed,
                false => LastShown::Sound,
            };
            self.last = Some((picture.clone(), s.original, what));
            self.stats.frames += 1;
            self.stats.concealed += u64::from(s.concealed);
            let picture = match info.chroma_format {
                ChromaFormat::Yuv420 => picture,
                ChromaFormat::Grey => Arc::new(picture.grey()),
            };
            self.output.push_back(Decoded::Frame(DecodedFrame {
                id: s.id,
                picture,
                info: info.clone(),
                kind: s.kind,
                pts: s.pts,
                duration: s.duration,
                concealed: s.concealed,
                warning: s.warning.or_else(|| gap.take()),
                analysis: s.analysis,
            }));
        }
    }

    /// Decodes the frames that wait, in one batch where they can be decoded.
    fn decode_pending(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let frames = std::mem::take(&mut self.pending);
        let outcomes = self.decode_batch(&frames)?;
        for (frame, outcome) in frames.iter().zip(outcomes) {
            let header = &frame.header;
            if header.is_key() {
                self.references.clear();
                let depth = self.depth();
                let shown = self.reorder.restart(depth);
                self.present(shown);
                self.begin_group();
            }
            match outcome {
                Ok((reference, analysis)) => {
                    self.troubled = false;
                    if self.depth() == 0 {
                        // In low-delay order all that follows hangs on this frame: the encoder has
                        // gone on from an older one, and the next loss is another story.
                        self.reported = false;
                        self.gap_reported = false;
                    }
                    let mut shown = Shown::new(frame.id, header, Some(reference.picture.clone()));
                    shown.analysis = analysis;
                    let wrong = header
                        .checksum
                        .is_some_and(|expected| expected != reference.picture.checksum());
                    if let Some(analysis) = &mut shown.analysis {
                        analysis.verified = header.checksum.map(|_| !wrong);
                    }
                    if wrong {
                        self.lose(header.gop, header.poc);
                        // Shown as it is, but nothing is predicted from it: errors would pile up to
                        // noise.
                        shown.concealed = true;
                        shown.warning = Some(format!(
                            "frame {} is not what the encoder saw (its checksum differs): this \
                             machine's networks are \
                             not exact, or the stream was damaged before its check sums were made",
                            header.poc
                        ));
                    } else {
                        self.stats.verified += u64::from(header.checksum.is_some());
                        if header.keep {
                            // What goes makes place first: else the oldest would.
                            self.references.release(&header.released);
                            self.references.keep(header.poc, reference);
                        }
                    }
                    self.queue(header.poc, shown);
                }
                Err(why) => {
                    if self.loss.is_none() {
                        self.lose(header.gop, header.poc);
                    }
                    let why = self.report(why, header);
                    self.conceal(frame.id, header, why);
                }
            }
        }
        for frame in &frames {
            self.references.release(&frame.header.released);
        }
        Ok(())
    }

    /// What to say of a frame that cannot be decoded: a burst of damage is told once, and what
    /// follows from it is not told at all.
    fn report(&mut self, why: Option<String>, header: &FrameHeader) -> Option<String> {
        let why = why.filter(|_| !self.troubled);
        self.troubled = true;
        // Frames that refer to it are lost with it.
        self.reported |= header.keep;
        why
    }

    /// Decodes frames of one kind and level. The outer error is fatal, the inner ones are damage.
    fn decode_batch(&mut self, frames: &[Pending]) -> Result<Vec<Outcome>> {
        let Some(sequence) = &self.sequence else {
            return Err(CodecError::Internal(
                "a frame without sequence header".into(),
            ));
        };
        let inner = self.threads.div_ceil(frames.len());
        // Key frames take little before they are known to be sound.
        if frames.iter().any(|f| !f.header.is_key()) {
            sequence.check_memory(frames.len())?;
        }
        let work = |threads| Work {
            tensors: &self.tensors,
            threads,
            cancel: &self.cancel,
            wanted: self.wanted,
        };
        let opening = work(inner);
        let opened = parallel::map(self.threads, frames.len(), |i| {
            open(sequence, &self.references, &frames[i], &opening)
        });
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(frames.len());
        let mut good: Vec<(usize, Opened)> = Vec::new();
        for (i, frame) in opened.into_iter().enumerate() {
            let header = &frames[i].header;
            match frame {
                Ok(frame) => {
                    self.stats.times.add(&frame.times);
                    good.push((i, frame));
                    outcomes.push(None);
                }
                Err(Trouble::Fatal(e)) => return Err(e),
                Err(Trouble::Lost(poc)) => {
                    self.loss = Some(Loss {
                        group: header.gop,
                        number: poc,
                    });
                    let first = !std::mem::replace(&mut self.reported, true);
                    outcomes.push(Some(Err(first.then(|| {
                        format!(
                            "frame {}: its reference {poc} was lost; pictures are concealed until \
                             a frame comes that does without it",
                            header.poc
                        )
                    }))));
                }
                Err(Trouble::Damaged(why)) => {
                    outcomes.push(Some(Err(Some(format!("frame {}: {why}", header.poc)))));
                }
            }
        }
        if !good.is_empty() {
            sequence.check_memory(good.len())?;
            self.stats.batches += 1;
            // Frames with still places go through the networks in parts of their own.
            let (alone, together): (Vec<_>, Vec<_>) =
                good.into_iter().partition(|(_, o)| o.still.is_some());
            let alone = alone.into_iter().map(|frame| vec![frame]);
            for good in alone.chain([together]).filter(|good| !good.is_empty()) {
                let work = work(self.threads);
                let times = &mut self.stats.times;
                for (i, outcome) in decode_opened(sequence, frames, good, &work, times)? {
                    outcomes[i] = Some(outcome);
                }
            }
        }
        let missing = || Err(Some("it was not decoded".to_string()));
        Ok(outcomes
            .into_iter()
            .map(|o| o.unwrap_or_else(missing))
            .collect())
    }
}

impl Sequence {
    /// Asks for the memory that the work on so many frames takes, and gives it back: where it is
    /// not to be had, this says so before something deeper down aborts the process.
    fn check_memory(&self, frames: usize) -> Result<()> {
        let (width, height) = (self.header.width, self.header.height);
        let bytes = u64::from(width) * u64::from(height) * WORK_BYTES * frames as u64;
        let mut memory = Vec::<u8>::new();
        let there = usize::try_from(bytes).is_ok_and(|n| memory.try_reserve_exact(n).is_ok());
        // An allocation that nothing looks at may be left out by the compiler.
        std::hint::black_box(memory.as_ptr());
        if there {
            return Ok(());
        }
        Err(CodecError::Memory {
            width,
            height,
            mib: bytes >> 20,
        })
    }
}

/// Why a frame cannot be decoded.
enum Trouble {
    /// This reference is not there.
    Lost(u32),
    Damaged(String),
    /// Not the stream's fault.
    Fatal(CodecError),
}

impl<E: std::error::Error> From<E> for Trouble {
    fn from(e: E) -> Self {
        Self::Damaged(e.to_string())
    }
}

/// Decodes the side information of a frame and predicts it.
fn open<'a>(
    sequence: &Sequence,
    references: &References<Reference>,
    frame: &'a Pending,
    work: &Work,
) -> std::result::Result<Opened<'a>, Trouble> {
    let tensors = work.tensors;
    let bits_wanted = work.wanted.is_some_and(|w| w.bits);
    let mut motion_bits = Vec::new();
    let header = &frame.header;
    let coding = &sequence.coding;
    let payload =
        FramePayload::parse(&frame.payload, sequence.header.y_streams(header.frame_type))?;
    let mut times = StageTimes::default();
    let mut clock = Clock::start();
    let (mut p, mut d) = (Vec::new(), Vec::new());
    let ink = if header.ink {
        let (width, height) = (16 * coding.grid.w16(), 16 * coding.grid.h16());
        let ink = InkLayer::decode(payload.ink, width, height)?;
        clock.lap(&mut times.entropy);
        Some(ink)
    } else {
        None
    };
    let mut still_contexts = StillContexts::default();
    let mut still = None;
    let (mut symbols, motion) = if header.is_key() {
        (coding.fresh(NetworkSet::Key)?, None)
    } else {
        let get = |poc: u32| references.get(poc).ok_or(Trouble::Lost(poc));
        let ref0 = get(header.ref0.unwrap_or(header.poc))?;
        let ref1 = header.ref1.map(get).transpose()?;
        let from = match header.contexts {
            ContextSource::Tables => None,
            ContextSource::Ref0 => Some(ref0),
            ContextSource::Ref1 => ref1,
        };
        let (symbols, mut contexts) = match from.map(|r| &r.contexts) {
            None => (coding.fresh(NetworkSet::Inter)?, MotionContexts::default()),
            Some(Some(c)) => {
                still_contexts = c.still.clone();
                (c.symbols.clone(), c.motion.clone())
            }
            Some(None) => {
                return Err(Trouble::Damaged(
                    "it inherits from a key frame, which leaves nothing to inherit".into(),
                ));
            }
        };
        let mut field = MotionField::new(&ref0.picture);
        field.set_distances(temporal_distances(header.poc, header.ref0, header.ref1));
        let mut coder = nnv_format::entropy::Decoder::new(payload.side);
        let before = bits_wanted.then(|| contexts.clone());
        decode_field(&mut coder, &mut contexts, &mut field, ref0.field.as_deref());
        coder.finish()?;
        if header.still {
            let mut coder = nnv_format::entropy::Decoder::new(payload.still);
            let before = ref0.still.as_deref();
            let map = StillMap::decode(&mut coder, &mut still_contexts, before, coding.grid);
            coder.finish()?;
            still = Some(Arc::new(map));
        }
        if let Some(before) = before {
            motion_bits = field_bits_by_block(&before, &field, ref0.field.as_deref());
        }
        clock.lap(&mut times.entropy);
        let second = ref1.unwrap_or(ref0);
        let prediction = predict(&field, &ref0.picture, &second.picture, work.threads)?;
        clock.lap(&mut times.predict);
        let len = coding.grid.picture_len();
        (p, d) = (tensors.take(len), tensors.take(len));
        prediction.pack(&mut p, &mut d)?;
        if let Some(ink) = &ink {
            ink.ground(&mut p, &mut d);
        }
        clock.lap(&mut times.pack);
        (symbols, Some((contexts, field)))
    };
    let map = if header.quantizer_map {
        let mut coder = nnv_format::entropy::Decoder::new(payload.map);
        let map = QuantizerMap::decode(&mut coder, coding.grid.w16(), coding.grid.h16())?;
        coder.finish()?;
        Some(map)
    } else {
        None
    };
    let before = bits_wanted.then(|| symbols.clone());
    let z = symbols.decode_z(payload.z)?;
    let hyper_bits = match before {
        Some(before) => analysis::hyper_bits(&before.spent_z(&z)?, coding.grid),
        None => Vec::new(),
    };
    let ink_bits = match &ink {
        Some(ink) if bits_wanted => analysis::ink_bits(&ink.bits_by_cell()?, coding.grid),
        _ => Vec::new(),
    };
    if header.is_key() && !header.quantizer_map {
        let channels = symbols.first_channels();
        let (model, quantizer) = (&sequence.model, header.quantizer);
        let scales = flat::scale_indices(model, coding.grid, &z, quantizer, channels, work.cancel)
            .map_err(Trouble::Fatal)?;
        if let Some(scales) = scales
            && symbols.starves(&payload.y, &scales)?
        {
            return Err(Trouble::Damaged(
                "its latent needs more bytes than there are: it is cut or damaged".into(),
            ));
        }
    }
    clock.lap(&mut times.entropy);
    Ok(Opened {
        payload,
        map,
        ink,
        symbols: Some(symbols),
        motion,
        still_contexts,
        still,
        z,
        p,
        d,
        motion_bits,
        hyper_bits,
        ink_bits,
        times,
    })
}

/// Networks and latents of opened frames of one kind.
fn decode_opened(
    sequence: &Sequence,
    frames: &[Pending],
    mut opened: Vec<(usize, Opened)>,
    work: &Work,
    times: &mut StageTimes,
) -> Result<Vec<(usize, Outcome)>> {
    let &Work {
        tensors,
        threads,
        cancel,
        wanted,
    } = work;
    let states: Vec<_> = opened
        .iter_mut()
        .map(|(_, o)| Mutex::new(o.symbols.take()))
        .collect();
    let (decoded, pictures) = match &opened[..] {
        [(i, o)] if o.still.is_some() => {
            let state = states
                .into_iter()
                .next()
                .and_then(|s| s.into_inner().ok().flatten());
            run_still(sequence, &frames[*i].header, o, state, work, times)?
        }
        _ => run_batch(sequence, frames, &opened, &states, work, times)?,
    };
    let mut clock = Clock::start();
    let mut outcomes: Vec<(usize, Outcome)> = Vec::with_capacity(opened.len());
    let mut sound = Vec::with_capacity(opened.len());
    let mut latents = Vec::with_capacity(opened.len());
    for ((i, o), decoded) in opened.into_iter().zip(decoded) {
        match decoded {
            Ok(latent) => {
                sound.push((i, o));
                latents.push(latent);
            }
            Err(why) => {
                tensors.give_back(o.p);
                tensors.give_back(o.d);
                let why = format!("frame {}: {why}", frames[i].header.poc);
                outcomes.push((i, Err(Some(why))));
            }
        }
    }
    if sound.is_empty() {
        return Ok(outcomes);
    }
    let pictures = match pictures {
        Some(pictures) => pictures,
        // Features belong to a whole batch: the frames that are left get a batch of their own.
        None => {
            let batch = batch_of(sequence, frames, &sound)?;
            let prior = prior_of(&batch, &sound, cancel)?;
            let r: Vec<&[i16]> = latents.iter().map(|(r, ..)| &r[..]).collect();
            let pictures = Synthesised::Batch(batch.synthesise(&prior, &r, cancel)?);
            clock.lap(&mut times.synth);
            pictures
        }
    };
    let unpacked = parallel::map(threads, sound.len(), |n| {
        let mut picture = Picture::new(sequence.header.width, sequence.header.height)?;
        picture.unpack(pictures.get(n))?;
        if let Some(ink) = &sound[n].1.ink {
            ink.apply(&mut picture);
        }
        Ok::<_, CodecError>(Arc::new(picture))
    });
    clock.lap(&mut times.pack);
    for (((i, o), (r, symbols, latent_bits)), picture) in
        sound.into_iter().zip(latents).zip(unpacked)
    {
        let prediction = match wanted {
            Some(Wanted {
                prediction: true, ..
            }) if o.motion.is_some() => {
                let (width, height) = (sequence.header.width, sequence.header.height);
                Some(analysis::prediction(width, height, &o.p)?)
            }
            _ => None,
        };
        for tensor in [o.p, o.d, r] {
            tensors.give_back(tensor);
        }
        let still = o.still_contexts;
        let (contexts, field) = o
            .motion
            .map(|(motion, field)| {
                let contexts = Contexts {
                    symbols,
                    motion,
                    still,
                };
                (Arc::new(contexts), Arc::new(field))
            })
            .unzip();
        let analysis = wanted.map(|_| {
            Box::new(Analysis {
                header: frames[i].header.clone(),
                bytes: PartBytes::of(&o.payload),
                prediction,
                field: field.clone(),
                ink: o.ink.map(Arc::new),
                map: o.map,
                latent_bits,
                motion_bits: o.motion_bits,
                hyper_bits: o.hyper_bits,
                ink_bits: o.ink_bits,
                verified: None,
            })
        });
        let reference = Reference {
            picture: picture?,
            level: frames[i].header.level,
            contexts,
            field,
            still: o.still,
        };
        outcomes.push((i, Ok((reference, analysis))));
    }
    Ok(outcomes)
}

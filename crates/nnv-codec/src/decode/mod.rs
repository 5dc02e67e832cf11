// SPDX-License-Identifier: MPL-2.0
//! The decoder: access units in, pictures in order of presentation out.

use crate::config::DecoderConfig;
use crate::error::{CodecError, Result};
use crate::stages::{Clock, StageTimes};
use nnv_bitstream::StreamInfo;
use nnv_bitstream::limits::DEEPEST_LEVEL;
use nnv_bitstream::{
    AccessUnit, BitstreamError, BundleHash, ContextSource, FrameHeader, FramePayload, FrameType,
    Scan, SequenceHeader, UnitScanner, UnitType,
};
use nnv_cpu::parallel;
use nnv_format::dequantise::dequantise_sparse;
use nnv_format::entropy::SymbolContexts;
use nnv_format::grid::Grid;
use nnv_format::ink::InkLayer;
use nnv_format::motion::{MotionContexts, MotionField, decode_field, predict, temporal_distances};
use nnv_format::picture::Picture;
use nnv_format::quantizer_map::{HEADROOM, Quantisation, QuantizerMap};
use nnv_format::references::{Coding, Contexts, Reference, References, Reorder, level_sizes};
use nnv_format::tables::NetworkSet;
use nnv_nn::{self as nn, Cancel, InterItem, Model};
use std::collections::VecDeque;
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
    /// Batches of frames that went through the networks together.
    pub batches: u64,
    /// Time per stage.
    pub times: StageTimes,
}

/// Most luma samples in a batch on the CPU.
const CPU_BATCH_PIXELS: usize = 4 << 20;

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
    /// `None` for repeats.
    picture: Option<Arc<Picture>>,
    /// Number of the frame, or of the one that a repeat shows again.
    original: u32,
    pts: Option<u64>,
    duration: Option<u64>,
    concealed: bool,
    warning: Option<String>,
}

impl Shown {
    fn new(id: u64, header: &FrameHeader, picture: Option<Arc<Picture>>) -> Self {
        Self {
            id,
            kind: header.frame_type,
            picture,
            original: match header.frame_type {
                FrameType::Repeat => header.ref0.unwrap_or(header.poc),
                _ => header.poc,
            },
            pts: header.pts.and_then(|v| u64::try_from(v).ok()),
            duration: header.duration,
            concealed: false,
            warning: None,
        }
    }
}

/// A decoded frame: picture, and what its successors inherit.
type Outcome = std::result::Result<Reference, String>;

/// An inter frame whose side information is decoded.
struct Opened<'a> {
    payload: FramePayload<'a>,
    map: Option<QuantizerMap>,
    ink: Option<InkLayer>,
    /// Taken when `y` is decoded.
    symbols: Option<SymbolContexts>,
    motion: Option<(MotionContexts, MotionField)>,
    z: Arc<[i8]>,
    p: Vec<i16>,
    d: Vec<i16>,
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
    /// Number of the group of pictures whose key frame was decoded; `None` before the first key
    /// frame.
    gop: Option<u8>,
    /// Presentation time in ns of the last key frame, from the stream.
    key_pts: Option<i64>,
    /// A key frame was met since the start or the last reset.
    joined: bool,
    /// Lost references were already reported for this group of pictures.
    reported: bool,
    last: Option<(Arc<Picture>, u32)>,
    tensors: Tensors,
    stats: DecoderStats,
    cancel: Cancel,
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
            gop: None,
            key_pts: None,
            joined: false,
            reported: false,
            last: None,
            tensors: Tensors::default(),
            stats: DecoderStats::default(),
            cancel: Cancel::new(),
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

    /// A handle that aborts the work in progress from another thread.
    pub fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Totals so far.
    pub fn stats(&self) -> &DecoderStats {
        &self.stats
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
            Err(e @ (BitstreamError::Version(_) | BitstreamError::Magic)) => return Err(e.into()),
            Err(e) => return self.damaged_unit(data, id, &e),
        };
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
        let key_pts = self
            .key_pts
            .filter(|_| header.is_key() || self.gop == Some(header.gop));
        header.fill_times(sequence.header.frame_rate, key_pts);
        if header.is_key() {
            // Key frames that wait need nothing of each other.
            if self.pending.iter().any(|p| !p.header.is_key()) {
                self.decode_pending()?;
            }
            self.references.clear();
            self.gop = None;
            self.joined = true;
            self.reported = false;
        } else if !self.joined {
            // Joined in the middle: the first key frame is still to come.
            self.drop_frame(id, false, None);
            return Ok(());
        }
        match header.frame_type {
            FrameType::Key => {
                self.gop = Some(header.gop);
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
                if self.gop != Some(header.gop) {
                    return self.lost_frame(id, header, "its key frame is missing");
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
                self.references.release(&header.released);
                let mut shown = Shown::new(id, &header, None);
                shown.concealed = self.gop != Some(header.gop);
                self.queue(header.poc, shown);
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
        self.gop = None;
        self.joined = false;
        self.reported = false;
        self.last = None;
        self.cancel.reset();
    }

    fn depth(&self) -> usize {
        self.sequence
            .as_ref()
            .map_or(0, |s| usize::from(s.header.gop.max_reorder))
    }

    fn batch(&self) -> usize {
        let most = (self.config.batch_size as usize).clamp(1, nn::MAX_BATCH);
        match &self.sequence {
            // A processor gains little from a batch, which takes 75 bytes of memory per sample and
            // frame.
            Some(s) if s.model.active_provider() == nn::Provider::Cpu => {
                let pixels = s.header.width as usize * s.header.height as usize;
                most.min(CPU_BATCH_PIXELS / pixels).max(1)
            }
            _ => most,
        }
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
        self.gop = None;
        self.joined = false;
        let pixels = u64::from(header.width) * u64::from(header.height);
        if pixels > self.config.max_pixels {
            return Err(CodecError::TooLarge {
                width: header.width,
                height: header.height,
                max_pixels: self.config.max_pixels,
            });
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
            self.gop = None;
        }
        let warning = format!("{error}");
        if !self.joined || self.depth() > 0 {
            // Where frames are reordered nobody knows the place of this one: its neighbours close
            // the gap.
            self.drop_frame(id, true, Some(warning));
            return Ok(());
        }
        let poc = self.reorder.next_poc();
        let header = FrameHeader::inter(self.gop.unwrap_or(0), poc, 0, 0, None);
        self.conceal(id, &header, warning);
        Ok(())
    }

    /// A frame whose header is sound but which cannot be decoded.
    fn lost_frame(&mut self, id: u64, header: FrameHeader, why: &str) -> Result<()> {
        self.decode_pending()?;
        if self.joined {
            self.conceal(id, &header, format!("frame {}: {why}", header.poc));
        } else {
            self.drop_frame(id, true, Some(why.into()));
        }
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

    /// Shows a copy of the nearest frame instead of one that cannot be decoded.
    fn conceal(&mut self, id: u64, header: &FrameHeader, why: String) {
        let nearest = self
            .references
            .nearest(header.poc)
            .map(|r| r.picture.clone())
            .or_else(|| self.last.as_ref().map(|l| l.0.clone()))
            .filter(|p| {
                self.info()
                    .is_some_and(|i| (i.width, i.height) == (p.width(), p.height()))
            });
        let picture = match nearest {
            Some(picture) if self.config.conceal => picture,
            _ => return self.drop_frame(id, true, Some(why)),
        };
        let shown = Shown {
            concealed: true,
            warning: Some(why),
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

    /// Hands frames out in order of presentation.
    fn present(&mut self, shown: Vec<Shown>) {
        let Some(info) = self.info().cloned() else {
            return;
        };
        for mut s in shown {
            let picture = match (&s.picture, &self.last) {
                (Some(p), _) => p.clone(),
                (None, Some((last, of))) => {
                    if *of != s.original {
                        s.concealed = true;
                        s.warning.get_or_insert_with(|| {
                            format!("frame {}, shown again, is missing", s.original)
                        });
                    }
                    last.clone()
                }
                (None, None) => {
                    self.drop_frame(s.id, true, Some("nothing to repeat".into()));
                    continue;
                }
            };
            self.last = Some((picture.clone(), s.original));
            self.stats.frames += 1;
            self.stats.concealed += u64::from(s.concealed);
            self.output.push_back(Decoded::Frame(DecodedFrame {
                id: s.id,
                picture,
                info: info.clone(),
                kind: s.kind,
                pts: s.pts,
                duration: s.duration,
                concealed: s.concealed,
                warning: s.warning,
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
            }
            match outcome {
                Ok(reference) => {
                    let mut shown = Shown::new(frame.id, header, Some(reference.picture.clone()));
                    let wrong = header
                        .checksum
                        .is_some_and(|expected| expected != reference.picture.checksum());
                    if wrong {
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
                            self.references.keep(header.poc, reference);
                        }
                    }
                    self.queue(header.poc, shown);
                }
                Err(why) => self.conceal(frame.id, header, why),
            }
        }
        for frame in &frames {
            self.references.release(&frame.header.released);
        }
        Ok(())
    }

    /// Decodes frames of one kind and level. The outer error is fatal, the inner ones are damage.
    fn decode_batch(&mut self, frames: &[Pending]) -> Result<Vec<Outcome>> {
        let Some(sequence) = &self.sequence else {
            return Err(CodecError::Internal(
                "a frame without sequence header".into(),
            ));
        };
        let inner = self.threads.div_ceil(frames.len());
        let opened = parallel::map(self.threads, frames.len(), |i| {
            open(sequence, &self.references, &frames[i], &self.tensors, inner)
        });
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(frames.len());
        let mut good: Vec<(usize, Opened)> = Vec::new();
        for (i, frame) in opened.into_iter().enumerate() {
            match frame {
                Ok(frame) => {
                    self.stats.times.add(&frame.times);
                    good.push((i, frame));
                    outcomes.push(None);
                }
                Err(Trouble::Lost(poc)) if self.reported => {
                    outcomes.push(Some(Err(format!("its reference {poc} is missing"))));
                }
                Err(Trouble::Lost(poc)) => {
                    self.reported = true;
                    outcomes.push(Some(Err(format!(
                        "frame {}: its reference {poc} was lost; pictures are concealed up to \
                         the next key frame",
                        frames[i].header.poc
                    ))));
                }
                Err(Trouble::Damaged(why)) => {
                    let poc = frames[i].header.poc;
                    outcomes.push(Some(Err(format!("frame {poc}: {why}"))));
                }
            }
        }
        if !good.is_empty() {
            self.stats.batches += 1;
            let decoded = decode_opened(
                sequence,
                frames,
                good,
                &self.tensors,
                self.threads,
                &self.cancel,
                &mut self.stats.times,
            )?;
            for (i, outcome) in decoded {
                outcomes[i] = Some(outcome);
            }
        }
        let missing = || Err("it was not decoded".to_string());
        Ok(outcomes
            .into_iter()
            .map(|o| o.unwrap_or_else(missing))
            .collect())
    }
}

/// Why a frame cannot be decoded.
enum Trouble {
    /// This reference is not there.
    Lost(u32),
    Damaged(String),
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
    tensors: &Tensors,
    threads: usize,
) -> std::result::Result<Opened<'a>, Trouble> {
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
            Some(Some(c)) => (c.symbols.clone(), c.motion.clone()),
            Some(None) => {
                return Err(Trouble::Damaged(
                    "it inherits from a key frame, which leaves nothing to inherit".into(),
                ));
            }
        };
        let mut field = MotionField::new(&ref0.picture);
        field.set_distances(temporal_distances(header.poc, header.ref0, header.ref1));
        let mut coder = nnv_format::entropy::Decoder::new(payload.side);
        decode_field(&mut coder, &mut contexts, &mut field, ref0.field.as_deref());
        coder.finish()?;
        clock.lap(&mut times.entropy);
        let second = ref1.unwrap_or(ref0);
        let prediction = predict(&field, &ref0.picture, &second.picture, threads)?;
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
    let z = symbols.decode_z(payload.z)?;
    clock.lap(&mut times.entropy);
    Ok(Opened {
        payload,
        map,
        ink,
        symbols: Some(symbols),
        motion,
        z,
        p,
        d,
        times,
    })
}

/// Networks and latents of opened frames of one kind.
fn decode_opened(
    sequence: &Sequence,
    frames: &[Pending],
    mut opened: Vec<(usize, Opened)>,
    tensors: &Tensors,
    threads: usize,
    cancel: &Cancel,
    times: &mut StageTimes,
) -> Result<Vec<(usize, Outcome)>> {
    let grid = sequence.coding.grid;
    let model = &sequence.model;
    let states: Vec<_> = opened
        .iter_mut()
        .map(|(_, o)| Mutex::new(o.symbols.take()))
        .collect();
    let quantizer = |i: usize| frames[i].header.quantizer;
    let mut clock = Clock::start();
    let key = opened.iter().any(|(_, o)| o.motion.is_none());
    let mut batch = if key {
        let quantizers: Vec<u8> = opened.iter().map(|(i, _)| quantizer(*i)).collect();
        model.key_batch(grid, &quantizers)?
    } else {
        let items: Vec<InterItem> = opened
            .iter()
            .map(|(i, o)| InterItem {
                quantizer: quantizer(*i),
                p: &o.p,
                d: &o.d,
            })
            .collect();
        model.inter_batch(grid, &items)?
    };
    for (n, (_, o)) in opened.iter().enumerate() {
        if o.map.is_some() {
            batch.raise_scales(n, HEADROOM);
        }
    }
    let z: Vec<&[i8]> = opened.iter().map(|(_, o)| &o.z[..]).collect();
    let prior = batch.prior(&z, cancel)?;
    clock.lap(&mut times.prior);
    let tables = model.tables(batch.kind());
    let steps: Vec<Quantisation> = opened
        .iter()
        .map(|(i, o)| Quantisation::new(tables, quantizer(*i), o.map.as_ref()))
        .collect();
    let decoded = parallel::map(threads, opened.len(), |n| {
        let (_, o) = &opened[n];
        // Each state is taken by one worker.
        let mut state = states[n]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or("its state was taken twice")?;
        let with_map = steps[n].scales(prior.scale_idx(n));
        let scales = with_map.as_deref().unwrap_or(prior.scale_idx(n));
        let symbols = state
            .decode_y(&o.payload.y, scales)
            .map_err(|e| e.to_string())?;
        Ok::<_, String>((symbols, state))
    });
    clock.lap(&mut times.entropy);
    let decoded: Vec<std::result::Result<_, String>> = (decoded.into_iter().zip(&steps))
        .map(|(decoded, steps)| {
            let (symbols, state) = decoded?;
            let mut r = tensors.take(grid.y_len());
            dequantise_sparse(&symbols, steps, &mut r);
            Ok((r, state))
        })
        .collect();
    clock.lap(&mut times.quantise);
    // A damaged frame stays in the batch, with nothing to add to its prediction, and is thrown away
    // afterwards.
    let nothing = if decoded.iter().any(Result::is_err) {
        vec![0; grid.y_len()]
    } else {
        Vec::new()
    };
    let r: Vec<&[i16]> = decoded
        .iter()
        .map(|d| d.as_ref().map_or(&nothing[..], |d| &d.0[..]))
        .collect();
    let pictures = batch.synthesise(&prior, &r, cancel)?;
    clock.lap(&mut times.synth);
    let unpacked = parallel::map(threads, opened.len(), |n| {
        let mut picture = Picture::new(sequence.header.width, sequence.header.height)?;
        picture.unpack(pictures.get(n))?;
        if let Some(ink) = &opened[n].1.ink {
            ink.apply(&mut picture);
        }
        Ok::<_, CodecError>(Arc::new(picture))
    });
    clock.lap(&mut times.pack);
    drop(r);
    drop(batch);
    opened
        .into_iter()
        .zip(decoded)
        .zip(unpacked)
        .map(|(((i, o), decoded), picture)| {
            let picture = picture?;
            tensors.give_back(o.p);
            tensors.give_back(o.d);
            let outcome = decoded
                .map(|(r, symbols)| {
                    tensors.give_back(r);
                    let (contexts, field) = o
                        .motion
                        .map(|(motion, field)| {
                            (Arc::new(Contexts { symbols, motion }), Arc::new(field))
                        })
                        .unzip();
                    Reference {
                        picture,
                        level: frames[i].header.level,
                        contexts,
                        field,
                    }
                })
                .map_err(|why| format!("frame {}: {why}", frames[i].header.poc));
            Ok((i, outcome))
        })
        .collect()
}

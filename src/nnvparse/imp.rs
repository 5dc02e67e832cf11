// SPDX-License-Identifier: MPL-2.0

use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use gst::glib;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;

use crate::common::{self, lock, metadata};
use nnv_bitstream::StreamInfo;
use nnv_bitstream::index::{Index, KeyFrame, Progress, Timeline};
use nnv_bitstream::unit::MIN_UNIT;
use nnv_bitstream::{
    AccessUnitScan, AccessUnitScanner, BitstreamError, FrameHeader, FrameType, Scan,
    SequenceHeader, StreamMetadata, UnitScanner, UnitType,
};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnvparse",
        gst::DebugColorFlags::empty(),
        Some("NNV stream parser"),
    )
});

/// How long the start of a file may wait for its index; the rest follows with the first seek.
const INDEX_TIME: Duration = Duration::from_millis(300);
/// Most bytes passed over at once: the base class takes two MiB without a frame for a stream of
/// another kind.
const MAX_SKIP: usize = 1 << 20;
/// Up to this many ns beyond what has flowed by, all up to there is read: such seeks are exact.
const NEAR: u64 = 20_000_000_000;
/// How much too early an estimated seek aims, in ns, beside an eighth of the way: about a group.
const EARLIER: u64 = 1_000_000_000;
/// So long the end of a unit is awaited where data come as they are made, before it is asked if
/// a later unit is there already: the length may be damaged.
const LIVE_PATIENCE: Duration = Duration::from_millis(100);
/// Frames between two estimates of the duration of what is pushed.
const ESTIMATE_EVERY: u32 = 10;

#[derive(Default)]
struct State {
    scanner: AccessUnitScanner,
    /// The sequence header in force, and its unit.
    header: Option<(SequenceHeader, Vec<u8>)>,
    /// What the last key frame says about the stream.
    metadata: StreamMetadata,
    /// Tags from upstream: a container knows better.
    tags: Option<gst::TagList>,
    timeline: Timeline,
    /// Where the key frame is that the timeline has passed last.
    timeline_key: Option<u64>,
    /// Frames of the group so far and the time of its first, for decoding times.
    group: Option<(u64, u64)>,
    last_dts: u64,
    /// Upstream gives the times.
    upstream_time: bool,
    /// Damage that was passed over: where it began, bytes.
    skipped: Option<(u64, u64)>,
    /// Why the last sequence header cannot be used.
    unusable: Option<BitstreamError>,
    /// A frame went out, or an error told that none will.
    answered: bool,
    /// A file whose index was begun.
    index_begun: bool,
    /// Data are pushed from a new place: nothing is of use before a key frame.
    jumped: bool,
    /// The times of key frames are known, not estimated.
    exact: bool,
    /// Key frames of what is pushed are worth remembering: upstream can go back to them.
    seekable: Option<bool>,
    /// The last seek of what is pushed: whether only key frames are wanted from then on.
    seek: Option<(gst::Seqnum, bool)>,
    /// Only key frames are wanted of what is pushed.
    key_frames_only: bool,
    /// Data come as they are made; `None` before it was asked.
    live: Option<bool>,
    /// Since when the end of a unit is awaited, where data are live.
    awaited: Option<Instant>,
}

impl State {
    fn new() -> Self {
        Self {
            exact: true,
            ..Self::default()
        }
    }
}

pub struct NnvParse {
    state: Mutex<State>,
    /// Apart from `state`, because seeks use it while data flows.
    index: Mutex<Index>,
}

impl Default for NnvParse {
    fn default() -> Self {
        Self {
            state: Mutex::new(State::new()),
            index: Mutex::default(),
        }
    }
}

/// What stands at the beginning of the data.
enum Step {
    /// Damage.
    Skip(usize),
    /// A header that another one follows, as senders repeat them: nothing is lost.
    PassOver(usize),
    NeedMore(usize),
    Unit {
        len: usize,
        header: Option<Box<(SequenceHeader, Vec<u8>)>>,
        /// Of a key frame, where it says something else than the last one.
        metadata: Option<Box<StreamMetadata>>,
        frame: Box<FrameHeader>,
    },
    /// A sequence header of so many bytes that cannot be used.
    Unsupported(usize, BitstreamError),
}

#[glib::object_subclass]
impl ObjectSubclass for NnvParse {
    const NAME: &'static str = "GstNnvParse";
    type Type = super::NnvParse;
    type ParentType = gst_base::BaseParse;
}

impl ObjectImpl for NnvParse {
    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        // All times come from the stream or from upstream: nothing is to be guessed.
        obj.set_infer_ts(false);
        obj.set_pts_interpolation(false);
        const PUSHED: gst::PadProbeType = gst::PadProbeType::BUFFER.union(gst::PadProbeType::PUSH);
        let this = self.downgrade();
        obj.sink_pad().add_probe(PUSHED, move |_, _| {
            if let Some(this) = this.upgrade() {
                this.look_again();
            }
            gst::PadProbeReturn::Ok
        });
    }
}

impl GstObjectImpl for NnvParse {}

impl ElementImpl for NnvParse {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "NNV stream parser",
                "Codec/Parser/Converter/Video",
                "Cuts NNV streams into access units, finds key frames for seeking, passes over \
                 damage",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let mut any = gst::Caps::new_empty_simple(common::MEDIA_TYPE);
            // As qtdemux calls what it finds in the sample entry `nnv1`.
            any.merge(gst::Caps::new_empty_simple("video/x-gst-fourcc-nnv1"));
            common::templates(&any, &common::parsed_caps())
        });
        &TEMPLATES
    }
}

impl BaseParseImpl for NnvParse {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = State::new();
        *lock(&self.index) = Index::default();
        self.obj().set_min_frame_size(MIN_UNIT as u32);
        self.obj()
            .set_duration(gst::ClockTime::NONE, ESTIMATE_EVERY);
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = State::new();
        *lock(&self.index) = Index::default();
        Ok(())
    }

    fn set_sink_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        // Streams that are joined in the middle have their header here.
        let header = caps
            .structure(0)
            .map(common::stream_header_of)
            .unwrap_or_default();
        if let Scan::Unit(unit) = UnitScanner::unknown_pictures().scan(&header, true)
            && unit.kind == UnitType::Sequence
            && let Ok(parsed) = SequenceHeader::parse(unit.payload)
        {
            let unit = header[..unit.len].to_vec();
            self.set_header(parsed, unit)
                .map_err(|e| gst::loggable_error!(CAT, "The stream is not taken: {e}"))?;
        }
        Ok(())
    }

    fn handle_frame(
        &self,
        mut frame: gst_base::BaseParseFrame,
    ) -> Result<(gst::FlowSuccess, u32), gst::FlowError> {
        let obj = self.obj();
        self.begin_index()?;
        let offset = frame.offset();
        let at_end = obj.is_draining();
        let (step, size) = {
            let buffer = frame.buffer().ok_or(gst::FlowError::Error)?;
            let data = buffer.map_readable().map_err(|e| {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::Read,
                    ("Data at byte {offset} cannot be read: {e}")
                );
                gst::FlowError::Error
            })?;
            (self.step(offset, &data, at_end), data.len())
        };
        match step {
            Step::NeedMore(needed) => {
                self.wait_for(needed);
                Ok((gst::FlowSuccess::Ok, 0))
            }
            Step::Skip(len) => {
                let len = len.min(MAX_SKIP);
                self.pass_over(offset, len);
                self.at_file_end(at_end && len == size)?;
                Ok((gst::FlowSuccess::Ok, len as u32))
            }
            Step::PassOver(len) => {
                obj.set_min_frame_size(MIN_UNIT as u32);
                Ok((gst::FlowSuccess::Ok, len as u32))
            }
            Step::Unsupported(len, error) => {
                self.refuse_header(offset, error);
                self.pass_over(offset, len);
                self.at_file_end(at_end && len == size)?;
                Ok((gst::FlowSuccess::Ok, len as u32))
            }
            Step::Unit {
                len,
                header,
                metadata,
                frame: facts,
            } => {
                obj.set_min_frame_size(MIN_UNIT as u32);
                let changed = metadata.is_some();
                if let Some(metadata) = metadata {
                    lock(&self.state).metadata = *metadata;
                }
                if let Some(header) = header {
                    let (parsed, unit) = *header;
                    self.set_header(parsed, unit)?;
                } else if lock(&self.state).header.is_none() {
                    gst::info!(
                        CAT,
                        imp = self,
                        "Frame at byte {offset} has no sequence header"
                    );
                    self.pass_over(offset, len);
                    self.at_file_end(at_end && len == size)?;
                    return Ok((gst::FlowSuccess::Ok, len as u32));
                } else if changed {
                    self.tell_stream()?;
                }
                self.report_damage();
                if !facts.is_key() && !self.wants_all_frames() {
                    if let Some(distance) = self.next_key_frame(offset) {
                        return Ok((gst::FlowSuccess::Ok, distance));
                    }
                    frame.set_flags(gst_base::BaseParseFrameFlags::DROP);
                    obj.finish_frame(frame, len as u32)?;
                    return Ok((gst::FlowSuccess::Ok, 0));
                }
                lock(&self.state).answered = true;
                let buffer = frame.buffer_mut().ok_or(gst::FlowError::Error)?;
                self.stamp(buffer, &facts, offset);
                gst::log!(
                    CAT,
                    imp = self,
                    "{:?} {} at byte {offset}, {len} bytes, {:?}",
                    facts.frame_type,
                    facts.poc,
                    buffer.pts()
                );
                obj.finish_frame(frame, len as u32)?;
                Ok((gst::FlowSuccess::Ok, 0))
            }
        }
    }

    fn pre_push_frame(
        &self,
        frame: &mut gst_base::BaseParseFrame,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        // The base class would clip to the segment, but frames outside of it are references:
        // decoders clip. Backwards it waits to hear that a piece of the file is read to the end of
        // the segment; behind a key frame there, nothing belongs into it any more.
        let segment = self.obj().segment();
        if segment.rate() < 0.0
            && let Some(segment) = segment.downcast_ref::<gst::ClockTime>()
            && let Some(buffer) = frame.buffer()
            && !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT)
            && buffer
                .pts()
                .zip(segment.stop())
                .is_some_and(|(pts, stop)| pts >= stop)
            && self.is_file()
        {
            return Err(gst::FlowError::Eos);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(segment) => {
                let bytes = segment.segment().downcast_ref::<gst::format::Bytes>();
                let time = segment.segment().format() == gst::Format::Time;
                // A segment of upstream's bytes loses what was asked for.
                let state = &mut *lock(&self.state);
                state.upstream_time = time;
                state.live = None;
                state.awaited = None;
                state.key_frames_only = state
                    .seek
                    .is_some_and(|(number, key_frames)| key_frames && number == event.seqnum());
                let from_start =
                    bytes.is_some_and(|s| s.time().unwrap_or_default() == gst::format::Bytes::ZERO);
                state.jumped = bytes.is_some() && !from_start;
            }
            gst::EventView::StreamStart(_) => lock(&self.state).tags = None,
            gst::EventView::Tag(event) => {
                let mut state = lock(&self.state);
                let mode = gst::TagMergeMode::Replace;
                state.tags = Some(match &state.tags {
                    Some(tags) => tags.merge(event.tag(), mode),
                    None => event.tag_owned(),
                });
            }
            gst::EventView::FlushStop(_) => {
                let mut state = lock(&self.state);
                state.group = None;
                state.last_dts = 0;
                state.skipped = None;
            }
            gst::EventView::Eos(_) => {
                self.report_damage();
                if let Err(error) = self.at_file_end(true) {
                    gst::debug!(CAT, imp = self, "No frame before the end: {error}");
                }
            }
            _ => {}
        }
        let kind = event.type_();
        let handled = self.parent_sink_event(event);
        // Only now is what came before the event taken apart.
        if matches!(kind, gst::EventType::Segment | gst::EventType::FlushStop) {
            lock(&self.state).scanner.restart();
        }
        handled
    }

    fn src_event(&self, event: gst::Event) -> bool {
        // A container's demuxer knows better where its key frames are.
        if let gst::EventView::Seek(seek) = event.view()
            && !lock(&self.state).upstream_time
        {
            let event = self.exact_seek(seek).unwrap_or_else(|| event.clone());
            return self.parent_src_event(event);
        }
        self.parent_src_event(event)
    }
}

impl NnvParse {
    fn step(&self, offset: u64, data: &[u8], end: bool) -> Step {
        let state = &mut *lock(&self.state);
        match state.scanner.scan(offset, data, end) {
            AccessUnitScan::Unit(unit) => {
                let known = state.header.as_ref().map(|(_, unit)| unit.as_slice());
                let header = unit.sequence.zip(unit.sequence_unit);
                let metadata = unit
                    .frame
                    .is_key()
                    .then(|| StreamMetadata::of_access_unit(&data[..unit.len]).unwrap_or_default());
                Step::Unit {
                    metadata: metadata
                        .filter(|metadata| *metadata != state.metadata)
                        .map(Box::new),
                    len: unit.len,
                    // A header that only repeats what is known changes nothing.
                    header: header
                        .map(|(header, range)| (header, &data[range]))
                        .filter(|(_, unit)| known != Some(unit))
                        .map(|(header, unit)| Box::new((header, unit.to_vec()))),
                    frame: Box::new(unit.frame),
                }
            }
            AccessUnitScan::Repeated(len) => Step::PassOver(len),
            AccessUnitScan::Skip(len) => Step::Skip(len),
            AccessUnitScan::NeedMore(size) => Step::NeedMore(size),
            AccessUnitScan::Unsupported(len, error) => Step::Unsupported(len, error),
            AccessUnitScan::End => Step::Skip(data.len()),
        }
    }

    /// Has the base class come back when there are so many bytes. Where data are live, time counts
    /// too: see [`look_again`](Self::look_again).
    fn wait_for(&self, needed: usize) {
        let live = lock(&self.state).live;
        let live = live.unwrap_or_else(|| self.is_live());
        let state = &mut *lock(&self.state);
        state.live = Some(live);
        state.awaited = live.then(Instant::now);
        self.obj()
            .set_min_frame_size(u32::try_from(needed).unwrap_or(u32::MAX));
    }

    /// Has the base class come back with the data that just arrive, where the end of a unit was
    /// awaited for too long.
    fn look_again(&self) {
        let awaited = &mut lock(&self.state).awaited;
        if awaited.is_some_and(|since| since.elapsed() >= LIVE_PATIENCE) {
            *awaited = None;
            self.obj().set_min_frame_size(MIN_UNIT as u32);
        }
    }

    fn is_live(&self) -> bool {
        let mut query = gst::query::Latency::new();
        self.obj().sink_pad().peer_query(&mut query) && query.result().0
    }

    /// Whether not only key frames are to go out.
    fn wants_all_frames(&self) -> bool {
        let flags = self.obj().segment().flags();
        let state = lock(&self.state);
        !state.jumped
            && !state.key_frames_only
            && !flags.contains(gst::SegmentFlags::TRICKMODE_KEY_UNITS)
    }

    /// How many bytes after `offset` a file's next key frame begins. Backwards the base class goes
    /// from piece to piece, and would not take so many.
    fn next_key_frame(&self, offset: u64) -> Option<u32> {
        if !self.is_file() || self.obj().segment().rate() < 0.0 {
            return None;
        }
        let next = lock(&self.index).after_offset(offset)?.offset;
        u32::try_from(next - offset)
            .ok()
            .filter(|distance| *distance <= i32::MAX as u32)
    }

    fn set_header(&self, header: SequenceHeader, unit: Vec<u8>) -> Result<(), gst::FlowError> {
        {
            let mut state = lock(&self.state);
            state.scanner.set_pictures(header.width, header.height);
            state.timeline.set_rate(header.frame_rate);
            state.header = Some((header, unit));
            state.unusable = None;
        }
        self.tell_stream()
    }

    /// Sends caps and tags downstream, as headers and metadata say.
    fn tell_stream(&self) -> Result<(), gst::FlowError> {
        let obj = self.obj();
        let level = lock(&self.state).header.as_ref().map(|(h, _)| h.level());
        let Some(level) = level else { return Ok(()) };
        // No lock is held: downstream may ask back.
        let level = common::accepted_level(obj.src_pad(), level).map_err(|what| {
            gst::element_imp_error!(self, gst::CoreError::Negotiation, ("{what}"));
            gst::FlowError::NotNegotiated
        })?;
        let (caps, mut tags) = {
            let state = lock(&self.state);
            let Some((header, unit)) = &state.header else {
                return Ok(());
            };
            let mut caps = common::stream_caps(&StreamInfo::from_header(header), level, unit);
            metadata::restore_caps(&state.metadata, caps.make_mut());
            let tags = metadata::tags_of(&state.metadata, state.tags.as_deref());
            (caps, tags)
        };
        gst::debug!(CAT, imp = self, "New header: {caps}, tags {tags}");
        let codec = &"NNV neural video";
        let mode = gst::TagMergeMode::Append;
        let list = tags.make_mut();
        list.add::<gst::tags::VideoCodec>(codec, mode);
        // The base class says it of what has flowed by, which is nothing yet.
        if let Some(bitrate) = self.bitrate() {
            list.add::<gst::tags::Bitrate>(&bitrate, mode);
        }
        obj.merge_tags(Some(&tags), gst::TagMergeMode::Replace);
        obj.src_pad().push_event(gst::event::Caps::new(&caps));
        Ok(())
    }

    /// Bits per second of a file whose index is known.
    fn bitrate(&self) -> Option<u32> {
        if !self.is_file() {
            return None;
        }
        let duration = lock(&self.index).duration().filter(|ns| *ns > 0)?;
        let bytes = self
            .obj()
            .sink_pad()
            .peer_query_duration::<gst::format::Bytes>()?;
        let bits = u128::from(*bytes) * 8 * 1_000_000_000 / u128::from(duration);
        u32::try_from(bits).ok()
    }

    /// Times and flags of an access unit.
    fn stamp(&self, buffer: &mut gst::BufferRef, frame: &FrameHeader, offset: u64) {
        if frame.is_key() {
            self.learn_seekable();
        }
        let state = &mut *lock(&self.state);
        if frame.is_key() {
            buffer.unset_flags(gst::BufferFlags::DELTA_UNIT);
        } else {
            buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        if !frame.keep {
            buffer.set_flags(gst::BufferFlags::DROPPABLE);
        }
        if state.upstream_time {
            return;
        }
        let mut index = lock(&self.index);
        let group = index.before_offset(offset);
        let known = group.is_some();
        let mut times = None;
        if std::mem::take(&mut state.jumped) && group.is_none_or(|key| key.offset != offset) {
            // Nothing is known of the place: times of the stream are right, others an estimate.
            if let Some(key) = group {
                state.timeline = key.after.clone();
                state.timeline_key = Some(key.offset);
            }
            let estimate = self.obj().segment();
            let estimate = estimate.downcast_ref::<gst::ClockTime>();
            let estimate = estimate.and_then(|segment| segment.start());
            state
                .timeline
                .jump_to(estimate.map_or(0, |time| time.nseconds()));
            state.exact = false;
            let rate = state.header.as_ref().map(|(header, _)| header.frame_rate);
            rate.into_iter()
                .for_each(|rate| state.timeline.set_rate(rate));
        } else if let Some(key) = group
            && (key.offset == offset || state.exact && state.timeline_key != Some(key.offset))
        {
            // After a seek, and backwards, times go on from what the file's beginning says.
            state.timeline = key.after.clone();
            state.timeline_key = Some(key.offset);
            state.exact = true;
            if key.offset == offset {
                times = Some(key.after.times_of_key(frame, key.pts));
            }
        }
        let times = times.unwrap_or_else(|| state.timeline.times(frame));
        if frame.is_key() && state.timeline_key != Some(offset) {
            state.timeline_key = Some(offset);
            // A key frame that carries its time is in its place again after a jump.
            let exact = state.exact || known && frame.pts.is_some();
            if exact
                && let Some(pts) = times.pts
                && state.seekable == Some(true)
            {
                let key = KeyFrame {
                    offset,
                    pts,
                    after: state.timeline.clone(),
                };
                if index.add(key) {
                    state.exact = true;
                    // The base class also adds entries of its own, but not for the very first
                    // frame.
                    let pts = gst::ClockTime::from_nseconds(pts);
                    self.obj().add_index_entry(offset, pts, true, true);
                }
            }
        }
        drop(index);
        buffer.set_pts(times.pts.map(gst::ClockTime::from_nseconds));
        buffer.set_duration(times.duration.map(gst::ClockTime::from_nseconds));
        buffer.set_dts(
            state
                .dts(frame, times.pts)
                .map(gst::ClockTime::from_nseconds),
        );
    }

    /// Notes bytes without a frame that can be used.
    fn pass_over(&self, offset: u64, len: usize) {
        let obj = self.obj();
        obj.set_min_frame_size(MIN_UNIT as u32);
        // Backwards, pieces of a file begin within units: they are put together later.
        if obj.segment().rate() >= 0.0 {
            let mut state = lock(&self.state);
            // Neither are the frames before the first key frame of a new place damage.
            if !state.jumped {
                let (_, bytes) = state.skipped.get_or_insert((offset, 0));
                *bytes += len as u64;
            }
        }
    }

    /// Tells, once, of a sequence header that cannot be used: until the next one that can, nothing
    /// can be decoded.
    fn refuse_header(&self, offset: u64, error: BitstreamError) {
        let mut state = lock(&self.state);
        state.header = None;
        let known = state.unusable.as_ref() == Some(&error);
        state.unusable = Some(error.clone());
        drop(state);
        let what = match error {
            BitstreamError::Critical(_) | BitstreamError::Extension(_) => "What begins",
            _ => "Sequence header",
        };
        if !known {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("{what} at byte {offset} cannot be used: {error}. Frames are passed over until a \
                  sequence header follows that can")
            );
        }
    }

    /// The end of a stream is the last occasion to tell of damage, and of headers when all of them
    /// were unusable.
    fn at_file_end(&self, is_end: bool) -> Result<(), gst::FlowError> {
        if !is_end {
            return Ok(());
        }
        let mut state = lock(&self.state);
        let error = state.unusable.clone();
        let error = error.filter(|_| !std::mem::replace(&mut state.answered, true));
        drop(state);
        let Some(error) = error else {
            self.report_damage();
            return Ok(());
        };
        gst::element_imp_error!(
            self,
            gst::StreamError::Format,
            ("No sequence header of the stream can be used: {error}")
        );
        Err(gst::FlowError::Error)
    }

    fn report_damage(&self) {
        let Some((offset, bytes)) = lock(&self.state).skipped.take() else {
            return;
        };
        gst::element_imp_warning!(
            self,
            gst::StreamError::Decode,
            ("Passed over {bytes} bytes at byte {offset} that hold no sound access unit: the \
                 stream is damaged there or was cut")
        );
    }

    /// Learns whether key frames are worth noting. No lock is held: upstream may ask back.
    fn learn_seekable(&self) {
        let known = {
            let state = lock(&self.state);
            state.upstream_time || state.seekable.is_some()
        };
        if !known {
            let seekable = self.can_go_back();
            lock(&self.state).seekable = Some(seekable);
        }
    }

    /// Whether upstream can be sent back to a key frame.
    fn can_go_back(&self) -> bool {
        if self.is_file() {
            return true;
        }
        let mut query = gst::query::Seeking::new(gst::Format::Bytes);
        self.obj().sink_pad().peer_query(&mut query) && query.result().0
    }

    fn is_file(&self) -> bool {
        self.obj().sink_pad().mode() == gst::PadMode::Pull
    }

    /// Reads the index of a file before its first frame, as far as that is quickly done.
    fn begin_index(&self) -> Result<(), gst::FlowError> {
        if std::mem::replace(&mut lock(&self.state).index_begun, true) || !self.is_file() {
            return Ok(());
        }
        self.scan_index(Some(Instant::now() + INDEX_TIME))
    }

    /// Reads (more of) the index of a file.
    fn scan_index(&self, deadline: Option<Instant>) -> Result<(), gst::FlowError> {
        let obj = self.obj();
        let pad = obj.sink_pad();
        let mut index = lock(&self.index);
        if index.is_complete() {
            return Ok(());
        }
        let started = Instant::now();
        let known = index.keys().len();
        let progress = index.scan(deadline, |offset, size| {
            match pad.pull_range(offset, size as u32) {
                Ok(buffer) => Ok(buffer
                    .map_readable()
                    .map(|m| m.to_vec())
                    .unwrap_or_default()),
                Err(gst::FlowError::Eos) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        })?;
        let keys: Vec<_> = index.keys()[known..]
            .iter()
            .map(|key| (key.offset, key.pts))
            .collect();
        let duration = index.duration();
        drop(index);
        gst::debug!(
            CAT,
            imp = self,
            "{} more key frames in {:?}, {progress:?}",
            keys.len(),
            started.elapsed()
        );
        for (offset, pts) in keys {
            obj.add_index_entry(offset, gst::ClockTime::from_nseconds(pts), true, true);
        }
        if let (Progress::Complete, Some(duration)) = (progress, duration) {
            obj.set_duration(gst::ClockTime::from_nseconds(duration), 0);
        }
        Ok(())
    }

    /// The same seek, but exact: the base class would estimate the byte from the average rate.
    fn exact_seek(&self, seek: &gst::event::Seek) -> Option<gst::Event> {
        let (rate, mut flags, start_type, start, stop_type, stop) = seek.get();
        let start = match start {
            gst::GenericFormattedValue::Time(time) => time,
            _ => return None,
        };
        let stop: Option<gst::ClockTime> = match stop {
            gst::GenericFormattedValue::Time(time) => time,
            _ => None,
        };
        if !self.is_file() {
            let key_frames = flags.contains(gst::SeekFlags::TRICKMODE_KEY_UNITS);
            lock(&self.state).seek = Some((seek.seqnum(), key_frames));
            // Far beyond what has flowed by, the base class estimates the byte.
            let index = lock(&self.index);
            let known = start.and_then(|start| index.before(start.nseconds()));
            let known = known.map_or(0, |key| key.pts);
            let beyond = start.filter(|start| start.nseconds() > known.saturating_add(NEAR));
            if !flags.contains(gst::SeekFlags::ACCURATE)
                && let Some(start) = beyond
            {
                // Too early costs a moment, too late what was asked for.
                let distance = *start - known;
                let early = (distance / 8).saturating_add(EARLIER).min(distance);
                let start = gst::ClockTime::from_nseconds(*start - early);
                gst::debug!(CAT, imp = self, "Seek beyond what is known, to {start:?}");
                if rate < 0.0 || start_type != gst::SeekType::Set {
                    return None;
                }
                let event = gst::event::Seek::builder(
                    rate,
                    flags,
                    start_type,
                    Some(start),
                    stop_type,
                    stop,
                );
                return Some(event.seqnum(seek.seqnum()).build());
            }
        } else if self.scan_index(None).is_err() {
            gst::warning!(CAT, imp = self, "The file cannot be read to its end");
        }
        let mut target = start;
        if flags.contains(gst::SeekFlags::KEY_UNIT)
            && !flags.contains(gst::SeekFlags::ACCURATE)
            && rate > 0.0
            && start_type == gst::SeekType::Set
            && let Some(time) = start
        {
            let index = lock(&self.index);
            let (before, after) = (index.before(*time), index.after(*time));
            let snap_after = flags.contains(gst::SeekFlags::SNAP_AFTER);
            let snap_before = flags.contains(gst::SeekFlags::SNAP_BEFORE);
            let key = match (before, after) {
                // Both flags: the nearest.
                (Some(b), Some(a)) if snap_after && snap_before => {
                    Some(if *time - b.pts <= a.pts - *time { b } else { a })
                }
                (_, Some(after)) if snap_after => Some(after),
                (Some(before), _) => Some(before),
                (None, after) => after,
            };
            if let Some(key) = key {
                target = Some(gst::ClockTime::from_nseconds(key.pts));
            }
        }
        flags |= gst::SeekFlags::ACCURATE;
        flags.remove(gst::SeekFlags::KEY_UNIT | gst::SeekFlags::SNAP_NEAREST);
        gst::debug!(
            CAT,
            imp = self,
            "Seek to {start:?} becomes one to {target:?}"
        );
        Some(
            gst::event::Seek::builder(rate, flags, start_type, target, stop_type, stop)
                .seqnum(seek.seqnum())
                .build(),
        )
    }
}

impl State {
    /// Decoding time in ns: a frame's place in decoding order, as far ahead as frames are
    /// reordered. Only for known frame rates: otherwise it would take a look into the future.
    fn dts(&mut self, frame: &FrameHeader, pts: Option<u64>) -> Option<u64> {
        let (header, _) = self.header.as_ref()?;
        let reorder = u64::from(header.gop.max_reorder);
        let pts = pts?;
        let dts = if reorder == 0 {
            pts
        } else {
            if header.frame_rate.num == 0 {
                return None;
            }
            if frame.frame_type == FrameType::Key {
                self.group = Some((0, pts));
            }
            let (count, start) = self.group.as_mut()?;
            // A stream may state any rate and have any number of frames in a group.
            let (num, den) = (header.frame_rate.num, header.frame_rate.den);
            let step = |frames: u64| {
                let ns = u128::from(frames) * 1_000_000_000 * u128::from(den) / u128::from(num);
                u64::try_from(ns).unwrap_or(u64::MAX)
            };
            let dts = start
                .saturating_add(step(*count))
                .saturating_sub(step(reorder));
            *count += 1;
            dts
        };
        let dts = dts.max(self.last_dts).min(pts);
        self.last_dts = dts;
        Some(dts)
    }
}

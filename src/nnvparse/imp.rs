// SPDX-License-Identifier: MPL-2.0

use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use gst::glib;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;

use crate::common::{self, lock};
use nnv_bitstream::StreamInfo;
use nnv_bitstream::index::{Index, KeyFrame, Progress, Timeline};
use nnv_bitstream::unit::MIN_UNIT;
use nnv_bitstream::{
    AccessUnitScan, BitstreamError, FrameHeader, FrameType, Scan, SequenceHeader, UnitScanner,
    UnitType, scan_access_unit,
};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnvparse",
        gst::DebugColorFlags::empty(),
        Some("NNV stream parser"),
    )
});

/// Longest unit before anything is known of the pictures.
const FIRST_PAYLOAD: usize = 1 << 20;
/// How long the start of a file may wait for its index; the rest follows with the first seek.
const INDEX_TIME: Duration = Duration::from_millis(300);

struct State {
    scanner: UnitScanner,
    /// The sequence header in force, and its unit.
    header: Option<(SequenceHeader, Vec<u8>)>,
    timeline: Timeline,
    /// Frames of the group so far and the time of its first, for decoding times.
    group: Option<(u64, u64)>,
    last_dts: u64,
    /// Upstream gives the times.
    upstream_time: bool,
    /// Damage that was passed over: where it began, bytes.
    skipped: Option<(u64, u64)>,
    /// A file whose index was begun.
    index_begun: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            scanner: UnitScanner::with_max_payload(FIRST_PAYLOAD),
            header: None,
            timeline: Timeline::default(),
            group: None,
            last_dts: 0,
            upstream_time: false,
            skipped: None,
            index_begun: false,
        }
    }
}

impl State {
    /// Compressed pictures are smaller than raw ones; more than that is damage, and not worth the
    /// memory.
    fn limit(header: &SequenceHeader) -> UnitScanner {
        let samples = header.width as usize * header.height as usize;
        UnitScanner::with_max_payload(samples * 4 + FIRST_PAYLOAD)
    }
}

#[derive(Default)]
pub struct NnvParse {
    state: Mutex<State>,
    /// Apart from `state`, because seeks use it while data flows.
    index: Mutex<Index>,
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
        frame: Box<FrameHeader>,
    },
    Unsupported(BitstreamError),
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
        *lock(&self.state) = State::default();
        *lock(&self.index) = Index::default();
        self.obj().set_min_frame_size(MIN_UNIT as u32);
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = State::default();
        *lock(&self.index) = Index::default();
        Ok(())
    }

    fn set_sink_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        // Streams that are joined in the middle have their header here.
        let header = caps
            .structure(0)
            .map(common::stream_header_of)
            .unwrap_or_default();
        if let Scan::Unit(unit) = UnitScanner::with_max_payload(FIRST_PAYLOAD).scan(&header, true)
            && unit.kind == UnitType::Sequence
            && let Ok(parsed) = SequenceHeader::parse(unit.payload)
        {
            let unit = header[..unit.len].to_vec();
            self.set_header(parsed, unit);
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
            (self.step(&data, at_end), data.len())
        };
        match step {
            Step::NeedMore(size) => {
                obj.set_min_frame_size(u32::try_from(size).unwrap_or(u32::MAX));
                Ok((gst::FlowSuccess::Ok, 0))
            }
            Step::Skip(len) => {
                self.skipped(offset, len);
                if at_end && len == size {
                    // A file's end is no event: this is the last occasion to tell.
                    self.report_damage();
                }
                obj.set_min_frame_size(MIN_UNIT as u32);
                Ok((gst::FlowSuccess::Ok, len as u32))
            }
            Step::PassOver(len) => {
                obj.set_min_frame_size(MIN_UNIT as u32);
                Ok((gst::FlowSuccess::Ok, len as u32))
            }
            Step::Unsupported(error) => {
                gst::element_imp_error!(
                    self,
                    gst::StreamError::Format,
                    ("Sequence header at byte {offset} cannot be used: {error}")
                );
                Err(gst::FlowError::Error)
            }
            Step::Unit {
                len,
                header,
                frame: facts,
            } => {
                obj.set_min_frame_size(MIN_UNIT as u32);
                if let Some(header) = header {
                    let (parsed, unit) = *header;
                    self.set_header(parsed, unit);
                } else if lock(&self.state).header.is_none() {
                    gst::info!(
                        CAT,
                        imp = self,
                        "Frame at byte {offset} has no sequence header"
                    );
                    self.skipped(offset, len);
                    return Ok((gst::FlowSuccess::Ok, len as u32));
                }
                self.report_damage();
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
        _frame: &mut gst_base::BaseParseFrame,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        // The base class would clip to the segment, but frames outside of it are references:
        // decoders clip.
        Ok(gst::FlowSuccess::Ok)
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(segment) => {
                lock(&self.state).upstream_time = segment.segment().format() == gst::Format::Time;
            }
            gst::EventView::FlushStop(_) => {
                let mut state = lock(&self.state);
                state.group = None;
                state.last_dts = 0;
                state.skipped = None;
            }
            gst::EventView::Eos(_) => self.report_damage(),
            _ => {}
        }
        self.parent_sink_event(event)
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
    fn step(&self, data: &[u8], end: bool) -> Step {
        let state = &mut *lock(&self.state);
        // The limit for units follows the header of the very access unit it stands in.
        let mut header_len = None;
        if let Scan::Unit(unit) = state.scanner.scan(data, end)
            && unit.kind == UnitType::Sequence
            && let Ok(header) = SequenceHeader::parse(unit.payload)
        {
            state.scanner = State::limit(&header);
            header_len = Some(unit.len);
        }
        match scan_access_unit(&state.scanner, data, end) {
            AccessUnitScan::Unit(unit) => {
                let known = state.header.as_ref().map(|(_, unit)| unit.as_slice());
                let header = unit.sequence.zip(unit.sequence_unit);
                Step::Unit {
                    len: unit.len,
                    // A header that only repeats what is known changes nothing.
                    header: header
                        .map(|(header, range)| (header, &data[range]))
                        .filter(|(_, unit)| known != Some(unit))
                        .map(|(header, unit)| Box::new((header, unit.to_vec()))),
                    frame: Box::new(unit.frame),
                }
            }
            AccessUnitScan::Skip(len) if header_len == Some(len) => Step::PassOver(len),
            AccessUnitScan::Skip(len) => Step::Skip(len),
            AccessUnitScan::NeedMore(size) => Step::NeedMore(size),
            AccessUnitScan::Unsupported(_, error) => Step::Unsupported(error),
            AccessUnitScan::End => Step::Skip(data.len()),
        }
    }

    fn set_header(&self, header: SequenceHeader, unit: Vec<u8>) {
        let caps = common::stream_caps(&StreamInfo::from_header(&header), &unit);
        gst::debug!(CAT, imp = self, "New header: {caps}");
        {
            let mut state = lock(&self.state);
            state.scanner = State::limit(&header);
            state.timeline.set_rate(header.frame_rate);
            state.header = Some((header, unit));
        }
        let obj = self.obj();
        let mut tags = gst::TagList::new();
        if let Some(tags) = tags.get_mut() {
            tags.add::<gst::tags::VideoCodec>(&"NNV neural video", gst::TagMergeMode::Append);
        }
        obj.merge_tags(Some(&tags), gst::TagMergeMode::Replace);
        obj.src_pad().push_event(gst::event::Caps::new(&caps));
    }

    /// Times and flags of an access unit.
    fn stamp(&self, buffer: &mut gst::BufferRef, frame: &FrameHeader, offset: u64) {
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
        if frame.is_key() {
            let mut index = lock(&self.index);
            if let Some(key) = index.at_offset(offset) {
                // After a seek, times go on from what the file's beginning says.
                let rate = state.header.as_ref().map(|(header, _)| header.frame_rate);
                state.timeline = key.before.clone();
                if let Some(rate) = rate {
                    state.timeline.set_rate(rate);
                }
            } else {
                let before = state.timeline.clone();
                if let Some(pts) = before.clone().times(frame).pts {
                    let new = index.add(KeyFrame {
                        offset,
                        pts,
                        before,
                    });
                    drop(index);
                    if new {
                        // The base class also adds entries of its own, but not for the very first
                        // frame.
                        let pts = gst::ClockTime::from_nseconds(pts);
                        self.obj().add_index_entry(offset, pts, true, true);
                    }
                }
            }
        }
        let times = state.timeline.times(frame);
        buffer.set_pts(times.pts.map(gst::ClockTime::from_nseconds));
        buffer.set_duration(times.duration.map(gst::ClockTime::from_nseconds));
        buffer.set_dts(
            state
                .dts(frame, times.pts)
                .map(gst::ClockTime::from_nseconds),
        );
    }

    fn skipped(&self, offset: u64, len: usize) {
        let mut state = lock(&self.state);
        let (_, bytes) = state.skipped.get_or_insert((offset, 0));
        *bytes += len as u64;
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
        if self.is_file() && self.scan_index(None).is_err() {
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
        let stop: Option<gst::ClockTime> = match stop {
            gst::GenericFormattedValue::Time(time) => time,
            _ => None,
        };
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
            let step = |frames: u64| {
                frames * 1_000_000_000 * u64::from(header.frame_rate.den)
                    / u64::from(header.frame_rate.num)
            };
            let dts = (*start + step(*count)).saturating_sub(step(reorder));
            *count += 1;
            dts
        };
        let dts = dts.max(self.last_dts).min(pts);
        self.last_dts = dts;
        Some(dts)
    }
}

// SPDX-License-Identifier: MPL-2.0

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use gst::glib;
use gst::subclass::prelude::*;
use gst_video::prelude::*;
use gst_video::subclass::prelude::*;

use super::load::{self, Arrival, Load, Verdict};
use super::losses::Losses;
use super::metadata::Metadata;
use super::quality;
use super::regions;
use super::settings::{self, Pass, RateControl, Settings, SpeedControl};
use super::times::{DtsClock, SHIFT, Timeline, reorder_depth};
use super::two_pass::{self, FirstPass};
use crate::common::{self, CodecElement, Shown, Taken, lock};
use nnv_bitstream::FrameType;
use nnv_bitstream::limits::MAX_QUANTIZER;
use nnv_codec::config;
use nnv_codec::encode::{EncodedFrame, Encoder, InputFrame, OutOfReach};
use nnv_codec::error::CodecError;
use nnv_format::picture::{Picture, RawFormat};
use nnv_nn::{Cancel, Model};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnvenc",
        gst::DebugColorFlags::empty(),
        Some("NNV video encoder"),
    )
});

struct State {
    encoder: Encoder,
    info: gst_video::VideoInfo,
    format: RawFormat,
    /// Caps of the input.
    caps: Option<gst::Caps>,
    dts: DtsClock,
    load: Load,
    /// Frames come in real time: what is late has waited.
    live: bool,
    first_pass: Option<FirstPass>,
    /// When the frame came, by the clock that says how late it is.
    came: Option<gst::ClockTime>,
    /// Both passes have to see the same frames.
    two_passes: bool,
    /// Running times of the frames inside the encoder, by number.
    running: HashMap<u64, gst::ClockTime>,
}

/// Format of the input as the base class hands it over.
type Input = gst_video::VideoCodecState<'static, gst_video::video_codec_state::Readable>;

#[derive(Default)]
pub struct NnvEnc {
    settings: Mutex<Settings>,
    model: Mutex<Option<Arc<Model>>>,
    state: Mutex<Option<State>>,
    /// A format that takes effect with its first frame.
    pending: Mutex<Option<Input>>,
    /// Caps that were refused last.
    refused: Mutex<Option<gst::Caps>>,
    timeline: Mutex<Timeline>,
    totals: Mutex<Totals>,
    shown: Mutex<Shown>,
    /// Aborts the encoder from other threads; outside of `state`, which is taken while encoding.
    cancel: Mutex<Option<Cancel>>,
    /// A rate property was set since the encoder last heard of it.
    rate_changed: AtomicBool,
    /// The application was told of properties that contradict each other.
    warned: AtomicBool,
    /// Times are shifted, for frames that are reordered.
    shifted: AtomicBool,
    /// Running time in s of the first frame that a sink would still show in time; apart from
    /// `state`, which is taken while encoding.
    earliest: Mutex<Option<f64>>,
    /// The application has set `qos` itself.
    qos_set: AtomicBool,
    /// Requests for key frames that wait for the first unit; `None` where they need not.
    requests: Mutex<Option<Vec<Request>>>,
    metadata: Metadata,
    /// What receivers say of losses.
    losses: Losses,
}

/// A request for a key frame.
///
/// Until the first unit leaves with the shifted segment, the base class compares the time of a
/// request with unshifted ones: it would honour one for later at once, and none ever after.
enum Request {
    Upstream(gst::Event),
    Downstream(gst::Event),
}

/// Statistics over all encoders since the element started.
#[derive(Debug, Default)]
struct Totals {
    frames: u64,
    /// Left out.
    dropped: u64,
    keys: u64,
    repeats: u64,
    recoveries: u64,
    inked: u64,
    bytes: u64,
    quantizers: u64,
    samples: u64,
    busy: Duration,
    times: nnv_codec::stages::StageTimes,
}

#[glib::object_subclass]
impl ObjectSubclass for NnvEnc {
    const NAME: &'static str = "GstNnvEnc";
    type Type = super::NnvEnc;
    type ParentType = gst_video::VideoEncoder;
    type Interfaces = (gst::Preset,);
}

impl PresetImpl for NnvEnc {}

impl ObjectImpl for NnvEnc {
    fn constructed(&self) {
        self.parent_constructed();
        // A property of the base class, which keeps no record of who set it.
        self.obj().connect_notify(Some("qos"), |obj, _| {
            obj.imp().qos_set.store(true, Ordering::Release);
        });
    }

    fn properties() -> &'static [glib::ParamSpec] {
        Settings::specs()
    }

    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !self.settings().set(value, pspec) {
            unreachable!("property {} (id {id}) is not one of nnvenc", pspec.name());
        }
        if settings::RATES.contains(&pspec.name()) {
            self.rate_changed.store(true, Ordering::Release);
        }
    }

    fn property(&self, id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let value = self.settings().get(pspec);
        value
            .or_else(|| self.shown_property(pspec))
            .unwrap_or_else(|| {
                unreachable!("property {} (id {id}) is not one of nnvenc", pspec.name())
            })
    }
}

impl CodecElement for NnvEnc {
    const CODING: gst::StreamError = gst::StreamError::Encode;
    const STATS: &'static str = "application/x-nnvenc-stats";

    fn shown(&self) -> &Mutex<Shown> {
        &self.shown
    }

    fn cancel(&self) -> &Mutex<Option<Cancel>> {
        &self.cancel
    }
}

impl GstObjectImpl for NnvEnc {}

impl ElementImpl for NnvEnc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "NNV video encoder",
                "Codec/Encoder/Video",
                "Encodes video with learned networks into NNV, which decodes to the same pixels \
                 on every machine",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| common::templates(&common::raw_caps(), &common::parsed_caps()));
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            // Not in `start`: the base class would post a second error that says less.
            gst::StateChange::ReadyToPaused => self.load()?,
            // The pads wait for the streaming thread, which may be inside a network.
            gst::StateChange::PausedToReady => self.abort(),
            _ => {}
        }
        self.parent_change_state(transition)
    }
}

impl VideoEncoderImpl for NnvEnc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        self.shifted.store(false, Ordering::Release);
        *lock(&self.pending) = None;
        *lock(&self.refused) = None;
        *lock(&self.requests) = None;
        *lock(&self.earliest) = None;
        self.losses.drain();
        self.obj().set_min_pts(gst::ClockTime::NONE);
        *lock(&self.timeline) = Timeline::default();
        *lock(&self.totals) = Totals::default();
        self.metadata.reset();
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = None;
        *lock(&self.pending) = None;
        *lock(&self.cancel) = None;
        *lock(&self.model) = None;
        self.show_no_model();
        Ok(())
    }

    fn set_format(&self, input: &Input) -> Result<(), gst::LoggableError> {
        self.prepare(input).map_err(|e| {
            // Without this, the application would only hear "not negotiated"; sources try the same
            // caps again and again.
            let caps = input.caps_owned();
            let before = std::mem::replace(&mut *lock(&self.refused), caps.clone());
            if before.is_none() || before != caps {
                self.post(&e);
            }
            gst::loggable_error!(CAT, "{e}")
        })
    }

    fn handle_frame(
        &self,
        frame: gst_video::VideoCodecFrame,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let started = Instant::now();
        let force_key = frame
            .flags()
            .contains(gst_video::VideoCodecFrameFlags::FORCE_KEYFRAME);
        let id = frame.system_frame_number();
        let duration = frame.duration();
        let buffer = frame.input_buffer_owned().ok_or(gst::FlowError::Error)?;
        // The frame holds the stream lock; the element keeps it under its number.
        drop(frame);
        let pending = lock(&self.pending).take();
        if let Some(input) = &pending {
            self.drain()?;
            self.check(self.configure(input))?;
        }
        let running = buffer.pts().map(|pts| self.running_time(pts));
        let qos = self.obj().is_qos_enabled();

        let mut taken = Taken::out_of(&self.state).ok_or(gst::FlowError::NotNegotiated)?;
        let state = &mut *taken;
        if !qos {
            // Whoever wants every frame, however late, wants it at the effort that was asked for.
            state.load.set_auto(false);
            state.encoder.set_speed(state.load.effort());
        }
        if let Some(running) = running
            && qos
            && !state.two_passes
            && let Verdict::Leave { first } = self.judge(state, running)
        {
            drop(buffer);
            let result = state.encoder.skip(force_key);
            let result = result.and_then(|()| Self::ready(&mut state.encoder));
            let units = self.check(result)?;
            lock(&self.totals).dropped += 1;
            self.count(state, &units, started)?;
            drop(taken);
            self.leave_out(id, first)?;
            return self.push(units);
        }
        let picture = {
            let raw = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, &state.info)
                .map_err(|e| {
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Format,
                        ("Frame {id} cannot be read as {:?}: {e}", state.info)
                    );
                    gst::FlowError::Error
                })?;
            self.read_picture(&raw, state)
        };
        let regions = regions::of_buffer(&buffer);
        let (metadata, left_out) = Metadata::of_frame(&buffer);
        self.tell(left_out, "metadata of a frame");
        drop(buffer);
        self.apply_tags(state, pending.is_some());
        let result = picture.and_then(|picture| {
            self.apply_rates(&mut state.encoder)?;
            for report in self.losses.drain() {
                state.encoder.report(report);
            }
            let stream_pts = running.and_then(|running| {
                let duration = duration.unwrap_or(state.dts.duration);
                lock(&self.timeline).stream_time(running, duration)
            });
            state.dts.push(running);
            state
                .running
                .extend(running.map(|running| (u64::from(id), running)));
            state.encoder.send(InputFrame {
                pts: stream_pts,
                duration: duration.map(|d| d.nseconds()),
                force_key,
                regions,
                metadata,
                ..InputFrame::new(Arc::new(picture), u64::from(id))
            })?;
            Self::ready(&mut state.encoder)
        });
        let units = self.check(result)?;
        self.count(state, &units, started)?;
        let out_of_reach = state.encoder.out_of_reach();
        let quality_missed = state.encoder.quality_out_of_reach();
        drop(taken);
        if let Some(found) = out_of_reach {
            self.warn_of_rate(found);
        }
        if let Some(found) = quality_missed {
            let text = quality::out_of_reach(&found);
            gst::element_imp_warning!(self, gst::StreamError::Encode, ("{text}"));
        }
        self.push(units)
    }

    fn finish(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let flow = self.drain()?;
        let first_pass = lock(&self.state).as_mut().and_then(|state| {
            let pass = state.first_pass.take()?;
            Some((pass, state.encoder.stats().seconds))
        });
        if let Some((pass, seconds)) = first_pass {
            self.check(pass.end(seconds).map_err(CodecError::from))?;
        }
        Ok(flow)
    }

    fn flush(&self) -> bool {
        gst::debug!(CAT, imp = self, "Flushing");
        if let Some(state) = lock(&self.state).as_mut() {
            state.encoder.reset();
            state.running.clear();
            state.load.restart();
            state.dts = DtsClock::new(state.dts.depth, state.dts.duration);
        }
        *lock(&self.earliest) = None;
        lock(&self.timeline).restarted = true;
        let shifted = self.shifted.load(Ordering::Acquire);
        *lock(&self.requests) = shifted.then(Vec::new);
        true
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        self.metadata.event(&event);
        match event.view() {
            gst::EventView::FlushStart(_) => self.abort(),
            gst::EventView::Segment(segment) if self.is_new(segment.segment()) => {
                // Frames of the last segment must not leave in this one.
                if self.code_waiting().is_err() {
                    return false;
                }
                lock(&self.timeline).restarted = true;
                *lock(&self.earliest) = None;
                if let Some(state) = lock(&self.state).as_mut() {
                    state.load.restart();
                }
            }
            _ => {}
        }
        match self.held(event, Request::Downstream) {
            Some(event) => self.parent_sink_event(event),
            None => true,
        }
    }

    fn src_event(&self, event: gst::Event) -> bool {
        if let gst::EventView::Qos(qos) = event.view() {
            let (_, _, diff, timestamp) = qos.get();
            *lock(&self.earliest) =
                timestamp.map(|t| load::earliest(t.nseconds() as f64 / 1e9, diff as f64 / 1e9));
        }
        let resilience = self.settings().error_resilience();
        if self.losses.take(&event, resilience) {
            gst::debug!(CAT, imp = self, "A receiver reports a loss: {event:?}");
            return true;
        }
        match self.held(event, Request::Upstream) {
            Some(event) => self.parent_src_event(event),
            None => true,
        }
    }

    fn caps(&self, filter: Option<&gst::Caps>) -> gst::Caps {
        common::format_first(&self.parent_caps(filter))
    }

    fn sink_query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::AcceptCaps(accept) = query.view_mut()
            && common::is_foreign_raw(accept.caps())
        {
            // Refused with what to do about it when they come: the pad would only say that they are
            // not negotiated.
            accept.set_result(true);
            return true;
        }
        self.parent_sink_query(query)
    }

    fn propose_allocation(
        &self,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        self.parent_propose_allocation(query)
    }
}

impl NnvEnc {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    /// Loads the model.
    fn load(&self) -> Result<(), gst::StateChangeError> {
        let settings = self.settings().clone();
        let refuse = |e: CodecError| {
            self.post(&e);
            gst::StateChangeError
        };
        settings.tuning().map_err(|e| refuse(e.into()))?;
        settings.stats_file().map_err(|e| refuse(e.into()))?;
        self.warned.store(false, Ordering::Release);
        self.warn(&settings);
        let (source, common) = (settings.model_source(), settings.common);
        let model =
            Model::load(&source, &common.runtime_options()).map_err(|e| refuse(e.into()))?;
        *self.show() = Shown::default();
        self.show_model(&model);
        *lock(&self.model) = Some(model);
        Ok(())
    }

    /// Says which of two properties rules that contradict each other, once.
    fn warn(&self, settings: &Settings) {
        if settings.is_ambiguous() && !self.warned.swap(true, Ordering::AcqRel) {
            gst::element_imp_warning!(
                self,
                gst::LibraryError::Settings,
                (
                    "Both bitrate and quantizer are set: bitrate={} rules, as with \
                     rate-control=vbr. Set rate-control to say which one is meant (cq for \
                     quantizer={})",
                    settings.bitrate,
                    settings.quantizer
                )
            );
        }
    }

    /// Says that a rate cannot be had, and what helps.
    fn warn_of_rate(&self, found: OutOfReach) {
        let most = self.settings().max_quantizer;
        let kbits = |bits: u64| bits.div_ceil(1000);
        let what = if found.held {
            "some stand still so that the buffer does not run empty"
        } else {
            "the stream is larger than asked for"
        };
        let remedy = if most < u32::from(MAX_QUANTIZER) {
            "Raise max-quantizer, take"
        } else {
            "Take"
        };
        gst::element_imp_warning!(
            self,
            gst::StreamError::Encode,
            (
                "bitrate={} cannot be reached: at quantizer {most} these pictures take {} kbit/s, \
                 {what}. {remedy} smaller pictures, a lower frame rate or a higher bitrate",
                kbits(found.asked),
                kbits(found.takes)
            )
        );
    }

    /// Takes note of a format. An encoder for it is made with its first frame: elements like
    /// `videorate` announce formats that no frame comes in.
    fn prepare(&self, input: &Input) -> Result<(), CodecError> {
        let info = input.info();
        raw_format(info)?;
        let config = self
            .settings()
            .config(common::stream_info(input.info(), input.caps()))?;
        config.validate()?;
        self.shift(reorder_depth(config.effective_bframes()) > 0);
        let same = |state: &State| input.caps_owned() == state.caps;
        let known = lock(&self.state).as_ref().is_some_and(same);
        *lock(&self.pending) = (!known).then(|| input.clone());
        Ok(())
    }

    /// Shifts all times, or not, before the first frame gets one.
    fn shift(&self, shift: bool) {
        // The base class starts a new segment with each call.
        if self.shifted.swap(shift, Ordering::AcqRel) != shift {
            *lock(&self.requests) = shift.then(Vec::new);
            self.obj().set_min_pts(shift.then_some(SHIFT));
        }
    }

    /// Whether a segment begins here in which times mean something else.
    fn is_new(&self, segment: &gst::Segment) -> bool {
        let meaning = |segment: &gst::Segment| {
            let segment = segment.downcast_ref::<gst::ClockTime>()?;
            let ns = |time: Option<gst::ClockTime>| i128::from(time.map_or(0, |t| t.nseconds()));
            let zero = ns(segment.start()) + ns(segment.offset()) - ns(segment.base());
            Some((zero, segment.rate().to_bits()))
        };
        meaning(&self.obj().input_segment()) != meaning(segment)
    }

    /// Running time of a frame of the segment that came last.
    fn running_time(&self, pts: gst::ClockTime) -> gst::ClockTime {
        let segment = self.obj().input_segment();
        let Some(segment) = segment.downcast_ref::<gst::ClockTime>() else {
            return pts;
        };
        let inside = segment.start().map_or(pts, |start| pts.max(start));
        segment.to_running_time(inside).unwrap_or(pts)
    }

    /// Makes an encoder for a format.
    fn configure(&self, input: &Input) -> Result<(), CodecError> {
        let info = input.info().clone();
        let format = raw_format(&info)?;
        let model = lock(&self.model)
            .clone()
            .ok_or_else(|| CodecError::Internal("format set before start".into()))?;
        let stream = common::stream_info(input.info(), input.caps());
        let duration = common::frame_duration(stream.frame_rate);
        self.rate_changed.store(false, Ordering::Release);
        let settings = self.settings().clone();
        let mut config = settings.config(stream.clone())?;
        let mut first_pass = None;
        if let Some(path) = settings.stats_file()? {
            if lock(&self.state).is_some() {
                return Err(CodecError::Config(config::ConfigError::Stats(
                    "two passes need one format from beginning to end".into(),
                )));
            }
            match settings.pass {
                Pass::First => first_pass = Some(FirstPass::begin(path, &config)?),
                _ => config.second_pass = Some(Arc::new(two_pass::read(path, &config)?)),
            }
        }
        let bframes = config.effective_bframes();
        gst::debug!(CAT, imp = self, "Encoding with {config:?}");
        let speed = config.speed;
        let group = match config.key_int_max {
            1 => config.effective_batch(model.active_provider()) as u32,
            _ => u32::from(bframes) + 1,
        };
        let encoder = Encoder::new(model.clone(), config)?;

        let obj = self.obj();
        let live = self.is_upstream_live();
        if !self.qos_set.load(Ordering::Acquire) {
            obj.set_qos_enabled(live);
        }
        let auto = settings.speed_control == SpeedControl::Auto;
        let latency = duration * encoder.latency_frames() as u64;
        let depth = reorder_depth(bframes);
        self.shift(depth > 0);
        obj.set_latency(latency, latency);
        let level = common::accepted_level(obj.src_pad(), encoder.level())
            .map_err(|what| CodecError::Config(config::ConfigError::Info(what)))?;
        let mut caps = common::stream_caps(&stream, level, &encoder.sequence_header());
        let mut beyond = nnv_bitstream::StreamMetadata::default();
        common::metadata::add_caps(&mut beyond, &info, &stream);
        common::metadata::restore_caps(&beyond, caps.make_mut());
        if info.format() == gst_video::VideoFormat::Gray16Le {
            gst::element_imp_info!(
                self,
                gst::StreamError::Format,
                ("GRAY16_LE: the 10 most significant bits of each sample are coded, the 6 lowest \
                  are not")
            );
        }
        *lock(&self.cancel) = Some(encoder.cancel_handle());
        *lock(&self.state) = Some(State {
            encoder,
            info,
            format,
            caps: input.caps_owned(),
            dts: DtsClock::new(depth, duration),
            load: Load::new(speed, auto, group, duration.nseconds() as f64 / 1e9),
            live,
            first_pass,
            came: None,
            two_passes: settings.pass != Pass::Single,
            running: HashMap::new(),
        });

        let mut tags = gst::TagList::new();
        if let Some(tags) = tags.get_mut() {
            let mode = gst::TagMergeMode::Append;
            tags.add::<gst::tags::VideoCodec>(&"NNV neural video", mode);
            tags.add::<gst::tags::Encoder>(
                &format!("nnvenc, model {}", model.name()).as_str(),
                mode,
            );
            tags.add::<gst::tags::EncoderVersion>(&ENCODER_VERSION, mode);
            if matches!(settings.mode(), RateControl::Vbr | RateControl::Cbr) {
                tags.add::<gst::tags::NominalBitrate>(&settings.bitrate.saturating_mul(1000), mode);
            }
            if let Some(max) = settings.max_rate().and_then(|max| u32::try_from(max).ok())
                && settings.mode() == RateControl::Vbr
            {
                tags.add::<gst::tags::MaximumBitrate>(&max, mode);
            }
        }
        obj.merge_tags(Some(&tags), gst::TagMergeMode::Replace);
        let refused = |_| {
            CodecError::Config(config::ConfigError::Info(
                "downstream refuses the caps".into(),
            ))
        };
        let output = obj.set_output_state(caps, Some(input)).map_err(refused)?;
        obj.negotiate(output).map_err(refused)
    }

    /// Whether a source upstream gives frames in real time.
    fn is_upstream_live(&self) -> bool {
        let mut query = gst::query::Latency::new();
        let pad = self.obj().sink_pad().clone();
        pad.peer_query(&mut query) && query.result().0
    }

    /// Whether there is time for a frame, and with what effort the next ones are coded.
    fn judge(&self, state: &mut State, running: gst::ClockTime) -> Verdict {
        let seconds = |t: gst::ClockTime| t.nseconds() as f64 / 1e9;
        let obj = self.obj();
        // Before that, the clock says nothing of when a frame is due.
        let playing = state.live && obj.current_state() == gst::State::Playing;
        let now = obj.current_running_time().filter(|_| playing);
        state.came = now;
        state
            .load
            .set_auto(self.settings().speed_control == SpeedControl::Auto);
        let before = state.load.effort();
        let verdict = state.load.arrive(Arrival {
            running: seconds(running),
            now: now.map(seconds),
            earliest: *lock(&self.earliest),
        });
        let effort = state.load.effort();
        if effort != before {
            gst::info!(CAT, imp = self, "Effort {effort:?} instead of {before:?}");
        }
        state.encoder.set_speed(effort);
        verdict
    }

    /// Gives up a frame that there is no time for; the base class posts a QoS message.
    fn leave_out(&self, number: u32, first: bool) -> Result<(), gst::FlowError> {
        gst::debug!(CAT, imp = self, "No time for frame {number}");
        if first {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Encode,
                ("There is no time to code all frames, some are left out. Choose a faster \
                     speed-preset, smaller pictures or a lower frame rate, or give nnvenc more \
                     threads (qos=false codes all frames, whatever the delay)")
            );
        }
        let obj = self.obj();
        if let Some(frame) = obj.frame(number as i32) {
            // Without an output buffer the frame counts as dropped.
            obj.finish_frame(frame)?;
        }
        Ok(())
    }

    /// Keeps a request for a key frame that has to wait; gives back every other event.
    fn held(&self, event: gst::Event, request: fn(gst::Event) -> Request) -> Option<gst::Event> {
        if !gst_video::ForceKeyUnitEvent::is(&event) {
            return Some(event);
        }
        match &mut *lock(&self.requests) {
            Some(waiting) => {
                waiting.push(request(event));
                None
            }
            None => Some(event),
        }
    }

    /// The first unit has left: requests that waited for it take their way.
    fn release_requests(&self) {
        let requests = lock(&self.requests).take();
        for request in requests.into_iter().flatten() {
            match request {
                Request::Upstream(event) => self.parent_src_event(event),
                Request::Downstream(event) => self.parent_sink_event(event),
            };
        }
    }

    fn read_picture(
        &self,
        raw: &gst_video::VideoFrameRef<&gst::BufferRef>,
        state: &State,
    ) -> Result<Picture, CodecError> {
        let mut planes = Vec::with_capacity(3);
        for plane in 0..raw.n_planes() {
            planes.push(raw.plane_data(plane).map_err(|e| {
                CodecError::Internal(format!("plane {plane} of a frame cannot be read: {e}"))
            })?);
        }
        let strides: Vec<usize> = raw
            .plane_stride()
            .iter()
            .map(|&stride| usize::try_from(stride).unwrap_or(0))
            .collect();
        // Surfaces may be larger than what the caps show of them.
        Ok(Picture::from_raw(
            state.format,
            state.info.width(),
            state.info.height(),
            &planes,
            &strides[..planes.len()],
        )?)
    }

    /// Tells the encoder of rates that were set while it runs.
    fn apply_rates(&self, encoder: &mut Encoder) -> Result<(), CodecError> {
        if !self.rate_changed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let settings = self.settings().clone();
        self.warn(&settings);
        let (mode, quantizer) = (settings.rate_control(), settings.quantizer);
        gst::info!(
            CAT,
            imp = self,
            "{mode:?}, quantizer {quantizer} from now on"
        );
        let quality = settings.mode() == RateControl::Quality;
        encoder.set_quality(quality.then(|| settings.quality.target()))?;
        // The property's specification keeps it within u8.
        encoder.set_rate_control(mode, u8::try_from(quantizer).unwrap_or(u8::MAX))
    }

    /// Tells the encoder of tags that came in between, and of what the sequence header cannot say.
    fn apply_tags(&self, state: &mut State, new_format: bool) {
        let stream = state.encoder.config().info;
        let found = self.metadata.of_stream((&state.info, &stream), new_format);
        if let Some((metadata, left_out)) = found {
            self.tell(left_out, "tags");
            state.encoder.set_stream_metadata(metadata);
        }
    }

    fn tell(&self, left_out: usize, what: &str) {
        if let Some(text) = self.metadata.tell(left_out, what) {
            gst::element_imp_warning!(self, gst::StreamError::Encode, ("{text}"));
        }
    }

    fn ready(encoder: &mut Encoder) -> Result<Vec<EncodedFrame>, CodecError> {
        let mut units = Vec::new();
        while let Some(unit) = encoder.receive()? {
            units.push(unit);
        }
        Ok(units)
    }

    /// Codes what waits; the next frame starts anew.
    fn drain(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.end(Encoder::finish, Encoder::reset)
    }

    /// Codes what waits; frames to come may refer to it.
    fn code_waiting(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.end(Encoder::flush, |_| ())
    }

    fn end(
        &self,
        code: fn(&mut Encoder) -> Result<(), CodecError>,
        then: fn(&mut Encoder),
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let started = Instant::now();
        let Some(mut taken) = Taken::out_of(&self.state) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let state = &mut *taken;
        gst::debug!(CAT, imp = self, "Draining");
        let result = code(&mut state.encoder).and_then(|()| Self::ready(&mut state.encoder));
        let units = self.check(result)?;
        self.count(state, &units, started)?;
        then(&mut state.encoder);
        drop(taken);
        self.push(units)
    }

    fn count(
        &self,
        state: &mut State,
        units: &[EncodedFrame],
        started: Instant,
    ) -> Result<(), gst::FlowError> {
        if let Some(pass) = &mut state.first_pass {
            let result = pass.add(units.iter().map(|unit| unit.pass));
            self.check(result.map_err(CodecError::from))?;
        }
        let mut totals = lock(&self.totals);
        let t = &mut *totals;
        let samples = u64::from(state.info.width()) * u64::from(state.info.height());
        for unit in units {
            t.frames += 1;
            t.keys += u64::from(unit.key);
            t.repeats += u64::from(unit.kind == FrameType::Repeat);
            t.recoveries += u64::from(unit.recovery);
            t.inked += u64::from(unit.stats.ink_bytes > 0);
            t.bytes += unit.data.len() as u64;
            t.quantizers += u64::from(unit.quantizer);
            t.samples += samples;
        }
        let busy = started.elapsed();
        t.busy += busy;
        let by_clock = state
            .came
            .take()
            .zip(self.obj().current_running_time())
            .map(|(from, to)| to.saturating_sub(from).into());
        let taken: Duration = by_clock.unwrap_or(busy);
        state.load.coded(units.len(), taken.as_secs_f64());
        t.times = state.encoder.stats().times.clone();
        let coded = t.frames - t.repeats;
        let mut stats = gst::Structure::builder(Self::STATS)
            .field("frames", t.frames)
            .field("key-frames", t.keys)
            .field("dropped", t.dropped)
            .field("effort", settings::effort_name(state.load.effort()))
            .field("repeated-frames", t.repeats)
            .field("ink-frames", t.inked)
            .field("recovery-frames", t.recoveries)
            .field("bytes", t.bytes)
            .field(
                "average-quantizer",
                t.quantizers as f64 / coded.max(1) as f64,
            )
            .field(
                "bits-per-pixel",
                t.bytes as f64 * 8.0 / t.samples.max(1) as f64,
            )
            .field("fps", t.frames as f64 / t.busy.as_secs_f64().max(1e-9))
            .build();
        common::add_times(&mut stats, &t.times, t.frames);
        self.show().stats = Some(stats);
        Ok(())
    }

    fn push(&self, units: Vec<EncodedFrame>) -> Result<gst::FlowSuccess, gst::FlowError> {
        let obj = self.obj();
        for unit in units {
            let number = unit.id as i32;
            let Some(mut frame) = obj.frame(number) else {
                gst::warning!(
                    CAT,
                    imp = self,
                    "Frame {number} is gone, its unit is dropped"
                );
                continue;
            };
            if let Some(state) = lock(&self.state).as_mut() {
                let ahead = state.dts.next(state.running.remove(&unit.id));
                let dts = frame
                    .pts()
                    .zip(ahead)
                    .map(|(pts, ahead)| pts.saturating_sub(ahead));
                frame.set_dts(dts);
            }
            if unit.key {
                frame.set_flags(gst_video::VideoCodecFrameFlags::SYNC_POINT);
            }
            gst::log!(
                CAT,
                imp = self,
                "Frame {number}: {:?}, {} bytes, quantizer {}",
                unit.kind,
                unit.data.len(),
                unit.quantizer
            );
            let droppable = !unit.is_reference;
            let mut buffer = gst::Buffer::from_mut_slice(unit.data);
            if droppable && let Some(buffer) = buffer.get_mut() {
                buffer.set_flags(gst::BufferFlags::DROPPABLE);
            }
            frame.set_output_buffer(buffer);
            obj.finish_frame(frame)?;
            self.release_requests();
        }
        Ok(gst::FlowSuccess::Ok)
    }
}

/// The codec's name of a format that can be coded.
fn raw_format(info: &gst_video::VideoInfo) -> Result<RawFormat, CodecError> {
    let unsupported = |what: String| CodecError::Config(config::ConfigError::Info(what));
    if info.interlace_mode() != gst_video::VideoInterlaceMode::Progressive {
        return Err(unsupported(format!(
            "interlace-mode is {}, only progressive video can be coded; put a deinterlace element \
             before nnvenc",
            info.interlace_mode().to_str()
        )));
    }
    common::raw_format(info.format()).ok_or_else(|| {
        unsupported(format!(
            "the format is {}, nnvenc codes 4:2:0 and grey with 8 or 10 bits, without alpha. \
             Convert it before: videoconvert ! video/x-raw,format={} ! nnvenc",
            info.format(),
            match (info.is_gray(), info.comp_depth(0)) {
                (true, 0..=8) => "GRAY8",
                (true, _) => "GRAY16_LE",
                (false, 0..=8) => "I420",
                (false, _) => "I420_10LE",
            }
        ))
    })
}

/// Version of the plugin as one number, for tags.
const ENCODER_VERSION: u32 = {
    const fn number(text: &str) -> u32 {
        let bytes = text.as_bytes();
        let (mut i, mut n) = (0, 0);
        while i < bytes.len() {
            n = n * 10 + (bytes[i] - b'0') as u32;
            i += 1;
        }
        n
    }
    number(env!("CARGO_PKG_VERSION_MAJOR")) * 1_000_000
        + number(env!("CARGO_PKG_VERSION_MINOR")) * 1000
        + number(env!("CARGO_PKG_VERSION_PATCH"))
};

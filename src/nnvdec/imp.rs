// SPDX-License-Identifier: MPL-2.0

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_video::prelude::*;
use gst_video::subclass::prelude::*;

use super::analysis::{self, Analysis};
use super::level::MaxLevel;
use crate::common::{self, CodecElement, CommonSettings, Shown, lock};
use nnv_bitstream::limits::{MAX_SAMPLES, MAX_SIDE};
use nnv_bitstream::{Crop, StreamInfo};
use nnv_codec::config::DecoderConfig;
use nnv_codec::decode::{Decoded, DecodedFrame, Decoder, DecoderStats, Hurry, Loss};
use nnv_codec::error::CodecError;
use nnv_format::picture::RawFormat;
use nnv_nn::{Cancel, Model, Runtime};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnvdec",
        gst::DebugColorFlags::empty(),
        Some("NNV video decoder"),
    )
});

type InputState = gst_video::VideoCodecState<'static, gst_video::video_codec_state::Readable>;

#[derive(Debug, Clone)]
struct Settings {
    common: CommonSettings,
    conceal: bool,
    max_pixels: u64,
    max_level: MaxLevel,
    analysis: Analysis,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            common: CommonSettings::new(None),
            conceal: true,
            max_pixels: MAX_SAMPLES,
            max_level: MaxLevel::default(),
            analysis: Analysis::empty(),
        }
    }
}

/// What is negotiated downstream.
struct Output {
    stream: Arc<StreamInfo>,
    info: gst_video::VideoInfo,
    format: RawFormat,
}

struct State {
    decoder: Decoder,
    /// The model whose provider is shown, so that its warnings are posted once.
    model: Option<Arc<Model>>,
    input: Option<InputState>,
    output: Option<Output>,
    /// The latency that was told.
    latency: gst::ClockTime,
    busy: Duration,
}

#[derive(Default)]
pub struct NnvDec {
    settings: Mutex<Settings>,
    state: Mutex<Option<State>>,
    shown: Mutex<Shown>,
    /// Aborts the decoder from other threads; outside of `state`, which is locked while decoding.
    cancel: Mutex<Option<Cancel>>,
    /// Downstream draws overlays by itself.
    overlays: AtomicBool,
}

#[glib::object_subclass]
impl ObjectSubclass for NnvDec {
    const NAME: &'static str = "GstNnvDec";
    type Type = super::NnvDec;
    type ParentType = gst_video::VideoDecoder;
}

impl ObjectImpl for NnvDec {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let mut specs = vec![
                glib::ParamSpecBoolean::builder("conceal")
                    .nick("Conceal")
                    .blurb(
                        "Show a copy of the nearest frame with a warning where one is lost or \
                         damaged; if false, damage is an error",
                    )
                    .default_value(Settings::default().conceal)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt64::builder("max-pixels")
                    .nick("Largest picture")
                    .blurb(
                        "Streams whose pictures have more luma samples are an error, before any \
                         memory is taken; the work on a picture takes about 48 bytes for each of \
                         them",
                    )
                    .minimum(1)
                    .maximum(u64::from(MAX_SIDE).pow(2))
                    .default_value(Settings::default().max_pixels)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder::<MaxLevel>("max-level")
                    .nick("Highest level")
                    .blurb(
                        "Streams of a higher level (how large, how fast, with what networks) are \
                         an error before anything is decoded; docs/bitstream.md has the table",
                    )
                    .mutable_ready()
                    .build(),
                glib::ParamSpecFlags::builder::<Analysis>("analysis")
                    .nick("Analysis")
                    .blurb(
                        "Draw over the pictures what they are made of, and attach the numbers as \
                         GstNnvAnalysisMeta; costs nothing while it is empty",
                    )
                    .default_value(Settings::default().analysis)
                    .mutable_playing()
                    .build(),
            ];
            specs.extend(common::properties(
                None,
                "Name of the built-in bundle to decode with (unset: the one that the stream \
                 names); a stream made with another bundle is an error",
                "Facts since the last start: frames, concealed, dropped, skipped (too late), \
                 missing (never came), verified-checksums, \
                 batches (uint64), fps and time per frame of each stage in ms (double)",
            ));
            specs
        });
        &PROPERTIES
    }

    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut guard = lock(&self.settings);
        if guard.common.set(value, pspec) {
            return;
        }
        match pspec.name() {
            // Taken over with the next frame.
            "conceal" => guard.conceal = value.get().expect("type checked upstream"),
            "max-pixels" => guard.max_pixels = value.get().expect("type checked upstream"),
            "max-level" => guard.max_level = value.get().expect("type checked upstream"),
            // Of the frames decoded from then on.
            "analysis" => guard.analysis = value.get().expect("type checked upstream"),
            name => unreachable!("property {name} (id {id}) is not one of nnvdec"),
        }
    }

    fn property(&self, id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let s = lock(&self.settings);
        if let Some(value) = s.common.get(pspec).or_else(|| self.shown_property(pspec)) {
            return value;
        }
        match pspec.name() {
            "conceal" => s.conceal.to_value(),
            "max-pixels" => s.max_pixels.to_value(),
            "max-level" => s.max_level.to_value(),
            "analysis" => s.analysis.to_value(),
            name => unreachable!("property {name} (id {id}) is not one of nnvdec"),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_packetized(true);
        // Data without caps gets a better message here than the base class has.
        obj.set_needs_format(false);
        // Caps that the template refuses are refused by the pad, with a message that names them.
        obj.set_use_default_pad_acceptcaps(true);
    }
}

impl CodecElement for NnvDec {
    const CODING: gst::StreamError = gst::StreamError::Decode;
    const STATS: &'static str = "application/x-nnvdec-stats";

    fn shown(&self) -> &Mutex<Shown> {
        &self.shown
    }

    fn cancel(&self) -> &Mutex<Option<Cancel>> {
        &self.cancel
    }
}

impl GstObjectImpl for NnvDec {}

impl ElementImpl for NnvDec {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "NNV video decoder",
                "Codec/Decoder/Video",
                "Decodes NNV video, with the same pixels on every machine",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| common::templates(&common::parsed_caps(), &common::raw_caps()));
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            // Not in `start`: the base class would post a second error that says less.
            gst::StateChange::ReadyToPaused => self.prepare()?,
            // The pads wait for the streaming thread, which may be inside a network.
            gst::StateChange::PausedToReady => self.abort(),
            _ => {}
        }
        self.parent_change_state(transition)
    }
}

impl VideoDecoderImpl for NnvDec {
    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = None;
        *lock(&self.cancel) = None;
        self.show_no_model();
        Ok(())
    }

    fn set_format(&self, input: &InputState) -> Result<(), gst::LoggableError> {
        self.finish_frames(false).map_err(|e| {
            gst::loggable_error!(CAT, "Frames of the last format could not be decoded: {e}")
        })?;
        let live = self.is_live();
        let mut guard = lock(&self.state);
        let state = guard
            .as_mut()
            .ok_or_else(|| gst::loggable_error!(CAT, "Caps came before the element started"))?;
        state.decoder.set_live(live);
        state.input = Some(input.clone());
        // HDR fields, aspect and the like may have changed while the stream's own facts have not.
        state.output = None;
        let header = input
            .caps()
            .and_then(|caps| caps.structure(0))
            .map(common::stream_header_of)
            .unwrap_or_default();
        if header.is_empty() {
            return Ok(());
        }
        let result = state.decoder.set_sequence_header(&header);
        let model = state.take_model(state.decoder.model().cloned());
        let latency = state.new_latency();
        drop(guard);
        model.into_iter().for_each(|model| self.show_model(&model));
        self.tell_latency(latency);
        result.map_err(|e| {
            // Without this, the application would only hear "not negotiated".
            self.post(&e);
            gst::loggable_error!(CAT, "{e}")
        })
    }

    fn handle_frame(
        &self,
        frame: gst_video::VideoCodecFrame,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let started = Instant::now();
        let id = frame.system_frame_number();
        let buffer = frame.input_buffer_owned().ok_or(gst::FlowError::Error)?;
        let time_left = self.obj().max_decode_time(&frame);
        // The frame holds the stream lock; the element keeps it under its number.
        drop(frame);
        let (conceal, analysis) = {
            let settings = lock(&self.settings);
            (settings.conceal, settings.analysis)
        };

        let mut guard = lock(&self.state);
        let state = guard.as_mut().ok_or(gst::FlowError::Flushing)?;
        if state.input.is_none() {
            drop(guard);
            gst::element_imp_error!(
                self,
                gst::CoreError::Negotiation,
                ("nnvdec got data without caps: it takes access units, which nnvparse makes of \
                     a file's bytes (filesrc ! nnvparse ! nnvdec)")
            );
            return Err(gst::FlowError::NotNegotiated);
        }
        state.decoder.set_conceal(conceal);
        state.decoder.set_analysis(analysis.wanted());
        let hurry = hurry(time_left, &state.decoder);
        state.decoder.set_hurry(hurry);
        let result = match buffer.map_readable() {
            Ok(map) => state.decoder.send(&map, u64::from(id)),
            Err(e) => Err(CodecError::Internal(format!(
                "access unit {id} cannot be read: {e}"
            ))),
        };
        let model = state.take_model(state.decoder.model().cloned());
        let ready: Vec<_> = std::iter::from_fn(|| state.decoder.receive()).collect();
        let loss = state.decoder.take_loss();
        self.count(state, started);
        let latency = state.new_latency();
        drop(guard);

        model.into_iter().for_each(|model| self.show_model(&model));
        self.tell_latency(latency);
        self.report(loss);
        let shown = self.push(ready);
        if result.is_err()
            && let Some(frame) = self.obj().frame(id as i32)
        {
            self.obj().release_frame(frame);
        }
        self.check(result)?;
        shown
    }

    fn drain(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.finish_frames(false)
    }

    fn finish(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.finish_frames(true)
    }

    fn flush(&self) -> bool {
        gst::debug!(CAT, imp = self, "Flushing");
        if let Some(state) = lock(&self.state).as_mut() {
            state.decoder.reset();
        }
        true
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::FlushStart(_) => self.abort(),
            gst::EventView::Segment(segment) => {
                // Whoever plays fast leaves frames out upstream.
                let segment = segment.segment();
                let trick = segment.flags().intersects(
                    gst::SegmentFlags::TRICKMODE | gst::SegmentFlags::TRICKMODE_KEY_UNITS,
                );
                if let Some(state) = lock(&self.state).as_mut() {
                    state
                        .decoder
                        .set_gaps_expected(trick || segment.rate() != 1.0);
                }
            }
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn decide_allocation(
        &self,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        let video_meta = query
            .find_allocation_meta::<gst_video::VideoMeta>()
            .is_some();
        let overlays = query
            .find_allocation_meta::<gst_video::VideoOverlayCompositionMeta>()
            .is_some();
        self.overlays.store(overlays, Ordering::Relaxed);
        self.parent_decide_allocation(query)?;
        if video_meta && let Some((Some(pool), size, min, max)) = query.allocation_pools().next() {
            let mut config = pool.config();
            config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
            pool.set_config(config)
                .map_err(|e| gst::loggable_error!(CAT, "Buffer pool refuses video meta: {e}"))?;
            query.set_nth_allocation_pool(0, Some(&pool), size, min, max);
        }
        Ok(())
    }
}

impl State {
    /// Takes note of the decoder's model. Gives it back where it was just loaded and is to be
    /// shown.
    fn take_model(&mut self, model: Option<Arc<Model>>) -> Option<Arc<Model>> {
        let known =
            (self.model.as_ref().zip(model.as_ref())).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
        let new = model.filter(|_| !known)?;
        self.model = Some(new.clone());
        Some(new)
    }

    /// What reordering the stream's frames takes, where that has changed: a frame may come so much
    /// later than it is shown.
    fn new_latency(&mut self) -> Option<gst::ClockTime> {
        let info = self.decoder.info()?;
        let frames = self.decoder.max_reorder() as u64;
        let latency = common::frame_duration(info.frame_rate) * frames;
        (std::mem::replace(&mut self.latency, latency) != latency).then_some(latency)
    }
}

impl NnvDec {
    /// Tells the sender of a frame that cannot be decoded, and the application, which may have
    /// another way to the sender.
    fn report(&self, loss: Option<Loss>) {
        let Some(Loss { group, number }) = loss else {
            return;
        };
        let loss = common::Loss { group, number };
        gst::debug!(CAT, imp = self, "Lost: {loss:?}");
        let obj = self.obj();
        obj.sink_pad().push_event(loss.event());
        // Without a bus nobody wants to know.
        let _ = obj.post_message(loss.message(&*obj));
    }

    fn tell_latency(&self, latency: Option<gst::ClockTime>) {
        if let Some(latency) = latency {
            gst::debug!(CAT, imp = self, "Reordering takes {latency}");
            self.obj().set_latency(latency, latency);
        }
    }

    /// Makes the decoder. A missing runtime or a wrong bundle of the user's shows here, before any
    /// data.
    fn prepare(&self) -> Result<(), gst::StateChangeError> {
        let settings = lock(&self.settings).clone();
        let loaded = Runtime::get().and_then(|_| match settings.common.source() {
            Some(source) => Model::load(&source, &settings.common.runtime_options()).map(Some),
            None => Ok(None),
        });
        let model = loaded.map_err(|e| {
            self.post(&e.into());
            gst::StateChangeError
        })?;
        let decoder = Decoder::new(
            common::stream_models(&settings.common),
            DecoderConfig {
                conceal: settings.conceal,
                threads: settings.common.threads,
                max_pixels: settings.max_pixels,
                max_level: settings.max_level.into(),
                ..DecoderConfig::default()
            },
        );
        *lock(&self.cancel) = Some(decoder.cancel_handle());
        let mut state = State {
            decoder,
            model: None,
            input: None,
            output: None,
            latency: gst::ClockTime::ZERO,
            busy: Duration::ZERO,
        };
        *self.show() = Shown::default();
        let model = state.take_model(model);
        *lock(&self.state) = Some(state);
        model.into_iter().for_each(|model| self.show_model(&model));
        Ok(())
    }

    fn count(&self, state: &mut State, started: Instant) {
        state.busy += started.elapsed();
        let DecoderStats {
            frames,
            concealed,
            dropped,
            skipped,
            missing,
            verified,
            batches,
            times,
        } = state.decoder.stats();
        let mut stats = gst::Structure::builder(Self::STATS)
            .field("frames", *frames)
            .field("concealed", *concealed)
            .field("dropped", *dropped)
            .field("skipped", *skipped)
            .field("missing", *missing)
            .field("verified-checksums", *verified)
            .field("batches", *batches)
            .field("fps", *frames as f64 / state.busy.as_secs_f64().max(1e-9))
            .build();
        common::add_times(&mut stats, times, *frames);
        self.show().stats = Some(stats);
    }

    /// Whether frames come as they are made, so that none may wait for others. Where nobody
    /// upstream knows, they might.
    fn is_live(&self) -> bool {
        let mut query = gst::query::Latency::new();
        let pad = self.obj().static_pad("sink");
        let known = pad.is_some_and(|pad| pad.peer_query(&mut query));
        !known || query.result().0
    }

    /// Decodes and shows what waits. At the end of the stream, decoding starts anew afterwards.
    fn finish_frames(&self, end: bool) -> Result<gst::FlowSuccess, gst::FlowError> {
        let started = Instant::now();
        let mut guard = lock(&self.state);
        let Some(state) = guard.as_mut() else {
            return Ok(gst::FlowSuccess::Ok);
        };
        gst::debug!(CAT, imp = self, "Draining");
        let result = state.decoder.finish();
        let ready: Vec<_> = std::iter::from_fn(|| state.decoder.receive()).collect();
        self.count(state, started);
        if end && result.is_ok() {
            state.decoder.reset();
        }
        drop(guard);
        let shown = self.push(ready);
        self.check(result)?;
        shown
    }

    /// Hands out what was decoded.
    fn push(&self, ready: Vec<Decoded>) -> Result<gst::FlowSuccess, gst::FlowError> {
        let obj = self.obj();
        for decoded in ready {
            match decoded {
                Decoded::Frame(decoded) => {
                    if let Some(warning) = &decoded.warning {
                        gst::element_imp_warning!(self, gst::StreamError::Decode, ("{warning}"));
                    }
                    self.show_frame(&decoded)?;
                }
                Decoded::Skipped { id } => {
                    if let Some(frame) = obj.frame(id as i32) {
                        gst::debug!(CAT, imp = self, "Access unit {id} is too late, left out");
                        // Posts the QoS message.
                        obj.drop_frame(frame)?;
                    }
                }
                Decoded::Dropped {
                    id,
                    damaged,
                    warning,
                } => {
                    let damaged = damaged && !lock(&self.settings).conceal;
                    if damaged {
                        let what = warning.unwrap_or_else(|| "unknown damage".into());
                        gst::element_imp_error!(
                            self,
                            gst::StreamError::Decode,
                            ("Access unit {id} is damaged and conceal is off: {what}")
                        );
                        return Err(gst::FlowError::Error);
                    }
                    if let Some(warning) = warning {
                        gst::element_imp_warning!(self, gst::StreamError::Decode, ("{warning}"));
                    }
                    if let Some(frame) = obj.frame(id as i32) {
                        gst::debug!(CAT, imp = self, "Access unit {id} shows nothing");
                        obj.release_frame(frame);
                    }
                }
            }
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn show_frame(&self, decoded: &DecodedFrame) -> Result<gst::FlowSuccess, gst::FlowError> {
        let obj = self.obj();
        let (info, format) = self.negotiate_output(&decoded.info)?;
        let number = decoded.id as i32;
        let Some(mut frame) = obj.frame(number) else {
            gst::warning!(
                CAT,
                imp = self,
                "Frame {number} is gone, its picture is dropped"
            );
            return Ok(gst::FlowSuccess::Ok);
        };
        if frame.pts().is_none() {
            frame.set_pts(decoded.pts.map(gst::ClockTime::from_nseconds));
        }
        if frame.duration().is_none() {
            frame.set_duration(decoded.duration.map(gst::ClockTime::from_nseconds));
        }
        if decoded.concealed {
            obj.request_sync_point(
                &frame,
                gst_video::VideoDecoderRequestSyncPointFlags::CORRUPT_OUTPUT,
            );
        }
        obj.allocate_output_frame(&mut frame, None)?;
        if decoded.concealed {
            let flags = frame.flags() | gst_video::VideoCodecFrameFlags::CORRUPTED;
            frame.set_flags(flags);
        }
        let coded = frame.input_buffer_owned();
        let result = match frame.output_buffer_mut() {
            Some(buffer) => {
                if let Some(coded) = &coded {
                    common::metadata::restore(coded, buffer);
                }
                if decoded.concealed {
                    buffer.set_flags(gst::BufferFlags::CORRUPTED);
                }
                let written = Self::write(buffer, &info, format, decoded);
                // It may have been set to nothing since the frame was decoded.
                let analysis = lock(&self.settings).analysis;
                written.and_then(|()| match decoded.analysis {
                    Some(_) if !analysis.is_empty() => {
                        let overlays = self.overlays.load(Ordering::Relaxed);
                        analysis::attach(buffer, &info, decoded, analysis, overlays)
                    }
                    _ => Ok(()),
                })
            }
            None => Err("there is no output buffer".to_string()),
        };
        if let Err(what) = result {
            obj.release_frame(frame);
            gst::element_imp_error!(
                self,
                gst::StreamError::Decode,
                [
                    "Frame {number} cannot be written as {}: {what}",
                    info.format()
                ]
            );
            return Err(gst::FlowError::Error);
        }
        obj.finish_frame(frame)
    }

    fn write(
        buffer: &mut gst::BufferRef,
        info: &gst_video::VideoInfo,
        format: RawFormat,
        decoded: &DecodedFrame,
    ) -> Result<(), String> {
        if buffer.size() != packed_size(info) {
            // Rows or planes are padded: what no picture is written to would be whatever was in
            // memory, and the same stream would give other bytes each time.
            let mut map = buffer.map_writable().map_err(|e| e.to_string())?;
            map.fill(0);
        }
        let mut raw = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info)
            .map_err(|e| e.to_string())?;
        let strides: Vec<usize> = raw
            .plane_stride()
            .iter()
            .take(format.planes())
            .map(|&stride| usize::try_from(stride).unwrap_or(0))
            .collect();
        let mut planes: Vec<_> = raw
            .planes_data_mut()
            .into_iter()
            .take(format.planes())
            .collect();
        let crop = decoded.info.crop;
        let cropped;
        let picture = if crop == Crop::default() {
            &*decoded.picture
        } else {
            let (width, height) = common::shown_size(&decoded.info);
            cropped = decoded
                .picture
                .cropped(crop.left, crop.top, width, height)
                .map_err(|e| e.to_string())?;
            &cropped
        };
        picture
            .write_raw(format, &mut planes, &strides)
            .map_err(|e| e.to_string())
    }

    /// Negotiates where the stream has changed or downstream wants something else.
    fn negotiate_output(
        &self,
        stream: &Arc<StreamInfo>,
    ) -> Result<(gst_video::VideoInfo, RawFormat), gst::FlowError> {
        let obj = self.obj();
        let input = {
            let guard = lock(&self.state);
            let state = guard.as_ref().ok_or(gst::FlowError::Flushing)?;
            if let Some(output) = &state.output
                && *output.stream == **stream
            {
                return Ok((output.info.clone(), output.format));
            }
            state.input.clone()
        };
        let format = self.choose_format(stream);
        let raw = common::raw_format(format).ok_or(gst::FlowError::NotNegotiated)?;
        let (width, height) = common::shown_size(stream);
        let mut output = obj.set_output_state(format, width, height, input.as_ref())?;
        let mut builder = gst_video::VideoInfo::builder_from_info(output.info());
        // What the stream says itself counts more than what a container says about it.
        let colorimetry = common::colorimetry(&stream.colorimetry)
            .map(|said| common::completed(&said, &output.info().colorimetry()));
        if let Some(colorimetry) = &colorimetry {
            builder = builder.colorimetry(colorimetry);
        }
        let chroma_site = common::chroma_site(&stream.colorimetry);
        if let Some(chroma_site) = chroma_site {
            builder = builder.chroma_site(chroma_site);
        }
        if let Some(rate) = stream.frame_rate.and_then(common::fraction) {
            builder = builder.fps(rate);
        }
        if stream.pixel_aspect != (1, 1)
            && let Some(par) = common::fraction(stream.pixel_aspect)
        {
            builder = builder.par(par);
        }
        let info = builder.build().map_err(|e| {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("No raw video format for {stream:?}: {e}")
            );
            gst::FlowError::NotNegotiated
        })?;
        let mut caps = info.to_caps().map_err(|_| gst::FlowError::NotNegotiated)?;
        common::add_hdr(stream, caps.make_mut());
        output.set_info(info.clone());
        output.set_caps(&caps);
        gst::debug!(CAT, imp = self, "Negotiating {caps}");
        obj.negotiate(output)?;
        if let Some(state) = lock(&self.state).as_mut() {
            state.output = Some(Output {
                stream: stream.clone(),
                info: info.clone(),
                format: raw,
            });
        }
        Ok((info, raw))
    }

    /// The format that downstream takes: of the stream's depth if possible, planar if possible.
    fn choose_format(&self, stream: &StreamInfo) -> gst_video::VideoFormat {
        let formats = common::output_formats(stream);
        let allowed = self.obj().src_pad().allowed_caps();
        let takes = |format: &&gst_video::VideoFormat| {
            let caps = gst_video::VideoCapsBuilder::new().format(**format).build();
            allowed
                .as_ref()
                .is_none_or(|allowed| allowed.can_intersect(&caps))
        };
        *formats.iter().find(takes).unwrap_or(&formats[0])
    }
}

/// Bytes of a picture without any padding.
fn packed_size(info: &gst_video::VideoInfo) -> usize {
    let component = |c: u8| {
        let sample = info.comp_depth(c).div_ceil(8) as usize;
        info.comp_width(c) as usize * info.comp_height(c) as usize * sample
    };
    (0..info.n_components() as u8).map(component).sum()
}

/// What to leave out where so much time (ns) is left until a frame should be shown. The base class
/// takes twice the delay that the sink tells, and a second at most.
///
/// Frames that nothing refers to go first. Where that is not enough, so do all between anchors; and
/// where there are none, all up to a key frame that is sure to come.
fn hurry(time_left: gst::ClockTimeDiff, decoder: &Decoder) -> Hurry {
    const MUCH: gst::ClockTimeDiff = 100_000_000;
    const HOPELESS: gst::ClockTimeDiff = 500_000_000;
    match time_left {
        0.. => Hurry::No,
        t if t >= -MUCH => Hurry::Unreferenced,
        t if t < -HOPELESS && decoder.max_reorder() == 0 && decoder.key_interval().is_some() => {
            Hurry::Inter
        }
        _ => Hurry::BetweenAnchors,
    }
}

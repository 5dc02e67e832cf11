// SPDX-License-Identifier: MPL-2.0

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::BaseTransformMode;
use gst_base::subclass::base_transform::{
    GenerateOutputSuccess, InputBuffer, PrepareOutputBufferSuccess,
};
use gst_base::subclass::prelude::*;
use gst_video::prelude::*;

use super::analysis::{self, Analysis};
use super::caps;
use crate::common::{self, CommonSettings, Taken, lock};
use crate::quantizer::{self, Quantizers};
use nnv_bitstream::limits::MAX_SIDE;
use nnv_nn::{Cancel, MAX_SCALE, ModelSource, NnError, Runtime, SrBundle, SrNetwork, embedded_sr};
use nnv_sr::{
    Codec, Done, Ensemble, Evidence, Job, Layout, LayoutError, Planes, PlanesMut, Rater, Rating,
    SourceQuantizer, SrError, Upscaler,
};

/// Most frames in one run of the network.
const MAX_BATCH: u32 = nnv_nn::MAX_BATCH as u32;

/// Scales by preference, where neither the user nor downstream decides.
const PREFERENCE: [usize; MAX_SCALE] = [2, 3, 4, 1];

/// The bundle for scale 1, and the one that is told quantizers where they are known.
const REPAIR: &str = "repair";
const REPAIR_TOLD: &str = "deblock";

const STATS_NAME: &str = "application/x-nnsr-stats";

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnsr",
        gst::DebugColorFlags::empty(),
        Some("NNV super-resolution"),
    )
});

/// What becomes of frames for whose network there is no time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnSrQosMode")]
pub enum QosMode {
    #[default]
    #[enum_value(
        name = "Plain: scaled by the bicubic kernel, without the network",
        nick = "plain"
    )]
    Plain,
    #[enum_value(name = "Drop: not shown at all", nick = "drop")]
    Drop,
}

/// Most samples of a picture that caps can say.
const MAX_PIXELS: u64 = (MAX_SIDE as u64).pow(2);

#[derive(Debug, Clone)]
struct Settings {
    common: CommonSettings,
    /// 0: whatever downstream asks for.
    scale: u32,
    strength: f64,
    self_ensemble: u32,
    /// 0: what tags say.
    source_bitrate: u32,
    batch_size: u32,
    max_pixels: u64,
    qos_mode: QosMode,
    analysis: Analysis,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            common: CommonSettings::new(None),
            scale: 0,
            strength: 1.0,
            self_ensemble: 1,
            source_bitrate: 0,
            batch_size: 1,
            max_pixels: MAX_PIXELS,
            qos_mode: QosMode::default(),
            analysis: Analysis::empty(),
        }
    }
}

impl Settings {
    /// The bundle for a scale: the user's, or the best for most uses that is built in. One that
    /// invents detail (`gan`) is never chosen unasked.
    fn bundle(&self, scale: usize) -> Result<SrBundle, NnError> {
        if let Some(source) = self.common.source() {
            return SrBundle::open(&source);
        }
        let wanted: &[&str] = match scale {
            1 => &[REPAIR],
            _ => &["balanced", "quality", "fast", "compressed"],
        };
        let built_in = embedded_sr();
        let has = |name: &&&str| {
            built_in
                .iter()
                .any(|b| b.name == **name && b.scales.contains(&scale))
        };
        // Where there is none, opening the first says what there is instead.
        let name = wanted.iter().find(has).unwrap_or(&wanted[0]);
        SrBundle::open(&ModelSource::Embedded((*name).into()))
    }

    /// Scales that can be negotiated, preferred ones first.
    fn scales(&self) -> Result<Vec<usize>, NnError> {
        let scales: Vec<usize> = match (self.scale, self.common.source()) {
            (0, Some(source)) => SrBundle::open(&source)?.scales(),
            (0, None) => {
                let has = |scale: &usize| {
                    self.bundle(*scale)
                        .is_ok_and(|bundle| bundle.facts(*scale).is_some())
                };
                let scales: Vec<_> = (1..=MAX_SCALE).filter(has).collect();
                if scales.is_empty() {
                    self.bundle(PREFERENCE[0])?;
                }
                scales
            }
            (scale, _) => vec![scale as usize],
        };
        Ok(PREFERENCE
            .into_iter()
            .filter(|scale| scales.contains(scale))
            .collect())
    }

    fn network(&self, scale: usize) -> Result<Arc<SrNetwork>, NnError> {
        self.bundle(scale)?
            .network(scale, &self.common.runtime_options())
    }

    /// What takes the place of `repair` for frames whose quantizers are known, where both are built
    /// in: a network that is told them. Unless the user names another bundle, or a folder.
    fn told_network(&self, scale: usize) -> Result<Option<Arc<SrNetwork>>, NnError> {
        let unnamed = match self.common.source() {
            None => true,
            Some(source) => source == ModelSource::Embedded(REPAIR.into()),
        };
        let built_in = |name| {
            embedded_sr()
                .iter()
                .any(|b| b.name == name && b.scales.contains(&scale))
        };
        if scale != 1 || !unnamed || ![REPAIR, REPAIR_TOLD].into_iter().all(built_in) {
            return Ok(None);
        }
        SrBundle::open(&ModelSource::Embedded(REPAIR_TOLD.into()))?
            .network(scale, &self.common.runtime_options())
            .map(Some)
    }
}

/// A frame that waits for its batch.
struct Waiting {
    buffer: gst::Buffer,
    /// As it was when the frame came.
    strength: f32,
}

/// What is negotiated, and the frames in between.
struct State {
    upscaler: Upscaler,
    /// For frames whose quantizers are known; without it they are the other's, too.
    told: Option<Upscaler>,
    scale: usize,
    input: gst_video::VideoInfo,
    output: gst_video::VideoInfo,
    waiting: Vec<Waiting>,
    /// Has looked at the frames so far.
    rater: Rater,
    /// Finished frames, the next one last.
    ready: Vec<gst::Buffer>,
    /// Frames were left out before the next one.
    discont: bool,
}

/// What tags say of the coded video.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Source {
    codec: Option<Codec>,
    bitrate: Option<u32>,
}

impl Source {
    /// Takes over what there is. Parsers measure, and say it again and again.
    fn hear(&mut self, tags: &gst::TagListRef) {
        if let Some(codec) = tags.get::<gst::tags::VideoCodec>() {
            self.codec = Codec::from_name(codec.get());
        }
        if let Some(bitrate) = tags.get::<gst::tags::Bitrate>() {
            self.bitrate = Some(bitrate.get());
        }
    }

    /// Format and bits per luma sample; `given` is the user's bit rate, or 0.
    fn bits(self, given: u32, info: &gst_video::VideoInfo) -> Option<(Codec, f64)> {
        let (codec, bitrate) = match given {
            0 => (self.codec?, self.bitrate?),
            given => (self.codec.unwrap_or(Codec::H264), given),
        };
        let fps = info.fps();
        let samples = f64::from(info.width()) * f64::from(info.height());
        let rate = samples * f64::from(fps.numer()) / f64::from(fps.denom());
        (bitrate > 0 && rate > 0.0).then(|| (codec, f64::from(bitrate) / rate))
    }
}

/// Facts since the last start.
#[derive(Debug, Default, Clone, Copy)]
struct Stats {
    frames_in: u64,
    frames_out: u64,
    enhanced: u64,
    reused: u64,
    passed_through: u64,
    dropped: u64,
    busy: Duration,
    network: Duration,
    source_quantizer: f32,
}

impl Stats {
    fn structure(&self) -> gst::Structure {
        let per = |time: Duration, frames: u64| time.as_secs_f64() * 1e3 / frames.max(1) as f64;
        gst::Structure::builder(STATS_NAME)
            .field("frames-in", self.frames_in)
            .field("frames-out", self.frames_out)
            .field("enhanced", self.enhanced)
            .field("reused", self.reused)
            .field("passed-through", self.passed_through)
            .field("dropped", self.dropped)
            .field(
                "fps",
                self.frames_out as f64 / self.busy.as_secs_f64().max(1e-9),
            )
            .field("frame-ms", per(self.busy, self.frames_out))
            .field("network-ms", per(self.network, self.enhanced))
            .field("source-quantizer", f64::from(self.source_quantizer))
            .build()
    }
}

/// The element.
///
/// It is a `GstBaseTransform` that keeps its own queue: `submit_input_buffer` puts frames into it,
/// `generate_output` takes them out of it. So the base class does what it does for every filter
/// (negotiation in both directions, reconfiguration, allocation, copying of metadata), and still a
/// batch can wait for its last frame, several frames can come out at once, and a late one none at
/// all. What the base class does not know, is done here: the latency of a batch, and emptying the
/// queue before anything that must not overtake frames. `GstVideoFilter` would add one call per
/// frame that cannot wait; `GstAggregator` has a thread and a clock for several inputs that one
/// input does not need.
#[derive(Default)]
pub struct NnSr {
    settings: Mutex<Settings>,
    /// Scales on offer; `None` before the element has started.
    scales: Mutex<Option<Vec<usize>>>,
    /// Keeps the network of a fixed scale from the start until it is used.
    network: Mutex<Option<Arc<SrNetwork>>>,
    state: Mutex<Option<State>>,
    /// Sizes before and after, for metadata; outside of `state`, which is locked while buffers are
    /// made.
    infos: Mutex<Option<(gst_video::VideoInfo, gst_video::VideoInfo)>>,
    stats: Mutex<Stats>,
    source: Mutex<Source>,
    provider: Mutex<Option<&'static str>>,
    latency: Mutex<gst::ClockTime>,
    /// Downstream draws overlays by itself.
    overlays: AtomicBool,
    /// Frames up to this running time are late.
    deadline: Mutex<Option<gst::ClockTime>>,
    /// Why caps were refused has been posted.
    explained: AtomicBool,
    /// Aborts a running network from other threads.
    cancel: Cancel,
}

#[glib::object_subclass]
impl ObjectSubclass for NnSr {
    const NAME: &'static str = "GstNnSr";
    type Type = super::NnSr;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for NnSr {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let d = Settings::default();
            let mut specs = vec![
                glib::ParamSpecUInt::builder("scale")
                    .nick("Scale")
                    .blurb(
                        "Output samples per input sample along each axis; 1 repairs only (0: the \
                         size that downstream asks for decides; where it takes any, the first of \
                         2, 3, 4, 1 that the bundle has)",
                    )
                    .maximum(MAX_SCALE as u32)
                    .default_value(d.scale)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecDouble::builder("strength")
                    .nick("Strength")
                    .blurb(
                        "How much of the network's picture replaces the plain one (bicubic, or \
                         the input itself where scale is 1), as a fraction; at 0 the network does \
                         not run",
                    )
                    .minimum(0.0)
                    .maximum(1.0)
                    .default_value(d.strength)
                    .controllable()
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("self-ensemble")
                    .nick("Self-ensemble")
                    .blurb(
                        "Turns and mirror images of each picture that go through the network, to \
                         be turned back and averaged: a little better, and so many times the time \
                         (for work that need not be live; 2, 4 and 8 make most sense)",
                    )
                    .minimum(1)
                    .maximum(Ensemble::MAX)
                    .default_value(d.self_ensemble)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("source-bitrate")
                    .nick("Source bit rate")
                    .blurb(
                        "Bits per second of the coded video, from which a network that repairs \
                         estimates how much there is to repair where nnqp has noted no \
                         quantizers (0: what parsers and demuxers say in tags; the format is the \
                         tags', else H.264; where nobody says, the network is careful)",
                    )
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("batch-size")
                    .nick("Batch size")
                    .blurb(
                        "Frames that go through the network in one run; each above 1 adds the \
                         duration of a frame to the latency (useful on a GPU)",
                    )
                    .minimum(1)
                    .maximum(MAX_BATCH)
                    .default_value(d.batch_size)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("max-pixels")
                    .nick("Largest picture")
                    .blurb(
                        "Pictures that would have more luma samples after scaling are an error, \
                         before any memory is taken",
                    )
                    .minimum(1)
                    .maximum(MAX_PIXELS)
                    .default_value(d.max_pixels)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder::<QosMode>("qos-mode")
                    .nick("QoS mode")
                    .blurb(
                        "What becomes of frames that would come too late for a sink (only where \
                         qos is true)",
                    )
                    .mutable_playing()
                    .build(),
                glib::ParamSpecFlags::builder::<Analysis>("analysis")
                    .nick("Analysis")
                    .blurb(
                        "Draw over the pictures what the network changed in them, and attach the \
                         numbers as GstNnSrAnalysisMeta; costs nothing while it is empty",
                    )
                    .default_value(d.analysis)
                    .mutable_playing()
                    .build(),
            ];
            specs.extend(common::properties(
                None,
                "Name of the built-in bundle (unset: repair for scale 1, whose frames go to \
                 deblock where nnqp has noted quantizers, else the first of balanced, quality, \
                 fast, compressed that is built in and has the scale)",
                "Facts since the last start: frames-in, frames-out, enhanced (by the network), \
                 reused (equal to the frame before), passed-through (without the network: late, \
                 strength 0, or finely coded), dropped (uint64); fps, frame-ms (all work per \
                 frame out) and \
                 network-ms (per enhanced frame), the times in ms (double); source-quantizer, \
                 with which the last frame was coded or is likely to have been, in the steps of \
                 H.264, 0 where that is not known or of no use (double)",
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
            "scale" => guard.scale = value.get().expect("type checked upstream"),
            // These are taken over with the next frame.
            "strength" => guard.strength = value.get().expect("type checked upstream"),
            "source-bitrate" => {
                guard.source_bitrate = value.get().expect("type checked upstream");
            }
            "qos-mode" => guard.qos_mode = value.get().expect("type checked upstream"),
            "analysis" => guard.analysis = value.get().expect("type checked upstream"),
            "self-ensemble" => {
                guard.self_ensemble = value.get().expect("type checked upstream");
            }
            "batch-size" => guard.batch_size = value.get().expect("type checked upstream"),
            "max-pixels" => guard.max_pixels = value.get().expect("type checked upstream"),
            name => unreachable!("property {name} (id {id}) is not one of nnsr"),
        }
    }

    fn property(&self, id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let s = lock(&self.settings);
        if let Some(value) = s.common.get(pspec) {
            return value;
        }
        match pspec.name() {
            "scale" => s.scale.to_value(),
            "strength" => s.strength.to_value(),
            "self-ensemble" => s.self_ensemble.to_value(),
            "source-bitrate" => s.source_bitrate.to_value(),
            "batch-size" => s.batch_size.to_value(),
            "max-pixels" => s.max_pixels.to_value(),
            "qos-mode" => s.qos_mode.to_value(),
            "analysis" => s.analysis.to_value(),
            "active-execution-provider" => lock(&self.provider).to_value(),
            "stats" => lock(&self.stats).structure().to_value(),
            name => unreachable!("property {name} (id {id}) is not one of nnsr"),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        // The property is the base class's, on as in other video filters.
        obj.set_qos(true);
        // A frame that repeats the last one is still a whole frame here.
        obj.set_gap_aware(true);
    }
}

impl GstObjectImpl for NnSr {}

impl ElementImpl for NnSr {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "NNV super-resolution",
                "Filter/Effect/Converter/Video/Scaler",
                "Enlarges raw video by 2, 3 or 4, or repairs it at its size, with a neural network",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| common::templates(&caps::sink_template(), &caps::src_template()));
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            // Not in `start`: the base class would post a second error that says less.
            gst::StateChange::ReadyToPaused => self.prepare().map_err(|e| {
                self.explain(&e.into());
                gst::StateChangeError
            })?,
            // The pads wait for the streaming thread, which may be inside a network.
            gst::StateChange::PausedToReady => self.cancel.cancel(),
            _ => {}
        }
        self.parent_change_state(transition)
    }
}

impl BaseTransformImpl for NnSr {
    const MODE: BaseTransformMode = BaseTransformMode::NeverInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = None;
        *lock(&self.infos) = None;
        *lock(&self.network) = None;
        *lock(&self.scales) = None;
        *lock(&self.source) = Source::default();
        *lock(&self.deadline) = None;
        *lock(&self.latency) = gst::ClockTime::ZERO;
        *lock(&self.provider) = None;
        self.obj().notify("active-execution-provider");
        Ok(())
    }

    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let other = caps::transform(direction, caps, &self.scales());
        gst::trace!(
            CAT,
            imp = self,
            "{caps} on the {direction:?} side makes {other}"
        );
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&other, gst::CapsIntersectMode::First),
            None => other,
        })
    }

    fn fixate_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        othercaps: gst::Caps,
    ) -> gst::Caps {
        caps::fixate(direction, caps, &othercaps, &self.scales())
            .unwrap_or_else(|| self.parent_fixate_caps(direction, caps, othercaps))
    }

    fn unit_size(&self, caps: &gst::Caps) -> Option<usize> {
        Some(gst_video::VideoInfo::from_caps(caps).ok()?.size())
    }

    fn set_caps(&self, incaps: &gst::Caps, outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        // Downstream still has the caps of the frames that wait.
        self.drain()
            .map_err(|e| gst::loggable_error!(CAT, "Frames of the last size are lost: {e}"))?;
        let parse = |caps: &gst::Caps| {
            gst_video::VideoInfo::from_caps(caps)
                .map_err(|_| gst::loggable_error!(CAT, "These caps are no raw video: {caps}"))
        };
        let (input, output) = (parse(incaps)?, parse(outcaps)?);
        self.set_size(input, output).map_err(|message| {
            self.explained.store(true, Ordering::Release);
            self.post_error_message(message);
            gst::loggable_error!(CAT, "{incaps} cannot become {outcaps}")
        })
    }

    fn query(&self, direction: gst::PadDirection, query: &mut gst::QueryRef) -> bool {
        if direction == gst::PadDirection::Src
            && let gst::QueryViewMut::Latency(answer) = query.view_mut()
        {
            let mut upstream = gst::query::Latency::new();
            if !self.obj().sink_pad().peer_query(&mut upstream) {
                return false;
            }
            let (live, min, max) = upstream.result();
            let own = *lock(&self.latency);
            // What waits for the batch is stored here, so upstream need not store it.
            answer.set(live, min + own, max.map(|max| max + own));
            return true;
        }
        BaseTransformImplExt::parent_query(self, direction, query)
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::FlushStart(_) => self.cancel.cancel(),
            gst::EventView::FlushStop(_) => {
                if let Some(state) = lock(&self.state).as_mut() {
                    state.waiting.clear();
                    state.ready.clear();
                    state.rater.reset();
                    state.discont = false;
                }
                *lock(&self.deadline) = None;
                self.cancel.reset();
            }
            gst::EventView::Caps(caps) => {
                let caps = caps.caps_owned();
                self.explained.store(false, Ordering::Release);
                let accepted = self.parent_sink_event(event);
                if !accepted {
                    self.explain_refusal(&caps);
                }
                return accepted;
            }
            _ if event.is_serialized() => {
                // It belongs behind the frames that came before it. If they fail, the next frame
                // says so.
                if let Err(e) = self.drain() {
                    gst::debug!(CAT, imp = self, "Frames before {event:?} are lost: {e}");
                }
                match event.view() {
                    gst::EventView::StreamStart(_) => *lock(&self.source) = Source::default(),
                    gst::EventView::Tag(tag) if tag.tag().scope() == gst::TagScope::Stream => {
                        lock(&self.source).hear(tag.tag());
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn src_event(&self, event: gst::Event) -> bool {
        if let gst::EventView::Qos(qos) = event.view() {
            let (_, _, diff, timestamp) = qos.get();
            *lock(&self.deadline) = timestamp.and_then(|timestamp| {
                // Twice, so as to catch up instead of being late by the same amount for ever.
                let late = u64::try_from(diff).ok()?.checked_mul(2)?;
                timestamp.checked_add(gst::ClockTime::from_nseconds(late))
            });
            // Past the base class, which would drop late frames before they could be scaled
            // plainly.
            return self.obj().sink_pad().push_event(event);
        }
        self.parent_src_event(event)
    }

    fn transform_meta<'a>(
        &self,
        outbuf: &mut gst::BufferRef,
        meta: gst::MetaRef<'a, gst::Meta>,
        inbuf: &'a gst::BufferRef,
    ) -> bool {
        let tags = meta.tags();
        if tags.is_empty() {
            return self.parent_transform_meta(outbuf, meta, inbuf);
        }
        // What depends on memory is not true of the new one; what other tags mean is not known.
        if !meta.tags_contain_only(&["video", "orientation", "size", "colorspace"]) {
            return false;
        }
        if !meta.has_tag::<gst_video::video_meta::tags::Size>() {
            return true;
        }
        if let Some((input, output)) = &*lock(&self.infos) {
            let scale = gst_video::video_meta::VideoMetaTransformScale::new(input, output);
            if meta.transform(outbuf, &scale).is_err() {
                gst::debug!(
                    CAT,
                    imp = self,
                    "{} cannot be scaled and is left out",
                    meta.api()
                );
            }
        }
        // It is there by now.
        false
    }

    fn propose_allocation(
        &self,
        decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        self.parent_propose_allocation(decide_query, query)?;
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        // A batch's frames are held until the last of them is there.
        let batch = lock(&self.settings).batch_size;
        let (caps, _) = query.get_owned();
        if batch > 1
            && let Some(info) = caps.and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok())
            && let Ok(size) = u32::try_from(info.size())
        {
            query.add_allocation_pool(None::<&gst::BufferPool>, size, batch, 0);
        }
        Ok(())
    }

    fn decide_allocation(
        &self,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        let caps = query
            .get_owned()
            .0
            .ok_or_else(|| gst::loggable_error!(CAT, "Allocation query without caps"))?;
        let info = gst_video::VideoInfo::from_caps(&caps)
            .map_err(|_| gst::loggable_error!(CAT, "Allocation query for {caps}"))?;
        let needed = u32::try_from(info.size())
            .map_err(|_| gst::loggable_error!(CAT, "No buffer can hold {caps}"))?;
        let batch = lock(&self.settings).batch_size;
        let video_meta = query
            .find_allocation_meta::<gst_video::VideoMeta>()
            .is_some();
        let overlays = query
            .find_allocation_meta::<gst_video::VideoOverlayCompositionMeta>()
            .is_some();
        self.overlays.store(overlays, Ordering::Relaxed);
        let offered = query.allocation_pools().next();
        let is_offered = offered.is_some();
        let (pool, size, min, max) = offered.unwrap_or((None, needed, 0, 0));
        let (size, least) = (size.max(needed), min.max(batch));
        let configured = |pool: &gst::BufferPool, max: u32| {
            let mut config = pool.config();
            config.set_params(Some(&caps), size, least, max);
            if video_meta {
                config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
            }
            pool.set_config(config).is_ok()
        };
        // A whole batch of outputs is taken from the pool before the first is given away: one that
        // cannot hold so many beside what downstream keeps would wait for ever.
        let large_enough = max == 0 || max >= min.saturating_add(batch);
        let (pool, max) = match pool.filter(|pool| large_enough && configured(pool, max)) {
            Some(pool) => (pool, max),
            None => {
                let own: gst::BufferPool = gst_video::VideoBufferPool::new().upcast();
                if !configured(&own, 0) {
                    return Err(gst::loggable_error!(CAT, "No buffer pool for {caps}"));
                }
                (own, 0)
            }
        };
        if is_offered {
            query.set_nth_allocation_pool(0, Some(&pool), size, least, max);
        } else {
            query.add_allocation_pool(Some(&pool), size, least, max);
        }
        self.parent_decide_allocation(query)
    }

    fn submit_input_buffer(
        &self,
        is_discont: bool,
        inbuf: gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        if is_discont {
            // What came before a gap does not wait for what comes after it.
            self.drain()?;
            if let Some(state) = lock(&self.state).as_mut() {
                state.rater.reset();
            }
        }
        // Negotiates anew where downstream asks for it.
        let success = self.parent_submit_input_buffer(is_discont, inbuf)?;
        let Some(buffer) = self.take_queued_buffer() else {
            return Ok(success);
        };
        if let Some(time) = buffer.pts().and_then(|pts| {
            let segment = self.obj().segment().downcast::<gst::ClockTime>().ok()?;
            segment.to_stream_time(pts)
        }) {
            // Fails only where a controlled property refuses its value, which leaves the old one.
            let _ = self.obj().sync_values(time);
        }
        let strength = lock(&self.settings).strength as f32;
        lock(&self.stats).frames_in += 1;
        lock(&self.state)
            .as_mut()
            .ok_or(gst::FlowError::NotNegotiated)?
            .waiting
            .push(Waiting { buffer, strength });
        Ok(success)
    }

    fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
        if let Some(buffer) = self.next_ready() {
            return Ok(GenerateOutputSuccess::Buffer(buffer));
        }
        let batch = lock(&self.settings).batch_size as usize;
        let full = lock(&self.state)
            .as_ref()
            .is_some_and(|state| state.waiting.len() >= batch);
        if full {
            self.process()?;
        }
        Ok(match self.next_ready() {
            Some(buffer) => GenerateOutputSuccess::Buffer(buffer),
            None => GenerateOutputSuccess::NoOutput,
        })
    }
}

impl NnSr {
    /// Finds bundle and runtime. What is wrong with them shows here, before any data.
    fn prepare(&self) -> Result<(), NnError> {
        self.cancel.reset();
        *lock(&self.stats) = Stats::default();
        Runtime::get()?;
        let settings = lock(&self.settings).clone();
        let scales = settings.scales()?;
        if let [scale] = scales[..] {
            *lock(&self.network) = Some(settings.network(scale)?);
        }
        *lock(&self.scales) = Some(scales);
        Ok(())
    }

    /// Scales that can be negotiated, preferred ones first. Before the start, when bundles may
    /// still change, any.
    fn scales(&self) -> Vec<usize> {
        if let Some(scales) = &*lock(&self.scales) {
            return scales.clone();
        }
        match lock(&self.settings).scale {
            0 => PREFERENCE.to_vec(),
            scale => vec![scale as usize],
        }
    }

    fn explain(&self, error: &SrError) {
        let message = match error {
            SrError::Nn(e) => common::error_message(&e.clone().into(), gst::StreamError::Failed),
            SrError::Layout(e) => gst::error_msg!(gst::StreamError::Format, ("{e}")),
        };
        self.post_error_message(message);
    }

    /// Says why caps were refused, where nobody has yet: the application would only hear "not
    /// negotiated".
    fn explain_refusal(&self, caps: &gst::Caps) {
        let src = self.obj().src_pad().clone();
        let flushing = src.pad_flags().contains(gst::PadFlags::FLUSHING);
        if flushing || self.explained.swap(true, Ordering::AcqRel) {
            return;
        }
        let scales: Vec<_> = self.scales().iter().map(ToString::to_string).collect();
        let wanted = src
            .peer_query_caps(None)
            .structure(0)
            .map(|s| s.to_string())
            .unwrap_or_default();
        gst::element_imp_error!(
            self,
            gst::CoreError::Negotiation,
            (
                "{caps} cannot be enlarged by {} to what downstream takes, which is {wanted}; put \
                 a videoscale or videoconvert element behind nnsr",
                scales.join(" or ")
            )
        );
    }

    /// Makes the scaler for what was negotiated.
    fn set_size(
        &self,
        input: gst_video::VideoInfo,
        output: gst_video::VideoInfo,
    ) -> Result<(), gst::ErrorMessage> {
        if input.interlace_mode() != gst_video::VideoInterlaceMode::Progressive {
            return Err(gst::error_msg!(
                gst::StreamError::Format,
                (
                    "interlace-mode is {}, only progressive video can be scaled; put a deinterlace \
                     element before nnsr",
                    input.interlace_mode().to_str()
                )
            ));
        }
        let wrong = |e: LayoutError| gst::error_msg!(gst::StreamError::Format, ("{e}"));
        let unknown = || {
            gst::error_msg!(
                gst::StreamError::Format,
                (
                    "the format is {:?}; put a videoconvert element before nnsr",
                    input.format()
                )
            )
        };
        let layout = caps::layout(&input).ok_or_else(unknown)?.map_err(wrong)?;
        // Caps come from `transform_caps`, where both sides are one scale apart.
        let scale = (output.width() / input.width()) as usize;
        let settings = lock(&self.settings).clone();
        let (width, height) = (output.width(), output.height());
        if u64::from(width) * u64::from(height) > settings.max_pixels {
            return Err(gst::error_msg!(
                gst::StreamError::Format,
                (
                    "pictures of {width}x{height} exceed the limit of {} samples: raise \
                     max-pixels, or lower scale",
                    settings.max_pixels
                )
            ));
        }
        let failed = |e: NnError| common::error_message(&e.into(), gst::StreamError::Failed);
        let network = settings.network(scale).map_err(failed)?;
        for warning in network.warnings() {
            gst::element_imp_warning!(self, gst::LibraryError::Settings, ("{warning}"));
        }
        let provider = network.active_provider().as_str();
        let upscaler = |network| match Upscaler::new(layout, network, settings.common.threads) {
            Ok(upscaler) => Ok(upscaler.with_ensemble(Ensemble::new(settings.self_ensemble))),
            Err(SrError::Layout(e)) => Err(wrong(e)),
            Err(SrError::Nn(e)) => Err(failed(e)),
        };
        let told = settings.told_network(scale).map_err(failed)?;
        let (upscaler, told) = (upscaler(network)?, told.map(upscaler).transpose()?);
        gst::debug!(
            CAT,
            imp = self,
            "{layout:?} by {scale} with {} on {provider}, {} tiles",
            upscaler.network().bundle(),
            upscaler.tiles()
        );
        let fps = |f: gst::Fraction| {
            Some((
                u32::try_from(f.numer()).ok().filter(|n| *n > 0)?,
                u32::try_from(f.denom()).ok().filter(|d| *d > 0)?,
            ))
        };
        let latency = common::frame_duration(fps(input.fps())) * u64::from(settings.batch_size - 1);
        *lock(&self.infos) = Some((input.clone(), output.clone()));
        *lock(&self.state) = Some(State {
            upscaler,
            told,
            scale,
            input,
            output,
            waiting: Vec::new(),
            rater: Rater::default(),
            ready: Vec::new(),
            discont: false,
        });
        // The session is the scaler's now.
        *lock(&self.network) = None;
        if lock(&self.provider).replace(provider) != Some(provider) {
            self.obj().notify("active-execution-provider");
        }
        if std::mem::replace(&mut *lock(&self.latency), latency) != latency {
            let obj = self.obj();
            // Without a bus nobody needs to know.
            let _ = obj.post_message(gst::message::Latency::builder().src(&*obj).build());
        }
        Ok(())
    }

    fn next_ready(&self) -> Option<gst::Buffer> {
        lock(&self.state).as_mut()?.ready.pop()
    }

    /// Finishes and pushes whatever waits.
    fn drain(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let waits = lock(&self.state)
            .as_ref()
            .is_some_and(|state| !state.waiting.is_empty());
        if waits {
            gst::debug!(CAT, imp = self, "Draining");
            self.process()?;
        }
        while let Some(buffer) = self.next_ready() {
            self.obj().src_pad().push(buffer)?;
        }
        Ok(gst::FlowSuccess::Ok)
    }

    /// Scales the frames that wait.
    fn process(&self) -> Result<(), gst::FlowError> {
        let started = Instant::now();
        let mut taken = Taken::out_of(&self.state).ok_or(gst::FlowError::NotNegotiated)?;
        let result = self.scale(&mut taken);
        drop(taken);
        lock(&self.stats).busy += started.elapsed();
        result
    }

    fn scale(&self, state: &mut State) -> Result<(), gst::FlowError> {
        let Settings {
            qos_mode,
            source_bitrate,
            analysis,
            ..
        } = *lock(&self.settings);
        let mut finished: Vec<Option<gst::Buffer>> = Vec::new();
        let (mut frames, mut scaled) = (Vec::new(), Vec::new());
        for Waiting { buffer, strength } in std::mem::take(&mut state.waiting) {
            let late = self.is_late(&buffer);
            if late && qos_mode == QosMode::Drop {
                lock(&self.stats).dropped += 1;
                state.discont = true;
            } else if state.scale == 1 && strength == 0.0 {
                // Untouched, it need not even be copied.
                lock(&self.stats).passed_through += 1;
                finished.push(Some(buffer));
            } else {
                finished.push(None);
                frames.push(Frame::map(self, state, buffer, strength, late)?);
            }
        }
        if !frames.is_empty() {
            let (from, to) = (state.upscaler.input(), state.upscaler.output());
            let rate = lock(&self.source).bits(source_bitrate, &state.input);
            // A quantizer tells more than the rate.
            let evidence: Vec<_> = frames
                .iter()
                .map(|frame| match quantizer::of(frame.input.buffer()) {
                    Some(Quantizers {
                        codec: Codec::H264,
                        slice,
                        blocks,
                    }) => Some(blocks.map_or(Evidence::Slice(slice), |blocks| {
                        Evidence::Blocks(Arc::new(blocks))
                    })),
                    _ => rate.map(|(codec, bits)| Evidence::Bits(codec, bits)),
                })
                .collect();
            let mut changes = vec![None; frames.len()];
            let (mut untold, mut told) = (Vec::new(), Vec::new());
            let mut source_quantizer = None;
            for (i, (frame, evidence)) in frames.iter_mut().zip(evidence).enumerate() {
                let mut job = frame.job(from, to).map_err(|e| self.failed(&e.into()))?;
                let known = matches!(evidence, Some(Evidence::Slice(_) | Evidence::Blocks(_)));
                let (upscaler, jobs) = match &state.told {
                    Some(upscaler) if known => (upscaler, &mut told),
                    _ => (&state.upscaler, &mut untold),
                };
                // How much repair is needed matters to every network of scale 1.
                let rated = upscaler.network().is_rated();
                let rating = evidence
                    .filter(|_| rated || state.scale == 1)
                    .and_then(|e| state.rater.rate(&job.input, &e, rated));
                if let Some(Rating { quantizer, need }) = rating {
                    let known = quantizer.value();
                    gst::trace!(CAT, imp = self, "Quantizer {known:?}, need {need}");
                    job.quantizer = quantizer;
                    job.strength *= need;
                }
                source_quantizer = job.quantizer.value();
                jobs.push((i, job));
            }
            let shares = [
                (Some(&mut state.upscaler), untold),
                (state.told.as_mut(), told),
            ];
            for (upscaler, jobs) in shares {
                let Some(upscaler) = upscaler.filter(|_| !jobs.is_empty()) else {
                    continue;
                };
                upscaler.set_watched(!analysis.is_empty());
                let (places, mut jobs): (Vec<usize>, Vec<_>) = jobs.into_iter().unzip();
                let outcome = upscaler
                    .run(&mut jobs, &self.cancel)
                    .map_err(|e| self.failed(&e))?;
                for (place, change) in places.into_iter().zip(outcome.changes) {
                    changes[place] = change;
                }
                let mut stats = lock(&self.stats);
                stats.network += outcome.network;
                for done in outcome.done {
                    match done {
                        Done::Enhanced => stats.enhanced += 1,
                        Done::Reused => stats.reused += 1,
                        Done::Plain => stats.passed_through += 1,
                    }
                }
            }
            lock(&self.stats).source_quantizer = source_quantizer.unwrap_or_default();
            for (frame, change) in frames.into_iter().zip(changes) {
                let mut buffer = frame.output.into_buffer();
                if let Some(change) = change {
                    let overlays = self.overlays.load(Ordering::Relaxed);
                    analysis::attach(
                        buffer.make_mut(),
                        &state.output,
                        &change,
                        analysis,
                        overlays,
                    )
                    .map_err(|what| {
                        gst::element_imp_error!(
                            self,
                            gst::StreamError::Failed,
                            ("The analysis cannot be drawn: {what}")
                        );
                        gst::FlowError::Error
                    })?;
                }
                scaled.push(buffer);
            }
        }
        let mut scaled = scaled.into_iter();
        let mut ready: Vec<_> = finished
            .into_iter()
            .filter_map(|buffer| buffer.or_else(|| scaled.next()))
            .collect();
        if state.discont
            && let Some(first) = ready.first_mut()
        {
            first.make_mut().set_flags(gst::BufferFlags::DISCONT);
            state.discont = false;
        }
        lock(&self.stats).frames_out += ready.len() as u64;
        ready.reverse();
        state.ready = ready;
        Ok(())
    }

    fn failed(&self, error: &SrError) -> gst::FlowError {
        if matches!(error, SrError::Nn(NnError::Cancelled)) {
            gst::debug!(CAT, imp = self, "Aborted");
            return gst::FlowError::Flushing;
        }
        self.explain(error);
        gst::FlowError::Error
    }

    /// Whether a sink has said that a frame would come too late; if so, the application hears of
    /// it.
    fn is_late(&self, buffer: &gst::BufferRef) -> bool {
        let obj = self.obj();
        let Some(deadline) = lock(&self.deadline).filter(|_| obj.is_qos()) else {
            return false;
        };
        let Ok(segment) = obj.segment().downcast::<gst::ClockTime>() else {
            return false;
        };
        let Some(time) = segment.to_running_time(buffer.pts()) else {
            return false;
        };
        if time > deadline {
            return false;
        }
        gst::debug!(
            CAT,
            imp = self,
            "Frame at {time} is late, the deadline is {deadline}"
        );
        let message = gst::message::Qos::builder(false)
            .src(&*obj)
            .running_time(time)
            .stream_time(segment.to_stream_time(buffer.pts()))
            .timestamp(buffer.pts())
            .duration(buffer.duration())
            .build();
        let _ = obj.post_message(message);
        true
    }
}

/// A frame with the buffer for its result.
struct Frame {
    input: gst_video::VideoFrame<gst_video::video_frame::Readable>,
    output: gst_video::VideoFrame<gst_video::video_frame::Writable>,
    strength: f32,
    late: bool,
}

impl Frame {
    fn map(
        imp: &NnSr,
        state: &State,
        buffer: gst::Buffer,
        strength: f32,
        late: bool,
    ) -> Result<Self, gst::FlowError> {
        // From the pool, with timestamps, flags and metadata of the input.
        let output = match imp.parent_prepare_output_buffer(InputBuffer::Readable(&buffer))? {
            PrepareOutputBufferSuccess::Buffer(output) => output,
            PrepareOutputBufferSuccess::InputBuffer => return Err(gst::FlowError::NotSupported),
        };
        let unusable = |buffer: gst::Buffer, info: &gst_video::VideoInfo| {
            gst::element_imp_error!(
                imp,
                gst::StreamError::Format,
                (
                    "A buffer of {} bytes is no picture of {} in {}x{}",
                    buffer.size(),
                    info.format(),
                    info.width(),
                    info.height()
                )
            );
            gst::FlowError::Error
        };
        let input = gst_video::VideoFrame::from_buffer_readable(buffer, &state.input)
            .map_err(|buffer| unusable(buffer, &state.input))?;
        let output = gst_video::VideoFrame::from_buffer_writable(output, &state.output)
            .map_err(|buffer| unusable(buffer, &state.output))?;
        Ok(Self {
            input,
            output,
            strength,
            late,
        })
    }

    fn job(&mut self, from: Layout, to: Layout) -> Result<Job<'_>, LayoutError> {
        // Nothing here walks rows backwards: a negative stride is refused as too small.
        let strides = |strides: &[i32], planes: usize| -> Vec<usize> {
            let stride = |s: &i32| usize::try_from(*s).unwrap_or(0);
            strides.iter().take(planes).map(stride).collect()
        };
        let planes = from.planes();
        let in_strides = strides(self.input.plane_stride(), planes);
        let out_strides = strides(self.output.plane_stride(), planes);
        let data = self.output.planes_data_mut().into_iter().take(planes);
        Ok(Job {
            input: Planes::new(from, &self.input.planes_data()[..planes], &in_strides)?,
            output: PlanesMut::new(to, data.collect(), &out_strides)?,
            strength: self.strength,
            quantizer: SourceQuantizer::Unknown,
            late: self.late,
        })
    }
}

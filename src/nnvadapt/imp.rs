// SPDX-License-Identifier: MPL-2.0

use std::sync::{LazyLock, Mutex, OnceLock};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use nnv_adapt::{Controller, Limits, Mode, Neural, Time, Tuning, Viewer};

use super::events::{self, News};
use crate::common::{self, lock};
use nnv_codec::config::BITRATES;

/// Largest value of the rate properties, in kbit/s.
const MAX_KBITS: u32 = (*BITRATES.end() / 1000) as u32;
/// Frames a second where the caps name no rate.
const USUAL_RATE: f64 = 25.0;
/// A change of the rate by less than this share is not handed on.
const WORTH: f64 = 0.02;
/// Seconds between two looks at the session's statistics, and without reports on packets before
/// they count.
const LOOK: f64 = 0.2;
const WITHOUT_PACKETS: f64 = 2.0;
/// Pictures have at least so many samples a side.
const LEAST_SIDE: u32 = 16;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnvadapt",
        gst::DebugColorFlags::empty(),
        Some("NNV encoder that follows network and viewer"),
    )
});

/// How the rate is found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnvAdaptController")]
pub enum Finder {
    #[enum_value(name = "Rule: trend of delay and loss, as in WebRTC", nick = "rule")]
    Rule,
    #[default]
    #[enum_value(name = "Learned: a forecast of the throughput", nick = "learned")]
    Learned,
}

#[derive(Debug, Clone)]
struct Settings {
    controller: Finder,
    /// kbit/s
    min: u32,
    max: u32,
    start: u32,
    resize: bool,
    /// Not kept alive by us.
    rtpbin: glib::WeakRef<gst::Element>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            controller: Finder::default(),
            min: 30,
            max: 4000,
            start: 300,
            resize: true,
            rtpbin: glib::WeakRef::new(),
        }
    }
}

impl Settings {
    fn limits(&self) -> Result<Limits, String> {
        let bits = |kbits: u32| f64::from(kbits) * 1e3;
        Limits::new(bits(self.min), bits(self.max)).ok_or_else(|| {
            format!(
                "min-bitrate={} is above max-bitrate={}: lower the one or raise the other",
                self.min, self.max
            )
        })
    }

    fn controller(&self) -> Result<Controller, String> {
        let limits = self.limits()?;
        let mode = match self.controller {
            Finder::Rule => Mode::rule(),
            Finder::Learned => {
                let neural = Neural::built_in().map_err(|e| e.to_string())?;
                let neural = neural.in_units_of(Neural::unit_below(limits.max()));
                Mode::Learned(Box::new(neural), Tuning::default())
            }
        };
        Ok(Controller::new(mode, limits, f64::from(self.start) * 1e3))
    }
}

struct State {
    controller: Controller,
    viewer: Viewer,
    /// What the encoder was told: kbit/s and size.
    kbits: u32,
    size: Option<(u32, u32)>,
    frames: u64,
    left_out: u64,
    packets_heard: Option<Time>,
    looked: Option<Time>,
    report: Option<(u32, u32)>,
}

struct Parts {
    filter: gst::Element,
    encoder: gst::Element,
}

#[derive(Default)]
pub struct NnvAdapt {
    settings: Mutex<Settings>,
    state: Mutex<Option<State>>,
    parts: OnceLock<Parts>,
}

/// What to change for a frame.
#[derive(Default)]
struct Change {
    kbits: Option<u32>,
    size: Option<(u32, u32)>,
}

#[glib::object_subclass]
impl ObjectSubclass for NnvAdapt {
    const NAME: &'static str = "GstNnvAdapt";
    type Type = super::NnvAdapt;
    type ParentType = gst::Bin;
}

impl ObjectImpl for NnvAdapt {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> =
            LazyLock::new(|| {
                let d = Settings::default();
                let rate = |name, nick, blurb, default| {
                    glib::ParamSpecUInt::builder(name)
                        .nick(nick)
                        .blurb(blurb)
                        .minimum(1)
                        .maximum(MAX_KBITS)
                        .default_value(default)
                        .mutable_playing()
                        .build()
                };
                vec![
                glib::ParamSpecEnum::builder::<Finder>("controller")
                    .nick("Controller")
                    .blurb("How the rate is found")
                    .mutable_ready()
                    .build(),
                rate("min-bitrate", "Minimum bitrate", "Lowest rate in kbit/s", d.min),
                rate("max-bitrate", "Maximum bitrate", "Highest rate in kbit/s", d.max),
                glib::ParamSpecUInt::builder("start-bitrate")
                    .nick("Start bitrate")
                    .blurb("Rate before anything is known of the network, in kbit/s")
                    .minimum(1)
                    .maximum(MAX_KBITS)
                    .default_value(d.start)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("resize")
                    .nick("Resize")
                    .blurb("Send smaller pictures where the rate or the viewer's window is small")
                    .default_value(d.resize)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecObject::builder::<gst::Element>("rtpbin")
                    .nick("RTP bin")
                    .blurb(
                        "The rtpbin whose first session's receiver reports count where no \
                         transport-wide feedback comes (unset: only feedback and events count)",
                    )
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("bitrate")
                    .nick("Bitrate")
                    .blurb("Rate that the encoder has now, in kbit/s (0: none yet)")
                    .maximum(MAX_KBITS)
                    .read_only()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb(
                        "Facts since the last start: frames, left-out (uint64), bitrate, width, \
                         height (uint), received in kbit/s, queue in ms, lost as a share (double)",
                    )
                    .read_only()
                    .build(),
            ]
            });
        &PROPERTIES
    }

    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let settings = {
            let mut s = lock(&self.settings);
            // The type system has checked the type of `value` against `pspec`.
            let uint = || value.get::<u32>().expect("type checked upstream");
            match pspec.name() {
                "controller" => s.controller = value.get().expect("type checked upstream"),
                "min-bitrate" => s.min = uint(),
                "max-bitrate" => s.max = uint(),
                "start-bitrate" => s.start = uint(),
                "resize" => s.resize = value.get().expect("type checked upstream"),
                "rtpbin" => {
                    let rtpbin: Option<gst::Element> = value.get().expect("type checked upstream");
                    s.rtpbin.set(rtpbin.as_ref());
                }
                name => unreachable!("property {name} (id {id}) is not one of nnvadapt"),
            }
            s.clone()
        };
        // While one of two limits is on its way past the other, the last pair counts.
        if let (Ok(limits), Some(state)) = (settings.limits(), lock(&self.state).as_mut()) {
            state.controller.set_limits(limits);
        }
    }

    fn property(&self, id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let s = lock(&self.settings).clone();
        match pspec.name() {
            "controller" => s.controller.to_value(),
            "min-bitrate" => s.min.to_value(),
            "max-bitrate" => s.max.to_value(),
            "start-bitrate" => s.start.to_value(),
            "resize" => s.resize.to_value(),
            "rtpbin" => s.rtpbin.upgrade().to_value(),
            "bitrate" => lock(&self.state)
                .as_ref()
                .map_or(0, |state| state.kbits)
                .to_value(),
            "stats" => self.stats().to_value(),
            name => unreachable!("property {name} (id {id}) is not one of nnvadapt"),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        let pads = ["sink", "src"].map(|name| {
            let template = obj.pad_template(name).expect("the class has this template");
            let pad = gst::GhostPad::from_template(&template);
            obj.add_pad(&pad).expect("the names of the pads differ");
            pad
        });
        match self.assemble(&pads) {
            Ok(parts) => drop(self.parts.set(parts)),
            Err(e) => gst::error!(CAT, imp = self, "Not complete: {e}"),
        }
        let [sink, src] = pads;
        let weak = self.downgrade();
        sink.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
            let imp = weak.upgrade();
            imp.map_or(gst::PadProbeReturn::Ok, |imp| imp.frame(pad.upcast_ref()))
        });
        let weak = self.downgrade();
        let both = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_UPSTREAM;
        src.add_probe(both, move |_, info| {
            if let Some(imp) = weak.upgrade() {
                match &info.data {
                    Some(gst::PadProbeData::Buffer(buffer)) => imp.sent(buffer.size()),
                    Some(gst::PadProbeData::Event(event)) => imp.event(event),
                    _ => {}
                }
            }
            gst::PadProbeReturn::Ok
        });
    }
}

impl GstObjectImpl for NnvAdapt {}

impl ElementImpl for NnvAdapt {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "NNV adaptive encoder",
                "Codec/Encoder/Video",
                "Encodes live video at the rate and size that network and viewer allow",
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
            gst::StateChange::NullToReady if self.parts.get().is_none() => {
                gst::element_imp_error!(
                    self,
                    gst::CoreError::MissingPlugin,
                    ["videoscale or capsfilter is missing: install GStreamer's base plugins"]
                );
                return Err(gst::StateChangeError);
            }
            gst::StateChange::ReadyToPaused => self.begin()?,
            _ => {}
        }
        let result = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            *lock(&self.state) = None;
        }
        Ok(result)
    }
}

impl BinImpl for NnvAdapt {}

impl ChildProxyImpl for NnvAdapt {
    fn child_by_name(&self, name: &str) -> Option<glib::Object> {
        self.obj().by_name(name).map(Cast::upcast)
    }

    fn child_by_index(&self, index: u32) -> Option<glib::Object> {
        let children = self.obj().children();
        children.into_iter().nth(index as usize).map(Cast::upcast)
    }

    fn children_count(&self) -> u32 {
        u32::try_from(self.obj().children().len()).unwrap_or(u32::MAX)
    }
}

/// The encoder's buffer in ms. With a second of it, one large frame after another held back all
/// between them on a path of 50 to 200 kbit/s: two frames a second, each later than a second.
const BUFFER_MS: u32 = 250;

/// The machine's clock, which `rtpsession` takes the times of its packets from.
fn now() -> Time {
    let time = gst::SystemClock::obtain().time();
    Time::from_us(i64::try_from(time.useconds()).unwrap_or(i64::MAX))
}

impl NnvAdapt {
    fn assemble(&self, [sink, src]: &[gst::GhostPad; 2]) -> Result<Parts, glib::BoolError> {
        let obj = self.obj();
        let make = |factory, name| gst::ElementFactory::make(factory).name(name).build();
        let scale = make("videoscale", "scale")?;
        let filter = make("capsfilter", "size")?;
        let encoder = gst::ElementFactory::make("nnvenc")
            .name("encoder")
            .property("bitrate", Settings::default().start)
            .property("bframes", 0_u32)
            .property_from_str("rate-control", "cbr")
            // After frames that were left out, a frame takes what they did not: no more than this
            // of it, or it is what the next ones wait for, and they are left out in turn.
            .property("vbv-buf-capacity", BUFFER_MS)
            .property("zerolatency", true)
            .build()?;
        obj.add_many([&scale, &filter, &encoder])?;
        gst::Element::link_many([&scale, &filter, &encoder])?;
        let target = |element: &gst::Element, name: &str| {
            element
                .static_pad(name)
                .ok_or_else(|| glib::bool_error!("{name} is missing"))
        };
        sink.set_target(Some(&target(&scale, "sink")?))?;
        src.set_target(Some(&target(&encoder, "src")?))?;
        Ok(Parts { filter, encoder })
    }

    fn begin(&self) -> Result<(), gst::StateChangeError> {
        let settings = lock(&self.settings).clone();
        let controller = settings.controller().map_err(|e| {
            gst::element_imp_error!(self, gst::LibraryError::Settings, ["{e}"]);
            gst::StateChangeError
        })?;
        *lock(&self.state) = Some(State {
            controller,
            viewer: Viewer::default(),
            kbits: 0,
            size: None,
            frames: 0,
            left_out: 0,
            packets_heard: None,
            looked: None,
            report: None,
        });
        Ok(())
    }

    /// A frame arrives: whether it is coded, and how.
    fn frame(&self, pad: &gst::Pad) -> gst::PadProbeReturn {
        let settings = lock(&self.settings).clone();
        let info = pad
            .current_caps()
            .and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok());
        let Some(info) = info else {
            return gst::PadProbeReturn::Ok;
        };
        // Its own locks are taken before ours.
        let report = settings
            .rtpbin
            .upgrade()
            .and_then(|rtpbin| events::session_report(&rtpbin));
        let change = {
            let mut guard = lock(&self.state);
            let Some(state) = guard.as_mut() else {
                return gst::PadProbeReturn::Ok;
            };
            state.look(report);
            state.change(&info, settings.resize)
        };
        let Some(change) = change else {
            gst::log!(CAT, imp = self, "A frame is left out");
            // Not `Drop`: with the bindings' 0.25.4, GStreamer then frees a buffer that is none.
            return gst::PadProbeReturn::Handled;
        };
        if let Some(parts) = self.parts.get() {
            if let Some(kbits) = change.kbits {
                gst::debug!(CAT, imp = self, "{kbits} kbit/s");
                parts.encoder.set_property("bitrate", kbits);
            }
            if let Some((width, height)) = change.size {
                gst::debug!(CAT, imp = self, "{width}x{height}");
                let caps = gst::Caps::builder("video/x-raw")
                    .field("width", width as i32)
                    .field("height", height as i32)
                    .build();
                parts.filter.set_property("caps", caps);
            }
        }
        gst::PadProbeReturn::Ok
    }

    /// An access unit leaves.
    fn sent(&self, bytes: usize) {
        if let Some(state) = lock(&self.state).as_mut() {
            state.controller.sent(now(), bytes);
        }
    }

    fn event(&self, event: &gst::Event) {
        let Some(structure) = event.structure() else {
            return;
        };
        let mut guard = lock(&self.state);
        let Some(state) = guard.as_mut() else { return };
        match events::news(structure, state.viewer) {
            Some(News::Packets(packets)) => {
                state.packets_heard = Some(now());
                state.controller.feedback(now(), &packets);
            }
            Some(News::Report(report)) => state.controller.receiver_report(now(), report),
            Some(News::Viewer(viewer)) => {
                gst::debug!(CAT, imp = self, "{viewer:?}");
                state.viewer = viewer;
                state.controller.set_viewer(viewer);
            }
            None => {}
        }
    }

    fn stats(&self) -> gst::Structure {
        let guard = lock(&self.state);
        let state = guard.as_ref();
        let count = |f: fn(&State) -> u64| state.map_or(0, f);
        let value = |f: fn(&Controller) -> f64| state.map_or(0.0, |s| f(&s.controller));
        let (width, height) = state.and_then(|s| s.size).unwrap_or((0, 0));
        gst::Structure::builder("application/x-nnvadapt-stats")
            .field("frames", count(|s| s.frames))
            .field("left-out", count(|s| s.left_out))
            .field("bitrate", state.map_or(0, |s| s.kbits))
            .field("width", width)
            .field("height", height)
            .field("received", value(|c| c.received() / 1e3))
            .field("queue", value(|c| c.queue() * 1e3))
            .field("lost", value(Controller::lost))
            .build()
    }
}

impl State {
    /// Takes a receiver report that is new, where no feedback on packets comes.
    fn look(&mut self, report: Option<(nnv_adapt::ReceiverReport, (u32, u32))>) {
        let now = now();
        let long_ago = |time: Option<Time>, seconds| time.is_none_or(|t| now.since(t) > seconds);
        if !long_ago(self.looked, LOOK) || !long_ago(self.packets_heard, WITHOUT_PACKETS) {
            return;
        }
        self.looked = Some(now);
        if let Some((report, which)) = report
            && self.report.replace(which) != Some(which)
        {
            self.controller.receiver_report(now, report);
        }
    }

    /// What changes with a frame of a source; `None`: it is left out.
    fn change(&mut self, info: &gst_video::VideoInfo, resize: bool) -> Option<Change> {
        let now = now();
        self.frames += 1;
        if !self.controller.admits(now) {
            self.left_out += 1;
            return None;
        }
        let (num, den) = (f64::from(info.fps().numer()), f64::from(info.fps().denom()));
        let fps = if num > 0.0 { num / den } else { USUAL_RATE };
        let source = (info.width(), info.height());
        let (rung, bitrate) = self.controller.shape(now, source, fps);
        let (quarters, divisor) = if resize {
            (rung.quarters, rung.divisor)
        } else {
            (4, 1)
        };
        if !self.frames.is_multiple_of(u64::from(divisor)) {
            self.left_out += 1;
            return None;
        }
        let mut change = Change::default();
        let kbits = ((bitrate / 1e3) as u32).clamp(1, MAX_KBITS);
        if f64::from(kbits.abs_diff(self.kbits)) > WORTH * f64::from(self.kbits) {
            self.kbits = kbits;
            change.kbits = Some(kbits);
        }
        let side = |n: u32| ((n * quarters / 4) & !1).max(LEAST_SIDE.min(n));
        let size = if quarters == 4 {
            source
        } else {
            (side(source.0), side(source.1))
        };
        if self.size != Some(size) {
            self.size = Some(size);
            change.size = Some(size);
        }
        Some(change)
    }
}

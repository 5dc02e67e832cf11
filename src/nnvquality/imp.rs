// SPDX-License-Identifier: MPL-2.0

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use nnv_nn::Judgement;
use nnv_quality::{
    Decision, FrameQuality, Mean, Meter, Pairing, QualityError, Upcoming, Vmaf, VmafError,
};

use super::QualityMetrics;
use super::files::{Files, Row};
use super::judge::{self, Judge};
use super::pictures::{self, Raw};
use crate::common::{self, lock};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnvquality",
        gst::DebugColorFlags::empty(),
        Some("Picture quality"),
    )
});

/// Name of the message at the end, and of the property `stats`.
const SUMMARY: &str = "nnvquality-summary";
/// Name of the message for each frame.
const FRAME: &str = "nnvquality-frame";
/// Frames this far apart are a pair where no frame rate is known.
const TOLERANCE: i64 = 20_000_000;
/// How long a reference waits for something to be linked to the other pad: bins like `decodebin`
/// link late.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(5);

#[derive(Debug, Clone)]
struct Settings {
    metrics: QualityMetrics,
    vmaf_model: String,
    frame_messages: bool,
    csv: Option<PathBuf>,
    json: Option<PathBuf>,
    model_path: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            metrics: QualityMetrics::SSIM,
            vmaf_model: Vmaf::DEFAULT_MODEL.into(),
            frame_messages: false,
            csv: None,
            json: None,
            model_path: None,
        }
    }
}

/// The reference's frame that is compared with.
struct Reference {
    raw: Raw,
    time: i64,
}

struct State {
    settings: Settings,
    files: Option<Files>,
    /// Caps of the pads, once they have come.
    distorted: Option<gst_video::VideoInfo>,
    reference: Option<gst_video::VideoInfo>,
    /// Caps that the source pad shall have before the next buffer.
    caps: Option<gst::Caps>,
    pairing: Pairing<Reference>,
    meter: Option<Meter>,
    /// Loaded with the first frame that has no reference.
    judge: Option<Judge>,
    /// For the meter, where it is asked for.
    vmaf: Option<Vmaf>,
    /// Frames that passed before their VMAF was known, and those behind them.
    rows: VecDeque<Row>,
    /// The last pair: distorted picture, time of the reference's.
    last: Option<(Raw, Raw)>,
    frames: u64,
    frozen: u64,
    warned: bool,
    finished: bool,
}

impl State {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            files: None,
            distorted: None,
            reference: None,
            caps: None,
            pairing: Pairing::new(TOLERANCE),
            meter: None,
            judge: None,
            vmaf: None,
            rows: VecDeque::new(),
            last: None,
            frames: 0,
            frozen: 0,
            warned: false,
            finished: false,
        }
    }

    fn counts(&self) -> [(&'static str, u64); 6] {
        let n = self.pairing.counts();
        [
            ("frames", self.frames),
            ("pairs", n.pairs),
            ("dropped", n.dropped),
            ("repeated", n.repeated),
            ("unmatched", n.unmatched),
            ("frozen", self.frozen),
        ]
    }

    fn mean(&self) -> Option<Mean> {
        self.meter.as_ref().and_then(Meter::mean)
    }

    /// Name of the model that VMAF is of.
    fn vmaf_model(&self) -> Option<&str> {
        let measuring = self.meter.as_ref().and_then(Meter::vmaf);
        measuring.or(self.vmaf.as_ref()).map(Vmaf::model)
    }

    /// Writes the frames of which all is known, and gives their messages.
    fn publish(&mut self) -> Result<Vec<gst::Structure>, String> {
        let mut messages = Vec::new();
        while let Some(row) = self.rows.front_mut() {
            if let (Some(quality), Some(meter)) = (&mut row.quality, &mut self.meter)
                && !meter.complete(quality)
            {
                break;
            }
            if let Some(files) = &mut self.files {
                files.add(row)?;
            }
            if self.settings.frame_messages {
                messages.push(message(row));
            }
            self.rows.pop_front();
        }
        Ok(messages)
    }

    fn summary(&self) -> gst::Structure {
        let mut summary = gst::Structure::new_empty(SUMMARY);
        for (name, count) in self.counts() {
            summary.set(name, count);
        }
        if let Some(mean) = self.mean() {
            set_values(&mut summary, &mean.values());
        }
        if let Some(mean) = self.judge.as_ref().and_then(Judge::mean) {
            set_judged(&mut summary, mean);
        }
        if let Some((frame, db)) = self.meter.as_ref().and_then(|m| m.clip().worst()) {
            summary.set("worst-pair", frame);
            summary.set("worst-psnr", db);
        }
        if let Some(model) = self.vmaf_model() {
            summary.set("vmaf-model", model);
        }
        summary
    }
}

/// What is said of a frame.
fn message(row: &Row) -> gst::Structure {
    let mut message = gst::Structure::new_empty(FRAME);
    message.set("frame", row.frame);
    message.set("running-time", row.time);
    message.set("frozen", row.frozen);
    if let Some(reference) = row.reference {
        message.set("reference-time", reference);
    }
    if let Some(quality) = row.quality {
        set_values(&mut message, &quality.values());
    }
    if let Some(judgement) = &row.judgement {
        set_judged(&mut message, judge::values(judgement));
    }
    message
}

fn set_values(structure: &mut gst::StructureRef, values: &[Option<f64>]) {
    for (name, value) in FrameQuality::NAMES.into_iter().zip(values) {
        if let Some(value) = value {
            structure.set(name, *value);
        }
    }
}

fn set_judged(structure: &mut gst::StructureRef, values: [f64; judge::NAMES.len()]) {
    for (name, value) in judge::NAMES.into_iter().zip(values) {
        structure.set(name, value);
    }
}

/// What `aggregate` does with the distorted pad's buffer.
enum Next {
    Wait,
    /// Pass it on; caps to set and messages to post before.
    Pass(Option<gst::Caps>, Vec<gst::Structure>),
}

pub struct NnvQuality {
    settings: Mutex<Settings>,
    state: Mutex<State>,
    distorted: gst_base::AggregatorPad,
    /// Looks whether the distorted pad was linked.
    unlinked: Mutex<Option<gst::SingleShotClockId>>,
    /// The last summary, so that reading it never waits for a measurement.
    shown: Mutex<Option<gst::Structure>>,
}

#[glib::object_subclass]
impl ObjectSubclass for NnvQuality {
    const NAME: &'static str = "GstNnvQuality";
    type Type = super::NnvQuality;
    type ParentType = gst_base::Aggregator;

    fn with_class(klass: &Self::Class) -> Self {
        let template = klass
            .pad_template("distorted")
            .expect("it is among the templates");
        Self {
            settings: Mutex::default(),
            state: Mutex::new(State::new(Settings::default())),
            distorted: gst::PadBuilder::<gst_base::AggregatorPad>::from_template(&template).build(),
            unlinked: Mutex::default(),
            shown: Mutex::default(),
        }
    }
}

impl ObjectImpl for NnvQuality {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecFlags::builder::<QualityMetrics>("metrics")
                    .nick("Measures")
                    .blurb("What is measured beside PSNR of each plane")
                    .default_value(Settings::default().metrics)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("vmaf-model")
                    .nick("VMAF's model")
                    .blurb("Model of VMAF, of those that libvmaf has built in; newest: the newest")
                    .default_value(Some(Vmaf::DEFAULT_MODEL))
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("frame-messages")
                    .nick("Message for each frame")
                    .blurb("Post an element message nnvquality-frame for each frame")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("csv-location")
                    .nick("CSV file")
                    .blurb("File for the measures of each frame (unset: none)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("json-location")
                    .nick("JSON file")
                    .blurb("File for the measures of each frame and of the whole (unset: none)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("model-path")
                    .nick("Model path")
                    .blurb(
                        "Folder of a bundle of kind quality, which judges video that has no \
                         reference (unset: the built-in one)",
                    )
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb(
                        "frames, pairs, dropped (of the reference, passed over), repeated (beside \
                         the same frame of the reference again), unmatched (the reference has \
                         none), frozen (unlike the reference, did not change); means so far: \
                         psnr-* of the mean error, ssim-*, ms-ssim-y, xpsnr-*, ssimulacra2, vmaf; \
                         worst-pair, worst-psnr, vmaf-model; without a reference predicted-vmaf, \
                         predicted-ssimulacra2, and as shares blocking, blur, noise, freeze",
                    )
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = lock(&self.settings);
        let path = || {
            let path = value.get::<Option<String>>();
            let path = path.expect("type checked upstream");
            path.filter(|path| !path.is_empty()).map(PathBuf::from)
        };
        match pspec.name() {
            "metrics" => settings.metrics = value.get().expect("type checked upstream"),
            "vmaf-model" => {
                let model: Option<String> = value.get().expect("type checked upstream");
                settings.vmaf_model = model.unwrap_or_else(|| Settings::default().vmaf_model);
            }
            "frame-messages" => {
                settings.frame_messages = value.get().expect("type checked upstream");
            }
            "csv-location" => settings.csv = path(),
            "json-location" => settings.json = path(),
            "model-path" => settings.model_path = path(),
            other => unreachable!("no property {other}"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let path = |path: &Option<PathBuf>| {
            let path = path.as_ref().map(|p| p.to_string_lossy().into_owned());
            path.to_value()
        };
        let settings = lock(&self.settings);
        match pspec.name() {
            "metrics" => settings.metrics.to_value(),
            "vmaf-model" => settings.vmaf_model.to_value(),
            "frame-messages" => settings.frame_messages.to_value(),
            "csv-location" => path(&settings.csv),
            "json-location" => path(&settings.json),
            "model-path" => path(&settings.model_path),
            "stats" => {
                let shown = lock(&self.shown).clone();
                let empty = || gst::Structure::new_empty(SUMMARY);
                shown.unwrap_or_else(empty).to_value()
            }
            other => unreachable!("no property {other}"),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let added = self.obj().add_pad(&self.distorted);
        added.expect("the element has no pad of this name yet");
    }
}

impl GstObjectImpl for NnvQuality {}

impl ElementImpl for NnvQuality {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "Quality measures",
                "Filter/Analyzer/Video",
                "Measures video beside its reference (PSNR, SSIM, MS-SSIM, XPSNR, SSIMULACRA2, \
                 VMAF) or judges it without one, and passes it on as it is",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = pictures::caps();
            let template = |name: &str, direction, presence| {
                let pad = gst_base::AggregatorPad::static_type();
                gst::PadTemplate::with_gtype(name, direction, presence, &caps, pad)
                    .expect("templates are valid")
            };
            vec![
                template(
                    "distorted",
                    gst::PadDirection::Sink,
                    gst::PadPresence::Always,
                ),
                template(
                    "reference",
                    gst::PadDirection::Sink,
                    gst::PadPresence::Request,
                ),
                template("src", gst::PadDirection::Src, gst::PadPresence::Always),
            ]
        });
        &TEMPLATES
    }
}

impl AggregatorImpl for NnvQuality {
    fn create_new_pad(
        &self,
        template: &gst::PadTemplate,
        _name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst_base::AggregatorPad> {
        // There is one reference.
        if template.name_template() != "reference" || self.reference().is_some() {
            return None;
        }
        Some(
            gst::PadBuilder::<gst_base::AggregatorPad>::from_template(template)
                .name("reference")
                .build(),
        )
    }

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let vmaf = settings.metrics.contains(QualityMetrics::VMAF);
        let vmaf = vmaf.then(|| Vmaf::new(&settings.vmaf_model)).transpose();
        let vmaf = vmaf.map_err(|e| match e {
            VmafError::Missing(_) => gst::error_msg!(gst::ResourceError::NotFound, ("{e}")),
            _ => gst::error_msg!(gst::ResourceError::Settings, ("{e}")),
        })?;
        let files = Files::create(settings.csv.as_deref(), settings.json.as_deref());
        let files =
            files.map_err(|text| gst::error_msg!(gst::ResourceError::OpenWrite, ("{text}")))?;
        let mut state = lock(&self.state);
        *state = State::new(settings);
        state.files = Some(files);
        state.vmaf = vmaf;
        drop(state);
        *lock(&self.shown) = None;
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(id) = lock(&self.unlinked).take() {
            id.unschedule();
        }
        self.finish();
        let settings = lock(&self.settings).clone();
        *lock(&self.state) = State::new(settings);
        Ok(())
    }

    fn flush(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        // After a seek other frames belong together; what was measured stays.
        let mut state = lock(&self.state);
        state.pairing.forget();
        state.last = None;
        if let Some(judge) = &mut state.judge {
            judge.begin();
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn negotiate(&self) -> bool {
        // The distorted video's caps are set with its first buffer.
        true
    }

    fn sink_event(&self, pad: &gst_base::AggregatorPad, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Caps(caps) if !self.set_caps(pad, caps.caps()) => return false,
            // Times of passed buffers stay as they are.
            gst::EventView::Segment(segment) if *pad == self.distorted => {
                match segment.segment().downcast_ref::<gst::ClockTime>() {
                    Some(segment) => self.obj().update_segment(segment),
                    None => {
                        gst::element_imp_error!(
                            self,
                            gst::StreamError::Format,
                            ("The video has no segment in time: frames cannot be paired")
                        );
                        return false;
                    }
                }
            }
            _ => {}
        }
        self.parent_sink_event(pad, event)
    }

    fn aggregate(&self, timeout: bool) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Some(buffer) = self.distorted.peek_buffer() else {
            if self.distorted.is_eos() {
                self.finish();
                return Err(gst::FlowError::Eos);
            }
            return Err(gst_base::AGGREGATOR_FLOW_NEED_DATA);
        };
        match self.next(&buffer, timeout)? {
            Next::Wait => Err(gst_base::AGGREGATOR_FLOW_NEED_DATA),
            Next::Pass(caps, messages) => {
                if let Some(caps) = caps {
                    self.obj().set_src_caps(&caps);
                }
                for message in messages {
                    self.post_structure(message);
                }
                self.distorted.drop_buffer();
                self.obj().finish_buffer(buffer)
            }
        }
    }
}

impl NnvQuality {
    fn reference(&self) -> Option<gst_base::AggregatorPad> {
        let pad = self.obj().static_pad("reference")?;
        pad.downcast().ok()
    }

    /// Says so where a reference has come and nothing is linked that would be measured: the base
    /// class waits for it without end.
    fn expect_distorted(&self) {
        let mut unlinked = lock(&self.unlinked);
        if unlinked.is_some() || self.distorted.is_linked() {
            return;
        }
        let clock = gst::SystemClock::obtain();
        let id = clock.new_single_shot_id(clock.time() + PATIENCE);
        let weak = self.obj().downgrade();
        let asked = id.wait_async(move |_, _, _| {
            let Some(element) = weak.upgrade() else {
                return;
            };
            if !element.imp().distorted.is_linked() {
                gst::element_error!(
                    element,
                    gst::CoreError::Pad,
                    ("Nothing is linked to the pad distorted, so there is nothing to compare with \
                         the reference. Link what is to be measured to it; video without a \
                         reference goes there, too, and is judged")
                );
            }
        });
        match asked {
            Ok(_) => *unlinked = Some(id),
            Err(e) => gst::warning!(CAT, imp = self, "Nobody looks at the pads: {e}"),
        }
    }

    fn set_caps(&self, pad: &gst_base::AggregatorPad, caps: &gst::CapsRef) -> bool {
        gst::debug!(CAT, obj = pad, "{caps}");
        let Ok(info) = gst_video::VideoInfo::from_caps(caps) else {
            return false;
        };
        if *pad != self.distorted {
            self.expect_distorted();
        }
        let mut state = lock(&self.state);
        if *pad == self.distorted {
            state.distorted = Some(info);
            state.caps = Some(caps.to_owned());
        } else {
            let rate = info.fps();
            if rate.numer() > 0 && rate.denom() > 0 {
                let frame = 1_000_000_000 * i64::from(rate.denom()) / i64::from(rate.numer());
                state.pairing.set_tolerance(frame / 2 + 1_000_000);
            }
            state.reference = Some(info);
        }
        let (Some(a), Some(b)) = (&state.reference, &state.distorted) else {
            return true;
        };
        let (a, b) = (pictures::colour(a), pictures::colour(b));
        if a == b || state.warned {
            return true;
        }
        state.warned = true;
        drop(state);
        gst::element_imp_warning!(
            self,
            gst::StreamError::Format,
            ("Colours differ: {a:?} beside {b:?}; codes are compared as they are. Put a \
                 videoconvert before one of the pads where they shall mean the same")
        );
        true
    }

    /// Compares, or waits for the reference.
    fn next(&self, buffer: &gst::Buffer, timeout: bool) -> Result<Next, gst::FlowError> {
        let reference = self.reference();
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let Some(info) = state.distorted.clone() else {
            return Err(gst::FlowError::NotNegotiated);
        };
        let Some(time) = running_time(&self.distorted, buffer) else {
            drop(guard);
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("A frame without time on the pad distorted cannot be paired")
            );
            return Err(gst::FlowError::Error);
        };
        let raw = Raw {
            buffer: buffer.clone(),
            info,
        };
        let mut row = Row {
            frame: state.frames,
            time,
            reference: None,
            frozen: false,
            quality: None,
            judgement: None,
        };
        let mut warnings = Vec::new();
        if let Some(pad) = reference {
            let next = pad.peek_buffer();
            let upcoming = match &next {
                Some(next) => {
                    let Some(time) = running_time(&pad, next) else {
                        // What has no time is passed over.
                        pad.drop_buffer();
                        return Ok(Next::Wait);
                    };
                    Upcoming::Time(time)
                }
                None if pad.is_eos() || timeout => Upcoming::End,
                None => Upcoming::Unknown,
            };
            match (state.pairing.decide(time, upcoming), upcoming) {
                (Decision::Take, Upcoming::Time(time)) => {
                    let Some((buffer, info)) = pad.pop_buffer().zip(state.reference.clone()) else {
                        return Err(gst::FlowError::NotNegotiated);
                    };
                    let raw = Raw { buffer, info };
                    state.pairing.take(time, Reference { raw, time });
                    // Caps may stand before its next buffer: let the base class handle them.
                    return Ok(Next::Wait);
                }
                (Decision::Take | Decision::Wait, _) => return Ok(Next::Wait),
                (Decision::Alone, _) => {}
                (Decision::Pair, _) => match measure(state, &raw) {
                    Ok((quality, reference, frozen)) => {
                        row.quality = Some(quality);
                        row.reference = Some(reference);
                        row.frozen = frozen;
                        state.frozen += u64::from(frozen);
                    }
                    Err(text) => {
                        drop(guard);
                        gst::element_imp_error!(self, gst::StreamError::Failed, ("{text}"));
                        return Err(gst::FlowError::Error);
                    }
                },
            }
        } else {
            match judge(state, &raw, &mut warnings) {
                Ok(judgement) => row.judgement = judgement,
                Err(message) => {
                    drop(guard);
                    self.post_error_message(message);
                    return Err(gst::FlowError::Error);
                }
            }
        }
        state.frames += 1;
        state.rows.push_back(row);
        let messages = match state.publish() {
            Ok(messages) => messages,
            Err(e) => {
                drop(guard);
                self.cannot_write(&e);
                return Err(gst::FlowError::Error);
            }
        };
        let summary = state.summary();
        let caps = state.caps.take();
        drop(guard);
        for text in warnings {
            gst::element_imp_warning!(self, gst::StreamError::Failed, ("{text}"));
        }
        *lock(&self.shown) = Some(summary);
        Ok(Next::Pass(caps, messages))
    }

    /// Publishes what waited, ends the files and posts the summary, once.
    fn finish(&self) {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if state.files.is_none() || std::mem::replace(&mut state.finished, true) {
            return;
        }
        let measured = state.meter.as_mut().map_or(Ok(()), Meter::finish);
        let published = state.publish();
        let (counts, mean) = (state.counts(), state.mean());
        let judged = state.judge.as_ref().and_then(Judge::mean);
        let written = state.files.take().map_or(Ok(()), |files| {
            files.finish(&counts, mean.as_ref(), judged, state.vmaf_model())
        });
        let summary = state.summary();
        drop(guard);
        if let Err(e) = measured {
            gst::element_imp_error!(self, gst::StreamError::Failed, ("{}", incomparable(&e)));
        }
        match published {
            Ok(messages) => messages.into_iter().for_each(|m| self.post_structure(m)),
            Err(e) => self.cannot_write(&e),
        }
        if let Err(e) = written {
            self.cannot_write(&e);
        }
        *lock(&self.shown) = Some(summary.clone());
        self.post_structure(summary);
    }

    fn cannot_write(&self, text: &str) {
        gst::element_imp_error!(self, gst::ResourceError::Write, ("{text}"));
    }

    fn post_structure(&self, structure: gst::Structure) {
        let obj = self.obj();
        let message = gst::message::Element::builder(structure).src(&*obj).build();
        // Without a bus nobody listens.
        let _ = obj.post_message(message);
    }
}

/// Measures a picture beside the current one of the reference: what it is worth, the reference's
/// time, and whether it froze.
fn measure(state: &mut State, raw: &Raw) -> Result<(FrameQuality, i64, bool), String> {
    let Some(reference) = state.pairing.current() else {
        return Err("There is no frame of the reference".into());
    };
    let metrics = state.settings.metrics;
    let vmaf = &mut state.vmaf;
    let meter = state.meter.get_or_insert_with(|| {
        let rate = reference.raw.info.fps();
        let rate = u32::try_from(rate.numer() / rate.denom().max(1)).unwrap_or_default();
        let colour = pictures::colour(&reference.raw.info);
        Meter::new(metrics.into(), rate, colour).with_vmaf(vmaf.take())
    });
    let quality = reference.raw.with_planes(|a| {
        raw.with_planes(|b| -> Result<FrameQuality, QualityError> {
            meter.add(&a.views()?, &b.views()?)
        })
    });
    let quality = quality
        .flatten()
        .ok_or("A buffer is smaller than its caps say")?
        .map_err(|e| incomparable(&e))?;
    let frozen = state
        .last
        .as_ref()
        .is_some_and(|(before, reference_before)| {
            raw.is_same(before) && !reference.raw.is_same(reference_before)
        });
    let time = reference.time;
    state.last = Some((raw.clone(), reference.raw.clone()));
    Ok((quality, time, frozen))
}

/// Judges a picture that has no reference. What is worth a warning goes into `warnings`.
fn judge(
    state: &mut State,
    raw: &Raw,
    warnings: &mut Vec<String>,
) -> Result<Option<Judgement>, gst::ErrorMessage> {
    let judge = match &mut state.judge {
        Some(judge) => judge,
        None => {
            let metrics = state.settings.metrics;
            // The default is nobody's wish.
            if metrics != Settings::default().metrics && !metrics.is_empty() {
                let flags = metrics.to_value();
                let flags = glib::FlagsValue::from_value(&flags).map_or(Vec::new(), |(_, v)| v);
                let names: Vec<_> = flags.iter().map(|flag| flag.nick()).collect();
                let names = names.join("+");
                warnings.push(format!(
                    "metrics={names} is not measured: that takes a reference, on the pad \
                     reference. Without one a network judges the video (predicted-vmaf and others)"
                ));
            }
            let judge = Judge::load(state.settings.model_path.clone())?;
            state.judge.insert(judge)
        }
    };
    warnings.extend(judge.too_small(raw));
    let failed = |text| gst::error_msg!(gst::StreamError::Failed, ("{text}"));
    judge.add(raw).map_err(failed)
}

fn incomparable(e: &QualityError) -> String {
    format!("Frames cannot be compared: {e}")
}

/// Running time of a buffer in ns.
fn running_time(pad: &gst_base::AggregatorPad, buffer: &gst::BufferRef) -> Option<i64> {
    let segment = pad.segment();
    let segment = segment.downcast_ref::<gst::ClockTime>()?;
    Some(match segment.to_running_time_full(buffer.pts()?)? {
        gst::Signed::Positive(t) => i64::try_from(t.nseconds()).ok()?,
        gst::Signed::Negative(t) => -i64::try_from(t.nseconds()).ok()?,
    })
}

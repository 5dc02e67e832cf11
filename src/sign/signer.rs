// SPDX-License-Identifier: MPL-2.0

use std::sync::{LazyLock, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::base_transform::GenerateOutputSuccess;
use gst_base::subclass::prelude::*;
use nnv_crypt::keys::parse_signing_key;
use nnv_crypt::sign::{Last, Signer};

use crate::common::{self, lock};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnvsign",
        gst::DebugColorFlags::empty(),
        Some("NNV signatures"),
    )
});

#[derive(Clone, Debug, Default)]
struct Settings {
    key_file: Option<String>,
    interval: u32,
    time: bool,
}

#[derive(Debug)]
struct State {
    signer: Signer,
    /// Waits for what follows it.
    held: Option<gst::Buffer>,
    frame_duration: gst::ClockTime,
}

#[derive(Default)]
pub struct NnvSign {
    settings: Mutex<Settings>,
    state: Mutex<Option<State>>,
}

#[glib::object_subclass]
impl ObjectSubclass for NnvSign {
    const NAME: &'static str = "GstNnvSign";
    type Type = super::NnvSign;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for NnvSign {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder("key-file")
                    .nick("Key")
                    .blurb("File with the secret key to sign with (nnv keygen makes one)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("interval")
                    .nick("Interval")
                    .blurb(
                        "Most frames between two signatures (0: a group of pictures, whatever its \
                         length)",
                    )
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("time")
                    .nick("Time")
                    .blurb("Sign this machine's time of day with each group of pictures")
                    .mutable_ready()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut s = lock(&self.settings);
        match pspec.name() {
            "key-file" => s.key_file = value.get().expect("type checked upstream"),
            "interval" => s.interval = value.get().expect("type checked upstream"),
            "time" => s.time = value.get().expect("type checked upstream"),
            name => unreachable!("property {name} (id {id}) is not one of nnvsign"),
        }
    }

    fn property(&self, id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let s = lock(&self.settings);
        match pspec.name() {
            "key-file" => s.key_file.to_value(),
            "interval" => s.interval.to_value(),
            "time" => s.time.to_value(),
            name => unreachable!("property {name} (id {id}) is not one of nnvsign"),
        }
    }
}

impl GstObjectImpl for NnvSign {}

impl ElementImpl for NnvSign {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "NNV signatures",
                "Filter/Video",
                "Signs NNV video behind the encoder, so that nnvverify can tell whether anything \
                 was changed, removed or added",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| common::templates(&common::parsed_caps(), &common::parsed_caps()));
        &TEMPLATES
    }
}

impl BaseTransformImpl for NnvSign {
    const MODE: gst_base::subclass::BaseTransformMode =
        gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let signer = self
            .new_signer()
            .map_err(|what| gst::error_msg!(gst::ResourceError::Settings, ("{what}")))?;
        *lock(&self.state) = Some(State {
            signer,
            held: None,
            frame_duration: gst::ClockTime::ZERO,
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = None;
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let rate = incaps
            .structure(0)
            .and_then(|s| s.get::<gst::Fraction>("framerate").ok())
            .and_then(|r| Some((r.numer().try_into().ok()?, r.denom().try_into().ok()?)))
            .filter(|(num, _): &(u32, u32)| *num > 0);
        let duration = common::frame_duration(rate);
        let changed = match lock(&self.state).as_mut() {
            Some(state) => std::mem::replace(&mut state.frame_duration, duration) != duration,
            None => false,
        };
        if changed {
            let message = gst::message::Latency::builder().src(&*self.obj()).build();
            // Nobody listens only while the element goes away.
            let _ = self.obj().post_message(message);
        }
        Ok(())
    }

    fn query(&self, direction: gst::PadDirection, query: &mut gst::QueryRef) -> bool {
        let answered = BaseTransformImplExt::parent_query(self, direction, query);
        if answered
            && direction == gst::PadDirection::Src
            && let gst::QueryViewMut::Latency(latency) = query.view_mut()
        {
            let held = lock(&self.state).as_ref().map(|s| s.frame_duration);
            let held = held.unwrap_or_default();
            let (live, min, max) = latency.result();
            latency.set(live, min + held, max.map(|max| max + held));
        }
        answered
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Eos(_) => self.drain(true),
            gst::EventView::Caps(_) | gst::EventView::Segment(_) => self.drain(false),
            gst::EventView::FlushStop(_) => self.restart(),
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
        let Some(next) = self.take_queued_buffer() else {
            return Ok(GenerateOutputSuccess::NoOutput);
        };
        let time = self.time();
        let signed = {
            let map = next.map_readable().map_err(|_| gst::FlowError::Error)?;
            let mut state = lock(&self.state);
            let state = state.as_mut().ok_or(gst::FlowError::Flushing)?;
            let Some(held) = state.held.take() else {
                drop(map);
                state.held = Some(next);
                return Ok(GenerateOutputSuccess::NoOutput);
            };
            let last = match state.signer.ends_before(&map) {
                Ok(true) => Last::OfGroup { time },
                // What cannot be read is told when its turn comes.
                _ => Last::No,
            };
            drop(map);
            state.held = Some(next);
            sign(&mut state.signer, held, last)
        };
        match signed {
            Ok(buffer) => Ok(GenerateOutputSuccess::Buffer(buffer)),
            Err(what) => {
                gst::element_imp_error!(self, gst::StreamError::Format, ("{what}"));
                Err(gst::FlowError::Error)
            }
        }
    }
}

/// Signs an access unit where that is due.
fn sign(signer: &mut Signer, mut buffer: gst::Buffer, last: Last) -> Result<gst::Buffer, String> {
    let signed = {
        let map = buffer.map_readable().map_err(|e| e.to_string())?;
        signer.push(&map, last).map_err(|e| {
            format!("an access unit cannot be signed: {e} (nnvsign stands before nnvencrypt)")
        })?
    };
    common::replace(buffer.make_mut(), signed);
    Ok(buffer)
}

impl NnvSign {
    fn new_signer(&self) -> Result<Signer, String> {
        let settings = lock(&self.settings).clone();
        let path = settings
            .key_file
            .ok_or("nnvsign has no key: set key-file (nnv keygen makes one)")?;
        let text = std::fs::read_to_string(&path)
            .map(zeroize::Zeroizing::new)
            .map_err(|e| format!("key-file {path}: {e}"))?;
        let key = parse_signing_key(&text).map_err(|e| format!("key-file {path}: {e}"))?;
        Signer::new(key, settings.interval).map_err(|e| e.to_string())
    }

    /// This machine's time of day as Unix time in ns, where it is wanted.
    fn time(&self) -> Option<u64> {
        let wanted = lock(&self.settings).time;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        wanted.then_some(u64::try_from(since.as_nanos()).ok()?)
    }

    /// Another stream begins.
    fn restart(&self) {
        let signer = self.new_signer();
        if let Some(state) = lock(&self.state).as_mut() {
            state.held = None;
            match signer {
                Ok(signer) => state.signer = signer,
                Err(what) => gst::warning!(CAT, imp = self, "The old key stays in use: {what}"),
            }
        }
    }

    /// Hands out what waits.
    fn drain(&self, end: bool) {
        let time = self.time();
        let last = if end {
            Last::OfStream { time }
        } else {
            Last::OfGroup { time }
        };
        let signed = lock(&self.state).as_mut().and_then(|state| {
            let held = state.held.take()?;
            Some(sign(&mut state.signer, held, last))
        });
        match signed {
            None => {}
            Some(Ok(buffer)) => {
                if let Err(e) = self.obj().src_pad().push(buffer) {
                    gst::debug!(CAT, imp = self, "The last frame is not taken: {e}");
                }
            }
            Some(Err(what)) => {
                gst::element_imp_error!(self, gst::StreamError::Format, ("{what}"));
            }
        }
    }
}

// SPDX-License-Identifier: MPL-2.0

use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use nnv_bitstream::BitstreamError;
use nnv_crypt::encrypt::{Decryptor, Refusal};

use super::Keys;
use crate::common::{self, lock};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnvdecrypt",
        gst::DebugColorFlags::empty(),
        Some("NNV decryption"),
    )
});

const STATS: &str = "application/x-nnvdecrypt-stats";
const WINDOW: u32 = 64;
/// Least time between two requests for a key frame.
const ASK_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Settings {
    keys: Keys,
    window: u32,
    allow_plain: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keys: Keys::default(),
            window: WINDOW,
            allow_plain: false,
        }
    }
}

/// Totals since the last start.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    decrypted: u64,
    plain: u64,
    tampered: u64,
    replayed: u64,
    unkeyed: u64,
    damaged: u64,
}

impl Totals {
    fn refused(&self) -> u64 {
        self.tampered + self.replayed + self.unkeyed + self.damaged + self.plain
    }
}

#[derive(Debug)]
struct State {
    decryptor: Decryptor,
    /// Why the last frame was refused, so that it is told once for all in a row.
    refused: Option<Refusal>,
    /// When a key frame was asked for last.
    asked: Option<Instant>,
}

#[derive(Default)]
pub struct NnvDecrypt {
    settings: Mutex<Settings>,
    state: Mutex<Option<State>>,
    totals: Mutex<Totals>,
}

#[glib::object_subclass]
impl ObjectSubclass for NnvDecrypt {
    const NAME: &'static str = "GstNnvDecrypt";
    type Type = super::NnvDecrypt;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for NnvDecrypt {
    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(Keys::signals);
        &SIGNALS
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let mut specs = Keys::properties();
            specs.extend([
                glib::ParamSpecUInt::builder("replay-window")
                    .nick("Replay window")
                    .blurb(
                        "Frames that may come later than newer ones; those that come twice or even \
                         later are refused (0: take all, as for a file played in a loop)",
                    )
                    .maximum(65536)
                    .default_value(WINDOW)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("allow-plain")
                    .nick("Allow plain frames")
                    .blurb(
                        "Let frames pass that are not encrypted, which anybody may have put in \
                         place of others",
                    )
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb(
                        "Frames since the last start, all uint64: decrypted; refused as tampered, \
                         replayed, unkeyed, damaged, plain",
                    )
                    .read_only()
                    .build(),
            ]);
            specs
        });
        &PROPERTIES
    }

    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut guard = lock(&self.settings);
        if guard.keys.set(value, pspec) {
            return;
        }
        match pspec.name() {
            "replay-window" => guard.window = value.get().expect("type checked upstream"),
            "allow-plain" => guard.allow_plain = value.get().expect("type checked upstream"),
            name => unreachable!("property {name} (id {id}) is not one of nnvdecrypt"),
        }
    }

    fn property(&self, id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let s = lock(&self.settings);
        match pspec.name() {
            "key-file" => s.keys.file.to_value(),
            "replay-window" => s.window.to_value(),
            "allow-plain" => s.allow_plain.to_value(),
            "stats" => {
                let t = *lock(&self.totals);
                gst::Structure::builder(STATS)
                    .field("decrypted", t.decrypted)
                    .field("tampered", t.tampered)
                    .field("replayed", t.replayed)
                    .field("unkeyed", t.unkeyed)
                    .field("damaged", t.damaged)
                    .field("plain", t.plain)
                    .build()
                    .to_value()
            }
            name => unreachable!("property {name} (id {id}) is not one of nnvdecrypt"),
        }
    }
}

impl GstObjectImpl for NnvDecrypt {}

impl ElementImpl for NnvDecrypt {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "NNV decryption",
                "Filter/Decryptor/Video",
                "Decrypts NNV video in front of the decoder; refuses what was changed, sent twice \
                 or not encrypted",
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

impl BaseTransformImpl for NnvDecrypt {
    const MODE: gst_base::subclass::BaseTransformMode =
        gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        if let Some(Err(e)) = &settings.keys.key {
            return Err(gst::error_msg!(gst::ResourceError::Settings, ("key: {e}")));
        }
        *lock(&self.totals) = Totals::default();
        *lock(&self.state) = Some(State {
            decryptor: Decryptor::new(settings.window),
            refused: None,
            asked: None,
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = None;
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            // Whoever seeks meets frames again. Live, nobody may make us believe that.
            gst::EventView::FlushStop(_) => self.restart(false),
            gst::EventView::Segment(s) if !self.is_live() => {
                self.restart(s.segment().rate() < 0.0);
            }
            gst::EventView::Eos(_) => self.tell_at_end(),
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn transform_ip(
        &self,
        buffer: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let settings = lock(&self.settings).clone();
        let mut trouble = None;
        let result = {
            let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
            // Whoever answers `request-key` may send events to this element.
            let state = lock(&self.state).take();
            let mut state = state.ok_or(gst::FlowError::Flushing)?;
            let result = state.decryptor.decrypt(&map, |number| {
                let found = settings.keys.find(number, self.obj().upcast_ref());
                found.unwrap_or_else(|what| {
                    trouble = Some(what);
                    None
                })
            });
            *lock(&self.state) = Some(state);
            result
        };
        match result {
            Ok(opened) => {
                lock(&self.totals).decrypted += 1;
                common::replace(buffer, opened);
                self.passes(buffer);
                Ok(gst::FlowSuccess::Ok)
            }
            Err(Refusal::Plain) if settings.allow_plain => {
                self.passes(buffer);
                Ok(gst::FlowSuccess::Ok)
            }
            // What follows means something else, which nobody here knows.
            Err(Refusal::Bitstream(
                e @ (BitstreamError::Critical(_) | BitstreamError::Extension(_)),
            )) => {
                gst::element_imp_error!(self, gst::StreamError::Format, ("{e}"));
                Err(gst::FlowError::Error)
            }
            Err(refusal) => {
                self.refuse(refusal, trouble);
                Ok(gst_base::BASE_TRANSFORM_FLOW_DROPPED)
            }
        }
    }
}

impl NnvDecrypt {
    /// The reader goes elsewhere. `backwards`: groups come in falling order, and none is too late.
    fn restart(&self, backwards: bool) {
        let window = if backwards {
            0
        } else {
            lock(&self.settings).window
        };
        if let Some(state) = lock(&self.state).as_mut() {
            state.decryptor.restart(window);
        }
    }

    fn is_live(&self) -> bool {
        let mut query = gst::query::Latency::new();
        self.obj().sink_pad().peer_query(&mut query) && query.result().0
    }

    fn passes(&self, buffer: &mut gst::BufferRef) {
        let refused = lock(&self.state).as_mut().and_then(|s| s.refused.take());
        if refused.is_some() {
            buffer.set_flags(gst::BufferFlags::DISCONT);
        }
    }

    /// Counts a frame that is refused, and tells of the first one in a row.
    fn refuse(&self, refusal: Refusal, trouble: Option<String>) {
        {
            let mut totals = lock(&self.totals);
            let count = match &refusal {
                Refusal::Plain => &mut totals.plain,
                Refusal::Tampered => &mut totals.tampered,
                Refusal::Replayed => &mut totals.replayed,
                Refusal::NoKey(_) | Refusal::NoKeyFrame => &mut totals.unkeyed,
                Refusal::Bitstream(_) => &mut totals.damaged,
            };
            *count += 1;
        }
        gst::debug!(CAT, imp = self, "A frame is refused: {refusal}");
        let told = match lock(&self.state).as_mut() {
            // What follows a refused key frame has no key: that was told.
            Some(State {
                refused: Some(before),
                ..
            }) if refusal == Refusal::NoKeyFrame
                || refusal == Refusal::Tampered && matches!(before, Refusal::NoKey(_)) =>
            {
                gst::trace!(CAT, imp = self, "As before: {before}");
                true
            }
            Some(state) => state.refused.replace(refusal.clone()).as_ref() == Some(&refusal),
            None => false,
        };
        if told {
            return;
        }
        let why = trouble.unwrap_or_else(|| refusal.to_string());
        gst::element_imp_warning!(
            self,
            gst::StreamError::Decrypt,
            ("Frames are refused and not shown: {why}")
        );
        if refusal != Refusal::Replayed && self.may_ask() {
            let event = gst_video::UpstreamForceKeyUnitEvent::builder()
                .all_headers(true)
                .build();
            self.obj().sink_pad().push_event(event);
        }
    }

    /// Whether a key frame may be asked for: not for each frame that somebody slips in.
    fn may_ask(&self) -> bool {
        let mut state = lock(&self.state);
        let Some(state) = state.as_mut() else {
            return false;
        };
        let may = state.asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY);
        if may {
            state.asked = Some(Instant::now());
        }
        may
    }

    /// A stream of which nothing could be shown is an error.
    fn tell_at_end(&self) {
        let totals = *lock(&self.totals);
        let why = lock(&self.state).as_ref().and_then(|s| s.refused.clone());
        if let Some(why) = why
            && totals.decrypted == 0
        {
            let count = totals.refused();
            gst::element_imp_error!(
                self,
                gst::StreamError::DecryptNokey,
                ("None of the stream's {count} frames could be decrypted: {why}")
            );
        }
    }
}

// SPDX-License-Identifier: MPL-2.0

use std::sync::{LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::prelude::*;
use nnv_crypt::keys::parse_public_key;
use nnv_crypt::sign::{Finding, Verifier};

use crate::common::{self, lock};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnvverify",
        gst::DebugColorFlags::empty(),
        Some("NNV signatures"),
    )
});

const STATS: &str = "application/x-nnvverify-stats";
/// Name of the messages.
const MESSAGE: &str = "nnv-signature";

/// Totals since the last start.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    frames: u64,
    runs: u64,
    tampered: u64,
    missing: u64,
    foreign: u64,
    unsigned: u64,
}

#[derive(Debug)]
struct State {
    verifier: Verifier,
    /// What was told last, so that many of a kind in a row are one warning.
    told: &'static str,
    /// Groups come in falling order: nothing can be said of their chain.
    backwards: bool,
}

#[derive(Default)]
pub struct NnvVerify {
    key: Mutex<Option<String>>,
    state: Mutex<Option<State>>,
    totals: Mutex<Totals>,
}

#[glib::object_subclass]
impl ObjectSubclass for NnvVerify {
    const NAME: &'static str = "GstNnvVerify";
    type Type = super::NnvVerify;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for NnvVerify {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder("key")
                    .nick("Public key")
                    .blurb(
                        "Public key of who is trusted, ed25519-public:… as nnv keygen prints it, \
                         or a file with it",
                    )
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb(
                        "Since the last start, all uint64: verified-frames and verified-runs, \
                         tampered-runs, missing-runs, foreign-runs, unsigned-frames",
                    )
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        match pspec.name() {
            "key" => *lock(&self.key) = value.get().expect("type checked upstream"),
            name => unreachable!("property {name} (id {id}) is not one of nnvverify"),
        }
    }

    fn property(&self, id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "key" => lock(&self.key).to_value(),
            "stats" => {
                let t = *lock(&self.totals);
                gst::Structure::builder(STATS)
                    .field("verified-frames", t.frames)
                    .field("verified-runs", t.runs)
                    .field("tampered-runs", t.tampered)
                    .field("missing-runs", t.missing)
                    .field("foreign-runs", t.foreign)
                    .field("unsigned-frames", t.unsigned)
                    .build()
                    .to_value()
            }
            name => unreachable!("property {name} (id {id}) is not one of nnvverify"),
        }
    }
}

impl GstObjectImpl for NnvVerify {}

impl ElementImpl for NnvVerify {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "NNV verification",
                "Filter/Analyzer/Video",
                "Tells by messages whether signed NNV video is as it was signed; changes nothing",
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

impl BaseTransformImpl for NnvVerify {
    const MODE: gst_base::subclass::BaseTransformMode =
        gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = true;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = true;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let refuse = |what: String| gst::error_msg!(gst::ResourceError::Settings, ("{what}"));
        let given = lock(&self.key).clone();
        let given = given.ok_or_else(|| {
            refuse("nnvverify has no key: set key to the signer's public one".into())
        })?;
        let text = match given.strip_prefix("ed25519-") {
            Some(_) => given,
            None => std::fs::read_to_string(&given).map_err(|e| refuse(format!("{given}: {e}")))?,
        };
        let key = parse_public_key(&text).map_err(|e| refuse(format!("key: {e}")))?;
        *lock(&self.totals) = Totals::default();
        *lock(&self.state) = Some(State {
            verifier: Verifier::new(key),
            told: "",
            backwards: false,
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.state) = None;
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::FlushStop(_) => {
                if let Some(state) = lock(&self.state).as_mut() {
                    state.verifier.restart();
                }
            }
            gst::EventView::Segment(s) => {
                if let Some(state) = lock(&self.state).as_mut() {
                    let backwards = s.segment().rate() < 0.0;
                    if std::mem::replace(&mut state.backwards, backwards) != backwards {
                        state.verifier.restart();
                    }
                }
            }
            gst::EventView::Eos(_) => {
                let findings = lock(&self.state).as_mut().map(|s| s.verifier.finish());
                findings.into_iter().flatten().for_each(|f| self.tell(&f));
            }
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn transform_ip_passthrough(
        &self,
        buffer: &gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let found = {
            let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
            let mut state = lock(&self.state);
            let state = state.as_mut().ok_or(gst::FlowError::Flushing)?;
            if state.backwards {
                return Ok(gst::FlowSuccess::Ok);
            }
            state.verifier.push(&map)
        };
        match found {
            Ok(findings) => findings.iter().for_each(|f| self.tell(f)),
            Err(nnv_crypt::CryptError::Encrypted) => {
                gst::element_imp_error!(
                    self,
                    gst::StreamError::Decrypt,
                    ("The stream is encrypted: put nnvdecrypt, with its key, before nnvverify")
                );
                return Err(gst::FlowError::Error);
            }
            // The signature of its run will not fit.
            Err(e) => gst::warning!(CAT, imp = self, "An access unit cannot be read: {e}"),
        }
        Ok(gst::FlowSuccess::Ok)
    }
}

impl NnvVerify {
    /// Counts a finding, posts it, and warns of the first bad one of its kind in a row.
    fn tell(&self, finding: &Finding) {
        {
            let mut t = lock(&self.totals);
            match finding {
                Finding::Verified { frames, .. } => {
                    t.runs += 1;
                    t.frames += frames;
                }
                Finding::Tampered { .. } | Finding::Unreadable(_) => t.tampered += 1,
                Finding::Missing { from, to } => t.missing += to.saturating_sub(*from).max(1),
                Finding::ForeignKey { .. } => t.foreign += 1,
                Finding::Unsigned { frames } => t.unsigned += frames,
                Finding::CutBegin { .. } | Finding::CutEnd { .. } | Finding::NewStream => {}
            }
        }
        let mut structure = gst::Structure::builder(MESSAGE)
            .field("status", finding.name())
            .field("text", finding.to_string())
            .build();
        if let Finding::Verified {
            run,
            frames,
            checksums,
            time,
        } = finding
        {
            structure.set("run", *run);
            structure.set("frames", *frames);
            structure.set("checksums", *checksums);
            if let Some(time) = time {
                structure.set("time", *time);
            }
        }
        let message = gst::message::Element::builder(structure)
            .src(&*self.obj())
            .build();
        // Nobody listens only while the element goes away.
        let _ = self.obj().post_message(message);
        let before = match lock(&self.state).as_mut() {
            Some(state) => std::mem::replace(&mut state.told, finding.name()),
            None => "",
        };
        if finding.is_bad() && before != finding.name() {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Failed,
                ("The video is not as it was signed: {finding}")
            );
        }
    }
}

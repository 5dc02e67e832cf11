// SPDX-License-Identifier: MPL-2.0

use std::sync::{LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_rtp::prelude::*;
use gst_rtp::subclass::prelude::*;
use nnv_bitstream::rtp::{Depacketizer, Received};

use crate::common::{self, lock};

/// Longest access unit that is put together. A key frame of 8192×8192 samples at the finest
/// quantizer stays below.
const MAX_ACCESS_UNIT: usize = 64 << 20;

const STATS_NAME: &str = "application/x-rtpnnvdepay-stats";

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtpnnvdepay",
        gst::DebugColorFlags::empty(),
        Some("NNV RTP depayloader"),
    )
});

struct State {
    depacketizer: Depacketizer,
    sender: Option<u32>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            depacketizer: Depacketizer::new(MAX_ACCESS_UNIT),
            sender: None,
        }
    }
}

/// Totals since the last start.
#[derive(Debug, Default, Clone, Copy)]
struct Totals {
    received: u64,
    lost: u64,
    undecodable: u64,
    refused: u64,
    requests: u64,
}

#[derive(Default)]
pub struct RtpNnvDepay {
    state: Mutex<State>,
    totals: Mutex<Totals>,
}

#[glib::object_subclass]
impl ObjectSubclass for RtpNnvDepay {
    const NAME: &'static str = "GstRtpNnvDepay";
    type Type = super::RtpNnvDepay;
    type ParentType = gst_rtp::RTPBaseDepayload;
}

impl ObjectImpl for RtpNnvDepay {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb(
                        "Since the last start, all uint64: access units received, lost, \
                         undecodable (received, but what they refer to is lost); \
                         refused-packets; key-frame-requests",
                    )
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn property(&self, id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => {
                let t = *lock(&self.totals);
                gst::Structure::builder(STATS_NAME)
                    .field("received", t.received)
                    .field("lost", t.lost)
                    .field("undecodable", t.undecodable)
                    .field("refused-packets", t.refused)
                    .field("key-frame-requests", t.requests)
                    .build()
                    .to_value()
            }
            name => unreachable!("property {name} (id {id}) is not one of rtpnnvdepay"),
        }
    }
}

impl GstObjectImpl for RtpNnvDepay {}

impl ElementImpl for RtpNnvDepay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "RTP NNV depayloader",
                "Codec/Depayloader/Network/RTP",
                "Takes NNV video out of RTP packets, says what a loss costs, asks for key frames",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| common::templates(&super::packet_caps(), &RtpNnvDepay::unit_caps()));
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            *lock(&self.state) = State::default();
            *lock(&self.totals) = Totals::default();
        }
        self.parent_change_state(transition)
    }
}

impl RTPBaseDepayloadImpl for RtpNnvDepay {
    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        gst::debug!(CAT, imp = self, "Caps {caps}");
        let event = gst::event::Caps::new(&Self::unit_caps());
        if self.obj().src_pad().push_event(event) {
            Ok(())
        } else {
            Err(gst::loggable_error!(CAT, "Downstream refuses the caps"))
        }
    }

    fn process_rtp_packet(
        &self,
        packet: &gst_rtp::RTPBuffer<gst_rtp::rtp_buffer::Readable>,
    ) -> Option<gst::Buffer> {
        let payload = packet.payload().unwrap_or_default();
        let (received, missing) = {
            let mut state = lock(&self.state);
            if state.sender.replace(packet.ssrc()) != Some(packet.ssrc()) {
                state.depacketizer.reset();
            }
            let received = state.depacketizer.push(packet.seq(), payload);
            (received, state.depacketizer.take_missing())
        };
        let (mut undecodable, mut request) = (None, None);
        let received = received.unwrap_or_else(|e| {
            gst::warning!(CAT, imp = self, "Packet {} is dropped: {e}", packet.seq());
            lock(&self.totals).refused += 1;
            Vec::new()
        });
        let mut unit = None;
        for what in received {
            match what {
                Received::Unit {
                    data,
                    key,
                    discardable,
                    decodable,
                    lost,
                } => {
                    let mut totals = lock(&self.totals);
                    totals.received += 1;
                    totals.lost += u64::from(lost);
                    totals.undecodable += u64::from(!decodable);
                    drop(totals);
                    undecodable = (!decodable).then(|| packet.seq());
                    let mut buffer = gst::Buffer::from_mut_slice(data);
                    if let Some(buffer) = buffer.get_mut() {
                        let mut flags = gst::BufferFlags::empty();
                        flags.set(gst::BufferFlags::DELTA_UNIT, !key);
                        flags.set(gst::BufferFlags::DROPPABLE, discardable);
                        flags.set(gst::BufferFlags::DISCONT, lost > 0);
                        buffer.set_flags(flags);
                    }
                    unit = Some(buffer);
                }
                Received::KeyNeeded { urgent } => request = Some(urgent),
            }
        }
        // A frame that came whole but refers to what did not is reported like a lost one: whoever
        // sends has to know that nothing may refer to it.
        for seqnum in missing.into_iter().chain(undecodable) {
            self.report(packet.ssrc(), seqnum);
        }
        if let Some(urgent) = request {
            self.ask_for_key(urgent);
        }
        unit
    }
}

impl RtpNnvDepay {
    /// Caps of what is put together: whole access units, which a parser has to look at.
    fn unit_caps() -> gst::Caps {
        gst::Caps::builder(common::MEDIA_TYPE)
            .field("stream-format", "byte-stream")
            .field("alignment", "au")
            .build()
    }

    /// Reports a packet upstream, for which it is too late. `rtpbin` makes it a NACK, and of that
    /// `rtpnnvpay` learns which frame is lost.
    fn report(&self, ssrc: u32, seqnum: u16) {
        let structure = gst::Structure::builder(common::RETRANSMISSION)
            .field("seqnum", u32::from(seqnum))
            .field("ssrc", ssrc)
            .field("delay", 0u32)
            .field("deadline", 100u32)
            .build();
        let event = gst::event::CustomUpstream::new(structure);
        self.obj().sink_pad().push_event(event);
    }

    /// Asks upstream for a key frame, or for any frame that can be decoded again, unless it is
    /// urgent. `rtpbin` makes it a PLI, or an FIR where that is urgent, as far as the caps allow.
    fn ask_for_key(&self, urgent: bool) {
        gst::info!(CAT, imp = self, "Frames are lost: asking for a key frame");
        lock(&self.totals).requests += 1;
        let event = gst_video::UpstreamForceKeyUnitEvent::builder()
            .all_headers(urgent)
            .build();
        self.obj().sink_pad().push_event(event);
    }
}

// SPDX-License-Identifier: MPL-2.0

use std::collections::VecDeque;
use std::sync::{LazyLock, Mutex};

use gst::glib;
use gst::subclass::prelude::*;
use gst_rtp::prelude::*;
use gst_rtp::subclass::prelude::*;
use nnv_bitstream::rtp::Packetizer;

use crate::common::{self, Loss, lock};

/// Access units whose packets are known when a receiver misses one: some seconds.
const HISTORY: usize = 512;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtpnnvpay",
        gst::DebugColorFlags::empty(),
        Some("NNV RTP payloader"),
    )
});

/// What a jitter buffer writes that was not told of a sender.
const UNKNOWN_SSRC: u32 = u32::MAX;

/// Packets of an access unit.
#[derive(Debug, Clone, Copy)]
struct Sent {
    ssrc: u32,
    first: u16,
    count: u16,
    loss: Loss,
}

#[derive(Default)]
pub struct RtpNnvPay {
    packetizer: Mutex<Packetizer>,
    /// The frame whose packets are on their way out of the base class.
    leaving: Mutex<Option<Loss>>,
    sent: Mutex<VecDeque<Sent>>,
}

#[glib::object_subclass]
impl ObjectSubclass for RtpNnvPay {
    const NAME: &'static str = "GstRtpNnvPay";
    type Type = super::RtpNnvPay;
    type ParentType = gst_rtp::RTPBasePayload;
}

impl ObjectImpl for RtpNnvPay {
    fn constructed(&self) {
        self.parent_constructed();
        // The base class numbers the packets after they are handed over.
        let src = self.obj().src_pad().clone();
        let element = self.obj().downgrade();
        src.add_probe(gst::PadProbeType::BUFFER_LIST, move |_, info| {
            if let (Some(element), Some(list)) = (element.upgrade(), info.buffer_list()) {
                element.imp().remember(list);
            }
            gst::PadProbeReturn::Ok
        });
    }
}

impl GstObjectImpl for RtpNnvPay {}

impl ElementImpl for RtpNnvPay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "RTP NNV payloader",
                "Codec/Payloader/Network/RTP",
                "Puts NNV video into RTP packets that a middle box can thin out",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| common::templates(&common::parsed_caps(), &super::packet_caps()));
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            *lock(&self.packetizer) = Packetizer::default();
            lock(&self.sent).clear();
        }
        self.parent_change_state(transition)
    }
}

impl RTPBasePayloadImpl for RtpNnvPay {
    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        gst::debug!(CAT, imp = self, "Caps {caps}");
        let obj = self.obj();
        obj.set_options("video", true, super::ENCODING_NAME, super::CLOCK_RATE);
        obj.set_outcaps(None)
            .map_err(|e| gst::loggable_error!(CAT, "Downstream refuses the packets: {e}"))
    }

    fn src_event(&self, event: gst::Event) -> bool {
        match self.lost(&event) {
            Some(loss) => {
                gst::debug!(CAT, imp = self, "A receiver misses a packet: {loss:?}");
                self.obj().sink_pad().push_event(loss.event())
            }
            None => self.parent_src_event(event),
        }
    }

    fn handle_buffer(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let obj = self.obj();
        let most = gst_rtp::calc_payload_len(obj.mtu(), 0, 0) as usize;
        let map = buffer.map_readable().map_err(|_| {
            gst::element_imp_error!(self, gst::ResourceError::Read, ["A buffer cannot be read"]);
            gst::FlowError::Error
        })?;
        let packets = {
            let mut packetizer = lock(&self.packetizer);
            let packets = packetizer.packets(&map, most);
            *lock(&self.leaving) = packetizer
                .last_frame()
                .map(|(group, number)| Loss { group, number });
            packets
        };
        let packets = match packets {
            Ok(packets) => packets,
            Err(e) => {
                // One damaged access unit must not end a live stream.
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Format,
                    ("An access unit is left out: {e}")
                );
                return Ok(gst::FlowSuccess::Ok);
            }
        };
        let mut list = gst::BufferList::new_sized(packets.len());
        let count = packets.len();
        for (i, packet) in packets.into_iter().enumerate() {
            let made = Self::packet(&packet, i + 1 == count).map_err(|e| {
                gst::element_imp_error!(self, gst::LibraryError::Encode, ["No packet: {e}"]);
                gst::FlowError::Error
            })?;
            let mut made = made;
            if let Some(out) = made.get_mut() {
                out.set_pts(buffer.pts());
                out.set_dts(buffer.dts());
                let kept =
                    buffer.flags() & (gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::DROPPABLE);
                out.set_flags(kept);
                if i == 0 && buffer.flags().contains(gst::BufferFlags::DISCONT) {
                    out.set_flags(gst::BufferFlags::DISCONT);
                }
            }
            if let Some(list) = list.get_mut() {
                list.add(made);
            }
        }
        drop(map);
        obj.push_list(list)
    }
}

impl RtpNnvPay {
    /// Takes note of the numbers that the packets of a frame got.
    fn remember(&self, list: &gst::BufferListRef) {
        let Some((loss, first)) = lock(&self.leaving).take().zip(list.get(0)) else {
            return;
        };
        let Ok(rtp) = gst_rtp::RTPBuffer::from_buffer_readable(first) else {
            return;
        };
        let mut sent = lock(&self.sent);
        if sent.len() >= HISTORY {
            sent.pop_front();
        }
        sent.push_back(Sent {
            ssrc: rtp.ssrc(),
            first: rtp.seq(),
            count: u16::try_from(list.len()).unwrap_or(u16::MAX),
            loss,
        });
    }

    /// The frame that a packet belongs to, where a NACK names it.
    fn lost(&self, event: &gst::EventRef) -> Option<Loss> {
        let structure = event.structure()?;
        if structure.name() != common::RETRANSMISSION {
            return None;
        }
        let seqnum = u16::try_from(structure.get::<u32>("seqnum").ok()?).ok()?;
        let ssrc = structure.get::<u32>("ssrc").ok();
        let sent = lock(&self.sent);
        let of = |s: &&Sent| {
            ssrc.is_none_or(|ssrc| ssrc == s.ssrc || ssrc == UNKNOWN_SSRC)
                && seqnum.wrapping_sub(s.first) < s.count
        };
        sent.iter().rev().find(of).map(|s| s.loss)
    }

    fn packet(payload: &[u8], last: bool) -> Result<gst::Buffer, glib::BoolError> {
        let size = u32::try_from(payload.len()).map_err(|_| glib::bool_error!("too long"))?;
        let mut buffer = gst::Buffer::new_rtp_with_sizes(size, 0, 0)?;
        let writable = buffer
            .get_mut()
            .ok_or_else(|| glib::bool_error!("a new buffer is shared"))?;
        let mut rtp = gst_rtp::RTPBuffer::from_buffer_writable(writable)?;
        rtp.payload_mut()?.copy_from_slice(payload);
        rtp.set_marker(last);
        drop(rtp);
        Ok(buffer)
    }
}

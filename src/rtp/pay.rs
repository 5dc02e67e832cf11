// SPDX-License-Identifier: MPL-2.0

use std::sync::{LazyLock, Mutex};

use gst::glib;
use gst::subclass::prelude::*;
use gst_rtp::prelude::*;
use gst_rtp::subclass::prelude::*;
use nnv_bitstream::rtp::Packetizer;

use crate::common::{self, lock};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtpnnvpay",
        gst::DebugColorFlags::empty(),
        Some("NNV RTP payloader"),
    )
});

#[derive(Default)]
pub struct RtpNnvPay {
    packetizer: Mutex<Packetizer>,
}

#[glib::object_subclass]
impl ObjectSubclass for RtpNnvPay {
    const NAME: &'static str = "GstRtpNnvPay";
    type Type = super::RtpNnvPay;
    type ParentType = gst_rtp::RTPBasePayload;
}

impl ObjectImpl for RtpNnvPay {}

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

    fn handle_buffer(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let obj = self.obj();
        let most = gst_rtp::calc_payload_len(obj.mtu(), 0, 0) as usize;
        let map = buffer.map_readable().map_err(|_| {
            gst::element_imp_error!(self, gst::ResourceError::Read, ["A buffer cannot be read"]);
            gst::FlowError::Error
        })?;
        let packets = lock(&self.packetizer).packets(&map, most);
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

// SPDX-License-Identifier: MPL-2.0
//! The event `nnv/loss`: what a receiver tells a sender of a frame that it cannot decode.
//!
//! It travels upstream from `nnvdec` to `nnvenc` where both are in one pipeline. Over a network
//! `rtpnnvpay` makes it of the NACKs that RTCP brings. Applications with a channel of their own
//! take it from the bus of the receiver (an element message) and send it to `nnvenc`.

use gst::prelude::*;

/// Name of the event and of the message.
pub const LOSS: &str = "nnv/loss";

/// Name of the event for a packet that is missing, which `rtpbin` makes a NACK.
pub const RETRANSMISSION: &str = "GstRTPRetransmissionRequest";

/// A frame that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Lowest byte of the number of its group of pictures.
    pub group: u8,
    /// Its number in the group.
    pub number: u32,
}

impl Loss {
    fn structure(self) -> gst::Structure {
        gst::Structure::builder(LOSS)
            .field("group", u32::from(self.group))
            .field("number", self.number)
            .build()
    }

    /// The upstream event.
    pub fn event(self) -> gst::Event {
        gst::event::CustomUpstream::new(self.structure())
    }

    /// The same as a message of `element`.
    pub fn message(self, element: &impl IsA<gst::Object>) -> gst::Message {
        gst::message::Element::builder(self.structure())
            .src(element)
            .build()
    }

    /// Whether an event is one of these; `Some(None)` for one that says nonsense.
    pub fn parse(event: &gst::EventRef) -> Option<Option<Self>> {
        let structure = event.structure().filter(|s| s.name() == LOSS)?;
        let group = structure.get::<u32>("group").ok();
        let group = group.and_then(|group| u8::try_from(group).ok());
        let number = structure.get::<u32>("number").ok();
        Some(
            group
                .zip(number)
                .map(|(group, number)| Self { group, number }),
        )
    }
}

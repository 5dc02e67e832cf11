// SPDX-License-Identifier: MPL-2.0
//! What comes upstream: reports on packets, on the path, and on the viewer. All of it is from
//! elsewhere: fields that are missing or of another type are passed over.

use gst::glib;
use gst::prelude::*;
use nnv_adapt::{Packet, ReceiverReport, Time, Viewer};

/// Name of the events that `rtpsession` makes of transport-wide feedback.
const PACKETS: &str = "RTPTWCCPackets";
/// Name of the events that tell of the viewer.
const VIEWER: &str = "nnv-viewer";
/// Name of the events that tell what a receiver report said.
const REPORT: &str = "nnv-receiver-report";
/// Most packets that are taken of one event.
const MAX_PACKETS: usize = 20_000;

/// An event that is of interest.
pub enum News {
    Packets(Vec<Packet>),
    Viewer(Viewer),
    Report(ReceiverReport),
}

/// What an event says; `None` for all others. `viewer` is what was known of the viewer.
pub fn news(structure: &gst::StructureRef, viewer: Viewer) -> Option<News> {
    match structure.name().as_str() {
        PACKETS => packets(structure).map(News::Packets),
        VIEWER => Some(News::Viewer(told(structure, viewer))),
        REPORT => {
            let share = |name| structure.get::<f64>(name).unwrap_or(0.0);
            Some(News::Report(ReceiverReport {
                lost: share("lost"),
                jitter: share("jitter"),
                round_trip: share("round-trip"),
            }))
        }
        _ => None,
    }
}

fn packets(structure: &gst::StructureRef) -> Option<Vec<Packet>> {
    let list = structure.value("packets").ok()?;
    let array = list.get::<gst::Array>();
    let value_array = list.get::<glib::ValueArray>();
    let time = |packet: &gst::StructureRef, name: &str| {
        let ns = packet.get::<Option<gst::ClockTime>>(name).ok()??;
        Some(Time::from_us(i64::try_from(ns.useconds()).ok()?))
    };
    let packet = |value: &glib::Value| {
        let packet = value.get::<gst::Structure>().ok()?;
        let lost = packet.get::<bool>("lost").unwrap_or(false);
        Some(Packet {
            sent: time(&packet, "local-ts")?,
            arrived: time(&packet, "remote-ts").filter(|_| !lost),
            bytes: packet.get::<u32>("size").unwrap_or(0),
        })
    };
    Some(match (&array, &value_array) {
        (Ok(array), _) => array
            .iter()
            .take(MAX_PACKETS)
            .filter_map(|v| packet(v))
            .collect(),
        (_, Ok(values)) => values.iter().take(MAX_PACKETS).filter_map(packet).collect(),
        _ => return None,
    })
}

/// What an event adds to what is known of the viewer.
fn told(structure: &gst::StructureRef, known: Viewer) -> Viewer {
    let side = |name| {
        structure
            .get::<i32>(name)
            .ok()
            .map(|n| u32::try_from(n).unwrap_or(0))
    };
    Viewer {
        paused: structure.get("paused").unwrap_or(known.paused),
        hidden: structure.get("hidden").unwrap_or(known.hidden),
        window: match (side("width"), side("height")) {
            (Some(width), Some(height)) => Some((width, height)),
            _ => known.window,
        },
        speed: structure.get("speed").unwrap_or(known.speed),
    }
    .bounded()
}

/// The receiver report in the statistics of an `rtpbin`'s first session, with what tells it from
/// the one before.
pub fn session_report(rtpbin: &gst::Element) -> Option<(ReceiverReport, (u32, u32))> {
    let get = glib::subclass::SignalId::lookup("get-internal-session", rtpbin.type_())?;
    let known = get.query();
    let takes: Vec<glib::Type> = known.param_types().iter().map(|t| t.type_()).collect();
    if takes != [glib::Type::U32] || !known.return_type().type_().is_a(glib::Type::OBJECT) {
        return None;
    }
    let session: Option<glib::Object> = rtpbin.emit(get, &[&0_u32]);
    let session = session?;
    session.find_property("stats")?;
    let stats = session
        .property_value("stats")
        .get::<gst::Structure>()
        .ok()?;
    let sources = stats.get::<glib::ValueArray>("source-stats").ok()?;
    sources.iter().find_map(|value| {
        let source = value.get::<gst::Structure>().ok()?;
        source.get::<bool>("have-rb").ok().filter(|have| *have)?;
        let number = |name| source.get::<u32>(name).unwrap_or(0);
        let rate = source.get::<i32>("clock-rate").unwrap_or(0).max(0);
        let ticks = if rate > 0 { f64::from(rate) } else { 90_000.0 };
        let report = ReceiverReport {
            lost: f64::from(number("rb-fractionlost")) / 256.0,
            jitter: f64::from(number("rb-jitter")) / ticks,
            round_trip: f64::from(number("rb-round-trip")) / 65_536.0,
        };
        Some((report, (number("rb-exthighestseq"), number("rb-lsr"))))
    })
}

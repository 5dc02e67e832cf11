// SPDX-License-Identifier: MPL-2.0
//! `nnvadapt`: follows feedback and the viewer, and does not believe nonsense.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::util::*;

fn adapt(properties: &[(&str, &str)]) -> (gst::Element, gst_check::Harness) {
    let mut all = vec![
        ("min-bitrate", "20"),
        ("max-bitrate", "2000"),
        ("start-bitrate", "800"),
    ];
    all.extend(properties);
    let element = element("nnvadapt", &all);
    let mut h = gst_check::Harness::with_element(&element, Some("sink"), Some("src"));
    h.set_src_caps(i420(64, 48).to_caps().unwrap());
    (element, h)
}

fn event(structure: gst::Structure) -> gst::Event {
    gst::event::CustomUpstream::new(structure)
}

/// Nanoseconds of the clock that packets are timed by.
fn now() -> u64 {
    gst::SystemClock::obtain().time().nseconds()
}

fn packet(sent: u64, arrived: Option<u64>, size: u32) -> gst::Structure {
    let time = |ns| Some(gst::ClockTime::from_nseconds(ns));
    gst::Structure::builder("RTPTWCCPacket")
        .field("local-ts", time(sent))
        .field("remote-ts", arrived.map_or(gst::ClockTime::NONE, time))
        .field("size", size)
        .field("lost", arrived.is_none())
        .build()
}

fn feedback(packets: impl IntoIterator<Item = gst::Structure>) -> gst::Event {
    let packets = gst::Array::new(packets);
    event(
        gst::Structure::builder("RTPTWCCPackets")
            .field("packets", packets)
            .build(),
    )
}

fn push(h: &mut gst_check::Harness, t: u32) {
    h.push(buffer(&i420(64, 48), t, 0)).unwrap();
}

#[test]
fn a_growing_queue_brings_the_encoder_down() {
    within(|| {
        for controller in ["rule", "learned"] {
            let (element, mut h) = adapt(&[("controller", controller)]);
            push(&mut h, 0);
            let encoder = element
                .downcast_ref::<gst::Bin>()
                .unwrap()
                .by_name("encoder")
                .unwrap();
            assert_eq!(encoder.property::<u32>("bitrate"), 800);
            // 20 packets of 1000 bytes in 100 ms, each 30 ms later than the one before; what came
            // is a quarter of that: 400 kbit/s.
            let begin = now();
            let mut n = 0;
            while now() - begin < 3_000_000_000 {
                let sent = now();
                let packets = (0..10).map(|i| {
                    let late = 20_000_000 * (n * 10 + i) - (sent - begin).min(20_000_000 * n * 10);
                    packet(
                        sent - 1000 * (10 - i),
                        Some(sent + 5_000_000_000 + late),
                        1000,
                    )
                });
                h.push_upstream_event(feedback(packets.collect::<Vec<_>>()));
                n += 1;
                push(&mut h, n as u32);
                std::thread::sleep(Duration::from_millis(50));
            }
            let bitrate: u32 = element.property("bitrate");
            assert!((20..500).contains(&bitrate), "{controller}: {bitrate}");
            // Whole pictures are not worth that rate's while only where it is tiny.
            assert_eq!(encoder.property::<u32>("bitrate"), bitrate);
            let stats: gst::Structure = element.property("stats");
            assert!(stats.get::<f64>("queue").unwrap() > 100.0, "{stats}");
        }
    });
}

#[test]
fn nonsense_in_events_changes_nothing() {
    within(|| {
        let (element, mut h) = adapt(&[]);
        push(&mut h, 0);
        let text = gst::Structure::builder("RTPTWCCPackets")
            .field("packets", "none")
            .build();
        let empty = gst::Array::new(["a", "b"]);
        let strings = gst::Structure::builder("RTPTWCCPackets")
            .field("packets", empty)
            .build();
        for structure in [
            text,
            strings,
            gst::Structure::new_empty("RTPTWCCPackets"),
            gst::Structure::builder("nnv-viewer")
                .field("width", -5)
                .field("height", i32::MIN)
                .field("speed", f64::NAN)
                .field("paused", "yes")
                .build(),
            gst::Structure::builder("nnv-receiver-report")
                .field("lost", f64::NAN)
                .field("jitter", -1.0)
                .field("round-trip", f64::INFINITY)
                .build(),
        ] {
            h.push_upstream_event(event(structure));
        }
        let far = u64::MAX / 4;
        h.push_upstream_event(feedback([
            packet(0, Some(far), u32::MAX),
            packet(far, Some(0), 0),
            packet(now(), None, 1200),
            gst::Structure::new_empty("RTPTWCCPacket"),
        ]));
        for t in 1..5 {
            push(&mut h, t);
        }
        assert_eq!(pull_all(&mut h).len(), 5);
        assert!((20..=2000).contains(&element.property::<u32>("bitrate")));
    });
}

fn viewer(fields: &[(&str, &dyn ToSendValue)]) -> gst::Event {
    let mut structure = gst::Structure::new_empty("nnv-viewer");
    for (name, value) in fields {
        structure.set_value(*name, value.to_send_value());
    }
    event(structure)
}

#[test]
fn the_viewer_rules() {
    within(|| {
        let (_, mut h) = adapt(&[]);
        push(&mut h, 0);
        h.push_upstream_event(viewer(&[("paused", &true)]));
        for t in 1..4 {
            push(&mut h, t);
        }
        assert_eq!(pull_all(&mut h).len(), 1);
        // It goes on, in a window of half the width.
        let window = [
            ("paused", &false as &dyn ToSendValue),
            ("width", &32),
            ("height", &24),
        ];
        h.push_upstream_event(viewer(&window));
        for t in 4..8 {
            push(&mut h, t);
        }
        assert!(pull_all(&mut h).len() >= 2);
        let size = |h: &gst_check::Harness| {
            let caps = h.sinkpad().unwrap().current_caps().unwrap();
            let s = caps.structure(0).unwrap();
            (
                s.get::<i32>("width").unwrap(),
                s.get::<i32>("height").unwrap(),
            )
        };
        assert_eq!(size(&h), (32, 24));
    });
}

#[test]
fn limits_that_cross_are_refused_by_name() {
    let element = element(
        "nnvadapt",
        &[("min-bitrate", "500"), ("max-bitrate", "400")],
    );
    assert!(element.set_state(gst::State::Paused).is_err());
    element.set_state(gst::State::Null).unwrap();
}

/// Over real sockets: `rtpbin`'s transport-wide feedback reaches the element.
#[test]
fn feedback_comes_over_sockets() {
    within(|| {
        let ports: Vec<u16> = (0..2)
            .map(|_| {
                UdpSocket::bind("127.0.0.1:0")
                    .unwrap()
                    .local_addr()
                    .unwrap()
                    .port()
            })
            .collect();
        let caps = "application/x-rtp,media=video,clock-rate=90000,encoding-name=NNV,payload=96,\
                    extmap-1=(string)\"http://www.ietf.org/id/\
                    draft-holmer-rmcat-transport-wide-cc-extensions-01\"";
        let (rtp, rtcp) = (ports[0], ports[1]);
        let receiver = launch(&format!(
            "rtpbin name=bin rtp-profile=avpf udpsrc address=127.0.0.1 port={rtp} caps=\"{}\" \
             ! bin.recv_rtp_sink_0 bin. ! rtpnnvdepay ! fakesink async=false \
             bin.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={rtcp} sync=false async=false",
            caps.replace('"', "\\\"")
        ));
        let sender = launch(&format!(
            "rtpbin name=bin rtp-profile=avpf videotestsrc is-live=true \
             ! video/x-raw,width=64,height=48,framerate=25/1 \
             ! nnvadapt name=adapt encoder::speed-preset=fast ! rtpnnvpay ! {caps} \
             ! bin.send_rtp_sink_0 \
             bin.send_rtp_src_0 ! udpsink host=127.0.0.1 port={rtp} sync=false async=false \
             udpsrc address=127.0.0.1 port={rtcp} ! bin.recv_rtcp_sink_0"
        ));
        receiver.set_state(gst::State::Playing).unwrap();
        sender.set_state(gst::State::Playing).unwrap();
        let adapt = sender
            .downcast_ref::<gst::Bin>()
            .unwrap()
            .by_name("adapt")
            .unwrap();
        let begin = Instant::now();
        let heard = || {
            let stats: gst::Structure = adapt.property("stats");
            stats.get::<f64>("received").unwrap() > 0.0
        };
        while !heard() && begin.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let heard = heard();
        sender.set_state(gst::State::Null).unwrap();
        receiver.set_state(gst::State::Null).unwrap();
        assert!(heard, "no feedback in half a minute");
    });
}

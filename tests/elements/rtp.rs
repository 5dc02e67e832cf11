// SPDX-License-Identifier: MPL-2.0
//! NNV over RTP: packets and back, loss, late joiners, a sender that starts anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gst::prelude::*;

use crate::util::*;

fn units(bframes: &str) -> Vec<gst::Buffer> {
    let properties = [("bframes", bframes), ("key-int-max", "10")];
    encode(&i420(64, 48), 30, &properties)
}

/// Packets of access units.
pub fn packets(units: &[gst::Buffer], mtu: &str) -> (gst::Caps, Vec<gst::Buffer>) {
    let pay = element("rtpnnvpay", &[("mtu", mtu)]);
    let mut h = gst_check::Harness::with_element(&pay, Some("sink"), Some("src"));
    let caps = "video/x-nnv, stream-format=byte-stream, alignment=au, parsed=true";
    h.set_src_caps(caps.parse().unwrap());
    for unit in units {
        h.push(unit.copy()).unwrap();
    }
    let packets = pull_all(&mut h);
    (
        pay.static_pad("src").unwrap().current_caps().unwrap(),
        packets,
    )
}

struct Received {
    units: Vec<gst::Buffer>,
    stats: gst::Structure,
    requests: usize,
}

fn receive(caps: gst::Caps, packets: Vec<gst::Buffer>) -> Received {
    let depay = element("rtpnnvdepay", &[]);
    let mut h = gst_check::Harness::with_element(&depay, Some("sink"), Some("src"));
    h.set_src_caps(caps);
    for packet in packets {
        h.push(packet).unwrap();
    }
    let requests = std::iter::from_fn(|| h.try_pull_upstream_event())
        .filter(|event| gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok())
        .count();
    Received {
        units: pull_all(&mut h),
        stats: depay.property("stats"),
        requests,
    }
}

pub fn count(stats: &gst::Structure, name: &str) -> u64 {
    stats.get(name).unwrap()
}

#[test]
fn access_units_come_back_whole_with_times_and_flags() {
    within(|| {
        for bframes in ["0", "7"] {
            let units = units(bframes);
            for mtu in ["120", "1400"] {
                let (caps, packets) = packets(&units, mtu);
                assert!(
                    packets
                        .iter()
                        .all(|p| p.size() <= mtu.parse::<usize>().unwrap())
                );
                let received = receive(caps, packets);
                assert_eq!(received.units.len(), units.len());
                for (sent, got) in units.iter().zip(&received.units) {
                    assert_eq!(bytes(sent), bytes(got));
                    assert_eq!(sent.pts(), got.pts());
                    let flags = gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::DROPPABLE;
                    assert_eq!(sent.flags() & flags, got.flags() & flags);
                }
                assert_eq!(received.requests, 0);
            }
        }
    });
}

#[test]
fn a_lost_packet_costs_what_it_must_and_one_request() {
    within(|| {
        let (caps, mut packets) = packets(&units("0"), "200");
        // Access units end with the marker; the fifth of the second group loses its first packet.
        let marked = |p: &gst::Buffer| {
            gst_rtp::RTPBuffer::from_buffer_readable(p)
                .unwrap()
                .is_marker()
        };
        let ends: Vec<usize> = (0..packets.len())
            .filter(|&i| marked(&packets[i]))
            .collect();
        assert_eq!(ends.len(), 30);
        packets.remove(ends[13] + 1);
        let received = receive(caps, packets);
        assert_eq!(received.units.len(), 29);
        assert_eq!(count(&received.stats, "lost"), 1);
        assert_eq!(count(&received.stats, "undecodable"), 5);
        assert_eq!(received.requests, 1);
    });
}

#[test]
fn who_joins_late_asks_once_and_begins_with_the_key_frame() {
    within(|| {
        let (caps, packets) = packets(&units("0"), "1400");
        let received = receive(caps, packets.into_iter().skip(4).collect());
        assert_eq!(received.requests, 1);
        assert!(count(&received.stats, "undecodable") >= 1);
        assert!(received.units.iter().any(is_key));
    });
}

#[test]
fn foreign_short_and_doubled_packets_change_nothing() {
    within(|| {
        let units = units("0");
        let (caps, packets) = packets(&units, "1400");
        let mut dirty = Vec::new();
        for packet in &packets {
            dirty.push(packet.copy());
            dirty.push(packet.copy());
        }
        let received = receive(caps.clone(), dirty);
        let sent: Vec<_> = units.iter().map(bytes).collect();
        assert_eq!(received.units.iter().map(bytes).collect::<Vec<_>>(), sent);
        // One packet of another payload format in place of ours: counted, and nothing breaks.
        let mut foreign = packets;
        let size = foreign[3].size();
        {
            let buffer = foreign[3].make_mut();
            let mut map = buffer.map_writable().unwrap();
            map[12..size].fill(0xff);
        }
        let received = receive(caps, foreign);
        assert_eq!(count(&received.stats, "refused-packets"), 1);
        assert!(received.units.len() >= 28);
    });
}

#[test]
fn a_sender_that_starts_anew_is_followed() {
    within(|| {
        let units = units("0");
        let (caps, mut all) = packets(&units[..7], "1400");
        // Another payloader has another SSRC and other sequence numbers.
        let (_, again) = packets(&units[..7], "1400");
        all.extend(again);
        let received = receive(caps, all);
        assert_eq!(received.units.len(), 14);
        assert_eq!(count(&received.stats, "undecodable"), 0);
        assert_eq!(received.requests, 0);
    });
}

/// A whole pipeline that loses packets: the decoder's pictures go on, the request reaches the
/// encoder, and it makes one key frame for it.
#[test]
fn a_loss_brings_one_key_frame_from_the_encoder() {
    within(|| {
        let pipeline = launch(
            "videotestsrc num-buffers=40 pattern=ball \
             ! video/x-raw,width=96,height=64,framerate=25/1 \
             ! nnvenc tune=zerolatency key-int-max=0 quantizer=30 name=enc \
             ! rtpnnvpay mtu=300 ! identity name=net ! rtpnnvdepay name=depay ! nnvparse \
             ! nnvdec ! fakesink name=out sync=false",
        );
        let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
        let keys = Arc::new(AtomicUsize::new(0));
        let seen = keys.clone();
        let encoder = bin.by_name("enc").unwrap();
        let src = encoder.static_pad("src").unwrap();
        src.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let key = info
                .buffer()
                .is_some_and(|b| !b.flags().contains(gst::BufferFlags::DELTA_UNIT));
            seen.fetch_add(usize::from(key), Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        let net = bin.by_name("net").unwrap().static_pad("src").unwrap();
        let markers = AtomicUsize::new(0);
        net.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let marker = info.buffer().is_some_and(|b| {
                gst_rtp::RTPBuffer::from_buffer_readable(b).is_ok_and(|rtp| rtp.is_marker())
            });
            // The tenth frame never ends.
            if marker && markers.fetch_add(1, Ordering::Relaxed) == 9 {
                return gst::PadProbeReturn::Drop;
            }
            gst::PadProbeReturn::Ok
        });
        let outcome = play(&pipeline);
        assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
        assert!(outcome.eos);
        assert_eq!(keys.load(Ordering::Relaxed), 2);
        let stats: gst::Structure = bin.by_name("depay").unwrap().property("stats");
        assert_eq!(count(&stats, "key-frame-requests"), 1);
        assert_eq!(count(&stats, "lost"), 1);
        assert!(count(&stats, "undecodable") <= 2, "{stats}");
    });
}

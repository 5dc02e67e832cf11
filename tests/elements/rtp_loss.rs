// SPDX-License-Identifier: MPL-2.0
//! Losses on the way, and what mends them: retransmission, parity, encryption beside, reports that
//! the encoder answers, senders that change, packets that lie.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::prelude::*;

use crate::rtp::{count, packets};
use crate::util::*;

/// Whether GStreamer has these elements; says so where it does not.
fn have(names: &[&str]) -> bool {
    init();
    let missing: Vec<_> = (names.iter())
        .filter(|name| gst::ElementFactory::find(name).is_none())
        .collect();
    if !missing.is_empty() {
        eprintln!("!! SKIPPED: no {missing:?}; install gstreamer1.0-plugins-good and -bad");
    }
    missing.is_empty()
}

fn payload_type(packet: &gst::BufferRef) -> u8 {
    packet.map_readable().map_or(0, |map| map[1] & 0x7f)
}

fn ends_frame(packet: &gst::BufferRef) -> bool {
    packet.map_readable().is_ok_and(|map| map[1] & 0x80 != 0)
}

/// Small pictures in packets of a few hundred bytes.
fn sender(width: u32, height: u32, tune: &str) -> (Vec<gst::Buffer>, gst::Caps, Vec<gst::Buffer>) {
    let properties = [
        ("bframes", "0"),
        ("key-int-max", "10"),
        ("tune", tune),
        ("quantizer", "20"),
    ];
    let units = encode(&i420(width, height), 30, &properties);
    let (caps, packets) = packets(&units, "200");
    (units, caps, packets)
}

struct Passed {
    arrived: Vec<(gst::Buffer, gst::Caps)>,
    bin: gst::Bin,
}

/// Sends packets through elements, one frame every `pace`, and gives what comes out behind them.
fn through(
    elements: &str,
    pace: Duration,
    caps: &gst::Caps,
    packets: Vec<gst::Buffer>,
    prepare: impl FnOnce(&gst::Bin),
) -> Passed {
    let pipeline = launch(&format!(
        "appsrc name=in format=time is-live=true do-timestamp=true ! {elements} \
         ! fakesink name=out sync=false async=false"
    ));
    let bin = pipeline.clone().downcast::<gst::Bin>().unwrap();
    let source = bin.by_name("in").unwrap();
    source.set_property("caps", caps);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let sink = bin.by_name("out").unwrap().static_pad("sink").unwrap();
    sink.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let arrived = info.buffer().cloned().zip(pad.current_caps());
        record.lock().unwrap().extend(arrived);
        gst::PadProbeReturn::Ok
    });
    prepare(&bin);
    pipeline.set_state(gst::State::Playing).unwrap();
    for mut packet in packets {
        let end = ends_frame(&packet);
        packet.make_mut().set_pts(gst::ClockTime::NONE);
        let flow = source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&packet]);
        assert_eq!(flow, gst::FlowReturn::Ok);
        if end {
            std::thread::sleep(pace);
        }
    }
    // Retransmissions of the last frames come yet.
    std::thread::sleep(10 * pace);
    let ended = source.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
    assert_eq!(ended, gst::FlowReturn::Ok);
    let mut outcome = Outcome::default();
    wait(&pipeline, &mut outcome);
    let arrived = std::mem::take(&mut *seen.lock().unwrap());
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    Passed { arrived, bin }
}

fn stats(bin: &gst::Bin, name: &str) -> gst::Structure {
    bin.by_name(name).unwrap().property("stats")
}

/// Drops each packet of payload type 96 that `lose` names, by number; counts them.
fn lose(bin: &gst::Bin, lose: impl Fn(usize) -> bool + Send + Sync + 'static) -> Arc<AtomicUsize> {
    let (passed, dropped) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = dropped.clone();
    let pad = bin.by_name("net").unwrap().static_pad("src").unwrap();
    let each = gst::PadProbeType::BUFFER;
    pad.add_probe(each, move |_, info| {
        let ours = info.buffer().is_some_and(|b| payload_type(b) == 96);
        if ours && lose(passed.fetch_add(1, Ordering::Relaxed)) {
            counted.fetch_add(1, Ordering::Relaxed);
            return gst::PadProbeReturn::Drop;
        }
        gst::PadProbeReturn::Ok
    });
    dropped
}

const FRAME: Duration = Duration::from_millis(33);

fn assert_all(passed: &Passed, units: &[gst::Buffer]) {
    let sent: Vec<_> = units.iter().map(bytes).collect();
    let got: Vec<_> = passed.arrived.iter().map(|(b, _)| bytes(b)).collect();
    assert_eq!(got.len(), sent.len(), "{:?}", stats(&passed.bin, "depay"));
    assert!(got == sent);
    assert_eq!(count(&stats(&passed.bin, "depay"), "lost"), 0);
}

#[test]
fn lost_packets_are_sent_again() {
    if !have(&[
        "rtprtxsend",
        "rtprtxreceive",
        "rtpssrcdemux",
        "rtpjitterbuffer",
    ]) {
        return;
    }
    within(|| {
        let (units, caps, packets) = sender(64, 48, "psnr");
        let map = "payload-type-map=application/x-rtp-pt-map,96=(uint)97";
        let mut dropped = None;
        let passed = through(
            &format!(
                "rtprtxsend {map} ! identity name=net ! rtprtxreceive {map} \
                 ! rtpssrcdemux ! rtpjitterbuffer latency=1000 do-retransmission=true \
                 ! rtpnnvdepay name=depay"
            ),
            FRAME,
            &caps,
            packets,
            |bin| dropped = Some(lose(bin, |n| n % 9 == 7)),
        );
        let dropped = dropped.unwrap().load(Ordering::Relaxed);
        assert!(dropped > 2, "{dropped}");
        assert_all(&passed, &units);
    });
}

#[test]
fn parity_restores_lost_packets() {
    if !have(&[
        "rtpulpfecenc",
        "rtpulpfecdec",
        "rtpstorage",
        "rtpjitterbuffer",
    ]) {
        return;
    }
    within(|| {
        let (units, caps, packets) = sender(64, 48, "psnr");
        let mut dropped = None;
        let passed = through(
            "rtpulpfecenc pt=122 percentage=100 percentage-important=100 ! identity name=net \
             ! rtpstorage name=storage size-time=2000000000 \
             ! rtpjitterbuffer latency=500 do-lost=true ! rtpulpfecdec name=fec pt=122 \
             ! rtpnnvdepay name=depay",
            FRAME,
            &caps,
            packets,
            |bin| {
                let storage = bin.by_name("storage").unwrap();
                let inner = storage.property::<gst::glib::Object>("internal-storage");
                bin.by_name("fec").unwrap().set_property("storage", inner);
                dropped = Some(lose(bin, |n| n % 11 == 7));
            },
        );
        let dropped = dropped.unwrap().load(Ordering::Relaxed);
        let recovered: u32 = passed.bin.by_name("fec").unwrap().property("recovered");
        let recovered = recovered as usize;
        assert!(
            dropped > 2 && 2 * recovered >= dropped,
            "{recovered} of {dropped}"
        );
        // At the end of the stream nobody waits for parity any more.
        let missing = units.len() - passed.arrived.len();
        assert!(missing <= dropped - recovered, "{missing}");
        let sent: HashSet<_> = units.iter().map(bytes).collect();
        assert!(passed.arrived.iter().all(|(b, _)| sent.contains(&bytes(b))));
    });
}

#[test]
fn encrypted_packets_come_through() {
    if !have(&["srtpenc", "srtpdec", "rtpjitterbuffer"]) {
        return;
    }
    within(|| {
        let (units, caps, packets) = sender(64, 48, "psnr");
        let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccdd";
        let elements = format!(
            "srtpenc key={key} ! srtpdec ! rtpjitterbuffer latency=200 ! rtpnnvdepay name=depay"
        );
        assert_all(&through(&elements, FRAME, &caps, packets, |_| ()), &units);
    });
}

#[test]
fn a_jitter_buffer_puts_packets_in_order_and_drops_doubles() {
    if !have(&["rtpjitterbuffer"]) {
        return;
    }
    within(|| {
        let (units, caps, packets) = sender(64, 48, "psnr");
        let mut mixed: Vec<gst::Buffer> = packets.iter().map(|p| p.copy()).collect();
        for i in (5..mixed.len() - 1).step_by(7) {
            mixed.swap(i, i + 1);
        }
        for i in (3..packets.len()).step_by(10).rev() {
            mixed.insert(i, packets[i].copy());
        }
        let elements = "rtpjitterbuffer latency=500 ! rtpnnvdepay name=depay";
        assert_all(&through(elements, FRAME, &caps, mixed, |_| ()), &units);
    });
}

/// Checksums of what units decode to.
fn truth(units: &[gst::Buffer]) -> HashSet<u32> {
    let file = TempFile::with("truth.nnv", &join(units));
    decode(file.path(), "")
        .sound()
        .checksums()
        .into_iter()
        .collect()
}

/// Width and height of a frame, and its checksum.
type ShownFrame = ((u32, u32), u32);

/// Sizes and checksums of pictures that are not flagged, and how many are.
fn shown(passed: &Passed) -> (Vec<ShownFrame>, usize) {
    let mut sound = Vec::new();
    let mut flagged = 0;
    for (buffer, caps) in &passed.arrived {
        if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
            flagged += 1;
            continue;
        }
        let info = gst_video::VideoInfo::from_caps(caps).unwrap();
        let checksum = read(buffer, &info).checksum();
        sound.push(((info.width(), info.height()), checksum));
    }
    (sound, flagged)
}

const DECODE: &str = "rtpnnvdepay name=depay ! nnvparse ! nnvdec name=dec";

#[test]
fn senders_of_other_sizes_and_bundles_follow_each_other() {
    within(|| {
        let (first_units, caps, first) = sender(64, 48, "psnr");
        let (second_units, _, second) = sender(96, 64, "visual");
        let (third_units, _, third) = sender(64, 48, "psnr");
        // The first is joined in its first group, and left within the second; the third, with
        // an SSRC of its own, is joined within a group, too.
        let late = |packets: &[gst::Buffer], frames: usize| {
            let ends = (0..packets.len()).filter(|&i| ends_frame(&packets[i]));
            ends.map(|i| i + 1).nth(frames - 1).unwrap()
        };
        let all: Vec<gst::Buffer> = (first[late(&first, 3)..late(&first, 15)].iter())
            .chain(&second)
            .chain(&third[late(&third, 4)..])
            .map(|p| p.copy())
            .collect();
        let passed = through(DECODE, Duration::from_millis(2), &caps, all, |_| ());
        let (sound, _) = shown(&passed);
        let small: HashSet<u32> = &truth(&first_units) | &truth(&third_units);
        let large = truth(&second_units);
        for (size, checksum) in &sound {
            let right = match size {
                (64, 48) => small.contains(checksum),
                (96, 64) => large.contains(checksum),
                _ => false,
            };
            assert!(right, "{size:?}");
        }
        // Five of the first, all of the second, two groups of the third.
        assert_eq!(
            sound.len(),
            5 + 30 + 20,
            "{:?}",
            stats(&passed.bin, "depay")
        );
        assert!(count(&stats(&passed.bin, "depay"), "key-frame-requests") >= 2);
    });
}

#[test]
fn packets_that_lie_never_make_a_wrong_picture_that_is_called_right() {
    within(|| {
        let (units, caps, packets) = sender(64, 48, "psnr");
        let right = truth(&units);
        let mut seed = 11u32;
        let mut rng = move |below: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % below
        };
        let mut dirty = Vec::new();
        // Five times over, with sequence numbers that go on.
        for seqnum in 0..5 * packets.len() {
            let mut data = bytes(&packets[seqnum % packets.len()]);
            data[2..4].copy_from_slice(&(seqnum as u16).to_be_bytes());
            match rng(60) {
                0 => data[12 + rng(7)] ^= 1 << rng(8),
                1 => {
                    let at = 12 + rng(data.len() - 12);
                    data[at] ^= 1 << rng(8);
                }
                2 => data.truncate(12 + rng(data.len() - 12)),
                3 => data.truncate(12),
                4 => data.extend(vec![rng(256) as u8; 1 + rng(300)]),
                5 => dirty.push(data.clone()),
                6 => continue,
                7 => {
                    // Of another frame, under this number.
                    let other = bytes(&packets[rng(packets.len())]);
                    data.truncate(12);
                    data.extend(&other[12..]);
                }
                _ => {}
            }
            dirty.push(data);
        }
        let dirty = dirty.into_iter().map(gst::Buffer::from_slice).collect();
        let passed = through(DECODE, Duration::from_millis(1), &caps, dirty, |_| ());
        let (sound, flagged) = shown(&passed);
        for (size, checksum) in &sound {
            assert_eq!(*size, (64, 48));
            assert!(right.contains(checksum));
        }
        let stats = stats(&passed.bin, "depay");
        assert!(count(&stats, "refused-packets") > 0, "{stats}");
        assert!(count(&stats, "lost") > 0, "{stats}");
        assert!(flagged > 0 || sound.len() < units.len());
    });
}

/// A pipeline that loses the end of the twentieth frame: the encoder hears of it and goes on
/// without a key frame.
#[test]
fn a_loss_is_answered_from_a_long_term_reference() {
    within(|| {
        let pipeline = launch(
            "videotestsrc num-buffers=40 pattern=ball \
             ! video/x-raw,width=96,height=64,framerate=25/1 \
             ! nnvenc tune=zerolatency key-int-max=0 quantizer=30 error-resilience=ltr \
                 frame-checksum=true name=enc \
             ! rtpnnvpay mtu=300 ! identity name=net ! rtpnnvdepay name=depay ! nnvparse \
             ! nnvdec name=dec ! fakesink name=out sync=false",
        );
        let bin = pipeline.clone().downcast::<gst::Bin>().unwrap();
        let net = bin.by_name("net").unwrap().static_pad("src").unwrap();
        let markers = AtomicUsize::new(0);
        net.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let end = info.buffer().is_some_and(|b| ends_frame(b));
            match end && markers.fetch_add(1, Ordering::Relaxed) == 19 {
                true => gst::PadProbeReturn::Drop,
                false => gst::PadProbeReturn::Ok,
            }
        });
        let outcome = play(&pipeline);
        assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
        assert_eq!(outcome.warnings.len(), 1, "{:?}", outcome.warnings);
        let sent = stats(&bin, "enc");
        assert_eq!(count(&sent, "key-frames"), 1, "{sent}");
        assert_eq!(count(&sent, "recovery-frames"), 1, "{sent}");
        let got = stats(&bin, "dec");
        assert_eq!(count(&got, "concealed"), 1, "{got}");
        assert_eq!(count(&got, "frames"), 39, "{got}");
        assert!(count(&got, "verified-checksums") > 30, "{got}");
    });
}

#[test]
fn long_term_references_do_not_go_with_reordering() {
    within(|| {
        let outcome = play(&launch(
            "videotestsrc num-buffers=2 ! video/x-raw,width=64,height=48 \
             ! nnvenc bframes=3 error-resilience=ltr ! fakesink",
        ));
        assert!(outcome.errors[0].contains("error-resilience=ltr with bframes=3"));
    });
}

/// Over sockets: `rtpbin` carries the loss back as a NACK, `rtpnnvpay` names the frame, the encoder
/// goes on from an older one.
#[test]
fn rtpbin_carries_the_report_of_a_loss_to_the_encoder() {
    if !have(&["rtpbin", "udpsrc", "udpsink"]) {
        return;
    }
    within(|| {
        let port = || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.local_addr().unwrap().port()
        };
        let (rtp, to, back) = (port(), port(), port());
        let receiver = launch(&format!(
            "rtpbin name=b latency=100 rtp-profile=avpf udpsrc port={rtp} \
             caps=\"application/x-rtp,media=video,clock-rate=90000,encoding-name=NNV,payload=96\" \
             ! identity name=net ! b.recv_rtp_sink_0 \
             b. ! rtpnnvdepay name=depay ! nnvparse ! nnvdec name=dec \
             ! fakesink name=out sync=false \
             udpsrc port={to} ! b.recv_rtcp_sink_0 \
             b.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={back} sync=false async=false"
        ));
        let sender = launch(&format!(
            "rtpbin name=b rtp-profile=avpf \
             videotestsrc num-buffers=60 is-live=true pattern=ball \
             ! video/x-raw,width=64,height=48,framerate=10/1 \
             ! nnvenc name=enc tune=zerolatency key-int-max=0 quantizer=30 error-resilience=ltr \
             ! rtpnnvpay mtu=300 ! b.send_rtp_sink_0 \
             b.send_rtp_src_0 ! udpsink host=127.0.0.1 port={rtp} \
             b.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={to} sync=false async=false \
             udpsrc port={back} ! b.recv_rtcp_sink_0"
        ));
        let (there, here) = (
            receiver.clone().downcast::<gst::Bin>().unwrap(),
            sender.clone().downcast::<gst::Bin>().unwrap(),
        );
        let net = there.by_name("net").unwrap().static_pad("src").unwrap();
        let markers = AtomicUsize::new(0);
        net.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let end = info.buffer().is_some_and(|b| ends_frame(b));
            match end && [20, 35].contains(&markers.fetch_add(1, Ordering::Relaxed)) {
                true => gst::PadProbeReturn::Drop,
                false => gst::PadProbeReturn::Ok,
            }
        });
        let flags = Arc::new(Mutex::new(Vec::new()));
        let seen = flags.clone();
        let out = there.by_name("out").unwrap().static_pad("sink").unwrap();
        out.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let corrupted = gst::BufferFlags::CORRUPTED;
            let flagged = info.buffer().is_some_and(|b| b.flags().contains(corrupted));
            seen.lock().unwrap().push(flagged);
            gst::PadProbeReturn::Ok
        });
        receiver.set_state(gst::State::Playing).unwrap();
        sender.set_state(gst::State::Playing).unwrap();
        let all = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            let stats = here.by_name("enc").unwrap().property_value("stats");
            let stats = stats.get::<Option<gst::Structure>>().unwrap();
            stats.is_some_and(|stats| stats.get("frames") == Ok(60u64))
        });
        assert!(all, "sixty frames were not coded in a minute");
        std::thread::sleep(Duration::from_millis(500));
        let sent = stats(&here, "enc");
        sender.set_state(gst::State::Null).unwrap();
        receiver.set_state(gst::State::Null).unwrap();
        assert_eq!(count(&sent, "key-frames"), 1, "{sent}");
        assert!((1..=4).contains(&count(&sent, "recovery-frames")), "{sent}");
        let flags = flags.lock().unwrap();
        assert!(flags.contains(&true) && flags.len() > 45, "{flags:?}");
        // The last second is right again.
        assert!(
            flags[flags.len() - 8..].iter().all(|flagged| !flagged),
            "{flags:?}"
        );
    });
}

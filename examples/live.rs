// SPDX-License-Identifier: MPL-2.0
//! A live stream over real sockets and an emulated path, in real time. `bench/live/run.sh` calls
//! it.
//!
//! ```text
//! live --trace FILE --out FOLDER [--controller rule|learned|fixed] [--seconds 60] [--scale 1]
//!      [--size 176x144] [--fps 12] [--clip FILE] [--max KBITS] [--bitrate KBITS]
//!      [--queue BYTES] [--delay MS] [--jitter MS] [--loss SHARE] [--burst PACKETS]
//!      [--reorder SHARE] [--seed N]
//! ```
//!
//! Sender and receiver are ordinary pipelines with `rtpbin`; between them a relay of UDP packets
//! plays the trace. All in one process, so that one clock times everything. Writes `frames.csv`
//! (each frame that was shown), `path.csv` (capacity and rate by tenths of a second) and prints a
//! row of figures.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use nnv_adapt::Trace;
use nnv_quality::{PlaneView, QualityError, SquaredError, peak, ssim};

type Res<T> = Result<T, Box<dyn Error>>;

/// A frame later than this is late.
const LATE_MS: f64 = 400.0;
/// Capabilities of the packets; the extension asks for transport-wide feedback.
const RTP_CAPS: &str = "application/x-rtp,media=video,clock-rate=90000,encoding-name=NNV,\
    payload=96,rtcp-fb-transport-cc=(boolean)true,extmap-1=(string)\"http://www.ietf.org/id/\
    draft-holmer-rmcat-transport-wide-cc-extensions-01\"";

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Options(BTreeMap<String, String>);

impl Options {
    fn parse() -> Res<Self> {
        let mut values = BTreeMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let name = name
                .strip_prefix("--")
                .ok_or("options begin with --")?
                .to_owned();
            let value = arguments
                .next()
                .ok_or_else(|| format!("--{name} needs a value"))?;
            values.insert(name, value);
        }
        Ok(Self(values))
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).map_or(default, String::as_str).to_owned()
    }

    fn number(&self, name: &str, default: f64) -> Res<f64> {
        let text = self.text(name, &default.to_string());
        let number: f64 = text
            .parse()
            .map_err(|_| format!("--{name} {text} is no number"))?;
        if (0.0..1e9).contains(&number) {
            Ok(number)
        } else {
            Err(format!("--{name} {text} is out of range").into())
        }
    }
}

/// What the path does beside the trace.
#[derive(Debug, Clone)]
struct Path {
    trace: Trace,
    queue: usize,
    delay: f64,
    jitter: f64,
    loss: f64,
    burst: f64,
    reorder: f64,
}

/// Counts of the relay.
#[derive(Default)]
struct Counts {
    passed: AtomicU64,
    dropped: AtomicU64,
}

/// Takes packets for one direction, holds them as long as the path would, and sends them on.
fn relay(
    path: Path,
    [from, to]: [u16; 2],
    seed: u64,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    begin: Instant,
) -> Res<std::thread::JoinHandle<()>> {
    let socket = UdpSocket::bind(("127.0.0.1", from))?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    let to = SocketAddr::from(([127, 0, 0, 1], to));
    Ok(std::thread::spawn(move || {
        let mut rng = fastrand_like(seed);
        let mut waiting: Vec<(f64, Vec<u8>)> = Vec::new();
        let mut leaving: Vec<(f64, usize)> = Vec::new();
        let (mut last, mut bad) = (0.0_f64, false);
        let mut buffer = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            let received = socket.recv(&mut buffer);
            let now = begin.elapsed().as_secs_f64();
            if let Ok(size) = received {
                leaving.retain(|(leave, _)| *leave > now);
                let queued: usize = leaving.iter().map(|(_, bytes)| bytes).sum();
                // Two states: in the bad one all is lost, and it lasts `burst` packets on average.
                let turn = rng();
                bad = if bad {
                    turn >= 1.0 / path.burst
                } else {
                    turn < path.loss / path.burst
                };
                if bad || queued + size > path.queue {
                    counts.dropped.fetch_add(1, Ordering::Relaxed);
                } else {
                    let bits = (size + 28) as f64 * 8.0;
                    let start = leaving.last().map_or(now, |(leave, _)| leave.max(now));
                    let leave = path.trace.when(path.trace.carried(start) + bits).max(start);
                    leaving.push((leave, size));
                    let jitter = path.jitter * (rng() + rng() + rng() - 1.5);
                    let mut due = (leave + path.delay + jitter).max(leave);
                    if rng() < path.reorder {
                        due += 0.03;
                    } else {
                        due = due.max(last);
                        last = due;
                    }
                    waiting.push((due, buffer[..size].to_vec()));
                    counts.passed.fetch_add(size as u64, Ordering::Relaxed);
                }
            }
            let mut i = 0;
            while i < waiting.len() {
                if waiting[i].0 <= now {
                    let (_, packet) = waiting.remove(i);
                    // A receiver that is gone is no fault of the path.
                    let _ = socket.send_to(&packet, to);
                } else {
                    i += 1;
                }
            }
        }
    }))
}

/// Numbers in 0..1, the same for the same seed.
fn fastrand_like(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Luma of the frames that are sent, one after the other and back again.
fn frames_of(clip: &str, width: usize, height: usize) -> Res<Vec<Vec<u8>>> {
    let source = if clip.is_empty() {
        "videotestsrc num-buffers=60 pattern=ball motion=wavy".to_owned()
    } else {
        format!("filesrc location=\"{clip}\" ! decodebin ! videoconvert")
    };
    let pipeline = gst::parse::launch(&format!(
        "{source} ! videoscale ! videoconvert \
         ! video/x-raw,format=I420,width={width},height={height} ! fakesink name=out sync=false"
    ))?;
    let bin = pipeline.downcast_ref::<gst::Bin>().ok_or("no bin")?;
    let pad = bin
        .by_name("out")
        .and_then(|e| e.static_pad("sink"))
        .ok_or("no sink")?;
    let frames = Arc::new(Mutex::new(Vec::new()));
    let kept = frames.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(map) = info.buffer().and_then(|b| b.map_readable().ok()) {
            let mut kept = lock(&kept);
            if kept.len() < 150 {
                kept.push(map.to_vec());
            }
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing)?;
    wait(&pipeline, Duration::from_secs(120))?;
    pipeline.set_state(gst::State::Null)?;
    let frames = std::mem::take(&mut *lock(&frames));
    if frames.is_empty() {
        return Err(format!("{clip} has no frames").into());
    }
    Ok(frames)
}

fn wait(pipeline: &gst::Element, limit: Duration) -> Res<()> {
    let bus = pipeline.bus().ok_or("no bus")?;
    let limit = gst::ClockTime::from_nseconds(limit.as_nanos() as u64);
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    match bus.timed_pop_filtered(limit, &kinds) {
        Some(message) => match message.view() {
            gst::MessageView::Error(e) => {
                Err(format!("{} {}", e.error(), e.debug().unwrap_or_default()).into())
            }
            _ => Ok(()),
        },
        None => Err("nothing happens any more".into()),
    }
}

/// A frame that was shown.
struct Shown {
    number: u64,
    at: f64,
    delay_ms: f64,
    psnr: f64,
    ssim: f64,
    coded: (u32, u32),
}

/// Luma of an I420 picture as GStreamer lays it out.
fn luma(data: &[u8], width: usize, height: usize) -> Result<PlaneView<'_>, QualityError> {
    PlaneView::u8(data, width, height, width.next_multiple_of(4))
}

/// Which frame a unit is, by the times of RTP packets and of buffers.
#[derive(Default)]
struct Names {
    /// RTP time of each frame's packets.
    rtp: HashMap<u32, u64>,
    /// Presentation times on the receiver's side.
    received: HashMap<u64, u64>,
    last_rtp: Option<u32>,
    captured: Vec<f64>,
}

fn rtp_time(buffer: &gst::BufferRef) -> Option<u32> {
    let map = buffer.map_readable().ok()?;
    Some(u32::from_be_bytes(map.get(4..8)?.try_into().ok()?))
}

/// Lets a receiver report on packets at every twentieth of a second. By default it waits until RTCP
/// has its share of a bandwidth that `rtpbin` guesses, which at low rates takes most of a second.
fn ask_for_feedback(receiver: &gst::Bin) -> Res<()> {
    let bin = receiver.by_name("bin").ok_or("no rtpbin")?;
    let session: glib::Object = bin.emit_by_name("get-internal-session", &[&0_u32]);
    session.set_property("twcc-feedback-interval", gst::ClockTime::from_mseconds(50));
    session.set_property("bandwidth", 250_000_f64);
    Ok(())
}

fn pad_of(bin: &gst::Bin, element: &str, pad: &str) -> Res<gst::Pad> {
    bin.by_name(element)
        .and_then(|e| e.static_pad(pad))
        .ok_or_else(|| format!("{element} has no pad {pad}").into())
}

fn main() -> Res<()> {
    gst::init()?;
    gstnnv::plugin_register_static()?;
    let options = Options::parse()?;
    let out = PathBuf::from(options.text("out", "."));
    std::fs::create_dir_all(&out)?;
    let size = options.text("size", "176x144");
    let (width, height) = size.split_once('x').ok_or("--size WIDTHxHEIGHT")?;
    let (width, height): (usize, usize) = (width.parse()?, height.parse()?);
    let fps = options.number("fps", 12.0)?.clamp(1.0, 60.0) as u64;
    let seconds = options.number("seconds", 60.0)?;
    let text =
        std::fs::read_to_string(options.text("trace", "")).map_err(|e| format!("--trace: {e}"))?;
    let trace = Trace::parse(&text)?.scaled(options.number("scale", 1.0)?)?;
    let path = Path {
        trace: trace.clone(),
        queue: options.number("queue", 60_000.0)? as usize,
        delay: options.number("delay", 20.0)? / 1e3,
        jitter: options.number("jitter", 2.0)? / 1e3,
        loss: options.number("loss", 0.0)?,
        burst: options.number("burst", 1.0)?.max(1.0),
        reorder: options.number("reorder", 0.0)?,
    };
    let max = options.number("max", (trace.mean() * 2.0 / 1e3).ceil())?;
    let min = (max / 50.0).ceil().max(2.0);
    let controller = options.text("controller", "learned");
    let frames = frames_of(&options.text("clip", ""), width, height)?;
    let frames = Arc::new(frames);
    let ports: Vec<u16> = (0..6)
        .map(|_| Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port()))
        .collect::<std::io::Result<_>>()?;
    let [rtp_in, rtp_out, back_in, back_out, ahead_in, ahead_out] = ports[..] else {
        return Err("no ports".into());
    };
    let encoder = match controller.as_str() {
        "fixed" => {
            let bitrate = options.number("bitrate", trace.mean() / 2e3)?.max(1.0);
            format!(
                "nnvenc name=encoder rate-control=cbr bitrate={bitrate:.0} zerolatency=true \
                 speed-preset=fast key-int-max=0"
            )
        }
        "rule" | "learned" => format!(
            "nnvadapt name=adapt controller={controller} min-bitrate={min:.0} \
             max-bitrate={max:.0} start-bitrate={:.0} encoder::speed-preset=fast \
             encoder::key-int-max=0",
            (max / 6.0).max(min)
        ),
        other => return Err(format!("--controller {other}: rule, learned or fixed").into()),
    };
    let sender = gst::parse::launch(&format!(
        "rtpbin name=bin rtp-profile=avpf \
         appsrc name=src is-live=true format=time max-bytes=0 \
           caps=video/x-raw,format=I420,width={width},height={height},framerate={fps}/1,\
           interlace-mode=progressive \
         ! queue max-size-buffers=2 leaky=downstream ! {encoder} \
         ! rtpnnvpay mtu=1200 name=pay ! {RTP_CAPS} ! bin.send_rtp_sink_0 \
         bin.send_rtp_src_0 ! udpsink name=rtp host=127.0.0.1 port={rtp_in} sync=false \
           async=false \
         bin.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={ahead_in} sync=false async=false \
         udpsrc address=127.0.0.1 port={back_out} ! bin.recv_rtcp_sink_0"
    ))?;
    let receiver = gst::parse::launch(&format!(
        "rtpbin name=bin rtp-profile=avpf latency=100 \
         udpsrc address=127.0.0.1 port={rtp_out} caps=\"{}\" ! bin.recv_rtp_sink_0 \
         bin. ! rtpnnvdepay name=depay ! nnvparse ! nnvdec name=dec \
         ! videoscale ! video/x-raw,width={width},height={height} ! videoconvert \
         ! video/x-raw,format=I420 ! fakesink name=out sync=false async=false \
         udpsrc address=127.0.0.1 port={ahead_out} ! bin.recv_rtcp_sink_0 \
         bin.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={back_in} sync=false async=false",
        RTP_CAPS.replace('"', "\\\"")
    ))?;
    let (send_bin, receive_bin) = (
        sender
            .clone()
            .downcast::<gst::Bin>()
            .map_err(|_| "no bin")?,
        receiver
            .clone()
            .downcast::<gst::Bin>()
            .map_err(|_| "no bin")?,
    );
    ask_for_feedback(&receive_bin)?;
    let names = Arc::new(Mutex::new(Names::default()));
    let shown: Arc<Mutex<Vec<Shown>>> = Arc::default();
    let begin = Instant::now();

    let known = names.clone();
    pad_of(&send_bin, "pay", "src")?.add_probe(
        gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST,
        move |_, info| {
            let note = |buffer: &gst::BufferRef| {
                if let (Some(pts), Some(rtp)) = (buffer.pts(), rtp_time(buffer)) {
                    let number = (pts.nseconds() * fps + 500_000_000) / 1_000_000_000;
                    lock(&known).rtp.insert(rtp, number);
                }
            };
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => note(buffer),
                Some(gst::PadProbeData::BufferList(list)) => list.iter().for_each(note),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        },
    );
    let known = names.clone();
    pad_of(&receive_bin, "depay", "sink")?.add_probe(
        gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST,
        move |_, info| {
            let rtp = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => rtp_time(buffer),
                Some(gst::PadProbeData::BufferList(list)) => list.iter().last().and_then(rtp_time),
                _ => None,
            };
            lock(&known).last_rtp = rtp;
            gst::PadProbeReturn::Ok
        },
    );
    let known = names.clone();
    pad_of(&receive_bin, "depay", "src")?.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let mut known = lock(&known);
        let number = known.last_rtp.and_then(|rtp| known.rtp.get(&rtp).copied());
        if let (Some(pts), Some(number)) = (info.buffer().and_then(|b| b.pts()), number) {
            known.received.insert(pts.nseconds(), number);
        }
        gst::PadProbeReturn::Ok
    });
    let (known, list, originals) = (names.clone(), shown.clone(), frames.clone());
    let coded = pad_of(&receive_bin, "dec", "src")?;
    pad_of(&receive_bin, "out", "sink")?.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let at = begin.elapsed().as_secs_f64();
        let Some(buffer) = info.buffer() else {
            return gst::PadProbeReturn::Ok;
        };
        let found = buffer.pts().and_then(|pts| {
            let known = lock(&known);
            let number = *known.received.get(&pts.nseconds())?;
            Some((number, *known.captured.get(number as usize)?))
        });
        if let (Some((number, captured)), Ok(map)) = (found, buffer.map_readable()) {
            let original = &originals[turn(number as usize, originals.len())];
            let measured = luma(&map, width, height).and_then(|a| {
                let b = luma(original, width, height)?;
                Ok((SquaredError::of(a, b)?.psnr(peak(8)), ssim(a, b)?))
            });
            let coded = coded
                .current_caps()
                .and_then(|caps| gst_video::VideoInfo::from_caps(&caps).ok())
                .map_or((0, 0), |info| (info.width(), info.height()));
            if let Ok((psnr, ssim)) = measured {
                let delay_ms = (at - captured) * 1e3;
                lock(&list).push(Shown {
                    number,
                    at,
                    delay_ms,
                    psnr,
                    ssim,
                    coded,
                });
            }
        }
        gst::PadProbeReturn::Ok
    });

    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::new(Counts::default());
    let seed = options.number("seed", 1.0)? as u64;
    let clear = Path {
        trace: Trace::parse("0 1000\n1000 1000")?,
        queue: 1 << 20,
        loss: 0.0,
        reorder: 0.0,
        ..path.clone()
    };
    let relays = [
        relay(
            path,
            [rtp_in, rtp_out],
            seed,
            stop.clone(),
            counts.clone(),
            begin,
        )?,
        relay(
            clear.clone(),
            [back_in, back_out],
            seed + 1,
            stop.clone(),
            Arc::default(),
            begin,
        )?,
        relay(
            clear,
            [ahead_in, ahead_out],
            seed + 2,
            stop.clone(),
            Arc::default(),
            begin,
        )?,
    ];
    receiver.set_state(gst::State::Playing)?;
    sender.set_state(gst::State::Playing)?;

    let source = send_bin.by_name("src").ok_or("no source")?;
    let adapt = send_bin.by_name("adapt");
    let started = begin.elapsed().as_secs_f64();
    let mut rows = String::from("seconds,capacity,passed,bitrate,queue_ms\n");
    let (mut next_row, mut passed) = (started, 0);
    for number in 0..(seconds * fps as f64) as u64 {
        let due = started + number as f64 / fps as f64;
        loop {
            let now = begin.elapsed().as_secs_f64();
            if now >= next_row {
                let total = counts.passed.load(Ordering::Relaxed);
                let capacity = (trace.carried(now) - trace.carried(now - 0.1)) / 100.0;
                let (bitrate, queue) = adapt.as_ref().map_or((0_u32, 0.0_f64), |adapt| {
                    let stats: gst::Structure = adapt.property("stats");
                    (adapt.property("bitrate"), stats.get("queue").unwrap_or(0.0))
                });
                let rate = (total - passed) as f64 * 8.0 / 100.0;
                writeln!(
                    rows,
                    "{now:.3},{capacity:.1},{rate:.1},{bitrate},{queue:.1}"
                )?;
                (passed, next_row) = (total, next_row + 0.1);
            }
            if now >= due {
                break;
            }
            std::thread::sleep(Duration::from_secs_f64((due.min(next_row) - now).max(1e-4)));
        }
        lock(&names).captured.push(begin.elapsed().as_secs_f64());
        let frame = &frames[turn(number as usize, frames.len())];
        let mut buffer = gst::Buffer::from_slice(frame.clone());
        if let Some(buffer) = buffer.get_mut() {
            let ns = |n: u64| gst::ClockTime::from_nseconds(n * 1_000_000_000 / fps);
            buffer.set_pts(ns(number));
            buffer.set_duration(ns(1));
        }
        let flow: gst::FlowReturn = source.emit_by_name("push-buffer", &[&buffer]);
        if flow != gst::FlowReturn::Ok {
            // The reason is on the bus.
            wait(&sender, Duration::from_secs(2))?;
            return Err(format!("the source is refused: {flow:?}").into());
        }
        for pipeline in [&sender, &receiver] {
            let bus = pipeline.bus().ok_or("no bus")?;
            if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error])
                && let gst::MessageView::Error(e) = message.view()
            {
                return Err(format!("{} {:?}", e.error(), e.debug()).into());
            }
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    let stats = adapt.map(|adapt| adapt.property::<gst::Structure>("stats"));
    stop.store(true, Ordering::Relaxed);
    sender.set_state(gst::State::Null)?;
    receiver.set_state(gst::State::Null)?;
    for relay in relays {
        relay.join().map_err(|_| "a relay failed")?;
    }

    std::fs::write(out.join("path.csv"), rows)?;
    let shown = std::mem::take(&mut *lock(&shown));
    let mut text = String::from("frame,seconds,delay_ms,psnr,ssim,width,height\n");
    for s in &shown {
        writeln!(
            text,
            "{},{:.3},{:.1},{:.2},{:.4},{},{}",
            s.number, s.at, s.delay_ms, s.psnr, s.ssim, s.coded.0, s.coded.1
        )?;
    }
    std::fs::write(out.join("frames.csv"), text)?;
    report(
        &controller,
        &shown,
        started,
        seconds,
        fps as f64,
        &counts,
        &trace,
        stats,
    );
    Ok(())
}

/// Frame of a clip that goes to and fro.
fn turn(number: usize, count: usize) -> usize {
    let round = (2 * count).saturating_sub(2).max(1);
    let n = number % round;
    if n < count { n } else { round - n }
}

#[allow(clippy::too_many_arguments, reason = "a report of everything")]
fn report(
    controller: &str,
    shown: &[Shown],
    started: f64,
    seconds: f64,
    fps: f64,
    counts: &Counts,
    trace: &Trace,
    stats: Option<gst::Structure>,
) {
    let usual = 1.0 / fps;
    let (mut frozen, mut last) = (0.0, started);
    let ends = shown.iter().map(|s| s.at).chain([started + seconds]);
    for at in ends {
        let gap = at - last;
        if gap > (3.0 * usual).max(usual + 0.15) {
            frozen += gap;
        }
        last = at.max(last);
    }
    let count = shown.len().max(1) as f64;
    let mean = |f: fn(&Shown) -> f64| shown.iter().map(f).sum::<f64>() / count;
    let late = shown.iter().filter(|s| s.delay_ms > LATE_MS).count() as f64 / count;
    let mut delays: Vec<_> = shown.iter().map(|s| s.delay_ms).collect();
    delays.sort_by(f64::total_cmp);
    let at = |share: f64| delays.get((count * share) as usize).copied().unwrap_or(0.0);
    let passed = counts.passed.load(Ordering::Relaxed) as f64 * 8.0 / 1e3 / seconds;
    let capacity = (trace.carried(started + seconds) - trace.carried(started)) / 1e3 / seconds;
    println!(
        "| {controller} | {} | {frozen:.1} | {:.1} | {:.0} | {:.0} | {:.2} | {:.4} | {passed:.0} \
         | {capacity:.0} |",
        shown.len(),
        100.0 * late,
        at(0.5),
        at(0.95),
        mean(|s| s.psnr),
        mean(|s| s.ssim),
    );
    let dropped = counts.dropped.load(Ordering::Relaxed);
    eprintln!(
        "packets dropped: {dropped}; {}",
        stats.map_or(String::new(), |s| s.to_string())
    );
}

// SPDX-License-Identifier: MPL-2.0
//! A sender, a path after a trace and a viewer, without a clock: thousands of seconds in one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::{Controller, Packet, Qoe, Time, Trace};

/// What the path does beside what the trace says.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Seconds one way, each way.
    pub delay: f64,
    /// Standard deviation of the delay in seconds; order is kept.
    pub jitter: f64,
    /// Bytes that wait at most; more are dropped.
    pub queue: usize,
    /// Share of packets that are lost at random.
    pub loss: f64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: 0.03,
            jitter: 0.002,
            queue: 400_000,
            loss: 0.0,
        }
    }
}

/// What is sent and how it is watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Frames a second.
    pub fps: f64,
    /// Standard deviation of the logarithm of frame sizes.
    pub unevenness: f64,
    /// Seconds between reports on packets.
    pub reports: f64,
    /// Seconds from capture to display that the viewer plans for.
    pub playout: f64,
    /// Longest time that is simulated, in seconds.
    pub limit: f64,
    /// For everything random.
    pub seed: u64,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            fps: 30.0,
            unevenness: 0.2,
            reports: 0.1,
            playout: 0.15,
            limit: 600.0,
            seed: 1,
        }
    }
}

/// Quality is counted in doublings from this rate on, bit/s.
pub const LEAST_RATE: f64 = 50e3;
/// A frame later than this after its capture is late, in seconds.
pub const LATE: f64 = 0.4;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// Sums for the score.
    pub qoe: Qoe,
    /// Frames that were shown, those of them that came later than [`LATE`], and those that were
    /// not coded because the path was full.
    pub shown: u64,
    /// Late ones of the shown.
    pub late: u64,
    /// Frames that were not coded.
    pub left_out: u64,
    /// Bits that arrived.
    pub bits: f64,
    /// Bits that the path would have carried.
    pub capacity: f64,
    /// Seconds played.
    pub seconds: f64,
}

impl Outcome {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.qoe.add(&other.qoe);
        self.shown += other.shown;
        self.late += other.late;
        self.left_out += other.left_out;
        self.bits += other.bits;
        self.capacity += other.capacity;
        self.seconds += other.seconds;
    }

    /// Mean over the shown frames of log2 of their rate over [`LEAST_RATE`].
    pub fn quality(&self) -> f64 {
        self.qoe.quality / self.qoe.seconds.max(1e-9)
    }
}

/// Header bytes of a packet: IP, UDP, RTP and the extension.
const HEADERS: usize = 48;
const PAYLOAD: usize = 1200;
/// Packets of a frame leave at so many times the rate.
const PACING: f64 = 2.5;
/// A key frame is so many times as large as others.
const KEY: f64 = 4.0;
/// A standing picture from so many seconds on is a freeze.
const FREEZE: f64 = 0.15;

struct Flight<'a> {
    trace: &'a Trace,
    link: &'a Link,
    rng: fastrand::Rng,
    /// Departures from the queue, in seconds, and bytes of each.
    leaving: VecDeque<(f64, usize)>,
    queued: usize,
    last_arrival: f64,
}

impl Flight<'_> {
    fn normal(&mut self) -> f64 {
        // The sum of twelve has the variance one.
        (0..12).map(|_| self.rng.f64()).sum::<f64>() - 6.0
    }

    /// When a packet that enters at `t` comes out; `None` where it is lost.
    fn send(&mut self, t: f64, bytes: usize) -> Option<f64> {
        while self.leaving.front().is_some_and(|(leave, _)| *leave <= t) {
            self.queued -= self.leaving.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        if self.queued + bytes > self.link.queue {
            return None;
        }
        let begin = self.leaving.back().map_or(t, |(leave, _)| leave.max(t));
        let leave = self
            .trace
            .when(self.trace.carried(begin) + bytes as f64 * 8.0)
            .max(begin);
        self.leaving.push_back((leave, bytes));
        self.queued += bytes;
        if self.rng.f64() < self.link.loss {
            return None;
        }
        let jitter = self.normal() * self.link.jitter;
        let arrival = leave + self.link.delay + jitter.max(-self.link.delay);
        self.last_arrival = arrival.max(self.last_arrival);
        Some(self.last_arrival)
    }
}

struct Frame {
    captured: f64,
    complete: f64,
    missing: usize,
    quality: f64,
}

/// A second try of a lost packet: when, which frame, bytes, how often it was tried.
type Again = Reverse<(u64, usize, usize, u32)>;

/// Plays a stream over a trace.
pub fn play(controller: &mut Controller, trace: &Trace, link: &Link, scene: &Scene) -> Outcome {
    let seconds = trace.duration().min(scene.limit);
    let mut flight = Flight {
        trace,
        link,
        rng: fastrand::Rng::with_seed(scene.seed),
        leaving: VecDeque::new(),
        queued: 0,
        last_arrival: 0.0,
    };
    let mut frames: Vec<Frame> = Vec::new();
    let mut waiting: VecDeque<Packet> = VecDeque::new();
    let mut again: BinaryHeap<Again> = BinaryHeap::new();
    let (mut report, mut free, mut debt, mut outcome) =
        (scene.reports, 0.0_f64, 0.0_f64, Outcome::default());
    for n in 0..(seconds * scene.fps) as usize {
        let t = n as f64 / scene.fps;
        // Reports that were made until one way ago.
        while report + link.delay <= t {
            let edge = Time::from_seconds(report);
            let came = waiting
                .iter()
                .rposition(|p| p.arrived.is_some_and(|a| a <= edge));
            if let Some(last) = came {
                let packets: Vec<_> = waiting.drain(..=last).collect();
                controller.feedback(Time::from_seconds(report + link.delay), &packets);
            }
            report += scene.reports;
        }
        let now = Time::from_seconds(t);
        // Lost packets are asked for again, and go before others.
        while let Some(&Reverse((us, frame, bytes, tries))) = again.peek() {
            let due = us as f64 / 1e6;
            if due > t {
                break;
            }
            again.pop();
            outcome.bits += bytes as f64 * 8.0;
            match flight.send(due, bytes) {
                Some(arrival) => {
                    let frame = &mut frames[frame];
                    frame.missing -= 1;
                    frame.complete = frame.complete.max(arrival);
                }
                None if tries < 10 => {
                    again.push(Reverse((us + 150_000, frame, bytes, tries + 1)));
                }
                None => {}
            }
        }
        if !controller.admits(now) {
            outcome.left_out += 1;
            continue;
        }
        let rate = controller.decide(now).bitrate;
        let mean = rate / scene.fps / 8.0;
        let spread = (flight.normal() * scene.unevenness).exp();
        let wanted = if n == 0 { KEY * mean } else { mean * spread };
        // What a large frame took too much, the next ones give back.
        let size = (wanted - debt.clamp(0.0, 0.3 * mean)).max(60.0);
        debt = (debt + size - mean).max(0.0);
        let size = size as usize;
        controller.sent(now, size + HEADERS * size.div_ceil(PAYLOAD));
        let mut frame = Frame {
            captured: t,
            complete: t,
            missing: 0,
            quality: (rate / LEAST_RATE).log2(),
        };
        free = free.max(t);
        let mut rest = size;
        while rest > 0 {
            let bytes = rest.min(PAYLOAD) + HEADERS;
            rest -= rest.min(PAYLOAD);
            let arrived = flight.send(free, bytes);
            waiting.push_back(Packet {
                sent: Time::from_seconds(free),
                arrived: arrived.map(Time::from_seconds),
                bytes: bytes as u32,
            });
            outcome.bits += bytes as f64 * 8.0;
            match arrived {
                Some(arrival) => frame.complete = frame.complete.max(arrival),
                None => {
                    frame.missing += 1;
                    let due = free + 4.0 * link.delay + 0.02;
                    again.push(Reverse(((due * 1e6) as u64, frames.len(), bytes, 0)));
                }
            }
            free += bytes as f64 * 8.0 / (PACING * rate);
        }
        frames.push(frame);
    }
    outcome.capacity = trace.carried(seconds);
    outcome.seconds = seconds;
    watch(&frames, scene, seconds, &mut outcome);
    outcome
}

/// What a viewer sees of the frames.
fn watch(frames: &[Frame], scene: &Scene, seconds: f64, outcome: &mut Outcome) {
    let (mut shown, mut quality): (f64, Option<f64>) = (0.0, None);
    for frame in frames {
        // Each frame needs the one before: what is never whole stops all.
        if frame.missing > 0 {
            break;
        }
        let at = frame
            .complete
            .max(frame.captured + scene.playout)
            .max(shown);
        if at > seconds + scene.playout {
            break;
        }
        outcome.shown += 1;
        outcome.late += u64::from(frame.complete - frame.captured > LATE);
        freeze(at - shown, scene, outcome);
        shown = at;
        outcome.qoe.seconds += 1.0 / scene.fps;
        outcome.qoe.quality += frame.quality / scene.fps;
        outcome.qoe.switched += quality.map_or(0.0, |q: f64| (frame.quality - q).abs());
        quality = Some(frame.quality);
    }
    freeze(seconds + scene.playout - shown, scene, outcome);
}

/// A gap counts, as in WebRTC's statistics, from three frames or 150 ms over one on.
fn freeze(gap: f64, scene: &Scene, outcome: &mut Outcome) {
    let usual = 1.0 / scene.fps;
    if gap > (3.0 * usual).max(usual + FREEZE) {
        outcome.qoe.frozen += gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Harmonic, Limits, Mode, Tuning};

    fn controller(mode: Mode) -> Controller {
        Controller::new(mode, Limits::new(50e3, 4e6).unwrap(), 300e3)
    }

    fn learned() -> Mode {
        Mode::Learned(Box::new(Harmonic::new(0.5)), Tuning::default())
    }

    #[test]
    fn a_steady_path_is_used_and_nothing_stands_still() {
        let trace = Trace::parse("0 1\n120 1").unwrap();
        for mode in [Mode::rule(), learned()] {
            let outcome = play(
                &mut controller(mode),
                &trace,
                &Link::default(),
                &Scene::default(),
            );
            assert!(outcome.bits < 1.02 * outcome.capacity);
            assert!(outcome.bits > 0.3 * outcome.capacity, "{outcome:?}");
            assert!(outcome.qoe.frozen < 2.0, "{outcome:?}");
            assert_eq!(outcome.capacity, 120e6);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_and_a_break_is_a_freeze() {
        let trace = Trace::parse("0 1\n30 1\n34 0\n60 1").unwrap();
        let link = Link {
            loss: 0.01,
            ..Link::default()
        };
        let run = |mode| play(&mut controller(mode), &trace, &link, &Scene::default());
        let (a, b) = (run(learned()), run(learned()));
        assert_eq!(a, b);
        assert!(a.qoe.frozen > 3.5 && a.qoe.frozen < 12.0, "{a:?}");
        // Frames that would wait for the path are left out.
        assert!(a.left_out > 60, "{a:?}");
    }
}

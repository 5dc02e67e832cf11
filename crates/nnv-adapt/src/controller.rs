// SPDX-License-Identifier: MPL-2.0
//! The sender's control: reports and the viewer in, rate, size and leave to send out.

use std::collections::VecDeque;
use std::fmt;

use crate::ladder::{Ladder, Rung};
use crate::path::{Packet, Path, ReceiverReport};
use crate::rule::Rule;
use crate::{Forecast, Outlook, Time, Viewer};

/// What the rate may be, in bit/s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    min: f64,
    max: f64,
}

impl Limits {
    /// `None` unless `0 < min <= max` and both are numbers.
    pub fn new(min: f64, max: f64) -> Option<Self> {
        (min > 0.0 && min <= max && max.is_finite()).then_some(Self { min, max })
    }

    /// The lowest.
    pub fn min(self) -> f64 {
        self.min
    }

    /// The highest.
    pub fn max(self) -> f64 {
        self.max
    }

    /// The nearest rate within; the lowest for what is no number.
    pub fn clamp(self, rate: f64) -> f64 {
        rate.max(self.min).min(self.max)
    }
}

/// Constants of the learned mode, chosen on training traces by `examples/simulate.rs`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// Probability that the path carries less than what is sent, while its queue is empty.
    pub caution: f64,
    /// The same while a queue stands.
    pub caution_queued: f64,
    /// Seconds ahead that the rate is chosen for.
    pub horizon: f64,
    /// Seconds in which a queue shall drain.
    pub drain: f64,
    /// Seconds of queue from which the path counts as full.
    pub full: f64,
    /// Largest growth per second while the path is not full.
    pub growth: f64,
    /// Seconds that what is under way may take at the rate of the path, before frames are left out.
    pub under_way: f64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            caution: 0.2,
            caution_queued: 0.25,
            horizon: 2.0,
            drain: 1.5,
            full: 0.03,
            growth: 1.3,
            under_way: 0.2,
        }
    }
}

/// How the rate is found.
pub enum Mode {
    /// From the trend of delay and loss alone.
    Rule {
        /// Seconds that what is under way may take before frames are left out; `None`: never, as in
        /// the draft. Browsers do leave them out.
        under_way: Option<f64>,
    },
    /// From a forecast of the path.
    Learned(Box<dyn Forecast>, Tuning),
}

impl Mode {
    /// The rule as the draft has it, with frames left out where they would wait too long.
    pub fn rule() -> Self {
        Self::Rule {
            under_way: Some(RULE_UNDER_WAY),
        }
    }
}

/// Chromium's limit of its congestion window, in seconds.
const RULE_UNDER_WAY: f64 = 0.35;

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rule { .. } => "Rule",
            Self::Learned(..) => "Learned",
        })
    }
}

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// bit/s.
    pub bitrate: f64,
    /// Whether the viewer wants pictures.
    pub send: bool,
}

#[derive(Debug)]
struct Learned {
    forecast: Box<dyn Forecast>,
    tuning: Tuning,
    rate: f64,
    outlook: Option<Outlook>,
    observed: Option<Time>,
    /// The path was full at some time since the last observation.
    full: bool,
    updated: Option<Time>,
}

impl fmt::Debug for dyn Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forecast")
    }
}

#[derive(Debug)]
enum Way {
    Rule(Rule, Option<f64>),
    Learned(Learned),
}

/// Most frames under way that are remembered.
const MAX_UNDER_WAY: usize = 4096;
/// Seconds without a report, while packets are under way, after which the path counts as broken.
const SILENCE: f64 = 0.3;
/// Seconds after which a frame may leave whatever is under way: where the report on the last ones
/// was lost, only further packets bring another.
const PROBE: f64 = 0.5;
/// Seconds after which frames that nobody reported count as gone.
const GONE: f64 = 5.0;
/// So many frames under way never hold others back: without any, nothing would be reported.
const LEAST_UNDER_WAY: usize = 2;
/// Share of a whole picture below which a window is not taken: then the rate of a hidden one.
const LEAST_SHARE: f64 = 1.0 / 16.0;

/// Finds rate and size of a live stream.
#[derive(Debug)]
pub struct Controller {
    limits: Limits,
    path: Path,
    way: Way,
    ladder: Ladder,
    viewer: Viewer,
    /// Frames that left and bytes of each, oldest first.
    under_way: VecDeque<(Time, u64)>,
    start: Option<Time>,
    /// Round-trip times of receiver reports: the least, and the last.
    round_trip: Option<(f64, f64)>,
}

impl Controller {
    /// Begins with a rate in bit/s.
    pub fn new(mode: Mode, limits: Limits, rate: f64) -> Self {
        let rate = limits.clamp(rate);
        Self {
            limits,
            path: Path::default(),
            way: match mode {
                Mode::Rule { under_way } => Way::Rule(Rule::new(rate), under_way),
                Mode::Learned(forecast, tuning) => Way::Learned(Learned {
                    forecast,
                    tuning,
                    rate,
                    outlook: None,
                    observed: None,
                    full: false,
                    updated: None,
                }),
            },
            ladder: Ladder::default(),
            viewer: Viewer::default(),
            under_way: VecDeque::new(),
            start: None,
            round_trip: None,
        }
    }

    /// What the rate may be from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What the viewer does from now on.
    pub fn set_viewer(&mut self, viewer: Viewer) {
        self.viewer = viewer.bounded();
    }

    /// A frame of so many bytes leaves.
    pub fn sent(&mut self, now: Time, bytes: usize) {
        if self.under_way.len() == MAX_UNDER_WAY {
            self.under_way.pop_front();
        }
        self.under_way.push_back((now, bytes as u64));
    }

    /// A report on packets. What cannot be true in it is passed over.
    pub fn feedback(&mut self, now: Time, packets: &[Packet]) {
        let believed = self.path.report(now, packets);
        if believed.is_empty() {
            return;
        }
        if let Some(acknowledged) = self.path.acknowledged() {
            while self
                .under_way
                .front()
                .is_some_and(|(t, _)| *t <= acknowledged)
            {
                self.under_way.pop_front();
            }
        }
        match &mut self.way {
            Way::Rule(rule, _) => rule.report(now, &believed, &self.path, self.limits),
            Way::Learned(learned) => learned.report(now, &self.path),
        }
    }

    /// An RTCP receiver report, for paths without reports on packets. What cannot be true is
    /// passed over.
    ///
    /// The frames that left since the last one stand for packets: so many of them as the report
    /// says came, later by what the round trip grew.
    pub fn receiver_report(&mut self, now: Time, report: ReceiverReport) {
        let Some(report) = report.sound() else { return };
        let (least, trip) = match (self.round_trip, report.round_trip) {
            (Some((least, _)), trip) if trip > 0.0 => (least.min(trip), trip),
            (None, trip) if trip > 0.0 => (trip, trip),
            (Some(known), _) => known,
            (None, _) => (0.0, 0.0),
        };
        self.round_trip = Some((least, trip));
        let until = now.plus(-trip);
        let mut owed = 0.0;
        let packets: Vec<_> = self
            .under_way
            .iter()
            .filter(|(sent, _)| *sent <= until)
            .flat_map(|&(sent, bytes)| {
                let parts = bytes.div_ceil(1200).clamp(1, 1000);
                std::iter::repeat_n((sent, (bytes / parts) as u32), parts as usize)
            })
            .map(|(sent, bytes)| {
                owed += report.lost;
                let gone = owed >= 1.0;
                owed -= f64::from(u8::from(gone));
                Packet {
                    sent,
                    arrived: (!gone).then(|| sent.plus(least / 2.0 + (trip - least))),
                    bytes,
                }
            })
            .collect();
        self.feedback(now, &packets);
    }

    /// Rate at this time, and whether to send.
    pub fn decide(&mut self, now: Time) -> Decision {
        let waiting = self.waiting(now);
        let silence = self.path.silence(now);
        let rate = match &mut self.way {
            Way::Rule(rule, _) => rule.rate(),
            Way::Learned(learned) => learned.rate(now, &self.path, waiting, silence, self.limits),
        };
        Decision {
            bitrate: self.limits.clamp(rate),
            send: self.viewer.watches(),
        }
    }

    /// Size and frame rate for a source of this size and rate, and the bit rate for it (bit/s): no
    /// more than the viewer can see.
    pub fn shape(&mut self, now: Time, size: (u32, u32), fps: f64) -> (Rung, f64) {
        let bitrate = self.decide(now).bitrate;
        let share = self.viewer.share(size).max(0.0);
        let begin = *self.start.get_or_insert(now);
        let samples = f64::from(size.0) * f64::from(size.1) * fps;
        let rung = self
            .ladder
            .choose(now.since(begin), bitrate, samples, share);
        // Bits grow slower than samples: with their power of three quarters.
        let useful = share.max(LEAST_SHARE).powf(0.75);
        (
            rung,
            self.limits.clamp(bitrate.min(self.limits.max * useful)),
        )
    }

    /// Whether the next frame shall be coded: not while what is under way would make it late.
    pub fn admits(&mut self, now: Time) -> bool {
        if !self.viewer.watches() {
            return false;
        }
        let waiting = self.waiting(now);
        let last = self.under_way.back().map(|(sent, _)| now.since(*sent));
        if self.under_way.len() < LEAST_UNDER_WAY || last.is_some_and(|s| s >= PROBE) {
            return true;
        }
        match &self.way {
            Way::Rule(rule, under_way) => {
                under_way.is_none_or(|seconds| waiting <= rule.rate() * seconds)
            }
            Way::Learned(learned) => learned.admits(&self.path, waiting, self.path.silence(now)),
        }
    }

    /// Seconds that packets spend in queues.
    pub fn queue(&self) -> f64 {
        self.path.queue()
    }

    /// Share of packets that were lost lately.
    pub fn lost(&self) -> f64 {
        self.path.lost()
    }

    /// bit/s that came in the last half second.
    pub fn received(&self) -> f64 {
        self.path.received(0.5, 0.0)
    }

    /// Bits that left and were not reported.
    fn waiting(&mut self, now: Time) -> f64 {
        // A clock that was set back leaves frames of the future.
        self.under_way
            .retain(|(t, _)| (0.0..=GONE).contains(&now.since(*t)));
        self.under_way
            .iter()
            .map(|(_, bytes)| *bytes as f64 * 8.0)
            .sum()
    }
}

impl Learned {
    fn report(&mut self, now: Time, path: &Path) {
        self.full |= path.queue() > self.tuning.full;
        self.observe(now, path, 0.0);
    }

    fn observe(&mut self, now: Time, path: &Path, silence: f64) {
        let step = self.forecast.step();
        let since = now.since(*self.observed.get_or_insert(now));
        if since < 0.0 {
            self.observed = Some(now);
        }
        if since < step {
            return;
        }
        // Two steps that were missed are made up for; more are a new path.
        let count = ((since / step) as usize).min(2);
        for _ in 0..count {
            let rate = path.received(step, silence);
            self.outlook = self.forecast.observe(rate, self.full || silence > 0.0);
        }
        self.observed = Some(now);
        self.full = path.queue() > self.tuning.full;
    }

    /// What the path carries now, as far as that is known.
    fn carries(&self, path: &Path, silence: f64) -> f64 {
        let quiet = (silence - SILENCE).max(0.0);
        path.received(0.3, quiet)
    }

    fn rate(&mut self, now: Time, path: &Path, waiting: f64, silence: f64, limits: Limits) -> f64 {
        let elapsed = self.updated.map_or(0.0, |t| now.since(t).clamp(0.0, 1.0));
        self.updated = Some(now);
        let broken = silence > SILENCE && waiting > 0.0;
        if broken {
            self.full = true;
            self.observe(now, path, silence);
        }
        let Some(outlook) = &self.outlook else {
            return self.rate;
        };
        let t = &self.tuning;
        let full = broken || path.queue() > t.full;
        let caution = if full { t.caution_queued } else { t.caution };
        let mut wish = outlook.quantile(t.horizon, caution);
        if full {
            let carries = self.carries(path, if broken { silence } else { 0.0 });
            // A queue drains from what the path carries.
            let queued = path.queue() * carries;
            wish = wish.min(1.05 * carries) - queued / t.drain;
            wish = wish.max(0.2 * carries);
        }
        let most = self.rate * t.growth.powf(elapsed);
        self.rate = limits.clamp(wish.min(most));
        self.rate
    }

    fn admits(&self, path: &Path, waiting: f64, silence: f64) -> bool {
        let Some(outlook) = &self.outlook else {
            return true;
        };
        let carries = if path.queue() > self.tuning.full || silence > SILENCE {
            self.carries(path, silence)
        } else {
            outlook.quantile(1.0, 0.5).max(self.rate)
        };
        waiting <= carries * self.tuning.under_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Harmonic;

    fn at(ms: i64) -> Time {
        Time::from_ms(ms)
    }

    fn limits() -> Limits {
        Limits::new(50e3, 5e6).unwrap()
    }

    fn both() -> [Controller; 2] {
        let learned = Mode::Learned(Box::new(Harmonic::new(0.5)), Tuning::default());
        [Mode::rule(), learned].map(|mode| Controller::new(mode, limits(), 500e3))
    }

    /// Sends frames over a queue that carries `capacity` bit/s, for so many ms.
    fn play(controller: &mut Controller, from: i64, ms: i64, capacity: f64) -> f64 {
        let (mut free, mut pending) = (from as f64, Vec::new());
        for t in (from..from + ms).step_by(33) {
            if controller.admits(at(t)) {
                let rate = controller.decide(at(t)).bitrate;
                let bytes = (rate * 0.033 / 8.0) as u32;
                controller.sent(at(t), bytes as usize);
                for i in 0..4 {
                    free = free.max((t + i) as f64) + f64::from(bytes) * 2.0 / capacity * 1e3;
                    let arrived = at(free as i64 + 20);
                    pending.push(Packet {
                        sent: at(t + i),
                        arrived: Some(arrived),
                        bytes: bytes / 4,
                    });
                }
            }
            let came = |p: &Packet| p.arrived.is_some_and(|a| a <= at(t - 20));
            let (done, rest): (Vec<_>, Vec<_>) = pending.iter().partition(|p| came(p));
            pending = rest;
            controller.feedback(at(t), &done);
        }
        controller.decide(at(from + ms)).bitrate
    }

    #[test]
    fn both_ways_follow_a_path_down() {
        for mut controller in both() {
            let before = play(&mut controller, 0, 10_000, 1e6);
            assert!(before > 80e3 && before < 1.6e6, "{before}");
            let after = play(&mut controller, 10_000, 6_000, 200e3);
            assert!(after < 320e3, "{after}");
        }
    }

    #[test]
    fn nonsense_leaves_rates_within_limits() {
        for mut controller in both() {
            play(&mut controller, 0, 2_000, 1e6);
            let times = [i64::MIN, -1, 0, 2_000, 2_001, i64::MAX].map(Time::from_us);
            for (i, now) in times.into_iter().enumerate() {
                for arrived in [None, Some(times[(i * 5 + 1) % 6])] {
                    for bytes in [0, 1200, u32::MAX] {
                        let packet = Packet {
                            sent: times[(i * 7 + 2) % 6],
                            arrived,
                            bytes,
                        };
                        controller.feedback(now, &[packet; 50]);
                    }
                }
                controller.receiver_report(
                    now,
                    ReceiverReport {
                        lost: f64::NAN,
                        jitter: -1.0,
                        round_trip: f64::INFINITY,
                    },
                );
                controller.sent(now, usize::MAX / 4096);
                let rate = controller.decide(now).bitrate;
                assert!((50e3..=5e6).contains(&rate), "{rate}");
                controller.admits(now);
                let (_, rate) = controller.shape(now, (0, 0), f64::NAN);
                assert!((50e3..=5e6).contains(&rate), "{rate}");
            }
            // And it goes on.
            let rate = play(&mut controller, 3_000, 10_000, 1e6);
            assert!(rate > 60e3, "{rate}");
        }
    }

    #[test]
    fn receiver_reports_alone_bring_the_rate_down() {
        for mut controller in both() {
            let mut rates = Vec::new();
            for t in (0..8_000).step_by(33) {
                let rate = controller.decide(at(t)).bitrate;
                controller.sent(at(t), (rate * 0.033 / 8.0) as usize);
                if t % 330 == 0 {
                    let bad = t > 4_000;
                    controller.receiver_report(
                        at(t),
                        ReceiverReport {
                            lost: if bad { 0.4 } else { 0.0 },
                            jitter: 0.0,
                            round_trip: if bad { 0.3 } else { 0.05 },
                        },
                    );
                }
                rates.push(rate);
            }
            let (before, after) = (rates[120], rates[rates.len() - 1]);
            assert!(after < 0.8 * before, "{before} {after}");
        }
    }

    /// Without reports nothing is known, but a frame now and then may bring one.
    #[test]
    fn silence_does_not_stop_a_stream_for_good() {
        for mut controller in both() {
            play(&mut controller, 0, 3_000, 1e6);
            let mut admitted = 0;
            for t in (3_000..13_000).step_by(33) {
                if controller.admits(at(t)) {
                    admitted += 1;
                    controller.sent(at(t), 2_000);
                    controller.decide(at(t));
                }
            }
            assert!((10..150).contains(&admitted), "{admitted}");
        }
    }

    #[test]
    fn the_viewer_rules_size_and_sending() {
        let mut controller = Controller::new(Mode::rule(), limits(), 5e6);
        let size = (640, 360);
        let (full, most) = controller.shape(at(0), size, 25.0);
        assert_eq!((full.quarters, most), (4, 5e6));
        controller.set_viewer(Viewer {
            window: Some((320, 180)),
            ..Viewer::default()
        });
        let (small, less) = controller.shape(at(100), size, 25.0);
        assert!(small.quarters == 2 && less < 2e6, "{small:?} {less}");
        controller.set_viewer(Viewer {
            hidden: true,
            ..Viewer::default()
        });
        assert_eq!(controller.shape(at(200), size, 25.0).0.quarters, 1);
        assert!(controller.admits(at(200)));
        controller.set_viewer(Viewer {
            paused: true,
            ..Viewer::default()
        });
        assert!(!controller.admits(at(300)) && !controller.decide(at(300)).send);
        // Full screen; a window without area and a speed that is none are not believed.
        let odd = Viewer {
            window: Some((0, 9)),
            speed: f64::NAN,
            ..Viewer::default()
        };
        controller.set_viewer(odd);
        assert_eq!(controller.shape(at(9000), size, 25.0), (full, 5e6));
    }
}

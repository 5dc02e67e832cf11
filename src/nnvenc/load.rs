// SPDX-License-Identifier: MPL-2.0
//! More frames than there is time for: the effort goes down first, then whole frames are left out.
//!
//! A frame is late by how much longer it took to get here than one that waited for nothing. That
//! grows where the encoder is too slow, whatever stands before it: a queue fills, or the source
//! itself falls behind. Late frames are left out before they are coded, so that nothing refers to
//! them, and what is coded is late by no more than [`Load::bound`] and its own coding.
//!
//! All times are running times and those of the pipeline's clock; nothing here asks for the time.

use nnv_codec::config::SpeedPreset;

/// The least bound of lateness, in s: webcams and schedulers are not more regular than that.
const LEAST_BOUND: f64 = 0.1;
/// Share of the bound from which on the effort goes down.
const EASE: f64 = 0.3;
/// Share of real time that coding may take before the effort goes down, and what it has to stay
/// below with more effort before that is tried.
const BUSY: f64 = 0.92;
const IDLE: f64 = 0.75;
/// Seconds between changes of the effort, and how long more effort is waited for: twice as long
/// each time it did not last, up to the second figure.
const SETTLE: f64 = 0.3;
const PATIENCE: (f64, f64) = (2.0, 64.0);
/// Less effort within so many seconds of more of it means that it did not last.
const LASTED: f64 = 10.0;
/// Where frames stay late by the same time while all are left out for so many seconds, what comes
/// before the encoder has become slower: this is no lateness.
const SURE: f64 = 0.5;
const SAME: f64 = 0.05;
/// Sinks that are always late see a frame at least every so many seconds.
const LONGEST_GAP: f64 = 1.0;
/// Frames left out with no more than so many seconds between them are one burst.
const BURST: f64 = 5.0;
/// Weight of a coded frame in the mean of coding times.
const SMOOTH: f64 = 0.25;
/// With B frames: share of real time that thinned-out frames may take.
const THINNED: f64 = 0.95;

/// Processor time by effort, over that of `fast`: 640×360, one thread (decision 140).
fn cost(effort: SpeedPreset) -> f64 {
    match effort {
        SpeedPreset::Ultrafast => 0.82,
        SpeedPreset::Fast => 1.0,
        SpeedPreset::Medium => 1.3,
        SpeedPreset::Slow => 3.2,
    }
}

const EFFORTS: [SpeedPreset; 4] = [
    SpeedPreset::Ultrafast,
    SpeedPreset::Fast,
    SpeedPreset::Medium,
    SpeedPreset::Slow,
];

/// A frame that has come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrival {
    /// Its running time in s.
    pub running: f64,
    /// The clock's running time in s, where the source is live and there is a clock.
    pub now: Option<f64>,
    /// Running time in s from which on a sink shows frames in time, where one has spoken.
    pub earliest: Option<f64>,
}

/// The running time in s from which on frames are in time, after a sink showed one of `running`
/// `late` s too late (too early, when negative): as base classes of decoders reckon it.
pub fn earliest(running: f64, late: f64) -> f64 {
    running + late.max(2.0 * late)
}

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Code,
    /// Leave it out. `first`: the first of a burst.
    Leave {
        first: bool,
    },
}

/// Follows how late frames are and how long they take.
#[derive(Debug, Clone)]
pub struct Load {
    preset: SpeedPreset,
    effort: SpeedPreset,
    /// Whether the effort follows.
    auto: bool,
    /// Frames that are coded in one go.
    group: u32,
    /// Time from frame to frame in s.
    interval: f64,
    /// Clock less running time of a frame that waited for nothing.
    base: Option<f64>,
    last_running: Option<f64>,
    last_coded: Option<f64>,
    /// Running time and offset of the first of the frames left out without one coded between.
    leaving: Option<(f64, f64)>,
    /// Running time of the last frame left out.
    left_out: Option<f64>,
    /// Mean time that a frame takes with `fast`, in s.
    taken: Option<f64>,
    changed: f64,
    raised: f64,
    patience: f64,
    /// With B frames: share of a frame that may be coded and was not.
    credit: f64,
    thinning: bool,
}

impl Load {
    /// For frames `interval` s apart (a guess, where nothing is known), of which `group` are coded
    /// in one go.
    pub fn new(preset: SpeedPreset, auto: bool, group: u32, interval: f64) -> Self {
        Self {
            preset,
            effort: preset,
            auto,
            group: group.max(1),
            interval,
            base: None,
            last_running: None,
            last_coded: None,
            leaving: None,
            left_out: None,
            taken: None,
            changed: f64::NEG_INFINITY,
            raised: f64::NEG_INFINITY,
            patience: PATIENCE.0,
            credit: 0.0,
            thinning: false,
        }
    }

    /// The effort in force.
    pub fn effort(&self) -> SpeedPreset {
        self.effort
    }

    /// Frames that are later than this, in s, are left out.
    pub fn bound(&self) -> f64 {
        (f64::from(self.group + 1) * self.interval).max(LEAST_BOUND)
    }

    /// Whether the effort may change.
    pub fn set_auto(&mut self, auto: bool) {
        self.auto = auto;
        if !auto {
            self.effort = self.preset;
        }
    }

    /// Times begin anew, as after a flush or in a new segment.
    pub fn restart(&mut self) {
        (self.base, self.last_running, self.leaving) = (None, None, None);
        (self.last_coded, self.left_out) = (None, None);
        (self.changed, self.raised) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    }

    /// A frame has come.
    pub fn arrive(&mut self, frame: Arrival) -> Verdict {
        let running = frame.running;
        if let Some(last) = self.last_running.replace(running)
            && running > last
        {
            self.interval += 0.1 * ((running - last).min(4.0 * self.interval) - self.interval);
        }
        let offset = frame.now.map(|now| now - running);
        let late = offset.map_or(0.0, |offset| {
            let base = self.base.map_or(offset, |base| base.min(offset));
            self.base = Some(base);
            offset - base
        });
        // Sinks speak of frames that left long ago; so there is a frame now and then in any case.
        let waited = self
            .last_coded
            .is_none_or(|last| running - last >= LONGEST_GAP);
        let missed = frame.earliest.is_some_and(|earliest| running < earliest);
        let too_late_there = missed && !waited;
        let mut too_late_here = late > self.bound();
        if let Some(offset) = offset.filter(|_| too_late_here) {
            let (since, first) = *self.leaving.get_or_insert((running, offset));
            let passed = running - since;
            if passed >= SURE && first - offset < SAME * passed {
                self.base = Some(offset);
                too_late_here = false;
            }
        }
        let now = frame.now.unwrap_or(running);
        self.follow(now, late, missed, frame.now.is_some());
        let leave = too_late_here || too_late_there || self.thinned_out(late);
        if !leave {
            self.leaving = None;
            self.last_coded = Some(running);
            return Verdict::Code;
        }
        let before = self.left_out.replace(running);
        let first = before.is_none_or(|before| (running - before).abs() > BURST);
        Verdict::Leave { first }
    }

    /// With B frames, late ones come in rows, as a mini-GOP takes long in one go: frames are left
    /// out evenly then.
    fn thinned_out(&mut self, late: f64) -> bool {
        let Some(taken) = self.taken.filter(|_| self.group > 1) else {
            return false;
        };
        let share = THINNED * self.interval / (taken * cost(self.effort));
        self.thinning = share < 1.0 && (self.thinning || late > 0.5 * self.bound());
        if !self.thinning {
            self.credit = 0.0;
            return false;
        }
        self.credit += share;
        if self.credit >= 1.0 {
            self.credit -= 1.0;
            return false;
        }
        true
    }

    /// Chooses the effort.
    fn follow(&mut self, now: f64, late: f64, late_there: bool, timed: bool) {
        if !self.auto || (now - self.changed).abs() < SETTLE {
            return;
        }
        // Without a clock nothing says that a frame has to be coded in the time of one.
        let taken = self.taken.filter(|_| timed).unwrap_or(0.0);
        let busy = |effort: SpeedPreset| taken * cost(effort) / self.interval;
        let at = EFFORTS.iter().position(|&e| e == self.effort).unwrap_or(0);
        // A source may have become a little slower for good: what is late and still coded counts
        // where the encoder may be the cause.
        let loaded = self.taken.is_none() || busy(self.effort) > IDLE;
        let allowed = if loaded { EASE } else { 1.0 } * self.bound();
        let pressed = late_there || late > allowed;
        if at > 0 && (pressed || busy(self.effort) > BUSY) {
            // As far down as it takes, and a step in any case.
            let fits = (0..at).rev().find(|&i| busy(EFFORTS[i]) <= BUSY);
            if now - self.raised < LASTED {
                self.patience = (2.0 * self.patience).min(PATIENCE.1);
            }
            self.effort = EFFORTS[fits.unwrap_or(0)];
            self.changed = now;
        } else if self.effort < self.preset
            && !pressed
            && self.taken.is_some()
            && now - self.changed >= self.patience
            && busy(EFFORTS[at + 1]) < IDLE
        {
            self.effort = EFFORTS[at + 1];
            (self.changed, self.raised) = (now, now);
        }
    }

    /// `frames` were coded in `seconds`.
    pub fn coded(&mut self, frames: usize, seconds: f64) {
        for _ in 0..frames {
            let each = seconds / frames as f64 / cost(self.effort);
            let mean = self.taken.get_or_insert(each);
            *mean += SMOOTH * (each - *mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A live source of `fps` frames per second, with a queue before an encoder that takes
    /// `fast` s per frame with `fast` and codes `group` frames in one go.
    struct Simulation {
        fps: f64,
        group: usize,
        /// What a frame costs with `fast` at a time.
        fast: fn(f64) -> f64,
        /// What the source's frames are late by, at a time.
        delay: fn(f64) -> f64,
        /// Time per frame before the encoder, on its own thread.
        before: f64,
    }

    #[derive(Default)]
    struct Result {
        coded: usize,
        left: usize,
        bursts: usize,
        /// Greatest lateness of a frame when it was coded, after the first second.
        latest: f64,
        efforts: Vec<SpeedPreset>,
        longest_gap: f64,
        end: f64,
    }

    impl Simulation {
        fn run(&self, load: &mut Load, seconds: f64) -> Result {
            let mut out = Result::default();
            let (mut now, mut waiting, mut filled, mut last) = (0.0f64, 0, 0, None);
            for n in 0..(seconds * self.fps) as usize {
                let running = n as f64 / self.fps;
                now = now.max(running + (self.delay)(running)) + self.before;
                let verdict = load.arrive(Arrival {
                    running,
                    now: Some(now),
                    earliest: None,
                });
                match verdict {
                    Verdict::Code => {
                        out.coded += 1;
                        waiting += 1;
                        if let Some(last) = last.replace(running) {
                            out.longest_gap = out.longest_gap.max(running - last);
                        }
                        if running > 1.0 {
                            out.latest = out.latest.max(now - running - (self.delay)(running));
                        }
                    }
                    Verdict::Leave { first } => {
                        out.left += 1;
                        out.bursts += usize::from(first);
                    }
                }
                // Frames that are left out fill a mini-GOP, too.
                filled += 1;
                if filled >= self.group {
                    filled = 0;
                    let took = waiting as f64 * (self.fast)(running) * cost(load.effort());
                    now += took;
                    load.coded(waiting, took);
                    waiting = 0;
                }
                out.efforts.push(load.effort());
            }
            out.end = now;
            out
        }
    }

    fn simulation(fast: fn(f64) -> f64) -> Simulation {
        Simulation {
            fps: 30.0,
            group: 1,
            fast,
            delay: |_| 0.05,
            before: 0.0005,
        }
    }

    fn load(group: u32) -> Load {
        Load::new(SpeedPreset::Medium, true, group, 1.0 / 30.0)
    }

    #[test]
    fn with_time_enough_nothing_changes() {
        let mut load = load(1);
        let r = simulation(|_| 0.015).run(&mut load, 20.0);
        assert_eq!(r.left, 0);
        assert!(r.efforts.iter().all(|&e| e == SpeedPreset::Medium));
    }

    #[test]
    fn the_effort_goes_down_before_frames_are_left_out() {
        let mut load = load(1);
        // Medium takes 48 ms, ultrafast 25.
        let r = simulation(|_| 0.032).run(&mut load, 20.0);
        assert_eq!((r.left, load.effort()), (0, SpeedPreset::Ultrafast));
        load.set_auto(false);
        assert_eq!(load.effort(), SpeedPreset::Medium);
    }

    #[test]
    fn the_effort_comes_back_and_does_not_swing() {
        let mut load = load(1);
        // Busy for ten seconds only.
        let r = simulation(|t| if t < 10.0 { 0.05 } else { 0.01 }).run(&mut load, 30.0);
        assert_eq!(load.effort(), SpeedPreset::Medium);
        assert!(r.bursts == 1, "{}", r.bursts);
        // At the edge.
        let mut load = Load::new(SpeedPreset::Slow, true, 1, 1.0 / 30.0);
        let r = simulation(|t| {
            if (t as u64).is_multiple_of(3) {
                0.03
            } else {
                0.005
            }
        })
        .run(&mut load, 200.0);
        let changes = r.efforts.windows(2).filter(|e| e[0] != e[1]).count();
        assert!(changes < 40, "{changes}");
    }

    #[test]
    fn a_slow_core_is_used_to_the_full_and_frames_are_not_late() {
        for (fast, seconds) in [
            ((|_| 0.06) as fn(f64) -> f64, 0.06),
            (|_| 0.4, 0.4),
            (|_| 1.5, 1.5),
        ] {
            let mut load = load(1);
            let r = simulation(fast).run(&mut load, 60.0);
            let possible = 60.0 / (seconds * cost(SpeedPreset::Ultrafast));
            assert!(
                r.coded as f64 >= 0.9 * possible.min(1800.0),
                "{} of {possible}",
                r.coded
            );
            // When coding begins.
            assert!(r.latest <= load.bound() + 1e-3, "{}", r.latest);
            assert!(r.end < 60.0 + load.bound() + 2.0 * seconds);
            assert_eq!(r.bursts, 1);
            // Even, not in rows.
            let step = seconds * cost(SpeedPreset::Ultrafast);
            assert!(r.longest_gap < 2.0 * step + 0.14, "{}", r.longest_gap);
        }
    }

    #[test]
    fn with_b_frames_frames_are_left_out_evenly() {
        for fast in [0.06, 0.1] {
            let mut load = load(8);
            let s = Simulation {
                group: 8,
                ..simulation(if fast == 0.06 { |_| 0.06 } else { |_| 0.1 })
            };
            let r = s.run(&mut load, 60.0);
            let possible = 60.0 / (fast * cost(SpeedPreset::Ultrafast));
            assert!(
                r.coded as f64 >= 0.8 * possible,
                "{} of {possible}",
                r.coded
            );
            assert!(r.latest <= load.bound() + 1e-3, "{}", r.latest);
        }
    }

    #[test]
    fn a_source_that_becomes_later_is_followed() {
        let mut load = load(1);
        let s = Simulation {
            delay: |t| if t < 10.0 { 0.05 } else { 0.6 },
            ..simulation(|_| 0.01)
        };
        let r = s.run(&mut load, 30.0);
        assert!((10..30).contains(&r.left), "{}", r.left);
        assert_eq!(load.effort(), SpeedPreset::Medium);
        // So little later that no frame is left out.
        let mut load = self::load(1);
        let s = Simulation {
            delay: |t| if t < 10.0 { 0.05 } else { 0.12 },
            ..simulation(|_| 0.01)
        };
        let r = s.run(&mut load, 30.0);
        assert_eq!((r.left, load.effort()), (0, SpeedPreset::Medium));
        // A slow thread before the encoder is no such source: the delay stays bounded.
        let mut load = self::load(1);
        let s = Simulation {
            before: 0.025,
            ..simulation(|_| 0.06)
        };
        let r = s.run(&mut load, 60.0);
        assert!(r.latest <= load.bound() + 0.03, "{}", r.latest);
    }

    #[test]
    fn a_sink_that_is_late_is_heard() {
        let mut load = load(1);
        let mut verdicts = Vec::new();
        for n in 0..95 {
            let frame = Arrival {
                running: f64::from(n) / 30.0,
                now: None,
                earliest: (n >= 30).then(|| earliest(1.0, 5.0)),
            };
            verdicts.push(load.arrive(frame));
        }
        assert!(verdicts[..30].iter().all(|v| *v == Verdict::Code));
        assert_eq!(verdicts[30], Verdict::Leave { first: true });
        let coded = verdicts[30..].iter().filter(|v| **v == Verdict::Code);
        assert_eq!(coded.count(), 2);
        assert_eq!(load.effort(), SpeedPreset::Ultrafast);
        let first = verdicts
            .iter()
            .filter(|v| **v == Verdict::Leave { first: true });
        assert_eq!(first.count(), 1);
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Going on after a loss without a key frame: references of several ages, and knowledge of which
//! frames depend on a lost one.
//!
//! The sender keeps a few good frames longer than it would for prediction alone. When a receiver
//! says that a frame is lost, the next one is predicted from the newest kept frame that does not
//! depend on it. The receiver has that frame, and with it the contexts that it left.

use std::collections::VecDeque;

use nnv_bitstream::Rational;
use nnv_bitstream::limits::MAX_RELEASED;
use smallvec::SmallVec;

/// Good frames kept beside the last frame. With the frame being decoded that makes one less than
/// the format allows, so that a decoder may keep a frame before it drops another.
const LADDER: usize = 5;
/// Frames between the two oldest of them, and between the second and the third, at least.
const RUNG: u32 = 16;
/// Frames whose references are remembered. Reports of older ones are too late to be of use.
const HISTORY: usize = 256;
/// Frames that may be lost where a receiver does not say which, as a part of a second: it finds out
/// late, behind its jitter buffer.
const UNSURE: f64 = 0.5;

/// What a receiver says of the frames that it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReport {
    /// This frame cannot be decoded; those sent before it were received.
    Frame {
        /// Lowest byte of the number of its group of pictures, as in its header.
        group: u8,
        /// Its number in the group.
        number: u32,
    },
    /// Frames cannot be decoded, and nobody says which.
    Unknown,
}

/// What a report leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing: what comes next does not depend on what is lost.
    Nothing,
    /// The next inter frame is predicted from frames that the receiver has.
    Recovery,
    /// There is no such frame.
    Key,
}

/// References of an inter frame in low-delay order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub ref0: u32,
    pub ref1: Option<u32>,
    pub released: SmallVec<[u32; MAX_RELEASED]>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    number: u32,
    references: [Option<u32>; 2],
    lost: bool,
    /// Lost, or depends on a lost frame.
    broken: bool,
}

/// References of a sender that answers reports of losses.
#[derive(Debug)]
pub(super) struct Resilience {
    /// The frame before the next one.
    last: u32,
    /// Good frames, oldest first; `last` is not among them.
    kept: Vec<u32>,
    /// Frames of the group, in the order of sending.
    sent: VecDeque<Sent>,
    /// To be released with one of the next frames; what the last frame made needless is first, so
    /// that nothing piles up behind what is said again.
    owed: VecDeque<u32>,
    /// Frames that were released, and the frames that said so: who did not get these did not hear
    /// of it.
    released: VecDeque<(u32, u32)>,
    /// Frames that may be lost where a report does not say which.
    unsure: usize,
    /// Frames sent since the last recovery; `None` where there was none in this group.
    recovered: Option<usize>,
    /// Frames sent since a report that did not say which frame is lost; `None` where a report since
    /// did, and was answered.
    doubted: Option<usize>,
    /// The recovery that is due answers a report that did not say which frame is lost.
    guessing: bool,
}

impl Resilience {
    pub fn new(rate: Rational) -> Self {
        let fps = f64::from(rate.num) / f64::from(rate.den.max(1));
        let fps = if fps > 0.0 { fps } else { 30.0 };
        Self {
            last: 0,
            kept: Vec::new(),
            sent: VecDeque::new(),
            owed: VecDeque::new(),
            released: VecDeque::new(),
            unsure: (UNSURE * fps).round().clamp(4.0, 60.0) as usize,
            recovered: None,
            doubted: None,
            guessing: false,
        }
    }

    /// A key frame: nothing before it counts any more.
    pub fn key(&mut self) {
        self.last = 0;
        self.kept.clear();
        self.sent.clear();
        self.owed.clear();
        self.released.clear();
        (self.recovered, self.doubted, self.guessing) = (None, None, false);
        self.send(0, [None; 2]);
    }

    /// Takes note of a report about a frame of the group in progress.
    pub fn report(&mut self, report: LossReport) -> Answer {
        match report {
            LossReport::Frame { number, .. } => {
                let Some(sent) = self.sent.iter_mut().find(|s| s.number == number) else {
                    return Answer::Nothing;
                };
                sent.lost = true;
            }
            LossReport::Unknown => {
                let again = self.doubted.replace(0).is_some_and(|d| d < 2 * self.unsure);
                if self.must_recover() {
                    // A report that said more came first.
                    return Answer::Recovery;
                }
                match self.recovered {
                    // It may have crossed the frame that mends it.
                    Some(sent) if sent < self.unsure => return Answer::Nothing,
                    // That did not help.
                    Some(_) if again => return Answer::Key,
                    _ => {}
                }
                self.guessing = true;
                let unsure = self.sent.len().saturating_sub(self.unsure);
                self.sent.range_mut(unsure..).for_each(|s| s.lost = true);
            }
        }
        self.spread();
        if !self.is_broken(self.last) {
            Answer::Nothing
        } else if self.kept.iter().any(|&k| !self.is_broken(k)) {
            Answer::Recovery
        } else {
            Answer::Key
        }
    }

    /// Whether the next frame has to do without the last one.
    pub fn must_recover(&self) -> bool {
        self.is_broken(self.last)
    }

    /// References of the next frame. `good`: the last frame is worth keeping for long.
    pub fn next(&mut self, number: u32, good: bool) -> Chosen {
        let chosen = if self.must_recover() {
            self.recover()
        } else {
            let long = self.kept.last().copied();
            if good {
                self.kept.push(self.last);
                if self.kept.len() > LADDER {
                    let rung = |a: usize| self.kept[a + 1] - self.kept[a];
                    let at = match (rung(0) < RUNG, rung(1) < RUNG) {
                        (true, _) => 1,
                        (false, true) => 2,
                        (false, false) => 0,
                    };
                    let dropped = self.kept.remove(at);
                    self.owed.push_front(dropped);
                }
            } else {
                self.owed.push_front(self.last);
            }
            [Some(self.last), long]
        };
        let [ref0, ref1] = chosen;
        self.recovered = self.recovered.map(|r| r + 1);
        self.doubted = self.doubted.map(|d| d + 1);
        let count = self.owed.len().min(MAX_RELEASED);
        let released: SmallVec<[u32; MAX_RELEASED]> = self.owed.drain(..count).collect();
        (self.released).extend(released.iter().map(|&other| (other, number)));
        let forgotten = self.released.len().saturating_sub(HISTORY);
        self.released.drain(..forgotten);
        self.send(number, chosen);
        self.last = number;
        Chosen {
            ref0: ref0.unwrap_or(0),
            ref1,
            released,
        }
    }

    /// Drops what depends on lost frames; gives the newest two that do not.
    fn recover(&mut self) -> [Option<u32>; 2] {
        let (broken, sound): (Vec<u32>, Vec<u32>) =
            (self.kept.iter().copied().chain([self.last])).partition(|&k| self.is_broken(k));
        self.kept = sound;
        let (unheard, heard): (Vec<_>, Vec<_>) =
            (self.released.iter().copied()).partition(|(_, by)| self.is_broken(*by));
        self.released = heard.into();
        let (needless, heavy): (Vec<u32>, Vec<u32>) =
            (unheard.into_iter().map(|(number, _)| number)).partition(|&n| self.is_broken(n));
        // First what fills the receiver's memory, then what fills that of the sender. What the
        // receiver most likely never had comes last.
        for number in heavy.into_iter().chain(broken).chain(needless) {
            if !self.owed.contains(&number) {
                self.owed.push_back(number);
            }
        }
        self.recovered = Some(0);
        if !std::mem::take(&mut self.guessing) {
            self.doubted = None;
        }
        let mut newest = self.kept.iter().rev().copied();
        [newest.next(), newest.next()]
    }

    fn send(&mut self, number: u32, references: [Option<u32>; 2]) {
        if self.sent.len() >= HISTORY {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            number,
            references,
            lost: false,
            broken: false,
        });
    }

    /// Marks what depends on lost frames.
    fn spread(&mut self) {
        for i in 0..self.sent.len() {
            let Sent {
                references, lost, ..
            } = self.sent[i];
            let depends = references.iter().flatten().any(|&r| self.is_broken(r));
            self.sent[i].broken = lost || depends;
        }
    }

    fn is_broken(&self, number: u32) -> bool {
        let at = self.sent.binary_search_by_key(&number, |s| s.number);
        at.is_ok_and(|at| self.sent[at].broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const PATTERN: [bool; 4] = [false, false, false, true];

    fn resilience() -> Resilience {
        let mut r = Resilience::new(Rational::new(30, 1));
        r.key();
        r
    }

    /// Codes frames `from..to` and returns what they refer to and release.
    fn code(r: &mut Resilience, from: u32, to: u32) -> Vec<Chosen> {
        let good = |n: u32| PATTERN[(n - 1) as usize % 4] || n == 1;
        (from..to).map(|n| r.next(n, good(n))).collect()
    }

    fn lost(r: &mut Resilience, number: u32) -> Answer {
        r.report(LossReport::Frame { group: 0, number })
    }

    #[test]
    fn a_loss_is_answered_with_the_newest_frame_that_does_not_depend_on_it() {
        let mut r = resilience();
        code(&mut r, 1, 40);
        let before = r.kept.clone();
        assert_eq!(before.len(), LADDER);
        assert!(before.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(lost(&mut r, 37), Answer::Recovery);
        let answer = r.next(40, false);
        let sound: Vec<u32> = before.iter().copied().filter(|&k| k < 37).collect();
        assert_eq!(Some(&answer.ref0), sound.last());
        assert_eq!(answer.ref1, sound.iter().rev().nth(1).copied());
        assert!(answer.released.contains(&39), "the last frame is broken");
        // What follows depends on the recovery; the same report again changes nothing.
        assert_eq!(lost(&mut r, 37), Answer::Nothing);
        assert_eq!(
            lost(&mut r, 38),
            Answer::Nothing,
            "an older loss of the burst"
        );
        assert_eq!(r.next(41, true).ref0, 40);
        // The recovery itself is lost.
        assert_eq!(lost(&mut r, 40), Answer::Recovery);
        assert_eq!(Some(&r.next(42, false).ref0), sound.last());
    }

    #[test]
    fn without_a_frame_that_is_left_a_key_frame_is_due() {
        let mut r = resilience();
        code(&mut r, 1, 5);
        assert_eq!(lost(&mut r, 0), Answer::Key);
        r.key();
        code(&mut r, 1, 9);
        assert_eq!(lost(&mut r, 1000), Answer::Nothing, "never sent");
        assert_eq!(lost(&mut r, 8), Answer::Recovery);
    }

    #[test]
    fn a_report_without_a_number_is_answered_from_old_frames_and_then_with_a_key_frame() {
        let mut r = resilience();
        code(&mut r, 1, 60);
        assert_eq!(r.report(LossReport::Unknown), Answer::Recovery);
        let answer = r.next(60, false);
        assert!(answer.ref0 < 60 - r.unsure as u32, "{answer:?}");
        // A decoder complains of each frame until the answer is there; if it does not stop, the
        // answer was none.
        for number in 61..61 + r.unsure as u32 - 1 {
            assert_eq!(r.report(LossReport::Unknown), Answer::Nothing, "{number}");
            r.next(number, false);
        }
        r.next(99, false);
        assert_eq!(r.report(LossReport::Unknown), Answer::Key);
        r.key();
        code(&mut r, 1, 60);
        assert_eq!(lost(&mut r, 58), Answer::Recovery);
        r.next(60, false);
        code(&mut r, 61, 64);
        assert_eq!(
            r.report(LossReport::Unknown),
            Answer::Nothing,
            "it crossed the recovery"
        );
    }

    /// Any losses and reports, late ones too: a receiver that drops what it is told to keeps no
    /// more than the format allows, and has what each recovery after a timely report names.
    #[test]
    fn receivers_have_what_recoveries_refer_to() {
        let mut seed = 7u32;
        let mut rng = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for (delay, guesses) in [(1, 0), (3, 0), (8, 0), (15, 0), (1, 50), (6, 90), (12, 20)] {
            let mut r = resilience();
            let mut has = BTreeSet::from([0]);
            // What the sender has to keep.
            let mut held = BTreeSet::from([0]);
            let mut reports: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            let (mut decoded, mut keys) = (0, 0);
            let mut base = 0;
            for t in 1..3000u32 {
                let mut key = false;
                for number in reports.remove(&t).unwrap_or_default() {
                    if number >= base {
                        let report = LossReport::Frame {
                            group: 0,
                            number: number - base,
                        };
                        key |= r.report(report) == Answer::Key;
                    }
                }
                if guesses > 0 && rng(guesses) == 0 {
                    key |= r.report(LossReport::Unknown) == Answer::Key;
                }
                if key {
                    held = BTreeSet::from([0]);
                    (base, keys) = (t, keys + 1);
                    r.key();
                    has = BTreeSet::from([0]);
                    continue;
                }
                let number = t - base;
                let chosen = r.next(number, PATTERN[number as usize % 4]);
                assert!(chosen.released.iter().all(|&x| x < number));
                let named = [Some(chosen.ref0), chosen.ref1];
                assert!(named.iter().flatten().all(|n| held.contains(n)), "{held:?}");
                held.insert(number);
                assert!(held.len() <= 8, "{held:?}");
                chosen.released.iter().for_each(|x| {
                    held.remove(x);
                });
                let arrives = rng(25) > 0;
                let there = [Some(chosen.ref0), chosen.ref1]
                    .iter()
                    .flatten()
                    .all(|n| has.contains(n));
                if arrives {
                    if there {
                        has.insert(number);
                        decoded += 1;
                        assert!(has.len() <= 8, "{has:?}");
                    }
                    chosen.released.iter().for_each(|x| {
                        has.remove(x);
                    });
                }
                if !arrives || !there {
                    reports.entry(t + delay).or_default().push(t);
                }
            }
            if guesses > 0 {
                continue;
            }
            assert_eq!(keys, 0, "delay {delay}");
            // One loss in 25 costs itself and the delay.
            let most = 3000 * (delay + 2) / 25;
            assert!(
                3000 - decoded < most + 60,
                "delay {delay}: {decoded} of 3000"
            );
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Groups of pictures: coding order, reference slots, key-frame decisions, presentation order.
//!
//! The encoder plans with [`GopPlanner`]; the decoder follows what the frame headers say. Both keep
//! their references in [`References`], so there is one implementation of what a frame may refer to.
//!
//! Order of presentation is counted by `poc`, which restarts at 0 on each key frame. Key frames are
//! barriers: every frame shown before a key frame is coded before it.

use super::resilience::{Answer, LossReport, Resilience};
use crate::config::Tuning;
use nnv_bitstream::limits::{DEEPEST_LEVEL, MAX_BFRAMES};
use nnv_bitstream::{FrameType, Rational};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// What the planner has to know about a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FrameFacts {
    /// The application wants a key frame here.
    pub force_key: bool,
    /// The frame starts a new scene.
    pub scene_cut: bool,
    /// The frame is identical to the one before it.
    pub repeat: bool,
    /// There is no room to code the frame: the one before is shown in its place, and a key frame
    /// that is due waits.
    pub hold: bool,
    /// How much of the frame motion cannot explain from the one before: 0 nothing, 1 and above all
    /// of it.
    pub novelty: f32,
}

/// One frame, ready to be coded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFrame {
    /// Number of the frame in input order, from 0.
    pub index: u64,
    /// How to code it.
    pub kind: FrameType,
    /// Presentation order since the last key frame.
    pub poc: u32,
    /// Level in the mini-GOP: 0 for key frames, anchors and all frames of low-delay order.
    pub level: u8,
    /// `poc` of the first reference of an inter frame, or of the frame that a repeat shows again.
    pub ref0: Option<u32>,
    /// `poc` of the second reference.
    pub ref1: Option<u32>,
    /// Later frames may refer to this one.
    pub keep: bool,
    /// `poc` of frames that are no longer needed after this one.
    pub released: SmallVec<[u32; 7]>,
    /// Added to the quantizer that rate control asks for.
    pub offset: i8,
    /// Place in the low-delay pattern.
    pub phase: Option<u8>,
    /// Refers to frames that a receiver has that lost the last one.
    pub recovery: bool,
}

impl PlannedFrame {
    fn new(index: u64, kind: FrameType, poc: u32) -> Self {
        Self {
            index,
            kind,
            poc,
            level: 0,
            ref0: None,
            ref1: None,
            keep: false,
            released: SmallVec::new(),
            offset: 0,
            phase: None,
            recovery: false,
        }
    }

    /// Class of the frame for rate control: frames of one class have similar sizes.
    pub fn class(&self) -> FrameClass {
        match self.kind {
            FrameType::Key => FrameClass::Key,
            FrameType::Inter => self
                .phase
                .map_or(FrameClass::Inter(self.level), FrameClass::LowDelay),
            FrameType::Repeat => FrameClass::Repeat,
        }
    }
}

impl FrameClass {
    /// Whether its frames lie between those that others follow.
    pub fn is_inner(self) -> bool {
        matches!(self, Self::Inter(1..))
    }
}

/// Frames of one class have similar sizes at one quantizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameClass {
    /// Key frame.
    Key,
    /// Inter frame of a level in hierarchical order.
    Inter(u8),
    /// Inter frame at a place of the low-delay pattern.
    LowDelay(u8),
    /// Repeated frame: a few bytes.
    Repeat,
}

/// Frames that do not depend on each other: they may be coded in one batch.
pub type Group = Vec<PlannedFrame>;

#[derive(Debug, Clone, Copy)]
struct Pending {
    index: u64,
    repeat: bool,
}

/// Decides kinds, order and references of frames.
///
/// Frames go in with [`push`](Self::push) in input order; groups come out of
/// [`next_group`](Self::next_group) in coding order.
#[derive(Debug)]
pub struct GopPlanner {
    bframes: u8,
    /// Frames to wait for behind a key frame or an anchor.
    lookahead: u8,
    key_int_max: u32,
    key_batch: usize,
    tuning: Tuning,
    next_index: u64,
    /// Frames since the last key frame, that one included; 0 before the first key frame.
    distance: u32,
    /// Frames of the mini-GOP being filled.
    pending: Vec<Pending>,
    /// Frames left out since the mini-GOP began: they fill it, as time goes on.
    skipped: usize,
    /// Sum of the novelty of the pending frames.
    change: f32,
    /// Presentation order of the first pending frame.
    poc: u32,
    /// Key frames waiting for a batch (when every frame is a key frame).
    keys: Vec<u64>,
    ready: VecDeque<Group>,
    /// Nothing is waited for.
    flushed: bool,
    /// Last anchor and long-term reference, by `poc`.
    last: u32,
    long: u32,
    /// The last frame in order of presentation that is no repeat.
    shown: u32,
    /// Inter frames since the key frame in low-delay order.
    low_delay: u32,
    /// References for receivers that lose frames; in low-delay order only.
    resilience: Option<Resilience>,
}

impl GopPlanner {
    /// A planner for mini-GOPs of `bframes + 1` frames (at most 8), whose anchors wait for
    /// `lookahead` frames more, and a key frame at least every `key_int_max` frames (0: only where
    /// asked for). Where every frame is a key frame, up to `key_batch` form a group.
    pub fn new(
        bframes: u8,
        lookahead: u8,
        key_int_max: u32,
        key_batch: usize,
        tuning: Tuning,
    ) -> Self {
        Self {
            bframes: bframes.min(MAX_BFRAMES),
            lookahead,
            key_int_max,
            key_batch: key_batch.max(1),
            tuning,
            next_index: 0,
            distance: 0,
            pending: Vec::new(),
            skipped: 0,
            change: 0.0,
            poc: 0,
            keys: Vec::new(),
            ready: VecDeque::new(),
            flushed: false,
            last: 0,
            long: 0,
            shown: 0,
            low_delay: 0,
            resilience: None,
        }
    }

    /// Keeps references to go on from after losses, in low-delay order.
    pub fn keep_for_losses(&mut self, rate: Rational) {
        self.resilience = (self.bframes == 0).then(|| Resilience::new(rate));
    }

    /// Takes a report about the group in progress. Returns true when only a key frame helps.
    pub fn report(&mut self, report: LossReport) -> bool {
        let resilience = self.resilience.as_mut().filter(|_| self.distance > 0);
        resilience.is_some_and(|r| r.report(report) == Answer::Key)
    }

    /// Frames that go in before the first one comes out, less one.
    pub fn latency(&self) -> usize {
        if self.key_int_max == 1 {
            self.key_batch - 1
        } else {
            usize::from(self.bframes) + usize::from(self.lookahead)
        }
    }

    /// Frames since the last key frame, that one included; 0 before the first.
    pub fn distance(&self) -> u32 {
        self.distance
    }

    /// Frames that wait for their mini-GOP to be full.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether the next frame would be a key frame.
    pub fn is_key(&self, facts: &FrameFacts) -> bool {
        let due = self.key_int_max != 0 && self.distance >= self.key_int_max;
        // A repeated frame needs no key frame unless one was asked for: showing it again costs
        // nothing.
        let wanted = facts.force_key || due || (facts.scene_cut && !facts.repeat);
        self.distance == 0 || (wanted && !facts.hold)
    }

    /// Class of the next frame; where it is not known yet, that of the frames which cost most.
    pub fn next_class(&self, facts: &FrameFacts) -> FrameClass {
        if self.is_key(facts) {
            FrameClass::Key
        } else if self.repeats(facts) {
            FrameClass::Repeat
        } else if self.bframes == 0 {
            let pattern = self.tuning.low_delay.len();
            FrameClass::LowDelay((self.low_delay as usize % pattern) as u8)
        } else {
            FrameClass::Inter(0)
        }
    }

    /// Whether the frame before is shown again: not where a receiver has lost that one.
    fn repeats(&self, facts: &FrameFacts) -> bool {
        let lost = self
            .resilience
            .as_ref()
            .is_some_and(Resilience::must_recover);
        facts.hold || (facts.repeat && !lost)
    }

    /// Adds the next frame. Returns true when it will be a key frame.
    pub fn push(&mut self, facts: FrameFacts) -> bool {
        let index = self.next_index;
        self.next_index += 1;
        self.flushed = false;
        if self.is_key(&facts) {
            self.close_mini_gop();
            self.distance = 1;
            self.poc = 1;
            if self.key_int_max == 1 {
                self.keys.push(index);
                if self.keys.len() >= self.key_batch {
                    self.flush_keys();
                }
            } else {
                self.plan_key(index);
            }
            return true;
        }
        self.flush_keys();
        self.distance += 1;
        let repeat = self.repeats(&facts);
        self.pending.push(Pending { index, repeat });
        self.change += facts.novelty;
        // An anchor far from the last one in content predicts its B frames badly, and is predicted
        // badly itself.
        let full = self.key_int_max == 1 || self.is_full();
        if full || self.change > self.tuning.mini_gop_change {
            self.close_mini_gop();
        }
        false
    }

    /// A frame is left out: it will never be coded. What waits for later frames waits no longer
    /// than if it had come.
    pub fn skip(&mut self) {
        self.next_index += 1;
        // Key frames keep their distance in time.
        self.distance += u32::from(self.distance > 0);
        self.skipped += 1;
        self.flush_keys();
        if self.is_full() {
            self.close_mini_gop();
        }
    }

    fn is_full(&self) -> bool {
        self.pending.len() + self.skipped > usize::from(self.bframes)
    }

    /// No more frames will come, or none for a long time: plans all that is waiting.
    pub fn flush(&mut self) {
        self.close_mini_gop();
        self.flush_keys();
        self.flushed = true;
    }

    /// Forgets everything: the next frame is a key frame.
    pub fn reset(&mut self) {
        let (index, resilience) = (self.next_index, self.resilience.take());
        *self = Self::new(
            self.bframes,
            self.lookahead,
            self.key_int_max,
            self.key_batch,
            self.tuning,
        );
        (self.next_index, self.resilience) = (index, resilience);
    }

    /// The next group in coding order.
    ///
    /// Key frames and anchors wait for the frames that are looked at before they are coded, unless
    /// a key frame or [`flush`](Self::flush) comes first.
    pub fn next_group(&mut self) -> Option<Group> {
        let front = &self.ready.front()?[0];
        let looks_ahead = front.kind != FrameType::Repeat && front.level == 0;
        let there = self.flushed
            || self.next_index > front.index + u64::from(self.lookahead)
            || self.key_from(1).is_some();
        if looks_ahead && !there {
            return None;
        }
        self.ready.pop_front()
    }

    /// Input order of the first key frame behind the group that came last, if it is known.
    pub fn key_ahead(&self) -> Option<u64> {
        self.key_from(0)
    }

    fn key_from(&self, group: usize) -> Option<u64> {
        let mut planned = self.ready.iter().skip(group).map(|group| &group[0]);
        planned
            .find(|frame| frame.kind == FrameType::Key)
            .map(|frame| frame.index)
    }

    fn flush_keys(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let offset = self.tuning.key_only;
        let key = |index| PlannedFrame {
            keep: true,
            offset,
            ..PlannedFrame::new(index, FrameType::Key, 0)
        };
        let group = self.keys.drain(..).map(key).collect();
        self.ready.push_back(group);
    }

    fn plan_key(&mut self, index: u64) {
        (self.last, self.long, self.shown, self.low_delay) = (0, 0, 0, 0);
        if let Some(resilience) = &mut self.resilience {
            resilience.key();
        }
        self.ready.push_back(vec![PlannedFrame {
            keep: true,
            offset: self.tuning.key,
            ..PlannedFrame::new(index, FrameType::Key, 0)
        }]);
    }

    /// Plans the pending frames as one mini-GOP: the last one is its anchor, the others halve the
    /// gaps.
    fn close_mini_gop(&mut self) {
        self.skipped = 0;
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        self.change = 0.0;
        let first = self.poc;
        self.poc += pending.len() as u32;
        let poc_of = |i: usize| first + i as u32;
        let coded: Vec<usize> = (0..pending.len()).filter(|&i| !pending[i].repeat).collect();
        let mut groups: Vec<Group> = Vec::new();
        if let Some(&end) = coded.last() {
            let past = self.last;
            let poc = poc_of(end);
            let (anchor, mut released) = self.plan_anchor(pending[end].index, poc);
            groups.push(vec![anchor]);
            // (first, one past the last) positions in `coded`, with the references before and
            // after.
            let mut gaps = vec![(0, coded.len() - 1, past, poc)];
            let mut level = 1u8;
            while gaps.iter().any(|g| g.0 < g.1) {
                let mut next = Vec::new();
                let mut group = Group::new();
                for (from, to, past, future) in gaps {
                    if from >= to {
                        continue;
                    }
                    let mid = from + (to - from) / 2;
                    let poc = poc_of(coded[mid]);
                    let keep = mid > from || mid + 1 < to;
                    if keep {
                        released.push(poc);
                        next.push((from, mid, past, poc));
                        next.push((mid + 1, to, poc, future));
                    }
                    group.push(PlannedFrame {
                        level,
                        ref0: Some(past),
                        ref1: Some(future),
                        keep,
                        offset: self.tuning.levels[usize::from(level.min(DEEPEST_LEVEL))],
                        ..PlannedFrame::new(pending[coded[mid]].index, FrameType::Inter, poc)
                    });
                }
                groups.push(group);
                gaps = next;
                level += 1;
            }
            // Only the last frame of all lets go: frames of a level may be decoded in any order.
            if let Some(last) = groups.last_mut().and_then(|g| g.last_mut()) {
                last.released = released;
            }
        }
        let mut repeats = Group::new();
        for (i, frame) in pending.iter().enumerate() {
            if frame.repeat {
                repeats.push(PlannedFrame {
                    ref0: Some(self.shown),
                    ..PlannedFrame::new(frame.index, FrameType::Repeat, poc_of(i))
                });
            } else {
                self.shown = poc_of(i);
            }
        }
        if !repeats.is_empty() {
            groups.push(repeats);
        }
        self.ready.extend(groups);
    }

    /// The anchor of a mini-GOP, or the next frame in low-delay order, and the references that end
    /// with the mini-GOP.
    fn plan_anchor(&mut self, index: u64, poc: u32) -> (PlannedFrame, SmallVec<[u32; 7]>) {
        let (last, long) = (self.last, self.long);
        let recovery = self.resilience.as_ref().is_some_and(|r| r.must_recover());
        if recovery {
            // What comes after depends on it for long.
            let pattern = self.tuning.low_delay;
            let best = (0..pattern.len()).min_by_key(|&n| pattern[n]);
            self.low_delay = best.unwrap_or(0) as u32;
        }
        // Whether the last frame is worth keeping as long-term reference.
        let (offset, good, phase) = if self.bframes == 0 {
            let pattern = self.tuning.low_delay;
            let n = self.low_delay as usize % pattern.len();
            let before = pattern[(n + pattern.len() - 1) % pattern.len()];
            self.low_delay += 1;
            let good = pattern.iter().all(|&o| before <= o);
            (pattern[n], good, Some(n as u8))
        } else {
            (self.tuning.levels[0], true, None)
        };
        if let Some(resilience) = &mut self.resilience {
            let chosen = resilience.next(poc, good);
            self.last = poc;
            let anchor = PlannedFrame {
                ref0: Some(chosen.ref0),
                ref1: chosen.ref1,
                keep: true,
                offset,
                phase,
                recovery,
                ..PlannedFrame::new(index, FrameType::Inter, poc)
            };
            return (anchor, chosen.released);
        }
        let mut released = SmallVec::new();
        if last != long {
            released.push(if good { long } else { last });
        }
        if good {
            self.long = last;
        }
        self.last = poc;
        let anchor = PlannedFrame {
            ref0: Some(last),
            ref1: (long != last).then_some(long),
            keep: true,
            offset,
            phase,
            ..PlannedFrame::new(index, FrameType::Inter, poc)
        };
        (anchor, released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nnv_format::references::{References, Reorder, level_sizes};

    fn rng(seed: u64) -> impl FnMut() -> u32 {
        let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        move || {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 32) as u32
        }
    }

    /// Plans `facts` and follows the plan as a decoder would, checking everything a decoder relies
    /// on.
    fn follow(bframes: u8, key_int_max: u32, batch: usize, facts: &[FrameFacts]) -> Vec<Group> {
        let mut planner = GopPlanner::new(bframes, 0, key_int_max, batch, Tuning::default());
        let mut groups = Vec::new();
        for (i, &f) in facts.iter().enumerate() {
            planner.push(f);
            while let Some(g) = planner.next_group() {
                groups.push(g);
            }
            let out: usize = groups.iter().map(Vec::len).sum();
            assert!(
                i + 1 - out <= planner.latency(),
                "no more than the latency waits"
            );
        }
        planner.flush();
        while let Some(g) = planner.next_group() {
            groups.push(g);
        }

        let mut refs: References<u32> = References::default();
        let mut reorder = Reorder::new(usize::from(bframes));
        let mut shown = Vec::new();
        let mut originals = Vec::new();
        for group in &groups {
            assert!(!group.is_empty());
            let first = &group[0];
            assert!(
                group
                    .iter()
                    .all(|f| f.level == first.level && f.kind == first.kind)
            );
            // References are read before any frame of the group is kept: the group's frames are
            // independent.
            for f in group.iter().filter(|f| f.kind == FrameType::Inter) {
                let ref0 = f.ref0.unwrap();
                assert!(refs.get(ref0).is_some() && ref0 < f.poc);
                if let Some(ref1) = f.ref1 {
                    assert!(refs.get(ref1).is_some() && ref1 != ref0);
                    assert_eq!(ref1 > f.poc, f.level > 0);
                }
                assert!(f.ref1.is_some() || f.level == 0);
            }
            for f in group {
                if f.kind == FrameType::Key {
                    refs.clear();
                    shown.extend(reorder.restart(usize::from(bframes)));
                }
                if f.kind == FrameType::Repeat {
                    originals.push((f.index, f.index - u64::from(f.poc - f.ref0.unwrap())));
                }
                if f.keep {
                    refs.keep(f.poc, f.poc);
                    assert!(refs.len() <= 6);
                }
                for &r in &f.released {
                    assert!(refs.get(r).is_some());
                }
                refs.release(&f.released);
                shown.extend(reorder.push(f.poc, f.index).unwrap());
            }
        }
        for (repeat, original) in originals {
            assert!(
                facts[original as usize + 1..=repeat as usize]
                    .iter()
                    .all(|f| f.repeat || f.hold)
            );
        }
        shown.extend(reorder.drain());
        assert_eq!(shown, (0..facts.len() as u64).collect::<Vec<_>>());
        groups
    }

    fn plain(n: usize) -> Vec<FrameFacts> {
        vec![FrameFacts::default(); n]
    }

    #[test]
    fn frames_left_out_fill_a_mini_gop_and_have_no_place() {
        let mut planner = GopPlanner::new(3, 0, 5, 1, Tuning::default());
        planner.push(FrameFacts::default());
        let mut groups: Vec<Group> = std::iter::from_fn(|| planner.next_group()).collect();
        // One, two left out, one: that is a mini-GOP of two frames.
        planner.push(FrameFacts::default());
        planner.skip();
        planner.skip();
        assert!(planner.next_group().is_none());
        planner.push(FrameFacts::default());
        groups.extend(std::iter::from_fn(|| planner.next_group()));
        let places: Vec<(u64, u32)> = groups.iter().flatten().map(|f| (f.index, f.poc)).collect();
        assert_eq!(places, [(0, 0), (4, 2), (1, 1)]);
        // The last of four is left out: the others need not wait for it.
        planner.push(FrameFacts::default());
        planner.skip();
        planner.skip();
        planner.skip();
        let group = planner.next_group().unwrap();
        assert_eq!((group[0].index, group[0].kind), (5, FrameType::Key));
    }

    #[test]
    fn hierarchical_order_of_eight() {
        let groups = follow(7, 0, 4, &plain(9));
        let pocs: Vec<Vec<u32>> = groups
            .iter()
            .map(|g| g.iter().map(|f| f.poc).collect())
            .collect();
        assert_eq!(
            pocs,
            [vec![0], vec![8], vec![4], vec![2, 6], vec![1, 3, 5, 7]]
        );
        let levels: Vec<u8> = groups.iter().map(|g| g[0].level).collect();
        assert_eq!(levels, [0, 0, 1, 2, 3]);
        assert!(groups[4].iter().all(|f| !f.keep));
        let released: Vec<usize> = groups[4].iter().map(|f| f.released.len()).collect();
        assert_eq!(released, [0, 0, 0, 3]);
        for n in 0..=8 {
            let groups = follow(7, 0, 1, &plain(n + 1));
            let sizes = level_sizes(n);
            let got: Vec<usize> = groups[1..].iter().map(Vec::len).collect();
            let expected: Vec<usize> = sizes.into_iter().take_while(|&s| s > 0).collect();
            assert_eq!(got, expected, "{n}");
        }
    }

    #[test]
    fn low_delay_adds_no_latency_and_keeps_good_references() {
        let groups = follow(0, 0, 4, &plain(12));
        assert!(groups.iter().all(|g| g.len() == 1 && g[0].level == 0));
        let refs: Vec<[u32; 2]> = groups[1..]
            .iter()
            .map(|g| {
                let ref0 = g[0].ref0.unwrap();
                [ref0, g[0].ref1.unwrap_or(ref0)]
            })
            .collect();
        // Every fourth frame is a good one, and serves until the next.
        let expected: Vec<[u32; 2]> = (1..12u32)
            .map(|poc| {
                let good = (poc.saturating_sub(2)) / 4 * 4;
                [poc - 1, good]
            })
            .collect();
        assert_eq!(refs, expected);
    }

    #[test]
    fn frames_kept_for_losses_are_released_in_time() {
        let mut planner = GopPlanner::new(0, 0, 0, 1, Tuning::default());
        planner.keep_for_losses(Rational::new(30, 1));
        let mut held = std::collections::BTreeSet::from([0]);
        for poc in 0..200u32 {
            if poc % 23 == 22 {
                let report = LossReport::Frame {
                    group: 0,
                    number: poc - 3,
                };
                assert!(!planner.report(report));
            }
            planner.push(FrameFacts::default());
            let frame = planner.next_group().unwrap().pop().unwrap();
            assert_eq!(frame.poc, poc);
            assert_eq!(frame.recovery, poc % 23 == 22);
            for r in [frame.ref0, frame.ref1].into_iter().flatten() {
                assert!(held.contains(&r), "{poc}: {r} of {held:?}");
            }
            held.insert(poc);
            frame.released.iter().for_each(|r| {
                held.remove(r);
            });
            assert!(held.len() <= 7, "{held:?}");
        }
    }

    #[test]
    fn a_still_source_answers_a_loss_too() {
        let mut planner = GopPlanner::new(0, 0, 0, 1, Tuning::default());
        planner.keep_for_losses(Rational::new(30, 1));
        let mut next = |repeat, lost: Option<u32>| {
            if let Some(number) = lost {
                assert!(!planner.report(LossReport::Frame { group: 0, number }));
            }
            planner.push(FrameFacts {
                repeat,
                ..FrameFacts::default()
            });
            let frame = planner.next_group().unwrap().pop().unwrap();
            (frame.kind, frame.recovery)
        };
        assert_eq!(next(false, None).0, FrameType::Key);
        for _ in 0..5 {
            assert_eq!(next(false, None), (FrameType::Inter, false));
        }
        assert_eq!(next(true, None), (FrameType::Repeat, false));
        // The receiver has no sound picture to show again.
        assert_eq!(next(true, Some(5)), (FrameType::Inter, true));
        assert_eq!(next(true, None), (FrameType::Repeat, false));
    }

    #[test]
    fn key_frames_come_when_due_and_shorten_mini_gops() {
        let mut facts = plain(40);
        facts[5].force_key = true;
        facts[20].scene_cut = true;
        let groups = follow(7, 16, 4, &facts);
        let keys: Vec<u64> = groups
            .iter()
            .flatten()
            .filter(|f| f.kind == FrameType::Key)
            .map(|f| f.index)
            .collect();
        assert_eq!(keys, [0, 5, 20, 36]);
    }

    #[test]
    fn all_key_frames_form_batches() {
        let groups = follow(3, 1, 4, &plain(10));
        let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
        assert_eq!(sizes, [4, 4, 2]);
        assert!(groups.iter().flatten().all(|f| f.kind == FrameType::Key));
        assert_eq!(follow(0, 1, 1, &plain(3)).len(), 3);
    }

    #[test]
    fn repeats_are_signalled_only() {
        let mut facts = plain(20);
        for f in &mut facts[3..15] {
            f.repeat = true;
        }
        facts[7].force_key = true;
        for bframes in [0, 3, 7] {
            let groups = follow(bframes, 0, 1, &facts);
            let kind = |i: u64| {
                groups
                    .iter()
                    .flatten()
                    .find(|f| f.index == i)
                    .map(|f| f.kind)
                    .unwrap()
            };
            assert_eq!(kind(7), FrameType::Key, "asked for");
            for i in (3..7).chain(8..15) {
                assert_eq!(kind(i), FrameType::Repeat);
            }
        }
    }

    #[test]
    fn any_input_gives_a_decodable_order() {
        let mut rng = rng(5);
        for case in 0..400 {
            let facts: Vec<FrameFacts> = (0..rng() % 60)
                .map(|_| FrameFacts {
                    force_key: rng().is_multiple_of(16),
                    scene_cut: rng().is_multiple_of(16),
                    repeat: rng().is_multiple_of(5),
                    hold: rng().is_multiple_of(9),
                    novelty: 0.0,
                })
                .collect();
            let key_int = [0, 1, 2, 7, 8, 30][rng() as usize % 6];
            follow((case % 8) as u8, key_int, 1 + rng() as usize % 5, &facts);
        }
    }

    #[test]
    fn reset_starts_with_a_key_frame_and_goes_on_counting() {
        let mut p = GopPlanner::new(3, 0, 0, 1, Tuning::default());
        for _ in 0..3 {
            p.push(FrameFacts::default());
        }
        p.reset();
        assert!(p.push(FrameFacts::default()));
        p.flush();
        let g = p.next_group().unwrap();
        assert_eq!((g[0].kind, g[0].index), (FrameType::Key, 3));
        assert!(p.next_group().is_none());
    }

    #[test]
    fn anchors_wait_for_the_frames_behind_them() {
        let mut p = GopPlanner::new(3, 2, 0, 1, Tuning::default());
        let push = |p: &mut GopPlanner, force_key| {
            p.push(FrameFacts {
                force_key,
                ..FrameFacts::default()
            });
            let groups = std::iter::from_fn(|| p.next_group());
            groups.map(|g| g[0].index).collect::<Vec<_>>()
        };
        assert!(push(&mut p, false).is_empty());
        assert!(push(&mut p, false).is_empty());
        assert_eq!(
            push(&mut p, false),
            [0],
            "the key frame and two more are there"
        );
        for _ in 3..6 {
            assert!(push(&mut p, false).is_empty());
        }
        assert_eq!(
            push(&mut p, false),
            [4, 2, 1],
            "anchor 4 has waited for frame 6"
        );
        // What is behind the next key frame is not looked at, so nothing waits for it; the key
        // frame itself waits.
        assert_eq!(push(&mut p, true), [6, 5]);
        assert_eq!(p.key_ahead(), Some(7));
        p.flush();
        assert_eq!(p.next_group().map(|g| g[0].index), Some(7));
        assert_eq!((p.next_group(), p.key_ahead()), (None, None));
        assert_eq!(p.latency(), 5);
    }

    #[test]
    fn much_change_ends_a_mini_gop_early() {
        let busy = |novelty| FrameFacts {
            novelty,
            ..FrameFacts::default()
        };
        let anchors = |groups: &[Group]| -> Vec<u32> {
            groups
                .iter()
                .flatten()
                .filter(|f| f.level == 0)
                .map(|f| f.poc)
                .collect()
        };
        assert_eq!(anchors(&follow(7, 0, 1, &[busy(0.0); 17])), [0, 8, 16]);
        // 0.3 · 3 is the first sum above the limit.
        assert_eq!(anchors(&follow(7, 0, 1, &[busy(0.3); 10])), [0, 3, 6, 9]);
        // Change before a key frame does not count for the mini-GOP after it.
        let mut facts = [busy(0.3); 8];
        facts[3].force_key = true;
        assert_eq!(anchors(&follow(7, 0, 1, &facts)), [0, 2, 0, 3, 4]);
    }
}

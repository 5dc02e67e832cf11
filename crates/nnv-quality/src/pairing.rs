// SPDX-License-Identifier: MPL-2.0
//! Which frame of the reference a frame is compared with: the nearest in time.

/// What is known of the reference's next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upcoming {
    /// Nothing yet.
    Unknown,
    /// Its time, in ns.
    Time(i64),
    /// There is none.
    End,
}

/// What to do with a frame of the distorted video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Wait until the next frame of the reference is known.
    Wait,
    /// Hand over the next frame of the reference ([`Pairing::take`]), then ask again.
    Take,
    /// Compare it with [`Pairing::current`].
    Pair,
    /// The reference has no frame near.
    Alone,
}

/// How frames met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCounts {
    /// Frames that were compared.
    pub pairs: u64,
    /// Frames of the reference that no frame was compared with, before the last pair.
    pub dropped: u64,
    /// Frames that were compared with the same frame of the reference as the one before.
    pub repeated: u64,
    /// Frames that the reference has none for.
    pub unmatched: u64,
}

/// Pairs frames by time; holds one frame of the reference.
#[derive(Clone, Debug)]
pub struct Pairing<R> {
    /// Greatest distance in ns.
    tolerance: i64,
    current: Option<Current<R>>,
    counts: PairCounts,
    /// Frames of the reference that were passed over since the last pair.
    passed: u64,
}

#[derive(Clone, Debug)]
struct Current<R> {
    time: i64,
    frame: R,
    used: bool,
}

impl<R> Pairing<R> {
    /// Frames further apart than `tolerance` ns are no pair.
    pub fn new(tolerance: i64) -> Self {
        Self {
            tolerance: tolerance.max(0),
            current: None,
            counts: PairCounts::default(),
            passed: 0,
        }
    }

    /// Sets the greatest distance of a pair, in ns.
    pub fn set_tolerance(&mut self, tolerance: i64) {
        self.tolerance = tolerance.max(0);
    }

    /// Forgets the frame that it holds: after a seek times begin anew. Counts stay.
    pub fn forget(&mut self) {
        self.current = None;
        self.passed = 0;
    }

    /// What to do with a distorted frame of `time` ns. Times must not fall.
    pub fn decide(&mut self, time: i64, next: Upcoming) -> Decision {
        let distance = |t: i64| t.saturating_sub(time).saturating_abs();
        match (&self.current, next) {
            (_, Upcoming::Unknown) => match &self.current {
                // Nothing can be nearer.
                Some(c) if c.time >= time => self.judge(time),
                _ => Decision::Wait,
            },
            (None, Upcoming::Time(_)) => Decision::Take,
            (Some(c), Upcoming::Time(next)) if distance(next) <= distance(c.time) => Decision::Take,
            _ => self.judge(time),
        }
    }

    fn judge(&mut self, time: i64) -> Decision {
        match &mut self.current {
            Some(c) if c.time.saturating_sub(time).saturating_abs() <= self.tolerance => {
                self.counts.repeated += u64::from(c.used);
                self.counts.pairs += 1;
                self.counts.dropped += std::mem::take(&mut self.passed);
                c.used = true;
                Decision::Pair
            }
            _ => {
                self.counts.unmatched += 1;
                Decision::Alone
            }
        }
    }

    /// The next frame of the reference and its time in ns.
    pub fn take(&mut self, time: i64, frame: R) {
        if self.current.as_ref().is_some_and(|c| !c.used) {
            self.passed += 1;
        }
        self.current = Some(Current {
            time,
            frame,
            used: false,
        });
    }

    /// The frame of the reference to compare with.
    pub fn current(&self) -> Option<&R> {
        self.current.as_ref().map(|c| &c.frame)
    }

    /// How frames met so far.
    pub fn counts(&self) -> PairCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs by number of both, and the counts.
    fn pair(reference: &[i64], distorted: &[i64], tolerance: i64) -> (Vec<(i64, i64)>, PairCounts) {
        let mut pairing = Pairing::new(tolerance);
        let mut upcoming = reference.iter().copied().peekable();
        let mut pairs = Vec::new();
        for &time in distorted {
            loop {
                let next = upcoming
                    .peek()
                    .map_or(Upcoming::End, |t| Upcoming::Time(*t));
                match pairing.decide(time, next) {
                    Decision::Wait => unreachable!("everything is known"),
                    Decision::Take => {
                        let t = upcoming.next().unwrap();
                        pairing.take(t, t);
                    }
                    Decision::Pair => {
                        pairs.push((*pairing.current().unwrap(), time));
                        break;
                    }
                    Decision::Alone => break,
                }
            }
        }
        (pairs, pairing.counts())
    }

    fn counts(pairs: u64, dropped: u64, repeated: u64, unmatched: u64) -> PairCounts {
        PairCounts {
            pairs,
            dropped,
            repeated,
            unmatched,
        }
    }

    #[test]
    fn rounded_times_pair_one_to_one() {
        let (pairs, n) = pair(&[0, 33, 67, 100], &[0, 34, 66, 101], 16);
        assert_eq!(pairs, [(0, 0), (33, 34), (67, 66), (100, 101)]);
        assert_eq!(n, counts(4, 0, 0, 0));
    }

    #[test]
    fn half_and_twice_the_rate() {
        let (_, n) = pair(&[0, 10, 20, 30, 40], &[0, 20, 40], 5);
        assert_eq!(n, counts(3, 2, 0, 0));
        let (pairs, n) = pair(&[0, 20, 40], &[0, 10, 20, 30, 40, 50], 10);
        assert_eq!(n, counts(6, 0, 3, 0));
        assert_eq!(pairs[5], (40, 50));
    }

    #[test]
    fn lengths_that_differ() {
        let (_, n) = pair(&[0, 10, 20, 30, 40], &[0, 10], 5);
        assert_eq!(n, counts(2, 0, 0, 0));
        let (_, n) = pair(&[0, 10], &[0, 10, 20, 30], 5);
        assert_eq!(n, counts(2, 0, 0, 2));
        let (_, n) = pair(&[], &[0, 10], 5);
        assert_eq!(n, counts(0, 0, 0, 2));
    }

    #[test]
    fn a_distorted_video_that_begins_late() {
        let (pairs, n) = pair(&[0, 10, 20, 30], &[20, 30], 5);
        assert_eq!(pairs, [(20, 20), (30, 30)]);
        assert_eq!(n, counts(2, 2, 0, 0));
    }

    #[test]
    fn what_is_not_known_is_waited_for() {
        let mut pairing = Pairing::new(5);
        assert_eq!(pairing.decide(0, Upcoming::Unknown), Decision::Wait);
        assert_eq!(pairing.decide(0, Upcoming::Time(0)), Decision::Take);
        pairing.take(0, ());
        // A later one cannot be nearer than one at this very time.
        assert_eq!(pairing.decide(0, Upcoming::Unknown), Decision::Pair);
        assert_eq!(pairing.decide(7, Upcoming::Unknown), Decision::Wait);
        assert_eq!(pairing.decide(7, Upcoming::End), Decision::Alone);
    }
}

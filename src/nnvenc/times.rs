// SPDX-License-Identifier: MPL-2.0
//! Times: of decoding, and in the stream.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use nnv_codec::config::Tuning;
use nnv_codec::encode::planner::{FrameFacts, GopPlanner};

/// With reordering, decoding times start before the first presentation time. As other encoders do,
/// all times are then shifted by this much (the segment too, so that running time stays), because
/// none can be negative.
pub const SHIFT: gst::ClockTime = gst::ClockTime::from_seconds(60 * 60 * 1000);

/// Decoding times: rising, never after the presentation time.
///
/// The k-th unit gets the presentation time of the frame that went in `depth` frames before the
/// k-th; the first `depth` units are extrapolated backwards. All times are running times, which go
/// on where a new segment begins.
#[derive(Debug)]
pub struct DtsClock {
    pub depth: u32,
    pub duration: gst::ClockTime,
    /// Presentation times of frames whose turn has not come, and [`SHIFT`]: decoding times may lie
    /// before zero.
    waiting: BinaryHeap<Reverse<gst::ClockTime>>,
    /// Units that left before the first presentation time is due.
    lead: u32,
    last: Option<gst::ClockTime>,
}

impl DtsClock {
    pub fn new(depth: u32, duration: gst::ClockTime) -> Self {
        Self {
            depth,
            duration,
            waiting: BinaryHeap::new(),
            lead: 0,
            last: None,
        }
    }

    pub fn push(&mut self, running: Option<gst::ClockTime>) {
        self.waiting.extend(running.map(|t| Reverse(t + SHIFT)));
    }

    /// How long before its presentation the next unit is decoded.
    pub fn next(&mut self, running: Option<gst::ClockTime>) -> Option<gst::ClockTime> {
        let pts = running? + SHIFT;
        let dts = if self.lead < self.depth {
            let first = self.waiting.peek()?.0;
            let ahead = self.duration * u64::from(self.depth - self.lead);
            self.lead += 1;
            first.saturating_sub(ahead)
        } else {
            self.waiting.pop()?.0
        };
        let least = self
            .last
            .map(|last| last + gst::ClockTime::from_nseconds(1));
        let dts = dts.max(least.unwrap_or(gst::ClockTime::ZERO)).min(pts);
        self.last = Some(dts);
        Some(pts - dts)
    }
}

/// How many frames a unit may leave before its turn in presentation order, at most.
pub fn reorder_depth(bframes: u8) -> u32 {
    // Mini-GOPs are cut short by key frames and the end, so all lengths count.
    (1..=bframes)
        .map(|bframes| {
            let mut planner = GopPlanner::new(bframes, 0, 0, 1, Tuning::default());
            let mut order = Vec::new();
            for _ in 0..=2 * (u32::from(bframes) + 1) {
                planner.push(FrameFacts::default());
                while let Some(group) = planner.next_group() {
                    order.extend(group.iter().map(|frame| frame.index));
                }
            }
            order
                .iter()
                .zip(0u64..)
                .map(|(&index, position)| position.saturating_sub(index))
                .max()
                .unwrap_or(0) as u32
        })
        .max()
        .unwrap_or(0)
}

/// Times in the stream start at zero with the first frame and go on over segments, flushes and
/// changes of format.
#[derive(Debug, Default)]
pub struct Timeline {
    /// What to subtract from running times.
    origin: Option<gst::ClockTime>,
    /// Where the last frame ends, in stream time.
    end: gst::ClockTime,
    /// Set after a flush and at a segment: a jump back must not lead to a stream time that was
    /// already used.
    pub restarted: bool,
}

impl Timeline {
    /// Time in the stream in ns, for a frame at the running time `pts`.
    pub fn stream_time(&mut self, pts: gst::ClockTime, duration: gst::ClockTime) -> Option<u64> {
        let origin = *self.origin.get_or_insert(pts);
        let mut time = pts.checked_sub(origin);
        if self.restarted && time.is_none_or(|time| time < self.end) {
            self.origin = pts.checked_sub(self.end);
            time = self.origin.map(|_| self.end);
        }
        self.restarted = false;
        let time = time?;
        self.end = self.end.max(time + duration);
        Some(time.nseconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nnv_bitstream::limits::MAX_BFRAMES;

    #[test]
    fn dts_is_monotonic_and_not_after_pts() {
        for bframes in 0..=MAX_BFRAMES {
            for count in 1..=20u64 {
                let duration = gst::ClockTime::from_mseconds(40);
                let depth = reorder_depth(bframes);
                let mut clock = DtsClock::new(depth, duration);
                let mut planner = GopPlanner::new(bframes, 0, 0, 1, Tuning::default());
                let (mut last, mut units) = (None, 0);
                let pts = |index: u64| SHIFT + duration * index;
                for index in 0..=count {
                    if index < count {
                        planner.push(FrameFacts::default());
                        clock.push(Some(pts(index)));
                    } else {
                        planner.flush();
                    }
                    while let Some(group) = planner.next_group() {
                        for frame in group {
                            let ahead = clock.next(Some(pts(frame.index))).unwrap();
                            let dts = Some(pts(frame.index) - ahead);
                            assert!(dts > last, "bframes {bframes}, unit {units}");
                            last = dts;
                            units += 1;
                        }
                    }
                }
                assert_eq!(units, count);
            }
        }
    }

    #[test]
    fn dts_depth_is_that_of_the_hierarchy() {
        assert_eq!(reorder_depth(0), 0);
        assert_eq!(reorder_depth(1), 1);
        assert!((2..=4).contains(&reorder_depth(7)));
    }

    #[test]
    fn stream_times_never_repeat() {
        let ms = gst::ClockTime::from_mseconds;
        let mut t = Timeline::default();
        assert_eq!(t.stream_time(ms(1000), ms(40)), Some(0));
        assert_eq!(t.stream_time(ms(1040), ms(40)), Some(40_000_000));
        t.restarted = true;
        assert_eq!(t.stream_time(ms(500), ms(40)), Some(80_000_000));
        assert_eq!(t.stream_time(ms(540), ms(40)), Some(120_000_000));
        t.restarted = true;
        assert_eq!(t.stream_time(ms(900), ms(40)), Some(480_000_000));
    }
}

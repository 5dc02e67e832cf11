// SPDX-License-Identifier: MPL-2.0
//! Times of frames: on the grid of the frame rate where they differ from it by rounding alone, and
//! how much real time each frame stands for.
//!
//! Containers round times (Matroska to milliseconds), sources sum rounded durations. A time that
//! is on the grid costs no bytes in the stream, and rate control must not see the rounding.

use nnv_bitstream::Rational;

/// How far rounding to whole milliseconds moves a time, in ns, and one for the next rounding.
const ROUNDING: i64 = 500_001;
/// Real time that one frame can stand for, in s: a pause longer than this earns no more bits.
const LONGEST: f64 = 10.0;
/// Length of a frame in s where nothing is known of it.
const UNKNOWN: f64 = 1.0 / 30.0;
/// One interval counts for no more than so many mean ones in the mean.
const JUMP: f64 = 4.0;
/// Weight of a new interval in the mean.
const SMOOTH: f64 = 1.0 / 8.0;

/// Real time around a frame, in s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameTime {
    /// Since the frame before it.
    pub elapsed: f64,
    /// Mean distance of the frames of late.
    pub interval: f64,
}

impl FrameTime {
    /// Frames that follow each other every `seconds`.
    pub fn regular(seconds: f64) -> Self {
        Self {
            elapsed: seconds,
            interval: seconds,
        }
    }
}

/// What a stream says about a frame's times, in ns, and what rate control hears.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Times {
    pub pts: Option<u64>,
    pub duration: Option<u64>,
    pub real: FrameTime,
}

/// A time on the grid, from which others are counted.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    pts: u64,
    /// Frames from there to the last frame on the grid.
    frames: u32,
    /// The unrounded grid lies this many ns behind the anchor's, at least and at most: the
    /// anchor's own time may be a rounded one.
    phase: (i64, i64),
}

/// Follows the times of frames in order of presentation.
#[derive(Debug, Clone)]
pub(super) struct FrameClock {
    rate: Rational,
    anchor: Option<Anchor>,
    /// As it came in, and as it went out.
    last: Option<(u64, u64)>,
    interval: Option<f64>,
    /// Intervals in the mean.
    steps: u32,
}

impl FrameClock {
    /// For frames at `rate`, 0 for an unknown or a variable one.
    pub fn new(rate: Rational) -> Self {
        Self {
            rate,
            anchor: None,
            last: None,
            interval: None,
            steps: 0,
        }
    }

    /// Forgets the times so far: the next frame follows nothing.
    pub fn reset(&mut self) {
        *self = Self::new(self.rate);
    }

    /// Takes the next frame's times in ns.
    pub fn next(&mut self, pts: Option<u64>, duration: Option<u64>) -> Times {
        let frame = self.rate.frames_ns(1).filter(|ns| *ns > 0);
        let out = pts.map(|pts| self.written(pts, frame));
        let nominal = frame.map(|ns| ns as f64 / 1e9);
        let step = match (self.last, out) {
            (Some((_, last)), Some(out)) if out > last => Some((out - last) as f64 / 1e9),
            _ => None,
        };
        let told = duration.filter(|d| *d > 0).map(|d| d as f64 / 1e9);
        // Before a second frame has come, only caps and durations tell.
        let elapsed = step
            .or(self.interval)
            .or(nominal)
            .or(told)
            .unwrap_or(UNKNOWN)
            .clamp(1e-5, LONGEST);
        self.steps += u32::from(step.is_some());
        let interval = match self.interval {
            // The first interval is worth more than what caps say.
            Some(mean) if self.steps > 1 => {
                let weight = (1.0 / f64::from(self.steps)).max(SMOOTH);
                mean + weight * (elapsed.min(JUMP * mean) - mean)
            }
            _ => elapsed,
        };
        self.interval = Some(interval);
        if let (Some(pts), Some(out)) = (pts, out) {
            self.last = Some((pts, out));
        }
        let slack = frame.map_or(0, |ns| (2 * ROUNDING).min(ns / 4));
        let duration = match (duration, frame) {
            (Some(d), Some(ns)) if d.abs_diff(ns.unsigned_abs()) <= slack.unsigned_abs() => {
                Some(ns.unsigned_abs())
            }
            _ => duration,
        };
        Times {
            pts: out,
            duration,
            real: FrameTime { elapsed, interval },
        }
    }

    /// The time that the stream gives a frame: that of the grid where only rounding tells them
    /// apart. Times that rise still rise.
    fn written(&mut self, pts: u64, frame: Option<i64>) -> u64 {
        let least = self
            .last
            .filter(|(last, _)| *last < pts)
            .map_or(0, |(_, out)| out + 1);
        if let Some(on_grid) = frame.and_then(|frame| self.on_grid(pts, frame))
            && on_grid >= least
        {
            return on_grid;
        }
        let pts = pts.max(least);
        self.anchor = Some(Anchor {
            pts,
            frames: 0,
            phase: (-ROUNDING, ROUNDING),
        });
        pts
    }

    fn on_grid(&mut self, pts: u64, frame: i64) -> Option<u64> {
        let anchor = self.anchor.as_mut()?;
        let slack = ROUNDING.min(frame / 4);
        let from = i64::try_from(pts.checked_sub(anchor.pts)?).ok()?;
        let phase = (anchor.phase.0.max(-slack), anchor.phase.1.min(slack));
        let middle = (phase.0 + phase.1) / 2;
        // Frames from the anchor, to the nearest.
        let (num, den) = (i128::from(self.rate.num), i128::from(self.rate.den));
        let billion = 1_000_000_000;
        let frames = (2 * i128::from(from - middle) * num + den * billion) / (2 * den * billion);
        let frames = u32::try_from(frames).ok().filter(|n| *n > anchor.frames)?;
        let place = self.rate.frames_ns(frames)?;
        let off = from - place;
        let both = (phase.0.max(off - slack), phase.1.min(off + slack));
        // Only a time of whole milliseconds can lie behind a grid whose anchor was rounded too.
        let rounded = pts.is_multiple_of(1_000_000) || off.abs() <= slack;
        if both.0 > both.1 || !rounded {
            return None;
        }
        anchor.frames = frames;
        anchor.phase = both;
        anchor.pts.checked_add(u64::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILM: Rational = Rational::new(30000, 1001);
    const MS: u64 = 1_000_000;

    fn exact(rate: Rational, n: u32) -> u64 {
        rate.frames_ns(n).unwrap() as u64
    }

    fn through(rate: Rational, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut clock = FrameClock::new(rate);
        let out = times.into_iter().map(|t| clock.next(Some(t), None));
        out.map(|t| t.pts.unwrap()).collect()
    }

    fn rounded(ns: u64, to: u64) -> u64 {
        (ns + to / 2) / to * to
    }

    #[test]
    fn rounded_times_are_those_of_the_grid() {
        for rate in [
            FILM,
            Rational::new(24000, 1001),
            Rational::new(25, 1),
            Rational::new(30, 1),
            Rational::new(60, 1),
            Rational::new(240, 1),
        ] {
            let grid: Vec<u64> = (0..2000).map(|n| exact(rate, n)).collect();
            // Milliseconds, ticks of MPEG, and sums of rounded durations.
            for to in [MS, 11_111, 1] {
                let times = grid.iter().map(|t| rounded(*t, to));
                assert_eq!(through(rate, times), grid, "{rate:?} {to}");
            }
            let frame = (1e9 * f64::from(rate.den) / f64::from(rate.num)).round() as u64;
            assert_eq!(
                through(rate, (0..2000).map(|n| n * frame)),
                grid,
                "{rate:?}"
            );
        }
    }

    #[test]
    fn a_rounded_first_time_shifts_the_whole_grid() {
        // A container that begins at 66.7 ms counts from 67 ms.
        let first = exact(FILM, 2);
        let times = (2..500).map(|n| rounded(exact(FILM, n), MS) - rounded(first, MS));
        let grid: Vec<u64> = (0..498).map(|n| exact(FILM, n)).collect();
        assert_eq!(through(FILM, times), grid);
    }

    #[test]
    fn other_times_stay_as_they_are() {
        let rate = Rational::new(25, 1);
        let times: Vec<u64> = [0, 33, 50, 51, 120, 607, 700, 701].map(|t| t * MS).into();
        assert_eq!(through(rate, times.clone()), times);
        // The grid begins anew where the times do.
        let late: Vec<u64> = (0..10)
            .map(|n| n * 40 * MS + if n > 4 { 7_300_000 } else { 0 })
            .collect();
        assert_eq!(through(rate, late.clone()), late);
        assert_eq!(through(Rational::new(0, 1), times.clone()), times);
        // A thousand frames per second: whole milliseconds are no rounding.
        let times: Vec<u64> = [0, 600_000, 1_300_000, 2_800_000].into();
        assert_eq!(through(Rational::new(1000, 1), times.clone()), times);
    }

    #[test]
    fn rising_times_rise() {
        let rate = Rational::new(25, 1);
        let out = through(rate, [0, 39_600_000, 39_700_000, 40_000_000, 80_000_000]);
        assert!(out.windows(2).all(|t| t[0] < t[1]), "{out:?}");
        // Falling ones are the caller's business.
        assert_eq!(through(rate, [80 * MS, 40 * MS]), [80 * MS, 40 * MS]);
    }

    #[test]
    fn real_time_is_told_not_that_of_the_caps() {
        let mut clock = FrameClock::new(Rational::new(30, 1));
        let mut last = clock.next(Some(0), Some(33 * MS)).real;
        for n in 1..40u64 {
            last = clock.next(Some(n * 400 * MS / 3), Some(33 * MS)).real;
            assert!((last.elapsed - 0.1333).abs() < 0.001, "{last:?}");
        }
        assert!((last.interval - 0.1333).abs() < 0.002, "{last:?}");
        // A pause counts once, the mean hardly moves.
        let pause = clock.next(Some(12_000 * MS), None).real;
        assert!((pause.elapsed - 6.8).abs() < 0.01, "{pause:?}");
        assert!(pause.interval < 0.2, "{pause:?}");
    }

    #[test]
    fn rounding_is_not_heard() {
        let mut clock = FrameClock::new(FILM);
        for n in 0..300 {
            let pts = rounded(exact(FILM, n), MS);
            let times = clock.next(Some(pts), Some(if n % 3 == 0 { 34 * MS } else { 33 * MS }));
            assert!((times.real.elapsed - 1001.0 / 30_000.0).abs() < 1e-8);
            assert_eq!(times.duration, Some(exact(FILM, 1)));
        }
    }
}

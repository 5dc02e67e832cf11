// SPDX-License-Identifier: MPL-2.0
//! Sizes and frame rates for a bit rate.

/// A size and a frame rate below the source's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rung {
    /// Numerator of the scale of both sides, in quarters: 4 is the source's size.
    pub quarters: u32,
    /// One of so many frames is coded.
    pub divisor: u32,
    /// Bits per coded sample from which on it is used, as a share of what the source's size needs.
    pub least: f64,
}

/// What there is to choose from, largest first.
const RUNGS: [Rung; 5] = [
    Rung {
        quarters: 4,
        divisor: 1,
        least: 1.0,
    },
    Rung {
        quarters: 3,
        divisor: 1,
        least: 0.55,
    },
    Rung {
        quarters: 2,
        divisor: 1,
        least: 0.25,
    },
    Rung {
        quarters: 2,
        divisor: 2,
        least: 0.1,
    },
    Rung {
        quarters: 1,
        divisor: 2,
        least: 0.0,
    },
];
/// A larger rung is taken when the rate is so much above its least one, and a smaller one so much
/// below it: sizes do not flutter, because each change costs a key frame.
const UP: f64 = 1.25;
const DOWN: f64 = 0.8;
/// Seconds between two changes to something larger.
const HOLD: f64 = 4.0;
/// Bits per sample under which the source's size looks worse than a smaller one scaled up.
const BITS_PER_SAMPLE: f64 = 0.025;

/// Which rung is in use.
#[derive(Debug, Clone)]
pub struct Ladder {
    rung: usize,
    since: f64,
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            rung: 0,
            since: f64::NEG_INFINITY,
        }
    }
}

impl Ladder {
    /// The rung for a bit rate (bit/s), a source of `samples` luma samples a second, and the share
    /// of a picture that the viewer can see; `now` in seconds. What is no number changes nothing.
    pub fn choose(&mut self, now: f64, bitrate: f64, samples: f64, share: f64) -> Rung {
        let whole = bitrate / (samples * BITS_PER_SAMPLE);
        if whole.is_finite() && whole >= 0.0 && share >= 0.0 {
            // The smallest that still fills the window.
            let fits = |r: &Rung| f64::from(r.quarters * r.quarters) / 16.0 >= share * 0.9;
            let seen = RUNGS.iter().rposition(fits).unwrap_or(0);
            let affords = |factor: f64| {
                RUNGS
                    .iter()
                    .position(|r| whole >= r.least * factor)
                    .unwrap_or(RUNGS.len() - 1)
            };
            let (up, down) = (affords(UP).max(seen), affords(DOWN).max(seen));
            if down > self.rung || (up < self.rung && now - self.since >= HOLD) {
                self.rung = if down > self.rung { down } else { up };
                self.since = now;
            }
        }
        self.rung()
    }

    /// The rung in use.
    pub fn rung(&self) -> Rung {
        RUNGS[self.rung]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: f64 = 640.0 * 360.0 * 30.0;

    #[test]
    fn low_rates_and_small_windows_get_small_pictures_without_flutter() {
        let mut ladder = Ladder::default();
        assert_eq!(ladder.choose(0.0, 1e6, SAMPLES, 1.0).quarters, 4);
        assert_eq!(ladder.choose(1.0, 60e3, SAMPLES, 1.0), RUNGS[2]);
        // Up again only after a while, and with some to spare.
        assert_eq!(ladder.choose(2.0, 1e6, SAMPLES, 1.0), RUNGS[2]);
        assert_eq!(ladder.choose(6.0, 1e6, SAMPLES, 1.0), RUNGS[0]);
        assert_eq!(
            ladder.choose(7.0, 0.9 * SAMPLES * BITS_PER_SAMPLE, SAMPLES, 1.0),
            RUNGS[0]
        );
        // A window of half the width, one that is hidden, full screen.
        assert_eq!(ladder.choose(8.0, 1e6, SAMPLES, 0.25), RUNGS[3]);
        assert_eq!(ladder.choose(9.0, 1e6, SAMPLES, 0.0), RUNGS[4]);
        assert_eq!(ladder.choose(20.0, 1e6, SAMPLES, 1.0), RUNGS[0]);
    }

    #[test]
    fn what_is_no_number_changes_nothing() {
        let mut ladder = Ladder::default();
        for (rate, samples, share) in [
            (f64::NAN, SAMPLES, 1.0),
            (-1.0, SAMPLES, 1.0),
            (1e6, 0.0, 1.0),
            (1e6, SAMPLES, f64::NAN),
        ] {
            assert_eq!(ladder.choose(0.0, rate, samples, share), RUNGS[0]);
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! One number for how a stream was watched.

/// What counts, summed up over a stream.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Qoe {
    /// Seconds shown.
    pub seconds: f64,
    /// Integral of the quality over the shown seconds; quality is log2 of the bit rate over the
    /// lowest one.
    pub quality: f64,
    /// Seconds in which the picture stood still.
    pub frozen: f64,
    /// Sum of the changes of quality, up and down.
    pub switched: f64,
}

/// Doublings of the bit rate that a second of standing still costs.
const FREEZE: f64 = 4.0;
/// What a change of quality costs, as a share of it.
const SWITCH: f64 = 1.0;

impl Qoe {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.quality += other.quality;
        self.frozen += other.frozen;
        self.switched += other.switched;
    }

    /// Mean quality minus what freezes and switches cost, per second of the stream. 0 for a stream
    /// without a second.
    pub fn score(&self) -> f64 {
        let all = self.seconds + self.frozen;
        if all > 0.0 {
            (self.quality - FREEZE * self.frozen - SWITCH * self.switched) / all
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_is_that_of_the_document() {
        let qoe = Qoe {
            seconds: 8.0,
            quality: 24.0,
            frozen: 2.0,
            switched: 1.0,
        };
        assert_eq!(qoe.score(), (24.0 - 8.0 - 1.0) / 10.0);
        assert_eq!(Qoe::default().score(), 0.0);
    }
}

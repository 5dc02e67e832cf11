// SPDX-License-Identifier: MPL-2.0
//! Whether a quality can be had: how long frames have been at the finest or the coarsest quantizer,
//! and what they are worth there.

use super::planner::FrameClass;
use super::quality_control::level;
use crate::config::QualityMetric;

/// What a stretch may miss by, in decibels, at the finest quantizer and at the coarsest one: what
/// is somewhat better than asked for needs no word.
const MISS: (f64, f64) = (0.25, 3.0);

/// A quality that cannot be met.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QualityOutOfReach {
    /// Of what measure.
    pub metric: QualityMetric,
    /// What was asked for.
    pub asked: f64,
    /// What frames are worth, in the mean.
    pub got: f64,
    /// Their quantizer.
    pub quantizer: u8,
    /// It is the finest that may be taken, and they are worse than asked for; else it is the
    /// coarsest, and they are better.
    pub finest: bool,
}

/// Watches for stretches at either end of the quantizers.
#[derive(Debug, Clone)]
pub struct Reach {
    min: u8,
    max: u8,
    /// Frames of a second.
    second: f64,
    /// At which quantizer the stretch in progress is.
    end: Option<u8>,
    frames: f64,
    sum: f64,
    /// Frames since one was there.
    away: f64,
    told: bool,
}

impl Reach {
    /// Between two quantizers, `fps` frames a second.
    pub fn new(min: u8, max: u8, fps: f64) -> Self {
        Self {
            min,
            max,
            second: fps.max(1.0),
            end: None,
            frames: 0.0,
            sum: 0.0,
            away: 0.0,
            told: false,
        }
    }

    /// Takes note of a coded frame. Frames between others have quantizers above theirs and go with
    /// them.
    pub fn add(&mut self, class: FrameClass, quantizer: u8, value: f64) {
        let at_end = quantizer == self.min || quantizer == self.max;
        let end = at_end.then_some(quantizer);
        let goes_on = match class.is_inner() {
            true => self.end.is_some() && self.away == 0.0,
            false => end.is_some() && end == self.end,
        };
        if goes_on {
            self.away = 0.0;
        } else {
            self.away += 1.0;
            // A stretch that was told of ends with a second elsewhere: one that flickers is one.
            if self.told && self.away < self.second {
                return;
            }
            *self = Self::new(self.min, self.max, self.second);
            self.end = end.filter(|_| !class.is_inner());
        }
        if self.end.is_some() {
            self.frames += 1.0;
            self.sum += value;
        }
    }

    /// Says once for each stretch of a second or longer that its frames miss what is asked for.
    pub fn missed(&mut self, metric: QualityMetric, asked: f64) -> Option<QualityOutOfReach> {
        let quantizer = self.end.filter(|_| !self.told)?;
        let got = self.sum / self.frames;
        let missing = level(metric, asked) - level(metric, got);
        let finest = quantizer == self.min && missing > MISS.0;
        let coarsest = quantizer == self.max && missing < -MISS.1;
        self.told = self.frames >= self.second && (finest || coarsest);
        self.told.then_some(QualityOutOfReach {
            metric,
            asked,
            got,
            quantizer,
            finest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a stretch is told of, and the last that was said: frames with a quantizer and a
    /// value, each with a frame between that has a higher quantizer.
    fn told(frames: &[(usize, u8, f64)]) -> (usize, Option<QualityOutOfReach>) {
        let mut reach = Reach::new(2, 60, 10.0);
        let (mut count, mut last) = (0, None);
        for (n, quantizer, value) in frames {
            for _ in 0..*n {
                for (class, quantizer) in [
                    (FrameClass::Inter(0), *quantizer),
                    (FrameClass::Inter(2), quantizer.saturating_add(3).min(60)),
                ] {
                    reach.add(class, quantizer, *value);
                    let said = reach.missed(QualityMetric::Psnr, 40.0);
                    count += usize::from(said.is_some());
                    last = said.or(last);
                }
            }
        }
        (count, last)
    }

    #[test]
    fn a_stretch_is_told_of_once() {
        let (count, said) = told(&[(50, 2, 38.0)]);
        assert_eq!(count, 1);
        let said = said.unwrap();
        assert!(said.finest);
        assert_eq!((said.asked, said.got, said.quantizer), (40.0, 38.0, 2));
        let (count, said) = told(&[(50, 60, 44.0)]);
        assert_eq!(count, 1);
        assert!(!said.unwrap().finest);
        // Short, or as asked for, or between the ends.
        let met = [(50, 2, 39.9), (50, 60, 42.5), (50, 30, 38.0), (4, 2, 38.0)];
        for frames in met {
            assert_eq!(told(&[frames]).0, 0, "{frames:?}");
        }
    }

    #[test]
    fn stretches_apart_are_two_and_flickering_ones_one() {
        let (low, mid, high) = ((20, 2, 38.0), (20, 30, 40.0), (20, 60, 44.0));
        assert_eq!(told(&[low, mid, low]).0, 2);
        assert_eq!(told(&[low, (2, 30, 40.0), low, (2, 30, 40.0), low]).0, 1);
        assert_eq!(told(&[low, high]).0, 2);
        // Never a second at a time.
        assert_eq!(told(&[(4, 2, 38.0), (1, 30, 40.0)].repeat(9)).0, 0);
    }
}

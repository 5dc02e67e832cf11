// SPDX-License-Identifier: MPL-2.0
//! How much a path will carry over the next seconds.

use nnv_nn::{ModelSource, NnError, ThroughputModel, ThroughputState};

/// Quantiles of the mean rate from now on, for several horizons.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// Seconds, ascending.
    horizons: Vec<f64>,
    /// Probabilities, ascending.
    probabilities: Vec<f64>,
    /// bit/s, by horizon and probability.
    rates: Vec<Vec<f64>>,
}

impl Outlook {
    /// The rate (bit/s) that the path carries over `seconds` with so much probability of less;
    /// between what is known in straight lines, beyond it as at its end.
    pub fn quantile(&self, seconds: f64, probability: f64) -> f64 {
        let at = |row: &Vec<f64>| interpolate(&self.probabilities, row, probability);
        let column: Vec<f64> = self.rates.iter().map(at).collect();
        interpolate(&self.horizons, &column, seconds)
    }
}

/// `ys` at `x` between `xs`, which rise; 0 where there are none.
fn interpolate(xs: &[f64], ys: &[f64], x: f64) -> f64 {
    let i = xs
        .partition_point(|v| *v < x)
        .min(xs.len().saturating_sub(1));
    match (i.checked_sub(1), ys.get(i)) {
        (Some(j), Some(y)) if x < xs[i] => ys[j] + (y - ys[j]) * (x - xs[j]) / (xs[i] - xs[j]),
        (_, Some(y)) => *y,
        (_, None) => 0.0,
    }
}

/// Something that forecasts a path from what it carried.
pub trait Forecast: Send {
    /// Seconds that an observation covers.
    fn step(&self) -> f64;

    /// Takes the mean rate (bit/s) of the last step, and whether that was all that the path could
    /// carry. `None`: nothing can be said.
    fn observe(&mut self, rate: f64, all: bool) -> Option<Outlook>;

    /// Forgets the path.
    fn reset(&mut self);
}

/// The harmonic mean of the last five observations, whatever the horizon and the probability.
#[derive(Debug, Clone)]
pub struct Harmonic {
    step: f64,
    last: Vec<f64>,
}

/// What lower rates count as in a harmonic mean, bit/s.
const FLOOR: f64 = 50e3;

impl Harmonic {
    /// For observations of `step` seconds.
    pub fn new(step: f64) -> Self {
        Self {
            step,
            last: Vec::new(),
        }
    }
}

impl Forecast for Harmonic {
    fn step(&self) -> f64 {
        self.step
    }

    fn observe(&mut self, rate: f64, _: bool) -> Option<Outlook> {
        if self.last.len() == 5 {
            self.last.remove(0);
        }
        self.last.push(rate.max(FLOOR));
        let mean = self.last.len() as f64 / self.last.iter().map(|r| r.recip()).sum::<f64>();
        Some(Outlook {
            horizons: vec![self.step],
            probabilities: vec![0.5],
            rates: vec![vec![mean]],
        })
    }

    fn reset(&mut self) {
        self.last.clear();
    }
}

/// The network that ships.
#[derive(Debug)]
pub struct Neural {
    model: ThroughputModel,
    state: ThroughputState,
    unit: f64,
}

/// Rates that the network was trained with lie about this, bit/s.
const TRAINED: f64 = 1e6;

impl Neural {
    /// Loads a bundle of kind `network`.
    ///
    /// # Errors
    /// As [`ThroughputModel::load`].
    pub fn load(source: &ModelSource) -> Result<Self, NnError> {
        let model = ThroughputModel::load(source)?;
        let state = model.start();
        let unit = TRAINED;
        Ok(Self { model, state, unit })
    }

    /// The same for rates of another order: `unit` bit/s count as a megabit per second. What is no
    /// rate changes nothing.
    #[must_use]
    pub fn in_units_of(self, unit: f64) -> Self {
        let unit = if (1.0..=1e12).contains(&unit) {
            unit
        } else {
            self.unit
        };
        Self { unit, ..self }
    }

    /// The unit for streams of at most `max` bit/s: those of megabits stay as they are.
    pub fn unit_below(max: f64) -> f64 {
        (max / 4.0).min(TRAINED)
    }

    /// Loads the bundle that is built in.
    ///
    /// # Errors
    /// As [`ThroughputModel::load`].
    pub fn built_in() -> Result<Self, NnError> {
        Self::load(&ModelSource::Embedded("network".into()))
    }
}

impl Forecast for Neural {
    fn step(&self) -> f64 {
        f64::from(self.model.step())
    }

    fn observe(&mut self, rate: f64, all: bool) -> Option<Outlook> {
        let rates = self
            .model
            .observe(&mut self.state, (rate / self.unit) as f32, all)
            .ok()?;
        let wide = |list: &[f32]| list.iter().map(|v| f64::from(*v)).collect();
        Some(Outlook {
            horizons: wide(self.model.horizons()),
            probabilities: wide(self.model.quantiles()),
            rates: rates
                .iter()
                .map(|row| row.iter().map(|v| f64::from(*v) * self.unit).collect())
                .collect(),
        })
    }

    fn reset(&mut self) {
        self.state = self.model.start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_on_straight_lines_and_end_at_the_ends() {
        let outlook = Outlook {
            horizons: vec![1.0, 2.0],
            probabilities: vec![0.25, 0.5],
            rates: vec![vec![2.0, 4.0], vec![1.0, 2.0]],
        };
        for (seconds, probability, rate) in [
            (1.0, 0.5, 4.0),
            (1.5, 0.5, 3.0),
            (0.1, 0.375, 3.0),
            (9.0, 0.0, 1.0),
            (9.0, 1.0, 2.0),
        ] {
            assert_eq!(outlook.quantile(seconds, probability), rate);
        }
        assert_eq!(interpolate(&[], &[], 1.0), 0.0);
    }

    #[test]
    fn the_harmonic_mean_is_of_the_last_five() {
        let mut mean = Harmonic::new(1.0);
        for rate in [9e9, 1e6, 1e6, 1e6, 1e6] {
            mean.observe(rate, true);
        }
        let outlook = mean.observe(2e6, true).unwrap();
        assert!((outlook.quantile(1.0, 0.1) - 5e6 / 4.5).abs() < 1.0);
        // What is no number counts as the floor.
        assert!(
            mean.observe(f64::NAN, true)
                .unwrap()
                .quantile(1.0, 0.5)
                .is_finite()
        );
    }
}

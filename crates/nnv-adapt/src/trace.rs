// SPDX-License-Identifier: MPL-2.0
//! What a path carried over time, from a text of lines `seconds Mbit/s`.

use std::fmt;

/// Most lines of a trace.
const MAX_LINES: usize = 1 << 20;
/// Largest rate in Mbit/s.
const MAX_RATE: f64 = 1e6;

/// Capacity of a path over time, piecewise constant. The rate of a line holds from the line before.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Ends of the pieces, in seconds from the start.
    ends: Vec<f64>,
    /// bit/s.
    rates: Vec<f64>,
    /// Bits carried until the end of each piece.
    total: Vec<f64>,
}

/// What is wrong with a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceError(String);

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TraceError {}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// Which line is wrong, or that there are fewer than two or nothing is ever carried.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let fail = |what: &str| Err(TraceError(format!("line {}: {what}", i + 1)));
            if i >= MAX_LINES {
                return fail("a trace has at most a million lines");
            }
            let mut fields = line.split_whitespace().map(str::parse::<f64>);
            let (time, rate) = match (fields.next(), fields.next(), fields.next()) {
                (None, ..) => continue,
                (Some(Ok(time)), Some(Ok(rate)), None) => (time, rate),
                _ => return fail("must be \"seconds Mbit/s\""),
            };
            if !time.is_finite() || !(0.0..=MAX_RATE).contains(&rate) {
                return fail("no time, or no rate of 0 to 1000000 Mbit/s");
            }
            if points.last().is_some_and(|(t, _)| *t >= time) {
                return fail("times must rise");
            }
            points.push((time, rate * 1e6));
        }
        let Some(&(start, _)) = points.first().filter(|_| points.len() > 1) else {
            return Err(TraceError("a trace needs two lines or more".into()));
        };
        let ends: Vec<_> = points[1..].iter().map(|(t, _)| t - start).collect();
        let rates: Vec<_> = points[1..].iter().map(|(_, r)| *r).collect();
        Self::new(ends, rates)
    }

    fn new(ends: Vec<f64>, rates: Vec<f64>) -> Result<Self, TraceError> {
        let mut total = Vec::with_capacity(ends.len());
        let (mut bits, mut before) = (0.0, 0.0);
        for (end, rate) in ends.iter().zip(&rates) {
            bits += (end - before) * rate;
            before = *end;
            total.push(bits);
        }
        if bits <= 0.0 {
            return Err(TraceError(
                "the path of this trace never carries anything".into(),
            ));
        }
        Ok(Self { ends, rates, total })
    }

    /// The same path carrying `factor` as much.
    ///
    /// # Errors
    /// For a factor that is not above 0.
    pub fn scaled(&self, factor: f64) -> Result<Self, TraceError> {
        if !(factor > 0.0 && factor.is_finite()) {
            return Err(TraceError("a trace is scaled by a number above 0".into()));
        }
        let rates = self.rates.iter().map(|r| r * factor).collect();
        Self::new(self.ends.clone(), rates)
    }

    /// Seconds.
    pub fn duration(&self) -> f64 {
        self.ends.last().copied().unwrap_or(0.0)
    }

    /// Mean capacity in bit/s.
    pub fn mean(&self) -> f64 {
        self.bits() / self.duration()
    }

    fn bits(&self) -> f64 {
        self.total.last().copied().unwrap_or(0.0)
    }

    /// Bits carried from the start until `seconds`; the trace begins anew when it ends.
    pub fn carried(&self, seconds: f64) -> f64 {
        let turns = (seconds / self.duration()).floor().max(0.0);
        let rest = seconds.max(0.0) - turns * self.duration();
        let i = self
            .ends
            .partition_point(|end| *end <= rest)
            .min(self.ends.len() - 1);
        let (begin, bits) = match i {
            0 => (0.0, 0.0),
            i => (self.ends[i - 1], self.total[i - 1]),
        };
        turns * self.bits() + bits + (rest - begin) * self.rates[i]
    }

    /// When so many bits have been carried since the start, in seconds.
    pub fn when(&self, bits: f64) -> f64 {
        let turns = (bits / self.bits()).floor().max(0.0);
        let rest = bits.max(0.0) - turns * self.bits();
        let i = self
            .total
            .partition_point(|total| *total <= rest)
            .min(self.ends.len() - 1);
        let (begin, before) = match i {
            0 => (0.0, 0.0),
            i => (self.ends[i - 1], self.total[i - 1]),
        };
        let within = if self.rates[i] > 0.0 {
            (rest - before) / self.rates[i]
        } else {
            0.0
        };
        turns * self.duration() + begin + within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_hold_from_the_line_before_and_traces_repeat() {
        let trace = Trace::parse("5.0 9\n7.0 1\n8.0 0\n\n9.0 3\n").unwrap();
        assert_eq!(trace.duration(), 4.0);
        assert_eq!(trace.mean(), 1.25e6);
        for (seconds, bits) in [(0.0, 0.0), (1.0, 1e6), (2.5, 2e6), (3.5, 3.5e6), (5.0, 6e6)] {
            assert!((trace.carried(seconds) - bits).abs() < 1.0, "{seconds}");
        }
        for (bits, seconds) in [(0.5e6, 0.5), (2.6e6, 3.2), (6e6, 5.0), (10e6, 8.0)] {
            assert!((trace.when(bits) - seconds).abs() < 1e-6, "{bits}");
        }
        assert_eq!(trace.scaled(2.0).unwrap().mean(), 2.5e6);
        assert!(trace.scaled(f64::NAN).is_err());
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for (text, expected) in [
            ("", "two lines"),
            ("0 1\n", "two lines"),
            ("0 1\n1 0\n2 0", "never carries"),
            ("0 1\n0 1", "rise"),
            ("0 1\n1 -1", "line 2"),
            ("0 1\n1 NaN", "line 2"),
            ("0 1\ninf 1", "line 2"),
            ("0 1 2\n", "line 1"),
            ("a b\n", "line 1"),
        ] {
            let error = Trace::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}

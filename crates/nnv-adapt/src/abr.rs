// SPDX-License-Identifier: MPL-2.0
//! On demand: which rung of an adaptive HTTP stream to fetch next.

use crate::{Forecast, Outlook, Qoe, Trace};

/// Chooses a rung: the one with the best score over the next segments, if the path carries what a
/// careful forecast says.
///
/// `rates` are those of the rungs in bit/s, ascending; `buffered` is what is left to play and
/// `segment` the length of a segment, both in seconds; `last` is the rung that plays. Without rungs
/// or with something that is no number it is the first.
pub fn choose(
    outlook: Option<&Outlook>,
    rates: &[f64],
    buffered: f64,
    segment: f64,
    last: usize,
    caution: f64,
) -> usize {
    let Some(outlook) = outlook else { return 0 };
    let sound = segment > 0.0 && buffered >= 0.0;
    if !sound || rates.is_empty() {
        return 0;
    }
    let last = last.min(rates.len() - 1);
    let carries = outlook.quantile(segment, caution).max(1.0);
    let score = |rung: usize| {
        let mut buffer = buffered;
        let mut frozen = 0.0;
        // The same rung for a few segments: what it costs in the long run shows.
        for _ in 0..AHEAD {
            let fetch = rates[rung] * segment / carries;
            frozen += (fetch - buffer).max(0.0);
            buffer = (buffer - fetch).max(0.0) + segment;
        }
        let quality = (rates[rung] / rates[0]).log2();
        Qoe {
            seconds: AHEAD as f64 * segment,
            quality: quality * AHEAD as f64 * segment,
            frozen,
            switched: (quality - (rates[last] / rates[0]).log2()).abs(),
        }
        .score()
    };
    (0..rates.len())
        .filter(|rung| rates[*rung].is_finite() && rates[*rung] > 0.0)
        .max_by(|a, b| score(*a).total_cmp(&score(*b)))
        .unwrap_or(0)
}

/// Segments that are looked ahead.
const AHEAD: usize = 5;

/// A player over a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Player {
    /// Rates of the rungs in bit/s, ascending.
    pub rates: Vec<f64>,
    /// Seconds of a segment.
    pub segment: f64,
    /// Seconds that are fetched ahead at most.
    pub buffer: f64,
    /// Seconds from a request to the first byte.
    pub round_trip: f64,
    /// Probability that the path carries less than what is counted on.
    pub caution: f64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Watched {
    /// Sums for the score; the wait for the first segment counts as frozen.
    pub qoe: Qoe,
    /// Changes of the rung.
    pub switches: u64,
    /// Segments.
    pub segments: u64,
}

impl Default for Player {
    /// Six rungs of 300 kbit/s to 4.3 Mbit/s, segments of 2 s, 20 s fetched ahead.
    fn default() -> Self {
        Self {
            rates: [300e3, 750e3, 1200e3, 1850e3, 2850e3, 4300e3].to_vec(),
            segment: 2.0,
            buffer: 20.0,
            round_trip: 0.08,
            caution: 0.25,
        }
    }
}

impl Watched {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.qoe.add(&other.qoe);
        self.switches += other.switches;
        self.segments += other.segments;
    }
}

impl Player {
    /// Plays a trace to its end. The forecast hears of the path while segments come.
    pub fn play(&self, forecast: &mut dyn Forecast, trace: &Trace, limit: f64) -> Watched {
        let mut watched = Watched::default();
        let (mut t, mut buffered, mut last) = (0.0_f64, 0.0_f64, 0);
        let mut outlook = None;
        let end = trace.duration().min(limit);
        while t < end {
            let rung = choose(
                outlook.as_ref(),
                &self.rates,
                buffered,
                self.segment,
                last,
                self.caution,
            );
            let begin = t + self.round_trip;
            let bits = self.rates[rung] * self.segment;
            let done = trace.when(trace.carried(begin) + bits).max(begin);
            // What came in each step while it was fetched; the rest of a step counts when it is
            // long enough to tell.
            let step = forecast.step();
            let mut from = begin;
            while done - from >= 0.5 * step {
                let to = (from + step).min(done);
                let rate = (trace.carried(to) - trace.carried(from)) / (to - from);
                outlook = forecast.observe(rate, true);
                from = to;
            }
            if from == begin {
                outlook = forecast.observe(bits / (done - begin).max(1e-3), true);
            }
            let took = done - t;
            let frozen = (took - buffered).max(0.0);
            buffered = (buffered - took).max(0.0) + self.segment;
            t = done;
            let wait = (buffered - self.buffer).max(0.0);
            t += wait;
            buffered -= wait;
            let quality = |rung: usize| (self.rates[rung] / self.rates[0]).log2();
            watched.qoe.seconds += self.segment;
            watched.qoe.quality += quality(rung) * self.segment;
            watched.qoe.frozen += frozen;
            if watched.segments > 0 {
                watched.qoe.switched += (quality(rung) - quality(last)).abs();
                watched.switches += u64::from(rung != last);
            }
            watched.segments += 1;
            last = rung;
        }
        watched
    }
}

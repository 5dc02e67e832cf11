// SPDX-License-Identifier: MPL-2.0
//! What each stage of coding takes.

use web_time::{Duration, Instant};

/// Time spent per stage since a coder was made or reset.
#[derive(Debug, Clone, Default)]
pub struct StageTimes {
    /// Temporal filter (encoder only).
    pub filter: Duration,
    /// Motion search.
    pub search: Duration,
    /// Prediction from references.
    pub predict: Duration,
    /// Packing into tensors and back.
    pub pack: Duration,
    /// Analysis networks (encoder only).
    pub analyse: Duration,
    /// Prior networks.
    pub prior: Duration,
    /// Entropy coding.
    pub entropy: Duration,
    /// Synthesis networks.
    pub synth: Duration,
    /// Quantisation and dequantisation.
    pub quantise: Duration,
    /// Measuring what is coded, where quality is held (encoder only).
    pub measure: Duration,
}

impl StageTimes {
    /// Adds the times of another.
    pub fn add(&mut self, other: &Self) {
        self.filter += other.filter;
        self.search += other.search;
        self.predict += other.predict;
        self.pack += other.pack;
        self.analyse += other.analyse;
        self.prior += other.prior;
        self.entropy += other.entropy;
        self.synth += other.synth;
        self.quantise += other.quantise;
        self.measure += other.measure;
    }
}

/// Measures stages one after the other.
#[derive(Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Adds the time since the last call.
    pub fn lap(&mut self, to: &mut Duration) {
        let now = Instant::now();
        *to += now - self.0;
        self.0 = now;
    }
}

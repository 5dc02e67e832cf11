// SPDX-License-Identifier: MPL-2.0
//! Points in time of one clock.

/// Microseconds of a clock whose beginning means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(i64);

/// Times beyond this (some 73 000 years) are cut, so that differences never overflow.
const LIMIT: i64 = i64::MAX / 4;

impl Time {
    /// From microseconds.
    pub fn from_us(us: i64) -> Self {
        Self(us.clamp(-LIMIT, LIMIT))
    }

    /// From milliseconds.
    pub fn from_ms(ms: i64) -> Self {
        Self::from_us(ms.saturating_mul(1000))
    }

    /// From seconds; no number counts as 0.
    pub fn from_seconds(seconds: f64) -> Self {
        // The conversion saturates, and makes 0 of a NaN.
        Self::from_us((seconds * 1e6) as i64)
    }

    /// Microseconds.
    pub fn us(self) -> i64 {
        self.0
    }

    /// Seconds since another time, negative before it.
    pub fn since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) as f64 / 1e6
    }

    /// The time so many seconds later.
    #[must_use]
    pub fn plus(self, seconds: f64) -> Self {
        Self::from_us(self.0.saturating_add((seconds * 1e6) as i64))
    }
}

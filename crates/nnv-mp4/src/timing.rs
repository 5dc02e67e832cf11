// SPDX-License-Identifier: MPL-2.0
//! From nanoseconds to ticks, and from times of showing to times of decoding.

/// `ns` at `timescale` ticks per second, to the nearest.
pub(crate) fn ticks(ns: i64, timescale: u32) -> i64 {
    let ticks = (i128::from(ns) * i128::from(timescale) + 500_000_000).div_euclid(1_000_000_000);
    // Both factors together stay within 96 bits.
    i64::try_from(ticks).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
}

/// `ticks` of one clock in those of another, rounded up so that nothing is cut off.
pub(crate) fn rescale(ticks: i64, from: u32, to: u32) -> u64 {
    let ticks = u128::from(ticks.max(0).unsigned_abs()) * u128::from(to);
    u64::try_from(ticks.div_ceil(u128::from(from.max(1)))).unwrap_or(u64::MAX)
}

/// Times of decoding for frames in coding order, given when they are shown: the n-th coded frame is
/// decoded at the n-th shown time, always later than `last`.
pub(crate) fn decoding(shown: &[i64], last: Option<i64>) -> Vec<i64> {
    let mut times = shown.to_vec();
    times.sort_unstable();
    let mut last = last;
    for time in &mut times {
        *time = (*time).max(last.map_or(*time, |last| last + 1));
        last = Some(*time);
    }
    times
}

/// By how much frames are shown too early for [`decoding`]: so much earlier all have to be decoded.
pub(crate) fn shift(shown: &[i64], decoded: &[i64]) -> i64 {
    shown
        .iter()
        .zip(decoded)
        .map(|(shown, decoded)| decoded - shown)
        .max()
        .unwrap_or(0)
        .max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_times_rise_and_come_in_time() {
        let shown = [0, 40, 20, 10, 30, 80, 60, 50, 70];
        let decoded = decoding(&shown, None);
        assert_eq!(decoded, [0, 10, 20, 30, 40, 50, 60, 70, 80]);
        // The fourth coded frame is the second shown one.
        assert_eq!(shift(&shown, &decoded), 20);
        // Equal times are spread.
        assert_eq!(decoding(&[5, 5, 5, 6], Some(6)), [7, 8, 9, 10]);
    }

    #[test]
    fn times_are_exact_on_the_grid() {
        // NTSC: frame n at floor(n * 1001 / 30000 s), in ns.
        for n in [0i64, 1, 2, 29, 1000, 123_456_789] {
            let ns = (i128::from(n) * 1_001_000_000_000 / 30_000) as i64;
            assert_eq!(ticks(ns, 90_000), n * 3003);
        }
        assert_eq!(ticks(-40_000_000, 90_000), -3600);
        assert_eq!(rescale(1, 48_000, 1_000_000), 21);
        assert_eq!(rescale(-5, 48_000, 1_000_000), 0);
    }
}

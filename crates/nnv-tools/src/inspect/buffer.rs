// SPDX-License-Identifier: MPL-2.0
//! The decoder's buffer under a constant rate, as rate control imagines it.

/// How full it is before the first frame, as the encoder assumes.
const START: f64 = 0.9;

/// A buffer that fills at a constant rate.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Bits per second.
    pub rate: f64,
    /// Bits that it holds.
    pub size: f64,
}

impl Buffer {
    /// Its fullness after each frame was taken out, as a share of its size: below zero where it ran
    /// empty. `bytes`: of frames in the order of decoding, `interval` seconds apart.
    pub fn fullness(&self, bytes: &[u64], interval: f64) -> Vec<f64> {
        let mut held = START * self.size;
        let mut first = true;
        bytes
            .iter()
            .map(|&bytes| {
                if !std::mem::take(&mut first) {
                    held = (held + self.rate * interval).min(self.size);
                }
                held -= 8.0 * bytes as f64;
                held / self.size
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_fills_up_and_runs_empty() {
        let buffer = Buffer {
            rate: 800.0,
            size: 800.0,
        };
        // A tenth of a second brings ten bytes.
        let shares = buffer.fullness(&[10, 10, 0, 0, 100], 0.1);
        let expected = [0.8, 0.8, 0.9, 1.0, 0.0];
        for (a, b) in shares.iter().zip(expected) {
            assert!((a - b).abs() < 1e-9, "{shares:?}");
        }
        assert!(buffer.fullness(&[100], 0.1)[0] < 0.0);
    }
}

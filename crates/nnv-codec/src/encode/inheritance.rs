// SPDX-License-Identifier: MPL-2.0
//! Quantizers by content: how much of a frame's quality later frames inherit decides how far apart
//! their quantizers lie.
//!
//! Where inter frames cost a thirtieth of a key frame, what a good reference shows stays for many
//! frames, and those between may be coded coarsely. Where they cost a fifth, motion and noise are
//! coded afresh each time, and a better reference is wasted. The macroblock tree of x264 estimates
//! that before coding; here it is read off the sizes of coded frames.

use nnv_bitstream::FrameType;

/// What a quantizer takes off the logarithm (to base 2) of a frame's bits, on average.
const SLOPE: f64 = 0.088;
/// Inter frames that have to be known.
const LEAST: u32 = 4;
/// Inter frames over which sizes are averaged: a pattern of low-delay order twice, or a mini-GOP.
const WINDOW: u32 = 8;
/// The least that is left of an offset.
const LEAST_SCALE: f64 = 0.6;
/// Octaves between the sizes of key and inter frames, at equal quantizers, from which on offsets
/// are taken as they are.
const INHERITED: f64 = 2.2;

/// Sizes of the frames since the last key frame, as logarithms to base 2 at quantizer 0.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Inheritance {
    key: f64,
    inter: f64,
    /// Inter frames in the mean.
    frames: u32,
}

impl Inheritance {
    /// Takes note of a coded frame, of so many bytes without headers and metadata.
    pub(super) fn coded(&mut self, kind: FrameType, quantizer: u8, bytes: usize) {
        let size = ((8 * bytes.max(1)) as f64).log2() + SLOPE * f64::from(quantizer);
        match kind {
            FrameType::Key => {
                *self = Self {
                    key: size,
                    ..Self::default()
                }
            }
            FrameType::Inter => {
                self.frames = (self.frames + 1).min(WINDOW);
                self.inter += (size - self.inter) / f64::from(self.frames);
            }
            FrameType::Repeat => {}
        }
    }

    /// An inter frame's `offset`, scaled by what its content inherits: by `strength` less for each
    /// octave that is missing.
    pub(super) fn scaled(&self, offset: i8, strength: f32) -> i8 {
        if self.frames < LEAST {
            return offset;
        }
        let missing = (INHERITED - (self.key - self.inter)).max(0.0);
        let scale = (1.0 - f64::from(strength) * missing).max(LEAST_SCALE);
        (f64::from(offset) * scale).round() as i8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(inter_bytes: usize, frames: usize) -> Inheritance {
        let mut inheritance = Inheritance::default();
        inheritance.coded(FrameType::Key, 20, 30_000);
        for _ in 0..frames {
            inheritance.coded(FrameType::Inter, 20, inter_bytes);
            inheritance.coded(FrameType::Repeat, 0, 12);
        }
        inheritance
    }

    #[test]
    fn offsets_follow_what_frames_inherit() {
        // A thirtieth of the key frame's size, then a third.
        assert_eq!(after(1_000, 8).scaled(20, 0.7), 20);
        assert_eq!(after(10_000, 8).scaled(20, 0.7), 12);
        let between = after(7_500, 8).scaled(20, 0.7);
        assert!((13..20).contains(&between), "{between}");
        assert_eq!(after(10_000, 8).scaled(20, 0.0), 20);
        assert_eq!(after(10_000, 8).scaled(-5, 0.7), -3);
    }

    #[test]
    fn little_is_known_at_first_and_after_each_key_frame() {
        assert_eq!(after(10_000, 3).scaled(20, 0.7), 20);
        let mut inheritance = after(10_000, 8);
        inheritance.coded(FrameType::Key, 20, 30_000);
        assert_eq!(inheritance.scaled(20, 0.7), 20);
    }

    #[test]
    fn coarser_quantizers_are_no_sign_of_inheritance() {
        let mut inheritance = Inheritance::default();
        inheritance.coded(FrameType::Key, 20, 30_000);
        // Two octaves smaller, all of them the quantizer's doing.
        for _ in 0..8 {
            inheritance.coded(FrameType::Inter, 43, 7_500);
        }
        assert_eq!(inheritance.scaled(20, 0.7), 12);
    }
}

// SPDX-License-Identifier: MPL-2.0
//! From luma and chroma to red, green and blue.

/// How samples of a stream become colours.
#[derive(Clone, Copy, Debug)]
pub struct Colours {
    /// Weights of red and blue in luma.
    kr: f32,
    kb: f32,
    /// Of 10-bit samples: value of black, span of luma, span of chroma.
    floor: f32,
    luma: f32,
    chroma: f32,
}

impl Colours {
    /// By the code of the matrix (ISO/IEC 23091-2); where it says nothing, as GStreamer guesses by
    /// the height of the picture.
    pub fn new(matrix: u8, full_range: bool, height: u32) -> Self {
        let (kr, kb) = match matrix {
            1 => (0.2126, 0.0722),
            9 | 10 => (0.2627, 0.0593),
            4..=6 => (0.299, 0.114),
            _ if height > 576 => (0.2126, 0.0722),
            _ => (0.299, 0.114),
        };
        let (floor, luma, chroma) = match full_range {
            true => (0.0, 1023.0, 1023.0),
            false => (64.0, 876.0, 896.0),
        };
        Self {
            kr,
            kb,
            floor,
            luma,
            chroma,
        }
    }

    /// Red, green and blue of 10-bit samples.
    #[inline]
    pub fn rgb(&self, y: f32, u: f32, v: f32) -> [u8; 3] {
        let (kr, kb) = (self.kr, self.kb);
        let byte = |v: f32| (v * 255.0).round().clamp(0.0, 255.0) as u8;
        let y = (y - self.floor) / self.luma;
        let (cb, cr) = ((u - 512.0) / self.chroma, (v - 512.0) / self.chroma);
        let (r, b) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
        let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
        [byte(r), byte(g), byte(b)]
    }
}

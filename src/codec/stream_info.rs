// SPDX-License-Identifier: MPL-2.0
//! What a stream says about its pictures.

use super::picture::MAX_SIZE;

/// Colour description with the code points of ITU-T H.273 (0 range: limited, 2: unspecified).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Colorimetry {
    /// Full range (0..=255 at 8 bit) instead of limited (16..=235).
    pub full_range: bool,
    /// MatrixCoefficients.
    pub matrix: u8,
    /// TransferCharacteristics.
    pub transfer: u8,
    /// ColourPrimaries.
    pub primaries: u8,
}

impl Default for Colorimetry {
    fn default() -> Self {
        Self {
            full_range: false,
            matrix: 2,
            transfer: 2,
            primaries: 2,
        }
    }
}

/// Mastering display (SMPTE ST 2086): chromaticities in 1/50000, luminances in 1/10000 cd/m².
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MasteringDisplay {
    /// Red, green, blue: x, y.
    pub primaries: [[u16; 2]; 3],
    /// White point: x, y.
    pub white_point: [u16; 2],
    /// Greatest luminance.
    pub max_luminance: u32,
    /// Least luminance.
    pub min_luminance: u32,
}

/// Content light level in cd/m².
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentLight {
    /// Greatest of any sample.
    pub max_content: u16,
    /// Greatest mean of a frame.
    pub max_frame_average: u16,
}

/// What a stream says about its pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Visible width in luma samples.
    pub width: u32,
    /// Visible height in luma samples.
    pub height: u32,
    /// Bits per sample: 8 or 10.
    pub bit_depth: u8,
    /// Frames per second as a fraction; `None` where unknown or variable.
    pub frame_rate: Option<(u32, u32)>,
    /// Pixel aspect ratio as a fraction.
    pub pixel_aspect: (u32, u32),
    /// Colours.
    pub colorimetry: Colorimetry,
    /// HDR: the mastering display.
    pub mastering_display: Option<MasteringDisplay>,
    /// HDR: content light level.
    pub content_light: Option<ContentLight>,
}

impl StreamInfo {
    /// Square pixels, unspecified colours, no frame rate.
    pub fn new(width: u32, height: u32, bit_depth: u8) -> Self {
        Self {
            width,
            height,
            bit_depth,
            frame_rate: None,
            pixel_aspect: (1, 1),
            colorimetry: Colorimetry::default(),
            mastering_display: None,
            content_light: None,
        }
    }

    /// Checks size, depth and fractions.
    ///
    /// # Errors
    /// A sentence that says what is out of range.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=MAX_SIZE).contains(&self.width) || !(1..=MAX_SIZE).contains(&self.height) {
            return Err(format!(
                "a size of {}x{}, each side must be 1 to {MAX_SIZE}",
                self.width, self.height
            ));
        }
        if ![8, 10].contains(&self.bit_depth) {
            return Err(format!(
                "{} bits per sample, 8 and 10 are possible",
                self.bit_depth
            ));
        }
        if self.frame_rate.is_some_and(|(n, d)| n == 0 || d == 0) {
            return Err("a frame rate with a zero in it".into());
        }
        if self.pixel_aspect.0 == 0 || self.pixel_aspect.1 == 0 {
            return Err("a pixel aspect ratio with a zero in it".into());
        }
        Ok(())
    }
}

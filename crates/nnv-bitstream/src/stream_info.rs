// SPDX-License-Identifier: MPL-2.0
//! What a stream says about its pictures.

use super::limits::check_size;
use super::sequence::{
    ChromaFormat, Colorimetry, ContentLight, Crop, MasteringDisplay, Rational, SequenceHeader,
};

/// What a stream says about its pictures: the part of the sequence header that users see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Width in luma samples, before cropping.
    pub width: u32,
    /// Height in luma samples, before cropping.
    pub height: u32,
    /// Bits per sample: 8 or 10.
    pub bit_depth: u8,
    /// Whether pictures have colour.
    pub chroma_format: ChromaFormat,
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
    /// What to cut off for output; encoders of this crate leave it at zero.
    pub crop: Crop,
}

impl StreamInfo {
    /// 4:2:0, square pixels, unspecified colours, no frame rate, no cropping.
    pub fn new(width: u32, height: u32, bit_depth: u8) -> Self {
        Self {
            width,
            height,
            bit_depth,
            chroma_format: ChromaFormat::Yuv420,
            frame_rate: None,
            pixel_aspect: (1, 1),
            colorimetry: Colorimetry::default(),
            mastering_display: None,
            content_light: None,
            crop: Crop::default(),
        }
    }

    /// What a sequence header says.
    pub fn from_header(header: &SequenceHeader) -> Self {
        let rate = header.frame_rate;
        Self {
            width: header.width,
            height: header.height,
            bit_depth: header.bit_depth,
            chroma_format: header.chroma_format,
            frame_rate: (rate.num > 0).then_some((rate.num, rate.den)),
            pixel_aspect: (header.pixel_aspect.num, header.pixel_aspect.den),
            colorimetry: header.colorimetry,
            mastering_display: header.mastering_display,
            content_light: header.content_light,
            crop: header.crop,
        }
    }

    /// The frame rate as a sequence header has it.
    pub fn rate(&self) -> Rational {
        self.frame_rate
            .map_or(Rational::new(0, 1), |(n, d)| Rational::new(n, d))
    }

    /// Checks size, depth and fractions.
    ///
    /// # Errors
    /// A sentence that says what is out of range.
    pub fn validate(&self) -> Result<(), String> {
        check_size(self.width, self.height)?;
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

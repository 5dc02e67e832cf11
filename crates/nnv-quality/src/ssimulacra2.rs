// SPDX-License-Identifier: MPL-2.0
//! SSIMULACRA2 (Sneyers 2022) by the crate `ssimulacra2`, of pictures in Y, U and V.
//!
//! Pictures become linear light first: chroma is scaled to luma's size by the kernel of
//! [`fit()`](crate::fit()), then matrix, range and transfer by [`Colour`].

use ssimulacra2::{
    ColorPrimaries, LinearRgb, Rgb, TransferCharacteristic, compute_frame_ssimulacra2,
};

use crate::{PlaneView, QualityError, fit, peak};

/// Smallest side that the measure takes.
const SMALLEST: usize = 8;

/// What codes mean, as ISO/IEC 23091-2 numbers it; 2 is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// Code of the primaries.
    pub primaries: u8,
    /// Code of the transfer characteristics.
    pub transfer: u8,
    /// Code of the matrix.
    pub matrix: u8,
    /// Samples from 0 on, not from 16.
    pub full_range: bool,
}

impl Default for Colour {
    /// Unknown, limited range.
    fn default() -> Self {
        Self {
            primaries: 2,
            transfer: 2,
            matrix: 2,
            full_range: false,
        }
    }
}

impl Colour {
    /// High dynamic range, which SSIMULACRA2 was not made for: PQ or HLG.
    pub fn is_hdr(&self) -> bool {
        matches!(self.transfer, 16 | 18)
    }

    /// Weights of red and blue in luma; where nothing is said, as GStreamer guesses.
    fn weights(&self, height: usize) -> (f32, f32) {
        match self.matrix {
            1 => (0.2126, 0.0722),
            9 | 10 => (0.2627, 0.0593),
            4..=6 => (0.299, 0.114),
            7 => (0.212, 0.087),
            _ if height > 576 => (0.2126, 0.0722),
            _ => (0.299, 0.114),
        }
    }

    /// What is not known or not built in is taken for BT.709's, as players do.
    fn curve(&self) -> TransferCharacteristic {
        match self.transfer {
            4 => TransferCharacteristic::BT470M,
            5 => TransferCharacteristic::BT470BG,
            8 => TransferCharacteristic::Linear,
            13 => TransferCharacteristic::SRGB,
            _ => TransferCharacteristic::BT1886,
        }
    }

    fn gamut(&self) -> ColorPrimaries {
        match self.primaries {
            5 => ColorPrimaries::BT470BG,
            6 | 7 => ColorPrimaries::ST170M,
            9 => ColorPrimaries::BT2020,
            12 => ColorPrimaries::P3Display,
            _ => ColorPrimaries::BT709,
        }
    }
}

/// SSIMULACRA2 of two pictures of one size: 100 where nothing differs, 90 where hardly anybody sees
/// a difference, below 0 where the picture is bad. `None` where a side is below eight samples, the
/// video is of high dynamic range, or the matrix is no luma and chroma.
///
/// # Errors
/// [`QualityError::Sizes`], [`QualityError::Depths`].
pub fn ssimulacra2(
    original: &[PlaneView<'_>; 3],
    coded: &[PlaneView<'_>; 3],
    colour: Colour,
) -> Result<Option<f64>, QualityError> {
    for (a, b) in original.iter().zip(coded) {
        a.check_like(b)?;
    }
    let side = original[0].width().min(original[0].height());
    if side < SMALLEST || colour.is_hdr() || colour.matrix == 0 {
        return Ok(None);
    }
    let (Some(a), Some(b)) = (linear(original, colour)?, linear(coded, colour)?) else {
        return Ok(None);
    };
    Ok(compute_frame_ssimulacra2(a, b).ok())
}

fn linear(planes: &[PlaneView<'_>; 3], colour: Colour) -> Result<Option<LinearRgb>, QualityError> {
    let [y, u, v] = planes;
    let (width, height, depth) = (y.width(), y.height(), y.bit_depth());
    let u = fit(*u, (width, height), depth)?;
    let v = fit(*v, (width, height), depth)?;
    let (y, u, v) = (y.to_f32(), u.view().to_f32(), v.view().to_f32());
    let step = f32::from(1_u16 << (depth - 8));
    let top = peak(depth) as f32;
    let (floor, luma, chroma) = match colour.full_range {
        true => (0.0, top, top),
        false => (16.0 * step, 219.0 * step, 224.0 * step),
    };
    let (kr, kb) = colour.weights(height);
    let kg = 1.0 - kr - kb;
    let pixels = y.iter().zip(u.iter().zip(&v)).map(|(y, (u, v))| {
        let y = (y - floor) / luma;
        let (cb, cr) = ((u - 128.0 * step) / chroma, (v - 128.0 * step) / chroma);
        let (r, b) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
        let g = (y - kr * r - kb * b) / kg;
        [r, g, b].map(|c| c.clamp(0.0, 1.0))
    });
    let rgb = Rgb::new(
        pixels.collect(),
        width,
        height,
        colour.curve(),
        colour.gamut(),
    );
    Ok(rgb.ok().and_then(|rgb| LinearRgb::try_from(rgb).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(width: usize, height: usize, noise: u32) -> Vec<u8> {
        let mut seed = 1_u32;
        (0..width * height)
            .map(|i| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (x, y) = ((i % width) as f32, (i / width) as f32);
                let wave = (x * 0.2).sin() * (y * 0.15).cos() * 80.0;
                let noise = if noise == 0 { 0 } else { (seed >> 24) % noise };
                (120.0 + wave) as u8 + noise as u8
            })
            .collect()
    }

    fn score(noise: u32, colour: Colour) -> Option<f64> {
        let (w, h) = (65, 47);
        let (a, b) = (pattern(w, h, 0), pattern(w, h, noise));
        let grey = vec![128_u8; 33 * 24];
        let view = |luma| {
            let chroma = PlaneView::u8(&grey, 33, 24, 33).unwrap();
            [PlaneView::u8(luma, w, h, w).unwrap(), chroma, chroma]
        };
        ssimulacra2(&view(&a), &view(&b), colour).unwrap()
    }

    #[test]
    fn the_same_is_100_and_noise_costs() {
        let colour = Colour::default();
        assert_eq!(score(0, colour), Some(100.0));
        let (little, much) = (score(4, colour).unwrap(), score(40, colour).unwrap());
        assert!(little < 99.0 && much < little - 5.0, "{little} {much}");
    }

    #[test]
    fn hdr_and_tiny_pictures_have_none() {
        for transfer in [16, 18] {
            let colour = Colour {
                transfer,
                ..Colour::default()
            };
            assert_eq!(score(4, colour), None);
        }
        let s = [9_u8; 49];
        let tiny = [PlaneView::u8(&s, 7, 7, 7).unwrap(); 3];
        let none = ssimulacra2(&tiny, &tiny, Colour::default()).unwrap();
        assert_eq!(none, None);
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Pictures for the page: made smaller, in JPEG.

use jpeg_encoder::{ColorType, Encoder, EncodingError};
use nnv_format::picture::{Picture, Plane};

use crate::colours::Colours;

/// Means of a plane over `width` × `height` rectangles.
fn means(plane: &Plane, width: usize, height: usize) -> Vec<f32> {
    // Each rectangle has at least one sample.
    let cuts = |from: usize, to: usize| -> Vec<(usize, usize)> {
        (0..to)
            .map(|i| {
                let begin = i * from / to;
                (begin, ((i + 1) * from / to).max(begin + 1))
            })
            .collect()
    };
    let columns = cuts(plane.visible_width(), width);
    let mut out = Vec::with_capacity(width * height);
    let mut sums = vec![0_u32; width];
    for (top, bottom) in cuts(plane.visible_height(), height) {
        sums.fill(0);
        for y in top..bottom {
            let row = plane.visible_row(y);
            for (sum, &(left, right)) in sums.iter_mut().zip(&columns) {
                *sum += row[left..right].iter().map(|&v| u32::from(v)).sum::<u32>();
            }
        }
        out.extend(
            sums.iter()
                .zip(&columns)
                .map(|(&sum, (left, right))| sum as f32 / ((bottom - top) * (right - left)) as f32),
        );
    }
    out
}

/// A size in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Width.
    pub width: u16,
    /// Height.
    pub height: u16,
}

impl Size {
    fn sides(self) -> (usize, usize) {
        (self.width.into(), self.height.into())
    }

    fn jpeg(self, quality: u8, kind: ColorType, data: &[u8]) -> Result<Vec<u8>, EncodingError> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, quality);
        encoder.set_optimized_huffman_tables(true);
        encoder.encode(data, self.width, self.height, kind)?;
        Ok(out)
    }
}

/// A picture in colour.
///
/// # Errors
/// A side is zero.
pub fn colour(
    picture: &Picture,
    colours: &Colours,
    size: Size,
    quality: u8,
) -> Result<Vec<u8>, EncodingError> {
    let (width, height) = size.sides();
    let [y, u, v] = [0, 1, 2].map(|i| means(picture.plane(i), width, height));
    let rgb: Vec<u8> = (y.iter().zip(&u).zip(&v))
        .flat_map(|((&y, &u), &v)| colours.rgb(y, u, v))
        .collect();
    size.jpeg(quality, ColorType::Rgb, &rgb)
}

/// What is added to luma from one picture to another, twice, on grey.
///
/// # Errors
/// A side is zero.
pub fn added(
    from: &Picture,
    to: &Picture,
    size: Size,
    quality: u8,
) -> Result<Vec<u8>, EncodingError> {
    let (width, height) = size.sides();
    let [from, to] = [from, to].map(|p| means(p.luma(), width, height));
    // Samples of 10 bit: a quarter of the difference, twice.
    let grey = from.iter().zip(&to).map(|(a, b)| 128.0 + 0.5 * (b - a));
    let grey: Vec<u8> = grey.map(|v| v.round().clamp(0.0, 255.0) as u8).collect();
    size.jpeg(quality, ColorType::Luma, &grey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_those_of_rectangles() {
        let mut picture = Picture::new(6, 4).unwrap();
        for y in 0..4 {
            for x in 0..6 {
                picture.plane_mut(0).row_mut(y)[x] = (10 * y + x) as u16;
            }
        }
        assert_eq!(
            means(picture.luma(), 3, 2),
            [5.5, 7.5, 9.5, 25.5, 27.5, 29.5]
        );
        // Larger than the plane: samples repeat.
        assert_eq!(means(picture.plane(1), 6, 1).len(), 6);
        assert_eq!(means(picture.luma(), 12, 1)[..3], [15.0, 15.0, 16.0]);
    }
}

// SPDX-License-Identifier: MPL-2.0
//! What quality decoded video is likely to have, from its bit rate and from what its pictures hold.
//!
//! The picture alone does not tell, nor does the rate: the same is plenty for a screen and little for a crowd. A linear
//! model of both, fitted to coded training clips by `python -m nnvtrain sr-rate`, is wrong by three to four decibels where the
//! picture alone is by five, more on drawn screens.

use super::layout::{Planes, Sample};
use super::rows;
use crate::codec::motion::simd::with_avx2;

/// One row of so many is looked at.
const ROWS: usize = 4;
/// What stands beside zero in logarithms: bits per sample, code values.
const NO_BITS: f64 = 1e-3;
const NO_DETAIL: f64 = 0.05;
/// Pictures over which is averaged in the long run: bit rates are averages, too.
const MEMORY: f64 = 25.0;
/// A picture that differs from the one before by so many code values more than `CUT` times the average begins a scene.
const CUT: f64 = 3.0;
const CUT_LEAST: f64 = 10.0;

/// What PSNR in dB is linear in: 1, the logarithms to base 2 of bits per sample, slope, curvature and change, then the
/// shares of samples without curvature and without change.
const WEIGHTS: [f64; 7] = [45.6182, 3.0753, -2.2536, 0.1447, -0.3799, 14.0827, 5.8360];

/// Coding formats whose bit rates say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// H.264, AVC.
    H264,
    /// H.265, HEVC.
    H265,
    /// AV1.
    Av1,
}

impl Codec {
    /// From its name, as people and GStreamer's tags write it.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        if has(&["264", "AVC"]) {
            Some(Self::H264)
        } else if has(&["265", "HEVC"]) {
            Some(Self::H265)
        } else if has(&["AV1"]) {
            Some(Self::Av1)
        } else {
            None
        }
    }

    /// Decibels that it is better than H.264 with the same bits.
    fn lead(self) -> f64 {
        match self {
            Self::H264 => 0.0,
            Self::H265 => 2.6082,
            Self::Av1 => 4.8324,
        }
    }
}

/// What of a picture says how many bits it takes; the order is that of [`WEIGHTS`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Seen([f64; 5]);

const CHANGE: usize = 2;

/// Looks at the pictures of a stream, one after the other.
#[derive(Debug, Default)]
pub struct Rater {
    /// Rows that were looked at in the picture before, one after the other.
    before: Vec<i16>,
    /// Average, and of how many pictures.
    seen: Seen,
    count: u32,
}

impl Rater {
    /// For another stream, or after a gap.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Looks at the next picture, and returns its likely PSNR in dB for a codec and the bits that a luma sample takes on
    /// average. The first picture of a scene tells nothing, nor do very small ones.
    pub fn rate(&mut self, picture: &Planes<'_>, codec: Codec, bits: f64) -> Option<f32> {
        let now = self.look(picture)?;
        let average = self.seen.0[CHANGE];
        if self.count > 0 && now.0[CHANGE] > CUT * average + CUT_LEAST {
            self.count = 0;
            return None;
        }
        self.count = self.count.saturating_add(1);
        let share = 1.0 / f64::from(self.count).min(MEMORY);
        for (average, now) in self.seen.0.iter_mut().zip(now.0) {
            *average += (now - *average) * share;
        }
        let [slope, curvature, change, flat, still] = self.seen.0;
        let log = |value: f64, none: f64| (value + none).log2();
        let terms = [
            1.0,
            log(bits, NO_BITS),
            log(slope, NO_DETAIL),
            log(curvature, NO_DETAIL),
            log(change, NO_DETAIL),
            flat,
            still,
        ];
        let psnr: f64 = WEIGHTS.iter().zip(terms).map(|(w, t)| w * t).sum();
        Some((psnr + codec.lead()) as f32)
    }

    /// What this picture holds, if there was one before.
    fn look(&mut self, picture: &Planes<'_>) -> Option<Seen> {
        let layout = picture.layout();
        let (width, height) = (layout.width(), layout.height());
        if width < 3 || height < 3 {
            return None;
        }
        let looked = (1..height - 1).step_by(ROWS);
        let known = self.before.len() == looked.len() * width;
        self.before.resize(looked.len() * width, 0);
        let mut around = [(); 3].map(|()| vec![0; width]);
        let mut values = vec![0.0; width];
        let mut sums = [0; 5];
        for (y, before) in looked.clone().zip(self.before.chunks_mut(width)) {
            for (row, y) in around.iter_mut().zip(y - 1..) {
                luma(picture, y, &mut values, row);
            }
            let [above, here, below] = &around;
            let mut row = [0; 5];
            compare(above, here, below, before, &mut row);
            for (sum, row) in sums.iter_mut().zip(row) {
                *sum += u64::from(row);
            }
            before.copy_from_slice(here);
        }
        let samples = (looked.len() * (width - 2)) as f64;
        let mut seen = sums.map(|sum| sum as f64 / samples);
        // Of two directions.
        seen[0] /= 2.0;
        known.then_some(Seen(seen))
    }
}

/// A row of luma in code values of 8 bits.
fn luma(picture: &Planes<'_>, y: usize, values: &mut [f32], out: &mut [i16]) {
    let (layout, row) = (picture.layout(), picture.row(0, y));
    let shape = layout.shape(0);
    let unit = match shape.sample {
        Sample::Eight => 1.0,
        Sample::Ten(_) => 0.25,
    };
    if layout.is_rgb() {
        for (value, rgb) in values.iter_mut().zip(row.chunks_exact(3)) {
            let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(f32::from);
            *value = rows::luma(r, g, b);
        }
    } else {
        rows::load(shape.sample, shape.step(), row, values);
    }
    for (out, value) in out.iter_mut().zip(values) {
        *out = (*value * unit + 0.5) as i16;
    }
}

/// Adds up sizes of differences to the right and below, of the Laplacian and of the change, then how many of the last
/// two are zero.
#[inline(always)]
fn compare_body(above: &[i16], here: &[i16], below: &[i16], before: &[i16], sums: &mut [u32; 5]) {
    let inner = 1..here.len() - 1;
    let (above, below, before) = (
        &above[inner.clone()],
        &below[inner.clone()],
        &before[inner.clone()],
    );
    let (left, right, here) = (&here[..inner.end - 1], &here[2..], &here[inner]);
    for i in 0..here.len() {
        let laplacian = 4 * here[i] - left[i] - right[i] - above[i] - below[i];
        let change = here[i] - before[i];
        sums[0] += u32::from((right[i] - here[i]).unsigned_abs())
            + u32::from((below[i] - here[i]).unsigned_abs());
        sums[1] += u32::from(laplacian.unsigned_abs());
        sums[2] += u32::from(change.unsigned_abs());
        sums[3] += u32::from(laplacian == 0);
        sums[4] += u32::from(change == 0);
    }
}
with_avx2! { fn compare(above: &[i16], here: &[i16], below: &[i16], before: &[i16], sums: &mut [u32; 5]) = compare_body }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sr::{Format, Layout};

    /// 12×11 samples of a ramp with a step, moved by `shift`.
    fn picture(shift: usize) -> Vec<u8> {
        (0..11 * 12)
            .map(|i| {
                let (x, y) = (i % 12 + shift, i / 12);
                (20 + 5 * x + 2 * y + if x > 6 { 40 } else { 0 }) as u8
            })
            .collect()
    }

    fn planes<'a>(data: &'a [u8], format: Format, step: usize) -> Planes<'a> {
        let layout = Layout::new(format, 12, 11).unwrap();
        Planes::new(layout, &[data], &[12 * step]).unwrap()
    }

    #[test]
    fn pictures_are_seen_as_the_fit_saw_them() {
        let (first, second) = (picture(0), picture(1));
        let mut rater = Rater::default();
        assert_eq!(rater.look(&planes(&first, Format::Gray8, 1)), None);
        // From `look` of nnvtrain/sr/rate.py with the same pictures.
        let expected = [5.5, 8.0, 9.0, 0.8, 0.0];
        let Seen(seen) = rater.look(&planes(&second, Format::Gray8, 1)).unwrap();
        for (seen, expected) in seen.iter().zip(expected) {
            assert!((seen - expected).abs() < 1e-9, "{seen} {expected}");
        }
    }

    #[test]
    fn other_formats_are_seen_as_eight_bits() {
        fn look(format: Format, pictures: [Vec<u8>; 2], step: usize) -> Seen {
            let mut rater = Rater::default();
            let layout = Layout::new(format, 12, 11).unwrap();
            let chroma = [0; 6 * 6 * 2];
            let [_, seen] = pictures.map(|luma| {
                let data = [&luma[..], &chroma, &chroma];
                let planes = layout.planes();
                let strides = [12 * step, 12, 12];
                rater.look(&Planes::new(layout, &data[..planes], &strides[..planes]).unwrap())
            });
            seen.unwrap()
        }
        let gray = [picture(0), picture(1)];
        let wide = |f: fn(u8) -> Vec<u8>| {
            gray.each_ref()
                .map(|p| p.iter().copied().flat_map(f).collect())
        };
        let eight = look(Format::Gray8, gray.clone(), 1);
        let ten = wide(|v| (u16::from(v) << 2).to_le_bytes().to_vec());
        assert_eq!(look(Format::I42010Le, ten, 2), eight);
        let rgb = wide(|v| vec![v; 3]);
        assert_eq!(look(Format::Rgb, rgb, 3), eight);
    }

    #[test]
    fn more_bits_are_better_and_a_cut_is_not_judged() {
        let (first, second) = (picture(0), picture(1));
        let rate = |bits| {
            let mut rater = Rater::default();
            let gray = |data| planes(data, Format::Gray8, 1);
            assert_eq!(rater.rate(&gray(&first), Codec::H264, bits), None);
            rater.rate(&gray(&second), Codec::H264, bits).unwrap()
        };
        assert!(rate(0.1) > rate(0.01) + 5.0);
        assert!(rate(f64::MAX).is_finite() && rate(0.0).is_finite());

        let mut rater = Rater::default();
        let other: Vec<u8> = first.iter().map(|v| 255 - v).collect();
        let rated = [&first, &second, &other, &other, &first].map(|p| {
            rater
                .rate(&planes(p, Format::Gray8, 1), Codec::Av1, 0.1)
                .is_some()
        });
        assert_eq!(rated, [false, true, false, true, false]);
    }

    #[test]
    fn codecs_are_known_by_the_names_of_tags() {
        let codec = Codec::from_name;
        assert_eq!(codec("H.264 (High Profile)"), Some(Codec::H264));
        assert_eq!(codec("H.265 / HEVC"), Some(Codec::H265));
        assert_eq!(codec("AOM AV1"), Some(Codec::Av1));
        assert_eq!(codec("Motion JPEG"), None);
    }
}

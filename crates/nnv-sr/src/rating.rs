// SPDX-License-Identifier: MPL-2.0
//! With what quantizer decoded video was coded: read from the stream, or likely from its slices, or
//! from its bit rate and from what its pictures hold.
//!
//! The picture alone does not tell, nor does the rate: the same is plenty for a screen and little
//! for a crowd. A linear model of both, fitted to coded training clips by `python -m nnvtrain
//! sr-rate`, is wrong by five and a half steps where the picture alone is by seven.

use std::sync::Arc;

use super::layout::{Planes, Sample};
use super::rows;
use nnv_cpu::simd::with_avx2;
use nnv_h264::BlockQuantizers;

use super::source_quantizer::SourceQuantizer;

/// One row of so many is looked at.
const ROWS: usize = 4;
/// What stands beside zero in logarithms: bits per sample, code values.
const NO_BITS: f64 = 1e-3;
const NO_DETAIL: f64 = 0.05;
/// Pictures over which is averaged in the long run: bit rates are averages, too.
const MEMORY: f64 = 25.0;
/// A picture that differs from the one before by so many code values more than `CUT` times the
/// average begins a scene.
const CUT: f64 = 3.0;
const CUT_LEAST: f64 = 10.0;

/// What the quantizer is linear in: 1, the logarithms to base 2 of slope, curvature and change, the
/// shares of samples without curvature and without change; and the logarithm to base 2 of bits per
/// sample.
const BY_RATE: ([f64; 6], f64) = (
    [21.6016, 1.7474, -0.9803, 0.2080, -15.3906, -8.9312],
    -4.0747,
);
/// The mean quantizer of blocks is likely the first and so much of what slices say: encoders take
/// off what pays in later pictures. `sr-rate` fits it, too.
const BLOCKS: (f64, f64) = (3.63, 0.83);
/// Pictures with mean quantizers up to the first are left as they are, those from the second on are
/// repaired in full: fine quantizers leave nothing that a network could tell from the original. One
/// that is told those of blocks can tell more.
const FADE: (f64, f64) = (23.5, 28.5);
const FADE_TOLD: (f64, f64) = (20.0, 28.0);

const NEEDS: f64 = 4.0;

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

    /// Its name in tags.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
            Self::Av1 => "AV1",
        }
    }

    /// How far below the likely quantizer of H.264 that one lies which leaves as much as this does
    /// with the same bits.
    fn lead(self) -> f64 {
        match self {
            Self::H264 => 0.0,
            Self::H265 => 3.4568,
            Self::Av1 => 7.0404,
        }
    }
}

/// What is known of how a picture was coded.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// Bits that a luma sample of the stream takes on average.
    Bits(Codec, f64),
    /// The luma quantizer that a slice begins with, of H.264.
    Slice(i32),
    /// The luma quantizers of the blocks, of H.264.
    Blocks(Arc<BlockQuantizers>),
}

/// What is thought of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Rating {
    /// Of its blocks, or their likely mean since its scene began.
    pub quantizer: SourceQuantizer,
    /// How much of a repair it needs, 0 to 1.
    pub need: f32,
}

/// What of a picture says how many bits it takes: mean sizes of slope, curvature and change, shares
/// of samples without curvature and without change.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Seen([f64; 5]);

const CHANGE: usize = 2;

impl Seen {
    /// With 1 before them, what the quantizer is linear in.
    fn terms(self) -> [f64; 6] {
        let [slope, curvature, change, flat, still] = self.0;
        let log = |value: f64| (value + NO_DETAIL).log2();
        [1.0, log(slope), log(curvature), log(change), flat, still]
    }
}

fn dot(a: [f64; 6], b: [f64; 6]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// How much of a repair pictures with such a mean quantizer need: in steps, so that a held picture
/// is not repaired anew for each.
fn need(quantizer: f64, fade: (f64, f64)) -> f32 {
    let need = ((quantizer - fade.0) / (fade.1 - fade.0)).clamp(0.0, 1.0);
    ((need * NEEDS).round() / NEEDS) as f32
}

/// Looks at the pictures of a stream, one after the other.
#[derive(Debug, Default)]
pub struct Rater {
    /// Rows that were looked at in the picture before, one after the other.
    before: Vec<i16>,
    /// Averages since the scene began, and of how many pictures.
    seen: Seen,
    quantizer: f64,
    count: u32,
}

impl Rater {
    /// For another stream, or after a gap.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Looks at the next picture, and returns what is likely of it. Of the first picture of a scene
    /// a bit rate tells nothing, and of very small ones only their blocks do.
    ///
    /// `rated`: for a network that is told of it.
    pub fn rate(
        &mut self,
        picture: &Planes<'_>,
        evidence: &Evidence,
        rated: bool,
    ) -> Option<Rating> {
        if let Evidence::Blocks(blocks) = evidence {
            let fade = if rated { FADE_TOLD } else { FADE };
            return Some(Rating {
                quantizer: SourceQuantizer::Blocks(blocks.clone()),
                need: need(f64::from(blocks.mean()), fade),
            });
        }
        let (now, compared) = self.look(picture)?;
        let cut = self.count > 0 && now.0[CHANGE] > CUT * self.seen.0[CHANGE] + CUT_LEAST;
        let first = !compared || cut;
        if first {
            self.seen = now;
            self.count = 0;
        }
        let share = |count: u32| 1.0 / f64::from(count).min(MEMORY);
        if let Evidence::Slice(quantizer) = evidence {
            let share = share(self.count.saturating_add(1));
            self.quantizer += (f64::from(*quantizer) - self.quantizer) * share;
        }
        if !first {
            self.count = self.count.saturating_add(1);
            let share = share(self.count);
            for (average, now) in self.seen.0.iter_mut().zip(now.0) {
                *average += (now - *average) * share;
            }
        }
        let (likely, need) = match evidence {
            Evidence::Bits(..) if first => return None,
            Evidence::Bits(codec, bits) => {
                let (picture, weight) = BY_RATE;
                let of_bits = weight * (bits + NO_BITS).log2() - codec.lead();
                (dot(picture, self.seen.terms()) + of_bits, 1.0)
            }
            Evidence::Slice(_) | Evidence::Blocks(_) => {
                let likely = BLOCKS.0 + BLOCKS.1 * self.quantizer;
                (likely, need(likely, FADE))
            }
        };
        Some(Rating {
            quantizer: SourceQuantizer::Likely(likely as f32),
            need,
        })
    }

    /// What this picture holds, and whether there was one before to compare it with.
    fn look(&mut self, picture: &Planes<'_>) -> Option<(Seen, bool)> {
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
        Some((Seen(seen), known))
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

/// Adds up sizes of differences to the right and below, of the Laplacian and of the change, then
/// how many of the last two are zero.
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
with_avx2! {
    fn compare(
        above: &[i16],
        here: &[i16],
        below: &[i16],
        before: &[i16],
        sums: &mut [u32; 5],
    ) = compare_body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, Layout};

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
        assert!(!rater.look(&planes(&first, Format::Gray8, 1)).unwrap().1);
        // From `look` of nnvtrain/sr/rate.py with the same pictures.
        let expected = [5.5, 8.0, 9.0, 0.8, 0.0];
        let (Seen(seen), compared) = rater.look(&planes(&second, Format::Gray8, 1)).unwrap();
        assert!(compared);
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
            seen.unwrap().0
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
    fn more_bits_mean_finer_quantizers() {
        let (first, second) = (picture(0), picture(1));
        let rate = |evidence| {
            let mut rater = Rater::default();
            let gray = |data| planes(data, Format::Gray8, 1);
            let alone = rater.rate(&gray(&first), &evidence, false);
            (alone, rater.rate(&gray(&second), &evidence, false).unwrap())
        };
        let bits = |bits| rate(Evidence::Bits(Codec::H264, bits));
        assert_eq!(bits(0.1).0, None);
        let likely = |value| match bits(value).1.quantizer {
            SourceQuantizer::Likely(quantizer) => quantizer,
            other => panic!("{other:?}"),
        };
        assert!(likely(0.1) + 5.0 < likely(0.01));
        assert!(likely(f64::MAX).is_finite() && likely(0.0).is_finite());
        assert_eq!(bits(f64::MAX).1.need, 1.0);

        let slice = |quantizer| rate(Evidence::Slice(quantizer));
        let (fine, coarse) = (slice(20), slice(32));
        let of = |quantizer| {
            SourceQuantizer::Likely((BLOCKS.0 + BLOCKS.1 * f64::from(quantizer)) as f32)
        };
        assert_eq!(fine.1.quantizer, of(20));
        assert_eq!(coarse.0.unwrap().quantizer, of(32));
        assert_eq!((fine.1.need, coarse.1.need), (0.0, 1.0));
        for extreme in [i32::MIN, i32::MAX] {
            assert!(slice(extreme).1.quantizer.value().unwrap().is_finite());
        }

        for (mean, need) in [(10, 0.0), (40, 1.0)] {
            let values = vec![mean - 1, mean + 1];
            let blocks = Arc::new(BlockQuantizers::new(1, values).unwrap());
            let (first, second) = rate(Evidence::Blocks(blocks.clone()));
            let quantizer = SourceQuantizer::Blocks(blocks);
            assert_eq!(quantizer.value(), Some(f32::from(mean)));
            assert_eq!(first.unwrap(), Rating { quantizer, need });
            assert_eq!(second.need, need);
        }
        let blocks = Arc::new(BlockQuantizers::new(1, vec![24]).unwrap());
        let need = |rated| {
            let mut rater = Rater::default();
            let evidence = Evidence::Blocks(blocks.clone());
            let rating = rater.rate(&planes(&first, Format::Gray8, 1), &evidence, rated);
            rating.unwrap().need
        };
        assert_eq!([false, true].map(need), [0.0, 0.5]);
    }

    #[test]
    fn a_cut_begins_anew() {
        let (first, second) = (picture(0), picture(1));
        let other: Vec<u8> = first.iter().map(|v| 255 - v).collect();
        let rate = |evidence: fn(i32) -> Evidence| {
            let mut rater = Rater::default();
            [
                (&first, 20),
                (&second, 20),
                (&other, 40),
                (&other, 42),
                (&first, 20),
            ]
            .map(|(p, said)| rater.rate(&planes(p, Format::Gray8, 1), &evidence(said), true))
        };
        let by_bits = rate(|_| Evidence::Bits(Codec::Av1, 0.1));
        let rated = by_bits.map(|rating| rating.is_some());
        assert_eq!(rated, [false, true, false, true, false]);
        let by_slice = rate(Evidence::Slice);
        let other = planes(&other, Format::Gray8, 1);
        let alone = Rater::default().rate(&other, &Evidence::Slice(40), true);
        assert_eq!(by_slice[2], alone);
        assert_eq!(
            by_slice.map(|rating| rating.unwrap().need),
            [0.0, 0.0, 1.0, 1.0, 0.0]
        );
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

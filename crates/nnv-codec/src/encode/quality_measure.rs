// SPDX-License-Identifier: MPL-2.0
//! What coded frames are worth beside what came in, for quality control.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use nnv_bitstream::StreamInfo;
use nnv_format::picture::Picture;
use nnv_quality::{
    PlaneView, QualityError, SquaredError, Vmaf, VmafModel, decibels, ms_ssim, peak, ssim,
};

use super::planner::FrameClass;
use super::quality_control::BEST;
use crate::config::{ConfigError, QualityMetric};
use crate::error::CodecError;

/// A measure, with what it has to remember.
#[derive(Debug)]
pub enum Measure {
    /// PSNR in dB of the planes' errors, weighted (6 Y + U + V) / 8.
    Psnr,
    /// SSIM of luma.
    Ssim,
    /// MS-SSIM of luma, or SSIM where the picture is too small for it.
    MsSsim,
    /// VMAF, of a sample of the frames.
    Vmaf(Box<SampledVmaf>),
}

impl Measure {
    /// For pictures of a stream.
    ///
    /// # Errors
    /// [`CodecError::Vmaf`] without libvmaf, [`ConfigError::VmafSize`] where it does not take the
    /// pictures.
    pub fn new(metric: QualityMetric, info: &StreamInfo) -> Result<Self, CodecError> {
        Ok(match metric {
            QualityMetric::Psnr => Self::Psnr,
            QualityMetric::Ssim => Self::Ssim,
            QualityMetric::MsSsim => Self::MsSsim,
            QualityMetric::Vmaf => Self::Vmaf(Box::new(SampledVmaf::new(info)?)),
        })
    }

    /// Frame `index` came in.
    pub fn show(&mut self, index: u64, picture: &Arc<Picture>) {
        if let Self::Vmaf(vmaf) = self {
            vmaf.shown.insert(index, picture.clone());
        }
    }

    /// Frames before `first` are coded.
    pub fn forget(&mut self, first: u64) {
        if let Self::Vmaf(vmaf) = self {
            // The one before it is still its neighbour.
            let before = vmaf.shown.range(..first).next_back();
            if let Some(before) = before.map(|(index, _)| *index) {
                vmaf.shown = vmaf.shown.split_off(&before);
            }
        }
    }

    /// What came in is given up: another video follows.
    pub fn restart(&mut self) {
        if let Self::Vmaf(vmaf) = self {
            vmaf.shown.clear();
        }
    }

    /// What frame `index` is worth once it is coded, as users get both pictures in `bit_depth`.
    /// `None`: it is not measured.
    ///
    /// # Errors
    /// [`CodecError::Vmaf`] where libvmaf fails.
    pub fn of(
        &mut self,
        (index, class): (u64, FrameClass),
        bit_depth: u8,
        original: &Picture,
        coded: &Picture,
    ) -> Result<Option<f64>, CodecError> {
        let shown = |planes| [original, coded].map(|p| Shown::new(p, planes, bit_depth));
        let value = match self {
            Self::Psnr => psnr(&shown(3)).map(Some),
            Self::Ssim => ssim_of_luma(&shown(1)).map(Some),
            Self::MsSsim => ms_ssim_of_luma(&shown(1)).map(Some),
            Self::Vmaf(vmaf) => match vmaf.is_due(class) {
                true => vmaf.of(index, bit_depth, &shown(3)),
                false => Ok(None),
            },
        };
        value.map_err(|e| match e {
            QualityError::Vmaf(e) => e.into(),
            // Pictures of one size, and of the depths that there are, have all measures.
            e => CodecError::Internal(e.to_string()),
        })
    }
}

fn psnr([a, b]: &[Shown; 2]) -> Result<f64, QualityError> {
    let mut errors = [0.0; 3];
    for (plane, error) in errors.iter_mut().enumerate() {
        *error = SquaredError::of(a.plane(plane)?, b.plane(plane)?)?.mean();
    }
    let mean = (6.0 * errors[0] + errors[1] + errors[2]) / 8.0;
    Ok(decibels(mean, peak(a.depth)).min(BEST))
}

fn ssim_of_luma([a, b]: &[Shown; 2]) -> Result<f64, QualityError> {
    ssim(a.plane(0)?, b.plane(0)?)
}

fn ms_ssim_of_luma(shown: &[Shown; 2]) -> Result<f64, QualityError> {
    let [a, b] = shown;
    match ms_ssim(a.plane(0)?, b.plane(0)?)? {
        Some(found) => Ok(found.ms_ssim),
        None => ssim_of_luma(shown),
    }
}

/// Frames of which one is measured, of those that others follow and of those between. Neither
/// has a divisor in common with the patterns of levels that are usual, so that each place of a
/// pattern has its turn.
const OUTER: u32 = 5;
const INNER: u32 = 8;

/// VMAF by libvmaf, of some frames: to measure all would take too long beside their coding.
///
/// A frame is measured by itself. Of its neighbours VMAF wants the motion, which is of what came
/// in; so they need not be coded.
#[derive(Debug)]
pub struct SampledVmaf {
    model: VmafModel,
    /// What came in, from the frame before the earliest that is not coded on.
    shown: BTreeMap<u64, Arc<Picture>>,
    /// Classes of which a frame was measured.
    known: HashSet<FrameClass>,
    /// Frames since the last that was measured: of those that others follow, and between.
    since: [u32; 2],
}

impl SampledVmaf {
    fn new(info: &StreamInfo) -> Result<Self, CodecError> {
        let model = VmafModel::new(Vmaf::DEFAULT_MODEL)?;
        let least = model.smallest_side();
        if info.width.min(info.height) < least {
            let (width, height) = (info.width, info.height);
            return Err(ConfigError::VmafSize {
                width,
                height,
                least,
            }
            .into());
        }
        Ok(Self {
            model,
            shown: BTreeMap::new(),
            known: HashSet::new(),
            since: [0; 2],
        })
    }

    /// Whether the next coded frame is one that is measured.
    fn is_due(&mut self, class: FrameClass) -> bool {
        let inner = class.is_inner();
        self.since[0] += 1;
        self.since[1] += u32::from(inner);
        let each = if inner { INNER } else { OUTER };
        let since = &mut self.since[usize::from(inner)];
        let due = self.known.insert(class) || *since >= each;
        if due {
            *since = 0;
        }
        due
    }

    fn of(
        &self,
        index: u64,
        bit_depth: u8,
        [original, coded]: &[Shown; 2],
    ) -> Result<Option<f64>, QualityError> {
        let around = [
            self.shown.range(..index).next_back(),
            self.shown.range(index + 1..).next(),
        ];
        let around = around.map(|p| p.map(|(_, picture)| Shown::new(picture, 3, bit_depth)));
        let [before, after] = around.each_ref().map(|s| s.as_ref().map(Shown::views));
        let (before, after) = (before.transpose()?, after.transpose()?);
        // The first frame of a video has no motion, which costs it some ten points. It is measured
        // as one in the midst, since others are told by it.
        let before = before.or(after);
        let (a, b) = (original.views()?, coded.views()?);
        let score = self.model.frame(before.as_ref(), &a, &b, after.as_ref());
        Ok(score?)
    }
}

/// Planes of a picture as they are shown.
struct Shown {
    planes: Vec<(Samples, usize, usize)>,
    depth: u8,
}

enum Samples {
    Bytes(Vec<u8>),
    Words(Vec<u16>),
}

impl Shown {
    /// The first `planes` of a picture, as users get it in `bit_depth`.
    fn new(picture: &Picture, planes: usize, bit_depth: u8) -> Self {
        let depth = if bit_depth == 8 { 8 } else { 10 };
        let samples = |plane: usize| {
            let plane = picture.plane(plane);
            let (w, h) = (plane.visible_width(), plane.visible_height());
            let rows = (0..h).map(|y| &plane.row(y)[..w]);
            // Row by row: of an iterator over all samples the compiler makes no vector code.
            let samples = if depth == 8 {
                let mut bytes = Vec::with_capacity(w * h);
                let byte = |v: &u16| ((v + 2) >> 2).min(255) as u8;
                rows.for_each(|row| bytes.extend(row.iter().map(byte)));
                Samples::Bytes(bytes)
            } else {
                let mut words = Vec::with_capacity(w * h);
                rows.for_each(|row| words.extend_from_slice(row));
                Samples::Words(words)
            };
            (samples, w, h)
        };
        Self {
            planes: (0..planes).map(samples).collect(),
            depth,
        }
    }

    fn plane(&self, plane: usize) -> Result<PlaneView<'_>, QualityError> {
        let (samples, w, h) = &self.planes[plane];
        match samples {
            Samples::Bytes(bytes) => PlaneView::u8(bytes, *w, *h, *w),
            Samples::Words(words) => PlaneView::u16(words, *w, *h, *w, self.depth),
        }
    }

    /// All three.
    fn views(&self) -> Result<[PlaneView<'_>; 3], QualityError> {
        Ok([self.plane(0)?, self.plane(1)?, self.plane(2)?])
    }
}

#[cfg(test)]
mod tests {
    use super::Measure::{Psnr, Ssim};
    use super::*;

    fn compare(mut measure: Measure, depth: u8, a: &Picture, b: &Picture) -> f64 {
        let frame = (0, FrameClass::Key);
        measure.of(frame, depth, a, b).unwrap().unwrap()
    }

    #[test]
    fn measured_as_shown() {
        let mut a = Picture::new(16, 16).unwrap();
        let mut b = Picture::new(16, 16).unwrap();
        for (picture, value) in [(&mut a, 400), (&mut b, 401)] {
            for plane in picture.planes_mut() {
                for y in 0..plane.visible_height() {
                    plane.row_mut(y).fill(value);
                }
            }
        }
        // A quarter of a code of 8 bits rounds away, in 10 bits it does not.
        assert_eq!(compare(Psnr, 8, &a, &b), BEST);
        let db = compare(Psnr, 10, &a, &b);
        assert!((db - 20.0 * 1023_f64.log10()).abs() < 1e-9);
        assert_eq!(compare(Ssim, 8, &a, &b), 1.0);
    }

    /// Without libvmaf that is an error that says what to do; small pictures are refused.
    #[test]
    fn vmaf_wants_its_library_and_pictures_that_are_large_enough() {
        let info = |side| StreamInfo::new(side, side, 8);
        match Measure::new(QualityMetric::Vmaf, &info(64)) {
            Ok(mut measure) => {
                let picture = Arc::new(Picture::new(64, 64).unwrap());
                (0..4).for_each(|index| measure.show(index, &picture));
                let mut of = |index, class| {
                    let value = measure.of((index, class), 8, &picture, &picture);
                    value.unwrap()
                };
                // The first of each class is measured, then some.
                assert!(of(0, FrameClass::Key).unwrap() > 90.0);
                assert!(of(1, FrameClass::LowDelay(0)).is_some());
                assert_eq!(of(2, FrameClass::LowDelay(0)), None);
                measure.forget(3);
                let Measure::Vmaf(vmaf) = &measure else {
                    panic!("{measure:?}")
                };
                assert_eq!(vmaf.shown.keys().copied().collect::<Vec<_>>(), [2, 3]);
                let error = Measure::new(QualityMetric::Vmaf, &info(32)).unwrap_err();
                assert!(error.to_string().contains("33x33"), "{error}");
            }
            Err(e) => {
                eprintln!("NOT RUN: {e}");
                assert!(std::env::var_os("NNV_VMAF_LIBRARY").is_none(), "{e}");
                let text = e.to_string();
                assert!(
                    text.contains("NNV_VMAF_LIBRARY") && text.contains("psnr"),
                    "{text}"
                );
            }
        }
    }
}

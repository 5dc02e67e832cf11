// SPDX-License-Identifier: MPL-2.0
//! Planes of raw video, whatever its layout in memory.

use std::borrow::Cow;

use gst_video::prelude::*;
use nnv_bitstream::limits::MAX_SIDE;
use nnv_quality::{Colour, PlaneView, QualityError, SquaredError};

/// Raw formats: all of luma and chroma with 8 or 10 bits that GStreamer has in common use.
const FORMATS: [gst_video::VideoFormat; 16] = [
    gst_video::VideoFormat::I420,
    gst_video::VideoFormat::Nv12,
    gst_video::VideoFormat::I42010le,
    gst_video::VideoFormat::P01010le,
    gst_video::VideoFormat::Yv12,
    gst_video::VideoFormat::Nv21,
    gst_video::VideoFormat::Y42b,
    gst_video::VideoFormat::Nv16,
    gst_video::VideoFormat::Yuy2,
    gst_video::VideoFormat::Uyvy,
    gst_video::VideoFormat::I42210le,
    gst_video::VideoFormat::Y444,
    gst_video::VideoFormat::Nv24,
    gst_video::VideoFormat::Vuya,
    gst_video::VideoFormat::Ayuv,
    gst_video::VideoFormat::Y44410le,
];

/// Template caps of either pad.
pub fn caps() -> gst::Caps {
    let side = MAX_SIDE as i32;
    gst_video::VideoCapsBuilder::new()
        .format_list(FORMATS)
        .width_range(1..=side)
        .height_range(1..=side)
        .build()
}

/// What its caps say of the samples' meaning.
pub fn colour(info: &gst_video::VideoInfo) -> Colour {
    let c = info.colorimetry();
    let code = |value: u32| u8::try_from(value).unwrap_or(2);
    Colour {
        primaries: code(c.primaries().to_iso()),
        transfer: code(c.transfer().to_iso()),
        matrix: code(c.matrix().to_iso()),
        full_range: c.range() == gst_video::VideoColorRange::Range0_255,
    }
}

/// A buffer and how it is laid out.
#[derive(Clone, Debug)]
pub struct Raw {
    pub buffer: gst::Buffer,
    pub info: gst_video::VideoInfo,
}

/// Samples of a component.
enum Samples<'a> {
    Bytes(Cow<'a, [u8]>, usize),
    Words(Vec<u16>),
}

/// Y, U and V of a picture.
pub struct Planes<'a> {
    samples: [Samples<'a>; 3],
    sizes: [(usize, usize); 3],
    bit_depth: u8,
}

impl Planes<'_> {
    /// Borrowed planes.
    pub fn views(&self) -> Result<[PlaneView<'_>; 3], QualityError> {
        let view = |i: usize| {
            let (w, h) = self.sizes[i];
            match &self.samples[i] {
                Samples::Bytes(bytes, stride) => PlaneView::u8(bytes, w, h, *stride),
                Samples::Words(words) => PlaneView::u16(words, w, h, w, self.bit_depth),
            }
        };
        Ok([view(0)?, view(1)?, view(2)?])
    }
}

impl Raw {
    /// Hands the picture's planes to `look`; `None` where the buffer is too small for its caps.
    pub fn with_planes<T>(&self, look: impl FnOnce(&Planes<'_>) -> T) -> Option<T> {
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&self.buffer, &self.info);
        let frame = frame.ok()?;
        let bit_depth = u8::try_from(frame.comp_depth(0)).ok()?;
        let mut sizes = [(0, 0); 3];
        let mut samples = [const { Samples::Words(Vec::new()) }; 3];
        for (c, (size, samples)) in (0_u32..).zip(sizes.iter_mut().zip(&mut samples)) {
            let (w, h) = (frame.comp_width(c) as usize, frame.comp_height(c) as usize);
            let apart = usize::try_from(frame.comp_pstride(c)).ok()?;
            let stride = usize::try_from(frame.comp_stride(c)).ok();
            let stride = stride.filter(|stride| *stride > 0)?;
            let plane = frame.plane_data(frame.comp_plane(c)).ok()?;
            let wide = if bit_depth > 8 { 2 } else { 1 };
            // GStreamer 1.22 counts the offset of V in P010 in samples, not in bytes.
            let offset = frame.comp_poffset(c) as usize;
            let data = plane.get(offset.next_multiple_of(wide)..)?;
            let needed = (h.checked_sub(1)? * stride).checked_add((w - 1) * apart + wide)?;
            let data = data.get(..needed)?;
            *size = (w, h);
            let rows = data.chunks(stride).take(h);
            *samples = match (wide, apart) {
                (1, 1) => Samples::Bytes(Cow::Borrowed(data), stride),
                (1, _) => {
                    let bytes = rows.flat_map(|row| row.iter().step_by(apart).take(w).copied());
                    Samples::Bytes(Cow::Owned(bytes.collect()), w)
                }
                _ => {
                    let shift = self.info.format_info().shift()[c as usize];
                    let word = move |b: &[u8]| match *b {
                        [low, high, ..] => u16::from_le_bytes([low, high]) >> shift,
                        _ => 0,
                    };
                    let words = rows.flat_map(|row| row.chunks(apart).take(w).map(word));
                    Samples::Words(words.collect())
                }
            };
        }
        Some(look(&Planes {
            samples,
            sizes,
            bit_depth,
        }))
    }

    /// That this picture is sample for sample `other`.
    pub fn is_same(&self, other: &Raw) -> bool {
        if self.info != other.info {
            return false;
        }
        let equal = self.with_planes(|a| {
            other.with_planes(|b| -> Result<bool, QualityError> {
                let (a, b) = (a.views()?, b.views()?);
                for (a, b) in a.into_iter().zip(b) {
                    if SquaredError::of(a, b)?.sum != 0 {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
        });
        matches!(equal, Some(Some(Ok(true))))
    }
}

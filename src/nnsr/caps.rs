// SPDX-License-Identifier: MPL-2.0
//! Caps on both sides: which sizes belong together, and what the samples of a format mean.

use gst::glib;
use gst::prelude::*;

use nnv_nn::MAX_SCALE;
use nnv_sr::{Format, Layout, LayoutError, MAX_SIZE};

/// Raw formats, most usual first.
const FORMATS: [(gst_video::VideoFormat, Format); 7] = [
    (gst_video::VideoFormat::I420, Format::I420),
    (gst_video::VideoFormat::Nv12, Format::Nv12),
    (gst_video::VideoFormat::I42010le, Format::I42010Le),
    (gst_video::VideoFormat::P01010le, Format::P01010Le),
    (gst_video::VideoFormat::Y444, Format::Y444),
    (gst_video::VideoFormat::Rgb, Format::Rgb),
    (gst_video::VideoFormat::Gray8, Format::Gray8),
];

/// Template caps of pictures up to a size.
fn template(largest: usize) -> gst::Caps {
    gst_video::VideoCapsBuilder::new()
        .format_list(FORMATS.map(|(format, _)| format))
        .width_range(1..=largest as i32)
        .height_range(1..=largest as i32)
        .build()
}

/// What comes in.
pub fn sink_template() -> gst::Caps {
    template(MAX_SIZE)
}

/// What goes out.
pub fn src_template() -> gst::Caps {
    template(MAX_SIZE * MAX_SCALE)
}

/// The layout of pictures that caps describe, before scaling.
pub fn layout(info: &gst_video::VideoInfo) -> Option<Result<Layout, LayoutError>> {
    let (_, format) = FORMATS.iter().find(|(f, _)| *f == info.format())?;
    let site = info.chroma_site();
    let layout = Layout::new(*format, info.width() as usize, info.height() as usize);
    Some(layout.map(|mut layout| {
        // What is not known is limited, as in nearly all video.
        layout.full_range = info.colorimetry().range() == gst_video::VideoColorRange::Range0_255;
        layout.cosited_columns = site.contains(gst_video::VideoChromaSite::H_COSITED);
        layout.cosited_rows = site.contains(gst_video::VideoChromaSite::V_COSITED);
        layout
    }))
}

/// Lengths `min`, `min + step`, ... up to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lengths {
    min: i32,
    max: i32,
    step: i32,
}

const LARGEST: i32 = MAX_SIZE as i32;

impl Lengths {
    /// `scale` times as long, where they may come in.
    fn larger(self, scale: i32) -> Option<Self> {
        let max = self.max.min(LARGEST);
        (self.min <= max).then(|| Self {
            min: self.min.max(1) * scale,
            // The last one that is reached.
            max: (max - (max - self.min) % self.step) * scale,
            step: self.step * scale,
        })
    }

    /// A `scale`-th as long, where that comes out even. Of ranges with a step of their own, a few
    /// lengths too many: what is agreed on in the end is one length, and exact.
    fn smaller(self, scale: i32) -> Option<Self> {
        // Rounded up.
        let min = (self.min.max(1) - 1) / scale + 1;
        let max = (self.max / scale).min(LARGEST);
        (min <= max).then_some(Self { min, max, step: 1 })
    }

    fn to_value(self) -> glib::SendValue {
        let Self { min, max, step } = self;
        if min == max {
            min.to_send_value()
        } else if step == 1 {
            gst::IntRange::new(min, max).to_send_value()
        } else {
            gst::IntRange::with_step(min, max, step).to_send_value()
        }
    }
}

/// The lengths that a field allows.
fn lengths(value: &glib::Value) -> Vec<Lengths> {
    if let Ok(length) = value.get::<i32>() {
        vec![Lengths {
            min: length,
            max: length,
            step: 1,
        }]
    } else if let Ok(range) = value.get::<gst::IntRange<i32>>() {
        vec![Lengths {
            min: range.min(),
            max: range.max(),
            step: range.step(),
        }]
    } else if let Ok(list) = value.get::<gst::ListRef>() {
        list.iter().flat_map(|value| lengths(value)).collect()
    } else {
        Vec::new()
    }
}

/// A field on the other side; `None` where no length remains.
fn other_side(
    structure: &gst::StructureRef,
    field: &str,
    scale: usize,
    direction: gst::PadDirection,
) -> Option<glib::SendValue> {
    let any = Lengths {
        min: 1,
        max: LARGEST * MAX_SCALE as i32,
        step: 1,
    };
    let here = structure
        .value(field)
        .map_or_else(|_| vec![any], |value| lengths(value));
    let scale = scale as i32;
    let mut there: Vec<glib::SendValue> = here
        .into_iter()
        .filter_map(|lengths| match direction {
            gst::PadDirection::Src => lengths.smaller(scale),
            _ => lengths.larger(scale),
        })
        .map(Lengths::to_value)
        .collect();
    match there.len() {
        0 => None,
        1 => there.pop(),
        _ => Some(gst::List::new(there).to_send_value()),
    }
}

/// Caps of the other side for caps of the pad in `direction`, with the preferred scale first.
/// Everything but the size stays.
pub fn transform(direction: gst::PadDirection, caps: &gst::CapsRef, scales: &[usize]) -> gst::Caps {
    let mut other = gst::Caps::new_empty();
    for &scale in scales {
        for (structure, features) in caps.iter_with_features() {
            let length = |field| other_side(structure, field, scale, direction);
            if let (Some(width), Some(height)) = (length("width"), length("height")) {
                let mut structure = structure.to_owned();
                structure.set_value("width", width);
                structure.set_value("height", height);
                other.merge_structure_full(structure, Some(features.to_owned()));
            }
        }
    }
    other
}

/// Takes the first scale of the list that `other` allows for the fixed size in `caps`.
pub fn fixate(
    direction: gst::PadDirection,
    caps: &gst::CapsRef,
    other: &gst::CapsRef,
    scales: &[usize],
) -> Option<gst::Caps> {
    let structure = caps.structure(0)?;
    let size = |field| structure.get::<i32>(field).ok();
    let (width, height) = (size("width")?, size("height")?);
    for &scale in scales {
        let wanted = |length: i32| {
            let lengths = Lengths {
                min: length,
                max: length,
                step: 1,
            };
            let there = match direction {
                gst::PadDirection::Src => lengths.smaller(scale as i32)?,
                _ => lengths.larger(scale as i32)?,
            };
            Some(there.min)
        };
        let (Some(width), Some(height)) = (wanted(width), wanted(height)) else {
            continue;
        };
        for (structure, features) in other.iter_with_features() {
            let mut structure = structure.to_owned();
            structure.fixate_field_nearest_int("width", width);
            structure.fixate_field_nearest_int("height", height);
            if structure.get("width") == Ok(width) && structure.get("height") == Ok(height) {
                structure.fixate();
                let mut fixed = gst::Caps::new_empty();
                fixed
                    .make_mut()
                    .append_structure_full(structure, Some(features.to_owned()));
                return Some(fixed);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(text: &str) -> gst::Caps {
        gst::init().unwrap();
        format!("video/x-raw, format=I420, {text}, framerate=25/1")
            .parse()
            .unwrap()
    }

    #[track_caller]
    fn check(direction: gst::PadDirection, from: &str, scales: &[usize], to: &[&str]) {
        let got = transform(direction, &caps(from), scales);
        let mut expected = gst::Caps::new_empty();
        to.iter()
            .for_each(|to| expected.make_mut().append(caps(to)));
        assert!(got.is_strictly_equal(&expected), "{got}\n{expected}");
    }

    #[test]
    fn sizes_follow_the_scale_both_ways() {
        let (sink, src) = (gst::PadDirection::Sink, gst::PadDirection::Src);
        check(
            sink,
            "width=640, height=360",
            &[2, 1],
            &["width=1280, height=720", "width=640, height=360"],
        );
        check(
            src,
            "width=1280, height=720",
            &[2, 3, 4],
            &["width=640, height=360", "width=320, height=180"],
        );
        check(src, "width=641, height=360", &[2], &[]);
        check(sink, "width=8193, height=1", &[1], &[]);
        check(
            src,
            "width=[1, 32768], height=[5, 99]",
            &[4],
            &["width=[1, 8192], height=[2, 24]"],
        );
        check(
            sink,
            "width=[1, 8192], height={ 10, 20 }",
            &[3],
            &["width=[3, 24576, 3], height={ 30, 60 }"],
        );
        check(
            sink,
            "width=[4, 9000, 4], height=1",
            &[2],
            &["width=[8, 16384, 8], height=2"],
        );
        check(src, "width=[1, 3], height=[4, 7]", &[4], &[]);
    }

    #[test]
    fn the_first_scale_that_fits_is_taken() {
        let fixed = fixate(
            gst::PadDirection::Sink,
            &caps("width=640, height=360"),
            &caps("width=[1, 2000], height=[1, 1000]"),
            &[4, 2, 1],
        )
        .unwrap();
        assert!(fixed.is_strictly_equal(&caps("width=1280, height=720")));
        let none = fixate(
            gst::PadDirection::Src,
            &caps("width=641, height=360"),
            &caps("width=[1, 2000], height=[1, 1000]"),
            &[2],
        );
        assert_eq!(none, None);
    }
}

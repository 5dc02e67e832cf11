// SPDX-License-Identifier: MPL-2.0
//! `nnsr analysis=…`: draws over pictures what the network changed in them and how sure it is, and
//! attaches the numbers.
//!
//! The numbers are a `GstCustomMeta` called [`NAME`]; docs/analysis.md has its fields.

use std::sync::LazyLock;

use gst::glib;

use nnv_sr::Change;

use crate::common::overlay::{self, Canvas};

/// Of the metadata.
pub const NAME: &str = "GstNnSrAnalysisMeta";

static REGISTERED: LazyLock<()> =
    LazyLock::new(|| gst::meta::CustomMeta::register(NAME, &["video", "size"]));

/// What is drawn.
#[glib::flags(name = "GstNnSrAnalysis")]
pub enum Analysis {
    #[flags_value(
        name = "Luma that the network changed against the plain kernel, four times, on grey, in \
                place of the picture",
        nick = "change"
    )]
    CHANGE = 1 << 0,
    #[flags_value(
        name = "Where the turns of self-ensemble (2 or more) differ, from blue to yellow",
        nick = "spread"
    )]
    SPREAD = 1 << 1,
}

impl Default for Analysis {
    fn default() -> Self {
        Self::empty()
    }
}

/// How much larger changes are drawn.
const GAIN: f32 = 4.0;
/// Spread in 8-bit samples that has the last colour.
const UNSURE: f32 = 6.0;
/// Less is not drawn: it is below what a picture of 8 bits can show.
const SURE: f32 = 0.5;
/// Side of a place in luma samples.
const PLACE: usize = 16;

/// Luma samples on their canvas.
impl Canvas {
    fn change(&mut self, luma: &[f32]) {
        self.each(luma, |value| {
            let grey = (128.0 + GAIN * value).round() as u8;
            Some(([grey; 3], 255))
        });
    }

    fn spread(&mut self, spread: &[f32]) {
        self.each(spread, |value| {
            let share = ((value - SURE) / (UNSURE - SURE)).min(1.0);
            (share > 0.0).then(|| (overlay::heat(share), (110.0 + 120.0 * share) as u8))
        });
    }

    fn each(&mut self, samples: &[f32], f: impl Fn(f32) -> Option<(overlay::Colour, u8)>) {
        for (y, row) in samples.chunks(self.width as usize).enumerate() {
            for (x, &value) in row.iter().enumerate() {
                if let Some((colour, opacity)) = f(value) {
                    self.set(x as i32, y as i32, colour, opacity);
                }
            }
        }
    }
}

/// Draws over the picture in `buffer` what was asked for, and attaches the numbers.
///
/// `overlay`: whether downstream draws overlays by itself.
///
/// # Errors
/// What cannot be drawn, and why.
pub fn attach(
    buffer: &mut gst::BufferRef,
    info: &gst_video::VideoInfo,
    change: &Change,
    analysis: Analysis,
    overlay: bool,
) -> Result<(), String> {
    note(buffer, info, change);
    let mut canvas = Canvas::new((info.width(), info.height()), (0, 0));
    if analysis.contains(Analysis::CHANGE) {
        canvas.change(&change.luma);
    }
    if let (true, Some(spread)) = (analysis.contains(Analysis::SPREAD), &change.spread) {
        canvas.spread(spread);
    }
    canvas.put(buffer, info, overlay)
}

/// Means over places, row after row.
fn means(samples: &[f32], width: usize, f: impl Fn(f32) -> f32) -> Vec<f32> {
    let rows = samples.chunks(PLACE * width);
    rows.flat_map(|rows| {
        (0..width)
            .step_by(PLACE)
            .map(|x| {
                let wide = PLACE.min(width - x);
                let parts = rows.chunks(width).flat_map(|row| &row[x..x + wide]);
                let count = wide * rows.len() / width;
                parts.map(|&v| f(v)).sum::<f32>() / count as f32
            })
            .collect::<Vec<_>>()
    })
    .collect()
}

fn note(buffer: &mut gst::BufferRef, info: &gst_video::VideoInfo, change: &Change) {
    LazyLock::force(&REGISTERED);
    let Ok(mut meta) = gst::meta::CustomMeta::add(buffer, NAME) else {
        return;
    };
    let width = info.width() as usize;
    let places = |means: Vec<f32>| {
        let parts = means.into_iter().map(|v| (256.0 * v).round() as u16);
        gst::Buffer::from_slice(parts.flat_map(u16::to_le_bytes).collect::<Vec<u8>>())
    };
    let structure = meta.mut_structure();
    structure.set("columns", info.width().div_ceil(PLACE as u32));
    structure.set("rows", info.height().div_ceil(PLACE as u32));
    structure.set("change", places(means(&change.luma, width, f32::abs)));
    if let Some(spread) = &change.spread {
        structure.set("spread", places(means(spread, width, |v| v)));
    }
}

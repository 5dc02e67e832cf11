// SPDX-License-Identifier: MPL-2.0
//! `nnvdec analysis=…`: draws over pictures what they are made of, and attaches the numbers.
//!
//! The numbers are a `GstCustomMeta` called [`NAME`]; docs/analysis.md has its fields.

use std::sync::LazyLock;

use gst::glib;

use nnv_bitstream::FrameType;
use nnv_codec::decode::{Analysis as Frame, DecodedFrame, Wanted};
use nnv_format::motion::Mode;
use nnv_format::picture::Picture;
use nnv_format::quantizer_map::MAP_UNIT;

use crate::common;
use crate::common::overlay::{self, Canvas, Colour};

/// Of the metadata.
pub const NAME: &str = "GstNnvAnalysisMeta";

static REGISTERED: LazyLock<()> =
    LazyLock::new(|| gst::meta::CustomMeta::register(NAME, &["video", "size"]));

/// What is drawn.
#[glib::flags(name = "GstNnvDecAnalysis")]
pub enum Analysis {
    #[flags_value(
        name = "Vectors, four times as long: blue from the first reference, \
                          orange from the second, green from both",
        nick = "motion"
    )]
    MOTION = 1 << 0,
    #[flags_value(
        name = "Bits by place of 16x16 samples, from blue to yellow",
        nick = "bits"
    )]
    BITS = 1 << 1,
    #[flags_value(
        name = "Quantizers by place: blue finer than the frame's, orange coarser",
        nick = "quantizers"
    )]
    QUANTIZERS = 1 << 2,
    #[flags_value(
        name = "A strip at the bottom: the frame in the middle, the distances of its \
                          references beside it; key frames fill it",
        nick = "references"
    )]
    REFERENCES = 1 << 3,
    #[flags_value(name = "Ink (yellow) and paper (pink)", nick = "ink")]
    INK = 1 << 4,
    #[flags_value(
        name = "What the network added to the prediction, twice, in place of the \
                          picture",
        nick = "residual"
    )]
    RESIDUAL = 1 << 5,
}

impl Default for Analysis {
    fn default() -> Self {
        Self::empty()
    }
}

impl Analysis {
    /// What the decoder has to keep for it; `None` where nothing is drawn.
    pub fn wanted(self) -> Option<Wanted> {
        (!self.is_empty()).then_some(Wanted {
            prediction: self.contains(Self::RESIDUAL),
            bits: self.contains(Self::BITS),
        })
    }
}

// Okabe and Ito's colours, which everybody can tell apart: red, green, blue.
const SKY: Colour = [86, 180, 233];
const BLUE: Colour = [0, 114, 178];
const ORANGE: Colour = [230, 159, 0];
const GREEN: Colour = [0, 158, 115];
const YELLOW: Colour = [240, 228, 66];
const PINK: Colour = [204, 121, 167];
/// Bits of a place that have the last colour.
const MANY_BITS: f32 = 400.0;
/// Vectors are drawn so many times as long, from quarter samples.
const PER_QUARTER: i32 = 1;
/// Height of the strip of references, and samples in it from frame to frame.
const STRIP: i32 = 12;
const PER_FRAME: i32 = 8;
/// Side of a place and of a cell in luma samples.
const PLACE: usize = 16;
const CELL: usize = 8;

/// Drawing goes by samples of the coded picture.
impl Canvas {
    fn residual(&mut self, prediction: &Picture, picture: &Picture) {
        let (left, top) = (self.left as usize, self.top as usize);
        for y in top..top + self.height as usize {
            let (before, after) = (prediction.luma().row(y), picture.luma().row(y));
            for x in left..left + self.width as usize {
                // Samples of 10 bit: twice a quarter of the difference.
                let d = (i32::from(after[x]) - i32::from(before[x])) / 2;
                let v = (128 + d).clamp(0, 255) as u8;
                self.set(x as i32, y as i32, [v; 3], 255);
            }
        }
    }

    fn bits(&mut self, frame: &Frame, columns: usize) {
        for (at, bits) in bits_of(frame).enumerate() {
            let share = (bits as f32 / 256.0 / MANY_BITS).min(1.0).sqrt();
            let colour = overlay::heat(share);
            let opacity = (90.0 + 120.0 * share) as u8;
            self.fill(
                at % columns * PLACE,
                at / columns * PLACE,
                PLACE,
                colour,
                opacity,
            );
        }
    }

    fn quantizers(&mut self, frame: &Frame, columns: usize) {
        for (at, &value) in frame.map.iter().flat_map(|map| map.values()).enumerate() {
            let colour = match value {
                0 => continue,
                ..0 => BLUE,
                1.. => ORANGE,
            };
            let opacity = 45 * value.unsigned_abs().min(4);
            self.fill(
                at % columns * PLACE,
                at / columns * PLACE,
                PLACE,
                colour,
                opacity,
            );
        }
    }

    fn ink(&mut self, frame: &Frame) {
        let Some(ink) = &frame.ink else {
            return;
        };
        for (x, y, _) in ink.cells().papered() {
            self.fill(x * CELL, y * CELL, CELL, PINK, 110);
        }
        for (x, y, ..) in ink.cells().inked() {
            self.fill(x * CELL, y * CELL, CELL, YELLOW, 110);
        }
    }

    fn motion(&mut self, frame: &Frame) {
        let Some(field) = &frame.field else {
            return;
        };
        for by in 0..field.rows() / 2 {
            for bx in 0..field.columns() / 2 {
                let block = field.block(bx, by);
                let whole = block.iter().all(|leaf| *leaf == block[0]);
                for (n, leaf) in block.iter().enumerate().take(if whole { 1 } else { 4 }) {
                    let (x, y) = match whole {
                        true => (PLACE * bx + CELL, PLACE * by + CELL),
                        false => (
                            PLACE * bx + CELL * (n % 2) + CELL / 2,
                            PLACE * by + CELL * (n / 2) + CELL / 2,
                        ),
                    };
                    let colour = match leaf.mode() {
                        Mode::Ref0 => SKY,
                        Mode::Ref1 => ORANGE,
                        Mode::Bi => GREEN,
                    };
                    for i in (0..2).filter(|&i| leaf.mode().uses(i)) {
                        let mv = leaf.mv(i);
                        let to = [mv.x, mv.y].map(|v| i32::from(v) * PER_QUARTER);
                        self.arrow((x as i32, y as i32), (to[0], to[1]), colour);
                    }
                }
            }
        }
    }

    fn references(&mut self, frame: &Frame) {
        let (left, top) = (self.left, self.top + self.height - STRIP);
        let key = frame.header.is_key();
        for y in top..top + STRIP {
            for x in left..left + self.width {
                self.set(x, y, if key { PINK } else { [0; 3] }, 200);
            }
        }
        let middle = left + self.width / 2;
        let mut mark = |distance: i64, colour| {
            let x = i64::from(middle) + distance * i64::from(PER_FRAME);
            let x = x.clamp(left.into(), (left + self.width - 1).into()) as i32;
            for y in top + 2..top + STRIP - 2 {
                for dx in -2..=2 {
                    self.set(x + dx, y, colour, 255);
                }
            }
        };
        mark(0, [255; 3]);
        for (poc, colour) in [(frame.header.ref0, SKY), (frame.header.ref1, ORANGE)] {
            if let Some(poc) = poc {
                mark(i64::from(poc) - i64::from(frame.header.poc), colour);
            }
        }
    }
}

/// Bits by place, in 1/256.
fn bits_of(frame: &Frame) -> impl Iterator<Item = u64> {
    let latent = frame.latent_bits.iter().flat_map(|bits| &bits.by_place);
    let motion = frame.motion_bits.iter().chain(std::iter::repeat(&0));
    latent.zip(motion).map(|(a, b)| a + b)
}

/// Draws over the picture in `buffer` what was asked for, and attaches the numbers.
///
/// `overlay`: whether downstream draws overlays by itself. Frames that were not decoded stay as
/// they are.
///
/// # Errors
/// What cannot be drawn, and why.
pub fn attach(
    buffer: &mut gst::BufferRef,
    info: &gst_video::VideoInfo,
    decoded: &DecodedFrame,
    analysis: Analysis,
    overlay: bool,
) -> Result<(), String> {
    let Some(frame) = decoded.analysis.as_deref() else {
        return Ok(());
    };
    let columns = (decoded.info.width as usize).div_ceil(PLACE);
    note(buffer, decoded, frame, analysis);
    let (width, height) = common::shown_size(&decoded.info);
    let crop = decoded.info.crop;
    let mut canvas = Canvas::new((width, height), (crop.left, crop.top));
    if analysis.contains(Analysis::RESIDUAL)
        && let Some(prediction) = &frame.prediction
    {
        canvas.residual(prediction, &decoded.picture);
    }
    if analysis.contains(Analysis::BITS) {
        canvas.bits(frame, columns);
    }
    if analysis.contains(Analysis::QUANTIZERS) {
        canvas.quantizers(frame, columns);
    }
    if analysis.contains(Analysis::INK) {
        canvas.ink(frame);
    }
    if analysis.contains(Analysis::MOTION) {
        canvas.motion(frame);
    }
    if analysis.contains(Analysis::REFERENCES) {
        canvas.references(frame);
    }
    canvas.put(buffer, info, overlay)
}

fn note(buffer: &mut gst::BufferRef, decoded: &DecodedFrame, frame: &Frame, analysis: Analysis) {
    LazyLock::force(&REGISTERED);
    let Ok(mut meta) = gst::meta::CustomMeta::add(buffer, NAME) else {
        return;
    };
    let structure = meta.mut_structure();
    let header = &frame.header;
    let kind = match header.frame_type {
        FrameType::Key => "key",
        FrameType::Inter => "inter",
        FrameType::Repeat => "repeat",
    };
    let (columns, rows) = (
        decoded.info.width.div_ceil(PLACE as u32),
        decoded.info.height.div_ceil(PLACE as u32),
    );
    structure.set("kind", kind);
    structure.set("number", header.poc);
    structure.set("level", u32::from(header.level));
    structure.set("quantizer", u32::from(header.quantizer));
    let references = [header.ref0, header.ref1].into_iter().flatten();
    structure.set("references", gst::Array::new(references));
    let bytes = frame.bytes;
    for (name, len) in [
        ("bytes-map", bytes.map),
        ("bytes-ink", bytes.ink),
        ("bytes-still", bytes.still),
        ("bytes-motion", bytes.side),
        ("bytes-hyper", bytes.z),
        ("bytes-latent", bytes.y),
    ] {
        structure.set(name, len as u64);
    }
    structure.set("columns", columns);
    structure.set("rows", rows);
    structure.set("left", decoded.info.crop.left);
    structure.set("top", decoded.info.crop.top);
    if analysis.contains(Analysis::BITS) {
        let eighths = |bits: &[u64]| {
            let bits = bits
                .iter()
                .map(|b| ((b + 16) / 32).min(u16::MAX.into()) as u16);
            let bytes: Vec<u8> = bits.flat_map(u16::to_le_bytes).collect();
            gst::Buffer::from_slice(bytes)
        };
        if let Some(bits) = &frame.latent_bits {
            structure.set("latent-bits", eighths(&bits.by_place));
        }
        if frame.field.is_some() {
            structure.set("motion-bits", eighths(&frame.motion_bits));
        }
    }
    if let (true, Some(field)) = (analysis.contains(Analysis::MOTION), &frame.field) {
        let numbers = field.cells().iter().flat_map(|leaf| {
            let mode = match leaf.mode() {
                Mode::Ref0 => 0,
                Mode::Ref1 => 1,
                Mode::Bi => 2,
            };
            let [a, b] = [leaf.mv(0), leaf.mv(1)];
            [mode, a.x, a.y, b.x, b.y]
        });
        let bytes: Vec<u8> = numbers.flat_map(i16::to_le_bytes).collect();
        structure.set("vectors", gst::Buffer::from_slice(bytes));
    }
    if analysis.contains(Analysis::QUANTIZERS) {
        let of = |value: i8| {
            // The format holds quantizers of places within 0 to 63.
            (i16::from(header.quantizer) + MAP_UNIT * i16::from(value)).clamp(0, 63) as u8
        };
        let places = (columns * rows) as usize;
        let quantizers: Vec<u8> = match &frame.map {
            Some(map) => map.values().iter().copied().map(of).collect(),
            None => vec![header.quantizer; places],
        };
        structure.set("quantizers", gst::Buffer::from_slice(quantizers));
    }
    if let (true, Some(ink)) = (analysis.contains(Analysis::INK), &frame.ink) {
        let cells = ink.cells();
        let kinds = cells.ink.iter().zip(&cells.paper);
        let kinds = kinds.map(|(&ink, &paper)| u8::from(paper > 0) + u8::from(ink > 0));
        structure.set("ink", gst::Buffer::from_slice(kinds.collect::<Vec<u8>>()));
    }
}

// SPDX-License-Identifier: MPL-2.0
//! `nnv conformance`, hidden: the streams of `tests/conformance` that no encoder makes, of symbols
//! drawn at random and headers that go through the format's values and limits.

mod draw;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use nnv_bitstream::io::put_varint;
use nnv_bitstream::limits::{MAX_FRAME_METADATA, QUANTIZERS};
use nnv_bitstream::{
    ChromaFormat, Colorimetry, ContentLight, ContextSource, Crop, DecodingCost, FrameHeader, Level,
    MasteringDisplay, Rational, UnitType, VideoRange,
};
use nnv_format::entropy::MAX_FULL;
use nnv_nn::{Model, RuntimeOptions};

use self::draw::Latent;
use self::writer::{Material, Writer};
use crate::failure::{Failure, Result};
use crate::models;

/// Writes the conformance streams that no encoder makes; those that are there stay as they are
#[derive(Args, Debug)]
pub struct Options {
    /// Folder for the streams
    folder: PathBuf,
    /// Bundle that they name
    #[arg(long, default_value = "realtime")]
    model: String,
    /// Names of those to write; all where none is named
    #[arg(long)]
    only: Vec<String>,
}

type Make = fn(&Model) -> Result<Vec<u8>>;

/// Each stream's name, without `drawn-`, and what makes it.
const STREAMS: &[(&str, Make)] = &[
    ("headers", headers),
    ("quantizers", quantizers),
    ("motion", motion),
    ("symbols", symbols),
    ("maps", maps),
    ("ink", ink),
    ("references", references),
    ("times", times),
    ("units", units),
    ("bands", bands),
    ("flat", flat),
    ("still", still),
    ("levels", levels),
];

/// Runs the subcommand.
pub fn run(options: &Options) -> Result<()> {
    let runtime = RuntimeOptions::default();
    let model: Arc<Model> = Model::load(&models::source(&options.model), &runtime)?;
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|n| n == name);
    for (name, make) in STREAMS.iter().filter(|(name, _)| wanted(name)) {
        let path = options.folder.join(format!("drawn-{name}.nnv"));
        // Those that stand name the bundle of their time, and a later one gives other bytes.
        if path.exists() {
            println!("{}: is there", path.display());
            continue;
        }
        let data = make(&model).map_err(|e| match e {
            Failure::Input(what) | Failure::Usage(what) => Failure::file(&path, what),
        })?;
        std::fs::write(&path, &data).map_err(|e| Failure::file(&path, e))?;
        println!("{}: {} bytes", path.display(), data.len());
    }
    Ok(())
}

/// `n` frames up to `anchor`, coded backwards: each refers to the anchor before and to the one
/// coded last, so that as many levels and references are in use as there can be.
fn chain(w: &mut Writer, before: u32, n: u32, quantizer: u8, material: Material) -> Result<()> {
    let anchor = before + n;
    let mut frame = w.inter(anchor, quantizer, before, None);
    if before > 0 {
        // All that the chain before has left.
        frame.released.extend(before - n + 2..before);
        frame.released.push(before - n);
        frame.contexts = ContextSource::Ref0;
    }
    w.put(frame, material)?;
    for (level, poc) in (before + 1..anchor).rev().enumerate() {
        let mut frame = w.inter(poc, quantizer, before, Some(poc + 1));
        frame.level = level as u8 + 1;
        frame.keep = poc > before + 1;
        frame.contexts = match level % 3 {
            0 => ContextSource::Ref1,
            1 if before > 0 => ContextSource::Ref0,
            _ => ContextSource::Tables,
        };
        w.put(frame, material)?;
    }
    Ok(())
}

/// Every size modulo 16, and what a sequence header can say.
fn headers(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 1, (1, 1));
    for i in 0..16u32 {
        let s = &mut w.sequence;
        (s.width, s.height) = (16 + i, 16 + 7 * i % 16);
        let crop = |side: u32| u32::from(i % 6 == side || i % 6 == 5);
        s.crop = Crop {
            left: 2 * crop(1),
            top: 4 * crop(2),
            right: 3 * crop(3),
            bottom: 5 * crop(4),
        };
        s.frame_rate = match i % 4 {
            0 => Rational::new(24 + i, 1),
            1 => Rational::new(30000, 1001),
            2 => Rational::new(120, 7),
            _ => Rational::new(0, 1),
        };
        s.pixel_aspect = Rational::new(1 + i % 3 * 15, 1 + i % 3 * 4);
        s.chroma_format = match i {
            6 | 15 => ChromaFormat::Grey,
            _ => ChromaFormat::Yuv420,
        };
        s.bit_depth = if i % 3 == 1 { 10 } else { 8 };
        s.colorimetry = match i {
            4 | 13 => Colorimetry {
                primaries: 9,
                transfer: 16,
                matrix: 9,
                range: VideoRange::Full,
                chroma_site: Some(2),
            },
            6 | 15 => Colorimetry {
                range: VideoRange::Limited,
                ..Colorimetry::default()
            },
            _ => Colorimetry {
                primaries: [1, 5, 6][i as usize % 3],
                transfer: [1, 6, 13][i as usize % 3],
                matrix: [1, 5, 6][i as usize % 3],
                range: [VideoRange::Limited, VideoRange::Unspecified][i as usize % 2],
                chroma_site: (i < 12).then_some((i % 6) as u8),
            },
        };
        let hdr = i == 4 || i == 13;
        s.mastering_display = hdr.then_some(MasteringDisplay {
            primaries: [[34000, 16000], [13250, 34500], [7500, 3000]],
            white_point: [15635, 16450],
            max_luminance: 10_000_000,
            min_luminance: 50,
        });
        s.content_light = (hdr || i == 7).then_some(ContentLight {
            max_content: 1000,
            max_frame_average: 400,
        });
        let mini_gop = 1 + i % 8;
        s.gop.mini_gop = mini_gop as u8;
        s.gop.max_reorder = mini_gop as u8 - 1;
        s.gop.max_references = (mini_gop as u8).max(2);
        s.gop.key_interval = if i % 2 == 0 { 0 } else { 2 * mini_gop + 1 };
        (s.key_streams, s.inter_streams) = (1 + (i % 8) as u8, 8 - (i % 8) as u8);
        s.checksums = i % 5 != 3;
        let material = Material::of(Latent::Likely);
        let key = w.key(20 + i as u8);
        put_timed(&mut w, key, material)?;
        for before in [0, mini_gop] {
            if w.sequence.frame_rate.num > 0 {
                chain(&mut w, before, mini_gop, 24, material)?;
            }
        }
        if w.sequence.frame_rate.num == 0 {
            // Where the rate is unknown each frame says its time.
            let frame = w.inter(1, 30, 0, None);
            put_timed(&mut w, frame, material)?;
        }
    }
    Ok(w.finish())
}

/// A frame that says its time and duration where they do not follow from the frame rate.
fn put_timed(w: &mut Writer, mut frame: FrameHeader, material: Material) -> Result<()> {
    if w.sequence.frame_rate.num == 0 {
        frame.pts = Some(i64::from(w.group) * 1_000_000_000 + i64::from(frame.poc) * 33_333_333);
        frame.duration = Some(33_333_333);
    }
    w.put(frame, material)
}

/// Every quantizer in a key frame and an inter frame.
fn quantizers(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 2, (32, 16));
    w.sequence.gop.key_interval = 2;
    for q in 0..QUANTIZERS as u8 {
        let key = w.key(q);
        w.put(key, Material::of(Latent::Likely))?;
        let inter = w.inter(1, QUANTIZERS as u8 - 1 - q, 0, None);
        w.put(inter, Material::of(Latent::Likely))?;
    }
    Ok(w.finish())
}

/// Fields of every kind, with vectors up to the limits, contexts and fields of other frames.
fn motion(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 3, (216, 152));
    w.sequence.gop.max_references = 4;
    w.sequence.gop.max_reorder = 2;
    w.sequence.gop.mini_gop = 4;
    let still = Material::of(Latent::Nothing);
    let key = w.key(20);
    w.put(key, Material::of(Latent::Likely))?;
    // Number, level, references, what is inherited, what is released.
    type Frame = (u32, u8, u32, Option<u32>, ContextSource, &'static [u32]);
    const FRAMES: &[Frame] = &[
        (4, 0, 0, None, ContextSource::Tables, &[]),
        (2, 1, 4, Some(0), ContextSource::Ref0, &[]),
        (1, 2, 0, Some(2), ContextSource::Ref1, &[1]),
        (3, 2, 2, Some(4), ContextSource::Ref1, &[2, 3]),
        (5, 0, 4, None, ContextSource::Ref0, &[]),
        (6, 0, 5, Some(4), ContextSource::Tables, &[0]),
        (7, 0, 6, Some(5), ContextSource::Ref1, &[4]),
        (8, 0, 7, Some(6), ContextSource::Ref0, &[]),
    ];
    for &(poc, level, ref0, ref1, contexts, released) in FRAMES {
        let mut frame = w.inter(poc, 30, ref0, ref1);
        (frame.level, frame.contexts) = (level, contexts);
        frame.keep = !released.contains(&poc);
        frame
            .released
            .extend(released.iter().copied().filter(|&r| r != poc));
        w.put(frame, still)?;
    }
    Ok(w.finish())
}

/// Symbols up to the limits, and latents of zeros.
fn symbols(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 4, (80, 64));
    (w.sequence.key_streams, w.sequence.inter_streams) = (2, 3);
    let kinds = [Latent::Wild, Latent::Nothing, Latent::Likely];
    for quantizer in [8, 63] {
        for z in kinds {
            for y in kinds {
                let material = Material {
                    z,
                    y,
                    ..Material::of(y)
                };
                let key = w.key(quantizer);
                w.put(key, material)?;
                for poc in 1..3 {
                    let mut frame = w.inter(poc, quantizer, poc - 1, None);
                    if poc > 1 {
                        frame.contexts = ContextSource::Ref0;
                        frame.released.push(poc - 2);
                    }
                    // So that a hyper-latent follows one of zeros, and the other way round.
                    let turned = if poc == 1 { material.y } else { material.z };
                    w.put(
                        frame,
                        Material {
                            z: turned,
                            ..material
                        },
                    )?;
                }
            }
        }
    }
    Ok(w.finish())
}

/// Maps of every value, in key and inter frames, at quantizers where they are cut off too.
fn maps(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 5, (96, 80));
    for quantizer in [0, 5, 32, 60, 63] {
        for poc in 0..3 {
            let mut frame = match poc {
                0 => w.key(quantizer),
                _ => w.inter(poc, quantizer, poc - 1, None),
            };
            frame.quantizer_map = true;
            if poc > 1 {
                frame.contexts = ContextSource::Ref0;
                frame.released.push(0);
            }
            w.put(frame, Material::of(Latent::Likely))?;
        }
    }
    Ok(w.finish())
}

/// Every value of full coverage, and any number of papers and inks, in key and inter frames.
fn ink(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 6, (48, 32));
    for full in 1..=MAX_FULL {
        let colours = match full {
            1 => (0, 0),
            2 => (0, 5),
            3 => (5, 0),
            4 => (63, 63),
            n => (n, 1 + (5 * n) % 17),
        };
        let material = Material {
            ink: (full, colours),
            ..Material::of(Latent::Nothing)
        };
        let mut key = w.key(40);
        key.ink = true;
        w.put(key, material)?;
        if full % 2 == 0 {
            let mut frame = w.inter(1, 40, 0, None);
            (frame.ink, frame.quantizer_map) = (true, full % 4 == 0);
            w.put(frame, material)?;
        }
    }
    Ok(w.finish())
}

/// As many references as there can be, dropped and kept in one frame; repeats of any of them.
fn references(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 7, (32, 32));
    w.sequence.gop.max_references = 8;
    let material = Material::of(Latent::Likely);
    for turn in 0..2 {
        w.key_checks = turn == 0;
        let key = w.key(30);
        w.put(key, material)?;
        for poc in 1..8 {
            let frame = w.inter(poc, 30, poc - 1, (poc > 1).then_some(0));
            w.put(frame, material)?;
        }
        // Eight are kept: one makes place for this one, and the oldest stays.
        let mut frame = w.inter(8, 33, 7, Some(0));
        frame.released.push(3);
        w.put(frame, material)?;
        let mut frame = w.inter(9, 33, 0, Some(8));
        frame.released.push(5);
        w.put(frame, material)?;
        // One that is gone, one that never was.
        let mut frame = w.inter(10, 33, 1, Some(0));
        frame.released.extend([1, 3, 300]);
        w.put(frame, material)?;
        // Repeats of the last frame and of older ones, which may drop frames.
        for (poc, of, level) in [(11, 10, 0), (12, 2, 3), (13, 0, 7)] {
            let mut frame = FrameHeader::repeat(w.group, poc, of);
            frame.level = level;
            if poc == 12 {
                frame.released.extend([4, 6]);
            }
            w.put(frame, material)?;
        }
        let mut frame = w.inter(14, 33, 2, Some(7));
        frame.released.extend([0, 2, 7, 8, 9, 20, 21]);
        frame.keep = false;
        w.put(frame, material)?;
        let frame = w.inter(15, 33, 10, None);
        w.put(frame, material)?;
    }
    Ok(w.finish())
}

/// Times that are given, left out, negative, far apart, and of streams that were joined.
fn times(model: &Model) -> Result<Vec<u8>> {
    const MS: i64 = 1_000_000;
    let mut w = Writer::new(model, 8, (16, 16));
    w.sequence.frame_rate = Rational::new(30000, 1001);
    // Of the key frame, of the second and the fourth frame; durations of the second.
    type Group = (Option<i64>, [Option<i64>; 2], Option<u64>);
    const GROUPS: &[Group] = &[
        (Some(-70 * MS), [None, Some(-3 * MS)], None),
        (None, [Some(45 * MS), None], None),
        (
            Some(400 * MS),
            [Some(450 * MS), Some(470 * MS)],
            Some(7_000_000),
        ),
        (None, [None, None], Some(0)),
        (Some(0), [None, Some(90 * MS)], Some(5_000_000_000)),
        (Some(3600 * 1000 * MS), [None, None], None),
        (Some(-500 * MS), [Some(-480 * MS), None], None),
    ];
    for &(key_pts, pts, duration) in GROUPS {
        let mut key = w.key(50);
        key.pts = key_pts;
        w.put(key, Material::of(Latent::Likely))?;
        for poc in 1..4 {
            let mut frame = match poc {
                3 => FrameHeader::repeat(w.group, poc, 2),
                _ => w.inter(poc, 50, poc - 1, None),
            };
            frame.pts = [pts[0], None, pts[1]][poc as usize - 1];
            frame.duration = duration.filter(|_| poc == 1);
            if poc == 2 {
                frame.released.push(0);
            }
            w.put(frame, Material::of(Latent::Likely))?;
        }
    }
    Ok(w.finish())
}

/// Units that a decoder passes over: fillers, types of later versions, metadata up to its limit
/// and beyond its rules.
fn units(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 9, (16, 16));
    let mut largest = vec![6];
    put_varint(&mut largest, MAX_FRAME_METADATA as u64 - 4);
    largest.resize(MAX_FRAME_METADATA, 0xB5);
    let other = |code| (UnitType::Unknown(code), vec![code; usize::from(code)]);
    let before: Vec<Vec<(UnitType, Vec<u8>)>> = vec![
        vec![(UnitType::Filler, Vec::new())],
        vec![
            other(0),
            other(7),
            other(8),
            other(99),
            other(101),
            other(127),
        ],
        // With the header of a key frame, 16.
        (0..15).map(|n| (UnitType::Filler, vec![0; n])).collect(),
        vec![(UnitType::Filler, vec![0x8E; 20_000])],
        vec![(UnitType::FrameMetadata, largest)],
        // An item that is cut, an item beyond its limits, a kind of a later version.
        vec![(UnitType::FrameMetadata, vec![6, 9, 0])],
        vec![(UnitType::FrameMetadata, vec![2, 3, 0, 0, 16])],
        vec![(UnitType::FrameMetadata, vec![200, 3, 1, 2, 3])],
        vec![(UnitType::StreamMetadata, vec![1, 1, 6])],
        // A signature that nobody checks, a key of nothing.
        vec![other(6), other(100)],
    ];
    for (i, units) in before.into_iter().enumerate() {
        let key = w.key(50);
        w.before = units.clone();
        w.put(key, Material::of(Latent::Likely))?;
        if i < 4 {
            w.before = units;
        }
        let frame = w.inter(1, 50, 0, None);
        w.put(frame, Material::of(Latent::Likely))?;
    }
    Ok(w.finish())
}

/// Entropy streams of several rows, and of uneven ones.
fn bands(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 10, (336, 200));
    (w.sequence.key_streams, w.sequence.inter_streams) = (8, 5);
    w.sequence.gop.max_references = 3;
    let key = w.key(24);
    w.put(key, Material::of(Latent::Likely))?;
    let mut frame = w.inter(1, 30, 0, None);
    frame.quantizer_map = true;
    w.put(frame, Material::of(Latent::Likely))?;
    let mut frame = w.inter(2, 30, 1, Some(0));
    frame.contexts = ContextSource::Ref0;
    w.put(frame, Material::of(Latent::Nothing))?;
    Ok(w.finish())
}

/// Key frames with a hyper-latent of zeros, so large that decoders look for damage before they run
/// the networks: with a latent, and without.
fn flat(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 11, (2192, 32));
    w.sequence.key_streams = 3;
    for y in [Latent::Likely, Latent::Nothing] {
        let key = w.key(20);
        let material = Material {
            z: Latent::Nothing,
            ..Material::of(y)
        };
        w.put(key, material)?;
    }
    Ok(w.finish())
}

/// Still places in frames with and without quantizer maps and ink, after frames with and without.
fn still(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 12, (208, 112));
    (w.sequence.gop.max_references, w.sequence.inter_streams) = (3, 2);
    let material = Material::of(Latent::Likely);
    let key = w.key(24);
    w.put(key, material)?;
    for poc in 1..10 {
        let mut frame = w.inter(poc, 32, poc - 1, (poc > 2).then(|| poc - 2));
        // The fourth has none, so that the fifth follows a frame without.
        frame.still = poc != 4;
        (frame.quantizer_map, frame.ink) = (poc % 3 == 2, poc % 4 == 3);
        if poc > 2 {
            frame.contexts = [ContextSource::Tables, ContextSource::Ref0][usize::from(poc % 3 > 0)];
            frame.released.push(poc - 3);
        }
        w.put(frame, material)?;
    }
    Ok(w.finish())
}

/// Every level that a header can state, at its bounds where that takes no large picture, and beyond
/// what the stream needs; costs of any length.
fn levels(model: &Model) -> Result<Vec<u8>> {
    let mut w = Writer::new(model, 13, (32, 16));
    let key = |w: &mut Writer, level, macs| {
        w.sequence.cost = Some(DecodingCost { level, macs });
        let key = w.key(40);
        w.put(key, Material::of(Latent::Likely))
    };
    for level in Level::all() {
        key(&mut w, level, model.decoding_macs())?;
    }
    for macs in [0, 127, 128, 16_383, 16_384] {
        key(
            &mut w,
            Level::from_code(1).unwrap_or(Level::UNBOUNDED),
            macs,
        )?;
    }
    key(&mut w, Level::UNBOUNDED, i32::MAX as u32)?;
    w.sequence.cost = None;
    let plain = w.key(40);
    w.put(plain, Material::of(Latent::Likely))?;
    // All that level 1 allows: as many samples a second, as many multiplications.
    w.sequence.frame_rate = Rational::new(512 * 288 * 30, 512);
    w.sequence.state_cost(16_000);
    let lowest = w.sequence.level();
    key(&mut w, lowest, 16_000)?;
    Ok(w.finish())
}

// SPDX-License-Identifier: MPL-2.0
//! `nnv inspect`: a page that shows what a stream is made of.

mod buffer;
mod page;
mod planes;
mod shrink;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use nnv_bitstream::{FrameType, StreamInfo};
use nnv_codec::decode::{Analysis, Wanted};
use nnv_format::grid::Grid;
use nnv_format::tables::LATENT_CHANNELS;
use nnv_quality::DB_CAP;
use serde::Serialize;

use crate::colours::Colours;
use crate::failure::{Failure, Result};
use crate::files::check_outputs;
use crate::frames::{Coded, Decoding, Frames, Native, cropped};
use crate::stream::{Content, Depth, Piece, Stream};
use crate::{compare, info, models};

use buffer::Buffer;
use shrink::Size;

/// Bands of channels that the latent's bits are shown by, from low to high frequencies.
const BANDS: usize = 8;
/// Most bytes of a page, unless wanted otherwise: 8 MB, and a little less.
const PAGE_BYTES: f64 = 7.6e6;
/// Fewest bytes of the pictures and numbers of a frame: below, frames are left out.
const LEAST_BYTES: f64 = 9e3;
/// Bytes of one line of the table that all frames are in, about.
const LINE_BYTES: f64 = 330.0;
/// Share of a frame's bytes that its pictures are planned to take; numbers take the rest.
const PICTURES: f64 = 0.75;
/// Bits of a sample of a small picture, about.
const BITS_PER_SAMPLE: f64 = 1.0;
/// Text takes four characters for three bytes.
const TEXT: f64 = 4.0 / 3.0;
/// Widths of small pictures.
const WIDTHS: std::ops::RangeInclusive<f64> = 96.0..=960.0;

/// Makes a page that shows what a stream is made of: sizes, references, motion, where bits went
///
/// The page is one file and needs no network: any browser opens it.
#[derive(Args, Debug)]
pub struct Options {
    /// The stream
    file: PathBuf,
    /// The page to write
    #[arg(short, long, value_name = "HTML")]
    output: PathBuf,
    /// What the stream was made from, for PSNR: .y4m, a stream, or anything that GStreamer reads
    #[arg(long, value_name = "CLIP")]
    original: Option<PathBuf>,
    /// Frames that the page shows pictures of, by their number from 0 on: all where they fit
    #[arg(long, value_name = "N[-N][,N[-N]...]", value_parser = list)]
    frames: Option<BTreeSet<u64>>,
    /// Show the decoder's buffer at this constant rate in kbit/s
    #[arg(long, value_name = "KBIT")]
    bitrate: Option<u64>,
    /// Length of that buffer in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, requires = "bitrate")]
    buffer: u32,
    /// Bundle in place of the one that the stream asks for: a name or a folder
    #[arg(long, value_name = "NAME|FOLDER")]
    model: Option<String>,
    /// Threads; 0: as many as there are processors
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: u32,
}

/// Numbers and ranges of numbers.
fn list(text: &str) -> std::result::Result<BTreeSet<u64>, String> {
    let mut numbers = BTreeSet::new();
    for part in text.split(',') {
        let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text:?}: {e}"));
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last || last - first > 100_000 {
            return Err(format!("{part:?} is no range of frames"));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

/// All that the page is told.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    file: String,
    bytes: u64,
    /// As shown.
    width: u32,
    height: u32,
    /// What is cut off on the left and at the top.
    left: u32,
    top: u32,
    bit_depth: u8,
    rate: Option<(u32, u32)>,
    bundle: String,
    /// Seconds that the page took to make, decoding included.
    seconds: f64,
    lost: u64,
    buffer: Option<Held>,
    /// Frames whose pictures were left out, so that the page stays small.
    without_pictures: u64,
    frames: Vec<Line>,
    /// By number of the frame.
    pictures: HashMap<u64, Shown>,
}

/// The decoder's buffer.
#[derive(Debug, Serialize)]
struct Held {
    kbit: u64,
    ms: u32,
    /// Shares of its size, in order of decoding.
    fullness: Vec<f64>,
}

/// What is known of each frame. Bytes: of headers and lengths, map, ink, motion, hyper-latent,
/// latent.
#[derive(Debug, Serialize)]
struct Line {
    kind: &'static str,
    level: u8,
    quantizer: u8,
    /// Place in the order of decoding.
    order: u64,
    bytes: u64,
    parts: [u64; 6],
    /// Numbers of the frames that it refers to.
    references: Vec<u64>,
    /// Bits of the latent by band of channels.
    bands: Vec<u64>,
    /// Y, U, V, all weighted; [`DB_CAP`] where nothing differs.
    psnr: Option<[f64; 4]>,
    concealed: bool,
    verified: Option<bool>,
}

/// Pictures and numbers of a frame, as text.
#[derive(Debug, Serialize)]
struct Shown {
    picture: String,
    prediction: Option<String>,
    added: Option<String>,
    layout: planes::Layout,
    planes: String,
}

impl Shown {
    fn len(&self) -> usize {
        let optional = [&self.prediction, &self.added].into_iter().flatten();
        let pictures = optional.map(String::len).sum::<usize>() + self.picture.len();
        pictures + self.planes.len() + 200
    }
}

/// How large pictures may be.
struct Budget {
    size: Size,
    quality: u8,
    /// Every so many-th frame has pictures.
    step: u64,
    /// Bytes for each of them, and for all.
    each: f64,
    all: f64,
    spent: f64,
    made: f64,
}

impl Budget {
    /// For pictures of this size, so many frames of which so many are wanted.
    fn new((width, height): (u32, u32), frames: u64, wanted: u64) -> Self {
        let fixed = page::FIXED as f64 + LINE_BYTES * frames as f64;
        let all = (PAGE_BYTES - fixed).max(0.0);
        let step =
            ((LEAST_BYTES * wanted as f64 / all.max(1.0)).ceil() as u64).clamp(1, frames.max(1));
        let each = all / wanted.div_ceil(step).max(1) as f64;
        let (width, height) = (f64::from(width), f64::from(height));
        // Picture, prediction, what is added.
        let samples = each * PICTURES / TEXT / 3.0 * 8.0 / BITS_PER_SAMPLE;
        let fitting = (samples * width / height).sqrt();
        let shown = fitting.clamp(*WIDTHS.start(), *WIDTHS.end()).min(width);
        let side = |v: f64| v.round().clamp(1.0, 4096.0) as u16;
        Self {
            size: Size {
                width: side(shown),
                height: side(shown * height / width),
            },
            quality: 70,
            step,
            each,
            all,
            spent: 0.0,
            made: 0.0,
        }
    }

    /// Takes the pictures of a frame, if there is room for them.
    fn take(&mut self, bytes: usize) -> bool {
        let bytes = bytes as f64;
        if self.spent + bytes > self.all {
            return false;
        }
        self.spent += bytes;
        self.made += 1.0;
        let planned = self.made * self.each;
        if self.spent > planned {
            self.quality = self.quality.saturating_sub(8).max(15);
        } else if self.spent < 0.9 * planned {
            self.quality = (self.quality + 3).min(88);
        }
        true
    }
}

/// Frames whose headers are sound, and bytes of the file.
fn count(options: &Options) -> Result<(u64, u64)> {
    let mut stream = Stream::open(&options.file, Depth::Headers)?;
    let mut frames = 0;
    while let Some(piece) = stream.next()? {
        if let Piece::Unit(unit) = piece {
            frames += u64::from(matches!(unit.content, Content::Frame(Ok(_))));
        }
    }
    Ok((frames, stream.len()))
}

/// The subcommand.
pub fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let inputs = [Some(&options.file), options.original.as_ref()];
    check_outputs(
        inputs.into_iter().flatten().map(|path| &**path),
        [&*options.output],
    )?;
    let (count, bytes) = count(options)?;
    if let Some(&beyond) = (options.frames.iter().flatten()).find(|&&number| number >= count) {
        return Err(Failure::Usage(format!(
            "--frames names frame {beyond}; the stream has {count}, counted from 0"
        )));
    }
    let decoding = Decoding {
        model: options.model.as_deref().map(models::source),
        threads: options.threads,
        ..Decoding::default()
    };
    let mut original = match &options.original {
        Some(path) => Some(Frames::open(path, &decoding)?),
        None => None,
    };
    let mut stream = Native::open(&options.file, &decoding)?;
    stream.set_analysis(Wanted {
        prediction: true,
        bits: true,
    });
    let mut gathered = Gathered::default();
    let mut first: Option<std::sync::Arc<StreamInfo>> = None;
    while let Some(coded) = stream.next()? {
        let info = first.get_or_insert_with(|| coded.frame.info.clone());
        if (info.width, info.height) != (coded.frame.info.width, coded.frame.info.height) {
            return Err(Failure::file(
                &options.file,
                format!(
                    "from frame {} on its pictures have another size; cut it there first (nnv cut)",
                    gathered.lines.len()
                ),
            ));
        }
        let size = (coded.shown.picture.width(), coded.shown.picture.height());
        let wanted = options
            .frames
            .as_ref()
            .map_or(count, |list| list.len() as u64);
        let budget = gathered
            .budget
            .get_or_insert_with(|| Budget::new(size, count, wanted));
        let number = gathered.lines.len() as u64;
        let pictured = match &options.frames {
            Some(list) => list.contains(&number),
            None => number.is_multiple_of(budget.step),
        };
        let before = match &mut original {
            None => None,
            Some(original) => original.next()?,
        };
        let psnr = match &before {
            None => None,
            Some(before) => Some(compare::psnr(before, &coded.shown).map_err(|e| match e {
                Failure::Input(what) | Failure::Usage(what) => Failure::file(
                    &options.file,
                    format!("frame {number} cannot be compared with the original's: {what}"),
                ),
            })?),
        };
        gathered.add(
            &coded,
            psnr.map(|p| [p.y, p.u, p.v, p.weighted_db].map(|db| db.min(DB_CAP))),
            pictured,
        )?;
    }
    let Some(info) = first else {
        return Err(Failure::file(&options.file, "no picture comes out of it"));
    };
    gathered.resolve();
    let measured = gathered.lines.iter().filter(|l| l.psnr.is_some()).count();
    if original.is_some() && measured < gathered.lines.len() {
        eprintln!(
            "nnv: the original has {measured} frames, the stream {}: PSNR ends there",
            gathered.lines.len()
        );
    }
    let buffer = match options.bitrate {
        None => None,
        Some(kbit) => Some(gathered.buffer(&info, kbit, options.buffer).ok_or_else(|| {
            Failure::file(
                &options.file,
                "without a frame rate nothing can be said of the buffer; leave out --bitrate",
            )
        })?),
    };
    let wanted = options
        .frames
        .as_ref()
        .map_or(gathered.lines.len(), BTreeSet::len);
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        file: (options.file.file_name().unwrap_or_default())
            .to_string_lossy()
            .into_owned(),
        bytes,
        width: info.width - info.crop.left - info.crop.right,
        height: info.height - info.crop.top - info.crop.bottom,
        left: info.crop.left,
        top: info.crop.top,
        bit_depth: info.bit_depth,
        rate: info.frame_rate,
        bundle: stream.bundle().unwrap_or_default().into(),
        seconds: start.elapsed().as_secs_f64(),
        lost: stream.lost(),
        buffer,
        without_pictures: (wanted - gathered.pictures.len()) as u64,
        frames: gathered.lines,
        pictures: gathered.pictures,
    };
    let html = page::html(&report)?;
    std::fs::write(&options.output, &html).map_err(|e| Failure::file(&options.output, e))?;
    println!(
        "{}: {} frames, {} with pictures, {:.1} MB, {}",
        options.output.display(),
        report.frames.len(),
        report.pictures.len(),
        html.len() as f64 / 1e6,
        info::clock(start.elapsed().as_secs_f64())
    );
    Ok(())
}

/// What was seen so far.
#[derive(Default)]
struct Gathered {
    lines: Vec<Line>,
    pictures: HashMap<u64, Shown>,
    budget: Option<Budget>,
    /// Key frames so far.
    group: u64,
    /// Frames by group and number.
    numbers: HashMap<(u64, u32), u64>,
    /// References of each frame, to be found in these.
    wanted: Vec<Vec<(u64, u32)>>,
    /// Numbers of access units, by frame.
    units: Vec<u64>,
}

impl Gathered {
    fn add(&mut self, coded: &Coded, psnr: Option<[f64; 4]>, pictured: bool) -> Result<()> {
        let Coded {
            shown,
            frame,
            bytes,
        } = coded;
        let number = self.lines.len() as u64;
        self.group += u64::from(frame.kind == FrameType::Key);
        let analysis = frame.analysis.as_deref();
        if let Some(a) = analysis {
            self.numbers.insert((self.group, a.header.poc), number);
        }
        let references = analysis.map_or_else(Vec::new, |a| {
            let both = [a.header.ref0, a.header.ref1].into_iter().flatten();
            both.map(|poc| (self.group, poc)).collect()
        });
        self.wanted.push(references);
        self.units.push(frame.id);
        let parts = analysis.map_or([*bytes, 0, 0, 0, 0, 0], |a| {
            let p = a.bytes;
            let parts = [p.map + p.still, p.ink, p.side, p.z, p.y].map(|v| v as u64);
            let [map, ink, side, z, y] = parts;
            let rest = bytes.saturating_sub(parts.iter().sum());
            [rest, map, ink, side, z, y]
        });
        self.lines.push(Line {
            kind: info::type_name(frame.kind),
            level: analysis.map_or(0, |a| a.header.level),
            quantizer: analysis.map_or(0, |a| a.header.quantizer),
            order: 0,
            bytes: *bytes,
            parts,
            references: Vec::new(),
            bands: analysis.map_or_else(Vec::new, bands),
            psnr,
            concealed: shown.concealed,
            verified: analysis.and_then(|a| a.verified),
        });
        if let (Some(analysis), true) = (analysis, pictured) {
            self.picture(number, coded, analysis)?;
        }
        Ok(())
    }

    fn picture(&mut self, number: u64, coded: &Coded, analysis: &Analysis) -> Result<()> {
        let Some(budget) = &mut self.budget else {
            return Ok(());
        };
        let (frame, info) = (&coded.shown, &coded.frame.info);
        let colours = Colours::new(frame.matrix, frame.full_range, frame.picture.height());
        let prediction = analysis.prediction.as_ref();
        let prediction = prediction.map(|p| cropped(p, info)).transpose()?;
        let (size, quality) = (budget.size, budget.quality);
        let colour = |p| shrink::colour(p, &colours, size, quality).map(|p| BASE64.encode(p));
        let grid = Grid::for_picture(info.width as usize, info.height as usize)?;
        let (layout, planes) = planes::planes(analysis, grid.w16(), grid.h16())?;
        let shown = Shown {
            picture: colour(&frame.picture)?,
            prediction: prediction.as_deref().map(colour).transpose()?,
            added: prediction
                .as_deref()
                .map(|p| shrink::added(p, &frame.picture, size, quality))
                .transpose()?
                .map(|p| BASE64.encode(p)),
            layout,
            planes: BASE64.encode(planes),
        };
        if budget.take(shown.len()) {
            self.pictures.insert(number, shown);
        }
        Ok(())
    }

    /// Finds the frames that were referred to, and the order of decoding.
    fn resolve(&mut self) {
        for (line, wanted) in self.lines.iter_mut().zip(&self.wanted) {
            line.references = (wanted.iter())
                .filter_map(|frame| self.numbers.get(frame).copied())
                .collect();
        }
        let mut order: Vec<usize> = (0..self.units.len()).collect();
        order.sort_by_key(|&i| self.units[i]);
        for (place, i) in order.into_iter().enumerate() {
            self.lines[i].order = place as u64;
        }
    }

    fn buffer(&self, info: &StreamInfo, kbit: u64, ms: u32) -> Option<Held> {
        let (n, d) = info.frame_rate?;
        let rate = kbit as f64 * 1000.0;
        let buffer = Buffer {
            rate,
            size: rate * f64::from(ms) / 1000.0,
        };
        let mut bytes = vec![0; self.lines.len()];
        for line in &self.lines {
            bytes[line.order as usize] = line.bytes;
        }
        Some(Held {
            kbit,
            ms,
            fullness: buffer.fullness(&bytes, f64::from(d) / f64::from(n)),
        })
    }
}

/// Bits of the latent by band of channels, in the order of coding.
fn bands(analysis: &Analysis) -> Vec<u64> {
    let Some(bits) = &analysis.latent_bits else {
        return Vec::new();
    };
    let bands = bits.by_channel.chunks(LATENT_CHANNELS.div_ceil(BANDS));
    bands.map(|band| band.iter().sum::<u64>() / 256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_frames() {
        assert_eq!(
            list("3,0-2").unwrap().into_iter().collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        for bad in ["", "a", "3-2", "1,,2", "-1", "0-99999999"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! `nnv info`: what a stream is, by its headers.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use clap::Args;
use nnv_bitstream::level::{PROFILE, macs_per_second, memory};
use nnv_bitstream::{FrameType, SequenceHeader, UnitType, VideoRange};
use serde::Serialize;

use crate::failure::Result;
use crate::groups::Groups;
use crate::stream::{Content, Depth, Piece, Stream};

/// Files up to this size are read whole, so that every checksum is looked at.
const SMALL: u64 = 8 << 20;
/// Most entries of a list in the report; the rest is counted.
const MAX_LISTED: usize = 100;
/// Most seconds that rates are kept for.
const MAX_SECONDS: u64 = 1 << 20;
const NS: f64 = 1e9;

/// Tells what a stream is: bundle, pictures, frames, rates, damage
#[derive(Args, Debug)]
pub struct Options {
    /// The stream
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Read all of a large file, too, and look at every checksum
    #[arg(long)]
    check: bool,
}

/// All that is known of a file.
#[derive(Debug, Default, Serialize)]
struct Report {
    file: String,
    bytes: u64,
    bytes_read: u64,
    /// Whether every checksum was looked at, or headers alone.
    every_checksum: bool,
    sequences: Vec<Sequence>,
    /// Sequence headers that say something new, those beyond the list included.
    sequence_changes: u64,
    frames: u64,
    groups: u64,
    longest_group: u64,
    /// Where the last frame ends, in seconds.
    duration: f64,
    /// Mean over the duration, in kbit/s.
    rate: Option<f64>,
    /// Greatest over any whole second of the presentation, in kbit/s.
    greatest_rate: Option<f64>,
    by_type: Vec<Kind>,
    bytes_by_type: Bytes,
    /// Stretches of bytes that belong to no sound unit, or units that cannot be read.
    damage: Vec<Damage>,
    damaged_stretches: u64,
    /// Frames with sound units that cannot be decoded, because others are missing.
    undecodable: u64,
}

#[derive(Debug, Serialize)]
struct Sequence {
    offset: u64,
    /// Frames before it.
    frame: u64,
    bundle: String,
    hash: String,
    /// Whether this program has the bundle.
    built_in: bool,
    width: u32,
    height: u32,
    crop: [u32; 4],
    bit_depth: u8,
    chroma: &'static str,
    frame_rate: Option<[u32; 2]>,
    pixel_aspect: [u32; 2],
    primaries: u8,
    transfer: u8,
    matrix: u8,
    range: &'static str,
    chroma_site: Option<u8>,
    mastering_display: Option<Mastering>,
    content_light: Option<Light>,
    mini_gop: u8,
    max_reorder: u8,
    max_references: u8,
    /// 0: no limit.
    key_interval: u32,
    key_streams: u8,
    inter_streams: u8,
    frame_checksums: bool,
    profile: &'static str,
    /// As stated, or the lowest that the header's other fields allow.
    level: String,
    level_stated: bool,
    /// Multiplications with additions of the networks for a luma sample of the costliest frame.
    macs_per_sample: Option<u32>,
    /// The same a second, in 10^9; as if at 30 frames/s where the rate is unknown.
    gmacs_per_second: Option<f64>,
    /// Of pictures and the work on them, in bytes.
    picture_memory: u64,
}

/// In the units of users: chromaticities, cd/m².
#[derive(Debug, Serialize)]
struct Mastering {
    red: [f64; 2],
    green: [f64; 2],
    blue: [f64; 2],
    white: [f64; 2],
    least: f64,
    greatest: f64,
}

/// In cd/m².
#[derive(Debug, Serialize)]
struct Light {
    greatest: u16,
    greatest_mean: u16,
}

#[derive(Debug, Serialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: &'static str,
    level: u8,
    frames: u64,
    bytes: u64,
    mean_quantizer: Option<f64>,
    /// In kbit/s over the whole duration.
    rate: Option<f64>,
}

#[derive(Debug, Default, Serialize)]
struct Bytes {
    sequence_headers: u64,
    frames: u64,
    filler: u64,
    metadata: u64,
    unknown: u64,
    damaged: u64,
}

#[derive(Debug, Serialize)]
struct Damage {
    offset: u64,
    bytes: u64,
    /// Frames found before it.
    frame: u64,
    what: String,
}

/// The name of a frame type, the same everywhere.
pub fn type_name(kind: FrameType) -> &'static str {
    match kind {
        FrameType::Key => "key",
        FrameType::Inter => "inter",
        FrameType::Repeat => "repeat",
    }
}

impl Sequence {
    fn new(header: &SequenceHeader, offset: u64, frame: u64) -> Self {
        let (c, m) = (header.crop, header.colorimetry);
        let xy = |[x, y]: [u16; 2]| [f64::from(x) / 50_000.0, f64::from(y) / 50_000.0];
        Self {
            offset,
            frame,
            bundle: header.bundle_name.clone(),
            hash: nnv_nn::hex(&header.bundle_hash),
            built_in: nnv_codec::decode::built_in(&header.bundle_hash).is_some(),
            width: header.width,
            height: header.height,
            crop: [c.left, c.top, c.right, c.bottom],
            bit_depth: header.bit_depth,
            chroma: "4:2:0",
            frame_rate: (header.frame_rate.num > 0)
                .then_some([header.frame_rate.num, header.frame_rate.den]),
            pixel_aspect: [header.pixel_aspect.num, header.pixel_aspect.den],
            primaries: m.primaries,
            transfer: m.transfer,
            matrix: m.matrix,
            range: match m.range {
                VideoRange::Limited => "limited",
                VideoRange::Full => "full",
                VideoRange::Unspecified => "unspecified",
            },
            chroma_site: m.chroma_site,
            mastering_display: header.mastering_display.map(|d| Mastering {
                red: xy(d.primaries[0]),
                green: xy(d.primaries[1]),
                blue: xy(d.primaries[2]),
                white: xy(d.white_point),
                least: f64::from(d.min_luminance) / 10_000.0,
                greatest: f64::from(d.max_luminance) / 10_000.0,
            }),
            content_light: header.content_light.map(|l| Light {
                greatest: l.max_content,
                greatest_mean: l.max_frame_average,
            }),
            mini_gop: header.gop.mini_gop,
            max_reorder: header.gop.max_reorder,
            max_references: header.gop.max_references,
            key_interval: header.gop.key_interval,
            key_streams: header.key_streams,
            inter_streams: header.inter_streams,
            frame_checksums: header.checksums,
            profile: PROFILE,
            level: header.level().to_string(),
            level_stated: header.cost.is_some(),
            macs_per_sample: header.cost.map(|cost| cost.macs),
            gmacs_per_second: macs_per_second(header).map(|macs| macs / 1e9),
            picture_memory: memory(header),
        }
    }
}

/// Sums while the file goes by.
#[derive(Default)]
struct Gathered {
    report: Report,
    groups: Groups,
    last_sequence: Option<Box<SequenceHeader>>,
    /// By type and level: frames, bytes, sum of quantizers.
    kinds: BTreeMap<(&'static str, u8), (u64, u64, u64)>,
    /// Bytes by second of the presentation.
    seconds: Vec<u64>,
    group: u64,
}

impl Gathered {
    fn damage(&mut self, offset: u64, bytes: u64, what: &str) {
        let report = &mut self.report;
        report.damaged_stretches += 1;
        if report.damage.len() < MAX_LISTED {
            report.damage.push(Damage {
                offset,
                bytes,
                frame: report.frames,
                what: what.into(),
            });
        }
    }

    fn piece(&mut self, piece: Piece) {
        let unit = match piece {
            Piece::Damage { offset, len, what } => {
                self.report.bytes_by_type.damaged += len;
                return self.damage(offset, len, what);
            }
            Piece::Unit(unit) => unit,
        };
        let bytes = &mut self.report.bytes_by_type;
        match unit.kind {
            UnitType::Sequence => bytes.sequence_headers += unit.len,
            UnitType::Frame | UnitType::EncryptedFrame => bytes.frames += unit.len,
            UnitType::Filler => bytes.filler += unit.len,
            UnitType::FrameMetadata | UnitType::StreamMetadata => bytes.metadata += unit.len,
            UnitType::Unknown(_) => bytes.unknown += unit.len,
        }
        match unit.content {
            Content::Sequence(Err(what)) | Content::Frame(Err(what)) => {
                self.damage(unit.offset, unit.len, &what);
            }
            Content::Sequence(Ok(header)) => {
                self.groups.sequence(&header);
                if self.last_sequence.as_ref() != Some(&header) {
                    let report = &mut self.report;
                    report.sequence_changes += 1;
                    if report.sequences.len() < MAX_LISTED {
                        let sequence = Sequence::new(&header, unit.offset, report.frames);
                        report.sequences.push(sequence);
                    }
                    self.last_sequence = Some(header);
                }
            }
            Content::Frame(Ok(frame)) => {
                let (times, lost) = self.groups.frame(&frame);
                let report = &mut self.report;
                report.undecodable += u64::from(lost.is_some());
                report.frames += 1;
                if frame.is_key() {
                    report.groups += 1;
                    self.group = 0;
                }
                self.group += 1;
                report.longest_group = report.longest_group.max(self.group);
                let key = (type_name(frame.frame_type), frame.level);
                let sums = self.kinds.entry(key).or_default();
                sums.0 += 1;
                sums.1 += unit.len;
                sums.2 += u64::from(frame.quantizer);
                let second = times.pts.map(|pts| pts / 1_000_000_000);
                if let Some(second) = second.filter(|&s| s < MAX_SECONDS) {
                    let second = second as usize;
                    if self.seconds.len() <= second {
                        self.seconds.resize(second + 1, 0);
                    }
                    self.seconds[second] += unit.len;
                }
            }
            Content::Other => {}
        }
    }

    fn finish(self, stream: &Stream, file: &Path) -> Report {
        let mut report = self.report;
        report.file = file.display().to_string();
        report.bytes = stream.len();
        report.bytes_read = stream.bytes_read();
        report.every_checksum = stream.depth() == Depth::All;
        report.duration = self.groups.end() as f64 / NS;
        let duration = report.duration;
        let rate = |bytes: u64| (duration > 0.0).then(|| bytes as f64 * 8.0 / 1000.0 / duration);
        report.rate = rate(stream.len());
        // Of whole seconds only: the last one may have just begun.
        let whole = &self.seconds[..self.seconds.len().min(duration as usize)];
        report.greatest_rate = whole.iter().max().map(|&b| b as f64 * 8.0 / 1000.0);
        report.by_type = self
            .kinds
            .into_iter()
            .map(|((kind, level), (frames, bytes, quantizers))| Kind {
                kind,
                level,
                frames,
                bytes,
                mean_quantizer: (kind != "repeat").then(|| quantizers as f64 / frames as f64),
                rate: rate(bytes),
            })
            .collect();
        report
            .by_type
            .sort_by_key(|k| (k.kind != "key", k.kind, k.level));
        report
    }
}

/// The subcommand.
pub fn run(options: &Options) -> Result<()> {
    let length = std::fs::metadata(&options.file).map_or(0, |m| m.len());
    let depth = if options.check || length <= SMALL {
        Depth::All
    } else {
        Depth::Headers
    };
    let mut stream = Stream::open(&options.file, depth)?;
    let mut gathered = Gathered::default();
    while let Some(piece) = stream.next()? {
        gathered.piece(piece);
    }
    let report = gathered.finish(&stream, &options.file);
    let mut out = stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report)?;
    }
    Ok(())
}

/// `h:mm:ss.mmm`, or seconds alone where there is no minute.
pub fn clock(seconds: f64) -> String {
    let ms = (seconds * 1000.0).round().max(0.0) as u64;
    let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    if h + m == 0 {
        format!("{s}.{ms:03} s")
    } else {
        format!("{h}:{m:02}:{s:02}.{ms:03}")
    }
}

fn fraction([n, d]: [u32; 2]) -> String {
    if d == 1 {
        n.to_string()
    } else {
        format!("{n}/{d}")
    }
}

fn print(out: &mut impl Write, r: &Report) -> std::io::Result<()> {
    writeln!(out, "{}: {} bytes", r.file, r.bytes)?;
    for s in &r.sequences {
        if r.sequence_changes > 1 {
            writeln!(out, "from frame {} (offset {}):", s.frame, s.offset)?;
        }
        print_sequence(out, s)?;
    }
    let more = r.sequence_changes - r.sequences.len() as u64;
    if more > 0 {
        writeln!(out, "and {more} more changes of the sequence header")?;
    }
    writeln!(
        out,
        "frames      {} in {} groups, the longest of {}",
        r.frames, r.groups, r.longest_group
    )?;
    write!(out, "duration    {}", clock(r.duration))?;
    if let Some(rate) = r.rate {
        write!(out, ", {rate:.1} kbit/s")?;
    }
    if let Some(rate) = r.greatest_rate {
        write!(out, ", at most {rate:.1} in any second")?;
    }
    writeln!(out)?;
    for k in &r.by_type {
        write!(
            out,
            "  {:6} level {}  {:7} frames  {:11} bytes  {:8.1} bytes a frame",
            k.kind,
            k.level,
            k.frames,
            k.bytes,
            k.bytes as f64 / k.frames as f64
        )?;
        if let Some(rate) = k.rate {
            write!(out, "  {rate:9.1} kbit/s")?;
        }
        match k.mean_quantizer {
            Some(q) => writeln!(out, "  quantizer {q:.1}")?,
            None => writeln!(out)?,
        }
    }
    let b = &r.bytes_by_type;
    writeln!(
        out,
        "bytes       {} of frames, {} of sequence headers, {} of filler, {} of metadata, {} of \
         unknown units, {} damaged",
        b.frames, b.sequence_headers, b.filler, b.metadata, b.unknown, b.damaged
    )?;
    let looked = if r.every_checksum {
        "every checksum was looked at"
    } else {
        "by headers alone; --check looks at every checksum"
    };
    if r.damaged_stretches == 0 {
        writeln!(out, "damage      none ({looked})")?;
    } else {
        writeln!(out, "damage      {} places ({looked})", r.damaged_stretches)?;
        for d in &r.damage {
            writeln!(
                out,
                "  offset {}: {} bytes, after {} frames: {}",
                d.offset, d.bytes, d.frame, d.what
            )?;
        }
        let more = r.damaged_stretches - r.damage.len() as u64;
        if more > 0 {
            writeln!(out, "  and {more} more")?;
        }
    }
    if r.undecodable > 0 {
        writeln!(
            out,
            "  {} sound frames cannot be decoded: frames that they need are missing",
            r.undecodable
        )?;
    }
    Ok(())
}

fn print_sequence(out: &mut impl Write, s: &Sequence) -> std::io::Result<()> {
    let known = if s.built_in {
        "built in"
    } else {
        "not built in"
    };
    writeln!(out, "bundle      {} {} ({known})", s.bundle, s.hash)?;
    write!(out, "pictures    {}x{}", s.width, s.height)?;
    let [left, top, right, bottom] = s.crop;
    if s.crop != [0; 4] {
        write!(
            out,
            ", shown {}x{} (cut off: left {left}, top {top}, right {right}, bottom {bottom})",
            s.width - left - right,
            s.height - top - bottom
        )?;
    }
    write!(out, ", {} bit {}", s.bit_depth, s.chroma)?;
    match s.frame_rate {
        Some(rate) => write!(out, ", {} frames/s", fraction(rate))?,
        None => write!(out, ", frame rate unknown or variable")?,
    }
    if s.pixel_aspect != [1, 1] {
        write!(out, ", pixels {}", fraction(s.pixel_aspect))?;
    }
    writeln!(out)?;
    write!(
        out,
        "colours     primaries {}, transfer {}, matrix {}, range {}",
        s.primaries, s.transfer, s.matrix, s.range
    )?;
    match s.chroma_site {
        Some(site) => writeln!(out, ", chroma site {site}")?,
        None => writeln!(out)?,
    }
    if let Some(m) = &s.mastering_display {
        writeln!(
            out,
            "HDR         mastered at {} to {} cd/m2, red {:?}, green {:?}, blue {:?}, white {:?}",
            m.least, m.greatest, m.red, m.green, m.blue, m.white
        )?;
    }
    if let Some(l) = &s.content_light {
        writeln!(
            out,
            "HDR         light at most {} cd/m2, {} in the mean of a frame",
            l.greatest, l.greatest_mean
        )?;
    }
    let interval = match s.key_interval {
        0 => "as the encoder chose".into(),
        n => format!("at least every {n} frames"),
    };
    writeln!(
        out,
        "structure   mini-GOPs of {}, {} frames reordered, {} references, key frames {interval}, \
         frame checksums: {}",
        s.mini_gop,
        s.max_reorder,
        s.max_references,
        if s.frame_checksums { "yes" } else { "no" }
    )?;
    let told = if s.level_stated {
        ""
    } else {
        " (by size, rate and memory; none is stated)"
    };
    write!(
        out,
        "decoding    profile {}, level {}{told}",
        s.profile, s.level
    )?;
    if let (Some(each), Some(second)) = (s.macs_per_sample, s.gmacs_per_second) {
        write!(out, ", {each} MAC a luma sample, {second:.1} GMAC/s")?;
        if s.frame_rate.is_none() {
            write!(out, " at 30 frames/s")?;
        }
    }
    writeln!(
        out,
        ", {:.1} MiB of pictures",
        s.picture_memory as f64 / f64::from(1 << 20)
    )
}

// SPDX-License-Identifier: MPL-2.0
//! `nnv units`: one line for each unit of a stream.

use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;

use clap::Args;
use nnv_bitstream::{ContextSource, FrameHeader, UnitType};

use crate::failure::Result;
use crate::groups::Groups;
use crate::info::type_name;
use crate::stream::{Content, Depth, Piece, Stream};

/// Prints one line for each unit: offset, type, length, what its header says
///
/// Damaged stretches are lines, too; nothing stops the walk.
#[derive(Args, Debug)]
pub struct Options {
    /// The stream
    file: PathBuf,
}

/// The subcommand.
pub fn run(options: &Options) -> Result<()> {
    let mut stream = Stream::open(&options.file, Depth::All)?;
    let mut out = BufWriter::new(stdout().lock());
    let mut groups = Groups::default();
    while let Some(piece) = stream.next()? {
        let unit = match piece {
            Piece::Damage { offset, len, what } => {
                writeln!(out, "{offset:10} DAMAGE   {len:8}  {what}")?;
                continue;
            }
            Piece::Unit(unit) => unit,
        };
        let name = match unit.kind {
            UnitType::Sequence => "sequence".into(),
            UnitType::Frame => "frame".into(),
            UnitType::Filler => "filler".into(),
            UnitType::FrameMetadata => "metadata".into(),
            UnitType::StreamMetadata => "tags".into(),
            UnitType::EncryptedFrame => "cipher".into(),
            UnitType::Unknown(code) => format!("type {code}"),
        };
        write!(out, "{:10} {name:8} {:8}", unit.offset, unit.len)?;
        match unit.content {
            Content::Other => writeln!(out, "  payload {}", unit.payload)?,
            Content::Sequence(Err(what)) | Content::Frame(Err(what)) => {
                writeln!(out, "  UNREADABLE: {what}")?;
            }
            Content::Sequence(Ok(header)) => {
                groups.sequence(&header);
                let rate = header.frame_rate;
                writeln!(
                    out,
                    "  {} {}  {}x{}  {} bit  {}/{} frames/s",
                    header.bundle_name,
                    nnv_nn::hex(&header.bundle_hash),
                    header.width,
                    header.height,
                    header.bit_depth,
                    rate.num,
                    rate.den
                )?;
            }
            Content::Frame(Ok(frame)) => {
                let (times, lost) = groups.frame(&frame);
                write!(out, "  {}", facts(&frame))?;
                if let Some(pts) = times.pts {
                    write!(out, "  at {:.3} s", pts as f64 / 1e9)?;
                }
                match lost {
                    Some(lost) => writeln!(out, "  UNDECODABLE: {}", lost.as_str())?,
                    None => writeln!(out)?,
                }
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// What a frame's header says, short.
fn facts(frame: &FrameHeader) -> String {
    let mut s = format!(
        "{:6} group {:3}  number {:5}  level {}  q {:2}",
        type_name(frame.frame_type),
        frame.gop,
        frame.poc,
        frame.level,
        frame.quantizer
    );
    let mut add = |what: String| {
        s.push_str("  ");
        s.push_str(&what);
    };
    let references = [frame.ref0, frame.ref1];
    let references: Vec<_> = references.iter().flatten().map(u32::to_string).collect();
    if !references.is_empty() {
        add(format!("refs {}", references.join(",")));
    }
    match frame.contexts {
        ContextSource::Tables => {}
        ContextSource::Ref0 => add("contexts ref0".into()),
        ContextSource::Ref1 => add("contexts ref1".into()),
    }
    if frame.keep {
        add("keep".into());
    }
    if !frame.released.is_empty() {
        let released: Vec<_> = frame.released.iter().map(u32::to_string).collect();
        add(format!("releases {}", released.join(",")));
    }
    if frame.quantizer_map {
        add("map".into());
    }
    if frame.ink {
        add("ink".into());
    }
    if let Some(pts) = frame.pts {
        add(format!("pts {pts}"));
    }
    if let Some(duration) = frame.duration {
        add(format!("duration {duration}"));
    }
    if let Some(checksum) = frame.checksum {
        add(format!("checksum {checksum:08x}"));
    }
    s
}

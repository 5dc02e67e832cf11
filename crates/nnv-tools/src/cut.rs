// SPDX-License-Identifier: MPL-2.0
//! `nnv cut` and `nnv join`: parts of streams and streams behind each other, without coding anew.
//!
//! A sequence header stands before each key frame, and a key frame drops all that was before it: a
//! stream may be cut before any sequence header, and any streams may stand behind each other,
//! whatever their sizes, rates and bundles are. What a decoder could not begin with is refused.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Failure, Result};
use crate::files::check_outputs;
use crate::groups::Groups;
use crate::info::clock;
use crate::stream::{Content, Depth, Piece, Stream, UnitAt};

/// Times within so many ns are one: what this program prints is rounded to ms.
const SAME: u64 = 500_000;

/// Copies a part of a stream, from key frame to key frame
///
/// The part begins with the last key frame at or before the one time, and ends before the first key
/// frame at or after the other. Damaged stretches are left out.
#[derive(Args, Debug)]
pub struct CutOptions {
    /// The stream
    file: PathBuf,
    /// Where the part goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Begin here: seconds, or [H:]MM:SS [default: the beginning]
    #[arg(long, value_name = "T", value_parser = time)]
    from: Option<u64>,
    /// End here [default: the end]
    #[arg(long, value_name = "T", value_parser = time)]
    to: Option<u64>,
}

/// Puts streams behind each other
///
/// They may differ in size, frame rate, depth and bundle: a decoder takes all of these anew at any
/// key frame. Refused is what no decoder could begin with: a file whose first frame is no key frame
/// with a sequence header before it. Damaged stretches are left out.
#[derive(Args, Debug)]
pub struct JoinOptions {
    /// The streams, in their order
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where all of them go
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// A time in ns: seconds, minutes and seconds, or hours, minutes and seconds.
fn time(text: &str) -> std::result::Result<u64, String> {
    let bad = || format!("{text:?} is no time; they look like 12.5, 1:30 or 1:02:03.5");
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 {
        return Err(bad());
    }
    let mut seconds = 0.0_f64;
    for (i, part) in parts.iter().enumerate() {
        let plain = part.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let value: f64 = part.parse().map_err(|_| bad())?;
        // Behind a colon follow minutes or seconds.
        if !plain || (i > 0 && value >= 60.0) {
            return Err(bad());
        }
        seconds = seconds * 60.0 + value;
    }
    if seconds > 1e9 {
        return Err(bad());
    }
    Ok((seconds * 1e9).round() as u64)
}

/// A file that appears under its name only when it is whole.
struct Output {
    path: PathBuf,
    part: PathBuf,
    out: Option<BufWriter<File>>,
}

impl Output {
    fn new(path: &Path, inputs: &[&Path]) -> Result<Self> {
        check_outputs(inputs.iter().copied(), [path])?;
        let mut name = path
            .file_name()
            .ok_or_else(|| Failure::Usage(format!("{} is no name of a file", path.display())))?
            .to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let out = File::create(&part).map_err(|e| Failure::file(path, e))?;
        Ok(Self {
            path: path.into(),
            part,
            out: Some(BufWriter::with_capacity(1 << 20, out)),
        })
    }

    fn copy(&mut self, stream: &mut Stream, unit: &UnitAt) -> Result<()> {
        let bytes = stream.bytes_of(unit.offset, unit.len)?;
        if let Some(out) = &mut self.out {
            out.write_all(&bytes)
                .map_err(|e| Failure::file(&self.path, e))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        let fail = |e: std::io::Error| Failure::file(&self.path, e);
        if let Some(mut out) = self.out.take() {
            out.flush().map_err(fail)?;
        }
        std::fs::rename(&self.part, &self.path).map_err(fail)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Not finished: nothing half stays. After a rename there is nothing to remove.
        let _ = std::fs::remove_file(&self.part);
    }
}

/// A place where a stream may be cut.
struct KeyFrame {
    offset: u64,
    /// In ns.
    pts: u64,
}

/// Finds key frames with a sequence header right before them, and where the stream ends.
fn key_frames(path: &Path) -> Result<(Vec<KeyFrame>, u64)> {
    let mut stream = Stream::open(path, Depth::Headers)?;
    let mut groups = Groups::default();
    let mut keys = Vec::new();
    // Where the sequence header of the access unit in progress begins.
    let mut begins = None;
    while let Some(piece) = stream.next()? {
        match piece {
            Piece::Damage { .. } => begins = None,
            Piece::Unit(unit) => match unit.content {
                Content::Sequence(Ok(header)) => {
                    groups.sequence(&header);
                    begins = Some(unit.offset);
                }
                Content::Sequence(Err(_)) | Content::Frame(Err(_)) => begins = None,
                Content::Frame(Ok(frame)) => {
                    let (times, _) = groups.frame(&frame);
                    if let (true, Some(offset), Some(pts)) = (frame.is_key(), begins, times.pts) {
                        keys.push(KeyFrame { offset, pts });
                    }
                    begins = None;
                }
                Content::Other => {}
            },
        }
    }
    Ok((keys, groups.end()))
}

/// `nnv cut`.
pub fn cut(options: &CutOptions) -> Result<()> {
    let (path, from) = (&options.file, options.from.unwrap_or(0));
    if options.to.is_some_and(|to| to <= from) {
        return Err(Failure::Usage("--to must be behind --from".into()));
    }
    let (keys, end) = key_frames(path)?;
    let first = keys
        .partition_point(|key| key.pts <= from)
        .saturating_sub(1);
    let Some(begin) = keys.get(first) else {
        return Err(Failure::file(
            path,
            "no key frame with a sequence header before it",
        ));
    };
    if from >= end {
        let what = format!("it ends at {}", clock(end as f64 / 1e9));
        return Err(Failure::file(path, what));
    }
    let behind = options.to.and_then(|to| {
        let at = keys
            .partition_point(|key| key.pts + SAME < to)
            .max(first + 1);
        keys.get(at)
    });
    let mut stream = Stream::open(path, Depth::All)?;
    let mut output = Output::new(&options.output, &[path])?;
    let mut copied = Copied::default();
    while let Some(piece) = stream.next()? {
        let offset = match &piece {
            Piece::Damage { offset, .. } => *offset,
            Piece::Unit(unit) => unit.offset,
        };
        if behind.is_some_and(|key| offset >= key.offset) {
            break;
        }
        if offset >= begin.offset {
            copied.piece(piece, &mut stream, &mut output)?;
        }
    }
    output.finish()?;
    let until = behind.map_or(end, |key| key.pts);
    eprintln!(
        "{}: {} to {}, {copied}",
        options.output.display(),
        clock(begin.pts as f64 / 1e9),
        clock(until as f64 / 1e9),
    );
    Ok(())
}

/// What became of the pieces.
#[derive(Default)]
struct Copied {
    frames: u64,
    bytes: u64,
    left_out: u64,
}

impl Copied {
    fn piece(&mut self, piece: Piece, stream: &mut Stream, output: &mut Output) -> Result<()> {
        match piece {
            Piece::Damage { len, .. } => self.left_out += len,
            Piece::Unit(unit) => {
                output.copy(stream, &unit)?;
                self.bytes += unit.len;
                self.frames += u64::from(matches!(unit.content, Content::Frame(_)));
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Copied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} frames, {} bytes", self.frames, self.bytes)?;
        if self.left_out > 0 {
            write!(f, "; {} damaged bytes left out", self.left_out)?;
        }
        Ok(())
    }
}

/// That a decoder can begin with this file.
fn check_beginning(path: &Path) -> Result<()> {
    let refuse = |offset: u64, what: &str| {
        Err(Failure::file(
            path,
            format!("offset {offset}: {what}; nnv cut begins at a key frame"),
        ))
    };
    let mut stream = Stream::open(path, Depth::All)?;
    let mut sequence = false;
    while let Some(piece) = stream.next()? {
        // The decoder passes over damage before it begins.
        let Piece::Unit(unit) = piece else { continue };
        match unit.content {
            Content::Sequence(Ok(_)) => sequence = true,
            Content::Sequence(Err(what)) => return refuse(unit.offset, &what),
            Content::Frame(Err(what)) => return refuse(unit.offset, &what),
            Content::Frame(Ok(frame)) if !frame.is_key() => {
                return refuse(unit.offset, "its first frame is no key frame");
            }
            Content::Frame(Ok(_)) if !sequence => {
                return refuse(unit.offset, "no sequence header before its first frame");
            }
            Content::Frame(Ok(_)) => return Ok(()),
            Content::Other => {}
        }
    }
    Err(Failure::file(path, "no frame in it"))
}

/// `nnv join`.
pub fn join(options: &JoinOptions) -> Result<()> {
    let copied = join_files(&options.files, &options.output)?;
    eprintln!("{}: {copied}", options.output.display());
    Ok(())
}

/// Puts streams behind each other, and says what was copied.
///
/// # Errors
/// A decoder could not begin with one of them, or a file cannot be read or written.
pub fn join_files(files: &[PathBuf], to: &Path) -> Result<impl std::fmt::Display + use<>> {
    for file in files {
        check_beginning(file)?;
    }
    let inputs: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let mut output = Output::new(to, &inputs)?;
    let mut copied = Copied::default();
    for file in files {
        let mut stream = Stream::open(file, Depth::All)?;
        while let Some(piece) = stream.next()? {
            copied.piece(piece, &mut stream, &mut output)?;
        }
    }
    output.finish()?;
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_read() {
        assert_eq!(time("12.5"), Ok(12_500_000_000));
        assert_eq!(time("1:30"), Ok(90_000_000_000));
        assert_eq!(time("1:02:03.5"), Ok(3_723_500_000_000));
        for bad in [
            "",
            "1:",
            "x",
            "-1",
            "1:60",
            "1:2:3:4",
            "1e9",
            "inf",
            "NaN",
            "9999999999",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! `nnv hls`: a file in fragments as segments for HTTP Live Streaming.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use clap::Args;
use nnv_mp4::hls::{Places, Segments};

use crate::failure::{Failure, Result};
use crate::files::check_outputs;

/// Makes a playlist for HTTP Live Streaming
///
/// The file must be in fragments (nnvmp4mux fragment-duration=2000). Its playlist names byte ranges
/// of it; with --output, a folder gets the playlist and a file for each segment. What was cut off
/// at the file's end is left out. Nothing is coded anew.
#[derive(Args, Debug)]
pub struct Options {
    /// The MP4 file
    file: PathBuf,
    /// Folder for index.m3u8, init.mp4 and the segments [default: FILE.m3u8 beside the file]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

const HEAD: &str = "init.mp4";
const PLAYLIST: &str = "index.m3u8";

fn segment_name(number: usize) -> String {
    format!("segment{number:05}.m4s")
}

/// A file's name as a relative address: what is no plain letter is written by its code.
fn address(name: &str) -> String {
    name.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(b).to_string()
            }
            b => format!("%{b:02X}"),
        })
        .collect()
}

fn copy(from: &mut File, at: u64, len: u64, to: &Path) -> std::io::Result<()> {
    from.seek(SeekFrom::Start(at))?;
    let mut to = File::create(to)?;
    std::io::copy(&mut Read::take(from, len), &mut to)?;
    Ok(())
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| Failure::file(&path, error)
    };
    let playlist = match &options.output {
        None => options.file.with_extension("m3u8"),
        Some(folder) => folder.join(PLAYLIST),
    };
    if options.output.is_none() {
        check_outputs([&*options.file], [&*playlist])?;
    }
    let mut file = File::open(&options.file).map_err(fail(&options.file))?;
    let segments = Segments::read(&mut file).map_err(|e| Failure::file(&options.file, e))?;
    let places = match &options.output {
        None => {
            let name = options.file.file_name().unwrap_or_default();
            Places::OneFile(address(&name.to_string_lossy()))
        }
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(fail(folder))?;
            let head = folder.join(HEAD);
            copy(&mut file, 0, segments.head, &head).map_err(fail(&head))?;
            for (number, segment) in segments.list.iter().enumerate() {
                let path = folder.join(segment_name(number));
                copy(&mut file, segment.at, segment.len, &path).map_err(fail(&path))?;
            }
            Places::Files {
                head: HEAD.into(),
                name: segment_name,
            }
        }
    };
    // Last: what it names is there.
    std::fs::write(&playlist, segments.playlist(&places)?).map_err(fail(&playlist))?;
    let seconds: f64 = segments.list.iter().map(|segment| segment.duration).sum();
    println!(
        "{}: {} segments, {seconds:.3} s",
        playlist.display(),
        segments.list.len()
    );
    Ok(())
}

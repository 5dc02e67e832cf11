// SPDX-License-Identifier: MPL-2.0
//! Shots behind each other in one file, with the sound and the subtitles of the source.

use std::path::Path;

use super::codec::Codec;
use super::gst;
use super::source::Track;
use crate::cut;
use crate::failure::{Failure, Result};

/// Most files that one pipeline reads: it opens all at once.
const AT_ONCE: usize = 100;

/// Holds what of one track comes before the muxer wants it: a second of it, which is what a queue
/// holds by itself, may be less than tracks of a file lie apart.
const QUEUE: &str = "queue max-size-buffers=0 max-size-time=0 max-size-bytes=67108864";

/// What is joined.
pub struct Joining<'a> {
    /// What the shots were coded with.
    pub codec: Codec,
    /// The muxer of the output.
    pub muxer: &'a str,
    /// Where the shots lie.
    pub folder: &'a Path,
    /// Their names, in order.
    pub files: &'a [String],
    /// The source.
    pub source: &'a Path,
    /// What of it is taken over.
    pub tracks: &'a [Track],
    /// Where all goes.
    pub output: &'a Path,
}

/// What stands between a track and a muxer; `None` where the muxer does not take it.
fn parser(caps: &str, muxer: &str) -> Option<&'static str> {
    let everywhere = match caps {
        "audio/mpeg,mpegversion=4" => Some("aacparse"),
        "audio/x-opus" => Some("opusparse"),
        // Out of Matroska it comes as markup, which no muxer takes. It is the same text: players
        // know the tags.
        "text/x-raw" => Some("capssetter caps=text/x-raw,format=utf8"),
        _ => None,
    };
    let not_nnv = match caps {
        "audio/mpeg,mpegversion=1" => Some("mpegaudioparse"),
        "audio/x-ac3" => Some("ac3parse"),
        _ => None,
    };
    let matroska = match caps {
        "audio/x-eac3" => Some("ac3parse"),
        "audio/x-flac" => Some("flacparse"),
        "audio/x-vorbis" | "audio/x-dts" | "audio/x-raw" => Some("identity"),
        "subpicture/x-dvd" | "subpicture/x-pgs" => Some("identity"),
        _ => None,
    };
    match muxer {
        "nnvmp4mux" => everywhere,
        "mp4mux" => everywhere.or(not_nnv),
        _ => everywhere.or(not_nnv).or(matroska),
    }
}

/// That the output takes all tracks.
///
/// # Errors
/// It does not take one.
pub fn check_tracks(tracks: &[Track], muxer: &str, output: &Path) -> Result<()> {
    match tracks
        .iter()
        .find(|track| parser(&track.caps, muxer).is_none())
    {
        None => Ok(()),
        Some(track) => Err(Failure::file(
            output,
            format!(
                "the source's track of {} does not go through {muxer}: {}",
                track.caps,
                match muxer {
                    "mp4mux" => "name the output .mkv",
                    _ => "convert the source's sound to AAC or Opus first",
                }
            ),
        )),
    }
}

/// Joins shots.
///
/// # Errors
/// What the pipeline says, or the output cannot be written.
pub fn join(joining: &Joining<'_>) -> Result<()> {
    let Joining {
        codec,
        muxer,
        folder,
        files,
        ..
    } = joining;
    let video = if *codec == Codec::Nnv {
        let paths: Vec<_> = files.iter().map(|file| folder.join(file)).collect();
        cut::join_files(&paths, &folder.join("joined.nnv"))?;
        format!("filesrc location=joined.nnv ! {}", codec.facts().parser)
    } else {
        let mut parts = files.to_vec();
        let mut round = 0;
        while parts.len() > AT_ONCE {
            round += 1;
            let mut joined = Vec::new();
            for (n, part) in parts.chunks(AT_ONCE).enumerate() {
                let name = format!("round{round}-{n:06}.mp4");
                let read = read(part, *codec);
                let pipeline = format!("{read} ! queue ! mp4mux ! filesink location={name}");
                gst::launch(folder, &pipeline, None)?;
                joined.push(name);
            }
            parts = joined;
        }
        read(&parts, *codec)
    };
    let part = "joined.part";
    let mut pipeline = format!("{video} ! queue ! {muxer} name=m ! filesink location={part}");
    if !joining.tracks.is_empty() {
        pipeline += &format!("  {} ! parsebin name=p", gst::SOURCE);
        for Track { caps } in joining.tracks {
            if let Some(parser) = parser(caps, muxer) {
                // The first filter chooses the track, the second one the muxer's pad.
                pipeline += &format!("  p. ! {caps} ! {QUEUE} ! {parser} ! {caps} ! m.");
            }
        }
    }
    // The pipeline runs in the folder.
    let source = joining.source.canonicalize();
    let source = source.map_err(|e| Failure::file(joining.source, e))?;
    gst::launch(folder, &pipeline, Some(&source))?;
    std::fs::rename(folder.join(part), joining.output).map_err(|e| Failure::file(joining.output, e))
}

/// What reads files behind each other: their pictures leave one pad, one time after the other.
fn read(files: &[String], codec: Codec) -> String {
    let parser = codec.facts().parser;
    let each = files
        .iter()
        .map(|file| format!("  filesrc location={file} ! qtdemux ! {parser} ! c."));
    let all = format!("{}  concat name=c ! {parser}", each.collect::<String>());
    match codec.facts().untold {
        Some(caps) => format!("{all} ! capssetter caps={caps}"),
        None => all,
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Files of `nnvmp4mux` over HTTP: by byte ranges, and as segments of HTTP Live Streaming.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use gst::prelude::*;
use nnv_mp4::hls::{Places, Segments};

use crate::mp4::{AAC, KINDS, VIDEO, by_name, make, plain};
use crate::util::*;

/// Serves a folder, with byte ranges, for as long as the process lives; returns its address.
fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || {
                // Clients that hang up are none of ours.
                let _ = answer(stream, &folder);
            });
        }
    });
    address
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let name = first
        .split(' ')
        .nth(1)
        .unwrap_or("/")
        .trim_start_matches('/')
        .to_owned();
    let mut range = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("range: bytes=") {
            let (from, to) = value.split_once('-').unwrap_or((value, ""));
            range = from
                .parse::<usize>()
                .ok()
                .map(|from| (from, to.parse::<usize>().ok()));
        }
    }
    let Ok(data) = std::fs::read(folder.join(&name)) else {
        return write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        );
    };
    let (status, from, to) = match range {
        Some((from, to)) if from < data.len() => {
            let to = to.map_or(data.len(), |to| (to + 1).min(data.len()));
            ("206 Partial Content", from, to)
        }
        _ => ("200 OK", 0, data.len()),
    };
    let kind = if name.ends_with("m3u8") {
        "application/vnd.apple.mpegurl"
    } else {
        "video/mp4"
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nAccept-Ranges: bytes\r\n\
         Content-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\nConnection: close\r\n\r\n",
        to - from,
        to.saturating_sub(1),
        data.len()
    )?;
    stream.write_all(&data[from..to])
}

/// Plays an address; what was shown, and how many buffers of sound came.
fn watch_player(player: &str, uri: &str) -> (Vec<u32>, usize) {
    patiently(player, |limit| {
        let video = element("fakesink", &[("sync", "false")]);
        let audio = element("fakesink", &[("sync", "false")]);
        let bin = element(player, &[("flags", "video+audio+soft-volume")]);
        bin.set_property("uri", uri);
        bin.set_property("video-sink", &video);
        bin.set_property("audio-sink", &audio);
        let seen = record(&video);
        let sound = crate::mp4::watch(&audio.static_pad("sink").unwrap());
        let mut outcome = Outcome::default();
        bin.set_state(gst::State::Playing).unwrap();
        let ended = ends_within(limit, &bin, &mut outcome);
        bin.set_state(gst::State::Null).unwrap();
        // Where the machine is busy, adaptivedemux now and then gives up a download.
        let gave_up = outcome
            .errors
            .iter()
            .any(|e| e.contains("downloading has failed"));
        if !ended || gave_up {
            return None;
        }
        outcome.sound();
        let sums = seen.lock().unwrap().0.iter().map(|s| s.checksum).collect();
        let sound = sound.lock().unwrap().len();
        Some((sums, sound))
    })
}

fn lacks(elements: &[&str]) -> bool {
    init();
    let lacking = |name: &&&str| gst::ElementFactory::find(name).is_none();
    let missing: Vec<_> = elements.iter().filter(lacking).collect();
    if !missing.is_empty() {
        eprintln!("NOT TESTED: GStreamer has no {missing:?}");
    }
    !missing.is_empty()
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = TempFile::new("served").0.clone();
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_play_over_http_by_byte_ranges() {
    if lacks(&["souphttpsrc"]) {
        return;
    }
    within(|| {
        let folder = Folder::new();
        let address = serve(&folder.0);
        for (number, kind) in KINDS.into_iter().enumerate() {
            let made = make(kind);
            let name = format!("{number}.mp4");
            std::fs::copy(&made.file.0, folder.0.join(&name)).unwrap();
            let linear = plain(&made.video).checksums();
            for player in ["playbin", "playbin3"] {
                let (shown, sound) = watch_player(player, &format!("{address}/{name}"));
                // The demuxer may leave out the last frames of a pushed file with B frames.
                let least = linear.len() - if kind.starts_with("frag") { 0 } else { 2 };
                assert!(shown.len() >= least, "{player} {kind}: {}", shown.len());
                assert_eq!(shown, linear[..shown.len()], "{player} {kind}");
                assert!(sound >= 90, "{player} {kind}: {sound} buffers of sound");
            }
        }
    });
}

#[test]
fn fragments_play_as_segments_of_http_live_streaming() {
    if lacks(&["souphttpsrc", "hlsdemux", "hlsdemux2"]) {
        return;
    }
    within(|| {
        let folder = Folder::new();
        let address = serve(&folder.0);
        // One sound: hlsdemux2 refuses several in one segment.
        let film = folder.0.join("film.mp4");
        let pipeline = launch(&format!(
            "nnvmp4mux name=mux fragment-duration=400 ! filesink location={} \
             {VIDEO} ! mux.video_0 {AAC} ! queue ! mux.audio_0",
            film.display()
        ));
        let video = crate::mp4::watch(&by_name(&pipeline, "enc").static_pad("src").unwrap());
        play(&pipeline).sound();
        let linear = plain(&video.lock().unwrap()).checksums();
        let segments = Segments::read(&mut std::fs::File::open(&film).unwrap()).unwrap();
        assert_eq!(segments.list.len(), 5);
        let ranges = segments
            .playlist(&Places::OneFile("film.mp4".into()))
            .unwrap();
        std::fs::write(folder.0.join("film.m3u8"), ranges).unwrap();
        let data = std::fs::read(&film).unwrap();
        std::fs::write(folder.0.join("init.mp4"), &data[..segments.head as usize]).unwrap();
        let name = |number| format!("segment{number}.m4s");
        for (number, segment) in segments.list.iter().enumerate() {
            let end = (segment.at + segment.len) as usize;
            let part = &data[segment.at as usize..end];
            std::fs::write(folder.0.join(name(number)), part).unwrap();
        }
        let files = Places::Files {
            head: "init.mp4".into(),
            name,
        };
        std::fs::write(
            folder.0.join("index.m3u8"),
            segments.playlist(&files).unwrap(),
        )
        .unwrap();
        for playlist in ["film.m3u8", "index.m3u8"] {
            // The one brings hlsdemux, the other hlsdemux2.
            for player in ["playbin", "playbin3"] {
                let (shown, sound) = watch_player(player, &format!("{address}/{playlist}"));
                assert_eq!(shown, linear, "{player} {playlist}");
                assert!(sound >= 90, "{player} {playlist}: {sound} buffers of sound");
            }
        }
        // A seek fetches the segment that holds the frame.
        let sink = element("fakesink", &[("sync", "false")]);
        let player = element("playbin", &[("flags", "video+soft-volume")]);
        player.set_property("uri", format!("{address}/film.m3u8"));
        player.set_property("video-sink", &sink);
        let seen = record(&sink);
        player.set_state(gst::State::Paused).unwrap();
        player.state(gst::ClockTime::from_seconds(60)).0.unwrap();
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
        player.seek_simple(flags, ms(40 * 30 + 5)).unwrap();
        player.state(gst::ClockTime::from_seconds(60)).0.unwrap();
        let shown = seen.lock().unwrap().0.first().cloned().unwrap();
        // hlsdemux counts from the first time of decoding, before the edit list: as many frames
        // off as are reordered, at most.
        let frame = linear.iter().position(|sum| *sum == shown.checksum);
        assert!(
            (28..=32).contains(&frame.unwrap()),
            "{frame:?}, {:?}",
            shown.pts
        );
        player.set_state(gst::State::Null).unwrap();
    });
}

// SPDX-License-Identifier: MPL-2.0
//! Files of `nnvmp4mux` as readers see them that know nothing of NNV: mp4box.js and mediabunny.
//! ffmpeg: `another_reader_finds_the_tracks` (mp4.rs).

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mp4::{FRAMES, KINDS, make};
use crate::util::*;

/// A track as a reader lists it.
#[derive(Debug)]
struct Track {
    kind: String,
    codec: String,
    seconds: f64,
    samples: usize,
    sync: usize,
    size: (f64, f64),
}

/// The folder of the readers, once they are installed.
fn readers() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers");
    let node = Command::new("node").arg("--version").output();
    let there = node.is_ok_and(|output| output.status.success());
    (there && folder.join("node_modules").is_dir()).then_some(folder)
}

fn read(folder: &Path, reader: &str, file: &str) -> Vec<Track> {
    let output = Command::new("node")
        .arg(folder.join("read.mjs"))
        .args([reader, file])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{reader}: {errors}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let [kind, codec, seconds, samples, sync, width, height] = fields[..] else {
                return None;
            };
            // What else it says are sentences.
            Some(Track {
                kind: kind.into(),
                codec: codec.into(),
                seconds: seconds.parse().ok()?,
                samples: samples.parse().ok()?,
                sync: sync.parse().ok()?,
                size: (width.parse().ok()?, height.parse().ok()?),
            })
        })
        .collect()
}

#[test]
fn other_readers_list_tracks_samples_and_key_frames() {
    within(|| {
        let Some(folder) = readers() else {
            eprintln!("NOT TESTED: needs Node 20, and `npm ci` in tests/readers");
            return;
        };
        for kind in KINDS {
            let made = make(kind);
            for reader in ["mp4box", "mediabunny"] {
                let tracks = read(&folder, reader, made.file.path());
                let what = format!("{reader} {kind}: {tracks:?}");
                let find = |codecs: [&str; 2]| {
                    let mut found = tracks.iter().filter(|t| codecs.contains(&&*t.codec));
                    let track = found.next().unwrap_or_else(|| panic!("{codecs:?}: {what}"));
                    assert!(found.next().is_none(), "{what}");
                    track
                };
                let video = find(["nnv1", "nnv1"]);
                // Key frames at 0, 12, 24, 36, 48.
                assert_eq!((video.samples, video.sync), (FRAMES, 5), "{what}");
                assert_eq!(video.size, (64.0, 48.0), "{what}");
                assert!((video.seconds - 2.0).abs() < 0.001, "{what}");
                let sounds = [
                    (["mp4a.40.2", "aac"], &made.aac, 1024.0),
                    (["Opus", "opus"], &made.opus, 960.0),
                ];
                for (codecs, given, samples) in sounds {
                    let sound = find(codecs);
                    assert_eq!(sound.kind, "audio", "{what}");
                    let all = given.len();
                    assert_eq!((sound.samples, sound.sync), (all, all), "{what}");
                    let seconds = all as f64 * samples / 48_000.0;
                    assert!((sound.seconds - seconds).abs() < 0.001, "{what}");
                }
                if reader == "mp4box" {
                    let text = find(["tx3g", "tx3g"]);
                    // Two texts, and nothing before each.
                    assert_eq!((text.samples, text.sync), (4, 4), "{what}");
                    assert!((text.seconds - 1.9).abs() < 0.001, "{what}");
                }
            }
        }
    });
}

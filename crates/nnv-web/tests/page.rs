// SPDX-License-Identifier: MPL-2.0
//! What a page does with the decoder, natively: the same kernels and the same code but for the
//! bindings, which `web/tests` covers in a browser.

use std::path::{Path, PathBuf};

use md5::{Digest, Md5};
use nnv_kernels::Kernels;
use nnv_nn::MemoryBundle;
use nnv_web::sequence::{is_grey, shown_size};
use nnv_web::{Chunk, Event, NeededBundle, PageDecoder, PageError, PageOptions, Shown, Splitter};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Lines of a list of MD5s, in fields.
fn list(path: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split(' ').map(str::to_owned).collect())
        .collect()
}

fn files(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = root().join("models").join(name);
    MemoryBundle::wanted()
        .map(|file| (file.to_owned(), std::fs::read(folder.join(file)).unwrap()))
        .collect()
}

/// Loads what is needed: of an earlier version or of this one.
fn fetch(decoder: &mut PageDecoder<Kernels>, needed: Option<NeededBundle>) {
    if let Some(needed) = needed {
        let earlier = format!("earlier/{}-{}", needed.name, nnv_nn::hex(&needed.hash));
        let name = match root().join("models").join(&earlier).is_dir() {
            true => &earlier,
            false => &needed.name,
        };
        decoder.load(&needed, "here", files(name)).unwrap();
    }
}

fn split(bytes: &[u8], step: usize) -> (Vec<Chunk>, u64) {
    let mut splitter = Splitter::default();
    let mut chunks: Vec<Chunk> = (bytes.chunks(step))
        .flat_map(|part| splitter.push(part))
        .collect();
    chunks.extend(splitter.finish());
    (chunks, splitter.skipped())
}

fn decode(decoder: &mut PageDecoder<Kernels>, chunks: &[Chunk]) -> Vec<(u64, Vec<u8>, Shown)> {
    let mut out = Vec::new();
    let mut take = |decoder: &mut PageDecoder<Kernels>| {
        while let Some(event) = decoder.receive() {
            if let Event::Shown(shown) = event {
                let mut samples = vec![0; shown.len()];
                shown.write(&mut samples).unwrap();
                out.push((shown.id, samples, shown));
            }
        }
    };
    for (id, chunk) in chunks.iter().enumerate() {
        let needed = decoder.needs(&chunk.data).unwrap();
        fetch(decoder, needed);
        decoder.send(&chunk.data, id as u64).unwrap();
        take(decoder);
    }
    decoder.finish().unwrap();
    take(decoder);
    out
}

fn md5(frames: &[(u64, Vec<u8>, Shown)]) -> String {
    let mut sum = Md5::new();
    frames
        .iter()
        .for_each(|(_, samples, _)| sum.update(samples));
    nnv_nn::hex(&sum.finalize())
}

/// The first MD5 of tests/conformance/README.md: of sizes, checksums and times.
fn listed(frames: &[(u64, Vec<u8>, Shown)], chunks: &[Chunk]) -> String {
    let mut sum = Md5::new();
    for (id, samples, shown) in frames {
        let info = &shown.info;
        let (width, height) = shown_size(info);
        let format = match (is_grey(info), info.bit_depth) {
            (false, 8) => "I420",
            (false, _) => "I420_10LE",
            (true, 8) => "GRAY8",
            (true, _) => "GRAY16_LE",
        };
        let crc = match info.bit_depth {
            8 => {
                let words = samples.iter().map(|&v| 4 * u16::from(v));
                let bytes: Vec<u8> = words.flat_map(u16::to_le_bytes).collect();
                crc32c::crc32c(&bytes)
            }
            _ => crc32c::crc32c(samples),
        };
        let time = Some(chunks[*id as usize].pts);
        sum.update(format!("{format} {width}x{height} {crc:08x} {time:?}\n"));
    }
    nnv_nn::hex(&sum.finalize())
}

fn stream(path: &str) -> Vec<u8> {
    std::fs::read(root().join(path)).unwrap()
}

#[test]
fn conformance_streams_have_their_pixels() {
    let mut decoder = PageDecoder::new(Kernels, PageOptions::default());
    for line in list("tests/conformance/MD5SUMS") {
        let [name, count, list, plain, _] = &line[..] else {
            panic!("{line:?}")
        };
        let bytes = stream(&format!("tests/conformance/{name}.nnv"));
        let (chunks, skipped) = split(&bytes, 100);
        assert_eq!((skipped, chunks.clone()), (0, split(&bytes, 1).0));
        decoder.configure(PageOptions {
            conceal: false,
            ..PageOptions::default()
        });
        let frames = decode(&mut decoder, &chunks);
        assert_eq!(frames.len().to_string(), *count, "{name}");
        assert_eq!(listed(&frames, &chunks), *list, "{name}");
        let times = frames.iter().map(|(id, ..)| chunks[*id as usize].pts);
        assert!(times.is_sorted(), "{name}");
        if plain != "-" {
            assert_eq!(md5(&frames), *plain, "{name}");
        }
        assert!(frames.iter().all(|(_, _, shown)| !shown.concealed));
    }
}

#[test]
fn damage_is_concealed_as_the_element_does() {
    let mut decoder = PageDecoder::new(Kernels, PageOptions::default());
    for line in list("web/tests/streams/MD5SUMS") {
        let bytes = stream(&format!("web/tests/streams/{}.nnv", line[0]));
        let (chunks, _) = split(&bytes, 333);
        decoder.configure(PageOptions::default());
        let frames = decode(&mut decoder, &chunks);
        assert_eq!(frames.len().to_string(), line[1], "{}", line[0]);
        assert_eq!(md5(&frames), line[2], "{}", line[0]);
        assert!(frames.iter().any(|(_, _, shown)| shown.concealed));
    }
}

#[test]
fn splitters_join_at_key_frames_and_keep_time() {
    let bytes = stream("tests/conformance/key-check.nnv");
    let (whole, _) = split(&bytes, bytes.len());
    let second = (1..whole.len()).find(|&i| whole[i].key).unwrap();
    let at: usize = whole[..second].iter().map(|c| c.data.len()).sum();
    let mut splitter = Splitter::default();
    splitter.push(&bytes[..at / 2]);
    splitter.restart(Some(whole[second].pts));
    let mut again = splitter.push(&bytes[at..]);
    again.extend(splitter.finish());
    assert_eq!(again, whole[second..]);
    // In the middle of a group nothing comes before the next key frame.
    let inside = at - whole[second - 1].data.len();
    let mut splitter = Splitter::default();
    splitter.restart(None);
    let mut joined = splitter.push(&bytes[inside..]);
    joined.extend(splitter.finish());
    let data = |chunks: &[Chunk]| chunks.iter().map(|c| c.data.clone()).collect::<Vec<_>>();
    assert_eq!(data(&joined), data(&whole[second..]));
    assert_eq!(splitter.skipped(), whole[second - 1].data.len() as u64);
}

#[test]
fn what_cannot_be_decoded_is_told_by_class() {
    let bytes = stream("tests/conformance/ink.nnv");
    let (chunks, _) = split(&bytes, bytes.len());
    let mut decoder = PageDecoder::new(Kernels, PageOptions::default());
    let unloaded = decoder.send(&chunks[0].data, 0).unwrap_err();
    assert_eq!(unloaded.name(), "NotSupportedError");
    let needed = decoder.needs(&chunks[0].data).unwrap().unwrap();
    let other = decoder.load(&needed, "there", files("visual")).unwrap_err();
    assert!(
        other.to_string().contains("there has visual with hash"),
        "{other}"
    );
    let mut cut = files("realtime");
    let (name, bytes) = cut.last_mut().unwrap();
    bytes.truncate(100);
    let name = name.clone();
    let error = decoder.load(&needed, "there", cut).unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    decoder.configure(PageOptions {
        max_pixels: 100,
        ..PageOptions::default()
    });
    let large = decoder.needs(&chunks[0].data).unwrap_err();
    assert!(large.to_string().contains("maxPixels"), "{large}");
    assert!(matches!(large, PageError::NotSupported(_)));
    let mut sequence = nnv_web::sequence_in(&chunks[0].data).unwrap().header;
    (sequence.width, sequence.height) = (1280, 720);
    sequence.state_cost(9548);
    let description = sequence.to_payload().unwrap();
    let max_level = "2".parse().unwrap();
    decoder.configure(PageOptions {
        max_level,
        ..PageOptions::default()
    });
    let high = decoder.needs_described(&description).unwrap_err();
    assert_eq!(high.name(), "NotSupportedError");
    assert!(high.to_string().contains("maxLevel, 2"), "{high}");
    let no_header = decoder.describe(b"<html>").unwrap_err();
    assert_eq!(no_header.name(), "DataError");
}

// SPDX-License-Identifier: MPL-2.0
//! Makes `fuzz/corpus`, the inputs that fuzzing starts from, of the conformance streams and of the
//! H.264 fixtures. To be run in the root of the repository:
//!
//! ```sh
//! cargo run -p nnv-bitstream --example fuzz_corpus
//! ```

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use nnv_bitstream::{
    AccessUnitScan, FrameMetadata, FramePayload, SequenceHeader, StreamMetadata, UnitScanner,
    scan_access_unit,
};

/// Longest input; fuzzing tries shorter ones more often.
const LONGEST: usize = 2048;
/// Most inputs of a kind from one stream.
const EACH: usize = 3;

fn files(folder: &str, extension: &str) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut paths: Vec<_> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|e| e == extension));
    paths.sort();
    Ok(paths)
}

struct Corpus {
    /// Of the stream at hand.
    name: String,
    written: usize,
}

impl Corpus {
    fn put(&mut self, target: &str, n: usize, parts: &[&[u8]]) -> Result<(), Box<dyn Error>> {
        let data = parts.concat();
        if parts.last().is_none_or(|part| part.is_empty()) || n >= EACH {
            return Ok(());
        }
        let folder = Path::new("fuzz/corpus").join(target);
        fs::create_dir_all(&folder)?;
        let data = &data[..data.len().min(LONGEST)];
        fs::write(folder.join(format!("{}-{n}", self.name)), data)?;
        self.written += 1;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut corpus = Corpus {
        name: String::new(),
        written: 0,
    };
    let stem = |path: &Path| {
        let stem = path.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    };
    for path in files("tests/conformance", "nnv")? {
        corpus.name = stem(&path);
        let data = fs::read(&path)?;
        corpus.put("scanner", 0, &[&[60], &data])?;
        corpus.put("index", 0, &[&data])?;
        let (mut rest, mut header, mut n) = (&data[..], None::<SequenceHeader>, [0; 7]);
        let mut next = |i: usize| {
            n[i] += 1;
            n[i] - 1
        };
        while let AccessUnitScan::Unit(unit) = scan_access_unit(&UnitScanner::new(), rest, true) {
            let bytes = &rest[..unit.len];
            if let Some(metadata) = FrameMetadata::of_access_unit(bytes) {
                corpus.put("metadata", next(5), &[&[0], &metadata.to_payload()])?;
                corpus.put("metadata", next(5), &[&[2], bytes])?;
            }
            if let Some(metadata) = StreamMetadata::of_access_unit(bytes) {
                corpus.put("metadata", next(5), &[&[1], &metadata.to_payload()])?;
            }
            rest = &rest[unit.len..];
            if let Some(sequence) = unit.sequence {
                corpus.put("headers", next(0), &[&sequence.to_payload()?])?;
                header = Some(sequence);
            }
            let Some(sequence) = &header else { continue };
            let streams = sequence.y_streams(unit.frame.frame_type);
            corpus.put("headers", next(0), &[&[streams - 1], unit.payload])?;
            let frame = FramePayload::parse(unit.payload, streams)?;
            let y = frame.y.first().copied().unwrap_or_default();
            let seed: [u8; 16] = std::array::from_fn(|i| 7 * i as u8);
            corpus.put("coefficients", next(1), &[&seed, frame.z, y])?;
            corpus.put("ink", next(2), &[frame.ink])?;
            corpus.put("motion", next(3), &[&[1, 2], frame.side])?;
            corpus.put("quantizer_map", next(4), &[&[7, 5], frame.map])?;
            corpus.put("still_map", next(6), &[&[14, 10], frame.still])?;
        }
    }
    for path in files("tests/fixtures/h264", "h264")? {
        corpus.name = stem(&path);
        corpus.put("h264", 0, &[&[128], &fs::read(&path)?])?;
    }
    println!("{} inputs in fuzz/corpus", corpus.written);
    Ok(())
}

// SPDX-License-Identifier: MPL-2.0
//! The index of any file ends, is in order, and reads each part a few times at most; times never
//! overflow.
#![no_main]

use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use nnv_bitstream::index::{Index, Progress, Timeline};
use nnv_bitstream::{AccessUnitScan, AccessUnitScanner};

fuzz_target!(|data: &[u8]| {
    let mut index = Index::default();
    let mut reads = 0;
    let read = |offset: u64, size: usize| {
        reads += 1;
        let from = (offset as usize).min(data.len());
        Ok::<_, Infallible>(data[from..(from + size).min(data.len())].to_vec())
    };
    assert_eq!(index.scan(None, read), Ok(Progress::Complete));
    assert!(reads < 16 + data.len() / 8, "{reads} reads");
    assert!(index.keys().is_sorted_by(|a, b| a.offset < b.offset));
    let mut timeline = Timeline::default();
    let mut scanner = AccessUnitScanner::default();
    let mut pos = 0;
    loop {
        match scanner.scan(pos as u64, &data[pos..], true) {
            AccessUnitScan::Unit(unit) => {
                if let Some(header) = &unit.sequence {
                    timeline.set_rate(header.frame_rate);
                }
                if data[pos] & 1 == 0 {
                    timeline.jump_to(unit.frame.pts.unwrap_or(7) as u64);
                }
                timeline.times(&unit.frame);
                pos += unit.len;
            }
            AccessUnitScan::Skip(n)
            | AccessUnitScan::Repeated(n)
            | AccessUnitScan::Unsupported(n, _) => pos += n,
            AccessUnitScan::NeedMore(_) => panic!("there is no more"),
            AccessUnitScan::End => break,
        }
    }
});

// SPDX-License-Identifier: MPL-2.0
//! The scanner always gets ahead, never beyond the data, and finds the same units whatever the
//! chunks.
#![no_main]

use nnv_bitstream::{AccessUnitScan, Scan, UnitScanner, scan_access_unit};
use libfuzzer_sys::fuzz_target;

fn units(scanner: &UnitScanner, data: &[u8], chunk: usize) -> Vec<(u8, Vec<u8>)> {
    let (mut pos, mut end, mut found) = (0, 0, Vec::new());
    loop {
        match scanner.scan(&data[pos..end], end == data.len()) {
            Scan::Unit(u) => {
                found.push((u.kind.code(), u.payload.to_vec()));
                pos += u.len;
            }
            Scan::Skip(n) => {
                assert!(n > 0 && pos + n <= end);
                pos += n;
            }
            Scan::NeedMore(n) => {
                assert!(n > end - pos && end < data.len());
                end = (end + chunk).min(data.len());
            }
            Scan::End => return found,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&chunk, data)) = data.split_first() else { return };
    let scanner = UnitScanner::with_max_payload(1 << 12);
    let whole = units(&scanner, data, data.len().max(1));
    assert_eq!(whole, units(&scanner, data, usize::from(chunk) + 1));
    let mut pos = 0;
    loop {
        match scan_access_unit(&scanner, &data[pos..], true) {
            AccessUnitScan::Unit(u) => pos += u.len,
            AccessUnitScan::Skip(n) | AccessUnitScan::Unsupported(n, _) => {
                assert!(n > 0);
                pos += n;
            }
            AccessUnitScan::NeedMore(_) => panic!("there is no more"),
            AccessUnitScan::End => break,
        }
    }
});

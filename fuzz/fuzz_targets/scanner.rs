// SPDX-License-Identifier: MPL-2.0
//! The scanners always get ahead, never beyond the data, and find the same units whatever the
//! chunks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nnv_bitstream::{AccessUnitScan, AccessUnitScanner, Scan, UnitScanner};

/// Codes and payloads of all sound units.
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

/// Places and lengths of all access units.
fn access_units(data: &[u8], chunk: usize) -> Vec<(usize, usize)> {
    let mut scanner = AccessUnitScanner::default();
    scanner.set_pictures(64, 48);
    let (mut pos, mut end, mut found) = (0, 0, Vec::new());
    loop {
        match scanner.scan(pos as u64, &data[pos..end], end == data.len()) {
            AccessUnitScan::Unit(u) => {
                found.push((pos, u.len));
                pos += u.len;
            }
            AccessUnitScan::Skip(n)
            | AccessUnitScan::Repeated(n)
            | AccessUnitScan::Unsupported(n, _) => {
                assert!(n > 0 && pos + n <= end);
                pos += n;
            }
            AccessUnitScan::NeedMore(n) => {
                assert!(n > end - pos && end < data.len());
                end = (end + chunk).min(data.len());
            }
            AccessUnitScan::End => return found,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&chunk, data)) = data.split_first() else {
        return;
    };
    let chunk = usize::from(chunk) + 1;
    let scanner = UnitScanner::with_max_payload(1 << 12);
    let whole = units(&scanner, data, data.len().max(1));
    let parts = units(&scanner, data, chunk);
    // A unit within a unit, which writers must not make, ends a wait for the outer one.
    let nested = |units: &[(u8, Vec<u8>)]| {
        units
            .iter()
            .any(|(_, payload)| !units_in(&scanner, payload).is_empty())
    };
    if nested(&whole) || nested(&parts) {
        return;
    }
    assert_eq!(whole, parts);
    assert_eq!(
        access_units(data, data.len().max(1)),
        access_units(data, chunk)
    );
});

fn units_in(scanner: &UnitScanner, payload: &[u8]) -> Vec<(u8, Vec<u8>)> {
    units(scanner, payload, payload.len().max(1))
}

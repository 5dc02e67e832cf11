// SPDX-License-Identifier: MPL-2.0
//! Any data decodes to symbols within their limits or to an error; what decodes without error
//! encodes to the same bytes.
#![no_main]

use std::sync::Arc;

use nnv_format::entropy::{SymbolContexts, SymbolTables};
use libfuzzer_sys::fuzz_target;

const CHANNELS: usize = 8;
const SIZE: usize = 9;

fuzz_target!(|data: &[u8]| {
    let y: Vec<u16> = (0..64 * 15).map(|i| (600 + (i / 15) * 900 + (i % 15) * 50) as u16).collect();
    let order: Vec<u16> = (0..CHANNELS as u16).rev().collect();
    let Ok(tables) = SymbolTables::new(&y, &[3000; 2 * 15], &order) else { return };
    let Ok(mut dec) = SymbolContexts::new(Arc::new(tables), SIZE, SIZE, 1) else { return };
    let mut enc = dec.clone();
    let (seed, data) = data.split_at(data.len().min(16));
    let scales: Vec<u8> = (0..CHANNELS * SIZE * SIZE)
        .map(|i| seed.get(i * 7 % 16).map_or(0, |s| s & 63))
        .collect();
    let (z, y) = data.split_at(data.len() / 8);
    if let Ok(symbols) = dec.decode_z(z) {
        // Damage can say "something is there" and then code nothing: no encoder writes that.
        if symbols.iter().any(|&v| v != 0) {
            enc.encode_z(&symbols).expect("decoded symbols can be coded");
        }
    }
    let mut enc = enc.clone();
    if let Ok(symbols) = dec.decode_y(&[y], &scales) {
        let symbols = symbols.to_dense();
        assert!(symbols.iter().all(|v| v.unsigned_abs() <= 2047));
        enc.encode_y(&scales, &symbols).expect("decoded symbols can be coded");
    }
});

// SPDX-License-Identifier: MPL-2.0
//! Any data decodes to an ink layer that leaves samples within their limits, or to an error.
#![no_main]

use nnv_format::{ink::InkLayer, picture::Picture};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (width, height) = (112, 48);
    let Ok(layer) = InkLayer::decode(data, width, height) else { return };
    let mut picture = Picture::new(width as u32, height as u32).expect("the size is possible");
    let len = width * height * 3 / 2;
    let (mut p, mut d) = (vec![0; len], vec![0; len]);
    layer.ground(&mut p, &mut d);
    assert!(p.iter().all(|v| (-512..512).contains(v)));
    layer.apply(&mut picture);
    assert!(picture.planes().iter().flat_map(|p| p.data()).all(|&v| v <= 1023));
});

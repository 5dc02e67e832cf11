// SPDX-License-Identifier: MPL-2.0
//! Any data decodes to a map within its limits, which codes to what decodes to it again, or to an
//! error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nnv_format::entropy::{Decoder, Encoder};
use nnv_format::quantizer_map::{QuantizerMap, VALUES};

fuzz_target!(|data: &[u8]| {
    let Some((&[width, height], data)) = data.split_first_chunk() else {
        return;
    };
    let (width, height) = (usize::from(width % 40) + 1, usize::from(height % 40) + 1);
    let mut decoder = Decoder::new(data);
    let Ok(map) = QuantizerMap::decode(&mut decoder, width, height) else {
        return;
    };
    let _ = decoder.finish();
    let mut values = map.values().iter();
    assert!(values.all(|&v| VALUES.contains(&i32::from(v))));
    let mut encoder = Encoder::new();
    map.encode(&mut encoder);
    let bytes = encoder.finish();
    let mut decoder = Decoder::new(&bytes);
    let again = QuantizerMap::decode(&mut decoder, width, height).expect("it was written so");
    assert!(decoder.finish().is_ok());
    assert_eq!(again.values(), map.values());
});

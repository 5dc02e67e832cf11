// SPDX-License-Identifier: MPL-2.0
//! Any data decodes to a map, with or without one before it, which codes to what decodes to it
//! again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nnv_format::entropy::Decoder;
use nnv_format::grid::Grid;
use nnv_format::still::{StillContexts, StillMap};

fuzz_target!(|data: &[u8]| {
    let Some((&[width, height], data)) = data.split_first_chunk() else {
        return;
    };
    let (width, height) = (usize::from(width % 40) + 1, usize::from(height % 40) + 1);
    let grid = Grid::new(height, width).expect("a small grid");
    let (first, second) = data.split_at(data.len() / 2);
    let mut contexts = StillContexts::default();
    let mut decoder = Decoder::new(first);
    let before = StillMap::decode(&mut decoder, &mut contexts, None, grid);
    let _ = decoder.finish();
    let mut again = contexts.clone();
    let start = contexts.clone();
    let mut decoder = Decoder::new(second);
    let map = StillMap::decode(&mut decoder, &mut contexts, Some(&before), grid);
    let _ = decoder.finish();
    let bytes = map.to_bytes(&mut again, Some(&before));
    assert_eq!(again, contexts);
    let mut contexts = start;
    let mut decoder = Decoder::new(&bytes);
    assert_eq!(StillMap::decode(&mut decoder, &mut contexts, Some(&before), grid), map);
    assert!(decoder.finish().is_ok());
    let mut scales = vec![7; 384 * map.places().len()];
    map.mask_scales(&mut scales);
    let coded = scales.iter().filter(|&&s| s == 7).count();
    assert_eq!(coded, 384 * (map.places().len() - map.count()));
});

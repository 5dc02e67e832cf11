// SPDX-License-Identifier: MPL-2.0
//! Any access units give quantizers within H.264's limits, whole maps, or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nnv_h264::{Picture, Reader};

fn check(picture: &Picture) {
    if let Some(map) = &picture.map {
        assert_eq!(map.blocks.len(), map.width * map.height);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    // Two access units, so that what the first leaves behind is met.
    let (first, second) = data.split_at(data.len() * usize::from(kind >> 1) / 128);
    let mut reader = if kind & 1 == 0 {
        Reader::byte_stream()
    } else {
        match Reader::packetized(first) {
            Some(reader) => reader,
            None => return,
        }
    };
    for unit in [first, second, first] {
        reader.picture(unit).iter().for_each(check);
    }
});

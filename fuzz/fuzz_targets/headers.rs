// SPDX-License-Identifier: MPL-2.0
//! A header that parses is valid and has one form only: written again it gives the same bytes.
#![no_main]

use nnv_bitstream::{FramePayload, SequenceHeader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(h) = SequenceHeader::parse(data) {
        assert_eq!(h.to_payload().as_deref(), Ok(data));
    }
    if let Some((&streams, data)) = data.split_first() {
        let streams = streams % 8 + 1;
        if let Ok(f) = FramePayload::parse(data, streams) {
            assert_eq!(f.to_payload(streams).as_deref(), Ok(data));
        }
    }
});

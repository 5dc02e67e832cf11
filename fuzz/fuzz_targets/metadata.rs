// SPDX-License-Identifier: MPL-2.0
//! Metadata that parses has one form only and is within its limits; an access unit may hold
//! anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nnv_bitstream::limits::MAX_METADATA_ITEMS;
use nnv_bitstream::metadata::{Item, Metadata};
use nnv_bitstream::{FrameMetadata, StreamMetadata};

fn check<I: Item + Clone + std::fmt::Debug>(data: &[u8]) {
    let Ok(metadata) = Metadata::<I>::parse(data) else {
        return;
    };
    assert!(metadata.items().len() <= MAX_METADATA_ITEMS);
    assert_eq!(metadata.to_payload(), data);
    // What was read can be written, one by one, and is found again.
    let mut again = Metadata::<I>::default();
    for item in metadata.items() {
        assert_eq!(again.push(item.clone()), Ok(()));
    }
    assert_eq!(again, metadata);
    if !metadata.is_empty() {
        assert_eq!(Metadata::of_access_unit(&metadata.to_unit()), Some(metadata));
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, payload)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => check::<nnv_bitstream::metadata::FrameItem>(payload),
        1 => check::<nnv_bitstream::metadata::StreamItem>(payload),
        _ => {
            FrameMetadata::of_access_unit(payload);
            StreamMetadata::of_access_unit(payload);
        }
    }
});

// SPDX-License-Identifier: MPL-2.0
//! Recognises NNV streams by their first unit.

use gst::glib;
use gst::{TypeFind, TypeFindProbability};

use crate::common::MEDIA_TYPE;
use nnv_bitstream::sequence::MAGIC;
use nnv_bitstream::unit::START_CODE;
use nnv_bitstream::{Peek, UnitType, peek_unit};

/// How far a stream that begins in the middle of a unit is searched.
const WINDOW: usize = 64 * 1024;

fn probability(data: &[u8]) -> Option<TypeFindProbability> {
    let header_at = |at: usize| match peek_unit(&data[at..]) {
        Peek::Sound(UnitType::Sequence, payload) => data
            .get(at + payload.start..)
            .is_some_and(|payload| payload.starts_with(&MAGIC)),
        _ => false,
    };
    if header_at(0) {
        return Some(TypeFindProbability::Maximum);
    }
    (1..data.len())
        .filter(|&at| data[at] == START_CODE[0])
        .any(header_at)
        .then_some(TypeFindProbability::Likely)
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    let caps = gst::Caps::new_empty_simple(MEDIA_TYPE);
    TypeFind::register(
        Some(plugin),
        MEDIA_TYPE,
        gst::Rank::PRIMARY,
        Some("nnv"),
        Some(&caps.clone()),
        move |find| {
            let length = find.length().unwrap_or(WINDOW as u64).min(WINDOW as u64) as u32;
            // Push-mode sources may have less than that: any beginning will do.
            let mut size = length;
            let found = loop {
                if let Some(data) = find.peek(0, size) {
                    break probability(data);
                }
                if size <= 32 {
                    break None;
                }
                size /= 2;
            };
            if let Some(probability) = found {
                find.suggest(probability, &caps);
            }
        },
    )
}

// SPDX-License-Identifier: MPL-2.0
//! Title, artist and the like, as most readers expect them (`udta`/`meta`/`ilst`).

use shiguredo_mp4::boxes::UnknownBox;
use shiguredo_mp4::{BoxSize, BoxType};

/// A tag of the whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// A text, by the type of its box: `©nam` and so on.
    Text([u8; 4], String),
    /// Number of the track, and of how many; 0 for unknown.
    Number(u16, u16),
}

/// Data is UTF-8, or is a number.
const UTF8: u32 = 1;
const BINARY: u32 = 0;

fn put_box(kind: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len() + 8).unwrap_or(u32::MAX);
    [&size.to_be_bytes(), &kind, payload].concat()
}

fn data(kind: u32, payload: &[u8]) -> Vec<u8> {
    put_box(*b"data", &[&kind.to_be_bytes(), &[0; 4], payload].concat())
}

/// The box `udta`; `None` where there is nothing to say.
pub(crate) fn udta(tags: &[Tag]) -> Option<UnknownBox> {
    if tags.is_empty() {
        return None;
    }
    let items: Vec<u8> = tags
        .iter()
        .flat_map(|tag| match tag {
            Tag::Text(kind, text) => put_box(*kind, &data(UTF8, text.as_bytes())),
            Tag::Number(number, of) => {
                let [a, b] = [number, of].map(|n| n.to_be_bytes());
                put_box(
                    *b"trkn",
                    &data(BINARY, &[0, 0, a[0], a[1], b[0], b[1], 0, 0]),
                )
            }
        })
        .collect();
    let mut handler = vec![0; 8];
    handler.extend(b"mdirappl");
    handler.extend([0; 9]);
    let meta = [
        &[0; 4],
        &put_box(*b"hdlr", &handler)[..],
        &put_box(*b"ilst", &items)[..],
    ]
    .concat();
    let payload = put_box(*b"meta", &meta);
    let box_type = BoxType::Normal(*b"udta");
    Some(UnknownBox {
        box_type,
        box_size: BoxSize::with_payload_size(box_type, payload.len() as u64),
        payload,
    })
}

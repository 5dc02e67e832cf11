// SPDX-License-Identifier: MPL-2.0
//! Quantizers of coded video as metadata of buffers: decoders carry it over to what they make of them.
//!
//! It is a `GstCustomMeta` called [`NAME`], so that elements and applications of any language can add and read it. Its structure has `codec`, the name of
//! the format as tags write it (string), and `quantizer`, that of luma in its own steps (int; 0 to 51 for H.264). What
//! changes the size of pictures drops it.

use std::sync::LazyLock;

use crate::sr::Codec;

/// Of the metadata.
pub const NAME: &str = "GstNnvQuantizerMeta";
const CODEC: &str = "codec";
const QUANTIZER: &str = "quantizer";

static REGISTERED: LazyLock<()> =
    LazyLock::new(|| gst::meta::CustomMeta::register(NAME, &["video", "size"]));

/// Notes the quantizer of the picture in `buffer`.
pub fn note(buffer: &mut gst::BufferRef, codec: Codec, quantizer: i32) {
    LazyLock::force(&REGISTERED);
    let noted = match gst::meta::CustomMeta::from_mut_buffer(buffer, NAME) {
        Ok(meta) => Ok(meta),
        Err(_) => gst::meta::CustomMeta::add(buffer, NAME),
    };
    if let Ok(mut meta) = noted {
        let structure = meta.mut_structure();
        structure.set(CODEC, codec.name());
        structure.set(QUANTIZER, quantizer);
    }
}

/// What was noted of the picture in `buffer`.
pub fn of(buffer: &gst::BufferRef) -> Option<(Codec, i32)> {
    LazyLock::force(&REGISTERED);
    let meta = gst::meta::CustomMeta::from_buffer(buffer, NAME).ok()?;
    let structure = meta.structure();
    let codec = Codec::from_name(structure.get(CODEC).ok()?)?;
    Some((codec, structure.get(QUANTIZER).ok()?))
}

// SPDX-License-Identifier: MPL-2.0
//! Quantizers of coded video as metadata of buffers: decoders carry it over to what they make of
//! them.
//!
//! It is a `GstCustomMeta` called [`NAME`], so that elements and applications of any language can
//! add and read it. Its structure has `codec`, the name of the format as tags write it (string),
//! and `quantizer`, that of luma in its own steps at the beginning of the picture (int; 0 to 51 for
//! H.264). Where those of blocks are known, `blocks` has them, too: a byte for each square of 16×16
//! samples, row after row (buffer), and `columns` how many there are in a row (int). What a block
//! took over from another picture without a change has the quantizer that it was coded with there.
//! What changes the size of pictures drops all that.

use std::sync::LazyLock;

use nnv_h264::BlockQuantizers;
use nnv_sr::Codec;

/// Of the metadata.
pub const NAME: &str = "GstNnvQuantizerMeta";
const CODEC: &str = "codec";
const QUANTIZER: &str = "quantizer";
const BLOCKS: &str = "blocks";
const COLUMNS: &str = "columns";

static REGISTERED: LazyLock<()> =
    LazyLock::new(|| gst::meta::CustomMeta::register(NAME, &["video", "size"]));

/// What is known of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantizers {
    /// Whose steps they are in.
    pub codec: Codec,
    /// At the beginning of the first slice.
    pub slice: i32,
    /// Of the blocks.
    pub blocks: Option<BlockQuantizers>,
}

/// Notes the quantizers of the picture in `buffer`.
pub fn note(buffer: &mut gst::BufferRef, quantizers: Quantizers) {
    LazyLock::force(&REGISTERED);
    let noted = match gst::meta::CustomMeta::from_mut_buffer(buffer, NAME) {
        Ok(meta) => Ok(meta),
        Err(_) => gst::meta::CustomMeta::add(buffer, NAME),
    };
    if let Ok(mut meta) = noted {
        let structure = meta.mut_structure();
        structure.set(CODEC, quantizers.codec.name());
        structure.set(QUANTIZER, quantizers.slice);
        if let Some(blocks) = quantizers.blocks {
            structure.set(COLUMNS, i32::try_from(blocks.columns()).unwrap_or_default());
            structure.set(BLOCKS, gst::Buffer::from_slice(blocks.values().to_vec()));
        }
    }
}

/// What was noted of the picture in `buffer`.
pub fn of(buffer: &gst::BufferRef) -> Option<Quantizers> {
    LazyLock::force(&REGISTERED);
    let meta = gst::meta::CustomMeta::from_buffer(buffer, NAME).ok()?;
    let structure = meta.structure();
    let codec = Codec::from_name(structure.get(CODEC).ok()?)?;
    let blocks = || {
        let blocks = structure.get::<gst::Buffer>(BLOCKS).ok()?;
        let columns = usize::try_from(structure.get::<i32>(COLUMNS).ok()?).ok()?;
        BlockQuantizers::new(columns, blocks.map_readable().ok()?.to_vec())
    };
    Some(Quantizers {
        codec,
        slice: structure.get(QUANTIZER).ok()?,
        blocks: blocks(),
    })
}

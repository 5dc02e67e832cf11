// SPDX-License-Identifier: MPL-2.0
//! Quantizers of H.264 pictures and of their macroblocks (ITU-T H.264), without decoding pixels.

mod block_quantizers;
mod cabac;
mod cavlc;
mod effective;
mod macroblock;
mod tables;
#[cfg(test)]
mod tests;

use h264_reader::Context;
use h264_reader::avcc::AvcDecoderConfigurationRecord;
use h264_reader::nal::pps::PicParameterSet;
use h264_reader::nal::slice::{FieldPic, NumRefIdxActive, SliceFamily, SliceHeader};
use h264_reader::nal::sps::{ChromaFormat, FrameMbsFlags, SeqParameterSet};
use h264_reader::nal::{Nal, NalHeader, RefNal, UnitType};
use h264_reader::rbsp::{BitRead, BitReader};

pub use block_quantizers::BlockQuantizers;
use cabac::Cabac;
use cavlc::Cavlc;
pub use effective::Effective;
use macroblock::{Macroblock, Slice, SliceData, SliceKind};

/// `QP` is 26 plus what parameter sets and slices say.
const MIDDLE: i32 = 26;
/// Macroblocks of the largest picture of any level (table A-1).
const LARGEST: usize = 139_264;

/// A macroblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// `QP_Y`. With I_PCM, where nothing is quantized, the least there is.
    pub quantizer: i8,
    /// Has luma residual, or room for it: I_PCM, Intra_16x16, or `CodedBlockPatternLuma` other than
    /// 0.
    pub coded: bool,
    /// P_Skip or B_Skip.
    pub skipped: bool,
    pub intra: bool,
}

/// The macroblocks of a picture, in raster order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// In macroblocks.
    pub width: usize,
    pub height: usize,
    pub blocks: Vec<Block>,
    /// Other pictures may refer to this one.
    pub reference: bool,
}

/// What is told of an access unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The luma quantizer at the beginning of the first slice.
    pub quantizer: i32,
    /// `None` where the picture is damaged, or coded in a way that is not supported.
    pub map: Option<Map>,
}

/// Reads access units.
#[derive(Debug, Default)]
pub struct Reader {
    sets: Context,
    /// Bytes of the length before each unit; `None` for a byte stream.
    length: Option<usize>,
    /// A slice without emulation prevention.
    payload: Vec<u8>,
    /// A row of macroblocks.
    row: Vec<Macroblock>,
}

/// A picture as far as it is read.
#[derive(Default)]
struct Partial {
    quantizer: Option<i32>,
    map: Option<Map>,
    /// A slice was not understood.
    failed: bool,
}

impl Reader {
    /// For a stream whose parameter sets are in its access units, between start codes.
    pub fn byte_stream() -> Self {
        Self::default()
    }

    /// For a stream of lengths and units, with the `codec_data` of its caps. `None` where that is
    /// damaged.
    pub fn packetized(codec_data: &[u8]) -> Option<Self> {
        let record = AvcDecoderConfigurationRecord::try_from(codec_data).ok()?;
        Some(Self {
            sets: record.create_context().ok()?,
            length: Some(usize::from(record.length_size_minus_one()) + 1),
            ..Self::default()
        })
    }

    /// The quantizers of an access unit; `None` where not even a slice header can be read.
    pub fn picture(&mut self, access_unit: &[u8]) -> Option<Picture> {
        let mut partial = Partial::default();
        let mut rest = access_unit;
        if let Some(length) = self.length {
            while !rest.is_empty() {
                let Some((unit, after)) = split_length(rest, length) else {
                    partial.failed = true;
                    break;
                };
                self.unit(unit, &mut partial);
                rest = after;
            }
        } else {
            rest = &rest[start_code(rest).1..];
            while !rest.is_empty() {
                let (end, next) = start_code(rest);
                self.unit(&rest[..end], &mut partial);
                rest = &rest[next..];
            }
        }
        let whole = |map: &Map| map.blocks.len() == map.width * map.height;
        let map = partial.map.filter(whole).filter(|_| !partial.failed);
        partial
            .quantizer
            .map(|quantizer| Picture { quantizer, map })
    }

    /// Takes over parameter sets, and reads slices.
    fn unit(&mut self, unit: &[u8], partial: &mut Partial) {
        if unit.is_empty() {
            return;
        }
        let nal = RefNal::new(unit, &[], true);
        let Ok(header) = nal.header() else {
            return;
        };
        match header.nal_unit_type() {
            UnitType::SeqParameterSet => {
                if let Ok(set) = SeqParameterSet::from_bits(nal.rbsp_bits()) {
                    self.sets.put_seq_param_set(set);
                }
            }
            UnitType::PicParameterSet => {
                if let Ok(set) = PicParameterSet::from_bits(&self.sets, nal.rbsp_bits()) {
                    self.sets.put_pic_param_set(set);
                }
            }
            UnitType::SliceLayerWithoutPartitioningIdr
            | UnitType::SliceLayerWithoutPartitioningNonIdr => {
                partial.failed |= self.slice(unit, header, partial).is_none();
            }
            _ => {}
        }
    }

    /// Adds a slice to the picture. `None` where there is no map to be had any more.
    fn slice(&mut self, unit: &[u8], nal: NalHeader, partial: &mut Partial) -> Option<()> {
        if partial.failed && partial.quantizer.is_some() {
            return None;
        }
        remove_emulation_prevention(unit.get(1..)?, &mut self.payload);
        let mut bits = BitReader::new(&self.payload[..]);
        let (header, sps, pps) = SliceHeader::from_bits(&self.sets, &mut bits, nal, None).ok()?;
        if header.redundant_pic_cnt.is_some_and(|count| count > 0) {
            return Some(());
        }
        partial.quantizer.get_or_insert(slice_qp(&header, pps));
        if partial.failed {
            return None;
        }

        let slice = parameters(&header, sps, pps)?;
        let (width, height) = (slice.width, slice.size / slice.width);
        let map = partial.map.get_or_insert_with(|| Map {
            width,
            height,
            blocks: Vec::with_capacity(slice.size),
            reference: nal.nal_ref_idc() != 0,
        });
        // Slices come in order, without gaps, as arbitrary slice order is not supported.
        let first = usize::try_from(header.first_mb_in_slice).ok()?;
        if (map.width, map.height) != (width, height) || map.blocks.len() != first {
            return None;
        }
        let cabac = pps.entropy_coding_mode_flag;
        let init = header.cabac_init_idc.map_or(0, |idc| 1 + idc as usize);

        // The reader tells where it is only between bytes.
        let mut odd = 0;
        while !bits.byte_aligned() {
            bits.skip(1, "slice_data").ok()?;
            odd += 1;
        }
        let data = *bits.reader()?;
        if self.row.len() < width {
            self.row.resize(width, Macroblock::default());
        }
        let row = &mut self.row[..];
        if cabac {
            let entropy = Cabac::new(data, init, slice.qp)?;
            SliceData::new(slice, entropy, row).read(&mut map.blocks)
        } else {
            let start = (self.payload.len() - data.len()) * 8 - odd;
            let entropy = Cavlc::new(&self.payload, start)?;
            SliceData::new(slice, entropy, row).read(&mut map.blocks)
        }
    }
}

/// What slice data depend on; `None` where they are not supported.
fn parameters(header: &SliceHeader, sps: &SeqParameterSet, pps: &PicParameterSet) -> Option<Slice> {
    let kind = match header.slice_type.family {
        SliceFamily::I => SliceKind::I,
        SliceFamily::P => SliceKind::P,
        SliceFamily::B => SliceKind::B,
        SliceFamily::SP | SliceFamily::SI => return None,
    };
    let fields = match sps.frame_mbs_flags {
        FrameMbsFlags::Frames => 1,
        FrameMbsFlags::Fields {
            mb_adaptive_frame_field_flag: false,
        } => 2,
        FrameMbsFlags::Fields { .. } => return None,
    };
    let info = &sps.chroma_info;
    let chroma = match info.chroma_format {
        ChromaFormat::Monochrome => 0,
        ChromaFormat::YUV420 => 1,
        ChromaFormat::YUV422 => 2,
        ChromaFormat::YUV444 if !info.separate_colour_plane_flag => 3,
        _ => return None,
    };
    let (luma_depth, chroma_depth) = (info.bit_depth_luma_minus8, info.bit_depth_chroma_minus8);
    if header.field_pic != FieldPic::Frame
        || pps.slice_groups.is_some()
        || luma_depth.max(chroma_depth) > 6
    {
        return None;
    }
    let width = usize::try_from(sps.pic_width_in_mbs_minus1).ok()? + 1;
    let height = (usize::try_from(sps.pic_height_in_map_units_minus1).ok()? + 1) * fields;
    let most_ref_idx = match header.num_ref_idx_active {
        Some(NumRefIdxActive::P {
            num_ref_idx_l0_active_minus1: l0,
        }) => [l0, 0],
        Some(NumRefIdxActive::B {
            num_ref_idx_l0_active_minus1: l0,
            num_ref_idx_l1_active_minus1: l1,
        }) => [l0, l1],
        None => [
            pps.num_ref_idx_l0_default_active_minus1,
            pps.num_ref_idx_l1_default_active_minus1,
        ],
    };
    Some(Slice {
        kind,
        width,
        size: width.checked_mul(height).filter(|&size| size <= LARGEST)?,
        qp: slice_qp(header, pps),
        qp_offset: 6 * i32::from(luma_depth),
        bit_depth_luma: 8 + usize::from(luma_depth),
        bit_depth_chroma: 8 + usize::from(chroma_depth),
        chroma,
        transform_8x8_mode: pps
            .extension
            .as_ref()
            .is_some_and(|extension| extension.transform_8x8_mode_flag),
        direct_8x8_inference: sps.direct_8x8_inference_flag,
        most_ref_idx,
    })
}

/// `SliceQP_Y`
fn slice_qp(header: &SliceHeader, pps: &PicParameterSet) -> i32 {
    MIDDLE + pps.pic_init_qp_minus26 + header.slice_qp_delta
}

/// The access units of a whole byte stream, if each picture begins with its first macroblock: they
/// end where something that can only begin one (7.4.1.2.3), or a first slice, comes after a slice.
pub fn access_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut starts = vec![0];
    let mut slice = false;
    for at in (0..stream.len().saturating_sub(4)).filter(|&at| stream[at..at + 3] == [0, 0, 1]) {
        let kind = stream[at + 3] & 31;
        let picture = matches!(kind, 1 | 5);
        // `first_mb_in_slice` 0 is a single bit 1.
        let begins = matches!(kind, 6..=9 | 14..=18) || picture && stream[at + 4] & 0x80 != 0;
        if begins && slice {
            starts.push(at);
            slice = false;
        }
        slice |= picture;
    }
    let ends: Vec<_> = starts
        .iter()
        .copied()
        .skip(1)
        .chain([stream.len()])
        .collect();
    starts
        .into_iter()
        .zip(ends)
        .map(|(start, end)| &stream[start..end])
}

/// A unit behind its length, and what comes after it.
fn split_length(data: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let (head, rest) = data.split_at_checked(length)?;
    let len = head.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
    rest.split_at_checked(len)
}

/// The end of the unit before the next start code, and the beginning of the one behind it (annex
/// B).
fn start_code(data: &[u8]) -> (usize, usize) {
    let mut at = 0;
    while let Some(&[a, b, c]) = data.get(at..).and_then(|rest| rest.first_chunk()) {
        match (a, b, c) {
            (0, 0, 1) => {
                let zeros = data[..at].iter().rev().take_while(|&&byte| byte == 0);
                return (at - zeros.count(), at + 3);
            }
            (_, _, 2..) => at += 3,
            _ => at += 1,
        }
    }
    (data.len(), data.len())
}

/// 7.4.1: the 3 of each 0, 0, 3 is none of the payload.
fn remove_emulation_prevention(unit: &[u8], payload: &mut Vec<u8>) {
    payload.clear();
    let (mut from, mut at) = (0, 0);
    while let Some(&[a, b, c]) = unit.get(at..).and_then(|rest| rest.first_chunk()) {
        match (a, b, c) {
            (0, 0, 3) => {
                payload.extend(&unit[from..at + 2]);
                at += 3;
                from = at;
            }
            (_, _, 1..) => at += 3,
            _ => at += 1,
        }
    }
    payload.extend(&unit[from..]);
}

// SPDX-License-Identifier: MPL-2.0
//! Quantizers of H.264 pictures, from the header of the first slice (ITU-T H.264, 7.4.3).

use std::cell::Cell;

use h264_reader::Context;
use h264_reader::annexb::AnnexBReader;
use h264_reader::avcc::AvcDecoderConfigurationRecord;
use h264_reader::nal::pps::PicParameterSet;
use h264_reader::nal::slice::SliceHeader;
use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::nal::{Nal, RefNal, UnitType};
use h264_reader::push::NalInterest;

/// A byte stream is read in pieces of so many bytes, until the first slice has begun.
const PIECE: usize = 512;
/// `QP` is 26 plus what parameter sets and slices say.
const MIDDLE: i32 = 26;

/// Reads access units.
#[derive(Debug, Default)]
pub struct Reader {
    sets: Context,
    /// Bytes of the length before each unit; `None` for a byte stream.
    length: Option<usize>,
}

impl Reader {
    /// For a stream whose parameter sets are in its access units, between start codes.
    pub fn byte_stream() -> Self {
        Self::default()
    }

    /// For a stream of lengths and units, with the `codec_data` of its caps. `None` where that is damaged.
    pub fn packetized(codec_data: &[u8]) -> Option<Self> {
        let record = AvcDecoderConfigurationRecord::try_from(codec_data).ok()?;
        Some(Self {
            sets: record.create_context().ok()?,
            length: Some(usize::from(record.length_size_minus_one()) + 1),
        })
    }

    /// The luma quantizer at the beginning of the first slice; `None` where there is none that can be read.
    pub fn quantizer(&mut self, access_unit: &[u8]) -> Option<i32> {
        let found = Cell::new(None);
        if let Some(length) = self.length {
            let mut rest = access_unit;
            while found.get().is_none() {
                let (head, after) = rest.split_at_checked(length)?;
                let len = head.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
                let (unit, after) = after.split_at_checked(len)?;
                if !unit.is_empty() {
                    found.set(self.unit(&RefNal::new(unit, &[], true)));
                }
                rest = after;
            }
        } else {
            let mut reader = AnnexBReader::accumulate(|nal: RefNal<'_>| {
                if found.get().is_none() {
                    found.set(self.unit(&nal));
                }
                NalInterest::Buffer
            });
            for piece in access_unit.chunks(PIECE) {
                reader.push(piece);
                if found.get().is_some() {
                    break;
                }
            }
            // The last unit has no start code behind it.
            reader.reset();
        }
        found.get()
    }

    /// Takes over parameter sets; the quantizer of a slice, as soon as enough of it is there.
    fn unit(&mut self, nal: &RefNal<'_>) -> Option<i32> {
        let header = nal.header().ok()?;
        match header.nal_unit_type() {
            UnitType::SeqParameterSet if nal.is_complete() => {
                self.sets
                    .put_seq_param_set(SeqParameterSet::from_bits(nal.rbsp_bits()).ok()?);
                None
            }
            UnitType::PicParameterSet if nal.is_complete() => {
                let set = PicParameterSet::from_bits(&self.sets, nal.rbsp_bits()).ok()?;
                self.sets.put_pic_param_set(set);
                None
            }
            UnitType::SliceLayerWithoutPartitioningIdr
            | UnitType::SliceLayerWithoutPartitioningNonIdr => {
                let (slice, _, set) =
                    SliceHeader::from_bits(&self.sets, &mut nal.rbsp_bits(), header, None).ok()?;
                Some(MIDDLE + set.pic_init_qp_minus26 + slice.slice_qp_delta)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// See `tests/elements/quantizers.rs`.
    const STREAM: &[u8] = include_bytes!("../../tests/fixtures/quantizers.h264");
    const QUANTIZERS: [i32; 8] = [33, 38, 36, 38, 38, 32, 38, 38];

    /// Units between the start codes.
    fn units() -> Vec<&'static [u8]> {
        let starts: Vec<_> = (0..STREAM.len() - 2)
            .filter(|&i| STREAM[i..i + 3] == [0, 0, 1])
            .collect();
        let ends = starts.iter().copied().skip(1).chain([STREAM.len()]);
        let unit = |(start, end): (&usize, usize)| {
            let unit = &STREAM[start + 3..end];
            let zeros = unit.iter().rev().take_while(|&&byte| byte == 0).count();
            &unit[..unit.len() - zeros]
        };
        starts.iter().zip(ends).map(unit).collect()
    }

    fn kind(unit: &[u8]) -> u8 {
        unit[0] & 31
    }

    /// Parameter sets and what else comes before a slice, and that slice, each behind what `lead` makes of its length.
    fn access_units(lead: fn(usize) -> Vec<u8>) -> Vec<Vec<u8>> {
        let mut all = vec![Vec::new()];
        for unit in units() {
            let last = all.last_mut().unwrap();
            last.extend(lead(unit.len()));
            last.extend(unit);
            if matches!(kind(unit), 1 | 5) {
                all.push(Vec::new());
            }
        }
        all.pop();
        all
    }

    fn byte_stream() -> Vec<Vec<u8>> {
        access_units(|_| vec![0, 0, 1])
    }

    fn codec_data() -> Vec<u8> {
        let of = |wanted| *units().iter().find(|unit| kind(unit) == wanted).unwrap();
        let (sps, pps) = (of(7), of(8));
        let mut record = vec![1, sps[1], sps[2], sps[3], 0xff, 0xe1];
        for (set, count) in [(sps, None), (pps, Some(1))] {
            record.extend(count);
            record.extend((set.len() as u16).to_be_bytes());
            record.extend(set);
        }
        // High profile tells its chroma format and bit depths.
        record.extend([0xfd, 0xf8, 0xf8, 0]);
        record
    }

    #[test]
    fn quantizers_are_those_of_the_slices() {
        let mut reader = Reader::byte_stream();
        let read: Vec<_> = byte_stream()
            .iter()
            .map(|au| reader.quantizer(au))
            .collect();
        assert_eq!(read, QUANTIZERS.map(Some));

        let mut reader = Reader::packetized(&codec_data()).unwrap();
        let packets = access_units(|len| (len as u32).to_be_bytes().to_vec());
        let read: Vec<_> = packets.iter().map(|au| reader.quantizer(au)).collect();
        assert_eq!(read, QUANTIZERS.map(Some));
    }

    #[test]
    fn a_slice_without_its_sets_has_none() {
        let au = byte_stream();
        assert_eq!(Reader::byte_stream().quantizer(&au[1]), None);
        let mut reader = Reader::byte_stream();
        assert_eq!(reader.quantizer(&[]), None);
        assert_eq!(reader.quantizer(&au[0]), Some(33));
        assert_eq!(reader.quantizer(&au[1]), Some(38));
    }

    #[test]
    fn damage_is_survived() {
        let mut state = 1u32;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        let packets = access_units(|len| (len as u32).to_be_bytes().to_vec());
        let (stream, record) = (byte_stream(), codec_data());
        for _ in 0..3000 {
            let mut damaged = |data: &[u8]| {
                let mut data = data.to_vec();
                for _ in 0..1 + random(6) {
                    let at = random(data.len());
                    data[at] = random(256) as u8;
                }
                data.truncate(data.len() - random(data.len() / 8 + 1));
                data
            };
            let mut readers = [
                Some(Reader::byte_stream()),
                Reader::packetized(&record),
                Reader::packetized(&damaged(&record)),
            ];
            for au in [&stream[0], &stream[1], &packets[0], &packets[1]] {
                for reader in readers.iter_mut().flatten() {
                    let found = reader.quantizer(&damaged(au));
                    assert!(found.is_none_or(|q| (-100..52).contains(&q)), "{found:?}");
                }
            }
        }
    }
}

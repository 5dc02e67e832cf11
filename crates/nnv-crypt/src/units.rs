// SPDX-License-Identifier: MPL-2.0
//! An access unit, taken apart into its units.

use nnv_bitstream::{BitstreamError, FrameHeader, Scan, Unit, UnitScanner, UnitType};

/// The units of one access unit.
pub(crate) struct Units<'a> {
    /// Its sequence header.
    pub sequence: Option<Unit<'a>>,
    /// What else stands before the frame, each with its own bytes.
    pub others: Vec<(Unit<'a>, &'a [u8])>,
    pub frame: Unit<'a>,
    pub header: FrameHeader,
    /// Bytes of the frame's payload that its header takes.
    pub header_len: usize,
    /// The sequence header's unit as it stands in the stream.
    pub sequence_bytes: &'a [u8],
}

impl<'a> Units<'a> {
    pub fn of(data: &'a [u8]) -> Result<Units<'a>, BitstreamError> {
        // What all readers take for an access unit.
        nnv_bitstream::AccessUnit::parse(data)?;
        let scanner = UnitScanner::new();
        let (mut sequence, mut others, mut at) = (None, Vec::new(), 0);
        let mut sequence_bytes: &[u8] = &[];
        while let Scan::Unit(unit) = scanner.scan(&data[at..], true) {
            let bytes = &data[at..at + unit.len];
            at += unit.len;
            if unit.kind == UnitType::Sequence {
                sequence = Some(unit);
                sequence_bytes = bytes;
            } else if unit.kind.is_frame() {
                let (header, header_len) = FrameHeader::parse(unit.payload)?;
                return Ok(Units {
                    sequence,
                    others,
                    frame: unit,
                    header,
                    header_len,
                    sequence_bytes,
                });
            } else {
                others.push((unit, bytes));
            }
        }
        Err(BitstreamError::AccessUnit("no frame in it"))
    }
}

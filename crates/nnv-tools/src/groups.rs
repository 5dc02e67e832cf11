// SPDX-License-Identifier: MPL-2.0
//! Follows groups of pictures by their headers alone: times, and what can be decoded.

use nnv_bitstream::index::{Timeline, Times};
use nnv_bitstream::{FrameHeader, FrameType, SequenceHeader};

/// Why a frame cannot be decoded although its unit is sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No sequence header came before it.
    Sequence,
    /// Its group's key frame is missing.
    Key,
    /// A frame that it refers to is missing.
    Reference,
}

impl Lost {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sequence => "no sequence header before it",
            Self::Key => "its key frame is missing",
            Self::Reference => "a frame that it refers to is missing",
        }
    }
}

/// The state of a decoder as far as headers tell.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    timeline: Timeline,
    sequence: bool,
    group: Option<u8>,
    kept: Vec<u32>,
}

impl Groups {
    /// Takes a sequence header.
    pub fn sequence(&mut self, header: &SequenceHeader) {
        self.timeline.set_rate(header.frame_rate);
        self.sequence = true;
    }

    /// Takes a frame: when it is shown, and why it cannot be decoded, if so.
    pub fn frame(&mut self, header: &FrameHeader) -> (Times, Option<Lost>) {
        let times = self.timeline.times(header);
        (times, self.place(header).err())
    }

    /// Where all frames so far end, in ns.
    pub fn end(&self) -> u64 {
        self.timeline.end()
    }

    fn place(&mut self, header: &FrameHeader) -> Result<(), Lost> {
        if !self.sequence {
            return Err(Lost::Sequence);
        }
        if header.is_key() {
            self.group = Some(header.gop);
            self.kept = vec![0];
            return Ok(());
        }
        if self.group != Some(header.gop) {
            return Err(Lost::Key);
        }
        let mut references = [header.ref0, header.ref1].into_iter().flatten();
        let there = match header.frame_type {
            // It shows whatever was shown last where its frame is gone.
            FrameType::Repeat => true,
            _ => references.all(|r| self.kept.contains(&r)),
        };
        self.kept.retain(|number| !header.released.contains(number));
        if !there {
            return Err(Lost::Reference);
        }
        if header.keep {
            self.kept.push(header.poc);
        }
        Ok(())
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Key frames of a file whose bytes have to be waited for.

use nnv_bitstream::index::{Index, KeyFrame, Progress};

/// What an [`IndexScan`] wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// So many bytes at this offset, fewer only at the end of the file.
    Read(u64, usize),
    /// Nothing: all is known.
    Complete,
}

/// Finds a file's key frames; the page reads for it.
#[derive(Debug, Default)]
pub struct IndexScan {
    index: Index,
    /// What was read since the index went on last.
    blocks: Vec<(u64, usize, Vec<u8>)>,
}

impl IndexScan {
    /// Goes on as far as the bytes so far allow.
    pub fn step(&mut self) -> Next {
        let blocks = &self.blocks;
        let result = self.index.scan(None, |offset, size| {
            let found = blocks.iter().find(|b| (b.0, b.1) == (offset, size));
            found.map(|b| b.2.clone()).ok_or((offset, size))
        });
        match result {
            Ok(Progress::Complete) => Next::Complete,
            // Without a deadline it does not put off.
            Ok(Progress::Later) => Next::Complete,
            Err((offset, size)) => {
                // A step takes three blocks at most: where the unit begins, its payload, what
                // follows.
                let keep = self.blocks.len().saturating_sub(3);
                self.blocks.drain(..keep);
                Next::Read(offset, size)
            }
        }
    }

    /// Gives what [`step`](Self::step) asked for.
    pub fn give(&mut self, offset: u64, size: usize, bytes: Vec<u8>) {
        self.blocks.push((offset, size, bytes));
    }

    /// Key frames known so far, in order of the file.
    pub fn keys(&self) -> &[KeyFrame] {
        self.index.keys()
    }

    /// Duration in ns, once all is known.
    pub fn duration(&self) -> Option<u64> {
        self.index.duration()
    }
}

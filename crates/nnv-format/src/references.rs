// SPDX-License-Identifier: MPL-2.0
//! What encoder and decoder keep of decoded frames for those that refer to them, and the order in
//! which frames are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use nnv_bitstream::SequenceHeader;
use nnv_bitstream::limits::{DEEPEST_LEVEL, MAX_REFERENCES};

use super::entropy::{EntropyError, SymbolContexts, SymbolTables};
use super::grid::Grid;
use super::motion::{MotionContexts, MotionField};
use super::picture::Picture;
use super::still::{StillContexts, StillMap};
use super::tables::{NetworkSet, Tables};

/// Adaptive state of the entropy coder after an inter frame.
#[derive(Debug, Clone)]
pub struct Contexts {
    /// Of the latents.
    pub symbols: SymbolContexts,
    /// Of the motion field.
    pub motion: MotionContexts,
    /// Of the still map.
    pub still: StillContexts,
}

/// A decoded frame that is exactly the encoder's. Others are never kept: nothing can be decoded
/// from them, since the networks' probabilities depend on the pictures.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Samples.
    pub picture: Arc<Picture>,
    /// Level in the mini-GOP: frames of a high level resemble those of the next one most.
    pub level: u8,
    /// What inter frames may inherit; key frames leave nothing.
    pub contexts: Option<Arc<Contexts>>,
    /// Motion of an inter frame.
    pub field: Option<Arc<MotionField>>,
    /// Which places of an inter frame are as predicted, where it has a map.
    pub still: Option<Arc<StillMap>>,
}

/// Entropy tables of a model with the number of streams of each kind of frame, and the size they
/// are used for.
#[derive(Debug, Clone)]
pub struct Coding {
    /// Size of the pictures.
    pub grid: Grid,
    key: (Arc<SymbolTables>, u8),
    inter: (Arc<SymbolTables>, u8),
}

impl Coding {
    /// For pictures of this size, with the streams that the sequence header says.
    pub fn new(key: &Tables, inter: &Tables, grid: Grid, header: &SequenceHeader) -> Self {
        Self {
            grid,
            key: (key.symbols().clone(), header.key_streams),
            inter: (inter.symbols().clone(), header.inter_streams),
        }
    }

    /// The state in which a frame without a past begins.
    ///
    /// # Errors
    /// [`EntropyError::Shape`] where the size cannot have so many streams.
    pub fn fresh(&self, networks: NetworkSet) -> Result<SymbolContexts, EntropyError> {
        let (tables, streams) = match networks {
            NetworkSet::Key => &self.key,
            NetworkSet::Inter => &self.inter,
        };
        SymbolContexts::new(
            tables.clone(),
            self.grid.h16(),
            self.grid.w16(),
            usize::from(*streams),
        )
    }
}

/// Frames of each level in a mini-GOP of `n` frames without repeats, the anchor at level 0: what a
/// decoder may wait for.
pub fn level_sizes(n: usize) -> [usize; DEEPEST_LEVEL as usize + 1] {
    let mut sizes = [0; DEEPEST_LEVEL as usize + 1];
    if n > 0 {
        sizes[0] = 1;
    }
    let mut gaps = vec![n.saturating_sub(1)];
    for size in &mut sizes[1..] {
        gaps.retain(|&g| g > 0);
        *size = gaps.len();
        gaps = gaps.iter().flat_map(|&g| [g / 2, g - g / 2 - 1]).collect();
    }
    sizes
}

/// The frames that others may refer to, by `poc`: the same in encoder and decoder. A key frame
/// empties it.
#[derive(Debug, Clone)]
pub struct References<T> {
    frames: BTreeMap<u32, T>,
}

impl<T> Default for References<T> {
    fn default() -> Self {
        Self {
            frames: BTreeMap::new(),
        }
    }
}

impl<T> References<T> {
    /// A reference.
    pub fn get(&self, poc: u32) -> Option<&T> {
        self.frames.get(&poc)
    }

    /// Keeps a decoded frame. Where a damaged stream keeps too many, the oldest in order of
    /// presentation goes.
    pub fn keep(&mut self, poc: u32, frame: T) {
        self.frames.insert(poc, frame);
        while self.frames.len() > usize::from(MAX_REFERENCES) {
            self.frames.pop_first();
        }
    }

    /// Drops frames that are no longer needed.
    pub fn release(&mut self, pocs: &[u32]) {
        for poc in pocs {
            self.frames.remove(poc);
        }
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.frames.clear();
    }

    /// The frame nearest to `poc` in order of presentation, with its number.
    pub fn nearest(&self, poc: u32) -> Option<(u32, &T)> {
        let nearest = self.frames.iter().min_by_key(|(p, _)| p.abs_diff(poc));
        nearest.map(|(p, f)| (*p, f))
    }

    /// Frames kept.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True where none is kept.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

/// Puts decoded frames back into the order of presentation.
///
/// A frame leaves as soon as the one before it has left; where a frame is lost, when more than
/// `depth` frames wait.
#[derive(Debug)]
pub struct Reorder<T> {
    depth: usize,
    next: u32,
    waiting: BTreeMap<u32, T>,
    missing: u64,
}

impl<T> Reorder<T> {
    /// `depth`: most frames that are coded before a frame and shown after it (the `bframes` of the
    /// encoder).
    pub fn new(depth: usize) -> Self {
        Self {
            depth,
            next: 0,
            waiting: BTreeMap::new(),
            missing: 0,
        }
    }

    /// Starts a new coded sequence; frames still waiting come back in order.
    pub fn restart(&mut self, depth: usize) -> Vec<T> {
        self.restart_at(depth, 0)
    }

    /// As [`restart`](Self::restart), with `next` for the order of the first frame to be shown:
    /// those before it are lost.
    pub fn restart_at(&mut self, depth: usize, next: u32) -> Vec<T> {
        let out = self.drain();
        self.depth = depth;
        self.next = next;
        out
    }

    /// All waiting frames in order, as at the end of a stream.
    pub fn drain(&mut self) -> Vec<T> {
        let mut out = Vec::with_capacity(self.waiting.len());
        while let Some((poc, frame)) = self.waiting.pop_first() {
            self.advance(poc);
            out.push(frame);
        }
        out
    }

    /// A frame of this order leaves.
    fn advance(&mut self, poc: u32) {
        self.missing += u64::from(poc.saturating_sub(self.next));
        self.next = poc.saturating_add(1);
    }

    /// How many frames were passed over so far, since others left that come after them.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// The order of the next frame to be shown.
    pub fn next_poc(&self) -> u32 {
        self.next
    }

    /// The first order, from the next to be shown, that no waiting frame has.
    pub fn first_missing(&self) -> u32 {
        let mut poc = self.next;
        while self.waiting.contains_key(&poc) {
            poc = poc.saturating_add(1);
        }
        poc
    }

    /// Adds a decoded frame and returns those that may be shown now.
    ///
    /// # Errors
    /// Gives the frame back when its place has passed or is taken: the stream is damaged.
    pub fn push(&mut self, poc: u32, frame: T) -> Result<Vec<T>, T> {
        if poc < self.next || self.waiting.contains_key(&poc) {
            return Err(frame);
        }
        self.waiting.insert(poc, frame);
        let mut out = Vec::new();
        while let Some(entry) = self.waiting.first_entry() {
            let poc = *entry.key();
            let waiting = self.waiting.len();
            if poc == self.next || waiting > self.depth {
                out.extend(self.waiting.remove(&poc));
                self.advance(poc);
            } else {
                break;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reordering_survives_losses() {
        let mut r = Reorder::new(3);
        assert_eq!(r.push(0, 0), Ok(vec![0]));
        assert_eq!(r.push(0, 0), Err(0), "twice");
        assert_eq!(r.push(4, 4), Ok(vec![]));
        assert_eq!(r.push(4, 4), Err(4), "twice");
        assert_eq!(r.first_missing(), 1);
        // 2 is lost.
        assert_eq!(r.push(1, 1), Ok(vec![1]));
        assert_eq!(r.push(3, 3), Ok(vec![]));
        assert_eq!(r.push(8, 8), Ok(vec![]));
        assert_eq!(r.push(6, 6), Ok(vec![3, 4]));
        assert_eq!(r.push(5, 5), Ok(vec![5, 6]));
        assert_eq!(r.push(2, 2), Err(2), "too late");
        assert_eq!(r.next_poc(), 7);
        assert_eq!(r.missing(), 1);
        assert_eq!(r.restart(0), vec![8]);
        assert_eq!(r.missing(), 2, "7, too");
        assert_eq!(r.push(0, 0), Ok(vec![0]));
        assert_eq!(r.restart_at(0, 1), vec![]);
        assert_eq!(r.push(1, 1), Ok(vec![1]));
        assert_eq!(r.missing(), 2);
        assert_eq!(r.push(u32::MAX, 1), Ok(vec![1]), "nothing is waited for");
        assert_eq!(r.push(u32::MAX - 1, 2), Err(2));
    }
}

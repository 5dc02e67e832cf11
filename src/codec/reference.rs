// SPDX-License-Identifier: MPL-2.0
//! What encoder and decoder keep of a decoded frame for those that refer to it.

use super::bitstream::SequenceHeader;
use super::entropy::{SymbolContexts, SymbolTables};
use super::error::{CodecError, Result};
use super::motion::{MotionContexts, MotionField};
use super::picture::Picture;
use crate::nn::{FrameKind, Grid, Model};
use std::sync::Arc;

/// Adaptive state of the entropy coder after an inter frame.
#[derive(Debug, Clone)]
pub(super) struct Contexts {
    pub symbols: SymbolContexts,
    pub motion: MotionContexts,
}

/// A decoded frame that is exactly the encoder's. Others are never kept: nothing can be decoded from them, since the
/// networks' probabilities depend on the pictures.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub picture: Arc<Picture>,
    /// Level in the mini-GOP: frames of a high level resemble those of the next one most.
    pub level: u8,
    /// What inter frames may inherit; key frames leave nothing.
    pub contexts: Option<Arc<Contexts>>,
    /// Motion of an inter frame.
    pub field: Option<Arc<MotionField>>,
}

/// Entropy tables of a model with the number of streams of each kind of frame, and the size they are used for.
#[derive(Debug, Clone)]
pub(super) struct Coding {
    pub grid: Grid,
    key: (Arc<SymbolTables>, u8),
    inter: (Arc<SymbolTables>, u8),
}

impl Coding {
    pub fn new(model: &Model, grid: Grid, header: &SequenceHeader) -> Result<Self> {
        let tables = |kind| {
            let t = model.tables(kind);
            SymbolTables::new(
                t.y_prob().as_flattened(),
                t.z_prob().as_flattened(),
                t.y_order(),
            )
            .map(Arc::new)
            .map_err(CodecError::from)
        };
        Ok(Self {
            grid,
            key: (tables(FrameKind::Key)?, header.key_streams),
            inter: (tables(FrameKind::Inter)?, header.inter_streams),
        })
    }

    /// The state in which a frame without a past begins.
    pub fn fresh(&self, kind: FrameKind) -> Result<SymbolContexts> {
        let (tables, streams) = match kind {
            FrameKind::Key => &self.key,
            FrameKind::Inter => &self.inter,
        };
        let contexts = SymbolContexts::new(
            tables.clone(),
            self.grid.h16(),
            self.grid.w16(),
            usize::from(*streams),
        )?;
        Ok(contexts)
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Integer tables of a bundle: steps, what the networks are told of a quantizer, where entropy
//! coding begins.

use std::sync::Arc;

use nnv_bitstream::FrameType;
use nnv_bitstream::limits::QUANTIZERS;

use super::entropy::SymbolTables;

/// Channels of the latent `y`; fixed by the stream format (64 + 16 + 16 samples in each of 2×2
/// blocks).
pub const LATENT_CHANNELS: usize = 384;

/// Which networks and tables a frame uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetworkSet {
    /// For what is decodable alone.
    Key,
    /// For what is predicted from decoded frames.
    Inter,
}

impl NetworkSet {
    /// The networks of a frame; `None` where nothing is coded.
    pub fn of(frame: FrameType) -> Option<Self> {
        match frame {
            FrameType::Key => Some(Self::Key),
            FrameType::Inter => Some(Self::Inter),
            FrameType::Repeat => None,
        }
    }
}

/// Integer tables of one set of networks. Everything is normative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    step: Vec<u16>,
    qvec: Vec<i8>,
    qoff: Vec<i16>,
    symbols: Arc<SymbolTables>,
}

impl Tables {
    /// Tables of a bundle: rows of [`QUANTIZERS`] steps (of each channel, in 1/64), of what the
    /// networks are told, and of offsets (in halves of a scale index).
    ///
    /// # Errors
    /// A sentence that says which table is wrong.
    pub fn new(
        step: Vec<u16>,
        qvec: Vec<i8>,
        qoff: Vec<i16>,
        symbols: SymbolTables,
    ) -> Result<Self, String> {
        if step.len() != QUANTIZERS * LATENT_CHANNELS || step.contains(&0) {
            return Err(format!(
                "table step must have {QUANTIZERS} rows of {LATENT_CHANNELS} values, none of \
                 them zero"
            ));
        }
        if qvec.is_empty() || !qvec.len().is_multiple_of(QUANTIZERS) || qoff.len() != QUANTIZERS {
            return Err(format!("tables qvec and qoff must have {QUANTIZERS} rows"));
        }
        if symbols.channels() != LATENT_CHANNELS {
            return Err(format!(
                "table y_order must name {LATENT_CHANNELS} channels"
            ));
        }
        Ok(Self {
            step,
            qvec,
            qoff,
            symbols: Arc::new(symbols),
        })
    }

    /// Quantisation step of each latent channel, in 1/64 units; never zero.
    ///
    /// # Panics
    /// When `quantizer` is 64 or more, as all methods that take one.
    pub fn step(&self, quantizer: u8) -> &[u16; LATENT_CHANNELS] {
        let start = usize::from(quantizer) * LATENT_CHANNELS;
        self.step[start..start + LATENT_CHANNELS]
            .try_into()
            .expect("a slice of this length was taken")
    }

    /// What the networks are told about the quantizer.
    pub fn qvec(&self, quantizer: u8) -> &[i8] {
        let channels = self.qvec.len() / QUANTIZERS;
        &self.qvec[usize::from(quantizer) * channels..][..channels]
    }

    /// Offset of the scale indices, in halves of an index.
    pub fn qoff(&self, quantizer: u8) -> i16 {
        self.qoff[usize::from(quantizer)]
    }

    /// Where entropy coding begins.
    pub fn symbols(&self) -> &Arc<SymbolTables> {
        &self.symbols
    }
}

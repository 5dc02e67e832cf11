// SPDX-License-Identifier: MPL-2.0
//! Quantizers by block, whoever coded them.

/// Quantizers of the blocks of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockQuantizers {
    columns: usize,
    values: Vec<u8>,
}

impl BlockQuantizers {
    /// Samples of luma on a side of a block.
    pub const SIDE: usize = 16;

    /// Rows of blocks, one after the other, with so many `columns`. `None` where these are no rows.
    pub fn new(columns: usize, values: Vec<u8>) -> Option<Self> {
        let whole = !values.is_empty() && values.len().is_multiple_of(columns.max(1));
        (columns > 0 && whole).then_some(Self { columns, values })
    }

    /// Whether they are those of a picture of so many samples.
    pub fn fit(&self, width: usize, height: usize) -> bool {
        let [columns, rows] = [width, height].map(|n| n.div_ceil(Self::SIDE));
        columns == self.columns && rows * columns == self.values.len()
    }

    /// Number of blocks in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All of them, row after row.
    pub fn values(&self) -> &[u8] {
        &self.values
    }

    /// Those of the row of blocks in which the samples of row `y` lie.
    ///
    /// # Panics
    /// Below the picture.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.values[y / Self::SIDE * self.columns..][..self.columns]
    }

    /// Their mean.
    pub fn mean(&self) -> f32 {
        let sum: u64 = self.values.iter().map(|&v| u64::from(v)).sum();
        sum as f32 / self.values.len() as f32
    }
}

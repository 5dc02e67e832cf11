// SPDX-License-Identifier: MPL-2.0
//! Motion search: free for the encoder, measured by what the field costs and predicts.

mod kernels;
pub mod search;

pub use search::{SearchEffort, SearchParams, search};

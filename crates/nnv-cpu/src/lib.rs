// SPDX-License-Identifier: MPL-2.0
//! What all floors take from the processor: a few threads for equal jobs, and vector code chosen at
//! run time. Results never depend on either.

pub mod parallel;
pub mod simd;

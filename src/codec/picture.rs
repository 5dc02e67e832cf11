// SPDX-License-Identifier: MPL-2.0
//! Pictures: planar 4:2:0 at 10 bit, padded to multiples of 16, and their packing into tensors.

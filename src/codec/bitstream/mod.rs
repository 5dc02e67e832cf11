// SPDX-License-Identifier: MPL-2.0
//! The byte stream: units, headers, resynchronisation.

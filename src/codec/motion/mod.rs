// SPDX-License-Identifier: MPL-2.0
//! Motion: fields, integer motion compensation, search, coding of fields.

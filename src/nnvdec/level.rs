// SPDX-License-Identifier: MPL-2.0
//! The property `max-level`.

use gst::glib;
use nnv_bitstream::Level;

/// The highest level that is decoded. Numbers are those of the sequence header.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnvLevel")]
pub enum MaxLevel {
    /// Level 1.
    #[enum_value(name = "Level 1: as 512x288 at 30 frames/s", nick = "1")]
    L1 = 1,
    /// Level 2.
    #[enum_value(name = "Level 2: as 864x480 at 30 frames/s", nick = "2")]
    L2 = 2,
    /// Level 3.
    #[enum_value(name = "Level 3: as 1280x768 at 30 frames/s", nick = "3")]
    L3 = 3,
    /// Level 4.
    #[enum_value(name = "Level 4: as 1280x768 at 60 frames/s", nick = "4")]
    L4 = 4,
    /// Level 5.
    #[enum_value(name = "Level 5: as 2048x1088 at 30 frames/s", nick = "5")]
    L5 = 5,
    /// Level 6.
    #[enum_value(name = "Level 6: as 2048x1088 at 60 frames/s", nick = "6")]
    L6 = 6,
    /// Level 7.
    #[enum_value(name = "Level 7: as 4096x2176 at 30 frames/s", nick = "7")]
    L7 = 7,
    /// Level 8.
    #[enum_value(name = "Level 8: as 4096x2176 at 60 frames/s", nick = "8")]
    L8 = 8,
    /// Level 9.
    #[enum_value(name = "Level 9: as 8192x4352 at 30 frames/s", nick = "9")]
    L9 = 9,
    /// Level 10.
    #[enum_value(name = "Level 10: as 8192x4352 at 60 frames/s", nick = "10")]
    L10 = 10,
    /// Any.
    #[default]
    #[enum_value(name = "Unbounded: any stream", nick = "unbounded")]
    Unbounded = 255,
}

impl From<MaxLevel> for Level {
    fn from(max: MaxLevel) -> Level {
        let code = u8::try_from(max as i32).ok();
        code.and_then(Level::from_code).unwrap_or(Level::UNBOUNDED)
    }
}

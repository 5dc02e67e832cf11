// SPDX-License-Identifier: MPL-2.0
//! Errors of motion.

/// What can be wrong with the inputs of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MotionError {
    /// Pictures or fields of one call differ in size.
    #[error(
        "{what} is {got_width}x{got_height}, but the motion field is for {width}x{height} \
         (padded sizes): \
         references must have the size of the picture that they predict"
    )]
    Size {
        /// What has the wrong size.
        what: &'static str,
        /// Its padded width.
        got_width: usize,
        /// Its padded height.
        got_height: usize,
        /// Padded width needed.
        width: usize,
        /// Padded height needed.
        height: usize,
    },
}

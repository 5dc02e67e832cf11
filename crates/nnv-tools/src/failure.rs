// SPDX-License-Identifier: MPL-2.0
//! What ends the program early, and with which exit code.

use std::fmt::Display;
use std::path::Path;

/// Result of a subcommand.
pub type Result<T> = std::result::Result<T, Failure>;

/// One line for the user, and the exit code that goes with it.
#[derive(Debug)]
pub enum Failure {
    /// The input is at fault, or something that it needs: exit code 1.
    Input(String),
    /// The command line is at fault: exit code 2.
    Usage(String),
}

impl Failure {
    /// A file, and what is wrong with it.
    pub fn file(path: &Path, what: impl Display) -> Self {
        Self::Input(format!("{}: {what}", path.display()))
    }
}

/// Errors from below say where and what by themselves.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Input(error.to_string())
    }
}

// SPDX-License-Identifier: MPL-2.0
//! The statistics file of two passes.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use nnv_codec::config::{ConfigError, EncoderConfig};
use nnv_codec::encode::two_pass::{self, PassFrame, PassStats};

/// The largest file that is read: about thirty bytes for each frame that it may have.
const LARGEST: u64 = 1 << 31;

/// A first pass' file on its way.
#[derive(Debug)]
pub struct FirstPass {
    path: PathBuf,
    file: BufWriter<File>,
    frames: u64,
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> ConfigError {
    ConfigError::Stats(format!("{}: {what}", path.display()))
}

impl FirstPass {
    /// Begins a file.
    ///
    /// # Errors
    /// [`ConfigError::Stats`] where it cannot be written.
    pub fn begin(path: &Path, config: &EncoderConfig) -> Result<Self, ConfigError> {
        let file = File::create(path).map_err(|e| wrong(path, format!("cannot be made: {e}")))?;
        let mut this = Self {
            path: path.into(),
            file: BufWriter::new(file),
            frames: 0,
        };
        this.write(&two_pass::begin(config))?;
        Ok(this)
    }

    fn write(&mut self, text: &str) -> Result<(), ConfigError> {
        let result = self.file.write_all(text.as_bytes());
        result.map_err(|e| wrong(&self.path, format!("cannot be written: {e}")))
    }

    /// Writes frames down in coding order.
    ///
    /// # Errors
    /// [`ConfigError::Stats`] where the file cannot be written.
    pub fn add(&mut self, frames: impl IntoIterator<Item = PassFrame>) -> Result<(), ConfigError> {
        for frame in frames {
            self.frames += 1;
            self.write(&frame.line())?;
        }
        Ok(())
    }

    /// The clip has ended after so many seconds.
    ///
    /// # Errors
    /// [`ConfigError::Stats`] where the file cannot be written.
    pub fn end(mut self, seconds: f64) -> Result<(), ConfigError> {
        self.write(&two_pass::end(self.frames, seconds))?;
        let result = self.file.flush();
        result.map_err(|e| wrong(&self.path, format!("cannot be written: {e}")))
    }
}

/// Reads the file of a first pass.
///
/// # Errors
/// [`ConfigError::Stats`] where there is none, or it does not fit `config`.
pub fn read(path: &Path, config: &EncoderConfig) -> Result<PassStats, ConfigError> {
    let open = |e: std::io::Error| {
        wrong(
            path,
            format!("cannot be read: {e}; run pass=first with the same stats-file first"),
        )
    };
    let file = File::open(path).map_err(open)?;
    let mut data = Vec::new();
    file.take(LARGEST).read_to_end(&mut data).map_err(open)?;
    // Other files need not be text.
    let text = String::from_utf8_lossy(&data);
    PassStats::parse(&text, config).map_err(|e| wrong(path, e))
}

// SPDX-License-Identifier: MPL-2.0
//! `nnv quantizers`: the quantizers of an H.264 byte stream's pictures. Training makes use of it
//! (models/training, `sr-pairs`).

use std::path::PathBuf;

use clap::Args;
use std::io::{BufWriter, Write, stdout};

use nnv_h264::{Effective, Reader, access_units};

use crate::failure::{Failure, Result};

/// Prints the quantizers of the pictures of an H.264 byte stream, in the order of decoding
///
/// For each picture a line with the quantizer of its first slice, and the columns and rows of its
/// blocks; then a byte for each block, as `nnqp` notes them. Pictures whose blocks cannot be read
/// have none.
#[derive(Args, Debug)]
pub struct Options {
    /// An H.264 byte stream
    file: PathBuf,
}

/// The subcommand.
pub fn run(options: &Options) -> Result<()> {
    let stream = std::fs::read(&options.file).map_err(|e| Failure::file(&options.file, e))?;
    if stream.is_empty() {
        return Err(Failure::file(&options.file, "the file is empty"));
    }
    let (mut reader, mut effective) = (Reader::byte_stream(), Effective::default());
    let mut out = BufWriter::new(stdout().lock());
    let mut pictures = 0_u64;
    for picture in access_units(&stream).filter_map(|unit| reader.picture(unit)) {
        let blocks = picture.map.and_then(|map| effective.next(&map));
        let (columns, values) = blocks
            .as_ref()
            .map_or((0, &[][..]), |blocks| (blocks.columns(), blocks.values()));
        let rows = values.len() / columns.max(1);
        writeln!(out, "{} {columns} {rows}", picture.quantizer)?;
        out.write_all(values)?;
        pictures += 1;
    }
    out.flush()?;
    if pictures == 0 {
        return Err(Failure::file(
            &options.file,
            "no picture of an H.264 byte stream (with start codes) in it",
        ));
    }
    Ok(())
}

// SPDX-License-Identifier: MPL-2.0
//! Prints the quantizers of the pictures of an H.264 byte stream, in the order of decoding: for
//! each a line with that of its first slice, and the columns and rows of its blocks; then a byte
//! for each block, as `nnqp` notes them. Pictures whose blocks cannot be read have none.
//!
//! `cargo run --release --example quantizers -- FILE`. Training makes use of it (models/training,
//! `sr-pairs`).

use std::io::{BufWriter, Write, stdout};

use nnv_h264::{Effective, Reader, access_units};

fn main() -> std::io::Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: quantizers FILE (an H.264 byte stream)");
        std::process::exit(2);
    };
    let stream = std::fs::read(path)?;
    let (mut reader, mut effective) = (Reader::byte_stream(), Effective::default());
    let mut out = BufWriter::new(stdout().lock());
    for picture in access_units(&stream).filter_map(|unit| reader.picture(unit)) {
        let blocks = picture.map.and_then(|map| effective.next(&map));
        let (columns, values) = blocks
            .as_ref()
            .map_or((0, &[][..]), |blocks| (blocks.columns(), blocks.values()));
        let rows = values.len() / columns.max(1);
        writeln!(out, "{} {columns} {rows}", picture.quantizer)?;
        out.write_all(values)?;
    }
    out.flush()
}

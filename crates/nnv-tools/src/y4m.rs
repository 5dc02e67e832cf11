// SPDX-License-Identifier: MPL-2.0
//! YUV4MPEG2: 4:2:0 in 8 and 10 bit.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use nnv_bitstream::limits::check_size;
use nnv_format::picture::{Picture, RawFormat};

use crate::failure::{Failure, Result};

/// First bytes of a file.
pub const MAGIC: &[u8; 9] = b"YUV4MPEG2";
/// Longest header line.
const MAX_LINE: usize = 1000;

/// Reads frames one after another.
pub struct Reader<R> {
    name: String,
    from: R,
    width: u32,
    height: u32,
    /// Frames per second.
    pub rate: (u32, u32),
    /// 8 or 10.
    pub bit_depth: u8,
    frame: u64,
    data: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the header. `name` is for messages.
    ///
    /// # Errors
    /// It is no YUV4MPEG2, or of another kind than 4:2:0 with 8 or 10 bit.
    pub fn new(name: &Path, mut from: R) -> Result<Self> {
        let fail = |what: &str| Failure::file(name, what);
        let header = line(&mut from)
            .map_err(|e| Failure::file(name, e))?
            .ok_or_else(|| fail("it is empty"))?;
        let mut fields = header.split(' ').filter(|field| !field.is_empty());
        if fields.next().map(str::as_bytes) != Some(MAGIC) {
            return Err(fail("not a YUV4MPEG2 file"));
        }
        let (mut width, mut height, mut rate, mut bit_depth) = (0, 0, (30, 1), 8);
        for field in fields {
            let bad = || {
                fail(&format!(
                    "its header has a field {field:?} that makes no sense"
                ))
            };
            let (key, value) = field.split_at_checked(1).ok_or_else(bad)?;
            match key {
                "W" => width = value.parse().map_err(|_| bad())?,
                "H" => height = value.parse().map_err(|_| bad())?,
                "F" => {
                    let (n, d) = value.split_once(':').ok_or_else(bad)?;
                    rate = (n.parse().map_err(|_| bad())?, d.parse().map_err(|_| bad())?);
                }
                "C" if value == "420p10" => bit_depth = 10,
                "C" if ["420", "420jpeg", "420mpeg2", "420paldv"].contains(&value) => {}
                "C" => {
                    return Err(fail(&format!(
                        "its samples are {value}; 420 and 420p10 can be read: convert it \
                         (ffmpeg -i FILE -pix_fmt yuv420p OUT.y4m)"
                    )));
                }
                _ => {}
            }
        }
        check_size(width, height).map_err(|what| fail(&what))?;
        let (w, h) = (width as usize, height as usize);
        let samples = w * h + 2 * w.div_ceil(2) * h.div_ceil(2);
        Ok(Self {
            name: name.display().to_string(),
            from,
            width,
            height,
            rate,
            bit_depth,
            frame: 0,
            data: vec![0; samples * if bit_depth == 10 { 2 } else { 1 }],
        })
    }

    /// The next frame, `None` at the end.
    ///
    /// # Errors
    /// The file ends within a frame, or something else stands in place of one.
    pub fn frame(&mut self) -> Result<Option<Arc<Picture>>> {
        let (name, n) = (&self.name, self.frame);
        let fail = |what: String| Failure::Input(format!("{name}: frame {n}: {what}"));
        match line(&mut self.from).map_err(|e| fail(e.to_string()))? {
            None => return Ok(None),
            Some(line) if line == "FRAME" || line.starts_with("FRAME ") => {}
            Some(_) => return Err(fail("no frame begins here: the file is damaged".into())),
        }
        self.from
            .read_exact(&mut self.data)
            .map_err(|_| fail("the file ends within it".into()))?;
        self.frame += 1;
        let (format, bytes) = match self.bit_depth {
            10 => (RawFormat::I42010Le, 2),
            _ => (RawFormat::I420, 1),
        };
        let (w, h) = (self.width as usize, self.height as usize);
        let (cw, ch) = (w.div_ceil(2) * bytes, h.div_ceil(2));
        let (y, c) = self.data.split_at(w * bytes * h);
        let (u, v) = c.split_at(cw * ch);
        let strides = [w * bytes, cw, cw];
        let picture = Picture::from_raw(format, self.width, self.height, &[y, u, v], &strides)?;
        Ok(Some(Arc::new(picture)))
    }
}

/// A line without its end; `None` at the end of the file.
fn line(from: &mut impl Read) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' || line.len() > MAX_LINE => break,
            Ok(_) => line.push(byte[0]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

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
/// What stands before a frame, without parameters.
const FRAME: &[u8] = b"FRAME\n";
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
    /// Whether planes have the lines of GStreamer's memory; `None`: the first frame's end tells.
    padded: Option<bool>,
    /// What was read to find out.
    ahead: Vec<u8>,
}

/// Offset and bytes of a line of Y, U and V in GStreamer's memory of 8-bit 4:2:0, and all bytes of
/// a frame there.
fn gstreamer_layout(w: usize, h: usize) -> ([(usize, usize); 3], usize) {
    let luma = w.next_multiple_of(4);
    let chroma = w.div_ceil(2).next_multiple_of(4);
    let rows = h.next_multiple_of(2);
    let (u, part) = (luma * rows, chroma * rows / 2);
    ([(0, luma), (u, chroma), (u + part, chroma)], u + 2 * part)
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
            padded: Some(false),
            ahead: Vec::new(),
        })
    }

    /// Of what GStreamer's y4menc writes: that of 1.22 writes the padding of lines, too.
    ///
    /// # Errors
    /// As [`Reader::new`].
    pub fn of_gstreamer(name: &Path, from: R) -> Result<Self> {
        let mut reader = Self::new(name, from)?;
        let (_, bytes) = gstreamer_layout(reader.width as usize, reader.height as usize);
        if reader.bit_depth == 8 && bytes > reader.data.len() {
            reader.padded = None;
        }
        Ok(reader)
    }

    /// Reads a frame's bytes, padded or not.
    fn read_frame(&mut self) -> std::io::Result<()> {
        let (w, h) = (self.width as usize, self.height as usize);
        let (planes, bytes) = gstreamer_layout(w, h);
        let plain = self.data.len();
        if self.padded == Some(true) {
            let mut all = vec![0; bytes];
            self.from.read_exact(&mut all)?;
            self.pack(&all, planes);
            return Ok(());
        }
        self.from.read_exact(&mut self.data)?;
        if self.padded.is_none() {
            let mut ahead = Vec::new();
            self.from
                .by_ref()
                .take(FRAME.len() as u64)
                .read_to_end(&mut ahead)?;
            let padded = !ahead.is_empty() && ahead != FRAME;
            self.padded = Some(padded);
            if padded {
                let mut all = std::mem::take(&mut self.data);
                all.extend(ahead);
                let read = all.len();
                all.resize(bytes.max(read), 0);
                self.from.read_exact(&mut all[read..])?;
                self.data = vec![0; plain];
                self.pack(&all, planes);
            } else {
                self.ahead = ahead;
            }
        }
        Ok(())
    }

    /// Takes the samples out of padded lines.
    fn pack(&mut self, all: &[u8], planes: [(usize, usize); 3]) {
        let (w, h) = (self.width as usize, self.height as usize);
        let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
        let mut out = &mut self.data[..];
        for ((offset, stride), (w, h)) in planes.into_iter().zip([(w, h), (cw, ch), (cw, ch)]) {
            for line in all[offset..].chunks(stride).take(h) {
                let (to, rest) = out.split_at_mut(w);
                to.copy_from_slice(&line[..w]);
                out = rest;
            }
        }
    }

    /// The next frame, `None` at the end.
    ///
    /// # Errors
    /// The file ends within a frame, or something else stands in place of one.
    pub fn frame(&mut self) -> Result<Option<Arc<Picture>>> {
        let (name, n) = (self.name.clone(), self.frame);
        let fail = |what: String| Failure::Input(format!("{name}: frame {n}: {what}"));
        let ahead = std::mem::take(&mut self.ahead);
        match line(&mut (&ahead[..]).chain(&mut self.from)).map_err(|e| fail(e.to_string()))? {
            None => return Ok(None),
            Some(line) if line == "FRAME" || line.starts_with("FRAME ") => {}
            Some(_) => return Err(fail("no frame begins here: the file is damaged".into())),
        }
        let ends = |_| Failure::Input(format!("{name}: frame {n}: the file ends within it"));
        self.read_frame().map_err(ends)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two frames of 6×3, lines of `stride` of Y and `chroma` of U and V, in `rows` and half of
    /// them.
    fn stream(stride: usize, chroma: usize, rows: usize) -> Vec<u8> {
        let mut bytes = b"YUV4MPEG2 W6 H3 F25:1 C420\n".to_vec();
        for frame in 0..2 {
            bytes.extend(FRAME);
            for (plane, (w, h, stride, rows)) in [
                (6, 3, stride, rows),
                (3, 2, chroma, rows.div_ceil(2)),
                (3, 2, chroma, rows.div_ceil(2)),
            ]
            .into_iter()
            .enumerate()
            {
                for y in 0..rows {
                    bytes.extend((0..stride).map(|x| match x < w && y < h {
                        true => (100 * frame + 30 * plane + 7 * y + x) as u8,
                        false => 255,
                    }));
                }
            }
        }
        bytes
    }

    #[test]
    fn padding_of_lines_is_found() {
        let read = |bytes: &[u8]| {
            let mut reader = Reader::of_gstreamer(Path::new("x"), bytes).unwrap();
            let frames = [
                reader.frame().unwrap().unwrap(),
                reader.frame().unwrap().unwrap(),
            ];
            assert!(reader.frame().unwrap().is_none());
            frames
        };
        let (plain, padded) = (stream(6, 3, 3), stream(8, 4, 4));
        assert!(padded.len() > plain.len());
        let (plain, padded) = (read(&plain), read(&padded));
        for (a, b) in plain.iter().zip(&padded) {
            assert!(a.is_equal(b));
        }
        assert!(!plain[0].is_equal(&plain[1]));
        assert_eq!(plain[0].plane(2).row(1)[2] >> 2, 60 + 7 + 2);
    }
}

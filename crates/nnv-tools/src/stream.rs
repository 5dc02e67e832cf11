// SPDX-License-Identifier: MPL-2.0
//! Walks over the units of a file, sound or damaged, without holding it in memory.

use std::fs::File;
#[cfg(not(unix))]
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use nnv_bitstream::unit::{CRC_LEN, START_CODE};
use nnv_bitstream::{FrameHeader, Peek, SequenceHeader, UnitType, peek_unit};

use crate::failure::{Failure, Result};

/// Longest header of a unit, with room to spare.
const UNIT_HEAD: usize = 16;
/// Bytes of a unit that are read first: nearly all frame headers fit in.
const FIRST_READ: usize = 64;
/// Longest frame header: flags, numbers, ten references, two times, a checksum.
const MAX_FRAME_HEADER: usize = 160;
/// Longest sequence header that is looked into.
const MAX_SEQUENCE_HEADER: usize = 4096;
/// Bytes read at once where all of a file is read.
const BLOCK: usize = 64 * 1024;
/// A file without a unit in so many bytes is something else.
const PATIENCE: u64 = 16 << 20;

/// How closely a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Headers, hopping from unit to unit. A unit's checksum is looked at only where no other unit
    /// follows it.
    Headers,
    /// All bytes: every checksum.
    All,
}

/// A sound unit.
#[derive(Clone, Debug)]
pub struct UnitAt {
    /// Where it begins in the file.
    pub offset: u64,
    /// Length from the start code to the checksum.
    pub len: u64,
    /// Bytes of the payload.
    pub payload: u64,
    /// Its type.
    pub kind: UnitType,
    /// What it says.
    pub content: Content,
}

/// The part of a unit that tools look at.
#[derive(Clone, Debug)]
pub enum Content {
    /// A sequence header, or why it cannot be read.
    Sequence(std::result::Result<Box<SequenceHeader>, String>),
    /// A frame's header, or why it cannot be read.
    Frame(std::result::Result<Box<FrameHeader>, String>),
    /// Filler, metadata, or a type of a later version.
    Other,
}

/// A piece of a file. Pieces follow each other without a gap.
#[derive(Clone, Debug)]
pub enum Piece {
    /// A unit.
    Unit(UnitAt),
    /// Bytes that belong to no sound unit.
    Damage {
        /// Where they begin.
        offset: u64,
        /// How many.
        len: u64,
        /// What is wrong with the first of them.
        what: &'static str,
    },
}

/// A file, and where in it the walk is.
#[derive(Debug)]
pub struct Stream {
    path: PathBuf,
    file: File,
    len: u64,
    depth: Depth,
    pos: u64,
    block: Vec<u8>,
    block_at: u64,
    bytes_read: u64,
    units: u64,
}

impl Stream {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read, is no plain file, is empty, or an MP4 file.
    pub fn open(path: &Path, depth: Depth) -> Result<Self> {
        let fail = |e: std::io::Error| Failure::file(path, e);
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(Failure::file(
                path,
                "not a plain file; write the stream to one first",
            ));
        }
        if metadata.len() == 0 {
            return Err(Failure::file(path, "the file is empty"));
        }
        let mut stream = Self {
            path: path.into(),
            file,
            len: metadata.len(),
            depth,
            pos: 0,
            block: Vec::new(),
            block_at: 0,
            bytes_read: 0,
            units: 0,
        };
        // A box of an MP4 file names its type behind its length.
        let head = stream.peek(0, UNIT_HEAD)?;
        if matches!(head.get(4..8), Some(b"ftyp" | b"styp")) {
            return Err(Failure::file(
                path,
                format!(
                    "this is an MP4 file, and bare streams are read here. An NNV stream in it \
                     comes out with: gst-launch-1.0 filesrc location={path:?} ! qtdemux ! nnvparse \
                     ! filesink location=out.nnv"
                ),
            ));
        }
        Ok(stream)
    }

    /// Length of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// How closely it looks.
    pub fn depth(&self) -> Depth {
        self.depth
    }

    /// The next piece; `None` at the end of the file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no unit at all (or none in its first 16 MiB).
    pub fn next(&mut self) -> Result<Option<Piece>> {
        if self.pos >= self.len {
            if self.units == 0 {
                return Err(self.foreign());
            }
            return Ok(None);
        }
        match self.unit_at(self.pos, self.depth)? {
            Ok(unit) => {
                self.units += 1;
                self.pos += unit.len;
                Ok(Some(Piece::Unit(unit)))
            }
            Err(what) => {
                let offset = self.pos;
                self.pos = self.resume(offset + 1)?;
                if self.pos >= self.len && self.units == 0 {
                    return Err(self.foreign());
                }
                Ok(Some(Piece::Damage {
                    offset,
                    len: self.pos - offset,
                    what,
                }))
            }
        }
    }

    /// The bytes of a unit, all of them.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn bytes_of(&mut self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let got = self.read_at(offset, &mut bytes)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    fn foreign(&self) -> Failure {
        Failure::file(
            &self.path,
            "not an NNV stream: no unit of one in it (a stream begins with the bytes 8E 4E 56 01)",
        )
    }

    /// The unit at a place, or what is wrong there.
    fn unit_at(
        &mut self,
        offset: u64,
        depth: Depth,
    ) -> Result<std::result::Result<UnitAt, &'static str>> {
        let head = self.peek(offset, UNIT_HEAD)?;
        let (kind, payload) = match peek_unit(head) {
            Peek::Sound(kind, payload) => (kind, payload),
            Peek::NeedMore(_) => return Ok(Err("a unit is cut off by the end of the file")),
            Peek::Bad => return Ok(Err("no unit begins here")),
        };
        let len = (payload.end + CRC_LEN) as u64;
        let Some(left) = (self.len - offset).checked_sub(len) else {
            return Ok(Err(
                "a unit is cut off by the end of the file, or its length is damaged",
            ));
        };
        // First, while the block holds it.
        let content = self.content(offset, kind, payload.clone())?;
        let sure = depth == Depth::Headers
            && (left == 0
                || self
                    .peek(offset + len, START_CODE.len())?
                    .get(..START_CODE.len())
                    == Some(&START_CODE));
        if !sure && !self.checksum_holds(offset, payload.clone())? {
            return Ok(Err("a unit's checksum is wrong"));
        }
        Ok(Ok(UnitAt {
            offset,
            len,
            payload: payload.len() as u64,
            kind,
            content,
        }))
    }

    fn content(
        &mut self,
        offset: u64,
        kind: UnitType,
        payload: std::ops::Range<usize>,
    ) -> Result<Content> {
        let from = offset + payload.start as u64;
        Ok(match kind {
            UnitType::Sequence => {
                let bytes = self.peek(from, payload.len().min(MAX_SEQUENCE_HEADER))?;
                let header = SequenceHeader::parse(&bytes[..payload.len().min(bytes.len())]);
                Content::Sequence(header.map(Box::new).map_err(|e| e.to_string()))
            }
            UnitType::Frame | UnitType::EncryptedFrame => {
                let mut header = Err(String::new());
                // Mostly the first bytes do, and they are there already.
                for wanted in [FIRST_READ - UNIT_HEAD, MAX_FRAME_HEADER] {
                    let wanted = payload.len().min(wanted);
                    let bytes = self.peek(from, wanted)?;
                    let bytes = &bytes[..bytes.len().min(payload.len())];
                    header = FrameHeader::parse(bytes)
                        .map(|(header, _)| Box::new(header))
                        .map_err(|e| e.to_string());
                    if header.is_ok() {
                        break;
                    }
                }
                Content::Frame(header)
            }
            UnitType::Filler
            | UnitType::FrameMetadata
            | UnitType::StreamMetadata
            | UnitType::Unknown(_) => Content::Other,
        })
    }

    /// Whether a unit's checksum holds. Reads all of the unit.
    fn checksum_holds(&mut self, offset: u64, payload: std::ops::Range<usize>) -> Result<bool> {
        // Type, length and payload are covered, the start code and the header's check are not.
        let covered = START_CODE.len()..payload.start - 1;
        let mut crc = crc32c::crc32c(&self.peek(offset, payload.start)?[covered]);
        let (mut at, end) = (offset + payload.start as u64, offset + payload.end as u64);
        while at < end {
            let wanted = (end - at).min(BLOCK as u64) as usize;
            let bytes = self.peek(at, wanted)?;
            let bytes = &bytes[..wanted.min(bytes.len())];
            if bytes.is_empty() {
                return Ok(false);
            }
            crc = crc32c::crc32c_append(crc, bytes);
            at += bytes.len() as u64;
        }
        Ok(self.peek(end, CRC_LEN)?.get(..CRC_LEN) == Some(&crc.to_be_bytes()))
    }

    /// Where the next sound unit begins, at `from` or behind it; the end of the file where none
    /// does.
    fn resume(&mut self, from: u64) -> Result<u64> {
        let mut at = from;
        while at < self.len {
            if self.units == 0 && at > PATIENCE {
                return Err(self.foreign());
            }
            let bytes = self.peek(at, BLOCK)?;
            match bytes.iter().position(|&b| b == START_CODE[0]) {
                None => at += bytes.len().max(1) as u64,
                Some(ahead) => {
                    at += ahead as u64;
                    // After damage only a unit whose checksum holds is believed.
                    if self.unit_at(at, Depth::All)?.is_ok() {
                        return Ok(at);
                    }
                    at += 1;
                }
            }
        }
        Ok(self.len)
    }

    /// At least `len` bytes at a place, fewer only at the end of the file.
    fn peek(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let held = |this: &Self| {
            let skip = usize::try_from(at.checked_sub(this.block_at)?).ok()?;
            let rest = this.block.get(skip..)?;
            let enough = rest.len() >= len || at + rest.len() as u64 >= this.len;
            enough.then_some(skip)
        };
        if held(self).is_none() {
            let size = match self.depth {
                Depth::All => BLOCK.max(len),
                Depth::Headers => FIRST_READ.max(len),
            };
            let size = size.min(usize::try_from(self.len.saturating_sub(at)).unwrap_or(size));
            let mut block = std::mem::take(&mut self.block);
            block.resize(size, 0);
            let got = self.read_at(at, &mut block)?;
            block.truncate(got);
            // The file has become shorter since it was opened.
            if got < size {
                self.len = at + got as u64;
            }
            self.block = block;
            self.block_at = at;
        }
        Ok(held(self).map_or(&[], |skip| &self.block[skip..]))
    }

    /// Fills `bytes` from a place; fewer at the end of the file.
    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> Result<usize> {
        let path = &self.path;
        let mut file = &self.file;
        let mut got = 0;
        while got < bytes.len() {
            let at = at + got as u64;
            let n =
                read_some(&mut file, at, &mut bytes[got..]).map_err(|e| Failure::file(path, e))?;
            if n == 0 {
                break;
            }
            got += n;
        }
        self.bytes_read += got as u64;
        Ok(got)
    }
}

#[cfg(unix)]
fn read_some(file: &mut &File, at: u64, bytes: &mut [u8]) -> std::io::Result<usize> {
    use std::os::unix::fs::FileExt;
    file.read_at(bytes, at)
}

#[cfg(not(unix))]
fn read_some(file: &mut &File, at: u64, bytes: &mut [u8]) -> std::io::Result<usize> {
    file.seek(SeekFrom::Start(at))?;
    file.read(bytes)
}

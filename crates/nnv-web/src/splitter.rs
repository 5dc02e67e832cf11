// SPDX-License-Identifier: MPL-2.0
//! A bare stream into chunks.

use std::collections::VecDeque;

use nnv_bitstream::index::Timeline;
use nnv_bitstream::{AccessUnitScan, AccessUnitScanner, FrameHeader};

use crate::SequenceFacts;

/// An access unit with its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Decoding can begin here.
    pub key: bool,
    /// Presentation time on the file's timeline in ns; 0 where nothing says.
    pub pts: u64,
    /// For how long it is shown, in ns, where that is known.
    pub duration: Option<u64>,
    /// The bytes.
    pub data: Vec<u8>,
}

/// Cuts the bytes of a stream into chunks, as they come.
///
/// Holds at most what the picture's size says that a frame may have. Frames before the first key
/// frame, and before the first sequence header, are passed over: nobody could decode them.
#[derive(Debug, Default)]
pub struct Splitter {
    scanner: AccessUnitScanner,
    timeline: Timeline,
    sequence: Option<SequenceFacts>,
    buffer: Vec<u8>,
    /// Where the buffer begins in the stream.
    offset: u64,
    /// Bytes that are needed before anything can be said.
    needed: usize,
    /// A key frame was met since the beginning or the last restart.
    joined: bool,
    /// Time of the next key frame, where the page knows it.
    awaited: Option<u64>,
    /// Added to the timeline's times, in ns.
    shift: i64,
    skipped: u64,
    warnings: VecDeque<String>,
}

impl Splitter {
    /// What the newest sequence header says.
    pub fn sequence(&self) -> Option<&SequenceFacts> {
        self.sequence.as_ref()
    }

    /// Bytes that were passed over.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// A part of the stream that this version cannot read, told once each.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warnings.pop_front()
    }

    /// Takes the next bytes and returns what is whole.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Chunk> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < self.needed {
            return Vec::new();
        }
        self.cut(false)
    }

    /// The stream ends: what is left.
    pub fn finish(&mut self) -> Vec<Chunk> {
        self.cut(true)
    }

    /// The stream goes on somewhere else, at a key frame; what waits is dropped. `time`: when that
    /// one is shown, in ns, where that is known; otherwise it is what the stream says.
    pub fn restart(&mut self, time: Option<u64>) {
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        self.needed = 0;
        self.joined = false;
        self.scanner.restart();
        self.timeline.jump_to(time.unwrap_or(0));
        self.awaited = time;
    }

    /// Times of a frame as the page knows them.
    fn times(&mut self, frame: &FrameHeader) -> (u64, Option<u64>) {
        let times = self.timeline.times(frame);
        let pts = times.pts.unwrap_or(0);
        if frame.is_key() {
            if !std::mem::replace(&mut self.joined, true) {
                self.shift = 0;
            }
            if let Some(awaited) = self.awaited.take() {
                self.shift = awaited.cast_signed().saturating_sub(pts.cast_signed());
            }
        }
        (pts.saturating_add_signed(self.shift), times.duration)
    }

    fn cut(&mut self, end: bool) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let (mut at, begin) = (0, self.offset);
        let mut buffer = std::mem::take(&mut self.buffer);
        self.needed = 0;
        loop {
            let data = &buffer[at..];
            let gone = match self.scanner.scan(begin + at as u64, data, end) {
                AccessUnitScan::Unit(unit) => {
                    if let Some(header) = unit.sequence {
                        self.scanner.set_pictures(header.width, header.height);
                        self.timeline.set_rate(header.frame_rate);
                        self.sequence = Some(header.into());
                    }
                    let (len, frame) = (unit.len, unit.frame);
                    if self.sequence.is_some() && (self.joined || frame.is_key()) {
                        let data = data[..len].to_vec();
                        let (pts, duration) = self.times(&frame);
                        chunks.push(Chunk {
                            key: frame.is_key(),
                            pts,
                            duration,
                            data,
                        });
                    } else {
                        self.skipped += len as u64;
                    }
                    len
                }
                AccessUnitScan::Repeated(len) => len,
                AccessUnitScan::Skip(len) => {
                    self.skipped += len as u64;
                    len
                }
                AccessUnitScan::Unsupported(len, error) => {
                    // Frames behind it are another stream's.
                    self.sequence = None;
                    self.skipped += len as u64;
                    if self.warnings.len() < 8 {
                        self.warnings.push_back(error.to_string());
                    }
                    len
                }
                AccessUnitScan::NeedMore(size) => {
                    self.needed = size;
                    break;
                }
                AccessUnitScan::End => break,
            };
            at += gone.min(data.len());
        }
        buffer.drain(..at);
        self.offset += at as u64;
        if end {
            self.skipped += buffer.len() as u64;
            self.offset += buffer.len() as u64;
            buffer.clear();
        }
        self.buffer = buffer;
        chunks
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Times of the access units of a byte stream, and the index of its key frames.

use std::time::Instant;

use super::unit::{CRC_LEN, START_CODE};
use super::{FrameHeader, Peek, Rational, SequenceHeader, UnitType, peek_unit};

/// Bytes read at once; units are mostly smaller.
const BLOCK: usize = 64 * 1024;
/// Longest frame header: flags, numbers, ten references, two times, a checksum.
const MAX_FRAME_HEADER: usize = 160;
/// Longest sequence header that is read for the index.
const MAX_SEQUENCE_HEADER: usize = 4096;
/// Most key frames that are remembered: 16 MiB of index.
const MAX_KEYS: usize = 1 << 20;

/// Gives access units their times, as they come in decoding order.
///
/// Frames may carry their own time or follow from the key frame's, their number and the frame rate.
/// A stream that was cut out of a longer one starts at zero; where streams were put one behind the
/// other, the next one's times go on where the last one's end.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    rate: Option<Rational>,
    /// Added to times of the stream; `None` before the first key frame.
    shift: Option<i64>,
    /// Group and time of the last key frame.
    key: Option<(u8, i64)>,
    /// Where the frame that is shown last ends.
    end: i64,
}

/// Presentation time and duration in ns, where known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// When the frame is shown.
    pub pts: Option<u64>,
    /// For how long.
    pub duration: Option<u64>,
}

impl Timeline {
    /// Takes over the frame rate of a sequence header.
    pub fn set_rate(&mut self, rate: Rational) {
        self.rate = Some(rate);
    }

    /// Duration of `count` frames.
    fn frames(&self, count: u32) -> Option<i64> {
        self.rate?.frames_ns(count)
    }

    /// Times of the next access unit.
    pub fn times(&mut self, frame: &FrameHeader) -> Times {
        let step = self.frames(1);
        let duration = frame.duration.and_then(|d| i64::try_from(d).ok()).or(step);
        let pts = if frame.is_key() {
            let pts = match frame.pts {
                None => self.shift.map_or(0, |_| self.end),
                Some(pts) => {
                    let shift = match self.shift {
                        // Half a frame backwards is rounding, more is another stream.
                        Some(shift)
                            if pts.saturating_add(shift)
                                >= self.end - duration.unwrap_or(0) / 2 =>
                        {
                            shift
                        }
                        Some(_) => self.end.saturating_sub(pts),
                        None => pts.saturating_neg(),
                    };
                    self.shift = Some(shift);
                    pts.saturating_add(shift)
                }
            };
            self.shift.get_or_insert(0);
            self.key = Some((frame.gop, pts));
            Some(pts)
        } else {
            if self.key.is_some_and(|(gop, _)| gop != frame.gop) {
                // Its key frame is lost: it came where the last group ends.
                self.key = Some((frame.gop, self.end));
            }
            match (frame.pts, self.shift) {
                (Some(pts), Some(shift)) => Some(pts.saturating_add(shift)),
                _ => self
                    .key
                    .zip(self.frames(frame.poc))
                    .map(|((_, key), after)| key.saturating_add(after)),
            }
        }
        .map(|pts| pts.max(0));
        if let Some(pts) = pts {
            self.end = self.end.max(pts.saturating_add(duration.unwrap_or(0)));
        }
        Times {
            pts: pts.and_then(|v| u64::try_from(v).ok()),
            duration: duration.and_then(|v| u64::try_from(v).ok()),
        }
    }

    /// Where all frames so far end, in ns.
    pub fn end(&self) -> u64 {
        u64::try_from(self.end).unwrap_or(0)
    }
}

/// A key frame of a file.
#[derive(Debug, Clone)]
pub struct KeyFrame {
    /// Where its access unit begins, in bytes.
    pub offset: u64,
    /// Presentation time in ns.
    pub pts: u64,
    /// The timeline right before it: to go on from here after a seek.
    pub before: Timeline,
}

/// Finds all key frames of a file by hopping from unit to unit.
#[derive(Debug, Default)]
pub struct Index {
    keys: Vec<KeyFrame>,
    timeline: Timeline,
    /// Where to go on.
    pos: u64,
    /// Where the access unit in progress begins.
    unit_start: Option<u64>,
    complete: bool,
}

/// Why indexing stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The whole file is known.
    Complete,
    /// The deadline has passed.
    Later,
}

impl Index {
    /// Whether all of the file is known.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Duration in ns, once all of the file is known.
    pub fn duration(&self) -> Option<u64> {
        self.complete.then(|| self.timeline.end())
    }

    /// The key frames known so far, in order of the file.
    pub fn keys(&self) -> &[KeyFrame] {
        &self.keys
    }

    /// The key frame whose access unit begins at `offset`.
    pub fn at_offset(&self, offset: u64) -> Option<&KeyFrame> {
        self.keys
            .binary_search_by_key(&offset, |key| key.offset)
            .ok()
            .map(|i| &self.keys[i])
    }

    /// The last key frame at or before `pts`.
    pub fn before(&self, pts: u64) -> Option<&KeyFrame> {
        let after = self.keys.partition_point(|key| key.pts <= pts);
        after.checked_sub(1).map(|i| &self.keys[i])
    }

    /// The first key frame at or after `pts`.
    pub fn after(&self, pts: u64) -> Option<&KeyFrame> {
        self.keys
            .get(self.keys.partition_point(|key| key.pts < pts))
    }

    /// Learns of a key frame that streams by, and says whether it was new. Out-of-order ones are
    /// known already.
    pub fn add(&mut self, key: KeyFrame) -> bool {
        let new = !self.complete
            && self.keys.len() < MAX_KEYS
            && self.keys.last().is_none_or(|last| last.offset < key.offset);
        if new {
            self.keys.push(key);
        }
        new
    }

    /// Goes on indexing. `read(offset, size)` gives the bytes there, fewer at the end of the file.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn scan<E>(
        &mut self,
        deadline: Option<Instant>,
        mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
    ) -> Result<Progress, E> {
        let (mut block, mut start) = (Vec::new(), self.pos);
        while !self.complete {
            // The headers of the next unit, from the block if it holds them.
            let wanted = MAX_FRAME_HEADER + 16;
            let held = (self.pos - start) as usize;
            if block.len().saturating_sub(held) < wanted {
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Ok(Progress::Later);
                }
                block = read(self.pos, BLOCK)?;
                start = self.pos;
            }
            let data = &block[(self.pos - start) as usize..];
            let Peek::Sound(kind, payload) = peek_unit(data) else {
                // Damage: look for the next start code. The block's last bytes may hold half of
                // one.
                self.unit_start = None;
                let next = (1..data.len()).find(|&at| {
                    data[at] == START_CODE[0] && !matches!(peek_unit(&data[at..]), Peek::Bad)
                });
                self.pos += next.unwrap_or(data.len()) as u64;
                self.complete = data.len() <= 1 || self.keys.len() >= MAX_KEYS;
                continue;
            };
            let unit_start = *self.unit_start.get_or_insert(self.pos);
            let len = payload.end + CRC_LEN;
            match kind {
                UnitType::Sequence if payload.len() <= MAX_SEQUENCE_HEADER => {
                    let (from, to) = (self.pos + payload.start as u64, payload.len());
                    let read_again;
                    let payload = match data.get(payload) {
                        Some(payload) => payload,
                        None => {
                            read_again = read(from, to)?;
                            &read_again
                        }
                    };
                    if let Ok(header) = SequenceHeader::parse(payload) {
                        self.timeline.set_rate(header.frame_rate);
                    }
                }
                UnitType::Frame => {
                    let end = payload
                        .end
                        .min(data.len())
                        .min(payload.start + MAX_FRAME_HEADER);
                    if let Ok((frame, _)) = FrameHeader::parse(&data[payload.start..end]) {
                        let before = self.timeline.clone();
                        let times = self.timeline.times(&frame);
                        if let (true, Some(pts)) = (frame.is_key(), times.pts) {
                            self.add_scanned(KeyFrame {
                                offset: unit_start,
                                pts,
                                before,
                            });
                        }
                    }
                    self.unit_start = None;
                }
                _ => {}
            }
            self.pos += len as u64;
            // A length may hop beyond the block, and a damaged one beyond the file: what is read
            // there decides.
            if self.pos - start > block.len() as u64 {
                block.clear();
                start = self.pos;
            }
        }
        Ok(Progress::Complete)
    }

    fn add_scanned(&mut self, key: KeyFrame) {
        match self.keys.binary_search_by_key(&key.offset, |k| k.offset) {
            Ok(_) => {}
            Err(at) => self.keys.insert(at, key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_unit;
    use std::convert::Infallible;

    const MS: u64 = 1_000_000;

    fn header(rate: (u32, u32)) -> SequenceHeader {
        SequenceHeader {
            frame_rate: Rational::new(rate.0, rate.1),
            ..SequenceHeader::new("realtime", [7; 8], 64, 48, 8)
        }
    }

    fn frame(poc: u32, pts: Option<i64>) -> FrameHeader {
        FrameHeader {
            pts,
            ..if poc == 0 {
                FrameHeader::key(0, 9)
            } else {
                FrameHeader::inter(0, poc, 9, 0, None)
            }
        }
    }

    /// A file of groups of `pocs`, frame payloads of about `size` bytes, with times or without.
    fn file(groups: usize, pocs: &[u32], size: usize, times: bool) -> (Vec<u8>, Vec<u64>) {
        let (mut out, mut keys) = (Vec::new(), Vec::new());
        for group in 0..groups {
            for &poc in pocs {
                if poc == 0 {
                    keys.push(out.len() as u64);
                    let h = header((25, 1)).to_payload().unwrap();
                    write_unit(&mut out, UnitType::Sequence, &h).unwrap();
                }
                let pts = (group * pocs.len() + poc as usize) as i64 * 40 * MS as i64;
                let f = frame(poc, times.then_some(pts));
                let payload = crate::FramePayload {
                    header: f,
                    map: &[],
                    ink: &[],
                    side: &[],
                    z: &[],
                    y: vec![&[]],
                };
                let mut payload = payload.to_payload(1).unwrap();
                payload.resize(payload.len() + size, 0x8e);
                write_unit(&mut out, UnitType::Frame, &payload).unwrap();
            }
        }
        (out, keys)
    }

    fn scan(index: &mut Index, data: &[u8]) -> Progress {
        let read = |offset: u64, size: usize| {
            let from = (offset as usize).min(data.len());
            Ok::<_, Infallible>(data[from..(from + size).min(data.len())].to_vec())
        };
        index.scan(None, read).unwrap()
    }

    #[test]
    fn finds_all_key_frames_whatever_the_sizes() {
        for size in [0, 100, 70_000] {
            for times in [false, true] {
                let (data, keys) = file(5, &[0, 4, 2, 1, 3], size, times);
                let mut index = Index::default();
                assert_eq!(scan(&mut index, &data), Progress::Complete);
                let found: Vec<_> = index.keys().iter().map(|k| (k.offset, k.pts)).collect();
                let times_of_keys = (0..).map(|i| i * 200 * MS);
                let expected: Vec<_> = keys.iter().copied().zip(times_of_keys).collect();
                assert_eq!(found, expected, "size {size}, times {times}");
                assert_eq!(index.duration(), Some(1000 * MS));
                assert_eq!(index.before(399 * MS).unwrap().pts, 200 * MS);
                assert_eq!(index.after(399 * MS).unwrap().pts, 400 * MS);
                assert!(index.after(801 * MS).is_none());
                assert_eq!(index.at_offset(keys[2]).unwrap().pts, 400 * MS);
            }
        }
    }

    #[test]
    fn damage_costs_only_what_is_damaged() {
        let (mut data, keys) = file(4, &[0, 1, 2], 500, true);
        for (i, byte) in data[keys[1] as usize..keys[2] as usize - 600]
            .iter_mut()
            .enumerate()
        {
            *byte = (i * 7) as u8;
        }
        data.extend([0x8e, b'N']);
        let mut index = Index::default();
        assert_eq!(scan(&mut index, &data), Progress::Complete);
        let found: Vec<_> = index.keys().iter().map(|k| k.offset).collect();
        assert_eq!(found, [keys[0], keys[2], keys[3]]);
        scan(&mut Index::default(), &[]);
        scan(&mut Index::default(), &[0x8e; 10]);
    }

    #[test]
    fn cut_and_joined_streams_have_one_timeline() {
        let mut t = Timeline::default();
        t.set_rate(Rational::new(25, 1));
        let pts = |t: &mut Timeline, poc, pts: Option<u64>| {
            t.times(&frame(poc, pts.map(|p| (p * MS) as i64)))
                .pts
                .unwrap()
                / MS
        };
        // Cut out of a longer stream.
        assert_eq!(pts(&mut t, 0, Some(5000)), 0);
        assert_eq!(pts(&mut t, 2, Some(5080)), 80);
        assert_eq!(pts(&mut t, 1, Some(5040)), 40);
        // Another one behind it.
        assert_eq!(pts(&mut t, 0, Some(0)), 120);
        assert_eq!(pts(&mut t, 1, Some(40)), 160);
        // A gap stays.
        assert_eq!(pts(&mut t, 0, Some(500)), 620);
        // No times at all.
        assert_eq!(pts(&mut t, 0, None), 660);
        assert_eq!(pts(&mut t, 1, None), 700);
        assert_eq!(t.end(), 740 * MS);
        // A group without its key frame.
        let lost = FrameHeader {
            gop: 7,
            ..frame(2, None)
        };
        assert_eq!(t.times(&lost).pts, Some(820 * MS));
    }

    #[test]
    fn unknown_rates_have_no_times_to_guess() {
        let mut t = Timeline::default();
        t.set_rate(Rational::new(0, 1));
        assert_eq!(t.times(&frame(0, None)).pts, Some(0));
        assert_eq!(t.times(&frame(1, None)), Times::default());
        let extreme = FrameHeader {
            duration: Some(i64::MAX as u64),
            ..frame(0, Some(i64::MIN))
        };
        for _ in 0..3 {
            t.times(&extreme);
            t.times(&frame(1, Some(i64::MAX)));
        }
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Times of the access units of a byte stream, and the index of its key frames.

use std::borrow::Cow;
use std::time::Instant;

use super::checksums::Checksums;
use super::limits::MAX_SEQUENCE_PAYLOAD;
use super::unit::{CRC_LEN, MIN_UNIT};
use super::{FrameHeader, Peek, Rational, Scan, SequenceHeader, UnitScanner, UnitType};

/// Bytes read at once; units are mostly smaller.
const BLOCK: usize = 64 * 1024;
/// Longest frame header: flags, numbers, ten references, two times, a checksum.
const MAX_FRAME_HEADER: usize = 160;
/// Most key frames that are remembered: 100 MiB of index.
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
    /// `end` is an estimate only.
    jumped: bool,
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

    /// The stream goes on somewhere else. A key frame that does not carry its time is shown at
    /// `time` (in ns), one that does when it says.
    pub fn jump_to(&mut self, time: u64) {
        self.end = i64::try_from(time).unwrap_or(i64::MAX);
        self.key = None;
        self.jumped = true;
    }

    /// Times of a key frame that this timeline has passed already.
    pub fn times_of_key(&self, frame: &FrameHeader, pts: u64) -> Times {
        let step = self.frames(1).and_then(|step| u64::try_from(step).ok());
        Times {
            pts: Some(pts),
            duration: frame.duration.or(step),
        }
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
                            if self.jumped
                                || pts.saturating_add(shift)
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
            if std::mem::take(&mut self.jumped) {
                self.end = pts.max(0);
            }
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
    /// The timeline right after it: to go on from here after a seek.
    pub after: Timeline,
}

/// Finds all key frames of a file by hopping from unit to unit.
#[derive(Debug)]
pub struct Index {
    keys: Vec<KeyFrame>,
    timeline: Timeline,
    units: UnitScanner,
    sums: Checksums,
    /// Whether the last sequence header can be used: frames without one are not shown.
    readable: bool,
    /// Before this place headers are not believed without the checksum of their unit.
    doubtful: u64,
    /// Where to go on.
    pos: u64,
    /// Where the access unit in progress begins.
    unit_start: Option<u64>,
    /// A sequence header stands in the access unit in progress.
    headed: bool,
    complete: bool,
}

impl Default for Index {
    fn default() -> Self {
        Index {
            keys: Vec::new(),
            timeline: Timeline::default(),
            units: UnitScanner::unknown_pictures(),
            sums: Checksums::default(),
            readable: false,
            doubtful: 0,
            pos: 0,
            unit_start: None,
            headed: false,
            complete: false,
        }
    }
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

    /// The last key frame whose access unit begins at or before `offset`.
    pub fn before_offset(&self, offset: u64) -> Option<&KeyFrame> {
        let after = self.keys.partition_point(|key| key.offset <= offset);
        after.checked_sub(1).map(|i| &self.keys[i])
    }

    /// The first key frame whose access unit begins after `offset`.
    pub fn after_offset(&self, offset: u64) -> Option<&KeyFrame> {
        self.keys
            .get(self.keys.partition_point(|key| key.offset <= offset))
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
        let (mut block, mut start, mut to_end) = (Vec::new(), self.pos, false);
        while !self.complete {
            // The headers of the next unit, from the block if it holds them.
            let held = usize::try_from(self.pos - start).unwrap_or(usize::MAX);
            if held > block.len() || block.len() - held < MAX_FRAME_HEADER + 16 && !to_end {
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Ok(Progress::Later);
                }
                block = read(self.pos, BLOCK)?;
                (start, to_end) = (self.pos, block.len() < BLOCK);
                continue;
            }
            let data = &block[held..];
            if self.pos >= self.doubtful {
                if let Peek::Sound(kind, payload) = self.units.peek(data) {
                    // One damaged header in 256 has a check that fits: its length is believed
                    // where a unit or the end of the file follows.
                    let end = self.pos + (payload.end + CRC_LEN) as u64;
                    let head = payload.end.min(payload.start + self.head(kind));
                    let head = match data.get(payload.start..head) {
                        Some(head) => Cow::Borrowed(head),
                        None => {
                            let from = self.pos + payload.start as u64;
                            Cow::Owned(read(from, head - payload.start)?)
                        }
                    };
                    let behind = usize::try_from(end - start).unwrap_or(usize::MAX);
                    let next = match block.get(behind..) {
                        Some(next) if to_end || next.len() >= MIN_UNIT => Cow::Borrowed(next),
                        _ => Cow::Owned(read(end - 1, BLOCK)?),
                    };
                    let (followed, next) = match next {
                        Cow::Borrowed(next) => (self.may_begin(next), None),
                        Cow::Owned(next) => {
                            // The byte before tells the end of the file from what is beyond.
                            let followed = next.get(1..).is_some_and(|next| self.may_begin(next));
                            (followed, Some(next))
                        }
                    };
                    if followed {
                        self.take(self.pos, kind, &head);
                        self.pos = end;
                        if let Some(next) = next {
                            (start, to_end) = (end - 1, next.len() < BLOCK);
                            block = next;
                        }
                        continue;
                    }
                    self.doubtful = end;
                } else {
                    self.doubtful = self.pos + 1;
                }
            }
            match self.units.scan_at(&mut self.sums, self.pos, data, to_end) {
                Scan::Unit(unit) => {
                    let len = unit.len as u64;
                    self.take(self.pos, unit.kind, unit.payload);
                    self.pos += len;
                }
                Scan::Skip(len) => {
                    (self.unit_start, self.headed) = (None, false);
                    self.pos += len as u64;
                }
                Scan::NeedMore(size) => {
                    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        return Ok(Progress::Later);
                    }
                    let size = size.max(BLOCK);
                    block = read(self.pos, size)?;
                    (start, to_end) = (self.pos, block.len() < size);
                }
                Scan::End => self.complete = true,
            }
        }
        Ok(Progress::Complete)
    }

    /// Bytes of a payload that the index needs.
    fn head(&self, kind: UnitType) -> usize {
        match kind {
            UnitType::Sequence => MAX_SEQUENCE_PAYLOAD,
            UnitType::Frame | UnitType::EncryptedFrame => MAX_FRAME_HEADER,
            UnitType::Filler
            | UnitType::FrameMetadata
            | UnitType::StreamMetadata
            | UnitType::Unknown(_) => 0,
        }
    }

    /// Whether a unit may begin here, or the file ends.
    fn may_begin(&self, data: &[u8]) -> bool {
        data.is_empty() || !matches!(self.units.peek(data), Peek::Bad)
    }

    /// Learns from a unit at `offset`, of whose payload the beginning is given.
    fn take(&mut self, offset: u64, kind: UnitType, payload: &[u8]) {
        let unit_start = *self.unit_start.get_or_insert(offset);
        match kind {
            UnitType::Sequence => match SequenceHeader::parse(payload) {
                Ok(header) => {
                    // Of two headers the later one begins the access unit.
                    if std::mem::replace(&mut self.headed, true) {
                        self.unit_start = Some(offset);
                    }
                    self.timeline.set_rate(header.frame_rate);
                    self.units = UnitScanner::of_pictures(header.width, header.height);
                    self.readable = true;
                }
                Err(_) => self.refuse(),
            },
            UnitType::Frame | UnitType::EncryptedFrame => {
                (self.unit_start, self.headed) = (None, false);
                if !self.readable {
                    return;
                }
                if let Ok((frame, _)) = FrameHeader::parse(payload) {
                    let times = self.timeline.times(&frame);
                    if let (true, Some(pts)) = (frame.is_key(), times.pts) {
                        let after = self.timeline.clone();
                        self.add_scanned(KeyFrame {
                            offset: unit_start,
                            pts,
                            after,
                        });
                    }
                }
            }
            kind if kind.is_critical() => self.refuse(),
            UnitType::Filler
            | UnitType::FrameMetadata
            | UnitType::StreamMetadata
            | UnitType::Unknown(_) => {}
        }
        self.complete |= self.keys.len() >= MAX_KEYS;
    }

    /// Nothing is known of what follows, up to the next header, which begins an access unit.
    fn refuse(&mut self) {
        (self.readable, self.unit_start, self.headed) = (false, None, false);
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
            ..SequenceHeader::new("realtime", [7; 8], 192, 160, 8)
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
                    still: &[],
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
    fn of_two_headers_the_later_one_begins_the_access_unit() {
        let (data, keys) = file(3, &[0, 1, 2], 100, true);
        let Peek::Sound(_, payload) = crate::peek_unit(&data) else {
            panic!("a unit begins the file")
        };
        let unit = &data[..payload.end + CRC_LEN];
        let refused = {
            let mut out = Vec::new();
            write_unit(&mut out, UnitType::Unknown(200), &[1]).unwrap();
            out
        };
        for before in [unit, &refused[..]] {
            let (mut doubled, mut expected) = (Vec::new(), Vec::new());
            for (&from, to) in keys
                .iter()
                .zip(keys[1..].iter().chain([&(data.len() as u64)]))
            {
                doubled.extend_from_slice(before);
                expected.push(doubled.len() as u64);
                doubled.extend_from_slice(&data[from as usize..*to as usize]);
            }
            let mut index = Index::default();
            assert_eq!(scan(&mut index, &doubled), Progress::Complete);
            let found: Vec<_> = index.keys().iter().map(|k| (k.offset, k.pts)).collect();
            let times = (0..).map(|i| i * 120 * MS);
            assert_eq!(found, expected.into_iter().zip(times).collect::<Vec<_>>());
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
    fn a_length_that_lies_hides_no_key_frame() {
        let (data, keys) = file(4, &[0, 1, 2], 500, true);
        // The second frame of the first group claims to be as long as pictures allow; its header's
        // check fits.
        let at = keys[0] as usize + {
            let Peek::Sound(_, header) = crate::peek_unit(&data) else {
                panic!("a unit begins the file")
            };
            let frame = header.end + CRC_LEN;
            let Peek::Sound(_, payload) = crate::peek_unit(&data[frame..]) else {
                panic!("a frame follows")
            };
            frame + payload.end + CRC_LEN
        };
        for claimed in [700, 2500, 9000] {
            let mut lie = vec![UnitType::Frame.code()];
            crate::io::put_varint(&mut lie, claimed);
            lie.push(crc32c::crc32c(&lie) as u8);
            let mut data = data.clone();
            data.splice(at + 3..at + 3 + lie.len(), lie);
            let mut index = Index::default();
            assert_eq!(scan(&mut index, &data), Progress::Complete);
            let found: Vec<_> = index.keys().iter().map(|k| k.offset).collect();
            assert_eq!(found, keys, "{claimed} bytes claimed");
        }
    }

    #[test]
    fn lying_headers_cost_linear_time_and_reading() {
        let (good, keys) = file(2, &[0, 1], 300, false);
        let mut lie = vec![UnitType::Frame.code()];
        crate::io::put_varint(&mut lie, 12_000);
        lie.push(crc32c::crc32c(&lie) as u8);
        let lie = [&crate::unit::START_CODE[..], &lie].concat();
        let cost = |kilobytes: usize| {
            let lies = lie.repeat(kilobytes * 1000 / lie.len());
            let data = [&good[..], &lies, &[0], &good].concat();
            let mut index = Index::default();
            let mut bytes = 0;
            let read = |offset: u64, size: usize| {
                let from = (offset as usize).min(data.len());
                let part = data[from..(from + size).min(data.len())].to_vec();
                bytes += part.len();
                Ok::<_, Infallible>(part)
            };
            index.scan(None, read).unwrap();
            let second = (good.len() + lies.len() + 1) as u64;
            let found: Vec<_> = index.keys().iter().map(|k| k.offset).collect();
            assert_eq!(found, [keys[0], keys[1], second, second + keys[1]]);
            bytes as u64 + index.sums.work
        };
        let (once, twice) = (cost(400), cost(800));
        assert!(twice < 3 * once, "{once} and {twice} bytes");
        assert!(twice < 800_000 * 200, "{twice} bytes");
    }

    #[test]
    fn frames_without_a_usable_header_have_no_place() {
        let (good, keys) = file(1, &[0, 1], 300, false);
        let mut newer = header((25, 1)).to_payload().unwrap();
        newer[4] = 9;
        let mut data = good.clone();
        write_unit(&mut data, UnitType::Sequence, &newer).unwrap();
        let Peek::Sound(_, payload) = crate::peek_unit(&good) else {
            panic!("a unit begins the file")
        };
        data.extend(&good[payload.end + CRC_LEN..]);
        let third = data.len() as u64;
        data.extend(&good);
        let mut index = Index::default();
        scan(&mut index, &data);
        let found: Vec<_> = index.keys().iter().map(|k| (k.offset, k.pts)).collect();
        assert_eq!(found, [(keys[0], 0), (third, 80 * MS)]);
    }

    #[test]
    fn a_jump_goes_on_from_an_estimate_or_from_what_the_stream_says() {
        let mut t = Timeline::default();
        t.set_rate(Rational::new(25, 1));
        t.times(&frame(0, None));
        t.jump_to(5000 * MS);
        assert_eq!(t.times(&frame(1, None)).pts, None);
        assert_eq!(t.times(&frame(0, None)).pts, Some(5000 * MS));
        assert_eq!(t.times(&frame(1, None)).pts, Some(5040 * MS));
        let mut t = Timeline::default();
        t.set_rate(Rational::new(25, 1));
        t.times(&frame(0, Some(1000 * MS as i64)));
        for estimate in [5000, 7000] {
            t.jump_to(estimate * MS);
            let key = frame(0, Some(6120 * MS as i64));
            assert_eq!(t.times(&key).pts, Some(5120 * MS));
            assert_eq!(t.times(&frame(1, None)).pts, Some(5160 * MS));
        }
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

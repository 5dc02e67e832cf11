// SPDX-License-Identifier: MPL-2.0
//! Access units in RTP packets and back, free of pads. `docs/rtp.md` is the specification.
//!
//! Each packet begins with a descriptor that a middle box can read: which access unit, what it
//! refers to, whether anything refers to it. So a box drops levels without parsing the stream, and
//! a receiver says exactly which frames a loss costs.

use std::collections::VecDeque;
use std::ops::Range;

use super::frame::{FramePayload, FrameType};
use super::{AccessUnit, BitstreamError, SequenceHeader};

/// Bytes of a descriptor without references.
pub const MIN_DESCRIPTOR: usize = 5;
/// Bytes of the longest descriptor: two references.
pub const MAX_DESCRIPTOR: usize = MIN_DESCRIPTOR + 2;
/// Access units that a receiver remembers: as far back as a descriptor's references reach.
const MEMORY: usize = 256;

/// Access units that cannot be decoded until a request for a key frame is made again.
const PATIENCE: u32 = 15;

const VERSION_SHIFT: u8 = 6;
const START: u8 = 1 << 5;
const END: u8 = 1 << 4;
const KEY: u8 = 1 << 3;
const DISCARDABLE: u8 = 1 << 2;
const REFERENCES: u8 = 3;
const LEVEL_SHIFT: u8 = 5;

/// What stands before the payload of each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// First packet of its access unit.
    pub start: bool,
    /// Last packet of its access unit.
    pub end: bool,
    /// The access unit is a key frame, with its sequence header.
    pub key: bool,
    /// Nothing refers to the frame.
    pub discardable: bool,
    /// Level in the mini-GOP, 0 to 7.
    pub level: u8,
    /// Counts access units in the order of sending.
    pub number: u16,
    /// Lowest byte of the number of the group of pictures.
    pub group: u8,
    /// How many access units before this one each reference was sent, in the first packet only. 0:
    /// farther than 255.
    pub references: [Option<u8>; 2],
}

/// Why a packet is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Fewer bytes than a descriptor has.
    #[error("a packet of {0} bytes is shorter than its descriptor")]
    Short(usize),
    /// Another version of the payload format.
    #[error("payload format version {0}, this version knows 0: update the receiver")]
    Version(u8),
    /// Reserved bits or values are set.
    #[error("its descriptor is damaged")]
    Reserved,
}

impl Descriptor {
    /// Reads the descriptor of a packet; the rest is payload.
    ///
    /// # Errors
    /// [`PacketError`]; nothing of such a packet makes sense.
    pub fn parse(packet: &[u8]) -> Result<(Self, &[u8]), PacketError> {
        let short = PacketError::Short(packet.len());
        let (head, rest) = packet.split_at_checked(MIN_DESCRIPTOR).ok_or(short)?;
        let version = head[0] >> VERSION_SHIFT;
        if version != 0 {
            return Err(PacketError::Version(version));
        }
        let start = head[0] & START != 0;
        let count = usize::from(head[0] & REFERENCES);
        let reserved = head[1] & ((1 << LEVEL_SHIFT) - 1) != 0;
        if reserved || count > 2 || count > 0 && !start {
            return Err(PacketError::Reserved);
        }
        let (distances, payload) = rest.split_at_checked(count).ok_or(short)?;
        let mut references = [None; 2];
        for (reference, distance) in references.iter_mut().zip(distances) {
            *reference = Some(*distance);
        }
        Ok((
            Self {
                start,
                end: head[0] & END != 0,
                key: head[0] & KEY != 0,
                discardable: head[0] & DISCARDABLE != 0,
                level: head[1] >> LEVEL_SHIFT,
                number: u16::from_be_bytes([head[2], head[3]]),
                group: head[4],
                references,
            },
            payload,
        ))
    }

    /// Writes the descriptor.
    fn write(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let references = self.references.iter().flatten();
        out.push(
            flag(self.start, START)
                | flag(self.end, END)
                | flag(self.key, KEY)
                | flag(self.discardable, DISCARDABLE)
                | references.clone().count() as u8,
        );
        out.push(self.level << LEVEL_SHIFT);
        out.extend(self.number.to_be_bytes());
        out.push(self.group);
        out.extend(references);
    }
}

/// Cuts access units into packets.
#[derive(Debug, Default)]
pub struct Packetizer {
    number: u16,
    sequence: Option<SequenceHeader>,
    /// Presentation order and number of the frames of this group that others may refer to.
    kept: Vec<(u32, u16)>,
    last: Option<(u8, u32)>,
}

impl Packetizer {
    /// Group and number (presentation order) of the frame that packets were made of last.
    pub fn last_frame(&self) -> Option<(u8, u32)> {
        self.last
    }

    /// Payloads of packets, of at most `most` bytes each, for one access unit.
    ///
    /// Where the border of a part of the frame lies in the last quarter of a packet, the packet
    /// ends there.
    ///
    /// # Errors
    /// [`BitstreamError`] where the data is not exactly one access unit, and
    /// [`BitstreamError::AccessUnit`] where `most` leaves no room beside a descriptor.
    pub fn packets(&mut self, unit: &[u8], most: usize) -> Result<Vec<Vec<u8>>, BitstreamError> {
        let room = most
            .checked_sub(MAX_DESCRIPTOR)
            .filter(|room| *room > 0)
            .ok_or(BitstreamError::AccessUnit("packets are too small for it"))?;
        let parsed = AccessUnit::parse(unit)?;
        let frame = &parsed.frame;
        if let Some(sequence) = parsed.sequence {
            self.sequence = Some(sequence);
        }
        self.last = Some((frame.gop, frame.poc));
        let number = self.number;
        self.number = number.wrapping_add(1);
        if frame.is_key() {
            self.kept.clear();
        }
        let distance = |poc: u32| {
            let at = self.kept.iter().find(|(kept, _)| *kept == poc);
            // A reference that was never sent is as good as one too far away.
            at.map_or(0, |(_, at)| {
                u8::try_from(number.wrapping_sub(*at)).unwrap_or(0)
            })
        };
        let mut references = [None; 2];
        let named = [frame.ref0, frame.ref1].into_iter().flatten();
        for (reference, poc) in references.iter_mut().zip(named) {
            *reference = Some(distance(poc));
        }
        let borders = self.borders(unit, parsed.payload, frame.frame_type);
        // A shown frame can be shown again, so a repeat refers to frames that are kept for nothing
        // else; it loses nothing that a decoder does not have.
        self.kept.retain(|(poc, _)| !frame.released.contains(poc));
        if frame.keep {
            self.kept.push((frame.poc, number));
        }
        let mut packets = Vec::with_capacity(unit.len().div_ceil(room));
        let mut at = 0;
        while at < unit.len() {
            let end = cut(at..unit.len(), room, &borders);
            let start = at == 0;
            let descriptor = Descriptor {
                start,
                end: end == unit.len(),
                key: frame.is_key(),
                discardable: !frame.keep,
                level: frame.level,
                number,
                group: frame.gop,
                references: if start { references } else { [None; 2] },
            };
            let mut packet = Vec::with_capacity(MAX_DESCRIPTOR + end - at);
            descriptor.write(&mut packet);
            packet.extend(&unit[at..end]);
            packets.push(packet);
            at = end;
        }
        Ok(packets)
    }

    /// Where the parts of a frame end, in bytes of its access unit, ascending.
    fn borders(&self, unit: &[u8], payload: &[u8], kind: FrameType) -> Vec<usize> {
        let Some(sequence) = &self.sequence else {
            return Vec::new();
        };
        let Ok(parts) = FramePayload::parse(payload, sequence.y_streams(kind)) else {
            return Vec::new();
        };
        let sizes = [parts.map, parts.ink, parts.side, parts.z]
            .into_iter()
            .chain(parts.y)
            .map(<[u8]>::len);
        let sizes: Vec<usize> = sizes.collect();
        // The parts end with the payload, and that with the unit's checksum.
        let end = unit.len() - super::unit::CRC_LEN;
        let mut at = end.saturating_sub(sizes.iter().sum());
        let mut borders = vec![at];
        for size in sizes {
            at += size;
            borders.push(at);
        }
        borders
    }
}

/// Where a packet with `room` bytes that begins at `rest.start` ends.
fn cut(rest: Range<usize>, room: usize, borders: &[usize]) -> usize {
    let end = rest.start + room;
    if end >= rest.end {
        return rest.end;
    }
    let after = borders.partition_point(|border| *border <= end);
    match after.checked_sub(1).map(|i| borders[i]) {
        Some(border) if border > rest.start + room - room / 4 => border,
        _ => end,
    }
}

/// What becomes of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A whole access unit.
    Unit {
        /// Its bytes.
        data: Vec<u8>,
        /// It is a key frame.
        key: bool,
        /// Nothing refers to it.
        discardable: bool,
        /// All that it refers to was received, too.
        decodable: bool,
        /// Access units before it that were not received.
        lost: u16,
    },
    /// Frames cannot be decoded any more before a key frame comes, or one that refers to frames
    /// from before the loss: ask for one. Once for each loss, and again where none comes.
    KeyNeeded {
        /// Only a key frame helps: there is nothing to refer to, or a request went unheard.
        urgent: bool,
    },
}

/// An access unit on its way.
#[derive(Debug)]
struct Assembly {
    descriptor: Descriptor,
    data: Vec<u8>,
}

/// Puts access units together. Packets have to come in order (behind a jitter buffer).
#[derive(Debug)]
pub struct Depacketizer {
    most: usize,
    sequence_number: Option<u16>,
    assembly: Option<Assembly>,
    /// Number of the last access unit that came whole.
    last: Option<u16>,
    /// Numbers of access units that can be decoded, the newest last.
    sound: VecDeque<u16>,
    /// Access units that could not be decoded since the last one that could.
    stuck: u32,
    /// The first packet that is missing.
    missing: Option<u16>,
}

impl Depacketizer {
    /// Access units of more than `most` bytes are dropped, which bounds the memory.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            sequence_number: None,
            assembly: None,
            last: None,
            sound: VecDeque::new(),
            stuck: 0,
            missing: None,
        }
    }

    /// Forgets everything, as for another sender.
    pub fn reset(&mut self) {
        *self = Self::new(self.most);
    }

    /// The first packet missing, if any is since this was called last.
    pub fn take_missing(&mut self) -> Option<u16> {
        self.missing.take()
    }

    /// Takes the payload of a packet with its RTP sequence number.
    ///
    /// # Errors
    /// [`PacketError`] for what is no packet of this format; it counts as lost.
    pub fn push(
        &mut self,
        sequence_number: u16,
        packet: &[u8],
    ) -> Result<Vec<Received>, PacketError> {
        let expected = self.sequence_number.map(|n| n.wrapping_add(1));
        if let Some(expected) = expected {
            let ahead = sequence_number.wrapping_sub(expected);
            if ahead >= 1 << 15 {
                // Twice, or too late.
                return Ok(Vec::new());
            }
            if ahead > 0 {
                self.missing.get_or_insert(expected);
                self.assembly = None;
            }
        }
        let (descriptor, payload) = Descriptor::parse(packet).inspect_err(|_| {
            self.assembly = None;
        })?;
        self.sequence_number = Some(sequence_number);
        if descriptor.start {
            self.assembly = Some(Assembly {
                descriptor,
                data: Vec::new(),
            });
        }
        let same = |a: &Assembly| a.descriptor.number == descriptor.number;
        let Some(assembly) = self.assembly.as_mut().filter(|a| same(a)) else {
            // The beginning of this access unit is lost.
            self.assembly = None;
            return Ok(Vec::new());
        };
        if assembly.data.len() + payload.len() > self.most {
            self.assembly = None;
            return Ok(Vec::new());
        }
        assembly.data.extend(payload);
        if !descriptor.end {
            return Ok(Vec::new());
        }
        Ok(self
            .assembly
            .take()
            .map_or_else(Vec::new, |a| self.finish(a)))
    }

    fn finish(&mut self, assembly: Assembly) -> Vec<Received> {
        let Descriptor {
            number,
            key,
            discardable,
            references,
            ..
        } = assembly.descriptor;
        let lost = match self.last {
            Some(last) => number.wrapping_sub(last).wrapping_sub(1),
            None => 0,
        };
        self.last = Some(number);
        if key {
            self.sound.clear();
        }
        // What is too far away to name cannot be told to be lost.
        let there = |distance: u8| {
            distance == 0 || self.sound.contains(&number.wrapping_sub(distance.into()))
        };
        let joined = key || self.sound.back().is_some();
        let urgent = !joined || self.stuck > 0;
        let decodable = joined && references.iter().flatten().all(|d| there(*d));
        if decodable {
            if self.sound.len() >= MEMORY {
                self.sound.pop_front();
            }
            self.sound.push_back(number);
        }
        let mut received = vec![Received::Unit {
            data: assembly.data,
            key,
            discardable,
            decodable,
            lost,
        }];
        if decodable {
            self.stuck = 0;
        } else {
            if self.stuck.is_multiple_of(PATIENCE) {
                received.push(Received::KeyNeeded { urgent });
            }
            self.stuck = self.stuck.saturating_add(1);
        }
        received
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FrameHeader, UnitType, write_unit};

    fn unit(frame: FrameHeader, size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        if frame.is_key() {
            let header = SequenceHeader::new("realtime", [7; 8], 64, 48, 8)
                .to_payload()
                .unwrap();
            write_unit(&mut out, UnitType::Sequence, &header).unwrap();
        }
        let y: Vec<u8> = (0..size).map(|i| (i * 31) as u8).collect();
        // Key frames have no motion.
        let side: &[u8] = if frame.is_key() { &[] } else { &[1; 40] };
        let payload = FramePayload {
            header: frame,
            map: &[],
            ink: &[],
            still: &[],
            side,
            z: &[2; 30],
            y: vec![&y],
        };
        write_unit(&mut out, UnitType::Frame, &payload.to_payload(1).unwrap()).unwrap();
        out
    }

    /// Low-delay order: each frame refers to the one before.
    fn low_delay(groups: u8, length: u32) -> Vec<Vec<u8>> {
        let frames = (0..groups).flat_map(|gop| {
            (0..length).map(move |poc| match poc {
                0 => FrameHeader::key(gop, 20),
                _ => FrameHeader {
                    keep: true,
                    ..FrameHeader::inter(gop, poc, 20, poc - 1, None)
                },
            })
        });
        (frames.enumerate())
            .map(|(i, frame)| unit(frame, 100 + i * 977 % 5000))
            .collect()
    }

    fn packets(units: &[Vec<u8>], most: usize) -> Vec<Vec<u8>> {
        let mut packetizer = Packetizer::default();
        let packets = units.iter().map(|u| packetizer.packets(u, most).unwrap());
        packets.flatten().collect()
    }

    /// Pushes those packets that `keep` says; the RTP sequence number begins near its end.
    fn receive(packets: &[Vec<u8>], keep: impl Fn(usize) -> bool) -> Vec<Received> {
        let mut depacketizer = Depacketizer::new(1 << 20);
        let kept = packets.iter().enumerate().filter(|(i, _)| keep(*i));
        kept.flat_map(|(i, packet)| {
            let number = 65_500u16.wrapping_add(i as u16);
            depacketizer.push(number, packet).unwrap()
        })
        .collect()
    }

    #[test]
    fn units_come_back_whatever_the_packet_size() {
        let units = low_delay(3, 9);
        for most in [MAX_DESCRIPTOR + 1, 100, 1200, 100_000] {
            let packets = packets(&units, most);
            assert!(packets.iter().all(|p| p.len() <= most));
            let back: Vec<Vec<u8>> = receive(&packets, |_| true)
                .into_iter()
                .map(|r| match r {
                    Received::Unit {
                        data,
                        decodable: true,
                        lost: 0,
                        ..
                    } => data,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(back, units);
        }
    }

    #[test]
    fn packets_end_where_parts_do() {
        let unit = unit(FrameHeader::key(0, 9), 800);
        let mut packetizer = Packetizer::default();
        let borders = {
            let parsed = AccessUnit::parse(&unit).unwrap();
            packetizer.sequence = parsed.sequence.clone();
            packetizer.borders(&unit, parsed.payload, FrameType::Key)
        };
        // Sequence header, frame header, 30 bytes of z, then y and a checksum.
        assert_eq!(borders.last(), Some(&(unit.len() - 4)));
        let z_end = borders[4];
        assert_eq!(z_end - borders[3], 30);
        let packets = packetizer
            .packets(&unit, z_end + 5 + MAX_DESCRIPTOR)
            .unwrap();
        assert_eq!(packets[0].len() - MIN_DESCRIPTOR, z_end);
    }

    #[test]
    fn one_lost_packet_costs_the_frames_up_to_the_key_frame_and_one_request() {
        let units = low_delay(3, 9);
        let packets = packets(&units, 500);
        // A packet of the fourth frame of the second group.
        let hit = packets
            .iter()
            .position(|p| Descriptor::parse(p).unwrap().0.number == 12)
            .unwrap();
        let received = receive(&packets, |i| i != hit);
        let mut requests = 0;
        let (mut sound, mut unsound, mut lost) = (0, 0, 0);
        for r in &received {
            match r {
                Received::KeyNeeded { urgent } => {
                    assert!(!urgent);
                    requests += 1;
                }
                Received::Unit {
                    decodable, lost: l, ..
                } => {
                    lost += l;
                    *if *decodable { &mut sound } else { &mut unsound } += 1;
                }
            }
        }
        assert_eq!((sound, unsound, lost, requests), (9 + 3 + 9, 5, 1, 1));
    }

    #[test]
    fn a_lost_discardable_frame_costs_nothing_else() {
        let frames = [
            FrameHeader::key(0, 20),
            FrameHeader {
                keep: true,
                ..FrameHeader::inter(0, 2, 20, 0, None)
            },
            FrameHeader {
                keep: false,
                level: 1,
                ..FrameHeader::inter(0, 1, 20, 0, Some(2))
            },
            FrameHeader {
                keep: true,
                ..FrameHeader::inter(0, 4, 20, 2, Some(0))
            },
        ];
        let units: Vec<_> = frames.into_iter().map(|f| unit(f, 50)).collect();
        let packets = packets(&units, 1000);
        let descriptor = Descriptor::parse(&packets[2]).unwrap().0;
        assert!(descriptor.discardable && descriptor.level == 1);
        assert_eq!(descriptor.references, [Some(2), Some(1)]);
        let received = receive(&packets, |i| i != 2);
        assert_eq!(received.len(), 3);
        for r in received {
            assert!(
                matches!(
                    r,
                    Received::Unit {
                        decodable: true,
                        ..
                    }
                ),
                "{r:?}"
            );
        }
    }

    #[test]
    fn who_joins_late_asks_for_a_key_frame_once() {
        let packets = packets(&low_delay(2, 6), 700);
        let first = packets
            .iter()
            .position(|p| Descriptor::parse(p).unwrap().0.number == 2)
            .unwrap();
        let received = receive(&packets, |i| i >= first);
        let needed = Received::KeyNeeded { urgent: true };
        let requests = received.iter().filter(|r| **r == needed);
        assert_eq!(requests.count(), 1);
        let sound = received.iter().filter(|r| {
            matches!(
                r,
                Received::Unit {
                    decodable: true,
                    ..
                }
            )
        });
        assert_eq!(sound.count(), 6);
    }

    #[test]
    fn packets_that_lie_are_refused_or_dropped() {
        let units = low_delay(2, 4);
        let packets = packets(&units, 300);
        for empty in [
            &[][..],
            &[0],
            &[START | 2, 0, 0, 0, 0],
            &[START | 1, 0, 0, 0, 0],
        ] {
            assert!(matches!(
                Descriptor::parse(empty),
                Err(PacketError::Short(_))
            ));
        }
        assert_eq!(Descriptor::parse(&[0xff; 40]), Err(PacketError::Version(3)));
        assert_eq!(Descriptor::parse(&[3; 40]), Err(PacketError::Reserved));
        let mut seed = 9u32;
        let mut rng = |below: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % below
        };
        let mut depacketizer = Depacketizer::new(4000);
        for i in 0..20_000 {
            let mut packet = packets[rng(packets.len())].clone();
            let at = rng(packet.len());
            match rng(4) {
                0 => packet[at.min(7)] ^= 1 << rng(8),
                1 => packet.truncate(at),
                2 => packet.extend(vec![0; rng(3000)]),
                _ => {}
            }
            let number = (i + rng(3)) as u16;
            for r in depacketizer.push(number, &packet).unwrap_or_default() {
                if let Received::Unit { data, .. } = r {
                    assert!(data.len() <= 4000);
                }
            }
            assert!(depacketizer.sound.len() <= MEMORY);
        }
    }
}

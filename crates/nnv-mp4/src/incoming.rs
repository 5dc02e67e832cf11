// SPDX-License-Identifier: MPL-2.0
//! Samples of a track as they come: times in ticks, gaps and overlaps put right.

use crate::timing::ticks;
use crate::{Codec, Data, Error, Piece, Sample, Track, text};

/// How far times of sound may be off what the packets' lengths add up to: containers with
/// milliseconds round by half of one.
const TOLERANCE_NS: i64 = 2_000_000;
/// How far sound may go back, as a restarted source does, before it is an error.
const MAX_BACKWARDS_NS: i64 = 1_000_000_000;

/// A sample with its times in ticks since the file's beginning.
#[derive(Debug)]
pub(crate) struct Unit<D> {
    pub data: Piece<D>,
    pub size: u32,
    /// When it is shown; for sound, when its first decoded sample would be, priming included.
    pub shown: i64,
    pub duration: u32,
    pub sync: bool,
}

/// A track that samples come for.
#[derive(Debug)]
pub(crate) struct Incoming<D> {
    pub track: Track,
    pub timescale: u32,
    /// When the first sample is shown; the file's beginning for subtitles.
    pub first: Option<i64>,
    /// When the last one ends.
    pub end: i64,
    /// Sound: ticks that are decoded but not played at the beginning.
    pub priming: i64,
    /// By how much the sender decodes ahead of showing.
    pub lead: i64,
    /// Latest time that anything was shown.
    latest: i64,
    /// Sound: where the next packet is expected.
    expected: i64,
    /// Subtitles: the last one, whose end the next one may bring forward.
    held: Option<Unit<D>>,
    /// Subtitles: up to where the track is filled.
    filled: i64,
}

impl<D: Data> Incoming<D> {
    pub fn new(track: Track) -> Result<Self, Error> {
        let timescale = track.codec.timescale()?;
        Ok(Self {
            timescale,
            first: None,
            end: 0,
            priming: 0,
            lead: 0,
            latest: i64::MIN,
            expected: 0,
            held: None,
            filled: 0,
            track,
        })
    }

    fn ticks(&self, ns: i64) -> i64 {
        ticks(ns, self.timescale)
    }

    fn backwards(&self, at_ns: i64, by_ns: i64) -> Error {
        Error::Backwards {
            what: self.track.codec.name(),
            at_ns,
            by_ns,
        }
    }

    /// Takes a sample; gives those that nothing can change any more.
    pub fn push(&mut self, sample: Sample<D>) -> Result<Vec<Unit<D>>, Error> {
        let size =
            u32::try_from(sample.data.size()).map_err(|_| Error::TooLarge("a sample's size"))?;
        let shown = self.ticks(sample.pts);
        let duration = sample
            .duration
            .map(|ns| self.ticks(i64::try_from(ns).unwrap_or(i64::MAX)));
        let mut unit = Unit {
            data: sample.data,
            size,
            shown,
            duration: 0,
            sync: sample.sync,
        };
        let first = self.first.is_none();
        match self.track.codec {
            Codec::Nnv(_) => {
                if first {
                    self.lead = sample
                        .dts
                        .map_or(0, |dts| self.ticks(sample.pts - dts))
                        .max(0);
                }
                // What follows a key frame is shown after it, and what precedes it before.
                let floor = if unit.sync {
                    self.latest.saturating_add(1)
                } else {
                    self.first.unwrap_or(shown)
                };
                if shown < floor {
                    let by = (floor - shown).saturating_mul(1_000_000_000);
                    return Err(self.backwards(sample.pts, by / i64::from(self.timescale)));
                }
                self.first.get_or_insert(shown);
                self.latest = self.latest.max(shown);
                unit.duration = bounded(duration.unwrap_or(0))?;
                self.end = self.end.max(shown + i64::from(unit.duration));
                Ok(vec![unit])
            }
            Codec::Aac { .. } | Codec::Opus { .. } => {
                let decoded = sample.decoded.map(i64::from).or(duration).unwrap_or(0);
                let begins = *self.first.get_or_insert(shown);
                if first {
                    (self.end, self.expected) = (begins, begins);
                }
                // Priming may take whole packets, of which nothing is played.
                let primes = self.end == begins && duration.is_some_and(|own| own < decoded);
                let begun = !first && !primes;
                if begun {
                    unit.shown += self.priming;
                    let off = unit.shown - self.expected;
                    if off < -self.ticks(MAX_BACKWARDS_NS) {
                        let by = off.saturating_neg().saturating_mul(1_000_000_000);
                        return Err(self.backwards(sample.pts, by / i64::from(self.timescale)));
                    }
                    // Forwards is a gap; a little backwards is an overlap, and is taken up later.
                    if off <= self.ticks(TOLERANCE_NS) {
                        unit.shown = self.expected;
                    }
                } else {
                    self.priming += (decoded - duration.unwrap_or(decoded)).max(0);
                    unit.shown = self.expected;
                }
                unit.duration = bounded(decoded)?;
                self.expected = unit.shown + decoded;
                self.end = self.expected - self.priming;
                if begun && let Some(duration) = duration {
                    // A last packet may be shorter than what it decodes to.
                    self.end += (duration - decoded).min(0);
                }
                Ok(vec![unit])
            }
            Codec::Text => {
                self.first = Some(0);
                unit.duration = bounded(duration.unwrap_or(i64::from(self.timescale)))?;
                unit.sync = true;
                let mut units = self.release(Some(shown));
                // What begins before the last one began is shown with it.
                unit.shown = unit.shown.max(self.filled);
                if unit.shown > self.filled {
                    units.push(nothing(self.filled, bounded(unit.shown - self.filled)?));
                    self.filled = unit.shown;
                }
                self.held = Some(unit);
                Ok(units)
            }
        }
    }

    /// Gives up what was held back: all of it, or what begins before a time, in ticks.
    pub fn flush(&mut self, before: Option<i64>) -> Vec<Unit<D>> {
        match &self.held {
            Some(held) if before.is_none_or(|before| held.shown < before) => self.release(None),
            _ => Vec::new(),
        }
    }

    /// Ends the last subtitle, at `next` at the latest.
    fn release(&mut self, next: Option<i64>) -> Vec<Unit<D>> {
        let Some(mut held) = self.held.take() else {
            return Vec::new();
        };
        if let Some(next) = next
            && next < held.shown + i64::from(held.duration)
        {
            // It is shown for a tick at least: samples without duration are none.
            held.duration = u32::try_from(next - held.shown).unwrap_or(0).max(1);
        }
        self.filled = held.shown + i64::from(held.duration);
        self.end = self.filled;
        vec![held]
    }
}

fn bounded(duration: i64) -> Result<u32, Error> {
    u32::try_from(duration.max(0)).map_err(|_| Error::TooLarge("a sample's duration"))
}

/// Nothing is shown.
fn nothing<D>(shown: i64, duration: u32) -> Unit<D> {
    Unit {
        data: Piece::Bytes(text::NOTHING.to_vec()),
        size: text::NOTHING.len() as u32,
        shown,
        duration,
        sync: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rotation;

    fn track(codec: Codec) -> Incoming<Vec<u8>> {
        Incoming::new(Track {
            codec,
            language: None,
            rotation: Rotation::None,
        })
        .unwrap()
    }

    fn sample(pts: i64, duration: u64) -> Sample<Vec<u8>> {
        Sample {
            data: Piece::Data(vec![1; 4]),
            pts,
            dts: None,
            duration: Some(duration),
            decoded: None,
            sync: true,
        }
    }

    fn shown(units: &[Unit<Vec<u8>>]) -> Vec<(i64, u32, u32)> {
        units
            .iter()
            .map(|u| (u.shown, u.duration, u.size))
            .collect()
    }

    #[test]
    fn subtitles_fill_their_track() {
        const S: i64 = 1_000_000_000;
        let mut text = track(Codec::Text);
        let mut units = text.push(sample(S, S as u64)).unwrap();
        // Begins before the first one ends.
        units.extend(text.push(sample(S * 3 / 2, S as u64)).unwrap());
        units.extend(text.push(sample(4 * S, S as u64)).unwrap());
        assert_eq!(text.flush(Some(4000)).len(), 0);
        units.extend(text.flush(None));
        let expected = [
            (0, 1000, 2),
            (1000, 500, 4),
            (1500, 1000, 4),
            (2500, 1500, 2),
            (4000, 1000, 4),
        ];
        assert_eq!(shown(&units), expected);
        assert_eq!(text.end, 5000);
    }

    fn opus() -> Incoming<Vec<u8>> {
        track(Codec::Opus {
            channels: 2,
            pre_skip: 312,
            rate: 48_000,
            gain: 0,
        })
    }

    #[test]
    fn priming_is_what_the_first_packet_has_more() {
        let mut sound = opus();
        let mut units = Vec::new();
        for (pts, duration) in [
            (0, 13_500_000),
            (13_500_000, 20_000_000),
            (33_500_000, 5_000_000),
        ] {
            let packet = Sample {
                decoded: Some(960),
                ..sample(pts, duration)
            };
            units.extend(sound.push(packet).unwrap());
        }
        assert_eq!(shown(&units), [(0, 960, 4), (960, 960, 4), (1920, 960, 4)]);
        assert_eq!(sound.priming, 312);
        // 38.5 ms.
        assert_eq!(sound.end, 1848);
    }

    #[test]
    fn priming_takes_whole_packets() {
        let mut sound = opus();
        let mut units = Vec::new();
        // 26 ms: the first packet and 6 ms of the second.
        for (pts, duration) in [(0, 0), (0, 14_000_000), (14_000_000, 20_000_000)] {
            let packet = Sample {
                decoded: Some(960),
                ..sample(pts, duration)
            };
            units.extend(sound.push(packet).unwrap());
        }
        assert_eq!(shown(&units), [(0, 960, 4), (960, 960, 4), (1920, 960, 4)]);
        assert_eq!((sound.priming, sound.end), (1248, 1632));
    }

    #[test]
    fn sound_follows_its_packets_but_not_over_gaps() {
        let mut sound = opus();
        let ms = |ms: i64| ms * 1_000_000;
        let mut at = |pts| {
            let units = sound.push(sample(pts, 20_000_000));
            units.map(|units| units[0].shown)
        };
        assert_eq!(at(0).unwrap(), 0);
        assert_eq!(at(ms(21)).unwrap(), 960);
        assert_eq!(at(ms(39)).unwrap(), 1920);
        assert_eq!(at(ms(100)).unwrap(), 4800);
        assert_eq!(at(ms(50)).unwrap(), 5760);
        assert!(matches!(at(ms(-2000)), Err(Error::Backwards { .. })));
    }

    #[test]
    fn video_does_not_go_back_behind_a_key_frame() {
        let header = nnv_bitstream::SequenceHeader::new("b", [7; 8], 64, 48, 8);
        let mut video = track(Codec::Nnv(header.to_payload().unwrap()));
        let mut at = |ms: i64, sync| {
            let frame = Sample {
                sync,
                ..sample(ms * 1_000_000, 40_000_000)
            };
            video.push(frame).map(|units| units[0].shown)
        };
        assert_eq!(at(0, true).unwrap(), 0);
        assert_eq!(at(80, false).unwrap(), 80_000);
        assert_eq!(at(40, false).unwrap(), 40_000);
        let error = at(60, true).unwrap_err().to_string();
        assert!(
            error.contains("video") && error.contains("new file"),
            "{error}"
        );
    }
}

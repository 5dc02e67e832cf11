// SPDX-License-Identifier: MPL-2.0
//! What sound encoders put before the sound, and demuxers hand on with it: decoded, never played.

use gst::prelude::*;
use nnv_mp4::Codec;

/// Encoders that delay the sound by so many samples, and stamp their packets as if they did not.
/// Measured by `priming_of_encoders_is_as_the_table_says` (tests/elements/mp4_sound.rs).
const DELAYS: [(&str, u64); 2] = [("avenc_aac", 1024), ("voaacenc", 1600)];

/// Most elements between an encoder and the muxer.
const MAX_STEPS: usize = 64;
/// What is played for less is rounding.
const ROUNDING_NS: u64 = 1000;
const SECOND: u64 = 1_000_000_000;

/// A sound stream's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priming {
    /// By how much packets hold what was before their times, in ns.
    delay: i64,
    /// Running time in ns; what is before it is not played.
    floor: i64,
    /// Something was played.
    played: bool,
}

/// A packet's times without what is not played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Played {
    /// Running time in ns.
    pub pts: i64,
    /// In ns.
    pub duration: Option<u64>,
    /// What it decodes to in ns, where that is more than `duration`.
    pub decoded: Option<u64>,
}

impl Priming {
    /// Of a stream whose first packet has the running time `first`, in a segment that begins at
    /// `start`.
    pub fn new(delay: u64, first: i64, start: i64) -> Self {
        let delay = i64::try_from(delay).unwrap_or(0);
        Self {
            delay,
            // A late encoder's first packet says when the sound begins.
            floor: if delay > 0 { first.max(start) } else { start },
            played: false,
        }
    }

    /// The times of the next packet, and what is known after it.
    pub fn next(self, pts: i64, duration: Option<u64>) -> (Played, Self) {
        let pts = pts.saturating_sub(self.delay);
        let before = u64::try_from(self.floor.saturating_sub(pts)).unwrap_or(0);
        let (played, known) = match duration {
            Some(duration) if !self.played && before > 0 => {
                let rest = duration.saturating_sub(before);
                let cut = Played {
                    pts: self.floor,
                    duration: Some(if rest < ROUNDING_NS { 0 } else { rest }),
                    decoded: Some(duration),
                };
                (cut, rest >= ROUNDING_NS)
            }
            _ => {
                let whole = Played {
                    pts,
                    duration,
                    decoded: None,
                };
                (whole, true)
            }
        };
        let known = Self {
            played: known || self.played,
            ..self
        };
        (played, known)
    }
}

/// By how many ns the packets that reach `pad` hold what was before their times.
pub fn delay(pad: &gst::Pad, codec: &Codec) -> u64 {
    let Codec::Aac { rate, .. } = codec else {
        return 0;
    };
    let encoder = encoder(pad);
    let samples = DELAYS
        .iter()
        .find(|(name, _)| Some(*name) == encoder.as_deref())
        .map_or(0, |(_, samples)| *samples);
    samples * SECOND / u64::from((*rate).max(1))
}

/// The sound encoder before a sink pad, past queues, parsers and the borders of bins.
fn encoder(sink: &gst::Pad) -> Option<String> {
    let mut at = sink.peer()?;
    for _ in 0..MAX_STEPS {
        if let Some(ghost) = at.downcast_ref::<gst::GhostPad>() {
            at = ghost.target()?;
            continue;
        }
        if let Some(proxy) = at.downcast_ref::<gst::ProxyPad>() {
            at = proxy.internal()?.upcast::<gst::Pad>().peer()?;
            continue;
        }
        let factory = at.parent_element()?.factory()?;
        if factory.has_type(gst::ElementFactoryType::AUDIO_ENCODER) {
            return Some(factory.name().to_string());
        }
        let mut inner = at.iterate_internal_links().into_iter().flatten();
        let only = inner.next()?;
        if inner.next().is_some() {
            return None;
        }
        at = only.peer()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: u64 = 21_333_333;

    fn played(pts: i64, duration: u64, decoded: Option<u64>) -> Played {
        Played {
            pts,
            duration: Some(duration),
            decoded,
        }
    }

    #[test]
    fn a_late_encoder_begins_where_its_first_packet_says() {
        let known = Priming::new(33_333_333, 100_000_000, 0);
        let (first, known) = known.next(100_000_000, Some(PACKET));
        assert_eq!(first, played(100_000_000, 0, Some(PACKET)));
        let (second, known) = known.next(121_333_333, Some(PACKET));
        assert_eq!(second, played(100_000_000, 9_333_333, Some(PACKET)));
        let (third, _) = known.next(142_666_666, Some(PACKET));
        assert_eq!(third, played(109_333_333, PACKET, None));
    }

    #[test]
    fn what_is_before_the_segment_is_not_played() {
        let known = Priming::new(0, -6_500_000, 0);
        let (first, known) = known.next(-6_500_000, Some(20_000_000));
        assert_eq!(first, played(0, 13_500_000, Some(20_000_000)));
        // Once only: later segments are of the same sound.
        let (second, _) = known.next(-1, Some(20_000_000));
        assert_eq!(second, played(-1, 20_000_000, None));
    }
}

// SPDX-License-Identifier: MPL-2.0
//! What caps and tags say about a stream, in the file's words.

use nnv_bitstream::{AccessUnit, Scan, SequenceHeader, UnitScanner, mp4};
use nnv_mp4::{Codec, Rotation, Tag};

use crate::common;

/// A stream as its caps describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// NNV video; the unit of its sequence header where the caps have it.
    Video(Vec<u8>),
    /// Sound.
    Sound(Codec),
    /// Subtitles; with markup or without.
    Text {
        /// Pango markup.
        markup: bool,
    },
}

impl Stream {
    /// Whether a track may go on as `next` says, as far as caps tell.
    pub fn continues(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Video(before), Self::Video(after)) => {
                match (payload(before), payload(after)) {
                    (Some(before), Some(after)) => continues(before, after),
                    // The stream itself will tell.
                    _ => true,
                }
            }
            (Self::Text { .. }, Self::Text { .. }) => true,
            (before, after) => before == after,
        }
    }

    /// Reads caps.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn from_caps(caps: &gst::CapsRef) -> Result<Self, String> {
        let s = caps.structure(0).ok_or("caps without a structure")?;
        let number = |field| {
            s.get::<i32>(field)
                .ok()
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0)
        };
        match s.name().as_str() {
            common::MEDIA_TYPE => Ok(Self::Video(common::stream_header_of(s))),
            "audio/mpeg" => {
                let config = s
                    .get::<gst::Buffer>("codec_data")
                    .ok()
                    .and_then(|buffer| buffer.map_readable().ok().map(|map| map.to_vec()))
                    .filter(|config| config.len() >= 2)
                    .ok_or("AAC without codec_data cannot be described: put aacparse before")?;
                Ok(Self::Sound(Codec::Aac {
                    config,
                    rate: number("rate"),
                    channels: u16::try_from(number("channels")).unwrap_or(0),
                    bitrate: 0,
                }))
            }
            "audio/x-opus" => {
                let header = common::stream_header_of(s);
                let codec = if header.is_empty() && number("channel-mapping-family") == 0 {
                    // As rtpopusdepay gives it.
                    Codec::Opus {
                        channels: u8::try_from(number("channels")).unwrap_or(2).clamp(1, 2),
                        pre_skip: 0,
                        rate: number("rate"),
                        gain: 0,
                    }
                } else {
                    Codec::opus(&header).map_err(|e| e.to_string())?
                };
                Ok(Self::Sound(codec))
            }
            _ => Ok(Self::Text {
                markup: s.get::<&str>("format") == Ok("pango-markup"),
            }),
        }
    }
}

/// Payload of the sequence header in a unit.
pub fn payload(unit: &[u8]) -> Option<&[u8]> {
    match UnitScanner::new().scan(unit, true) {
        Scan::Unit(unit) => Some(unit.payload),
        _ => None,
    }
}

/// Payload of the sequence header in front of a key frame; `None` where there is none.
///
/// # Errors
/// A sentence that says what is wrong with the access unit.
pub fn sequence_of(data: &[u8]) -> Result<Option<&[u8]>, String> {
    let unit = AccessUnit::parse(data).map_err(|e| e.to_string())?;
    Ok(unit.sequence_unit.and_then(|range| payload(&data[range])))
}

/// Whether a stream may go on with another sequence header in the same track: what players take
/// from the file's beginning must stay.
pub fn continues(before: &[u8], after: &[u8]) -> bool {
    let same = |payload: &[u8]| {
        let header = SequenceHeader::parse(payload).ok()?;
        let boxes = mp4::sample_entry(payload).ok()?;
        let configuration = mp4::configuration(payload).len();
        let depth = (header.bit_depth, header.frame_rate, header.bundle_hash);
        // Size, then what follows the configuration box.
        let rest = boxes.get(ENTRY + 8 + configuration..)?.to_vec();
        Some((boxes[..ENTRY].to_vec(), rest, depth))
    };
    before == after || (same(before).is_some() && same(before) == same(after))
}

/// Bytes of a visual sample entry before its boxes.
const ENTRY: usize = 78;

/// What `image-orientation` says; `None` for mirrored pictures, which the file cannot describe to
/// all readers.
pub fn rotation(tags: &gst::TagListRef) -> Option<Rotation> {
    let orientation = tags.get::<gst::tags::ImageOrientation>()?;
    Some(match orientation.get() {
        "rotate-0" => Rotation::None,
        "rotate-90" => Rotation::Quarter,
        "rotate-180" => Rotation::Half,
        "rotate-270" => Rotation::ThreeQuarters,
        _ => return None,
    })
}

/// Languages with two letters, and with three as files have them.
const LANGUAGES: [(&str, &str); 40] = [
    ("ar", "ara"),
    ("bg", "bul"),
    ("bn", "ben"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("es", "spa"),
    ("et", "est"),
    ("eu", "eus"),
    ("fa", "fas"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("ga", "gle"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("id", "ind"),
    ("is", "isl"),
    ("it", "ita"),
    ("ja", "jpn"),
    ("ko", "kor"),
    ("lt", "lit"),
    ("lv", "lav"),
    ("nl", "nld"),
    ("no", "nor"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sv", "swe"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("vi", "vie"),
    ("zh", "zho"),
];

/// The language of a stream, three letters.
pub fn language(tags: &gst::TagListRef) -> Option<String> {
    let code = tags.get::<gst::tags::LanguageCode>()?;
    let code = code.get();
    match code.len() {
        3 => Some(code.to_owned()),
        _ => LANGUAGES
            .iter()
            .find(|(two, _)| *two == code)
            .map(|(_, three)| (*three).to_owned()),
    }
}

/// Tags of the whole file.
pub fn file_tags(tags: &gst::TagListRef) -> Vec<Tag> {
    let texts = [
        ("title", *b"\xa9nam"),
        ("artist", *b"\xa9ART"),
        ("album-artist", *b"aART"),
        ("album", *b"\xa9alb"),
        ("composer", *b"\xa9wrt"),
        ("genre", *b"\xa9gen"),
        ("comment", *b"\xa9cmt"),
        ("description", *b"desc"),
        ("copyright", *b"cprt"),
        ("keywords", *b"keyw"),
        ("application-name", *b"\xa9too"),
    ];
    let mut out: Vec<Tag> = texts
        .iter()
        .filter_map(|(name, kind)| {
            let value = tags.generic(*name)?;
            let text = value.get::<String>().ok()?;
            Some(Tag::Text(*kind, text))
        })
        .collect();
    let date = tags
        .get::<gst::tags::DateTime>()
        .and_then(|value| value.get().to_iso8601_string().ok());
    out.extend(date.map(|date| Tag::Text(*b"\xa9day", date.to_string())));
    let number = tags.get::<gst::tags::TrackNumber>().map(|n| n.get());
    let of = tags.get::<gst::tags::TrackCount>().map(|n| n.get());
    if number.is_some() || of.is_some() {
        let [number, of] = [number, of].map(|n| {
            let n = n.unwrap_or(0);
            u16::try_from(n).unwrap_or(0)
        });
        out.push(Tag::Number(number, of));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use nnv_bitstream::Rational;

    fn header(change: impl FnOnce(&mut SequenceHeader)) -> Vec<u8> {
        let mut header = SequenceHeader::new("b", [7; 8], 64, 48, 8);
        change(&mut header);
        header.to_payload().unwrap()
    }

    #[test]
    fn what_players_were_told_must_stay() {
        let before = header(|_| {});
        assert!(continues(&before, &before));
        assert!(continues(&before, &header(|h| h.gop.max_reorder = 2)));
        assert!(!continues(&before, &header(|h| h.width = 66)));
        assert!(!continues(&before, &header(|h| h.bit_depth = 10)));
        assert!(!continues(&before, &header(|h| h.bundle_hash = [8; 8])));
        assert!(!continues(
            &before,
            &header(|h| h.pixel_aspect = Rational::new(2, 1))
        ));
        assert!(!continues(&before, &header(|h| h.colorimetry.matrix = 1)));
    }
}

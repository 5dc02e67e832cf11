// SPDX-License-Identifier: MPL-2.0
//! What a file holds.

use nnv_bitstream::{SequenceHeader, mp4};
use shiguredo_mp4::boxes::{
    AudioSampleEntryFields, BoxRecord, DopsBox, EsdsBox, FontRecord, FtabBox, Mp4aBox, OpusBox,
    SampleEntry, StyleRecord, Tx3gBox, UnknownBox,
};
use shiguredo_mp4::descriptors::{
    DecoderConfigDescriptor, DecoderSpecificInfo, EsDescriptor, SlConfigDescriptor,
};
use shiguredo_mp4::{BoxSize, BoxType, FixedPointNumber, Uint};

use crate::Error;

/// Lowest timescale of video with a known frame rate: a ninetieth of a millisecond.
const MIN_TIMESCALE: u32 = 90_000;
/// Timescale of video whose frames come whenever they like.
const FREE_TIMESCALE: u32 = 1_000_000;
/// Opus always counts 48 kHz.
pub const OPUS_RATE: u32 = 48_000;
/// Timescale of subtitles.
pub const TEXT_TIMESCALE: u32 = 1_000;
/// Lines of the box that subtitles are shown in, as other writers have it.
pub(crate) const TEXT_HEIGHT: i16 = 60;

const MPEG4_AUDIO: u8 = DecoderConfigDescriptor::OBJECT_TYPE_INDICATION_AUDIO_ISO_IEC_14496_3;

/// How a track is coded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codec {
    /// NNV video: the payload of its sequence header unit.
    Nnv(Vec<u8>),
    /// AAC without framing.
    Aac {
        /// `AudioSpecificConfig`.
        config: Vec<u8>,
        /// Samples per second.
        rate: u32,
        /// Number of channels.
        channels: u16,
        /// Mean bits per second, 0 for unknown.
        bitrate: u32,
    },
    /// Opus: its identification header (`OpusHead`, RFC 7845) as fields.
    Opus {
        /// One or two.
        channels: u8,
        /// Samples at 48 kHz to drop at the beginning.
        pre_skip: u16,
        /// Samples per second before coding.
        rate: u32,
        /// Gain in 1/256 dB.
        gain: i16,
    },
    /// Subtitles (`tx3g`).
    Text,
}

/// By how much pictures are to be turned clockwise for showing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rotation {
    /// Not at all.
    #[default]
    None,
    /// A quarter.
    Quarter,
    /// Half.
    Half,
    /// Three quarters.
    ThreeQuarters,
}

/// A track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// How it is coded.
    pub codec: Codec,
    /// Language, ISO 639-2/T: three letters; anything else is taken for "not determined".
    pub language: Option<String>,
    /// Turned for showing; video only.
    pub rotation: Rotation,
}

impl Codec {
    /// Opus from its identification header.
    ///
    /// # Errors
    /// [`Error::Sound`] where that is none, or has more than two channels.
    pub fn opus(head: &[u8]) -> Result<Self, Error> {
        let field = |at: usize| head.get(at).copied().unwrap_or_default();
        if head.len() < 19 || !head.starts_with(b"OpusHead") {
            return Err(Error::Sound(
                "the Opus stream has no identification header (OpusHead): put opusparse before"
                    .into(),
            ));
        }
        let (channels, family) = (field(9), field(18));
        if family != 0 || !(1..=2).contains(&channels) {
            return Err(Error::Sound(format!(
                "Opus with {channels} channels in mapping family {family} is not written; one or \
                 two channels are: put audioconvert and audio/x-raw,channels=2 before the \
                 encoder, or code the sound with AAC"
            )));
        }
        Ok(Self::Opus {
            channels,
            pre_skip: u16::from_le_bytes([field(10), field(11)]),
            rate: u32::from_le_bytes([field(12), field(13), field(14), field(15)]),
            gain: i16::from_le_bytes([field(16), field(17)]),
        })
    }

    /// How errors call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Nnv(_) => "video",
            Self::Aac { .. } | Self::Opus { .. } => "sound",
            Self::Text => "subtitles",
        }
    }

    /// Times per second of the track's clock.
    pub(crate) fn timescale(&self) -> Result<u32, Error> {
        Ok(match self {
            Self::Nnv(sequence) => {
                let rate = SequenceHeader::parse(sequence)?.frame_rate;
                // A multiple of the rate's numerator: frames on the grid have exact times.
                match rate.num {
                    0 => FREE_TIMESCALE,
                    num => MIN_TIMESCALE.div_ceil(num).saturating_mul(num),
                }
            }
            Self::Aac { rate, .. } => (*rate).max(1),
            Self::Opus { .. } => OPUS_RATE,
            Self::Text => TEXT_TIMESCALE,
        })
    }

    pub(crate) fn is_video(&self) -> bool {
        matches!(self, Self::Nnv(_))
    }

    /// Handler type and name.
    pub(crate) fn handler(&self) -> ([u8; 4], &'static str) {
        match self {
            Self::Nnv(_) => (*b"vide", "VideoHandler"),
            Self::Aac { .. } | Self::Opus { .. } => (*b"soun", "SoundHandler"),
            Self::Text => (*b"text", "SubtitleHandler"),
        }
    }

    pub(crate) fn sample_entry(&self) -> Result<SampleEntry, Error> {
        Ok(match self {
            Self::Nnv(sequence) => {
                let box_type = BoxType::Normal(mp4::SAMPLE_ENTRY);
                let payload = mp4::sample_entry(sequence)?;
                SampleEntry::Unknown(UnknownBox {
                    box_type,
                    box_size: BoxSize::with_payload_size(box_type, payload.len() as u64),
                    payload,
                })
            }
            Self::Aac {
                config,
                rate,
                channels,
                bitrate,
                ..
            } => SampleEntry::Mp4a(Mp4aBox {
                audio: audio(*channels, *rate),
                esds_box: EsdsBox {
                    es: EsDescriptor {
                        es_id: EsDescriptor::MIN_ES_ID,
                        stream_priority: EsDescriptor::LOWEST_STREAM_PRIORITY,
                        depends_on_es_id: None,
                        url_string: None,
                        ocr_es_id: None,
                        dec_config_descr: DecoderConfigDescriptor {
                            object_type_indication: MPEG4_AUDIO,
                            stream_type: DecoderConfigDescriptor::STREAM_TYPE_AUDIO,
                            up_stream: DecoderConfigDescriptor::UP_STREAM_FALSE,
                            buffer_size_db: Uint::new(0),
                            max_bitrate: *bitrate,
                            avg_bitrate: *bitrate,
                            dec_specific_info: Some(DecoderSpecificInfo {
                                payload: config.clone(),
                            }),
                        },
                        sl_config_descr: SlConfigDescriptor,
                    },
                },
                unknown_boxes: Vec::new(),
            }),
            Self::Opus {
                channels,
                pre_skip,
                rate,
                gain,
            } => SampleEntry::Opus(OpusBox {
                audio: audio(u16::from(*channels), OPUS_RATE),
                dops_box: DopsBox {
                    output_channel_count: *channels,
                    pre_skip: *pre_skip,
                    input_sample_rate: *rate,
                    output_gain: *gain,
                },
                unknown_boxes: Vec::new(),
            }),
            Self::Text => SampleEntry::Tx3g(Tx3gBox {
                data_reference_index: Tx3gBox::DEFAULT_DATA_REFERENCE_INDEX,
                display_flags: 0,
                horizontal_justification: 1,
                vertical_justification: -1,
                background_color_rgba: [0; 4],
                default_text_box: BoxRecord {
                    top: 0,
                    left: 0,
                    bottom: TEXT_HEIGHT,
                    right: 0,
                },
                default_style: StyleRecord {
                    start_char: 0,
                    end_char: 0,
                    font_id: 1,
                    face_style_flags: 0,
                    font_size: 18,
                    text_color_rgba: [0xff; 4],
                },
                ftab_box: FtabBox {
                    entries: vec![FontRecord {
                        font_id: 1,
                        font_name: b"Sans-Serif".to_vec(),
                    }],
                },
                unknown_boxes: Vec::new(),
            }),
        })
    }
}

fn audio(channels: u16, rate: u32) -> AudioSampleEntryFields {
    AudioSampleEntryFields {
        data_reference_index: AudioSampleEntryFields::DEFAULT_DATA_REFERENCE_INDEX,
        channelcount: channels,
        samplesize: AudioSampleEntryFields::DEFAULT_SAMPLESIZE,
        // Higher rates are told by the codec's own configuration.
        samplerate: FixedPointNumber::new(u16::try_from(rate).unwrap_or(0), 0),
    }
}

/// Samples at 48 kHz in an Opus packet (RFC 6716, 3.1); 0 for what is none.
pub fn opus_samples(packet: &[u8]) -> u32 {
    let Some(&toc) = packet.first() else { return 0 };
    let frame = match toc >> 3 {
        config @ 0..=11 => [480, 960, 1920, 2880][usize::from(config % 4)],
        config @ 12..=15 => [480, 960][usize::from(config % 2)],
        config => [120, 240, 480, 960][usize::from(config % 4)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1).copied().unwrap_or(0) & 0x3f),
    };
    frame * frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opus_packets_say_how_long_they_are() {
        // CELT 20 ms; two of 2.5 ms; SILK 60 ms; hybrid 10 ms three times.
        assert_eq!(opus_samples(&[0xf8, 0]), 960);
        assert_eq!(opus_samples(&[0x81]), 240);
        assert_eq!(opus_samples(&[0x18]), 2880);
        assert_eq!(opus_samples(&[0x63, 0x83]), 1440);
        assert_eq!(opus_samples(&[]), 0);
    }

    #[test]
    fn opus_headers_are_read_and_surround_is_refused() {
        let mut head = *b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\x01\0";
        let codec = Codec::opus(&head).unwrap();
        let expected = Codec::Opus {
            channels: 2,
            pre_skip: 312,
            rate: 48_000,
            gain: 256,
        };
        assert_eq!(codec, expected);
        head[18] = 1;
        head[9] = 6;
        assert!(
            Codec::opus(&head)
                .unwrap_err()
                .to_string()
                .contains("6 channels")
        );
        assert!(Codec::opus(b"OpusTags").is_err());
    }
}

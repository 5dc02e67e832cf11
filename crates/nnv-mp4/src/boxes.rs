// SPDX-License-Identifier: MPL-2.0
//! The movie box and what is common to finished files and fragments.

use std::num::NonZeroU32;

use nnv_bitstream::SequenceHeader;
use shiguredo_mp4::boxes::{
    Brand, DinfBox, EdtsBox, ElstBox, ElstEntry, FtypBox, HdlrBox, MdhdBox, MdiaBox, MediaHeader,
    MinfBox, MoovBox, MvexBox, MvhdBox, NmhdBox, SmhdBox, StblBox, StsdBox, TkhdBox, TrakBox,
    TrexBox, VmhdBox,
};
use shiguredo_mp4::{Encode, FixedPointNumber, LanguageCode, Mp4FileTime, SampleFlags};

use crate::tags::udta;
use crate::track::TEXT_HEIGHT;
use crate::{Codec, Error, MOVIE_TIMESCALE, Rotation, Tag, Track};

/// Files are the same whenever they are written.
const CREATED: Mp4FileTime = Mp4FileTime::from_secs(0);

const ONE: i32 = 1 << 16;

/// A sample that decodes alone, and one that needs others.
pub(crate) const SYNC: SampleFlags = SampleFlags::from_fields(0, 2, 0, 0, 0, false, 0);
pub(crate) const DELTA: SampleFlags = SampleFlags::from_fields(0, 1, 0, 0, 0, true, 0);

/// The first box of a file.
pub(crate) fn ftyp(fragmented: bool) -> Result<Vec<u8>, Error> {
    let brands: &[[u8; 4]] = if fragmented {
        &[*b"iso6", *b"isom", *b"mp41", *b"dash"]
    } else {
        &[*b"isom", *b"iso2", *b"mp41"]
    };
    Ok(FtypBox {
        major_brand: Brand::new(brands[0]),
        minor_version: 512,
        compatible_brands: brands.iter().map(|brand| Brand::new(*brand)).collect(),
    }
    .encode_to_vec()?)
}

/// What of a track's box depends on its samples.
pub(crate) struct Filled {
    /// Ticks of all samples together.
    pub media: u64,
    /// From when on it is shown, in ticks of the movie.
    pub start: u64,
    /// For how long it is shown, in ticks of the movie; 0 while that is unknown.
    pub shown: u64,
    /// Ticks of the media before what is shown first.
    pub skipped: i64,
    pub stbl: StblBox,
}

impl Filled {
    fn duration(&self) -> u64 {
        if self.shown == 0 {
            0
        } else {
            self.start + self.shown
        }
    }

    fn edits(&self) -> Option<EdtsBox> {
        let mut entries = Vec::new();
        if self.start > 0 {
            entries.push(ElstEntry {
                edit_duration: self.start,
                media_time: -1,
                media_rate: FixedPointNumber::new(1, 0),
            });
        }
        if self.start > 0 || self.skipped > 0 {
            entries.push(ElstEntry {
                edit_duration: self.shown,
                media_time: self.skipped,
                media_rate: FixedPointNumber::new(1, 0),
            });
        }
        (!entries.is_empty()).then(|| EdtsBox {
            elst_box: Some(ElstBox { entries }),
            unknown_boxes: Vec::new(),
        })
    }
}

/// Sample descriptions of a track.
pub(crate) fn stsd(codecs: &[Codec]) -> Result<StsdBox, Error> {
    Ok(StsdBox {
        entries: codecs
            .iter()
            .map(Codec::sample_entry)
            .collect::<Result<_, _>>()?,
    })
}

/// Size on the screen, in 1/65536 of a sample.
fn shown_size(track: &Track) -> Result<Option<(u64, u64)>, Error> {
    let Codec::Nnv(sequence) = &track.codec else {
        return Ok(None);
    };
    let header = SequenceHeader::parse(sequence)?;
    let (num, den) = (
        u64::from(header.pixel_aspect.num),
        u64::from(header.pixel_aspect.den),
    );
    let (mut width, mut height) = (
        u64::from(header.display_width()) << 16,
        u64::from(header.display_height()) << 16,
    );
    // The direction that grows is scaled: nothing is lost.
    if num > den {
        width = width * num / den;
    } else {
        height = height * den / num;
    }
    let most = (i16::MAX as u64) << 16;
    Ok(Some((width.min(most), height.min(most))))
}

fn fixed(value: u64) -> FixedPointNumber<i16, u16> {
    // Bounded by `shown_size`.
    FixedPointNumber::new((value >> 16) as i16, value as u16)
}

/// Turns the picture about its corner, then moves it back to where it was.
fn matrix(rotation: Rotation, (width, height): (u64, u64)) -> [i32; 9] {
    let (w, h) = (width as i32, height as i32);
    let ([a, b, c, d], x, y) = match rotation {
        Rotation::None => ([ONE, 0, 0, ONE], 0, 0),
        Rotation::Quarter => ([0, ONE, -ONE, 0], h, 0),
        Rotation::Half => ([-ONE, 0, 0, -ONE], w, h),
        Rotation::ThreeQuarters => ([0, -ONE, ONE, 0], 0, w),
    };
    [a, b, 0, c, d, 0, x, y, 1 << 30]
}

fn timescale(of: u32) -> NonZeroU32 {
    NonZeroU32::new(of).unwrap_or(NonZeroU32::MIN)
}

/// The movie box. `tracks` in the order of their numbers, from 1.
pub(crate) fn moov(
    tracks: Vec<(&Track, u32, Filled)>,
    tags: &[Tag],
    fragmented: bool,
) -> Result<MoovBox, Error> {
    let video = tracks
        .iter()
        .map(|(track, ..)| shown_size(track))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .next();
    let duration = tracks.iter().map(|(_, _, filled)| filled.duration()).max();
    let mut trak_boxes = Vec::with_capacity(tracks.len());
    for (index, (track, scale, filled)) in tracks.into_iter().enumerate() {
        trak_boxes.push(trak(index as u32 + 1, track, scale, filled, video)?);
    }
    let trex_boxes = trak_boxes.iter().map(|trak| TrexBox {
        track_id: trak.tkhd_box.track_id,
        default_sample_description_index: 1,
        default_sample_duration: 0,
        default_sample_size: 0,
        default_sample_flags: SampleFlags::empty(),
    });
    Ok(MoovBox {
        mvhd_box: MvhdBox {
            creation_time: CREATED,
            modification_time: CREATED,
            timescale: timescale(MOVIE_TIMESCALE),
            duration: duration.unwrap_or(0),
            rate: MvhdBox::DEFAULT_RATE,
            volume: MvhdBox::DEFAULT_VOLUME,
            matrix: MvhdBox::DEFAULT_MATRIX,
            next_track_id: trak_boxes.len() as u32 + 1,
        },
        mvex_box: fragmented.then(|| MvexBox {
            mehd_box: None,
            trex_boxes: trex_boxes.collect(),
            unknown_boxes: Vec::new(),
        }),
        trak_boxes,
        unknown_boxes: udta(tags).into_iter().collect(),
    })
}

fn trak(
    id: u32,
    track: &Track,
    scale: u32,
    filled: Filled,
    video: Option<(u64, u64)>,
) -> Result<TrakBox, Error> {
    let (handler_type, name) = track.codec.handler();
    let own = shown_size(track)?;
    let mut placed = matrix(track.rotation, own.unwrap_or_default());
    let (width, height) = match (&track.codec, own, video) {
        (_, Some(own), _) => own,
        (Codec::Text, _, Some((width, height))) => {
            let strip = (TEXT_HEIGHT as u64) << 16;
            placed[7] = height.saturating_sub(strip) as i32;
            (width, strip)
        }
        _ => (0, 0),
    };
    let (media_header, volume) = match track.codec {
        Codec::Nnv(_) => (
            MediaHeader::Vmhd(VmhdBox {
                graphicsmode: VmhdBox::DEFAULT_GRAPHICSMODE,
                opcolor: VmhdBox::DEFAULT_OPCOLOR,
            }),
            TkhdBox::DEFAULT_VIDEO_VOLUME,
        ),
        Codec::Aac { .. } | Codec::Opus { .. } => (
            MediaHeader::Smhd(SmhdBox {
                balance: SmhdBox::DEFAULT_BALANCE,
            }),
            TkhdBox::DEFAULT_AUDIO_VOLUME,
        ),
        Codec::Text => (MediaHeader::Nmhd(NmhdBox), TkhdBox::DEFAULT_VIDEO_VOLUME),
    };
    let language = track.language.as_deref();
    Ok(TrakBox {
        tkhd_box: TkhdBox {
            flag_track_enabled: true,
            flag_track_in_movie: true,
            flag_track_in_preview: false,
            flag_track_size_is_aspect_ratio: false,
            creation_time: CREATED,
            modification_time: CREATED,
            track_id: id,
            duration: filled.duration(),
            layer: TkhdBox::DEFAULT_LAYER,
            alternate_group: TkhdBox::DEFAULT_ALTERNATE_GROUP,
            volume,
            matrix: placed,
            width: fixed(width),
            height: fixed(height),
        },
        edts_box: filled.edits(),
        mdia_box: MdiaBox {
            mdhd_box: MdhdBox {
                creation_time: CREATED,
                modification_time: CREATED,
                timescale: timescale(scale),
                duration: filled.media,
                language: language
                    .and_then(LanguageCode::from_ascii)
                    .unwrap_or_default(),
            },
            hdlr_box: HdlrBox {
                handler_type,
                name: [name.as_bytes(), &[0]].concat(),
            },
            minf_box: MinfBox {
                media_header: Some(media_header),
                dinf_box: DinfBox::LOCAL_FILE,
                stbl_box: filled.stbl,
                unknown_boxes: Vec::new(),
            },
            unknown_boxes: Vec::new(),
        },
        unknown_boxes: Vec::new(),
    })
}

/// Adds `item` to runs of equal items.
pub(crate) fn run<T: PartialEq>(runs: &mut Vec<(u32, T)>, item: T) {
    match runs.last_mut() {
        Some((count, last)) if *last == item => *count += 1,
        _ => runs.push((1, item)),
    }
}

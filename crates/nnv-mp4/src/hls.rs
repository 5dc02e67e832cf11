// SPDX-License-Identifier: MPL-2.0
//! Files in fragments as segments of HTTP Live Streaming (RFC 8216): where they lie, and the
//! playlist that says so.

use std::io::{Read, Seek, SeekFrom};

use m3u8_rs::{ByteRange, Map, MediaPlaylist, MediaPlaylistType, MediaSegment};
use shiguredo_mp4::boxes::{FtypBox, MoofBox, MoovBox, TrafBox};
use shiguredo_mp4::{BoxHeader, BoxType, Decode};

/// Most bytes of a box that is read whole: an index of a fragment has about 16 a sample.
const MAX_BOX: u64 = 64 << 20;
/// Size, type, large size and user type of a box.
const HEADER: usize = 32;
/// The version of the format that has fragmented MP4.
const VERSION: usize = 7;

/// What can be wrong with a file that shall become segments.
#[derive(Debug, thiserror::Error)]
pub enum HlsError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is none.
    #[error("no MP4 file: at byte {0} there is no box")]
    NotMp4(u64),
    /// It has no fragments.
    #[error(
        "the file is not in fragments, which segments are made of: write it with nnvmp4mux \
         fragment-duration=2000"
    )]
    NotFragmented,
    /// A box of it cannot be read.
    #[error("the box at byte {at}: {what}")]
    Box {
        /// Where it begins.
        at: u64,
        /// What is wrong.
        what: String,
    },
}

/// A stretch of the file that begins with a key frame, and can be fetched alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// Where it begins.
    pub at: u64,
    /// Bytes.
    pub len: u64,
    /// In seconds.
    pub duration: f64,
}

/// A file in fragments.
#[derive(Debug, Clone, PartialEq)]
pub struct Segments {
    /// Bytes at its beginning that players need before any segment.
    pub head: u64,
    /// All whole segments, in their order.
    pub list: Vec<Segment>,
}

/// The track whose times count: the picture's, or the first.
struct Clock {
    track: u32,
    timescale: f64,
    default_duration: u32,
    default_sync: bool,
}

/// What of a fragment counts.
struct Fragment {
    /// When its first sample is decoded, and how long all of them last, in seconds.
    times: Option<(f64, f64)>,
    key: bool,
}

impl Segments {
    /// Reads the headers of a file; what is cut off at its end is left out.
    ///
    /// # Errors
    /// See [`HlsError`].
    pub fn read(file: &mut (impl Read + Seek)) -> Result<Self, HlsError> {
        let end = file.seek(SeekFrom::End(0))?;
        let mut at = 0;
        let mut clock = None;
        let mut head = 0;
        // Fragments with their places, until it is known where the next one begins.
        let mut found: Vec<(u64, u64, Fragment)> = Vec::new();
        let mut open: Option<(u64, Fragment)> = None;
        while let Some((kind, len)) = header(file, at, end)? {
            match kind {
                MoovBox::TYPE => {
                    clock = Some(clock_of(&whole::<MoovBox>(file, at, len)?)?);
                    head = at + len;
                }
                MoofBox::TYPE => {
                    let clock = clock.as_ref().ok_or(HlsError::NotFragmented)?;
                    open = Some((at, fragment(&whole::<MoofBox>(file, at, len)?, clock)));
                }
                kind if kind == BoxType::Normal(*b"mdat") => {
                    if let Some((begin, fragment)) = open.take() {
                        found.push((begin, at + len - begin, fragment));
                    }
                }
                _ => {}
            }
            at += len;
        }
        if found.is_empty() {
            return Err(HlsError::NotFragmented);
        }
        Ok(Self {
            head,
            list: join(found),
        })
    }

    /// The playlist, for segments of one file that is named here, or for files of their own: `head`
    /// and what `name` makes of each number.
    ///
    /// # Errors
    /// None but of memory.
    pub fn playlist(&self, places: &Places) -> Result<String, HlsError> {
        let range = |at, length| ByteRange {
            length,
            offset: Some(at),
        };
        let segments = self.list.iter().enumerate().map(|(number, segment)| {
            let (uri, byte_range) = match places {
                Places::OneFile(uri) => (uri.clone(), Some(range(segment.at, segment.len))),
                Places::Files { name, .. } => (name(number), None),
            };
            let map = (number == 0).then(|| match places {
                Places::OneFile(uri) => (uri.clone(), Some(range(0, self.head))),
                Places::Files { head, .. } => (head.clone(), None),
            });
            MediaSegment {
                uri,
                byte_range,
                duration: segment.duration as f32,
                map: map.map(|(uri, byte_range)| Map {
                    uri,
                    byte_range,
                    ..Map::default()
                }),
                ..MediaSegment::empty()
            }
        });
        let longest = self.list.iter().map(|segment| segment.duration);
        let playlist = MediaPlaylist {
            version: Some(VERSION),
            target_duration: longest.fold(1.0, f64::max).round() as u64,
            segments: segments.collect(),
            end_list: true,
            playlist_type: Some(MediaPlaylistType::Vod),
            independent_segments: true,
            ..MediaPlaylist::default()
        };
        let mut text = Vec::new();
        playlist.write_to(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Where players fetch segments.
pub enum Places {
    /// Byte ranges of one file, by this address.
    OneFile(String),
    /// A file for each.
    Files {
        /// Address of what they need first.
        head: String,
        /// Address of a segment, by its number from 0.
        name: fn(usize) -> String,
    },
}

/// Type and size of the box at `at`; `None` at the file's end, and where it was cut off.
fn header(
    file: &mut (impl Read + Seek),
    at: u64,
    end: u64,
) -> Result<Option<(BoxType, u64)>, HlsError> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::with_capacity(HEADER);
    Read::take(&mut *file, HEADER as u64).read_to_end(&mut bytes)?;
    if bytes.len() < 8 {
        return Ok(None);
    }
    // A short box may be the last; what it lacks of these bytes is not looked at.
    bytes.resize(HEADER, 0);
    let (header, own) = BoxHeader::decode(&bytes).map_err(|_| HlsError::NotMp4(at))?;
    let len = match header.box_size.get() {
        0 => end - at,
        len => len,
    };
    let first = at > 0 || header.box_type == FtypBox::TYPE;
    if len < own as u64 || !first || !plausible(header.box_type) {
        return Err(HlsError::NotMp4(at));
    }
    let whole = at.checked_add(len).is_some_and(|next| next <= end);
    Ok(whole.then_some((header.box_type, len)))
}

/// Types are printable letters, or begin with ©.
fn plausible(kind: BoxType) -> bool {
    kind.as_bytes()
        .iter()
        .all(|b| (0x20..0x7f).contains(b) || *b == 0xa9)
}

fn whole<T: Decode>(file: &mut (impl Read + Seek), at: u64, len: u64) -> Result<T, HlsError> {
    let bad = |what: String| HlsError::Box { at, what };
    if len > MAX_BOX {
        return Err(bad(format!("{len} bytes are more than {MAX_BOX}")));
    }
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    Read::take(&mut *file, len).read_to_end(&mut bytes)?;
    T::decode(&bytes)
        .map(|(value, _)| value)
        .map_err(|error| bad(error.to_string()))
}

fn clock_of(moov: &MoovBox) -> Result<Clock, HlsError> {
    let mvex = moov.mvex_box.as_ref().ok_or(HlsError::NotFragmented)?;
    let video =
        |trak: &&shiguredo_mp4::boxes::TrakBox| trak.mdia_box.hdlr_box.handler_type == *b"vide";
    let trak = moov.trak_boxes.iter().find(video);
    let trak = trak.or(moov.trak_boxes.first());
    let trak = trak.ok_or(HlsError::NotFragmented)?;
    let track = trak.tkhd_box.track_id;
    let trex = mvex.trex_boxes.iter().find(|trex| trex.track_id == track);
    Ok(Clock {
        track,
        timescale: f64::from(trak.mdia_box.mdhd_box.timescale.get()),
        default_duration: trex.map_or(0, |trex| trex.default_sample_duration),
        default_sync: trex.is_none_or(|t| !t.default_sample_flags.sample_is_non_sync_sample()),
    })
}

fn fragment(moof: &MoofBox, clock: &Clock) -> Fragment {
    let own = |traf: &&TrafBox| traf.tfhd_box.track_id == clock.track;
    let Some(traf) = moof.traf_boxes.iter().find(own) else {
        return Fragment {
            times: None,
            key: false,
        };
    };
    let usual = traf.tfhd_box.default_sample_duration;
    let usual = usual.unwrap_or(clock.default_duration);
    let samples = traf.trun_boxes.iter().flat_map(|run| &run.samples);
    let lasts: u64 = samples
        .map(|sample| u64::from(sample.duration.unwrap_or(usual)))
        .sum();
    let first = traf.trun_boxes.first();
    let flags = first
        .and_then(|run| run.first_sample_flags.or(run.samples.first()?.flags))
        .or(traf.tfhd_box.default_sample_flags);
    let begin = traf
        .tfdt_box
        .as_ref()
        .map_or(0, |tfdt| tfdt.base_media_decode_time);
    Fragment {
        times: Some((
            begin as f64 / clock.timescale,
            lasts as f64 / clock.timescale,
        )),
        key: flags.map_or(clock.default_sync, |flags| {
            !flags.sample_is_non_sync_sample()
        }),
    }
}

/// Fragments that nobody can begin with belong to the one before.
fn join(found: Vec<(u64, u64, Fragment)>) -> Vec<Segment> {
    let mut list: Vec<(Segment, f64)> = Vec::new();
    for (at, len, fragment) in found {
        let (begin, lasts) = fragment.times.unwrap_or_default();
        match list.last_mut() {
            Some((segment, _)) if !fragment.key => {
                segment.len = at + len - segment.at;
                segment.duration += lasts;
            }
            last => {
                // Until the next one begins, whatever its own samples say.
                if let Some((segment, before)) = last {
                    segment.duration = begin - *before;
                }
                let segment = Segment {
                    at,
                    len,
                    duration: lasts,
                };
                list.push((segment, begin));
            }
        }
    }
    list.into_iter().map(|(segment, _)| segment).collect()
}

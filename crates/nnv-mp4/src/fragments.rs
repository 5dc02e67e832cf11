// SPDX-License-Identifier: MPL-2.0
//! Fragments: the file plays while it grows, and what was written before a crash stays.

use shiguredo_mp4::boxes::{
    MfhdBox, MoofBox, StblBox, StcoBox, StscBox, StszBox, SttsBox, TfdtBox, TfhdBox, TrafBox,
    TrunBox, TrunSample,
};
use shiguredo_mp4::{Either, Encode};

use crate::boxes::{DELTA, Filled, SYNC, ftyp, moov, stsd};
use crate::incoming::{Incoming, Unit};
use crate::timing::{decoding, shift, ticks};
use crate::{Codec, Data, Error, Piece, Sample, Tag, Track};
use nnv_bitstream::limits::MAX_MINI_GOP;

/// Most bytes that wait for the next key frame. Beyond them, a fragment is cut before it; it then
/// does not begin with one.
const MAX_WAITING: u64 = 32 << 20;

/// Writes fragments. Memory: the data from one key frame to the next, at most 32 MiB and a sample.
#[derive(Debug)]
pub struct FragmentMuxer<D> {
    tracks: Vec<FragmentTrack<D>>,
    tags: Vec<Tag>,
    /// Shortest duration of a fragment, in ns.
    shortest: i64,
    /// When the present fragment began, in ns.
    since: Option<i64>,
    waiting: u64,
    /// Number of the last fragment.
    number: u32,
}

#[derive(Debug)]
struct FragmentTrack<D> {
    incoming: Incoming<D>,
    waiting: Vec<Unit<D>>,
    /// Video: times that something is shown and nothing is decoded yet; as many as wait.
    free: Vec<i64>,
    /// When the last sample is decoded.
    last: Option<i64>,
    /// By how much decoding is ahead; known with the first fragment.
    shift: i64,
}

/// What of a track goes into one fragment.
struct Part<D> {
    traf: TrafBox,
    bytes: u64,
    data: Vec<Piece<D>>,
    /// What is small and sparse stands first: where a file is cut within its last fragment, readers
    /// that miss a subtitle stop as well.
    place: u8,
}

impl<D: Data> FragmentTrack<D> {
    /// Cuts off what waits. `next`: when what follows is decoded, where known, in ns. `whole`:
    /// what follows begins with a key frame, so nothing that waits depends on it.
    fn cut(&mut self, id: u32, next: Option<i64>, whole: bool) -> Result<Option<Part<D>>, Error> {
        let next = next.map(|ns| ticks(ns, self.incoming.timescale));
        let mut released = self.incoming.flush(next);
        self.waiting.append(&mut released);
        let video = self.incoming.track.codec.is_video();
        let shown: Vec<i64> = self.waiting.iter().map(|unit| unit.shown).collect();
        let mut decoded = if video {
            decoding(&self.free, self.last)
        } else {
            shown.clone()
        };
        // Frames to come may be shown before those that wait, but no more than these.
        let later = if video && !whole {
            usize::from(MAX_MINI_GOP)
        } else {
            0
        };
        let count = decoded.len().saturating_sub(later);
        let after = match decoded.get(count) {
            Some(time) => Some(*time),
            None => next.filter(|_| video),
        };
        decoded.truncate(count);
        let (Some(first), Some(last)) = (decoded.first().copied(), decoded.last().copied()) else {
            return Ok(None);
        };
        if self.last.is_none() && video {
            self.shift = shift(&shown[..count], &decoded).max(self.incoming.lead);
        }
        self.last = Some(last);
        self.free.sort_unstable();
        self.free.drain(..count.min(self.free.len()));
        let rest = self.waiting.split_off(count);
        let units = std::mem::replace(&mut self.waiting, rest);

        let duration_of_last = units.last().map_or(0, |unit| i64::from(unit.duration));
        let duration_of_last = after
            .map(|after| after - last)
            .filter(|duration| *duration > 0)
            .unwrap_or(duration_of_last);
        let durations = decoded
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .chain([duration_of_last])
            .map(|duration| {
                u32::try_from(duration).map_err(|_| Error::TooLarge("a sample's duration"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let same = durations.iter().all(|duration| *duration == durations[0]);
        let offsets: Vec<i64> = units
            .iter()
            .zip(&decoded)
            .map(|(unit, decoded)| unit.shown - decoded + self.shift)
            .collect();
        let shifted = video && offsets.iter().any(|offset| *offset != 0);
        let usual = if video { DELTA } else { SYNC };
        let flags = |sync| if sync { SYNC } else { DELTA };
        // A key frame mostly stands first and alone.
        let plain = units.iter().skip(1).all(|unit| flags(unit.sync) == usual);
        let first_sync = units.first().is_some_and(|unit| unit.sync);
        let samples = units
            .iter()
            .zip(&durations)
            .zip(&offsets)
            .map(|((unit, duration), offset)| TrunSample {
                duration: (!same).then_some(*duration),
                size: Some(unit.size),
                flags: (!plain).then_some(flags(unit.sync)),
                composition_time_offset: shifted.then_some(*offset),
            })
            .collect();
        let traf = TrafBox {
            tfhd_box: TfhdBox {
                track_id: id,
                base_data_offset: None,
                sample_description_index: None,
                default_sample_duration: same.then_some(durations[0]),
                default_sample_size: None,
                default_sample_flags: Some(usual),
                duration_is_empty: false,
                default_base_is_moof: true,
            },
            tfdt_box: Some(TfdtBox {
                version: 1,
                base_media_decode_time: u64::try_from(first).unwrap_or(0),
            }),
            trun_boxes: vec![TrunBox {
                data_offset: Some(0),
                first_sample_flags: (plain && flags(first_sync) != usual)
                    .then_some(flags(first_sync)),
                samples,
            }],
            unknown_boxes: Vec::new(),
        };
        Ok(Some(Part {
            traf,
            bytes: units.iter().map(|unit| u64::from(unit.size)).sum(),
            data: units.into_iter().map(|unit| unit.data).collect(),
            place: match self.incoming.track.codec {
                Codec::Text => 0,
                Codec::Aac { .. } | Codec::Opus { .. } => 1,
                Codec::Nnv(_) => 2,
            },
        }))
    }

    /// Tables without samples.
    fn empty(&self) -> Result<Filled, Error> {
        Ok(Filled {
            media: 0,
            start: 0,
            shown: 0,
            skipped: self.shift.max(self.incoming.priming),
            stbl: StblBox {
                stsd_box: stsd(std::slice::from_ref(&self.incoming.track.codec))?,
                stts_box: SttsBox {
                    entries: Vec::new(),
                },
                ctts_box: None,
                cslg_box: None,
                stsc_box: StscBox {
                    entries: Vec::new(),
                },
                stsz_box: StszBox::Variable {
                    entry_sizes: Vec::new(),
                },
                stco_or_co64_box: Either::A(StcoBox {
                    chunk_offsets: Vec::new(),
                }),
                stss_box: None,
                sdtp_box: None,
                unknown_boxes: Vec::new(),
            },
        })
    }
}

impl<D: Data> FragmentMuxer<D> {
    /// A file with these tracks, whose fragments last `shortest` ns or more, up to a key frame.
    ///
    /// # Errors
    /// [`Error::Header`] where a sequence header cannot be read.
    pub fn new(tracks: Vec<Track>, tags: Vec<Tag>, shortest: u64) -> Result<Self, Error> {
        Ok(Self {
            tracks: tracks
                .into_iter()
                .map(|track| {
                    Ok(FragmentTrack {
                        incoming: Incoming::new(track)?,
                        waiting: Vec::new(),
                        free: Vec::new(),
                        last: None,
                        shift: 0,
                    })
                })
                .collect::<Result<_, Error>>()?,
            tags,
            shortest: i64::try_from(shortest).unwrap_or(i64::MAX),
            since: None,
            waiting: 0,
            number: 0,
        })
    }

    /// Takes a sample of track `index`; gives the fragment that is complete with that. Samples have
    /// to come in the order of their times over all tracks.
    ///
    /// # Errors
    /// [`Error::Backwards`], [`Error::TooLarge`], [`Error::Boxes`].
    pub fn push(&mut self, index: usize, sample: Sample<D>) -> Result<Vec<Piece<D>>, Error> {
        let by_video = self
            .tracks
            .iter()
            .any(|track| track.incoming.track.codec.is_video());
        let may_begin = if by_video {
            sample.sync && self.tracks[index].incoming.track.codec.is_video()
        } else {
            true
        };
        let since = *self.since.get_or_insert(sample.pts);
        let mut out = Vec::new();
        if may_begin && sample.pts.saturating_sub(since) >= self.shortest {
            out = self.cut(Some(sample.pts), true)?;
            self.since = Some(sample.pts);
        } else if self.waiting >= MAX_WAITING {
            out = self.cut(None, false)?;
        }
        let track = &mut self.tracks[index];
        for unit in track.incoming.push(sample)? {
            self.waiting += u64::from(unit.size);
            if track.incoming.track.codec.is_video() {
                track.free.push(unit.shown);
            }
            track.waiting.push(unit);
        }
        Ok(out)
    }

    /// No more samples follow; gives the last fragment.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::TooLarge`], [`Error::Boxes`].
    pub fn end(&mut self) -> Result<Vec<Piece<D>>, Error> {
        let out = self.cut(None, true)?;
        if self.number == 0 {
            return Err(Error::Empty);
        }
        Ok(out)
    }

    fn cut(&mut self, next: Option<i64>, whole: bool) -> Result<Vec<Piece<D>>, Error> {
        let mut parts = Vec::new();
        for (index, track) in self.tracks.iter_mut().enumerate() {
            parts.extend(track.cut(index as u32 + 1, next, whole)?);
        }
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let mut head = Vec::new();
        if self.number == 0 {
            head = ftyp(true)?;
            let tracks = self
                .tracks
                .iter()
                .map(|track| {
                    let incoming = &track.incoming;
                    Ok((&incoming.track, incoming.timescale, track.empty()?))
                })
                .collect::<Result<Vec<_>, Error>>()?;
            head.extend(moov(tracks, &self.tags, true)?.encode_to_vec()?);
        }
        self.number = self.number.wrapping_add(1);
        let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
        let mut order: Vec<_> = (0..parts.len()).collect();
        order.sort_by_key(|index| parts[*index].place);
        let mut data = Vec::with_capacity(parts.len());
        let mut trafs = Vec::with_capacity(parts.len());
        for part in parts {
            trafs.push(part.traf);
            data.push((part.bytes, part.data));
        }
        let mut moof = MoofBox {
            mfhd_box: MfhdBox {
                sequence_number: self.number,
            },
            traf_boxes: trafs,
            unknown_boxes: Vec::new(),
        };
        // Its size does not depend on the places in it.
        let mut place = moof.encode_to_vec()?.len() as u64 + 8;
        let mut ordered = Vec::new();
        for index in order {
            let offset = i32::try_from(place).map_err(|_| Error::TooLarge("a fragment"))?;
            for trun in &mut moof.traf_boxes[index].trun_boxes {
                trun.data_offset = Some(offset);
            }
            let (len, pieces) = std::mem::take(&mut data[index]);
            place += len;
            ordered.extend(pieces);
        }
        head.extend(moof.encode_to_vec()?);
        let size = u32::try_from(bytes + 8).map_err(|_| Error::TooLarge("a fragment"))?;
        head.extend(size.to_be_bytes());
        head.extend(b"mdat");
        self.waiting = self.waiting.saturating_sub(bytes);
        let mut out = vec![Piece::Bytes(head)];
        out.extend(ordered);
        Ok(out)
    }
}

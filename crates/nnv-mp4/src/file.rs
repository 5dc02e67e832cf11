// SPDX-License-Identifier: MPL-2.0
//! Finished files: all data in one box, and an index of all samples.

use std::num::NonZeroU32;

use shiguredo_mp4::boxes::{
    Co64Box, CttsBox, CttsEntry, StblBox, StcoBox, StscBox, StscEntry, StssBox, StszBox, SttsBox,
    SttsEntry,
};
use shiguredo_mp4::{Either, Encode};

use crate::boxes::{Filled, ftyp, moov, run, stsd};
use crate::incoming::{Incoming, Unit};
use crate::timing::{decoding, rescale, shift};
use crate::{Codec, Data, Error, MOVIE_TIMESCALE, Piece, Sample, Tag, Track};

/// Longest that data of a track lie together, in ns: what a player has to hold of the others.
const CHUNK_NS: i64 = 500_000_000;
/// Most bytes of a track that lie together.
const CHUNK_BYTES: u64 = 4 << 20;
/// A box's size and type, and the size once more in 64 bits.
const LARGE_HEADER: u64 = 16;

/// Writes a finished file. Memory: some 20 bytes for each sample, and half a second of data.
#[derive(Debug)]
pub struct FileMuxer<D> {
    tracks: Vec<FileTrack<D>>,
    /// Bytes of media data so far.
    position: u64,
}

#[derive(Debug)]
struct FileTrack<D> {
    incoming: Incoming<D>,
    /// Size, time of showing, duration.
    samples: Vec<(u32, i64, u32)>,
    /// Numbers of samples that decode alone, from 1.
    sync: Vec<NonZeroU32>,
    /// How samples are coded: the track's own codec, then what came later.
    entries: Vec<Codec>,
    /// Number of the entry that holds now, from 1.
    entry: NonZeroU32,
    chunks: Vec<Chunk>,
    waiting: Vec<Piece<D>>,
    waiting_bytes: u64,
    waiting_since: i64,
}

/// Samples of a track that lie together and are coded alike.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    /// Place in the media data.
    at: u64,
    samples: u32,
    /// Number of the sample entry.
    entry: NonZeroU32,
}

/// What ends a file whose index stands behind its data.
#[derive(Debug, PartialEq, Eq)]
pub struct Ending {
    /// The index, to be written behind the data.
    pub index: Vec<u8>,
    /// Where in the file to write `patch`.
    pub patch_at: u64,
    /// The size of the data, now known.
    pub patch: Vec<u8>,
}

impl<D: Data> FileTrack<D> {
    fn take(&mut self, unit: Unit<D>) -> Result<(), Error> {
        if self.waiting.is_empty() {
            self.waiting_since = unit.shown;
        }
        self.waiting_bytes += u64::from(unit.size);
        self.waiting.push(unit.data);
        self.samples.push((unit.size, unit.shown, unit.duration));
        let number = u32::try_from(self.samples.len())
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or(Error::TooLarge("the number of samples"))?;
        if unit.sync && self.incoming.track.codec.is_video() {
            self.sync.push(number);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let since = self
            .samples
            .last()
            .map_or(0, |(_, shown, _)| shown - self.waiting_since);
        self.waiting_bytes >= CHUNK_BYTES
            || since.saturating_mul(1_000_000_000)
                >= CHUNK_NS.saturating_mul(i64::from(self.incoming.timescale))
    }

    fn chunk(&mut self, position: &mut u64) -> Vec<Piece<D>> {
        if !self.waiting.is_empty() {
            self.chunks.push(Chunk {
                at: *position,
                samples: self.waiting.len() as u32,
                entry: self.entry,
            });
            *position += std::mem::take(&mut self.waiting_bytes);
        }
        std::mem::take(&mut self.waiting)
    }

    /// The sample tables; `None` without samples. `base` is where the media data begin.
    fn filled(&self, base: u64, large: bool) -> Result<Option<Filled>, Error> {
        let (Some(first), Some(last)) = (self.incoming.first, self.samples.last()) else {
            return Ok(None);
        };
        let video = self.incoming.track.codec.is_video();
        let shown: Vec<i64> = self.samples.iter().map(|(_, shown, _)| *shown).collect();
        let decoded = if video {
            decoding(&shown, None)
        } else {
            shown.clone()
        };
        let too_long = |_| Error::TooLarge("the time between two samples");
        let mut deltas = Vec::new();
        for pair in decoded.windows(2) {
            run(
                &mut deltas,
                u32::try_from(pair[1] - pair[0]).map_err(too_long)?,
            );
        }
        // A last frame without a duration is shown as long as the one before.
        let before = deltas.last().map_or(0, |(_, delta)| *delta);
        run(&mut deltas, if last.2 == 0 { before } else { last.2 });
        let unknown = if last.2 == 0 { i64::from(before) } else { 0 };
        let media: u64 = deltas
            .iter()
            .map(|(count, delta)| u64::from(*count) * u64::from(*delta))
            .sum();

        let mut offsets = Vec::new();
        let mut skipped = self.incoming.priming;
        if video {
            skipped = shift(&shown, &decoded).max(self.incoming.lead);
            for (shown, decoded) in shown.iter().zip(&decoded) {
                run(&mut offsets, shown - decoded + skipped);
            }
            // Shown as they are decoded: nothing to say.
            if offsets.iter().all(|(_, offset)| *offset == 0) {
                offsets.clear();
            }
        }
        let mut groups: Vec<StscEntry> = Vec::new();
        for (index, chunk) in self.chunks.iter().enumerate() {
            let of_chunk = (chunk.samples, chunk.entry);
            let of_group = |g: &StscEntry| (g.sample_per_chunk, g.sample_description_index);
            if groups.last().map(of_group) != Some(of_chunk) {
                groups.push(StscEntry {
                    first_chunk: NonZeroU32::MIN.saturating_add(index as u32),
                    sample_per_chunk: chunk.samples,
                    sample_description_index: chunk.entry,
                });
            }
        }
        let places = self.chunks.iter().map(|chunk| chunk.at + base);
        let stco_or_co64_box = if large {
            Either::B(Co64Box {
                chunk_offsets: places.collect(),
            })
        } else {
            Either::A(StcoBox {
                // `large` is set where one does not fit.
                chunk_offsets: places.map(|at| at as u32).collect(),
            })
        };
        let all_sync = self.sync.len() == self.samples.len();
        let scale = self.incoming.timescale;
        let end = self.incoming.end + unknown;
        Ok(Some(Filled {
            media,
            start: rescale(first, scale, MOVIE_TIMESCALE),
            shown: rescale(end - first, scale, MOVIE_TIMESCALE).max(1),
            skipped,
            stbl: StblBox {
                stsd_box: stsd(&self.entries)?,
                stts_box: SttsBox {
                    entries: deltas
                        .into_iter()
                        .map(|(sample_count, sample_delta)| SttsEntry {
                            sample_count,
                            sample_delta,
                        })
                        .collect(),
                },
                ctts_box: (!offsets.is_empty()).then(|| CttsBox {
                    version: 0,
                    entries: offsets
                        .into_iter()
                        .map(|(sample_count, sample_offset)| CttsEntry {
                            sample_count,
                            sample_offset,
                        })
                        .collect(),
                }),
                cslg_box: None,
                stsc_box: StscBox { entries: groups },
                stsz_box: StszBox::Variable {
                    entry_sizes: self.samples.iter().map(|(size, ..)| *size).collect(),
                },
                stco_or_co64_box,
                stss_box: (video && !all_sync).then(|| StssBox {
                    sample_numbers: self.sync.clone(),
                }),
                sdtp_box: None,
                unknown_boxes: Vec::new(),
            },
        }))
    }
}

impl<D: Data> FileMuxer<D> {
    /// A file with these tracks.
    ///
    /// # Errors
    /// [`Error::Header`] where a sequence header cannot be read.
    pub fn new(tracks: Vec<Track>) -> Result<Self, Error> {
        Ok(Self {
            tracks: tracks
                .into_iter()
                .map(|track| {
                    Ok(FileTrack {
                        entries: vec![track.codec.clone()],
                        entry: NonZeroU32::MIN,
                        incoming: Incoming::new(track)?,
                        samples: Vec::new(),
                        sync: Vec::new(),
                        chunks: Vec::new(),
                        waiting: Vec::new(),
                        waiting_bytes: 0,
                        waiting_since: 0,
                    })
                })
                .collect::<Result<_, Error>>()?,
            position: 0,
        })
    }

    /// The beginning of a file whose index will stand behind its data. Until [`Ending::patch`] is
    /// written the data go on to the file's end.
    ///
    /// # Errors
    /// [`Error::Boxes`].
    pub fn beginning() -> Result<Vec<u8>, Error> {
        let mut head = ftyp(false)?;
        head.extend(8u32.to_be_bytes());
        head.extend(b"free");
        head.extend(0u32.to_be_bytes());
        head.extend(b"mdat");
        Ok(head)
    }

    /// Takes a sample of track `index`; gives media data to be written next.
    ///
    /// # Errors
    /// [`Error::Backwards`], [`Error::TooLarge`].
    pub fn push(&mut self, index: usize, sample: Sample<D>) -> Result<Vec<Piece<D>>, Error> {
        let track = &mut self.tracks[index];
        let mut out = Vec::new();
        for unit in track.incoming.push(sample)? {
            track.take(unit)?;
            if track.is_full() {
                out.append(&mut track.chunk(&mut self.position));
            }
        }
        Ok(out)
    }

    /// What follows of track `index` is coded as `codec` says: it gets a sample entry of its own.
    /// The track keeps its clock and its size on the screen. Gives media data to be written next.
    ///
    /// # Errors
    /// [`Error::Changed`] where it is not video before and after, [`Error::Header`].
    pub fn change(&mut self, index: usize, codec: Codec) -> Result<Vec<Piece<D>>, Error> {
        let track = &mut self.tracks[index];
        if !(codec.is_video() && track.incoming.track.codec.is_video()) {
            return Err(Error::Changed(track.incoming.track.codec.name()));
        }
        codec.sample_entry()?;
        let out = track.chunk(&mut self.position);
        let known = track.entries.iter().position(|known| *known == codec);
        let place = known.unwrap_or(track.entries.len());
        if known.is_none() {
            track.entries.push(codec);
        }
        track.entry = u32::try_from(place + 1)
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or(Error::TooLarge("the number of sample entries"))?;
        Ok(out)
    }

    /// No more samples follow; gives the last media data.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn end(&mut self) -> Result<Vec<Piece<D>>, Error> {
        let mut out = Vec::new();
        // The picture last: qtdemux 1.22 ends everything with the first frame of a pushed file
        // whose time, without the edit list, is behind the file's duration.
        for video in [false, true] {
            let of_kind =
                |track: &&mut FileTrack<D>| track.incoming.track.codec.is_video() == video;
            for track in self.tracks.iter_mut().filter(of_kind) {
                for unit in track.incoming.flush(None) {
                    track.take(unit)?;
                }
                out.append(&mut track.chunk(&mut self.position));
            }
        }
        Ok(out)
    }

    fn index(&self, tags: &[Tag], base: u64, large: bool) -> Result<Vec<u8>, Error> {
        let mut filled = Vec::new();
        for track in &self.tracks {
            if let Some(boxes) = track.filled(base, large)? {
                filled.push((&track.incoming.track, track.incoming.timescale, boxes));
            }
        }
        if filled.is_empty() {
            return Err(Error::Empty);
        }
        Ok(moov(filled, tags, false)?.encode_to_vec()?)
    }

    /// What ends a file that began with [`beginning`](Self::beginning), after
    /// [`end`](Self::end).
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::TooLarge`], [`Error::Boxes`].
    pub fn index_behind(&self, tags: &[Tag]) -> Result<Ending, Error> {
        let patch_at = ftyp(false)?.len() as u64;
        let base = patch_at + LARGE_HEADER;
        let index = self.index(tags, base, base + self.position > u64::from(u32::MAX))?;
        let patch = match u32::try_from(self.position + 8) {
            Ok(size) => [8u32.to_be_bytes(), *b"free", size.to_be_bytes(), *b"mdat"].concat(),
            Err(_) => data_header(self.position),
        };
        Ok(Ending {
            index,
            patch_at,
            patch,
        })
    }

    /// All that stands before the media data in a file whose index does, after
    /// [`end`](Self::end).
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::TooLarge`], [`Error::Boxes`].
    pub fn index_before(&self, tags: &[Tag]) -> Result<Vec<u8>, Error> {
        let mut head = ftyp(false)?;
        let data = data_header(self.position);
        let before = (head.len() + data.len()) as u64;
        let mut large = false;
        // The index's size does not depend on the places in it, but on how many bits they take.
        let mut len = self.index(tags, 0, large)?.len() as u64;
        if before + len + self.position > u64::from(u32::MAX) {
            large = true;
            len = self.index(tags, 0, large)?.len() as u64;
        }
        head.extend(self.index(tags, before + len, large)?);
        head.extend(data);
        Ok(head)
    }
}

/// Header of a data box.
fn data_header(len: u64) -> Vec<u8> {
    match u32::try_from(len + 8) {
        Ok(size) => [&size.to_be_bytes()[..], b"mdat"].concat(),
        Err(_) => [
            &1u32.to_be_bytes()[..],
            b"mdat",
            &(len + LARGE_HEADER).to_be_bytes(),
        ]
        .concat(),
    }
}

// SPDX-License-Identifier: MPL-2.0

use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::sync::{LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use nnv_mp4::file::FileMuxer;
use nnv_mp4::fragments::FragmentMuxer;
use nnv_mp4::{Codec, Data, Error, Piece, Rotation, Sample, Tag, Track};

use super::priming::{self, Played, Priming};
use super::streams::{self, Stream};
use crate::common::{self, lock};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnvmp4mux",
        gst::DebugColorFlags::empty(),
        Some("NNV in MP4"),
    )
});

/// Bytes that go from the temporary file to the sink at once.
const COPY: usize = 1 << 20;

/// Media data: a buffer that is passed on as it is.
struct Media(gst::Buffer);

impl Data for Media {
    fn size(&self) -> usize {
        self.0.size()
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    faststart: bool,
    /// ms; 0: a finished file.
    fragment_duration: u32,
}

/// What is known of a pad.
#[derive(Default)]
struct PadState {
    stream: Option<Stream>,
    /// The same, of what is queued: ahead of `stream`.
    announced: Option<Stream>,
    language: Option<String>,
    rotation: Option<Rotation>,
    /// Number of its track, once the file has begun; `None`: it has none.
    track: Option<usize>,
    /// Sound: what is not played of it.
    priming: Option<Priming>,
    /// Video: payload of the sequence header in force.
    sequence: Option<Vec<u8>>,
    /// Video: a key frame came. Nobody could decode what was before it.
    begun: bool,
}

enum Writer {
    /// Index behind the data.
    Behind(FileMuxer<Media>),
    /// Index before the data, which wait in a temporary file.
    Before(FileMuxer<Media>, BufWriter<File>),
    Fragments(FragmentMuxer<Media>),
}

#[derive(Default)]
struct State {
    pads: Vec<(gst_base::AggregatorPad, PadState)>,
    tags: Option<gst::TagList>,
    writer: Option<Writer>,
    /// Running time that the file begins at, in ns.
    base: i64,
    /// Bytes given to the source pad.
    written: u64,
    finished: bool,
}

impl State {
    fn pad(&mut self, pad: &gst_base::AggregatorPad) -> &mut PadState {
        let index = match self.pads.iter().position(|(known, _)| known == pad) {
            Some(index) => index,
            None => {
                self.pads.push((pad.clone(), PadState::default()));
                self.pads.len() - 1
            }
        };
        &mut self.pads[index].1
    }
}

/// What `aggregate` does next.
enum Next {
    /// Some pad has neither data nor an end.
    Wait,
    /// This pad's buffer is the earliest.
    Take(gst_base::AggregatorPad),
    End,
}

/// What goes to the source pad, and how.
#[derive(Default)]
struct Out {
    pieces: Vec<Piece<Media>>,
    /// Place in the file and bytes to be put there, after the pieces.
    patch: Option<(u64, Vec<u8>)>,
    /// A temporary file that follows the pieces.
    copy: Option<File>,
}

#[derive(Default)]
pub struct NnvMp4Mux {
    settings: Mutex<Settings>,
    state: Mutex<State>,
}

#[glib::object_subclass]
impl ObjectSubclass for NnvMp4Mux {
    const NAME: &'static str = "GstNnvMp4Mux";
    type Type = super::NnvMp4Mux;
    type ParentType = gst_base::Aggregator;
    type Interfaces = (gst::TagSetter,);
}

impl ObjectImpl for NnvMp4Mux {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecBoolean::builder("faststart")
                    .nick("Index first")
                    .blurb(
                        "Write the index before the data, so that players on the network begin at \
                         once. The data wait in a temporary file until the end; the sink need not \
                         be seekable",
                    )
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("fragment-duration")
                    .nick("Fragment duration")
                    .blurb(
                        "Shortest duration of a fragment in ms; each begins with a key frame and \
                         plays while the file grows. The sink need not be seekable. 0: a finished \
                         file",
                    )
                    .mutable_ready()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "faststart" => settings.faststart = value.get().expect("type checked upstream"),
            "fragment-duration" => {
                settings.fragment_duration = value.get().expect("type checked upstream");
            }
            other => unreachable!("no property {other}"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings);
        match pspec.name() {
            "faststart" => settings.faststart.to_value(),
            "fragment-duration" => settings.fragment_duration.to_value(),
            other => unreachable!("no property {other}"),
        }
    }
}

impl GstObjectImpl for NnvMp4Mux {}
impl TagSetterImpl for NnvMp4Mux {}

impl ElementImpl for NnvMp4Mux {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "NNV MP4 muxer",
                "Codec/Muxer",
                "Writes NNV video with sound and subtitles into MP4 files, finished or in \
                 fragments",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let aac = gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 4)
                .field("stream-format", "raw")
                .field("channels", gst::IntRange::new(1, 8))
                .field("rate", gst::IntRange::new(1, 192_000))
                .build();
            let mut sound = aac;
            sound.merge(
                gst::Caps::builder("audio/x-opus")
                    .field("channel-mapping-family", 0)
                    .field("channels", gst::IntRange::new(1, 2))
                    .build(),
            );
            let text = gst::Caps::builder("text/x-raw")
                .field("format", gst::List::new(["utf8", "pango-markup"]))
                .build();
            let request = |name: &str, caps: &gst::Caps| {
                gst::PadTemplate::with_gtype(
                    name,
                    gst::PadDirection::Sink,
                    gst::PadPresence::Request,
                    caps,
                    gst_base::AggregatorPad::static_type(),
                )
            };
            let file = gst::Caps::builder("video/quicktime")
                .field("variant", gst::List::new(["iso", "iso-fragmented"]))
                .build();
            let source = gst::PadTemplate::with_gtype(
                "src",
                gst::PadDirection::Src,
                gst::PadPresence::Always,
                &file,
                gst_base::AggregatorPad::static_type(),
            );
            [
                request("video_%u", &common::parsed_caps()),
                request("audio_%u", &sound),
                request("subtitle_%u", &text),
                source,
            ]
            .into_iter()
            .map(|template| template.expect("templates are valid"))
            .collect()
        });
        &TEMPLATES
    }

    fn release_pad(&self, pad: &gst::Pad) {
        lock(&self.state)
            .pads
            .retain(|(known, _)| known.upcast_ref::<gst::Pad>() != pad);
        self.parent_release_pad(pad);
    }
}

impl AggregatorImpl for NnvMp4Mux {
    fn create_new_pad(
        &self,
        template: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst_base::AggregatorPad> {
        let obj = self.obj();
        let prefix = template.name_template().trim_end_matches("%u");
        if prefix == "video_" && obj.sink_pads().iter().any(|p| p.name().starts_with(prefix)) {
            gst::element_imp_error!(
                self,
                gst::CoreError::Pad,
                ("A file has one video stream, and there is one already: write the other into \
                     a file of its own")
            );
            return None;
        }
        let free = |name: &str| obj.static_pad(name).is_none();
        let name = match name.filter(|name| !name.contains('%')) {
            Some(name) if free(name) => name.to_owned(),
            Some(_) => return None,
            None => (0u32..)
                .map(|number| format!("{prefix}{number}"))
                .find(|name| free(name))?,
        };
        Some(
            gst::PadBuilder::<gst_base::AggregatorPad>::from_template(template)
                .name(name)
                .build(),
        )
    }

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        self.reset();
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.reset();
        Ok(())
    }

    fn flush(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        // A file cannot be unwritten: what follows goes behind what is there.
        Ok(gst::FlowSuccess::Ok)
    }

    fn negotiate(&self) -> bool {
        // There is nothing to choose; caps are set with the file's first byte.
        true
    }

    fn sink_event_pre_queue(
        &self,
        pad: &gst_base::AggregatorPad,
        event: gst::Event,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        if let gst::EventView::Caps(caps) = event.view()
            && !self.may_become(pad, caps.caps())
        {
            return Err(gst::FlowError::NotNegotiated);
        }
        self.parent_sink_event_pre_queue(pad, event)
    }

    fn sink_event(&self, pad: &gst_base::AggregatorPad, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Caps(caps) => return self.set_caps(pad, caps.caps()),
            gst::EventView::Tag(tags) => self.add_tags(pad, tags.tag()),
            _ => {}
        }
        self.parent_sink_event(pad, event)
    }

    fn aggregate(&self, timeout: bool) -> Result<gst::FlowSuccess, gst::FlowError> {
        match self.next(timeout) {
            Next::Wait => Err(gst_base::AGGREGATOR_FLOW_NEED_DATA),
            Next::Take(pad) => {
                if lock(&self.state).writer.is_none() {
                    let out = self.begin().map_err(|error| self.fail(error))?;
                    self.give(out)?;
                }
                let Some(buffer) = pad.pop_buffer() else {
                    return Ok(gst::FlowSuccess::Ok);
                };
                let out = self.take(&pad, buffer).map_err(|error| self.fail(error))?;
                self.give(out)
            }
            Next::End => {
                let out = self.finish().map_err(|error| self.fail(error))?;
                self.give(out)?;
                Err(gst::FlowError::Eos)
            }
        }
    }
}

/// Running times of a buffer in ns: shown, decoded.
fn times(pad: &gst_base::AggregatorPad, buffer: &gst::BufferRef) -> (Option<i64>, Option<i64>) {
    let segment = pad.segment();
    let Some(segment) = segment.downcast_ref::<gst::ClockTime>() else {
        return (None, None);
    };
    let running = |time: Option<gst::ClockTime>| {
        let time = segment.to_running_time_full(time?)?;
        Some(match time {
            gst::Signed::Positive(t) => i64::try_from(t.nseconds()).unwrap_or(i64::MAX),
            gst::Signed::Negative(t) => i64::try_from(t.nseconds()).map_or(i64::MIN, |t| -t),
        })
    };
    (running(buffer.pts()), running(buffer.dts()))
}

/// Running time at which the pad's segment begins, in ns.
fn segment_start(pad: &gst_base::AggregatorPad) -> i64 {
    let segment = pad.segment();
    let start = segment
        .downcast_ref::<gst::ClockTime>()
        .and_then(|segment| segment.to_running_time(segment.start()?));
    start.map_or(0, |t| i64::try_from(t.nseconds()).unwrap_or(0))
}

/// In ns.
fn duration(buffer: &gst::BufferRef) -> Option<u64> {
    buffer.duration().map(gst::ClockTime::nseconds)
}

/// The nearest number of samples to so many ns.
fn samples(ns: u64, rate: u32) -> Option<u32> {
    let exact = u128::from(ns) * u128::from(rate);
    u32::try_from((exact + 500_000_000) / 1_000_000_000).ok()
}

impl NnvMp4Mux {
    fn reset(&self) {
        let mut state = lock(&self.state);
        let pads = std::mem::take(&mut state.pads);
        *state = State::default();
        // Caps are sent once where a pad stays active; what a file made of them is gone.
        state.pads = pads
            .into_iter()
            .map(|(pad, known)| {
                let kept = PadState {
                    stream: known.stream,
                    language: known.language,
                    rotation: known.rotation,
                    ..PadState::default()
                };
                (pad, kept)
            })
            .collect();
    }

    /// Posts an error, no lock being held, and gives what `aggregate` returns for it.
    fn fail(&self, error: gst::ErrorMessage) -> gst::FlowError {
        self.post_error_message(error);
        gst::FlowError::Error
    }

    fn set_caps(&self, pad: &gst_base::AggregatorPad, caps: &gst::CapsRef) -> bool {
        gst::debug!(CAT, obj = pad, "{caps}");
        let stream = match Stream::from_caps(caps) {
            Ok(stream) => stream,
            Err(reason) => {
                gst::element_imp_error!(self, gst::StreamError::Format, ("{reason}"));
                return false;
            }
        };
        lock(&self.state).pad(pad).stream = Some(stream);
        true
    }

    /// Whether what reaches a pad may go on as `caps` say. Says why not, unless a new file follows.
    fn may_become(&self, pad: &gst_base::AggregatorPad, caps: &gst::CapsRef) -> bool {
        let Ok(stream) = Stream::from_caps(caps) else {
            // Told with the data before it, see `set_caps`.
            return true;
        };
        let fragmented = lock(&self.settings).fragment_duration > 0;
        let waits = pad.has_buffer();
        let changed = {
            let mut state = lock(&self.state);
            let known = state.pad(pad);
            // Without data so far, nothing is settled.
            let begun = waits || known.track.is_some();
            let changed = begun
                && known
                    .announced
                    .as_ref()
                    .is_some_and(|before| !before.continues(&stream));
            if !changed {
                known.announced = Some(stream.clone());
            }
            changed
        };
        if !changed {
            return true;
        }
        // It takes the refusal, and begins the next file with these caps.
        let parts = self.obj().parent().and_downcast::<gst::Element>();
        let parts = parts.and_then(|parent| parent.factory());
        if parts.is_some_and(|factory| factory.name() == "splitmuxsink") {
            return false;
        }
        if matches!(stream, Stream::Video(_)) && !fragmented {
            lock(&self.state).pad(pad).announced = Some(stream);
            return true;
        }
        gst::element_imp_error!(
            self,
            gst::StreamError::Format,
            (
                "The format of {} changes, and its track has one: start a new file where it \
                 changes (splitmuxsink does){}",
                pad.name(),
                if fragmented {
                    ", or write a finished file (fragment-duration=0), where video may change"
                } else {
                    ""
                }
            ),
            ["{caps}"]
        );
        false
    }

    fn add_tags(&self, pad: &gst_base::AggregatorPad, tags: &gst::TagListRef) {
        let mut state = lock(&self.state);
        let known = state.pad(pad);
        if let Some(language) = streams::language(tags) {
            known.language = Some(language);
        }
        if let Some(rotation) = streams::rotation(tags) {
            known.rotation = Some(rotation);
        }
        let video = matches!(known.stream, Some(Stream::Video(_)));
        // A container's own tags are the file's, and so are those of the picture.
        if tags.scope() == gst::TagScope::Global || video {
            let tags = tags.to_owned();
            state.tags = Some(match state.tags.take() {
                Some(known) => known.merge(&tags, gst::TagMergeMode::Keep),
                None => tags,
            });
        }
    }

    fn next(&self, timeout: bool) -> Next {
        let mut earliest: Option<(i64, gst_base::AggregatorPad)> = None;
        let mut all_ended = true;
        for pad in self.obj().sink_pads() {
            let Ok(pad) = pad.downcast::<gst_base::AggregatorPad>() else {
                continue;
            };
            let Some(buffer) = pad.peek_buffer() else {
                if pad.is_eos() {
                    continue;
                }
                all_ended = false;
                // Subtitles come when they like; a live pipeline does not wait for them.
                let text = matches!(
                    lock(&self.state).pad(&pad).stream,
                    Some(Stream::Text { .. })
                );
                if timeout && text {
                    continue;
                }
                return Next::Wait;
            };
            all_ended = false;
            let (shown, decoded) = times(&pad, &buffer);
            // A key frame waits for what else is shown before it: a fragment that begins with it
            // then needs nothing that readers play before the last frames of the one before.
            let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            let due = if key { shown } else { decoded.or(shown) };
            // What has no time is taken at once, and an error.
            let time = due.unwrap_or(i64::MIN);
            if earliest.as_ref().is_none_or(|(known, _)| time < *known) {
                earliest = Some((time, pad));
            }
        }
        match earliest {
            Some((_, pad)) => Next::Take(pad),
            None if all_ended => Next::End,
            None => Next::Wait,
        }
    }

    /// Describes the tracks, all pads having data or none to come, and begins the file.
    fn begin(&self) -> Result<Out, gst::ErrorMessage> {
        let obj = self.obj();
        let settings = *lock(&self.settings);
        let mut tracks = Vec::new();
        let mut base = i64::MAX;
        for pad in obj.sink_pads() {
            let Ok(pad) = pad.downcast::<gst_base::AggregatorPad>() else {
                continue;
            };
            let buffer = pad.peek_buffer();
            if buffer.is_none() && pad.is_eos() {
                gst::warning!(
                    CAT,
                    obj = pad,
                    "No data: the file has no track for this pad"
                );
                continue;
            }
            let shown = buffer.as_ref().and_then(|buffer| times(&pad, buffer).0);
            let sound = match lock(&self.state).pad(&pad).stream.clone() {
                Some(Stream::Sound(codec)) => Some(codec),
                _ => None,
            };
            // Asks other elements, so no lock is held.
            let priming = sound.zip(shown).map(|(codec, shown)| {
                let delay = priming::delay(pad.upcast_ref(), &codec);
                Priming::new(delay, shown, segment_start(&pad))
            });
            let played = match (priming, shown, &buffer) {
                (Some(priming), Some(shown), Some(buffer)) => {
                    Some(priming.next(shown, duration(buffer)).0.pts)
                }
                (_, shown, _) => shown,
            };
            base = base.min(played.unwrap_or(i64::MAX));
            let state = &mut *lock(&self.state);
            let tags = state.tags.clone();
            let known = state.pad(&pad);
            let codec = match &known.stream {
                None => {
                    return Err(gst::error_msg!(
                        gst::CoreError::Negotiation,
                        ("{} has data but no caps: put a parser before", pad.name())
                    ));
                }
                Some(Stream::Video(header)) => {
                    let own = buffer.as_ref().and_then(|buffer| {
                        let map = buffer.map_readable().ok()?;
                        Some(streams::sequence_of(&map).ok()??.to_vec())
                    });
                    let sequence = own.or_else(|| streams::payload(header).map(<[u8]>::to_vec));
                    let Some(sequence) = sequence else {
                        return Err(gst::error_msg!(
                            gst::StreamError::Format,
                            ("The video has no sequence header, neither in its caps nor before \
                                 its first frame: put nnvparse before")
                        ));
                    };
                    known.sequence = Some(sequence.clone());
                    Codec::Nnv(sequence)
                }
                Some(Stream::Sound(codec)) => codec.clone(),
                Some(Stream::Text { .. }) => Codec::Text,
            };
            known.track = Some(tracks.len());
            known.priming = priming;
            let rotation = known
                .rotation
                .or_else(|| tags.as_ref().and_then(|tags| streams::rotation(tags)));
            tracks.push(Track {
                rotation: rotation
                    .filter(|_| matches!(codec, Codec::Nnv(_)))
                    .unwrap_or_default(),
                codec,
                language: known.language.clone(),
            });
        }
        let fragmented = settings.fragment_duration > 0;
        let in_place = !fragmented && !settings.faststart;
        if in_place && !self.is_seekable() {
            return Err(gst::error_msg!(
                gst::ResourceError::Seek,
                ("What takes the file cannot seek, and the size of the data has to be written \
                     at its beginning: set faststart=true or fragment-duration, or write to a \
                     file (filesink)")
            ));
        }
        let caps = gst::Caps::builder("video/quicktime")
            .field("variant", if fragmented { "iso-fragmented" } else { "iso" })
            .build();
        obj.set_src_caps(&caps);
        obj.update_segment(&gst::FormattedSegment::<gst::format::Bytes>::new());
        let mut first = Out::default();
        let writer = if fragmented {
            let shortest = u64::from(settings.fragment_duration) * 1_000_000;
            FragmentMuxer::new(tracks, self.tags(), shortest).map(Writer::Fragments)
        } else if settings.faststart {
            let file = tempfile::tempfile().map_err(|e| temporary(&e))?;
            FileMuxer::new(tracks).map(|muxer| Writer::Before(muxer, BufWriter::new(file)))
        } else {
            let beginning = FileMuxer::<Media>::beginning().map_err(|error| muxing(&error))?;
            first.pieces.push(Piece::Bytes(beginning));
            FileMuxer::new(tracks).map(Writer::Behind)
        };
        let writer = writer.map_err(|error| muxing(&error))?;
        {
            let mut state = lock(&self.state);
            state.writer = Some(writer);
            state.base = if base == i64::MAX { 0 } else { base };
        }
        Ok(first)
    }

    fn is_seekable(&self) -> bool {
        let mut query = gst::query::Seeking::new(gst::Format::Bytes);
        self.obj().src_pad().peer_query(&mut query) && query.result().0
    }

    /// Tags of the file: what the application set, then what came with the streams.
    fn tags(&self) -> Vec<Tag> {
        let set = self.obj().tag_list();
        let came = lock(&self.state).tags.clone();
        let tags = match (set, came) {
            (Some(set), Some(came)) => set.merge(&came, gst::TagMergeMode::Keep),
            (Some(tags), None) | (None, Some(tags)) => tags,
            (None, None) => return Vec::new(),
        };
        streams::file_tags(&tags)
    }

    /// Puts a buffer into the file.
    fn take(
        &self,
        pad: &gst_base::AggregatorPad,
        mut buffer: gst::Buffer,
    ) -> Result<Out, gst::ErrorMessage> {
        if buffer.flags().contains(gst::BufferFlags::GAP) && buffer.size() == 0 {
            return Ok(Out::default());
        }
        let (shown, decoded) = times(pad, &buffer);
        let state = &mut *lock(&self.state);
        let base = state.base;
        let known = state.pad(pad);
        let Some(index) = known.track else {
            return Err(gst::error_msg!(
                gst::StreamError::Mux,
                (
                    "{} has data only now, and the file's tracks are settled: link all streams \
                     before the first data",
                    pad.name()
                )
            ));
        };
        let sync = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let Some(shown) = shown else {
            return Err(gst::error_msg!(
                gst::StreamError::Format,
                (
                    "{} has a buffer without a time: put a parser before (nnvparse for video), or \
                     set the frame rate of the source",
                    pad.name()
                )
            ));
        };
        let mut decodes_to = None;
        let mut text = None;
        let mut changed = None;
        let mut played = Played {
            pts: shown,
            duration: duration(&buffer),
            decoded: None,
        };
        if let Some(priming) = known.priming {
            let (now, then) = priming.next(shown, played.duration);
            (played, known.priming) = (now, Some(then));
        }
        match &known.stream {
            Some(Stream::Video(header)) => {
                if sync {
                    let header = header.clone();
                    changed = check_key(known, &mut buffer, &header)?;
                } else if !known.begun {
                    gst::info!(CAT, obj = pad, "No key frame yet: the frame is left out");
                    return Ok(Out::default());
                }
            }
            Some(Stream::Sound(Codec::Opus { .. })) => {
                let map = buffer.map_readable().map_err(|_| unreadable())?;
                decodes_to = Some(nnv_mp4::opus_samples(&map)).filter(|samples| *samples > 0);
            }
            Some(Stream::Sound(Codec::Aac { rate, .. })) => {
                decodes_to = played.decoded.and_then(|ns| samples(ns, *rate));
            }
            Some(Stream::Sound(_)) | None => {}
            Some(Stream::Text { markup }) => {
                let map = buffer.map_readable().map_err(|_| unreadable())?;
                let own = String::from_utf8_lossy(&map);
                let own = own.trim_end_matches(['\0', '\n']);
                let own = if *markup {
                    nnv_mp4::text::plain(own)
                } else {
                    own.to_owned()
                };
                text = Some(nnv_mp4::text::sample(&own));
            }
        }
        let sample = Sample {
            pts: played.pts.saturating_sub(base),
            dts: decoded.map(|decoded| decoded.saturating_sub(base)),
            duration: played.duration,
            decoded: decodes_to,
            sync,
            data: match text {
                Some(text) => Piece::Bytes(text),
                None => Piece::Data(Media(buffer)),
            },
        };
        let mut out = Out::default();
        if changed.is_some() && matches!(state.writer, Some(Writer::Fragments(_))) {
            return Err(gst::error_msg!(
                gst::StreamError::Format,
                ("The video's size, depth, rate, colours or networks change, and its track has \
                     one of each: start a new file where they change (splitmuxsink does), or write \
                     a finished file (fragment-duration=0), where video may change")
            ));
        }
        match state.writer.as_mut() {
            Some(Writer::Behind(muxer)) => {
                out.pieces = push_to(muxer, index, changed, sample)?;
            }
            Some(Writer::Before(muxer, file)) => {
                let pieces = push_to(muxer, index, changed, sample)?;
                store(file, &pieces).map_err(|error| temporary(&error))?;
            }
            Some(Writer::Fragments(muxer)) => {
                out.pieces = muxer.push(index, sample).map_err(|error| muxing(&error))?;
            }
            None => {}
        }
        Ok(out)
    }

    /// Ends the file.
    fn finish(&self) -> Result<Out, gst::ErrorMessage> {
        let tags = self.tags();
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.finished, true) {
            return Ok(Out::default());
        }
        let Some(writer) = state.writer.take() else {
            drop(state);
            return Err(muxing(&Error::Empty));
        };
        drop(state);
        let mut out = Out::default();
        match writer {
            Writer::Behind(mut muxer) => {
                out.pieces = muxer.end().map_err(|error| muxing(&error))?;
                let end = muxer.index_behind(&tags).map_err(|error| muxing(&error))?;
                out.pieces.push(Piece::Bytes(end.index));
                out.patch = Some((end.patch_at, end.patch));
            }
            Writer::Before(mut muxer, mut file) => {
                let last = muxer.end().map_err(|error| muxing(&error))?;
                let head = muxer.index_before(&tags).map_err(|error| muxing(&error))?;
                out.pieces.push(Piece::Bytes(head));
                let rewound = store(&mut file, &last).and_then(|()| {
                    let mut file = file.into_inner().map_err(|e| e.into_error())?;
                    file.rewind()?;
                    Ok(file)
                });
                out.copy = Some(rewound.map_err(|error| temporary(&error))?);
            }
            Writer::Fragments(mut muxer) => {
                out.pieces = muxer.end().map_err(|error| muxing(&error))?;
            }
        }
        Ok(out)
    }

    /// Sends what is ready downstream.
    fn give(&self, out: Out) -> Result<gst::FlowSuccess, gst::FlowError> {
        let obj = self.obj();
        if !out.pieces.is_empty() {
            let mut list = gst::BufferList::new_sized(out.pieces.len());
            if let Some(list) = list.get_mut() {
                for piece in out.pieces {
                    list.add(self.buffer(piece));
                }
            }
            obj.finish_buffer_list(list)?;
        }
        if let Some(file) = out.copy {
            loop {
                let mut data = Vec::with_capacity(COPY);
                (&file)
                    .take(COPY as u64)
                    .read_to_end(&mut data)
                    .map_err(|error| self.fail(temporary(&error)))?;
                if data.is_empty() {
                    break;
                }
                let buffer = self.buffer(Piece::Bytes(data));
                obj.finish_buffer(buffer)?;
            }
        }
        if let Some((at, bytes)) = out.patch {
            let mut segment = gst::FormattedSegment::<gst::format::Bytes>::new();
            segment.set_start(gst::format::Bytes::from_u64(at));
            obj.update_segment(&segment);
            lock(&self.state).written = at;
            let buffer = self.buffer(Piece::Bytes(bytes));
            obj.finish_buffer(buffer).inspect_err(|error| {
                if *error != gst::FlowError::Flushing {
                    gst::element_imp_error!(
                        self,
                        gst::ResourceError::Seek,
                        ("The size of the data could not be written at the file's beginning: \
                             set faststart=true or fragment-duration")
                    );
                }
            })?;
        }
        Ok(gst::FlowSuccess::Ok)
    }

    /// A buffer without the times of its stream, placed in the file.
    fn buffer(&self, piece: Piece<Media>) -> gst::Buffer {
        let mut buffer = match piece {
            Piece::Bytes(bytes) => gst::Buffer::from_slice(bytes),
            Piece::Data(Media(buffer)) => buffer,
        };
        let written = &mut lock(&self.state).written;
        let size = buffer.size() as u64;
        let writable = buffer.make_mut();
        writable.set_pts(gst::ClockTime::NONE);
        writable.set_dts(gst::ClockTime::NONE);
        writable.set_duration(gst::ClockTime::NONE);
        writable.set_offset(*written);
        writable.set_offset_end(*written + size);
        *written += size;
        buffer
    }
}

/// Puts a sample into a finished file; `changed`: what describes the video from there on.
fn push_to(
    muxer: &mut FileMuxer<Media>,
    index: usize,
    changed: Option<Vec<u8>>,
    sample: Sample<Media>,
) -> Result<Vec<Piece<Media>>, gst::ErrorMessage> {
    let mut pieces = match changed {
        Some(sequence) => muxer.change(index, Codec::Nnv(sequence)),
        None => Ok(Vec::new()),
    }
    .map_err(|error| muxing(&error))?;
    let more = muxer.push(index, sample).map_err(|error| muxing(&error))?;
    pieces.extend(more);
    Ok(pieces)
}

/// Every key frame has its sequence header before it. Gives that header where it says something
/// else than what the file says so far.
fn check_key(
    known: &mut PadState,
    buffer: &mut gst::Buffer,
    header: &[u8],
) -> Result<Option<Vec<u8>>, gst::ErrorMessage> {
    let own = {
        let map = buffer.map_readable().map_err(|_| unreadable())?;
        streams::sequence_of(&map).map(|own| own.map(<[u8]>::to_vec))
    };
    let own = own.map_err(|reason| {
        gst::error_msg!(
            gst::StreamError::Format,
            ("A key frame cannot be written: {reason}: put nnvparse before")
        )
    })?;
    let sequence = match own {
        Some(own) => own,
        None => {
            // Readers that begin here need it.
            let Some(payload) = streams::payload(header) else {
                return Err(gst::error_msg!(
                    gst::StreamError::Format,
                    ("A key frame without its sequence header, which the caps do not have \
                         either: put nnvparse before")
                ));
            };
            let mut whole = gst::Buffer::from_slice(header.to_vec());
            if let Some(whole) = whole.get_mut() {
                let _ = buffer.copy_into(whole, gst::BUFFER_COPY_METADATA, ..);
            }
            whole.append(buffer.clone());
            *buffer = whole;
            payload.to_vec()
        }
    };
    known.begun = true;
    let before = known.sequence.replace(sequence.clone());
    let changed = before.is_some_and(|before| !streams::continues(&before, &sequence));
    Ok(changed.then_some(sequence))
}

fn unreadable() -> gst::ErrorMessage {
    gst::error_msg!(
        gst::ResourceError::Read,
        ("A buffer cannot be mapped for reading")
    )
}

/// What an error of the muxer becomes on the bus.
fn muxing(error: &Error) -> gst::ErrorMessage {
    match error {
        Error::Backwards { .. } => gst::error_msg!(gst::StreamError::Format, ("{error}")),
        _ => gst::error_msg!(gst::StreamError::Mux, ("{error}")),
    }
}

/// What an error of the temporary file becomes.
fn temporary(error: &std::io::Error) -> gst::ErrorMessage {
    gst::error_msg!(
        gst::ResourceError::Write,
        (
            "The temporary file in {} that faststart needs: {error}. Set TMPDIR to a folder with \
             room for the whole file, or faststart=false",
            std::env::temp_dir().display()
        )
    )
}

fn store(file: &mut BufWriter<File>, pieces: &[Piece<Media>]) -> std::io::Result<()> {
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => file.write_all(bytes)?,
            Piece::Data(Media(buffer)) => {
                let map = buffer.map_readable().map_err(std::io::Error::other)?;
                file.write_all(&map)?;
            }
        }
    }
    Ok(())
}

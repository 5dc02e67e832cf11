// SPDX-License-Identifier: MPL-2.0
//! What rides along with pictures: GStreamer's metadata and tags, and the codec's words for them.
//!
//! User data of Rec. ITU-T T.35 (HDR10+ among them) has no metadata of its own in GStreamer before
//! 1.30. It is a `GstCustomMeta` called [`T35_META`], so that elements and applications of any
//! language can add and read it: its structure has `data`: a buffer with a message from
//! the country code on, or an array of such buffers where there are several.

use std::sync::LazyLock;

use gst::glib;
use gst::meta::{CustomMeta, MetaAPI};
use gst::prelude::*;
use gst_video::video_meta::VideoSeiUserDataUnregisteredMeta;
use gst_video::{
    VideoAFDMeta, VideoAFDSpec, VideoAFDValue, VideoBarMeta, VideoCaptionMeta, VideoCaptionType,
    VideoTimeCode, VideoTimeCodeFlags, VideoTimeCodeMeta,
};
use nnv_bitstream::metadata::{
    AfdSpec, CaptionFormat, Field, FrameItem, Instant, Orientation, StreamItem, Text, TimeCode,
};
use nnv_bitstream::{FrameMetadata, StreamMetadata};

/// Name of the metadata with messages of Rec. ITU-T T.35.
pub const T35_META: &str = "GstNnvT35Meta";
const T35_DATA: &str = "data";

static REGISTERED: LazyLock<()> = LazyLock::new(|| {
    if !CustomMeta::is_registered(T35_META) {
        CustomMeta::register(T35_META, &["video"]);
    }
});

/// Makes the metadata of this plugin known to applications.
pub fn register() {
    LazyLock::force(&REGISTERED);
}

/// What rides along with a frame, in the stream's words, and how many pieces there is no room or no
/// word for.
pub fn of_buffer(buffer: &gst::BufferRef) -> (FrameMetadata, usize) {
    let items = buffer
        .iter_meta::<VideoCaptionMeta>()
        .map(|meta| {
            let format = match meta.caption_type() {
                VideoCaptionType::Cea608Raw => CaptionFormat::Cea608,
                VideoCaptionType::Cea608S3341a => CaptionFormat::Cea608S334,
                VideoCaptionType::Cea708Raw => CaptionFormat::Cea708,
                VideoCaptionType::Cea708Cdp => CaptionFormat::Cdp,
                _ => return None,
            };
            Some(FrameItem::Captions(format, meta.data().to_vec()))
        })
        .chain(buffer.iter_meta::<VideoAFDMeta>().map(|meta| {
            let spec = match meta.spec() {
                VideoAFDSpec::DvbEtsi => AfdSpec::Etsi,
                VideoAFDSpec::AtscA53 => AfdSpec::Atsc,
                VideoAFDSpec::SmpteSt20161 => AfdSpec::Smpte,
                _ => return None,
            };
            let value = AFD.iter().find(|(_, value)| *value == meta.afd())?.0;
            Some(FrameItem::ActiveFormat(field(meta.field())?, spec, value))
        }))
        .chain(buffer.iter_meta::<VideoBarMeta>().map(|meta| {
            Some(FrameItem::Bars {
                field: field(meta.field())?,
                letterbox: meta.is_letterbox(),
                ends: [meta.bar_data1(), meta.bar_data2()],
            })
        }))
        .chain(
            buffer
                .iter_meta::<VideoTimeCodeMeta>()
                .map(|meta| time_code(&meta.tc()).map(FrameItem::TimeCode)),
        )
        .chain(
            buffer
                .iter_meta::<VideoSeiUserDataUnregisteredMeta>()
                .map(|meta| Some(FrameItem::UserData(meta.uuid(), meta.data().to_vec()))),
        )
        .chain(
            t35_of(buffer)
                .into_iter()
                .map(|data| Some(FrameItem::T35(data))),
        );
    let (mut metadata, mut left_out) = (FrameMetadata::default(), 0);
    for item in items {
        let fits = item.is_some_and(|item| metadata.push(item).is_ok());
        left_out += usize::from(!fits);
    }
    (metadata, left_out)
}

/// Puts what the access unit `coded` says of its frame onto the frame's picture. The base class
/// hands on what is on the coded buffer already: that is not put there twice.
pub fn restore(coded: &gst::BufferRef, picture: &mut gst::BufferRef) {
    let metadata = coded
        .map_readable()
        .ok()
        .and_then(|map| FrameMetadata::of_access_unit(&map));
    let mut messages = Vec::new();
    for item in metadata.iter().flat_map(|metadata| metadata.items()) {
        match item {
            FrameItem::Captions(format, data) if !has::<VideoCaptionMeta>(coded) => {
                let caption_type = match format {
                    CaptionFormat::Cea608 => VideoCaptionType::Cea608Raw,
                    CaptionFormat::Cea608S334 => VideoCaptionType::Cea608S3341a,
                    CaptionFormat::Cea708 => VideoCaptionType::Cea708Raw,
                    CaptionFormat::Cdp => VideoCaptionType::Cea708Cdp,
                };
                VideoCaptionMeta::add(picture, caption_type, data);
            }
            FrameItem::ActiveFormat(field, spec, value) if !has::<VideoAFDMeta>(coded) => {
                let spec = match spec {
                    AfdSpec::Etsi => VideoAFDSpec::DvbEtsi,
                    AfdSpec::Atsc => VideoAFDSpec::AtscA53,
                    AfdSpec::Smpte => VideoAFDSpec::SmpteSt20161,
                };
                // The others are reserved.
                if let Some((_, value)) = AFD.iter().find(|(code, _)| code == value) {
                    VideoAFDMeta::add(picture, *field as u8, spec, *value);
                }
            }
            FrameItem::Bars {
                field,
                letterbox,
                ends: [first, second],
            } if !has::<VideoBarMeta>(coded) => {
                VideoBarMeta::add(picture, *field as u8, *letterbox, *first, *second);
            }
            FrameItem::TimeCode(code) if !has::<VideoTimeCodeMeta>(coded) => {
                // What GStreamer takes for no time code is of no use to anyone.
                if let Some(code) = video_time_code(code) {
                    VideoTimeCodeMeta::add(picture, &code);
                }
            }
            FrameItem::UserData(uuid, data) if !has::<VideoSeiUserDataUnregisteredMeta>(coded) => {
                VideoSeiUserDataUnregisteredMeta::add(picture, uuid, data);
            }
            FrameItem::T35(data) => messages.push(data.clone()),
            _ => {}
        }
    }
    if !messages.is_empty() && t35_of(coded).is_empty() {
        note_t35(picture, messages);
    }
}

fn has<T: MetaAPI>(buffer: &gst::BufferRef) -> bool {
    buffer.meta::<T>().is_some()
}

fn field(number: u8) -> Option<Field> {
    [Field::First, Field::Second]
        .get(usize::from(number))
        .copied()
}

/// Active format descriptions that have a name.
const AFD: [(u8, VideoAFDValue); 11] = [
    (0, VideoAFDValue::Unavailable),
    (2, VideoAFDValue::_169TopAligned),
    (3, VideoAFDValue::_149TopAligned),
    (4, VideoAFDValue::GreaterThan169),
    (8, VideoAFDValue::_43Full169Full),
    (9, VideoAFDValue::_43Full43Pillar),
    (10, VideoAFDValue::_169Letter169Full),
    (11, VideoAFDValue::_149Letter149Pillar),
    (13, VideoAFDValue::_43Full149Center),
    (14, VideoAFDValue::_169Letter149Center),
    (15, VideoAFDValue::_169Letter43Center),
];

fn time_code(code: &gst_video::ValidVideoTimeCode) -> Option<TimeCode> {
    let (small, flags) = (|v: u32| u8::try_from(v).ok(), code.flags());
    let unsigned = |v: i32| u32::try_from(v).ok();
    Some(TimeCode {
        rate: (unsigned(code.fps().numer())?, unsigned(code.fps().denom())?),
        drop_frame: flags.contains(VideoTimeCodeFlags::DROP_FRAME),
        interlaced: flags.contains(VideoTimeCodeFlags::INTERLACED),
        hours: small(code.hours())?,
        minutes: small(code.minutes())?,
        seconds: small(code.seconds())?,
        frames: code.frames(),
        field_count: small(code.field_count())?,
        daily_jam: code.latest_daily_jam().and_then(|jam| {
            let within = i64::from(jam.microsecond());
            Some(Instant {
                microseconds: jam.to_unix().checked_mul(1_000_000)?.checked_add(within)?,
                offset: i32::try_from(jam.utc_offset().as_seconds()).ok()?,
            })
        }),
    })
}

fn video_time_code(code: &TimeCode) -> Option<gst_video::ValidVideoTimeCode> {
    let jam = |jam: Instant| {
        let seconds = jam.microseconds.div_euclid(1_000_000);
        let within = glib::TimeSpan::from_microseconds(jam.microseconds.rem_euclid(1_000_000));
        let utc = glib::DateTime::from_unix_utc(seconds)
            .ok()?
            .add(within)
            .ok()?;
        let (sign, ahead) = (
            if jam.offset < 0 { '-' } else { '+' },
            jam.offset.unsigned_abs(),
        );
        let (hours, minutes, seconds) = (ahead / 3600, ahead / 60 % 60, ahead % 60);
        let zone = format!("{sign}{hours:02}:{minutes:02}:{seconds:02}");
        utc.to_timezone(&glib::TimeZone::new(Some(&zone))).ok()
    };
    let mut flags = VideoTimeCodeFlags::empty();
    flags.set(VideoTimeCodeFlags::DROP_FRAME, code.drop_frame);
    flags.set(VideoTimeCodeFlags::INTERLACED, code.interlaced);
    let rate = super::fraction(code.rate)?;
    VideoTimeCode::new(
        rate,
        code.daily_jam.and_then(jam).as_ref(),
        flags,
        code.hours.into(),
        code.minutes.into(),
        code.seconds.into(),
        code.frames,
        code.field_count.into(),
    )
    .try_into()
    .ok()
}

fn t35_of(buffer: &gst::BufferRef) -> Vec<Vec<u8>> {
    register();
    let Ok(meta) = CustomMeta::from_buffer(buffer, T35_META) else {
        return Vec::new();
    };
    let bytes = |buffer: gst::Buffer| Some(buffer.map_readable().ok()?.to_vec());
    let structure = meta.structure();
    if let Ok(one) = structure.get::<gst::Buffer>(T35_DATA) {
        return bytes(one).into_iter().collect();
    }
    let Ok(messages) = structure.get::<gst::ArrayRef>(T35_DATA) else {
        return Vec::new();
    };
    let buffers = messages.as_slice().iter().filter_map(|v| v.get().ok());
    buffers.filter_map(bytes).collect()
}

fn note_t35(buffer: &mut gst::BufferRef, messages: Vec<Vec<u8>>) {
    if let Ok(mut meta) = CustomMeta::add(buffer, T35_META) {
        let messages = messages.into_iter().map(gst::Buffer::from_slice);
        meta.mut_structure()
            .set(T35_DATA, gst::Array::new(messages));
    }
}

/// Tags that streams carry: what people write about a video, not what elements compute.
const TAGS: [&str; 27] = [
    "title",
    "artist",
    "performer",
    "album",
    "album-artist",
    "composer",
    "genre",
    "show-name",
    "track-number",
    "comment",
    "description",
    "keywords",
    "copyright",
    "license",
    "organization",
    "contact",
    "language-code",
    "language-name",
    "datetime",
    "application-name",
    "device-manufacturer",
    "device-model",
    "geo-location-name",
    "geo-location-latitude",
    "geo-location-longitude",
    "geo-location-elevation",
    "isrc",
];
const ORIENTATION: &str = "image-orientation";

/// Values of [`ORIENTATION`], in the order of Exif's numbers.
const ORIENTATIONS: [&str; 8] = [
    "rotate-0",
    "flip-rotate-0",
    "rotate-180",
    "flip-rotate-180",
    "flip-rotate-270",
    "rotate-90",
    "flip-rotate-90",
    "rotate-270",
];

/// What tags say that a stream carries, and how many of those there is no room for.
pub fn of_tags(tags: &gst::TagListRef) -> (StreamMetadata, usize) {
    let (mut metadata, mut left_out) = (StreamMetadata::default(), 0);
    let orientation = tags.get::<gst::tags::ImageOrientation>();
    let turned = orientation.and_then(|value| {
        let turned = ORIENTATIONS.iter().position(|name| *name == value.get())?;
        Orientation::ALL.get(turned).copied()
    });
    let texts = TAGS.iter().flat_map(|name| {
        let count = tags.size_by_name(*name);
        (0..count).filter_map(move |i| {
            let text = text_of(tags.index_generic(*name, i)?)?;
            Some(StreamItem::Tag(Text::new(name, &text)))
        })
    });
    for item in turned.map(StreamItem::Orientation).into_iter().chain(texts) {
        left_out += usize::from(metadata.push(item).is_err());
    }
    (metadata, left_out)
}

fn text_of(value: &glib::SendValue) -> Option<String> {
    let date = |date: gst::DateTime| date.to_iso8601_string().ok().map(|text| text.to_string());
    (value.get::<String>().ok())
        .or_else(|| value.get::<u32>().ok().map(|number| number.to_string()))
        .or_else(|| value.get::<f64>().ok().map(|number| number.to_string()))
        .or_else(|| value.get::<gst::DateTime>().ok().and_then(date))
}

/// The tags in a stream's metadata but those that `others` has.
pub fn tags_of(metadata: &StreamMetadata, others: Option<&gst::TagListRef>) -> gst::TagList {
    let mut tags = gst::TagList::new();
    let list = tags.make_mut();
    let mode = gst::TagMergeMode::Append;
    let known = |name: &str| others.is_some_and(|others| others.size_by_name(name) > 0);
    for item in metadata.items() {
        match item {
            StreamItem::Orientation(turned) if !known(ORIENTATION) => {
                let name = ORIENTATIONS[*turned as usize - 1];
                list.add::<gst::tags::ImageOrientation>(&name, mode);
            }
            StreamItem::Tag(Text { key, value }) if TAGS.contains(&key.as_str()) && !known(key) => {
                let kind = gst::tags::tag_get_type(key.as_str());
                let key = key.as_str();
                let added = if kind == String::static_type() {
                    list.add_generic(key, value, mode)
                } else if let (true, Ok(number)) =
                    (kind == u32::static_type(), value.parse::<u32>())
                {
                    list.add_generic(key, number, mode)
                } else if let (true, Ok(number)) =
                    (kind == f64::static_type(), value.parse::<f64>())
                {
                    list.add_generic(key, number, mode)
                } else if let Ok(date) = gst::DateTime::from_iso8601_string(value) {
                    list.add_generic(key, date, mode)
                } else {
                    Ok(())
                };
                if let Err(error) = added {
                    gst::warning!(gst::CAT_RUST, "A tag cannot be restored: {error}");
                }
            }
            _ => {}
        }
    }
    tags
}

const COLORIMETRY: &str = "colorimetry";
const CHROMA_SITE: &str = "chroma-site";
const MULTIVIEW_MODE: &str = "multiview-mode";
const MULTIVIEW_FLAGS: &str = "multiview-flags";

/// Adds what caps of raw video say and the sequence header `stream` has no code for.
pub fn add_caps(
    metadata: &mut StreamMetadata,
    info: &gst_video::VideoInfo,
    stream: &nnv_bitstream::StreamInfo,
) {
    let mut add = |key: &str, value: &str| {
        // These are short, and come first.
        let added = metadata.push(StreamItem::Caps(Text::new(key, value)));
        debug_assert!(added.is_ok(), "{key}={value}");
    };
    let colorimetry = info.colorimetry();
    let stays = super::colorimetry(&stream.colorimetry).is_none_or(|c| c == colorimetry);
    if !stays {
        add(COLORIMETRY, &colorimetry.to_string());
    }
    let site = info.chroma_site();
    if site != gst_video::VideoChromaSite::empty()
        && super::chroma_site(&stream.colorimetry) != Some(site)
    {
        add(CHROMA_SITE, site.to_str().as_str());
    }
    let (mode, flags) = (info.multiview_mode(), info.multiview_flags());
    // Sources say "mono" of ordinary video; without a word it is just that.
    let ordinary = [
        gst_video::VideoMultiviewMode::None,
        gst_video::VideoMultiviewMode::Mono,
    ];
    if let Ok(caps) = info.to_caps()
        && let Some(s) = caps.structure(0)
        && (!ordinary.contains(&mode) || !flags.is_empty())
        && let Ok(mode) = s.get::<&str>(MULTIVIEW_MODE)
    {
        add(MULTIVIEW_MODE, mode);
        if !flags.is_empty() {
            add(MULTIVIEW_FLAGS, &flags.bits().to_string());
        }
    }
}

/// Puts into caps what stream metadata says about them.
pub fn restore_caps(metadata: &StreamMetadata, caps: &mut gst::CapsRef) {
    let text = |name: &str| {
        metadata.items().iter().find_map(|item| match item {
            StreamItem::Caps(text) if text.key == name => Some(text.value.as_str()),
            _ => None,
        })
    };
    // What GStreamer does not know does not go into caps.
    if let Some(colorimetry) = text(COLORIMETRY)
        && colorimetry.parse::<gst_video::VideoColorimetry>().is_ok()
    {
        caps.set(COLORIMETRY, colorimetry);
    }
    if let Some(site) = text(CHROMA_SITE)
        && site.parse::<gst_video::VideoChromaSite>().is_ok()
    {
        caps.set(CHROMA_SITE, site);
    }
    let flags = text(MULTIVIEW_FLAGS).and_then(|flags| flags.parse().ok());
    let flags = gst_video::VideoMultiviewFlags::from_bits_truncate(flags.unwrap_or(0));
    if let Some(mode) = text(MULTIVIEW_MODE).and_then(multiview_mode)
        && let Ok(info) = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 16, 16)
            .multiview_mode(mode)
            .multiview_flags(flags)
            .build()
        && let Ok(from) = info.to_caps()
        && let Some(from) = from.structure(0)
    {
        for name in [MULTIVIEW_MODE, MULTIVIEW_FLAGS] {
            if let Ok(value) = from.value(name) {
                caps.set_value(name, value.clone());
            }
        }
        // Those caps put half an aspect into that of pixels, which are not copied.
        let text = format!(
            "x, {MULTIVIEW_FLAGS}=(GstVideoMultiviewFlagsSet){:x}:ffffffff",
            flags.bits()
        );
        if let Ok(exact) = text.parse::<gst::Structure>()
            && let Ok(value) = exact.value(MULTIVIEW_FLAGS)
        {
            caps.set_value(MULTIVIEW_FLAGS, value.clone());
        }
    }
}

/// A multiview mode by its name in caps.
fn multiview_mode(name: &str) -> Option<gst_video::VideoMultiviewMode> {
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", 16)
        .field("height", 16)
        .field(MULTIVIEW_MODE, name)
        .build();
    let mode = gst_video::VideoInfo::from_caps(&caps)
        .ok()?
        .multiview_mode();
    (mode != gst_video::VideoMultiviewMode::None).then_some(mode)
}

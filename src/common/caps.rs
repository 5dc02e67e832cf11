// SPDX-License-Identifier: MPL-2.0
//! Caps and what the codec makes of them.

use gst::prelude::*;
use nnv_bitstream::level::PROFILE;
use nnv_bitstream::limits::MAX_SIDE;
use nnv_bitstream::{
    ChromaFormat, Colorimetry, ContentLight, Level, MasteringDisplay, StreamInfo, VideoRange,
};
use nnv_format::picture::RawFormat;

/// Media type of the streams.
pub const MEDIA_TYPE: &str = "video/x-nnv";

/// Raw formats, those with colour first, planar before others.
const RAW_FORMATS: [gst_video::VideoFormat; 6] = [
    gst_video::VideoFormat::I420,
    gst_video::VideoFormat::Nv12,
    gst_video::VideoFormat::I42010le,
    gst_video::VideoFormat::P01010le,
    gst_video::VideoFormat::Gray8,
    gst_video::VideoFormat::Gray16Le,
];

/// Formats that a stream can be shown in, best first: of its depth, and grey where it is. Pictures
/// with colour never become grey without a word.
pub fn output_formats(stream: &StreamInfo) -> Vec<gst_video::VideoFormat> {
    let mut formats = RAW_FORMATS.to_vec();
    if stream.chroma_format != ChromaFormat::Grey {
        formats.retain(|format| raw_format(*format).is_some_and(|raw| !raw.is_grey()));
    }
    let rank = |format: &gst_video::VideoFormat| {
        let raw = raw_format(*format);
        let deep = raw.is_some_and(|raw| raw.bit_depth() == stream.bit_depth);
        (!deep, !raw.is_some_and(RawFormat::is_grey))
    };
    // Stable: planar stays before others.
    formats.sort_by_key(rank);
    formats
}

/// The same caps with `format` as the first field. videoconvert takes fields out of caps while it
/// holds a pointer to that one: where others stand before it, it weighs no formats, and takes the
/// first of the list, 8 bits of a source with more.
pub fn format_first(caps: &gst::CapsRef) -> gst::Caps {
    let mut out = gst::Caps::new_empty();
    let list = out.make_mut();
    for (structure, features) in caps.iter_with_features() {
        let mut first = gst::Structure::new_empty(structure.name());
        let (format, rest): (Vec<_>, Vec<_>) =
            structure.iter().partition(|(name, _)| *name == "format");
        for (name, value) in format.into_iter().chain(rest) {
            first.set_value(name, value.clone());
        }
        list.append_structure_full(first, Some(features.to_owned()));
    }
    out
}

/// Whether caps are of raw video in one format that is none of the codec's.
pub fn is_foreign_raw(caps: &gst::CapsRef) -> bool {
    caps.is_fixed()
        && caps
            .features(0)
            .is_some_and(|f| f.is_empty() || f.contains("memory:SystemMemory"))
        && gst_video::VideoInfo::from_caps(caps).is_ok_and(|info| {
            let known = [
                gst_video::VideoFormat::Unknown,
                gst_video::VideoFormat::Encoded,
            ];
            !known.contains(&info.format()) && raw_format(info.format()).is_none()
        })
}

/// The codec's name of a raw format.
pub fn raw_format(format: gst_video::VideoFormat) -> Option<RawFormat> {
    Some(match format {
        gst_video::VideoFormat::I420 => RawFormat::I420,
        gst_video::VideoFormat::Nv12 => RawFormat::Nv12,
        gst_video::VideoFormat::I42010le => RawFormat::I42010Le,
        gst_video::VideoFormat::P01010le => RawFormat::P01010Le,
        gst_video::VideoFormat::Gray8 => RawFormat::Gray8,
        gst_video::VideoFormat::Gray16Le => RawFormat::Gray16Le,
        _ => return None,
    })
}

/// Template caps of raw video on either side of the codec.
pub fn raw_caps() -> gst::Caps {
    gst_video::VideoCapsBuilder::new()
        .format_list(RAW_FORMATS)
        .width_range(1..=MAX_SIDE as i32)
        .height_range(1..=MAX_SIDE as i32)
        .build()
}

/// Template caps of streams that are cut into access units.
pub fn parsed_caps() -> gst::Caps {
    gst::Caps::builder(MEDIA_TYPE)
        .field("stream-format", "byte-stream")
        .field("alignment", "au")
        .field("parsed", true)
        .build()
}

/// `streamheader` of the caps.
fn stream_header(header: &[u8]) -> gst::Array {
    let mut buffer = gst::Buffer::from_slice(header.to_vec());
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_flags(gst::BufferFlags::HEADER);
    }
    gst::Array::new([buffer])
}

/// The bytes of `streamheader` in caps; empty where there is none.
pub fn stream_header_of(caps: &gst::StructureRef) -> Vec<u8> {
    let mut header = Vec::new();
    if let Ok(array) = caps.get::<gst::ArrayRef>("streamheader") {
        for value in array.as_slice() {
            if let Ok(buffer) = value.get::<gst::Buffer>()
                && let Ok(map) = buffer.map_readable()
            {
                header.extend_from_slice(&map);
            }
        }
    }
    header
}

/// Size of the shown pictures: what the stream codes, less what it says to cut off.
pub fn shown_size(info: &StreamInfo) -> (u32, u32) {
    let crop = &info.crop;
    // Sequence headers with larger crops are refused.
    (
        info.width.saturating_sub(crop.left + crop.right),
        info.height.saturating_sub(crop.top + crop.bottom),
    )
}

/// A fraction as caps hold it. They hold signed numbers; what does not fit is not a rate or an
/// aspect that exists.
pub fn fraction((n, d): (u32, u32)) -> Option<gst::Fraction> {
    Some(gst::Fraction::new(
        i32::try_from(n).ok()?,
        i32::try_from(d).ok().filter(|d| *d > 0)?,
    ))
}

/// The level that a stream's caps state: its own, or the next one that `pad`'s peer asks for, as
/// all that a level allows is allowed by those above it.
///
/// # Errors
/// A sentence where the peer asks for lower ones alone.
pub fn accepted_level(pad: &gst::Pad, own: Level) -> Result<Level, String> {
    // Not `allowed_caps`: the caps in force, which a new level replaces, would limit them. Whatever
    // else is refused is not for this to tell.
    let allowed = pad.peer_query_caps(Some(&pad.pad_template_caps()));
    let takes = |level: &Level| {
        let caps = gst::Caps::builder(MEDIA_TYPE).field("level", level.to_string());
        allowed.can_intersect(&caps.build())
    };
    let taken: Vec<_> = Level::all().filter(takes).collect();
    match (taken.iter().find(|level| **level >= own), taken.last()) {
        (Some(level), _) => Ok(*level),
        (None, Some(most)) => Err(format!(
            "the stream is of level {own}, what follows takes level {most} at most: make the \
             pictures or the frame rate smaller, or take the level out of the caps"
        )),
        (None, None) => Ok(own),
    }
}

/// Caps of a stream: everything that its sequence header says and caps have a field for.
pub fn stream_caps(info: &StreamInfo, level: Level, header: &[u8]) -> gst::Caps {
    let (width, height) = shown_size(info);
    let mut builder = gst::Caps::builder(MEDIA_TYPE)
        .field("stream-format", "byte-stream")
        .field("alignment", "au")
        .field("parsed", true)
        .field("width", width as i32)
        .field("height", height as i32)
        .field(
            "framerate",
            info.frame_rate
                .and_then(fraction)
                .unwrap_or(gst::Fraction::new(0, 1)),
        )
        .field(
            "pixel-aspect-ratio",
            fraction(info.pixel_aspect).unwrap_or(gst::Fraction::new(1, 1)),
        )
        .field(
            "chroma-format",
            match info.chroma_format {
                ChromaFormat::Yuv420 => "4:2:0",
                ChromaFormat::Grey => "4:0:0",
            },
        )
        .field("bit-depth-luma", u32::from(info.bit_depth))
        .field("bit-depth-chroma", u32::from(info.bit_depth))
        .field("profile", PROFILE)
        .field("level", level.to_string())
        .field("streamheader", stream_header(header));
    if let Some(colorimetry) = colorimetry(&info.colorimetry) {
        builder = builder.field("colorimetry", colorimetry.to_string());
    }
    if let Some(site) = chroma_site(&info.colorimetry) {
        builder = builder.field("chroma-site", site.to_str());
    }
    let mut caps = builder.build();
    add_hdr(info, caps.make_mut());
    caps
}

/// GStreamer's view of H.273 code points; `None` where nothing is specified.
pub fn colorimetry(c: &Colorimetry) -> Option<gst_video::VideoColorimetry> {
    if (c.primaries, c.transfer, c.matrix, c.range) == (2, 2, 2, VideoRange::Unspecified) {
        return None;
    }
    Some(gst_video::VideoColorimetry::new(
        match c.range {
            VideoRange::Full => gst_video::VideoColorRange::Range0_255,
            VideoRange::Limited => gst_video::VideoColorRange::Range16_235,
            VideoRange::Unspecified => gst_video::VideoColorRange::Unknown,
        },
        gst_video::VideoColorMatrix::from_iso(u32::from(c.matrix)),
        gst_video::VideoTransferFunction::from_iso(u32::from(c.transfer)),
        gst_video::VideoColorPrimaries::from_iso(u32::from(c.primaries)),
    ))
}

/// What the stream says, completed by caps where it says nothing.
pub fn completed(
    said: &gst_video::VideoColorimetry,
    caps: &gst_video::VideoColorimetry,
) -> gst_video::VideoColorimetry {
    use gst_video::{VideoColorPrimaries, VideoTransferFunction};
    let transfer = match said.transfer() {
        VideoTransferFunction::Unknown => caps.transfer(),
        transfer => transfer,
    };
    let primaries = match said.primaries() {
        VideoColorPrimaries::Unknown => caps.primaries(),
        primaries => primaries,
    };
    gst_video::VideoColorimetry::new(said.range(), said.matrix(), transfer, primaries)
}

/// Chroma sample locations of H.273 by number, 0 first; GStreamer has no names for the last two.
const CHROMA_SITES: [gst_video::VideoChromaSite; 4] = [
    gst_video::VideoChromaSite::MPEG2,
    gst_video::VideoChromaSite::JPEG,
    gst_video::VideoChromaSite::COSITED,
    gst_video::VideoChromaSite::V_COSITED,
];

/// GStreamer's view of the chroma location; `None` where it is not specified.
pub fn chroma_site(c: &Colorimetry) -> Option<gst_video::VideoChromaSite> {
    CHROMA_SITES.get(usize::from(c.chroma_site?)).copied()
}

/// Adds the HDR fields to caps.
pub fn add_hdr(info: &StreamInfo, caps: &mut gst::CapsRef) {
    type Coordinate = gst_video::VideoMasteringDisplayInfoCoordinate;
    if let Some(m) = info.mastering_display {
        // The binding cuts off what the division leaves behind the point.
        let share = |v: u16| (f32::from(v) + 0.5) / 50_000.0;
        let point = |[x, y]: [u16; 2]| Coordinate::new(share(x), share(y));
        gst_video::VideoMasteringDisplayInfo::new(
            m.primaries.map(point),
            point(m.white_point),
            m.max_luminance,
            m.min_luminance,
        )
        .add_to_caps(caps);
    }
    if let Some(c) = info.content_light {
        gst_video::VideoContentLightLevel::new(c.max_content, c.max_frame_average)
            .add_to_caps(caps);
    }
}

/// A fraction of caps in the codec's words; `None` where it is zero or negative.
fn positive(f: gst::Fraction) -> Option<(u32, u32)> {
    Some((
        u32::try_from(f.numer()).ok().filter(|n| *n > 0)?,
        u32::try_from(f.denom()).ok().filter(|n| *n > 0)?,
    ))
}

/// What raw caps say about the pictures, in the codec's words.
pub fn stream_info(info: &gst_video::VideoInfo, caps: Option<&gst::CapsRef>) -> StreamInfo {
    let c = info.colorimetry();
    let code = |iso: u32| u8::try_from(iso).unwrap_or(2);
    let colorimetry = Colorimetry {
        range: match c.range() {
            gst_video::VideoColorRange::Range0_255 => VideoRange::Full,
            gst_video::VideoColorRange::Range16_235 => VideoRange::Limited,
            _ => VideoRange::Unspecified,
        },
        chroma_site: CHROMA_SITES
            .iter()
            .position(|site| *site == info.chroma_site())
            .and_then(|site| u8::try_from(site).ok()),
        matrix: match c.matrix() {
            gst_video::VideoColorMatrix::Unknown => 2,
            matrix => code(matrix.to_iso()),
        },
        transfer: match c.transfer() {
            gst_video::VideoTransferFunction::Unknown => 2,
            transfer => code(transfer.to_iso()),
        },
        primaries: match c.primaries() {
            gst_video::VideoColorPrimaries::Unknown => 2,
            primaries => code(primaries.to_iso()),
        },
    };
    type Coordinate = gst_video::VideoMasteringDisplayInfoCoordinate;
    let point =
        |p: Coordinate| [p.x(), p.y()].map(|v| (v * 50_000.0).round().clamp(0.0, 65_535.0) as u16);
    let raw = raw_format(info.format());
    StreamInfo {
        chroma_format: match raw {
            Some(raw) if raw.is_grey() => ChromaFormat::Grey,
            _ => ChromaFormat::Yuv420,
        },
        // Of a variable rate GStreamer gives the greatest one (`max-framerate`) as the rate.
        frame_rate: positive(info.fps())
            .filter(|_| !info.flags().contains(gst_video::VideoFlags::VARIABLE_FPS)),
        pixel_aspect: positive(info.par()).unwrap_or((1, 1)),
        colorimetry,
        mastering_display: caps
            .and_then(|caps| gst_video::VideoMasteringDisplayInfo::from_caps(caps).ok())
            .map(|m| MasteringDisplay {
                primaries: m.display_primaries().map(point),
                white_point: point(m.white_point()),
                max_luminance: m.max_display_mastering_luminance(),
                min_luminance: m.min_display_mastering_luminance(),
            }),
        content_light: caps
            .and_then(|caps| gst_video::VideoContentLightLevel::from_caps(caps).ok())
            .map(|c| ContentLight {
                max_content: c.max_content_light_level(),
                max_frame_average: c.max_frame_average_light_level(),
            }),
        ..StreamInfo::new(
            info.width(),
            info.height(),
            raw.map_or(8, RawFormat::bit_depth),
        )
    }
}

/// Duration of a frame; where the rate is unknown, as of 25 frames per second.
pub fn frame_duration(rate: Option<(u32, u32)>) -> gst::ClockTime {
    rate.and_then(|(n, d)| gst::ClockTime::SECOND.mul_div_round(u64::from(d), u64::from(n.max(1))))
        .unwrap_or(gst::ClockTime::from_mseconds(40))
}

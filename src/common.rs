// SPDX-License-Identifier: MPL-2.0
//! What the elements share: the common properties, their enums, caps helpers and error posting.

use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use gst::glib;
use gst::prelude::*;

use crate::codec::bitstream::BundleHash;
use crate::codec::decoder::ModelProvider;
use crate::codec::encoder::StageTimes;
use crate::codec::error::CodecError;
use crate::codec::picture::{MAX_SIZE, RawFormat};
use crate::codec::stream_info::{
    Colorimetry, ContentLight, MasteringDisplay, StreamInfo, VideoRange,
};
use crate::nn::{self, Model, ModelSource, NnError, Provider, RuntimeOptions};

/// Name of the built-in bundle for the smallest squared error.
pub const DEFAULT_MODEL: &str = "realtime";
/// Name of the built-in bundle for the best structural similarity.
pub const VISUAL_MODEL: &str = "visual";

/// Where the networks run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNnvExecutionProvider")]
pub enum ExecutionProvider {
    /// The fastest that passes the known-answer test.
    #[default]
    #[enum_value(
        name = "Auto: the fastest provider that passes the known-answer test",
        nick = "auto"
    )]
    Auto,
    /// ONNX Runtime's CPU provider.
    #[enum_value(name = "CPU: int8 kernels of the processor", nick = "cpu")]
    Cpu,
    /// ONNX Runtime's CUDA provider.
    #[enum_value(name = "CUDA: NVIDIA GPU through cuDNN", nick = "cuda")]
    Cuda,
    /// ONNX Runtime's TensorRT provider.
    #[enum_value(name = "TensorRT: NVIDIA GPU through TensorRT", nick = "tensorrt")]
    TensorRt,
}

/// The properties that every element running a network has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommonSettings {
    /// Name of a bundle, `None`: what the stream asks for (decoder).
    pub model: Option<String>,
    /// Folder of a bundle that does not ship with the plugin.
    pub model_path: Option<PathBuf>,
    pub provider: ExecutionProvider,
    pub device_id: u32,
    /// 0: as many as there are cores.
    pub threads: u32,
}

impl CommonSettings {
    pub fn new(model: Option<&str>) -> Self {
        Self {
            model: model.map(Into::into),
            model_path: None,
            provider: ExecutionProvider::default(),
            device_id: 0,
            threads: 0,
        }
    }

    /// Sets a common property; `false` where `pspec` is not one.
    pub fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) -> bool {
        // The type system has checked the type of `value` against `pspec`.
        match pspec.name() {
            "model" => {
                self.model = value
                    .get::<Option<String>>()
                    .expect("type checked upstream")
                    .filter(|name| !name.is_empty());
            }
            "model-path" => {
                self.model_path = value
                    .get::<Option<String>>()
                    .expect("type checked upstream")
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from);
            }
            "execution-provider" => {
                self.provider = value.get().expect("type checked upstream");
            }
            "device-id" => self.device_id = value.get().expect("type checked upstream"),
            "threads" => self.threads = value.get().expect("type checked upstream"),
            _ => return false,
        }
        true
    }

    /// Value of a common property; `None` where `pspec` is not one (or is computed by the element).
    pub fn get(&self, pspec: &glib::ParamSpec) -> Option<glib::Value> {
        Some(match pspec.name() {
            "model" => self.model.to_value(),
            "model-path" => self
                .model_path
                .as_ref()
                .map(|p| p.to_string_lossy().into_owned())
                .to_value(),
            "execution-provider" => self.provider.to_value(),
            "device-id" => self.device_id.to_value(),
            "threads" => self.threads.to_value(),
            _ => return None,
        })
    }
}

impl CommonSettings {
    /// How networks shall run.
    pub fn runtime_options(&self) -> RuntimeOptions {
        RuntimeOptions {
            provider: match self.provider {
                ExecutionProvider::Auto => None,
                ExecutionProvider::Cpu => Some(Provider::Cpu),
                ExecutionProvider::Cuda => Some(Provider::Cuda),
                ExecutionProvider::TensorRt => Some(Provider::TensorRt),
            },
            device_id: i32::try_from(self.device_id).unwrap_or(i32::MAX),
            threads: self.threads as usize,
            ..RuntimeOptions::default()
        }
    }

    /// The bundle to use where the user names one.
    pub fn source(&self) -> Option<ModelSource> {
        match (&self.model_path, &self.model) {
            (Some(path), _) => Some(ModelSource::Folder(path.clone())),
            (None, Some(name)) => Some(ModelSource::Embedded(name.clone())),
            (None, None) => None,
        }
    }
}

/// Finds models for a decoder: the one the user names, or the built-in one that the stream asks for.
pub struct StreamModels(pub CommonSettings);

impl ModelProvider for StreamModels {
    fn model(
        &mut self,
        name: &str,
        hash: &BundleHash,
    ) -> Result<std::sync::Arc<Model>, CodecError> {
        let wrong = |what: String| CodecError::Model {
            name: name.into(),
            hash: nn::hex(hash),
            what,
        };
        let named = self.0.source();
        let source = match &named {
            Some(source) => source.clone(),
            None => {
                let built_in = nn::embedded();
                match built_in.iter().find(|b| b.hash.starts_with(hash)) {
                    Some(bundle) => ModelSource::Embedded(bundle.name.into()),
                    None if built_in.iter().any(|b| b.name == name) => {
                        return Err(wrong(
                            "the model of that name in this plugin is another one; install the \
                             version of the plugin that made the stream, or give the bundle's \
                             folder with model-path"
                                .into(),
                        ));
                    }
                    None => {
                        let known: Vec<_> = built_in.iter().map(|b| b.name).collect();
                        return Err(wrong(format!(
                            "it is not built into this plugin (built in: {}); give its folder \
                             with model-path",
                            if known.is_empty() {
                                "none".into()
                            } else {
                                known.join(", ")
                            }
                        )));
                    }
                }
            }
        };
        let model = Model::load(&source, &self.0.runtime_options())?;
        if !model.hash().starts_with(hash) {
            let has = nn::hex(&model.hash()[..hash.len()]);
            return Err(wrong(format!(
                "{} holds a model with hash {has}; name the right one with model or model-path, \
                 or unset both to use what the stream asks for",
                source.label()
            )));
        }
        Ok(model)
    }
}

/// Specifications of the common properties. `model` is the default of the property of that name,
/// `stats` lists the fields of the structure.
pub fn properties(model: Option<&str>, model_blurb: &str, stats: &str) -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecString::builder("model")
            .nick("Model")
            .blurb(model_blurb)
            .default_value(model)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("model-path")
            .nick("Model path")
            .blurb(
                "Folder of a bundle (bundle.toml and its files) to use instead of the built-in \
                 ones (unset: built-in)",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder::<ExecutionProvider>("execution-provider")
            .nick("Execution provider")
            .blurb(
                "Where the networks run; anything but auto that cannot run or fails the \
                 known-answer test is an error, never a fallback",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("device-id")
            .nick("Device")
            .blurb("Index of the GPU for cuda and tensorrt, 0 is the first")
            .maximum(255)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("threads")
            .nick("Threads")
            .blurb("Number of CPU threads (0: as many as there are cores)")
            .maximum(256)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("active-execution-provider")
            .nick("Active execution provider")
            .blurb("Provider that runs the networks now (unset: none is running)")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(stats)
            .read_only()
            .build(),
    ]
}

/// Media type of the streams.
pub const MEDIA_TYPE: &str = "video/x-nnv";

/// Raw formats, best first.
pub const RAW_FORMATS: [gst_video::VideoFormat; 4] = [
    gst_video::VideoFormat::I420,
    gst_video::VideoFormat::Nv12,
    gst_video::VideoFormat::I42010le,
    gst_video::VideoFormat::P01010le,
];

/// The codec's name of a raw format.
pub fn raw_format(format: gst_video::VideoFormat) -> Option<RawFormat> {
    Some(match format {
        gst_video::VideoFormat::I420 => RawFormat::I420,
        gst_video::VideoFormat::Nv12 => RawFormat::Nv12,
        gst_video::VideoFormat::I42010le => RawFormat::I42010Le,
        gst_video::VideoFormat::P01010le => RawFormat::P01010Le,
        _ => return None,
    })
}

/// Template caps of raw video on either side of the codec.
pub fn raw_caps() -> gst::Caps {
    gst_video::VideoCapsBuilder::new()
        .format_list(RAW_FORMATS)
        .width_range(1..=MAX_SIZE as i32)
        .height_range(1..=MAX_SIZE as i32)
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

/// Caps of a stream: everything that its sequence header says and caps have a field for.
pub fn stream_caps(info: &StreamInfo, header: &[u8]) -> gst::Caps {
    let fraction = |(n, d): (u32, u32)| {
        // Caps hold signed numbers; what does not fit is not a rate or an aspect that exists.
        Some(gst::Fraction::new(
            i32::try_from(n).ok()?,
            i32::try_from(d).ok().filter(|d| *d > 0)?,
        ))
    };
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
        .field("chroma-format", "4:2:0")
        .field("bit-depth-luma", u32::from(info.bit_depth))
        .field("bit-depth-chroma", u32::from(info.bit_depth))
        .field(
            "profile",
            if info.bit_depth > 8 {
                "main-10"
            } else {
                "main"
            },
        )
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
        let point =
            |[x, y]: [u16; 2]| Coordinate::new(f32::from(x) / 50_000.0, f32::from(y) / 50_000.0);
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

/// What raw caps say about the pictures, in the codec's words.
pub fn stream_info(info: &gst_video::VideoInfo, caps: Option<&gst::CapsRef>) -> StreamInfo {
    let fraction = |f: gst::Fraction| {
        Some((
            u32::try_from(f.numer()).ok().filter(|n| *n > 0)?,
            u32::try_from(f.denom()).ok().filter(|n| *n > 0)?,
        ))
    };
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
    StreamInfo {
        frame_rate: fraction(info.fps()),
        pixel_aspect: fraction(info.par()).unwrap_or((1, 1)),
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
            info.comp_depth(0).try_into().unwrap_or(8),
        )
    }
}

/// Duration of a frame; where the rate is unknown, as of 25 frames per second.
pub fn frame_duration(rate: Option<(u32, u32)>) -> gst::ClockTime {
    rate.and_then(|(n, d)| gst::ClockTime::SECOND.mul_div_round(u64::from(d), u64::from(n.max(1))))
        .unwrap_or(gst::ClockTime::from_mseconds(40))
}

/// Adds the time per frame of each stage, in ms, to a structure of statistics.
pub fn add_times(stats: &mut gst::StructureRef, times: &StageTimes, frames: u64) {
    for (name, time) in [
        ("filter-ms", times.filter),
        ("search-ms", times.search),
        ("predict-ms", times.predict),
        ("pack-ms", times.pack),
        ("analyse-ms", times.analyse),
        ("prior-ms", times.prior),
        ("entropy-ms", times.entropy),
        ("synth-ms", times.synth),
        ("quantise-ms", times.quantise),
    ] {
        stats.set(name, time.as_secs_f64() * 1e3 / frames.max(1) as f64);
    }
}

/// Locks a mutex. A panic while it was held has already become an element error: the data is as good as it was.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an error becomes on the bus. `coding` is the error of the stream itself.
pub fn error_message(error: &CodecError, coding: gst::StreamError) -> gst::ErrorMessage {
    let text = error.to_string();
    match error {
        CodecError::Nn(NnError::Runtime { .. }) => {
            gst::error_msg!(gst::LibraryError::Init, ("{text}"))
        }
        CodecError::Nn(NnError::UnknownModel { .. }) | CodecError::Model { .. } => {
            gst::error_msg!(gst::ResourceError::NotFound, ("{text}"))
        }
        CodecError::Nn(NnError::Bundle { .. }) => {
            gst::error_msg!(gst::ResourceError::OpenRead, ("{text}"))
        }
        CodecError::Nn(NnError::Provider { .. } | NnError::KnownAnswer { .. }) => {
            gst::error_msg!(gst::LibraryError::Settings, ("{text}"))
        }
        CodecError::Config(_) => gst::error_msg!(gst::LibraryError::Settings, ("{text}")),
        _ => match coding {
            gst::StreamError::Encode => gst::error_msg!(gst::StreamError::Encode, ("{text}")),
            gst::StreamError::Failed => gst::error_msg!(gst::StreamError::Failed, ("{text}")),
            _ => gst::error_msg!(gst::StreamError::Decode, ("{text}")),
        },
    }
}

static RUNTIME_CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnv-onnxruntime",
        gst::DebugColorFlags::empty(),
        Some("Messages of ONNX Runtime"),
    )
});

/// Sends ONNX Runtime's messages to GStreamer's debug log.
pub fn log_runtime() {
    nn::set_log_sink(|error, message| {
        if error {
            gst::error!(RUNTIME_CAT, "{message}");
        } else {
            gst::warning!(RUNTIME_CAT, "{message}");
        }
    });
}

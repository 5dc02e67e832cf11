// SPDX-License-Identifier: MPL-2.0

use std::sync::{LazyLock, Mutex};

use gst::glib;
use gst::subclass::prelude::*;
use gst_base::subclass::prelude::*;

use crate::common::{self, lock};
use crate::quantizer::{self, Quantizers};
use nnv_h264::{BlockQuantizers, Effective, Reader};
use nnv_sr::Codec;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnqp",
        gst::DebugColorFlags::empty(),
        Some("Quantizers of coded video"),
    )
});

#[derive(Default)]
pub struct NnQp {
    /// `None` before caps have come.
    reader: Mutex<Option<(Reader, Effective)>>,
}

#[glib::object_subclass]
impl ObjectSubclass for NnQp {
    const NAME: &'static str = "GstNnQp";
    type Type = super::NnQp;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for NnQp {}

impl GstObjectImpl for NnQp {}

impl ElementImpl for NnQp {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "Quantizer notes",
                "Filter/Analyzer/Video",
                "Notes the quantizers of each picture of H.264 video and of its macroblocks in \
                 front of the decoder; nnsr tells from them how good the decoded picture is",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst::Caps::builder("video/x-h264")
                .field(
                    "stream-format",
                    gst::List::new(["byte-stream", "avc", "avc3"]),
                )
                .field("alignment", "au")
                .build();
            common::templates(&caps, &caps)
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for NnQp {
    const MODE: gst_base::subclass::BaseTransformMode =
        gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.reader) = None;
        Ok(())
    }

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let structure = incaps
            .structure(0)
            .ok_or_else(|| gst::loggable_error!(CAT, "Caps without structure"))?;
        let reader = match structure.get::<gst::Buffer>("codec_data") {
            Ok(data) => {
                let data = data
                    .map_readable()
                    .map_err(|_| gst::loggable_error!(CAT, "codec_data cannot be read"))?;
                Reader::packetized(&data)
            }
            Err(_) => Some(Reader::byte_stream()),
        };
        if reader.is_none() {
            // The decoder will say what is wrong with it.
            gst::warning!(CAT, imp = self, "codec_data is damaged: no quantizers");
        }
        *lock(&self.reader) = reader.map(|reader| (reader, Effective::default()));
        Ok(())
    }

    fn transform_ip(
        &self,
        buffer: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let found = {
            let mut reader = lock(&self.reader);
            let data = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
            reader.as_mut().and_then(|(reader, effective)| {
                let picture = reader.picture(&data)?;
                Some(Quantizers {
                    codec: Codec::H264,
                    slice: picture.quantizer,
                    blocks: picture.map.and_then(|map| effective.next(&map)),
                })
            })
        };
        match found {
            Some(found) => {
                let mean = found.blocks.as_ref().map(BlockQuantizers::mean);
                let (pts, slice) = (buffer.pts(), found.slice);
                gst::trace!(CAT, imp = self, "{pts:?}: slice {slice}, blocks {mean:?}");
                quantizer::note(buffer, found);
            }
            None => gst::debug!(CAT, imp = self, "{:?}: no quantizer", buffer.pts()),
        }
        Ok(gst::FlowSuccess::Ok)
    }
}

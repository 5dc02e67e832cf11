// SPDX-License-Identifier: MPL-2.0
//! What the encoder writes beside the pictures.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nnv_bitstream::{FrameMetadata, StreamInfo, StreamMetadata};

use crate::common::{lock, metadata};

/// Tags that came last, and whether the application knows that something is left out.
#[derive(Debug, Default)]
pub struct Metadata {
    tags: Mutex<Tags>,
    told: AtomicBool,
}

#[derive(Debug, Default)]
struct Tags {
    stream: Option<gst::TagList>,
    global: Option<gst::TagList>,
    /// The encoder has not heard of these.
    new: bool,
}

impl Metadata {
    /// As at the start of a stream.
    pub fn reset(&self) {
        *lock(&self.tags) = Tags::default();
        self.told.store(false, Ordering::Release);
    }

    /// Looks at an event from upstream.
    pub fn event(&self, event: &gst::EventRef) {
        let mut tags = lock(&self.tags);
        match event.view() {
            gst::EventView::StreamStart(_) => {
                tags.new |= tags.stream.take().is_some();
            }
            gst::EventView::Tag(event) => {
                let list = event.tag_owned();
                match list.scope() {
                    gst::TagScope::Global => tags.global = Some(list),
                    _ => tags.stream = Some(list),
                }
                tags.new = true;
            }
            _ => {}
        }
    }

    /// What key frames are to say; `None` where nothing has changed since this was asked last.
    /// `format`: caps of the input, where they are new, and what the sequence header makes of them.
    pub fn of_stream(
        &self,
        format: (&gst_video::VideoInfo, &StreamInfo),
        new_format: bool,
    ) -> Option<(StreamMetadata, usize)> {
        let mut tags = lock(&self.tags);
        if !std::mem::take(&mut tags.new) && !new_format {
            return None;
        }
        let mode = gst::TagMergeMode::Keep;
        let list = match (&tags.stream, &tags.global) {
            (Some(stream), Some(global)) => stream.merge(global, mode),
            (Some(list), None) | (None, Some(list)) => list.clone(),
            (None, None) => gst::TagList::new(),
        };
        drop(tags);
        let mut stream = StreamMetadata::default();
        metadata::add_caps(&mut stream, format.0, format.1);
        let (texts, mut left_out) = metadata::of_tags(&list);
        for item in texts.items() {
            left_out += usize::from(stream.push(item.clone()).is_err());
        }
        Some((stream, left_out))
    }

    /// What rides along with a frame.
    pub fn of_frame(buffer: &gst::BufferRef) -> (FrameMetadata, usize) {
        metadata::of_buffer(buffer)
    }

    /// What to tell the application, once, where something is left out.
    pub fn tell(&self, left_out: usize, what: &str) -> Option<String> {
        (left_out > 0 && !self.told.swap(true, Ordering::AcqRel)).then(|| {
            format!(
                "{left_out} piece(s) of {what} are left out of the stream: they are longer than it \
                 can carry, or of a kind that it has no word for (docs/bitstream.md, section 10)"
            )
        })
    }
}

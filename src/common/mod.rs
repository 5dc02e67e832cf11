// SPDX-License-Identifier: MPL-2.0
//! What the elements share, each once.

mod caps;
mod element;
mod errors;
mod loss;
pub mod metadata;
mod models;
mod properties;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use gst::subclass::ElementMetadata;

pub use caps::*;
pub use element::{CodecElement, Shown, add_times};
pub use errors::error_message;
pub use loss::{Loss, RETRANSMISSION};
pub use models::{DEFAULT_MODEL, VISUAL_MODEL, stream_models};
pub use properties::{CommonSettings, properties};

/// Metadata of an element of this plugin.
pub fn metadata(name: &str, classification: &str, description: &str) -> ElementMetadata {
    ElementMetadata::new(name, classification, description, env!("CARGO_PKG_AUTHORS"))
}

/// Templates of an element with one pad on either side.
pub fn templates(sink: &gst::Caps, src: &gst::Caps) -> Vec<gst::PadTemplate> {
    [
        ("sink", gst::PadDirection::Sink, sink),
        ("src", gst::PadDirection::Src, src),
    ]
    .map(|(name, direction, caps)| {
        gst::PadTemplate::new(name, direction, gst::PadPresence::Always, caps)
            .expect("templates are valid")
    })
    .to_vec()
}

/// Puts other bytes into a buffer; its times and flags stay.
pub fn replace(buffer: &mut gst::BufferRef, data: Vec<u8>) {
    buffer.remove_all_memory();
    buffer.append_memory(gst::Memory::from_mut_slice(data));
}

/// Locks a mutex. A panic while it was held has already become an element error: the data is as
/// good as it was.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    nnv_nn::set_log_sink(|error, message| {
        if error {
            gst::error!(RUNTIME_CAT, "{message}");
        } else {
            gst::warning!(RUNTIME_CAT, "{message}");
        }
    });
}

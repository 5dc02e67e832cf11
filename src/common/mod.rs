// SPDX-License-Identifier: MPL-2.0
//! What the elements share, each once.

mod caps;
mod element;
mod errors;
mod loss;
pub mod metadata;
mod models;
pub mod overlay;
mod properties;

use std::ops::{Deref, DerefMut};
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

/// What a mutex held, taken out to work with it, and put back when this is dropped.
///
/// Work may post messages and ask peers, and who handles them at once may ask the element, in the
/// same thread: a lock that is held meanwhile would never be had. All work with what is taken must
/// be of the streaming thread; others find nothing there.
pub struct Taken<'a, T> {
    from: &'a Mutex<Option<T>>,
    /// Always something, but while this is dropped.
    value: Option<T>,
}

impl<'a, T> Taken<'a, T> {
    /// Takes what is there.
    pub fn out_of(from: &'a Mutex<Option<T>>) -> Option<Self> {
        let value = lock(from).take()?;
        Some(Self {
            from,
            value: Some(value),
        })
    }
}

/// What was taken is there for as long as `self` is.
const GONE: &str = "only a drop takes it away";

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect(GONE)
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect(GONE)
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        let mut place = lock(self.from);
        // What was put there meanwhile is newer.
        if place.is_none() {
            *place = self.value.take();
        }
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
    nnv_nn::set_log_sink(|error, message| {
        if error {
            gst::error!(RUNTIME_CAT, "{message}");
        } else {
            gst::warning!(RUNTIME_CAT, "{message}");
        }
    });
}

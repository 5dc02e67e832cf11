// SPDX-License-Identifier: MPL-2.0
//! Which bundle an element takes.

use nnv_codec::decode::{Host, StreamModels};

use super::properties::CommonSettings;

/// Name of the built-in bundle for the smallest squared error.
pub const DEFAULT_MODEL: &str = "realtime";
/// Name of the built-in bundle for the best structural similarity.
pub const VISUAL_MODEL: &str = "visual";

/// Finds models for a decoder: the one the user names, or the built-in one that the stream asks
/// for.
pub fn stream_models(settings: &CommonSettings) -> StreamModels {
    StreamModels {
        named: settings.source(),
        options: settings.runtime_options(),
        host: Host {
            name: "plugin",
            give: "model-path",
        },
    }
}

// SPDX-License-Identifier: MPL-2.0
//! Bundles by name, folder or hash.

use std::path::Path;

use nnv_codec::decode::{Host, StreamModels};
use nnv_nn::{ModelSource, RuntimeOptions};

/// A folder where there is one of that name, a built-in bundle else.
pub fn source(name: &str) -> ModelSource {
    if Path::new(name).is_dir() {
        ModelSource::Folder(name.into())
    } else {
        ModelSource::Embedded(name.into())
    }
}

/// Finds models for a decoder: the one the user names, or the built-in one that the stream asks
/// for.
pub fn of_stream(named: Option<ModelSource>, options: RuntimeOptions) -> StreamModels {
    StreamModels {
        named,
        options,
        host: Host {
            name: "program",
            give: "--model",
        },
    }
}

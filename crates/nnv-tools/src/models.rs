// SPDX-License-Identifier: MPL-2.0
//! Bundles by name, folder or hash.

use std::path::Path;
use std::sync::Arc;

use nnv_bitstream::BundleHash;
use nnv_codec::decode::ModelProvider;
use nnv_codec::error::CodecError;
use nnv_nn::{Model, ModelSource, RuntimeOptions};

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
pub struct StreamModels {
    /// What the user names.
    pub named: Option<ModelSource>,
    /// How to run it.
    pub options: RuntimeOptions,
}

impl ModelProvider for StreamModels {
    fn model(&mut self, name: &str, hash: &BundleHash) -> Result<Arc<Model>, CodecError> {
        let wrong = |what: String| CodecError::Model {
            name: name.into(),
            hash: nnv_nn::hex(hash),
            what,
        };
        let source = match &self.named {
            Some(source) => source.clone(),
            None => nnv_nn::embedded()
                .iter()
                .find(|bundle| bundle.hash.starts_with(hash))
                .map(|bundle| ModelSource::Embedded(bundle.name.into()))
                .ok_or_else(|| {
                    wrong("it is not built into this program; give its folder with --model".into())
                })?,
        };
        let model = Model::load(&source, &self.options)?;
        if !model.hash().starts_with(hash) {
            let has = nnv_nn::hex(&model.hash()[..hash.len()]);
            let what = format!("{} holds a model with hash {has}", source.label());
            return Err(wrong(what));
        }
        Ok(model)
    }
}

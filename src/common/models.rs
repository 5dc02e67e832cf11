// SPDX-License-Identifier: MPL-2.0
//! Which bundle an element takes.

use nnv_bitstream::BundleHash;
use nnv_codec::decode::ModelProvider;
use nnv_codec::error::CodecError;
use nnv_nn::{Model, ModelSource};

use super::properties::CommonSettings;

/// Name of the built-in bundle for the smallest squared error.
pub const DEFAULT_MODEL: &str = "realtime";
/// Name of the built-in bundle for the best structural similarity.
pub const VISUAL_MODEL: &str = "visual";

/// Finds models for a decoder: the one the user names, or the built-in one that the stream asks
/// for.
pub struct StreamModels(pub CommonSettings);

impl ModelProvider for StreamModels {
    fn model(
        &mut self,
        name: &str,
        hash: &BundleHash,
    ) -> Result<std::sync::Arc<Model>, CodecError> {
        let wrong = |what: String| CodecError::Model {
            name: name.into(),
            hash: nnv_nn::hex(hash),
            what,
        };
        let named = self.0.source();
        let source = match &named {
            Some(source) => source.clone(),
            None => {
                let built_in = nnv_nn::embedded();
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
            let has = nnv_nn::hex(&model.hash()[..hash.len()]);
            return Err(wrong(format!(
                "{} holds a model with hash {has}; name the right one with model or model-path, \
                 or unset both to use what the stream asks for",
                source.label()
            )));
        }
        Ok(model)
    }
}

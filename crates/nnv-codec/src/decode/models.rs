// SPDX-License-Identifier: MPL-2.0
//! The bundle that a stream names by its hash.

use std::sync::Arc;

use nnv_bitstream::BundleHash;
use nnv_nn::{EmbeddedInfo, Model, ModelSource, RuntimeOptions, embedded, hex};

use super::ModelProvider;
use crate::error::{CodecError, Result};

/// How messages speak of what the decoder is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// What bundles are built into: "plugin".
    pub name: &'static str,
    /// By what its users name another bundle: "model-path".
    pub give: &'static str,
}

/// Finds models for a decoder: the one that its user names, or the built-in one that the stream
/// asks for.
#[derive(Debug, Clone)]
pub struct StreamModels {
    /// What the user names.
    pub named: Option<ModelSource>,
    /// How to run it.
    pub options: RuntimeOptions,
    /// For messages.
    pub host: Host,
}

/// The built-in bundle whose hash begins so.
pub fn built_in(hash: &BundleHash) -> Option<EmbeddedInfo> {
    embedded().into_iter().find(|b| b.hash.starts_with(hash))
}

impl StreamModels {
    /// Where to load the model from, or why there is none.
    fn source(&self, name: &str, hash: &BundleHash) -> std::result::Result<ModelSource, String> {
        if let Some(source) = &self.named {
            return Ok(source.clone());
        }
        if let Some(bundle) = built_in(hash) {
            return Ok(ModelSource::Embedded(bundle.name.into()));
        }
        let Host { name: host, give } = self.host;
        let known: Vec<_> = embedded().iter().map(|b| b.name).collect();
        if known.contains(&name) {
            return Err(format!(
                "the model of that name in this {host} is another one; install the version of the \
                 {host} that made the stream, or give the bundle's folder with {give}"
            ));
        }
        let known = match known.is_empty() {
            true => "none".into(),
            false => known.join(", "),
        };
        Err(format!(
            "it is not built into this {host} (built in: {known}); give its folder with {give}"
        ))
    }
}

impl ModelProvider for StreamModels {
    fn model(&mut self, name: &str, hash: &BundleHash) -> Result<Arc<Model>> {
        let wrong = |what: String| CodecError::Model {
            name: name.into(),
            hash: hex(hash),
            what,
        };
        let source = self.source(name, hash).map_err(wrong)?;
        let model = Model::load(&source, &self.options)?;
        if !model.hash().starts_with(hash) {
            let has = hex(&model.hash()[..hash.len()]);
            return Err(wrong(format!(
                "{} holds a model with hash {has}; name the right one with {}, or name none to use \
                 what the stream asks for",
                source.label(),
                self.host.give
            )));
        }
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_found_by_hash_and_messages_say_what_to_do() {
        let host = Host {
            name: "program",
            give: "--model",
        };
        let options = RuntimeOptions {
            threads: 1,
            ..RuntimeOptions::default()
        };
        let mut models = StreamModels {
            named: None,
            options,
            host,
        };
        let bundle = &embedded()[0];
        let mut hash = BundleHash::default();
        let len = hash.len();
        hash.copy_from_slice(&bundle.hash[..len]);
        // The name does not count.
        assert_eq!(models.model("other", &hash).unwrap().name(), bundle.name);
        hash[0] ^= 1;
        let mut why = |name| models.model(name, &hash).unwrap_err().to_string();
        assert!(why(bundle.name).contains("in this program is another one"));
        let other = why("other");
        assert!(
            other.contains(bundle.name) && other.contains("with --model"),
            "{other}"
        );
        models.named = Some(ModelSource::Embedded(bundle.name.into()));
        let wrong = models.model("other", &hash).unwrap_err().to_string();
        assert!(wrong.contains("name the right one with --model"), "{wrong}");
    }
}

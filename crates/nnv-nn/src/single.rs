// SPDX-License-Identifier: MPL-2.0
//! Bundles of one small network that is not normative: kinds `network`, `rdo` and `quality`.

use serde::de::DeserializeOwned;

use super::backend::Backend;
use super::bundle::{Files, Kind, manifest_error, parse_hex};
use super::error::{NnError, Result};
use super::graph::{Contract, Graph, Place};
use super::{ModelSource, Provider, RuntimeOptions};

/// The network's file, as the manifest states it.
pub(super) struct Single {
    label: String,
    onnx: Vec<u8>,
}

impl Single {
    /// Reads a manifest, and the file that it names. `file`: name and SHA-256 of the file, or what
    /// is wrong with the manifest.
    ///
    /// # Errors
    /// [`NnError::UnknownModel`] and [`NnError::Bundle`].
    pub fn open<M: DeserializeOwned>(
        source: &ModelSource,
        kind: Kind,
        file: fn(&M) -> Result<(&str, &str), String>,
    ) -> Result<(M, Self)> {
        let label = source.label().into_owned();
        let wrong = |what| NnError::Bundle {
            bundle: label.clone(),
            what,
        };
        let files = Files::find(source, kind)?;
        let (text, _) = files.manifest(kind).map_err(wrong)?;
        let manifest: M = toml::from_str(&text).map_err(|e| wrong(manifest_error(&e)))?;
        let (name, sha256) = file(&manifest).map_err(wrong)?;
        let digest =
            parse_hex(sha256).ok_or_else(|| wrong("sha256 is not 64 hexadecimal digits".into()))?;
        let onnx = files.verified(name, &digest).map_err(wrong)?.into();
        Ok((manifest, Self { label, onnx }))
    }

    /// Builds the graph, for one thread of the CPU.
    ///
    /// # Errors
    /// [`NnError::Bundle`] and [`NnError::Provider`].
    pub fn build(
        &self,
        backend: &dyn Backend,
        name: &'static str,
        contract: &Contract<'_>,
    ) -> Result<Graph> {
        let options = RuntimeOptions {
            threads: 1,
            ..RuntimeOptions::default()
        };
        let place = Place {
            backend,
            provider: Provider::Cpu,
            options: &options,
        };
        Graph::build(name, &self.label, &self.onnx, place, contract)
    }
}

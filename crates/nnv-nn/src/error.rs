// SPDX-License-Identifier: MPL-2.0
//! Errors of the network layer: each says what failed, where, and what to do.

use super::Provider;

/// Result of this layer.
pub type Result<T, E = NnError> = std::result::Result<T, E>;

/// What can go wrong between a bundle on disk and a tensor.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NnError {
    /// ONNX Runtime's shared library was not found or could not be used.
    #[error(
        "ONNX Runtime cannot be used: {what}. Searched: {searched}. Set NNV_ORT_LIBRARY to the \
         absolute path of libonnxruntime.so (version 1.17 or later), or put that file beside the \
         plugin; scripts/setup.sh fetches one, scripts/env.sh sets the variable"
    )]
    Runtime {
        /// Why the last candidate was refused, or that there was none.
        what: String,
        /// Where was searched, in order.
        searched: String,
    },
    /// No embedded bundle has this name.
    #[error(
        "no model named \"{name}\" is built into this plugin (built in: {known}); give its \
         folder with model-path"
    )]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// Names that exist.
        known: String,
    },
    /// A bundle is incomplete, damaged, or of another kind.
    #[error("model bundle {bundle}: {what}")]
    Bundle {
        /// Name or folder of the bundle.
        bundle: String,
        /// What is wrong with it.
        what: String,
    },
    /// An execution provider could not be set up.
    #[error("execution provider {provider} cannot run model {bundle}: {what}")]
    Provider {
        /// The provider.
        provider: Provider,
        /// Name of the bundle.
        bundle: String,
        /// Why.
        what: String,
    },
    /// A normative network gave other numbers than its bundle promises: decoding with it would show
    /// noise.
    #[error(
        "execution provider {provider} fails the known-answer test of {bundle}/{graph} (output \
         {output}: CRC-32C \
         {got:08x}, expected {expected:08x}); refused because decoding would not be exact. Use \
         another \
         execution-provider or another ONNX Runtime, or restore the model's files"
    )]
    KnownAnswer {
        /// The provider.
        provider: Provider,
        /// Name of the bundle.
        bundle: String,
        /// The graph, for example `key_synth`.
        graph: &'static str,
        /// The output that differs.
        output: String,
        /// Checksum from the bundle.
        expected: u32,
        /// Checksum of what was computed.
        got: u32,
    },
    /// A run was aborted through its [`Cancel`](super::Cancel) handle.
    #[error("inference was cancelled")]
    Cancelled,
    /// A network failed while running.
    #[error("network {bundle}/{graph} failed: {what}")]
    Run {
        /// Name of the bundle.
        bundle: String,
        /// The graph, for example `key_synth`.
        graph: &'static str,
        /// ONNX Runtime's message, or what is wrong with the outputs.
        what: String,
    },
    /// The caller passed tensors that do not fit together.
    #[error("network input: {0}")]
    Input(String),
}

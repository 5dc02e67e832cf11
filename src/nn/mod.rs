// SPDX-License-Identifier: MPL-2.0
//! ONNX Runtime: discovery, providers, sessions, batching, known-answer test, bundles.

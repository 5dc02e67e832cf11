// SPDX-License-Identifier: MPL-2.0
//! What a quantizer means to an encoder before it has looked into a bundle's tables: the one place
//! where its step and its error are approximated.

/// Step of a quantizer in 8-bit samples, about that of the bundles' tables in the middle of their
/// channels; 12 quantizers double it.
pub fn nominal_step(quantizer: f64) -> f64 {
    3.0 * (quantizer / 12.0).exp2()
}

/// Squared error per 10-bit sample that the codec makes at a quantizer, roughly: measured, so that
/// it rises more slowly than the square of the step.
pub fn nominal_distortion(quantizer: u8) -> f32 {
    87.0 * ((f32::from(quantizer) - 32.0) / 10.5).exp2()
}

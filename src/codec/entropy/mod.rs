// SPDX-License-Identifier: MPL-2.0
//! Entropy coding: adaptive binary range coder, coefficients, hyper-latents.

// SPDX-License-Identifier: MPL-2.0
//! The quantizer of a shot, from what it looks like.

use nnv_nn::{ModelSource, RdoModel};

use super::codec::Codec;
use super::features;
use super::target::{Metric, Target};
use crate::failure::{Failure, Result};

/// The least that quality falls with a step of the quantizer, in the logarithm of
/// [`Metric::log`]. Below it a curve says nothing.
const LEAST_SLOPE: f64 = 0.01;
/// What VMAF is above SSIMULACRA2, roughly: for bundles that know no SSIMULACRA2.
const VMAF_ABOVE: f64 = 15.0;
/// Whose curve a codec takes that the bundle does not know, stretched to its quantizers.
const STAND_IN: Codec = Codec::X265;

/// The least share of a loss that coding has where pictures have lost something before: what
/// scaling alone leaves is known from a few frames, and the whole may come out better.
const LEAST_CODED: f64 = 0.05;

/// Quality over the quantizer: what coding costs is straight between points, and beyond them.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Quantizers and the logarithms of what coding alone leaves.
    points: Vec<(f64, f64)>,
    /// What the pictures have lost before they are coded, as [`Metric::loss`] has it.
    lost: f64,
}

impl Curve {
    /// Of points (quantizer, [`Metric::log`]), quantizers rising; at least two. Made to fall
    /// wherever it does not.
    pub fn new(mut points: Vec<(f64, f64)>) -> Self {
        for i in 1..points.len() {
            let (before, now) = (points[i - 1], &mut points[i]);
            now.1 = now.1.min(before.1 - LEAST_SLOPE * (now.0 - before.0));
        }
        Self { points, lost: 0.0 }
    }

    /// Of pictures that have lost `loss` before they are coded: losses add up.
    pub fn with_loss(self, loss: f64) -> Self {
        let lost = self.lost + loss;
        Self { lost, ..self }
    }

    /// Another through what was measured, quantizers rising, of pictures that have lost as much.
    pub fn through(&self, mut seen: Vec<(f64, f64)>) -> Self {
        for (_, v) in &mut seen {
            *v = self.coded(*v);
        }
        Self::new(seen).with_loss(self.lost)
    }

    /// What coding alone leaves where the whole is `v`.
    fn coded(&self, v: f64) -> f64 {
        let loss = (-v).exp();
        -(loss - self.lost).max(LEAST_CODED * loss).ln()
    }

    /// The two points between which, or beyond which, `before` first holds no more.
    fn segment(&self, before: impl Fn(&(f64, f64)) -> bool) -> [(f64, f64); 2] {
        let points = &self.points;
        let at = points.partition_point(before).clamp(1, points.len() - 1);
        [points[at - 1], points[at]]
    }

    /// What coding alone leaves at a quantizer.
    fn coded_at(&self, q: f64) -> f64 {
        let [(q0, v0), (q1, v1)] = self.segment(|p| p.0 < q);
        v0 + (q - q0) * (v1 - v0) / (q1 - q0)
    }

    /// The quantizer at which coding alone leaves `v`.
    fn inverse_coded(&self, v: f64) -> f64 {
        let [(q0, v0), (q1, v1)] = self.segment(|p| p.1 > v);
        q0 + (v - v0) * (q1 - q0) / (v1 - v0)
    }

    /// The quantizer that gives a quality.
    pub fn inverse(&self, v: f64) -> f64 {
        self.inverse_coded(self.coded(v))
    }

    /// The quantizer for `wanted`, where `q` was seen to give `seen`: the curve, moved there.
    pub fn corrected(&self, q: f64, seen: f64, wanted: f64) -> f64 {
        self.inverse_coded(self.coded_at(q) + self.coded(wanted) - self.coded(seen))
    }
}

/// The network of a bundle of kind `rdo`.
pub struct Predictor {
    model: RdoModel,
    codec: Codec,
}

impl Predictor {
    /// Loads it for one codec.
    ///
    /// # Errors
    /// There is no ONNX Runtime, or the bundle is of other features or measures.
    pub fn load(source: &ModelSource, codec: Codec) -> Result<Self> {
        let model = RdoModel::load(source)?;
        if !model.features().iter().eq(features::NAMES) {
            return Err(Failure::Input(format!(
                "the bundle {} goes by other features of shots than this program has: take one \
                 that was trained with it",
                source.label()
            )));
        }
        Ok(Self { model, codec })
    }

    fn knows_codec(&self) -> bool {
        self.model
            .codecs()
            .any(|name| name == self.codec.facts().name)
    }

    /// What of this codec and this measure the network does not know.
    pub fn unknown(&self, metric: Metric) -> Option<&'static str> {
        let codec = self.codec.facts().name;
        let metric = metric.name();
        match self.knows_codec() {
            false => Some(codec),
            true if self.model.metrics().iter().all(|name| name != metric) => Some(metric),
            true => None,
        }
    }

    /// Points of the network for a codec, quantizers and logarithms of quality.
    fn points(&self, features: &[f32], codec: Codec, metric: Metric) -> Result<Vec<(f64, f64)>> {
        let name = codec.facts().name;
        if let Some(points) = self.model.curve(features, name, metric.name())? {
            let wide = points
                .into_iter()
                .map(|(q, v)| (f64::from(q), f64::from(v)));
            return Ok(wide.collect());
        }
        if metric == Metric::Ssimulacra2 {
            let points = self.points(features, codec, Metric::Vmaf)?;
            // Backwards through VMAF's logarithm.
            let lower = |v: f64| metric.log(Metric::LOSSLESS - (-v).exp() - VMAF_ABOVE);
            return Ok(points.into_iter().map(|(q, v)| (q, lower(v))).collect());
        }
        let metric = metric.name();
        Err(Failure::Input(format!(
            "the bundle of kind rdo knows nothing of {metric} coded by {name}"
        )))
    }

    /// What the network says of a shot.
    ///
    /// # Errors
    /// It does not know the measure, or does not run.
    pub fn curve(&self, features: &[f32], metric: Metric) -> Result<Curve> {
        let codec = match self.knows_codec() {
            true => self.codec,
            false => STAND_IN,
        };
        let points = self.points(features, codec, metric)?;
        let ((from, to), (low, high)) = (codec.facts().quantizers, self.codec.facts().quantizers);
        let stretch = |q: f64| low + (q - from) * (high - low) / (to - from);
        Ok(Curve::new(
            points.into_iter().map(|(q, v)| (stretch(q), v)).collect(),
        ))
    }

    /// The quantizer that a curve gives for a target.
    pub fn quantizer(&self, curve: &Curve, target: Target) -> f64 {
        let q = curve.inverse(target.metric.log(target.value));
        self.codec.nearest(q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quality at a quantizer.
    fn at(curve: &Curve, q: f64) -> f64 {
        -((-curve.coded_at(q)).exp() + curve.lost).ln()
    }

    #[test]
    fn curves_are_read_both_ways() {
        let curve = Curve::new(vec![(20.0, -1.0), (30.0, -2.0), (40.0, -4.0)]);
        for curve in [curve.clone(), curve.clone().with_loss(7.0)] {
            for q in [10.0, 20.0, 25.0, 33.0, 40.0, 60.0] {
                assert!((curve.inverse(at(&curve, q)) - q).abs() < 1e-9, "{q}");
            }
        }
        assert_eq!(at(&curve, 25.0), -1.5);
        // Seen better by 0.5 than the curve says: five steps more.
        assert!((curve.corrected(20.0, -0.5, -1.0) - 25.0).abs() < 1e-9);
    }

    #[test]
    fn losses_add_up() {
        let curve = Curve::new(vec![(20.0, -2_f64.ln()), (30.0, -8_f64.ln())]);
        let lossy = curve.clone().with_loss(3.0);
        assert!((at(&lossy, 20.0) + 5_f64.ln()).abs() < 1e-9);
        assert!((at(&lossy, 30.0) + 11_f64.ln()).abs() < 1e-9);
        assert_eq!(at(&curve.clone().with_loss(0.0), 25.0), at(&curve, 25.0));
    }

    #[test]
    fn corrections_know_what_scaling_leaves() {
        // Coding costs twice as much each ten steps; scaling alone leaves a loss of 12.
        let loss = |q: f64| 12.0 + 2_f64.powf(q / 10.0);
        let seen = |q: f64| (q, -loss(q).ln());
        let wanted = seen(30.0).1;
        // Foreseen at half of what coding costs: the first correction finds it.
        let half = vec![(10.0, 0.0), (50.0, -16_f64.ln())];
        let curve = Curve::new(half).with_loss(12.0);
        assert!((curve.corrected(40.0, seen(40.0).1, wanted) - 30.0).abs() < 1e-9);
        // Between two measured points, of which one is next to what scaling leaves.
        let between = curve.through(vec![seen(10.0), seen(45.0)]);
        assert!((between.inverse(wanted) - 30.0).abs() < 1e-9);
        // Better than scaling alone: no quantizer out of this world.
        let odd = curve.corrected(20.0, -11_f64.ln(), wanted);
        assert!((20.0..60.0).contains(&odd), "{odd}");
    }

    #[test]
    fn a_curve_that_does_not_fall_is_made_to() {
        let curve = Curve::new(vec![(20.0, -1.0), (30.0, 0.0), (40.0, -1.0)]);
        assert!(at(&curve, 40.0) < at(&curve, 30.0) && at(&curve, 30.0) < at(&curve, 20.0));
        assert!(curve.inverse(-50.0).is_finite());
    }
}

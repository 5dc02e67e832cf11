// SPDX-License-Identifier: MPL-2.0
//! Regions of interest: what `GstVideoRegionOfInterestMeta` on a frame asks for.
//!
//! Detectors say where something is; other encoders read how much better it shall be from a
//! structure `roi/NAME` in the metadata's parameters, with an integer `delta-qp` in H.264's
//! quantizers (6 less halve the step). Ours are half as large.

use nnv_codec::encode::Region;

/// H.264's quantizers per octave are 6, ours 12.
const PER_QP: i32 = 2;
/// What regions get of which only the type is known: what people want to recognise, and the rest.
const RECOGNISED: i8 = -24;
const OTHERS: i8 = -12;

/// The regions that a buffer's metadata names.
pub fn of_buffer(buffer: &gst::BufferRef) -> Vec<Region> {
    let metas = buffer.iter_meta::<gst_video::VideoRegionOfInterestMeta>();
    metas
        .map(|meta| {
            let (x, y, width, height) = meta.rect();
            let params: Vec<gst::Structure> = meta.params().map(ToOwned::to_owned).collect();
            Region {
                x,
                y,
                width,
                height,
                delta: delta(meta.roi_type(), &params),
            }
        })
        .filter(|region| region.delta != 0)
        .collect()
}

/// What is added to the quantizer: what our own structure says, else any other encoder's, else what
/// regions of this type usually need.
fn delta(kind: &str, params: &[gst::Structure]) -> i8 {
    let told = |of: &dyn Fn(&str) -> bool| {
        let mut fitting = params.iter().filter(|s| of(s.name().as_str()));
        fitting.find_map(|s| s.get::<i32>("delta-qp").ok())
    };
    let qp = told(&|name| name == "roi/nnv").or_else(|| told(&|name| name.starts_with("roi/")));
    if let Some(qp) = qp {
        // H.264's quantizers go up to 51.
        return (PER_QP * qp.clamp(-51, 51)) as i8;
    }
    let kind = kind.to_ascii_lowercase();
    let recognised = ["face", "plate", "text"].iter().any(|k| kind.contains(k));
    if recognised { RECOGNISED } else { OTHERS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(name: &str, qp: i32) -> gst::Structure {
        gst::Structure::builder(name).field("delta-qp", qp).build()
    }

    #[test]
    fn parameters_rule_over_types() {
        gst::init().unwrap();
        let other = gst::Structure::builder("detection")
            .field("delta-qp", 9)
            .build();
        assert_eq!(delta("face", &[]), -24);
        assert_eq!(delta("License_Plate", std::slice::from_ref(&other)), -24);
        assert_eq!(delta("car", &[]), -12);
        assert_eq!(delta("face", &[other, structure("roi/va", -4)]), -8);
        let both = [structure("roi/msdk", -3), structure("roi/nnv", 5)];
        assert_eq!(delta("face", &both), 10);
        assert_eq!(delta("car", &[structure("roi/vaapi", -100)]), -102);
        assert_eq!(delta("car", &[structure("roi/vaapi", 0)]), 0);
        // Not a number, as good as none.
        let strange = gst::Structure::builder("roi/va")
            .field("delta-qp", "high")
            .build();
        assert_eq!(delta("car", &[strange]), -12);
    }
}

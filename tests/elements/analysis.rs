// SPDX-License-Identifier: MPL-2.0
//! `nnvdec analysis`: pictures with what they are made of over them, and the numbers beside.

use gst::prelude::*;

use crate::util::*;

const META: &str = "GstNnvAnalysisMeta";
const ALL: &str = "motion+bits+quantizers+references+ink+residual";

/// Access units of a small clip, with their caps.
fn clip() -> (gst_video::VideoInfo, Vec<gst::Buffer>, gst::Caps) {
    let info = i420(70, 50);
    let mut h = encoder(&info, &[("bframes", "0"), ("quantizer", "20")]);
    for t in 0..5 {
        h.push(buffer(&info, t, 0)).expect("the frame is taken");
    }
    assert!(h.push_event(gst::event::Eos::new()));
    let units = pull_all(&mut h);
    let caps = h.sinkpad().unwrap().current_caps().unwrap();
    (info, units, caps)
}

/// What the decoder makes of it.
fn decoded(analysis: &str, overlays: bool) -> (gst_video::VideoInfo, Vec<gst::Buffer>) {
    let (info, units, caps) = clip();
    let dec = element("nnvdec", &[("analysis", analysis)]);
    let mut h = gst_check::Harness::with_element(&dec, Some("sink"), Some("src"));
    if overlays {
        let api = gst_video::VideoOverlayCompositionMeta::meta_api();
        h.add_propose_allocation_meta(api, None);
    }
    h.set_src_caps(caps);
    for unit in units {
        h.push(unit).expect("the unit is taken");
    }
    assert!(h.push_event(gst::event::Eos::new()));
    let shown = pull_all(&mut h);
    assert_eq!(shown.len(), 5);
    (info, shown)
}

fn composition(buffer: &gst::Buffer) -> Option<gst_video::VideoOverlayComposition> {
    let meta = buffer.meta::<gst_video::VideoOverlayCompositionMeta>()?;
    Some(meta.overlay_owned())
}

/// Numbers of 16 bit.
fn numbers(structure: &gst::StructureRef, field: &str) -> Vec<i16> {
    let buffer = structure.get::<gst::Buffer>(field).expect(field);
    let bytes = bytes(&buffer);
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&b| i16::from_le_bytes(b))
        .collect()
}

#[test]
fn nothing_is_drawn_or_attached_unless_asked_for() {
    let (info, plain) = decoded("", false);
    let (_, overlaid) = decoded("", true);
    for (a, b) in plain.iter().zip(&overlaid) {
        assert!(read(a, &info).is_equal(&read(b, &info)));
        for buffer in [a, b] {
            assert!(gst::meta::CustomMeta::from_buffer(buffer, META).is_err());
            assert!(composition(buffer).is_none());
        }
    }
}

#[test]
fn overlays_are_blended_or_handed_over() {
    let (info, plain) = decoded("", false);
    let (_, blended) = decoded(ALL, false);
    let (_, handed) = decoded(ALL, true);
    for (t, ((plain, blended), handed)) in plain.iter().zip(&blended).zip(&handed).enumerate() {
        let before = read(plain, &info);
        assert!(
            !before.is_equal(&read(blended, &info)),
            "frame {t}: nothing was drawn"
        );
        assert!(composition(blended).is_none());
        // Whoever draws overlays by itself gets the picture as it is.
        assert!(before.is_equal(&read(handed, &info)), "frame {t}");
        let overlay = composition(handed).expect("downstream draws it");
        let rectangles: Vec<_> = overlay.iter().collect();
        assert_eq!(rectangles.len(), 1);
        assert_eq!(rectangles[0].render_rectangle(), (0, 0, 70, 50));
        // Both ways show the same.
        let mut drawn = handed.copy_deep().unwrap();
        let drawn = drawn.make_mut();
        let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(drawn, &info).unwrap();
        overlay.blend(&mut frame).unwrap();
        drop(frame);
        assert!(
            read(drawn, &info).is_equal(&read(blended, &info)),
            "frame {t}"
        );
    }
}

#[test]
fn each_kind_of_analysis_draws_something_else() {
    let mut seen = Vec::new();
    let (info, plain) = decoded("", false);
    for analysis in ["motion", "bits", "references", "residual"] {
        let (_, shown) = decoded(analysis, false);
        // An inter frame: all of these have something to show.
        let picture = read(&shown[3], &info);
        assert!(!picture.is_equal(&read(&plain[3], &info)), "{analysis}");
        assert!(
            seen.iter().all(|other| !picture.is_equal(other)),
            "{analysis}"
        );
        seen.push(picture);
    }
    // No map and no ink in this stream: nothing to draw.
    for analysis in ["quantizers", "ink"] {
        let (_, shown) = decoded(analysis, false);
        assert!(
            read(&shown[3], &info).is_equal(&read(&plain[3], &info)),
            "{analysis}"
        );
    }
}

#[test]
fn the_numbers_are_attached() {
    let (_, units, _) = clip();
    let (_, shown) = decoded(ALL, false);
    // 70x50: five by four places.
    let (columns, rows) = (5, 4);
    for (t, buffer) in shown.iter().enumerate() {
        let meta = gst::meta::CustomMeta::from_buffer(buffer, META).unwrap();
        let s = meta.structure();
        let uint = |field: &str| {
            s.get::<u32>(field)
                .unwrap_or_else(|e| panic!("{field}: {e}"))
        };
        let kind = s.get::<&str>("kind").unwrap();
        assert_eq!(kind, if t == 0 { "key" } else { "inter" });
        assert_eq!((uint("number"), uint("level")), (t as u32, 0));
        assert!((1..=63).contains(&uint("quantizer")));
        assert_eq!((uint("columns"), uint("rows")), (columns, rows));
        let references = s.get::<gst::Array>("references").unwrap();
        let references: Vec<u32> = references.iter().map(|v| v.get().unwrap()).collect();
        assert_eq!(references.is_empty(), t == 0);
        assert!(
            references.iter().all(|&r| (r as usize) < t),
            "{references:?}"
        );
        let parts = ["map", "ink", "motion", "hyper", "latent"];
        let bytes = parts.map(|part| s.get::<u64>(&*format!("bytes-{part}")).unwrap());
        let sum: u64 = bytes.iter().sum();
        assert!(sum > 0 && sum < units[t].size() as u64, "{bytes:?}");
        let places = (columns * rows) as usize;
        let latent = numbers(s, "latent-bits");
        assert_eq!(latent.len(), places);
        let counted: i64 = latent.iter().map(|&v| i64::from(v)).sum::<i64>() / 64;
        assert!(
            (counted - bytes[4] as i64).abs() <= 6 + bytes[4] as i64 / 50,
            "frame {t}"
        );
        let quantizers = self::bytes(&s.get::<gst::Buffer>("quantizers").unwrap());
        assert_eq!(quantizers, vec![uint("quantizer") as u8; places]);
        assert!(!s.has_field("ink"), "there is none");
        if t == 0 {
            assert!(!s.has_field("vectors") && !s.has_field("motion-bits"));
            continue;
        }
        let vectors = numbers(s, "vectors");
        assert_eq!(vectors.len(), 5 * 4 * places);
        assert!(vectors.chunks(5).all(|cell| (0..=2).contains(&cell[0])));
        assert_eq!(numbers(s, "motion-bits").len(), places);
    }
    // Something moves in the clip.
    let meta = gst::meta::CustomMeta::from_buffer(&shown[4], META).unwrap();
    let vectors = numbers(meta.structure(), "vectors");
    assert!(vectors.chunks(5).any(|cell| cell[1] != 0 || cell[2] != 0));
}

#[test]
fn analysis_can_be_switched_while_playing() {
    let (_, units, caps) = clip();
    let dec = element("nnvdec", &[]);
    let mut h = gst_check::Harness::with_element(&dec, Some("sink"), Some("src"));
    h.set_src_caps(caps);
    let mut attached = Vec::new();
    for (t, unit) in units.into_iter().enumerate() {
        dec.set_property_from_str("analysis", if t == 2 { "bits" } else { "" });
        h.push(unit).expect("the unit is taken");
        for buffer in pull_all(&mut h) {
            attached.push(gst::meta::CustomMeta::from_buffer(&buffer, META).is_ok());
        }
    }
    assert_eq!(attached, [false, false, true, false, false]);
}

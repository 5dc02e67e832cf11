// SPDX-License-Identifier: MPL-2.0
//! Regions of interest: a quality of their own.

use nnv_format::picture::{PSNR_PEAK, Picture};
use nnv_quality::SquaredError;

use super::util::*;

const SIZE: (u32, u32) = (320, 192);
/// Left, top, width, height: a number plate.
const PLATE: (u32, u32, u32, u32) = (144, 96, 64, 32);
const FRAMES: u32 = 12;

/// Texture everywhere that moves a little, so that every place costs in every frame.
fn scene(t: u32) -> Picture {
    let mut picture = Picture::new(SIZE.0, SIZE.1).unwrap();
    let luma = picture.plane_mut(0);
    let hash = |x: u32, y: u32| {
        let v = x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca6b);
        let v = (v ^ (v >> 15)).wrapping_mul(0x2c1b_3c6d);
        v >> 24
    };
    for y in 0..SIZE.1 {
        for x in 0..SIZE.0 {
            // Smooth noise of four samples, that moves by a half.
            let (u, w) = (2 * x + t, 2 * y);
            let (cx, cy, fx, fy) = (u / 8, w / 8, u % 8, w % 8);
            let top = hash(cx, cy) * (8 - fx) + hash(cx + 1, cy) * fx;
            let low = hash(cx, cy + 1) * (8 - fx) + hash(cx + 1, cy + 1) * fx;
            luma.row_mut(y as usize)[x as usize] = (200 + (top * (8 - fy) + low * fy) / 32) as u16;
        }
    }
    for p in 1..3 {
        picture.plane_mut(p).data_mut().fill(512);
    }
    picture.pad();
    picture
}

/// PSNR of luma in the plate, and the bits of the stream.
fn measure(properties: &[(&str, &str)], roi: Option<(&str, Option<(&str, i32)>)>) -> (f64, f64) {
    let info = i420(SIZE.0, SIZE.1);
    let mut h = encoder(&info, properties);
    for t in 0..FRAMES {
        let mut buffer = buffer_of(&info, &scene(t), t, 0);
        if let Some((kind, param)) = roi {
            let buffer = buffer.get_mut().unwrap();
            let mut meta = gst_video::VideoRegionOfInterestMeta::add(buffer, kind, PLATE);
            if let Some((name, qp)) = param {
                meta.add_param(gst::Structure::builder(name).field("delta-qp", qp).build());
            }
        }
        h.push(buffer).unwrap();
    }
    assert!(h.push_event(gst::event::Eos::new()));
    let units = pull_all(&mut h);
    let file = TempFile::with("roi.nnv", &join(&units));
    let pipeline = launch(&format!(
        "filesrc location={} ! nnvparse ! nnvdec ! fakesink name=out sync=false",
        file.path()
    ));
    let shown = pictures(&pipeline, &info);
    assert_eq!(shown.len(), FRAMES as usize);
    let (mut sum, mut samples) = (0u64, 0u64);
    for (t, picture) in shown.iter().enumerate() {
        let original = scene(t as u32);
        for y in PLATE.1..PLATE.1 + PLATE.3 {
            let row = |p: &Picture| p.luma().row(y as usize)[PLATE.0 as usize..][..64].to_vec();
            for (a, b) in row(picture).iter().zip(row(&original)) {
                sum += u64::from(a.abs_diff(b)).pow(2);
                samples += 1;
            }
        }
    }
    let bits = units.iter().map(|u| 8.0 * u.size() as f64).sum();
    (SquaredError { sum, samples }.psnr(PSNR_PEAK), bits)
}

fn pictures(pipeline: &gst::Element, info: &gst_video::VideoInfo) -> Vec<Picture> {
    use gst::prelude::*;
    let sink = pipeline
        .downcast_ref::<gst::Bin>()
        .unwrap()
        .by_name("out")
        .unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (record, info) = (seen.clone(), info.clone());
    let pad = sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, probe| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &probe.data {
            record.lock().unwrap().push(read(buffer, &info));
        }
        gst::PadProbeReturn::Ok
    });
    play(pipeline).sound();
    std::mem::take(&mut *seen.lock().unwrap())
}

#[test]
fn a_number_plate_gets_more_for_little() {
    within(|| {
        // Low-delay order and a hierarchy, with and without the search for rate and distortion.
        for (bframes, speed) in [("0", "medium"), ("3", "fast")] {
            let properties = [
                ("quantizer", "34"),
                ("bframes", bframes),
                ("speed-preset", speed),
                ("threads", "1"),
                // Decoders say where they show anything else than the encoder saw.
                ("frame-checksum", "true"),
            ];
            let plain = measure(&properties, None);
            let plate = measure(&properties, Some(("plate", None)));
            let (gain, rate) = (plate.0 - plain.0, plate.1 / plain.1 - 1.0);
            println!(
                "bframes {bframes} {speed}: {gain:+.2} dB for {:+.1} %",
                100.0 * rate
            );
            assert!(
                gain > 4.5 && rate < 0.2,
                "{bframes} {speed}: {gain:+.2} dB, {rate:+.3}"
            );
        }
    });
}

#[test]
fn delta_qp_of_any_encoder_is_read() {
    within(|| {
        let properties = [
            ("quantizer", "34"),
            ("speed-preset", "fast"),
            ("key-int-max", "1"),
        ];
        let of = |roi| measure(&properties, roi);
        let plain = of(None);
        // The same as a plate has without parameters.
        let told = of(Some(("car", Some(("roi/va", -12)))));
        assert_eq!(told, of(Some(("plate", None))));
        assert!(
            told.0 > plain.0 + 4.0 && told.1 > plain.1,
            "{told:?} {plain:?}"
        );
        // Worse where it is asked for, nothing where it is zero.
        let worse = of(Some(("face", Some(("roi/msdk", 4)))));
        assert!(
            worse.0 < plain.0 - 2.0 && worse.1 < plain.1,
            "{worse:?} {plain:?}"
        );
        assert_eq!(of(Some(("face", Some(("roi/vaapi", 0))))), plain);
    });
}

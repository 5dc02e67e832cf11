// SPDX-License-Identifier: MPL-2.0
//! Any data decodes to a legal motion field, which codes to what decodes to it again, and predicts
//! samples within their limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nnv_format::entropy::{Decoder, Encoder};
use nnv_format::motion::{MotionContexts, MotionField, decode_field, encode_field, predict};
use nnv_format::picture::Picture;

fuzz_target!(|data: &[u8]| {
    let Some((&[first, second], data)) = data.split_first_chunk() else {
        return;
    };
    let mut picture = Picture::new(80, 48).expect("the size is possible");
    for plane in picture.planes_mut() {
        for y in 0..plane.visible_height() {
            for (x, sample) in plane.row_mut(y).iter_mut().enumerate() {
                *sample = ((x * 37 + y * 101) & 1023) as u16;
            }
        }
    }
    picture.pad();
    let mut fields: Vec<MotionField> = Vec::new();
    let (a, b) = data.split_at(data.len() / 2);
    for (data, distance) in [(a, first), (b, second)] {
        let mut field = MotionField::new(&picture);
        field.set_distances([i16::from(distance as i8), i16::from(first) - 40]);
        let empty = field.clone();
        let colocated = fields.last();
        let mut contexts = MotionContexts::default();
        let mut decoder = Decoder::new(data);
        decode_field(&mut decoder, &mut contexts, &mut field, colocated);
        let (mut encoder, mut contexts) = (Encoder::new(), MotionContexts::default());
        encode_field(&mut encoder, &mut contexts, &field, colocated);
        let bytes = encoder.finish();
        let (mut again, mut contexts) = (empty, MotionContexts::default());
        let mut decoder = Decoder::new(&bytes);
        decode_field(&mut decoder, &mut contexts, &mut again, colocated);
        assert!(decoder.finish().is_ok() && again == field);
        let prediction = predict(&field, &picture, &picture, 1).expect("sizes fit");
        let mut samples = prediction.picture.planes().iter().flat_map(|p| p.data());
        assert!(samples.all(|&v| v <= 1023));
        let difference = (0..3).flat_map(|i| prediction.difference.plane(i));
        assert!(difference.into_iter().all(|v| v.abs() <= 1023));
        fields.push(field);
    }
});

// SPDX-License-Identifier: MPL-2.0
//! A film coded in chunks, each on its own, shows what one encoder makes of it with key frames
//! where the chunks begin.

use nnv_bitstream::StreamInfo;
use nnv_codec::config::{EncoderConfig, SpeedPreset};
use nnv_codec::encode::{EncodedFrame, Encoder, InputFrame};
use nnv_format::picture::Picture;
use nnv_nn::{Model, ModelSource, RuntimeOptions};
use std::path::Path;
use std::sync::Arc;

const WIDTH: u32 = 96;
const HEIGHT: u32 = 64;

/// A grating that drifts, under a little noise: frames are so small that their headers count, and
/// inter frames so large beside key frames that the offsets of their quantizers follow their sizes.
fn clip(frames: u32) -> Vec<Arc<Picture>> {
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 32) as f32 / u32::MAX as f32
    };
    let mut picture = |t: u32| {
        let mut picture = Picture::new(WIDTH, HEIGHT).unwrap();
        let luma = &mut picture.planes_mut()[0];
        for y in 0..luma.height() {
            for (x, v) in luma.row_mut(y).iter_mut().enumerate() {
                let phase = (2.0 * x as f32 + 9.0 * y as f32) / 40.0 + t as f32 / 9.0;
                *v = (400.0 + 160.0 * phase.sin() + 8.0 * noise()) as u16;
            }
        }
        picture.pad();
        Arc::new(picture)
    };
    (0..frames).map(&mut picture).collect()
}

/// Codes frames, the first of them shown at `from` ns, with key frames at `keys`.
fn encode(
    model: &Arc<Model>,
    config: &EncoderConfig,
    frames: &[Arc<Picture>],
    from: u64,
    keys: &[usize],
) -> Vec<EncodedFrame> {
    let mut encoder = Encoder::new(model.clone(), config.clone()).unwrap();
    for (i, picture) in frames.iter().enumerate() {
        let frame = InputFrame {
            pts: Some(from + i as u64 * 40_000_000),
            duration: Some(40_000_000),
            force_key: keys.contains(&i),
            ..InputFrame::new(picture.clone(), i as u64)
        };
        encoder.send(frame).unwrap();
    }
    encoder.finish().unwrap();
    let mut units: Vec<_> = std::iter::from_fn(|| encoder.receive().unwrap()).collect();
    units.sort_by_key(|unit| unit.id);
    units
}

#[test]
fn chunks_on_their_own_show_what_one_process_shows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/realtime");
    let options = RuntimeOptions {
        threads: 1,
        ..RuntimeOptions::default()
    };
    let model = Model::load(&ModelSource::Folder(folder), &options).unwrap();
    let frames = clip(60);
    let cuts = [0, 13, 37, frames.len()];
    for bframes in 0..=7 {
        let config = EncoderConfig {
            bframes,
            quantizer: 20,
            key_int_max: 0,
            threads: 1,
            speed: SpeedPreset::Fast,
            ..EncoderConfig::new(StreamInfo::new(WIDTH, HEIGHT, 8))
        };
        // Late in a film times take more bytes than at the beginning of a chunk.
        let whole = encode(&model, &config, &frames, 5_000_000_000_000, &cuts);
        let chunks = (cuts.windows(2))
            .flat_map(|cut| encode(&model, &config, &frames[cut[0]..cut[1]], 0, &[]));
        let mut count = 0;
        for (i, (one, part)) in whole.iter().zip(chunks).enumerate() {
            let at = format!("bframes {bframes}, frame {i}");
            assert_eq!(
                (one.kind, one.quantizer),
                (part.kind, part.quantizer),
                "{at}"
            );
            let pictures = [one, &part].map(|unit| unit.stats.reconstruction.as_ref());
            assert!(pictures[0].unwrap().is_equal(pictures[1].unwrap()), "{at}");
            count += 1;
        }
        assert_eq!(count, frames.len());
    }
}

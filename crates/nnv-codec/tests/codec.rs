// SPDX-License-Identifier: MPL-2.0
//! Encoder and decoder together, on moving pictures, with the shipped model.
//!
//! Wherever a decoder says that a frame is sound, it must be exactly what the encoder
//! reconstructed.

use nnv_bitstream::FrameType;
use nnv_bitstream::StreamInfo;
use nnv_bitstream::{
    AccessUnit, BundleHash, FrameHeader, FramePayload, Scan, SequenceHeader, UnitScanner, UnitType,
    write_unit,
};
use nnv_codec::config::{DecoderConfig, EncoderConfig, RateControl, SpeedPreset, Tune, Tuning};
use nnv_codec::decode::{Decoded, DecodedFrame, Decoder, Hurry};
use nnv_codec::encode::{EncodedFrame, Encoder, InputFrame};
use nnv_codec::error::CodecError;
use nnv_format::picture::Picture;
use nnv_nn::{Model, ModelSource, NnError, RuntimeOptions};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The model with `threads` threads; loaded once per process.
fn model(threads: usize) -> Arc<Model> {
    static MODELS: [OnceLock<Arc<Model>>; 3] = [const { OnceLock::new() }; 3];
    MODELS[threads]
        .get_or_init(|| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/realtime");
            let options = RuntimeOptions {
                threads,
                ..RuntimeOptions::default()
            };
            Model::load(&ModelSource::Folder(folder), &options).expect("the shipped model loads")
        })
        .clone()
}

/// Small deterministic generator.
fn rng(seed: u64) -> impl FnMut() -> u32 {
    let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        (s >> 32) as u32
    }
}

/// A textured scene that pans, with a disc that moves against it. `scene` picks the texture.
fn picture(w: u32, h: u32, scene: u32, t: f32) -> Arc<Picture> {
    let mut p = Picture::new(w, h).unwrap();
    let s = scene as f32;
    for (i, plane) in p.planes_mut().iter_mut().enumerate() {
        let scale = if i == 0 { 1.0 } else { 2.0 };
        for y in 0..plane.height() {
            for (x, v) in plane.row_mut(y).iter_mut().enumerate() {
                let (fx, fy) = (
                    x as f32 * scale + 1.6 * t,
                    y as f32 * scale + 0.7 * t + 31.0 * s,
                );
                let a = (fx * (0.13 + 0.05 * s)).sin() * (fy * 0.09).cos() * 170.0;
                let b = (fx * 0.71 + fy * (0.5 - 0.2 * s)).sin() * 70.0;
                let (dx, dy) = (fx - 20.0 - 3.0 * t, fy - 20.0 - 31.0 * s);
                let disc = if dx * dx + dy * dy < 150.0 {
                    180.0
                } else {
                    0.0
                };
                *v = (480.0 + a + b + disc + 60.0 * i as f32).clamp(0.0, 1023.0) as u16;
            }
        }
    }
    p.pad();
    Arc::new(p)
}

fn clip(w: u32, h: u32, n: usize) -> Vec<Arc<Picture>> {
    (0..n).map(|t| picture(w, h, 0, t as f32)).collect()
}

fn config(w: u32, h: u32, bframes: u8) -> EncoderConfig {
    EncoderConfig {
        bframes,
        frame_checksum: true,
        threads: 1,
        quantizer: 24,
        ..EncoderConfig::new(StreamInfo::new(w, h, 8))
    }
}

fn drain(encoder: &mut Encoder, units: &mut Vec<EncodedFrame>) {
    while let Some(unit) = encoder.receive().unwrap() {
        units.push(unit);
    }
}

fn encode_with(encoder: &mut Encoder, frames: &[Arc<Picture>]) -> Vec<EncodedFrame> {
    let mut units = Vec::new();
    for (i, p) in frames.iter().enumerate() {
        encoder.send(InputFrame::new(p.clone(), i as u64)).unwrap();
        drain(encoder, &mut units);
    }
    encoder.finish().unwrap();
    drain(encoder, &mut units);
    units
}

fn encode(config: EncoderConfig, frames: &[Arc<Picture>]) -> Vec<EncodedFrame> {
    let mut encoder = Encoder::new(model(1), config).unwrap();
    encode_with(&mut encoder, frames)
}

fn decoder_with(threads: usize, config: DecoderConfig) -> Decoder {
    Decoder::new(move |_: &str, _: &BundleHash| Ok(model(threads)), config)
}

fn decoder() -> Decoder {
    decoder_with(1, DecoderConfig::default())
}

/// Decodes access units; the id of each is its place in `units`.
fn decode<'a>(decoder: &mut Decoder, units: impl IntoIterator<Item = &'a [u8]>) -> Vec<Decoded> {
    let mut out = Vec::new();
    for (i, unit) in units.into_iter().enumerate() {
        decoder.send(unit, i as u64).unwrap();
        out.extend(std::iter::from_fn(|| decoder.receive()));
    }
    decoder.finish().unwrap();
    out.extend(std::iter::from_fn(|| decoder.receive()));
    out
}

fn datas(units: &[EncodedFrame]) -> impl Iterator<Item = &[u8]> {
    units.iter().map(|u| &u.data[..])
}

fn sound(decoded: &[Decoded]) -> Vec<&DecodedFrame> {
    decoded
        .iter()
        .map(|d| match d {
            Decoded::Frame(f) => {
                assert!(!f.concealed, "{:?}", f.warning);
                assert_eq!(f.warning, None);
                f
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

/// The encoder's reconstruction of each frame in order of presentation, repeats resolved.
fn reconstructions(units: &[EncodedFrame]) -> Vec<Arc<Picture>> {
    let mut by_id: Vec<_> = units.iter().collect();
    by_id.sort_by_key(|u| u.id);
    let mut last = None;
    by_id
        .iter()
        .map(|u| {
            last = u.stats.reconstruction.clone().or(last.take());
            last.clone().expect("a repeat has something to repeat")
        })
        .collect()
}

fn assert_exact(units: &[EncodedFrame], decoded: &[Decoded]) {
    let expected = reconstructions(units);
    let frames = sound(decoded);
    assert_eq!(frames.len(), expected.len());
    for (n, (f, e)) in frames.iter().zip(&expected).enumerate() {
        assert_eq!(units[f.id as usize].id, n as u64, "order of presentation");
        assert!(f.picture.is_equal(e), "frame {n}");
    }
}

#[test]
fn every_order_decodes_to_what_the_encoder_saw() {
    for bframes in [0, 1, 2, 3, 7] {
        let frames = clip(96, 64, 20);
        let units = encode(config(96, 64, bframes), &frames);
        assert_eq!(units.len(), 20);
        assert_eq!(units.iter().filter(|u| u.key).count(), 1);
        let mut decoder = decoder();
        let decoded = decode(&mut decoder, datas(&units));
        assert_exact(&units, &decoded);
        assert_eq!(decoder.stats().verified, 20, "every checksum was looked at");
        for (n, p) in reconstructions(&units).iter().enumerate() {
            let psnr = p.psnr_yuv(&frames[n]);
            assert!(psnr > 24.0, "bframes {bframes} frame {n}: {psnr} dB");
        }
        // Inter frames pay.
        let size = |key| {
            let of = units.iter().filter(|u| u.key == key).map(|u| u.data.len());
            let (n, sum) = of.fold((0, 0), |(n, sum), l| (n + 1, sum + l));
            sum / n
        };
        assert!(size(false) < size(true), "{} {}", size(false), size(true));
    }
}

#[test]
fn every_speed_preset_decodes_to_what_the_encoder_saw() {
    let frames = clip(96, 64, 6);
    for bframes in [0, 3] {
        let streams = [
            SpeedPreset::Ultrafast,
            SpeedPreset::Fast,
            SpeedPreset::Medium,
            SpeedPreset::Slow,
        ]
        .map(|speed| {
            let config = EncoderConfig {
                speed,
                ..config(96, 64, bframes)
            };
            let units = encode(config, &frames);
            assert_exact(&units, &decode(&mut decoder(), datas(&units)));
            units
        });
        let [ultra, fast, medium, slow] = streams.each_ref().map(|s| datas(s).collect::<Vec<_>>());
        assert!(
            ultra[1] != fast[1] && fast[1] != medium[1] && medium[1] != slow[1],
            "presets differ"
        );
    }
}

#[test]
fn quantizers_of_inter_frames_follow_what_they_inherit() {
    // One scene, each frame with noise of its own.
    let scene = |noise: u32| -> Vec<Arc<Picture>> {
        let mut random = rng(5);
        let frame = |_| {
            let mut p = picture(96, 64, 0, 0.0).as_ref().clone();
            for v in p.plane_mut(0).data_mut() {
                *v = (*v + (random() % noise) as u16).min(1023);
            }
            p.pad();
            Arc::new(p)
        };
        (0..13).map(frame).collect()
    };
    let offsets = |frames: &[Arc<Picture>]| -> Vec<u8> {
        let units = encode(config(96, 64, 0), frames);
        assert!(units[1..].iter().all(|u| u.kind == FrameType::Inter));
        units[1..].iter().map(|u| u.quantizer - 24).collect()
    };
    // Nothing is known before the fifth frame.
    let pattern = [11, 7, 11, 0];
    assert_eq!(offsets(&scene(4)), pattern.repeat(3));
    let rustling = offsets(&scene(160));
    assert_eq!(rustling[..4], pattern);
    assert_eq!(rustling[4..], [7, 4, 7, 0].repeat(2));
}

#[test]
fn odd_sizes_and_ten_bit() {
    for (w, h) in [(16, 16), (17, 33), (1, 1), (65, 16), (130, 70)] {
        for bit_depth in [8, 10] {
            let mut config = config(w, h, 3);
            config.info.bit_depth = bit_depth;
            config.info.frame_rate = Some((30000, 1001));
            config.info.pixel_aspect = (4, 3);
            let units = encode(config.clone(), &clip(w, h, 6));
            let decoded = decode(&mut decoder(), datas(&units));
            assert_exact(&units, &decoded);
            let f = sound(&decoded)[0];
            assert_eq!(*f.info, config.info);
            assert_eq!((f.picture.width(), f.picture.height()), (w, h));
        }
    }
}

#[test]
fn a_map_of_quantizers_gives_quiet_places_more() {
    // The left half is nearly flat, the right half busy.
    let (w, h) = (128, 64);
    let frames: Vec<_> = (0..6)
        .map(|t| {
            let mut p = Picture::clone(&picture(w, h, 0, t as f32));
            for (y, x) in (0..64).flat_map(|y| (0..64).map(move |x| (y, x))) {
                let v = &mut p.plane_mut(0).row_mut(y)[x];
                *v = 500 + (*v - 500u16.min(*v)) / 40;
            }
            p.pad();
            Arc::new(p)
        })
        .collect();
    let error = |decoded: &[Decoded], from: usize| -> f64 {
        let first = sound(decoded)[0];
        let rows = (0..64).map(|y| {
            let (a, b) = (frames[0].luma().row(y), first.picture.luma().row(y));
            (from..from + 64)
                .map(|x| f64::from(a[x].abs_diff(b[x])).powi(2))
                .sum::<f64>()
        });
        rows.sum()
    };
    for (quantizer, bframes) in [20, 28, 36].into_iter().flat_map(|q| [(q, 0), (q, 3)]) {
        let mut outcomes = Vec::new();
        for tune in [Tune::Psnr, Tune::Visual] {
            let mut config = config(w, h, bframes);
            config.quantizer = quantizer;
            config.tune = tune;
            config.tuning = Some(Tuning {
                key: 0,
                ..Tuning::of(tune)
            });
            let units = encode(config, &frames);
            let decoded = decode(&mut decoder(), datas(&units));
            assert_exact(&units, &decoded);
            outcomes.push((error(&decoded, 0), error(&decoded, 64)));
        }
        let [(quiet, busy), (quiet_map, busy_map)] = outcomes[..] else {
            unreachable!()
        };
        assert!(quiet_map < 0.95 * quiet, "{quiet_map} for {quiet}");
        assert!(busy_map > busy, "{busy_map} for {busy}");
    }
}

/// A page of type-like strokes that scrolls by `lines` of eight samples and turns to another page
/// after them.
fn page(w: u32, h: u32, lines: usize, turned: bool) -> Arc<Picture> {
    let mut p = Picture::new(w, h).unwrap();
    for (i, plane) in p.planes_mut().iter_mut().enumerate() {
        plane.data_mut().fill([880, 520, 500][i]);
    }
    let luma = p.plane_mut(0);
    for y in 0..luma.height() {
        let at = y + 8 * lines;
        let (line, inside) = (at / 16, at % 16);
        let mut rng = rng(line as u64 + if turned { 1000 } else { 0 } + 1);
        for letter in 0..luma.width() / 10 {
            for _ in 0..2 {
                let (x, tall) = (10 * letter + rng() as usize % 7, 4 + rng() as usize % 7);
                if (3..3 + tall).contains(&inside) && x + 1 < luma.width() {
                    luma.row_mut(y)[x] = 500;
                    luma.row_mut(y)[x + 1] = 90;
                }
            }
        }
    }
    p.pad();
    Arc::new(p)
}

#[test]
fn type_is_coded_as_ink() {
    let (w, h) = (320, 180);
    for bframes in [0, 3] {
        let frames: Vec<_> = (0..10)
            .map(|t| page(w, h, t.clamp(2, 6) - 2, t > 7))
            .collect();
        let config = EncoderConfig {
            scene_cut: false,
            ..config(w, h, bframes)
        };
        let mut plain = config.clone();
        plain.tuning = Some(Tuning {
            ink: 0.0,
            ..Tuning::default()
        });
        let (plain, inked) = (encode(plain, &frames), encode(config, &frames));
        let with_ink = |units: &[EncodedFrame]| {
            let mut poc: Vec<u32> = units
                .iter()
                .filter(|u| AccessUnit::parse(&u.data).unwrap().frame.ink)
                .map(|u| u.poc)
                .collect();
            poc.sort_unstable();
            poc
        };
        assert!(with_ink(&plain).is_empty());
        let with = with_ink(&inked);
        assert!(
            with.contains(&0) && with.iter().any(|&poc| poc > 7),
            "{with:?}"
        );
        assert_exact(&inked, &decode(&mut decoder(), datas(&inked)));
        let bytes = |units: &[EncodedFrame]| datas(units).map(<[u8]>::len).sum::<usize>();
        assert!(
            2 * bytes(&inked) < bytes(&plain),
            "{} bytes of {}",
            bytes(&inked),
            bytes(&plain)
        );
        // And looks better for it.
        let error = |units: &[EncodedFrame]| -> u64 {
            units
                .iter()
                .filter_map(|u| {
                    let picture = u.stats.reconstruction.as_ref()?;
                    Some(frames[u.id as usize].sse(picture)[0])
                })
                .sum()
        };
        assert!(error(&inked) < error(&plain));
    }
}

/// A scene that stands still but for a disc that wanders through it, with a little noise that is
/// new each time.
fn fixed_camera(w: u32, h: u32, n: usize) -> Vec<Arc<Picture>> {
    let scene = picture(w, h, 1, 0.0);
    let frame = |t: usize| {
        let (mut p, mut noise) = ((*scene).clone(), rng(t as u64 + 1));
        for (i, plane) in p.planes_mut().iter_mut().enumerate() {
            let size = if i == 0 { 8.0 } else { 4.0 };
            let centre = (size * (1.5 + t as f32 / 6.0), size * 3.0);
            for y in 0..plane.height() {
                for (x, v) in plane.row_mut(y).iter_mut().enumerate() {
                    let (dx, dy) = (x as f32 - centre.0, y as f32 - centre.1);
                    let disc = if dx * dx + dy * dy < size * size {
                        150
                    } else {
                        0
                    };
                    *v = (*v + disc + (noise() % 9) as u16).min(1023);
                }
            }
        }
        p.pad();
        Arc::new(p)
    };
    (0..n).map(frame).collect()
}

fn still_frames(units: &[EncodedFrame]) -> usize {
    let still = units.iter().filter(|u| {
        let payload = AccessUnit::parse(&u.data).unwrap().payload;
        FrameHeader::parse(payload).unwrap().0.still
    });
    still.count()
}

#[test]
fn where_nothing_moves_no_network_runs() {
    let (w, h) = (320, 256);
    let frames = fixed_camera(w, h, 10);
    let quality = |units: &[EncodedFrame]| {
        let shown = reconstructions(units);
        let pairs = shown.iter().zip(&frames);
        pairs.map(|(a, b)| a.psnr_yuv(b)).sum::<f64>() / frames.len() as f64
    };
    // Places alone: whole frames that stay as predicted have a test of their own, and what the
    // filter changes is more than what is compared here.
    let tuning = Tuning {
        as_predicted: [0.0; 2],
        temporal_filter: [0.0; 4],
        ..Tuning::default()
    };
    for bframes in [0, 3] {
        let with = EncoderConfig {
            quantizer: 32,
            tuning: Some(tuning),
            ..config(w, h, bframes)
        };
        let mut without = with.clone();
        without.tuning = Some(Tuning {
            still: 0.0,
            ..tuning
        });
        let (with, without) = (encode(with, &frames), encode(without, &frames));
        assert_eq!(still_frames(&without), 0);
        assert!(still_frames(&with) >= 3, "{}", still_frames(&with));
        let bytes = |units: &[EncodedFrame]| datas(units).map(<[u8]>::len).sum::<usize>();
        let (less, more) = (bytes(&with), bytes(&without));
        assert!(less as f64 <= 1.02 * more as f64, "{less} {more} bytes");
        let (better, worse) = (quality(&with), quality(&without));
        assert!(better > worse, "{better} {worse} dB");
        // In parts, batches and threads: what the encoder saw.
        for (threads, batch_size) in [(1, 1), (2, 4)] {
            let mut decoder = decoder_with(
                threads,
                DecoderConfig {
                    batch_size,
                    threads: threads as u32,
                    ..DecoderConfig::default()
                },
            );
            let decoded = decode(&mut decoder, datas(&with));
            assert_exact(&with, &decoded);
            assert_eq!(decoder.stats().verified, frames.len() as u64);
        }
    }
}

#[test]
fn frames_that_are_predicted_well_stay_so() {
    let (w, h) = (160, 128);
    let scene = picture(w, h, 1, 0.0);
    let frame = |t: u64| {
        let (mut p, mut noise) = ((*scene).clone(), rng(t + 1));
        for plane in p.planes_mut() {
            for v in plane.data_mut() {
                *v = (*v + (noise() % 9) as u16).min(1023);
            }
        }
        Arc::new(p)
    };
    let frames: Vec<_> = (0..9).map(frame).collect();
    let run = |as_predicted| {
        let units = encode(
            EncoderConfig {
                quantizer: 32,
                tuning: Some(Tuning {
                    as_predicted,
                    ..Tuning::default()
                }),
                ..config(w, h, 7)
            },
            &frames,
        );
        let decoded = decode(
            &mut decoder_with(1, DecoderConfig::default()),
            datas(&units),
        );
        assert_exact(&units, &decoded);
        units
    };
    // A bound of almost nothing is that of noise, which is always there.
    let (with, without) = (run([2.0, 10.0]), run([1e-6, 10.0]));
    let bytes = |units: &[EncodedFrame]| -> usize {
        let last = units.iter().filter(|u| !u.is_reference);
        last.map(|u| u.stats.hyper_bytes + u.stats.latent_bytes)
            .sum()
    };
    assert_eq!(with.iter().filter(|u| !u.is_reference).count(), 4);
    assert_eq!(bytes(&with), 0);
    assert!(bytes(&without) > 0);
}

#[test]
fn threads_of_the_encoder_change_no_byte() {
    let frames = clip(96, 64, 18);
    let rates = [
        RateControl::Cq,
        RateControl::Vbr {
            bitrate: 100_000,
            max_bitrate: None,
        },
    ];
    for rate_control in rates {
        let run = |threads: u32| {
            let config = EncoderConfig {
                batch_size: 1,
                threads,
                rate_control,
                ..config(96, 64, 7)
            };
            let model = model(threads.min(2) as usize);
            let units = encode_with(&mut Encoder::new(model, config).unwrap(), &frames);
            units.into_iter().map(|u| u.data).collect::<Vec<_>>()
        };
        let one = run(1);
        for threads in [2, 3, 8] {
            assert_eq!(run(threads), one, "{threads} threads, {rate_control:?}");
        }
    }
}

#[test]
fn flags_of_a_later_version_are_refused() {
    let frames = fixed_camera(320, 256, 10);
    let coarse = EncoderConfig {
        quantizer: 32,
        ..config(320, 256, 0)
    };
    let units = encode(coarse, &frames);
    let at = units
        .iter()
        .position(|u| still_frames(std::slice::from_ref(u)) == 1);
    let at = at.expect("a frame with a still map");
    let later = with_frame(&units[at].data, |payload| payload[4] |= 2);
    let mut decoder = decoder();
    decode(&mut decoder, datas(&units[..at]));
    let error = decoder.send(&later, 99).unwrap_err().to_string();
    assert!(error.contains("update the decoder"), "{error}");
}

#[test]
fn quality_and_rate_follow_the_quantizer() {
    let frames = clip(96, 64, 5);
    for bframes in [0, 3] {
        let mut last = (usize::MAX, f64::MAX);
        for quantizer in [4, 16, 28, 40, 52, 63] {
            let units = encode(
                EncoderConfig {
                    quantizer,
                    ..config(96, 64, bframes)
                },
                &frames,
            );
            let bytes: usize = units.iter().map(|u| u.data.len()).sum();
            let psnr = reconstructions(&units)
                .iter()
                .zip(&frames)
                .map(|(a, b)| a.psnr_yuv(b))
                .sum::<f64>()
                / 5.0;
            assert!(
                bytes < last.0 && psnr < last.1,
                "q {quantizer}: {bytes} bytes {psnr} dB after {last:?}"
            );
            last = (bytes, psnr);
            assert_exact(&units, &decode(&mut decoder(), datas(&units)));
        }
    }
}

#[test]
fn batches_and_threads_change_nothing() {
    let frames = clip(96, 64, 18);
    for (bframes, key_int_max) in [(7, 0), (0, 1)] {
        for (encoder_threads, encoder_batch) in [(1, 1), (2, 4), (2, 8)] {
            let config = EncoderConfig {
                batch_size: encoder_batch,
                threads: encoder_threads,
                key_int_max,
                ..config(96, 64, bframes)
            };
            let mut encoder = Encoder::new(model(encoder_threads as usize), config).unwrap();
            let units = encode_with(&mut encoder, &frames);
            for (threads, batch_size) in [(1, 1), (2, 1), (1, 3), (2, 8)] {
                let config = DecoderConfig {
                    threads: threads as u32,
                    batch_size,
                    ..DecoderConfig::default()
                };
                let mut decoder = decoder_with(threads, config);
                let decoded = decode(&mut decoder, datas(&units));
                assert_exact(&units, &decoded);
            }
        }
    }
}

#[test]
fn key_frames_of_a_stream_that_is_not_live_go_through_the_networks_together() {
    let frames = clip(64, 48, 10);
    let all_key = |key_int_max| EncoderConfig {
        key_int_max,
        ..config(64, 48, 0)
    };
    let units = encode(all_key(1), &frames);
    assert!(units.iter().all(|u| u.key));
    let run = |units: &[EncodedFrame], live, batch_size| {
        let config = DecoderConfig {
            live,
            batch_size,
            threads: 1,
            ..DecoderConfig::default()
        };
        let mut decoder = decoder_with(1, config);
        let decoded = decode(&mut decoder, datas(units));
        assert_exact(units, &decoded);
        decoder.stats().batches
    };
    // Four, four, and the two that are left when the stream ends.
    assert_eq!(run(&units, false, 4), 3);
    assert_eq!(run(&units, false, 1), 10);
    assert_eq!(run(&units, true, 4), 10);
    // Where inter frames follow, key frames are not waited for.
    let units = encode(all_key(5), &frames);
    assert_eq!(units.iter().filter(|u| u.key).count(), 2);
    assert_eq!(run(&units, false, 4), 10);
}

#[test]
fn damage_among_waiting_key_frames_spoils_no_other() {
    let frames = clip(64, 48, 6);
    let config = EncoderConfig {
        key_int_max: 1,
        ..config(64, 48, 0)
    };
    let units = encode(config, &frames);
    let mut datas: Vec<Vec<u8>> = datas(&units).map(<[u8]>::to_vec).collect();
    let middle = datas[2].len() / 2;
    datas[2][middle] ^= 0x55;
    let mut decoder = decoder_with(
        1,
        DecoderConfig {
            live: false,
            threads: 1,
            ..DecoderConfig::default()
        },
    );
    let decoded = decode(&mut decoder, datas.iter().map(|d| &d[..]));
    let expected = reconstructions(&units);
    assert_eq!(decoded.len(), 6);
    for d in &decoded {
        let Decoded::Frame(f) = d else {
            panic!("{d:?}");
        };
        let n = f.id as usize;
        assert_eq!(f.concealed, n == 2, "frame {n}");
        // The damaged frame shows the one before it again.
        let shown = if n == 2 { 1 } else { n };
        assert!(f.picture.is_equal(&expected[shown]), "frame {n}");
    }
}

#[test]
fn low_delay_has_no_delay() {
    let frames = clip(64, 48, 6);
    let mut encoder = Encoder::new(model(1), config(64, 48, 0)).unwrap();
    let mut decoder = decoder();
    assert_eq!(encoder.latency_frames(), 0);
    for (i, p) in frames.iter().enumerate() {
        encoder.send(InputFrame::new(p.clone(), i as u64)).unwrap();
        let unit = encoder.receive().unwrap().expect("at once");
        decoder.send(&unit.data, unit.id).unwrap();
        let Some(Decoded::Frame(f)) = decoder.receive() else {
            panic!("at once");
        };
        assert_eq!(f.id, i as u64);
    }
    let hierarchical = Encoder::new(model(1), config(64, 48, 7)).unwrap();
    assert_eq!(hierarchical.latency_frames(), 11);
    let zero = EncoderConfig {
        tune: Tune::ZeroLatency,
        ..config(64, 48, 7)
    };
    assert_eq!(Encoder::new(model(1), zero).unwrap().latency_frames(), 0);
}

#[test]
fn times_come_through() {
    let frames = clip(32, 32, 9);
    let mut encoder = Encoder::new(model(1), config(32, 32, 3)).unwrap();
    let mut units = Vec::new();
    for (i, p) in frames.iter().enumerate() {
        encoder
            .send(InputFrame {
                pts: Some(i as u64 * 40_000_000 + 5),
                duration: Some(40_000_000),
                ..InputFrame::new(p.clone(), i as u64)
            })
            .unwrap();
    }
    encoder.finish().unwrap();
    drain(&mut encoder, &mut units);
    let decoded = decode(&mut decoder(), datas(&units));
    for (i, f) in sound(&decoded).iter().enumerate() {
        assert_eq!(f.pts, Some(i as u64 * 40_000_000 + 5));
        assert_eq!(f.duration, Some(40_000_000));
    }
}

#[test]
fn repeats_cost_nothing_and_scene_cuts_start_key_frames() {
    // Still for ten frames (copies, not the same allocation), then another scene.
    let mut frames: Vec<_> = (0..10)
        .map(|_| Arc::new((*picture(160, 96, 0, 0.0)).clone()))
        .collect();
    frames.extend((0..10).map(|t| picture(160, 96, 3, t as f32)));
    for bframes in [0, 3, 7] {
        let units = encode(config(160, 96, bframes), &frames);
        let mut kinds: Vec<_> = units.iter().map(|u| (u.id, u.kind)).collect();
        kinds.sort_by_key(|k| k.0);
        for (id, kind) in kinds {
            let expected = match id {
                0 | 10 => FrameType::Key,
                1..10 => FrameType::Repeat,
                _ => FrameType::Inter,
            };
            assert_eq!(kind, expected, "bframes {bframes} frame {id}");
        }
        let repeats = units.iter().filter(|u| u.kind == FrameType::Repeat);
        assert!(repeats.clone().count() == 9 && repeats.map(|u| u.data.len()).max() < Some(24));
        assert_exact(&units, &decode(&mut decoder(), datas(&units)));
    }
}

#[test]
fn forced_key_frames_come_exactly_there() {
    let frames = clip(64, 48, 14);
    for bframes in [0, 7] {
        let mut encoder = Encoder::new(model(1), config(64, 48, bframes)).unwrap();
        let mut units = Vec::new();
        for (i, p) in frames.iter().enumerate() {
            encoder
                .send(InputFrame {
                    force_key: i == 5,
                    ..InputFrame::new(p.clone(), i as u64)
                })
                .unwrap();
            drain(&mut encoder, &mut units);
        }
        encoder.finish().unwrap();
        drain(&mut encoder, &mut units);
        let keys: Vec<u64> = units.iter().filter(|u| u.key).map(|u| u.id).collect();
        assert_eq!(keys, [0, 5]);
        assert_exact(&units, &decode(&mut decoder(), datas(&units)));
    }
}

#[test]
fn joining_concatenating_and_changing_parameters() {
    let units = |w, h, n, bframes| {
        let config = EncoderConfig {
            key_int_max: 8,
            ..config(w, h, bframes)
        };
        encode(config, &clip(w, h, n))
    };
    let (a, b) = (units(64, 48, 20, 3), units(80, 32, 6, 0));
    // Joined in the middle: nothing before the next key frame, then everything.
    let start = 3;
    let decoded = decode(&mut decoder(), datas(&a[start..]));
    let first_key = a[start..].iter().position(|u| u.key).unwrap();
    let dropped = decoded
        .iter()
        .take_while(|d| matches!(d, Decoded::Dropped { damaged: false, .. }))
        .count();
    assert_eq!(dropped, first_key);
    let expected = reconstructions(&a);
    let rest = sound(&decoded[dropped..]);
    assert_eq!(rest.len(), 20 - 8);
    for (f, e) in rest.iter().zip(&expected[8..]) {
        assert!(f.picture.is_equal(e));
    }
    // One stream after the other in one decoder, without draining in between.
    let mut decoder = decoder();
    let all: Vec<&[u8]> = datas(&a).chain(datas(&b)).chain(datas(&a)).collect();
    let decoded = decode(&mut decoder, all);
    let frames = sound(&decoded);
    let expected: Vec<_> = [&a, &b, &a]
        .iter()
        .flat_map(|u| reconstructions(u))
        .collect();
    assert_eq!(frames.len(), expected.len());
    for (f, e) in frames.iter().zip(&expected) {
        assert!(f.picture.is_equal(e));
        assert_eq!(f.info.width, e.width());
    }
    // A seek: the decoder forgets, and takes up at a key frame.
    decoder.send(&a[0].data, 0).unwrap();
    decoder.reset();
    assert!(decoder.receive().is_none());
    let key = a.iter().position(|u| u.key && u.id > 0).unwrap();
    let decoded = decode(&mut decoder, datas(&a[key..]));
    assert!(!sound(&decoded).is_empty());
}

#[test]
fn encoder_reset_starts_anew() {
    let frames = clip(64, 48, 10);
    let mut encoder = Encoder::new(model(1), config(64, 48, 7)).unwrap();
    for (i, p) in frames.iter().take(5).enumerate() {
        encoder.send(InputFrame::new(p.clone(), i as u64)).unwrap();
    }
    encoder.reset();
    assert!(encoder.receive().unwrap().is_none());
    let units = encode_with(&mut encoder, &frames);
    assert!(units[0].key && units.len() == 10);
    assert_exact(&units, &decode(&mut decoder(), datas(&units)));
    let late = InputFrame::new(frames[0].clone(), 99);
    assert!(matches!(encoder.send(late), Err(CodecError::Finished)));
    let wrong = InputFrame::new(Arc::new(Picture::new(16, 16).unwrap()), 0);
    encoder.reset();
    assert!(matches!(encoder.send(wrong), Err(CodecError::Size { .. })));
}

#[test]
fn bit_rates_are_met() {
    let frames: Vec<_> = (0..60).map(|t| picture(160, 96, 0, t as f32)).collect();
    for (bframes, seconds) in [(0, 2.0), (7, 2.0)] {
        // What constant quality costs here is a rate that can be met.
        let cq = encode(config(160, 96, bframes), &frames);
        let rate = cq.iter().map(|u| u.data.len()).sum::<usize>() as f64 * 8.0 / seconds;
        let mut config = config(160, 96, bframes);
        config.info.frame_rate = Some((30, 1));
        config.quantizer = 40;
        config.rate_control = RateControl::Vbr {
            bitrate: rate as u64,
            max_bitrate: None,
        };
        let units = encode(config, &frames);
        let got = units.iter().map(|u| u.data.len()).sum::<usize>() as f64 * 8.0 / seconds;
        let error = got / rate - 1.0;
        assert!(
            error.abs() < 0.15,
            "bframes {bframes}: {:+.1} %",
            100.0 * error
        );
        assert_exact(&units, &decode(&mut decoder(), datas(&units)));
    }
}

/// Decodes damaged units. Each must come out once; whatever is called sound must be exact.
fn check_damaged(units: &[EncodedFrame], damaged: &[Vec<u8>], conceal: bool) -> usize {
    let mut decoder = decoder_with(
        1,
        DecoderConfig {
            conceal,
            ..DecoderConfig::default()
        },
    );
    let decoded = decode(&mut decoder, damaged.iter().map(|d| &d[..]));
    assert_eq!(decoded.len(), damaged.len(), "one result per unit");
    let truth: HashMap<u64, Arc<Picture>> = {
        let all = reconstructions(units);
        (0u64..).zip(all).collect()
    };
    let mut ids: Vec<u64> = Vec::new();
    let mut good = 0;
    for d in &decoded {
        match d {
            Decoded::Frame(f) => {
                ids.push(f.id);
                if f.concealed {
                    assert!(conceal || f.warning.is_some());
                } else {
                    let n = units[f.id as usize].id;
                    assert!(f.picture.is_equal(&truth[&n]), "frame {n} is called sound");
                    good += 1;
                }
            }
            Decoded::Dropped { id, .. } => ids.push(*id),
            Decoded::Skipped { .. } => panic!("nobody is in a hurry"),
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..damaged.len() as u64).collect::<Vec<_>>());
    good
}

#[test]
fn damage_is_concealed_and_never_called_sound() {
    let mut rng = rng(11);
    for bframes in [0, 3] {
        let config = EncoderConfig {
            key_int_max: 6,
            ..config(48, 32, bframes)
        };
        let units = encode(config, &clip(48, 32, 12));
        let original: Vec<Vec<u8>> = datas(&units).map(<[u8]>::to_vec).collect();
        assert_eq!(check_damaged(&units, &original, true), 12);
        for at in 0..units.len() {
            let len = original[at].len();
            for kind in 0..4 {
                let mut damaged = original.clone();
                match kind {
                    // A flipped bit, a cut, nothing at all, garbage.
                    0 => damaged[at][rng() as usize % len] ^= 1 << (rng() % 8),
                    1 => damaged[at].truncate(rng() as usize % len),
                    2 => damaged[at].clear(),
                    _ => damaged[at].fill_with(|| rng() as u8),
                }
                let conceal = !rng().is_multiple_of(4);
                let good = check_damaged(&units, &damaged, conceal);
                // One of two groups of pictures is untouched.
                assert!((6..12).contains(&good), "{good}");
            }
            // A unit that is lost altogether: the rest still comes out, and is exact where sound.
            let mut decoder = decoder();
            let rest = (0..units.len()).filter(|&i| i != at);
            let mut out = Vec::new();
            for i in rest {
                decoder.send(&original[i], i as u64).unwrap();
                out.extend(std::iter::from_fn(|| decoder.receive()));
            }
            decoder.finish().unwrap();
            out.extend(std::iter::from_fn(|| decoder.receive()));
            assert_eq!(out.len(), units.len() - 1);
            let truth = reconstructions(&units);
            for d in &out {
                if let Decoded::Frame(f) = d
                    && !f.concealed
                {
                    let n = units[f.id as usize].id as usize;
                    assert!(f.picture.is_equal(&truth[n]));
                }
            }
        }
    }
}

/// The same unit with other bytes in its frame's payload, and check sums that hold.
fn forge(data: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let scanner = UnitScanner::new();
    let (mut pos, mut out, mut change) = (0, Vec::new(), Some(change));
    while let Scan::Unit(unit) = scanner.scan(&data[pos..], true) {
        let mut payload = unit.payload.to_vec();
        if unit.kind == UnitType::Frame
            && let Some(change) = change.take()
        {
            change(&mut payload);
        }
        write_unit(&mut out, unit.kind, &payload).unwrap();
        pos += unit.len;
    }
    out
}

#[test]
fn forged_units_are_found_out_by_the_frame_checksum() {
    let mut rng = rng(7);
    for bframes in [0, 3] {
        let units = encode(config(48, 32, bframes), &clip(48, 32, 5));
        let original: Vec<Vec<u8>> = datas(&units).map(<[u8]>::to_vec).collect();
        for round in 0..60 {
            let mut damaged = original.clone();
            let at = rng() as usize % units.len();
            damaged[at] = forge(&original[at], |p| {
                let i = rng() as usize % p.len();
                match round % 3 {
                    0 => p[i] ^= 1 << (rng() % 8),
                    1 => p.truncate(i),
                    _ => p[i..].fill_with(|| rng() as u8),
                }
            });
            // A forged header may name other frames: then the order may differ, so only soundness
            // counts.
            let mut decoder = decoder();
            let truth: Vec<_> = reconstructions(&units);
            let decoded = decode(&mut decoder, damaged.iter().map(|d| &d[..]));
            assert_eq!(decoded.len(), units.len());
            for d in &decoded {
                if let Decoded::Frame(f) = d
                    && !f.concealed
                    && f.kind != FrameType::Repeat
                    && AccessUnit::parse(&damaged[f.id as usize])
                        .is_ok_and(|u| u.frame.checksum.is_some())
                {
                    let n = units[f.id as usize].id as usize;
                    assert!(f.picture.is_equal(&truth[n]), "round {round} frame {n}");
                }
            }
        }
    }
}

#[test]
fn wrong_models_and_headers_give_one_clear_error() {
    let units = encode(config(32, 32, 0), &clip(32, 32, 1));
    // The provider's own error comes through.
    let mut decoder = Decoder::new(
        |name: &str, hash: &BundleHash| -> Result<Arc<Model>, CodecError> {
            Err(CodecError::Model {
                name: name.into(),
                hash: format!("{:02x}", hash[0]),
                what: "not installed".into(),
            })
        },
        DecoderConfig::default(),
    );
    let err = decoder.send(&units[0].data, 0).unwrap_err().to_string();
    assert!(
        err.contains("realtime") && err.contains("not installed"),
        "{err}"
    );
    // Another model than the stream names is refused, whatever the provider thinks.
    let unit = AccessUnit::parse(&units[0].data).unwrap();
    let mut header = unit.sequence.clone().unwrap();
    header.bundle_hash[5] ^= 1;
    let mut forged = Vec::new();
    let payload = header.to_payload().unwrap();
    write_unit(&mut forged, UnitType::Sequence, &payload).unwrap();
    write_unit(&mut forged, UnitType::Frame, unit.payload).unwrap();
    let err = self::decoder().send(&forged, 0).unwrap_err();
    assert!(matches!(err, CodecError::Model { .. }), "{err}");
    // A picture beyond the limit is refused before anything is allocated for it.
    let mut header = unit.sequence.clone().unwrap();
    (header.width, header.height) = (16384, 16384);
    header.cost = None;
    let mut forged = Vec::new();
    let payload = header.to_payload().unwrap();
    write_unit(&mut forged, UnitType::Sequence, &payload).unwrap();
    write_unit(&mut forged, UnitType::Frame, unit.payload).unwrap();
    let err = self::decoder().send(&forged, 0).unwrap_err();
    assert!(matches!(err, CodecError::TooLarge { .. }), "{err}");
    // A decoder that saw all that still works.
    let mut decoder = self::decoder();
    let _ = decoder.send(&forged, 0);
    assert_exact(&units, &decode(&mut decoder, datas(&units)));
}

#[test]
fn the_stream_header_can_come_first() {
    let mut encoder = Encoder::new(model(1), config(40, 24, 0)).unwrap();
    let header = encoder.sequence_header();
    let units = encode_with(&mut encoder, &clip(40, 24, 3));
    assert!(units[0].data.starts_with(&header));
    let mut decoder = decoder();
    decoder.set_sequence_header(&header).unwrap();
    assert_eq!(decoder.info().unwrap().width, 40);
    assert_exact(&units, &decode(&mut decoder, datas(&units)));
    assert!(decoder.set_sequence_header(b"no header").is_err());
}

#[test]
fn cancelling_aborts_and_reset_recovers() {
    let frames = clip(64, 48, 3);
    let mut encoder = Encoder::new(model(1), config(64, 48, 0)).unwrap();
    encoder.cancel_handle().cancel();
    let err = encoder
        .send(InputFrame::new(frames[0].clone(), 0))
        .unwrap_err();
    assert!(err.is_cancelled() && matches!(err, CodecError::Nn(NnError::Cancelled)));
    encoder.reset();
    let units = encode_with(&mut encoder, &frames);
    let mut decoder = decoder();
    decoder.cancel_handle().cancel();
    assert!(decoder.send(&units[0].data, 0).unwrap_err().is_cancelled());
    decoder.reset();
    assert_exact(&units, &decode(&mut decoder, datas(&units)));
}

#[test]
fn a_lookahead_takes_the_noise_out_of_a_still_scene() {
    let mut random = rng(7);
    let still = picture(96, 64, 0, 0.0);
    let noisy: Vec<Arc<Picture>> = (0..13)
        .map(|_| {
            let mut p = (*still).clone();
            for plane in p.planes_mut() {
                for v in plane.data_mut() {
                    *v = (*v + (random() % 33) as u16).saturating_sub(16).min(1023);
                }
            }
            Arc::new(p)
        })
        .collect();
    let coded = |lookahead| {
        let units = encode(
            EncoderConfig {
                lookahead,
                ..config(96, 64, 7)
            },
            &noisy,
        );
        let bytes: usize = units.iter().map(|u| u.data.len()).sum();
        let shown = |u: &EncodedFrame| u.stats.reconstruction.as_ref().unwrap().sse(&still)[0];
        (bytes, units.iter().map(shown).sum::<u64>())
    };
    let (plain, filtered) = (coded(0), coded(4));
    assert!(filtered.0 < plain.0, "{filtered:?} {plain:?}");
    assert!(
        filtered.1 < plain.1,
        "nearer to the scene, too: {filtered:?} {plain:?}"
    );
}

/// A unit with other bytes in its frame, and a checksum that fits them.
fn with_frame(unit: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let access = AccessUnit::parse(unit).unwrap();
    let mut out = Vec::new();
    if let Some(range) = access.sequence_unit {
        out.extend(&unit[range]);
    }
    let mut payload = access.payload.to_vec();
    change(&mut payload);
    write_unit(&mut out, UnitType::Frame, &payload).unwrap();
    out
}

#[test]
fn nothing_of_another_stream_is_shown_as_sound_where_a_key_frame_is_lost() {
    // Streams with the same header, so that only the frames tell them apart; the last ones begin
    // with the same picture.
    let dark = Arc::new(Picture::new(32, 32).unwrap());
    let streams: Vec<_> = (0..14u32)
        .map(|n| {
            let mut frames: Vec<_> = (0..7)
                .map(|t| picture(32, 32, n % 5, t as f32 + n as f32))
                .collect();
            if n >= 11 {
                frames[0] = dark.clone();
            }
            let config = EncoderConfig {
                frame_checksum: false,
                scene_cut: false,
                quantizer: 24 + (n % 3) as u8,
                speed: SpeedPreset::Fast,
                ..config(32, 32, if n % 2 == 0 { 0 } else { 3 })
            };
            encode(config, &frames)
        })
        .collect();
    let header = |n: usize| AccessUnit::parse(&streams[n][0].data).unwrap().sequence;
    let (mut joins, mut concealed) = (0, 0);
    for (a, first) in streams.iter().enumerate() {
        for (b, second) in streams.iter().enumerate() {
            if a == b || header(a) != header(b) {
                continue;
            }
            for lost in [1, 2, 4] {
                joins += 1;
                let units: Vec<&EncodedFrame> = first.iter().chain(&second[lost..]).collect();
                let decoded = decode(&mut decoder(), units.iter().map(|u| &u.data[..]));
                let truth = [reconstructions(first), reconstructions(second)];
                let mut warnings = 0;
                for d in &decoded {
                    let Decoded::Frame(f) = d else {
                        panic!("{a}, {b}: {d:?}");
                    };
                    warnings += usize::from(f.warning.is_some());
                    concealed += usize::from(f.concealed);
                    let of = usize::from(f.id as usize >= first.len());
                    let n = units[f.id as usize].id as usize;
                    let right = f.picture.is_equal(&truth[of][n]);
                    assert!(
                        f.concealed || right,
                        "{a}, {b}, {lost} lost: frame {n} is wrong"
                    );
                }
                assert!(warnings <= 1, "{a}, {b}: {warnings} warnings of one burst");
            }
        }
    }
    assert!(
        joins >= 180 && concealed > 4 * joins / 2,
        "{joins} {concealed}"
    );
}

#[test]
fn the_first_group_has_a_number_of_its_own_and_the_same_bytes_every_time() {
    let numbers: Vec<u8> = (0..4)
        .map(|scene| {
            let frames: Vec<_> = (0..2).map(|t| picture(32, 32, scene, t as f32)).collect();
            let units = encode(config(32, 32, 0), &frames);
            let again = encode(config(32, 32, 0), &frames);
            assert!(datas(&units).eq(datas(&again)));
            let header = |u: &EncodedFrame| AccessUnit::parse(&u.data).unwrap().frame;
            assert!(header(&units[0]).key_check.is_none());
            assert!(header(&units[1]).key_check.is_some());
            header(&units[0]).gop
        })
        .collect();
    assert!(numbers.windows(2).any(|n| n[0] != n[1]), "{numbers:?}");
}

#[test]
fn a_lost_key_frame_leaves_the_last_picture() {
    let frames = clip(64, 48, 24);
    for bframes in [0, 7] {
        let config = EncoderConfig {
            key_int_max: 8,
            ..config(64, 48, bframes)
        };
        let units = encode(config, &frames);
        let keys: Vec<usize> = (0..units.len()).filter(|&i| units[i].key).collect();
        assert_eq!(keys.len(), 3);
        let left: Vec<&EncodedFrame> = (0..units.len())
            .filter(|&i| i != keys[1])
            .map(|i| &units[i])
            .collect();
        let decoded = decode(&mut decoder(), left.iter().map(|u| &u.data[..]));
        assert_eq!(decoded.len(), 23);
        let truth = reconstructions(&units);
        let mut warnings = Vec::new();
        for (place, d) in decoded.iter().enumerate() {
            let Decoded::Frame(f) = d else {
                panic!("bframes {bframes}: {d:?}");
            };
            let n = left[f.id as usize].id as usize;
            assert_eq!(n, if place < 8 { place } else { place + 1 }, "order");
            warnings.extend(&f.warning);
            let lost = (9..16).contains(&n);
            assert_eq!(f.concealed, lost, "frame {n}");
            assert!(
                f.picture.is_equal(&truth[if lost { 7 } else { n }]),
                "frame {n}"
            );
        }
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }
}

#[test]
fn a_lost_frame_that_nothing_refers_to_is_noticed() {
    let units = encode(config(64, 48, 7), &clip(64, 48, 17));
    let lost = units.iter().position(|u| u.level == 3).unwrap();
    for (expected, told) in [(false, 1), (true, 0)] {
        let mut decoder = decoder();
        decoder.set_gaps_expected(expected);
        let left = (0..units.len()).filter(|&i| i != lost);
        let decoded = decode(&mut decoder, left.map(|i| &units[i].data[..]));
        let warnings = decoded
            .iter()
            .filter(|d| matches!(d, Decoded::Frame(f) if !f.concealed && f.warning.is_some()))
            .count();
        assert_eq!(warnings, told);
        assert_eq!(decoder.stats().missing, 1);
        assert_eq!(decoder.stats().concealed, 0);
    }
}

#[test]
fn a_repeat_of_a_concealed_picture_is_concealed_too() {
    let mut frames = clip(64, 48, 4);
    frames.extend([frames[3].clone(), frames[3].clone()]);
    let units = encode(config(64, 48, 0), &frames);
    assert_eq!(units[5].kind, FrameType::Repeat);
    let datas = (0..6).filter(|&i| i != 2).map(|i| &units[i].data[..]);
    let decoded = decode(&mut decoder(), datas);
    let concealed: Vec<bool> = decoded
        .iter()
        .map(|d| matches!(d, Decoded::Frame(f) if f.concealed))
        .collect();
    assert_eq!(concealed, [false, false, true, true, true]);
}

#[test]
fn who_is_in_a_hurry_leaves_out_what_others_do_not_need() {
    let frames = clip(64, 48, 33);
    let config = EncoderConfig {
        key_int_max: 17,
        ..config(64, 48, 7)
    };
    let units = encode(config, &frames);
    let truth = reconstructions(&units);
    let count = |f: fn(&EncodedFrame) -> bool| units.iter().filter(|u| !f(u)).count() as u64;
    let anchor = |u: &EncodedFrame| u.key || u.level == 0;
    for (hurry, skipped) in [
        (Hurry::No, 0),
        (Hurry::Unreferenced, count(|u| u.is_reference)),
        (Hurry::BetweenAnchors, count(anchor)),
        (Hurry::Inter, count(|u| u.key)),
    ] {
        let mut decoder = decoder();
        decoder.set_hurry(hurry);
        let decoded = decode(&mut decoder, datas(&units));
        assert_eq!(decoded.len(), units.len());
        assert_eq!(decoder.stats().skipped, skipped, "{hurry:?}");
        assert!(hurry == Hurry::No || skipped > 0);
        assert_eq!(decoder.stats().missing, 0);
        for d in &decoded {
            match d {
                Decoded::Frame(f) => {
                    assert!(!f.concealed && f.warning.is_none(), "{:?}", f.warning);
                    let n = units[f.id as usize].id as usize;
                    assert!(f.picture.is_equal(&truth[n]));
                }
                Decoded::Skipped { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    // What refers to a frame that was left out is left out, too, without a word.
    let mut decoder = decoder();
    let mut out = Vec::new();
    for (i, unit) in datas(&units).enumerate() {
        decoder.set_hurry(if i == 1 { Hurry::Inter } else { Hurry::No });
        decoder.send(unit, i as u64).unwrap();
        out.extend(std::iter::from_fn(|| decoder.receive()));
    }
    assert_eq!(decoder.stats().concealed, 0);
    assert_eq!(
        decoder.stats().skipped,
        16,
        "all of the first group but its key frame"
    );
}

#[test]
fn a_few_bytes_that_claim_a_huge_picture_are_refused_before_the_networks() {
    let hash = model(1).hash();
    let hash: BundleHash = std::array::from_fn(|i| hash[i]);
    for side in [4096, 8192] {
        for quantizer in [0, 28, 63] {
            for bytes in [0, 1, 6] {
                let header = SequenceHeader::new("realtime", hash, side, side, 8);
                let mut unit = Vec::new();
                write_unit(&mut unit, UnitType::Sequence, &header.to_payload().unwrap()).unwrap();
                let y = vec![0x5a; bytes];
                let payload = FramePayload {
                    header: FrameHeader::key(0, quantizer),
                    map: b"",
                    ink: b"",
                    still: b"",
                    side: b"",
                    z: b"",
                    y: vec![&y[..]],
                };
                let payload = payload.to_payload(1).unwrap();
                write_unit(&mut unit, UnitType::Frame, &payload).unwrap();
                let mut decoder = decoder();
                let decoded = decode(&mut decoder, [&unit[..]]);
                let refused = matches!(&decoded[..], [Decoded::Dropped { damaged: true, .. }]);
                assert!(refused, "{decoded:?}");
                assert_eq!(decoder.stats().batches, 0, "no network ran at that size");
            }
        }
    }
}

#[test]
fn flat_pictures_of_any_size_are_no_damage() {
    for (w, h) in [(16, 4000), (1400, 700)] {
        let mut flat = Picture::new(w, h).unwrap();
        for plane in flat.planes_mut() {
            for y in 0..plane.height() {
                plane.row_mut(y).fill(512);
            }
        }
        let config = EncoderConfig {
            speed: SpeedPreset::Fast,
            quantizer: 45,
            ..config(w, h, 0)
        };
        let units = encode(config, &[Arc::new(flat)]);
        assert_exact(&units, &decode(&mut decoder(), datas(&units)));
    }
}

#[test]
fn nothing_is_synthesised_of_a_damaged_frame_in_a_batch() {
    let config = EncoderConfig {
        key_int_max: 1,
        ..config(64, 48, 0)
    };
    let units = encode(config, &clip(64, 48, 4));
    let truth = reconstructions(&units);
    // The checksum of the unit holds; the latent is cut.
    let mut cut: Vec<Vec<u8>> = datas(&units).map(<[u8]>::to_vec).collect();
    for i in [1, 2] {
        cut[i] = with_frame(&cut[i], |payload| payload.truncate(payload.len() - 9));
    }
    let config = DecoderConfig {
        live: false,
        threads: 1,
        ..DecoderConfig::default()
    };
    let mut decoder = decoder_with(1, config);
    let decoded = decode(&mut decoder, cut.iter().map(|u| &u[..]));
    let mut warnings = 0;
    for (n, d) in decoded.iter().enumerate() {
        let Decoded::Frame(f) = d else {
            panic!("{d:?}");
        };
        warnings += usize::from(f.warning.is_some());
        assert_eq!(f.concealed, [1, 2].contains(&n));
        assert!(f.picture.is_equal(&truth[if f.concealed { 0 } else { n }]));
    }
    assert_eq!(warnings, 1, "one burst");
}

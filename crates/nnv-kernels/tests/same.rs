// SPDX-License-Identifier: MPL-2.0
//! The kernels give what ONNX Runtime gives.

use nnv_format::grid::Grid;
use nnv_kernels::Kernels;
use nnv_nn::{Cancel, InterItem, Model, ModelSource, NnError, RuntimeOptions, embedded};

/// Numbers that look random, within ± `span`, often small ones.
fn numbers(seed: u64) -> impl FnMut(i64) -> i64 {
    let mut state = seed;
    move |span| {
        let mut draw = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as i64
        };
        let span = span >> (draw() % 8).min(6);
        draw().rem_euclid(2 * span + 1) - span
    }
}

#[test]
fn all_decoding_networks_give_what_onnx_runtime_gives() {
    let options = RuntimeOptions {
        threads: 1,
        ..RuntimeOptions::default()
    };
    let cancel = Cancel::new();
    for bundle in embedded() {
        let source = ModelSource::Embedded(bundle.name.into());
        let ours = Model::load_on(&Kernels, &source, &options).unwrap();
        let theirs = Model::load(&source, &options).unwrap();
        for (seed, (h, w, quantizers)) in [
            (1, 1, &[0u8][..]),
            (5, 7, &[63]),
            (9, 16, &[20, 40, 7]),
            (23, 40, &[32]),
        ]
        .into_iter()
        .enumerate()
        {
            let grid = Grid::new(h, w).unwrap();
            let mut next = numbers(seed as u64);
            let n = quantizers.len();
            let mut many = |len: usize, span: i64| -> Vec<Vec<i16>> {
                (0..n)
                    .map(|_| (0..len).map(|_| next(span) as i16).collect())
                    .collect()
            };
            let z: Vec<Vec<i8>> = many(ours.z_len(grid), 127)
                .into_iter()
                .map(|z| z.into_iter().map(|v| v as i8).collect())
                .collect();
            let r = many(grid.y_len(), 2047);
            let (p, d) = (
                many(grid.picture_len(), 512),
                many(grid.picture_len(), 1023),
            );
            let z: Vec<&[i8]> = z.iter().map(|v| &v[..]).collect();
            let r: Vec<&[i16]> = r.iter().map(|v| &v[..]).collect();
            for inter in [false, true] {
                let items: Vec<InterItem<'_>> = (0..n)
                    .map(|i| InterItem {
                        quantizer: quantizers[i],
                        p: &p[i],
                        d: &d[i],
                    })
                    .collect();
                let run = |model: &Model| {
                    let mut batch = match inter {
                        true => model.inter_batch(grid, &items).unwrap(),
                        false => model.key_batch(grid, quantizers).unwrap(),
                    };
                    batch.raise_scales(0, 3);
                    let prior = batch.prior(&z, &cancel).unwrap();
                    let pictures = batch.synthesise(&prior, &r, &cancel).unwrap();
                    let of = |i: usize| (prior.scale_idx(i).to_vec(), pictures.get(i).to_vec());
                    (0..n).map(of).collect::<Vec<_>>()
                };
                let (got, expected) = (run(&ours), run(&theirs));
                assert!(got == expected, "{} {h}×{w}, inter: {inter}", bundle.name);
            }
        }
    }
}

#[test]
fn what_the_kernels_do_not_have_is_refused_by_name() {
    let source = ModelSource::Embedded("realtime".into());
    let model = Model::load_on(&Kernels, &source, &RuntimeOptions::default()).unwrap();
    let error = model.prepare_encoder().unwrap_err();
    assert!(matches!(error, NnError::Provider { .. }), "{error}");
    let error = error.to_string();
    assert!(
        error.contains("key_enc") && error.contains("kernels cannot run"),
        "{error}"
    );
}

#[test]
fn a_cancelled_run_ends() {
    let source = ModelSource::Embedded("realtime".into());
    let model = Model::load_on(&Kernels, &source, &RuntimeOptions::default()).unwrap();
    let grid = Grid::new(4, 4).unwrap();
    let z = vec![0; model.z_len(grid)];
    let cancel = Cancel::new();
    cancel.cancel();
    let batch = model.key_batch(grid, &[20]).unwrap();
    assert!(matches!(
        batch.prior(&[&z], &cancel),
        Err(NnError::Cancelled)
    ));
    cancel.reset();
    assert!(batch.prior(&[&z], &cancel).is_ok());
}

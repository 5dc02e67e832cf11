// SPDX-License-Identifier: MPL-2.0
//! Time of the decoding networks with these kernels over that with ONNX Runtime, one thread each.
//!
//! `cargo run --release -p nnv-kernels --example kernels-speed [WIDTH HEIGHT [ROUNDS]]`

use std::time::Instant;

use nnv_format::grid::Grid;
use nnv_kernels::Kernels;
use nnv_nn::{Cancel, InterItem, Model, ModelSource, RuntimeOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<usize> = std::env::args()
        .skip(1)
        .map(|a| a.parse())
        .collect::<Result<_, _>>()?;
    let at = |i: usize, default| given.get(i).copied().unwrap_or(default);
    let (width, height, rounds) = (at(0, 640), at(1, 360), at(2, 9));
    let options = RuntimeOptions {
        threads: 1,
        ..RuntimeOptions::default()
    };
    let source = ModelSource::Embedded("realtime".into());
    let ours = Model::load_on(&Kernels, &source, &options)?;
    let theirs = Model::load(&source, &options)?;
    let grid = Grid::for_picture(width, height)?;
    let cancel = Cancel::new();
    let z = vec![3i8; ours.z_len(grid)];
    let r: Vec<i16> = (0..grid.y_len()).map(|i| (i % 61) as i16 - 30).collect();
    let p: Vec<i16> = (0..grid.picture_len())
        .map(|i| (i % 1000) as i16 - 500)
        .collect();
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        for (i, times) in times.iter_mut().enumerate() {
            let model = if i % 2 == 0 { &ours } else { &theirs };
            let start = Instant::now();
            let batch = match i / 2 {
                0 => model.key_batch(grid, &[20])?,
                _ => model.inter_batch(
                    grid,
                    &[InterItem {
                        quantizer: 20,
                        p: &p,
                        d: &p,
                    }],
                )?,
            };
            let prior = batch.prior(&[&z], &cancel)?;
            batch.synthesise(&prior, &[&r], &cancel)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let medians = times.map(|mut t| {
        t.sort_by(f64::total_cmp);
        t[t.len() / 2]
    });
    println!("{width}×{height}, one thread, medians of {rounds} runs in turn, ms a frame:");
    println!("            kernels   ONNX Runtime   ratio");
    for (name, pair) in ["key", "inter"].iter().zip(medians.chunks(2)) {
        println!(
            "  {name:5}  {:10.1}  {:13.1}  {:6.2}",
            pair[0],
            pair[1],
            pair[0] / pair[1]
        );
    }
    Ok(())
}

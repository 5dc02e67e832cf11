// SPDX-License-Identifier: MPL-2.0
//! Whether the spread of a network's turns tells where it is wrong: the error of places of 16×16
//! samples against the original, by tenths of their spread, and what watching costs.
//!
//! `cargo run --release -p nnv-sr --example sr-spread LARGE SMALL WIDTH HEIGHT [BUNDLE [TURNS]]`
//!
//! LARGE has frames of WIDTH×HEIGHT samples of luma, a byte each; SMALL the same frames at half the
//! size. ffmpeg makes them: `-pix_fmt gray -f rawvideo`, `-vf scale=iw/2:ih/2:flags=bicubic`.

use std::error::Error;
use std::time::Instant;

use nnv_nn::{Cancel, ModelSource, RuntimeOptions, SrBundle};
use nnv_sr::{Change, Ensemble, Format, Job, Layout, Planes, PlanesMut, SourceQuantizer, Upscaler};

const PLACE: usize = 16;
const SCALE: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [large, small, width, height, rest @ ..] = &given[..] else {
        return Err("give LARGE SMALL WIDTH HEIGHT [BUNDLE [TURNS]]".into());
    };
    let (width, height): (usize, usize) = (width.parse()?, height.parse()?);
    let bundle = rest.first().map_or("balanced", |name| name);
    let turns = rest
        .get(1)
        .map_or(Ok(Ensemble::MAX), |turns| turns.parse())?;
    let (large, small) = (std::fs::read(large)?, std::fs::read(small)?);
    let bundle = SrBundle::open(&ModelSource::Embedded(bundle.into()))?;
    let network = bundle.network(SCALE, &RuntimeOptions::default())?;
    let layout = Layout::new(Format::Gray8, width / SCALE, height / SCALE)?;
    let upscaler = Upscaler::new(layout, network, 0)?;
    let mut upscaler = upscaler.with_ensemble(Ensemble::new(turns));
    // Spread, error of the network and of the plain kernel, by place of all frames.
    let mut places: Vec<[f32; 3]> = Vec::new();
    let mut seconds = [0.0; 2];
    let frames = large.chunks_exact(width * height);
    for (large, small) in frames.zip(small.chunks_exact(width / SCALE * (height / SCALE))) {
        let mut made = vec![0; large.len()];
        for watched in [false, true] {
            upscaler.set_watched(watched);
            let mut fresh = small.to_vec();
            // Equal frames would be computed once.
            fresh[0] ^= u8::from(!watched);
            let job = Job {
                input: Planes::new(layout, &[&fresh], &[width / SCALE])?,
                output: PlanesMut::new(upscaler.output(), vec![&mut made], &[width])?,
                strength: 1.0,
                quantizer: SourceQuantizer::Unknown,
                late: false,
            };
            let start = Instant::now();
            let changes = upscaler.run(&mut [job], &Cancel::new())?.changes;
            seconds[usize::from(watched)] += start.elapsed().as_secs_f64();
            if let [Some(change)] = &changes[..] {
                measure(change, &made, large, width, &mut places);
            }
        }
    }
    if places.is_empty() {
        return Err("no frame, or a single turn".into());
    }
    places.sort_by(|a, b| a[0].total_cmp(&b[0]));
    println!("tenth of places   spread   error   error of the plain kernel (8-bit samples)");
    for (i, tenth) in places.chunks(places.len().div_ceil(10)).enumerate() {
        let mean = |n: usize| tenth.iter().map(|p| p[n]).sum::<f32>() / tenth.len() as f32;
        println!(
            "{:>15} {:8.2} {:7.2} {:7.2}",
            i + 1,
            mean(0),
            mean(1),
            mean(2)
        );
    }
    println!(
        "{} places; time watched: {:.3}",
        places.len(),
        seconds[1] / seconds[0]
    );
    Ok(())
}

/// Means over the places of a frame.
fn measure(change: &Change, made: &[u8], large: &[u8], width: usize, to: &mut Vec<[f32; 3]>) {
    let Some(spread) = &change.spread else {
        return;
    };
    for top in (0..large.len() / width).step_by(PLACE) {
        for left in (0..width).step_by(PLACE) {
            let (mut sums, mut count) = ([0.0; 3], 0.0);
            for y in top..(top + PLACE).min(large.len() / width) {
                for at in y * width + left..y * width + (left + PLACE).min(width) {
                    let error = f32::from(made[at]) - f32::from(large[at]);
                    let all = [spread[at], error.abs(), (error - change.luma[at]).abs()];
                    sums.iter_mut().zip(all).for_each(|(sum, v)| *sum += v);
                    count += 1.0;
                }
            }
            to.push(sums.map(|sum| sum / count));
        }
    }
}

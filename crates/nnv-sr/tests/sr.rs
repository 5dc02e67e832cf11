// SPDX-License-Identifier: MPL-2.0
//! Super-resolution without GStreamer, with the bundles that `scripts/make-sr-fixtures.py` makes:
//! what they must give is known in closed form.
//!
//! Needs ONNX Runtime (see `scripts/test.sh`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nnv_h264::BlockQuantizers;
use nnv_nn::{Cancel, ModelSource, NnError, RuntimeOptions, SrBundle, SrNetwork};
use nnv_sr::{
    Change, Done, Ensemble, Format, Job, Layout, LayoutError, Outcome, PlainScaler, Planes,
    PlanesMut, SourceQuantizer, SrError, Upscaler,
};

const FORMATS: [Format; 7] = [
    Format::I420,
    Format::Nv12,
    Format::I42010Le,
    Format::P01010Le,
    Format::Y444,
    Format::Rgb,
    Format::Gray8,
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

fn bundle(name: &str) -> SrBundle {
    SrBundle::open(&ModelSource::Folder(fixture(name))).unwrap()
}

fn network(name: &str, scale: usize) -> Arc<SrNetwork> {
    let options = RuntimeOptions {
        threads: 2,
        ..RuntimeOptions::default()
    };
    bundle(name).network(scale, &options).unwrap()
}

/// A picture in memory without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Picture {
    planes: Vec<Vec<u8>>,
    strides: Vec<usize>,
}

impl Picture {
    fn blank(layout: Layout) -> Self {
        let (w, h) = (layout.width(), layout.height());
        let half = |n: usize| n.div_ceil(2);
        let shapes: Vec<(usize, usize)> = match layout.format {
            Format::I420 => vec![(w, h), (half(w), half(h)), (half(w), half(h))],
            Format::Nv12 => vec![(w, h), (2 * half(w), half(h))],
            Format::I42010Le => vec![(2 * w, h), (2 * half(w), half(h)), (2 * half(w), half(h))],
            Format::P01010Le => vec![(2 * w, h), (4 * half(w), half(h))],
            Format::Y444 => vec![(w, h); 3],
            Format::Rgb => vec![(3 * w, h)],
            Format::Gray8 => vec![(w, h)],
        };
        Self {
            planes: shapes.iter().map(|(w, h)| vec![0; w * h]).collect(),
            strides: shapes.iter().map(|(w, _)| *w).collect(),
        }
    }

    /// Texture that tells places apart, with legal 10-bit words.
    fn textured(layout: Layout, seed: usize) -> Self {
        let mut picture = Self::blank(layout);
        for (p, plane) in picture.planes.iter_mut().enumerate() {
            let value = |i: usize| (i * 2654435761 + seed * 40503 + p * 7919) >> 7;
            match layout.format {
                Format::I42010Le | Format::P01010Le => {
                    let shift = if layout.format == Format::P01010Le {
                        6
                    } else {
                        0
                    };
                    for (i, word) in plane.chunks_mut(2).enumerate() {
                        let code = (64 + value(i) % 876) as u16;
                        word.copy_from_slice(&(code << shift).to_le_bytes());
                    }
                }
                _ => {
                    for (i, byte) in plane.iter_mut().enumerate() {
                        *byte = (16 + value(i) % 220) as u8;
                    }
                }
            }
        }
        picture
    }

    fn read(&self, layout: Layout) -> Planes<'_> {
        let planes: Vec<&[u8]> = self.planes.iter().map(|p| &p[..]).collect();
        Planes::new(layout, &planes, &self.strides).unwrap()
    }

    fn write(&mut self, layout: Layout) -> PlanesMut<'_> {
        let planes = self.planes.iter_mut().map(|p| &mut p[..]).collect();
        PlanesMut::new(layout, planes, &self.strides).unwrap()
    }

    /// Code values of the first plane, or of a component of RGB.
    fn codes(&self, layout: Layout, component: usize) -> Vec<i32> {
        let plane = &self.planes[0];
        match layout.format {
            Format::I42010Le | Format::P01010Le => plane
                .chunks(2)
                .map(|w| {
                    let word = i32::from(u16::from_le_bytes([w[0], w[1]]));
                    match layout.format {
                        Format::P01010Le => word >> 6,
                        _ => word,
                    }
                })
                .collect(),
            Format::Rgb => plane
                .iter()
                .skip(component)
                .step_by(3)
                .map(|b| i32::from(*b))
                .collect(),
            _ => plane.iter().map(|b| i32::from(*b)).collect(),
        }
    }
}

/// The layout after scaling, for [`Picture`].
fn output(layout: Layout, scale: usize) -> Layout {
    PlainScaler::new(layout, scale, 1).output()
}

fn plain(layout: Layout, scale: usize, input: &Picture) -> Picture {
    let scaler = PlainScaler::new(layout, scale, 1);
    let mut out = Picture::blank(scaler.output());
    scaler
        .scale(&input.read(layout), &mut out.write(scaler.output()))
        .unwrap();
    out
}

/// What becomes of pictures in one call.
fn outcome(upscaler: &mut Upscaler, inputs: &[(&Picture, f32, bool)]) -> (Vec<Picture>, Outcome) {
    let (from, to) = (upscaler.input(), upscaler.output());
    let mut outputs = vec![Picture::blank(to); inputs.len()];
    let mut jobs: Vec<_> = inputs
        .iter()
        .zip(&mut outputs)
        .map(|((input, strength, late), output)| Job {
            input: input.read(from),
            output: output.write(to),
            strength: *strength,
            quantizer: SourceQuantizer::Unknown,
            late: *late,
        })
        .collect();
    let outcome = upscaler.run(&mut jobs, &Cancel::new()).unwrap();
    drop(jobs);
    (outputs, outcome)
}

fn run(upscaler: &mut Upscaler, inputs: &[(&Picture, f32, bool)]) -> (Vec<Picture>, Vec<Done>) {
    let (outputs, outcome) = outcome(upscaler, inputs);
    (outputs, outcome.done)
}

fn one(upscaler: &mut Upscaler, input: &Picture, strength: f32) -> Picture {
    run(upscaler, &[(input, strength, false)]).0.remove(0)
}

fn layouts() -> impl Iterator<Item = Layout> {
    FORMATS.into_iter().flat_map(|format| {
        [(1, 1), (5, 3), (38, 21)]
            .into_iter()
            .flat_map(move |(w, h)| {
                [false, true].map(|full_range| {
                    let mut layout = Layout::new(format, w, h).unwrap();
                    layout.full_range = full_range;
                    layout
                })
            })
    })
}

#[test]
fn repetition_is_exact_in_every_format_and_range() {
    let network = network("sr-exact", 2);
    for layout in layouts() {
        let to = output(layout, 2);
        let input = Picture::textured(layout, 1);
        let mut upscaler = Upscaler::new(layout, network.clone(), 2).unwrap();
        let got = one(&mut upscaler, &input, 1.0);
        let kernel = plain(layout, 2, &input);
        let repeated = |codes: Vec<i32>| -> Vec<i32> {
            let (w, h) = (to.width(), to.height());
            (0..w * h)
                .map(|i| codes[i / w / 2 * (w / 2) + i % w / 2])
                .collect()
        };
        if layout.format != Format::Rgb {
            let expected = repeated(input.codes(layout, 0));
            assert_eq!(got.codes(to, 0), expected, "{layout:?}");
            assert_eq!(got.planes[1..], kernel.planes[1..], "{layout:?}");
            continue;
        }
        // Luma is that of the repeated picture, differences of colour are those of the plain
        // kernel. Where nothing is clipped, the rounding of three numbers remains.
        let channels = |picture: &Picture, layout| [0, 1, 2].map(|c| picture.codes(layout, c));
        let source = channels(&input, layout).map(repeated);
        let (got, kernel) = (channels(&got, to), channels(&kernel, to));
        let luma = |c: &[Vec<i32>; 3], i: usize| {
            0.299 * f64::from(c[0][i]) + 0.587 * f64::from(c[1][i]) + 0.114 * f64::from(c[2][i])
        };
        for i in 0..got[0].len() {
            if got.iter().any(|c| c[i] == 0 || c[i] == 255) {
                continue;
            }
            let error = luma(&got, i) - luma(&source, i);
            assert!(error.abs() < 1.01, "{layout:?} luma {error}");
            for c in 0..2 {
                let difference = |p: &[Vec<i32>; 3]| p[c][i] - p[2][i];
                let error = difference(&got) - difference(&kernel);
                // The plain kernel may have clipped what it shows here, not what it blends.
                let clipped = kernel.iter().any(|c| c[i] == 0 || c[i] == 255);
                assert!(clipped || error.abs() <= 2, "{layout:?} colour {error}");
            }
        }
    }
}

#[test]
fn a_bicubic_network_is_the_plain_kernel() {
    for scale in [3, 4] {
        let network = network("sr-exact", scale);
        for layout in layouts() {
            let input = Picture::textured(layout, 2);
            let mut upscaler = Upscaler::new(layout, network.clone(), 2).unwrap();
            let got = one(&mut upscaler, &input, 1.0);
            let to = output(layout, scale);
            let expected = plain(layout, scale, &input);
            for c in 0..if layout.format == Format::Rgb { 3 } else { 1 } {
                let (got, expected) = (got.codes(to, c), expected.codes(to, c));
                let off: Vec<_> = got
                    .iter()
                    .zip(&expected)
                    .map(|(a, b)| (a - b).abs())
                    .filter(|e| *e > 0)
                    .collect();
                // Ties may round either way.
                assert!(
                    off.iter().all(|e| *e <= 1) && off.len() * 50 <= got.len().max(50),
                    "{layout:?} x{scale}: {} of {} differ",
                    off.len(),
                    got.len()
                );
            }
            assert_eq!(got.planes[1..], expected.planes[1..]);
        }
    }
}

/// Reaches beyond the border by one sample, so it shows that what follows is not zero.
#[test]
fn sharpening_is_exact_up_to_the_edges() {
    let network = network("sr-exact", 1);
    for (w, h) in [(1, 1), (7, 1), (1, 9), (33, 20)] {
        let layout = Layout::new(Format::Gray8, w, h).unwrap();
        let input = Picture::textured(layout, 3);
        let mut upscaler = Upscaler::new(layout, network.clone(), 2).unwrap();
        let got = one(&mut upscaler, &input, 1.0);
        let at = |x: isize, y: isize| {
            let x = x.clamp(0, w as isize - 1) as usize;
            let y = y.clamp(0, h as isize - 1) as usize;
            f64::from(input.planes[0][y * w + x])
        };
        for i in 0..w * h {
            let (x, y) = ((i % w) as isize, (i / w) as isize);
            let sum = at(x - 1, y) + at(x + 1, y) + at(x, y - 1) + at(x, y + 1);
            let expected = (2.0 * at(x, y) - sum / 4.0).clamp(0.0, 255.0);
            let error = f64::from(got.planes[0][i]) - expected;
            assert!(error.abs() < 0.51, "{w}x{h} ({x}, {y}): {error}");
        }
    }
}

/// Whoever mirrors a picture by hand, as far as the network sees, and crops the result gets what
/// the element gives.
#[test]
fn pictures_are_mirrored_beyond_their_border() {
    for (name, scale) in [("sr-random", 2), ("sr-folded", 1)] {
        let network = network(name, scale);
        let radius = network.facts().radius;
        for (w, h) in [(1, 1), (2, 4), (3, 40), (34, 20)] {
            let layout = Layout::new(Format::Gray8, w, h).unwrap();
            let input = Picture::textured(layout, 6);
            let mut upscaler = Upscaler::new(layout, network.clone(), 2).unwrap();
            let got = one(&mut upscaler, &input, 1.0);

            // 0 1 2 2 1 0 0 1 2 ...
            let axis = |n: usize| {
                let period: Vec<_> = (0..n).chain((0..n).rev()).collect();
                let start = 2 * n - radius % (2 * n);
                (0..n + 2 * radius).map(move |i| period[(start + i) % (2 * n)])
            };
            let mirrored: Vec<u8> = axis(h)
                .flat_map(|y| axis(w).map(move |x| (x, y)))
                .map(|(x, y)| input.planes[0][y * w + x])
                .collect();
            let wide = w + 2 * radius;
            let larger = Layout::new(Format::Gray8, wide, h + 2 * radius).unwrap();
            let input = Picture {
                planes: vec![mirrored],
                strides: vec![wide],
            };
            let mut upscaler = Upscaler::new(larger, network.clone(), 2).unwrap();
            let larger = one(&mut upscaler, &input, 1.0);
            for y in 0..h * scale {
                let row = &larger.planes[0][((y + radius * scale) * wide + radius) * scale..];
                let expected = &row[..w * scale];
                assert_eq!(
                    &got.planes[0][y * w * scale..][..w * scale],
                    expected,
                    "{name} {w}x{h}, row {y}"
                );
            }
        }
    }
}

#[test]
fn strength_blends_between_kernel_and_network() {
    let network = network("sr-exact", 2);
    for layout in layouts() {
        let to = output(layout, 2);
        let input = Picture::textured(layout, 4);
        let mut upscaler = Upscaler::new(layout, network.clone(), 2).unwrap();
        let kernel = plain(layout, 2, &input);
        let (untouched, done) = run(&mut upscaler, &[(&input, 0.0, false)]);
        assert_eq!((&untouched[0], done[0]), (&kernel, Done::Plain));
        let full = one(&mut upscaler, &input, 1.0);
        let half = one(&mut upscaler, &input, 0.5);
        for c in 0..if layout.format == Format::Rgb { 3 } else { 1 } {
            let codes = |p: &Picture| p.codes(to, c);
            let top = if matches!(layout.format, Format::I42010Le | Format::P01010Le) {
                1023
            } else {
                255
            };
            for ((full, half), kernel) in codes(&full).iter().zip(codes(&half)).zip(codes(&kernel))
            {
                // Clipped values say nothing about what was blended.
                if [*full, kernel].iter().all(|v| *v > 0 && *v < top) {
                    assert!((2 * half - full - kernel).abs() <= 2, "{layout:?}");
                }
            }
        }
    }
}

#[test]
fn tiles_join_without_a_seam() {
    for (name, scale) in [
        ("sr-random", 2),
        ("sr-exact", 4),
        ("sr-exact", 1),
        ("sr-folded", 1),
    ] {
        let network = network(name, scale);
        for (format, w, h) in [
            (Format::I42010Le, 150, 131),
            (Format::Rgb, 97, 64),
            (Format::Gray8, 33, 200),
        ] {
            let layout = Layout::new(format, w, h).unwrap();
            let input = Picture::textured(layout, 5);
            let mut whole = Upscaler::new(layout, network.clone(), 2).unwrap();
            assert_eq!(whole.tiles(), 1);
            let expected = one(&mut whole, &input, 1.0);
            for samples in [0, 3000, 5000] {
                let memory = samples * network.facts().bytes_per_sample();
                let mut tiled = Upscaler::with_memory(layout, network.clone(), 2, memory).unwrap();
                assert!(tiled.tiles() > 1, "{samples}");
                assert_eq!(one(&mut tiled, &input, 1.0), expected, "{name} {samples}");
                let half = one(&mut whole, &input, 0.5);
                assert_eq!(one(&mut tiled, &input, 0.5), half, "{name} {samples}");
            }
        }
    }
}

/// Not only after rounding: what the network itself gives for a tile is what it gives for the whole
/// picture.
#[test]
fn a_tile_of_the_network_is_a_part_of_the_whole() {
    let network = network("sr-random", 2);
    let (w, h, radius) = (120, 90, network.facts().radius);
    let picture: Vec<f32> = (0..w * h)
        .map(|i| ((i * 2654435761) >> 9 & 255) as f32 / 255.0)
        .collect();
    let whole = network
        .run(&picture, [1, h, w], &[], &Cancel::new())
        .unwrap();
    let (left, top, tw, th) = (31, 17, 64, 48);
    let tile: Vec<f32> = (top..top + th)
        .flat_map(|y| picture[y * w + left..][..tw].to_vec())
        .collect();
    let part = network
        .run(&tile, [1, th, tw], &[], &Cancel::new())
        .unwrap();
    for y in 2 * radius..2 * (th - radius) {
        let inside = 2 * radius..2 * (tw - radius);
        let a = &whole.picture(0)[(2 * top + y) * 2 * w + 2 * left..][inside.clone()];
        let b = &part.picture(0)[y * 2 * tw..][inside];
        assert_eq!(a, b, "row {y}");
    }
    // Closer to the border than the radius, they do differ: the radius is not larger than it must
    // be by much.
    let corner = |p: &[f32], stride: usize, x: usize, y: usize| p[y * stride + x];
    assert_ne!(
        corner(whole.picture(0), 2 * w, 2 * left, 2 * top),
        corner(part.picture(0), 2 * tw, 0, 0)
    );
}

#[test]
fn batches_give_what_single_pictures_give() {
    let layout = Layout::new(Format::Nv12, 61, 40).unwrap();
    let network = network("sr-random", 2);
    let inputs: Vec<_> = (0..5).map(|i| Picture::textured(layout, i)).collect();
    let mut upscaler = Upscaler::new(layout, network.clone(), 2).unwrap();
    let singly: Vec<_> = inputs.iter().map(|p| one(&mut upscaler, p, 1.0)).collect();
    // Memory for all, for two, and for less than one.
    let one_run = network.facts().bytes_per_sample() * (61 + 6) * (40 + 6);
    for memory in [8 * one_run, 2 * one_run, one_run / 2] {
        let mut upscaler = Upscaler::with_memory(layout, network.clone(), 2, memory).unwrap();
        let jobs: Vec<_> = inputs.iter().map(|p| (p, 1.0, false)).collect();
        let (together, done) = run(&mut upscaler, &jobs);
        assert_eq!(together, singly);
        assert_eq!(done, [Done::Enhanced; 5]);
    }
}

/// A quarter turn of a `Gray8` picture.
fn turned(picture: &Picture, width: usize) -> Picture {
    let plane = &picture.planes[0];
    let height = plane.len() / width;
    let turned = |i: usize| plane[(height - 1 - i % height) * width + i / height];
    Picture {
        planes: vec![(0..plane.len()).map(turned).collect()],
        strides: vec![height],
    }
}

#[test]
fn an_ensemble_does_not_care_which_way_a_picture_lies() {
    let network = network("sr-random", 2);
    let (w, h) = (31, 20);
    let lying = Layout::new(Format::Gray8, w, h).unwrap();
    let standing = Layout::new(Format::Gray8, h, w).unwrap();
    let input = Picture::textured(lying, 7);
    let largest_difference = |turns| {
        let ensemble = Ensemble::new(turns);
        let upscaler = |layout| {
            Upscaler::new(layout, network.clone(), 2)
                .unwrap()
                .with_ensemble(ensemble)
        };
        let first = turned(&one(&mut upscaler(lying), &input, 1.0), 2 * w);
        let second = one(&mut upscaler(standing), &turned(&input, w), 1.0);
        let differences = first.planes[0].iter().zip(&second.planes[0]);
        differences.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    };
    // A network does; the mean over all turns, or over the four rotations, does not.
    assert!(largest_difference(1) > 5);
    assert!(largest_difference(2) > 5);
    assert!(largest_difference(4) <= 1);
    assert!(largest_difference(8) <= 1);
}

#[test]
fn an_ensemble_of_a_symmetric_network_is_the_network() {
    for scale in [1, 2] {
        let network = network("sr-exact", scale);
        for layout in layouts() {
            let input = Picture::textured(layout, 8);
            let mut single = Upscaler::new(layout, network.clone(), 2).unwrap();
            let expected = one(&mut single, &input, 1.0);
            for turns in [2, 3, 8] {
                let mut upscaler = Upscaler::new(layout, network.clone(), 1)
                    .unwrap()
                    .with_ensemble(Ensemble::new(turns));
                let got = one(&mut upscaler, &input, 1.0);
                let to = upscaler.output();
                for c in 0..if layout.format == Format::Rgb { 3 } else { 1 } {
                    let (got, expected) = (got.codes(to, c), expected.codes(to, c));
                    // Sums in another order may round a tie to the other side.
                    assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1));
                }
                assert_eq!(got.planes[1..], expected.planes[1..], "{layout:?}");
            }
        }
    }
}

#[test]
fn ensembles_of_tiles_and_batches_are_those_of_pictures() {
    for (name, scale) in [("sr-random", 2), ("sr-folded", 1)] {
        let network = network(name, scale);
        let layout = Layout::new(Format::I42010Le, 83, 131).unwrap();
        let inputs: Vec<_> = (0..3).map(|i| Picture::textured(layout, i)).collect();
        let upscaler = |memory| {
            Upscaler::with_memory(layout, network.clone(), 2, memory)
                .unwrap()
                .with_ensemble(Ensemble::new(8))
        };
        let mut whole = upscaler(usize::MAX);
        let singly: Vec<_> = inputs.iter().map(|p| one(&mut whole, p, 1.0)).collect();
        let jobs: Vec<_> = inputs.iter().map(|p| (p, 1.0, false)).collect();
        assert_eq!(run(&mut upscaler(usize::MAX), &jobs).0, singly, "{name}");
        let mut tiled = upscaler(5000 * network.facts().bytes_per_sample());
        assert!(tiled.tiles() > 1);
        assert_eq!(run(&mut tiled, &jobs).0, singly, "{name}");
    }
}

/// Outputs and what was changed, of pictures in one call.
fn watched(
    upscaler: &mut Upscaler,
    inputs: &[(&Picture, f32, bool)],
) -> (Vec<Picture>, Vec<Option<Change>>) {
    let (outputs, outcome) = outcome(upscaler, inputs);
    (outputs, outcome.changes)
}

#[test]
fn changes_are_those_of_the_picture() {
    let network = network("sr-random", 2);
    for layout in layouts() {
        let to = output(layout, 2);
        let input = Picture::textured(layout, 4);
        let mut upscaler = Upscaler::new(layout, network.clone(), 2).unwrap();
        let unwatched = one(&mut upscaler, &input, 1.0);
        upscaler.set_watched(true);
        let (shown, changes) = watched(&mut upscaler, &[(&input, 1.0, false)]);
        assert_eq!(shown[0], unwatched, "{layout:?}: watching changes nothing");
        let change = changes[0].as_ref().unwrap();
        assert!(change.spread.is_none(), "one turn has no spread");
        let kernel = plain(layout, 2, &input);
        let (weights, step): (&[f32], f32) = match layout.format {
            Format::Rgb => (&[0.299, 0.587, 0.114], 1.0),
            Format::I42010Le | Format::P01010Le => (&[1.0], 4.0),
            _ => (&[1.0], 1.0),
        };
        let mut expected = vec![0.0; change.luma.len()];
        for (c, weight) in weights.iter().enumerate() {
            let both = shown[0].codes(to, c).into_iter().zip(kernel.codes(to, c));
            for (sum, (got, plain)) in expected.iter_mut().zip(both) {
                *sum += weight * (got - plain) as f32 / step;
            }
        }
        assert_eq!(change.luma.len(), to.width() * to.height());
        for (got, wanted) in change.luma.iter().zip(&expected) {
            assert!(
                (got - wanted).abs() < 1e-3,
                "{layout:?}: {got} for {wanted}"
            );
        }
        assert!(
            expected.iter().any(|v| *v != 0.0),
            "the network does nothing"
        );
    }
}

#[test]
fn spread_is_that_of_the_turns() {
    let layout = Layout::new(Format::Gray8, 83, 131).unwrap();
    let input = Picture::textured(layout, 5);
    let network = network("sr-random", 2);
    let upscaler = |turns, memory| {
        let upscaler = Upscaler::with_memory(layout, network.clone(), 2, memory).unwrap();
        let mut upscaler = upscaler.with_ensemble(Ensemble::new(turns));
        upscaler.set_watched(true);
        upscaler
    };
    // The second turn is half a rotation: the picture upside down and mirrored.
    let mut half_turned = input.clone();
    half_turned.planes[0].reverse();
    let mut turned = one(&mut upscaler(1, usize::MAX), &half_turned, 1.0);
    turned.planes[0].reverse();
    let first = one(&mut upscaler(1, usize::MAX), &input, 1.0);
    let spread = |turns, memory, strength| {
        let changes = watched(&mut upscaler(turns, memory), &[(&input, strength, false)]).1;
        changes[0].as_ref().unwrap().spread.clone().unwrap()
    };
    let whole = spread(2, usize::MAX, 1.0);
    assert_eq!(whole.len(), 4 * 83 * 131);
    let mut seen = 0.0_f32;
    for ((got, a), b) in whole.iter().zip(&first.planes[0]).zip(&turned.planes[0]) {
        // Of two numbers half their difference; both are rounded, and some cut off.
        if (1..255).contains(a) && (1..255).contains(b) {
            let expected = f32::from(a.abs_diff(*b)) / 2.0;
            assert!((got - expected).abs() <= 0.51, "{got} for {expected}");
            seen = seen.max(expected);
        }
    }
    assert!(seen > 2.0, "the turns differ by {seen} at most");
    let half = spread(2, usize::MAX, 0.5);
    assert!(
        half.iter()
            .zip(&*whole)
            .all(|(h, w)| (2.0 * h - w).abs() < 1e-3)
    );
    // Tiles make no difference but that of sums in another order.
    let (whole, tiled) = (spread(8, usize::MAX, 1.0), spread(8, 2_000_000, 1.0));
    assert!(upscaler(8, 2_000_000).tiles() > 1);
    assert!(whole.iter().zip(&*tiled).all(|(a, b)| (a - b).abs() < 1e-2));
}

#[test]
fn equal_pictures_change_equally_and_late_ones_not_at_all() {
    let layout = Layout::new(Format::I420, 20, 10).unwrap();
    let upscaler = Upscaler::new(layout, network("sr-random", 2), 2).unwrap();
    let mut upscaler = upscaler.with_ensemble(Ensemble::new(4));
    let (a, b) = (Picture::textured(layout, 1), Picture::textured(layout, 2));
    let jobs = [(&a, 1.0, false), (&a, 1.0, false), (&b, 1.0, true)];
    assert!(watched(&mut upscaler, &jobs).1.is_empty(), "nobody asked");
    upscaler.set_watched(true);
    let (_, changes) = watched(&mut upscaler, &jobs);
    let [Some(first), Some(second), None] = &changes[..] else {
        panic!("{changes:?}");
    };
    // Reused by the next call.
    let (_, again) = watched(&mut upscaler, &[(&a, 1.0, true)]);
    for other in [second, again[0].as_ref().unwrap()] {
        assert_eq!(first.luma, other.luma);
        assert!(first.spread.is_some() && first.spread == other.spread);
    }
}

#[test]
fn equal_pictures_are_computed_once() {
    let layout = Layout::new(Format::I420, 20, 10).unwrap();
    let mut upscaler = Upscaler::new(layout, network("sr-random", 2), 2).unwrap();
    let (a, b) = (Picture::textured(layout, 1), Picture::textured(layout, 2));
    let mut recoloured = a.clone();
    recoloured.planes[1].fill(77);
    let (first, done) = run(
        &mut upscaler,
        &[
            (&a, 1.0, false),
            (&a, 1.0, false),
            (&recoloured, 1.0, true),
            (&a, 0.5, false),
            (&b, 1.0, true),
            (&b, 1.0, false),
            (&b, 1.0, false),
        ],
    );
    use Done::{Enhanced, Plain, Reused};
    // Another strength is another result; a late picture is scaled plainly only where there is no
    // result.
    assert_eq!(
        done,
        [Enhanced, Reused, Reused, Enhanced, Plain, Enhanced, Reused]
    );
    assert_eq!(first[0], first[1]);
    assert_eq!(first[2].planes[0], first[0].planes[0]);
    assert_ne!(first[2].planes[1], first[0].planes[1]);
    assert_eq!(first[4], plain(layout, 2, &b));
    // The next call knows the last result.
    let (again, done) = run(&mut upscaler, &[(&b, 1.0, true), (&a, 1.0, false)]);
    assert_eq!(done, [Reused, Enhanced]);
    assert_eq!([&again[0], &again[1]], [&first[5], &first[0]]);
}

#[test]
fn cancelled_runs_say_so_and_later_ones_work() {
    let layout = Layout::new(Format::Gray8, 16, 16).unwrap();
    let mut upscaler = Upscaler::new(layout, network("sr-random", 2), 1).unwrap();
    let input = Picture::textured(layout, 1);
    let mut output = Picture::blank(upscaler.output());
    let cancel = Cancel::new();
    cancel.cancel();
    let to = upscaler.output();
    let mut job = [Job {
        input: input.read(layout),
        output: output.write(to),
        strength: 1.0,
        quantizer: SourceQuantizer::Unknown,
        late: false,
    }];
    let error = upscaler.run(&mut job, &cancel).unwrap_err();
    assert!(matches!(error, SrError::Nn(NnError::Cancelled)), "{error}");
    cancel.reset();
    assert_eq!(
        upscaler.run(&mut job, &cancel).unwrap().done,
        [Done::Enhanced]
    );
}

#[test]
fn networks_hear_the_quantizer_of_each_picture() {
    let layout = Layout::new(Format::Gray8, 40, 30).unwrap();
    // Blocks of three columns and two rows, and of a picture that this is not.
    let blocks = |columns, values: &[u8]| {
        let blocks = BlockQuantizers::new(columns, values.to_vec()).unwrap();
        SourceQuantizer::Blocks(Arc::new(blocks))
    };
    let own = [3, 51, 0, 20, 7, 33];
    let told = [
        SourceQuantizer::Unknown,
        SourceQuantizer::Likely(71.0),
        blocks(3, &own),
        blocks(2, &[10, 32]),
    ];
    let added = |picture: usize, x: usize, y: usize| match picture {
        0 => 0,
        1 => 36,
        2 => i32::from(own[y / 16 * 3 + x / 16]),
        _ => 21,
    };
    let inputs = [1, 2, 3, 4].map(|seed| {
        let mut picture = Picture::textured(layout, seed);
        picture.planes[0].iter_mut().for_each(|v| *v /= 2);
        picture
    });
    let network = network("sr-rated", 1);
    assert!(network.is_rated());
    // All in one run; one after the other and in tiles; turned; without blocks.
    for (memory, turns, pictures) in [
        (512 << 20, 1, 4),
        (40_000, 1, 4),
        (512 << 20, 8, 4),
        (512 << 20, 1, 2),
        (512 << 20, 8, 2),
    ] {
        let upscaler = Upscaler::with_memory(layout, network.clone(), 1, memory).unwrap();
        let mut upscaler = upscaler.with_ensemble(Ensemble::new(turns));
        let mut outputs = vec![Picture::blank(layout); inputs.len()];
        let mut jobs: Vec<_> = inputs
            .iter()
            .zip(&mut outputs)
            .zip(told.clone())
            .take(pictures)
            .map(|((input, output), quantizer)| Job {
                input: input.read(layout),
                output: output.write(layout),
                strength: 1.0,
                quantizer,
                late: false,
            })
            .collect();
        upscaler.run(&mut jobs, &Cancel::new()).unwrap();
        drop(jobs);
        for (picture, (input, output)) in inputs.iter().zip(&outputs).take(pictures).enumerate() {
            let codes = input.codes(layout, 0);
            let got = output.codes(layout, 0);
            for (i, (code, got)) in codes.into_iter().zip(got).enumerate() {
                let wanted = code + added(picture, i % 40, i / 40);
                // A half rounds to even.
                assert!(
                    got == wanted || picture == 1 && got == wanted - 1,
                    "picture {picture}, sample {i}: {got} for {wanted}, {memory} bytes, {turns} \
                     turns"
                );
            }
        }
    }
}

#[test]
fn wrong_pictures_are_refused() {
    let layout = Layout::new(Format::Gray8, 16, 16).unwrap();
    let other = Layout::new(Format::Gray8, 16, 15).unwrap();
    let mut upscaler = Upscaler::new(layout, network("sr-exact", 2), 1).unwrap();
    let input = Picture::textured(other, 1);
    let mut output = Picture::blank(upscaler.output());
    let to = upscaler.output();
    let mut job = [Job {
        input: input.read(other),
        output: output.write(to),
        strength: 1.0,
        quantizer: SourceQuantizer::Unknown,
        late: false,
    }];
    let error = upscaler.run(&mut job, &Cancel::new()).unwrap_err();
    assert!(
        matches!(error, SrError::Layout(LayoutError::Mismatch)),
        "{error}"
    );
}

#[test]
fn networks_are_shared_and_scales_are_known() {
    let bundle = bundle("sr-exact");
    assert_eq!(bundle.scales(), [1, 2, 3, 4]);
    let options = RuntimeOptions::default();
    let first = bundle.network(2, &options).unwrap();
    assert!(Arc::ptr_eq(&first, &bundle.network(2, &options).unwrap()));
    let random = self::bundle("sr-random");
    assert_eq!(random.facts(2).unwrap().radius, 3);
    assert!(random.facts(3).is_none());
    let error = random.network(3, &options).unwrap_err().to_string();
    assert!(
        error.contains("no network for scale 3, only for scale 2"),
        "{error}"
    );
}

/// A copy of a fixture that a test may spoil.
struct Copy(PathBuf);

impl Copy {
    fn new(of: &str, tag: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("nnv-sr-{tag}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for entry in std::fs::read_dir(fixture(of)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        Self(folder)
    }

    fn edit(&self, change: impl Fn(String) -> String) {
        let path = self.0.join("bundle.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let changed = change(text.clone());
        assert_ne!(text, changed);
        std::fs::write(path, changed).unwrap();
    }

    fn error(&self, scale: usize) -> String {
        // A network in use is shared without a look at its file: these options are no other test's.
        let options = RuntimeOptions {
            threads: 3,
            ..RuntimeOptions::default()
        };
        SrBundle::open(&ModelSource::Folder(self.0.clone()))
            .and_then(|bundle| bundle.network(scale, &options))
            .unwrap_err()
            .to_string()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn broken_bundles_are_refused_by_name() {
    #[track_caller]
    fn check(tag: &str, spoil: impl Fn(&Copy), expected: &str) {
        let copy = Copy::new("sr-exact", tag);
        spoil(&copy);
        let error = copy.error(2);
        assert!(error.contains(expected), "{tag}: {error}");
        assert!(error.contains(copy.0.to_str().unwrap()), "{tag}: {error}");
    }
    check(
        "missing",
        |c| std::fs::remove_file(c.0.join("x2.onnx")).unwrap(),
        "x2.onnx is missing",
    );
    check(
        "damaged",
        |c| std::fs::write(c.0.join("x2.onnx"), b"no graph").unwrap(),
        "x2.onnx is damaged or was changed",
    );
    check(
        "no-toml",
        |c| std::fs::remove_file(c.0.join("bundle.toml")).unwrap(),
        "bundle.toml is missing",
    );
    check(
        "syntax",
        |c| c.edit(|t| t.replace("[bundle]", "[bundle")),
        "cannot be understood",
    );
    check(
        "format",
        |c| c.edit(|t| t.replace("format = 1", "format = 2")),
        "format 2",
    );
    check(
        "kind",
        |c| c.edit(|t| t.replace("\"sr\"", "\"codec\"")),
        "of kind \"codec\", a \"sr\" bundle is needed",
    );
    check(
        "double",
        |c| c.edit(|t| t.replace("scale = 3", "scale = 2")),
        "two networks for scale 2",
    );
    check(
        "field",
        |c| c.edit(|t| t.replace("radius", "radios")),
        "radius",
    );
    // The network of another scale under this one's name.
    check(
        "swapped",
        |c| {
            c.edit(|t| {
                t.replace("scale = 2", "scale = 9")
                    .replace("scale = 4", "scale = 2")
                    .replace("scale = 9", "scale = 4")
            });
        },
        "fails on 1 pictures of 1x1: output y: it has the shape",
    );
}

#[test]
fn kinds_are_not_confused() {
    let codec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/realtime");
    for source in [
        ModelSource::Folder(codec),
        ModelSource::Embedded("realtime".into()),
    ] {
        let error = SrBundle::open(&source).unwrap_err().to_string();
        assert!(
            error.contains("realtime")
                && error.contains("of kind \"codec\", a \"sr\" bundle is needed"),
            "{error}"
        );
    }
    let source = ModelSource::Folder(fixture("sr-exact"));
    let error = nnv_nn::Model::load(&source, &RuntimeOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("sr-exact")
            && error.contains("of kind \"sr\", a \"codec\" bundle is needed"),
        "{error}"
    );
    let error = SrBundle::open(&ModelSource::Embedded("no-such-model".into())).unwrap_err();
    assert!(matches!(error, NnError::UnknownModel { .. }), "{error}");
}

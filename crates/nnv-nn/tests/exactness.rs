// SPDX-License-Identifier: MPL-2.0
//! The promise "one stream, one picture" at the level of the networks: whatever runs them, the
//! numbers are the same, and where they are not, the model is refused by name.
//!
//! Needs ONNX Runtime (see `scripts/test.sh`). `NNV_TEST_BUNDLE` names the folder of the bundle to
//! test instead of `models/realtime`; `NNV_ORT_LIBRARY_ALT` names the library of a second ONNX
//! Runtime version to compare with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nnv_format::grid::Grid;
use nnv_format::tables::NetworkSet;
use nnv_nn::{
    Cancel, InterItem, Model, ModelSource, NnError, Optimisation, Provider, Runtime, RuntimeOptions,
};
use sha2::{Digest, Sha256};

/// Frames in the largest batch.
const FRAMES: usize = 3;

fn bundle() -> PathBuf {
    let folder = std::env::var_os("NNV_TEST_BUNDLE")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/realtime"));
    assert!(
        folder.join("bundle.toml").is_file(),
        "no bundle in {}",
        folder.display()
    );
    folder
}

fn load(folder: &Path, options: &RuntimeOptions) -> Result<Arc<Model>, NnError> {
    Model::load(&ModelSource::Folder(folder.into()), options)
}

fn cpu(threads: usize, optimisation: Optimisation) -> RuntimeOptions {
    RuntimeOptions {
        provider: Some(Provider::Cpu),
        threads,
        optimisation,
        ..Default::default()
    }
}

/// Small deterministic generator (xorshift), so that inputs are the same in every process.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Uniform within ±limit, but mostly small, as residuals are.
    fn fill<T: TryFrom<i64>>(&mut self, len: usize, limit: i64) -> Vec<T> {
        (0..len)
            .map(|_| {
                let bound = if self.next().is_multiple_of(16) {
                    limit
                } else {
                    limit / 16
                };
                let v = (self.next() >> 8) as i64 % (2 * bound + 1) - bound;
                T::try_from(v).unwrap_or_else(|_| unreachable!("the limit fits the type"))
            })
            .collect()
    }
}

struct Inputs {
    quantizer: u8,
    z: Vec<i8>,
    r: Vec<i16>,
    p: Vec<i16>,
    d: Vec<i16>,
}

fn inputs(model: &Model, grid: Grid) -> Vec<Inputs> {
    (0..FRAMES)
        .map(|i| {
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ i as u64);
            Inputs {
                quantizer: [5, 30, 63][i % 3],
                z: random.fill(model.z_len(grid), 127),
                r: random.fill(grid.y_len(), 2047),
                p: random.fill(grid.picture_len(), 511),
                d: random.fill(grid.picture_len(), 1023),
            }
        })
        .collect()
}

fn crc(values: &[i16]) -> u32 {
    crc32c::crc32c(
        &values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<_>>(),
    )
}

/// Checksums of scale indices and pictures, per kind and frame, run in batches of the given size.
fn digests(model: &Model, batch_size: usize) -> Vec<u32> {
    // Odd sizes: the hyper-latent is cropped and vector kernels have tails.
    let grid = Grid::new(9, 13).unwrap();
    let cancel = Cancel::new();
    let frames = inputs(model, grid);
    let mut result = Vec::new();
    for kind in [NetworkSet::Key, NetworkSet::Inter] {
        for group in frames.chunks(batch_size) {
            let z: Vec<_> = group.iter().map(|f| &f.z[..]).collect();
            let r: Vec<_> = group.iter().map(|f| &f.r[..]).collect();
            let items: Vec<_> = group
                .iter()
                .map(|f| InterItem {
                    quantizer: f.quantizer,
                    p: &f.p,
                    d: &f.d,
                })
                .collect();
            let quantizers: Vec<_> = group.iter().map(|f| f.quantizer).collect();
            let batch = match kind {
                NetworkSet::Key => model.key_batch(grid, &quantizers),
                NetworkSet::Inter => model.inter_batch(grid, &items),
            }
            .unwrap();
            let prior = batch.prior(&z, &cancel).unwrap();
            let pictures = batch.synthesise(&prior, &r, &cancel).unwrap();
            for i in 0..group.len() {
                let picture = pictures.get(i);
                assert!(
                    picture.iter().any(|&v| v != picture[0]),
                    "a flat picture proves nothing"
                );
                assert!(picture.iter().all(|v| (-512..=511).contains(v)));
                result.extend([crc32c::crc32c(prior.scale_idx(i)), crc(picture)]);
            }
        }
    }
    result
}

fn reference() -> Vec<u32> {
    digests(&load(&bundle(), &cpu(1, Optimisation::All)).unwrap(), 1)
}

#[test]
fn threads_optimisation_and_batches_do_not_change_a_bit() {
    let expected = reference();
    let unique: std::collections::BTreeSet<_> = expected.iter().collect();
    assert_eq!(
        unique.len(),
        expected.len(),
        "different frames must differ: {expected:08x?}"
    );
    for optimisation in [
        Optimisation::None,
        Optimisation::Basic,
        Optimisation::Extended,
        Optimisation::All,
    ] {
        for threads in [1, 2] {
            let model = load(&bundle(), &cpu(threads, optimisation)).unwrap();
            assert_eq!(model.active_provider(), Provider::Cpu);
            for batch_size in [1, FRAMES] {
                assert_eq!(
                    digests(&model, batch_size),
                    expected,
                    "{optimisation:?}, {threads} threads, batches of {batch_size}"
                );
            }
        }
    }
}

/// What processors other than x86 run.
#[test]
fn sums_in_float_do_not_change_a_bit() {
    let scratch = Scratch::new("float-sums");
    let additions = |options: RuntimeOptions| {
        let options = RuntimeOptions {
            dump_optimised: Some(scratch.0.clone()),
            ..options
        };
        let model = load(&bundle(), &options).unwrap();
        let count = ["key_prior", "inter_prior"].map(|graph| {
            let onnx = std::fs::read(scratch.0.join(format!("{graph}.onnx"))).unwrap();
            onnx.windows(3).filter(|w| w == b"Sum").count()
        });
        (digests(&model, 1), count)
    };
    let fused = additions(cpu(1, Optimisation::All));
    let float = additions(RuntimeOptions {
        float_sums: true,
        ..cpu(1, Optimisation::All)
    });
    assert_eq!(float.0, fused.0);
    // They are there after all rewriting, so they were run.
    for (fused, float) in fused.1.into_iter().zip(float.1) {
        assert_eq!(float, fused + 1);
    }
}

/// The comparisons above mean something only if its sides really are integer and float32 kernels.
#[test]
fn optimisation_levels_run_different_kernels() {
    let dumped = |optimisation, name: &str| {
        let scratch = Scratch::new(name);
        let options = RuntimeOptions {
            dump_optimised: Some(scratch.0.clone()),
            ..cpu(1, optimisation)
        };
        let _model = load(&bundle(), &options).unwrap();
        ["key_prior", "key_synth", "inter_prior", "inter_synth"].map(|graph| {
            let onnx = std::fs::read(scratch.0.join(format!("{graph}.onnx"))).unwrap();
            let count = |op: &[u8]| onnx.windows(op.len()).filter(|w| *w == op).count();
            (graph, count(b"QLinearConv"))
        })
    };
    for (graph, integer) in dumped(Optimisation::All, "all") {
        println!("{graph}: {integer} mentions of QLinearConv");
        assert!(integer > 0, "{graph} has no integer convolution");
    }
    for (graph, integer) in dumped(Optimisation::None, "none") {
        assert_eq!(
            integer, 0,
            "{graph} is expected to run in float32 without optimisation"
        );
    }
}

#[test]
fn another_runtime_version_does_not_change_a_bit() {
    let Some(alternative) = std::env::var_os("NNV_ORT_LIBRARY_ALT") else {
        eprintln!(
            "SKIPPED: set NNV_ORT_LIBRARY_ALT to the library of a second ONNX Runtime version"
        );
        return;
    };
    let output = child(
        "child_prints_digests",
        &[("NNV_ORT_LIBRARY", alternative.as_ref())],
    );
    let version = value_of(&output, "version=");
    assert_ne!(
        version,
        Runtime::get().unwrap().version(),
        "both libraries are of one version"
    );
    assert_eq!(
        value_of(&output, "digests="),
        format!("{:08x?}", reference()),
        "ONNX Runtime {version}"
    );
}

#[test]
#[ignore = "run by another_runtime_version_does_not_change_a_bit in a process of its own"]
fn child_prints_digests() {
    println!("version={}", Runtime::get().unwrap().version());
    println!("digests={:08x?}", reference());
}

#[test]
fn a_missing_runtime_is_one_clear_error() {
    let scratch = Scratch::new("no-runtime");
    let text = scratch.0.join("libonnxruntime.so");
    std::fs::create_dir_all(scratch.0.join("empty")).unwrap();
    std::fs::write(&text, "not a library").unwrap();
    for (path, reason) in [
        (
            Path::new("/nonexistent/libonnxruntime.so"),
            "does not exist",
        ),
        (&text, "not a shared library"),
        (&scratch.0.join("empty"), "was found"),
    ] {
        let output = child(
            "child_prints_load_error",
            &[("NNV_ORT_LIBRARY", path.as_os_str())],
        );
        let error = value_of(&output, "error=");
        assert!(error.contains(reason), "{error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains("NNV_ORT_LIBRARY"), "{error}");
        assert_eq!(
            value_of(&output, "again="),
            error,
            "the failure is remembered"
        );
    }
}

#[test]
#[ignore = "run by a_missing_runtime_is_one_clear_error in a process of its own"]
fn child_prints_load_error() {
    println!(
        "error={}",
        load(&bundle(), &RuntimeOptions::default()).unwrap_err()
    );
    println!(
        "again={}",
        load(&bundle(), &RuntimeOptions::default()).unwrap_err()
    );
}

/// Runs one ignored test of this file in a process of its own and returns what it printed.
fn child(test: &str, environment: &[(&str, &std::ffi::OsStr)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            test,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} failed:\n{text}\n{errors}");
    assert!(!errors.contains("panicked"), "{test} panicked:\n{errors}");
    text
}

fn value_of<'a>(output: &'a str, key: &str) -> &'a str {
    output
        .lines()
        // The harness prints "test name ... " in front of the first line of output.
        .find_map(|line| line.split_once(key).map(|(_, value)| value))
        .unwrap_or_else(|| panic!("no {key} in:\n{output}"))
}

#[test]
fn a_changed_weight_is_refused_by_name() {
    for graph in ["key_prior", "key_synth", "inter_prior", "inter_synth"] {
        let scratch = Scratch::copy_of_bundle(&format!("weight-{graph}"));
        let file = format!("{graph}.onnx");
        let onnx = std::fs::read(scratch.0.join(&file)).unwrap();
        let weights = weights(&onnx);
        assert!(!weights.is_empty(), "{graph} has no weights");
        let (mut tried, mut refused) = (0, 0);
        // The largest weight of each tensor becomes as wrong as it can be. Not every one is
        // noticed: what follows may ignore a channel, as all do whose next layer is still zero.
        for (element, range) in &weights {
            let mut changed = onnx.clone();
            match element {
                Element::Int8 => {
                    let at = range
                        .clone()
                        .max_by_key(|&i| (onnx[i] as i8).unsigned_abs())
                        .unwrap();
                    changed[at] = if onnx[at] as i8 > 0 { -63i8 } else { 63 } as u8;
                }
                Element::Float32 => {
                    let value = |i: usize| f32::from_le_bytes(onnx[i..i + 4].try_into().unwrap());
                    let largest =
                        |a: &usize, b: &usize| value(*a).abs().total_cmp(&value(*b).abs());
                    let at = range.clone().step_by(4).max_by(largest).unwrap();
                    // The sign bit.
                    changed[at + 3] ^= 0x80;
                }
            }
            std::fs::write(scratch.0.join(&file), &changed).unwrap();
            rehash(&scratch.0);
            tried += 1;
            match load(&scratch.0, &cpu(1, Optimisation::All)) {
                Ok(_) => {}
                Err(error @ NnError::KnownAnswer { .. }) => {
                    let text = error.to_string();
                    assert!(text.contains(graph) && text.contains("cpu"), "{text}");
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        println!("{graph}: {refused} of {tried} changed weights refused");
        assert!(refused > 0, "{graph}: no changed weight was noticed");
    }
}

/// A runtime or processor that computes otherwise than the bundle says looks just like this.
#[test]
fn a_wrong_answer_is_refused_by_name() {
    const ANSWER: &str = "crc32c = \"";
    let text = std::fs::read_to_string(bundle().join("bundle.toml")).unwrap();
    let answers: Vec<_> = text.match_indices(ANSWER).map(|(at, _)| at).collect();
    for at in [answers[0], answers[answers.len() - 1]] {
        let graph = text[..at].rsplit("graph = \"").next().unwrap();
        let graph = graph.split('"').next().unwrap();
        let scratch = Scratch::copy_of_bundle(&format!("answer-{graph}"));
        edit(&scratch.0, |mut text| {
            let digit = at + ANSWER.len();
            let other = if &text[digit..=digit] == "0" {
                "1"
            } else {
                "0"
            };
            text.replace_range(digit..=digit, other);
            text
        });
        match load(&scratch.0, &cpu(1, Optimisation::All)) {
            Err(error @ NnError::KnownAnswer { .. }) => {
                let text = error.to_string();
                assert!(text.contains(graph) && text.contains("cpu"), "{text}");
            }
            other => panic!("{graph}: {other:?}"),
        }
    }
}

#[test]
fn wrong_bundles_are_named_and_explained() {
    let options = cpu(1, Optimisation::All);
    let error = Model::load(&ModelSource::Embedded("no-such-model".into()), &options).unwrap_err();
    assert!(matches!(error, NnError::UnknownModel { .. }), "{error}");
    assert!(error.to_string().contains("no-such-model"), "{error}");

    let error = load(Path::new("/nonexistent/bundle"), &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nonexistent/bundle/bundle.toml is missing"),
        "{error}"
    );

    // What is done to a copy of a sound bundle, and what the error must say.
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 9] = [
        (
            "not-toml",
            |f| edit(f, |_| "format = ".into()),
            "cannot be understood",
        ),
        (
            "format",
            |f| edit(f, |t| t.replacen("format = 1", "format = 2", 1)),
            "format 2",
        ),
        (
            "kind",
            |f| edit(f, |t| t.replacen("kind = \"codec\"", "kind = \"sr\"", 1)),
            "kind \"sr\"",
        ),
        (
            "hash",
            |f| edit(f, |t| replace_value(&t, "hash", &"0".repeat(64))),
            "states the hash",
        ),
        (
            "missing",
            |f| std::fs::remove_file(f.join("inter_synth.onnx")).unwrap(),
            "inter_synth.onnx is missing",
        ),
        (
            "flipped",
            |f| flip(&f.join("key_prior.onnx")),
            "key_prior.onnx is damaged",
        ),
        (
            "tables",
            |f| flip(&f.join("tables.bin")),
            "tables.bin is damaged",
        ),
        (
            "shape",
            |f| {
                edit(f, |t| {
                    t.replacen("shape = [64, 384]", "shape = [64, 383]", 1)
                })
            },
            "table key.step",
        ),
        (
            "answers",
            |f| {
                edit(f, |t| {
                    t.replace("graph = \"key_synth\"", "graph = \"other\"")
                })
            },
            "no known answer for all outputs of key_synth",
        ),
    ];
    for (name, damage, expected) in cases {
        let scratch = Scratch::copy_of_bundle(&format!("wrong-{name}"));
        damage(&scratch.0);
        let error = load(&scratch.0, &options).unwrap_err();
        assert!(matches!(error, NnError::Bundle { .. }), "{name}: {error}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }

    // A short table with a right hash is caught by its bounds.
    let scratch = Scratch::copy_of_bundle("wrong-short");
    std::fs::write(scratch.0.join("tables.bin"), [0; 100]).unwrap();
    rehash(&scratch.0);
    let error = load(&scratch.0, &options).unwrap_err().to_string();
    assert!(error.contains("beyond tables.bin (100 bytes)"), "{error}");

    // A manifest that contradicts the graphs, although every hash is right.
    let scratch = Scratch::copy_of_bundle("wrong-channels");
    let answers = |t: &str| t.split("[[known_answer]]").next().unwrap().to_string();
    let channels = load(&bundle(), &options).unwrap().hyper_channels();
    edit(&scratch.0, |t| {
        answers(&t)
            .replacen(
                &format!("hyper_channels = {channels}"),
                &format!("hyper_channels = {}", channels - 1),
                1,
            )
            .replace(
                &format!("[{channels}, 15]"),
                &format!("[{}, 15]", channels - 1),
            )
    });
    let error = load(&scratch.0, &options).unwrap_err().to_string();
    assert!(error.contains("z_up of graph key_prior"), "{error}");

    // A graph that is no graph, with right hashes.
    let scratch = Scratch::copy_of_bundle("wrong-graph");
    std::fs::write(scratch.0.join("inter_prior.onnx"), b"no graph").unwrap();
    rehash(&scratch.0);
    let error = load(&scratch.0, &options).unwrap_err().to_string();
    assert!(error.contains("inter_prior"), "{error}");
}

#[test]
fn decoders_never_touch_encoder_networks() {
    let scratch = Scratch::copy_of_bundle("encoder");
    std::fs::write(scratch.0.join("key_enc.onnx"), b"no graph").unwrap();
    rehash(&scratch.0);
    let model = load(&scratch.0, &cpu(1, Optimisation::All)).unwrap();
    assert_eq!(digests(&model, 1), reference());
    let error = model.prepare_encoder().unwrap_err().to_string();
    assert!(error.contains("key_enc"), "{error}");
}

#[test]
fn encoders_give_latents_of_the_right_size() {
    let model = load(&bundle(), &cpu(2, Optimisation::All)).unwrap();
    model.prepare_encoder().unwrap();
    let grid = Grid::new(5, 7).unwrap();
    let cancel = Cancel::new();
    let mut random = Random(7);
    let x: [Vec<i16>; 2] = std::array::from_fn(|_| random.fill(grid.picture_len(), 511));
    let flat = vec![0; grid.picture_len()];
    let items = [3, 40].map(|quantizer| InterItem {
        quantizer,
        p: &flat,
        d: &flat,
    });
    for batch in [
        model.key_batch(grid, &[3, 40]).unwrap(),
        model.inter_batch(grid, &items).unwrap(),
    ] {
        let analysis = batch.analyse(&[&x[0], &x[1]], &cancel).unwrap();
        for i in 0..2 {
            assert_eq!(analysis.y(i).len(), grid.y_len());
            assert_eq!(analysis.z(i).len(), model.z_len(grid));
            assert!(analysis.y(i).iter().all(|v| v.is_finite()));
        }
        let energy = |i: usize| analysis.y(i).iter().map(|v| f64::from(v * v)).sum::<f64>();
        assert!(
            energy(0) > 10.0 * energy(1),
            "a smaller step gives larger latents"
        );
    }
}

#[test]
fn means_change_with_the_anchors_alone() {
    let model = load(&bundle(), &cpu(1, Optimisation::All)).unwrap();
    let grid = Grid::new(5, 7).unwrap();
    let cancel = Cancel::new();
    let mut random = Random(11);
    let batch = model.key_batch(grid, &[30]).unwrap();
    let z: Vec<i8> = random.fill(model.z_len(grid), 20);
    let prior = batch.prior(&[&z], &cancel).unwrap();
    let anchor = |i: usize| {
        let at = i % (grid.h16() * grid.w16());
        (at / grid.w16() + at % grid.w16()).is_multiple_of(2)
    };
    let r: Vec<i16> = random.fill(grid.y_len(), 200);
    let mut others = r.clone();
    let mut anchors = r.clone();
    for i in 0..r.len() {
        match anchor(i) {
            true => anchors[i] = -r[i],
            false => others[i] = -r[i],
        }
    }
    let delta = |r: &[i16]| {
        let refinement = batch.refine(&prior, &[r], &cancel).unwrap();
        refinement.delta(0).to_vec()
    };
    let first = delta(&r);
    assert!((0..r.len()).all(|i| !anchor(i) || first[i] == 0));
    assert_eq!(first, delta(&others));
    assert_ne!(first, delta(&anchors));

    let flat = vec![0; grid.picture_len()];
    let item = InterItem {
        quantizer: 30,
        p: &flat,
        d: &flat,
    };
    let inter = model.inter_batch(grid, &[item]).unwrap();
    let prior = inter.prior(&[&z], &cancel).unwrap();
    let error = inter.refine(&prior, &[&r], &cancel).unwrap_err();
    assert!(error.to_string().contains("inter frames have no means"));
}

#[test]
fn models_in_use_are_shared() {
    let one = load(&bundle(), &cpu(1, Optimisation::All)).unwrap();
    let same = load(&bundle(), &cpu(1, Optimisation::All)).unwrap();
    let other = load(&bundle(), &cpu(2, Optimisation::All)).unwrap();
    assert!(Arc::ptr_eq(&one, &same));
    assert!(!Arc::ptr_eq(&one, &other));
}

#[test]
fn an_explicit_provider_never_falls_back() {
    let options = RuntimeOptions {
        provider: Some(Provider::TensorRt),
        ..Default::default()
    };
    match load(&bundle(), &options) {
        Ok(model) => assert_eq!(model.active_provider(), Provider::TensorRt),
        Err(error) => {
            assert!(
                matches!(
                    error,
                    NnError::Provider {
                        provider: Provider::TensorRt,
                        ..
                    }
                ),
                "{error}"
            );
            println!("as it should be: {error}");
            assert!(error.to_string().contains("tensorrt"), "{error}");
        }
    }
    let model = load(&bundle(), &RuntimeOptions::default()).unwrap();
    println!("{} after {:#?}", model.active_provider(), model.warnings());
    let refused = Provider::COMPILED
        .iter()
        .take_while(|&&p| p != model.active_provider())
        .count();
    assert_eq!(model.warnings().len(), refused, "{:?}", model.warnings());
}

#[test]
fn misfit_inputs_are_errors() {
    let model = load(&bundle(), &cpu(1, Optimisation::All)).unwrap();
    let grid = Grid::new(2, 2).unwrap();
    let cancel = Cancel::new();
    let picture = vec![0; grid.picture_len()];
    let is_input = |result: Result<(), NnError>| {
        assert!(matches!(result, Err(NnError::Input(_))), "{result:?}")
    };
    is_input(model.key_batch(grid, &[]).map(drop));
    is_input(model.key_batch(grid, &[64]).map(drop));
    is_input(
        model
            .inter_batch(
                grid,
                &[InterItem {
                    quantizer: 0,
                    p: &picture[1..],
                    d: &picture,
                }],
            )
            .map(drop),
    );
    let batch = model.key_batch(grid, &[0]).unwrap();
    is_input(batch.prior(&[], &cancel).map(drop));
    is_input(batch.prior(&[&[0]], &cancel).map(drop));
    let prior = batch
        .prior(&[&vec![0; model.z_len(grid)]], &cancel)
        .unwrap();
    is_input(batch.synthesise(&prior, &[&[0]], &cancel).map(drop));
    let r = vec![0; grid.y_len()];
    let inter = model
        .inter_batch(
            grid,
            &[InterItem {
                quantizer: 0,
                p: &picture,
                d: &picture,
            }],
        )
        .unwrap();
    is_input(inter.synthesise(&prior, &[&r], &cancel).map(drop));
}

#[test]
fn a_running_inference_can_be_cancelled() {
    let model = load(&bundle(), &cpu(1, Optimisation::All)).unwrap();
    // Large enough to run for a while.
    let grid = Grid::for_picture(3840, 2160).unwrap();
    let batch = model.key_batch(grid, &[10]).unwrap();
    let cancel = Cancel::new();
    let prior = batch
        .prior(&[&vec![1; model.z_len(grid)]], &cancel)
        .unwrap();
    let r = vec![1; grid.y_len()];
    let start = Instant::now();
    batch.synthesise(&prior, &[&r], &cancel).unwrap();
    let full = start.elapsed();

    let start = Instant::now();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(full / 5);
            cancel.cancel();
        });
        batch.synthesise(&prior, &[&r], &cancel)
    });
    let aborted = start.elapsed();
    println!("a run of {full:?} was aborted after {aborted:?}");
    assert!(
        matches!(result, Err(NnError::Cancelled)),
        "{:?}",
        result.map(drop)
    );
    assert!(
        aborted < full.mul_f64(0.8) + Duration::from_millis(50),
        "{aborted:?} of {full:?}"
    );
    assert!(matches!(
        batch.synthesise(&prior, &[&r], &cancel),
        Err(NnError::Cancelled)
    ));

    cancel.reset();
    assert_eq!(digests(&model, 1), reference());
    let small = Grid::new(1, 1).unwrap();
    model
        .key_batch(small, &[0])
        .unwrap()
        .prior(&[&vec![0; model.z_len(small)]], &cancel)
        .unwrap();
}

/// A folder that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("nnv-exactness-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn copy_of_bundle(name: &str) -> Self {
        let scratch = Self::new(name);
        for entry in std::fs::read_dir(bundle())
            .unwrap()
            .flatten()
            .filter(|e| e.path().is_file())
        {
            // Not a plain copy: a read-only file must become writable.
            std::fs::write(
                scratch.0.join(entry.file_name()),
                std::fs::read(entry.path()).unwrap(),
            )
            .unwrap();
        }
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn edit(folder: &Path, change: impl FnOnce(String) -> String) {
    let path = folder.join("bundle.toml");
    let before = std::fs::read_to_string(&path).unwrap();
    let after = change(before.clone());
    assert_ne!(after, before, "the edit found nothing to change");
    std::fs::write(path, after).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Replaces the string value of the first line that assigns `key`, which may be quoted.
fn replace_value(text: &str, key: &str, value: &str) -> String {
    let mut done = false;
    let lines = text.lines().map(|line| match line.split_once('=') {
        Some((k, _)) if !done && k.trim().trim_matches('"') == key => {
            done = true;
            format!("{} = \"{value}\"", k.trim())
        }
        _ => line.to_string(),
    });
    let result = lines.collect::<Vec<_>>().join("\n") + "\n";
    assert!(done, "bundle.toml assigns no {key}");
    result
}

/// Makes the manifest agree with changed files again, so that only deeper checks can notice the
/// change.
fn rehash(folder: &Path) {
    let hex = |digest: &[u8]| {
        digest
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    };
    let digest = |name: &str| Sha256::digest(std::fs::read(folder.join(name)).unwrap());
    let path = folder.join("bundle.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let normative = [
        "key_prior.onnx",
        "key_synth.onnx",
        "inter_prior.onnx",
        "inter_synth.onnx",
        "tables.bin",
    ];
    let mut all = Sha256::new();
    for name in normative {
        all.update(digest(name));
        text = replace_value(&text, name, &hex(&digest(name)));
    }
    for name in ["key_enc.onnx", "key_mean.onnx", "inter_enc.onnx", "kat.bin"] {
        text = replace_value(&text, name, &hex(&digest(name)));
    }
    std::fs::write(path, replace_value(&text, "hash", &hex(&all.finalize()))).unwrap();
}

#[derive(Clone, Copy)]
enum Element {
    Int8,
    Float32,
}

/// Byte ranges of the initialisers that are convolution weights (four dimensions, more than a few
/// elements), read from the protobuf encoding: `ModelProto.graph` (7), `GraphProto.initializer`
/// (5), `TensorProto` `dims` (1), `data_type` (2: 1 = float32, 3 = int8), `raw_data` (9).
fn weights(onnx: &[u8]) -> Vec<(Element, std::ops::Range<usize>)> {
    let mut found = Vec::new();
    for (_, graph) in fields(onnx, 0..onnx.len())
        .into_iter()
        .filter(|(number, _)| *number == 7)
    {
        for (_, tensor) in fields(onnx, graph)
            .into_iter()
            .filter(|(number, _)| *number == 5)
        {
            let parts = fields(onnx, tensor);
            let field = |wanted| parts.iter().filter(move |(number, _)| *number == wanted);
            let element = match field(2).next().map(|(_, range)| &onnx[range.clone()]) {
                Some([1]) => Element::Float32,
                Some([3]) => Element::Int8,
                _ => continue,
            };
            // Packed or not: a dimension ends with a byte without continuation bit.
            let ends =
                field(1).map(|(_, range)| onnx[range.clone()].iter().filter(|b| **b < 128).count());
            let raw = field(9).next().map(|(_, range)| range.clone());
            if let (4, Some(raw)) = (ends.sum(), raw.filter(|raw| raw.len() > 64)) {
                found.push((element, raw));
            }
        }
    }
    found
}

/// Number and content of the fields of a protobuf message.
fn fields(bytes: &[u8], mut range: std::ops::Range<usize>) -> Vec<(u64, std::ops::Range<usize>)> {
    fn varint(bytes: &[u8], at: &mut usize) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while range.start < range.end {
        let tag = varint(bytes, &mut range.start);
        let start = range.start;
        let (from, to) = match tag & 7 {
            0 => {
                varint(bytes, &mut range.start);
                (start, range.start)
            }
            1 => (start, start + 8),
            2 => {
                let len = varint(bytes, &mut range.start) as usize;
                (range.start, range.start + len)
            }
            5 => (start, start + 4),
            other => panic!("wire type {other}"),
        };
        found.push((tag >> 3, from..to));
        range.start = to;
    }
    found
}

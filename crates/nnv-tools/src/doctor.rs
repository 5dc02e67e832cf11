// SPDX-License-Identifier: MPL-2.0
//! `nnv doctor`: what works here, and what to install.

use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;
use nnv_nn::{Model, ModelSource, Provider, Runtime, RuntimeOptions, SrBundle};
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Checks what is needed: ONNX Runtime, known answers of every bundle, GStreamer
///
/// Exit code 1 where streams cannot be decoded here.
#[derive(Args, Debug)]
pub struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Threads of the networks; 0: as many as there are processors
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    onnxruntime: Library,
    /// Compiled in, best first.
    providers: Vec<&'static str>,
    known_answers: Vec<Answer>,
    gstreamer: Gstreamer,
    /// What to do, a line each.
    advice: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Library {
    path: Option<String>,
    version: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    bundle: String,
    kind: &'static str,
    provider: &'static str,
    /// The codec's networks gave their known answers; those of super-resolution, which need not be
    /// exact, gave a picture of the right size.
    right: bool,
    ms: f64,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Gstreamer {
    /// `None`: gst-inspect-1.0 is not on PATH.
    version: Option<String>,
    /// Elements of this project that it finds.
    elements: Vec<&'static str>,
}

const ELEMENTS: [&str; 5] = ["nnvenc", "nnvparse", "nnvdec", "nnsr", "nnqp"];

/// What a program says on standard output, if it runs and succeeds.
fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    out.status.success().then_some(text)
}

fn gstreamer() -> Gstreamer {
    let version = says("gst-inspect-1.0", &["--version"]).map(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("GStreamer "));
        line.unwrap_or("unknown").trim().to_owned()
    });
    let mut elements = Vec::new();
    if version.is_some() {
        // Of any version: else a plugin has to be as new as GStreamer itself.
        let there = |name: &&str| {
            let words = ["--exists", "--atleast-version=0.0", *name];
            says("gst-inspect-1.0", &words).is_some()
        };
        elements.extend(ELEMENTS.into_iter().filter(there));
    }
    Gstreamer { version, elements }
}

fn known_answers(threads: usize) -> Vec<Answer> {
    let mut answers = Vec::new();
    for &provider in Provider::COMPILED {
        let options = RuntimeOptions {
            provider: Some(provider),
            threads,
            ..RuntimeOptions::default()
        };
        let mut add = |bundle: &str, kind, check: &dyn Fn() -> nnv_nn::Result<()>| {
            let start = Instant::now();
            let outcome = check();
            answers.push(Answer {
                bundle: bundle.into(),
                kind,
                provider: provider.as_str(),
                right: outcome.is_ok(),
                ms: start.elapsed().as_secs_f64() * 1e3,
                error: outcome.err().map(|e| e.to_string()),
            });
        };
        for bundle in nnv_nn::embedded() {
            let source = ModelSource::Embedded(bundle.name.into());
            add(bundle.name, "codec", &|| {
                Model::load(&source, &options).map(drop)
            });
        }
        for bundle in nnv_nn::embedded_sr() {
            let source = ModelSource::Embedded(bundle.name.into());
            add(bundle.name, "sr", &|| {
                let opened = SrBundle::open(&source)?;
                bundle
                    .scales
                    .iter()
                    .try_for_each(|&scale| opened.network(scale, &options).map(drop))
            });
        }
    }
    answers
}

fn examine(threads: usize) -> Report {
    let mut advice = Vec::new();
    let (onnxruntime, answers) = match Runtime::get() {
        Ok(runtime) => (
            Library {
                path: Some(runtime.path().display().to_string()),
                version: Some(runtime.version().into()),
                error: None,
            },
            known_answers(threads),
        ),
        Err(e) => {
            advice.push(
                "install ONNX Runtime 1.17 or later: scripts/setup.sh fetches it, or take \
                 libonnxruntime.so out of the Python package onnxruntime; then set \
                 NNV_ORT_LIBRARY to its absolute path"
                    .into(),
            );
            let library = Library {
                path: None,
                version: None,
                error: Some(e.to_string()),
            };
            (library, Vec::new())
        }
    };
    for answer in answers.iter().filter(|a| !a.right) {
        advice.push(match answer.provider {
            "cpu" => format!(
                "bundle {} does not give its known answers on the CPU: take another version of \
                 ONNX Runtime (NNV_ORT_LIBRARY)",
                answer.bundle
            ),
            other => format!(
                "bundle {} cannot use {other}: ONNX Runtime must be built with it, and its \
                 driver and libraries installed",
                answer.bundle
            ),
        });
    }
    let gstreamer = gstreamer();
    if gstreamer.version.is_none() {
        advice.push(
            "gst-inspect-1.0 is not on PATH: install gstreamer1.0-tools and \
             gstreamer1.0-plugins-base to play and to make streams"
                .into(),
        );
    } else if gstreamer.elements.len() < ELEMENTS.len() {
        let missing = ELEMENTS.iter().filter(|e| !gstreamer.elements.contains(e));
        advice.push(format!(
            "GStreamer does not find {}: install the plugin (meson install), or put its folder \
             into GST_PLUGIN_PATH",
            missing.copied().collect::<Vec<_>>().join(", ")
        ));
    }
    Report {
        version: env!("CARGO_PKG_VERSION"),
        onnxruntime,
        providers: Provider::COMPILED.iter().map(|p| p.as_str()).collect(),
        known_answers: answers,
        gstreamer,
        advice,
    }
}

/// The subcommand.
pub fn run(options: &Options) -> Result<()> {
    let report = examine(options.threads);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    let decodes = |kind| {
        let right = |a: &&Answer| a.kind == kind && a.right;
        report.known_answers.iter().filter(right).count()
    };
    if decodes("codec") > 0 {
        return Ok(());
    }
    Err(Failure::Input(match report.onnxruntime.error {
        Some(_) => "streams cannot be decoded here: ONNX Runtime is missing".into(),
        None => "streams cannot be decoded here: no bundle gives its known answers".into(),
    }))
}

fn print(report: &Report) {
    println!("nnv            {}", report.version);
    let library = &report.onnxruntime;
    match (&library.version, &library.path, &library.error) {
        (Some(version), Some(path), _) => println!("ONNX Runtime   {version}, {path}"),
        (_, _, error) => println!("ONNX Runtime   none: {}", error.as_deref().unwrap_or("")),
    }
    println!("providers      {}", report.providers.join(", "));
    for a in &report.known_answers {
        let (kind, good) = match a.kind {
            "sr" => ("super-resolution", "it runs"),
            _ => ("codec", "known answers right"),
        };
        print!("  {:12} {kind:16} on {}: ", a.bundle, a.provider);
        match &a.error {
            None => println!("{good}, {:.0} ms", a.ms),
            Some(e) => println!("FAILED: {e}"),
        }
    }
    match &report.gstreamer.version {
        None => println!("GStreamer      not found"),
        Some(version) => println!(
            "GStreamer      {version}, elements: {}",
            match report.gstreamer.elements.is_empty() {
                true => "none".into(),
                false => report.gstreamer.elements.join(", "),
            }
        ),
    }
    for line in &report.advice {
        println!("to do          {line}");
    }
}

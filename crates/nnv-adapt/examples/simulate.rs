// SPDX-License-Identifier: MPL-2.0
//! Simulated live streams over traces, and how constants were chosen. See `--help`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use nnv_adapt::sim::{self, Link, Outcome, Scene};
use nnv_adapt::{Controller, Forecast, Harmonic, Limits, Mode, Neural, Trace, Tuning, abr};
use nnv_nn::ModelSource;

const HELP: &str = "\
simulate FOLDER [NAME=VALUE ...]    live streams over every trace of a folder
  controller=draft|rule|harmonic|learned   who finds the rate (default: all four)
  model=FOLDER                      another bundle than the one built in
  min=100000                        lowest rate of the stream, bit/s
  scale=1 loss=0 every=1            of the path: its rate, random loss; use every so many traces
  caution=, caution_queued=, horizon=, drain=, full=, growth=, under_way=   constants
  mode=live|demand                  demand: an adaptive HTTP stream instead
  held=1                            only what training held out (every fifth of a source)";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Options {
    folder: PathBuf,
    values: BTreeMap<String, String>,
}

impl Options {
    fn parse() -> Result<Self> {
        let mut folder = None;
        let mut values = BTreeMap::new();
        for argument in std::env::args().skip(1) {
            match argument.split_once('=') {
                Some((name, value)) => drop(values.insert(name.into(), value.into())),
                None if argument == "--help" => {
                    println!("{HELP}");
                    std::process::exit(0);
                }
                None => folder = Some(argument.into()),
            }
        }
        Ok(Self {
            folder: folder.ok_or(HELP)?,
            values,
        })
    }

    fn number(&self, name: &str, default: f64) -> Result<f64> {
        match self.values.get(name) {
            Some(text) => text
                .parse()
                .map_err(|_| format!("{name}={text} is no number").into()),
            None => Ok(default),
        }
    }

    fn tuning(&self) -> Result<Tuning> {
        let d = Tuning::default();
        Ok(Tuning {
            caution: self.number("caution", d.caution)?,
            caution_queued: self.number("caution_queued", d.caution_queued)?,
            horizon: self.number("horizon", d.horizon)?,
            drain: self.number("drain", d.drain)?,
            full: self.number("full", d.full)?,
            growth: self.number("growth", d.growth)?,
            under_way: self.number("under_way", d.under_way)?,
        })
    }

    fn neural(&self) -> Result<Neural> {
        Ok(match self.values.get("model") {
            Some(folder) => Neural::load(&ModelSource::Folder(folder.into()))?,
            None => Neural::built_in()?,
        })
    }

    fn traces(&self) -> Result<Vec<(String, Trace)>> {
        let scale = self.number("scale", 1.0)?;
        let every = self.number("every", 1.0)?.max(1.0) as usize;
        let held = self.number("held", 0.0)? > 0.0;
        let mut paths: Vec<_> = std::fs::read_dir(&self.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "txt"))
            .collect();
        paths.sort();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut traces = Vec::new();
        for path in paths {
            let source = source_of(&path);
            let n = seen.entry(source.clone()).or_default();
            *n += 1;
            if if held {
                !n.is_multiple_of(5)
            } else {
                !(*n - 1).is_multiple_of(every)
            } {
                continue;
            }
            let trace = Trace::parse(&std::fs::read_to_string(&path)?)
                .map_err(|e| format!("{}: {e}", path.display()))?;
            traces.push((source, trace.scaled(scale)?));
        }
        if traces.is_empty() {
            return Err(format!("{} holds no traces (*.txt)", self.folder.display()).into());
        }
        Ok(traces)
    }
}

fn source_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.split('_').next().unwrap_or_default().into()
}

fn main() -> Result<()> {
    let options = Options::parse()?;
    let traces = options.traces()?;
    if options.values.get("mode").is_some_and(|m| m == "demand") {
        return demand(&options, &traces);
    }
    let all = ["draft", "rule", "harmonic", "learned"];
    let wanted = options.values.get("controller").map(String::as_str);
    let min = options.number("min", 100e3)?;
    let limits = Limits::new(min, 5e6).ok_or("min is above 0 and at most 5000000")?;
    let link = Link {
        loss: options.number("loss", 0.0)?,
        ..Link::default()
    };
    println!(
        "| controller | source | quality | frozen % | late % | left out % | used % | score |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for name in all
        .into_iter()
        .filter(|name| wanted.is_none_or(|w| w == *name))
    {
        let started = std::time::Instant::now();
        let mut sums: BTreeMap<&str, Outcome> = BTreeMap::new();
        for (i, (source, trace)) in traces.iter().enumerate() {
            let mode = match name {
                "rule" => Mode::rule(),
                "draft" => Mode::Rule { under_way: None },
                "harmonic" => Mode::Learned(Box::new(Harmonic::new(0.5)), options.tuning()?),
                _ => Mode::Learned(Box::new(options.neural()?), options.tuning()?),
            };
            let scene = Scene {
                seed: i as u64 + 1,
                ..Scene::default()
            };
            let mut controller = Controller::new(mode, limits, 300e3);
            let outcome = sim::play(&mut controller, trace, &link, &scene);
            sums.entry(source).or_default().add(&outcome);
            sums.entry("all").or_default().add(&outcome);
        }
        for (source, o) in &sums {
            let percent = |a: u64, b: u64| 100.0 * a as f64 / b.max(1) as f64;
            println!(
                "| {name} | {source} | {:.3} | {:.2} | {:.2} | {:.2} | {:.1} | {:.3} |",
                o.quality(),
                100.0 * o.qoe.frozen / o.seconds,
                percent(o.late, o.shown),
                percent(o.left_out, o.left_out + o.shown),
                100.0 * o.bits / o.capacity,
                o.qoe.score(),
            );
        }
        let seconds = sums.get("all").map_or(0.0, |o| o.seconds);
        let speed = seconds / started.elapsed().as_secs_f64();
        eprintln!("{name}: {seconds:.0} s at {speed:.0} times their speed");
    }
    Ok(())
}

fn demand(options: &Options, traces: &[(String, Trace)]) -> Result<()> {
    let caution = options.number("caution", 0.25)?;
    println!(
        "| forecast | source | quality | rebuffering % | switches per minute | score |\n\
         |---|---|---|---|---|---|"
    );
    for name in ["harmonic", "learned"] {
        let mut sums: BTreeMap<&str, abr::Watched> = BTreeMap::new();
        for (source, trace) in traces {
            let mut forecast: Box<dyn Forecast> = match name {
                "harmonic" => Box::new(Harmonic::new(0.5)),
                _ => Box::new(options.neural()?),
            };
            let watched = abr::Player {
                caution,
                ..abr::Player::default()
            }
            .play(&mut *forecast, trace, 600.0);
            for key in [source.as_str(), "all"] {
                sums.entry(key).or_default().add(&watched);
            }
        }
        for (source, w) in &sums {
            println!(
                "| {name} | {source} | {:.3} | {:.2} | {:.2} | {:.3} |",
                w.qoe.quality / w.qoe.seconds.max(1e-9),
                100.0 * w.qoe.frozen / (w.qoe.seconds + w.qoe.frozen).max(1e-9),
                60.0 * w.switches as f64 / w.qoe.seconds.max(1e-9),
                w.qoe.score(),
            );
        }
    }
    Ok(())
}

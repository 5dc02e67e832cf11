// SPDX-License-Identifier: MPL-2.0
//! The program `nnv`: looks into, cuts, joins, compares, verifies and measures streams. No
//! GStreamer in it.
//!
//! Exit codes: 0 good, 1 bad input (one line says where), 2 usage.

mod atlas;
mod bench;
mod colours;
mod compare;
mod conformance;
mod cut;
mod doctor;
mod encode;
mod failure;
mod files;
mod frames;
mod groups;
mod hls;
mod info;
mod inspect;
mod keys;
mod model;
mod models;
mod plot;
mod process;
mod quantizers;
mod stream;
mod units;
mod y4m;

use std::io::stdout;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_mangen::Man;

use crate::failure::{Failure, Result};

/// Tools for streams of the NNV video codec
#[derive(Parser, Debug)]
#[command(name = "nnv", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 good, 1 bad input, 2 usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Info(info::Options),
    Units(units::Options),
    Cut(cut::CutOptions),
    Join(cut::JoinOptions),
    Hls(hls::Options),
    Compare(compare::Options),
    Inspect(inspect::Options),
    Encode(encode::Options),
    /// Measures speed, by stage and by network
    #[command(subcommand)]
    Bench(bench::Bench),
    Quantizers(quantizers::Options),
    Doctor(doctor::Options),
    Model(model::Options),
    Keygen(keys::KeygenOptions),
    Verify(keys::VerifyOptions),
    #[command(hide = true)]
    Conformance(conformance::Options),
    #[command(hide = true)]
    RdoPoints(encode::points::Options),
    /// Prints completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Prints the manual page, of a subcommand where one is named
    Man {
        /// For example `info`, or `bench codec`
        subcommand: Vec<String>,
    },
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Info(options) => info::run(options),
        Command::Units(options) => units::run(options),
        Command::Cut(options) => cut::cut(options),
        Command::Join(options) => cut::join(options),
        Command::Hls(options) => hls::run(options),
        Command::Compare(options) => compare::run(options),
        Command::Inspect(options) => inspect::run(options),
        Command::Encode(options) => encode::run(options),
        Command::Bench(which) => bench::run(which),
        Command::Quantizers(options) => quantizers::run(options),
        Command::Doctor(options) => doctor::run(options),
        Command::Model(options) => model::run(options),
        Command::Keygen(options) => keys::keygen(options),
        Command::Verify(options) => keys::verify(options),
        Command::Conformance(options) => conformance::run(options),
        Command::RdoPoints(options) => encode::points::run(options),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "nnv", &mut stdout());
            Ok(())
        }
        Command::Man { subcommand } => man(subcommand),
    }
}

fn man(subcommand: &[String]) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    for name in subcommand {
        command = command
            .find_subcommand(name)
            .cloned()
            .ok_or_else(|| Failure::Usage(format!("there is no subcommand {name}")))?;
    }
    Man::new(command).render(&mut stdout())?;
    Ok(())
}

fn main() -> ExitCode {
    process::end_with_pipe();
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Input(what)) => {
            eprintln!("nnv: {}", what.replace('\n', " "));
            ExitCode::from(1)
        }
        Err(Failure::Usage(what)) => {
            eprintln!("nnv: {what}");
            ExitCode::from(2)
        }
    }
}

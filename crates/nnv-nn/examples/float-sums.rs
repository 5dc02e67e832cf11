// SPDX-License-Identifier: MPL-2.0
//! Writes a graph as processors other than x86 run it: `float-sums IN.onnx OUT.onnx`. For
//! `scripts/exactness.sh`, which has no processor of that kind.

use std::process::ExitCode;

fn main() -> ExitCode {
    let paths: Vec<_> = std::env::args_os().skip(1).collect();
    let [from, to] = &paths[..] else {
        eprintln!("usage: float-sums IN.onnx OUT.onnx");
        return ExitCode::from(2);
    };
    let done = std::fs::read(from)
        .map_err(|e| format!("{}: {e}", from.display()))
        .and_then(|bytes| {
            let changed = nnv_nn::sums_in_float(&bytes)?;
            std::fs::write(to, &changed).map_err(|e| format!("{}: {e}", to.display()))
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

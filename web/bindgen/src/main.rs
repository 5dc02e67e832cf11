// SPDX-License-Identifier: MPL-2.0
//! `nnv-bindgen INPUT.wasm FOLDER`: the module with its JavaScript and TypeScript, for a Worker.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(input), Some(folder)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: nnv-bindgen INPUT.wasm FOLDER");
        return ExitCode::from(2);
    };
    let made = wasm_bindgen_cli_support::Bindgen::new()
        .input_path(&input)
        .out_name("nnv_web")
        .web(true)
        // The page says where the module is.
        .and_then(|b| b.omit_default_module_path(true).typescript(true).generate(&folder));
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nnv-bindgen: {input}: {error:?}");
            ExitCode::FAILURE
        }
    }
}

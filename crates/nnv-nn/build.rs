// SPDX-License-Identifier: MPL-2.0
//! A table of the model bundles under `models/` for `src/bundle.rs`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn sorted_entries(dir: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    entries.sort();
    entries
}

/// Writes `EMBEDDED`: every file of each folder that holds a `bundle.toml`, codecs directly under
/// `models/` and, for decoding, those of earlier versions under `models/earlier/`; beside them the
/// predictions `models/network`, `models/rdo` and `models/quality`, and super-resolution under
/// `models/sr/`.
/// Model cards are prose and stay out of the binary.
fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets this"));
    let models = here.join("../../models");
    println!("cargo::rerun-if-changed=build.rs");
    let commits = here.join("../../.git/logs/HEAD");
    if commits.is_file() {
        println!("cargo::rerun-if-changed={}", commits.display());
    }
    let mut table = String::from("static EMBEDDED: &[EmbeddedBundle] = &[\n");
    let kinds: &[_] = match env::var_os("CARGO_FEATURE_EMBEDDED") {
        Some(_) => &[
            ("Codec", models.clone()),
            ("Codec", models.join("earlier")),
            ("Sr", models.join("sr")),
        ],
        None => &[],
    };
    for (kind, parent) in kinds {
        for dir in sorted_entries(parent) {
            if dir.join("bundle.toml").is_file() {
                let kind = match dir.file_name().and_then(|n| n.to_str()) {
                    Some("network") if *kind == "Codec" => "Network",
                    Some("rdo") if *kind == "Codec" => "Rdo",
                    Some("quality") if *kind == "Codec" => "Quality",
                    _ => kind,
                };
                embed(&mut table, kind, &dir);
            }
        }
    }
    table.push_str("];\n");
    let out =
        PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets this")).join("embedded_bundles.rs");
    fs::write(&out, table).expect("OUT_DIR is writable");
}

fn embed(table: &mut String, kind: &str, dir: &Path) {
    // Only bundles are watched: `models/training` changes all the time. A bundle that is new comes
    // with a commit, and those are watched in `main`.
    println!("cargo::rerun-if-changed={}", dir.display());
    let folder = dir
        .file_name()
        .and_then(|n| n.to_str())
        .expect("bundle folders have UTF-8 names");
    let _ = writeln!(
        table,
        "    EmbeddedBundle {{ kind: Kind::{kind}, folder: {folder:?}, files: &["
    );
    for file in sorted_entries(dir) {
        let name = file
            .file_name()
            .and_then(|n| n.to_str())
            .expect("bundle files have UTF-8 names");
        if file.is_file() && !name.ends_with(".md") {
            let path = file.to_str().expect("the checkout has a UTF-8 path");
            let _ = writeln!(table, "        ({name:?}, include_bytes!({path:?})),");
        }
    }
    table.push_str("    ] },\n");
}

// SPDX-License-Identifier: MPL-2.0
//! `nnv model`: what is in a bundle.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use nnv_nn::{BundleFile, BundleListing, hex};
use toml::{Table, Value};

use crate::failure::{Failure, Result};
use crate::{atlas, models};

/// Tells what is in a bundle: files, hashes, tables, sizes, training
///
/// Without a name: the bundles that are built in.
#[derive(Args, Debug)]
pub struct Options {
    /// A built-in bundle, or the folder of one
    #[arg(value_name = "NAME|FOLDER")]
    bundle: Option<String>,
    /// Write a page that shows each channel of the latent: what it draws, its share of the bits
    #[arg(long, value_name = "HTML", requires = "bundle")]
    atlas: Option<PathBuf>,
    /// What bits are counted on: .y4m, a stream, or anything that GStreamer reads; else a
    /// synthetic clip
    #[arg(long, value_name = "CLIP", requires = "atlas")]
    clip: Option<PathBuf>,
    /// Frames of the clip
    #[arg(long, value_name = "N", default_value_t = 9, requires = "atlas",
          value_parser = clap::value_parser!(u16).range(2..=300))]
    frames: u16,
    /// Threads; 0: as many as there are processors
    #[arg(long, value_name = "N", default_value_t = 0, requires = "atlas")]
    threads: u32,
}

/// The subcommand.
pub fn run(options: &Options) -> Result<()> {
    let clip = options.clip.as_deref();
    match (&options.bundle, &options.atlas) {
        (None, _) => list(),
        (Some(name), None) => show(name),
        (Some(name), Some(page)) => {
            atlas::run(name, page, clip, options.frames.into(), options.threads)
        }
    }
}

fn list() -> Result<()> {
    let codecs = nnv_nn::embedded().into_iter();
    let sr = nnv_nn::embedded_sr().into_iter().map(|b| (b.name, false));
    let bundles = codecs.map(|b| (b.name, b.decodes_only)).chain(sr);
    for (name, decodes_only) in bundles {
        let listing = BundleListing::read(&models::source(name))?;
        let manifest = manifest(name, &listing)?;
        let bytes: u64 = listing.files.iter().map(|f| f.bytes).sum();
        let (head, kind) = head(&manifest);
        let mib = bytes as f64 / f64::from(1 << 20);
        match head.get("hash").and_then(Value::as_str) {
            Some(hash) => println!(
                "{name:12} {kind:6} {mib:6.1} MiB  hash {}{}",
                short(hash),
                if decodes_only { ", for decoding" } else { "" }
            ),
            None => println!(
                "{name:12} {kind:6} {mib:6.1} MiB  {}",
                text(head.get("description"))
            ),
        }
    }
    Ok(())
}

/// As much of a hash as streams carry.
fn short(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

fn text(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}

fn manifest(name: &str, listing: &BundleListing) -> Result<Table> {
    listing.manifest.parse().map_err(|e: toml::de::Error| {
        let at = e.span().map_or(0, |span| span.start);
        let line = 1 + listing
            .manifest
            .bytes()
            .take(at)
            .filter(|&b| b == b'\n')
            .count();
        Failure::Input(format!("{name}: bundle.toml, line {line}: {}", e.message()))
    })
}

/// The table that states format and kind, and the kind: they stand at the top in the codec's
/// bundles.
fn head(manifest: &Table) -> (&Table, String) {
    let head = match manifest.get("bundle") {
        Some(Value::Table(table)) => table,
        _ => manifest,
    };
    let kind = head.get("kind").map_or("codec".into(), |k| text(Some(k)));
    (head, kind)
}

/// SHA-256 that the manifest states, by file.
fn stated(manifest: &Table) -> BTreeMap<&str, &str> {
    let mut stated = BTreeMap::new();
    if let Some(Value::Table(files)) = manifest.get("files") {
        let hashes = files
            .iter()
            .filter_map(|(n, h)| Some((n.as_str(), h.as_str()?)));
        stated.extend(hashes);
    }
    if let Some(Value::Array(networks)) = manifest.get("network") {
        stated.extend(networks.iter().filter_map(|network| {
            let field = |name| network.get(name).and_then(Value::as_str);
            Some((field("file")?, field("sha256")?))
        }));
    }
    stated
}

fn show(name: &str) -> Result<()> {
    let source = models::source(name);
    let listing = BundleListing::read(&source)?;
    let manifest = manifest(name, &listing)?;
    let (head, kind) = head(&manifest);
    let name_in = text(head.get("name"));
    println!(
        "{name_in}: kind {kind}, format {}",
        text(head.get("format"))
    );
    for (key, value) in head {
        let known = ["name", "kind", "format"].contains(&key.as_str());
        if !known && !matches!(value, Value::Table(_) | Value::Array(_)) {
            println!("  {key:18} {}", text(Some(value)));
        }
    }
    let stated = stated(&manifest);
    println!("files");
    let mut wrong = Vec::new();
    for BundleFile {
        name,
        bytes,
        sha256,
    } in &listing.files
    {
        let found = hex(sha256);
        let verdict = match stated.get(name.as_str()) {
            Some(hash) if *hash == found => "as stated",
            Some(_) => {
                wrong.push(name.as_str());
                "NOT AS STATED"
            }
            None => "not stated",
        };
        println!("  {name:18} {bytes:10} bytes  {found}  {verdict}");
    }
    // Model cards are for people; they are not built in.
    let missing = stated
        .keys()
        .filter(|name| !name.ends_with(".md") && !listing.files.iter().any(|f| f.name == **name));
    let missing: Vec<&str> = missing.copied().collect();
    for name in &missing {
        println!("  {name:18} MISSING");
    }
    if let Some(Value::Table(tables)) = manifest.get("tables") {
        println!("tables");
        for (name, table) in tables {
            let field = |key| text(table.get(key));
            println!(
                "  {name:18} {:4} {:12} at {}",
                field("dtype"),
                field("shape"),
                field("offset")
            );
        }
    }
    if let Some(Value::Array(answers)) = manifest.get("known_answer") {
        println!("known answers");
        for answer in answers {
            let names = |key| match answer.get(key) {
                Some(Value::Array(list)) => {
                    let names = list.iter().map(|item| text(item.get("name")));
                    names.collect::<Vec<_>>().join(", ")
                }
                _ => String::new(),
            };
            let graph = text(answer.get("graph"));
            println!("  {graph:18} {} -> {}", names("inputs"), names("outputs"));
        }
    }
    if let Some(Value::Array(networks)) = manifest.get("network") {
        println!("networks");
        for network in networks.iter().filter_map(Value::as_table) {
            let facts = network.iter().filter(|(key, _)| *key != "sha256");
            let facts: Vec<_> = facts
                .map(|(k, v)| format!("{k} {}", text(Some(v))))
                .collect();
            println!("  {}", facts.join(", "));
        }
    }
    if let Some(Value::Table(training)) = manifest.get("training") {
        println!("training");
        for (part, facts) in training {
            println!("  {part}");
            for (key, value) in facts.as_table().into_iter().flatten() {
                println!("    {key:16} {}", text(Some(value)));
            }
        }
    }
    if let Some(bad) = wrong.first().or(missing.first()) {
        let what = if wrong.is_empty() {
            "is missing"
        } else {
            "is not what bundle.toml states"
        };
        return Err(Failure::Input(format!("{name}: the file {bad} {what}")));
    }
    Ok(())
}

#!/usr/bin/env bash
# gstreamer 0.25.4 (Rust bindings) with GStreamer 1.22.0: a pad probe that drops a buffer prints a
# critical warning for each.
#
# Believed: a probe's closure that returns PadProbeReturn::Drop has the buffer left out and freed,
# as GST_PAD_PROBE_DROP does in C.
# Seen: the buffer is left out, but each time GStreamer says "gst_mini_object_unref: assertion
# 'mini_object != NULL' failed" (G_DEBUG=fatal-criticals would end the program there).
# PadProbeReturn::Handled, from a closure that takes nothing, leaves the buffer out in silence.
# For NNV: its probes return Handled (src/nnvadapt/imp.rs).
#
# Builds a program of a few lines with the pinned crate in a temporary folder; needs cargo and
# GStreamer's development files. Exit status 0: seen again; 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
gst = { package = "gstreamer", version = "=0.25.4" }

[workspace]
TOML
cat >"$folder/src/main.rs" <<'RUST'
use gst::prelude::*;

/// Three buffers run into a probe that leaves each of them out with `answer`.
fn main() {
    let answer = match std::env::args().nth(1).as_deref() {
        Some("drop") => gst::PadProbeReturn::Drop,
        _ => gst::PadProbeReturn::Handled,
    };
    gst::init().unwrap();
    let pipeline = gst::parse::launch("videotestsrc num-buffers=3 ! fakesink name=sink").unwrap();
    let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
    let pad = bin.by_name("sink").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| answer).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(30), &ends);
    assert_eq!(end.map(|m| m.type_()), Some(gst::MessageType::Eos));
    pipeline.set_state(gst::State::Null).unwrap();
}
RUST
cd "$folder"
cargo build --quiet
pkg-config --modversion gstreamer-1.0
for answer in drop handled; do
  target/debug/finding "$answer" 2>"$answer.txt"
done
dropped=$(grep -c "gst_mini_object_unref: assertion 'mini_object != NULL' failed" drop.txt || true)
handled=$(grep -c CRITICAL handled.txt || true)
grep -m 1 CRITICAL drop.txt || true
echo "critical warnings for three buffers: Drop $dropped, Handled $handled"
[ "$dropped" = 3 ] && [ "$handled" = 0 ]

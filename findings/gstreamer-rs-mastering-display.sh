#!/usr/bin/env bash
# gstreamer-video 0.25.4 (Rust bindings): a mastering display's coordinate does not survive being
# read and made anew.
#
# Believed: VideoMasteringDisplayInfoCoordinate::new(c.x(), c.y()) equals c, since x() and y() give
# the stored 16-bit value as a fraction of 50000.
# Seen: new() multiplies by 50000 and cuts off what is behind the point, so a float just below a
# whole number loses one: 13250 becomes 13249, and 2667 of the 50001 values change. HDR10
# metadata change by one step each time they pass through such code.
# For NNV: what has passed through the bindings is put right by half a step (src/common/caps.rs).
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
gst-video = { package = "gstreamer-video", version = "=0.25.4", features = ["v1_18"] }

[workspace]
TOML
cat >"$folder/src/main.rs" <<'RUST'
use gst_video::VideoMasteringDisplayInfoCoordinate as Coordinate;

fn main() {
    let stored = |c: Coordinate| (f64::from(c.x()) * 50000.0).round() as u32;
    let mut changed = Vec::new();
    for value in 0..=50000u32 {
        // Half a step more, so that what is stored is the value itself.
        let exact = Coordinate::new(((f64::from(value) + 0.5) / 50000.0) as f32, 0.0);
        assert_eq!(stored(exact), value, "the value can be stored");
        if stored(Coordinate::new(exact.x(), exact.y())) != value {
            changed.push(value);
        }
    }
    println!("{} of 50001 values change; 13250 among them: {}", changed.len(), changed.contains(&13250));
    std::process::exit(i32::from(changed.is_empty()));
}
RUST
cd "$folder"
cargo run --quiet

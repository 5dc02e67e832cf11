#!/usr/bin/env bash
# Writes the software bill of materials of the plugin and of the program nnv: CycloneDX 1.5, JSON.
#
#   scripts/sbom.sh [FILE]        default: standard output
#
# All crates that are built in, with version, licence, checksum and source, as Cargo.lock and the
# registry's manifests have them; the networks' bundles with their hashes; and ONNX Runtime, which
# is loaded at run time and not built in. Needs cargo and Python; takes nothing from the network
# once the crates are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-/dev/stdout}
cargo metadata --locked --format-version 1 | python3 scripts/sbom.py >"$out"

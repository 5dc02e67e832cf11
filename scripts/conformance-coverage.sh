#!/usr/bin/env bash
# Which lines of the decoder the conformance streams run through:
#
#   scripts/conformance-coverage.sh [--lines]     --lines: also those that they do not, by file
#
# Builds the decoder with counters in target/coverage, which is removed at the end, decodes all of
# tests/conformance (crates/nnv-codec/tests/conformance.rs), and counts the normative lines:
# scripts/conformance_coverage.py says which these are. Exit code 1 below 95 %. Needs the tools of
# LLVM that belong to the compiler (rustup component add llvm-tools), or those of the same LLVM in a
# folder that LLVM_TOOLS names (Debian: llvm-22), and some minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=${LLVM_TOOLS:-$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin}
[ -x "$tools/llvm-cov" ] || {
  echo "llvm-cov is missing in $tools: rustup component add llvm-tools, or set LLVM_TOOLS"
  exit 1
}
# shellcheck source=scripts/env.sh
. scripts/env.sh 2>/dev/null

target=$PWD/target/coverage
rm -rf "$target"
trap 'rm -rf "$target"' EXIT
mkdir -p "$target/debug"
# Crates of others have no counters: what was built of them is taken over.
for folder in deps build .fingerprint; do
  if [ -d "target/debug/$folder" ]; then cp -al "target/debug/$folder" "$target/debug/"; fi
done
printf '#!/bin/sh\nexec "$@" -C instrument-coverage\n' >"$target/rustc"
chmod +x "$target/rustc"
export CARGO_TARGET_DIR=$target RUSTC_WORKSPACE_WRAPPER=$target/rustc
# Counters are exact without, and the build is faster.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0
export LLVM_PROFILE_FILE=$target/profiles/%p-%m.profraw
test=$(cargo test --locked -p nnv-codec --test conformance --no-run --message-format json |
  sed -n 's/.*"executable":"\([^"]*conformance-[^"]*\)".*/\1/p')
# What building has run does not count.
rm -rf "$target/profiles"
"$test" --quiet
"$tools/llvm-profdata" merge -sparse "$target"/profiles/*.profraw -o "$target/all.profdata"
"$tools/llvm-cov" export --format lcov --instr-profile "$target/all.profdata" "$test" >"$target/lcov"
scripts/conformance_coverage.py "$@" "$target/lcov"

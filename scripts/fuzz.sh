#!/usr/bin/env bash
# Fuzz what reads bytes from anywhere. Needs stable Rust and a C++ compiler, no GStreamer and no
# ONNX Runtime.
#
#   scripts/fuzz.sh [--seconds N] [TARGET…]
#
# Each target runs for N seconds (10 if not said), from the inputs in fuzz/corpus; without TARGET,
# all of them. What makes a target fail is kept in fuzz/artifacts/TARGET; run one again with
#   fuzz/target/TRIPLE/release/TARGET FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=10
targets=()
while (($#)); do
  case $1 in
    --seconds) seconds=${2:?"--seconds needs a number"}; shift ;;
    -h | --help) sed -n '2,9p' "$0"; exit ;;
    -*) echo "fuzz.sh: unknown option $1 (try --help)" >&2; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
all=()
for file in fuzz/fuzz_targets/*.rs; do all+=("$(basename "$file" .rs)"); done
((${#targets[@]})) || targets=("${all[@]}")
for target in "${targets[@]}"; do
  if ! [ -f "fuzz/fuzz_targets/$target.rs" ]; then
    echo "fuzz.sh: no target $target; there are: ${all[*]}" >&2
    exit 2
  fi
done
if ! command -v "${CXX:-c++}" >/dev/null; then
  echo "fuzz.sh: a C++ compiler is needed for libFuzzer: scripts/setup.sh --test installs one" >&2
  exit 2
fi

# What cargo-fuzz sets, as far as stable Rust knows it: counters at every branch, and what is
# compared with what. The triple keeps these flags from build scripts and procedural macros.
triple=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
RUSTFLAGS=$flags cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target "$triple" \
  --target-dir fuzz/target "${bins[@]}"

failed=()
for target in "${targets[@]}"; do
  artifacts=fuzz/artifacts/$target
  # New inputs go beside the committed ones, where git does not see them.
  found=fuzz/target/corpus/$target
  mkdir -p "$artifacts" "$found"
  printf '%-14s ' "$target"
  log=fuzz/target/$target.log
  if "fuzz/target/$triple/release/$target" "$found" "fuzz/corpus/$target" \
    -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=512 -malloc_limit_mb=256 \
    -timeout=10 -print_final_stats=1 -artifact_prefix="$artifacts/" >"$log" 2>&1; then
    awk '/stat::number_of_executed_units/ {runs = $2} /stat::peak_rss_mb/ {mib = $2}
      / cov: / {for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1)}
      END {printf "%d runs, %d places reached, %d MiB\n", runs, cov, mib}' "$log"
  else
    echo "FAILED, see $artifacts"
    tail -n 40 "$log"
    failed+=("$target")
  fi
done
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi

#!/usr/bin/env bash
# Do all set-up, build the plugin, and show the codec at work: encode a video with gst-launch-1.0,
# decode it through decodebin's own choice of elements, print a table, and write a picture of
# original and decoded side by side.
#
#   scripts/demo.sh [FILE]     FILE: any video GStreamer can decode; default: the clip that ships
#   with the project
#
# Environment: NNV_DEMO_QUANTIZER  0..63, lower is better and larger (default 28) NNV_DEMO_BFRAMES
# 0 (low delay) .. 7 (hierarchical B, default) NNV_DEMO_FRAMES     frames of FILE to code (default
# 250; a few more may pass before the pipeline stops) NNV_DEMO_OPTIONS    more properties for
# nnvenc, e.g. "execution-provider=cuda tune=psnr"
set -euo pipefail

caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
  -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
if (($# > 1)); then echo "demo: one FILE at a time; see $0 --help" >&2; exit 2; fi

file=${1:-$PWD/tests/fixtures/demo.mkv}
case $file in /*) ;; *) file=$caller/$file ;; esac
[ -r "$file" ] || { echo "demo: $file: no such file, or not readable" >&2; exit 1; }
quantizer=${NNV_DEMO_QUANTIZER:-28} bframes=${NNV_DEMO_BFRAMES:-7} frames=${NNV_DEMO_FRAMES:-250}

say() { printf '\033[1mdemo:\033[0m %s\n' "$*" >&2; }

scripts/setup.sh
# shellcheck disable=SC1091
if ! command -v cargo >/dev/null; then . "${CARGO_HOME:-$HOME/.cargo}/env"; fi
say "building the plugin (release)"
cargo build --release --locked --lib --example nnv-compare
# shellcheck source=scripts/env.sh
. scripts/env.sh

if ! gst-inspect-1.0 nnvenc >/dev/null 2>&1; then
  echo "demo: GStreamer does not load the plugin that was just built:" >&2
  gst-inspect-1.0 "$PWD/.deps/gstreamer-1.0/libgstnnv.so" >&2 || true
  exit 1
fi

name=$(basename "$file")
out=$PWD/out/demo
stream=$out/${name%.*}.nnv picture=$out/${name%.*}.png log=$out/${name%.*}.encode.log
mkdir -p "$out"

read -r -a more <<<"${NNV_DEMO_OPTIONS:-}"
# shellcheck disable=SC2054
pipeline=(
  filesrc "location=$file" ! decodebin ! videoconvert ! video/x-raw,format=I420 ! identity "eos-after=$((frames + 1))"
  ! progressreport update-freq=2 silent=false
  ! nnvenc "quantizer=$quantizer" "bframes=$bframes" "${more[@]}" ! filesink "location=$stream"
)
say "encoding (about $frames frames, or all where there are fewer): gst-launch-1.0 -v ${pipeline[*]}"
# The properties that -v prints go to the log; what a person wants to see is progress, warnings and
# errors.
if ! gst-launch-1.0 -v "${pipeline[@]}" 2>&1 | tee "$log" | grep --line-buffered -iE '^progress|warning|error|additional debug' >&2; then
  true # grep found nothing to show
fi
if grep -q '^ERROR' "$log" || [ ! -s "$stream" ]; then
  echo "demo: encoding failed; the whole log is in $log" >&2
  exit 1
fi

say "decoding and comparing"
"${CARGO_TARGET_DIR:-$PWD/target}/release/examples/nnv-compare" "$file" "$stream" "$picture" --enough "$frames" --encode-log "$log"
echo "  play it         source scripts/env.sh && gst-play-1.0 $stream"

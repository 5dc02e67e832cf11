#!/usr/bin/env bash
# Two builds of the plugin in turn: user seconds of encoding and decoding, and bytes.
#
#   bench/builds.sh BEFORE NOW CLIP.y4m...
#     BEFORE, NOW  folders that hold one libgstnnv.so each
#
# Each build decodes what it coded. Start of the process included; medians of ROUNDS (3).
# Environment: CORE all is pinned to (default 0), ENCODER properties of nnvenc.
set -euo pipefail
(($# >= 3)) || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
builds=("$(realpath "$1")" "$(realpath "$2")")
shift 2
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/env.sh"
read -ra encoder <<<"${ENCODER:-quantizer=32 bframes=7}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# timed BUILD PIPELINE: user seconds.
timed() {
  local build=$1 TIMEFORMAT=%U
  shift
  export GST_PLUGIN_PATH=${builds[build]} GST_REGISTRY=$work/registry$build
  { time taskset -c "${CORE:-0}" gst-launch-1.0 -q "$@" >"$work/said" 2>&1; } 2>&1 ||
    { cat "$work/said" >&2 && return 1; }
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

for build in 0 1; do timed $build fakesrc num-buffers=1 ! fakesink >/dev/null; done
echo "| clip | encoding before | now | ratio | decoding before | now | ratio | bytes before | now |"
echo "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
for clip; do
  for _ in $(seq "${ROUNDS:-3}"); do
    for build in 0 1; do
      stream=$work/$build.nnv
      timed $build filesrc location="$clip" ! y4mdec ! nnvenc threads=1 "${encoder[@]}" \
        ! filesink location="$stream" >>"$work/encode$build"
      timed $build filesrc location="$stream" ! nnvparse ! nnvdec threads=1 ! fakesink \
        >>"$work/decode$build"
    done
  done
  row="| $(basename "$clip")"
  for what in encode decode; do
    before=$(median <"$work/${what}0") now=$(median <"$work/${what}1")
    row+=" | $before s | $now s | $(awk -v a="$before" -v b="$now" 'BEGIN { printf "%.2f", a / b }')"
  done
  echo "$row | $(stat -c %s "$work/0.nnv") | $(stat -c %s "$work/1.nnv") |"
  rm -f "$work"/{en,de}code?
done

#!/usr/bin/env bash
# What the decoder costs in a page, beside nnvdec with one thread, in one run.
#
#   web/bench/run.sh [--clip FILE] [--runs N]
#     --clip FILE  any video; default data/test/video/bigbuckbunny.mp4 below $NNV_SHARED
#     --runs N     each figure is the median of so many runs, default 3
#
# Needs the release build of the plugin (cargo build --release), scripts/web-build.sh, Chromium.
# Streams are kept in target/web/bench.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
runs=3 clip=${NNV_SHARED:-../shared}/data/test/video/bigbuckbunny.mp4
while (($#)); do
  case $1 in
    --clip) clip=$2 ;;
    --runs) runs=$2 ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  shift 2
done
# shellcheck source=../../scripts/env.sh
. scripts/env.sh
[ -f "$clip" ] || { echo "bench: no clip $clip: set NNV_SHARED or give --clip" >&2; exit 2; }
out=target/web/bench
mkdir -p "$out"
for size in 640x360 320x180; do
  stream=$out/$(basename "${clip%.*}")-$size.nnv
  [ -f "$stream" ] || {
    gst-launch-1.0 -q filesrc location="$clip" ! decodebin ! videoconvert ! videoscale ! videorate ! \
      "video/x-raw,format=I420,width=${size%x*},height=${size#*x},framerate=25/1,pixel-aspect-ratio=1/1" ! \
      nnvenc ! filesink location="$stream.part"
    mv "$stream.part" "$stream"
  }
done
node web/bench/run.mjs --runs "$runs" "$out/$(basename "${clip%.*}")"-{640x360,320x180}.nnv

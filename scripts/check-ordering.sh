#!/usr/bin/env bash
# Check that rate and PSNR of whole clips fall strictly from quantizer to quantizer (8, 24, 40, 56), in both coding orders,
# and that each stream decodes to what the encoder saw.
#
#   scripts/check-ordering.sh [--frames N] CLIP...
#
# CLIP: any video that ffmpeg reads. N: at most so many frames of each (96). Takes about a minute per clip at 640x360, so it is
# no part of the tests. Needs ffmpeg and what scripts/setup.sh sets up. Ends with 1 when an order is broken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
frames=96
if [ "${1:-}" = --frames ]; then
  frames=${2:?"--frames needs a number"}
  shift 2
fi
if (($# == 0)); then
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
command -v ffmpeg >/dev/null || { echo "ffmpeg is missing: scripts/setup.sh --bench installs it" >&2; exit 2; }
if [ -z "${NNV_ORT_LIBRARY:-}" ]; then
  # shellcheck source=scripts/env.sh
  . scripts/env.sh
fi
cargo build --quiet --release --example codec_bench
bench=${CARGO_TARGET_DIR:-target}/release/examples/codec_bench
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
broken=0
printf '%-32s %7s %9s %10s %8s\n' clip bframes quantizer bytes PSNR-YUV
for clip in "$@"; do
  ffmpeg -v error -y -i "$clip" -frames:v "$frames" -pix_fmt yuv420p "$work/clip.y4m"
  for bframes in 0 7; do
    last_bytes='' last_psnr=''
    for quantizer in 8 24 40 56; do
      # Ends with an error where a decoded frame differs from the encoder's.
      "$bench" --bframes "$bframes" --q "$quantizer" --frames "$frames" "$work/clip.y4m" >"$work/out"
      bytes=$(awk '/ bytes, /{print $4; exit}' "$work/out")
      psnr=$(awk '$1 == "all"{print $(NF - 1); exit}' "$work/out")
      mark=''
      if [ -n "$last_bytes" ] && ! awk -v b="$bytes" -v lb="$last_bytes" -v p="$psnr" -v lp="$last_psnr" 'BEGIN{exit !(b < lb && p < lp)}'; then
        mark='  OUT OF ORDER'
        broken=1
      fi
      printf '%-32s %7s %9s %10s %8s%s\n' "$(basename "$clip")" "$bframes" "$quantizer" "$bytes" "$psnr" "$mark"
      last_bytes=$bytes last_psnr=$psnr
    done
  done
done
if ((broken)); then echo "rate or PSNR is out of order" >&2; fi
exit "$broken"

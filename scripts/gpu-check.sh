#!/usr/bin/env bash
# What a machine with an NVIDIA GPU has to show, in ten minutes: exactness, speed, then training.
#
#   scripts/gpu-check.sh [--cpu] [--out FOLDER] [--minutes N] [--data FOLDER]
#     --cpu        the same steps on the processor, with small pictures: tests this script
#     --out        where the table and the checkpoint go; default: out/gpu
#     --minutes    for all of it, ten by default, the build left out; training gets what is left
#     --data       training material (models/training/README.md); without it nothing is trained
#
# Exactness: all streams of tests/conformance through `nnvdec execution-provider=…`, to their MD5s.
# TF32 is off in the plugin; NVIDIA_TF32_OVERRIDE=0, which forbids it to all libraries, must give
# the same. A provider that cannot run, or that fails the known answers, is a row that says so.
# Speed: frames by the clock, start of the process taken off by a run of one frame.
#
# Exit code 0 where each provider that runs is exact.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
root=$PWD
providers=(cuda tensorrt) sizes=(1280x720 1920x1080) batches=(1 4 8) frames=64
features=(--features "cuda tensorrt") setup=--gpu device=cuda
out=$root/out/gpu minutes=10 data=
while (($#)); do
  case $1 in
  --cpu)
    providers=(cpu) sizes=(128x96) batches=(1 4) frames=16 features=() setup=--test device=cpu ;;
  --out) out=${2:?--out needs a folder} && shift ;;
  --minutes) minutes=${2:?--minutes needs a number} && shift ;;
  --data) data=${2:?--data needs a folder} && shift ;;
  -h | --help) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "gpu-check: unknown option $1; see $0 --help" >&2; exit 2 ;;
  esac
  shift
done

scripts/setup.sh "$setup" || exit 1
# shellcheck disable=SC1091
if ! command -v cargo >/dev/null; then . "${CARGO_HOME:-$HOME/.cargo}/env"; fi
cargo build --release --locked --lib "${features[@]}" || exit 1
# shellcheck source=scripts/env.sh
. scripts/env.sh
mkdir -p "$out"
table=$out/gpu-check.md
begin=$SECONDS failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
left() { echo $((minutes * 60 - (SECONDS - begin))); }
row() { printf '%s\n' "$*" | tee -a "$table"; }

# play PROPERTIES SECONDS PIPELINE: its last line of words where it fails.
play() {
  local words
  words=$(timeout "$1" gst-launch-1.0 -q "${@:2}" 2>&1) && return 0
  printf '%s' "${words##*$'\n'}" >"$work/why"
  return 1
}

{ nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || uname -m; } | sed 's/^/Machine: /' >"$table"
row ""
row "| provider | TF32 elsewhere | streams of tests/conformance | equal |"
row "|---|---|---:|---:|"
running=()
for provider in "${providers[@]}"; do
  for tf32 in allowed forbidden; do
    [ $tf32 = forbidden ] && [ "$device" = cpu ] && continue
    [ $tf32 = forbidden ] && export NVIDIA_TF32_OVERRIDE=0
    streams=0 equal=0 why=
    while read -r name _ _ want _; do
      [ "$want" = - ] && continue
      streams=$((streams + 1))
      file=tests/conformance/$name.nnv
      if play 60 filesrc location="$file" ! nnvparse ! nnvdec execution-provider="$provider" \
        ! videocodectestsink location="$work/pictures"; then
        if [ "$(md5sum <"$work/pictures" | cut -c1-32)" = "$want" ]; then
          equal=$((equal + 1))
        else
          why="other pictures: $name"
        fi
      else
        why=$(cat "$work/why")
        [ $streams = 1 ] && break
      fi
      [ "$(left)" -gt 60 ] || break
    done < <(grep -v '^#' tests/conformance/MD5SUMS)
    unset NVIDIA_TF32_OVERRIDE
    row "| $provider | $tf32 | $streams | $equal${why:+ ($why)} |"
    if [ $equal = 0 ]; then
      break
    elif [ $equal != $streams ]; then
      failed=1
    elif [ $tf32 = allowed ]; then
      running+=("$provider")
    fi
  done
done
[ ${#running[@]} -gt 0 ] || failed=1

# clocked N PIPELINE: seconds by the clock.
clocked() {
  local start=$EPOCHREALTIME
  play 120 "$@" || return 1
  awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
}
rate() { awk -v n="$1" -v all="$2" -v one="$3" 'BEGIN { d = all - one; if (d > 0) printf "%.1f", n / d; else print "-" }'; }

row ""
row "| provider | size | batch | encoding, frames/s | decoding, frames/s |"
row "|---|---|---:|---:|---:|"
for provider in "${running[@]}"; do
  for size in "${sizes[@]}"; do
    for batch in "${batches[@]}"; do
      [ "$(left)" -gt 90 ] || break 3
      caps=video/x-raw,format=I420,width=${size%x*},height=${size#*x},framerate=30/1
      code() {
        clocked videotestsrc pattern=ball num-buffers="$1" ! "$caps" ! nnvenc bframes=7 \
          execution-provider="$provider" batch-size="$batch" ! filesink location="$2"
      }
      decode() {
        clocked filesrc location="$1" ! nnvparse ! nnvdec execution-provider="$provider" ! fakesink
      }
      if one=$(code 1 "$work/one.nnv") && all=$(code $((frames + 1)) "$work/all.nnv") &&
        one_back=$(decode "$work/one.nnv") && all_back=$(decode "$work/all.nnv"); then
        row "| $provider | $size | $batch | $(rate $frames "$all" "$one") | $(rate $frames "$all_back" "$one_back") |"
      else
        row "| $provider | $size | $batch | $(cat "$work/why") | |"
        failed=1
      fi
    done
  done
done

if [ -n "$data" ]; then
  python=${NNV_PYTHON:-python3}
  run=$out/inter
  mkdir -p "$run"
  [ -f "$run/last.pt" ] || cp models/training/checkpoints/realtime-inter.pt "$run/last.pt"
  spend=$(awk -v s="$(left)" 'BEGIN { printf "%.2f", s / 60 - 0.5 }')
  options=(--batch 32 --threads 8 --compile)
  [ $device = cpu ] && options=(--batch 1 --size 64 --amp none)
  echo "training for $spend minutes"
  if (cd models/training && "$python" -m nnvtrain inter --data "$data" --cache "$out/cache" --out "$run" \
    --key checkpoints/realtime-key.pt --quant --frames 5 --device "$device" --minutes "$spend" \
    --eval-every 1000000 "${options[@]}"); then
    row ""
    row "Trained for $spend minutes: $run/last.pt"
  else
    row ""
    row "Training failed"
    failed=1
  fi
fi
echo "table: $table"
exit $failed

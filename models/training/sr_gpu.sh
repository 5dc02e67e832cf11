#!/usr/bin/env bash
# Trains the super-resolution bundles on one GPU, side by side: the networks are too small to fill it alone. Each stage goes on from what stands in OUT.
#   sr_gpu.sh PICTURES PAIRS OUT base|cool|int8|gan MINUTES [NAME...]
#     PICTURES  folder of pictures or of *.nnvpack        PAIRS  folder of *.nnvpairs (tasks compressed and repair are left out without any)
#     base      full learning rate; may be called again   cool   learning rate to zero, squared error
#     int8      8-bit fine-tuning from the cooled state   gan    adversarial fine-tuning of balanced x2
#               both learn from OUT/NAME.taught where sr-teach has written one
#     NAME      only these, e.g. fast-x2 compressed-x2    (DEVICE, THREADS and CACHE may be set in the environment)
set -euo pipefail
(($# >= 5)) || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
pictures=$1 pairs=$2 out=$3 stage=$4 minutes=$5
shift 5
only=" $* "
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-python3} device=${DEVICE:-cuda} cache=${CACHE:-$out/cache}
compile=()
[[ $device == cuda* ]] && compile=(--compile)
mkdir -p "$out"
jobs=()

# train NAME COMMAND DATA [OPTION...]: one process, its log in OUT/NAME.log.
train() {
  local name=$1 command=$2 data=$3
  shift 3
  if [[ $only != "  " && $only != *" ${name%-int8} "* ]]; then return; fi
  "$python" -u -m nnvtrain "$command" --data "$data" --cache "$cache" --out "$out/$name" --device "$device" --threads "${THREADS:-2}" \
    --minutes "$minutes" --eval-every 5000 --save-every 2000 "${compile[@]}" "$@" >>"$out/$name.log" 2>&1 &
  jobs+=("$!:$name")
}

# bundle NAME MODEL TASK SCALE DATA BATCH: one network through the stage asked for.
bundle() {
  local name=$1 model=$2 task=$3 scale=$4 data=$5 batch=$6
  local options=(--model "$model" --task "$task" --scale "$scale" --batch "$batch" --size 64)
  local lessons=()
  if [[ -e $out/$name.taught ]]; then lessons=(--taught "$out/$name.taught"); fi
  case $stage in
    base) train "$name" sr "$data" "${options[@]}" ;;
    cool) train "$name" sr "$data" "${options[@]}" --lr 1.2e-3 --adam --anneal --loss mse "${lessons[@]}" ;;
    int8) train "$name-int8" sr "$data" "${options[@]}" --lr 5e-4 --adam --anneal --loss mse --int8 --init "$out/$name/last.pt" "${lessons[@]}" ;;
    gan) ;;
    *) echo "sr_gpu: unknown stage $stage" >&2; exit 2 ;;
  esac
}

# The cached planes are made once, by the first process, before the others look for them.
"$python" -c 'import sys; from nnvtrain.sr.data import open_planes; open_planes(*sys.argv[1:3], "bicubic", 2)' "$pictures" "$cache"
bundle fast-x2 fast bicubic 2 "$pictures" 32
bundle balanced-x2 balanced bicubic 2 "$pictures" 32
bundle balanced-x3 balanced bicubic 3 "$pictures" 32
bundle balanced-x4 balanced bicubic 4 "$pictures" 32
bundle quality-x2 quality bicubic 2 "$pictures" 32
if compgen -G "$pairs/compressed-x2-*.nnvpairs" >/dev/null; then bundle compressed-x2 balanced compressed 2 "$pairs" 32; fi
if compgen -G "$pairs/repair-x1-*.nnvpairs" >/dev/null; then bundle repair-x1 repair repair 1 "$pairs" 32; fi
if [[ $stage == gan ]]; then
  train gan-x2 sr-gan "$pictures" --model balanced --batch 16 --size 64 --init "$out/balanced-x2/last.pt"
fi

failed=0
for job in "${jobs[@]}"; do
  wait "${job%%:*}" || { echo "sr_gpu: ${job#*:} failed, see $out/${job#*:}.log" >&2; failed=1; }
done
tail -qn 1 "$out"/*.log
exit "$failed"

#!/usr/bin/env bash
# Live streams over real sockets and an emulated path, in real time. See README.md beside this file.
#   bench/live/run.sh --trace FILE --out FOLDER [options of examples/live.rs]
#   CONTROLLERS="rule learned" bench/live/run.sh ...
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=
arguments=()
while (($#)); do
  case $1 in
  -h | --help)
    sed -n 2,4p "${BASH_SOURCE[0]}"
    exit 0
    ;;
  --out) out=${2:?--out needs a folder} && shift 2 ;;
  *) arguments+=("$1") && shift ;;
  esac
done
[ -n "$out" ] || { echo "run.sh: --out FOLDER is missing" >&2; exit 2; }
# shellcheck disable=SC1091
if ! command -v cargo >/dev/null; then . "${CARGO_HOME:-$HOME/.cargo}/env"; fi
profile=${PROFILE:-dev}
(cd "$root" && cargo build --quiet --locked --profile "$profile" --example live)
folder=$([ "$profile" = dev ] && echo debug || echo "$profile")
# shellcheck source=scripts/env.sh disable=SC1091
. "$root/scripts/env.sh" 2>/dev/null || true
plot=$root/.deps/plot
if ! "$plot/bin/python" -c 'import matplotlib' 2>/dev/null; then
  python3 -m venv --clear "$plot"
  "$plot/bin/python" -m pip install --quiet --disable-pip-version-check 'matplotlib>=3.7'
fi
echo "| controller | shown | frozen s | late % | delay ms, half | 95 % | PSNR | SSIM | kbit/s | capacity |"
echo "|---|---|---|---|---|---|---|---|---|---|"
for controller in ${CONTROLLERS:-rule learned}; do
  GST_PLUGIN_PATH='' "${CARGO_TARGET_DIR:-$root/target}/$folder/examples/live" "${arguments[@]}" \
    --controller "$controller" --out "$out/$controller"
done
"$plot/bin/python" "$root/bench/live/plot.py" "$out"
echo "plot: $out/live.png" >&2

#!/usr/bin/env bash
# Rate-distortion benchmark: set-up, release build, then every point that is not measured yet. See README.md beside this file.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
need_plugin=1 need_vmaf=0
for option in "$@"; do
  case $option in
  --anchors | --report | -h | --help) need_plugin=0 ;;
  --vmaf) need_vmaf=1 ;;
  esac
done
"$root/scripts/setup.sh" --bench
if ((need_vmaf)) && ! ffmpeg -hide_banner -filters 2>/dev/null | grep -q ' libvmaf '; then
  "$root/.deps/python/bin/python" -m pip install -q imageio-ffmpeg
fi
if ((need_plugin)); then
  # shellcheck disable=SC1091
  if ! command -v cargo >/dev/null; then . "${CARGO_HOME:-$HOME/.cargo}/env"; fi
  (cd "$root" && cargo build --release --locked --lib)
fi
# shellcheck source=scripts/env.sh disable=SC1091
. "$root/scripts/env.sh" 2>/dev/null
# One BLAS thread: the measures gain nothing from more, and the codecs' times would suffer.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
export PYTHONPATH=$root/bench/rd${PYTHONPATH:+:$PYTHONPATH}
exec "$root/.deps/python/bin/python" -m nnvrd.main "$@"

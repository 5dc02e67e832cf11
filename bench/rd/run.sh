#!/usr/bin/env bash
# Rate-distortion benchmark: set-up, release build, then every point that is not measured yet.
# See README.md beside this file.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=1 plugin=
arguments=("$@")
while (($#)); do
  case $1 in
  --anchors | --report | -h | --help) build=0 ;;
  --plugin) build=0 plugin=$(cd "${2:?--plugin needs a folder}" && pwd) ;;
  --plugin=*) build=0 plugin=$(cd "${1#*=}" && pwd) ;;
  esac
  shift
done
"$root/scripts/setup.sh" --bench
if ((build)); then
  # shellcheck disable=SC1091
  if ! command -v cargo >/dev/null; then . "${CARGO_HOME:-$HOME/.cargo}/env"; fi
  (cd "$root" && cargo build --release --locked --lib)
fi
# shellcheck source=scripts/env.sh disable=SC1091
. "$root/scripts/env.sh" 2>/dev/null
if [ -n "$plugin" ]; then export GST_PLUGIN_PATH=$plugin; fi
# One BLAS thread: the measures gain nothing from more, and the codecs' times would suffer.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
export PYTHONPATH=$root/bench/rd${PYTHONPATH:+:$PYTHONPATH}
exec "$root/.deps/python/bin/python" -m nnvrd.main "${arguments[@]}"

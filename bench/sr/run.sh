#!/usr/bin/env bash
# Super-resolution benchmark: set-up, then everything that is not measured yet. See README.md beside
# this file. NNV_PYTHON names a Python of your own (numpy, pillow, onnxruntime; scipy and
# ssimulacra2 for that column).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${NNV_PYTHON:-$root/.deps/python/bin/python}
if [ -z "${NNV_PYTHON:-}" ]; then
  "$root/scripts/setup.sh" --bench
  if ! "$python" -c 'import numpy, PIL, onnxruntime, ssimulacra2' 2>/dev/null; then
    "$python" -m pip install --quiet --disable-pip-version-check 'pillow>=10' 'onnxruntime>=1.19' 'ssimulacra2>=0.3' >&2
  fi
fi
# The part `small` runs pipelines: the plugin, where it is built (cargo build --release --lib).
# shellcheck source=scripts/env.sh disable=SC1091
. "$root/scripts/env.sh" 2>/dev/null
# One BLAS thread: the measures gain nothing from more, and the networks' times would suffer.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
export PYTHONPATH=$root/bench/sr:$root/bench/rd${PYTHONPATH:+:$PYTHONPATH}
exec "$python" -m nnvsr.main "$@"

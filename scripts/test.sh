#!/usr/bin/env bash
# Do all set-up, then run every test. Goes through all parts even when one fails, and says at the
# end what failed.
#
#   scripts/test.sh
#
# Environment:
#   NNV_SHARED         folder with data/test; default: `shared` beside the repository. Tests that
#                      want the clips say so and skip without it.
#   NNV_TRAIN_TESTS=1  install PyTorch (several GB) into .deps/python and run the training
#                      package's tests too.
#   NNV_PYTHON         a Python that has torch, onnx, onnxruntime and pytest, for these tests.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
root=$PWD
begin=$SECONDS

scripts/setup.sh --test || exit 1
# shellcheck disable=SC1091
if ! command -v cargo >/dev/null; then . "${CARGO_HOME:-$HOME/.cargo}/env"; fi
# shellcheck source=scripts/env.sh
. scripts/env.sh 2>/dev/null
# The exactness tests run the same bundle under a second, older runtime.
export NNV_ORT_LIBRARY_ALT=$root/.deps/onnxruntime/1.22.1/libonnxruntime.so.1.22.1
# The tests register the plugin they are built with; one installed or built earlier must not shadow
# it, and the registry cache of the user must not be touched.
export GST_PLUGIN_PATH="" GST_REGISTRY=$root/.deps/test-registry.bin
if [ -z "${NNV_SHARED:-}" ] && [ -d "$root/../shared/data" ]; then
  NNV_SHARED=$(cd "$root/../shared" && pwd)
fi
export NNV_SHARED=${NNV_SHARED:-}

failed=() summary=()
part() { printf '\n\033[1m== %s\033[0m  [%d:%02d]\n' "$*" $(((SECONDS - begin) / 60)) $(((SECONDS - begin) % 60)); }
loud() { printf '\033[1m!! %s\033[0m\n' "$*"; summary+=("$*"); }

part "format (cargo fmt)"
if cargo fmt --version >/dev/null 2>&1; then
  cargo fmt --all --check || failed+=("cargo fmt")
else
  loud "rustfmt is not installed: formatting not checked (rustup component add rustfmt)"
fi

part "lints (cargo clippy)"
if cargo clippy --version >/dev/null 2>&1; then
  cargo clippy --locked --workspace --all-targets -- -D warnings -D clippy::undocumented_unsafe_blocks || failed+=("cargo clippy")
else
  loud "clippy is not installed: lints not checked (rustup component add clippy)"
fi

part "floors: who may know whom"
scripts/check-floors.sh || failed+=("floors")
scripts/check-lines.py || failed+=("long lines")
scripts/check-links.py || failed+=("links of pages")
scripts/check-unsafe.sh || failed+=("unsafe code")

part "supply chain: licences, bans, sources, bill of materials"
if cargo deny --version >/dev/null 2>&1; then
  cargo deny --locked --workspace check bans licenses sources || failed+=("cargo deny")
  # The database of advisories has to be fetched; where that is not possible, the rest was checked.
  cargo deny --locked --workspace check advisories || loud "advisories: not reached or not clean, see above"
else
  loud "NOT RUN: cargo deny is not installed (cargo install --locked cargo-deny)"
fi
scripts/sbom.sh "$root/.deps/sbom.json" || failed+=("bill of materials")

part "Python: the benchmarks' tools"
for bench in rd sr; do
  .deps/python/bin/python -m pytest -q "bench/$bench/tests" || failed+=("Python tests of bench/$bench")
done

part "Python: the second decoder"
.deps/python/bin/python -m pytest -q tests/reference_decoder || failed+=("second decoder")

part "Python: nnv-cluster"
if .deps/python/bin/python -c 'import gi, ray, tqdm' 2>/dev/null; then
  cargo build --locked --release --lib --bin nnv -p gst-plugin-nnv -p nnv-tools || failed+=("release build")
  GST_PLUGIN_PATH=$root/.deps/gstreamer-1.0 NNV_PROGRAM=$root/target/release/nnv \
    .deps/python/bin/python -m pytest -q cluster/tests || failed+=("nnv-cluster")
else
  loud "Ray, tqdm or PyGObject is missing: of nnv-cluster only the plan is tested (cluster/README.md)"
  .deps/python/bin/python -m pytest -q cluster/tests/test_plan.py || failed+=("nnv-cluster's plan")
fi

part "Python: the training package"
training_python=${NNV_PYTHON:-}
if [ -z "$training_python" ] && [ "${NNV_TRAIN_TESTS:-0}" = 1 ]; then
  echo "installing the training package with PyTorch into .deps/python (several GB)"
  if .deps/python/bin/python -m pip install --disable-pip-version-check -e 'models/training[export,video,test]'; then
    training_python=.deps/python/bin/python
  else
    failed+=("installation of the training package")
  fi
fi
if [ -n "$training_python" ]; then
  (cd models/training && "$(cd "$root" && command -v "$training_python")" -m pytest -q) || failed+=("Python tests of models/training")
else
  loud "NOT RUN: the tests of models/training need PyTorch, several GB to download; NNV_TRAIN_TESTS=1 $0 runs them"
fi

part "browser, for the page of nnv inspect"
if command -v npm >/dev/null && [ -x /usr/bin/chromium ]; then
  scripts/browser-deps.sh || failed+=("browser-deps.sh")
else
  loud "NOT RUN: the page of nnv inspect in a browser needs Chromium and npm (apt-get install chromium npm)"
fi

part "the package for web pages, in a browser"
web=none
if command -v npm >/dev/null && [ -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
  scripts/web-build.sh
  case $? in
    0) web=built
       node web/tests/run.mjs || failed+=("web/tests") ;;
    3) loud "NOT RUN: the package for web pages cannot be built here, see above" ;;
    *) failed+=("web-build.sh") ;;
  esac
else
  loud "NOT RUN: the package for web pages needs Chromium and npm (apt-get install chromium npm)"
fi

part "Rust: build and run every test"
log=$root/.deps/cargo-test.log
cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$log"
if [ "${PIPESTATUS[0]}" -ne 0 ]; then failed+=("cargo test"); fi

part "Rust: exactness of the other codec bundle"
NNV_TEST_BUNDLE=$root/models/visual cargo test --locked --no-fail-fast -p nnv-nn --test exactness 2>&1 | tee -a "$log"
if [ "${PIPESTATUS[0]}" -ne 0 ]; then failed+=("exactness of models/visual"); fi

# Behind the Rust tests, whose plugin makes its films.
if [ "$web" = built ]; then
  part "the player and the demo page, in a browser"
  scripts/web-player-test.sh || failed+=("web-player-test.sh")
fi

part "fuzz targets, ten seconds each"
scripts/fuzz.sh || failed+=("fuzz targets")

part "summary"
grep '^test result:' "$log"
for line in "${summary[@]}"; do printf '!! %s\n' "$line"; done
grep '^test result:' "$log" | awk '{p += $4; f += $6; i += $8} END {printf "\n%d passed, %d failed, %d skipped\n", p, f, i}'
if ((${#failed[@]})); then
  for line in "${failed[@]}"; do printf '\033[1mFAILED: %s\033[0m\n' "$line"; done
  exit 1
fi
if ! grep -q '^test result: ok\. [1-9]' "$log"; then echo "FAILED: no Rust test ran"; exit 1; fi
echo "all is well"

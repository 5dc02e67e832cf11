#!/usr/bin/env bash
# Make the streams of tests/conformance that are not there, and the sums of all. None is ever
# removed or made anew: where the shipped bundle changes, the earlier one moves to models/earlier
# and a new stream is added to the list.
#
#   scripts/make-conformance.sh
#
# Needs what scripts/test.sh sets up; ONNX Runtime is found as in any other command (see
# scripts/env.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${NNV_ORT_LIBRARY:-}" ] && [ -f scripts/env.sh ]; then
  # shellcheck source=scripts/env.sh
  . scripts/env.sh 2>/dev/null
fi
export GST_PLUGIN_PATH=""
cargo run -p nnv-tools -- conformance tests/conformance
cargo test --test elements -- --ignored --exact conformance::make_conformance_streams
git --no-pager diff --stat -- tests/conformance || true

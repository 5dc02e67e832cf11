#!/bin/sh
# Installs what the browser tests drive Chromium with into .deps/browser. Chromium itself comes from
# the distribution.
set -eu
cd "$(dirname "$0")/.."
mkdir -p .deps/browser
cp crates/nnv-tools/tests/browser/package.json crates/nnv-tools/tests/browser/package-lock.json \
    .deps/browser/
npm ci --prefix .deps/browser --no-audit --no-fund

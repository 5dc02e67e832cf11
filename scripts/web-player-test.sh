#!/usr/bin/env bash
# Builds the package nnv-web and its demo page, and tests the player and the page in headless
# Chromium with the decoder as it is shipped.
#
#   scripts/web-player-test.sh [options of node --test]
#
# Needs what scripts/web-build.sh needs, GStreamer with its good, bad and ugly plugins and
# gstreamer1.0-libav for the clips, and Chromium (CHROMIUM, default /usr/bin/chromium). The plugin is
# the release build where there is one, else that of the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/env.sh
. scripts/env.sh
if [ ! -f "${CARGO_TARGET_DIR:-target}/release/libgstnnv.so" ]; then
  cargo build --locked --lib
  mkdir -p .deps/gstreamer-dev
  ln -sfn "$(realpath "${CARGO_TARGET_DIR:-target}")/debug/libgstnnv.so" .deps/gstreamer-dev/
  export GST_PLUGIN_PATH=$PWD/.deps/gstreamer-dev
fi
scripts/web-build.sh
cd web
npx vite build -c demo/vite.config.ts --logLevel warn
exec node --test "$@" tests/player/

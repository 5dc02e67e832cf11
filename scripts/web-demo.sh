#!/usr/bin/env bash
# Plays what nnvenc made in a web page, beside the MD5 of each picture and nnvdec's.
#
#   scripts/web-demo.sh [--port N] [--live 'ELEMENTS']
#
# Builds what is missing (plugin, package, page), makes the clip, serves all of it on localhost
# with the headers that threads and a strict Content-Security-Policy want, and prints the address.
#   --port N            default 8080; 0 for any that is free
#   --live 'ELEMENTS'   what the live mode shows in place of the drawn film, for example
#                       'v4l2src ! videoconvert ! videoscale ! video/x-raw,width=320,height=180'
# Needs Node.js 20, GStreamer with its good plugins, gstreamer1.0-libav for the clip's sound, and
# what scripts/web-build.sh needs. NNV_WEB_CLIPS: where the clip lies (default: out/web-demo).
set -euo pipefail
case ${1:-} in
  -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
clips=${NNV_WEB_CLIPS:-$PWD/out/web-demo}
say() { printf 'web-demo: %s\n' "$*" >&2; }

if [ ! -f "${CARGO_TARGET_DIR:-target}/release/libgstnnv.so" ]; then
  say "building the plugin (release)"
  cargo build --release --locked --lib
fi
# shellcheck source=scripts/env.sh
. scripts/env.sh
say "building the package and the page"
scripts/web-build.sh
(cd web && npx vite build -c demo/vite.config.ts --logLevel warn)
if [ ! -f "$clips/demo.mp4" ]; then
  say "coding the clip (half a minute)"
  node web/demo/server/clip.mjs "$clips"
fi
exec node web/demo/serve.mjs "$clips" "$@"

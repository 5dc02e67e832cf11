#!/usr/bin/env bash
# Runs `meson install` to its end into a folder of its own, and checks that what README promises is
# there and works from there: plugin, program, presets, encoding target, types, ONNX Runtime.
#
#   scripts/check-install.sh [MESON OPTION...]     for example -Dbuildtype=debug
#
# Environment: CARGO_TARGET_DIR   where cargo builds; default: a folder that goes at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
command -v meson >/dev/null || { echo "NOT TESTED: there is no meson" >&2; exit 0; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
meson setup "$work/build" --prefix=/usr --libdir=lib "$@"
if [ -n "${CARGO_TARGET_DIR:-}" ]; then
  ln -s "$(realpath -m "$CARGO_TARGET_DIR")" "$work/build/cargo"
  unset CARGO_TARGET_DIR
fi
DESTDIR=$work/installed meson install -C "$work/build"

installed=$work/installed/usr
failed=0
there() {
  for file in "$@"; do
    [ -s "$installed/$file" ] && continue
    echo "missing or empty: $file"
    failed=1
  done
}
there lib/gstreamer-1.0/libgstnnv.so bin/nnv share/mime/packages/nnv.xml share/nnv/nnv.magic \
  share/gstreamer-1.0/presets/GstNnvEnc.prs \
  share/gstreamer-1.0/encoding-profiles/file-extension/nnv-mp4.gep
if compgen -G "$root/.deps/onnxruntime*/1.31.1/libonnxruntime.so.1.31.1" >/dev/null; then
  there lib/gstreamer-1.0/nnv/libonnxruntime.so.1.31.1
fi

# From there, with nothing of this checkout.
unset NNV_ORT_LIBRARY
export GST_PLUGIN_PATH=$installed/lib/gstreamer-1.0 GST_REGISTRY=$work/registry.bin
export GST_PRESET_PATH=$installed/share/gstreamer-1.0/presets
export GST_ENCODING_TARGET_PATH=$installed/share/gstreamer-1.0/encoding-profiles
cd "$work"
for element in nnvenc nnvparse nnvdec nnvmp4mux nnsr nnqp rtpnnvpay rtpnnvdepay nnvadapt nnvquality \
  nnvencrypt nnvdecrypt nnvsign nnvverify; do
  # --exists would ask for a plugin as new as GStreamer itself.
  gst-inspect-1.0 "$element" >/dev/null || { echo "no element $element"; failed=1; }
done
picture="videotestsrc num-buffers=5 ! video/x-raw,format=I420,width=64,height=48,framerate=25/1"
for preset in call camera lecture screen drone medical archive; do
  # shellcheck disable=SC2086
  gst-launch-1.0 -q $picture ! nnvenc @preset=$preset ! filesink location="$preset.nnv" ||
    { echo "preset $preset does not encode"; failed=1; }
done
# shellcheck disable=SC2086
gst-launch-1.0 -q encodebin2 name=e profile=nnv-mp4 ! filesink location=profile.mp4 \
  $picture ! e.video_0 audiotestsrc num-buffers=10 ! e.audio_0 ||
  { echo "the encoding target does not encode"; failed=1; }
gst-launch-1.0 -q filesrc location=profile.mp4 ! decodebin ! video/x-raw ! fakesink ||
  { echo "its file does not play"; failed=1; }
"$installed/bin/nnv" info call.nnv >/dev/null || { echo "nnv does not read it"; failed=1; }
if command -v file >/dev/null; then
  type=$(file --brief --mime-type -m "$installed/share/nnv/nnv.magic" call.nnv)
  [ "$type" = video/x-nnv ] || { echo "file(1) says $type"; failed=1; }
fi
[ "$failed" = 0 ] && echo "the installed tree holds what README says"
exit "$failed"

# shellcheck shell=bash
# Source me (bash or zsh): puts the built plugin and its ONNX Runtime on the path of every GStreamer
# command in this shell.
#   source scripts/env.sh && gst-inspect-1.0 nnvenc
# A value of NNV_ORT_LIBRARY that you set yourself stays.

if [ -n "${ZSH_VERSION:-}" ]; then
  eval '_nnv_file=${(%):-%x}'
else
  _nnv_file=${BASH_SOURCE[0]}
fi
_nnv_root=$(cd "$(dirname "$_nnv_file")/.." && pwd)
_nnv_target=${CARGO_TARGET_DIR:-$_nnv_root/target}
case $_nnv_target in /*) ;; *) _nnv_target=$_nnv_root/$_nnv_target ;; esac

# GStreamer scans plugin folders with all their subfolders, and cargo's output folder is full of
# libraries that are no plugins: so the plugin is linked into a folder of its own.
_nnv_plugins=$_nnv_root/.deps/gstreamer-1.0
mkdir -p "$_nnv_plugins"
ln -sfn "$_nnv_target/release/libgstnnv.so" "$_nnv_plugins/libgstnnv.so"
case ":${GST_PLUGIN_PATH:-}:" in
  *":$_nnv_plugins:"*) ;;
  *) export GST_PLUGIN_PATH="$_nnv_plugins${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}" ;;
esac

if [ -z "${NNV_ORT_LIBRARY:-}" ]; then
  for _nnv_library in "$_nnv_root/.deps/onnxruntime-gpu/1.31.1/libonnxruntime.so.1.31.1" \
    "$_nnv_root/.deps/onnxruntime/1.31.1/libonnxruntime.so.1.31.1"; do
    if [ -f "$_nnv_library" ]; then
      export NNV_ORT_LIBRARY="$_nnv_library"
      break
    fi
  done
fi
[ -n "${NNV_ORT_LIBRARY:-}" ] || echo "env.sh: ONNX Runtime is not fetched yet; run $_nnv_root/scripts/setup.sh" >&2
[ -f "$_nnv_target/release/libgstnnv.so" ] || echo "env.sh: the plugin is not built yet; run cargo build --release in $_nnv_root" >&2
unset _nnv_file _nnv_root _nnv_target _nnv_plugins _nnv_library

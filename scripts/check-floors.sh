#!/usr/bin/env bash
# Proves which crate may know what (ARCHITECTURE.md): GStreamer belongs to the plugin, `ort` to
# nnv-nn.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
failed=0
names_ort='^(ort( |\.|=)|\[.*dependencies\.ort\])'

# forbid CRATE PATTERN WHAT: no normal dependency of CRATE, however deep, matches.
forbid() {
  local tree found
  if ! tree=$(cargo tree --locked -e normal --prefix none -p "$1"); then
    echo "cargo tree -p $1 failed"
    failed=1
    return
  fi
  found=$(grep -E "$2" <<<"$tree" | sort -u)
  if [ -n "$found" ]; then
    printf '%s must not know %s, but depends on:\n%s\n' "$1" "$3" "$found"
    failed=1
  fi
}

for manifest in crates/*/Cargo.toml; do
  crate=$(basename "$(dirname "$manifest")")
  forbid "$crate" '^(gstreamer|glib|gio|gobject)' GStreamer
  # Directly: through nnv-nn everybody above has it.
  if [ "$crate" != nnv-nn ] && grep -qE "$names_ort" "$manifest"; then
    echo "$crate names ort; only nnv-nn may"
    failed=1
  fi
done
if grep -qE "$names_ort" Cargo.toml; then
  echo "the plugin names ort; only nnv-nn may"
  failed=1
fi
for crate in nnv-bitstream nnv-crypt nnv-format nnv-cpu nnv-h264; do
  forbid "$crate" '^(ort|ort-sys|nnv-nn|nnv-codec|nnv-sr) ' 'networks and coders'
done
for crate in nnv-kernels nnv-web; do
  forbid "$crate" '^(ort|ort-sys) ' 'ONNX Runtime'
done
forbid nnv-quality '^nnv-[^q]' 'other crates of this project'
forbid nnv-bitstream '^nnv-(format|cpu|h264) ' 'other crates of this project'
if grep -rqE '\bort::' --include='*.rs' src crates/*/src --exclude-dir=onnxruntime; then
  echo "ort is named outside crates/nnv-nn/src/onnxruntime:"
  grep -rnE '\bort::' --include='*.rs' src crates/*/src --exclude-dir=onnxruntime
  failed=1
fi
[ "$failed" = 0 ] && echo "floors: as ARCHITECTURE.md says"
exit "$failed"

#!/usr/bin/env bash
# Packs the conformance set for whoever writes a decoder: streams, MD5 sums, the pages that describe
# them, and the bundles that they name. The same commit gives the same bytes.
#
#   scripts/conformance-archive.sh [FILE.tar.gz]      default: out/nnv-conformance.tar.gz
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
file=${1:-out/nnv-conformance.tar.gz}
mkdir -p "$(dirname "$file")"
git ls-files -z tests/conformance docs/bitstream.md docs/bitstream-motion.md LICENSE \
  models/{realtime,visual,earlier/*}/*.{toml,onnx,bin} |
  tar --null --files-from=- --sort=name --owner=0 --group=0 --numeric-owner --mode='u+rw,go+r-w,a-s' \
    --mtime="@$(git log -1 --format=%ct)" --transform='s,^,nnv-conformance/,' -cf - |
  gzip -n9 > "$file"
echo "$file: $(tar tzf "$file" | grep -c '\.nnv$') streams, $(stat -c %s "$file") bytes, SHA-256 $(sha256sum "$file" | cut -d' ' -f1)"

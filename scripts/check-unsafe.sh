#!/usr/bin/env bash
# `unsafe` only in the files named here, and above each block a comment that begins with SAFETY.
# (scripts/test.sh has clippy look at the comments, too: `undocumented_unsafe_blocks`.)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
# Each with what it is needed for.
allowed='
crates/nnv-cpu/src/simd.rs                      vector instructions of the processor
crates/nnv-format/src/entropy/mix.rs            vector instructions of the processor
crates/nnv-kernels/src/lanes.rs                  vector instructions of the processor
crates/nnv-mp4/tests/memory.rs                  an allocator that counts, in a test
crates/nnv-nn/src/onnxruntime/runtime.rs        loading a library that is chosen at run time
crates/nnv-quality/src/vmaf/library.rs          loading a library that is chosen at run time
crates/nnv-tools/src/process.rs                 processor time and signals of the system
'
failed=0
# Comments and the names of lints do not count.
found=$(grep -rnE '(^|[^_[:alnum:]])unsafe([^_[:alnum:]]|$)' --include='*.rs' src crates tests fuzz/fuzz_targets build.rs |
  grep -vE '^[^:]+:[0-9]+: *//' || true)
for file in $(cut -d: -f1 <<<"$found" | sort -u); do
  if ! grep -q "^$file " <<<"$allowed"; then
    echo "$file has unsafe code; scripts/check-unsafe.sh does not allow it there"
    failed=1
  fi
done
while read -r file _; do
  if [ -n "$file" ] && ! grep -q "^$file:" <<<"$found"; then
    echo "$file has no unsafe code any more; take it off the list in scripts/check-unsafe.sh"
    failed=1
  fi
done <<<"$allowed"
while IFS=: read -r file line text; do
  # Types of foreign functions are no blocks.
  if [ -z "$file" ] || [[ $text == *'unsafe extern'* && $text != *'unsafe {'* ]]; then continue; fi
  from=$((line > 4 ? line - 4 : 1))
  if ! sed -n "${from},${line}p" "$file" | grep -q '// SAFETY:'; then
    echo "$file:$line: unsafe without a comment // SAFETY: above it"
    failed=1
  fi
done <<<"$found"
[ "$failed" = 0 ] && echo "unsafe: in $(grep -c . <<<"$allowed") files, each block with its reason"
exit "$failed"

#!/usr/bin/env bash
# Makes the site of the documentation in out/site: all pages, the elements' properties as
# gst-inspect-1.0 has them, the report of the demo clip. A broken link ends it.
#
#   scripts/site.sh
#
# Needs the built plugin and the program nnv (cargo build --release --workspace).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.deps/site/bin/python
if [ ! -x "$python" ]; then
  python3 -m venv .deps/site
fi
"$python" -m pip install -q --disable-pip-version-check -r docs/site/requirements.txt
# shellcheck source=scripts/env.sh
. scripts/env.sh 2>/dev/null
nnv=${NNV:-${CARGO_TARGET_DIR:-target}/release/nnv}
[ -x "$nnv" ] || nnv=${CARGO_TARGET_DIR:-target}/debug/nnv
if [ ! -x "$nnv" ]; then
  echo "the program nnv is not built: cargo build --release -p nnv-tools" >&2
  exit 1
fi

pages=out/site-pages
rm -rf "$pages" out/site
mkdir -p "$pages"
# Every page under its own path, so that links between them hold.
git ls-files -z -co --exclude-standard '*.md' '*.png' '*.svg' '*.csv' ':!:models/training/**' ':!:findings/**' |
  while IFS= read -r -d '' file; do
    mkdir -p "$pages/$(dirname "$file")"
    cp "$file" "$pages/$file"
  done
docs/site/elements.py >"$pages/docs/elements.md"
clip=${NNV_DEMO_STREAM:-out/demo/demo.nnv}
[ -f "$clip" ] || clip=tests/conformance/hierarchical-b.nnv
"$nnv" inspect "$clip" -o "$pages/docs/report.html"
"$python" -m mkdocs build --clean -f docs/site/mkdocs.yml
test -s out/site/docs/report.html
echo "out/site/index.html"

#!/usr/bin/env bash
# Builds the npm package nnv-web into web/dist: the decoder as WebAssembly, its JavaScript, and the
# bundles of networks. Does only what is not done yet, and says the sizes.
#
#   scripts/web-build.sh [--check]
#     --check  only says whether this machine can build it (0), or what is missing (3)
#
# Needs cargo with the target wasm32-unknown-unknown (rustup fetches it; where it cannot,
# scripts/web-toolchain.sh helps), Node.js 18 or later, npm. web/README.md says how to use the result.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
target=wasm32-unknown-unknown
say() { printf '\033[1mweb-build:\033[0m %s\n' "$*" >&2; }

if ! command -v cargo >/dev/null && [ -r "${CARGO_HOME:-$HOME/.cargo}/env" ]; then
  # shellcheck disable=SC1091
  . "${CARGO_HOME:-$HOME/.cargo}/env"
fi

# --- toolchain ------------------------------------------------------------------------------------
cargo=(cargo)
[ -d "$(rustc --print target-libdir --target $target 2>/dev/null)" ] || {
  if command -v rustup >/dev/null && rustup target add $target >&2; then
    say "fetched $target"
  elif [ -x "$root/.deps/rust-web/cargo" ]; then
    cargo=("$root/.deps/rust-web/cargo")
  else
    echo "web-build: rustup cannot fetch $target: run scripts/web-toolchain.sh (Debian), or use another toolchain" >&2
    exit 3
  fi
}
for program in node npm; do
  command -v $program >/dev/null || {
    echo "web-build: $program is missing: apt-get install nodejs npm" >&2
    exit 3
  }
done
[ "${1:-}" != --check ] || exit 0

# --- the decoder ----------------------------------------------------------------------------------
export CARGO_TARGET_DIR=$root/target/web
# Paths of this machine must not stand in messages of the module.
flags="-C target-feature=+simd128 --remap-path-prefix=$root=nnv --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
say "the decoder (crates/nnv-web)"
RUSTFLAGS="$flags" "${cargo[@]}" build --locked --profile web -p nnv-web --target $target
say "its JavaScript"
cargo build --locked --release --manifest-path web/bindgen/Cargo.toml
module=$CARGO_TARGET_DIR/$target/web/nnv_web.wasm
if [ ! -f web/src/wasm/nnv_web_bg.wasm ] || [ "$module" -nt web/src/wasm/nnv_web_bg.wasm ]; then
  "$CARGO_TARGET_DIR/release/nnv-bindgen" "$module" web/src/wasm
fi

# --- the package ----------------------------------------------------------------------------------
if [ ! -f web/node_modules/.package-lock.json ] || [ web/package-lock.json -nt web/node_modules/.package-lock.json ]; then
  say "packages of npm"
  npm ci --prefix web --no-audit --no-fund >&2
  touch web/node_modules/.package-lock.json
fi
say "the package"
rm -f web/dist/*.js
npm run --silent --prefix web build >&2
cp web/src/wasm/nnv_web_bg.wasm web/dist/
rm -rf web/dist/bundles
for bundle in models/*/ models/earlier/*/; do
  # A codec's; of its networks those that decoders run. What lies at an address never changes.
  [ -f "$bundle/key_prior.onnx" ] || continue
  to=web/dist/bundles/$(sed -n 's/^name = "\(.*\)"/\1/p;s/^hash = "\(.\{16\}\).*/\1/p' "$bundle/bundle.toml" | paste -sd-)
  mkdir -p "$to"
  for file in bundle.toml key_prior.onnx key_synth.onnx inter_prior.onnx inter_synth.onnx tables.bin kat.bin; do
    cp "$bundle/$file" "$to/"
  done
done
node web/sizes.mjs web/dist

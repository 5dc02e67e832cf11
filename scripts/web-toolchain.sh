#!/usr/bin/env bash
# A Rust that compiles to WebAssembly, from Debian's packages, for machines where rustup cannot fetch
# the target wasm32-unknown-unknown. Unpacked into .deps/rust-web beside the system, never installed:
# the packages conflict with rustc. About 150 MB to download. scripts/web-build.sh finds it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
to=$PWD/.deps/rust-web
if [ -x "$to/cargo" ]; then echo "web-toolchain: there already: $to"; exit 0; fi
command -v apt-get >/dev/null || { echo "web-toolchain: this needs Debian's apt-get and dpkg" >&2; exit 1; }
packages=(
  rustc-web cargo-web rust-web-src libstd-rust-web-dev libstd-rust-web-1.96 rust-web-llvm lld-22 libllvm22
  libgit2-1.5 libhttp-parser2.9 libmbedcrypto7 libmbedtls14 libmbedx509-1 libz3-4
)
part=$to.part
rm -rf "$part"
mkdir -p "$part/tree" "$part/packages"
(cd "$part/packages" && apt-get download "${packages[@]}") || {
  echo "web-toolchain: apt-get could not download them: run apt-get update, or use rustup" >&2
  exit 1
}
for package in "$part"/packages/*.deb; do dpkg -x "$package" "$part/tree"; done
rm -rf "$part/packages"
libraries=$(find "$part/tree/usr/lib" -name '*.so*' -printf '%h\n' | sort -u | sed "s#^$part#$to#" | paste -sd:)
rustc=$to/tree/usr/bin/rustc
cargo=$to/tree/usr/bin/cargo
[ -x "$part/tree/usr/bin/rustc" ] && [ -x "$part/tree/usr/bin/cargo" ] || {
  echo "web-toolchain: the packages hold no rustc and cargo" >&2
  exit 1
}
cat >"$part/cargo" <<END
#!/usr/bin/env bash
# Its standard library is compiled with the program: Debian ships it for other WebAssembly targets.
export LD_LIBRARY_PATH=$libraries RUSTC=$rustc RUSTC_BOOTSTRAP=1
[ "\${1:-}" = build ] || exec $cargo "\$@"
shift
exec $cargo build -Z build-std=std,panic_abort "\$@"
END
chmod +x "$part/cargo"
rm -rf "$to"
mv "$part" "$to"
"$to/cargo" --version >/dev/null || { echo "web-toolchain: its cargo does not run" >&2; exit 1; }
echo "web-toolchain: ready: $to"

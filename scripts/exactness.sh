#!/usr/bin/env bash
# Holds the decoder's networks to their known answers on other processors and runtimes:
#
#   scripts/exactness.sh [x86|runtimes|arm64]...      default: all
#
# x86       this processor; and under qemu-user one without AVX (Nehalem) and one with AVX2 but
#           neither AVX-512 nor VNNI (Haswell). Exit code 0 where all are exact.
# runtimes  ONNX Runtime from the oldest that is accepted to the newest, on this processor.
# arm64     ONNX Runtime's aarch64 build under qemu-user (Debian 12, root): every level of
#           optimisation, as the bundles are, and as the plugin runs them there, with some sums in
#           float32 (decision 187). As they are, levels `extended` and `all` differ in the priors;
#           that is shown, not judged.
#
# Emulators and runtimes go to .deps/exactness. docs/reliability.md has the table. An emulator is
# not the processor: it says what the code for that processor computes, not what the silicon does.
set -uo pipefail
shopt -s lastpipe
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
root=$PWD
deps=$root/.deps/exactness
python=$root/.deps/python/bin/python
bundles=("$root"/models/realtime "$root"/models/visual "$root"/models/earlier/*)
runtimes=(1.17.3 1.19.2 1.22.1 1.26.0 1.31.1 1.32.0)
failed=()
mkdir -p "$deps"

# Which lines are judged: all that are printed, or those that match.
judge() {
  local name=$1 pattern=$2
  tee "$deps/$name.tsv" | grep -vi cpuinfo
  if ! grep -qE "$pattern" "$deps/$name.tsv"; then
    failed+=("$name: no result")
  elif grep -E "$pattern" "$deps/$name.tsv" | grep -q DIFFERS; then
    failed+=("$name: differs")
  fi
}

# Static emulators of Debian: taken apart, not installed.
emulators() {
  [ -e "$deps/host/usr/bin/qemu-x86_64-static" ] && return
  (cd "$deps" && apt-get -q download qemu-user-static >/dev/null && dpkg -x qemu-user-static_*.deb host && rm qemu-user-static_*.deb)
}

x86() {
  [ "$(uname -m)" = x86_64 ] || { echo "!! SKIPPED: x86, this is $(uname -m)"; return; }
  echo "# this processor"
  "$python" scripts/exactness.py --levels none,basic,extended,all "${bundles[@]}" | judge native .
  emulators || { echo "!! SKIPPED: emulated processors, no qemu-user-static here"; return; }
  local interpreter packages
  interpreter=$(readlink -f "$python")
  packages=$("$python" -c 'import numpy, os; print(os.path.dirname(os.path.dirname(numpy.__file__)))')
  for cpu in Nehalem Haswell; do
    echo "# $cpu, emulated"
    # NumPy's OpenBLAS goes by the processor's family, which the emulator does not hide.
    OPENBLAS_CORETYPE=Nehalem PYTHONPATH=$packages "$deps/host/usr/bin/qemu-x86_64-static" -cpu "$cpu" "$interpreter" \
      scripts/exactness.py "${bundles[@]}" 2>/dev/null | judge "$cpu" .
  done
}

runtimes() {
  for version in "${runtimes[@]}"; do
    local site=$deps/runtime-$version
    if [ ! -e "$site/ready" ]; then
      # Older ones were built for the older NumPy.
      "$python" -m pip install -q --disable-pip-version-check --no-deps --target "$site" \
        "onnxruntime==$version" 'numpy==1.26.4' && touch "$site/ready" ||
        { echo "!! SKIPPED: ONNX Runtime $version cannot be had"; continue; }
    fi
    echo "# ONNX Runtime $version"
    PYTHONPATH=$site "$python" scripts/exactness.py "${bundles[@]}" | judge "runtime-$version" .
  done
}

# Debian's Python for arm64 with ONNX Runtime's wheel, for qemu-user. Nothing is installed.
arm64_root() {
  local d=$deps/arm64 version=1.31.1
  [ -e "$d/ready" ] && return
  emulators || return
  mkdir -p "$d/lists/partial" "$d/sys" "$d/site" "$d/get"
  (
    cd "$d/get" || exit 1
    platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64)
    "$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
      --python-version 3.11 "${platforms[@]}" -d . "onnxruntime==$version" numpy || exit 1
    for wheel in ./*.whl; do "$python" -m zipfile -e "$wheel" "$d/site" && rm "$wheel" || exit 1; done
    arm=(-oAPT::Architecture=arm64 -oAPT::Architectures=arm64 -oDir::State::Lists="$d/lists")
    apt-get -qq "${arm[@]}" update >/dev/null 2>&1
    apt-get -q "${arm[@]}" download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libstdc++6 \
      libgcc-s1 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 libcrypt1 libssl3 libuuid1 >/dev/null 2>&1 || exit 1
    for package in ./*_arm64.deb; do dpkg -x "$package" "$d/arm-root" && rm "$package" || exit 1; done
  ) || return
  # What ONNX Runtime's cpuinfo reads of a Neoverse N1.
  printf '%s\n' 'processor	: 0' \
    'Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp' \
    'CPU implementer	: 0x41' 'CPU architecture: 8' 'CPU variant	: 0x3' 'CPU part	: 0xd0c' 'CPU revision	: 1' '' >"$d/cpuinfo"
  touch "$d/ready"
}

arm64_python() {
  d=$deps/arm64 qemu=$deps/host/usr/bin/qemu-aarch64-static unshare -m bash -c '
    mount --make-rprivate /; mount --bind "$d/cpuinfo" /proc/cpuinfo; mount --bind "$d/sys" /sys
    exec env PYTHONHOME="$d/arm-root/usr" PYTHONPATH="$d/site" "$qemu" -L "$d/arm-root" \
      -E LD_LIBRARY_PATH="$d/arm-root/usr/lib/aarch64-linux-gnu:$d/arm-root/lib/aarch64-linux-gnu" \
      "$d/arm-root/usr/bin/python3.11" "$@"' sh "$@" 2>/dev/null
}

arm64() {
  if ! unshare -m true 2>/dev/null || ! arm64_root; then
    echo "!! SKIPPED: arm64; it needs root, Debian 12 and its mirrors"
    return
  fi
  echo "# ARM64, emulated"
  # Judged: none and basic everywhere, and the syntheses at every level.
  arm64_python scripts/exactness.py --levels none,basic,extended,all "${bundles[@]}" | judge arm64 'none|basic|synth'
  local float=$deps/float bundle graph
  for bundle in "${bundles[@]}"; do
    mkdir -p "$float/${bundle##*/}"
    cp "$bundle"/* "$float/${bundle##*/}"
    for graph in "$bundle"/*.onnx; do
      cargo run -q --release --locked -p nnv-nn --example float-sums "$graph" "$float/${bundle##*/}/${graph##*/}" || return
    done
  done
  echo "# ARM64, emulated, sums in float32"
  arm64_python scripts/exactness.py --levels none,basic,extended,all "$float"/*/ | judge arm64-float .
  echo "# ARM64, emulated, session.disable_quant_qdq"
  arm64_python scripts/exactness.py --quant-off "${bundles[@]}" | judge arm64-quant-off .
}

for part in "${@:-x86 runtimes arm64}"; do
  for name in $part; do
    case $name in
      x86 | runtimes | arm64) "$name" ;;
      *) echo "usage: $0 [x86|runtimes|arm64]..."; exit 2 ;;
    esac
  done
done
for line in "${failed[@]}"; do printf '\033[1mFAILED: %s\033[0m\n' "$line"; done
((${#failed[@]} == 0))

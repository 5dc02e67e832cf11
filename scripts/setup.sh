#!/usr/bin/env bash
# Install what the project needs, and only what is missing: system packages (Debian 12 and 13,
# Ubuntu 24.04) and ONNX Runtime, which goes into the project's own .deps folder. Safe to run again;
# a second run changes nothing and downloads nothing.
#
#   scripts/setup.sh [--test] [--bench] [--gpu]
#     --test   also a second, older ONNX Runtime for the exactness tests, and a small Python environment with pytest
#     --bench  also ffmpeg and a Python environment with numpy, for bench/rd
#     --gpu    ONNX Runtime with CUDA (256 MB more) instead of the CPU one
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$root/.deps
want_test=0 want_bench=0 want_gpu=0
for option in "$@"; do
  case $option in
    --test) want_test=1 ;;
    --bench) want_bench=1 ;;
    --gpu) want_gpu=1 ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "setup: unknown option $option; see $0 --help" >&2; exit 2 ;;
  esac
done

say() { printf '\033[1msetup:\033[0m %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

# --- system packages ------------------------------------------------------------------------------
packages=(
  gcc libc6-dev pkg-config ca-certificates git python3
  libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly
  gstreamer1.0-libav gstreamer1.0-plugins-base-apps
)
python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
if ((want_test || want_bench)); then
  python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
fi
if ((want_test)); then packages+=(g++); fi
if ((want_bench)); then packages+=(ffmpeg); fi

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
  missing=()
  for package in "${packages[@]}"; do
    # A compiler or interpreter that is there already, from wherever, will do.
    case $package in
      gcc) ! command -v cc >/dev/null || continue ;;
      g++) ! command -v c++ >/dev/null || continue ;;
      git | ffmpeg | python3) ! command -v "$package" >/dev/null || continue ;;
    esac
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  if ((${#missing[@]})); then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
      command -v sudo >/dev/null || die "these packages are missing, and there is neither root nor sudo to install them: ${missing[*]}"
      as_root=(sudo)
    fi
    say "installing system packages: ${missing[*]}"
    "${as_root[@]}" apt-get update -qq || say "apt-get update failed; trying with the package lists there are"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
      die "apt-get could not install: ${missing[*]}"
  fi
else
  absent=()
  for tool in cc pkg-config python3 gst-launch-1.0; do command -v "$tool" >/dev/null || absent+=("$tool"); done
  for module in gstreamer-1.0 gstreamer-video-1.0; do pkg-config --exists "$module" 2>/dev/null || absent+=("$module (pkg-config)"); done
  ((${#absent[@]} == 0)) || die "this is no Debian or Ubuntu; install by hand the equivalents of: ${packages[*]} (not found: ${absent[*]})"
fi

if pkg-config --exists gstreamer-1.0 && ! pkg-config --atleast-version=1.22 gstreamer-1.0; then
  die "GStreamer $(pkg-config --modversion gstreamer-1.0) is too old; 1.22 or newer is needed (Debian 12, Ubuntu 24.04 or newer)"
fi

# --- Rust -----------------------------------------------------------------------------------------
if ! command -v cargo >/dev/null && [ -r "${CARGO_HOME:-$HOME/.cargo}/env" ]; then
  # shellcheck disable=SC1091
  . "${CARGO_HOME:-$HOME/.cargo}/env"
fi
command -v cargo >/dev/null || die "no Rust toolchain: install Rust from https://rustup.rs (the distribution's may be too old) and run this again"
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
have=$(cd "$root" && rustc --version | awk '{print $2}')
[ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n1)" = "$wanted" ] ||
  die "Rust $have is too old, $wanted or newer is needed: run 'rustup update stable'"

# --- ONNX Runtime ---------------------------------------------------------------------------------
# The wheel from PyPI holds the plain shared library, which needs nothing of Python. It is picked by
# Python that happens to be here, and pinned by hash.
machine=$(uname -m)
declare -A hashes=(
  [1.31.1/x86_64]=1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536
  [1.31.1/aarch64]=0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc
  [1.22.1/x86_64]=2d39a530aff1ec8d02e365f35e503193991417788641b184f5b1e8c9a6d5ce8d
  [1.22.1/aarch64]=984cea2a02fcc5dfea44ade9aca9fe0f7a8a2cd6f77c258fc4388238618f3928
)

# Load the library and ask it for its version: a truncated or foreign file does not pass.
check_runtime() {
  python3 - "$1" "$2" <<'PY'
import ctypes, sys
class Base(ctypes.Structure):
    _fields_ = [("get_api", ctypes.c_void_p), ("version", ctypes.CFUNCTYPE(ctypes.c_char_p))]
library = ctypes.CDLL(sys.argv[1])
library.OrtGetApiBase.restype = ctypes.POINTER(Base)
found = library.OrtGetApiBase().contents.version().decode()
if found != sys.argv[2]:
    sys.exit(f"{sys.argv[1]} says it is version {found}, not {sys.argv[2]}")
PY
}

# fetch_runtime PACKAGE VERSION FOLDER
fetch_runtime() {
  local package=$1 version=$2 folder=$3 library=$3/libonnxruntime.so.$2
  if [ -f "$library" ] && check_runtime "$library" "$version" 2>/dev/null; then return; fi
  case $machine in x86_64 | aarch64) ;; *) die "no ONNX Runtime wheel for $machine: build it, and set NNV_ORT_LIBRARY to libonnxruntime.so" ;; esac
  say "fetching $package $version into ${folder#"$root"/}"
  local part requirement hash=${hashes[$version/$machine]:-}
  mkdir -p "$deps"
  part=$(mktemp -d "$deps/fetch.XXXXXX")
  requirement="$package==$version"
  if [ "$package" = onnxruntime ] && [ -n "$hash" ]; then requirement+=" --hash=sha256:$hash"; fi
  printf '%s\n' "$requirement" >"$part/requirements.txt"
  if ! python3 -m pip download --no-deps --only-binary=:all: --implementation cp --python-version 3.12 --abi cp312 \
    --platform "manylinux_2_27_$machine" --platform "manylinux_2_28_$machine" -d "$part" -r "$part/requirements.txt" >&2; then
    rm -rf "$part"
    die "could not download $package $version; check the network, or set NNV_ORT_LIBRARY to a libonnxruntime.so of 1.17 or newer"
  fi
  python3 - "$part" <<'PY'
import pathlib, sys, zipfile
part = pathlib.Path(sys.argv[1])
(wheel,) = part.glob("*.whl")
with zipfile.ZipFile(wheel) as z:
    for name in z.namelist():
        file = pathlib.PurePosixPath(name)
        if file.name.startswith("libonnxruntime") or name in ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"):
            (part / file.name).write_bytes(z.read(name))
wheel.unlink()
(part / "requirements.txt").unlink()
PY
  check_runtime "$part/libonnxruntime.so.$version" "$version" || die "the downloaded ONNX Runtime does not load (message above)"
  rm -rf "$folder"
  mkdir -p "$(dirname "$folder")"
  chmod 755 "$part"
  mv "$part" "$folder"
}

if [ -n "${NNV_ORT_LIBRARY:-}" ] && [ "${NNV_ORT_LIBRARY#"$deps"/}" = "$NNV_ORT_LIBRARY" ]; then
  [ -f "$NNV_ORT_LIBRARY" ] || die "NNV_ORT_LIBRARY is set to $NNV_ORT_LIBRARY, which is no file; unset it to use a fetched one"
  say "using your ONNX Runtime: $NNV_ORT_LIBRARY"
elif ((want_gpu)); then
  fetch_runtime onnxruntime-gpu 1.31.1 "$deps/onnxruntime-gpu/1.31.1"
else
  fetch_runtime onnxruntime 1.31.1 "$deps/onnxruntime/1.31.1"
fi
if ((want_test)); then fetch_runtime onnxruntime 1.22.1 "$deps/onnxruntime/1.22.1"; fi

# --- Python environment ---------------------------------------------------------------------------
if ((want_test || want_bench)); then
  venv=$deps/python
  if ! "$venv/bin/python" -c 'import numpy, onnx, onnxruntime, PIL, pytest' 2>/dev/null; then
    say "making a Python environment with numpy, onnx, onnxruntime, Pillow and pytest in .deps/python"
    python3 -m venv --clear "$venv" || die "python3 -m venv failed"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'numpy>=1.26' 'pytest>=8' 'pillow>=10' 'onnx>=1.16' 'onnxruntime>=1.19' >&2 ||
      die "pip could not install numpy, onnx, onnxruntime, Pillow and pytest"
  fi
  # The versions that the second decoder is tested with; nothing is fetched where they are there.
  pinned=$root/tests/reference_decoder/requirements.txt
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$pinned" >&2 ||
    die "pip could not install what $pinned names"
fi
say "ready"

#!/usr/bin/env bash
# ffmpeg 9.0.2 with VVenC (package imageio-ffmpeg 0.8.1): -g does not reach the encoder.
#
# Believed: `-g 1000` gives one key frame in 130 frames, as with libx264, libx265 and libsvtav1.
# Seen: VVenC writes a key frame every second whatever -g says; only `-vvenc-params intraperiod=N`
# changes it. A comparison at "the same key-frame interval" by -g alone gives VVenC several times
# the key frames of the others.
# For NNV: bench/rd sets intraperiod (nnvrd/codecs.py).
#
# Installs the pinned package in a temporary folder. Exit status 0: seen again; 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check imageio-ffmpeg==0.8.1
ffmpeg=$("$folder/venv/bin/python" -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')
"$ffmpeg" -version | head -n 1

# size NAME OPTION...: bytes of 130 frames at 25 frames/s, coded at QP 40.
size() {
  local name=$1
  shift
  "$ffmpeg" -v error -y -f lavfi -i testsrc=size=192x128:rate=25 -frames:v 130 -pix_fmt yuv420p10le \
    -threads 1 -c:v libvvenc -preset faster -qp 40 "$@" -f vvc "$folder/$name.266"
  stat -c %s "$folder/$name.266"
}

long=$(size long -g 1000)
short=$(size short -g 50)
whole=$(size whole -vvenc-params intraperiod=1024)
echo "-g 1000: $long bytes; -g 50: $short bytes; intraperiod=1024: $whole bytes"
[ "$long" = "$short" ] && [ "$whole" -lt "$long" ]

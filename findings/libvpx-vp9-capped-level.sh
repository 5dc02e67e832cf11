#!/usr/bin/env bash
# ffmpeg 9.0.2 with libvpx's VP9 encoder (package imageio-ffmpeg 0.8.1): one pass, constrained quality.
#
# Believed: with a rate far above any need, `-crf Q -b:v RATE` is the quality of `-crf Q -b:v 0`:
# the rate is a ceiling that is never met.
# Seen: in one pass the level then hardly counts. At 55 the file with a ceiling of 100 Mbit/s is
# some forty times as large as the one without; from 20 to 55 it shrinks to a half, not to an
# eightieth. In two passes it is five times as large.
# For NNV: GStreamer's vp9enc has this mode alone (`end-usage=cq`), in one pass. `nnv encode --codec
# vp9` asked for levels that changed next to nothing, and overshot every target. It sets
# min-quantizer and max-quantizer instead (nnv-tools/src/encode/codec.rs).
#
# Installs the pinned package in a temporary folder. Exit status 0: seen again; 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check imageio-ffmpeg==0.8.1
ffmpeg=$("$folder/venv/bin/python" -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')
"$ffmpeg" -version | head -n 1

# size LEVEL RATE: bytes of 100 frames.
size() {
  "$ffmpeg" -v error -y -f lavfi -i testsrc2=size=352x288:rate=25:duration=4,noise=alls=12:allf=t \
    -c:v libvpx-vp9 -crf "$1" -b:v "$2" -deadline good -cpu-used 4 -threads 1 "$folder/a.webm"
  stat -c %s "$folder/a.webm"
}

free=$(size 55 0)
capped=$(size 55 100M)
finer=$(size 20 100M)
echo "crf 55: $free bytes; with a ceiling of 100 Mbit/s $capped; crf 20 with it $finer"
((capped > 10 * free && finer < 4 * capped))

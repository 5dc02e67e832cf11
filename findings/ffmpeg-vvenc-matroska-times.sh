#!/usr/bin/env bash
# ffmpeg 9.0.2 with VVenC (package imageio-ffmpeg 0.8.1): most frames of a short VVC clip in
# Matroska are gone when it is decoded.
#
# Believed: 20 frames coded with libvvenc decode to 20, whatever the container, as with libx264,
# libx265 and libsvtav1.
# Seen: from .mp4 and .vvc 20, from .mkv 6. The file holds all of them. Its times seem right, too:
# `-fps_mode passthrough` decodes all. But the first packet's time of presentation is that of frame
# 15 (VVenC's first key frame is not first to be shown), ffmpeg takes it for the start of the file,
# subtracts it, and drops the frames whose times are then negative. With .mp4 the same packets have
# a start of 0. For the .mkv no warning is printed.
# For NNV: bench/rd decodes with -fps_mode passthrough (nnvrd/codecs.py).
#
# Installs the pinned package in a temporary folder. Exit status 0: seen again; 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check imageio-ffmpeg==0.8.1
where='import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())'
ffmpeg=$("$folder/venv/bin/python" -c "$where")
"$ffmpeg" -version | head -n 1

# encode CODEC FILE: 20 frames.
encode() {
  "$ffmpeg" -v error -y -f lavfi -i testsrc=size=192x128:rate=25 -frames:v 20 \
    -pix_fmt yuv420p10le -threads 1 -c:v "$1" "$folder/$2" 2>"$folder/encoder.txt"
}

# frames FILE OPTION...: how many frames are decoded.
frames() {
  local name=$1
  shift
  "$ffmpeg" -v error -i "$folder/$name" "$@" -f framemd5 - | grep -vc '^#'
}

start() { "$ffmpeg" -i "$folder/$1" 2>&1 | grep -o 'start: [0-9.]*' || true; }

encode libx265 x265.mkv
for suffix in mkv mp4 vvc; do
  encode libvvenc "vvenc.$suffix"
done
mkv=$(frames vvenc.mkv)
passed=$(frames vvenc.mkv -fps_mode passthrough)
said=$("$ffmpeg" -v warning -i "$folder/vvenc.mkv" -f null - 2>&1 | wc -l)
mp4=$(frames vvenc.mp4)
raw=$(frames vvenc.vvc)
other=$(frames x265.mkv)
echo "libvvenc: .mkv $mkv ($(start vvenc.mkv), $said lines of warnings)," \
  "with -fps_mode passthrough $passed; .mp4 $mp4 ($(start vvenc.mp4)); .vvc $raw"
echo "libx265: .mkv $other ($(start x265.mkv))"
[ "$mkv" -lt 20 ] && [ "$said" = 0 ] && [ "$passed $mp4 $raw $other" = "20 20 20 20" ]

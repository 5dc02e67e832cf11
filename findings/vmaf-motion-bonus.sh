#!/usr/bin/env bash
# libvmaf in ffmpeg 9.0.2 (package imageio-ffmpeg 0.8.1), model vmaf_v0.6.1: the same blur of the same
# picture scores up to 25 points more where the picture moves.
#
# Believed: motion, the model's only feature in time, shifts scores by a few points.
# Seen: a still picture blurred by one sample has 67. The same picture, scrolled by a hundredth of
# its width a frame and blurred as much, has 73, by three hundredths 81, by a tenth 92. Each frame
# shows the same samples, moved, with the same damage. So a target in VMAF lets fast shots become
# as coarse as an encoder can: at its coarsest quantizer they may still score above 90.
# For NNV: `quality-metric=vmaf` begins anew behind such a shot, whose measures tell nothing of
# quantizers (docs/decisions/180-quality-control.md); `max-quantizer` bounds it.
#
# Installs the pinned package in a temporary folder. Exit status 0: seen again; 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check imageio-ffmpeg==0.8.1
ffmpeg=$("$folder/venv/bin/python" -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')
"$ffmpeg" -version | head -n 1

# score SPEED: VMAF of twelve frames of one picture, scrolled by SPEED of its width a frame, blurred.
score() {
  "$ffmpeg" -v info -f lavfi -i mandelbrot=size=640x360:rate=1:maxiter=800 -vf "
    trim=start_frame=40:end_frame=41, loop=loop=12:size=1:start=0, setpts=N/30/TB, format=yuv420p,
    scroll=horizontal=$1, split[whole][copy]; [copy]gblur=sigma=1[blurred];
    [blurred][whole]libvmaf=model=version=vmaf_v0.6.1" -f null - 2>&1 |
    sed -n 's/.*VMAF score: //p'
}

still=$(score 0)
slow=$(score 0.01)
fast=$(score 0.1)
echo "still: $still; a hundredth of the width a frame: $slow; a tenth: $fast"
awk -v still="$still" -v slow="$slow" -v fast="$fast" \
  'BEGIN { exit !(slow > still + 3 && fast > still + 20) }'

#!/usr/bin/env bash
# GStreamer 1.22.0 (Debian 12): y4menc behind a decoder of libav writes the decoder's padding, and
# the file cannot be read.
#
# Believed: `avdec_h264 ! y4menc` writes the frames that were decoded, as `avdec_h264 ! filesink`
# does.
# Seen: at 176x144 a frame takes 62976 bytes in place of 38016, with the header still saying
# W176 H144, so that every reader is off from the first row on. At 640x480, 1280x720 and 1920x1080
# it is the same. videoconvert between them changes nothing (it passes the buffers through);
# avdec_h264 direct-rendering=false or identity drop-allocation=true does. There is no warning.
# 1.28.8 writes the frames alone.
# For NNV: identity drop-allocation=true stands before y4menc (crates/nnv-tools/src/frames.rs).
#
# Runs the GStreamer that is installed, with the plugins libav and x264.
# Exit status 0: seen again; 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
gst-launch-1.0 --version | sed -n 2p
cd "$folder"
gst-launch-1.0 -q videotestsrc num-buffers=10 ! video/x-raw,format=I420,width=176,height=144 \
  ! x264enc ! h264parse ! matroskamux ! filesink location=clip.mkv

# size ELEMENT...: bytes of ten frames without the headers, and the file's first line.
size() {
  gst-launch-1.0 -q filesrc location=clip.mkv ! matroskademux ! h264parse ! "$@" \
    ! filesink location=frames
  local line=''
  if [ "$(head -c 9 frames)" = YUV4MPEG2 ]; then
    line=$(head -n 1 frames)
  fi
  # A first line with its end, and "FRAME\n" before each frame.
  echo "$(($(stat -c %s frames) - (${#line} ? ${#line} + 61 : 0))) $line"
}

raw=$(size avdec_h264)
plain=$(size avdec_h264 ! y4menc)
converted=$(size avdec_h264 ! videoconvert ! y4menc)
copied=$(size avdec_h264 direct-rendering=false ! y4menc)
dropped=$(size avdec_h264 ! identity drop-allocation=true ! y4menc)
echo "ten frames of 38016 bytes: filesink $raw"
echo "y4menc: $plain"
echo "videoconvert ! y4menc: $converted"
echo "direct-rendering=false ! y4menc: $copied"
echo "identity drop-allocation=true ! y4menc: $dropped"
[ "${raw%% *} ${copied%% *} ${dropped%% *}" = "380160 380160 380160" ]
[ "${plain%% *}" -gt 380160 ] && [ "${converted%% *}" -gt 380160 ]

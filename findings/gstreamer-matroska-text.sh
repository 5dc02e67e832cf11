#!/usr/bin/env bash
# GStreamer 1.22.0 (Debian 12): the subtitles that matroskademux gives are none that matroskamux or
# mp4mux take.
#
# Believed: text that matroskamux wrote can be taken out by matroskademux and written by matroskamux
# again, as sound and pictures can.
# Seen: it goes in as `text/x-raw, format=utf8`, the only format that the muxers take, and comes out
# as `format=pango-markup`. What has no tags, too. The two cannot be linked. 1.28.8 does the same.
# For NNV: `nnv encode` linked a track to the muxer by its kind alone, and waited for ever for a pad
# that could not be linked. capssetter names the text utf8 (crates/nnv-tools/src/encode/join.rs).
#
# Runs the GStreamer that is installed, with its base and good plugins.
# Exit status 0: seen again; 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
gst-launch-1.0 --version | sed -n 2p
cd "$folder"
printf '1\n00:00:00,200 --> 00:00:00,900\nplain words\n\n' > cues.srt
gst-launch-1.0 -q filesrc location=cues.srt ! subparse ! text/x-raw,format=utf8 ! matroskamux \
  ! filesink location=cues.mkv

out=$(gst-launch-1.0 -v filesrc location=cues.mkv ! matroskademux ! fakesink |
  sed -n 's/.*sink: caps = \(text.*\)/\1/p' | head -n 1)
echo "out of Matroska: $out"
taken=
for muxer in matroskamux mp4mux; do
  for format in utf8 pango-markup; do
    if gst-launch-1.0 -q filesrc location=cues.srt ! subparse ! capssetter "caps=text/x-raw,format=$format" \
      ! "text/x-raw,format=$format" ! "$muxer" ! fakesink >said 2>&1; then
      taken+="$muxer:$format "
    else
      echo "$muxer, $format: $(grep -m1 -i 'could not link\|erroneous\|error' said)"
    fi
  done
done
echo "taken: $taken"
[[ $out == *pango-markup* && $taken == "matroskamux:utf8 mp4mux:utf8 " ]]

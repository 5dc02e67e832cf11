#!/usr/bin/env bash
# GStreamer 1.22.0 (Debian 12; 1.28.8 does the same): videoconvert throws away depth that the
# encoder would take.
#
# Believed: of the formats that are taken downstream videoconvert chooses the one that loses least,
# so P010_10LE (10 bits, what hardware decoders give) reaches an encoder of 8 to 12 bits with ten
# or more.
# Seen: vp9enc gets I420 and x265enc Y444, both of 8 bits. A capsfilter that lists nothing but the
# encoder's own formats gives I420_12LE: it puts the field `format` first, while the encoders'
# caps have width and height before it. The log of videoconvert shows that no format is weighed in
# the first case.
# For NNV: nnvenc gives `format` first (docs/decisions/151-grey.md).
#
# Runs the GStreamer that is installed, with the plugins vpx and x265.
# Exit status 0: seen again; 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
gst-launch-1.0 --version | sed -n 2p

# run ELEMENT...: what videoconvert gives for P010_10LE, and how many formats it has weighed.
run() {
  local format weighed
  GST_DEBUG=videoconvertscale:6 GST_DEBUG_NO_COLOR=1 GST_DEBUG_FILE="$folder/log" \
    gst-launch-1.0 -v videotestsrc num-buffers=1 \
    ! video/x-raw,format=P010_10LE,width=64,height=64 ! videoconvert name=convert \
    ! "$@" ! fakesink >"$folder/out" 2>&1
  format=$(sed -n 's/.*convert\.GstPad:src: caps.*format=(string)\([A-Z0-9_a-z]*\).*/\1/p' \
    "$folder/out" | head -n 1)
  weighed=$(sed -n 's/.*fixate_format.* have \([0-9]*\) formats.*/\1/p' "$folder/log" | head -n 1)
  echo "$format (${weighed:-none} weighed)"
}

vp9='video/x-raw,format={I420,YV12,Y444,I420_10LE,I420_12LE,I422_10LE,I422_12LE,Y444_10LE,'
vp9+='Y444_12LE}'
h265='video/x-raw,format={Y444,Y42B,I420,Y444_10LE,I422_10LE,I420_10LE,Y444_12LE,I422_12LE,'
h265+='I420_12LE}'
vp9_plain=$(run vp9enc)
vp9_listed=$(run "$vp9" ! vp9enc)
h265_plain=$(run x265enc)
h265_listed=$(run "$h265" ! x265enc)
echo "vp9enc: $vp9_plain; behind a capsfilter with its own formats: $vp9_listed"
echo "x265enc: $h265_plain; behind a capsfilter with its own formats: $h265_listed"
[[ $vp9_plain == I420\ * && $h265_plain == Y444\ * ]]
[[ $vp9_listed == I420_1[02]LE\ * && $h265_listed == I420_1[02]LE\ * ]]

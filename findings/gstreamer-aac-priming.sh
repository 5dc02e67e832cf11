#!/usr/bin/env bash
# GStreamer 1.22.0 (Debian 12): sound of avenc_aac and voaacenc is late in the file.
#
# Believed: an encoder's delay is told to the muxer, as opusenc does (GstAudioClippingMeta) and as
# ffmpeg does with the very encoder that avenc_aac wraps; what mp4mux writes plays in its place.
# Seen: both stamp their first packet, which holds nothing but the delay, with 0 and attach no
# GstAudioClippingMeta. A tick in the MP4 comes 1024 samples late with avenc_aac and 1600 with
# voaacenc; with ffmpeg's own `-c:a aac` it is in its place.
# For NNV: nnvmp4mux knows both delays (docs/decisions/155-priming.md).
#
# Installs the pinned package imageio-ffmpeg in a temporary folder; runs the GStreamer that is
# installed, with the plugins libav and voaacenc. Exit status 0: seen again; 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check imageio-ffmpeg==0.8.1
where='import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())'
ffmpeg=$("$folder/venv/bin/python" -c "$where")
gst-launch-1.0 --version | sed -n 2p
"$ffmpeg" -version | head -n 1
cd "$folder"

# tick FILE: the first sample above a tenth of full scale.
tick() {
  "$ffmpeg" -v error -y -i "$1" -f s16le -ac 1 -ar 48000 decoded.raw
  "$folder/venv/bin/python" - <<'PY'
from array import array

samples = array("h", open("decoded.raw", "rb").read())
print(next(i for i, sample in enumerate(samples) if abs(sample) > 3276))
PY
}

# clipping ENCODER: how many packets have GstAudioClippingMeta.
clipping() {
  gst-launch-1.0 -v filesrc location=source.wav ! wavparse ! audioconvert ! "$1" \
    ! fakesink silent=false | grep -c 'last-message = chain.*GstAudioClippingMeta' || true
}

gst-launch-1.0 -q audiotestsrc wave=ticks num-buffers=60 samplesperbuffer=1024 \
  tick-interval=500000000 sine-periods-per-tick=10 freq=1000 \
  ! audio/x-raw,rate=48000,channels=1,format=S16LE ! wavenc ! filesink location=source.wav
"$ffmpeg" -v error -y -i source.wav -c:a aac ffmpeg.mp4
source=$(tick source.wav)
ffmpeg_late=$(($(tick ffmpeg.mp4) - source))
for encoder in avenc_aac voaacenc; do
  gst-launch-1.0 -q filesrc location=source.wav ! wavparse ! audioconvert ! "$encoder" ! mp4mux \
    ! filesink location="$encoder.mp4"
done
avenc_late=$(($(tick avenc_aac.mp4) - source))
voaac_late=$(($(tick voaacenc.mp4) - source))
metas="opusenc $(clipping opusenc), avenc_aac $(clipping avenc_aac), voaacenc $(clipping voaacenc)"
echo "samples late: ffmpeg $ffmpeg_late, avenc_aac $avenc_late, voaacenc $voaac_late"
echo "packets with GstAudioClippingMeta: $metas"

# near NUMBER NUMBER: what is lossy moves the first loud sample by one or two.
near() { (($1 - $2 >= -4 && $1 - $2 <= 4)); }
near "$ffmpeg_late" 0 && near "$avenc_late" 1024 && near "$voaac_late" 1600
[[ $metas != "opusenc 0,"* && $metas == *", avenc_aac 0, voaacenc 0" ]]

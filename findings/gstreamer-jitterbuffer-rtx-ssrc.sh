#!/usr/bin/env bash
# GStreamer 1.22.0 (Debian 12; 1.28.8 does the same): rtpjitterbuffer asks for lost packets of a
# stream that does not exist, unless rtpssrcdemux stands before it.
#
# Believed: `rtprtxsend ! ... ! rtprtxreceive ! rtpjitterbuffer do-retransmission=true` brings back
# what is lost: the jitter buffer sees the SSRC in every packet, and its sink caps say it, too.
# Seen: its requests (GstRTPRetransmissionRequest) name the SSRC 0xFFFFFFFF. rtprtxsend gets them
# and sends nothing, and nothing is said above the level of debug logs. With rtpssrcdemux before
# the jitter buffer the requests name the stream, and lost packets come back.
# For NNV: rtpbin holds an rtpssrcdemux (docs/rtp.md); the test without rtpbin puts one before the
# jitter buffer (tests/elements/rtp_loss.rs).
#
# Runs the GStreamer that is installed; each of both runs takes two seconds.
# Exit status 0: seen again; 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
gst-launch-1.0 --version | sed -n 2p
map='payload-type-map=application/x-rtp-pt-map,8=(uint)97'

# run ELEMENT...: 100 packets of the SSRC 0x11223344, of which one in ten is lost.
run() {
  GST_DEBUG=rtprtxsend:6 GST_DEBUG_NO_COLOR=1 GST_DEBUG_FILE="$folder/log" \
    gst-launch-1.0 -v audiotestsrc is-live=true num-buffers=100 samplesperbuffer=160 \
    ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay ssrc=287454020 \
    ! rtprtxsend "$map" ! identity drop-probability=0.1 ! rtprtxreceive "$map" \
    ! "$@" rtpjitterbuffer do-retransmission=true latency=200 \
    ! fakesink silent=false >"$folder/out"
  ssrcs=$(sed -n 's/.*got rtx request.*ssrc: //p' "$folder/log" | sort -u | tr '\n' ' ')
  packets=$(grep -c 'last-message = chain' "$folder/out")
}

run
echo "without rtpssrcdemux: requests for the SSRC $ssrcs; $packets of 100 packets arrive"
alone=$ssrcs few=$packets
run rtpssrcdemux !
echo "with rtpssrcdemux: requests for the SSRC $ssrcs; $packets of 100 packets arrive"
[[ $alone == 'FFFFFFFF ' && $ssrcs == '11223344 ' ]] && ((packets > few))

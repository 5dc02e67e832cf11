#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Steps of `bitrate` while playing: how near the rate is from half a second after a step on.

    source scripts/env.sh && bench/steps.py CLIP [CLIP ...]

Needs Python's binding of GStreamer with the plugin on its path. Environment: ENCODER adds
properties of nnvenc (`rate-control=vbr speed-preset=fast` by default), RATES are the kbit/s that
follow each other, SECONDS how long each lasts, SIZE is the size that clips are scaled to, THROUGH
stands before nnvenc (`identity drop-probability=0.5` makes a variable frame rate).
"""

import os
import sys
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

ENCODER = os.environ.get("ENCODER", "rate-control=vbr speed-preset=fast")
RATES = [int(kbits) for kbits in os.environ.get("RATES", "100 250 100").split()]
SECONDS = float(os.environ.get("SECONDS", "3"))
SIZE = os.environ.get("SIZE", "320x180").split("x")
SETTLED = 0.5
# With half of all frames left out at random, frames keep their times: a variable frame rate.
THROUGH = os.environ.get("THROUGH", "identity")


def sizes(clip):
    """`(time in s, bits)` of each frame, in order of time; the rate steps on the way."""
    pipeline = Gst.parse_launch(
        f'filesrc location="{clip}" ! decodebin ! videoconvert ! videoscale ! videorate ! '
        f"video/x-raw,format=I420,width={SIZE[0]},height={SIZE[1]},framerate=25/1 ! "
        f"{THROUGH} ! "
        f"nnvenc name=e bitrate={RATES[0]} {ENCODER} ! fakesink name=k sync=false"
    )
    # The rate of the caps: what comes in half as often has to be counted by its times.
    encoder, found, begin = pipeline.get_by_name("e"), [], []

    def comes(pad, info):
        pts = info.get_buffer().pts
        begin[:] = begin or [pts]
        place = int((pts - begin[0]) / Gst.SECOND / SECONDS)
        if place >= len(RATES):
            return Gst.PadProbeReturn.DROP
        if encoder.get_property("bitrate") != RATES[place]:
            encoder.set_property("bitrate", RATES[place])
        return Gst.PadProbeReturn.OK

    def leaves(pad, info):
        buffer = info.get_buffer()
        segment = pad.get_sticky_event(Gst.EventType.SEGMENT, 0).parse_segment()
        time = segment.to_running_time(Gst.Format.TIME, buffer.pts)
        found.append((time / Gst.SECOND, 8 * buffer.get_size()))
        return Gst.PadProbeReturn.OK

    encoder.get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, comes)
    encoder.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, leaves)
    pipeline.set_state(Gst.State.PLAYING)
    message = pipeline.get_bus().timed_pop_filtered(
        Gst.CLOCK_TIME_NONE, Gst.MessageType.EOS | Gst.MessageType.ERROR
    )
    pipeline.set_state(Gst.State.NULL)
    if message.type == Gst.MessageType.ERROR:
        sys.exit(message.parse_error()[0].message)
    first = min(time for time, _ in found)
    return sorted((time - first, bits) for time, bits in found)


def main():
    Gst.init(None)
    for clip in sys.argv[1:]:
        frames = sizes(clip)
        first = [bits for time, bits in frames if time < SECONDS]
        mean = sum(first) / min(SECONDS, frames[-1][0] + 0.04) / 1000 / RATES[0] - 1
        print(f"{Path(clip).stem:24} {RATES[0]:4} kbit/s from the start: {mean:+6.1%}", flush=True)
        for place, kbits in enumerate(RATES[1:], 1):
            step = place * SECONDS
            if frames[-1][0] < step + SETTLED + 1:
                continue

            def rate(begin, end):
                within = sum(bits for time, bits in frames if begin <= time + 1e-6 < end)
                return within / (end - begin) / 1000 / kbits - 1

            end = min(step + SECONDS, frames[-1][0] + 0.04)
            print(
                f"{Path(clip).stem:24} {RATES[place - 1]:4} to {kbits:4} kbit/s: first half second "
                f"{rate(step, step + SETTLED):+6.1%}, the second behind it "
                f"{rate(step + SETTLED, step + SETTLED + 1):+6.1%}, the rest "
                f"{rate(step + SETTLED, end):+6.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()

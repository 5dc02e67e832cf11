#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""What a region of interest gains and costs on a clip: PSNR in it and elsewhere, and the rate.

    source scripts/env.sh && bench/roi.py CLIP X Y WIDTH HEIGHT [DELTA ...]

DELTA is in quantizers (12 halve the step), -12 and -24 by default. Needs Python's binding of
GStreamer with the plugin on its path, and numpy. Environment: ENCODER adds properties of nnvenc
(`quantizer=34 speed-preset=fast` by default), FRAMES bounds the frames of the clip.
"""

import os
import sys
from pathlib import Path

import gi
import numpy as np

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import Gst, GstApp, GstVideo  # noqa: E402, F401

ENCODER = os.environ.get("ENCODER", "quantizer=34 speed-preset=fast")
FRAMES = int(os.environ.get("FRAMES", "50"))


def luma(sample):
    """The luma of a frame of I420."""
    info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
    buffer = sample.get_buffer()
    meta = GstVideo.buffer_get_video_meta(buffer)
    stride = meta.stride[0] if meta else info.stride[0]
    ok, mapped = buffer.map(Gst.MapFlags.READ)
    assert ok, "a frame cannot be read"
    plane = np.frombuffer(bytes(mapped.data), np.uint8, stride * info.height)
    buffer.unmap(mapped)
    return plane.reshape(info.height, stride)[:, : info.width].astype(float)


def coded(clip, region, delta):
    """Bits, and the frames before and after."""
    pipeline = Gst.parse_launch(
        f'filesrc location="{clip}" ! decodebin ! videoconvert ! video/x-raw,format=I420 ! '
        "tee name=t t. ! queue max-size-bytes=0 max-size-time=0 max-size-buffers=0 ! "
        f"appsink name=a sync=false t. ! nnvenc name=e {ENCODER} ! nnvparse ! nnvdec ! "
        "videoconvert ! video/x-raw,format=I420 ! appsink name=b sync=false"
    )
    bits, count = [], [0]

    def comes(pad, info):
        count[0] += 1
        if count[0] > FRAMES:
            return Gst.PadProbeReturn.DROP
        if delta:
            whole = info.get_buffer()
            flags = Gst.BufferCopyFlags
            buffer = whole.copy_region(
                flags.FLAGS | flags.TIMESTAMPS | flags.META | flags.MEMORY, 0, whole.get_size()
            )
            meta = GstVideo.buffer_add_video_region_of_interest_meta(buffer, "plate", *region)
            # A half of it in H.264's quantizers, which `delta-qp` counts in.
            meta.add_param(Gst.Structure.new_from_string(f"roi/nnv,delta-qp=(int){delta // 2}"))
            # The copy goes on in place of the buffer.
            push.chain(buffer)
            return Gst.PadProbeReturn.DROP
        return Gst.PadProbeReturn.OK

    class Push:
        """Hands a buffer to a pad without meeting its probe again."""

        busy = False

        def chain(self, buffer):
            self.busy = True
            sink.chain(buffer)
            self.busy = False

    push, sink = Push(), pipeline.get_by_name("e").get_static_pad("sink")
    sink.add_probe(
        Gst.PadProbeType.BUFFER,
        lambda pad, info: Gst.PadProbeReturn.OK if push.busy else comes(pad, info),
    )
    pipeline.get_by_name("e").get_static_pad("src").add_probe(
        Gst.PadProbeType.BUFFER,
        lambda pad, info: bits.append(8 * info.get_buffer().get_size())
        or Gst.PadProbeReturn.OK,
    )
    pipeline.set_state(Gst.State.PLAYING)
    frames = []
    for name in "ba":
        sink_of, found = pipeline.get_by_name(name), []
        while len(found) < FRAMES and (sample := sink_of.pull_sample()):
            found.append(luma(sample))
        frames.append(found)
    pipeline.set_state(Gst.State.NULL)
    after, before = frames
    assert len(after) == len(before) > 0, f"{len(after)} of {len(before)} frames"
    return sum(bits), before, after


def psnr(before, after, inside):
    errors = [np.mean((a - b)[inside] ** 2) for a, b in zip(before, after)]
    return 10 * np.log10(255**2 / max(np.mean(errors), 1e-9))


def main():
    Gst.init(None)
    clip, region = sys.argv[1], tuple(map(int, sys.argv[2:6]))
    deltas = [int(delta) for delta in sys.argv[6:]] or [-12, -24]
    x, y, width, height = region
    first = None
    for delta in [0, *deltas]:
        bits, before, after = coded(clip, region, delta)
        inside = np.zeros(before[0].shape, bool)
        inside[y : y + height, x : x + width] = True
        now = bits, psnr(before, after, inside), psnr(before, after, ~inside)
        first = first or now
        print(
            f"{Path(clip).stem} region {width}x{height}+{x}+{y} ({np.mean(inside):.2%} of the "
            f"picture) delta {delta:+3}: {now[1]:.2f} dB in it ({now[1] - first[1]:+.2f}), "
            f"elsewhere {now[2]:.2f} ({now[2] - first[2]:+.2f}), "
            f"{bits / len(after) / 1000:.2f} kbit a frame ({bits / first[0] - 1:+.1%})",
            flush=True,
        )


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""A live source on a core that other programs take most of: frames that get through, and how late.

    source scripts/env.sh && bench/slow.py CLIP

In turn: frames per second that the core codes where none has to be left out (`ultrafast`, which
the encoder ends with), and the live pipeline. All is pinned to one core, beside busy loops.

Needs Python's binding of GStreamer with the plugin on its path. Environment: CORE is the core,
LOOPS the number of busy loops on it, SECONDS the length of a run, ROUNDS how often, ENCODER adds
properties of nnvenc.
"""

import os
import statistics
import subprocess
import sys
import time

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

CORE = int(os.environ.get("CORE", "1"))
LOOPS = int(os.environ.get("LOOPS", "2"))
SECONDS = float(os.environ.get("SECONDS", "15"))
ROUNDS = int(os.environ.get("ROUNDS", "2"))
ENCODER = os.environ.get("ENCODER", "")
FPS = 30


def run(clip, live):
    """Frames per second, lateness in ms of each frame, and the encoder's counts of a run."""
    # Pictures are decoded beforehand, and played to and fro at the rate of a camera.
    pipeline = Gst.parse_launch(
        f"appsrc name=s format=time is-live={str(live).lower()} block=true max-buffers=2 "
        f"caps=video/x-raw,format=I420,width=640,height=360,framerate={FPS}/1 ! "
        "queue max-size-buffers=2 ! nnvenc name=e threads=1 quantizer=32 zerolatency=true "
        f"{'' if live else 'speed-preset=ultrafast qos=false'} {ENCODER} ! "
        "fakesink name=k sync=false signal-handoffs=true"
    )
    source, encoder = pipeline.get_by_name("s"), pipeline.get_by_name("e")
    late, counted = [], [0]

    def shown(_, buffer, __):
        counted[0] += 1
        if live:
            now = pipeline.get_clock().get_time() - pipeline.get_base_time()
            late.append((now - buffer.pts) / 1e6)

    pipeline.get_by_name("k").connect("handoff", shown)
    pipeline.set_state(Gst.State.PLAYING)
    begin, number = time.monotonic(), 0
    while time.monotonic() - begin < SECONDS:
        buffer = Gst.Buffer.new_wrapped(clip[number % len(clip)])
        if live:
            wait = number / FPS - (time.monotonic() - begin)
            if wait > 0:
                time.sleep(wait)
            # A camera stamps what it takes when it takes it.
            buffer.pts = pipeline.get_clock().get_time() - pipeline.get_base_time()
        else:
            buffer.pts = number * Gst.SECOND // FPS
        buffer.duration = Gst.SECOND // FPS
        source.emit("push-buffer", buffer)
        number += 1
    rate = counted[0] / (time.monotonic() - begin)
    stats = encoder.get_property("stats").to_string()
    pipeline.set_state(Gst.State.NULL)
    return rate, late, number, stats


def pictures(path):
    """The clip's first frames in 640×360, to and fro."""
    process = subprocess.run(
        ["gst-launch-1.0", "-q", "filesrc", f"location={path}", "!", "decodebin", "!",
         "videoconvert", "!", "videoscale", "!", "identity", "eos-after=61", "!",
         "video/x-raw,format=I420,width=640,height=360,pixel-aspect-ratio=1/1", "!",
         "fdsink", "fd=1"],
        check=True, stdout=subprocess.PIPE,
    )
    size = 640 * 360 * 3 // 2
    data = process.stdout
    frames = [data[i * size : (i + 1) * size] for i in range(len(data) // size)]
    if not frames:
        sys.exit(f"{path}: no pictures")
    return frames + frames[-2:0:-1]


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    Gst.init(None)
    clip = pictures(sys.argv[1])
    os.sched_setaffinity(0, {CORE})
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(LOOPS)
    ]
    try:
        could, got = [], []
        for _ in range(ROUNDS):
            could.append(run(clip, live=False)[0])
            rate, late, number, stats = run(clip, live=True)
            got.append(rate)
            settled = sorted(late[len(late) // 4 :])
            print(
                f"offered {number}, shown {rate:.1f} a second of {could[-1]:.1f} that the core "
                f"can code; late: {statistics.median(settled):.0f} ms in the median, "
                f"{settled[int(0.95 * (len(settled) - 1))]:.0f} ms at 95 %, "
                f"{settled[-1]:.0f} at most"
            )
            print(f"  {stats}")
        share = statistics.median(g / c for g, c in zip(got, could))
        print(f"share of what the core can code, {LOOPS} busy loops beside it: {share:.2f}")
    finally:
        for loop in loops:
            loop.kill()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""One pass against two: rate error, PSNR and the worst second of clips.

    source scripts/env.sh && bench/passes.py KBITS CLIP [CLIP ...]

Needs gst-launch-1.0 with the plugin on its path, and numpy. Environment: ENCODER adds properties
of nnvenc, FRAMES bounds the frames of a clip.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

FRAMES = int(os.environ.get("FRAMES", "150"))
ENCODER = os.environ.get("ENCODER", "speed-preset=fast")


def launch(description):
    subprocess.run(["gst-launch-1.0", "-q", *description.split()], check=True)


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def size_of(path):
    """Width, height and frames per second of a y4m file."""
    with open(path, "rb") as file:
        words = file.readline().decode().split()
    tag = {word[0]: word[1:] for word in words[1:]}
    num, den = map(int, tag["F"].split(":"))
    return int(tag["W"]), int(tag["H"]), num / den


def frames_of(path):
    """Luma of all frames of an I420 y4m file."""
    width, height, _ = size_of(path)
    chroma = 2 * ((width + 1) // 2) * ((height + 1) // 2)
    data = Path(path).read_bytes()
    at, out = data.index(b"\n") + 1, []
    while at < len(data):
        at = data.index(b"\n", at) + 1
        out.append(np.frombuffer(data, np.uint8, width * height, at))
        at += width * height + chroma
    return np.array(out)


def cut(whole, part):
    """The first frames of a y4m file."""
    width, height, _ = size_of(whole)
    frame = 6 + width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)
    with open(whole, "rb") as file:
        part.write_bytes(file.readline() + file.read(FRAMES * frame))


def measure(clip, kbits, folder):
    source = folder / "in.y4m"
    whole = folder / "whole.y4m"
    # Twice converted: y4menc of GStreamer 1.22 writes decoders' padding along.
    launch(
        f"filesrc location={clip} ! decodebin ! videoconvert ! video/x-raw,format=NV12 "
        f"! videoconvert ! videorate ! video/x-raw,format=I420 ! y4menc ! filesink location={whole}"
    )
    cut(whole, source)
    original, fps = frames_of(source), size_of(source)[2]
    for name, passes in [("one pass", ["single"]), ("two passes", ["first", "second"])]:
        for which in passes:
            launch(
                f"filesrc location={source} ! y4mdec ! nnvenc bitrate={kbits} pass={which} "
                f"stats-file={folder}/stats.csv {ENCODER} ! filesink location={folder}/out.nnv"
            )
        launch(
            f"filesrc location={folder}/out.nnv ! nnvparse ! nnvdec ! videoconvert "
            f"! video/x-raw,format=I420 ! y4menc ! filesink location={folder}/out.y4m"
        )
        shown = frames_of(folder / "out.y4m")
        assert len(shown) == len(original), f"{len(shown)} of {len(original)} frames"
        rate = 8 * (folder / "out.nnv").stat().st_size * fps / len(shown) / 1000
        each = [psnr(a, b) for a, b in zip(original, shown)]
        second = max(int(round(fps)), 1)
        seconds = [np.mean(each[i : i + second]) for i in range(0, len(each), second)]
        print(
            f"{Path(clip).stem:40} {name:10} {rate:8.1f} of {kbits} kbit/s "
            f"({100 * (rate / kbits - 1):+.2f} %)  Y-PSNR {np.mean(each):.2f} dB, "
            f"worst second {min(seconds):.2f}, between frames ±{np.std(each):.2f}",
            flush=True,
        )


def main():
    kbits, clips = float(sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        for clip in clips:
            measure(clip, int(kbits), Path(folder))


if __name__ == "__main__":
    main()

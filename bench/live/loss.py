#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Live video over a link that loses packets: what a viewer sees, by way of sending.

Runs `nnv bench loss` (virtual time: coding takes none) on three clips of $NNV_SHARED and prints its
lines. Needs ffmpeg, and the program nnv: cargo build --release -p nnv-tools
"""

import argparse
import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLIPS = ["carphone.mp4", "vid4_foliage.mkv", "talking_head.mp4"]
# Loss in per cent, round trip and jitter buffer in ms, ways.
LINKS = [(2, 40, 200, "rtx"), (5, 40, 200, "blind,key,ltr")]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nnv", default=str(ROOT / "target/release/nnv"))
    parser.add_argument("--ffmpeg", default="ffmpeg")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--width", type=int, default=176)
    parser.add_argument("--seeds", default="1,2")
    options = parser.parse_args()
    shared = os.environ.get("NNV_SHARED")
    if not shared:
        parser.error("set NNV_SHARED to the folder with data/test/video")
    with tempfile.TemporaryDirectory() as folder:
        for clip in CLIPS:
            source = pathlib.Path(shared) / "data/test/video" / clip
            raw = pathlib.Path(folder) / "clip.y4m"
            scale = f"scale={options.width}:-2"
            convert = ["-v", "error", "-y", "-i", source, "-frames:v", "96", "-vf", scale]
            subprocess.run(
                [options.ffmpeg, *convert, "-pix_fmt", "yuv420p", raw], check=True
            )
            for loss, rtt, latency, ways in LINKS:
                for seed in options.seeds.split(","):
                    print(f"\n{clip}, seed {seed}", flush=True)
                    command = [options.nnv, "bench", "loss", raw, "--loss", loss, "--rtt", rtt]
                    command += ["--latency", latency, "--ways", ways, "--seed", seed]
                    command += ["--frames", options.frames]
                    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main()

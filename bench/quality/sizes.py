#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""What `nnv encode --sizes` saves at one quality.

    bench/quality/sizes.py CLIP... [--codecs x264] [--targets vmaf=70,vmaf=80] [--frames 48]

Each clip is coded to each target at full size and with --sizes. Both are measured on pictures of
the full size, as `nnv encode` does: what is smaller is decoded and enlarged first.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def encode(args, clip, codec, target, folder, *more):
    out, report = folder / "out.mp4", folder / "report.json"
    done = subprocess.run(
        [args.nnv, "encode", clip, out, "--codec", codec, "--target", target, "--jobs", args.jobs,
         "--frames", str(args.frames), "--json", report, *more],
        capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{clip}: {done.stderr.strip()}")
    return json.loads(report.read_text())


def what(candidate):
    """A size that was a candidate, in a word."""
    if candidate["bytes"] is not None:
        return str(candidate["bytes"])
    if candidate["in_reach"]:
        return "alone"
    return "out of reach" if candidate["scaled"] is None else f"scaled {candidate['scaled']:.1f}"


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("clips", nargs="+", metavar="CLIP")
    p.add_argument("--codecs", default="x264")
    p.add_argument("--targets", default="vmaf=70,vmaf=80")
    p.add_argument("--frames", type=int, default=48)
    p.add_argument("--jobs", default="1")
    p.add_argument("--nnv", default=str(ROOT / "target/release/nnv"))
    args = p.parse_args()
    print("| codec | clip | target | full size: score | bytes | foreseen: 1 | 3/4 | 1/2 | chosen |"
          " score | bytes | of full size | time s | of full size |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    shares = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for codec in args.codecs.split(","):
            for clip in args.clips:
                for target in args.targets.split(","):
                    full = encode(args, clip, codec, target, folder)
                    sized = encode(args, clip, codec, target, folder, "--sizes")
                    share = sized["video_bytes"] / full["video_bytes"]
                    shares.setdefault((codec, target), []).append(share)
                    seen = {c["size"]: what(c) for c in sized["sizes"]}
                    foreseen = " | ".join(seen.get(s, "") for s in ("1", "3/4", "1/2"))
                    print(f"| {codec} | {Path(clip).stem} | {target} | {full['score']:.2f} | "
                          f"{full['video_bytes']} | {foreseen} | {sized['size']} | "
                          f"{sized['score']:.2f} | {sized['video_bytes']} | {share:.3f} | "
                          f"{sized['seconds']:.1f} | {sized['seconds'] / full['seconds']:.1f} |",
                          flush=True)
    print("\n| codec | target | bytes of full size, geometric mean |\n|---|---:|---:|")
    for (codec, target), each in shares.items():
        print(f"| {codec} | {target} | {statistics.geometric_mean(each):.3f} |")


if __name__ == "__main__":
    main()

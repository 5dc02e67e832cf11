#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""How well `rate-control=quality` meets its target, and what it costs.

    bench/quality/run.py CLIP.y4m... [--frames 33] [--targets 32,35,38,41,44]

Each clip is coded at constant quantizers, then at each target that lies between what the first and
the last of them gave. Every stream is decoded and compared with its clip (`nnv compare`): means of
the frames' PSNR weighted (6 Y + U + V) / 8 by errors. A target's bits are set against those of
constant quantizers at the mean that it reached, interpolated (logarithm of the bits over dB).
"""

import argparse
import csv
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Coder:
    def __init__(self, args):
        self.args, self.folder = args, tempfile.TemporaryDirectory()

    def code(self, clip, *options):
        """(mean dB, bytes)."""
        a, stream = self.args, str(Path(self.folder.name) / "a.nnv")
        table = str(Path(self.folder.name) / "a.csv")
        run(a.nnv, "bench", "codec", clip, "--frames", str(a.frames), "--bframes",
            str(a.bframes), "--threads", "1", "--no-decode", "--write", stream,
            *options)
        run(a.nnv, "compare", clip, stream, "--metrics", "psnr", "--csv", table, "--frames",
            str(a.frames))
        with open(table, newline="") as file:
            db = [min(70.0, float(row["psnr_weighted_error"])) for row in csv.DictReader(file)]
        return statistics.mean(db), os.path.getsize(stream)


def bits_at(points, db):
    """Bytes of a constant quantizer at a mean, `points`: (dB, bytes), interpolated."""
    points = sorted(points)
    for (d0, b0), (d1, b1) in zip(points, points[1:]):
        if d0 <= db <= d1 and d1 > d0:
            t = (db - d0) / (d1 - d0)
            return math.exp((1 - t) * math.log(b0) + t * math.log(b1))
    return None


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("clips", nargs="+", metavar="CLIP.y4m")
    p.add_argument("--frames", type=int, default=33)
    p.add_argument("--bframes", type=int, default=0)
    p.add_argument("--targets", default="32,35,38,41,44")
    p.add_argument("--quantizers", default="12,20,28,36,44,52")
    p.add_argument("--nnv", default=str(ROOT / "target/release/nnv"))
    args = p.parse_args()
    coder = Coder(args)
    errors, costs = [], []
    print("| clip | target | reached | error dB | bits against constant quantizer |")
    print("|---|---:|---:|---:|---:|")
    for clip in args.clips:
        quantizers = args.quantizers.split(",")
        constant = [coder.code(clip, "--q", q) for q in quantizers]
        low, high = min(constant)[0], max(constant)[0]
        for target in map(float, args.targets.split(",")):
            if not low < target < high:
                continue
            db, size = coder.code(clip, "--target-quality", str(target))
            errors.append(abs(db - target))
            same = bits_at(constant, db)
            cost = None if same is None else 100 * (size / same - 1)
            if cost is not None:
                costs.append(cost)
            shown = "beyond" if cost is None else f"{cost:+.1f} %"
            print(f"| {Path(clip).stem} | {target:g} | {db:.2f} | {db - target:+.2f} | {shown} |",
                  flush=True)
    if errors:
        print(f"\n{len(errors)} streams: mean absolute error {statistics.mean(errors):.3f} dB, "
              f"worst {max(errors):.2f} dB; bits {statistics.mean(costs):+.2f} % in the mean")


if __name__ == "__main__":
    main()

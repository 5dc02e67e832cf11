#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""How well `rate-control=quality` meets its target, and what it costs.

    bench/quality/run.py CLIP.y4m... [--frames 33] [--metric psnr] [--targets 32,35,38,41,44]

Each clip is coded at constant quantizers, then at each target that lies between what the first and
the last of them gave. Every stream is decoded and compared with its clip (`nnv compare`): means of
the frames' PSNR weighted (6 Y + U + V) / 8 by errors, or of their VMAF. A target's bits are set
against those of constant quantizers at the mean that it reached, interpolated (logarithm of the
bits over dB; of VMAF, over the decibels of what 100 is missed by). Time is the share of encoding
that the measure takes.
"""

import argparse
import csv
import math
import os
import re
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


# Columns of `nnv compare`, their greatest value, usual targets.
METRICS = {
    "psnr": ("psnr_weighted_error", 70.0, "32,35,38,41,44"),
    "vmaf": ("vmaf", 100.0, "75,80,85,90,95"),
}


class Coder:
    def __init__(self, args):
        self.args, self.folder = args, tempfile.TemporaryDirectory()

    def code(self, clip, *options):
        """(mean of the measure, bytes, share of the time that measuring takes)."""
        a, stream = self.args, str(Path(self.folder.name) / "a.nnv")
        table = str(Path(self.folder.name) / "a.csv")
        told = run(a.nnv, "bench", "codec", clip, "--frames", str(a.frames), "--bframes",
                   str(a.bframes), "--threads", "1", "--no-decode", "--write", stream, "--speed",
                   a.speed, *options)
        run(a.nnv, "compare", clip, stream, "--metrics", a.metric, "--csv", table, "--frames",
            str(a.frames))
        column, greatest, _ = METRICS[a.metric]
        with open(table, newline="") as file:
            values = [min(greatest, float(row[column])) for row in csv.DictReader(file)]
        times = re.search(r"([\d.]+) ms per frame.*measure ([\d.]+)", told)
        whole, part = map(float, times.groups())
        return statistics.mean(values), os.path.getsize(stream), part / whole


def bits_at(points, value, metric):
    """Bytes of a constant quantizer at a mean, `points`: (mean, bytes), interpolated."""
    def level(v):
        return v if metric == "psnr" else -10 * math.log10(max(1e-3, 1 - v / 100))
    points, db = sorted((level(v), size) for v, size, _ in points), level(value)
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
    p.add_argument("--metric", choices=METRICS, default="psnr")
    p.add_argument("--targets", help="by default those that are usual for the measure")
    p.add_argument("--speed", default="medium")
    p.add_argument("--quantizers", default="12,20,28,36,44,52")
    p.add_argument("--nnv", default=str(ROOT / "target/release/nnv"))
    args = p.parse_args()
    coder = Coder(args)
    errors, costs, shares = [], [], []
    print("| clip | target | reached | error | bits against constant quantizer | time |")
    print("|---|---:|---:|---:|---:|---:|")
    for clip in args.clips:
        quantizers = args.quantizers.split(",")
        constant = [coder.code(clip, "--q", q) for q in quantizers]
        low, high = min(constant)[0], max(constant)[0]
        for target in map(float, (args.targets or METRICS[args.metric][2]).split(",")):
            if not low < target < high:
                continue
            value, size, share = coder.code(clip, "--target-quality", str(target),
                                            "--quality-metric", args.metric)
            errors.append(abs(value - target))
            shares.append(share)
            same = bits_at(constant, value, args.metric)
            cost = None if same is None else 100 * (size / same - 1)
            if cost is not None:
                costs.append(cost)
            shown = "beyond" if cost is None else f"{cost:+.1f} %"
            print(f"| {Path(clip).stem} | {target:g} | {value:.2f} | {value - target:+.2f} | "
                  f"{shown} | {share:.1%} |", flush=True)
    if errors:
        print(f"\n{len(errors)} streams: mean absolute error {statistics.mean(errors):.3f}, "
              f"worst {max(errors):.2f}; bits {statistics.mean(costs):+.2f} %, measuring "
              f"{statistics.mean(shares):.1%} of the time, in the mean")


if __name__ == "__main__":
    main()

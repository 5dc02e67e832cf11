#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""How well `nnv encode` meets its target, and what it costs beside the way of probes.

    bench/quality/encode.py CLIP... [--codecs x264,x265] [--targets 88,93,96] [--frames 96]

Each clip is coded to each target with `nnv encode --compare`. The outputs are measured once more as
a whole, by ffmpeg's libvmaf (the program that NNV_FFMPEG names) beside the source as ffmpeg reads
it. Errors are of that; times and bytes are what `nnv encode` says.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FFMPEG = os.environ.get("NNV_FFMPEG", "ffmpeg")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done


def clip_of(source, frames, folder):
    """The first frames of a clip as YUV4MPEG2, so that all read the same pictures."""
    out = folder / f"{Path(source).stem}.y4m"
    if not out.exists():
        run(FFMPEG, "-v", "error", "-i", source, "-frames:v", str(frames), "-pix_fmt", "yuv420p",
            "-strict", "-1", "-y", out)
    return out


def vmaf(output, clip, folder):
    """Mean over the frames of an output that ffmpeg reads, and their number."""
    log = folder / "vmaf.json"
    run(FFMPEG, "-v", "error", "-i", output, "-i", clip, "-lavfi",
        "[0:v]settb=1/25,setpts=N[a];[1:v]settb=1/25,setpts=N[b];"
        f"[a][b]libvmaf=log_fmt=json:log_path={log}",
        "-f", "null", "-")
    report = json.loads(log.read_text())
    return report["pooled_metrics"]["vmaf"]["mean"], len(report["frames"])


def reached_by(report, codings):
    """Mean over the frames, had no shot been coded more than so many times."""
    def best(shot):
        tries = [shot["predicted"], *shot["corrected"]][:codings]
        return min((t["score"] for t in tries), key=lambda v: abs(v - report["target"]))
    return sum(best(s) * s["frames"] for s in report["shots"]) / report["frames"]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("clips", nargs="+", metavar="CLIP")
    p.add_argument("--codecs", default="x264,x265")
    p.add_argument("--targets", default="88,93,96")
    p.add_argument("--frames", type=int, default=96)
    p.add_argument("--jobs", default="1")
    p.add_argument("--model", default="rdo", help="bundle: a name or a folder")
    p.add_argument("--nnv", default=str(ROOT / "target/release/nnv"))
    args = p.parse_args()
    print("| codec | clip | VMAF wanted | reached | first try | second | by probes | time s |"
          " by probes | bytes | by probes |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    sums = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for codec in args.codecs.split(","):
            for source in args.clips:
                clip = clip_of(source, args.frames, folder)
                for target in map(float, args.targets.split(",")):
                    out, report = folder / "out.mp4", folder / "report.json"
                    run(args.nnv, "encode", clip, out, "--codec", codec, "--target",
                        f"vmaf={target:g}", "--jobs", args.jobs, "--model", args.model,
                        "--json", report, "--compare")
                    r = json.loads(report.read_text())
                    reached, frames = r["score"], r["frames"]
                    if codec != "nnv":
                        reached, frames = vmaf(out, clip, folder)
                    if frames != r["frames"]:
                        sys.exit(f"{source}: {frames} of {r['frames']} frames are in the output")
                    first, second = reached_by(r, 1), reached_by(r, 2)
                    probing = r["probing"]
                    print(f"| {codec} | {Path(source).stem} | {target:g} | {reached:.2f} | "
                          f"{first:.2f} | {second:.2f} | {probing['score']:.2f} | "
                          f"{r['seconds']:.1f} | {probing['seconds']:.1f} | "
                          f"{r['video_bytes']} | {probing['bytes']} |",
                          flush=True)
                    sums.setdefault((codec, target), []).append(
                        (abs(reached - target), abs(first - target),
                         abs(second - target), abs(probing["score"] - target), r["seconds"],
                         probing["seconds"], r["video_bytes"], probing["bytes"],
                         r["coded_twice"] / len(r["shots"]),
                         r["coded_thrice"] / len(r["shots"])))
    print("\n| codec | VMAF wanted | mean absolute error | worst | of the first try |"
          " of the second | its worst | by probes | coded twice | three times |"
          " time, of the probes' | bytes, of the probes' |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for (codec, target), rows in sums.items():
        error, first, second, probes, s, ps, b, pb, twice, thrice = zip(*rows)
        bits = statistics.geometric_mean(x / y for x, y in zip(b, pb))
        print(f"| {codec} | {target:g} | {statistics.mean(error):.2f} | {max(error):.2f} | "
              f"{statistics.mean(first):.2f} | {statistics.mean(second):.2f} | "
              f"{max(second):.2f} | {statistics.mean(probes):.2f} | "
              f"{100 * statistics.mean(twice):.0f} % | {100 * statistics.mean(thrice):.0f} % | "
              f"{sum(s) / sum(ps):.2f} | {bits:.3f} |")


if __name__ == "__main__":
    main()

"""Command line of the benchmark; see bench/rd/README.md."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from . import metrics, vmaf
from .clips import REPO, Clip, RawClip, find_clips, own_clips, prepare
from .codecs import (
    CODECS,
    STILL_DEFAULT,
    VIDEO_DEFAULT,
    WHOLE_CLIP,
    Codec,
    Models,
    code,
    interval_of,
    load_models,
    version_of,
)
from .store import Row, Store

RESULTS = REPO / "bench/rd/results"
FRAMES, QUICK_FRAMES = 96, 33


def arguments() -> argparse.Namespace:
    more = ",".join(c for c in CODECS if c not in VIDEO_DEFAULT)
    p = argparse.ArgumentParser(prog="bench/rd/run.sh", description="Rate-distortion benchmark.")
    p.add_argument("clips", nargs="*", help="your own clips or pictures; default: a set")
    p.add_argument("--dataset", default="video", metavar="SET",
                   choices=["video", "kodak", "set5", "set14", "bsd100"],
                   help="video (default: the development clips), or pictures, each coded as one "
                   "key frame: kodak, set5, set14, bsd100")
    p.add_argument("--quick", action="store_true", help=f"4 clips, 4 rates, {QUICK_FRAMES} frames")
    p.add_argument("--codecs", help=f"comma-separated; default {','.join(VIDEO_DEFAULT)}; "
                   f"also: {more}")
    p.add_argument("--anchors", action="store_true", help="only the codecs that are not NNV")
    p.add_argument("--only-nnv", action="store_true",
                   help="only NNV; anchors are taken from the results there are")
    p.add_argument("--frames", type=int, help=f"frames per clip (default {FRAMES})")
    p.add_argument("--key-interval", default="whole",
                   help="frames between key frames, or `whole` (default): the clip has one")
    p.add_argument("--points", help="comma-separated quantizers for the NNV codecs")
    p.add_argument("--model-path", help="bundle folder for NNV (default: the shipped one)")
    p.add_argument("--plugin", help="folder with a built plugin; default: build this source")
    p.add_argument("--threads", type=int, default=1,
                   help="threads of each codec (default 1, which pins all to one processor)")
    p.add_argument("--repeat", type=int, default=1,
                   help="code each point so many times, the median CPU time counts (default 1)")
    p.add_argument("--fresh", action="store_true",
                   help="measure again what NNV results exist (after a change not committed)")
    p.add_argument("--vmaf", action="store_true",
                   help="VMAF and XPSNR too; points that lack them are measured again")
    p.add_argument("--report", action="store_true",
                   help="measure nothing; only print the tables, write the page and the plots")
    p.add_argument("--no-docs", action="store_true", help="print only; write no page, no plots")
    p.add_argument("--page", type=Path, default=REPO / "docs/results.md",
                   help="page whose section is written (default docs/results.md)")
    p.add_argument("--pictures", metavar="FOLDER",
                   help="write PNGs original | NNV | x264 medium at the same rate, and stop")
    p.add_argument("--picture-quantizer", type=int, default=40,
                   help="quantizer of NNV for --pictures (default 40)")
    p.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files")
    p.add_argument("--cache", type=Path, default=REPO / "out/rd/cache",
                   help="folder for raw copies of the clips")
    a = p.parse_args()
    if a.anchors and a.only_nnv:
        p.error("--anchors and --only-nnv leave nothing to do")
    if a.key_interval != "whole" and not (a.key_interval.isdigit() and int(a.key_interval) > 1):
        p.error("--key-interval takes `whole` or a number of at least 2")
    a.key = WHOLE_CLIP if a.key_interval == "whole" else int(a.key_interval)
    a.nframes = a.frames or (QUICK_FRAMES if a.quick else FRAMES)
    return a


def chosen_codecs(a: argparse.Namespace, still: bool) -> list[Codec]:
    names = a.codecs.split(",") if a.codecs else list(STILL_DEFAULT if still else VIDEO_DEFAULT)
    unknown = [n for n in names if n not in CODECS]
    if unknown:
        raise SystemExit(f"bench/rd: unknown codec {', '.join(unknown)}; "
                         f"there are {', '.join(CODECS)}")  # fmt: skip
    codecs = [CODECS[n] for n in names]
    if a.anchors:
        codecs = [c for c in codecs if c.kind != "nnv"]
    if a.only_nnv:
        codecs = [c for c in codecs if c.kind == "nnv"]
    return codecs


def points_of(codec: Codec, a: argparse.Namespace) -> tuple[int, ...]:
    if codec.kind == "nnv" and a.points:
        return tuple(int(p) for p in a.points.split(","))
    return codec.quick_points if a.quick else codec.points


class Progress:
    """One line on a terminal, one line per point elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.begin = total, 0, time.monotonic()
        self.tty = sys.stderr.isatty()

    def show(self, text: str, finished: bool) -> None:
        self.done += finished
        share = self.done / max(self.total, 1)
        left = ""
        if self.done:
            seconds = (time.monotonic() - self.begin) * (self.total - self.done) / self.done
            left = f"{int(seconds // 60)}:{int(seconds % 60):02d} left"
        bar = "#" * int(share * 24)
        line = f"[{bar:<24}] {self.done}/{self.total} {left:>11}  {text}"
        if self.tty:
            sys.stderr.write(f"\r\x1b[K{line[:150]}")
        elif finished:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self.tty:
            sys.stderr.write("\n")


def machine() -> str:
    """The processor, and the widest instructions it has: NNV's int8 speed hangs on them."""
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*: (.*)", facts)
    kinds = ("avx512_vnni", "avx512f", "avx_vnni", "avx2")
    widest = next((k for k in kinds if re.search(rf"\b{k}\b", facts)), "")
    return " ".join(filter(None, (found[1] if found else platform.machine(), widest)))


def measure(
    codec: Codec, clip: RawClip, point: int, a: argparse.Namespace, models: Models, version: str
) -> Row:
    interval = interval_of(a.key, clip.frames)
    with tempfile.TemporaryDirectory(prefix="nnvrd.") as folder:
        work = Path(folder)
        runs = [code(codec, clip, point, interval, a.threads, models, work)
                for _ in range(a.repeat)]  # fmt: skip
        coded = runs[-1]
        quality = metrics.compare(clip.yuv, coded.decoded, clip.width, clip.height, clip.frames)
        seen = vmaf.scores(clip, coded.decoded, work) if a.vmaf else (None, None)
        size = coded.stream.stat().st_size
        seconds = float(clip.frames / clip.fps)
        return Row(
            clip=clip.name, codec=codec.id, point=point, frames=clip.frames,
            config=codec.config(interval), version=version,
            model=models[codec.bundle].hash if codec.kind == "nnv" else "",
            width=clip.width, height=clip.height, fps=float(clip.fps), bytes=size,
            kbps=size * 8 / seconds / 1000,
            bpp=size * 8 / (clip.frames * clip.width * clip.height),
            psnr_y=quality.psnr_y, psnr_u=quality.psnr_u, psnr_v=quality.psnr_v,
            psnr_yuv=quality.psnr_yuv, ssim=quality.ssim, msssim=quality.msssim,
            vmaf=seen[0], xpsnr=seen[1],
            encode_cpu_s=median(r.encode_s for r in runs),
            decode_cpu_s=median(r.decode_s for r in runs),
            threads=a.threads, load=os.getloadavg()[0], machine=machine(),
        )  # fmt: skip


def measure_all(
    a: argparse.Namespace, clips: list[Clip], codecs: list[Codec], store: Store, models: Models,
    versions: dict[str, str],
) -> int:  # fmt: skip
    """Every point that the store lacks, clip by clip, so that times beside each other were taken
    one after the other; returns how many failed."""
    failures = 0
    progress = Progress(len(clips) * sum(len(points_of(codec, a)) for codec in codecs))
    for clip in clips:
        progress.show(f"{clip.name}: raw frames", False)
        ready = prepare(clip, a.nframes, a.cache)
        for codec in codecs:
            nnv, version = codec.kind == "nnv", versions[codec.id]
            config = codec.config(interval_of(a.key, ready.frames))
            bundle = models[codec.bundle].hash if nnv else ""
            for point in points_of(codec, a):
                name = f"{clip.name} {codec.id} {point}"
                key = (clip.name, codec.id, point, ready.frames, config, bundle)
                known = store.find(key, version)
                if known and not (a.fresh and nnv) and not (a.vmaf and known.vmaf is None):
                    progress.show(f"{name}: there already", True)
                    continue
                progress.show(name, False)
                try:
                    row = measure(codec, ready, point, a, models, version)
                except (RuntimeError, ValueError) as error:
                    failures += 1
                    progress.show(f"{name}: FAILED", True)
                    print(f"\nbench/rd: {name}: {error}", file=sys.stderr)
                    continue
                store.add(row)
                progress.show(f"{name}: {row.bpp:.4f} bpp {row.psnr_yuv:.2f} dB", True)
    progress.end()
    store.compact()
    return failures


def run(a: argparse.Namespace, clips: list[Clip]) -> int:
    store = Store(a.results)
    codecs = chosen_codecs(a, all(c.still for c in clips))
    models = load_models(a.model_path, {c.bundle for c in codecs if c.kind == "nnv"})
    # Of codecs whose rows are only shown, the anchors' version is fixed by the ffmpeg there is;
    # NNV's may be any, so long as a curve has one.
    shown = [c for c in CODECS.values() if c.kind != "nnv"]
    versions = {c.id: version_of(c) for c in (shown if a.report else {*shown, *codecs})}
    failures = 0 if a.report else measure_all(a, clips, codecs, store, models, versions)
    from . import report

    report.publish(a, clips, store, models, versions)
    if failures:
        print(f"bench/rd: {failures} points FAILED; the same command again tries only those.",
              file=sys.stderr)  # fmt: skip
    return 1 if failures else 0


def main() -> int:
    a = arguments()
    if a.threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    clips = own_clips(a.clips) if a.clips else find_clips(a.dataset, a.quick)
    if a.pictures:
        from . import pictures

        return pictures.write(a, clips, load_models(a.model_path, {"realtime"}))
    return run(a, clips)


if __name__ == "__main__":
    sys.exit(main())

"""Command line of the benchmark; see bench/rd/README.md."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from . import metrics, vmaf
from .clips import REPO, Clip, RawClip, find_clips, own_clips, prepare
from .codecs import (CODECS, STILL_DEFAULT, VIDEO_DEFAULT, WHOLE_CLIP, Codec, Models, code, interval_of, load_models, source_revision,
                     tool_version)  # fmt: skip
from .store import Row, Store

RESULTS = REPO / "bench/rd/results"
FRAMES, QUICK_FRAMES = 96, 33


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="bench/rd/run.sh", description="Rate-distortion benchmark of NNV.")
    p.add_argument("clips", nargs="*", help="your own clips or pictures; default: the development set")
    p.add_argument("--dataset", default="video", choices=["video", "kodak", "set5", "set14", "bsd100"],
                   help="development set to use: the clips (default), or pictures, each coded as one key frame")
    p.add_argument("--quick", action="store_true", help=f"4 clips, 4 rates, {QUICK_FRAMES} frames")
    p.add_argument("--codecs", help="comma-separated; default all of: " + ",".join(VIDEO_DEFAULT) + "; also: "
                   + ",".join(c for c in CODECS if c not in VIDEO_DEFAULT))
    p.add_argument("--anchors", action="store_true", help="only the codecs that are not NNV")
    p.add_argument("--only-nnv", action="store_true", help="only NNV; anchors are taken from the results there are")
    p.add_argument("--frames", type=int, help=f"frames per clip (default {FRAMES})")
    p.add_argument("--key-interval", default="whole", help="frames between key frames, or `whole` (default): the clip has one")
    p.add_argument("--points", help="comma-separated quantizers for the NNV codecs")
    p.add_argument("--model-path", help="bundle folder for NNV (default: the shipped one)")
    p.add_argument("--threads", type=int, default=1, help="threads of each codec (default 1)")
    p.add_argument("--fresh", action="store_true", help="measure again what NNV results exist (after a change of the encoder)")
    p.add_argument("--vmaf", action="store_true", help="VMAF too, which takes its time; points that lack it are measured again")
    p.add_argument("--report", action="store_true", help="measure nothing; only print tables and write the plots and docs/results.md")
    p.add_argument("--no-docs", action="store_true", help="leave docs/ alone; print only")
    p.add_argument("--pictures", metavar="FOLDER", help="write PNGs original | NNV | x264 medium at the same rate, and stop")
    p.add_argument("--picture-quantizer", type=int, default=40, help="quantizer of NNV for --pictures (default 40)")
    p.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files")
    p.add_argument("--cache", type=Path, default=REPO / "out/rd/cache", help="folder for raw copies of the clips")
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
        raise SystemExit(f"bench/rd: unknown codec {', '.join(unknown)}; there are {', '.join(CODECS)}")
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


def measure(codec: Codec, clip: RawClip, point: int, a: argparse.Namespace, models: Models) -> Row:
    interval = interval_of(a.key, clip.frames)
    with tempfile.TemporaryDirectory(prefix="nnvrd.") as folder:
        work = Path(folder)
        coded = code(codec, clip, point, interval, a.threads, models, work)
        quality = metrics.compare(clip.yuv, coded.decoded, clip.width, clip.height, clip.frames)
        size = coded.stream.stat().st_size
        seconds = float(clip.frames / clip.fps)
        return Row(
            clip=clip.name, codec=codec.id, point=point, frames=clip.frames, config=codec.config(interval),
            model=models[codec.bundle].hash if codec.kind == "nnv" else "", version=tool_version(codec), width=clip.width,
            height=clip.height, fps=float(clip.fps), bytes=size, kbps=size * 8 / seconds / 1000,
            bpp=size * 8 / (clip.frames * clip.width * clip.height), psnr_y=quality.psnr_y, psnr_u=quality.psnr_u,
            psnr_v=quality.psnr_v, psnr_yuv=quality.psnr_yuv, ssim=quality.ssim, msssim=quality.msssim,
            vmaf=vmaf.measure(clip, coded.decoded, work) if a.vmaf else None, encode_s=coded.encode_s, decode_s=coded.decode_s,
            threads=a.threads, load=os.getloadavg()[0],
        )  # fmt: skip


def run(a: argparse.Namespace, clips: list[Clip]) -> int:
    store = Store(a.results)
    still = all(c.still for c in clips)
    codecs = chosen_codecs(a, still)
    models = load_models(a.model_path, {c.bundle for c in codecs if c.kind == "nnv"})
    failures = 0
    if not a.report:
        if a.vmaf and not vmaf.program():
            raise SystemExit("bench/rd: --vmaf: neither this ffmpeg nor the package imageio-ffmpeg has the filter libvmaf")
        jobs = [(codec, clip, point) for codec in codecs for clip in clips for point in points_of(codec, a)]
        progress = Progress(len(jobs))
        raw: dict[str, RawClip] = {}
        fresh_done: set[tuple] = set()
        revisions: set[str] = set()
        for codec, clip, point in jobs:
            if clip.name not in raw:
                progress.show(f"{clip.name}: raw frames", False)
                raw[clip.name] = prepare(clip, a.nframes, a.cache)
            ready = raw[clip.name]
            nnv = codec.kind == "nnv"
            config = codec.config(interval_of(a.key, ready.frames))
            key = (clip.name, codec.id, point, ready.frames, config, models[codec.bundle].hash if nnv else "")
            known = store.rows.get(key)
            if known and a.vmaf and known.vmaf is None:
                known = None
            if known and not (a.fresh and nnv and key not in fresh_done):
                if nnv:
                    revisions.add(known.version)
                progress.show(f"{clip.name} {codec.id} {point}: there already", True)
                continue
            progress.show(f"{clip.name} {codec.id} {point}", False)
            try:
                row = measure(codec, ready, point, a, models)
            except (RuntimeError, ValueError) as error:
                failures += 1
                progress.show(f"{clip.name} {codec.id} {point}: FAILED", True)
                print(f"\nbench/rd: {clip.name}, {codec.id}, point {point}: {error}", file=sys.stderr)
                continue
            store.add(row)
            fresh_done.add(key)
            progress.show(f"{clip.name} {codec.id} {point}: {row.bpp:.4f} bpp {row.psnr_yuv:.2f} dB", True)
        progress.end()
        stale = revisions - {source_revision()}
        if stale:
            print(f"bench/rd: some NNV rows were measured at {', '.join(sorted(stale))}, the source is at {source_revision()} "
                  "now; --fresh measures them again.", file=sys.stderr)  # fmt: skip
        store.compact()
    from . import report

    report.publish(a, clips, store, models)
    if failures:
        print(f"bench/rd: {failures} points FAILED; run the same command again to try only those.", file=sys.stderr)
    return 1 if failures else 0


def main() -> int:
    a = arguments()
    clips = own_clips(a.clips) if a.clips else find_clips(a.dataset, a.quick)
    if a.pictures:
        from . import pictures

        return pictures.write(a, clips, load_models(a.model_path, {"realtime"}))
    return run(a, clips)


if __name__ == "__main__":
    sys.exit(main())

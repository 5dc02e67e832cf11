"""Pictures to look at: original, NNV, and x264 medium at the same rate, side by side."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from . import png
from .clips import Clip, RawClip, prepare
from .codecs import CODECS, Coded, Models, code
from .metrics import read_frame


def _frame_rgb(path: Path, clip: RawClip, index: int) -> np.ndarray:
    data = np.memmap(path, dtype=np.uint8, mode="r")
    return png.i420_to_rgb(*read_frame(data, index, clip.width, clip.height))


def _match(
    codec: str, clip: RawClip, size: int, a: argparse.Namespace, work: Path
) -> tuple[int, Coded]:
    """The CRF whose file is nearest to `size` bytes; rate falls with CRF, so bisection over 0..51
    finds it.
    """
    best: tuple[float, int] | None = None
    lo, hi = 0, 51
    while lo <= hi:
        crf = (lo + hi) // 2
        coded = code(CODECS[codec], clip, crf, a.key, a.threads, {}, work)
        got = coded.stream.stat().st_size
        gap = abs(got / size - 1)
        if best is None or gap < best[0]:
            best = (gap, crf)
        if got > size:
            lo = crf + 1
        else:
            hi = crf - 1
    assert best is not None
    return best[1], code(CODECS[codec], clip, best[1], a.key, a.threads, {}, work)


def write(a: argparse.Namespace, clips: list[Clip], models: Models) -> int:
    folder = Path(a.pictures)
    for clip in clips:
        ready = prepare(clip, a.nframes, a.cache)
        ours, theirs = ("nnv-key", "x264-intra") if clip.still else ("nnv-b7", "x264-medium")
        with tempfile.TemporaryDirectory(prefix="nnvrd.") as text:
            work = Path(text)
            (work / "nnv").mkdir()
            (work / "x264").mkdir()
            coded = code(
                CODECS[ours], ready, a.picture_quantizer, a.key, a.threads, models, work / "nnv"
            )
            size = coded.stream.stat().st_size
            crf, anchor = _match(theirs, ready, size, a, work / "x264")
            index = ready.frames // 2
            images = [
                _frame_rgb(p, ready, index) for p in (ready.yuv, coded.decoded, anchor.decoded)
            ]
            gap = np.full((ready.height, 4, 3), 255, np.uint8)
            file = folder / f"{clip.name}.png"
            png.write_png(file, np.hstack([images[0], gap, images[1], gap, images[2]]))
            print(f"{file}: frame {index}; "
                  f"original | {ours} q{a.picture_quantizer}, {size} bytes | {theirs} crf {crf}, "
                  f"{anchor.stream.stat().st_size} bytes", file=sys.stderr)  # fmt: skip
    return 0

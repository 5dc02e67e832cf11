"""How coarsely video was quantized, as its bit rate tells: ``python -m nnvtrain sr-rate``.

From one decoded picture that cannot be told (docs/decisions/066-picture-does-not-tell.md), nor from
the bit rate: the same rate is plenty for a screen and little for a crowd. Both together tell it to
five or six steps. This program codes the training clips and fits their mean quantizers, linearly,
to what the decoded frames hold and the logarithm of bits per sample; clips of one group are asked
about what the others taught. Of other codecs it is the quantizer of x264 which would leave such a
PSNR. `crates/nnv-sr/src/rating.rs` has the result and sees the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from ..data import open_store
from ..synth import Synthesiser, screen_clip
from .data import psnr
from .pairs import CRF, PRESETS, SYNTHETIC_SIDE, TELLING, CodecFailed, middle, piped, quantizers_of

FRAMES = 33
SCREENS = 12  # drawn clips beside the real ones, each for two: they are the farthest from the rest
ROWS = 4  # one row of so many is looked at
# What stands beside zero in logarithms: bits per sample, code values.
NO_BITS, NO_DETAIL = 1e-3, 0.05
NAMES = ("one", "bits", "slope", "curvature", "change", "flat", "still")
CODECS = ("libx264", "libx265", "libsvtav1")
RIDGE = 1e-3
TOLD_MIDDLE = 25.5  # distances are counted from there
BEST = 52.0  # dB: beyond that it does not matter how good
STILL = (0, 2, 3, 5)  # of `row`, what a picture holds by itself
# The PSNR of x264's pictures is linear in that and in the mean quantizer; printed by this program.
EQUIVALENT = (58.9654, -1.5812, -0.0274, 1.9976), -0.6933


def look(luma: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Of u8 luma and that of the frame before, in one row of `ROWS`: mean size of differences
    between
    neighbours to the right and below, mean size of the Laplacian, mean size of the difference to
    the frame before, and how many samples have no Laplacian and no such difference.
    """
    rows = np.arange(1, luma.shape[0] - 1, ROWS)
    y, p = luma.astype(np.int32), before.astype(np.int32)
    here = y[rows, 1:-1]
    right, below = y[rows, 2:], y[rows + 1, 1:-1]
    laplacian = 4 * here - y[rows, :-2] - right - y[rows - 1, 1:-1] - below
    change = here - p[rows, 1:-1]
    slope = (np.abs(right - here) + np.abs(below - here)) / 2
    return np.array(
        [
            slope.mean(),
            np.abs(laplacian).mean(),
            np.abs(change).mean(),
            (laplacian == 0).mean(),
            (change == 0).mean(),
        ]
    )


def row(bits: float, seen: np.ndarray) -> list:
    """What quantizers are linear in, in the order of `NAMES`; `bits` per luma sample."""
    return [1.0, np.log2(bits + NO_BITS), *np.log2(seen[:3] + NO_DETAIL), *seen[3:]]


def measure(frames: list, codec: str, crf: int, preset: str) -> dict:
    """Of a clip of frames (y, u, v): `x` (`row`) and `y` (PSNR in dB), and for x264 the mean
    `quantizers` of the blocks of its frames and those of their `slices`.
    """
    h, w = frames[0][0].shape
    raw = b"".join(np.ascontiguousarray(p).tobytes() for f in frames for p in f)
    quiet = {
        "libx264": ["-threads", "1"],
        "libx265": ["-x265-params", "log-level=error:pools=none:frame-threads=1"],
        "libsvtav1": ["-svtav1-params", "lp=1"],
    }[codec]
    with tempfile.TemporaryDirectory() as folder:
        coded = Path(folder) / "clip.mkv"
        piped(
            [
                "ffmpeg",
                "-v",
                "error",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "yuv420p",
                "-s",
                f"{w}x{h}",
                "-r",
                "25",
                "-i",
                "-",
                "-c:v",
                codec,
                "-preset",
                preset,
                "-crf",
                str(crf),
                *quiet,
                str(coded),
            ],
            raw,
        )
        bits = 8 * coded.stat().st_size / (len(frames) * h * w)
        flat = piped(
            [
                "ffmpeg",
                "-v",
                "error",
                "-threads",
                "1",
                "-i",
                str(coded),
                "-f",
                "rawvideo",
                "-pix_fmt",
                "yuv420p",
                "-",
            ]
        )
        told = quantizers_of(str(coded)) if codec == TELLING else []
    size = h * w * 3 // 2
    if len(flat) != size * len(frames) or told and len(told) != len(frames):
        raise CodecFailed(
            (
                f"{codec}: {len(flat)} bytes and {len(told)} quantizers came back, not those of "
                f"{len(frames)} frames"
            )
        )
    got = np.frombuffer(flat, np.uint8).reshape(len(frames), size)[:, : h * w].reshape(-1, h, w)
    seen = np.mean([look(b, a) for a, b in zip(got, got[1:])], 0)
    errors = [float(np.mean((y.astype(np.float32) - g) ** 2)) for (y, _, _), g in zip(frames, got)]
    # What a decoder sees of a block that cannot be read is its slice.
    blocks = [float(slice_ if b is None else b.mean()) for slice_, b in told]
    return dict(
        x=row(bits, seen),
        y=psnr(float(np.mean(errors))),
        slices=[s for s, _ in told],
        quantizers=blocks,
    )


def equivalent(luma: np.ndarray, before: float) -> float:
    """The mean quantizer with which x264 would leave a PSNR of `before` on such a picture. Wrong by
    three steps.
    """
    still = np.array(row(0, look(luma, luma)))[list(STILL)]
    return (min(before, BEST) - float(still @ EQUIVALENT[0])) / EQUIVALENT[1]


def fit(x, y, weights):
    """Least squares; all but the constant are drawn a little to zero."""
    root = np.sqrt(weights)[:, None]
    ridge = RIDGE * weights.sum() * np.diag([0.0] + [1.0] * (x.shape[1] - 1))
    return np.linalg.solve((x * root).T @ (x * root) + ridge, (x * weights[:, None]).T @ y)


def arguments(p):
    p.add_argument(
        "--data", default=os.environ.get("NNV_DATA"), help="folder of videos and pictures"
    )
    p.add_argument("--cache", default=os.environ.get("NNV_CACHE"), help="folder for decoded data")
    p.add_argument(
        "--out",
        required=True,
        help="JSON with what was measured: a run that was stopped goes on from it",
    )
    p.add_argument("--group", type=int, default=8, help="clips of a group at most")
    p.add_argument("--seed", type=int, default=0)


def run(args):
    store, path = open_store(args.data, args.cache), Path(args.out)
    rng, groups = np.random.default_rng(args.seed), {}
    for clip in store.videos():
        if clip["frames"] >= FRAMES:
            groups.setdefault(clip["group"], []).append(clip)
    screens = Synthesiser(store).screens
    work = [("screens", None)] * SCREENS + [
        (name, c) for name, clips in groups.items() for c in clips[:: -(-len(clips) // args.group)]
    ]
    rows = json.loads(path.read_text()) if path.exists() else []
    done = len({r["clip"] for r in rows})
    for number, (group, clip) in enumerate(work):
        planes = store.planes(clip) if clip else screen_clip(rng, screens, FRAMES, SYNTHETIC_SIDE)
        frames = [
            middle(tuple(np.asarray(p[t]).reshape(p.shape[-2:]) for p in planes), 8)
            for t in range(FRAMES)
        ]
        for codec in ("libx264", "libx264", "libx264", "libx265", "libsvtav1"):
            crf, preset = (
                int(rng.integers(CRF[codec][0] - 2, CRF[codec][1] + 1)),
                str(rng.choice(PRESETS[codec])),
            )
            if number < done:
                continue
            rows.append(
                dict(
                    clip=number,
                    group=group,
                    codec=codec,
                    crf=crf,
                    preset=preset,
                    **measure(frames, codec, crf, preset),
                )
            )
        path.write_text(json.dumps(rows))
        print(f"{number + 1} of {len(work)} clips", flush=True)
    report(rows)


def report(rows):
    """Prints both fits, and how well they do."""
    kinds = np.array([r["group"] for r in rows])
    # Screens were drawn, each by itself: only the clip is left out.
    groups = np.array(
        [g if g != "screens" else f"screens {r['clip']}" for g, r in zip(kinds, rows)]
    )
    weights = np.array([(kinds == k).sum() ** -0.5 * (2 if k == "screens" else 1) for k in kinds])
    x = np.array([[*r["x"], *(float(r["codec"] == c) for c in CODECS[1:])] for r in rows])
    y = np.minimum([r["y"] for r in rows], BEST)
    told = np.array([r["codec"] == TELLING for r in rows])
    mean = np.array([np.mean(r["quantizers"]) if t else 0.0 for r, t in zip(rows, told)])
    # For `EQUIVALENT`.
    pictures = x[:, STILL]
    both = np.concatenate([pictures, mean[:, None]], 1)
    found = fit(both[told], y[told], weights[told])
    # For `BLOCKS` in crates/nnv-sr/src/rating.rs.
    slices = np.array([np.mean(r["slices"]) if t else 0.0 for r, t in zip(rows, told)])
    of_slices = np.stack([np.ones(told.sum()), slices[told]], 1)
    blocks = fit(of_slices, mean[told], weights[told])
    error = np.sqrt(np.average((of_slices @ blocks - mean[told]) ** 2, weights=weights[told]))
    print(
        f"blocks: {blocks[0]:.2f} + {blocks[1]:.2f} of what slices say, wrong by {error:.2f} steps"
    )
    print(
        "PSNR of x264: "
        + ", ".join(
            f"{n} {v:.4f}" for n, v in zip((*(NAMES[i] for i in STILL), "quantizer"), found)
        )
    )
    like = np.clip((y - pictures @ found[:-1]) / found[-1], 0, 51)
    print(
        (
            "the quantizer that such a PSNR means: wrong by "
            f"{np.sqrt(np.average((like - mean)[told] ** 2, weights=weights[told])):.2f} steps"
        )
    )
    quantizer = np.where(told, mean, like)
    columns = {
        "bits and picture": list(range(x.shape[1])),
        "picture alone": [i for i in range(x.shape[1]) if i != 1],
        "bits alone": [0, 1, *range(len(NAMES), x.shape[1])],
    }
    for label, which in columns.items():
        error = np.empty(len(rows))
        for g in set(groups):
            known = groups != g
            error[~known] = (
                x[np.ix_(~known, which)]
                @ fit(x[np.ix_(known, which)], quantizer[known], weights[known])
                - quantizer[~known]
            )
        for chosen, of in ((kinds != "", "with drawn screens"), (kinds != "screens", "without")):
            w, e, far = weights[chosen], error[chosen], quantizer[chosen] - TOLD_MIDDLE
            root_mean = lambda v: np.sqrt((w * v**2).sum() / w.sum())
            share, middle = np.polyfit(far, e + far, 1, w=np.sqrt(w))
            print(
                f"{label}, {of}: {TOLD_MIDDLE + middle:.1f} + {share:.2f} of the distance "
                f"from {TOLD_MIDDLE:.0f}, error {root_mean(e + far - middle - share * far):.2f}; "
                f"altogether wrong by {root_mean(e):.2f} steps on groups left out, "
                f"spread {np.sqrt(np.cov(far, aweights=w)):.2f}, {chosen.sum()} rows"
            )
    print(
        ", ".join(f"{n} {v:.4f}" for n, v in zip((*NAMES, *CODECS[1:]), fit(x, quantizer, weights)))
    )

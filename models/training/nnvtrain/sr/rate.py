"""What quantizers and bit rates say of quality: ``python -m nnvtrain sr-rate``.

From one decoded picture its quality cannot be told (docs/decisions.md), nor from the bit rate: the same rate is plenty for a screen and little for a
crowd. Both together tell it to three or four decibels, the picture and its quantizer to two. This program codes the training clips and fits the PSNR of their luma, linearly, to what the
decoded frames hold and the logarithm of bits per sample, or the quantizers; clips of one group are asked about what the others taught. `src/sr/rating.rs` has the result and sees the same.
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
from .pairs import CRF, PRESETS, SYNTHETIC_SIDE, CodecFailed, middle, piped
from .train import TOLD_MIDDLE, psnr

FRAMES = 33
SCREENS = 12  # drawn clips beside the real ones, each for two: they are the farthest from the rest
BEST = 52.0  # dB: beyond that it does not matter how good
ROWS = 4  # one row of so many is looked at
# What stands beside zero in logarithms: bits per sample, code values.
NO_BITS, NO_DETAIL = 1e-3, 0.05
NAMES = ("one", "bits", "slope", "curvature", "change", "flat", "still")
CODECS = ("libx264", "libx265", "libsvtav1")
RIDGE = 1e-3
FRAME_STEP = 3  # one frame in so many is asked about


def look(luma: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Of u8 luma and that of the frame before, in one row of `ROWS`: mean size of differences between neighbours to the right and below, mean size of the Laplacian, mean
    size of the difference to the frame before, and how many samples have no Laplacian and no such difference."""
    rows = np.arange(1, luma.shape[0] - 1, ROWS)
    y, p = luma.astype(np.int32), before.astype(np.int32)
    here = y[rows, 1:-1]
    right, below = y[rows, 2:], y[rows + 1, 1:-1]
    laplacian = 4 * here - y[rows, :-2] - right - y[rows - 1, 1:-1] - below
    change = here - p[rows, 1:-1]
    slope = (np.abs(right - here) + np.abs(below - here)) / 2
    return np.array([slope.mean(), np.abs(laplacian).mean(), np.abs(change).mean(), (laplacian == 0).mean(), (change == 0).mean()])


def row(bits: float, seen: np.ndarray) -> list:
    """What PSNR is linear in, in the order of `NAMES`; `bits` per luma sample."""
    return [1.0, np.log2(bits + NO_BITS), *np.log2(seen[:3] + NO_DETAIL), *seen[3:]]


def quantizers(trace: str) -> list:
    """Of each H.264 picture in the order of display, from what ffmpeg's `trace_headers` writes of a stream with one parameter set: that of its first slice."""
    base, shown, pts = 26, {}, 0
    for line in trace.splitlines():
        text = line.partition("] ")[2]
        if text.startswith("Packet:"):
            pts = int(text.partition(" pts ")[2].partition(",")[0])
            continue
        words = text.split()
        if len(words) > 3 and words[1] == "pic_init_qp_minus26":
            base = 26 + int(words[-1])
        elif len(words) > 3 and words[1] == "slice_qp_delta":
            shown.setdefault(pts, base + int(words[-1]))
    return [shown[k] for k in sorted(shown)]


def measure(frames: list, codec: str, crf: int, preset: str) -> dict:
    """Of a clip of frames (y, u, v): `x` (`row`) and `y` (PSNR in dB), and of each frame `psnrs` and, for x264, `quantizers`."""
    h, w = frames[0][0].shape
    raw = b"".join(np.ascontiguousarray(p).tobytes() for f in frames for p in f)
    quiet = {"libx264": ["-threads", "1"], "libx265": ["-x265-params", "log-level=error:pools=none:frame-threads=1"], "libsvtav1": ["-svtav1-params", "lp=1"]}[codec]
    with tempfile.TemporaryDirectory() as folder:
        coded = Path(folder) / "clip.mkv"
        piped(["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{w}x{h}", "-r", "25", "-i", "-", "-c:v", codec, "-preset", preset, "-crf", str(crf),
               *quiet, str(coded)], raw)
        bits = 8 * coded.stat().st_size / (len(frames) * h * w)
        flat = piped(["ffmpeg", "-v", "error", "-threads", "1", "-i", str(coded), "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"])
        told = []
        if codec == "libx264":
            trace = ["ffmpeg", "-nostats", "-v", "info", "-i", str(coded), "-c", "copy", "-bsf:v", "trace_headers", "-f", "null", "-"]
            told = quantizers(subprocess.run(trace, check=True, capture_output=True).stderr.decode(errors="replace"))
    size = h * w * 3 // 2
    if len(flat) != size * len(frames) or told and len(told) != len(frames):
        raise CodecFailed(f"{codec}: {len(flat)} bytes and {len(told)} quantizers came back, not those of {len(frames)} frames")
    got = np.frombuffer(flat, np.uint8).reshape(len(frames), size)[:, : h * w].reshape(-1, h, w)
    seen = np.mean([look(b, a) for a, b in zip(got, got[1:])], 0)
    errors = [float(np.mean((y.astype(np.float32) - g) ** 2)) for (y, _, _), g in zip(frames, got)]
    return dict(x=row(bits, seen), y=psnr(float(np.mean(errors))), quantizers=told, psnrs=[psnr(e) for e in errors])


def fit(x, y, weights):
    """Least squares; all but the constant are drawn a little to zero."""
    root = np.sqrt(weights)[:, None]
    ridge = RIDGE * weights.sum() * np.diag([0.0] + [1.0] * (x.shape[1] - 1))
    return np.linalg.solve((x * root).T @ (x * root) + ridge, (x * weights[:, None]).T @ y)


def arguments(p):
    p.add_argument("--data", default=os.environ.get("NNV_DATA"), help="folder of videos and pictures")
    p.add_argument("--cache", default=os.environ.get("NNV_CACHE"), help="folder for decoded data")
    p.add_argument("--out", required=True, help="JSON with what was measured: a run that was stopped goes on from it")
    p.add_argument("--group", type=int, default=8, help="clips of a group at most")
    p.add_argument("--seed", type=int, default=0)


def run(args):
    store, path = open_store(args.data, args.cache), Path(args.out)
    rng, groups = np.random.default_rng(args.seed), {}
    for clip in store.videos():
        if clip["frames"] >= FRAMES:
            groups.setdefault(clip["group"], []).append(clip)
    screens = Synthesiser(store).screens
    work = [("screens", None)] * SCREENS + [(name, c) for name, clips in groups.items() for c in clips[:: -(-len(clips) // args.group)]]
    rows = json.loads(path.read_text()) if path.exists() else []
    done = len({r["clip"] for r in rows})
    for number, (group, clip) in enumerate(work):
        planes = store.planes(clip) if clip else screen_clip(rng, screens, FRAMES, SYNTHETIC_SIDE)
        frames = [middle(tuple(np.asarray(p[t]).reshape(p.shape[-2:]) for p in planes), 8) for t in range(FRAMES)]
        for codec in ("libx264", "libx264", "libx264", "libx265", "libsvtav1"):
            crf, preset = int(rng.integers(CRF[codec][0] - 2, CRF[codec][1] + 1)), str(rng.choice(PRESETS[codec]))
            if number < done:
                continue
            rows.append(dict(clip=number, group=group, codec=codec, crf=crf, preset=preset, **measure(frames, codec, crf, preset)))
        path.write_text(json.dumps(rows))
        print(f"{number + 1} of {len(work)} clips", flush=True)
    report(rows)


def report(rows):
    clips = [(r["group"], r["clip"], r["y"]) for r in rows]
    x = np.array([[*r["x"], *(float(r["codec"] == c) for c in CODECS[1:])] for r in rows])
    blind = [i for i in range(x.shape[1]) if i != 1]
    terms = (*NAMES, *CODECS[1:])
    answer("bits and picture", clips, x, terms)
    answer("picture alone", clips, x[:, blind])
    answer("bits alone", clips, x[:, [0, 1, *range(len(NAMES), x.shape[1])]])
    # Neither change nor the picture's own distance from the mean quantizer tell more.
    coded, still = [r for r in rows if r["codec"] == "libx264"], (0, 2, 3, 5)
    frames = [(r["group"], r["clip"], r["psnrs"][t]) for r in coded for t in range(r["clip"] % FRAME_STEP, len(r["psnrs"]), FRAME_STEP)]
    x = np.array([[*(r["x"][i] for i in still), np.mean(r["quantizers"])] for r in coded for _ in range(r["clip"] % FRAME_STEP, len(r["psnrs"]), FRAME_STEP)])
    answer("quantizers and picture (x264)", frames, x, (*(NAMES[i] for i in still), "quantizer"))
    answer("picture alone (x264)", frames, x[:, :-1])


def answer(label, told, x, terms=()):
    """Fits PSNR of `told` (group, clip, PSNR) to `x`, each group without itself, and prints how well that does; with `terms` also the fit to all."""
    y = np.minimum([y for _, _, y in told], BEST)
    # Screens were drawn, each by itself: only the clip is left out.
    group = np.array([g if g != "screens" else f"screens {clip}" for g, clip, _ in told])
    kind = np.array([g for g, _, _ in told])
    weights = np.array([(kind == k).sum() ** -0.5 * (2 if k == "screens" else 1) for k in kind])
    error = np.empty(len(y))
    for g in set(group):
        known = group != g
        error[~known] = x[~known] @ fit(x[known], y[known], weights[known]) - y[~known]
    for of, which in ((kind != "", "with drawn screens"), (kind != "screens", "without")):
        w, e, far = weights[of], error[of], y[of] - TOLD_MIDDLE
        root_mean = lambda v: np.sqrt((w * v**2).sum() / w.sum())
        share, middle = np.polyfit(far, e + far, 1, w=np.sqrt(w))
        print(f"{label}, {which}: {TOLD_MIDDLE + middle:.1f} dB + {share:.2f} of the distance from {TOLD_MIDDLE}, error {root_mean(e + far - middle - share * far):.2f} dB; "
              f"altogether wrong by {root_mean(e):.2f} dB on groups left out, spread {np.sqrt(np.cov(far, aweights=w)):.2f} dB, {of.sum()} rows")
    if terms:
        print(", ".join(f"{n} {v:.4f}" for n, v in zip(terms, fit(x, y, weights))))

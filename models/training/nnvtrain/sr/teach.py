"""Windows of training pictures with what a teacher makes of them: ``python -m nnvtrain sr-teach``.
See
``models/training/README.md``.

The teacher is a network's own mean over the eight turns of the square, turned back (R. Timofte et
al., Seven Ways to Improve Example-Based Single Image Super Resolution, CVPR 2016). It is a tenth of
a decibel better than the network, costs eight times as much, and says for each sample what can be
known: what it cannot know, which makes up nearly all of a training step's noise, is not in it.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

import numpy as np
import torch

from .data import VERSION, down_margin, downscale, drawn_edges, drawn_turns, gather, open_planes

SUFFIX = ".taught"
FINE = 64  # stored parts of a code value
EDGE = 8  # input pixels along a window's edge where the teacher saw too much of the padding


def arguments(p):
    p.add_argument(
        "--data",
        default=os.environ.get("NNV_DATA"),
        help="folder of pictures (task bicubic) or of packs",
    )
    p.add_argument("--cache", default=os.environ.get("NNV_CACHE"), help="folder for decoded data")
    p.add_argument("--out", required=True, help=f"file to write (*{SUFFIX})")
    p.add_argument("--task", choices=("bicubic", "compressed", "repair"), default="bicubic")
    p.add_argument("--scale", type=int, default=2, choices=(1, 2, 3, 4))
    p.add_argument(
        "--teacher",
        nargs="+",
        required=True,
        help="graphs (x2.onnx of a bundle); several are averaged",
    )
    p.add_argument("--windows", type=int, default=2000)
    p.add_argument("--side", type=int, default=144, help="of the input's windows")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)


def turned(x: np.ndarray, k: int) -> np.ndarray:
    """One of the eight turns of the last two axes."""
    return np.rot90(np.swapaxes(x, -1, -2) if k & 4 else x, k & 3, (-2, -1))


def back(x: np.ndarray, k: int) -> np.ndarray:
    x = np.rot90(x, -(k & 3), (-2, -1))
    return np.swapaxes(x, -1, -2) if k & 4 else x


def mean_of_turns(session, x: np.ndarray) -> np.ndarray:
    """x [h,w] in 0..1 of a square -> [scale*h, scale*w]."""
    y = session.run(None, {"x": np.stack([turned(x, k) for k in range(8)])[:, None]})[0]
    return np.mean([back(y[k, 0], k) for k in range(8)], 0)


class Taught:
    """`trust`: share of the teacher in what is wanted; the rest is the truth."""

    def __init__(self, files, trust: float, device="cpu"):
        parts = [torch.load(f, map_location=device, weights_only=True) for f in files]
        for file, part in zip(files, parts):
            if (
                part.get("version") != VERSION
                or "before" not in part
                or (part["task"], part["scale"]) != (parts[0]["task"], parts[0]["scale"])
            ):
                raise ValueError(f"{file}: of another version, task or scale, or not of sr-teach")
        self.task, self.scale, self.trust = parts[0]["task"], parts[0]["scale"], trust
        self.given, self.wanted, self.taught, self.before = (
            torch.cat([p[k] for p in parts]) for k in ("given", "wanted", "taught", "before")
        )

    @property
    def entries(self):
        return range(len(self.given))

    def squared_error(self, index: int) -> float:
        """As `Planes.squared_error`, of the picture that a window is of."""
        return float(self.before[index])

    def draw(self, batch: int, size: int, rng: torch.Generator, step: int = 1, edges: float = 0.0):
        """As `Planes.draw`. A teacher that saw what lies beyond an edge is no worse for it: its
        mean over what may lie there is what can be known.
        """
        s, side, device = self.scale, self.given.shape[-1], self.given.device
        room = (side - 2 * EDGE - size) // step + 1
        if room < 1:
            raise ValueError(f"windows of {side} hold no crops of {size}: take a smaller --size")
        pick = torch.randint(len(self.given), (batch,), generator=rng).to(device)
        top, left = (EDGE + torch.randint(room, (2, batch), generator=rng) * step).to(device)
        turn, edge = drawn_turns(batch, rng, device), drawn_edges(batch, edges, rng, device)

        def crops(windows, scale=1, margin=0):
            """At `scale` times the size, with so much around it."""
            place = (
                pick * windows[0].numel(),
                windows.shape[-1],
                top * scale - margin,
                left * scale - margin,
            )
            return gather(
                windows.view(-1),
                *place,
                size * scale + 2 * margin,
                turn,
                edge * scale + margin * (edge > 0),
            ).float()

        given = crops(self.given) / FINE
        if edges and self.task == "bicubic" and s > 1:
            # A picture that ends there would have been shrunk as it is mirrored.
            ending = downscale(crops(self.wanted, s, down_margin(s)), s).clamp(0, 255)
            given = torch.where((edge > 0).any(0)[:, None, None, None], ending, given)
        wanted = self.trust * crops(self.taught, s) / FINE + (1 - self.trust) * crops(
            self.wanted, s
        )
        fine = (torch.rand(batch, generator=rng) < 0.5).to(device)[:, None, None, None]
        return torch.where(fine, given, given.round()), wanted, pick, None


def window(planes, index: int, side: int, rng):
    """(given float [side,side], wanted u8) at a random place of an entry."""
    s, (plane, small) = planes.scale, planes.entry(index)
    margin = 0 if planes.paired or s == 1 else down_margin(s)
    need = side * s + 2 * margin
    top, left = (
        int(torch.randint((n - need) // s + 1, (1,), generator=rng)) * s for n in plane.shape
    )
    wanted = plane[top : top + need, left : left + need]
    if planes.paired:
        return small[top // s : top // s + side, left // s : left // s + side].float(), wanted
    if s == 1:
        return wanted.float(), wanted
    given = downscale(wanted.float()[None, None], s)[0, 0].clamp(0, 255)
    return given, wanted[margin : need - margin, margin : need - margin]


def run(args):
    import onnxruntime
    from .train import split

    torch.set_num_threads(args.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    sessions = [
        onnxruntime.InferenceSession(f, options, providers=["CPUExecutionProvider"])
        for f in args.teacher
    ]
    planes, _ = split(open_planes(args.data, args.cache, args.task, args.scale))
    margin = 0 if planes.paired or args.scale == 1 else down_margin(args.scale)
    weights = planes.weights * (planes.shortest >= args.side * args.scale + 2 * margin)
    if not weights.any():
        raise SystemExit(f"sr-teach: no plane holds windows of {args.side}: take a smaller --side")
    rng = torch.Generator().manual_seed(args.seed)
    rows, since, squared_error = [], time.time(), functools.cache(planes.squared_error)
    for number, index in enumerate(
        torch.multinomial(weights, args.windows, True, generator=rng).tolist()
    ):
        given, wanted = window(planes, index, args.side, rng)
        taught = np.mean([mean_of_turns(s, (given / 255).numpy()) for s in sessions], 0)
        rows.append(
            (
                (given * FINE).round().short(),
                wanted.clone(),
                torch.from_numpy((taught * 255).clip(0, 255) * FINE).round().short(),
                torch.tensor(squared_error(index)),
            )
        )
        if number % 100 == 99 or number + 1 == args.windows:
            print(
                f"{number + 1} of {args.windows} windows, {time.time() - since:.0f} s", flush=True
            )
    path = Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    given, wanted, taught, before = (torch.stack(r) for r in zip(*rows))
    torch.save(
        dict(
            version=VERSION,
            task=args.task,
            scale=args.scale,
            given=given,
            wanted=wanted,
            taught=taught,
            before=before,
        ),
        f"{path}.tmp",
    )
    os.replace(f"{path}.tmp", path)

"""The mean of the weights of several runs from one start: ``python -m nnvtrain sr-mean OUT
CHECKPOINT...``.

Near the end of training what a run learns is small beside where its noise has led it. Runs from one
start with other seeds lie around a better network than any of them (M. Wortsman et al., Model
soups, arXiv 2203.05482; P. Izmailov et al., arXiv 1803.05407), and that start is part of the mean:
docs/decisions/093-sr-mean.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from .model import SrConfig, load_sr


def arguments(p):
    p.add_argument("out")
    p.add_argument(
        "checkpoint",
        nargs="+",
        help=(
            "PATH or PATH:SHARE, shares are 1 without; the first says what the result is: in 8 "
            "bits, say, and then others may be in float32"
        ),
    )


def split(text: str) -> tuple[str, float]:
    """A checkpoint's path and its share."""
    path, _, share = text.rpartition(":") if ":" in text else (text, "", "1")
    if (share := float(share)) <= 0:
        raise ValueError(f"{text}: a share is more than nothing")
    return path, share


def architecture(path: str) -> SrConfig:
    """Without what 8-bit rounding adds."""
    return replace(load_sr(path).cfg, int8=False, copies=1, paired=False)


def mean(checkpoints: list) -> dict:
    """Of (checkpoint, share): the averaged weights' mean. Steps of 8-bit activations are averaged
    over those that have them.
    """
    first = checkpoints[0][0]
    out = {}
    for key in first["ema"]:
        have = [(c["ema"][key].float(), share) for c, share in checkpoints if key in c["ema"]]
        out[key] = sum(v * share for v, share in have) / sum(share for _, share in have)
    return {**first, "ema": out, "net": out, "opt": None}


def run(args):
    paths = [split(text) for text in args.checkpoint]
    for path, _ in paths[1:]:
        if architecture(path) != architecture(paths[0][0]):
            raise SystemExit(f"sr-mean: {path} is another network than {paths[0][0]}")
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        mean(
            [
                (torch.load(path, map_location="cpu", weights_only=True), share)
                for path, share in paths
            ]
        ),
        args.out,
    )

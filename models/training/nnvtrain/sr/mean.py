"""The mean of the weights of several runs from one start: ``python -m nnvtrain sr-mean OUT CHECKPOINT...``.

Near the end of training what a run learns is small beside where its noise has led it. Runs from one start with other seeds lie around a better network
than any of them (M. Wortsman et al., Model soups, arXiv 2203.05482; P. Izmailov et al., arXiv 1803.05407), and that start is part of the mean: docs/decisions.md.
"""

from __future__ import annotations

from pathlib import Path

import torch

# What a network with 8-bit rounding has beside the weights of the same in float32.
ONLY_INT8 = ("int8", "copies", "paired")


def arguments(p):
    p.add_argument("out")
    p.add_argument("checkpoint", nargs="+", help="PATH or PATH:SHARE, shares are 1 without; the first says what the result is: in 8 bits, say, and then others may be in float32")


def read(text: str) -> tuple[dict, float]:
    """A checkpoint and its share."""
    path, _, share = text.rpartition(":") if ":" in text else (text, "", "1")
    if (share := float(share)) <= 0:
        raise ValueError(f"{text}: a share is more than nothing")
    return torch.load(path, map_location="cpu", weights_only=True), share


def architecture(checkpoint: dict) -> dict:
    return {k: v for k, v in checkpoint["cfg"].items() if k not in ONLY_INT8}


def mean(checkpoints: list) -> dict:
    """Of (checkpoint, share): the averaged weights' mean. Steps of 8-bit activations are averaged over those that have them."""
    first = checkpoints[0][0]
    out = {}
    for key in first["ema"]:
        have = [(c["ema"][key].float(), share) for c, share in checkpoints if key in c["ema"]]
        out[key] = sum(v * share for v, share in have) / sum(share for _, share in have)
    return {**first, "ema": out, "net": out, "opt": None}


def run(args):
    checkpoints = [read(text) for text in args.checkpoint]
    for (other, _), text in zip(checkpoints, args.checkpoint):
        if architecture(other) != architecture(checkpoints[0][0]):
            raise SystemExit(f"sr-mean: {text} is another network than {args.checkpoint[0]}")
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    torch.save(mean(checkpoints), args.out)

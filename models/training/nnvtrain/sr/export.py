"""Bundles of super-resolution: ``python -m nnvtrain sr-export CHECKPOINT... --out FOLDER --name
NAME``.

One checkpoint per scale. Those trained with ``--int8`` become 8-bit graphs. The same checkpoints
give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import numpy as np
import torch

from ..export import session
from .graph import build
from .model import (
    EXACT,
    GAIN_RANGE,
    LIKELY,
    RATING_MIDDLE,
    RATING_RANGE,
    RATING_UNIT,
    UNKNOWN,
    SrNet,
    load_sr,
    rating,
    weight_steps,
)

# Largest difference, in 8-bit code values, between the graph and PyTorch. Float32 differs by the
# order of its sums; with 8 bits a value on the edge between two steps may, rarely, fall to either
# side, and its neighbours in later layers with it.
TOLERANCE = {"float32": 0.01, "int8": 4.0}
# And their mean over all pictures: each sample hears of many thousands of roundings, so a few in a
# hundred lie on an edge. One that falls to the other side in an early layer reaches a tenth of a
# small picture (means of single pictures of noise: 0 to 0.02), so it takes several of them.
TOLERANCE_MEAN = {"float32": 0.001, "int8": 0.015}


def rated_of(net: SrNet) -> dict | None:
    """What a graph needs to hear what it is told of a picture's quantizer."""
    if not net.cfg.rated:
        return None
    return {
        "middle": RATING_MIDDLE,
        "unit": RATING_UNIT,
        "range": RATING_RANGE,
        "gain_range": GAIN_RANGE,
        "heard": net.heard.numpy(),
        "gain": [(layer.weight.numpy(), layer.bias.numpy()) for layer in net.gain],
    }


@torch.no_grad()
def graph_of(net: SrNet) -> bytes:
    layers = [
        (w.numpy(), b.numpy(), weight_steps(w, net.cfg.paired).numpy()) for w, b in net.layers()
    ]
    steps = [float(r.step()) for r in (*net.acts, net.residual)] if net.cfg.int8 else None
    return build(
        layers,
        net.skip.numpy(),
        net.cfg.scale,
        steps,
        net.cfg.fold,
        net.cfg.shrink,
        net.cfg.copies,
        rated_of(net),
    )


def precision(net: SrNet) -> str:
    return "int8" if net.cfg.int8 else "float32"


def pictures_for_check():
    """Inputs [1,1,h,w]: noise, flat areas, edges, a picture of one sample."""
    rng = np.random.default_rng(5)
    smooth = np.add.outer(np.linspace(16, 200, 45), np.linspace(0, 35, 70)).astype(np.float32)
    smooth[10:20, 20:50] = 235
    noisy = (smooth + rng.normal(0, 5, smooth.shape) for _ in range(8))
    for picture in (smooth, *noisy, np.full((9, 13), 16.0), np.full((1, 1), 126.0)):
        yield np.clip(np.rint(picture), 0, 255).astype(np.float32)[None, None] / 255


@torch.no_grad()
def check(net: SrNet, graph: bytes) -> float:
    """Runs the graph beside PyTorch; returns the largest difference in code values. Raises
    ValueError where it is too large.
    """
    run, differences = session(graph, "all", 1), []
    kind = precision(net)
    rng = np.random.default_rng(6)
    # Not known, likely, far out, of each sample another.
    for number, x in enumerate(pictures_for_check()):
        sure, quantizer = (
            (UNKNOWN, 0.0),
            (LIKELY, 28.5),
            (EXACT, 99.0),
            (EXACT, rng.integers(10, 50, x.shape[2:])),
        )[number % 4]
        plane = np.broadcast_to(np.float32(quantizer), x.shape[2:] if number % 4 == 3 else (1, 1))
        told = (
            {"quantizer": np.stack([np.full_like(plane, sure), plane])[None]}
            if net.cfg.rated
            else {}
        )
        # Sides become multiples of what is folded by mirroring.
        x = np.pad(x, [(0, 0), (0, 0), *((0, -n % net.cfg.fold) for n in x.shape[2:])], "symmetric")
        got = run.run(None, {"x": x} | told)[0]
        # The graph folds x - 1/2 into a bias, which differs beyond the border. As the element does:
        # mirror, crop the border away.
        around = [(0, 0), (0, 0), (net.cfg.radius,) * 2, (net.cfg.radius,) * 2]
        x = np.pad(x, around, "symmetric")
        told = {
            k: v if v.shape[2:] == (1, 1) else np.pad(v, around, "symmetric")
            for k, v in told.items()
        }
        want = net(
            torch.from_numpy(x),
            *(rating(torch.from_numpy(v[:, 1]), torch.tensor([sure])) for v in told.values()),
        ).numpy()
        padded = run.run(None, {"x": x} | told)[0]
        k = net.cfg.radius * net.cfg.scale
        if got.shape != (
            1,
            1,
            x.shape[2] * net.cfg.scale - 2 * k,
            x.shape[3] * net.cfg.scale - 2 * k,
        ):
            raise ValueError(f"the graph's output has the shape {got.shape}")
        differences.append((np.abs(want - padded)[..., k:-k, k:-k] * 255).ravel())
    d = np.concatenate(differences)
    if d.max() > TOLERANCE[kind] or d.mean() > TOLERANCE_MEAN[kind]:
        raise ValueError(
            (
                f"{kind} graph and PyTorch differ by up to {d.max():.3f} code values, by "
                f"{d.mean():.4f} on average"
            )
        )
    return float(d.max())


def number(text: str):
    """What a checkpoint keeps as text, as a number where it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def toml_value(value) -> str:
    """Strings, numbers and booleans as TOML (JSON writes them the same way)."""
    return json.dumps(value)


def write_bundle(out: Path, name: str, description: str, checkpoints: list, facts: dict) -> list:
    """Writes graphs, bundle.toml and MODEL_CARD.md; returns the manifest's networks."""
    out.mkdir(parents=True, exist_ok=True)
    networks = []
    for path in checkpoints:
        net = load_sr(path)
        scale = net.cfg.scale
        if any(n["scale"] == scale for n in networks):
            raise ValueError(f"{path}: a second network for scale {scale}")
        graph = graph_of(net)
        worst = check(net, graph)
        (out / f"x{scale}.onnx").write_bytes(graph)
        c = torch.load(path, map_location="cpu", weights_only=True)
        args = c["log_args"]
        training = {"task": c["task"], "steps": c["step"], "hours": round(c["seconds"] / 3600, 2)}
        training |= {
            k: number(args[k])
            for k in ("batch", "size", "lr", "loss", "amp", "device")
            if k in args
        }
        networks.append(
            {
                "scale": scale,
                "file": f"x{scale}.onnx",
                "sha256": hashlib.sha256(graph).hexdigest(),
                "radius": net.cfg.radius,
                "fold": net.cfg.fold,
                "channels": net.cfg.width,
                "parameters": net.parameters_deployed(),
                "macs_per_pixel": net.macs_per_pixel(),
                "precision": precision(net),
                "bytes": len(graph),
                "largest_difference": round(worst, 4),
                "training": training | facts.get(f"x{scale}", {}),
            }
        )
    networks.sort(key=lambda n: n["scale"])
    (out / "bundle.toml").write_text(manifest(name, description, networks))
    (out / "MODEL_CARD.md").write_text(card(name, description, networks))
    return networks


KEYS = (
    "scale",
    "file",
    "sha256",
    "radius",
    "fold",
    "parameters",
    "macs_per_pixel",
    "precision",
    "channels",
)
OPTIONAL = {"fold": 1}


def manifest(name, description, networks) -> str:
    lines = [
        "[bundle]",
        "format = 1",
        'kind = "sr"',
        f"name = {toml_value(name)}",
        f"description = {toml_value(description)}",
    ]
    for n in networks:
        lines += [
            "",
            "[[network]]",
            *(f"{k} = {toml_value(n[k])}" for k in KEYS if n[k] != OPTIONAL.get(k)),
        ]
    for n in networks:
        lines += [
            "",
            f"[training.x{n['scale']}]",
            *(f"{k} = {toml_value(v)}" for k, v in n["training"].items()),
        ]
    return "\n".join(lines) + "\n"


def card(name, description, networks) -> str:
    lines = [
        f"# {name}",
        "",
        f"{description}",
        "",
        (
            "A bundle of the element `nnsr`. It works on luma alone, in limited range; the "
            "element scales chroma with a plain kernel."
        ),
        (
            "The graphs invent no detail on purpose unless the description says so, but any of "
            "them may err: not for evidence or diagnosis."
        ),
        "",
        (
            "| scale | precision | parameters | MAC per input pixel | receptive radius | bytes "
            "| largest difference from PyTorch, code values |"
        ),
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {n['scale']} | {n['precision']} | {n['parameters']} | {n['macs_per_pixel']} "
        f"| {n['radius']} | {n['bytes']} | "
        f"{n['largest_difference']} |"
        for n in networks
    ]
    for n in networks:
        lines += [
            "",
            f"## Training: x{n['scale']}",
            "",
            *(f"- {k}: {v}" for k, v in n["training"].items()),
        ]
    return "\n".join(lines) + "\n"


def arguments(p):
    p.add_argument("checkpoint", nargs="+", help="one per scale")
    p.add_argument("--out", required=True, help="the bundle's folder")
    p.add_argument("--name", required=True)
    p.add_argument("--description", default="", help="one line")
    p.add_argument(
        "--facts", help="TOML with tables x1 to x4, added to [training.*] and to the card"
    )


def run(args):
    facts = tomllib.loads(Path(args.facts).read_text()) if args.facts else {}
    for n in write_bundle(Path(args.out), args.name, args.description, args.checkpoint, facts):
        print(
            f"x{n['scale']}: {n['precision']}, {n['parameters']} parameters, {n['bytes']} bytes, "
            f"within {n['largest_difference']} code values of PyTorch"
        )


def small_arguments(p):
    p.add_argument("checkpoint")
    p.add_argument("out")


def small_run(args):
    """Half precision, the averaged weights alone: what the repository keeps to go on from."""
    c = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    c["ema"] = {k: v.half() for k, v in c["ema"].items()}
    c["net"], c["opt"] = c["ema"], None
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    torch.save(c, args.out)

"""Quality of a shot over the quantizer: ``python -m nnvtrain rdo-material``, ``rdo`` and
``rdo-export``.

`rdo-material` has the program `nnv` code clips with the elements that `nnv encode` uses, and keeps
what it says: features of the source, and the measures of each coding. `rdo` trains a small network
on that: features in, a falling curve of each codec and measure out. `rdo-export` writes the bundle.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import subprocess
import time
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

# Knots of each codec's curves; a clip is coded with one quantizer between each two, more or less.
KNOTS = {
    "x264": (12.0, 19.0, 26.0, 33.0, 42.0),
    "x265": (12.0, 19.0, 26.0, 33.0, 42.0),
    "nnv": (8.0, 20.0, 32.0, 44.0, 58.0),
    "vp9": (8.0, 22.0, 36.0, 49.0, 61.0),
    "svtav1": (12.0, 24.0, 36.0, 48.0, 60.0),
}
# Loss of each measure, of which minus the logarithm is learned: as `Metric::log` of nnv-tools.
LOSSES = {
    "vmaf": lambda v: max(102.0 - v, 1.0),
    "psnr": lambda v: 10.0 ** (-min(v, 100.0) / 10.0),
    "ssim": lambda v: max(1.0 - v, 1e-6),
    "ms-ssim": lambda v: max(1.0 - v, 1e-6),
    "xpsnr": lambda v: 10.0 ** (-min(v, 100.0) / 10.0),
    "ssimulacra2": lambda v: max(102.0 - v, 1.0),
}
BACK = {
    "vmaf": lambda y: 102.0 - math.exp(-y),
    "psnr": lambda y: y * 10.0 / math.log(10.0),
    "ssim": lambda y: 1.0 - math.exp(-y),
    "ms-ssim": lambda y: 1.0 - math.exp(-y),
    "xpsnr": lambda y: y * 10.0 / math.log(10.0),
    "ssimulacra2": lambda y: 102.0 - math.exp(-y),
}
CODECS, METRICS = tuple(KNOTS), tuple(LOSSES)
COUNT = 5
HIDDEN = 24
# Normalised features beyond this are brought to it: no straight lines into the unknown.
FAR = 3.0
# One group of clips in so many, by the checksum of its name, chooses when to stop.
HELD_OUT = 5
MAX_PARAMETERS = 20_000


def group(clip: str) -> str:
    return clip.split("__")[0]


def is_held_out(clip: str) -> bool:
    return zlib.crc32(group(clip).encode()) % HELD_OUT == 0


# ------------------------------------------------------------------ material


def order(clips, rng):
    """Clips such that each group comes once before any comes again."""
    groups = {}
    for clip in clips:
        groups.setdefault(group(clip.name), []).append(clip)
    for members in groups.values():
        rng.shuffle(members)
    names = sorted(groups)
    rng.shuffle(names)
    out = []
    while any(groups.values()):
        out += [groups[name].pop() for name in names if groups[name]]
    return out


def draw(rng, codec, count):
    """So many quantizers, one from each of as many even parts of the codec's range."""
    low, high = KNOTS[codec][0] - 2, KNOTS[codec][-1] + 2
    edges = np.linspace(low, high, count + 1)
    return [float(round(rng.uniform(a, b))) for a, b in zip(edges, edges[1:])]


def material_arguments(p):
    p.add_argument("--clips", required=True, help="folder of training clips")
    p.add_argument("--out", required=True, help="file of lines of JSON; a run goes on in it")
    p.add_argument("--nnv", default="nnv", help="the program nnv")
    p.add_argument("--work", required=True, help="folder for what is in work")
    p.add_argument("--codecs", default="x264,x265")
    p.add_argument("--metrics", default="vmaf,psnr,ssim,ms-ssim,xpsnr")
    p.add_argument("--count", type=int, default=4, help="quantizers of each codec")
    p.add_argument("--most", type=int, default=100, help="clips")
    p.add_argument("--frames", type=int, default=33)
    p.add_argument("--minutes", type=float, default=30.0)
    p.add_argument("--seed", type=int, default=0)


def material_run(args):
    codecs = args.codecs.split(",")
    clips = sorted(p for p in Path(args.clips).iterdir() if p.is_file())
    if not clips:
        raise SystemExit(f"{args.clips} holds no clips")
    clips = order(clips, np.random.default_rng(args.seed))[: args.most]
    out, done = Path(args.out), set()
    if out.exists():
        lines = map(json.loads, out.read_text().splitlines())
        done = {(line["clip"], p["codec"]) for line in lines for p in line["points"]}
    started, made = time.time(), 0
    for number, clip in enumerate(clips):
        wanted = [c for c in codecs if (clip.name, c) not in done]
        if not wanted:
            continue
        spent = time.time() - started
        if spent > 60 * args.minutes:
            print(f"{spent:.0f} s are over: the same command goes on", flush=True)
            return
        # The clip alone decides what is drawn, so that a run that goes on draws the same.
        rngs = {c: np.random.default_rng([args.seed, zlib.crc32(f"{clip.name} {c}".encode())])
                for c in wanted}
        points = [f"{c}={q}" for c in wanted for q in draw(rngs[c], c, args.count)]
        command = [args.nnv, "rdo-points", str(clip), "--points", ",".join(points), "--metrics",
                   args.metrics, "--frames", str(args.frames), "--work", args.work]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            print(f"{clip.name}: {ran.stderr.strip()}", flush=True)
            continue
        line = json.loads(ran.stdout) | {"clip": clip.name}
        with open(out, "a") as file:
            file.write(json.dumps(line) + "\n")
        made += 1
        spent = time.time() - started
        left = min(60 * args.minutes - spent, spent / made * (len(clips) - number - 1))
        print(f"{number + 1} of {len(clips)} clips, {spent:.0f} s, at most {left:.0f} s left",
              flush=True)


def read(paths):
    """Names of features; and per clip (name, features, [(codec, measure, quantizer, label)])."""
    clips, names = {}, None
    for path in paths:
        for line in map(json.loads, Path(path).read_text().splitlines()):
            if names not in (None, line["names"]):
                raise SystemExit(f"{path}: features of several versions of nnv; gather anew")
            names = line["names"]
            key = f"{line['clip']}, {line['frames']} frames"
            labels = clips.setdefault(key, (line["features"], []))[1]
            for p in line["points"]:
                if p["codec"] not in CODECS:
                    continue
                for metric, value in p["scores"].items():
                    label = -math.log(LOSSES[metric](value))
                    place = (CODECS.index(p["codec"]), METRICS.index(metric))
                    labels.append((*place, p["quantizer"], label))
    if not clips:
        raise SystemExit("no material: run rdo-material first")
    return names, clips


@torch.no_grad()
def taught(clips, names, path):
    """The clips, with what an older network says of codecs and measures that their material lacks:
    what it learned from material that is gone stays known. Also its own figures of those.
    """
    net, c = load(path)
    if c["names"] != names:
        raise SystemExit(f"{path} goes by other features than this material")
    present = {label[:2] for _, labels in clips.values() for label in labels}
    rows = [row for row in c["held_out"]
            if (CODECS.index(row[0]), METRICS.index(row[1])) not in present]
    curves = net(torch.tensor([f for f, _ in clips.values()], dtype=torch.float32))
    out = {}
    for i, (clip, (features, labels)) in enumerate(clips.items()):
        told = [(CODECS.index(codec), METRICS.index(metric), q, y)
                for codec, metric, *_ in rows
                for q, y in zip(KNOTS[codec],
                                curves[i, CODECS.index(codec), METRICS.index(metric)].tolist())]
        out[clip] = (features, labels + told)
    return out, rows


# ------------------------------------------------------------------ the network


class Curves(nn.Module):
    """Features `[N, F]`; minus the log of the loss at each knot, `[N, codecs, measures, knots]`."""

    def __init__(self, features, hidden=HIDDEN):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.one = nn.Linear(features, hidden)
        self.two = nn.Linear(hidden, hidden)
        self.head = nn.Linear(2 * hidden, len(CODECS) * len(METRICS) * COUNT)
        self.dropout = nn.Dropout(0.1)
        self.shape = (len(CODECS), len(METRICS), COUNT)

    def forward(self, x):
        x = ((x - self.mean) * self.scale).clamp(-FAR, FAR)
        one = torch.tanh(self.one(x))
        two = torch.tanh(self.two(self.dropout(one)))
        out = self.head(self.dropout(torch.cat([one, two], -1)))
        out = out.unflatten(-1, self.shape)
        falls = F.softplus(out[..., 1:]).cumsum(-1)
        return torch.cat([out[..., :1], out[..., :1] - falls], -1)


KNOT_TABLE = torch.tensor([KNOTS[c] for c in CODECS])


def at(curves, codec, metric, quantizer):
    """Curves `[N, …]` read at a quantizer each: straight between knots, and beyond them."""
    knots = KNOT_TABLE[codec]
    n = torch.arange(len(codec))
    i = (knots[:, 1:-1] < quantizer[:, None]).sum(1)
    q0, q1 = knots[n, i], knots[n, i + 1]
    y0, y1 = curves[n, codec, metric, i], curves[n, codec, metric, i + 1]
    return y0 + (quantizer - q0) * (y1 - y0) / (q1 - q0)


class Data:
    def __init__(self, clips):
        self.x = torch.tensor([f for f, _ in clips.values()], dtype=torch.float32)
        rows = [(i, *p) for i, (_, labels) in enumerate(clips.values()) for p in labels]
        clip, codec, metric, quantizer, label = zip(*rows)
        self.clip, self.codec, self.metric = (torch.tensor(v) for v in (clip, codec, metric))
        self.quantizer, self.label = torch.tensor(quantizer), torch.tensor(label).float()
        self.quantizer = self.quantizer.float()

    def predicted(self, net, x):
        return at(net(x)[self.clip], self.codec, self.metric, self.quantizer)


def train(data, held, steps, lr, decay, seed, patience=400):
    """The network at its best step by the held-out clips, that step, and its error there."""
    torch.manual_seed(seed)
    net = Curves(data.x.shape[1])
    assert sum(p.numel() for p in net.parameters()) <= MAX_PARAMETERS
    net.mean.copy_(data.x.mean(0))
    net.scale.copy_(1 / data.x.std(0).clamp(min=1e-2))
    with torch.no_grad():
        # The mean curve of the measure, roughly; the rest is learned.
        bias = net.head.bias.view(len(CODECS), len(METRICS), COUNT)
        bias.fill_(-1.0)
        for c in range(len(CODECS)):
            for m in range(len(METRICS)):
                which = (data.codec == c) & (data.metric == m)
                if which.any():
                    bias[c, m, 0] = data.label[which].mean() + 0.6
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=decay)
    best, best_step, best_error = None, 0, math.inf
    for step in range(1, steps + 1):
        net.train()
        noise = 0.05 * torch.randn_like(data.x) / net.scale
        loss = F.huber_loss(data.predicted(net, data.x + noise), data.label, delta=0.3)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 0:
            net.eval()
            with torch.no_grad():
                error = (held.predicted(net, held.x) - held.label).abs().mean().item()
            if error < best_error:
                best, best_step, best_error = copy.deepcopy(net), step, error
            elif held is not data and step - best_step > patience:
                break
    return best, best_step, best_error


@torch.no_grad()
def judge(net, data):
    """Per codec and measure: points, mean absolute error of the measure and of the quantizer."""
    net.eval()
    got = data.predicted(net, data.x)
    near = data.predicted(net, data.x), at(
        net(data.x)[data.clip], data.codec, data.metric, data.quantizer + 1)
    slope = (near[0] - near[1]).clamp(min=1e-3)
    rows = []
    for c, codec in enumerate(CODECS):
        for m, metric in enumerate(METRICS):
            which = (data.codec == c) & (data.metric == m)
            if not which.any():
                continue
            pairs = zip(got[which].tolist(), data.label[which].tolist())
            error = np.mean([abs(BACK[metric](a) - BACK[metric](b)) for a, b in pairs])
            steps = ((got - data.label).abs() / slope)[which].median().item()
            rows.append((codec, metric, int(which.sum()), float(error), steps))
    return rows


def arguments(p):
    p.add_argument("--material", required=True, nargs="+", help="files of rdo-material")
    p.add_argument("--out", required=True, help="folder of the checkpoint")
    p.add_argument("--taught", metavar="CHECKPOINT",
                   help="also keep what this one knows of codecs that the material lacks")
    p.add_argument("--steps", type=int, default=6000)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--decay", type=float, default=0.05)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1)


def run(args):
    torch.set_num_threads(args.threads)
    names, clips = read(args.material)
    codings, old = sum(len(labels) for _, labels in clips.values()), []
    if args.taught:
        clips, old = taught(clips, names, args.taught)
    held = {k: v for k, v in clips.items() if is_held_out(k)}
    rest = {k: v for k, v in clips.items() if not is_held_out(k)}
    if not held or not rest:
        raise SystemExit("too few groups of clips to hold some out: gather more")
    started = time.time()
    net, step, error = train(Data(rest), Data(held), args.steps, args.lr, args.decay, args.seed)
    # Of what was taught, the figures are those of the teacher, whose material they are of.
    rows = [row for row in judge(net, Data(held)) if row[:2] not in {tuple(o[:2]) for o in old}]
    rows += [tuple(o) for o in old]
    print(f"{len(rest)} clips, {len(held)} held out: best at step {step}, log error {error:.3f}, "
          f"{time.time() - started:.0f} s")
    print("| codec | measure | codings | mean absolute error | in steps of the quantizer, median |")
    print("|---|---|---:|---:|---:|")
    for codec, metric, points, value, steps in rows:
        print(f"| {codec} | {metric} | {points} | {value:.4g} | {steps:.1f} |")
    # As many steps as served best, on all clips: these are few.
    everything = Data(clips)
    net, _, _ = train(everything, everything, step, args.lr, args.decay, args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    new = out / "rdo.new"
    torch.save({"net": net.state_dict(), "names": names, "clips": len(clips), "step": step,
                "codings": codings, "held_out": rows}, new)
    new.replace(out / "rdo.pt")


# ------------------------------------------------------------------ export


def only(net, codecs, metrics):
    """The same network with the curves of these codecs and measures alone."""
    out = copy.deepcopy(net)
    index = torch.arange(net.head.out_features).view(len(CODECS), len(METRICS), COUNT)
    index = index[[CODECS.index(c) for c in codecs]][:, [METRICS.index(m) for m in metrics]]
    out.head = nn.Linear(net.head.in_features, index.numel())
    out.shape = tuple(index.shape)
    with torch.no_grad():
        out.head.weight.copy_(net.head.weight[index.flatten()])
        out.head.bias.copy_(net.head.bias[index.flatten()])
    return out.eval()


def graph(net):
    """ONNX: `x` f32 [1,1,1,F]; `y` f32 [1, codecs, measures, knots]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []

    def constant(name, value, dtype=np.float32):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def linear(layer, x, name):
        w = constant(f"{name}_w", layer.weight.detach().numpy().T[None, None])
        b = constant(f"{name}_b", layer.bias.detach().numpy()[None, None, None])
        return node("Add", [node("MatMul", [x, w], f"{name}_m"), b], f"{name}_a")

    axis = constant("axis", [3], np.int64)

    def part(x, lo, hi, name):
        lo, hi = constant(f"{name}_lo", [lo], np.int64), constant(f"{name}_hi", [hi], np.int64)
        return node("Slice", [x, lo, hi, axis], name)

    mean = constant("mean", net.mean.numpy()[None, None, None])
    scale = constant("scale", net.scale.numpy()[None, None, None])
    x = node("Mul", [node("Sub", ["x", mean], "centred"), scale], "scaled")
    x = node("Clip", [x, constant("low", -FAR), constant("high", FAR)], "near")
    one = node("Tanh", [linear(net.one, x, "l1")], "one")
    two = node("Tanh", [linear(net.two, one, "l2")], "two")
    both = node("Concat", [one, two], "both", axis=3)
    shape = constant("shape", [1, *net.shape], np.int64)
    out = node("Reshape", [linear(net.head, both, "l3"), shape], "out")
    first = part(out, 0, 1, "first")
    falls = node("Softplus", [part(out, 1, COUNT, "steps")], "falls")
    # Sums of the steps between knots, as a product with a triangle.
    upper = constant("upper", np.triu(np.ones((COUNT - 1, COUNT - 1)))[None, None])
    rest = node("Sub", [first, node("MatMul", [falls, upper], "sums")], "rest")
    node("Concat", [first, rest], "y", axis=3)
    f32 = TensorProto.FLOAT
    value = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            nodes, "rdo", [value("x", f32, [1, 1, 1, net.mean.numel()])],
            [value("y", f32, [1, *net.shape])], constants),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="nnvtrain")
    onnx.checker.check_model(model)
    return model.SerializeToString()


@torch.no_grad()
def compare(net, onnx_bytes):
    """Largest difference between the graph and PyTorch over 100 made-up shots."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    rng, worst = np.random.default_rng(3), 0.0
    xs = net.mean.numpy() + rng.normal(0, 2, (100, net.mean.numel())) / net.scale.numpy()
    xs = xs.astype(np.float32)
    net.eval()
    for x, want in zip(xs, net(torch.from_numpy(xs)).numpy()):
        (y,) = session.run(["y"], {"x": x[None, None, None]})
        worst = max(worst, float(np.abs(y[0] - want).max()))
    return worst


def load(path):
    c = torch.load(path, map_location="cpu", weights_only=True)
    net = Curves(len(c["names"]))
    with torch.no_grad():
        # Of fewer codecs: those that came since stand last.
        for key in ("head.weight", "head.bias"):
            now, kept = net.state_dict()[key], c["net"][key]
            now[: len(kept)].copy_(kept)
            c["net"][key] = now
    net.load_state_dict(c["net"])
    return net.eval(), c


def export_arguments(p):
    p.add_argument("checkpoint")
    p.add_argument("--out", required=True, help="folder of the bundle")
    p.add_argument("--name", default="rdo")


def export_run(args):
    net, c = load(args.checkpoint)
    codecs = [x for x in CODECS if any(x == codec for codec, *_ in c["held_out"])]
    metrics = [x for x in METRICS if any(x == metric for _, metric, *_ in c["held_out"])]
    net = only(net, codecs, metrics)
    onnx_bytes = graph(net)
    worst = compare(net, onnx_bytes)
    if worst > 1e-3:
        raise SystemExit(f"the graph and PyTorch differ by {worst}")
    out = Path(args.out)
    os.makedirs(out, exist_ok=True)
    (out / "rdo.onnx").write_bytes(onnx_bytes)
    parameters = sum(p.numel() for p in net.parameters())
    text = f"""[bundle]
format = 1
kind = "rdo"
name = {json.dumps(args.name)}
description = "quality of a shot over the quantizer of {", ".join(codecs)}"

[rdo]
file = "rdo.onnx"
sha256 = "{hashlib.sha256(onnx_bytes).hexdigest()}"
features = {json.dumps(c["names"])}
metrics = {json.dumps(metrics)}
parameters = {parameters}
"""
    for codec in codecs:
        text += f'\n[[rdo.codec]]\nname = "{codec}"\nknots = {json.dumps(list(KNOTS[codec]))}\n'
    text += f"""
[training]
clips = {c["clips"]}
labels = {c["codings"]}
steps = {c["step"]}
"""
    (out / "bundle.toml").write_text(text)
    print(f"{out}: {parameters} parameters, differs from PyTorch by at most {worst:.1e}")

"""Forecast of a network's throughput: ``python -m nnvtrain network`` and ``network-export``.

A gated recurrent unit hears, every half second, how much came through and whether that was all the
path could carry, and gives quantiles of the mean throughput of the next 1, 2 and 4 seconds.

Traces are text files of lines ``seconds Mbit/s``; a file's source is what stands before the first
underscore of its name. The rate of a line holds from the line before to it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

STEP = 0.5  # seconds of an observation
HORIZONS = (2, 4, 8)  # steps: 1, 2 and 4 seconds
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
MEDIAN = QUANTILES.index(0.5)
FLOOR = 0.05  # Mbit/s: what is less counts as this much
FEATURES = 2  # log of the observed rate; whether it is the path's capacity or less
WARM = 10  # observations before a forecast is judged
HELD_EVERY = 5  # every fifth training trace of a source is held out
SCALES = 3.0  # traces are played up to 2^3 times faster or slower while training
NOISE = 0.05  # log of rates: measured ones are never as even as those of traces
EMA = 0.99  # of weights, which are judged and kept
HIDDEN = 48
MAX_PARAMETERS = 50_000


def resample(times, rates, step=STEP, phase=0.0):
    """Mean rates of the intervals of `step` seconds after the first time and `phase`."""
    times, rates = np.asarray(times, np.float64), np.asarray(rates, np.float64)
    if times.ndim != 1 or times.shape != rates.shape or len(times) < 2:
        raise ValueError("a trace needs two lines or more of seconds and Mbit/s")
    if not (np.isfinite(times).all() and np.isfinite(rates).all() and (rates >= 0).all()):
        raise ValueError("a trace holds something that is no time or rate")
    if (np.diff(times) <= 0).any():
        raise ValueError("the times of a trace must rise")
    total = np.concatenate([[0.0], np.cumsum(np.diff(times) * rates[1:])])
    edges = np.arange(times[0] + phase, times[-1] + 1e-9, step)
    return np.diff(np.interp(edges, times, total)) / step


class Trace:
    def __init__(self, path):
        self.path = Path(path)
        self.source = self.path.stem.split("_")[0]
        lines = np.loadtxt(path, ndmin=2)
        if lines.shape[1] != 2:
            raise ValueError(f"{path}: lines must be of seconds and Mbit/s")
        try:
            resample(lines[:, 0], lines[:, 1])
        except ValueError as e:
            raise ValueError(f"{path}: {e}") from None
        self.times, self.rates = lines[:, 0], lines[:, 1]
        self._kept = {}

    def steps(self, phase=0.0):
        """Rates of steps after `phase`; few phases are in use, and are kept."""
        if phase not in self._kept:
            self._kept[phase] = resample(self.times, self.rates, STEP, phase)
        return self._kept[phase]


def read_traces(folder):
    paths = sorted(Path(folder).glob("*.txt"))
    if not paths:
        raise SystemExit(f"{folder} holds no traces (*.txt, lines of seconds and Mbit/s)")
    return [Trace(p) for p in paths]


def split(traces):
    """Traces to train on, and every fifth of each source to choose by."""
    train, held, seen = [], [], {}
    for trace in traces:
        n = seen[trace.source] = seen.get(trace.source, -1) + 1
        (held if n % HELD_EVERY == HELD_EVERY - 1 else train).append(trace)
    return train, held


class Forecaster(nn.Module):
    """Observations `[N, T, FEATURES]`; rising quantiles `[N, T, 3, 7]` of the log of the rate in
    Mbit/s.
    """

    def __init__(self, hidden=HIDDEN):
        super().__init__()
        self.hidden = hidden
        self.gru = nn.GRU(FEATURES, hidden, batch_first=True)
        self.body = nn.Linear(hidden + FEATURES, hidden)
        self.head = nn.Linear(hidden, len(HORIZONS) * len(QUANTILES))
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            bias = torch.full((len(HORIZONS), len(QUANTILES)), -2.0)
            bias[:, MEDIAN] = 0.0
            self.head.bias.copy_(bias.flatten())

    def read(self, x, h):
        out = self.head(torch.relu(self.body(torch.cat([h, x], -1))))
        out = out.unflatten(-1, (len(HORIZONS), len(QUANTILES)))
        middle = out[..., MEDIAN : MEDIAN + 1] + x[..., None, :1]
        above = F.softplus(out[..., MEDIAN + 1 :]).cumsum(-1)
        below = F.softplus(out[..., :MEDIAN]).flip(-1).cumsum(-1).flip(-1)
        return torch.cat([middle - below, middle, middle + above], -1)

    def forward(self, xs):
        """Observations `[N, T, FEATURES]`; quantiles `[N, T, 3, 7]`."""
        return self.read(xs, self.gru(xs)[0])


def log_rate(rate):
    return np.log(np.maximum(rate, FLOOR))


def targets(rates):
    """Log of the mean rate after each of the first ``len - 8`` observations, per horizon."""
    total = np.concatenate([[0.0], np.cumsum(rates)])
    n = len(rates) - HORIZONS[-1]
    return np.stack(
        [log_rate((total[1 + k : 1 + k + n] - total[1 : 1 + n]) / k) for k in HORIZONS], -1
    )


def observe(rng, rates):
    """What senders see of their paths `[N, T]`: all of the capacity, or in half of all cases no
    more than they send, which follows what came through with a gain of its own. Returns the rates
    seen and 1 where they were the capacity.
    """
    n, length = rates.shape
    seen, full = rates.copy(), np.ones_like(rates)
    sent = np.where(rng.random(n) < 0.5, rates[:, 0] * rng.uniform(0.2, 1, n), np.inf)
    gain, swing = rng.uniform(0.5, 1.1, n), rng.uniform(0, 0.3, n)
    noise = np.exp(swing[:, None] * rng.normal(0, 1, rates.shape))
    for i in range(length):
        rate = rates[:, i]
        full[:, i] = sent >= rate
        seen[:, i] = np.minimum(sent, rate)
        # Back at once to a part of what came through; up by and by.
        wish = gain * rate * noise[:, i]
        down = np.maximum(wish, FLOOR)
        with np.errstate(invalid="ignore"):
            up = sent + 0.2 * (wish - sent)
        sent = np.where(np.isinf(sent), sent, np.where(wish < sent, down, up))
    return seen, full


class Windows:
    """Random windows of traces, at random rates and phases: sources with weight √seconds, so that
    one large source does not dominate and a small one is not learned by heart.
    """

    def __init__(self, traces, seed, length=90):
        self.rng, self.length = np.random.default_rng(seed), length
        self.by_source = {}
        for t in traces:
            self.by_source.setdefault(t.source, []).append(t)
        self.sources = sorted(self.by_source)
        seconds = [sum(t.times[-1] - t.times[0] for t in self.by_source[s]) for s in self.sources]
        self.weights = np.sqrt(seconds) / np.sqrt(seconds).sum()

    def window(self, source):
        rng, need = self.rng, self.length + HORIZONS[-1]
        traces = self.by_source[source]
        trace = traces[rng.integers(len(traces))]
        rates = trace.steps(STEP * rng.integers(5) / 5) * 2.0 ** rng.uniform(-SCALES, SCALES)
        rates = rates * np.exp(rng.uniform(0, NOISE) * rng.normal(0, 1, len(rates)))
        if len(rates) < need:
            rates = np.tile(rates, -(-need // max(len(rates), 1)))
        start = rng.integers(len(rates) - need + 1)
        return rates[start : start + need]

    def batch(self, n):
        """Observations `[n, length, FEATURES]` and targets `[n, length, 3]`."""
        sources = self.rng.choice(self.sources, n, p=self.weights)
        rates = np.stack([self.window(source) for source in sources])
        seen, full = observe(self.rng, rates)
        xs = np.stack([log_rate(seen), full], -1)[:, : self.length]
        want = np.stack([targets(r) for r in rates])
        return tuple(torch.from_numpy(a.astype(np.float32)) for a in (xs, want))


def pinball(quantiles, wanted):
    """Mean loss of quantiles `[…, 7]` for values `[…]`."""
    d = wanted[..., None] - quantiles
    q = d.new_tensor(QUANTILES)
    return torch.maximum(q * d, (q - 1) * d).mean()


# ------------------------------------------------------------------ baselines and errors


def harmonic(rates, count=5):
    inverse = 1 / np.maximum(rates, FLOOR)
    total = np.concatenate([[0.0], np.cumsum(inverse)])
    i = np.arange(1, len(rates) + 1)
    first = np.maximum(i - count, 0)
    return (i - first) / (total[i] - total[first])


def last(rates):
    return rates


def ewma(rates, weight=0.3):
    out, mean = np.empty_like(rates), rates[0]
    for i, rate in enumerate(rates):
        mean += weight * (rate - mean)
        out[i] = mean
    return out


def harmonic_seconds(rates):
    """Of the last five seconds: five samples of a second each."""
    per = round(1 / STEP)
    total = np.concatenate([[0.0], np.cumsum(rates)])
    i = np.arange(1, len(rates) + 1)
    parts = []
    for k in range(5):
        hi, lo = np.maximum(i - k * per, 0), np.maximum(i - (k + 1) * per, 0)
        parts.append(np.where(hi > lo, (total[hi] - total[lo]) / np.maximum(hi - lo, 1), np.inf))
    inverse = sum(np.where(np.isinf(p), 0, 1 / np.maximum(p, FLOOR)) for p in parts)
    return sum(~np.isinf(p) for p in parts) / inverse


BASELINES = {
    "harmonic mean": harmonic,
    "harmonic mean, 1 s": harmonic_seconds,
    "last": last,
    "EWMA": ewma,
}


@torch.no_grad()
def forecast(net, rates):
    xs = np.stack([log_rate(rates), np.ones_like(rates)], -1).astype(np.float32)
    return net(torch.from_numpy(xs[None]))[0].numpy()


def errors(net, traces):
    """Per source and method: mean absolute log error and relative error of each horizon, and how
    often the truth was below each quantile.
    """
    sums = {}
    for trace in traces:
        rates = trace.steps()
        if len(rates) <= WARM + HORIZONS[-1]:
            continue
        want = targets(rates)
        n = len(want)
        quantiles = forecast(net, rates)[:n]
        methods = {"network": quantiles[..., MEDIAN]}
        for name, f in BASELINES.items():
            methods[name] = np.repeat(log_rate(f(rates))[:n, None], len(HORIZONS), 1)
        for name, got in methods.items():
            log = np.abs(got - want)[WARM:]
            relative = np.abs(np.exp(got - want) - 1)[WARM:]
            s = sums.setdefault((trace.source, name), [0, 0.0, 0.0])
            s[0] += len(log)
            s[1] = s[1] + log.sum(0)
            s[2] = s[2] + relative.sum(0)
        below = (want[..., None] < quantiles)[WARM:]
        s = sums.setdefault((trace.source, "below"), [0, 0.0, 0.0])
        s[0] += len(below)
        s[1] = s[1] + below.sum(0)
    return {k: (a / n, b / n) for k, (n, a, b) in sums.items()}


def table(result):
    sources = sorted({s for s, _ in result})
    rows = []
    for source in sources:
        base, base_rel = result[source, "harmonic mean"]
        for name in ("network", *BASELINES):
            log, rel = result[source, name]
            cells = " | ".join(f"{e:.4f} ({100 * (e / b - 1):+.0f} %)" for e, b in zip(log, base))
            rels = " | ".join(f"{e:.3f}" for e in rel)
            rows.append(f"| {source} | {name} | {cells} | {rels} |")
    head = (
        "| source | method | log error 1 s | 2 s | 4 s | relative error 1 s | 2 s | 4 s |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *rows])


def judge(net, traces):
    """Largest and mean ratio of the log error to the harmonic mean's, over sources and horizons."""
    result = errors(net, traces)
    ratio = [result[s, "network"][0] / result[s, n][0] for s, n in result if n == "harmonic mean"]
    return float(np.max(ratio)), float(np.mean(ratio))


# ------------------------------------------------------------------ commands


def arguments(p):
    p.add_argument(
        "--data", default=os.environ.get("NNV_DATA"), help="folder with traces/{train,test}"
    )
    p.add_argument("--out", required=True, help="folder for checkpoints and the log")
    p.add_argument("--steps", type=int, default=1500)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--lr", type=float, default=3e-3, help="falls to zero along half a cosine")
    p.add_argument("--eval-every", type=int, default=150)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)


def traces_of(data, part):
    if not data:
        raise SystemExit("no traces: give --data, or set NNV_DATA")
    return read_traces(Path(data) / "traces" / part)


def load(path):
    c = torch.load(path, map_location="cpu", weights_only=True)
    net = Forecaster(c["hidden"])
    net.load_state_dict(c["best"])
    return net.eval(), c


def run(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    train, held = split(traces_of(args.data, "train"))
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    net = Forecaster()
    assert sum(p.numel() for p in net.parameters()) <= MAX_PARAMETERS
    optimiser = torch.optim.AdamW(net.parameters(), lr=args.lr, weight_decay=1e-2)
    ema = copy.deepcopy(net)
    step, best, best_error = 0, None, math.inf
    checkpoint = out / "last.pt"
    if checkpoint.exists():
        c = torch.load(checkpoint, map_location="cpu", weights_only=True)
        net.load_state_dict(c["net"])
        ema.load_state_dict(c["ema"])
        optimiser.load_state_dict(c["optimiser"])
        step, best, best_error = c["step"], c["best"], c["error"]
        print(f"goes on at step {step}", flush=True)
    windows, started = Windows(train, args.seed + 7919 * step), time.time()

    def save():
        new = checkpoint.with_suffix(".new")
        torch.save(
            {
                "net": net.state_dict(),
                "ema": ema.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
                "best": best,
                "error": best_error,
                "hidden": net.hidden,
                "args": vars(args),
            },
            new,
        )
        new.replace(checkpoint)

    while step < args.steps:
        for group in optimiser.param_groups:
            group["lr"] = args.lr * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        xs, want = windows.batch(args.batch)
        loss = pinball(net(xs)[:, WARM:], want[:, WARM:])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        with torch.no_grad():
            for kept, new in zip(ema.parameters(), net.parameters()):
                kept.lerp_(new, 1 - min(EMA, step / (step + 10)))
        if step % args.eval_every == 0 or step == args.steps:
            worst, error = judge(ema, held)
            if error < best_error:
                best, best_error = {k: v.clone() for k, v in ema.state_dict().items()}, error
            print(
                f"step {step} loss {loss.item():.4f} held-out log error {error:.4f} of the "
                f"harmonic mean's, worst {worst:.3f}, {time.time() - started:.0f} s",
                flush=True,
            )
            save()


def check_arguments(p):
    p.add_argument("--data", default=os.environ.get("NNV_DATA"))
    p.add_argument("checkpoint")
    p.add_argument("--part", choices=("train", "held", "test"), default="test")


def check_run(args):
    torch.set_num_threads(1)
    net, _ = load(args.checkpoint)
    if args.part == "test":
        traces = traces_of(args.data, "test")
    else:
        traces = split(traces_of(args.data, "train"))[args.part == "held"]
    result = errors(net, traces)
    print(table(result))
    print("\nHow often (%) the truth was below the quantile of 1 s | 2 s | 4 s, wanted:", QUANTILES)
    for source in sorted({s for s, _ in result}):
        below = 100 * result[source, "below"][0]
        print(source, " | ".join(" ".join(f"{v:.0f}" for v in row) for row in below))


# ------------------------------------------------------------------ export


def graph(net):
    """ONNX: `x` f32 [1,1,1,2], `h` f32 [1,1,1,H]; `q` f32 [1,1,3,7], `state` f32 [1,1,1,H]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []
    count = len(QUANTILES)

    def constant(name, value, dtype=np.float32):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def linear(weight, bias, x, name):
        w = constant(f"{name}_w", weight.detach().numpy().T[None, None])
        b = constant(f"{name}_b", bias.detach().numpy()[None, None, None])
        return node("Add", [node("MatMul", [x, w], f"{name}_m"), b], name)

    axis = constant("axis", [3], np.int64)

    def part(x, lo, hi, name):
        lo, hi = constant(f"{name}_lo", [lo], np.int64), constant(f"{name}_hi", [hi], np.int64)
        return node("Slice", [x, lo, hi, axis], name)

    n = net.hidden
    gx = linear(net.gru.weight_ih_l0, net.gru.bias_ih_l0, "x", "gx")
    gh = linear(net.gru.weight_hh_l0, net.gru.bias_hh_l0, "h", "gh")
    xs = [part(gx, i * n, (i + 1) * n, f"gx{i}") for i in range(3)]
    hs = [part(gh, i * n, (i + 1) * n, f"gh{i}") for i in range(3)]
    r = node("Sigmoid", [node("Add", [xs[0], hs[0]], "r0")], "r")
    u = node("Sigmoid", [node("Add", [xs[1], hs[1]], "u0")], "u")
    new = node("Add", [xs[2], node("Mul", [r, hs[2]], "n0")], "n1")
    new = node("Tanh", [new], "n")
    keep = node("Mul", [u, node("Sub", ["h", new], "k0")], "k")
    node("Add", [new, keep], "state")
    both = node("Concat", ["state", "x"], "both", axis=3)
    body = node("Relu", [linear(net.body.weight, net.body.bias, both, "body0")], "body")
    flat = linear(net.head.weight, net.head.bias, body, "head")
    shape = constant("shape", [1, 1, len(HORIZONS), count], np.int64)
    out = node("Reshape", [flat, shape], "out")
    middle = node("Add", [part(out, MEDIAN, MEDIAN + 1, "m0"), part("x", 0, 1, "base")], "m")
    # Sums of the steps between quantiles, as products with triangles.
    low = node("Softplus", [part(out, 0, MEDIAN, "l0")], "l1")
    high = node("Softplus", [part(out, MEDIAN + 1, count, "h0")], "h1")
    lower = constant("lower", np.tril(np.ones((MEDIAN, MEDIAN)))[None, None])
    upper = constant("upper", np.triu(np.ones((count - MEDIAN - 1,) * 2))[None, None])
    low = node("Sub", ["m", node("MatMul", [low, lower], "l2")], "l")
    high = node("Add", ["m", node("MatMul", [high, upper], "h2")], "hh")
    node("Concat", [low, middle, high], "q", axis=3)
    f32 = TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "network",
            [
                helper.make_tensor_value_info("x", f32, [1, 1, 1, FEATURES]),
                helper.make_tensor_value_info("h", f32, [1, 1, 1, n]),
            ],
            [
                helper.make_tensor_value_info("q", f32, [1, 1, len(HORIZONS), count]),
                helper.make_tensor_value_info("state", f32, [1, 1, 1, n]),
            ],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="nnvtrain",
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


@torch.no_grad()
def compare(net, onnx_bytes):
    """Largest difference between the graph and PyTorch over a sequence of 200 observations."""
    import onnxruntime

    run = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(3)
    xs = np.stack([rng.normal(0, 2, 200), rng.integers(0, 2, 200)], -1).astype(np.float32)
    want = net(torch.from_numpy(xs[None]))[0].numpy()
    h, worst = np.zeros((1, 1, 1, net.hidden), np.float32), 0.0
    for x, w in zip(xs, want):
        q, h = run.run(["q", "state"], {"x": x[None, None, None], "h": h})
        worst = max(worst, float(np.abs(q[0, 0] - w).max()))
    return worst


def export_arguments(p):
    p.add_argument("checkpoint")
    p.add_argument("--out", required=True, help="folder of the bundle")
    p.add_argument("--name", default="network")


def export_run(args):
    net, c = load(args.checkpoint)
    onnx_bytes = graph(net)
    worst = compare(net, onnx_bytes)
    if worst > 1e-3:
        raise SystemExit(f"the graph and PyTorch differ by {worst}")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "gru.onnx").write_bytes(onnx_bytes)
    seconds = [k * STEP for k in HORIZONS]
    parameters = sum(p.numel() for p in net.parameters())
    (out / "bundle.toml").write_text(
        f"""[bundle]
format = 1
kind = "network"
name = {json.dumps(args.name)}
description = "quantiles of a path's throughput over the next 1, 2 and 4 seconds"

[network]
file = "gru.onnx"
sha256 = "{hashlib.sha256(onnx_bytes).hexdigest()}"
state = {net.hidden}
step = {STEP}
horizons = {json.dumps(seconds)}
quantiles = {json.dumps(list(QUANTILES))}
floor = {FLOOR}
parameters = {parameters}

[training]
steps = {c["step"]}
batch = {c["args"]["batch"]}
lr = {c["args"]["lr"]}
data = "traces of fcc, hsdpa, oboe and puffer, four fifths of the training part"
"""
    )
    print(f"{out}: {parameters} parameters, differs from PyTorch by at most {worst:.1e}")

"""Speed of a bundle: ``python -m nnvtrain bench BUNDLE``.

Prints the best time of whole runs and, in parentheses, the sum of each operator's best time, which
other work on the machine disturbs less.
"""

from __future__ import annotations

import collections
import json
import os
import time
from pathlib import Path

import numpy as np

from . import model as M
from .export import DTYPES, session


def inputs_of(sess, h16, w16, batch=1):
    """Small random inputs of the right types and shapes."""
    rng = np.random.default_rng(0)
    dims = {"n": batch, "h16": h16, "w16": w16, "h8": 2 * h16, "w8": 2 * w16}
    types = {
        "tensor(int8)": np.int8,
        "tensor(uint8)": np.uint8,
        "tensor(int16)": np.int16,
        "tensor(float)": np.float32,
    }
    out = {}
    for i in sess.get_inputs():
        shape = [dims.get(d, d) for d in i.shape]
        lo, hi = {
            "mask": (0, 2),
            "feat": (0, 60),
            "p": (-400, 400),
            "d": (-40, 40),
            "x": (-400, 400),
            "r": (-30, 30),
            "step": (6, 7),
            "qoff": (-10, -9),
        }.get(i.name, (-8, 8))
        out[i.name] = rng.integers(lo, hi, shape).astype(types[i.type])
    return out


def measure(sess, feeds, seconds=1.0):
    """Best and median milliseconds."""
    sess.run(None, feeds)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        t = time.perf_counter()
        sess.run(None, feeds)
        times.append((time.perf_counter() - t) * 1e3)
    return min(times), sorted(times)[len(times) // 2]


def profile(path, feeds_of, threads=1, runs=30):
    """Milliseconds per operator kind and the optimised graph's nodes."""
    import onnxruntime as ort

    o = ort.SessionOptions()
    o.intra_op_num_threads = threads
    o.enable_profiling = True
    o.profile_file_prefix = "/tmp/nnv_profile"
    o.add_session_config_entry("session.intra_op.allow_spinning", "0")
    s = ort.InferenceSession(str(path), o, providers=["CPUExecutionProvider"])
    feeds = feeds_of(s)
    for _ in range(runs + 1):
        s.run(None, feeds)
    name = s.end_profiling()
    events = json.loads(Path(name).read_text())
    os.unlink(name)
    best, kind, shape = collections.defaultdict(list), {}, {}
    for e in events:
        if e.get("cat") == "Node" and e["name"].endswith("_kernel_time"):
            n = e["name"][: -len("_kernel_time")]
            best[n].append(e["dur"] / 1e3)
            kind[n] = e["args"]["op_name"]
            shape[n] = "; ".join(
                str(next(iter(t.values()))) for t in e["args"].get("output_type_shape", [])
            )
    best = {n: min(v) for n, v in best.items()}
    total = collections.defaultdict(lambda: [0.0, 0])
    for n, v in best.items():
        total[kind[n]][0] += v
        total[kind[n]][1] += 1
    return sorted(total.items(), key=lambda t: -t[1][0]), sorted(
        ((v, kind[n], n, shape[n]) for n, v in best.items()), reverse=True
    )


def arguments(p):
    p.add_argument("bundle")
    p.add_argument("--profile", help="graph to show the time per operator of")
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--size", default="640x360,1280x720")


def run(args):
    folder = Path(args.bundle)
    for size in args.size.split(","):
        w, h = map(int, size.split("x"))
        dims = -(-h // 16), -(-w // 16)
        if args.profile:
            ops, nodes = profile(
                folder / f"{args.profile}.onnx", lambda s: inputs_of(s, *dims), args.threads or 1
            )
            print(f"{args.profile} {size}: {sum(v for _, (v, _) in ops):.2f} ms")
            for op, (ms, n) in ops:
                print(f"  {ms:8.2f} ms {n:4d} {op}")
            for ms, kind, name, shape in nodes[:25]:
                print(f"    {ms:7.3f} {kind:24s} {name} {shape}")
            continue
        for threads in (args.threads,) if args.threads else (1, 2):
            total = {}
            for g in (
                "key_prior",
                "key_synth",
                "inter_prior",
                "inter_synth",
                "key_enc",
                "key_mean",
                "inter_enc",
            ):
                path = folder / f"{g}.onnx"
                s = session(path.read_bytes(), "all", threads)
                kernels, _ = profile(path, lambda s: inputs_of(s, *dims), threads)
                total[g] = measure(s, inputs_of(s, *dims))[0], sum(v for _, (v, _) in kernels)
            print(
                f"{size} {threads} threads, ms: "
                + "  ".join(f"{g} {a:.2f} ({b:.2f})" for g, (a, b) in total.items())
                + "".join(
                    f"  {k} {sum(total[f'{k}_{p}'][0] for p in ('prior', 'synth')):.1f}"
                    f" ({sum(total[f'{k}_{p}'][1] for p in ('prior', 'synth')):.1f})"
                    for k in ("key", "inter")
                ),
                flush=True,
            )

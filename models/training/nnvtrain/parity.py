"""Checks of a bundle: ``python -m nnvtrain check BUNDLE [--key CKPT --inter CKPT]``.

* files, hashes and known answers;
* ONNX Runtime against itself: all optimisation levels, 1 and 2 threads, alone and in a batch, bit
  for bit;
* with checkpoints: ONNX Runtime against the same networks in PyTorch (:class:`ExactOps`), bit for
  bit;
* the optimised graphs: that convolutions run as 8-bit kernels.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import numpy as np
import torch

from . import model as M
from .bundle import Bundle
from .export import (
    DTYPES,
    NORMATIVE,
    SAMPLE_K,
    answer_inputs,
    crc32c,
    feed,
    le,
    load,
    run_prior,
    run_synth,
    session,
    tables_of,
)
from .onnx_ops import E, ExactOps

LEVELS = ["none", "basic", "extended", "all"]


class Mismatch(AssertionError):
    """Two computations that must agree bit for bit do not."""


def same(what, a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        raise Mismatch(f"{what}: {a.dtype} {a.shape} against {b.dtype} {b.shape}")
    bad = int((a != b).sum())
    if bad:
        worst = int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())
        raise Mismatch(f"{what}: {bad} of {a.size} values differ, by up to {worst}")


@torch.no_grad()
def reference(net, v):
    """The normative networks in PyTorch on graph inputs: (scale_idx, feat, pic)."""
    ops = ExactOps()
    t = {k: torch.from_numpy(np.asarray(a)) for k, a in v.items()}
    z_up, qvec = ops.s8(ops.input(t["z_up"], 0), 0), ops.s8(ops.input(t["qvec"], M.ACT_K), M.ACT_K)
    p, d = (ops.input(t[n], SAMPLE_K) if net.inter else None for n in ("p", "d"))
    index, feat = run_prior(net, ops, z_up, qvec, E(t["qoff"].double(), k=1), p, d)
    r = ops.clip(ops.input(t["r"], 0), -M.COEF_MAX, M.COEF_MAX)
    m = t["mask"].double()
    pic = run_synth(net, ops, r, feat, qvec, m, m, p, d)
    return (
        index.value.clamp(max=M.SCALES - 1).numpy().astype(np.uint8),
        (feat.value * 2.0**M.ACT_K).numpy().astype(np.uint8),
        (pic.value * 2.0**SAMPLE_K).numpy().astype(np.int16),
    )


@torch.no_grad()
def reference_delta(net, v):
    """Change of the means of key frames in PyTorch, as ``key_mean`` gives it."""
    ops = ExactOps()
    feat = E(
        torch.from_numpy(v["feat"]).double() * 2.0**-M.ACT_K, "u8", M.ACT_K, 255 * 2.0**-M.ACT_K
    )
    mask = torch.from_numpy(v["mask"]).double()
    m1 = net.means.mean_first(ops, feat)
    first = ops.clip(ops.add(ops.input(torch.from_numpy(v["r"]), 0), m1), -M.COEF_MAX, M.COEF_MAX)
    m2 = net.means.mean_second(ops, feat, ops.mask(first, mask), m1)
    return ((m2.value - m1.value) * (1 - mask)).numpy().astype(np.int16)


def run_both(sessions, v):
    """(scale_idx, feat, pic) of ONNX Runtime."""
    prior, synth = sessions
    v = dict(v)
    v |= dict(zip([o.name for o in prior.get_outputs()], prior.run(None, feed(prior, v))))
    return v["scale_idx"], v["feat"], synth.run(["pic"], feed(synth, v))[0]


def sessions_of(folder, kind, level="all", threads=1):
    return [
        session((folder / f"{kind}_{part}.onnx").read_bytes(), level, threads)
        for part in ("prior", "synth")
    ]


def check_files(folder):
    m = tomllib.loads((folder / "bundle.toml").read_text())
    digests = {}
    for name, expected in m["files"].items():
        digests[name] = hashlib.sha256((folder / name).read_bytes())
        if digests[name].hexdigest() != expected:
            raise Mismatch(
                f"{name}: SHA-256 is {digests[name].hexdigest()}, bundle.toml says {expected}"
            )
    whole = hashlib.sha256(
        b"".join(digests[f"{n}.onnx"].digest() for n in NORMATIVE) + digests["tables.bin"].digest()
    )
    if whole.hexdigest() != m["hash"]:
        raise Mismatch(
            f"bundle.toml states the hash {m['hash']}, its files make {whole.hexdigest()}"
        )
    return m


def known_answers(folder, m):
    """[(graph, inputs, {output: crc})]"""
    kat = (folder / "kat.bin").read_bytes()
    return [
        (
            a["graph"],
            {i["name"]: Bundle._array(kat, i) for i in a["inputs"]},
            {o["name"]: int(o["crc32c"], 16) for o in a["outputs"]},
        )
        for a in m["known_answer"]
    ]


def check_known_answers(folder, m, level, threads):
    for graph, inputs, outputs in known_answers(folder, m):
        s = session((folder / f"{graph}.onnx").read_bytes(), level, threads)
        for name, value in zip([o.name for o in s.get_outputs()], s.run(None, feed(s, inputs))):
            if crc32c(le(value)) != outputs[name]:
                raise Mismatch(
                    f"{graph}: the known answer of {name} differs ({level}, {threads} threads)"
                )


class Shape:
    """What :func:`answer_inputs` needs to know of networks, from a bundle's manifest."""

    def __init__(self, manifest, inter):
        self.inter = inter
        self.cfg = M.Config(hyper=manifest["hyper_channels"], width=manifest["qvec_channels"])


def check_runtime(folder, m, tables, size=(11, 14), batch=3):
    """Bit identity of ONNX Runtime with itself. Returns the number of runs compared."""
    count = 0
    for kind in ("key", "inter"):
        t = {k.split(".")[1]: a for k, a in tables.items() if k.startswith(kind)}
        v = answer_inputs(Shape(m, kind == "inter"), kind, t, *size, batch, 5, 99)
        first = None
        for level in LEVELS:
            for threads in (1, 2):
                s = sessions_of(folder, kind, level, threads)
                got = run_both(s, v)
                first = first or got
                for name, a, b in zip(("scale_idx", "feat", "pic"), first, got):
                    same(f"{kind} {name}, {level}, {threads} threads", a, b)
                for i in range(batch):
                    one = {n: a[i : i + 1] if n != "mask" else a for n, a in v.items()}
                    for name, a, b in zip(("scale_idx", "feat", "pic"), first, run_both(s, one)):
                        same(
                            f"{kind} {name}, {level}, {threads} threads, frame {i} alone",
                            a[i : i + 1],
                            b,
                        )
                count += 1 + batch
    return count


def check_torch(folder, nets, tables, more=()):
    """Bit identity with PyTorch. ``more``: further inputs [(kind, values)]."""
    count = 0
    todo = list(more)
    for kind, net in nets.items():
        t = {k.split(".")[1]: a for k, a in tables.items() if k.startswith(kind)}
        for n, a in tables_of(net).items():
            same(f"table {kind}.{n}", a, t[n].astype(a.dtype))
        for seed, size, batch, q in ((3, (5, 7), 2, 0), (4, (9, 6), 1, 33), (5, (8, 8), 2, 46)):
            todo.append((kind, answer_inputs(net, kind, t, *size, batch, q, seed)))
    sessions = {kind: sessions_of(folder, kind) for kind in nets}
    for kind, v in todo:
        for name, a, b in zip(
            ("scale_idx", "feat", "pic"), reference(nets[kind], v), run_both(sessions[kind], v)
        ):
            same(f"{kind} {name}, PyTorch against ONNX Runtime", a, b)
        if kind == "key":
            # Encoders that disagree with their decoders about means lose quality.
            v = v | {"feat": reference(nets[kind], v)[1]}
            s = session((folder / "key_mean.onnx").read_bytes())
            same(
                "key delta, PyTorch against ONNX Runtime",
                reference_delta(nets[kind], v),
                s.run(["delta"], feed(s, v))[0],
            )
        count += 1
    return count


def operators(folder, graph, level="all"):
    """Operators of the optimised graph: {name: count}."""
    import collections
    import tempfile

    import onnx
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as t:
        o = ort.SessionOptions()
        o.log_severity_level = 3
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        o.optimized_model_filepath = f"{t}/o.onnx"
        ort.InferenceSession(str(folder / f"{graph}.onnx"), o, providers=["CPUExecutionProvider"])
        return collections.Counter(n.op_type for n in onnx.load(f"{t}/o.onnx").graph.node)


def arguments(p):
    p.add_argument("bundle")
    p.add_argument("--key", help="checkpoint it was made from")
    p.add_argument("--inter", help="checkpoint it was made from")
    p.add_argument("--init", action="store_true", help="the networks not given are untrained")


def run(args):
    folder = Path(args.bundle)
    m = check_files(folder)
    print("files and hashes: fine")
    for level in LEVELS:
        for threads in (1, 2):
            check_known_answers(folder, m, level, threads)
    print(
        f"known answers: {len(m['known_answer'])} fine at every optimisation level, 1 and 2 threads"
    )
    tables = Bundle(folder).tables
    print(f"ONNX Runtime with itself: {check_runtime(folder, m, tables)} runs identical")
    for g in NORMATIVE:
        c = operators(folder, g)
        print(f"{g}: {c['QLinearConv']} convolutions in 8 bit, {c['Conv']} in float32")
    if args.key or args.inter or args.init:
        from .export import networks

        nets, _ = networks(args)
        print(f"PyTorch with ONNX Runtime: {check_torch(folder, nets, tables)} inputs identical")

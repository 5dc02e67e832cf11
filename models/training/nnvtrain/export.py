"""Export of a bundle: ``python -m nnvtrain export --key CKPT --inter CKPT --out FOLDER --name
NAME``.

The layout of a bundle is described in ``models/training/README.md``. The same checkpoints give the
same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto

from . import model as M
from .onnx_ops import FreeOps, Graph, OPSET, OnnxOps, T, layer_names

BINS = 15
NORMATIVE = ["key_prior", "key_synth", "inter_prior", "inter_synth"]
# Coefficients of the linear path, in 8-bit units; samples are given in 10-bit units: two bits more.
SAMPLE_K = 2
SAMPLE_LO, SAMPLE_HI = -128.0, 127.75
DIFF_LO, DIFF_HI = -255.75, 255.75

NCHW8 = ["n", M.PACKED, "h8", "w8"]
NCHW16 = ["n", M.LATENT, "h16", "w16"]


# ---------------------------------------------------------------- networks as the decoder runs them


def run_prior(net, ops, z_up, qvec, qoff, p=None, d=None):
    """Scale index (u8, not yet clipped to the table from above) and features."""
    index, feat = net.prior.run(ops, z_up, qvec, ops.s8(qoff, 1), p, d)
    return ops.u8(index, 0), feat


def clip_index(g, index):
    """Name of the u8 tensor of scale indices within the table."""
    return g.node(
        "Clip", [index.name, g.const(np.uint8(0)), g.const(np.uint8(M.SCALES - 1))], "index"
    )


def coefficients(net, ops, r, feat, mask, which):
    """Dequantised latents from the residual: the means are added in two checkerboard steps.
    ``which``: 0/1 selector.
    """
    if net.means is None:
        return ops.clip(r, -M.COEF_MAX, M.COEF_MAX)
    m1 = net.means.mean_first(ops, feat)
    first = ops.clip(ops.add(r, m1), -M.COEF_MAX, M.COEF_MAX)
    m2 = net.means.mean_second(ops, feat, ops.mask(first, mask), m1)
    return ops.select(which, first, ops.clip(ops.add(r, m2), -M.COEF_MAX, M.COEF_MAX))


def run_synth(net, ops, r, feat, qvec, mask=None, which=None, p=None, d=None):
    """The picture in 8-bit units, a multiple of 1/4."""
    return net.synthesis.run(
        ops, net.transform, coefficients(net, ops, r, feat, mask, which), feat, qvec, p, d
    )


# ---------------------------------------------------------------- graphs


def _inputs(net, g, ops, names):
    """Declares inputs and gives their tensors."""
    cfg, out = net.cfg, {}
    for name in names:
        if name == "z_up":
            g.input(name, TensorProto.INT8, ["n", cfg.hyper, "h16", "w16"])
            out[name] = ops.s8(ops.input(name, cfg.hyper, 0, -128.0, 127.0), 0)
        elif name == "qvec":
            g.input(name, TensorProto.INT8, ["n", cfg.width, 1, 1])
            out[name] = ops.s8(ops.input(name, cfg.width, M.ACT_K, -8.0, 127 / 16), M.ACT_K)
        elif name == "qoff":
            g.input(name, TensorProto.FLOAT, ["n", 1, 1, 1])
            out[name] = T("wide", 1, 1, -32.0, 32.0, 0, name)
        elif name in ("p", "x"):
            g.input(name, TensorProto.INT16, NCHW8)
            out[name] = ops.input(name, M.PACKED, SAMPLE_K, SAMPLE_LO, SAMPLE_HI)
        elif name == "d":
            g.input(name, TensorProto.INT16, NCHW8)
            out[name] = ops.input(name, M.PACKED, SAMPLE_K, DIFF_LO, DIFF_HI)
        elif name == "r":
            g.input(name, TensorProto.INT16, NCHW16)
            out[name] = ops.input(name, M.LATENT, 0, -float(M.COEF_MAX), float(M.COEF_MAX))
        elif name == "feat":
            g.input(name, TensorProto.UINT8, ["n", cfg.prior_width, "h16", "w16"])
            out[name] = T("u8", cfg.prior_width, M.ACT_K, 0.0, 255 / 16, name=name)
        elif name == "mask":
            g.input(name, TensorProto.UINT8, [1, 1, "h16", "w16"])
            out["mask"] = g.node("Cast", [name], "mask_f", to=TensorProto.FLOAT)
            out["which"] = g.node("Cast", [name], "mask_b", to=TensorProto.BOOL)
        elif name == "step":
            g.input(name, TensorProto.FLOAT, ["n", M.LATENT, 1, 1])
            out[name] = T("free", M.LATENT, name=name)
    return out


def prior_graph(net, kind):
    g = Graph(f"{kind}_prior")
    ops = OnnxOps(g, layer_names(net))
    i = _inputs(net, g, ops, ["z_up", "qvec", "qoff"] + (["p", "d"] if net.inter else []))
    index, feat = run_prior(net, ops, i["z_up"], i["qvec"], i["qoff"], i.get("p"), i.get("d"))
    g.output("scale_idx", clip_index(g, index), TensorProto.UINT8, NCHW16)
    g.output("feat", feat.name, TensorProto.UINT8, ["n", net.cfg.prior_width, "h16", "w16"])
    return g


def synth_graph(net, kind):
    g = Graph(f"{kind}_synth")
    ops = OnnxOps(g, layer_names(net))
    i = _inputs(net, g, ops, ["r", "feat", "qvec"] + (["p", "d"] if net.inter else ["mask"]))
    pic = run_synth(
        net,
        ops,
        i["r"],
        i["feat"],
        i["qvec"],
        i.get("mask"),
        i.get("which"),
        i.get("p"),
        i.get("d"),
    )
    g.output(
        "pic",
        g.node("Cast", [ops.wide(pic, -SAMPLE_K)], to=TensorProto.INT16),
        TensorProto.INT16,
        NCHW8,
    )
    return g


def enc_graph(net, kind, fast=True):
    """The encoder. The first means of key frames come from the normative networks, which it holds;
    the
    rest is free.

    The second means depend on the symbols that the codec chooses in the end: :func:`mean_graph`.
    """
    g = Graph(f"{kind}_enc")
    ops, free = OnnxOps(g, layer_names(net)), FreeOps(g, layer_names(net), fast)
    names = ["x", "step", "qoff"] + (["p", "d"] if net.inter else ["qvec"])
    i = _inputs(net, g, ops, names)
    x = free.of(i["x"])
    p, d = (free.of(i[n]) for n in ("p", "d")) if net.inter else (None, None)
    # The quantizer, whose rows the analysis needs, is -2 times the offset of the scale indices.
    q = g.node(
        "Clip",
        [g.node("Mul", [i["qoff"].name, g.f32(-2.0)]), g.f32(0.0), g.f32(M.QUANTIZERS - 1.0)],
    )
    q = g.node(
        "Reshape",
        [g.node("Cast", [g.node("Round", [q])], to=TensorProto.INT64), g.i64([-1])],
        "quantizer",
    )

    def row(table):
        t = table.table().detach().cpu().numpy().astype(np.float32)
        return T(
            "free",
            t.shape[1],
            name=g.node("Gather", [g.const(t[:, :, None, None], "rows"), q], "row", axis=0),
        )

    ana = net.analysis
    y = ana.latents(free, net.transform, x, row(ana.q), p, d)
    z = free.of(ana.hyper(free, free.scale(y, net.y_fit), row(ana.hq), p))
    z = free.clip(T("free", z.channels, name=g.node("Round", [z.name])), -127.0, 127.0)
    step = i["step"].name
    div = lambda a: g.node("Div", [a, step])
    if net.means is None:
        y = div(y.name)
    else:
        shape = g.node("Slice", [g.node("Shape", [y.name]), g.i64([2]), g.i64([4])])
        up = g.node(
            "Resize",
            [z.name, "", g.f32([1, 1, 4, 4])],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )
        up = g.node("Slice", [up, g.i64([0, 0]), shape, g.i64([2, 3])], "z_up")
        z_up = ops.s8(T("wide", z.channels, 0, -127.0, 127.0, 0, up), 0)
        index, feat = run_prior(net, ops, z_up, i["qvec"], i["qoff"])
        y = div(g.node("Sub", [y.name, ops.wide(net.means.mean_first(ops, feat), 0)]))
    g.output("y", y, TensorProto.FLOAT, NCHW16)
    g.output(
        "z",
        g.node("Cast", [z.name], to=TensorProto.INT8),
        TensorProto.INT8,
        ["n", net.cfg.hyper, "hz", "wz"],
    )
    return g


def mean_graph(net):
    """For encoders: how much the means of key frames change at the other positions once the anchors
    are known.
    """
    g = Graph("key_mean")
    ops = OnnxOps(g, layer_names(net))
    i = _inputs(net, g, ops, ["feat", "r", "mask"])
    m1 = net.means.mean_first(ops, i["feat"])
    anchors = ops.mask(ops.clip(ops.add(i["r"], m1), -M.COEF_MAX, M.COEF_MAX), i["mask"])
    delta = ops.sub(net.means.mean_second(ops, i["feat"], anchors, m1), m1)
    # Far beyond any latent, within i16.
    delta = ops.clip(delta, -8191, 8191)
    delta = g.node("Where", [i["which"], g.f32(0.0), ops.wide(delta, 0)])
    g.output("delta", g.node("Cast", [delta], to=TensorProto.INT16), TensorProto.INT16, NCHW16)
    return g


# ---------------------------------------------------------------- tables


def probabilities(sigma):
    """P(bin j = 1) of a Laplace distribution of deviation sigma (steps), in 1/65536. [len, 15]."""
    b = np.asarray(sigma, np.float64) / math.sqrt(2.0)
    p = np.repeat(np.exp(-1.0 / b)[:, None], BINS, 1)
    p[:, 0] = np.exp(-0.5 / b)
    # Adaptive coders want no certainty at the start.
    return np.clip(np.round(p * 65536), 64, 65536 - 64).astype(np.uint16)


def step_table(net):
    q = torch.arange(M.QUANTIZERS)
    with torch.no_grad():
        s = net.steps(q)[:, :, 0, 0].double()
    # Whole numbers: dequantised latents are integers, and rounding them costs 0.1 to 0.2 dB where
    # steps are not.
    return (torch.round(s) * 64).clamp(64, 65535).numpy().astype(np.uint16)


def tables_of(net):
    with torch.no_grad():
        qvec = torch.round(net.qvec.table() * 2.0**M.ACT_K).clamp(-128, 127).numpy().astype(np.int8)
        z_sigma = torch.exp2(net.z_log_scale).clamp(0.2, 64.0).numpy()
    sigma = M.scale_of(torch.arange(M.SCALES).double()).numpy()
    return {
        "step": step_table(net),
        "qvec": qvec,
        "qoff": -np.arange(M.QUANTIZERS, dtype=np.int16),
        "y_prob": probabilities(sigma),
        "z_prob": probabilities(z_sigma),
        "y_order": np.argsort(M.frequencies().numpy(), kind="stable").astype(np.uint16),
    }


# ---------------------------------------------------------------- known answers


class Integers:
    """A fixed integer generator (xorshift64*): inputs never depend on a library's version."""

    def __init__(self, seed):
        self.s = (seed * 0x9E3779B97F4A7C15 + 1) & (2**64 - 1)

    def next(self):
        s = self.s
        s ^= s >> 12
        s = (s ^ (s << 25)) & (2**64 - 1)
        s ^= s >> 27
        self.s = s
        return ((s * 0x2545F4914F6CDD1D) & (2**64 - 1)) >> 32

    def array(self, shape, lo, hi, dtype):
        n = int(np.prod(shape))
        return np.array([lo + self.next() % (hi - lo + 1) for _ in range(n)], dtype).reshape(shape)

    def peaked(self, shape, peak, dtype):
        """Mostly small values, some up to ±peak."""
        n = int(np.prod(shape))
        out = []
        for _ in range(n):
            v, bits = self.next(), self.next() % 4
            m = (peak, peak >> 2, peak >> 5, peak >> 7)[bits]
            out.append(v % (2 * m + 1) - m)
        return np.array(out, dtype).reshape(shape)


def residuals(g, shape):
    """Mostly small, a few up to the limit."""
    r = g.peaked(shape, 60, np.int16).reshape(-1)
    for i in range(0, r.size, 211):
        r[i] = g.next() % (2 * M.COEF_MAX + 1) - M.COEF_MAX
    return r.reshape(shape)


def answer_inputs(net, kind, tables, h16=4, w16=5, batch=1, quantizer=21, seed=1):
    """Inputs of both normative graphs but the features."""
    g = Integers(seed + (7 if kind == "inter" else 0))
    c = net.cfg
    qs = [(quantizer + 17 * b) % 64 for b in range(batch)]
    smooth = g.array((batch, M.PACKED, 1, 1), -300, 300, np.int16)
    out = {
        "z_up": g.peaked((batch, c.hyper, h16, w16), 127, np.int8),
        "qvec": tables["qvec"][qs][:, :, None, None],
        "qoff": (tables["qoff"][qs] / 2).astype(np.float32).reshape(-1, 1, 1, 1),
        "r": residuals(g, (batch, M.LATENT, h16, w16)),
        "mask": M.checkerboard(h16, w16).numpy().astype(np.uint8),
    }
    if net.inter:
        out["p"] = np.clip(
            smooth + g.array((batch, M.PACKED, 2 * h16, 2 * w16), -250, 250, np.int16), -512, 511
        )
        out["d"] = g.peaked((batch, M.PACKED, 2 * h16, 2 * w16), 1023, np.int16)
    return out


def session(model, level="all", threads=1):
    import onnxruntime as ort

    o = ort.SessionOptions()
    o.intra_op_num_threads = threads
    o.inter_op_num_threads = 1
    o.log_severity_level = 3
    o.add_session_config_entry("session.intra_op.allow_spinning", "0")
    o.graph_optimization_level = {
        "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }[level]
    data = model if isinstance(model, (bytes, str)) else model.SerializeToString()
    return ort.InferenceSession(data, o, providers=["CPUExecutionProvider"])


def feed(sess, values):
    return {i.name: values[i.name] for i in sess.get_inputs()}


def answer_values(models, net, kind, inputs, level="all", threads=1):
    """Adds the outputs of both graphs to the inputs."""
    out = dict(inputs)
    for part in ("prior", "synth"):
        s = session(models[f"{kind}_{part}"], level, threads)
        for o, v in zip(s.get_outputs(), s.run(None, feed(s, out))):
            out[o.name] = v
    return out


_CRC = []


def crc32c(data: bytes) -> int:
    if not _CRC:
        for i in range(256):
            c = i
            for _ in range(8):
                c = (c >> 1) ^ (0x82F63B78 if c & 1 else 0)
            _CRC.append(c)
    c = 0xFFFFFFFF
    for b in data:
        c = _CRC[(c ^ b) & 255] ^ (c >> 8)
    return c ^ 0xFFFFFFFF


DTYPES = {"int8": "i8", "uint8": "u8", "int16": "i16", "uint16": "u16", "float32": "f32"}


def le(a):
    return np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).tobytes()


# ---------------------------------------------------------------- the bundle


def serialise(model):
    return model.SerializeToString(deterministic=True)


def build(key, inter, fast=True):
    """All graphs of a bundle: {name: Graph}. Raises NotExact when a normative one would not be
    exact.
    """
    out = {}
    for kind, net in (("key", key), ("inter", inter)):
        out[f"{kind}_prior"], out[f"{kind}_synth"] = prior_graph(net, kind), synth_graph(net, kind)
        out[f"{kind}_enc"] = enc_graph(net, kind, fast)
        if net.means is not None:
            out[f"{kind}_mean"] = mean_graph(net)
    return out


def toml_value(v):
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (int, float)):
        return repr(v)
    return json.dumps(str(v))


def writable(folder):
    """Makes the folder of a bundle, or ends with a clear error before minutes are spent."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise SystemExit(
            (
                f"the bundle cannot be written to {folder}: {e.strerror}; name a folder that can "
                "be written to with --out"
            )
        ) from e
    return folder


def write_bundle(folder, name, key, inter, training, fast=True):
    """Writes a bundle and returns its hash. ``training``: {table: {fact: value}} for
    ``bundle.toml``.
    """
    folder = writable(folder)
    nets = {"key": key, "inter": inter}
    graphs = build(key, inter, fast)
    models = {n: g.model() for n, g in graphs.items()}
    files = {f"{n}.onnx": serialise(m) for n, m in models.items()}

    blob, table_lines, tables = b"", [], {}
    for kind, net in nets.items():
        tables[kind] = tables_of(net)
        for t, a in tables[kind].items():
            table_lines.append(
                (
                    f'"{kind}.{t}" = {{ dtype = "{DTYPES[a.dtype.name]}", shape = '
                    f"{list(a.shape)}, offset = {len(blob)} }}"
                )
            )
            blob += le(a)
            blob += b"\0" * (-len(blob) % 4)
    files["tables.bin"] = blob

    kat, answers = b"", []
    for kind, net in nets.items():
        for batch, quantizer, size in ((1, 21, (4, 5)), (2, 40, (3, 4))):
            values = answer_values(
                models,
                net,
                kind,
                answer_inputs(net, kind, tables[kind], *size, batch, quantizer, batch),
            )
            for part in ("prior", "synth"):
                m = models[f"{kind}_{part}"]
                lines = []
                for i in m.graph.input:
                    a = values[i.name]
                    lines.append(
                        (
                            f'  {{ name = "{i.name}", dtype = "{DTYPES[a.dtype.name]}", shape = '
                            f"{list(a.shape)}, offset = {len(kat)} }},"
                        )
                    )
                    kat += le(a)
                    kat += b"\0" * (-len(kat) % 4)
                outs = ", ".join(
                    f'{{ name = "{o.name}", crc32c = "{crc32c(le(values[o.name])):08x}" }}'
                    for o in m.graph.output
                )
                answers.append(
                    "\n".join(
                        [
                            "[[known_answer]]",
                            f'graph = "{kind}_{part}"',
                            "inputs = [",
                            *lines,
                            "]",
                            f"outputs = [ {outs} ]",
                            "",
                        ]
                    )
                )
    files["kat.bin"] = kat

    digest = {n: hashlib.sha256(b).digest() for n, b in files.items()}
    whole = hashlib.sha256(
        b"".join(digest[n] for n in [f"{g}.onnx" for g in NORMATIVE] + ["tables.bin"])
    ).hexdigest()
    card = model_card(name, whole, nets, graphs, files, training)
    digest["MODEL_CARD.md"] = hashlib.sha256(card.encode()).digest()
    toml = [
        "format = 1",
        'kind = "codec"',
        f'name = "{name}"',
        f'hash = "{whole}"',
        f"latent_channels = {M.LATENT}",
        f"hyper_channels = {key.cfg.hyper}",
        f"qvec_channels = {key.cfg.width}",
        f"opset = {OPSET}",
        "",
        "[files]",
    ]
    toml += [f'"{n}" = "{d.hex()}"' for n, d in sorted(digest.items())]
    toml += ["", "[tables]", *table_lines, "", *answers]
    for table, facts in training.items():
        toml += [f"[training.{table}]", *(f"{k} = {toml_value(v)}" for k, v in facts.items()), ""]
    for n, b in files.items():
        (folder / n).write_bytes(b)
    (folder / "MODEL_CARD.md").write_text(card)
    (folder / "bundle.toml").write_text("\n".join(toml))
    return whole


def macs_per_pixel(graph, model):
    """Multiply-accumulates per luma sample, counted on shapes of a 16×16 block: 4 positions at 1/8,
    one at 1/16.
    """
    total = 0
    inits = {i.name: tuple(i.dims) for i in model.graph.initializer}
    made = {o: n for n in model.graph.node for o in n.output}
    scale = {"x": 4, "p": 4, "d": 4}
    # Positions of each tensor per 16×16 block, by propagation.
    for n in model.graph.node:
        pos = max((scale.get(i, 0) for i in n.input), default=0) or 1
        if n.op_type == "Transpose":
            pos = 4
        if n.op_type == "Conv":
            w = n.input[1]
            while w not in inits:
                w = made[w].input[0]
            stride = next(list(a.ints) for a in n.attribute if a.name == "strides")[0]
            pos = pos / stride**2
            total += pos * math.prod(inits[w])
        for o in n.output:
            scale[o] = pos
    return total / 256


def model_card(name, whole, nets, graphs, files, training):
    size = sum(len(b) for b in files.values())
    lines = [
        f"# {name}",
        "",
        (
            "A bundle of the NNV codec: quantised networks with power-of-two scales (see "
            "docs/decisions/044-exactness-is-free.md)."
        ),
        "",
        f"- Hash: `{whole}`",
        f"- Size: {size / 1e6:.2f} MB",
        "- Pictures: YUV 4:2:0, 8 and 10 bit, any size.",
        "- Intended use: coding video with the elements `nnvenc` and `nnvdec`. "
        "Not a generative model; it adds nothing that the bits do not pay for, "
        "but it was trained on little data, and content unlike that costs more bits.",
        "",
        "| graph | normative | bytes | MAC per luma sample | largest accumulator (of 2^24) |",
        "|---|---|---|---|---|",
    ]
    for n, g in graphs.items():
        acc = max((a for _, a in g.facts), default=0)
        macs = macs_per_pixel(g, g.model())
        lines.append(
            f"| {n} | {'yes' if n in NORMATIVE else 'no'} | {len(files[n + '.onnx'])} "
            f"| {macs:.0f} | {acc / 2**24:.3f} |"
        )
    lines += [
        "",
        f"`nnv model {name} --atlas FILE.html` draws what each of the 384 latent channels carries: "
        "its picture, its share of the bits at three quantizers, whether it is dead.",
    ]
    for table, facts in training.items():
        lines += ["", f"## Training: {table}", "", *(f"- {k}: {v}" for k, v in facts.items())]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- command


def law_of_scales():
    """Deviation of the latents of natural pictures, about: a 1/f law."""
    return 150.0 / (1.0 + 16.0 * M.frequencies()) ** 1.6


def fresh(inter, seed):
    torch.manual_seed(seed)
    net = M.FrameCodec(M.Config(), inter)
    net.init_statistics(law_of_scales() * (0.3 if inter else 1.0))
    return net


HIDDEN_ARGS = {
    "steps",
    "minutes",
    "data",
    "cache",
    "out",
    "key",
    "device",
    "threads",
    "save_every",
    "eval_every",
    "command",
}


def load(path, which="ema"):
    """Network and training facts of a checkpoint."""
    c = torch.load(path, map_location="cpu", weights_only=True)
    net = M.FrameCodec(M.Config(**c["cfg"]), c["inter"])
    net.load_state_dict(c[which])
    facts = {"steps": int(c["step"]), "hours": round(float(c["seconds"]) / 3600, 2)}
    facts |= {k: v for k, v in sorted(c.get("log_args", {}).items()) if k not in HIDDEN_ARGS}
    return net, facts


def arguments(p):
    p.add_argument("--key", help="checkpoint of the key-frame networks")
    p.add_argument("--inter", help="checkpoint of the inter-frame networks")
    p.add_argument(
        "--init", action="store_true", help="untrained networks in place of those not given"
    )
    p.add_argument("--out", required=True, help="folder of the bundle")
    p.add_argument("--name", default="realtime")
    p.add_argument(
        "--encoder",
        choices=["fast", "float"],
        default="fast",
        help="fast: the analysis runs mostly in 8 bit, half the time for 0.2 %% of rate",
    )
    p.add_argument("--facts", help="TOML file with further facts for [training.*]")


def networks(args):
    """The networks named by --key, --inter and --init, and their training facts."""
    from .train import init_from_key

    nets, training = {}, {}
    for kind, path in (("key", args.key), ("inter", args.inter)):
        if path:
            nets[kind], training[kind] = load(path)
            if nets[kind].inter != (kind == "inter"):
                raise SystemExit(
                    f"{path} holds networks for {'inter' if nets[kind].inter else 'key'} frames, "
                    f"{kind} expected"
                )
        elif args.init:
            nets[kind] = fresh(kind == "inter", 1)
            if kind == "inter" and args.key:
                init_from_key(nets[kind], nets["key"])
            training[kind] = {
                "steps": 0,
                "note": "untrained: a block transform with fresh networks beside it",
            }
        else:
            raise SystemExit(f"give --{kind} CHECKPOINT, or --init for untrained networks")
        nets[kind].eval().requires_grad_(False)
    return nets, training


def run(args):
    writable(args.out)
    nets, training = networks(args)
    if args.facts:
        import tomllib

        for table, facts in tomllib.loads(Path(args.facts).read_text()).items():
            training.setdefault(table, {}).update(facts)
    whole = write_bundle(
        args.out, args.name, nets["key"], nets["inter"], training, args.encoder == "fast"
    )
    print(f"{args.out}: {whole}")

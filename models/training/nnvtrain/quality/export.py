"""Bundles of kind `quality`: ``python -m nnvtrain quality-export CHECKPOINT --out FOLDER``.

Float32, since nothing of it is normative. A graph that does not agree with PyTorch is refused. The
same checkpoint gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import numpy as np
import torch

from .material import CAUSES
from .model import EPSILON, LOG_SCALE, NOISE, PATCH, QualityNet, load, save

MOST_PATCHES = 12
TOLERANCE = 1e-4


def graph(net: QualityNet) -> bytes:
    """patches [N,2,64,64], memory [1,1,1,M] -> scores [1,1,1,6], next [1,1,1,M]."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights = [], []

    def constant(name, value):
        value = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(kind, inputs, name, **attributes):
        nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def tiny(name, value):
        return constant(name, np.float32(value))

    epsilon, noise, scale = (
        tiny("epsilon", EPSILON), tiny("noise", NOISE), tiny("log_scale", LOG_SCALE))

    def mean_and_spread(x, axes, name):
        """With `axes` gone."""
        axes = constant(f"{name}_axes", np.array(axes, np.int64))
        off = node("Sub", [x, node("ReduceMean", [x, axes], f"{name}_kept", keepdims=1)],
                   f"{name}_off")
        variance = node("ReduceMean", [node("Mul", [off, off], f"{name}_square"), axes],
                        f"{name}_variance", keepdims=0)
        spread = node("Sqrt", [node("Add", [variance, epsilon], f"{name}_above")], f"{name}_spread")
        return [node("ReduceMean", [x, axes], f"{name}_mean", keepdims=0), spread]

    x, seen = "patches", []
    for i, (first, body) in enumerate(zip(net.first, net.body)):
        if i:
            x = node("AveragePool", [x], f"size{i}", kernel_shape=[2, 2], strides=[2, 2])
        y = node("Conv", [x, constant(f"first{i}_w", first.weight)], f"first{i}",
                 kernel_shape=list(first.kernel_size), strides=list(first.stride))
        y = node("Add", [node("Mul", [y, y], f"first{i}_square"), noise], f"first{i}_above")
        y = node("Mul", [node("Log", [y], f"first{i}_log"), scale], f"first{i}_scaled")
        seen += mean_and_spread(y, [2, 3], f"first{i}_stats")
        for j, conv in enumerate(body):
            name = f"body{i}_{j}"
            inputs = [y, constant(f"{name}_w", conv.weight), constant(f"{name}_b", conv.bias)]
            y = node("Conv", inputs, name, kernel_shape=[3, 3], pads=[1] * 4)
            y = node("Relu", [y], f"{name}_relu")
        seen += mean_and_spread(y, [2, 3], f"body{i}_stats")
    x = node("Concat", seen, "patch_stats", axis=1)

    def linear(x, layer, name):
        inputs = [x, constant(f"{name}_w", layer.weight), constant(f"{name}_b", layer.bias)]
        return node("Gemm", inputs, name, transB=1)

    x = node("Relu", [linear(x, net.patch, "patch_features")], "patch_seen")
    frame = node("Concat", mean_and_spread(x, [0], "frame"), "frame_flat", axis=0)
    width, memory = 2 * net.config.features, net.config.memory
    row = node("Reshape", [frame, constant("row", np.array([1, width], np.int64))], "frame_row")
    step = node("Reshape", [frame, constant("step", np.array([1, 1, width], np.int64))],
                "frame_step")
    before = node("Reshape", ["memory", constant("before", np.array([1, 1, memory], np.int64))],
                  "memory_before")

    def gates(w):  # PyTorch: reset, update, new; ONNX: update, reset, new
        r, z, n = w.detach().chunk(3)
        return torch.cat([z, r, n])

    gru = net.gru
    bias = torch.cat([gates(gru.bias_ih_l0), gates(gru.bias_hh_l0)])[None]
    inputs = [step, constant("gru_w", gates(gru.weight_ih_l0)[None]),
              constant("gru_r", gates(gru.weight_hh_l0)[None]), constant("gru_b", bias), "",
              before]
    nodes.append(helper.make_node("GRU", inputs, ["", "memory_after"], name="gru",
                                  hidden_size=memory, linear_before_reset=1))
    shape = constant("memory_shape", np.array([1, 1, 1, memory], np.int64))
    node("Reshape", ["memory_after", shape], "next")
    after = node("Reshape", ["memory_after", constant("after", np.array([1, memory], np.int64))],
                 "memory_row")
    seen = node("Concat", [after, row], "seen", axis=1)
    scores = linear(seen, net.scores, "both_scores")
    first = constant("first", np.array([0], np.int64))
    one, two = (constant(n, np.array([v], np.int64)) for n, v in (("one", 1), ("two", 2)))
    vmaf = node("Sigmoid", [node("Slice", [scores, first, one, one], "vmaf_raw")], "vmaf")
    second = node("Slice", [scores, one, two, one], "ssimulacra2")
    causes = node("Softmax", [linear(seen, net.causes, "causes_raw")], "causes", axis=1)
    out = node("Concat", [vmaf, second, causes], "scores_row", axis=1)
    node("Reshape", [out, constant("scores_shape", np.array([1, 1, 1, 2 + len(CAUSES)], np.int64))],
         "scores")
    value = helper.make_tensor_value_info
    f32 = TensorProto.FLOAT
    g = helper.make_graph(
        nodes, "quality",
        [value("patches", f32, ["N", 2, PATCH, PATCH]), value("memory", f32, [1, 1, 1, memory])],
        [value("scores", f32, [1, 1, 1, 2 + len(CAUSES)]), value("next", f32, [1, 1, 1, memory])],
        weights)
    model = helper.make_model(g, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    return model.SerializeToString(deterministic=True)


@torch.no_grad()
def check(net: QualityNet, onnx: bytes) -> float:
    """Greatest difference from PyTorch over a few frames of noise and waves; raises above
    `TOLERANCE`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    net.eval()
    rng = np.random.default_rng(0)
    memory = np.zeros((1, 1, 1, net.config.memory), np.float32)
    held, worst = None, 0.0
    for patches in (1, 5, MOST_PATCHES):
        x = rng.normal(0, 1, (patches, 2, PATCH, PATCH)).astype(np.float32)
        x += 2 * np.sin(np.arange(PATCH, dtype=np.float32) * 0.3)
        scores, memory = session.run(["scores", "next"], {"patches": x, "memory": memory})
        vmaf, second, causes, held = net(torch.from_numpy(x)[None, None], held)
        want = torch.cat([vmaf[0], second[0], causes[0, 0].softmax(-1)]).numpy()
        worst = max(worst, float(np.abs(scores.ravel() - want).max()),
                    float(np.abs(memory.ravel() - held[0].numpy()).max()))
    if worst > TOLERANCE:
        raise RuntimeError(f"the graph differs from PyTorch by {worst}")
    return worst


def arguments(p):
    p.add_argument("checkpoint", type=Path)
    p.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    p.add_argument("--name", default="quality")
    p.add_argument("--report", type=Path, help="held-out.json of the run")
    p.add_argument("--checkpoint-out", type=Path,
                   help="also a small checkpoint, half precision, without the optimiser's state")


def run(args):
    net, state = load(args.checkpoint)
    onnx = graph(net)
    worst = check(net, onnx)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "quality.onnx").write_bytes(onnx)
    report = json.loads(args.report.read_text()) if args.report else {}
    second = " and SSIMULACRA2" if "spearman_ssimulacra2" in report else ""
    text = f"""[bundle]
format = 1
kind = "quality"
name = "{args.name}"
description = "judges decoded video without its original: VMAF, SSIMULACRA2, shares of cause"

[quality]
file = "quality.onnx"
sha256 = "{hashlib.sha256(onnx).hexdigest()}"
patch = {PATCH}
memory = {net.config.memory}
parameters = {net.parameters_count()}

[training]
steps = {state["steps"]}
hours = {state["seconds"] / 3600:.2f}
samples = {state.get("samples", 0)}
labels = "VMAF (libvmaf's default model){second} of our own codings; nobody looked"

[held_out]
"""
    text += "".join(f"{k} = {'nan' if v != v else v}\n" for k, v in report.items())
    tomllib.loads(text)
    (args.out / "bundle.toml").write_text(text)
    if args.checkpoint_out:
        half = {k: v.half() for k, v in net.state_dict().items()}
        save(net, args.checkpoint_out, steps=state["steps"], seconds=state["seconds"],
             samples=state.get("samples", 0))
        kept = torch.load(args.checkpoint_out, weights_only=False)
        torch.save({**kept, "model": half}, args.checkpoint_out)
    print(f"{args.out}: {len(onnx)} bytes, at most {worst:.1e} from PyTorch")

#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Writes the super-resolution bundles that the tests use: tests/fixtures/sr-exact, sr-random,
sr-folded and sr-rated.

Nothing in them is trained. What `sr-exact` must give is known in closed form:

  x1  sharpens: 2 x - (the sum of the four neighbours) / 4
  x2  repeats each sample 2 x 2 times
  x3  the bicubic kernel (a = -0.5) of the element itself
  x4  the same

`sr-random` (x2) is a small convolutional network with pseudo-random weights on top of the
repetition: it stands for what training makes, where tiles and batches are compared with whole
pictures. `sr-folded` (x1) is another, on squares of 2 x 2 samples: where a square begins decides
what comes out. `sr-rated` (x1) adds as many code values as the quantizer that it is told, times how
sure that is.

Needs numpy and onnx:  scripts/make-sr-fixtures.py
"""

import hashlib
import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent / "tests" / "fixtures"


def keys(t: float) -> float:
    """Cubic convolution kernel with a = -0.5."""
    t = abs(t)
    if t < 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    if t < 2:
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return 0.0


def bicubic(scale: int) -> np.ndarray:
    """Weights [scale * scale, 1, 5, 5]: one 5x5 kernel for each output phase, pixel centres
    aligned.
    """
    taps = np.zeros((scale, 5))
    for p in range(scale):
        position = (p + 0.5) / scale - 0.5
        taps[p] = [keys(k - 2 - position) for k in range(5)]
    return np.einsum("pi,qj->pqij", taps, taps).reshape(scale * scale, 1, 5, 5)


def model(
    scale: int, layers: list[np.ndarray], skip: np.ndarray | None = None, fold: int = 1
) -> onnx.ModelProto:
    """Convolutions with ReLU between them, plus `skip` of the input, rearranged from channels to
    pixels. With `fold`, squares of the input become channels first.
    """
    nodes, tensors = [], []

    def conv(source: str, weights: np.ndarray, out: str) -> str:
        tensors.append(numpy_helper.from_array(weights.astype(np.float32), f"{out}.weight"))
        pad = weights.shape[-1] // 2
        nodes.append(
            helper.make_node(
                "Conv",
                [source, f"{out}.weight"],
                [out],
                kernel_shape=list(weights.shape[2:]),
                pads=[pad] * 4,
            )
        )
        return out

    at = first = "x"
    if fold > 1:
        at = first = "folded"
        nodes.append(helper.make_node("SpaceToDepth", ["x"], [at], blocksize=fold))
    for i, weights in enumerate(layers):
        at = conv(at, weights, f"conv{i}")
        if i + 1 < len(layers):
            nodes.append(helper.make_node("Relu", [at], [f"relu{i}"]))
            at = f"relu{i}"
    if skip is not None:
        nodes.append(helper.make_node("Add", [at, conv(first, skip, "skip")], ["sum"]))
        at = "sum"
    if scale * fold == 1:
        nodes.append(helper.make_node("Identity", [at], ["y"]))
    else:
        nodes.append(helper.make_node("DepthToSpace", [at], ["y"], blocksize=scale * fold))
    graph = helper.make_graph(
        nodes,
        f"x{scale}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "sh", "sw"])],
        tensors,
    )
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="make-sr-fixtures",
    )
    onnx.checker.check_model(made)
    return made


def rated() -> onnx.ModelProto:
    """y = x + sure * quantizer / 255."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceProd", ["quantizer"], ["told"], axes=[1]),
            helper.make_node("Mul", ["told", "code"], ["more"]),
            helper.make_node("Add", ["x", "more"], ["y"]),
        ],
        "x1",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (
                ("x", ["n", 1, "h", "w"]),
                ("quantizer", ["n", 2, "h_told", "w_told"]),
            )
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [numpy_helper.from_array(np.float32(1 / 255).reshape(1), "code")],
    )
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="make-sr-fixtures",
    )
    onnx.checker.check_model(made)
    return made


def write(
    name: str, description: str, networks: dict[int, tuple[int, onnx.ModelProto]], fold: int = 1
) -> None:
    """A bundle of scale -> (radius, model)."""
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    text = [
        "[bundle]",
        "format = 1",
        'kind = "sr"',
        f'name = "{name}"',
        f'description = "{description}"',
    ]
    for scale, (radius, network) in networks.items():
        data = network.SerializeToString(deterministic=True)
        (folder / f"x{scale}.onnx").write_bytes(data)
        weights = [numpy_helper.to_array(t) for t in network.graph.initializer]
        text += [
            "",
            "[[network]]",
            f"scale = {scale}",
            f'file = "x{scale}.onnx"',
            f'sha256 = "{hashlib.sha256(data).hexdigest()}"',
            f"radius = {radius}",
            *([f"fold = {fold}"] if fold > 1 else []),
            f"parameters = {sum(w.size for w in weights)}",
            f"macs_per_pixel = {sum(w.size for w in weights)}",
            'precision = "float32"',
            f"channels = {max(w.shape[0] for w in weights)}",
        ]
    (folder / "bundle.toml").write_text("\n".join(text) + "\n")


def main() -> None:
    sharpen = np.array([[0, -0.25, 0], [-0.25, 2, -0.25], [0, -0.25, 0]]).reshape(1, 1, 3, 3)
    exact = {
        1: (1, model(1, [sharpen])),
        2: (0, model(2, [np.ones((4, 1, 1, 1))])),
        3: (2, model(3, [bicubic(3)])),
        4: (2, model(4, [bicubic(4)])),
    }
    write("sr-exact", "Untrained: sharpening, repetition, and the bicubic kernel", exact)

    random = np.random.RandomState(4)
    shapes = [(12, 1), (12, 12), (4, 12)]
    layers = [random.normal(0, math.sqrt(1 / (9 * i)), (o, i, 3, 3)) for o, i in shapes]
    layers[-1] *= 0.2
    write(
        "sr-random",
        "Untrained: pseudo-random weights",
        {2: (3, model(2, layers, np.ones((4, 1, 1, 1))))},
    )

    shapes = [(12, 4), (12, 12), (4, 12)]
    layers = [random.normal(0, math.sqrt(1 / (9 * i)), (o, i, 3, 3)) for o, i in shapes]
    layers[-1] *= 0.2
    folded = model(1, layers, np.eye(4).reshape(4, 4, 1, 1), fold=2)
    write(
        "sr-folded",
        "Untrained: pseudo-random weights on squares of four samples",
        {1: (6, folded)},
        fold=2,
    )
    write("sr-rated", "Untrained: adds what it is told of quantizers", {1: (0, rated())})


if __name__ == "__main__":
    main()

"""The deployed network as an ONNX graph, in float32 or with 8-bit convolutions (QDQ). Needs numpy
and
onnx only.

What runs fast in ONNX Runtime's CPU provider (one AVX-512 core, 640x360 in, milliseconds):
16-to-16-channel 3x3 convolutions take 9.2 in float32 and 4.3 in 8 bit; a float32 convolution of one
channel 0.8, in 8 bit 5.0; an 8-bit one with 4 outputs 8.4, more than one with 16. So the head stays
float32 (and sees more than 8 bits of input), and the tail is padded to 16 outputs, of which only
the wanted ones leave the graph.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .model import LEAST_STEP

OPSET = 17
IR_VERSION = 8  # the one that belongs to opset 17
OUTPUTS_MULTIPLE = 16


class Builder:
    """Nodes and constants of a graph under construction; tensors are their names."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def const(self, value) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, inputs: list, output: str | None = None, **attributes) -> str:
        output = output or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x: str, weight, bias=None) -> str:
        """`weight` and `bias` are arrays, or names of tensors that hold them (then 3x3)."""
        side = 3 if isinstance(weight, str) else weight.shape[-1]
        names = [
            v if isinstance(v, str) else self.const(v.astype(np.float32))
            for v in (weight, bias)
            if v is not None
        ]
        return self.node("Conv", [x, *names], kernel_shape=[side, side], pads=[side // 2] * 4)

    def told(self, rated: dict) -> str:
        """Of the input `quantizer` [n,2,h or 1,w or 1], which holds how sure it is beside the
        quantizer, the same as `model.rating` has it.
        """
        one = lambda v: self.const(np.float32(v))
        sure, quantizer = (
            self.node("Gather", ["quantizer", self.const(np.array([i], np.int64))], axis=1)
            for i in (0, 1)
        )
        distance = self.node(
            "Sub", [self.node("Clip", [quantizer, *map(one, rated["range"])]), one(rated["middle"])]
        )
        return self.node(
            "Concat",
            [sure, self.node("Mul", [self.node("Div", [distance, one(rated["unit"])]), sure])],
            axis=1,
        )

    def gain(self, told: str, rated: dict) -> str:
        """[n,1,h or 1,w or 1]: the factor for the residual."""
        (w, b), (last_w, last_b) = rated["gain"]
        log = self.conv(
            self.node("Relu", [self.conv(told, w[..., None, None], b)]),
            last_w[..., None, None],
            last_b,
        )
        return self.node(
            "Exp",
            [self.node("Clip", [log, *(self.const(np.float32(v)) for v in rated["gain_range"])])],
        )

    def quantise(self, x: str, step: float, zero: int) -> tuple[str, str, str]:
        scale, point = self.const(np.float32(step)), self.const(np.uint8(zero))
        return self.node("QuantizeLinear", [x, scale, point]), scale, point

    def conv_int8(
        self, x: str, x_step: float, weight: np.ndarray, bias: np.ndarray, scale: np.ndarray
    ) -> str:
        """Convolution of a dequantised tensor; the runtime fuses it with the quantisers around it.
        `scale`: the step of each output's weights.
        """
        ints = np.rint(weight / scale[:, None, None, None]).clip(-127, 127).astype(np.int8)
        unit = scale * np.float32(x_step)
        w = self.node(
            "DequantizeLinear",
            [self.const(ints), self.const(scale), self.const(np.zeros(len(ints), np.int8))],
            axis=0,
        )
        b = self.node(
            "DequantizeLinear",
            [
                self.const(np.rint(bias / unit).clip(-(2**30), 2**30).astype(np.int32)),
                self.const(unit),
                self.const(np.zeros(len(ints), np.int32)),
            ],
            axis=0,
        )
        return self.conv(x, w, b)


def build(
    layers: list,
    skip: np.ndarray,
    scale: int,
    steps: list | None = None,
    fold: int = 1,
    shrink: float = 0.0,
    copies: int = 1,
    rated: dict | None = None,
) -> bytes:
    """`layers`: (kernel, bias, 8-bit step of each output's weights) of head, body and tail; the
    head
    sees x - 1/2, folded by space-to-depth. `steps`: the 8-bit steps of the activations after head
    and body, and of the residual; None for float32. `shrink` in code values. `copies` of each
    output in the tail are averaged. `rated`: what a rated network makes of `quantizer`
    (`SrNet.rated`). Same arguments, same bytes.
    """
    g = Builder()
    (w, b, _), *body, tail = layers
    h = g.node("SpaceToDepth", ["x"], blocksize=fold) if fold > 1 else "x"
    bias = b - 0.5 * w.sum((1, 2, 3))
    if rated:
        told = g.told(rated)
        # Planes beside the picture: the convolution adds their part, another pass over all features
        # would cost more.
        h = g.node("Concat", [h, g.node("Expand", [told, g.node("Shape", [h])])], axis=1)
        heard = np.zeros((len(w), rated["heard"].shape[1], 3, 3), np.float32)
        heard[..., 1, 1] = rated["heard"]
        w = np.concatenate([w, heard], 1)
    h = g.node("Relu", [g.conv(h, w, bias)])
    for i, (w, b, unit) in enumerate(body):
        if steps:
            h = g.node("DequantizeLinear", [*g.quantise(h, steps[i], 0)])
            h = g.conv_int8(h, steps[i], w, b, unit)
        else:
            h = g.conv(h, w, b)
        h = g.node("Relu", [h])
    w, b, unit = tail
    if steps:
        pad = -len(w) % OUTPUTS_MULTIPLE
        h = g.node("DequantizeLinear", [*g.quantise(h, steps[-2], 0)])
        h = g.conv_int8(
            h,
            steps[-2],
            np.pad(w, [(0, pad)] + [(0, 0)] * 3),
            np.pad(b, (0, pad)),
            np.pad(unit, (0, pad), constant_values=LEAST_STEP),
        )
        r, step, zero = g.quantise(h, steps[-1], 128)
        if pad:
            r = g.node("Slice", [r, *(g.const(np.array([v], np.int64)) for v in (0, len(w), 1))])
        r = g.node("DequantizeLinear", [r, step, zero])
        if copies > 1:
            # A convolution is the fastest mean over channels.
            r = g.conv(
                r,
                np.tile(np.eye(len(w) // copies, dtype=np.float32) / copies, copies)[
                    ..., None, None
                ],
            )
    else:
        r = g.conv(h, w, b)
    if rated:
        r = g.node("Mul", [r, g.gain(told, rated)])
    if shrink:
        r = g.node("Shrink", [r], lambd=shrink / 255, bias=shrink / 255)
    plain = g.conv("x", skip) if scale > 1 else "x"
    unfold = lambda t, side, output=None: g.node(
        "DepthToSpace", [t], output, blocksize=side, mode="CRD"
    )
    if fold == 1 and scale > 1:
        unfold(g.node("Add", [r, plain]), scale, "y")
    else:
        r = unfold(r, fold * scale) if fold > 1 else r
        g.node("Add", [r, unfold(plain, scale) if scale > 1 else plain], "y")
    tensor = lambda name, h, w: helper.make_tensor_value_info(
        name, TensorProto.FLOAT, ["n", 1, h, w]
    )
    inputs = [tensor("x", "h", "w")] + (
        [
            helper.make_tensor_value_info(
                "quantizer", TensorProto.FLOAT, ["n", 2, "h_told", "w_told"]
            )
        ]
        if rated
        else []
    )
    names = ("h", "w") if scale == 1 else ("h_out", "w_out")
    graph = helper.make_graph(g.nodes, "sr", inputs, [tensor("y", *names)], g.constants)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="nnvtrain",
    )
    return model.SerializeToString(deterministic=True)

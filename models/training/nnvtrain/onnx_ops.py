"""Back ends of the normative operators: :class:`OnnxOps` emits ONNX, :class:`ExactOps` computes in
PyTorch.

Both implement the methods of :class:`nnvtrain.ops.TorchOps`, so that the networks of ``model.py``
are written once. Unlike in training, every tensor here knows its grid: its values are integers
times ``2**-k`` within ``[lo, hi]``. With that each operator *proves* that float32 carries every
intermediate value exactly (fewer than ``2**24`` steps of the grid), and refuses the network
otherwise.

How tensors are stored in the ONNX graph:

* ``u8`` and ``s8`` tensors as uint8, ``s8`` with zero-point 128: ONNX Runtime's CPU provider runs
  u8 activations with s8 weights on its fastest kernels and fuses DequantizeLinear, Conv,
  QuantizeLinear into QLinearConv.
* wide tensors as float32, times a power of two (``value = stored * 2**e``), so that changes of unit
  cost no operator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Callable

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from .ops import Conv, WEIGHT_MAX, pow2_scale

OPSET = 17
# The IR version that belongs to opset 17; ONNX Runtime 1.17 and later read it.
IR_VERSION = 8
EXACT = 2**24
UNIT = 2.0**-16
# The second weight plane of a wide convolution sees coefficients in units of 16 and answers in
# units of 1/32, both 8 bit.
FINE_IN_K, FINE_OUT_K = -4, 5


class NotExact(ValueError):
    """A network whose arithmetic float32 would not carry exactly."""


@dataclass(frozen=True)
class Integers:
    """A layer as integers: weight = w * scale[o], bias = b * scale[o] * 2**-k of the input."""

    w: np.ndarray
    scale: np.ndarray
    b: np.ndarray | None
    # Integers of the second plane, with its scales.
    fine: "Integers | None" = None


def integers(name: str, layer: Conv, k: int, peak: float) -> Integers:
    """Rounds a layer to 7-bit weights for inputs on the grid ``2**-k`` within ±peak.

    The scale of an output channel is the smallest power of two that holds its weights, or the next
    ones where the accumulator would not stay below its limit otherwise. Raises :class:`NotExact`
    when none does.
    """
    # A finer accumulator than UNIT says nothing to an 8-bit result and would leave no room for
    # additions.
    limit = EXACT if layer.planes == 2 else EXACT / 2
    weight = layer.weight.detach().double().cpu()
    least = pow2_scale(layer.weight).double().cpu().flatten()
    bias = None if layer.bias is None else layer.bias.detach().double().cpu()
    peak = peak * 2.0**k
    cout = weight.shape[0]
    w = np.zeros(tuple(weight.shape), np.int64)
    b = np.zeros(cout, np.int64)
    scale = np.zeros(cout)
    for o in range(cout):
        s = max(float(least[o]), UNIT * 2.0**k)
        for _ in range(40):
            ints = torch.round(weight[o] / s).clamp(-WEIGHT_MAX, WEIGHT_MAX)
            offset = 0.0 if bias is None else float(torch.round(bias[o] / (s * 2.0**-k)))
            if float(ints.abs().sum()) * peak + abs(offset) < limit:
                break
            s *= 2.0
        else:
            raise NotExact(
                f"layer {name}: no scale keeps the accumulator of output channel {o} below 2**24"
            )
        w[o], b[o], scale[o] = ints.numpy(), offset, s
    fine = None
    if layer.planes == 2:
        rest = weight - torch.from_numpy(w * scale[:, None, None, None])
        s = torch.from_numpy(scale * 2.0**-6)
        ints = torch.round(rest / s[:, None, None, None]).clamp(-WEIGHT_MAX, WEIGHT_MAX)
        fine = Integers(ints.numpy().astype(np.int64), s.numpy(), None)
        bound = np.abs(fine.w).sum((1, 2, 3)).max() * 128
        if bound >= EXACT:
            raise NotExact(
                f"layer {name}: the accumulator of its second weight plane reaches {bound}"
            )
    return Integers(w, scale, None if bias is None else b, fine)


def layer_names(*modules) -> dict:
    return {
        id(m): n for module in modules for n, m in module.named_modules() if isinstance(m, Conv)
    }


RANGE = {"u8": (0, 255), "s8": (-128, 127)}


@dataclass(frozen=True, eq=False)
class T:
    """A tensor of a graph under construction. ``kind``: ``u8``, ``s8``, ``wide`` (exact float32),
    ``free`` (float32).

    Values are multiples of ``2**-k`` within ``[lo, hi]``; these may differ between the channels of
    a wide tensor.
    """

    kind: str
    channels: int
    k: float | np.ndarray = 0
    lo: float | np.ndarray = -math.inf
    hi: float | np.ndarray = math.inf
    e: int = 0  # value = stored * 2**e, of wide tensors
    name: str | None = None
    # A convolution not yet emitted: gives the name of the float tensor that stores value * 2**-e.
    emit: Callable | None = None
    # pixel_unshuffle by 2 that the next 1×1 convolution performs as a 2×2 convolution of stride 2.
    unshuffle: int = 1

    @property
    def zero(self):
        return {"u8": 0, "s8": 128}[self.kind]

    @property
    def quantised(self):
        return self.kind in ("u8", "s8")

    @property
    def peak(self):
        return np.maximum(np.abs(self.lo), np.abs(self.hi))

    def uniform(self):
        """With the same grid for all channels."""
        return replace(self, k=np.max(self.k), lo=np.min(self.lo), hi=np.max(self.hi))


class Graph:
    """An ONNX graph under construction, with deterministic names."""

    def __init__(self, name):
        self.name = name
        self.nodes, self.inits, self.inputs, self.outputs = [], {}, [], []
        self.count = 0
        self.facts = []

    def fresh(self, hint):
        self.count += 1
        return f"{hint}_{self.count}"

    def node(self, op, inputs, hint=None, **attrs):
        out = self.fresh(hint or op.lower())
        self.nodes.append(helper.make_node(op, inputs, [out], name=out, **attrs))
        return out

    def const(self, array, hint="c"):
        array = np.asarray(array, order="C")
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self.inits:
            self.inits[key] = self.fresh(hint)
        return self.inits[key]

    def f32(self, value):
        return self.const(np.asarray(value, np.float32))

    def i64(self, value):
        return self.const(np.asarray(value, np.int64))

    def input(self, name, dtype, shape):
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name, tensor, dtype, shape):
        self.nodes.append(helper.make_node("Identity", [tensor], [name], name=name))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def model(self):
        # Results of the last node under their public name, without a copy.
        renamed = {}
        nodes = []
        for n in self.nodes:
            if n.op_type == "Identity" and n.output[0] in {o.name for o in self.outputs}:
                renamed[n.input[0]] = n.output[0]
            else:
                nodes.append(n)
        for n in nodes:
            n.input[:] = [renamed.get(i, i) for i in n.input]
            n.output[:] = [renamed.get(i, i) for i in n.output]
        inits = [
            numpy_helper.from_array(np.frombuffer(data, dtype).reshape(shape), name)
            for (dtype, shape, data), name in self.inits.items()
        ]
        graph = helper.make_graph(nodes, self.name, self.inputs, self.outputs, inits)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="nnvtrain",
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return model


class OnnxOps:
    """Emits the normative operators into a :class:`Graph`. ``names`` of layers are for messages."""

    quant = True

    def __init__(self, graph: Graph, names: dict):
        self.g, self.names = graph, names

    # -------------------------------------------------- storage

    def wide(self, x: T, e: int) -> str:
        """Name of the float tensor that stores ``value * 2**-e``."""
        if x.unshuffle != 1:
            raise NotImplementedError("space to depth is only possible before a convolution")
        if x.emit:
            return x.emit(e)
        if x.quantised:
            return self.g.node(
                "DequantizeLinear", [x.name, self.g.f32(2.0 ** (-x.k - e)), self.zero(x)], "dq"
            )
        if x.e == e:
            return x.name
        return self.g.node("Mul", [x.name, self.g.f32(2.0 ** (x.e - e))], "unit")

    def zero(self, x):
        return self.g.const(np.asarray(x.zero, np.uint8))

    def exact(self, what, x: T):
        steps = np.max(x.peak * 2.0**x.k)
        if not steps < EXACT:
            raise NotExact(
                f"{self.g.name}: {what} needs {steps:.0f} steps of its grid, float32 carries 2**24"
            )
        return x

    def input(self, name, channels, k, lo, hi):
        """A wide tensor from a graph input of integers, in units of ``2**-k``."""
        stored = self.g.node("Cast", [name], name + "_f", to=TensorProto.FLOAT)
        return T("wide", channels, k, lo, hi, -k, stored)

    def _quantise(self, x: T, k, kind):
        if x.kind == kind and x.k == k:
            return x
        lo, hi = RANGE[kind]
        e = 0 if x.emit or x.quantised else x.e
        out = T(kind, x.channels, k, lo * 2.0**-k, hi * 2.0**-k)
        name = self.g.node(
            "QuantizeLinear", [self.wide(x, e), self.g.f32(2.0 ** (-k - e)), self.zero(out)], "q"
        )
        return replace(out, name=name)

    # -------------------------------------------------- operators of TorchOps

    def conv(self, layer: Conv, x: T, wide=False) -> T:
        g, label = self.g, self.names.get(id(layer), "?")
        if not wide and not x.quantised:
            raise NotExact(f"{g.name}: layer {label} has an input that is not quantised")
        ints = integers(f"{g.name}: {label}", layer, x.k, float(np.max(x.peak)))
        shape = ints.w.shape
        depthwise = layer.groups > 1
        attrs = dict(
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=[p for p in layer.padding] * 2,
            group=layer.groups,
        )
        w = ints.w
        if x.unshuffle != 1:
            n = x.unshuffle
            w = w.reshape(shape[0], shape[1] // n**2, n, n)
            attrs.update(kernel_shape=[n, n], strides=[n, n])
        acc = np.abs(ints.w).sum((1, 2, 3)) * np.max(x.peak) * 2.0**x.k + (
            0 if ints.b is None else np.abs(ints.b)
        )
        g.facts.append((label, float(acc.max())))
        assert acc.max() < EXACT
        k_out = x.k - np.log2(ints.scale)
        peak = acc * ints.scale * 2.0**-x.k

        def quantised_conv(ints, w, x, e):
            """Float result of a QDQ convolution; becomes QLinearConv when a QuantizeLinear follows.
            """
            inputs = [
                g.node("DequantizeLinear", [x.name, g.f32(2.0**-x.k), self.zero(x)], "dq"),
                g.node(
                    "DequantizeLinear",
                    [
                        g.const(w.astype(np.int8), "w"),
                        g.f32(ints.scale * 2.0**-e),
                        g.const(np.zeros(shape[0], np.int8)),
                    ],
                    "w",
                    axis=0,
                ),
            ]
            if ints.b is not None:
                inputs.append(
                    g.node(
                        "DequantizeLinear",
                        [
                            g.const(ints.b.astype(np.int32), "b"),
                            g.f32(ints.scale * 2.0 ** (-x.k - e)),
                        ],
                        "b",
                        axis=0,
                    )
                )
            return g.node("Conv", inputs, "conv", **attrs)

        def emit(e):
            if not wide:
                return quantised_conv(ints, w, x, e)
            # As integers too: a quarter of the size, and equally fast.
            inputs = [
                x.name,
                g.node(
                    "DequantizeLinear",
                    [
                        g.const(w.astype(np.int8), "w"),
                        g.f32(ints.scale * 2.0 ** (x.e - e)),
                        g.const(np.zeros(shape[0], np.int8)),
                    ],
                    "w",
                    axis=0,
                ),
            ]
            if ints.b is not None:
                inputs.append(g.f32(ints.b * ints.scale * 2.0 ** (-x.k - e)))
            return g.node("Conv", inputs, "conv", **attrs)

        if wide and (x.unshuffle != 1 or depthwise):
            raise NotImplementedError("wide convolutions are 1×1")
        out = T("wide", shape[0], k_out, -peak, peak, emit=emit)
        if ints.fine is None:
            return out
        small = self._quantise(x, FINE_IN_K, "s8")
        fine = ints.fine
        part = T("wide", shape[0], emit=lambda e: quantised_conv(fine, fine.w, small, e))
        return self.add(out, self._quantise(part, FINE_OUT_K, "s8"))

    def u8(self, x, k, leak=False):
        return self._quantise(x, k, "u8")

    def s8(self, x, k):
        return self._quantise(x, k, "s8")

    def round(self, x, k=0):
        if np.max(x.k) <= k:
            return x
        name = self.g.node("Round", [self.wide(x, -k)], "round")
        half = 2.0 ** (-k - 1)
        return self.exact("rounding", T("wide", x.channels, k, x.lo - half, x.hi + half, -k, name))

    def clip(self, x, lo, hi):
        e = 0 if x.emit or x.quantised else x.e
        name = self.g.node(
            "Clip", [self.wide(x, e), self.g.f32(lo * 2.0**-e), self.g.f32(hi * 2.0**-e)], "clip"
        )
        return T("wide", x.channels, x.k, np.clip(x.lo, lo, hi), np.clip(x.hi, lo, hi), e, name)

    def _binary(self, op, a, b, lo, hi):
        # In the unit of a tensor that is stored already; of two, the first.
        e = next((t.e for t in (a, b) if not t.emit and not t.quantised), 0)
        out = T("wide", max(a.channels, b.channels), np.maximum(a.k, b.k), lo, hi, e)
        self.exact(op, out)
        return replace(out, name=self.g.node(op, [self.wide(a, e), self.wide(b, e)], op.lower()))

    def add(self, a, b):
        return self._binary("Add", a, b, a.lo + b.lo, a.hi + b.hi)

    def sub(self, a, b):
        return self._binary("Sub", a, b, a.lo - b.hi, a.hi - b.lo)

    def scale(self, x, factor):
        if not torch.is_tensor(factor):
            shift = math.log2(factor)
            if shift != int(shift):
                raise NotExact(f"{self.g.name}: scaling by {factor}, not a power of two")
            shift = int(shift)
            return replace(x, k=x.k - shift, e=x.e + shift, lo=x.lo * factor, hi=x.hi * factor)
        f = factor.detach().double().cpu().numpy()
        shifts = np.log2(f).flatten()
        if (shifts != np.round(shifts)).any():
            raise NotExact(f"{self.g.name}: scaling by a factor that is not a power of two")
        name = self.g.node("Mul", [self.wide(x, 0), self.g.f32(f)], "scale")
        return self.exact(
            "scaling",
            T("wide", x.channels, x.k - shifts, x.lo * f.flatten(), x.hi * f.flatten(), 0, name),
        )

    def mask(self, x, m):
        e = 0 if x.emit or x.quantised else x.e
        name = self.g.node("Mul", [self.wide(x, e), m], "masked")
        return T("wide", x.channels, x.k, np.minimum(x.lo, 0.0), np.maximum(x.hi, 0.0), e, name)

    def select(self, m, a, b):
        """``a`` where the 0/1 tensor ``m`` (boolean here) is set, else ``b``."""
        e = a.e
        name = self.g.node("Where", [m, self.wide(a, e), self.wide(b, e)], "where")
        return T(
            "wide",
            a.channels,
            np.maximum(a.k, b.k),
            np.minimum(a.lo, b.lo),
            np.maximum(a.hi, b.hi),
            e,
            name,
        )

    def cat(self, xs):
        kinds = {(x.kind, x.k) for x in xs}
        if len(kinds) != 1 or not xs[0].quantised:
            raise NotExact(f"{self.g.name}: concatenation of tensors of different kinds {kinds}")
        # In integers: the same whatever the scale.
        return replace(
            xs[0],
            channels=sum(x.channels for x in xs),
            name=self.g.node("Concat", [x.name for x in xs], "cat", axis=1),
        )

    def s2d(self, x, n):
        return replace(x.uniform(), channels=x.channels * n * n, unshuffle=n)

    def d2s(self, x, n):
        x = x.uniform()
        e = 0 if x.emit or x.quantised else x.e
        name = shuffle(self.g, x.name if x.quantised else self.wide(x, e), x.channels, n)
        return replace(
            x,
            kind=x.kind if x.quantised else "wide",
            channels=x.channels // n**2,
            e=e,
            name=name,
            emit=None,
        )


def shuffle(g, name, channels, n):
    """pixel_shuffle, of any type, in two transpositions: first columns, then whole rows.

    Measured in ONNX Runtime on 96 float channels of 80×46: 0.23 ms; DepthToSpace 0.64 ms, one
    transposition of six axes 1.4 ms; and providers lack DepthToSpace for 8-bit integers.
    """
    c = channels // n**2
    h = g.node("Slice", [g.node("Shape", [name], "shape"), g.i64([2]), g.i64([3])], "rows")
    t = g.node("Reshape", [name, g.i64([0, c * n, n, -1])], "split")
    t = g.node("Transpose", [t], "columns", perm=[0, 1, 3, 2])
    t = g.node(
        "Reshape",
        [t, g.node("Concat", [g.i64([0, c, n]), h, g.i64([-1])], "shape", axis=0)],
        "split",
    )
    t = g.node("Transpose", [t], "rows", perm=[0, 1, 3, 2, 4])
    hn = g.node("Mul", [h, g.i64([n])], "rows")
    return g.node(
        "Reshape", [t, g.node("Concat", [g.i64([0, c]), hn, g.i64([-1])], "shape", axis=0)], "d2s"
    )


# Clips of the analysis, and the 8-bit grids that stand for them.
CLIPS = {(0, 16): ("u8", 4), (-8, 8): ("s8", 4), (-32, 32): ("s8", 2)}
# Layers of the analysis whose input (samples) or output (a correction of the latents) is quantised
# to 8 bit too.
GRIDS_IN = {"analysis.head": 0, "analysis.hp": 0}
GRIDS_OUT = {"analysis.tail": 2, "analysis.h0": 3}


class FreeOps(OnnxOps):
    """Emits the encoder's operators: what ``TorchOps(quant=False)`` computes, with no promise of
    exactness.

    With ``fast``, convolutions of clipped tensors run in 8 bit, all others in float32.
    """

    def __init__(self, graph, names, fast=True):
        super().__init__(graph, names)
        self.fast = fast

    def _quantise(self, x, k, kind):
        if self.fast:
            return super()._quantise(x, k, kind)
        lo, hi = RANGE[kind]
        return self._free(
            "Clip", x, [self.of(x).name, self.g.f32(lo * 2.0**-k), self.g.f32(hi * 2.0**-k)]
        )

    def _free(self, op, x, inputs, channels=None, **attrs):
        return T("free", channels or x.channels, name=self.g.node(op, inputs, op.lower(), **attrs))

    def of(self, x: T):
        """Any tensor as float32 values."""
        return (
            x
            if x.kind == "free" and not x.emit
            else T("free", x.channels, name=self.wide(x, 0), unshuffle=x.unshuffle)
        )

    def half(self, array):
        """A constant stored in half precision; a runtime that optimises turns it into float32 once.
        """
        return self.g.node(
            "Cast", [self.g.const(array.astype(np.float16), "w")], "w", to=TensorProto.FLOAT
        )

    def conv(self, layer, x, wide=False):
        name = self.names.get(id(layer))
        if self.fast and name in GRIDS_IN:
            x = replace(
                self._quantise(replace(x, unshuffle=1), GRIDS_IN[name], "s8"), unshuffle=x.unshuffle
            )
        if x.quantised:
            y = super().conv(layer, x)
            return self._quantise(y, GRIDS_OUT[name], "s8") if name in GRIDS_OUT else y
        w = layer.weight.detach().cpu().numpy()
        attrs = dict(
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=[p for p in layer.padding] * 2,
            group=layer.groups,
        )
        n = x.unshuffle
        if n != 1:
            w = w.reshape(w.shape[0], w.shape[1] // n**2, n, n)
            attrs.update(kernel_shape=[n, n], strides=[n, n])
        inputs = [self.of(replace(x, unshuffle=1)).name, self.half(w)]
        if layer.bias is not None:
            inputs.append(self.g.const(layer.bias.detach().cpu().numpy().astype(np.float32), "b"))
        return self._free("Conv", x, inputs, w.shape[0], **attrs)

    def clip(self, x, lo, hi):
        if self.fast and (lo, hi) in CLIPS:
            kind, k = CLIPS[lo, hi]
            return self._quantise(x, k, kind)
        return self._free("Clip", x, [self.of(x).name, self.g.f32(lo), self.g.f32(hi)])

    def round(self, x, k=0):
        return x

    def add(self, a, b):
        return self._free("Add", a, [self.of(a).name, self.of(b).name], max(a.channels, b.channels))

    def sub(self, a, b):
        return self._free("Sub", a, [self.of(a).name, self.of(b).name], max(a.channels, b.channels))

    def scale(self, x, factor):
        f = factor.detach().cpu().numpy() if torch.is_tensor(factor) else factor
        return self._free("Mul", x, [self.of(x).name, self.g.f32(f)])

    def cat(self, xs):
        if all(x.quantised for x in xs):
            # The finest grid that holds the range of all.
            k = min(x.k - (x.kind == "u8") for x in xs)
            return super().cat([self._quantise(x, k, "s8") for x in xs])
        return self._free(
            "Concat", xs[0], [self.of(x).name for x in xs], sum(x.channels for x in xs), axis=1
        )

    def s2d(self, x, n):
        return replace(x, channels=x.channels * n * n, unshuffle=n)


# ---------------------------------------------------------------- PyTorch, exactly


@dataclass
class E:
    """A PyTorch tensor; ``k`` and ``peak`` are known of quantised tensors and where a convolution
    asks for them.
    """

    value: torch.Tensor
    kind: str = "wide"
    k: float = math.inf
    peak: float = math.inf

    def float(self):
        return self


class ExactOps:
    """The normative operators in PyTorch, in float64, where nothing rounds by accident.

    The reference that :mod:`nnvtrain.parity` compares ONNX Runtime with.
    """

    quant = True

    def input(self, value, k):
        return E(value.double() * 2.0**-k, k=k)

    def _conv(self, ints, layer, x):
        w = torch.from_numpy(ints.w * ints.scale[:, None, None, None])
        b = None if ints.b is None else torch.from_numpy(ints.b * ints.scale * 2.0**-x.k)
        return E(F.conv2d(x.value, w, b, layer.stride, layer.padding, 1, layer.groups))

    def conv(self, layer, x, wide=False):
        ints = integers("?", layer, x.k, x.peak)
        y = self._conv(ints, layer, x)
        if ints.fine is None:
            return y
        return self.add(y, self.s8(self._conv(ints.fine, layer, self.s8(x, FINE_IN_K)), FINE_OUT_K))

    def _quantise(self, x, k, kind):
        lo, hi = RANGE[kind]
        s = 2.0**k
        return E(torch.round(x.value * s).clamp(lo, hi) / s, kind, k, max(-lo, hi) / s)

    def u8(self, x, k, leak=False):
        return self._quantise(x, k, "u8")

    def s8(self, x, k):
        return self._quantise(x, k, "s8")

    def round(self, x, k=0):
        return E(torch.round(x.value * 2.0**k) * 2.0**-k, k=k)

    def clip(self, x, lo, hi):
        return E(x.value.clamp(lo, hi), k=x.k, peak=max(-lo, hi))

    def add(self, a, b):
        return E(a.value + b.value, k=max(a.k, b.k))

    def sub(self, a, b):
        return E(a.value - b.value, k=max(a.k, b.k))

    def scale(self, x, factor):
        if torch.is_tensor(factor):
            return E(x.value * factor.double())
        return replace(x, value=x.value * factor, k=x.k - math.log2(factor), peak=x.peak * factor)

    def mask(self, x, m):
        return E(x.value * m)

    def select(self, m, a, b):
        return E(torch.where(m > 0.5, a.value, b.value), k=max(a.k, b.k), peak=max(a.peak, b.peak))

    def cat(self, xs):
        return replace(xs[0], value=torch.cat([x.value for x in xs], 1))

    def s2d(self, x, n):
        return replace(x, value=F.pixel_unshuffle(x.value, n))

    def d2s(self, x, n):
        return replace(x, value=F.pixel_shuffle(x.value, n))

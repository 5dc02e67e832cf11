# SPDX-License-Identifier: MPL-2.0
"""Two ways to run the networks: ONNX Runtime, and the operators written out with numpy.

The plain way holds section 6's promise to account: wherever a value is no float32, it fails.
"""

import numpy as np
import onnxruntime

from .bits import Unsupported

TYPES = {
    "tensor(float)": np.float32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
}


class OnnxRuntime:
    """A graph in ONNX Runtime."""

    name = f"ONNX Runtime {onnxruntime.__version__}"

    def __init__(self, data):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # Fusions beyond this level are not exact on all processors; known answers would tell.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self.session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = {i.name: TYPES[i.type] for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]

    def run(self, feed):
        return dict(zip(self.outputs, self.session.run(self.outputs, feed)))


def exact(value):
    """A float64 result as the float32 that it must be."""
    result = value.astype(np.float32)
    if not np.array_equal(result, value):
        raise Unsupported("a network's value is no float32: it depends on the order of summation")
    return result


def wide(value):
    return value.astype(np.float64)


def along(value, axis, rank):
    """A scalar, or a vector along `axis` of a tensor of `rank` dimensions."""
    return value.reshape([-1 if i == axis else 1 for i in range(rank)]) if value.ndim else value


NO_ZERO = np.array(0, np.uint8)


def dequantize_linear(x, scale, zero=NO_ZERO, axis=1):
    scale, zero = (along(v, axis, x.ndim) for v in (scale, zero))
    return exact((wide(x) - wide(zero)) * wide(scale))


def quantize_linear(x, scale, zero=NO_ZERO, axis=1):
    scale, shift = (along(v, axis, x.ndim) for v in (scale, zero))
    limits = np.iinfo(zero.dtype)
    rounded = np.rint(wide(x) / wide(scale)) + wide(shift)  # halves to even
    return np.clip(rounded, limits.min, limits.max).astype(zero.dtype)


def conv(x, weights, bias=None, *, kernel_shape, pads, strides, group=1, dilations=(1, 1)):
    top, left, bottom, right = pads
    x = np.pad(wide(x), ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, channels, rows, columns = x.shape
    height, width = (
        (size - step * (kernel - 1) - 1) // stride + 1
        for size, step, kernel, stride in zip((rows, columns), dilations, kernel_shape, strides)
    )
    x = x.reshape(n, group, channels // group, rows, columns)
    w = wide(weights).reshape(group, -1, channels // group, *kernel_shape)
    total = np.zeros((n, group, w.shape[1], height * width))
    for ky in range(kernel_shape[0]):
        for kx in range(kernel_shape[1]):
            y0, x0 = ky * dilations[0], kx * dilations[1]
            seen = x[..., y0 :: strides[0], x0 :: strides[1]][..., :height, :width]
            total += w[..., ky, kx] @ seen.reshape(n, group, -1, height * width)
    total = total.reshape(n, -1, height, width)
    return exact(total if bias is None else total + along(wide(bias), 1, 4))


def clip(x, low=None, high=None):
    return np.minimum(np.maximum(x, x if low is None else low), x if high is None else high)


def slice_(x, starts, ends, axes=None, steps=None):
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    place = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps):
        place[axis] = slice(start, end, step)
    return x[tuple(place)]


def reshape(x, shape):
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape)])


def arithmetic(operator):
    def run(a, b):
        if a.dtype != np.float32:
            return operator(a, b)
        return exact(operator(wide(a), wide(b)))

    return run


OPERATORS = {
    "Add": arithmetic(np.add),
    "Mul": arithmetic(np.multiply),
    "Cast": lambda x, to: x.astype(to),
    "Clip": clip,
    "Concat": lambda *x, axis: np.concatenate(x, axis),
    "Conv": conv,
    "DequantizeLinear": dequantize_linear,
    "QuantizeLinear": quantize_linear,
    "Reshape": reshape,
    "Round": np.rint,  # halves to even
    "Shape": lambda x: np.array(x.shape, np.int64),
    "Slice": slice_,
    "Transpose": lambda x, perm: x.transpose(perm),
    "Where": np.where,
}


class Plain:
    """A graph, operator by operator."""

    name = "numpy"

    def __init__(self, data):
        import onnx

        model = onnx.load_from_string(data)
        to_numpy = onnx.helper.tensor_dtype_to_np_dtype
        graph = model.graph
        self.constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        self.nodes = []
        for node in graph.node:
            options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Cast":
                options["to"] = to_numpy(options["to"])
            self.nodes.append((OPERATORS[node.op_type], list(node.input), node.output[0], options))
        self.inputs = {i.name: to_numpy(i.type.tensor_type.elem_type) for i in graph.input}
        self.outputs = [o.name for o in graph.output]

    def run(self, feed):
        values = self.constants | feed
        for operator, inputs, output, options in self.nodes:
            arguments = [values[name] if name else None for name in inputs]
            values[output] = operator(*arguments, **options)
        return {name: values[name] for name in self.outputs}


RUNTIMES = {"onnxruntime": OnnxRuntime, "plain": Plain}

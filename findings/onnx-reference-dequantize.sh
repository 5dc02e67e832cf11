#!/usr/bin/env bash
# onnx 1.23.2: the reference evaluator cannot run DequantizeLinear below opset 19.
#
# Believed: onnx.reference.ReferenceEvaluator runs every operator of every opset that onnx.checker
# accepts, as it is what other runtimes are compared with; at the least both halves of a QDQ pair.
# Seen: for the opsets 10, 13 and 17 QuantizeLinear runs and DequantizeLinear is refused: "No
# implementation for operator 'DequantizeLinear' domain '' and version 17, found 19, ...". From
# opset 19 on both run.
# For NNV: its graphs are of opset 17; ExactOps computes them in PyTorch instead
# (models/training/nnvtrain/onnx_ops.py).
#
# Installs numpy and onnx, pinned, in a temporary folder.
# Exit status 0: seen again; 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def run(operator, opset):
    """Whether the evaluator runs the operator, after the checker has accepted the model."""
    kinds = [(TensorProto.FLOAT, np.float32), (TensorProto.UINT8, np.uint8)]
    source, target = kinds if operator == "QuantizeLinear" else kinds[::-1]
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "scale", "zero"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", source[0], [3])],
        [helper.make_tensor_value_info("y", target[0], [3])],
        [
            numpy_helper.from_array(np.float32(0.5), "scale"),
            numpy_helper.from_array(np.uint8(1), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    try:
        y = ReferenceEvaluator(model).run(None, {"x": np.array([0, 1, 5], source[1])})[0]
    except RuntimeError as error:
        print(f"opset {opset:2} {operator:16} RuntimeError: {error}")
        return False
    print(f"opset {opset:2} {operator:16} {y}")
    return True


print("onnx", onnx.__version__)
opsets = (10, 13, 17, 19, 21)
quantize = [run("QuantizeLinear", opset) for opset in opsets]
dequantize = [run("DequantizeLinear", opset) for opset in opsets]
sys.exit(0 if all(quantize) and dequantize == [False, False, False, True, True] else 1)
PY

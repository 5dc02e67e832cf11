"""Fused operators for training on CPUs, compiled at first use.

Clamps, roundings, the rate and motion compensation are two thirds of a step's time in PyTorch's
one-pass-per-operator form. The compiled forms (``fused.cpp``; wants a C++ compiler and ninja)
compute the same; without them training is slower, not different. ``NNV_FUSED=0`` turns them off.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path


@functools.cache
def compiled():
    """The compiled operators, or None."""
    if os.environ.get("NNV_FUSED", "1") == "0":
        return None
    try:
        from torch.utils.cpp_extension import load

        return load(
            "nnvtrain_fused",
            [str(Path(__file__).with_name("fused.cpp"))],
            extra_cflags=["-O3", "-march=native", "-ffast-math", "-fopenmp-simd"],
            extra_ldflags=["-lmvec", "-lm"],
        )
    except Exception as error:  # any failure of the tool chain: go on without
        print(
            f"fused operators not available, training is slower: {str(error).splitlines()[0]}",
            file=sys.stderr,
            flush=True,
        )
        return None


def usable(*tensors):
    """The compiled operators if all of ``tensors`` can go through them."""
    import torch

    if any(
        t.device.type != "cpu" or t.dtype not in (torch.float32, torch.bfloat16) for t in tensors
    ):
        return None
    return compiled()

"""Bicubic resampling as MATLAB's `imresize` does it, which is what the usual benchmarks of
super-resolution are made with.

The kernel is Keys' cubic with a = -0.5 (Catmull-Rom), centres are aligned, borders are mirrored,
and shrinking widens the kernel by the factor (antialiasing). R. Keys, Cubic convolution
interpolation for digital image processing, 1981.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5, zero beyond 2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def luma(rgb: np.ndarray) -> np.ndarray:
    """u8 RGB [h,w,3] -> float64 luma [h,w], BT.601 limited range in 8-bit code values (MATLAB's
    `rgb2ycbcr` before rounding).
    """
    return 16 + rgb.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255)


def to_u8(plane: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(plane), 0, 255).astype(np.uint8)


def resize(plane: np.ndarray, h: int, w: int) -> np.ndarray:
    """Resizes a plane [H,W] to [h,w], antialiased where it shrinks. Returns float32, not rounded.
    """
    H, W = plane.shape
    # Pillow has this kernel, but drops the taps that fall outside: give it the mirrored
    # surroundings.
    my, mx = (min(n, 2 + math.ceil(2 * max(1.0, n / m))) for n, m in ((H, h), (W, w)))
    padded = np.pad(np.asarray(plane, np.float32), ((my, my), (mx, mx)), "symmetric")
    return np.asarray(
        Image.fromarray(padded).resize((w, h), Image.BICUBIC, box=(mx, my, mx + W, my + H))
    )


@functools.cache
def down_taps(scale: int) -> tuple[torch.Tensor, int]:
    """Taps of the antialiased kernel for a whole factor, and the first one's place relative to
    `scale * output index`.
    """
    centre = (scale - 1) / 2
    first = math.ceil(centre - 2 * scale)
    at = np.arange(first, math.floor(centre + 2 * scale) + 1)
    taps = cubic((at - centre) / scale)
    return torch.from_numpy(taps / taps.sum()).float(), first


def down_margin(scale: int) -> int:
    """Samples that `downscale` needs around the part it answers for: a multiple of `scale`."""
    return 2 * scale


def downscale(x: torch.Tensor, scale: int) -> torch.Tensor:
    """x [N,1,H,W] holds `down_margin` samples of surroundings on each side ->
    [N,1,(H-2m)/scale,(W-2m)/scale].
    """
    m = down_margin(scale)
    taps, first = down_taps(scale)
    taps = taps.to(x.device, x.dtype)
    h, w = (n - 2 * m for n in x.shape[-2:])
    start = m + first
    x = x[..., start : start + h - scale + len(taps), start : start + w - scale + len(taps)]
    x = F.conv2d(x, taps.view(1, 1, -1, 1), stride=(scale, 1))
    return F.conv2d(x, taps.view(1, 1, 1, -1), stride=(1, scale))


def up_kernel(scale: int) -> torch.Tensor:
    """Bicubic enlargement as a convolution [scale**2,1,5,5] ahead of a pixel shuffle (1x1 for scale
    1).
    """
    if scale == 1:
        return torch.ones(1, 1, 1, 1)
    rows = []
    for phase in range(scale):
        taps = cubic(np.arange(-2, 3) - ((phase + 0.5) / scale - 0.5))
        rows.append(taps / taps.sum())
    rows = np.array(rows)
    kernel = np.einsum("ai,bj->abij", rows, rows).reshape(scale * scale, 1, 5, 5)
    return torch.from_numpy(kernel).float()

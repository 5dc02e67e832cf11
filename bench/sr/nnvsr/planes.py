"""Luma planes: reading, shrinking and enlarging by plain kernels, and what is measured on them."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from nnvrd.metrics import psnr, ssim_pair
from PIL import Image

# BT.601, of full-range RGB to limited range.
LUMA_OF_RGB = np.array([65.481, 128.553, 24.966]) / 255
KERNELS = {"bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}


def to_u8(plane: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(plane), 0, 255).astype(np.uint8)


def rounded(plane: np.ndarray, bits: int) -> np.ndarray:
    """To samples of `bits` bits in units of 8-bit code values: u8, or float32 with a fraction."""
    if bits == 8:
        return to_u8(plane)
    unit = 2 ** (bits - 8)
    return (
        np.clip(np.rint(np.asarray(plane, np.float32) * unit), 0, 256 * unit - 1) / unit
    ).astype(np.float32)


def read_luma(path: Path, bits: int = 8) -> np.ndarray:
    """BT.601 limited-range luma of `bits` bits (`rounded`); with 8 as MATLAB's `rgb2ycbcr`."""
    return rounded(luma(read_rgb(path)), bits)


def read_rgb(path: Path) -> np.ndarray:
    """u8 [h,w,3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def luma(rgb: np.ndarray) -> np.ndarray:
    """RGB [h,w,3] -> limited-range luma [h,w], not rounded."""
    return 16 + rgb @ LUMA_OF_RGB


def resize(plane: np.ndarray, h: int, w: int, kernel: str = "bicubic", bits: int = 8) -> np.ndarray:
    """To samples of `bits` bits (`rounded`; 0: as the kernel gives them), antialiased where it
    shrinks, borders mirrored. `bicubic` is Keys' cubic with a = -0.5: `imresize`.
    """
    reach = 3 if kernel == "lanczos" else 2
    my, mx = (min(n, 1 + math.ceil(reach * max(1.0, n / m))) for n, m in zip(plane.shape, (h, w)))
    padded = np.pad(plane.astype(np.float32), ((my, my), (mx, mx)), "symmetric")
    box = (mx, my, mx + plane.shape[1], my + plane.shape[0])
    resized = np.asarray(Image.fromarray(padded).resize((w, h), KERNELS[kernel], box=box))
    return rounded(resized, bits) if bits else resized


def resize_rgb(
    rgb: np.ndarray, h: int, w: int, kernel: str = "bicubic", bits: int = 8
) -> np.ndarray:
    """As `resize`, of [h,w,3]."""
    return np.stack([resize(rgb[..., c], h, w, kernel, bits) for c in range(3)], -1)


def shave(plane: np.ndarray, border: int) -> np.ndarray:
    return plane[border : plane.shape[0] - border, border : plane.shape[1] - border]


def compare(wanted: np.ndarray, got: np.ndarray, border: int) -> tuple[float, float]:
    """(PSNR, SSIM) of planes in 8-bit code values without `border` samples on each side."""
    a, b = shave(wanted, border), shave(got, border)
    return psnr(float(np.mean((a.astype(np.float64) - b) ** 2))), ssim_pair(a, b)[0]


def ssimulacra2(wanted: np.ndarray, got: np.ndarray) -> float | None:
    """Of two u8 lumas shown as grey pictures; None where the package is missing."""
    try:
        from ssimulacra2 import compute_ssimulacra2
    except ImportError:
        return None
    files = []
    for plane in (wanted, got):
        grey = to_u8((plane.astype(np.float32) - 16) * (255 / 219))
        files.append(io.BytesIO())
        Image.fromarray(grey).convert("RGB").save(files[-1], "BMP")
    return float(compute_ssimulacra2(*files))

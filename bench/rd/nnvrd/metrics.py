"""Distortion between two I420 files: PSNR of each plane, SSIM and MS-SSIM of luma.

PSNR is taken from the mean squared error over all frames of the clip (not the mean of the frames'
PSNR), plane by plane, capped at 100 dB. `psnr_yuv` is (6 PSNR_Y + PSNR_U + PSNR_V) / 8. SSIM and
MS-SSIM (Wang et al. 2004, 2003: Gaussian window 11, sigma 1.5, valid positions) are means over
every third frame: three shares no factor with mini-GOPs of 2, 4 or 8, so no level is favoured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CAP_DB = 100.0
SSIM_STRIDE = 3
_K1, _K2, _PEAK = 0.01, 0.03, 255.0
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def _gauss(size: int = 11, sigma: float = 1.5) -> np.ndarray:
    t = np.arange(size) - size // 2
    g = np.exp(-(t**2) / (2 * sigma**2))
    return (g / g.sum()).astype(np.float32)


_WINDOW = _gauss()


def _blur(a: np.ndarray) -> np.ndarray:
    """Separable Gaussian, valid positions only; the window is symmetric, so taps are paired."""
    for axis in (0, 1):
        size = len(_WINDOW)
        n = a.shape[axis] - size + 1

        def at(k: int) -> np.ndarray:
            return a[k : k + n] if axis == 0 else a[:, k : k + n]

        out = at(size // 2) * _WINDOW[size // 2]
        for k in range(size // 2):
            out += (at(k) + at(size - 1 - k)) * _WINDOW[k]
        a = out
    return a


def _ssim_maps(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Means of SSIM and of its contrast-structure part. Filters x+y and x-y, four maps in place of
    five.
    """
    a, b = x + y, x - y
    mu_a, mu_b = _blur(a), _blur(b)
    e_a, e_b = _blur(a * a), _blur(b * b)
    mu_a2, mu_b2 = mu_a * mu_a, mu_b * mu_b
    mu_xy2 = (mu_a2 - mu_b2) * 0.5  # 2 mu_x mu_y
    mu_sum = (mu_a2 + mu_b2) * 0.5  # mu_x^2 + mu_y^2
    cov2 = (e_a - e_b) * 0.5 - mu_xy2  # 2 cov
    var_sum = (e_a + e_b) * 0.5 - mu_sum
    c1, c2 = (_K1 * _PEAK) ** 2, (_K2 * _PEAK) ** 2
    cs = (cov2 + c2) / (var_sum + c2)
    ssim = (mu_xy2 + c1) / (mu_sum + c1) * cs
    return float(ssim.mean(dtype=np.float64)), float(cs.mean(dtype=np.float64))


def _halve(a: np.ndarray) -> np.ndarray:
    h, w = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
    a = a[:h, :w]
    return (a[0::2, 0::2] + a[1::2, 0::2] + a[0::2, 1::2] + a[1::2, 1::2]) * np.float32(0.25)


def ssim_pair(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(SSIM, MS-SSIM) of two luma planes of equal shape. Where the picture is too small for five
    scales (shorter side below 176), MS-SSIM uses the scales there are, its weights normalised to
    one.
    """
    x, y = x.astype(np.float32), y.astype(np.float32)
    if min(x.shape) < len(_WINDOW):
        return math.nan, math.nan
    scales = 0
    side = min(x.shape)
    while scales < len(_MS_WEIGHTS) and side >= len(_WINDOW):
        scales += 1
        side //= 2
    weight_sum = sum(_MS_WEIGHTS[:scales])
    single, product = math.nan, 1.0
    for i in range(scales):
        ssim, cs = _ssim_maps(x, y)
        if i == 0:
            single = ssim
        term = ssim if i == scales - 1 else cs
        # A negative mean would make a fractional power complex; it only occurs for unrelated
        # pictures.
        product *= max(term, 0.0) ** (_MS_WEIGHTS[i] / weight_sum)
        if i < scales - 1:
            x, y = _halve(x), _halve(y)
    return single, product


def psnr(mse: float) -> float:
    return CAP_DB if mse <= 0 else min(CAP_DB, 10 * math.log10(_PEAK**2 / mse))


@dataclass(frozen=True)
class Quality:
    psnr_y: float
    psnr_u: float
    psnr_v: float
    psnr_yuv: float
    ssim: float
    msssim: float


def plane_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """(height, width) of Y, U and V in 4:2:0; odd sizes round chroma up."""
    c = ((height + 1) // 2, (width + 1) // 2)
    return [(height, width), c, c]


def frame_bytes(width: int, height: int) -> int:
    return sum(h * w for h, w in plane_sizes(width, height))


def read_frame(data: np.ndarray, index: int, width: int, height: int) -> list[np.ndarray]:
    at = index * frame_bytes(width, height)
    planes = []
    for h, w in plane_sizes(width, height):
        planes.append(data[at : at + h * w].reshape(h, w))
        at += h * w
    return planes


def compare(original: Path, decoded: Path, width: int, height: int, frames: int) -> Quality:
    """Compare two packed I420 files; raises ValueError when either does not hold exactly `frames`
    frames.
    """
    size = frame_bytes(width, height)
    for path in (original, decoded):
        have = path.stat().st_size
        if have != size * frames:
            raise ValueError(
                f"{path}: {have} bytes, {frames} frames of {width}x{height} need {size * frames}"
            )
    a = np.memmap(original, dtype=np.uint8, mode="r")
    b = np.memmap(decoded, dtype=np.uint8, mode="r")
    squares = [0, 0, 0]
    counts = [h * w * frames for h, w in plane_sizes(width, height)]
    ssim: list[float] = []
    msssim: list[float] = []
    for i in range(frames):
        fa, fb = read_frame(a, i, width, height), read_frame(b, i, width, height)
        for p in range(3):
            d = fa[p].astype(np.int32) - fb[p]
            squares[p] += int(np.einsum("ij,ij->", d, d, dtype=np.int64))
        if i % SSIM_STRIDE == 0:
            s, m = ssim_pair(fa[0], fb[0])
            ssim.append(s)
            msssim.append(m)
    y, u, v = (psnr(s / n) for s, n in zip(squares, counts))
    return Quality(y, u, v, (6 * y + u + v) / 8, float(np.mean(ssim)), float(np.mean(msssim)))

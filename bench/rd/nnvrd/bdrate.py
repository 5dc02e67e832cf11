"""Bjøntegaard delta rate by Akima interpolation.

log10(rate) is interpolated as a function of quality and integrated, exactly, over the range of
quality that both curves cover. Akima needs no more than four points, does not overshoot as the
classic cubic fit does, and is what current codec comparisons (PyPI `bjontegaard`, method "akima")
use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curve:
    """Points of one codec on one clip, ordered by strictly growing quality and rate."""

    rate: np.ndarray
    quality: np.ndarray
    dropped: int


def make_curve(rate, quality) -> Curve:
    """Sort by rate and keep only points that gain quality: a point that costs more and looks no
    better
    cannot be part of an invertible curve. The number of dropped points is kept for the report.
    """
    pairs = sorted(
        (float(r), float(q)) for r, q in zip(rate, quality) if r > 0 and math.isfinite(q)
    )
    kept: list[tuple[float, float]] = []
    for r, q in pairs:
        if not kept or (q > kept[-1][1] and r > kept[-1][0]):
            kept.append((r, q))
    return Curve(
        np.array([r for r, _ in kept], dtype=np.float64),
        np.array([q for _, q in kept], dtype=np.float64),
        len(pairs) - len(kept),
    )


def akima_slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Derivatives at the knots by Akima's rule (1970), as scipy's Akima1DInterpolator has them."""
    n = len(x)
    if n < 2:
        raise ValueError("an Akima curve needs at least two points")
    slope = np.diff(y) / np.diff(x)
    if n == 2:
        return np.array([slope[0], slope[0]])
    m = np.empty(n + 3)
    m[2:-2] = slope
    m[1] = 2 * m[2] - m[3]
    m[0] = 2 * m[1] - m[2]
    m[-2] = 2 * m[-3] - m[-4]
    m[-1] = 2 * m[-2] - m[-3]
    change = np.abs(np.diff(m))
    weight_left, weight_right = change[2:], change[:-2]
    total = weight_left + weight_right
    out = 0.5 * (m[3:] + m[:-3])
    # Straight runs have no curvature on either side; the mean of the neighbours is then the answer.
    curved = total > 1e-9 * max(float(total.max(initial=0.0)), 1e-300)
    out[curved] = (
        weight_left[curved] * m[1:-2][curved] + weight_right[curved] * m[2:-1][curved]
    ) / total[curved]
    return out


def akima_integral(x: np.ndarray, y: np.ndarray, lo: float, hi: float) -> float:
    """Integral of the Akima curve through (x, y) from lo to hi; both must lie within the knots."""
    d = akima_slopes(x, y)
    total = 0.0
    for i in range(len(x) - 1):
        a, b = max(lo, x[i]), min(hi, x[i + 1])
        if b <= a:
            continue
        h = x[i + 1] - x[i]
        s = (y[i + 1] - y[i]) / h
        c2 = (3 * s - 2 * d[i] - d[i + 1]) / h
        c3 = (d[i] + d[i + 1] - 2 * s) / (h * h)

        def primitive(t: float) -> float:
            return y[i] * t + d[i] * t**2 / 2 + c2 * t**3 / 3 + c3 * t**4 / 4

        total += primitive(b - x[i]) - primitive(a - x[i])
    return total


@dataclass(frozen=True)
class BdResult:
    """percent: rate change of the test against the anchor at equal quality; overlap: the share of
    the
    narrower quality range that both curves cover (a figure below about 0.5 says little).
    """

    percent: float
    overlap: float


def bd_rate(anchor: Curve, test: Curve) -> BdResult | None:
    """BD-rate in percent, negative when `test` needs fewer bits; None when the curves do not
    overlap.
    """
    if len(anchor.rate) < 4 or len(test.rate) < 4:
        return None
    lo = max(anchor.quality[0], test.quality[0])
    hi = min(anchor.quality[-1], test.quality[-1])
    if hi <= lo:
        return None
    ia = akima_integral(anchor.quality, np.log10(anchor.rate), lo, hi)
    it = akima_integral(test.quality, np.log10(test.rate), lo, hi)
    narrow = min(anchor.quality[-1] - anchor.quality[0], test.quality[-1] - test.quality[0])
    return BdResult((10 ** ((it - ia) / (hi - lo)) - 1) * 100, float((hi - lo) / narrow))

# SPDX-License-Identifier: MPL-2.0
"""Motion, section 4: what a field predicts."""

import numpy as np

from .motion import BI, REF1

LUMA_TAPS = np.array(
    [
        [0, 0, 0, 64, 0, 0, 0, 0],
        [-1, 4, -10, 58, 17, -5, 1, 0],
        [-1, 4, -11, 40, 40, -11, 4, -1],
        [0, 1, -5, 17, 58, -10, 4, -1],
    ]
)
CHROMA_TAPS = np.array(
    [
        [0, 64, 0, 0],
        [-2, 58, 10, -2],
        [-4, 54, 16, -2],
        [-6, 46, 28, -4],
        [-4, 36, 36, -4],
        [-4, 28, 46, -6],
        [-2, 16, 54, -4],
        [-2, 10, 58, -2],
    ]
)


def intermediate(plane, mv, y, x, size, luma):
    """`v` of the `size`×`size` samples from (x, y) on."""
    b, taps = (2, LUMA_TAPS) if luma else (3, CHROMA_TAPS)
    before, count = (3, 8) if luma else (1, 4)
    mask = (1 << b) - 1
    fx, fy = mv[0] & mask, mv[1] & mask
    height, width = plane.shape
    ys = np.clip(np.arange(size + count - 1) + y + (mv[1] >> b) - before, 0, height - 1)
    xs = np.clip(np.arange(size + count - 1) + x + (mv[0] >> b) - before, 0, width - 1)
    s = plane[np.ix_(ys, xs)]
    inner = np.s_[before : before + size]

    def across(samples):
        return sum(taps[fx][i] * samples[:, i : i + size] for i in range(count))

    def down(samples):
        return sum(taps[fy][i] * samples[i : i + size] for i in range(count))

    if fx == 0 and fy == 0:
        return s[inner, inner] << 4
    if fy == 0:
        return across(s[inner]) >> 2
    if fx == 0:
        return down(s[:, inner]) >> 2
    return down(across(s) >> 2) >> 6


def predict_cell(references, leaf, plane, y, x, size):
    """`p` and `d` of one leaf for the cell whose first sample is (x, y)."""
    luma = plane == 0
    values = [
        intermediate(references[r][plane], leaf.mv(r), y, x, size, luma) if leaf.uses(r) else None
        for r in (0, 1)
    ]
    if leaf.mode == BI:
        a, b = values
        return np.clip(a + b + 16 >> 5, 0, 1023), np.clip(a - b + 8 >> 4, -1023, 1023)
    v = values[1] if leaf.mode == REF1 else values[0]
    return np.clip(v + 8 >> 4, 0, 1023), np.zeros((size, size), np.int32)


# Of each side: the neighbouring cell, and the distance of a cell's samples from that side.
def sides(size):
    k = np.arange(size)
    down, right = np.meshgrid(k, k, indexing="ij")
    return (
        (0, -1, down),
        (0, 1, size - 1 - down),
        (-1, 0, right),
        (1, 0, size - 1 - right),
    )


def predict(field, references):
    """Planes of `p` and `d`. `references`: planes of both references."""
    ps, ds = [], []
    for plane, shape in enumerate(r.shape for r in references[0]):
        size = 8 if plane == 0 else 4
        weights = np.zeros(8, np.int32)
        weights[:2] = (2, 1) if plane == 0 else (2, 0)
        p_plane, d_plane = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for cy in range(field.rows):
            for cx in range(field.columns):
                own, y, x = field.at(cx, cy), cy * size, cx * size
                p, d = predict_cell(references, own, plane, y, x, size)
                total = np.zeros((size, size), np.int32)
                for dx, dy, distance in sides(size):
                    other = field.at(cx + dx, cy + dy)
                    if other is None or other == own:
                        continue  # outside, or predicts the same
                    n, _ = predict_cell(references, other, plane, y, x, size)
                    total += weights[distance] * (n - p)
                cell = np.s_[y : y + size, x : x + size]
                p_plane[cell] = p + (total + 4 >> 3)
                d_plane[cell] = d
        ps.append(p_plane)
        ds.append(d_plane)
    return ps, ds

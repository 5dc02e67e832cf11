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


def clamp(v, low, high):
    return np.minimum(np.maximum(v, low), high)


def intermediate(plane, mv, y, x, height, width, luma):
    """`v` of the `width`×`height` samples from (x, y) on."""
    b, taps = (2, LUMA_TAPS) if luma else (3, CHROMA_TAPS)
    before, count = (3, 8) if luma else (1, 4)
    mask = (1 << b) - 1
    fx, fy = mv[0] & mask, mv[1] & mask
    ys = np.arange(height + count - 1) + y + (mv[1] >> b) - before
    xs = np.arange(width + count - 1) + x + (mv[0] >> b) - before
    rows, columns = plane.shape
    s = plane[clamp(ys, 0, rows - 1)][:, clamp(xs, 0, columns - 1)]
    inner_rows, inner_columns = slice(before, before + height), slice(before, before + width)

    def across(samples):
        return sum(taps[fx][i] * samples[:, i : i + width] for i in range(count))

    def down(samples):
        return sum(taps[fy][i] * samples[i : i + height] for i in range(count))

    if fx == 0 and fy == 0:
        return s[inner_rows, inner_columns] << 4
    if fy == 0:
        return across(s[inner_rows]) >> 2
    if fx == 0:
        return down(s[:, inner_columns]) >> 2
    return down(across(s) >> 2) >> 6


def predict_leaf(references, leaf, plane, *place):
    """`p` and `d` of one leaf at a place."""
    a, b = (
        intermediate(references[r][plane], leaf.mv(r), *place, plane == 0) if leaf.uses(r) else None
        for r in (0, 1)
    )
    if leaf.mode == BI:
        return clamp(a + b + 16 >> 5, 0, 1023), clamp(a - b + 8 >> 4, -1023, 1023)
    v = b if leaf.mode == REF1 else a
    return clamp(v + 8 >> 4, 0, 1023), np.zeros_like(v)


def side_weights(size, first, second):
    """Weights of a cell's samples for the upper, lower, left and right side."""
    near = np.zeros((size, size), np.int32)
    near[0], near[1] = first, second
    return near, near[::-1], near.T, near.T[:, ::-1]


def predict(field, references):
    """Planes of `p` and `d`. `references`: planes of both references."""
    leaves = sorted({leaf for row in field.leaves for leaf in row})
    own = np.array([[leaves.index(leaf) for leaf in row] for row in field.leaves])
    # The leaf of the cell above, below, to the left, to the right; outside of the picture the own
    # one, which changes nothing.
    around = np.pad(own, 1, mode="edge")
    maps = [own, around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]]
    ps, ds = [], []
    for plane in range(3):
        size = 8 if plane == 0 else 4
        weights = side_weights(size, 2, 1) if plane == 0 else side_weights(size, 2, 0)
        shape = references[0][plane].shape
        # What the cell's own leaf and those of the four sides predict.
        p, d = np.zeros((5, *shape), np.int32), np.zeros(shape, np.int32)
        for number, leaf in enumerate(leaves):
            wanted = np.array([cells == number for cells in maps])
            rows, columns = (np.flatnonzero(wanted.any(axis=(0, axis))) for axis in (2, 1))
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            y, x = rows[0] * size, columns[0] * size
            height, width = (box[0].stop - box[0].start) * size, (box[1].stop - box[1].start) * size
            there = np.s_[y : y + height, x : x + width]
            p_leaf, d_leaf = predict_leaf(references, leaf, plane, y, x, height, width)
            masks = wanted[:, *box].repeat(size, axis=1).repeat(size, axis=2)
            for target, mask in zip(p, masks):
                target[there][mask] = p_leaf[mask]
            d[there][masks[0]] = d_leaf[masks[0]]
        total = sum(
            np.tile(w, (field.rows, field.columns)) * (n - p[0]) for w, n in zip(weights, p[1:])
        )
        ps.append(p[0] + (total + 4 >> 3))
        ds.append(d)
    return ps, ds

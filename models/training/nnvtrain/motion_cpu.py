"""The motion search of :mod:`motion` for CPUs, compiled by numba where that is installed.

Same task and cost function as ``motion.estimate`` (SAD plus lambda times the bits of the vector
difference), in the manner of an encoder: per 16×16 block in raster order, candidates from
neighbours and from a coarse full search, a diamond search, quarter pixels, and a split to 8×8
where that pays.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

PAD = 56  # samples of edge around the reference
REACH = 40  # blocks may lie this far outside the picture


@njit(fastmath=True, cache=True, nogil=True)
def _phases(ref, taps, pad):
    """[16, H+2pad, W+2pad]: the reference at all quarter-pixel phases (index 4*fy+fx)."""
    h, w = ref.shape
    hh, ww = h + 2 * pad, w + 2 * pad
    ext = np.empty((hh, ww), np.float32)
    for i in range(hh):
        si = min(max(i - pad, 0), h - 1)
        for j in range(pad):
            ext[i, j] = ref[si, 0]
            ext[i, ww - 1 - j] = ref[si, w - 1]
        for j in range(w):
            ext[i, pad + j] = ref[si, j]
    out = np.empty((16, hh, ww), np.float32)
    for fx in range(4):
        if fx == 0:
            row = ext
        else:
            row = ext.copy()
            for i in range(hh):
                for j in range(3, ww - 4):
                    s = np.float32(0)
                    for k in range(8):
                        s += taps[fx, k] * ext[i, j + k - 3]
                    row[i, j] = s
        for fy in range(4):
            dst = out[4 * fy + fx]
            if fy == 0:
                dst[:] = row
            else:
                dst[:3] = row[:3]
                dst[hh - 4 :] = row[hh - 4 :]
                for i in range(3, hh - 4):
                    for j in range(ww):
                        dst[i, j] = (
                            taps[fy, 0] * row[i - 3, j]
                            + taps[fy, 1] * row[i - 2, j]
                            + taps[fy, 2] * row[i - 1, j]
                            + taps[fy, 3] * row[i, j]
                            + taps[fy, 4] * row[i + 1, j]
                            + taps[fy, 5] * row[i + 2, j]
                            + taps[fy, 6] * row[i + 3, j]
                            + taps[fy, 7] * row[i + 4, j]
                        )
    return out


@njit(fastmath=True, cache=True, nogil=True)
def _sad(cur, planes, top, left, n, mx, my, pad):
    plane = planes[4 * (my & 3) + (mx & 3)]
    y0, x0 = top + (my >> 2) + pad, left + (mx >> 2) + pad
    s = np.float32(0)
    for i in range(n):
        for j in range(n):
            s += abs(cur[top + i, left + j] - plane[y0 + i, x0 + j])
    return s


@njit(fastmath=True, cache=True, nogil=True)
def _bits(dx, dy):
    b = np.float32(1.0)
    if dx != 0 or dy != 0:
        b += 2.0 * np.log2(1.0 + abs(dx)) + 2.0 * np.log2(1.0 + abs(dy)) + 2.0
    return b


@njit(fastmath=True, cache=True, nogil=True)
def _clamp(v, pos, n, size):
    lo, hi = (-REACH - pos) * 4, (size + REACH - n - pos) * 4
    return min(max(v, lo), hi)


@njit(fastmath=True, cache=True, nogil=True)
def _refine(cur, planes, top, left, n, mx, my, px, py, lam, pad, best):
    """Diamond descent on whole pixels, then half and quarter pixels. Returns (x, y, cost)."""
    h, w = cur.shape
    step = 16
    while step >= 1:
        rounds = 8 if step >= 4 else 1
        for _ in range(rounds):
            bx, by = mx, my
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    if (dx == 0 and dy == 0) or (step >= 4 and dx != 0 and dy != 0):
                        continue
                    x = _clamp(bx + dx * step, left, n, w)
                    y = _clamp(by + dy * step, top, n, h)
                    c = _sad(cur, planes, top, left, n, x, y, pad) + lam * _bits(x - px, y - py)
                    if c < best:
                        best, mx, my = c, x, y
            if mx == bx and my == by:
                break
        step //= 2
    return mx, my, best


@njit(fastmath=True, cache=True, nogil=True)
def _coarse(cur, ref, reach, h4, w4):
    """Full search over means of 4×4 samples for blocks of 4×4 of these: quarter-pixel vectors per
    16×16 block.
    """
    out = np.zeros((h4 // 4, w4 // 4, 2), np.int64)
    for by in range(h4 // 4):
        for bx in range(w4 // 4):
            best = np.float32(1e30)
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    s = np.float32(0)
                    for i in range(4):
                        yy = min(max(by * 4 + i + dy, 0), h4 - 1)
                        for j in range(4):
                            xx = min(max(bx * 4 + j + dx, 0), w4 - 1)
                            s += abs(cur[by * 4 + i, bx * 4 + j] - ref[yy, xx])
                    s += 0.05 * (abs(dx) + abs(dy))
                    if s < best:
                        best = s
                        out[by, bx, 0], out[by, bx, 1] = dx * 16, dy * 16
    return out


@njit(fastmath=True, cache=True, nogil=True)
def _search(cur, ref, cur4, ref4, taps, lam, reach, pad):
    h, w = cur.shape
    planes = _phases(ref, taps, pad)
    coarse = _coarse(cur4, ref4, reach, h // 4, w // 4)
    mv16 = np.zeros((h // 16 + 1, w // 16 + 2, 2), np.int64)  # one border row and column of zeros
    out = np.zeros((2, h // 8, w // 8), np.int64)
    for by in range(h // 16):
        for bx in range(w // 16):
            top, left = by * 16, bx * 16
            l, t, r = mv16[by + 1, bx], mv16[by, bx + 1], mv16[by, bx + 2]
            px = l[0] + t[0] + r[0] - max(l[0], t[0], r[0]) - min(l[0], t[0], r[0])
            py = l[1] + t[1] + r[1] - max(l[1], t[1], r[1]) - min(l[1], t[1], r[1])
            best, mx, my = np.float32(1e30), 0, 0
            for k in range(6):
                if k == 0:
                    x, y = px, py
                elif k == 1:
                    x, y = 0, 0
                elif k == 2:
                    x, y = l[0], l[1]
                elif k == 3:
                    x, y = t[0], t[1]
                elif k == 4:
                    x, y = r[0], r[1]
                else:
                    x, y = coarse[by, bx, 0], coarse[by, bx, 1]
                x, y = _clamp(x, left, 16, w), _clamp(y, top, 16, h)
                c = _sad(cur, planes, top, left, 16, x, y, pad) + lam * _bits(x - px, y - py)
                if c < best:
                    best, mx, my = c, x, y
            mx, my, best = _refine(cur, planes, top, left, 16, mx, my, px, py, lam, pad, best)
            mv16[by + 1, bx + 1, 0], mv16[by + 1, bx + 1, 1] = mx, my
            if best > 2.0 * lam:
                total = np.float32(3.0) * lam
                quads = np.empty((4, 2), np.int64)
                for k in range(4):
                    tt, ll = top + 8 * (k // 2), left + 8 * (k % 2)
                    c = _sad(cur, planes, tt, ll, 8, mx, my, pad) + lam * 1.0
                    x, y, c = _refine(cur, planes, tt, ll, 8, mx, my, mx, my, lam, pad, c)
                    quads[k, 0], quads[k, 1] = x, y
                    total += c
            else:
                total = np.float32(1e30)
            for k in range(4):
                i, j = by * 2 + k // 2, bx * 2 + k % 2
                if total < best:
                    out[0, i, j], out[1, i, j] = quads[k, 0], quads[k, 1]
                else:
                    out[0, i, j], out[1, i, j] = mx, my
    return out


def estimate(cur_y, ref_y, taps, lam=8.0, reach=8):
    """As ``motion.estimate``: quarter-pixel vectors [B,2,H/8,W/8], int64."""
    b, _, h, w = cur_y.shape
    lam = torch.as_tensor(lam, dtype=torch.float32).reshape(-1).expand(b).tolist()
    cur, ref = cur_y.float(), ref_y.float()
    cur4, ref4 = (torch.nn.functional.avg_pool2d(t, 4).numpy() for t in (cur, ref))
    cur, ref = cur.numpy(), ref.numpy()
    taps = np.asarray(taps, np.float32) / np.float32(64)
    return torch.from_numpy(
        np.stack(
            [
                _search(
                    np.ascontiguousarray(cur[i, 0]),
                    np.ascontiguousarray(ref[i, 0]),
                    np.ascontiguousarray(cur4[i, 0]),
                    np.ascontiguousarray(ref4[i, 0]),
                    taps,
                    np.float32(lam[i]),
                    reach,
                    PAD,
                )
                for i in range(b)
            ]
        )
    )

# SPDX-License-Identifier: MPL-2.0
"""Section 5.7: the ink layer, and steps 1 and 6 of section 6, which use it."""

from dataclasses import dataclass

import numpy as np

from .bits import Damage
from .entropy import Counters, Prob, mixed_bit

MASK64 = (1 << 64) - 1
LIMITS = (200,) * 8


@dataclass
class Ink:
    full: int
    papers: list  # of (Y, U, V), 8 bits each
    inks: list
    paper: np.ndarray  # number for each cell, 0 for none
    ink: np.ndarray
    coverage: np.ndarray  # of each luma sample of the padded picture


def decode_ink(d, height, width):
    """`height`, `width`: of the padded picture."""
    full = d.bypass(5)
    d.element("full", (), full)
    if full == 0:
        raise Damage("ink: full coverage of 0")
    papers, inks = colours(d, "papers"), colours(d, "inks")
    shape = height // 8, width // 8
    paper = numbers(d, "paper", np.ones(shape, bool), len(papers))
    ink = numbers(d, "ink", paper > 0, len(inks))
    coverage = decode_coverage(d, ink > 0, full)
    d.finish()
    return Ink(full, papers, inks, paper, ink, coverage)


def colours(d, name):
    count = d.bypass(6)
    d.element(f"{name} count", (), count)
    result = []
    for i in range(count):
        result.append(tuple(d.bypass(8) for _ in range(3)))
        d.element(f"{name} colour", (i,), result[-1])
    return result


def numbers(d, name, wanted, count):
    there, index = [Prob() for _ in range(16)], [Prob() for _ in range(64)]
    same_left, same_above = Prob(), Prob()
    rows, columns = wanted.shape
    # One cell of zeros around.
    result = np.zeros((rows + 1, columns + 2), np.int32)
    for y in range(1, rows + 1):
        for x in range(1, columns + 1):
            if not wanted[y - 1, x - 1]:
                continue
            left, above_left = int(result[y, x - 1]), int(result[y - 1, x - 1])
            above, above_right = int(result[y - 1, x]), int(result[y - 1, x + 1])
            context = 8 * (left > 0) + 4 * (above_left > 0) + 2 * (above > 0) + (above_right > 0)
            if not there[context].decode(d):
                number = 0
            elif left > 0 and same_left.decode(d):
                number = left
            elif above > 0 and above != left and same_above.decode(d):
                number = above
            else:
                t = 1
                for _ in range(6):
                    t = 2 * t + index[t].decode(d)
                number = t - 63
                if number > count:
                    raise Damage(f"ink: {name} number {number} of {count}")
            result[y, x] = number
            d.element(f"{name} number", (y - 1, x - 1), number)
    return result[1:, 1:-1]


def X(h, *values):
    for value in values:
        h = 32 * h + value & MASK64
    return h


def decode_coverage(d, with_ink, full):
    def T(h, *values):
        for value in values:
            h = 4 * h + (value > 0) + (value == full) & MASK64
        return h

    cells = int(with_ink.sum())
    b = next((b for b in range(10, 19) if 1 << b > 64 * cells), 18)
    tables = [Counters(lambda _: (32768, 0)) for _ in range(8)]
    weights = [[5000] * 8 for _ in range(34)]
    bits = next(l for l in range(6) if 1 << l >= full - 1)

    def decision(contexts, m):
        counters = []
        for table, h in zip(tables, contexts):
            g = (64 * h + m) * 0x9E3779B97F4A7C15 & MASK64
            place = ((g ^ (g >> 29)) * 0xBF58476D1CE4E5B9 & MASK64) >> (64 - b)
            counters.append(table[(place,)])
        return mixed_bit(d, counters, weights[m], LIMITS)

    def value(contexts):
        if not decision(contexts, 0):
            return 0
        if full == 1 or decision(contexts, 1):
            return full
        t = 1
        for _ in range(bits):
            t = 2 * t + decision(contexts, 1 + t)
        v = t - (1 << bits) + 1
        if v >= full:
            raise Damage("ink: a coverage beyond full")
        return v

    height, width = 8 * with_ink.shape[0], 8 * with_ink.shape[1]
    # Three samples of zeros on all sides that contexts look at.
    c = [[0] * (width + 6) for _ in range(height + 3)]
    for y in range(height):
        row, n1, n2, n3 = c[y + 3], c[y + 2], c[y + 1], c[y]
        for x in range(width):
            if not with_ink[y // 8, x // 8]:
                continue
            i = x + 3
            w, ww, www = row[i - 1], row[i - 2], row[i - 3]
            n, nn, nnn = n1[i], n2[i], n3[i]
            ne, nee, neee, nw, nww = n1[i + 1], n1[i + 2], n1[i + 3], n1[i - 1], n1[i - 2]
            nne, nnee, nnw, nnww = n2[i + 1], n2[i + 2], n2[i - 1], n2[i - 2]
            nnne, nnnw = n3[i + 1], n3[i - 1]
            ten = T(0, w, ww, n, nw, ne, nee, nn, nne, nnw, nww)
            six = X(0, w, ww, n, nw, ne, nn)
            contexts = (
                X(0, w, n, nw, ne),
                X(0, w, ww, www, n),
                X(0, n, nn, ne, nee),
                ten,
                six,
                T(ten, www, neee, nnn, nnee, nnww, nnne, nnnw),
                X(six, nee, nne, nnw, nww, www),
                X(T(0, nn), min(max(w + n - nw, 0), full), w + ne >> 1),
            )
            row[i] = value(contexts)
            d.element("coverage", (y, x), row[i])
    return np.array(c, np.int32)[3:, 3:-3]


def lay_paper(ink, p, d):
    """Section 6, step 1: paper in place of the prediction. `p`, `d`: planes of samples."""
    for y, x in np.argwhere(ink.paper > 0):
        for i, colour in enumerate(ink.papers[ink.paper[y, x] - 1]):
            size = 8 if i == 0 else 4
            cell = np.s_[y * size : (y + 1) * size, x * size : (x + 1) * size]
            p[i][cell], d[i][cell] = 4 * colour, 0


def lay_ink(ink, planes):
    """Section 6, step 6."""
    for y, x in np.argwhere(ink.ink > 0):
        paper = ink.papers[ink.paper[y, x] - 1]
        colour = ink.inks[ink.ink[y, x] - 1]
        luma = ink.coverage[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].astype(np.int64)
        chroma = luma.reshape(4, 2, 4, 2).sum(axis=(1, 3))
        for i, plane in enumerate(planes):
            size, c, full = (8, luma, ink.full) if i == 0 else (4, chroma, 4 * ink.full)
            cell = np.s_[y * size : (y + 1) * size, x * size : (x + 1) * size]
            added = (8 * (colour[i] - paper[i]) * c + full) // (2 * full)
            plane[cell] = np.clip(plane[cell] + np.where(c > 0, added, 0), 0, 1023)

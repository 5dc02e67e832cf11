# SPDX-License-Identifier: MPL-2.0
"""Section 5.4: the hyper-latent `z`."""

import numpy as np

from .bits import Damage
from .entropy import Counters, Prob, UInt, copy_weights, mixed_bit

LIMITS = (400, 250, 250)


def sign(v):
    return (v > 0) - (v < 0)


def magnitude_class(m):
    return m if m <= 3 else 4 if m <= 7 else 5


class HyperState:
    def __init__(self, z_prob):
        mean = [sum(row[j] for row in z_prob) // len(z_prob) for j in range(15)]
        self.present = [Prob() for _ in range(2)]
        self.sign = [Prob() for _ in range(9)]
        self.channel = Counters(lambda c, j: (z_prob[c][j], 8))
        self.co = Counters(lambda c, q, j: (z_prob[c][j], 4))
        self.near = Counters(lambda q, g, j: (mean[j], 1))
        self.weights = [[6500, 6500, 3500] for _ in range(3)]
        self.escape = UInt()

    def copy(self):
        new = HyperState.__new__(HyperState)
        new.present = [p.copy() for p in self.present]
        new.sign = [p.copy() for p in self.sign]
        new.channel, new.co, new.near = self.channel.copy(), self.co.copy(), self.near.copy()
        new.weights = copy_weights(self.weights)
        new.escape = self.escape.copy()
        return new


def decode_z(d, state, shape, reference):
    """`[Cz, hz, wz]`; `reference` is R, of the same shape, or None."""
    channels, height, width = shape
    z = np.zeros(shape, np.int32).tolist()
    R = z if reference is None else reference.tolist()
    R = np.zeros(shape, np.int32).tolist() if reference is None else R
    any_reference = int(reference is not None and bool(reference.any()))
    present = state.present[any_reference].decode(d)
    d.element("present", (any_reference,), present)
    if not present:
        d.finish()
        return np.zeros(shape, np.int32)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                left = z[c][y][x - 1] if x > 0 else 0
                top = z[c][y - 1][x] if y > 0 else 0
                r = R[c][y][x]
                q = magnitude_class(abs(r))
                g = min(4, magnitude_class(min(7, abs(left) + abs(top))))
                m = 0
                while m < 15:
                    counters = (
                        state.channel[c, m],
                        state.co[c, min(q, 2), m],
                        state.near[q, g, m],
                    )
                    if not mixed_bit(d, counters, state.weights[min(m, 2)], LIMITS):
                        break
                    m += 1
                if m == 15:
                    m += state.escape.decode(d)
                if m > 127:
                    raise Damage("z: a value beyond 127")
                if m and state.sign[3 * (sign(r) + 1) + sign(left + top) + 1].decode(d):
                    m = -m
                z[c][y][x] = m
                d.element("value", (c, y, x), m)
    d.finish()
    return np.array(z, np.int32)

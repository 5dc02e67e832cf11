# SPDX-License-Identifier: MPL-2.0
"""Section 5.5: the latent `y`, band by band."""

import numpy as np

from .bits import Damage
from .entropy import Counters, RangeDecoder, UInt, copy_weights, mixed_bit

CHANNELS = 384
GROUP = 16
HIDING = 32
LIMITS = (500, 250, 250, 250)
WEIGHT = (0, 3, 4, 6, 10, 15, 22, 34, 51, 76, 115, 172)


def near_class(v):  # N
    for n, highest in enumerate((0, 1, 2, 4, 6, 10, 16, 28)):
        if v <= highest:
            return n
    return 8


def ratio_class(a, e):
    a, e = a + 64, e + 64
    return (
        (4 * a > e)
        + (2 * a > e)
        + (4 * a > 3 * e)
        + (a > e)
        + (3 * a > 4 * e)
        + (a > 2 * e)
        + (a > 4 * e)
    )


def weight_class(s):  # U
    o = s.bit_length() - 1
    return min(31, 2 * o + (2 * s >> o & 1))


def share_class(x, s):  # V
    return min(15, 16 * x // s)


def expected_magnitudes(y_prob):  # E
    expected = []
    for row in y_prob:
        r = total = row[0]
        for p in row[1:]:
            r = r * p >> 16
            total += r
        expected.append(total >> 8)
    return expected


def group_initial(u, *_):
    s = 2 ** (u // 2) * (5 + 2 * (u % 2))
    return 65536 * s // (65536 + s), 2


def run_initial(v, *_):
    return (2 * v + 1) * 65536 // 32 if v < 16 else 6000, 6


def first_initial(v, *_):
    return (2 * v + 1) * 65536 // 32, 6


class BandState:
    def __init__(self, y_prob):
        def others(s, *context):
            return y_prob[max(2 * s, 1)][context[-1]], 6

        self.symbol = [Counters(lambda k, j: (y_prob[k][j], 24))]
        self.symbol += [Counters(others) for _ in range(3)]
        self.group = [Counters(group_initial) for _ in range(4)]
        self.run = [Counters(run_initial) for _ in range(4)]
        self.first = [Counters(first_initial) for _ in range(4)]
        self.symbol_weights = [[6000, 6000, 6000, 3000] for _ in range(4)]
        self.first_weights = [[6000, 6000, 6000, 3000]]
        self.run_weights = [[6000, 6000, 6000, 3000] for _ in range(2)]
        self.group_weights = [[5000, 5000, 5000, 3000] for _ in range(4)]
        self.escape = [UInt() for _ in range(4)]

    def copy(self):
        new = BandState.__new__(BandState)
        for name in ("symbol", "group", "run", "first", "escape"):
            setattr(new, name, [item.copy() for item in getattr(self, name)])
        for name in ("symbol_weights", "first_weights", "run_weights", "group_weights"):
            setattr(new, name, copy_weights(getattr(self, name)))
        return new


def mixed(d, models, contexts, weights):
    counters = [model[context] for model, context in zip(models, contexts)]
    return mixed_bit(d, counters, weights, LIMITS)


class Band:
    """Decodes one band. `scale_idx`, `co`: `[384, rows, columns]`; `co` is None where there is no
    frame to inherit from."""

    def __init__(self, d, state, tables, scale_idx, co):
        self.d, self.state = d, state
        self.order = tables.y_order.tolist()
        self.expected = expected_magnitudes(tables.y_prob.tolist())
        self.rows, self.columns = scale_idx.shape[1:]
        self.inherits = co is not None
        low = (scale_idx >= 1) & (scale_idx <= (11 if self.inherits else 9))
        if self.inherits:
            low &= co == 0
        self.co = (co if self.inherits else np.zeros_like(scale_idx)).tolist()
        self.k, self.low = scale_idx.tolist(), low.tolist()
        self.values = np.zeros(scale_idx.shape, np.int32).tolist()
        # Observed and expected magnitudes of a place, over all channels.
        self.a = [[0] * self.columns for _ in range(self.rows)]
        self.e = [[0] * self.columns for _ in range(self.rows)]
        self.starts = range(0, self.columns, 8)
        # Flags of earlier groups, by row and run.
        self.history = {(y, x): [] for y in range(self.rows) for x in self.starts}
        # Of each place: channels of the hiding channels whose symbol is not zero.
        self.hiding = {}

    def run_of(self, start):
        return range(start, min(start + 8, self.columns))

    def magnitude(self, c, y, x):
        if 0 <= y < self.rows and 0 <= x < self.columns:
            return min(15, abs(self.values[c][y][x]))
        return 0

    def run_ratio(self, y, start):
        run = self.run_of(start)
        return ratio_class(sum(self.a[y][x] for x in run), sum(self.e[y][x] for x in run))

    def decode(self):
        for first in range(0, CHANNELS, GROUP):
            channels = self.order[first : first + GROUP]
            self.flags(first, channels)
            for rank in range(first, first + GROUP):
                for y in range(self.rows):
                    for start in self.starts:
                        self.channel_run(rank, channels, y, start)
            if (first + GROUP) % HIDING == 0:
                self.hidden_signs()
        self.d.finish()
        return np.array(self.values, np.int32).reshape(CHANNELS, self.rows, self.columns)

    def flags(self, first, channels):
        """1. Flags of a group."""
        self.flag, self.left_weight, self.found = {}, {}, {}
        part = 4 * first // CHANNELS
        for y in range(self.rows):
            for start in self.starts:
                run = self.run_of(start)
                places = [(c, x) for c in channels for x in run]
                s = sum(WEIGHT[self.k[c][y][x]] for c, x in places if self.low[c][y][x])
                if s == 0:
                    continue
                full = sum(self.k[c][y][x] > 0 and not self.low[c][y][x] for c, x in places)
                u, near = weight_class(s), near_class(full)
                past = min(5, sum(self.history[y, start][-8:]))
                beside = self.flag.get((y - 1, start), 0) + self.flag.get((y, start - 8), 0)
                ratio = self.run_ratio(y, start)
                contexts = (u,), (u, near), (u, past, part), (u, ratio, beside)
                bit = mixed(self.d, self.state.group, contexts, self.state.group_weights[u // 8])
                self.d.element("group flag", (first // GROUP, y, start), bit)
                self.flag[y, start] = bit
                self.history[y, start].append(bit)
                self.left_weight[y, start] = s
                self.found[y, start] = 0

    def channel_run(self, rank, channels, y, start):
        """2. A run of a channel, and 3. its symbols."""
        c, run, d = self.order[rank], self.run_of(start), self.d
        part, low = 4 * rank // CHANNELS, self.low[c][y]
        x_weight = sum(WEIGHT[self.k[c][y][x]] for x in run if low[x])
        run_bit = 0
        if x_weight and self.flag[y, start]:
            s, found = self.left_weight[y, start], self.found[y, start]
            behind = channels[rank % GROUP + 1 :]
            if not found and not any(self.low[b][y][x] for b in behind for x in run):
                run_bit = 1
            else:
                v = 16 + weight_class(x_weight) // 2 if found else share_class(x_weight, s)
                above = sum(self.magnitude(c, y - 1, x) for x in range(start - 1, start + 9))
                near = near_class(above + 2 * self.magnitude(c, y, start - 1))
                contexts = (v,), (v, near), (v, self.run_ratio(y, start)), (v, part)
                run_bit = mixed(d, self.state.run, contexts, self.state.run_weights[found])
                d.element("run flag", (c, y, start), run_bit)
            self.left_weight[y, start] = s - x_weight
            self.found[y, start] |= run_bit
        low_found, left = False, x_weight
        for x in run:
            k = self.k[c][y][x]
            if k == 0 or (low[x] and not run_bit):
                continue
            near = near_class(
                2 * self.magnitude(c, y, x - 1)
                + 2 * self.magnitude(c, y - 1, x)
                + self.magnitude(c, y - 1, x - 1)
                + self.magnitude(c, y - 1, x + 1)
            )
            ratio = ratio_class(self.a[y][x], self.e[y][x])
            co = min(self.co[c][y][x], 4)
            m = 0
            if low[x] and not low_found:
                if left > WEIGHT[k]:
                    v = share_class(WEIGHT[k], left)
                    contexts = (v,), (v, near), (v, ratio), (v, co)
                    bit = mixed(d, self.state.first, contexts, self.state.first_weights[0])
                    d.element("first", (c, y, x), bit)
                else:
                    bit = 1
                left -= WEIGHT[k]
                if not bit:
                    continue
                m, low_found = 1, True
            self.symbol(rank, y, x, m, near, ratio, co, part)

    def symbol(self, rank, y, x, m, near, ratio, co, part):
        """Bins from m on, magnitude, sign unless it is hidden."""
        c, d, state = self.order[rank], self.d, self.state
        k = self.k[c][y][x]
        s = min(k // 2, 23)
        place = 32 + 3 * co + (min(near, 4) + 1) // 2 if self.inherits else 32 * rank // CHANNELS
        while m < 15:
            contexts = (k, m), (s, near, m), (s, ratio, part, m), (s, place, m)
            if not mixed(d, state.symbol, contexts, state.symbol_weights[min(m, 3)]):
                break
            m += 1
        if m == 15:
            m += state.escape[k // 16].decode(d)
            if m > 2047:
                raise Damage("y: a magnitude beyond 2047")
        if k >= 8:
            a, e = self.a[y][x], self.e[y][x]
            self.a[y][x] = a - (a >> 4) + 16 * min(m, 15)
            self.e[y][x] = e - (e >> 4) + (self.expected[k] >> 4)
        negative = 0
        if m:
            others = self.hiding.setdefault((y, x), [])
            if others:
                negative = d.bypass(1)
            others.append(c)
        self.values[c][y][x] = -m if negative else m
        d.element("symbol", (c, y, x, k), self.values[c][y][x])

    def hidden_signs(self):
        """4. Signs of the first symbols other than zero."""
        for (y, x), channels in sorted(self.hiding.items()):
            s = sum(abs(self.values[c][y][x]) for c in channels)
            first = channels[0]
            if s >= 2:
                negative = s % 2
            else:
                negative = self.d.bypass(1)
                self.d.element("sign", (first, y, x), negative)
            if negative:
                self.values[first][y][x] *= -1
        self.hiding = {}


def band_rows(h16, n, i):
    return h16 * i // n, h16 * (i + 1) // n


def decode_y(parts, states, tables, scale_idx, co, trace=None):
    """`[384, h16, w16]`; `states`: one for each band, changed in place."""
    h16 = scale_idx.shape[1]
    y = np.zeros(scale_idx.shape, np.int32)
    for i, (part, state) in enumerate(zip(parts, states)):
        begin, end = band_rows(h16, len(parts), i)
        if begin == end:
            if part.data:
                raise Damage("y: a string for a band without rows")
            continue
        rows = np.s_[:, begin:end]
        d = RangeDecoder(part, trace, "y")
        band = Band(d, state, tables, scale_idx[rows], None if co is None else co[rows])
        y[rows] = band.decode()
    return y

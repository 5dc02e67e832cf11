# SPDX-License-Identifier: MPL-2.0
"""Sections 5.1 to 5.3: range decoder, adaptive bits, counters and mixing."""

import math

from .bits import Damage

MASK = 0xFFFFFFFF


class RangeDecoder:
    """Reads one string. `element` names what was read since the element before, for the trace."""

    def __init__(self, part, trace=None, path=""):
        self.data, self.offset = part.data, part.offset
        self.trace, self.path = trace, path
        self.read = 0
        self.range, self.value = MASK, 0
        for _ in range(4):
            self.value = self.value << 8 | self._byte()
        self.mark = 0.0

    def _byte(self):
        byte = self.data[self.read] if self.read < len(self.data) else 0
        self.read += 1
        return byte

    def _renormalise(self):
        while self.range < 1 << 24:
            self.range = self.range << 8 & MASK
            self.value = (self.value << 8 | self._byte()) & MASK

    def bit(self, p1):
        """A bit that is one with the probability p1 / 65536."""
        bound = (self.range >> 16) * (65536 - p1)
        if self.value < bound:
            bit, self.range = 0, bound
        else:
            bit = 1
            self.value -= bound
            self.range -= bound
        self._renormalise()
        return bit

    def bypass(self, count):
        """`count` bits, highest first."""
        value = 0
        while count > 0:
            piece = min(count, 16)
            self.range >>= piece
            bits = min(self.value // self.range, (1 << piece) - 1)
            self.value -= bits * self.range
            self._renormalise()
            value = value << piece | bits
            count -= piece
        return value

    def finish(self):
        """Refuses strings that were too short or too long."""
        if not self.read - 4 <= len(self.data) <= self.read:
            raise Damage(
                f"{self.path}: string of {len(self.data)} bytes, of which {self.read} were read"
            )

    def position(self):
        """Bits that what was read until now took; a fraction, since bits share bytes."""
        return 8.0 * (self.read - 4) + 32.0 - math.log2(self.range)

    def element(self, name, index, value):
        if self.trace:
            self.trace.element(8 * self.offset + self.mark, self.path, name, index, value)
            self.mark = self.position()


# Shifts of the slow probability, by the number of bits seen.
SLOW = [next((s for s in range(1, 8) if (n + 2) ** 2 < 1 << (2 * s + 1)), 7) for n in range(128)]


class Prob:
    """Section 5.2: a bit that learns its probability at two speeds."""

    __slots__ = ("fast", "slow", "seen")

    def __init__(self, initial=32768):
        self.fast = self.slow = initial
        self.seen = 0

    def copy(self):
        new = Prob.__new__(Prob)
        new.fast, new.slow, new.seen = self.fast, self.slow, self.seen
        return new

    def decode(self, d):
        bit = d.bit(min(max((self.fast + self.slow) >> 1, 16), 65520))
        slow = SLOW[self.seen]
        fast = min(slow, 5)
        if bit:
            self.fast += (65535 - self.fast) >> fast
            self.slow += (65535 - self.slow) >> slow
        else:
            self.fast -= self.fast >> fast
            self.slow -= self.slow >> slow
        self.seen = min(self.seen + 1, 127)
        return bit


class UInt:
    def __init__(self, low_bits=0):
        self.low_bits = low_bits
        self.prefix = [Prob() for _ in range(20)]
        self.high = [Prob() for _ in range(20)]

    def copy(self):
        new = UInt.__new__(UInt)
        new.low_bits = self.low_bits
        new.prefix = [p.copy() for p in self.prefix]
        new.high = [p.copy() for p in self.high]
        return new

    def decode(self, d):
        e = 0
        while e < 20 and self.prefix[e].decode(d):
            e += 1
        m = 1
        if e > 0:
            m = 2 | self.high[e - 1].decode(d)
            m = m << (e - 1) | d.bypass(e - 1)
        return (m - 1 << self.low_bits) + d.bypass(self.low_bits)


class SInt:
    def __init__(self, low_bits=0):
        self.not_zero, self.negative, self.magnitude = Prob(), Prob(), UInt(low_bits)

    def copy(self):
        new = SInt.__new__(SInt)
        new.not_zero, new.negative = self.not_zero.copy(), self.negative.copy()
        new.magnitude = self.magnitude.copy()
        return new

    def decode(self, d):
        if not self.not_zero.decode(d):
            return 0
        negative = self.negative.decode(d)
        magnitude = 1 + self.magnitude.decode(d)
        return -magnitude if negative else magnitude


# The table of section 5.3, as printed there.
LOGISTIC = [
    int(n)
    for n in """
1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 6, 7, 8, 9, 10, 12, 13, 15, 17, 19, 22, 25, 28, 32,
36, 41, 47, 53, 60, 68, 77, 87, 98, 111, 126, 143, 162, 184, 208, 236, 267, 302, 342, 387, 439,
497, 562, 636, 720, 815, 922, 1042, 1179, 1333, 1506, 1701, 1921, 2168, 2446, 2758, 3108, 3500,
3938, 4427, 4971, 5577, 6249, 6992, 7812, 8714, 9702, 10782, 11955, 13226, 14595, 16062, 17625,
19282, 21025, 22849, 24743, 26695, 28693, 30723, 32768, 34813, 36843, 38841, 40793, 42687,
44511, 46254, 47911, 49474, 50941, 52310, 53581, 54754, 55834, 56822, 57724, 58544, 59287,
59959, 60565, 61109, 61598, 62036, 62428, 62778, 63090, 63368, 63615, 63835, 64030, 64203,
64357, 64494, 64614, 64721, 64816, 64900, 64974, 65039, 65097, 65149, 65194, 65234, 65269,
65300, 65328, 65352, 65374, 65393, 65410, 65425, 65438, 65449, 65459, 65468, 65476, 65483,
65489, 65495, 65500, 65504, 65508, 65511, 65514, 65517, 65519, 65521, 65523, 65524, 65526,
65527, 65528, 65529, 65530, 65530, 65531, 65532, 65532, 65533, 65533, 65533, 65534, 65534,
65534, 65534, 65535, 65535, 65535,
""".replace(",", " ").split()
]


def _s(x):
    i, f = x + 2816 >> 5, x + 2816 & 31
    return LOGISTIC[i] + ((LOGISTIC[i + 1] - LOGISTIC[i]) * f + 16 >> 5)


S = {x: _s(x) for x in range(-2816, 2816)}


def _stretch_table():
    table, x = [], -2047
    for i in range(4096):
        while x < 2047 and S[x] < 16 * i + 8:
            x += 1
        table.append(x)
    return table


STRETCH = _stretch_table()


class Counter:
    __slots__ = ("p", "n")

    def __init__(self, p1, trust):
        self.p, self.n = p1 * 64, trust

    def copy(self):
        new = Counter.__new__(Counter)
        new.p, new.n = self.p, self.n
        return new

    def learn(self, bit, limit):
        target = 32767 if bit else 0
        self.p += (target - (self.p >> 7)) * min(32767, 131072 // (2 * self.n + 3)) >> 9
        if self.n < limit:
            self.n += 1


class Counters(dict):
    """Counters by context, made when first met: `initial(*context)` gives p1 and trust."""

    def __init__(self, initial):
        super().__init__()
        self.initial = initial

    def __missing__(self, context):
        counter = self[context] = Counter(*self.initial(*context))
        return counter

    def copy(self):
        new = Counters(self.initial)
        for context, counter in self.items():
            new[context] = counter.copy()
        return new


def mixed_bit(d, counters, weights, limits):
    stretched = [STRETCH[c.p >> 10] for c in counters]
    total = sum(w * st for w, st in zip(weights, stretched))
    p1 = min(max(S[2 * min(max(total >> 15, -1408), 1407)], 16), 65520)
    bit = d.bit(p1)
    error = bit * 4096 - (p1 >> 4)
    for k, st in enumerate(stretched):
        weights[k] = min(max(weights[k] + (error * st + 4096 >> 13), -32768), 32767)
    for counter, limit in zip(counters, limits):
        counter.learn(bit, limit)
    return bit


def copy_weights(sets):
    return [list(weights) for weights in sets]

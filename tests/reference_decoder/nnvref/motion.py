# SPDX-License-Identifier: MPL-2.0
"""Motion, sections 1 to 3: reading the field of an inter frame."""

from typing import NamedTuple

from .entropy import Prob, SInt

REF0, REF1, BI = 0, 1, 2
MODE_NAMES = {REF0: "Ref0", REF1: "Ref1", BI: "Bi"}
MERGE, NEW, SPLIT = 0, 1, 2
ZERO = (0, 0)


class Leaf(NamedTuple):
    mode: int
    mv0: tuple
    mv1: tuple

    def uses(self, r):
        return self.mode == BI or self.mode == r

    def mv(self, r):
        return self.mv1 if r else self.mv0


def leaf(mode, mv0, mv1):
    return Leaf(mode, mv0 if mode != REF1 else ZERO, mv1 if mode != REF0 else ZERO)


class Field:
    """Leaves of the cells, and the distances that they were coded with."""

    def __init__(self, rows, columns, dist):
        self.rows, self.columns, self.dist = rows, columns, dist
        self.leaves = [[None] * columns for _ in range(rows)]

    def at(self, x, y):
        """The leaf of a cell; None where it is missing."""
        if 0 <= y < self.rows and 0 <= x < self.columns:
            return self.leaves[y][x]
        return None


def clamp_mv(x, y):
    return min(max(x, -8191), 8191), min(max(y, -8191), 8191)


def scale(mv, start, to):
    if start == to or start == 0 or to == 0:
        return mv

    def component(v):
        n, d = v * to, start
        if d < 0:
            n, d = -n, -d
        size = (2 * abs(n) + d) // (2 * d)
        return -size if n < 0 else size

    return clamp_mv(component(mv[0]), component(mv[1]))


class MotionState:
    def __init__(self):
        probs = lambda *initial: [Prob(p) for p in initial]  # noqa: E731
        self.region = probs(6000, 32000, 56000)
        self.merge = probs(50000, 38000, 36000, 38000, 26000, 24000, 36000, 24000, 22000)
        self.split = probs(16000, 20000, 32000, 20000, 20000, 34000, 32000, 34000, 44000)
        self.index0 = probs(32000, 32000, 32000, 30000, 30000)
        self.index1 = probs(32000, 32000, 32000, 30000, 30000)
        self.cell = probs(36000, 30000, 24000)
        self.bi = probs(12000, 26000, 44000)
        self.second = probs(10000, 26000, 44000)
        self.x = [SInt() for _ in range(2 * 3)]
        self.y = [SInt() for _ in range(2 * 3 * 2)]

    def copy(self):
        new = MotionState.__new__(MotionState)
        for name, models in vars(self).items():
            setattr(new, name, [m.copy() for m in models])
        return new


class Around:
    """What is known around a block or a cell (section 2)."""

    def __init__(self, field, colocated, x, y, k=None):
        """`k`: the number of a cell of a split block; None for a block."""
        at = field.at
        if k is None:
            self.a, self.b = at(x - 1, y + 1), at(x + 1, y - 1)
            self.c, self.d = at(x + 2, y - 1), at(x - 1, y - 1)
            self.e, self.f = at(x - 1, y), at(x, y - 1)
        else:
            self.a, self.b = at(x - 1, y), at(x, y - 1)
            self.c, self.d = at(x + 1, y - 1) if k != 3 else None, at(x - 1, y - 1)
            self.e = self.f = None
        self.dist = field.dist
        self.t = None
        if colocated:
            there = colocated.at(x + 1, y + 1) if k is None else colocated.at(x, y)
            mvs = [scale(there.mv(r), colocated.dist[r], self.dist[r]) for r in (0, 1)]
            self.t = leaf(there.mode, *mvs)

    def candidates(self):
        counts = {}
        for item in (self.a, self.b, self.c, self.d, self.e, self.f, self.t):
            if item is not None:
                counts[item] = counts.get(item, 0) + 1
        voted = sorted(counts, key=lambda item: -counts[item])[:6]
        more = []
        users = [next((v for v in voted if v.uses(r)), None) for r in (0, 1)]
        if all(users):
            more.append(leaf(BI, users[0].mv0, users[1].mv1))
        single = next((v for v in voted if v.mode != BI), None)
        if single is not None and all(self.dist):
            i = single.mode
            more.append(leaf(BI, *(scale(single.mv(i), self.dist[i], d) for d in self.dist)))
        more += [leaf(mode, ZERO, ZERO) for mode in (REF0, BI, REF1)]
        for item in more:
            if item not in voted and len(voted) < 6:
                voted.append(item)
        return voted

    def _vectors(self, r):
        around = (self.a, self.b, self.d if self.c is None else self.c, self.t)
        around = [item for item in around if item is not None]
        vectors = [item.mv(r) for item in around if item.uses(r)]
        if vectors:
            return vectors
        return [scale(item.mv(1 - r), self.dist[1 - r], self.dist[r]) for item in around]

    def predictor(self, r):
        vectors = self._vectors(r)
        if not vectors:
            return ZERO
        if len(vectors) < 3:
            return vectors[0]
        return tuple(sorted(v[i] for v in vectors[:3])[1] for i in (0, 1))

    def spread(self, r):
        vectors = self._vectors(r)
        if len(vectors) < 2:
            return 2
        s = sum(abs(vectors[0][i] - vectors[1][i]) for i in (0, 1))
        return 0 if s <= 2 else 1 if s <= 12 else 2


class FieldReader:
    def __init__(self, d, state, rows, columns, dist, colocated):
        """`rows`, `columns`: in cells. `dist`: distances of both references."""
        self.d, self.state, self.colocated = d, state, colocated
        self.field = Field(rows, columns, dist)

    def _bit(self, name, context, place):
        probs = getattr(self.state, name)
        bit = probs[context].decode(self.d)
        self.d.element(name, (context, *place), bit)
        return bit

    def read(self):
        rows, columns = self.field.rows // 2, self.field.columns // 2
        region, kinds = {}, {}
        for by in range(rows):
            for bx in range(columns):
                rx, ry = bx // 4, by // 4
                if bx % 4 == 0 and by % 4 == 0:
                    context = region.get((rx - 1, ry), 0) + region.get((rx, ry - 1), 0)
                    region[rx, ry] = self._bit("region", context, (rx, ry))
                if region[rx, ry]:
                    around = Around(self.field, self.colocated, 2 * bx, 2 * by)
                    self._fill(bx, by, around.candidates()[0])
                    kinds[bx, by] = MERGE
                else:
                    context = 3 * kinds.get((bx - 1, by), MERGE) + kinds.get((bx, by - 1), MERGE)
                    kinds[bx, by] = self._block(bx, by, context)
        self.d.finish()
        return self.field

    def _fill(self, bx, by, value):
        for y in (2 * by, 2 * by + 1):
            for x in (2 * bx, 2 * bx + 1):
                self.field.leaves[y][x] = value

    def _block(self, bx, by, context):
        around = Around(self.field, self.colocated, 2 * bx, 2 * by)
        if self._bit("merge", context, (bx, by)):
            self._fill(bx, by, self._indexed("index0", around, (bx, by)))
            return MERGE
        if not self._bit("split", context, (bx, by)):
            self._fill(bx, by, self._new(around, (bx, by)))
            return NEW
        merged = 0
        for k in range(4):
            x, y = 2 * bx + k % 2, 2 * by + k // 2
            around = Around(self.field, self.colocated, x, y, k)
            cell_context = int(k == 0) if merged == 0 else 2 if merged == k else 1
            if self._bit("cell", cell_context, (x, y)):
                value = self._indexed("index1", around, (x, y))
                merged += 1
            else:
                value = self._new(around, (x, y))
            self.field.leaves[y][x] = value
        return SPLIT

    def _indexed(self, name, around, place):
        candidates, probs = around.candidates(), getattr(self.state, name)
        i = 0
        while i + 1 < len(candidates) and probs[i].decode(self.d):
            i += 1
        self.d.element(name, place, i)
        return candidates[i]

    def _new(self, around, place):
        near = [item for item in (around.a, around.b) if item is not None]
        if self._bit("bi", sum(item.mode == BI for item in near), place):
            mode = BI
        elif self._bit("second", sum(item.mode == REF1 for item in near), place):
            mode = REF1
        else:
            mode = REF0
        mvs = [ZERO, ZERO]
        for r in (0, 1):
            if mode not in (r, BI):
                continue
            s, p = around.spread(r), around.predictor(r)
            dx = self.state.x[3 * r + s].decode(self.d)
            self.d.element("mv x", (s, *place), dx)
            dy = self.state.y[2 * (3 * r + s) + (dx == 0)].decode(self.d)
            self.d.element("mv y", (s, *place), dy)
            mvs[r] = clamp_mv(p[0] + dx, p[1] + dy)
        return leaf(mode, *mvs)

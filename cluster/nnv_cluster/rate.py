# SPDX-License-Identifier: MPL-2.0
"""A mean rate over a whole film, met by the quantizers of its chunks.

Chunks share a slope of distortion over rate when they share a quantizer, for a quantizer fixes the
multiplier. So all get one quantizer `q` or the next one. A few chunks are coded at two quantizers,
to learn how bits follow from motion, detail and the quantizer; after all are coded, some change by
one step until the mean is met. All of it follows from the bytes of chunks: the workers' number and
order do not count.
"""

import math
from dataclasses import dataclass

# Chunks that are coded on trial.
TRIALS = 4
# The mean rate is met when it is so close.
NEAR = 0.02
# Rounds of changes after all chunks are coded.
ROUNDS = 4


@dataclass
class Model:
    """`ln(bits a frame) = a + b ln(motion + 1) + c ln(detail + 1) - slope q`, as far as known."""

    level: float
    slope: float
    by_motion: float = 0.5
    by_detail: float = 0.5

    def shape(self, chunk):
        """What of a chunk's bits follows from its features."""
        return self.by_motion * math.log1p(chunk.motion) + self.by_detail * math.log1p(chunk.detail)

    def bits(self, chunk, quantizer):
        """Expected bits of a chunk."""
        value = self.level + self.shape(chunk) - self.slope * quantizer
        return chunk.count * math.exp(value)


def trials(chunks):
    """The chunks that are coded on trial: spread over the order of expected bits."""
    model = Model(0.0, 0.0)
    ordered = sorted(chunks, key=lambda c: (model.shape(c), c.index))
    count = min(TRIALS, len(ordered))
    picked = {ordered[(2 * i + 1) * len(ordered) // (2 * count)].index for i in range(count)}
    return [chunk for chunk in chunks if chunk.index in picked]


def trial_quantizers(worst):
    """The two quantizers of the trials."""
    return (worst * 4 // 9, worst * 2 // 3)


def learn(measured):
    """A model from `[(chunk, quantizer, bytes)]`."""
    by_chunk = {}
    for chunk, quantizer, size in measured:
        by_chunk.setdefault(chunk.index, []).append((quantizer, math.log(8 * size / chunk.count)))
    slopes = []
    for points in by_chunk.values():
        points.sort()
        (low, much), (high, little) = points[0], points[-1]
        if high > low:
            slopes.append((much - little) / (high - low))
    # Twelve steps double the quantizer's step: bits fall by about a half then.
    slope = max(0.01, sum(slopes) / len(slopes)) if slopes else math.log(2) / 12
    model = Model(0.0, slope)
    rest = [
        math.log(8 * size / chunk.count) - model.shape(chunk) + slope * quantizer
        for chunk, quantizer, size in measured
    ]
    model.level = sum(rest) / len(rest)
    return model


def spread(chunks, expected, target, worst):
    """A quantizer for each chunk: one for all, and one more for the first so many of them.

    `expected(chunk, quantizer)` are bits, `target` the bits of all.
    """
    def total(quantizer):
        return sum(expected(chunk, quantizer) for chunk in chunks)

    # The finest that does not go beyond the target.
    coarse = next((q for q in range(worst + 1) if total(q) <= target), worst)
    chosen = {chunk.index: coarse for chunk in chunks}
    have = total(coarse)
    if coarse == 0 or have > target:
        return chosen
    # Chunks in an order without any pattern in time get the finer one while it fits.
    for chunk in sorted(chunks, key=lambda c: c.pictures):
        more = expected(chunk, coarse - 1) - expected(chunk, coarse)
        if have + more <= target:
            chosen[chunk.index] = coarse - 1
            have += more
    return chosen


def plan_rate(plan, kbits, worst, code):
    """The quantizer of each chunk for a mean rate.

    `code({(index, quantizer)})` codes and returns `{(index, quantizer): bytes}`. Returns
    `({index: quantizer}, reached)`, reached in kbit/s.
    """
    target = kbits * 1000 * plan.seconds
    by_index = {chunk.index: chunk for chunk in plan.chunks}
    known = {}
    tried = trials(plan.chunks)
    known.update(code({(c.index, q) for c in tried for q in trial_quantizers(worst)}))
    model = learn([(by_index[i], q, size) for (i, q), size in sorted(known.items())])

    def expected(chunk, quantizer):
        """Bits that were measured, or those of the nearest measured quantizer, or the model's."""
        near = [q for (i, q) in known if i == chunk.index]
        if not near:
            return model.bits(chunk, quantizer)
        q = min(near, key=lambda q: (abs(q - quantizer), q))
        return 8 * known[chunk.index, q] * math.exp(model.slope * (q - quantizer))

    best = None
    for _ in range(ROUNDS):
        chosen = spread(plan.chunks, expected, target, worst)
        wanted = set(chosen.items())
        known.update(code(wanted - set(known)))
        reached = 8 * sum(known[pair] for pair in wanted)
        off = abs(reached / target - 1)
        if best is None or off < best[0]:
            best = off, chosen, reached
        if off <= NEAR:
            break
    return best[1], best[2] / plan.seconds / 1000

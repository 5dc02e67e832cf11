# SPDX-License-Identifier: MPL-2.0
"""Section 5.8: the still map."""

import numpy as np

from .entropy import Prob

# By the number of neighbours that are still.
INITIAL = [6000, 24000, 44000, 60000]


class StillState:
    def __init__(self):
        self.probs = [[Prob(INITIAL[i.bit_count()]) for i in range(8)] for _ in range(3)]

    def copy(self):
        new = StillState.__new__(StillState)
        new.probs = [[p.copy() for p in probs] for probs in self.probs]
        return new


def decode_still(d, state, height, width, before):
    """`before`: the map of the frame ref0, None where it has none."""
    still = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            left = x > 0 and still[y, x - 1]
            top = y > 0 and still[y - 1, x]
            top_right = y > 0 and x + 1 < width and still[y - 1, x + 1]
            past = 0 if before is None else 1 + int(before[y, x])
            neighbours = int(left) + 2 * int(top) + 4 * int(top_right)
            bit = state.probs[past][neighbours].decode(d)
            d.element("still", (past, neighbours), bit)
            still[y, x] = bit
    d.finish()
    return still

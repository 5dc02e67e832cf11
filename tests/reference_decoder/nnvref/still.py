# SPDX-License-Identifier: MPL-2.0
"""Section 5.8: the still map, and what section 6 puts at still places."""

import numpy as np

from .entropy import Prob

# Initial probabilities, by the number of neighbours that are 1.
INITIAL = (6000, 24000, 44000, 60000)


class StillState:
    def __init__(self):
        self.probs = [[Prob(INITIAL[c.bit_count()]) for c in range(8)] for _past in range(3)]

    def copy(self):
        new = StillState.__new__(StillState)
        new.probs = [[p.copy() for p in row] for row in self.probs]
        return new


def decode_still(d, state, height, width, before):
    """1 at still places. `before`: the map of the frame ref0, None where it has none."""
    # A row of zeros above, a column of zeros to the left and to the right.
    bits = np.zeros((height + 1, width + 2), np.int32)
    for y in range(height):
        for x in range(width):
            left, top, top_right = bits[y + 1, x], bits[y, x + 1], bits[y, x + 2]
            context = int(left + 2 * top + 4 * top_right)
            past = 0 if before is None else 1 + int(before[y, x])
            bit = state.probs[past][context].decode(d)
            d.element("bit", (past, context, y, x), bit)
            bits[y + 1, x + 1] = bit
    d.finish()
    return bits[1:, 1:-1]


def lay_prediction(still, pic, p):
    """Section 6, step 5: `p` at still places. Both packed, `[96, 2 h16, 2 w16]`."""
    return np.where(still.repeat(2, axis=0).repeat(2, axis=1) == 1, p, pic)

# SPDX-License-Identifier: MPL-2.0
"""Section 5.6: the quantizer map."""

import numpy as np

from .bits import Damage
from .entropy import SInt


def decode_map(d, height, width):
    values = np.zeros((height, width), np.int32)
    models = [SInt() for _ in range(3)]
    for y in range(height):
        for x in range(width):
            left = int(values[y, x - 1]) if x > 0 else None
            top = int(values[y - 1, x]) if y > 0 else None
            if left is not None and top is not None:
                expected, cls = left + top >> 1, min(2, abs(left - top))
            elif left is not None or top is not None:
                expected, cls = left if top is None else top, 1
            else:
                expected, cls = 0, 2
            m = expected + models[cls].decode(d)
            if not -4 <= m <= 3:
                raise Damage(f"map: a value of {m}")
            values[y, x] = m
            d.element("value", (y, x), m)
    d.finish()
    return values

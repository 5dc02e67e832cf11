# SPDX-License-Identifier: MPL-2.0
"""MD5s as in tests/conformance/MD5SUMS."""

import hashlib

import numpy as np

from .frames import checksum

# By depth, of colour and of grey.
FORMATS = {8: ("I420", "GRAY8"), 10: ("I420_10LE", "GRAY16_LE")}


class Sums:
    """Both MD5s over the shown pictures.

    `frames`: over a line of text for each: format, size, checksum as in section 8 of the output's
    samples (8 bits: four times the value), time. `samples`: over the samples in the memory of the
    output's format, which `videocodectestsink` gives.
    """

    def __init__(self):
        self.count = 0
        self.frames, self.samples = hashlib.md5(), hashlib.md5()

    def add(self, shown):
        self.count += 1
        planes = shown.output()
        factor = 4 if shown.sequence.bit_depth == 8 else 1
        width, height = shown.size
        words = [p.astype(np.int32) * factor for p in planes]
        pts = "None" if shown.pts is None else f"Some({shown.pts})"
        line = (
            f"{FORMATS[shown.sequence.bit_depth][shown.sequence.grey]} {width}x{height} "
            f"{checksum(words, width, height):08x} {pts}\n"
        )
        self.frames.update(line.encode())
        if shown.sequence.grey:
            # Ten bits stand above, below them their own six highest.
            wide = lambda p: p if p.itemsize == 1 else p << 6 | p >> 4  # noqa: E731
            planes = [wide(planes[0])]
        for plane in planes:
            self.samples.update(plane.tobytes())
        return line

    def __str__(self):
        """As a line of MD5SUMS, without the name."""
        return f"{self.count} {self.frames.hexdigest()} {self.samples.hexdigest()}"

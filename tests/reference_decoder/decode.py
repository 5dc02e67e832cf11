#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Decode an NNV stream with the second decoder. See README.md beside this file."""

import argparse
import sys
from pathlib import Path

from nnvref.bits import Unsupported
from nnvref.bundle import Bundles
from nnvref.decoder import Decoder
from nnvref.output import Sums
from nnvref.trace import Printer

MODELS = Path(__file__).resolve().parents[2] / "models"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stream", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="write planar samples, 8 or 16 bits each")
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of bundles")
    parser.add_argument("--frames", type=int, help="stop after so many frames of the stream")
    parser.add_argument("--trace", action="store_true", help="print each syntax element")
    options = parser.parse_args()

    faults = []

    def report(text):
        faults.append(text)
        print(f"{options.stream}: {text}", file=sys.stderr)

    trace = Printer(sys.stdout) if options.trace else None
    data = options.stream.read_bytes()
    sums = Sums()
    out = options.output.open("wb") if options.output else None
    try:
        decoder = Decoder(data, Bundles(options.models), report, trace, options.frames)
        for shown in decoder:
            line = sums.add(shown)
            if not trace:
                print(f"{shown.number:6} {line}", end="")
            if out:
                for plane in shown.output():
                    out.write(plane.tobytes())
    except Unsupported as error:
        sys.exit(f"{options.stream}: {error}")
    finally:
        if out:
            out.close()
    if not trace:
        print(f"{sums.count} frames, {sums.frames.hexdigest()} {sums.samples.hexdigest()}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()

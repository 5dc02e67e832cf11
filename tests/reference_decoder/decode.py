#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Decode NNV streams with the second decoder. See README.md beside this file."""

import argparse
import sys
from pathlib import Path

from nnvref.bits import Unsupported
from nnvref.bundle import Bundles
from nnvref.coverage import Coverage
from nnvref.decoder import Decoder
from nnvref.networks import RUNTIMES
from nnvref.output import Sums
from nnvref.trace import Printer

MODELS = Path(__file__).resolve().parents[2] / "models"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stream", type=Path, nargs="+")
    parser.add_argument(
        "-o", "--output", type=Path, help="write planar samples of 8 or 16 bits, of all streams"
    )
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of bundles")
    parser.add_argument(
        "--runtime", choices=RUNTIMES, default="onnxruntime", help="what runs the networks"
    )
    parser.add_argument("--frames", type=int, help="stop after so many frames of each stream")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--trace", action="store_true", help="print each syntax element")
    what.add_argument(
        "--coverage", action="store_true", help="print what of the syntax the streams exercise"
    )
    options = parser.parse_args()

    trace = Printer(sys.stdout) if options.trace else Coverage() if options.coverage else None
    bundles = Bundles(options.models, RUNTIMES[options.runtime])
    faults = 0
    out = options.output.open("wb") if options.output else None
    for path in options.stream:

        def report(text, path=path):
            nonlocal faults
            faults += 1
            print(f"{path}: {text}", file=sys.stderr)

        sums = Sums()
        try:
            for shown in Decoder(path.read_bytes(), bundles, report, trace, options.frames):
                line = sums.add(shown)
                if not trace:
                    print(f"{shown.number:6} {line}", end="")
                if out:
                    for plane in shown.output():
                        out.write(plane.tobytes())
        except (Unsupported, OSError) as error:
            report(error)
        if not trace:
            print(f"{path.stem} {sums}")
    if options.coverage:
        print("\n".join(trace.table()))
    if out:
        out.close()
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # of `--trace | head`
        sys.stderr.close()
        sys.exit(1)

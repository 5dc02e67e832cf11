"""Clips of drawn screens, for measurements: ``python -m nnvtrain.screens FOLDER``.

Pages and desktops of `synth.screen_page` that scroll, or on which a window opens. Nobody's data:
what comes of them may be shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from . import synth

WIDTH, HEIGHT, FRAMES = 640, 352, 17
SCROLL_FROM, LINES = 6, 4
OPENS_AT, WINDOW = 8, (64, 96, 176, 384)  # top, left, height, width


def clip(number: int):
    """Frames (y, u, v) as u8: even numbers scroll, odd ones open a window."""
    rng = np.random.default_rng(100 + number)
    page = [np.asarray(p).astype(np.uint8) for p in synth.screen_page(rng, HEIGHT + 64, WIDTH + 64)]
    other = [np.asarray(p).astype(np.uint8) for p in synth.screen_page(rng, HEIGHT, WIDTH)]
    for t in range(FRAMES):
        planes = []
        for p, (a, b) in enumerate(zip(page, other)):
            d = 2 if p else 1
            down = LINES * max(0, t - SCROLL_FROM) // d if number % 2 == 0 else 0
            plane = a[down : down + HEIGHT // d, : WIDTH // d].copy()
            if number % 2 and t >= OPENS_AT:
                top, left, h, w = (n // d for n in WINDOW)
                plane[top : top + h, left : left + w] = b[:h, :w]
            planes.append(plane)
        yield planes


def main():
    p = argparse.ArgumentParser(
        prog="python -m nnvtrain.screens", description=__doc__.split("\n")[0]
    )
    p.add_argument("folder", type=Path)
    p.add_argument("--count", type=int, default=5)
    args = p.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for number in range(args.count):
        with open(args.folder / f"screen{number}.y4m", "wb") as out:
            out.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C420jpeg\n".encode())
            for planes in clip(number):
                out.write(b"FRAME\n")
                for plane in planes:
                    out.write(plane.tobytes())
        print(f"{args.folder}/screen{number}.y4m")


if __name__ == "__main__":
    main()

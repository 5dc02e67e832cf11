#!/usr/bin/env python3
"""Render the clip that ships with the project, tests/fixtures/demo.mkv: 3 seconds, 320x240, 25
frames/s, lossless H.264.

    .deps/python/bin/python scripts/make-demo-clip.py [OUTPUT]

It needs numpy and the ffmpeg command.

Everything in it is computed here, so it carries no rights of others: a camera pans over hills in
three parallax layers under a sky with a gradient and drifting clouds, a textured ball rolls and
bounces in front, a sign shows letters and the time. The same script always renders the same pixels.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, FPS, FRAMES = 320, 240, 25, 75
SCALE = 2  # rendered larger and averaged down, for soft edges
W, H = WIDTH * SCALE, HEIGHT * SCALE

FONT = {
    "N": "10001 11001 10101 10011 10001 10001 10001",
    "V": "10001 10001 10001 10001 10001 01010 00100",
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "01110 10001 00001 00110 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
    ".": "00000 00000 00000 00000 00000 01100 01100",
    "s": "00000 00000 01111 10000 01110 00001 11110",
    " ": "00000 00000 00000 00000 00000 00000 00000",
}  # fmt: skip


def sample(tile: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth, periodic interpolation of a tile at positions in tile units."""
    n = tile.shape[0]
    xi, yi = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - xi, y - yi
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    a, b = tile[yi % n, xi % n], tile[yi % n, (xi + 1) % n]
    c, d = tile[(yi + 1) % n, xi % n], tile[(yi + 1) % n, (xi + 1) % n]
    return (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy


def fractal(x: np.ndarray, y: np.ndarray, octaves: int, tile: np.ndarray) -> np.ndarray:
    out, gain = np.zeros(np.broadcast(x, y).shape), 0.5
    for i in range(octaves):
        out += gain * sample(tile, x * 2**i + 17 * i, y * 2**i + 5 * i)
        gain *= 0.5
    return out


def mix(a: np.ndarray, b, t: np.ndarray) -> np.ndarray:
    return a + (np.asarray(b) - a) * np.clip(t, 0, 1)[..., None]


def render(t: float, tile: np.ndarray) -> np.ndarray:
    """One frame, RGB 0..1, at time t in seconds."""
    y, x = np.mgrid[0:H, 0:W] / H
    pan = 0.22 * t + 0.02 * np.sin(2.1 * t)
    image = mix(
        np.broadcast_to(np.array([0.30, 0.52, 0.86]), (H, W, 3)), [0.95, 0.86, 0.72], y * 1.5
    )
    clouds = fractal(3 * (x + 0.12 * pan + 0.03 * t), 5 * y, 5, tile)
    image = mix(image, [1.0, 0.99, 0.97], (clouds - 0.52) * 4 * (1 - 1.4 * y))
    layers = (
        (0.35, 0.42, 1.5, [0.45, 0.52, 0.62]),
        (0.7, 0.55, 2.2, [0.30, 0.46, 0.30]),
        (1.3, 0.72, 3.1, [0.42, 0.40, 0.20]),
    )
    for depth, height, rough, colour in layers:
        u = x + depth * pan
        ridge = height + 0.16 * (fractal(rough * u, np.full_like(u, 3.7 * depth), 4, tile) - 0.5)
        grain = fractal(14 * u / (0.6 + depth * 0.5), 14 * (y - ridge * 0.3), 4, tile)
        ground = np.asarray(colour) * (0.55 + 0.9 * grain)[..., None]
        image = mix(image, ground, (y - ridge) * H / 2)
    # The ball: a lit sphere whose stripes and spots turn as it rolls.
    cx, bounce = 0.15 + 0.36 * t, abs(np.sin(2.6 * t))
    cy, radius = 0.80 - 0.28 * bounce, 0.11
    shadow = np.exp(-(((x - cx) / 0.10) ** 2) - ((y - 0.93) / 0.02) ** 2)
    image = image * (1 - (0.55 - 0.25 * bounce) * shadow)[..., None]
    dx, dy = (x - cx) / radius, (y - cy) / radius
    rr = dx * dx + dy * dy
    dz = np.sqrt(np.maximum(1 - rr, 0))
    angle = 3.3 * t
    px, py = dx * np.cos(angle) + dy * np.sin(angle), -dx * np.sin(angle) + dy * np.cos(angle)
    stripes = 0.5 + 0.5 * np.tanh(9 * np.sin(5 * np.arctan2(px, dz + 0.4)))
    ball = mix(
        np.broadcast_to(np.array([0.86, 0.16, 0.13]), (H, W, 3)), [0.97, 0.93, 0.84], stripes
    )
    ball = mix(ball, [0.12, 0.16, 0.42], np.tanh(30 * (0.34 - np.abs(py))) * 0.5 + 0.5)
    light = np.clip(0.35 + 0.75 * (-0.45 * dx - 0.55 * dy + 0.70 * dz), 0.08, 1.2)
    shine = np.clip(-0.40 * dx - 0.50 * dy + 0.77 * dz, 0, 1) ** 40
    image = mix(
        image,
        ball * light[..., None] + 0.8 * shine[..., None],
        (1 - np.sqrt(rr)) * radius * H / 1.5,
    )
    # The sign, fixed to the picture as a logo is.
    text, cell = f"NNV {t:4.1f}s", 3 * SCALE
    x0, y0 = 12 * SCALE, 12 * SCALE
    box = image[
        y0 - 6 * SCALE : y0 + 7 * cell + 6 * SCALE,
        x0 - 6 * SCALE : x0 + len(text) * 6 * cell + 5 * SCALE,
    ]
    box *= 0.35
    for k, letter in enumerate(text):
        for r, bits in enumerate(FONT[letter].split()):
            for c, bit in enumerate(bits):
                if bit == "1":
                    xx, yy = x0 + (6 * k + c) * cell, y0 + r * cell
                    image[yy : yy + cell, xx : xx + cell] = [0.98, 0.96, 0.90]
    return image.reshape(HEIGHT, SCALE, WIDTH, SCALE, 3).mean((1, 3)).clip(0, 1)


def to_i420(rgb: np.ndarray) -> bytes:
    """BT.601, limited range, chroma averaged over 2x2."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    small = [
        ((c - luma) * k).reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean((1, 3))
        for c, k in ((b, 0.5 / 0.886), (r, 0.5 / 0.701))
    ]
    planes = [16 + 219 * luma, 128 + 224 * small[0], 128 + 224 * small[1]]
    return b"".join(np.round(p).astype(np.uint8).tobytes() for p in planes)


def main() -> int:
    default = Path(__file__).resolve().parents[1] / "tests/fixtures/demo.mkv"
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    tile = np.random.default_rng(20240607).random((64, 64))
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-y",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "yuv420p",
        "-s",
        f"{WIDTH}x{HEIGHT}",
        "-r",
        str(FPS),
        "-i",
        "-",
        "-c:v",
        "libx264",
        "-preset",
        "veryslow",
        "-qp",
        "0",
        "-threads",
        "1",
        "-colorspace",
        "smpte170m",
        "-color_primaries",
        # fmt: skip
        "smpte170m",
        "-color_trc",
        "smpte170m",
        "-color_range",
        "tv",
        "-fflags",
        "+bitexact",
        str(output),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        for i in range(FRAMES):
            encoder.stdin.write(to_i420(render(i / FPS, tile)))
            print(f"\rframe {i + 1}/{FRAMES}", end="", file=sys.stderr, flush=True)
    print(f"\n{output}: {output.stat().st_size} bytes", file=sys.stderr)
    return encoder.returncode


if __name__ == "__main__":
    sys.exit(main())

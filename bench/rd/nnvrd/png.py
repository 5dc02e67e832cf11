"""Write RGB pictures as PNG, and turn I420 into RGB (BT.601 below 720 lines, BT.709 from there;
limited range).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np


def write_png(path: Path, rgb: np.ndarray) -> None:
    """rgb: u8 [height, width, 3]."""
    height, width, _ = rgb.shape
    rows = np.zeros((height, 1 + width * 3), dtype=np.uint8)
    rows[:, 1:] = rgb.reshape(height, width * 3)
    # Filter type 1 (Sub) everywhere: simple, and good enough for pictures that are looked at once.
    rows[:, 0] = 1
    rows[:, 4:] -= rgb.reshape(height, width * 3)[:, :-3]

    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 6))
        + chunk(b"IEND", b"")
    )


def i420_to_rgb(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    height, width = y.shape
    luma = (y.astype(np.float32) - 16) * (255 / 219)
    cb = np.repeat(np.repeat(u, 2, 0), 2, 1)[:height, :width].astype(np.float32) - 128
    cr = np.repeat(np.repeat(v, 2, 0), 2, 1)[:height, :width].astype(np.float32) - 128
    kr, kb = (0.2126, 0.0722) if height >= 720 else (0.299, 0.114)
    kg = 1 - kr - kb
    scale = 255 / 224
    r = luma + 2 * (1 - kr) * scale * cr
    b = luma + 2 * (1 - kb) * scale * cb
    g = luma - scale * (2 * (1 - kr) * kr / kg * cr + 2 * (1 - kb) * kb / kg * cb)
    return np.clip(np.stack([r, g, b], -1) + 0.5, 0, 255).astype(np.uint8)

"""Bundles as the element runs them: the picture is mirrored beyond its edges, as far as the network
sees, and cropped afterwards.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort

from .planes import LUMA_OF_RGB, luma, resize_rgb, rounded, to_u8

# What self-ensemble is measured with, by bundle.
ENSEMBLES = {"balanced": (8,), "quality": (2, 8)}


@dataclass
class Network:
    """One scale of a bundle. `id` tells its results from those of another file of the same name."""

    bundle: str
    scale: int
    path: Path
    id: str
    radius: int
    fold: int
    parameters: int
    macs_per_pixel: int
    precision: str
    training: dict
    turns: int = 1  # the element's self-ensemble: 1, 2 or 8
    _sessions: dict = field(default_factory=dict)

    def session(self, threads: int) -> ort.InferenceSession:
        if threads not in self._sessions:
            o = ort.SessionOptions()
            o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
            o.log_severity_level = 3
            o.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._sessions[threads] = ort.InferenceSession(
                str(self.path), o, providers=["CPUExecutionProvider"]
            )
        return self._sessions[threads]

    def __call__(self, plane: np.ndarray, threads: int = 1, bits: int = 8) -> np.ndarray:
        """Luma [h,w], limited range, u8 or finer in the same units -> luma [scale*h, scale*w] of
        `bits` bits (`rounded`).
        """
        return rounded(self._enlarged(plane, threads), bits)

    def colour(self, rgb: np.ndarray, threads: int = 1) -> np.ndarray:
        """RGB u8 [h,w,3] -> [scale*h, scale*w, 3], as the element has it: enlarged by the kernel,
        then all three are moved by what the network changes in luma.
        """
        plain = resize_rgb(rgb, *(n * self.scale for n in rgb.shape[:2]), bits=0)
        change = self._enlarged(luma(rgb), threads) - luma(plain)
        return to_u8(plain + change[..., None] / LUMA_OF_RGB.sum())

    def _enlarged(self, plane: np.ndarray, threads: int) -> np.ndarray:
        x = np.pad(
            plane.astype(np.float32) / 255,
            [(self.radius, self.radius + -n % self.fold) for n in plane.shape],
            "symmetric",
        )
        y = self._mean_of_turns(x, threads)
        m = self.radius * self.scale
        h, w = (n * self.scale for n in plane.shape)
        return y[m : m + h, m : m + w] * 255

    def _run(self, x: np.ndarray, threads: int) -> np.ndarray:
        session = self.session(threads)
        # Of single pictures no quantizer is known.
        unknown = (
            {"quantizer": np.zeros((1, 2, 1, 1), np.float32)}
            if len(session.get_inputs()) > 1
            else {}
        )
        return session.run(None, {"x": np.ascontiguousarray(x)[None, None]} | unknown)[0][0, 0]

    def _mean_of_turns(self, x: np.ndarray, threads: int) -> np.ndarray:
        """Opposite ones come first, as in the element."""
        turns = [(k, mirrored) for mirrored in (False, True) for k in (0, 2, 1, 3)][: self.turns]
        return np.mean([self._turned(x, *turn, threads) for turn in turns], 0)

    def _turned(self, x: np.ndarray, quarters: int, mirrored: bool, threads: int) -> np.ndarray:
        y = np.rot90(self._run(np.rot90(x.T if mirrored else x, quarters), threads), -quarters)
        return y.T if mirrored else y


def load(folder: Path) -> list[Network]:
    """The networks of one bundle; SystemExit with the reason where it is none."""
    try:
        manifest = tomllib.loads((folder / "bundle.toml").read_text())
        head = manifest["bundle"]
        if head.get("kind") != "sr" or head["format"] != 1:
            raise SystemExit(
                (
                    f"bench/sr: {folder} is a bundle of kind {head.get('kind', 'codec')}, format "
                    f"{head['format']}, not sr, 1"
                )
            )
        out = []
        for n in manifest["network"]:
            path = folder / n["file"]
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest != n["sha256"]:
                raise SystemExit(
                    f"bench/sr: {path} is not the file that {folder}/bundle.toml describes"
                )
            out.append(
                Network(
                    head["name"],
                    n["scale"],
                    path,
                    f"{head['name']}@{digest[:12]}",
                    n["radius"],
                    n.get("fold", 1),
                    n["parameters"],
                    n["macs_per_pixel"],
                    n["precision"],
                    manifest.get("training", {}).get(f"x{n['scale']}", {}),
                )
            )
        return out
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise SystemExit(f"bench/sr: {folder}: {error!r}") from error


def ensembles(networks: list[Network]) -> list[Network]:
    """With the mean over several turns, at so many times the time: for networks that are used where
    time does not count.
    """
    return [
        replace(n, id=f"{n.id}+{turns}", turns=turns)
        for n in networks
        for turns in ENSEMBLES.get(n.bundle, ())
    ]


def shipped(folder: Path) -> list[Network]:
    return [n for path in sorted(folder.glob("*/bundle.toml")) for n in load(path.parent)]

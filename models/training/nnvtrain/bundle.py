"""A bundle run by ONNX Runtime the way the codec runs it, without entropy coding: for measurements
and tests.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import torch

from . import model as M
from .export import DTYPES, feed, session

BINS = 15


class Bundle:
    def __init__(self, folder, threads=2, level="all"):
        self.folder = Path(folder)
        self.manifest = tomllib.loads((self.folder / "bundle.toml").read_text())
        self.threads, self.level, self.round_up = threads, level, 0.5
        self._sessions = {}
        blob = (self.folder / "tables.bin").read_bytes()
        self.tables = {name: self._array(blob, t) for name, t in self.manifest["tables"].items()}

    @staticmethod
    def _array(blob, t):
        dtype = np.dtype({v: k for k, v in DTYPES.items()}[t["dtype"]]).newbyteorder("<")
        return np.frombuffer(blob, dtype, int(np.prod(t["shape"])), t["offset"]).reshape(t["shape"])

    def graph(self, name):
        if name not in self._sessions:
            self._sessions[name] = session(
                (self.folder / f"{name}.onnx").read_bytes(), self.level, self.threads
            )
        return self._sessions[name]

    def run(self, name, values):
        s = self.graph(name)
        return dict(zip([o.name for o in s.get_outputs()], s.run(None, feed(s, values))))

    def quantise(self, y, index, step):
        """Symbols and dequantised residuals. Symbols round up from the fraction ``round_up`` on."""
        sym = (np.sign(y) * np.minimum(np.floor(np.abs(y) + 1 - self.round_up), 2047)).astype(
            np.int64
        )
        sym[index == 0] = 0
        return sym, (np.sign(sym) * np.minimum((np.abs(sym) * step + 32) >> 6, 2047)).astype(
            np.int16
        )

    def code(self, kind, x, q, p=None, d=None):
        """Codes packed pictures ``x`` (i16, 10 bit) with quantizer q and returns (pic, symbols,
        index, z).
        """
        n, _, h8, w8 = x.shape
        h16, w16 = h8 // 2, w8 // 2
        t = {k.split(".")[1]: v for k, v in self.tables.items() if k.startswith(kind)}
        step = t["step"][q].astype(np.int64)[None, :, None, None]
        v = {
            "x": x,
            "p": p,
            "d": d,
            "step": np.repeat((step / 64).astype(np.float32), n, 0),
            "qvec": np.repeat(t["qvec"][q][None, :, None, None], n, 0),
            "qoff": np.full((n, 1, 1, 1), t["qoff"][q] / 2, np.float32),
            "mask": M.checkerboard(h16, w16).numpy().astype(np.uint8),
        }
        v |= self.run(f"{kind}_enc", v)
        v["z_up"] = v["z"].repeat(4, 2).repeat(4, 3)[:, :, :h16, :w16]
        v |= self.run(f"{kind}_prior", v)
        sym, v["r"] = self.quantise(v["y"], v["scale_idx"], step)
        if kind == "key":
            v["y"] = v["y"] - self.run("key_mean", v)["delta"].astype(np.float32) * 64 / step
            sym, v["r"] = self.quantise(v["y"], v["scale_idx"], step)
        v |= self.run(f"{kind}_synth", v)
        return v["pic"], sym, v["scale_idx"], v["z"]

    def bits(self, kind, sym, index, z):
        """Bits by the bundle's initial probabilities, without adaptation."""
        return coded_bits(self.tables[f"{kind}.y_prob"], index, sym, skip=True) + coded_bits(
            self.tables[f"{kind}.z_prob"],
            np.arange(z.shape[1])[None, :, None, None] + 0 * z.astype(int),
            z,
        )


def coded_bits(prob, row, sym, skip=False):
    p = prob.astype(np.float64) / 65536
    one, zero = -np.log2(p), -np.log2(1 - p)
    # Cost of the value v: the ones of bins 0..v-1 and the zero of bin v; beyond 15 an Exp-Golomb
    # code.
    cost = np.zeros((p.shape[0], BINS + 1))
    cost[:, 1:] = np.cumsum(one, 1)
    cost[:, :BINS] += zero
    a = np.abs(sym.astype(np.int64))
    bits = cost[row, np.minimum(a, BINS)] + (a > 0)
    big = a >= BINS
    bits[big] += 2 * np.floor(np.log2(a[big] - BINS + 1)) + 1
    if skip:
        bits[row == 0] = 0
    return float(bits.sum())


def to_packed(y, u, v):
    """8-bit planes (padded to multiples of 16 by edges) to the i16 tensor of the codec."""

    def grid(a, m):
        h, w = a.shape
        return torch.from_numpy(
            np.pad(a.astype(np.float32), ((0, -h % m), (0, -w % m)), mode="edge")
        )[None, None]

    return (M.pack(grid(y, 16), grid(u, 8), grid(v, 8)).numpy() * 4 - 512).astype(np.int16)

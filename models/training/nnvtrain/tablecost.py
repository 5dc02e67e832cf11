"""What fixed entropy tables would cost: ``python -m nnvtrain.tablecost --nnv NNV BUNDLE
CLIP.y4m ...``.

Codes clips with ``nnv bench codec`` (``cargo build --release -p nnv-tools``), takes the
symbols and scale indices that it dumps, and adds up what they would take with the bundle's tables
as they are, without adaptation, neighbours or flags for groups (hidden signs count as hidden).
Compared with the bytes of the latents in the real streams, by kind of frame.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

import numpy as np

HIDING_CHANNELS, HIDING_SUM, BINS = 32, 2, 15
# Headers of units and frames, about; latents are what is left.
OVERHEAD = {"key": 75, "inter": 22}
LINE = re.compile(
    r"frame\s+(\d+) (Key|Inter) level \d q\s*\d+\s+(\d+) bytes \(motion\s+(\d+), z\s+(\d+)\)"
)


class Tables:
    """Bits of symbols under the tables of one kind of frame."""

    def __init__(self, folder: Path, kind: str):
        entries = tomllib.loads((folder / "bundle.toml").read_text())["tables"]
        raw = (folder / "tables.bin").read_bytes()
        read = lambda e: np.frombuffer(raw, "<u2", int(np.prod(e["shape"])), e["offset"]).reshape(
            e["shape"]
        )
        p = np.clip(read(entries[f"{kind}.y_prob"]) / 65536, 1e-6, 1 - 1e-6)
        self.stop = -np.log2(1 - p)  # [64, 15]
        self.reach = np.concatenate([np.zeros((64, 1)), np.cumsum(-np.log2(p), 1)], 1)  # [64, 16]
        self.order = read(entries[f"{kind}.y_order"]).astype(int)

    def bits(self, symbols: np.ndarray, index: np.ndarray) -> float:
        """Of symbols [384,h,w] with scale indices of the same shape."""
        magnitude, k = np.abs(symbols.astype(int)), index.astype(int)
        bits = self.reach[k, np.minimum(magnitude, BINS)] + (magnitude > 0)
        rest = np.maximum(magnitude - BINS + 1, 1)
        bits += np.where(
            magnitude < BINS,
            self.stop[k, np.minimum(magnitude, BINS - 1)],
            2 * np.floor(np.log2(rest)) + 1,
        )
        hidden = (
            magnitude[self.order].reshape(-1, HIDING_CHANNELS, *magnitude.shape[1:]).sum(1)
            >= HIDING_SUM
        )
        return float(bits[k > 0].sum() - hidden.sum())


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("bundle", type=Path)
    p.add_argument("clips", nargs="+", type=Path)
    p.add_argument("--nnv", required=True, help="the program nnv")
    p.add_argument("--quantizers", default="20,44")
    p.add_argument("--frames", default="17")
    args = p.parse_args()
    tables = {kind: Tables(args.bundle, kind) for kind in ("key", "inter")}
    more: dict[tuple, list[float]] = {}
    for clip in args.clips:
        for order in ("0", "7"):
            for q in args.quantizers.split(","):
                real, fixed = dict.fromkeys(tables, 0.0), dict.fromkeys(tables, 0.0)
                with tempfile.TemporaryDirectory() as dump:
                    done = subprocess.run(
                        [
                            args.nnv,
                            "bench",
                            "codec",
                            "--model",
                            str(args.bundle),
                            "--q",
                            q,
                            "--bframes",
                            order,
                            "--frames",
                            args.frames,
                            "--threads",
                            "1",
                            "--no-decode",
                            "--per-frame",
                            "--dump",
                            dump,
                            str(clip),
                        ],
                        capture_output=True,
                        text=True,
                        check=True,
                    )
                    for number, kind, size, motion, z in LINE.findall(done.stdout):
                        kind = kind.lower()
                        symbols, index = (
                            np.load(f"{dump}/{int(number):05d}_{what}.npy")
                            for what in ("sym", "scale_idx")
                        )
                        fixed[kind] += tables[kind].bits(symbols, index)
                        real[kind] += 8 * (int(size) - int(motion) - int(z) - OVERHEAD[kind])
                for kind in tables:
                    name = kind if kind == "key" else ("low delay", "hierarchical B")[order == "7"]
                    more.setdefault((name, int(q)), []).append(100 * (fixed[kind] / real[kind] - 1))
        print(
            f"{clip.name}: " + ", ".join(f"{k} q{q} {v[-1]:+.1f} %" for (k, q), v in more.items()),
            flush=True,
        )
    for (kind, q), values in sorted(more.items()):
        print(
            (
                f"latents of {kind} frames, quantizer {q}: fixed tables cost "
                f"{np.mean(values):+.1f} % in the mean of {len(values)}"
            )
        )


if __name__ == "__main__":
    main()

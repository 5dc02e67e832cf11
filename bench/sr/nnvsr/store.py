"""Results on disk: CSV files, a row appended as soon as it is known, found again by its key."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """A picture of `wanted_bits` shrunk by `scale` (bicubic, rounded to `bits`) and enlarged by
    `method` to `wanted_bits` again. 24 bits: RGB, of which luma is compared.
    """

    dataset: str
    picture: str
    scale: int
    bits: int
    wanted_bits: int
    method: str
    psnr: float
    ssim: float
    KEY = ("dataset", "picture", "scale", "bits", "wanted_bits", "method")


@dataclass(frozen=True)
class Clip:
    """A clip, coded (x264, `crf`) at 1/`scale` of its size and enlarged by `method`. `psnr` of the
    mean squared error of all frames.
    """

    clip: str
    frames: int
    crf: int
    scale: int
    method: str
    kbps: float
    psnr: float
    ssim: float
    ssimulacra2: float | None
    vmaf: float | None
    KEY = ("clip", "frames", "crf", "scale", "method")


@dataclass(frozen=True)
class Speed:
    """Milliseconds for a frame of `width` x `height` going in. `load`: other work on the machine
    (one minute's mean).
    """

    method: str
    width: int
    height: int
    threads: int
    best_ms: float
    median_ms: float
    cpu_ms: float
    load: float
    KEY = ("method", "width", "height", "threads")


@dataclass(frozen=True)
class Small:
    """A clip through nnvenc at its size (`method` full), or at half its size and enlarged again."""

    clip: str
    frames: int
    codec: str
    quantizer: int
    method: str
    kbps: float
    psnr: float
    ssim: float
    KEY = ("clip", "frames", "codec", "quantizer", "method")


def _value(kind: str, text: str):
    if kind == "float | None":
        return float(text) if text else None
    return {"int": int, "float": float, "str": str}[kind](text)


class Table:
    """The rows of one kind in one file."""

    def __init__(self, path: Path, row: type):
        self.path, self.row, self.rows = Path(path), row, {}
        if self.path.exists():
            with self.path.open(newline="") as f:
                for record in csv.DictReader(f):
                    try:
                        values = {c.name: _value(c.type, record[c.name]) for c in fields(row)}
                    except (KeyError, TypeError, ValueError) as error:
                        raise SystemExit(
                            (
                                f"{self.path}: a row cannot be read ({error!r}); delete the file "
                                "or mend it"
                            )
                        ) from error
                    self._keep(row(**values))

    def _keep(self, row):
        self.rows[tuple(getattr(row, k) for k in self.row.KEY)] = row

    def __contains__(self, key: tuple) -> bool:
        return key in self.rows

    def add(self, row):
        self._keep(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a", newline="") as f:
            out = csv.DictWriter(f, [c.name for c in fields(self.row)], lineterminator="\n")
            if new:
                out.writeheader()
            values = {
                k: "" if v is None else round(v, 5) if isinstance(v, float) else v
                for k, v in asdict(row).items()
            }
            out.writerow(values)

    def select(self, **wanted) -> list:
        return [r for r in self.rows.values() if all(getattr(r, k) == v for k, v in wanted.items())]

"""Results on disk: one CSV per clip, one row per measured point, appended under a lock as soon as
it is known. A row names the exact encoder (`version`): a curve of two encoders is refused."""

from __future__ import annotations

import csv
import fcntl
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Row:
    clip: str
    codec: str
    point: int
    frames: int
    config: str
    model: str
    version: str
    width: int
    height: int
    fps: float
    bytes: int
    kbps: float
    bpp: float
    psnr_y: float
    psnr_u: float
    psnr_v: float
    psnr_yuv: float
    ssim: float
    msssim: float
    vmaf: float | None
    xpsnr: float | None
    encode_cpu_s: float
    decode_cpu_s: float
    threads: int
    load: float
    machine: str

    @property
    def key(self) -> tuple:
        return (self.clip, self.codec, self.point, self.frames, self.config, self.model)


_TYPES = {f.name: f.type for f in fields(Row)}


def _text(value) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _parse(record: dict[str, str], path: Path) -> Row:
    values: dict = {}
    for name, kind in _TYPES.items():
        text = record.get(name)
        if text is None:
            raise SystemExit(f"{path}: a row lacks the column {name}; delete the file or mend it")
        if kind == "int":
            values[name] = int(text)
        elif kind == "float":
            values[name] = float(text)
        elif kind == "float | None":
            values[name] = float(text) if text else None
        else:
            values[name] = text
    return Row(**values)


class Store:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.rows: dict[tuple, Row] = {}
        for path in sorted(folder.glob("*.csv")):
            with path.open(newline="") as file:
                for record in csv.DictReader(file):
                    row = _parse(record, path)
                    self.rows[row.key] = row

    def find(self, key: tuple, version: str) -> Row | None:
        """The row of this key, unless another version of the encoder made it."""
        row = self.rows.get(key)
        return row if row and row.version == version else None

    def add(self, row: Row) -> None:
        """Append; a later row of the same key replaces an earlier one when it is read again."""
        self.rows[row.key] = row
        path = self.folder / f"{row.clip}.csv"
        with path.open("a", newline="") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = io.StringIO()
            writer = csv.DictWriter(text, list(_TYPES), lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow({name: _text(value) for name, value in asdict(row).items()})
            file.write(text.getvalue())

    def compact(self) -> None:
        """Rewrite each file without replaced rows, in a stable order."""
        for path in sorted(self.folder.glob("*.csv")):
            with path.open("r+", newline="") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                latest = {_parse(r, path).key: r for r in csv.DictReader(file)}
                file.seek(0)
                file.truncate()
                writer = csv.DictWriter(file, list(_TYPES), lineterminator="\n",
                                        extrasaction="ignore")  # fmt: skip
                writer.writeheader()
                writer.writerows(latest[key] for key in sorted(latest))

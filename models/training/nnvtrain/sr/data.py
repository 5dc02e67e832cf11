"""Luma planes for super-resolution, all in one flat u8 tensor on the training device, from which
crops
are gathered there.

Two kinds of material make the same tensor: pictures, whose small versions are computed for each
crop, and pairs (`pairs.py`), whose input was coded or made noisy beforehand.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..data import fingerprint, group_of, list_source
from .resample import down_margin, downscale, luma, resize, to_u8

VERSION = 1
LAYOUT = 2  # of decoded data
# Sizes at which a picture is kept: shrinking hides the artefacts of lossy originals and sharpens
# them.
SIZES = (1.0, 0.75, 0.5)
SMALLEST = 96
PAIR_SUFFIX = ".nnvpairs"
BLOCK = 16  # samples on a side that have one quantizer
# input pixels of a crop beyond an edge: nearly as many as networks see there; a multiple of what
# they fold
BEYOND = 12


def picture_planes(file) -> list:
    """u8 luma of a picture at each of `SIZES` that leaves a usable plane."""
    with Image.open(file) as image:
        full = luma(np.asarray(image.convert("RGB")))
    planes = []
    for size in SIZES:
        h, w = (int(round(n * size)) for n in full.shape)
        if min(h, w) >= SMALLEST:
            planes.append(to_u8(full if size == 1.0 else resize(full, h, w)))
    return planes


def psnr(mse: float) -> float:
    """At most 61 dB: pairs that are equal but for rounding would rule a mean."""
    return 10 * math.log10(255**2 / max(mse, 0.05))


class PlaneWriter:
    """Appends entries to `<path>.bin`; `close` writes `<path>.json` last, so a half-written store
    is never opened.
    """

    def __init__(self, path: Path):
        self.path, self.entries, self.offset = Path(path), [], 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.tmp = self.path.with_suffix(f".tmp{os.getpid()}")
        self.file = open(self.tmp, "wb")

    def add(
        self,
        group: str,
        plane: np.ndarray,
        small: np.ndarray | None = None,
        blocks: np.ndarray | None = None,
    ):
        h, w = plane.shape
        put = lambda p: -1 if p is None else self._put(p)
        self.entries.append(
            dict(group=group, h=h, w=w, offset=put(plane), small=put(small), blocks=put(blocks))
        )

    def _put(self, plane):
        at = self.offset
        self.file.write(np.ascontiguousarray(plane).tobytes())
        self.offset += plane.size
        return at

    def close(self, **facts):
        self.file.close()
        os.replace(self.tmp, self.path.with_suffix(".bin"))
        tmp = self.path.with_suffix(f".jtmp{os.getpid()}")
        tmp.write_text(json.dumps(dict(entries=self.entries, **facts)))
        os.replace(tmp, self.path.with_suffix(".json"))


def gather(data, offset, width, top, left, size, turn, edge, side=1):
    """Crops [B,1,size,size] of planes in flat `data` whose samples stand for squares of `side`:
    flips, transposes and mirroring at an edge that lies `edge` [2,B] within are a matter of
    indices.
    """
    axis = torch.arange(size, device=data.device)
    i, j = (torch.where(turn[k][:, None], size - 1 - axis, axis) for k in (0, 1))
    i, j = (
        torch.where(n < edge[k][:, None], 2 * edge[k][:, None] - 1 - n, n)
        for k, n in enumerate((i, j))
    )
    row, column = top[:, None, None] + i[:, :, None], left[:, None, None] + j[:, None, :]
    other = top[:, None, None] + j[:, None, :], left[:, None, None] + i[:, :, None]
    swap = turn[2][:, None, None]
    row, column = torch.where(swap, other[0], row), torch.where(swap, other[1], column)
    index = offset[:, None, None] + row // side * width + column // side
    return data[index][:, None]


def drawn_turns(batch: int, rng: torch.Generator, device) -> torch.Tensor:
    """Flips and transposes [3,B] for `gather`."""
    return (torch.rand(3, batch, generator=rng) < 0.5).to(device)


def drawn_edges(batch: int, share: float, rng: torch.Generator, device) -> torch.Tensor:
    """How many input samples [2,B] of crops lie beyond a picture's edge, along either axis: some in
    a `share` of them.
    """
    edge = torch.zeros(2, batch, dtype=torch.long)
    if share:
        edge += BEYOND * (torch.rand(2, batch, generator=rng) < share)
    return edge.to(device)


class Planes:
    """Planes on a device, and random crops of them.

    Entries are drawn with weight sqrt(size of their group), evenly inside it. `scale` is the
    pairs'; planes without a small partner serve every scale.
    """

    def __init__(self, data: torch.Tensor, entries: list, scale: int):
        if not entries:
            raise ValueError("no planes to draw crops from")
        self.data, self.entries, self.scale = data, entries, scale
        self.paired = entries[0]["small"] >= 0
        groups = Counter(e["group"] for e in entries)
        self.weights = torch.tensor(
            [groups[e["group"]] ** -0.5 for e in entries], dtype=torch.float64
        )
        self.shortest = torch.tensor([min(e["h"], e["w"]) for e in entries])
        self.table = torch.tensor(
            [[e["offset"], e["small"], e["blocks"], e["h"], e["w"]] for e in entries],
            device=data.device,
        )

    def subset(self, keep) -> "Planes":
        return Planes(self.data, [e for i, e in enumerate(self.entries) if keep(i)], self.scale)

    def entry(self, index: int):
        """u8 views of an entry: what is wanted, and the input of a pair (else None)."""
        e, s = self.entries[index], self.scale

        def view(at, h, w):
            return self.data[at : at + h * w].view(h, w)

        return view(e["offset"], e["h"], e["w"]), view(
            e["small"], e["h"] // s, e["w"] // s
        ) if self.paired else None

    def blocks(self, index: int):
        """u8 view of the quantizers of an entry's blocks; None where they are not known."""
        e, s = self.entries[index], self.scale
        h, w = (-(-(n // s) // BLOCK) for n in (e["h"], e["w"]))
        return None if e["blocks"] < 0 else self.data[e["blocks"] : e["blocks"] + h * w].view(h, w)

    def squared_error(self, index: int) -> float:
        """Mean squared error of an entry's input, enlarged by the plain kernel."""
        wanted, given = (
            None if plane is None else plane.cpu().numpy().astype(np.float32)
            for plane in self.entry(index)
        )
        h, w = (n // self.scale for n in wanted.shape)
        wanted = wanted[: h * self.scale, : w * self.scale]
        small = resize(wanted, h, w) if given is None else given
        return float(np.square(resize(small, *wanted.shape) - wanted).mean())

    def draw(self, batch: int, size: int, rng: torch.Generator, step: int = 1, edges: float = 0.0):
        """Float crops in code values: input [B,1,size,size], wanted [B,1,scale*size,scale*size], of
        which entries [B], and of pairs the quantizers [B,size,size], where those are known. They
        begin at multiples of `step` input pixels. A share `edges` of them are, along either axis,
        as at a picture's edge: mirrored beyond it. Inputs are whole numbers, but for half of those
        that are shrunk here: video of 10 bits is finer.
        """
        s, device = self.scale, self.data.device
        margin = 0 if self.paired or s == 1 else down_margin(s)
        need = size * s + 2 * margin
        usable = self.shortest >= need
        if not usable.any():
            raise ValueError(f"no plane holds {need}x{need} samples: take a smaller --size")
        pick = torch.multinomial(self.weights * usable, batch, True, generator=rng).to(device)
        offset, small, blocks, h, w = self.table[pick].T
        random = torch.rand(2, batch, generator=rng).to(device)
        top, left = (
            (random[k] * ((n - need) // (s * step) + 1)).long() * s * step
            for k, n in enumerate((h, w))
        )
        turn, edge = drawn_turns(batch, rng, device), drawn_edges(batch, edges, rng, device)
        width = w[:, None, None]
        wanted = gather(
            self.data, offset, width, top, left, need, turn, edge * s + margin * (edge > 0)
        ).float()
        if self.paired:
            # Of unknown ones anything is read, within the data.
            known = gather(
                self.data,
                blocks.clamp_min(0),
                -(-(width // s) // BLOCK),
                top // s,
                left // s,
                size,
                turn,
                edge,
                BLOCK,
            )[:, 0]
            return (
                gather(self.data, small, width // s, top // s, left // s, size, turn, edge).float(),
                wanted,
                pick,
                known.float(),
            )
        if s == 1:
            return wanted, wanted, pick, None
        given = downscale(wanted, s).clamp(0, 255)
        fine = (torch.rand(batch, generator=rng) < 0.5).to(device)[:, None, None, None]
        return (
            torch.where(fine, given, given.round()),
            wanted[..., margin : need - margin, margin : need - margin],
            pick,
            None,
        )

    def whole(self, index: int, largest: int = 384, multiple: int = 1):
        """The middle of one entry, as `draw` gives it (input, wanted, quantizers or None), at most
        about `largest` samples on a side; the input's place and sides are multiples of
        `multiple`.
        """
        s, (plane, small) = self.scale, self.entry(index)
        h, w = (min(n, largest) // (s * multiple) * s * multiple for n in plane.shape)
        top, left = (
            (n - k) // (2 * s * multiple) * s * multiple for n, k in zip(plane.shape, (h, w))
        )
        wanted = plane[top : top + h, left : left + w].float()[None, None]
        if self.paired:
            here, blocks = (
                np.s_[top // s : (top + h) // s, left // s : (left + w) // s],
                self.blocks(index),
            )
            if blocks is not None:
                blocks = (
                    blocks.repeat_interleave(BLOCK, 0)
                    .repeat_interleave(BLOCK, 1)[here]
                    .float()[None]
                )
            return small[here].float()[None, None], wanted, blocks
        if s == 1:
            return wanted, wanted, None
        m = down_margin(s)
        surrounded = np.pad(wanted[0, 0].cpu().numpy(), m, "symmetric")
        given = (
            downscale(torch.from_numpy(surrounded)[None, None].to(plane.device), s)
            .round()
            .clamp(0, 255)
        )
        return given, wanted, None


def read_pairs(path):
    """Yields (group, wanted u8 [h,w], given u8 [h/scale,w/scale], quantizers of its blocks u8 or
    None) of a pack of pairs, and first its (task, scale).
    """
    with zipfile.ZipFile(path) as archive:
        index = json.loads(archive.read("index.json"))
        if index.get("version") != VERSION:
            raise ValueError(
                (
                    f"{path}: version {index.get('version')} of packs of pairs, this program "
                    f"reads {VERSION}"
                )
            )
        yield index["task"], index["scale"]
        there = set(archive.namelist())
        for number, group in enumerate(index["groups"]):
            files = (f"{number:05d}/{k}" for k in ("wanted", "given", "blocks"))
            yield (
                group,
                *(
                    np.asarray(Image.open(io.BytesIO(archive.read(f))).convert("L"))
                    if f in there
                    else None
                    for f in files
                ),
            )


def _key(files, *facts):
    key = hashlib.sha256(json.dumps([VERSION, LAYOUT, *facts]).encode())
    for path in files:
        key.update(f"{path.name}|{fingerprint(path)}\n".encode())
    return key.hexdigest()[:16]


def open_planes(source, cache, task: str, scale: int, device="cpu", log=print) -> Planes:
    """The material of a task, decoded once into `cache`: pictures for `bicubic`, packs of pairs for
    the others.
    """
    if not source or not cache:
        raise RuntimeError(
            "training data: give a source folder (NNV_DATA) and a cache folder (NNV_CACHE)"
        )
    if task == "bicubic":
        pictures, _, packs = list_source(source)
        path = Path(cache) / f"luma-{_key(pictures + packs, SIZES)}"
        if not path.with_suffix(".json").exists():
            log(f"decoding {len(pictures)} pictures and {len(packs)} packs into {path}.bin")
            _store_pictures(path, pictures, packs, log)
    else:
        packs = sorted(Path(source).rglob("*" + PAIR_SUFFIX))
        if not packs:
            raise FileNotFoundError(
                (
                    f"{source}: holds no packs of pairs (*{PAIR_SUFFIX}); make some with "
                    "`nnvtrain sr-pairs`"
                )
            )
        path = Path(cache) / f"pairs-{_key(packs, task, scale)}"
        if not path.with_suffix(".json").exists():
            _store_pairs(path, packs, task, scale, log)
    entries = json.loads(path.with_suffix(".json").read_text())["entries"]
    data = torch.from_numpy(np.memmap(path.with_suffix(".bin"), np.uint8, "c"))
    return Planes(data.to(device), entries, scale)


def _store_pictures(path, pictures, packs, log):
    writer = PlaneWriter(path)

    def add(name, file):
        try:
            planes = picture_planes(file)
        except (OSError, ValueError) as error:
            log(f"skipped: {name}: {error}")
            return
        for plane in planes:
            writer.add(group_of(str(name)), plane)

    for file in pictures:
        add(file, file)
    for pack in packs:
        with zipfile.ZipFile(pack) as archive:
            for number, clip in enumerate(json.loads(archive.read("index.json"))["clips"]):
                if clip["kind"] == "picture":
                    add(clip["name"], io.BytesIO(archive.read(f"{number:05d}/000")))
    if not writer.entries:
        raise RuntimeError("no picture among the training data")
    writer.close()


def _store_pairs(path, packs, task, scale, log):
    writer = PlaneWriter(path)
    for pack in packs:
        items = read_pairs(pack)
        if next(items) == (task, scale):
            for entry in items:
                writer.add(*entry)
    if not writer.entries:
        raise RuntimeError(f"no pack of pairs for task {task} at scale {scale}")
    log(f"{len(writer.entries)} pairs in {path}.bin")
    writer.close()

"""Training material: stills and short clips as 8-bit YUV 4:2:0.

Everything is decoded once into a `Store`: one flat file of planes (mapped, not read, so a restart
costs nothing) and a JSON index. `StillCrops` and `Sequences` draw random crops from it.

Sources may be (see `open_store`):
  * the project's own layout, `<folder>/train/images` and `<folder>/train/video`;
  * any folder of pictures and videos (videos need PyAV);
  * a folder of packs (`*.nnvpack`, written by `python -m nnvtrain pack`; they need Pillow only).

Samples are limited-range BT.709 as in ordinary video; chroma is the 2x2 box average.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .kinds import FAVOURED, kinds

IMAGE_SUFFIXES = {".webp", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".avi", ".mov", ".y4m", ".ts"}
STORE_VERSION = 2
MAX_SHORT_SIDE = 720  # larger videos are scaled down so that the cache stays bounded
MAX_STILL_SIDE = 1280
MAX_VIDEO_FRAMES = 33


# ------------------------------------------------------------------ pictures as planes


def rgb_to_planes(rgb: np.ndarray):
    """u8 RGB [h,w,3] (even size) -> u8 planes y [h,w], u, v [h/2,w/2], BT.709 limited range."""
    f = rgb.astype(np.float32)
    y = f @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    h, w = y.shape

    def box(a):
        return a.reshape(h // 2, 2, w // 2, 2).mean((1, 3))

    # Chroma differences are linear, so averaging them after the matrix is the same as before it.
    u = box(f[..., 2] - y) * (224.0 / 255.0 / 1.8556) + 128.0
    v = box(f[..., 0] - y) * (224.0 / 255.0 / 1.5748) + 128.0
    y = y * (219.0 / 255.0) + 16.0
    return tuple(np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in (y, u, v))


def read_picture(file, max_side: int = MAX_STILL_SIDE):
    """Planes of a picture (path or binary file object), scaled down to `max_side` if larger."""
    with Image.open(file) as image:
        image = image.convert("RGB")
    w, h = image.size
    if max(w, h) > max_side:
        k = max_side / max(w, h)
        w, h = int(w * k), int(h * k)
        image = image.resize((w, h), Image.LANCZOS)
    if min(w, h) < 2:
        raise ValueError(f"{file}: picture of {w}x{h} is too small")
    return rgb_to_planes(np.asarray(image)[: h & ~1, : w & ~1])


def read_video(path, max_frames: int = MAX_VIDEO_FRAMES, max_short_side: int = MAX_SHORT_SIDE):
    """Planes of the first `max_frames` frames: list of (y, u, v)."""
    try:
        import av
    except ImportError as error:
        raise RuntimeError(
            f"{path}: reading videos needs PyAV (pip install av), or use packs") from error
    frames = []
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            w, h = frame.width, frame.height
            k = min(1.0, max_short_side / min(w, h))
            w, h = int(w * k) & ~1, int(h * k) & ~1
            if k < 1.0:
                frame = frame.reformat(width=w, height=h, format="yuv420p", interpolation="LANCZOS")
            elif frame.format.name not in ("yuv420p", "yuvj420p"):
                frame = frame.reformat(format="yuv420p")
            planes = []
            for index, plane in enumerate(frame.planes):
                a = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                planes.append(a[: h >> (index > 0), : w >> (index > 0)].copy())
            frames.append(tuple(planes))
            if len(frames) == max_frames:
                break
    if not frames:
        raise ValueError(f"{path}: no video frame could be decoded")
    return frames


# ------------------------------------------------------------------ the store


class Store:
    """Decoded clips in one flat u8 array. A still is a clip of one frame.

    `clips` is a list of dicts: name, group, frames, h, w, offset. Each frame is stored as
    I420: y (h*w), then u and v (h/2*w/2 each). `path`: the file without its suffix. `coded`: a
    store of some of the clips as another codec left them (precoded.py), or None.
    """

    def __init__(self, data: np.ndarray, clips: list, path: Path | None = None, coded=None):
        self.data, self.clips, self.path, self.coded = data, clips, path, coded

    def part(self, keep):
        """The clips for whose places in this store `keep` is true, and what is coded of them."""
        coded = self.coded and Store(
            self.coded.data, [c for c in self.coded.clips if keep(c["of"])], self.coded.path)
        return Store(self.data, [c for i, c in enumerate(self.clips) if keep(i)], self.path, coded)

    def planes(self, clip: dict):
        """Views y [n,h,w], u, v [n,h/2,w/2] of all frames of a clip."""
        n, h, w = clip["frames"], clip["h"], clip["w"]
        size = h * w * 3 // 2
        flat = self.data[clip["offset"] : clip["offset"] + n * size].reshape(n, size)
        y = flat[:, : h * w].reshape(n, h, w)
        u = flat[:, h * w : h * w * 5 // 4].reshape(n, h // 2, w // 2)
        v = flat[:, h * w * 5 // 4 :].reshape(n, h // 2, w // 2)
        return y, u, v

    def stills(self):
        return [c for c in self.clips if c["frames"] == 1]

    def videos(self):
        return [c for c in self.clips if c["frames"] > 1]

    def __len__(self):
        return len(self.clips)


class StoreWriter:
    """Appends clips to `<path>.bin`.

    `close` writes `<path>.json` last, so a half-written store is never opened.
    """

    def __init__(self, path: Path):
        self.path, self.clips, self.offset = Path(path), [], 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.tmp = self.path.with_suffix(f".tmp{os.getpid()}")
        self.file = open(self.tmp, "wb")

    def add(self, name: str, group: str, frames: list):
        h, w = frames[0][0].shape
        kept = 0
        for planes in frames:
            if planes[0].shape != (h, w):
                break  # the size changes inside the clip: keep what came before
            for plane in planes:
                self.file.write(np.ascontiguousarray(plane).tobytes())
            kept += 1
        self.clips.append(dict(name=name, group=group, frames=kept, h=h, w=w, offset=self.offset))
        self.offset += kept * h * w * 3 // 2

    def close(self):
        self.file.close()
        if not self.clips:
            self.tmp.unlink()
            raise RuntimeError(f"{self.path}: nothing to store")
        os.replace(self.tmp, self.path.with_suffix(".bin"))
        write_index(self.path, self.clips)


def write_index(path: Path, clips: list):
    index = path.with_suffix(".json")
    tmp = index.with_suffix(f".jtmp{os.getpid()}")
    tmp.write_text(json.dumps(dict(version=STORE_VERSION, clips=clips)))
    os.replace(tmp, index)


def load_store(path: Path) -> Store:
    path = Path(path)
    clips = json.loads(path.with_suffix(".json").read_text())["clips"]
    return Store(np.memmap(path.with_suffix(".bin"), np.uint8, "r"), clips, path)


def default_folders(p):
    """The options that say where the material is."""
    p.add_argument("--data", default=os.environ.get("NNV_DATA"),
                   help="folder of pictures and videos, or of packs (default: NNV_DATA)")
    p.add_argument("--cache", default=os.environ.get("NNV_CACHE"),
                   help="folder for decoded data (default: NNV_CACHE)")


def group_of(name: str) -> str:
    """Group of a file: what stands before the first double underscore, else the folder's name."""
    path = Path(name)
    return path.name.split("__")[0] if "__" in path.name else path.parent.name


def list_source(source: Path):
    """(pictures, videos, packs) below a folder, sorted.

    `<source>/train` alone when it exists, never test data.
    """
    source = Path(source)
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: not a folder. Set NNV_DATA (or --data) to a folder of "
                                "pictures, videos or packs")
    root = source / "train" if (source / "train").is_dir() else source
    pictures, videos, packs = [], [], []
    for path in sorted(root.rglob("*")):
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            pictures.append(path)
        elif suffix in VIDEO_SUFFIXES:
            videos.append(path)
        elif suffix == ".nnvpack":
            packs.append(path)
    if not (pictures or videos or packs):
        raise FileNotFoundError(f"{root}: holds no pictures, videos or packs")
    return pictures, videos, packs


def fingerprint(path: Path) -> str:
    """Size and both ends of a file: equal for copies, which get new times."""
    size, end = path.stat().st_size, 1 << 16
    with path.open("rb") as f:
        digest = hashlib.sha256(f.read(end))
        f.seek(max(0, size - end))
        digest.update(f.read(end))
    return f"{size}|{digest.hexdigest()}"


def open_store(source=None, cache=None, log=print) -> Store:
    """Opens (decoding and caching it on first use) the material of a folder.

    `source` defaults to the environment's NNV_DATA, `cache` to NNV_CACHE. The cache is keyed by the
    names of the files and what `fingerprint` sees, so changed data is decoded again, and a copy is
    not.
    """
    source = source or os.environ.get("NNV_DATA")
    cache = cache or os.environ.get("NNV_CACHE")
    if not source or not cache:
        raise RuntimeError("training data: give a source folder (NNV_DATA) and a cache folder "
                           "(NNV_CACHE)")
    pictures, videos, packs = list_source(source)
    key = hashlib.sha256(f"v{STORE_VERSION}".encode())
    for path in pictures + videos + packs:
        key.update(f"{path.relative_to(source)}|{fingerprint(path)}\n".encode())
    path = Path(cache) / f"store-{key.hexdigest()[:16]}"
    if not path.with_suffix(".json").exists():
        log(f"decoding {len(pictures)} pictures, {len(videos)} videos, {len(packs)} packs "
            f"into {path}.bin")
        writer = StoreWriter(path)
        for file in pictures:
            _add(writer, file, lambda f: [read_picture(f)], log)
        for file in videos:
            _add(writer, file, read_video, log)
        for file in packs:
            from . import pack

            for name, group, frames in pack.read_pack(file):
                writer.add(name, group, frames)
        writer.close()
    return load_store(path)


def _add(writer, file, read, log):
    try:
        frames = read(file)
    except (OSError, ValueError) as error:
        log(f"skipped: {file}: {error}")
        return
    writer.add(file.name, group_of(str(file)), frames)


# ------------------------------------------------------------------ random crops


class GroupSampler:
    """Draws a clip: first its group with weight sqrt(size), then evenly inside the group."""

    def __init__(self, clips: list, weights: dict | None = None):
        if not clips:
            raise ValueError("no clips to sample from")
        groups = defaultdict(list)
        for clip in clips:
            groups[clip["group"]].append(clip)
        self.groups = list(groups.values())
        p = np.array([len(g) ** 0.5 * (weights or {}).get(g[0]["group"], 1.0) for g in self.groups])
        self.p = p / p.sum()

    def draw(self, rng: np.random.Generator) -> dict:
        group = self.groups[rng.choice(len(self.groups), p=self.p)]
        return group[rng.integers(len(group))]


def resize_plane(plane: np.ndarray, h: int, w: int, box=None) -> np.ndarray:
    """Antialiased resize of a u8 plane, or of its `box` (left, top, right, bottom, in pixels)."""
    return np.asarray(Image.fromarray(plane).resize((w, h), Image.BICUBIC, box=box))


def crop_plane(plane: np.ndarray, top: int, left: int, h: int, w: int) -> np.ndarray:
    """Crop of a plane [...,H,W]; beyond the plane its edge is repeated, as the codec pads."""
    part = plane[..., top : top + h, left : left + w]
    missing = (h - part.shape[-2], w - part.shape[-1])
    if any(missing):
        sides = [(0, 0)] * (plane.ndim - 2) + [(0, missing[0]), (0, missing[1])]
        part = np.pad(part, sides, "edge")
    return part


def pick_window(rng, h: int, w: int, size: int, min_scale: float, p_scale: float):
    """Random window (top, left, side), all even, to be resized to `size` (unscaled where equal)."""
    side = size
    smallest = max(min_scale, size / min(h, w))
    if smallest < 1.0 and rng.random() < p_scale:
        side = int(size / rng.uniform(smallest, 1.0)) & ~1
        side = min(side, min(h, w) & ~1)
    top = 2 * int(rng.integers(max(0, h - side) // 2 + 1))
    left = 2 * int(rng.integers(max(0, w - side) // 2 + 1))
    return top, left, side


def cut(planes, window, size: int):
    """Cuts a window of (y, u, v) planes [h,w] and scales it to `size`."""
    top, left, side = window
    out = []
    for index, plane in enumerate(planes):
        k = 1 if index == 0 else 2
        part = crop_plane(plane, top // k, left // k, side // k, side // k)
        if side != size:
            part = resize_plane(np.ascontiguousarray(part), size // k, size // k)
        out.append(part)
    return out


class Orientation:
    """One of the eight flips and transposes of a square crop."""

    def __init__(self, rng):
        self.transpose, self.up, self.left = (rng.random(3) < 0.5).tolist()

    def __call__(self, a: np.ndarray) -> np.ndarray:
        if self.transpose:
            a = np.swapaxes(a, -1, -2)
        return a[..., :: -1 if self.up else 1, :: -1 if self.left else 1]


def tone_tables(rng, amount: float = 1.0):
    """Random tables for luma (gamma, contrast, brightness) and both chromas (saturation, tint)."""
    x = np.arange(256, dtype=np.float32)
    gamma = 2.0 ** rng.normal(0, 0.35 * amount)
    gain = 2.0 ** rng.normal(0, 0.2 * amount)
    offset = rng.normal(0, 10 * amount)
    y = ((np.clip((x - 16) / 219, 0, 1.1) ** gamma) * 219 - 110) * gain + 126 + offset
    tables = [y]
    saturation = 2.0 ** rng.normal(0, 0.4 * amount)
    for _ in range(2):
        tables.append((x - 128) * saturation + 128 + rng.normal(0, 4 * amount))
    return [np.clip(np.rint(t), 0, 255).astype(np.uint8) for t in tables]


def grey(rng, planes):
    """The same without colour, as medical, infrared and old material is.

    Even chroma, or its usual traces of one level.
    """
    out = [planes[0]]
    kind = rng.random()
    for p in planes[1:]:
        if kind < 0.6:
            out.append(np.full_like(p, 128 if kind < 0.45 else int(rng.integers(125, 132))))
        else:
            # Nearly grey: rounded down to a level or two. Strong colour stays, as marks do.
            d = p.astype(np.int16) - 128
            trace, marks = (kind < 0.8) * (np.abs(d) > 3), np.where(np.abs(d) > 24, d, 0)
            out.append((128 - trace + marks).clip(0, 255).astype(np.uint8))
    return out


def to_tensors(samples: list):
    """[(y, u, v), ...] of equal shapes -> three u8 tensors with axes of batch and channel (1)."""
    return tuple(torch.from_numpy(np.stack(planes)).unsqueeze(-3) for planes in zip(*samples))


class Crops:
    """What drawing stills and drawing sequences have in common.

    `sample` draws with :meth:`any`, or, with probability `p_coded`, from the coded clips of the
    store; crops that are not of a favoured kind (kinds.py) are drawn anew with probability
    `favour`. `p_grey` of them lose their colour.
    """

    coded = None  # the same for the coded clips, one generator for both
    tries = 4

    def sample(self):
        """One crop: u8 planes y [S,S], u, v [S/2,S/2], of sequences with an axis in front."""
        for _ in range(self.tries):
            coded = self.coded and self.rng.random() < self.p_coded
            planes = self.coded.any() if coded else self.any()
            if not self.favour or self.rng.random() >= self.favour or kinds(planes) & FAVOURED:
                break
        return grey(self.rng, planes) if self.p_grey and self.rng.random() < self.p_grey else planes

    def __iter__(self):
        return self

    def __next__(self):
        return to_tensors([self.sample() for _ in range(self.batch)])


class StillCrops(Crops):
    """Endless iterator of still crops: u8 tensors y [B,1,S,S], u, v [B,1,S/2,S/2].

    Half the crops are scaled down (0.4..1), all are flipped or transposed at random, some get a
    change of tone. First and middle frames of videos serve as stills too. `screens` is the share of
    drawn screen content (see synth.py); for the other shares see `Crops`.
    """

    def __init__(self, store: Store, batch: int, size: int = 256, seed: int = 0,
                 p_scale: float = 0.5, p_tone: float = 0.25, screens: float = 0.0,
                 p_grey: float = 0.0, p_coded: float = 0.0, favour: float = 0.0):
        if size % 16:
            raise ValueError(f"crop size {size} is not a multiple of 16")
        self.store, self.batch, self.size = store, batch, size
        self.p_scale, self.p_tone = p_scale, p_tone
        self.rng = np.random.default_rng(seed)
        # Coded video is softer than the stills: it adds variety but must not dominate.
        self.sampler = GroupSampler(store.clips, {c["group"]: 0.4 for c in store.videos()})
        self.p_grey, self.p_screens, self.p_coded, self.favour = p_grey, screens, p_coded, favour
        if p_coded and store.coded:
            self.coded = StillCrops(store.coded, batch, size, seed, p_scale, p_tone)
            self.coded.rng = self.rng
        if screens:
            from .synth import Screens

            self.screens = Screens(store)

    def any(self):
        rng = self.rng
        if self.p_screens and rng.random() < self.p_screens:
            page = self.screens.page(rng)
            return cut(page, pick_window(rng, *page[0].shape, self.size, 1.0, 0.0), self.size)
        clip = self.sampler.draw(rng)
        frame = 0 if rng.random() < 0.5 else clip["frames"] // 2
        planes = [p[frame] for p in self.store.planes(clip)]
        window = pick_window(rng, clip["h"], clip["w"], self.size, 0.4, self.p_scale)
        planes = cut(planes, window, self.size)
        turn = Orientation(rng)
        planes = [turn(p) for p in planes]
        if rng.random() < self.p_tone:
            planes = [t[p] for t, p in zip(tone_tables(rng), planes)]
        return planes


class Prefetch:
    """Runs an endless iterator in a background thread, `depth` batches ahead.

    Use as iterator; call `close` at the end.
    """

    def __init__(self, iterator, depth: int = 4):
        self.iterator, self.queue, self.stop = iterator, queue.Queue(depth), threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self):
        try:
            for item in self.iterator:
                if not self._put(item):
                    return
            self._put(StopIteration())
        except Exception as error:
            self._put(error)  # to the reader: a dead thread must not look like slow data

    def _put(self, item):
        while not self.stop.is_set():
            try:
                self.queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self):
        return self

    def __next__(self):
        item = self.queue.get()
        if isinstance(item, BaseException):
            self.queue.put(item)
            raise item
        return item

    def close(self):
        self.stop.set()
        self.thread.join(5)


# ------------------------------------------------------------------ random sequences


class Sequences(Crops):
    """Endless iterator of short sequences: u8 tensors y [B,T,1,S,S], u, v [B,T,1,S/2,S/2].

    `synthetic` is the share of synthetic clips (see synth.py). Real clips get a random crop, scale,
    temporal step of 1..3, direction and orientation. A few of them are made quiet: frozen or with
    frames repeated, because quiet frames must cost nothing. For the other shares see `Crops`;
    what is synthesised from a coded still moves as such a still does in a transcoded film.
    """

    def __init__(self, store: Store, batch: int, frames: int = 5, size: int = 256, seed: int = 0,
                 synthetic: float = 0.4, p_quiet: float = 0.06, p_grey: float = 0.0,
                 p_coded: float = 0.0, favour: float = 0.0):
        if size % 16:
            raise ValueError(f"crop size {size} is not a multiple of 16")
        self.store, self.batch, self.frames, self.size = store, batch, frames, size
        self.p_quiet, self.p_grey, self.p_coded, self.favour = p_quiet, p_grey, p_coded, favour
        self.rng = np.random.default_rng(seed)
        videos = [c for c in store.videos() if c["frames"] >= frames]
        self.sampler = GroupSampler(videos) if videos else None
        self.synthetic = synthetic if videos else 1.0
        if self.synthetic > 0:
            from .synth import Synthesiser

            if not store.stills():
                raise ValueError("synthetic sequences need stills; set synthetic=0")
            self.synth = Synthesiser(store)
        if p_coded and store.coded:
            share = synthetic if store.coded.stills() else 0.0
            self.coded = Sequences(store.coded, batch, frames, size, seed, share, p_quiet)
            self.coded.rng = self.rng

    def real(self):
        """One real sequence: u8 arrays y [T,S,S], u, v [T,S/2,S/2]."""
        rng, frames = self.rng, self.frames
        clip = self.sampler.draw(rng)
        longest = (clip["frames"] - 1) // max(1, frames - 1)
        step = min(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])), longest)
        start = int(rng.integers(clip["frames"] - (frames - 1) * step))
        order = start + step * np.arange(frames)
        if rng.random() < 0.5:
            order = order[::-1]
        if rng.random() < self.p_quiet:
            order = quiet_order(rng, order)
        window = pick_window(rng, clip["h"], clip["w"], self.size, 0.5, 0.3)
        planes = self.store.planes(clip)
        turn = Orientation(rng)
        cuts = [cut([p[i] for p in planes], window, self.size) for i in order]
        planes = [turn(np.stack(p)) for p in zip(*cuts)]
        if rng.random() < 0.15:
            planes = [t[p] for t, p in zip(tone_tables(rng, 0.7), planes)]
        return planes

    def any(self):
        if self.rng.random() < self.synthetic:
            return self.synth.clip(self.rng, self.frames, self.size)
        return self.real()


def quiet_order(rng, order):
    """Frame order with repeats.

    All frozen, every frame twice (a film shown at twice its rate), or a random half.
    """
    kind = rng.random()
    if kind < 0.4:
        return order[:1].repeat(len(order))
    if kind < 0.7:
        return order[(np.arange(len(order)) + int(rng.integers(2))) // 2]
    fresh = np.where(rng.random(len(order)) < 0.5, 0, np.arange(len(order)))
    return order[np.maximum.accumulate(fresh)]

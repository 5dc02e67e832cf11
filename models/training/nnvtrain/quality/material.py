"""Material for the quality network: ``python -m nnvtrain quality-material``.

A sample is a stretch of a training clip and what became of it: noise or a loss of detail before
coding, coding with x264, x265, SVT-AV1, VVenC or our own codec, frames that stand still afterwards,
each with some probability. Half of the clips are motion over stills, which are far more contents
than there are videos; of those none is held out, and no still of a group that is. Its labels are
measured, frame by frame: VMAF by ffmpeg's libvmaf and, where the program `nnv` is given,
SSIMULACRA2. **Nobody looked at these pictures**: a network that learns from them learns what the
two measures say.

Shares of cause come from how the sample was made: the squared error that each stage alone added.

Samples are numbered; number and seed alone decide how one is made, so a run that was stopped goes
on, and another run makes the same. In the folder: `material.jsonl` (a line a sample, written last)
and, for each, `NNNNN.u8` (what became of it) and `NNNNN.ref.u8`, frames of 4:2:0 one after the
other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ..data import GroupSampler, default_folders, open_store
from ..sr import pairs
from ..sr.resample import to_u8
from ..synth import Synthesiser, log_uniform

FRAMES = 20
LARGEST = (384, 256)  # width, height: a larger clip gives a part
SMALLEST_SIDE = 144
# Motion over stills: how its groups' names begin, how many there are (groups are drawn by the root
# of their size), and the side of its pictures.
MOVED, MOVED_GROUPS, MOVED_SIDE = "moved-", 30, 352
CAUSES = ("blocking", "blur", "noise", "freeze")
# One group in so many, by the checksum of its name, is never learned from.
HELD_OUT = 5
SSIMULACRA2_STEP = 4  # every fourth frame: the measure is slow

# codec: share, presets, range of qualities
CODECS = {
    "libx264": (0.38, ("ultrafast", "veryfast", "medium"), (16, 48)),
    "libx265": (0.2, ("ultrafast", "veryfast"), (16, 48)),
    "libsvtav1": (0.2, ("11", "9"), (18, 63)),
    "libvvenc": (0.06, ("faster",), (20, 52)),
    pairs.NNV: (0.16, ("",), (8, 62)),
}


def is_held_out(group: str) -> bool:
    return not group.startswith(MOVED) and zlib.crc32(group.encode()) % HELD_OUT == 0


def even(n: int) -> int:
    return n // 2 * 2


def cut(rng, planes, frames: int):
    """A stretch of a clip's planes [T, h, w], shrunk and cut, as frames of (y, u, v)."""
    t, h, w = planes[0].shape[0], *planes[0].shape[-2:]
    first = int(rng.integers(t - frames + 1))
    shrink = 1.0 if rng.random() < 0.3 else rng.uniform(0.5, 1.0)
    shrink = max(shrink, SMALLEST_SIDE / min(h, w)) if min(h, w) > SMALLEST_SIDE else 1.0
    big = (even(int(w * shrink)), even(int(h * shrink)))
    size = tuple(min(even(n), most) // 16 * 16 for n, most in zip(big, LARGEST))
    left, top = (2 * int(rng.integers((n - k) // 2 + 1)) for n, k in zip(big, size))
    out = []
    for i in range(first, first + frames):
        frame = []
        for c, plane in zip((1, 2, 2), planes):
            picture = Image.fromarray(np.ascontiguousarray(plane[i].reshape(plane.shape[-2:])))
            if shrink != 1.0:
                picture = picture.resize((big[0] // c, big[1] // c), Image.BICUBIC)
            box = (left // c, top // c, (left + size[0]) // c, (top + size[1]) // c)
            frame.append(np.asarray(picture.crop(box)))
        out.append(tuple(frame))
    return out


def resized(frames, w: int, h: int, kernel):
    def one(plane, c):
        return np.asarray(Image.fromarray(plane).resize((w // c, h // c), kernel))

    return [tuple(one(p, c) for p, c in zip(f, (1, 2, 2))) for f in frames]


def blurred(frames, radius: float):
    def one(plane):
        return np.asarray(Image.fromarray(plane).filter(ImageFilter.GaussianBlur(radius)))

    return [tuple(map(one, f)) for f in frames]


def noisy(rng, frames, strength: float):
    def one(plane):
        return to_u8(plane + rng.normal(0, strength, plane.shape))

    return [(one(y), u, v) for y, u, v in frames]


def frozen(rng, frames):
    """Stretches of frames that show the one before; which frames those are."""
    out, stands = [], []
    until = 0
    share = rng.uniform(0.03, 0.3)
    for i, frame in enumerate(frames):
        if i and i >= until and rng.random() < share:
            until = i + int(rng.integers(1, 7))
        stands.append(bool(i and i < until))
        out.append(out[-1] if stands[-1] else frame)
    return out, stands


def options_of(rng) -> list:
    names = [n for n in CODECS if n != pairs.NNV or pairs.have_nnv()]
    share = np.array([CODECS[n][0] for n in names])
    name = names[rng.choice(len(names), p=share / share.sum())]
    _, presets, (low, high) = CODECS[name]
    quality, preset = int(rng.integers(low, high + 1)), str(rng.choice(presets))
    if name == pairs.NNV:
        return [name, f"quantizer={quality}", f"bframes={rng.choice([0, 7])}", "threads=1"]
    out = ["-c:v", name, "-preset", preset]
    if name == "libvvenc":
        return [*out, "-qp", str(quality), "-vvenc-params", "internalbitdepth=8", "-threads", "1"]
    out += ["-crf", str(quality)]
    return out + {
        "libx264": ["-threads", "1"],
        "libx265": ["-x265-params", "log-level=error:pools=none:frame-threads=1"],
        "libsvtav1": ["-svtav1-params", "lp=1"],
    }[name]


def luma_error(a, b) -> list:
    return [float(np.mean((x[0].astype(np.float32) - y[0]) ** 2)) for x, y in zip(a, b)]


def spoil(rng, frames, coder=pairs.code):
    """(frames, how, errors by cause [T, 4]): each stage's own squared error on luma."""
    h, w = frames[0][0].shape
    now, how, errors = frames, {}, np.zeros((len(frames), len(CAUSES)))

    def stage(cause: str, after):
        nonlocal now
        errors[:, CAUSES.index(cause)] += luma_error(now, after)
        now = after

    if rng.random() < 0.18:
        how["noise"] = log_uniform(rng, 1.5, 18)
        stage("noise", noisy(rng, now, how["noise"]))
    scale = 1.0
    if rng.random() < 0.18:
        how["blur"] = log_uniform(rng, 0.5, 3.0)
        stage("blur", blurred(now, how["blur"]))
    elif rng.random() < 0.3:
        scale = how["scale"] = rng.uniform(0.33, 0.85)
    kernels = (Image.BILINEAR, Image.BICUBIC, Image.LANCZOS)
    kernel = kernels[rng.integers(3)]
    if scale != 1.0:
        small = tuple(max(32, int(n * scale)) // 16 * 16 for n in (w, h))
        full, now = now, resized(now, *small, kernel)
        stage_back = resized(now, w, h, kernel)
        errors[:, CAUSES.index("blur")] += luma_error(full, stage_back)
    if rng.random() < 0.9:
        how["coded"] = options_of(rng)
        stage("blocking", coder(now, how["coded"])[0])
    if scale != 1.0:
        now = resized(now, w, h, kernel)
    if rng.random() < 0.2:
        after, stands = frozen(rng, now)
        stage("freeze", after)
        how["stands"] = [i for i, s in enumerate(stands) if s]
    return now, how, errors


def shares(errors: np.ndarray) -> np.ndarray:
    """Shares of cause: parts of one of each frame's error; alike where there is hardly any."""
    floor = errors + 1e-3
    return floor / floor.sum(1, keepdims=True)


def write(path: Path, frames) -> None:
    path.write_bytes(b"".join(np.ascontiguousarray(p).tobytes() for f in frames for p in f))


def vmaf(distorted: Path, reference: Path, w: int, h: int) -> list:
    """libvmaf's score of each frame, the model that ffmpeg was built with."""
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{w}x{h}", "-r", "25", "-i"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "vmaf.json"
        filters = f"libvmaf=log_fmt=json:log_path={log}:n_threads=1"
        pairs.piped([shutil.which("ffmpeg") or "ffmpeg", "-v", "error", *raw, str(distorted), *raw,
                     str(reference), "-lavfi", filters, "-f", "null", "-"])
        frames = json.loads(log.read_text())["frames"]
        return [round(f["metrics"]["vmaf"], 3) for f in frames]


def y4m(path: Path, raw: Path, w: int, h: int, step: int) -> None:
    """Every so many frames of a raw file, as YUV4MPEG2."""
    size = w * h * 3 // 2
    flat = np.fromfile(raw, np.uint8).reshape(-1, size)[::step]
    head = f"YUV4MPEG2 W{w} H{h} F25:1 Ip A1:1 C420\n".encode()
    path.write_bytes(head + b"".join(b"FRAME\n" + f.tobytes() for f in flat))


def ssimulacra2(tool: str, distorted: Path, reference: Path, w: int, h: int) -> list:
    """Every fourth frame's, by ``nnv compare``."""
    with tempfile.TemporaryDirectory() as folder:
        a, b, table = (Path(folder) / n for n in ("a.y4m", "b.y4m", "q.csv"))
        y4m(a, reference, w, h, SSIMULACRA2_STEP)
        y4m(b, distorted, w, h, SSIMULACRA2_STEP)
        pairs.piped([tool, "compare", str(a), str(b), "--metrics", "ssimulacra2",
                     "--csv", str(table)])
        head, *rows = (line.split(",") for line in table.read_text().splitlines())
        return [round(float(row[head.index("ssimulacra2")]), 3) for row in rows]


class ToLearn:
    """A store whose stills are those of groups that are learned from."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)

    def stills(self):
        return [c for c in self.store.stills() if not is_held_out(c["group"])]


class Maker:
    def __init__(self, store, folder: Path, seed: int = 0, coder=pairs.code, judge=vmaf,
                 synthetic: float = 0.0):
        clips = [c for c in store.videos() if c["frames"] >= FRAMES
                 and min(c["h"], c["w"]) >= SMALLEST_SIDE]
        self.store, self.folder, self.seed = store, folder, seed
        self.coder, self.judge, self.clips = coder, judge, GroupSampler(clips)
        self.synthetic = synthetic
        self.synth = Synthesiser(ToLearn(store)) if synthetic else None

    def clip(self, rng, number: int):
        """(name, group, planes)"""
        if rng.random() < self.synthetic:
            group = f"{MOVED}{number % MOVED_GROUPS}"
            planes = self.synth.clip(rng, FRAMES, MOVED_SIDE)
            return f"{group}__{number}_0", group, [np.asarray(p) for p in planes]
        clip = self.clips.draw(rng)
        return clip["name"], clip["group"], self.store.planes(clip)

    def make(self, number: int) -> dict:
        rng = np.random.default_rng((self.seed, number))
        name, group, planes = self.clip(rng, number)
        frames = cut(rng, planes, FRAMES)
        h, w = frames[0][0].shape
        spoilt, how, errors = spoil(rng, frames, self.coder)
        reference, distorted = (self.folder / f"{number:05}{e}" for e in (".ref.u8", ".u8"))
        write(reference, frames)
        write(distorted, spoilt)
        return {"number": number, "name": name, "group": group, "w": w, "h": h,
                "how": how, "shares": shares(errors).round(4).tolist(),
                "error": [round(e, 3) for e in luma_error(frames, spoilt)],
                "vmaf": self.judge(distorted, reference, w, h)}


def listed(folder: Path, name: str = "material.jsonl") -> list:
    """The samples of a folder; a last line that was cut off is left out."""
    path = folder / name
    if not path.exists():
        return []
    out = []
    for line in path.read_text().splitlines():
        try:
            out.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return out


def arguments(p):
    default_folders(p)
    p.add_argument("--out", type=Path, required=True, help="folder of the material")
    p.add_argument("--samples", type=int, default=2000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--synthetic", type=float, default=0.5, help="share of motion over stills")
    p.add_argument("--minutes", type=float, default=0, help="stop after so many")
    p.add_argument("--ssimulacra2", metavar="NNV",
                   help="the built program nnv: adds SSIMULACRA2 to samples that lack it and whose "
                        "original (.ref.u8) is there")


def run(args):
    folder = args.out
    folder.mkdir(parents=True, exist_ok=True)
    started = time.time()

    def late() -> bool:
        return bool(args.minutes) and time.time() - started > 60 * args.minutes

    if args.ssimulacra2:
        done = {s["number"] for s in listed(folder, "ssimulacra2.jsonl")}
        with open(folder / "ssimulacra2.jsonl", "a") as out:
            for s in listed(folder):
                if late():
                    break
                if s["number"] in done:
                    continue
                files = [folder / f"{s['number']:05}{e}" for e in (".u8", ".ref.u8")]
                if not files[1].exists():
                    continue  # removed, to save room
                values = ssimulacra2(args.ssimulacra2, *files, s["w"], s["h"])
                out.write(json.dumps({"number": s["number"], "ssimulacra2": values}) + "\n")
                out.flush()
        return
    maker = Maker(open_store(args.data, args.cache), folder, args.seed,
                  synthetic=args.synthetic)
    done = {s["number"] for s in listed(folder)}
    failed = 0
    with open(folder / "material.jsonl", "a") as out:
        for number in range(args.samples):
            if late():
                break
            if number in done:
                continue
            try:
                sample = maker.make(number)
            except pairs.CodecFailed as error:
                failed += 1
                print(f"sample {number}: {error}", flush=True)
                if failed > 20 + number // 20:
                    raise
                continue
            out.write(json.dumps(sample) + "\n")
            out.flush()
            if number % 20 == 0:
                spent = time.time() - started
                print(f"{number} samples, {spent:.0f} s, VMAF {np.mean(sample['vmaf']):.1f}, "
                      f"{sample['how']}", flush=True)

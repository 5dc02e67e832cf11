"""Pairs for `compressed` and `repair`: ``python -m nnvtrain sr-pairs``.

Clips (real ones, and motion synthesised from stills) are shrunk by `--scale`, coded at a random
quality with x264, x265 or SVT-AV1 through ffmpeg, or with our own codec where GStreamer finds its
plugin (`source scripts/env.sh`), decoded, and some frames kept beside the originals; for `repair`
some get a camera's noise instead, or before coding. Packs of pairs (`*.nnvpairs`) are zip files
like those of `pack.py`: the wanted picture as WebP of high quality or without loss, the given one
without loss. Pillow reads them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ..data import GroupSampler, open_store
from ..synth import Synthesiser, log_uniform, screen_clip
from .data import PAIR_SUFFIX, VERSION
from .resample import resize, to_u8

FRAMES = 16  # of a clip that is drawn
SHORTEST, LONGEST = 10, 33  # of a real one
# to which it is coded, forth and back: encoders look far ahead, and spend on still parts what pays
# until the next cut
LENGTH = 40
KEPT = 3  # of those
SYNTHETIC_SIDE = 384
LARGEST_SIDE = 640  # a longer frame gives its middle
WANTED_QUALITY = 96
PRESETS = {
    "libx264": ("ultrafast", "veryfast", "medium"),
    "libx265": ("ultrafast", "veryfast", "medium"),
    "libsvtav1": ("10", "8", "6"),
}
TELLING = "libx264"  # whose quantizers are known
TOOL = "NNV_QUANTIZERS"  # environment variable with the path of the program nnv, built
# Qualities that look alike: CRF 18 to 40 of x264, and what comes near it in the others.
CRF = {"libx264": (18, 40), "libx265": (18, 40), "libsvtav1": (22, 58)}


# Of clips to be repaired so many are drawn screens: at good qualities nearly without error, they
# lose the most to a network that has seen few.
SCREENS = 0.12
# So many of what is synthesised, and of screens, were coded before, as most of what people code
# was, at these qualities.
CODED_BEFORE, SCREENS_BEFORE, BEFORE = 0.35, 0.7, (8, 30)
# Half of these were shrunk since, to so much of their size, as services and scripts do it: what
# that coding left is then no longer aligned with blocks.
SHRUNK_SINCE, SHRUNK_TO = 0.5, (0.5, 0.9)
# Of the other clips so many are woven of fields, as interlaced video is that nobody declared: its
# combs are not damage.
WOVEN = 0.06
# What is to be repaired may be nearly good already, and must not be made worse: a third of its
# clips lies within this many steps of the best.
NEARLY_GOOD = 8

NNV = "nnvenc"
NNV_QUANTIZERS = (14, 50)


class CodecFailed(RuntimeError):
    """A clip could not be coded; one failure may be forgiven, many not."""


def have_nnv() -> bool:
    inspect = shutil.which("gst-inspect-1.0")
    return (
        bool(inspect)
        and subprocess.run([inspect, NNV], check=False, capture_output=True).returncode == 0
    )


def swing(frames: list) -> list:
    """`LENGTH` frames, forth and back."""
    there_and_back = frames + frames[-2:0:-1]
    return [there_and_back[t % len(there_and_back)] for t in range(LENGTH)]


def codec_options(rng, nnv: bool = False, good: bool = False, only: str | None = None) -> list:
    """Of a random codec, or of the one that is asked for: what ffmpeg takes, or [NNV, properties of
    the element]. `good`: at one of its better qualities.
    """

    def quality(low, high):
        return int(
            rng.integers(low - NEARLY_GOOD, low + 1) if good else rng.integers(low, high + 1)
        )

    if nnv and not only and rng.random() < 0.2:
        return [
            NNV,
            f"quantizer={quality(*NNV_QUANTIZERS)}",
            f"bframes={rng.choice([0, 7])}",
            "threads=1",
        ]
    codec = only or str(rng.choice(list(PRESETS), p=[0.5, 0.25, 0.25]))
    options = [
        "-c:v",
        codec,
        "-preset",
        str(rng.choice(PRESETS[codec])),
        "-crf",
        str(quality(*CRF[codec])),
    ]
    if codec == "libx264":
        tune = str(rng.choice(["none", "film", "zerolatency", "psnr"]))
        options += [*(() if tune == "none" else ("-tune", tune)), "-threads", "1"]
    elif codec == "libx265":
        options += ["-x265-params", "log-level=error:pools=none:frame-threads=1"]
    else:
        options += ["-svtav1-params", "lp=1"]
    return options


def code(frames: list, options: list) -> tuple[list, list]:
    """Codes and decodes frames (y, u, v) of even size; the same number of frames comes back, and
    `quantizers_of` (none, where the codec has another measure).
    """
    h, w = frames[0][0].shape
    raw = b"".join(np.ascontiguousarray(p).tobytes() for f in frames for p in f)
    flat, told = (through_gstreamer if options[0] == NNV else through_ffmpeg)(raw, w, h, options)
    size = h * w * 3 // 2
    if len(flat) != size * len(frames) or told and len(told) != len(frames):
        raise CodecFailed(
            (
                f"{' '.join(options)}: {len(flat)} bytes and {len(told)} quantizers came back, "
                f"not those of {len(frames)} frames"
            )
        )
    flat = np.frombuffer(flat, np.uint8).reshape(len(frames), size)
    return [
        (
            f[: h * w].reshape(h, w),
            f[h * w : h * w * 5 // 4].reshape(h // 2, w // 2),
            f[h * w * 5 // 4 :].reshape(h // 2, w // 2),
        )
        for f in flat
    ], told


def quantizers_of(coded: str) -> list:
    """Of each picture of an H.264 file, in the order of display: the quantizer of its first slice,
    and those of its blocks (u8 [rows, columns]) as `nnqp` notes them, or None where it reads
    them not.
    """
    tool = os.environ.get(TOOL)
    if not tool:
        raise RuntimeError(
            (
                "the quantizers of blocks are read by a program of this project: cargo build "
                f"--release -p nnv-tools, and the path of target/release/nnv in {TOOL}"
            )
        )
    with tempfile.TemporaryDirectory() as folder:
        stream = str(Path(folder) / "stream.h264")
        shown = piped(
            [
                "ffmpeg",
                "-v",
                "error",
                "-i",
                coded,
                "-map",
                "0:v:0",
                "-c",
                "copy",
                "-bsf:v",
                "h264_mp4toannexb",
                stream,
                "-map",
                "0:v:0",
                "-c",
                "copy",
                "-f",
                "framecrc",
                "-",
            ]
        )
        times = [
            int(line.split(b",")[2]) for line in shown.splitlines() if not line.startswith(b"#")
        ]
        told, pictures = io.BytesIO(piped([tool, "quantizers", stream])), []
    while head := told.readline().split():
        quantizer, w, h = map(int, head)
        pictures.append(
            (quantizer, np.frombuffer(told.read(w * h), np.uint8).reshape(h, w) if w else None)
        )
    if len(pictures) != len(times):
        raise CodecFailed(f"{tool} told of {len(pictures)} pictures of {len(times)}")
    return [pictures[i] for i in np.argsort(times)]


def piped(command: list, given: bytes = b"") -> bytes:
    done = subprocess.run(
        command, input=given, capture_output=True, check=False, env={**os.environ, "SVT_LOG": "1"}
    )
    if done.returncode:
        raise CodecFailed(
            f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()[-300:]}"
        )
    return done.stdout


def through_ffmpeg(raw: bytes, w: int, h: int, options: list) -> tuple[bytes, list]:
    ffmpeg = shutil.which("ffmpeg")
    if not ffmpeg:
        raise RuntimeError(
            "making coded pairs needs ffmpeg with libx264, libx265 and libsvtav1 on the path"
        )
    # As root SVT-AV1 gives its threads real-time priority, which starves everything beside it.
    meek = (
        ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"]
        if os.geteuid() == 0 and shutil.which("setpriv")
        else []
    )
    with tempfile.TemporaryDirectory() as folder:
        coded = str(Path(folder) / "clip.mkv")
        piped(
            [
                *meek,
                ffmpeg,
                "-v",
                "error",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "yuv420p",
                "-s",
                f"{w}x{h}",
                "-r",
                "25",
                "-i",
                "-",
                *options,
                "-pix_fmt",
                "yuv420p",
                coded,
            ],
            raw,
        )
        told = quantizers_of(coded) if TELLING in options and TOOL in os.environ else []
        return piped(
            [
                ffmpeg,
                "-v",
                "error",
                "-threads",
                "1",
                "-i",
                coded,
                # every frame as it is: times of VVC in Matroska are off, and would drop some
                "-fps_mode",
                "passthrough",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "yuv420p",
                "-",
            ]
        ), told


def through_gstreamer(raw: bytes, w: int, h: int, options: list) -> tuple[bytes, list]:
    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "given.yuv", Path(folder) / "got.yuv"
        given.write_bytes(raw)
        parse = f"rawvideoparse format=i420 width={w} height={h} framerate=25/1"
        piped(
            [
                "gst-launch-1.0",
                "-q",
                "filesrc",
                f"location={given}",
                "!",
                *parse.split(),
                "!",
                *options,
                "!",
                "nnvparse",
                "!",
                "nnvdec",
                "threads=1",
                "!",
                "filesink",
                f"location={got}",
            ]
        )
        return got.read_bytes(), []


# Standard deviation of noise that is to be removed, in codes, and of the grain that good pictures
# have. They do not meet: a network could not tell them apart, and would smooth what must come back
# untouched.
NOISE, GRAIN = (7, 20), (0.7, 4)


def camera_noise(rng, luma: np.ndarray, strength=NOISE) -> np.ndarray:
    """Poisson-Gaussian noise on u8 luma, correlated among neighbours as demosaicking leaves it."""
    gauss = log_uniform(rng, *strength)
    poisson = log_uniform(rng, 0.02, 0.8) * (gauss / NOISE[1]) ** 2
    noise = rng.normal(0, 1, luma.shape)
    blur = rng.uniform(0, 0.5)
    for axis in (0, 1):
        noise = (1 - blur) * noise + blur / 2 * (np.roll(noise, 1, axis) + np.roll(noise, -1, axis))
    noise /= noise.std() + 1e-9
    signal = np.clip(luma.astype(np.float64) - 16, 0, None)
    return to_u8(luma + noise * np.sqrt(gauss**2 + poisson * signal))


def middle(planes, multiple: int):
    """The middle of (y, u, v), at most LARGEST_SIDE on a side, sides multiples of `multiple`."""
    h, w = (min(n, LARGEST_SIDE) // multiple * multiple for n in planes[0].shape)
    top, left = ((n - k) // 4 * 2 for n, k in zip(planes[0].shape, (h, w)))
    return tuple(
        p[top // c : (top + h) // c, left // c : (left + w) // c] for p, c in zip(planes, (1, 2, 2))
    )


def shrink(planes, scale: int, kernel: int):
    """(y, u, v) shrunk by `scale` with one of the kernels that scalers use."""
    if scale == 1:
        return planes
    out = []
    for p in planes:
        h, w = (n // scale for n in p.shape)
        if kernel == 0:
            out.append(to_u8(resize(p, h, w)))
        else:
            out.append(
                np.asarray(
                    Image.fromarray(np.ascontiguousarray(p)).resize(
                        (w, h), (Image.LANCZOS, Image.BILINEAR)[kernel - 1]
                    )
                )
            )
    return tuple(out)


def frames_of(planes, frames=range(FRAMES)) -> list:
    """Some of planes [T,...] as frames of (y, u, v)."""
    return [tuple(np.asarray(p[t]).reshape(p.shape[-2:]) for p in planes) for t in frames]


def woven(frames: list) -> list:
    """Half as many frames: even rows of one, odd rows of the next."""

    def weave(even, odd):
        out = even.copy()
        out[1::2] = odd[1::2]
        return out

    return [tuple(map(weave, even, odd)) for even, odd in zip(frames[::2], frames[1::2])]


class Maker:
    """Draws clips from a store and spoils them. `task`: compressed or repair."""

    def __init__(
        self,
        store,
        task: str,
        scale: int,
        seed: int = 0,
        coder=code,
        nnv: bool = False,
        only: str | None = None,
        screens: float = SCREENS,
        weave: float = WOVEN,
        caught=None,
    ):
        (
            self.store,
            self.task,
            self.scale,
            self.coder,
            self.nnv,
            self.only,
            self.screens,
            self.weave,
        ) = store, task, scale, coder, nnv, only, screens, weave
        self.rng = np.random.default_rng(seed)
        self.videos = (
            GroupSampler([c for c in store.videos() if c["frames"] >= SHORTEST])
            if store.videos()
            else None
        )
        self.synth = Synthesiser(store, caught) if store.stills() else None

    def clip(self):
        """(group, frames of (y, u, v))."""
        rng = self.rng
        if self.synth and self.task == "repair" and rng.random() < self.screens:
            return "screens", self.aged(
                frames_of(screen_clip(rng, self.synth.screens, FRAMES, SYNTHETIC_SIDE)),
                SCREENS_BEFORE,
            )
        weave = self.task == "repair" and rng.random() < self.weave
        take = 2 if weave else 1
        if self.synth and (not self.videos or rng.random() < 0.5):
            frames = frames_of(
                self.synth.clip(rng, take * FRAMES, SYNTHETIC_SIDE), range(take * FRAMES)
            )
            return "synthetic", self.aged(woven(frames) if weave else frames, CODED_BEFORE)
        clip = self.videos.draw(rng)
        count = min(clip["frames"], take * LONGEST)
        start = int(rng.integers(clip["frames"] - count + 1))
        frames = frames_of(self.store.planes(clip), range(start, start + count))
        # Of a short clip would be left too little.
        return clip["group"], woven(frames) if weave and count >= 2 * SHORTEST else frames

    def aged(self, frames: list, share: float) -> list:
        """Frames, a `share` of them as a coding before would have left them."""
        rng = self.rng
        if self.task != "repair" or rng.random() >= share:
            return frames
        frames = self.coder(
            frames,
            [
                "-c:v",
                "libx264",
                "-preset",
                "veryfast",
                "-crf",
                str(rng.integers(*BEFORE)),
                "-threads",
                "1",
            ],
        )[0]
        if rng.random() >= SHRUNK_SINCE:
            return frames
        share = rng.uniform(*SHRUNK_TO)
        h, w = (int(n * share) // 16 * 16 for n in frames[0][0].shape)
        return [
            tuple(to_u8(resize(p, h // c, w // c)) for p, c in zip(f, (1, 2, 2))) for f in frames
        ]

    def pairs(self):
        """One clip's pairs: (group, [(wanted u8, given u8, quantizers of its blocks u8 or None),
        ...]).
        """
        rng = self.rng
        group, frames = self.clip()
        # GStreamer pads rows of I420 to four samples, of chroma too.
        frames = [middle(f, 8 * self.scale) for f in frames]
        repair = self.task == "repair"
        if repair and group != "screens" and rng.random() < 0.45:
            # Our clips were coded before and lost their grain: a network that never saw any would
            # take it for damage.
            low = log_uniform(rng, *GRAIN)
            frames = [(camera_noise(rng, y, (low, low)), u, v) for y, u, v in frames]
        kernel = int(rng.choice(3, p=[0.6, 0.25, 0.15]))
        given = [shrink(f, self.scale, kernel) for f in frames]
        # Of clips to be repaired one in twelve is noisy, half of those are then coded too; one in
        # twenty is left as it is and must come back untouched.
        fate = rng.random()
        if repair and fate < 0.08:
            given = [(camera_noise(rng, y), u, v) for y, u, v in given]
        told = []
        if not repair or 0.04 <= fate < 0.95:
            frames = swing(frames)
            given, told = self.coder(
                swing(given), codec_options(rng, self.nnv, repair and fate > 0.62, self.only)
            )
        picks = rng.choice(len(given), KEPT, replace=False)
        return group, [
            (frames[t][0], given[t][0], told[t][1] if told else None) for t in sorted(picks)
        ]


def webp(plane: np.ndarray, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(out, "WEBP", method=4, **options)
    return out.getvalue()


def wanted_file(plane: np.ndarray) -> bytes:
    """Without loss where that costs less than twice as much: drawn screens above all, whose coded
    versions may be better than what the lossy mode keeps.
    """
    exact, small = webp(plane, lossless=True), webp(plane, quality=WANTED_QUALITY)
    return exact if len(exact) < 2 * len(small) else small


class PairWriter:
    """Writes `<stem>-00.nnvpairs`, ... none larger than `limit` bytes."""

    def __init__(self, folder, task: str, scale: int, limit: int):
        self.folder, self.task, self.scale, self.limit = Path(folder), task, scale, limit
        self.folder.mkdir(parents=True, exist_ok=True)
        self.paths, self.zip, self.groups, self.size, self.total = [], None, [], 0, 0

    def add(
        self, group: str, wanted: np.ndarray, given: np.ndarray, blocks: np.ndarray | None = None
    ):
        # WebP is stored in colour: grey pixels survive its lossless mode exactly, and its lossy
        # mode keeps luma in the same steps.
        files = {"wanted": wanted_file(wanted), "given": webp(given, lossless=True)}
        if blocks is not None:
            files["blocks"] = webp(blocks, lossless=True)
        size = sum(len(f) + 200 for f in files.values()) + 100
        if self.zip and self.size + size > self.limit:
            self.close()
        if not self.zip:
            path = self.folder / f"{self.task}-x{self.scale}-{len(self.paths):02d}{PAIR_SUFFIX}"
            self.paths.append(path)
            self.zip, self.groups, self.size = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED), [], 0
        for name, content in files.items():
            self.zip.writestr(f"{len(self.groups):05d}/{name}", content)
        self.groups.append(group)
        self.size += size
        self.total += size

    def close(self):
        if self.zip:
            self.zip.writestr(
                "index.json",
                json.dumps(
                    dict(version=VERSION, task=self.task, scale=self.scale, groups=self.groups)
                ),
            )
            self.zip.close()
            self.zip = None


def arguments(p):
    p.add_argument(
        "--data", default=os.environ.get("NNV_DATA"), help="folder of pictures and videos"
    )
    p.add_argument("--cache", default=os.environ.get("NNV_CACHE"), help="folder for decoded data")
    p.add_argument("--out", required=True, help="folder for the packs of pairs")
    p.add_argument("--task", choices=("compressed", "repair"), required=True)
    p.add_argument("--scale", type=int, help="default: 2 for compressed, 1 for repair")
    p.add_argument(
        "--pack-mb", type=float, default=40, help="largest size of one pack (default 40)"
    )
    p.add_argument("--total-mb", type=float, default=40, help="size of all packs (default 40)")
    p.add_argument("--codec", choices=list(PRESETS), help="this one alone")
    p.add_argument(
        "--screens",
        type=float,
        default=SCREENS,
        help=f"share of drawn screens, for repair (default {SCREENS})",
    )
    p.add_argument(
        "--caught",
        help="folder of pictures of real screens, which take the place of most drawn ones",
    )
    p.add_argument(
        "--woven",
        type=float,
        default=WOVEN,
        help=f"share of the other clips that are interlaced, for repair (default {WOVEN})",
    )
    p.add_argument("--seed", type=int, default=0, help="another one makes other pairs")


def run(args):
    store = open_store(args.data, args.cache)
    scale = args.scale or (2 if args.task == "compressed" else 1)
    nnv = have_nnv()
    print(
        (
            f"codecs: {', '.join(PRESETS)}{', ' + NNV if nnv else ''}; {TELLING}'s quantizers "
            f"are {'read' if TOOL in os.environ else f'not known: {TOOL} is not set'}"
        ),
        flush=True,
    )
    maker = Maker(
        store,
        args.task,
        scale,
        args.seed,
        nnv=nnv,
        only=args.codec,
        screens=args.screens,
        weave=args.woven,
        caught=args.caught and open_store(args.caught, args.cache),
    )
    writer = PairWriter(args.out, args.task, scale, int(args.pack_mb * 1e6))
    # A run that is stopped leaves packs that can be read.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        fill(writer, maker, args.total_mb * 1e6)
    finally:
        writer.close()
    for path in writer.paths:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def fill(writer: PairWriter, maker: Maker, total: float):
    """Adds pairs until the packs hold `total` bytes."""
    clips = failures = 0
    while writer.total < total:
        try:
            group, pairs = maker.pairs()
        except CodecFailed as error:
            failures += 1
            if failures > 5 + clips // 10:
                raise
            print(f"skipped: {error}", flush=True)
            continue
        for pair in pairs:
            writer.add(group, *pair)
        clips += 1
        if clips % 20 == 0:
            print(f"{clips} clips, {writer.total / 1e6:.1f} MB", flush=True)

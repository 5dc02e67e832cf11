"""The codecs under test: each turns a raw clip into a real file and that file back into raw I420.

The anchors run through the ffmpeg command line on one thread (their best compression), write bare elementary
streams, and lose their free-text SEI units, so that no container and no banner counts as rate. NNV runs through
gst-launch-1.0, reads the same frames, and its file counts as it is, headers and checksums of units included.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from .clips import REPO, RawClip

# "The whole clip": longer than any clip of the benchmark, within the range of every encoder's option.
WHOLE_CLIP = 1000


def interval_of(key_interval: int, frames: int) -> int:
    """A clip no longer than the interval has one key frame either way: one row serves both settings."""
    return WHOLE_CLIP if key_interval >= frames else key_interval


@dataclass(frozen=True)
class Coded:
    stream: Path
    decoded: Path
    encode_s: float
    decode_s: float


@dataclass(frozen=True)
class Codec:
    id: str
    title: str
    kind: str  # "ffmpeg" or "nnv"
    points: tuple[int, ...]
    suffix: str
    options: tuple[str, ...] = ()
    intra: bool = False
    colour: str = "#000000"
    removed_units: str = ""
    quick_points: tuple[int, ...] = field(default=())
    bundle: str = "realtime"

    def config(self, key_interval: int) -> str:
        """What decides the bits of a point beside the clip, the quantizer and the model, in words."""
        return " ".join((*self.options, f"key={1 if self.intra else key_interval}"))


_CRF = (17, 22, 27, 32, 37, 42)
_CRF_QUICK = (22, 27, 32, 37)
_NNV = (8, 16, 24, 32, 40, 48, 56)
_NNV_QUICK = (16, 28, 40, 52)
_H264_SEI, _HEVC_SEI = "6", "39|40"


def _x264(id: str, title: str, options: str, colour: str, intra: bool = False) -> Codec:
    return Codec(id, title, "ffmpeg", _CRF, "h264", ("-c:v", "libx264", *options.split()), intra, colour,
                 _H264_SEI, _CRF_QUICK)  # fmt: skip


def _x265(id: str, title: str, options: str, colour: str, intra: bool = False) -> Codec:
    return Codec(id, title, "ffmpeg", _CRF, "hevc", ("-c:v", "libx265", *options.split()), intra, colour,
                 _HEVC_SEI, _CRF_QUICK)  # fmt: skip


CODECS: dict[str, Codec] = {
    c.id: c
    for c in (
        Codec("nnv-ld", "NNV low delay", "nnv", _NNV, "nnv", ("bframes=0", "tune=zerolatency"), False, "#c02020",
              quick_points=_NNV_QUICK),
        Codec("nnv-b7", "NNV hierarchical B", "nnv", _NNV, "nnv", ("bframes=7",), False, "#e07000",
              quick_points=_NNV_QUICK),
        Codec("nnv-b7-unfiltered", "NNV hierarchical B, no temporal filter", "nnv", _NNV, "nnv", ("bframes=7", "lookahead=0"), False,
              "#b0a000", quick_points=_NNV_QUICK),
        Codec("nnv-key", "NNV key frames", "nnv", _NNV, "nnv", ("bframes=0",), True, "#a050c0",
              quick_points=_NNV_QUICK),
        Codec("nnv-ld-visual", "NNV low delay, tune visual", "nnv", _NNV, "nnv", ("bframes=0", "batch-size=1", "tune=visual"),
              False, "#804040", quick_points=_NNV_QUICK, bundle="visual"),
        Codec("nnv-b7-visual", "NNV hierarchical B, tune visual", "nnv", _NNV, "nnv", ("bframes=7", "tune=visual"), False,
              "#a07030", quick_points=_NNV_QUICK, bundle="visual"),
        _x264("x264-zl", "x264 veryfast zerolatency", "-preset veryfast -tune zerolatency", "#2060c0"),
        _x264("x264-medium", "x264 medium", "-preset medium", "#2090c0"),
        _x264("x264-intra", "x264 medium all-intra, tune psnr", "-preset medium -tune psnr", "#80a0c0", intra=True),
        _x265("x265-medium", "x265 medium", "-preset medium", "#209040"),
        _x265("x265-intra", "x265 medium all-intra, tune psnr", "-preset medium -tune psnr", "#90b090", intra=True),
        Codec("svtav1-p8", "SVT-AV1 preset 8", "ffmpeg", (20, 29, 38, 47, 56, 63), "obu",
              ("-c:v", "libsvtav1", "-preset", "8"), False, "#606060", quick_points=(29, 38, 47, 56)),
        # Stricter than asked: the same encoders told to aim at PSNR alone. Not in the default set.
        _x264("x264-medium-psnr", "x264 medium, tune psnr", "-preset medium -tune psnr", "#104060"),
        _x265("x265-medium-psnr", "x265 medium, tune psnr", "-preset medium -tune psnr", "#106030"),
    )
}  # fmt: skip
VIDEO_DEFAULT = ("nnv-ld", "nnv-b7", "nnv-key", "nnv-b7-visual", "x264-zl", "x264-medium", "x264-intra", "x265-medium", "x265-intra",
                 "svtav1-p8")  # fmt: skip
STILL_DEFAULT = ("nnv-key", "x264-intra", "x265-intra")


@dataclass(frozen=True)
class Model:
    """A bundle NNV runs with: its element properties, hash for the result key, complexity when it states one."""

    properties: tuple[str, ...]
    name: str
    hash: str
    facts: dict


Models = dict[str, Model]  # by the name that codecs ask for


def load_models(path: str | None, names: set[str]) -> Models:
    """The bundles of these names, or the one in the folder `path` instead of them."""
    return {name: _load_model(Path(path) if path else REPO / "models" / name, bool(path)) for name in sorted(names)}


def _load_model(folder: Path, named: bool) -> Model:
    file = folder / "bundle.toml"
    if not file.is_file():
        raise SystemExit(f"bench/rd: {file} is missing; name a bundle folder with --model-path, or leave NNV out with --anchors")
    facts = tomllib.loads(file.read_text())
    return Model((f"model-path={folder.resolve()}",) if named else (), facts["name"], facts["hash"][:16], facts)


def source_revision() -> str:
    """Last commit that touched what decides NNV's bits; noted with each result."""
    done = subprocess.run(["git", "-C", str(REPO), "log", "-1", "--format=%h", "--", "src", "models/realtime", "models/visual"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    return done.stdout.strip() or "unknown"


def tool_version(codec: Codec) -> str:
    if codec.kind == "nnv":
        return source_revision()
    done = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True)
    return "ffmpeg " + done.stdout.split()[2]


def _timed(command: list[str], limit_s: float, env: dict[str, str] | None = None) -> float:
    begin = time.monotonic()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=limit_s, env=env)  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no end after {limit_s:.0f} s: {' '.join(command)}") from error
    if done.returncode:
        text = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise RuntimeError(f"status {done.returncode}: {' '.join(command)}\n{text}")
    return time.monotonic() - begin


def _code_ffmpeg(codec: Codec, clip: RawClip, point: int, key_interval: int, threads: int, work: Path) -> Coded:
    stream, decoded = work / f"out.{codec.suffix}", work / "decoded.yuv"
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s",
               f"{clip.width}x{clip.height}", "-r", str(clip.fps), "-i", str(clip.yuv), *codec.options, "-crf",
               str(point), "-g", str(1 if codec.intra else key_interval), "-threads", str(threads)]  # fmt: skip
    if codec.suffix == "hevc":
        command += ["-x265-params", f"log-level=error:info=0:pools={threads}:frame-threads=1"]
    elif codec.suffix == "obu":
        command += ["-svtav1-params", f"lp={threads}"]
        if os.geteuid() == 0 and shutil.which("setpriv"):
            # As root SVT-AV1 gives its threads real-time priority, which starves everything beside it.
            command = ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice", *command]
    if codec.removed_units:
        command += ["-bsf:v", f"filter_units=remove_types={codec.removed_units}"]
    encode_s = _timed([*command, str(stream)], 7200, {**os.environ, "SVT_LOG": "1"})
    decode_s = _timed(
        ["ffmpeg", "-v", "error", "-y", "-threads", str(threads), "-i", str(stream), "-vsync", "passthrough", "-pix_fmt",
         "yuv420p", "-f", "rawvideo", str(decoded)], 3600)  # fmt: skip
    return Coded(stream, decoded, encode_s, decode_s)


def y4m_to_yuv(source: Path, sink: Path, width: int, height: int, frames: int) -> None:
    """Strip the headers of a Y4M file of 8-bit 4:2:0, and the padding that GStreamer's y4menc leaves at the end of rows whose width is
    no multiple of 8 (its own layout: rows begin at multiples of four bytes). Frame parameters are allowed, another frame size is an error."""
    rows, chroma = (height, (height + 1) // 2), ((width + 1) // 2)
    planes = [(width, rows[0]), (chroma, rows[1]), (chroma, rows[1])]
    padded = [((w + 3) // 4 * 4, h + (h % 2 if i == 0 else 0)) for i, (w, h) in enumerate(planes)]
    size, padded_size = (sum(w * h for w, h in p) for p in (planes, padded))
    frame_header = len(b"FRAME\n")
    with source.open("rb") as src, sink.open("wb") as dst:
        if not src.readline().startswith(b"YUV4MPEG2 "):
            raise RuntimeError(f"{source}: no YUV4MPEG2 header")
        left = source.stat().st_size - src.tell()
        is_padded = size != padded_size and left == frames * (padded_size + frame_header)
        while header := src.readline():
            if not header.startswith(b"FRAME"):
                raise RuntimeError(f"{source}: frame header expected, found {header[:20]!r}")
            frame = src.read(padded_size if is_padded else size)
            if len(frame) != (padded_size if is_padded else size):
                raise RuntimeError(f"{source}: last frame has {len(frame)} of {size} bytes")
            if not is_padded:
                dst.write(frame)
                continue
            at = 0
            for (w, h), (stride, all_rows) in zip(planes, padded):
                for y in range(h):
                    dst.write(frame[at + y * stride : at + y * stride + w])
                at += stride * all_rows


def _code_nnv(codec: Codec, clip: RawClip, point: int, key_interval: int, threads: int, model: Model, work: Path) -> Coded:
    stream, decoded_y4m, decoded = work / "out.nnv", work / "decoded.y4m", work / "decoded.yuv"
    common = [f"threads={threads}", "execution-provider=cpu", *model.properties]
    encode_s = _timed(
        ["gst-launch-1.0", "-q", "filesrc", f"location={clip.y4m}", "!", "y4mdec", "!", "nnvenc", f"quantizer={point}",
         "rate-control=cq", "frame-checksum=false", f"key-int-max={1 if codec.intra else key_interval}", *codec.options,
         *common, "!", "filesink", f"location={stream}"], 7200)  # fmt: skip
    decode_s = _timed(
        ["gst-launch-1.0", "-q", "filesrc", f"location={stream}", "!", "nnvparse", "!", "nnvdec", *common, "!", "y4menc",
         "!", "filesink", f"location={decoded_y4m}"], 3600)  # fmt: skip
    y4m_to_yuv(decoded_y4m, decoded, clip.width, clip.height, clip.frames)
    decoded_y4m.unlink()
    return Coded(stream, decoded, encode_s, decode_s)


def code(codec: Codec, clip: RawClip, point: int, key_interval: int, threads: int, models: Models, work: Path) -> Coded:
    """Encode and decode one point in the folder `work`; raises RuntimeError with the failing command."""
    if codec.kind == "ffmpeg":
        return _code_ffmpeg(codec, clip, point, key_interval, threads, work)
    return _code_nnv(codec, clip, point, key_interval, threads, models[codec.bundle], work)


def config_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]

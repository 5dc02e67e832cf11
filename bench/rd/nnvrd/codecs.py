"""The codecs under test: each turns a raw clip into a real file and that file back into raw I420.

The anchors run through the ffmpeg of `ffmpeg.py` on one thread (their best compression), write bare
elementary streams, and lose their free-text SEI units and access unit delimiters, so that neither
container nor banner counts as rate. NNV runs through gst-launch-1.0, reads the same frames, and its
file counts as it is, headers and checksums of units included.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path

from . import ffmpeg
from .clips import REPO, RawClip

# "The whole clip": longer than any clip of the benchmark, within the range of every encoder's
# option, and a multiple of 32, VVenC's mini-GOP: other intervals cost it up to 9 % of its rate.
WHOLE_CLIP = 1024


def interval_of(key_interval: int, frames: int) -> int:
    """A clip no longer than the interval has one key frame either way: one row serves both."""
    return WHOLE_CLIP if key_interval >= frames else key_interval


@dataclass(frozen=True)
class Coded:
    """A point's files, and the user CPU time of the processes that made them."""

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
    options: tuple[str, ...]
    colour: str
    intra: bool = False
    quick_points: tuple[int, ...] = ()
    bundle: str = "realtime"

    def config(self, key_interval: int) -> str:
        """What decides the bits of a point beside the clip, the quantizer and the model."""
        return " ".join((*self.options, f"key={1 if self.intra else key_interval}"))


def _nnv(id: str, title: str, options: str, colour: str, **more) -> Codec:
    points, quick = (8, 20, 32, 44, 56), (16, 28, 40, 52)
    return Codec(id, title, "nnv", points, "nnv", tuple(options.split()), colour,
                 quick_points=quick, **more)  # fmt: skip


def _anchor(id: str, title: str, library: str, options: str, colour: str, **more) -> Codec:
    suffix, points, quick = {
        "libx264": ("h264", (17, 23, 29, 35, 41), (22, 27, 32, 37)),
        "libx265": ("hevc", (17, 23, 29, 35, 41), (22, 27, 32, 37)),
        "libsvtav1": ("obu", (20, 32, 44, 55, 63), (29, 38, 47, 56)),
        "libvvenc": ("vvc", (17, 23, 29, 35, 41), (22, 27, 32, 37)),
    }[library]
    return Codec(id, title, "ffmpeg", points, suffix, ("-c:v", library, *options.split()), colour,
                 quick_points=quick, **more)  # fmt: skip


CODECS: dict[str, Codec] = {
    c.id: c
    for c in (
        _nnv("nnv-ld", "NNV low delay", "bframes=0 tune=zerolatency", "#c02020"),
        _nnv("nnv-b7", "NNV hierarchical B", "bframes=7", "#e07000"),
        _nnv("nnv-b7-unfiltered", "NNV hierarchical B, no temporal filter", "bframes=7 lookahead=0",
             "#b0a000"),
        _nnv("nnv-key", "NNV key frames", "bframes=0", "#a050c0", intra=True),
        _nnv("nnv-ld-visual", "NNV low delay, tune visual", "bframes=0 batch-size=1 tune=visual",
             "#804040", bundle="visual"),
        _nnv("nnv-b7-visual", "NNV hierarchical B, tune visual", "bframes=7 tune=visual", "#a07030",
             bundle="visual"),
        _anchor("x264-zl", "x264 veryfast zerolatency", "libx264",
                "-preset veryfast -tune zerolatency", "#2060c0"),
        _anchor("x264-medium", "x264 medium", "libx264", "-preset medium", "#2090c0"),
        _anchor("x264-medium-psnr", "x264 medium, tune psnr", "libx264",
                "-preset medium -tune psnr", "#104060"),
        _anchor("x264-intra", "x264 medium all-intra, tune psnr", "libx264",
                "-preset medium -tune psnr", "#80a0c0", intra=True),
        _anchor("x265-medium", "x265 medium", "libx265", "-preset medium", "#209040"),
        _anchor("x265-medium-psnr", "x265 medium, tune psnr", "libx265",
                "-preset medium -tune psnr", "#106030"),
        _anchor("x265-intra", "x265 medium all-intra, tune psnr", "libx265",
                "-preset medium -tune psnr", "#90b090", intra=True),
        # These two aim at PSNR alone: the default of SVT-AV1, which is named all the same, and
        # VVenC without its perceptual adaptation of the quantizer.
        _anchor("svtav1-p10", "SVT-AV1 preset 10", "libsvtav1",
                "-preset 10 -svtav1-params tune=1", "#a0a0a0"),
        _anchor("svtav1-p8", "SVT-AV1 preset 8", "libsvtav1",
                "-preset 8 -svtav1-params tune=1", "#606060"),
        _anchor("svtav1-p6", "SVT-AV1 preset 6", "libsvtav1",
                "-preset 6 -svtav1-params tune=1", "#202020"),
        _anchor("vvenc-faster", "VVenC faster", "libvvenc", "-preset faster -qpa 0", "#b030a0"),
    )
}  # fmt: skip
VIDEO_DEFAULT = (
    "nnv-b7", "nnv-ld", "x264-zl", "x264-medium", "x264-medium-psnr", "x265-medium",
    "x265-medium-psnr", "svtav1-p10", "svtav1-p8", "svtav1-p6", "vvenc-faster",
)  # fmt: skip
STILL_DEFAULT = ("nnv-key", "x264-intra", "x265-intra")


@dataclass(frozen=True)
class Model:
    """A bundle NNV runs with: its element properties, hash for the result key, and its facts."""

    properties: tuple[str, ...]
    name: str
    hash: str
    facts: dict


Models = dict[str, Model]  # by the name that codecs ask for


def load_models(path: str | None, names: set[str]) -> Models:
    """The bundles of these names, or the one in the folder `path` instead of them."""
    folders = {name: Path(path) if path else REPO / "models" / name for name in sorted(names)}
    return {name: _load_model(folder, bool(path)) for name, folder in folders.items()}


def _load_model(folder: Path, named: bool) -> Model:
    file = folder / "bundle.toml"
    if not file.is_file():
        raise SystemExit(f"bench/rd: {file} is missing; name a bundle folder with --model-path, "
                         "or leave NNV out with --anchors")  # fmt: skip
    facts = tomllib.loads(file.read_text())
    properties = (f"model-path={folder.resolve()}",) if named else ()
    return Model(properties, facts["name"], facts["hash"][:16], facts)


def plugin_version() -> str:
    """What the plugin says of itself: crate version and revision of the source."""
    done = subprocess.run(["gst-inspect-1.0", "--plugin", "nnv"], capture_output=True, text=True,
                          check=False)  # fmt: skip
    found = re.search(r"^ *Version +(\S+)", done.stdout, re.MULTILINE)
    if not found:
        raise SystemExit("bench/rd: GStreamer does not find the plugin nnv; is it built?")
    return found[1]


def version_of(codec: Codec) -> str:
    """The exact encoder behind a codec; results of different ones never meet in a curve."""
    if codec.kind == "nnv":
        return f"nnv {plugin_version()}"
    return f"{ffmpeg.encoder_version(codec.options[1])}, ffmpeg {ffmpeg.version()}"


def run_timed(command: list[str], limit_s: float, env: dict[str, str] | None = None) -> float:
    """Run a command; its user CPU time in seconds. Raises RuntimeError when it fails."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   env=env)  # fmt: skip
        alarm = threading.Timer(limit_s, process.kill)
        alarm.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            alarm.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            text = output.read().decode(errors="replace").strip()[-1500:]
            raise RuntimeError(f"status {process.returncode} (-9: no end after {limit_s:.0f} s): "
                               f"{' '.join(command)}\n{text}")  # fmt: skip
    return usage.ru_utime


def encode_command(codec: Codec, clip: RawClip, point: int, key: int, threads: int) -> list[str]:
    """The ffmpeg command line of an anchor, but for the name of its output."""
    command = [ffmpeg.program(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s",
               f"{clip.width}x{clip.height}", "-r", str(clip.fps), "-i", str(clip.yuv),
               "-g", str(key), "-threads", str(threads), *codec.options]  # fmt: skip
    match codec.suffix:
        case "h264":
            return [*command, "-crf", str(point), "-bsf:v", "filter_units=remove_types=6"]
        case "hevc":
            pools = "none" if threads == 1 else threads
            params = f"log-level=error:info=0:pools={pools}:frame-threads=1"
            return [*command, "-crf", str(point), "-x265-params", params,
                    "-bsf:v", "filter_units=remove_types=39|40"]  # fmt: skip
        case "obu":
            command[-1] += f":lp={threads}"  # -threads says nothing to SVT-AV1
            # As root SVT-AV1 gives its threads real-time priority, which starves all beside it.
            drop = ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"]
            root = os.geteuid() == 0 and shutil.which("setpriv")
            return [*(drop if root else []), *command, "-crf", str(point)]
        case "vvc":
            # ffmpeg does not hand -g on to VVenC, which would write a key frame every second.
            return [*command, "-qp", str(point), "-vvenc-params", f"intraperiod={key}",
                    "-bsf:v", "filter_units=remove_types=20|23|24"]  # fmt: skip
    raise ValueError(codec.suffix)


def _code_ffmpeg(
    codec: Codec, clip: RawClip, point: int, key: int, threads: int, work: Path
) -> Coded:
    stream, decoded = work / f"out.{codec.suffix}", work / "decoded.yuv"
    command = encode_command(codec, clip, point, key, threads)
    encode_s = run_timed([*command, str(stream)], 7200, {**os.environ, "SVT_LOG": "1"})
    # VVenC codes 10 bits; without these scaler options ffmpeg would dither them down to 8.
    rounding = ["-sws_flags", "accurate_rnd", "-sws_dither", "none"]
    decode_s = run_timed(
        [ffmpeg.program(), "-v", "error", "-y", "-threads", str(threads), "-i", str(stream),
         "-fps_mode", "passthrough", *rounding, "-pix_fmt", "yuv420p", "-f", "rawvideo",
         str(decoded)], 3600)  # fmt: skip
    return Coded(stream, decoded, encode_s, decode_s)


def y4m_to_yuv(source: Path, sink: Path, width: int, height: int, frames: int) -> None:
    """Strip the headers of a Y4M file of 8-bit 4:2:0, and the padding that GStreamer's y4menc
    leaves at the end of rows whose width is no multiple of 8 (its own layout: rows begin at
    multiples of four bytes). Frame parameters are allowed, another frame size is an error."""
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


def _code_nnv(
    codec: Codec, clip: RawClip, point: int, key: int, threads: int, model: Model, work: Path
) -> Coded:
    stream, y4m, decoded = work / "out.nnv", work / "decoded.y4m", work / "decoded.yuv"
    common = [f"threads={threads}", "execution-provider=cpu", *model.properties]
    launch = ["gst-launch-1.0", "-q", "filesrc"]
    encode_s = run_timed(
        [*launch, f"location={clip.y4m}", "!", "y4mdec", "!", "nnvenc", f"quantizer={point}",
         "rate-control=cq", "frame-checksum=false", f"key-int-max={key}", *codec.options, *common,
         "!", "filesink", f"location={stream}"], 7200)  # fmt: skip
    decode_s = run_timed(
        [*launch, f"location={stream}", "!", "nnvparse", "!", "nnvdec", *common, "!", "y4menc", "!",
         "filesink", f"location={y4m}"], 3600)  # fmt: skip
    y4m_to_yuv(y4m, decoded, clip.width, clip.height, clip.frames)
    y4m.unlink()
    return Coded(stream, decoded, encode_s, decode_s)


def code(
    codec: Codec, clip: RawClip, point: int, key: int, threads: int, models: Models, work: Path
) -> Coded:
    """Encode and decode a point in the folder `work`; RuntimeError with the failing command."""
    key = 1 if codec.intra else key
    if codec.kind == "ffmpeg":
        return _code_ffmpeg(codec, clip, point, key, threads, work)
    return _code_nnv(codec, clip, point, key, threads, models[codec.bundle], work)

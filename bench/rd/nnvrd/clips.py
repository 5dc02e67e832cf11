"""Clips: where they are, their facts, and the raw copies that every codec reads."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from . import ffmpeg
from .metrics import frame_bytes

REPO = Path(__file__).resolve().parents[3]
VIDEO_SUFFIXES = {".mkv", ".mp4", ".avi", ".y4m", ".mov", ".webm", ".ts", ".m4v"}
PICTURE_SUFFIXES = {".webp", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm"}
# Small, and each of another kind: hand-held talking head, moving print, film, surveillance.
QUICK = ("carphone", "mobile_cif_30f", "bikes", "vtest")


def shared_dir() -> Path:
    """The folder of the test data: $NNV_SHARED, or `shared` beside the repository."""
    return Path(os.environ.get("NNV_SHARED") or REPO.parent / "shared")


@dataclass(frozen=True)
class Clip:
    name: str
    source: Path
    still: bool


@dataclass(frozen=True)
class RawClip:
    """A clip as packed I420 and as Y4M, with what the report needs to know of it."""

    name: str
    width: int
    height: int
    fps: Fraction
    frames: int
    yuv: Path
    y4m: Path


def find_clips(dataset: str, quick: bool) -> list[Clip]:
    if dataset == "video":
        folder, suffixes = shared_dir() / "data/test/video", VIDEO_SUFFIXES
    else:
        folder, suffixes = shared_dir() / "data/test/images" / dataset, PICTURE_SUFFIXES
    still = dataset != "video"
    if not folder.is_dir():
        raise SystemExit(
            f"bench/rd: no folder {folder}. Set NNV_SHARED to the folder that holds data/test, or "
            "name your own clips on the command line."
        )
    files = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in suffixes]
    clips = [Clip(p.stem, p, still) for p in files]
    if quick:
        clips = [c for c in clips if c.name in QUICK] if not still else clips[::6]
    return clips


def own_clips(paths: list[str]) -> list[Clip]:
    clips = []
    for text in paths:
        path = Path(text)
        if not path.is_file():
            raise SystemExit(f"bench/rd: {path} is not a file")
        clips.append(Clip(path.stem, path, path.suffix.lower() in PICTURE_SUFFIXES))
    if len({c.name for c in clips}) != len(clips):
        raise SystemExit("bench/rd: two clips have the same name, which the results go by")
    return clips


def _run(arguments: list[str]) -> bytes:
    command = [ffmpeg.program(), *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        text = done.stderr.decode(errors="replace").strip()[-2000:]
        raise RuntimeError(f"{' '.join(command)}\nfailed with status {done.returncode}:\n{text}")
    return done.stdout


def y4m_facts(data: bytes) -> tuple[int, int, Fraction]:
    """Width, height and frame rate in the header of a Y4M file."""
    words = data.split(b"\n", 1)[0].decode("ascii", "replace").split()
    if words[:1] != ["YUV4MPEG2"]:
        raise RuntimeError("no video stream in it")
    facts = {word[0]: word[1:] for word in words[1:4]}
    return int(facts["W"]), int(facts["H"]), Fraction(facts["F"].replace(":", "/"))


def prepare(clip: Clip, frames: int, cache: Path) -> RawClip:
    """Decode the first `frames` frames once, to 8-bit 4:2:0. Sources of another format are
    converted, and every codec sees the converted frames. Raw copies are kept in the cache and made
    anew only when missing."""
    source = ["-i", str(clip.source), "-map", "0:v:0", "-fps_mode", "passthrough"]
    one = ["-frames:v", "1", "-pix_fmt", "gray", "-f", "yuv4mpegpipe", "-"]
    width, height, fps = y4m_facts(_run(["-v", "error", *source, *one]))
    if clip.still:
        fps = Fraction(25)
    limit = 1 if clip.still else frames
    cache.mkdir(parents=True, exist_ok=True)
    yuv, y4m = cache / f"{clip.name}.{limit}.yuv", cache / f"{clip.name}.{limit}.y4m"
    if not yuv.exists():
        convert = "scale=out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int"
        if clip.still:
            convert += ":out_color_matrix=bt601"
        part = yuv.with_suffix(".part")
        _run(["-v", "error", "-y", *source, "-frames:v", str(limit), "-vf", convert,
              "-pix_fmt", "yuv420p", "-f", "rawvideo", str(part)])  # fmt: skip
        part.rename(yuv)
    size = frame_bytes(width, height)
    count, rest = divmod(yuv.stat().st_size, size)
    if rest or not count:
        raise RuntimeError(f"{yuv}: {yuv.stat().st_size} bytes are no whole number of "
                           f"{width}x{height} frames")  # fmt: skip
    if not y4m.exists():
        part = y4m.with_suffix(".part")
        with yuv.open("rb") as source, part.open("wb") as sink:
            rate = f"{fps.numerator}:{fps.denominator}"
            sink.write(f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C420jpeg\n".encode())
            for _ in range(count):
                sink.write(b"FRAME\n")
                sink.write(source.read(size))
        part.rename(y4m)
    return RawClip(clip.name, width, height, fps, count, yuv, y4m)

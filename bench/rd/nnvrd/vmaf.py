"""VMAF through ffmpeg's libvmaf filter: of the ffmpeg on the path where it has one, else of the build that the Python package
`imageio-ffmpeg` brings. Only VMAF is measured with that build: the codecs stay those of the system."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

from .clips import RawClip


def has_filter(ffmpeg: str) -> bool:
    done = subprocess.run([ffmpeg, "-hide_banner", "-filters"], capture_output=True, text=True, check=False)
    return any(line.split()[1:2] == ["libvmaf"] for line in done.stdout.splitlines())


@functools.cache
def program() -> str | None:
    """An ffmpeg with the filter."""
    if has_filter("ffmpeg"):
        return "ffmpeg"
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    other = imageio_ffmpeg.get_ffmpeg_exe()
    return other if has_filter(other) else None


def measure(clip: RawClip, decoded: Path, work: Path) -> float | None:
    """Mean VMAF over all frames, or None where no ffmpeg has the filter."""
    if not program():
        return None
    log = work / "vmaf.json"
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{clip.width}x{clip.height}", "-r", str(clip.fps), "-i"]
    done = subprocess.run(
        [program(), "-v", "error", *raw, str(decoded), *raw, str(clip.yuv), "-lavfi",
         f"[0:v][1:v]libvmaf=log_fmt=json:log_path={log}", "-f", "null", "-"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"libvmaf failed: {done.stderr.strip()[-500:]}")
    return float(json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"])

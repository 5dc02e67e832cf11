"""VMAF through ffmpeg's libvmaf filter, where this build of ffmpeg has it."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

from .clips import RawClip


@functools.cache
def available() -> bool:
    done = subprocess.run(["ffmpeg", "-hide_banner", "-filters"], capture_output=True, text=True, check=False)
    return any(line.split()[1:2] == ["libvmaf"] for line in done.stdout.splitlines())


def measure(clip: RawClip, decoded: Path, work: Path) -> float | None:
    """Mean VMAF over all frames, or None where ffmpeg lacks the filter."""
    if not available():
        return None
    log = work / "vmaf.json"
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{clip.width}x{clip.height}", "-r", str(clip.fps), "-i"]
    done = subprocess.run(
        ["ffmpeg", "-v", "error", *raw, str(decoded), *raw, str(clip.yuv), "-lavfi",
         f"[0:v][1:v]libvmaf=log_fmt=json:log_path={log}", "-f", "null", "-"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"libvmaf failed: {done.stderr.strip()[-500:]}")
    return float(json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"])

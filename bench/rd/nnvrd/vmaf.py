"""VMAF and XPSNR of a decoded clip, by the filters of the benchmark's ffmpeg.

VMAF (libvmaf's default model) is the arithmetic mean of the frames' scores. XPSNR is, plane by
plane, what the filter sums up at its end: decibels of the squared mean of the frames' root
weighted squared errors, which is not the mean of the frames' decibels; then (6Y + U + V) / 8.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from . import ffmpeg
from .clips import RawClip

_FILTERS = (
    "[0:v]split[a][b];[1:v]split[c][d];"
    "[a][c]libvmaf=log_fmt=json:log_path={log}[x];[b][d]xpsnr[y]"
)


def xpsnr_in(text: str) -> float:
    """(6Y + U + V) / 8 from the summary that the filter xpsnr logs."""
    found = re.search(r"XPSNR +y: (\S+) +u: (\S+) +v: (\S+)", text)
    if not found:
        raise RuntimeError("no summary of the filter xpsnr")
    y, u, v = (min(float(value), 100.0) for value in found.groups())
    return (6 * y + u + v) / 8


def scores(clip: RawClip, decoded: Path, work: Path) -> tuple[float, float]:
    """VMAF and XPSNR over all frames."""
    log = work / "vmaf.json"
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{clip.width}x{clip.height}",
           "-r", str(clip.fps), "-i"]  # fmt: skip
    done = subprocess.run(
        [ffmpeg.program(), "-hide_banner", "-nostats", *raw, str(decoded), *raw, str(clip.yuv),
         "-lavfi", _FILTERS.format(log=log), "-map", "[x]", "-f", "null", "-", "-map", "[y]",
         "-f", "null", "-"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"libvmaf or xpsnr failed: {done.stderr.strip()[-500:]}")
    vmaf = json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"]
    return float(vmaf), xpsnr_in(done.stderr)


def measure(clip: RawClip, decoded: Path, work: Path) -> float:
    """VMAF alone."""
    return scores(clip, decoded, work)[0]

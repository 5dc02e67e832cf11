"""Packs: training material in files of bounded size, for machines that see no other data.

A pack (`*.nnvpack`) is a zip file without compression: `index.json` and one file per picture or
frame. Pictures are the original files where they are small enough, else WebP. Video frames are
JPEGs of a grey picture that holds y on top and u, v side by side below, so their samples are stored
as they are, and Pillow alone reads everything (no video decoder needed). `data.open_store` opens a
folder of packs.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from . import data

VERSION = 1


def planes_to_jpeg(planes, quality: int) -> bytes:
    """(y, u, v) u8 planes -> JPEG of the grey mosaic [h*3/2, w]."""
    y, u, v = planes
    out = io.BytesIO()
    Image.fromarray(np.concatenate([y, np.concatenate([u, v], 1)])).save(
        out, "JPEG", quality=quality, optimize=True
    )
    return out.getvalue()


def jpeg_to_planes(content: bytes):
    mosaic = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    h, w = mosaic.shape[0] * 2 // 3, mosaic.shape[1]
    return mosaic[:h], mosaic[h:, : w // 2], mosaic[h:, w // 2 :]


def picture_bytes(path: Path, quality: int) -> bytes:
    """The file itself when it is WebP or JPEG of moderate size, else WebP of the picture scaled to
    what training reads.
    """
    with Image.open(path) as image:
        if (
            path.suffix.lower() in (".webp", ".jpg", ".jpeg")
            and max(image.size) <= data.MAX_STILL_SIDE
        ):
            return path.read_bytes()
        image = image.convert("RGB")
    image.thumbnail((data.MAX_STILL_SIDE,) * 2, Image.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


class PackWriter:
    """Writes `<stem>-00.nnvpack`, `<stem>-01.nnvpack`, ... none larger than `limit` bytes."""

    def __init__(self, folder: Path, stem: str, limit: int):
        self.folder, self.stem, self.limit = Path(folder), stem, limit
        self.folder.mkdir(parents=True, exist_ok=True)
        self.paths, self.entries, self.size, self.zip = [], [], 0, None

    def add(self, name: str, group: str, kind: str, files: list):
        """One clip: `files` are the encoded frames (one for a picture)."""
        # 200 bytes per file: names and headers, twice, and the index.
        size = sum(len(f) + 200 for f in files) + 400
        if size > self.limit:
            raise ValueError(
                (
                    f"{name}: {size} bytes do not fit into a pack of {self.limit}; raise "
                    "--pack-mb or lower --video-frames"
                )
            )
        if self.zip and self.size + size > self.limit:
            self.close()
        if not self.zip:
            path = self.folder / f"{self.stem}-{len(self.paths):02d}.nnvpack"
            self.paths.append(path)
            self.zip, self.entries, self.size = (
                zipfile.ZipFile(path, "w", zipfile.ZIP_STORED),
                [],
                0,
            )
        number = len(self.entries)
        for i, content in enumerate(files):
            self.zip.writestr(f"{number:05d}/{i:03d}", content)
        self.entries.append(dict(name=name, group=group, kind=kind, frames=len(files)))
        self.size += size

    def close(self):
        if self.zip:
            self.zip.writestr("index.json", json.dumps(dict(version=VERSION, clips=self.entries)))
            self.zip.close()
            self.zip = None


def read_pack(path):
    """Yields (name, group, [planes, ...]) of every clip of a pack."""
    with zipfile.ZipFile(path) as archive:
        index = json.loads(archive.read("index.json"))
        if index["version"] != VERSION:
            raise ValueError(
                f"{path}: pack version {index['version']}, this program reads {VERSION}"
            )
        for number, clip in enumerate(index["clips"]):
            contents = [archive.read(f"{number:05d}/{i:03d}") for i in range(clip["frames"])]
            if clip["kind"] == "picture":
                frames = [data.read_picture(io.BytesIO(c)) for c in contents]
            else:
                frames = [jpeg_to_planes(c) for c in contents]
            yield clip["name"], clip["group"], frames


def write_packs(
    source, out, pack_mb=40.0, total_mb=None, video_frames=17, quality=92, only=None, log=print
):
    """Packs a folder of pictures and videos (`only`: one of the two); returns the paths of the
    packs.

    With `total_mb` the share of clips is cut evenly (every group keeps its part) until about that
    size is reached.
    """
    pictures, videos, _ = data.list_source(source)
    writer = PackWriter(out, "train", int(pack_mb * 1e6))
    clips = [
        (p, kind)
        for kind, paths in (("picture", pictures), ("video", videos))
        if only in (None, kind + "s")
        for p in paths
    ]
    # A fixed shuffle: each pack, and each truncated set, is a fair sample of everything.
    order = np.random.default_rng(0).permutation(len(clips))
    written = 0
    for i in order:
        path, kind = clips[i]
        if kind == "picture":
            files = [picture_bytes(path, quality)]
        else:
            frames = data.read_video(path, video_frames)
            files = [planes_to_jpeg(f, quality) for f in frames]
            if len(files) == 1:
                log(f"skipped: {path}: only one frame")
                continue
        size = sum(map(len, files))
        if total_mb and written + size > total_mb * 1e6:
            continue
        written += size
        writer.add(path.name, data.group_of(str(path)), kind, files)
    writer.close()
    if not writer.paths:
        raise RuntimeError(f"{source}: nothing to pack")
    for path in writer.paths:
        log(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return writer.paths


def arguments(parser: argparse.ArgumentParser):
    parser.add_argument(
        "--data",
        default=os.environ.get("NNV_DATA"),
        help="folder of pictures and videos (default: NNV_DATA)",
    )
    parser.add_argument("--out", required=True, help="folder for the packs")
    parser.add_argument(
        "--pack-mb", type=float, default=40, help="largest size of one pack (default 40)"
    )
    parser.add_argument(
        "--total-mb",
        type=float,
        help="largest size of all packs: a fair sample is taken (default: everything)",
    )
    parser.add_argument("--only", choices=["pictures", "videos"], help="leave the others out")
    parser.add_argument(
        "--video-frames", type=int, default=17, help="frames kept of each video (default 17)"
    )
    parser.add_argument(
        "--quality", type=int, default=92, help="JPEG and WebP quality (default 92)"
    )


def run(args):
    if not args.data:
        raise SystemExit("pack: give --data or set NNV_DATA")
    write_packs(
        args.data, args.out, args.pack_mb, args.total_mb, args.video_frames, args.quality, args.only
    )


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="nnvtrain pack", description="Write training material into packs."
    )
    arguments(parser)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    main()

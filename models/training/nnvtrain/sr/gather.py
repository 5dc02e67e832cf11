"""Pictures to learn super-resolution from: ``python -m nnvtrain sr-gather``.

Photographs are at hand as lossy files, mostly. Shrunk from their full size they are as good as
never coded; small pictures that were never coded are taken as they are. What resembles a picture of
the tests is left out, however it was turned, and so are copies of each other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..data import IMAGE_SUFFIXES

# Sides in samples. Photographs become at most so large, and by this at least smaller; beneath, what
# is left is no use.
LARGEST, SHRINK, LEAST = 1600, 0.7, 350
SIDE = 16  # of the thumbnails that are compared
# From this correlation of thumbnails on: one picture in two files; perhaps the picture of a test (a
# person looks at what was left out).
SAME, LIKE_A_TEST = 0.98, 0.93


def thumbnail(image: Image.Image) -> np.ndarray:
    """[8, SIDE*SIDE] of a picture's luma in all turns of the square, each with the mean 0 and the
    length 1.
    """
    plane = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.BOX), np.float64)
    turns = np.stack([np.rot90(p, k).ravel() for p in (plane, plane.T) for k in range(4)])
    turns = turns - turns.mean(1, keepdims=True)
    return turns / np.maximum(np.linalg.norm(turns, axis=1, keepdims=True), 1e-6)


def pictures_of(folder: Path) -> list:
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise SystemExit(f"sr-gather: {folder} holds no pictures")
    return found


def shrunk(image: Image.Image) -> Image.Image | None:
    """A photograph without what its coding left; None where too little would remain."""
    k = min(SHRINK, LARGEST / max(image.size))
    w, h = (int(n * k) for n in image.size)
    return image.resize((w, h), Image.LANCZOS) if min(w, h) >= LEAST else None


def arguments(p):
    p.add_argument(
        "folder",
        nargs="+",
        help=(
            "GROUP=FOLDER of photographs, which are shrunk; GROUP:FOLDER of pictures that were "
            "never coded"
        ),
    )
    p.add_argument("--out", required=True, help="folder for the pictures, as lossless WebP")
    p.add_argument("--tests", required=True, help="folder of pictures that must not be among them")


def run(args):
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    tests = [(p, thumbnail(Image.open(p))) for p in pictures_of(Path(args.tests))]
    wanted = np.concatenate([t[:1] for _, t in tests])
    kept, count, left = (
        np.zeros((0, SIDE * SIDE)),
        0,
        {"too small": 0, "copies": 0, "like a test": 0, "unreadable": 0},
    )
    for entry in args.folder:
        at = min((entry.find(c) for c in "=:" if c in entry), default=-1)
        if at < 1:
            raise SystemExit(f"sr-gather: {entry} is neither GROUP=FOLDER nor GROUP:FOLDER")
        group, photographs, folder = entry[:at], entry[at] == "=", Path(entry[at + 1 :])
        for number, path in enumerate(pictures_of(folder)):
            try:
                with Image.open(path) as image:
                    image = image.convert("RGB")
            except (
                OSError,
                ValueError,
                SyntaxError,
                Image.DecompressionBombError,
            ) as error:  # what decoders raise for damaged files
                print(f"left out: {path}: {error}", flush=True)
                left["unreadable"] += 1
                continue
            image = shrunk(image) if photographs else image
            if image is None:
                left["too small"] += 1
                continue
            turns = thumbnail(image)
            near = (turns @ wanted.T).max(0)
            if near.max() > LIKE_A_TEST:
                print(
                    (
                        f"left out: {path} looks like {tests[int(near.argmax())][0].name} of the "
                        f"tests ({near.max():.3f})"
                    ),
                    flush=True,
                )
                left["like a test"] += 1
            elif len(kept) and (kept @ turns[0]).max() > SAME:
                left["copies"] += 1
            else:
                kept = np.concatenate([kept, turns[:1]])
                image.save(out / f"{group}__{number:04d}.webp", lossless=True, quality=0)
                count += 1
        print(f"{group}: {count} pictures so far", flush=True)
    print(
        ", ".join([f"{count} pictures in {out}", *(f"{n} {why}" for why, n in left.items() if n)])
    )

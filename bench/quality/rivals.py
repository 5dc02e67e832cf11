#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Rank correlation with VMAF of BRISQUE and NIQE, on what the quality network is measured with.

    python -m venv IQA
    IQA/bin/pip install brisque==0.2.0 opencv-python-headless==4.10.0.84 scikit-video==1.1.11 \\
        scipy==1.11.4 numpy==1.23.5 pillow
    IQA/bin/python bench/quality/rivals.py MATERIAL [--samples 400]

MATERIAL is the folder of `python -m nnvtrain quality-material`; only what is held out there counts.
Both look at single pictures: the mean of three frames is a sample's. Both give low numbers to good
pictures, so the sign is turned. NIQE takes no picture with a side of 192 or less: those count for
neither.
"""

import argparse
import json
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import scipy.misc
from PIL import Image
from scipy.stats import spearmanr

FRAMES = (6, 12, 18)
HELD_OUT = 5  # as nnvtrain/quality/material.py has it
SETTLED = 4  # and train.py
LEAST_OF_A_CONTENT = 4
SMALLEST = 192


def imresize(picture, share, interp, mode):
    """scikit-video asks for a function that SciPy no longer has."""
    assert (interp, mode) == ("bicubic", "F")
    h, w = picture.shape
    size = (int(w * share), int(h * share))
    return np.asarray(Image.fromarray(picture.astype(np.float32)).resize(size, Image.BICUBIC))


scipy.misc.imresize = imresize

import skvideo.measure  # noqa: E402
from brisque import BRISQUE  # noqa: E402


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("material", type=Path)
    p.add_argument("--samples", type=int, default=10**9, help="at most so many, evenly chosen")
    args = p.parse_args()
    lines = (args.material / "material.jsonl").read_text().splitlines()
    held = [s for s in map(json.loads, lines) if zlib.crc32(s["group"].encode()) % HELD_OUT == 0
            and min(s["w"], s["h"]) > SMALLEST]
    held = held[:: max(1, len(held) // args.samples)]
    brisque = BRISQUE(url=False)
    want, got = [], defaultdict(list)
    for i, sample in enumerate(held):
        h, w = sample["h"], sample["w"]
        flat = np.memmap(args.material / f"{sample['number']:05}.u8", np.uint8, "r")
        luma = flat.reshape(-1, h * w * 3 // 2)[list(FRAMES), : h * w].reshape(-1, h, w, 1)
        want.append(np.mean(sample["vmaf"][SETTLED + 1 :]))
        got["NIQE"].append(-np.mean(skvideo.measure.niqe(luma)))
        pictures = [np.repeat(picture, 3, -1) for picture in luma]
        got["BRISQUE"].append(-np.mean([brisque.score(img=picture) for picture in pictures]))
        print(f"\r{i + 1} of {len(held)}", end="", flush=True)
    contents = defaultdict(list)
    for i, sample in enumerate(held):
        contents[sample["name"].rsplit("_", 1)[0]].append(i)
    print("\n| | over all | within a content |\n|---|---:|---:|")
    for name, scores in got.items():
        scores, wanted = np.nan_to_num(np.array(scores)), np.array(want)
        within = [spearmanr(wanted[k], scores[k])[0] for k in contents.values()
                  if len(k) >= LEAST_OF_A_CONTENT]
        overall = spearmanr(wanted, scores)[0]
        print(f"| {name} | {overall:.2f} | {np.nanmean(within):.2f} |")


if __name__ == "__main__":
    main()

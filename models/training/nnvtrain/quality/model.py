"""The network that judges decoded video without its original.

Of each frame it sees patches of luma, and the difference of each from the frame before. A small
CNN makes features of each patch, their mean and spread over the patches go into a GRU, and what it
remembers gives VMAF, SSIMULACRA2 and shares of cause.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .material import CAUSES

PATCH = 64
# Luma and its change enter as (y - 128) / 64 and change / 16, in 8-bit code values.
LUMA_SCALE, CHANGE_SCALE = 64.0, 16.0
EPSILON = 1e-3  # below the logarithm of a variance
LOG_SCALE = 0.25  # of that logarithm
# The first kernels begin as so many of a DCT's, of luma and of its change: what coding, blur and
# noise do shows in their variances from the first step on.
OF_LUMA, KERNEL = 20, 8


@dataclass
class Config:
    channels: tuple = (32, 48, 64)
    features: int = 64
    memory: int = 64


class QualityNet(nn.Module):
    """patches [B,T,P,2,64,64], memory [B,M] or None -> vmaf [B,T] and ssimulacra2 [B,T], both in
    hundredths, causes [B,T,4] as logits, memory [B,M].
    """

    def __init__(self, config: Config | None = None):
        super().__init__()
        c = self.config = config or Config()
        sizes = (2, *c.channels)
        # The first looks at squares as large as most codecs' blocks, on a grid of half of that:
        # a third of the work of 3x3 kernels at full size.
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, *((8, 4, 2) if i == 0 else (3, 2, 1)))
            for i, (a, b) in enumerate(zip(sizes, sizes[1:])))
        self.start()
        self.patch = nn.Linear(2 * sum(c.channels), c.features)
        self.gru = nn.GRU(2 * c.features, c.memory, batch_first=True)
        self.scores = nn.Linear(c.memory + 2 * c.features, 2)
        self.causes = nn.Linear(c.memory + 2 * c.features, len(CAUSES))

    @torch.no_grad()
    def start(self):
        """The first kernels: a DCT's, the low frequencies first, without the mean."""
        n = torch.arange(KERNEL)
        basis = torch.cos(torch.pi / KERNEL * (n[None] + 0.5) * n[:, None]) * (2 / KERNEL) ** 0.5
        order = sorted(((u, v) for u in range(KERNEL) for v in range(KERNEL) if u + v),
                       key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
        first = self.convs[0].weight.zero_()
        self.convs[0].bias.zero_()
        of_change = len(first) - OF_LUMA
        for channel, at, count in ((0, 0, OF_LUMA), (1, OF_LUMA, of_change)):
            # From the lowest to the highest, evenly.
            picked = [order[i * (len(order) - 1) // max(1, count - 1)] for i in range(count)]
            for i, (u, v) in enumerate(picked):
                first[at + i, channel] = torch.outer(basis[u], basis[v])

    def of_patches(self, x):
        """[N,2,64,64] -> [N,features]: mean and spread of what each convolution gives."""
        means, spreads = [], []
        for conv in self.convs:
            x = conv(x)
            mean = x.mean((2, 3))
            spread = ((x - mean[:, :, None, None]) ** 2).mean((2, 3))
            x = F.relu(x)
            means.append(mean)
            spreads.append(LOG_SCALE * torch.log(spread + EPSILON))
        return F.relu(self.patch(torch.cat(means + spreads, 1)))

    def of_frames(self, patches):
        """[B,T,P,2,64,64] -> [B,T,2*features]: mean and spread over the patches."""
        b, t, p = patches.shape[:3]
        f = self.of_patches(patches.flatten(0, 2)).view(b, t, p, -1)
        mean = f.mean(2)
        spread = ((f - mean[:, :, None]) ** 2).mean(2)
        return torch.cat([mean, LOG_SCALE * torch.log(spread + EPSILON)], -1)

    def heads(self, seen):
        scores = self.scores(seen)
        return torch.sigmoid(scores[..., 0]), scores[..., 1], self.causes(seen)

    def forward(self, patches, memory=None):
        frames = self.of_frames(patches)
        out, last = self.gru(frames, None if memory is None else memory[None])
        return *self.heads(torch.cat([out, frames], -1)), last[0]

    def parameters_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def save(net: QualityNet, path, **more) -> None:
    torch.save({"config": asdict(net.config), "model": net.state_dict(), **more}, path)


def load(path) -> tuple[QualityNet, dict]:
    state = torch.load(path, map_location="cpu", weights_only=False)
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in state["config"].items()}
    net = QualityNet(Config(**config))
    net.load_state_dict({k: v.float() for k, v in state["model"].items()})
    return net, state


def grid(h: int, w: int, most: int = 12) -> list:
    """Corners (top, left) of the patches that are looked at: evenly over the picture, as many as
    fit side by side, at most `most`. crates/nnv-quality looks at the same ones.
    """
    rows, columns = max(1, h // PATCH), max(1, w // PATCH)
    while rows * columns > most:
        if rows >= columns and rows > 1:
            rows -= 1
        else:
            columns -= 1

    def places(count: int, size: int) -> list:
        free = max(0, size - PATCH)
        return [free // 2] if count == 1 else [i * free // (count - 1) for i in range(count)]

    return [(y, x) for y in places(rows, h) for x in places(columns, w)]


def cut(luma: np.ndarray, places) -> np.ndarray:
    """u8 luma [T,h,w], T at least 2 -> float32 [T-1,P,2,64,64]: every frame but the first, beside
    the one before. A picture smaller than a patch repeats its edge.
    """
    h, w = luma.shape[1:]
    if h < PATCH or w < PATCH:
        luma = np.pad(luma, ((0, 0), (0, max(0, PATCH - h)), (0, max(0, PATCH - w))), "edge")
    parts = np.stack([luma[:, y : y + PATCH, x : x + PATCH] for y, x in places], 1)
    parts = parts.astype(np.float32)
    now = (parts[1:] - 128) / LUMA_SCALE
    change = (parts[1:] - parts[:-1]) / CHANGE_SCALE
    return np.stack([now, change], 2)

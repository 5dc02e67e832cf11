"""The network that judges decoded video without its original.

Of each frame it sees patches of luma, and the difference of each from the frame before. Kernels
that begin as a DCT's look at them at full size, at a half and at a quarter. The logarithm of what
each answers goes on, place by place: coding leaves many answers near zero, and how near tells how
coarsely it rounded. Convolutions follow; mean and spread of all that over a patch, then over the
patches, go into a GRU, and what it remembers gives VMAF, SSIMULACRA2 and shares of cause.
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
KERNEL = 8
STRIDES = (4, 4, 2)  # of the first kernels, at full size, half and quarter
# Below the logarithm of a squared answer, in squared code values: half of one, as rounding to code
# values leaves about that much anyway.
NOISE = 0.25
LOG_SCALE = 0.25  # of that logarithm
EPSILON = 1e-4  # below the root of a variance


@dataclass
class Config:
    luma: int = 40  # first kernels for luma
    change: int = 20  # and for its change
    body: int = 56  # channels of the convolutions after them
    layers: int = 2
    features: int = 80
    memory: int = 64
    dropout: float = 0.03


class QualityNet(nn.Module):
    """patches [B,T,P,2,64,64], memory [B,M] or None -> vmaf [B,T] and ssimulacra2 [B,T], both in
    hundredths, causes [B,T,4] as logits, memory [B,M].
    """

    def __init__(self, config: Config | None = None):
        super().__init__()
        c = self.config = config or Config()
        wide = c.luma + c.change
        self.first = nn.ModuleList(
            nn.Conv2d(2, wide, KERNEL, stride, bias=False) for stride in STRIDES)
        self.start()
        self.body = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(c.body if i else wide, c.body, 3, 1, 1)
                          for i in range(c.layers))
            for _ in STRIDES)
        self.patch = nn.Linear(len(STRIDES) * 2 * (wide + c.body), c.features)
        self.dropout = nn.Dropout(c.dropout)
        self.gru = nn.GRU(2 * c.features, c.memory, batch_first=True)
        self.scores = nn.Linear(c.memory + 2 * c.features, 2)
        self.causes = nn.Linear(c.memory + 2 * c.features, len(CAUSES))

    @torch.no_grad()
    def start(self):
        """The first kernels: a DCT's without the mean, evenly from low to high frequencies."""
        n = torch.arange(KERNEL)
        basis = torch.cos(torch.pi / KERNEL * (n[None] + 0.5) * n[:, None]) * (2 / KERNEL) ** 0.5
        order = sorted(((u, v) for u in range(KERNEL) for v in range(KERNEL) if u + v),
                       key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
        c = self.config
        for first in self.first:
            first.weight.zero_()
            parts = ((0, 0, c.luma, LUMA_SCALE), (1, c.luma, c.change, CHANGE_SCALE))
            for channel, at, count, scale in parts:
                picked = [order[i * (len(order) - 1) // max(1, count - 1)] for i in range(count)]
                for i, (u, v) in enumerate(picked):
                    first.weight[at + i, channel] = scale * torch.outer(basis[u], basis[v])

    def of_patches(self, x):
        """[N,2,64,64] -> [N,features]."""
        seen = []
        for i, (first, body) in enumerate(zip(self.first, self.body)):
            if i:
                x = F.avg_pool2d(x, 2)
            answers = first(x).float()
            y = LOG_SCALE * torch.log(answers * answers + NOISE)
            seen.extend(mean_and_spread(y, (2, 3)))
            for conv in body:
                y = F.relu(conv(y))
            seen.extend(mean_and_spread(y.float(), (2, 3)))
        return F.relu(self.patch(self.dropout(torch.cat(seen, 1))))

    def of_frames(self, patches):
        """[B,T,P,2,64,64] -> [B,T,2*features]: mean and spread over the patches."""
        b, t, p = patches.shape[:3]
        f = self.of_patches(patches.flatten(0, 2)).view(b, t, p, -1)
        return self.dropout(torch.cat(mean_and_spread(f, 2), -1))

    def heads(self, seen):
        scores = self.scores(seen)
        return torch.sigmoid(scores[..., 0]), scores[..., 1], self.causes(seen)

    def forward(self, patches, memory=None):
        frames = self.of_frames(patches)
        out, last = self.gru(frames, None if memory is None else memory[None])
        return *self.heads(torch.cat([out, frames], -1)), last[0]

    def parameters_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def mean_and_spread(x, axes):
    """Mean and standard deviation along `axes`, which go."""
    mean = x.mean(axes, keepdim=True)
    spread = ((x - mean) ** 2).mean(axes)
    return mean.view_as(spread), (spread + EPSILON).sqrt()


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

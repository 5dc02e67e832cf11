"""The networks: plain 3x3 convolutions with ReLU, a depth-to-space tail and a bicubic skip.

They work at the input's size, or on a picture folded by space-to-depth, which sees `fold` times as
far at the same cost.

All arithmetic happens in one kind of layer, 3x3 convolutions of equal width, which runtimes run
best. Body kernels are trained as a difference from the identity: a residual path that costs nothing
once the 1 stands in the middle of the kernel. Branches beside them (ECBSR and its kind) were tried
and left out: docs/decisions/054-plain-kernels.md.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ..ops import _ClampRound as ClampRound, round_ste
from .resample import up_kernel

# u8 x s8 products are added in pairs with 16-bit saturation on CPUs without VNNI: 2 * 255 * 63
# stays below, and so does 255 * 128, to which two that make a pair may be rounded.
WEIGHT_MAX, WEIGHT_PAIR = 63, 127
LEAST_STEP = 1e-8  # of weights, where all of an output's are zero
NAMES = {
    "fast": dict(width=16, depth=6, centred=True),
    "balanced": dict(width=32, depth=12, centred=True),
    "quality": dict(width=64, depth=15, centred=True),
    "repair": dict(width=32, depth=12, shrink=0.25, centred=True),
    "deblock": dict(width=32, depth=12, shrink=0.25, centred=True, rated=True),
}

# How a quantizer is told to a rated network: its distance from the first, in units of the second,
# no farther out than the last two. Six of H.264 double the step.
RATING_MIDDLE, RATING_UNIT, RATING_RANGE = 32.0, 6.0, (14.0, 50.0)
EXACT, LIKELY, UNKNOWN = (
    1.0,
    0.5,
    0.0,
)  # how sure it is: read from the stream, or thought from the bit rate
RATING_HIDDEN = 8
GAIN_RANGE = (-4.0, 1.0)  # logarithm of the factor


def rating(quantizer: torch.Tensor, sure: torch.Tensor | None = None) -> torch.Tensor:
    """What a rated network is told of pictures with such a `quantizer` (of H.264), of each sample
    [n,h,w] or of all [n]: [n,2,h,w] or [n,2,1,1]; `EXACT` without `sure` [n].
    """
    quantizer = quantizer.reshape(len(quantizer), *(quantizer.shape[1:] or (1, 1)))
    sure = (
        torch.full_like(quantizer, EXACT)
        if sure is None
        else sure.to(quantizer)[:, None, None].expand_as(quantizer)
    )
    return torch.stack(
        [sure, sure * (quantizer.clamp(*RATING_RANGE) - RATING_MIDDLE) / RATING_UNIT], 1
    )


@dataclass(frozen=True)
class SrConfig:
    """`scale` 1 to 4; `width` channels; `depth` convolutions between head and tail; `int8` rounds
    as
    the 8-bit graph does.

    `fold`: squares of so many samples are one position with as many channels; sides of the input
    are multiples of it. `shrink`: by so many code values the residual is drawn to zero, so that
    doubt changes nothing. `centred`: the head sees differences alone: the brightness that all
    features otherwise share moves them all at once in a step of training, and most of them for ever
    below zero (docs/decisions/055-dead-channels.md). `copies`: an 8-bit tail gives each output so
    often, shifted by parts of a step; their mean is rounded to such a part. `paired`: 8-bit kernels
    are rounded in steps of which two weights whose products are added as a pair have at most
    `WEIGHT_PAIR` together, instead of `WEIGHT_MAX` each. The tap of the identity is about twice as
    large as any other and its neighbours are small, so steps are nearly halved. `rated`: a second
    input says how coarsely each sample was quantized (`rating`), which no network can tell from the
    picture (docs/decisions/066-picture-does-not-tell.md): it is heard by the head, as planes beside
    the picture (K. Zhang et al., FFDNet, arXiv 1710.04026), and two small layers make of it a
    factor for the residual.
    """

    scale: int = 2
    width: int = 16
    depth: int = 6
    int8: bool = False
    fold: int = 1
    shrink: float = 0.0
    centred: bool = False
    copies: int = 1
    rated: bool = False
    paired: bool = False

    def __post_init__(self):
        if self.scale not in (1, 2, 3, 4):
            raise ValueError(f"scale {self.scale} is not 1, 2, 3 or 4")
        if self.fold not in (1, 2, 4):
            raise ValueError(f"fold {self.fold} is not 1, 2 or 4")
        if self.rated and self.fold > 1:
            raise ValueError("what is told of samples is not folded")
        if self.copies < 1 or self.copies > 1 and not self.int8:
            raise ValueError("copies of outputs are for 8-bit networks")

    def dict(self):
        return asdict(self)

    @property
    def radius(self) -> int:
        """Input pixels that an output pixel, or the square that it lies in, sees on each side."""
        return (self.depth + 2) * self.fold


class Conv(nn.Module):
    """A 3x3 convolution; where input and output have the same width, `plain` is its difference from
    the identity. `centred`: kernels sum to zero, so that brightness does not pass.
    """

    def __init__(self, cin: int, cout: int, gain: float, centred: bool = False):
        super().__init__()
        self.centred = centred
        self.plain = nn.Parameter(torch.randn(cout, cin, 3, 3) * gain * (9 * cin) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(cout))
        identity = torch.zeros(cout, cin, 3, 3)
        if cin == cout:
            identity[range(cin), range(cin), 1, 1] = 1
        self.register_buffer("identity", identity, persistent=False)

    def kernel(self) -> torch.Tensor:
        w = self.plain + self.identity
        if self.centred:
            w = w - w.mean((1, 2, 3), keepdim=True)
        return w.contiguous(memory_format=torch.channels_last)


def weight_steps(w, paired: bool):
    """[outputs]: the step of each output's s8 weights [outputs,inputs,3,3]."""
    a = w.detach().abs()
    if not paired:
        return (a.amax((1, 2, 3)) / WEIGHT_MAX).clamp_min(LEAST_STEP)
    # The two orders in which runtimes lay out a kernel: inputs next to each other, or taps.
    orders = (a.permute(0, 2, 3, 1).flatten(1), a.flatten(1))
    pairs = [F.pad(k, (0, k.shape[1] % 2)).unflatten(1, (-1, 2)).sum(2).amax(1) for k in orders]
    return (torch.maximum(*pairs) / WEIGHT_PAIR).clamp_min(LEAST_STEP)


def fake_layer(w, b, step, paired: bool = False):
    """Rounds a kernel to s8, with a step for each output channel, and the bias to the unit of the
    sums
    (that step times the `step` of the input); gradients pass.
    """
    scale = weight_steps(w, paired)[:, None, None, None]
    unit = scale.flatten() * step.detach()
    return round_ste(w / scale) * scale, round_ste(b / unit) * unit


class Rounding(nn.Module):
    """Rounds a tensor to 8 bits, `low` to `high` steps. The step is measured once; training adapts
    the weights to it.
    """

    def __init__(self, low: int, high: int):
        super().__init__()
        self.low, self.high = low, high
        self.register_buffer("log_step", torch.tensor(math.log(1 / 255)))

    def step(self):
        return self.log_step.exp()

    def forward(self, x):
        step = self.step()
        if torch.is_grad_enabled():
            # One pass instead of six.
            return ClampRound.apply(
                x, float(self.low * step), float(self.high * step), float(1 / step), False
            )
        return torch.round((x.float() / step).clamp(self.low, self.high)) * step

    @torch.no_grad()
    def calibrate(self, x, least: float = 0.0, share: float = 1e-4, more: float = 1.1):
        """Covers all but a `share` of the values, and `more` times as far, because of a few crops
        only part of what comes is seen; but `least` in any case.
        """
        values = x.float().abs().flatten()
        peak = values.kthvalue(max(1, int(values.numel() * (1 - share)))).values
        self.log_step.copy_((more * peak).clamp_min(least).div(self.high).clamp_min(1e-6).log())


class SrNet(nn.Module):
    """x [N,1,H,W], limited-range luma / 255 -> [N,1,scale*H,scale*W]; the skip is inside, nothing
    is clipped.
    """

    def __init__(self, cfg: SrConfig):
        super().__init__()
        self.cfg = cfg
        self.head = Conv(cfg.fold**2, cfg.width, 1.4, cfg.centred)
        self.body = nn.ModuleList(Conv(cfg.width, cfg.width, 0.3) for _ in range(cfg.depth))
        self.tail = Conv(cfg.width, (cfg.fold * cfg.scale) ** 2, 0.02)
        self.acts = (
            nn.ModuleList(Rounding(0, 255) for _ in range(cfg.depth + 1)) if cfg.int8 else None
        )
        self.residual = Rounding(-127, 127) if cfg.int8 else None
        if cfg.rated:
            # At first they change nothing, so that a network which hears nothing may go on as one
            # that does.
            self.heard = nn.Parameter(torch.zeros(cfg.width, 2))
            self.gain = nn.ModuleList((nn.Linear(2, RATING_HIDDEN), nn.Linear(RATING_HIDDEN, 1)))
            nn.init.zeros_(self.gain[1].weight)
            nn.init.zeros_(self.gain[1].bias)
        self.register_buffer("skip", up_kernel(cfg.scale), persistent=False)

    def layers(self):
        """(kernel, bias) of head, body and tail, as deployed but for the rounding; the head sees x
        - 1/2.
        """
        layers = [(c.kernel(), c.bias) for c in (self.head, *self.body, self.tail)]
        copies = self.cfg.copies
        if copies > 1:
            w, b = layers[-1]
            shifts = (
                (torch.arange(copies, device=b.device) - (copies - 1) / 2)
                / copies
                * self.residual.step()
            )
            layers[-1] = w.repeat(copies, 1, 1, 1), (shifts[:, None] + b).flatten()
        return layers

    def forward(self, x, told=None, calibrate: bool = False):
        """`told`: of `rating`, for rated networks; nothing is known without it."""
        if self.cfg.rated and told is None:
            told = x.new_zeros(len(x), 2, 1, 1)
        layers, int8 = self.layers(), self.cfg.int8
        # Half grey in place of black beyond the border disturbs the least where a crop ends.
        h = F.pixel_unshuffle(x - 0.5, self.cfg.fold)
        for i, (w, b) in enumerate(layers):
            if int8 and i:
                w, b = fake_layer(w, b, self.acts[i - 1].step(), self.cfg.paired)
            h = F.conv2d(h, w, b, padding=1)
            if self.cfg.rated and i == 0:
                h = h + F.conv2d(told, self.heard[..., None, None])
            last = i == len(layers) - 1
            if int8:
                # To 0..255 steps: the ReLU is in the rounding.
                rounding = self.residual if last else self.acts[i]
                if calibrate:
                    # A fresh tail says nothing yet of the residual's range. Features have long
                    # tails, and cutting them off costs more than coarser steps.
                    rounding.calibrate(h, self.residual_least()) if last else rounding.calibrate(
                        F.relu(h), share=1e-5, more=1.25
                    )
                h = rounding(h)
            elif not last:
                h = F.relu(h)
        with torch.autocast(x.device.type, enabled=False):
            if self.cfg.copies > 1:
                h = h.float().unflatten(1, (self.cfg.copies, -1)).mean(1)
            if self.cfg.rated:
                one, two = (
                    lambda x, layer=layer: F.conv2d(x, layer.weight[..., None, None], layer.bias)
                    for layer in self.gain
                )
                h = h.float() * two(F.relu(one(told.float()))).clamp(*GAIN_RANGE).exp()
            if self.cfg.shrink:
                h = F.softshrink(h.float(), self.cfg.shrink / 255)
            plain = F.conv2d(x.float(), self.skip, padding=self.skip.shape[-1] // 2)
            return F.pixel_shuffle(h.float(), self.cfg.fold * self.cfg.scale) + F.pixel_shuffle(
                plain, self.cfg.scale
            )

    @torch.no_grad()
    def alive(self, x) -> torch.Tensor:
        """Which channels of each layer [depth + 1, width] are not zero at more than one in a
        thousand samples of `x`: the others have stopped learning.
        """
        h, rows = F.pixel_unshuffle(x - 0.5, self.cfg.fold), []
        for w, b in self.layers()[:-1]:
            h = F.relu(F.conv2d(h, w, b, padding=1))
            rows.append((h > 0).float().mean((0, 2, 3)) > 0.001)
        return torch.stack(rows)

    def residual_least(self) -> float:
        """Repairing moves a sample by less than enlarging does, and its good input deserves fine
        steps.
        """
        return (32 if self.cfg.scale == 1 else 64) / 255

    def parameters_deployed(self) -> int:
        told = (
            sum(p.numel() for p in (self.heard, *self.gain.parameters())) if self.cfg.rated else 0
        )
        return told + sum(
            c.kernel().numel() + c.bias.numel() for c in (self.head, *self.body, self.tail)
        )

    def macs_per_pixel(self) -> int:
        """Multiplications per input pixel, the skip's included."""
        return sum(w.numel() for w, _ in self.layers()) // self.cfg.fold**2 + self.skip.numel()


def load_sr(path, device="cpu", which="ema") -> SrNet:
    """The network of a checkpoint, by default with its averaged weights."""
    c = torch.load(path, map_location=device, weights_only=True)
    cfg = dict(c["cfg"])
    if cfg.pop("gate", 0):
        raise ValueError(f"{path}: its network has a gate, which this program no longer knows")
    net = SrNet(SrConfig(**cfg)).to(device)
    net.load_state_dict(c[which])
    return net

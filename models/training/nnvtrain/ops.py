"""The operators that a normative network may use, with two back ends.

Every network of the codec is written once, as a function of an ``ops`` object. :class:`TorchOps`
computes it in PyTorch for training; the exporter's back end emits the same operators as QDQ ONNX.
What is exact in one is exact in the other, because there is no second definition.

Numbers: a *quantised* tensor holds integers times ``2**-k``: ``u8`` 0..255 (this is also the
ReLU), ``s8`` -128..127. A *wide* tensor holds integers times ``2**-k`` that float32 carries
exactly.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

from .fused import usable

WEIGHT_MAX = 63


def _dense(x):
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


class _ClampRound(torch.autograd.Function):
    """Clamp to [lo, hi] and, when ``scale`` is not zero, round to multiples of 1/scale.

    The gradient passes inside the range. With ``leak`` also outside, when it leads back in.
    """

    @staticmethod
    def forward(ctx, x, lo, hi, scale, leak):
        ctx.save_for_backward(x)
        ctx.range = (lo, hi, leak)
        fused = usable(x)
        if fused and _dense(x):
            return fused.clamp_round(x, lo, hi, scale)
        y = x.clamp(lo, hi)
        if scale:
            y = torch.round(y * scale) / scale
        return y

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        lo, hi, leak = ctx.range
        fused = usable(x)
        if fused and _dense(x):
            return fused.clamp_back(g, x, lo, hi, leak), None, None, None, None
        inside = torch.ops.aten.hardtanh_backward(g, x, lo, hi)
        if leak:
            back = ((x >= hi) & (g > 0)) | ((x <= lo) & (g < 0))
            inside = torch.where(back, g, inside)
        return inside, None, None, None, None


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, g):
        return g


def round_ste(x):
    """Half-to-even rounding with the gradient of the identity."""
    return _Round.apply(x)


def pow2_scale(weight: torch.Tensor, levels: int = WEIGHT_MAX) -> torch.Tensor:
    """Smallest powers of two, [O,1,1,1], that bring each channel of ``weight`` within ±levels."""
    peak = weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True).float().clamp_min(2.0**-20)
    exponent = torch.ceil(torch.log2(peak / levels) - 1e-6)
    return torch.exp2(exponent)


class Conv(nn.Conv2d):
    """A convolution of the normative path: 1×1, or depthwise 3×3 with zero padding.

    ``planes=2`` keeps weights as the sum of two 7-bit planes, the second 2**-6 finer.
    """

    def __init__(self, cin, cout, kernel=1, depthwise=False, stride=1, bias=True, planes=1,
                 zero=False, gain=1.0):
        super().__init__(cin, cout, kernel, stride=stride, padding=kernel // 2,
                         groups=cin if depthwise else 1, bias=bias)
        self.planes = planes
        fan_in = self.weight[0].numel()
        if zero:
            nn.init.zeros_(self.weight)
        else:
            nn.init.normal_(self.weight, std=gain * (2.0 / fan_in) ** 0.5)
        if bias:
            nn.init.zeros_(self.bias)

    def planes_of(self, weight):
        """Integer planes and their scales: [(ints, scale)], largest first."""
        out, rest = [], weight
        scale = pow2_scale(weight)
        for _ in range(self.planes):
            ints = torch.round(rest / scale).clamp(-WEIGHT_MAX, WEIGHT_MAX)
            out.append((ints, scale))
            rest = rest - ints * scale
            scale = scale * 2.0**-6
        return out

    def quantised_weight(self):
        w = self.weight.float()
        q = sum(ints * scale for ints, scale in self.planes_of(w.detach()))
        return w + (q - w).detach()


class TorchOps:
    """PyTorch back end. ``quant=False``: ranges only (clamps); ``quant=True``: as deployed.

    ``amp`` is the autocast dtype of quantised convolutions, or None for float32.
    """

    def __init__(self, quant=False, amp=None):
        self.quant, self.amp = quant, amp

    def conv(self, layer: Conv, x, wide=False):
        """Convolution of a quantised tensor. ``wide``: of a wide tensor, always in float32."""
        w = layer.quantised_weight() if self.quant else layer.weight
        b = layer.bias
        if self.amp is not None and not wide:
            x, w = x.to(self.amp), w.to(self.amp)
            b = None if b is None else b.to(self.amp)
        elif x.dtype != torch.float32:
            x = x.float()
        with torch.autocast(x.device.type, enabled=False):
            if layer.kernel_size == (1, 1) and x.dtype == torch.float32 and x.device.type == "cpu":
                # PyTorch's own way for few pictures in one thread leaves the channels-last layout,
                # and all that follows pays for copies.
                rows = x.permute(0, 2, 3, 1).contiguous()
                return F.linear(rows, w.flatten(1), b).permute(0, 3, 1, 2)
            return F.conv2d(x, w, b, layer.stride, layer.padding, 1, layer.groups)

    def u8(self, x, k, leak=False):
        s = 2.0**k
        return _ClampRound.apply(x, 0.0, 255 / s, s if self.quant else 0.0, leak)

    def s8(self, x, k):
        s = 2.0**k
        return _ClampRound.apply(x, -128 / s, 127 / s, s if self.quant else 0.0, False)

    def clip(self, x, lo, hi):
        return _ClampRound.apply(x, float(lo), float(hi), 0.0, True)

    def round(self, x, k=0):
        """Round a wide tensor to multiples of 2**-k (always, the picture domain is integer)."""
        if not self.quant:
            return x
        s = 2.0**k
        return round_ste(x * s) / s

    def add(self, a, b):
        return a + b

    def sub(self, a, b):
        return a - b

    def scale(self, x, factor):
        """Multiplication by a power of two: a float, or a tensor [1,C,1,1] of powers of two."""
        return x * factor

    def mask(self, x, m):
        """Multiplication by a 0/1 tensor [1,1,H,W]."""
        return x * m

    def cat(self, xs):
        dtype = min((x.dtype for x in xs), key=lambda d: torch.finfo(d).bits)
        return torch.cat([x.to(dtype) for x in xs], dim=1)

    def s2d(self, x, n):
        return F.pixel_unshuffle(x, n)

    def d2s(self, x, n):
        return F.pixel_shuffle(x, n)

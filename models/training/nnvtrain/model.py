"""The networks of the codec.

Pictures: planar YUV 4:2:0 in 8-bit units, centred (sample - 128), packed to 96 channels at 1/8
resolution (:func:`pack`). Latents: 384 channels at 1/16, the coefficients of an orthonormal block
transform at the start of training (16×16 DCT of luma, 8×8 DCT of chroma), in 8-bit units.
Hyper-latents: ``HYPER`` channels at 1/64.

Key frames: hyper-prior (Ballé et al. 2018, arXiv:1802.01436) for all scales, means refined in two
checkerboard steps (He et al. 2021, arXiv:2103.15306), one model for all rates by per-quantizer
vectors (DCVC-FM, arXiv:2402.17414). Inter frames code the difference from the motion-compensated
prediction in the same way, the prediction being context for the prior and for the synthesis
(conditional coding).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, asdict

import torch
import torch.nn as nn
import torch.nn.functional as F

from .fused import usable
from .ops import Conv, TorchOps, round_ste

LATENT = 384
PACKED = 96
QUANTIZERS = 64
COEF_MAX = 2047
# Weight of a luma plane's mean squared error. The field's figure of merit is (6Y+U+V)/8 of *PSNRs*:
# a decibel of chroma counts 1/6 of one of luma, whatever the error behind it. Where a bit buys
# equally many such decibels in every plane, chroma's squared error weighs so many times luma's at
# these quantizers: little where chroma costs many bits, much where it costs few
# (docs/decisions/012-chroma-weight.md).
LUMA = 0.75
CHROMA_KEY = ((0, 0.28), (8, 0.32), (24, 0.7), (40, 1.1), (63, 1.5))
CHROMA_INTER = ((0, 0.3), (12, 0.36), (28, 0.65), (63, 0.65))
# Scale table: sigma_i = SCALE_MIN * 2**(i / SCALE_PER_OCTAVE), in units of the step.
SCALE_MIN, SCALE_PER_OCTAVE, SCALES = 0.1, 6, 64
# Resolution of activations: u8 in [0, 16), s8 in [-8, 8).
ACT_K = 4


def base_step(q):
    """Quantisation step of quantizer q (0..63), in 8-bit units of an orthonormal transform."""
    return 3.0 * 2.0 ** (q / 12.0)


def lagrangian(q):
    """Weight of the weighted mean squared error (8-bit units) against bits per pixel at quantizer
    q.
    """
    return 10.0 / base_step(q) ** 2


def chroma_weight(q, inter):
    """Weight of the squared error of a chroma plane against luma's at quantizers ``q`` (tensor),
    linear between the points above.
    """
    points, q = CHROMA_INTER if inter else CHROMA_KEY, q.float()
    out = torch.full_like(q, points[0][1])
    for (a, x), (b, y) in zip(points, points[1:]):
        out = out + ((q - a) / (b - a)).clamp(0, 1) * (y - x)
    return out


@dataclass
class Config:
    width: int = 96  # channels at 1/8
    blocks: int = 6  # synthesis blocks at 1/8
    ffn: int = 2  # expansion of the point-wise half of a block
    prior_width: int = 128  # channels at 1/16
    prior_blocks: int = 3
    enc_blocks: int = 3
    hyper: int = 32  # channels of z
    means_blocks: int = 0  # blocks of the context network of key frames' second means, at 1/16

    def dict(self):
        return asdict(self)


# ---------------------------------------------------------------- packing


def pack(y, u, v):
    """[B,1,H,W] and two [B,1,H/2,W/2] to [B,96,H/8,W/8]."""
    return torch.cat([F.pixel_unshuffle(y, 8), F.pixel_unshuffle(u, 4), F.pixel_unshuffle(v, 4)], 1)


def unpack(x):
    return (
        F.pixel_shuffle(x[:, :64], 8),
        F.pixel_shuffle(x[:, 64:80], 4),
        F.pixel_shuffle(x[:, 80:], 4),
    )


def dct_matrix(n):
    k = torch.arange(n, dtype=torch.float64)
    m = torch.cos(math.pi / n * (k[None, :] + 0.5) * k[:, None]) * math.sqrt(2.0 / n)
    m[0] /= math.sqrt(2.0)
    return m


def block_transform():
    """The 384×384 orthonormal matrix A of the start: rows are latents, columns
    pixel_unshuffle(packed,
    2).

    DCT of 16×16 luma and 8×8 chroma samples. Latent channel = plane's base + (u // 2 * n + v // 2)
    * 4 + u % 2 * 2 + v % 2 for frequency (u, v), n = 8 for luma, 4 for chroma: groups of four
    neighbouring frequencies.
    """
    a = torch.zeros(LATENT, LATENT, dtype=torch.float64)
    for n, base in ((8, 0), (4, 256), (4, 320)):
        dct = torch.kron(dct_matrix(2 * n), dct_matrix(2 * n))
        i, j = torch.arange(2 * n).repeat_interleave(2 * n), torch.arange(2 * n).repeat(2 * n)
        rows = base + (i // 2 * n + j // 2) * 4 + i % 2 * 2 + j % 2
        # Columns: sample (i % n, j % n) of the packed picture, at the place (i // n, j // n) of its
        # 2×2.
        columns = base + (i % n * n + j % n) * 4 + i // n * 2 + j // n
        a[rows[:, None], columns[None]] = dct
    return a.float()


def frequencies():
    """Radial frequency of each latent (0..~1.4), for coding order and initial statistics."""

    def plane(n):
        u, v = torch.arange(2 * n)[:, None], torch.arange(2 * n)[None, :]
        f = (u**2 + v**2).float().sqrt() / (2 * n)
        return f.view(n, 2, n, 2).permute(0, 2, 1, 3).flatten()

    return torch.cat([plane(8), plane(4) * 1.1, plane(4) * 1.1])


# ---------------------------------------------------------------- building blocks


class Block(nn.Module):
    """Residual [1×1, ReLU, depthwise 3×3, ReLU, 1×1], then residual [1×1, ReLU, 1×1].

    The residual stream is s8 and saturates: integer additions fuse, and cost a tenth of float ones.
    """

    def __init__(self, c, ffn):
        super().__init__()
        self.a = Conv(c, c)
        self.d = Conv(c, c, 3, depthwise=True)
        self.b = Conv(c, c, zero=True)
        self.e = Conv(c, c * ffn)
        self.f = Conv(c * ffn, c, zero=True)
        with torch.no_grad():
            self.d.weight.mul_(0.3)
            self.d.weight[:, :, 1, 1] += 0.7

    def run(self, ops, x, relu=False):
        """With ``relu`` the result is u8. An s8 result turned into u8 afterwards would be two
        roundings in a row, which ONNX Runtime merges into one of another scale.
        """
        t = ops.u8(ops.conv(self.a, x), ACT_K)
        t = ops.u8(ops.conv(self.d, t), ACT_K)
        x = ops.s8(ops.add(x, ops.s8(ops.conv(self.b, t), ACT_K)), ACT_K)
        t = ops.u8(ops.conv(self.e, x), ACT_K)
        return (ops.u8 if relu else ops.s8)(ops.add(x, ops.s8(ops.conv(self.f, t), ACT_K)), ACT_K)


class PerQuantizer(nn.Module):
    """A vector for each quantizer, linear between 8 learned knots."""

    def __init__(self, channels, init=None):
        super().__init__()
        self.knots = nn.Parameter(torch.zeros(8, channels) if init is None else init.repeat(8, 1))

    def table(self):
        q = torch.arange(QUANTIZERS, device=self.knots.device)
        return self.at(q)

    def at(self, q):
        x = q.to(self.knots.dtype) * (7.0 / 63.0)
        i = x.floor().clamp(0, 6).long()
        t = (x - i)[:, None]
        return self.knots[i] * (1 - t) + self.knots[i + 1] * t


def qvec_ops(ops, table_rows):
    """Rows of the per-quantizer table as the s8 tensor [N,C,1,1] that the network is fed."""
    return ops.s8(table_rows[:, :, None, None], ACT_K)


class Transform(nn.Module):
    """The linear path: analysis matrix and synthesis matrix, orthonormal at the start."""

    def __init__(self):
        super().__init__()
        a = block_transform()
        self.fwd = Conv(LATENT, LATENT, bias=False)
        self.inv = Conv(LATENT, LATENT, bias=False, planes=2)
        with torch.no_grad():
            self.fwd.weight.copy_(a[:, :, None, None])
            self.inv.weight.copy_(a.t()[:, :, None, None])

    def synth(self, ops, x):
        """Integer coefficients (wide) to a packed picture difference, rounded to 1/4 (10-bit
        samples).
        """
        return ops.d2s(ops.round(ops.conv(self.inv, x, wide=True), 2), 2)


class Prior(nn.Module):
    """Hyper-decoder: z (nearest-upsampled to 1/16), quantizer and, for inter frames, the prediction
    and the difference of both predictions, to scale indices and features for the synthesis."""

    def __init__(self, cfg: Config, inter: bool):
        super().__init__()
        c = cfg.prior_width
        self.z = Conv(cfg.hyper, c)
        self.q = Conv(cfg.width, c, gain=0.1)
        if inter:
            self.p0 = Conv(2 * PACKED, 64, gain=0.05)
            self.pd = Conv(64, 64, 3, depthwise=True)
            self.p1 = Conv(256, c, gain=0.5)
        self.blocks = nn.ModuleList(Block(c, cfg.ffn) for _ in range(cfg.prior_blocks))
        self.scales = Conv(c, LATENT, zero=True)
        with torch.no_grad():
            self.z.weight.mul_(0.5)

    def run(self, ops, z_up, qvec, qoff, p=None, d=None):
        """Returns (scale index before rounding and clipping, features u8)."""
        x = ops.s8(
            ops.add(ops.s8(ops.conv(self.z, z_up), ACT_K), ops.s8(ops.conv(self.q, qvec), ACT_K)),
            ACT_K,
        )
        if p is not None:
            t = ops.u8(ops.conv(self.p0, ops.cat([ops.s8(p, 0), ops.s8(d, 0)])), ACT_K)
            t = ops.u8(ops.conv(self.pd, t), ACT_K)
            x = ops.s8(ops.add(x, ops.s8(ops.conv(self.p1, ops.s2d(t, 2)), ACT_K)), ACT_K)
        for b in self.blocks:
            x = b.run(ops, x)
        feat = ops.u8(x, ACT_K)
        # In halves of an index; qoff takes up to 31.5 off.
        return ops.add(ops.u8(ops.conv(self.scales, feat), 1, leak=True), qoff), feat


class Means(nn.Module):
    """Means of the key-frame latents in two checkerboard steps."""

    def __init__(self, cfg: Config):
        super().__init__()
        c = cfg.prior_width
        self.first = Conv(c, LATENT, zero=True)
        self.anchors = Conv(LATENT, c, gain=0.1)
        self.spread = Conv(c, c, 3, depthwise=True)
        self.feat = Conv(c, c)
        self.blocks = nn.ModuleList(Block(c, cfg.ffn) for _ in range(cfg.means_blocks))
        self.second = Conv(c, LATENT, zero=True)
        # Powers of two that bring each latent into ±127 for the context network; set from
        # statistics.
        self.register_buffer("fit", torch.full((1, LATENT, 1, 1), 0.25))

    def mean_first(self, ops, feat):
        return ops.round(ops.conv(self.first, feat))

    def mean_second(self, ops, feat, anchors, mean_first):
        t = ops.s8(ops.scale(anchors, self.fit), 0)
        t = ops.s8(ops.conv(self.anchors, t), ACT_K)
        t = ops.s8(ops.conv(self.spread, t), ACT_K)
        t = ops.add(t, ops.s8(ops.conv(self.feat, feat), ACT_K))
        t = (ops.s8 if len(self.blocks) else ops.u8)(t, ACT_K)
        for i, b in enumerate(self.blocks):
            t = b.run(ops, t, relu=i + 1 == len(self.blocks))
        return ops.add(mean_first, ops.round(ops.conv(self.second, t)))


class Synthesis(nn.Module):
    """Latents to picture: linear path plus a refinement network at 1/8."""

    def __init__(self, cfg: Config, inter: bool):
        super().__init__()
        self.inter = inter
        c, f = cfg.width, cfg.prior_width // 4
        self.head = Conv((3 if inter else 1) * PACKED + f, c, gain=0.02)
        self.blocks = nn.ModuleList(Block(c, cfg.ffn) for _ in range(cfg.blocks))
        self.tail = Conv(c, PACKED, zero=True)

    def run(self, ops, transform, x, feat, qvec, p=None, d=None):
        """x: integer coefficients (wide). Returns the packed picture, multiples of 1/4, clipped."""
        lin = transform.synth(ops, x)
        up = ops.d2s(feat, 2)
        if self.inter:
            base = ops.add(p, lin)
            # All in one integer scale: pixels at 1, features (u8, 1/16) fit beside them as they
            # are.
            t = ops.cat([ops.s8(lin, 0), ops.s8(p, 0), ops.s8(d, 0), ops.s8(ops.scale(up, 8.0), 0)])
        else:
            base = lin
            t = ops.cat([ops.s8(lin, 0), ops.s8(ops.scale(up, 8.0), 0)])
        s = ops.s8(ops.add(ops.s8(ops.conv(self.head, t), ACT_K), qvec), ACT_K)
        for b in self.blocks:
            s = b.run(ops, s)
        fix = ops.s8(ops.conv(self.tail, s), 2)
        return ops.clip(ops.round(ops.add(base, fix), 2), -128.0, 127.75)


class Analysis(nn.Module):
    """Encoder side (not normative): picture (and predictions) to latents and hyper-latents."""

    def __init__(self, cfg: Config, inter: bool):
        super().__init__()
        self.inter = inter
        c, h = cfg.width, cfg.prior_width
        self.head = Conv((3 if inter else 1) * PACKED, c, gain=0.02)
        self.q = PerQuantizer(c)
        self.blocks = nn.ModuleList(Block(c, cfg.ffn) for _ in range(cfg.enc_blocks))
        self.tail = Conv(4 * c, LATENT, zero=True)
        self.h0 = Conv(LATENT + (h if inter else 0), h)
        self.h1 = Conv(h, h, 3, depthwise=True, stride=2)
        self.h2 = Conv(h, h)
        self.h3 = Conv(h, h, 3, depthwise=True, stride=2)
        self.h4 = Conv(h, cfg.hyper)
        self.hq = PerQuantizer(h)
        if inter:
            self.hp = Conv(4 * PACKED, h, gain=0.02)

    def latents(self, ops, transform, x, qrow, p=None, d=None):
        """``qrow``: the analysis' own per-quantizer rows [N,C,1,1]."""
        if self.inter:
            t = ops.cat([ops.sub(x, p), p, d])
            lin = ops.conv(transform.fwd, ops.s2d(ops.sub(x, p), 2), wide=True)
        else:
            t = x
            lin = ops.conv(transform.fwd, ops.s2d(x, 2), wide=True)
        s = ops.s8(ops.add(ops.clip(ops.conv(self.head, t), -8, 8), qrow), ACT_K)
        for b in self.blocks:
            s = b.run(ops, s)
        return ops.add(lin, ops.conv(self.tail, ops.s2d(s, 2)))

    def hyper(self, ops, y_fit, hrow, p=None):
        """``y_fit``: latents scaled to about ±16 (by powers of two)."""
        t = ops.clip(y_fit, -32, 32)
        if self.inter:
            t = ops.cat([t, ops.clip(ops.conv(self.hp, ops.s2d(p, 2)), 0, 16)])
        t = ops.clip(ops.add(ops.conv(self.h0, t), hrow), 0, 16)
        t = ops.clip(ops.conv(self.h2, ops.clip(ops.conv(self.h1, t), 0, 16)), 0, 16)
        return ops.conv(self.h4, ops.clip(ops.conv(self.h3, t), 0, 16))


# ---------------------------------------------------------------- rate


def laplace_bits(symbol, sigma):
    """Bits of a symbol under a zero-mean Laplace distribution of deviation sigma (steps).

    Of the mass within ±1/2 of ``symbol``, which need not be an integer.
    """
    inv_b = math.sqrt(2.0) / sigma
    v = symbol.abs()
    inside = 1.0 - 0.5 * (
        torch.exp((v - 0.5).clamp_max(0.0) * inv_b) + torch.exp(-(v + 0.5) * inv_b)
    )
    # P(v) = exp(-(v-0.5)/b) (1 - exp(-1/b)) / 2, in the log domain for large v.
    tail = -(v - 0.5) * inv_b + torch.log(-torch.expm1(-inv_b) * 0.5 + 1e-12)
    logp = torch.where(v < 0.5, torch.log(inside + 1e-12), tail)
    return -logp / math.log(2.0)


def rate_bits(symbol, value, sigma):
    """Bits of the integers ``symbol`` = round(``value``), with two gradients.

    ``sigma`` learns from the true symbols. ``value`` learns from symbols blurred by uniform noise:
    rounding itself would show no price to a value that still rounds to zero, while the distortion
    pulls it outward, and the rate would creep up (docs/decisions/014-rate-gradient.md).
    """
    hard = laplace_bits(symbol.detach(), sigma)
    soft = laplace_bits(value + torch.rand_like(value) - 0.5, sigma.detach())
    return hard + (soft - soft.detach())


def scale_of(index):
    return SCALE_MIN * torch.exp2(index / SCALE_PER_OCTAVE)


@torch.no_grad()
def neighbour_ratio(sym, sigma):
    """log2 of observed over expected magnitude of the causal neighbours of each symbol.

    The entropy coder sharpens the signalled scales with this ratio (left and upper neighbour of the
    same channel, lower frequencies at the same place); the rate of training has to know, or it
    would pay for the same knowledge twice, in z.
    """
    a, e = sym.abs(), 0.7 * sigma
    both = torch.stack([a, e])
    total = torch.full_like(both, 0.5)
    total[..., :, 1:] += both[..., :, :-1]
    total[..., 1:, :] += both[..., :-1, :]
    for k in (1, 2, 3, 4, 8, 32):
        total[:, :, k:] += both[:, :, :-k]
    return torch.log2(total[0] / total[1]).clamp(-3, 3)


def clamp_index(index):
    """Clip to the table, with a gradient that leads back in."""
    from .ops import _ClampRound

    return _ClampRound.apply(index.float(), 0.0, float(SCALES - 1), 0.0, True)


class _LatentBits(torch.autograd.Function):
    """:func:`latent_bits` in one pass (fused.cpp). Expects a loss that grows with the bits."""

    @staticmethod
    def forward(ctx, fused, sym, value, index, gain):
        last = lambda t: t.detach().float().contiguous(memory_format=torch.channels_last)
        sym, value, index = last(sym), last(value), last(index)
        bits, *grads = fused.latent_bits(
            sym,
            value,
            index,
            torch.rand_like(value),
            float(gain),
            SCALE_MIN,
            SCALE_PER_OCTAVE,
            SCALES - 1,
        )
        ctx.save_for_backward(*grads)
        return bits

    @staticmethod
    def backward(ctx, g):
        by_value, by_index, by_gain = ctx.saved_tensors
        each = g.view(-1, 1, 1, 1)
        return None, None, by_value * each, by_index * each, (by_gain * g).sum()


def latent_bits(sym, value, index, gain):
    """Bits [B] of the latents ``sym`` = round(``value``) whose signalled scale ``index`` the
    observed neighbours sharpen.
    """
    fused = usable(sym, value, index)
    if fused:
        return _LatentBits.apply(fused, sym, value, index, gain)
    sharp = clamp_index(index + gain * neighbour_ratio(sym, scale_of(index)))
    return rate_bits(sym, value, scale_of(sharp)).sum((1, 2, 3))


class FrameCodec(nn.Module):
    """One kind of frame (key or inter), trained end to end."""

    def __init__(self, cfg: Config, inter: bool):
        super().__init__()
        self.cfg, self.inter = cfg, inter
        self.transform = Transform()
        self.analysis = Analysis(cfg, inter)
        self.prior = Prior(cfg, inter)
        self.means = None if inter else Means(cfg)
        self.synthesis = Synthesis(cfg, inter)
        self.qvec = PerQuantizer(cfg.width)
        self.log_step = PerQuantizer(LATENT)
        with torch.no_grad():
            # Errors of a subsampled plane weigh four times as much per sample.
            self.log_step.knots[:, 256:] = (
                -0.5 * torch.log2(4 * chroma_weight(torch.arange(8) * 9, inter))[:, None]
            )
        self.z_log_scale = nn.Parameter(torch.zeros(cfg.hyper))
        # Scale indices per octave of neighbour_ratio.
        self.ratio_gain = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("y_fit", torch.full((1, LATENT, 1, 1), 0.25))

    @torch.no_grad()
    def init_statistics(self, sigma):
        """``sigma`` [384]: deviation of the initial latents over training data, in 8-bit units."""
        sigma = sigma.clamp_min(0.25)
        index = SCALE_PER_OCTAVE * (
            torch.log2(sigma) - math.log2(base_step(0)) - math.log2(SCALE_MIN)
        )
        self.prior.scales.bias.copy_(index - SCALE_PER_OCTAVE * 0.5)
        fit = torch.exp2(torch.floor(torch.log2(4.0 / sigma))).view(1, -1, 1, 1)
        self.y_fit.copy_(fit)
        if self.means is not None:
            self.means.fit.copy_((fit * 4).clamp_max(1.0))

    def steps(self, q):
        """Step of each latent, [B,384,1,1], 8-bit units."""
        step = base_step(q.float())[:, None] * torch.exp2(self.log_step.at(q))
        # Whole numbers, as exported: dequantised latents are integers.
        return round_ste(step).clamp_min(1.0)[:, :, None, None]

    def forward(self, ops: TorchOps, free: TorchOps, x, q, p=None, d=None, mask=None, skip=False):
        """x, p, d: packed, 8-bit units, centred (d: not centred). q: long [B].

        ``ops`` runs the normative part, ``free`` the encoder's. Returns (picture, bits_y, bits_z,
        extras); bits are per sample of the batch [B].
        """
        b, _, h8, w8 = x.shape
        step = self.steps(q)
        # In the convolutions' type: streams would else widen to float32, at twice the time (8-bit
        # values fit).
        narrow = lambda rows: rows if ops.amp is None else rows.to(ops.amp)
        qvec = narrow(qvec_ops(ops, self.qvec.at(q)))
        qoff = -0.5 * q.float().view(-1, 1, 1, 1)
        ana = self.analysis
        y = ana.latents(
            free, self.transform, x, narrow(ana.q.at(q)[:, :, None, None]), p, d
        ).float()
        z = ana.hyper(free, y * self.y_fit, ana.hq.at(q)[:, :, None, None], p).float()
        z_value = z.clamp(-127, 127)
        z = round_ste(z_value)
        z_up = F.interpolate(z, scale_factor=4, mode="nearest")[:, :, : h8 // 2, : w8 // 2]
        index, feat = self.prior.run(ops, z_up, qvec, qoff, p, d)
        index = clamp_index(index)
        if ops.quant:
            index = round_ste(index)

        def residual(r):
            """Quantise a residual: value in steps, symbols, dequantised integers."""
            value = r / step
            s = round_ste(value)
            if skip:
                s = torch.where(index < 0.5, torch.zeros_like(s), s)
            deq = s * step
            if ops.quant:
                deq = round_ste(deq)
            return value, s, deq

        if self.means is not None:
            m1 = self.means.mean_first(ops, feat).float()
            v1, s1, r1 = residual(y - m1)
            anchors = ops.mask(ops.clip(ops.add(r1, m1), -COEF_MAX, COEF_MAX), mask)
            m2 = self.means.mean_second(ops, feat, anchors, m1).float()
            v2, s2, r2 = residual(y - m2)
            value, sym = torch.where(mask > 0.5, v1, v2), torch.where(mask > 0.5, s1, s2)
            coef = ops.clip(torch.where(mask > 0.5, r1 + m1, r2 + m2), -COEF_MAX, COEF_MAX)
        else:
            value, sym, r = residual(y)
            coef = ops.clip(r, -COEF_MAX, COEF_MAX)
        pic = self.synthesis.run(ops, self.transform, coef, feat, qvec, p, d).float()
        bits_y = latent_bits(sym, value, index, self.ratio_gain)
        z_sigma = torch.exp2(self.z_log_scale).view(1, -1, 1, 1).clamp(0.2, 64.0)
        bits_z = rate_bits(z, z_value, z_sigma).sum((1, 2, 3))
        return pic, bits_y, bits_z, {"sym": sym, "index": index, "z": z}


def checkerboard(h16, w16, device=None):
    i = torch.arange(h16, device=device)[:, None] + torch.arange(w16, device=device)[None]
    return (i % 2 == 0).float()[None, None]


def plane_errors(a, b):
    """Mean squared errors of the three planes of packed pictures, [B,3]."""
    e = (a - b).float().square().mean((2, 3))
    return torch.stack([e[:, :64].mean(1), e[:, 64:80].mean(1), e[:, 80:].mean(1)], 1)


# Weight of 1 - MS-SSIM against the squared error of luma: their ratio on natural pictures, the same
# at all quantizers within 2 %.
STRUCTURE = 830.0
# Share of the squared error that stays in the visual tune: it keeps brightness and flat areas
# right, which MS-SSIM hardly sees.
PLAIN = 0.1
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(a, b):
    """MS-SSIM [B] of planes [B,1,H,W] in 0..255 (Wang, Simoncelli and Bovik 2003): 11×11 Gaussian
    windows, five scales; at least 176 samples a side.
    """
    x = torch.arange(11, device=a.device) - 5.0
    k = torch.exp(-x * x / 4.5)
    k = (k / k.sum()).view(1, 1, 1, 11).repeat(5, 1, 1, 1)
    out = 1.0
    for scale, weight in enumerate(MS_WEIGHTS):
        t = torch.cat([a, b, a * a, b * b, a * b], 1)
        t = F.conv2d(F.conv2d(t, k, groups=5), k.transpose(2, 3), groups=5)
        ma, mb, aa, bb, ab = t.split(1, 1)
        s = (2 * (ab - ma * mb) + 58.5225) / (aa - ma * ma + bb - mb * mb + 58.5225)
        if scale + 1 == len(MS_WEIGHTS):
            s = s * (2 * ma * mb + 6.5025) / (ma * ma + mb * mb + 6.5025)
        # Below zero (opposite structure) a power has no value, near it no useful gradient.
        out = out * s.mean((1, 2, 3)).clamp_min(0.05) ** weight
        if scale + 1 < len(MS_WEIGHTS):
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return out


def distortion(a, b, q, inter, visual=False):
    """Distortion of packed pictures per sample [B] at quantizers q [B], and :func:`plane_errors`.

    The weighted mean squared error; with ``visual``, most of luma's is replaced by 1 - MS-SSIM on
    its scale.
    """
    m = plane_errors(a, b)
    luma = m[:, 0]
    if visual:
        y = lambda t: F.pixel_shuffle(t[:, :64], 8).float() + 128.0
        luma = PLAIN * luma + (1 - PLAIN) * STRUCTURE * (1 - ms_ssim(y(a), y(b)))
    return LUMA * (luma + chroma_weight(q, inter) * (m[:, 1] + m[:, 2])), m

"""Ablations: ``python -m nnvtrain.ablate NAME --data FOLDER --cache FOLDER --out FOLDER``.

Each trains two arms side by side from the same start, on the same stream of random crops,
quantizers and noise, with the same processor time per arm (that of the steps; drawing crops and
evaluating do not count). The arm that is behind takes the next step, so that a busy machine slows
all alike; SIGTERM ends the race early and still prints the table. Figures are those of the moving
averages of the weights on held-out crops.

``linear``    key frames, untrained: the linear path starts as a DCT or as a random orthogonal
              matrix and its inverse. The random one learns at the full rate, the DCT at a fifth of
              it, as in training.
``temporal``  inter frames, started from the key-frame networks: the prior (scales of the latents
              and features for the synthesis) sees the prediction p and the difference d of two
              predictions, or zeros. Analysis and synthesis see both in either arm.
``gate``      the same start: analysis, prior and synthesis see d, or zeros. The encoder chooses
              per 16×16 block between the prediction from the first reference, from the second, and
              their average (coded modes, in both arms); that is p. Where the average was chosen, d
              is first minus second, elsewhere zero: with it the network can weigh the two anew,
              sample by sample (p ± d / 2 are the two predictions, but for overlapped edges),
              without it the average is all there is.
``motion``    prediction of a frame from an original one: the rate-aware block search against a
              small network that learns vectors of 16×16 blocks from the photometric error, its
              field used block by block (quarter-pixel vectors and the codec's filters) or smoothly
              interpolated (bicubic samples, no rounding). The search is not trained. No block
              overlaps its neighbours here.
``chunk``     nine frames as a key frame and a hierarchical mini-GOP of eight inter frames, in the
              closed loop with motion compensation, against chunks of eight frames in one latent
              without motion, the networks that much wider: equal decoder MACs per pixel. Both
              begin untrained but for the linear path (DCT). Both use Adam throughout: Muon's
              iterations would take longer than the wide networks themselves on small crops. Each
              arm pays for its first frame, as after a random-access point; figures are averages
              over its nine or eight frames.

Rates are those of the training's model, plus, for inter frames, an estimate of what vectors, splits
and modes cost. "kMAC" are the decoder's multiplications per pixel and frame, a convolution with two
weight planes counted once, motion compensation not at all. PSNR is (6Y+U+V)/8, averaged over
frames. BD-rates compare with the first arm.
"""

from __future__ import annotations

import argparse
import copy
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from . import fused, model as M, motion
from .data import Sequences, StillCrops
from .ops import Conv, TorchOps
from .train import (
    KEY_OFFSET,
    Muon,
    centred,
    code_clip,
    frames_of,
    init_from_key,
    load_net,
    order_hierarchical,
    parameter_groups,
    predict,
    Planes,
    psnr,
    split,
    statistics,
)

TRAIN, FREE = TorchOps(quant=True, amp=torch.bfloat16), TorchOps(amp=torch.bfloat16)
CHUNK = 8


class Counting(TorchOps):
    """Counts the multiplications of its convolutions."""

    macs = 0

    def conv(self, layer, x, wide=False):
        out = super().conv(layer, x, wide)
        self.macs += out.numel() * layer.weight[0].numel()
        return out


# ---------------------------------------------------------------- the race


class Arm:
    """One side of a comparison. ``loss(net, batch)``: what it learns from; ``stream``: endless
    iterator of batches.
    """

    def __init__(self, name, net, loss, groups, stream, seed):
        self.name, self.net, self.loss, self.stream, self.seed = name, net, loss, stream, seed
        self.ema = copy.deepcopy(net).requires_grad_(False)
        self.opt = Muon(groups, 0.0)
        self.base = [g["lr"] for g in groups]
        self.steps, self.used = 0, 0.0

    def step(self):
        batch = next(self.stream)
        torch.manual_seed(
            100_000 * self.seed + self.steps
        )  # the same quantizers and noise in all arms
        start = time.process_time()
        loss = self.loss(self.net, batch)
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        if torch.isfinite(torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)):
            for group, lr in zip(self.opt.param_groups, self.base):
                group["lr"] = lr * min(1.0, (self.steps + 1) / 100)
            self.opt.step()
        d = min(0.999, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.net.parameters()), 1 - d)
        self.steps += 1
        self.used += time.process_time() - start
        return float(loss.detach())


def race(arms, seconds):
    """Trains all arms for so many seconds of processor time, or until SIGTERM."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    losses, mark = {a.name: [] for a in arms}, {a.name: 0.05 for a in arms}
    while not stopped:
        arm = min(arms, key=lambda a: a.used)
        if arm.used >= seconds:
            break
        losses[arm.name].append(arm.step())
        if arm.used >= mark[arm.name] * seconds:
            print(
                (
                    f"{arm.name}: step {arm.steps}  {arm.used:.0f}s  loss "
                    f"{np.mean(losses[arm.name]):.4f}"
                ),
                flush=True,
            )
            losses[arm.name], mark[arm.name] = [], arm.used / seconds + 0.05


# ---------------------------------------------------------------- codecs: loss, figures, table
#
# A codec's ``code(net, ops, free, batch, q)`` codes the u8 planes of a batch and returns for each c
# (quantizers [B], bits [B], distortion [B], squared errors of the planes [B,3]).


def losses_of(coded, pixels):
    """Mean bits per pixel + lambda * distortion over sqrt(lambda), as in training."""
    return sum(
        (
            (
                (bits / pixels + M.lagrangian(q.float()) * dist) / M.lagrangian(q.float()).sqrt()
            ).mean()
            for q, bits, dist, _ in coded
        )
    ) / len(coded)


def train_loss(code, net, batch):
    y = batch[0]
    q = torch.randint(0, M.QUANTIZERS, y.shape[:1])
    return losses_of(code(net, TRAIN, FREE, batch, q), y.shape[-1] * y.shape[-2])


@torch.no_grad()
def judge(code, net, held, quantizers):
    """Held-out figures: (kMAC per pixel and frame, mean loss, [(bits per pixel, PSNR)] by
    quantizer).
    """
    ops, free, points, losses, area = Counting(quant=True), TorchOps(), [], [], 0
    for quantizer in quantizers:
        torch.manual_seed(0)
        rate, quality = [], []
        for batch in held:
            y = batch[0]
            pixels = y.shape[-1] * y.shape[-2]
            coded = code(net, ops, free, batch, torch.full(y.shape[:1], quantizer))
            losses.append(float(losses_of(coded, pixels)))
            area += len(coded) * y.shape[0] * pixels
            for _, bits, _, mse in coded:
                rate.append(float(bits.mean()) / pixels)
                quality += [psnr(m) for m in mse]
        points.append((np.mean(rate), np.mean(quality)))
    return ops.macs / area / 1000, np.mean(losses), points


def bd_rate(anchor, test):
    """Mean difference of rates in per cent where both curves [(rate, PSNR)] have a quality, log
    rate linear between points.
    """
    (ra, pa), (rt, pt) = (np.array(sorted(c, key=lambda x: x[1])).T for c in (anchor, test))
    lo, hi = max(pa[0], pt[0]), min(pa[-1], pt[-1])
    if hi <= lo:
        return float("nan")
    at = np.linspace(lo, hi, 200)
    return 100 * (
        np.exp(np.mean(np.interp(at, pt, np.log(rt)) - np.interp(at, pa, np.log(ra)))) - 1
    )


def markdown(head, rows):
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows])


def compare(arms, held, args, quantizers):
    """Races codec arms [(Arm, code)]; returns the table."""
    race([a for a, _ in arms], args.minutes * 60)
    rows, first = [], None
    for arm, code in arms:
        kmac, loss, points = judge(code, arm.ema, held, quantizers)
        first = first or points
        rows.append(
            [
                arm.name,
                f"{arm.used:.0f}",
                str(arm.steps),
                f"{kmac:.2f}",
                f"{loss:.4f}",
                *(f"{r:.4f} / {p:.2f}" for r, p in points),
                "" if points is first else f"{bd_rate(first, points):+.1f} %",
            ]
        )
    return markdown(
        [
            "arm",
            "seconds",
            "steps",
            "kMAC",
            "loss",
            *(f"q{q}: bpp / dB" for q in quantizers),
            "BD-rate",
        ],
        rows,
    )


# ---------------------------------------------------------------- key frames


def code_key(net, ops, free, batch, q):
    x = centred(*batch, "cpu").to(memory_format=torch.channels_last)
    mask = M.checkerboard(x.shape[2] // 2, x.shape[3] // 2)
    pic, by, bz, _ = net(ops, free, x, q, mask=mask)
    return [(q, by + bz, *M.distortion(pic, x, q, False))]


def new_key(args, train, transform="dct"):
    """Untrained key-frame networks with a DCT or random orthogonal matrices as the linear path."""
    torch.manual_seed(args.seed)
    net = M.FrameCodec(M.Config(means_blocks=2), inter=False)
    if transform == "random":
        a = torch.linalg.qr(torch.randn(M.LATENT, M.LATENT))[0]
        with torch.no_grad():
            net.transform.fwd.weight.copy_(a[:, :, None, None])
            net.transform.inv.weight.copy_(a.t()[:, :, None, None])
    stills = StillCrops(train, args.batch, args.size, seed=args.seed + 1)
    net.init_statistics(
        statistics(net.transform, (centred(*next(stills), "cpu") for _ in range(8)))
    )
    return net.to(memory_format=torch.channels_last)


def linear(args, train, held):
    crops = [b for b, _ in zip(StillCrops(held, 8, args.size, seed=12345), range(4))]
    arms = []
    for name in ("dct", "random"):
        net = new_key(args, train, name)
        groups = parameter_groups(net, args.lr)
        if name != "dct":
            groups[2]["lr"] = args.lr
        arms.append(
            (
                Arm(
                    name,
                    net,
                    partial(train_loss, code_key),
                    groups,
                    StillCrops(train, args.batch, args.size, seed=args.seed),
                    args.seed,
                ),
                code_key,
            )
        )
    return compare(arms, crops, args, (8, 24, 40, 56))


# ---------------------------------------------------------------- inter frames


def vector_bits(mv):
    """About what vectors [B,2,H/8,W/8] cost, per 16×16 block [B,1,H/16,W/16]: against the median of
    the left, upper and upper right neighbours, 8×8 vectors against their block's first; and a flag
    of the split.
    """
    b, _, h, w = mv.shape
    quarters = mv.reshape(b, 2, h // 2, 2, w // 2, 2).permute(3, 5, 0, 1, 2, 4).flatten(0, 1)
    first = quarters[0]
    pad = F.pad(first, (1, 1, 1, 0))
    pred = torch.stack([pad[..., 1:, :-2], pad[..., :-1, 1:-1], pad[..., :-1, 2:]]).median(0).values
    bits = lambda d: motion._bits(d[:, :1], d[:, 1:])
    parts = sum(bits(m - first) for m in quarters[1:])
    split_here = (quarters != first).any(0).any(1, keepdim=True)
    return bits(first - pred) + 0.3 + split_here * (1.7 + parts)


class Costed:
    """The motion functions as :func:`code_clip` wants them; ``bits`` collects what each frame's
    vectors and modes cost, [B].
    """

    lambda_of_step = staticmethod(motion.lambda_of_step)

    def __init__(self):
        self.bits = []

    def predict(self, cur, ref0, ref1, lam):
        out = motion.predict(cur, ref0, ref1, lam)
        _, _, modes, mv0, mv1 = out
        bits = vector_bits(mv0) * (modes != 1)
        if ref1 is not None:
            bits = bits + vector_bits(mv1) * (modes != 0) + 1.2
        self.bits.append(bits.sum((1, 2, 3)))
        return out


def code_inter(key, net, ops, free, batch, q):
    """The inter frames of a clip, in hierarchical order."""
    x = frames_of(batch, "cpu")
    cost = Costed()
    out, _ = code_clip(net, key, ops, free, x, q, order_hierarchical(len(x)), cost)
    return [
        (fq, bits + extra, dist, mse) for (_, fq, bits, dist, _, mse), extra in zip(out, cost.bits)
    ]


def start_inter(net, train, args):
    """Statistics of the first latents, from motion-compensated differences of originals."""
    clips = Sequences(train, args.batch, 3, args.size, seed=args.seed + 1)
    residuals = []
    for _ in range(6):
        x = frames_of(next(clips), "cpu")
        a = Planes(x[0])
        residuals.append(
            x[1] - predict(Planes(x[1]), a, a, torch.full(x[0].shape[:1], 24), motion)[0]
        )
    net.init_statistics(statistics(net.transform, residuals))
    return net.to(memory_format=torch.channels_last)


class BlindPrior(M.Prior):
    def run(self, ops, z_up, qvec, qoff, p=None, d=None):
        return super().run(ops, z_up, qvec, qoff, torch.zeros_like(p), torch.zeros_like(d))


class Ungated(M.FrameCodec):
    def forward(self, ops, free, x, q, p=None, d=None, **rest):
        return super().forward(ops, free, x, q, p, torch.zeros_like(d), **rest)


def inter(args, train, held, names):
    """Arms that differ in what an inter network sees; trained on three frames, judged on five."""
    key = load_net(args.key, "cpu").requires_grad_(False).to(memory_format=torch.channels_last)
    clips = [
        b
        for b, _ in zip(
            Sequences(held, 4, 5, args.size, seed=999, synthetic=0, p_quiet=0), range(4)
        )
    ]
    code = partial(code_inter, key)
    arms = []
    for name in names:
        torch.manual_seed(args.seed)
        net = (Ungated if name == "without d" else M.FrameCodec)(
            M.Config(width=key.cfg.width, blocks=key.cfg.blocks), inter=True
        )
        if name == "blind prior":
            net.prior.__class__ = BlindPrior
        init_from_key(net, key)
        start_inter(net, train, args)
        stream = Sequences(train, args.batch, 3, args.size, seed=args.seed)
        arms.append(
            (
                Arm(
                    name,
                    net,
                    partial(train_loss, code),
                    parameter_groups(net, args.lr),
                    stream,
                    args.seed,
                ),
                code,
            )
        )
    return compare(arms, clips, args, (12, 24, 36, 48))


# ---------------------------------------------------------------- chunks


class ChunkTransform(M.Transform):
    """Temporal matrix over the frames, then a spatial one for each temporal frequency. Latents are
    DCT
    coefficients over sqrt(8), so that the lowest stay within their bounds: latent = 384 * temporal
    frequency + spatial latent.
    """

    def __init__(self):
        super().__init__()
        t = M.dct_matrix(CHUNK).float()
        self.time, self.back = nn.Parameter(t / CHUNK**0.5), nn.Parameter(t.t() * CHUNK**0.5)
        for name, planes in (("fwd", 1), ("inv", 2)):
            layer = Conv(M.LATENT, CHUNK * M.LATENT, bias=False, planes=planes)
            layer.groups = CHUNK
            layer.weight = nn.Parameter(getattr(self, name).weight.detach().repeat(CHUNK, 1, 1, 1))
            setattr(self, name, layer)

    @staticmethod
    def mix(matrix, x):
        """[8,8] times frames [B,8*96,H/8,W/8]."""
        t = torch.einsum("kt,btchw->bkchw", matrix, x.unflatten(1, (CHUNK, M.PACKED)))
        return t.flatten(1, 2).contiguous(memory_format=torch.channels_last)

    def bands(self, x):
        return self.mix(self.time, x)

    def synth(self, ops, x):
        return ops.round(self.mix(self.back, ops.d2s(ops.conv(self.inv, x, wide=True), 2)), 2)


class ChunkAnalysis(M.Analysis):
    def latents(self, ops, transform, x, qrow, p=None, d=None):
        s = ops.s8(ops.add(ops.clip(ops.conv(self.head, x), -8, 8), qrow), M.ACT_K)
        for b in self.blocks:
            s = b.run(ops, s)
        return ops.add(
            ops.conv(transform.fwd, ops.s2d(transform.bands(x), 2), wide=True),
            ops.conv(self.tail, ops.s2d(s, 2)),
        )


class ChunkMeans(M.Means):
    """Means of the lowest temporal frequency, as a key frame's; the others have none, as an inter
    frame's. All are context.
    """

    @staticmethod
    def widen(m):
        return F.pad(m, (0, 0, 0, 0, 0, (CHUNK - 1) * M.LATENT))

    def mean_first(self, ops, feat):
        return self.widen(super().mean_first(ops, feat))

    def mean_second(self, ops, feat, anchors, mean_first):
        return self.widen(super().mean_second(ops, feat, anchors, mean_first[:, : M.LATENT]))


class ChunkCodec(M.FrameCodec):
    """Eight frames, 768 channels at 1/8, as one picture: the key frame's networks with wider ends,
    the refinement in the frames' domain.
    """

    def __init__(self, cfg: M.Config):
        super().__init__(cfg, inter=False)
        w, h, packed, latent = cfg.width, cfg.prior_width, CHUNK * M.PACKED, CHUNK * M.LATENT
        self.transform, self.analysis, self.means = (
            ChunkTransform(),
            ChunkAnalysis(cfg, False),
            ChunkMeans(cfg),
        )
        self.analysis.head, self.analysis.tail = (
            Conv(packed, w, gain=0.02),
            Conv(4 * w, latent, zero=True),
        )
        self.analysis.h0 = Conv(latent, h)
        self.prior.scales = Conv(h, latent, zero=True)
        self.means.anchors = Conv(latent, h, gain=0.1)
        self.synthesis.head, self.synthesis.tail = (
            Conv(packed + h // 4, w, gain=0.02),
            Conv(w, packed, zero=True),
        )
        self.log_step = M.PerQuantizer(latent)
        frame = torch.zeros(8, M.LATENT)
        frame[:, 256:] = -0.5 * torch.log2(4 * M.chroma_weight(torch.arange(8) * 9, True))[:, None]
        with torch.no_grad():
            self.log_step.knots.copy_(
                frame.repeat(1, CHUNK) - 1.5
            )  # latents are DCT coefficients over 2**1.5
        for owner, name in ((self, "y_fit"), (self.means, "fit")):
            owner.register_buffer(name, torch.full((1, latent, 1, 1), 0.25))


def code_chunk(net, ops, free, batch, q):
    x = frames_of(batch, "cpu")[:CHUNK]
    mask = M.checkerboard(x[0].shape[2] // 2, x[0].shape[3] // 2)
    pic, by, bz, _ = net(
        ops, free, torch.cat(x, 1).contiguous(memory_format=torch.channels_last), q, mask=mask
    )
    return [
        (q, (by + bz) / CHUNK, *M.distortion(a, b, q, True))
        for a, b in zip(pic.split(M.PACKED, 1), x)
    ]


def code_gop(net, ops, free, batch, q):
    """All frames of a clip. The key frame learns from its own loss only, as in training."""
    x = frames_of(batch, "cpu")
    kq = (q + KEY_OFFSET).clamp(0, 63)
    pic, by, bz, _ = net["key"](
        ops, free, x[0], kq, mask=M.checkerboard(x[0].shape[2] // 2, x[0].shape[3] // 2)
    )
    coded = lambda *_, **__: (pic.detach(), by, bz, None)
    return [
        (kq, by + bz, *M.distortion(pic, x[0], kq, False)),
        *code_inter(coded, net["inter"], ops, free, batch, q),
    ]


def chunk(args, train, held):
    clips = [
        b
        for b, _ in zip(
            Sequences(held, 4, 9, args.size, seed=999, synthetic=0, p_quiet=0), range(3)
        )
    ]
    gop = nn.ModuleDict(
        {
            "key": new_key(args, train),
            "inter": start_inter(M.FrameCodec(M.Config(), inter=True), train, args),
        }
    )
    torch.manual_seed(args.seed)
    net = ChunkCodec(M.Config(width=256, prior_width=352, hyper=64))
    material = Sequences(train, args.batch, 9, args.size, seed=args.seed + 1)
    bands = (
        net.transform.bands(torch.cat(frames_of(next(material), "cpu")[:CHUNK], 1)).detach()
        for _ in range(3)
    )
    net.init_statistics(statistics(net.transform, bands) * CHUNK**0.5)
    net = net.to(memory_format=torch.channels_last)
    arms = []
    for name, net, code, parts in (
        ("hierarchical", gop, code_gop, list(gop.values())),
        ("chunk", net, code_chunk, [net]),
    ):
        groups = [g | {"matrix": False} for part in parts for g in parameter_groups(part, args.lr)]
        stream = Sequences(train, args.batch, 9, args.size, seed=args.seed)
        arms.append((Arm(name, net, partial(train_loss, code), groups, stream, args.seed), code))
    return compare(arms, clips, args, (10, 22, 34, 46, 58))


# ---------------------------------------------------------------- learned motion


def warp(ref, flow, mode="bilinear"):
    """Samples of ref [B,C,H,W] at (x, y) + flow [B,2,H,W], in samples."""
    b, _, h, w = ref.shape
    at = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy")) + flow
    grid = torch.stack([(2 * at[:, 0] + 1) / w - 1, (2 * at[:, 1] + 1) / h - 1], -1)
    return F.grid_sample(ref, grid, mode, padding_mode="border", align_corners=False)


class FlowNet(nn.Module):
    """Learned motion search: lumas [B,1,H,W] in 0..255 to one vector per 16×16 block,
    [B,2,H/16,W/16]
    in luma pixels (x, y).

    Coarse to fine over 1/8, 1/4, 1/2 and the full size: the mismatch of learned features, averaged
    over the block, at 25 displacements of up to two samples about the vector so far goes into a
    small network that weighs them. ``smooth``: the field is meant to be interpolated.
    """

    SCALES, REACH, FEATURES, WIDTH = (8, 4, 2, 1), 2, 8, 48

    def __init__(self, smooth):
        super().__init__()
        self.smooth = smooth
        n, f, c = (2 * self.REACH + 1) ** 2, self.FEATURES, self.WIDTH
        conv = lambda i, o: nn.Conv2d(i, o, 3, padding=1)
        self.features = nn.ModuleList([conv(1, f), conv(f, f - 1)])
        self.heads = nn.ModuleList(
            nn.ModuleList([conv(n + 2, c), conv(c, c), conv(c, n + 2)]) for _ in self.SCALES
        )
        self.gain = nn.Parameter(
            torch.full((len(self.SCALES),), 4.0)
        )  # log2 of the sharpness of the choice
        for head in self.heads:
            nn.init.zeros_(head[2].weight)
            nn.init.zeros_(head[2].bias)

    def field(self, flow, scale, smooth):
        """The vectors for each sample of a picture at 1/scale, in its samples."""
        k = 16 // scale
        up = (
            F.interpolate(flow, scale_factor=k, mode="bilinear", align_corners=False)
            if smooth
            else flow.repeat_interleave(k, 2).repeat_interleave(k, 3)
        )
        return up / scale

    def describe(self, ops, x):
        t = x / 32 - 4
        return torch.cat([t, ops.conv(self.features[1], F.relu(ops.conv(self.features[0], t)))], 1)

    def run(self, ops, cur, ref):
        """Fields after each scale, coarse first."""
        b, _, h, w = cur.shape
        flow, out, r = cur.new_zeros(b, 2, h // 16, w // 16), [], self.REACH
        side = torch.arange(-r, r + 1.0)
        offsets = torch.stack(torch.meshgrid(side, side, indexing="xy")).flatten(
            1
        )  # [2,25], x fastest
        for scale, head, gain in zip(self.SCALES, self.heads, self.gain):
            a, c = (F.avg_pool2d(t, scale) if scale > 1 else t for t in (cur, ref))
            now, then = (
                self.describe(ops, a),
                warp(self.describe(ops, c), self.field(flow, scale, True)),
            )
            wide = F.pad(then, (r,) * 4, mode="replicate")
            hh, ww = now.shape[2:]
            costs = [
                F.avg_pool2d(
                    (wide[:, :, r + dy : r + dy + hh, r + dx : r + dx + ww] - now)
                    .abs()
                    .mean(1, True),
                    16 // scale,
                )
                for dx, dy in offsets.t().int().tolist()
            ]
            cost = torch.cat(costs, 1)
            t = F.relu(ops.conv(head[0], torch.cat([cost - cost.mean(1, True), flow / 16], 1)))
            t = ops.conv(head[2], F.relu(ops.conv(head[1], t)))
            choice = (t[:, :-2] - torch.exp2(gain) * cost).softmax(1)
            flow = flow + scale * (
                torch.einsum("bnhw,on->bohw", choice, offsets) + torch.tanh(t[:, -2:])
            )
            out.append(flow)
        return out


def pairs(batch):
    """Planes 0..255 of (current, reference) at distances one and four, of clips of five frames."""
    y, u, v = (t.float() for t in batch)
    at = lambda i: (y[:, i], u[:, i], v[:, i])
    return (at(1), at(0)), (at(4), at(0))


def photometric(net, batch, ops=TorchOps()):
    """Mean absolute error of luma after each scale, the last in full, and a little for each step
    between neighbouring vectors (as their rate).
    """
    cur, ref = (torch.cat(t) for t in zip(*((c[0], r[0]) for c, r in pairs(batch))))
    loss = 0.0
    for scale, flow in zip(net.SCALES, net.run(ops, cur, ref)):
        a, b = (F.avg_pool2d(t, scale) if scale > 1 else t for t in (cur, ref))
        error = (warp(b, net.field(flow, scale, net.smooth)) - a).abs().mean()
        rough = flow.diff(dim=2).abs().mean() + flow.diff(dim=3).abs().mean()
        loss = loss + (1.0 if scale == 1 else 0.2) * (error + 0.02 * rough)
    return loss


def judge_motion(predictor, held):
    """[(PSNR, bits of vectors per pixel)] at both distances, and milliseconds per prediction of a
    frame.

    ``predictor(cur, ref)`` gives the prediction (y, u, v) and quarter-pixel vectors [B,2,H/8,W/8].
    """
    out, used, n = [], 0.0, 0
    predictor(*pairs(held[0])[0])
    for which in range(2):
        quality, bits = [], []
        for batch in held:
            cur, ref = pairs(batch)[which]
            start = time.process_time()
            p, mv = predictor(cur, ref)
            used, n = used + time.process_time() - start, n + len(mv)
            errors = torch.stack([(a - b).square().mean((1, 2, 3)) for a, b in zip(p, cur)], 1)
            quality += [psnr(e.clamp_min(0.05)) for e in errors]
            bits.append(float(vector_bits(mv).mean()) / 256)
        out.append((np.mean(quality), np.mean(bits)))
    return out, 1000 * used / n


def searched(block, cur, ref):
    mv = motion.estimate(cur[0], ref[0], motion.lambda_of_step(M.base_step(24)), block)
    return motion.compensate(ref, mv), mv


@torch.no_grad()
def learned(net, cur, ref, ops=TorchOps()):
    flow = net.run(ops, cur[0], ref[0])[-1]
    mv = torch.round(flow * 4).long().repeat_interleave(2, 2).repeat_interleave(2, 3)
    if not net.smooth:
        return motion.compensate(ref, mv), mv
    field = [net.field(flow, 1, True), F.avg_pool2d(net.field(flow, 1, True), 2) / 2]
    return tuple(warp(r, field[min(i, 1)], "bicubic").clamp(0, 255) for i, r in enumerate(ref)), mv


def learned_motion(args, train, held):
    clips = [
        b
        for b, _ in zip(
            Sequences(held, 4, 5, args.size, seed=999, synthetic=0, p_quiet=0), range(12)
        )
    ]
    arms = []
    for name, smooth in (("learned, by block", False), ("learned, smooth", True)):
        torch.manual_seed(args.seed)
        net = FlowNet(smooth)
        stream = Sequences(train, args.batch, 5, args.size, seed=args.seed)
        arms.append(
            Arm(
                name,
                net,
                photometric,
                [{"params": list(net.parameters()), "lr": args.lr}],
                stream,
                args.seed,
            )
        )
    race(arms, args.minutes * 60)
    rows = []
    still = lambda cur, ref: (
        ref,
        torch.zeros_like(ref[0][:, :, ::8, ::8]).expand(-1, 2, -1, -1).long(),
    )
    fixed = [
        ("no motion", still),
        ("search, 16×16 and 8×8", partial(searched, 8)),
        ("search, 16×16", partial(searched, 16)),
    ]
    for name, predictor, arm in [(*f, None) for f in fixed] + [
        (a.name, partial(learned, a.ema), a) for a in arms
    ]:
        figures, ms = judge_motion(predictor, clips)
        row = [name, "", "", "", "", f"{ms:.1f}"]
        if arm:
            ops = Counting()
            with torch.no_grad():
                arm.ema.run(ops, *(t[0][:1] for t in pairs(clips[0])[0]))
                loss = np.mean([float(photometric(arm.ema, b)) for b in clips])
            row[1:5] = [
                f"{arm.used:.0f}",
                str(arm.steps),
                f"{ops.macs / args.size**2 / 1000:.2f}",
                f"{loss:.3f}",
            ]
        rows.append(row + [f"{bits:.4f} / {quality:.2f}" for quality, bits in figures])
    return markdown(
        [
            "prediction",
            "seconds",
            "steps",
            "kMAC",
            "loss",
            "ms per frame",
            "next frame: vectors' bpp / dB",
            "distance 4: vectors' bpp / dB",
        ],
        rows,
    )


ABLATIONS = {
    "linear": linear,
    "temporal": partial(inter, names=("prior sees p, d", "blind prior")),
    "gate": partial(inter, names=("with d", "without d")),
    "motion": learned_motion,
    "chunk": chunk,
}


def main():
    p = argparse.ArgumentParser(
        prog="nnvtrain.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("name", choices=ABLATIONS)
    p.add_argument(
        "--data",
        default=os.environ.get("NNV_DATA"),
        help="folder of pictures and videos, or of packs",
    )
    p.add_argument("--cache", default=os.environ.get("NNV_CACHE"), help="folder for decoded data")
    p.add_argument("--out", required=True, help="folder for the table")
    p.add_argument(
        "--key",
        default=Path(__file__).parents[1] / "checkpoints" / "realtime-key.pt",
        help="key-frame networks that inter arms start from",
    )
    p.add_argument("--minutes", type=float, default=5, help="processor time of each arm")
    p.add_argument("--size", type=int, default=128, help="crop size, a multiple of 64")
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    fused.compiled()
    table = ABLATIONS[args.name](args, *split(args))
    text = (
        f"{args.name}: batches of {args.batch}, crops of {args.size}, seed {args.seed}\n\n{table}\n"
    )
    print(text, flush=True)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{args.name}.md").write_text(text)


if __name__ == "__main__":
    main()

"""Adversarial fine-tuning for looks: ``python -m nnvtrain sr-gan``. It costs PSNR; the bundle's
name
says so.

A U-Net discriminator judges every pixel (E. Schönfeld et al., A U-Net based discriminator for GANs,
CVPR 2020) with spectral normalisation (T. Miyato et al., arXiv 1802.05957) and the hinge loss. No
pretrained network is used: likeness in feature space is measured by the discriminator itself
(feature matching: T.-C. Wang et al., arXiv 1711.11585), beside an L1 distance that keeps colours
and shapes in place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from .. import train
from .data import open_planes
from .train import (
    SrRun,
    arguments as sr_arguments,
    crops,
    distance,
    evaluate,
    parameter_groups,
    split,
    start_of,
)


class Discriminator(nn.Module):
    """Luma [N,1,H,W] (sides multiples of 8) -> one score per pixel, and the features of the way
    down.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        sides = [width, 2 * width, 4 * width, 8 * width]
        self.head = nn.Conv2d(1, sides[0], 3, padding=1)
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, 2, 1, bias=False)) for a, b in zip(sides, sides[1:])
        )
        self.up = nn.ModuleList(
            spectral_norm(nn.Conv2d(b, a, 3, padding=1, bias=False))
            for a, b in zip(sides[::-1][1:], sides[::-1])
        )
        self.tail = nn.Conv2d(sides[0], 1, 3, padding=1)

    def forward(self, x):
        h, levels = F.leaky_relu(self.head(x - 0.5), 0.2), []
        for conv in self.down:
            levels.append(h)
            h = F.leaky_relu(conv(h), 0.2)
        features = [*levels, h]
        for conv, level in zip(self.up, levels[::-1]):
            h = (
                F.leaky_relu(
                    conv(F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)),
                    0.2,
                )
                + level
            )
        return self.tail(h), features


def generator_loss(args, judge, got, wanted):
    """(total, its parts) for a batch; `judge` gets no gradient here that is used."""
    score, fake = judge(got)
    with torch.no_grad():
        real = judge(wanted)[1]
    parts = {
        "l1": distance("l1", got, wanted, args.scale) / 255,
        "adv": -score.mean(),
        "feat": sum(F.l1_loss(a, b) for a, b in zip(fake, real)) / len(real),
    }
    return args.w_l1 * parts["l1"] + args.w_adv * parts["adv"] + args.w_feat * parts["feat"], parts


def judge_loss(judge, got, wanted):
    return F.relu(1 - judge(wanted)[0]).mean() + F.relu(1 + judge(got.detach())[0]).mean()


def gan_arguments(p):
    sr_arguments(p)
    p.add_argument("--w-l1", type=float, default=1.0)
    p.add_argument("--w-adv", type=float, default=0.005)
    p.add_argument("--w-feat", type=float, default=0.2)
    p.add_argument(
        "--judge-width",
        type=int,
        default=32,
        help="channels of the discriminator at full size (16: a quarter of the work)",
    )
    p.set_defaults(model="balanced", lr=5e-4)


def run(args):
    if not args.init:
        raise SystemExit(
            (
                "sr-gan: give --init, a network trained for PSNR; adversarial training from "
                "nothing wastes its time"
            )
        )
    if args.choice > 1:
        raise SystemExit("sr-gan: --choice weighs crops, and a discriminator judges them alike")
    if args.taught or args.like:
        raise SystemExit(
            (
                "sr-gan: --taught and --like want what another network makes; a discriminator "
                "compares with real pictures"
            )
        )
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    net, judge = start_of(args), Discriminator(args.judge_width).to(args.device)
    train_set, held = split(open_planes(args.data, args.cache, args.task, args.scale, args.device))
    state = SrRun(args, net, parameter_groups(net, args.lr, not args.adam))
    other = torch.optim.AdamW(
        judge.parameters(), lr=0.4 * args.lr, betas=(0.5, 0.99), weight_decay=0
    )
    state.ema.load_state_dict(net.state_dict())
    resumed, judge_file = state.resume(), state.out / "judge.pt"
    if resumed and judge_file.exists():
        c = torch.load(judge_file, map_location=args.device, weights_only=True)
        judge.load_state_dict(c["judge"])
        other.load_state_dict(c["opt"])
    batches = crops(train_set, args, state.step)
    amp = torch.autocast(
        args.device.split(":")[0], torch.bfloat16, enabled=train.amp_of(args) is not None
    )
    forward = torch.compile(net) if args.compile else net

    def save():
        state.save()
        tmp = judge_file.with_suffix(".tmp")
        torch.save({"judge": judge.state_dict(), "opt": other.state_dict()}, tmp)
        tmp.replace(judge_file)

    evaluate(state.ema, held, args.held)
    while not state.done():
        given, _, wanted, _ = next(batches)
        judge.requires_grad_(False)
        with amp:
            got = forward(given).float()
            loss, parts = generator_loss(args, judge, got, wanted)
        norm = state.update(loss)
        judge.requires_grad_(True)
        with amp:
            verdict = judge_loss(judge, got, wanted)
        other.zero_grad(set_to_none=True)
        verdict.backward()
        other.step()
        state.log(100, norm=norm, judge=verdict, **parts)
        if state.step % args.save_every == 0:
            save()
        if state.step % args.eval_every == 0:
            evaluate(state.ema, held, args.held)
    save()
    state.save("small.pt", small=True)
    evaluate(state.ema, held, args.held)

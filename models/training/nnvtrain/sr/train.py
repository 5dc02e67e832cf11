"""Training of super-resolution and repair: ``python -m nnvtrain sr``. See
``models/training/README.md``.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from .. import train
from ..train import Run
from .data import open_planes, psnr
from .graph import OUTPUTS_MULTIPLE
from .model import EXACT, LIKELY, NAMES, UNKNOWN, SrConfig, SrNet, load_sr, rating
from .rate import TOLD_MIDDLE, equivalent
from .teach import Taught

HELD_EVERY = 20
BORDER = 4  # input pixels along a crop's edge that see too much of the padding to be judged
DECAY = 0.2  # of kernels in the body and of biases, in each step, as a share of their learning rate
SMALLEST = 16  # channels: `fast` with copies of its outputs takes 1.2 times as long, for 0.005 dB
CALIBRATION = 8  # batches from which the steps of 8-bit activations are measured
# How a bit rate tells quantizers (about what `sr-rate` prints): what remains of a distance from
# `TOLD_MIDDLE`, and the error.
BY_RATE = 0.54, 4.0
# How many crops are told nothing, and how many what a bit rate says; and the PSNR below which pairs
# that were not quantized are spoilt by noise.
UNTOLD, ROUGH, NOISY = 0.1, 0.15, 27.0
NOISE_SHARPNESS = (
    3.0  # by so much noise adds to the mean size of the Laplacian, and coding does not
)
# squared error in codes of what is as good as it need be: without it, crops that came untouched
# would rule the loss `fair`
NEARLY_GOOD = 1.0


def arguments(p):
    p.add_argument(
        "--data",
        default=os.environ.get("NNV_DATA"),
        help="folder of pictures (task bicubic) or of packs",
    )
    p.add_argument("--cache", default=os.environ.get("NNV_CACHE"), help="folder for decoded data")
    p.add_argument("--out", required=True, help="folder for checkpoints and the log")
    p.add_argument("--model", choices=list(NAMES), default="fast")
    p.add_argument("--scale", type=int, default=2, choices=(1, 2, 3, 4))
    p.add_argument("--task", choices=("bicubic", "compressed", "repair"), default="bicubic")
    p.add_argument(
        "--init",
        help="checkpoint to start from: another scale, another task, or the same before --int8",
    )
    p.add_argument(
        "--int8",
        action="store_true",
        help="round weights and activations to 8 bits, as the int8 graph does",
    )
    p.add_argument(
        "--loss",
        choices=("l1", "mse", "fair", "picture"),
        default="l1",
        help=(
            "mse suits the last steps: it is what PSNR measures; fair weighs each crop's mse by "
            "what a plain kernel leaves there, so that good ones stay good; picture by the "
            "error of the picture it lies in, so that the mean PSNR of pictures gains"
        ),
    )
    p.add_argument("--taught", nargs="+", help="files of sr-teach, which crops are then drawn from")
    p.add_argument(
        "--trust",
        type=float,
        default=0.8,
        help="share of the teacher in what is wanted; the rest is the truth",
    )
    p.add_argument(
        "--like",
        help=(
            "checkpoint of a float32 network: what it makes of each crop is wanted, in place of "
            "the truth. With --int8 rounding alone is learned, almost without noise"
        ),
    )
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--size", type=int, default=48, help="side of the input crops")
    p.add_argument(
        "--choice",
        type=int,
        default=1,
        help=(
            "draw so many times the crops of a batch, and take those where a plain kernel "
            "leaves more the more often, and weigh them the less"
        ),
    )
    p.add_argument(
        "--edges",
        type=float,
        default=0.0,
        help=(
            "share of crops that are, along either axis, mirrored beyond an edge, as pictures "
            "are in the element"
        ),
    )
    p.add_argument("--steps", type=int, default=10**9, help="stop at this step")
    p.add_argument("--minutes", type=float, default=1e9, help="stop after this time")
    p.add_argument(
        "--lr",
        type=float,
        default=2e-3,
        help=(
            "of Muon, which trains the kernels of the body; everything else has half of it, by Adam"
        ),
    )
    p.add_argument(
        "--adam",
        action="store_true",
        help=(
            "train the kernels by Adam too, at the same rate as everything else (half of --lr): "
            "steps that shrink where there is but noise suit the end of a run"
        ),
    )
    p.add_argument(
        "--cooldown",
        type=int,
        default=0,
        help="linear decay to zero over this many steps from here, then stop",
    )
    p.add_argument(
        "--anneal",
        action="store_true",
        help="the learning rate falls to zero over the --minutes of this call",
    )
    p.add_argument(
        "--average",
        action="store_true",
        help=(
            "the result is the mean over all steps, later ones counting the more: in place of a "
            "rate that falls, where most of a step is noise"
        ),
    )
    p.add_argument("--amp", choices=["bf16", "none"], default="bf16")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--save-every", type=int, default=250)
    p.add_argument("--eval-every", type=int, default=1000)
    p.add_argument("--held", type=int, default=24, help="pictures of an evaluation")
    p.add_argument("--compile", action="store_true", help="torch.compile (GPU)")


def parameter_groups(net, lr, muon=True):
    """Muon sees a kernel as a matrix of outputs by taps. It takes steps of one size in every
    direction, also where there is but noise: what draws kernels back to the identity and biases to
    zero keeps channels from wandering off to where their ReLU gives zero for ever. Adam wanders
    less.
    """
    kernels, biases = [c.plain for c in net.body], [c.bias for c in (net.head, *net.body)]
    decay = DECAY if muon else DECAY / 10
    ids = {id(p) for p in (*kernels, *biases)}
    return [
        {"params": kernels, "lr": lr if muon else lr / 2, "matrix": muon, "decay": decay},
        {"params": biases, "lr": lr / 2, "decay": decay},
        {"params": [p for p in net.parameters() if id(p) not in ids], "lr": lr / 2},
    ]


class SrRun(Run):
    ema_decay = (
        0.995  # a run ends with a falling learning rate: a longer average would only lag behind it
    )

    def description(self):
        a = self.args
        return {"cfg": self.net.cfg.dict(), "kind": "sr", "task": a.task, "model": a.model}

    def rate(self):
        if self.args.anneal:
            # The rise keeps the first steps, which move every channel one way, from killing many.
            return min(
                (self.step - self.cold_from + 1) / 100,
                max(0.0, 1 - (time.time() - self.start) / (60 * self.args.minutes)),
            )
        return super().rate()

    def kept(self):
        # Weights go with the square of the step: the start is forgotten (O. Shamir and T. Zhang,
        # arXiv 1212.1824).
        return (1 + self.step) / (4 + self.step) if self.args.average else super().kept()


@torch.no_grad()
def evaluate(net, held, count, label="eval"):
    """Mean Y-PSNR of held-out pictures without a border of radius pixels, beside bicubic
    enlargement;
    of pairs also the gain by the PSNR before. Rated networks are told quantizers, where those are
    known; what they reach with a bit rate, and with neither, is printed as well.
    """
    ours = plain = unrated = rough = 0.0
    step = max(1, len(held.entries) // count)
    s, m = net.cfg.scale, net.cfg.radius * net.cfg.scale
    # Small pictures are all border.
    picks = [
        i for i in range(0, len(held.entries), step) if held.shortest[i] >= 2 * m + s * net.cfg.fold
    ]
    if not picks:
        raise ValueError(f"no held-out picture has more than {m} samples of border")
    gains, alive = (
        {},
        torch.zeros(net.cfg.depth + 1, net.cfg.width, dtype=torch.bool, device=held.data.device),
    )
    zero = SrNet(SrConfig(net.cfg.scale, 2, 0)).to(
        held.data.device
    )  # no layer of equal widths: no identity
    for parameter in zero.parameters():
        parameter.zero_()
    known = quantizers(held.subset(lambda i: i in picks)) if net.cfg.rated else None
    one = torch.ones(1, device=held.data.device)
    for n, i in enumerate(picks):
        given, wanted, blocks = held.whole(i, multiple=net.cfg.fold)

        def reached(model, *told):
            return psnr(
                float(
                    (model(given / 255, *told).mul(255).round().clamp(0, 255) - wanted)[
                        ..., m:-m, m:-m
                    ]
                    .square()
                    .mean()
                )
            )

        after, before = reached(net), reached(zero)
        if net.cfg.rated:
            unrated += after / len(picks)
            quantizer, sure = (column[n : n + 1] for column in known)
            guess = reached(
                net, estimate(quantizer, sure.clamp_max(LIKELY), torch.Generator().manual_seed(i))
            )
            rough += guess / len(picks)
            after = guess if blocks is None else reached(net, rating(blocks, EXACT * one))
        ours += after / len(picks)
        plain += before / len(picks)
        alive |= net.alive(given / 255)
        gains.setdefault(min(int(before) // 3 * 3, 48), []).append(after - before)
    table = (
        "".join(f", {k} {sum(v) / len(v):+.2f}" for k, v in sorted(gains.items()))
        if held.paired
        else ""
    )
    table += (
        f", by bit rate {rough - plain:+.3f}, unrated {unrated - plain:+.3f}"
        if net.cfg.rated
        else ""
    )
    print(
        (
            f"{label} {ours:.3f} dB, plain {plain:.3f} dB, gain {ours - plain:+.3f}{table}, dead "
            f"channels {int((~alive).sum())} of {alive.numel()}"
        ),
        flush=True,
    )
    return ours


def start_of(args) -> SrNet:
    """The network of the run that goes on; or a fresh one, which takes over what fits from
    `--init`: a smaller network grows, and does at first what it did.
    """
    last = Path(args.out) / "last.pt"
    if last.exists():
        # As it began: what a name stands for may have changed since.
        net = load_sr(last)
        if (net.cfg.scale, net.cfg.int8) != (args.scale, args.int8):
            raise ValueError(
                f"{last}: scale {net.cfg.scale}, int8 {net.cfg.int8} is not what is asked for"
            )
        return net.to(args.device)
    cfg = SrConfig(args.scale, int8=args.int8, **NAMES[args.model])
    if args.int8:
        cfg = replace(cfg, copies=copies_of(cfg), paired=True)
    other = load_sr(args.init) if args.init else None
    if other:
        # Older heads see brightness: taken for centred ones, the same weights would do something
        # else.
        cfg = replace(cfg, centred=other.cfg.centred)
    net = SrNet(cfg)
    width, depth, fold = net.cfg.width, net.cfg.depth, net.cfg.fold
    if other:
        if other.cfg.width > width or other.cfg.depth > depth or other.cfg.fold != fold:
            raise ValueError(
                (
                    f"{args.init}: holds another architecture than {args.model}, and none that "
                    "could grow into it"
                )
            )
        if (other.cfg.width, other.cfg.depth) != (width, depth):
            grow(net, other)
        else:
            own, taken = net.state_dict(), other.state_dict()
            if other.cfg.scale != args.scale:
                # What it adds on average to the samples that come of one: a repaired sample, when
                # it learned from spoilt input.
                for key in ("tail.plain", "tail.bias"):
                    taken[key] = taken[key].mean(0, keepdim=True).expand_as(own[key]).clone()
            net.load_state_dict(
                {**own, **{k: v for k, v in taken.items() if k in own and own[k].shape == v.shape}}
            )
    return net.to(args.device)


def copies_of(cfg: SrConfig) -> int:
    """How often a tail in 8 bits gives each output: it computes a multiple of `OUTPUTS_MULTIPLE` of
    them in any case. Once in the smallest networks, where the mean would take longer than the
    tail does.
    """
    return 1 if cfg.width <= SMALLEST else max(1, OUTPUTS_MULTIPLE // (cfg.scale * cfg.fold) ** 2)


@torch.no_grad()
def grow(net: SrNet, small: SrNet):
    """Puts a narrower, shallower network into `net` (T. Chen et al., Net2Net, arXiv 1511.05641):
    channels are doubled, and what listened to one listens to both, in random shares that add up to
    one; layers that were not there, evenly among the others, are the identity, which ReLUs let
    pass. So every channel has work from the first step.
    """
    if net.cfg.int8 or small.cfg.int8 or net.cfg.scale != small.cfg.scale:
        raise ValueError("only float32 networks of one scale grow")
    n, width = small.cfg.width, net.cfg.width
    source = torch.arange(width) % n

    def shared(kernel):
        """Its inputs doubled."""
        shares = torch.rand(len(kernel), width)
        total = torch.zeros(len(kernel), n).index_add_(1, source, shares)
        return kernel[:, source] * (shares / total[:, source])[..., None, None]

    net.head.plain.copy_(small.head.plain[source])
    net.head.bias.copy_(small.head.bias[source])
    old = iter(small.body)
    more = len(net.body) - len(small.body)
    new = {(k + 1) * len(net.body) // (more + 1) for k in range(more)}
    for i, conv in enumerate(net.body):
        if i in new:
            conv.plain.zero_()
            continue
        layer = next(old)
        conv.plain.copy_(shared(layer.plain + layer.identity)[source] - conv.identity)
        conv.bias.copy_(layer.bias[source])
    net.tail.plain.copy_(shared(small.tail.plain))
    net.tail.bias.copy_(small.tail.bias)
    if net.cfg.rated and small.cfg.rated:
        net.heard.copy_(small.heard[source])
        net.gain.load_state_dict(small.gain.state_dict())


def split(planes):
    """Training and held-out entries. The versions of one picture follow each other and stay on one
    side.
    """
    from .data import SIZES

    run = 1 if planes.paired else len(SIZES)
    return planes.subset(lambda i: i // run % HELD_EVERY), planes.subset(
        lambda i: i // run % HELD_EVERY == 0
    )


def sharpness(plane) -> float:
    """Mean size of the Laplacian."""
    x = plane.float()
    return float(
        (4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]).abs().mean()
    )


def coded(planes):
    """Pairs whose input is not noisy. Where some are, a network learns to take fine texture for
    noise, and the quantizer says nothing of that.
    """

    def clean(i):
        wanted, given = planes.entry(i)
        return sharpness(given) < sharpness(wanted) + NOISE_SHARPNESS

    return planes.subset(clean)


def quantizers(planes) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each pair the mean quantizer [n] with which its input was coded, and whether that is
    `EXACT` (those of its blocks are known), `LIKELY` or `UNKNOWN` [n].
    """
    told = []
    for i in range(len(planes.entries)):
        if (blocks := planes.blocks(i)) is not None:
            told.append((float(blocks.float().mean()), EXACT))
            continue
        before, given = psnr(planes.squared_error(i)), planes.entry(i)[1].cpu().numpy()
        told.append((equivalent(given, before), LIKELY if before > NOISY else UNKNOWN))
    return tuple(
        torch.tensor(column, device=planes.data.device, dtype=torch.float32)
        for column in zip(*told)
    )


def estimate(quantizer, sure, rng):
    """What a rated network is told of pictures of a mean `quantizer` [n], as wrong as bit rates
    tell it.
    """
    error = torch.randn(len(quantizer), generator=rng).to(quantizer)
    return rating(TOLD_MIDDLE + BY_RATE[0] * (quantizer - TOLD_MIDDLE) + BY_RATE[1] * error, sure)


def left_by_kernel(given, wanted, scale):
    """Mean squared error of each crop [n] in codes, enlarged by a plain kernel."""
    b = BORDER * scale
    plain = (
        given
        if scale == 1
        else F.interpolate(given, scale_factor=scale, mode="bicubic", align_corners=False)
    )
    return ((plain - wanted)[..., b:-b, b:-b]).square().mean((1, 2, 3))


def chosen(worth, count, rng):
    """Indices and weights [count] of crops out of more, drawn in proportion to their worth [n] and
    weighed so that the expected loss is that of all (importance sampling; P. Zhao and T. Zhang,
    arXiv 1401.2753).
    """
    edges = worth.cumsum(0)
    places = (torch.arange(count) + torch.rand(1, generator=rng)).to(worth) / count * edges[-1]
    pick = torch.searchsorted(edges, places).clamp_max(len(worth) - 1)
    return pick, worth.mean() / worth[pick]


def crops(planes, args, step, rated=False):
    """Endless batches: input, what is told of its quantizer (None but for `rated`), what is wanted,
    and the weights of the crops in the loss, or None. A run that goes on from another step draws
    other ones.
    """
    rng = torch.Generator().manual_seed(args.seed + 7919 * step)
    known, told = quantizers(planes) if rated else None, None
    before = (
        torch.tensor(
            [planes.squared_error(i) for i in range(len(planes.entries))], dtype=torch.float32
        )
        if args.loss == "picture"
        else None
    )
    while True:
        given, wanted, pick, blocks = planes.draw(
            args.batch * args.choice, args.size, rng, NAMES[args.model].get("fold", 1), args.edges
        )
        weight = None if before is None else 1 / (before[pick.cpu()].to(given) + NEARLY_GOOD)
        if args.choice > 1:
            weight = torch.ones(len(pick)).to(given) if weight is None else weight
            # Gradients are about as large as what a plain kernel leaves
            # (docs/decisions/058-choice.md).
            best, more = chosen(
                weight * (left_by_kernel(given, wanted, planes.scale) + NEARLY_GOOD),
                args.batch,
                rng,
            )
            given, wanted, pick, blocks, weight = (
                None if k is None else k[best] for k in (given, wanted, pick, blocks, weight)
            )
            weight = weight * more
        if rated:
            luck = torch.rand(args.batch, generator=rng).to(known[0])
            # Never more than there is to know.
            sure = torch.where(
                luck < UNTOLD, UNKNOWN, torch.where(luck < UNTOLD + ROUGH, LIKELY, EXACT)
            ).minimum(known[1][pick])
            rough = estimate(known[0][pick], sure, rng)
            told = torch.where((sure == EXACT)[:, None, None, None], rating(blocks), rough)
        yield given / 255, told, wanted / 255, weight


def distance(kind, got, wanted, scale, given=None, weight=None):
    """The loss of a batch in units of 8-bit codes, so that the printed figures mean something.
    `given` is for `fair` alone; `weight` [n] is that of crops.
    """
    b = BORDER * scale
    d = (got - wanted)[..., b:-b, b:-b]
    each = (
        (d.square() + 1e-6).sqrt().mean((1, 2, 3)) * 255
        if kind == "l1"
        else (d * 255).square().mean((1, 2, 3))
    )
    if kind == "fair":
        each = each / (left_by_kernel(given * 255, wanted * 255, scale) + NEARLY_GOOD)
    return (each if weight is None else each * weight).mean()


def run(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if args.device.startswith("cuda"):
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    net = start_of(args)
    train_set, held = split(open_planes(args.data, args.cache, args.task, args.scale, args.device))
    if net.cfg.rated:
        train_set, held = coded(train_set), coded(held)
    if args.taught:
        train_set = Taught(args.taught, args.trust, args.device)
        if (train_set.task, train_set.scale) != (args.task, args.scale):
            raise SystemExit(
                (
                    f"sr: --taught: {train_set.task} at scale {train_set.scale} is not what is "
                    "asked for"
                )
            )
    like = load_sr(args.like, args.device).requires_grad_(False) if args.like else None
    if like and like.cfg.scale != args.scale:
        raise SystemExit(
            f"sr: --like: a network of scale {like.cfg.scale} is not what is asked for"
        )
    state = SrRun(args, net, parameter_groups(net, args.lr, not args.adam))
    batches = None
    if not state.resume():
        batches = crops(train_set, args, 0, net.cfg.rated)
        if args.int8:
            with torch.no_grad():
                given, told, *_ = (
                    None if k[0] is None else torch.cat(k)
                    for k in zip(*(next(batches) for _ in range(CALIBRATION)))
                )
                net(given, told, calibrate=True)
            state.ema.load_state_dict(net.state_dict())
    batches = batches or crops(train_set, args, state.step, net.cfg.rated)
    print(
        f"{args.model} x{args.scale} {args.task}: {net.parameters_deployed()} parameters, "
        f"{net.macs_per_pixel()} MAC per input pixel, "
        f"{len(train_set.entries)} planes",
        flush=True,
    )
    evaluate(state.ema, held, args.held)
    amp = torch.autocast(
        args.device.split(":")[0], torch.bfloat16, enabled=train.amp_of(args) is not None
    )
    forward = torch.compile(net) if args.compile else net
    since, first = time.time(), state.step
    while not state.done():
        given, told, wanted, weight = next(batches)
        if like:
            with torch.no_grad():
                wanted = like(given, told)
        with amp:
            got = forward(given, told)
        loss = distance(args.loss, got.float(), wanted, args.scale, given, weight)
        norm = state.update(loss)
        state.log(
            200, loss=loss.detach(), norm=norm, rate=(state.step - first) / (time.time() - since)
        )
        if state.step % args.save_every == 0:
            state.save()
        if state.step % args.eval_every == 0:
            evaluate(state.ema, held, args.held)
    state.save()
    state.save("small.pt", small=True)
    evaluate(state.ema, held, args.held)

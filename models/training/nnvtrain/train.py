"""Training of the codec networks: ``python -m nnvtrain key`` and ``python -m nnvtrain inter``.

The loss is bits per pixel + lambda(q) * distortion, divided by sqrt(lambda) so that all quantizers
weigh alike; q is drawn at random for each sample. Runs stop and go on from their checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import signal
import time
from functools import partial
from pathlib import Path

import torch

from . import curve
from . import model as M
from .data import default_folders
from .ops import TorchOps


def arguments(p: argparse.ArgumentParser):
    default_folders(p)
    p.add_argument("--out", required=True, help="folder for checkpoints and the log")
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--size", type=int, default=256, help="crop size, a multiple of 64")
    p.add_argument("--steps", type=int, default=10**9, help="stop at this step")
    p.add_argument("--minutes", type=float, default=1e9, help="stop after this time")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--cooldown", type=int, default=0,
                   help="linear decay to zero over this many steps from here, then stop")
    p.add_argument("--quant", action="store_true", help="quantisation-aware: round as deployed")
    p.add_argument("--amp", choices=["bf16", "none"], default="bf16")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--save-every", type=int, default=250)
    p.add_argument("--eval-every", type=int, default=500, 
                   help="steps between evaluations; more, where they took over 5 %% of the time")
    p.add_argument("--coded", type=float, default=1 / 3,
                   help="share of the crops that went through another codec first (see precode)")
    p.add_argument("--favour", type=float, default=0.5,
                   help="crops neither smooth, dark nor grey are drawn anew with this probability")
    p.add_argument("--tune", choices=["psnr", "visual"], default="psnr",
                   help="visual: MS-SSIM instead of most of luma's squared error")
    p.add_argument("--width", type=int, default=96)
    p.add_argument("--blocks", type=int, default=6)
    p.add_argument("--compile", action="store_true", help="torch.compile (GPU)")


def key_arguments(p):
    arguments(p)
    p.add_argument("--means-blocks", type=int, default=2,
                   help="blocks of the context network of the second means")


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton-Schulz iterations, for matrices (1×1 convolutions).

    Adam for the rest. Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with the scale of
    arXiv:2502.16982: an update has 0.2 of Adam's RMS, so that both share their learning rates.
    Groups with ``matrix=True`` go the first way. A group's ``decay`` draws its parameters to zero
    by that share of the learning rate in each step (decoupled, as in AdamW).
    """

    def __init__(self, groups, lr, betas=(0.9, 0.99), momentum=0.95):
        defaults = dict(lr=lr, betas=betas, momentum=momentum, matrix=False, eps=1e-8, decay=0.0)
        super().__init__(groups, defaults)

    def __setstate__(self, state):
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("decay", 0.0)  # checkpoints from before it

    @staticmethod
    def orthogonal(g):
        wide = g.shape[0] <= g.shape[1]
        x = g if wide else g.t()
        x = x / (x.norm() + 1e-7)
        for _ in range(5):
            a = x @ x.t()
            x = torch.addmm(x, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
        return x if wide else x.t()

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            live = [p for p in group["params"] if p.grad is not None]
            for p in live:
                if not self.state[p]:
                    self.state[p]["m"] = torch.zeros_like(p)
                    if not group["matrix"]:
                        self.state[p]["v"] = torch.zeros_like(p)
                        self.state[p]["t"] = torch.zeros(())
            if group["decay"]:
                torch._foreach_mul_(group["params"], 1 - group["lr"] * group["decay"])
            if group["matrix"]:
                for p in live:
                    m = self.state[p]["m"]
                    m.lerp_(p.grad, 1 - group["momentum"])
                    g = p.grad.lerp(m, group["momentum"]).flatten(1)
                    rate = group["lr"] * 0.2 * max(g.shape) ** 0.5
                    p.add_(self.orthogonal(g).view_as(p), alpha=-rate)
            elif live:
                b1, b2 = group["betas"]
                grads = [p.grad for p in live]
                m, v = ([self.state[p][name] for p in live] for name in "mv")
                torch._foreach_lerp_(m, grads, 1 - b1)
                torch._foreach_mul_(v, b2)
                torch._foreach_addcmul_(v, grads, grads, 1 - b2)
                for p in live:
                    self.state[p]["t"] += 1
                t = float(self.state[live[0]]["t"])
                root = torch._foreach_sqrt(v)
                torch._foreach_div_(root, (1 - b2**t) ** 0.5)
                torch._foreach_add_(root, group["eps"])
                torch._foreach_addcdiv_(live, m, root, value=-group["lr"] / (1 - b1**t))


class Run:
    """A resumable run: model, its moving average, optimiser, step, log."""

    ema_decay = 0.999

    def __init__(self, args, net, groups):
        self.args, self.net = args, net
        self.ema = copy.deepcopy(net).requires_grad_(False)
        self.opt = Muon(groups, args.lr)
        self.base = [g["lr"] for g in self.opt.param_groups]
        self.step, self.seconds = 0, 0.0
        self.out = Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.cool_from = None
        # Where the optimiser began without a past: the learning rate rises from there.
        self.cold_from = 0
        self.sums, self.count = {}, 0
        self.start = time.time()
        # The last one: its step, when it ended, and how long it took.
        self.evaluation = (-(10**9), 0.0, 0.0)
        self.stopped = False
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_):
        """SIGTERM: finish the step, write the checkpoint, leave."""
        self.stopped = True

    def resume(self):
        path = self.out / "last.pt"
        if not path.exists():
            return False
        c = torch.load(path, map_location=self.args.device, weights_only=True)
        self.net.load_state_dict(c["net"])
        self.ema.load_state_dict(c["ema"])
        # What another optimiser kept is of no use, and its groups would bring that optimiser back.
        kept = c.get("opt")
        ways = lambda groups: [g["matrix"] for g in groups]
        if kept and ways(kept["param_groups"]) != ways(self.opt.param_groups):
            kept = None
        if kept:
            self.opt.load_state_dict(kept)
            for group, rate in zip(self.opt.param_groups, self.base):
                group["lr"] = rate
        self.step, self.seconds = c["step"], c["seconds"]
        self.cold_from = 0 if kept else self.step
        if rows := curve.read(self.out / "curve.csv"):
            self.evaluation = (int(rows[-1]["step"]), 0.0, 0.0)
        print(f"resumed at step {self.step}", flush=True)
        return True

    def description(self):
        """What a checkpoint says about its network."""
        return {"cfg": self.net.cfg.dict(), "inter": self.net.inter}

    def save(self, name="last.pt", small=False):
        c = {"ema": self.ema.state_dict(), "net": self.net.state_dict(),
             "opt": self.opt.state_dict(), "step": self.step,
             "seconds": self.seconds + time.time() - self.start,
             "log_args": {k: str(v) for k, v in vars(self.args).items()}} | self.description()
        if small:
            c["opt"], c["net"] = None, c["ema"]
        tmp = self.out / (name + ".tmp")
        torch.save(c, tmp)
        tmp.replace(self.out / name)

    def rate(self):
        if self.args.cooldown:
            if self.cool_from is None:
                self.cool_from = self.step
            return max(0.0, 1 - (self.step - self.cool_from) / self.args.cooldown)
        return min(1.0, (self.step - self.cold_from + 1) / 200)

    def kept(self):
        """What this step leaves of the moving average."""
        return min(self.ema_decay, (1 + self.step) / (10 + self.step))

    def update(self, loss):
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        if torch.isfinite(norm):
            f = self.rate()
            for g, b in zip(self.opt.param_groups, self.base):
                g["lr"] = b * f
            self.opt.step()
        with torch.no_grad():
            mean, now = (list(net.parameters()) for net in (self.ema, self.net))
            torch._foreach_lerp_(mean, now, 1 - self.kept())
        self.step += 1
        return norm

    def log(self, every=50, **values):
        for k, v in values.items():
            self.sums[k] = self.sums.get(k, 0.0) + float(v.detach() if torch.is_tensor(v) else v)
        self.count += 1
        if self.step % every == 0:
            mean = {k: v / self.count for k, v in self.sums.items()}
            t = time.time() - self.start
            told = "  ".join(f"{k} {v:.4f}" for k, v in mean.items())
            print(f"step {self.step:6d}  {t:7.0f}s  {told}", flush=True)
            self.sums, self.count = {}, 0

    def due(self):
        """Whether to evaluate after this step."""
        _, ended, took = self.evaluation
        return not self.known(self.args.eval_every) and time.time() - ended >= 20 * took

    def known(self, within: int):
        """Whether the last evaluation is fewer than `within` steps old."""
        return 0 <= self.step - self.evaluation[0] < within

    def evaluate(self, evaluation):
        """Prints what `evaluation` finds out about the moving average, and adds it to `curve.csv`.

        It gives (bpp, PSNR) by operating point, and losses by kind of material.
        """
        began = time.time()
        points, losses = evaluation(self.ema)
        self.evaluation = (self.step, time.time(), time.time() - began)
        told = [f"{name}: {r:.4f} bpp {p:.2f} dB" for name, (r, p) in points.items()]
        told += [f"{kind} {loss:.4f}" for kind, loss in losses.items()]
        print("eval " + "  ".join(told), flush=True)
        hours = (self.seconds + time.time() - self.start) / 3600
        row = {"network": "inter" if self.net.inter else "key", "step": self.step, "hours": hours,
               "seconds": self.evaluation[2]} | losses
        for name, (r, p) in points.items():
            row |= {f"{name} bpp": r, f"{name} dB": p}
        curve.append(self.out / "curve.csv",
                     {k: f"{v:.5f}" if isinstance(v, float) else v for k, v in row.items()})

    def done(self):
        if self.stopped:
            self.save()
            raise SystemExit(0)
        if self.step >= self.args.steps or time.time() - self.start > self.args.minutes * 60:
            return True
        cooling = self.args.cooldown and self.cool_from is not None
        return bool(cooling and self.step >= self.cool_from + self.args.cooldown)


def parameter_groups(net, lr):
    """The linear transform and the steps move slowly: they start near their optimum."""
    named = list(net.named_parameters())
    slow = [p for n, p in named if n.startswith(("transform.", "log_step"))]
    vectors = [p for n, p in named if n.endswith("knots") and not n.startswith("log_step")]
    scalars = [net.ratio_gain, net.z_log_scale]
    ids = {id(p) for p in slow + vectors + scalars}
    matrices = [p for _, p in named
                if id(p) not in ids and p.dim() == 4 and min(p.shape[:2]) > 1]
    ids |= {id(p) for p in matrices}
    rest = [p for p in net.parameters() if id(p) not in ids]
    return [{"params": matrices, "lr": lr, "matrix": True}, {"params": rest, "lr": lr},
            {"params": slow, "lr": lr * 0.2}, {"params": vectors, "lr": lr * 2},
            {"params": scalars, "lr": lr * 3}]


def centred(y, u, v, device):
    """uint8 planes to the packed, centred picture."""
    to = lambda t: t.to(device, non_blocking=True).float() - 128.0
    return M.pack(to(y), to(u), to(v))


def psnr(mse):
    """(6Y+U+V)/8 of the PSNRs of three mean squared errors."""
    y, u, v = (10 * math.log10(255.0**2 / max(float(m), 1e-9)) for m in mse)
    return (6 * y + u + v) / 8


def amp_of(args):
    return torch.bfloat16 if args.amp == "bf16" else None


@torch.no_grad()
def statistics(transform, batches):
    """Deviation of the latents of packed pictures, [384]."""
    ops = TorchOps()
    total, n = 0, 0
    for x in batches:
        y = ops.conv(transform.fwd, ops.s2d(x, 2), wide=True)
        total = total + y.square().mean((0, 2, 3))
        n += 1
    return (total / n).sqrt()


@torch.no_grad()
def weigh_key(net, batches, q, args):
    """bpp, PSNR and loss of crops at a quantizer."""
    ops, free = TorchOps(quant=args.quant), TorchOps()
    r = d = n = 0
    planes = torch.zeros(3)
    for x in batches:
        qs = torch.full((x.shape[0],), q, device=x.device)
        mask = M.checkerboard(x.shape[2] // 2, x.shape[3] // 2, x.device)
        pic, by, bz, _ = net(ops, free, x, qs, mask=mask)
        dist, mse = M.distortion(pic, x, qs, False, args.tune == "visual")
        planes += mse.cpu().sum(0)
        r += float((by + bz).sum()) / (x.shape[2] * x.shape[3] * 64)
        d += float(dist.sum())
        n += x.shape[0]
    lam = M.lagrangian(q)
    return r / n, psnr(planes / n), (r / n + lam * d / n) / math.sqrt(lam)


def evaluate_key(net, held, args):
    """bpp and PSNR of held-out crops at four quantizers, and the mean loss of each kind of them."""
    points = {f"q{q}": weigh_key(net, held["loss"], q, args) for q in (8, 24, 40, 56)}
    losses = {"loss": sum(p[2] for p in points.values()) / len(points)}
    for kind, batches in held.items():
        if kind != "loss":
            losses[kind] = sum(weigh_key(net, batches, q, args)[2] for q in (16, 48)) / 2
    return {name: p[:2] for name, p in points.items()}, losses


def split(args):
    """The material for training, and every twentieth clip of it held out for evaluation."""
    from . import precoded
    from .data import open_store
    store = open_store(args.data, args.cache)
    if args.coded:
        store.coded = precoded.open_coded(store)
    return store.part(lambda i: i % 20), store.part(lambda i: i % 20 == 0)


def held_by_kind(make, held_set, count):
    """Held-out material of each kind: `count` crops, stacked. `make` draws crops of that set."""
    from .data import to_tensors
    from .kinds import collect
    sets = collect(make(p_grey=GREY).sample, count)  # grey ones are rare
    if held_set.coded:
        draw = make(p_coded=1.0).sample
        sets["precoded"] = [draw() for _ in range(count)]
    return {kind: to_tensors(samples) for kind, samples in sets.items()}


def fresh_seed(args):
    """A run that goes on must not see the same crops again."""
    return args.seed + int(time.time()) % 100000


# Shares of drawn screens and of crops without colour in training: natural pictures alone left such
# material at twice the rate of others.
SCREENS, GREY = 0.12, 0.05


def key_main(args):
    from .data import Prefetch, StillCrops
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    cfg = M.Config(width=args.width, blocks=args.blocks, means_blocks=args.means_blocks)
    net = M.FrameCodec(cfg, inter=False).to(args.device).to(memory_format=torch.channels_last)
    train_set, held_set = split(args)
    whole = zip(StillCrops(held_set, 8, args.size, seed=12345), range(3))
    held = {"loss": [centred(*b, args.device) for b, _ in whole]}
    crops = partial(StillCrops, held_set, 1, args.size, seed=54321)
    by_kind = held_by_kind(crops, held_set, 8)
    held |= {kind: [centred(*b, args.device)] for kind, b in by_kind.items()}
    evaluation = lambda net: evaluate_key(net, held, args)
    run = Run(args, net, parameter_groups(net, args.lr))
    batches = Prefetch(StillCrops(train_set, args.batch, args.size, seed=fresh_seed(args),
                                  screens=SCREENS, p_grey=GREY, p_coded=args.coded,
                                  favour=args.favour))
    if not run.resume():
        some = (centred(*next(batches), args.device) for _ in range(8))
        net.init_statistics(statistics(net.transform, some))
        run.ema.load_state_dict(net.state_dict())
    if not run.known(args.eval_every):
        run.evaluate(evaluation)
    ops, free = TorchOps(quant=args.quant, amp=amp_of(args)), TorchOps(amp=amp_of(args))
    forward = torch.compile(net) if args.compile else net
    mask = M.checkerboard(args.size // 16, args.size // 16, args.device)
    pixels = args.size**2
    while not run.done():
        x = centred(*next(batches), args.device).to(memory_format=torch.channels_last)
        q = torch.randint(0, M.QUANTIZERS, (x.shape[0],), device=args.device)
        pic, by, bz, _ = forward(ops, free, x, q, mask=mask)
        dist, mse = M.distortion(pic, x, q, False, args.tune == "visual")
        lam = M.lagrangian(q.float())
        rate = (by + bz) / pixels
        loss = ((rate + lam * dist) / lam.sqrt()).mean()
        norm = run.update(loss)
        run.log(loss=loss, bpp=rate.mean(), bpz=bz.mean() / pixels, dist=(lam * dist).mean(),
                norm=norm)
        if run.step % args.save_every == 0:
            run.save()
        if run.due():
            run.evaluate(evaluation)
    run.save()
    run.save("small.pt", small=True)
    if not run.known(1):
        run.evaluate(evaluation)


# ---------------------------------------------------------------- inter frames

# Coding orders over the frames of a training clip: (frame, (ref0, ref1), quantizer offset). The
# offsets follow the levels of the encoder's GOP tables.
def order_low_delay(frames):
    return [(t, (t - 1, 0), (3, 1, 3, 0)[(t - 1) % 4]) for t in range(1, frames)]


def order_hierarchical(frames):
    """Dyadic mini-GOP over ``frames - 1`` = 2, 4 or 8 frames."""
    n = frames - 1
    out = [(n, (0, 0), 0)]
    step, level = n, 1
    while step > 1:
        half = step // 2
        out += [(t, (t - half, t + half), 3 + 2 * level) for t in range(half, n, step)]
        step, level = half, level + 1
    return out


KEY_OFFSET = -4


def inter_arguments(p):
    arguments(p)
    p.add_argument("--key", required=True, help="checkpoint of the key-frame networks")
    p.add_argument("--frames", type=int, default=3, help="frames of a training clip: 3, 5 or 9")
    p.add_argument("--low-delay", type=float, default=0.5,
                   help="share of clips coded in low-delay order")
    p.add_argument("--synthetic", type=float, default=0.4,
                   help="share of clips with motion synthesised from stills")


def load_net(path, device, which="ema"):
    c = torch.load(path, map_location=device, weights_only=True)
    net = M.FrameCodec(M.Config(**c["cfg"]), c["inter"]).to(device)
    net.load_state_dict(c[which])
    return net


def init_from_key(net, key):
    """Start the inter networks from the key-frame ones, wherever the shapes agree."""
    own, other = net.state_dict(), key.state_dict()
    for name, value in other.items():
        if name.endswith(("head.weight", "h0.weight")):
            # Inputs: the residual takes the place of the picture; further inputs start small.
            n = min(value.shape[1], M.PACKED if name.endswith("head.weight") else M.LATENT)
            own[name][:, :n] = value[:, :n]
            if name == "synthesis.head.weight":
                own[name][:, M.PACKED:3 * M.PACKED] *= 0.5
                own[name][:, 3 * M.PACKED:] = value[:, M.PACKED:]
        elif name in own and own[name].shape == value.shape and "scales.bias" not in name:
            own[name] = value.clone()
    net.load_state_dict(own)


class Planes:
    """A picture as float planes 0..255, as the motion functions want it, and packed."""

    def __init__(self, packed):
        self.packed = packed
        y, u, v = M.unpack(packed)
        self.planes = (y + 128.0, u + 128.0, v + 128.0)


def predict(cur, ref0, ref1, q, motion):
    """Motion-compensated prediction of ``cur``: packed p (centred) and d. ``q``: quantizers [B]."""
    lam = motion.lambda_of_step(M.base_step(q.float()))
    second = None if ref1 is ref0 else ref1.planes
    p, d, *_ = motion.predict(cur.planes, ref0.planes, second, lam=lam)
    return M.pack(*(t - 128.0 for t in p)), M.pack(*d)


def code_clip(net, key, ops, free, x, q, order, motion, jitter=None, visual=False):
    """Codes a clip in the closed loop.

    x: list of packed frames. Returns a list of (frame, q, bits [B], distortion [B], bits of z [B],
    squared errors [B,3]) of the inter frames, and the key frame's (bits, distortion).
    """
    h16, w16 = x[0].shape[2] // 2, x[0].shape[3] // 2
    mask = M.checkerboard(h16, w16, x[0].device)
    with torch.no_grad():
        kq = (q + KEY_OFFSET).clamp(0, 63)
        pic, by, bz, _ = key(TorchOps(amp=ops.amp), TorchOps(amp=free.amp), x[0], kq, mask=mask)
        kd, _ = M.distortion(pic, x[0], kq, False, visual)
    rec, out = {0: Planes(pic)}, []
    for t, (a, b), offset in order:
        fq = (q + offset + (0 if jitter is None else jitter)).clamp(0, 63)
        p, d = predict(Planes(x[t]), rec[a], rec[b], fq, motion)
        pic, by, bz, extra = net(ops, free, x[t], fq, p=p, d=d)
        dist, mse = M.distortion(pic, x[t], fq, True, visual)
        rec[t] = Planes(pic)
        out.append((t, fq, by + bz, dist, bz, mse))
    return out, ((by + bz), kd)


@torch.no_grad()
def weigh_inter(net, key, clips, order, q, args, motion):
    """bpp, PSNR and loss of the inter frames of clips, coded in an order at a quantizer."""
    ops, free = TorchOps(quant=args.quant), TorchOps()
    r = n = loss = 0.0
    planes = torch.zeros(3)
    for x in clips:
        qs = torch.full((x[0].shape[0],), q, device=x[0].device)
        out, _ = code_clip(net, key, ops, free, x, qs, order(len(x)), motion,
                           visual=args.tune == "visual")
        pixels = x[0].shape[2] * x[0].shape[3] * 64
        for _, fq, bits, dist, _, mse in out:
            lam = M.lagrangian(fq.float())
            r += float(bits.mean()) / pixels
            planes += mse.mean(0).cpu()
            loss += float(((bits / pixels + lam * dist) / lam.sqrt()).mean())
            n += 1
    return r / n, psnr(planes / n), loss / n


def evaluate_inter(net, key, held, args, motion):
    """bpp and PSNR of held-out clips by order and quantizer, and the mean loss of each kind."""
    orders = {"LD": order_low_delay, "RA": order_hierarchical}
    points = {f"{name} q{q}": weigh_inter(net, key, held["loss"], order, q, args, motion)
              for name, order in orders.items() for q in (16, 32, 48)}
    losses = {"loss": sum(p[2] for p in points.values()) / len(points)}
    for kind, clips in held.items():
        if kind != "loss":
            each = [weigh_inter(net, key, clips, order, q, args, motion)[2]
                    for order, q in zip(orders.values(), (20, 44))]
            losses[kind] = sum(each) / len(each)
    return {name: p[:2] for name, p in points.items()}, losses


def frames_of(batch, device):
    y, u, v = batch
    frames = (centred(y[:, t], u[:, t], v[:, t], device) for t in range(y.shape[1]))
    return [x.to(memory_format=torch.channels_last) for x in frames]


def inter_main(args):
    from . import motion
    from .data import Prefetch, Sequences
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    key = load_net(args.key, args.device).requires_grad_(False)
    key = key.to(memory_format=torch.channels_last)
    cfg = M.Config(width=args.width, blocks=args.blocks)
    net = M.FrameCodec(cfg, inter=True).to(args.device).to(memory_format=torch.channels_last)
    train_set, held_set = split(args)
    whole = zip(Sequences(held_set, 4, 5, args.size, seed=999), range(2))
    held = {"loss": [frames_of(b, args.device) for b, _ in whole]}
    clips = partial(Sequences, held_set, 1, 5, args.size, seed=4321)
    by_kind = held_by_kind(clips, held_set, 6)
    held |= {kind: [frames_of(b, args.device)] for kind, b in by_kind.items()}
    evaluation = lambda net: evaluate_inter(net, key, held, args, motion)
    run = Run(args, net, parameter_groups(net, args.lr))
    batches = Prefetch(Sequences(train_set, args.batch, args.frames, args.size,
                                 seed=fresh_seed(args), synthetic=args.synthetic, p_grey=GREY,
                                 p_coded=args.coded, favour=args.favour), 2)
    ops, free = TorchOps(quant=args.quant, amp=amp_of(args)), TorchOps(amp=amp_of(args))
    if not run.resume():
        init_from_key(net, key)
        residuals = []
        for _ in range(6):
            x = frames_of(next(batches), args.device)
            a, b = Planes(x[0]), Planes(x[1])
            q = torch.full((x[0].shape[0],), 24, device=args.device)
            residuals.append(x[1] - predict(b, a, a, q, motion)[0])
        net.init_statistics(statistics(net.transform, residuals))
        run.ema.load_state_dict(net.state_dict())
    if not run.known(args.eval_every):
        run.evaluate(evaluation)
    pixels = args.size**2
    rng = torch.Generator().manual_seed(args.seed + run.step)
    while not run.done():
        x = frames_of(next(batches), args.device)
        b = x[0].shape[0]
        q = torch.randint(0, M.QUANTIZERS, (b,), generator=rng).to(args.device)
        low_delay = torch.rand((), generator=rng) < args.low_delay
        order = (order_low_delay if low_delay else order_hierarchical)(len(x))
        jitter = torch.randint(-2, 3, (b,), generator=rng).to(args.device)
        out, _ = code_clip(net, key, ops, free, x, q, order, motion, jitter, args.tune == "visual")
        loss = rate = bpz = dist = 0.0
        for _, fq, bits, d, bz, _ in out:
            lam = M.lagrangian(fq.float())
            loss = loss + ((bits / pixels + lam * d) / lam.sqrt()).mean() / len(out)
            rate = rate + (bits.mean() / pixels).detach() / len(out)
            bpz = bpz + (bz.mean() / pixels).detach() / len(out)
            dist = dist + (lam * d).mean().detach() / len(out)
        norm = run.update(loss)
        run.log(loss=loss, bpp=rate, bpz=bpz, dist=dist, norm=norm)
        if run.step % args.save_every == 0:
            run.save()
        if run.due():
            run.evaluate(evaluation)
    run.save()
    run.save("small.pt", small=True)
    if not run.known(1):
        run.evaluate(evaluation)

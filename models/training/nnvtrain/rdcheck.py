"""What exactness costs: ``python -m nnvtrain rdcheck BUNDLE --key CKPT [--inter CKPT] FILE...``

Codes pictures (key networks) and short clips (inter networks, closed loop, low-delay order) twice:
with the networks in float32 as they were trained, and with the bundle in ONNX Runtime. Rates come
from the training's rate model in both cases, so that nothing but the arithmetic differs. Prints
rate and PSNR, and BD-rate.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from . import model as M
from .bundle import Bundle, to_packed
from .ops import TorchOps

QUANTIZERS = (6, 16, 26, 36, 46, 56)


def bd_rate(anchor, test):
    """Bjøntegaard's difference of rates in per cent, by cubic fits of log rate over PSNR. Points:
    [(rate, psnr)].
    """

    def fit(points):
        r, p = np.array(points, float).T
        return np.polyfit(p, np.log(r), min(3, len(points) - 1)), p.min(), p.max()

    (a, a0, a1), (t, t0, t1) = fit(anchor), fit(test)
    lo, hi = max(a0, t0), min(a1, t1)
    if hi <= lo:
        raise ValueError("the curves have no quality in common")
    integral = lambda c: np.polyval(np.polyint(c), hi) - np.polyval(np.polyint(c), lo)
    return 100 * (np.exp((integral(t) - integral(a)) / (hi - lo)) - 1)


def psnr(mses):
    y, u, v = (10 * np.log10(255.0**2 / max(float(m), 1e-9)) for m in mses)
    return (6 * y + u + v) / 8


@torch.no_grad()
def bits(net, sym, index, z):
    """Bits by the training's rate model, from integers as the bundle gives them."""
    sym, index, z = (torch.from_numpy(np.asarray(a)).float() for a in (sym, index, z))
    sharp = M.clamp_index(index + net.ratio_gain * M.neighbour_ratio(sym, M.scale_of(index)))
    b = M.laplace_bits(sym, M.scale_of(sharp))
    b[index == 0] = 0
    sigma = torch.exp2(net.z_log_scale).view(1, -1, 1, 1).clamp(0.2, 64.0)
    return float(b.sum() + M.laplace_bits(z, sigma).sum())


class Float:
    """The networks as they were trained. ``quant``: with rounding as TorchOps does it."""

    def __init__(self, nets, quant=False):
        self.nets, self.quant = nets, quant

    @torch.no_grad()
    def code(self, kind, x, q, p=None, d=None):
        net = self.nets[kind]
        x, p, d = (None if a is None else torch.from_numpy(a).float() / 4 for a in (x, p, d))
        mask = M.checkerboard(x.shape[2] // 2, x.shape[3] // 2)
        pic, by, bz, _ = net(
            TorchOps(quant=self.quant), TorchOps(), x, torch.tensor([q]), p, d, mask, skip=True
        )
        # Pictures are integers for every codec.
        return torch.round(pic * 4).numpy().astype(np.int16), float(by + bz)


class Exact:
    def __init__(self, folder, nets):
        self.bundle, self.nets = Bundle(folder), nets

    def code(self, kind, x, q, p=None, d=None):
        pic, sym, index, z = self.bundle.code(kind, x, q, p, d)
        return pic, bits(self.nets[kind], sym, index, z)


def mse(a, b):
    return M.plane_errors(torch.from_numpy(a).float() / 4, torch.from_numpy(b).float() / 4)[
        0
    ].numpy()


def code_picture(codec, x, q):
    pic, b = codec.code("key", x, q)
    return b / (x.shape[2] * x.shape[3] * 64), mse(pic, x)


def planes(x):
    """Packed i16 to float planes 0..255."""
    return tuple(t + 128.0 for t in M.unpack(torch.from_numpy(x).float() / 4))


def code_clip(codec, frames, q):
    """Rate and errors of the inter frames of a clip, each predicted from the one before and the
    first.
    """
    from . import motion

    rec = [codec.code("key", frames[0], max(0, q - 4))[0]]
    rate, err = 0.0, np.zeros(3)
    for t, x in enumerate(frames[1:], 1):
        lam = motion.lambda_of_step(M.base_step(torch.tensor([float(q)])))
        ref1 = planes(rec[0]) if t > 1 else None
        p, d, *_ = motion.predict(planes(x), planes(rec[-1]), ref1, lam=lam)
        p, d = (
            np.round(M.pack(*a).numpy() * 4).astype(np.int16)
            for a in (tuple(c - 128.0 for c in p), d)
        )
        pic, b = codec.code("inter", x, q, p, d)
        rec.append(pic)
        rate += b / (x.shape[2] * x.shape[3] * 64)
        err += mse(pic, x)
    n = len(frames) - 1
    return rate / n, err / n


def arguments(p):
    p.add_argument("bundle")
    p.add_argument("files", nargs="+", help="pictures and videos")
    p.add_argument("--key", help="checkpoint the bundle was made from")
    p.add_argument("--inter", help="checkpoint the bundle was made from")
    p.add_argument("--init", action="store_true", help="the networks not given are untrained")
    p.add_argument("--frames", type=int, default=4, help="frames of a video")
    p.add_argument("--threads", type=int, default=1)


def run(args):
    from .data import VIDEO_SUFFIXES, read_picture, read_video
    from .export import networks

    torch.set_num_threads(args.threads)
    nets, _ = networks(args)
    codecs = {"float": Float(nets), "exact": Exact(args.bundle, nets)}
    for kind in ("key", "inter"):
        files = [f for f in args.files if (Path(f).suffix in VIDEO_SUFFIXES) == (kind == "inter")]
        deltas = []
        for f in files:
            if kind == "key":
                x = to_packed(*read_picture(f))
                code = lambda c, q: code_picture(c, x, q)
            else:
                frames = [to_packed(*a) for a in read_video(f, args.frames)]
                code = lambda c, q: code_clip(c, frames, q)
            curves = {}
            for name, codec in codecs.items():
                curves[name] = []
                for q in QUANTIZERS:
                    r, e = code(codec, q)
                    curves[name].append((r, psnr(e)))
            deltas.append(bd_rate(curves["float"], curves["exact"]))
            print(
                f"{Path(f).name}: BD-rate of exactness {deltas[-1]:+.2f} %  "
                + "  ".join(
                    f"q{q} {a:.4f}/{b:.4f} bpp {c:.2f}/{d:.2f} dB"
                    for q, (a, c), (b, d) in zip(QUANTIZERS, curves["float"], curves["exact"])
                ),
                flush=True,
            )
        if deltas:
            print(
                (
                    f"{kind} frames: BD-rate of exactness {np.mean(deltas):+.2f} % over "
                    f"{len(deltas)} files"
                ),
                flush=True,
            )

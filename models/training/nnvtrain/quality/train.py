"""``python -m nnvtrain quality``: trains on what ``quality-material`` made, and measures on the
groups that are held out. It can be stopped at any time: the same command goes on.
"""

from __future__ import annotations

import copy
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .material import CAUSES, SSIMULACRA2_STEP, is_held_out, listed
from .model import PATCH, QualityNet, cut, grid, load, save

FRAMES = 3  # of a sequence to learn from, each beside the one before
PATCHES = 8
KEPT = 0.998  # of the mean of the weights, at each step
SETTLED = 4  # frames after which a sequence's mean counts in the measurements
# What stands before a segment's number is one content.
LEAST_OF_A_CONTENT = 4


class Material:
    """Samples of a folder, with both labels where they are there."""

    def __init__(self, folder: Path):
        self.folder = folder
        second = {s["number"]: s["ssimulacra2"] for s in listed(folder, "ssimulacra2.jsonl")}
        self.samples = listed(folder)
        for s in self.samples:
            s["ssimulacra2"] = second.get(s["number"])

    def part(self, held_out: bool) -> list:
        return [s for s in self.samples if is_held_out(s["group"]) == held_out]

    def luma(self, sample: dict, frames=slice(None)) -> np.ndarray:
        h, w = sample["h"], sample["w"]
        path = self.folder / f"{sample['number']:05}.u8"
        flat = np.memmap(path, np.uint8, "r").reshape(-1, h * w * 3 // 2)
        return np.asarray(flat[frames, : h * w]).reshape(-1, h, w)


def labels(sample: dict, first: int, count: int):
    """vmaf, ssimulacra2 (nan where it was not measured), shares, of frames from `first` on."""
    frames = range(first, first + count)
    vmaf = [sample["vmaf"][t] / 100 for t in frames]
    second = np.full(count, np.nan, np.float32)
    if sample["ssimulacra2"]:
        for i, t in enumerate(frames):
            if t % SSIMULACRA2_STEP == 0:
                # Below -100 all is equally bad.
                second[i] = max(-100.0, sample["ssimulacra2"][t // SSIMULACRA2_STEP]) / 100
    return np.array(vmaf, np.float32), second, np.array(
        [sample["shares"][t] for t in frames], np.float32)


class Batches:
    """Draws sequences: groups with weight of the root of their size."""

    def __init__(self, material: Material, samples: list, batch: int, seed: int):
        self.material, self.samples, self.batch = material, samples, batch
        self.rng = np.random.default_rng(seed)
        sizes = defaultdict(int)
        for s in samples:
            sizes[s["group"]] += 1
        weight = np.array([sizes[s["group"]] ** -0.5 for s in samples])
        self.p = weight / weight.sum()

    def one(self):
        rng = self.rng
        sample = self.samples[rng.choice(len(self.samples), p=self.p)]
        total = len(sample["vmaf"])
        first = 1 + int(rng.integers(total - FRAMES))
        luma = self.material.luma(sample, slice(first - 1, first + FRAMES))
        h, w = luma.shape[1:]
        free = max(1, h - PATCH + 1), max(1, w - PATCH + 1)
        places = [tuple(int(rng.integers(n)) for n in free) for _ in range(PATCHES)]
        patches = cut(luma, places)
        for axis in (-1, -2):
            if rng.random() < 0.5:
                patches = np.flip(patches, axis)
        if rng.random() < 0.5:
            patches = patches.swapaxes(-1, -2)
        return patches, *labels(sample, first, FRAMES)

    def draw(self):
        parts = [self.one() for _ in range(self.batch)]
        return [torch.from_numpy(np.ascontiguousarray(np.stack(p))) for p in zip(*parts)]


def loss_of(out, wanted):
    """(loss, parts of it by name)."""
    vmaf, second, causes, _ = out
    want_vmaf, want_second, want_causes = wanted
    known = ~torch.isnan(want_second)
    parts = {"vmaf": F.smooth_l1_loss(vmaf, want_vmaf, beta=0.05)}
    if known.any():
        parts["ssimulacra2"] = F.smooth_l1_loss(second[known], want_second[known], beta=0.1)
    shares = F.kl_div(F.log_softmax(causes, -1), want_causes, reduction="none")
    parts["causes"] = shares.sum(-1).mean()
    # Which of two is better, so far as they differ: order is what is asked of it.
    mean, want = vmaf.mean(1), want_vmaf.mean(1)
    apart = want[:, None] - want[None]
    parts["order"] = F.relu(0.5 * apart.abs() - (mean[:, None] - mean[None]) * apart.sign()).mean()
    weights = {"vmaf": 1.0, "ssimulacra2": 0.3, "causes": 0.05, "order": 0.5}
    return sum(weights[k] * v for k, v in parts.items()), parts


def ranks(values) -> np.ndarray:
    """Ranks from 0 on; equal values share theirs."""
    values = np.asarray(values, np.float64)
    order = np.argsort(values, kind="stable")
    out = np.empty(len(values))
    out[order] = np.arange(len(values))
    for v in np.unique(values):
        same = values == v
        out[same] = out[same].mean()
    return out


def spearman(a, b) -> float:
    """Rank correlation; nan where one of both is constant."""
    a, b = ranks(a), ranks(b)
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def content(sample: dict) -> str:
    return sample["name"].rsplit("_", 1)[0]


@torch.no_grad()
def judge(net: QualityNet, material: Material, sample: dict):
    """(vmaf, ssimulacra2, causes) in the mean of a sample's frames, as the element would say."""
    luma = material.luma(sample)
    patches = torch.from_numpy(cut(luma, grid(*luma.shape[1:])))[None]
    vmaf, second, causes, _ = net(patches)
    causes = causes.softmax(-1)[0, SETTLED:].mean(0)
    return (100 * float(vmaf[0, SETTLED:].mean()), 100 * float(second[0, SETTLED:].mean()),
            causes.numpy())


def summary(rows: list) -> dict:
    """Figures of rows (sample, predicted vmaf, predicted ssimulacra2, predicted causes)."""
    want = [float(np.mean(s["vmaf"][SETTLED + 1 :])) for s, *_ in rows]
    got = [r[1] for r in rows]
    by_content = defaultdict(list)
    for i, (s, *_) in enumerate(rows):
        by_content[content(s)].append(i)
    within = [spearman([want[i] for i in k], [got[i] for i in k])
              for k in by_content.values() if len(k) >= LEAST_OF_A_CONTENT]
    within = [w for w in within if not np.isnan(w)]
    out = {"samples": len(rows), "contents": len(by_content), "spearman_vmaf": spearman(want, got),
           "spearman_within": float(np.mean(within)) if within else float("nan"),
           "contents_within": len(within),
           "mean_error_vmaf": float(np.mean(np.abs(np.subtract(want, got))))}
    both = [(np.mean(s["ssimulacra2"]), r) for s, _, r, _ in rows if s["ssimulacra2"]]
    if both:
        out["spearman_ssimulacra2"] = spearman(*zip(*both))
    main = [(int(np.argmax(np.mean(s["shares"], 0))), int(np.argmax(c)))
            for s, _, _, c in rows if np.mean(s["error"]) > 1]
    if main:
        out["main_cause_right"] = float(np.mean([a == b for a, b in main]))
        out["main_cause_most_frequent"] = float(
            max(np.mean([a == k for a, _ in main]) for k in range(len(CAUSES))))
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in out.items()}


def measure(net, material: Material, samples: list) -> dict:
    net.eval()
    return summary([(s, *judge(net, material, s)) for s in samples])


def arguments(p):
    p.add_argument("--material", type=Path, required=True, help="folder of quality-material")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--decay", type=float, default=0.02, help="of the weights (AdamW)")
    p.add_argument("--amp", choices=["bf16", "none"], default="bf16")
    p.add_argument("--minutes", type=float, default=30,
                   help="the learning rate falls to zero over this time; it ends the run")
    p.add_argument("--eval-every", type=float, default=5, help="minutes")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--measure", action="store_true",
                   help="only measure the checkpoint on all that is held out")


def run(args):
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    material = Material(args.material)
    args.out.mkdir(parents=True, exist_ok=True)
    last = args.out / "last.pt"
    net, state = (QualityNet(), {}) if not last.exists() else load(last)
    spent, step = state.get("seconds", 0.0), state.get("steps", 0)
    held = material.part(True)
    if args.measure:
        report = measure(net, material, held)
        (args.out / "held-out.json").write_text(json.dumps(report, indent=1) + "\n")
        print(json.dumps(report, indent=1))
        return
    learn = material.part(False)
    print(f"{net.parameters_count()} parameters; {len(learn)} samples to learn from, "
          f"{len(held)} held out", flush=True)
    # What is measured and kept is the mean of the weights over the last steps; training goes on
    # from the weights themselves.
    mean = copy.deepcopy(net).requires_grad_(False).eval()
    if "weights" in state:
        net.load_state_dict(state["weights"])
    optimiser = torch.optim.AdamW(net.parameters(), args.lr, weight_decay=args.decay,
                                  betas=(0.9, 0.99))
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
    batches = Batches(material, learn, args.batch, args.seed + step)
    few = held[:: max(1, len(held) // 100)]
    looked = time.time()
    means = defaultdict(list)

    def keep():
        save(mean, last, seconds=spent, steps=step, optimiser=optimiser.state_dict(),
             weights=net.state_dict(), samples=len(learn))

    while spent < 60 * args.minutes:
        began = time.time()
        for group in optimiser.param_groups:
            rest = 1 - spent / (60 * args.minutes)
            group["lr"] = args.lr * min(1.0, (step + 1) / 50) * min(1.0, 1.5 * rest)
        patches, *wanted = batches.draw()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.amp == "bf16"):
            out = net(patches)
        loss, parts = loss_of([v.float() for v in out], wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        with torch.no_grad():
            for kept, new in zip(mean.parameters(), net.parameters()):
                kept.lerp_(new, max(1 - KEPT, 1 / step))
        spent += time.time() - began
        for name, value in parts.items():
            means[name].append(float(value.detach()))
        if time.time() - looked > 60 * args.eval_every:
            parts = ", ".join(f"{k} {np.mean(v):.4f}" for k, v in means.items())
            found = measure(mean, material, few)
            print(f"step {step}, {spent:.0f} s: {parts}; {found}", flush=True)
            means.clear()
            keep()
            looked = time.time()
            # What was made since.
            material = Material(args.material)
            learn = material.part(False)
            batches = Batches(material, learn, args.batch, args.seed + step)
    keep()
    report = measure(mean, material, held)
    (args.out / "held-out.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report), flush=True)

"""Draws what `examples/live.rs` wrote: ``python plot.py FOLDER`` with a folder per controller."""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = {"rule": "#c2571a", "learned": "#1a6fc2", "fixed": "#777777"}
NAMES = {"rule": "rule", "learned": "learned", "fixed": "constant rate"}
LATE_MS = 400


def read(path):
    with open(path, newline="") as f:
        rows = list(csv.DictReader(f))
    return {k: [float(r[k]) for r in rows] for k in (rows[0] if rows else {})}


def smooth(values, n=5):
    return [sum(values[max(0, i - n + 1) : i + 1]) / (i - max(0, i - n + 1) + 1)
            for i in range(len(values))]


def gaps(times, until):
    """Standing pictures: (begin, end)."""
    if not times:
        return [(0, until)]
    steps = sorted(b - a for a, b in zip(times, times[1:]))
    usual = steps[len(steps) // 2] if steps else 0.05
    limit = max(3 * usual, usual + 0.15)
    ends = [*times, until]
    return [(a, b) for a, b in zip(ends, ends[1:]) if b - a > limit]


def main(folder):
    runs = [p for p in sorted(folder.iterdir()) if (p / "frames.csv").exists()]
    if not runs:
        raise SystemExit(f"{folder} holds no runs")
    fig, axes = plt.subplots(4, 1, figsize=(10, 10), sharex=True,
                             gridspec_kw={"height_ratios": [3, 2, 2, 0.5 + 0.3 * len(runs)]})
    rate, delay, quality, frozen = axes
    for n, run in enumerate(runs):
        path, frames = read(run / "path.csv"), read(run / "frames.csv")
        name, colour = NAMES.get(run.name, run.name), COLOURS.get(run.name)
        begin = path["seconds"][0]
        t = [s - begin for s in path["seconds"]]
        if n == 0:
            rate.fill_between(t, path["capacity"], color="#dddddd", label="capacity", step="pre")
        rate.plot(t, smooth(path["passed"]), color=colour, lw=1.2, label=f"sent, {name}")
        if not frames:
            continue
        at = [s - begin for s in frames["seconds"]]
        delay.plot(at, frames["delay_ms"], color=colour, lw=1, label=name)
        quality.plot(at, smooth(frames["psnr"], 3), color=colour, lw=1, label=name)
        bars = [(a, b - a) for a, b in gaps(at, t[-1])]
        frozen.broken_barh(bars, (n - 0.35, 0.7), color=colour)
    rate.set_ylabel("kbit/s")
    rate.legend(loc="upper right", fontsize=8)
    delay.axhline(LATE_MS, color="#999999", lw=0.8, ls="--")
    delay.set_yscale("log")
    delay.set_ylabel("delay (ms)")
    quality.set_ylabel("luma PSNR (dB)")
    frozen.set_yticks(range(len(runs)), [NAMES.get(r.name, r.name) for r in runs])
    frozen.set_ylim(-0.6, len(runs) - 0.4)
    frozen.set_ylabel("frozen")
    frozen.set_xlabel("seconds")
    for axis in axes:
        axis.grid(alpha=0.3)
    fig.tight_layout()
    fig.savefig(folder / "live.png", dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

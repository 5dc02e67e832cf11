"""Command line of the benchmark; see bench/sr/README.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnvrd.clips import REPO

from . import measure, peers, report
from .bundles import ensembles, load, shipped
from .store import Clip, Picture, Small, Speed, Table

FRAMES, QUICK_FRAMES = {"clips": 12, "small": 32}, 8
PARTS = ("pictures", "clips", "small", "speed")


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="bench/sr/run.sh", description="Benchmark of the super-resolution bundles."
    )
    p.add_argument(
        "--bundle",
        action="append",
        type=Path,
        help="a bundle's folder; may be given again (default: all that ship)",
    )
    p.add_argument(
        "--only", action="append", choices=PARTS, help="only this part; may be given again"
    )
    p.add_argument(
        "--quick",
        action="store_true",
        help=f"every sixth picture of BSD100, 4 clips, {QUICK_FRAMES} frames",
    )
    p.add_argument(
        "--frames",
        type=int,
        help=f"frames per clip (default: {FRAMES['clips']} for clips, {FRAMES['small']} for small)",
    )
    p.add_argument(
        "--peers",
        action="store_true",
        help="peers' networks too, which take seconds for a frame (packages: see nnvsr/peers.py)",
    )
    p.add_argument(
        "--threads", type=int, default=2, help="threads when measuring speed (default 2)"
    )
    p.add_argument(
        "--seconds", type=float, default=3, help="for each measurement of speed (default 3)"
    )
    p.add_argument(
        "--report", action="store_true", help="measure nothing; only print tables and write docs/"
    )
    p.add_argument("--no-docs", action="store_true", help="leave docs/ alone; print only")
    p.add_argument(
        "--results", type=Path, default=REPO / "bench/sr/results", help="folder of the CSV files"
    )
    p.add_argument(
        "--cache",
        type=Path,
        default=REPO / "out/rd/cache",
        help="folder for raw copies of the clips (shared with bench/rd)",
    )
    return p.parse_args()


def main():
    a = arguments()
    networks = [n for b in a.bundle for n in load(b)] if a.bundle else shipped(REPO / "models/sr")
    tables = {
        "pictures": Table(a.results / "pictures.csv", Picture),
        "clips": Table(a.results / "clips.csv", Clip),
        "small": Table(a.results / "small.csv", Small),
        "speed": Table(a.results / "speed.csv", Speed),
    }
    others = peers.installed() if a.peers else []
    parts = () if a.report else a.only or PARTS

    def frames(part):
        return a.frames or (QUICK_FRAMES if a.quick else FRAMES[part])

    if "pictures" in parts:
        measure.pictures(tables["pictures"], networks + ensembles(networks) + others, a.quick)
    if "speed" in parts:
        measure.speed(tables["speed"], networks, a.threads, a.seconds)
    if "clips" in parts:
        measure.clips(tables["clips"], networks, others, a.quick, frames("clips"), a.cache)
    if "small" in parts:
        measure.small(tables["small"], networks, frames("small"), a.cache)
    docs = not (a.no_docs or a.bundle)
    side_by_side = report.crops(networks, REPO / "docs/sr") if docs else []
    body = report.section(
        tables,
        networks,
        "bench/sr/run.sh" + (" --quick" if a.quick else "") + (" --peers" if a.peers else ""),
        side_by_side,
    )
    print(body)
    if docs:
        page = REPO / "docs/results.md"
        page.write_text(report.insert(page.read_text() if page.exists() else "", body))


if __name__ == "__main__":
    main()

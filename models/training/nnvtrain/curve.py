"""Learning curves: a row of `curve.csv` for each evaluation, and ``python -m nnvtrain curve``."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

COLOURS = ("#000000", "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 440, 60, 150, 20, 44


def append(path: Path, row: dict):
    """Adds a row; where it has new columns, the older rows get them, empty."""
    rows = read(path)
    columns = list(dict.fromkeys([*(rows[0] if rows else ()), *row]))
    if rows and len(columns) == len(rows[0]):
        with open(path, "a", newline="") as out:
            csv.DictWriter(out, columns).writerow(row)
        return
    tmp = path.with_suffix(".tmp")
    with open(tmp, "w", newline="") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows([*rows, row])
    tmp.replace(path)


def read(path: Path) -> list:
    if not Path(path).exists():
        return []
    with open(path, newline="") as given:
        return list(csv.DictReader(given))


def series(rows: list, columns: list, x: str = "hours", relative: bool = True) -> dict:
    """Points (x, value) of each column; `relative`: in per cent of its first value, less 100."""
    out = {}
    for column in columns:
        points = [(float(r[x]), float(r[column])) for r in rows if r.get(column)]
        if points and relative:
            points = [(at, 100 * (value / points[0][1] - 1)) for at, value in points]
        if points:
            out[column] = points
    return out


def ticks(low: float, high: float) -> list:
    """Round numbers from low to high, five to ten of them."""
    span = max(high - low, 1e-9)
    step = next(s for e in range(-9, 10) for s in (10.0**e, 2 * 10.0**e, 5 * 10.0**e)
                if span / s <= 10)
    first = -int(-low // step)
    return [round(i * step, 9) for i in range(first, int(high // step) + 1)]


def svg(lines: dict, x_label: str, y_label: str) -> str:
    """The series as a picture."""
    xs, ys = ([p[i] for points in lines.values() for p in points] for i in (0, 1))
    (x0, x1), (y0, y1) = (min(xs), max(xs)), (min(ys), max(ys))
    x1, y0, y1 = max(x1, x0 + 1e-6), y0 - 0.05 * (y1 - y0) - 1e-6, y1 + 0.05 * (y1 - y0) + 1e-6
    px = lambda x: LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
    py = lambda y: TOP + (y1 - y) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
    text = lambda x, y, s, more="": f'<text x="{x:.1f}" y="{y:.1f}" {more}>{s}</text>'
    rule = lambda a, b, c, d: (f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}" '
                               'stroke="#dddddd"/>')
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    body = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>']
    for x in ticks(x0, x1):
        body += [rule(px(x), TOP, px(x), bottom),
                 text(px(x), bottom + 16, f"{x:g}", 'text-anchor="middle"')]
    for y in ticks(y0, y1):
        body += [rule(LEFT, py(y), right, py(y)),
                 text(LEFT - 6, py(y) + 4, f"{y:g}", 'text-anchor="end"')]
    body += [text((LEFT + right) / 2, HEIGHT - 8, x_label, 'text-anchor="middle"'),
             text(14, HEIGHT / 2, y_label,
                  f'text-anchor="middle" transform="rotate(-90 14 {HEIGHT / 2})"')]
    for i, (name, points) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        where = [(f"{px(x):.1f}", f"{py(y):.1f}") for x, y in points]
        path, label = " ".join(map(",".join, where)), f"{name} {points[-1][1]:+.2f}"
        body += [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>',
                 *(f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>' for x, y in where),
                 text(right + 12, TOP + 14 + 18 * i, label, f'fill="{colour}"')]
    return "\n".join([*body, "</svg>\n"])


def arguments(p: argparse.ArgumentParser):
    from .kinds import KINDS

    p.add_argument("csv", type=Path, help="curve.csv of a run")
    p.add_argument("--svg", type=Path, help="where to draw it (default: beside it)")
    p.add_argument("--columns", nargs="+", default=["loss", *KINDS, "precoded"])
    p.add_argument("--x", choices=["hours", "step"], default="hours")
    p.add_argument("--absolute", action="store_true", help="values, not changes in per cent")


def run(args):
    lines = series(read(args.csv), args.columns, args.x, not args.absolute)
    if not lines:
        raise SystemExit(f"{args.csv}: no values of {', '.join(args.columns)}")
    out = args.svg or args.csv.with_suffix(".svg")
    out.write_text(svg(lines, args.x, "value" if args.absolute else "change (%)"))
    print(out)

"""Plots as plain SVG text; no library needed, and the files compare well in version control."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path

_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 220, 36, 48


@dataclass(frozen=True)
class Series:
    label: str
    colour: str
    points: list[tuple[float, float]]
    bold: bool = False


def _nice_step(span: float) -> float:
    raw = span / 7
    power = 10 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw)


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(text)}</text>'


def _page(width: int, height: int, body: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *body,
            "</svg>\n",
        ]
    )


def rate_plot(
    path: Path,
    title: str,
    y_label: str,
    series: list[Series],
    x_label: str = "bit per pixel (logarithmic)",
) -> None:
    """Quality over logarithmic rate, one line with markers per series."""
    series = [s for s in series if s.points]
    xs = [math.log10(x) for s in series for x, _ in s.points]
    ys = [y for s in series for _, y in s.points]
    if not xs:
        return
    x0, x1 = min(xs) - 0.05, max(xs) + 0.05
    step = _nice_step(max(ys) - min(ys) or 1)
    y0, y1 = math.floor(min(ys) / step) * step, math.ceil(max(ys) / step) * step
    y1 = max(y1, y0 + step)
    plot_w, plot_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def px(x: float) -> float:
        return _LEFT + (math.log10(x) - x0) / (x1 - x0) * plot_w

    def py(y: float) -> float:
        return _TOP + (y1 - y) / (y1 - y0) * plot_h

    body = [_text(_LEFT, 22, title, 'font-size="15" font-weight="bold"')]
    y = y0
    while y <= y1 + step / 2:
        body.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + plot_w}" y1="{py(y):.1f}" y2="{py(y):.1f}" '
            'stroke="#dddddd"/>'
        )
        body.append(_text(_LEFT - 6, py(y) + 4, f"{y:g}", 'text-anchor="end"'))
        y += step
    for decade in range(math.floor(x0), math.ceil(x1) + 1):
        for m in (1, 2, 5):
            x = m * 10.0**decade
            if x0 <= math.log10(x) <= x1:
                body.append(
                    f'<line y1="{_TOP}" y2="{_TOP + plot_h}" x1="{px(x):.1f}" x2="{px(x):.1f}" '
                    'stroke="#dddddd"/>'
                )
                body.append(_text(px(x), _TOP + plot_h + 16, f"{x:g}", 'text-anchor="middle"'))
    body.append(
        f'<rect x="{_LEFT}" y="{_TOP}" width="{plot_w}" height="{plot_h}" fill="none" '
        'stroke="#888888"/>'
    )
    body.append(_text(_LEFT + plot_w / 2, _HEIGHT - 12, x_label, 'text-anchor="middle"'))
    body.append(
        _text(
            14,
            _TOP + plot_h / 2,
            y_label,
            f'text-anchor="middle" transform="rotate(-90 14 {_TOP + plot_h / 2:.0f})"',
        )
    )
    for i, s in enumerate(series):
        line = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in s.points)
        body.append(
            f'<polyline points="{line}" fill="none" stroke="{s.colour}" '
            f'stroke-width="{2.5 if s.bold else 1.3}"/>'
        )
        body += [
            f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="{3 if s.bold else 2}" '
            f'fill="{s.colour}"/>'
            for x, y in s.points
        ]
        ly = _TOP + 12 + i * 18
        lx = _LEFT + plot_w + 12
        body.append(
            f'<line x1="{lx}" x2="{lx + 18}" y1="{ly - 4}" y2="{ly - 4}" stroke="{s.colour}" '
            f'stroke-width="{2.5 if s.bold else 1.3}"/>'
        )
        body.append(_text(lx + 24, ly, s.label, 'font-size="11"'))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(_WIDTH, _HEIGHT, body))


def bar_plot(path: Path, title: str, bars: list[tuple[str, float]]) -> None:
    """Horizontal bars around zero: to the left (green) is gain, to the right (red) is loss, in
    percent.
    """
    if not bars:
        return
    row, left = 20, 230
    height = 44 + row * len(bars) + 10
    limit = max(max(abs(v) for _, v in bars), 1.0)
    mid, half = left + 210, 170
    body = [_text(12, 22, title, 'font-size="15" font-weight="bold"')]
    for i, (label, value) in enumerate(bars):
        y = 40 + i * row
        length = abs(value) / limit * half
        x = mid - length if value < 0 else mid
        body.append(_text(left - 8, y + 13, label, 'text-anchor="end"'))
        body.append(
            f'<rect x="{x:.1f}" y="{y + 2}" width="{length:.1f}" height="{row - 5}" '
            f'fill="{"#30a050" if value < 0 else "#d04040"}"/>'
        )
        at, anchor = (x - 4, "end") if value < 0 else (x + length + 4, "start")
        body.append(_text(at, y + 13, f"{value:+.1f} %", f'text-anchor="{anchor}" font-size="11"'))
    body.append(f'<line x1="{mid}" x2="{mid}" y1="36" y2="{height - 8}" stroke="#888888"/>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(left + 450, height, body))

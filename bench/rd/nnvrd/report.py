"""Tables on the terminal, docs/results.md and the plots, from the rows that are there."""

from __future__ import annotations

import argparse
import math
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from .bdrate import BdResult, bd_rate, make_curve
from .clips import REPO, Clip
from .codecs import CODECS, Model, Models, interval_of
from .store import Row, Store
from .svg import Series, bar_plot, rate_plot

PLOTS = "bench/rd/plots"
# (test, anchor): what the tables compare, most important first.
VIDEO_PAIRS = (
    ("nnv-ld", "x264-zl"), ("nnv-b7", "x264-medium"), ("nnv-b7", "x264-medium-psnr"),
    ("nnv-b7", "x265-medium"), ("nnv-b7", "x265-medium-psnr"), ("nnv-b7", "svtav1-p10"),
    ("nnv-b7", "svtav1-p8"), ("nnv-b7", "svtav1-p6"), ("nnv-b7", "vvenc-faster"),
    ("nnv-ld-visual", "x264-zl"), ("nnv-b7-visual", "x264-medium"), ("nnv-b7-visual", "nnv-b7"),
    ("nnv-b7", "nnv-b7-unfiltered"), ("nnv-key", "x264-intra"), ("nnv-key", "x265-intra"),
    ("nnv-ld", "nnv-key"), ("nnv-b7", "nnv-key"),
    ("x264-zl", "x264-medium"), ("x264-medium-psnr", "x264-medium"), ("x265-medium", "x264-medium"),
    ("x265-medium-psnr", "x264-medium"), ("svtav1-p10", "x264-medium"),
    ("svtav1-p8", "x264-medium"), ("svtav1-p6", "x264-medium"), ("vvenc-faster", "x264-medium"),
)  # fmt: skip
STILL_PAIRS = (("nnv-key", "x264-intra"), ("nnv-key", "x265-intra"), ("x265-intra", "x264-intra"))
# Against these losses are listed and bars drawn; lines that would hide others are not drawn.
MAIN_ANCHORS = ("x264-zl", "x264-medium", "x265-medium", "svtav1-p8", "x264-intra", "x265-intra")
NOT_DRAWN = ("x264-medium-psnr", "x265-medium-psnr", "svtav1-p10")


def decibels(similarity: float) -> float:
    """SSIM-like figures crowd near one; -10 log10(1 - s) spreads them for interpolation."""
    return -10 * math.log10(max(1 - similarity, 1e-9))


def _known(value: float | None) -> float:
    return math.nan if value is None else value


MEASURES = {
    "psnr_yuv": ("PSNR (6Y+U+V)/8", lambda r: r.psnr_yuv),
    "psnr_y": ("PSNR Y", lambda r: r.psnr_y),
    "psnr_u": ("PSNR U", lambda r: r.psnr_u),
    "psnr_v": ("PSNR V", lambda r: r.psnr_v),
    "ssim": ("SSIM Y", lambda r: decibels(r.ssim)),
    "msssim": ("MS-SSIM Y", lambda r: decibels(r.msssim)),
    "vmaf": ("VMAF", lambda r: _known(r.vmaf)),
    "xpsnr": ("XPSNR (6Y+U+V)/8", lambda r: _known(r.xpsnr)),
}


@dataclass
class Selection:
    """The rows of one setting: clip -> codec -> rows by rate."""

    rows: dict[str, dict[str, list[Row]]]
    still: bool

    def codecs(self) -> list[str]:
        there = {c for by_codec in self.rows.values() for c in by_codec}
        return [c for c in CODECS if c in there]

    def of(self, codec: str) -> list[Row]:
        return [row for by_codec in self.rows.values() for row in by_codec.get(codec, [])]


def select(
    store: Store, clips: list[Clip], frames: int, key_interval: int, models: Models,
    versions: dict[str, str],
) -> Selection:  # fmt: skip
    """The rows of this setting, and of codecs with a known version only that one's. A clip may be
    shorter than `frames`: the longest length measured, up to `frames`, is the clip's."""
    chosen: dict[str, dict[str, list[Row]]] = {}
    for clip in clips:
        limit = 1 if clip.still else frames
        fits = [
            r for r in store.rows.values()
            if r.clip == clip.name and r.frames <= limit and r.codec in CODECS
            and versions.get(r.codec, r.version) == r.version
        ]  # fmt: skip
        length = max((r.frames for r in fits), default=0)
        by_codec: dict[str, list[Row]] = {}
        for row in fits:
            codec = CODECS[row.codec]
            config = codec.config(interval_of(key_interval, length))
            if row.frames != length or row.config != config:
                continue
            if codec.kind == "nnv" and (
                codec.bundle not in models or row.model != models[codec.bundle].hash
            ):
                continue
            by_codec.setdefault(row.codec, []).append(row)
        for rows in by_codec.values():
            rows.sort(key=lambda r: r.bytes)
        if by_codec:
            chosen[clip.name] = by_codec
    return Selection(chosen, all(c.still for c in clips))


def restricted(
    selection: Selection, codecs: list[str] | None, points: set[int] | None
) -> Selection:
    """Only these codecs, and of NNV's points only these."""

    def wanted(row: Row) -> bool:
        nnv = CODECS[row.codec].kind == "nnv"
        return (codecs is None or row.codec in codecs) and (
            points is None or not nnv or row.point in points
        )

    rows = {
        clip: {c: kept for c, rows in by.items() if (kept := [r for r in rows if wanted(r)])}
        for clip, by in selection.rows.items()
    }
    return Selection({clip: by for clip, by in rows.items() if by}, selection.still)


def refuse_mixtures(selection: Selection) -> None:
    """Two versions of an encoder are two encoders: no table has both under one name."""
    for codec in selection.codecs():
        found = sorted({row.version for row in selection.of(codec)})
        if len(found) > 1:
            raise SystemExit(f"bench/rd: rows of {codec} are of several versions: "
                             f"{'; '.join(found)}. A run without --report mends that.")  # fmt: skip


def compare(
    selection: Selection, clip: str, test: str, anchor: str, measure: str
) -> BdResult | None:
    by_codec = selection.rows.get(clip, {})
    if test not in by_codec or anchor not in by_codec:
        return None
    value = MEASURES[measure][1]
    curves = [
        make_curve([r.bpp for r in rows], [value(r) for r in rows])
        for rows in (by_codec[anchor], by_codec[test])
    ]
    return bd_rate(*curves)


def mean(
    selection: Selection, test: str, anchor: str, measure: str
) -> tuple[float, int] | None:
    results = [compare(selection, clip, test, anchor, measure) for clip in selection.rows]
    found = [result.percent for result in results if result]
    return (fmean(found), len(found)) if found else None


def _cell(result: BdResult | None) -> str:
    if result is None:
        return ""
    return f"{result.percent:+.1f}" + ("?" if result.overlap < 0.5 else "")


def markdown_table(head: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths))]
        return f"| {' | '.join(padded)} |"

    rules = ["-" * (w + 1) + ":" if i else "-" * (w + 2) for i, w in enumerate(widths)]
    return [line(head), f"|{'|'.join(rules)}|", *(line(row) for row in body)]


Pairs = list[tuple[str, str]]


def pairs_of(selection: Selection) -> Pairs:
    pairs = STILL_PAIRS if selection.still else VIDEO_PAIRS
    there = selection.codecs()
    return [(t, a) for t, a in pairs if t in there and a in there]


def with_nnv(pairs: Pairs) -> Pairs:
    return [(t, a) for t, a in pairs if CODECS[t].kind == "nnv"]


def without_nnv(pairs: Pairs) -> Pairs:
    return [(t, a) for t, a in pairs if CODECS[t].kind != "nnv"]


def bd_by_clip(selection: Selection, pairs: Pairs) -> list[str]:
    body = [
        [clip, *(_cell(compare(selection, clip, t, a, "psnr_yuv")) for t, a in pairs)]
        for clip in selection.rows
    ]
    means = [mean(selection, t, a, "psnr_yuv") for t, a in pairs]
    body.append(["**mean**", *(f"**{_mean_cell(m, len(selection.rows))}**" for m in means)])
    return markdown_table(["clip", *(f"{t} / {a}" for t, a in pairs)], body)


def _mean_cell(found: tuple[float, int] | None, clips: int) -> str:
    """A mean over fewer clips than the table has says so."""
    if not found:
        return ""
    return f"{found[0]:+.1f}" + (f" ({found[1]})" if found[1] < clips else "")


def bd_by_measure(selection: Selection, pairs: Pairs) -> list[str]:
    body = []
    for measure, (title, _) in MEASURES.items():
        means = [mean(selection, t, a, measure) for t, a in pairs]
        if any(means):
            body.append([title, *(_mean_cell(m, len(selection.rows)) for m in means)])
    return markdown_table(["measure", *(f"{t} / {a}" for t, a in pairs)], body)


def losses(selection: Selection) -> list[str]:
    """Where NNV needs more bits than a main anchor: worst first, with the share of each plane."""
    found = []
    for test, anchor in with_nnv(pairs_of(selection)):
        if anchor not in MAIN_ANCHORS:
            continue
        for clip in selection.rows:
            result = compare(selection, clip, test, anchor, "psnr_yuv")
            if result and result.percent > 0:
                parts = [_cell(compare(selection, clip, test, anchor, m))
                         for m in ("psnr_y", "psnr_u", "psnr_v", "msssim")]  # fmt: skip
                row = [clip, f"{test} / {anchor}", _cell(result), *parts]
                found.append((result.percent, row))
    if not found:
        return []
    found.sort(key=lambda f: -f[0])
    head = ["clip", "comparison", "BD-rate %", "Y", "U", "V", "MS-SSIM"]
    return markdown_table(head, [row for _, row in found])


def ordering(selection: Selection) -> list[str]:
    """Whether a higher quantizer always means a smaller file and a lower PSNR, per NNV codec."""
    lines = []
    for codec in (c for c in selection.codecs() if CODECS[c].kind == "nnv"):
        broken, count = [], 0
        for clip, by_codec in selection.rows.items():
            rows = sorted(by_codec.get(codec, []), key=lambda r: r.point)
            count += bool(rows)
            if any(b.bytes >= a.bytes or b.psnr_yuv >= a.psnr_yuv for a, b in zip(rows, rows[1:])):
                broken.append(clip)
        points = ", ".join(map(str, sorted({r.point for r in selection.of(codec)})))
        lines.append(f"- {codec}, quantizers {points}: size and PSNR fall strictly on "
                     f"{count - len(broken)} of {count}"
                     f"{': not on ' + ', '.join(broken) if broken else ''}")  # fmt: skip
    return lines


def speeds(selection: Selection) -> list[str]:
    """User CPU time over all points, and how it compares with that of the first NNV codec."""
    costs = {}  # seconds per megapixel, encoding and decoding
    for codec in selection.codecs():
        rows = selection.of(codec)
        pixels = sum(r.frames * r.width * r.height for r in rows) / 1e6
        costs[codec] = (sum(r.encode_cpu_s for r in rows) / pixels,
                        sum(r.decode_cpu_s for r in rows) / pixels)  # fmt: skip
    base = "nnv-b7" if "nnv-b7" in costs else next(iter(costs))
    body = [
        [CODECS[codec].title, *(f"{1 / c:.2f}" for c in cost),
         *(f"{1 / (c * 0.2304):.1f}" for c in cost),
         *(f"{own / c:.2f}" for c, own in zip(cost, costs[base]))]
        for codec, cost in costs.items()
    ]  # fmt: skip
    rows = [row for codec in costs for row in selection.of(codec)]
    machines = " and ".join(sorted({row.machine for row in rows}))
    threads = "/".join(str(t) for t in sorted({row.threads for row in rows}))
    both = ("encode", "decode")
    head = ["codec", *(f"{way} Mpixel/s" for way in both),
            *(f"{way} fps at 640x360" for way in both),
            *(f"{base} takes × its {way} time" for way in both)]  # fmt: skip
    return [*markdown_table(head, body), "",
            f"User CPU time on {machines}, threads: {threads}, mean load "
            f"{fmean(row.load for row in rows):.1f}."]  # fmt: skip


def complexity(model: Model | None) -> list[str]:
    if model is None:
        return []
    found: list[tuple[str, float]] = []

    def walk(prefix: str, node: dict) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)
            elif "mac" in key.lower() and isinstance(value, (int, float)):
                found.append((prefix + key, value))

    walk("", model.facts)
    return [f"- {name}: {value:g}" for name, value in found]


def plots(selection: Selection, tag: str, page: Path) -> list[str]:
    """One rate plot per clip (for pictures: one of the means), and bars of the main comparisons.
    Returns Markdown for the page."""
    out: list[str] = []
    codecs = [c for c in selection.codecs() if c not in NOT_DRAWN]
    folder = REPO / PLOTS

    def linked(name: str, text: str) -> Path:
        out.append(f"![{text}]({os.path.relpath(folder / name, page.parent)})")
        return folder / name

    def series(points: dict[str, list[tuple[float, float]]]) -> list[Series]:
        return [
            Series(CODECS[c].title, CODECS[c].colour, points[c], CODECS[c].kind == "nnv")
            for c in codecs if c in points
        ]  # fmt: skip

    for test, anchor in with_nnv(pairs_of(selection)):
        results = {c: compare(selection, c, test, anchor, "psnr_yuv") for c in selection.rows}
        bars = [(clip, r.percent) for clip, r in results.items() if r]
        if bars and anchor in MAIN_ANCHORS:
            bars.append(("mean", fmean(v for _, v in bars)))
            title = f"BD-rate of {CODECS[test].title} against {CODECS[anchor].title}"
            file = linked(f"{tag}bd-{test}-{anchor}.svg", f"{test} against {anchor}")
            bar_plot(file, title, bars)
    label = "PSNR (6Y+U+V)/8, dB"
    if selection.still:
        merged: dict[str, list[tuple[float, float]]] = {}
        for codec in codecs:
            for point in sorted({r.point for r in selection.of(codec)}):
                rows = [r for r in selection.of(codec) if r.point == point]
                if len(rows) == len(selection.rows):
                    means = fmean(r.bpp for r in rows), fmean(r.psnr_yuv for r in rows)
                    merged.setdefault(codec, []).append(means)
        title = f"{tag.rstrip('-')}: means over {len(selection.rows)} pictures"
        rate_plot(linked(f"{tag}mean.svg", "means"), title, label, series(merged))
        return out
    for clip, rows in selection.rows.items():
        points = {c: [(r.bpp, r.psnr_yuv) for r in rows[c]] for c in rows}
        rate_plot(linked(f"{tag}{clip}.svg", clip), clip, label, series(points))
    return out


METHOD = """Rate is the size of the file: for the anchors a bare elementary stream without its text
SEI and access unit delimiters, for NNV the `.nnv` file with all headers. PSNR is taken per plane
from the mean squared error over the whole clip; (6Y+U+V)/8 weighs the three PSNR values. SSIM and
MS-SSIM are means of luma over every third frame, VMAF (libvmaf, its default model) is the mean of
all frames' scores, XPSNR the decibels of the squared mean of all frames' root weighted errors (as
ffmpeg's filter sums it up, plane by plane). BD-rate: Akima interpolation of log rate over quality
(for SSIM and MS-SSIM over -10 log10(1 - s)), clip by clip, then the mean; negative = fewer bits
than the anchor; a question mark stands where the curves share less than half of their range. Each
codec got the same frames, decoded once to 8-bit 4:2:0, and the same key-frame interval; the block
codecs chose their own B frames. Times are user CPU times of whole processes, start-up and file
access included, over all points of all clips; they are to be compared within one table only."""


def provenance(selection: Selection, models: Models) -> list[str]:
    """Which encoders, bundles and frame counts are behind the rows."""
    lines = []
    for codec in selection.codecs():
        version = selection.of(codec)[0].version
        config = CODECS[codec].config(0).rsplit(" key=", 1)[0]
        bundle = CODECS[codec].bundle
        if CODECS[codec].kind == "nnv" and bundle in models:
            version += f", bundle `{bundle}` {models[bundle].hash}"
        lines.append(f"- {codec}: {CODECS[codec].title}, {version} (`{config}`)")
    if not selection.still:
        counts: dict[int, list[str]] = {}
        for clip, by_codec in selection.rows.items():
            counts.setdefault(next(iter(by_codec.values()))[0].frames, []).append(clip)
        most = max(counts, key=lambda n: len(counts[n]))
        others = [f"{', '.join(names)}: {n}" for n, names in sorted(counts.items()) if n != most]
        lines.append(f"- Frames measured: {most} of each clip"
                     + (f" (all there are of {'; '.join(others)})" if others else ""))  # fmt: skip
    return lines


def section(
    title: str, selection: Selection, models: Models, command: str, tag: str, page: Path
) -> str:
    pairs = pairs_of(selection)
    lines = [f"## {title}", "", f"Command: `{command}`", "", *provenance(selection, models), "",
             METHOD]  # fmt: skip
    for what, some in (("", with_nnv(pairs)), (", anchors among themselves", without_nnv(pairs))):
        if some:
            lines += ["", f"### BD-rate by clip, % (PSNR (6Y+U+V)/8){what}", "",
                      *bd_by_clip(selection, some), "",
                      f"### Mean BD-rate by measure, %{what}", "",
                      *bd_by_measure(selection, some)]  # fmt: skip
    lost = losses(selection)
    if lost:
        lines += ["", "### Where NNV loses", "", *lost]
    lines += ["", "### Order of the quantizers", "", *ordering(selection)]
    if not selection.still:
        lines += ["", "### Speed", "", *speeds(selection)]
    macs = complexity(next(iter(models.values()), None))
    if macs:
        lines += ["", "### Complexity", "", *macs]
    lines += ["", "### Plots", "", *plots(selection, tag, page), ""]
    return "\n".join(lines)


def insert_section(text: str, name: str, body: str) -> str:
    """Replace what stands between this section's marks, or append it: the rest is not ours."""
    begin, end = f"<!-- rd:{name}:begin -->", f"<!-- rd:{name}:end -->"
    block = f"{begin}\n{body}\n{end}\n"
    if begin in text and end in text:
        head, rest = text.split(begin, 1)
        tail = rest.split(end, 1)[1].lstrip("\n")
        return head + block + ("\n" + tail if tail else "")
    return (text.rstrip("\n") + "\n\n" if text.strip() else "# Results\n\n") + block


def command_of(a: argparse.Namespace) -> str:
    """The command that makes this section."""
    parts = ["bench/rd/run.sh"]
    if a.dataset != "video":
        parts += ["--dataset", a.dataset]
    for option, value in (("--frames", a.frames), ("--codecs", a.codecs), ("--points", a.points),
                          ("--model-path", a.model_path)):  # fmt: skip
        if value:
            parts += [option, str(value)]
    if a.key_interval != "whole":
        parts += ["--key-interval", a.key_interval]
    if a.vmaf:
        parts.append("--vmaf")
    return shlex.join(parts)


def publish(
    a: argparse.Namespace, clips: list[Clip], store: Store, models: Models,
    versions: dict[str, str],
) -> None:  # fmt: skip
    selection = select(store, clips, a.nframes, a.key, models, versions)
    codecs = a.codecs.split(",") if a.codecs else None
    points = {int(p) for p in a.points.split(",")} if a.points else None
    selection = restricted(selection, codecs, points)
    refuse_mixtures(selection)
    if not selection.rows:
        print("bench/rd: no results for this setting yet")
        return
    name = a.dataset + ("" if a.key_interval == "whole" else f"-key{a.key_interval}")
    if a.dataset == "video":
        title = f"Development clips, first {a.nframes} frames"
    else:
        title = f"{a.dataset.capitalize()} pictures, one key frame each"
    if a.key_interval != "whole":
        title += f", key frame every {a.key_interval}"
    tag = "" if name == "video" else f"{name}-"
    if a.no_docs or a.quick or a.clips:
        pairs = pairs_of(selection)
        print("\n".join(["", *provenance(selection, models), "", *bd_by_clip(selection, pairs), "",
                         *bd_by_measure(selection, pairs), "", *losses(selection), "",
                         *ordering(selection), "", *speeds(selection)]))  # fmt: skip
        return
    body = section(title, selection, models, command_of(a), tag, a.page.resolve())
    print(f"\n{body}")
    text = a.page.read_text() if a.page.exists() else ""
    a.page.parent.mkdir(parents=True, exist_ok=True)
    a.page.write_text(insert_section(text, name, body))
    print(f"wrote {a.page} and {PLOTS}/")

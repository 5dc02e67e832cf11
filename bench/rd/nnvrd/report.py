"""Tables on the terminal, docs/results.md and its plots, from the rows that are there."""

from __future__ import annotations

import argparse
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from .bdrate import BdResult, bd_rate, make_curve
from .clips import REPO, Clip
from .codecs import CODECS, Model, Models, interval_of
from .store import Row, Store
from .svg import Series, bar_plot, rate_plot

# (test, anchor): what the tables compare, most important first.
VIDEO_PAIRS = (
    ("nnv-ld", "x264-zl"), ("nnv-b7", "x264-medium"), ("nnv-b7", "x265-medium"), ("nnv-b7", "svtav1-p8"),
    ("nnv-ld-visual", "x264-zl"), ("nnv-b7-visual", "x264-medium"), ("nnv-b7-visual", "nnv-b7"), ("nnv-b7", "nnv-b7-unfiltered"),
    ("nnv-key", "x264-intra"), ("nnv-key", "x265-intra"), ("nnv-ld", "nnv-key"), ("nnv-b7", "nnv-key"),
    ("nnv-b7", "x264-medium-psnr"), ("x265-medium", "x264-medium"), ("svtav1-p8", "x264-medium"),
    ("x264-zl", "x264-medium"), ("x264-medium-psnr", "x264-medium"), ("x265-medium-psnr", "x265-medium"),
)  # fmt: skip
STILL_PAIRS = (("nnv-key", "x264-intra"), ("nnv-key", "x265-intra"), ("x265-intra", "x264-intra"))


def decibels(similarity: float) -> float:
    """SSIM-like figures crowd near one; -10 log10(1 - s) spreads them so that curves can be interpolated."""
    return -10 * math.log10(max(1 - similarity, 1e-9))


MEASURES = {
    "psnr_yuv": ("PSNR (6Y+U+V)/8", lambda r: r.psnr_yuv),
    "psnr_y": ("PSNR Y", lambda r: r.psnr_y),
    "psnr_u": ("PSNR U", lambda r: r.psnr_u),
    "psnr_v": ("PSNR V", lambda r: r.psnr_v),
    "ssim": ("SSIM Y", lambda r: decibels(r.ssim)),
    "msssim": ("MS-SSIM Y", lambda r: decibels(r.msssim)),
    "vmaf": ("VMAF", lambda r: math.nan if r.vmaf is None else r.vmaf),
}


@dataclass
class Selection:
    """The rows of one setting: clip -> codec -> rows by rate."""

    rows: dict[str, dict[str, list[Row]]]
    still: bool

    def codecs(self) -> list[str]:
        there = {c for by_codec in self.rows.values() for c in by_codec}
        return [c for c in CODECS if c in there]


def select(store: Store, clips: list[Clip], frames: int, key_interval: int, models: Models) -> Selection:
    """A clip may be shorter than `frames`: the longest length measured, up to `frames`, is the clip's."""
    chosen: dict[str, dict[str, list[Row]]] = {}
    for clip in clips:
        fits = [r for r in store.rows.values() if r.clip == clip.name and r.frames <= (1 if clip.still else frames)]
        if not fits:
            continue
        length = max(r.frames for r in fits)
        by_codec: dict[str, list[Row]] = {}
        for row in fits:
            codec = CODECS.get(row.codec)
            if codec is None or row.frames != length or row.config != codec.config(interval_of(key_interval, length)):
                continue
            if codec.kind == "nnv" and (codec.bundle not in models or row.model != models[codec.bundle].hash):
                continue
            by_codec.setdefault(row.codec, []).append(row)
        for rows in by_codec.values():
            rows.sort(key=lambda r: r.bytes)
        if by_codec:
            chosen[clip.name] = by_codec
    return Selection(chosen, all(c.still for c in clips))


def restricted(selection: Selection, codecs: list[str] | None, points: set[int] | None) -> Selection:
    """Only these codecs, and of NNV's points only these: others may be of an earlier source revision, which a curve must not mix."""
    def wanted(row: Row) -> bool:
        return (codecs is None or row.codec in codecs) and (points is None or CODECS[row.codec].kind != "nnv" or row.point in points)

    rows = {clip: {c: kept for c, rows in by.items() if (kept := [r for r in rows if wanted(r)])} for clip, by in selection.rows.items()}
    return Selection({clip: by for clip, by in rows.items() if by}, selection.still)


def compare(selection: Selection, clip: str, test: str, anchor: str, measure: str) -> BdResult | None:
    by_codec = selection.rows.get(clip, {})
    if test not in by_codec or anchor not in by_codec:
        return None
    value = MEASURES[measure][1]
    curves = [make_curve([r.bpp for r in by_codec[c]], [value(r) for r in by_codec[c]]) for c in (anchor, test)]
    return bd_rate(*curves)


def mean(selection: Selection, test: str, anchor: str, measure: str) -> tuple[float, int] | None:
    found = [r.percent for clip in selection.rows if (r := compare(selection, clip, test, anchor, measure))]
    return (fmean(found), len(found)) if found else None


def _cell(result: BdResult | None) -> str:
    if result is None:
        return ""
    return f"{result.percent:+.1f}" + ("?" if result.overlap < 0.5 else "")


def markdown_table(head: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return [line(head), rule, *(line(row) for row in body)]


def pairs_of(selection: Selection) -> list[tuple[str, str]]:
    pairs = STILL_PAIRS if selection.still else VIDEO_PAIRS
    there = selection.codecs()
    return [(t, a) for t, a in pairs if t in there and a in there]


def bd_by_clip(selection: Selection) -> list[str]:
    pairs = pairs_of(selection)
    if not pairs:
        return ["Fewer than two codecs of a comparison have been measured."]
    body = [[clip] + [_cell(compare(selection, clip, t, a, "psnr_yuv")) for t, a in pairs] for clip in selection.rows]
    means = [mean(selection, t, a, "psnr_yuv") for t, a in pairs]
    body.append(["**mean**"] + [f"**{m[0]:+.1f}**" if m else "" for m in means])
    return markdown_table(["clip"] + [f"{t} / {a}" for t, a in pairs], body)


def bd_by_measure(selection: Selection) -> list[str]:
    pairs = pairs_of(selection)
    body = []
    for measure, (title, _) in MEASURES.items():
        means = [mean(selection, t, a, measure) for t, a in pairs]
        if any(means):
            # A mean over fewer clips than the table has says so.
            count = len(selection.rows)
            body.append([title] + [(f"{m[0]:+.1f}" + (f" ({m[1]})" if m[1] < count else "")) if m else "" for m in means])
    return markdown_table(["measure"] + [f"{t} / {a}" for t, a in pairs], body) if body else []


def losses(selection: Selection) -> list[str]:
    """Where NNV needs more bits than a foreign anchor: clip by clip, worst first, with the share of each plane."""
    found = []
    for test, anchor in pairs_of(selection):
        if CODECS[test].kind != "nnv" or CODECS[anchor].kind == "nnv":
            continue
        for clip in selection.rows:
            result = compare(selection, clip, test, anchor, "psnr_yuv")
            if result and result.percent > 0:
                planes = [_cell(compare(selection, clip, test, anchor, f"psnr_{p}")) for p in "yuv"]
                found.append((result.percent, [clip, f"{test} / {anchor}", _cell(result), *planes,
                                               _cell(compare(selection, clip, test, anchor, "msssim"))]))  # fmt: skip
    if not found:
        return []
    found.sort(key=lambda f: -f[0])
    return markdown_table(["clip", "comparison", "BD-rate %", "Y", "U", "V", "MS-SSIM"], [row for _, row in found])


def ordering(selection: Selection) -> list[str]:
    """Whether a higher quantizer always means a smaller file and a lower PSNR, per NNV codec."""
    lines = []
    for codec in (c for c in selection.codecs() if CODECS[c].kind == "nnv"):
        curves = {clip: sorted(by[codec], key=lambda r: r.point) for clip, by in selection.rows.items() if codec in by}
        broken = [clip for clip, rows in curves.items()
                  if any(b.bytes >= a.bytes or b.psnr_yuv >= a.psnr_yuv for a, b in zip(rows, rows[1:]))]  # fmt: skip
        points = sorted({r.point for rows in curves.values() for r in rows})
        lines.append(f"- {codec}, quantizers {', '.join(map(str, points))}: size and PSNR fall strictly on {len(curves) - len(broken)} of "
                     f"{len(curves)}{': not on ' + ', '.join(broken) if broken else ''}")  # fmt: skip
    return lines


def speeds(selection: Selection) -> list[str]:
    body = []
    for codec in selection.codecs():
        rows = [r for by_codec in selection.rows.values() for r in by_codec.get(codec, [])]
        pixels = sum(r.frames * r.width * r.height for r in rows)
        enc, dec = sum(r.encode_s for r in rows), sum(r.decode_s for r in rows)
        body.append([CODECS[codec].title, f"{pixels / enc / 1e6:.2f}", f"{pixels / dec / 1e6:.2f}",
                     f"{pixels / enc / (640 * 360):.1f}", f"{pixels / dec / (640 * 360):.1f}",
                     "/".join(str(t) for t in sorted({r.threads for r in rows})),
                     f"{fmean(r.load for r in rows):.1f}"])  # fmt: skip
    return markdown_table(["codec", "encode Mpixel/s", "decode Mpixel/s", "encode fps at 640x360", "decode fps at 640x360",
                           "threads", "load"], body)  # fmt: skip


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


def plots(selection: Selection, folder: Path, tag: str) -> list[str]:
    """One rate plot per clip (for pictures: one of the means), and bars of the main comparisons. Returns Markdown."""
    out: list[str] = []
    codecs = selection.codecs()

    def series(rows: dict[str, list[Row]]) -> list[Series]:
        return [Series(CODECS[c].title, CODECS[c].colour, [(r.bpp, r.psnr_yuv) for r in rows[c]], CODECS[c].kind == "nnv")
                for c in codecs if c in rows]  # fmt: skip

    for test, anchor in pairs_of(selection):
        if CODECS[test].kind != "nnv":
            continue
        bars = [(clip, r.percent) for clip in selection.rows if (r := compare(selection, clip, test, anchor, "psnr_yuv"))]
        if bars:
            bars.append(("mean", fmean(v for _, v in bars)))
            file = folder / f"{tag}bd-{test}-{anchor}.svg"
            bar_plot(file, f"BD-rate of {CODECS[test].title} against {CODECS[anchor].title}", bars)
            out.append(f"![{test} against {anchor}]({file.relative_to(REPO / 'docs')})")
    if selection.still:
        merged: dict[str, list[tuple[float, float]]] = {}
        for codec in codecs:
            points = sorted({r.point for by in selection.rows.values() for r in by.get(codec, [])})
            for point in points:
                rows = [r for by in selection.rows.values() for r in by.get(codec, []) if r.point == point]
                if len(rows) == len(selection.rows):
                    merged.setdefault(codec, []).append((fmean(r.bpp for r in rows), fmean(r.psnr_yuv for r in rows)))
        file = folder / f"{tag}mean.svg"
        rate_plot(file, f"{tag.rstrip('-')}: means over {len(selection.rows)} pictures", "PSNR (6Y+U+V)/8, dB",
                  [Series(CODECS[c].title, CODECS[c].colour, p, CODECS[c].kind == "nnv") for c, p in merged.items()])  # fmt: skip
        out.append(f"![means]({file.relative_to(REPO / 'docs')})")
        return out
    for clip, rows in selection.rows.items():
        file = folder / f"{tag}{clip}.svg"
        rate_plot(file, clip, "PSNR (6Y+U+V)/8, dB", series(rows))
        out.append(f"![{clip}]({file.relative_to(REPO / 'docs')})")
    return out


METHOD = """Rate is the size of the file: for the anchors a bare elementary stream without its text SEI, for NNV the `.nnv` file with
all headers. PSNR is taken per plane from the mean squared error over the whole clip; (6Y+U+V)/8 weighs the three PSNR values. SSIM and MS-SSIM are
means of luma over every third frame, VMAF (libvmaf, its default model) of all frames. BD-rate: Akima interpolation of log rate over quality (for SSIM and MS-SSIM over -10 log10(1 - s)), negative = fewer
bits than the anchor; a question mark stands where the curves share less than half of their range. Each codec got the same frames, decoded once to 8-bit 4:2:0,
and the same key-frame interval. Times are wall-clock times of whole processes, start-up and file access included, on a machine under the given mean load."""


def section(title: str, selection: Selection, models: Models, command: str, tag: str) -> str:
    lines = [f"## {title}", "", f"Command: `{command}`"]
    for model in models.values():
        codecs = [c for c in selection.codecs() if CODECS[c].kind == "nnv" and CODECS[c].bundle == model.name]
        revisions = {r.version for by in selection.rows.values() for c in codecs for r in by.get(c, [])}
        if revisions:
            lines.append(f"  \nBundle `{model.name}`, hash `{model.hash}`; source revision {', '.join(sorted(revisions))}.")
    lines += ["", METHOD, "", "### BD-rate by clip, % (PSNR (6Y+U+V)/8)", "", *bd_by_clip(selection), "",
              "### Mean BD-rate by measure, %", "", *bd_by_measure(selection)]  # fmt: skip
    lost = losses(selection)
    if lost:
        lines += ["", "### Where NNV loses", "", *lost]
    lines += ["", "### Order of the quantizers", "", *ordering(selection)]
    if not selection.still:
        lines += ["", "### Speed", "", *speeds(selection)]
    macs = complexity(next(iter(models.values()), None))
    if macs:
        lines += ["", "### Complexity", "", *macs]
    lines += ["", "### Plots", "", *plots(selection, REPO / "docs/rd", tag), ""]
    return "\n".join(lines)


def insert_section(text: str, name: str, body: str) -> str:
    """Replace what stands between this section's marks, or append it: the rest of the page belongs to others."""
    begin, end = f"<!-- rd:{name}:begin -->", f"<!-- rd:{name}:end -->"
    block = f"{begin}\n{body}\n{end}\n"
    if begin in text and end in text:
        head, rest = text.split(begin, 1)
        tail = rest.split(end, 1)[1].lstrip("\n")
        return head + block + ("\n" + tail if tail else "")
    return (text.rstrip("\n") + "\n\n" if text.strip() else "# Results\n\n") + block


def publish(a: argparse.Namespace, clips: list[Clip], store: Store, models: Models) -> None:
    selection = select(store, clips, a.nframes, a.key, models)
    codecs = a.codecs.split(",") if a.codecs else None
    points = {int(p) for p in a.points.split(",")} if a.points else None
    selection = restricted(selection, codecs, points)
    if not selection.rows:
        print("bench/rd: no results for this setting yet")
        return
    print("\nBD-rate by clip, % (PSNR (6Y+U+V)/8; negative = fewer bits than the anchor)\n")
    print("\n".join(bd_by_clip(selection)))
    print("\nMean BD-rate by measure, %\n")
    print("\n".join(bd_by_measure(selection)))
    lost = losses(selection)
    if lost:
        print("\nWhere NNV loses, worst first\n")
        print("\n".join(lost))
    print()
    print("\n".join(ordering(selection)))
    print()
    print("\n".join(speeds(selection)))
    if a.no_docs or a.quick or a.clips or a.frames:
        return
    setting = "" if a.key_interval == "whole" else f", key frame every {a.key_interval}"
    name = a.dataset + ("" if a.key_interval == "whole" else f"-key{a.key_interval}")
    what = "Development clips" if a.dataset == "video" else f"{a.dataset.capitalize()} pictures, one key frame each"
    parts = ["bench/rd/run.sh"]
    if a.dataset != "video":
        parts.append(f"--dataset {a.dataset}")
    if a.key_interval != "whole":
        parts.append(f"--key-interval {a.key_interval}")
    if a.codecs:
        parts.append(f"--codecs {a.codecs}")
    if a.points:
        parts.append(f"--points {a.points}")
    if a.vmaf:
        parts.append("--vmaf")
    if a.model_path:
        parts.append(f"--model-path {shlex.quote(a.model_path)}")
    page = REPO / "docs/results.md"
    text = page.read_text() if page.exists() else ""
    page.parent.mkdir(exist_ok=True)
    tag = "" if name == "video" else f"{name}-"
    page.write_text(insert_section(text, name, section(what + setting, selection, models, " ".join(parts), tag)))
    print(f"\nwrote {page.relative_to(REPO)} and docs/rd/")

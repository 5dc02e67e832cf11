"""Tables for docs/results.md, and pictures side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nnvrd.clips import find_clips
from nnvrd.png import write_png
from nnvrd.report import markdown_table

from .bundles import Network, ensembles
from .measure import BITS, COLOUR, DATASETS, NOISE, REPAIR_CRF, UPSCALE_CRF
from .peers import ALL as PEERS
from .planes import KERNELS, read_luma, resize
from .store import Table

BEGIN, END = "<!-- sr:begin -->", "<!-- sr:end -->"
# Set14 and Set5 places with print, stripes and edges: (data set, picture, top, left) of crops of
# CROP samples.
CROPS = (
    ("set14", "img_014_SRF_4_HR", 160, 180),
    ("set14", "img_002_SRF_4_HR", 200, 260),
    ("set5", "img_003_SRF_4_HR", 100, 60),
)
CROP = 96
# Published or asked for, x2: what this project wants to reach (PSNR of Set5, Set14, BSD100).
TARGETS = {
    "fast": (36.9, 32.5, 31.4),
    "balanced": (37.5, 33.0, 31.8),
    "quality": (37.8, 33.3, 32.0),
}

METHOD = """Pictures: luma (BT.601, rounded to 8 bits) shrunk by MATLAB's antialiased bicubic and
rounded to 8 or 10 bits, enlarged to 8; or all of it with 10 bits, as video of 10 bits has it; PSNR
and SSIM (11x11 Gaussian window) without `scale` samples of border, means over the pictures;
networks are chosen on held-out training pictures and on Kodak, never on the other three. Tables in
papers come of small pictures that were not rounded: with 10 bits the plain bicubic kernel has its
published figures to the last digit (Set5 33.66 / 0.9299, 30.39 / 0.8682 and 28.42 / 0.8104 at x2,
x3 and x4; BSD100 29.56 / 0.8431 at x2), with 8 bits 0.01 dB less, and good networks lose more to
that rounding. Newer tables (EDSR's, BasicSR's) are of RGB pictures of 8 bits, small ones and
results too, and of luma that is computed from them and not rounded: `RGB of 24 bits`. Clips: the
first frames, coded by x264 medium at constant CRF, at half size for x2 (ffmpeg's bicubic scaler);
to be repaired at full size, as the beginning of four times as many frames where the clip has them,
in a pipeline `h264parse ! nnqp ! avdec_h264 ! nnsr` (`repair` here is its own network alone, from
its folder; without one, the element gives such frames to `deblock`); luma against the original;
PSNR of the mean squared error of a clip, SSIM of every third frame, SSIMULACRA2 of every sixteenth
as a grey picture, VMAF of all; means over the clips that every method has been measured on.
`bicubic`: a = -0.5; `lanczos`: three lobes (pictures: Pillow, clips: ffmpeg). Peers' networks come
from packages of the Python registry (`bench/sr/nnvsr/peers.py`) and see grey pictures. Networks as
the element runs them: pictures mirrored beyond their edges, output rounded to 8 bits."""


def short(method: str) -> str:
    name, _, version = method.partition("@")
    _, _, turns = version.partition("+")
    return f"{name}, self-ensemble={turns}" if turns else name


def current(table: Table, networks: list[Network], scale: int, plain: tuple) -> list[str]:
    """Plain kernels, the peers that were measured, and the bundles that there are."""
    names = {p.name for p in PEERS if p.scale == scale}
    peers = sorted(
        {r.method for r in table.rows.values() if r.scale == scale and short(r.method) in names}
    )
    return [*plain, *peers, *(n.id for n in networks if n.scale == scale)]


def kind_of(bits: int, wanted_bits: int) -> str:
    if (bits, wanted_bits) == COLOUR:
        return "RGB of 24 bits"
    if bits == wanted_bits:
        return f"{bits} bits throughout"
    return f"small ones of {bits} bits"


def picture_tables(table: Table, networks: list[Network]) -> list[str]:
    lines = []
    for scale, (bits, wanted_bits) in ((1, (8, 8)), *((s, b) for s in (2, 3, 4) for b in BITS)):
        body = []
        plain = tuple(KERNELS) if scale > 1 else ("noisy",)
        for method in current(table, networks + ensembles(networks), scale, plain):
            cells = []
            for dataset in DATASETS:
                rows = table.select(
                    dataset=dataset, scale=scale, bits=bits, wanted_bits=wanted_bits, method=method
                )
                cells.append(
                    (
                        f"{np.mean([r.psnr for r in rows]):.2f} / "
                        f"{np.mean([r.ssim for r in rows]):.4f} ({len(rows)})"
                    )
                    if rows
                    else ""
                )
            if any(cells):
                body.append([short(method), *cells])
                wanted = TARGETS.get(short(method)) if scale == 2 else None
                if wanted:
                    body.append(
                        [
                            f"{short(method)}, wanted",
                            *(f"{v:.2f}" for v in wanted),
                            *[""] * (len(DATASETS) - len(wanted)),
                        ]
                    )
        if body:
            title = (
                f"Pictures, x{scale}, {kind_of(bits, wanted_bits)}"
                if scale > 1
                else f"Pictures with Gaussian noise of {NOISE} code values, x1"
            )
            lines += [
                f"### {title}: PSNR (dB) / SSIM (number of pictures)",
                "",
                *markdown_table(["", *DATASETS.values()], body),
                "",
            ]
    return lines


def clip_tables(table: Table, networks: list[Network]) -> list[str]:
    lines = []
    for scale, crfs, plain in (
        (2, UPSCALE_CRF, ("bicubic", "lanczos")),
        (1, REPAIR_CRF, ("decoded",)),
    ):
        methods = current(table, networks, scale, plain)
        if len(methods) == len(plain):
            continue
        body, measured = [], set()
        for crf in crfs:
            rows = {
                m: {(r.clip, r.frames): r for r in table.select(crf=crf, scale=scale, method=m)}
                for m in methods
            }
            rows = {m: r for m, r in rows.items() if r}
            common = set.intersection(*map(set, rows.values())) if len(rows) > 1 else set()
            if not common:
                continue
            measured |= {f"{clip} ({frames})" for clip, frames in common}
            for m, r in rows.items():
                means = [np.mean([getattr(r[c], k) for c in common]) for k in ("psnr", "ssim")]
                seen = [[getattr(r[c], k) for c in common] for k in ("ssimulacra2", "vmaf")]
                body.append(
                    [
                        f"CRF {crf} {short(m)}",
                        str(len(common)),
                        f"{means[0]:.2f}",
                        f"{means[1]:.4f}",
                        *("" if None in v else f"{np.mean(v):.1f}" for v in seen),
                    ]
                )
        if body:
            title = (
                "Clips coded at half size, x2"
                if scale == 2
                else "Repair of clips coded at full size"
            )
            lines += [
                f"### {title}",
                "",
                *markdown_table(["", "clips", "PSNR Y", "SSIM Y", "SSIMULACRA2", "VMAF"], body),
                "",
                "Clips (frames): " + ", ".join(sorted(measured)) + ".",
                "",
            ]
    return lines


def repair_gains(table: Table, networks: list[Network]) -> list[str]:
    """PSNR over the decoded clip, by clip: what repairs bad video may spoil good video."""
    lines = []
    for n in (n for n in networks if n.scale == 1):
        gains = {}
        for r in table.select(scale=1, method=n.id):
            plain = table.rows.get((r.clip, r.frames, r.crf, 1, "decoded"))
            if plain:
                gains.setdefault(f"{r.clip} ({r.frames})", {})[r.crf] = r.psnr - plain.psnr
        body = [
            [clip, *(f"{g[crf]:+.2f}" if crf in g else "" for crf in REPAIR_CRF)]
            for clip, g in sorted(gains.items())
        ]
        if body:
            lines += [
                f"### Gain of `{n.bundle}` over the decoded clip, dB",
                "",
                *markdown_table(["clip (frames)", *(f"CRF {c}" for c in REPAIR_CRF)], body),
                "",
            ]
    return lines


def at_rate(rows: list, kbps: float, key: str) -> float | None:
    """What `rows` reach at a rate, between their points on a logarithmic axis; None outside."""
    rows = sorted(rows, key=lambda r: r.kbps)
    if not rows or not rows[0].kbps <= kbps <= rows[-1].kbps:
        return None
    return float(
        np.interp(np.log(kbps), [np.log(r.kbps) for r in rows], [getattr(r, key) for r in rows])
    )


def small_table(table: Table, networks: list[Network]) -> list[str]:
    """Every way of showing a clip that was coded at half its size, beside the codec at full size
    and the same rate.
    """
    body, wins, shown = (
        [],
        0,
        [r for r in table.rows.values() if r.method in ("lanczos", *(n.id for n in networks))],
    )
    for row in sorted(shown, key=lambda r: (r.clip, r.quantizer, r.method != "lanczos", r.method)):
        full = table.select(clip=row.clip, frames=row.frames, codec=row.codec, method="full")
        other = {k: at_rate(full, row.kbps, k) for k in ("psnr", "ssim")}
        if other["psnr"] is not None:
            wins += row.method != "lanczos" and row.psnr > other["psnr"]
        body.append(
            [
                f"{row.clip} ({row.frames})",
                str(row.quantizer),
                short(row.method),
                f"{row.kbps:.0f}",
                f"{row.psnr:.2f}",
                f"{row.ssim:.4f}",
                *(
                    "" if v is None else f"{v:.{d}f}"
                    for v, d in ((other["psnr"], 2), (other["ssim"], 4))
                ),
                "" if other["psnr"] is None else f"{row.psnr - other['psnr']:+.2f}",
            ]
        )
    if not body:
        return []
    head = [
        "clip (frames)",
        "quantizer",
        "enlarged by",
        "kbit/s",
        "PSNR Y",
        "SSIM Y",
        "full size, same rate: PSNR",
        "SSIM",
        "gain, dB",
    ]
    note = (
        "`videoscale method=lanczos ! nnvenc bframes=7` at half size, `nnvdec ! nnsr scale=2` "
        "(or `videoscale`) to show it, beside `nnvenc` at full size; its values at the same rate "
        f"lie between measured points. Codec: {', '.join(sorted({r.codec for r in shown}))}. "
        f"The small way with a network has the higher PSNR at {wins} points."
    )
    return ["### Code small, show large", "", note, "", *markdown_table(head, body), ""]


def speed_table(table: Table, networks: list[Network]) -> list[str]:
    body = []
    for n in networks:
        for r in sorted(table.select(method=n.id), key=lambda r: r.width):
            body.append(
                [
                    f"{n.bundle} x{n.scale}, {n.precision}",
                    f"{r.width}x{r.height}",
                    str(n.parameters),
                    str(n.macs_per_pixel),
                    str(r.threads),
                    f"{r.best_ms:.1f}",
                    f"{r.median_ms:.1f}",
                    f"{r.cpu_ms:.1f}",
                    f"{1000 / r.best_ms:.1f}",
                    f"{1000 / r.cpu_ms:.1f}",
                    f"{r.load:.1f}",
                ]
            )
    head = [
        "",
        "input",
        "parameters",
        "MAC/pixel",
        "threads",
        "best ms",
        "median ms",
        "CPU ms",
        "frames/s (best)",
        "per core by CPU time",
        "load",
    ]
    note = (
        "Under a load above the number of cores the wall-clock columns measure the other work; "
        "processor time, which other work only lengthens, says what a free core can do at least."
    )
    return ["### Speed", "", note, "", *markdown_table(head, body), ""] if body else []


def training(networks: list[Network]) -> list[str]:
    body = [
        [
            f"{n.bundle} x{n.scale}",
            str(n.training.get("task", "")),
            str(n.training.get("steps", "")),
            str(n.training.get("batch", "")),
            str(n.training.get("before", "")),
            str(n.training.get("device", "")),
        ]
        for n in networks
    ]
    return (
        [
            "### Training behind these figures",
            "",
            *markdown_table(["", "task", "steps", "batch", "before", "device"], body),
            "",
        ]
        if body
        else []
    )


def crops(networks: list[Network], folder: Path) -> list[str]:
    """Writes original | bicubic | each x2 network, luma, twice enlarged without smoothing; returns
    Markdown.
    """
    chosen = [n for n in networks if n.scale == 2]
    lines = []
    for dataset, name, top, left in CROPS if chosen else ():
        source = next((c.source for c in find_clips(dataset, False) if c.name == name), None)
        if source is None:
            continue
        full = read_luma(source)
        full = full[: full.shape[0] // 2 * 2, : full.shape[1] // 2 * 2]
        small = resize(full, full.shape[0] // 2, full.shape[1] // 2)
        shown = [full, resize(small, *full.shape), *(n(small) for n in chosen)]
        strip = np.concatenate(
            [
                np.pad(
                    p[top : top + CROP, left : left + CROP], ((0, 0), (0, 4)), constant_values=235
                )
                for p in shown
            ],
            1,
        )
        grey = (
            np.clip((strip.astype(np.float32) - 16) * (255 / 219), 0, 255)
            .astype(np.uint8)
            .repeat(2, 0)
            .repeat(2, 1)
        )
        file = folder / f"{dataset}-{name.split('_SRF')[0]}.png"
        write_png(file, np.stack([grey] * 3, -1))
        lines += [f"![{name}]({folder.name}/{file.name})", ""]
    titles = " | ".join(["original", "bicubic", *(n.bundle for n in chosen)])
    return [f"### Side by side, x2: {titles}", "", *lines] if lines else []


def clip_targets(table: Table, n: Network) -> list[str]:
    """What `compressed` and `deblock` owe on coded clips and do not give. `repair` owes nothing by
    itself: these clips are of H.264, which the element hands over to `deblock`.
    """

    def gain(crf, scale, plain, key, pick=np.mean):
        mine, theirs = (
            {
                (r.clip, r.frames): getattr(r, key)
                for r in table.select(crf=crf, scale=scale, method=m)
            }
            for m in (n.id, plain)
        )
        both = [
            mine[c] - theirs[c]
            for c in mine
            if c in theirs and mine[c] is not None and theirs[c] is not None
        ]
        return float(pick(both)) if both else None

    owed = []
    if n.bundle == "compressed":
        owed = [(f"PSNR at CRF {crf}", gain(crf, 2, "lanczos", "psnr"), 0.5) for crf in (27, 32)]
        owed += [
            (f"{key} at CRF {crf}", gain(crf, 2, "lanczos", key), 0.0)
            for crf in (27, 32)
            for key in ("ssim", "ssimulacra2", "vmaf")
        ]
    elif n.bundle == "deblock":
        owed = [
            ("PSNR at CRF 32", gain(32, 1, "decoded", "psnr"), 0.35),
            ("PSNR at CRF 18, worst clip", gain(18, 1, "decoded", "psnr", min), -0.05),
        ]
    return [
        f"- `{n.bundle}`, {what}: {got:+.3f}, wanted {wanted:+.2f}."
        for what, got, wanted in owed
        if got is not None and got < wanted
    ]


def missed(tables: dict, networks: list[Network]) -> list[str]:
    """What is missing, in words: targets that a bundle was measured on and does not reach, bundles,
    measurements.
    """
    lines, table = [], tables["pictures"]
    for n in networks:
        for dataset, wanted in zip(DATASETS, TARGETS.get(n.bundle, ()) if n.scale == 2 else ()):
            for bits, wanted_bits in BITS:
                rows = table.select(
                    dataset=dataset, scale=2, bits=bits, wanted_bits=wanted_bits, method=n.id
                )
                got = np.mean([r.psnr for r in rows]) if rows else None
                if got is not None and got < wanted:
                    lines.append(
                        f"- `{n.bundle}` x2, {dataset}, {kind_of(bits, wanted_bits)}: "
                        f"{got:.2f} dB, {wanted - got:.2f} below what is wanted."
                    )
    for n in networks:
        lines += clip_targets(tables["clips"], n)
    absent = [b for b in TARGETS if b not in {n.bundle for n in networks}] + [
        b for b in ("compressed", "repair", "gan") if b not in {n.bundle for n in networks}
    ]
    if absent:
        lines.append(
            f"- No bundle yet (docs/decisions/next.md): {', '.join(f'`{b}`' for b in absent)}."
        )
    unmeasured = [
        n for n in networks if n.scale in (1, 2) and not tables["clips"].select(method=n.id)
    ]
    if unmeasured:
        names = ", ".join(f"`{n.bundle}` x{n.scale}" for n in unmeasured)
        lines.append(f"- Not measured on coded clips yet: {names}.")
    return ["### Not reached", "", *lines, ""] if lines else []


def section(tables: dict, networks: list[Network], command: str, side_by_side: list[str]) -> str:
    return "\n".join(
        [
            "## Super-resolution and repair",
            "",
            f"Command: `{command}`.",
            "",
            METHOD,
            "",
            *picture_tables(tables["pictures"], networks),
            *clip_tables(tables["clips"], networks),
            *repair_gains(tables["clips"], networks),
            *small_table(tables["small"], networks),
            *speed_table(tables["speed"], networks),
            *training(networks),
            *missed(tables, networks),
            *side_by_side,
        ]
    )


def insert(text: str, body: str) -> str:
    """Replaces what stands between the marks, or appends it: the rest of the page belongs to
    others.
    """
    block = f"{BEGIN}\n{body.rstrip()}\n{END}\n"
    if BEGIN in text and END in text:
        head, rest = text.split(BEGIN, 1)
        return head + block + rest.split(END, 1)[1].removeprefix("\n")
    return (text.rstrip("\n") + "\n\n" if text.strip() else "# Results\n\n") + block

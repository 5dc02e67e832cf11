"""Synthetic motion made from stills: camera paths, parallax layers, warps, light changes, noise,
blur,
screens.

Real clips at hand hold little camera motion and no screen content; here we make both. Everything is
rendered from its source with sub-pixel accuracy (bicubic, from a source scaled to the output's
density first, so nothing aliases), frame by frame from the same source, so errors do not add up.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from .data import GroupSampler, Orientation, crop_plane, resize_plane, tone_tables

# ------------------------------------------------------------------ paths


def log_uniform(rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def camera_path(rng, frames: int, strength: float = 1.0, still: float = 0.0) -> np.ndarray:
    """Homographies [frames,3,3] (output -> source, pixels about the centre), smooth in time; first
    one
    is the identity.

    `strength` scales the speeds; with probability `still` nothing moves. Speeds are log-uniform:
    slow motion, where sub-pixel accuracy matters most, is as frequent as fast.
    """
    t = np.arange(frames, dtype=np.float64)
    if rng.random() < still:
        return np.tile(np.eye(3), (frames, 1, 1))

    def course(low, high, p):
        """One parameter over time: constant speed, some acceleration."""
        if rng.random() >= p:
            return np.zeros(frames)
        speed = log_uniform(rng, low, high) * rng.choice([-1.0, 1.0]) * strength
        bend = rng.normal(0, 0.1) * (rng.random() < 0.5)
        return speed * (t + bend * t * t / max(1.0, frames / 4))

    angle, speed = (
        rng.uniform(0, 2 * np.pi),
        log_uniform(rng, 0.1, 14.0) * strength * (rng.random() < 0.9),
    )
    bend = rng.normal(0, 0.06) * (rng.random() < 0.5)
    along = speed * (t + bend * t * t)
    turn = angle + rng.normal(0, 0.05) * t * (rng.random() < 0.3)
    dx, dy = along * np.cos(turn), along * np.sin(turn)
    if rng.random() < 0.2:  # exact whole pixels, as in scrolled or digitally panned material
        dx, dy = np.rint(dx), np.rint(dy)
    elif rng.random() < 0.3:  # a hand-held camera
        shake = log_uniform(rng, 0.1, 1.5) * strength
        dx, dy = dx + rng.normal(0, shake, frames), dy + rng.normal(0, shake, frames)
    zoom = np.exp(course(0.0005, 0.02, 0.45))
    angle = course(0.0005, 0.02, 0.35)
    px, py = course(2e-6, 6e-5, 0.25), course(2e-6, 6e-5, 0.25)
    out = np.zeros((frames, 3, 3))
    c, s = np.cos(angle) * zoom, np.sin(angle) * zoom
    out[:, 0, 0], out[:, 0, 1], out[:, 0, 2] = c, -s, dx
    out[:, 1, 0], out[:, 1, 1], out[:, 1, 2] = s, c, dy
    out[:, 2, 0], out[:, 2, 1], out[:, 2, 2] = px, py, 1.0
    return np.linalg.inv(out[:1]) @ out if frames else out


def path_maps(path: np.ndarray, size: int, cx: float = 0.0, cy: float = 0.0) -> torch.Tensor:
    """Source positions [T,2(x,y),S,S] of every output pixel, about the centre of the picture; (cx,
    cy) is the path's centre.
    """
    h = torch.from_numpy(path).float()
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    x, y = axis[None, None, :] - cx, axis[None, :, None] - cy
    h = h[:, :, :, None, None]
    w = h[:, 2, 0] * x + h[:, 2, 1] * y + h[:, 2, 2]
    return torch.stack(
        [
            (h[:, 0, 0] * x + h[:, 0, 1] * y + h[:, 0, 2]) / w + cx,
            (h[:, 1, 0] * x + h[:, 1, 1] * y + h[:, 1, 2]) / w + cy,
        ],
        1,
    )


def warp_field(rng, frames: int, size: int) -> torch.Tensor:
    """Smooth local deformation [T,2,S,S] in pixels, zero at the first frame, swinging or growing
    with time.
    """
    cells = int(rng.integers(3, 8))
    amplitude = log_uniform(rng, 0.2, 5.0)
    a = torch.from_numpy(rng.normal(0, amplitude, (2, 2, cells, cells)).astype(np.float32))
    a = F.interpolate(a, size=(size, size), mode="bicubic", align_corners=True)
    t = torch.arange(frames, dtype=torch.float32)
    omega = log_uniform(rng, 0.1, 1.0)
    s, c = torch.sin(omega * t), 1 - torch.cos(omega * t)
    return s[:, None, None, None] * a[0] + c[:, None, None, None] * a[1]


# ------------------------------------------------------------------ layers


class Patch:
    """Part of a still, scaled to about one source pixel per output pixel: float planes y [1,1,h,w],
    uv [1,2,h/2,w/2].
    """

    def __init__(self, planes):
        y, u, v = (p.astype(np.float32) for p in planes)
        self.y = torch.from_numpy(np.ascontiguousarray(y))[None, None]
        self.uv = torch.from_numpy(np.stack([u, v]))[None]

    def render(self, maps: torch.Tensor):
        """Samples the patch at `maps` [T,2,S,S] (pixels about its centre): y [T,1,S,S], uv
        [T,2,S/2,S/2].
        """
        h, w = self.y.shape[-2:]
        # Chroma samples sit in the middle of 2x2 luma samples, on both sides of the map.
        half = F.avg_pool2d(maps, 2) / 2
        out = []
        for plane, m, ph, pw in ((self.y, maps, h, w), (self.uv, half, h // 2, w // 2)):
            grid = torch.stack([m[:, 0] * (2.0 / pw), m[:, 1] * (2.0 / ph)], -1)
            frames = [
                F.grid_sample(
                    plane, g[None], mode="bicubic", padding_mode="reflection", align_corners=False
                )
                for g in grid
            ]
            out.append(torch.cat(frames))
        return out


def travel(maps: torch.Tensor, size: int) -> int:
    """How far (pixels) the maps reach outside the picture."""
    return int(max(0.0, float(maps.abs().max()) - (size - 1) / 2)) + 4


def take_patch(rng, store, sampler: GroupSampler, size: int, reach: int) -> Patch:
    """Random patch of a random still with room for `reach` pixels of motion at each side."""
    clip = sampler.draw(rng)
    planes = [p[0] for p in store.planes(clip)]
    h, w = clip["h"], clip["w"]
    want = (size + 2 * reach + 1) & ~1
    # Source pixels per output pixel: never below one (that would be blurred), where the still is
    # large enough.
    room = min(h, w) / want
    scale = rng.uniform(1.0, min(room, 2.5)) if room > 1.0 and rng.random() < 0.6 else 1.0
    ph, pw = min(want, h), min(want, w)
    sh, sw = min(int(ph * scale) & ~1, h), min(int(pw * scale) & ~1, w)
    ph, pw = int(sh / scale) & ~1, int(sw / scale) & ~1
    top, left = 2 * int(rng.integers((h - sh) // 2 + 1)), 2 * int(rng.integers((w - sw) // 2 + 1))
    planes = [
        crop_plane(p, top // k, left // k, sh // k, sw // k) for p, k in zip(planes, (1, 2, 2))
    ]
    if (sh, sw) != (ph, pw):
        planes = [
            resize_plane(np.ascontiguousarray(p), ph // k, pw // k)
            for p, k in zip(planes, (1, 2, 2))
        ]
    turn = Orientation(rng)
    planes = [turn(p) for p in planes]
    if rng.random() < 0.25:
        planes = [t[p] for t, p in zip(tone_tables(rng), planes)]
    return Patch(planes)


def blob_mask(
    rng, maps: torch.Tensor, size: int, softness: float, radius: float, cx: float, cy: float
) -> torch.Tensor:
    """Mask [T,1,S,S] of a random shape that moves with `maps`: an ellipse or box whose outline is
    deformed by noise.
    """
    x, y = maps[:, 0] - cx, maps[:, 1] - cy
    angle, ratio = rng.uniform(0, np.pi), log_uniform(rng, 0.5, 2.0)
    c, s = float(np.cos(angle)), float(np.sin(angle))
    a, b = (x * c + y * s) * (ratio**0.5 / radius), (y * c - x * s) / (ratio**0.5 * radius)
    if rng.random() < 0.3:
        distance = torch.maximum(a.abs(), b.abs())
    else:
        distance = torch.sqrt(a * a + b * b + 1e-6)
        theta = torch.atan2(b, a)
        for k in range(2, 5):
            distance = distance * (
                1 + rng.normal(0, 0.25 / k) * torch.cos(k * theta + rng.uniform(0, 6.28))
            )
    return torch.clamp((1 - distance) * (radius / softness) + 0.5, 0, 1)[:, None]


def blend(under, over, mask):
    """Puts `over` on `under` ((y, uv) pairs) through a luma mask."""
    half = F.avg_pool2d(mask, 2)
    return [under[0] + (over[0] - under[0]) * mask, under[1] + (over[1] - under[1]) * half]


# ------------------------------------------------------------------ screens

_WORDS = (
    "the of and to in is you that it he was for on are as with his they at be this have from or "
    "one had by word but not what all were we when your can said there use an each which she do "
    "how their if will up other about out many then them these so some her would make like him "
    "into time has look two more write go see number no way could people my than first water "
    "been call who oil its now find long down day did get come made may part frame codec 2024 "
    "3.14 return None self.value = fn(x) => { } if (a < b) // note: 0x7f error[E0308] let mut i "
    "+= 1; https://example.org/a?b=c Play Settings File Edit View Help"
).split()


def fonts():
    """Loaders (size -> font) of the type at hand: what the system has of DejaVu, of URW's base
    fonts and of Noto, and Pillow's own face.
    """
    names = [
        f"DejaVu{n}.ttf"
        for n in (
            "Sans",
            "Sans-Bold",
            "SansCondensed",
            "SansMono",
            "SansMono-Bold",
            "Serif",
            "Serif-Bold",
            "Sans-ExtraLight",
        )
    ]
    names += [
        f"{n}.otf"
        for n in (
            "NimbusSans-Regular",
            "NimbusSans-Bold",
            "NimbusSansNarrow-Regular",
            "NimbusRoman-Regular",
            "NimbusMonoPS-Regular",
            "URWGothic-Book",
            "URWBookman-Light",
            "C059-Roman",
            "P052-Roman",
        )
    ]
    names += ["NotoSansMono-Regular.ttf"]
    found = [ImageFont.load_default]
    for name in names:
        try:
            ImageFont.truetype(name, 12)
        except OSError:
            continue
        found.append(lambda size, name=name: ImageFont.truetype(name, size))
    return found


_FONTS = fonts()


def any_colour(rng):
    return tuple(int(v) for v in rng.integers(0, 256, 3))


def tone_pair(rng):
    """Colours of a paper and of the ink on it, light on dark or dark on light, sometimes tinted."""
    dark = rng.random() < 0.45
    paper = rng.integers(10, 60, 3) if dark else rng.integers(215, 256, 3)
    if rng.random() < 0.6:
        paper = paper[:1].repeat(3)
    ink = rng.integers(170, 256, 3) if dark else rng.integers(0, 90, 3)
    if rng.random() < 0.12:  # any colour at all, as on slides and in tiles
        paper = rng.integers(0, 256, 3)
        ink = rng.integers(0, 70, 3) if paper.mean() > 128 else rng.integers(190, 256, 3)
    return tuple(int(v) for v in paper), tuple(int(v) for v in ink)


def text_lines(rng, draw, box, paper, ink):
    """Fills a box with rows of type, rules and bars; as a listing, with numbers and colours, now
    and then.
    """
    left, top, right, bottom = box
    draw.rectangle(box, fill=paper)
    size = int(rng.integers(9, 24))
    face = _FONTS[rng.integers(len(_FONTS))]
    font, heading = face(size), face(size * 2)
    code = rng.random() < 0.35
    palette = [ink] + [any_colour(rng) for _ in range(4)]
    y, number = top + int(rng.integers(0, 12)), int(rng.integers(1, 300))
    longest = max(2, (right - left) // (size * 3))
    while y < bottom:
        kind = rng.random()
        if kind < 0.05:
            bar = int(rng.integers(4, 40))
            x0, x1 = sorted(int(v) for v in rng.integers(left, right + 1, 2))
            draw.rectangle([x0, y, x1, min(y + bar, bottom)], fill=any_colour(rng))
            y += bar + 6
        elif kind < 0.1:
            draw.line([left, y, right, y], fill=ink)
            y += 5
        elif kind < 0.14 and not code:
            draw.text((left + 8, y), " ".join(rng.choice(_WORDS, 3)), fill=ink, font=heading)
            y += size * 3
        elif kind < 0.25:
            y += int(size * 1.35)
        else:
            x = left + 8
            if code:
                draw.text((x, y), str(number), fill=palette[1], font=font)
                x += size * 3 + int(rng.integers(0, 5)) * size
                number += 1
            for word in rng.choice(_WORDS, int(rng.integers(1, longest + 1))):
                colour = palette[rng.integers(len(palette))] if code else ink
                draw.text((x, y), str(word), fill=colour, font=font)
                x += int(draw.textlength(str(word) + " ", font=font))
                if x > right:
                    break
            y += int(size * 1.35)


def shapes(rng, draw, box):
    """Icons and drawings: filled and outlined circles, boxes, arcs, polygons and strokes."""
    left, top, right, bottom = box
    for _ in range(int(rng.integers(2, 14))):
        r = int(log_uniform(rng, 5, 90))
        x, y = int(rng.integers(left, right)), int(rng.integers(top, bottom))
        where, colour, width = (
            [x, y, x + r, y + int(r * rng.uniform(0.5, 1.5))],
            any_colour(rng),
            int(rng.integers(1, 9)),
        )
        kind = rng.integers(6)
        if kind == 0:
            draw.ellipse(where, fill=colour)
        elif kind == 1:
            draw.ellipse(where, outline=colour, width=width)
        elif kind == 2:
            draw.rounded_rectangle(
                where, r // 5, fill=colour, outline=any_colour(rng), width=min(width, 3)
            )
        elif kind == 3:
            draw.arc(
                where, *(float(v) for v in sorted(rng.uniform(0, 360, 2))), fill=colour, width=width
            )
        elif kind == 4:
            draw.polygon(
                [
                    (x + float(a) * r, y + float(b) * r)
                    for a, b in rng.random((int(rng.integers(3, 7)), 2))
                ],
                fill=colour,
            )
        else:
            draw.line(
                [
                    (x + float(a) * 2 * r, y + float(b) * 2 * r)
                    for a, b in rng.random((int(rng.integers(2, 6)), 2))
                ],
                fill=colour,
                width=width,
            )


def screen_page(rng, h: int, w: int, picture=None):
    """Random page or desktop as planes [h,w]: windows with text, listings, icons, flat and shaded
    areas, and, where given, a photograph (RGB image).
    """
    # Drawn at twice the size where outlines are to be smooth (type is anti-aliased already), larger
    # where the page is to be scaled down.
    scale = 1.0 if rng.random() < 0.5 else rng.uniform(1.1, 1.9)
    hh, ww = int(h * scale), int(w * scale)
    paper, ink = tone_pair(rng)
    image = Image.new("RGB", (ww, hh), paper)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.35:  # one page
        text_lines(rng, draw, (0, 0, ww, hh), paper, ink)
        if rng.random() < 0.3:
            shapes(rng, draw, (0, 0, ww, hh))
    else:  # a desktop: wallpaper and windows
        if picture is not None and rng.random() < 0.5:
            image.paste(picture.resize((ww, hh), Image.BICUBIC))
        elif rng.random() < 0.4:
            ends = np.array([any_colour(rng), any_colour(rng)], np.float32)
            ramp = np.linspace(0, 1, hh, dtype=np.float32)[:, None, None]
            image.paste(
                Image.fromarray(
                    np.broadcast_to(ends[0] * (1 - ramp) + ends[1] * ramp, (hh, ww, 3)).astype(
                        np.uint8
                    )
                )
            )
        for _ in range(int(rng.integers(2, 6))):
            x0, y0 = (
                int(rng.integers(-ww // 4, ww * 3 // 4)),
                int(rng.integers(-hh // 4, hh * 3 // 4)),
            )
            x1, y1 = x0 + int(rng.integers(ww // 5, ww)), y0 + int(rng.integers(hh // 5, hh))
            paper, ink = tone_pair(rng)
            bar = int(rng.integers(16, 32))
            draw.rectangle(
                [x0, y0, x1, y0 + bar],
                fill=any_colour(rng) if rng.random() < 0.4 else paper,
                outline=ink if rng.random() < 0.5 else None,
            )
            draw.text(
                (x0 + 10, y0 + 3),
                " ".join(rng.choice(_WORDS, 3)),
                fill=ink,
                font=_FONTS[rng.integers(len(_FONTS))](bar - 10),
            )
            box = (x0, y0 + bar, x1, y1)
            kind = rng.random()
            if kind < 0.65:
                text_lines(rng, draw, box, paper, ink)
            elif kind < 0.75 and picture is not None:
                image.paste(
                    picture.resize((x1 - x0, max(1, y1 - y0 - bar)), Image.BICUBIC), (x0, y0 + bar)
                )
            else:
                draw.rectangle(box, fill=any_colour(rng) if rng.random() < 0.5 else paper)
                shapes(rng, draw, (x0, y0 + bar, x1, max(y1, y0 + bar + 1)))
    if scale > 1.0:
        image = image.resize((w, h), Image.LANCZOS if rng.random() < 0.5 else Image.BICUBIC)
    from .data import rgb_to_planes

    return rgb_to_planes(np.asarray(image))


LEAST_PAGE = 440  # sides of a page that a clip is cut from
CAUGHT = 0.75  # so many pages are pictures of real screens, where there are any


class Screens:
    """Small pool of pages, renewed now and then: drawing one takes longer than using it. `caught`:
    a store with pictures of real screens.
    """

    def __init__(self, store=None, pool: int = 12, caught=None):
        self.pool, self.pages, self.store, self.caught = pool, [], store, caught
        large = [c for c in caught.stills() if min(c["h"], c["w"]) >= LEAST_PAGE] if caught else []
        self.catch = GroupSampler(large) if large else None
        self.sampler = GroupSampler(store.stills()) if store and store.stills() else None

    def picture(self, rng):
        """A photograph for a window or a wallpaper, or none."""
        if self.sampler is None or rng.random() < 0.5:
            return None
        y, u, v = (p[0] for p in self.store.planes(self.sampler.draw(rng)))
        planes = [
            Image.fromarray(np.ascontiguousarray(p)).resize((480, 360), Image.BILINEAR)
            for p in (y, u, v)
        ]
        return Image.merge("YCbCr", planes).convert("RGB")

    def caught_page(self, rng):
        """As it is, or shrunk: such pictures often have twice the samples of the screen that is
        shared.
        """
        planes = [p[0] for p in self.caught.planes(self.catch.draw(rng))]
        share = (
            max(rng.uniform(0.4, 1.0), LEAST_PAGE / min(planes[0].shape))
            if rng.random() < 0.6
            else 1.0
        )
        h, w = (int(n * share) // 2 * 2 for n in planes[0].shape)
        return (
            planes
            if share == 1.0
            else [
                np.asarray(
                    Image.fromarray(np.ascontiguousarray(p)).resize((w // c, h // c), Image.LANCZOS)
                )
                for p, c in zip(planes, (1, 2, 2))
            ]
        )

    def page(self, rng):
        if self.catch and rng.random() < CAUGHT:
            return self.caught_page(rng)
        if len(self.pages) < self.pool or rng.random() < 0.1:
            page = screen_page(rng, 640, 480, self.picture(rng))
            if len(self.pages) < self.pool:
                self.pages.append(page)
            else:
                self.pages[rng.integers(self.pool)] = page
        return self.pages[rng.integers(len(self.pages))]


def screen_clip(rng, screens: Screens, frames: int, size: int):
    """A page that scrolls, types, moves a pointer or just stands: u8 planes [T,...]. Returns (y, u,
    v).
    """
    page = screens.page(rng)
    h, w = page[0].shape
    kind = rng.choice(["scroll", "still", "smooth", "region"], p=[0.4, 0.25, 0.15, 0.2])
    speed = int(log_uniform(rng, 1, 24)) * int(rng.choice([-1, 1]))
    horizontal = rng.random() < 0.15
    reach = abs(speed) * frames + 4
    if size + reach > (w if horizontal else h):
        speed, reach = int(np.sign(speed)), frames + 4
    if size > min(h, w) - frames - 4:  # crops larger than a page: the page stands still
        kind, speed = "still", 0
    if kind == "still":
        speed = 0
    top = int(rng.integers(max(1, h - size - (0 if horizontal else reach)))) & ~1
    left = int(rng.integers(max(1, w - size - (reach if horizontal else 0)))) & ~1
    if kind == "smooth":  # a scroll by fractions of a pixel
        offset = log_uniform(rng, 0.1, 3.0) * np.arange(frames)
        path = np.tile(np.eye(3), (frames, 1, 1))
        path[:, 0 if horizontal else 1, 2] = offset
        margin = (int(offset[-1]) + 6) & ~1
        patch = Patch(
            [
                crop_plane(
                    p,
                    max(0, top - margin) // k,
                    max(0, left - margin) // k,
                    (size + 2 * margin) // k,
                    (size + 2 * margin) // k,
                )
                for p, k in zip(page, (1, 2, 2))
            ]
        )
        y, uv = patch.render(path_maps(path, size))
        return quantise(y, uv)
    # Whole pixels: full-resolution chroma of the moved page is approximated by even steps, as
    # screens at 2x do.
    step = speed * 2 if abs(speed) <= 4 else speed & ~1
    base = (abs(step) * (frames - 1)) if step < 0 else 0
    out = []
    for p, k in zip(page, (1, 2, 2)):
        rows = []
        for t in range(frames):
            move = (base + step * t) // k
            dy, dx = (0, move) if horizontal else (move, 0)
            y0 = min(top // k + dy, p.shape[0] - size // k) if not horizontal else top // k
            x0 = min(left // k + dx, p.shape[1] - size // k) if horizontal else left // k
            rows.append(crop_plane(p, max(0, y0), max(0, x0), size // k, size // k).copy())
        out.append(np.stack(rows))
    if kind == "region":  # a frame around the scrolled part stands still
        a, b = sorted(int(v) & ~1 for v in rng.integers(0, size, 2))
        for p, k in zip(out, (1, 2, 2)):
            p[1:, : a // k] = p[:1, : a // k]
            p[1:, b // k :] = p[:1, b // k :]
    if rng.random() < 0.5:  # a pointer or a caret
        s = 2 * int(rng.integers(2, 9))
        x, y = rng.uniform(0, size - s, 2)
        vx, vy = rng.normal(0, 6, 2) * (rng.random() < 0.6)
        blink = rng.random() < 0.3
        for t in range(frames):
            if blink and (t // 2) % 2:
                continue
            px, py = (int(np.clip(v, 0, size - s)) & ~1 for v in (x + vx * t, y + vy * t))
            out[0][t, py : py + s, px : px + max(2, s // 2)] = 235 if out[0].mean() < 110 else 20
            for p in out[1:]:
                p[t, py // 2 : (py + s) // 2, px // 2 : (px + max(2, s // 2)) // 2] = 128
    return out


# ------------------------------------------------------------------ light, noise, blur


def quantise(y: torch.Tensor, uv: torch.Tensor):
    """(y [T,1,S,S], uv [T,2,S/2,S/2]) float -> u8 arrays y [T,S,S], u, v."""
    y = y[:, 0].round().clamp_(0, 255).to(torch.uint8).numpy()
    uv = uv.round().clamp_(0, 255).to(torch.uint8).numpy()
    return [y, uv[:, 0], uv[:, 1]]


def gaussian_blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    r = max(1, int(sigma * 2.5 + 0.5))
    k = torch.exp(-0.5 * (torch.arange(-r, r + 1, dtype=torch.float32) / sigma) ** 2)
    k = k / k.sum()
    n, c, h, w = x.shape
    x = x.reshape(n * c, 1, h, w)
    x = F.conv2d(F.pad(x, (r, r, 0, 0), mode="replicate"), k.view(1, 1, 1, -1))
    x = F.conv2d(F.pad(x, (0, 0, r, r), mode="replicate"), k.view(1, 1, -1, 1))
    return x.reshape(n, c, h, w)


def add_light(rng, y, uv):
    """Flicker, a fade to a flat tone, or a light that drifts over the picture."""
    frames, size = y.shape[0], y.shape[-1]
    t = torch.arange(frames, dtype=torch.float32).view(-1, 1, 1, 1)
    kind = rng.random()
    if kind < 0.35:  # flicker
        gain = 1 + torch.from_numpy(
            rng.normal(0, log_uniform(rng, 0.005, 0.08), (frames, 1, 1, 1)).astype(np.float32)
        )
        return (y - 16) * gain + 16, uv
    if kind < 0.65:  # fade
        level, start = (
            float(rng.choice([16.0, 235.0, rng.uniform(16, 235)], p=[0.7, 0.1, 0.2])),
            rng.uniform(0, 0.8),
        )
        k = start + rng.choice([-1, 1]) * log_uniform(rng, 0.01, 0.15) * t
        k = k.clamp(0, 1)
        return y + (level - y) * k, uv + (128 - uv) * k
    x = torch.linspace(-1, 1, size)
    a = rng.uniform(0, 2 * np.pi)
    ramp = float(np.cos(a)) * x[None, :] + float(np.sin(a)) * x[:, None]
    gain = 1 + rng.normal(0, 0.15) * torch.tanh(
        3 * (ramp + rng.uniform(-1, 1) + rng.normal(0, 0.15) * t)
    )
    return (y - 16) * gain + 16, uv


def add_noise(rng, y, uv):
    """Sensor noise, new in each frame; stronger in the dark, sometimes coarse-grained."""
    sigma = log_uniform(rng, 0.4, 6.0)
    seed = torch.Generator().manual_seed(int(rng.integers(2**31)))
    n = torch.randn(y.shape, generator=seed)
    if rng.random() < 0.4:
        n = gaussian_blur(n, 0.7) * 2.0
    y = y + n * sigma * (1.3 - y * (0.6 / 255))
    return y, uv + torch.randn(uv.shape, generator=seed) * (sigma * rng.uniform(0, 0.5))


# ------------------------------------------------------------------ whole clips


class Synthesiser:
    """Makes synthetic clips: `clip(rng, frames, size)` -> u8 arrays y [T,S,S], u, v [T,S/2,S/2]."""

    def __init__(self, store, caught=None):
        self.store, self.sampler, self.screens = (
            store,
            GroupSampler(store.stills()),
            Screens(store, caught=caught),
        )

    def clip(self, rng: np.random.Generator, frames: int, size: int):
        kind = rng.choice(
            ["camera", "parallax", "objects", "screen", "static"], p=[0.42, 0.2, 0.18, 0.12, 0.08]
        )
        if kind == "screen":
            return screen_clip(rng, self.screens, frames, size)
        if kind == "static":
            return self.static(rng, frames, size)
        # Motion blur: the shutter is open for a part of the frame's time; two more renderings per
        # frame.
        shutter = 3 if kind == "camera" and frames <= 7 and rng.random() < 0.12 else 1
        path = camera_path(rng, frames, still=0.75 if kind == "objects" else 0.0)
        maps = path_maps(path, size, *rng.uniform(-size / 2, size / 2, 2))
        if rng.random() < 0.2:
            maps = maps + warp_field(rng, frames, size)
        patch = take_patch(rng, self.store, self.sampler, size, travel(maps, size))
        if shutter > 1 and frames > 1:
            speed = torch.cat([maps[1:] - maps[:-1], maps[-1:] - maps[-2:-1]]) * float(
                rng.uniform(0.2, 0.9)
            )
            parts = [patch.render(maps + speed * (k / shutter)) for k in range(shutter)]
            picture = [sum(p) / shutter for p in zip(*parts)]
        else:
            picture = patch.render(maps)
        if kind == "parallax":
            picture = self.layer(rng, picture, frames, size, radius=size * rng.uniform(0.2, 0.6))
        elif kind == "objects":
            for _ in range(int(rng.integers(1, 3))):
                picture = self.layer(
                    rng, picture, frames, size, radius=size * log_uniform(rng, 0.04, 0.25)
                )
        y, uv = picture
        if rng.random() < 0.12:  # focus pull: one blur for the clip's ends, mixed over time
            k = torch.linspace(float(rng.uniform(0, 1)), float(rng.uniform(0, 1)), frames).view(
                -1, 1, 1, 1
            )
            sigma = log_uniform(rng, 0.6, 3.0)
            y, uv = (
                y + (gaussian_blur(y, sigma) - y) * k,
                uv + (gaussian_blur(uv, sigma / 2) - uv) * k,
            )
        if rng.random() < 0.2:
            y, uv = add_light(rng, y, uv)
        if rng.random() < 0.08:
            y, uv = self.overlay(rng, y, uv)
        if rng.random() < 0.25:
            y, uv = add_noise(rng, y, uv)
        return quantise(y, uv)

    def layer(self, rng, picture, frames, size, radius):
        """Something else moving in front of the picture on a path of its own."""
        maps = path_maps(camera_path(rng, frames), size, *rng.uniform(-size / 2, size / 2, 2))
        if rng.random() < 0.3:
            maps = maps + warp_field(rng, frames, size)
        patch = take_patch(rng, self.store, self.sampler, size, min(travel(maps, size), size // 2))
        cx, cy = rng.uniform(-size / 2, size / 2, 2)
        mask = blob_mask(rng, maps, size, log_uniform(rng, 1.0, 8.0), radius, float(cx), float(cy))
        # Only the box that the object touches needs rendering; small objects become cheap.
        hit = mask.amax((0, 1)) > 0
        rows, cols = hit.any(1).nonzero(), hit.any(0).nonzero()
        if not len(rows):
            return picture
        y0, y1 = int(rows[0]) & ~1, min(size, (int(rows[-1]) + 2) & ~1)
        x0, x1 = int(cols[0]) & ~1, min(size, (int(cols[-1]) + 2) & ~1)
        over = patch.render(maps[:, :, y0:y1, x0:x1])
        y, uv = picture[0].clone(), picture[1].clone()
        part = blend(
            [y[:, :, y0:y1, x0:x1], uv[:, :, y0 // 2 : y1 // 2, x0 // 2 : x1 // 2]],
            over,
            mask[:, :, y0:y1, x0:x1],
        )
        y[:, :, y0:y1, x0:x1] = part[0]
        uv[:, :, y0 // 2 : y1 // 2, x0 // 2 : x1 // 2] = part[1]
        return [y, uv]

    def overlay(self, rng, y, uv):
        """A caption or logo that stands still over the moving picture."""
        size = y.shape[-1]
        page = self.screens.page(rng)
        h, w = (
            2 * int(v)
            for v in (
                rng.integers(size // 16, size // 8) + 1,
                rng.integers(size // 16, size // 3) + 1,
            )
        )
        h, w = min(h, 256), min(w, 256)
        sy, sx = (2 * int(rng.integers((n - m) // 2)) for n, m in zip(page[0].shape, (h, w)))
        oy, ox = 2 * int(rng.integers((size - h) // 2)), 2 * int(rng.integers((size - w) // 2))
        y, uv = y.clone(), uv.clone()
        y[:, 0, oy : oy + h, ox : ox + w] = torch.from_numpy(
            page[0][sy : sy + h, sx : sx + w].copy()
        ).float()
        for c in (0, 1):
            uv[:, c, oy // 2 : (oy + h) // 2, ox // 2 : (ox + w) // 2] = torch.from_numpy(
                page[1 + c][sy // 2 : (sy + h) // 2, sx // 2 : (sx + w) // 2].copy()
            ).float()
        return y, uv

    def static(self, rng, frames, size):
        """A still seen by a fixed camera: exactly constant, constant with noise, or with small
        objects.
        """
        patch = take_patch(rng, self.store, self.sampler, size, 4)
        maps = path_maps(np.eye(3)[None], size)
        y, uv = patch.render(maps)
        y, uv = y.expand(frames, -1, -1, -1), uv.expand(frames, -1, -1, -1)
        kind = rng.random()
        if kind < 0.4:
            y, uv = self.layer(
                rng, [y, uv], frames, size, radius=size * log_uniform(rng, 0.03, 0.15)
            )
        if kind > 0.25 and rng.random() < 0.6:
            y, uv = add_noise(rng, y, uv)
        return quantise(y, uv)

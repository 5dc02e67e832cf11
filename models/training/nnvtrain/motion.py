"""Motion search and compensation on tensors, for training: a stand-in for the encoder's block
search.

Vectors are integers in quarter luma pixels, `mv[:, 0]` = x and `mv[:, 1]` = y, one per 8x8 luma
block ([B,2,H/8,W/8]); a block's prediction at (x, y) is the reference at (x + mvx/4, y + mvy/4),
coordinates clamped to the picture. The same integers address chroma in eighths of a chroma pixel.
Interpolation uses HEVC's 8-tap luma and 4-tap chroma filters, in floating point. Pictures are
[B,1,H,W] with samples in 0..255, H and W multiples of 16. Works on any device; the search runs
without gradients.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from .fused import usable

LUMA_TAPS = (
    (0, 0, 0, 64, 0, 0, 0, 0),
    (-1, 4, -10, 58, 17, -5, 1, 0),
    (-1, 4, -11, 40, 40, -11, 4, -1),
    (0, 1, -5, 17, 58, -10, 4, -1),
)
CHROMA_TAPS = (
    (0, 64, 0, 0),
    (-2, 58, 10, -2),
    (-4, 54, 16, -2),
    (-6, 46, 28, -4),
    (-4, 36, 36, -4),
    (-4, 28, 46, -6),
    (-2, 16, 54, -4),
    (-2, 10, 58, -2),
)


# ------------------------------------------------------------------ compensation


@functools.lru_cache(maxsize=None)
def _phase_matrices(taps, out: int, device, dtype):
    """[phases, out, out + len(taps) - 1]: row i holds the phase's taps shifted by i."""
    n = len(taps[0])
    m = torch.zeros(len(taps), out, out + n - 1, dtype=dtype)
    for phase, row in enumerate(taps):
        for i in range(out):
            m[phase, i, i : i + n] = torch.tensor(row, dtype=dtype) / 64
    return m.to(device)


def _windows(ref: torch.Tensor, top: torch.Tensor, left: torch.Tensor, size: int) -> torch.Tensor:
    """Square windows [B,N,C,size,size] of ref [B,C,H,W] with corners (top, left) [B,N] (integers),
    edges repeated.
    """
    b, c, h, w = ref.shape
    n = top.shape[1]
    steps = torch.arange(size, device=ref.device)
    rows = (top[..., None] + steps).clamp_(0, h - 1)
    cols = (left[..., None] + steps).clamp_(0, w - 1)
    index = (rows[..., None] * w + cols[..., None, :]).view(b, 1, n * size * size)
    if c > 1:
        index = index.expand(b, c, -1)
    out = ref.reshape(b, c, h * w).gather(2, index)
    return out.view(b, c, n, size, size).transpose(1, 2)


def _corners(h: int, w: int, block: int, device):
    """Top and left [1, N] of all blocks in raster order."""
    y = torch.arange(0, h, block, device=device)
    x = torch.arange(0, w, block, device=device)
    return y.repeat_interleave(len(x))[None], x.repeat(len(y))[None]


class _Cells(torch.autograd.Function):
    """:func:`_cells` in one pass (fused.cpp)."""

    @staticmethod
    def forward(ctx, fused, ref, place, mv, taps, shift):
        ctx.save_for_backward(place, mv, taps)
        ctx.rest = fused, ref.shape, shift
        return fused.cells(ref.contiguous(), place, mv, taps, shift)

    @staticmethod
    def backward(ctx, g):
        fused, shape, shift = ctx.rest
        return None, fused.cells_back(g.contiguous(), shape, *ctx.saved_tensors, shift), *[None] * 4


@functools.lru_cache(maxsize=None)
def _taps_table(taps):
    return torch.tensor(taps, dtype=torch.float32) / 64


def _fused_cells(fused, ref, picture, cell, mv, block, taps, shift):
    per_row = ref.shape[-1] // block
    place = torch.stack([picture, cell // per_row * block, cell % per_row * block], 1)
    return _Cells.apply(fused, ref, place, mv.contiguous(), _taps_table(taps), shift)


def _interpolate(ref, mv, block, taps, shift):
    """Prediction [B,C,H,W] from ref with one vector per block; a vector has `shift` fractional
    bits.
    """
    b, c, h, w = ref.shape
    fused = ref.dtype == torch.float32 and usable(ref)
    if fused:
        n = (h // block) * (w // block)
        picture, cell = torch.arange(b).repeat_interleave(n), torch.arange(n).repeat(b)
        each = mv.to(torch.int64).flatten(2).transpose(1, 2).flatten(0, 1)
        out = _fused_cells(fused, ref, picture, cell, each, block, taps, shift)
        out = out.view(b, h // block, w // block, c, block, block)
        return out.permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)
    mv = mv.to(torch.int64).flatten(2)
    whole, phase = mv >> shift, mv & ((1 << shift) - 1)
    top, left = _corners(h, w, block, ref.device)
    before = len(taps[0]) // 2 - 1
    size = block + len(taps[0]) - 1
    win = _windows(ref, top + whole[:, 1] - before, left + whole[:, 0] - before, size)
    m = _phase_matrices(taps, block, ref.device, ref.dtype)
    mx, my = m[phase[:, 0]].unsqueeze(2), m[phase[:, 1]].unsqueeze(2)
    out = my @ (win @ mx.transpose(-1, -2))  # [B,N,C,block,block]
    out = out.view(b, h // block, w // block, c, block, block)
    return out.permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)


def compensate(ref, mv, low: float = 0.0, high: float = 255.0):
    """Motion-compensated prediction (y, u, v) from the reference (y, u, v).

    Differentiable with respect to the reference. `mv` [B,2,H/8,W/8] in quarter luma pixels; the
    result is clipped to [low, high] (pass the range of the samples where it is not 0..255).
    """
    y, u, v = ref
    _check_size(y)
    py = _interpolate(y, mv, 8, LUMA_TAPS, 2)
    puv = _interpolate(torch.cat([u, v], 1), mv, 4, CHROMA_TAPS, 3)
    return py.clamp(low, high), puv[:, :1].clamp(low, high), puv[:, 1:].clamp(low, high)


# ------------------------------------------------------------------ search


def lambda_of_step(step):
    """Weight of one bit of motion in units of luma SAD for a quantiser step (8-bit units), as
    HEVC's reference encoder relates them.
    """
    return 0.35 * step


def _check_size(y):
    if y.shape[-1] % 16 or y.shape[-2] % 16:
        raise ValueError(
            f"motion: picture of {y.shape[-1]}x{y.shape[-2]} is not padded to multiples of 16"
        )


def _blocks(x: torch.Tensor, block: int) -> torch.Tensor:
    """[B,1,H,W] -> [B,N,block,block] in raster order of blocks."""
    b, _, h, w = x.shape
    return (
        x.view(b, h // block, block, w // block, block).transpose(2, 3).reshape(b, -1, block, block)
    )


def _bits(dx, dy):
    """About what a vector difference (quarter pixels) costs: nothing is cheapest, then logarithmic.
    """
    dx, dy = dx.abs().float(), dy.abs().float()
    return 0.5 + 1.7 * (torch.log2(1 + dx) + torch.log2(1 + dy)) + 0.8 * ((dx + dy) > 0)


def _median(mv: torch.Tensor) -> torch.Tensor:
    """Component-wise median of the four neighbours and the block itself, [B,2,h,w]."""
    p = F.pad(mv.float(), (1, 1, 1, 1), mode="replicate")
    stack = torch.stack(
        [
            p[..., 1:-1, 1:-1],
            p[..., 1:-1, :-2],
            p[..., 1:-1, 2:],
            p[..., :-2, 1:-1],
            p[..., 2:, 1:-1],
        ]
    )
    return stack.median(0).values.to(mv.dtype)


def _neighbours(mv: torch.Tensor):
    """The vectors of the left, right, upper and lower neighbours."""
    p = F.pad(mv.float(), (1, 1, 1, 1), mode="replicate").to(mv.dtype)
    return [p[..., 1:-1, :-2], p[..., 1:-1, 2:], p[..., :-2, 1:-1], p[..., 2:, 1:-1]]


def _half(x: torch.Tensor) -> torch.Tensor:
    """Half the size by 2x2 averages (several times faster here than avg_pool2d)."""
    rows = x[..., ::2, :] + x[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) * 0.25


def _up(mv: torch.Tensor) -> torch.Tensor:
    return mv.repeat_interleave(2, -1).repeat_interleave(2, -2)


class _Level:
    """One resolution of a picture pair, cut into blocks; evaluates whole-pixel vectors."""

    def __init__(self, cur, ref, block):
        self.ref, self.block = ref, block
        self.cur = _blocks(cur, block)
        self.top, self.left = _corners(cur.shape[-2], cur.shape[-1], block, cur.device)

    def sad(self, mv):
        """SAD [B,N] at one vector per block (mv [B,2,h,w])."""
        mv = mv.flatten(2)
        win = _windows(self.ref, self.top + mv[:, 1], self.left + mv[:, 0], self.block)[:, :, 0]
        return (win - self.cur).abs_().sum((2, 3))

    def sad_around(self, mv, part=None):
        """SAD at the nine vectors mv + (-1..1, -1..1): [B,N,9], raster order; with `part`, of
        quarters: [B,N,9,2,2].
        """
        mv, s = mv.flatten(2), self.block
        win = _windows(self.ref, self.top + mv[:, 1] - 1, self.left + mv[:, 0] - 1, s + 2)[:, :, 0]
        out = []
        for dy in range(3):
            for dx in range(3):
                diff = (win[:, :, dy : dy + s, dx : dx + s] - self.cur).abs_()
                if part:
                    b, n = diff.shape[:2]
                    out.append(diff.view(b, n, 2, s // 2, s).sum(3).view(b, n, 2, 2, s // 2).sum(4))
                else:
                    out.append(diff.sum((2, 3)))
        return torch.stack(out, 2)


def _offsets(radius: int, device):
    """x and y [1,(2r+1)^2,1,1] of a square of offsets in raster order."""
    r = torch.arange(-radius, radius + 1, device=device)
    n = len(r)
    return r.repeat(n).view(1, -1, 1, 1), r.repeat_interleave(n).view(1, -1, 1, 1)


def _coarse(cur, ref, lam, reach):
    """Full search at a quarter of the resolution, 4x4 blocks: two candidates [B,2,h,w] in coarse
    pixels.
    """
    b, _, h, w = cur.shape
    span = 2 * reach + 1
    wide = F.pad(ref, (reach,) * 4, mode="replicate")[:, 0]
    costs = []
    for dy in range(span):
        rows = wide[:, dy : dy + h].unfold(2, w, 1)  # [B,h,span,w]
        diff = (rows - cur[:, 0, :, None]).abs_()
        diff = diff.view(b, h // 4, 4, span, w).sum(2)
        costs.append(diff.view(b, h // 4, span, w // 4, 4).sum(4).permute(0, 2, 1, 3))
    sad = torch.cat(costs, 1) * 16  # [B,span*span,h/4,w/4], to the scale of full resolution
    ox, oy = _offsets(reach, cur.device)
    rate = lam * _bits(ox * 16, oy * 16)
    best = (sad + rate).argmin(1)
    smooth = (F.avg_pool2d(sad, 3, 1, 1, count_include_pad=False) + rate).argmin(1)

    def vector(index):
        return torch.stack([index % span - reach, index // span - reach], 1)

    return vector(best), vector(smooth)


def _pick(costs, vectors):
    """Of several candidates (costs [B,N] each, vectors [B,2,h,w] each) the cheapest per block."""
    costs, vectors = torch.stack(costs), torch.stack(vectors)
    index = costs.argmin(0)
    best = costs.gather(0, index[None])[0]
    b, n = index.shape
    chosen = vectors.flatten(3).gather(0, index.view(1, b, 1, n).expand(1, b, 2, n))[0]
    return best, chosen.view(vectors.shape[1:])


def _rate(lam, mv, pred, scale):
    """lam * bits [B,N] of vectors whose unit is `scale` quarter pixels."""
    d = (mv - pred).flatten(2) * scale
    return lam.view(-1, 1) * _bits(d[:, 0], d[:, 1])


def _whole_search(cur, ref, lam, reach):
    """Whole-pixel vectors: of 16x16 blocks [B,2,h16,w16] and of their 8x8 quarters [B,2,h8,w8]."""
    b, _, h, w = cur.shape
    h16, w16 = h // 16, w // 16
    lam4 = lam.view(-1, 1, 1, 1)
    c2, r2 = _half(cur), _half(ref)
    c4, r4 = _half(c2), _half(r2)
    first, second = _coarse(c4, r4, lam4, reach)

    # Half resolution: refine the candidates by one pixel, then let neighbours' vectors compete.
    level = _Level(c2, r2, 8)
    ox, oy = _offsets(1, cur.device)
    ox, oy = ox.view(1, 1, 9), oy.view(1, 1, 9)
    zero = torch.zeros_like(first)
    pred = _median(second * 2)
    costs, vectors = [level.sad(zero) * 4 + _rate(lam, zero, pred, 8)], [zero]
    for start in (first * 2, second * 2):
        sad = level.sad_around(start) * 4
        flat, p = start.flatten(2), pred.flatten(2)
        vx, vy = flat[:, 0, :, None] + ox, flat[:, 1, :, None] + oy
        cost = sad + lam.view(-1, 1, 1) * _bits(
            (vx - p[:, 0, :, None]) * 8, (vy - p[:, 1, :, None]) * 8
        )
        best, index = cost.min(2)
        mv = torch.stack([vx.gather(2, index[..., None]), vy.gather(2, index[..., None])], 1).view(
            b, 2, h16, w16
        )
        costs.append(best)
        vectors.append(mv)
    cost, mv = _pick(costs, vectors)
    for _ in range(2):
        pred = _median(mv)
        options = [mv, pred, *_neighbours(mv)]
        cost, mv = _pick([level.sad(o) * 4 + _rate(lam, o, pred, 8) for o in options], options)

    # Full resolution: nine positions around, per 8x8 quarter as well.
    level = _Level(cur, ref, 16)
    mv = mv * 2
    pred = _median(mv)
    sad = level.sad_around(mv, part=True)  # [B,N,9,2,2]
    flat, p = mv.flatten(2), pred.flatten(2)
    vx, vy = flat[:, 0, :, None] + ox, flat[:, 1, :, None] + oy
    rate = lam.view(-1, 1, 1) * _bits((vx - p[:, 0, :, None]) * 4, (vy - p[:, 1, :, None]) * 4)
    index = (sad.sum((3, 4)) + rate).argmin(2, keepdim=True)
    mv16 = torch.stack([vx.gather(2, index), vy.gather(2, index)], 1).view(b, 2, h16, w16)

    # 8x8: own best of the nine, zero, and the vectors of the adjacent 16x16 blocks.
    index8 = (sad + rate[..., None, None]).argmin(2)  # [B,N,2,2]
    own = torch.stack([v.gather(2, index8.view(b, -1, 4)) for v in (vx, vy)], 1)  # [B,2,N,4]
    own = own.view(b, 2, h16, w16, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(b, 2, h16 * 2, w16 * 2)
    level = _Level(cur, ref, 8)
    base = _up(mv16)
    left, right, upper, lower = (_up(n) for n in _neighbours(mv16))
    side, pile = left.clone(), upper.clone()
    side[..., 1::2], pile[..., 1::2, :] = right[..., 1::2], lower[..., 1::2, :]
    options = [base, own, side, pile, torch.zeros_like(base)]
    _, mv8 = _pick([level.sad(o) + _rate(lam, o, base, 4) for o in options], options)
    return mv16, mv8


_REACH = 2  # quarter pixels searched at each side of a whole-pixel vector
_SIDE = 2 * _REACH + 1


@functools.lru_cache(maxsize=None)
def _fraction_matrices(device):
    """Interpolation [16, SIDE*8]: 8 samples at each offset of -REACH..REACH quarters, from 16
    samples
    that start 4 before the block; and the sum over each offset's 8 samples [SIDE*8, SIDE].
    """
    m, total = torch.zeros(_SIDE, 8, 16), torch.zeros(_SIDE, 8, _SIDE)
    for k in range(-_REACH, _REACH + 1):
        total[k + _REACH, :, k + _REACH] = 1
        for i in range(8):
            start = i + (k >> 2) + 4 - 3
            m[k + _REACH, i, start : start + 8] = (
                torch.tensor(LUMA_TAPS[k & 3], dtype=torch.float32) / 64
            )
    return m.view(-1, 16).t().contiguous().to(device), total.view(-1, _SIDE).to(device)


def _fraction_sads(blocks, ref, index, top, left):
    """SAD [K,SIDE*SIDE] of 8x8 blocks [K,8,8] at quarter-pixel offsets about whole-pixel corners.

    `index` [K] is the picture of each block; chunked on the CPU so that the work stays in its
    cache.
    """
    b, _, h, w = ref.shape
    m, total = _fraction_matrices(ref.device)
    flat, steps = ref.reshape(-1), torch.arange(16, device=ref.device) - 4
    blocks = blocks.transpose(1, 2)[:, None, :, None].expand(-1, _SIDE, -1, _SIDE, -1)
    out, chunk = [], 128 if ref.device.type == "cpu" else 1 << 16
    for i in range(0, len(blocks), chunk):
        part = slice(i, i + chunk)
        rows = (top[part, None] + steps).clamp_(0, h - 1) + index[part, None] * h
        cols = (left[part, None] + steps).clamp_(0, w - 1)
        win = flat[(rows * w)[:, :, None] + cols[:, None]]  # [k,16,16]
        # Both directions as one large matrix product each (small batched ones are slow): x,
        # transpose, y.
        pred = (win @ m).transpose(
            1, 2
        ).contiguous() @ m  # [k, x offset and sample, y offset and sample]
        k = pred.shape[0]
        pred = pred.view(k, _SIDE, 8, _SIDE, 8).sub_(blocks[part]).abs_()
        sad = (pred.view(k, 8 * _SIDE, 8 * _SIDE) @ total).view(k, _SIDE, 8, _SIDE).sum(2)
        out.append(sad.transpose(1, 2).reshape(k, _SIDE * _SIDE))
    return torch.cat(out)


@functools.lru_cache(maxsize=None)
def _compiled():
    """The compiled search for CPUs, or None where numba is not installed."""
    try:
        from . import motion_cpu
    except ImportError:
        return None
    return motion_cpu


@torch.no_grad()
def estimate(
    cur_y: torch.Tensor, ref_y: torch.Tensor, lam=8.0, block: int = 8, reach: int = 8
) -> torch.Tensor:
    """Rate-aware block motion search: quarter-pixel vectors [B,2,H/8,W/8], int64.

    Mimics an encoder's search over 16x16 blocks with an optional split to 8x8 (`block=16`: never
    split). `lam`: luma SAD that one bit of motion is worth, a number or a tensor [B] (see
    `lambda_of_step`): it pulls vectors to their neighbours' and to zero, and four 8x8 vectors to
    one. `reach`: search range in units of four pixels.
    """
    _check_size(cur_y)
    if block == 8 and cur_y.device.type == "cpu" and _compiled() is not None:
        return _compiled().estimate(cur_y, ref_y, LUMA_TAPS, lam, reach)
    cur, ref = cur_y.float().contiguous(), ref_y.float().contiguous()
    b, _, h, w = cur.shape
    device = cur.device
    lam = torch.as_tensor(lam, dtype=torch.float32, device=device).reshape(-1).expand(b)
    h16, w16 = h // 16, w // 16
    mv16, mv8 = _whole_search(cur, ref, lam, reach)
    base = _up(mv16)

    # Quarter pixels around the 16x16 blocks' vectors, kept per 8x8 quarter.
    blocks = _blocks(cur, 8).view(-1, 8, 8)
    top, left = _corners(h, w, 8, device)
    n = top.shape[1]
    index = torch.arange(b, device=device).repeat_interleave(n)

    def surface(mv, pick=None):
        mv = mv.flatten(2)
        t, l = (top + mv[:, 1]).view(-1), (left + mv[:, 0]).view(-1)
        if pick is None:
            return _fraction_sads(blocks, ref, index, t, l)
        return _fraction_sads(blocks[pick], ref, index[pick], t[pick], l[pick])

    sad = surface(base)  # [B*N,SIDE*SIDE]
    sad8 = sad
    differs = ((mv8 != base).any(1)).view(-1).nonzero()[:, 0]
    if block == 8 and len(differs):
        sad8 = sad.index_copy(0, differs, surface(mv8, differs))
    sad16 = sad.view(b, h16, 2, w16, 2, -1).sum((2, 4)).permute(0, 3, 1, 2)  # [B,SIDE*SIDE,h16,w16]
    sad8 = sad8.view(b, 2 * h16, 2 * w16, -1).permute(0, 3, 1, 2)

    ox, oy = _offsets(_REACH, device)
    lam4 = lam.view(-1, 1, 1, 1)

    def choose(surface, centre, pred):
        """Cheapest of the vectors around `centre` (quarter pixels), coded against `pred`: cost
        [B,h,w] and vectors.
        """
        vx, vy = centre[:, :1] + ox, centre[:, 1:] + oy
        cost = surface + lam4 * _bits(vx - pred[:, :1], vy - pred[:, 1:])
        best, i = cost.min(1, keepdim=True)
        return best[:, 0], torch.cat([vx.gather(1, i), vy.gather(1, i)], 1)

    centre, best = mv16 * 4, mv16 * 4
    for _ in range(3):
        cost16, best = choose(sad16, centre, _median(best))
    whole = _up(best)
    if block == 16:
        return whole
    centre, fine = mv8 * 4, whole
    for _ in range(2):
        # A quarter is coded against its 16x16 block's vector or its neighbours' median; the median
        # stands for both.
        cost8, fine = choose(sad8, centre, _median(fine))
    split = cost8.view(b, h16, 2, w16, 2).sum((2, 4)) + 2 * lam.view(-1, 1, 1) < cost16
    split = split.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
    return torch.where(split, fine, whole)


# ------------------------------------------------------------------ two references


def _per_block(x: torch.Tensor, block: int) -> torch.Tensor:
    return F.avg_pool2d(x, block) * (block * block)


def bi_modes(cur_y, y0, y1, bias=8.0):
    """Chooses per 16x16 block between two compensated luma predictions and their average: modes
    [B,1,H/16,W/16] (0, 1, 2 = average).

    `bias`: SAD by which the average must beat the better single one (number or [B]).
    """
    with torch.no_grad():
        bias = torch.as_tensor(bias, dtype=torch.float32, device=cur_y.device).reshape(-1, 1, 1, 1)
        costs = [_per_block((p - cur_y).abs(), 16) for p in (y0, y1, (y0 + y1) / 2)]
        # Equal predictions (a quiet scene) must not toggle: the first one wins by half the bias.
        return torch.cat([costs[0], costs[1] + bias / 2, costs[2] + bias], 1).argmin(
            1, keepdim=True
        )


def bi_predict(preds, modes):
    """Mixes the compensated predictions (y, u, v) of two references as `modes` [B,1,H/16,W/16] say.

    Returns p, the prediction, and d, pred0 - pred1 where the average was chosen and 0 elsewhere,
    each (y, u, v).
    """
    a, b = preds
    w0 = _share0(modes, a[0].dtype)
    both = (modes == 2).to(w0.dtype)
    p, d = [], []
    for i, (pa, pb) in enumerate(zip(a, b)):
        k = 16 if i == 0 else 8
        weight, on = (
            m.repeat_interleave(k, 2).repeat_interleave(k, 3).to(pa.dtype) for m in (w0, both)
        )
        p.append(pa * weight + pb * (1 - weight))
        d.append((pa - pb) * on)
    return tuple(p), tuple(d)


def _share0(modes, dtype):
    """Weight of the first reference by mode."""
    return torch.tensor([1.0, 0.0, 0.5], device=modes.device, dtype=dtype)[modes]


# ------------------------------------------------------------------ overlapped cells

# Weight of a neighbouring cell's prediction on the samples at their common edge, by distance from
# it; luma and chroma.
OVERLAP = ((0.25, 0.125), (0.25,))


def _shifted(x, dy, dx):
    """x [B,C,h,w] of the neighbour at (dy, dx); the own value where there is none."""
    p = F.pad(x.float(), (1, 1, 1, 1), mode="replicate").to(x.dtype)
    h, w = x.shape[-2:]
    return p[..., 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]


@functools.lru_cache(maxsize=None)
def _strip(side, block, weights, device, dtype):
    """Weights [block,block] of the neighbour at `side` = (dy, dx)."""
    m = torch.zeros(block, block, dtype=dtype)
    for i, w in enumerate(weights):
        m[i] = w
    if 1 in side:
        m = m.flip(0)
    return (m if side[0] else m.t()).contiguous().to(device)


def _cells(ref, picture, cell, mv, block, taps, shift):
    """Predictions [K,C,block,block] of cells from ref [B,C,H,W]: `picture`, `cell` (raster) [K],
    vectors mv [K,2].
    """
    b, c, h, w = ref.shape
    fused = ref.dtype == torch.float32 and usable(ref)
    if fused:
        return _fused_cells(fused, ref, picture, cell, mv, block, taps, shift)
    whole, phase = mv >> shift, mv & ((1 << shift) - 1)
    before, size = len(taps[0]) // 2 - 1, block + len(taps[0]) - 1
    steps = torch.arange(size, device=ref.device)
    per_row = w // block
    rows = ((cell // per_row * block + whole[:, 1] - before)[:, None] + steps).clamp_(0, h - 1)
    cols = ((cell % per_row * block + whole[:, 0] - before)[:, None] + steps).clamp_(0, w - 1)
    plane = picture[:, None] * c + torch.arange(c, device=ref.device)
    index = (plane[..., None, None] * h + rows[:, None, :, None]) * w + cols[:, None, None]
    win = ref.reshape(-1)[index]
    m = _phase_matrices(taps, block, ref.device, ref.dtype)
    return m[phase[:, 1]].unsqueeze(1) @ (win @ m[phase[:, 0]].unsqueeze(1).transpose(-1, -2))


def overlap(p, refs, mvs, share0):
    """Smooths the prediction p (y, u, v) along the edges of cells that move differently.

    Overlapped block motion compensation (Orchard and Sullivan 1994), on the samples next to an edge
    only: they are mixed with what the neighbouring cell's vectors would predict there. `refs`: one
    or two references (y, u, v); `mvs`: as many fields [B,2,h,w] of cells; `share0` [B,1,h,w]:
    weight of the first reference.
    """
    b, _, hc, wc = mvs[0].shape
    used = [mvs[0] * (share0 > 0)] + [m * (share0 < 1) for m in mvs[1:]]
    key = torch.cat([(share0 * 2).to(torch.int64), *used], 1)
    own = [
        q.reshape(b, 1, hc, q.shape[2] // hc, wc, -1).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        for q in p
    ]
    own = [own[0], torch.cat(own[1:], 1)]
    out = list(own)
    for side in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        pick = (_shifted(key, *side) != key).any(1).flatten().nonzero()[:, 0]
        if not len(pick):
            continue
        picture, cell = pick // (hc * wc), pick % (hc * wc)
        take = lambda x: _shifted(x, *side).flatten(2).transpose(1, 2).flatten(0, 1)[pick]
        share = take(share0).view(-1, 1, 1, 1)
        for i, (block, taps, shift) in enumerate(((8, LUMA_TAPS, 2), (4, CHROMA_TAPS, 3))):
            plane = lambda ref: ref[0] if i == 0 else torch.cat(ref[1:], 1)
            near = [
                _cells(plane(r), picture, cell, take(m), block, taps, shift)
                for r, m in zip(refs, mvs)
            ]
            near = near[0] if len(near) == 1 else near[0] * share + near[1] * (1 - share)
            strip = _strip(side, block, OVERLAP[i], near.device, near.dtype)
            out[i] = out[i].index_add(0, pick, (near - own[i][pick]) * strip)
    y, uv = (
        q.view(b, hc, wc, q.shape[1], q.shape[2], -1)
        .permute(0, 3, 1, 4, 2, 5)
        .reshape(b, q.shape[1], hc * q.shape[2], -1)
        for q in out
    )
    return y, uv[:, :1], uv[:, 1:]


def predict(cur, ref0, ref1, lam=8.0, block: int = 8, reach: int = 8):
    """Searches both references for `cur` and predicts: (p, d, modes, mv0, mv1), see `bi_modes`,
    `bi_predict` and `overlap`.

    All pictures are (y, u, v) in 0..255; gradients flow to the references' samples. With ref1 None
    (or the same object as ref0) only ref0 is used, and d is zero.
    """
    mv0 = estimate(cur[0].detach(), ref0[0].detach(), lam, block, reach)
    p0 = compensate(ref0, mv0)
    if ref1 is None or ref1 is ref0:
        modes = torch.zeros_like(mv0[:, :1, ::2, ::2])
        p = overlap(p0, (ref0,), (mv0,), torch.ones_like(mv0[:, :1], dtype=p0[0].dtype))
        return p, tuple(torch.zeros_like(x) for x in p0), modes, mv0, mv0
    mv1 = estimate(cur[0].detach(), ref1[0].detach(), lam, block, reach)
    p1 = compensate(ref1, mv1)
    modes = bi_modes(cur[0], p0[0], p1[0], lam)
    p, d = bi_predict((p0, p1), modes)
    share0 = _share0(modes, p[0].dtype).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return overlap(p, (ref0, ref1), (mv0, mv1), share0), d, modes, mv0, mv1

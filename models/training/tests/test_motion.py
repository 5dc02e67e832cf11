import numpy as np
import pytest
import torch
from nnvtrain import data, motion


def psnr(a, b):
    return float(10 * torch.log10(255**2 / ((a - b) ** 2).mean().clamp(min=1e-9)))


def slow_predict(plane, mv, block, taps, fraction):
    """Reference: sample by sample, straight from the definition."""
    h, w = plane.shape
    n, before = len(taps[0]), len(taps[0]) // 2 - 1
    out = np.zeros((h, w))
    for y in range(h):
        for x in range(w):
            vx, vy = (int(c) for c in mv[:, y // block, x // block])
            fx, fy = taps[vx % fraction], taps[vy % fraction]
            x0, y0 = x + vx // fraction - before, y + vy // fraction - before
            total = 0.0
            for j in range(n):
                row = plane[min(max(y0 + j, 0), h - 1)]
                total += fy[j] * sum(fx[i] * row[min(max(x0 + i, 0), w - 1)] for i in range(n))
            out[y, x] = total / 4096
    return np.clip(out, 0, 255)


def test_taps_sum_to_64_and_mirror():
    for taps in (motion.LUMA_TAPS, motion.CHROMA_TAPS):
        assert all(sum(row) == 64 for row in taps)
        for k in range(1, len(taps)):
            assert taps[k] == taps[len(taps) - k][::-1]


def test_compensation_matches_the_definition():
    rng = np.random.default_rng(0)
    y, u, v = (
        torch.from_numpy(rng.integers(0, 256, (2, 1, n, m)).astype(np.float32))
        for n, m in ((32, 48), (16, 24), (16, 24))
    )
    mv = torch.from_numpy(rng.integers(-60, 61, (2, 2, 4, 6)))
    mv[0, :, 0, 0] = torch.tensor([-500, 900])  # far outside: clamped
    out = motion.compensate((y, u, v), mv)
    for plane, got, block, taps, fraction in (
        (y, out[0], 8, motion.LUMA_TAPS, 4),
        (u, out[1], 4, motion.CHROMA_TAPS, 8),
        (v, out[2], 4, motion.CHROMA_TAPS, 8),
    ):
        for b in range(2):
            want = slow_predict(plane[b, 0].numpy(), mv[b].numpy(), block, taps, fraction)
            assert np.abs(got[b, 0].numpy() - want).max() < 1e-2


def test_compensation_gradient():
    rng = np.random.default_rng(1)
    ref = tuple(
        torch.from_numpy(rng.uniform(80, 160, (1, 1, n, n))).requires_grad_() for n in (16, 8, 8)
    )
    mv = torch.from_numpy(rng.integers(-9, 10, (1, 2, 2, 2)))
    assert torch.autograd.gradcheck(lambda *r: motion.compensate(r, mv), ref, eps=1e-4, atol=1e-5)


@pytest.fixture(params=["tensors", "compiled"])
def search(request, monkeypatch):
    """Both implementations of the search: on tensors (any device) and compiled (CPU)."""
    if request.param == "tensors":
        monkeypatch.setattr(motion, "_compiled", lambda: None)
    elif motion._compiled() is None:
        pytest.skip("NOT TESTED: numba is not installed, so the compiled motion search is absent")
    return motion.estimate


def textured(rng, size):
    x = torch.zeros(1, 1, size, size)
    for cells in (size // 32, size // 8, size // 3):
        a = torch.from_numpy(rng.normal(0, 30, (1, 1, cells, cells)).astype(np.float32))
        x += torch.nn.functional.interpolate(a, size=(size, size), mode="bicubic")
    return (x + 128).clamp(0, 255)


@pytest.mark.parametrize("shift", [(0, 0), (5, -3), (40, 22), (-71, 60), (2, 1), (-13, 7)])
def test_search_finds_a_global_shift(search, shift):
    """The reference, moved by a known number of quarter pixels: the field must be that vector
    nearly everywhere.
    """
    ref = textured(np.random.default_rng(3), 192)
    truth = torch.tensor(shift).view(1, 2, 1, 1).expand(1, 2, 24, 24)
    chroma = torch.full((1, 1, 96, 96), 128.0)
    cur = motion.compensate((ref, chroma, chroma), truth)[0]
    mv = search(cur, ref, lam=4.0)
    inner = (mv == truth).all(1)[:, 3:-3, 3:-3]
    assert inner.float().mean() > 0.98, inner.float().mean()


def test_search_splits_at_an_8x8_border(search):
    rng = np.random.default_rng(4)
    ref = textured(rng, 128)
    truth = torch.zeros(1, 2, 16, 16, dtype=torch.int64)
    truth[:, 0, 5:11, 5:11] = 12
    chroma = torch.full((1, 1, 64, 64), 128.0)
    cur = motion.compensate((ref, chroma, chroma), truth)[0]
    mv = search(cur, ref, lam=4.0)
    assert (mv == truth).all(1).float().mean() > 0.95
    coarse = search(cur, ref, lam=4.0, block=16)
    assert torch.equal(coarse, motion._up(coarse[..., ::2, ::2]))


def test_high_lambda_smooths_and_noise_stays_still(search):
    rng = np.random.default_rng(5)
    ref = textured(rng, 128)
    cur = ref + torch.from_numpy(rng.normal(0, 4, (1, 1, 128, 128)).astype(np.float32))
    assert (search(cur, ref, lam=30.0) == 0).all()
    flat = torch.full((1, 1, 64, 64), 50.0)
    assert (search(flat, flat, lam=1.0) == 0).all()


def test_batch_equals_single(search):
    rng = np.random.default_rng(6)
    ref = torch.cat([textured(rng, 96) for _ in range(3)])
    cur = torch.roll(ref, (3, -5), (2, 3))
    lam = torch.tensor([2.0, 8.0, 32.0])
    together = search(cur, ref, lam)
    for i in range(3):
        assert torch.equal(together[i : i + 1], search(cur[i : i + 1], ref[i : i + 1], lam[i]))


def test_bi_prediction_chooses_per_block():
    rng = np.random.default_rng(7)

    def noise(n):
        return torch.from_numpy(rng.uniform(0, 255, (1, 1, n, n)).astype(np.float32))

    a, b = tuple(noise(n) for n in (48, 24, 24)), tuple(noise(n) for n in (48, 24, 24))
    want = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 2, 0]]).view(1, 1, 3, 3)
    cur = []
    for i, (x, y) in enumerate(zip(a, b)):
        k = 16 if i == 0 else 8
        m = want.repeat_interleave(k, 2).repeat_interleave(k, 3)
        cur.append(torch.where(m == 0, x, torch.where(m == 1, y, (x + y) / 2)))
    modes = motion.bi_modes(cur[0], a[0], b[0])
    p, d = motion.bi_predict((a, b), modes)
    assert torch.equal(modes, want)
    for i in range(3):
        k = 16 if i == 0 else 8
        on = (want == 2).repeat_interleave(k, 2).repeat_interleave(k, 3)
        assert torch.allclose(p[i], cur[i]) and torch.equal(d[i], torch.where(on, a[i] - b[i], 0.0))
    # Equal predictions: the first reference, nothing toggles.
    modes = motion.bi_modes(cur[0], a[0], a[0])
    _, d = motion.bi_predict((a, a), modes)
    assert (modes == 0).all() and (d[0] == 0).all()


def test_overlap_mixes_what_the_neighbours_vectors_predict():
    rng = np.random.default_rng(11)
    refs = [
        tuple(
            torch.from_numpy(rng.uniform(0, 255, (2, 1, n, n)).astype(np.float32))
            for n in (32, 16, 16)
        )
        for _ in range(2)
    ]
    mvs = [torch.from_numpy(rng.integers(-40, 41, (2, 2, 4, 4))) for _ in range(2)]
    modes = torch.from_numpy(rng.integers(0, 3, (2, 1, 2, 2)))
    share0 = torch.tensor([1.0, 0.0, 0.5])[modes].repeat_interleave(2, 2).repeat_interleave(2, 3)

    def predicted(dy, dx):
        """The whole picture by the vectors and modes of each cell's neighbour, its own where there
        is none.
        """
        there = [motion._shifted(m, dy, dx) for m in mvs]
        planes = [motion.compensate(r, m, low=-1e9, high=1e9) for r, m in zip(refs, there)]
        share = motion._shifted(share0, dy, dx)
        out = []
        for i, (a, b) in enumerate(zip(*planes)):
            k = 8 if i == 0 else 4
            w = share.repeat_interleave(k, 2).repeat_interleave(k, 3)
            out.append(a * w + b * (1 - w))
        return out

    own = predicted(0, 0)
    got = motion.overlap(own, refs, mvs, share0)
    sides = [predicted(-1, 0), predicted(1, 0), predicted(0, -1), predicted(0, 1)]
    for i, k in enumerate((8, 4, 4)):
        want = own[i].clone()
        n = own[i].shape[-1]
        for y in range(n):
            for x in range(n):
                for side, at in zip(sides, (y % k, k - 1 - y % k, x % k, k - 1 - x % k)):
                    weight = ({0: 0.25, 1: 0.125} if i == 0 else {0: 0.25}).get(at, 0.0)
                    want[:, :, y, x] += weight * (side[i] - own[i])[:, :, y, x]
        assert torch.allclose(got[i], want, atol=1e-3), i
    # Cells that move alike have no edge between them.
    still = [torch.zeros_like(m) for m in mvs]
    assert all(
        torch.equal(a, b)
        for a, b in zip(motion.overlap(own, refs, still, torch.ones_like(share0)), own)
    )


def test_predict_keeps_gradients_to_references():
    rng = np.random.default_rng(8)
    cur = (textured(rng, 64), torch.full((1, 1, 32, 32), 100.0), torch.full((1, 1, 32, 32), 150.0))
    refs = [tuple(torch.roll(p, s, 3).requires_grad_() for p in cur) for s in (1, -2)]
    p, d, modes, mv0, mv1 = motion.predict(cur, *refs, lam=4.0)
    sum(x.sum() for x in p).backward()
    assert refs[0][0].grad.abs().sum() > 0
    p, d, modes, mv0, mv1 = motion.predict(cur, refs[0], None)
    assert (modes == 0).all() and all((x == 0).all() for x in d)
    assert modes.shape == (1, 1, 4, 4)


def test_refuses_unpadded_pictures():
    x = torch.zeros(1, 1, 40, 64)
    with pytest.raises(ValueError, match="multiples of 16"):
        motion.estimate(x, x)


def test_gain_on_real_clips(search, real_store):
    """Prediction of real frames from their predecessors: 8x8 beats 16x16 beats no motion."""
    gains = []
    batches = data.Sequences(real_store, 4, 3, 256, seed=12, synthetic=0.0)
    for _ in range(4):
        y, u, v = (t.float() for t in next(batches))
        cur, ref = (y[:, 1], u[:, 1], v[:, 1]), (y[:, 0], u[:, 0], v[:, 0])
        row = [psnr(cur[0], ref[0])]
        for block in (16, 8):
            row.append(
                psnr(cur[0], motion.compensate(ref, search(cur[0], ref[0], 4.0, block=block))[0])
            )
        gains.append(row)
    none, coarse, fine = np.mean(gains, 0)
    print(f"prediction PSNR: no motion {none:.1f}, 16x16 {coarse:.1f}, 8x8 {fine:.1f} dB")
    assert fine > coarse + 0.5 and coarse > none + 3

import math
import zlib

import numpy as np
import pytest

from nnvrd import metrics, png


def picture(shift: int, noise: int) -> np.ndarray:
    """192x208 of waves and an edge, with a deterministic disturbance."""
    y, x = np.mgrid[0:192, 0:208]
    base = 120 + 60 * np.sin((x + shift) / 7.0) + 40 * np.cos(y / 11.0) + 30 * (x > 100)
    disturbed = base + noise * (((x * 7919 + y * 104729) % 17) - 8)
    return np.clip(np.round(disturbed), 0, 255).astype(np.uint8)


def test_ssim_equals_the_published_definition():
    # Reference: skimage.metrics.structural_similarity, gaussian_weights, sigma 1.5, population
    # covariance.
    ssim, _ = metrics.ssim_pair(picture(0, 0), picture(0, 2))
    assert ssim == pytest.approx(SSIM_NOISE, abs=2e-5)
    ssim, _ = metrics.ssim_pair(picture(0, 0), picture(1, 1))
    assert ssim == pytest.approx(SSIM_SHIFT, abs=2e-5)


SSIM_NOISE = 0.6939022050502477
SSIM_SHIFT = 0.8841080850285986


def direct_ms_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """The definition written down with full two-dimensional windows, slow and plain."""
    t = np.arange(11) - 5
    g = np.exp(-(t**2) / 4.5)
    window = np.outer(g, g) / g.sum() ** 2
    x, y = x.astype(np.float64), y.astype(np.float64)
    out = 1.0
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    for i, weight in enumerate(weights):

        def mean(a):
            views = np.lib.stride_tricks.sliding_window_view(a, (11, 11))
            return np.einsum("ijkl,kl->ij", views, window)

        mx, my = mean(x), mean(y)
        vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
        cs = (2 * cov + 58.5225) / (vx + vy + 58.5225)
        term = cs * (2 * mx * my + 6.5025) / (mx * mx + my * my + 6.5025) if i == 4 else cs
        out *= term.mean() ** weight
        x, y = (a[: a.shape[0] // 2 * 2, : a.shape[1] // 2 * 2] for a in (x, y))
        x, y = (a.reshape(a.shape[0] // 2, 2, a.shape[1] // 2, 2).mean((1, 3)) for a in (x, y))
    return out


@pytest.mark.parametrize(("shift", "noise"), [(0, 2), (1, 1), (3, 0)])
def test_ms_ssim_equals_the_plain_definition(shift, noise):
    a, b = picture(0, 0), picture(shift, noise)
    assert metrics.ssim_pair(a, b)[1] == pytest.approx(direct_ms_ssim(a, b), abs=1e-4)


def test_equal_pictures_are_perfect():
    assert metrics.ssim_pair(picture(0, 3), picture(0, 3)) == pytest.approx((1.0, 1.0))


def test_compare_counts_every_plane_of_odd_sizes(tmp_path):
    width, height, frames = 17, 13, 4
    rng = np.random.default_rng(1)
    size = metrics.frame_bytes(width, height)
    assert size == 17 * 13 + 2 * 9 * 7
    a = rng.integers(0, 200, (frames, size), dtype=np.uint8)
    b = a.copy()
    b[:, : 17 * 13] += 2
    b[1, 17 * 13 : 17 * 13 + 63] += 10
    (tmp_path / "a").write_bytes(a.tobytes())
    (tmp_path / "b").write_bytes(b.tobytes())
    q = metrics.compare(tmp_path / "a", tmp_path / "b", width, height, frames)
    assert q.psnr_y == pytest.approx(10 * math.log10(255**2 / 4))
    assert q.psnr_u == pytest.approx(10 * math.log10(255**2 / 25))
    assert q.psnr_v == metrics.CAP_DB
    assert q.psnr_yuv == pytest.approx((6 * q.psnr_y + q.psnr_u + q.psnr_v) / 8)
    with pytest.raises(ValueError, match="5 frames"):
        metrics.compare(tmp_path / "a", tmp_path / "b", width, height, 5)


def test_png_holds_the_pixels(tmp_path):
    rgb = np.random.default_rng(2).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    png.write_png(tmp_path / "x.png", rgb)
    data = (tmp_path / "x.png").read_bytes()
    at = data.index(b"IDAT")
    length = int.from_bytes(data[at - 4 : at], "big")
    rows = np.frombuffer(zlib.decompress(data[at + 4 : at + 4 + length]), np.uint8).reshape(5, 22)
    undone = np.cumsum(rows[:, 1:].reshape(5, 7, 3), axis=1, dtype=np.uint8)
    assert (rows[:, 0] == 1).all()
    assert (undone == rgb).all()


def test_grey_stays_grey_and_red_is_red():
    y = np.full((4, 4), 126, np.uint8)
    c = np.full((2, 2), 128, np.uint8)
    grey = png.i420_to_rgb(y, c, c)
    assert (grey == grey[0, 0, 0]).all()
    assert grey[0, 0, 0] == 128
    red = png.i420_to_rgb(
        np.full((4, 4), 81, np.uint8), np.full((2, 2), 90, np.uint8), np.full((2, 2), 240, np.uint8)
    )
    assert red[0, 0, 0] > 250
    assert (red[0, 0, 1:] < 5).all()

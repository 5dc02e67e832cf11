import numpy as np
import pytest

from nnvrd.bdrate import akima_integral, akima_slopes, bd_rate, make_curve

# Expected values: PyPI bjontegaard, bd_rate(..., method="akima").
CASES = [
    ([7.5, 13.0, 23.0, 44.4, 80.6], [28.1, 30.50, 32.94, 35.48, 38.46],
     [7.1, 11.9, 22.0, 40.3, 70.1], [28.3, 30.4, 33.2, 35.6, 38.5], -9.980688791596915),
    ([100, 200, 400, 800], [30, 33, 36, 39], [80, 160, 320, 640], [30, 33, 36, 39], -20.0),
    ([120, 260, 410, 930, 2100, 4000], [29.1, 32.7, 35.5, 38.2, 41.9, 43.0],
     [150, 280, 520, 1010, 1900], [30.2, 33.3, 35.9, 38.0, 40.4], 7.6046474359480865),
]  # fmt: skip


@pytest.mark.parametrize(("anchor_rate", "anchor_q", "test_rate", "test_q", "expected"), CASES)
def test_matches_the_published_tool(anchor_rate, anchor_q, test_rate, test_q, expected):
    found = bd_rate(make_curve(anchor_rate, anchor_q), make_curve(test_rate, test_q))
    assert found.percent == pytest.approx(expected, abs=1e-6)


def test_order_of_points_does_not_matter_and_overlap_is_told():
    rates, q = [80, 10, 40, 20], [39, 30, 36, 33]
    found = bd_rate(make_curve(rates, q), make_curve([r / 2 for r in rates], [x + 3 for x in q]))
    assert found.overlap == pytest.approx(6 / 9)
    assert found.percent < -50


def test_points_that_gain_nothing_are_dropped_and_counted():
    curve = make_curve([10, 20, 30, 40], [30, 32, 31.5, 34])
    assert curve.dropped == 1
    assert list(curve.quality) == [30, 32, 34]


def test_no_figure_where_there_is_none():
    low, high = (
        make_curve([1, 2, 3, 4], [20, 21, 22, 23]),
        make_curve([1, 2, 3, 4], [30, 31, 32, 33]),
    )
    assert bd_rate(low, high) is None
    assert bd_rate(low, make_curve([1, 2, 3], [20, 21, 22])) is None


def test_integral_of_a_line_is_exact_and_two_points_are_a_line():
    x = np.array([0.0, 1.0, 2.5, 4.0])
    assert akima_integral(x, 3 * x + 1, 0.5, 3.5) == pytest.approx(1.5 * (3.5**2 - 0.5**2) + 3)
    assert list(akima_slopes(np.array([0.0, 2.0]), np.array([1.0, 5.0]))) == [2.0, 2.0]

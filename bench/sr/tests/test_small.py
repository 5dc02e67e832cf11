"""Figures that the report works out: rates between points, and what bundles owe."""

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from nnvsr import report, store  # noqa: E402
from nnvsr.bundles import Network  # noqa: E402


def network(name, scale):
    return Network(name, scale, Path("x.onnx"), f"{name}@0", 3, 1, 0, 0, "int8", {})


def test_rates_between_points_and_outside():
    rows = [
        store.Small("c", 9, "k", q, "full", kbps, psnr, 0.9)
        for q, kbps, psnr in ((1, 100, 30), (2, 1000, 40), (3, 10, 20))
    ]
    assert report.at_rate(rows, 100, "psnr") == pytest.approx(30)
    assert report.at_rate(rows, 100 * 10**0.5, "psnr") == pytest.approx(35)
    assert report.at_rate(rows, 5, "psnr") is None and report.at_rate([], 5, "psnr") is None


def test_small_table_compares_at_the_same_rate(tmp_path):
    table = store.Table(tmp_path / "small.csv", store.Small)
    for q, method, kbps, psnr in (
        (40, "full", 100, 30.0),
        (50, "full", 50, 28.0),
        (30, "lanczos", 100, 29.0),
        (30, "compressed@0", 100, 30.5),
    ):
        table.add(store.Small("c", 9, "k", q, method, kbps, psnr, 0.9))
    text = "\n".join(report.small_table(table, [network("compressed", 2)]))
    assert "+0.50" in text and "-1.00" in text and "at 1 points" in text
    assert report.small_table(store.Table(tmp_path / "none.csv", store.Small), []) == []


def test_debts_are_named(tmp_path):
    table = store.Table(tmp_path / "clips.csv", store.Clip)
    for crf, scale, method, psnr in (
        (32, 1, "decoded", 30.0),
        (32, 1, "deblock@0", 30.2),
        (18, 1, "decoded", 40.0),
        (18, 1, "deblock@0", 40.1),
    ):
        table.add(store.Clip("c", 9, crf, scale, method, 10, psnr, 0.9, None, None))
    assert report.clip_targets(table, network("deblock", 1)) == [
        "- `deblock`, PSNR at CRF 32: +0.200, wanted +0.35."
    ]
    assert report.clip_targets(table, network("fast", 2)) == []
    gains = " ".join(" ".join(report.repair_gains(table, [network("deblock", 1)])).split())
    assert "| c (9) | +0.10 | | | +0.20 | |" in gains

import argparse
import dataclasses
from types import SimpleNamespace

import pytest

from nnvrd import report
from nnvrd.clips import Clip
from nnvrd.codecs import CODECS, Model, y4m_to_yuv
from nnvrd.store import Row, Store

MODELS = {"realtime": Model((), "m", "abc", {"training": {"kmac_per_pixel": 9.5}})}


def row(codec: str, point: int, bpp: float, db: float, **changes) -> Row:
    c = CODECS[codec]
    base = Row("clip", codec, point, 96, c.config(1000), "abc" if c.kind == "nnv" else "", "v", 64, 64, 25.0, int(bpp * 1e5),
               bpp * 100, bpp, db, db + 3, db + 3, db + 0.75, 0.9, 0.95 + point / 1e4, None, 1.0, 0.5, 1, 0.1)  # fmt: skip
    return dataclasses.replace(base, **changes)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "results")
    for i in range(5):
        store.add(row("x264-medium", 40 - 5 * i, 0.1 * 2**i, 30 + 3 * i))
        store.add(row("nnv-b7", 40 - 5 * i, 0.05 * 2**i, 30 + 3 * i))
        store.add(row("nnv-b7", 40 - 5 * i, 0.3 * 2**i, 30 + 3 * i, model="other bundle"))
        store.add(row("x264-medium", 40 - 5 * i, 9.0, 60, frames=33))
    return store


CLIPS = [Clip("clip", None, False)]


def test_rows_survive_a_restart_and_a_later_row_replaces(store):
    store.add(row("nnv-b7", 40, 0.04, 31))
    again = Store(store.folder)
    assert again.rows == Store(store.folder).rows
    assert len(again.rows) == 20
    key = row("nnv-b7", 40, 0, 0).key
    assert again.rows[key].bpp == 0.04
    again.compact()
    assert Store(store.folder).rows == again.rows
    assert len((store.folder / "clip.csv").read_text().splitlines()) == 21


def test_selection_keeps_to_setting_and_bundle(store):
    chosen = report.select(store, CLIPS, 96, 1000, MODELS)
    assert {c: len(r) for c, r in chosen.rows["clip"].items()} == {"x264-medium": 5, "nnv-b7": 5}
    result = report.compare(chosen, "clip", "nnv-b7", "x264-medium", "psnr_yuv")
    assert result.percent == pytest.approx(-50, abs=0.01)
    assert "-50.0" in "\n".join(report.bd_by_clip(chosen))
    assert report.losses(chosen) == []
    short = report.select(store, CLIPS, 33, 1000, MODELS)
    assert list(short.rows["clip"]) == ["x264-medium"]
    assert report.select(store, CLIPS, 96, 64, MODELS).rows == {}
    # An interval beyond the clip's end changes nothing.
    assert report.select(store, CLIPS, 96, 96, MODELS).rows == chosen.rows


def test_losses_name_the_clip(store):
    for i in range(5):
        store.add(row("nnv-b7", 40 - 5 * i, 0.2 * 2**i, 30 + 3 * i))
    text = "\n".join(report.losses(report.select(store, CLIPS, 96, 1000, MODELS)))
    assert "| clip" in text
    assert "+100.0" in text


def test_a_section_is_replaced_and_the_rest_stays():
    page = report.insert_section("# Results\n\nmine\n", "video", "one")
    page = report.insert_section(page, "kodak", "two")
    page = report.insert_section(page + "\ntail\n", "video", "three")
    assert "one" not in page
    assert page.index("mine") < page.index("three") < page.index("two") < page.index("tail")
    assert report.insert_section(page, "video", "three") == page


def test_published_page_and_plots(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "REPO", tmp_path)
    a = argparse.Namespace(nframes=96, codecs=None, key=1000, key_interval="whole", no_docs=False, quick=False, clips=[], frames=None,
                           dataset="video", model_path=None, points=None, vmaf=False)  # fmt: skip
    report.publish(a, CLIPS, store, MODELS)
    text = (tmp_path / "docs/results.md").read_text()
    assert "training.kmac_per_pixel: 9.5" in text
    assert "(rd/clip.svg)" in text
    svg = (tmp_path / "docs/rd/clip.svg").read_text()
    assert svg.startswith("<svg")
    assert svg.count("<circle") == 10
    assert "-50.0" in capsys.readouterr().out


def test_y4m_frames_are_counted_and_checked(tmp_path):
    source = tmp_path / "a.y4m"
    source.write_bytes(b"YUV4MPEG2 W2 H2 F25:1\n" + b"FRAME\n123456" + b"FRAME Ip\nabcdef")
    y4m_to_yuv(source, tmp_path / "a.yuv", 2, 2, 2)
    assert (tmp_path / "a.yuv").read_bytes() == b"123456abcdef"
    source.write_bytes(b"YUV4MPEG2 W2 H2 F25:1\nFRAME\n123")
    with pytest.raises(RuntimeError, match="3 of 6 bytes"):
        y4m_to_yuv(source, tmp_path / "a.yuv", 2, 2, 1)


def test_padding_of_y4m_rows_is_taken_off(tmp_path):
    source = tmp_path / "a.y4m"
    frame = b"FRAME\nabcdef..ghijkl..mnopqr..........123.456.uvw.xyz."
    source.write_bytes(b"YUV4MPEG2 W6 H3 F25:1\n" + 2 * frame)
    y4m_to_yuv(source, tmp_path / "a.yuv", 6, 3, 2)
    assert (tmp_path / "a.yuv").read_bytes() == 2 * b"abcdefghijklmnopqr123456uvwxyz"


def test_a_curve_takes_only_the_points_asked_for():
    rows = {"clip": {"nnv-b7": [SimpleNamespace(codec="nnv-b7", point=p) for p in (8, 16, 24)],
                     "x264-medium": [SimpleNamespace(codec="x264-medium", point=27)],
                     "x265-medium": [SimpleNamespace(codec="x265-medium", point=27)]}}  # fmt: skip
    got = report.restricted(report.Selection(rows, False), ["nnv-b7", "x264-medium"], {8, 24}).rows["clip"]
    assert {c: [r.point for r in kept] for c, kept in got.items()} == {"nnv-b7": [8, 24], "x264-medium": [27]}
    assert report.restricted(report.Selection(rows, False), None, None).rows == rows

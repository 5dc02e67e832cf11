import argparse
import dataclasses
from types import SimpleNamespace

import pytest

from nnvrd import report
from nnvrd.clips import Clip
from nnvrd.codecs import CODECS, WHOLE_CLIP, Model, y4m_to_yuv
from nnvrd.store import Row, Store

MODELS = {"realtime": Model((), "m", "abc", {"training": {"kmac_per_pixel": 9.5}})}


def row(codec: str, point: int, bpp: float, db: float, **changes) -> Row:
    c = CODECS[codec]
    base = Row(
        clip="clip", codec=codec, point=point, frames=96, config=c.config(WHOLE_CLIP),
        model="abc" if c.kind == "nnv" else "", version="v", width=64, height=64, fps=25.0,
        bytes=int(bpp * 1e5), kbps=bpp * 100, bpp=bpp, psnr_y=db, psnr_u=db + 3, psnr_v=db + 3,
        psnr_yuv=db + 0.75, ssim=0.9, msssim=0.95 + point / 1e4, vmaf=None, xpsnr=None,
        encode_cpu_s=1.0, decode_cpu_s=0.5, threads=1, load=0.1, machine="m",
    )  # fmt: skip
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


def select(store, frames=96, key_interval=WHOLE_CLIP, versions=None):
    return report.select(store, CLIPS, frames, key_interval, MODELS, versions or {})


def test_selection_keeps_to_setting_and_bundle(store):
    chosen = select(store)
    counts = {c: len(r) for c, r in chosen.rows["clip"].items()}
    assert counts == {"x264-medium": 5, "nnv-b7": 5}
    result = report.compare(chosen, "clip", "nnv-b7", "x264-medium", "psnr_yuv")
    assert result.percent == pytest.approx(-50, abs=0.01)
    assert "-50.0" in "\n".join(report.bd_by_clip(chosen, report.pairs_of(chosen)))
    assert report.losses(chosen) == []
    assert list(select(store, frames=33).rows["clip"]) == ["x264-medium"]
    assert select(store, key_interval=64).rows == {}
    # An interval beyond the clip's end changes nothing.
    assert select(store, key_interval=96).rows == chosen.rows


def test_rows_of_another_version_are_left_out_or_refused(store):
    for point in (40, 35):
        store.add(row("x264-medium", point, 0.1, 31, version="older"))
    key = row("x264-medium", 40, 0, 0).key
    assert store.find(key, "older").psnr_y == 31
    assert store.find(key, "v") is None
    chosen = select(store, versions={"x264-medium": "v"})
    assert [r.point for r in chosen.rows["clip"]["x264-medium"]] == [30, 25, 20]
    report.refuse_mixtures(chosen)
    with pytest.raises(SystemExit, match="x264-medium are of several versions: older; v"):
        report.refuse_mixtures(select(store))


def test_columns_of_older_files_are_refused(tmp_path):
    (tmp_path / "clip.csv").write_text("clip,codec,point\nclip,x264-medium,17\n")
    with pytest.raises(SystemExit, match="lacks the column frames"):
        Store(tmp_path)


def test_speed_is_cpu_time_beside_nnv(store):
    text = "\n".join(report.speeds(select(store)))
    assert "nnv-b7 takes × its encode time" in text
    assert "User CPU time on m, threads: 1" in text


def test_losses_name_the_clip(store):
    for i in range(5):
        store.add(row("nnv-b7", 40 - 5 * i, 0.2 * 2**i, 30 + 3 * i))
    text = "\n".join(report.losses(select(store)))
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
    page = tmp_path / "docs/results.md"
    a = argparse.Namespace(
        nframes=96, codecs=None, key=WHOLE_CLIP, key_interval="whole", no_docs=False, quick=False,
        clips=[], frames=96, dataset="video", model_path=None, points=None, vmaf=True, page=page,
    )  # fmt: skip
    report.publish(a, CLIPS, store, MODELS, {})
    text = page.read_text()
    assert "Command: `bench/rd/run.sh --frames 96 --vmaf`" in text
    assert "## Development clips, first 96 frames" in text
    assert "- Frames measured: 96 of each clip" in text
    assert "- x264-medium: x264 medium, v (`-c:v libx264 -preset medium`)" in text
    assert "training.kmac_per_pixel: 9.5" in text
    assert "(../bench/rd/plots/clip.svg)" in text
    svg = (tmp_path / "bench/rd/plots/clip.svg").read_text()
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
    selection = report.Selection(rows, False)
    got = report.restricted(selection, ["nnv-b7", "x264-medium"], {8, 24}).rows["clip"]
    points = {c: [r.point for r in kept] for c, kept in got.items()}
    assert points == {"nnv-b7": [8, 24], "x264-medium": [27]}
    assert report.restricted(selection, None, None).rows == rows

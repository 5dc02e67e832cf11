"""Coded clips, kinds of crops, and what training makes of both."""

import copy
import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from nnvtrain import curve, data, kinds, precoded, train


@pytest.fixture
def coded(store):
    pytest.importorskip("av", reason="PyAV is missing: clips cannot be coded")
    own = copy.copy(store)
    own.coded = precoded.open_coded(store, share=1.0, log=lambda _: None)
    return own


def test_a_third_of_the_names_is_chosen_always_alike():
    names = [f"clip{i}.mp4" for i in range(3000)]
    chosen = [precoded.choose(n) for n in names]
    assert chosen == [precoded.choose(n) for n in names]
    assert chosen != [precoded.choose(n, seed=1) for n in names]
    some = [c for c in chosen if c]
    assert 0.3 < len(some) / len(names) < 0.37
    assert {codec for codec, _ in some} == set(precoded.CODECS)
    assert {crf for _, crf in some} == set(range(18, 35))


@pytest.mark.parametrize("codec", precoded.CODECS)
def test_every_codec_gives_back_the_clip(store, codec):
    pytest.importorskip("av", reason="PyAV is missing: clips cannot be coded")
    errors = []
    for crf in precoded.CRF:
        given = store.planes(store.videos()[0])
        back = precoded.recode(given, codec, crf)
        assert [p.shape for p in back] == [p.shape for p in given]
        errors.append(np.square(back[0].astype(float) - given[0]).mean())
        moved = np.square(back[0][1:].astype(float) - given[0][:-1]).mean()
        assert errors[-1] < moved  # no frame is another's
    assert 0 < errors[0] < errors[1] < 300


def test_coding_goes_on_where_it_was_stopped(store, tmp_path, monkeypatch):
    pytest.importorskip("av", reason="PyAV is missing: clips cannot be coded")
    own = copy.copy(store)
    silent = dict(share=1.0, log=lambda _: None)
    own.path = tmp_path / "whole"
    whole = precoded.open_coded(own, **silent)
    own.path = tmp_path / "stopped"
    calls = []

    def until_the_fourth(*given):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return precoded_recode(*given)

    precoded_recode = precoded.recode
    monkeypatch.setattr(precoded, "recode", until_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        precoded.open_coded(own, **silent)
    again = precoded.open_coded(own, **silent)
    assert len(calls) == len(store) + 1  # the interrupted one twice, the others once
    assert again.clips == whole.clips and np.array_equal(again.data, whole.data)
    assert sorted(p.suffix for p in tmp_path.glob("stopped*")) == [".bin", ".json"]


def test_a_clip_that_cannot_be_coded_is_left_out(store, tmp_path, monkeypatch):
    own, lines = copy.copy(store), []
    own.path = tmp_path / "store"

    def refuse(planes, codec, crf):
        if len(planes[0]) > 1:
            raise ValueError("no")
        return planes

    monkeypatch.setattr(precoded, "recode", refuse)
    left = precoded.open_coded(own, share=1.0, log=lines.append)
    assert len(left) == len(store.stills()) and sum("skipped" in line for line in lines) == 2


def test_parts_of_a_store_keep_the_coded_clips_of_their_own(coded):
    part = coded.part(lambda i: i % 2)
    assert [c["name"] for c in part.coded.clips] == [c["name"] for c in part.clips]
    assert {c["of"] % 2 for c in part.coded.clips} == {1}
    planes = part.coded.planes(part.coded.clips[0])
    assert planes[0].shape[1:] == (part.clips[0]["h"], part.clips[0]["w"])


@pytest.mark.parametrize("make", [
    lambda store, **how: data.StillCrops(store, 1, 64, seed=3, p_scale=0.0, **how),
    lambda store, **how: data.Sequences(store, 1, 3, 64, seed=3, synthetic=0.0, **how)])
def test_shares_of_coded_crops(coded, make):
    crops = make(coded, p_coded=1 / 3)
    drawn = []
    for source, name in ((crops, "plain"), (crops.coded, "coded")):
        monitored = source.any
        source.any = lambda any=monitored, name=name: drawn.append(name) or any()
    again = make(coded, p_coded=1 / 3)
    for _ in range(150):
        assert all(np.array_equal(a, b) for a, b in zip(crops.sample(), again.sample()))
    assert 0.2 < drawn.count("coded") / 150 < 0.47
    # Without a share, or without coded clips, nothing changes, not even the random numbers.
    plain = copy.copy(coded)
    plain.coded = None
    for a, b in zip(itertools.islice(make(coded), 5), make(plain, p_coded=0.5)):
        assert all(torch.equal(x, y) for x, y in zip(a, b))


def planes_of(luma, chroma=(160, 100)):
    y = np.clip(np.rint(luma), 0, 255).astype(np.uint8)
    half = tuple(n // 2 for n in y.shape[-2:])
    u, v = (np.full((*y.shape[:-2], *half), c, np.uint8) for c in chroma)
    return y, u, v


def test_kinds():
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 180, 64)[None] + np.zeros((64, 1))
    assert kinds.kinds(planes_of(ramp / 2 + 60)) == {"smooth"}
    assert kinds.kinds(planes_of(ramp / 6)) == {"smooth", "dark"}
    assert kinds.kinds(planes_of(ramp, (128, 129))) == {"smooth", "grey"}
    assert kinds.kinds(planes_of(rng.uniform(80, 200, (64, 64)))) == {"texture"}
    page = np.full((64, 64), 200.0)
    page[8:56:6, ::9] = 20
    assert kinds.kinds(planes_of(page, (128, 128))) == {"screen", "grey"}
    # Noise alone does not move; a shift of a coarse pattern does.
    still = ramp[None] + rng.normal(0, 3, (3, 64, 64))
    pattern = 120 + 60 * np.sin(np.arange(64) / 8)[None, None] + np.zeros((3, 64, 1))
    moving = np.stack([np.roll(p, 6 * t, -1) for t, p in enumerate(pattern)])
    assert "motion" not in kinds.kinds(planes_of(still))
    assert "motion" in kinds.kinds(planes_of(moving))


def test_favoured_crops_are_drawn_more_often(store):
    def share(favour):
        crops = data.StillCrops(store, 1, 64, seed=1, p_tone=1.0, p_grey=0.0, favour=favour)
        hits = [bool(kinds.kinds(crops.sample()) & kinds.FAVOURED) for _ in range(300)]
        return sum(hits) / len(hits)

    assert 0 < 1.3 * share(0.0) < share(0.8)


def test_collected_sets_hold_their_kind_only(store):
    crops = data.StillCrops(store, 1, 64, seed=1, p_tone=1.0, p_grey=0.3)
    sets = kinds.collect(crops.sample, 3, tries=200)
    assert sets and all(len(s) <= 3 for s in sets.values())
    assert all(kind in kinds.kinds(planes) for kind, s in sets.items() for planes in s)


def test_curve_keeps_rows_and_takes_new_columns(tmp_path):
    path = tmp_path / "curve.csv"
    curve.append(path, dict(step=1, hours="0.1", loss="2.0"))
    curve.append(path, dict(step=2, hours="0.2", loss="1.9"))
    curve.append(path, dict(step=3, hours="0.3", loss="1.8", dark="1.0"))
    curve.append(path, dict(step=4, hours="0.4", loss="1.7", dark="0.9"))
    rows = curve.read(path)
    assert [r["step"] for r in rows] == ["1", "2", "3", "4"]
    assert [r["dark"] for r in rows] == ["", "", "1.0", "0.9"]
    lines = curve.series(rows, ["loss", "dark", "grey"])
    assert list(lines) == ["loss", "dark"] and lines["loss"][-1] == (0.4, pytest.approx(-15))
    picture = ET.fromstring(curve.svg(lines, "hours", "change (%)"))
    assert sum(e.tag.endswith("polyline") for e in picture) == 2


def test_ticks_are_round():
    assert curve.ticks(0.13, 0.91) == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert curve.ticks(-7, 12) == [-6, -4, -2, 0, 2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("network", ["key", "inter"])
def test_a_short_run_reports_every_kind_it_holds(
        network, made_up, tmp_path_factory, tmp_path, capsys):
    """Two steps of a small network, stopped and resumed: one curve, with the kinds apart."""
    pytest.importorskip("av", reason="PyAV is missing: clips cannot be coded")
    import argparse

    cache, folder = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("many")
    for path in made_up.iterdir():  # every twentieth is held out: enough of each for both parts
        for i in range(21):
            (folder / f"{path.stem}-{i}{path.suffix}").symlink_to(path)
    common = ["--data", str(folder), "--cache", str(cache), "--batch", "1", "--size", "64",
              "--width", "16", "--blocks", "1", "--amp", "none", "--quant", "--eval-every", "1"]

    def go(name, out, steps, *more):
        parser = argparse.ArgumentParser()
        getattr(train, f"{name}_arguments")(parser)
        args = [*common, "--out", str(tmp_path / out), "--steps", str(steps), *more]
        getattr(train, f"{name}_main")(parser.parse_args(args))

    go("key", "key", 1)
    if network == "inter":
        go("inter", "inter", 1, "--key", str(tmp_path / "key" / "last.pt"))
    else:
        go("key", "key", 2)
    rows = curve.read(tmp_path / network / "curve.csv")
    assert {r["network"] for r in rows} == {network}
    # One before the first step and one after each; none twice, also where a run was resumed.
    assert [int(r["step"]) for r in rows] == ([0, 1] if network == "inter" else [0, 1, 2])
    last = rows[-1]
    assert float(last["precoded"]) > 0 and float(last["loss"]) > 0
    assert "  precoded " in capsys.readouterr().out

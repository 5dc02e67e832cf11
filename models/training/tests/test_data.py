import itertools
import os
import shutil

import numpy as np
import pytest
import torch
from nnvtrain import data, pack, synth


def test_colour_conversion_known_values():
    rgb = np.zeros((2, 8, 3), np.uint8)
    rgb[:, 0:2] = 255
    rgb[:, 2:4] = (255, 0, 0)
    rgb[:, 4:6] = (0, 0, 255)
    y, u, v = data.rgb_to_planes(rgb)
    # White, red, blue, black in limited-range BT.709.
    assert y[0, ::2].tolist() == [235, 63, 32, 16]
    assert u[0].tolist() == [128, 102, 240, 128]
    assert v[0].tolist() == [128, 240, 118, 128]


def test_store_holds_every_file_and_reopens(made_up, store, tmp_path):
    assert len(store.stills()) == 5 and len(store.videos()) == 2
    assert {c["group"] for c in store.clips} == {"a", "b", "v"}
    clip = next(c for c in store.clips if c["name"] == "a__0.png")
    assert (clip["h"], clip["w"]) == (300, 400)
    y, u, v = store.planes(clip)
    assert y.shape == (1, 300, 400) and u.shape == v.shape == (1, 150, 200)
    again = data.open_store(made_up, tmp_path)
    lines = []
    third = data.open_store(made_up, tmp_path, log=lines.append)
    assert not lines and third.clips == again.clips and np.array_equal(third.data, store.data)


def test_missing_data_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.delenv("NNV_DATA", raising=False)
    with pytest.raises(RuntimeError, match="NNV_DATA"):
        data.open_store(None, tmp_path)
    with pytest.raises(FileNotFoundError, match="no pictures"):
        data.open_store(tmp_path, tmp_path)


def test_test_data_is_never_read(tmp_path, made_up):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        (tmp_path / part / f"{part}.png").write_bytes((made_up / "a__0.png").read_bytes())
    pictures, _, _ = data.list_source(tmp_path)
    assert [p.name for p in pictures] == ["train.png"]


def test_crop_repeats_edges():
    plane = np.arange(12, dtype=np.uint8).reshape(3, 4)
    out = data.crop_plane(plane, 0, 0, 5, 6)
    assert out.shape == (5, 6) and out[4, 5] == 11 and (out[:3, :4] == plane).all()


@pytest.mark.parametrize("size", [64, 256])
def test_still_crops(store, size):
    a, b = (list(itertools.islice(data.StillCrops(store, 6, size, seed=4), 3)) for _ in range(2))
    for (y, u, v), again in zip(a, b):
        assert y.shape == (6, 1, size, size) and u.shape == v.shape == (6, 1, size // 2, size // 2)
        assert y.dtype == u.dtype == v.dtype == torch.uint8
        assert torch.equal(y, again[0]) and torch.equal(
            v, again[2]
        )  # the same seed gives the same crops
    assert not torch.equal(a[0][0], a[1][0])


def test_grey_crops_have_next_to_no_colour(store):
    constant = crops = 0
    for y, u, v in itertools.islice(data.StillCrops(store, 8, 64, seed=4, p_grey=1.0), 6):
        for luma, *chroma in zip(y, u, v):
            values = [set(np.unique(plane).tolist()) for plane in chroma]
            constant += all(len(v) == 1 for v in values)
            crops += 1
            # What is left of weak colour is a level at most; strong marks stay.
            assert all(len(v) == 1 or not any(4 < abs(x - 128) < 24 for x in v) for v in values)
            assert len(np.unique(luma)) > 8
    assert 0.4 < constant / crops < 0.8


def test_screens_among_the_still_crops(store):
    pages = synth.Screens(store)
    for _ in range(3):
        y, u, v = pages.page(np.random.default_rng(5))
        assert y.shape == (640, 480) and u.shape == v.shape == (320, 240)
    # Drawn pages are flat for the most part; the pictures of the fixture are noise.
    flat = lambda planes: (planes[0][..., 1:] == planes[0][..., :-1]).float().mean()
    some = lambda share: next(
        data.StillCrops(store, 16, 64, seed=1, screens=share, p_tone=0.0, p_scale=0.0)
    )
    assert flat(some(1.0)) > 0.5 > flat(some(0.0))


def test_sequences_real_and_synthetic(store):
    for frames, size, share in ((3, 64, 0.0), (5, 128, 1.0), (9, 96, 0.5)):
        y, u, v = next(data.Sequences(store, 4, frames, size, seed=frames, synthetic=share))
        assert y.shape == (4, frames, 1, size, size) and u.shape == v.shape == (
            4,
            frames,
            1,
            size // 2,
            size // 2,
        )
        assert y.dtype == torch.uint8


def test_quiet_orders():
    rng = np.random.default_rng(0)
    order = np.arange(10, 19)
    seen = set()
    for _ in range(50):
        quiet = data.quiet_order(rng, order)
        assert len(quiet) == 9 and (np.diff(quiet) >= 0).all() and (np.diff(quiet) == 0).any()
        seen.add((np.diff(quiet) == 0).all())
    assert seen == {True, False}


def test_every_kind_of_synthetic_clip(store):
    rng = np.random.default_rng(1)
    maker = synth.Synthesiser(store)
    constant = 0
    for i in range(60):
        frames, size = int(rng.integers(3, 10)), int(rng.choice([64, 128, 256]))
        y, u, v = maker.clip(rng, frames, size)
        assert y.shape == (frames, size, size) and u.shape == v.shape == (
            frames,
            size // 2,
            size // 2,
        )
        assert y.dtype == u.dtype == v.dtype == np.uint8
        constant += bool((y == y[:1]).all())
    assert 1 <= constant <= 30  # some stand still, most do not


def test_synthetic_motion_is_the_path_that_was_asked_for(store):
    """A pan by whole pixels must reproduce shifted frames, in luma and in chroma."""
    path = np.tile(np.eye(3), (3, 1, 1))
    path[:, 0, 2] = [0, 4, 8]
    rng = np.random.default_rng(2)
    patch = synth.take_patch(rng, store, data.GroupSampler(store.stills()), 64, 16)
    y, uv = patch.render(synth.path_maps(path, 64))
    assert (y[1, :, :, :-4] - y[0, :, :, 4:]).abs().max() < 0.1
    assert (uv[2, :, :, :-4] - uv[0, :, :, 4:]).abs().max() < 0.1
    assert (y[1] - y[0]).abs().mean() > 0.5


def test_pack_reads_back(made_up, store, tmp_path):
    lines = []
    paths = pack.write_packs(
        made_up, tmp_path / "packs", pack_mb=0.15, video_frames=6, quality=95, log=lines.append
    )
    assert len(paths) > 1 and len(lines) == len(paths)
    assert all(p.stat().st_size <= 0.15e6 for p in paths)
    packed = data.open_store(tmp_path / "packs", tmp_path / "cache", log=lines.append)
    assert sorted(c["name"] for c in packed.clips) == sorted(c["name"] for c in store.clips)
    for clip in packed.clips:
        original = next(c for c in store.clips if c["name"] == clip["name"])
        assert clip["group"] == original["group"] and clip["frames"] == min(6, original["frames"])
        for a, b in zip(packed.planes(clip), store.planes(original)):
            error = np.abs(a.astype(int) - b[: len(a)]).mean()
            assert error < 4, (clip["name"], error)


def test_the_cache_is_keyed_by_content(made_up, tmp_path):
    source = shutil.copytree(made_up, tmp_path / "source")
    cache = tmp_path / "cache"
    data.open_store(source, cache, log=lambda line: None)
    file = min(data.list_source(source)[0])
    os.utime(file, (1, 1))
    data.open_store(source, cache, log=pytest.fail)
    file.unlink()
    lines = []
    data.open_store(source, cache, log=lines.append)
    assert lines and "decoding" in lines[0]


def test_prefetch_delivers_and_reports_errors():
    fetch = data.Prefetch(iter(range(5)), depth=2)
    assert list(fetch) == [0, 1, 2, 3, 4]
    fetch.close()

    def broken():
        yield 1
        raise ValueError("bad picture")

    fetch = data.Prefetch(broken())
    assert next(fetch) == 1
    with pytest.raises(ValueError, match="bad picture"):
        next(fetch)


def test_real_data_is_complete(real_store):
    assert len(real_store.stills()) > 500 and len(real_store.videos()) > 100
    for y, u, v in itertools.islice(data.Sequences(real_store, 2, 4, 256, seed=9), 4):
        assert y.shape == (2, 4, 1, 256, 256) and float(y.float().std()) > 5


def test_drawn_screens_scroll_and_open_windows():
    from nnvtrain import screens

    scrolls, opens = list(screens.clip(0)), list(screens.clip(1))
    for frames in (scrolls, opens):
        assert len(frames) == screens.FRAMES
        assert [p.shape for p in frames[0]] == [(screens.HEIGHT, screens.WIDTH)] + [
            (screens.HEIGHT // 2, screens.WIDTH // 2)
        ] * 2
    assert np.array_equal(scrolls[-1][0][:-4], scrolls[-2][0][4:]) and not np.array_equal(
        scrolls[-1][0], scrolls[0][0]
    )
    changed = opens[-1][0] != opens[0][0]
    assert changed.any() and not changed[:, screens.WIDTH // 2 + 200 :].any()

"""The quality network: how samples are made, what is measured of them, its graph."""

import json

import numpy as np
import pytest
import torch

from nnvtrain.quality import export, material, model, train


def frames(count=6, h=96, w=128, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.integers(40, 200, (h // 8, w // 8)).repeat(8, 0).repeat(8, 1)
    grey = np.full((h // 2, w // 2), 128, np.uint8)
    return [(np.roll(base, t, 1).astype(np.uint8), grey, grey) for t in range(count)]


def test_shares_are_those_of_the_stages():
    errors = np.array([[3.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    shares = material.shares(errors)
    assert np.allclose(shares.sum(1), 1)
    assert np.allclose(shares[0], [0.75, 0.25, 0, 0], atol=0.001)
    assert np.allclose(shares[1], 0.25)


def test_stages_spoil_as_they_say():
    given = frames()

    def coder(clip, options):
        return [(np.clip(y.astype(int) + 2, 0, 255).astype(np.uint8), u, v) for y, u, v in clip], []

    seen = set()
    for seed in range(40):
        out, how, errors = material.spoil(np.random.default_rng(seed), given, coder)
        assert len(out) == len(given) and out[0][0].shape == given[0][0].shape
        present = {material.CAUSES[i] for i in np.flatnonzero(errors.sum(0) > 0)}
        wanted = set()
        if "coded" in how:
            wanted.add("blocking")
        if "blur" in how or "scale" in how:
            wanted.add("blur")
        if "noise" in how:
            wanted.add("noise")
        if how.get("stands"):
            wanted.add("freeze")
            t = how["stands"][0]
            assert all((a == b).all() for a, b in zip(out[t], out[t - 1]))
        assert present == wanted, (seed, how)
        seen |= wanted
    assert seen == set(material.CAUSES)


def test_a_sample_is_decided_by_its_number(tmp_path):
    class Store:
        def videos(self):
            return [{"name": "a__b_0.mp4", "group": "a", "frames": 24, "h": 160, "w": 200}]

        def planes(self, clip):
            rng = np.random.default_rng(1)
            y = rng.integers(0, 255, (24, 160, 200), dtype=np.uint8)
            return y, y[:, ::2, ::2], y[:, ::2, ::2]

    def coder(clip, options):
        return clip, []

    def judge(distorted, reference, w, h):
        assert distorted.stat().st_size == material.FRAMES * w * h * 3 // 2
        return [50.0] * material.FRAMES

    made = []
    for _ in range(2):
        maker = material.Maker(Store(), tmp_path, 3, coder, judge)
        made.append((maker.make(7), (tmp_path / "00007.u8").read_bytes()))
    assert made[0] == made[1]
    lines = [json.dumps(made[0][0]), '{"number": 8, "na']
    (tmp_path / "material.jsonl").write_text("\n".join(lines))
    assert [s["number"] for s in material.listed(tmp_path)] == [7]


def test_rank_correlation():
    assert train.spearman([1, 2, 3, 4], [10, 20, 25, 90]) == pytest.approx(1)
    assert train.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # Ties share their rank: 1, 2.5, 2.5, 4 beside 1 to 4.
    assert train.spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486833)
    assert np.isnan(train.spearman([1, 1, 1], [1, 2, 3]))


def test_patches_lie_within_and_apart():
    for h, w in ((64, 64), (40, 500), (1080, 1920), (256, 384), (300, 90)):
        places = model.grid(h, w)
        assert 1 <= len(places) <= 12 and len(set(places)) == len(places)
        for y, x in places:
            assert 0 <= y <= max(0, h - model.PATCH) and 0 <= x <= max(0, w - model.PATCH)
    luma = np.stack([np.full((40, 100), v, np.uint8) for v in (100, 132)])
    cut = model.cut(luma, model.grid(40, 100))
    assert cut.shape == (1, 1, 2, 64, 64)
    assert np.allclose(cut[0, 0, 0], 4 / 64) and np.allclose(cut[0, 0, 1], 2)


def test_frame_by_frame_is_the_same_as_at_once():
    torch.manual_seed(0)
    net = model.QualityNet().eval()
    assert net.parameters_count() <= 300_000
    x = torch.randn(1, 3, 4, 2, model.PATCH, model.PATCH)
    vmaf, *_ = net(x)
    memory, steps = None, []
    for t in range(3):
        v, _, _, memory = net(x[:, t : t + 1], memory)
        steps.append(v)
    assert torch.allclose(vmaf, torch.cat(steps, 1), atol=1e-6)


def test_the_graph_agrees_and_repeats(tmp_path):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(1)
    net = model.QualityNet()
    onnx = export.graph(net)
    assert export.check(net, onnx) < export.TOLERANCE
    assert export.graph(net) == onnx
    with torch.no_grad():
        net.scores.bias[0] += 1
    with pytest.raises(RuntimeError, match="differs"):
        export.check(net, onnx)
    path = tmp_path / "a.pt"
    model.save(net, path, steps=1, seconds=2.0)
    again, _ = model.load(path)
    assert export.graph(again) == export.graph(net)


def test_it_learns_from_a_few_samples(tmp_path):
    """Flat against busy pictures: the loss falls, and order is found."""
    lines = []
    for n in range(8):
        rng = np.random.default_rng(n)
        strength = 4 + 8 * n
        flat = 128 + rng.integers(-strength, strength + 1, (20, 96 * 96 * 3 // 2))
        (tmp_path / f"{n:05}.u8").write_bytes(flat.astype(np.uint8).tobytes())
        lines.append(json.dumps({"number": n, "name": f"c__{n}_0.mp4", "group": "c", "w": 96,
                                 "h": 96, "how": {}, "shares": [[0, 0, 1.0, 0]] * 20,
                                 "error": [float(strength)] * 20, "vmaf": [100 - 12.0 * n] * 20}))
    (tmp_path / "material.jsonl").write_text("\n".join(lines))
    found = train.Material(tmp_path)
    torch.manual_seed(0)
    net = model.QualityNet()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    batches = train.Batches(found, found.samples, 4, 0)
    losses = []
    for _ in range(40):
        patches, *wanted = batches.draw()
        loss, parts = train.loss_of(net(patches), wanted)
        assert "ssimulacra2" not in parts
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    report = train.measure(net, found, found.samples)
    assert report["spearman_vmaf"] > 0.9 and report["samples"] == 8

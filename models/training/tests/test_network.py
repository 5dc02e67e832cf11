"""The forecast of throughput: resampling, baselines, what a run learns, and the graph."""

import argparse
import tomllib

import numpy as np
import pytest
import torch

from nnvtrain import network as N


def write(folder, name, rates, step=1.0):
    lines = [f"{i * step} {r}" for i, r in enumerate(rates)]
    (folder / f"{name}.txt").write_text("\n".join(lines))


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(1)
    for part in ("train", "test"):
        folder = tmp_path / "traces" / part
        folder.mkdir(parents=True)
        for i in range(6):
            # Rates that jump, and come back to their mean within seconds.
            r, out = 0.0, []
            for _ in range(150):
                r = 0.3 * r + rng.normal(0, 0.5)
                out.append(2 * np.exp(r))
            write(folder, f"made_{i}", out)
    return tmp_path


def args(data, out, **more):
    return argparse.Namespace(
        **{
            "data": str(data), "out": str(out), "steps": 40, "batch": 16, "lr": 1e-2,
            "eval_every": 20, "threads": 1, "seed": 0,
        }
        | more
    )


def test_resampling_keeps_what_was_carried():
    got = N.resample([5, 7, 8], [9, 1, 4], step=0.5)
    assert got.tolist() == [1, 1, 1, 1, 4, 4]
    assert N.resample([0, 1, 2], [9, 1, 3], step=0.5, phase=0.75).tolist() == [2, 3]
    for times, rates in (([0], [1]), ([0, 0], [1, 1]), ([0, 1], [1, -1]), ([0, 1], [1, np.nan])):
        with pytest.raises(ValueError):
            N.resample(times, rates)


def test_baselines():
    rates = np.array([1.0, 2, 4, 4, 4, 4, 0])
    assert N.harmonic(rates)[4] == pytest.approx(5 / (1 + 0.5 + 0.75))
    assert N.harmonic(rates)[0] == 1
    assert N.harmonic_seconds(np.repeat([1.0, 2, 4], 2))[-1] == pytest.approx(3 / 1.75)
    assert N.ewma(np.array([1.0, 2]), 0.5).tolist() == [1, 1.5]


def test_targets_are_means_from_now_on():
    want = N.targets(np.arange(1.0, 21))
    assert len(want) == 20 - N.HORIZONS[-1]
    assert np.exp(want[0]).round(6).tolist() == [2.5, 3.5, 5.5]


def test_a_sender_sees_no_more_than_it_sends():
    rng = np.random.default_rng(0)
    rates = rng.uniform(0.1, 3, (64, 50))
    seen, full = N.observe(rng, rates)
    assert (seen <= rates).all() and (seen[full == 1] == rates[full == 1]).all()
    assert 0.2 < (full.min(1) == 0).mean() < 0.8


def test_quantiles_rise_and_follow_the_scale():
    net = N.Forecaster()
    assert sum(p.numel() for p in net.parameters()) <= N.MAX_PARAMETERS
    q = N.forecast(net, np.linspace(0.01, 90, 30))
    assert (np.diff(q, axis=-1) > 0).all()


def test_traces_are_read_with_their_errors_named(tmp_path):
    for text, what in (("1 2 3\n1 2 3", "seconds and Mbit/s"), ("1 1\n0 1", "rise")):
        (tmp_path / "a_1.txt").write_text(text)
        with pytest.raises(ValueError, match=what):
            N.read_traces(tmp_path)
    with pytest.raises(SystemExit):
        N.read_traces(tmp_path / "nowhere")


def test_a_run_learns_goes_on_and_becomes_a_bundle(data, tmp_path):
    out = tmp_path / "run"
    N.run(args(data, out, steps=20))
    first = torch.load(out / "last.pt", weights_only=True)
    N.run(args(data, out, steps=60))
    last = torch.load(out / "last.pt", weights_only=True)
    assert (first["step"], last["step"]) == (20, 60)
    assert last["error"] < first["error"]
    net, _ = N.load(out / "last.pt")
    # These paths go back to their mean: the last sample is a poor guess, and the network knows.
    result = N.errors(net, N.read_traces(data / "traces" / "test"))
    assert (result["made", "network"][0] < result["made", "last"][0])[1:].all()
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    bundle = tmp_path / "bundle"
    N.export_run(argparse.Namespace(checkpoint=out / "last.pt", out=bundle, name="made"))
    facts = tomllib.loads((bundle / "bundle.toml").read_text())
    assert facts["bundle"]["kind"] == "network"
    assert facts["network"]["state"] == net.hidden
    assert N.compare(net, (bundle / "gru.onnx").read_bytes()) < 1e-4

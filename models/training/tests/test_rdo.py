"""Quality over the quantizer: what is drawn, what a run learns, and the graph."""

import argparse
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from nnvtrain import rdo as R


def test_each_group_comes_before_any_comes_again():
    clips = [Path(f"{g}__x_{i}.mp4") for g in "abc" for i in range(3)]
    order = R.order(clips, np.random.default_rng(0))
    assert len(set(order)) == 9
    for i in range(0, 9, 3):
        assert {R.group(c.name) for c in order[i : i + 3]} == set("abc")


def test_quantizers_cover_the_range():
    for codec in R.CODECS:
        drawn = R.draw(np.random.default_rng(1), codec, 4)
        assert sorted(drawn) == drawn and len(set(drawn)) == 4
        assert R.KNOTS[codec][0] - 3 <= drawn[0] and drawn[-1] <= R.KNOTS[codec][-1] + 3


def test_curves_are_read_between_and_beyond_knots():
    curves = torch.zeros(3, len(R.CODECS), len(R.METRICS), R.COUNT)
    curves[:, 0, 0] = torch.tensor([0.0, -7.0, -14.0, -28.0, -37.0])
    codec = metric = torch.zeros(3, dtype=torch.long)
    got = R.at(curves, codec, metric, torch.tensor([15.5, 29.5, 44.0]))
    assert got.tolist() == pytest.approx([-3.5, -21.0, -39.0])


def test_losses_go_back():
    for metric in R.METRICS:
        for value in (0.5, 0.9):
            value *= 50 if metric in ("vmaf", "psnr", "xpsnr", "ssimulacra2") else 1
            assert R.BACK[metric](-np.log(R.LOSSES[metric](value))) == pytest.approx(value)


def made_up(path, clips=60, codec="x264"):
    """Shots whose VMAF and PSNR hang on one feature and the quantizer."""
    rng = np.random.default_rng(2)
    lines = []
    for i in range(clips):
        features = rng.normal(0, 1, 4)
        points = []
        for q in R.draw(rng, codec, 4):
            vmaf = 102 - np.exp(1.0 + 0.5 * features[1] + 0.06 * (q - 12))
            psnr = 50 - 0.6 * (q - 12) - 3 * features[1]
            points.append({"codec": codec, "quantizer": q, "bytes": 1,
                           "scores": {"vmaf": vmaf, "psnr": psnr}})
        lines.append({"clip": f"g{i % 12}__{i}.mp4", "frames": 33, "names": list("abcd"),
                      "features": features.tolist(), "points": points})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_learns_and_is_exported(tmp_path, capsys):
    made_up(tmp_path / "m.jsonl")
    R.run(argparse.Namespace(material=[str(tmp_path / "m.jsonl")], out=str(tmp_path / "run"),
                             taught=None, steps=800, lr=5e-3, decay=1e-3, seed=0, threads=1))
    assert "log error" in capsys.readouterr().out
    net, c = R.load(tmp_path / "run/rdo.pt")
    errors = {metric: error for _, metric, _, error, _ in c["held_out"]}
    assert errors["vmaf"] < 3 and errors["psnr"] < 1.5, errors
    # Curves fall, whatever the features are.
    y = net(torch.randn(50, 4) * 5)
    assert (y[..., 1:] < y[..., :-1]).all()
    R.export_run(argparse.Namespace(checkpoint=str(tmp_path / "run/rdo.pt"),
                                    out=str(tmp_path / "bundle"), name="test"))
    facts = tomllib.loads((tmp_path / "bundle/bundle.toml").read_text())
    assert facts["bundle"]["kind"] == "rdo" and facts["rdo"]["metrics"] == ["vmaf", "psnr"]
    assert [codec["name"] for codec in facts["rdo"]["codec"]] == ["x264"]
    few = R.only(net, ["x264"], ["vmaf", "psnr"])
    assert R.compare(few, (tmp_path / "bundle/rdo.onnx").read_bytes()) < 1e-4


def test_another_version_of_the_features_is_refused(tmp_path):
    made_up(tmp_path / "a.jsonl", 2)
    text = (tmp_path / "a.jsonl").read_text().replace('"names": ["a"', '"names": ["z"', 1)
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(SystemExit, match="several versions"):
        R.read([tmp_path / "a.jsonl"])


def test_what_was_taught_stays_known(tmp_path):
    common = {"steps": 800, "lr": 5e-3, "decay": 1e-3, "seed": 0, "threads": 1}
    made_up(tmp_path / "old.jsonl")
    R.run(argparse.Namespace(material=[str(tmp_path / "old.jsonl")], out=str(tmp_path / "old"),
                             taught=None, **common))
    made_up(tmp_path / "new.jsonl", codec="svtav1")
    R.run(argparse.Namespace(material=[str(tmp_path / "new.jsonl")], out=str(tmp_path / "new"),
                             taught=str(tmp_path / "old/rdo.pt"), **common))
    (old, before), (new, after) = (R.load(tmp_path / f"{n}/rdo.pt") for n in ("old", "new"))
    assert [row[0] for row in after["held_out"]] == ["svtav1"] * 2 + ["x264"] * 2
    assert after["held_out"][2:] == before["held_out"] and after["codings"] == 60 * 4 * 2
    x = torch.randn(20, 4)
    with torch.no_grad():
        a, b = (n(x)[:, R.CODECS.index("x264"), R.METRICS.index("vmaf"), :4] for n in (old, new))
    assert (a - b).abs().mean() < 0.15
    # A checkpoint of fewer codecs is read as far as it goes.
    state = torch.load(tmp_path / "old/rdo.pt", weights_only=True)
    per_codec = len(R.METRICS) * R.COUNT
    for key in ("head.weight", "head.bias"):
        state["net"][key] = state["net"][key][:-per_codec]
    torch.save(state, tmp_path / "fewer.pt")
    fewer, _ = R.load(tmp_path / "fewer.pt")
    with torch.no_grad():
        assert torch.equal(fewer(x)[:, 0], old(x)[:, 0])

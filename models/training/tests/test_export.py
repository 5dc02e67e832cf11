"""Exactness of exported networks. Weights are random everywhere, so that no layer is trivially
zero.
"""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="NOT TESTED: onnx is missing")
ort = pytest.importorskip("onnxruntime", reason="NOT TESTED: onnxruntime is missing")

from nnvtrain import export, model as M, parity  # noqa: E402
from nnvtrain.bundle import Bundle, coded_bits, to_packed  # noqa: E402
from nnvtrain.onnx_ops import (  # noqa: E402
    EXACT,
    E,
    ExactOps,
    Graph,
    NotExact,
    OnnxOps,
    T,
    integers,
)
from nnvtrain.ops import Conv, TorchOps  # noqa: E402
from nnvtrain.rdcheck import bd_rate  # noqa: E402

SHIPPED = Path(__file__).resolve().parents[2] / "realtime"


@torch.no_grad()
def random_net(inter, seed):
    """A small network whose layers all do something."""
    torch.manual_seed(seed)
    net = M.FrameCodec(
        M.Config(width=32, blocks=2, prior_width=32, prior_blocks=1, enc_blocks=1, hyper=8), inter
    )
    net.init_statistics(export.law_of_scales())
    for m in net.modules():
        if isinstance(m, Conv):
            if m.weight.abs().max() == 0:
                m.weight.normal_(std=0.3 / math.sqrt(m.weight[0].numel()))
            if m.bias is not None:
                m.bias.add_(torch.randn_like(m.bias) * 0.3)
    for name, p in net.named_parameters():
        if name.endswith("knots"):
            p.add_(torch.randn_like(p) * 0.2)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def nets():
    return {"key": random_net(False, 1), "inter": random_net(True, 2)}


@pytest.fixture(scope="module")
def bundle(nets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    export.write_bundle(folder, "test", nets["key"], nets["inter"], {"key": {"steps": 3}})
    return folder


def test_pytorch_and_onnx_runtime_agree_bit_for_bit(nets, bundle):
    assert parity.check_torch(bundle, nets, Bundle(bundle).tables) == 6


def test_levels_threads_and_batches_agree_bit_for_bit(bundle):
    m = parity.check_files(bundle)
    assert parity.check_runtime(bundle, m, Bundle(bundle).tables, size=(5, 7), batch=2) == 48


def test_random_inputs_reach_all_of_the_networks(nets):
    """The parity above means something: outputs vary, and few of them are clipped."""
    v = export.answer_inputs(nets["key"], "key", export.tables_of(nets["key"]), 6, 6)
    index, feat, pic = parity.reference(nets["key"], v)
    assert len(np.unique(index)) > 10 and len(np.unique(feat)) > 30 and len(np.unique(pic)) > 200
    assert ((pic == -512) | (pic == 511)).mean() < 0.5


def test_convolutions_run_in_8_bit(bundle):
    """A layer that does not fuse runs four times slower."""
    floats = {"key_prior": 0, "key_synth": 3, "inter_prior": 0, "inter_synth": 1}
    for graph, n in floats.items():
        c = parity.operators(bundle, graph)
        assert c["Conv"] == n and c["QLinearConv"] > 5, (graph, dict(c))


def test_same_networks_same_bytes(nets, bundle, tmp_path):
    export.write_bundle(tmp_path, "test", nets["key"], nets["inter"], {"key": {"steps": 3}})
    for f in sorted(bundle.iterdir()):
        assert f.read_bytes() == (tmp_path / f.name).read_bytes(), f.name


def test_known_answers_notice_a_changed_weight(nets, bundle, tmp_path):
    m = parity.check_files(bundle)
    parity.check_known_answers(bundle, m, "all", 1)
    for f in bundle.iterdir():
        (tmp_path / f.name).write_bytes(f.read_bytes())
    model = onnx.load(bundle / "inter_synth.onnx")
    w = next(
        i
        for i in model.graph.initializer
        if i.data_type == onnx.TensorProto.INT8 and len(i.dims) == 4 and i.dims[2] == 3
    )
    a = onnx.numpy_helper.to_array(w).copy()
    a[0] = -a[0]
    w.CopyFrom(onnx.numpy_helper.from_array(a, w.name))
    onnx.save(model, tmp_path / "inter_synth.onnx")
    with pytest.raises(parity.Mismatch, match="known answer of pic"):
        parity.check_known_answers(tmp_path, m, "all", 1)
    with pytest.raises(parity.Mismatch, match="SHA-256"):
        parity.check_files(tmp_path)


def test_weights_and_accumulators_stay_in_their_bounds():
    torch.manual_seed(0)
    layer = Conv(64, 8)
    with torch.no_grad():
        layer.weight[1] *= 1e-6
        layer.bias[2] = 50.0
    ints = integers("layer", layer, 4, 16.0)
    assert np.abs(ints.w).max() <= 63
    assert (np.abs(ints.w).sum((1, 2, 3)) * 256 + np.abs(ints.b) < EXACT).all()
    assert (np.log2(ints.scale) == np.round(np.log2(ints.scale))).all()
    w = ints.w * ints.scale[:, None, None, None]
    assert np.abs(w - layer.weight.detach().numpy()).max() <= ints.scale.max() / 2
    with torch.no_grad():
        layer.bias[3] = math.inf
    with pytest.raises(NotExact, match="channel 3"):
        integers("layer", layer, 4, 16.0)


def test_inexact_sums_are_refused():
    g = Graph("g")
    ops = OnnxOps(g, {})
    big = T("wide", 1, 20, -8.0, 8.0, 0, "big")
    with pytest.raises(NotExact, match="Add"):
        ops.add(big, T("wide", 1, 0, -16.0, 16.0, 0, "other"))
    with pytest.raises(NotExact, match="not quantised"):
        ops.conv(Conv(1, 1), big)
    with pytest.raises(NotExact, match="power of two"):
        ops.scale(big, 3.0)


@torch.no_grad()
def test_training_operators_are_close_to_exact_ones():
    """Training rounds as deployed but for biases and the last bits of wide sums."""
    torch.manual_seed(3)
    layer, x = Conv(96, 48), torch.randint(-128, 128, (1, 96, 6, 5)) / 16
    a = TorchOps(quant=True)
    exact = ExactOps()
    want = a.s8(a.conv(layer, x), 4)
    got = exact.s8(exact.conv(layer, E(x.double(), "s8", 4, 8.0)), 4).value
    assert (want - got).abs().max() <= 1 / 16 and (want != got).float().mean() < 0.01
    wide = Conv(384, 96, bias=False, planes=2)
    wide.weight.copy_(M.block_transform().t()[:96, :, None, None])
    c = torch.round(torch.randn(1, 384, 4, 4) * 40)
    got = exact.conv(wide, E(c.double(), "wide", 0, 2047.0), wide=True).value
    ideal = torch.nn.functional.conv2d(c.double(), wide.weight.double())
    error = got - ideal
    assert error.abs().max() < 0.5 and error.square().mean().sqrt() < 0.1


def test_round_trip_of_a_picture(tmp_path):
    """An untrained bundle is a block transform codec: fine steps give fine pictures."""
    nets = {k: export.fresh(k == "inter", 1).eval().requires_grad_(False) for k in ("key", "inter")}
    export.write_bundle(tmp_path, "fresh", nets["key"], nets["inter"], {})
    b = Bundle(tmp_path, threads=1)
    yy, xx = np.mgrid[0:70, 0:90]
    y = (128 + 60 * np.sin(xx / 9.0) * np.cos(yy / 7.0)).astype(np.uint8)
    x = to_packed(y, y[::2, ::2], 255 - y[::2, ::2])
    last = None
    for q in (0, 20, 40):
        pic, sym, index, z = b.code("key", x, q)
        psnr = 10 * np.log10(1020.0**2 / np.mean((pic.astype(float) - x) ** 2))
        bits = b.bits("key", sym, index, z)
        assert psnr > (46, 38, 30)[(0, 20, 40).index(q)]
        assert last is None or (psnr < last[0] and bits < last[1])
        last = psnr, bits
        inter, *_ = b.code("inter", x, q, x, np.zeros_like(x))
        assert 10 * np.log10(1020.0**2 / max(1e-9, np.mean((inter.astype(float) - x) ** 2))) > psnr


def test_means_follow_the_symbols_that_were_chosen(nets, bundle):
    """A wide dead zone at the anchors changes the other half's means; the reconstruction error must
    stay within it.
    """
    b = Bundle(bundle, threads=1)
    rng = np.random.default_rng(1)
    x = rng.integers(-400, 400, (1, 96, 8, 8)).astype(np.int16)
    b.round_up = 0.9
    q = 30
    step = b.tables["key.step"][q].astype(float)[:, None, None] / 64
    seen = {}
    run = b.run
    b.run = lambda name, v: seen.setdefault(name, (dict(v), run(name, v)))[1]
    _, sym, index, _ = b.code("key", x, q)
    v, out = seen["key_mean"]
    delta = out["delta"]
    assert np.abs(delta).max() > 0
    # (latent - first mean) of the encoder, what the decoder adds for it, and how far they may be
    # apart.
    latent = seen["key_enc"][1]["y"] * step
    decoded = delta + np.sign(sym) * np.floor(np.abs(sym) * step + 0.5)
    coded = (index > 0) & (np.abs(decoded) < 2000)
    assert (np.abs(latent - decoded) <= 0.9 * step + 0.51)[coded].all()


def test_a_batch_of_inter_frames_in_the_encoder(bundle):
    """The encoder need not be exact, but frames of a batch must not touch each other."""
    b = Bundle(bundle, threads=1)
    rng = np.random.default_rng(0)
    x, p = (rng.integers(-300, 300, (2, 96, 6, 8)).astype(np.int16) for _ in range(2))
    d = np.zeros_like(x)
    both = b.code("inter", x, 30, p, d)
    for i in range(2):
        one = b.code("inter", x[i : i + 1], 30, p[i : i + 1], d[i : i + 1])
        assert (both[1][i : i + 1] == one[1]).mean() > 0.999


def test_probabilities():
    p = export.probabilities(M.scale_of(torch.arange(64.0)).numpy()).astype(float) / 65536
    assert ((p > 0) & (p < 1)).all() and (np.diff(p[:, 0]) >= 0).all()
    # Bits of a symbol by these bins are those of the training's rate model, as long as no clipping
    # matters.
    rows = np.arange(20, 60)
    for v in (0, 1, 3, 9):
        want = float(
            M.laplace_bits(
                torch.full((40,), float(v)), M.scale_of(torch.from_numpy(rows).double())
            ).sum()
        )
        assert coded_bits(
            export.probabilities(M.scale_of(torch.arange(64.0)).numpy()), rows, np.full(40, v)
        ) == pytest.approx(want, rel=0.02)


def test_tables(nets):
    t = export.tables_of(nets["inter"])
    assert sorted(t["y_order"]) == list(range(384)) and t["step"].min() > 0
    assert (np.diff(t["step"].astype(int).mean(1)) > 0).all()
    assert t["qoff"].tolist() == [-q for q in range(64)]


def test_crc_is_castagnoli():
    assert export.crc32c(b"123456789") == 0xE3069283


def test_generator_is_fixed():
    """Known answers depend on it."""
    assert (
        hashlib.sha256(export.Integers(1).array((64,), -9, 9, np.int16).tobytes()).hexdigest()[:16]
        == "ee14a200168067fb"
    )


def test_bd_rate():
    a = [(r, 30 + 5 * math.log2(r)) for r in (0.5, 1.0, 2.0, 4.0)]
    assert bd_rate(a, [(1.1 * r, p) for r, p in a]) == pytest.approx(10.0, abs=0.01)


@pytest.mark.skipif(
    not (SHIPPED / "bundle.toml").is_file(), reason="NOT TESTED: no bundle ships with this tree"
)
def test_shipped_bundle():
    m = parity.check_files(SHIPPED)
    for level in ("none", "all"):
        parity.check_known_answers(SHIPPED, m, level, 2)
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) < 8e6


def test_a_folder_that_cannot_be_written_to_is_one_clear_error(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    for folder in (file, file / "bundle"):
        with pytest.raises(SystemExit, match="cannot be written") as e:
            export.writable(folder)
        assert str(folder) in str(e.value) and "--out" in str(e.value)
    assert export.writable(tmp_path / "a" / "b").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []

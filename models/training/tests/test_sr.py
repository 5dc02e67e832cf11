"""Super-resolution: resampling against a slow reference, graphs against PyTorch, whole runs on
made-up pictures.
"""

import argparse
import io
import os
import shutil
import tomllib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from nnvtrain import synth
from nnvtrain.sr import data, export, gan, gather, mean, pairs, rate, resample, teach, train
from nnvtrain.sr.model import (
    EXACT,
    LIKELY,
    NAMES,
    UNKNOWN,
    Conv,
    SrConfig,
    SrNet,
    load_sr,
    rating,
    weight_steps,
)


def slow_resize(row, size):
    """One row by the definition of `imresize`: mirrored borders, kernel widened when it shrinks."""
    n, k = len(row), size / len(row)
    wide = max(1.0, 1 / k)
    out = []
    for o in range(size):
        u, total, weights = (o + 0.5) / k - 0.5, 0.0, 0.0
        for x in range(int(u - 2 * wide) - 2, int(u + 2 * wide) + 3):
            weight = float(resample.cubic(np.array((u - x) / wide)))
            mirrored = x % (2 * n)
            total += weight * row[min(mirrored, 2 * n - 1 - mirrored)]
            weights += weight
        out.append(total / weights)
    return np.array(out)


@pytest.mark.parametrize("size", [8, 12, 17, 36, 48])
def test_resize_is_imresize(size):
    row = np.random.default_rng(size).uniform(0, 255, 24)
    got = resample.resize(np.tile(row, (5, 1)), 5, size)
    assert np.abs(got - slow_resize(row, size)).max() < 1e-3


def test_cubic_kernel_values():
    assert resample.cubic(np.array([0, 0.5, 1, 1.5, 2])).tolist() == [1, 0.5625, 0, -0.0625, 0]


def test_luma_of_black_white_and_green():
    rgb = np.array([[[0, 0, 0], [255, 255, 255], [0, 255, 0]]], np.uint8)
    assert np.allclose(resample.luma(rgb), [[16, 235, 144.553]], atol=1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_torch_resampling_agrees(scale):
    plane = np.random.default_rng(0).integers(0, 256, (24, 36)).astype(np.float32)
    m = resample.down_margin(scale)
    small = resample.downscale(torch.from_numpy(np.pad(plane, m, "symmetric"))[None, None], scale)[
        0, 0
    ].numpy()
    assert np.abs(small - resample.resize(plane, 24 // scale, 36 // scale)).max() < 1e-3
    x = torch.from_numpy(np.pad(plane, 2, "symmetric"))[None, None]
    large = F.pixel_shuffle(F.conv2d(x, resample.up_kernel(scale)), scale)[0, 0].numpy()
    assert np.abs(large - resample.resize(plane, 24 * scale, 36 * scale)).max() < 1e-3


# ------------------------------------------------------------------ networks


def noisy_net(
    scale=2, width=16, depth=2, int8=False, fold=1, shrink=0.0, copies=1, rated=False, paired=False
):
    torch.manual_seed(1)
    net = SrNet(
        SrConfig(scale, width, depth, int8, fold, shrink, copies=copies, rated=rated, paired=paired)
    )
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 0:
                parameter += 0.02 * torch.randn_like(parameter)
    if rated:
        with torch.no_grad():
            for parameter in (net.heard, *net.gain.parameters()):
                parameter += 0.3 * torch.randn_like(parameter)
    if int8:
        net(torch.rand(2, 1, 24, 24), calibrate=True)
    return net.eval()


def test_what_is_told_of_quantizers():
    told = rating(
        torch.tensor([32.0, 38.0, 99.0, 20.0, 26.0]),
        torch.tensor([EXACT, EXACT, EXACT, UNKNOWN, LIKELY]),
    )
    assert told[..., 0, 0].tolist() == [[1, 0], [1, 1], [1, 3], [0, 0], [0.5, -0.5]]
    planes = rating(torch.tensor([[[32.0, 38.0]], [[26.0, 20.0]]]), torch.tensor([EXACT, LIKELY]))
    assert planes.tolist() == [[[[1, 1]], [[0, 1]]], [[[0.5, 0.5]], [[-0.5, -1]]]]
    assert rating(torch.tensor([44.0])).flatten().tolist() == [1, 2]


@torch.no_grad()
def test_a_network_that_hears_nothing_yet_does_what_it_did():
    torch.manual_seed(1)
    deaf, x = SrNet(SrConfig(1, 8, 2)), torch.rand(2, 1, 20, 20)
    net = SrNet(SrConfig(1, 8, 2, rated=True))
    net.load_state_dict(deaf.state_dict(), strict=False)
    assert torch.equal(net(x, rating(torch.tensor([20.0, 45.0]))), deaf(x))
    net = noisy_net(1, 8, 2, rated=True)
    assert torch.equal(net(x), net(x, torch.zeros(2, 2, 1, 1)))
    told = [net(x, rating(torch.tensor([quantizer, 38.0]))) for quantizer in (20.0, 45.0)]
    assert not torch.equal(told[0][0], told[1][0]) and torch.equal(told[0][1], told[1][1])


def test_estimates_are_as_wrong_as_they_say():
    quantizer = torch.full((4000,), 36.0)
    told = train.estimate(quantizer, torch.full((4000,), LIKELY), torch.Generator().manual_seed(0))
    assert (told[:, 0] == LIKELY).all()
    told = told[:, 1] / LIKELY * 6 + 32
    assert (
        abs(float(told.mean()) - train.TOLD_MIDDLE - (36 - train.TOLD_MIDDLE) * train.BY_RATE[0])
        < 0.2
        and abs(float(told.std()) - train.BY_RATE[1]) < 0.2
    )
    assert not train.estimate(quantizer, torch.full((4000,), UNKNOWN), torch.Generator()).any()


def test_pairs_without_quantizers_have_one_that_is_likely(tmp_path):
    rng = np.random.default_rng(0)
    wanted = np.kron(rng.integers(60, 200, (12, 12)), np.ones((8, 8))).astype(np.uint8)
    writer = pairs.PairWriter(tmp_path, "repair", 1, 10**6)
    blocks = np.arange(36, dtype=np.uint8).reshape(6, 6)
    for spread, known in ((1, None), (4, None), (4, blocks), (30, None)):
        writer.add("g", wanted, resample.to_u8(wanted + rng.normal(0, spread, wanted.shape)), known)
    writer.close()
    planes = data.open_planes(tmp_path, tmp_path / "cache", "repair", 1)
    told, sure = train.quantizers(planes)
    assert sure.tolist() == [LIKELY, LIKELY, EXACT, UNKNOWN]
    assert told[2] == 17.5 and told[0] + 10 < told[1]
    # Each sample has that of its block, however a crop lies and was turned.
    samples = np.kron(blocks, np.ones((16, 16), np.uint8))
    assert np.array_equal(planes.whole(2)[2][0], samples) and planes.whole(0)[2] is None
    planes.data[planes.entries[2]["small"] : planes.entries[2]["small"] + samples.size] = (
        torch.from_numpy(samples.ravel())
    )
    given, _, pick, known = planes.draw(40, 40, torch.Generator().manual_seed(0))
    assert torch.equal(given[pick == 2, 0], known[pick == 2]) and len(known[pick == 2]) > 1


def test_noisy_pairs_are_left_out(tmp_path):
    rng = np.random.default_rng(0)
    wanted = np.kron(rng.integers(60, 200, (12, 12)), np.ones((8, 8))).astype(np.uint8)
    writer = pairs.PairWriter(tmp_path, "repair", 1, 10**6)
    blocks = wanted // 8 * 8 + 4
    for given in (
        wanted,
        blocks,
        resample.to_u8(wanted + rng.normal(0, 8, wanted.shape)),
        resample.to_u8(blocks + rng.normal(0, 15, wanted.shape)),
    ):
        writer.add("g", wanted, given)
    writer.close()
    planes = data.open_planes(tmp_path, tmp_path / "cache", "repair", 1)
    assert [e["offset"] for e in train.coded(planes).entries] == [
        e["offset"] for e in planes.entries[:2]
    ]


def test_rows_are_looked_at_one_in_four():
    y, x = np.mgrid[0:11, 0:12]
    first, second = (
        (20 + 5 * (x + s) + 2 * y + np.where(x + s > 6, 40, 0)).astype(np.uint8) for s in (0, 1)
    )
    # crates/nnv-sr/src/rating.rs tests the same picture and figures.
    assert rate.look(second, first).tolist() == [5.5, 8.0, 9.0, 0.8, 0.0]


def test_the_fit_finds_what_is_linear():
    rng = np.random.default_rng(0)
    x = np.concatenate([np.ones((200, 1)), rng.normal(0, 1, (200, 3))], 1)
    found = rate.fit(x, x @ [40, 3, -2, 0.5], np.ones(200))
    assert np.allclose(found, [40, 3, -2, 0.5], atol=0.02)


@pytest.mark.skipif(
    not shutil.which("ffmpeg") or pairs.TOOL not in os.environ,
    reason=f"NOT TESTED: no ffmpeg, or {pairs.TOOL} is not set",
)
def test_more_bits_mean_more_quality():
    rng = np.random.default_rng(0)
    base = np.kron(rng.integers(40, 200, (12, 16)), np.ones((8, 8))).astype(np.uint8)
    chroma = np.full((48, 64), 128, np.uint8)
    frames = [(np.roll(base, t, 1), chroma, chroma) for t in range(4)]
    good, poor = (rate.measure(frames, "libx264", crf, "veryfast") for crf in (12, 40))
    assert (
        len(good["x"]) == len(rate.NAMES)
        and good["x"][1] > poor["x"][1]
        and good["y"] > poor["y"] + 3
    )
    for measured in (good, poor):
        assert len(measured["quantizers"]) == len(measured["slices"]) == 4
    assert np.mean(poor["quantizers"]) > np.mean(good["quantizers"]) + 15
    assert rate.measure(frames, "libx265", 30, "ultrafast")["quantizers"] == []


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="NOT TESTED: no ffmpeg")
def test_quantizers_come_in_the_order_of_display(tmp_path, monkeypatch):
    # What tells of each picture but its place in the order of decoding, and of every third nothing
    # more.
    tool = tmp_path / "tool"
    tool.write_text(
        "#!/bin/sh\nfor k in 0 1 3 4 6; do printf '%s 1 1\\n%s' $k $k; done; printf '7 0 0\\n'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv(pairs.TOOL, str(tool))
    clip = Clips()
    frames = [(clip.y[t], clip.uv[t], clip.uv[t]) for t in (0, 1, 2, 3, 2, 1)]
    options = [
        "-c:v",
        "libx264",
        "-crf",
        "30",
        "-threads",
        "1",
        "-x264-params",
        "bframes=2:b-adapt=0:b-pyramid=none:scenecut=0",
    ]
    told = pairs.code(frames, options)[1]
    # I P B B P P, displayed I B B P P P or with a last group of B P.
    assert [told[t][0] for t in range(4)] == [0, 3, 4, 1] and sorted(t for t, _ in told) == [
        0,
        1,
        3,
        4,
        6,
        7,
    ]
    assert [t for t, blocks in told if blocks is None] == [7] and told[3][1].tolist() == [
        [ord("1")]
    ]
    with pytest.raises(pairs.CodecFailed, match="6 pictures of 4"):
        pairs.code(frames[:4], options)
    monkeypatch.delenv(pairs.TOOL)
    assert pairs.code(frames, options)[1] == []


def test_gathered_pictures_are_no_tests_and_no_copies(tmp_path, capsys):
    rng = np.random.default_rng(0)

    def picture(seed, side):
        small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
        return Image.fromarray(small).resize((side, side * 3 // 4), Image.BICUBIC)

    for name in ("photographs", "clean", "tests"):
        (tmp_path / name).mkdir()
    picture(1, 2400).save(tmp_path / "photographs/a.jpg")
    picture(1, 1200).save(tmp_path / "photographs/b.jpg")
    picture(2, 300).save(tmp_path / "photographs/c.png")
    picture(3, 1200).transpose(Image.ROTATE_90).save(tmp_path / "photographs/d.png")
    (tmp_path / "photographs/e.png").write_bytes(rng.bytes(99))
    picture(3, 400).save(tmp_path / "tests/t.png")
    picture(4, 120).save(tmp_path / "clean/f.png")
    args = argparse.Namespace(
        folder=[f"far={tmp_path}/photographs", f"near:{tmp_path}/clean"],
        out=str(tmp_path / "out"),
        tests=str(tmp_path / "tests"),
    )
    gather.run(args)
    sizes = {p.name: Image.open(p).size for p in (tmp_path / "out").iterdir()}
    assert sizes == {"far__0000.webp": (1600, 1200), "near__0000.webp": (120, 90)}
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "out/near__0000.webp").convert("RGB")),
        np.asarray(picture(4, 120)),
    )
    assert "1 too small, 1 copies, 1 like a test, 1 unreadable" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="neither"):
        gather.run(argparse.Namespace(**vars(args) | {"folder": ["nothing"]}))


def test_kernel_starts_at_the_identity_where_widths_agree():
    torch.manual_seed(0)
    conv, x = Conv(6, 6, 1.0), torch.rand(1, 6, 9, 9)
    want = x[:, :, 1:-1, 1:-1] + F.conv2d(x, conv.plain)
    assert torch.allclose(F.conv2d(x, conv.kernel()), want, atol=1e-5)
    assert torch.equal(Conv(1, 6, 1.0).identity, torch.zeros(6, 1, 3, 3))


@pytest.mark.parametrize("scale, fold", [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
@torch.no_grad()
def test_radius_is_the_receptive_field(scale, fold):
    net, c = noisy_net(scale, 8, 3, fold=fold), 12
    x = torch.rand(1, 1, 26, 26)

    def changes(distance):
        y = x.clone()
        y[0, 0, c, c + distance] += 5
        return bool(
            (net(x) - net(y))[0, 0, c * scale : (c + 1) * scale, c * scale : (c + 1) * scale]
            .abs()
            .max()
            > 0
        )

    assert changes(0) and not changes(net.cfg.radius + fold)


@torch.no_grad()
def test_a_silent_network_is_the_bicubic_kernel():
    net = SrNet(SrConfig(2, 8, 1))
    for parameter in net.parameters():
        parameter.zero_()
    plane = np.random.default_rng(0).integers(16, 236, (10, 14)).astype(np.float32)
    y = net(torch.from_numpy(plane)[None, None] / 255)[0, 0].numpy() * 255
    assert np.abs(y - resample.resize(plane, 20, 28))[4:-4, 4:-4].max() < 1e-2


def test_a_centred_head_sees_no_brightness():
    torch.manual_seed(0)
    x = torch.rand(1, 1, 20, 24) / 2
    for centred, same in ((True, True), (False, False)):
        net = SrNet(SrConfig(2, 8, 2, centred=centred)).requires_grad_(False)
        net.tail.plain.normal_(0, 0.1)
        m = net.cfg.radius * 2
        added = [
            (net(v) - F.pixel_shuffle(F.conv2d(v, net.skip, padding=net.skip.shape[-1] // 2), 2))[
                ..., m:-m, m:-m
            ]
            for v in (x, x + 0.25)
        ]
        assert torch.allclose(*added, atol=1e-5) == same


def test_channels_that_gave_up_are_seen():
    torch.manual_seed(0)
    net = SrNet(SrConfig(2, 8, 2, centred=True)).requires_grad_(False)
    net.body[1].bias[[2, 5]] = -100.0
    alive = net.alive(torch.rand(1, 1, 20, 24))
    assert alive.shape == (3, 8)
    assert [i for i in range(8) if not alive[2, i]] == [2, 5]


@torch.no_grad()
def test_shifted_copies_are_one_output_in_finer_steps():
    """Rounded at shifts of a quarter of a step, the mean is what a quarter of the step would have
    given.
    """
    coarse, many = noisy_net(2, int8=True), noisy_net(2, int8=True, copies=4)
    for k, rounding in enumerate((*many.acts, many.residual)):
        rounding.log_step.copy_((*coarse.acts, coarse.residual)[k].log_step)
    x = torch.rand(1, 1, 24, 30)
    plain = F.pixel_shuffle(F.conv2d(x, many.skip, padding=many.skip.shape[-1] // 2), 2)
    step = float(many.residual.step())
    quarters = (many(x) - plain) / (step / 4)
    assert (quarters - quarters.round()).abs().max() < 0.01 and (quarters.round() % 4 != 0).any()
    assert (many(x) - coarse(x)).abs().max() < 0.51 * step + 1e-5
    with pytest.raises(ValueError, match="copies"):
        SrConfig(copies=2)


def test_mean_of_checkpoints(tmp_path):
    """By shares; of one in float32 the weights count, and what is in 8 bits keeps its steps."""
    paths = []
    for k, (net, value) in enumerate(
        [
            (noisy_net(2, 8, 1, int8=True), 1.0),
            (noisy_net(2, 8, 1), 4.0),
            (noisy_net(2, 8, 1, int8=True, paired=True), 2.0),
        ]
    ):
        with torch.no_grad():
            net.tail.bias.fill_(value)
            if net.cfg.int8:
                net.residual.log_step.fill_(value)
        paths.append(tmp_path / f"{k}.pt")
        torch.save(
            {
                "cfg": net.cfg.dict(),
                "ema": net.state_dict(),
                "net": net.state_dict(),
                "opt": {},
                "step": k,
            },
            paths[k],
        )
    out = tmp_path / "new" / "mean.pt"
    mean.run(
        argparse.Namespace(out=out, checkpoint=[f"{paths[0]}:2", str(paths[1]), str(paths[2])])
    )
    net = load_sr(out)
    assert net.cfg.int8 and not net.cfg.paired and torch.load(out, weights_only=True)["step"] == 0
    assert (net.tail.bias == 2.0).all() and abs(float(net.residual.log_step) - 4 / 3) < 1e-6
    other = noisy_net(2, 8, 2)
    torch.save({"cfg": other.cfg.dict(), "ema": other.state_dict()}, paths[2])
    with pytest.raises(SystemExit, match="another network"):
        mean.run(argparse.Namespace(out=out, checkpoint=list(map(str, paths))))
    with pytest.raises(ValueError, match="share"):
        mean.split("mean.pt:0")


@torch.no_grad()
@pytest.mark.parametrize("paired", [False, True])
def test_no_pair_of_weights_saturates(paired):
    """Whichever two products a runtime adds in 16 bits, inputs next to each other or taps; and
    kernels with one large tap get finer steps where pairs are counted.
    """
    net = noisy_net(2, int8=True)
    for conv in (*net.body, net.tail):
        w = conv.kernel()
        ints = (w / weight_steps(w, paired)[:, None, None, None]).round().abs()
        for order in (ints.flatten(1), ints.permute(0, 2, 3, 1).flatten(1)):
            assert 255 * (order[:, ::2] + order[:, 1::2]).max() <= 32767
        if conv in net.body:
            assert (
                (ints.amax((1, 2, 3)) > 90).all() if paired else (ints.amax((1, 2, 3)) == 63).all()
            )
    equal = torch.full((1, 2, 3, 3), 127.0)
    assert weight_steps(equal, True) == 2.0 and weight_steps(torch.zeros(1, 1, 3, 3), paired) > 0


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(
    "scale, fold, shrink, rated",
    [
        (1, 1, 0.0, False),
        (2, 1, 0.0, False),
        (3, 1, 0.0, False),
        (1, 2, 0.0, False),
        (2, 1, 0.0, True),
        (1, 1, 0.25, True),
    ],
)
def test_graph_agrees_with_pytorch(scale, fold, shrink, rated, int8):
    pytest.importorskip("onnxruntime")
    net = noisy_net(
        scale,
        int8=int8,
        fold=fold,
        shrink=shrink,
        copies=3 if int8 else 1,
        rated=rated,
        paired=scale > 1 and not rated,
    )
    graph = export.graph_of(net)
    export.check(net, graph)
    assert graph == export.graph_of(net)


def test_networks_of_before_are_read_or_refused(tmp_path):
    net, path = noisy_net(1, 8, 1), tmp_path / "last.pt"
    torch.save({"cfg": net.cfg.dict() | {"gate": 0}, "ema": net.state_dict()}, path)
    assert load_sr(path).cfg == net.cfg
    torch.save({"cfg": net.cfg.dict() | {"gate": 16}, "ema": net.state_dict()}, path)
    with pytest.raises(ValueError, match="gate"):
        load_sr(path)


def test_check_finds_another_network():
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match="differ"):
        export.check(noisy_net(depth=1), export.graph_of(noisy_net(depth=2)))
    # One bias that is a tenth of a code value off shows, with 8 bits too.
    for int8 in (False, True):
        net = noisy_net(int8=int8)
        graph = export.graph_of(net)
        with torch.no_grad():
            net.body[0].bias[:] += 0.1 / 255
        with pytest.raises(ValueError, match="differ"):
            export.check(net, graph)


# ------------------------------------------------------------------ material


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for i in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (20, 26, 3), np.uint8)).resize(
            (260, 200), Image.BICUBIC
        )
        coarse.save(folder / f"g{i % 2}__{i}.png")
    return folder


def test_pairs_keep_their_place_in_every_orientation():
    small = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    large = small.repeat(2, 0).repeat(2, 1)
    flat = torch.from_numpy(np.concatenate([large.ravel(), small.ravel()]))
    planes = data.Planes(flat, [dict(group="a", h=60, w=80, offset=0, small=4800, blocks=-1)], 2)
    given, wanted, *_ = planes.draw(64, 12, torch.Generator().manual_seed(0))
    assert given.shape == (64, 1, 12, 12) and torch.equal(given, wanted[..., ::2, ::2])
    assert len({tuple(g.flatten().tolist()) for g in given}) > 50
    crops = {small[i : i + 12, j : j + 12].tobytes() for i in range(19) for j in range(29)}
    upright = sum(g[0].numpy().astype(np.uint8).tobytes() in crops for g in given)
    assert 1 <= upright < 30  # one orientation in eight


@pytest.mark.parametrize("scale", [2, 3])
def test_crops_of_pictures_are_shrunk_as_the_whole_is(scale):
    plane = np.random.default_rng(0).integers(0, 256, (96, 120)).astype(np.uint8)
    planes = data.Planes(
        torch.from_numpy(plane.ravel()),
        [dict(group="a", h=96, w=120, offset=0, small=-1, blocks=-1)],
        scale,
    )
    whole_given, whole_wanted, _ = planes.whole(0)
    reference = np.clip(np.rint(resample.resize(plane, 96 // scale, 120 // scale)), 0, 255)
    assert (
        np.abs(whole_given[0, 0].numpy() - reference).max() <= 1
        and (whole_given[0, 0].numpy() != reference).mean() < 0.01
    )
    assert np.array_equal(whole_wanted[0, 0].numpy(), plane)
    given, wanted, *_ = planes.draw(40, 12, torch.Generator().manual_seed(0))
    assert wanted.shape == (40, 1, 12 * scale, 12 * scale)
    # The small crop is the mean of the large one but for the kernel's tails.
    assert (given.mean((1, 2, 3)) - wanted.mean((1, 2, 3))).abs().max() < 6
    assert (
        5 < sum(torch.equal(g, g.round()) for g in given) < 35
    )  # the others are as fine as video of more bits


def beyond(x, k):
    """Of each crop, whether it is mirrored k samples within each of its four sides."""
    turned = [x, x.flip(-2), x.mT, x.mT.flip(-2)]
    return torch.stack(
        [
            (t[..., :k, :].flip(-2) - t[..., k : 2 * k, :]).abs().amax((1, 2, 3)) < 1e-3
            for t in turned
        ]
    )


@pytest.mark.parametrize(
    "scale, paired", [(1, False), (2, False), (3, False), (2, True), (1, True)]
)
def test_crops_at_an_edge_are_those_of_a_mirrored_picture(scale, paired):
    """What lies beyond the edge is what the plain shrinking of a picture that ends there would go
    on with.
    """
    rng, size, k = np.random.default_rng(0), 2 * data.BEYOND + 4, data.BEYOND
    small, large = (rng.integers(0, 256, (n * 48, n * 60)).astype(np.uint8) for n in (1, scale))
    flat = torch.from_numpy(np.concatenate([large.ravel(), small.ravel()]))
    planes = data.Planes(
        flat,
        [
            dict(
                group="a",
                h=large.shape[0],
                w=large.shape[1],
                offset=0,
                small=large.size if paired else -1,
                blocks=-1,
            )
        ],
        scale,
    )
    given, wanted, *_ = planes.draw(64, size, torch.Generator().manual_seed(0), 1, 0.5)

    there = beyond(wanted, k * scale)
    assert torch.equal(there, beyond(given, k))
    # Either side of half of the crops, along each axis.
    assert (
        20 < there[:2].any(0).sum() < 44 and 20 < there[2:].any(0).sum() < 44 and there.any(1).all()
    )
    assert not beyond(planes.draw(64, size, torch.Generator().manual_seed(0))[0], k).any()


def test_pictures_are_stored_at_several_sizes(pictures, tmp_path):
    planes = data.open_planes(pictures, tmp_path / "cache", "bicubic", 2)
    assert [(e["h"], e["w"]) for e in planes.entries[:3]] == [(200, 260), (150, 195), (100, 130)]
    assert {e["group"] for e in planes.entries} == {"g0", "g1"}
    again = data.open_planes(pictures, tmp_path / "cache", "bicubic", 2, log=pytest.fail)
    assert torch.equal(planes.data, again.data)


def test_packs_of_pictures_give_the_same_planes(pictures, tmp_path):
    from nnvtrain import pack

    paths = pack.write_packs(
        pictures, tmp_path / "packs", quality=100, only="pictures", log=lambda line: None
    )
    packed = data.open_planes(paths[0].parent, tmp_path / "cache", "bicubic", 2)
    plain = data.open_planes(pictures, tmp_path / "cache", "bicubic", 2)
    shape = lambda e: (e["group"], e["h"], e["w"])
    assert sorted(map(shape, packed.entries)) == sorted(map(shape, plain.entries))
    with pytest.raises(RuntimeError, match="nothing to pack"):
        pack.write_packs(pictures, tmp_path / "none", only="videos", log=lambda line: None)


def test_missing_pairs_say_what_to_do(pictures, tmp_path):
    with pytest.raises(FileNotFoundError, match="sr-pairs"):
        data.open_planes(pictures, tmp_path / "cache", "repair", 1)


def test_pairs_go_through_a_pack_unharmed(tmp_path):
    rng = np.random.default_rng(0)
    smooth = np.asarray(
        Image.fromarray(rng.integers(60, 180, (12, 16), np.uint8)).resize((160, 120), Image.BICUBIC)
    )
    given = rng.integers(0, 256, (60, 80)).astype(np.uint8)
    writer = pairs.PairWriter(tmp_path, "compressed", 2, 10**6)
    for _ in range(3):
        writer.add("g", smooth, given)
    writer.close()
    planes = data.open_planes(tmp_path, tmp_path / "cache", "compressed", 2)
    e = planes.entries[1]
    assert planes.paired and len(planes.entries) == 3
    assert np.array_equal(
        planes.data[e["small"] : e["small"] + 4800].numpy().reshape(60, 80), given
    )
    wanted = planes.data[e["offset"] : e["offset"] + 19200].numpy().reshape(120, 160)
    assert np.abs(wanted.astype(int) - smooth).mean() < 1.0
    with pytest.raises(RuntimeError, match="repair"):
        data.open_planes(tmp_path, tmp_path / "cache", "repair", 1)


class Clips:
    """A store of one clip for `Maker`."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.y = rng.integers(16, 236, (12, 64, 96)).astype(np.uint8)
        self.uv = rng.integers(16, 236, (12, 32, 48)).astype(np.uint8)

    def videos(self):
        return [dict(group="g", frames=12, h=64, w=96)]

    def stills(self):
        return []

    def planes(self, clip):
        return self.y, self.uv, self.uv


@pytest.mark.parametrize("task, scale", [("compressed", 2), ("repair", 1)])
def test_maker_draws_matching_sizes(task, scale):
    coded = []

    def coder(frames, options):
        coded.append(options)
        assert len(frames) == pairs.LENGTH
        return frames, [
            (30, None if t % 2 else np.full((3, 4), t, np.uint8)) for t in range(pairs.LENGTH)
        ]

    maker = pairs.Maker(Clips(), task, scale, seed=1, coder=coder, nnv=True)
    spoilt = told = 0
    for _ in range(60):
        before = len(coded)
        group, made = maker.pairs()
        assert group == "g" and len(made) == pairs.KEPT
        for wanted, given, blocks in made:
            told += blocks is not None
            assert blocks is None or len(coded) > before and not blocks[0, 0] % 2
            assert wanted.shape == (given.shape[0] * scale, given.shape[1] * scale)
            spoilt += scale == 1 and not np.array_equal(wanted, given)
    assert len(coded) == 60 if task == "compressed" else 0 < len(coded) < 60
    assert 0 < told < 60 * pairs.KEPT
    assert task == "compressed" or 0 < spoilt < 60 * pairs.KEPT
    assert 0 < sum(options[0] == pairs.NNV for options in coded) < len(coded)


def test_what_compresses_well_is_kept_without_loss():
    stripes = np.tile(np.array([16, 16, 235, 235], np.uint8), (64, 16))
    noise = np.random.default_rng(0).integers(16, 236, (64, 64)).astype(np.uint8)
    flat, rough = (
        np.asarray(Image.open(io.BytesIO(pairs.wanted_file(p))).convert("L"))
        for p in (stripes, noise)
    )
    assert np.array_equal(flat, stripes) and rough.shape == noise.shape
    assert len(pairs.wanted_file(noise)) <= 2 * len(pairs.webp(noise, quality=pairs.WANTED_QUALITY))


class Pictures(Clips):
    """The same, with a picture to synthesise clips from."""

    def stills(self):
        return [dict(group="p", frames=1, h=64, w=96)]


def test_drawn_screens_get_no_grain(monkeypatch):
    strengths = []

    def noise(rng, luma, strength=pairs.NOISE):
        strengths.append(strength)
        return luma

    monkeypatch.setattr(pairs, "camera_noise", noise)
    aged = []

    def coder(frames, options):
        aged.append(len(frames) == pairs.FRAMES)
        return frames, []

    sides = set()
    maker = pairs.Maker(Pictures(), "repair", 1, coder=coder, screens=1)
    for _ in range(40):
        group, made = maker.pairs()
        assert group == "screens"
        for wanted, given, _ in made:
            sides.update(wanted.shape)
            assert np.array_equal(wanted, given)
    assert (
        max(sides) == pairs.SYNTHETIC_SIDE
        and pairs.SYNTHETIC_SIDE * pairs.SHRUNK_TO[0] <= min(sides) < pairs.SYNTHETIC_SIDE * 0.8
    )
    assert set(strengths) == {pairs.NOISE}
    assert 20 < sum(aged) < 36  # of 40 clips, before they are coded at last


def test_pictures_of_real_screens_take_the_place_of_drawn_ones():
    class Caught:
        shades = np.add.outer(np.arange(900), np.arange(1200)).astype(np.uint8)

        def stills(self):
            return [dict(group="s", h=900, w=1200), dict(group="s", h=300, w=900)]

        def planes(self, clip):
            assert clip["h"] == 900  # the other one is too small for a clip
            return self.shades[None], self.shades[None, ::2, ::2], self.shades[None, 1::2, ::2]

    rng = np.random.default_rng(0)
    screens = synth.Screens(caught=Caught())
    pages = [screens.page(rng) for _ in range(40)]
    whole = [p for p in pages if p[0].shape == (900, 1200)]
    assert all(np.array_equal(p[0], Caught.shades) for p in whole)
    drawn = [p for p in pages if p[0].shape == (640, 480)]
    assert len(whole) > 5 and 2 < len(drawn) < 20 and len(whole) + len(drawn) < 35
    for y, u, v in pages:
        assert min(y.shape) >= synth.LEAST_PAGE and u.shape == v.shape == tuple(
            n // 2 for n in y.shape
        )


def test_interlaced_clips_are_woven_of_two_fields():
    rows = np.arange(8, dtype=np.uint8)[:, None].repeat(4, 1)
    frames = [(rows + 16 * t, rows[:4, :2] + 16 * t, rows[:4, :2] + 16 * t) for t in range(5)]
    made = pairs.woven(frames)
    assert len(made) == 2
    for t, frame in enumerate(made):
        for plane, even, odd in zip(frame, frames[2 * t], frames[2 * t + 1]):
            assert np.array_equal(plane[::2], even[::2]) and np.array_equal(plane[1::2], odd[1::2])
    for share in (0, 1):
        maker = pairs.Maker(
            Pictures(),
            "repair",
            1,
            screens=0,
            weave=share,
            coder=lambda frames, options: (frames, []),
        )
        lengths = {(group, len(frames)) for group, frames in (maker.clip() for _ in range(20))}
        assert lengths == {("synthetic", pairs.FRAMES), ("g", 12)}


def test_many_failures_of_the_codec_stop_the_packing(tmp_path):
    calls = []

    def coder(frames, options):
        calls.append(options)
        if len(calls) > 2:
            raise pairs.CodecFailed("no such codec")
        return frames, []

    writer = pairs.PairWriter(tmp_path, "compressed", 2, 10**7)
    with pytest.raises(pairs.CodecFailed):
        pairs.fill(writer, pairs.Maker(Clips(), "compressed", 2, coder=coder), 1e9)
    writer.close()
    items = list(data.read_pairs(writer.paths[0]))
    assert items[0] == ("compressed", 2) and len(items) == 1 + 2 * pairs.KEPT


def test_adam_takes_the_place_of_muon():
    net = SrNet(SrConfig(2, **NAMES["fast"]))
    muon, adam = (train.parameter_groups(net, 1e-3, muon) for muon in (True, False))
    assert [g.get("matrix", False) for g in muon] == [True, False, False] and not any(
        g.get("matrix") for g in adam
    )
    assert {g["lr"] for g in adam} == {5e-4}
    assert [len(g["params"]) for g in muon] == [len(g["params"]) for g in adam]


def test_camera_noise_is_stronger_in_light():
    rng = np.random.default_rng(0)
    flat = np.full((200, 200), 40, np.uint8)
    flat[:, 100:] = 200
    d = pairs.camera_noise(rng, flat).astype(float) - flat
    assert d[:, :100].std() < d[:, 100:].std() and abs(d.mean()) < 0.5


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="NOT TESTED: no ffmpeg")
def test_coding_returns_every_frame():
    clip = Clips()
    frames = [(clip.y[t], clip.uv[t], clip.uv[t]) for t in range(3)]
    coded, told = pairs.code(
        frames, ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "30", "-threads", "1"]
    )
    assert len(coded) == 3 and coded[0][0].shape == (64, 96)
    assert pairs.TOOL not in os.environ or all(
        20 < slice_ and blocks.shape == (4, 6) and 10 < blocks.min() for slice_, blocks in told
    )
    error = np.abs(coded[1][0].astype(float) - clip.y[1]).mean()
    assert 0 < error < np.abs(clip.y[0].astype(float) - clip.y[1]).mean()
    with pytest.raises(pairs.CodecFailed, match="libx264"):
        pairs.code(frames, ["-c:v", "libx264", "-crf", "nonsense"])


@pytest.mark.skipif(
    not pairs.have_nnv(),
    reason="NOT TESTED: GStreamer does not find nnvenc (source scripts/env.sh)",
)
def test_our_own_codec_returns_every_frame():
    clip = Clips()
    frames = [(np.tile(clip.y[0][:8, :8], (8, 12)), clip.uv[0], clip.uv[0])] * 3
    assert all(
        error < 40
        for error in (
            np.abs(y.astype(float) - frames[0][0]).mean()
            for y, _, _ in pairs.code(frames, [pairs.NNV, "quantizer=10"])[0]
        )
    )


# ------------------------------------------------------------------ runs


def options(pictures, tmp_path, out, *more, command=train.arguments):
    parser = argparse.ArgumentParser()
    command(parser)
    return parser.parse_args(
        [
            "--data",
            str(pictures),
            "--cache",
            str(tmp_path / "cache"),
            "--out",
            str(tmp_path / out),
            "--batch",
            "2",
            "--size",
            "16",
            "--held",
            "2",
            "--amp",
            "none",
            *more,
        ]
    )


def test_pictures_that_are_all_border_are_not_judged():
    net = SrNet(SrConfig(2, 4, 2))
    sides = (4 * net.cfg.radius + 1, 64)
    entries = [
        dict(offset=at, small=-1, blocks=-1, h=n, w=n, group="g")
        for at, n in zip((0, sides[0] ** 2), sides)
    ]
    samples = torch.randint(
        0, 256, (sum(n * n for n in sides),), generator=torch.Generator().manual_seed(0)
    ).byte()
    both, large, small = (
        data.Planes(samples, chosen, 2) for chosen in (entries, entries[1:], entries[:1])
    )
    assert train.evaluate(net, both, 2) == train.evaluate(net, large, 2) > 0
    with pytest.raises(ValueError, match="border"):
        train.evaluate(net, small, 2)


def test_the_average_is_over_all_steps(tmp_path, monkeypatch):
    """Of networks that say at which step they are, it says the mean that goes with the square of
    the step; and so it does when it goes on from a checkpoint.
    """

    def network():
        net = SrNet(SrConfig(2, 2, 0))
        return net, train.SrRun(
            options(tmp_path, tmp_path, "average", "--average"),
            net,
            train.parameter_groups(net, 1e-3),
        )

    net, state = network()
    for count in (7, 5):
        for _ in range(count):
            monkeypatch.setattr(
                state.opt, "step", lambda value=float(state.step): net.tail.bias.data.fill_(value)
            )
            state.update(sum(p.sum() for p in net.parameters()))
        state.save()
        net, state = network()
        assert state.resume()
    # Before the first step the bias is 0, and counts a little.
    weights = [2, *((t + 2) * (t + 3) for t in range(12))]
    assert torch.allclose(
        state.ema.tail.bias, torch.tensor(np.average([0, *range(12)], weights=weights)).float()
    )


def test_train_resume_round_and_export(pictures, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(train, "HELD_EVERY", 4)
    monkeypatch.setitem(train.NAMES, "fast", dict(width=16, depth=1))
    train.run(options(pictures, tmp_path, "a", "--steps", "3"))
    train.run(options(pictures, tmp_path, "a", "--steps", "5"))
    assert "resumed at step 3" in capsys.readouterr().out
    last = tmp_path / "a" / "last.pt"
    train.run(
        options(
            pictures, tmp_path, "b", "--steps", "2", "--int8", "--init", str(last), "--loss", "mse"
        )
    )
    train.run(options(pictures, tmp_path, "c", "--steps", "1", "--scale", "3", "--init", str(last)))
    small = tmp_path / "small.pt"
    export.small_run(argparse.Namespace(checkpoint=str(tmp_path / "b" / "last.pt"), out=str(small)))
    assert small.stat().st_size < last.stat().st_size / 3
    bundle = tmp_path / "bundle"
    export.write_bundle(
        bundle, "test", "for a test", [small, tmp_path / "c" / "last.pt"], {"x3": {"note": "none"}}
    )
    manifest = tomllib.loads((bundle / "bundle.toml").read_text())
    assert manifest["bundle"] == dict(format=1, kind="sr", name="test", description="for a test")
    assert [(n["scale"], n["precision"], n["radius"]) for n in manifest["network"]] == [
        (2, "int8", 3),
        (3, "float32", 3),
    ]
    assert manifest["training"]["x2"]["steps"] == 2 and manifest["training"]["x3"]["note"] == "none"
    assert manifest["network"][0]["parameters"] == load_sr(small).parameters_deployed()
    with pytest.raises(ValueError, match="second network"):
        export.write_bundle(bundle, "test", "", [small, small], {})


def test_a_repairing_network_is_told_of_quantizers_and_exported(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(train, "HELD_EVERY", 4)
    monkeypatch.setitem(
        train.NAMES, "deblock", dict(width=16, depth=1, shrink=0.25, centred=True, rated=True)
    )
    rng = np.random.default_rng(0)
    writer = pairs.PairWriter(tmp_path, "repair", 1, 10**6)
    for number, step in enumerate((2, 4, 9, 14, 3, 8)):
        wanted = np.asarray(
            Image.fromarray(rng.integers(60, 180, (8, 10), np.uint8)).resize(
                (80, 64), Image.BICUBIC
            )
        )
        writer.add(
            "g",
            wanted,
            np.asarray(Image.fromarray(wanted // step * step).resize((40, 32)).resize((80, 64))),
            None if number % 2 else np.full((4, 5), 20 + step, np.uint8),
        )
    writer.close()
    for out, *more in (("a",), ("b", "--int8", "--init", str(tmp_path / "a/last.pt"))):
        train.run(
            options(
                tmp_path,
                tmp_path,
                out,
                "--task",
                "repair",
                "--scale",
                "1",
                "--model",
                "deblock",
                "--loss",
                "fair",
                "--steps",
                "2",
                *more,
            )
        )
    assert ", unrated " in capsys.readouterr().out
    (network,) = export.write_bundle(tmp_path / "bundle", "test", "", [tmp_path / "b/last.pt"], {})
    plain = export.write_bundle(tmp_path / "plain", "test", "", [tmp_path / "a/last.pt"], {})[0]
    assert (
        network["parameters"]
        == plain["parameters"]
        == load_sr(tmp_path / "b/last.pt").parameters_deployed()
    )


def test_turns_are_eight_and_turned_back():
    x = np.random.default_rng(0).integers(0, 9, (2, 5, 5))
    assert len({teach.turned(x, k).tobytes() for k in range(8)}) == 8
    assert all(np.array_equal(teach.back(teach.turned(x, k), k), x) for k in range(8))
    corner = np.zeros((5, 5))
    corner[0, 1] = 8

    class First:
        """Sees the first row alone: the mean of turns sees each border sample as often as it comes
        first.
        """

        def run(self, _, feed):
            y = np.zeros_like(feed["x"])
            y[:, :, 0] = feed["x"][:, :, 0]
            return [y]

    assert teach.mean_of_turns(First(), corner)[0].tolist() == [0, 2, 0, 0, 0]
    assert teach.mean_of_turns(First(), corner)[1:].sum() == 0


def taught_file(path, scale=2, side=40, n=3, **facts):
    rng = np.random.default_rng(1)
    given = torch.from_numpy(rng.integers(0, 255 * teach.FINE, (n, side, side)).astype(np.int16))
    large = given.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    torch.save(
        {
            **dict(
                version=data.VERSION,
                task="bicubic",
                scale=scale,
                given=given,
                wanted=(large // teach.FINE).byte(),
                taught=large,
                before=torch.ones(n),
            ),
            **facts,
        },
        path,
    )
    return path


def test_crops_of_taught_windows_keep_their_place(tmp_path):
    file = taught_file(tmp_path / "a.taught")
    for trust in (0.0, 1.0):
        given, wanted, *_ = teach.Taught([file, file], trust).draw(
            40, 12, torch.Generator().manual_seed(0)
        )
        assert given.shape == (40, 1, 12, 12) and wanted.shape == (40, 1, 24, 24)
        difference = (wanted[..., ::2, ::2] - given).abs().amax((1, 2, 3))
        # Half of the inputs are rounded; the truth is whole, the teacher is not.
        exact = (difference == 0).sum()
        assert difference.max() <= 1 and (10 < exact < 30 if trust else exact == 0)
    with pytest.raises(ValueError, match="smaller --size"):
        teach.Taught([file], 0.5).draw(1, 32, torch.Generator())
    with pytest.raises(ValueError, match="another"):
        teach.Taught([file, taught_file(tmp_path / "b.taught", task="compressed")], 0.5)
    torch.save({"net": {}}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="not of sr-teach"):
        teach.Taught([tmp_path / "last.pt"], 0.5)


def test_taught_crops_at_an_edge_are_those_of_a_mirrored_picture(tmp_path):
    """Input, truth and teacher end at one line, and the input is what shrinking such a picture
    gives.
    """
    rng, size, k = np.random.default_rng(0), 2 * data.BEYOND + 4, data.BEYOND
    large = torch.from_numpy(rng.integers(0, 256, (1, 96, 96)).astype(np.uint8))
    m = data.down_margin(2)
    given = data.downscale(
        torch.nn.functional.pad(large[:, None].float(), [m] * 4, "replicate"), 2
    )[:, 0]
    file = tmp_path / "a.taught"
    torch.save(
        dict(
            version=data.VERSION,
            task="bicubic",
            scale=2,
            given=(given * teach.FINE).short(),
            wanted=large,
            taught=large.short() * teach.FINE,
            before=torch.ones(1),
        ),
        file,
    )
    windows = {trust: teach.Taught([file], trust) for trust in (0.0, 1.0)}
    (given, wanted, *_), (_, taught, *_) = (
        windows[t].draw(64, size, torch.Generator().manual_seed(0), 1, 0.5) for t in windows
    )
    assert torch.equal(wanted, taught)
    shrunk = data.downscale(wanted, 2).clamp(0, 255)
    inner = given[..., 2:-2, 2:-2]
    # Half of the inputs are rounded; and those away from any edge are kept as whole parts of a code
    # value.
    assert (shrunk - inner).abs().max() <= 0.5 + 1 / teach.FINE

    there = beyond(wanted, 2 * k)
    assert (
        torch.equal(there, beyond(given, k))
        and 20 < there[:2].any(0).sum() < 44
        and 20 < there[2:].any(0).sum() < 44
    )
    assert not beyond(windows[0.0].draw(64, size, torch.Generator().manual_seed(0))[0], k).any()


def test_a_network_learns_from_a_teacher(pictures, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(train, "HELD_EVERY", 4)
    monkeypatch.setitem(train.NAMES, "fast", dict(width=16, depth=1))
    train.run(options(pictures, tmp_path, "a", "--steps", "2"))
    export.write_bundle(tmp_path / "bundle", "test", "", [tmp_path / "a" / "last.pt"], {})
    parser = argparse.ArgumentParser()
    teach.arguments(parser)
    out = tmp_path / "w.taught"
    common = [
        "--data",
        str(pictures),
        "--cache",
        str(tmp_path / "cache"),
        "--out",
        str(out),
        "--windows",
        "3",
    ]
    teach.run(
        parser.parse_args(
            [*common, "--side", "40", "--teacher", str(tmp_path / "bundle" / "x2.onnx")]
        )
    )
    # An untrained network is nearly the bicubic kernel, for which turns are all the same.
    windows = teach.Taught([out], 1.0)
    difference = windows.taught.float() / teach.FINE - windows.wanted.float()
    assert windows.given.shape == (3, 40, 40) and 0 < difference[:, 16:-16, 16:-16].abs().mean() < 8
    assert windows.squared_error(0) > 1
    train.run(
        options(
            pictures,
            tmp_path,
            "b",
            "--steps",
            "2",
            "--taught",
            str(out),
            "--loss",
            "picture",
            "--choice",
            "3",
        )
    )
    with pytest.raises(SystemExit, match="not what is asked for"):
        train.run(options(pictures, tmp_path, "c", "--scale", "3", "--taught", str(out)))
    with pytest.raises(SystemExit, match="smaller --side"):
        teach.run(
            parser.parse_args(
                [*common, "--side", "400", "--teacher", str(tmp_path / "bundle" / "x2.onnx")]
            )
        )


def test_rounding_is_learned_from_the_network_itself(pictures, tmp_path, monkeypatch):
    """What it makes of crops is wanted, not the truth: before any rounding nothing is left to
    learn.
    """
    monkeypatch.setattr(train, "HELD_EVERY", 4)
    monkeypatch.setitem(train.NAMES, "fast", dict(width=16, depth=1))
    train.run(options(pictures, tmp_path, "a", "--steps", "2"))
    last, losses = str(tmp_path / "a" / "last.pt"), []
    monkeypatch.setattr(
        train.SrRun, "log", lambda self, every, loss, **values: losses.append(float(loss))
    )
    for rounded in ([], ["--int8"]):
        train.run(
            options(
                pictures,
                tmp_path,
                f"b{len(rounded)}",
                "--steps",
                "1",
                "--loss",
                "mse",
                "--init",
                last,
                "--like",
                last,
                *rounded,
            )
        )
    assert losses[0] < 1e-6 < losses[1] < 5
    with pytest.raises(SystemExit, match="scale 2 is not what is asked for"):
        train.run(options(pictures, tmp_path, "c", "--scale", "3", "--like", last))


def test_init_of_another_architecture_is_refused(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "HELD_EVERY", 4)
    monkeypatch.setitem(train.NAMES, "fast", dict(width=16, depth=1))
    monkeypatch.setitem(train.NAMES, "balanced", dict(width=8, depth=1))
    train.run(options(pictures, tmp_path, "a", "--steps", "1"))
    with pytest.raises(ValueError, match="architecture"):
        train.run(
            options(
                pictures,
                tmp_path,
                "b",
                "--model",
                "balanced",
                "--init",
                str(tmp_path / "a" / "last.pt"),
            )
        )


def test_what_began_with_brightness_goes_on_with_it(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "HELD_EVERY", 4)
    monkeypatch.setitem(train.NAMES, "fast", dict(width=16, depth=1))
    train.run(options(pictures, tmp_path, "old", "--steps", "2"))
    old = tmp_path / "old" / "last.pt"
    monkeypatch.setitem(train.NAMES, "fast", dict(width=16, depth=1, centred=True))
    train.run(options(pictures, tmp_path, "old", "--steps", "3"))
    train.run(options(pictures, tmp_path, "from-old", "--steps", "1", "--init", str(old)))
    train.run(options(pictures, tmp_path, "new", "--steps", "1"))
    assert [
        load_sr(tmp_path / name / "last.pt").cfg.centred for name in ("old", "from-old", "new")
    ] == [False, False, True]


def test_a_run_keeps_the_architecture_that_it_began_with(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "HELD_EVERY", 4)
    monkeypatch.setitem(train.NAMES, "fast", dict(width=16, depth=1))
    train.run(options(pictures, tmp_path, "a", "--steps", "1"))
    monkeypatch.setitem(train.NAMES, "fast", dict(width=16, depth=3))
    train.run(options(pictures, tmp_path, "a", "--steps", "2"))
    train.run(
        options(pictures, tmp_path, "b", "--steps", "1", "--init", str(tmp_path / "a" / "last.pt"))
    )
    assert [load_sr(tmp_path / name / "last.pt").cfg.depth for name in ("a", "b")] == [1, 3]
    with pytest.raises(ValueError, match="not what is asked for"):
        train.run(options(pictures, tmp_path, "a", "--steps", "3", "--scale", "3"))


def test_a_run_that_goes_on_takes_the_optimiser_that_is_asked_for(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "HELD_EVERY", 4)
    monkeypatch.setitem(train.NAMES, "fast", dict(width=16, depth=1))
    matrices = []
    for steps, more in (("2", []), ("3", []), ("4", ["--adam"]), ("5", ["--adam"])):
        train.run(options(pictures, tmp_path, "a", "--steps", steps, *more))
        groups = torch.load(tmp_path / "a" / "last.pt", weights_only=True)["opt"]["param_groups"]
        matrices.append([g["matrix"] for g in groups])
    assert matrices == [[True, False, False]] * 2 + [[False, False, False]] * 2


def test_adversarial_run_moves_both_sides(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "HELD_EVERY", 4)
    monkeypatch.setitem(train.NAMES, "fast", dict(width=16, depth=1))
    train.run(options(pictures, tmp_path, "a", "--steps", "1"))
    start = str(tmp_path / "a" / "last.pt")
    args = options(
        pictures,
        tmp_path,
        "g",
        "--steps",
        "2",
        "--model",
        "fast",
        "--init",
        start,
        command=gan.gan_arguments,
    )
    gan.run(args)
    before, after = load_sr(start), load_sr(tmp_path / "g" / "last.pt", which="net")
    assert not torch.equal(before.tail.plain, after.tail.plain)
    judge = torch.load(tmp_path / "g" / "judge.pt", weights_only=True)["judge"]
    torch.manual_seed(args.seed)
    assert any(v.abs().max() > 0 for k, v in judge.items() if k.endswith("tail.bias"))
    args.steps = 3
    gan.run(args)
    args.like = start
    with pytest.raises(SystemExit, match="real pictures"):
        gan.run(args)


def test_the_fair_loss_weighs_each_crop_by_what_was_wrong_before():
    wanted = torch.zeros(2, 1, 24, 24)
    given, got = wanted + 0, wanted + 0
    given[0] += 10 / 255
    got[0] += 5 / 255
    given[1] += 1 / 255
    got[1] += 1 / 255
    expected = (25 / (100 + train.NEARLY_GOOD) + 1 / (1 + train.NEARLY_GOOD)) / 2
    assert abs(float(train.distance("fair", got, wanted, 1, given)) - expected) < 1e-3
    assert (
        abs(
            float(train.distance("picture", got, wanted, 1, given, torch.tensor([0.2, 0.1])))
            - (25 * 0.2 + 1 * 0.1) / 2
        )
        < 1e-3
    )


def test_crops_that_are_worth_more_come_more_often_and_weigh_less():
    rng = torch.Generator().manual_seed(3)
    error = torch.rand(32, generator=rng).pow(2) * 90
    worth, drawn, mean = error + 1, torch.zeros(32), 0.0
    for _ in range(2000):
        pick, weight = train.chosen(worth, 8, rng)
        drawn += torch.bincount(pick, minlength=32)
        mean += float((error[pick] * weight).mean()) / 2000
    assert torch.allclose(drawn / drawn.sum(), worth / worth.sum(), atol=0.01)
    assert abs(mean / float(error.mean()) - 1) < 0.02


@pytest.mark.parametrize("rated", [False, True])
@torch.no_grad()
def test_a_network_grows_into_a_larger_one_that_does_the_same(rated):
    small, net = noisy_net(2, 8, 2, rated=rated), SrNet(SrConfig(2, 16, 4, rated=rated))
    train.grow(net, small)
    x, told = torch.rand(2, 1, 20, 20), rating(torch.tensor([26.0, 40.0])) if rated else None
    assert torch.allclose(net(x, told), small(x, told), atol=1e-5)
    listened = [(conv.plain + conv.identity).abs().sum((0, 2, 3)) for conv in (*net.body, net.tail)]
    assert all((heard > 0).all() for heard in listened), "every channel has work from the start"
    with pytest.raises(ValueError, match="float32"):
        train.grow(net, noisy_net(2, 8, 2, int8=True))

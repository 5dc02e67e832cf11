"""The compiled operators of training against their definition in PyTorch."""

import pytest
import torch

from nnvtrain import fused, model as M, motion, ops


@pytest.fixture
def both(monkeypatch):
    """Runs a function with and without the compiled operators."""
    if fused.compiled() is None:
        pytest.skip("no C++ compiler: the compiled operators cannot be built")

    def run(function):
        out = [function()]
        for module in (M, motion, ops):
            monkeypatch.setattr(module, "usable", lambda *_: None)
        return out + [function()]

    return run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("leak", [False, True])
@pytest.mark.parametrize("scale", [0.0, 16.0])
@pytest.mark.parametrize("last", [True, False])
def test_clamp_round(both, dtype, leak, scale, last):
    torch.manual_seed(1)
    layouts = (torch.channels_last, torch.contiguous_format)
    x = (torch.randn(2, 96, 9, 7) * 6).to(dtype).to(memory_format=layouts[not last])
    g = torch.randn(2, 96, 9, 7).to(dtype).to(memory_format=layouts[last])  # another on purpose

    def run():
        leaf = x.clone().requires_grad_()
        y = ops._ClampRound.apply(leaf, -8.0, 127 / 16, scale, leak)
        y.backward(g)
        return y.detach(), leaf.grad

    (y0, g0), (y1, g1) = both(run)
    assert torch.equal(y0, y1) and torch.equal(g0, g1)


def test_latent_bits(both):
    torch.manual_seed(2)
    last = lambda t: t.to(memory_format=torch.channels_last)
    value = last(torch.randn(3, M.LATENT, 6, 5) * 4 * torch.rand(3, M.LATENT, 1, 1) ** 3)
    index = last(torch.rand(3, M.LATENT, 6, 5) * 70 - 3).clamp(0, M.SCALES - 1)
    weight = torch.tensor([1.0, 2.0, 0.5])

    def run():
        torch.manual_seed(3)  # the noise of the value's gradient
        v, i, gain = (t.clone().requires_grad_() for t in (value, index, torch.tensor(3.0)))
        bits = M.latent_bits(value.round(), v, i, gain)
        (bits * weight).sum().backward()
        return bits.detach(), v.grad, i.grad, gain.grad

    for a, b in zip(*both(run)):
        assert torch.isfinite(a).all()
        assert (a - b).abs().max() <= 2e-5 * b.abs().max()


def test_pointwise_convolution_stays_in_its_layout():
    torch.manual_seed(4)
    layer = ops.Conv(24, 40)
    x = torch.randn(2, 24, 6, 5).to(memory_format=torch.channels_last).requires_grad_()
    y = ops.TorchOps(quant=True).conv(layer, x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    wanted = torch.nn.functional.conv2d(x, layer.quantised_weight(), layer.bias)
    assert torch.allclose(y, wanted, atol=1e-5)
    g = torch.randn_like(y)
    for a, b in zip(*(torch.autograd.grad(t, (x, layer.weight), g) for t in (y, wanted))):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("taps,block,shift", [(motion.LUMA_TAPS, 8, 2), (motion.CHROMA_TAPS, 4, 3)])
def test_cells(both, taps, block, shift):
    torch.manual_seed(5)
    ref = torch.rand(2, 2, 4 * block, 5 * block) * 255
    mv = torch.randint(-80, 81, (2, 2, 4, 5))  # some windows lie outside the picture
    picture, cell = torch.tensor([1, 0, 1]), torch.tensor([19, 0, 7])
    some = torch.randint(-80, 81, (3, 2))
    g, h = torch.randn_like(ref), torch.randn(3, 2, block, block)

    def run():
        leaf = ref.clone().requires_grad_()
        whole = motion._interpolate(leaf, mv, block, taps, shift)
        few = motion._cells(leaf, picture, cell, some, block, taps, shift)
        ((whole * g).sum() + (few * h).sum()).backward()
        return whole.detach(), few.detach(), leaf.grad

    for a, b in zip(*both(run)):
        assert (a - b).abs().max() < 1e-3

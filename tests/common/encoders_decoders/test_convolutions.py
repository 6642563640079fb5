from copy import deepcopy

from common import convolutions
from common.convolutions import ConvTranspose2d, FromPixel

import pytest
import torch
from torch import nn

SHAPES = {
    "as DCGAN's": (4, 2, 1),
    "of one stage": (4, 1, 0),
    "flat": ((1, 4), (1, 2), (0, 1)),
    "odd": (3, 2, 1, 1),
    "padded": (12, 1, 6),
}


def assert_torchs_up_to_rounding(ours, theirs):
    """In bfloat16, outputs and gradients: as near to those in float64; ours with the memory layout of models."""
    theirs.load_state_dict(ours.state_dict())
    exact = deepcopy(theirs).double()
    ours.weight.data = ours.weight.data.to(memory_format=torch.channels_last)
    x = torch.randn(7, ours.in_channels, 5, 6, dtype=torch.float64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = ours(x.float()), theirs(x.float()), exact(x)
    assert outputs[0].dtype == torch.bfloat16
    networks = zip((ours, theirs, exact), outputs, strict=True)
    found = [[y, *torch.autograd.grad(y.double().square().sum(), (x, *f.parameters()))] for f, y in networks]
    summands = 2 * outputs[-1].abs().sum(dim=(0, 2, 3))  # of the gradient of the bias, which may be near 0
    for one, other, expected in zip(*found, strict=True):
        scale = summands.norm() if expected.dim() == 1 else expected.norm()
        error, usual = ((y.double() - expected).norm() / scale for y in (one, other))
        assert error < 1.5 * usual + 0.005


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_transposed_convolution_is_torchs(channels, shape, bias, monkeypatch):
    monkeypatch.setattr(convolutions, "PRODUCT_NUMBERS", 1000)  # a batch in parts
    ours = ConvTranspose2d(2, channels, *shape, bias=bias).double()
    theirs = nn.ConvTranspose2d(2, channels, *shape, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    ours.weight.data = ours.weight.data.to(memory_format=torch.channels_last)
    x = torch.randn(7, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    found = [[y := f(x), *torch.autograd.grad(y.square().sum(), (x, *f.parameters()))] for f in (ours, theirs)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("channels", [1, 5])
def test_a_transposed_convolution_in_bf16_is_torchs_up_to_rounding(channels, shape, monkeypatch):
    monkeypatch.setattr(convolutions, "MANY_CHANNELS", 5)  # whose gradients are products
    ours, theirs = (f(2, channels, *shape) for f in (ConvTranspose2d, nn.ConvTranspose2d))
    assert_torchs_up_to_rounding(ours, theirs)


@pytest.mark.parametrize(("channels", "bf16"), [(1, False), (convolutions.MANY_CHANNELS, True)])
def test_a_transposed_convolution_of_no_examples(channels, bf16):
    layer = ConvTranspose2d(2, channels, 4, 2, 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = layer(torch.empty(0, 2, 5, 6))
    y.sum().backward()
    assert y.shape == (0, channels, 10, 12) and layer.weight.grad.eq(0).all()


@pytest.mark.parametrize("bias", [True, False])
def test_a_transposed_convolution_of_a_pixel_is_a_product(bias):
    ours = FromPixel(3, 5, 4, bias).double()
    theirs = nn.ConvTranspose2d(3, 5, 4, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    ours.weight.data = ours.weight.data.to(memory_format=torch.channels_last)
    x = torch.randn(7, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 5, 4, 4)
    found = [[y := f(x), *torch.autograd.grad((weight * y).sum(), (x, *f.parameters()))] for f in (ours, theirs)]
    torch.testing.assert_close(*found)


def test_a_transposed_convolution_of_a_pixel_has_a_bias_like_torchs():
    assert FromPixel(3, 5, 4).bias is not None

import pytest
import torch
from torch import nn

from common.encoders_decoders import FromPixel


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

"""The gated PixelCNN: what a pixel sees, probabilities that sum to one, sampling from caches, what it learns."""

from itertools import product

from vhe.pixelcnn import GatedPixelCNN

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.nn import functional as F


def network(context_channels=2, channels=16, n_layers=3, **kwargs):
    torch.manual_seed(0)
    return GatedPixelCNN(context_channels, channels, n_layers, **kwargs).double()


def log_prob(net, x, context):
    return -F.binary_cross_entropy_with_logits(net(x, context), x, reduction="none").sum(dim=(1, 2, 3))


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_pixel_sees_exactly_the_pixels_before_it(kernel):
    net = network(kernel=kernel)
    x, context = torch.rand(1, 1, 6, 6).double(), torch.randn(1, 2, 6, 6).double()
    seen = jacobian(lambda x: net(x, context), x).view(36, 36) != 0  # (logit, pixel)
    assert torch.equal(seen, torch.ones(36, 36).tril(-1).bool())


def test_the_context_of_its_row_and_the_rows_above_reaches_a_pixel():
    net = network()
    x, context = torch.rand(1, 1, 3, 3).double(), torch.randn(1, 2, 3, 3).double()
    reaches = jacobian(lambda context: net(x, context), context).view(9, 2, 9) != 0  # (logit, channel, place)
    row = torch.arange(9) // 3
    assert torch.equal(reaches, (row[:, None] >= row)[:, None].expand(9, 2, 9))


def test_the_probabilities_of_all_images_sum_to_one():
    net = network()
    x = torch.tensor(list(product((0.0, 1.0), repeat=6))).double().view(64, 1, 2, 3)
    for context in 3 * torch.randn(3, 1, 2, 2, 3).double():
        assert log_prob(net, x, context.expand(64, 2, 2, 3)).exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
def test_sampling_from_caches_is_sampling_pixel_by_pixel(kernel):
    net = network(kernel=kernel)
    context = 3 * torch.randn(16, 2, 7, 5).double()
    logits = []
    handle = net.logits.register_forward_hook(lambda _, inputs, output: logits.append(output))
    x = net.sample(context, torch.Generator().manual_seed(1))
    handle.remove()
    uniforms = torch.rand(16, 1, 7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    naive = torch.zeros_like(x)
    for i, j in product(range(7), range(5)):
        naive[..., i, j] = (uniforms[..., i, j] < net(naive, context)[..., i, j].sigmoid()).double()
    assert torch.equal(x, naive)
    assert 0.1 < x.mean() < 0.9
    assert torch.allclose(torch.cat(logits, dim=3).view(16, 1, 7, 5), net(x, context), atol=1e-12)

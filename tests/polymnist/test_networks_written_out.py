"""PolyMNIST's networks, written out on their state dicts: FIELD.md section 2, (a) and (b)."""

from polymnist import train
from polymnist.model import build

import pytest
import torch
from torch.nn import functional as F


def weights(network):
    return {name: x.detach().double() for name, x in network.state_dict().items()}


def conv(w, i, x, stride=1):
    return F.conv2d(x, w[f"{i}.weight"], w[f"{i}.bias"], stride, 1)


def block(w, i, x):
    h = conv(w, f"{i}.residual.3", F.leaky_relu(conv(w, f"{i}.residual.1", F.leaky_relu(x, 0.2)), 0.2))
    shortcut = f"{i}.shortcut.weight"
    return (F.conv2d(x, w[shortcut]) if shortcut in w else x) + 0.1 * h


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def test_residual_networks_written_out():
    torch.manual_seed(0)
    model = build(train.Config(networks="resnet", n_modalities=2, n_latents=7)).double()
    x, z, w = torch.rand(2, 3, 28, 28).double(), torch.randn(2, 7).double(), weights(model.encoder["m0"])
    h = F.avg_pool2d(block(w, 1, conv(w, 0, x)), 3, 2, 1)
    h = block(w, 5, F.avg_pool2d(block(w, 3, h), 3, 2, 1))
    torch.testing.assert_close(torch.cat(model.encoder["m0"](x), dim=1), linear(w, "7.linear", h.flatten(1)))
    w = weights(model.decoder["m1"])
    h = F.interpolate(block(w, 2, linear(w, 0, z).view(-1, 256, 7, 7)), scale_factor=2)
    h = block(w, 6, F.interpolate(block(w, 4, h), scale_factor=2))
    torch.testing.assert_close(model.decode(z)["m1"].mean, conv(w, 8, F.leaky_relu(h, 0.2)))


@pytest.mark.parametrize("quadrant", [False, True])
def test_convolutional_networks_written_out(quadrant):
    torch.manual_seed(0)
    model = build(train.Config(networks="conv", n_modalities=2, n_latents=7, quadrant=quadrant)).double()
    side, depth = (64, 4) if quadrant else (28, 3)
    x, z, w = torch.rand(2, 3, side, side).double(), torch.randn(2, 7).double(), weights(model.encoder["m0"])
    h = x
    for i in range(depth):
        h = conv(w, 2 * i, h, stride=2).relu()
    h = linear(w, f"{2 * depth + 3}.linear", linear(w, 2 * depth + 1, h.flatten(1)).relu())
    torch.testing.assert_close(torch.cat(model.encoder["m0"](x), dim=1), h)
    w = weights(model.decoder["m1"])
    h = linear(w, 0, z).relu().view(-1, 256 if quadrant else 128, 4, 4)
    for i in range(3, 2 * depth + 3, 2):
        h = F.conv_transpose2d(h.relu(), w[f"{i}.weight"], w[f"{i}.bias"], 2, 1, int(quadrant or i > 3))
    assert h.shape == x.shape
    torch.testing.assert_close(model.decode(z)["m1"].mean, h)

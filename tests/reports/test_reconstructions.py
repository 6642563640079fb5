"""The structural similarity of reconstructions, on images of one grey whose similarity is known."""

from common.data import Examples
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import MVAE
from reports.subsets import Posteriors, ssim

import pytest
import torch
from torch import nn


class Grey(nn.Module):
    """Images of one grey -> their level, a certain value of latent i; the other latent is unknown."""

    def __init__(self, i):
        super().__init__()
        self.i = i
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        level = x.mean(dim=(1, 2, 3))
        known = nn.functional.one_hot(torch.tensor(self.i), 2)
        return level[:, None] * known, torch.where(known.bool(), -25.0, 25.0).expand(len(x), -1)


class Sum(nn.Module):
    """z -> images whose level is the sum of some latents."""

    def __init__(self, channels, latents):
        super().__init__()
        self.channels, self.latents = channels, latents

    def forward(self, z):
        return z[:, self.latents].sum(dim=1)[:, None, None, None].expand(-1, self.channels, 8, 8)


def grey(level, channels):
    return torch.as_tensor(level)[:, None, None, None].expand(-1, channels, 8, 8)


def similarity(x, y):
    """The similarity of two constant images: only the means are left of the formula."""
    return (2 * x * y + 1e-4) / (x * x + y * y + 1e-4)


def posteriors(a, b):
    model = MVAE(
        encoder={"a": Grey(0), "b": Grey(1)},
        decoder={"a": Sum(1, [0, 1]), "b": Sum(3, [1])},
        likelihood=GroupedLikelihood(**dict.fromkeys(("a", "b"), SphericalGaussianLikelihood(1.0, 3))),
        latent_dim=2,
    )
    return Posteriors(model, Examples({"a": grey(a, 1), "b": grey(b, 3)}), torch.zeros(len(a), 1))


def test_all_images_and_each_alone():
    scores = ssim(posteriors([0.3, 0.3], [0.2, 0.2]), ("a", "b", "c"))
    expected = {"all -> a": similarity(0.5, 0.3), "all -> b": 1, "a -> a": 1, "b -> b": 1}
    assert {pair: x.tolist() for pair, x in scores.items()} == {
        pair: pytest.approx([x, x], abs=1e-4) for pair, x in expected.items()
    }


def test_decoded_values_are_clamped():
    scores = ssim(posteriors([0.9], [0.7]), ("a",))
    assert scores["all -> a"].item() == pytest.approx(similarity(1.0, 0.9), abs=1e-4), "1.6 is shown as 1"

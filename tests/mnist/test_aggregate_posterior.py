from functools import partial

from common.data import Examples
from common.errors import InputError
from common.likelihoods import CategoricalLikelihood, GroupedLikelihood, SphericalGaussianLikelihood
from common.models import MVAE
from mnist.aggregate_posterior import from_aggregate_posterior

import pytest
import torch
from torch import nn


class Exact(nn.Module):
    """q(z|x) at x, and so narrow that draws tell x."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x, torch.full_like(x, -20.0)


class Nothing(nn.Module):
    """An expert that says nothing."""

    def forward(self, label):
        return torch.zeros(len(label), 1), torch.full((len(label), 1), 40.0)


def aggregate_of(label):
    dims = torch.tensor(label).dim() - 1
    likelihood = GroupedLikelihood(x=SphericalGaussianLikelihood(1.0), text=CategoricalLikelihood(dims))
    model = MVAE({"x": Exact(), "text": Nothing()}, {"x": nn.Identity(), "text": nn.Identity()}, likelihood, 1)
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    return partial(from_aggregate_posterior, model, Examples({"x": x, "text": torch.tensor(label)}))


@pytest.mark.parametrize("label", [[0, 1, 0, 2], [[0, 0], [0, 1], [0, 0], [1, 1]]], ids=["classes", "attributes"])
def test_draws_are_of_the_posteriors_of_all_examples_with_the_label(label):
    aggregate, kinds = aggregate_of(label), torch.tensor(label)[[0, 1, 3]]
    z = aggregate(kinds.repeat(1000, *(1,) * (kinds.ndim - 1))).view(1000, 3)
    for column, expected in ((0, [1, 3]), (1, [2]), (2, [4])):
        assert z[:, column].round().unique().tolist() == expected
    assert (z[:, 0].round() == 1).double().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 1000**0.5)


def test_a_label_that_no_example_has_is_named():
    with pytest.raises(InputError, match=r"no training example has the label \[7\]"):
        aggregate_of([0, 1, 0, 2])(torch.tensor([0, 7]))

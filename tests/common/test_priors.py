"""Priors: where they start, and what of them is learned."""

import math

from common.priors import LearnedPrior, StandardGaussianPrior, UniformHypersphericalPrior
from common.variational_posteriors import DiagonalGaussianPosterior, LaplacePosterior

import pytest
import torch
from torch import nn


@pytest.mark.parametrize(("learn", "learn_loc"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize(("family", "variance"), [(DiagonalGaussianPosterior(), 1), (LaplacePosterior(min_scale=0), 2)])
def test_a_learned_prior_starts_at_the_standard_one(family, variance, learn, learn_loc):
    prior = LearnedPrior(family, 3, learn, learn_loc)
    assert (prior().mean.tolist(), prior().variance.tolist()) == ([0] * 3, pytest.approx([variance] * 3))
    assert {name: p.requires_grad for name, p in prior.named_parameters()} == {
        "scale": learn,
        **({"loc": True} if learn_loc else {}),
    }
    assert set(prior.state_dict()) == {"loc", "scale"}
    with torch.no_grad():
        prior.scale += torch.tensor([0.0, 1.0, 2.0])
        prior.loc += 3
    wider = prior().stddev
    assert wider[0] < wider[1] < wider[2] and prior().mean.tolist() == [3] * 3


def test_the_standard_prior_and_the_one_on_spheres():
    z = torch.randn(5, 4)
    prior = StandardGaussianPrior(4)
    torch.testing.assert_close(prior().log_prob(z), torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=-1))
    assert prior().sample((2,)).shape == (2, 4)
    spheres = UniformHypersphericalPrior(6, 2)
    z = spheres().sample((7,))
    torch.testing.assert_close(z.view(7, 2, 3).norm(dim=-1), torch.ones(7, 2))
    torch.testing.assert_close(spheres().log_prob(z), torch.full((7,), -2 * math.log(4 * math.pi)))
    assert not any(isinstance(p, nn.Parameter) for p in (*prior.parameters(), *spheres.parameters()))
    assert not prior.state_dict() and not spheres.state_dict(), "checkpoints need nothing of them"

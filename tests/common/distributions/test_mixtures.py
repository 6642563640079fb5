"""Mixtures whose samples have gradients."""

from common.distributions import DiagonalGaussian, LocScaleEbm, Mixture
from common.errors import InputError

import pytest
import torch


def gaussians(loc):
    """0.3 N(loc_1, 1/4) + 0.7 N(loc_2, 4) in two dimensions, and a component of weight 0; batch shape (3,)."""
    logits = torch.tensor([0.3, 0.7, 0]).log().expand(3, -1)
    logvar = torch.tensor([0.25, 4.0, 1.0]).log()[:, None].expand_as(loc)
    return Mixture(logits, DiagonalGaussian(loc, logvar))


def test_samples_have_the_mixtures_moments_and_the_gradient_of_the_components():
    """The mean is 0.3 loc_1 + 0.7 loc_2; the gradient of E[z^2 / 2] with respect to loc_t is pi_t loc_t."""
    torch.manual_seed(0)
    loc = torch.tensor([[1.0, -2.0], [3.0, 0.5], [1e6, 1e6]]).expand(3, -1, -1).clone().requires_grad_()
    q = gaussians(loc)
    z = q.rsample((40_000,))
    assert q.has_rsample and z.shape == (40_000, 3, 2)
    torch.testing.assert_close(z.mean(dim=0), q.mean, rtol=0, atol=0.06)
    torch.testing.assert_close(z.var(dim=0), q.variance, rtol=0.03, atol=0)
    (gradient,) = torch.autograd.grad(z.square().mean(dim=0).sum() / 2, loc)
    expected = torch.tensor([0.3, 0.7, 0])[:, None] * loc.detach()
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0.06)


def test_samples_and_gradients_are_of_one_draw():
    loc = torch.randn(3, 3, 2)
    torch.manual_seed(1)
    with_gradients = gaussians(loc).rsample((5, 2))
    torch.manual_seed(1)
    torch.testing.assert_close(gaussians(loc).sample((5, 2)), with_gradients)


def test_weighted_samples_are_refused_a_gradient():
    q = LocScaleEbm(torch.ones(3, 2, dtype=torch.bool), *torch.zeros(2, 3, 2, 4), lambda u: u[:, :1] ** 2, n=2)
    assert not q.has_rsample and q.sample().shape == (3, 4)
    with pytest.raises(InputError, match="samples have no gradients"):
        q.rsample((2,))

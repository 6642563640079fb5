"""Hoelder pooling, its moments, Wasserstein barycentres and dependent experts, against quadrature and full matrices."""

from common.distributions.location_scale import DiagonalGaussian
from common.distributions.mixtures import Mixture
from common.errors import InputError
from common.experts import dependent_experts, product_of_experts, wasserstein_barycentre
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS, VAE
from common.pooling_strategies import HellingerStrategy, HoelderStrategy
from tests.helpers.fusions import mask_of

import pytest
import torch
from torch import nn
from torch.distributions import Normal

M, B, D = 4, 5, 3
GRID = torch.linspace(-40, 40, 160_001, dtype=torch.float64)
PATTERNS = mask_of([("a", "b", "c", "d"), ("b",), ("a", "d"), ("b", "c", "d"), ()], "abcd")  # (B, M)


def experts(d=D):
    """Means and log-variances, (M, B, D)."""
    generator = torch.Generator().manual_seed(3)
    mu, logvar = torch.randn(2, M, B, d, generator=generator, dtype=torch.float64)
    return 2 * mu, logvar


def pooled(mu, logvar, present):
    """The normalised (sum of the roots of the densities)^2 of one example's experts, on the grid."""
    roots = [Normal(mu[m], (0.5 * logvar[m]).exp()).log_prob(GRID).div(2).exp() for m in range(M) if present[m]]
    density = sum(roots).square() if roots else Normal(0.0, 1.0).log_prob(GRID).exp()
    return density / torch.trapezoid(density, GRID)


@pytest.mark.parametrize("masked", [False, True])
def test_hoelder_pooling_and_its_moments_against_quadrature(masked):
    params = experts(d=1)
    mask = PATTERNS if masked else None
    logits, *components = HoelderStrategy()(params, mask)
    q = Mixture(logits, DiagonalGaussian(*components))
    mean, logvar = HellingerStrategy()(params, mask)
    for b in range(B):
        density = pooled(*(p[:, b, 0] for p in params), PATTERNS[b] if masked else torch.ones(M))
        log_q = q.log_prob(GRID[:, None, None].expand(-1, B, 1))[:, b]
        torch.testing.assert_close(log_q.exp(), density, rtol=1e-8, atol=1e-12)
        first = torch.trapezoid(GRID * density, GRID)
        second = torch.trapezoid((GRID - first).square() * density, GRID)
        torch.testing.assert_close((mean[b, 0], logvar[b, 0].exp()), (first, second), rtol=1e-9, atol=1e-9)


def test_pairs_in_several_dimensions_weigh_by_all_of_them():
    """Of two experts, the weight of the pair over that of an expert is 2 prod_d S_d."""
    mu, logvar = experts()
    logits, *_ = HoelderStrategy()((mu[:2], logvar[:2]))
    s = torch.ones(B, dtype=torch.float64)
    for d in range(D):
        roots = [
            Normal(mu[m, :, d], (0.5 * logvar[m, :, d]).exp()).log_prob(GRID[:, None]).div(2).exp() for m in (0, 1)
        ]
        s *= torch.trapezoid(roots[0] * roots[1], GRID, dim=0)
    pi = logits.softmax(dim=-1)  # (B, 3): the first, the pair, the second
    torch.testing.assert_close(pi[:, 1] / pi[:, 0], 2 * s)
    torch.testing.assert_close(pi[:, 0], pi[:, 2])


def test_barycentre_is_nearest_to_all_experts():
    """W_2^2 of two Gaussians is the squared distance of (mu, sigma); its gradient there is 0."""
    mu, logvar = experts()
    mean, log_variance = wasserstein_barycentre(mu, logvar, PATTERNS)
    location, scale = mean.requires_grad_(), (0.5 * log_variance).exp().detach().requires_grad_()
    distance = (location - mu).square() + (scale - (0.5 * logvar).exp()).square()  # (M, B, D)
    (distance * PATTERNS.T[..., None]).sum().backward()
    torch.testing.assert_close(location.grad, torch.zeros_like(mean))
    torch.testing.assert_close(scale.grad, torch.zeros_like(mean))
    assert not mean[-1].any() and not log_variance[-1].any(), "without experts the prior"
    complete = torch.ones(B, M, dtype=torch.bool)
    torch.testing.assert_close(wasserstein_barycentre(mu, logvar), wasserstein_barycentre(mu, logvar, complete))


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.8])
def test_dependent_experts_by_full_matrices(rho):
    mu, logvar = experts()
    mean, log_variance = dependent_experts(mu, logvar, rho, PATTERNS)
    for b, present in enumerate(PATTERNS[:-1]):
        for d in range(D):
            scale = (0.5 * logvar[present, b, d]).exp()
            n = len(scale)
            correlation = rho * torch.ones(n, n, dtype=torch.float64) + (1 - rho) * torch.eye(n, dtype=torch.float64)
            inverse = torch.linalg.inv(scale[:, None] * correlation * scale)
            torch.testing.assert_close(log_variance[b, d], -inverse.sum().log())
            torch.testing.assert_close(mean[b, d], (inverse @ mu[present, b, d]).sum() / inverse.sum())
    assert not mean[-1].any() and not log_variance[-1].any(), "without experts the prior"
    if rho == 0:
        product = product_of_experts(mu, logvar, PATTERNS, with_prior=False)
        torch.testing.assert_close((mean, log_variance), product)
    complete = torch.ones(B, M, dtype=torch.bool)
    torch.testing.assert_close(dependent_experts(mu, logvar, rho), dependent_experts(mu, logvar, rho, complete))


def test_rho_reaches_the_experts_of_code_alone():
    for rho, expected in ((None, 0.4), (0.7, 0.7)):
        options = {} if rho is None else {"rho": rho}
        assert FUSIONS["code"].strategy(FAMILIES["gaussian"], dict.fromkeys("ab"), **options).product.rho == expected
    for rho in (-0.1, 0.9):
        with pytest.raises(InputError, match=f"must lie between 0 and 0.8, it is {rho}"):
            FUSIONS["code"].strategy(FAMILIES["gaussian"], dict.fromkeys("ab"), rho=rho)
    with pytest.raises(InputError, match="rho is the correlation of the experts of the fusion code: leave it out"):
        VAE("poe", {"a": nn.Identity()}, {}, nn.ModuleDict(), latent_dim=1, rho=0.4)

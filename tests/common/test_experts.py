import itertools
import math

from common.experts import mixture_log_prob, product_of_experts, quotient_of_experts

import pytest
import torch
from torch.distributions import Normal


@pytest.mark.parametrize(
    ("logvar", "mean", "log_variance"), [(-90.0, 3.0, -90.0), (90.0, 0.0, 0.0), (-16.0, 3.0, -16.0)]
)
def test_float32_extremes_are_exact_with_finite_gradients(logvar, mean, log_variance):
    mu = torch.full((1, 1, 1), 3.0, requires_grad=True)
    logvar = torch.full((1, 1, 1), logvar, requires_grad=True)
    q_mean, q_logvar = product_of_experts(mu, logvar)
    assert q_mean.item() == pytest.approx(mean, abs=1e-6)
    assert q_logvar.item() == pytest.approx(log_variance, abs=2e-6)
    (q_mean + q_logvar).sum().backward()
    assert mu.grad.isfinite().all() and logvar.grad.isfinite().all()
    certain = 1.0 if logvar.item() < 0 else 0.0  # which of expert and prior decides
    assert mu.grad.item() == pytest.approx(certain, abs=1e-6)
    assert logvar.grad.item() == pytest.approx(certain, abs=1e-5)


@pytest.mark.parametrize("spread", [1, 90])
@pytest.mark.parametrize("with_prior", [True, False, None])  # None: in the full product alone, as MoPoE's code has it
def test_several_products_are_those_of_each_subset(with_prior, spread):
    """In float32, with gradients, for variances up to e^90 and down to e^-90."""
    subsets = torch.tensor(list(itertools.product([False, True], repeat=3)))  # (8, 3)
    mu = torch.randn(3, 5, 4)
    logvar = torch.empty(3, 5, 4).uniform_(-spread, spread)
    weight = torch.randn(2, 8, 5, 4)
    has_prior = subsets.all(dim=1) if with_prior is None else torch.full((8,), with_prior)

    def found(masks, priors):
        params = [x.clone().requires_grad_() for x in (mu, logvar)]
        products = [product_of_experts(*params, mask, prior) for mask, prior in zip(masks, priors, strict=True)]
        products = [torch.stack(x).view(8, 5, 4) for x in zip(*products, strict=True)]
        sum((w * x).sum() for w, x in zip(weight, products, strict=True)).backward()
        return *products, *(x.grad for x in params)

    together = found([subsets.unsqueeze(1)], [has_prior.unsqueeze(1)])
    torch.testing.assert_close(together, found(subsets.unsqueeze(1).expand(-1, 5, -1), has_prior.tolist()))


def test_a_mixtures_density_against_brute_force():
    """The experts are of different families, and a batch has each pattern of absence."""
    z = torch.randn(6, 3, dtype=torch.float64)  # (K, B), of one dimension
    log_q = torch.stack(
        [torch.distributions.Laplace(0.5, 0.7).log_prob(z), torch.distributions.Normal(0, 2.0).log_prob(z)]
    )
    torch.testing.assert_close(mixture_log_prob(log_q), (log_q.exp().mean(dim=0)).log())
    mask = torch.tensor([[True, True], [False, True], [False, False]])
    found = mixture_log_prob(log_q, mask)
    torch.testing.assert_close(found[:, 0], log_q[:, :, 0].exp().mean(dim=0).log())
    torch.testing.assert_close(found[:, 1], log_q[1, :, 1])
    assert (found[:, 2] == -torch.inf).all()
    far = torch.tensor([-1000.0, -1001.0]).view(2, 1, 1)
    assert mixture_log_prob(far).item() == pytest.approx(-1000 + torch.tensor((1 + torch.e**-1) / 2).log().item())


# quotients of experts


def log_ratio(z, mu, logvar):
    """log prod_m N(z; mu_m, 1/T_m) / p(z)^(M - 1), by torch's own densities, for z (N, B, D)."""
    posteriors = Normal(mu, (1 + (-logvar).exp()).rsqrt())
    return posteriors.log_prob(z[:, None]).sum(dim=1) - (len(mu) - 1) * Normal(0.0, 1.0).log_prob(z)


@pytest.mark.parametrize("n_experts", [1, 2, 3])
def test_quotient_is_the_product_of_posteriors_over_powers_of_the_prior(n_experts):
    mu, logvar = torch.randn(2, n_experts, 5, 4, dtype=torch.float64)
    mean, log_variance = quotient_of_experts(mu, logvar)
    z = torch.randn(20, 5, 4, dtype=torch.float64)
    difference = Normal(mean, (0.5 * log_variance).exp()).log_prob(z) - log_ratio(z, mu, logvar)
    torch.testing.assert_close(difference, difference[:1].expand(20, -1, -1), msg="a constant: the normaliser")
    precision = (1 + (-logvar).exp()).sum(dim=0) - (n_experts - 1)
    torch.testing.assert_close(log_variance, -precision.log())
    torch.testing.assert_close(mean, ((1 + (-logvar).exp()) * mu).sum(dim=0) / precision)


@pytest.mark.parametrize("fuse", [product_of_experts, quotient_of_experts])
def test_gradients_against_finite_differences(fuse):
    mu, logvar = (torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mask = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    assert torch.autograd.gradcheck(lambda m, v: fuse(m, v, mask), (mu, logvar))


@pytest.mark.parametrize(
    ("mus", "logvars", "mean", "log_variance"),
    [
        ([3.0], [-90.0], 3.0, -90.0),
        ([3.0], [90.0], 3.0, 0.0),  # the posterior N(3, 1)
        ([1.0, -2.0], [-90.0, 90.0], 1.0, -90.0),
        ([1.0, -2.0], [90.0, 90.0], -1.0, 0.0),  # N(1, 1) N(-2, 1) / N(0, 1): precision 1, the means add up
        ([1.0, -2.0], [-90.0, -90.0], -0.5, -90.0 - math.log(2)),
    ],
)
def test_float32_extremes_of_the_quotient(mus, logvars, mean, log_variance):
    mu, logvar = (torch.tensor(x).reshape(-1, 1, 1).requires_grad_() for x in (mus, logvars))
    q_mean, q_logvar = quotient_of_experts(mu, logvar)
    assert q_mean.dtype == torch.float32
    assert q_mean.item() == pytest.approx(mean, abs=1e-5)
    assert q_logvar.item() == pytest.approx(log_variance, abs=2e-5)
    exact = torch.tensor(logvars, dtype=torch.float64).requires_grad_()
    (total,) = torch.autograd.grad((-(1 + (-exact).exp().sum()).log()), exact)
    q_logvar.sum().backward(retain_graph=True)
    torch.testing.assert_close(logvar.grad.flatten(), total.float(), rtol=1e-4, atol=1e-6)
    q_mean.sum().backward()
    precision = 1 + (-exact.detach()).exp()
    torch.testing.assert_close(mu.grad.flatten(), (precision / (precision.sum() - len(mus) + 1)).float())
    assert logvar.grad.isfinite().all()

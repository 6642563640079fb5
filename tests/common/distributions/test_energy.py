"""Energy-based posteriors against Gaussians: an energy that is quadratic leaves a product that is known exactly."""

import math

from common.distributions import LocScaleEbm
from common.errors import InputError
from common.estimators import importance_estimates, joint_and_each, log_marginal
from common.experts import product_of_experts
from common.likelihoods import GroupedLikelihood
from common.multimodal_vae import MultimodalVAE
from common.objectives import EnergyIwaeElbo, MvaeElbo, StandardElbo
from common.priors import StandardGaussianPrior
from common.variational_posteriors import LocScaleEbmPosterior
from common.variational_strategies import LocScaleEbmStrategy
from tests.helpers.linear_gaussian import D, draw, exact_log_p, linear_gaussian

import pytest
import torch
from torch import nn
from torch.distributions import Normal


class Quadratic(nn.Module):
    """E(u) = a |u|^2 / 2: an expert N(mu, s^2) becomes N(mu, s^2 / (1 + a)) times (1 + a)^(-D / 2)."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(float(a), dtype=torch.float64))

    def forward(self, u):
        assert u.dim() == 2, "networks only ever see (N, D)"
        return 0.5 * self.a * u.square().sum(dim=-1, keepdim=True)


def experts(m=2, b=3, d=2):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, m, b, d, generator=generator, dtype=torch.float64)).unbind(0)


def posterior(a, mu, logvar, mask=None, n=4000):
    return LocScaleEbmPosterior(Quadratic(a), n)(LocScaleEbmStrategy()((mu, logvar), mask))


def log_integral(mu, logvar, mask, a):
    """log of the integral of N(z; 0, I) prod_m N(z; mu_m, s_m^2) exp(-a u^2 / 2), (B,), by the sum of its exponents."""
    precision = (1 + a) * (-logvar).exp() * mask.T[..., None]  # (M, B, D)
    total = 1 + precision.sum(dim=0)
    mean = (precision * mu).sum(dim=0) / total
    constant = -0.5 * mask.T[..., None] * (logvar + math.log(2 * math.pi))
    exponent = constant.sum(dim=0) - 0.5 * ((precision * mu.square()).sum(dim=0) - total * mean.square())
    return (exponent - 0.5 * total.log()).sum(dim=-1)


def test_a_density_has_its_gradient_after_samples_too():
    mu, logvar = experts()
    gradients = []
    for sampled in (False, True):
        q = posterior(3.0, mu.requires_grad_(), logvar, n=5)
        if sampled:
            q.sample()
        z = torch.ones(3, 2, dtype=torch.float64)
        total = q.log_density(z).sum() + q.proposal.log_prob(z).sum()
        gradients.append(torch.autograd.grad(total, mu)[0])
    torch.testing.assert_close(*gradients)
    assert gradients[0].any()


@pytest.mark.parametrize("a", [0.0, 3.0])
def test_density_normaliser_and_moments_are_those_of_a_gaussian(a):
    mu, logvar = experts()
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    q = posterior(a, mu, logvar, mask)
    assert (q.batch_shape, q.event_shape) == ((3,), (2,))
    exact = log_integral(mu, logvar, mask, a) - log_integral(mu, logvar, mask, 0.0)
    torch.manual_seed(0)
    torch.testing.assert_close(q.log_normaliser(), exact, rtol=0, atol=0.06)
    mean, log_variance = product_of_experts(mu, logvar - math.log(1 + a), mask)
    known = Normal(mean, (0.5 * log_variance).exp())
    z = torch.randn(5, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(q.log_density(z) - exact, known.log_prob(z).sum(dim=-1))
    torch.testing.assert_close(q.log_prob(z), known.log_prob(z).sum(dim=-1), rtol=0, atol=0.06)
    torch.testing.assert_close(q.mean, mean, rtol=0, atol=0.06)
    torch.testing.assert_close(q.stddev, known.stddev, rtol=0, atol=0.06)
    few = posterior(a, mu, logvar, mask, n=30)
    sample = few.sample((2000,))
    assert sample.shape == (2000, 3, 2)
    torch.testing.assert_close(sample.mean(dim=0), mean, rtol=0, atol=0.08)
    torch.testing.assert_close(sample.std(dim=0), known.stddev, rtol=0, atol=0.08)


def test_the_normaliser_is_unbiased_and_its_weights_bounded():
    mu, logvar = experts()
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    q = posterior(1.0, mu, logvar, mask, n=1)
    torch.manual_seed(0)
    estimates = q.log_normaliser((40000,)).exp()
    exact = (log_integral(mu, logvar, mask, 1.0) - log_integral(mu, logvar, mask, 0.0)).exp()
    assert ((estimates.mean(dim=0) - exact).abs() < 4 * estimates.std(dim=0) / 200).all()
    _, _, log_w = q.pool((40000,))
    assert (log_w <= 1e-9).all(), "q~ / r is at most M + 2, over M + 2 components"
    assert log_w[:, 1, 1].isneginf().all(), "an expert that is not there is no proposal"


def test_the_proposal_is_an_even_mixture_of_the_present_experts_their_product_and_the_prior():
    mu, logvar = experts()
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    z = torch.randn(5, 3, 2, dtype=torch.float64)
    pairs = zip((mu, logvar), product_of_experts(mu, logvar, mask), strict=True)
    means, log_variances = (torch.cat([x, y[None], 0 * x[:1]]) for x, y in pairs)
    log_p = Normal(means, (0.5 * log_variances).exp()).log_prob(z[:, None]).sum(dim=-1)  # (5, 4, 3)
    present = torch.cat([mask, torch.ones(3, 2, dtype=torch.bool)], dim=1).T
    expected = log_p.masked_fill(~present, -torch.inf).logsumexp(dim=1) - present.sum(dim=0).log()
    torch.testing.assert_close(posterior(1.0, mu, logvar, mask).proposal.log_prob(z), expected)


def test_narrow_experts_in_float32():
    """The KL of the exact product, to the noise of a pool, where densities are sums of huge exponents."""
    torch.manual_seed(0)
    mu, logvar = torch.randn(2, 200, 20), torch.full((2, 200, 20), -24.0)
    q = LocScaleEbm(torch.ones(200, 2, dtype=torch.bool), *(x.movedim(0, 1) for x in (mu, logvar)), NoEnergy(), 50)
    _, _, kl = q.elbo_samples(StandardGaussianPrior(20)())
    mean, log_variance = product_of_experts(mu, logvar)
    exact = 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=-1)
    assert (kl - exact).abs().mean() < 1


class NoEnergy(nn.Module):
    def forward(self, u):
        return torch.zeros_like(u[..., :1])


def energy_model(a=0.0, n=8, n_modalities=2):
    """The linear-Gaussian model with an energy-based posterior, which is exact where a is 0."""
    exact, weights, scales = linear_gaussian(n_modalities)
    model = MultimodalVAE(
        encoder=dict(exact.encoder),
        variational_strategy=LocScaleEbmStrategy(),
        variational_posterior=LocScaleEbmPosterior(Quadratic(a), n),
        decoder=dict(exact.decoder),
        likelihood=exact.likelihood,
        prior=StandardGaussianPrior(D).double(),
    )
    assert isinstance(model.likelihood, GroupedLikelihood)
    return model.double(), weights, scales


def test_the_bound_of_several_samples_meets_log_p_where_q_is_exact():
    torch.manual_seed(0)
    model, weights, scales = energy_model(n=200)
    inputs = draw(weights, scales, 3)
    value = EnergyIwaeElbo(model, K=5).bound({name: x.repeat(20, 1) for name, x in inputs.items()}).value
    log_p = exact_log_p(weights, scales, inputs, ("a", "b"))
    torch.testing.assert_close(value.view(-1, 3).mean(dim=0), log_p, rtol=0, atol=0.06)


def test_the_elbo_is_the_gaussian_one_where_the_energy_is_quadratic():
    """ELBO(q) = log p(x) - KL(q || p(z|x)), both Gaussian, for large pools."""
    torch.manual_seed(0)
    model, weights, scales = energy_model(a=1.0, n=20000)
    inputs = draw(weights, scales, 3)
    exact, _, _ = linear_gaussian(2)
    p = exact.posterior(inputs)
    params = exact.experts(exact.observe(inputs))
    mean, logvar = product_of_experts(params[0], params[1] - math.log(2))
    q = Normal(mean, (0.5 * logvar).exp())
    kl = torch.distributions.kl_divergence(q, Normal(p.mean, p.stddev)).sum(dim=-1)
    known = exact_log_p(weights, scales, inputs, ("a", "b")) - kl
    torch.testing.assert_close(StandardElbo(model).bound(inputs).value, known, rtol=0, atol=0.05)
    assert (kl > 0.1).all()


def test_the_gradient_of_choices_is_unbiased():
    """That of the bound's expectation over the choices, which few pools of few samples allow to write out."""
    torch.manual_seed(0)
    model, weights, scales = energy_model(a=0.5, n=1, n_modalities=1)
    inputs = {name: x.repeat(3000, 1) for name, x in draw(weights, scales, 1).items()}
    inputs["a"] = inputs["a"] + 1
    parameters = list(model.parameters())
    goal = EnergyIwaeElbo(model, K=2)
    draws = {"score": [], "enumerated": []}
    for _ in range(30):
        draws["score"].append(torch.autograd.grad(-goal(inputs), parameters))
        q = model.posterior(inputs)
        z, log_q, log_w = q.pool((2,))  # (2, J, B, D)
        log_rho = model.prior().log_prob(z) + model.decode(z)["a"].log_prob(inputs["a"]) - log_q
        log_rho, share = log_rho + log_w.logsumexp(dim=1, keepdim=True), log_w.softmax(dim=1)
        pairs = torch.logaddexp(log_rho[0][:, None], log_rho[1][None]) - math.log(2)  # (J, J, B)
        value = (share[0][:, None] * share[1][None] * pairs).sum(dim=(0, 1)).mean()
        draws["enumerated"].append(torch.autograd.grad(value, parameters))
    means, errors = {}, {}
    for name, gradients in draws.items():
        flat = torch.stack([torch.cat([g.flatten() for g in gradient]) for gradient in gradients])
        means[name], errors[name] = flat.mean(dim=0), flat.std(dim=0) / math.sqrt(len(flat))
    apart = (means["score"] - means["enumerated"]).abs()
    error = (errors["score"].square() + errors["enumerated"].square()).sqrt()
    assert (apart < 4 * error + 1e-9).all()
    assert (means["enumerated"].abs() > 4 * errors["enumerated"]).any()


def test_log_likelihoods_take_the_proposal():
    torch.manual_seed(0)
    model, weights, scales = energy_model(a=5.0)
    inputs = draw(weights, scales, 4)
    both, one = importance_estimates(model, inputs, [("a", "b"), ("a",)], ("a", "b"), 20000)
    torch.testing.assert_close(both.value, exact_log_p(weights, scales, inputs, ("a", "b")), rtol=0, atol=0.03)
    torch.testing.assert_close(one.value, exact_log_p(weights, scales, inputs, ("a",)), rtol=0, atol=0.1)
    assert torch.isfinite(log_marginal(model, {"a": inputs["a"]}, ("a",), n_samples=10)).all()
    row = joint_and_each(model, model.observe(inputs), n_samples=20_000)  # of mnist_svhn/loglike.py
    torch.testing.assert_close(row["log p(a,b)"], both.value, rtol=0, atol=0.05)
    known = exact_log_p(weights, scales, inputs, ("b",))
    torch.testing.assert_close(row["log p(b), z from q(z|b)"], known, rtol=0, atol=0.05)


def test_subsets_and_missing_modalities():
    torch.manual_seed(0)
    model, weights, scales = energy_model(n=3000)
    inputs = draw(weights, scales, 3)
    whole, known, other = (exact_log_p(weights, scales, inputs, names) for names in (("a", "b"), ("a",), ("b",)))
    inputs["a"][0] = torch.nan
    inputs["b"][0] = torch.nan
    inputs["b"][1] = torch.nan
    bound = MvaeElbo(model).bound(inputs)
    assert bound.value[0] == 0, "nothing is given and nothing scored"
    torch.testing.assert_close(bound.value[1], known[1], rtol=0, atol=0.06)
    torch.testing.assert_close(bound.value[2], (whole + known + other)[2], rtol=0, atol=0.1)
    iwae = EnergyIwaeElbo(model, K=3).bound(inputs).value
    assert iwae[0] == 0 and abs(iwae[1] - known[1]) < 0.06


def test_a_pool_needs_a_sample():
    with pytest.raises(InputError, match="at least 1 sample from each expert"):
        LocScaleEbmPosterior(Quadratic(0), 0)

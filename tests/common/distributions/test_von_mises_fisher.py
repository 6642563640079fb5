"""The von Mises-Fisher distribution against SciPy, quadrature and its moments."""

import math
from itertools import pairwise

from common.distributions import HypersphericalUniform, VonMisesFisher
from common.distributions.von_mises_fisher import _implicit_slope, log_area, log_scaled_h
from common.errors import InputError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch.distributions import kl_divergence

DIMS = st.sampled_from((2, 3, 5, 17, 64, 512))
KAPPAS = st.floats(-4, 5).map(lambda x: 10**x)


def vmf(d, kappa, dtype=torch.float64):
    mu = torch.randn(d, dtype=dtype)
    return VonMisesFisher(mu / mu.norm(), torch.tensor(kappa, dtype=dtype, requires_grad=True))


def log_f(theta, d, kappa):
    """The angle's density to mu, e^{kappa (cos theta - 1)} sin^{D-2} theta, without its constant."""
    return kappa * (math.cos(theta) - 1) + ((d - 2) * math.log(math.sin(theta)) if d > 2 else 0)


def integral(function, d, kappa):
    """Over the angles (0, pi) of a function times the density, and of the density: e^log_f, scaled by its largest."""
    cosine = 2 * kappa / (d - 2 + math.hypot(d - 2, 2 * kappa))
    mode = max(math.acos(cosine), 1e-300)
    width = 40 / math.sqrt(kappa * (cosine + 1 / cosine))
    low, high = max(0.0, mode - width), min(math.pi, mode + width)
    top = log_f(mode, d, kappa)

    def quad(f):
        points = np.linspace(low, high, 41)
        parts = [integrate.quad(f, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(points)]
        return math.fsum(parts)

    def density(theta):
        return math.exp(log_f(theta, d, kappa) - top) if 0 < theta < math.pi else 0.0

    return quad(lambda theta: function(theta) * density(theta)), quad(density), top


@given(DIMS, KAPPAS)
def test_the_normaliser_and_the_resultant_against_quadrature(d, kappa):
    apart, total, top = integral(lambda theta: 1 - math.cos(theta), d, kappa)
    uniform = math.log(math.pi) / 2 + math.lgamma((d - 1) / 2) - math.lgamma(d / 2)  # of sin^{D-2}
    log_h, rho = log_scaled_h(d, torch.tensor(kappa, dtype=torch.float64))
    assert log_h.item() == pytest.approx(math.log(total) + top - uniform, abs=1e-9, rel=1e-9)
    assert 1 - kappa * rho.item() / d == pytest.approx(apart / total, rel=1e-6)
    q = vmf(d, kappa)
    (slope,) = torch.autograd.grad(q._scaled()[0], q.concentration)
    assert slope.item() == pytest.approx(-apart / total, rel=1e-6)
    exact = kappa * (1 - apart / total) - kappa - math.log(total) - top + uniform
    assert kl_divergence(q, HypersphericalUniform(d)).item() == pytest.approx(exact, rel=1e-6, abs=1e-9)
    assert q.entropy().item() == pytest.approx(log_area(d) - exact, rel=1e-6)


@given(DIMS, st.floats(-1, 2.5).map(lambda x: 10**x))
def test_densities_and_entropies_against_scipy(d, kappa):
    q = vmf(d, kappa)
    z = HypersphericalUniform(d, like=q.loc).rsample((5,))
    z = torch.cat([z, q.sample((5,))])
    if d < 64:  # scipy's Bessel functions underflow
        theirs = stats.vonmises_fisher(q.loc.numpy(), kappa)
        np.testing.assert_allclose(q.log_prob(z).detach(), theirs.logpdf(z.numpy()), rtol=1e-8)
        assert q.entropy().item() == pytest.approx(theirs.entropy(), rel=1e-8)
    assert HypersphericalUniform(d).log_prob(z)[0].item() == pytest.approx(-log_area(d))
    assert math.exp(log_area(2)) == pytest.approx(2 * math.pi)
    assert math.exp(log_area(3)) == pytest.approx(4 * math.pi)


@given(DIMS, st.just(0.0) | KAPPAS)
def test_float32_is_enough(d, kappa):
    single = vmf(d, kappa, torch.float32)
    loc = single.loc.double()
    double = VonMisesFisher(loc / loc.norm(), single.concentration.detach().double().requires_grad_())
    torch.testing.assert_close(single.mean.double(), double.mean, rtol=1e-4, atol=1e-6)
    spread = double.variance.max().item()
    torch.testing.assert_close(single.variance.double(), double.variance, rtol=1e-4, atol=1e-4 * spread)
    z = single.rsample((1000,))
    assert z.dtype == torch.float32
    assert (z.double().norm(dim=-1) - 1).abs().max() < 1e-5
    scale = 1 + double.entropy().abs().item()
    assert (single.log_prob(z) - double.log_prob(z.double())).abs().max() < 1e-4 * scale
    for f in (lambda q: kl_divergence(q, HypersphericalUniform(d)), lambda q: q.entropy()):
        value, (slope,) = f(single), torch.autograd.grad(f(single), single.concentration)
        exact, (exact_slope,) = f(double), torch.autograd.grad(f(double), double.concentration)
        assert value.item() == pytest.approx(exact.item(), rel=1e-5, abs=1e-6)
        assert slope.item() == pytest.approx(exact_slope.item(), rel=1e-3, abs=1e-9)
    z.sum().backward()
    assert single.concentration.grad.isfinite()


def test_divergences_between_two_against_the_circle():
    """In two dimensions z is an angle."""
    at = torch.tensor([0.3, 2.0], dtype=torch.float64)
    loc = torch.stack([at.cos(), at.sin()], dim=-1)
    q, p = VonMisesFisher(loc[0], torch.tensor(2.5).double()), VonMisesFisher(loc[1], torch.tensor(0.7).double())
    angles = torch.linspace(0, 2 * math.pi, 4001, dtype=torch.float64)[:-1]
    z = torch.stack([angles.cos(), angles.sin()], dim=-1)
    for a, b in ((q, p), (p, q), (q, q)):
        value = (a.log_prob(z).exp() * (a.log_prob(z) - b.log_prob(z))).mean() * 2 * math.pi
        torch.testing.assert_close(kl_divergence(a, b), value)
    assert q.log_prob(z).exp().mean().item() * 2 * math.pi == pytest.approx(1)


@pytest.mark.parametrize(("d", "kappa"), [(2, 2.0), (3, 0.0), (64, 1e4)])
def test_moments_of_samples(d, kappa):
    torch.manual_seed(0)
    q, n = vmf(d, kappa), 40_000
    z = q.sample((n,))
    assert ((z.mean(dim=0) - q.mean) / (q.variance / n).sqrt()).abs().max() < 4.5
    fourth = (z - q.mean).pow(4).mean(dim=0)
    error = ((fourth - q.variance.square()) / n).sqrt()
    assert ((z.var(dim=0) - q.variance) / error).abs().max() < 4.5


@given(DIMS, KAPPAS)
def test_gradients_of_single_samples_against_quadrature(d, kappa):
    """dv/dkappa is -dF/dkappa / f at the sample: quantiles stay where they are."""
    torch.manual_seed(0)
    q = vmf(d, kappa)
    v, apart = q._sample_v((4,)).detach(), (1 - q._resultant).detach()
    slopes = {t: _implicit_slope(v.to(t), torch.full((4,), kappa, dtype=t), apart, d) for t in (v.dtype, torch.float32)}
    for i, theta in enumerate((2 * (v / 2).sqrt().asin()).tolist()):

        def integrand(s, theta=theta):
            return (apart.item() + math.cos(s) - 1) * math.exp(log_f(s, d, kappa) - log_f(theta, d, kappa))

        low = max(1e-300, theta - 0.9 * math.pi / math.sqrt(1 + max(kappa, d) / 200))
        value = integrate.quad(integrand, low, theta, epsabs=0, epsrel=1e-9, limit=400)[0]
        if apart < v[i]:  # the other side, where nothing cancels
            high = min(math.pi - 1e-15, theta + 0.9 * math.pi / math.sqrt(1 + max(kappa, d) / 200))
            value = -integrate.quad(integrand, theta, high, epsabs=0, epsrel=1e-9, limit=400)[0]
        exact = -math.sin(theta) * value
        assert slopes[torch.float64][i].item() == pytest.approx(exact, rel=1e-3)
        assert slopes[torch.float32][i].item() == pytest.approx(exact, rel=5e-3)


def test_the_gradient_of_an_expectation_by_the_direction():
    """By mu of E[a' z] = A a' mu."""
    torch.manual_seed(0)
    q, a, n = vmf(8, 10.0), torch.randn(8, dtype=torch.float64), 20_000
    mu = q.loc.repeat(n, 1).requires_grad_()
    z = VonMisesFisher(mu, q.concentration.detach().repeat(n)).rsample()
    (along,) = torch.autograd.grad((z @ a).sum(), mu)
    tangent = along - (along @ q.loc)[:, None] * q.loc  # what moves mu on the sphere
    expected = q._resultant.detach() * (a - (a @ q.loc) * q.loc)
    error = (tangent.std(dim=0) / math.sqrt(n)).clamp(min=1e-9)
    assert ((tangent.mean(dim=0) - expected).abs() / error).max() < 4.5
    assert error.max() < 0.05 * expected.abs().max(), "the comparison is tight"


@pytest.mark.parametrize("kappa", [math.nan, math.inf])
def test_what_has_diverged_comes_to_an_end_and_shows(kappa):
    q = VonMisesFisher(torch.eye(3)[0], torch.tensor([2.0, kappa]))
    assert q.log_prob(q.rsample()).isfinite().tolist() == [True, False]


def test_shapes_and_what_is_no_sphere():
    wide = VonMisesFisher(torch.eye(3)[0], torch.tensor(2.0)).expand((5, 2))
    assert wide.sample().shape == (5, 2, 3)
    assert wide.mean.shape == wide.variance.shape == (5, 2, 3)
    uniform = HypersphericalUniform(3).expand((5, 2))
    assert uniform.sample((7,)).shape == (7, 5, 2, 3)
    assert uniform.log_prob(wide.sample()).shape == uniform.entropy().shape == kl_divergence(wide, uniform).shape
    torch.testing.assert_close(uniform.sample((20_000,)).var(dim=0), uniform.variance, rtol=0.1, atol=0)
    with pytest.raises(InputError, match=r"at least 2 dimensions \(got 1\)"):
        VonMisesFisher(torch.ones(1), torch.tensor(1.0))


@pytest.mark.parametrize("d", [2, 3])
def test_noise_of_zero_has_a_direction_of_random_sign(monkeypatch, d):
    """torch.randn is 0 once in 2^24 draws, and on a circle the noise is a single draw."""
    q = VonMisesFisher(torch.eye(d)[:1], torch.tensor([2.0], requires_grad=True))
    monkeypatch.setattr(torch, "randn", lambda *shape, **options: torch.zeros(*shape, **options))
    z = q.rsample((500,))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(500, 1))
    z.sum().backward()
    assert q.concentration.grad.isfinite().all()
    uniform = HypersphericalUniform(d).sample((500,))
    torch.testing.assert_close(uniform.norm(dim=-1), torch.ones(500))
    for across in (z[:, 0, 1:], uniform):
        assert ((across > 0).float().mean(dim=0) - 0.5).abs().max() < 0.1, "both signs are as frequent"

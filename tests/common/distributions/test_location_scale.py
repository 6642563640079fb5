from common.distributions import DiagonalGaussian
from common.distributions.location_scale import LaplaceOrNormal, StudentT
from common.priors import StandardGaussianPrior

import pytest
import torch
from torch.distributions import kl_divergence


def test_kl_and_its_gradient_are_exact_where_float32_variances_are_not():
    for logvar in (-90.0, -200.0, -1.0):
        mu = torch.tensor([[0.3]], requires_grad=True)
        logvar = torch.tensor([[logvar]], requires_grad=True)
        kl = kl_divergence(DiagonalGaussian(mu, logvar), StandardGaussianPrior(1)())
        kl.sum().backward()
        exact = 0.5 * (logvar.detach().double().exp() + 0.3**2 - 1 - logvar.detach().double())
        assert kl.item() == pytest.approx(exact.item(), rel=1e-6)
        assert mu.grad.item() == pytest.approx(0.3)
        assert logvar.grad.item() == pytest.approx(0.5 * (logvar.detach().double().exp().item() - 1))


def test_samples_of_laplace_and_normal_beside_each_other():
    """Their moments, and loc and scale as what moves them: their kurtosis tells the families apart."""
    loc, scale = torch.tensor([0.3, -1.0]).double().requires_grad_(), torch.tensor([0.5, 2.0]).double().requires_grad_()
    p = LaplaceOrNormal(loc, scale, torch.tensor([True, False]))
    expected = torch.tensor([2 * 0.5**2, 2.0**2]).double()
    assert p.has_rsample and p.batch_shape == (2,)
    torch.testing.assert_close(p.variance, expected)
    torch.testing.assert_close(p.mean, loc)
    z = p.rsample((400_000,))
    torch.testing.assert_close(z.mean(dim=0), loc, rtol=0, atol=0.02)
    torch.testing.assert_close(z.var(dim=0), expected, rtol=0.02, atol=0)
    kurtosis = ((z - loc) ** 4).mean(dim=0) / expected**2
    torch.testing.assert_close(kurtosis, torch.tensor([6.0, 3.0]).double(), rtol=0.05, atol=0)
    slopes = torch.autograd.grad(z[0].sum(), (loc, scale))
    torch.testing.assert_close(slopes, (torch.ones_like(loc), ((z[0] - loc) / scale)))


def test_samples_need_no_value_of_a_tensor(monkeypatch):
    """torch.normal of tensors looks whether all scales are positive, which no CUDA graph can capture."""
    monkeypatch.setattr(torch, "normal", None)
    zero, one = torch.zeros(2), torch.ones(2)
    for p in (LaplaceOrNormal(zero, one, torch.tensor([True, False])), StudentT(zero, one)):
        assert p.rsample((3,)).shape == (3, 2)


def test_kl_of_laplace_and_normal_beside_each_other():
    """Against quadrature of q log(q / p), for all four pairs of families."""
    q_laplace, p_laplace = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    q = LaplaceOrNormal(torch.tensor(0.3).double(), torch.tensor(0.7).double(), q_laplace)
    p = LaplaceOrNormal(torch.tensor(-0.4).double(), torch.tensor(1.2).double(), p_laplace)
    x = torch.linspace(-30, 30, 2_000_001, dtype=torch.float64)[:, None]
    log_q, log_p = q.log_prob(x), p.log_prob(x)
    expected = torch.trapezoid(log_q.exp() * (log_q - log_p), x.squeeze(1), dim=0)
    torch.testing.assert_close(kl_divergence(q, p), expected, rtol=1e-5, atol=1e-6)


def test_student_t():
    """The density is torch's with 3 degrees of freedom, the draws have its quartiles, the KL is that of quadrature."""
    loc, scale = torch.tensor([0.3, -1.0]).double().requires_grad_(), torch.tensor([0.7, 2.0]).double().requires_grad_()
    q, p = StudentT(loc, scale), StudentT(torch.tensor([-0.4]).double(), torch.tensor([1.2]).double()).expand((2,))
    x = (torch.linspace(-14, 14, 200_001, dtype=torch.float64)[:, None]).sinh()  # far into the tails
    torch.testing.assert_close(q.log_prob(x), torch.distributions.StudentT(3.0, loc, scale).log_prob(x))
    torch.testing.assert_close((q.mean, q.variance), (loc, 3 * scale.square()))
    z = q.rsample((200_000,))
    quartiles = torch.quantile((z - loc) / scale, torch.tensor([0.25, 0.5, 0.75, 0.99]).double(), dim=0)
    of_t3 = torch.tensor([-0.7649, 0, 0.7649, 4.5407]).double()[:, None].expand(-1, 2)
    torch.testing.assert_close(quartiles, of_t3, rtol=0.03, atol=0.02)
    torch.testing.assert_close(
        torch.autograd.grad(z[0].sum(), (loc, scale)), (torch.ones_like(loc), (z[0] - loc) / scale)
    )
    difference = q.log_prob(x).exp() * (q.log_prob(x) - p.log_prob(x))
    torch.testing.assert_close(kl_divergence(q, p), torch.trapezoid(difference, x, dim=0), rtol=1e-6, atol=1e-7)
    assert kl_divergence(q, q).abs().max() < 1e-14

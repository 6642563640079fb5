import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from common.distributions import DiagonalGaussian
from common.distributions.location_scale import LaplaceOrNormal
from common.priors import StandardGaussianPrior


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


def test_kl_of_diagonal_gaussians_against_torchs():
    mu, logvar = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    q, p = (DiagonalGaussian(m, v) for m, v in zip(mu, logvar, strict=True))
    expected = [Independent(Normal(m, (0.5 * v).exp()), 1) for m, v in zip(mu, logvar, strict=True)]
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(*expected))


def test_kl_of_laplace_and_normal_beside_each_other():
    """Against quadrature of q log(q / p), for all four pairs of families."""
    q_laplace, p_laplace = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    q = LaplaceOrNormal(torch.tensor(0.3).double(), torch.tensor(0.7).double(), q_laplace)
    p = LaplaceOrNormal(torch.tensor(-0.4).double(), torch.tensor(1.2).double(), p_laplace)
    x = torch.linspace(-30, 30, 2_000_001, dtype=torch.float64)[:, None]
    log_q, log_p = q.log_prob(x), p.log_prob(x)
    expected = torch.trapezoid(log_q.exp() * (log_q - log_p), x.squeeze(1), dim=0)
    torch.testing.assert_close(kl_divergence(q, p), expected, rtol=1e-5, atol=1e-6)

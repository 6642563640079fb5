import pytest
import torch

from common.experts import mixture_log_prob, product_of_experts


def test_product_is_the_precision_weighted_mean():
    mu, logvar = torch.randn(3, 5, 4, dtype=torch.float64), torch.randn(3, 5, 4, dtype=torch.float64)
    precision = 1 + (-logvar).exp().sum(dim=0)
    mean, log_variance = product_of_experts(mu, logvar)
    torch.testing.assert_close(mean, ((-logvar).exp() * mu).sum(dim=0) / precision)
    torch.testing.assert_close(log_variance, -precision.log())


def test_mask_removes_experts_and_their_gradient():
    mu = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    logvar = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[[True, False, True]] * 5, [[False, False, False]] * 5])  # (2, 5, 3)
    mean, log_variance = product_of_experts(mu, logvar, mask)
    assert mean.shape == log_variance.shape == (2, 5, 4)
    expected = product_of_experts(mu[[0, 2]], logvar[[0, 2]])
    torch.testing.assert_close((mean[0], log_variance[0]), expected)
    assert (mean[1] == 0).all() and (log_variance[1] == 0).all(), "nothing given: the prior"
    (mean.sum() + log_variance.sum()).backward()
    for grad in (mu.grad, logvar.grad):
        assert (grad[1] == 0).all()
        assert (grad[[0, 2]] != 0).all()


def test_gradients_against_finite_differences():
    mu, logvar = (torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    assert torch.autograd.gradcheck(lambda m, v: product_of_experts(m, v, mask), (mu, logvar))


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


def test_opposite_extremes_in_one_product():
    mu = torch.tensor([1.0, -2.0]).reshape(2, 1, 1)
    mean, log_variance = product_of_experts(mu, torch.tensor([-90.0, 90.0]).reshape(2, 1, 1))
    assert (mean.item(), log_variance.item()) == (1.0, -90.0)


def test_a_mixtures_density_against_brute_force():
    """Of experts of different families, with each pattern of absence in one batch."""
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

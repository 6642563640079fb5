import pytest
import torch
from torch.distributions import Independent, Laplace, Normal

from common.likelihoods import BinaryLikelihood, LaplaceLikelihood, SphericalGaussianLikelihood


@pytest.mark.parametrize(
    ("likelihood", "family"), [(LaplaceLikelihood, Laplace), (SphericalGaussianLikelihood, Normal)]
)
@pytest.mark.parametrize("event_dims", [1, 3])
def test_densities_of_one_scale_are_torchs(likelihood, family, event_dims):
    loc = torch.randn(4, 2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64)  # to be broadcast
    found = []
    for p in (likelihood(0.3, event_dims)(loc), Independent(family(loc, 0.3), event_dims)):
        log_p = p.log_prob(x)
        found.append((log_p, *torch.autograd.grad(log_p.sin().sum(), loc), p.expand((9, *p.batch_shape)).log_prob(x)))
    torch.testing.assert_close(*found)


def test_yes_and_no_are_scored_as_bernoulli_in_whole_numbers():
    logits = torch.tensor([-2.0, 0.0, 3.0]).double()
    p = BinaryLikelihood()(logits)
    torch.testing.assert_close(
        p.log_prob(torch.tensor([1, 0, 1])), torch.nn.functional.logsigmoid(logits * torch.tensor([1, -1, 1]))
    )
    assert p.mode.tolist() == [0, 0, 1] and p.mode.dtype == torch.int64

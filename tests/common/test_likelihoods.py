import math

from common.errors import InputError
from common.likelihoods import (
    BernoulliLikelihood,
    BinaryLikelihood,
    CategoricalLikelihood,
    FunctionLikelihood,
    LaplaceLikelihood,
    LocationScaleLikelihood,
    NegativeBinomialLikelihood,
    NormalLikelihood,
    SphericalGaussianLikelihood,
)

import pytest
import torch
from scipy.stats import nbinom
from torch.distributions import Cauchy, Independent, Laplace, Normal, Poisson


def test_other_families_are_refused():
    with pytest.raises(InputError, match="the family must be torch's Laplace or Normal .got Cauchy."):
        LocationScaleLikelihood(Cauchy, 1.0)


@pytest.mark.parametrize(
    ("likelihood", "family"), [(LaplaceLikelihood, Laplace), (SphericalGaussianLikelihood, Normal)]
)
@pytest.mark.parametrize("event_dims", [0, 1, 3])
def test_densities_of_one_scale_are_torchs(likelihood, family, event_dims):
    loc = torch.randn(4, 2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64)  # to be broadcast
    found = []
    for p in (likelihood(0.3, event_dims)(loc), Independent(family(loc, 0.3), event_dims)):
        log_p = p.log_prob(x)
        found.append((log_p, *torch.autograd.grad(log_p.sin().sum(), loc), p.expand((9, *p.batch_shape)).log_prob(x)))
    torch.testing.assert_close(*found)
    assert likelihood().scale == 0.1, "poe-vae's"


def test_yes_and_no_are_scored_as_bernoulli_in_whole_numbers():
    logits = torch.tensor([-2.0, 0.0, 0.1, 3.0]).double()
    p = BinaryLikelihood()(logits)
    torch.testing.assert_close(
        p.log_prob(torch.tensor([1, 0, 1, 1])), torch.nn.functional.logsigmoid(logits * torch.tensor([1, -1, 1, 1]))
    )
    assert p.mode.tolist() == [0, 0, 1, 1] and p.mode.dtype == torch.int64


def test_draws_of_yes_and_no_are_whole_numbers():
    drawn = BinaryLikelihood()(torch.tensor([-50.0, 50.0])).sample((3,))
    assert drawn.dtype == torch.int64 and drawn.tolist() == [[0, 1]] * 3


def test_intensities_are_scored_by_their_cross_entropy():
    logits, x = torch.randn(4, 2, 3).double(), torch.rand(2, 3).double()
    p = BernoulliLikelihood(2)(logits)
    cross_entropy = x * logits.sigmoid().log() + (1 - x) * (-logits).sigmoid().log()
    torch.testing.assert_close(p.log_prob(x), cross_entropy.sum(dim=(1, 2)))
    assert BernoulliLikelihood()(logits).batch_shape == (4, 2), "one dimension of the event by default"
    torch.testing.assert_close((BernoulliLikelihood(2).point(p), p.logits), (logits.sigmoid(), logits))


@pytest.mark.parametrize("event_dims", [0, 1])
def test_classes_alone_and_in_strings(event_dims):
    logits, x = torch.randn(4, 3, 5).double(), torch.randint(5, (4, 3))
    p = CategoricalLikelihood(event_dims)(logits)
    log_p = logits.log_softmax(dim=-1).gather(2, x[..., None])[..., 0]
    torch.testing.assert_close(p.log_prob(x), log_p.sum(dim=1) if event_dims else log_p)
    assert p.event_shape == (3,) * event_dims and p.batch_shape == (4, 3)[: 2 - event_dims]
    assert CategoricalLikelihood(event_dims).point(p).equal(logits.argmax(dim=-1))


@pytest.mark.parametrize("event_dims", [0, 1, 2])
def test_a_function_of_output_and_value_is_summed_over_the_event(event_dims):
    likelihood = FunctionLikelihood(lambda output, x: output * x, event_dims)
    output, x = torch.randn(4, 2, 3).double(), torch.randn(2, 3).double()
    p = likelihood(output)
    shapes = {0: ((4, 2, 3), ()), 1: ((4, 2), (3,)), 2: ((4,), (2, 3))}
    assert (p.batch_shape, p.event_shape) == shapes[event_dims]
    torch.testing.assert_close(p.log_prob(x), (output * x).reshape(*p.batch_shape, -1).sum(dim=-1))
    assert likelihood.point(p) is output and FunctionLikelihood(torch.mul)(output).batch_shape == (4, 2)
    for draw in (p.sample, p.rsample):
        with pytest.raises(InputError, match=r"has a log-density alone: take p\.mean, it cannot be sampled"):
            draw((5,))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_scales_are_positive(scale):
    with pytest.raises(InputError, match=f"a likelihood's scale must be positive and finite, it is {scale}"):
        LaplaceLikelihood(scale)


@pytest.mark.parametrize("family", [Normal, Laplace])
def test_densities_of_outputs_in_half_precision_are_float32(family):
    loc, x = torch.linspace(-2, 2, 3000).half(), torch.linspace(-2, 2.1, 3000).half()
    expected = family(loc.double(), 0.01).log_prob(x.double()).sum()
    found = LocationScaleLikelihood(family, 0.01)(loc).log_prob(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=0)
    logits = torch.tensor([-30.0, 40.0]).half()
    assert BernoulliLikelihood()(logits).log_prob(torch.ones(2)).item() == pytest.approx(-30)
    assert CategoricalLikelihood()(logits).log_prob(torch.tensor(0)).item() == pytest.approx(-70)


@pytest.mark.parametrize(("event_dims", "shape"), [(1, (4,)), (3, (4, 2, 3))])
def test_the_decoder_gives_the_scales_too(event_dims, shape):
    loc, log_scale = torch.randn(2, 5, *shape, dtype=torch.float64)
    log_scale[:, 0] = -30
    x = torch.randn(5, *shape, dtype=torch.float64)
    likelihood = NormalLikelihood(event_dims)
    p = likelihood(torch.cat([loc, log_scale], dim=1))
    known = Independent(Normal(loc, log_scale.exp() + 0.01), event_dims)
    torch.testing.assert_close(p.log_prob(x), known.log_prob(x))
    assert likelihood.point(p).equal(loc)


@pytest.mark.parametrize(("mean", "columns"), [(1e6, 2000), (1e7, 100)])
def test_large_counts_lose_nothing_in_float32(mean, columns):
    """The log-gammas of such counts are 1e7 to 1e8 nats. Gradients are those of float64 too."""
    log_mean = torch.full((columns,), math.log(mean)) + 0.1 * torch.randn(columns)
    output = torch.cat([log_mean, torch.full((columns,), 3.0)]).requires_grad_()
    x = (log_mean.double() + 0.2 * torch.randn(columns)).exp().round()
    p = NegativeBinomialLikelihood()(output)
    r = output[columns:].detach().double().exp().numpy()
    known = nbinom.logpmf(x.numpy(), r, r / (r + output[:columns].detach().double().exp().numpy())).sum()
    assert p.log_prob(x.long()).item() == pytest.approx(known, abs=0.05)
    (found,) = torch.autograd.grad(p.log_prob(x.long()), output)
    doubled = output.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(NegativeBinomialLikelihood()(doubled).log_prob(x), doubled)
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


def test_counts_are_negative_binomial():
    """scipy's nbinom with r successes of probability r / (r + mean)."""
    log_mean, log_r = torch.randn(2, 6, 3, dtype=torch.float64)
    x = torch.randint(8, (6, 3)).double()
    likelihood = NegativeBinomialLikelihood()
    p = likelihood(torch.cat([log_mean, log_r], dim=1))
    mean, r = log_mean.exp().numpy(), log_r.exp().numpy()
    known = nbinom.logpmf(x.numpy(), r, r / (r + mean)).sum(axis=1)
    torch.testing.assert_close(p.log_prob(x), torch.from_numpy(known))
    torch.testing.assert_close(likelihood.point(p), log_mean.exp())
    extreme = likelihood(torch.tensor([[40.0, -40.0, 40.0, -40.0]], requires_grad=True))
    assert extreme.log_prob(torch.tensor([[0.0, 5.0]])).isfinite().all()
    x = torch.arange(20.0)
    plain = likelihood(torch.cat([torch.full((20,), 1.5), torch.full((20,), 40.0)]))
    expected = Poisson(torch.tensor(1.5).exp()).log_prob(x).sum()
    torch.testing.assert_close(plain.log_prob(x), expected, rtol=0.005, atol=0)

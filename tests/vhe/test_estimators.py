"""Importance-sampling estimates of homoencoders whose likelihoods are known exactly."""

import math

from common.errors import InputError
from tests.helpers.homoencoders import OF_X, A, Pc, Px, Qa, Qc, Qz, exact_log_p, model_of, posterior, sets_of
from vhe import VHE
from vhe.framework.estimators import ROWS_AT_ONCE, log_conditional, log_conditionals, log_joint

import pytest
import torch
from torch.distributions import MultivariateNormal


@pytest.fixture(autouse=True)
def large_batches(monkeypatch):
    monkeypatch.setitem(ROWS_AT_ONCE, "cpu", 10_000)


def check_unbiased(estimates, exact):
    """The mean of the weights is an unbiased estimate of p; its logarithm lies below log p."""
    ratio = (estimates - exact).exp()
    error = ratio.std().item() / math.sqrt(len(ratio))
    assert error < 0.1
    assert ratio.mean().item() == pytest.approx(1, abs=4 * error)
    assert (estimates - exact).mean() < -4 * (estimates - exact).std() / math.sqrt(len(exact))


@pytest.mark.parametrize("hierarchical", [False, True])
def test_exact_posteriors_need_one_sample(hierarchical):
    model, sets = model_of(hierarchical), sets_of(5, 4)
    torch.testing.assert_close(log_conditional(model, sets[:, 0], n_samples=1), exact_log_p(sets[:, :1], hierarchical))
    shared = {"a": 4, "c": 4} if hierarchical else {"c": 4}
    for n_samples in (1, 7):
        joint = log_joint(model, sets, shared, n_samples)
        torch.testing.assert_close(joint.value, exact_log_p(sets, hierarchical))
        torch.testing.assert_close(joint.ess, torch.full((5,), float(n_samples)).double())


@pytest.mark.parametrize("hierarchical", [False, True])
def test_other_proposals_converge_to_log_p_from_below(hierarchical):
    model, x = model_of(hierarchical, wrong=True), sets_of(1, 1)[0]
    exact = exact_log_p(x[None], hierarchical)
    check_unbiased(log_conditional(model, x.expand(4000, 3), n_samples=2), exact.expand(4000))
    torch.testing.assert_close(log_conditional(model, x, None, 40_000), exact, rtol=0, atol=0.03)


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("hierarchical", [False, True])
def test_log_p_given_a_support_set(hierarchical, wrong):
    """Exact with the posterior p(c|D), whatever the encoder of z."""
    model, sets = model_of(hierarchical), sets_of(1, 4)
    model.encoder["z"].wrong = wrong
    exact = exact_log_p(sets, hierarchical) - exact_log_p(sets[:, 1:], hierarchical)
    many = sets.expand(4000, 4, 3)
    given = dict.fromkeys(model.latents[:-1], many[:, 1:])
    check_unbiased(log_conditional(model, many[:, 0], given, n_samples=2), exact.expand(4000))
    assert exact_log_p(sets[:, :1], hierarchical) != pytest.approx(exact.item(), abs=0.1)


def test_the_encoder_given_a_support_set_is_part_of_the_model():
    """Not a proposal, so that another one has another likelihood: that of its own Gaussian."""
    model, sets = model_of(), sets_of(1, 4)
    model.encoder["c"].wrong = True
    mean, covariance = posterior(sets[:, 1:], A, OF_X)
    p = MultivariateNormal((0.8 * mean + 0.1) @ A.T, 1.5 * A @ covariance @ A.T + OF_X)
    many = sets.expand(4000, 4, 3)
    estimates = log_conditional(model, many[:, 0], {"c": many[:, 1:]}, n_samples=2)
    check_unbiased(estimates, p.log_prob(sets[:, 0]).expand(4000))


@pytest.mark.parametrize("hierarchical", [False, True])
def test_every_example_under_every_class(hierarchical):
    model, sets, x = model_of(hierarchical), sets_of(3, 5) / 2, sets_of(4, 1)[:, 0] / 2
    found = log_conditionals(model, x, dict.fromkeys(model.latents[:-1], sets), 5000)
    both = torch.cat([sets.expand(4, 3, 5, 3), x[:, None, None].expand(4, 3, 1, 3)], dim=2)
    exact = exact_log_p(both.flatten(0, 1), hierarchical).view(4, 3) - exact_log_p(sets, hierarchical)
    torch.testing.assert_close(found, exact, rtol=0, atol=0.1)
    assert (exact.max(dim=1).values - exact.min(dim=1).values).min() > 0.2


@pytest.mark.parametrize(("mixed", "n_own"), [(1, 1), (4, 1), (4, 3)])
@pytest.mark.parametrize("hierarchical", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_joint_of_sets_by_support_sets_of_some(hierarchical, mixed, n_own, k):
    model, sets = model_of(hierarchical, wrong=True), sets_of(1, 4)
    shared = dict.fromkeys(model.latents[:-1], k)
    exact = exact_log_p(sets, hierarchical).expand(3000)
    check_unbiased(log_joint(model, sets.expand(3000, 4, 3), shared, 6, mixed, n_own).value, exact)


def test_joint_of_one_is_log_p():
    sets = sets_of(4, 1)
    joint = log_joint(model_of(wrong=True), sets, {"c": 1}, 50, 1, 1)
    torch.testing.assert_close(joint.value, log_conditional(model_of(wrong=True), sets[:, 0], n_samples=50))


def test_mixtures_bound_the_weights():
    """Where the encoder is far too sure of what it saw in an image, and the images differ."""
    sets = (torch.linspace(-1, 1, 6).double()[:, None] * A[:, 0]).expand(50, 6, 3)
    below, ess = {}, {}
    for mixed in (1, 20):
        model = model_of()
        model.encoder["c"].narrow = 0.1
        estimate = log_joint(model, sets, {"c": 1}, 200, mixed, 1)
        below[mixed], ess[mixed] = (exact_log_p(sets) - estimate.value).mean(), estimate.ess.mean()
    assert ess[20] > 1.7 * ess[1]
    assert below[1] > 0.4 and below[20] < 0.05


@pytest.mark.parametrize("at_once", [1, 7, 10**6])
def test_batches_do_not_change_an_estimate(at_once, monkeypatch):
    sets, x = sets_of(3, 4), sets_of(5, 1)[:, 0]

    def estimates(at_once):
        monkeypatch.setitem(ROWS_AT_ONCE, "cpu", at_once)
        found = [log_conditional(model_of(wrong=True), x, n_samples=6)]
        found += [log_conditional(model_of(wrong=True), x[:3], {"c": sets}, 6)]
        found += [log_conditionals(model_of(wrong=True), x, {"c": sets}, 6)]
        torch.manual_seed(1)
        return [*found, *log_joint(model_of(True, wrong=True), sets, {"a": 2, "c": 2}, 6, 4, 2)]

    for found, expected in zip(estimates(at_once), estimates(10), strict=True):
        torch.testing.assert_close(found, expected)


def test_batches_are_bounded(monkeypatch):
    monkeypatch.setitem(ROWS_AT_ONCE, "cpu", 40)
    sizes = []
    model = model_of()
    model.decoder.register_forward_pre_hook(lambda _, args, kwargs: sizes.append(len(kwargs["c"])), with_kwargs=True)
    sets = sets_of(5, 4)
    log_conditional(model, sets[:, 0], n_samples=30)
    log_conditionals(model, sets[:, 0], {"c": sets}, n_samples=30)
    log_joint(model, sets, {"c": 3}, n_samples=30, n_inner=2)
    assert max(sizes) == 40 and sum(sizes) == 30 * (5 + 25 + 40)


def test_estimates_that_cannot_be_made_are_refused():
    model, x = model_of(hierarchical=True), sets_of(2, 4)
    for call, message in (
        (lambda: log_conditional(model, x[:, 0], n_samples=0), "at least one importance sample, not 0"),
        (lambda: log_conditional(model, x[:, 0], {"y": x}), "y is not a latent variable: the model has"),
        (lambda: log_conditional(model, x[:, 0], {"c": x}), "c depends on a: give that too"),
        (lambda: log_conditionals(model, x[:, 0], {}), "give support sets of a latent variable: a, c, z"),
        (lambda: log_joint(model, x, {"a": 2, "c": 5}), "support sets of c cannot have 5 of 4 examples"),
        (lambda: log_joint(model, x, {"a": 2, "c": 2}, mixture_size=0), "mixture_size and n_inner must be positive"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    model = VHE([Qa(), Qc(), Qz()], Px(), [Pc()]).double()  # whose prior of c depends on a, and whose encoder does not
    assert log_conditional(model, x[:, 0], {"c": x}, 3).isfinite().all()
    with pytest.raises(InputError, match="c depends on a: give that too"):
        log_joint(model, x, {"c": 2})

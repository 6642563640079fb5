import math
from types import SimpleNamespace

from common import estimators
from common.errors import InputError
from common.estimators import MIN_SAMPLES, ImportanceWeights, importance_estimates, log_marginal, weighted_joint
from common.execution.score import DECODED_AT_ONCE
from mnist.model import build
from tests.helpers.linear_gaussian import draw, exact_log_p, linear_gaussian
from tests.helpers.private_latents import private_linear_gaussian

import pytest
import torch


@pytest.mark.parametrize("private", [False, True])
def test_the_exact_proposal_has_no_variance(private):
    n_samples = 7
    model, weights, scales = private_linear_gaussian() if private else linear_gaussian(3)
    inputs = draw(weights, scales, 5)
    for target in [("a",), ("a", "b"), tuple(inputs)]:
        (estimate,) = importance_estimates(model, inputs, [target], target, n_samples)
        torch.testing.assert_close(estimate.value, exact_log_p(weights, scales, inputs, target))
        torch.testing.assert_close(estimate.ess, torch.full((5,), float(n_samples), dtype=torch.float64))
        torch.testing.assert_close(estimate.variance, torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(("target", "given"), [(("a",), ("a", "b")), (("a", "b"), ("a",)), (("a",), ())])
def test_other_proposals_converge_to_the_same_value(target, given, private):
    model, weights, scales = private_linear_gaussian() if private else linear_gaussian(2)
    inputs = draw(weights, scales, 4)
    value = log_marginal(model, inputs, target, given, n_samples=50_000)
    torch.testing.assert_close(value, exact_log_p(weights, scales, inputs, target), rtol=0, atol=0.15)


@pytest.mark.parametrize("at_once", [None, 1, 7])
def test_a_proposal_that_misses_the_target_is_defended(at_once):
    """The posterior given a lies far away; without the prior's share of the samples log p is thousands of nats low."""
    torch.manual_seed(0)
    model, weights, scales = linear_gaussian(2)
    inputs = draw(weights, scales, 20)
    exact = exact_log_p(weights, scales, inputs, ("b",))
    inputs["a"] = inputs["a"] + 40
    (estimate,) = importance_estimates(model, inputs, [("b",)], ("a",), 2000 if at_once is None else 200, at_once)
    errors = (estimate.value - exact) / estimate.stderr
    assert estimate.stderr.max() < (0.4 if at_once is None else 1.2) and errors.square().mean().sqrt() < 1.5
    assert estimate.variance.min() > 100, "of the posterior's own samples"


@pytest.mark.parametrize(("n_samples", "at_once"), [(10, None), (200, 1), (200, 7), (200, None)])
def test_one_sample_in_ten_is_the_priors(monkeypatch, n_samples, at_once):
    model, weights, scales = linear_gaussian(1)
    inputs, counts = draw(weights, scales, 3), []
    sample = estimators._drawn
    monkeypatch.setattr(estimators, "_drawn", lambda r, p, k, n: counts.append((k, n)) or sample(r, p, k, n))
    (estimate,) = importance_estimates(model, inputs, [("a",)], ("a",), n_samples, at_once)
    assert [sum(x) for x in zip(*counts, strict=True)] == [n_samples, n_samples // 10]
    torch.testing.assert_close(estimate.variance, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(("n_samples", "at_once"), [(10, 3), (17, None)])
def test_the_mean_weight_is_unbiased_for_any_number_of_samples(n_samples, at_once):
    model, weights, scales = linear_gaussian(2)
    inputs = {name: x.expand(4000, -1) for name, x in draw(weights, scales, 1).items()}
    errors = []
    for _ in range(10):
        value = log_marginal(model, inputs, ("a", "b"), ("a",), n_samples, at_once)
        errors.append((value - exact_log_p(weights, scales, inputs, ("a", "b"))).exp().mean() - 1)
    errors = torch.stack(errors)
    assert errors.mean().abs() < 4 * errors.std() / len(errors) ** 0.5 + 1e-3 and errors.mean().abs() < 0.05


def test_one_sample_has_no_standard_error():
    model, weights, scales = linear_gaussian(1)
    inputs = draw(weights, scales, 3)
    for n_samples in (1, 2):
        (estimate,) = importance_estimates(model, inputs, [("a",)], (), n_samples)
        assert (estimate.stderr.isnan() == (n_samples == 1)).all()


def test_samples_are_shared_among_targets():
    """With a decoder of b that ignores z, log p(a, b) - log p(a) is log p(b) for any samples, if they are the same."""
    model, weights, scales = linear_gaussian(2)
    torch.nn.init.zeros_(model.decoder["b"].weight)
    inputs = draw(weights, scales, 5)
    a, both = importance_estimates(model, inputs, [("a",), ("a", "b")], ("a", "b"), n_samples=3)
    log_p_b = model.decode(torch.zeros(5, 2, dtype=torch.float64), ["b"])["b"].log_prob(inputs["b"])
    torch.testing.assert_close(both.value - a.value, log_p_b)


def test_the_standard_error_over_examples_is_the_spread_of_their_means():
    """By samples of the prior too: examples that shared them would err together, however many they are."""
    model, weights, scales = linear_gaussian(1)
    inputs = {name: x.expand(200, -1) for name, x in draw(weights, scales, 1).items()}
    estimates = torch.stack([log_marginal(model, inputs, ("a",), (), n_samples=20) for _ in range(100)])
    stderr = (estimates.var(dim=1).mean() / 200).sqrt().item()
    assert estimates.mean(dim=1).std().item() == pytest.approx(stderr, rel=0.25)


def test_effective_sample_size_of_known_weights(monkeypatch):
    """Two samples, weights 3 to 1: (3 + 1)^2 / (9 + 1) = 1.6, log-weights log(3) apart; across chunks too."""
    model = build(SimpleNamespace(n_latents=1, model="mvae", posterior="gaussian")).double()
    model.decoder["text"] = torch.nn.Linear(1, 2, bias=False).double()
    # p(text = 0|z) of z = +-1 at weight w: sigmoid(+-w), in the ratio e^w, so w = log 3
    torch.nn.init.constant_(model.decoder["text"].weight[0], torch.log(torch.tensor(3.0)).item())
    torch.nn.init.zeros_(model.decoder["text"].weight[1])
    prior = model.prior()
    draws = iter(torch.tensor([[[1.0]], [[-1.0]]], dtype=torch.float64))
    monkeypatch.setitem(DECODED_AT_ONCE, "cpu", 1)
    monkeypatch.setattr(type(prior), "sample", lambda self, shape: torch.stack([next(draws) for _ in range(shape[0])]))
    (estimate,) = importance_estimates(model, {"text": torch.tensor([0])}, [("text",)], (), n_samples=2)
    assert estimate.ess.item() == pytest.approx(1.6)
    assert estimate.variance.item() == pytest.approx((math.log(3) / 2) ** 2)
    assert estimate.value.exp().item() == pytest.approx((0.75 + 0.25) / 2)


def test_the_variance_of_log_weights_is_that_of_all_samples():
    """Whatever the sizes of the parts they come in, and for numbers that float32 squares would lose."""
    log_w = (torch.randn(11, 3) * torch.tensor([0.1, 1.0, 10.0]) - 5e4).float()
    weights = ImportanceWeights(3, log_w.device)
    for part in log_w.split([1, 4, 6]):
        weights.add(part)
    variance = weights.estimate().variance
    torch.testing.assert_close(variance, log_w.double().var(dim=0, correction=0).float(), rtol=1e-5, atol=0)


def test_sums_of_weights_lose_none_that_are_small():
    """Half of the weights are a thousandth of the other half, which near -20,000 nats is an ulp of float32."""
    log_w = torch.full((2000, 1), -20_000.0)
    log_w[::2] += math.log(1e-3)
    weights = ImportanceWeights(1, log_w.device)
    for part in log_w.split(1):
        weights.add(part)
    expected = -20_000 + math.log((1 + 1e-3) / 2)
    assert weights.log_sum.item() - math.log(2000) == pytest.approx(expected, abs=1e-3)


def decoded(monkeypatch, model):
    """The numbers of samples and of examples, (k, R), of each call of the model's decoders."""
    shapes, original = [], type(model).decode

    def decode(self, z, modalities, given):
        shapes.append(tuple(z.shape[:2]))
        return original(self, z, modalities, given)

    monkeypatch.setattr(type(model), "decode", decode)
    return shapes


@pytest.mark.parametrize("given", [("a",), ()])
def test_memory_does_not_grow_with_the_samples(monkeypatch, given):
    model, weights, scales = linear_gaussian(2)
    monkeypatch.setitem(DECODED_AT_ONCE, "cpu", 12)
    shapes = decoded(monkeypatch, model)
    log_marginal(model, draw(weights, scales, 3), ("a",), given, n_samples=50)
    assert max(k * r for k, r in shapes) == 12 and sum(k * r for k, r in shapes) == 150


def test_with_a_tolerance_each_example_is_sampled_until_its_error_is_small(monkeypatch):
    """The posterior given a explains some b worse than others. The encoders run once; good examples end early."""
    torch.manual_seed(0)
    model, weights, scales = linear_gaussian(2)
    encoded, drawn, experts, fuse = [], [], model.experts, model.fuse
    monkeypatch.setattr(model, "experts", lambda batch: encoded.append(len(batch)) or experts(batch))
    monkeypatch.setattr(model, "fuse", lambda p, mask=None: drawn.append(p[0].shape[1]) or fuse(p, mask))
    inputs, shapes = draw(weights, scales, 40), decoded(monkeypatch, model)
    targets, exact = [("a",), ("a", "b")], exact_log_p(weights, scales, inputs, ("a", "b"))
    estimates = importance_estimates(model, inputs, targets, ("a",), 2000, at_once=50, tolerance=0.1)
    examples = [r for _, r in shapes]
    assert encoded == [40] and drawn == list(dict.fromkeys(examples)) and len(drawn) > 3
    assert examples[0] == 40 and examples == sorted(examples, reverse=True)
    assert 0.03 < (estimates[1].value - exact).square().mean().sqrt() < 0.13
    shapes.clear()
    importance_estimates(model, inputs, [("a", "b")], ("a", "b"), 1000, at_once=10, tolerance=0.1)
    assert shapes == [(10, 40)] * (MIN_SAMPLES // 10), "the exact proposal takes the fewest samples"


def test_weights_never_enter():
    model, weights, scales = linear_gaussian(2)
    model.weights = {"a": 50.0, "b": 3.0}
    inputs = draw(weights, scales, 5)
    torch.testing.assert_close(
        log_marginal(model, inputs, ("a", "b"), n_samples=5), exact_log_p(weights, scales, inputs, ("a", "b"))
    )


def test_a_target_must_be_there():
    model, weights, scales = linear_gaussian(2)
    inputs = draw(weights, scales, 5)
    inputs["a"][2] = torch.nan
    with pytest.raises(InputError, match=r"log p\(a\) needs a in every example"):
        log_marginal(model, inputs, ("a",), ("b",))
    with pytest.raises(InputError, match="at least one importance sample, not 0"):
        log_marginal(model, inputs, ("b",), n_samples=0)
    exact = exact_log_p(weights, scales, inputs, ("b",))
    torch.testing.assert_close(log_marginal(model, inputs, ("b",), n_samples=5), exact)


def test_a_targets_mask_selects_from_what_examples_have():
    model, weights, scales = linear_gaussian(2)
    inputs = draw(weights, scales, 5)
    exact = {names: exact_log_p(weights, scales, inputs, names) for names in (("a", "b"), ("b",))}
    inputs["a"][2] = torch.nan
    has = model.observe(inputs).mask
    (estimate,) = importance_estimates(model, inputs, [has], has, n_samples=1)
    rows = torch.arange(5) == 2
    torch.testing.assert_close(estimate.value, torch.where(rows, exact["b",], exact["a", "b"]))
    (estimate,) = importance_estimates(model, inputs, [has], torch.ones_like(has), n_samples=1)
    torch.testing.assert_close(estimate.value, torch.where(rows, exact["b",], exact["a", "b"]), msg="given what it has")
    with pytest.raises(InputError, match=r"name modalities in tuples: \('b',\), not 'b'"):
        importance_estimates(model, inputs, ["b"], ("b",))
    with pytest.raises(InputError, match="selects modalities that an example lacks"):
        importance_estimates(model, inputs, [torch.ones_like(has)], has, n_samples=1)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_the_joint_of_all_components_is_exact_where_the_posterior_is(at_once):
    model, weights, scales = linear_gaussian(2)
    inputs = draw(weights, scales, 5)
    value = weighted_joint(model, inputs, n_samples=7, at_once=at_once)
    torch.testing.assert_close(value, exact_log_p(weights, scales, inputs, ("a", "b")))

"""The objectives of BiVCCA and MoPoE, against formulas written out and exact likelihoods."""

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from common.data import Batch
from common.errors import InputError
from common.likelihoods import GroupedLikelihood
from common.models import VAE
from common.objectives import MmjsdElbo, MmvaeElbo
from tests.helpers.digits import BETA, LAMBDAS, certain, experts_by_hand, log_p_by_hand, mnist_inputs, model_of
from tests.helpers.fusions import components, mask_of, row, subsets_of, with_fusion
from tests.helpers.linear_gaussian import NAMES, draw, exact_log_p, expected_log_p, standard_error
from tests.helpers.objectives import gradients_agree, hooked, kl_to_prior, repeated
from tests.helpers.private_latents import private_linear_gaussian


def expected_mixture(fusion, weights, scales, inputs, pattern, lambdas, beta):
    """Closed form of MmvaeElbo's expectation for one example."""
    mean, variance = components(fusion, weights, scales, inputs, pattern)
    log_p = sum(lambdas.get(n, 1.0) * expected_log_p(weights, scales, inputs, n, mean, variance) for n in pattern)
    return (log_p - beta * kl_to_prior(mean, variance)).mean().item()


def test_mixture_is_bivccas_formula_with_both_halves():
    model = certain(model_of("bivcca"))
    inputs = mnist_inputs()
    (mu_x, var_x), (mu_y, var_y) = experts_by_hand(model, inputs).values()
    of_x = log_p_by_hand(model, mu_x, inputs) - BETA * kl_to_prior(mu_x, var_x)
    of_y = log_p_by_hand(model, mu_y, inputs) - BETA * kl_to_prior(mu_y, var_y)
    objective, mu = MmvaeElbo(model, weights=LAMBDAS), 0.5
    expected = mu * of_x + (1 - mu) * of_y
    torch.testing.assert_close(objective.bound(inputs, BETA).value, expected)
    torch.testing.assert_close(objective(inputs, BETA), -expected.mean())


def test_mixture_of_mopoe_is_the_mean_over_the_three_products():
    model = certain(model_of("mopoe"))
    inputs = mnist_inputs()
    experts = experts_by_hand(model, inputs)
    total = 0
    for subset in (("image",), ("text",), ("image", "text")):
        precision = 1 + sum(1 / experts[name][1] for name in subset)
        mean = sum(experts[name][0] / experts[name][1] for name in subset) / precision
        total = total + log_p_by_hand(model, mean, inputs) - BETA * kl_to_prior(mean, 1 / precision)
    torch.testing.assert_close(MmvaeElbo(model, weights=LAMBDAS).bound(inputs, BETA).value, total / 3)


@pytest.mark.parametrize("name", ["bivcca", "mopoe"])
def test_terms_of_a_mixture_are_unweighted_and_add_up(name):
    model = model_of(name)
    inputs = mnist_inputs()
    value, terms = MmvaeElbo(model, weights=LAMBDAS).bound(inputs, BETA)
    assert list(terms) == ["mixture/kl", "mixture/image", "mixture/text"]
    assert all(term.shape == value.shape == (5,) for term in terms.values())
    total = -BETA * terms["mixture/kl"] + sum(LAMBDAS[n] * terms[f"mixture/{n}"] for n in LAMBDAS)
    torch.testing.assert_close(value, total)
    if name == "bivcca":
        kls = [kl_to_prior(*expert) for expert in experts_by_hand(model, inputs).values()]
        torch.testing.assert_close(terms["mixture/kl"], sum(kls) / 2)


@pytest.mark.parametrize("fusion", ["moe", "mopoe", "mopoe-published"])
@pytest.mark.parametrize(
    ("n_modalities", "pattern"), [(2, ("a", "b")), (2, ("b",)), (3, ("a", "b", "c")), (3, ("a", "c")), (3, ("c",))]
)
def test_expectation_of_the_mixtures_bound(fusion, n_modalities, pattern):
    """Its closed form, over what an example has: below log p of that; and with weights and beta."""
    model, weights, scales = with_fusion(fusion, n_modalities)
    one, n = draw(weights, scales, 1), 10_000
    batch = Batch(repeated(one, n), mask_of([pattern], tuple(weights)).expand(n, -1))
    for lambdas, beta in (({}, 1.0), ({"a": 3.0, "c": 0.2}, 0.4)):
        lambdas = {name: x for name, x in lambdas.items() if name in weights}
        expected = expected_mixture(fusion, weights, scales, one, pattern, lambdas, beta)
        with torch.no_grad():
            value = MmvaeElbo(model, weights=lambdas).bound(batch, beta).value
        assert value.mean().item() == pytest.approx(expected, abs=5 * standard_error(value))
        assert standard_error(value) < 0.3, "the comparison is tight"
        if not lambdas:
            log_p = exact_log_p(weights, scales, one, pattern).item()
            if fusion == "mopoe" and len(pattern) == 1:  # the exact posterior
                assert expected == pytest.approx(log_p)
            else:
                assert expected < log_p


@pytest.mark.parametrize("name", ["bivcca", "mopoe"])
def test_a_row_of_one_modality_carries_its_unimodal_elbo_alone(name):
    model = certain(model_of(name))
    inputs = mnist_inputs(4)
    objective = MmvaeElbo(model, weights=LAMBDAS)
    value, terms = objective.bound(
        Batch(inputs, torch.tensor([[True, True], [True, False], [False, True], [False, False]])), BETA
    )
    for i, m in ((1, "image"), (2, "text")):
        mu, variance = experts_by_hand(model, row(inputs, i))[m]
        if name == "mopoe":
            mu, variance = mu / (1 + variance), variance / (1 + variance)
        log_p = model.decode(mu, [m])[m].log_prob(inputs[m][i : i + 1])
        expected = LAMBDAS[m] * log_p - BETA * kl_to_prior(mu, variance)
        torch.testing.assert_close(value[i : i + 1], expected)
        torch.testing.assert_close(terms[f"mixture/{m}"][i : i + 1], log_p)
    torch.testing.assert_close(value[:1], objective.bound(row(inputs, 0), BETA).value)
    assert value[3] == 0, "nothing is there: nothing is bound"
    assert terms["mixture/text"].nonzero().flatten().tolist() == [0, 2]
    assert terms["mixture/image"].nonzero().flatten().tolist() == [0, 1]


def test_a_mixtures_batch_without_a_single_example_of_a_modality():
    model = certain(model_of("bivcca"))
    inputs = mnist_inputs(3)
    mu, variance = experts_by_hand(model, inputs)["text"]
    expected = model.decode(mu, ["text"])["text"].log_prob(inputs["text"]) - kl_to_prior(mu, variance)
    only_text = Batch(inputs, torch.tensor([[False, True]]).expand(3, -1))
    for given in (only_text, {"text": inputs["text"]}):
        torch.testing.assert_close(MmvaeElbo(model).bound(given).value, expected)


@pytest.mark.parametrize(("name", "n_components"), [("bivcca", 2), ("mopoe", 3)])
def test_a_mixtures_networks_run_once_and_decode_what_is_scored(name, n_components):
    model = model_of(name)
    counts = {(kind, m): hooked(getattr(model, kind)[m]) for kind in ("encoder", "decoder") for m in model.modalities}
    MmvaeElbo(model)(mnist_inputs(5))
    assert all(rows == [5 if kind == "encoder" else 5 * n_components] for (kind, _), rows in counts.items())
    for rows in counts.values():
        rows.clear()
    MmvaeElbo(model)(Batch(mnist_inputs(3), torch.tensor([[True, True], [True, False], [True, False]])))
    assert counts == {
        ("encoder", "image"): [3],
        ("encoder", "text"): [1],
        ("decoder", "image"): [n_components + 2],
        ("decoder", "text"): [n_components],
    }


@pytest.mark.parametrize("fusion", ["moe", "mopoe", "mopoe-published"])
@pytest.mark.parametrize("draw_one", [False, True])
def test_gradient_of_the_mixtures_loss_against_finite_differences(fusion, draw_one):
    model, weights, scales = with_fusion(fusion)
    inputs = draw(weights, scales, 3)
    inputs["b"][0] = torch.nan
    assert gradients_agree(MmvaeElbo(model, weights={"a": 2.0}, draw_one=draw_one), inputs)


# one component drawn for each example


@pytest.mark.parametrize("fusion", ["mopoe", "mopoe-published"])
@pytest.mark.parametrize("pattern", [("a", "b", "c"), ("a", "c"), ()])
def test_one_drawn_component_has_the_mixtures_bound_in_expectation(fusion, pattern):
    model, weights, scales = with_fusion(fusion, 3)
    one, n = draw(weights, scales, 1), 20_000
    batch = Batch(repeated(one, n), mask_of([pattern]).expand(n, -1))
    expected = expected_mixture(fusion, weights, scales, one, pattern, {"a": 3.0}, 0.4) if pattern else 0
    with torch.no_grad():
        value, terms = MmvaeElbo(model, weights={"a": 3.0}, draw_one=True).bound(batch, 0.4)
    assert value.mean().item() == pytest.approx(expected, abs=5 * standard_error(value))
    if pattern:
        kls = kl_to_prior(*components(fusion, weights, scales, one, pattern))
        torch.testing.assert_close(terms["mixture/kl"], kls.mean().expand(n))
        drawn = terms["mixture/a"].detach()
        assert drawn.std() > 1.5 * MmvaeElbo(model).bound(batch).terms["mixture/a"].std(), (
            "examples differ in components"
        )


def test_one_drawn_component_is_all_that_is_decoded():
    model = model_of("mopoe")
    rows = {name: hooked(network) for name, network in model.decoder.items()}
    MmvaeElbo(model, draw_one=True)(mnist_inputs(5))
    assert rows == {"image": [5], "text": [5]}


def test_published_mopoe_multiplies_the_prior_into_the_full_product_alone():
    model, weights, scales = with_fusion("mopoe-published", 3)
    inputs = draw(weights, scales, 2)
    patterns = [("a", "b", "c"), ("a", "c")]
    q = model.fuse(model.experts(model.observe(inputs)), mask_of(patterns))
    order = [("a",), ("b",), ("a", "b"), ("c",), ("a", "c"), ("b", "c"), ("a", "b", "c")]
    assert set(order) == set(subsets_of(NAMES[:3]))
    for i, pattern in enumerate(patterns):
        share = q.mixture_distribution.probs[i]
        products = [(subset, t) for t, subset in enumerate(order) if set(subset) <= set(pattern)]
        assert share.nonzero().flatten().tolist() == [t for _, t in products]
        for subset, t in products:
            precision = sum(weights[name].T @ weights[name] / scales[name] ** 2 for name in subset)
            precision = precision + (torch.eye(2) if subset == ("a", "b", "c") else 0)
            mean = sum(inputs[name][i] @ weights[name] / scales[name] ** 2 for name in subset)
            part = q.component_distribution
            torch.testing.assert_close(part.variance[i, t], 1 / precision.diag())
            torch.testing.assert_close(part.mean[i, t], mean / precision.diag())


# mmJSD


def expected_mmjsd(weights, scales, inputs, pattern, lambdas, beta):
    """The objective's expectation for one example, and what it bounds: log of the mean of p(X|z) over f(z|X)."""
    mean, variance = components("moe", weights, scales, inputs, pattern)
    mean, variance = (torch.cat([prior, x]) for prior, x in ((torch.zeros(1, 2), mean), (torch.ones(1, 2), variance)))
    precision = (1 / variance).mean(dim=0)
    f = Normal((mean / variance).mean(dim=0) / precision, precision.rsqrt())
    kls = kl_divergence(Normal(mean, variance.sqrt()), f).sum(dim=-1)
    log_p = sum(lambdas.get(n, 1.0) * expected_log_p(weights, scales, inputs, n, mean, variance) for n in pattern)
    w, x = torch.cat([weights[n] for n in pattern]), torch.cat([inputs[n] for n in pattern], dim=1)
    noise = torch.cat([torch.full((len(weights[n]),), scales[n] ** 2, dtype=torch.float64) for n in pattern]).diag()
    evidence = MultivariateNormal(w @ f.mean, (w * f.variance) @ w.T + noise).log_prob(x).item()
    return (log_p - beta * kls).mean().item(), evidence


@pytest.mark.parametrize("pattern", [("a", "b", "c"), ("a", "c"), ("b",)])
def test_mmjsd_in_expectation_and_what_it_bounds(pattern):
    model, weights, scales = with_fusion("moe", 3)
    one, n = draw(weights, scales, 1), 20_000
    batch = Batch(repeated(one, n), mask_of([pattern]).expand(n, -1))
    for lambdas, beta in (({}, 1.0), ({"a": 3.0, "c": 0.2}, 0.4)):
        expected, evidence = expected_mmjsd(weights, scales, one, pattern, lambdas, beta)
        with torch.no_grad():
            value = MmjsdElbo(model, weights=lambdas).bound(batch, beta).value
        assert value.mean().item() == pytest.approx(expected, abs=5 * standard_error(value))
        if not lambdas:
            assert expected < evidence


def test_mmjsds_terms_have_the_same_names_whatever_is_given():
    model, weights, scales = with_fusion("moe", 3)
    inputs = draw(weights, scales, 4)
    bound = MmjsdElbo(model).bound({name: inputs[name] for name in ("a", "c")})
    assert list(bound.terms) == list(MmjsdElbo(model).bound(inputs).terms)
    assert bound.terms["mixture/b"].eq(0).all() and bound.terms["mixture/a"].ne(0).all()


def test_mmjsd_bounds_no_log_p():
    """Far from the prior the geometric mean lies nearer to the data: the expectation is above log p(X)."""
    _, weights, scales = with_fusion("moe")
    scales = dict.fromkeys(scales, 2.4)
    far = {name: w @ torch.tensor([30.0, 0.0], dtype=torch.float64) for name, w in weights.items()}
    far = {name: x[None] for name, x in far.items()}
    expected, evidence = expected_mmjsd(weights, scales, far, ("a", "b"), {}, 1.0)
    assert exact_log_p(weights, scales, far, ("a", "b")).item() + 4 < expected < evidence


def test_mmjsd_refuses_other_experts():
    model, *_ = private_linear_gaussian("moe")
    with pytest.raises(InputError, match="mmJSD needs Gaussian experts and prior, and no private latents"):
        MmjsdElbo(model)
    likelihood = GroupedLikelihood(a=nn.Module(), b=nn.Module())
    laplace = VAE("moe", *({"a": nn.Linear(2, 2)} for _ in range(2)), likelihood, 2, posterior="laplace")
    with pytest.raises(InputError, match="mmJSD needs Gaussian experts"):
        MmjsdElbo(laplace)
    product = VAE("poe", *({"a": nn.Linear(2, 2)} for _ in range(2)), likelihood, 2)
    with pytest.raises(InputError, match='MmjsdElbo needs a mixture as posterior: VAE."moe", ...'):
        MmjsdElbo(product)


def test_gradient_of_mmjsds_loss_against_finite_differences():
    model, weights, scales = with_fusion("moe")
    inputs = draw(weights, scales, 3)
    inputs["b"][0] = torch.nan
    assert gradients_agree(MmjsdElbo(model, weights={"a": 2.0}), inputs)

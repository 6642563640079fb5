"""The objectives of BiVCCA and MoPoE, against formulas written out and exact likelihoods."""

import pytest
import torch
from torch.distributions import Normal

from common.data import Batch
from common.objectives import MmvaeElbo
from tests.helpers.digits import BETA, LAMBDAS, certain, experts_by_hand, log_p_by_hand, mnist_inputs, model_of
from tests.helpers.fusions import components, mask_of, row, with_fusion
from tests.helpers.linear_gaussian import draw, exact_log_p, standard_error
from tests.helpers.objectives import gradients_agree, hooked, kl_to_prior, repeated


def expected_log_p(weights, scales, inputs, name, mean, variance):
    """E log p(x_m|z) over z ~ N(mean, variance), (B, D), on the linear-Gaussian model."""
    at_mean = Normal(mean @ weights[name].T, scales[name]).log_prob(inputs[name]).sum(dim=-1)
    return at_mean - 0.5 * (variance * weights[name].square().sum(dim=0)).sum(dim=-1) / scales[name] ** 2


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


@pytest.mark.parametrize("fusion", ["moe", "mopoe"])
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


@pytest.mark.parametrize("fusion", ["moe", "mopoe"])
def test_gradient_of_the_mixtures_loss_against_finite_differences(fusion):
    model, weights, scales = with_fusion(fusion)
    inputs = draw(weights, scales, 3)
    inputs["b"][0] = torch.nan
    assert gradients_agree(MmvaeElbo(model, weights={"a": 2.0}), inputs)

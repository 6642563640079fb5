"""DMVAE's and TELBO's sums of ELBOs, against exact posteriors and formulas written out."""

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from common.data import Batch, Examples
from common.data.splits import unpair
from common.errors import InputError
from common.objectives import DmvaeElbo, MvaeElbo, TelboElbo
from tests.helpers.fusions import mask_of, with_fusion
from tests.helpers.linear_gaussian import D, draw, exact_log_p, exact_posterior, expected_log_p, standard_error
from tests.helpers.objectives import gradients_agree, hooked, kl_to_prior, repeated
from tests.helpers.private_latents import N_SHARED, PLACES, private_linear_gaussian

NAMES = ("a", "b", "c")


def expected_dmvae(matrices, scales, inputs, pattern, lambdas, beta):
    """The expectations of DMVAE's terms for one example, {S: number}: u by q(u|x_S), each w_m by q(w_m|x_m)."""
    subsets = {name: (name,) for name in pattern} | ({"joint": pattern} if len(pattern) > 1 else {})
    terms = {}
    for called, subset in subsets.items():
        mean, variance = exact_posterior(matrices, scales, inputs, subset)
        mean, variance = mean.clone(), variance.clone()
        for name in pattern:
            own_mean, own_variance = exact_posterior(matrices, scales, inputs, (name,))
            mean[:, PLACES[name]], variance[:, PLACES[name]] = own_mean[:, PLACES[name]], own_variance[:, PLACES[name]]
        log_p = sum(
            lambdas.get(n, 1.0) * expected_log_p(matrices, scales, inputs, n, mean, variance).item() for n in pattern
        )
        terms[called] = log_p - beta * kl_to_prior(mean, variance).item()
    return terms


@pytest.mark.parametrize("pattern", [NAMES, ("a", "b"), ("c", "b"), ("b",)])
def test_dmvaes_terms_in_expectation_each_bounds_log_p(pattern):
    model, matrices, scales = private_linear_gaussian()
    one, n = draw(matrices, scales, 1), 20_000
    mask = torch.tensor([[name in pattern for name in NAMES]]).expand(n, -1)
    pattern = tuple(name for name in NAMES if name in pattern)
    for lambdas, beta in (({}, 1.0), ({"a": 3.0, "c": 0.2}, 0.4)):
        expected = expected_dmvae(matrices, scales, one, pattern, lambdas, beta)
        with torch.no_grad():
            value, terms = DmvaeElbo(model, lambdas).bound(Batch(repeated(one, n), mask), beta)
        assert value.mean().item() == pytest.approx(sum(expected.values()), abs=5 * standard_error(value))
        assert {name.split("/")[0] for name, x in terms.items() if x.any()} == set(expected)
        if not lambdas:
            log_p = exact_log_p(matrices, scales, one, pattern).item()
            assert all(elbo < log_p + 1e-9 for elbo in expected.values())
            if len(pattern) > 1:
                assert expected["joint"] == pytest.approx(log_p), "the exact posterior"


def test_dmvae_without_a_mask_is_that_of_complete_examples():
    model, matrices, scales = private_linear_gaussian()
    inputs = draw(matrices, scales, 4)
    values = []
    for mask in (None, torch.ones(4, 3, dtype=torch.bool)):
        torch.manual_seed(0)
        values.append(DmvaeElbo(model).bound(Batch(inputs, mask), 0.5).value)
    torch.testing.assert_close(*values)


def test_dmvae_runs_each_encoder_once_and_decodes_all_terms_at_once():
    model, matrices, scales = private_linear_gaussian()
    calls = [(hooked(model.encoder[name]), hooked(model.decoder[name])) for name in NAMES]
    DmvaeElbo(model)(draw(matrices, scales, 5))
    assert calls == [([5], [20])] * 3


def test_private_codes_are_encoded_in_every_term():
    """Moving a's own code changes how all terms score a: none takes it from the prior."""
    model, matrices, scales = private_linear_gaussian()
    inputs = repeated(draw(matrices, scales, 1), 2000)
    _, before = DmvaeElbo(model).bound(inputs)
    with torch.no_grad():
        model.encoder["a"].private.mean += 1
    _, after = DmvaeElbo(model).bound(inputs)
    for subset in (*NAMES, "joint"):
        assert after[f"{subset}/a"].mean() < before[f"{subset}/a"].mean() - 1
        torch.testing.assert_close(after[f"{subset}/b"].mean(), before[f"{subset}/b"].mean(), rtol=0, atol=0.5)
    assert model.latent_dim == N_SHARED + 3


def test_pairs_among_unpaired_examples_keep_all_their_terms():
    """A pair's row has every term; the rows of unpaired examples have that of their modality alone."""
    model, weights, scales = with_fusion("poe")
    inputs = draw(weights, scales, 8)
    objective = DmvaeElbo(model)
    rows = unpair(Examples(inputs), 0.5, seed=0, unimodal=objective.unimodal)[:]
    _, terms = objective.bound(rows)
    paired = rows.joint_only
    n_pairs = int((rows.mask.all(dim=1)).sum())
    for name in ("a/b", "b/a", "joint/a", "joint/b"):
        assert terms[name][paired].ne(0).all() and not terms[name][~paired].any(), name
    for name in ("a/a", "b/b"):
        assert terms[name].ne(0).sum() == n_pairs + 4, "four unpaired examples, each modality in a row of its own"


def test_gradient_of_dmvaes_loss_against_finite_differences():
    model, matrices, scales = private_linear_gaussian(names=("a", "b"))
    inputs = draw(matrices, scales, 3)
    inputs["b"][0], inputs["a"][1] = torch.nan, torch.nan
    assert gradients_agree(DmvaeElbo(model, weights={"a": 2.0}), inputs)


# TELBO


@pytest.mark.parametrize("private", [False, True])
def test_telbo_at_the_exact_posteriors_is_the_sum_of_log_p(private):
    model, weights, scales = private_linear_gaussian(names=("a", "b")) if private else with_fusion("own")
    one = draw(weights, scales, 1)
    with torch.no_grad():
        value, terms = TelboElbo(model).bound(repeated(one, 20_000))
    expected = sum(exact_log_p(weights, scales, one, s).item() for s in (("a",), ("b",), ("a", "b")))
    assert value.mean().item() == pytest.approx(expected, abs=5 * standard_error(value))
    assert standard_error(value) < 0.03, "the comparison is tight"
    assert set(terms) == {"a/kl", "b/kl", "joint/kl", "a/a", "b/b", "joint/a", "joint/b"}


def test_telbo_of_other_posteriors_is_less_by_their_kls():
    model, weights, scales = with_fusion("own")
    with torch.no_grad():
        for encoder in model.encoder.values():
            encoder.log_precision.add_(0.5 * torch.randn(D))
    one, subsets = draw(weights, scales, 1), (("a",), ("b",), ("a", "b"))
    with torch.no_grad():
        value = TelboElbo(model).bound(repeated(one, 20_000)).value
        gap = 0
        for subset in subsets:
            q = model.posterior({name: one[name] for name in subset})
            mean, variance = exact_posterior(weights, scales, one, subset)
            gap += kl_divergence(q, Independent(Normal(mean, variance.sqrt()), 1)).item()
    expected = sum(exact_log_p(weights, scales, one, s).item() for s in subsets) - gap
    assert gap > 0.1 and value.mean().item() == pytest.approx(expected, abs=5 * standard_error(value))


def test_telbo_trains_the_decoders_by_the_joint_elbo_alone():
    """Encoders have the gradients of the sum of all ELBOs, decoders those of the joint one."""
    model, weights, scales = with_fusion("own")
    with torch.no_grad():  # posteriors that are off, where gradients are large
        for encoder in model.encoder.values():
            encoder.log_precision.add_(torch.randn(D))
    inputs = draw(weights, scales, 4)

    def gradients(objective, joint_only=False):
        torch.manual_seed(0)
        model.zero_grad()
        value, terms = objective.bound(inputs, 0.5)
        loss = -(terms["joint/a"] + terms["joint/b"]).mean() if joint_only else -value.mean()
        loss.backward()
        return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}

    telbo, mvae, joint = gradients(TelboElbo(model)), gradients(MvaeElbo(model)), gradients(MvaeElbo(model), True)
    for name, gradient in telbo.items():
        torch.testing.assert_close(gradient, (joint if name.startswith("decoder") else mvae)[name], msg=name)
        assert name.startswith("encoder") or not gradient.allclose(mvae[name]), "the singles would have counted"
    assert all(p.requires_grad for p in model.parameters())


def test_gradient_of_telbos_loss_by_the_encoders_against_finite_differences():
    model, weights, scales = with_fusion("own")
    assert gradients_agree(TelboElbo(model, weights={"a": 2.0}), draw(weights, scales, 3), "encoder")


def test_batch_norm_keeps_the_statistics_of_the_joint_term():
    model, weights, scales = with_fusion("own")
    linear, norm = model.decoder["a"], nn.BatchNorm1d(3, dtype=torch.float64)
    model.decoder["a"] = nn.Sequential(linear, norm)
    inputs, objective = draw(weights, scales, 50), TelboElbo(model).train()
    torch.manual_seed(0)
    objective(inputs)
    batch = model.observe(inputs)
    terms = objective.terms(batch)
    torch.manual_seed(0)
    q = objective.posteriors(model.experts(batch), terms)
    z = q.rsample((1,))[0, terms.names.index("joint")]
    torch.testing.assert_close(norm.running_mean, 0.1 * linear(z).mean(dim=0))
    assert norm.momentum == 0.1


def test_telbo_refuses_incomplete_examples():
    model, weights, scales = with_fusion("own")
    inputs = draw(weights, scales, 2)
    for batch in (Batch(inputs, mask_of([("a", "b"), ("a",)], ("a", "b"))), {"a": inputs["a"]}):
        with pytest.raises(InputError, match="TelboElbo needs every modality of every example"):
            TelboElbo(model).bound(batch)

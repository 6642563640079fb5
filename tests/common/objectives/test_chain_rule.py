"""The AR-ELBO against exact likelihoods and written out."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

from common.encoders_decoders import SplitLinearLayer
from common.errors import InputError
from common.models import VAE
from common.objectives import ArElbo
from common.variational_strategies import SetStrategy
from tests.helpers.digits import model_of
from tests.helpers.fusions import row, with_fusion
from tests.helpers.linear_gaussian import D, draw, exact_log_p, linear_gaussian, standard_error
from tests.helpers.objectives import gradients_agree, repeated


def test_ar_is_the_chain_rule_where_the_posteriors_are_exact():
    """In any order, and of what an example has."""
    model, weights, scales = linear_gaussian(3)
    inputs = draw(weights, scales, 3)
    inputs["a"][1], inputs["b"][2], inputs["c"][2] = torch.nan, torch.nan, torch.nan
    with torch.no_grad():
        value, terms = ArElbo(model).bound({name: x.repeat(8000, 1) for name, x in inputs.items()})
    value = value.view(8000, 3)
    for i, present in enumerate([("a", "b", "c"), ("b", "c"), ("a",)]):
        exact = exact_log_p(weights, scales, row(inputs, i), present).item()
        assert value[:, i].mean().item() == pytest.approx(exact, abs=5 * standard_error(value[:, i]))
        assert standard_error(value[:, i]) < 0.05, "the comparison is tight"
    assert (terms["ar/a"].view(8000, 3)[:, 1] == 0).all()


def test_ar_in_either_order_written_out():
    """Posteriors off the exact ones, weights and beta."""
    model, weights, scales = with_fusion("quotient")
    for expert in model.encoder.values():
        expert.log_precision.data -= 0.7
    inputs, lambdas, beta, n = draw(weights, scales, 1), {"a": 0.5, "b": 2.0}, 0.3, 20_000
    many = repeated(inputs, n)
    with torch.no_grad():
        found = ArElbo(model, lambdas).bound(many, beta).value
        q = {given: model.posterior(many, given) for given in (("a",), ("b",), ("a", "b"))}

        def term(name, given):
            return lambdas[name] * model.decode(q[given].sample())[name].log_prob(many[name])

        orders = []
        for first, second in (("a", "b"), ("b", "a")):
            kl = kl_divergence(q[first,], model.prior()) + kl_divergence(q["a", "b"], q[first,])
            orders.append(term(first, (first,)) + term(second, ("a", "b")) - beta * kl)
        expected = sum(orders) / 2
    noise = math.hypot(standard_error(found), standard_error(expected))
    assert found.mean().item() == pytest.approx(expected.mean().item(), abs=5 * noise)
    assert noise < 0.05 * abs(orders[0].mean() - orders[1].mean()), "the comparison tells one order from both"


def test_ar_of_one_modality_is_its_elbo_and_what_is_left_out_adds_nothing():
    model, weights, scales = linear_gaussian(2)
    a = {"a": draw(weights, scales, 4)["a"]}
    value, terms = ArElbo(model, {"a": 2.0}).bound(a, beta=0.3)
    torch.testing.assert_close(value, 2 * terms["ar/a"] - 0.3 * terms["ar/kl"])
    torch.testing.assert_close(terms["ar/kl"], kl_divergence(model.posterior(a), model.prior()))
    assert (terms["ar/b"] == 0).all()


class Encoding(nn.Module):
    """An expert's parameters as the encoding of its modality, (N, 2 D), which a set encoder adds to others."""

    def __init__(self, expert):
        super().__init__()
        self.expert = expert

    def forward(self, x):
        return (torch.cat(self.expert(x), dim=-1),)


@pytest.mark.parametrize("fusion", ["product", "set"])
def test_the_chain_starts_from_a_learned_prior_at_the_first_modality_that_an_example_has(fusion):
    model, weights, scales = linear_gaussian(2)
    strategy = SetStrategy(SplitLinearLayer(2 * D, (D, D))) if fusion == "set" else fusion
    encoder = {name: Encoding(network) if fusion == "set" else network for name, network in model.encoder.items()}
    model = VAE(strategy, encoder, dict(model.decoder), model.likelihood, latent_dim=D, learn_prior=True).double()
    nn.init.constant_(model.prior.scale, 1.5)
    a, b = draw(weights, scales, 3).values()
    a[1:], b[2] = torch.nan, torch.nan  # both, b alone, nothing
    inputs = {name: x.repeat(100, 1) for name, x in (("a", a), ("b", b))}
    value, terms = ArElbo(model).bound(inputs)
    q = {
        given: model.posterior({name: x[:1] for name, x in inputs.items()}, tuple(given)) for given in ("a", "b", "ab")
    }
    orders = [kl_divergence(q[x], model.prior()) + kl_divergence(q["ab"], q[x]) for x in "ab"]
    both, alone, nothing = terms["ar/kl"].view(100, 3).T
    torch.testing.assert_close(both.unique(), torch.cat(orders).sort().values)
    of_b = kl_divergence(model.posterior({"b": b[1:2]}), model.prior())
    torch.testing.assert_close(alone, of_b.expand(100))
    assert (nothing == 0).all() and (value.view(100, 3)[:, 2] == 0).all()


def test_ars_gradient_against_finite_differences():
    model, weights, scales = with_fusion("quotient")
    assert gradients_agree(ArElbo(model), draw(weights, scales, 2))


def test_ar_of_mixtures_is_refused():
    with pytest.raises(InputError, match="have no KLs in closed form"):
        ArElbo(model_of("bivcca"))


def test_ar_needs_a_posterior_of_every_subset():
    model, weights, scales = with_fusion("own", 3)
    assert ArElbo(model).bound(draw(weights, scales, 2)).value.isfinite().all()
    encoder = {name: network for name, network in model.encoder.items() if name != "a,b"}
    lacking = VAE("own", encoder, dict(model.decoder), model.likelihood, latent_dim=D)
    with pytest.raises(InputError, match="the chain rule needs a posterior of every subset"):
        ArElbo(lacking)

"""IWAE, STL and DReG: bounds against exact log-likelihoods, gradients against each other, a grid, and closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Laplace

from common.data import Batch
from common.errors import InputError
from common.models import MultimodalVAE
from common.objectives import DregElbo, IwaeElbo, MixtureElbo, StlElbo
from common.priors import LearnedPrior
from common.variational_posteriors import MixturePosterior, SoftmaxLaplacePosterior, component_log_probs
from common.variational_strategies import MoeStrategy
from tests.linear_gaussian import D, draw, exact_log_p, linear_gaussian, standard_error
from tests.test_fusions import with_fusion

GRADIENTS = ("exact", "stop-all", "published")


def laplace(n_modalities):
    """The linear-Gaussian model with a mixture of Laplace posteriors and a learned Laplace prior."""
    model, weights, scales = linear_gaussian(n_modalities)
    model = MultimodalVAE(
        encoder=dict(model.encoder),
        variational_strategy=MoeStrategy(),
        variational_posterior=MixturePosterior(SoftmaxLaplacePosterior()),
        decoder=dict(model.decoder),
        likelihood=model.likelihood,
        prior=LearnedPrior(SoftmaxLaplacePosterior(eta=0), D),
    )
    return model.double(), weights, scales


def gradients(objective, inputs, n_chunks=100, n_rows=400):
    """Gradients of the loss in independent chunks of one example's copies: (chunks, parameters)."""
    copies = {name: x.expand(n_rows, -1) for name, x in inputs.items()}
    rows = []
    for _ in range(n_chunks):
        objective.zero_grad()
        objective(copies).backward()
        rows.append(torch.cat([p.grad.flatten() for p in objective.parameters()]))
    return torch.stack(rows)


def z_scores(a, b):
    error = ((a.var(dim=0) + b.var(dim=0)) / len(a)).sqrt()
    return (a.mean(dim=0) - b.mean(dim=0)).abs() / error.clamp(min=1e-12)


@pytest.mark.parametrize("objective", [IwaeElbo, StlElbo, DregElbo])
@pytest.mark.parametrize("looser", [False, True])
@pytest.mark.parametrize("n_modalities", [1, 3])
def test_the_bound_is_log_p_where_the_posterior_is_exact(objective, looser, n_modalities):
    """Products of exact experts: every importance weight is p(x) itself, whatever the samples."""
    model, weights, scales = linear_gaussian(n_modalities)
    inputs = draw(weights, scales, 5)
    _, bound = objective(model, K=3, looser=looser).loss(inputs)
    torch.testing.assert_close(bound.value, exact_log_p(weights, scales, inputs, tuple(inputs)))


@pytest.mark.parametrize("present", [("a", "b", "c"), ("a", "c"), ("b",)])
def test_the_tight_bound_of_a_mixture_nears_log_p_and_the_looser_lies_below(present):
    model, weights, scales = with_fusion("moe", 3)
    inputs = {name: x.expand(400, -1) for name, x in draw(weights, scales, 1).items()}
    inputs = {name: x if name in present else torch.full_like(x, torch.nan) for name, x in inputs.items()}
    exact = exact_log_p(weights, scales, inputs, present)[0].item()
    with torch.no_grad():
        tight = {K: IwaeElbo(model, K).bound(inputs).value for K in (1, 10, 500)}
        looser = {K: IwaeElbo(model, K, looser=True).bound(inputs).value for K in (1, 10, 500)}
    assert tight[500].mean().item() == pytest.approx(exact, abs=0.02 + 5 * standard_error(tight[500]))
    assert tight[1].mean() < tight[10].mean() < exact + 5 * standard_error(tight[10])
    for K in (1, 10):
        below = (tight[K] - looser[K]).mean().item()
        noise = math.hypot(standard_error(tight[K]), standard_error(looser[K]))
        assert below > 5 * noise if len(present) > 1 else abs(below) < 5 * noise


def test_weights_and_beta_in_the_importance_weights():
    """Written out, with the same samples."""
    model, weights, scales = laplace(2)
    inputs, lambdas, beta = draw(weights, scales, 4), {"a": 0.5, "b": 3.0}, 0.3
    torch.manual_seed(0)
    value, terms = IwaeElbo(model, K=5, weights=lambdas).bound(inputs, beta)
    torch.manual_seed(0)
    q = model.posterior(inputs)
    z = q.component_distribution.rsample((5,))  # (K, B, T, D)
    log_w = beta * (model.prior().log_prob(z) - q.log_prob(z.movedim(2, 0)).movedim(0, 2))
    for name, x in inputs.items():
        log_w = log_w + lambdas[name] * model.decode(z)[name].log_prob(x[:, None])
    torch.testing.assert_close(value, log_w.exp().mean(dim=(0, 2)).log())
    assert set(terms) == {"joint/kl", "joint/a", "joint/b"}


def test_density_of_a_mixture_against_brute_force():
    model, weights, scales = laplace(3)
    inputs = draw(weights, scales, 4)
    q, z = model.posterior(inputs), torch.randn(6, 4, D, dtype=torch.float64)
    loc, a = model.encode(Batch(inputs))
    scale = a.softmax(dim=-1) * D + 1e-6
    densities = [Laplace(loc[m], scale[m]).log_prob(z).sum(dim=-1).exp() for m in range(3)]
    expected = (sum(densities) / 3).log()
    torch.testing.assert_close(q.log_prob(z), expected)
    torch.testing.assert_close(component_log_probs(q, z).logsumexp(dim=-1), expected)
    torch.testing.assert_close(scale.sum(dim=-1), torch.full((3, 4), D + D * 1e-6, dtype=torch.float64))


@pytest.mark.parametrize("looser", [False, True])
@pytest.mark.parametrize("n_modalities", [1, 2, 3])
@pytest.mark.parametrize("family", ["laplace", "gaussian"])
def test_exact_dreg_has_iwaes_gradient_in_expectation(family, n_modalities, looser):
    """And the rules that leave out the mixture's parameters have not, nor the published one of one encoder."""
    torch.manual_seed(0)
    model, weights, scales = laplace(n_modalities) if family == "laplace" else with_fusion("moe", n_modalities)
    inputs = draw(weights, scales, 1)
    iwae = gradients(IwaeElbo(model, K=4, looser=looser), inputs)
    for rule in GRADIENTS if family == "gaussian" else ["exact"]:
        dreg = gradients(DregElbo(model, K=4, looser=looser, gradient=rule), inputs)
        worst = z_scores(iwae, dreg).max().item()
        if rule == "exact" or (rule == "stop-all" and n_modalities == 1):
            assert worst < 4.5, rule
        else:
            assert worst > 8, rule


def test_rules_agree_where_there_is_one_encoder():
    """Not only in expectation: of one component r is 1."""
    model, weights, scales = laplace(1)
    inputs, results = draw(weights, scales, 5), []
    for rule in ("exact", "stop-all"):
        torch.manual_seed(0)
        objective = DregElbo(model, K=6, gradient=rule)
        objective.zero_grad()
        objective(inputs).backward()
        results.append([p.grad.clone() for p in objective.parameters()])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("objective", [DregElbo, StlElbo])
def test_the_encoder_learns_nothing_more_from_exact_posteriors(objective):
    """All weights are equal, and log w is flat in z: the gradient has no noise at all, where IWAE's has."""
    model, weights, scales = linear_gaussian(2)
    inputs = draw(weights, scales, 3)
    objective(model, K=4)(inputs).backward()
    for parameter in model.encoder.parameters():
        assert parameter.grad.abs().max() < 1e-9
    model.zero_grad()
    IwaeElbo(model, K=4)(inputs).backward()
    assert all(parameter.grad.abs().max() > 1e-3 for parameter in model.encoder.parameters())


@pytest.mark.parametrize("objective", [IwaeElbo, StlElbo, DregElbo])
def test_gradients_of_one_sample_against_a_grid(objective):
    """K = 1, looser: sum_t pi_t E_q_t [log p(X, z) - log q(z|X)], integrated over the plane."""
    torch.manual_seed(0)
    model, weights, scales = with_fusion("moe", 2)
    inputs = draw(weights, scales, 1)
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)  # (N, D)
    q = model.posterior(inputs)
    log_q = q.log_prob(z[:, None])[:, 0]
    log_p = model.prior().log_prob(z) + sum(model.decode(z)[name].log_prob(x) for name, x in inputs.items())
    value = (log_q.exp() * (log_p - log_q)).sum() * (axis[1] - axis[0]) ** 2
    (-value).backward()
    exact = torch.cat([p.grad.flatten() for p in model.parameters()])
    estimate = gradients(objective(model, K=1, looser=True), inputs)
    error = (estimate.std(dim=0) / math.sqrt(len(estimate))).clamp(min=1e-6)
    assert ((estimate.mean(dim=0) - exact).abs() / error).max() < 4.5
    assert (error / exact.abs().max()).max() < 0.05, "the comparison is tight"


def test_dreg_has_less_variance_than_iwae():
    torch.manual_seed(0)
    model, weights, scales = with_fusion("moe", 2)
    inputs = draw(weights, scales, 1)
    spread = [gradients(o(model, K=64, looser=True), inputs, 100, 20).var(dim=0) for o in (IwaeElbo, DregElbo)]
    encoders = sum(p.numel() for p in model.encoder.parameters())
    assert spread[1][:encoders].sum() < 0.5 * spread[0][:encoders].sum()


@pytest.mark.parametrize("objective", [IwaeElbo, StlElbo, DregElbo])
def test_absent_modalities_are_left_out_of_the_mixture_in_one_batch(objective):
    """Rows with each pattern of absence give what they give alone; a batch of one is as good as any."""
    model, weights, scales = laplace(3)
    inputs = draw(weights, scales, 3)
    inputs["a"][0] = inputs["b"][1] = inputs["c"][1] = torch.nan
    for looser in (False, True):
        loss, bound = objective(model, K=2000, looser=looser).loss(inputs)
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
        for i, present in enumerate([("b", "c"), ("a",), ("a", "b", "c")]):
            alone = {name: inputs[name][i : i + 1] for name in present}
            value = objective(model, K=2000, looser=looser).bound(alone).value
            assert value.item() == pytest.approx(bound.value[i].item(), abs=0.2)
        assert bound.terms["joint/a"][0] == 0 and bound.terms["joint/a"][1] != 0


def test_nothing_is_learned_from_what_is_absent():
    model, weights, scales = laplace(2)
    inputs = draw(weights, scales, 4)
    DregElbo(model, K=5)({"a": inputs["a"], "b": torch.full_like(inputs["b"], torch.nan)}).backward()
    for part in (model.encoder, model.decoder):
        assert all(p.grad is None or (p.grad == 0).all() for p in part["b"].parameters())
        assert all((p.grad != 0).any() for p in part["a"].parameters())


def test_the_mixtures_elbo_lies_below_the_importance_weighted_ones():
    model, weights, scales = with_fusion("moe", 2)
    inputs = {name: x.expand(30_000, -1) for name, x in draw(weights, scales, 1).items()}
    with torch.no_grad():
        elbo, looser = MixtureElbo(model).bound(inputs).value, IwaeElbo(model, K=1, looser=True).bound(inputs).value
    assert looser.mean() - elbo.mean() > 5 * (standard_error(elbo) + standard_error(looser))


def test_a_loss_without_gradients_is_the_same_surrogate():
    model, weights, scales = laplace(2)
    with torch.no_grad():
        loss, bound = DregElbo(model, K=3).loss(draw(weights, scales, 2))
    assert loss.isfinite() and bound.value.isfinite().all()


def test_no_samples_are_refused():
    with pytest.raises(InputError, match="at least one sample, not 0"):
        IwaeElbo(laplace(1)[0], K=0)


def test_a_learned_prior_learns_its_scales_alone():
    model, weights, scales = laplace(2)
    IwaeElbo(model, K=3)(draw(weights, scales, 4)).backward()
    assert (model.prior.scale.grad != 0).all()
    assert "prior.loc" in model.state_dict()
    assert not any(isinstance(p, nn.Parameter) and name.endswith("loc") for name, p in model.prior.named_parameters())
    fixed = LearnedPrior(SoftmaxLaplacePosterior(eta=0), 3, learn=False)
    assert fixed().mean.tolist() == [0, 0, 0]
    assert fixed().stddev.tolist() == pytest.approx([math.sqrt(2)] * 3)
    assert not any(p.requires_grad for p in fixed.parameters())

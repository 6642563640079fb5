"""IWAE, STL and DReG: bounds against exact log-likelihoods, gradients against each other, a grid, and closed forms."""

import math

from common.execution import weighted
from common.execution.score import DECODED_AT_ONCE
from common.models import VAE
from common.multimodal_vae import MultimodalVAE
from common.objectives import (
    DregIwaeElbo,
    IwaeElbo,
    ReweightedElbo,
    StlElbo,
    importance,
)
from common.priors import LearnedPrior
from common.variational_posteriors import LaplaceOrNormalPosterior, LaplacePosterior, MixturePosterior
from common.variational_strategies import MoeStrategy
from tests.helpers.fusions import with_fusion
from tests.helpers.gradients import gradients, z_scores
from tests.helpers.linear_gaussian import D, draw, exact_log_p, linear_gaussian
from tests.helpers.private_latents import private_linear_gaussian

import pytest
import torch
from torch import nn
from torch.distributions import Laplace

GRADIENTS = ("exact", "stop-all", "published")


def laplace(n_modalities, family=None):
    """The linear-Gaussian model with a mixture of Laplace posteriors (or a family's) and a learned Laplace prior."""
    model, weights, scales = linear_gaussian(n_modalities)
    model = MultimodalVAE(
        encoder=dict(model.encoder),
        variational_strategy=MoeStrategy(),
        variational_posterior=MixturePosterior(family or LaplacePosterior()),
        decoder=dict(model.decoder),
        likelihood=model.likelihood,
        prior=LearnedPrior(LaplacePosterior(min_scale=0), D),
    )
    return model.double(), weights, scales


@pytest.mark.parametrize("objective", [IwaeElbo, StlElbo, DregIwaeElbo])
@pytest.mark.parametrize("private", [False, True])
def test_the_bound_is_log_p_where_the_posterior_is_exact(objective, private):
    """Products of exact experts: every importance weight is p(x) itself, whatever the samples."""
    model, weights, scales = private_linear_gaussian() if private else linear_gaussian(3)
    inputs, lacking = draw(weights, scales, 5), draw(weights, scales, 5)
    lacking["a"][:] = torch.nan
    for given, names in ((inputs, ("a", "b", "c")), (lacking, ("b", "c"))):
        value = objective(model, K=3).bound(given).value
        torch.testing.assert_close(value, exact_log_p(weights, scales, given, names))


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
    parts = {"joint/kl": -log_w / beta}
    for name, x in inputs.items():
        parts[f"joint/{name}"] = model.decode(z)[name].log_prob(x[:, None])
        log_w = log_w + lambdas[name] * parts[f"joint/{name}"]
    torch.testing.assert_close(value, log_w.exp().mean(dim=(0, 2)).log())
    torch.testing.assert_close(terms, {name: part.mean(dim=(0, 2)) for name, part in parts.items()})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "n_modalities", "looser", "beta"),
    [
        *(("gaussian", 1, False, 1.0), ("gaussian", 3, True, 0.5), ("laplace-normal", 2, False, 1.0)),
    ],
)
def test_exact_dreg_has_iwaes_gradient_in_expectation(family, n_modalities, looser, beta):
    """And the rules that leave out the mixture's parameters have not, nor the published one of one encoder."""
    torch.manual_seed(0)
    mixed = LaplaceOrNormalPosterior([True, False]) if family == "laplace-normal" else None
    model, weights, scales = with_fusion("moe", n_modalities) if family == "gaussian" else laplace(n_modalities, mixed)
    inputs = draw(weights, scales, 1)
    n_rows = 100 * n_modalities if family == "gaussian" and not looser else 100  # stop-all is least wrong there
    iwae = gradients(IwaeElbo(model, K=4, looser=looser), inputs, n_rows=n_rows, beta=beta)
    for rule in GRADIENTS if family == "gaussian" else ["exact"]:
        dreg = gradients(DregIwaeElbo(model, K=4, looser=looser, gradient=rule), inputs, n_rows=n_rows, beta=beta)
        worst = z_scores(iwae, dreg).max().item()
        if rule == "exact" or (rule == "stop-all" and n_modalities == 1):
            assert worst < 4.5, rule
        else:
            assert worst > 8, rule


@pytest.mark.parametrize("looser", [False, True])
def test_exact_dreg_is_iwae_where_beta_is_zero(looser):
    """Sample by sample: log q has no part in the weights."""
    model, weights, scales = laplace(3)
    inputs, results = draw(weights, scales, 5), []
    inputs["a"][1:3] = inputs["c"][3] = torch.nan
    for objective in (IwaeElbo(model, K=4, looser=looser), DregIwaeElbo(model, K=4, looser=looser)):
        torch.manual_seed(0)
        model.zero_grad()
        objective(inputs, beta=0.0).backward()
        results.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*results)


@pytest.mark.slow
@pytest.mark.parametrize("looser", [False, True])
def test_exact_dreg_is_unbiased_where_some_latents_are_narrow(monkeypatch, looser):
    """Some have DReG's gradient, some IWAE's; where all are narrow it is IWAE's, sample by sample."""
    model, weights, scales = laplace(2)
    inputs = draw(weights, scales, 1)
    found = model.posterior(inputs).scales.flatten()
    monkeypatch.setattr(importance, "NARROW", found.sort().values[1:3].mean().item())
    assert 0 < (found < importance.NARROW).sum() < len(found)
    iwaes, dregs = (gradients(o(model, K=4, looser=looser), inputs) for o in (IwaeElbo, DregIwaeElbo))
    assert z_scores(iwaes, dregs).max() < 4.5
    monkeypatch.setattr(importance, "NARROW", 10.0)
    results = []
    for objective in (IwaeElbo, DregIwaeElbo):
        torch.manual_seed(0)
        model.zero_grad()
        objective(model, K=4, looser=looser)(inputs).backward()
        results.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*results)


def test_scales_of_nearly_zero_do_not_blow_up_the_gradient():
    """Scales that sum to D leave 1e-6 for the others where one takes all."""
    model, weights, scales = laplace(2)
    inputs = draw(weights, scales, 50)
    for expert in model.encoder.values():
        expert.precision.data *= torch.tensor([1e30, 1e-30], dtype=torch.float64)
    assert model.posterior(inputs).scales.min() < 1e-5
    largest = {}
    for rule in GRADIENTS:
        model.zero_grad()
        DregIwaeElbo(model, K=4, looser=True, gradient=rule)(inputs).backward()
        largest[rule] = max(p.grad.abs().max().item() for p in [e.mean for e in model.encoder.values()])
    assert largest["exact"] < 1e3 < 1e4 < min(largest["stop-all"], largest["published"])


@pytest.mark.parametrize("objective", [DregIwaeElbo, StlElbo])
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


@pytest.mark.slow
@pytest.mark.parametrize("objective", [StlElbo, DregIwaeElbo])
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
    estimate = gradients(objective(model, K=1, looser=True), inputs, n_rows=400)
    error = (estimate.std(dim=0) / math.sqrt(len(estimate))).clamp(min=1e-6)
    assert ((estimate.mean(dim=0) - exact).abs() / error).max() < 4.5
    assert (error / exact.abs().max()).max() < 0.05, "the comparison is tight"


@pytest.mark.parametrize("looser", [False, True])
def test_the_coefficients_are_the_bounds_derivative(looser):
    """Against autograd and against the formulas written out, for components of which one has no weight."""
    log_w = (5 * torch.randn(3, 4, 6, dtype=torch.float64)).requires_grad_()
    pi = torch.tensor([0.3, 0.0, 0.7], dtype=torch.float64)[:, None].expand(-1, 6)
    value, w = importance.bound(log_w, pi, looser), log_w.detach().exp()
    (slope,) = torch.autograd.grad(value.sum(), log_w)
    torch.testing.assert_close(importance.coefficients(log_w.detach(), pi, looser), slope)
    expected = (pi * w.mean(dim=1).log()).sum(dim=0) if looser else (pi * w.mean(dim=1)).sum(dim=0).log()
    torch.testing.assert_close(value.detach(), expected)


def test_parts_are_of_the_size_that_is_decoded_at_once(monkeypatch):
    model, weights, scales = laplace(2)
    monkeypatch.setitem(DECODED_AT_ONCE, "cpu", 2 * 5 * 3)
    monkeypatch.setattr(weighted, "MAX_SHARE", -1)
    seen = []

    def decode(self, z, *args, original=MultimodalVAE.decode):
        seen.append(z.shape[1])
        return original(self, z, *args)

    monkeypatch.setattr(MultimodalVAE, "decode", decode)
    DregIwaeElbo(model, K=5).backward(draw(weights, scales, 8), beta=1.0, n=8)
    assert seen == [1, 1, 3, 3, 3, 3, 2, 2], "each decoder of an example that is probed, and of each part"
    seen.clear()
    model.decoder["a"].add_module("norm", nn.BatchNorm1d(2))  # found, though this decoder does not call it
    DregIwaeElbo(model, K=5).backward(draw(weights, scales, 8), beta=1.0, n=8)
    assert seen == [8, 8, 3, 3, 2], "all examples in batch norm's statistics"


def test_samples_with_negligible_weights_are_decoded_without_gradients(monkeypatch):
    """Log-weights differ by hundreds of nats, so that few samples count. (The gradient: test_plain.py.)"""
    model, inputs = spread()
    objective, with_gradients = DregIwaeElbo(model, K=6), []

    def decode(self, z, *args, original=MultimodalVAE.decode):
        if torch.is_grad_enabled():
            with_gradients.append(z[..., 0].numel())
        return original(self, z, *args)

    monkeypatch.setattr(MultimodalVAE, "decode", decode)
    objective.loss(inputs)
    of_all = sum(with_gradients)
    with_gradients.clear()
    monkeypatch.setitem(DECODED_AT_ONCE, "cpu", 20)
    monkeypatch.setattr(weighted, "MAX_SHARE", 1)
    objective.backward(inputs, beta=1.0, n=9)
    assert 0 < sum(with_gradients) < 0.5 * of_all


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.Dropout(0.5)], ids=["batch norm", "dropout"])
def test_decoders_that_give_other_outputs_again_are_not_run_again(monkeypatch, layer):
    model, inputs = spread()
    model.decoder["a"] = nn.Sequential(model.decoder["a"], layer.double())
    objective = DregIwaeElbo(model, K=6)
    names = []

    def decode(self, z, modalities, *args, original=MultimodalVAE.decode):
        names.extend(modalities)
        return original(self, z, modalities, *args)

    monkeypatch.setattr(MultimodalVAE, "decode", decode)
    monkeypatch.setattr(weighted, "MAX_SHARE", 1)
    monkeypatch.setitem(DECODED_AT_ONCE, "cpu", 10**6)
    bound = objective.backward(inputs, beta=1.0, n=9)
    runs = 2 if isinstance(layer, nn.BatchNorm1d) else 1  # the statistics are those of one encoder's samples
    # what counts is told by all modalities together, so that b is not decoded again either
    assert names.count("a") == runs and names.count("b") == 1 and bound.value.isfinite().all()


class Fixed(nn.Module):
    """An expert that is the same for all examples."""

    def __init__(self, mu, logvar):
        super().__init__()
        self.mu, self.logvar = nn.Parameter(torch.full((D,), mu)), nn.Parameter(torch.full((D,), logvar))

    def forward(self, x):
        return self.mu.expand(len(x), -1), self.logvar.expand(len(x), -1)


def test_what_counts_is_told_by_the_whole_weight_of_a_sample(monkeypatch):
    """A sharp component's samples explain x better by 100 nats, and their density is greater by as much.

    By log p(x|z) alone the other component's samples would not count.
    """
    monkeypatch.setattr(weighted, "MAX_SHARE", 1)
    model, _, _ = linear_gaussian(2)
    experts = {"a": Fixed(0.0, -100.0), "b": Fixed(1.0, -8.0)}
    model = VAE("moe", experts, dict(model.decoder), model.likelihood, latent_dim=D).double()
    at = {0: model.decode(torch.zeros(1, D).double()), 1: model.decode(torch.ones(1, D).double())}
    inputs = {name: p.mean.detach() for name, p in at[0].items()}
    nats = sum((at[0][name].log_prob(x) - at[1][name].log_prob(x)).item() for name, x in inputs.items())
    objective, found = IwaeElbo(model, K=2, weights=dict.fromkeys(inputs, 100 / nats)), []
    for whole in (True, False):
        model.zero_grad()
        torch.manual_seed(0)
        objective(inputs).backward() if whole else objective.backward(inputs, 1.0, 1)
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*found)
    assert experts["b"].mu.grad.abs().sum() > 1e-3


class Decayed(IwaeElbo):
    """With a penalty of all parameters."""

    def penalised(self, inputs, beta=1.0):
        value, _, found = super().penalised(inputs, beta)
        return value, 100 * sum(p.square().sum() for p in self.parameters()), found


def test_a_penalty_of_a_subclass_is_trained():
    model, weights, scales = laplace(2)
    inputs, found = draw(weights, scales, 3), []
    for whole in (True, False):
        model.zero_grad()
        torch.manual_seed(0)
        objective = Decayed(model, K=3)
        objective(inputs).backward() if whole else objective.backward(inputs, 1.0, 3)
        found.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*found)


def test_samples_that_are_not_finite_count():
    """So that training stops."""
    size = torch.tensor([[[1.0, 1.0], [1e-20, 1e-33], [1e-40, torch.nan]]])  # (T, K, B)
    assert weighted._counts(size).tolist() == [[[True, True], [False, True], [False, True]]]


def spread():
    """A model whose log-likelihoods count 3000 times, and nine of its examples."""
    model, weights, scales = laplace(2)
    model.weights = dict.fromkeys(model.modalities, 3000.0)
    return model, draw(weights, scales, 9)


def test_the_reweighted_elbo_written_out():
    model, weights, scales = laplace(2)
    inputs = draw(weights, scales, 3)
    torch.manual_seed(0)
    objective = ReweightedElbo(model)
    objective(inputs).backward()
    found = [p.grad.clone() for p in model.parameters()]
    torch.manual_seed(0)
    model.zero_grad()
    experts = model.posterior(inputs).component_distribution
    z = experts.rsample()  # (B, M, D)
    loc, scale = experts.base_dist.loc, experts.base_dist.scale
    value = -torch.distributions.kl_divergence(experts, model.prior()).sum(dim=1) / 2
    for d, (name, x) in enumerate(inputs.items()):
        log_p = model.decode(z[:, d])[name].log_prob(x)
        own = Laplace(loc[:, d], scale[:, d]).log_prob(z[:, d]).sum(dim=-1)
        other = Laplace(loc[:, 1 - d], scale[:, 1 - d]).log_prob(z[:, d].detach()).sum(dim=-1)
        value = value + (1 + (other - own.detach()).exp()) * log_p / 2
    (-value.mean()).backward()
    torch.testing.assert_close(found, [p.grad for p in model.parameters()])


def test_frozen_encoders_leave_the_decoders_to_learn():
    model, weights, scales = laplace(2)
    inputs = draw(weights, scales, 3)
    model.encoder.requires_grad_(False)
    DregIwaeElbo(model, K=3).backward(inputs, beta=1.0, n=3)
    assert all((p.grad != 0).any() for p in model.decoder.parameters())

"""MMVAE+ and CMVAE: mixtures whose components have private latents, on a model whose every quantity is known."""

import math

from common.data import Batch
from common.errors import InputError
from common.estimators import log_marginal
from common.likelihoods import GroupedLikelihood
from common.models import VAE
from common.objectives import DregIwaeElbo, IwaeElbo
from common.priors import ClusteredPrior
from common.variational_posteriors import LaplacePosterior
from tests.helpers.gradients import gradients, z_scores
from tests.helpers.linear_gaussian import draw, exact_log_p, standard_error
from tests.helpers.objectives import gradients_agree, repeated
from tests.helpers.private_latents import LATENT_DIM, N_SHARED, PLACES, PRIVATE, private_linear_gaussian

import pytest
import torch
from torch import nn
from torch.distributions import Laplace, Normal

NAMES = ("a", "b", "c")
FAMILIES = {"gaussian": Normal, "laplace": Laplace}
PATTERNS = [("a", "b", "c"), ("a", "c"), ("b",)]
U = slice(0, N_SHARED)


def plus(family="gaussian", names=NAMES, wrong=True, **options):
    """MMVAE+ on the linear-Gaussian model, whose encoders and auxiliary priors are off unless told otherwise."""
    model, matrices, scales = private_linear_gaussian("mmvae+", family, names, **options)
    if wrong:
        with torch.no_grad():
            model.encoder["a"].shared.precision *= 0.3
            model.encoder["b"].private.precision *= 3
            model.auxiliary.scale += 0.4 * torch.arange(LATENT_DIM)
    return model, matrices, scales


def mask_of(pattern, n, names=NAMES):
    return torch.tensor([[name in pattern for name in names]]).expand(n, -1)


def log_omega(model, batch, params, z, t, pattern, lambdas, beta):
    """log omega of component t's samples z (K, B, D), (K, B), as the paper writes it."""
    family = FAMILIES["laplace" if isinstance(model.variational_posterior.component, LaplacePosterior) else "gaussian"]

    def expert(m, latents):
        loc, raw = (p[m][:, latents] for p in params)
        scale = raw.softmax(dim=1) * raw.shape[1] + 1e-6 if family is Laplace else (0.5 * raw).exp()
        return family(loc, scale)

    prior = family(torch.zeros(()), torch.ones(()))
    u, own = z[..., U], PLACES[NAMES[t]]
    shared = torch.stack([expert(NAMES.index(n), U).log_prob(u).sum(dim=-1) for n in pattern]).logsumexp(dim=0)
    log_w = prior.log_prob(u).sum(dim=-1) - (shared - math.log(len(pattern)))
    log_w = log_w + (prior.log_prob(z[..., own]) - expert(t, own).log_prob(z[..., own])).sum(dim=-1)
    p = model.decode(z)
    return beta * log_w + sum(lambdas.get(n, 1.0) * p[n].log_prob(batch.modalities[n]) for n in pattern)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_the_paper(family, pattern):
    model, matrices, scales = plus(family)
    batch = Batch(draw(matrices, scales, 4), mask_of(pattern, 4))
    lambdas, beta, k = {"a": 3.0, "c": 0.2}, 0.4, 5
    present = [t for t, name in enumerate(NAMES) if name in pattern]
    for looser in (True, False):
        objective = IwaeElbo(model, K=k, looser=looser, weights=lambdas)
        batch = model.observe(batch)
        params, z, _ = objective.sample(batch)
        log_w = torch.stack([log_omega(model, batch, params, z[t], t, pattern, lambdas, beta) for t in present])
        if looser:
            expected = (log_w.logsumexp(dim=1) - math.log(k)).mean(dim=0)
        else:
            expected = log_w.flatten(0, 1).logsumexp(dim=0) - math.log(k * len(pattern))
        _, bound = objective.surrogate(batch, objective.scorer(batch), params, z, beta)
        torch.testing.assert_close(bound.value, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_private_latents_of_other_modalities_come_from_auxiliary_priors(family):
    model, matrices, scales = plus(family)
    params = model.experts(model.observe(draw(matrices, scales, 3)))
    r, drawn, encoded = model.auxiliary(), model.training_posterior(params), model.fuse(params).component_distribution
    drawn = drawn.component_distribution  # (B, T)
    for t, name in enumerate(NAMES):
        for other, place in ((other, PLACES[other]) for other in PRIVATE):
            mean, deviation = r.mean[place], r.stddev[place]
            if other == name:
                mean, deviation = encoded.mean[:, t, place], encoded.stddev[:, t, place]
            torch.testing.assert_close(drawn.mean[:, t, place], mean.expand(3, -1))
            torch.testing.assert_close(drawn.stddev[:, t, place], deviation.expand(3, -1), rtol=0, atol=2e-6)


def log_p_of_clusters(prior, matrices, scales, inputs, target):
    """log sum over c of pi_c p(x|c), (B,): where u has the mean mu_c, x has the mean W mu_c."""
    log_p = []
    for log_pi, mu in zip(prior.logits.detach().softmax(dim=0).log(), prior.loc.detach(), strict=True):
        centred = {name: x - matrices[name][:, U] @ mu for name, x in inputs.items()}
        log_p.append(log_pi + exact_log_p(matrices, scales, centred, target))
    return torch.stack(log_p).logsumexp(dim=0)


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "clusters"), [(NAMES, False), (("b",), False), (("a", "c"), True)])
def test_with_the_prior_as_auxiliary_it_bounds_log_p(pattern, clusters):
    """And the mean weight of all components is p(X), so that the bound is tight in the limit."""
    model, matrices, scales = clustered(3, "gaussian") if clusters else plus()
    nn.init.zeros_(model.auxiliary.scale)
    one, n = draw(matrices, scales, 1), 8000
    log_p = exact_log_p(matrices, scales, one, pattern).item()
    if clusters:
        model.prior.loc.data = torch.tensor([[-2.0, 0.0], [0.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
        model.prior.logits.data = torch.tensor([0.7, 0.1, 0.2], dtype=torch.float64).log()
        without, log_p = log_p, log_p_of_clusters(model.prior, matrices, scales, one, pattern).item()
        assert abs(log_p - without) > 0.2, "the clusters matter"
    batch, values = Batch(repeated(one, n), mask_of(pattern, n)), []
    with torch.no_grad():
        for k, looser in ((1, True), (10, True), (1, False), (10, False)):
            value = IwaeElbo(model, K=k, looser=looser).bound(batch).value
            assert value.mean().item() < log_p
            values.append(value)
    weights = (values[3] - log_p).exp()
    assert weights.mean().item() == pytest.approx(1, abs=5 * standard_error(weights))
    assert standard_error(weights) < 0.05, "the comparison is tight"
    assert values[0].mean() < values[1].mean()
    assert len(pattern) == 1 or values[1].mean() < values[3].mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_posterior_of_a_subset_encodes_what_is_given(family):
    model, matrices, scales = plus(family)
    inputs = draw(matrices, scales, 3)
    q = model.posterior(inputs, ("a", "c")).component_distribution  # (B, T)
    alone = model.posterior(inputs, ("a",)).component_distribution
    for t in (0, 2):
        torch.testing.assert_close(q.mean[:, t, PLACES["a"]], alone.mean[:, 0, PLACES["a"]])
        assert (q.mean[:, t, PLACES["b"]] == 0).all()
        std = q.base_dist.scale[:, t, PLACES["b"]]
        torch.testing.assert_close(std, torch.ones_like(std), rtol=0, atol=2e-6)


def test_log_likelihoods_count_private_latents():
    """Estimates with the posterior as proposal are exact in the limit."""
    model, matrices, scales = plus(wrong=False)
    inputs = draw(matrices, scales, 4)
    estimate = log_marginal(model, inputs, NAMES, n_samples=50_000)
    torch.testing.assert_close(estimate, exact_log_p(matrices, scales, inputs, NAMES), rtol=0, atol=0.15)


@pytest.mark.parametrize(("looser", "clusters"), [(True, False), pytest.param(False, True, marks=pytest.mark.slow)])
def test_gradient_against_finite_differences(looser, clusters):
    names = ("a", "b")
    model, matrices, scales = clustered(3, "gaussian", names=names) if clusters else plus("gaussian", names)
    inputs = draw(matrices, scales, 3)
    inputs["b"][0], inputs["a"][1] = torch.nan, torch.nan
    assert gradients_agree(IwaeElbo(model, 3, looser, weights={"a": 2.0}), inputs)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "looser", "clusters"), [("laplace", True, False), ("gaussian", False, True)])
def test_dregs_gradient_is_iwaes_in_expectation(family, looser, clusters):
    if clusters:
        model, matrices, scales = clustered(3, family, names=("a", "b"))
        model.prior.loc.data = torch.tensor([[-2.0, 0.0], [0.0, 2.0], [2.0, 0.0]], dtype=torch.float64)
    else:
        model, matrices, scales = plus(family, ("a", "b"), learn_prior=True)
    inputs = draw(matrices, scales, 1)
    iwae, dreg = (
        gradients(objective(model, 6, looser), {n: inputs[n] for n in ("a", "b")}, n_chunks=50, n_rows=300, beta=0.8)
        for objective in (IwaeElbo, DregIwaeElbo)
    )
    moves = iwae.std(dim=0) > 1e-9
    scores = z_scores(iwae, dreg)[moves]
    assert scores.max() < 5 and scores.square().mean() < 2.5


def test_whose_samples_are_scaled_in_dregs_gradient():
    """Shared latents by the component's responsibility, its own by 1, those of auxiliary priors not at all."""
    model, matrices, scales = plus()
    r = torch.rand(3, 4, 2, dtype=torch.float64)
    q = model.training_posterior(model.experts(model.observe(draw(matrices, scales, 2))))
    by_latent = q.responsibility_per_latent(r)
    for t, name in enumerate(NAMES):
        torch.testing.assert_close(by_latent[t, ..., U], r[t, ..., None].expand(-1, -1, N_SHARED))
        for other in PRIVATE:
            assert (by_latent[t, ..., PLACES[other]] == float(other == name)).all()


# CMVAE: a prior of clusters


def clustered(n_clusters, family="laplace", **options):
    model, matrices, scales = plus(family, **options)
    model.prior = ClusteredPrior(model.auxiliary.family, LATENT_DIM, N_SHARED, n_clusters).double()
    return model, matrices, scales


def test_a_clustered_priors_density():
    """That of the mixture over u times that of w; and CMVAE's E_q(c|u) [log pi_c p(u|c) / q(c|u)] is log p(u)."""
    prior = clustered(4)[0].prior
    with torch.no_grad():
        prior.logits.copy_(torch.randn(4))
    z = torch.randn(6, LATENT_DIM, dtype=torch.float64)
    log_pi = prior.logits.log_softmax(dim=0)
    log_joint = Laplace(prior.loc, 1.0).log_prob(z[:, None, U]).sum(dim=-1) + log_pi  # (6, C)
    log_private = Laplace(0.0, 1.0).log_prob(z[:, N_SHARED:]).sum(dim=-1)
    torch.testing.assert_close(prior().log_prob(z), log_joint.logsumexp(dim=1) + log_private)
    log_q = prior.cluster_log_probs(z[:, U])
    torch.testing.assert_close(log_q, log_joint.log_softmax(dim=1))
    torch.testing.assert_close((log_q.exp() * (log_joint - log_q)).sum(dim=1), log_joint.logsumexp(dim=1))


def test_a_clustered_prior_by_name():
    def model(**options):
        encoder = {name: nn.Linear(3, 2) for name in ("a", "b")}
        decoder = {name: nn.Linear(3, 2) for name in ("a", "b")}
        private, likelihood = {"a": 1, "b": 1}, GroupedLikelihood(a=nn.Module(), b=nn.Module())
        return VAE("mmvae+", encoder, decoder, likelihood, 4, posterior="laplace", private=private, **options)

    prior = model(n_clusters=7).prior
    assert prior.loc.shape == (7, 2) and prior.loc.abs().max() <= 1 and prior.components().stddev[0, 0] == math.sqrt(2)
    with pytest.raises(InputError, match="a clustered prior has fixed scales"):
        model(n_clusters=7, learn_prior=True)
    with pytest.raises(InputError, match="a clustered prior needs at least one cluster, not 0"):
        model(n_clusters=0)
    with pytest.raises(InputError, match=r"the fusion mmvae\+ needs private latents: without them it is moe"):
        VAE("mmvae+", {"a": nn.Linear(2, 4)}, {"a": nn.Linear(2, 2)}, nn.Module(), 2)


def test_stop_all_weighs_no_draw_of_an_auxiliary_prior_twice():
    """With several samples: what r_n learns is IWAE's gradient, sample by sample, since its density is in no weight."""
    vae, matrices, scales = plus("laplace", ("a", "b"))
    inputs, found = draw(matrices, scales, 5), []
    for objective in (IwaeElbo(vae, 4, looser=True), DregIwaeElbo(vae, 4, looser=True, gradient="stop-all")):
        torch.manual_seed(0)
        vae.zero_grad()
        objective({name: inputs[name] for name in ("a", "b")}, 0.7).backward()
        found.append(vae.auxiliary.scale.grad.clone())
    torch.testing.assert_close(*found)

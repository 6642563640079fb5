"""Clusters of latents, on hand-made ones whose right number and labels are known."""

import math

from common.data import Examples
from common.estimators import log_marginal
from common.objectives import IwaeElbo
from common.priors import ClusteredPrior
from common.variational_posteriors import DiagonalGaussianPosterior
from reports.latents import kmeans_accuracy, majority_right, prior_clusters, pruned, shared_means
from reports.subsets import Posteriors
from tests.helpers import coherence
from tests.helpers.linear_gaussian import draw
from tests.helpers.private_latents import N_SHARED, private_linear_gaussian

import pytest
import torch

CENTRES = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])


def prior(loc, weights):
    """Gaussian clusters of scale 1."""
    made = ClusteredPrior(DiagonalGaussianPosterior(), 2, 2, len(loc))
    made.loc.data, made.logits.data = torch.as_tensor(loc), torch.tensor(weights).log()
    return made


def samples(n=600):
    """u of three clusters, and which."""
    cluster = torch.arange(n) % 3
    return CENTRES[cluster] + torch.randn(n, 2), cluster


def test_the_majority_of_a_cluster():
    train = torch.tensor([0, 0, 0, 1, 1, 3]), torch.tensor([5, 5, 0, 0, 0, 2])
    test = torch.tensor([0, 0, 1, 2, 3, 4]), torch.tensor([5, 0, 0, 0, 2, 0])
    assert majority_right(train, test).tolist() == [True, False, True, False, True, False]


def test_k_means_finds_the_classes():
    """Labels that are wrong for a share of the examples are right for the rest; a majority hides those in training."""
    model, (train, labels), (test, expected) = coherence.model(), coherence.examples(1000), coherence.examples(2000)
    wrong = torch.where(torch.rand(1000, 1) < 0.3, (labels + 1) % coherence.C, labels)
    assert kmeans_accuracy(Posteriors(model, train, wrong), Posteriors(model, test, expected)).eq(1).all()
    changed = torch.where(torch.rand(2000, 1) < 0.3, (expected + 1) % coherence.C, expected)
    right = kmeans_accuracy(Posteriors(model, train, labels), Posteriors(model, test, changed))
    assert right.equal((changed == expected).double().squeeze(1)) and right.mean() == pytest.approx(0.7, abs=0.04)


def test_clusters_of_the_prior_are_voted_for():
    """Experts that know each u exactly, two of three right: the vote is."""
    model, matrices, scales = private_linear_gaussian("moe")
    model.prior = ClusteredPrior(DiagonalGaussianPosterior(), model.latent_dim, N_SHARED, 3).double()
    model.prior.loc.data = CENTRES.double()
    x = draw(matrices, scales, 90)
    u, cluster = samples(90)
    for name, w in matrices.items():
        shown = u.roll(1, dims=0) if name == "b" else u
        x[name] = shown.double() @ w[:, :N_SHARED].T
    data = Posteriors(model, Examples(x), cluster[:, None])
    assert shared_means(data).shape == (90, 3, N_SHARED)
    assert prior_clusters(data, model.prior).equal(cluster)


@pytest.mark.parametrize(
    ("loc", "weights", "n"),
    [
        (CENTRES, [0.3, 0.3, 0.4], 3),
        (torch.cat([CENTRES, CENTRES + 90]), [0.22, 0.2, 0.18, 0.1, 0.15, 0.15], 3),  # where there are no latents
        (torch.cat([CENTRES + 0.2, CENTRES]), [0.15, 0.1, 0.05, 0.2, 0.2, 0.3], 3),  # each twice
        (torch.cat([CENTRES[:1]] * 4), [0.1, 0.2, 0.3, 0.4], 1),
    ],
)
def test_pruning_keeps_the_right_number_of_clusters(loc, weights, n):
    u, _ = samples()
    left = pruned(prior(loc, weights), u if n > 1 else torch.randn(600, 2))
    assert left.loc.shape == (n, 2) and left.log_weights.logsumexp(dim=0).abs() < 1e-6
    kept = torch.tensor(weights).topk(n).indices.sort().values
    assert left.loc.equal(loc[kept])
    weights = torch.tensor(weights)[kept]
    torch.testing.assert_close(left.log_weights.exp(), weights / weights.sum())


def test_the_cluster_of_the_fewest_latents_goes_first():
    """Whatever its weight: the third has the largest, and no latents but one."""
    loc, weights = torch.cat([CENTRES, CENTRES[:1] + 0.1]), [0.2, 0.2, 0.5, 0.1]
    u = torch.cat([CENTRES[torch.arange(600) % 2] + torch.randn(600, 2), CENTRES[2:]])
    assert pruned(prior(loc, weights), u, beta=100.0).loc.equal(CENTRES[:2])


def test_beta_weighs_the_overlap():
    """Two clusters that overlap a little more than they fit: a strong beta joins them, a weak one does not."""
    centres = torch.tensor([[0.0, 0.0], [2.5, 0.0]])
    u = centres[torch.arange(4000) % 2] + torch.randn(4000, 2)
    made = prior(centres, [0.5 + 1e-3, 0.5 - 1e-3])
    assert [len(pruned(made, u, beta).loc) for beta in (0.0, 1.0, 20.0)] == [2, 2, 1]
    log_p = [left().log_prob(u).mean() / 2 for left in (pruned(made, u, 20.0), made)]
    q = made.cluster_log_probs(u)
    overlap = -(q.exp() * q).sum(dim=1).mean() / math.log(2)
    turning = ((log_p[1] - log_p[0]) / overlap).item()
    assert [len(pruned(made, u, turning * factor).loc) for factor in (0.99, 1.01)] == [2, 1]


def test_a_model_works_with_a_pruned_prior():
    model, matrices, scales = private_linear_gaussian("moe")
    model.prior = ClusteredPrior(DiagonalGaussianPosterior(), model.latent_dim, N_SHARED, 5).double()
    model.prior = model.prior.only(torch.arange(1))
    x = draw(matrices, scales, 6)
    assert log_marginal(model, x, tuple(x), n_samples=5).isfinite().all()
    IwaeElbo(model, 3)(x).backward()
    assert model.prior.loc.grad.isfinite().all() and model.generate(4)["a"].shape == (4, 5)

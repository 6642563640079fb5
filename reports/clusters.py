"""Clusters in the latents: those that k-means finds, and those of a prior that is a mixture of them."""

import math
from collections.abc import Mapping

import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import one_hot

from common import distributed
from common.priors import ClusteredPrior
from reports.metrics import BATCH_SIZE
from reports.subsets import Posteriors

N_FITS = 5  # of k-means, from different starts


def majority_right(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Tensor:
    """Whether each test example has its cluster's majority label, counted over the training examples: (N,) bool.

    Args:
        train, test: clusters and labels from 0 on, (N,) each; a cluster without training examples is never right.
    """
    (clusters, labels), (of_test, expected) = train, test
    counts = torch.zeros(int(max(clusters.max(), of_test.max())) + 1, int(labels.max()) + 1)
    counts.index_put_((clusters, labels), torch.ones(len(labels)), accumulate=True)
    return (counts.argmax(dim=1)[of_test] == expected) & counts.any(dim=1)[of_test]


def kmeans_accuracy(train: Posteriors, test: Posteriors) -> Tensor:
    """How often each test example has the majority label of its k-means cluster: (N,), in [0, 1].

    k-means is fitted to the shared latents of the training examples' points of q(z|X), with a cluster for each label
    that they have (the `multivae` package's Clustering, with 20 fits); the values are means over `N_FITS` fits.
    """
    z, of_test = (
        data.points(data.model.modalities)[:, : data.model.n_shared].double().numpy() for data in (train, test)
    )
    labels, expected = train.labels[:, 0], test.labels[:, 0]
    seeds = torch.randint(2**31, (N_FITS,)).tolist()

    def right(seed: int) -> Tensor:
        fitted = KMeans(len(labels.unique()), random_state=seed).fit(z)
        clusters, of_points = (torch.from_numpy(c).long() for c in (fitted.labels_, fitted.predict(of_test)))
        return majority_right((clusters, labels), (of_points, expected)).double()

    return distributed.on_first_process(lambda: torch.stack([right(seed) for seed in seeds]).mean(dim=0))


@torch.no_grad()
def shared_means(data: Posteriors) -> Tensor:
    """The means of each q(u|x_m) of the latents u that a `ClusteredPrior` is over, (N, M, number of them)."""
    model = data.model
    return torch.stack([data.points((name,))[:, : model.prior.n_shared] for name in model.modalities], dim=1)


@torch.no_grad()
def prior_clusters(data: Posteriors, prior: ClusteredPrior) -> Tensor:
    r"""The cluster c of the prior that most modalities of an example choose, (N,); the first one in a tie.

    .. math:: c_m = \arg\max_c q(c|u_m), \quad q(c|u) \propto \pi_c \, p(u|c)

    with :math:`u_m` the mean of q(u|x_m) (CMVAE, Palumbo et al. 2024, ICLR).

    Args:
        prior: the model's, or the one that `pruned` makes of it.
    """
    u = shared_means(data).to(prior.loc.device)
    chosen = torch.cat([prior.cluster_log_probs(x).argmax(dim=-1) for x in u.split(BATCH_SIZE)])
    return one_hot(chosen, len(prior.loc)).sum(dim=1).argmax(dim=1).cpu()  # of (N, M, C)


@torch.no_grad()
def pruned(prior: ClusteredPrior, u: Tensor, beta: float = 1.0) -> ClusteredPrior:
    r"""Remove clusters of a trained prior until a criterion is best; the remaining weights sum to 1 again.

    Repeatedly, the cluster that the fewest u choose is removed; in a tie, the one with the smallest weight. With n
    clusters left, the prior has the density p_n. The n is chosen that minimises

    .. math:: \frac1N \sum_i \Big( \beta \frac{H(q_n(c|u_i))}{\log n} - \frac1D \log p_n(u_i) \Big)

    The entropy is small if clusters do not overlap; the density is large if no cluster is missing. (CMVAE, Palumbo et
    al. 2024, ICLR; their log p(u|c) + log pi_c - log q(c|u) equals log p(u).) With n = 1 the first term is 0.

    Args:
        u: shared latents of training examples, (N, D).
        beta: that of the training.
    """
    log_weights = prior.log_weights
    batches = u.to(log_weights.device).unsqueeze(-2).split(BATCH_SIZE)
    log_joint = torch.cat([prior.components().log_prob(x) for x in batches]) + log_weights  # (N, C)
    left, candidates = torch.arange(len(log_weights), device=log_weights.device), []
    while len(left):
        log_p = log_joint[:, left].logsumexp(dim=1) - log_weights[left].logsumexp(dim=0)
        log_q = log_joint[:, left].log_softmax(dim=1)
        overlap = -(log_q.exp() * log_q).sum(dim=1) / math.log(max(len(left), 2))  # 0 for a single cluster
        candidates.append(((beta * overlap - log_p / u.shape[1]).mean().item(), left))
        mass = log_q.argmax(dim=1).bincount(minlength=len(left)) + log_weights[left].exp()
        left = left[left != left[mass.argmin()]]
    return prior.only(min(candidates, key=lambda candidate: candidate[0])[1])


def cluster_accuracies(train: Posteriors, test: Posteriors, priors: Mapping[str, ClusteredPrior]) -> dict[str, Tensor]:
    """Whether test examples have their cluster's majority label, (N,): clusters of k-means, and of each prior."""
    right = {"clusters, k-means": kmeans_accuracy(train, test)}
    for name, prior in priors.items():
        pairs = [(prior_clusters(data, prior), data.labels[:, 0]) for data in (train, test)]
        right[f"clusters, {name} ({len(prior.loc)})"] = majority_right(*pairs)
    return right

"""What latents hold: their divergences, maps of draws, and clusters, those of k-means and those of a mixture prior."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from common.data.batches import Examples
from common.errors import install, require
from common.execution import processes
from common.multimodal_vae import MultimodalVAE
from common.priors import ClusteredPrior
from common.progress import print_once
from reports import plots
from reports.metrics import BATCH_SIZE, divergences
from reports.subsets import Posteriors
from reports.tables import Estimates, Table, decimals, estimate_table

import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import one_hot

BOXES = 20  # latents in kl.png
MAX_DRAWS = 1000  # of each distribution on a map
MIN_DRAWS = 4  # of all distributions on a map; UMAP fails with fewer
NEIGHBOURS = 40  # of UMAP, as in the MMVAE authors' code
N_FITS = 5  # of k-means, from different starts
MAX_PAIRED_SOURCES = 3  # with more sources kl.png leaves out the divergences between pairs of posteriors


def each_modality(model: MultimodalVAE) -> dict[str, Sequence[str]]:
    """The sources {name: modalities given} that are one modality each: those that have their own encoder."""
    return {name: (name,) for name in model.modalities if name in model.encoder}


def kl_plot(
    path: Path, model: MultimodalVAE, test: Examples, sources: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """Save box plots of each latent's divergences, of the most used latents if there are many; return all, (N, D)."""
    if not model.variational_posterior.has_density or model.prior.is_mixture:
        print("\nno kl.png: the KLs of this model's posteriors from its prior have no closed form")
        return {}
    if model.variational_posterior.is_mixture:  # the KL of several components has no closed form
        sources = {name: given for name, given in sources.items() if len(given) == 1}
    kls = {name: kl.cpu() for name, kl in divergences(model, test, sources).items()}
    if processes.rank() == 0:
        latents = most_used(kls, BOXES)
        drawn = {
            name: kl[~kl.isnan().any(dim=1)][:, latents]
            for name, kl in kls.items()
            if len(sources) <= MAX_PAIRED_SOURCES or name.startswith("KL")
        }
        n = next(iter(kls.values())).shape[1]
        shown = "latent" if len(latents) == n else f"latent, the {len(latents)} of {n} that are used most"
        plots.boxes(path, drawn, (shown, "nats"), latents.tolist())
    return kls


def most_used(kls: Mapping[str, Tensor], n: int) -> Tensor:
    """The n latents, or spheres, whose mean KL from the prior is largest: (n,) int64, in their order, or all."""
    used = torch.stack([kl.nanmean(dim=0) for name, kl in kls.items() if name.startswith("KL")]).amax(dim=0)
    return used.topk(min(n, len(used))).indices.sort().values


def kl_table(nats: Estimates, head: str) -> Table:
    """The table of KLs, with a note that explains J if a figure is one."""
    notes = "J: the mean of the KLs in both directions." if any(name.startswith("J(") for name in nats) else ""
    return estimate_table(nats, (head, "nats"), partial(decimals, n=2), notes)


def require_umap() -> None:
    """Raise InputError unless umap-learn is installed: call it before an analysis that takes minutes."""
    require(find_spec("umap") is not None, f"umap.png needs umap-learn: give --no-umap, {install('umap-learn')}")


@torch.no_grad()
def latent_map(path: Path, model: MultimodalVAE, z: Mapping[str, Tensor], groups: Mapping[str, Tensor]) -> None:
    """Save maps of draws of the prior and of each q(z|x_s): coloured by distribution, and by group if there are any.

    Args:
        z: {source: draws of q(z|x_s) for N examples (N, D)}; the maps show the first thousand.
        groups: {name: whether an example belongs to it, (N,) bool}.

    Raises:
        InputError: umap-learn is not installed, or there are too few draws.
    """
    require_umap()
    n = min(MAX_DRAWS, *(len(draws) for draws in z.values()))
    sources = {"prior": model.prior().sample((n,))} | {f"q(z|{name})": draws[:n] for name, draws in z.items()}
    draws = torch.cat([*sources.values()]).cpu()
    too_few = f"{path.name} needs at least {MIN_DRAWS} draws, not {len(draws)}: a larger --limit, or --no-umap"
    require(len(draws) >= MIN_DRAWS, too_few)
    print_once(f"drawing {path.name} takes about half a minute")
    from umap import UMAP

    threads = torch.get_num_threads()
    neighbours = min(NEIGHBOURS, len(draws) - 1)
    points = UMAP(n_neighbors=neighbours, random_state=0, n_jobs=1).fit_transform(draws)
    torch.set_num_threads(threads)  # numba, which UMAP runs on, changes OpenMP's number of threads for all
    points = torch.from_numpy(points)
    by_source = dict(zip(sources, points.split(n), strict=True))
    by_group = {name: points[n:][member[:n].cpu().repeat(len(z))] for name, member in groups.items()}
    plots.scatter(path, {"draws": by_source} | ({"examples": by_group} if groups else {}))


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

    return processes.on_first_process(lambda: torch.stack([right(seed) for seed in seeds]).mean(dim=0))


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

"""What a model makes of each subset of its modalities: coherence, distances to test images, classes in latents."""

from collections.abc import Mapping, Sequence

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from common import distributed
from common.data.batches import Examples
from common.encoded import Encoded
from common.errors import require
from common.metrics import BATCH_SIZE, Judge
from common.subsets import named_subsets

N_LINEAR = 500  # training examples of a linear classifier of latents, as in MoPoE's paper


def frechet_distance(x: Tensor, y: Tensor) -> float:
    r"""The Frechet distance of two Gaussians with the moments of features (N, F) and (N', F).

    .. math:: |\mu_x - \mu_y|^2 + Tr \big( \Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2} \big)

    (Heusel et al. 2017, arXiv 1706.08500. It is called FID only for the features of Inception-v3.)

    Raises:
        InputError: fewer than two examples, or features that are not finite.
    """
    require(min(len(x), len(y)) > 1, "a Frechet distance needs two examples or more: raise --limit")
    require(bool(x.isfinite().all() and y.isfinite().all()), "the features of what the model decodes are not finite")
    x, y = x.double(), y.double()
    x_covariance, y_covariance = x.T.cov(), y.T.cov()
    root_trace = torch.linalg.eigvals(x_covariance @ y_covariance).sqrt().real.sum()
    traces = x_covariance.trace() + y_covariance.trace()
    return ((x.mean(dim=0) - y.mean(dim=0)).square().sum() + traces - 2 * root_trace).item()


def macro_accuracy(right: Tensor, labels: Tensor) -> float:
    """The mean over classes of the share of a class's examples that are right, both (N,)."""
    return torch.stack([right[labels == c].double().mean() for c in labels.unique()]).mean().item()


@torch.no_grad()
def conditional(
    test: Encoded, judges: Mapping[str, Judge], real: Mapping[str, Tensor], given: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Score what is decoded of one z ~ q(z|x_given) for each of N test examples.

    Args:
        judges: by the name of the target.
        real: their features of the test examples, see `features_of`.
        given: the modalities. Without any, z comes from the prior, and there is no coherence.

    Returns:
        {target: {"coherence", "macro" (shares in [0, 1]), "FD" (Frechet distance of the judge's features)}}.
    """
    model, labels = test.model, test.labels[:, 0]

    def scored(rows: Tensor) -> dict[str, Tensor]:
        values, columns = model.likelihood.point(model.decode(test.posterior(rows, given).sample())), {}
        for target, judge in judges.items():
            columns[f"{target} right"] = judge.read(values)[:, 0].cpu() == labels[rows]
            columns[f"{target} features"] = judge.features(values).cpu()
        return columns

    columns = distributed.map_rows(len(test), BATCH_SIZE, scored, f"given {', '.join(given) or 'nothing'}")
    scores = {}
    for target in judges:
        distance = {"FD": frechet_distance(columns[f"{target} features"], real[target])}
        right = columns[f"{target} right"]
        shares = {"coherence": right.double().mean().item(), "macro": macro_accuracy(right, labels)}
        scores[target] = (shares if given else {}) | distance
    return scores


@torch.no_grad()
def features_of(test: Examples, judges: Mapping[str, Judge]) -> dict[str, Tensor]:
    """The judges' features of the test examples themselves, {target: (N, F)}."""

    def features(rows: Tensor) -> dict[str, Tensor]:
        values = test[rows].modalities
        return {target: judge.features(values).cpu() for target, judge in judges.items()}

    return distributed.map_rows(len(test), BATCH_SIZE, features)


def linear_accuracy(train: Encoded, test: Encoded, given: Sequence[str]) -> float:
    """How often a logistic regression tells the label from the mean of q(z|x_given), on test examples.

    It is fitted to the first `N_LINEAR` training examples (Sutter et al. 2021; their code draws them with replacement).

    Raises:
        InputError: the training examples show one label alone.
    """
    few = train.first(N_LINEAR)
    require(len(few.labels.unique()) > 1, "the linear accuracy needs training examples of two labels: raise --limit")
    linear = LogisticRegression(max_iter=1000).fit(few.points(given), few.labels[:, 0])
    return float(linear.score(test.points(given), test.labels[:, 0]))


def by_size(train: Encoded, test: Encoded, judges: Mapping[str, Judge]) -> dict[int, dict[str, float]]:
    """Scores by the number of modalities that are given, {number: {score: value}}; 0 is the prior.

    "coherence" and "macro" are means over the subsets of a size and all targets outside them, in [0, 1]; "spread" is
    the standard deviation of "coherence" over the subsets; "itself" is the coherence of targets that are given; "FD" is
    a mean over targets outside, for the prior over all; "linear accuracy" in [0, 1].

    Args:
        judges: by the name of the target, with `features`.
    """
    real, rows = features_of(test.examples, judges), {}
    for given in named_subsets(test.model.modalities):
        scores = conditional(test, judges, real, given)
        outside = [scores[target] for target in judges if target not in given]
        row = {"itself": _mean([scores[target]["coherence"] for target in judges if target in given])}
        row |= {name: _mean([score[name] for score in outside]) for name in ("coherence", "macro", "FD") if outside}
        row["linear accuracy"] = linear_accuracy(train, test, given)
        rows.setdefault(len(given), []).append(row)
    prior = conditional(test, judges, real, ())
    sizes = {0: {"FD": _mean([score["FD"] for score in prior.values()])}}
    for size, of_size in rows.items():
        sizes[size] = {name: _mean([row[name] for row in of_size]) for name in of_size[0]}
        if "coherence" in of_size[0]:
            each = torch.tensor([row["coherence"] for row in of_size], dtype=torch.float64)
            sizes[size]["spread"] = each.std(correction=0).item()
    return sizes


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

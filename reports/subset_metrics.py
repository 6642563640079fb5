"""What a model makes of each subset of its modalities: coherence, distances to test images, classes in latents."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from common import distributed
from common.data.batches import Examples
from common.errors import require
from common.subsets import named_subsets
from common.variational_posteriors.private_latents import latent_parts
from reports.encoded import Encoded
from reports.frechet_distances import FrechetDistance
from reports.metrics import BATCH_SIZE, Judge

Inception = Callable[[Tensor], Tensor]  # images (N, 3, H, W) -> features (N, F)
N_LINEAR = 500  # training examples of a linear classifier of latents, as in MoPoE's paper


def macro_accuracy(right: Tensor, labels: Tensor) -> float:
    """The mean over classes of the share of a class's examples that are right, both (N,)."""
    return torch.stack([right[labels == c].double().mean() for c in labels.unique()]).mean().item()


def _features(
    values: Mapping[str, Tensor], judges: Mapping[str, Judge], inception: Inception | None
) -> dict[str, Tensor]:
    """The features that are compared, {"FD TARGET", "FID TARGET": (N, F)}, on the CPU.

    Targets whose judges have no features have no distances; without `inception` there is no FID.
    """
    compared = {target: judge.features for target, judge in judges.items() if judge.features is not None}
    features = {f"FD {target}": of_judge(values).cpu() for target, of_judge in compared.items()}
    if inception:
        features |= {f"FID {target}": inception(values[target]).cpu() for target in compared}
    return features


@torch.no_grad()
def distances_to(
    test: Examples, judges: Mapping[str, Judge], inception: Inception | None = None
) -> dict[str, FrechetDistance]:
    """The distances {"FD TARGET", "FID TARGET"} of features to those of the test examples."""
    features = distributed.map_rows(
        len(test), BATCH_SIZE, lambda rows: _features(test[rows].modalities, judges, inception), "features"
    )
    return {name: FrechetDistance(reference) for name, reference in features.items()}


@torch.no_grad()
def scores_given(
    test: Encoded,
    judges: Mapping[str, Judge],
    distances: Mapping[str, FrechetDistance],
    given: Sequence[str],
    inception: Inception | None = None,
) -> tuple[dict[str, dict[str, float]], Tensor]:
    """Score what is decoded from one z ~ q(z|x_given) for each of N test examples.

    Args:
        judges: by the name of the target.
        distances: to the test examples, see `distances_to`.
        given: the modalities. Without any, z comes from the prior, and there is no coherence.
        inception: images -> features, see `reports.frechet_distances.inception_features`.

    Returns:
        {target: {"coherence", "macro" (shares in [0, 1]), "FD" (Frechet distance of the judge's features), "FID" (that
        of Inception's, if given)}}, and the points of q(z|x_given), (N, D).
    """
    model, labels = test.model, test.labels[:, 0]

    def scored(rows: Tensor) -> dict[str, Tensor]:
        z, point = test.sample_and_point(rows, given)
        values = model.likelihood.point(model.decode(z))
        right = {f"right {name}": judge.read(values)[:, 0].cpu() == labels[rows] for name, judge in judges.items()}
        return right | _features(values, judges, inception) | {"point": point.cpu()}

    columns = distributed.map_rows(len(test), BATCH_SIZE, scored, f"given {', '.join(given) or 'nothing'}")
    scores = {}
    for target in judges:
        right, names = columns[f"right {target}"], [name for name in ("FD", "FID") if f"{name} {target}" in distances]
        frechet = {name: distances[f"{name} {target}"](columns[f"{name} {target}"]) for name in names}
        shares = {"coherence": right.double().mean().item(), "macro": macro_accuracy(right, labels)}
        scores[target] = (shares if given else {}) | frechet
    return scores, columns["point"]


def linear_accuracies(train: Encoded, test: Encoded, given: Sequence[str], points: Tensor) -> dict[str, float]:
    """How often a logistic regression tells the label from the point of q(z|x_given), on test examples.

    It is fitted to the first `N_LINEAR` training examples (Sutter et al. 2021; their code draws them with replacement).

    Args:
        points: of the test examples, (N, D).

    Returns:
        {"linear accuracy"} from the shared latents, in [0, 1]; if the model has private ones, also {"linear accuracy,
        private"}, from those of all modalities together.

    Raises:
        InputError: the training examples show only one label.
    """
    few = train.first(N_LINEAR)
    labels, expected = few.labels[:, 0], test.labels[:, 0]
    require(len(labels.unique()) > 1, "the linear accuracy needs training examples of two labels: raise --limit")
    z = few.points(given)
    accuracies = {}
    for which, part in latent_parts(test.model.n_shared).items():
        fitted = LogisticRegression(max_iter=1000).fit(z[:, part], labels)
        accuracies[f"linear accuracy{which}"] = float(fitted.score(points[:, part], expected))
    return accuracies


class SubsetScores(NamedTuple):
    """Scores given one subset of the modalities.

    targets: {target: scores}, see `scores_given`.
    latents: see `linear_accuracies`; none of the prior.
    """

    targets: dict[str, dict[str, float]]
    latents: dict[str, float]


def scores_by_subset(
    train: Encoded, test: Encoded, judges: Mapping[str, Judge], inception: Inception | None = None
) -> dict[tuple[str, ...], SubsetScores]:
    """Scores given every subset of the modalities, by their names; () is the prior.

    Args:
        judges: by the modality that they judge, others are not scored; those without `features` have no distances.
        inception: images -> features; None leaves "FID" out.
    """
    distances = distances_to(test.examples, judges, inception)
    prior, _ = scores_given(test, judges, distances, (), inception)
    subsets = {(): SubsetScores(prior, {})}
    for given in named_subsets(test.model.modalities):
        targets, points = scores_given(test, judges, distances, given, inception)
        subsets[given] = SubsetScores(targets, linear_accuracies(train, test, given, points))
    return subsets


def scores_by_size(subsets: Mapping[tuple[str, ...], SubsetScores]) -> dict[int, dict[str, float]]:
    """Scores by the number of modalities that are given, {number: {score: value}}; 0 is the prior.

    "coherence" and "macro", in [0, 1], are means over the subsets of a size and the targets that are not given;
    "spread" is the standard deviation of "coherence" over the subsets; "given targets" is the coherence of given
    targets. "FD" is a mean over targets that are not given. "FID" is a mean over all targets, given ones too; it
    decodes one image for each test example (MMVAE+'s code). Both leave out targets whose judges have no features. The
    scores of `linear_accuracies` are means over the subsets.
    """
    rows = {}
    for given, (targets, latents) in subsets.items():
        inside = [x for name, x in targets.items() if name in given]
        outside = [x for name, x in targets.items() if name not in given]
        row = {"given targets": _means(inside)["coherence"]} if inside else {}
        row |= _means(outside) | {name: x for name, x in _means([*targets.values()]).items() if name == "FID"}
        rows.setdefault(len(given), []).append(row | latents)
    sizes = {}
    for size, of_size in rows.items():
        sizes[size] = _means(of_size)
        each = torch.tensor([row["coherence"] for row in of_size if "coherence" in row], dtype=torch.float64)
        if len(each):
            sizes[size]["spread"] = each.std(correction=0).item()
    return sizes


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score over those that have it."""
    names = dict.fromkeys(name for x in scores for name in x)
    return {name: fmean([x[name] for x in scores if name in x]) for name in names}

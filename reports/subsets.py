"""What a model makes of each subset of its modalities: coherence, distances to test images, classes in latents."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean, pstdev
from typing import NamedTuple

from common.data.batches import Examples
from common.errors import require
from common.execution import processes
from common.multimodal_vae import MultimodalVAE
from common.private_latents import latent_parts
from common.subsets import named_subsets
from reports.metrics import BATCH_SIZE, Judge, by_rows
from reports.tables import Table, percent

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

Inception = Callable[[Tensor], Tensor]  # images (N, 3, H, W) -> features (N, F)
SubsetScores = dict[str, dict]  # {"targets": {target: scores}, "latents": scores}; the prior has none of the latter
N_LINEAR = 500  # training examples of a linear classifier of latents, as in MoPoE's paper


class Posteriors(NamedTuple):
    """The posteriors q(z|x_S) of N labelled examples that lack no modality, for every subset S.

    model: whose posteriors they are.
    examples: of the model's modalities, on its device.
    labels: what they show, (N, G) int64, on the CPU.
    """

    model: MultimodalVAE
    examples: Examples
    labels: Tensor

    def point(self, rows: Tensor, given: Sequence[str]) -> Tensor:
        """The mean of q(z|x_given) for each example in rows (B,): (B, D).

        For a mixture it is the mean of one component, drawn for each example (as in MoPoE's code): the average over the
        components may be a z that none of them generates.
        """
        q = self.model.posterior(self.examples[rows], given)
        return (q.drawn_component() if given else q).point

    @torch.no_grad()
    def points(self, given: Sequence[str], n: int | None = None) -> Tensor:
        """The points of the first n examples, by default all, (N, D), on the CPU."""
        n = min(len(self.examples), n or len(self.examples))
        return by_rows(n, lambda rows: self.point(rows, given).cpu())


@torch.no_grad()
def ssim(test: Posteriors, images: Sequence[str]) -> dict[str, Tensor]:
    """The structural similarity of images and their reconstructions from `Posteriors.point` given X, and given x_m.

    (Wang et al. 2004, with scikit-image's defaults: windows of 7 x 7 pixels, the mean over channels.) Decoded images
    are clamped to [0, 1], as pictures show them.

    Args:
        images: the modalities that are images (B, C, H, W) in [0, 1].

    Returns:
        {"SOURCE -> TARGET": (N,), similarities in [-1, 1]}, with the source "all" for X, else the target itself.
    """
    from skimage.metrics import structural_similarity

    model = test.model
    images = [name for name in images if name in model.modalities]
    sources = {"all": (model.modalities, images)} if len(model.modalities) > 1 else {}
    sources |= {name: ((name,), [name]) for name in images}

    def similarities(x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(x.clamp(0, 1).cpu().numpy(), y.cpu().numpy(), strict=True)
        return torch.tensor([structural_similarity(a, b, data_range=1, channel_axis=0) for a, b in pairs])

    def scored(rows: Tensor) -> dict[str, Tensor]:
        given, columns = test.examples[rows].modalities, {}
        for source, (names, targets) in sources.items():
            decoded = model.likelihood.point(model.decode(test.point(rows, names), targets))
            columns |= {f"{source} -> {name}": similarities(decoded[name], given[name]) for name in targets}
        return columns

    return processes.map_rows(len(test.examples), BATCH_SIZE, scored, "SSIM")


class Moments(NamedTuple):
    """The mean (F,) of features, and a root R (min(N, F), F) of their covariance R^T R, in float64."""

    mean: Tensor
    root: Tensor


def moments(features: Tensor) -> Moments:
    """The moments of features (N, F).

    Raises:
        InputError: fewer than two examples, or features that are not finite.
    """
    require(len(features) > 1, "a Frechet distance needs two examples or more: raise --limit or --n-test")
    require(bool(features.isfinite().all()), "features are not finite: check the model's weights and the judge's")
    mean = features.double().mean(dim=0)
    return Moments(mean, torch.linalg.qr((features - mean) / (len(features) - 1) ** 0.5, mode="r").R)


def frechet_distance(x: Moments, y: Moments) -> float:
    r"""The Frechet distance between Gaussians with these moments (Heusel et al. 2017, arXiv 1706.08500).

    .. math:: |\mu_x - \mu_y|^2 + Tr \big( \Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2} \big)

    With roots of the covariances, the last trace is the sum of the singular values of :math:`R_x R_y^T`. It is called
    FID only for the features of Inception-v3.
    """
    cross = torch.linalg.matrix_norm(x.root @ y.root.T, "nuc")
    distance = (x.mean - y.mean).square().sum() + x.root.square().sum() + y.root.square().sum() - 2 * cross
    return distance.clamp(min=0).item()


@torch.no_grad()
def scores_by_subset(
    train: Posteriors, test: Posteriors, judges: Mapping[str, Judge], inception: Inception | None = None
) -> dict[tuple[str, ...], SubsetScores]:
    """Scores given every subset S of the modalities, by their names; () is the prior.

    From one z ~ q(z|x_S) of each test example a target is decoded. Its scores are "coherence" and "macro", shares in
    [0, 1] that the prior lacks, "FD", the Frechet distance of the judge's features, and "FID", that of Inception's. The
    latents have `linear_accuracies`.

    Args:
        judges: by the modality that they judge, others are not scored; those without `features` have no distances.
        inception: images -> features, such as `polymnist.inception`'s; None leaves "FID" out.
    """
    model, labels, n = test.model, test.labels[:, 0], len(test.examples)
    compared = {target: judge.features for target, judge in judges.items() if judge.features is not None}

    def features(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {f"FD {target}": of_judge(values).cpu() for target, of_judge in compared.items()}
        return found | ({f"FID {target}": inception(values[target]).cpu() for target in compared} if inception else {})

    def decoded(given: Sequence[str], rows: Tensor) -> dict[str, Tensor]:
        q = model.posterior(test.examples[rows], given)
        z, point = q.sample_and_point() if given else (q.sample(), q.point)
        values = model.likelihood.point(model.decode(z))
        right = {f"right {name}": judge.read(values)[:, 0].cpu() == labels[rows] for name, judge in judges.items()}
        return right | features(values) | {"point": point.cpu()}

    seen = processes.map_rows(n, BATCH_SIZE, lambda rows: features(test.examples[rows].modalities), "features")
    reference, subsets = {name: moments(x) for name, x in seen.items()}, {}
    for given in ((), *named_subsets(model.modalities)):
        columns = processes.map_rows(n, BATCH_SIZE, partial(decoded, given), f"given {', '.join(given) or 'nothing'}")
        targets = {target: {} for target in judges}
        for target in judges if given else ():
            right = columns[f"right {target}"].double()
            by_class = [right[labels == c].mean() for c in labels.unique()]
            targets[target] = {"coherence": right.mean().item(), "macro": torch.stack(by_class).mean().item()}
        for name, of_test in reference.items():
            kind, target = name.split(" ", 1)
            targets[target][kind] = frechet_distance(moments(columns[name]), of_test)
        latents = linear_accuracies(train, test, given, columns["point"]) if given else {}
        subsets[given] = {"targets": targets, "latents": latents}
    return subsets


def linear_accuracies(train: Posteriors, test: Posteriors, given: Sequence[str], points: Tensor) -> dict[str, float]:
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
    labels, expected = train.labels[:N_LINEAR, 0], test.labels[:, 0]
    z, parts = train.points(given, N_LINEAR), latent_parts(test.model.n_shared)
    return {
        f"linear accuracy{which}": linear_accuracy((z[:, part], labels), (points[:, part], expected))
        for which, part in parts.items()
    }


def linear_accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """How often a logistic regression that is fitted to training examples tells the labels of test examples, in [0, 1].

    Args:
        train, test: latents (N, D) and labels (N,), on the CPU.

    Raises:
        InputError: the training examples show only one label.
    """
    require(len(train[1].unique()) > 1, "the linear accuracy needs training examples of two labels: raise --limit")
    return float(LogisticRegression(max_iter=1000).fit(*train).score(*test))


def scores_by_size(subsets: Mapping[tuple[str, ...], SubsetScores]) -> dict[int, dict[str, float]]:
    """Scores by the number of modalities that are given, {number: {score: value}}; 0 is the prior.

    "coherence" and "macro", in [0, 1], are means over the subsets of a size and the targets that are not given;
    "spread" is the standard deviation of "coherence" over the subsets; "given targets" is the coherence of given
    targets. "FD" is a mean over targets that are not given. "FID" is a mean over all targets, given ones too; it
    decodes one image for each test example (MMVAE+'s code). Both leave out targets whose judges have no features. The
    scores of `linear_accuracies` are means over the subsets.
    """
    rows = {}
    for given, scores in subsets.items():
        targets = scores["targets"]
        inside = [x for name, x in targets.items() if name in given]
        outside = [x for name, x in targets.items() if name not in given]
        row = {"given targets": _means(inside)["coherence"]} if inside else {}
        row |= _means(outside) | {name: x for name, x in _means([*targets.values()]).items() if name == "FID"}
        rows.setdefault(len(given), []).append(row | scores["latents"])
    sizes = {}
    for size, of_size in rows.items():
        sizes[size] = _means(of_size)
        if "coherence" in sizes[size]:
            sizes[size]["spread"] = pstdev([row["coherence"] for row in of_size if "coherence" in row])
    return sizes


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score over those that have it."""
    names = dict.fromkeys(name for x in scores for name in x)
    return {name: fmean([x[name] for x in scores if name in x]) for name in names}


def by_size_table(sizes: Mapping[int, Mapping[str, float]]) -> Table:
    """The table of what is generated and what latents hold by the number of given modalities."""
    distances = [name for name in ("FD", "FID") if name in sizes[0]]
    accuracies = [name for name in ("linear accuracy", "linear accuracy, private") if name in sizes[1]]
    columns, rows = ("coherence", "macro", "spread", "given targets", *accuracies, *distances), []
    for n, scores in sizes.items():
        shown = {c: f"{x:.2f}" if c in distances else percent(x) for c, x in scores.items()}
        rows.append([str(n), *(shown.get(c, "") for c in columns)])
    head = ["modalities given", *(c if c in distances else f"{c}, %" for c in columns)]
    notes = (
        "Coherence: mean over subsets and over the targets that are not given; macro: the same with equal weights of "
        "the classes; spread: the standard deviation of coherence over subsets; given targets: coherence of the "
        "modalities that are given. Linear accuracy: from the shared latents. FD: Frechet distance between the judges' "
        "features of decoded and of test images; with 0 given, z comes from the prior."
    )
    if "FID" in distances:
        notes += " FID: the same of Inception's features, mean over all targets, those that are given too."
    return Table("by_size", {str(n): dict(x) for n, x in sizes.items()}, head, rows, notes=notes)

"""The tables of analyse.py."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor

from reports.subset_metrics import SubsetScores, scores_by_size
from reports.tables import Estimates, Table, attribute_table, count, decimals, estimate_table, percent

FEW_EXAMPLES = 1000  # in training; fewer give the linear classifiers of latents too few steps
TRUSTED = 0.8  # share of the test examples that a judge has to read rightly


class Figures(NamedTuple):
    """What an analysis has measured: means over examples with their standard errors, and more.

    shares: of right labels, in [0, 1].
    by_label: columns of the table by label, {title: (G,)}; none for a single label.
    nats: KLs.
    ssim: structural similarities, {"SSIM, PAIR": estimate}.
    by_subset: by the given modalities, see `reports.subset_metrics`.
    parameters: {network: number of trained parameters}.
    """

    shares: Estimates
    by_label: dict[str, Tensor]
    nats: Estimates
    ssim: Estimates
    by_subset: dict[tuple[str, ...], SubsetScores]
    parameters: dict[str, int]

    @property
    def by_size(self) -> dict[int, dict[str, float]]:
        """The means of `by_subset`, {number of given modalities: {score: value}}."""
        return scores_by_size(self.by_subset)


def figure_tables(
    figures: Figures, experiment: str, head: str, labels: Sequence[str], label: str, notes: str
) -> list[Table]:
    """The tables of the figures: shares in %, by number of given modalities, SSIM, by label, KLs, parameters.

    Args:
        head: what was scored, the title of the first column.
        labels: the names of the G labels.
        label: what a label is.
        notes: below the shares.
    """
    shown = [estimate_table(figures.shares, (head, "%"), percent, notes)]
    if figures.by_subset:
        shown += [by_size_table(figures.by_size), by_subset_table(figures.by_subset)]
    if figures.ssim:
        shown.append(estimate_table(figures.ssim, ("reconstruction", "similarity"), partial(decimals, n=3)))
    if figures.by_label:
        rows = {name: {title: x[i].item() for title, x in figures.by_label.items()} for i, name in enumerate(labels)}
        shown.append(attribute_table(rows, label=label))
    return [*shown, kl_table(figures.nats, head), parameter_table(figures.parameters, experiment)]


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


def by_subset_table(subsets: Mapping[tuple[str, ...], SubsetScores]) -> Table:
    """The scores of each subset, for the JSON alone; "" is the prior."""
    return Table("by_subset", {", ".join(given): x._asdict() for given, x in subsets.items()}, (), ())


def kl_table(nats: Estimates, head: str) -> Table:
    """The table of KLs, with a note that explains J if a figure is one."""
    notes = "J: the mean of the KLs in both directions." if any(name.startswith("J(") for name in nats) else ""
    return estimate_table(nats, (head, "nats"), partial(decimals, n=2), notes)


def parameter_table(n_parameters: Mapping[str, int], experiment: str) -> Table:
    """The table of the networks' numbers of parameters."""
    return Table(
        "parameters", n_parameters, (experiment, "parameters"), [(name, f"{n:,}") for name, n in n_parameters.items()]
    )


def few_training_examples(n: int) -> str:
    """A warning if the linear classifiers of latents were trained on few examples; else empty."""
    if n >= FEW_EXAMPLES:
        return ""
    return f"Latent accuracy may be far too low: its linear classifiers took few steps, on {n} training examples."


def left_out(n: int) -> str:
    """A note on test examples that are not scored; empty if there are none."""
    return f"Without {count(n, 'test example')} that lack a modality." if n else ""


def weak_judges(shares: Estimates) -> str:
    """A warning about classifiers that are seldom right, whose judgement says little; empty if there are none."""
    judges = {name: x["mean"] for name, x in shares.items() if name.startswith("classifier")}
    weak = [f"{name} ({percent(x)} %)" for name, x in judges.items() if x < TRUSTED]
    return f"Coherence says little where its judge errs on the test examples: {', '.join(weak)}." if weak else ""

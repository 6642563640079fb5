"""Weakly supervised learning: how well is the label inferred where few images are paired with their labels?

(Wu & Goodman 2018, section 5.2.) Each folder's weak_supervision.py gives its experiment and its task.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from common.checkpoints import load_model
from common.data.batches import Examples
from common.data.splits import draw_paired
from common.errors import require, require_different, require_positive
from common.execution import devices
from common.io import AGAIN, read_json, write_atomically
from common.models import choices
from common.progress import progress_bar
from reports import plots, tables
from training import options
from training.experiment import Experiment, run
from training.options import RunConfig
from training.parallel import default_jobs, in_parallel, logged

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

AT_ONCE = 500  # images
UNPAIRED = tuple(name for name in choices.PAIR_MODELS if choices.MODELS[name].unpaired)


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """The share of right labels, both (N, G)."""
    return (predicted == labels).double().mean().item()


class Task(NamedTuple):
    """What is inferred from the image.

    modalities: those whose values (N,) or (N, G) are the labels, from 0 to n_values - 1; G counts those of all.
    n_values: number of values of a label.
    score: predicted labels (N, G), true ones (N, G) -> their agreement in [0, 1].
    score_name: the score's name, on the plot's axis.
    """

    modalities: tuple[str, ...]
    n_values: int
    score: Callable[[Tensor, Tensor], float] = accuracy
    score_name: str = "accuracy of the label from the image"

    def labels(self, values: Mapping[str, Tensor]) -> Tensor:
        """The labels of N examples, given or inferred, (N, G) int64."""
        return torch.cat([values[name].reshape(len(values[name]), -1).round().long() for name in self.modalities], 1)


@dataclass(kw_only=True)
class WeakSupervisionOptions:
    """The options of all weak_supervision.py, beside those of train.py."""

    fractions: tuple[float, ...] = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
    """fractions of the training images that are paired with their labels; as in the paper, 0.1% to 100%"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """one run for each seed"""
    classifier_steps: int = 1000
    """training steps of each classifier, raised to --epochs passes over its images where these are more"""
    model: Literal[UNPAIRED] = "mvae"
    """the models that learn from unpaired examples (see python train.py --help)"""
    jobs: int | None = None
    """runs at once, each in a process. None: one per core; one with --cuda"""
    save_dir: Path = Path("weak_supervision")
    """folder for the runs, the table and the plot"""
    # set by each run, or without use here
    valid: tyro.conf.Suppress[int] = 0
    resume: tyro.conf.Suppress[bool] = True
    seed: tyro.conf.Suppress[int] = 0
    paired_fraction: tyro.conf.Suppress[float] = 1.0
    experiment: tyro.conf.Suppress[str] = ""
    settings: tyro.conf.Suppress[str] = "recommended"
    patience: tyro.conf.Suppress[int | None] = None

    def check(self) -> None:
        super().check()
        require_different(self, "fractions", "seeds")
        for fraction in self.fractions:
            require(0 < fraction <= 1, f"--fractions must lie in (0, 1], not {fraction}")
        require_positive(self, "jobs", "classifier_steps")
        for config in self.runs():
            config.check()

    def runs(self) -> list[RunConfig]:
        """The configurations of train.py, one for each fraction and seed."""
        kind = next(base for base in type(self).__mro__ if not issubclass(base, WeakSupervisionOptions))
        config = kind(**{field.name: getattr(self, field.name) for field in fields(kind)})
        return [
            replace(config, paired_fraction=fraction, seed=seed, save_dir=self.save_dir / f"{fraction}_seed{seed}")
            for fraction in self.fractions
            for seed in self.seeds
        ]


class Result(NamedTuple):
    """Scores on the test images, in [0, 1]."""

    fraction: float
    n_paired: int
    seed: int
    model: float
    classifier: float


def train_all(config: Any, experiment: Callable[[], Experiment], task: Task) -> list[Result]:  # noqa: ANN401 (a RunConfig with `WeakSupervisionOptions`)
    """Train all models and classifiers, and report their scores.

    Args:
        experiment: makes the experiment; one of its modalities is the image.

    Raises:
        InputError: options or data that cannot be used.
    """
    config.check()
    load = experiment().load
    n = len(load("train", config))
    load("test", config)
    for fraction in config.fractions:
        require(round(fraction * n) > 0, f"--fractions {fraction} of {n} images leaves no pair: use a larger fraction")
    jobs = config.jobs or default_jobs(config.cuda)
    work, todo = partial(run_one, experiment=experiment, task=task, steps=config.classifier_steps), config.runs()
    results = sorted(progress_bar(in_parallel(work, todo, jobs), total=len(todo), unit=" runs"))
    report(results, config, experiment().name, task)
    return results


def run_one(config: RunConfig, experiment: Callable[[], Experiment], task: Task, steps: int) -> Result:
    """Train a model and its classifier, unless they exist already, and score both on the test images."""
    folder, trained = config.save_dir, experiment()
    with logged(folder):
        run(config, trained)
        device = devices.select(config.cuda)
    examples, test = trained.load("train", config), trained.load("test", config).to(device)
    paired = examples.take(draw_paired(examples, config.paired_fraction, config.seed)).to(device)
    steps = max(steps, config.epochs * len(paired) // config.batch_size)
    score_file = folder / f"classifier_{steps}.json"
    if not score_file.exists():
        network = classifier(config, trained.build, paired, task, steps)
        scored = score(lambda image: network(image).argmax(dim=2), test, task)
        write_atomically(score_file, json.dumps(scored).encode())
    model = load_model(folder, trained.name).to(device)

    def inferred(image: Tensor) -> Tensor:
        z = model.posterior({"image": image}).point
        return task.labels(model.likelihood.point(model.decode(z, task.modalities)))

    scored = read_json(score_file, float, AGAIN)
    return Result(config.paired_fraction, len(paired), config.seed, score(inferred, test, task), scored)


def classifier(
    config: RunConfig, build: Callable[..., nn.Module], paired: Examples, task: Task, steps: int
) -> nn.Module:
    """The image encoder with a linear layer in place of its heads, trained on the paired images by cross entropy."""
    torch.manual_seed(config.seed)
    *features, heads = build(config).encoder["image"]
    labels = task.labels(paired.modalities)
    shape = labels.shape[1], task.n_values
    linear = nn.Linear(heads.linear.in_features, shape[0] * shape[1])
    network = nn.Sequential(*features, linear, nn.Unflatten(1, shape)).to(paired.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, fused=True)
    for _ in range(steps):
        rows = torch.randint(len(paired), (config.batch_size,)).to(paired.device)
        optimizer.zero_grad()
        logits = network(paired[rows].modalities["image"])
        cross_entropy(logits.flatten(0, 1), labels[rows].flatten()).backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def score(predict: Callable[[Tensor], Tensor], test: Examples, task: Task) -> float:
    """The score of the labels (N, G) that are predicted from the test images."""
    predicted = [predict(batch.modalities["image"]) for batch in test.batches(AT_ONCE)]
    return task.score(torch.cat(predicted), task.labels(test.modalities))


def report(results: list[Result], config: Any, experiment: str, task: Task) -> None:  # noqa: ANN401 (as above)
    """Report mean and standard deviation over the seeds, in a table and a plot, and write all results."""
    fractions = sorted(config.fractions)
    by_fraction = [[result for result in results if result.fraction == fraction] for fraction in fractions]
    scores = {
        name: [[getattr(result, of) for result in group] for group in by_fraction]
        for name, of in ((config.model, "model"), ("classifier of the pairs alone", "classifier"))
    }
    n_paired = [group[0].n_paired for group in by_fraction]
    curves = {name: [tables.spread(values) for values in curve] for name, curve in scores.items()}
    seeds = tables.count(len(config.seeds), "seed")
    rows = [
        (f"{n:,}", *(f"{tables.over_seeds(values, tables.percent)} %" for values in row))
        for n, *row in zip(n_paired, *scores.values(), strict=True)
    ]
    table = tables.Table(
        "results",
        [result._asdict() for result in results],
        (f"{experiment}, paired examples", *curves),
        rows,
        notes=f"{task.score_name}; {seeds}{': mean and standard deviation' * (len(config.seeds) > 1)}.",
    )
    stem = config.save_dir / "weak_supervision"
    tables.report_runs(stem, experiment, table, {"config": options.as_json(config)})
    title = f"weakly supervised learning on {experiment}"
    plots.error_bars(stem.with_suffix(".png"), n_paired, curves, ("paired examples", task.score_name), title)
    print(f"{stem}.md, .json and .png")

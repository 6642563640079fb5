"""Weakly supervised learning on MNIST: how well is the label inferred where few images are paired with theirs?

    python analyse.py weak-supervision --data-dir data --precision bf16
    python analyse.py weak-supervision --demo --epochs 150 --annealing-epochs 20 --fractions 0.05 0.2 1 --seeds 0

For each fraction and seed a model is trained as `python train.py --paired-fraction F --seed S` does, with the options
given here, and beside it a classifier, the model's image encoder with one linear layer in place of its heads, on the
paired images alone. Writes a table and a plot of their accuracies on the test images, mean and standard deviation over
the seeds, into the save-dir, where each run has its folder. A run that is there is not repeated: the same command goes
on after Ctrl-C, or adds fractions and seeds.

The last model counts, and no example is held out: choosing the best one would take labels that are not to be had.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from common.checkpoints import load_model
from common.data import Examples, draw_paired
from common.errors import option, require
from common.io import write_atomically
from common.models import MultimodalVAE
from common.reporting import plots, tables
from common.training import Experiment, devices, options, run, run_from_command_line, runs
from common.training.parallel import in_parallel, logged, spread
from mnist import train
from mnist.model import N_CLASSES


@dataclass
class Config(train.Config):
    DEFAULTS_FROM: ClassVar = ""
    GROUPS: ClassVar = {"": ("analysis", "fractions", "seeds", "classifier_steps", "jobs")}

    analysis: tyro.conf.Positional[Literal["weak-supervision"]] = "weak-supervision"
    """what to analyse"""
    fractions: tuple[float, ...] = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
    """fractions of the training images that are paired with their labels. Default: as in the paper, 0.1% to 100%"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """one run for each seed"""
    classifier_steps: int = 1000
    """smallest number of batches that a classifier is trained on; it takes at least as many passes over its images as
    the model"""
    jobs: int | None = None
    """runs at once, each in a process. Default: one per core; one with --cuda"""
    save_dir: Path = Path("weak_supervision")
    """folder for the runs, the table and the plot"""
    epochs: int = 15
    """passes over the training examples"""
    annealing_epochs: int = 5
    """epochs over which the KL's weight rises from 0 to --beta"""
    batch_size: int = 200
    """batch size: this number of pairs, of images and of labels; also the classifier's batch size"""
    lr: float = 5e-4
    """learning rate of Adam, for the model and the classifier"""
    lambda_text: float = 1.0
    """weight of the label's log-likelihood. Default: tuned, see README.md"""
    model: Literal["mvae", "mvae-q", "bivcca", "mopoe"] = "mvae"
    """the models that learn from unpaired examples (see python train.py --help)"""
    # what each run has a value of its own for, or what makes no sense here
    valid: tyro.conf.Suppress[int] = 0
    resume: tyro.conf.Suppress[bool] = True
    seed: tyro.conf.Suppress[int] = 0
    paired_fraction: tyro.conf.Suppress[float] = 1.0
    experiment: tyro.conf.Suppress[str] = ""
    patience: tyro.conf.Suppress[int | None] = None
    alpha: tyro.conf.Suppress[float] = 0.1

    def check(self) -> None:
        super().check()
        for name in ("fractions", "seeds"):
            values = getattr(self, name)
            require(0 < len(values) == len(set(values)), f"{option(name)} must name each value once, not {values}")
        for name in ("jobs", "classifier_steps"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{option(name)} must be positive, not {value}")
        for config in self.runs():
            config.check()

    def runs(self) -> list[train.Config]:
        config = train.Config(**{field.name: getattr(self, field.name) for field in fields(train.Config)})
        return [
            replace(config, paired_fraction=fraction, seed=seed, save_dir=self.save_dir / f"{fraction}_seed{seed}")
            for fraction in self.fractions
            for seed in self.seeds
        ]


class Result(NamedTuple):
    """Accuracies on the test images, in [0, 1]."""

    fraction: float
    n_paired: int
    seed: int
    model: float
    classifier: float


def main(config: Config, experiment: Callable[[], Experiment] = train.experiment) -> list[Result]:
    """Train all models and classifiers, and report their accuracies.

    Args:
        experiment: makes the experiment, whose modalities are image and text.
    """
    config.check()
    if config.dry_run:
        print(json.dumps(options.as_json(config), indent=2))
        return []
    examples = experiment().load("train", config)
    experiment().load("test", config)
    for fraction in config.fractions:
        n = len(examples)
        require(round(fraction * n) > 0, f"--fractions {fraction} of {n} images is no pair at all: name a larger one")
    jobs = config.jobs or (1 if config.cuda else os.cpu_count())
    work = partial(run_one, experiment=experiment, steps=config.classifier_steps)
    todo = config.runs()
    results = []
    with tqdm(total=len(todo), unit=" runs", disable=None) as bar:
        for result in in_parallel(work, todo, jobs):
            results.append(result)
            bar.set_postfix(paired=result.n_paired, accuracy=f"{result.model:.3f}")
            bar.update()
    report(sorted(results), config, experiment().name)
    return sorted(results)


def run_one(config: train.Config, experiment: Callable[[], Experiment], steps: int) -> Result:
    """Train a model and its baseline, unless they exist already, and measure both on the test images."""
    folder, (name, load, build, *_) = config.save_dir, experiment()
    with logged(folder):
        run(config, experiment())
    device = devices.select(config.cuda)
    examples = load("train", config)
    test = load("test", config).to(device)
    paired = examples.take(draw_paired(examples, config.paired_fraction, config.seed)).to(device)
    steps = max(steps, config.epochs * len(paired) // config.batch_size)
    baseline = folder / f"classifier_{steps}.json"
    if not baseline.exists():
        write_atomically(baseline, json.dumps(accuracy(classifier(config, build, paired, steps), test)).encode())
    model = load_model(folder, name).to(device)
    inferred = accuracy(
        lambda image: model.decode(model.posterior({"image": image}).mean, ["text"])["text"].logits, test
    )
    return Result(config.paired_fraction, len(paired), config.seed, inferred, json.loads(baseline.read_text()))


def classifier(config: train.Config, build: Callable[..., MultimodalVAE], paired: Examples, steps: int) -> nn.Module:
    """The image encoder with a linear layer in place of its heads, trained on the paired images by cross entropy."""
    torch.manual_seed(config.seed)
    *features, heads = build(config).encoder["image"]
    network = nn.Sequential(*features, nn.Linear(heads.linear.in_features, N_CLASSES)).to(paired.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, fused=True)
    for _ in range(max(steps, 5 * len(paired) // config.batch_size)):
        batch = paired[torch.randint(len(paired), (config.batch_size,)).to(paired.device)].modalities
        optimizer.zero_grad()
        cross_entropy(network(batch["image"]), batch["text"]).backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def accuracy(logits: Callable[[Tensor], Tensor], test: Examples) -> float:
    """Share of the test images (N, 1, H, W) whose label has the highest of the logits (N, C)."""
    right = [logits(b.modalities["image"]).argmax(dim=1) == b.modalities["text"] for b in test.batches(500)]
    return torch.cat(right).double().mean().item()


def report(results: list[Result], config: Config, experiment: str) -> None:
    """Report mean and standard deviation over the seeds, in a table and a plot, and write all results."""
    curves = {
        name: [
            spread([getattr(result, of) for result in results if result.fraction == fraction])
            for fraction in sorted(config.fractions)
        ]
        for name, of in ((config.model, "model"), ("classifier of the pairs alone", "classifier"))
    }
    n_paired = [next(r.n_paired for r in results if r.fraction == fraction) for fraction in sorted(config.fractions)]
    rows = [
        (f"{n:,}", *(f"{100 * mean:.2f} ± {100 * std:.2f} %" for mean, std in row))
        for n, *row in zip(n_paired, *curves.values(), strict=True)
    ]
    table = tables.Table(
        "results",
        [result._asdict() for result in results],
        (f"{experiment}, paired examples", *curves),
        rows,
        notes=f"{len(config.seeds)} seeds: mean and standard deviation.",
    )
    stem = config.save_dir / "weak_supervision"
    settings = {"config": options.as_json(config), "commit": runs.git_commit()}
    tables.report_runs(stem, experiment, table, settings)
    plots.error_bars(
        stem.with_suffix(".png"),
        n_paired,
        curves,
        ("paired examples", "accuracy of the label from the image"),
        f"weakly supervised learning on {experiment}",
    )
    print(f"{stem}.md, .json and .png")


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)

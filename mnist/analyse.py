"""Weakly supervised learning on MNIST: how well is the label inferred where few images are paired with theirs?

    python analyse.py weak-supervision --data-dir data --precision bf16
    python analyse.py weak-supervision --demo --epochs 20 --fractions 0.01 0.1 1 --seeds 0 1

For each fraction and seed a model is trained (`python train.py --paired-fraction F --seed S` with the options given
here), and beside it a classifier, the model's image encoder with one linear layer in place of its heads, on the paired
images alone. Writes a table and a plot of their accuracies on the test images, mean and standard deviation over the
seeds, into the save-dir, where each run has its folder. A run that is there is not repeated: the same command goes on
after Ctrl-C, or adds fractions and seeds.

The last model counts, and no example is held out: choosing the best one would take labels that are not to be had.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from common import devices, plots, runs
from common.checkpoints import load_model, write_atomically
from common.data import Examples, unpair
from common.errors import require
from common.models import MultimodalVAE
from mnist import train
from mnist.data import MNIST, Dataset
from mnist.model import N_CLASSES, build


@dataclass
class Config(train.Config):
    analysis: tyro.conf.Positional[Literal["weak-supervision"]] = "weak-supervision"
    """what to analyse"""
    fractions: tuple[float, ...] = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
    """of the training images that are paired with their label"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """one run each"""
    classifier_steps: int = 1000
    """batches that a classifier is trained on; five passes over its images where these are more"""
    jobs: int | None = None
    """runs at a time, each a process; default: one a core, with --cuda one"""
    save_dir: Path = Path("weak_supervision")
    """where the runs, the table and the plot go"""
    epochs: int = 20
    """passes over the training examples"""
    annealing_epochs: int = 5
    """epochs over which the KL's weight rises from 0 to 1"""
    lambda_text: float = 10.0
    """weight of the label's log-likelihood"""
    model: Literal["mvae", "mvae-q", "bivcca", "mopoe"] = "mvae"
    """see `python train.py --help`: those that learn from unpaired examples"""
    valid: tyro.conf.Suppress[int] = 0
    resume: tyro.conf.Suppress[bool] = True
    seed: tyro.conf.Suppress[int] = 0
    paired_fraction: tyro.conf.Suppress[float] = 1.0

    def check(self) -> None:
        super().check()
        for run in self.runs():
            run.check()
        for name in ("jobs", "classifier_steps"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{runs.option(name)} must be positive, not {value}")
        require(bool(self.fractions and self.seeds), "name at least one of --fractions and of --seeds")

    def runs(self) -> list[train.Config]:
        common = {field.name: getattr(self, field.name) for field in fields(train.Config)}
        config = train.Config(**common)
        return [
            replace(config, paired_fraction=fraction, seed=seed, save_dir=self.save_dir / f"{fraction:g}_seed{seed}")
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


def main(config: Config, dataset: Dataset = MNIST, build: Callable[..., MultimodalVAE] = build) -> list[Result]:
    config.check()
    todo = config.runs()
    if config.dry_run:
        print("\n".join(json.dumps(runs.as_json(run)) for run in todo))
        return []
    jobs = config.jobs or (1 if config.cuda else os.cpu_count())
    work = partial(
        run, dataset=dataset, build=build, steps=config.classifier_steps, threads=max(1, os.cpu_count() // jobs)
    )
    results = []
    with tqdm(total=len(todo), unit=" runs", disable=None) as bar:
        for result in in_parallel(work, todo, jobs):
            results.append(result)
            bar.set_postfix(paired=result.n_paired, accuracy=f"{result.model:.3f}")
            bar.update()
    results.sort()
    table = tabulate(results, config.model, dataset.name)
    print(table)
    write_atomically(config.save_dir / "weak_supervision.md", table.encode())
    content = json.dumps([result._asdict() for result in results], indent=2)
    write_atomically(config.save_dir / "weak_supervision.json", content.encode())
    n_paired = sorted({result.n_paired for result in results})
    plots.error_bars(
        config.save_dir / "weak_supervision.png",
        n_paired,
        {
            config.model: [spread(results, n, "model") for n in n_paired],
            "classifier of the pairs alone": [spread(results, n, "classifier") for n in n_paired],
        },
        ("paired examples", "accuracy of the label from the image"),
        f"weakly supervised learning on {dataset.name}",
    )
    print(f"{config.save_dir}/weak_supervision.md, .json and .png")
    return results


def spread(results: list[Result], n_paired: int, of: str) -> tuple[float, float]:
    """Mean and standard deviation over the seeds (0 for one) of the "model" or the "classifier"."""
    values = torch.tensor([getattr(result, of) for result in results if result.n_paired == n_paired]).double()
    return values.mean().item(), values.std(correction=min(1, len(values) - 1)).item()


def tabulate(results: list[Result], model: str, experiment: str) -> str:
    lines = [
        f"| {experiment}, paired examples | {model} | classifier of the pairs alone | seeds |",
        "|---|---|---|---|",
    ]
    for n in sorted({result.n_paired for result in results}):
        cells = [
            f"{100 * m:.2f} ± {100 * std:.2f} %" for m, std in (spread(results, n, of) for of in Result._fields[-2:])
        ]
        lines.append(f"| {n:,} | {' | '.join(cells)} | {sum(result.n_paired == n for result in results)} |")
    return "\n".join(lines) + "\n"


def in_parallel(work: Callable[[train.Config], Result], todo: list[train.Config], jobs: int) -> Iterator[Result]:
    """The results as they come; a failure or Ctrl-C stops all runs, which --resume then."""
    if jobs == 1:
        yield from map(work, todo)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        try:
            yield from (future.result() for future in as_completed([pool.submit(work, run) for run in todo]))
        finally:
            pool.shutdown(cancel_futures=True)


def run(
    config: train.Config, dataset: Dataset, build: Callable[..., MultimodalVAE], steps: int, threads: int
) -> Result:
    """Train a model and its baseline, as far as they are not there yet, and measure both on the test images."""
    torch.set_num_threads(threads)
    config.save_dir.mkdir(parents=True, exist_ok=True)
    with (
        open(config.save_dir / "log.txt", "a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        train.main(config, dataset, build)
    device = devices.select(config.cuda)
    examples = dataset.load("train", config.data_dir, config.demo, limit=config.limit)
    test = dataset.load("test", config.data_dir, config.demo, limit=config.limit).to(device)
    paired = pairs(unpair(examples, config.paired_fraction, torch.Generator().manual_seed(config.seed))).to(device)
    require(len(paired) > 0, f"--fractions {config.paired_fraction:g} of {len(examples)} images is no pair at all")
    baseline = config.save_dir / "classifier.json"
    if not baseline.exists():
        write_atomically(baseline, json.dumps(accuracy(classifier(config, build, paired, steps), test)).encode())
    model = load_model(config.save_dir, dataset.name).to(device)
    inferred = accuracy(
        lambda image: model.decode(model.posterior({"image": image}).mean, ["text"])["text"].logits, test
    )
    return Result(config.paired_fraction, len(paired), config.seed, inferred, json.loads(baseline.read_text()))


def pairs(examples: Examples) -> Examples:
    """Those that have all modalities."""
    return examples if examples.mask is None else examples.take(examples.mask.all(dim=1))


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


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
